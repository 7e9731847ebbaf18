/* SPDX-License-Identifier: MIT */
/* Sequences in blocks: who holds which block, what a sequence's tables are, and what a step is told. Rows that move are in cache_work.c. */
#include "kernels/api/cache.h"

#include <math.h>
#include <stdio.h>

enum { LINE = 64 };

/* ---- blocks ---- */

uint32_t kvt_block_take(kvt_blocks *blocks)
{
    uint64_t top = atomic_load_explicit(&blocks->top, memory_order_acquire), after;
    do {
        if ((uint32_t)top == KVT_NO_BLOCK)
            return KVT_NO_BLOCK;
        /* Another thread may have taken it by now, and what is read here be anything: then the number in the upper half has changed. */
        after = ((top >> 32) + 1) << 32 | atomic_load_explicit(&blocks->next[(uint32_t)top], memory_order_relaxed);
    } while (!atomic_compare_exchange_weak_explicit(&blocks->top, &top, after, memory_order_acq_rel, memory_order_acquire));
    atomic_store_explicit(&blocks->counts[(uint32_t)top], 1, memory_order_relaxed);
    return (uint32_t)top;
}

void kvt_block_release(kvt_blocks *blocks, uint32_t id)
{
    if (atomic_fetch_sub_explicit(&blocks->counts[id], 1, memory_order_acq_rel) != 1)
        return;
    uint64_t top = atomic_load_explicit(&blocks->top, memory_order_relaxed), after;
    do {
        atomic_store_explicit(&blocks->next[id], (uint32_t)top, memory_order_relaxed);
        after = ((top >> 32) + 1) << 32 | id;
    } while (!atomic_compare_exchange_weak_explicit(&blocks->top, &top, after, memory_order_acq_rel, memory_order_relaxed));
}

void kvt_block_give(kvt_blocks *blocks, uint32_t *id)
{
    if (*id != KVT_NO_BLOCK)
        kvt_block_release(blocks, *id);
    *id = KVT_NO_BLOCK;
}

void kvt_give_pages(kvt_group *group, uint32_t *table, size_t first, size_t end)
{
    for (size_t p = first; p < end; p++)
        kvt_block_give(kvt_kind_of(group, p), &table[p]);
}

void kvt_give_new_open(kvt_group *group, kvt_holding *h)
{
    kvt_block_give(&group->open_pages, &h->new_open[0]);
    kvt_block_give(&group->open_pages, &h->new_open[1]);
}

void kvt_keep_new_open(kvt_group *group, kvt_holding *h, uint32_t i)
{
    if (h->new_open[i] == KVT_NO_BLOCK)
        return;
    kvt_block_give(&group->open_pages, &h->open[i]);
    h->open[i] = h->new_open[i];
}

static void init_blocks(kvt_blocks *blocks)
{
    for (uint32_t i = 0; i < blocks->all; i++) {
        atomic_init(&blocks->counts[i], 0);
        atomic_init(&blocks->next[i], i + 1 < blocks->all ? i + 1 : KVT_NO_BLOCK);
    }
    atomic_init(&blocks->top, blocks->all ? 0 : KVT_NO_BLOCK);
}

/* ---- memory ---- */

/* Gives out memory, or only counts it while there is none. */
typedef struct arena {
    uint8_t *base;
    size_t used;
    bool is_too_much;
} arena;

static void *take_array(arena *m, size_t n, size_t bytes)
{
    size_t wanted, end;
    if (__builtin_mul_overflow(n, bytes, &wanted) || wanted > PTRDIFF_MAX - 2 * LINE ||
        __builtin_add_overflow(m->used, kvt_whole_lines(wanted), &end) || end > PTRDIFF_MAX) {
        m->is_too_much = true;
        return NULL;
    }
    void *at = m->base ? m->base + m->used : NULL;
    m->used = end;
    return at;
}

static void place_book(arena *m, kvt_blocks *blocks)
{
    blocks->counts = take_array(m, blocks->all, sizeof *blocks->counts);
    blocks->next = take_array(m, blocks->all, sizeof *blocks->next);
}

static void place_blocks(arena *m, kvt_blocks *blocks)
{
    blocks->base = take_array(m, blocks->all, blocks->bytes);
}

static kvt_pool pool_of_blocks(const kvt_blocks *blocks, uint32_t layers, uint32_t heads)
{
    const size_t layer = blocks->bytes / layers;
    return (
        kvt_pool){ .base = blocks->base, .blocks = blocks->all, .layer_stride = layer, .block_stride = blocks->bytes, .head_stride = layer / heads };
}

/* ---- what a cache is made of ---- */

typedef struct plan {
    kvt_cache_spec spec;
    kvt_cache cache;
    kvt_group groups[KVT_CACHE_MAX_GROUPS];
    arena memory;
} plan;

static kvt_status check_side(const kvt_problem *why, uint32_t g, const char *name, const kvt_spec *spec)
{
    char text[256];
    const kvt_status status = kvt_spec_problem(spec, text, sizeof text);
    return status ? kvt_fail(why, status, "group %u: %s: %s", g, name, text) : KVT_OK;
}

