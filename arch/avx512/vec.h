/* SPDX-License-Identifier: MIT */
/* Lanes on AVX-512 F, BW, DQ, VL, with VBMI and VNNI where the compiler may use them: one register each. Contract: arch/VEC.md. */
#ifndef KVT_VEC_H
#define KVT_VEC_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define KVT_LANES static inline __attribute__((always_inline, unused))

typedef __m512 f32x16;
typedef __m512i i32x16;
typedef __m512i u8x64;
typedef __mmask16 mask16;

/* ---- reinterpret, load, store ---- */

KVT_LANES f32x16 f32x16_from_bits(i32x16 a)
{
    return _mm512_castsi512_ps(a);
}
KVT_LANES i32x16 i32x16_from_f32_bits(f32x16 a)
{
    return _mm512_castps_si512(a);
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
    return _mm512_loadu_ps(p);
}
KVT_LANES void f32x16_store(void *p, f32x16 a)
{
    _mm512_storeu_ps(p, a);
}
KVT_LANES i32x16 i32x16_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
KVT_LANES void i32x16_store(void *p, i32x16 a)
{
    _mm512_storeu_si512(p, a);
}
KVT_LANES u8x64 u8x64_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
KVT_LANES void u8x64_store(void *p, u8x64 a)
{
    _mm512_storeu_si512(p, a);
}
KVT_LANES i32x16 i32x16_load_u16(const void *p)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256(p));
}
KVT_LANES void i32x16_store_u16(void *p, i32x16 a)
{
    _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(a));
}

KVT_LANES i32x16 i32x16_load_u8(const void *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
KVT_LANES i32x16 i32x16_load_s8(const void *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
KVT_LANES void i32x16_store_u8(void *p, i32x16 a)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(a));
}

/* ---- f32 ---- */

KVT_LANES f32x16 f32x16_set1(float a)
{
    return _mm512_set1_ps(a);
}
KVT_LANES f32x16 f32x16_add(f32x16 a, f32x16 b)
{
    return _mm512_add_ps(a, b);
}
KVT_LANES f32x16 f32x16_sub(f32x16 a, f32x16 b)
{
    return _mm512_sub_ps(a, b);
}
KVT_LANES f32x16 f32x16_mul(f32x16 a, f32x16 b)
{
    return _mm512_mul_ps(a, b);
}
KVT_LANES f32x16 f32x16_div(f32x16 a, f32x16 b)
{
    return _mm512_div_ps(a, b);
}
KVT_LANES f32x16 f32x16_fma(f32x16 a, f32x16 b, f32x16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
KVT_LANES f32x16 f32x16_min_num(f32x16 a, f32x16 b)
{
    return _mm512_min_ps(a, b);
}
KVT_LANES f32x16 f32x16_max_num(f32x16 a, f32x16 b)
{
    return _mm512_max_ps(a, b);
}
KVT_LANES f32x16 f32x16_from_i32(i32x16 a)
{
    return _mm512_cvtepi32_ps(a);
}
KVT_LANES i32x16 i32x16_from_f32_rne(f32x16 a)
{
    return _mm512_cvtps_epi32(a);
}
KVT_LANES i32x16 i32x16_from_f32_trunc(f32x16 a)
{
    return _mm512_cvttps_epi32(a);
}

KVT_LANES mask16 f32x16_gt(f32x16 a, f32x16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
KVT_LANES f32x16 f32x16_zero_below(f32x16 a, uint32_t bits)
{
    const __m512i twice = _mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(a)); /* without the sign */
    return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(twice, _mm512_set1_epi32((int)(2 * bits))), a);
}
KVT_LANES f32x16 f32x16_scale_sub(f32x16 a, f32x16 b, f32x16 c)
{
    return _mm512_fmsub_ps(a, b, c);
}
/* The upper of each pair changes its sign and is added to the lower, whose product with 1 is exact: one rounding, that of the sum. */
KVT_LANES f32x16 f32x16_butterflies(f32x16 a, uint32_t h)
{
    const __m512 p = _mm512_set1_ps(1), n = _mm512_set1_ps(-1);
    if (h == 1)
        return _mm512_fmadd_ps(a, _mm512_mask_mov_ps(p, 0xaaaa, n), _mm512_permute_ps(a, 0xb1));
    if (h == 2)
        return _mm512_fmadd_ps(a, _mm512_mask_mov_ps(p, 0xcccc, n), _mm512_permute_ps(a, 0x4e));
    if (h == 4)
        return _mm512_fmadd_ps(a, _mm512_mask_mov_ps(p, 0xf0f0, n), _mm512_shuffle_f32x4(a, a, 0xb1));
    return _mm512_fmadd_ps(a, _mm512_mask_mov_ps(p, 0xff00, n), _mm512_shuffle_f32x4(a, a, 0x4e));
}

