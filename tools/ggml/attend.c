/* SPDX-License-Identifier: MIT */
#include "tools/ggml/attend.h"

#include <math.h>
#include <string.h>

enum {
    CELLS = KVT_PAGE_TOKENS,
    MOST_ROWS = 128, /* of queries in one call: heads of a group times tokens */
    SPLIT_ROWS = 32, /* up to these, chunks of one call are divided among threads */
    LINE = 64
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}
static size_t round_to_lines(size_t bytes)
{
    return (bytes + LINE - 1) / LINE * LINE;
}

/* ---- the node ---- */

typedef struct parameters {
    float scale, max_bias, soft_cap;
} parameters;

static parameters parameters_of(const struct ggml_tensor *op)
{
    parameters p;
    memcpy(&p, op->op_params, sizeof p);
    return p;
}

/* A view [dim, cells, heads, streams] of a side's rows, from the beginning of a stream on. */
static bool is_of_layer(const layer *l, int side, const struct ggml_tensor *view, size_t dim)
{
    const struct ggml_tensor *t = l->tensor[side];
    const size_t head_bytes = host.ggml_row_size(t->type, (int64_t)dim), from = (size_t)((const uint8_t *)view->data - (const uint8_t *)t->data);
    return view->ne[2] * (int64_t)dim == t->ne[0] && view->nb[1] == t->nb[1] && (view->ne[2] == 1 || view->nb[2] == head_bytes) &&
           (view->ne[3] == 1 || view->nb[3] == t->nb[2]) && from % t->nb[2] == 0 && view->ne[1] <= t->ne[1];
}

static bool is_number(float x)
{
    return fabsf(x) >= 0x1p-20f && fabsf(x) <= 0x1p20f;
}

static kvt_dtype rows_dtype(const struct ggml_tensor *t)
{
    return t->type == GGML_TYPE_F32 ? KVT_F32 : t->type == GGML_TYPE_BF16 ? KVT_BF16 : KVT_F16;
}

bool attend_shape(const layer *l, const struct ggml_tensor *op, cells_shape *shape)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1], *v = op->src[2], *mask = op->src[3], *keys = l->tensor[0];
    const parameters p = parameters_of(op);
    const bool has_values = l->tensor[1] != NULL;
    const cells_shape *stored = &l->rows.shape;
    if (!keys || layer_of(v) != l || layer_side(l, v) != has_values || layer_side(l, k) != 0)
        return false;
    const size_t k_dim = (size_t)k->ne[0], v_dim = (size_t)v->ne[0], heads = (size_t)k->ne[2];
    *shape = (cells_shape){ .heads = (uint32_t)heads,
                            .k_dim = (uint32_t)(has_values ? k_dim : v_dim),
                            .v_dim = has_values ? (uint32_t)v_dim : 0,
                            .rope_dim = has_values ? 0 : (uint32_t)(k_dim - v_dim),
                            .cells = (size_t)keys->ne[1],
                            .streams = (size_t)keys->ne[2],
                            .dtype = rows_dtype(keys) };
    const bool is_alike = !l->is_stored || (shape->heads == stored->heads && shape->k_dim == stored->k_dim && shape->v_dim == stored->v_dim);
    const bool is_rows = is_of_layer(l, 0, k, k_dim) && (has_values ? is_of_layer(l, 1, v, v_dim) : v->data == k->data && v_dim <= k_dim) &&
                         v->ne[1] == k->ne[1] && v->ne[2] == k->ne[2] && v->ne[3] == k->ne[3];
    const bool is_query = (q->type == GGML_TYPE_F32 || q->type == GGML_TYPE_F16 || q->type == GGML_TYPE_BF16) && q->ne[0] == k->ne[0] &&
                          q->ne[2] % k->ne[2] == 0 && q->ne[2] / k->ne[2] <= KVT_MAX_GROUP && q->ne[3] == k->ne[3] && op->type == GGML_TYPE_F32;
    const bool is_masked = !mask || ((mask->type == GGML_TYPE_F16 || mask->type == GGML_TYPE_F32) && mask->ne[0] >= k->ne[1] &&
                                     mask->ne[1] >= q->ne[1] && mask->ne[2] == 1 && q->ne[3] % mask->ne[3] == 0);
    const bool is_possible =
        is_number(p.scale) && (p.soft_cap == 0 || is_number(p.soft_cap)) && (p.max_bias == 0 || (mask && p.soft_cap == 0 && mask->ne[3] == q->ne[3]));
    return is_alike && is_rows && is_query && is_masked && is_possible;
}

