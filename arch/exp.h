/* SPDX-License-Identifier: MIT */
/* e^x in the words of vec.h, the same bits on every tier: those of SLEEF's deterministic exponential, which vec_exp.h of an ISA calls where a test
 * compares them (tests/lib/test_exp.c). */
#ifndef KVT_EXP_H
#define KVT_EXP_H

#include "vec.h"

/* e^x = 2^q p with q = rint(x / ln 2), which is returned; p = e^r, |r| <= ln 2 / 2. ln 2 is taken off in two parts, whose first is short enough that
 * q times it is exact. The constants, and so the bits, are those of xexpf in SLEEF 3.5.1 (Naoki Shibata and contributors, Boost Software License
 * 1.0). */
KVT_LANES i32x16 kvt_exp_parts(f32x16 x, f32x16 *p)
{
    const i32x16 q = i32x16_from_f32_rne(f32x16_mul(x, f32x16_set1(0x1.715476p+0f)));
    const f32x16 n = f32x16_from_i32(q);
    const f32x16 r = f32x16_fma(n, f32x16_set1(-0x1.7f7d1cp-20f), f32x16_fma(n, f32x16_set1(-0x1.62e4p-1f), x));
    f32x16 y = f32x16_fma(f32x16_set1(0x1.a057b4p-13f), r, f32x16_set1(0x1.6d2d92p-10f));
    y = f32x16_fma(y, r, f32x16_set1(0x1.11114cp-7f));
    y = f32x16_fma(y, r, f32x16_set1(0x1.5554f4p-5f));
    y = f32x16_fma(y, r, f32x16_set1(0x1.555556p-3f));
    y = f32x16_fma(y, r, f32x16_set1(0.5f));
    *p = f32x16_add(f32x16_set1(1), f32x16_fma(f32x16_mul(r, r), y, r));
    return q;
}

/* Of any float. q is halved, since 2^q can be no normal float where e^x is one, or is subnormal. Of a NaN q may be anything: both halves are normal
 * powers of 2 then too. */
KVT_LANES f32x16 f32x16_exp_plain(f32x16 x)
{
    f32x16 p;
    const i32x16 q = kvt_exp_parts(x, &p);
    const i32x16 half = i32x16_sub(i32x16_shr(i32x16_add(q, i32x16_set1(256)), 1), i32x16_set1(128)), bias = i32x16_set1(127);
    p = f32x16_mul(p, f32x16_from_bits(i32x16_shl(i32x16_add(half, bias), 23)));
    p = f32x16_mul(p, f32x16_from_bits(i32x16_shl(i32x16_add(i32x16_sub(q, half), bias), 23)));

    i32x16 bits = i32x16_select(f32x16_gt(f32x16_set1(-104), x), i32x16_set1(0), i32x16_from_f32_bits(p));
    bits = i32x16_select(f32x16_gt(x, f32x16_set1(100)), i32x16_set1(0x7f800000), bits);
    return f32x16_from_bits(bits);
}

/* Of -26 <= x <= 8, where 2^q is a normal float. */
KVT_LANES f32x16 f32x16_exp_near(f32x16 x)
{
    f32x16 p;
    const i32x16 q = kvt_exp_parts(x, &p);
    return f32x16_from_bits(i32x16_add(i32x16_from_f32_bits(p), i32x16_shl(q, 23)));
}

#endif
