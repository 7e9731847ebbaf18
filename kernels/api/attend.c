/* SPDX-License-Identifier: MIT */
/* Attention over one KV head's pages: checks the arguments, then walks a chunk and hands its pages to the kernels, in the order of memory. */
#include "kernels/api/view.h"
#include "kernels/tile.h"

#include <float.h>
#include <math.h>

_Static_assert(KVT_CHUNK_TOKENS % KVT_PAGE_TOKENS == 0, "chunks are whole pages");

/* Tokens first .. end-1 of the sequence. */
typedef struct range {
    size_t first, end;
} range;

static bool is_empty(range r)
{
    return r.first >= r.end;
}
static range common(range a, range b)
{
    return (range){ kvt_larger(a.first, b.first), kvt_smaller(a.end, b.end) };
}

/* The side whose rows are the values: keys, where there are no others. */
static kvt_side values_of(const kvt_layout *layout)
{
    return layout->v.dim ? KVT_V : KVT_K;
}

/* ---- a checked call ---- */

/* Query rows and what keys of one side make of them. */
typedef struct query_side {
    uint32_t dim; /* padded; 0: no such side */
    float *x;     /* [rows][dim] */
    kvt_queries prepared;
} query_side;

/* One side of a segment's pages, and what reads it. */
typedef struct side_source {
    const kvt_side_layout *layout;
    kvt_tile_spec tile;
    const kvt_loops *loops;
    kvt_load_scales_fn *load_scales;
} side_source;

/* The segment that is being read, which queries are prepared for. */
typedef struct source {
    size_t segment; /* SIZE_MAX: none */
    side_source k, rope, values;
    kvt_side order; /* of values */
} source;

typedef struct call {
    kvt_attention a; /* as this version has it */
    const kvt_tier_kernels *tier;
    uint32_t v_dim;       /* padded */
    uint32_t rows;        /* query_tokens * group, in this order */
    uint32_t padded_rows; /* a row of zeros makes three behind the others four, where kernels join rows */
    range all;            /* what some query sees */
    /* the workspace */
    query_side k, rope;
    float *logits;                   /* [rows][KVT_PAGE_TOKENS], then weights */
    float *rope_logits;              /* the same, what the rotary part adds */
    float *totals;                   /* [rows]: what a page's weights add up to */
    float *sums;                     /* [rows][KVT_SUMS(v_dim)]: of a chunk */
    float *merged;                   /* the same: of all chunks until now */
    bool is_written;                 /* tiles whole, of the tokens that are seen */
    size_t page_bytes;               /* of the segment with the largest pages, and of as many values */
    uint8_t *first_page, *last_page; /* copies of the pages with `begin` and the last token that is seen: [2] of page_bytes, keys and values */
    source from;
} call;

static range seen_by(const kvt_attention *a, uint32_t query_token)
{
    if (a->position == KVT_NO_MASK)
        return (range){ a->begin, a->end };
    const size_t last = a->position + query_token; /* checked: no overflow */
    const size_t first = a->window && last >= a->window ? last - a->window + 1 : 0;
    return (range){ kvt_larger(a->begin, first), kvt_smaller(a->end, last + 1) };
}

/* A page's word of the bits that hide tokens from a query token; `token` is the page's first. */
static uint64_t bits_at(const kvt_attention *a, uint32_t query_token, size_t token)
{
    if (!a->bits || token < a->bit_first || (token - a->bit_first) / KVT_PAGE_TOKENS >= a->bit_words)
        return UINT64_MAX;
    return a->bits[query_token * a->bit_words + (token - a->bit_first) / KVT_PAGE_TOKENS];
}

