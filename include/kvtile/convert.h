/* SPDX-License-Identifier: MIT */
/* kvtile: rows in the formats of other engines, in and out of f32, f16 or bf16 rows, and in and out of pages.
 *
 * A *row format* (rowformats.def) is how some engine stores the vector of one token in one KV head: one row after the other, no tiles.
 * docs/formats.md, section 8, gives every byte of each, how numbers are rounded to it, and what NaN and infinity become.
 *
 * The rules at the top of kvtile.h hold here too.
 */
#ifndef KVTILE_CONVERT_H
#define KVTILE_CONVERT_H

#include <kvtile/kvtile.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- formats --------------------------------------------------------------------------------------------------------------------- */

typedef enum kvt_row_format {
#define KVT_ROW_FORMAT(name, id, family, block, block_bytes, row_bytes, title) KVT_ROW_##name = (id),
#include <kvtile/rowformats.def>
#undef KVT_ROW_FORMAT
    KVT_ROW_NONE = 0
} kvt_row_format;

typedef struct kvt_row_format_info {
    kvt_row_format format;
    const char *name;
    const char *title;
    uint32_t block;       /* channels: a row is padded to whole blocks */
    uint32_t block_bytes; /* of a block, its scales included */
    uint32_t row_bytes;   /* that a row has once, beside its blocks */
} kvt_row_format_info;

/* The rows of rowformats.def in order; NULL past the end. The result is static. */
KVT_API const kvt_row_format_info *kvt_row_format_at(size_t index);

/* NULL when there is no such format. The result is static. */
KVT_API const kvt_row_format_info *kvt_row_format_find(const char *name);
KVT_API const kvt_row_format_info *kvt_row_format_get(kvt_row_format format);

/* Bytes of a row of `dim` channels, padded to whole blocks where the engine itself would refuse such a row; 0 when there is no such format, or when
 * dim is outside 1..KVT_MAX_DIM. */
KVT_API size_t kvt_row_format_bytes(kvt_row_format format, uint32_t dim);

/* ---- options --------------------------------------------------------------------------------------------------------------------- */

/* Which bytes to write where several are right. Reading does not depend on it.
 * CANONICAL is this library's rule for every format: nearest even, and what cannot be represented becomes NaN. The others give the bytes that ggml's
 * own quantizers give on x86 with AVX2, on ARM with NEON and in plain C: for q8_0 these are three, for its other formats one. Formats that are not
 * ggml's have CANONICAL only; so has iq4_nl, whose quantizer adds up floats in an order of its own. */
typedef enum kvt_rounding {
    KVT_ROUNDING_CANONICAL = 0,
    KVT_ROUNDING_GGML_X86 = 1,
    KVT_ROUNDING_GGML_NEON = 2,
    KVT_ROUNDING_GGML_SCALAR = 3
} kvt_rounding;

/* Zero it, set `size`, then fill it. */
typedef struct kvt_row_options {
    size_t size; /* sizeof(kvt_row_options) */
    kvt_rounding rounding;
    uint32_t tiers;           /* tiers that may run, as in kvt_spec; 0 = all. kvt_convert_in and _out let those run that the layout allows too */
    float nvfp4_global_scale; /* nvfp4 only, zero elsewhere: what all its numbers are multiplied by when read, 2^-64 .. 2^64; 0 counts as 1 */
} kvt_row_options;

/* ---- rows and rows --------------------------------------------------------------------------------------------------------------- */

/* Encodes n_rows rows of `dim` numbers: the row at rows + i * row_stride becomes the row of `format` at encoded + i * encoded_stride.
 *   rows            dim elements each, contiguous; no alignment required
 *   row_stride      bytes from one row to the next, may be negative; |row_stride| >= the bytes of a row unless n_rows is 1
 *   encoded         kvt_row_format_bytes(format, dim) bytes each, exactly these are written; no alignment required; must not overlap the rows
 *   encoded_stride  as row_stride, for the encoded rows
 *   n_rows          0 is allowed and does nothing
 *   options         NULL is all zero
 * Channels that pad a row to whole blocks are encoded as zeros. NaN and infinity: docs/formats.md, each format.
 * Errors: FORMAT, DIM, DTYPE, STRUCT_SIZE, OPTIONS, TIER, NULL, STRIDE. Nothing is written then.
 */
KVT_API KVT_MUST_CHECK kvt_status kvt_rows_encode(kvt_row_format format, uint32_t dim, size_t n_rows, const void *rows, kvt_dtype dtype,
                                                  ptrdiff_t row_stride, void *encoded, ptrdiff_t encoded_stride, const kvt_row_options *options);

/* Decodes: the inverse of kvt_rows_encode, with the same arguments, rules and errors. Exactly `dim` elements of each row are written; f16 and bf16
 * rows are rounded to nearest even from the f32 value. Any bytes are safe to decode. */
KVT_API KVT_MUST_CHECK kvt_status kvt_rows_decode(kvt_row_format format, uint32_t dim, size_t n_rows, const void *encoded, ptrdiff_t encoded_stride,
                                                  void *rows, kvt_dtype dtype, ptrdiff_t row_stride, const kvt_row_options *options);

/* ---- rows and pages -------------------------------------------------------------------------------------------------------------- */

/* Stores encoded rows: token first_token + i of one KV head becomes the row of `format` at rows + i * row_stride, for i in 0 .. n_tokens-1.
 * Rows have the channels of the layout's side and kvt_row_format_bytes of that; the rest is as for kvt_write, and so are the pages' rules.
 *
 * Where the side stores the same grid of numbers, codes and scales are copied, whatever they are, and come back from kvt_convert_out bit for bit
 * (except what pads a row to whole blocks, which is set to zero): without rotation and centring, ggml_q8_0 in q8_0, ggml_q4_0 in q4_0, vllm_fp8 in
 * e4m3 with an f32 scale per row, mxfp8_e4m3 in e4m3 with an e8m0 scale per 32 channels. Otherwise the rows are decoded to f32 and those are stored,
 * as kvt_write does it.
 *
 * Errors: as kvt_write, without DTYPE, and FORMAT, STRUCT_SIZE, OPTIONS, TIER. Nothing is written then.
 */
KVT_API KVT_MUST_CHECK kvt_status kvt_convert_in(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                                 kvt_row_format format, const void *rows, ptrdiff_t row_stride, const kvt_row_options *options);

/* Reads tokens as rows of `format`: the inverse of kvt_convert_in, with the same arguments, rules and errors. Exactly kvt_row_format_bytes of each
 * row are written. Where codes and scales are not copied, `format` rounds what the side reads back as. */
KVT_API KVT_MUST_CHECK kvt_status kvt_convert_out(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token,
                                                  size_t n_tokens, kvt_row_format format, void *rows, ptrdiff_t row_stride,
                                                  const kvt_row_options *options);

#ifdef __cplusplus
}
#endif

#endif
