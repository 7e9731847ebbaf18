/* f32x16_exp, the one word of arch/VEC.md that is a function: SLEEF's deterministic exponential (vec_exp.h of an ISA), or, in builds without SLEEF,
 * the same in the other words. The bits are equal for every argument: tests/lib/test_exp.c. */
#ifndef KVT_EXP_H
#define KVT_EXP_H

#include "vec.h"

#if defined(KVT_SLEEF)
#include "vec_exp.h"
#endif

/* e^x = 2^q e^r with q = rint(x / ln 2), |r| <= ln 2 / 2. ln 2 is taken off in two parts, whose first is short enough that q times it is exact. The
 * constants, and so the bits, are those of xexpf in SLEEF 3.5.1 (Naoki Shibata and contributors, Boost Software License 1.0). q is halved, since 2^q
 * can be no normal float where e^x is one, or is subnormal. Of a NaN q may be anything: both halves are normal powers of 2 then too. */
KVT_LANES f32x16 f32x16_exp_plain(f32x16 x)
{
    const float terms[] = { 0x1.6d2d92p-10f, 0x1.11114cp-7f, 0x1.5554f4p-5f, 0x1.555556p-3f, 0.5f };
    const i32x16 q = i32x16_from_f32_rne(f32x16_mul(x, f32x16_set1(0x1.715476p+0f)));
    const f32x16 n = f32x16_from_i32(q);
    f32x16 r = f32x16_fma(n, f32x16_set1(-0x1.62e4p-1f), x);
    r = f32x16_fma(n, f32x16_set1(-0x1.7f7d1cp-20f), r);
    f32x16 p = f32x16_set1(0x1.a057b4p-13f);
    for (int i = 0; i < 5; i++)
        p = f32x16_fma(p, r, f32x16_set1(terms[i]));
    p = f32x16_add(f32x16_set1(1), f32x16_fma(f32x16_mul(r, r), p, r));

    const i32x16 half = i32x16_sub(i32x16_shr(i32x16_add(q, i32x16_set1(256)), 1), i32x16_set1(128)), bias = i32x16_set1(127);
    p = f32x16_mul(p, f32x16_from_bits(i32x16_shl(i32x16_add(half, bias), 23)));
    p = f32x16_mul(p, f32x16_from_bits(i32x16_shl(i32x16_add(i32x16_sub(q, half), bias), 23)));

    i32x16 bits = i32x16_select(f32x16_gt(f32x16_set1(-104), x), i32x16_set1(0), i32x16_from_f32_bits(p));
    bits = i32x16_select(f32x16_gt(x, f32x16_set1(100)), i32x16_set1(0x7f800000), bits);
    return f32x16_from_bits(bits);
}

#if !defined(KVT_SLEEF)
KVT_LANES f32x16 f32x16_exp(f32x16 x)
{
    return f32x16_exp_plain(x);
}
#endif

#endif
