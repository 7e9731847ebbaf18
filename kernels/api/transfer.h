/* SPDX-License-Identifier: MIT */
/* A call that moves rows of one KV head in or out of pages: its arguments, checked, and where its tiles are. */
#ifndef KVT_TRANSFER_H
#define KVT_TRANSFER_H

#include "kernels/api/api.h"
#include "kernels/row_codec.h"

#include <kvtile/mla.h>

typedef struct kvt_transfer {
    const kvt_side_layout *side;
    size_t page_bytes;
    const kvt_side_options *options;
    const kvt_pages *pages;
    kvt_side order; /* of its lines: KVT_V's, or KVT_K's, which a rotary part has too */
    uint32_t tiers; /* of the layout */
    const kvt_tier_kernels *tier;
} kvt_transfer;

/* Errors: NULL, LAYOUT, SIDE. (Inline, like all that a single token passes through.) */
static inline kvt_status kvt_transfer_begin(kvt_transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages)
{
    if (!layout || !pages)
        return KVT_ERR_NULL;
    if (!kvt_is_sealed(layout))
        return KVT_ERR_LAYOUT;
    if ((unsigned)side > KVT_ROPE || (side == KVT_V && layout->spec.v_dim == 0) || (side == KVT_ROPE && layout->spec.rope_dim == 0))
        return KVT_ERR_SIDE;
    t->side = kvt_layout_side(layout, side);
    t->page_bytes = layout->page_bytes;
    t->options = kvt_options_of(layout, side);
    t->pages = pages;
    t->order = side == KVT_V ? KVT_V : KVT_K;
    t->tiers = layout->spec.tiers;
    t->tier = kvt_serving_tier(t->tiers)->kernels;
    return KVT_OK;
}

static inline size_t kvt_distance(ptrdiff_t stride)
{
    return stride < 0 ? 0 - (size_t)stride : (size_t)stride;
}

/* Whether n rows at that distance do not overlap. */
static inline bool kvt_rows_are_apart(size_t n, size_t row_bytes, ptrdiff_t row_stride)
{
    return n <= 1 || kvt_distance(row_stride) >= row_bytes;
}

/* The same of a grid of tokens and heads: one stride has to step over all that the other spans. */
static inline bool kvt_grid_is_apart(size_t tokens, size_t heads, size_t row_bytes, ptrdiff_t token_stride, ptrdiff_t head_stride)
{
    if (!kvt_rows_are_apart(heads, row_bytes, head_stride) || !kvt_rows_are_apart(tokens, row_bytes, token_stride))
        return false;
    if (heads <= 1 || tokens <= 1)
        return true;
    const size_t token = kvt_distance(token_stride), head = kvt_distance(head_stride);
    size_t span;
    if (token >= head)
        return !__builtin_mul_overflow(head, heads - 1, &span) && token - row_bytes >= span;
    return !__builtin_mul_overflow(token, tokens - 1, &span) && head - row_bytes >= span;
}

/* Checks the tokens (at least one) and the pages that they are in. Errors: RANGE, NULL, STRIDE. */
static inline kvt_status kvt_check_pages(const kvt_pages *pages, size_t page_bytes, size_t first_token, size_t n_tokens)
{
    size_t last;
    if (__builtin_add_overflow(first_token, n_tokens - 1, &last) || last / KVT_PAGE_TOKENS >= pages->count)
        return KVT_ERR_RANGE;
    if (!pages->table)
        return !pages->base ? KVT_ERR_NULL : pages->stride < page_bytes ? KVT_ERR_STRIDE : KVT_OK;
    for (size_t p = first_token / KVT_PAGE_TOKENS; p <= last / KVT_PAGE_TOKENS; p++)
        if (!pages->table[p])
            return KVT_ERR_NULL;
    return KVT_OK;
}

/* The same, and the rows, of row_bytes each. */
static inline kvt_status kvt_transfer_check(const kvt_transfer *t, size_t first_token, size_t n_tokens, const void *rows, size_t row_bytes,
                                            ptrdiff_t row_stride)
{
    const kvt_status status = kvt_check_pages(t->pages, t->page_bytes, first_token, n_tokens);
    if (status)
        return status;
    return !rows ? KVT_ERR_NULL : !kvt_rows_are_apart(n_tokens, row_bytes, row_stride) ? KVT_ERR_STRIDE : KVT_OK;
}

