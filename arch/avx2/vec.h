/* SPDX-License-Identifier: MIT */
/* Lanes on AVX2, FMA, F16C: two registers each, channels or tokens 0-7 and 8-15. Contract: arch/VEC.md. */
#ifndef KVT_VEC_H
#define KVT_VEC_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define KVT_LANES static inline __attribute__((always_inline, unused))

typedef struct f32x16 {
    __m256 v[2];
} f32x16;
typedef struct i32x16 {
    __m256i v[2];
} i32x16;
typedef i32x16 u8x64;
typedef i32x16 mask16; /* all ones or all zeros in each lane */

#define KVT_BOTH(type, expression_0, expression_1) ((type){ { expression_0, expression_1 } })
#define KVT_MAP1(type, f, a)                       KVT_BOTH(type, f((a).v[0]), f((a).v[1]))
#define KVT_MAP2(type, f, a, b)                    KVT_BOTH(type, f((a).v[0], (b).v[0]), f((a).v[1], (b).v[1]))
#define KVT_MAP3(type, f, a, b, c)                 KVT_BOTH(type, f((a).v[0], (b).v[0], (c).v[0]), f((a).v[1], (b).v[1], (c).v[1]))

/* ---- reinterpret, load, store ---- */

KVT_LANES f32x16 f32x16_from_bits(i32x16 a)
{
    return KVT_MAP1(f32x16, _mm256_castsi256_ps, a);
}
KVT_LANES i32x16 i32x16_from_f32_bits(f32x16 a)
{
    return KVT_MAP1(i32x16, _mm256_castps_si256, a);
}
KVT_LANES u8x64 u8x64_from_i32(i32x16 a)
{
    return a;
}
KVT_LANES i32x16 i32x16_from_u8(u8x64 a)
{
    return a;
}
KVT_LANES f32x16 f32x16_load(const void *p)
{
    const float *f = p;
    return KVT_BOTH(f32x16, _mm256_loadu_ps(f), _mm256_loadu_ps(f + 8));
}
KVT_LANES void f32x16_store(void *p, f32x16 a)
{
    float *f = p;
    _mm256_storeu_ps(f, a.v[0]);
    _mm256_storeu_ps(f + 8, a.v[1]);
}
KVT_LANES i32x16 i32x16_load(const void *p)
{
    const __m256i *q = p;
    return KVT_BOTH(i32x16, _mm256_loadu_si256(q), _mm256_loadu_si256(q + 1));
}
KVT_LANES void i32x16_store(void *p, i32x16 a)
{
    __m256i *q = p;
    _mm256_storeu_si256(q, a.v[0]);
    _mm256_storeu_si256(q + 1, a.v[1]);
}
KVT_LANES u8x64 u8x64_load(const void *p)
{
    return i32x16_load(p);
}
KVT_LANES void u8x64_store(void *p, u8x64 a)
{
    i32x16_store(p, a);
}
KVT_LANES i32x16 i32x16_load_u16(const void *p)
{
    const __m128i *q = p;
    return KVT_BOTH(i32x16, _mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1)));
}
KVT_LANES void i32x16_store_u16(void *p, i32x16 a)
{
    const __m256i low = _mm256_set1_epi32(0xffff);
    const __m256i packed = _mm256_packus_epi32(_mm256_and_si256(a.v[0], low), _mm256_and_si256(a.v[1], low));
    _mm256_storeu_si256(p, _mm256_permute4x64_epi64(packed, 0xd8));
}
KVT_LANES i32x16 i32x16_load_u8(const void *p)
{
    const uint8_t *q = p;
    return KVT_BOTH(i32x16, _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)q)),
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(q + 8))));
}
KVT_LANES i32x16 i32x16_load_s8(const void *p)
{
    const uint8_t *q = p;
    return KVT_BOTH(i32x16, _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)q)),
                    _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(q + 8))));
}
KVT_LANES void i32x16_store_u8(void *p, i32x16 a)
{
    const __m256i order = _mm256_set1_epi32(0x0c080400); /* a quarter's low bytes, in all its cells */
    const __m256i bytes = _mm256_blend_epi32(_mm256_shuffle_epi8(a.v[0], order), _mm256_shuffle_epi8(a.v[1], order), 0x22);
    _mm_storeu_si128(p, _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}

/* ---- f32 ---- */

KVT_LANES f32x16 f32x16_set1(float a)
{
    return KVT_BOTH(f32x16, _mm256_set1_ps(a), _mm256_set1_ps(a));
}
KVT_LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    return KVT_MAP2(f32x16, _mm256_add_ps, a, b);
}
KVT_LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    return KVT_MAP2(f32x16, _mm256_sub_ps, a, b);
}
KVT_LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    return KVT_MAP2(f32x16, _mm256_mul_ps, a, b);
}
KVT_LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    return KVT_MAP2(f32x16, _mm256_div_ps, a, b);
}
KVT_LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    return KVT_MAP3(f32x16, _mm256_fmadd_ps, a, b, c);
}
KVT_LANES f32x16 f32x16_min_num(f32x16 a, f32x16 b)
{
    return KVT_MAP2(f32x16, _mm256_min_ps, a, b);
}
KVT_LANES f32x16 f32x16_max_num(f32x16 a, f32x16 b)
{
    return KVT_MAP2(f32x16, _mm256_max_ps, a, b);
}
KVT_LANES f32x16 f32x16_from_i32(i32x16 a)
{
    return KVT_MAP1(f32x16, _mm256_cvtepi32_ps, a);
}
KVT_LANES i32x16 i32x16_from_f32_rne(f32x16 a)
{
    return KVT_MAP1(i32x16, _mm256_cvtps_epi32, a);
}
KVT_LANES i32x16 i32x16_from_f32_trunc(f32x16 a)
{
    return KVT_MAP1(i32x16, _mm256_cvttps_epi32, a);
}
KVT_LANES __m256i kvt_gt_f32(__m256 a, __m256 b)
{
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
KVT_LANES mask16 f32x16_gt(f32x16 a, f32x16 b)
{
    return KVT_MAP2(mask16, kvt_gt_f32, a, b);
}
/* As a comparison of floats: compilers make five instructions of one of integers. */
KVT_LANES __m256 kvt_zero_below(__m256 a, uint32_t bits)
{
    const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
    return _mm256_and_ps(_mm256_cmp_ps(magnitude, _mm256_castsi256_ps(_mm256_set1_epi32((int)bits)), _CMP_NLT_UQ), a);
}
KVT_LANES f32x16 f32x16_zero_below(f32x16 a, uint32_t bits)
{
    return KVT_BOTH(f32x16, kvt_zero_below(a.v[0], bits), kvt_zero_below(a.v[1], bits));
}
KVT_LANES f32x16 f32x16_scale_sub(f32x16 a, f32x16 b, f32x16 c)
{
    return KVT_MAP3(f32x16, _mm256_fmsub_ps, a, b, c);
}
/* The upper of each pair changes its sign and is added to the lower, whose product with 1 is exact: one rounding, that of the sum. */
KVT_LANES __m256 kvt_butterflies(__m256 a, uint32_t h)
{
    if (h == 1)
        return _mm256_fmadd_ps(a, _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1), _mm256_permute_ps(a, 0xb1));
    if (h == 2)
        return _mm256_fmadd_ps(a, _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1), _mm256_permute_ps(a, 0x4e));
    return _mm256_fmadd_ps(a, _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1), _mm256_permute2f128_ps(a, a, 0x01));
}
KVT_LANES f32x16 f32x16_butterflies(f32x16 a, uint32_t h)
{
    if (h == 8)
        return KVT_BOTH(f32x16, _mm256_add_ps(a.v[0], a.v[1]), _mm256_sub_ps(a.v[0], a.v[1]));
    return KVT_BOTH(f32x16, kvt_butterflies(a.v[0], h), kvt_butterflies(a.v[1], h));
}

