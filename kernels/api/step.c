/* SPDX-License-Identifier: MIT */
/* A layer's step: checks the views and sequences, splits the work among the workers, and hands pages to kvt_write and kvt_attend. */
#include "kernels/api/view.h"

#include <math.h>

enum {
    CHUNK_PAGES = KVT_CHUNK_TOKENS / KVT_PAGE_TOKENS,
    MOST_CHUNKS = 16,          /* that one call attends to */
    MOST_ROWS = KVT_MAX_GROUP, /* of queries in a unit of work; each has a partial of the chunk where that is split from others */
    SPLIT_ROWS = 32,
    LINE = 64
};

/* ---- sequences ---- */

/* Of pages p .. end-1, those that are in page p's pool. */
static size_t pool_end(const kvt_checked_view *v, size_t p, size_t end)
{
    return p == 0 && v->v.first_layout ? 1 : end;
}

/* Errors: NULL, RANGE. Pages first .. end-1, of tokens that are seen or written. */
static kvt_status check_blocks(const kvt_problem *why, const kvt_checked_view *v, const kvt_sequence *s, size_t index, size_t first, size_t end)
{
    if (end > first && !s->blocks)
        return kvt_fail(why, KVT_ERR_NULL, "sequence %zu: blocks is NULL", index);
    for (uint32_t i = 0; i < (kvt_is_apart(v->v.layout) ? 2 : 1); i++)
        for (size_t p = first; p < end;) {
            const kvt_pool *pool = kvt_pool_at(v, p, v->sides[i]);
            for (const size_t stop = pool_end(v, p, end); p < stop; p++)
                if (s->blocks[p] >= pool->blocks)
                    return kvt_fail(why, KVT_ERR_RANGE, "sequence %zu: page %zu is in block %u, but the pool has %zu", index, p, s->blocks[p],
                                    pool->blocks);
        }
    return KVT_OK;
}

static kvt_status check_mask(const kvt_problem *why, const kvt_sequence *s, size_t index, uint32_t token)
{
    const kvt_mask *m = &s->masks[token];
    for (size_t i = 0; m->runs && i < m->n_runs; i++)
        if (m->runs[i].first >= m->runs[i].end || (i > 0 && m->runs[i].first < m->runs[i - 1].end))
            return kvt_fail(why, KVT_ERR_RANGE, "sequence %zu, new token %u: run %zu, %zu to %zu, is empty or not behind the one before", index,
                            token, i, m->runs[i].first, m->runs[i].end);
    for (size_t i = 1; m->pages && i < m->n_pages; i++)
        if (m->pages[i] <= m->pages[i - 1])
            return kvt_fail(why, KVT_ERR_RANGE, "sequence %zu, new token %u: page %u is not behind page %u", index, token, m->pages[i],
                            m->pages[i - 1]);
    return KVT_OK;
}

/* The first page that a new token sees, or that writing needs. */
static size_t first_page_seen(const kvt_checked_view *v, const kvt_sequence *s, size_t window)
{
    const size_t first = window && s->stored >= window ? (s->stored - window + 1) / KVT_PAGE_TOKENS : 0, own = s->stored / KVT_PAGE_TOKENS;
    const size_t needed = kvt_has_order(v->v.layout, v) && own > 0 ? own - 1 : own;
    return kvt_smaller(first, needed);
}

static kvt_status check_sequence(const kvt_problem *why, const kvt_checked_view *v, const kvt_sequence *s, size_t index, size_t window, bool has_rows,
                                 bool needs_open)
{
    size_t total;
    if (s->fresh == 0)
        return KVT_OK;
    if (__builtin_add_overflow(s->stored, s->fresh, &total) || total > PTRDIFF_MAX)
        return kvt_fail(why, KVT_ERR_RANGE, "sequence %zu: %zu tokens are stored, and %u more are too many", index, s->stored, s->fresh);
    const size_t full = v->v.open_dtype ? total / KVT_PAGE_TOKENS : kvt_pages_of(total);
    if (s->n_blocks < full)
        return kvt_fail(why, KVT_ERR_RANGE, "sequence %zu has %zu tokens with those of this step: its table has %zu blocks, not %zu", index, total,
                        s->n_blocks, full);
    kvt_status status = check_blocks(why, v, s, index, first_page_seen(v, s, window), full);
    for (uint32_t i = 0; v->v.open_dtype && needs_open && !status && i < (total > KVT_PAGE_TOKENS ? 2 : 1); i++)
        if (s->open[i] >= v->v.open_pages.blocks)
            status = kvt_fail(why, KVT_ERR_RANGE, "sequence %zu: open[%u] is block %u, but the pool has %zu", index, i, s->open[i],
                              v->v.open_pages.blocks);
    if (!status && v->v.open_dtype && !has_rows && s->stored / KVT_PAGE_TOKENS + 2 < kvt_pages_of(total))
        status =
            kvt_fail(why, KVT_ERR_NULL, "k and v are NULL, but sequence %zu has more new tokens than are kept as rows: its newest two pages", index);
    for (uint32_t i = 0; s->masks && i < s->fresh && !status; i++)
        status = check_mask(why, s, index, i);
    return status;
}

/* ---- a checked step ---- */

typedef struct plan {
    kvt_step s; /* as this version has it */
    kvt_checked_view v;
    uint32_t group, worker, workers;
    uint32_t v_dim; /* padded */
    kvt_side values;
    const kvt_tier_kernels *tier;
    size_t fresh;       /* tokens of all sequences */
    size_t tiles;       /* of all heads' queries */
    uint32_t tile_rows; /* of queries, of one unit */
    bool may_split;
    size_t cost;
    kvt_attend_sizes sizes; /* of MOST_ROWS */
    size_t row_bytes;       /* of a partial */
    /* in the workspace */
    uint8_t *saved;  /* [sequence that needs it][kv head][open page] */
    uint8_t *splits; /* [worker - 1][split_bytes] */
    size_t split_bytes, part_bytes;
    uint64_t *tag; /* of a step that saves rows */
    uint8_t *part; /* the worker's: a page, a page's rows, bits, a partial, what was merged, and kvt_attend's */
} plan;

