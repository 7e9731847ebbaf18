/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/files/nearest.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

/* Characters to insert, delete or replace to make b from a; large when either is too long to be a name. */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    size_t row[LONGEST + 1];
    const size_t n = strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST)
        return SIZE_MAX;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            const size_t replaced = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            const size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = replaced < shorter ? replaced : shorter;
        }
    }
    return row[n];
}

void nearest_consider(nearest *best, const char *name)
{
    const size_t length = strlen(best->typed);
    const size_t allowed = length < 6 ? 2 : length / 3;
    /* The beginning of a name is close to it, however much is missing. */
    const size_t d = length > 1 && strncasecmp(best->typed, name, length) == 0 ? 1 : distance(best->typed, name);
    if (d <= allowed && d < length && (!best->name || d < best->distance)) {
        best->name = name;
        best->distance = d;
    }
}
