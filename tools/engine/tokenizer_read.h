/* SPDX-License-Identifier: MIT */
/* What readers of tokenizers share: words->map is the file, and words->size the model's vocabulary. */
#ifndef KVT_ENGINE_TOKENIZER_READ_H
#define KVT_ENGINE_TOKENIZER_READ_H

#include "tools/engine/tokenizer.h"

enum {
    TOKENIZER_MERGES = 1 << 24, /* less than that: ranks are exact as floats */
    TOKENIZER_TOKENS = 1 << 22  /* more than any vocabulary has */
};

/* How sentencepiece writes a space. */
#define TOKENIZER_SPACE "\xe2\x96\x81"

/* How GPT-2 cuts a text into pieces. */
#define TOKENIZER_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* What tokenizer_open does with a file that is open; on success `file` is the tokenizer's. 0, or -1 with the error. */
int tokenizer_read(tokenizer *words, file_map file, uint32_t size, error_text *error);

int tokenizer_read_llama2(tokenizer *words, error_text *error);
int tokenizer_read_json(tokenizer *words, error_text *error);
int tokenizer_read_gguf(tokenizer *words, error_text *error);

/* Everything else is zero or NO_TOKEN. */
void tokenizer_begin(tokenizer *words, uint32_t size);

/* Makes room for the tokens 0 .. n_tokens - 1, and for added ones. 0, or -1 with the error. */
int tokenizer_make_room(tokenizer *words, size_t n_tokens, size_t n_added, error_text *error);

/* Sorts what look-up is by, when all tokens are known. 0, or -1 with the error. */
int tokenizer_sort(tokenizer *words, error_text *error);

/* Of merges of the same two tokens the first of the list is found, or the last. */
void tokenizer_sort_merges(tokenizer *words, bool last_counts);

/* The bytes that a token's text stands for on the byte level, where bytes are characters that can be printed. Returns how many, never more than
 * `length`; *whole: whether all of the text is such characters. */
uint32_t tokenizer_decode(const char *text, size_t length, uint8_t *out, bool *whole);

/* Whether it is "<0x41>", for any byte; letters are capitals. */
bool tokenizer_byte_name(const char *text, size_t length, unsigned *byte);

/* Whether there are as many tokens as the model has. It may have some more, so that its vocabulary is a round number. */
int tokenizer_check_size(const tokenizer *words, error_text *error);

#endif