/* A step that overwrites the older of two open pages while queries still need it keeps it in the workspace: of so many sequences at most. */
static bool is_saved(const kvt_checked_view *v, const kvt_sequence *s)
{
    return v->v.open_dtype && s->fresh && s->stored % KVT_PAGE_TOKENS && s->stored / KVT_PAGE_TOKENS + 2 < kvt_pages_of(s->stored + s->fresh);
}

static uint32_t tile_tokens(const plan *p, uint32_t rows)
{
    const uint32_t n = rows / p->group;
    return n < 1 ? 1 : n > KVT_PAGE_TOKENS ? KVT_PAGE_TOKENS : n;
}

static kvt_attention question_of(const plan *p, const kvt_segment *segments, uint32_t tokens)
{
    return (kvt_attention){ .size = sizeof(kvt_attention),
                            .segments = segments,
                            .n_segments = 1,
                            .end = 1,
                            .window = p->s.window,
                            .group = p->group,
                            .query_tokens = tokens,
                            .query_dtype = p->s.dtype,
                            .out_dtype = KVT_F32,
                            .query_token_stride = p->s.q_token_stride,
                            .query_head_stride = p->s.q_head_stride,
                            .scale = p->s.scale,
                            .soft_cap = p->s.soft_cap };
}

/* Sizes of the workspace's parts. */
static kvt_status measure_parts(plan *p)
{
    uint8_t nowhere;
    const kvt_layout *layouts[] = { p->v.v.layout, p->v.v.open_dtype ? &p->v.open : p->v.v.layout, p->v.v.first_layout };
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts && layouts[i]; i++) {
        const kvt_segment segment = { .layout = layouts[i], .pages = { .base = &nowhere, .stride = SIZE_MAX, .count = 1 } };
        kvt_attention asked = question_of(p, &segment, tile_tokens(p, MOST_ROWS));
        asked.value_pages = kvt_is_apart(layouts[i]) ? &segment.pages : NULL;
        const size_t workspace_bytes = p->sizes.workspace_bytes;
        const kvt_status status = kvt_attend_plan_sizes(&asked, &p->sizes);
        if (status)
            return status;
        p->sizes.workspace_bytes = kvt_larger(p->sizes.workspace_bytes, workspace_bytes);
    }
    const uint32_t rows = tile_tokens(p, MOST_ROWS) * p->group;
    p->row_bytes = p->sizes.partial_bytes / rows;
    p->part_bytes = p->v.open.page_bytes + kvt_whole_lines(p->v.open_bytes) + KVT_PAGE_TOKENS * CHUNK_PAGES * sizeof(uint64_t) +
                    2 * kvt_whole_lines(p->sizes.partial_bytes) + kvt_whole_lines(p->sizes.workspace_bytes);
    return KVT_OK;
}

/* Bytes of the parts together. Errors: OVERFLOW. */
static kvt_status place_parts(plan *p, size_t saved, size_t tokens, size_t *bytes)
{
    size_t splits, parts, saves;
    const size_t units = tokens / KVT_CHUNK_TOKENS + 2;
    if (__builtin_mul_overflow(units, tile_tokens(p, SPLIT_ROWS) * p->group * p->row_bytes, &p->split_bytes) ||
        __builtin_mul_overflow(p->split_bytes, p->workers - 1, &splits) || __builtin_mul_overflow(p->part_bytes, p->workers, &parts) ||
        __builtin_mul_overflow(kvt_whole_lines(p->v.open_bytes) * p->v.kv_heads, saved, &saves) || __builtin_add_overflow(splits, parts, bytes) ||
        __builtin_add_overflow(*bytes, saves, bytes) || __builtin_add_overflow(*bytes, LINE, bytes))
        return KVT_ERR_OVERFLOW;
    uint8_t *at = p->s.workspace;
    p->saved = at;
    p->splits = at ? at + saves : NULL;
    p->part = at ? at + saves + splits + p->worker * p->part_bytes : NULL;
    return KVT_OK;
}

kvt_status kvt_step_workspace(const kvt_view *given, const kvt_step_limits *limits, size_t *bytes)
{
    if (!limits || !bytes)
        return KVT_ERR_NULL;
    plan p = { .s = { .heads = limits->heads, .dtype = KVT_F32, .scale = 1, .q_token_stride = 1, .q_head_stride = 1 }, .workers = limits->workers };
    kvt_status status = kvt_check_view(&(kvt_problem){ NULL, 0 }, given, &p.v);
    if (status)
        return status;
    if (limits->workers < 1)
        return KVT_ERR_RANGE;
    p.group = limits->heads / p.v.kv_heads;
    if (limits->heads % p.v.kv_heads || p.group < 1 || p.group > KVT_MAX_GROUP)
        return KVT_ERR_GROUP;
    status = measure_parts(&p);
    if (!status)
        status = place_parts(&p, p.v.v.open_dtype ? kvt_smaller(limits->sequences, limits->fresh / (KVT_PAGE_TOKENS + 1)) : 0, limits->tokens, bytes);
    return status;
}

enum { APPENDS = 1, ATTENDS = 2 };

static kvt_status check_numbers(const kvt_problem *why, const plan *p)
{
    const kvt_step *s = &p->s;
    if (!kvt_dtype_bytes(s->dtype))
        return kvt_fail(why, KVT_ERR_DTYPE, "dtype is %d, which is no number format of rows", (int)s->dtype);
    if (s->layer >= p->v.v.layers)
        return kvt_fail(why, KVT_ERR_RANGE, "layer is %u, but the view has %u", s->layer, p->v.v.layers);
    if (s->heads % p->v.kv_heads || p->group < 1 || p->group > KVT_MAX_GROUP)
        return kvt_fail(why, KVT_ERR_GROUP, "heads is %u, which is not 1 to %d for each of %u KV heads", s->heads, KVT_MAX_GROUP, p->v.kv_heads);
    if (!kvt_is_moderate(s->scale))
        return kvt_fail(why, KVT_ERR_NUMBER, "scale is %g: its magnitude has to be 2^-20 to 2^20", (double)s->scale);
    if (s->soft_cap != 0 && (!kvt_is_moderate(s->soft_cap) || s->soft_cap < 0))
        return kvt_fail(why, KVT_ERR_NUMBER, "soft_cap is %g: it has to be 0 or 2^-20 to 2^20", (double)s->soft_cap);
    if (s->slopes && s->soft_cap != 0)
        return kvt_fail(why, KVT_ERR_OPTIONS, "slopes are there, and a soft_cap of %g: they do not go together", (double)s->soft_cap);
    if (s->n_sequences && !s->sequences)
        return kvt_fail(why, KVT_ERR_NULL, "sequences is NULL");
    return KVT_OK;
}

