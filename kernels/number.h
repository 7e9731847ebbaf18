/* SPDX-License-Identifier: MIT */
/* Number formats that need no lanes of their own: the same integer and float steps on every tier. */
#ifndef KVT_NUMBER_H
#define KVT_NUMBER_H

#include "vec.h"

KVT_LANES i32x16 widen_bf16(i32x16 half)
{
    return i32x16_shl(half, 16);
}

/* f32 bits to bf16, round to nearest even; a NaN becomes quiet and keeps the upper bits of its payload. */
KVT_LANES i32x16 narrow_bf16(i32x16 bits)
{
    const i32x16 high = i32x16_shr(bits, 16);
    const i32x16 half_up = i32x16_add(i32x16_set1(0x7fff), i32x16_and(high, i32x16_set1(1)));
    const i32x16 rounded = i32x16_shr(i32x16_add(bits, half_up), 16);
    const mask16 is_nan = i32x16_gt(i32x16_and(bits, i32x16_set1(0x7fffffff)), i32x16_set1(0x7f800000));
    return i32x16_select(is_nan, i32x16_or(high, i32x16_set1(0x40)), rounded);
}

#define SMALL_BITS 0x0f800000

/* Below 2^-96 nothing counts, so that sums of what is left have no subnormal results. */
KVT_LANES f32x16 without_small(f32x16 x)
{
    return f32x16_zero_below(x, SMALL_BITS);
}

/* Sixteen lanes to one, always in the same order. */
KVT_LANES float sum_of_lanes(f32x16 x)
{
    float v[16];
    f32x16_store(v, x);
    for (int n = 8; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            v[i] += v[i + n];
    return v[0];
}

/* CPUs differ in the sign and the payload of a NaN that arithmetic makes: every NaN to the one of positive sign without payload. */
KVT_LANES f32x16 canonical_nan(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x), magnitude = i32x16_and(bits, i32x16_set1(0x7fffffff));
    return f32x16_from_bits(i32x16_select(i32x16_gt(magnitude, i32x16_set1(0x7f800000)), i32x16_set1(0x7fc00000), bits));
}

/* |x| to the magnitude of its e4m3 code, 0..0x7e: round to nearest even, saturating at 448. What is NaN comes out as 448. */
KVT_LANES i32x16 narrow_e4m3_magnitude(f32x16 magnitude)
{
    const f32x16 limited = f32x16_min_num(magnitude, f32x16_set1(448.0f));
    const i32x16 bits = i32x16_from_f32_bits(limited);
    /* Normal codes: round the mantissa to 3 bits, then move the exponent from bias 127 to bias 7. */
    const i32x16 odd = i32x16_and(i32x16_shr(bits, 20), i32x16_set1(1));
    const i32x16 rounded = i32x16_shr(i32x16_add(bits, i32x16_add(i32x16_set1(0x7ffff), odd)), 20);
    const i32x16 normal = i32x16_sub(rounded, i32x16_set1((127 - 7) << 3));
    /* Below 2^-6 codes count steps of 2^-9, the last place of a float between 2^14 and 2^15. */
    const i32x16 steps = i32x16_sub(i32x16_from_f32_bits(f32x16_add(limited, f32x16_set1(0x1p14f))), i32x16_set1(0x46800000));
    return i32x16_select(i32x16_gt(i32x16_set1(0x3c800000), bits), steps, normal);
}

/* |x| to the magnitude of its e5m2 code, 0..0x7b: round to nearest even, saturating at 57344. What is NaN comes out as 57344. */
KVT_LANES i32x16 narrow_e5m2_magnitude(f32x16 magnitude)
{
    const f32x16 limited = f32x16_min_num(magnitude, f32x16_set1(57344.0f));
    const i32x16 bits = i32x16_from_f32_bits(limited);
    const i32x16 odd = i32x16_and(i32x16_shr(bits, 21), i32x16_set1(1));
    const i32x16 rounded = i32x16_shr(i32x16_add(bits, i32x16_add(i32x16_set1(0xfffff), odd)), 21);
    const i32x16 normal = i32x16_sub(rounded, i32x16_set1((127 - 15) << 2));
    /* Below 2^-14 codes count steps of 2^-16, the last place of a float between 2^7 and 2^8. */
    const i32x16 steps = i32x16_sub(i32x16_from_f32_bits(f32x16_add(limited, f32x16_set1(0x1p7f))), i32x16_set1(0x43000000));
    return i32x16_select(i32x16_gt(i32x16_set1(0x38800000), bits), steps, normal);
}

#endif