/* ---- 32-bit integers ---- */

KVT_LANES i32x16 i32x16_set1(uint32_t a)
{
    return KVT_BOTH(i32x16, _mm256_set1_epi32((int)a), _mm256_set1_epi32((int)a));
}
KVT_LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_add_epi32, a, b);
}
KVT_LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_sub_epi32, a, b);
}
KVT_LANES i32x16 i32x16_and(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_and_si256, a, b);
}
KVT_LANES i32x16 i32x16_or(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_or_si256, a, b);
}
KVT_LANES i32x16 i32x16_xor(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_xor_si256, a, b);
}
#define i32x16_shl(a, n) KVT_BOTH(i32x16, _mm256_slli_epi32((a).v[0], n), _mm256_slli_epi32((a).v[1], n))
#define i32x16_shr(a, n) KVT_BOTH(i32x16, _mm256_srli_epi32((a).v[0], n), _mm256_srli_epi32((a).v[1], n))
KVT_LANES i32x16 i32x16_max_s(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_max_epi32, a, b);
}
KVT_LANES i32x16 i32x16_min_s(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_min_epi32, a, b);
}
KVT_LANES i32x16 i32x16_max_u(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_max_epu32, a, b);
}
KVT_LANES i32x16 i32x16_min_u(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_min_epu32, a, b);
}
KVT_LANES mask16 i32x16_gt(i32x16 a, i32x16 b)
{
    return KVT_MAP2(mask16, _mm256_cmpgt_epi32, a, b);
}
KVT_LANES i32x16 i32x16_select(mask16 m, i32x16 a, i32x16 b)
{
    return KVT_MAP3(i32x16, _mm256_blendv_epi8, b, a, m);
}
KVT_LANES int mask16_any(mask16 m)
{
    return _mm256_movemask_epi8(_mm256_or_si256(m.v[0], m.v[1])) != 0;
}