static kvt_status check_rows(const kvt_problem *why, const plan *p, unsigned what)
{
    const kvt_step *s = &p->s;
    const void *const rows[] = { s->k, s->v };
    const ptrdiff_t strides[] = { s->k_token_stride, s->v_token_stride };
    for (uint32_t i = 0; what & APPENDS && i < p->v.n_sides; i++) {
        const size_t bytes = kvt_layout_side(p->v.v.layout, p->v.sides[i])->dim * kvt_dtype_bytes(s->dtype);
        if (!rows[i])
            return kvt_fail(why, KVT_ERR_NULL, "%s is NULL", i ? "v" : "k");
        if (!kvt_rows_are_apart(p->fresh, bytes, strides[i]))
            return kvt_fail(why, KVT_ERR_STRIDE, "%s_token_stride is %td, and a row %zu bytes", i ? "v" : "k", strides[i], bytes);
    }
    if (!(what & ATTENDS))
        return KVT_OK;
    if (!s->q || !s->out)
        return kvt_fail(why, KVT_ERR_NULL, "%s is NULL", s->q ? "out" : "q");
    if (!kvt_dtype_bytes(s->out_dtype))
        return kvt_fail(why, KVT_ERR_DTYPE, "out_dtype is %d, which is no number format of rows", (int)s->out_dtype);
    if ((p->fresh > 1 && s->q_token_stride == 0) || (p->group > 1 && s->q_head_stride == 0))
        return kvt_fail(why, KVT_ERR_STRIDE, "q_token_stride is %td and q_head_stride %td: not 0", s->q_token_stride, s->q_head_stride);
    const size_t bytes = kvt_layout_side(p->v.v.layout, p->values)->dim * kvt_dtype_bytes(s->out_dtype);
    if (!kvt_grid_is_apart(p->fresh, s->heads, bytes, s->out_token_stride, s->out_head_stride))
        return kvt_fail(why, KVT_ERR_STRIDE, "out_token_stride is %td and out_head_stride %td: results of %zu bytes would overlap",
                        s->out_token_stride, s->out_head_stride, bytes);
    return KVT_OK;
}

/* Strides of 0 are those of rows that follow each other. */
static void default_strides(ptrdiff_t *token, ptrdiff_t *head, uint32_t heads, size_t row_bytes)
{
    if (*token || *head)
        return;
    *head = (ptrdiff_t)row_bytes;
    *token = (ptrdiff_t)(heads * row_bytes);
}

static void complete_strides(plan *p)
{
    kvt_step *s = &p->s;
    const kvt_layout *layout = p->v.v.layout;
    const size_t number = kvt_dtype_bytes(s->dtype);
    default_strides(&s->q_token_stride, &s->q_head_stride, s->heads, (layout->k.dim + layout->rope.dim) * number);
    default_strides(&s->k_token_stride, &s->k_head_stride, p->v.kv_heads, layout->k.dim * number);
    default_strides(&s->v_token_stride, &s->v_head_stride, p->v.kv_heads, (layout->v.dim + layout->rope.dim) * number);
    default_strides(&s->out_token_stride, &s->out_head_stride, s->heads, kvt_layout_side(layout, p->values)->dim * kvt_dtype_bytes(s->out_dtype));
}

/* What a step whose sequences need saved rows is known by: the view's layer and the sequences that they were saved of. It is never 0. */
static uint64_t saved_tag(const plan *p)
{
    uint64_t tag = (uintptr_t)p->s.view ^ p->s.layer;
    for (uint32_t i = 0; i < p->s.n_sequences; i++) {
        const kvt_sequence *s = &p->s.sequences[i];
        const uint64_t words[] = { s->stored, s->fresh, s->open[0], s->open[1] };
        for (int w = 0; w < 4; w++)
            tag = kvt_seal_rotated((tag ^ words[w]) * 0x9e3779b97f4a7c15, 29);
    }
    return tag | 1;
}

/* Of a step that saves rows: in the workspace's last line. */
static uint64_t *tag_of(const plan *p, size_t bytes)
{
    return (uint64_t *)(void *)((uint8_t *)p->s.workspace + bytes - LINE);
}

/* All workers find the same. */
static kvt_status check_step(const kvt_problem *why, const kvt_step *given, uint32_t worker, uint32_t workers, unsigned what, plan *p)
{
    if (!given)
        return kvt_fail(why, KVT_ERR_NULL, "step is NULL");
    *p = (plan){ .worker = worker, .workers = workers };
    if (KVT_TAKE_STRUCT(kvt_step, workspace_bytes, &p->s, given))
        return kvt_fail(why, KVT_ERR_STRUCT_SIZE, "step.size is %zu, not %zu", given->size, sizeof *given);
    kvt_status status = kvt_check_view(why, p->s.view, &p->v);
    if (status)
        return status;
    if (worker >= workers)
        return kvt_fail(why, KVT_ERR_RANGE, "worker is %u of %u", worker, workers);
    const kvt_step *s = &p->s;
    p->group = s->heads / p->v.kv_heads;
    p->values = p->v.v.layout->v.dim ? KVT_V : KVT_K;
    p->v_dim = kvt_layout_side(p->v.v.layout, p->values)->padded_dim;
    p->tier = kvt_serving_tier(p->v.v.layout->spec.tiers)->kernels;
    complete_strides(p);
    status = check_numbers(why, p);
    size_t saved = 0, longest = 0;
    for (uint32_t i = 0; i < s->n_sequences && !status; i++) {
        status = check_sequence(why, &p->v, &s->sequences[i], i, s->window, s->k && (s->v || p->v.n_sides == 1), true);
        p->fresh += s->sequences[i].fresh;
        saved += is_saved(&p->v, &s->sequences[i]);
        longest = kvt_larger(longest, s->sequences[i].stored + s->sequences[i].fresh);
    }
    if (!status)
        status = check_rows(why, p, what);
    if (!status)
        status = measure_parts(p);
    size_t bytes;
    if (!status)
        status = place_parts(p, saved, longest, &bytes);
    if (status)
        return status;
    if (!s->workspace || s->workspace_bytes < bytes || (uintptr_t)s->workspace % LINE)
        return kvt_fail(why, s->workspace ? KVT_ERR_RANGE : KVT_ERR_NULL, "workspace is %zu bytes at %p: %zu are needed, aligned to %d",
                        s->workspace_bytes, s->workspace, bytes, LINE);
    p->tag = saved ? tag_of(p, bytes) : NULL;
    if (p->tag && what == ATTENDS && *p->tag != saved_tag(p))
        return kvt_fail(
            why, KVT_ERR_RANGE,
            "a sequence begins within a page and has more than 64 new tokens, but the page's older rows are not in the workspace: the step of "
            "the layer that stored them has to be the last in it, or the step to begin at a multiple of 64 tokens");
    return KVT_OK;
}