static kvt_status check_rope(const kvt_problem *why, uint32_t g, const kvt_rope *given, kvt_group *group)
{
    if (!given)
        return KVT_OK;
    const uint32_t dim = group->layout.rope.dim ? group->layout.rope.dim : group->layout.k.dim;
    const kvt_status status = kvt_rope_take(given, dim, &group->rope);
    group->has_rope = true;
    return status ? kvt_fail(why, status, "group %u: rope has %u pairs from channel %u on, in keys of %u channels: %s", g, given->pairs, given->first,
                             dim, status == KVT_ERR_NUMBER ? "a frequency is not finite, or above 16" : kvt_status_text(status))
                  : KVT_OK;
}

/* One more block for each half of those that may be held twice: forks that write at the same time have old and new ones for a moment. */
static size_t with_changing(size_t blocks, uint32_t sequences)
{
    return sequences > 1 ? blocks + blocks / 2 : blocks;
}

static kvt_status check_group(const kvt_problem *why, uint32_t g, const kvt_cache_group *given, uint32_t sequences, kvt_group *group)
{
    kvt_cache_group d;
    if (KVT_TAKE_STRUCT(kvt_cache_group, rope, &d, given))
        return kvt_fail(why, KVT_ERR_STRUCT_SIZE, "group %u: size is %zu, not %zu", g, given->size, sizeof *given);
    if (!d.spec)
        return kvt_fail(why, KVT_ERR_NULL, "group %u: spec is NULL", g);
    kvt_status status = check_side(why, g, "spec", d.spec);
    if (!status && d.first_spec)
        status = check_side(why, g, "first_spec", d.first_spec);
    if (!status)
        status = kvt_layout_init(&group->layout, d.spec);
    if (!status && d.first_spec)
        status = kvt_layout_init(&group->first_layout, d.first_spec);
    if (status)
        return status;
    if (d.layers < 1 || d.blocks < 1 || d.blocks >= KVT_NO_BLOCK)
        return kvt_fail(why, KVT_ERR_RANGE, "group %u: layers is %u and blocks %zu: each has to be at least 1, and blocks less than %u", g, d.layers,
                        d.blocks, KVT_NO_BLOCK);
    const uint32_t heads = group->layout.spec.kv_heads;
    size_t layers_heads, open = 0;
    if (__builtin_mul_overflow((size_t)heads, (size_t)d.layers, &layers_heads))
        return KVT_ERR_OVERFLOW;
    if (d.open_dtype)
        (void)!kvt_view_open_bytes(&group->layout, d.open_dtype, &open); /* the view's check says what is wrong */
    if (__builtin_mul_overflow(group->layout.page_bytes, layers_heads, &group->pages.bytes) ||
        __builtin_mul_overflow(group->first_layout.page_bytes, layers_heads, &group->first_pages.bytes) ||
        __builtin_mul_overflow(open, layers_heads, &group->open_pages.bytes))
        return KVT_ERR_OVERFLOW;
    /* As it will be, but for blocks, of which there are none yet. */
    const kvt_view view = { .size = sizeof view,
                            .layout = &group->layout,
                            .first_layout = d.first_spec ? &group->first_layout : NULL,
                            .pages = pool_of_blocks(&group->pages, d.layers, heads),
                            .first_pages = pool_of_blocks(&group->first_pages, d.layers, heads),
                            .open_pages = pool_of_blocks(&group->open_pages, d.layers, heads),
                            .open_dtype = d.open_dtype,
                            .layers = d.layers };
    char text[256];
    status = kvt_view_problem(&view, text, sizeof text);
    if (status)
        return kvt_fail(why, status, "group %u: %s", g, text);
    group->pages.all = (uint32_t)d.blocks;
    group->first_pages.all = d.first_spec ? (uint32_t)with_changing(sequences, sequences) : 0;
    group->open_pages.all = d.open_dtype ? (uint32_t)with_changing(2 * (size_t)sequences, sequences) : 0;
    group->window = d.window;
    group->spare = d.spare;
    group->first_kept = d.first_kept;
    group->view.v = view;
    return check_rope(why, g, d.rope, group);
}

static kvt_status check_spec(const kvt_problem *why, const kvt_cache_spec *given, plan *p)
{
    if (!given)
        return kvt_fail(why, KVT_ERR_NULL, "spec is NULL");
    memset(p, 0, sizeof *p);
    if (KVT_TAKE_STRUCT(kvt_cache_spec, state_marks, &p->spec, given))
        return kvt_fail(why, KVT_ERR_STRUCT_SIZE, "spec.size is %zu, not %zu", given->size, sizeof *given);
    const kvt_cache_spec *s = &p->spec;
    if (s->n_groups > KVT_CACHE_MAX_GROUPS || (s->n_groups == 0 && s->state_bytes == 0))
        return kvt_fail(why, KVT_ERR_RANGE, "n_groups is %u: it has to be 1 to %d, or 0 with a state", s->n_groups, KVT_CACHE_MAX_GROUPS);
    if (s->n_groups && !s->groups)
        return kvt_fail(why, KVT_ERR_NULL, "groups is NULL");
    if (s->sequences < 1 || s->sequences > 1 << 20)
        return kvt_fail(why, KVT_ERR_RANGE, "sequences is %u: it has to be 1 to %d", s->sequences, 1 << 20);
    if (s->tokens < 1 || s->tokens > INT32_MAX)
        return kvt_fail(why, KVT_ERR_RANGE, "tokens is %zu: it has to be 1 to %d", s->tokens, INT32_MAX);
    if (s->state_marks > 1 << 10)
        return kvt_fail(why, KVT_ERR_RANGE, "state_marks is %u: it has to be at most %d", s->state_marks, 1 << 10);
    kvt_status status = KVT_OK;
    for (uint32_t g = 0; g < s->n_groups && !status; g++)
        status = check_group(why, g, (const kvt_cache_group *)(const void *)((const uint8_t *)s->groups + g * s->groups->size), s->sequences,
                             &p->groups[g]);
    return status;
}

