/* SPDX-License-Identifier: MIT */
/* Views that were checked, and the pages and open rows that they lead to. */
#include "kernels/api/view.h"

#include <stdarg.h>
#include <stdio.h>

kvt_status kvt_fail(const kvt_problem *to, kvt_status status, const char *format, ...)
{
    if (!to->text || !to->bytes)
        return status;
    va_list values;
    va_start(values, format);
    vsnprintf(to->text, to->bytes, format, values);
    va_end(values);
    return status;
}

/* ---- presets ---- */

const char *kvt_preset_name(kvt_preset preset)
{
    static const char *const names[] = { "balanced", "quality", "compact", "tight" };
    return (unsigned)preset <= KVT_PRESET_TIGHT ? names[preset] : NULL;
}

kvt_status kvt_preset_spec(kvt_preset preset, kvt_spec *spec, kvt_spec *first)
{
    /* Keys get a bit more than values, which cost a third of what keys do (docs/accuracy.md). */
    static const uint8_t keys[] = { KVT_SCHEME_kv5, KVT_SCHEME_kv6, KVT_SCHEME_kv4, KVT_SCHEME_kv4 };
    static const uint8_t values[] = { KVT_SCHEME_kv4, KVT_SCHEME_kv5, KVT_SCHEME_kv4, KVT_SCHEME_kv3 };
    if (!spec || !first)
        return KVT_ERR_NULL;
    kvt_spec whole;
    const kvt_status status = KVT_TAKE_STRUCT(kvt_spec, rope_options, &whole, spec);
    if (status)
        return status;
    if ((unsigned)preset > KVT_PRESET_TIGHT)
        return KVT_ERR_OPTIONS;
    whole.k_options = whole.v_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN };
    whole.rope_options = (kvt_side_options){ .rotation = KVT_ROTATION_NONE };
    whole.k_scheme = whole.v_scheme = KVT_SCHEME_kv8;
    whole.rope_scheme = KVT_SCHEME_bf16;
    *first = whole;
    /* A first token that is unlike all others would move the centre of its page away from them (docs/accuracy.md). */
    first->k_options.centring = first->v_options.centring = KVT_CENTRING_NONE;
    whole.k_scheme = (kvt_scheme)keys[preset];
    whole.v_scheme = (kvt_scheme)values[preset];
    *spec = whole;
    return KVT_OK;
}

/* ---- layouts and views ---- */

bool kvt_is_apart(const kvt_layout *layout)
{
    return layout->v.dim && layout->v.codes_offset == 0;
}

static size_t part_bytes(const kvt_layout *layout, kvt_side side)
{
    const kvt_side_layout *s = kvt_layout_side(layout, side);
    return kvt_is_apart(layout) ? kvt_whole_lines((size_t)KVT_PAGE_TOKENS * s->row_bytes + s->centre_bytes) : layout->page_bytes;
}

kvt_status kvt_layout_apart(const kvt_layout *layout, kvt_layout *apart)
{
    if (!layout || !apart)
        return KVT_ERR_NULL;
    if (!kvt_is_sealed(layout))
        return KVT_ERR_LAYOUT;
    if (!layout->v.dim)
        return KVT_ERR_SIDE;
    kvt_layout parts;
    memcpy(&parts, layout, sizeof parts);
    if (!kvt_is_apart(&parts)) {
        parts.v.scales_offset -= parts.v.codes_offset;
        parts.v.codes_offset = 0;
        parts.k.centre_offset = parts.k.centre_bytes ? (size_t)KVT_PAGE_TOKENS * parts.k.row_bytes : 0;
        parts.v.centre_offset = parts.v.centre_bytes ? (size_t)KVT_PAGE_TOKENS * parts.v.row_bytes : 0;
        parts.page_bytes = kvt_larger(part_bytes(&parts, KVT_K), part_bytes(&parts, KVT_V));
        parts.seal = kvt_layout_seal(&parts);
    }
    memcpy(apart, &parts, sizeof parts);
    return KVT_OK;
}

kvt_status kvt_layout_part_bytes(const kvt_layout *layout, kvt_side side, size_t *bytes)
{
    if (!layout || !bytes)
        return KVT_ERR_NULL;
    if (!kvt_is_sealed(layout))
        return KVT_ERR_LAYOUT;
    if ((unsigned)side > KVT_ROPE || !kvt_layout_side(layout, side)->dim)
        return KVT_ERR_SIDE;
    *bytes = part_bytes(layout, side);
    return KVT_OK;
}

