/* SPDX-License-Identifier: MIT */
/* The simplest loop that moves bytes: what no kernel can beat that has to read and write as much. */
#ifndef KVT_BENCH_FLOOR_H
#define KVT_BENCH_FLOOR_H

#include <stddef.h>

/* Reads `in_bytes` once and writes `out_bytes` once, the two streams side by side in their proportion; what is left beyond whole lines of 64 bytes
 * stays untouched. The widest plain vector loads and stores that the CPU has, whatever tier is measured beside it. */
void floor_move(const void *in, size_t in_bytes, void *out, size_t out_bytes);

#endif
