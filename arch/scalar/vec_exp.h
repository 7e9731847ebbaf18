/* SPDX-License-Identifier: MIT */
/* exp on these lanes: SLEEF's deterministic one, the same bits on every tier. Contract: arch/VEC.md. */
#ifndef KVT_VEC_EXP_H
#define KVT_VEC_EXP_H

#include "vec.h"

/* Exported by SLEEF on every CPU, but its header shows it only to compilers that are told to use fma instructions. */
float Sleef_finz_expf1_u10purecfma(float);

KVT_LANES f32x16 f32x16_exp(f32x16 a)
{
    for (int i = 0; i < 16; i++)
        a.v[i] = Sleef_finz_expf1_u10purecfma(a.v[i]);
    return a;
}

#endif
