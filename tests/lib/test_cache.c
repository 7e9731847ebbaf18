/* SPDX-License-Identifier: MIT */
/* The cache against a plain one (plain_cache.h): random operations on several sequences, after each of which both hold the same bytes.
 *
 *   test_cache                          a few thousand operations of each scene, and what single functions promise
 *   test_cache OPERATIONS [SEED]        so many operations in all */
#include "plain_cache.h"

#include <kvtile/saved.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SEQUENCES = 6, WORKERS = 3, STATE_BYTES = 72, STATE_MARKS = 2 };

/* ---- scenes ---- */

typedef struct scene {
    const char *name;
    uint32_t n_groups, sequences;
    kvt_cache_group groups[PLAIN_MOST_GROUPS];
    kvt_spec specs[PLAIN_MOST_GROUPS], first[PLAIN_MOST_GROUPS];
    kvt_rope ropes[PLAIN_MOST_GROUPS];
    bool has_state;
} scene;

static const double FREQUENCIES[8] = { 1, 0.5, 0.25, 0, 0.01, 0.001, 3, 0.7 };

static void add_group(scene *s, kvt_preset preset, uint32_t dim, uint32_t heads, uint32_t layers, size_t blocks)
{
    const uint32_t g = s->n_groups++;
    s->specs[g] = (kvt_spec){ .size = sizeof(kvt_spec), .k_dim = dim, .v_dim = dim, .kv_heads = heads };
    ck_assert_int_eq(kvt_preset_spec(preset, &s->specs[g], &s->first[g]), KVT_OK);
    s->groups[g] = (kvt_cache_group){ .size = sizeof(kvt_cache_group), .layers = layers, .blocks = blocks, .open_dtype = KVT_F16 };
    s->ropes[g] = (kvt_rope){ .size = sizeof(kvt_rope), .frequencies = FREQUENCIES, .pairs = dim / 2 < 8 ? dim / 2 : 8 };
}

enum { BALANCED, WINDOWS, LATENT, PLAIN, STATES, SCENES };

static scene scene_of(int which)
{
    scene s = { .sequences = MOST_SEQUENCES };
    bool has_first = true;
    switch (which) {
    case BALANCED: /* blocks for about half of what sequences could have, so that there are none at times */
        s.name = "balanced";
        add_group(&s, KVT_PRESET_BALANCED, 16, 2, 2, 22);
        break;
    case WINDOWS:
        s.name = "windows beside full layers of another width";
        add_group(&s, KVT_PRESET_COMPACT, 32, 1, 1, 40);
        add_group(&s, KVT_PRESET_TIGHT, 16, 2, 2, 26);
        s.groups[1].window = 100;
        s.groups[1].spare = 30;
        s.ropes[0].interleaved = 1;
        s.ropes[0].first = 8;
        break;
    case LATENT:
        s.name = "latents";
        add_group(&s, KVT_PRESET_COMPACT, 32, 1, 2, 30);
        s.specs[0].v_dim = 0;
        s.specs[0].rope_dim = 16;
        s.ropes[0].interleaved = 1;
        has_first = false;
        break;
    case PLAIN:
        s.name = "no open pages, centres from pages before";
        add_group(&s, KVT_PRESET_BALANCED, 16, 1, 2, 26);
        add_group(&s, KVT_PRESET_BALANCED, 24, 1, 1, 26);
        for (int g = 0; g < 2; g++) {
            s.specs[g].k_scheme = s.specs[g].v_scheme = g ? KVT_SCHEME_f16 : KVT_SCHEME_q8_0;
            s.specs[g].k_options.centring = s.specs[g].v_options.centring = g ? KVT_CENTRING_NONE : KVT_CENTRING_PAGE;
            s.groups[g].open_dtype = (kvt_dtype)0;
        }
        has_first = false;
        break;
    default:
        s.name = "states of recurrent layers, and keys without positions";
        add_group(&s, KVT_PRESET_QUALITY, 16, 1, 1, 30);
        s.has_state = true;
    }
    for (uint32_t g = 0; has_first && g < s.n_groups; g++)
        s.groups[g].first_spec = &s.first[g];
    return s;
}

/* ---- a cache and its plain twin ---- */

typedef struct state_mark {
    size_t tokens;
    unsigned char bytes[STATE_BYTES];
} state_mark;

typedef struct twin {
    scene s;
    uint32_t n;
    plain_group groups[PLAIN_MOST_GROUPS];
    kvt_cache *cache;
    void *memory;
    size_t bytes;
    plain_sequence plain[MOST_SEQUENCES];
    unsigned char states[MOST_SEQUENCES][STATE_BYTES];
    state_mark marks[MOST_SEQUENCES][STATE_MARKS];
    uint32_t n_marks[MOST_SEQUENCES];
    void *workspace;
    size_t workspace_bytes;
    void *scratch;
    uint16_t *k, *v;
    uint64_t state, next_name;
    size_t done[16], refused[16];
} twin;