/* ---- 32-bit integers ---- */

KVT_LANES i32x16 i32x16_set1(uint32_t a)
{
    return _mm512_set1_epi32((int)a);
}
KVT_LANES i32x16 i32x16_add(i32x16 a, i32x16 b)
{
    return _mm512_add_epi32(a, b);
}
KVT_LANES i32x16 i32x16_sub(i32x16 a, i32x16 b)
{
    return _mm512_sub_epi32(a, b);
}
KVT_LANES i32x16 i32x16_and(i32x16 a, i32x16 b)
{
    return _mm512_and_si512(a, b);
}
KVT_LANES i32x16 i32x16_or(i32x16 a, i32x16 b)
{
    return _mm512_or_si512(a, b);
}
KVT_LANES i32x16 i32x16_xor(i32x16 a, i32x16 b)
{
    return _mm512_xor_si512(a, b);
}
#define i32x16_shl(a, n) _mm512_slli_epi32(a, n)
#define i32x16_shr(a, n) _mm512_srli_epi32(a, n)
KVT_LANES i32x16 i32x16_max_s(i32x16 a, i32x16 b)
{
    return _mm512_max_epi32(a, b);
}
KVT_LANES i32x16 i32x16_min_s(i32x16 a, i32x16 b)
{
    return _mm512_min_epi32(a, b);
}
KVT_LANES i32x16 i32x16_max_u(i32x16 a, i32x16 b)
{
    return _mm512_max_epu32(a, b);
}
KVT_LANES i32x16 i32x16_min_u(i32x16 a, i32x16 b)
{
    return _mm512_min_epu32(a, b);
}
KVT_LANES mask16 i32x16_gt(i32x16 a, i32x16 b)
{
    return _mm512_cmpgt_epi32_mask(a, b);
}
KVT_LANES i32x16 i32x16_select(mask16 m, i32x16 a, i32x16 b)
{
    return _mm512_mask_mov_epi32(b, m, a);
}
KVT_LANES int mask16_any(mask16 m)
{
    return m != 0;
}

/* ---- f16 ---- */

KVT_LANES f32x16 f32x16_widen_f16(i32x16 a)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a));
}
KVT_LANES i32x16 i32x16_narrow_f16(f32x16 a)
{
    return _mm512_cvtepu16_epi32(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
KVT_LANES f32x16 f32x16_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
KVT_LANES void f32x16_store_f16(void *p, f32x16 a)
{
    _mm256_storeu_si256(p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}

/* Bytes as the upper ones of f16: e5m2 is one, e4m3 is 2^-8 of one, and its NaN is not. */
KVT_LANES f32x16 f32x16_load_e4m3(const void *p)
{
    const __m256i bytes = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i h = _mm256_and_si256(_mm256_slli_epi16(bytes, 7), _mm256_set1_epi16((short)0xbfff));
    const __mmask16 is_nan = _mm256_cmpeq_epi16_mask(_mm256_or_si256(h, _mm256_set1_epi16((short)0x8000)), _mm256_set1_epi16((short)0xbf80));
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_mask_mov_epi16(h, is_nan, _mm256_set1_epi16(0x7e00))), _mm512_set1_ps(256));
}
KVT_LANES f32x16 f32x16_load_e5m2(const void *p)
{
    const __m256i h = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 8);
    const __mmask16 is_nan = _mm256_cmpgt_epi16_mask(_mm256_and_si256(h, _mm256_set1_epi16(0x7fff)), _mm256_set1_epi16(0x7c00));
    return _mm512_cvtph_ps(_mm256_mask_mov_epi16(h, is_nan, _mm256_set1_epi16(0x7e00)));
}

#ifdef __AVX512VBMI__
/* Of the 7 lower bits of a code: the upper and the lower byte of the upper half of its number, which has all its bits. */
static const uint8_t kvt_upper_e4m3[128] = { 0x00, 0x3b, 0x3b, 0x3b, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c,
                                             0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d,
                                             0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e,
                                             0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                             0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40,
                                             0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41,
                                             0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42,
                                             0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x7f };