static const kvt_problem nobody = { NULL, 0 };

kvt_status kvt_step_problem(const kvt_step *step, char *text, size_t bytes)
{
    plan p;
    const unsigned what = !step ? 0 : (step->k || step->v ? APPENDS : 0) | (step->q || step->out ? ATTENDS : 0);
    const kvt_problem why = { text, bytes };
    const kvt_status status = check_step(&why, step, 0, 1, what, &p);
    if (text && bytes && !status)
        *text = '\0';
    return status == KVT_ERR_OVERFLOW ? kvt_fail(&why, status, "%s", kvt_status_text(status)) : status;
}

/* ---- append ---- */

/* n rows of the step, of side i, to the format of open rows, one after the other. */
static void take_rows(const plan *p, uint32_t i, const uint8_t *from, ptrdiff_t stride, uint32_t n, uint8_t *to)
{
    const size_t bytes = p->v.row_bytes[i];
    if (p->s.dtype == p->v.v.open_dtype)
        for (uint32_t t = 0; t < n; t++, from += stride, to += bytes)
            memcpy(to, from, bytes);
    else
        kvt_convert_rows(&p->v, i, n, from, stride, p->s.dtype, to, (ptrdiff_t)bytes, p->v.v.open_dtype);
}

/* Where new token `token` (of the step) of side i is, and the distance to the next. */
static const uint8_t *new_row(const plan *p, uint32_t i, size_t token, uint32_t head, ptrdiff_t *stride)
{
    const kvt_step *s = &p->s;
    *stride = i ? s->v_token_stride : s->k_token_stride;
    return (const uint8_t *)(i ? s->v : s->k) + (ptrdiff_t)token * *stride + (ptrdiff_t)head * (i ? s->v_head_stride : s->k_head_stride);
}

/* What is kept of the page of a sequence's first new token, where its open page is used anew in the same step. */
static uint8_t *saved_page(const plan *p, size_t saved, uint32_t head, uint32_t i)
{
    return p->saved + (saved * p->v.kv_heads + head) * kvt_whole_lines(p->v.open_bytes) + (i ? p->v.row_bytes[0] * KVT_PAGE_TOKENS : 0);
}

/* `token`: of the step, the sequence's first; `saved`: its number among those whose page is. */
static kvt_status append_side(const plan *p, const kvt_sequence *s, size_t token, size_t saved, uint32_t head, uint32_t i)
{
    const kvt_checked_view *v = &p->v;
    const size_t total = s->stored + s->fresh, last = (total - 1) / KVT_PAGE_TOKENS;
    kvt_status status = KVT_OK;
    for (size_t page = s->stored / KVT_PAGE_TOKENS; page <= last && !status; page++) {
        const size_t begin = page * KVT_PAGE_TOKENS, first = kvt_larger(begin, s->stored), end = kvt_smaller(begin + KVT_PAGE_TOKENS, total);
        ptrdiff_t stride;
        const uint8_t *rows = new_row(p, i, token + (first - s->stored), head, &stride);
        if (!v->v.open_dtype) {
            status = kvt_write_page(v, s, p->s.layer, page, head, i, first - begin, end - first, rows, p->s.dtype, stride);
            continue;
        }
        uint8_t *kept = NULL;
        if (page + 1 >= last) {
            kept = kvt_view_open(v, s, p->s.layer, page, head, i);
        } else if (first > begin) {
            kept = saved_page(p, saved, head, i);
            memcpy(kept, kvt_view_open(v, s, p->s.layer, page, head, i), (first - begin) * v->row_bytes[i]);
        } else if (p->s.dtype != v->v.open_dtype && p->part) {
            kept = p->part;
        }
        kvt_dtype dtype = p->s.dtype;
        if (kept) {
            take_rows(p, i, rows, stride, (uint32_t)(end - first), kept + (first - begin) * v->row_bytes[i]);
            rows = kept;
            stride = (ptrdiff_t)v->row_bytes[i];
            dtype = v->v.open_dtype;
        }
        if (end == begin + KVT_PAGE_TOKENS)
            status = kvt_write_page(v, s, p->s.layer, page, head, i, 0, KVT_PAGE_TOKENS, rows, dtype, stride);
    }
    return status;
}

kvt_status kvt_step_append(const kvt_step *step, uint32_t worker, uint32_t workers)
{
    plan p;
    kvt_status status = check_step(&nobody, step, worker, workers, APPENDS, &p);
    if (status || !p.fresh)
        return status;
    if (p.tag && worker == 0)
        *p.tag = saved_tag(&p);
    /* Heads of sequences, by their new tokens. */
    const size_t all = p.fresh * p.v.kv_heads;
    size_t token = 0, saved = 0;
    for (uint32_t n = 0; n < p.s.n_sequences; n++) {
        const kvt_sequence *s = &p.s.sequences[n];
        for (uint32_t head = 0; s->fresh && head < p.v.kv_heads; head++) {
            const size_t at = token * p.v.kv_heads + (size_t)head * s->fresh;
            for (uint32_t i = 0; i < p.v.n_sides && !status && at * workers / all == worker; i++)
                status = append_side(&p, s, token, saved, head, i);
        }
        token += s->fresh;
        saved += is_saved(&p.v, s);
    }
    return status;
}

/* ---- rows of blocks ---- */