static void open_twin(twin *w, const scene *s, uint64_t seed)
{
    *w = (twin){ .s = *s, .n = s->n_groups, .state = seed, .next_name = 1 };
    for (uint32_t g = 0; g < w->n; g++) {
        w->s.groups[g].spec = &w->s.specs[g];
        w->s.groups[g].first_spec = s->groups[g].first_spec ? &w->s.first[g] : NULL;
        w->s.groups[g].rope = s->has_state ? NULL : &w->s.ropes[g];
    }
    const kvt_cache_spec spec = { .size = sizeof spec,
                                  .groups = w->s.groups,
                                  .n_groups = w->n,
                                  .sequences = s->sequences,
                                  .tokens = PLAIN_MOST_TOKENS,
                                  .state_bytes = s->has_state ? STATE_BYTES : 0,
                                  .state_marks = s->has_state ? STATE_MARKS : 0 };
    char why[300];
    TEST_REQUIRE(kvt_cache_spec_problem(&spec, why, sizeof why) == KVT_OK, "%s", why);
    ck_assert_int_eq(kvt_cache_bytes(&spec, &w->bytes), KVT_OK);
    w->memory = aligned_alloc(64, w->bytes);
    ck_assert_ptr_nonnull(w->memory);
    test_fill(&w->state, w->memory, w->bytes);
    ck_assert_int_eq(kvt_cache_init(&spec, w->memory, w->bytes, &w->cache), KVT_OK);
    for (uint32_t g = 0; g < w->n; g++) {
        const kvt_view *view = kvt_cache_view(w->cache, g);
        plain_group *p = &w->groups[g];
        *p = (plain_group){ .layout = *view->layout,
                            .has_first = view->first_layout != NULL,
                            .open = view->open_dtype,
                            .layers = view->layers,
                            .heads = view->layout->spec.kv_heads,
                            .n_sides = 2,
                            .sides = { KVT_K, view->layout->rope.dim ? KVT_ROPE : KVT_V },
                            .rope = w->s.ropes[g],
                            .has_rope = !s->has_state };
        if (p->has_first)
            p->first = *view->first_layout;
        p->page_bytes = p->has_first && p->first.page_bytes > p->layout.page_bytes ? p->first.page_bytes : p->layout.page_bytes;
        const kvt_step_limits limits = { s->sequences, PLAIN_MOST_TOKENS, PLAIN_MOST_TOKENS, p->heads, WORKERS };
        size_t bytes;
        ck_assert_int_eq(kvt_step_workspace(view, &limits, &bytes), KVT_OK);
        w->workspace_bytes = bytes > w->workspace_bytes ? bytes : w->workspace_bytes;
    }
    w->workspace = aligned_alloc(64, (w->workspace_bytes + 63) / 64 * 64);
    w->scratch = aligned_alloc(64, (kvt_cache_work_bytes(w->cache) + 63) / 64 * 64);
    w->k = test_malloc(PLAIN_MOST_TOKENS * 4 * 64 * sizeof *w->k);
    w->v = test_malloc(PLAIN_MOST_TOKENS * 4 * 64 * sizeof *w->v);
}

static void close_twin(twin *w)
{
    for (uint32_t i = 0; i < w->s.sequences; i++)
        if (w->plain[i].is_used) {
            ck_assert_int_eq(kvt_cache_free(w->cache, i), KVT_OK);
            plain_close(&w->plain[i], w->n);
        }
    for (uint32_t g = 0; g < w->n; g++) {
        kvt_cache_statistics st = { .size = sizeof st };
        ck_assert_int_eq(kvt_cache_measure(w->cache, g, &st), KVT_OK);
        TEST_REQUIRE(st.pages.free == st.pages.all && st.first_pages.free == st.first_pages.all && st.open_pages.free == st.open_pages.all &&
                         st.states.free == st.states.all,
                     "blocks are lost: %zu of %zu, %zu of %zu, %zu of %zu, %zu of %zu", st.pages.free, st.pages.all, st.first_pages.free,
                     st.first_pages.all, st.open_pages.free, st.open_pages.all, st.states.free, st.states.all);
    }
    free(w->memory), free(w->workspace), free(w->scratch), free(w->k), free(w->v);
}

/* ---- comparing ---- */

static const unsigned char *in_pool(const kvt_pool *pool, uint32_t layer, uint32_t block, uint32_t head)
{
    return (const unsigned char *)pool->base + layer * pool->layer_stride + block * pool->block_stride + head * pool->head_stride;
}

/* What a page has in it: what is behind its centres is nobody's. */
static size_t used_bytes(const kvt_layout *l)
{
    size_t used = 0;
    const kvt_side_layout *sides[] = { &l->k, &l->v, &l->rope };
    for (int i = 0; i < 3; i++)
        used += (size_t)sides[i]->row_bytes * 64 + sides[i]->centre_bytes;
    return used;
}

/* Bytes of a page that were written: without open pages a page's last tokens may be anybody's. */
static bool is_page_same(const twin *w, uint32_t g, const kvt_layout *layout, const unsigned char *a, const unsigned char *b, size_t tokens)
{
    if (tokens == 64)
        return memcmp(a, b, used_bytes(layout)) == 0;
    for (uint32_t i = 0; i < 2; i++) {
        float rows[2][64 * 64];
        const unsigned char *pages[2] = { a, b };
        const kvt_side side = w->groups[g].sides[i];
        const kvt_side_layout *l = side == KVT_K ? &layout->k : side == KVT_V ? &layout->v : &layout->rope;
        for (int n = 0; n < 2; n++) {
            void *page = (void *)(uintptr_t)pages[n];
            ck_assert_int_eq(kvt_read(layout, side, &(kvt_pages){ .table = &page, .count = 1 }, 0, tokens, rows[n], KVT_F32, 4 * (ptrdiff_t)l->dim),
                             KVT_OK);
        }
        if (memcmp(rows[0], rows[1], tokens * l->dim * 4) != 0 || memcmp(a + l->centre_offset, b + l->centre_offset, l->centre_bytes) != 0)
            return false;
    }
    return true;
}

