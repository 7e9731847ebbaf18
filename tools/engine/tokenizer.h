/* SPDX-License-Identifier: MIT */
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
#include "tools/files/file.h"

#include <stdbool.h>
#include <stdio.h>

#define NO_TOKEN UINT32_MAX

/* Of llama2.c; tokens 3 .. 258 stand for single bytes. */
enum { TOKEN_BOS = 1, TOKEN_EOS = 2, TOKEN_FIRST_BYTE = 3 };

/* `bytes` is what it is found by: its text as the file has it, or, on the byte level, the bytes that this stands for. NULL: there is no such token.
 */
typedef struct token {
    const uint8_t *bytes;
    uint32_t length;
    float score;
    bool is_found; /* in texts; not what is only among the added tokens */
} token;

/* A token that is found in a text as it stands, before anything else. */
typedef struct added_token {
    const uint8_t *text;
    uint32_t length, number;
    bool takes_left, takes_right; /* white space around it */
} added_token;

/* Sorted by text. */
typedef struct added_tokens {
    added_token *list;
    size_t n;
} added_tokens;

/* Two tokens that make one; the lower the rank, the earlier. */
typedef struct merge {
    uint32_t left, right, merged, rank;
} merge;

typedef struct tokenizer {
    file_map map;
    uint32_t size;     /* the model's vocabulary */
    uint32_t n_tokens; /* the file's, if it has more, which is an error only where a text uses them */
    token *tokens;
    uint32_t *sorted; /* token numbers in the order of their bytes, for look-up */
    size_t n_sorted;
    size_t longest;            /* bytes of a token */
    uint32_t bos, eos;         /* or NO_TOKEN, as the next two */
    uint32_t unknown;          /* for characters without a token */
    uint32_t byte_tokens[256]; /* for their bytes */
    bool fuses_unknown;        /* unknown characters in a row are one token */
    bool takes_bytes;          /* texts may be any bytes, not only UTF-8 */
    bool byte_level;           /* a text is bytes, not characters */
    bool whole_first;          /* a piece that is a token is not merged from parts */
    bool space_first;          /* a space is put before a text */
    pretokens normaliser;      /* of what lies between added tokens; then */
    pretokens pieces;          /* no token reaches from one into the next */
    merge *merges;             /* by left and right; NULL: by texts and scores */
    size_t n_merges;
    added_tokens added;                  /* found in a text first, */
    added_tokens normalised_added;       /* and those that are found after normalising */
    uint8_t *memory, *normalised_memory; /* of texts that are not in the file */
} tokenizer;

/* llama2.c's file must hold exactly `size` tokens, the model's vocabulary; the others may lack some that models pad their vocabulary with, or have
 * more. 0, or -1 with the error; `words` then holds nothing. bos and eos of the others are not known: they are the model's. */
int tokenizer_open(tokenizer *words, const char *path, uint32_t size, error_text *error);
void tokenizer_close(tokenizer *words);

/* The lowest token of these bytes, or NO_TOKEN. */
uint32_t tokenizer_find(const tokenizer *words, const uint8_t *bytes, size_t length);

/* The order of texts that it is found by: as strcmp, of any bytes. */
int tokenizer_compare_bytes(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length);

/* Encodes text: BOS if wanted, then what the file says. The caller frees *out. An error where the text is not UTF-8 (unless the file is llama2.c's,
 * or GGUF of model "llama", which take any bytes), has a character without a token, or uses one that the model does not have. By one thread at a
 * time. */
int tokenizer_encode(const tokenizer *words, bool bos, const uint8_t *text, size_t length, uint32_t **out, size_t *n_out, error_text *error);

/* Writes the text of `token`: nothing for BOS and EOS. The token `before` it is words->bos where a text begins, whose first space is the one that
 * tokenizer_encode put there, and left out. */
void tokenizer_write(const tokenizer *words, uint32_t before, uint32_t token, FILE *stream);

#endif
