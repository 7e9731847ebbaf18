/* Attention over one KV head's pages: checks the arguments, then walks the spans of a chunk and hands pages to the kernels. */
#include "kernels/api/transfer.h"
#include "kernels/tile.h"

#include <kvtile/attend.h>

#include <float.h>
#include <math.h>

_Static_assert(KVT_CHUNK_TOKENS % KVT_SPAN_TOKENS == 0 && KVT_SPAN_TOKENS % KVT_PAGE_TOKENS == 0, "chunks are spans, and spans are pages");

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

typedef struct call {
    kvt_attention a; /* as this version has it */
    const kvt_tier_kernels *tier;
    uint32_t v_dim; /* padded */
    uint32_t rows;  /* query_tokens * group, in this order */
    range all;      /* what some query sees */
    /* the workspace */
    query_side k, rope;
    float *logits;                   /* [rows][KVT_SPAN_TOKENS], then weights */
    float *rope_logits;              /* the same, what the rotary part adds */
    uint8_t *words;                  /* [rows][KVT_SPAN_TOKENS] of 2 bytes: the weights once more */
    float *factors;                  /* [rows] of a span's weights */
    float *sums;                     /* [rows][KVT_SUMS(v_dim)]: of a chunk */
    float *merged;                   /* the same: of all chunks until now */
    size_t prepared_for;             /* segment; SIZE_MAX: none */
    size_t page_bytes;               /* of the segment with the largest pages, and of as many values */
    uint8_t *first_page, *last_page; /* copies of the pages with `begin` and the last token that is seen: [2] of page_bytes, keys and values */
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
        const kvt_layout *one = segment->layout, *first = a->segments[0].layout;
        bool is_alike = true;
        for (kvt_side side = KVT_K; side <= KVT_ROPE; side++)
            is_alike &= kvt_layout_side(one, side)->dim == kvt_layout_side(first, side)->dim &&
                        kvt_options_of(one, side)->rotation == kvt_options_of(first, side)->rotation;
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
        const range of_it = common(all, (range){ segment->first_token, segment_end(a, i) });
        if (is_empty(of_it))
            continue;
        const size_t first = of_it.first - segment->first_token, n = of_it.end - of_it.first;
        kvt_status status = kvt_check_pages(&segment->pages, segment->layout->page_bytes, first, n);
        if (!status && a->value_pages)
            status = kvt_check_pages(&a->value_pages[i], segment->layout->page_bytes, first, n);
        if (status)
            return status;
    }
    return KVT_OK;
}

static bool is_number(float x)
{
    const float magnitude = fabsf(x);
    return magnitude >= 0x1p-20f && magnitude <= 0x1p20f;
}