/* Rows of a page of the widest as floats, with cosines and sines; or a page, of saving. */
static size_t scratch_bytes(const plan *p)
{
    size_t widest = 0, pairs = 0, page = 0;
    for (uint32_t g = 0; g < p->spec.n_groups; g++) {
        const kvt_layout *l = &p->groups[g].layout;
        widest = kvt_larger(widest, kvt_larger(l->k.dim, kvt_larger(l->v.dim, l->rope.dim)));
        pairs = kvt_larger(pairs, p->groups[g].rope.pairs);
        page = kvt_larger(page, kvt_larger(l->page_bytes, p->groups[g].first_layout.page_bytes));
    }
    return kvt_larger(kvt_whole_lines((KVT_PAGE_TOKENS * widest + 2 * pairs) * sizeof(float)), page);
}

/* Gives everything its place, books first; counts bytes while there is no memory. */
static void place_all(plan *p, kvt_record **records)
{
    arena *m = &p->memory;
    kvt_cache *c = &p->cache;
    const uint32_t sequences = p->spec.sequences, n = p->spec.n_groups;
    *c = (kvt_cache){ .tokens = p->spec.tokens,
                      .pages = kvt_pages_of(p->spec.tokens),
                      .n_groups = n,
                      .n_sequences = sequences,
                      .state_bytes = p->spec.state_bytes,
                      .state_marks = p->spec.state_bytes ? p->spec.state_marks : 0,
                      .scratch_bytes = scratch_bytes(p) };
    take_array(m, 1, sizeof *c);
    c->groups = take_array(m, n, sizeof *c->groups);
    c->records = *records = take_array(m, sequences, sizeof *c->records);
    for (uint32_t i = 0; i < sequences; i++) {
        kvt_record r = { .groups = take_array(m, n, sizeof *r.groups),
                         .marks = take_array(m, c->state_marks, sizeof *r.marks),
                         .marked = take_array(m, c->state_marks, sizeof *r.marked),
                         .map = take_array(m, c->pages, sizeof *r.map),
                         .before = take_array(m, c->pages + 1, sizeof *r.before),
                         .state = KVT_NO_BLOCK };
        for (uint32_t g = 0; g < n; g++) {
            kvt_holding h = { .table = take_array(m, c->pages, sizeof *h.table), .other = take_array(m, c->pages, sizeof *h.other) };
            if (m->base)
                r.groups[g] = h;
        }
        if (m->base)
            memcpy(&c->records[i], &r, sizeof r);
        if (m->is_too_much)
            return;
    }
    c->states.bytes = kvt_whole_lines(c->state_bytes);
    const size_t states = c->state_bytes ? (size_t)sequences * (1 + c->state_marks) + sequences / 2 : 0;
    m->is_too_much |= states > INT32_MAX || c->state_bytes > PTRDIFF_MAX / 2;
    c->states.all = (uint32_t)states;
    place_book(m, &c->states);
    for (uint32_t g = 0; g < n; g++) {
        kvt_group *group = &p->groups[g];
        place_book(m, &group->pages);
        place_book(m, &group->first_pages);
        place_book(m, &group->open_pages);
        double *frequencies = take_array(m, group->rope.pairs, sizeof *frequencies);
        if (frequencies && group->has_rope) {
            memcpy(frequencies, group->rope.frequencies, group->rope.pairs * sizeof *frequencies);
            group->rope.frequencies = frequencies;
        }
    }
    c->book_bytes = m->used;
    place_blocks(m, &c->states);
    for (uint32_t g = 0; g < n; g++) {
        place_blocks(m, &p->groups[g].pages);
        place_blocks(m, &p->groups[g].first_pages);
        place_blocks(m, &p->groups[g].open_pages);
    }
    c->bytes = m->used;
}

static kvt_status measure_cache(const kvt_problem *why, const kvt_cache_spec *spec, plan *p)
{
    kvt_status status = check_spec(why, spec, p);
    kvt_record *records;
    if (!status) {
        place_all(p, &records);
        status = p->memory.is_too_much ? KVT_ERR_OVERFLOW : KVT_OK;
    }
    return status == KVT_ERR_OVERFLOW ? kvt_fail(why, status, "%s", kvt_status_text(status)) : status;
}

static const kvt_problem nobody = { NULL, 0 };

kvt_status kvt_cache_bytes(const kvt_cache_spec *spec, size_t *bytes)
{
    if (!bytes)
        return KVT_ERR_NULL;
    plan p;
    const kvt_status status = measure_cache(&nobody, spec, &p);
    if (!status)
        *bytes = p.memory.used;
    return status;
}

kvt_status kvt_cache_spec_problem(const kvt_cache_spec *spec, char *text, size_t bytes)
{
    plan p;
    const kvt_status status = measure_cache(&(kvt_problem){ text, bytes }, spec, &p);
    if (text && bytes && !status)
        *text = '\0';
    return status;
}

