/* SPDX-License-Identifier: MIT */
/* exp, log, sine and cosine of RoPE, the same bits on every CPU: SLEEF's plain C without fused operations or, in builds without SLEEF, the same
 * steps again (elementary.c). The bits are equal: tests/lib/test_exp.c. */
#ifndef KVT_API_ELEMENTARY_H
#define KVT_API_ELEMENTARY_H

typedef struct kvt_sine_cosine {
    double sine, cosine;
} kvt_sine_cosine;

double kvt_exp_plain(double x);             /* |x| <= 700 */
double kvt_log_plain(double x);             /* positive normal numbers */
kvt_sine_cosine kvt_sincos_plain(double x); /* |x| <= 2^67 */

#if defined(KVT_SLEEF)
/* SLEEF's header does not compile where it declares these. */
double Sleef_cinz_expd1_u10purec(double);
double Sleef_cinz_logd1_u10purec(double);
kvt_sine_cosine Sleef_cinz_sincosd1_u10purec(double);
#define kvt_exp    Sleef_cinz_expd1_u10purec
#define kvt_log    Sleef_cinz_logd1_u10purec
#define kvt_sincos Sleef_cinz_sincosd1_u10purec
#else
#define kvt_exp    kvt_exp_plain
#define kvt_log    kvt_log_plain
#define kvt_sincos kvt_sincos_plain
#endif

#endif