/* The first token of r that query token i sees and the one behind the last; there may be holes in between. */
static range seen_in(const kvt_attention *a, uint32_t i, range r)
{
    r = common(seen_by(a, i), r);
    while (a->bits && !is_empty(r)) {
        const size_t skipped = r.first % KVT_PAGE_TOKENS;
        const uint64_t word = bits_at(a, i, r.first - skipped) >> skipped;
        if (word) {
            r.first += (size_t)__builtin_ctzll(word);
            break;
        }
        r.first += KVT_PAGE_TOKENS - skipped;
    }
    while (a->bits && !is_empty(r)) {
        const size_t used = (r.end - 1) % KVT_PAGE_TOKENS + 1;
        const uint64_t word = bits_at(a, i, r.end - used) << (KVT_PAGE_TOKENS - used);
        if (word) {
            r.end -= (size_t)__builtin_clzll(word);
            break;
        }
        r.end -= used;
    }
    return r;
}

/* Whether some query token may see some of a page: the others need not be read. */
static bool is_seen(const kvt_attention *a, size_t token)
{
    if (!a->bits)
        return true;
    uint64_t word = 0;
    for (uint32_t i = 0; i < a->query_tokens && !word; i++)
        word = bits_at(a, i, token);
    return word != 0;
}

static size_t segment_end(const kvt_attention *a, size_t i)
{
    return i + 1 < a->n_segments ? a->segments[i + 1].first_token : SIZE_MAX;
}

/* Errors: NULL, LAYOUT, SEGMENTS. */
static kvt_status check_segments(const kvt_attention *a)
{
    if (a->n_segments == 0)
        return KVT_ERR_SEGMENTS;
    if (!a->segments)
        return KVT_ERR_NULL;
    for (size_t i = 0; i < a->n_segments; i++) {
        const kvt_segment *segment = &a->segments[i];
        if (!segment->layout)
            return KVT_ERR_NULL;
        if (!kvt_is_sealed(segment->layout))
            return KVT_ERR_LAYOUT;
        const kvt_layout *layout = segment->layout, *first = a->segments[0].layout;
        bool is_alike = true;
        for (kvt_side side = KVT_K; side <= KVT_ROPE; side++)
            is_alike &= kvt_layout_side(layout, side)->dim == kvt_layout_side(first, side)->dim &&
                        kvt_options_of(layout, side)->rotation == kvt_options_of(first, side)->rotation;
        if (!is_alike || segment->first_token % KVT_PAGE_TOKENS || (i > 0 && segment->first_token <= a->segments[i - 1].first_token))
            return KVT_ERR_SEGMENTS;
    }
    return KVT_OK;
}

/* Whether all pages of tokens that are seen are there. Errors: NULL, STRIDE, RANGE. */
static kvt_status check_pages(const kvt_attention *a, range all)
{
    if (all.first < a->segments[0].first_token)
        return KVT_ERR_RANGE;
    for (size_t i = 0; i < a->n_segments; i++) {
        const kvt_segment *segment = &a->segments[i];
        const range needed = common(all, (range){ segment->first_token, segment_end(a, i) });
        if (is_empty(needed))
            continue;
        const size_t first = needed.first - segment->first_token, n = needed.end - needed.first;
        kvt_status status = kvt_check_pages(&segment->pages, segment->layout->page_bytes, first, n);
        if (!status && a->value_pages)
            status = kvt_check_pages(&a->value_pages[i], segment->layout->page_bytes, first, n);
        if (status)
            return status;
    }
    return KVT_OK;
}