/* ---- f16 ---- */

KVT_LANES f32x16 f32x16_load_f16(const void *p)
{
    const __m128i *q = p;
    return KVT_BOTH(f32x16, _mm256_cvtph_ps(_mm_loadu_si128(q)), _mm256_cvtph_ps(_mm_loadu_si128(q + 1)));
}
KVT_LANES void f32x16_store_f16(void *p, f32x16 a)
{
    __m128i *q = p;
    _mm_storeu_si128(q, _mm256_cvtps_ph(a.v[0], _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(q + 1, _mm256_cvtps_ph(a.v[1], _MM_FROUND_TO_NEAREST_INT));
}
KVT_LANES __m256 kvt_widen_f16(__m256i a)
{
    const __m128i h = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    return _mm256_cvtph_ps(h);
}
KVT_LANES __m256i kvt_narrow_f16(__m256 a)
{
    return _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
KVT_LANES f32x16 f32x16_widen_f16(i32x16 a)
{
    return KVT_MAP1(f32x16, kvt_widen_f16, a);
}
KVT_LANES i32x16 i32x16_narrow_f16(f32x16 a)
{
    return KVT_MAP1(i32x16, kvt_narrow_f16, a);
}

/* Bytes as the upper ones of f16: e5m2 is one, e4m3 is 2^-8 of one, and its NaN is not. */
KVT_LANES f32x16 kvt_widen_halfwords(__m256i h, __m256i is_nan)
{
    const __m256i f16 = _mm256_blendv_epi8(h, _mm256_set1_epi16(0x7e00), is_nan);
    return KVT_BOTH(f32x16, _mm256_cvtph_ps(_mm256_castsi256_si128(f16)), _mm256_cvtph_ps(_mm256_extracti128_si256(f16, 1)));
}
KVT_LANES f32x16 f32x16_load_e4m3(const void *p)
{
    const __m256i bytes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i h = _mm256_and_si256(_mm256_slli_epi16(bytes, 7), _mm256_set1_epi16((short)0xbfff));
    const __m256i is_nan = _mm256_cmpeq_epi16(_mm256_or_si256(h, _mm256_set1_epi16((short)0x8000)), _mm256_set1_epi16((short)0xbf80));
    return f32x16_mul(kvt_widen_halfwords(h, is_nan), f32x16_set1(256));
}
KVT_LANES f32x16 f32x16_load_e5m2(const void *p)
{
    const __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 8);
    return kvt_widen_halfwords(h, _mm256_cmpgt_epi16(_mm256_and_si256(h, _mm256_set1_epi16(0x7fff)), _mm256_set1_epi16(0x7c00)));
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

KVT_LANES __m256i kvt_low_nibbles(__m256i a)
{
    return _mm256_and_si256(a, _mm256_set1_epi8(15));
}
KVT_LANES __m256i kvt_high_nibbles(__m256i a)
{
    return _mm256_and_si256(_mm256_srli_epi16(a, 4), _mm256_set1_epi8(15));
}
KVT_LANES __m256i kvt_join_nibbles(__m256i low, __m256i high)
{
    return _mm256_or_si256(low, _mm256_slli_epi16(high, 4));
}
KVT_LANES __m256i kvt_swap_cells(__m256i a)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_shuffle_epi8(a, _mm256_broadcastsi128_si256(order));
}
KVT_LANES u8x64 u8x64_and(u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_and_si256, a, b);
}
KVT_LANES u8x64 u8x64_or(u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_or_si256, a, b);
}
KVT_LANES u8x64 u8x64_andnot(u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_andnot_si256, b, a);
}
KVT_LANES u8x64 u8x64_low_nibbles(u8x64 a)
{
    return KVT_MAP1(u8x64, kvt_low_nibbles, a);
}
KVT_LANES u8x64 u8x64_high_nibbles(u8x64 a)
{
    return KVT_MAP1(u8x64, kvt_high_nibbles, a);
}
KVT_LANES u8x64 u8x64_join_nibbles(u8x64 low, u8x64 high)
{
    return KVT_MAP2(u8x64, kvt_join_nibbles, low, high);
}
KVT_LANES u8x64 u8x64_lookup16(u8x64 table, u8x64 index)
{
    return KVT_MAP2(u8x64, _mm256_shuffle_epi8, table, index);
}
KVT_LANES u8x64 u8x64_swap_cells(u8x64 a)
{
    return KVT_MAP1(u8x64, kvt_swap_cells, a);
}
KVT_LANES void u8x64_swap_quarters(u8x64 a[4])
{
    u8x64 t[4];
    for (int i = 0; i < 2; i++) {
        t[2 * i].v[0] = _mm256_permute2x128_si256(a[0].v[i], a[1].v[i], 0x20);
        t[2 * i].v[1] = _mm256_permute2x128_si256(a[2].v[i], a[3].v[i], 0x20);
        t[2 * i + 1].v[0] = _mm256_permute2x128_si256(a[0].v[i], a[1].v[i], 0x31);
        t[2 * i + 1].v[1] = _mm256_permute2x128_si256(a[2].v[i], a[3].v[i], 0x31);
    }
    for (int i = 0; i < 4; i++)
        a[i] = t[i];
}
KVT_LANES u8x64 u8x64_load_quarter(const void *p)
{
    const __m256i q = _mm256_broadcastsi128_si256(_mm_loadu_si128(p));
    return KVT_BOTH(u8x64, q, q);
}
KVT_LANES __m256i kvt_load_halves(const void *low, const void *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
}
KVT_LANES u8x64 u8x64_load_quarters(const void *a, const void *b, const void *c, const void *d)
{
    return KVT_BOTH(u8x64, kvt_load_halves(a, b), kvt_load_halves(c, d));
}
KVT_LANES u8x64 u8x64_load_eighth(const void *p)
{
    const __m256i e = _mm256_broadcastq_epi64(_mm_loadl_epi64(p));
    return KVT_BOTH(u8x64, e, e);
}
/* A table against the one before it: where index is 16 or more, turns what the earlier lookup gave into what this table has. A shuffle gives 0 for
 * negative bytes and looks at the low four bits of others. Cheaper than blending with blendv, and callers' loops keep the difference of the tables.
 */
