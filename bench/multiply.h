/* SPDX-License-Identifier: MIT */
/* How fast the CPU multiplies when it does nothing else: what no attention of a tier can beat, as it has to multiply that much.
 *
 * Work is counted in lines: 64 codes (16 tokens by 4 channels of K, or 16 channels by 4 tokens of V) times one term of a query head's numbers, or 16
 * numbers times one of a query head's (schemes of floats). */
#ifndef KVT_BENCH_MULTIPLY_H
#define KVT_BENCH_MULTIPLY_H

#include <kvtile/kvtile.h>

#include <stdbool.h>
#include <stddef.h>

typedef struct multiply_loops {
    unsigned dot_bits; /* KVT_DOT_BITS: 8 where dots are of bytes, 16 where codes are widened first */
    void (*dots)(size_t lines);
    void (*floats)(size_t lines);
} multiply_loops;

/* NULL where the tier has no vectors. */
const multiply_loops *multiply_of_tier(unsigned tier);

/* Lines of attention over the layout's tiles for `group` query heads and one KV head's `tokens`; *is_floats: which of the loops. */
size_t multiply_lines(const multiply_loops *loops, const kvt_layout *layout, uint32_t group, size_t tokens, bool *is_floats);

#endif
