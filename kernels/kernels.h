/* What a scheme brings on one tier: the only thing that a tier's objects export. */
#ifndef KVT_KERNELS_H
#define KVT_KERNELS_H

#include <kvtile/kvtile.h>

/* Bytes of the scale formats of schemes.def; fp8's are a side's option. */
enum { KVT_SCALE_none = 0, KVT_SCALE_f16 = 2, KVT_SCALE_fp8 = 4, KVT_SCALE_s8 = 1 };
enum { KVT_IS_FP8_SCALE_none = 0, KVT_IS_FP8_SCALE_f16 = 0, KVT_IS_FP8_SCALE_fp8 = 1, KVT_IS_FP8_SCALE_s8 = 0 };

/* What kernels have to know of a side. */
typedef struct kvt_tile_spec {
    uint32_t dim; /* channels, a multiple of 16 */
    kvt_effort effort;
    /* FP8: */
    uint32_t block_groups; /* of 16 channels, that share a scale */
    uint32_t scale_bytes;  /* of one scale: 4 (f32), 1 (e8m0), 0 (all have tensor_scale) */
    float tensor_scale;
} kvt_tile_spec;

/* `codes` and `scales` are a tile's (docs/formats.md). No alignment is required.
 *
 *   write        all 16 tokens; `rows` is the row of the first
 *   write_rows   n rows, at most 16, each as a token of a tile of its own or of the same; bits of other tokens stay as they are
 *   read         tokens first .. first + count - 1 (at most 16); `rows` is the row of token `first`
 *   write_codes  codes of at most 8 bits, 16 rows of P(dim) bytes each; scales are the caller's affair
 *   read_codes   back
 */
typedef void kvt_write_fn(uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype);
typedef struct kvt_place {
    const uint8_t *row;
    uint8_t *codes;
    uint8_t *scales;
    uint32_t token;
} kvt_place;
typedef void kvt_write_rows_fn(const kvt_place *places, uint32_t n, const kvt_tile_spec *spec, kvt_dtype dtype);
typedef void kvt_read_fn(const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype,
                         uint32_t first, uint32_t count);
typedef void kvt_write_codes_fn(uint8_t *codes, uint32_t dim, const uint8_t *rows, size_t row_stride);
typedef void kvt_read_codes_fn(const uint8_t *codes, uint32_t dim, uint8_t *rows, size_t row_stride);

/* Indexed by kvt_side. The codes functions are NULL for codes wider than a byte. */
typedef struct kvt_kernels {
    kvt_write_fn *write[2];
    kvt_write_rows_fn *write_rows[2];
    kvt_read_fn *read[2];
    kvt_write_codes_fn *write_codes[2];
    kvt_read_codes_fn *read_codes[2];
    int f32_only; /* rows are given and taken as f32, whatever the caller has: they pass through kvt_stage */
} kvt_kernels;

/* What happens to rows before they are encoded and after they are decoded (docs/formats.md, sections 6 and 7), on one tier; every tier brings it.
 * P = P(dim). `mu` has P floats, or is NULL; staged rows have P floats each, one after the other.
 *
 *   prepare       rows -> staged: widened, padded, rotated, less mu
 *   restore       staged -> rows
 *   add           sum[0..P-1] += each of `count` staged rows, in order, what is not finite counting as 0
 *   load_centre   a page's centre -> mu
 *   store_centre  and back, quantized
 */
typedef struct kvt_stage {
    void (*prepare)(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                    const float *mu);
    void (*restore)(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                    const float *mu);
    void (*add)(float *sum, const float *staged, uint32_t count, uint32_t dim);
    void (*load_centre)(float *mu, const uint8_t *centre, uint32_t dim);
    void (*store_centre)(uint8_t *centre, const float *mu, uint32_t dim);
} kvt_stage;

/* All of a tier. */
typedef struct kvt_tier_kernels {
    const kvt_kernels *const *schemes; /* in the order of schemes.def */
    const kvt_stage *stage;
    const struct kvt_row_codec *const *row_families; /* in the order of row_families.def; NULL ends the list */
} kvt_tier_kernels;

#endif