static void compare(const twin *w, uint32_t id)
{
    const plain_sequence *p = &w->plain[id];
    ck_assert_uint_eq(kvt_cache_tokens(w->cache, id), p->stored);
    for (uint32_t g = 0; g < w->n; g++) {
        const plain_group *group = &w->groups[g];
        const kvt_view *view = kvt_cache_view(w->cache, g);
        kvt_sequence e;
        ck_assert_int_eq(kvt_cache_entry(w->cache, id, g, &e), KVT_OK);
        ck_assert_uint_eq(e.stored, p->stored);
        const size_t pages = plain_pages(group, p->stored), window = w->s.groups[g].window;
        ck_assert_uint_ge(e.n_blocks, pages);
        const size_t seen = window && p->stored >= window ? (p->stored - window + 1) / 64 : 0;
        for (size_t page = 0; page < pages; page++) {
            if (e.blocks[page] == KVT_NO_BLOCK) {
                TEST_REQUIRE(window && page < seen, "group %u: page %zu of %zu tokens is gone", g, page, p->stored);
                continue;
            }
            const bool is_first = page == 0 && group->has_first;
            const kvt_layout *layout = is_first ? &group->first : &group->layout;
            for (uint32_t layer = 0; layer < group->layers; layer++)
                for (uint32_t head = 0; head < group->heads; head++) {
                    const unsigned char *there = in_pool(is_first ? &view->first_pages : &view->pages, layer, e.blocks[page], head);
                    const size_t tokens = p->stored - page * 64 < 64 ? p->stored - page * 64 : 64;
                    TEST_REQUIRE(is_page_same(w, g, layout, there, plain_page(p, w->groups, g, layer, head, page), tokens),
                                 "sequence %u, group %u, layer %u, head %u: page %zu of %zu tokens differs", id, g, layer, head, page, p->stored);
                }
        }
        for (uint32_t i = 0; group->open && i < group->n_sides; i++)
            for (uint32_t layer = 0; layer < group->layers; layer++)
                for (uint32_t head = 0; head < group->heads; head++) {
                    const uint32_t dim = group->sides[i] == KVT_K   ? group->layout.k.dim
                                         : group->sides[i] == KVT_V ? group->layout.v.dim
                                                                    : group->layout.rope.dim;
                    for (size_t t = p->groups[g].kept * 64; t < p->stored; t++) {
                        const unsigned char *there =
                            in_pool(&view->open_pages, layer, e.open[t / 64 % 2], head) + (i ? 64 * group->layout.k.dim * 2 : 0) + t % 64 * dim * 2;
                        TEST_REQUIRE(memcmp(there, plain_rows(p, w->groups, g, layer, head, i, t), dim * 2) == 0,
                                     "sequence %u, group %u, layer %u, head %u: open row %zu of %zu differs", id, g, layer, head, t, p->stored);
                    }
                }
    }
    if (w->s.has_state)
        ck_assert_mem_eq(kvt_cache_state(w->cache, id), w->states[id], STATE_BYTES);
}

/* Who holds which block, counted anew. */
static void compare_counts(const twin *w)
{
    size_t all = 0;
    for (uint32_t g = 0; g < w->n; g++) {
        kvt_cache_statistics st = { .size = sizeof st };
        ck_assert_int_eq(kvt_cache_measure(w->cache, g, &st), KVT_OK);
        const kvt_view *view = kvt_cache_view(w->cache, g);
        uint32_t *holders = calloc(st.pages.all + st.first_pages.all, sizeof *holders);
        for (uint32_t id = 0; id < w->s.sequences; id++) {
            kvt_sequence e;
            if (!w->plain[id].is_used)
                continue;
            ck_assert_int_eq(kvt_cache_entry(w->cache, id, g, &e), KVT_OK);
            for (size_t p = 0; p < e.n_blocks; p++)
                if (e.blocks[p] != KVT_NO_BLOCK)
                    holders[(p == 0 && view->first_layout ? st.pages.all : 0) + e.blocks[p]]++;
        }
        kvt_cache_blocks pages = { .all = st.pages.all }, first = { .all = st.first_pages.all };
        for (size_t i = 0; i < st.pages.all + st.first_pages.all; i++) {
            kvt_cache_blocks *kind = i < st.pages.all ? &pages : &first;
            kind->free += holders[i] == 0;
            kind->shared += holders[i] > 1;
        }
        free(holders);
        ck_assert_uint_eq(st.pages.free, pages.free);
        ck_assert_uint_eq(st.pages.shared, pages.shared);
        ck_assert_uint_eq(st.first_pages.free, first.free);
        ck_assert_uint_eq(st.first_pages.shared, first.shared);
        all += st.pages.all * st.pages.bytes + st.first_pages.all * st.first_pages.bytes + st.open_pages.all * st.open_pages.bytes;
        if (g == 0)
            all += st.book_bytes + st.states.all * st.states.bytes;
        ck_assert_uint_eq(st.memory_bytes, w->bytes);
    }
    ck_assert_uint_eq(all, w->bytes);
}

/* ---- operations ---- */

typedef enum operation { NEW, FREE, APPEND, DRAFT, FORK, TRUNCATE, REMOVE, REMOVE_PAGES, EVICT, SHIFT, MARK, SAVE, OPERATIONS } operation;

static const char *const NAMES[OPERATIONS] = { "new",    "free",         "append", "draft", "fork", "truncate",
                                               "remove", "remove pages", "evict",  "shift", "mark", "save" };

/* A sequence in use, or KVT_NO_SEQUENCE. */
static uint32_t pick(twin *w)
{
    const uint32_t first = test_below(&w->state, w->s.sequences);
    for (uint32_t i = 0; i < w->s.sequences; i++)
        if (w->plain[(first + i) % w->s.sequences].is_used)
            return (first + i) % w->s.sequences;
    return KVT_NO_SEQUENCE;
}

