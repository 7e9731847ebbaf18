#include "kernels/frame/transfer.h"

kvt_status kvt_transfer_begin(kvt_transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages)
{
    if (!layout || !pages)
        return KVT_ERR_NULL;
    if (layout->size != sizeof *layout)
        return KVT_ERR_STRUCT_SIZE;
    if (layout->seal != kvt_layout_seal(layout))
        return KVT_ERR_LAYOUT;
    if ((side != KVT_K && side != KVT_V) || (side == KVT_V && layout->spec.v_dim == 0))
        return KVT_ERR_SIDE;
    t->side = side == KVT_K ? &layout->k : &layout->v;
    t->page_bytes = layout->page_bytes;
    t->options = side == KVT_K ? &layout->spec.k_options : &layout->spec.v_options;
    t->pages = pages;
    t->which = side;
    t->tier = kvt_serving_tier(layout->spec.tiers)->kernels;
    t->kernels = t->tier->schemes[kvt_scheme_row(t->side->scheme)];
    return KVT_OK;
}

bool kvt_rows_are_apart(size_t n, size_t row_bytes, ptrdiff_t row_stride)
{
    const size_t distance = row_stride < 0 ? 0 - (size_t)row_stride : (size_t)row_stride;
    return n <= 1 || distance >= row_bytes;
}

kvt_status kvt_transfer_check(const kvt_transfer *t, size_t first_token, size_t n_tokens, const void *rows, size_t row_bytes, ptrdiff_t row_stride)
{
    const kvt_pages *pages = t->pages;
    size_t capacity, end;
    if (__builtin_mul_overflow(pages->count, (size_t)KVT_PAGE_TOKENS, &capacity))
        capacity = SIZE_MAX;
    if (__builtin_add_overflow(first_token, n_tokens, &end) || end > capacity)
        return KVT_ERR_RANGE;
    if (!rows || (!pages->table && !pages->base))
        return KVT_ERR_NULL;
    if (!pages->table && pages->stride < t->page_bytes)
        return KVT_ERR_STRIDE;
    if (!kvt_rows_are_apart(n_tokens, row_bytes, row_stride))
        return KVT_ERR_STRIDE;
    if (pages->table)
        for (size_t p = first_token / KVT_PAGE_TOKENS; p <= (end - 1) / KVT_PAGE_TOKENS; p++)
            if (!pages->table[p])
                return KVT_ERR_NULL;
    return KVT_OK;
}

uint8_t *kvt_page_at(const kvt_transfer *t, size_t p)
{
    return t->pages->table ? t->pages->table[p] : (uint8_t *)t->pages->base + p * t->pages->stride;
}

kvt_tile kvt_tile_of(const kvt_transfer *t, size_t token, size_t n_tokens)
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
