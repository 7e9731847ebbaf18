/* SPDX-License-Identifier: MIT */
/* JSON out: names of files in it, and the text of it, for people's terminals too. */
#ifndef KVT_TOOLS_JSON_H
#define KVT_TOOLS_JSON_H

#include <jansson.h>
#include <stdio.h>

/* A string; of text that is not UTF-8, what text_shown makes of it. NULL: no memory. */
json_t *json_text(const char *text);

/* Writes a value with jansson's `flags`. Characters that text_is_control keeps from people's terminals are written as \u202e, which means the same.
 * 0, or -1: no memory, a value that could not be made (NULL), or an error of the stream. */
int json_print(const json_t *value, FILE *stream, size_t flags);

/* The same inside of a script element of HTML: no text in it can end the element, or begin a comment. */
int json_print_in_page(const json_t *value, FILE *stream, size_t flags);

#endif
