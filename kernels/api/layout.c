/* SPDX-License-Identifier: MIT */
#include "kernels/api/api.h"

/* A plane of 1-bit codes is made of lines of 32 channels, and half a line cannot be had (docs/formats.md, section 2). */
static uint32_t row_code_bytes(uint32_t bits, uint32_t padded_dim)
{
    const bool has_bit_plane = bits == 5 || bits == 3;
    return has_bit_plane ? padded_dim * (bits - 1) / 8 + (padded_dim + 31) / 32 * 4 : padded_dim * bits / 8;
}

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

static kvt_status side_of(const kvt_scheme_info *scheme, uint32_t dim, const kvt_side_options *options, kvt_side_layout *side)
{
    const uint32_t padded = ceil_div(dim, KVT_GROUP_CHANNELS) * KVT_GROUP_CHANNELS;
    uint32_t block = scheme->block, scale_bytes = scheme->scale_bytes;
    if (scheme->is_fp8) {
        switch (options->fp8_block) {
        case 0:
            break;
        case 32:
        case 64:
        case 128:
            block = options->fp8_block;
            break;
        case KVT_BLOCK_TENSOR:
            block = 0;
            break;
        default:
            return KVT_ERR_OPTIONS;
        }
        if (options->fp8_scale != KVT_FP8_SCALE_F32 && options->fp8_scale != KVT_FP8_SCALE_E8M0)
            return KVT_ERR_OPTIONS;
        if (block == 0 ? !(options->fp8_tensor_scale >= 0x1p-64f && options->fp8_tensor_scale <= 0x1p64f) : options->fp8_tensor_scale != 0)
            return KVT_ERR_OPTIONS;
        scale_bytes = block == 0 ? 0 : options->fp8_scale == KVT_FP8_SCALE_E8M0 ? 1 : scale_bytes;
    } else if (options->fp8_block || options->fp8_scale || options->fp8_tensor_scale != 0) {
        return KVT_ERR_OPTIONS;
    }
    if (options->rotation != KVT_ROTATION_NONE && options->rotation != KVT_ROTATION_64 && options->rotation != KVT_ROTATION_128)
        return KVT_ERR_OPTIONS;
    if ((unsigned)options->centring > KVT_CENTRING_OWN || (unsigned)options->effort > KVT_EFFORT_BEST)
        return KVT_ERR_OPTIONS;

    const uint32_t blocks = block == 0 ? 0 : block == KVT_BLOCK_ROW ? 1 : ceil_div(padded, block);
    const uint32_t code_bytes = row_code_bytes(scheme->bits, padded);
    side->scheme = scheme->scheme;
    side->dim = dim;
    side->padded_dim = padded;
    side->blocks = blocks;
    side->row_bytes = code_bytes + blocks * scale_bytes;
    side->code_bytes = KVT_TILE_TOKENS * code_bytes;
    side->scale_bytes = KVT_TILE_TOKENS * blocks * scale_bytes;
    side->centre_bytes = options->centring ? padded + 2 * ceil_div(padded, KVT_CENTRE_BLOCK) : 0;
    return KVT_OK;
}

/* Gives a side its place after `offset` bytes of the page, and returns where it ends. */
static size_t place_side(kvt_side_layout *side, size_t offset)
{
    const size_t tiles = KVT_PAGE_TOKENS / KVT_TILE_TOKENS;
    side->codes_offset = offset;
    side->scales_offset = offset + tiles * side->code_bytes;
    return side->scales_offset + tiles * side->scale_bytes;
}

_Static_assert(sizeof(kvt_side_options) == 24 && sizeof(kvt_side_layout) == 8 * sizeof(uint32_t) + 3 * sizeof(size_t) &&
                   sizeof(kvt_spec) == sizeof(size_t) + 8 * sizeof(uint32_t) + 3 * sizeof(kvt_side_options) &&
                   sizeof(kvt_layout) == sizeof(kvt_spec) + 3 * sizeof(kvt_side_layout) + 3 * sizeof(size_t) + sizeof(uint64_t),
               "all bytes of a layout are sealed, and a compiler that copies it need not copy padding");

kvt_status kvt_layout_init(kvt_layout *layout, const kvt_spec *given)
{
    if (!layout || !given)
        return KVT_ERR_NULL;
    kvt_layout result;
    memset(&result, 0, sizeof result);
    result.size = sizeof result;
    const kvt_spec *spec = &result.spec;
    kvt_status status = KVT_TAKE_STRUCT(kvt_spec, rope_options, &result.spec, given);
    if (status)
        return status;
    const kvt_scheme_info *k = kvt_scheme_get(spec->k_scheme), *v = kvt_scheme_get(spec->v_scheme), *rope = kvt_scheme_get(spec->rope_scheme);
    if (!k || (!v && spec->v_dim) || (!rope && spec->rope_dim))
        return KVT_ERR_SCHEME;
    if (spec->k_dim < 1 || spec->k_dim > KVT_MAX_DIM || spec->v_dim > KVT_MAX_DIM || spec->rope_dim > KVT_MAX_DIM || (spec->v_dim && spec->rope_dim))
        return KVT_ERR_DIM;
    if (spec->kv_heads < 1 || spec->kv_heads > KVT_MAX_HEADS)
        return KVT_ERR_HEADS;
    status = side_of(k, spec->k_dim, &spec->k_options, &result.k);
    if (!status && spec->v_dim)
        status = side_of(v, spec->v_dim, &spec->v_options, &result.v);
    if (!status && spec->rope_dim)
        status = side_of(rope, spec->rope_dim, &spec->rope_options, &result.rope);
    if (status)
        return status;
    if (spec->tiers & ~kvt_tiers_usable())
        return KVT_ERR_TIER;
    kvt_side_layout *const sides[] = { &result.k, &result.v, &result.rope };
    for (int i = 0; i < 3; i++)
        if (sides[i]->dim)
            result.page_bytes = place_side(sides[i], result.page_bytes);
    size_t centre = result.page_bytes;
    for (int i = 0; i < 3; i++) {
        sides[i]->centre_offset = sides[i]->centre_bytes ? centre : 0;
        centre += sides[i]->centre_bytes;
        result.token_bytes += sides[i]->row_bytes;
    }
    result.page_bytes += (centre - result.page_bytes + 63) / 64 * 64;
    result.seal = kvt_layout_seal(&result);
    memcpy(layout, &result, sizeof result);
    return KVT_OK;
}

kvt_status kvt_layout_bytes(const kvt_layout *layout, size_t tokens, size_t *bytes)
{
    if (!layout || !bytes)
        return KVT_ERR_NULL;
    if (!kvt_is_sealed(layout))
        return KVT_ERR_LAYOUT;
    size_t result;
    if (__builtin_mul_overflow(kvt_pages_of(tokens), layout->page_bytes, &result) || __builtin_mul_overflow(result, layout->spec.kv_heads, &result))
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
    const size_t count = kvt_pages_of(tokens);
    *pages = (kvt_pages){ .base = (uint8_t *)base + head * count * layout->page_bytes, .stride = layout->page_bytes, .count = count };
    return KVT_OK;
}
