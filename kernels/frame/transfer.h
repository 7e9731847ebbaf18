/* A call that moves rows of one KV head in or out of pages: its arguments, checked, and where its tiles are. */
#ifndef KVT_TRANSFER_H
#define KVT_TRANSFER_H

#include "kernels/frame/frame.h"

typedef struct kvt_transfer {
    const kvt_side_layout *side;
    size_t page_bytes;
    const kvt_side_options *options;
    const kvt_pages *pages;
    kvt_side which;
    const kvt_kernels *kernels; /* of the side's scheme, on the tier that serves */
    const kvt_tier_kernels *tier;
} kvt_transfer;

/* Errors: NULL, STRUCT_SIZE, LAYOUT, SIDE. */
kvt_status kvt_transfer_begin(kvt_transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages);

/* Checks the tokens, of which there is at least one, and the rows, of row_bytes each. Errors: RANGE, NULL, STRIDE. */
kvt_status kvt_transfer_check(const kvt_transfer *t, size_t first_token, size_t n_tokens, const void *rows, size_t row_bytes, ptrdiff_t row_stride);

/* Whether n rows at that distance do not overlap. */
bool kvt_rows_are_apart(size_t n, size_t row_bytes, ptrdiff_t row_stride);

uint8_t *kvt_page_at(const kvt_transfer *t, size_t p);

/* The tile that `token` is in, and how many of `n_tokens` tokens from there on are. */
typedef struct kvt_tile {
    uint8_t *codes;
    uint8_t *scales;
    uint32_t first;
    uint32_t count;
} kvt_tile;

kvt_tile kvt_tile_of(const kvt_transfer *t, size_t token, size_t n_tokens);

#endif
