/* SPDX-License-Identifier: MIT */
#include "vec_words.h"

#include "arch/exp.h"
#include "kernels/number.h"

#include <string.h>

#if defined(KVT_SLEEF)
#include "vec_exp.h"
#else
KVT_LANES f32x16 f32x16_exp(f32x16 x)
{
    return f32x16_exp_plain(x);
}
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b)  JOIN_(a, b)

#define F(n) f32x16_load(in + 64 * (n))
#define I(n) i32x16_load(in + 64 * (n))
#define B(n) u8x64_load(in + 64 * (n))

#define COMMA ,
#define WORD(name, ...)                                                                                                                              \
    static void run_##name(const uint8_t in[256], uint8_t out[256])                                                                                  \
    {                                                                                                                                                \
        (void)in;                                                                                                                                    \
        __VA_ARGS__;                                                                                                                                 \
    }
#define OUT_F(name, expression) WORD(name, f32x16_store(out, expression))
#define OUT_I(name, expression) WORD(name, i32x16_store(out, expression))
#define OUT_B(name, expression) WORD(name, u8x64_store(out, expression))

OUT_F(f32x16_add, f32x16_add(F(0), F(1)))
OUT_F(f32x16_sub, f32x16_sub(F(0), F(1)))
OUT_F(f32x16_mul, f32x16_mul(F(0), F(1)))
OUT_F(f32x16_div, f32x16_div(F(0), F(1)))
OUT_F(f32x16_fma, f32x16_fma(F(0), F(1), F(2)))
OUT_F(f32x16_min_num, f32x16_min_num(F(0), F(1)))
OUT_F(f32x16_max_num, f32x16_max_num(F(0), F(1)))
OUT_I(f32x16_gt, i32x16_select(f32x16_gt(F(0), F(1)), I(2), I(3)))
OUT_F(f32x16_zero_below, f32x16_zero_below(F(0), 0x0f800000))
OUT_F(f32x16_scale_sub, f32x16_scale_sub(F(0), f32x16_set1(0.125f), F(1)))
WORD(f32x16_butterflies, f32x16_store(out, f32x16_butterflies(F(0), 1)); f32x16_store(out + 64, f32x16_butterflies(F(1), 2));
     f32x16_store(out + 128, f32x16_butterflies(F(2), 4)); f32x16_store(out + 192, f32x16_butterflies(F(3), 8)))
OUT_F(f32x16_from_i32, f32x16_from_i32(I(0)))
OUT_F(f32x16_set1, f32x16_set1(1.5f))
OUT_F(f32x16_exp, f32x16_exp(F(0)))
OUT_F(f32x16_exp_plain, f32x16_exp_plain(F(0)))
/* Of every number one between -26 and 8; f32x16_exp_plain says the same of it, or all bits are set. */
static f32x16 near(f32x16 x)
{
    const i32x16 lower = i32x16_and(i32x16_from_f32_bits(x), i32x16_set1(0x7fffff));
    return f32x16_fma(f32x16_from_i32(lower), f32x16_set1(34 * 0x1p-23f), f32x16_set1(-26));
}
OUT_I(exp_near,
      i32x16_select(i32x16_gt(i32x16_xor(i32x16_from_f32_bits(f32x16_exp_near(near(F(0)))), i32x16_from_f32_bits(f32x16_exp_plain(near(F(0))))),
                              i32x16_set1(0)),
                    i32x16_set1(UINT32_MAX), i32x16_from_f32_bits(f32x16_exp_near(near(F(0))))))
