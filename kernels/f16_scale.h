/* SPDX-License-Identifier: MIT */
/* The f16 scale that ggml's block formats share: d, unless f16 cannot hold it. docs/formats.md, q8_0, step 3. */
#ifndef KVT_F16_SCALE_H
#define KVT_F16_SCALE_H

#include "kernels/code.h"

KVT_LANES uint32_t least_f16_scale(const kvt_tile_spec *spec)
{
    (void)spec;
    return 0x05000000; /* 2^-117 */
}

/* d of 16 blocks, possibly negative, infinite or NaN. */
KVT_LANES block_scale f16_scale(f32x16 d)
{
    const i32x16 bits = magnitude_bits(d);
    const mask16 is_zero = i32x16_gt(i32x16_set1(0x33000001), bits);            /* |d| <= 2^-25 */
    const mask16 is_unrepresentable = i32x16_gt(bits, i32x16_set1(0x477fefff)); /* |d| >= 65520 */
    const i32x16 zero = i32x16_set1(0);
    const i32x16 stored = i32x16_select(is_zero, zero, i32x16_select(is_unrepresentable, i32x16_set1(0x7fc00000), i32x16_from_f32_bits(d)));
    const i32x16 r = i32x16_from_f32_bits(f32x16_div(f32x16_set1(1.0f), d));
    block_scale s = {
        .scale = f32x16_from_bits(stored),
        .r = f32x16_from_bits(i32x16_select(is_zero, zero, i32x16_select(is_unrepresentable, zero, r))),
        .has_unrepresentable = mask16_any(is_unrepresentable),
    };
    if (s.has_unrepresentable)
        i32x16_store(s.unrepresentable, i32x16_select(is_unrepresentable, i32x16_set1(1), zero));
    return s;
}

#endif
