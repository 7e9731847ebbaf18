/* SPDX-License-Identifier: MIT */
/* A tile: rows in and out, by the kernels of a tier. Baseline code: it walks, and hands rows of codes from a coder to a packer and back. */
#ifndef KVT_TILE_H
#define KVT_TILE_H

#include "kernels/kernels.h"

/* Rounded up to lines of 64 bytes. */
static inline size_t kvt_whole_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* `codes` and `scales` are a tile's (docs/formats.md). `order` is that of its lines: KVT_V's, or KVT_K's. No alignment is required. Rows have whole
 * groups of channels; those of schemes that are searched are f32.
 *
 *   write         all 16 tokens; `rows` is the row of the first
 *   write_tokens  n rows, at most 16, each as a token of a tile of its own or of the same; bits of other tokens stay as they are
 *   read          tokens first .. first + count - 1 (at most 16); `rows` is the row of token `first`
 *   write_codes   codes of a byte or less, 16 rows of P(dim) bytes each, a multiple of 64 bytes apart; scales are the caller's affair
 *   read_codes    back
 *   copy_tokens   a tile with zeros for all tokens but first .. end-1, of whose bytes nothing is used: they may never have been written
 */
void kvt_tile_write(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, uint8_t *codes, uint8_t *scales, const uint8_t *rows,
                    ptrdiff_t row_stride, kvt_dtype dtype);
void kvt_tile_write_tokens(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, const kvt_place *places, uint32_t n,
                           kvt_dtype dtype);
void kvt_tile_read(const kvt_tier_kernels *tier, kvt_side order, const kvt_tile_spec *spec, const uint8_t *codes, const uint8_t *scales,
                   uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t first, uint32_t count);
void kvt_tile_write_codes(const kvt_tier_kernels *tier, kvt_side order, const kvt_scheme_code *scheme, uint8_t *codes, uint32_t dim,
                          const uint8_t *rows, size_t row_stride);
void kvt_tile_read_codes(const kvt_tier_kernels *tier, kvt_side order, const kvt_scheme_code *scheme, const uint8_t *codes, uint32_t dim,
                         uint8_t *rows, size_t row_stride);
void kvt_tile_copy_tokens(kvt_side order, const kvt_tile_spec *spec, const uint8_t *codes, const uint8_t *scales, uint32_t first, uint32_t end,
                          uint8_t *code_copy, uint8_t *scale_copy);

/* Attention over a page, by the loops and the scales of its scheme. */
static inline kvt_load_scales_fn *kvt_scales_of(const kvt_tier_kernels *tier, const kvt_tile_spec *spec)
{
    return tier->coders[spec->scheme->coder]->load_scales;
}

#endif