/* A group in its place: what points into it does so from now on. */
static kvt_status settle_group(kvt_group *group, const kvt_group *planned)
{
    *group = *planned;
    kvt_view view = group->view.v;
    const uint32_t heads = group->layout.spec.kv_heads;
    view.layout = &group->layout;
    view.first_layout = view.first_layout ? &group->first_layout : NULL;
    view.pages = pool_of_blocks(&group->pages, view.layers, heads);
    view.first_pages = pool_of_blocks(&group->first_pages, view.layers, heads);
    view.open_pages = pool_of_blocks(&group->open_pages, view.layers, heads);
    init_blocks(&group->pages);
    init_blocks(&group->first_pages);
    init_blocks(&group->open_pages);
    return kvt_check_view(&nobody, &view, &group->view);
}

kvt_status kvt_cache_init(const kvt_cache_spec *spec, void *memory, size_t bytes, kvt_cache **cache)
{
    if (!memory || !cache)
        return KVT_ERR_NULL;
    plan p;
    kvt_status status = measure_cache(&nobody, spec, &p);
    if (status)
        return status;
    if (bytes < p.memory.used || (uintptr_t)memory % LINE)
        return KVT_ERR_RANGE;
    kvt_record *records;
    p.memory.base = memory;
    p.memory.used = 0;
    place_all(&p, &records);
    kvt_cache *c = memory;
    *c = p.cache;
    for (uint32_t g = 0; g < c->n_groups && !status; g++)
        status = settle_group(&c->groups[g], &p.groups[g]);
    for (uint32_t i = 0; i < c->n_sequences; i++) {
        atomic_init(&records[i].is_used, 0);
        atomic_init(&records[i].ready, 0);
    }
    init_blocks(&c->states);
    if (!status)
        *cache = c;
    return status;
}

const kvt_view *kvt_cache_view(const kvt_cache *cache, uint32_t group)
{
    return cache && group < cache->n_groups ? &cache->groups[group].view.v : NULL;
}

/* ---- sequences ---- */

kvt_record *kvt_record_of(const kvt_cache *cache, uint32_t id, kvt_status *status)
{
    *status = !cache ? KVT_ERR_NULL : KVT_ERR_SEQUENCE;
    if (!cache || id >= cache->n_sequences || !atomic_load_explicit(&cache->records[id].is_used, memory_order_acquire))
        return NULL;
    kvt_record *r = &cache->records[id];
    if (r->is_pending)
        return NULL;
    *status = KVT_OK;
    return r;
}

void kvt_cache_problem(const kvt_cache *cache, uint32_t id, char *text, size_t bytes)
{
    if (!text || !bytes)
        return;
    if (!cache)
        snprintf(text, bytes, "cache is NULL");
    else if (id == KVT_NO_SEQUENCE)
        snprintf(text, bytes, "all %u sequences of the cache are in use, or its states are", cache->n_sequences);
    else if (id >= cache->n_sequences || !atomic_load_explicit(&cache->records[id].is_used, memory_order_acquire))
        snprintf(text, bytes, "sequence is %u: it was not given by kvt_cache_new or kvt_cache_fork, or was freed (the cache has %u)", id,
                 cache->n_sequences);
    else if (cache->records[id].is_pending)
        snprintf(text, bytes, "rows of sequence %u wait to be moved: every worker calls kvt_cache_work first", id);
    else
        snprintf(text, bytes, "%s", cache->records[id].why);
}

/* A sequence that nobody uses, or KVT_NO_SEQUENCE. */
static uint32_t claim(kvt_cache *cache)
{
    for (uint32_t i = 0; i < cache->n_sequences; i++) {
        uint32_t is_used = 0;
        if (!atomic_load_explicit(&cache->records[i].is_used, memory_order_relaxed) &&
            atomic_compare_exchange_strong_explicit(&cache->records[i].is_used, &is_used, 1, memory_order_acq_rel, memory_order_relaxed))
            return i;
    }
    return KVT_NO_SEQUENCE;
}

static void reset(kvt_cache *cache, kvt_record *r)
{
    r->stored = 0;
    r->fresh = 0;
    r->n_marks = 0;
    r->state = KVT_NO_BLOCK;
    r->is_pending = false;
    r->why[0] = '\0';
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        kvt_holding *h = &r->groups[g];
        *h = (kvt_holding){ .table = h->table, .other = h->other, .open = { KVT_NO_BLOCK, KVT_NO_BLOCK } };
    }
}

kvt_status kvt_cache_new(kvt_cache *cache, uint32_t *id)
{
    if (!cache || !id)
        return KVT_ERR_NULL;
    *id = claim(cache);
    if (*id == KVT_NO_SEQUENCE)
        return KVT_ERR_FULL;
    kvt_record *r = &cache->records[*id];
    reset(cache, r);
    if (!cache->state_bytes)
        return KVT_OK;
    r->state = kvt_block_take(&cache->states);
    if (r->state == KVT_NO_BLOCK) {
        atomic_store_explicit(&r->is_used, 0, memory_order_release);
        *id = KVT_NO_SEQUENCE;
        return KVT_ERR_FULL;
    }
    memset(kvt_block_at(&cache->states, r->state), 0, cache->states.bytes);
    return KVT_OK;
}