KVT_LANES __m256i kvt_next_lookup(__m256i result, __m256i before, __m256i table, __m256i index_less_16)
{
    return _mm256_xor_si256(result, _mm256_shuffle_epi8(_mm256_xor_si256(before, table), index_less_16));
}
KVT_LANES __m256i kvt_lookup32(__m256i t0, __m256i t1, __m256i index)
{
    return kvt_next_lookup(_mm256_shuffle_epi8(t0, index), t0, t1, _mm256_sub_epi8(index, _mm256_set1_epi8(16)));
}
KVT_LANES u8x64 u8x64_lookup32(const u8x64 table[2], u8x64 index)
{
    return KVT_MAP3(u8x64, kvt_lookup32, table[0], table[1], index);
}
KVT_LANES __m256i kvt_lookup64(__m256i t0, __m256i t1, __m256i t2, __m256i t3, __m256i index)
{
    const __m256i r = kvt_next_lookup(kvt_lookup32(t0, t1, index), t1, t2, _mm256_sub_epi8(index, _mm256_set1_epi8(32)));
    return kvt_next_lookup(r, t2, t3, _mm256_sub_epi8(index, _mm256_set1_epi8(48)));
}
KVT_LANES u8x64 u8x64_lookup64(const u8x64 table[4], u8x64 index)
{
    return KVT_BOTH(u8x64, kvt_lookup64(table[0].v[0], table[1].v[0], table[2].v[0], table[3].v[0], index.v[0]),
                    kvt_lookup64(table[0].v[1], table[1].v[1], table[2].v[1], table[3].v[1], index.v[1]));
}
KVT_LANES u8x64 u8x64_add(u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_add_epi8, a, b);
}
KVT_LANES u8x64 u8x64_count_gt_s8(u8x64 count, u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_sub_epi8, count, KVT_MAP2(u8x64, _mm256_cmpgt_epi8, a, b));
}
KVT_LANES u8x64 u8x64_abs_s8(u8x64 a)
{
    return KVT_MAP1(u8x64, _mm256_abs_epi8, a);
}
KVT_LANES __m256i kvt_neg_s8(__m256i a)
{
    return _mm256_subs_epi8(_mm256_setzero_si256(), a);
}
KVT_LANES u8x64 u8x64_neg_s8(u8x64 a)
{
    return KVT_MAP1(u8x64, kvt_neg_s8, a);
}
KVT_LANES u8x64 i16x32_mulhrs(u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_mulhrs_epi16, a, b);
}
KVT_LANES u8x64 i16x32_pack_s8(u8x64 a, u8x64 b)
{
    return KVT_MAP2(u8x64, _mm256_packs_epi16, a, b);
}
KVT_LANES void u8x64_widen_high_s8(u8x64 a, u8x64 half[2])
{
    const u8x64 zero = KVT_BOTH(u8x64, _mm256_setzero_si256(), _mm256_setzero_si256());
    half[0] = KVT_MAP2(u8x64, _mm256_unpacklo_epi8, zero, a);
    half[1] = KVT_MAP2(u8x64, _mm256_unpackhi_epi8, zero, a);
}
KVT_LANES i32x16 i32x16_dot_s16(i32x16 sum, u8x64 a, u8x64 b)
{
    return KVT_MAP2(i32x16, _mm256_add_epi32, sum, KVT_MAP2(i32x16, _mm256_madd_epi16, a, b));
}
KVT_LANES i32x16 i32x16_add_pairs(i32x16 a, i32x16 b)
{
    return KVT_MAP2(i32x16, _mm256_hadd_epi32, a, b);
}
KVT_LANES __m256 kvt_add_neighbours(f32x16 a)
{
    const __m256 sums = _mm256_hadd_ps(a.v[0], a.v[1]);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(sums), 0xd8));
}
KVT_LANES f32x16 f32x16_add_neighbours(f32x16 a, f32x16 b)
{
    return KVT_BOTH(f32x16, kvt_add_neighbours(a), kvt_add_neighbours(b));
}
KVT_LANES f32x16 f32x16_load_pair(const float *p)
{
    double pair;
    memcpy(&pair, p, sizeof pair);
    const __m256 x = _mm256_castpd_ps(_mm256_set1_pd(pair));
    return KVT_BOTH(f32x16, x, x);
}
KVT_LANES f32x16 f32x16_load_quad(const float *p)
{
    const __m256 x = _mm256_broadcast_ps((const __m128 *)(const void *)p);
    return KVT_BOTH(f32x16, x, x);
}
KVT_LANES void i32x16_twice(i32x16 a, u8x64 half[2])
{
    half[0] = KVT_MAP2(u8x64, _mm256_unpacklo_epi32, a, a);
    half[1] = KVT_MAP2(u8x64, _mm256_unpackhi_epi32, a, a);
}
KVT_LANES __m256i kvt_dot_u7s8(__m256i sum, __m256i a, __m256i b)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
}
KVT_LANES i32x16 i32x16_dot_u7s8(i32x16 sum, u8x64 a, u8x64 b)
{
    return KVT_MAP3(i32x16, kvt_dot_u7s8, sum, a, b);
}

