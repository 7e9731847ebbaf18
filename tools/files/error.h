/* SPDX-License-Identifier: MIT */
/* What is wrong with an input, as one line for people: "<field> is <value>: <what would be right>", without the name of the file. */
#ifndef KVT_TOOLS_ERROR_H
#define KVT_TOOLS_ERROR_H

#include <stdarg.h>

/* Arguments are those of printf, which on Windows is mingw-w64's own. */
#if defined(__MINGW32__)
#define ERROR_FORMAT(text, first) __attribute__((format(gnu_printf, text, first)))
#else
#define ERROR_FORMAT(text, first) __attribute__((format(printf, text, first)))
#endif

typedef struct error_text {
    char text[400];
} error_text;

/* Always returns -1, so that a function can fail with `return error_set(...)`. */
ERROR_FORMAT(2, 3) int error_set(error_text *error, const char *format, ...);

/* The same of a list. Both keep what text_shown makes of it: one line, without control characters. */
ERROR_FORMAT(2, 0) int error_set_list(error_text *error, const char *format, va_list arguments);

/* Prints "who: argument: text" on stderr, as one line whatever bytes a file name holds. */
void error_print(const char *who, const char *argument, const char *text);

#endif
