/* SPDX-License-Identifier: MIT */
/* Lanes on SVE compiled for a fixed length of 256 or 512 bits: two registers or one each. Contract: arch/VEC.md. */
#ifndef KVT_VEC_H
#define KVT_VEC_H

#include <arm_sve.h>
#include <stdint.h>
#include <string.h>

#define KVT_LANES static inline __attribute__((always_inline, unused))

enum { KVT_PARTS = 512 / __ARM_FEATURE_SVE_BITS, KVT_PART_BYTES = 64 / KVT_PARTS };

typedef svfloat32_t kvt_f32 __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));
typedef svuint32_t kvt_u32 __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));
typedef svuint8_t kvt_u8 __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));

typedef struct f32x16 {
    kvt_f32 v[KVT_PARTS];
} f32x16;
typedef struct i32x16 {
    kvt_u32 v[KVT_PARTS];
} i32x16;
typedef struct u8x64 {
    kvt_u8 v[KVT_PARTS];
} u8x64;
typedef i32x16 mask16; /* all ones or all zeros in each lane */

#define KVT_ALL svptrue_b32()
/* Written out and not as a loop, so that compilers keep the parts in registers from the start. */
#define KVT_PART(number, expression)                                                                                                                 \
    {                                                                                                                                                \
        enum { i = (number) };                                                                                                                       \
        r.v[i] = (expression);                                                                                                                       \
    }
#if __ARM_FEATURE_SVE_BITS == 256
#define KVT_MAP(type, expression)                                                                                                                    \
    type r;                                                                                                                                          \
    KVT_PART(0, expression) KVT_PART(1, expression) return r
#else
#define KVT_MAP(type, expression)                                                                                                                    \
    type r;                                                                                                                                          \
    KVT_PART(0, expression) return r
#endif

/* clang 14's optimiser takes an SVE load or store for one of 16 bytes, and drops or moves what it should not of the memory beyond (its "Invalid size
 * request on a scalable vector" is about that). So it is told that something reads and writes there. */
#if defined(__clang__)
#define KVT_TOUCH(p) __asm__ volatile("" : : "r"(p) : "memory")
#else
#define KVT_TOUCH(p) (void)0
#endif

/* ---- reinterpret, load, store ---- */

KVT_LANES f32x16 f32x16_from_bits(i32x16 a)
{
    KVT_MAP(f32x16, svreinterpret_f32_u32(a.v[i]));
}
KVT_LANES i32x16 i32x16_from_f32_bits(f32x16 a)
{
    KVT_MAP(i32x16, svreinterpret_u32_f32(a.v[i]));
}
KVT_LANES u8x64 u8x64_from_i32(i32x16 a)
{
    KVT_MAP(u8x64, svreinterpret_u8_u32(a.v[i]));
}
KVT_LANES i32x16 i32x16_from_u8(u8x64 a)
{
    KVT_MAP(i32x16, svreinterpret_u32_u8(a.v[i]));
}
KVT_LANES u8x64 u8x64_load(const void *p)
{
    KVT_TOUCH(p);
    KVT_MAP(u8x64, svld1_u8(svptrue_b8(), (const uint8_t *)p + KVT_PART_BYTES * i));
}
KVT_LANES void u8x64_store(void *p, u8x64 a)
{
    for (int i = 0; i < KVT_PARTS; i++)
        svst1_u8(svptrue_b8(), (uint8_t *)p + KVT_PART_BYTES * i, a.v[i]);
    KVT_TOUCH(p);
}
KVT_LANES i32x16 i32x16_load(const void *p)
{
    return i32x16_from_u8(u8x64_load(p));
}
KVT_LANES void i32x16_store(void *p, i32x16 a)
{
    u8x64_store(p, u8x64_from_i32(a));
}
KVT_LANES f32x16 f32x16_load(const void *p)
{
    return f32x16_from_bits(i32x16_load(p));
}
KVT_LANES void f32x16_store(void *p, f32x16 a)
{
    i32x16_store(p, i32x16_from_f32_bits(a));
}
/* Byte loads and stores here too: the element types of wider ones would promise alignment. */
KVT_LANES i32x16 i32x16_load_u16(const void *p)
{
    KVT_TOUCH(p);
    KVT_MAP(i32x16, svunpklo_u32(svreinterpret_u16_u8(svld1_u8(svwhilelt_b8(0, KVT_PART_BYTES / 2), (const uint8_t *)p + KVT_PART_BYTES / 2 * i))));
}
KVT_LANES void i32x16_store_u16(void *p, i32x16 a)
{
    for (int i = 0; i < KVT_PARTS; i++) {
        const svuint16_t low = svuzp1_u16(svreinterpret_u16_u32(a.v[i]), svreinterpret_u16_u32(a.v[i]));
        svst1_u8(svwhilelt_b8(0, KVT_PART_BYTES / 2), (uint8_t *)p + KVT_PART_BYTES / 2 * i, svreinterpret_u8_u16(low));
    }
    KVT_TOUCH(p);
}
KVT_LANES i32x16 i32x16_load_u8(const void *p)
{
    KVT_TOUCH(p);
    KVT_MAP(i32x16, svld1ub_u32(KVT_ALL, (const uint8_t *)p + KVT_PART_BYTES / 4 * i));
}
KVT_LANES i32x16 i32x16_load_s8(const void *p)
{
    KVT_TOUCH(p);
    KVT_MAP(i32x16, svreinterpret_u32_s32(svld1sb_s32(KVT_ALL, (const int8_t *)p + KVT_PART_BYTES / 4 * i)));
}
KVT_LANES void i32x16_store_u8(void *p, i32x16 a)
{
    for (int i = 0; i < KVT_PARTS; i++)
        svst1b_u32(KVT_ALL, (uint8_t *)p + KVT_PART_BYTES / 4 * i, a.v[i]);
    KVT_TOUCH(p);
}

