/* SPDX-License-Identifier: MIT */
/* Rows of vLLM, per token and head: codes, then an f32 scale. docs/formats.md, section 8. */
#include "kernels/rows.h"

/* vLLM's least scale. */
KVT_ROWS float at_least_1e_6(float scale)
{
    return scale < 1e-6f ? 1e-6f : scale;
}

/* ---- int8 ---- */

static void encode_vllm_int8(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const uint32_t largest = largest_magnitude(x, dim);
    const bool is_wrong = largest >= ROWS_INFINITY;
    const float scale = at_least_1e_6(float_of(is_wrong ? 0 : largest) / 127.0f), r = 1.0f / scale;
    for (uint32_t i = 0; i < dim; i++)
        row[i] = (uint8_t)(is_wrong ? 0 : nearest_even(x[i] * r));
    store32(row + dim, is_wrong ? ROWS_NAN : float_bits(scale));
}

static void decode_vllm_int8(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const float scale = f32_scale(load32(row + dim));
    for (uint32_t i = 0; i < dim; i++)
        x[i] = (float)(int8_t)row[i] * scale;
    if (is_nan(scale))
        fill_nan(x, dim);
}

/* ---- fp8 ---- */

static void encode_vllm_fp8(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t code[KVT_MAX_DIM];
    const float scale = at_least_1e_6(float_of(largest_finite_magnitude(x, dim)) / 448.0f);
    e4m3_codes(code, x, (dim + 15) / 16 * 16, 1.0f / scale);
    memcpy(row, code, dim);
    store32(row + dim, float_bits(scale));
}

static void decode_vllm_fp8(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t code[KVT_MAX_DIM] = { 0 };
    memcpy(code, row, dim);
    e4m3_values(x, code, (dim + 15) / 16 * 16, f32_scale(load32(row + dim)));
}

static void split_vllm_fp8(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    split_planes(codes, scales, row, 1, dim, 4);
}

static void join_vllm_fp8(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    join_planes(row, codes, scales, 1, dim, 4);
}

/* ---- int4: the zero point is in the four lowest bits of the scale ---- */

static void encode_vllm_int4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const row_span span = span_of(x, dim);
    const float min = span.min > 0 ? 0 : span.min, max = span.max < 0 ? 0 : span.max, range = max - min;
    const bool is_wrong = !span.is_finite || float_bits(range) >= ROWS_INFINITY;
    const float scale = float_of(float_bits(at_least_1e_6((is_wrong ? 0 : range) / 15.0f)) & ~15u), r = 1.0f / scale;
    const float zero = is_wrong ? 0 : limited((float)half_away(limited(-min * r, 0, 15)), 0, 15);
    uint8_t code[KVT_MAX_DIM] = { 0 };
    for (uint32_t i = 0; i < dim; i++)
        code[i] = (uint8_t)(is_wrong ? 0 : half_away(limited(x[i] * r + zero, 0, 15)));
    pack_pairs(row, code, (dim + 1) / 2, false);
    store32(row + (dim + 1) / 2, is_wrong ? ROWS_NAN : float_bits(scale) | (uint32_t)zero);
}

static void decode_vllm_int4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const uint32_t stored = load32(row + (dim + 1) / 2);
    const float scale = f32_scale(stored & ~15u);
    const int32_t zero = stored & 15;
    uint8_t code[KVT_MAX_DIM];
    unpack_pairs(code, row, (dim + 1) / 2, false);
    for (uint32_t i = 0; i < dim; i++)
        x[i] = (float)(code[i] - zero) * scale;
    if (is_nan(scale))
        fill_nan(x, dim);
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_vllm)[];
const kvt_row_codec KVT_EXPORT(row_codecs_vllm)[] = {
    { .format = KVT_ROW_vllm_int8, .encode = encode_vllm_int8, .decode = decode_vllm_int8 },
    { .format = KVT_ROW_vllm_fp8, .encode = encode_vllm_fp8, .decode = decode_vllm_fp8, .split = split_vllm_fp8, .join = join_vllm_fp8 },
    { .format = KVT_ROW_vllm_int4, .encode = encode_vllm_int4, .decode = decode_vllm_int4 },
    { .format = KVT_ROW_NONE },
};