/* Pages from `from` on. */
static void drop_pages(kvt_group *group, kvt_holding *h, size_t from)
{
    kvt_give_pages(group, h->table, from, h->n);
    h->n = kvt_smaller(h->n, from);
    h->given = kvt_smaller(h->given, h->n);
}

void kvt_drop_marks(kvt_cache *cache, kvt_record *r, size_t above)
{
    while (r->n_marks && r->marked[r->n_marks - 1] > above)
        kvt_block_release(&cache->states, r->marks[--r->n_marks]);
}

static void drop_all(kvt_cache *cache, kvt_record *r)
{
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        kvt_group *group = &cache->groups[g];
        kvt_holding *h = &r->groups[g];
        drop_pages(group, h, 0);
        kvt_block_give(&group->open_pages, &h->open[0]);
        kvt_block_give(&group->open_pages, &h->open[1]);
    }
    while (r->n_marks)
        kvt_block_release(&cache->states, r->marks[--r->n_marks]);
    kvt_block_give(&cache->states, &r->state);
}

kvt_status kvt_cache_free(kvt_cache *cache, uint32_t id)
{
    kvt_status status;
    kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return status;
    drop_all(cache, r);
    atomic_store_explicit(&r->is_used, 0, memory_order_release);
    return KVT_OK;
}

size_t kvt_cache_tokens(const kvt_cache *cache, uint32_t id)
{
    kvt_status status;
    const kvt_record *r = kvt_record_of(cache, id, &status);
    return r ? r->stored : 0;
}

size_t kvt_cache_fresh(const kvt_cache *cache, uint32_t id)
{
    kvt_status status;
    const kvt_record *r = kvt_record_of(cache, id, &status);
    return r ? r->fresh : 0;
}

kvt_status kvt_cache_entry(const kvt_cache *cache, uint32_t id, uint32_t group, kvt_sequence *entry)
{
    kvt_status status;
    const kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return status;
    if (!entry || group >= cache->n_groups)
        return entry ? KVT_ERR_RANGE : KVT_ERR_NULL;
    const kvt_holding *h = &r->groups[group];
    *entry = kvt_entry_of(h, h->table, h->n, r->stored, r->fresh);
    for (int i = 0; i < 2; i++) /* kvt_cache_append sees to both; until then one may be missing, which nobody reads */
        if (entry->open[i] == KVT_NO_BLOCK)
            entry->open[i] = h->open[1 - i];
    return KVT_OK;
}

/* ---- append ---- */

/* Whether the step writes rows to open block i: those of the newest two pages, if it adds to them. */
static bool writes_open(size_t stored, size_t total, uint32_t i)
{
    const size_t last = (total - 1) / KVT_PAGE_TOKENS, first = kvt_larger(stored / KVT_PAGE_TOKENS, last ? last - 1 : 0);
    return last % 2 == i || (first < last && first % 2 == i);
}

/* Takes what a group needs for `total` tokens, and changes nothing that can be seen. Errors: FULL. */
static bool take_for_append(kvt_group *group, const kvt_record *r, kvt_holding *h, size_t total)
{
    h->new_n = h->n;
    h->new_open[0] = h->new_open[1] = h->new_page = KVT_NO_BLOCK;
    const size_t needed = kvt_pages_held(group, total), own = r->stored / KVT_PAGE_TOKENS;
    for (; h->new_n < needed; h->new_n++)
        if ((h->table[h->new_n] = kvt_block_take(kvt_kind_of(group, h->new_n))) == KVT_NO_BLOCK)
            return false;
    if (!group->view.v.open_dtype) {
        kvt_blocks *kind = kvt_kind_of(group, own);
        const bool is_shared = r->stored % KVT_PAGE_TOKENS && kvt_block_is_shared(kind, h->table[own]);
        return !is_shared || (h->new_page = kvt_block_take(kind)) != KVT_NO_BLOCK;
    }
    for (uint32_t i = 0; i < (total > KVT_PAGE_TOKENS ? 2 : 1); i++) {
        const bool is_needed =
            h->open[i] == KVT_NO_BLOCK || (writes_open(r->stored, total, i) && kvt_block_is_shared(&group->open_pages, h->open[i]));
        if (is_needed && (h->new_open[i] = kvt_block_take(&group->open_pages)) == KVT_NO_BLOCK)
            return false;
    }
    return true;
}

static void return_taken(kvt_group *group, const kvt_record *r, kvt_holding *h)
{
    kvt_give_pages(group, h->table, h->n, h->new_n);
    kvt_give_new_open(group, h);
    kvt_block_give(kvt_kind_of(group, r->stored / KVT_PAGE_TOKENS), &h->new_page);
}

/* The first n rows of a page, in all layers and heads and on both sides. */
static void copy_open(const kvt_group *group, uint32_t from, uint32_t to, size_t n)
{
    const kvt_checked_view *v = &group->view;
    const uint8_t *a = kvt_block_at(&group->open_pages, from);
    uint8_t *b = kvt_block_at(&group->open_pages, to);
    for (size_t at = 0; at < group->open_pages.bytes; at += v->open_bytes) {
        memcpy(b + at, a + at, n * v->row_bytes[0]);
        const size_t second = at + v->row_bytes[0] * KVT_PAGE_TOKENS;
        memcpy(b + second, a + second, n * v->row_bytes[1]);
    }
}

