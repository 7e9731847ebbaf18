/* e4m3: OCP FP8 with a scale per row. docs/formats.md, section 4. */
#define SCHEME e4m3
#include "kernels/scheme.h"

#define SCHEME_HAS_SCALES

KVT_LANES i32x16 magnitude_bits(f32x16 x)
{
    return i32x16_and(i32x16_from_f32_bits(x), i32x16_set1(0x7fffffff));
}

/* Infinities and NaNs have codes of their own, so they do not take part. */
KVT_LANES i32x16 magnitude(f32x16 x)
{
    const i32x16 bits = magnitude_bits(x);
    return i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(0), bits);
}

KVT_LANES block_scale scale_of(i32x16 largest)
{
    const mask16 is_zero = i32x16_gt(i32x16_set1(0x0d800000), largest); /* below 2^-100 */
    const f32x16 scale = f32x16_div(f32x16_from_bits(largest), f32x16_set1(448.0f));
    const i32x16 zero = i32x16_set1(0), r = i32x16_from_f32_bits(f32x16_div(f32x16_set1(1.0f), scale));
    return (block_scale){
        .scale = f32x16_from_bits(i32x16_select(is_zero, zero, i32x16_from_f32_bits(scale))),
        .r = f32x16_from_bits(i32x16_select(is_zero, zero, r)),
    };
}

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    const i32x16 bits = magnitude_bits(x), sign = i32x16_and(i32x16_shr(i32x16_from_f32_bits(x), 24), i32x16_set1(0x80));
    const i32x16 code = narrow_e4m3_magnitude(f32x16_mul(f32x16_from_bits(bits), r));
    return i32x16_or(sign, i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f800000)), i32x16_set1(0x7f), code));
}

KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    const i32x16 bits = i32x16_and(code, i32x16_set1(0x7f)), sign = i32x16_shl(i32x16_and(code, i32x16_set1(0x80)), 24);
    const i32x16 value = i32x16_or(i32x16_from_f32_bits(widen_e4m3_magnitude(bits)), sign);
    const i32x16 scaled = i32x16_from_f32_bits(f32x16_mul(f32x16_from_bits(value), s));
    return f32x16_from_bits(i32x16_select(i32x16_gt(bits, i32x16_set1(0x7e)), i32x16_set1(0x7fc00000), scaled));
}

#include "kernels/op_tile.h"