/* ---- f32 ---- */

KVT_LANES f32x16 f32x16_set1(float a)
{
    KVT_MAP(f32x16, svdup_f32(a));
}
KVT_LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, svadd_f32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, svsub_f32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, svmul_f32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, svdiv_f32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    KVT_MAP(f32x16, svmla_f32_x(KVT_ALL, c.v[i], a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_min_num(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, svminnm_f32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_max_num(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, svmaxnm_f32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_from_i32(i32x16 a)
{
    KVT_MAP(f32x16, svcvt_f32_s32_x(KVT_ALL, svreinterpret_s32_u32(a.v[i])));
}
KVT_LANES i32x16 i32x16_from_f32_trunc(f32x16 a)
{
    KVT_MAP(i32x16, svreinterpret_u32_s32(svcvt_s32_f32_x(KVT_ALL, a.v[i])));
}
KVT_LANES i32x16 i32x16_from_f32_rne(f32x16 a)
{
    KVT_MAP(i32x16, svreinterpret_u32_s32(svcvt_s32_f32_x(KVT_ALL, svrintn_f32_x(KVT_ALL, a.v[i]))));
}
KVT_LANES mask16 f32x16_gt(f32x16 a, f32x16 b)
{
    KVT_MAP(mask16, svdup_u32_z(svcmpgt_f32(KVT_ALL, a.v[i], b.v[i]), UINT32_MAX));
}
KVT_LANES f32x16 f32x16_zero_below(f32x16 a, uint32_t bits)
{
    KVT_MAP(f32x16, svsel_f32(svaclt_f32(KVT_ALL, a.v[i], svreinterpret_f32_u32(svdup_u32(bits))), svdup_f32(0), a.v[i]));
}
KVT_LANES f32x16 f32x16_scale_sub(f32x16 a, f32x16 b, f32x16 c)
{
    KVT_MAP(f32x16, svnmsb_f32_x(KVT_ALL, a.v[i], b.v[i], c.v[i]));
}
/* The upper of each pair changes its sign and is added to the lower, whose product with 1 is exact: one rounding, that of the sum. */
KVT_LANES svfloat32_t kvt_butterflies(svfloat32_t a, uint32_t h)
{
    const svuint32_t lane = svindex_u32(0, 1);
    const svbool_t upper = svcmpne_n_u32(KVT_ALL, svand_n_u32_x(KVT_ALL, lane, h), 0);
    const svfloat32_t sign = svdup_n_f32_m(svdup_f32(1), upper, -1);
    return svmla_f32_x(KVT_ALL, svtbl_f32(a, sveor_n_u32_x(KVT_ALL, lane, h)), a, sign);
}
KVT_LANES f32x16 f32x16_butterflies(f32x16 a, uint32_t h)
{
#if __ARM_FEATURE_SVE_BITS == 256
    if (h == 8)
        return (f32x16){ { svadd_f32_x(KVT_ALL, a.v[0], a.v[1]), svsub_f32_x(KVT_ALL, a.v[0], a.v[1]) } };
#endif
    KVT_MAP(f32x16, kvt_butterflies(a.v[i], h));
}

/* ---- 32-bit integers ---- */

KVT_LANES i32x16 i32x16_set1(uint32_t a)
{
    KVT_MAP(i32x16, svdup_u32(a));
}
KVT_LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svadd_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svsub_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_and(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svand_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_or(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svorr_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_xor(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, sveor_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
#define i32x16_shl(a, n) i32x16_shl_(a, n)
#define i32x16_shr(a, n) i32x16_shr_(a, n)
KVT_LANES i32x16 i32x16_shl_(i32x16 a, uint32_t n)
{
    KVT_MAP(i32x16, svlsl_n_u32_x(KVT_ALL, a.v[i], n));
}
KVT_LANES i32x16 i32x16_shr_(i32x16 a, uint32_t n)
{
    KVT_MAP(i32x16, svlsr_n_u32_x(KVT_ALL, a.v[i], n));
}
KVT_LANES i32x16 i32x16_max_s(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svreinterpret_u32_s32(svmax_s32_x(KVT_ALL, svreinterpret_s32_u32(a.v[i]), svreinterpret_s32_u32(b.v[i]))));
}
KVT_LANES i32x16 i32x16_min_s(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svreinterpret_u32_s32(svmin_s32_x(KVT_ALL, svreinterpret_s32_u32(a.v[i]), svreinterpret_s32_u32(b.v[i]))));
}
KVT_LANES i32x16 i32x16_max_u(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svmax_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_min_u(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svmin_u32_x(KVT_ALL, a.v[i], b.v[i]));
}
KVT_LANES mask16 i32x16_gt(i32x16 a, i32x16 b)
{
    KVT_MAP(mask16, svdup_u32_z(svcmpgt_s32(KVT_ALL, svreinterpret_s32_u32(a.v[i]), svreinterpret_s32_u32(b.v[i])), UINT32_MAX));
}
KVT_LANES i32x16 i32x16_select(mask16 m, i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, svsel_u32(svcmpne_n_u32(KVT_ALL, m.v[i], 0), a.v[i], b.v[i]));
}
KVT_LANES int mask16_any(mask16 m)
{
    int any = 0;
    for (int i = 0; i < KVT_PARTS; i++)
        any |= svptest_any(KVT_ALL, svcmpne_n_u32(KVT_ALL, m.v[i], 0));
    return any;
}

/* ---- f16: an f16 sits in the low half of its lane, the upper half is zero ---- */

KVT_LANES f32x16 f32x16_widen_f16(i32x16 a)
{
    KVT_MAP(f32x16, svcvt_f32_f16_x(KVT_ALL, svreinterpret_f16_u32(a.v[i])));
}
KVT_LANES i32x16 i32x16_narrow_f16(f32x16 a)
{
    KVT_MAP(i32x16, svreinterpret_u32_f16(svcvt_f16_f32_x(KVT_ALL, a.v[i])));
}
KVT_LANES f32x16 f32x16_load_f16(const void *p)
{
    return f32x16_widen_f16(i32x16_load_u16(p));
}
KVT_LANES void f32x16_store_f16(void *p, f32x16 a)
{
    i32x16_store_u16(p, i32x16_narrow_f16(a));
}

/* Bytes as the upper ones of f16: e5m2 is one, e4m3 is 2^-8 of one, and its NaN is not. The f16 is in a lane's low half, what is above it does not
 * count. */
KVT_LANES svfloat32_t kvt_widen_halfwords(svuint32_t h, svbool_t is_nan)
{
    return svcvt_f32_f16_x(KVT_ALL, svreinterpret_f16_u32(svsel_u32(is_nan, svdup_u32(0x7e00), h)));
}
KVT_LANES svfloat32_t kvt_from_e4m3(svuint32_t bytes)
{
    const svuint32_t h = svorr_u32_x(KVT_ALL, svlsl_n_u32_x(KVT_ALL, svand_n_u32_x(KVT_ALL, bytes, 0x7f), 7),
                                     svlsl_n_u32_x(KVT_ALL, svand_n_u32_x(KVT_ALL, bytes, 0x80), 8));
    const svbool_t is_nan = svcmpeq_n_u32(KVT_ALL, svorr_n_u32_x(KVT_ALL, h, 0x8000), 0xbf80);
    return svmul_n_f32_x(KVT_ALL, kvt_widen_halfwords(h, is_nan), 256);
}
KVT_LANES svfloat32_t kvt_from_e5m2(svuint32_t bytes)
{
    const svuint32_t h = svlsl_n_u32_x(KVT_ALL, bytes, 8);
    return kvt_widen_halfwords(h, svcmpgt_n_u32(KVT_ALL, svand_n_u32_x(KVT_ALL, h, 0x7fff), 0x7c00));
}
KVT_LANES f32x16 f32x16_load_e4m3(const void *p)
{
    const i32x16 bytes = i32x16_load_u8(p);
    KVT_MAP(f32x16, kvt_from_e4m3(bytes.v[i]));
}
KVT_LANES f32x16 f32x16_load_e5m2(const void *p)
{
    const i32x16 bytes = i32x16_load_u8(p);
    KVT_MAP(f32x16, kvt_from_e5m2(bytes.v[i]));
}

KVT_LANES void f32x16_load_line_e4m3(const void *p, f32x16 part[4])
{
    part[0] = f32x16_load_e4m3(p);
    part[1] = f32x16_load_e4m3((const uint8_t *)p + 16);
    part[2] = f32x16_load_e4m3((const uint8_t *)p + 32);
    part[3] = f32x16_load_e4m3((const uint8_t *)p + 48);
}
KVT_LANES void f32x16_load_line_e5m2(const void *p, f32x16 part[4])
{
    part[0] = f32x16_load_e5m2(p);
    part[1] = f32x16_load_e5m2((const uint8_t *)p + 16);
    part[2] = f32x16_load_e5m2((const uint8_t *)p + 32);
    part[3] = f32x16_load_e5m2((const uint8_t *)p + 48);
}

/* ---- bytes of a line ---- */

KVT_LANES u8x64 u8x64_and(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, svand_u8_x(svptrue_b8(), a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_or(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, svorr_u8_x(svptrue_b8(), a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_andnot(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, svbic_u8_x(svptrue_b8(), a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_low_nibbles(u8x64 a)
{
    KVT_MAP(u8x64, svand_n_u8_x(svptrue_b8(), a.v[i], 15));
}
KVT_LANES u8x64 u8x64_high_nibbles(u8x64 a)
{
    KVT_MAP(u8x64, svlsr_n_u8_x(svptrue_b8(), a.v[i], 4));
}
KVT_LANES u8x64 u8x64_join_nibbles(u8x64 low, u8x64 high)
{
    KVT_MAP(u8x64, svorr_u8_x(svptrue_b8(), low.v[i], svlsl_n_u8_x(svptrue_b8(), high.v[i], 4)));
}
KVT_LANES u8x64 u8x64_lookup16(u8x64 table, u8x64 index)
{
    KVT_MAP(u8x64, svtbl_u8(table.v[0], index.v[i]));
}
KVT_LANES u8x64 u8x64_swap_cells(u8x64 a)
{
    static const uint8_t order[64] = { 0,  4,  8,  12, 1,  5,  9,  13, 2,  6,  10, 14, 3,  7,  11, 15, 16, 20, 24, 28, 17, 21,
                                       25, 29, 18, 22, 26, 30, 19, 23, 27, 31, 32, 36, 40, 44, 33, 37, 41, 45, 34, 38, 42, 46,
                                       35, 39, 43, 47, 48, 52, 56, 60, 49, 53, 57, 61, 50, 54, 58, 62, 51, 55, 59, 63 };
    KVT_MAP(u8x64, svtbl_u8(a.v[i], svld1_u8(svptrue_b8(), order)));
}
/* The lower halves of two registers, and the upper halves. */
KVT_LANES svuint8_t kvt_low_halves(svuint8_t a, svuint8_t b)
{
    return svsplice_u8(svwhilelt_b8(0, KVT_PART_BYTES / 2), a, b);
}
KVT_LANES svuint8_t kvt_high_halves(svuint8_t a, svuint8_t b)
{
    return svsel_u8(svwhilelt_b8(0, KVT_PART_BYTES / 2), svext_u8(a, a, KVT_PART_BYTES / 2), b);
}
KVT_LANES void u8x64_swap_quarters(u8x64 a[4])
{
#if __ARM_FEATURE_SVE_BITS == 256
    u8x64 t[4];
    for (int i = 0; i < 2; i++) {
        t[2 * i].v[0] = kvt_low_halves(a[0].v[i], a[1].v[i]);
        t[2 * i].v[1] = kvt_low_halves(a[2].v[i], a[3].v[i]);
        t[2 * i + 1].v[0] = kvt_high_halves(a[0].v[i], a[1].v[i]);
        t[2 * i + 1].v[1] = kvt_high_halves(a[2].v[i], a[3].v[i]);
    }
    for (int i = 0; i < 4; i++)
        a[i] = t[i];
#else
    /* Base SVE has no permutation of 128-bit elements: select between rotated registers. */
    const svbool_t first = svwhilelt_b8(0, 16), three = svwhilelt_b8(0, 48), two = svwhilelt_b8(0, 32);
    const svbool_t even = svorr_b_z(svptrue_b8(), first, svbic_b_z(svptrue_b8(), three, two));
    kvt_u8 t[2][2]; /* [pair][even or odd quarters] */
    t[0][0] = svsel_u8(even, a[0].v[0], svext_u8(a[1].v[0], a[1].v[0], 48));
    t[0][1] = svsel_u8(even, svext_u8(a[0].v[0], a[0].v[0], 16), a[1].v[0]);
    t[1][0] = svsel_u8(even, a[2].v[0], svext_u8(a[3].v[0], a[3].v[0], 48));
    t[1][1] = svsel_u8(even, svext_u8(a[2].v[0], a[2].v[0], 16), a[3].v[0]);
    for (int k = 0; k < 2; k++) {
        a[k].v[0] = kvt_low_halves(t[0][k], t[1][k]);
        a[2 + k].v[0] = kvt_high_halves(t[0][k], t[1][k]);
    }
#endif
}
KVT_LANES u8x64 u8x64_load_quarter(const void *p)
{
    KVT_TOUCH(p);
    const svuint8_t q = svld1rq_u8(svptrue_b8(), (const uint8_t *)p);
    KVT_MAP(u8x64, q);
}
KVT_LANES svuint8_t kvt_load_quarter(const void *p)
{
    return svld1rq_u8(svptrue_b8(), (const uint8_t *)p);
}
KVT_LANES u8x64 u8x64_load_quarters(const void *a, const void *b, const void *c, const void *d)
{
    KVT_TOUCH(a);
    KVT_TOUCH(b);
    KVT_TOUCH(c);
    KVT_TOUCH(d);
    u8x64 r;
    const svbool_t first = svwhilelt_b8(0, 16);
#if __ARM_FEATURE_SVE_BITS == 256
    r.v[0] = svsel_u8(first, kvt_load_quarter(a), kvt_load_quarter(b));
    r.v[1] = svsel_u8(first, kvt_load_quarter(c), kvt_load_quarter(d));
#else
    const svuint8_t ab = svsel_u8(first, kvt_load_quarter(a), kvt_load_quarter(b)),
                    cd = svsel_u8(svwhilelt_b8(0, 48), kvt_load_quarter(c), kvt_load_quarter(d));
    r.v[0] = svsel_u8(svwhilelt_b8(0, 32), ab, cd);
#endif
    return r;
}
KVT_LANES u8x64 u8x64_load_eighth(const void *p)
{
    uint64_t e;
    memcpy(&e, p, 8);
    KVT_MAP(u8x64, svreinterpret_u8_u64(svdup_u64(e)));
}
/* Tables whose quarters are alike make a longer one: from `before` quarters of a, then those of b. */
KVT_LANES svuint8_t kvt_then(int before, svuint8_t a, svuint8_t b)
{
    return svsel_u8(svwhilelt_b8(0, 16 * before), a, b);
}
KVT_LANES u8x64 u8x64_lookup32(const u8x64 table[2], u8x64 index)
{
    const svuint8_t t = kvt_then(1, table[0].v[0], table[1].v[0]);
    KVT_MAP(u8x64, svtbl_u8(t, index.v[i]));
}
KVT_LANES u8x64 u8x64_lookup64(const u8x64 table[4], u8x64 index)
{
    const svuint8_t low = kvt_then(1, table[0].v[0], table[1].v[0]);
#if __ARM_FEATURE_SVE_BITS == 256
    /* tbl gives 0 for indices beyond the register: one of the two results is. */
    const svuint8_t high = kvt_then(1, table[2].v[0], table[3].v[0]);
    KVT_MAP(u8x64, svorr_u8_x(svptrue_b8(), svtbl_u8(low, index.v[i]), svtbl_u8(high, svsub_n_u8_x(svptrue_b8(), index.v[i], 32))));
#else
    const svuint8_t t = kvt_then(2, low, kvt_then(3, table[2].v[0], table[3].v[0]));
    KVT_MAP(u8x64, svtbl_u8(t, index.v[i]));
#endif
}
KVT_LANES u8x64 u8x64_add(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, svadd_u8_x(svptrue_b8(), a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_count_gt_s8(u8x64 count, u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, svadd_n_u8_m(svcmpgt_s8(svptrue_b8(), svreinterpret_s8_u8(a.v[i]), svreinterpret_s8_u8(b.v[i])), count.v[i], 1));
}
KVT_LANES u8x64 u8x64_abs_s8(u8x64 a)
{
    KVT_MAP(u8x64, svreinterpret_u8_s8(svabs_s8_x(svptrue_b8(), svreinterpret_s8_u8(a.v[i]))));
}
KVT_LANES u8x64 u8x64_neg_s8(u8x64 a)
{
    KVT_MAP(u8x64, svreinterpret_u8_s8(svqsub_s8(svdup_s8(0), svreinterpret_s8_u8(a.v[i]))));
}
/* The product shifted right by 15 is its upper half doubled and bit 15 of the lower; rounding adds bit 14. Base SVE has no sqrdmulh. */
KVT_LANES svuint8_t kvt_mulhrs(svint16_t a, svint16_t b)
{
    const svuint16_t high = svreinterpret_u16_s16(svmulh_s16_x(svptrue_b16(), a, b));
    const svuint16_t low = svreinterpret_u16_s16(svmul_s16_x(svptrue_b16(), a, b));
    const svuint16_t bits = svcnt_u16_x(svptrue_b16(), svand_n_u16_x(svptrue_b16(), low, 0xc000));
    return svreinterpret_u8_u16(svadd_u16_x(svptrue_b16(), svadd_u16_x(svptrue_b16(), high, high), bits));
}
KVT_LANES u8x64 i16x32_mulhrs(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, kvt_mulhrs(svreinterpret_s16_u8(a.v[i]), svreinterpret_s16_u8(b.v[i])));
}
/* What lies in the halves of a register to the halves of every quarter. */
KVT_LANES svuint8_t kvt_halves_to_quarters(svuint8_t a)
{
#if __ARM_FEATURE_SVE_BITS == 256
    static const uint64_t order[] = { 0, 2, 1, 3 };
#else
    static const uint64_t order[] = { 0, 4, 1, 5, 2, 6, 3, 7 };
#endif
    return svreinterpret_u8_u64(svtbl_u64(svreinterpret_u64_u8(a), svld1_u64(svptrue_b64(), order)));
}
KVT_LANES svuint8_t kvt_limit_s8(svuint8_t a)
{
    return svreinterpret_u8_s16(svmax_n_s16_x(svptrue_b16(), svmin_n_s16_x(svptrue_b16(), svreinterpret_s16_u8(a), 127), -128));
}
KVT_LANES u8x64 i16x32_pack_s8(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, kvt_halves_to_quarters(svuzp1_u8(kvt_limit_s8(a.v[i]), kvt_limit_s8(b.v[i]))));
}
/* Out-of-range indices give the zeros. */
KVT_LANES svuint8_t kvt_widen_high_order(void)
{
    static const uint8_t order[64] = { 255, 0,  255, 1,  255, 2,  255, 3,  255, 4,  255, 5,  255, 6,  255, 7,  255, 16, 255, 17, 255, 18,
                                       255, 19, 255, 20, 255, 21, 255, 22, 255, 23, 255, 32, 255, 33, 255, 34, 255, 35, 255, 36, 255, 37,
                                       255, 38, 255, 39, 255, 48, 255, 49, 255, 50, 255, 51, 255, 52, 255, 53, 255, 54, 255, 55 };
    return svld1_u8(svptrue_b8(), order);
}
KVT_LANES u8x64 kvt_bytes_at(u8x64 a, svuint8_t order)
{
    KVT_MAP(u8x64, svtbl_u8(a.v[i], order));
}
KVT_LANES void u8x64_widen_high_s8(u8x64 a, u8x64 half[2])
{
    half[0] = kvt_bytes_at(a, kvt_widen_high_order());
    half[1] = kvt_bytes_at(a, svorr_n_u8_x(svptrue_b8(), kvt_widen_high_order(), 8));
}
/* Base SVE multiplies 16-bit elements into 64 bits or not at all: so as 32-bit ones, first the even and then the odd. */
KVT_LANES svuint32_t kvt_dot_s16(svuint32_t sum, svint32_t a, svint32_t b)
{
    svint32_t r = svreinterpret_s32_u32(sum);
    r = svmla_s32_x(KVT_ALL, r, svexth_s32_x(KVT_ALL, a), svexth_s32_x(KVT_ALL, b));
    return svreinterpret_u32_s32(svmla_s32_x(KVT_ALL, r, svasr_n_s32_x(KVT_ALL, a, 16), svasr_n_s32_x(KVT_ALL, b, 16)));
}
KVT_LANES i32x16 i32x16_dot_s16(i32x16 sum, u8x64 a, u8x64 b)
{
    KVT_MAP(i32x16, kvt_dot_s16(sum.v[i], svreinterpret_s32_u8(a.v[i]), svreinterpret_s32_u8(b.v[i])));
}
KVT_LANES svuint32_t kvt_add_pairs(svuint32_t a, svuint32_t b)
{
    const svuint32_t sums = svadd_u32_x(KVT_ALL, svuzp1_u32(a, b), svuzp2_u32(a, b));
    return svreinterpret_u32_u8(kvt_halves_to_quarters(svreinterpret_u8_u32(sums)));
}
KVT_LANES i32x16 i32x16_add_pairs(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, kvt_add_pairs(a.v[i], b.v[i]));
}
KVT_LANES svfloat32_t kvt_add_neighbours(svfloat32_t a, svfloat32_t b)
{
    return svadd_f32_x(KVT_ALL, svuzp1_f32(a, b), svuzp2_f32(a, b));
}
KVT_LANES f32x16 f32x16_add_neighbours(f32x16 a, f32x16 b)
{
#if __ARM_FEATURE_SVE_BITS == 256
    f32x16 r;
    r.v[0] = kvt_add_neighbours(a.v[0], a.v[1]);
    r.v[1] = kvt_add_neighbours(b.v[0], b.v[1]);
    return r;
#else
    KVT_MAP(f32x16, kvt_add_neighbours(a.v[i], b.v[i]));
#endif
}
KVT_LANES f32x16 f32x16_load_pair(const float *p)
{
    uint64_t pair;
    memcpy(&pair, p, sizeof pair);
    KVT_MAP(f32x16, svreinterpret_f32_u64(svdup_u64(pair)));
}
KVT_LANES f32x16 f32x16_load_quad(const float *p)
{
    KVT_MAP(f32x16, svld1rq_f32(KVT_ALL, p));
}
KVT_LANES svuint32_t kvt_twice_order(void)
{
    static const uint32_t order[16] = { 0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13 };
    return svld1_u32(KVT_ALL, order);
}
KVT_LANES u8x64 kvt_lanes_at(i32x16 a, svuint32_t order)
{
    KVT_MAP(u8x64, svreinterpret_u8_u32(svtbl_u32(a.v[i], order)));
}
KVT_LANES void i32x16_twice(i32x16 a, u8x64 half[2])
{
    half[0] = kvt_lanes_at(a, kvt_twice_order());
    half[1] = kvt_lanes_at(a, svorr_n_u32_x(KVT_ALL, kvt_twice_order(), 2));
}
KVT_LANES svint32_t kvt_dot_s8(svuint32_t sum, svuint8_t a, svuint8_t b)
{
    return svdot_s32(svreinterpret_s32_u32(sum), svreinterpret_s8_u8(a), svreinterpret_s8_u8(b));
}
KVT_LANES i32x16 i32x16_dot_u7s8(i32x16 sum, u8x64 a, u8x64 b)
{
    KVT_MAP(i32x16, svreinterpret_u32_s32(kvt_dot_s8(sum.v[i], a.v[i], b.v[i])));
}

/* ---- quads ---- */

KVT_LANES svuint16_t kvt_low_u16(svuint32_t a, svuint32_t b)
{
    return svuzp1_u16(svreinterpret_u16_u32(a), svreinterpret_u16_u32(b));
}
KVT_LANES svuint8_t kvt_low_u8(svuint32_t a, svuint32_t b, svuint32_t c, svuint32_t d)
{
    return svuzp1_u8(svreinterpret_u8_u16(kvt_low_u16(a, b)), svreinterpret_u8_u16(kvt_low_u16(c, d)));
}
KVT_LANES svuint8_t kvt_low_sat_s8(svuint32_t a, svuint32_t b, svuint32_t c, svuint32_t d)
{
    return svuzp1_u8(kvt_limit_s8(svreinterpret_u8_u16(kvt_low_u16(a, b))), kvt_limit_s8(svreinterpret_u8_u16(kvt_low_u16(c, d))));
}
/* A register of bytes is made of four of lanes. */
#if __ARM_FEATURE_SVE_BITS == 256
#define KVT_PACK(f, x) KVT_BOTH_PARTS(f(x[0].v[0], x[0].v[1], x[1].v[0], x[1].v[1]), f(x[2].v[0], x[2].v[1], x[3].v[0], x[3].v[1]))
#define KVT_BOTH_PARTS(a, b)                                                                                                                         \
    u8x64 r;                                                                                                                                         \
    r.v[0] = a;                                                                                                                                      \
    r.v[1] = b;                                                                                                                                      \
    return r
#else
#define KVT_PACK(f, x)                                                                                                                               \
    u8x64 r;                                                                                                                                         \
    r.v[0] = f(x[0].v[0], x[1].v[0], x[2].v[0], x[3].v[0]);                                                                                          \
    return r
#endif
KVT_LANES u8x64 u8x64_pack_u8(const i32x16 x[4])
{
    KVT_PACK(kvt_low_u8, x);
}
KVT_LANES u8x64 u8x64_pack_s8(const i32x16 x[4])
{
    KVT_PACK(kvt_low_u8, x);
}
KVT_LANES u8x64 u8x64_pack_sat_s8(const i32x16 x[4])
{
    KVT_PACK(kvt_low_sat_s8, x);
}
KVT_LANES u8x64 kvt_words(i32x16 a, i32x16 b)
{
    KVT_MAP(u8x64, kvt_halves_to_quarters(svreinterpret_u8_u16(kvt_low_u16(a.v[i], b.v[i]))));
}
KVT_LANES void quad16_words(const i32x16 row[4], u8x64 half[2])
{
    half[0] = kvt_words(row[0], row[1]);
    half[1] = kvt_words(row[2], row[3]);
}
KVT_LANES svuint32_t kvt_even_pairs(svuint32_t a, svuint32_t b)
{
    return svreinterpret_u32_u64(svtrn1_u64(svreinterpret_u64_u32(a), svreinterpret_u64_u32(b)));
}
KVT_LANES svuint32_t kvt_odd_pairs(svuint32_t a, svuint32_t b)
{
    return svreinterpret_u32_u64(svtrn2_u64(svreinterpret_u64_u32(a), svreinterpret_u64_u32(b)));
}
KVT_LANES void quad32_transpose(i32x16 row[4])
{
    for (int i = 0; i < KVT_PARTS; i++) {
        const svuint32_t ab_even = svtrn1_u32(row[0].v[i], row[1].v[i]), ab_odd = svtrn2_u32(row[0].v[i], row[1].v[i]);
        const svuint32_t cd_even = svtrn1_u32(row[2].v[i], row[3].v[i]), cd_odd = svtrn2_u32(row[2].v[i], row[3].v[i]);
        row[0].v[i] = kvt_even_pairs(ab_even, cd_even);
        row[1].v[i] = kvt_even_pairs(ab_odd, cd_odd);
        row[2].v[i] = kvt_odd_pairs(ab_even, cd_even);
        row[3].v[i] = kvt_odd_pairs(ab_odd, cd_odd);
    }
}
KVT_LANES void quad_max_u(const i32x16 row[4], uint32_t max[4])
{
    i32x16 t[4] = { row[0], row[1], row[2], row[3] };
    quad32_transpose(t);
    const i32x16 m = i32x16_max_u(i32x16_max_u(t[0], t[1]), i32x16_max_u(t[2], t[3]));
    svuint32_t q = m.v[0];
    for (int i = 1; i < KVT_PARTS; i++)
        q = svmax_u32_x(KVT_ALL, q, m.v[i]);
#if __ARM_FEATURE_SVE_BITS == 512
    q = svmax_u32_x(KVT_ALL, q, svext_u32(q, q, 8));
#endif
    q = svmax_u32_x(KVT_ALL, q, svext_u32(q, q, 4));
    svst1_u32(svwhilelt_b32(0, 4), max, q);
    KVT_TOUCH(max);
}

/* ---- dots of codes ---- */

#define KVT_DOT_BITS   8
#define KVT_DOT_BIAS   0
#define KVT_DOT_STEP   16
#define KVT_DOT_LOWER  64
#define KVT_DOT_ROWS   8
#define KVT_FLOAT_SUMS 8

typedef u8x64 dot_line;
typedef i32x16 dot_sum;
typedef kvt_u8 dot_quads;

KVT_LANES dot_line dot_line_of(u8x64 codes)
{
    return codes;
}
KVT_LANES dot_sum dot_start(uint32_t start)
{
    return i32x16_set1(start);
}
KVT_LANES i32x16 dot_finish(dot_sum sum)
{
    return sum;
}
KVT_LANES dot_quads dot_quads_at(const uint8_t *p)
{
    KVT_TOUCH(p);
    return svld1rq_u8(svptrue_b8(), p);
}
#define KVT_DOT_PART(sum, line, quads, j)                                                                                                            \
    svreinterpret_u32_s32(svdot_lane_s32(svreinterpret_s32_u32(sum), svreinterpret_s8_u8(line), svreinterpret_s8_u8(quads), j))
#if __ARM_FEATURE_SVE_BITS == 256
#define dot_add(sum, line, quads, j)                                                                                                                 \
    ((dot_sum){ { KVT_DOT_PART((sum).v[0], (line).v[0], quads, j), KVT_DOT_PART((sum).v[1], (line).v[1], quads, j) } })
#else
#define dot_add(sum, line, quads, j) ((dot_sum){ { KVT_DOT_PART((sum).v[0], (line).v[0], quads, j) } })
#endif
KVT_LANES svuint8_t kvt_high_bytes(svuint8_t a, svuint8_t b)
{
    const svuint16_t x = svadd_n_u16_x(svptrue_b16(), svreinterpret_u16_u8(a), 128), y = svadd_n_u16_x(svptrue_b16(), svreinterpret_u16_u8(b), 128);
    return kvt_halves_to_quarters(svuzp2_u8(svreinterpret_u8_u16(x), svreinterpret_u8_u16(y)));
}
KVT_LANES svuint8_t kvt_low_bytes(svuint8_t a, svuint8_t b)
{
    return kvt_halves_to_quarters(svuzp1_u8(a, b));
}
#define KVT_DOT_U8_OFFSET 1
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    for (int i = 0; i < KVT_PARTS; i++)
        svst1_u8(svptrue_b8(), p + KVT_PART_BYTES * i, kvt_high_bytes(a.v[i], b.v[i]));
    for (int i = 0; terms == 2 && i < KVT_PARTS; i++)
        svst1_u8(svptrue_b8(), p + 64 + KVT_PART_BYTES * i, kvt_low_bytes(a.v[i], b.v[i]));
    KVT_TOUCH(p);
}
KVT_LANES void quad_sum(const i32x16 row[4], uint32_t sum[4])
{
    for (int k = 0; k < 4; k++) {
        svuint32_t all = row[k].v[0];
        for (int i = 1; i < KVT_PARTS; i++)
            all = svadd_u32_x(KVT_ALL, all, row[k].v[i]);
        sum[k] = (uint32_t)svaddv_u32(KVT_ALL, all);
    }
}

#undef KVT_PACK
#undef KVT_BOTH_PARTS
#undef KVT_MAP
#undef KVT_TOUCH
#undef KVT_PART

#endif