static void do_new(twin *w)
{
    uint32_t id, used = 0;
    for (uint32_t i = 0; i < w->s.sequences; i++)
        used += w->plain[i].is_used;
    const kvt_status status = kvt_cache_new(w->cache, &id);
    ck_assert_int_eq(status, used == w->s.sequences ? KVT_ERR_FULL : KVT_OK);
    if (status) {
        ck_assert_uint_eq(id, KVT_NO_SEQUENCE);
        return;
    }
    ck_assert(!w->plain[id].is_used);
    plain_open(&w->plain[id], w->groups, w->n);
    memset(w->states[id], 0, STATE_BYTES);
    w->n_marks[id] = 0;
}

/* A refusal for want of blocks is right only where blocks are few. */
static void require_full(const twin *w, size_t needed)
{
    bool is_scarce = false;
    for (uint32_t g = 0; g < w->n; g++) {
        kvt_cache_statistics st = { .size = sizeof st };
        ck_assert_int_eq(kvt_cache_measure(w->cache, g, &st), KVT_OK);
        is_scarce |= st.pages.free < needed;
    }
    TEST_REQUIRE(is_scarce, "full, but %zu blocks are enough", needed);
}

/* The rows of new tokens through the step, as an engine does it. */
static void store_rows(twin *w, uint32_t id, const uint64_t *names, uint32_t fresh)
{
    for (uint32_t g = 0; g < w->n; g++) {
        const plain_group *group = &w->groups[g];
        const kvt_view *view = kvt_cache_view(w->cache, g);
        kvt_sequence e;
        ck_assert_int_eq(kvt_cache_entry(w->cache, id, g, &e), KVT_OK);
        ck_assert_uint_eq(e.fresh, fresh);
        const uint32_t k_dim = group->layout.k.dim, v_dim = group->layout.rope.dim ? group->layout.rope.dim : group->layout.v.dim;
        for (uint32_t layer = 0; layer < group->layers; layer++) {
            for (uint32_t t = 0; t < fresh; t++)
                for (uint32_t head = 0; head < group->heads; head++) {
                    plain_row(names[t], g, layer, 0, head, k_dim, w->k + ((size_t)t * group->heads + head) * k_dim);
                    plain_row(names[t], g, layer, 1, head, v_dim, w->v + ((size_t)t * group->heads + head) * v_dim);
                }
            const kvt_step step = { .size = sizeof step,
                                    .view = view,
                                    .layer = layer,
                                    .sequences = &e,
                                    .n_sequences = 1,
                                    .heads = group->heads,
                                    .dtype = KVT_F16,
                                    .out_dtype = KVT_F16,
                                    .k = w->k,
                                    .v = w->v,
                                    .scale = 1,
                                    .window = w->s.groups[g].window,
                                    .workspace = w->workspace,
                                    .workspace_bytes = w->workspace_bytes };
            const uint32_t workers = 1 + test_below(&w->state, WORKERS);
            for (uint32_t i = 0; i < workers; i++) {
                const kvt_status status = kvt_step_append(&step, i, workers);
                char why[300] = "";
                if (status)
                    (void)kvt_step_problem(&step, why, sizeof why);
                TEST_REQUIRE(status == KVT_OK, "%s", why);
            }
        }
    }
}

static void require_refusal(const twin *w, uint32_t id)
{
    char why[300];
    kvt_cache_problem(w->cache, id, why, sizeof why);
    TEST_REQUIRE(why[0] != '\0', "no reason");
}

/* Whether a window has given back a page that tokens up to `tokens` would see, or that rows of the last are in. */
static bool is_gone(const twin *w, uint32_t id, size_t tokens)
{
    bool gone = false;
    for (uint32_t g = 0; g < w->n; g++) {
        kvt_sequence e;
        ck_assert_int_eq(kvt_cache_entry(w->cache, id, g, &e), KVT_OK);
        const size_t window = w->s.groups[g].window;
        for (size_t p = window && tokens >= window ? (tokens - window + 1) / 64 : 0; p < (tokens + 63) / 64 && p < e.n_blocks; p++)
            gone |= e.blocks[p] == KVT_NO_BLOCK;
    }
    return gone;
}

static bool has_mark(const twin *w, uint32_t id, size_t tokens, uint32_t *mark)
{
    for (*mark = 0; *mark < w->n_marks[id]; ++*mark)
        if (w->marks[id][*mark].tokens == tokens)
            return true;
    return false;
}

/* The plain twin's state when it goes back. */
static void plain_restore(twin *w, uint32_t id, size_t tokens)
{
    uint32_t mark;
    if (tokens == w->plain[id].stored)
        return;
    if (has_mark(w, id, tokens, &mark))
        memcpy(w->states[id], w->marks[id][mark].bytes, STATE_BYTES);
    else
        memset(w->states[id], 0, STATE_BYTES);
    while (w->n_marks[id] && w->marks[id][w->n_marks[id] - 1].tokens > tokens)
        w->n_marks[id]--;
}

static bool can_restore(const twin *w, uint32_t id, size_t tokens, size_t stored)
{
    uint32_t mark;
    return !w->s.has_state || tokens == stored || tokens == 0 || has_mark(w, id, tokens, &mark);
}