/* What the two functions share. Errors: as theirs. */
static kvt_status check_view_rows(const kvt_view_rows *given, uint32_t worker, uint32_t workers, bool writes, kvt_view_rows *rows, plan *p,
                                  kvt_sequence *s)
{
    if (!given)
        return KVT_ERR_NULL;
    *p = (plan){ .worker = worker, .workers = workers };
    kvt_status status = KVT_TAKE_STRUCT(kvt_view_rows, head_stride, rows, given);
    if (!status)
        status = kvt_check_view(&nobody, rows->view, &p->v);
    if (status)
        return status;
    if (!rows->sequence || !rows->rows)
        return KVT_ERR_NULL;
    if (!kvt_dtype_bytes(rows->dtype))
        return KVT_ERR_DTYPE;
    size_t end;
    if (worker >= workers || rows->first_layer > p->v.v.layers || rows->layers > p->v.v.layers - rows->first_layer ||
        (writes && p->v.v.open_dtype && rows->first_token % KVT_PAGE_TOKENS) || rows->n_tokens > UINT32_MAX ||
        __builtin_add_overflow(rows->first_token, rows->n_tokens, &end) ||
        (!writes && (end > rows->sequence->stored || rows->sequence->stored - rows->first_token > UINT32_MAX)))
        return KVT_ERR_RANGE;
    for (uint32_t i = 0; i < p->v.n_sides; i++) {
        const size_t bytes = kvt_layout_side(p->v.v.layout, p->v.sides[i])->dim * kvt_dtype_bytes(rows->dtype);
        if (!kvt_grid_is_apart(rows->n_tokens, p->v.kv_heads, bytes, rows->token_stride, rows->head_stride))
            return KVT_ERR_STRIDE;
    }
    *s = *rows->sequence;
    s->masks = NULL;
    s->stored = rows->first_token;
    s->fresh = (uint32_t)(writes ? rows->n_tokens : rows->sequence->stored - rows->first_token);
    p->s = (kvt_step){ .dtype = rows->dtype, .k_token_stride = rows->token_stride, .v_token_stride = rows->token_stride };
    p->s.k_head_stride = p->s.v_head_stride = rows->head_stride;
    p->tier = kvt_serving_tier(p->v.v.layout->spec.tiers)->kernels;
    return rows->n_tokens ? check_sequence(&nobody, &p->v, s, 0, 1, true, writes || end > rows->sequence->stored / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS)
                          : KVT_OK;
}

/* The rows of side i of layer `layer`, of those that are asked for. */
static uint8_t *rows_of_layer(const kvt_view_rows *rows, uint32_t i, uint32_t layer)
{
    return (uint8_t *)rows->rows + (ptrdiff_t)i * rows->side_stride + (ptrdiff_t)layer * rows->layer_stride;
}

kvt_status kvt_view_write(const kvt_view_rows *given, uint32_t worker, uint32_t workers)
{
    kvt_view_rows rows;
    plan p;
    kvt_sequence s;
    kvt_status status = check_view_rows(given, worker, workers, true, &rows, &p, &s);
    if (status)
        return status;
    const size_t all = (size_t)rows.layers * p.v.kv_heads;
    for (size_t unit = 0; !status && rows.n_tokens && unit < all; unit++) {
        const uint32_t layer = (uint32_t)(unit / p.v.kv_heads);
        p.s.layer = rows.first_layer + layer;
        p.s.k = rows_of_layer(&rows, 0, layer);
        p.s.v = rows_of_layer(&rows, 1, layer);
        for (uint32_t i = 0; i < p.v.n_sides && !status && unit * workers / all == worker; i++)
            status = append_side(&p, &s, 0, 0, (uint32_t)(unit % p.v.kv_heads), i);
    }
    return status;
}

/* Tokens of one page, of one head and side. */
static kvt_status read_page(const plan *p, const kvt_view_rows *rows, uint32_t head, uint32_t i, size_t first, size_t n, uint8_t *to)
{
    const kvt_checked_view *v = &p->v;
    const kvt_sequence *s = rows->sequence;
    const size_t page = first / KVT_PAGE_TOKENS, skipped = first % KVT_PAGE_TOKENS;
    if (!v->v.open_dtype || page < s->stored / KVT_PAGE_TOKENS) {
        void *at = kvt_view_page(v, s, p->s.layer, page, head, v->sides[i]);
        return kvt_read(kvt_layout_at(v, page), v->sides[i], &(kvt_pages){ .table = &at, .count = 1 }, skipped, n, to, rows->dtype,
                        rows->token_stride);
    }
    kvt_convert_rows(&p->v, i, (uint32_t)n, kvt_view_open(v, s, p->s.layer, page, head, i) + skipped * v->row_bytes[i], (ptrdiff_t)v->row_bytes[i],
                     v->v.open_dtype, to, rows->token_stride, rows->dtype);
    return KVT_OK;
}

kvt_status kvt_view_read(const kvt_view_rows *given, uint32_t worker, uint32_t workers)
{
    kvt_view_rows rows;
    plan p;
    kvt_sequence s;
    kvt_status status = check_view_rows(given, worker, workers, false, &rows, &p, &s);
    if (status)
        return status;
    const size_t all = (size_t)rows.layers * p.v.kv_heads * p.v.n_sides;
    for (size_t unit = 0; unit < all && !status; unit++) {
        const uint32_t i = (uint32_t)(unit % p.v.n_sides), head = (uint32_t)(unit / p.v.n_sides % p.v.kv_heads),
                       layer = (uint32_t)(unit / p.v.n_sides / p.v.kv_heads);
        p.s.layer = rows.first_layer + layer;
        uint8_t *to = rows_of_layer(&rows, i, layer) + (ptrdiff_t)head * rows.head_stride;
        for (size_t done = 0, n; done < rows.n_tokens && !status && unit * workers / all == worker; done += n) {
            const size_t token = rows.first_token + done;
            n = kvt_smaller(rows.n_tokens - done, KVT_PAGE_TOKENS - token % KVT_PAGE_TOKENS);
            status = read_page(&p, &rows, head, i, token, n, to + (ptrdiff_t)done * rows.token_stride);
        }
    }
    return status;
}

/* ---- attend ---- */

/* Query tokens first .. end-1 of a sequence's new ones, all in one page, and the stored tokens that they see. A unit of work is a chunk of those, or,
 * behind the last, their own page as rows. */
