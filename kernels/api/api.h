/* SPDX-License-Identifier: MIT */
/* What the parts of the public library share. */
#ifndef KVT_API_API_H
#define KVT_API_API_H

#include "arch/dispatch.h"
#include "kernels/api/sized.h"
#include "kernels/tile.h"

#include <stdbool.h>
#include <string.h>

extern const kvt_scheme_info kvt_schemes[];
extern const size_t kvt_schemes_count;
extern const uint8_t kvt_scheme_rows[]; /* the row of schemes.def that a scheme has, of those that there are */

/* Centres are rows of ggml's q8_0: an f16 scale per so many channels. */
enum { KVT_CENTRE_BLOCK = 32 };

enum { KVT_GROUP_CHANNELS = 16 }; /* what kernels work on at once: docs/formats.md, section 1 */

/* A tier mask of the API, where 0 means all, as one that this CPU can run; scalar is always in it. */
static inline uint32_t kvt_runnable(uint32_t tiers)
{
    const uint32_t usable = kvt_usable();
    return tiers ? (tiers & usable) | 1 : usable; /* tier 0 is scalar */
}

/* The highest of them. Every tier brings every kernel. */
static inline const kvt_tier *kvt_serving_tier(uint32_t tiers)
{
    const uint32_t runnable = kvt_runnable(tiers);
    const kvt_tier *tier = kvt_tiers + kvt_tiers_count - 1;
    while (tier > kvt_tiers && !(runnable >> tier->id & 1))
        tier--;
    return tier;
}

static inline size_t kvt_smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t kvt_larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* Pages that so many tokens begin. */
static inline size_t kvt_pages_of(size_t tokens)
{
    return tokens / KVT_PAGE_TOKENS + (tokens % KVT_PAGE_TOKENS != 0);
}

/* A side that may not be there; its options. */
static inline const kvt_side_layout *kvt_layout_side(const kvt_layout *layout, kvt_side side)
{
    return side == KVT_K ? &layout->k : side == KVT_V ? &layout->v : &layout->rope;
}
static inline const kvt_side_options *kvt_options_of(const kvt_layout *layout, kvt_side side)
{
    return side == KVT_K ? &layout->spec.k_options : side == KVT_V ? &layout->spec.v_options : &layout->spec.rope_options;
}

/* What a layout's seal has to be. Whatever is given a layout looks at it, so that one that was changed after kvt_layout_init cannot lead outside the
 * pages and rows that it describes. (Deriving the sizes anew costs more than a token takes to write.) Each step is a bijection of either word and of
 * what came before them, so no change of one word goes unseen. Words are taken in twos, because multiplying costs most: numbers of 32 bits in them
 * that change by less than 2^16 each cannot make up for each other. There are four chains, because each step waits for the one before. */
static inline uint64_t kvt_seal_rotated(uint64_t x, uint32_t n)
{
    return x << n | x >> (64 - n);
}
static inline uint64_t kvt_seal_step(uint64_t chain, const uint8_t *words)
{
    uint64_t x, y;
    memcpy(&x, words, 8);
    memcpy(&y, words + 8, 8);
    return kvt_seal_rotated((chain ^ (x + kvt_seal_rotated(y, 16))) * 0x9e3779b97f4a7c15, 29);
}
static inline uint64_t kvt_layout_seal(const kvt_layout *layout)
{
    enum { BYTES = offsetof(kvt_layout, seal), FOUR = BYTES / 64 * 64 };
    _Static_assert(BYTES % 64 == 48, "steps of four chains, and of three at the end");
    uint64_t a = 0x6b7674696c650001, b = 0x6b7674696c650002, c = 0x6b7674696c650003, d = 0x6b7674696c650004; /* "kvtile", 1 .. 4 */
    const uint8_t *at = (const uint8_t *)layout;
    for (const uint8_t *end = at + FOUR; at < end; at += 64) {
        a = kvt_seal_step(a, at);
        b = kvt_seal_step(b, at + 16);
        c = kvt_seal_step(c, at + 32);
        d = kvt_seal_step(d, at + 48);
    }
    a = kvt_seal_step(a, at);
    b = kvt_seal_step(b, at + 16);
    c = kvt_seal_step(c, at + 32);
    return a ^ b ^ c ^ d;
}

static inline bool kvt_is_sealed(const kvt_layout *layout)
{
    return layout->seal == kvt_layout_seal(layout);
}

/* What kernels have to know of a side that kvt_layout_init has accepted. */
static inline kvt_tile_spec kvt_tile_spec_of(const kvt_side_layout *side, const kvt_side_options *options)
{
    const kvt_scheme_code *scheme = &kvt_scheme_codes[kvt_scheme_rows[side->scheme]];
    kvt_tile_spec spec = {
        .scheme = scheme,
        .dim = side->padded_dim,
        .effort = options->effort,
        .block_groups = scheme->block_groups,
        .scale_bytes = scheme->scale_bytes,
    };
    if (scheme->is_fp8) {
        const bool is_row = options->fp8_block == 0, is_tensor = options->fp8_block == KVT_BLOCK_TENSOR;
        spec.block_groups = is_row || is_tensor ? KVT_MAX_GROUPS : options->fp8_block / KVT_GROUP_CHANNELS;
        spec.scale_bytes = is_tensor ? 0 : options->fp8_scale == KVT_FP8_SCALE_E8M0 ? 1 : KVT_SCALE_fp8;
        spec.tensor_scale = options->fp8_tensor_scale;
    }
    return spec;
}

#endif