/* All but where rows are. */
static kvt_status check_attention(const kvt_attention *given, call *c)
{
    if (!given)
        return KVT_ERR_NULL;
    *c = (call){ .from.segment = SIZE_MAX };
    kvt_attention *a = &c->a;
    kvt_status status = KVT_TAKE_STRUCT(kvt_attention, soft_cap, a, given);
    if (!status)
        status = check_segments(a);
    if (status)
        return status;
    if (a->group < 1 || a->group > KVT_MAX_GROUP || a->query_tokens < 1)
        return KVT_ERR_GROUP;
    if (!kvt_dtype_bytes(a->query_dtype) || !kvt_dtype_bytes(a->out_dtype))
        return KVT_ERR_DTYPE;
    if (!kvt_is_moderate(a->scale) || (a->soft_cap != 0 && (!kvt_is_moderate(a->soft_cap) || a->soft_cap < 0)))
        return KVT_ERR_NUMBER;
    size_t last;
    if ((a->position == KVT_NO_MASK && (a->window != 0 || a->slopes)) || (a->slopes && a->soft_cap != 0))
        return KVT_ERR_OPTIONS;
    if (a->bits && a->bit_first % KVT_PAGE_TOKENS)
        return KVT_ERR_RANGE;
    if (a->end == 0 || a->begin > a->end || (a->position == 0 && a->end > a->query_tokens))
        return KVT_ERR_RANGE;
    if (a->position != KVT_NO_MASK && __builtin_add_overflow(a->position, a->query_tokens, &last))
        return KVT_ERR_RANGE;
    if (__builtin_mul_overflow(a->query_tokens, a->group, &c->rows) || c->rows == UINT32_MAX)
        return KVT_ERR_OVERFLOW;
    const kvt_layout *layout = a->segments[0].layout;
    c->k.dim = layout->k.padded_dim;
    c->rope.dim = layout->rope.padded_dim;
    c->v_dim = kvt_layout_side(layout, values_of(layout))->padded_dim;
    c->tier = kvt_serving_tier(layout->spec.tiers)->kernels;
    const kvt_tile_spec keys = kvt_tile_spec_of(&layout->k, kvt_options_of(layout, KVT_K));
    c->padded_rows = c->rows + (c->rows % 4 == 3 && c->tier->loops[keys.scheme->loop]->joins_rows);
    for (size_t i = 0; i < a->n_segments; i++)
        c->page_bytes = kvt_larger(c->page_bytes, a->segments[i].layout->page_bytes);
    /* Ranges begin and end later from query token to query token. */
    c->all = (range){ seen_by(a, 0).first, seen_by(a, a->query_tokens - 1).end };
    return is_empty(c->all) ? KVT_OK : check_pages(a, c->all);
}

static size_t first_chunk_of(const call *c)
{
    return c->all.first / KVT_CHUNK_TOKENS;
}
static size_t chunks_of(const call *c)
{
    return is_empty(c->all) ? 0 : (c->all.end - 1) / KVT_CHUNK_TOKENS + 1 - first_chunk_of(c);
}

/* ---- memory ---- */

enum { ALIGNMENT = 64 };

/* Takes bytes of each row from the workspace, or only counts them. */
typedef struct taker {
    uint8_t *at;
    size_t used;
    size_t rows;
    bool overflows;
} taker;

static void *take(taker *t, size_t row_bytes)
{
    size_t bytes = 0;
    t->overflows |= __builtin_mul_overflow(row_bytes, t->rows, &bytes) || __builtin_add_overflow(bytes, ALIGNMENT - 1, &bytes);
    bytes -= bytes % ALIGNMENT;
    uint8_t *taken = t->at;
    t->at = t->at ? t->at + bytes : NULL;
    t->overflows |= __builtin_add_overflow(t->used, bytes, &t->used);
    return taken;
}

static void take_query_side(taker *t, query_side *side, uint32_t rows)
{
    side->x = take(t, side->dim * sizeof(float));
    side->prepared = (kvt_queries){ .n = rows, .x = side->x };
    side->prepared.quads = take(t, KVT_QUADS_BYTES(side->dim));
    side->prepared.start = take(t, side->dim / 16 * sizeof(uint32_t));
    side->prepared.factor = take(t, sizeof(float));
}

