/* What e4m3 and e5m2 have in common. A scheme file defines before it includes this
 *
 *   MAX_FP8     the largest number
 *   LEAST_ENCODED   bits of the largest number below which a block is zero
 *   NAN_CODE    the code that NaN gets
 *   i32x16 narrow_magnitude(f32x16)  |x|, not NaN, to the magnitude of its code, saturating
 *   f32x16 load_fp8(p)   back: 16 codes, with their signs
 *   load_fp8_line(p, f32x16 part[4])   64 codes, where NaNs may be any
 *   FIRST_SPECIAL, the first magnitude of a code that is not a finite number, and whether that is infinity: HAS_INFINITY
 */
#define SCHEME_HAS_SCALES

/* Infinities and NaNs do not take part: e4m3 saturates, e5m2 has codes for them. */
KVT_LANES i32x16 magnitude(f32x16 x)
{
    const i32x16 bits = magnitude_bits(x);
    return i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(0), bits);
}

KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    const f32x16 one = f32x16_set1(1.0f);
    if (spec->scale_bytes == 0)
        return (block_scale){ .scale = one, .r = f32x16_div(one, f32x16_set1(spec->tensor_scale)) };
    const i32x16 zero = i32x16_set1(0), least = i32x16_set1(0x0d800000); /* 2^-100 */
    const mask16 is_zero = i32x16_gt(i32x16_set1(LEAST_ENCODED), largest);
    i32x16 bits = i32x16_from_f32_bits(f32x16_div(f32x16_from_bits(largest), f32x16_set1(MAX_FP8)));
    if (spec->scale_bytes == 1) { /* the power of two that is not below */
        bits = i32x16_and(i32x16_add(bits, i32x16_set1(0x7fffff)), i32x16_set1(0x7f800000));
        bits = i32x16_select(is_zero, least, i32x16_max_s(bits, least));
        return (block_scale){ .scale = f32x16_from_bits(bits), .r = f32x16_div(one, f32x16_from_bits(bits)) };
    }
    const i32x16 r = i32x16_from_f32_bits(f32x16_div(one, f32x16_from_bits(bits)));
    return (block_scale){
        .scale = f32x16_from_bits(i32x16_select(is_zero, zero, bits)),
        .r = f32x16_from_bits(i32x16_select(is_zero, zero, r)),
    };
}

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    const i32x16 bits = magnitude_bits(x), sign = i32x16_and(i32x16_shr(i32x16_from_f32_bits(x), 24), i32x16_set1(0x80));
    i32x16 code = narrow_magnitude(f32x16_mul(f32x16_from_bits(bits), r));
    if (HAS_INFINITY)
        code = i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(FIRST_SPECIAL), code);
    return i32x16_or(sign, i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f800000)), i32x16_set1(NAN_CODE), code));
}

/* Of 16 codes in memory. NaN stays the NaN it is when it is multiplied. */
KVT_LANES f32x16 decode_bytes(const uint8_t *codes, f32x16 s)
{
    const f32x16 value = load_fp8(codes), scaled = f32x16_mul(value, s);
    if (!HAS_INFINITY)
        return scaled;
    /* Not by multiplication: infinity times zero would be a NaN of another sign on ARM than on x86. */
    const i32x16 bits = i32x16_from_f32_bits(value), nan = i32x16_set1(0x7fc00000), infinity = i32x16_set1(0x7f800000);
    const mask16 scale_is_nan = i32x16_gt(magnitude_bits(s), infinity), is_finite = i32x16_gt(infinity, magnitude_bits(value));
    return f32x16_from_bits(i32x16_select(is_finite, i32x16_from_f32_bits(scaled), i32x16_select(scale_is_nan, nan, bits)));
}
#define DECODES_BYTES
