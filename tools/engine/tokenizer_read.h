/* What readers of tokenizers share: words->map is the file, and words->size the model's vocabulary. */
#ifndef KVT_ENGINE_TOKENIZER_READ_H
#define KVT_ENGINE_TOKENIZER_READ_H

#include "tools/engine/tokenizer.h"

enum { TOKENIZER_MERGES = 1 << 24 }; /* less than that: ranks are exact as floats */

int tokenizer_read_json(tokenizer *words, error_text *error);
int tokenizer_read_gguf(tokenizer *words, error_text *error);

/* Sorts what look-up is by, when all tokens are known; -1: no memory. */
int tokenizer_sort(tokenizer *words);
void tokenizer_sort_merges(tokenizer *words);

/* The lowest token of these bytes, or NO_TOKEN; after tokenizer_sort. */
uint32_t tokenizer_find(const tokenizer *words, const uint8_t *bytes, size_t length);

/* The bytes that a token of the vocabulary stands for: spaces are written as U+2581, or, on the byte level, bytes as characters that can be printed.
 * Returns how many; never more than `length`. */
uint32_t tokenizer_decode(const tokenizer *words, const char *text, size_t length, uint8_t *out);

/* Whether it is "<0x41>", for any byte. */
bool tokenizer_byte_name(const char *text, size_t length, unsigned *byte);

/* Whether there are as many tokens as the model has. It may have some more, so that its vocabulary is a round number. */
int tokenizer_check_size(const tokenizer *words, error_text *error);

#endif
