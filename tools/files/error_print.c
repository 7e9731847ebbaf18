/* SPDX-License-Identifier: MIT */
/* Apart from error.c, which is a part of libkvtile-model, where nothing prints. */
#include "tools/files/error.h"

#include "tools/files/text.h"

#include <stdio.h>

void error_print(const char *who, const char *argument, const char *text)
{
    char what[4 * 4096 + 4], why[4 * sizeof(error_text)]; /* the longest path, each byte as \x1b */
    text_shown(what, sizeof what, argument);
    text_shown(why, sizeof why, text);
    fprintf(stderr, "%s: %s: %s\n", who, what, why);
}
