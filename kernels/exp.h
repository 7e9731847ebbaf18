/* e^x for -26 <= x <= 8, where 2^q is a normal float: the bits of f32x16_exp (arch/exp.h), without its cases and its calls, so that a page's
 * registers go side by side. */
#ifndef KVT_EXP_NEAR_H
#define KVT_EXP_NEAR_H

#include "kernels/lanes.h"

KVT_LANES f32x16 exp_near(f32x16 x)
{
    const i32x16 q = i32x16_from_f32_rne(f32x16_mul(x, f32x16_set1(1.442695040888963407359924681001892137426645954152985934135449406931f)));
    const f32x16 f = f32x16_from_i32(q);
    const f32x16 s = f32x16_fma(f, f32x16_set1(-1.428606765330187045e-06f), f32x16_fma(f, f32x16_set1(-0.693145751953125f), x));
    f32x16 u = f32x16_fma(f32x16_set1(0.000198527617612853646278381f), s, f32x16_set1(0.00139304355252534151077271f));
    u = f32x16_fma(u, s, f32x16_set1(0.00833336077630519866943359f));
    u = f32x16_fma(u, s, f32x16_set1(0.0416664853692054748535156f));
    u = f32x16_fma(u, s, f32x16_set1(0.166666671633720397949219f));
    u = f32x16_fma(u, s, f32x16_set1(0.5f));
    u = f32x16_add(f32x16_set1(1), f32x16_fma(f32x16_mul(s, s), u, s));
    return f32x16_from_bits(i32x16_add(i32x16_from_f32_bits(u), i32x16_shl(q, 23)));
}

#endif
