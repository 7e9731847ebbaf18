/* Pieces that a text is cut into before pairs are merged, as tokenizers of the byte level do it by regular expressions. Letters and numbers beyond
 * ASCII are what the C library calls so. */
#ifndef KVT_ENGINE_PRETOKENS_H
#define KVT_ENGINE_PRETOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pretokens_kind {
    PRETOKENS_WHOLE,  /* the text is one piece */
    PRETOKENS_SPACES, /* pieces begin with spaces */
    PRETOKENS_GPT2,   /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    PRETOKENS_LLAMA3  /* (?i:'s|...)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most_digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
} pretokens_kind;

typedef struct pretokens {
    pretokens_kind kind;
    bool lone_digits; /* each digit is a piece, before anything else is looked at */
    unsigned most_digits;
} pretokens;

/* Bytes of the first piece of a text that has at least one byte: 1 .. length. */
size_t pretokens_next(const pretokens *how, const uint8_t *text, size_t length);

/* Bytes of the character that a text begins with; of bytes that make none, 1. */
size_t pretokens_character(const uint8_t *text, size_t length);

#endif
