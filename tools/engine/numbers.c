/* SPDX-License-Identifier: MIT */
/* See numbers.h. What ggml's blocks stand for is what gguf-py/gguf/quants.py of ggml-org/llama.cpp computes, to the bit: each product and each
 * difference is rounded to f32 by itself, in that order. kvt_rows_decode reads the blocks of 32 too, but by formats.md's rule for NaN, and a scale of
 * -0 is 0 to it. */
#include "tools/engine/numbers.h"

#include "tools/files/number.h"

#include <stdbool.h>
#include <string.h>

/* ---- plain numbers ---- */

static void expand_f32(const uint8_t *from, size_t n, float *out)
{
    memcpy(out, from, n * sizeof *out);
}

static void expand_f16(const uint8_t *from, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = f16_to_f32(load_u16(from + 2 * i));
}

static void expand_bf16(const uint8_t *from, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = bf16_to_f32(load_u16(from + 2 * i));
}

/* ---- blocks of 32: scale, perhaps minimum, perhaps the fifth bit of each number, codes ---- */

enum { BLOCK = 32 };

static float half_at(const uint8_t *from)
{
    return f16_to_f32(load_u16(from));
}

/* 4 bits of number i: 2 * width numbers share `width` bytes, the first half of them the low nibbles. */
static int nibble(const uint8_t *from, size_t i, size_t width)
{
    return from[i / (2 * width) * width + i % width] >> (i / width % 2 * 4) & 15;
}

/* `zero`: the code that stands for 0, where there is no minimum. */
static void expand_short_block(const uint8_t *from, bool has_min, bool has_fifth_bits, int zero, float *out)
{
    const float scale = half_at(from), min = has_min ? half_at(from + 2) : 0;
    const uint8_t *bits = from + (has_min ? 4 : 2), *codes = bits + (has_fifth_bits ? 4 : 0);
    for (size_t i = 0; i < BLOCK; i++) {
        const int fifth = has_fifth_bits ? bits[i / 8] >> (i % 8) & 1 : 0;
        const float product = scale * (float)((nibble(codes, i, BLOCK / 2) | fifth << 4) - zero);
        out[i] = has_min ? product + min : product;
    }
}

static void expand_q4_0(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += 18, out += BLOCK)
        expand_short_block(from, false, false, 8, out);
}

static void expand_q4_1(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += 20, out += BLOCK)
        expand_short_block(from, true, false, 0, out);
}

static void expand_q5_0(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += 22, out += BLOCK)
        expand_short_block(from, false, true, 16, out);
}

static void expand_q5_1(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += 24, out += BLOCK)
        expand_short_block(from, true, true, 0, out);
}

static void expand_q8_0(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += 34, out += BLOCK)
        for (size_t i = 0; i < BLOCK; i++)
            out[i] = half_at(from) * (float)(int8_t)from[2 + i];
}