OUT_I(i32x16_from_f32_rne, i32x16_from_f32_rne(F(0)))
OUT_I(i32x16_from_f32_trunc, i32x16_from_f32_trunc(F(0)))
OUT_I(i32x16_set1, i32x16_set1(0x80c0ffee))
OUT_I(i32x16_add, i32x16_add(I(0), I(1)))
OUT_I(i32x16_sub, i32x16_sub(I(0), I(1)))
OUT_I(i32x16_and, i32x16_and(I(0), I(1)))
OUT_I(i32x16_or, i32x16_or(I(0), I(1)))
OUT_I(i32x16_xor, i32x16_xor(I(0), I(1)))
OUT_I(i32x16_shl, i32x16_shl(I(0), 7))
OUT_I(i32x16_shr, i32x16_shr(I(0), 24))
OUT_I(i32x16_min_u, i32x16_min_u(I(0), I(1)))
OUT_I(i32x16_max_u, i32x16_max_u(I(0), I(1)))
OUT_I(i32x16_min_s, i32x16_min_s(I(0), I(1)))
OUT_I(i32x16_max_s, i32x16_max_s(I(0), I(1)))
OUT_I(i32x16_gt, i32x16_select(i32x16_gt(I(0), I(1)), I(2), I(3)))
OUT_I(mask16_any, i32x16_set1((uint32_t)mask16_any(i32x16_gt(I(0), i32x16_set1(0x7f000000)))))
OUT_I(i32x16_load_u8, i32x16_load_u8(in + 1))
OUT_I(i32x16_load_s8, i32x16_load_s8(in + 1))
WORD(i32x16_store_u8, i32x16_store_u8(out + 1, I(0)))
OUT_I(i32x16_load_u16, i32x16_load_u16(in + 2))
WORD(i32x16_store_u16, i32x16_store_u16(out + 2, I(0)))
OUT_F(f32x16_load_f16, f32x16_load_f16(in))
OUT_F(f32x16_load_e4m3, f32x16_load_e4m3(in + 1))
OUT_F(f32x16_load_e5m2, f32x16_load_e5m2(in + 1))
OUT_F(f32x16_widen_f16, f32x16_widen_f16(I(0)))
OUT_I(i32x16_narrow_f16, i32x16_narrow_f16(F(0)))
WORD(f32x16_store_f16, f32x16_store_f16(out + 2, F(0)))
OUT_B(u8x64_and, u8x64_and(B(0), B(1)))
OUT_B(u8x64_or, u8x64_or(B(0), B(1)))
OUT_B(u8x64_andnot, u8x64_andnot(B(0), B(1)))
OUT_B(u8x64_load_quarter, u8x64_load_quarter(in + 3))
OUT_B(u8x64_load_quarters, u8x64_load_quarters(in + 70, in + 3, in + 240, in + 100))
OUT_B(u8x64_load_eighth, u8x64_load_eighth(in + 5))
OUT_B(u8x64_low_nibbles, u8x64_low_nibbles(B(0)))
OUT_B(u8x64_high_nibbles, u8x64_high_nibbles(B(0)))
OUT_B(u8x64_join_nibbles, u8x64_join_nibbles(B(0), B(1)))
OUT_B(u8x64_lookup16, u8x64_lookup16(B(0), B(1)))
#define TABLE(i) u8x64_load_quarter(in + 16 * (i))
OUT_B(u8x64_lookup32, u8x64_lookup32((const u8x64[]){ TABLE(0), TABLE(1) }, B(1)))
OUT_B(u8x64_lookup64, u8x64_lookup64((const u8x64[]){ TABLE(0), TABLE(1), TABLE(2), TABLE(3) }, B(1)))
OUT_B(u8x64_add, u8x64_add(B(0), B(1)))
OUT_B(u8x64_count_gt_s8, u8x64_count_gt_s8(B(0), B(1), B(2)))
OUT_B(u8x64_abs_s8, u8x64_abs_s8(B(0)))
OUT_B(u8x64_neg_s8, u8x64_neg_s8(B(0)))
OUT_B(i16x32_mulhrs, i16x32_mulhrs(B(0), B(1)))
OUT_B(i16x32_pack_s8, i16x32_pack_s8(B(0), B(1)))
OUT_I(i32x16_dot_s16, i32x16_dot_s16(I(2), B(0), B(1)))
OUT_I(i32x16_add_pairs, i32x16_add_pairs(I(0), I(1)))
OUT_F(f32x16_add_neighbours, f32x16_add_neighbours(F(0), F(1)))
OUT_F(f32x16_load_pair, f32x16_load_pair((const float *)(const void *)(in + 68)))
OUT_F(f32x16_load_quad, f32x16_load_quad((const float *)(const void *)(in + 68)))
OUT_B(u8x64_swap_cells, u8x64_swap_cells(B(0)))
OUT_I(i32x16_dot_u7s8, i32x16_dot_u7s8(I(2), B(0), B(1)))
OUT_I(narrow_bf16, narrow_bf16(I(0)))
OUT_I(narrow_e4m3_magnitude, narrow_e4m3_magnitude(f32x16_from_bits(i32x16_and(I(0), i32x16_set1(0x7fffffff)))))