static kvt_status take_workspace(call *c, void *workspace, size_t *bytes)
{
    const uintptr_t misaligned = (uintptr_t)workspace % ALIGNMENT;
    taker t = { .at = workspace ? (uint8_t *)workspace + (ALIGNMENT - misaligned) % ALIGNMENT : NULL, .used = ALIGNMENT - 1, .rows = c->padded_rows };
    take_query_side(&t, &c->k, c->padded_rows);
    c->logits = take(&t, KVT_PAGE_TOKENS * sizeof(float));
    c->totals = take(&t, sizeof(float));
    c->sums = take(&t, KVT_SUMS(c->v_dim) * sizeof(float));
    c->merged = take(&t, KVT_SUMS(c->v_dim) * sizeof(float));
    if (c->rope.dim) {
        take_query_side(&t, &c->rope, c->padded_rows);
        c->rope_logits = take(&t, KVT_PAGE_TOKENS * sizeof(float));
    }
    t.rows = c->a.value_pages ? 2 : 1;
    c->first_page = take(&t, c->page_bytes);
    c->last_page = take(&t, c->page_bytes);
    *bytes = t.used;
    return t.overflows ? KVT_ERR_OVERFLOW : KVT_OK;
}

static size_t partial_bytes_of(const call *c)
{
    return c->rows * KVT_SUMS(c->v_dim) * sizeof(float); /* less than the workspace */
}

kvt_status kvt_attend_plan_sizes(const kvt_attention *a, kvt_attend_sizes *sizes)
{
    call c;
    kvt_status status = check_attention(a, &c);
    if (status)
        return status;
    if (!sizes)
        return KVT_ERR_NULL;
    kvt_attend_sizes needed = { .chunks = chunks_of(&c), .partial_bytes = partial_bytes_of(&c) };
    status = take_workspace(&c, NULL, &needed.workspace_bytes);
    size_t all;
    if (!status && __builtin_mul_overflow(needed.chunks, needed.partial_bytes, &all))
        status = KVT_ERR_OVERFLOW;
    if (!status)
        *sizes = needed;
    return status;
}

/* ---- a chunk ---- */

/* A page of the sequence. */
typedef struct seen_page {
    size_t token;                                           /* the first */
    uint32_t first, end;                                    /* tokens of it that some query sees, but for holes: others may never have been written */
    const uint8_t *keys, *values, *next_keys, *next_values; /* of the page behind, which is fetched meanwhile */
} seen_page;

static size_t segment_of(const kvt_attention *a, size_t token)
{
    size_t i = a->n_segments - 1;
    while (a->segments[i].first_token > token)
        i--;
    return i;
}

static side_source side_source_of(const kvt_layout *layout, kvt_side side)
{
    const kvt_tier_kernels *tier = kvt_serving_tier(layout->spec.tiers)->kernels;
    side_source s = { .layout = kvt_layout_side(layout, side) };
    s.tile = kvt_tile_spec_of(s.layout, kvt_options_of(layout, side));
    s.loops = tier->loops[s.tile.scheme->loop];
    s.load_scales = kvt_scales_of(tier, &s.tile);
    return s;
}

static void prepare_queries(const query_side *queries, const side_source *from)
{
    if (from->loops->prepare)
        from->loops->prepare(&queries->prepared, &from->tile);
}

static void enter_segment(call *c, size_t segment)
{
    const kvt_layout *layout = c->a.segments[segment].layout;
    c->from = (source){ .segment = segment, .order = values_of(layout) };
    c->from.k = side_source_of(layout, KVT_K);
    c->from.values = side_source_of(layout, c->from.order);
    prepare_queries(&c->k, &c->from.k);
    if (!c->rope.dim)
        return;
    c->from.rope = side_source_of(layout, KVT_ROPE);
    prepare_queries(&c->rope, &c->from.rope);
}

/* A side of a page, with zeros for all tokens but first .. end-1. */
static void copy_side(const side_source *from, kvt_side order, const uint8_t *page, uint32_t first, uint32_t end, uint8_t *copy)
{
    const kvt_side_layout *side = from->layout;
    const uint8_t *codes = page + side->codes_offset, *scales = page + side->scales_offset;
    uint8_t *code_copy = copy + side->codes_offset, *scale_copy = copy + side->scales_offset;
    for (uint32_t at = 0; at < KVT_PAGE_TOKENS; at += KVT_TILE_TOKENS) {
        const uint32_t begin = first <= at ? 0 : (uint32_t)kvt_smaller(first - at, KVT_TILE_TOKENS),
                       stop = end <= at ? 0 : (uint32_t)kvt_smaller(end - at, KVT_TILE_TOKENS);
        kvt_tile_copy_tokens(order, &from->tile, codes, scales, begin, stop, code_copy, scale_copy);
        codes += side->code_bytes;
        scales += side->scale_bytes;
        code_copy += side->code_bytes;
        scale_copy += side->scale_bytes;
    }
    memcpy(copy + side->centre_offset, page + side->centre_offset, side->centre_bytes);
}

