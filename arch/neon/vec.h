/* SPDX-License-Identifier: MIT */
/* Lanes on Advanced SIMD: four registers each, so that a register is a quarter. With +dotprod, sdot; with +i8mm, smmla. Contract: arch/VEC.md. */
#ifndef KVT_VEC_H
#define KVT_VEC_H

#include <arm_neon.h>
#include <stdint.h>

#define KVT_LANES static inline __attribute__((always_inline, unused))

typedef struct f32x16 {
    float32x4_t v[4];
} f32x16;
typedef struct i32x16 {
    uint32x4_t v[4];
} i32x16;
typedef struct u8x64 {
    uint8x16_t v[4];
} u8x64;
typedef i32x16 mask16; /* all ones or all zeros in each lane */

/* Written out and not as a loop, so that compilers keep the parts in registers from the start: left as loops, gcc 12 and clang 14 both spilled the
 * accumulators of a four-query score loop. */
#define KVT_PART(number, expression)                                                                                                                 \
    {                                                                                                                                                \
        enum { i = (number) };                                                                                                                       \
        r.v[i] = (expression);                                                                                                                       \
    }
#define KVT_MAP(type, expression)                                                                                                                    \
    type r;                                                                                                                                          \
    KVT_PART(0, expression) KVT_PART(1, expression) KVT_PART(2, expression) KVT_PART(3, expression) return r

/* ---- reinterpret, load, store ---- */

KVT_LANES f32x16 f32x16_from_bits(i32x16 a)
{
    KVT_MAP(f32x16, vreinterpretq_f32_u32(a.v[i]));
}
KVT_LANES i32x16 i32x16_from_f32_bits(f32x16 a)
{
    KVT_MAP(i32x16, vreinterpretq_u32_f32(a.v[i]));
}
KVT_LANES u8x64 u8x64_from_i32(i32x16 a)
{
    KVT_MAP(u8x64, vreinterpretq_u8_u32(a.v[i]));
}
KVT_LANES i32x16 i32x16_from_u8(u8x64 a)
{
    KVT_MAP(i32x16, vreinterpretq_u32_u8(a.v[i]));
}
/* Byte loads and stores: the element types of wider ones would promise alignment. */
KVT_LANES u8x64 u8x64_load(const void *p)
{
    KVT_MAP(u8x64, vld1q_u8((const uint8_t *)p + 16 * i));
}
KVT_LANES void u8x64_store(void *p, u8x64 a)
{
    for (int i = 0; i < 4; i++)
        vst1q_u8((uint8_t *)p + 16 * i, a.v[i]);
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
KVT_LANES i32x16 i32x16_load_u16(const void *p)
{
    KVT_MAP(i32x16, vmovl_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p + 8 * i))));
}
KVT_LANES void i32x16_store_u16(void *p, i32x16 a)
{
    for (int i = 0; i < 4; i++)
        vst1_u8((uint8_t *)p + 8 * i, vreinterpret_u8_u16(vmovn_u32(a.v[i])));
}
KVT_LANES i32x16 i32x16_load_u8(const void *p)
{
    const uint8x16_t b = vld1q_u8((const uint8_t *)p);
    const uint16x8_t low = vmovl_u8(vget_low_u8(b)), high = vmovl_high_u8(b);
    return (i32x16){ { vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low), vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high) } };
}
KVT_LANES i32x16 i32x16_load_s8(const void *p)
{
    const int8x16_t b = vreinterpretq_s8_u8(vld1q_u8((const uint8_t *)p));
    const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_high_s8(b);
    return (i32x16){ { vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(low))), vreinterpretq_u32_s32(vmovl_high_s16(low)),
                       vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(high))), vreinterpretq_u32_s32(vmovl_high_s16(high)) } };
}
KVT_LANES uint8x16_t kvt_low_bytes(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d)
{
    const uint16x8_t ab = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    const uint16x8_t cd = vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d));
    return vuzp1q_u8(vreinterpretq_u8_u16(ab), vreinterpretq_u8_u16(cd));
}
KVT_LANES void i32x16_store_u8(void *p, i32x16 a)
{
    vst1q_u8((uint8_t *)p, kvt_low_bytes(a.v[0], a.v[1], a.v[2], a.v[3]));
}

