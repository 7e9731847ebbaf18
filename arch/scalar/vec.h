/* SPDX-License-Identifier: MIT */
/* Lanes in plain C: the reference meaning of arch/VEC.md, and the tier that every CPU can run. */
#ifndef KVT_VEC_H
#define KVT_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Not always_inline as on the other tiers: loops of 16 instead of single instructions would grow the code beyond reason. */
#define KVT_LANES static inline __attribute__((unused))

typedef struct f32x16 {
    float v[16];
} f32x16;
typedef struct i32x16 {
    uint32_t v[16];
} i32x16;
typedef struct u8x64 {
    uint8_t v[64];
} u8x64;
typedef i32x16 mask16; /* all ones or all zeros in each lane */

#define KVT_MAP(type, n, expression)                                                                                                                 \
    type r;                                                                                                                                          \
    for (int i = 0; i < (n); i++)                                                                                                                    \
        r.v[i] = (expression);                                                                                                                       \
    return r

/* ---- reinterpret, load, store ---- */

KVT_LANES f32x16 f32x16_from_bits(i32x16 a)
{
    f32x16 r;
    memcpy(&r, &a, 64);
    return r;
}
KVT_LANES i32x16 i32x16_from_f32_bits(f32x16 a)
{
    i32x16 r;
    memcpy(&r, &a, 64);
    return r;
}
KVT_LANES u8x64 u8x64_from_i32(i32x16 a)
{
    u8x64 r;
    memcpy(&r, &a, 64);
    return r;
}
KVT_LANES i32x16 i32x16_from_u8(u8x64 a)
{
    i32x16 r;
    memcpy(&r, &a, 64);
    return r;
}
KVT_LANES f32x16 f32x16_load(const void *p)
{
    f32x16 r;
    memcpy(&r, p, 64);
    return r;
}
KVT_LANES void f32x16_store(void *p, f32x16 a)
{
    memcpy(p, &a, 64);
}
KVT_LANES i32x16 i32x16_load(const void *p)
{
    i32x16 r;
    memcpy(&r, p, 64);
    return r;
}
KVT_LANES void i32x16_store(void *p, i32x16 a)
{
    memcpy(p, &a, 64);
}
KVT_LANES u8x64 u8x64_load(const void *p)
{
    u8x64 r;
    memcpy(&r, p, 64);
    return r;
}
KVT_LANES void u8x64_store(void *p, u8x64 a)
{
    memcpy(p, &a, 64);
}
KVT_LANES i32x16 i32x16_load_u16(const void *p)
{
    uint16_t h[16];
    memcpy(h, p, 32);
    KVT_MAP(i32x16, 16, h[i]);
}
KVT_LANES void i32x16_store_u16(void *p, i32x16 a)
{
    uint16_t h[16];
    for (int i = 0; i < 16; i++)
        h[i] = (uint16_t)a.v[i];
    memcpy(p, h, 32);
}

KVT_LANES i32x16 i32x16_load_u8(const void *p)
{
    uint8_t b[16];
    memcpy(b, p, 16);
    KVT_MAP(i32x16, 16, b[i]);
}
KVT_LANES i32x16 i32x16_load_s8(const void *p)
{
    int8_t b[16];
    memcpy(b, p, 16);
    KVT_MAP(i32x16, 16, (uint32_t)b[i]);
}
KVT_LANES void i32x16_store_u8(void *p, i32x16 a)
{
    uint8_t b[16];
    for (int i = 0; i < 16; i++)
        b[i] = (uint8_t)a.v[i];
    memcpy(p, b, 16);
}

/* ---- f32 ---- */

KVT_LANES f32x16 f32x16_set1(float a)
{
    KVT_MAP(f32x16, 16, a);
}
KVT_LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, 16, a.v[i] + b.v[i]);
}
KVT_LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, 16, a.v[i] - b.v[i]);
}
KVT_LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, 16, a.v[i] * b.v[i]);
}
KVT_LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, 16, a.v[i] / b.v[i]);
}
#if defined(_WIN32)
/* That of mingw-w64 rounds twice, to 64 bits first. Here the product is exact, and the sum is rounded to an odd last bit, which rounding to a float
 * cannot mistake for half way (Boldo and Melquiond). */