/* All but where rows are. */
static kvt_status check(const kvt_attention *given, call *c)
{
    if (!given)
        return KVT_ERR_NULL;
    *c = (call){ .prepared_for = SIZE_MAX };
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
    if (!is_number(a->scale) || (a->soft_cap != 0 && (!is_number(a->soft_cap) || a->soft_cap < 0)))
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
    if (__builtin_mul_overflow(a->query_tokens, a->group, &c->rows))
        return KVT_ERR_OVERFLOW;
    const kvt_layout *layout = a->segments[0].layout;
    c->k.dim = layout->k.padded_dim;
    c->rope.dim = layout->rope.padded_dim;
    c->v_dim = kvt_layout_side(layout, values_of(layout))->padded_dim;
    c->tier = kvt_serving_tier(layout->spec.tiers)->kernels;
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

/* Takes bytes per row from the workspace, or only counts them. */
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
    taker t = { .at = workspace ? (uint8_t *)workspace + (ALIGNMENT - misaligned) % ALIGNMENT : NULL, .used = ALIGNMENT - 1, .rows = c->rows };
    take_query_side(&t, &c->k, c->rows);
    c->logits = take(&t, KVT_SPAN_TOKENS * sizeof(float));
    c->words = take(&t, KVT_SPAN_TOKENS * 2);
    c->factors = take(&t, sizeof(float));
    c->sums = take(&t, KVT_SUMS(c->v_dim) * sizeof(float));
    c->merged = take(&t, KVT_SUMS(c->v_dim) * sizeof(float));
    if (c->rope.dim) {
        take_query_side(&t, &c->rope, c->rows);
        c->rope_logits = take(&t, KVT_SPAN_TOKENS * sizeof(float));
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
    kvt_status status = check(a, &c);
    if (status)
        return status;
    if (!sizes)
        return KVT_ERR_NULL;
    kvt_attend_sizes made = { .chunks = chunks_of(&c), .partial_bytes = partial_bytes_of(&c) };
    status = take_workspace(&c, NULL, &made.workspace_bytes);
    size_t all;
    if (!status && __builtin_mul_overflow(made.chunks, made.partial_bytes, &all))
        status = KVT_ERR_OVERFLOW;
    if (!status)
        *sizes = made;
    return status;
}

/* ---- a chunk ---- */

/* Pages of a span that follow each other in one segment. */
typedef struct part {
    const kvt_layout *layout;
    size_t segment;
    const kvt_side_layout *values;
    const kvt_tier_kernels *tier;
    size_t token; /* the first */
    uint32_t at;  /* where that is in the span */
    uint32_t n;
    const uint8_t *pages[KVT_SPAN_PAGES], *value_pages[KVT_SPAN_PAGES];
    kvt_ahead ahead[KVT_SPAN_PAGES]; /* the keys that are wanted after each page's values */
} part;

static size_t segment_of(const kvt_attention *a, size_t token)
{
    size_t i = a->n_segments - 1;
    while (a->segments[i].first_token > token)
        i--;
    return i;
}

static const uint8_t *page_at(const kvt_segment *segment, size_t token)
{
    return kvt_page_at(&segment->pages, (token - segment->first_token) / KVT_PAGE_TOKENS);
}

/* A side of a page, with zeros for all tokens but first .. end-1. */
static void copy_side(const kvt_layout *layout, kvt_side order, const uint8_t *page, uint32_t first, uint32_t end, uint8_t *copy)
{
    const kvt_side_layout *side = kvt_layout_side(layout, order);
    if (!side->dim)
        return;
    const kvt_tile_spec tile = kvt_tile_spec_of(side, kvt_options_of(layout, order));
    const uint8_t *codes = page + side->codes_offset, *scales = page + side->scales_offset;
    uint8_t *code_copy = copy + side->codes_offset, *scale_copy = copy + side->scales_offset;
    for (uint32_t at = 0; at < KVT_PAGE_TOKENS; at += KVT_TILE_TOKENS) {
        const uint32_t from = first <= at ? 0 : (uint32_t)kvt_smaller(first - at, KVT_TILE_TOKENS),
                       to = end <= at ? 0 : (uint32_t)kvt_smaller(end - at, KVT_TILE_TOKENS);
        kvt_tile_copy_tokens(order == KVT_V ? KVT_V : KVT_K, &tile, codes, scales, from, to, code_copy, scale_copy);
        codes += side->code_bytes;
        scales += side->scale_bytes;
        code_copy += side->code_bytes;
        scale_copy += side->scale_bytes;
    }
    memcpy(copy + side->centre_offset, page + side->centre_offset, side->centre_bytes);
}

/* A page's keys and values. Kernels read whole pages: where one holds tokens before `begin` or behind the last one that is seen, which may never have
 * been written, a copy without them takes its place. */
static void find_page(const call *c, const kvt_layout *layout, size_t segment, size_t token, const uint8_t **keys, const uint8_t **values)
{
    const kvt_attention *a = &c->a;
    const size_t i = (token - a->segments[segment].first_token) / KVT_PAGE_TOKENS;
    *keys = kvt_page_at(&a->segments[segment].pages, i);
    *values = a->value_pages ? kvt_page_at(&a->value_pages[segment], i) : *keys;
    const uint32_t first = a->begin > token ? (uint32_t)(a->begin - token) : 0, end = (uint32_t)kvt_smaller(c->all.end - token, KVT_PAGE_TOKENS);
    if ((first == 0 && end == KVT_PAGE_TOKENS) || !is_seen(a, token))
        return;
    uint8_t *copy = first ? c->first_page : c->last_page, *value_copy = a->value_pages ? copy + c->page_bytes : copy;
    copy_side(layout, KVT_K, *keys, first, end, copy);
    copy_side(layout, KVT_ROPE, *keys, first, end, copy);
    copy_side(layout, KVT_V, *values, first, end, value_copy);
    *keys = copy;
    *values = value_copy;
}

/* From `token` on, a page's first, to the segment's or the span's end; `token` is at `at` of the span. */
static part part_of(const call *c, size_t token, size_t span_end, uint32_t at)
{
    const kvt_attention *a = &c->a;
    const size_t i = segment_of(a, token), end = kvt_smaller(span_end, segment_end(a, i));
    const kvt_segment *segment = &a->segments[i];
    const kvt_layout *layout = segment->layout;
    const kvt_tier_kernels *tier = kvt_serving_tier(layout->spec.tiers)->kernels;
    part made = { .layout = layout, .segment = i, .token = token, .at = at, .values = kvt_layout_side(layout, values_of(layout)) };
    made.tier = tier;
    for (; token < end; token += KVT_PAGE_TOKENS) {
        /* While values are added up the keys of the next span are fetched; after the last one nothing is. */
        const size_t later = token + KVT_SPAN_TOKENS;
        find_page(c, layout, i, token, &made.pages[made.n], &made.value_pages[made.n]);
        made.ahead[made.n] = made.pages[made.n];
        if (later < c->all.end) {
            const kvt_segment *next = &a->segments[segment_of(a, later)];
            made.ahead[made.n] = page_at(next, later) + next->layout->k.codes_offset;
        }
        made.n++;
    }
    return made;
}

/* Logits of a page's first n_tiles tiles, of one side. What is `ahead` is wanted next. */
static void score_page(const call *c, const query_side *queries, const kvt_tier_kernels *tier, const uint8_t *page, const kvt_side_layout *side,
                       const kvt_tile_spec *tile, uint32_t n_tiles, float *logits, kvt_ahead ahead)
{
    tier->loops[tile->scheme->loop]->score(kvt_scales_of(tier, tile), page + side->codes_offset, page + side->scales_offset, tile, &queries->prepared,
                                           n_tiles, logits, ahead);
    if (!side->centre_bytes)
        return;
    float mu[KVT_MAX_DIM];
    c->tier->rows->load_centre(mu, page + side->centre_offset, queries->dim);
    for (uint32_t r = 0; r < c->rows; r++)
        c->tier->softmax->add_offset(logits + (size_t)r * KVT_SPAN_TOKENS, queries->x + (size_t)r * queries->dim, mu, queries->dim);
}

/* Logits of all rows; of the last page `last` tokens may be seen. While keys are scored, what else is read of their page is fetched. */
static void score_part(call *c, const part *of, uint32_t last)
{
    const kvt_layout *layout = of->layout;
    const kvt_tile_spec tile = kvt_tile_spec_of(&layout->k, &layout->spec.k_options);
    const kvt_tile_spec rope_tile = kvt_tile_spec_of(&layout->rope, &layout->spec.rope_options);
    const kvt_loops *k = of->tier->loops[tile.scheme->loop], *rope = layout->rope.dim ? of->tier->loops[rope_tile.scheme->loop] : NULL;
    if (c->prepared_for != of->segment && k->prepare)
        k->prepare(&c->k.prepared, &tile);
    if (c->prepared_for != of->segment && rope && rope->prepare)
        rope->prepare(&c->rope.prepared, &rope_tile);
    c->prepared_for = of->segment;
    const size_t next = layout->v.dim ? layout->v.codes_offset : layout->rope.codes_offset;
    for (uint32_t i = 0; i < of->n; i++) {
        if (!is_seen(&c->a, of->token + (size_t)i * KVT_PAGE_TOKENS))
            continue;
        const uint8_t *page = of->pages[i];
        float *logits = c->logits + of->at + i * KVT_PAGE_TOKENS;
        const uint32_t tokens = i + 1 < of->n ? KVT_PAGE_TOKENS : last, tiles = (tokens + KVT_TILE_TOKENS - 1) / KVT_TILE_TOKENS;
        score_page(c, &c->k, of->tier, page, &layout->k, &tile, tiles, logits, (layout->v.dim ? of->value_pages[i] : page) + next);
        if (!rope)
            continue;
        float *rope_logits = c->rope_logits + of->at + i * KVT_PAGE_TOKENS;
        score_page(c, &c->rope, of->tier, page, &layout->rope, &rope_tile, tiles, rope_logits, page);
        c->tier->softmax->add_logits(logits, rope_logits, c->rows, tiles);
    }
}

/* Rows from `row` on, n of them, which see tokens first .. end-1 of the part: of each of its pages some. */
static void weigh_rows(const call *c, const part *of, uint32_t row, uint32_t n, uint32_t first, uint32_t end)
{
    const kvt_side_layout *side = of->values;
    const kvt_side order = values_of(of->layout);
    const kvt_tile_spec tile = kvt_tile_spec_of(side, kvt_options_of(of->layout, order));
    const size_t stride = KVT_SUMS(c->v_dim);
    kvt_weighted w = {
        .pages = of->n,
        .first = first,
        .end = end,
        .rows = n,
        .weights = c->logits + (size_t)row * KVT_SPAN_TOKENS + of->at,
        .words = c->words + ((size_t)row * KVT_SPAN_TOKENS + of->at) * 2,
        .factors = c->factors + row,
        .sums = c->sums + row * stride,
        .sum_stride = stride,
    };
    for (uint32_t i = 0; i < of->n; i++) {
        w.codes[i] = of->value_pages[i] + side->codes_offset;
        w.scales[i] = of->value_pages[i] + side->scales_offset;
        w.ahead[i] = of->ahead[i];
    }
    of->tier->loops[tile.scheme->loop]->value[order](kvt_scales_of(of->tier, &tile), &tile, &w);
    for (uint32_t i = 0; side->centre_bytes && i < of->n; i++) {
        float mu[KVT_MAX_DIM];
        c->tier->rows->load_centre(mu, of->value_pages[i] + side->centre_offset, c->v_dim);
        for (uint32_t r = 0; r < n; r++)
            c->tier->softmax->add_centre(w.sums + r * stride, w.weights + (size_t)r * KVT_SPAN_TOKENS + i * KVT_PAGE_TOKENS, w.factors[r], mu,
                                         c->v_dim);
    }
}

/* Without the pages before `before` and from `end` on. */
static part some_of(const part *of, uint32_t before, uint32_t end)
{
    part made = *of;
    made.token += before * KVT_PAGE_TOKENS;
    made.at += before * KVT_PAGE_TOKENS;
    made.n = end - before;
    for (uint32_t i = 0; i < made.n; i++) {
        made.pages[i] = of->pages[before + i];
        made.value_pages[i] = of->value_pages[before + i];
        made.ahead[i] = of->ahead[before + i];
    }
    return made;
}

/* Whether query token i + 1 has the same bits as i for all of the part. */
static bool is_alike(const kvt_attention *a, uint32_t i, const part *of)
{
    bool is = true;
    for (uint32_t page = 0; a->bits && page < of->n; page++) {
        const size_t token = of->token + (size_t)page * KVT_PAGE_TOKENS;
        is &= bits_at(a, i, token) == bits_at(a, i + 1, token);
    }
    return is;
}

/* Rows that see the same of the part at once, and no page that they see nothing of: that has no weights. */
static void weigh_part(const call *c, const part *of)
{
    const range whole = { of->token, of->token + (size_t)of->n * KVT_PAGE_TOKENS };
    const uint32_t group = c->a.group;
    for (uint32_t i = 0, n; i < c->a.query_tokens; i += n) {
        const range all = seen_in(&c->a, i, whole);
        for (n = 1; i + n < c->a.query_tokens && is_alike(&c->a, i + n - 1, of); n++) {
            const range next = seen_in(&c->a, i + n, whole);
            if (next.first != all.first || next.end != all.end)
                break;
        }
        /* Pages that follow each other and have something that is seen. */
        for (range left = all, of_it; !is_empty(left); left = seen_in(&c->a, i, (range){ of_it.end, all.end })) {
            of_it = left;
            if (c->a.bits) {
                size_t end = left.first / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS + KVT_PAGE_TOKENS;
                while (end < left.end && bits_at(&c->a, i, end))
                    end += KVT_PAGE_TOKENS;
                of_it.end = kvt_smaller(end, left.end);
            }
            const part seen =
                some_of(of, (uint32_t)((of_it.first - of->token) / KVT_PAGE_TOKENS), (uint32_t)((of_it.end - 1 - of->token) / KVT_PAGE_TOKENS) + 1);
            weigh_rows(c, &seen, i * group, n * group, (uint32_t)(of_it.first - seen.token), (uint32_t)(of_it.end - seen.token));
        }
    }
}

/* What is hidden within the range that a query token sees gets the smallest logit, which has no weight; slopes count as they come. */
static void bias_logits(const call *c, uint32_t i, range seen, size_t begin)
{
    const kvt_attention *a = &c->a;
    for (uint32_t h = 0; h < a->group; h++) {
        float *logits = c->logits + ((size_t)i * a->group + h) * KVT_SPAN_TOKENS;
        const float slope = a->slopes ? a->slopes[h] : 0;
        for (size_t token = seen.first; a->slopes && token < seen.end; token++)
            logits[token - begin] += slope * ((float)(ptrdiff_t)(token - (a->position + i)));
        for (size_t token = seen.first / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS; a->bits && token < seen.end; token += KVT_PAGE_TOKENS)
            for (uint64_t hidden = ~bits_at(a, i, token); hidden; hidden &= hidden - 1)
                logits[token - begin + (size_t)__builtin_ctzll(hidden)] = -FLT_MAX;
    }
}

/* Rows' weights, and what they take of them into account; words only where values want them. */
static void soften_rows(const call *c, range span, size_t begin, bool wants_words)
{
    const uint32_t group = c->a.group;
    const size_t stride = KVT_SUMS(c->v_dim);
    for (uint32_t i = 0; i < c->a.query_tokens; i++) {
        const range of_it = seen_in(&c->a, i, span);
        const size_t row = (size_t)i * group;
        if (is_empty(of_it))
            continue;
        if (c->a.bits || c->a.slopes)
            bias_logits(c, i, of_it, begin);
        c->tier->softmax->soften(c->logits + row * KVT_SPAN_TOKENS, group, (uint32_t)(of_it.first - begin), (uint32_t)(of_it.end - begin),
                                 c->a.soft_cap, c->sums + row * stride, stride, c->v_dim, wants_words ? c->words + row * KVT_SPAN_TOKENS * 2 : NULL,
                                 c->factors + row);
    }
}

static void attend_span(call *c, range span, size_t begin)
{
    part parts[KVT_SPAN_PAGES];
    bool wants_words = false;
    uint32_t n = 0;
    for (size_t token = span.first / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS; token < span.end; n++) {
        parts[n] = part_of(c, token, span.end, (uint32_t)(token - begin));
        token += parts[n].n * KVT_PAGE_TOKENS;
        wants_words |= kvt_is_integer(&kvt_scheme_codes[kvt_scheme_rows[parts[n].values->scheme]]);
        score_part(c, &parts[n], token > span.end ? KVT_PAGE_TOKENS - (uint32_t)(token - span.end) : KVT_PAGE_TOKENS);
    }
    soften_rows(c, span, begin, wants_words);
    for (uint32_t i = 0; i < n; i++)
        weigh_part(c, &parts[i]);
}

/* The partial of a chunk, to c->sums. */
static void attend_chunk(call *c, size_t chunk)
{
    const size_t stride = KVT_SUMS(c->v_dim), begin = (first_chunk_of(c) + chunk) * KVT_CHUNK_TOKENS;
    memset(c->sums, 0, c->rows * stride * sizeof *c->sums);
    for (size_t at = begin; at < begin + KVT_CHUNK_TOKENS; at += KVT_SPAN_TOKENS) {
        const range span = common(c->all, (range){ at, at + KVT_SPAN_TOKENS });
        if (!is_empty(span))
            attend_span(c, span, at);
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
    kvt_status status = check(a, &c);
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

kvt_status kvt_attend_chunks(const kvt_attention *a, size_t first_chunk, size_t n_chunks, void *partials, void *workspace)
{
    call c;
    kvt_status status = check(a, &c);
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

kvt_status kvt_merge(const kvt_attention *a, const void *partials, void *workspace)
{
    call c;
    kvt_status status = check(a, &c);
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
    size_t units, of_it;
    if (__builtin_mul_overflow(heads, chunks, &units) || __builtin_mul_overflow(units, workers, &of_it))
        return KVT_ERR_OVERFLOW;
    *first = units * worker / workers;
    *count = units * (worker + 1) / workers - *first;
    return KVT_OK;
}