static const uint8_t kvt_lower_e4m3[128] = { 0x00, 0x00, 0x80, 0xc0, 0x00, 0x20, 0x40, 0x60, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0,
                                             0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xc0 };
static const uint8_t kvt_upper_e5m2[128] = { 0x00, 0x37, 0x38, 0x38, 0x38, 0x38, 0x38, 0x38, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39, 0x39,
                                             0x3a, 0x3a, 0x3a, 0x3a, 0x3a, 0x3a, 0x3a, 0x3a, 0x3b, 0x3b, 0x3b, 0x3b, 0x3b, 0x3b, 0x3b, 0x3b,
                                             0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3c, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d, 0x3d,
                                             0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3e, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
                                             0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41, 0x41,
                                             0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x42, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43, 0x43,
                                             0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x45, 0x45, 0x45, 0x45, 0x45, 0x45, 0x45, 0x45,
                                             0x46, 0x46, 0x46, 0x46, 0x46, 0x46, 0x46, 0x46, 0x47, 0x47, 0x47, 0x47, 0x7f, 0x7f, 0x7f, 0x7f };
static const uint8_t kvt_lower_e5m2[128] = { 0x00, 0x80, 0x00, 0x40, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0,
                                             0x00, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xc0, 0xe0, 0x00, 0x20, 0x40, 0x60, 0x80, 0xc0, 0xc0, 0xc0 };
KVT_LANES __m512i kvt_lookup128(const uint8_t table[128], __m512i index)
{
    return _mm512_permutex2var_epi8(_mm512_loadu_si512(table), index, _mm512_loadu_si512(table + 64));
}
/* Codes 16 i .. 16 i + 15: their lower and upper bytes to the upper halves of the lanes. */
KVT_LANES f32x16 kvt_join_bytes(__m512i lower, __m512i upper, int i)
{
    const __m512i first = _mm512_setr_epi32(0x40000000, 0x41010000, 0x42020000, 0x43030000, 0x44040000, 0x45050000, 0x46060000, 0x47070000,
                                            0x48080000, 0x49090000, 0x4a0a0000, 0x4b0b0000, 0x4c0c0000, 0x4d0d0000, 0x4e0e0000, 0x4f0f0000);
    const __m512i order = _mm512_add_epi8(first, _mm512_set1_epi32(0x10100000 * i));
    return _mm512_castsi512_ps(_mm512_maskz_permutex2var_epi8(0xcccccccccccccccc, lower, order, upper));
}
KVT_LANES void kvt_load_line_fp8(const uint8_t upper[128], const uint8_t lower[128], const void *p, f32x16 part[4])
{
    const __m512i code = _mm512_loadu_si512(p), low = kvt_lookup128(lower, code);
    /* the code's sign on top of the upper byte */
    const __m512i high = _mm512_ternarylogic_epi32(kvt_lookup128(upper, code), code, _mm512_set1_epi8((char)0x80), 0xf8);
    part[0] = kvt_join_bytes(low, high, 0);
    part[1] = kvt_join_bytes(low, high, 1);
    part[2] = kvt_join_bytes(low, high, 2);
    part[3] = kvt_join_bytes(low, high, 3);
}
KVT_LANES void f32x16_load_line_e4m3(const void *p, f32x16 part[4])
{
    kvt_load_line_fp8(kvt_upper_e4m3, kvt_lower_e4m3, p, part);
}
KVT_LANES void f32x16_load_line_e5m2(const void *p, f32x16 part[4])
{
    kvt_load_line_fp8(kvt_upper_e5m2, kvt_lower_e5m2, p, part);
}
#else
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
#endif

/* ---- bytes of a line ---- */