/* Kernels read whole pages: where one holds tokens before `begin` or behind the last one that is seen, which may never have been written, a copy
 * without them takes its place. */
static void leave_out_unwritten(const call *c, seen_page *p)
{
    const uint32_t first = c->a.begin > p->token ? (uint32_t)(c->a.begin - p->token) : 0,
                   end = (uint32_t)kvt_smaller(c->all.end - p->token, KVT_PAGE_TOKENS);
    if (c->is_written || (first == 0 && end == KVT_PAGE_TOKENS))
        return;
    uint8_t *copy = first ? c->first_page : c->last_page, *value_copy = c->a.value_pages ? copy + c->page_bytes : copy;
    copy_side(&c->from.k, KVT_K, p->keys, first, end, copy);
    if (c->rope.dim)
        copy_side(&c->from.rope, KVT_K, p->keys, first, end, copy);
    if (p->values != p->keys || c->from.order == KVT_V)
        copy_side(&c->from.values, c->from.order, p->values, first, end, value_copy);
    p->keys = copy;
    p->values = value_copy;
}

static seen_page page_of(const call *c, size_t token)
{
    const kvt_attention *a = &c->a;
    const kvt_segment *segment = &a->segments[c->from.segment];
    const kvt_pages *values = a->value_pages ? &a->value_pages[c->from.segment] : &segment->pages;
    const size_t later = token + KVT_PAGE_TOKENS, page = (token - segment->first_token) / KVT_PAGE_TOKENS;
    const bool has_next = later < c->all.end && later < segment_end(a, c->from.segment);
    const range seen = common(c->all, (range){ token, later });
    seen_page p = { .token = token, .first = (uint32_t)(seen.first - token), .end = (uint32_t)(seen.end - token) };
    p.keys = kvt_page_at(&segment->pages, page);
    p.values = kvt_page_at(values, page);
    p.next_keys = has_next ? kvt_page_at(&segment->pages, page + 1) : p.keys;
    p.next_values = has_next ? kvt_page_at(values, page + 1) : p.values;
    leave_out_unwritten(c, &p);
    return p;
}

static kvt_page_side page_side_of(const seen_page *p, const uint8_t *at, const uint8_t *next, const kvt_side_layout *side)
{
    return (kvt_page_side){ .codes = at + side->codes_offset,
                            .scales = at + side->scales_offset,
                            .first_tile = p->first / KVT_TILE_TOKENS,
                            .end_tile = (p->end + KVT_TILE_TOKENS - 1) / KVT_TILE_TOKENS,
                            .ahead = next + side->codes_offset };
}

/* (What has a centre in it is a function of its own, so that its stack is not that of the loops, too.) */
static __attribute__((noinline)) void add_key_centre(const call *c, const query_side *queries, const uint8_t *centre, float *logits)
{
    float mu[KVT_MAX_DIM];
    c->tier->rows->load_centre(mu, centre, queries->dim);
    for (uint32_t r = 0; r < c->rows; r++)
        c->tier->softmax->add_offset(logits + (size_t)r * KVT_PAGE_TOKENS, queries->x + (size_t)r * queries->dim, mu, queries->dim);
}

static __attribute__((noinline)) void add_value_centre(const call *c, const kvt_weighted *w, uint32_t rows, const float *totals,
                                                       const uint8_t *centre)
{
    float mu[KVT_MAX_DIM];
    c->tier->rows->load_centre(mu, centre, c->v_dim);
    for (uint32_t r = 0; r < rows; r++)
        c->tier->softmax->add_centre(w->sums + r * w->sum_stride, totals[r], mu, c->v_dim);
}