/* ---- quads: the packs work in quarters of 16 bytes, which is where the layout comes from ---- */

/* Packs work in quarters of 16 bytes: of two rows, cells 0 and 4 of each, and so on. */
KVT_LANES __m256i kvt_rows_in_order(__m256i packed)
{
    return _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}
KVT_LANES u8x64 u8x64_pack_s8(const i32x16 row[4])
{
    u8x64 r;
    for (int i = 0; i < 2; i++)
        r.v[i] = kvt_rows_in_order(
            _mm256_packs_epi16(_mm256_packs_epi32(row[2 * i].v[0], row[2 * i].v[1]), _mm256_packs_epi32(row[2 * i + 1].v[0], row[2 * i + 1].v[1])));
    return r;
}
KVT_LANES u8x64 u8x64_pack_u8(const i32x16 row[4])
{
    u8x64 r;
    for (int i = 0; i < 2; i++)
        r.v[i] = kvt_rows_in_order(
            _mm256_packus_epi16(_mm256_packs_epi32(row[2 * i].v[0], row[2 * i].v[1]), _mm256_packs_epi32(row[2 * i + 1].v[0], row[2 * i + 1].v[1])));
    return r;
}
KVT_LANES u8x64 u8x64_pack_sat_s8(const i32x16 row[4])
{
    return u8x64_pack_s8(row);
}
KVT_LANES void quad16_words(const i32x16 row[4], u8x64 half[2])
{
    half[0] = KVT_MAP2(u8x64, _mm256_packs_epi32, row[0], row[1]);
    half[1] = KVT_MAP2(u8x64, _mm256_packs_epi32, row[2], row[3]);
}
KVT_LANES void quad32_transpose(i32x16 row[4])
{
    for (int i = 0; i < 2; i++) {
        const __m256i ab_low = _mm256_unpacklo_epi32(row[0].v[i], row[1].v[i]), ab_high = _mm256_unpackhi_epi32(row[0].v[i], row[1].v[i]);
        const __m256i cd_low = _mm256_unpacklo_epi32(row[2].v[i], row[3].v[i]), cd_high = _mm256_unpackhi_epi32(row[2].v[i], row[3].v[i]);
        row[0].v[i] = _mm256_unpacklo_epi64(ab_low, cd_low);
        row[1].v[i] = _mm256_unpackhi_epi64(ab_low, cd_low);
        row[2].v[i] = _mm256_unpacklo_epi64(ab_high, cd_high);
        row[3].v[i] = _mm256_unpackhi_epi64(ab_high, cd_high);
    }
}
KVT_LANES void quad_max_u(const i32x16 row[4], uint32_t max[4])
{
    __m256i m[4];
    for (int k = 0; k < 4; k++)
        m[k] = _mm256_max_epu32(row[k].v[0], row[k].v[1]);
    const __m256i ab = _mm256_max_epu32(_mm256_unpacklo_epi32(m[0], m[1]), _mm256_unpackhi_epi32(m[0], m[1]));
    const __m256i cd = _mm256_max_epu32(_mm256_unpacklo_epi32(m[2], m[3]), _mm256_unpackhi_epi32(m[2], m[3]));
    const __m256i abcd = _mm256_max_epu32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    _mm_storeu_si128((__m128i *)(void *)max, _mm_max_epu32(_mm256_castsi256_si128(abcd), _mm256_extracti128_si256(abcd, 1)));
}

