/* Numbers of q4_0, ggml's 4-bit grid: codes biased by 8, an f16 scale. docs/formats.md, section 4. */
#include "kernels/f16_scale.h"

KVT_LANES i32x16 magnitude(f32x16 x)
{
    return signed_magnitude(x);
}

KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    const i32x16 bits = i32x16_or(i32x16_shr(largest, 1), i32x16_shl(largest, 31));
    return f16_scale(f32x16_div(f32x16_from_bits(bits), f32x16_set1(-8.0f)));
}

/* x * r is in [-8, 8], so the sum is not negative and truncation is floor. */
KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    const f32x16 biased = f32x16_add(f32x16_mul(x, r), f32x16_set1(8.5f));
    return i32x16_min_u(i32x16_from_f32_trunc(biased), i32x16_set1(15));
}

KVT_LANES u8x64 pack(const i32x16 code[4], const kvt_table *table)
{
    (void)table;
    return u8x64_pack_u8(code);
}

/* Of levels: codes without the bias. */
KVT_LANES f32x16 decode(const uint8_t *codes, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(i32x16_load_s8(codes)), s);
}

static const code_steps steps = { magnitude, scale_of, encode, pack, decode, .least_scale = least_f16_scale, .has_small_blocks = true };

KVT_CODER_SCALES(q4_0, &steps, 2, 2)
KVT_CODER_ROWS(q4_0, &steps, 2)
KVT_CODER_EXPORT(q4_0, q4_0, &steps, &steps, 2, 2)