typedef struct tile {
    const kvt_sequence *s;
    size_t token; /* of the step: the sequence's first */
    size_t saved;
    uint32_t first, end;
    size_t begin, sealed; /* tokens */
    size_t first_chunk, units;
    size_t cost; /* of one head */
} tile;

enum { UNIT_COST = 64 }; /* what any unit costs, in tokens */

static tile tile_at(const plan *p, const kvt_sequence *s, size_t token, size_t saved, uint32_t first)
{
    const size_t position = s->stored + first, page = position / KVT_PAGE_TOKENS;
    const size_t room = kvt_smaller((page + 1) * KVT_PAGE_TOKENS - position, tile_tokens(p, p->tile_rows));
    tile t = { .s = s, .token = token, .saved = saved, .first = first, .end = first + (uint32_t)kvt_smaller(room, s->fresh - first) };
    t.begin = p->s.window && position >= p->s.window ? (position - p->s.window + 1) / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS : 0;
    t.sealed = p->v.v.open_dtype ? page * KVT_PAGE_TOKENS : s->stored + t.end;
    t.begin = kvt_smaller(t.begin, t.sealed);
    t.first_chunk = t.begin / KVT_CHUNK_TOKENS;
    t.units = (t.begin < t.sealed ? (t.sealed - 1) / KVT_CHUNK_TOKENS + 1 - t.first_chunk : 0) + (p->v.v.open_dtype ? 1 : 0);
    t.cost = t.sealed - t.begin + t.units * UNIT_COST;
    return t;
}

/* What comes before a unit of a tile. */
static size_t cost_before(const tile *t, size_t unit)
{
    return unit * UNIT_COST + (unit ? kvt_smaller((t->first_chunk + unit) * KVT_CHUNK_TOKENS, t->sealed) - t->begin : 0);
}

/* Calls of all tiles, in order; counts them, and what they cost. */
typedef kvt_status tile_fn(plan *p, const tile *t, size_t cost_so_far);

static kvt_status each_tile(plan *p, tile_fn *call)
{
    size_t token = 0, saved = 0, cost = 0, tiles = 0;
    kvt_status status = KVT_OK;
    for (uint32_t n = 0; n < p->s.n_sequences; n++) {
        const kvt_sequence *s = &p->s.sequences[n];
        for (uint32_t first = 0; first < s->fresh && !status;) {
            const tile t = tile_at(p, s, token, saved, first);
            status = call ? call(p, &t, cost) : KVT_OK;
            tiles++;
            cost += t.cost * p->v.kv_heads;
            first = t.end;
        }
        token += s->fresh;
        saved += is_saved(&p->v, s);
    }
    p->cost = cost;
    p->tiles = tiles;
    return status;
}

/* Large units are the faster ones, and small ones can be divided among more workers. Neither changes a bit. */
static void choose_tiles(plan *p)
{
    size_t most = 0;
    for (uint32_t n = 0; n < p->s.n_sequences; n++)
        most = kvt_larger(most, p->s.sequences[n].fresh);
    p->tile_rows = MOST_ROWS;
    (void)each_tile(p, NULL);
    p->may_split = p->workers > 1 && (most * p->group <= SPLIT_ROWS || p->tiles * p->v.kv_heads < 4 * (size_t)p->workers);
    if (p->may_split) {
        p->tile_rows = SPLIT_ROWS;
        (void)each_tile(p, NULL);
    }
}

/* The worker of a unit that comes after so much: shares are equal, but for the last. */
static uint32_t owner(const plan *p, size_t cost)
{
    const size_t share = p->cost / p->workers + (p->cost % p->workers != 0);
    return (uint32_t)(cost / share);
}

/* Bits from b on, 64 of them, of n. */
static uint64_t bits_from(const uint64_t *bits, size_t b, size_t n)
{
    const size_t words = (n + 63) / 64, w = b / 64, shift = b % 64;
    const uint64_t low = w < words ? bits[w] >> shift : 0;
    return shift && w + 1 < words ? low | bits[w + 1] << (64 - shift) : low;
}

/* Of the tokens of page `page`, those that new token i may see as far as its mask knows. */
static uint64_t word_of(const kvt_sequence *s, uint32_t i, size_t page)
{
    const kvt_mask *m = &s->masks[i];
    const size_t begin = page * KVT_PAGE_TOKENS, end = begin + KVT_PAGE_TOKENS;
    uint64_t word = m->runs ? 0 : UINT64_MAX;
    for (size_t r = 0; m->runs && r < m->n_runs && m->runs[r].first < end; r++)
        if (m->runs[r].end > begin) {
            const size_t first = kvt_larger(m->runs[r].first, begin), n = kvt_smaller(m->runs[r].end, end) - first;
            word |= UINT64_MAX >> (KVT_PAGE_TOKENS - n) << (first - begin);
        }
    if (m->pages && page != (s->stored + i) / KVT_PAGE_TOKENS) {
        size_t low = 0, high = m->n_pages;
        while (low < high) {
            const size_t middle = (low + high) / 2;
            if (m->pages[middle] < page)
                low = middle + 1;
            else
                high = middle;
        }
        if (low == m->n_pages || m->pages[low] != page)
            word = 0;
    }
    if (m->bits && end > s->stored)
        word &= begin >= s->stored ? bits_from(m->bits, begin - s->stored, s->fresh)
                                   : m->bits[0] << (s->stored - begin) | ((UINT64_C(1) << (s->stored - begin)) - 1);
    return word;
}

static uint64_t *mask_bits_of(const plan *p)
{
    return (uint64_t *)(void *)(p->part + p->v.open.page_bytes + kvt_whole_lines(p->v.open_bytes));
}
static float *partial_of(const plan *p)
{
    return (float *)(void *)((uint8_t *)mask_bits_of(p) + KVT_PAGE_TOKENS * CHUNK_PAGES * sizeof(uint64_t));
}
static float *merged_of(const plan *p)
{
    return (float *)(void *)((uint8_t *)partial_of(p) + kvt_whole_lines(p->sizes.partial_bytes));
}
static uint8_t *scratch_of(const plan *p)
{
    return (uint8_t *)merged_of(p) + kvt_whole_lines(p->sizes.partial_bytes);
}

