/* SPDX-License-Identifier: MIT */
/* An independent reference for pages of kvtile, written from docs/formats.md alone: slow, scalar, obvious. It shares no code with the library.
 * Numbers are handled as bits; every binary32 operation is carried out in double and rounded once, so the floating-point environment (FTZ, DAZ)
 * and the compiler have no say in it. */
#ifndef KVT_TESTS_ORACLE_H
#define KVT_TESTS_ORACLE_H

#include <kvtile/kvtile.h>

#include <stdbool.h>

/* ---- numbers --------------------------------------------------------------------------------------------------------------------- */

/* A binary number format: sign, exponent, mantissa, with the bias 2^(exp_bits - 1) - 1. */
typedef struct oracle_format {
    unsigned exp_bits;
    unsigned man_bits;
} oracle_format;

extern const oracle_format oracle_f32, oracle_f16, oracle_bf16, oracle_e4m3, oracle_e5m2;

/* The value of a finite number's bits (of e4m3: any but 0x7f and 0xff; not for infinities of e5m2). */
double oracle_value(oracle_format format, uint32_t bits);

/* The nearest number of the format, ties to even, sign kept. Too large: infinity; e4m3 and e5m2 saturate at 448 and 57344. `value` is not a NaN. */
uint32_t oracle_round(oracle_format format, double value);

/* binary32 to f16 or bf16 and back, NaN and infinity included. */
uint32_t oracle_narrow(oracle_format format, uint32_t f32);
uint32_t oracle_widen(oracle_format format, uint32_t bits);

bool oracle_is_nan(oracle_format format, uint32_t bits); /* f32, f16, bf16 */

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

/* Some bits of every code: lines of their own in a tile's codes. */
typedef struct oracle_plane {
    uint32_t bits;
    size_t offset; /* in a tile's codes */
} oracle_plane;

typedef struct oracle_side {
    kvt_scheme scheme;
    uint32_t dim, padded_dim;
    uint32_t bits, block, scale_bytes, blocks; /* block: channels that share a stored scale, 0 = none, padded_dim = the row */
    kvt_side_options options;
    uint32_t n_planes; /* 0: codes of whole bytes */
    oracle_plane planes[2];
    size_t row_bytes;
    size_t tile_code_bytes, tile_scale_bytes;
    size_t codes_offset, scales_offset;
    size_t centre_bytes, centre_offset; /* 0 bytes: no centring */
} oracle_side;

typedef struct oracle_layout {
    oracle_side side[2]; /* KVT_K, KVT_V; the second is all zero when v_dim is 0 */
    size_t page_bytes;
    size_t token_bytes;
} oracle_layout;

/* Whether docs/formats.md describes the scheme as far as the oracle knows. */
bool oracle_knows(kvt_scheme scheme);

/* Of the spec: schemes, dims and options. It must be one that kvt_layout_init accepts. */
void oracle_layout_init(oracle_layout *layout, const kvt_spec *spec);

/* ---- rows ------------------------------------------------------------------------------------------------------------------------ */

oracle_format oracle_row_format(kvt_dtype dtype);
size_t oracle_element_bytes(kvt_dtype dtype);
uint32_t oracle_load(const unsigned char *element, size_t bytes);
void oracle_store(unsigned char *element, size_t bytes, uint32_t value);

/* The rotation of one row of padded_dim binary32 numbers, in place, and its inverse; nothing when the side has none. */
void oracle_rotate(const oracle_side *side, uint32_t *x);
void oracle_unrotate(const oracle_side *side, uint32_t *x);

/* The padded_dim binary32 numbers of a page's centre. */
void oracle_centre(const oracle_side *side, const unsigned char *page, uint32_t *mu);

/* Codes and scales of one row of padded_dim binary32 numbers, rotated and centred already. */
void oracle_encode(const oracle_side *side, const uint32_t *x, uint32_t *codes, uint32_t *scales);

/* The same meaning as kvt_write and kvt_read with a page table. With centring, writing the first token of a page reads the page before. */
void oracle_write(const oracle_layout *layout, kvt_side side, unsigned char *const *pages, size_t first, size_t n, const unsigned char *rows,
                  kvt_dtype dtype, ptrdiff_t row_stride);

void oracle_read(const oracle_layout *layout, kvt_side side, unsigned char *const *pages, size_t first, size_t n, unsigned char *rows,
                 kvt_dtype dtype, ptrdiff_t row_stride);

/* One stored element, code times scale, as a double, and rounded to the bits of a binary32 number; without the centre and the inverse rotation. */
double oracle_decode(const oracle_side *side, kvt_side which, const unsigned char *page, uint32_t token, uint32_t channel, uint32_t *f32);

#endif
