/* SPDX-License-Identifier: MIT */
#include "tools/files/error.h"

#include "tools/files/text.h"

#include <stdio.h>

int error_set_list(error_text *error, const char *format, va_list arguments)
{
    char text[4 * sizeof error->text];
    vsnprintf(text, sizeof text, format, arguments);
    text_shown(error->text, sizeof error->text, text);
    return -1;
}

int error_set(error_text *error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error_set_list(error, format, arguments);
    va_end(arguments);
    return -1;
}
