/* SPDX-License-Identifier: MIT */
/* What the families of row formats share: largest numbers, scales, rounding, nibbles. Plain loops without branches over a block, which compilers turn
 * into the tier's vectors; the same integer and float steps on every tier. docs/formats.md, section 8, has the rules. */
#ifndef KVT_ROWS_H
#define KVT_ROWS_H

#include "kernels/lanes.h"
#include "kernels/row_codec.h"

#define KVT_ROWS static inline __attribute__((always_inline, unused))

/* `b` runs over the blocks of a row, the last one padded. */
#define KVT_FOR_BLOCKS(dim, block) for (uint32_t b = 0; b < ((dim) + (block)-1) / (block); b++)

/* Bits of floats: the quiet NaN that NaN scales stand for, and limits that numbers are compared with. */
#define ROWS_NAN        0x7fc00000u
#define ROWS_INFINITY   0x7f800000u
#define ROWS_2_POW_100  0x71800000u
#define ROWS_2_POW_M24  0x33800000u
#define ROWS_2_POW_M25  0x33000000u
#define ROWS_2_POW_M100 0x0d800000u
#define ROWS_2_POW_M117 0x05000000u
#define ROWS_65520      0x477ff000u

/* ---- bits and bytes ---- */

KVT_ROWS uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
KVT_ROWS float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
KVT_ROWS uint32_t magnitude_of(float x)
{
    return float_bits(x) & 0x7fffffff;
}
KVT_ROWS uint32_t load32(const uint8_t *p)
{
    uint32_t value;
    memcpy(&value, p, 4);
    return value;
}
KVT_ROWS void store32(uint8_t *p, uint32_t value)
{
    memcpy(p, &value, 4);
}
KVT_ROWS uint64_t load64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, 8);
    return value;
}
KVT_ROWS void store64(uint8_t *p, uint64_t value)
{
    memcpy(p, &value, 8);
}
#define EACH_BYTE UINT64_C(0x0101010101010101)
KVT_ROWS float first_lane(f32x16 a)
{
    float lanes[16];
    f32x16_store(lanes, a);
    return lanes[0];
}
KVT_ROWS void store_f16(uint8_t *p, float x)
{
    uint8_t lanes[32];
    f32x16_store_f16(lanes, f32x16_set1(x));
    memcpy(p, lanes, 2);
}

/* ---- scales as they are read: what is infinite or NaN is that one NaN ---- */

/* A product with a tiny scale could be subnormal, and depend on FTZ. */
KVT_ROWS float f32_scale(uint32_t bits)
{
    const uint32_t magnitude = bits & 0x7fffffff;
    return float_of(magnitude >= ROWS_INFINITY ? ROWS_NAN : magnitude < ROWS_2_POW_M117 ? 0 : bits);
}
KVT_ROWS float load_f16_scale(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, 2);
    return f32_scale(float_bits(first_lane(f32x16_widen_f16(i32x16_set1(half)))));
}
KVT_ROWS float e8m0_scale(uint8_t byte)
{
    return f32_scale(byte == 0xff ? ROWS_NAN : (uint32_t)byte << 23);
}
KVT_ROWS bool is_nan(float scale)
{
    return magnitude_of(scale) > ROWS_INFINITY;
}
KVT_ROWS void fill_nan(float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        x[i] = float_of(ROWS_NAN);
}

/* ---- the largest of a block: integers, so that the order does not matter ---- */

/* As bits without the sign: a NaN counts as larger than infinity. */
KVT_ROWS uint32_t largest_magnitude(const float *x, uint32_t n)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t magnitude = magnitude_of(x[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* Of the finite ones; 0 when there is none. */
KVT_ROWS uint32_t largest_finite_magnitude(const float *x, uint32_t n)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t magnitude = magnitude_of(x[i]), counted = magnitude < ROWS_INFINITY ? magnitude : 0;
        largest = counted > largest ? counted : largest;
    }
    return largest;
}