/* ---- f32 ---- */

KVT_LANES f32x16 f32x16_set1(float a)
{
    KVT_MAP(f32x16, vdupq_n_f32(a));
}
KVT_LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, vaddq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, vsubq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, vmulq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, vdivq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    KVT_MAP(f32x16, vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_min_num(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, vminnmq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_max_num(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, vmaxnmq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_from_i32(i32x16 a)
{
    KVT_MAP(f32x16, vcvtq_f32_s32(vreinterpretq_s32_u32(a.v[i])));
}
KVT_LANES i32x16 i32x16_from_f32_rne(f32x16 a)
{
    KVT_MAP(i32x16, vreinterpretq_u32_s32(vcvtnq_s32_f32(a.v[i])));
}
KVT_LANES i32x16 i32x16_from_f32_trunc(f32x16 a)
{
    KVT_MAP(i32x16, vreinterpretq_u32_s32(vcvtq_s32_f32(a.v[i])));
}
KVT_LANES mask16 f32x16_gt(f32x16 a, f32x16 b)
{
    KVT_MAP(mask16, vcgtq_f32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_zero_below(f32x16 a, uint32_t bits)
{
    KVT_MAP(f32x16, vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a.v[i]), vcaltq_f32(a.v[i], vreinterpretq_f32_u32(vdupq_n_u32(bits))))));
}
KVT_LANES f32x16 f32x16_scale_sub(f32x16 a, f32x16 b, f32x16 c)
{
    KVT_MAP(f32x16, vsubq_f32(vmulq_f32(a.v[i], b.v[i]), c.v[i]));
}
/* The upper of each pair changes its sign and is added to the lower, whose product with 1 is exact: one rounding, that of the sum. */
KVT_LANES float32x4_t kvt_butterflies(float32x4_t a, uint32_t h)
{
    static const float n1[4] = { 1, -1, 1, -1 }, n2[4] = { 1, 1, -1, -1 };
    return h == 1 ? vfmaq_f32(vrev64q_f32(a), a, vld1q_f32(n1)) : vfmaq_f32(vextq_f32(a, a, 2), a, vld1q_f32(n2));
}
KVT_LANES f32x16 f32x16_butterflies(f32x16 a, uint32_t h)
{
    if (h == 4)
        return (f32x16){ { vaddq_f32(a.v[0], a.v[1]), vsubq_f32(a.v[0], a.v[1]), vaddq_f32(a.v[2], a.v[3]), vsubq_f32(a.v[2], a.v[3]) } };
    if (h == 8)
        return (f32x16){ { vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]), vsubq_f32(a.v[0], a.v[2]), vsubq_f32(a.v[1], a.v[3]) } };
    KVT_MAP(f32x16, kvt_butterflies(a.v[i], h));
}

/* ---- 32-bit integers ---- */

KVT_LANES i32x16 i32x16_set1(uint32_t a)
{
    KVT_MAP(i32x16, vdupq_n_u32(a));
}
KVT_LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vaddq_u32(a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vsubq_u32(a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_and(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vandq_u32(a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_or(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vorrq_u32(a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_xor(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, veorq_u32(a.v[i], b.v[i]));
}
#define KVT_SHIFT(f, a, n) ((i32x16){ { f((a).v[0], n), f((a).v[1], n), f((a).v[2], n), f((a).v[3], n) } })
#define i32x16_shl(a, n)   KVT_SHIFT(vshlq_n_u32, a, n)
#define i32x16_shr(a, n)   KVT_SHIFT(vshrq_n_u32, a, n)
KVT_LANES i32x16 i32x16_max_s(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vreinterpretq_u32_s32(vmaxq_s32(vreinterpretq_s32_u32(a.v[i]), vreinterpretq_s32_u32(b.v[i]))));
}
KVT_LANES i32x16 i32x16_min_s(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vreinterpretq_u32_s32(vminq_s32(vreinterpretq_s32_u32(a.v[i]), vreinterpretq_s32_u32(b.v[i]))));
}
KVT_LANES i32x16 i32x16_max_u(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vmaxq_u32(a.v[i], b.v[i]));
}
KVT_LANES i32x16 i32x16_min_u(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vminq_u32(a.v[i], b.v[i]));
}
KVT_LANES mask16 i32x16_gt(i32x16 a, i32x16 b)
{
    KVT_MAP(mask16, vcgtq_s32(vreinterpretq_s32_u32(a.v[i]), vreinterpretq_s32_u32(b.v[i])));
}
KVT_LANES i32x16 i32x16_select(mask16 m, i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vbslq_u32(m.v[i], a.v[i], b.v[i]));
}
KVT_LANES int mask16_any(mask16 m)
{
    return vmaxvq_u32(vorrq_u32(vorrq_u32(m.v[0], m.v[1]), vorrq_u32(m.v[2], m.v[3]))) != 0;
}

