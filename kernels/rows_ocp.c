/* SPDX-License-Identifier: MIT */
/* Rows of the OCP microscaling formats and of NVFP4: the codes of all blocks, then their scales. docs/formats.md, section 8. */
#include "kernels/rows.h"

/* ---- mxfp8_e4m3 ---- */

static void encode_mxfp8(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t *scales = row + blocks_of(dim, ROWS_BLOCK) * ROWS_BLOCK;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const float *from = x + b * ROWS_BLOCK;
        scales[b] = e8m0_of(largest_finite_magnitude(from, ROWS_BLOCK), 8);
        e4m3_codes(row + b * ROWS_BLOCK, from, ROWS_BLOCK, float_of((254u - scales[b]) << 23)); /* one over the scale */
    }
}

static void decode_mxfp8(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    e4m3_blocks(x, row, blocks_of(dim, ROWS_BLOCK), ROWS_BLOCK, 1);
}

static void split_mxfp8(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim)
{
    split_planes(codes, scales, row, blocks_of(dim, ROWS_BLOCK), ROWS_BLOCK, 1);
}

static void join_mxfp8(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim)
{
    join_planes(row, codes, scales, blocks_of(dim, ROWS_BLOCK), ROWS_BLOCK, 1);
}

/* ---- mxfp4 ---- */

static void encode_mxfp4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t *scales = row + blocks_of(dim, ROWS_BLOCK) * ROWS_BLOCK / 2;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        const float *from = x + b * ROWS_BLOCK;
        const uint32_t largest = largest_magnitude(from, ROWS_BLOCK);
        uint8_t code[ROWS_BLOCK];
        scales[b] = largest >= ROWS_INFINITY ? 0xff : e8m0_of(largest, 2);
        e2m1_codes(code, from, ROWS_BLOCK, largest >= ROWS_INFINITY ? 0 : e8m0_scale(scales[b]), E2M1_EVEN);
        pack_pairs(row + b * ROWS_BLOCK / 2, code, ROWS_BLOCK / 2, false);
    }
}

static void decode_mxfp4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    const uint8_t *scales = row + blocks_of(dim, ROWS_BLOCK) * ROWS_BLOCK / 2;
    KVT_FOR_BLOCKS(dim, ROWS_BLOCK)
    {
        uint8_t code[ROWS_BLOCK];
        unpack_pairs(code, row + b * ROWS_BLOCK / 2, ROWS_BLOCK / 2, false);
        e2m1_values(x + b * ROWS_BLOCK, code, ROWS_BLOCK, e8m0_scale(scales[b]), 1, E2M1_EVEN);
    }
}

/* ---- nvfp4 ---- */

enum { NVFP4_BLOCK = 16 };

static void encode_nvfp4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    uint8_t *scales = row + blocks_of(dim, NVFP4_BLOCK) * NVFP4_BLOCK / 2;
    KVT_FOR_BLOCKS(dim, NVFP4_BLOCK)
    {
        const float *from = x + b * NVFP4_BLOCK;
        const uint32_t largest = largest_magnitude(from, NVFP4_BLOCK);
        const bool is_wrong = largest >= ROWS_INFINITY;
        uint8_t code[NVFP4_BLOCK];
        const uint8_t scale = e4m3_of(float_of(is_wrong ? 0 : largest) / 6.0f / params->global_scale);
        scales[b] = is_wrong ? 0x7f : scale;
        e2m1_codes(code, from, NVFP4_BLOCK, is_wrong ? 0 : e4m3_magnitude(scale) * params->global_scale, E2M1_EVEN);
        pack_pairs(row + b * NVFP4_BLOCK / 2, code, NVFP4_BLOCK / 2, false);
    }
}

static void decode_nvfp4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    const uint8_t *scales = row + blocks_of(dim, NVFP4_BLOCK) * NVFP4_BLOCK / 2;
    KVT_FOR_BLOCKS(dim, NVFP4_BLOCK)
    {
        uint8_t code[NVFP4_BLOCK];
        unpack_pairs(code, row + b * NVFP4_BLOCK / 2, NVFP4_BLOCK / 2, false);
        const float magnitude = (scales[b] & 0x7f) == 0x7f ? float_of(ROWS_NAN) : e4m3_magnitude(scales[b]);
        e2m1_values(x + b * NVFP4_BLOCK, code, NVFP4_BLOCK, scales[b] & 0x80 ? -magnitude : magnitude, params->global_scale, E2M1_EVEN);
    }
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_ocp)[];
const kvt_row_codec KVT_EXPORT(row_codecs_ocp)[] = {
    { .format = KVT_ROW_mxfp8_e4m3, .encode = encode_mxfp8, .decode = decode_mxfp8, .split = split_mxfp8, .join = join_mxfp8 },
    { .format = KVT_ROW_mxfp4, .encode = encode_mxfp4, .decode = decode_mxfp4 },
    { .format = KVT_ROW_nvfp4, .encode = encode_nvfp4, .decode = decode_nvfp4 },
    { .format = KVT_ROW_NONE },
};