/* ---- dots of codes: of bytes with AVX-VNNI, otherwise of halfwords, as products of bytes would saturate ---- */

#define KVT_DOT_BIAS      128
#define KVT_DOT_STEP      16
#define KVT_DOT_LOWER     64
#define KVT_DOT_ROWS      4
#define KVT_FLOAT_SUMS    4
#define KVT_FEW_REGISTERS 1

typedef i32x16 dot_sum;
typedef const uint8_t *dot_quads;
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
/* As assembly, because compilers would rather load many quads at once, take them apart, and keep what they spread on the stack. */
typedef struct kvt_cell {
    uint8_t byte[4];
} kvt_cell;
KVT_LANES __m256i kvt_everywhere(const uint8_t *quad)
{
    __m256i spread;
    __asm__("vpbroadcastd %1, %0" : "=x"(spread) : "m"(*(const kvt_cell *)quad));
    return spread;
}
/* Rounded. */
KVT_LANES void kvt_store_upper_bytes(uint8_t *p, u8x64 a, u8x64 b)
{
    const __m256i half = _mm256_set1_epi16(128);
    for (int i = 0; i < 2; i++)
        _mm256_storeu_si256((__m256i *)(void *)(p + 32 * i), _mm256_packus_epi16(_mm256_srli_epi16(_mm256_add_epi16(a.v[i], half), 8),
                                                                                 _mm256_srli_epi16(_mm256_add_epi16(b.v[i], half), 8)));
}
#ifdef __AVXVNNI__
#define KVT_DOT_BITS 8
typedef u8x64 dot_line;
KVT_LANES dot_line dot_line_of(u8x64 codes)
{
    return codes;
}
KVT_LANES dot_sum kvt_dot_quad(dot_sum sum, dot_line line, const uint8_t *quad)
{
    const __m256i spread = kvt_everywhere(quad);
    sum.v[0] = _mm256_dpbusd_avx_epi32(sum.v[0], line.v[0], spread);
    sum.v[1] = _mm256_dpbusd_avx_epi32(sum.v[1], line.v[1], spread);
    return sum;
}
#define dot_add(sum, line, quads, j) kvt_dot_quad(sum, line, (quads) + 4 * (j))
KVT_LANES dot_sum kvt_dot_quad_u8(dot_sum sum, dot_line line, const uint8_t *quad)
{
    const __m256i spread = kvt_everywhere(quad);
    sum.v[0] = _mm256_dpbusd_avx_epi32(sum.v[0], spread, line.v[0]);
    sum.v[1] = _mm256_dpbusd_avx_epi32(sum.v[1], spread, line.v[1]);
    return sum;
}
#define dot_add_u8(sum, line, quads, j) kvt_dot_quad_u8(sum, line, (quads) + 4 * (j))
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    const __m256i byte = _mm256_set1_epi16(255);
    kvt_store_upper_bytes(p, a, b);
    if (terms == 2)
        for (int i = 0; i < 2; i++)
            _mm256_storeu_si256((__m256i *)(void *)(p + 64 + 32 * i),
                                _mm256_packus_epi16(_mm256_and_si256(a.v[i], byte), _mm256_and_si256(b.v[i], byte)));
}
#else
#define KVT_DOT_BITS                 16
/* Bytes 0 and 2 of each cell, and 1 and 3, as halfwords. */
typedef struct dot_line {
    __m256i even[2], odd[2];
} dot_line;