static void store_quad(uint8_t out[256], const i32x16 row[4])
{
    for (int k = 0; k < 4; k++)
        i32x16_store(out + 64 * k, row[k]);
}
static void store_halves(uint8_t out[256], const u8x64 half[2])
{
    u8x64_store(out, half[0]);
    u8x64_store(out + 64, half[1]);
}
#define LOAD_QUAD i32x16 row[4] = { I(0), I(1), I(2), I(3) }
WORD(u8x64_widen_high_s8, u8x64 half[2]; u8x64_widen_high_s8(B(0), half); store_halves(out, half))
WORD(i32x16_twice, u8x64 half[2]; i32x16_twice(I(0), half); store_halves(out, half))
WORD(u8x64_swap_quarters, u8x64 a[4] = { B(0), B(1), B(2), B(3) }; u8x64_swap_quarters(a);
     for (int i = 0; i < 4; i++) u8x64_store(out + 64 * i, a[i]))
WORD(u8x64_pack_u8, LOAD_QUAD; u8x64_store(out, u8x64_pack_u8(row)))
WORD(u8x64_pack_s8, LOAD_QUAD; u8x64_store(out, u8x64_pack_s8(row)))
WORD(u8x64_pack_sat_s8, LOAD_QUAD; u8x64_store(out, u8x64_pack_sat_s8(row)))
WORD(quad16_words, LOAD_QUAD; u8x64 half[2]; quad16_words(row, half); store_halves(out, half))
WORD(quad32_transpose, LOAD_QUAD; quad32_transpose(row); store_quad(out, row))
WORD(quad_max_u, LOAD_QUAD; uint32_t max[4]; quad_max_u(row, max); memcpy(out, max, sizeof max))
WORD(quad_sum, LOAD_QUAD; uint32_t sum[4]; quad_sum(row, sum); memcpy(out, sum, sizeof sum))

/* Codes times integers of 16 bits that both kinds of dots, of bytes and of halfwords, can make their terms of: line j of `out` is the sum with the
 * group's j-th quad. The second group of four is taken. */
#if KVT_DOT_BITS == 8
#define DOT_OF(j)                                                                                                                                    \
    {                                                                                                                                                \
        const dot_sum high = dot_add(dot_start(0), line, dot_quads_at(stored + KVT_DOT_STEP), j);                                                    \
        const dot_sum low = dot_add(dot_start(12345), line, dot_quads_at(stored + KVT_DOT_STEP + KVT_DOT_LOWER), j);                                 \
        i32x16_store(out + 64 * (j), i32x16_add(i32x16_shl(dot_finish(high), 8), dot_finish(low)));                                                  \
    }
#else
#define DOT_OF(j) i32x16_store(out + 64 * (j), dot_finish(dot_add(dot_start(12345), line, dot_quads_at(stored + KVT_DOT_STEP), j)));
#endif
static void run_dots(const uint8_t in[256], uint8_t out[256])
{
    const u8x64 half = u8x64_from_i32(i32x16_set1(0x40004000)); /* the upper byte, rounded, has to be one */
    uint8_t stored[128];
    dot_store(stored, i16x32_mulhrs(B(1), half), i16x32_mulhrs(B(2), half), 2);
    const dot_line line = dot_line_of(B(0));
    DOT_OF(0)
    DOT_OF(1)
    DOT_OF(2)
    DOT_OF(3)
}