/* ---- the work ---- */

typedef struct job {
    const layer *l;
    const struct ggml_tensor *op;
    const mask_bits *mask; /* NULL: all is seen */
    const int64_t *own;    /* cells of the queries; NULL: they are not known */
    parameters p;
    size_t tokens, streams, cells, first_stream;
    uint32_t heads, group;
    size_t most_tokens;       /* of a tile */
    size_t chunks, row_bytes; /* most of a tile; of a partial's row */
    size_t workspace_bytes, segments_bytes, slopes_bytes;
    uint8_t *work;
} job;

/* Queries of a stream that are alike in which block is their own: tokens first .. end - 1. */
typedef struct tile {
    size_t stream, first, end;
    size_t own;         /* block; SIZE_MAX: none */
    size_t begin, seen; /* cells begin .. seen - 1 */
    size_t position;    /* or KVT_NO_MASK */
    const uint64_t *bits;
} tile;

static job job_of(const layer *l, const struct ggml_tensor *op, const mask_bits *m)
{
    const struct ggml_tensor *q = op->src[0], *k = op->src[1];
    job j = { .l = l, .op = op, .mask = m, .p = parameters_of(op) };
    j.tokens = (size_t)q->ne[1];
    j.streams = (size_t)q->ne[3];
    j.cells = (size_t)k->ne[1];
    j.first_stream = (size_t)((const uint8_t *)k->data - (const uint8_t *)l->tensor[0]->data) / l->tensor[0]->nb[2];
    j.heads = (uint32_t)k->ne[2];
    j.group = (uint32_t)(q->ne[2] / k->ne[2]);
    j.own = l->n_cells == j.tokens * j.streams ? l->cells : NULL;
    j.most_tokens = smaller(j.tokens, j.group < MOST_ROWS ? MOST_ROWS / j.group : 1);
    j.chunks = (j.cells + KVT_CHUNK_TOKENS - 1) / KVT_CHUNK_TOKENS;
    j.segments_bytes = round_to_lines((j.cells + CELLS - 1) / CELLS * sizeof(kvt_segment));
    j.slopes_bytes = round_to_lines((size_t)q->ne[2] * sizeof(float));
    return j;
}

/* What a tile asks of a head. */
static kvt_attention tile_question(const job *j, const tile *t, uint32_t head, const kvt_segment *segments, size_t n_segments)
{
    const struct ggml_tensor *q = j->op->src[0], *out = j->op, *sinks = j->op->src[4];
    const size_t first_head = (size_t)head * j->group;
    kvt_attention a = { .size = sizeof a,
                        .segments = segments,
                        .n_segments = n_segments,
                        .begin = t->begin,
                        .end = t->seen,
                        .position = t->position,
                        .group = j->group,
                        .query_tokens = (uint32_t)(t->end - t->first),
                        .query_dtype = rows_dtype(q),
                        .out_dtype = KVT_F32,
                        .query_token_stride = (ptrdiff_t)q->nb[1],
                        .query_head_stride = (ptrdiff_t)q->nb[2],
                        .out_token_stride = (ptrdiff_t)out->nb[2],
                        .out_head_stride = (ptrdiff_t)out->nb[1],
                        .scale = j->p.scale,
                        .soft_cap = j->p.soft_cap,
                        .bits = t->bits,
                        .bit_words = t->bits ? j->mask->words : 0 };
    a.queries = (const uint8_t *)q->data + t->first * q->nb[1] + first_head * q->nb[2] + t->stream * q->nb[3];
    a.out = (uint8_t *)out->data + first_head * out->nb[1] + t->first * out->nb[2] + t->stream * out->nb[3];
    a.sinks = sinks ? (const float *)sinks->data + first_head : NULL;
    a.slopes = j->p.max_bias > 0 && j->work ? (const float *)(const void *)j->work + first_head : NULL;
    return a;
}

