/* SPDX-License-Identifier: MIT */
/* "Did you mean ...?" */
#ifndef KVT_NEAREST_H
#define KVT_NEAREST_H

#include <stddef.h>

/* The best match so far of what was typed. Starts as { .typed = text }; `name` stays NULL while nothing is close. */
typedef struct nearest {
    const char *typed;
    const char *name;
    size_t distance;
} nearest;

/* Letter case is ignored. */
void nearest_consider(nearest *best, const char *name);

#endif