static bool do_append(twin *w, uint32_t id, bool is_draft)
{
    plain_sequence *p = &w->plain[id];
    uint32_t fresh = test_below(&w->state, 4) ? 1 + test_below(&w->state, 20) : 1 + test_below(&w->state, 200);
    uint64_t names[PLAIN_MOST_TOKENS];
    if (test_below(&w->state, 16) == 0) { /* another number first: the later one counts */
        const kvt_status status = kvt_cache_append(w->cache, id, test_below(&w->state, 300));
        ck_assert(status == KVT_OK || status == KVT_ERR_FULL || status == KVT_ERR_RANGE);
    }
    kvt_status status = kvt_cache_append(w->cache, id, fresh);
    if (status) {
        require_refusal(w, id);
        if (status == KVT_ERR_RANGE)
            ck_assert_uint_gt(p->stored + fresh, PLAIN_MOST_TOKENS);
        else
            require_full(w, (fresh + 63) / 64 + 1);
        ck_assert_int_eq(kvt_cache_append(w->cache, id, 0), KVT_OK); /* takes back what came before it */
        ck_assert_int_eq(kvt_cache_commit(w->cache, id, 0), KVT_OK);
        return false;
    }
    for (uint32_t t = 0; t < fresh; t++)
        names[t] = w->next_name++;
    store_rows(w, id, names, fresh);
    if (w->s.has_state) {
        unsigned char *state = kvt_cache_state(w->cache, id);
        test_fill(&w->state, state, STATE_BYTES);
    }
    uint32_t accepted = is_draft ? test_below(&w->state, fresh + 1) : fresh;
    if (w->s.has_state && accepted < fresh && !can_restore(w, id, p->stored + accepted, SIZE_MAX)) {
        ck_assert_int_eq(kvt_cache_commit(w->cache, id, accepted), KVT_ERR_RANGE);
        accepted = fresh;
    }
    status = kvt_cache_commit(w->cache, id, accepted);
    if (status == KVT_ERR_RANGE && is_gone(w, id, p->stored + accepted)) {
        accepted = fresh;
        status = kvt_cache_commit(w->cache, id, accepted);
    }
    char why[300] = "";
    kvt_cache_problem(w->cache, id, why, sizeof why);
    TEST_REQUIRE(status == KVT_OK, "%s", why);
    const size_t before = p->stored;
    plain_append(p, w->groups, w->n, names, fresh);
    if (w->s.has_state && accepted == fresh)
        memcpy(w->states[id], kvt_cache_state(w->cache, id), STATE_BYTES);
    else if (w->s.has_state)
        plain_restore(w, id, before + accepted);
    if (accepted < fresh)
        plain_truncate(p, w->groups, w->n, before + accepted);
    return true;
}

static bool do_fork(twin *w, uint32_t id)
{
    uint32_t fork, used = 0;
    for (uint32_t i = 0; i < w->s.sequences; i++)
        used += w->plain[i].is_used;
    const kvt_status status = kvt_cache_fork(w->cache, id, &fork);
    ck_assert_int_eq(status, used == w->s.sequences ? KVT_ERR_FULL : KVT_OK);
    if (status)
        return false;
    plain_copy(&w->plain[fork], &w->plain[id], w->groups, w->n);
    memcpy(w->states[fork], w->states[id], STATE_BYTES);
    memcpy(w->marks[fork], w->marks[id], sizeof w->marks[id]);
    w->n_marks[fork] = w->n_marks[id];
    return true;
}

static bool do_truncate(twin *w, uint32_t id)
{
    plain_sequence *p = &w->plain[id];
    size_t tokens = test_below(&w->state, 3) ? p->stored - test_below(&w->state, (uint32_t)(p->stored < 70 ? p->stored : 70) + 1)
                                             : test_below(&w->state, (uint32_t)p->stored + 1);
    if (w->s.has_state && test_below(&w->state, 2))
        tokens = kvt_cache_mark_before(w->cache, id, tokens);
    const kvt_status status = kvt_cache_truncate(w->cache, id, tokens);
    if (status) {
        require_refusal(w, id);
        ck_assert_int_eq(status, KVT_ERR_RANGE);
        ck_assert(is_gone(w, id, tokens) || !can_restore(w, id, tokens, p->stored));
        return false;
    }
    ck_assert(can_restore(w, id, tokens, p->stored));
    plain_restore(w, id, tokens);
    plain_truncate(p, w->groups, w->n, tokens);
    return true;
}

/* After the cache has accepted: the same of the twin, and the workers. */
static bool finish_change(twin *w, uint32_t id, kvt_status status, const size_t *source, const int64_t *turned, size_t tokens)
{
    plain_sequence *p = &w->plain[id];
    if (status) {
        require_refusal(w, id);
        if (status == KVT_ERR_FULL)
            require_full(w, PLAIN_MOST_PAGES);
        else
            ck_assert_int_eq(status, KVT_ERR_RANGE);
        return false;
    }
    const uint32_t workers = 1 + test_below(&w->state, WORKERS);
    ck_assert_int_eq(kvt_cache_truncate(w->cache, id, 0), KVT_ERR_SEQUENCE); /* rows wait */
    for (uint32_t i = 0; i < workers; i++)
        ck_assert_int_eq(kvt_cache_work(w->cache, id, i, workers, w->scratch, kvt_cache_work_bytes(w->cache)), KVT_OK);
    plain_change(p, w->groups, w->n, source, turned, tokens);
    w->n_marks[id] = 0;
    return true;
}

