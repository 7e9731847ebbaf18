/* SPDX-License-Identifier: MIT */
#include "tools/cli/size/size.h"

#include "tools/files/error.h"

#include <stdarg.h>
#include <stdio.h>

void size_say(const char *argument, const char *format, ...)
{
    char text[600];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    error_print("kvtile size", argument, text);
}