static void expand_iq4_nl(const uint8_t *from, size_t n, float *out)
{
    static const int8_t levels[16] = { -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
    for (; n > 0; n--, from += 18, out += BLOCK)
        for (size_t i = 0; i < BLOCK; i++)
            out[i] = half_at(from) * (float)levels[nibble(from + 2, i, BLOCK / 2)];
}

/* ---- the K formats: 256 numbers, in groups of 16 or 32 with a scale each, and scales of the scales ---- */

enum {
    K_BLOCK = 256,
    Q2_K_BYTES = 84,
    Q3_K_BYTES = 110,
    Q4_K_BYTES = 144,
    Q5_K_BYTES = 176,
    Q6_K_BYTES = 210,
};

/* 2 bits of number i: 128 numbers share 32 bytes, the first 32 of them the lowest bits. */
static int two_bits(const uint8_t *from, size_t i)
{
    return from[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* Groups of 16, scale and minimum in 4 bits each. */
static void expand_q2_k(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += Q2_K_BYTES, out += K_BLOCK) {
        const float d = half_at(from + 80), d_min = half_at(from + 82);
        for (size_t i = 0; i < K_BLOCK; i++) {
            const uint8_t scales = from[i / 16];
            const float scale = d * (float)(scales & 15), min = d_min * (float)(scales >> 4);
            out[i] = scale * (float)two_bits(from + 16, i) - min;
        }
    }
}

/* Groups of 16, signed scales of 6 bits: byte j % 8 has four of scale j, byte 8 + j % 4 the other two. A clear third bit is worth -4. */
static void expand_q3_k(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += Q3_K_BYTES, out += K_BLOCK) {
        const uint8_t *third_bits = from, *codes = from + 32, *scales = from + 96;
        const float d = half_at(from + 108);
        for (size_t i = 0; i < K_BLOCK; i++) {
            const size_t j = i / 16;
            const int low = scales[j % 8] >> (j / 8 * 4) & 15, high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
            const float scale = d * (float)((low | high << 4) - 32);
            const int third = third_bits[i % 32] >> (i / 32) & 1;
            out[i] = scale * (float)(two_bits(codes, i) - 4 * (third ^ 1));
        }
    }
}

/* Scale and minimum j of 8, 6 bits each, of the 12 bytes of q4_K and q5_K: the first four lie in bytes j and 4 + j; of the others byte 4 + j has four
 * bits each, and the highest bits of those bytes the rest. */
static void load_scale_and_min(const uint8_t *from, size_t j, float *scale, float *min)
{
    if (j < 4) {
        *scale = (float)(from[j] & 63);
        *min = (float)(from[4 + j] & 63);
    } else {
        *scale = (float)((from[4 + j] & 15) | (from[j - 4] >> 6) << 4);
        *min = (float)(from[4 + j] >> 4 | (from[j] >> 6) << 4);
    }
}

/* `fifth_bits`: of q5_K, number i's is bit i / 32 of byte i % 32; NULL: there are none. */
static void expand_groups_of_32(const uint8_t *from, const uint8_t *fifth_bits, const uint8_t *codes, float *out)
{
    const float d = half_at(from), d_min = half_at(from + 2);
    for (size_t j = 0; j < K_BLOCK / 32; j++) {
        float scale, min;
        load_scale_and_min(from + 4, j, &scale, &min);
        scale *= d;
        min *= d_min;
        for (size_t i = 32 * j; i < 32 * (j + 1); i++) {
            const int fifth = fifth_bits != NULL ? fifth_bits[i % 32] >> j & 1 : 0;
            out[i] = scale * (float)(nibble(codes, i, 32) | fifth << 4) - min;
        }
    }
}

static void expand_q4_k(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += Q4_K_BYTES, out += K_BLOCK)
        expand_groups_of_32(from, NULL, from + 16, out);
}

static void expand_q5_k(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += Q5_K_BYTES, out += K_BLOCK)
        expand_groups_of_32(from, from + 16, from + 48, out);
}

/* Groups of 16 with scales of 8 bits; 32 stands for 0. */
static void expand_q6_k(const uint8_t *from, size_t n, float *out)
{
    for (; n > 0; n--, from += Q6_K_BYTES, out += K_BLOCK) {
        const float d = half_at(from + 208);
        for (size_t i = 0; i < K_BLOCK; i++) {
            const float scale = d * (float)(int8_t)from[192 + i / 16];
            out[i] = scale * (float)((nibble(from, i, 64) | two_bits(from + 128, i) << 4) - 32);
        }
    }
}

/* ---- all ---- */

static const numbers_format FORMATS[] = {
    [NUMBERS_F32] = { "F32", 1, 4, expand_f32 },
    [NUMBERS_F16] = { "F16", 1, 2, expand_f16 },
    [2] = { "Q4_0", BLOCK, 18, expand_q4_0 },
    [3] = { "Q4_1", BLOCK, 20, expand_q4_1 },
    [6] = { "Q5_0", BLOCK, 22, expand_q5_0 },
    [7] = { "Q5_1", BLOCK, 24, expand_q5_1 },
    [8] = { "Q8_0", BLOCK, 34, expand_q8_0 },
    [10] = { "Q2_K", K_BLOCK, Q2_K_BYTES, expand_q2_k },
    [11] = { "Q3_K", K_BLOCK, Q3_K_BYTES, expand_q3_k },
    [12] = { "Q4_K", K_BLOCK, Q4_K_BYTES, expand_q4_k },
    [13] = { "Q5_K", K_BLOCK, Q5_K_BYTES, expand_q5_k },
    [14] = { "Q6_K", K_BLOCK, Q6_K_BYTES, expand_q6_k },
    [20] = { "IQ4_NL", BLOCK, 18, expand_iq4_nl },
    [NUMBERS_BF16] = { "BF16", 1, 2, expand_bf16 },
};
enum { N_TYPES = sizeof FORMATS / sizeof *FORMATS };

const numbers_format *numbers_find(uint32_t type)
{
    return type < N_TYPES && FORMATS[type].name != NULL ? &FORMATS[type] : NULL;
}

const char *numbers_names(void)
{
    return "F32, F16, BF16, Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, IQ4_NL, or Q6_K to Q2_K";
}
