/* SPDX-License-Identifier: MIT */
#include "bench/multiply.h"

#define KVT_TIER_ROW(name, id, folder, brings, flags, needs)                                                                                         \
    extern const unsigned multiply_dot_bits_##name;                                                                                                  \
    void multiply_dots_##name(size_t lines);                                                                                                         \
    void multiply_floats_##name(size_t lines);
#include "arch/isa.def"
#undef KVT_TIER_ROW

const multiply_loops *multiply_of_tier(unsigned tier)
{
    static multiply_loops loops;
    switch (tier) {
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs)                                                                                         \
    case id:                                                                                                                                         \
        loops = (multiply_loops){ multiply_dot_bits_##name, multiply_dots_##name, multiply_floats_##name };                                          \
        break;
#include "arch/isa.def"
#undef KVT_TIER_ROW
    default:
        return NULL;
    }
    return tier == 0 ? NULL : &loops;
}

/* Of kernels/dots.c (query_terms, weight_terms): schemes with scales that are not FP8 multiply codes, the others floats. Codes are multiplied by
 * integers of 16 bits, which are two terms where dots are of bytes; one is enough of queries and weights for codes of
 * up to 5 bits. Rotary parts, a ninth of a latent's keys, are counted as if their scheme were the latent's. */
size_t multiply_lines(const multiply_loops *loops, const kvt_layout *layout, uint32_t group, size_t tokens, bool *is_floats)
{
    const kvt_scheme_info *scheme = kvt_scheme_get(layout->k.scheme);
    const bool is_bytes = loops->dot_bits == 8;
    const kvt_scheme_info *values = kvt_scheme_get((layout->v.dim > 0 ? layout->v : layout->k).scheme);
    const size_t k_terms = is_bytes && scheme->bits > 5 ? 2 : 1, v_terms = is_bytes && values->bits > 5 ? 2 : 1;
    const size_t tiles = (tokens + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS * (KVT_PAGE_TOKENS / KVT_TILE_TOKENS);
    const size_t numbers = tiles * KVT_TILE_TOKENS, k_numbers = numbers * (layout->k.padded_dim + layout->rope.padded_dim),
                 v_numbers = numbers * (layout->v.dim > 0 ? layout->v : layout->k).padded_dim;
    *is_floats = scheme->block == 0 || scheme->is_fp8;
    return *is_floats ? group * (k_numbers + v_numbers) / 16 : group * (k_numbers * k_terms + v_numbers * v_terms) / 64;
}