/* The layout of pages that are made of rows to be attended to. */
static kvt_status layout_of_rows(const kvt_layout *layout, kvt_dtype dtype, kvt_layout *of_rows)
{
    const kvt_scheme scheme = dtype == KVT_F32 ? KVT_SCHEME_f32 : dtype == KVT_F16 ? KVT_SCHEME_f16 : KVT_SCHEME_bf16;
    kvt_spec spec = layout->spec;
    spec.k_scheme = spec.v_scheme = spec.rope_scheme = scheme;
    spec.k_options = spec.v_options = spec.rope_options = (kvt_side_options){ .rotation = KVT_ROTATION_NONE };
    return kvt_layout_init(of_rows, &spec);
}

static kvt_status check_pool(const kvt_problem *why, const kvt_checked_view *v, const char *name, const kvt_pool *pool, size_t bytes)
{
    if (pool->blocks && !pool->base)
        return kvt_fail(why, KVT_ERR_NULL, "%s.base is NULL, with %zu blocks", name, pool->blocks);
    if (pool->blocks > KVT_NO_BLOCK)
        return kvt_fail(why, KVT_ERR_RANGE, "%s.blocks is %zu: at most %u are possible", name, pool->blocks, KVT_NO_BLOCK);
    const bool is_far = pool->block_stride > PTRDIFF_MAX || pool->head_stride > PTRDIFF_MAX;
    if (is_far || !kvt_grid_is_apart(pool->blocks, v->kv_heads, bytes, (ptrdiff_t)pool->block_stride, (ptrdiff_t)pool->head_stride) ||
        (v->v.layers > 1 && pool->layer_stride < bytes))
        return kvt_fail(why, KVT_ERR_STRIDE,
                        "%s has a layer_stride of %zu, a block_stride of %zu and a head_stride of %zu: pages of %zu bytes would overlap", name,
                        pool->layer_stride, pool->block_stride, pool->head_stride, bytes);
    return KVT_OK;
}

bool kvt_has_order(const kvt_layout *layout, const kvt_checked_view *v)
{
    bool has = false;
    for (uint32_t i = 0; i < v->n_sides; i++) {
        const kvt_centring centring = kvt_options_of(layout, v->sides[i])->centring;
        has |= centring == KVT_CENTRING_PAGE || centring == KVT_CENTRING_SEQUENCE;
    }
    return has;
}

static kvt_status check_layouts(const kvt_problem *why, kvt_checked_view *v)
{
    const kvt_layout *layouts[] = { v->v.layout, v->v.first_layout };
    for (int n = 0; n < 2 && layouts[n]; n++) {
        const kvt_layout *layout = layouts[n], *all = layouts[0];
        if (!kvt_is_sealed(layout))
            return kvt_fail(why, KVT_ERR_LAYOUT, "view.%s was not made by kvt_layout_init, or was changed", n ? "first_layout" : "layout");
        for (kvt_side side = KVT_K; side <= KVT_ROPE; side++) {
            if (kvt_layout_side(layout, side)->dim != kvt_layout_side(all, side)->dim ||
                kvt_options_of(layout, side)->rotation != kvt_options_of(all, side)->rotation || layout->spec.kv_heads != all->spec.kv_heads ||
                kvt_is_apart(layout) != kvt_is_apart(all))
                return kvt_fail(why, KVT_ERR_SEGMENTS, "view.first_layout differs from view.layout in more than schemes and centres: side %d",
                                (int)side);
            if (!v->v.open_dtype && kvt_layout_side(layout, side)->dim && kvt_options_of(layout, side)->centring == KVT_CENTRING_OWN)
                return kvt_fail(why, KVT_ERR_OPTIONS, "view.open_dtype is 0, but side %d has centres of its own: they need open pages", (int)side);
        }
    }
    v->kv_heads = layouts[0]->spec.kv_heads;
    v->tier = kvt_serving_tier(layouts[0]->spec.tiers)->kernels;
    v->n_sides = layouts[0]->v.dim || layouts[0]->rope.dim ? 2 : 1;
    v->sides[1] = layouts[0]->v.dim ? KVT_V : KVT_ROPE;
    if (layouts[1] && (kvt_has_order(layouts[0], v) || kvt_has_order(layouts[1], v)))
        return kvt_fail(why, KVT_ERR_OPTIONS,
                        "view.first_layout is there, but centring is of the sequence or of the page before: it has to be own or none");
    return KVT_OK;
}

/* Rows of a head's open page, of both sides. */
static size_t open_bytes_of(const kvt_layout *layout, kvt_dtype dtype)
{
    return ((size_t)layout->k.dim + layout->v.dim + layout->rope.dim) * kvt_dtype_bytes(dtype) * KVT_PAGE_TOKENS;
}