static void keep_taken(kvt_group *group, const kvt_record *r, kvt_holding *h)
{
    const size_t own = r->stored / KVT_PAGE_TOKENS;
    h->n = h->new_n;
    for (uint32_t i = 0; i < 2; i++) {
        if (h->new_open[i] == KVT_NO_BLOCK)
            continue;
        /* The new tokens may be fewer in the end, or none: so rows of the page before are still needed, and of the one before that where the last
         * page is full. */
        const bool has_older = own % 2 == i ? h->kept + 1 < own : h->kept < own;
        const size_t n = has_older ? KVT_PAGE_TOKENS : own % 2 == i ? r->stored % KVT_PAGE_TOKENS : 0;
        if (n && h->open[i] != KVT_NO_BLOCK)
            copy_open(group, h->open[i], h->new_open[i], n);
        kvt_keep_new_open(group, h, i);
    }
    if (h->new_page == KVT_NO_BLOCK)
        return;
    kvt_blocks *kind = kvt_kind_of(group, own);
    memcpy(kvt_block_at(kind, h->new_page), kvt_block_at(kind, h->table[own]), kind->bytes);
    kvt_block_release(kind, h->table[own]);
    h->table[own] = h->new_page;
}

kvt_status kvt_cache_append(kvt_cache *cache, uint32_t id, uint32_t fresh)
{
    kvt_status status;
    kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return status;
    const kvt_problem why = kvt_why(r);
    if (fresh > cache->tokens - r->stored)
        return kvt_fail(&why, KVT_ERR_RANGE, "fresh is %u behind %zu tokens: a sequence of this cache has at most %zu", fresh, r->stored,
                        cache->tokens);
    if (fresh == 0) {
        r->fresh = 0;
        return KVT_OK;
    }
    const size_t total = r->stored + fresh;
    uint32_t taken = 0, state = KVT_NO_BLOCK;
    while (taken < cache->n_groups && take_for_append(&cache->groups[taken], r, &r->groups[taken], total))
        taken++;
    bool is_full = taken < cache->n_groups;
    const bool copies_state = !is_full && cache->state_bytes && kvt_block_is_shared(&cache->states, r->state);
    if (copies_state && (state = kvt_block_take(&cache->states)) == KVT_NO_BLOCK)
        is_full = true;
    if (is_full) {
        for (uint32_t g = 0; g < cache->n_groups && g <= taken; g++)
            return_taken(&cache->groups[g], r, &r->groups[g]);
        return kvt_fail(&why, KVT_ERR_FULL, "%u new tokens behind %zu: %s %u has no free block", fresh, r->stored,
                        taken < cache->n_groups ? "group" : "the states' pool, of", taken < cache->n_groups ? taken : cache->states.all);
    }
    for (uint32_t g = 0; g < cache->n_groups; g++)
        keep_taken(&cache->groups[g], r, &r->groups[g]);
    if (copies_state) {
        memcpy(kvt_block_at(&cache->states, state), kvt_block_at(&cache->states, r->state), cache->states.bytes);
        kvt_block_release(&cache->states, r->state);
        r->state = state;
    }
    r->fresh = fresh;
    return KVT_OK;
}

/* ---- truncate ---- */

/* Whether rows of the new last page have to be read back from its page. */
static bool is_read_back(const kvt_group *group, const kvt_holding *h, size_t stored, size_t tokens)
{
    const size_t page = tokens / KVT_PAGE_TOKENS;
    return group->view.v.open_dtype && tokens % KVT_PAGE_TOKENS && page < h->kept && page < stored / KVT_PAGE_TOKENS;
}

/* Errors: RANGE, FULL. Takes blocks that it needs. */
static kvt_status prepare_truncate(const kvt_problem *why, kvt_cache *cache, kvt_record *r, size_t stored, size_t tokens)
{
    for (uint32_t g = 0; g < cache->n_groups; g++)
        r->groups[g].new_open[0] = r->groups[g].new_open[1] = r->groups[g].new_page = KVT_NO_BLOCK;
    r->new_state = KVT_NO_BLOCK;
    if (cache->state_bytes && tokens < stored) {
        uint32_t i = 0;
        while (i < r->n_marks && r->marked[i] != tokens)
            i++;
        if (i == r->n_marks && tokens)
            return kvt_fail(why, KVT_ERR_RANGE, "tokens is %zu of %zu: there is no mark of the state (the one before is at %zu)", tokens, stored,
                            kvt_cache_mark_before(cache, (uint32_t)(r - cache->records), tokens));
        if (tokens == 0 && kvt_block_is_shared(&cache->states, r->state) && (r->new_state = kvt_block_take(&cache->states)) == KVT_NO_BLOCK)
            return kvt_fail(why, KVT_ERR_FULL, "there is no free state, of %u", cache->states.all);
    }
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        kvt_group *group = &cache->groups[g];
        kvt_holding *h = &r->groups[g];
        const size_t page = tokens / KVT_PAGE_TOKENS, missing = kvt_first_missing(group, tokens, h->given);
        const bool reads = is_read_back(group, h, stored, tokens);
        if (missing < h->given)
            return kvt_fail(why, KVT_ERR_RANGE, "tokens is %zu of %zu: a window of group %u has given back tokens %zu to %zu, which they would see",
                            tokens, stored, g, missing * KVT_PAGE_TOKENS, h->given * KVT_PAGE_TOKENS - 1);
        uint32_t *open = &h->open[page % 2];
        if (reads && (*open == KVT_NO_BLOCK || kvt_block_is_shared(&group->open_pages, *open)) &&
            (h->new_open[page % 2] = kvt_block_take(&group->open_pages)) == KVT_NO_BLOCK)
            return kvt_fail(why, KVT_ERR_FULL, "group %u has no free block for rows of an open page", g);
    }
    return KVT_OK;
}

