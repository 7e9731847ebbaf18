/* SPDX-License-Identifier: MIT */
/* Regular expressions of tokenizers, as Hugging Face's `tokenizers` matches them (Oniguruma, Ruby's syntax), by PCRE2.
 *
 * Taken is the part of the syntax that means the same in both, or is written so that it does: characters, ".", classes without sets in them, \s \S \d
 * \D, \r \n \t \v \f, \p{..} of a general category or of Han, Hiragana, Katakana and Hangul, groups, alternatives, looking ahead and behind, greedy,
 * lazy and possessive quantifiers, ^ and $ at line breaks, and (?i: ) around English contractions. Anything else is refused by name, and so is an
 * expression that matches nothing at all. Classes are of the Unicode version that PCRE2 has. */
#ifndef KVT_ENGINE_EXPRESSION_H
#define KVT_ENGINE_EXPRESSION_H

#include "tools/files/error.h"

#include <stddef.h>
#include <stdint.h>

typedef struct expression expression;

/* NULL with the error, which shows the pattern. */
expression *expression_open(const char *pattern, error_text *error);

/* Of these bytes alone. */
expression *expression_open_literal(const char *text, error_text *error);

/* May be NULL. */
void expression_close(expression *compiled);

/* The first match in text[from .. length): 1 with first < end, 0 where there is none, -1 with the error where it takes too long or no memory is left.
 * `text` is UTF-8, for a literal any bytes. By one thread at a time: an expression holds what matching needs. */
int expression_find(const expression *compiled, const uint8_t *text, size_t length, size_t from, size_t *first, size_t *end, error_text *error);

#endif
