/* Numbers of q8_0 and kv8, which differ in their blocks only: int8 and an f16 scale. */
#include "kernels/ggml_scale.h"

#define SCHEME_HAS_SCALES
#define CODES_SIGNED

KVT_LANES i32x16 magnitude(f32x16 x)
{
    return magnitude_bits(x);
}

KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    return ggml_scale(f32x16_div(f32x16_from_bits(largest), f32x16_set1(127.0f)));
}

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    return i32x16_from_f32_rne(f32x16_mul(x, r));
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(code), s);
}

enum { CODE_BIAS = KVT_DOT_BIAS };
KVT_LANES u8x64 biased_codes(u8x64 code)
{
    return KVT_DOT_BIAS ? u8x64_from_i32(i32x16_xor(i32x16_from_u8(code), i32x16_set1(0x80808080))) : code;
}