static inline uint8_t *kvt_page_at(const kvt_pages *pages, size_t p)
{
    return pages->table ? pages->table[p] : (uint8_t *)pages->base + p * pages->stride;
}

/* With centring, writing needs the page before a new one, whose tokens make the centre, or all that the page is to have. Errors: NULL, RANGE. */
static inline kvt_status kvt_transfer_check_centre(const kvt_transfer *t, size_t first_token)
{
    if (t->options->centring == KVT_CENTRING_OWN)
        return first_token % KVT_PAGE_TOKENS ? KVT_ERR_RANGE : KVT_OK;
    const bool is_missing = t->side->centre_bytes && first_token % KVT_PAGE_TOKENS == 0 && first_token > 0 && t->pages->table &&
                            !t->pages->table[first_token / KVT_PAGE_TOKENS - 1];
    return is_missing ? KVT_ERR_NULL : KVT_OK;
}

/* The tile that `token` is in, and how many of `n_tokens` tokens from there on are. */
typedef struct kvt_tile {
    uint8_t *codes;
    uint8_t *scales;
    uint32_t first;
    uint32_t count;
} kvt_tile;

static inline kvt_tile kvt_tile_in(uint8_t *page, const kvt_transfer *t, size_t token, size_t n_tokens)
{
    const size_t i = token % KVT_PAGE_TOKENS / KVT_TILE_TOKENS;
    const uint32_t first = (uint32_t)(token % KVT_TILE_TOKENS), room = KVT_TILE_TOKENS - first;
    return (kvt_tile){
        .codes = page + t->side->codes_offset + i * t->side->code_bytes,
        .scales = page + t->side->scales_offset + i * t->side->scale_bytes,
        .first = first,
        .count = n_tokens < room ? (uint32_t)n_tokens : room,
    };
}

static inline kvt_tile kvt_tile_of(const kvt_transfer *t, size_t token, size_t n_tokens)
{
    return kvt_tile_in(kvt_page_at(t->pages, token / KVT_PAGE_TOKENS), t, token, n_tokens);
}

/* ---- rows through buffers ----
 *
 * Rows that kernels cannot take as they are, and all that are made, pass through a buffer: some rows of a tile at a time, because no call may use
 * more than 64 kB of stack. A buffer's rows are P channels each, one after the other; what decodes rows may write KVT_ROW_GROUP channels at a time.
 */
enum { KVT_BUFFER_ROWS_FLOATS = 4 * KVT_MAX_DIM, KVT_BUFFER_FLOATS = KVT_BUFFER_ROWS_FLOATS + KVT_ROW_GROUP };

/* How many rows of a tile go through a buffer at once: all, or, because table schemes encode 5 or less one by one and more as if they were 16, few.
 */
static inline uint32_t kvt_rows_at_once(uint32_t padded_dim)
{
    return KVT_TILE_TOKENS * padded_dim <= KVT_BUFFER_ROWS_FLOATS ? KVT_TILE_TOKENS : KVT_BUFFER_ROWS_FLOATS / KVT_MAX_DIM;
}

/* So many of n_tokens tokens from `token` on are in one tile and go through a buffer at once. */
static inline uint32_t kvt_piece_of(const kvt_transfer *t, size_t token, size_t n_tokens)
{
    const uint32_t room = KVT_TILE_TOKENS - (uint32_t)(token % KVT_TILE_TOKENS), most = kvt_rows_at_once(t->side->padded_dim);
    const uint32_t n = room < most ? room : most;
    return n_tokens < n ? (uint32_t)n_tokens : n;
}

/* Rows of the n tokens, a piece, from the call's `first` on: where they are, or in `buffer`. */
typedef kvt_matrix kvt_make_rows(const void *context, size_t first, uint32_t n, float *buffer);

/* kvt_write of rows that are made a piece at a time, and with KVT_CENTRING_OWN twice: for the centre, and to be stored. Its arguments are checked. */
void kvt_write_made(const kvt_transfer *t, size_t first_token, size_t n_tokens, kvt_make_rows *make, const void *context);

/* A piece of n tokens to a buffer, as floats. */
void kvt_read_piece(const kvt_transfer *t, size_t token, uint32_t n, float *buffer);

#endif
