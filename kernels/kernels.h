/* What a scheme brings on one tier: the only thing that a tier's objects export. */
#ifndef KVT_KERNELS_H
#define KVT_KERNELS_H

#include <kvtile/kvtile.h>

/* Bytes of the scale formats of schemes.def. */
enum { KVT_SCALE_none = 0, KVT_SCALE_f16 = 2, KVT_SCALE_f32 = 4 };

/* Tokens first .. first + count - 1 (at most 16) of one tile. `codes` and `scales` are the tile's (docs/formats.md), `rows` the row of token `first`.
 * Bits of other tokens stay as they are. No alignment is required. */
typedef void kvt_write_tile_fn(uint8_t *codes, uint8_t *scales, uint32_t dim, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype,
                               uint32_t first, uint32_t count);
typedef void kvt_read_tile_fn(const uint8_t *codes, const uint8_t *scales, uint32_t dim, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype,
                              uint32_t first, uint32_t count);

/* NULL: inherited from the next lower tier. Indexed by kvt_side. */
typedef struct kvt_kernels {
    kvt_write_tile_fn *write[2];
    kvt_read_tile_fn *read[2];
} kvt_kernels;

#endif
