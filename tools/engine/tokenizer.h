/* Byte-pair encoding, from a file of one of three forms:
 *
 *   llama2.c's      int32 length of the longest token, then for each token f32 score, int32 length, bytes. Pairs are merged whose bytes make a
 *                   token, the one with the best score first.
 *   tokenizer.json  of Hugging Face, model type BPE (tokenizer_json.c): pairs are merged in the order of its list; characters without a token are
 *                   bytes ("byte fallback"), or everything is ("byte level").
 *   GGUF            of llama.cpp (tokenizer_gguf.c), models "llama" and "gpt2": either of these two.
 */
#ifndef KVT_ENGINE_TOKENIZER_H
#define KVT_ENGINE_TOKENIZER_H

#include "tools/engine/pretokens.h"
#include "tools/io/file.h"

#include <stdbool.h>
#include <stdio.h>

#define NO_TOKEN UINT32_MAX

/* Of llama2.c; tokens 3 .. 258 stand for single bytes. */
enum { TOKEN_BOS = 1, TOKEN_EOS = 2, TOKEN_FIRST_BYTE = 3 };

typedef struct token {
    const uint8_t *bytes;
    uint32_t length;
    float score;
} token;

/* Two tokens that make one; the lower the rank, the earlier. */
typedef struct merge {
    uint32_t left, right, merged, rank;
} merge;

typedef struct tokenizer {
    file_map map;
    uint32_t size;
    token *tokens;
    uint32_t *sorted; /* token numbers in the order of their bytes, for look-up */
    size_t n_sorted;
    uint32_t bos, eos;         /* or NO_TOKEN, as the next two */
    uint32_t unknown;          /* for characters without a token */
    uint32_t byte_tokens[256]; /* for their bytes */
    bool fuses_unknown;        /* unknown characters in a row are one token */
    bool space_first;          /* a space is put before a text, */
    bool unless_there;         /* unless it begins with one */
    bool byte_level;           /* a text is bytes, not characters */
    bool whole_first;          /* a piece that is a token is not merged from parts */
    pretokens pieces;          /* no token reaches from one into the next */
    merge *merges;             /* by left and right; NULL: by bytes and scores */
    size_t n_merges;
    uint32_t *added; /* tokens that are found in a text before anything else, the longest first */
    size_t n_added;
    uint8_t *memory; /* of bytes of tokens that are not in the file */
} tokenizer;

/* llama2.c's file must hold exactly `size` tokens, the model's vocabulary; the others may lack some that models pad their vocabulary with. 0, or
 * -1 with the error; `words` then holds nothing. bos and eos of the others are not known: they are the model's. */
int tokenizer_open(tokenizer *words, const char *path, uint32_t size, error_text *error);
void tokenizer_close(tokenizer *words);

/* Encodes text: BOS if wanted, a space before the text where the file wants it, then merges. The caller frees *out. */
int tokenizer_encode(const tokenizer *words, bool bos, const uint8_t *text, size_t length, uint32_t **out, size_t *n_out, error_text *error);

/* Writes the text of `token`: nothing for BOS and EOS. The token `before` it is words->bos where a text begins, whose first space is the one that
 * tokenizer_encode put there, and left out. */
void tokenizer_write(const tokenizer *words, uint32_t before, uint32_t token, FILE *stream);

#endif
