/* SPDX-License-Identifier: MIT */
/* What is wrong with an input, as one line for people: "<field> is <value>: <what would be right>", without the name of the file. */
#ifndef KVT_TOOLS_ERROR_H
#define KVT_TOOLS_ERROR_H

#include <stdarg.h>

typedef struct error_text {
    char text[400];
} error_text;

/* Always returns -1, so that a function can fail with `return error_set(...)`. */
__attribute__((format(printf, 2, 3))) int error_set(error_text *error, const char *format, ...);

/* The same of a list. Both keep what text_shown makes of it: one line, without control characters. */
__attribute__((format(printf, 2, 0))) int error_set_list(error_text *error, const char *format, va_list arguments);

/* Prints "who: argument: text" on stderr, as one line whatever bytes a file name holds. */
void error_print(const char *who, const char *argument, const char *text);

#endif