kvt_status kvt_check_view(const kvt_problem *why, const kvt_view *given, kvt_checked_view *v)
{
    if (!given)
        return kvt_fail(why, KVT_ERR_NULL, "view is NULL");
    *v = (kvt_checked_view){ .sides = { KVT_K } };
    if (KVT_TAKE_STRUCT(kvt_view, layers, &v->v, given))
        return kvt_fail(why, KVT_ERR_STRUCT_SIZE, "view.size is %zu, not %zu", given->size, sizeof *given);
    if (!v->v.layout)
        return kvt_fail(why, KVT_ERR_NULL, "view.layout is NULL");
    if (v->v.open_dtype && !kvt_dtype_bytes(v->v.open_dtype))
        return kvt_fail(why, KVT_ERR_DTYPE, "view.open_dtype is %d, which is no number format of rows", (int)v->v.open_dtype);
    kvt_status status = check_layouts(why, v);
    const struct {
        const char *name;
        const kvt_pool *pool;
        const kvt_layout *layout;
        kvt_side side;
    } pools[] = {
        { "view.pages", &v->v.pages, v->v.layout, KVT_K },
        { "view.value_pages", &v->v.value_pages, kvt_is_apart(v->v.layout) ? v->v.layout : NULL, KVT_V },
        { "view.first_pages", &v->v.first_pages, v->v.first_layout, KVT_K },
        { "view.first_value_pages", &v->v.first_value_pages, kvt_is_apart(v->v.layout) ? v->v.first_layout : NULL, KVT_V },
    };
    for (int i = 0; i < 4 && !status; i++)
        if (pools[i].layout)
            status = check_pool(why, v, pools[i].name, pools[i].pool, part_bytes(pools[i].layout, pools[i].side));
    if (status || !v->v.open_dtype)
        return status;
    for (uint32_t i = 0; i < v->n_sides; i++)
        v->row_bytes[i] = kvt_layout_side(v->v.layout, v->sides[i])->dim * kvt_dtype_bytes(v->v.open_dtype);
    v->open_bytes = open_bytes_of(v->v.layout, v->v.open_dtype);
    status = layout_of_rows(v->v.layout, v->v.open_dtype, &v->open);
    return status ? status : check_pool(why, v, "view.open_pages", &v->v.open_pages, v->open_bytes);
}

kvt_status kvt_view_open_bytes(const kvt_layout *layout, kvt_dtype open_dtype, size_t *bytes)
{
    if (!layout || !bytes)
        return KVT_ERR_NULL;
    if (!kvt_is_sealed(layout))
        return KVT_ERR_LAYOUT;
    if (!kvt_dtype_bytes(open_dtype))
        return KVT_ERR_DTYPE;
    *bytes = open_bytes_of(layout, open_dtype);
    return KVT_OK;
}

kvt_status kvt_view_problem(const kvt_view *given, char *text, size_t bytes)
{
    kvt_checked_view v;
    const kvt_status status = kvt_check_view(&(kvt_problem){ text, bytes }, given, &v);
    if (text && bytes && !status)
        *text = '\0';
    return status;
}

/* ---- rows ---- */

/* n rows of side i of one number format to another. Strides are bytes. */
void kvt_convert_rows(const kvt_checked_view *v, uint32_t i, uint32_t n, const uint8_t *from, ptrdiff_t from_stride, kvt_dtype from_dtype,
                      uint8_t *to, ptrdiff_t to_stride, kvt_dtype to_dtype)
{
    const uint32_t dim = kvt_layout_side(v->v.layout, v->sides[i])->dim;
    for (uint32_t t = 0; t < n; t++, from += from_stride, to += to_stride) {
        float row[KVT_MAX_DIM];
        v->tier->rows->prepare(row, from, 0, from_dtype, 1, dim, KVT_ROTATION_NONE, NULL);
        v->tier->rows->restore(row, to, 0, to_dtype, 1, dim, KVT_ROTATION_NONE, NULL);
    }
}

/* Tokens of page `page`, from `first` of it on. Centres may need the page before, and know by the number of theirs what they are. */
kvt_status kvt_write_page(const kvt_checked_view *v, const kvt_sequence *s, uint32_t layer, size_t page, uint32_t head, uint32_t i, size_t first,
                          size_t n, const uint8_t *rows, kvt_dtype dtype, ptrdiff_t stride)
{
    const size_t before = kvt_has_order(v->v.layout, v) ? kvt_smaller(page, 2) : 0;
    void *table[3];
    for (size_t k = 0; k <= before; k++)
        table[k] = kvt_view_page(v, s, layer, page - kvt_smaller(before - k, 1), head, v->sides[i]);
    const kvt_pages pages = { .table = table, .count = before + 1 };
    return kvt_write(kvt_layout_at(v, page), v->sides[i], &pages, before * KVT_PAGE_TOKENS + first, n, rows, dtype, stride);
}
