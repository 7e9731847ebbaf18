/* FP8 rows of DeepSeek's kernels: E4M3 codes of all blocks, then a power of two for each. docs/formats.md, section 8. */
#include "kernels/rows.h"

enum { FP8_BLOCK = 128, V4_BLOCK = 64 };

KVT_ROWS uint32_t blocks_of(uint32_t dim, uint32_t block)
{
    return (dim + block - 1) / block;
}

/* The power of two that is not below amax / 448, nor below 10^-4. */
KVT_ROWS uint32_t scale_bits(const float *x, uint32_t n)
{
    const float least = float_of(largest_finite_magnitude(x, n)) / 448.0f, scale = least < 1e-4f ? 1e-4f : least;
    return (bits_of(scale) + 0x7fffff) & ROWS_INFINITY;
}

/* One block's codes; returns the exponent of its scale, biased by 127. */
KVT_ROWS uint8_t encode_block(uint8_t *codes, const float *x, uint32_t n)
{
    const uint32_t exponent = scale_bits(x, n) >> 23;
    e4m3_codes(codes, x, n, float_of((254u - exponent) << 23)); /* one over the scale */
    return (uint8_t)exponent;
}

/* ---- deepseek_fp8: f32 scales of 128 channels ---- */

static void encode_fp8(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t *scales = row + (size_t)blocks_of(dim, FP8_BLOCK) * FP8_BLOCK;
    KVT_FOR_BLOCKS(dim, FP8_BLOCK)
    store32(scales + 4 * b, (uint32_t)encode_block(row + b * FP8_BLOCK, x + b * FP8_BLOCK, FP8_BLOCK) << 23);
}

static void decode_fp8(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const uint8_t *scales = row + (size_t)blocks_of(dim, FP8_BLOCK) * FP8_BLOCK;
    KVT_FOR_BLOCKS(dim, FP8_BLOCK)
    e4m3_values(x + b * FP8_BLOCK, row + b * FP8_BLOCK, FP8_BLOCK, f32_scale(load32(scales + 4 * b)));
}

static void split_fp8(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    const size_t blocks = blocks_of(dim, FP8_BLOCK);
    memcpy(codes, row, blocks * FP8_BLOCK);
    memcpy(scales, row + blocks * FP8_BLOCK, blocks * 4);
}

static void join_fp8(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    const size_t blocks = blocks_of(dim, FP8_BLOCK);
    memcpy(row, codes, blocks * FP8_BLOCK);
    memcpy(row + blocks * FP8_BLOCK, scales, blocks * 4);
}

/* ---- deepseek_v4: E8M0 scales of 64 channels ---- */

static void encode_v4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t *scales = row + (size_t)blocks_of(dim, V4_BLOCK) * V4_BLOCK;
    KVT_FOR_BLOCKS(dim, V4_BLOCK)
    scales[b] = encode_block(row + b * V4_BLOCK, x + b * V4_BLOCK, V4_BLOCK);
}

static void decode_v4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const uint8_t *scales = row + (size_t)blocks_of(dim, V4_BLOCK) * V4_BLOCK;
    KVT_FOR_BLOCKS(dim, V4_BLOCK)
    e4m3_values(x + b * V4_BLOCK, row + b * V4_BLOCK, V4_BLOCK, e8m0_scale(scales[b]));
}

static void split_v4(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    const size_t blocks = blocks_of(dim, V4_BLOCK);
    memcpy(codes, row, blocks * V4_BLOCK);
    memcpy(scales, row + blocks * V4_BLOCK, blocks);
}

static void join_v4(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    const size_t blocks = blocks_of(dim, V4_BLOCK);
    memcpy(row, codes, blocks * V4_BLOCK);
    memcpy(row + blocks * V4_BLOCK, scales, blocks);
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_deepseek)[];
const kvt_row_codec KVT_EXPORT(row_codecs_deepseek)[] = {
    { .format = KVT_ROW_deepseek_fp8, .encode = encode_fp8, .decode = decode_fp8, .split = split_fp8, .join = join_fp8 },
    { .format = KVT_ROW_deepseek_v4, .encode = encode_v4, .decode = decode_v4, .split = split_v4, .join = join_v4 },
    { .format = KVT_ROW_NONE },
};
