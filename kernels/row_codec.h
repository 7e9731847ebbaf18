/* SPDX-License-Identifier: MIT */
/* What a family of row formats (include/kvtile/rowformats.def) brings on one tier. */
#ifndef KVT_ROW_CODEC_H
#define KVT_ROW_CODEC_H

#include <kvtile/convert.h>

typedef struct kvt_row_params {
    kvt_rounding rounding;
    float global_scale; /* nvfp4 */
} kvt_row_params;

/* Rows as codecs see them have KVT_ROW_GROUP channels at a time: what is left of the last group is zeros when encoding, and may be written when
 * decoding. */
enum { KVT_ROW_GROUP = 128 };

/* Exactly kvt_row_format_bytes(format, dim) bytes of an encoded row are touched. No alignment is required.
 *
 *   encode, decode  floats to an encoded row and back
 *   split, join     an encoded row to its codes, one byte per channel, and its scales, and back: formats whose grid a scheme has, NULL for others
 */
typedef void kvt_row_encode_fn(uint8_t *row, const float *x, uint32_t dim, const kvt_row_params *params);
typedef void kvt_row_decode_fn(float *x, const uint8_t *row, uint32_t dim, const kvt_row_params *params);
typedef void kvt_row_split_fn(uint8_t *codes, uint8_t *scales, const uint8_t *row, uint32_t dim);
typedef void kvt_row_join_fn(uint8_t *row, const uint8_t *codes, const uint8_t *scales, uint32_t dim);

typedef struct kvt_row_codec {
    kvt_row_format format; /* KVT_ROW_NONE ends a family's table */
    kvt_row_encode_fn *encode;
    kvt_row_decode_fn *decode;
    kvt_row_split_fn *split;
    kvt_row_join_fn *join;
} kvt_row_codec;

/* The files kernels/rows_<family>.c; each exports its table: kvt_row_codecs_<family>_<tier>. */
#define KVT_EACH_ROW_FAMILY(X, tier) X(ggml, tier) X(ik, tier) X(ocp, tier) X(vllm, tier) X(openvino, tier) X(deepseek, tier)

#endif
