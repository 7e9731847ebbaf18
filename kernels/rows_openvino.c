/* SPDX-License-Identifier: MIT */
/* Rows of OpenVINO: f32 scale, f32 zero point, codes. docs/formats.md, section 8. */
#include "kernels/rows.h"

typedef struct row_affine {
    float scale, zero;
    bool is_wrong; /* the row cannot be represented */
} row_affine;

KVT_ROWS row_affine affine_of(const float *x, uint32_t dim, float steps)
{
    const row_span span = span_of(x, dim);
    const float range = span.max - span.min, min = magnitude_of(span.min) < ROWS_2_POW_M100 ? 0 : span.min;
    const bool is_flat = float_bits(range / steps) < ROWS_2_POW_M100;
    const float scale = is_flat ? 0.0001f : range / steps, zero = -min / scale;
    return (row_affine){
        .scale = scale,
        .zero = magnitude_of(zero) < ROWS_2_POW_M24 ? 0 : zero,
        .is_wrong = !span.is_finite || float_bits(range) >= ROWS_INFINITY || (is_flat && magnitude_of(min) >= ROWS_2_POW_100),
    };
}

KVT_ROWS void encode_affine(uint8_t *row, uint8_t *code, const float *x, uint32_t dim, float steps)
{
    const row_affine a = affine_of(x, dim, steps);
    const float r = 1.0f / a.scale;
    store32(row, a.is_wrong ? ROWS_NAN : float_bits(a.scale));
    store32(row + 4, a.is_wrong ? 0 : float_bits(a.zero));
    for (uint32_t i = 0; i < dim; i++)
        code[i] = (uint8_t)(a.is_wrong ? 0 : nearest_even(limited(x[i] * r + a.zero, 0, steps)));
}

KVT_ROWS void decode_affine(float *x, const uint8_t *row, const uint8_t *code, uint32_t dim)
{
    const float scale = f32_scale(load32(row));
    const uint32_t stored = load32(row + 4), magnitude = stored & 0x7fffffff;
    const float zero = float_of(magnitude < ROWS_2_POW_M24 ? 0 : stored);
    /* (code - zero) is at least 2^-24 or 0, so the product could be subnormal with a scale that f32_scale lets through. */
    const float used = magnitude_of(scale) < ROWS_2_POW_M100 ? 0 : scale;
    for (uint32_t i = 0; i < dim; i++)
        x[i] = ((float)code[i] - zero) * used;
    if (is_nan(scale) || magnitude >= ROWS_INFINITY)
        fill_nan(x, dim);
}

static void encode_u8(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    encode_affine(row, row + 8, x, dim, 255);
}
static void decode_u8(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    decode_affine(x, row, row + 8, dim);
}

static void encode_u4(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t code[KVT_MAX_DIM] = { 0 };
    encode_affine(row, code, x, dim, 15);
    pack_pairs(row + 8, code, (dim + 1) / 2, true);
}
static void decode_u4(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params)
{
    (void)params;
    uint8_t code[KVT_MAX_DIM];
    unpack_pairs(code, row + 8, (dim + 1) / 2, true);
    decode_affine(x, row, code, dim);
}

extern const kvt_row_codec KVT_EXPORT(row_codecs_openvino)[];
const kvt_row_codec KVT_EXPORT(row_codecs_openvino)[] = {
    { .format = KVT_ROW_openvino_u8, .encode = encode_u8, .decode = decode_u8 },
    { .format = KVT_ROW_openvino_u4, .encode = encode_u4, .decode = decode_u4 },
    { .format = KVT_ROW_NONE },
};
