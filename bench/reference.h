/* SPDX-License-Identifier: MIT */
/* Attention as one would first write it: rows of f16 in order, f32 sums, a softmax with expf. Eight numbers at a time, as a compiler would make it of
 * a loop that says nothing of lanes, if it were allowed to change the order of sums. */
#ifndef KVT_BENCH_REFERENCE_H
#define KVT_BENCH_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether this CPU has f16 and fma for it. */
bool reference_exists(void);

/* Rows of keys and values are `dim` numbers, a multiple of 16, and follow each other; so do the queries' and results'. `logits`: room for
 * queries * tokens. */
void reference_attend(const uint16_t *keys, const uint16_t *values, size_t tokens, size_t dim, const float *query_rows, size_t queries, float scale,
                      float *logits, float *out);

#endif