/* Logits of a page, of one side. */
static void score_side(const call *c, const query_side *queries, const seen_page *p, const side_source *from, float *logits)
{
    const kvt_page_side tiles = page_side_of(p, p->keys, p->next_keys, from->layout);
    from->loops->score(from->load_scales, &tiles, &from->tile, &queries->prepared, logits);
    if (from->layout->centre_bytes)
        add_key_centre(c, queries, p->keys + from->layout->centre_offset, logits);
}

static void score_page(const call *c, const seen_page *p)
{
    score_side(c, &c->k, p, &c->from.k, c->logits);
    if (!c->rope.dim)
        return;
    score_side(c, &c->rope, p, &c->from.rope, c->rope_logits);
    c->tier->softmax->add_logits(c->logits, c->rope_logits, c->rows, p->first / KVT_TILE_TOKENS, (p->end + KVT_TILE_TOKENS - 1) / KVT_TILE_TOKENS);
}

/* What is hidden within the range that a query token sees gets the smallest logit, which has no weight; slopes count as they come. */
static void bias_logits(const call *c, uint32_t i, range seen, size_t begin)
{
    const kvt_attention *a = &c->a;
    for (uint32_t h = 0; h < a->group; h++) {
        float *logits = c->logits + ((size_t)i * a->group + h) * KVT_PAGE_TOKENS;
        const float slope = a->slopes ? a->slopes[h] : 0;
        for (size_t token = seen.first; a->slopes && token < seen.end; token++)
            logits[token - begin] += slope * ((float)(ptrdiff_t)(token - (a->position + i)));
        for (uint64_t hidden = ~bits_at(a, i, begin); a->bits && hidden; hidden &= hidden - 1)
            logits[__builtin_ctzll(hidden)] = -FLT_MAX;
    }
}

/* Rows of query tokens i .. i+n-1, which see the same of a page: their weights, and what they take of the values. */
static void weigh_rows(const call *c, const seen_page *p, const kvt_page_side *tiles, uint32_t i, uint32_t n, range seen)
{
    const side_source *from = &c->from.values;
    const size_t stride = KVT_SUMS(c->v_dim), row = (size_t)i * c->a.group;
    const uint32_t rows = n * c->a.group;
    float *logits = c->logits + row * KVT_PAGE_TOKENS;
    const kvt_weighted w = {
        .page = tiles,
        .first = (uint32_t)(seen.first - p->token),
        .end = (uint32_t)(seen.end - p->token),
        .is_precise = p->token == 0,
        .rows = row + rows == c->rows ? c->padded_rows - (uint32_t)row : rows,
        .weights = logits,
        .sums = c->sums + row * stride,
        .sum_stride = stride,
    };
    c->tier->softmax->soften(logits, rows, w.first, w.end, c->a.soft_cap, w.sums, stride, c->v_dim, c->totals + row);
    from->loops->value[c->from.order](from->load_scales, &from->tile, &w);
    if (from->layout->centre_bytes)
        add_value_centre(c, &w, rows, c->totals + row, p->values + from->layout->centre_offset);
}

/* Rows that see the same of the page at once; none that sees nothing of it. */
static void weigh_page(const call *c, const seen_page *p)
{
    const kvt_attention *a = &c->a;
    const range whole = { p->token, p->token + KVT_PAGE_TOKENS };
    const kvt_page_side tiles = page_side_of(p, p->values, p->next_values, c->from.values.layout);
    for (uint32_t i = 0, n; i < a->query_tokens; i += n) {
        const range seen = seen_in(a, i, whole);
        for (n = 1; i + n < a->query_tokens && bits_at(a, i + n, p->token) == bits_at(a, i, p->token); n++) {
            const range next = seen_in(a, i + n, whole);
            if (next.first != seen.first || next.end != seen.end)
                break;
        }
        if (is_empty(seen))
            continue;
        for (uint32_t j = i; (a->bits || a->slopes) && j < i + n; j++)
            bias_logits(c, j, seen, p->token);
        weigh_rows(c, p, &tiles, i, n, seen);
    }
}

