/* SPDX-License-Identifier: MIT */
/* Numbers of e4m3 and e5m2: OCP FP8, the former without infinity, the latter the upper half of binary16. docs/formats.md, section 4. */
#include "kernels/code.h"

/* What the two differ in. */
typedef struct fp8_format {
    float max;
    uint32_t least_encoded;             /* bits of the largest number below which a block is zero */
    uint32_t least_scale;               /* bits of the least scale that garbage may have: times the smallest code it is no subnormal number */
    uint32_t special;                   /* the first magnitude of a code that is not a finite number */
    uint32_t nan;                       /* the code that NaN gets */
    bool has_infinity;                  /* which is the special code */
    i32x16 (*narrow)(f32x16 magnitude); /* |x|, not NaN, to the magnitude of its code, saturating */
    f32x16 (*load)(const void *codes);  /* back, with signs */
} fp8_format;

static const fp8_format e4m3 = {
    448.0f, 0x0d800000 /* 2^-100 */, 0x05000000 /* 2^-117 */, 0x7f, 0x7f, false, narrow_e4m3_magnitude, f32x16_load_e4m3
};
static const fp8_format e5m2 = {
    57344.0f, 0x11800000 /* 2^-92 */, 0x08800000 /* 2^-110 */, 0x7c, 0x7e, true, narrow_e5m2_magnitude, f32x16_load_e5m2
};

/* Infinities and NaNs do not take part: e4m3 saturates, e5m2 has codes for them. */
KVT_LANES i32x16 finite_magnitude(f32x16 x)
{
    const i32x16 bits = magnitude_bits(x);
    return i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(0), bits);
}

KVT_LANES block_scale fp8_scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    const bool is_e5m2 = spec->scheme->coder == KVT_CODER_e5m2;
    const uint32_t least_encoded = is_e5m2 ? e5m2.least_encoded : e4m3.least_encoded;
    const float max = is_e5m2 ? e5m2.max : e4m3.max;
    const f32x16 ones = f32x16_set1(1.0f);
    if (spec->scale_bytes == 0)
        return (block_scale){ .scale = ones, .r = f32x16_div(ones, f32x16_set1(spec->tensor_scale)) };
    const i32x16 zero = i32x16_set1(0), least = i32x16_set1(0x0d800000); /* 2^-100 */
    const mask16 is_zero = i32x16_gt(i32x16_set1(least_encoded), largest);
    i32x16 bits = i32x16_from_f32_bits(f32x16_div(f32x16_from_bits(largest), f32x16_set1(max)));
    if (spec->scale_bytes == 1) { /* the power of two that is not below */
        bits = i32x16_and(i32x16_add(bits, i32x16_set1(0x7fffff)), i32x16_set1(0x7f800000));
        bits = i32x16_select(is_zero, least, i32x16_max_s(bits, least));
        return (block_scale){ .scale = f32x16_from_bits(bits), .r = f32x16_div(ones, f32x16_from_bits(bits)) };
    }
    const i32x16 r = i32x16_from_f32_bits(f32x16_div(ones, f32x16_from_bits(bits)));
    return (block_scale){
        .scale = f32x16_from_bits(i32x16_select(is_zero, zero, bits)),
        .r = f32x16_from_bits(i32x16_select(is_zero, zero, r)),
    };
}

KVT_LANES i32x16 fp8_encode(const fp8_format *f, f32x16 x, f32x16 r)
{
    const i32x16 bits = magnitude_bits(x), sign = i32x16_and(i32x16_shr(i32x16_from_f32_bits(x), 24), i32x16_set1(0x80));
    i32x16 code = f->narrow(f32x16_mul(f32x16_from_bits(bits), r));
    if (f->has_infinity)
        code = i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(f->special), code);
    return i32x16_or(sign, i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f800000)), i32x16_set1(f->nan), code));
}

/* NaN stays the NaN it is when it is multiplied. */
KVT_LANES f32x16 fp8_decode(const fp8_format *f, const uint8_t *codes, f32x16 s)
{
    const f32x16 value = f->load(codes), scaled = f32x16_mul(value, s);
    if (!f->has_infinity)
        return scaled;
    /* Not by multiplication: infinity times zero would be a NaN of another sign on ARM than on x86. */
    const i32x16 bits = i32x16_from_f32_bits(value), nan = i32x16_set1(0x7fc00000), infinity = i32x16_set1(0x7f800000);
    const mask16 scale_is_nan = i32x16_gt(magnitude_bits(s), infinity), is_finite = i32x16_gt(infinity, magnitude_bits(value));
    return f32x16_from_bits(i32x16_select(is_finite, i32x16_from_f32_bits(scaled), i32x16_select(scale_is_nan, nan, bits)));
}

/* Of scales both have the same steps. */
KVT_LANES uint32_t least_fp8_scale(const kvt_tile_spec *spec)
{
    return spec->scheme->coder == KVT_CODER_e5m2 ? e5m2.least_scale : e4m3.least_scale;
}

static const code_steps scale_steps = { .magnitude = finite_magnitude, .scale_of = fp8_scale_of, .least_scale = least_fp8_scale };
KVT_CODER_SCALES(fp8, &scale_steps, spec->scale_bytes, spec->block_groups)

#define FP8_ROWS(name)                                                                                                                               \
    KVT_LANES i32x16 encode_of_##name(f32x16 x, f32x16 r)                                                                                            \
    {                                                                                                                                                \
        return fp8_encode(&name, x, r);                                                                                                              \
    }                                                                                                                                                \
    KVT_LANES f32x16 decode_of_##name(const uint8_t *codes, f32x16 s)                                                                                \
    {                                                                                                                                                \
        return fp8_decode(&name, codes, s);                                                                                                          \
    }                                                                                                                                                \
    static const code_steps steps_##name = { .encode = encode_of_##name, .pack = pack_bytes, .decode = decode_of_##name };                           \
    KVT_CODER_ROWS(name, &steps_##name, spec->block_groups)                                                                                          \
    KVT_CODER_EXPORT(name, fp8, &steps_##name, &scale_steps, spec->scale_bytes, spec->block_groups)

FP8_ROWS(e4m3)
FP8_ROWS(e5m2)