/* ---- f16 ---- */

KVT_LANES f32x16 f32x16_widen_f16(i32x16 a)
{
    KVT_MAP(f32x16, vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a.v[i]))));
}
KVT_LANES i32x16 i32x16_narrow_f16(f32x16 a)
{
    KVT_MAP(i32x16, vmovl_u16(vreinterpret_u16_f16(vcvt_f16_f32(a.v[i]))));
}
KVT_LANES f32x16 f32x16_load_f16(const void *p)
{
    KVT_MAP(f32x16, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p + 8 * i))));
}
KVT_LANES void f32x16_store_f16(void *p, f32x16 a)
{
    for (int i = 0; i < 4; i++)
        vst1_u8((uint8_t *)p + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(a.v[i])));
}

/* Bytes as the upper ones of f16: e5m2 is one, e4m3 is 2^-8 of one, and its NaN is not. */
KVT_LANES f32x16 kvt_widen_halfwords(uint16x8_t low, uint16x8_t high)
{
    const float16x8_t a = vreinterpretq_f16_u16(low), b = vreinterpretq_f16_u16(high);
    return (f32x16){ { vcvt_f32_f16(vget_low_f16(a)), vcvt_high_f32_f16(a), vcvt_f32_f16(vget_low_f16(b)), vcvt_high_f32_f16(b) } };
}
KVT_LANES uint16x8_t kvt_e4m3_halfwords(int16x8_t bytes)
{
    const uint16x8_t h = vandq_u16(vreinterpretq_u16_s16(bytes), vdupq_n_u16(0xbfff));
    return vbslq_u16(vceqq_u16(vorrq_u16(h, vdupq_n_u16(0x8000)), vdupq_n_u16(0xbf80)), vdupq_n_u16(0x7e00), h);
}
KVT_LANES f32x16 f32x16_load_e4m3(const void *p)
{
    const int8x16_t b = vreinterpretq_s8_u8(vld1q_u8((const uint8_t *)p));
    return f32x16_mul(kvt_widen_halfwords(kvt_e4m3_halfwords(vshll_n_s8(vget_low_s8(b), 7)), kvt_e4m3_halfwords(vshll_high_n_s8(b, 7))),
                      f32x16_set1(256));
}
KVT_LANES uint16x8_t kvt_e5m2_halfwords(uint8x16_t bytes)
{
    const uint16x8_t h = vreinterpretq_u16_u8(bytes);
    return vbslq_u16(vcgtq_u16(vandq_u16(h, vdupq_n_u16(0x7fff)), vdupq_n_u16(0x7c00)), vdupq_n_u16(0x7e00), h);
}
KVT_LANES f32x16 f32x16_load_e5m2(const void *p)
{
    const uint8x16_t b = vld1q_u8((const uint8_t *)p), zero = vdupq_n_u8(0);
    return kvt_widen_halfwords(kvt_e5m2_halfwords(vzip1q_u8(zero, b)), kvt_e5m2_halfwords(vzip2q_u8(zero, b)));
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
    KVT_MAP(u8x64, vandq_u8(a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_or(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, vorrq_u8(a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_andnot(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, vbicq_u8(a.v[i], b.v[i]));
}
KVT_LANES u8x64 u8x64_low_nibbles(u8x64 a)
{
    KVT_MAP(u8x64, vandq_u8(a.v[i], vdupq_n_u8(15)));
}
KVT_LANES u8x64 u8x64_high_nibbles(u8x64 a)
{
    KVT_MAP(u8x64, vshrq_n_u8(a.v[i], 4));
}
KVT_LANES u8x64 u8x64_join_nibbles(u8x64 low, u8x64 high)
{
    KVT_MAP(u8x64, vsliq_n_u8(low.v[i], high.v[i], 4));
}
KVT_LANES u8x64 u8x64_lookup16(u8x64 table, u8x64 index)
{
    KVT_MAP(u8x64, vqtbl1q_u8(table.v[0], index.v[i]));
}
KVT_LANES u8x64 u8x64_swap_cells(u8x64 a)
{
    static const uint8_t order[16] = { 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15 };
    KVT_MAP(u8x64, vqtbl1q_u8(a.v[i], vld1q_u8(order)));
}
KVT_LANES void u8x64_swap_quarters(u8x64 a[4]) /* only renames registers */
{
    const u8x64 t[4] = { a[0], a[1], a[2], a[3] };
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            a[i].v[j] = t[j].v[i];
}
KVT_LANES u8x64 u8x64_load_quarter(const void *p)
{
    const uint8x16_t q = vld1q_u8((const uint8_t *)p);
    KVT_MAP(u8x64, q);
}
KVT_LANES u8x64 u8x64_load_quarters(const void *a, const void *b, const void *c, const void *d)
{
    return (u8x64){ { vld1q_u8((const uint8_t *)a), vld1q_u8((const uint8_t *)b), vld1q_u8((const uint8_t *)c), vld1q_u8((const uint8_t *)d) } };
}
KVT_LANES u8x64 u8x64_load_eighth(const void *p)
{
    const uint8x8_t e = vld1_u8((const uint8_t *)p);
    KVT_MAP(u8x64, vcombine_u8(e, e));
}
/* gcc 12 copies all the registers of a table for every vqtbl2q and vqtbl4q (its intrinsics take them as an argument by value), so 16 copies where
 * none may be needed. `last` is the modifier that names the table's last register. */
#if defined(__clang__)
#define KVT_LOOKUP(intrinsic, last) KVT_MAP(u8x64, intrinsic(t, index.v[i]))
#else
#define KVT_TBL(i, last) __asm__("tbl %0.16b, {%S1.16b - %" last "1.16b}, %2.16b" : "=w"(r.v[i]) : "w"(t), "w"(index.v[i]))
#define KVT_LOOKUP(intrinsic, last)                                                                                                                  \
    u8x64 r;                                                                                                                                         \
    KVT_TBL(0, last);                                                                                                                                \
    KVT_TBL(1, last);                                                                                                                                \
    KVT_TBL(2, last);                                                                                                                                \
    KVT_TBL(3, last);                                                                                                                                \
    return r
#endif
KVT_LANES u8x64 u8x64_lookup32(const u8x64 table[2], u8x64 index)
{
    const uint8x16x2_t t = { { table[0].v[0], table[1].v[0] } };
    KVT_LOOKUP(vqtbl2q_u8, "T");
}
KVT_LANES u8x64 u8x64_lookup64(const u8x64 table[4], u8x64 index)
{
    const uint8x16x4_t t = { { table[0].v[0], table[1].v[0], table[2].v[0], table[3].v[0] } };
    KVT_LOOKUP(vqtbl4q_u8, "V");
}
KVT_LANES u8x64 u8x64_add(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, vaddq_u8(a.v[i], b.v[i]));
}
KVT_LANES uint8x16_t kvt_count_gt_s8(uint8x16_t count, int8x16_t a, int8x16_t b)
{
    uint8x16_t greater = vcgtq_s8(a, b);
#if defined(__clang__)
    __asm__("" : "+w"(greater)); /* clang 14 would add (greater & 1) instead: one instruction more */
#endif
    return vsubq_u8(count, greater);
}
KVT_LANES u8x64 u8x64_count_gt_s8(u8x64 count, u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, kvt_count_gt_s8(count.v[i], vreinterpretq_s8_u8(a.v[i]), vreinterpretq_s8_u8(b.v[i])));
}
KVT_LANES u8x64 u8x64_abs_s8(u8x64 a)
{
    KVT_MAP(u8x64, vreinterpretq_u8_s8(vabsq_s8(vreinterpretq_s8_u8(a.v[i]))));
}
KVT_LANES u8x64 u8x64_neg_s8(u8x64 a)
{
    KVT_MAP(u8x64, vreinterpretq_u8_s8(vqnegq_s8(vreinterpretq_s8_u8(a.v[i]))));
}
KVT_LANES u8x64 i16x32_mulhrs(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, vreinterpretq_u8_s16(vqrdmulhq_s16(vreinterpretq_s16_u8(a.v[i]), vreinterpretq_s16_u8(b.v[i]))));
}
KVT_LANES uint8x16_t kvt_pack_s8(int16x8_t a, int16x8_t b)
{
    return vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(a), b));
}
KVT_LANES u8x64 i16x32_pack_s8(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, kvt_pack_s8(vreinterpretq_s16_u8(a.v[i]), vreinterpretq_s16_u8(b.v[i])));
}
KVT_LANES u8x64 kvt_widen_low_half(u8x64 a)
{
    KVT_MAP(u8x64, vzip1q_u8(vdupq_n_u8(0), a.v[i]));
}
KVT_LANES u8x64 kvt_widen_high_half(u8x64 a)
{
    KVT_MAP(u8x64, vzip2q_u8(vdupq_n_u8(0), a.v[i]));
}
KVT_LANES void u8x64_widen_high_s8(u8x64 a, u8x64 half[2])
{
    half[0] = kvt_widen_low_half(a);
    half[1] = kvt_widen_high_half(a);
}
KVT_LANES uint32x4_t kvt_dot_s16(uint32x4_t sum, int16x8_t a, int16x8_t b)
{
    const int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b)), high = vmull_high_s16(a, b);
    return vaddq_u32(sum, vreinterpretq_u32_s32(vpaddq_s32(low, high)));
}
KVT_LANES i32x16 i32x16_dot_s16(i32x16 sum, u8x64 a, u8x64 b)
{
    KVT_MAP(i32x16, kvt_dot_s16(sum.v[i], vreinterpretq_s16_u8(a.v[i]), vreinterpretq_s16_u8(b.v[i])));
}
KVT_LANES i32x16 i32x16_add_pairs(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, vpaddq_u32(a.v[i], b.v[i]));
}
KVT_LANES f32x16 f32x16_add_neighbours(f32x16 a, f32x16 b)
{
    return (f32x16){ { vpaddq_f32(a.v[0], a.v[1]), vpaddq_f32(a.v[2], a.v[3]), vpaddq_f32(b.v[0], b.v[1]), vpaddq_f32(b.v[2], b.v[3]) } };
}
KVT_LANES f32x16 f32x16_load_pair(const float *p)
{
    const float32x2_t pair = vld1_f32(p);
    const float32x4_t x = vcombine_f32(pair, pair);
    return (f32x16){ { x, x, x, x } };
}
KVT_LANES f32x16 f32x16_load_quad(const float *p)
{
    const float32x4_t x = vld1q_f32(p);
    return (f32x16){ { x, x, x, x } };
}
KVT_LANES u8x64 kvt_twice_low(i32x16 a)
{
    KVT_MAP(u8x64, vreinterpretq_u8_u32(vzip1q_u32(a.v[i], a.v[i])));
}
KVT_LANES u8x64 kvt_twice_high(i32x16 a)
{
    KVT_MAP(u8x64, vreinterpretq_u8_u32(vzip2q_u32(a.v[i], a.v[i])));
}
KVT_LANES void i32x16_twice(i32x16 a, u8x64 half[2])
{
    half[0] = kvt_twice_low(a);
    half[1] = kvt_twice_high(a);
}
KVT_LANES int32x4_t kvt_dot_u7s8(int32x4_t sum, int8x16_t a, int8x16_t b)
{
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum, a, b);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b))), high = vpaddlq_s16(vmull_high_s8(a, b));
    return vaddq_s32(sum, vpaddq_s32(low, high));