/* The partial of a chunk, to c->sums. */
static void attend_chunk(call *c, size_t chunk)
{
    const size_t stride = KVT_SUMS(c->v_dim), begin = (first_chunk_of(c) + chunk) * KVT_CHUNK_TOKENS;
    memset(c->sums, 0, c->padded_rows * stride * sizeof *c->sums);
    const range seen = common(c->all, (range){ begin, begin + KVT_CHUNK_TOKENS });
    for (size_t token = seen.first / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS; token < seen.end; token += KVT_PAGE_TOKENS) {
        if (!is_seen(&c->a, token))
            continue;
        if (segment_of(&c->a, token) != c->from.segment)
            enter_segment(c, segment_of(&c->a, token));
        const seen_page p = page_of(c, token);
        score_page(c, &p);
        weigh_page(c, &p);
    }
    for (uint32_t r = 0; r < c->rows; r++)
        c->tier->softmax->close_partial(c->sums + r * stride, c->v_dim);
}

/* ---- rows ---- */

/* Errors: NULL, STRIDE. */
static kvt_status check_queries(const call *c)
{
    const kvt_attention *a = &c->a;
    if (!a->queries)
        return KVT_ERR_NULL;
    const bool is_same = (a->query_tokens > 1 && a->query_token_stride == 0) || (a->group > 1 && a->query_head_stride == 0);
    return is_same ? KVT_ERR_STRIDE : KVT_OK;
}

/* Errors: NULL, STRIDE. */
static kvt_status check_out(const call *c, const void *workspace)
{
    const kvt_attention *a = &c->a;
    if (!a->out || !workspace)
        return KVT_ERR_NULL;
    const kvt_layout *layout = a->segments[0].layout;
    const size_t bytes = kvt_layout_side(layout, values_of(layout))->dim * kvt_dtype_bytes(a->out_dtype);
    return kvt_grid_is_apart(a->query_tokens, a->group, bytes, a->out_token_stride, a->out_head_stride) ? KVT_OK : KVT_ERR_STRIDE;
}

/* Numbers `from` .. of each query row are the side's. */
static void load_query_side(const call *c, const query_side *to, kvt_side side, uint32_t from)
{
    const kvt_attention *a = &c->a;
    const kvt_layout *layout = a->segments[0].layout;
    const uint8_t *queries = (const uint8_t *)a->queries + from * kvt_dtype_bytes(a->query_dtype);
    for (uint32_t i = 0; i < a->query_tokens; i++)
        c->tier->rows->prepare(to->x + (size_t)i * a->group * to->dim, queries + (ptrdiff_t)i * a->query_token_stride, a->query_head_stride,
                               a->query_dtype, a->group, kvt_layout_side(layout, side)->dim, kvt_options_of(layout, side)->rotation, NULL);
    memset(to->x + (size_t)c->rows * to->dim, 0, (c->padded_rows - c->rows) * to->dim * sizeof *to->x);
    c->tier->softmax->scale_queries(to->x, c->rows, to->dim, a->scale);
}

static void load_queries(const call *c)
{
    load_query_side(c, &c->k, KVT_K, 0);
    if (c->rope.dim)
        load_query_side(c, &c->rope, KVT_ROPE, c->a.segments[0].layout->k.dim);
}

static void store_results(const call *c)
{
    const kvt_attention *a = &c->a;
    const kvt_layout *layout = a->segments[0].layout;
    const kvt_side values = values_of(layout);
    for (uint32_t r = 0; r < c->rows; r++) {
        float *row = c->merged + r * KVT_SUMS(c->v_dim);
        c->tier->softmax->finish(row, c->v_dim, a->sinks ? a->sinks + r % a->group : NULL);
        uint8_t *to = (uint8_t *)a->out + (ptrdiff_t)(r / a->group) * a->out_token_stride + (ptrdiff_t)(r % a->group) * a->out_head_stride;
        c->tier->rows->restore(row, to, 0, a->out_dtype, 1, kvt_layout_side(layout, values)->dim, kvt_options_of(layout, values)->rotation, NULL);
    }
}