/* The sum of a whole group, of four lines: the two terms of its integers are one product of matrices where there are such. */
static void run_dots_of_two(const uint8_t in[256], uint8_t out[256])
{
    const u8x64 half = u8x64_from_i32(i32x16_set1(0x40004000));
    uint8_t stored[128];
    dot_store(stored, i16x32_mulhrs(B(1), half), i16x32_mulhrs(B(2), half), 2);
    u8x64 line[4] = { B(0), u8x64_swap_cells(B(0)), B(0), B(0) };
    u8x64_swap_quarters(line);
#if defined(KVT_DOT_PAIRS)
    dot_sum sum[2];
    for (uint32_t h = 0; h < 2; h++) {
        const u8x64 cells[2] = { dot_cells(line[0], line[1], h), dot_cells(line[2], line[3], h) };
        sum[h] = dot_add_two(dot_start_two(0, 12345), cells, stored + KVT_DOT_STEP);
    }
    const i32x16 all = i32x16_add(i32x16_shl(dot_finish_two(sum, 0), 8), dot_finish_two(sum, 1));
    f32x16_store_half((float *)(void *)out, f32x16_from_bits(all), 0);
    f32x16_store_half((float *)(void *)out, f32x16_from_bits(all), 1);
#else
    dot_sum sum[2] = { dot_start(KVT_DOT_BITS == 8 ? 0 : 12345), dot_start(12345) };
#define ADD_LINE(j)                                                                                                                                  \
    for (int t = 0; t < 16 / KVT_DOT_BITS; t++)                                                                                                      \
        sum[t] = dot_add(sum[t], dot_line_of(line[j]), dot_quads_at(stored + KVT_DOT_STEP + t * KVT_DOT_LOWER), j);
    ADD_LINE(0)
    ADD_LINE(1)
    ADD_LINE(2)
    ADD_LINE(3)
    i32x16_store(out, KVT_DOT_BITS == 8 ? i32x16_add(i32x16_shl(dot_finish(sum[0]), 8), dot_finish(sum[1])) : dot_finish(sum[0]));
#endif
}

/* Levels and queries of a byte, within 127: the second group of four. Tiers that have no loop of their own for them multiply one by one. */
static void run_dots_s7(const uint8_t in[256], uint8_t out[256])
{
    int8_t level[64], query[64];
    for (int i = 0; i < 64; i++) {
        level[i] = (int8_t)in[64 + i] == -128 ? 127 : (int8_t)in[64 + i];
        query[i] = (int8_t)in[128 + i] == -128 ? -127 : (int8_t)in[128 + i];
    }
#if defined(KVT_DOT_S7)
    const dot_line_s7 line = dot_line_s7_of(u8x64_load(level));
    const dot_quads quads = dot_quads_at((const uint8_t *)query + KVT_DOT_STEP);
    i32x16_store(out, dot_finish(dot_add_s7(dot_start(12345), line, quads, 0)));
    i32x16_store(out + 64, dot_finish(dot_add_s7(dot_start(12345), line, quads, 1)));
    i32x16_store(out + 128, dot_finish(dot_add_s7(dot_start(12345), line, quads, 2)));
    i32x16_store(out + 192, dot_finish(dot_add_s7(dot_start(12345), line, quads, 3)));
#else
    for (int i = 0; i < 64; i++) { /* cell i % 16, quad i / 16 */
        int32_t sum = 12345;
        for (int k = 0; k < 4; k++)
            sum += level[i % 16 * 4 + k] * query[16 + i / 16 * 4 + k];
        memcpy(out + (size_t)4 * (size_t)i, &sum, sizeof sum);
    }
#endif
}