/* Of the largest call, in blocks of any form. */
static void measure_calls(job *j)
{
    const cell_store *s = &j->l->rows;
    for (cells_form form = CELLS_OPEN; form < CELLS_FORMS; form++) {
        if (!s->layout[form].page_bytes)
            continue;
        const kvt_segment segment = { .layout = &s->layout[form],
                                      .pages = { .base = s->memory[form], .stride = s->block_bytes[form], .count = s->blocks } };
        const tile t = { .end = j->most_tokens, .seen = j->cells, .position = KVT_NO_MASK };
        const kvt_attention a = tile_question(j, &t, 0, &segment, 1);
        kvt_attend_sizes sizes;
        cells_must(kvt_attend_plan_sizes(&a, &sizes), "attention");
        j->workspace_bytes = round_to_lines(sizes.workspace_bytes > j->workspace_bytes ? sizes.workspace_bytes : j->workspace_bytes);
        j->row_bytes = sizes.partial_bytes / (j->most_tokens * j->group);
    }
}

/* Few rows are divided by chunks of cells, unless heads are as many for each thread; many by tiles and heads. Neither changes a bit. */
static bool is_split(const job *j, unsigned threads)
{
    return j->heads % threads != 0 && j->tokens * j->group <= SPLIT_ROWS;
}

/* What ggml needs for the node: its own way in the versions that are known, and as much again for others. */
static size_t ggml_bytes(const struct ggml_tensor *op, size_t threads)
{
    enum { TILE = 64 };
    const size_t k_dim = (size_t)op->src[1]->ne[0], v_dim = (size_t)op->src[2]->ne[0], heads = (size_t)op->src[0]->ne[2];
    const size_t prefill = TILE * (k_dim + 2 * TILE + v_dim + v_dim + k_dim) * threads;
    const size_t decode = heads * threads * (2 + v_dim) + threads * (k_dim + 2 * v_dim);
    return 2 * sizeof(float) * (prefill > decode ? prefill : decode);
}

bool attend_plan(layer *l, const struct ggml_tensor *op, unsigned threads, size_t *bytes)
{
    const struct ggml_tensor *m = op->src[3];
    l->attended = l->owner->graph;
    if (m && !masks_plan(&l->owner->masks, m, (size_t)op->src[0]->ne[1], (size_t)op->src[1]->ne[1]))
        return false;
    job j = job_of(l, op, NULL);
    measure_calls(&j);
    size_t ours = LINE + j.slopes_bytes + threads * (j.workspace_bytes + j.segments_bytes);
    if (is_split(&j, threads))
        ours += j.streams * j.heads * j.chunks * j.tokens * j.group * j.row_bytes;
    const size_t theirs = ggml_bytes(op, threads);
    *bytes = ours > theirs ? ours : theirs;
    return true;
}

/* ---- tiles ---- */

static size_t own_block(const job *j, size_t stream, size_t token)
{
    return j->own ? (size_t)j->own[stream * j->tokens + token] % j->l->rows.shape.cells / CELLS : SIZE_MAX;
}

static const mask_row *mask_row_of(const job *j, size_t stream, size_t token)
{
    return &j->mask->rows[stream % j->mask->streams * j->mask->tokens + token];
}

/* Whether token i of the tile sees all cells from the same one on, and one more than the token before. */
static bool is_causal_tile(const job *j, const tile *t)
{
    const mask_row *first = mask_row_of(j, t->stream, t->first);
    bool is = true;
    for (size_t i = t->first; i < t->end && is; i++) {
        const mask_row *row = mask_row_of(j, t->stream, i);
        is = row->first == first->first && row->end == first->end + (i - t->first) && row->count == row->end - row->first;
    }
    return is;
}

/* The distances of ALiBi are those of positions: then a tile is tokens in cells that follow each other. */
static bool is_next(const job *j, size_t stream, size_t token)
{
    const int64_t *own = j->own + stream * j->tokens + token;
    return j->p.max_bias == 0 || own[0] == own[-1] + 1;
}

