/* SPDX-License-Identifier: MIT */
/* The machine that is measured. */
#ifndef KVT_BENCH_MACHINE_H
#define KVT_BENCH_MACHINE_H

#include <stddef.h>

typedef struct machine {
    char cpu[80];
    char tiers[80]; /* usable ones, separated by blanks */
    char date[32];  /* UTC */
    size_t l1_bytes;
    size_t l2_bytes;
    size_t llc_bytes; /* the last level */
    const char *cache_source;
} machine;

void machine_look(machine *found);

#endif