KVT_LANES dot_line dot_line_of(u8x64 codes)
{
    const __m256i byte = _mm256_set1_epi16(255);
    return (dot_line){ { _mm256_and_si256(codes.v[0], byte), _mm256_and_si256(codes.v[1], byte) },
                       { _mm256_srli_epi16(codes.v[0], 8), _mm256_srli_epi16(codes.v[1], 8) } };
}
/* In one piece, because gcc would rather add products to each other first, and keep them on the stack until then. */
KVT_LANES __m256i kvt_add_products(__m256i sum, __m256i a, __m256i b)
{
    __m256i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(a), "x"(b));
    return sum;
}
KVT_LANES dot_sum kvt_dot_quad(dot_sum sum, dot_line line, const uint8_t *quad)
{
    const __m256i even = kvt_everywhere(quad);
    sum.v[0] = kvt_add_products(sum.v[0], line.even[0], even);
    sum.v[1] = kvt_add_products(sum.v[1], line.even[1], even);
    const __m256i odd = kvt_everywhere(quad + 4);
    sum.v[0] = kvt_add_products(sum.v[0], line.odd[0], odd);
    sum.v[1] = kvt_add_products(sum.v[1], line.odd[1], odd);
    return sum;
}
#define dot_add(sum, line, quads, j) kvt_dot_quad(sum, line, (quads) + (j) / 2 * 64 + (j) % 2 * 8)
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    (void)terms;
    const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    for (int i = 0; i < 2; i++) {
        _mm256_storeu_si256((__m256i *)(void *)(p + 32 * i), _mm256_shuffle_epi8(a.v[i], order));
        _mm256_storeu_si256((__m256i *)(void *)(p + 64 + 32 * i), _mm256_shuffle_epi8(b.v[i], order));
    }
}