static tile tile_from(const job *j, size_t stream, size_t first)
{
    tile t = { .stream = stream, .first = first, .end = first + 1, .own = own_block(j, stream, first), .position = KVT_NO_MASK };
    while (t.end < j->tokens && t.end - first < j->most_tokens && own_block(j, stream, t.end) == t.own && is_next(j, stream, t.end))
        t.end++;
    t.seen = j->cells;
    if (!j->mask)
        return t;
    t.begin = SIZE_MAX;
    t.seen = 0;
    for (size_t i = first; i < t.end; i++) {
        const mask_row *row = mask_row_of(j, stream, i);
        if (row->count) {
            t.begin = smaller(t.begin, row->first);
            t.seen = row->end > t.seen ? row->end : t.seen;
        }
    }
    if (!t.seen)
        return t;
    const bool is_plain = is_causal_tile(j, &t);
    if (!is_plain)
        t.bits = j->mask->bits + (stream % j->mask->streams * j->mask->tokens + first) * j->mask->words;
    if (j->p.max_bias > 0)
        t.position = (size_t)j->own[stream * j->tokens + first] % j->l->rows.shape.cells;
    else if (is_plain && t.end - first > 1)
        t.position = mask_row_of(j, stream, first)->end - 1;
    return t;
}

static void write_zeros(const job *j, const tile *t)
{
    const struct ggml_tensor *out = j->op;
    for (size_t i = t->first; i < t->end; i++)
        for (size_t head = 0; head < (size_t)out->ne[1]; head++)
            memset((uint8_t *)out->data + head * out->nb[1] + i * out->nb[2] + t->stream * out->nb[3], 0, (size_t)out->ne[0] * sizeof(float));
}

/* Calls of each tile and head, in order. */
typedef struct walk {
    const job *j;
    unsigned worker, workers;
    size_t calls;                       /* before this one */
    size_t units, first_unit, end_unit; /* chunks: before this one; those that are the worker's */
    size_t partial_bytes;               /* before this one's */
    uint8_t *workspace, *partials;
    kvt_segment *segments;
} walk;

typedef void call_fn(walk *w, const kvt_attention *a, const kvt_attend_sizes *sizes);

static void attend_whole(walk *w, const kvt_attention *a, const kvt_attend_sizes *sizes)
{
    (void)sizes;
    if (w->calls % w->workers == w->worker)
        cells_must(kvt_attend(a, w->workspace), "attention");
}
static void walk_chunks(walk *w, const kvt_attention *a, const kvt_attend_sizes *sizes)
{
    const size_t first = w->first_unit > w->units ? w->first_unit - w->units : 0,
                 end = w->end_unit > w->units ? smaller(w->end_unit - w->units, sizes->chunks) : 0;
    if (first < end)
        cells_must(kvt_attend_chunks(a, first, end - first, w->partials + w->partial_bytes, w->workspace), "attention");
}
static void merge_chunks(walk *w, const kvt_attention *a, const kvt_attend_sizes *sizes)
{
    (void)sizes;
    if (w->calls % w->workers == w->worker)
        cells_must(kvt_merge(a, w->partials + w->partial_bytes, w->workspace), "attention");
}

/* Without a call it counts the units. */
static void each_call(walk *w, call_fn *call)
{
    const job *j = w->j;
    const cell_store *s = &j->l->rows;
    w->calls = w->units = w->partial_bytes = 0;
    for (size_t stream = 0; stream < j->streams; stream++)
        for (size_t first = 0; first < j->tokens;) {
            const tile t = tile_from(j, stream, first);
            first = t.end;
            if (!t.seen) {
                if (call)
                    write_zeros(j, &t);
                continue;
            }
            const size_t n = cells_segments(s, j->first_stream + stream, t.begin / CELLS, (t.seen + CELLS - 1) / CELLS, t.own, w->segments);
            kvt_attention a = tile_question(j, &t, 0, w->segments, n);
            kvt_attend_sizes sizes = { 0 };
            if (call != attend_whole)
                cells_must(kvt_attend_plan_sizes(&a, &sizes), "attention");
            for (uint32_t head = 0; head < j->heads; head++) {
                if (call) {
                    if (head) {
                        cells_next_head(w->segments, n);
                        a = tile_question(j, &t, head, w->segments, n);
                    }
                    call(w, &a, &sizes);
                }
                w->calls++;
                w->units += sizes.chunks;
                w->partial_bytes += sizes.chunks * sizes.partial_bytes;
            }
        }
}

