/* SPDX-License-Identifier: MIT */
/* What workloads are made of: memory, numbers in it, and the time. */
#ifndef KVT_BENCH_BUFFERS_H
#define KVT_BENCH_BUFFERS_H

#include <kvtile/kvtile.h>

#include <stdbool.h>
#include <stddef.h>

typedef enum workload_size {
    WORKLOAD_FULL,
    WORKLOAD_QUICK, /* shorter samples */
    WORKLOAD_TINY   /* as little as makes sense, whatever the case's `where` says */
} workload_size;

enum { HUGE_PAGE = 2 << 20, LINE = 64 };

typedef struct arena {
    void *mapped;
    size_t mapped_bytes;
    unsigned char *base; /* on a huge page's boundary */
    size_t bytes;
} arena;

/* Makes needs[i] bytes of arenas[i] usable, in huge pages where the system has them, and touched (unless time does not matter): all buffers alike.
 * What was in them may be lost. Returns 0, or -1 with the error when that is more than half of the machine's memory, or than it gives. */
int arenas_need(arena *const *arenas, const size_t *needs, size_t n, bool touch, char *error, size_t error_room);

void arena_free(arena *memory);

/* Numbers as keys have them: a bell curve, with a few channels much wider than others. */
void fill_rows(void *rows, size_t n_rows, uint32_t dim, kvt_dtype dtype);

/* base[0 .. part-1] again and again. */
void fill_repeat(unsigned char *base, size_t part, size_t total);

/* n / unit, rounded up; at least 1. */
size_t divide_up(size_t n, size_t unit);

double seconds_now(void);

#endif