static bool do_remove(twin *w, uint32_t id, bool is_pages)
{
    const size_t stored = w->plain[id].stored;
    size_t first = test_below(&w->state, (uint32_t)stored + 1), end = first + test_below(&w->state, (uint32_t)(stored - first) + 1);
    if (is_pages) {
        first = test_below(&w->state, 2) ? first / 64 * 64 : first;
        end = first + (end - first) / 64 * 64;
    }
    const kvt_positions positions = (kvt_positions)test_below(&w->state, 2);
    size_t source[PLAIN_MOST_TOKENS], n = 0;
    int64_t turned[PLAIN_MOST_TOKENS];
    for (size_t t = 0; t < stored; t++)
        if (t < first || t >= end) {
            turned[n] = positions == KVT_POSITIONS_CLOSE ? (int64_t)n - (int64_t)t : 0;
            source[n++] = t;
        }
    return finish_change(w, id, kvt_cache_remove(w->cache, id, first, end, positions), source, turned, n);
}

static bool do_evict(twin *w, uint32_t id)
{
    const size_t stored = w->plain[id].stored, kept = test_below(&w->state, (uint32_t)stored + 1);
    float scores[PLAIN_MOST_TOKENS];
    static const float strange[] = { (float)NAN, (float)INFINITY, -(float)INFINITY, 0.0f, -0.0f };
    for (size_t t = 0; t < stored; t++) {
        scores[t] = (float)((int)test_below(&w->state, 40) - 20) * 0.25f; /* many are alike */
        if (test_below(&w->state, 10) == 0)
            scores[t] = strange[test_below(&w->state, 5)];
        if (t < 4)
            scores[t] = (float)INFINITY;
    }
    /* The plain way: the worst goes, again and again; of equal ones the oldest. */
    bool stays[PLAIN_MOST_TOKENS];
    memset(stays, 1, sizeof stays);
    for (size_t n = stored; n > kept; n--) {
        size_t worst = stored;
        for (size_t t = 0; t < stored; t++) {
            if (!stays[t])
                continue;
            if (worst == stored) {
                worst = t;
                continue;
            }
            const float a = scores[t], b = scores[worst];
            const bool is_worse = b != b ? false : a != a ? true : a != b ? a < b : signbit(a) && !signbit(b);
            worst = is_worse ? t : worst;
        }
        stays[worst] = false;
    }
    const kvt_positions positions = (kvt_positions)test_below(&w->state, 2);
    size_t source[PLAIN_MOST_TOKENS], n = 0;
    int64_t turned[PLAIN_MOST_TOKENS];
    for (size_t t = 0; t < stored; t++)
        if (stays[t]) {
            turned[n] = positions == KVT_POSITIONS_CLOSE ? (int64_t)n - (int64_t)t : 0;
            source[n++] = t;
        }
    ck_assert_uint_eq(n, kept);
    return finish_change(w, id, kvt_cache_evict(w->cache, id, scores, kept, positions), source, turned, n);
}

static bool do_shift(twin *w, uint32_t id)
{
    const size_t stored = w->plain[id].stored;
    const size_t first = test_below(&w->state, (uint32_t)stored + 1), end = first + test_below(&w->state, (uint32_t)(stored - first) + 1);
    const int64_t positions = (int64_t)test_below(&w->state, 9000) - 4500;
    size_t source[PLAIN_MOST_TOKENS];
    int64_t turned[PLAIN_MOST_TOKENS];
    for (size_t t = 0; t < stored; t++) {
        source[t] = t;
        turned[t] = t >= first && t < end ? positions : 0;
    }
    return finish_change(w, id, kvt_cache_shift(w->cache, id, first, end, positions), source, turned, stored);
}

static bool do_mark(twin *w, uint32_t id)
{
    const kvt_status status = kvt_cache_mark(w->cache, id);
    ck_assert_int_eq(status, w->s.has_state ? KVT_OK : KVT_ERR_OPTIONS);
    if (status)
        return false;
    uint32_t n = w->n_marks[id];
    if (n && w->marks[id][n - 1].tokens == w->plain[id].stored) {
        n--;
    } else if (n == STATE_MARKS) {
        memmove(w->marks[id], w->marks[id] + 1, (STATE_MARKS - 1) * sizeof(state_mark));
        n--;
    }
    w->marks[id][n].tokens = w->plain[id].stored;
    memcpy(w->marks[id][n].bytes, w->states[id], STATE_BYTES);
    w->n_marks[id] = n + 1;
    return true;
}

/* ---- saving and loading ---- */

typedef struct tape {
    unsigned char *bytes;
    size_t size, at, fails_at;
} tape;

static int write_tape(void *context, const void *bytes, size_t n)
{
    tape *to = context;
    if (n > to->fails_at - to->at)
        return -1;
    ck_assert_uint_le(to->at + n, to->size);
    memcpy(to->bytes + to->at, bytes, n);
    to->at += n;
    return 0;
}
static int read_tape(void *context, void *bytes, size_t n)
{
    tape *from = context;
    if (n > from->fails_at - from->at)
        return -1;
    memcpy(bytes, from->bytes + from->at, n);
    from->at += n;
    return 0;
}

static const uint64_t MODEL = 0x1234567890abcdef;

/* A saved range; NULL where it is refused. */
static unsigned char *save_range(twin *w, uint32_t id, const kvt_save *save, size_t *size)
{
    kvt_status status = kvt_cache_save_bytes(w->cache, id, save, size);
    if (status) {
        ck_assert_int_eq(status, KVT_ERR_RANGE);
        return NULL;
    }
    tape to = { .bytes = aligned_alloc(64, (*size + 63) / 64 * 64), .size = *size, .fails_at = SIZE_MAX };
    ck_assert_ptr_nonnull(to.bytes);
    if (test_below(&w->state, 4) == 0) {
        to.fails_at = test_below(&w->state, (uint32_t)*size);
        ck_assert_int_eq(kvt_cache_save(w->cache, id, save, write_tape, &to, w->scratch, kvt_cache_work_bytes(w->cache)), KVT_ERR_IO);
        to.fails_at = SIZE_MAX;
        to.at = 0;
    }
    ck_assert_int_eq(kvt_cache_save(w->cache, id, save, write_tape, &to, w->scratch, kvt_cache_work_bytes(w->cache)), KVT_OK);
    ck_assert_uint_eq(to.at, *size);
    return to.bytes;
}

