/* Rows in and out of pages: checks the arguments, then hands tile by tile to the kernels. */
#include "arch/dispatch.h"
#include "kernels/frame/frame.h"

size_t kvt_dtype_bytes(kvt_dtype dtype)
{
    switch (dtype) {
    case KVT_F32:
        return 4;
    case KVT_F16:
    case KVT_BF16:
        return 2;
    }
    return 0;
}

/* One checked call. */
typedef struct transfer {
    kvt_page_shape shape;
    const kvt_side_layout *side; /* in shape */
    size_t row;                  /* of schemes.def */
    uint32_t tiers;
} transfer;

static kvt_status check(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *rows,
                        kvt_dtype dtype, ptrdiff_t row_stride, transfer *t)
{
    if (!layout || !pages)
        return KVT_ERR_NULL;
    if (layout->size != sizeof *layout)
        return KVT_ERR_STRUCT_SIZE;
    const kvt_status status = kvt_page_shape_of(&layout->spec, &t->shape);
    if (status)
        return status;
    if ((side != KVT_K && side != KVT_V) || (side == KVT_V && layout->spec.v_dim == 0))
        return KVT_ERR_SIDE;
    const size_t element = kvt_dtype_bytes(dtype);
    if (!element)
        return KVT_ERR_DTYPE;
    t->side = side == KVT_K ? &t->shape.k : &t->shape.v;

    if (n_tokens == 0)
        return KVT_OK;
    size_t capacity, end;
    if (__builtin_mul_overflow(pages->count, (size_t)KVT_PAGE_TOKENS, &capacity))
        capacity = SIZE_MAX;
    if (__builtin_add_overflow(first_token, n_tokens, &end) || end > capacity)
        return KVT_ERR_RANGE;
    if (!rows || (!pages->table && !pages->base))
        return KVT_ERR_NULL;
    if (!pages->table && pages->stride < t->shape.page_bytes)
        return KVT_ERR_STRIDE;
    const size_t distance = row_stride < 0 ? 0 - (size_t)row_stride : (size_t)row_stride;
    if (n_tokens > 1 && distance < t->side->dim * element)
        return KVT_ERR_STRIDE;
    if (pages->table)
        for (size_t p = first_token / KVT_PAGE_TOKENS; p <= (end - 1) / KVT_PAGE_TOKENS; p++)
            if (!pages->table[p])
                return KVT_ERR_NULL;
    t->row = kvt_scheme_row(t->side->scheme);
    t->tiers = kvt_runnable(layout->spec.tiers);
    return KVT_OK;
}

/* The tile that `token` is in, and how many of `n_tokens` tokens from there on are. */
typedef struct tile {
    uint8_t *codes;
    uint8_t *scales;
    uint32_t first;
    uint32_t count;
} tile;

static tile tile_of(const transfer *t, const kvt_pages *pages, size_t token, size_t n_tokens)
{
    const size_t p = token / KVT_PAGE_TOKENS, i = token % KVT_PAGE_TOKENS / KVT_TILE_TOKENS;
    const uint32_t first = (uint32_t)(token % KVT_TILE_TOKENS), room = KVT_TILE_TOKENS - first;
    uint8_t *page = pages->table ? pages->table[p] : (uint8_t *)pages->base + p * pages->stride;
    return (tile){
        .codes = page + t->side->codes_offset + i * t->side->code_bytes,
        .scales = page + t->side->scales_offset + i * t->side->scale_bytes,
        .first = first,
        .count = n_tokens < room ? (uint32_t)n_tokens : room,
    };
}

kvt_status kvt_write(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *rows,
                     kvt_dtype dtype, ptrdiff_t row_stride)
{
    transfer t;
    const kvt_status status = check(layout, side, pages, first_token, n_tokens, rows, dtype, row_stride, &t);
    if (status || n_tokens == 0)
        return status;
    kvt_write_tile_fn *write = kvt_tiers[kvt_serving_tier(t.tiers, t.row, KVT_OP_WRITE, side)].kernels[t.row]->write[side];
    const uint8_t *row = rows;
    for (size_t done = 0; done < n_tokens;) {
        const tile at = tile_of(&t, pages, first_token + done, n_tokens - done);
        write(at.codes, at.scales, t.side->dim, row + (ptrdiff_t)done * row_stride, row_stride, dtype, at.first, at.count);
        done += at.count;
    }
    return KVT_OK;
}

kvt_status kvt_read(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, void *rows, kvt_dtype dtype,
                    ptrdiff_t row_stride)
{
    transfer t;
    const kvt_status status = check(layout, side, pages, first_token, n_tokens, rows, dtype, row_stride, &t);
    if (status || n_tokens == 0)
        return status;
    kvt_read_tile_fn *read = kvt_tiers[kvt_serving_tier(t.tiers, t.row, KVT_OP_READ, side)].kernels[t.row]->read[side];
    uint8_t *row = rows;
    for (size_t done = 0; done < n_tokens;) {
        const tile at = tile_of(&t, pages, first_token + done, n_tokens - done);
        read(at.codes, at.scales, t.side->dim, row + (ptrdiff_t)done * row_stride, row_stride, dtype, at.first, at.count);
        done += at.count;
    }
    return KVT_OK;
}
