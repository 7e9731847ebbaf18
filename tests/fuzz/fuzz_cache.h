/* SPDX-License-Identifier: MIT */
/* What fuzz targets of caches share: layouts, strides and memory made out of the input. */
#ifndef KVT_FUZZ_CACHE_H
#define KVT_FUZZ_CACHE_H

#include <kvtile/kvtile.h>

#include <stdlib.h>
#include <string.h>

#include "target.h"

#define MAX_SPREAD (1 << 16) /* bytes from row to row */

/* The input, and zeros behind it. */
typedef struct source {
    const uint8_t *at;
    size_t left;
} source;

static inline uint32_t take(source *s, unsigned bytes)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < bytes && s->left > 0; i++, s->left--)
        value |= (uint32_t)*s->at++ << 8 * i;
    return value;
}

static inline float take_float(source *s)
{
    static const float usual[] = { 1, 0.125f, -0.5f, 30, 0 };
    const uint32_t kind = take(s, 1), bits = kind < 128 ? 0 : take(s, 4);
    float x;
    memcpy(&x, &bits, sizeof x);
    return kind < 128 ? usual[kind % 5] : x;
}

static inline void fill(source *s, uint8_t *to, size_t n)
{
    const uint8_t *from = s->at;
    const size_t have = s->left < n ? s->left : n;
    if (have == 0) {
        memset(to, 0x3c, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        to[i] = from[i % have];
    s->at += have / 2; /* the next one gets some of it too */
    s->left -= have / 2;
}

static inline void must(int condition)
{
    if (!condition)
        abort();
}

/* A block of exactly so many bytes, that is never NULL. */
static inline void *block(size_t bytes)
{
    void *memory = malloc(bytes > 0 ? bytes : 1);
    must(memory != NULL);
    return memory;
}

static inline kvt_side_options take_options(source *s)
{
    static const uint32_t rotations[] = { 0, 0, 64, 128 }, blocks[] = { 0, 32, 64, 128 };
    const uint32_t word = take(s, 1);
    return (kvt_side_options){ .rotation = (kvt_rotation)rotations[word & 3],
                               .centring = (kvt_centring)((word >> 2 & 3) % 3),
                               .fp8_block = (word & 64) != 0 ? blocks[word >> 4 & 3] : 0,
                               .fp8_scale = (word & 128) != 0 ? KVT_FP8_SCALE_E8M0 : KVT_FP8_SCALE_F32 };
}

static inline kvt_scheme take_scheme(source *s)
{
    size_t n = 0;
    while (kvt_scheme_at(n) != NULL)
        n++;
    return kvt_scheme_at(take(s, 1) % n)->scheme;
}

/* Rows in a grid: where the lowest begins, seen from row 0, and how many bytes there are. */
static inline size_t extent(ptrdiff_t token_stride, size_t tokens, ptrdiff_t head_stride, size_t heads, size_t row, size_t *before)
{
    const ptrdiff_t steps[2] = { token_stride * (ptrdiff_t)(tokens - 1), head_stride * (ptrdiff_t)(heads - 1) };
    size_t after = row;
    *before = 0;
    for (int i = 0; i < 2; i++) {
        if (steps[i] < 0)
            *before += (size_t)-steps[i];
        else
            after += (size_t)steps[i];
    }
    return *before + after;
}

static inline ptrdiff_t take_stride(source *s, size_t usual)
{
    const uint32_t kind = take(s, 1);
    const ptrdiff_t some = (ptrdiff_t)(take(s, 2) % MAX_SPREAD);
    return kind < 160 ? (ptrdiff_t)usual : kind < 200 ? -(ptrdiff_t)usual : kind < 230 ? some : -some;
}

#endif