/* Of ALiBi, as ggml has them. */
static void make_slopes(const job *j, float *slopes)
{
    const uint32_t heads = j->heads * j->group;
    uint32_t power = 1;
    while (power * 2 <= heads)
        power *= 2;
    const float m0 = powf(2.0f, -j->p.max_bias / (float)power), m1 = powf(2.0f, -(j->p.max_bias / 2.0f) / (float)power);
    for (uint32_t h = 0; h < heads; h++)
        slopes[h] = h < power ? powf(m0, (float)(h + 1)) : powf(m1, (float)(2 * (h - power) + 1));
}

static bool convert_mask(layer *l, const ggml_workers *with, const struct ggml_tensor *op)
{
    mask_bits *m = masks_find(&l->owner->masks, op->src[3]);
    const bool is_by_distance = parameters_of(op).max_bias > 0;
    const bool has_own = m && l->n_cells == m->tokens * m->streams;
    if (!m || (is_by_distance && !has_own))
        return false;
    if (!m->is_ready) {
        /* In their streams. */
        const int64_t *own = is_by_distance ? l->cells : NULL;
        mask_convert(m, own, (int64_t)l->rows.shape.cells, (unsigned)with->ith, (unsigned)with->nth);
        host.ggml_barrier(with->threadpool);
        if (with->ith == 0)
            m->is_ready = true;
    }
    return !m->is_odd;
}

/* Where a token sees nothing but itself a sequence begins. */
static void mark_first_cells(layer *l, const mask_bits *m)
{
    const size_t rows = m->tokens * m->streams;
    for (size_t i = 0; i < rows && l->n_cells == rows; i++)
        if (m->rows[i].count == 1 && m->rows[i].first == (size_t)l->cells[i] % l->rows.shape.cells)
            cells_mark_first(&l->rows, l->cells[i]);
}

static void seal_blocks(layer *l, const ggml_workers *with)
{
    if (!cells_has_unsealed(&l->rows))
        return;
    host.ggml_barrier(with->threadpool);
    if (with->ith == 0)
        cells_begin_seal(&l->rows);
    host.ggml_barrier(with->threadpool);
    cells_seal(&l->rows, (uint32_t)with->ith, (uint32_t)with->nth);
    host.ggml_barrier(with->threadpool);
    if (with->ith == 0)
        cells_end_seal(&l->rows);
    host.ggml_barrier(with->threadpool);
}

bool attend_compute(layer *l, const ggml_workers *with, const struct ggml_tensor *op)
{
    if (op->src[3] && !convert_mask(l, with, op))
        return false;
    job j = job_of(l, op, op->src[3] ? masks_find(&l->owner->masks, op->src[3]) : NULL);
    if (with->ith == 0) {
        if (j.mask)
            mark_first_cells(l, j.mask);
        l->owner->last = l;
        l->owner->counts.attended++;
        l->owner->counts.queries += j.tokens * j.streams;
    }
    seal_blocks(l, with);
    measure_calls(&j);
    j.work = (uint8_t *)with->wdata + (LINE - (uintptr_t)with->wdata % LINE) % LINE;
    if (j.p.max_bias > 0) {
        if (with->ith == 0)
            make_slopes(&j, (float *)(void *)j.work);
        host.ggml_barrier(with->threadpool);
    }
    const unsigned workers = (unsigned)with->nth;
    uint8_t *own = j.work + j.slopes_bytes + (size_t)with->ith * (j.workspace_bytes + j.segments_bytes);
    walk w = { .j = &j,
               .worker = (unsigned)with->ith,
               .workers = workers,
               .workspace = own,
               .segments = (kvt_segment *)(void *)(own + j.workspace_bytes),
               .partials = j.work + j.slopes_bytes + workers * (j.workspace_bytes + j.segments_bytes) };
    if (!is_split(&j, workers)) {
        each_call(&w, attend_whole);
        return true;
    }
    each_call(&w, NULL);
    w.first_unit = w.units * w.worker / workers;
    w.end_unit = w.units * (w.worker + 1) / workers;
    each_call(&w, walk_chunks);
    host.ggml_barrier(with->threadpool);
    each_call(&w, merge_chunks);
    return true;
}
