/* SPDX-License-Identifier: MIT */
/* exp on these lanes: SLEEF's deterministic one, the same bits on every tier. Contract: arch/VEC.md. */
#ifndef KVT_VEC_EXP_H
#define KVT_VEC_EXP_H

#include "vec.h"

#include <sleef.h>

KVT_LANES f32x16 f32x16_exp(f32x16 a)
{
    for (int i = 0; i < 2; i++)
        a.v[i] = Sleef_finz_expf8_u10avx2(a.v[i]);
    return a;
}

#endif