/* Two products of bytes within 127 fit a halfword. The first byte has to be unsigned, so a level's sign goes to the number it meets. */
#define KVT_DOT_S7
typedef struct dot_line_s7 {
    u8x64 level, magnitude;
} dot_line_s7;
KVT_LANES dot_line_s7 dot_line_s7_of(u8x64 levels)
{
    return (dot_line_s7){ levels, KVT_MAP1(u8x64, _mm256_abs_epi8, levels) };
}
/* In one piece, as kvt_add_products. */
KVT_LANES __m256i kvt_add_products_s7(__m256i sum, __m256i level, __m256i magnitude, __m256i x)
{
    __m256i product;
    __asm__("vpsignb %2, %4, %1\n\tvpmaddubsw %1, %3, %1\n\tvpmaddwd %5, %1, %1\n\tvpaddd %1, %0, %0"
            : "+x"(sum), "=&x"(product)
            : "x"(level), "x"(magnitude), "x"(x), "x"(_mm256_set1_epi16(1)));
    return sum;
}
KVT_LANES dot_sum kvt_dot_quad_s7(dot_sum sum, dot_line_s7 line, const uint8_t *quad)
{
    const __m256i spread = kvt_everywhere(quad);
    for (int i = 0; i < 2; i++)
        sum.v[i] = kvt_add_products_s7(sum.v[i], line.level.v[i], line.magnitude.v[i], spread);
    return sum;
}
#define dot_add_s7(sum, line, quads, j) kvt_dot_quad_s7(sum, line, (quads) + 4 * (j))
#define dot_store_s7                    kvt_store_upper_bytes
#endif
KVT_LANES void quad_sum(const i32x16 row[4], uint32_t sum[4])
{
    const i32x16 quarters = i32x16_add_pairs(i32x16_add_pairs(row[0], row[1]), i32x16_add_pairs(row[2], row[3]));
    const __m256i half = _mm256_add_epi32(quarters.v[0], quarters.v[1]);
    _mm_storeu_si128((__m128i *)(void *)sum, _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

#endif