/* Asks of pages first_page and on, and gives the partials. Of several chunks there are no masks. */
static kvt_status attend_pages(const plan *p, const tile *t, uint32_t head, kvt_attention *asked, size_t first_page, size_t n_pages, size_t n_chunks,
                               float *partial)
{
    const kvt_sequence *s = t->s;
    const uint32_t tokens = t->end - t->first, rows = tokens * p->group;
    asked->position = s->stored + t->first;
    asked->queries =
        (const uint8_t *)p->s.q + (ptrdiff_t)(t->token + t->first) * p->s.q_token_stride + (ptrdiff_t)(head * p->group) * p->s.q_head_stride;
    asked->slopes = p->s.slopes ? p->s.slopes + (size_t)head * p->group : NULL;
    uint64_t any = UINT64_MAX;
    if (s->masks) {
        uint64_t *bits = mask_bits_of(p);
        any = 0;
        for (uint32_t i = 0; i < tokens; i++)
            for (size_t page = 0; page < n_pages; page++)
                any |= bits[i * n_pages + page] = word_of(s, t->first + i, first_page + page);
        asked->bits = bits;
        asked->bit_first = first_page * KVT_PAGE_TOKENS;
        asked->bit_words = n_pages;
    }
    if (any)
        return kvt_attend_tiles(asked, asked->segments->layout == &p->v.open, 0, n_chunks, partial, scratch_of(p));
    memset(partial, 0, rows * p->row_bytes);
    return KVT_OK;
}

/* Units of a tile that one call attends to: its queries are prepared once for them. Where there are masks each is asked about by itself, since chunks
 * that nobody sees anything of are left out. */
static size_t units_at_once(const plan *p, const tile *t)
{
    const size_t n = MOST_ROWS / ((t->end - t->first) * p->group);
    return t->s->masks ? 1 : kvt_smaller(n, MOST_CHUNKS);
}

/* Where a head's pages first .. first + n - 1 are. */
static void find_pages(const plan *p, const kvt_sequence *s, uint32_t head, kvt_side side, size_t first, size_t n, void **pages)
{
    for (size_t i = 0; i < n;) {
        const kvt_pool *pool = kvt_pool_at(&p->v, first + i, side);
        uint8_t *block_0 = kvt_in_pool(pool, p->s.layer, 0, head);
        for (const size_t end = pool_end(&p->v, first + i, first + n) - first; i < end; i++)
            pages[i] = block_0 + s->blocks[first + i] * pool->block_stride;
    }
}

static kvt_status attend_chunks(const plan *p, const tile *t, uint32_t head, size_t unit, size_t n_units, float *partials)
{
    const kvt_checked_view *v = &p->v;
    const size_t chunk = (t->first_chunk + unit) * KVT_CHUNK_TOKENS, begin = kvt_larger(chunk, t->begin),
                 end = kvt_smaller(chunk + n_units * KVT_CHUNK_TOKENS, t->sealed);
    const size_t first = begin / KVT_PAGE_TOKENS, n = kvt_pages_of(end) - first;
    void *keys[CHUNK_PAGES * MOST_CHUNKS], *values[CHUNK_PAGES * MOST_CHUNKS];
    const bool is_apart = kvt_is_apart(v->v.layout);
    find_pages(p, t->s, head, KVT_K, first, n, keys);
    if (is_apart)
        find_pages(p, t->s, head, KVT_V, first, n, values);
    kvt_segment segments[2];
    kvt_pages value_pages[2];
    size_t n_segments = 0;
    for (size_t i = 0; i < n;) {
        const size_t of_it = pool_end(v, first + i, first + n) - first - i;
        segments[n_segments] = (kvt_segment){ kvt_layout_at(v, first + i), { .table = keys + i, .count = of_it }, (first + i) * KVT_PAGE_TOKENS };
        value_pages[n_segments++] = (kvt_pages){ .table = values + i, .count = of_it };
        i += of_it;
    }
    kvt_attention asked = question_of(p, segments, t->end - t->first);
    asked.n_segments = n_segments;
    asked.begin = begin;
    asked.end = end;
    asked.value_pages = is_apart ? value_pages : NULL;
    return attend_pages(p, t, head, &asked, first, n, n_units, partials);
}

/* Rows 0 .. n-1 of an open page's format to the first tiles of a page; zeros are behind them in the last. `taken` has room for a page's rows, which
 * may be there already. */
static kvt_status lay_rows(const kvt_checked_view *v, uint32_t i, const kvt_pages *pages, size_t n, const uint8_t *rows, ptrdiff_t stride,
                           uint8_t *taken)
{
    const size_t rest = n % KVT_TILE_TOKENS, whole = n - rest, bytes = v->row_bytes[i];
    uint8_t *const last = taken + whole * bytes;
    kvt_status status = kvt_write(&v->open, v->sides[i], pages, 0, whole, rows, v->v.open_dtype, stride);
    if (status || rest == 0)
        return status;
    for (size_t t = 0; rows != taken && t < rest; t++)
        memcpy(last + t * bytes, rows + (ptrdiff_t)(whole + t) * stride, bytes);
    memset(last + rest * bytes, 0, (KVT_TILE_TOKENS - rest) * bytes);
    return kvt_write(&v->open, v->sides[i], pages, whole, KVT_TILE_TOKENS, last, v->v.open_dtype, (ptrdiff_t)bytes);
}

