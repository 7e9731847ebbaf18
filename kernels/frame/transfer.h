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

/* Errors: NULL, STRUCT_SIZE, LAYOUT, SIDE. (Inline, like all that a single token passes through.) */
static inline kvt_status kvt_transfer_begin(kvt_transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages)
{
    if (!layout || !pages)
        return KVT_ERR_NULL;
    if (layout->size != sizeof *layout)
        return KVT_ERR_STRUCT_SIZE;
    if ((side != KVT_K && side != KVT_V) || (side == KVT_V && layout->spec.v_dim == 0))
        return KVT_ERR_SIDE;
    t->side = side == KVT_K ? &layout->k : &layout->v;
    if (t->side->seal != kvt_side_seal(layout, side))
        return KVT_ERR_LAYOUT;
    t->page_bytes = layout->page_bytes;
    t->options = side == KVT_K ? &layout->spec.k_options : &layout->spec.v_options;
    t->pages = pages;
    t->which = side;
    t->tier = kvt_serving_tier(layout->spec.tiers)->kernels;
    t->kernels = t->tier->schemes[kvt_scheme_row(t->side->scheme)];
    return KVT_OK;
}

/* Checks the tokens, of which there is at least one, and the rows, of row_bytes each. Errors: RANGE, NULL, STRIDE. */
kvt_status kvt_transfer_check(const kvt_transfer *t, size_t first_token, size_t n_tokens, const void *rows, size_t row_bytes, ptrdiff_t row_stride);

/* Whether n rows at that distance do not overlap. */
static inline bool kvt_rows_are_apart(size_t n, size_t row_bytes, ptrdiff_t row_stride)
{
    const size_t distance = row_stride < 0 ? 0 - (size_t)row_stride : (size_t)row_stride;
    return n <= 1 || distance >= row_bytes;
}

static inline uint8_t *kvt_page_at(const kvt_transfer *t, size_t p)
{
    return t->pages->table ? t->pages->table[p] : (uint8_t *)t->pages->base + p * t->pages->stride;
}

/* The tile that `token` is in, and how many of `n_tokens` tokens from there on are. */
typedef struct kvt_tile {
    uint8_t *codes;
    uint8_t *scales;
    uint32_t first;
    uint32_t count;
} kvt_tile;

static inline kvt_tile kvt_tile_of(const kvt_transfer *t, size_t token, size_t n_tokens)
{
    const size_t i = token % KVT_PAGE_TOKENS / KVT_TILE_TOKENS;
    const uint32_t first = (uint32_t)(token % KVT_TILE_TOKENS), room = KVT_TILE_TOKENS - first;
    uint8_t *page = kvt_page_at(t, token / KVT_PAGE_TOKENS);
    return (kvt_tile){
        .codes = page + t->side->codes_offset + i * t->side->code_bytes,
        .scales = page + t->side->scales_offset + i * t->side->scale_bytes,
        .first = first,
        .count = n_tokens < room ? (uint32_t)n_tokens : room,
    };
}

#endif
