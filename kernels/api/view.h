/* SPDX-License-Identifier: MIT */
/* What the step and the cache share: views that were checked, where pages and open rows are, and what is wrong with arguments. */
#ifndef KVT_API_VIEW_H
#define KVT_API_VIEW_H

#include "kernels/api/transfer.h"

#include <kvtile/attend.h>
#include <kvtile/step.h>

#include <math.h>

/* Where a sentence about what is wrong goes; text is NULL where nobody wants to know. */
typedef struct kvt_problem {
    char *text;
    size_t bytes;
} kvt_problem;

#if defined(_WIN32)
#define KVT_PRINTF gnu_printf /* with __USE_MINGW_ANSI_STDIO */
#else
#define KVT_PRINTF printf
#endif
__attribute__((format(KVT_PRINTF, 3, 4))) kvt_status kvt_fail(const kvt_problem *to, kvt_status status, const char *format, ...);

typedef struct kvt_checked_view {
    kvt_view v; /* as this version has it */
    kvt_layout open;
    uint32_t kv_heads;
    kvt_side sides[2]; /* KVT_K, and the other, of n_sides */
    uint32_t n_sides;
    size_t row_bytes[2]; /* of open rows */
    size_t open_bytes;
    const kvt_tier_kernels *tier;
} kvt_checked_view;

kvt_status kvt_check_view(const kvt_problem *why, const kvt_view *given, kvt_checked_view *v);

/* Whether values are in pages of their own, and what a side takes of a page. */
bool kvt_is_apart(const kvt_layout *layout);

/* Whether centres come from pages before. */
bool kvt_has_order(const kvt_layout *layout, const kvt_checked_view *v);

/* Whether a scale or cap is one that attention takes: no product with it gets near what a float cannot hold. */
static inline bool kvt_is_moderate(float x)
{
    return fabsf(x) >= 0x1p-20f && fabsf(x) <= 0x1p20f;
}

/* Page p's layout, and where a head's page of a side is. */
static inline const kvt_layout *kvt_layout_at(const kvt_checked_view *v, size_t p)
{
    return p == 0 && v->v.first_layout ? v->v.first_layout : v->v.layout;
}

static inline const kvt_pool *kvt_pool_at(const kvt_checked_view *v, size_t p, kvt_side side)
{
    const bool is_value = side == KVT_V && kvt_is_apart(v->v.layout);
    if (p == 0 && v->v.first_layout)
        return is_value ? &v->v.first_value_pages : &v->v.first_pages;
    return is_value ? &v->v.value_pages : &v->v.pages;
}

static inline uint8_t *kvt_in_pool(const kvt_pool *pool, uint32_t layer, uint32_t block, uint32_t head)
{
    return (uint8_t *)pool->base + layer * pool->layer_stride + block * pool->block_stride + head * pool->head_stride;
}

static inline uint8_t *kvt_view_page(const kvt_checked_view *v, const kvt_sequence *s, uint32_t layer, size_t p, uint32_t head, kvt_side side)
{
    return kvt_in_pool(kvt_pool_at(v, p, side), layer, s->blocks[p], head);
}

/* Rows of side i of page p, while they are kept. */
static inline uint8_t *kvt_view_open(const kvt_checked_view *v, const kvt_sequence *s, uint32_t layer, size_t p, uint32_t head, uint32_t i)
{
    return kvt_in_pool(&v->v.open_pages, layer, s->open[p % 2], head) + (i ? v->row_bytes[0] * KVT_PAGE_TOKENS : 0);
}

/* n rows of side i of one number format to another. Strides are bytes. */
void kvt_convert_rows(const kvt_checked_view *v, uint32_t i, uint32_t n, const uint8_t *from, ptrdiff_t from_stride, kvt_dtype from_dtype,
                      uint8_t *to, ptrdiff_t to_stride, kvt_dtype to_dtype);

/* Tokens of page `page`, from `first` of it on. */
kvt_status kvt_write_page(const kvt_checked_view *v, const kvt_sequence *s, uint32_t layer, size_t page, uint32_t head, uint32_t i, size_t first,
                          size_t n, const uint8_t *rows, kvt_dtype dtype, ptrdiff_t stride);

/* kvt_attend_chunks. `is_written`: no page has to be copied, since tiles with a token that is seen have numbers in all others. */
kvt_status kvt_attend_tiles(const kvt_attention *a, bool is_written, size_t first_chunk, size_t n_chunks, void *partials, void *workspace);

#endif
