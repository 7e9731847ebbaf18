/* SPDX-License-Identifier: MIT */
/* FP8 rows of DeepSeek's kernels: E4M3 codes of all blocks, then a power of two for each. docs/formats.md, section 8. */
#include "kernels/rows.h"

enum { FP8_BLOCK = 128, V4_BLOCK = 64 };

/* The power of two that is not below amax / 448, nor below 10^-4. */
KVT_ROWS uint32_t scale_bits(const float *x, uint32_t n)
{
    const float least = float_of(largest_finite_magnitude(x, n)) / 448.0f, scale = least < 1e-4f ? 1e-4f : least;
    return (float_bits(scale) + 0x7fffff) & ROWS_INFINITY;
}

/* One block's codes; returns the exponent of its scale, biased by 127. */
KVT_ROWS uint8_t encode_block(uint8_t *codes, const float *x, uint32_t n)
{
    const uint32_t exponent = scale_bits(x, n) >> 23;
    e4m3_codes(codes, x, n, float_of((254u - exponent) << 23)); /* one over the scale */
    return (uint8_t)exponent;
}

/* ---- deepseek_fp8: f32 scales of 128 channels ---- */

static void encode_deepseek_fp8(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t *scales = row + (size_t)blocks_of(dim, FP8_BLOCK) * FP8_BLOCK;
    KVT_FOR_BLOCKS(dim, FP8_BLOCK)
    store32(scales + 4 * b, (uint32_t)encode_block(row + b * FP8_BLOCK, x + b * FP8_BLOCK, FP8_BLOCK) << 23);
}

static void decode_deepseek_fp8(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    e4m3_blocks(x, row, blocks_of(dim, FP8_BLOCK), FP8_BLOCK, 4);
}

static void split_deepseek_fp8(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    split_planes(codes, scales, row, blocks_of(dim, FP8_BLOCK), FP8_BLOCK, 4);
}

static void join_deepseek_fp8(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    join_planes(row, codes, scales, blocks_of(dim, FP8_BLOCK), FP8_BLOCK, 4);
}

/* ---- deepseek_v4: E8M0 scales of 64 channels ---- */

static void encode_deepseek_v4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t *scales = row + (size_t)blocks_of(dim, V4_BLOCK) * V4_BLOCK;
    KVT_FOR_BLOCKS(dim, V4_BLOCK)
    scales[b] = encode_block(row + b * V4_BLOCK, x + b * V4_BLOCK, V4_BLOCK);
}

static void decode_deepseek_v4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    e4m3_blocks(x, row, blocks_of(dim, V4_BLOCK), V4_BLOCK, 1);
}

static void split_deepseek_v4(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    split_planes(codes, scales, row, blocks_of(dim, V4_BLOCK), V4_BLOCK, 1);
}

static void join_deepseek_v4(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    join_planes(row, codes, scales, blocks_of(dim, V4_BLOCK), V4_BLOCK, 1);
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_deepseek)[];
const kvt_row_codec KVT_EXPORT(row_codecs_deepseek)[] = {
    { .format = KVT_ROW_deepseek_fp8,
      .encode = encode_deepseek_fp8,
      .decode = decode_deepseek_fp8,
      .split = split_deepseek_fp8,
      .join = join_deepseek_fp8 },
    { .format = KVT_ROW_deepseek_v4,
      .encode = encode_deepseek_v4,
      .decode = decode_deepseek_v4,
      .split = split_deepseek_v4,
      .join = join_deepseek_v4 },
    { .format = KVT_ROW_NONE },
};