KVT_LANES float kvt_fmaf(float a, float b, float c)
{
    const double product = (double)a * b, sum = product + c, added = sum - product;
    const double lost = (product - (sum - added)) + (c - added);
    uint64_t bits;
    memcpy(&bits, &sum, 8);
    if ((lost > 0 || lost < 0) && !(bits & 1))
        bits = (lost > 0) == (sum > 0) ? bits + 1 : bits - 1;
    double odd;
    memcpy(&odd, &bits, 8);
    return (float)odd;
}
#else
#define kvt_fmaf fmaf
#endif
KVT_LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    KVT_MAP(f32x16, 16, kvt_fmaf(a.v[i], b.v[i], c.v[i]));
}
KVT_LANES f32x16 f32x16_min_num(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, 16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES f32x16 f32x16_max_num(f32x16 a, f32x16 b)
{
    KVT_MAP(f32x16, 16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES f32x16 f32x16_from_i32(i32x16 a)
{
    KVT_MAP(f32x16, 16, (float)(int32_t)a.v[i]);
}
KVT_LANES i32x16 i32x16_from_f32_rne(f32x16 a)
{
    KVT_MAP(i32x16, 16, (uint32_t)(int32_t)lrintf(a.v[i]));
}
KVT_LANES i32x16 i32x16_from_f32_trunc(f32x16 a)
{
    KVT_MAP(i32x16, 16, (uint32_t)(int32_t)a.v[i]);
}

KVT_LANES mask16 f32x16_gt(f32x16 a, f32x16 b)
{
    KVT_MAP(mask16, 16, a.v[i] > b.v[i] ? UINT32_MAX : 0);
}
KVT_LANES uint32_t kvt_zero_below(float a, uint32_t bits)
{
    uint32_t all;
    memcpy(&all, &a, 4);
    return (all & 0x7fffffff) < bits ? 0 : all;
}
KVT_LANES f32x16 f32x16_zero_below(f32x16 a, uint32_t bits)
{
    i32x16 r;
    for (int i = 0; i < 16; i++)
        r.v[i] = kvt_zero_below(a.v[i], bits);
    return f32x16_from_bits(r);
}
KVT_LANES f32x16 f32x16_scale_sub(f32x16 a, f32x16 b, f32x16 c)
{
    KVT_MAP(f32x16, 16, a.v[i] * b.v[i] - c.v[i]);
}
KVT_LANES f32x16 f32x16_butterflies(f32x16 a, uint32_t h)
{
    KVT_MAP(f32x16, 16, i & (int)h ? a.v[i - (int)h] - a.v[i] : a.v[i] + a.v[i + (int)h]);
}

/* ---- 32-bit integers ---- */

KVT_LANES i32x16 i32x16_set1(uint32_t a)
{
    KVT_MAP(i32x16, 16, a);
}
KVT_LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] + b.v[i]);
}
KVT_LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] - b.v[i]);
}
KVT_LANES i32x16 i32x16_and(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] & b.v[i]);
}
KVT_LANES i32x16 i32x16_or(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] | b.v[i]);
}
#define i32x16_shl(a, n) i32x16_shl_(a, n)
#define i32x16_shr(a, n) i32x16_shr_(a, n)
KVT_LANES i32x16 i32x16_shl_(i32x16 a, int n)
{
    KVT_MAP(i32x16, 16, a.v[i] << n);
}
KVT_LANES i32x16 i32x16_shr_(i32x16 a, int n)
{
    KVT_MAP(i32x16, 16, a.v[i] >> n);
}
KVT_LANES i32x16 i32x16_xor(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] ^ b.v[i]);
}
KVT_LANES i32x16 i32x16_max_s(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, (int32_t)a.v[i] > (int32_t)b.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES i32x16 i32x16_min_s(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, (int32_t)a.v[i] < (int32_t)b.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES i32x16 i32x16_max_u(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES i32x16 i32x16_min_u(i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES mask16 i32x16_gt(i32x16 a, i32x16 b)
{
    KVT_MAP(mask16, 16, (int32_t)a.v[i] > (int32_t)b.v[i] ? UINT32_MAX : 0);
}
KVT_LANES i32x16 i32x16_select(mask16 m, i32x16 a, i32x16 b)
{
    KVT_MAP(i32x16, 16, m.v[i] ? a.v[i] : b.v[i]);
}
KVT_LANES int mask16_any(mask16 m)
{
    uint32_t any = 0;
    for (int i = 0; i < 16; i++)
        any |= m.v[i];
    return any != 0;
}

/* ---- f16 ---- */

KVT_LANES uint32_t kvt_f16_to_bits(uint32_t h)
{
    const uint32_t sign = (h & 0x8000) << 16, magnitude = h & 0x7fff;
    if (magnitude >= 0x7c00) /* infinity, NaN */
        return sign | 0x7f800000 | (magnitude & 0x3ff) << 13 | (magnitude > 0x7c00 ? 0x400000 : 0);
    if (magnitude >= 0x0400)
        return sign | ((magnitude << 13) + ((127 - 15) << 23));
    const float subnormal = (float)magnitude * 0x1p-24f;
    uint32_t bits;
    memcpy(&bits, &subnormal, 4);
    return sign | bits;
}
KVT_LANES uint32_t kvt_f16_from_bits(uint32_t bits)
{
    const uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7e00 | (magnitude >> 13 & 0x3ff);
    if (magnitude >= 0x477ff000) /* 65520 rounds to infinity */
        return sign | 0x7c00;
    if (magnitude < 0x38800000) { /* below 2^-14: adding 0.5 puts the last subnormal bit, 2^-24, in the last place of a float */
        float f;
        memcpy(&f, &magnitude, 4);
        f += 0.5f;
        uint32_t sum;
        memcpy(&sum, &f, 4);
        return sign | (sum - 0x3f000000);
    }
    return sign | ((magnitude - ((127 - 15) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13);
}
KVT_LANES f32x16 f32x16_widen_f16(i32x16 a)
{
    i32x16 bits;
    for (int i = 0; i < 16; i++)
        bits.v[i] = kvt_f16_to_bits(a.v[i]);
    return f32x16_from_bits(bits);
}
KVT_LANES i32x16 i32x16_narrow_f16(f32x16 a)
{
    const i32x16 bits = i32x16_from_f32_bits(a);
    KVT_MAP(i32x16, 16, kvt_f16_from_bits(bits.v[i]));
}
KVT_LANES f32x16 f32x16_load_f16(const void *p)
{
    return f32x16_widen_f16(i32x16_load_u16(p));
}
KVT_LANES void f32x16_store_f16(void *p, f32x16 a)
{
    i32x16_store_u16(p, i32x16_narrow_f16(a));
}

KVT_LANES f32x16 f32x16_load_e4m3(const void *p)
{
    i32x16 h = i32x16_load_u8(p);
    for (int i = 0; i < 16; i++)
        h.v[i] = (h.v[i] & 0x7f) == 0x7f ? 0x7e00 : (h.v[i] & 0x80) << 8 | (h.v[i] & 0x7f) << 7;
    return f32x16_mul(f32x16_widen_f16(h), f32x16_set1(256));
}
KVT_LANES f32x16 f32x16_load_e5m2(const void *p)
{
    i32x16 h = i32x16_load_u8(p);
    for (int i = 0; i < 16; i++)
        h.v[i] = (h.v[i] & 0x7f) > 0x7c ? 0x7e00 : h.v[i] << 8;
    return f32x16_widen_f16(h);
}

KVT_LANES void f32x16_load_line_e4m3(const void *p, f32x16 part[4])
{
    for (int i = 0; i < 4; i++)
        part[i] = f32x16_load_e4m3((const uint8_t *)p + 16 * i);
}
KVT_LANES void f32x16_load_line_e5m2(const void *p, f32x16 part[4])
{
    for (int i = 0; i < 4; i++)
        part[i] = f32x16_load_e5m2((const uint8_t *)p + 16 * i);
}

/* ---- bytes of a line ---- */

KVT_LANES u8x64 u8x64_and(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, 64, a.v[i] & b.v[i]);
}
KVT_LANES u8x64 u8x64_or(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, 64, a.v[i] | b.v[i]);
}
KVT_LANES u8x64 u8x64_andnot(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, 64, (uint8_t)(a.v[i] & ~b.v[i]));
}
KVT_LANES u8x64 u8x64_low_nibbles(u8x64 a)
{
    KVT_MAP(u8x64, 64, a.v[i] & 15);
}
KVT_LANES u8x64 u8x64_high_nibbles(u8x64 a)
{
    KVT_MAP(u8x64, 64, a.v[i] >> 4);
}
KVT_LANES u8x64 u8x64_join_nibbles(u8x64 low, u8x64 high)
{
    KVT_MAP(u8x64, 64, (uint8_t)(low.v[i] | high.v[i] << 4));
}
KVT_LANES u8x64 u8x64_lookup16(u8x64 table, u8x64 index)
{
    KVT_MAP(u8x64, 64, table.v[(i & 48) + index.v[i]]);
}
KVT_LANES u8x64 u8x64_swap_cells(u8x64 a)
{
    KVT_MAP(u8x64, 64, a.v[(i & 48) + 4 * (i & 3) + (i >> 2 & 3)]);
}
KVT_LANES void u8x64_swap_quarters(u8x64 a[4])
{
    u8x64 t[4];
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            memcpy(t[i].v + 16 * j, a[j].v + 16 * i, 16);
    memcpy(a, t, sizeof t);
}
KVT_LANES i32x16 i32x16_dot_u7s8(i32x16 sum, u8x64 a, u8x64 b)
{
    for (int i = 0; i < 64; i++)
        sum.v[i / 4] += (uint32_t)(a.v[i] * (int8_t)b.v[i]);
    return sum;
}

KVT_LANES u8x64 u8x64_load_quarter(const void *p)
{
    u8x64 r;
    for (int i = 0; i < 4; i++)
        memcpy(r.v + 16 * i, p, 16);
    return r;
}
KVT_LANES u8x64 u8x64_load_quarters(const void *a, const void *b, const void *c, const void *d)
{
    u8x64 r;
    memcpy(r.v, a, 16);
    memcpy(r.v + 16, b, 16);
    memcpy(r.v + 32, c, 16);
    memcpy(r.v + 48, d, 16);
    return r;
}
KVT_LANES u8x64 u8x64_load_eighth(const void *p)
{
    u8x64 r;
    for (int i = 0; i < 8; i++)
        memcpy(r.v + 8 * i, p, 8);
    return r;
}
KVT_LANES u8x64 u8x64_lookup32(const u8x64 table[2], u8x64 index)
{
    KVT_MAP(u8x64, 64, table[index.v[i] >> 4].v[(i & 48) + (index.v[i] & 15)]);
}
KVT_LANES u8x64 u8x64_lookup64(const u8x64 table[4], u8x64 index)
{
    KVT_MAP(u8x64, 64, table[index.v[i] >> 4].v[(i & 48) + (index.v[i] & 15)]);
}
KVT_LANES u8x64 u8x64_count_gt_s8(u8x64 count, u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, 64, (uint8_t)(count.v[i] + ((int8_t)a.v[i] > (int8_t)b.v[i])));
}
KVT_LANES u8x64 u8x64_add(u8x64 a, u8x64 b)
{
    KVT_MAP(u8x64, 64, (uint8_t)(a.v[i] + b.v[i]));
}
KVT_LANES u8x64 u8x64_abs_s8(u8x64 a)
{
    KVT_MAP(u8x64, 64, (uint8_t)((int8_t)a.v[i] < 0 ? -(int8_t)a.v[i] : (int8_t)a.v[i]));
}
KVT_LANES u8x64 u8x64_neg_s8(u8x64 a)
{
    KVT_MAP(u8x64, 64, a.v[i] == 0x80 ? 0x7f : (uint8_t)-a.v[i]);
}

/* ---- 32 halfwords in a line ---- */

KVT_LANES int16_t s16_at(u8x64 a, int i)
{
    int16_t h;
    memcpy(&h, a.v + 2 * i, 2);
    return h;
}
KVT_LANES u8x64 i16x32_mulhrs(u8x64 a, u8x64 b)
{
    u8x64 r;
    for (int i = 0; i < 32; i++) {
        const int16_t h = (int16_t)((s16_at(a, i) * s16_at(b, i) + (1 << 14)) >> 15);
        memcpy(r.v + 2 * i, &h, 2);
    }
    return r;
}
KVT_LANES u8x64 i16x32_pack_s8(u8x64 a, u8x64 b)
{
    u8x64 r;
    for (int i = 0; i < 64; i++) {
        const int16_t h = s16_at(i & 8 ? b : a, i / 16 * 8 + i % 8);
        r.v[i] = (uint8_t)(h < -128 ? -128 : h > 127 ? 127 : h);
    }
    return r;
}
KVT_LANES void u8x64_widen_high_s8(u8x64 a, u8x64 half[2])
{
    for (int i = 0; i < 64; i++) {
        uint8_t *to = half[i >> 3 & 1].v + i / 16 * 16 + i % 8 * 2;
        to[0] = 0;
        to[1] = a.v[i];
    }
}
KVT_LANES i32x16 i32x16_dot_s16(i32x16 sum, u8x64 a, u8x64 b)
{
    for (int i = 0; i < 32; i++)
        sum.v[i / 2] += (uint32_t)(s16_at(a, i) * s16_at(b, i));
    return sum;
}
KVT_LANES f32x16 f32x16_add_neighbours(f32x16 a, f32x16 b)
{
    f32x16 r;
    for (int i = 0; i < 16; i++) {
        const f32x16 *from = i < 8 ? &a : &b;
        r.v[i] = from->v[i % 8 * 2] + from->v[i % 8 * 2 + 1];
    }
    return r;
}
KVT_LANES f32x16 f32x16_load_pair(const float *p)
{
    f32x16 r;
    for (int i = 0; i < 16; i++)
        r.v[i] = p[i % 2];
    return r;
}
KVT_LANES f32x16 f32x16_load_quad(const float *p)
{
    f32x16 r;
    for (int i = 0; i < 16; i++)
        r.v[i] = p[i % 4];
    return r;
}
KVT_LANES i32x16 i32x16_add_pairs(i32x16 a, i32x16 b)
{
    i32x16 r;
    for (int i = 0; i < 16; i++) {
        const i32x16 *from = i & 2 ? &b : &a;
        r.v[i] = from->v[i / 4 * 4 + i % 2 * 2] + from->v[i / 4 * 4 + i % 2 * 2 + 1];
    }
    return r;
}
KVT_LANES void i32x16_twice(i32x16 a, u8x64 half[2])
{
    i32x16 r[2];
    for (int i = 0; i < 16; i++)
        r[i >> 1 & 1].v[i / 4 * 4 + i % 2 * 2] = r[i >> 1 & 1].v[i / 4 * 4 + i % 2 * 2 + 1] = a.v[i];
    half[0] = u8x64_from_i32(r[0]);
    half[1] = u8x64_from_i32(r[1]);
}

/* ---- quads ---- */

KVT_LANES u8x64 u8x64_pack_sat_s8(const i32x16 row[4])
{
    u8x64 r;
    for (int i = 0; i < 64; i++) {
        const int32_t x = (int32_t)row[i / 16].v[i % 16];
        r.v[i] = (uint8_t)(x < -128 ? -128 : x > 127 ? 127 : x);
    }
    return r;
}
KVT_LANES u8x64 u8x64_pack_u8(const i32x16 row[4])
{
    u8x64 r;
    for (int i = 0; i < 64; i++)
        r.v[i] = (uint8_t)row[i / 16].v[i % 16];
    return r;
}
KVT_LANES u8x64 u8x64_pack_s8(const i32x16 row[4])
{
    return u8x64_pack_u8(row);
}
KVT_LANES void quad16_words(const i32x16 row[4], u8x64 half[2])
{
    for (int i = 0; i < 64; i++) {
        const uint16_t h = (uint16_t)row[i / 16].v[i % 16];
        memcpy(half[i / 32].v + i % 16 / 4 * 16 + i / 16 % 2 * 8 + i % 4 * 2, &h, 2);
    }
}

KVT_LANES void quad32_transpose(i32x16 row[4])
{
    i32x16 t[4];
    for (int lane = 0; lane < 16; lane++)
        for (int k = 0; k < 4; k++)
            t[lane % 4].v[lane / 4 * 4 + k] = row[k].v[lane];
    memcpy(row, t, sizeof t);
}
KVT_LANES void quad_max_u(const i32x16 row[4], uint32_t max[4])
{
    for (int k = 0; k < 4; k++) {
        max[k] = 0;
        for (int lane = 0; lane < 16; lane++)
            max[k] = row[k].v[lane] > max[k] ? row[k].v[lane] : max[k];
    }
}

#undef KVT_MAP
/* ---- dots of codes ---- */

#define KVT_DOT_BITS   8
#define KVT_DOT_BIAS   0
#define KVT_DOT_STEP   16
#define KVT_DOT_LOWER  64
#define KVT_DOT_ROWS   2
#define KVT_FLOAT_SUMS 2

typedef u8x64 dot_line;
typedef i32x16 dot_sum;
typedef const uint8_t *dot_quads;

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
    return p;
}
KVT_LANES dot_sum kvt_dot_quad(dot_sum sum, dot_line line, const uint8_t *p)
{
    uint32_t quad;
    memcpy(&quad, p, 4);
    for (int i = 0; i < 64; i++)
        sum.v[i / 4] += (uint32_t)((int8_t)line.v[i] * (int8_t)(quad >> i % 4 * 8));
    return sum;
}
#define dot_add(sum, line, quads, j) kvt_dot_quad(sum, line, (quads) + 4 * (j))
#define KVT_DOT_U8_OFFSET            1
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    u8x64 high, low;
    for (int i = 0; i < 64; i++) {
        const int16_t h = s16_at(i & 8 ? b : a, i / 16 * 8 + i % 8);
        high.v[i] = (uint8_t)((uint32_t)(h + 128) >> 8);
        low.v[i] = (uint8_t)h;
    }
    u8x64_store(p, high);
    if (terms == 2)
        u8x64_store(p + 64, low);
}
KVT_LANES void quad_sum(const i32x16 row[4], uint32_t sum[4])
{
    for (int k = 0; k < 4; k++) {
        sum[k] = 0;
        for (int i = 0; i < 16; i++)
            sum[k] += row[k].v[i];
    }
}

#endif