extern const vec_word JOIN(vec_words_, KVT_TIER)[];
const vec_word JOIN(vec_words_, KVT_TIER)[] = {
#define ROW(name, input)                                                                                                                             \
    {                                                                                                                                                \
#name, input, run_##name                                                                                                                     \
    }
    ROW(f32x16_add, INPUT_FLOATS),
    ROW(f32x16_sub, INPUT_FLOATS),
    ROW(f32x16_mul, INPUT_SMALL),
    ROW(f32x16_div, INPUT_SMALL),
    ROW(f32x16_fma, INPUT_SMALL),
    ROW(f32x16_min_num, INPUT_FLOATS),
    ROW(f32x16_max_num, INPUT_FLOATS),
    ROW(f32x16_gt, INPUT_ALIKE),
    ROW(f32x16_zero_below, INPUT_QUIET),
    ROW(f32x16_scale_sub, INPUT_SMALL),
    ROW(f32x16_butterflies, INPUT_ALIKE),
    ROW(f32x16_from_i32, INPUT_BYTES),
    ROW(f32x16_set1, INPUT_BYTES),
    ROW(f32x16_exp, INPUT_EXP),
    ROW(f32x16_exp_plain, INPUT_BYTES),
    ROW(exp_near, INPUT_BYTES),
    ROW(i32x16_from_f32_rne, INPUT_SMALL),
    ROW(i32x16_from_f32_trunc, INPUT_SMALL),
    ROW(i32x16_set1, INPUT_BYTES),
    ROW(i32x16_add, INPUT_BYTES),
    ROW(i32x16_sub, INPUT_BYTES),
    ROW(i32x16_and, INPUT_BYTES),
    ROW(i32x16_or, INPUT_BYTES),
    ROW(i32x16_xor, INPUT_BYTES),
    ROW(i32x16_shl, INPUT_BYTES),
    ROW(i32x16_shr, INPUT_BYTES),
    ROW(i32x16_min_u, INPUT_BYTES),
    ROW(i32x16_max_u, INPUT_BYTES),
    ROW(i32x16_min_s, INPUT_BYTES),
    ROW(i32x16_max_s, INPUT_BYTES),
    ROW(i32x16_gt, INPUT_BYTES),
    ROW(mask16_any, INPUT_BYTES),
    ROW(i32x16_load_u8, INPUT_BYTES),
    ROW(f32x16_load_e4m3, INPUT_BYTES),
    ROW(f32x16_load_e5m2, INPUT_BYTES),
    ROW(i32x16_load_s8, INPUT_BYTES),
    ROW(i32x16_store_u8, INPUT_BYTES),
    ROW(i32x16_load_u16, INPUT_BYTES),
    ROW(i32x16_store_u16, INPUT_BYTES),
    ROW(f32x16_load_f16, INPUT_BYTES),
    ROW(f32x16_widen_f16, INPUT_U16),
    ROW(i32x16_narrow_f16, INPUT_BYTES),
    ROW(f32x16_store_f16, INPUT_BYTES),
    ROW(u8x64_and, INPUT_BYTES),
    ROW(u8x64_or, INPUT_BYTES),
    ROW(u8x64_andnot, INPUT_BYTES),
    ROW(u8x64_load_quarter, INPUT_BYTES),
    ROW(u8x64_load_quarters, INPUT_BYTES),
    ROW(u8x64_load_eighth, INPUT_BYTES),
    ROW(u8x64_low_nibbles, INPUT_BYTES),
    ROW(u8x64_high_nibbles, INPUT_BYTES),
    ROW(u8x64_join_nibbles, INPUT_NIBBLES),
    ROW(u8x64_lookup16, INPUT_TABLE),
    ROW(u8x64_lookup32, INPUT_INDEX32),
    ROW(u8x64_lookup64, INPUT_INDEX64),
    ROW(u8x64_add, INPUT_BYTES),
    ROW(u8x64_count_gt_s8, INPUT_BYTES),
    ROW(u8x64_abs_s8, INPUT_ABS),
    ROW(u8x64_neg_s8, INPUT_BYTES),
    ROW(i16x32_mulhrs, INPUT_MULHRS),
    ROW(i16x32_pack_s8, INPUT_HALVES),
    ROW(u8x64_widen_high_s8, INPUT_BYTES),
    ROW(i32x16_dot_s16, INPUT_DOT16),
    ROW(i32x16_add_pairs, INPUT_BYTES),
    ROW(f32x16_add_neighbours, INPUT_SMALL),
    ROW(f32x16_load_pair, INPUT_BYTES),
    ROW(f32x16_load_quad, INPUT_BYTES),
    ROW(i32x16_twice, INPUT_BYTES),
    ROW(u8x64_swap_cells, INPUT_BYTES),
    ROW(i32x16_dot_u7s8, INPUT_DOT),
    ROW(narrow_bf16, INPUT_BYTES),
    ROW(narrow_e4m3_magnitude, INPUT_QUIET),
    ROW(u8x64_swap_quarters, INPUT_BYTES),
    ROW(u8x64_pack_u8, INPUT_U8),
    ROW(u8x64_pack_s8, INPUT_S8),
    ROW(u8x64_pack_sat_s8, INPUT_S16),
    ROW(quad16_words, INPUT_S16),
    ROW(quad32_transpose, INPUT_BYTES),
    ROW(quad_max_u, INPUT_BYTES),
    ROW(quad_sum, INPUT_BYTES),
    ROW(dots, INPUT_DOT),
    ROW(dots_of_two, INPUT_DOT),
    ROW(dots_s7, INPUT_BYTES),
    { NULL, 0, NULL },
};
