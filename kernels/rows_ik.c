/* SPDX-License-Identifier: MIT */
/* Rows that only ik_llama.cpp has. docs/formats.md, section 8. */
#include "kernels/rows.h"

/* ---- q6_0: f16 d, 8 bytes of upper bits, 32 nibbles ---- */

enum { Q6_0_BYTES = 26, Q6_0_HIGH = 8, Q6_0_BIAS = 32 };

/* Bits 2k and 2k + 1 of upper byte j belong to element j, j + 16, j + 8, j + 24. */
KVT_ROWS uint32_t q6_0_place(uint32_t k)
{
    return k % 2 * 16 + k / 2 * 8;
}

static void encode_q6_0(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const float *from = x + b * ROWS_BLOCK;
        uint8_t *to = row + b * Q6_0_BYTES, code[ROWS_BLOCK];
        int32_t v[ROWS_BLOCK];
        const block_f16 first = biased_scale(from, Q6_0_BIAS, params->rounding);
        biased_codes(code, from, Q6_0_BIAS, first);
        for (uint32_t i = 0; i < ROWS_BLOCK; i++)
            v[i] = code[i] - Q6_0_BIAS;
        const block_f16 s = refined_scale(from, v, first);
        biased_codes(code, from, Q6_0_BIAS, s);
        store_f16(to, s.d);
        uint64_t high = 0;
        for (uint32_t k = 0; k < 4; k++)
            high |= (load64(code + q6_0_place(k)) >> 4 & EACH_BYTE * 3) << 2 * k;
        store64(to + 2, high);
        pack_halves(to + 2 + Q6_0_HIGH, code, ROWS_BLOCK);
    }
}

static void decode_q6_0(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const uint8_t *from = row + b * Q6_0_BYTES;
        uint8_t code[ROWS_BLOCK];
        unpack_halves(code, from + 2 + Q6_0_HIGH, ROWS_BLOCK);
        for (uint32_t k = 0; k < 4; k++)
            store64(code + q6_0_place(k), load64(code + q6_0_place(k)) | (load64(from + 2) >> 2 * k & EACH_BYTE * 3) << 4);
        biased_values(x + b * ROWS_BLOCK, code, Q6_0_BIAS, load_f16_scale(from));
    }
}

/* ---- q8_KV: f32 d, the sum of the codes as i32, codes ---- */

static void encode_q8_kv(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const uint32_t largest = largest_magnitude(x, dim);
    const bool is_wrong = largest >= ROWS_INFINITY, is_zero = largest < ROWS_2_POW_M100;
    const float d = float_of(largest) / 127.0f, r = 1.0f / d;
    int32_t sum = 0;
    for (uint32_t i = 0; i < dim; i++) {
        const int32_t q = is_wrong || is_zero ? 0 : nearest_even(x[i] * r);
        sum += q;
        row[8 + i] = (uint8_t)q;
    }
    store32(row, is_wrong ? ROWS_NAN : is_zero ? 0 : float_bits(d));
    store32(row + 4, (uint32_t)sum);
}

static void decode_q8_kv(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const float d = f32_scale(load32(row));
    for (uint32_t i = 0; i < dim; i++)
        x[i] = (float)(int8_t)row[8 + i] * d;
    if (is_nan(d))
        fill_nan(x, dim);
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_ik)[];
const kvt_row_codec KVT_EXPORT(row_codecs_ik)[] = {
    { .format = KVT_ROW_ik_q6_0, .encode = encode_q6_0, .decode = decode_q6_0 },
    { .format = KVT_ROW_ik_q8_kv, .encode = encode_q8_kv, .decode = decode_q8_kv },
    { .format = KVT_ROW_NONE },
};