/* The first n rows of page p, as stored, to its open block. */
static void read_back(const kvt_group *group, const kvt_holding *h, size_t p, size_t n)
{
    const kvt_checked_view *v = &group->view;
    const kvt_sequence s = kvt_entry_of(h, h->table, h->n, 0, 0);
    for (uint32_t layer = 0; layer < v->v.layers; layer++)
        for (uint32_t head = 0; head < v->kv_heads; head++)
            for (uint32_t i = 0; i < v->n_sides; i++) {
                void *page = kvt_view_page(v, &s, layer, p, head, v->sides[i]);
                (void)!kvt_read(kvt_layout_at(v, p), v->sides[i], &(kvt_pages){ .table = &page, .count = 1 }, 0, n,
                                kvt_view_open(v, &s, layer, p, head, i), v->v.open_dtype, (ptrdiff_t)v->row_bytes[i]);
            }
}

static void restore_state(kvt_cache *cache, kvt_record *r, size_t tokens)
{
    kvt_drop_marks(cache, r, tokens);
    const bool has_mark = r->n_marks && r->marked[r->n_marks - 1] == tokens;
    if (has_mark) {
        if (r->new_state != KVT_NO_BLOCK)
            kvt_block_release(&cache->states, r->new_state);
        r->new_state = r->marks[r->n_marks - 1];
        kvt_block_hold(&cache->states, r->new_state);
    }
    if (r->new_state != KVT_NO_BLOCK) {
        kvt_block_release(&cache->states, r->state);
        r->state = r->new_state;
    }
    if (!has_mark) /* without tokens */
        memset(kvt_block_at(&cache->states, r->state), 0, cache->states.bytes);
}

static void truncate_group(kvt_group *group, kvt_holding *h, size_t stored, size_t tokens)
{
    const size_t page = tokens / KVT_PAGE_TOKENS;
    const uint32_t i = page % 2;
    kvt_keep_new_open(group, h, i);
    if (is_read_back(group, h, stored, tokens))
        read_back(group, h, page, tokens % KVT_PAGE_TOKENS);
    h->kept = kvt_smaller(h->kept, page);
    drop_pages(group, h, kvt_pages_held(group, tokens));
}

static kvt_status truncate(const kvt_problem *why, kvt_cache *cache, kvt_record *r, size_t stored, size_t tokens)
{
    const kvt_status status = prepare_truncate(why, cache, r, stored, tokens);
    if (status) {
        for (uint32_t g = 0; g < cache->n_groups; g++)
            kvt_give_new_open(&cache->groups[g], &r->groups[g]);
        kvt_block_give(&cache->states, &r->new_state);
        return status;
    }
    for (uint32_t g = 0; g < cache->n_groups; g++)
        truncate_group(&cache->groups[g], &r->groups[g], stored, tokens);
    if (cache->state_bytes && tokens < stored)
        restore_state(cache, r, tokens);
    r->stored = tokens;
    r->fresh = 0;
    return KVT_OK;
}

kvt_status kvt_cache_truncate(kvt_cache *cache, uint32_t id, size_t tokens)
{
    kvt_status status;
    kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return status;
    const kvt_problem why = kvt_why(r);
    if (tokens > r->stored)
        return kvt_fail(&why, KVT_ERR_RANGE, "tokens is %zu: the sequence has %zu", tokens, r->stored);
    return truncate(&why, cache, r, r->stored, tokens);
}

/* ---- commit ---- */

/* Blocks that no later token sees. */
static void give_back(kvt_group *group, kvt_holding *h, size_t stored)
{
    if (!group->window || stored < group->spare)
        return;
    const size_t limit = kvt_smaller(kvt_first_seen(group, stored - group->spare), kvt_larger(stored / KVT_PAGE_TOKENS, 1) - 1);
    kvt_give_pages(group, h->table, kvt_larger(h->given, kvt_pages_of(group->first_kept)), limit);
    h->given = kvt_larger(h->given, limit);
}

kvt_status kvt_cache_commit(kvt_cache *cache, uint32_t id, uint32_t accepted)
{
    kvt_status status;
    kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return status;
    const kvt_problem why = kvt_why(r);
    if (accepted > r->fresh)
        return kvt_fail(&why, KVT_ERR_RANGE, "accepted is %u: %u tokens were appended", accepted, r->fresh);
    const size_t total = r->stored + r->fresh;
    size_t kept[KVT_CACHE_MAX_GROUPS];
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        kvt_holding *h = &r->groups[g];
        kept[g] = h->kept;
        if (r->fresh)
            h->kept = kvt_larger(h->kept, kvt_larger((total - 1) / KVT_PAGE_TOKENS, 1) - 1);
    }
    status = truncate(&why, cache, r, total, r->stored + accepted);
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        if (status)
            r->groups[g].kept = kept[g];
        else
            give_back(&cache->groups[g], &r->groups[g], r->stored);
    }
    return status;
}