#endif
}
KVT_LANES i32x16 i32x16_dot_u7s8(i32x16 sum, u8x64 a, u8x64 b)
{
    KVT_MAP(i32x16, vreinterpretq_u32_s32(kvt_dot_u7s8(vreinterpretq_s32_u32(sum.v[i]), vreinterpretq_s8_u8(a.v[i]), vreinterpretq_s8_u8(b.v[i]))));
}

/* ---- quads ---- */

KVT_LANES u8x64 u8x64_pack_u8(const i32x16 row[4])
{
    KVT_MAP(u8x64, kvt_low_bytes(row[i].v[0], row[i].v[1], row[i].v[2], row[i].v[3]));
}
KVT_LANES u8x64 u8x64_pack_s8(const i32x16 row[4])
{
    return u8x64_pack_u8(row);
}
KVT_LANES uint8x16_t kvt_low_bytes_sat_s8(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d)
{
    const uint16x8_t ab = vuzp1q_u16(vreinterpretq_u16_u32(a), vreinterpretq_u16_u32(b));
    const uint16x8_t cd = vuzp1q_u16(vreinterpretq_u16_u32(c), vreinterpretq_u16_u32(d));
    return vreinterpretq_u8_s8(vqmovn_high_s16(vqmovn_s16(vreinterpretq_s16_u16(ab)), vreinterpretq_s16_u16(cd)));
}
KVT_LANES u8x64 u8x64_pack_sat_s8(const i32x16 row[4])
{
    KVT_MAP(u8x64, kvt_low_bytes_sat_s8(row[i].v[0], row[i].v[1], row[i].v[2], row[i].v[3]));
}
KVT_LANES u8x64 kvt_words(i32x16 a, i32x16 b)
{
    KVT_MAP(u8x64, vreinterpretq_u8_u16(vuzp1q_u16(vreinterpretq_u16_u32(a.v[i]), vreinterpretq_u16_u32(b.v[i]))));
}
KVT_LANES void quad16_words(const i32x16 row[4], u8x64 half[2])
{
    half[0] = kvt_words(row[0], row[1]);
    half[1] = kvt_words(row[2], row[3]);
}
KVT_LANES uint32x4_t kvt_low_pair(uint32x4_t a, uint32x4_t b)
{
    return vreinterpretq_u32_u64(vzip1q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
}
KVT_LANES uint32x4_t kvt_high_pair(uint32x4_t a, uint32x4_t b)
{
    return vreinterpretq_u32_u64(vzip2q_u64(vreinterpretq_u64_u32(a), vreinterpretq_u64_u32(b)));
}
KVT_LANES void quad32_transpose(i32x16 row[4])
{
    for (int i = 0; i < 4; i++) {
        const uint32x4_t ab_even = vtrn1q_u32(row[0].v[i], row[1].v[i]), ab_odd = vtrn2q_u32(row[0].v[i], row[1].v[i]);
        const uint32x4_t cd_even = vtrn1q_u32(row[2].v[i], row[3].v[i]), cd_odd = vtrn2q_u32(row[2].v[i], row[3].v[i]);
        row[0].v[i] = kvt_low_pair(ab_even, cd_even);
        row[1].v[i] = kvt_low_pair(ab_odd, cd_odd);
        row[2].v[i] = kvt_high_pair(ab_even, cd_even);
        row[3].v[i] = kvt_high_pair(ab_odd, cd_odd);
    }
}
KVT_LANES void quad_max_u(const i32x16 row[4], uint32_t max[4])
{
    uint32x4_t m[4];
    for (int k = 0; k < 4; k++)
        m[k] = vmaxq_u32(vmaxq_u32(row[k].v[0], row[k].v[1]), vmaxq_u32(row[k].v[2], row[k].v[3]));
    vst1q_u32(max, vpmaxq_u32(vpmaxq_u32(m[0], m[1]), vpmaxq_u32(m[2], m[3])));
}

/* ---- dots of codes ---- */

#define KVT_DOT_BITS   8
#define KVT_DOT_BIAS   0
#define KVT_FLOAT_SUMS 4

typedef u8x64 dot_line;
typedef int8x16_t dot_quads;

KVT_LANES dot_line dot_line_of(u8x64 codes)
{
    return codes;
}
#if defined(__ARM_FEATURE_MATMUL_INT8)
/* Eight bytes of two terms, or of two rows, in turns, as smmla wants them. */
#define KVT_DOT_STEP  32
#define KVT_DOT_LOWER 8
KVT_LANES dot_quads dot_quads_at(const uint8_t *p)
{
    return vreinterpretq_s8_u8(vcombine_u8(vld1_u8(p), vld1_u8(p + 16)));
}
KVT_LANES void kvt_store_bytes(uint8_t *p, uint8x16_t a)
{
    vst1_u8(p, vget_low_u8(a));
    vst1_u8(p + 16, vget_high_u8(a));
}
#else
#define KVT_DOT_STEP  16
#define KVT_DOT_LOWER 64
KVT_LANES dot_quads dot_quads_at(const uint8_t *p)
{
    return vreinterpretq_s8_u8(vld1q_u8(p));
}
KVT_LANES void kvt_store_bytes(uint8_t *p, uint8x16_t a)
{
    vst1q_u8(p, a);
}
#endif
#if defined(__ARM_FEATURE_DOTPROD)
typedef i32x16 dot_sum;
KVT_LANES dot_sum dot_start(uint32_t start)
{
    return i32x16_set1(start);
}
KVT_LANES i32x16 dot_finish(dot_sum sum)
{
    return sum;
}
#define KVT_DOT_PART(sum, line, quads, j) vreinterpretq_u32_s32(vdotq_laneq_s32(vreinterpretq_s32_u32(sum), vreinterpretq_s8_u8(line), quads, j))
#define dot_add(sum, line, quads, j)                                                                                                                 \
    ((dot_sum){ { KVT_DOT_PART((sum).v[0], (line).v[0], quads, j), KVT_DOT_PART((sum).v[1], (line).v[1], quads, j),                                  \
                  KVT_DOT_PART((sum).v[2], (line).v[2], quads, j), KVT_DOT_PART((sum).v[3], (line).v[3], quads, j) } })
#if defined(__ARM_FEATURE_MATMUL_INT8)
#define KVT_DOT_ROWS  8
#define KVT_DOT_PAIRS 4 /* 16 of the 32 registers, if they are of half a tile's lanes */
KVT_LANES u8x64 dot_cells(u8x64 a, u8x64 b, uint32_t half)
{
    const uint32x4_t a0 = vreinterpretq_u32_u8(a.v[2 * half]), a1 = vreinterpretq_u32_u8(a.v[2 * half + 1]);
    const uint32x4_t b0 = vreinterpretq_u32_u8(b.v[2 * half]), b1 = vreinterpretq_u32_u8(b.v[2 * half + 1]);
    return u8x64_from_i32((i32x16){ { vzip1q_u32(a0, b0), vzip2q_u32(a0, b0), vzip1q_u32(a1, b1), vzip2q_u32(a1, b1) } });
}
KVT_LANES dot_sum dot_start_two(uint32_t a, uint32_t b)
{
    const uint32x4_t s = vreinterpretq_u32_u64(vdupq_n_u64((uint64_t)b << 32 | a));
    return (dot_sum){ { s, s, s, s } };
}
KVT_LANES int32x4_t kvt_dot_two(int32x4_t sum, uint8x16_t first, uint8x16_t second, const uint8_t *p)
{
    sum = vmmlaq_s32(sum, vreinterpretq_s8_u8(first), vreinterpretq_s8_u8(vld1q_u8(p)));
    return vmmlaq_s32(sum, vreinterpretq_s8_u8(second), vreinterpretq_s8_u8(vld1q_u8(p + 16)));
}
KVT_LANES dot_sum dot_add_two(dot_sum sum, const u8x64 cells[2], const uint8_t *p)
{
    KVT_MAP(dot_sum, vreinterpretq_u32_s32(kvt_dot_two(vreinterpretq_s32_u32(sum.v[i]), cells[0].v[i], cells[1].v[i], p)));
}
KVT_LANES i32x16 dot_finish_two(const dot_sum half[2], uint32_t which)
{
    i32x16 r;
    for (int i = 0; i < 4; i++) {
        const uint32x4_t a = half[i / 2].v[2 * i % 4], b = half[i / 2].v[2 * i % 4 + 1];
        r.v[i] = which ? vuzp2q_u32(a, b) : vuzp1q_u32(a, b);
    }
    return r;
}
KVT_LANES void f32x16_store_half(float *p, f32x16 a, uint32_t half)
{
    vst1q_f32(p + 8 * half, a.v[2 * half]);
    vst1q_f32(p + 8 * half + 4, a.v[2 * half + 1]);
}
#else
#define KVT_DOT_ROWS 4
#endif
#else
#define KVT_DOT_ROWS 2
/* Two sums for each cell, of bytes 0 and 1, and of 2 and 3: products of bytes are added in pairs. */
typedef struct dot_sum {
    int32x4_t v[8];
} dot_sum;
KVT_LANES dot_sum dot_start(uint32_t start)
{
    const int32x4_t s = vreinterpretq_s32_u64(vdupq_n_u64(start));
    return (dot_sum){ { s, s, s, s, s, s, s, s } };
}
KVT_LANES i32x16 dot_finish(dot_sum sum)
{
    KVT_MAP(i32x16, vreinterpretq_u32_s32(vpaddq_s32(sum.v[2 * i], sum.v[2 * i + 1])));
}
#define KVT_DOT_PARTS(sum, line, quad, i)                                                                                                            \
    vpadalq_s16((sum).v[2 * (i)], vmull_s8(vget_low_s8(vreinterpretq_s8_u8((line).v[i])), vget_low_s8(quad))),                                       \
        vpadalq_s16((sum).v[2 * (i) + 1], vmull_high_s8(vreinterpretq_s8_u8((line).v[i]), quad))
KVT_LANES dot_sum kvt_dot_quad(dot_sum sum, dot_line line, int8x16_t quad)
{
    return (dot_sum){ { KVT_DOT_PARTS(sum, line, quad, 0), KVT_DOT_PARTS(sum, line, quad, 1), KVT_DOT_PARTS(sum, line, quad, 2),
                        KVT_DOT_PARTS(sum, line, quad, 3) } };
}
#define dot_add(sum, line, quads, j) kvt_dot_quad(sum, line, vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(quads), j)))
#endif
KVT_LANES uint8x16_t kvt_bytes_of_words(uint8x16_t a, uint8x16_t b, uint16_t round, int is_high)
{
    if (!is_high)
        return vuzp1q_u8(a, b);
    const uint16x8_t r = vdupq_n_u16(round);
    return vuzp2q_u8(vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(a), r)), vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(b), r)));
}
#define KVT_DOT_U8_OFFSET 1
KVT_LANES void kvt_store_term(uint8_t *p, u8x64 bytes)
{
    for (int i = 0; i < 4; i++)
        kvt_store_bytes(p + KVT_DOT_STEP * i, bytes.v[i]);
}
#define dot_store_u8 kvt_store_term
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    for (int i = 0; i < 4; i++)
        kvt_store_bytes(p + KVT_DOT_STEP * i, kvt_bytes_of_words(a.v[i], b.v[i], 128, 1));
    for (int i = 0; terms == 2 && i < 4; i++)
        kvt_store_bytes(p + KVT_DOT_LOWER + KVT_DOT_STEP * i, kvt_bytes_of_words(a.v[i], b.v[i], 0, 0));
}
KVT_LANES void quad_sum(const i32x16 row[4], uint32_t sum[4])
{
    const i32x16 q = i32x16_add_pairs(i32x16_add_pairs(row[0], row[1]), i32x16_add_pairs(row[2], row[3]));
    vst1q_u8((uint8_t *)sum, vreinterpretq_u8_u32(vaddq_u32(vaddq_u32(q.v[0], q.v[1]), vaddq_u32(q.v[2], q.v[3]))));
}

#undef KVT_LOOKUP
#undef KVT_TBL
#undef KVT_MAP
#undef KVT_PART

#endif
