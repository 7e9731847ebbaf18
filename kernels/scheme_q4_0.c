/* q4_0: ggml's 4-bit grid. docs/formats.md, section 4. */
#define SCHEME q4_0
#define SCHEME_COPIES_CODES
#include "kernels/ggml_scale.h"

#define SCHEME_HAS_SCALES

KVT_LANES i32x16 magnitude(f32x16 x)
{
    return signed_magnitude(x);
}

KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    const i32x16 bits = i32x16_or(i32x16_shr(largest, 1), i32x16_shl(largest, 31));
    return ggml_scale(f32x16_div(f32x16_from_bits(bits), f32x16_set1(-8.0f)));
}

/* x * r is in [-8, 8], so the sum is not negative and truncation is floor. */
KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    const f32x16 biased = f32x16_add(f32x16_mul(x, r), f32x16_set1(8.5f));
    return i32x16_min_u(i32x16_from_f32_trunc(biased), i32x16_set1(15));
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(i32x16_sub(code, i32x16_set1(8))), s);
}

enum { CODE_BIAS = 8 };
KVT_LANES u8x64 biased_codes(u8x64 code)
{
    return code;
}

#include "kernels/op_tile.h"
