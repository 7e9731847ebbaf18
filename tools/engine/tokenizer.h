/* llama2.c's tokenizer file and its byte-pair encoding: int32 length of the longest token, then for each token f32 score, int32 length, bytes. */
#ifndef KVT_ENGINE_TOKENIZER_H
#define KVT_ENGINE_TOKENIZER_H

#include "tools/io/file.h"

#include <stdbool.h>

/* Tokens 3 .. 258 stand for single bytes. */
enum { TOKEN_BOS = 1, TOKEN_EOS = 2, TOKEN_FIRST_BYTE = 3 };

typedef struct token {
    const uint8_t *bytes; /* in the file */
    uint32_t length;
    float score;
} token;

typedef struct tokenizer {
    file_map map;
    uint32_t size;
    token *tokens;
    uint32_t *sorted; /* token numbers in the order of their bytes, for look-up */
} tokenizer;

/* The file must hold exactly `size` tokens, the model's vocabulary. 0, or -1 with the error; `words` then holds nothing. */
int tokenizer_open(tokenizer *words, const char *path, uint32_t size, error_text *error);
void tokenizer_close(tokenizer *words);

/* Encodes text: BOS if wanted, a space before the text, then merges by score, the leftmost first among equals. The caller frees *out. */
int tokenizer_encode(const tokenizer *words, bool bos, const uint8_t *text, size_t length, uint32_t **out, size_t *n_out, error_text *error);

/* Writes the text of `token`: nothing for BOS and EOS. The token `before` it is TOKEN_BOS where a text begins, whose first space is the one that
 * tokenizer_encode put there, and left out. */
void tokenizer_write(const tokenizer *words, uint32_t before, uint32_t token, FILE *stream);

#endif