/* With its sign; of +a and -a the negative one. */
KVT_ROWS float largest_signed(const float *x, uint32_t n)
{
    uint32_t largest = 0;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bits = float_bits(x[i]), rotated = bits << 1 | bits >> 31;
        largest = rotated > largest ? rotated : largest;
    }
    return float_of(largest >> 1 | largest << 31);
}

/* The first with the largest magnitude; +0 when all are zeros. */
KVT_ROWS float first_largest(const float *x, uint32_t n)
{
    const uint32_t largest = largest_magnitude(x, n);
    uint32_t i = 0;
    while (magnitude_of(x[i]) != largest)
        i++;
    return largest ? x[i] : 0.0f;
}

/* -0 counts as less than +0. */
typedef struct row_span {
    float min, max;
    bool is_finite; /* and no NaN */
} row_span;

KVT_ROWS row_span span_of(const float *x, uint32_t n)
{
    int32_t min = INT32_MAX, max = INT32_MIN;
    for (uint32_t i = 0; i < n; i++) {
        /* Integers in the order of the floats; the same step leads back. */
        const uint32_t bits = float_bits(x[i]);
        const int32_t key = (int32_t)(bits ^ (bits >> 31) * 0x7fffffffu);
        min = key < min ? key : min;
        max = key > max ? key : max;
    }
    const uint32_t low = (uint32_t)min ^ ((uint32_t)min >> 31) * 0x7fffffffu, high = (uint32_t)max ^ ((uint32_t)max >> 31) * 0x7fffffffu;
    return (row_span){ .min = float_of(low),
                       .max = float_of(high),
                       .is_finite = (low & 0x7fffffff) < ROWS_INFINITY && (high & 0x7fffffff) < ROWS_INFINITY };
}

/* ---- numbers to integers ---- */

/* |x| <= 2^22: the sum's last place is 1. */
KVT_ROWS int32_t nearest_even(float x)
{
    return (int32_t)(float_bits(x + 0x1.8p23f) - 0x4b400000u);
}