/* The tile's own page, of rows: those that are kept, or those of the step. They have no rotation, so sums of values get it. */
static kvt_status attend_own(const plan *p, const tile *t, uint32_t head, float *partial)
{
    const kvt_checked_view *v = &p->v;
    const kvt_sequence *s = t->s;
    const size_t page = (s->stored + t->first) / KVT_PAGE_TOKENS, begin = page * KVT_PAGE_TOKENS, end = s->stored + t->end;
    const size_t last = (s->stored + s->fresh - 1) / KVT_PAGE_TOKENS;
    uint8_t *const taken = p->part + v->open.page_bytes;
    void *part = p->part;
    const kvt_pages pages = { .table = &part, .count = 1 };
    kvt_status status = KVT_OK;
    for (uint32_t i = 0; i < v->n_sides && !status; i++) {
        ptrdiff_t stride = (ptrdiff_t)v->row_bytes[i];
        const uint8_t *rows;
        if (page + 1 >= last) {
            rows = kvt_view_open(v, s, p->s.layer, page, head, i);
        } else if (begin < s->stored) {
            rows = saved_page(p, t->saved, head, i);
        } else {
            rows = new_row(p, i, t->token + (begin - s->stored), head, &stride);
            if (p->s.dtype != v->v.open_dtype) {
                take_rows(p, i, rows, stride, (uint32_t)(end - begin), taken);
                rows = taken;
                stride = (ptrdiff_t)v->row_bytes[i];
            }
        }
        status = lay_rows(v, i, &pages, end - begin, rows, stride, taken);
    }
    const kvt_segment segment = { &v->open, pages, begin };
    kvt_attention asked = question_of(p, &segment, t->end - t->first);
    asked.begin = begin;
    asked.end = end;
    if (!status)
        status = attend_pages(p, t, head, &asked, page, 1, 1, partial);
    const kvt_rotation rotation = kvt_options_of(v->v.layout, p->values)->rotation;
    for (uint32_t r = 0; rotation && !status && r < (t->end - t->first) * p->group; r++) {
        float row[KVT_MAX_DIM], *sums = partial + r * p->row_bytes / sizeof *partial;
        p->tier->rows->prepare(row, (const uint8_t *)sums, 0, KVT_F32, 1, kvt_layout_side(v->v.layout, p->values)->dim, rotation, NULL);
        memcpy(sums, row, p->v_dim * sizeof *sums);
    }
    return status;
}

/* ln x for finite x > 0: by a series that any machine adds up alike. */
static float natural_log(float x)
{
    int exponent;
    double m = frexp((double)x, &exponent);
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    const double s = (m - 1) / (m + 1), square = s * s;
    double sum = 0;
    for (int n = 19; n >= 1; n -= 2)
        sum = sum * square + 1.0 / n;
    return (float)(exponent * 0.69314718055994531 + 2 * s * sum);
}

static void merge_unit(const plan *p, uint32_t rows, const float *partial)
{
    for (uint32_t r = 0; r < rows; r++) {
        const size_t at = r * p->row_bytes / sizeof *partial;
        p->tier->softmax->merge(merged_of(p) + at, partial + at, p->v_dim);
    }
}

static void finish_tile(const plan *p, const tile *t, uint32_t head)
{
    const kvt_step *s = &p->s;
    const kvt_layout *layout = p->v.v.layout;
    for (uint32_t r = 0; r < (t->end - t->first) * p->group; r++) {
        const size_t token = t->token + t->first + r / p->group, query_head = (size_t)head * p->group + r % p->group;
        float *row = merged_of(p) + r * p->row_bytes / sizeof *row;
        p->tier->softmax->finish(row, p->v_dim, s->sinks ? s->sinks + query_head : NULL);
        const float max = row[p->v_dim], sum = row[p->v_dim + 1];
        if (s->lse)
            s->lse[token * s->heads + query_head] = max != max ? (float)NAN : sum > 0 ? max + natural_log(sum) : -(float)INFINITY;
        uint8_t *to = (uint8_t *)s->out + (ptrdiff_t)token * s->out_token_stride + (ptrdiff_t)query_head * s->out_head_stride;
        p->tier->rows->restore(row, to, 0, s->out_dtype, 1, kvt_layout_side(layout, p->values)->dim, kvt_options_of(layout, p->values)->rotation,
                               NULL);
    }
}

static uint32_t last_owner(const plan *p, const tile *t, size_t cost)
{
    return p->may_split ? owner(p, cost + cost_before(t, t->units - 1)) : owner(p, cost);
}
static float *split_of(const plan *p, const tile *t, uint32_t owner, size_t unit)
{
    return (float *)(void *)(p->splits + owner * p->split_bytes + unit * (t->end - t->first) * p->group * p->row_bytes);
}

static kvt_status attend_tile(plan *p, const tile *t, size_t cost)
{
    const uint32_t rows = (t->end - t->first) * p->group;
    kvt_status status = KVT_OK;
    for (uint32_t head = 0; head < p->v.kv_heads && !status; head++, cost += t->cost) {
        const uint32_t first = owner(p, cost), last = last_owner(p, t, cost);
        if (p->worker < first || p->worker > last)
            continue;
        if (first == last)
            memset(merged_of(p), 0, rows * p->row_bytes);
        const size_t sealed = t->units - (p->v.v.open_dtype ? 1 : 0), at_once = units_at_once(p, t);
        for (size_t unit = 0, n; unit < t->units && !status; unit += n) {
            n = 1;
            if (first != last && owner(p, cost + cost_before(t, unit)) != p->worker)
                continue;
            while (n < at_once && unit + n < sealed && (first == last || owner(p, cost + cost_before(t, unit + n)) == p->worker))
                n++;
            float *partials = first == last ? partial_of(p) : split_of(p, t, first, unit);
            status = unit == sealed ? attend_own(p, t, head, partials) : attend_chunks(p, t, head, unit, n, partials);
            for (size_t i = 0; first == last && !status && i < n; i++)
                merge_unit(p, rows, partials + i * rows * p->row_bytes / sizeof *partials);
        }
        if (first == last && !status)
            finish_tile(p, t, head);
    }
    return status;
}

static kvt_status merge_tile(plan *p, const tile *t, size_t cost)
{
    const uint32_t rows = (t->end - t->first) * p->group;
    for (uint32_t head = 0; head < p->v.kv_heads; head++, cost += t->cost) {
        const uint32_t first = owner(p, cost);
        if (p->worker != first || first == last_owner(p, t, cost))
            continue;
        memset(merged_of(p), 0, rows * p->row_bytes);
        for (size_t unit = 0; unit < t->units; unit++)
            merge_unit(p, rows, split_of(p, t, first, unit));
        finish_tile(p, t, head);
    }
    return KVT_OK;
}

static kvt_status walk(const kvt_step *step, uint32_t worker, uint32_t workers, tile_fn *call)
{
    plan p;
    const kvt_status status = check_step(&nobody, step, worker, workers, ATTENDS, &p);
    if (status || !p.fresh)
        return status;
    choose_tiles(&p);
    return each_tile(&p, call);
}

kvt_status kvt_step_attend(const kvt_step *step, uint32_t worker, uint32_t workers)
{
    return walk(step, worker, workers, attend_tile);
}

kvt_status kvt_step_merge(const kvt_step *step, uint32_t worker, uint32_t workers)
{
    return walk(step, worker, workers, merge_tile);
}
