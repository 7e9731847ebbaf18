/* SPDX-License-Identifier: MIT */
/* Numbers of q8_0, kv8 and q4_0, ggml's grids: integers times an f16 scale. docs/formats.md, section 4. */
#include "kernels/f16_scale.h"

/* Of integers, or of levels. */
KVT_LANES f32x16 decode_int(const uint8_t *codes, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(i32x16_load_s8(codes)), s);
}

/* ---- q8_0 and kv8, which differ in their blocks only ---- */

KVT_LANES block_scale int8_scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    return f16_scale(f32x16_div(f32x16_from_bits(largest), f32x16_set1(127.0f)));
}

KVT_LANES i32x16 int8_of(f32x16 x, f32x16 r)
{
    return i32x16_from_f32_rne(f32x16_mul(x, r));
}

KVT_LANES u8x64 pack_int8(const i32x16 code[4], const kvt_table *table)
{
    (void)table;
    return u8x64_pack_s8(code);
}

static const code_steps int8_steps = { magnitude_bits,          int8_scale_of, int8_of, pack_int8, decode_int, .least_scale = least_f16_scale,
                                       .has_small_blocks = true };

/* ---- q4_0: codes are biased by 8 ---- */

KVT_LANES block_scale q4_0_scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    const i32x16 bits = i32x16_or(i32x16_shr(largest, 1), i32x16_shl(largest, 31));
    return f16_scale(f32x16_div(f32x16_from_bits(bits), f32x16_set1(-8.0f)));
}

/* x * r is in [-8, 8], so the sum is not negative and truncation is floor. */
KVT_LANES i32x16 q4_0_of(f32x16 x, f32x16 r)
{
    const f32x16 biased = f32x16_add(f32x16_mul(x, r), f32x16_set1(8.5f));
    return i32x16_min_u(i32x16_from_f32_trunc(biased), i32x16_set1(15));
}

static const code_steps q4_0_steps = { signed_magnitude,        q4_0_scale_of, q4_0_of, pack_bytes, decode_int, .least_scale = least_f16_scale,
                                       .has_small_blocks = true };

#define INT_CODER(name, steps, per_block)                                                                                                            \
    KVT_CODER_SCALES(name, steps, 2, per_block)                                                                                                      \
    KVT_CODER_ROWS(name, steps, per_block)                                                                                                           \
    KVT_CODER_EXPORT(name, name, steps, steps, 2, per_block)

INT_CODER(int8, &int8_steps, 2)
INT_CODER(int8_row, &int8_steps, KVT_MAX_GROUPS)
INT_CODER(q4_0, &q4_0_steps, 2)