KVT_ROWS int32_t half_away(float x)
{
    const int32_t whole = (int32_t)x;
    const float rest = x - (float)whole; /* exact */
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

KVT_ROWS float limited(float x, float low, float high)
{
    const float above = x < low ? low : x;
    return above > high ? high : above;
}

/* ---- nibbles ---- */

/* Byte j: element j low, element j + n/2 high; n is a multiple of 16. Eight at a time: compilers' vectors of a loop over bytes cost ten times as
 * much. */
KVT_ROWS void pack_halves(uint8_t *to, const uint8_t *code, uint32_t n)
{
    for (uint32_t j = 0; j < n / 2; j += 8)
        store64(to + j, (load64(code + j) & EACH_BYTE * 15) | (load64(code + j + n / 2) & EACH_BYTE * 15) << 4);
}
KVT_ROWS void unpack_halves(uint8_t *code, const uint8_t *from, uint32_t n)
{
    for (uint32_t j = 0; j < n / 2; j += 8) {
        const uint64_t both = load64(from + j);
        store64(code + j, both & EACH_BYTE * 15);
        store64(code + j + n / 2, both >> 4 & EACH_BYTE * 15);
    }
}

/* Byte j: elements 2j and 2j + 1, the even one low or high. */
KVT_ROWS void pack_pairs(uint8_t *to, const uint8_t *code, uint32_t bytes, bool even_is_high)
{
    for (uint32_t j = 0; j < bytes; j++)
        to[j] = (uint8_t)(even_is_high ? code[2 * j] << 4 | code[2 * j + 1] : code[2 * j] | code[2 * j + 1] << 4);
}
KVT_ROWS void unpack_pairs(uint8_t *code, const uint8_t *from, uint32_t bytes, bool even_is_high)
{
    for (uint32_t j = 0; j < bytes; j++) {
        code[2 * j + even_is_high] = from[j] & 15;
        code[2 * j + !even_is_high] = from[j] >> 4;
    }
}

/* ---- blocks of 32 with an f16 scale ---- */

enum { ROWS_BLOCK = 32 };

typedef struct block_f16 {
    float d;     /* what is stored, before narrowing */
    float r;     /* what numbers are multiplied by; 0: all codes are those of zero */
    bool is_nan; /* d is NaN, and all codes are those of zero */
} block_f16;

/* Canonical: scales that f16 cannot hold are zero or NaN. */
KVT_ROWS block_f16 canonical_scale(float d)
{
    const uint32_t magnitude = magnitude_of(d);
    if (magnitude <= ROWS_2_POW_M25)
        return (block_f16){ .d = 0, .r = 0 };
    if (magnitude >= ROWS_65520)
        return (block_f16){ .d = float_of(ROWS_NAN), .is_nan = true };
    return (block_f16){ .d = d, .r = 1.0f / d };
}

/* As ggml: they are rounded like others. `largest` is the block's, whose bits decide what ggml's arithmetic does not define. */
KVT_ROWS block_f16 ggml_scale(float d, uint32_t largest)
{
    if (largest >= ROWS_INFINITY)
        return (block_f16){ .d = float_of(ROWS_NAN), .is_nan = true };
    return (block_f16){ .d = d, .r = largest < ROWS_2_POW_M100 ? 0 : 1.0f / d };
}

/* q4_0, q5_0, q6_0: codes biased by `bias`; the largest magnitude gets 0. */
KVT_ROWS block_f16 biased_scale(const float *x, int bias, kvt_rounding rounding)
{
    if (rounding == KVT_ROUNDING_CANONICAL)
        return canonical_scale(largest_signed(x, ROWS_BLOCK) / (float)-bias);
    return ggml_scale(first_largest(x, ROWS_BLOCK) / (float)-bias, largest_magnitude(x, ROWS_BLOCK));
}
KVT_ROWS void biased_codes(uint8_t *code, const float *x, int bias, block_f16 s)
{
    for (uint32_t i = 0; i < ROWS_BLOCK; i++) {
        const float y = limited(x[i] * s.r + ((float)bias + 0.5f), 0, (float)(2 * bias - 1));
        code[i] = (uint8_t)(s.is_nan ? bias : (int32_t)y);
    }
}
KVT_ROWS void biased_values(float *x, const uint8_t *code, int bias, float d)
{
    for (uint32_t i = 0; i < ROWS_BLOCK; i++)
        x[i] = (float)(code[i] - bias) * d;
    if (is_nan(d))
        fill_nan(x, ROWS_BLOCK);
}

/* The scale with the least squared error for the levels v that were chosen with `s`, if f16 can hold it. All sums are exact. */
KVT_ROWS block_f16 refined_scale(const float *x, const int32_t *v, block_f16 s)
{
    if (s.is_nan || s.r == 0)
        return s;
    const float p = 2047.0f / float_of(largest_magnitude(x, ROWS_BLOCK));
    int32_t a = 0, n = 0;
    for (uint32_t i = 0; i < ROWS_BLOCK; i++) {
        a += nearest_even(x[i] * p) * v[i];
        n += v[i] * v[i];
    }
    const block_f16 refined = canonical_scale((float)a / (float)n / p);
    return refined.is_nan || refined.r == 0 ? s : refined;
}

/* ---- E4M3 and E2M1 ---- */

/* `n` is a multiple of 16. NaN keeps its sign, an infinity becomes the largest number. */
KVT_ROWS void e4m3_codes(uint8_t *code, const float *x, uint32_t n, float r)
{
    for (uint32_t i = 0; i < n; i += 16) {
        const i32x16 all = i32x16_from_f32_bits(f32x16_load(x + i)), bits = i32x16_and(all, i32x16_set1(0x7fffffff));
        const i32x16 magnitude = narrow_e4m3_magnitude(f32x16_mul(f32x16_from_bits(bits), f32x16_set1(r)));
        const i32x16 finite = i32x16_select(i32x16_gt(bits, i32x16_set1(ROWS_INFINITY)), i32x16_set1(0x7f), magnitude);
        i32x16_store_u8(code + i, i32x16_or(i32x16_and(i32x16_shr(all, 24), i32x16_set1(0x80)), finite));
    }
}
KVT_ROWS void e4m3_values(float *x, const uint8_t *code, uint32_t n, float scale)
{
    if (is_nan(scale)) {
        fill_nan(x, n);
        return;
    }
    for (uint32_t i = 0; i < n; i += 16)
        f32x16_store(x + i, f32x16_mul(f32x16_load_e4m3(code + i), f32x16_set1(scale)));
}
KVT_ROWS uint8_t e4m3_of(float positive)
{
    uint8_t code[16];
    i32x16_store_u8(code, narrow_e4m3_magnitude(f32x16_set1(positive)));
    return code[0];
}
KVT_ROWS float e4m3_magnitude(uint8_t code)
{
    const uint8_t codes[16] = { code & 0x7f };
    return first_lane(f32x16_load_e4m3(codes));
}

/* ---- the codes of all blocks, of a byte each, then their scales ---- */

KVT_ROWS uint32_t blocks_of(uint32_t dim, uint32_t block)
{
    return (dim + block - 1) / block;
}

KVT_ROWS void split_planes(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t blocks, uint32_t block, uint32_t scale_bytes)
{
    memcpy(codes, row, (size_t)blocks * block);
    memcpy(scales, row + (size_t)blocks * block, (size_t)blocks * scale_bytes);
}
KVT_ROWS void join_planes(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t blocks, uint32_t block, uint32_t scale_bytes)
{
    memcpy(row, codes, (size_t)blocks * block);
    memcpy(row + (size_t)blocks * block, scales, (size_t)blocks * scale_bytes);
}

/* Scales are floats (4 bytes) or E8M0. */
KVT_ROWS void e4m3_blocks(float *x, const uint8_t *row, uint32_t blocks, uint32_t block, uint32_t scale_bytes)
{
    const uint8_t *scales = row + (size_t)blocks * block;
    for (size_t b = 0; b < blocks; b++)
        e4m3_values(x + b * block, row + b * block, block, scale_bytes == 4 ? f32_scale(load32(scales + 4 * b)) : e8m0_scale(scales[b]));
}

/* The power of two whose multiples, up to 2^emax of them, reach a block's largest number: its E8M0 byte. Not below 2^-100. */
KVT_ROWS uint8_t e8m0_of(uint32_t largest, uint32_t emax)
{
    const uint32_t exponent = largest >> 23;
    return (uint8_t)(exponent < 27 + emax ? 27 : exponent - emax);
}

typedef enum e2m1_rule {
    E2M1_EVEN, /* OCP: ties to the even code, zero keeps its sign */
    E2M1_GGML  /* ties to the smaller magnitude, zero has none */
} e2m1_rule;

/* Multiples of d >= 0; d = 0: zeros. */
KVT_ROWS void e2m1_codes(uint8_t *code, const float *x, uint32_t n, float d, e2m1_rule rule)
{
    static const float middle[7] = { 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f };
    uint32_t limit[7]; /* what is above is the next code */
    for (int k = 0; k < 7; k++)
        limit[k] = d == 0 ? 0x7fffffff : float_bits(middle[k] * d) - (rule == E2M1_EVEN && k % 2 == 1);
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t bits = float_bits(x[i]), magnitude = bits & 0x7fffffff;
        uint32_t q = 0;
        for (int k = 0; k < 7; k++)
            q += magnitude > limit[k];
        const uint32_t sign = bits >> 28 & 8;
        code[i] = (uint8_t)(rule == E2M1_GGML && q == 0 ? 0 : q | sign);
    }
}
/* `scale` times `global`, in this order. */
KVT_ROWS void e2m1_values(float *x, const uint8_t *code, uint32_t n, float scale, float global, e2m1_rule rule)
{
    const float value[16] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6, rule == E2M1_GGML ? 0.0f : -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6 };
    for (uint32_t i = 0; i < n; i++)
        x[i] = value[code[i]] * scale * global;
    if (is_nan(scale))
        fill_nan(x, n);
}

#endif