/* Rows of a saved sequence where it lies are those of the cache. */
static void compare_view(const twin *w, uint32_t id, const kvt_saved *saved)
{
    for (uint32_t g = 0; g < w->n; g++) {
        kvt_view view;
        kvt_sequence there, here;
        ck_assert_int_eq(kvt_saved_view(saved, saved->bytes, g, &view, &there), KVT_OK);
        ck_assert_int_eq(kvt_cache_entry(w->cache, id, g, &here), KVT_OK);
        const plain_group *group = &w->groups[g];
        size_t first = 0;
        for (size_t p = 0; p < there.n_blocks; p++)
            first = there.blocks[p] == KVT_NO_BLOCK ? (p + 1) * 64 : first;
        const size_t dim = group->layout.k.dim, n = saved->end - first, row = dim * sizeof(float);
        float *rows[2];
        for (int i = 0; i < 2; i++) {
            rows[i] = calloc(2 * n * group->layers * group->heads + 1, row);
            const kvt_view_rows asked = { .size = sizeof asked,
                                          .view = i ? kvt_cache_view(w->cache, g) : &view,
                                          .sequence = i ? &here : &there,
                                          .first_token = first,
                                          .n_tokens = n,
                                          .layers = group->layers,
                                          .rows = rows[i],
                                          .dtype = KVT_F32,
                                          .side_stride = (ptrdiff_t)(n * group->layers * group->heads * row),
                                          .layer_stride = (ptrdiff_t)(n * group->heads * row),
                                          .token_stride = (ptrdiff_t)(group->heads * row),
                                          .head_stride = (ptrdiff_t)row };
            TEST_REQUIRE(kvt_view_read(&asked, 0, 1) == KVT_OK, "%s: group %u, tokens %zu to %zu, in %zu, %zu, %zu blocks", i ? "cache" : "saved", g,
                         first, saved->end, view.pages.blocks, view.first_pages.blocks, view.open_pages.blocks);
        }
        ck_assert_mem_eq(rows[0], rows[1], 2 * n * group->layers * group->heads * row);
        free(rows[0]), free(rows[1]);
    }
}

/* A sequence with the first tokens of another, for the rest to be loaded behind them. */
static bool begin_load(twin *w, uint32_t id, size_t first, uint32_t *to)
{
    if (first == 0)
        return kvt_cache_new(w->cache, to) == KVT_OK;
    if (kvt_cache_fork(w->cache, id, to) != KVT_OK)
        return false;
    const kvt_status status = kvt_cache_truncate(w->cache, *to, first);
    if (status == KVT_OK)
        return true;
    ck_assert_int_eq(status, KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_cache_free(w->cache, *to), KVT_OK);
    return false;
}

static bool do_save(twin *w, uint32_t id)
{
    const plain_sequence *p = &w->plain[id];
    uint32_t ids[PLAIN_MOST_TOKENS], to;
    kvt_save save = { .size = sizeof save, .model = MODEL };
    if (test_below(&w->state, 2)) {
        save.first = test_below(&w->state, (uint32_t)(p->stored / 64) + 1) * 64;
        save.end = save.first + test_below(&w->state, (uint32_t)((p->stored - save.first) / 64) + 1) * 64;
        if (save.end == save.first)
            save.end = p->stored;
    }
    const size_t end = save.end ? save.end : p->stored;
    for (size_t t = save.first; t < end; t++)
        ids[t - save.first] = (uint32_t)p->names[t];
    save.token_ids = test_below(&w->state, 2) ? ids : NULL;
    size_t size;
    unsigned char *bytes = save_range(w, id, &save, &size);
    if (!bytes) {
        ck_assert(!can_restore(w, id, end, p->stored) || end == 0);
        return false;
    }
    kvt_saved saved;
    char why[300];
    TEST_REQUIRE(kvt_saved_open(bytes, size, &saved, why, sizeof why) == KVT_OK, "%s", why);
    TEST_REQUIRE(kvt_saved_verify(&saved, size, why, sizeof why) == KVT_OK, "%s", why);
    ck_assert_uint_eq(saved.bytes, size);
    ck_assert(saved.first == save.first && saved.end == end && !saved.token_ids == !save.token_ids);
    if (save.token_ids)
        ck_assert_mem_eq(saved.token_ids, ids, (end - save.first) * sizeof *ids);
    if (save.first == 0 && end == p->stored)
        compare_view(w, id, &saved);
    if (!begin_load(w, id, save.first, &to)) {
        free(bytes);
        return false;
    }
    /* Damaged, cut short, and then as it is. */
    const size_t at = test_below(&w->state, (uint32_t)size);
    const unsigned char bit = (unsigned char)(1u << test_below(&w->state, 8));
    tape from = { .bytes = bytes, .size = size, .at = saved.head_bytes, .fails_at = SIZE_MAX };
    if (at >= saved.head_bytes) {
        bytes[at] ^= bit;
        kvt_status status = kvt_cache_load(w->cache, to, &saved, MODEL, read_tape, &from);
        ck_assert(status == KVT_ERR_DATA || status == KVT_ERR_FULL);
        bytes[at] ^= bit;
        from.at = saved.head_bytes;
        from.fails_at = at;
        status = kvt_cache_load(w->cache, to, &saved, MODEL, read_tape, &from);
        ck_assert(status == KVT_ERR_IO || status == KVT_ERR_FULL || status == KVT_ERR_DATA);
        from.fails_at = SIZE_MAX;
    }
    ck_assert_int_eq(kvt_cache_load(w->cache, to, &saved, MODEL + 1, read_tape, &from), KVT_ERR_DATA);
    ck_assert_uint_eq(kvt_cache_tokens(w->cache, to), save.first);
    from.at = saved.head_bytes;
    const kvt_status status = kvt_cache_load(w->cache, to, &saved, MODEL, read_tape, &from);
    if (status) {
        require_refusal(w, to);
        if (status == KVT_ERR_FULL)
            require_full(w, PLAIN_MOST_PAGES);
        else
            ck_assert(status == KVT_ERR_DATA && is_gone(w, id, end));
        ck_assert_int_eq(kvt_cache_free(w->cache, to), KVT_OK);
        free(bytes);
        return false;
    }
    plain_copy(&w->plain[to], p, w->groups, w->n);
    w->plain[to].stored = end;
    for (uint32_t g = 0; g < w->n; g++) {
        size_t *kept = &w->plain[to].groups[g].kept;
        *kept = end < p->stored ? end / 64 : *kept > save.first / 64 ? *kept : save.first / 64;
    }
    /* Marks of tokens before stay with the fork; a new sequence has none. */
    uint32_t mark;
    memcpy(w->states[to], has_mark(w, id, end, &mark) && end < p->stored ? w->marks[id][mark].bytes : w->states[id], STATE_BYTES);
    w->n_marks[to] = 0;
    for (mark = 0; save.first && mark < w->n_marks[id] && w->marks[id][mark].tokens <= save.first; mark++)
        w->marks[to][w->n_marks[to]++] = w->marks[id][mark];
    compare(w, to);
    size_t again;
    unsigned char *twice = save_range(w, to, &save, &again);
    ck_assert_ptr_nonnull(twice);
    ck_assert_uint_eq(again, size);
    ck_assert_mem_eq(twice, bytes, size);
    free(twice);
    free(bytes);
    return true;
}