/* ---- fork ---- */

static void hold_pages(kvt_group *group, const kvt_holding *h, size_t n)
{
    for (size_t p = 0; p < n; p++)
        if (h->table[p] != KVT_NO_BLOCK)
            kvt_block_hold(kvt_kind_of(group, p), h->table[p]);
}

static void fork_group(kvt_group *group, const kvt_holding *from, kvt_holding *to)
{
    uint32_t *const table = to->table, *const other = to->other;
    memcpy(table, from->table, from->n * sizeof *table);
    *to = *from;
    to->table = table;
    to->other = other;
    hold_pages(group, from, from->n);
    for (int i = 0; i < 2; i++)
        if (from->open[i] != KVT_NO_BLOCK)
            kvt_block_hold(&group->open_pages, from->open[i]);
}

kvt_status kvt_cache_fork(kvt_cache *cache, uint32_t id, uint32_t *fork)
{
    kvt_status status;
    const kvt_record *from = kvt_record_of(cache, id, &status);
    if (!from || !fork)
        return from ? KVT_ERR_NULL : status;
    if (from->fresh)
        return KVT_ERR_RANGE;
    *fork = claim(cache);
    if (*fork == KVT_NO_SEQUENCE)
        return KVT_ERR_FULL;
    kvt_record *to = &cache->records[*fork];
    reset(cache, to);
    to->stored = from->stored;
    for (uint32_t g = 0; g < cache->n_groups; g++)
        fork_group(&cache->groups[g], &from->groups[g], &to->groups[g]);
    if (!cache->state_bytes)
        return KVT_OK;
    to->state = from->state;
    kvt_block_hold(&cache->states, to->state);
    for (; to->n_marks < from->n_marks; to->n_marks++) {
        to->marks[to->n_marks] = from->marks[to->n_marks];
        to->marked[to->n_marks] = from->marked[to->n_marks];
        kvt_block_hold(&cache->states, to->marks[to->n_marks]);
    }
    return KVT_OK;
}

/* ---- states ---- */

void *kvt_cache_state(const kvt_cache *cache, uint32_t id)
{
    kvt_status status;
    const kvt_record *r = kvt_record_of(cache, id, &status);
    return r && cache->state_bytes ? kvt_block_at(&cache->states, r->state) : NULL;
}

kvt_status kvt_cache_mark(kvt_cache *cache, uint32_t id)
{
    kvt_status status;
    kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return status;
    const kvt_problem why = kvt_why(r);
    if (!cache->state_marks)
        return kvt_fail(&why, KVT_ERR_OPTIONS, "the cache has state_bytes %zu and state_marks 0: there is no room for a mark", cache->state_bytes);
    if (r->fresh)
        return kvt_fail(&why, KVT_ERR_RANGE, "%u new tokens are not committed", r->fresh);
    if (r->n_marks && r->marked[r->n_marks - 1] == r->stored) {
        kvt_block_release(&cache->states, r->marks[--r->n_marks]);
    } else if (r->n_marks == cache->state_marks) {
        kvt_block_release(&cache->states, r->marks[0]);
        r->n_marks--;
        memmove(r->marks, r->marks + 1, r->n_marks * sizeof *r->marks);
        memmove(r->marked, r->marked + 1, r->n_marks * sizeof *r->marked);
    }
    kvt_block_hold(&cache->states, r->state);
    r->marks[r->n_marks] = r->state;
    r->marked[r->n_marks++] = r->stored;
    return KVT_OK;
}

size_t kvt_cache_mark_before(const kvt_cache *cache, uint32_t id, size_t tokens)
{
    kvt_status status;
    const kvt_record *r = kvt_record_of(cache, id, &status);
    if (!r)
        return 0;
    if (!cache->state_bytes || tokens >= r->stored)
        return kvt_smaller(tokens, r->stored);
    uint32_t n = r->n_marks;
    while (n && r->marked[n - 1] > tokens)
        n--;
    return n ? r->marked[n - 1] : 0;
}

/* ---- statistics ---- */

static kvt_cache_blocks count(const kvt_blocks *blocks)
{
    kvt_cache_blocks n = { .bytes = blocks->bytes, .all = blocks->all };
    for (uint32_t i = 0; i < blocks->all; i++) {
        const uint32_t holders = atomic_load_explicit(&blocks->counts[i], memory_order_relaxed);
        n.free += holders == 0;
        n.shared += holders > 1;
    }
    return n;
}

kvt_status kvt_cache_measure(const kvt_cache *cache, uint32_t group, kvt_cache_statistics *statistics)
{
    if (!cache || !statistics)
        return KVT_ERR_NULL;
    if (statistics->size != sizeof *statistics)
        return KVT_ERR_STRUCT_SIZE;
    if (group >= cache->n_groups)
        return KVT_ERR_RANGE;
    const kvt_group *g = &cache->groups[group];
    *statistics = (kvt_cache_statistics){ .size = sizeof *statistics,
                                          .memory_bytes = cache->bytes,
                                          .book_bytes = cache->book_bytes,
                                          .pages = count(&g->pages),
                                          .first_pages = count(&g->first_pages),
                                          .open_pages = count(&g->open_pages),
                                          .states = count(&cache->states) };
    return KVT_OK;
}