KVT_LANES u8x64 u8x64_and(u8x64 a, u8x64 b)
{
    return _mm512_and_si512(a, b);
}
KVT_LANES u8x64 u8x64_or(u8x64 a, u8x64 b)
{
    return _mm512_or_si512(a, b);
}
KVT_LANES u8x64 u8x64_andnot(u8x64 a, u8x64 b)
{
    return _mm512_andnot_si512(b, a);
}
KVT_LANES u8x64 u8x64_low_nibbles(u8x64 a)
{
    return _mm512_and_si512(a, _mm512_set1_epi8(15));
}
KVT_LANES u8x64 u8x64_high_nibbles(u8x64 a)
{
    return _mm512_and_si512(_mm512_srli_epi16(a, 4), _mm512_set1_epi8(15));
}
KVT_LANES u8x64 u8x64_join_nibbles(u8x64 low, u8x64 high)
{
    return _mm512_or_si512(low, _mm512_slli_epi16(high, 4));
}
KVT_LANES u8x64 u8x64_lookup16(u8x64 table, u8x64 index)
{
    return _mm512_shuffle_epi8(table, index);
}
KVT_LANES u8x64 u8x64_swap_cells(u8x64 a)
{
    return _mm512_shuffle_epi8(a, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
}
KVT_LANES void u8x64_swap_quarters(u8x64 a[4])
{
    const __m512i even01 = _mm512_shuffle_i32x4(a[0], a[1], 0x88), odd01 = _mm512_shuffle_i32x4(a[0], a[1], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(a[2], a[3], 0x88), odd23 = _mm512_shuffle_i32x4(a[2], a[3], 0xdd);
    a[0] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    a[1] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    a[2] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
    a[3] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
}
KVT_LANES u8x64 u8x64_load_quarter(const void *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}
KVT_LANES u8x64 u8x64_load_quarters(const void *a, const void *b, const void *c, const void *d)
{
    const __m512i first = _mm512_inserti32x4(_mm512_castsi128_si512(_mm_loadu_si128(a)), _mm_loadu_si128(b), 1);
    return _mm512_inserti32x4(_mm512_inserti32x4(first, _mm_loadu_si128(c), 2), _mm_loadu_si128(d), 3);
}
KVT_LANES u8x64 u8x64_load_eighth(const void *p)
{
    return _mm512_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p));
}
#if defined(__AVX512VBMI__)
#define KVT_HAS_LOOKUP256
KVT_LANES u8x64 u8x64_lookup32(const u8x64 table[2], u8x64 index)
{
    return _mm512_permutexvar_epi8(index, _mm512_inserti64x4(table[1], _mm512_castsi512_si256(_mm512_mask_blend_epi64(0x0c, table[0], table[1])), 0));
}
KVT_LANES u8x64 u8x64_lookup64(const u8x64 table[4], u8x64 index)
{
    const __m512i low = _mm512_mask_mov_epi64(table[0], 0x0c, table[1]), high = _mm512_mask_mov_epi64(table[2], 0xc0, table[3]);
    return _mm512_permutexvar_epi8(index, _mm512_mask_mov_epi64(low, 0xf0, high));
}
/* Of 64 bytes in order, by the lower 6 bits. */
KVT_LANES u8x64 u8x64_lookup64_whole(u8x64 table, u8x64 index)
{
    return _mm512_permutexvar_epi8(index, table);
}
KVT_LANES u8x64 u8x64_lookup256(const u8x64 table[4], u8x64 index)
{
    const __m512i low = _mm512_permutex2var_epi8(table[0], index, table[1]);
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), _mm512_permutex2var_epi8(table[2], index, table[3]));
}
#else
KVT_LANES u8x64 u8x64_lookup32(const u8x64 table[2], u8x64 index)
{
    const __mmask64 high = _mm512_test_epi8_mask(index, _mm512_set1_epi8(16));
    return _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(table[0], index), high, table[1], index);
}
KVT_LANES u8x64 u8x64_lookup64(const u8x64 table[4], u8x64 index)
{
    const __mmask64 bit4 = _mm512_test_epi8_mask(index, _mm512_set1_epi8(16)), bit5 = _mm512_test_epi8_mask(index, _mm512_set1_epi8(32));
    const __m512i low = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(table[0], index), bit4, table[1], index);
    const __m512i high = _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(table[2], index), bit4, table[3], index);
    return _mm512_mask_mov_epi8(low, bit5, high);
}
#endif
KVT_LANES u8x64 u8x64_count_gt_s8(u8x64 count, u8x64 a, u8x64 b)
{
    return _mm512_mask_sub_epi8(count, _mm512_cmpgt_epi8_mask(a, b), count, _mm512_set1_epi8(-1));
}
KVT_LANES u8x64 u8x64_add(u8x64 a, u8x64 b)
{
    return _mm512_add_epi8(a, b);
}
KVT_LANES u8x64 u8x64_abs_s8(u8x64 a)
{
    return _mm512_abs_epi8(a);
}
KVT_LANES u8x64 u8x64_neg_s8(u8x64 a)
{
    return _mm512_subs_epi8(_mm512_setzero_si512(), a);
}
KVT_LANES u8x64 i16x32_mulhrs(u8x64 a, u8x64 b)
{
    return _mm512_mulhrs_epi16(a, b);
}
KVT_LANES u8x64 i16x32_pack_s8(u8x64 a, u8x64 b)
{
    return _mm512_packs_epi16(a, b);
}
KVT_LANES void u8x64_widen_high_s8(u8x64 a, u8x64 half[2])
{
    half[0] = _mm512_unpacklo_epi8(_mm512_setzero_si512(), a);
    half[1] = _mm512_unpackhi_epi8(_mm512_setzero_si512(), a);
}
KVT_LANES i32x16 i32x16_dot_s16(i32x16 sum, u8x64 a, u8x64 b)
{
#if defined(__AVX512VNNI__)
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "vm"(b)); /* gcc would copy sums back and forth */
    return sum;
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
#endif
}
KVT_LANES i32x16 i32x16_add_pairs(i32x16 a, i32x16 b)
{
    const __m512 x = _mm512_castsi512_ps(a), y = _mm512_castsi512_ps(b);
    return _mm512_add_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)), _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
}
KVT_LANES f32x16 f32x16_add_neighbours(f32x16 a, f32x16 b)
{
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b));
}
KVT_LANES f32x16 f32x16_load_pair(const float *p)
{
    double pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_castpd_ps(_mm512_set1_pd(pair));
}
KVT_LANES f32x16 f32x16_load_quad(const float *p)
{
    return _mm512_broadcast_f32x4(_mm_loadu_ps(p));
}
KVT_LANES void i32x16_twice(i32x16 a, u8x64 half[2])
{
    half[0] = _mm512_unpacklo_epi32(a, a);
    half[1] = _mm512_unpackhi_epi32(a, a);
}
KVT_LANES i32x16 i32x16_dot_u7s8(i32x16 sum, u8x64 a, u8x64 b)
{
#if defined(__AVX512VNNI__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "vm"(b));
    return sum;
#else
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
#endif
}

