/* Numbers of q8_0 and kv8, which differ in their blocks only: int8 and an f16 scale. docs/formats.md, section 4. */
#include "kernels/f16_scale.h"

KVT_LANES i32x16 magnitude(f32x16 x)
{
    return magnitude_bits(x);
}

KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    return f16_scale(f32x16_div(f32x16_from_bits(largest), f32x16_set1(127.0f)));
}

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    return i32x16_from_f32_rne(f32x16_mul(x, r));
}

KVT_LANES u8x64 pack(const i32x16 code[4], const kvt_table *table)
{
    (void)table;
    return u8x64_pack_s8(code);
}

KVT_LANES f32x16 decode(const uint8_t *codes, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(i32x16_load_s8(codes)), s);
}

static const code_steps steps = { magnitude, scale_of, encode, pack, decode, .least_scale = least_f16_scale, .has_small_blocks = true };

KVT_CODER_SCALES(int8, &steps, 2, 2)
KVT_CODER_ROWS(int8, &steps, 2)
KVT_CODER_EXPORT(int8, int8, &steps, &steps, 2, 2)

KVT_CODER_SCALES(int8_row, &steps, 2, KVT_MAX_GROUPS)
KVT_CODER_ROWS(int8_row, &steps, KVT_MAX_GROUPS)
KVT_CODER_EXPORT(int8_row, int8_row, &steps, &steps, 2, KVT_MAX_GROUPS)