static void start_merging(const call *c)
{
    memset(c->merged, 0, c->rows * KVT_SUMS(c->v_dim) * sizeof *c->merged);
}

static void merge_chunk(const call *c, const float *partials)
{
    for (uint32_t r = 0; r < c->rows; r++) {
        const size_t at = r * KVT_SUMS(c->v_dim);
        c->tier->softmax->merge(c->merged + at, partials + at, c->v_dim);
    }
}

kvt_status kvt_attend(const kvt_attention *a, void *workspace)
{
    call c;
    kvt_status status = check_attention(a, &c);
    if (!status)
        status = check_out(&c, workspace);
    if (!status)
        status = check_queries(&c);
    size_t bytes;
    if (!status)
        status = take_workspace(&c, workspace, &bytes);
    if (status)
        return status;
    load_queries(&c);
    start_merging(&c);
    for (size_t i = 0; i < chunks_of(&c); i++) {
        attend_chunk(&c, i);
        merge_chunk(&c, c.sums);
    }
    store_results(&c);
    return KVT_OK;
}

kvt_status kvt_attend_tiles(const kvt_attention *a, bool is_written, size_t first_chunk, size_t n_chunks, void *partials, void *workspace)
{
    call c;
    kvt_status status = check_attention(a, &c);
    c.is_written = is_written;
    if (!status)
        status = check_queries(&c);
    if (!status && (!partials || !workspace))
        status = KVT_ERR_NULL;
    if (!status && (first_chunk > chunks_of(&c) || n_chunks > chunks_of(&c) - first_chunk))
        status = KVT_ERR_RANGE;
    size_t bytes;
    if (!status)
        status = take_workspace(&c, workspace, &bytes);
    if (status)
        return status;
    load_queries(&c);
    for (size_t i = first_chunk; i < first_chunk + n_chunks; i++) {
        attend_chunk(&c, i);
        memcpy((uint8_t *)partials + i * partial_bytes_of(&c), c.sums, partial_bytes_of(&c));
    }
    return KVT_OK;
}

kvt_status kvt_attend_chunks(const kvt_attention *a, size_t first_chunk, size_t n_chunks, void *partials, void *workspace)
{
    return kvt_attend_tiles(a, false, first_chunk, n_chunks, partials, workspace);
}

kvt_status kvt_merge(const kvt_attention *a, const void *partials, void *workspace)
{
    call c;
    kvt_status status = check_attention(a, &c);
    if (!status)
        status = check_out(&c, workspace);
    if (!status && !partials)
        status = KVT_ERR_NULL;
    size_t bytes;
    if (!status)
        status = take_workspace(&c, workspace, &bytes);
    if (status)
        return status;
    start_merging(&c);
    for (size_t i = 0; i < chunks_of(&c); i++) {
        memcpy(c.sums, (const uint8_t *)partials + i * partial_bytes_of(&c), partial_bytes_of(&c));
        merge_chunk(&c, c.sums);
    }
    store_results(&c);
    return KVT_OK;
}

kvt_status kvt_attend_plan(size_t heads, size_t chunks, uint32_t workers, uint32_t worker, size_t *first, size_t *count)
{
    if (!first || !count)
        return KVT_ERR_NULL;
    if (worker >= workers)
        return KVT_ERR_RANGE;
    size_t units, scaled;
    if (__builtin_mul_overflow(heads, chunks, &units) || __builtin_mul_overflow(units, workers, &scaled))
        return KVT_ERR_OVERFLOW;
    *first = units * worker / workers;
    *count = units * (worker + 1) / workers - *first;
    return KVT_OK;
}