/* ---- quads: the packs work in quarters of 16 bytes, which is where the layout comes from ---- */

/* Packs work in quarters of 16 bytes: quarter l has cell l of each of the four. */
KVT_LANES u8x64 kvt_rows_in_order(u8x64 packed)
{
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), packed);
}
KVT_LANES u8x64 u8x64_pack_s8(const i32x16 row[4])
{
    return kvt_rows_in_order(_mm512_packs_epi16(_mm512_packs_epi32(row[0], row[1]), _mm512_packs_epi32(row[2], row[3])));
}
KVT_LANES u8x64 u8x64_pack_u8(const i32x16 row[4])
{
    return kvt_rows_in_order(_mm512_packus_epi16(_mm512_packs_epi32(row[0], row[1]), _mm512_packs_epi32(row[2], row[3])));
}
KVT_LANES u8x64 u8x64_pack_sat_s8(const i32x16 row[4])
{
    return u8x64_pack_s8(row);
}
KVT_LANES void quad16_words(const i32x16 row[4], u8x64 half[2])
{
    half[0] = _mm512_packs_epi32(row[0], row[1]);
    half[1] = _mm512_packs_epi32(row[2], row[3]);
}
KVT_LANES void quad32_transpose(i32x16 row[4])
{
    const __m512i ab_low = _mm512_unpacklo_epi32(row[0], row[1]), ab_high = _mm512_unpackhi_epi32(row[0], row[1]);
    const __m512i cd_low = _mm512_unpacklo_epi32(row[2], row[3]), cd_high = _mm512_unpackhi_epi32(row[2], row[3]);
    row[0] = _mm512_unpacklo_epi64(ab_low, cd_low);
    row[1] = _mm512_unpackhi_epi64(ab_low, cd_low);
    row[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    row[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
}
KVT_LANES void quad_max_u(const i32x16 row[4], uint32_t max[4])
{
    const __m512i ab = _mm512_max_epu32(_mm512_unpacklo_epi32(row[0], row[1]), _mm512_unpackhi_epi32(row[0], row[1]));
    const __m512i cd = _mm512_max_epu32(_mm512_unpacklo_epi32(row[2], row[3]), _mm512_unpackhi_epi32(row[2], row[3]));
    const __m512i abcd = _mm512_max_epu32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half = _mm256_max_epu32(_mm512_castsi512_si256(abcd), _mm512_extracti64x4_epi64(abcd, 1));
    _mm_storeu_si128((__m128i *)(void *)max, _mm_max_epu32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

/* ---- dots of codes: with VNNI of bytes, without it of halfwords ---- */

#define KVT_DOT_BIAS   128
#define KVT_DOT_STEP   16
#define KVT_DOT_LOWER  64
#define KVT_FLOAT_SUMS 16

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
#if defined(__AVX512VNNI__)
#define KVT_DOT_BITS 8
#define KVT_DOT_ROWS 16
typedef u8x64 dot_line;
KVT_LANES dot_line dot_line_of(u8x64 codes)
{
    return codes;
}
KVT_LANES dot_sum kvt_dot_quad(dot_sum sum, dot_line line, const uint8_t *quad)
{
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(line), "m"(*(const kvt_cell *)quad));
    return sum;
}
#define dot_add(sum, line, quads, j) kvt_dot_quad(sum, line, (quads) + 4 * (j))
/* More text for more speed, where the best CPUs are. */
#if defined(__AVX512VBMI__)
#define KVT_DOT_SETS 2
#endif
KVT_LANES __m512i kvt_everywhere(const uint8_t *quad)
{
    __m512i spread;
    __asm__("vpbroadcastd %1, %0" : "=v"(spread) : "m"(*(const kvt_cell *)quad));
    return spread;
}
KVT_LANES dot_sum kvt_dot_quad_shared(dot_sum sum, dot_line line, const uint8_t *quad)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(line), "v"(kvt_everywhere(quad)));
    return sum;
}
KVT_LANES dot_sum kvt_dot_quad_u8(dot_sum sum, dot_line line, const uint8_t *quad)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(kvt_everywhere(quad)), "v"(line));
    return sum;
}
#define dot_add_shared(sum, line, quads, j) kvt_dot_quad_shared(sum, line, (quads) + 4 * (j))
#define dot_add_u8(sum, line, quads, j)     kvt_dot_quad_u8(sum, line, (quads) + 4 * (j))
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    const __m512i half = _mm512_set1_epi16(128), byte = _mm512_set1_epi16(255);
    u8x64_store(p, _mm512_packus_epi16(_mm512_srli_epi16(_mm512_add_epi16(a, half), 8), _mm512_srli_epi16(_mm512_add_epi16(b, half), 8)));
    if (terms == 2)
        u8x64_store(p + 64, _mm512_packus_epi16(_mm512_and_si512(a, byte), _mm512_and_si512(b, byte)));
}
#else
#define KVT_DOT_BITS                 16
#define KVT_DOT_ROWS                 8
/* Bytes 0 and 2 of each cell, and 1 and 3, as halfwords. */
typedef struct dot_line {
    __m512i even, odd;
} dot_line;
KVT_LANES dot_line dot_line_of(u8x64 codes)
{
    return (dot_line){ _mm512_and_si512(codes, _mm512_set1_epi16(255)), _mm512_srli_epi16(codes, 8) };
}
KVT_LANES __m512i kvt_everywhere(const uint8_t *quad)
{
    __m512i spread;
    __asm__("vpbroadcastd %1, %0" : "=v"(spread) : "m"(*(const kvt_cell *)quad));
    return spread;
}
/* In one piece, because gcc would rather add products to each other first, and keep them on the stack until then. */
KVT_LANES __m512i kvt_add_products(__m512i sum, __m512i a, __m512i b)
{
    __m512i product;
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+v"(sum), "=&v"(product) : "v"(a), "v"(b));
    return sum;
}
KVT_LANES dot_sum kvt_dot_quad(dot_sum sum, dot_line line, const uint8_t *quad)
{
    return kvt_add_products(kvt_add_products(sum, line.even, kvt_everywhere(quad)), line.odd, kvt_everywhere(quad + 4));
}
#define dot_add(sum, line, quads, j) kvt_dot_quad(sum, line, (quads) + (j) / 2 * 64 + (j) % 2 * 8)
KVT_LANES void dot_store(uint8_t *p, u8x64 a, u8x64 b, int terms)
{
    (void)terms;
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
    u8x64_store(p, _mm512_shuffle_epi8(a, order));
    u8x64_store(p + 64, _mm512_shuffle_epi8(b, order));
}
#endif
KVT_LANES void quad_sum(const i32x16 row[4], uint32_t sum[4])
{
    const __m512i quarters = i32x16_add_pairs(i32x16_add_pairs(row[0], row[1]), i32x16_add_pairs(row[2], row[3]));
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64(quarters, 1));
    _mm_storeu_si128((__m128i *)(void *)sum, _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1)));
}

#endif
