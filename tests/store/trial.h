/* SPDX-License-Identifier: MIT */
/* Random operations of several processes on one folder, of which some are killed: nobody is ever given a wrong block, and the budget is kept. */
#ifndef KVT_TESTS_STORE_TRIAL_H
#define KVT_TESTS_STORE_TRIAL_H

#include <stddef.h>
#include <stdint.h>

typedef struct trial {
    const char *folder; /* empty, or not there */
    uint64_t operations, kills, seed;
    unsigned processes;
    /* What was done: */
    uint64_t hits, misses, puts, damaged, checks;
} trial;

/* 0, or -1, and `why` says what was wrong. */
int trial_run(trial *run, char *why, size_t room);

#endif
