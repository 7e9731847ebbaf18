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

extern const oracle_format oracle_f32, oracle_f16, oracle_bf16, oracle_e4m3;

/* The value of a finite number's bits (of e4m3: any but 0x7f and 0xff). */
double oracle_value(oracle_format format, uint32_t bits);

/* The nearest number of the format, ties to even, sign kept. Too large: infinity (e4m3: 448). `value` is finite, or an infinity but not for e4m3. */
uint32_t oracle_round(oracle_format format, double value);

/* binary32 to f16 or bf16 and back, NaN and infinity included. */
uint32_t oracle_narrow(oracle_format format, uint32_t f32);
uint32_t oracle_widen(oracle_format format, uint32_t bits);

bool oracle_is_nan(oracle_format format, uint32_t bits); /* f32, f16, bf16 */

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

typedef struct oracle_side {
    kvt_scheme scheme;
    uint32_t dim, padded_dim;
    uint32_t bits, block, scale_bytes, blocks; /* block: channels that share a scale, 0 = none, padded_dim = the row */
    size_t row_bytes;
    size_t tile_code_bytes, tile_scale_bytes;
    size_t codes_offset, scales_offset;
} oracle_side;

typedef struct oracle_layout {
    oracle_side side[2]; /* KVT_K, KVT_V; the second is all zero when v_dim is 0 */
    size_t page_bytes;
    size_t token_bytes;
} oracle_layout;

/* Whether docs/formats.md describes the scheme as far as the oracle knows. */
bool oracle_knows(kvt_scheme scheme);

void oracle_layout_init(oracle_layout *layout, kvt_scheme k_scheme, kvt_scheme v_scheme, uint32_t k_dim, uint32_t v_dim);

/* ---- rows ------------------------------------------------------------------------------------------------------------------------ */

oracle_format oracle_row_format(kvt_dtype dtype);
size_t oracle_element_bytes(kvt_dtype dtype);
uint32_t oracle_load(const unsigned char *element, size_t bytes);
void oracle_store(unsigned char *element, size_t bytes, uint32_t value);

/* Codes and scales of one row of padded_dim binary32 numbers. */
void oracle_encode(const oracle_side *side, const uint32_t *x, uint32_t *codes, uint32_t *scales);

/* The same meaning as kvt_write and kvt_read with a page table. */
void oracle_write(const oracle_layout *layout, kvt_side side, unsigned char *const *pages, size_t first, size_t n, const unsigned char *rows,
                  kvt_dtype dtype, ptrdiff_t row_stride);

void oracle_read(const oracle_layout *layout, kvt_side side, unsigned char *const *pages, size_t first, size_t n, unsigned char *rows,
                 kvt_dtype dtype, ptrdiff_t row_stride);

/* One stored element as a double; the bits of the binary32 number that it reads back as go to *f32. */
double oracle_decode(const oracle_side *side, kvt_side which, const unsigned char *page, uint32_t token, uint32_t channel, uint32_t *f32);

#endif