static void do_operation(twin *w)
{
    static const operation often[] = { NEW,      NEW,    APPEND, APPEND,       APPEND, APPEND, APPEND, DRAFT, DRAFT, FORK, FORK, TRUNCATE,
                                       TRUNCATE, REMOVE, REMOVE, REMOVE_PAGES, EVICT,  SHIFT,  MARK,   FREE,  FREE,  SAVE, SAVE };
    operation what = often[test_below(&w->state, sizeof often / sizeof *often)];
    const uint32_t id = pick(w);
    if (id == KVT_NO_SEQUENCE)
        what = NEW;
    bool is_done = true;
    switch (what) {
    case NEW:
        do_new(w);
        break;
    case FREE:
        ck_assert_int_eq(kvt_cache_free(w->cache, id), KVT_OK);
        plain_close(&w->plain[id], w->n);
        break;
    case APPEND:
    case DRAFT:
        is_done = do_append(w, id, what == DRAFT);
        break;
    case FORK:
        is_done = do_fork(w, id);
        break;
    case TRUNCATE:
        is_done = do_truncate(w, id);
        break;
    case REMOVE:
    case REMOVE_PAGES:
        is_done = do_remove(w, id, what == REMOVE_PAGES);
        break;
    case EVICT:
        is_done = do_evict(w, id);
        break;
    case SHIFT:
        is_done = do_shift(w, id);
        break;
    case SAVE:
        is_done = do_save(w, id);
        break;
    default:
        is_done = do_mark(w, id);
    }
    (is_done ? w->done : w->refused)[what]++;
    if (id != KVT_NO_SEQUENCE && w->plain[id].is_used)
        compare(w, id);
}

static void run_scene(int which, uint64_t seed, size_t operations)
{
    const scene s = scene_of(which);
    twin *w = test_malloc(sizeof *w);
    open_twin(w, &s, seed);
    for (size_t i = 0; i < operations; i++) {
        do_operation(w);
        if (i % 16 == 0 || i + 1 == operations) {
            for (uint32_t id = 0; id < s.sequences; id++)
                if (w->plain[id].is_used)
                    compare(w, id);
            compare_counts(w);
        }
    }
    printf("%s, seed %" PRIu64 ":", s.name, seed);
    for (int i = 0; i < OPERATIONS; i++)
        printf(" %s %zu/%zu", NAMES[i], w->done[i], w->done[i] + w->refused[i]);
    printf("\n");
    close_twin(w);
    free(w);
}

START_TEST(random_operations)
{
    run_scene(_i, 1 + (uint64_t)_i, 4000 / KVT_TEST_SHARE);
}
END_TEST

enum { EPISODE = 2500 };
static uint64_t first_seed = 1;

/* A test for each episode: Check has no room for the time that a million operations take under sanitizers. */
START_TEST(many_operations)
{
    run_scene(_i % SCENES, first_seed + (uint64_t)_i, EPISODE);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("cache");
    TCase *tcase = tcase_create("cache");
    if (argc > 1) {
        const size_t many = strtoull(argv[1], NULL, 10);
        first_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
        tcase_set_timeout(tcase, 0);
        tcase_add_loop_test(tcase, many_operations, 0, (int)((many + EPISODE - 1) / EPISODE));
    } else {
        tcase_set_timeout(tcase, 600);
        tcase_add_loop_test(tcase, random_operations, 0, SCENES);
    }
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
