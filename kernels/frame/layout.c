#include "kernels/frame/frame.h"

#include <string.h>

enum { GROUP_CHANNELS = 16 }; /* what kernels work on at once: docs/formats.md, section 1 */

static kvt_side_layout side_of(const kvt_scheme_info *scheme, uint32_t dim)
{
    const uint32_t padded = (dim + GROUP_CHANNELS - 1) / GROUP_CHANNELS * GROUP_CHANNELS;
    uint32_t blocks = 0;
    if (scheme->block == KVT_BLOCK_ROW)
        blocks = 1;
    else if (scheme->block)
        blocks = (padded + scheme->block - 1) / scheme->block;
    const uint32_t row_code_bytes = padded * scheme->bits / 8, row_scale_bytes = blocks * scheme->scale_bytes;
    return (kvt_side_layout){
        .scheme = scheme->scheme,
        .dim = dim,
        .padded_dim = padded,
        .row_bytes = row_code_bytes + row_scale_bytes,
        .code_bytes = KVT_TILE_TOKENS * row_code_bytes,
        .scale_bytes = KVT_TILE_TOKENS * row_scale_bytes,
    };
}

/* Gives a side its place after `offset` bytes of the page, and returns where it ends. */
static size_t place(kvt_side_layout *side, size_t offset)
{
    const size_t tiles = KVT_PAGE_TOKENS / KVT_TILE_TOKENS;
    side->codes_offset = offset;
    side->scales_offset = offset + tiles * side->code_bytes;
    return side->scales_offset + tiles * side->scale_bytes;
}

kvt_status kvt_page_shape_of(const kvt_spec *spec, kvt_page_shape *shape)
{
    const kvt_scheme_info *k = kvt_scheme_get(spec->k_scheme), *v = kvt_scheme_get(spec->v_scheme);
    if (!k || (!v && spec->v_dim))
        return KVT_ERR_SCHEME;
    if (spec->k_dim < 1 || spec->k_dim > KVT_MAX_DIM || spec->v_dim > KVT_MAX_DIM)
        return KVT_ERR_DIM;
    if (spec->kv_heads < 1 || spec->kv_heads > KVT_MAX_HEADS)
        return KVT_ERR_HEADS;
    memset(shape, 0, sizeof *shape);
    shape->k = side_of(k, spec->k_dim);
    shape->page_bytes = place(&shape->k, 0);
    if (spec->v_dim) {
        shape->v = side_of(v, spec->v_dim);
        shape->page_bytes = place(&shape->v, shape->page_bytes);
    }
    return KVT_OK;
}

kvt_status kvt_layout_init(kvt_layout *layout, const kvt_spec *spec)
{
    if (!layout || !spec)
        return KVT_ERR_NULL;
    if (spec->size != sizeof *spec)
        return KVT_ERR_STRUCT_SIZE;
    kvt_page_shape shape;
    const kvt_status status = kvt_page_shape_of(spec, &shape);
    if (status)
        return status;
    if (spec->tiers & ~kvt_tiers_usable())
        return KVT_ERR_TIER;
    *layout = (kvt_layout){
        .size = sizeof *layout,
        .spec = *spec,
        .k = shape.k,
        .v = shape.v,
        .page_bytes = shape.page_bytes,
        .token_bytes = shape.k.row_bytes + shape.v.row_bytes,
    };
    return KVT_OK;
}

static size_t pages_for(size_t tokens)
{
    return tokens / KVT_PAGE_TOKENS + (tokens % KVT_PAGE_TOKENS != 0);
}

kvt_status kvt_layout_bytes(const kvt_layout *layout, size_t tokens, size_t *bytes)
{
    if (!layout || !bytes)
        return KVT_ERR_NULL;
    if (layout->size != sizeof *layout)
        return KVT_ERR_STRUCT_SIZE;
    size_t result;
    if (__builtin_mul_overflow(pages_for(tokens), layout->page_bytes, &result) || __builtin_mul_overflow(result, layout->spec.kv_heads, &result))
        return KVT_ERR_OVERFLOW;
    *bytes = result;
    return KVT_OK;
}

kvt_status kvt_head_pages(const kvt_layout *layout, void *base, size_t tokens, uint32_t head, kvt_pages *pages)
{
    if (!layout || !base || !pages)
        return KVT_ERR_NULL;
    size_t bytes;
    const kvt_status status = kvt_layout_bytes(layout, tokens, &bytes);
    if (status)
        return status;
    if (head >= layout->spec.kv_heads)
        return KVT_ERR_RANGE;
    const size_t count = pages_for(tokens);
    *pages = (kvt_pages){ .base = (uint8_t *)base + head * count * layout->page_bytes, .stride = layout->page_bytes, .count = count };
    return KVT_OK;
}
