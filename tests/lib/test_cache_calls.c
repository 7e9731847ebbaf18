/* SPDX-License-Identifier: MIT */
/* Functions of kvtile/cache.h and kvtile/saved.h one by one: wrong arguments give the status that is documented and change nothing, no call takes
 * more than 64 kB of stack, a layout that was changed is seen, and steps give the same bits with a cache as without. */
#define _XOPEN_SOURCE 700 /* pthread_attr_setstack */
#include "cache_home.h"
#include "painted_stack.h"

#include <stdio.h>

enum { TOKENS = 200, MODEL = 5, STATE = 24 };

static const double FREQUENCIES[KVT_MAX_DIM / 2] = { 1, 0.5, 0.25, 0.1 };

static void open_wide(cache_home *h, kvt_preset preset, uint32_t dim, uint32_t heads)
{
    kvt_spec spec = { .size = sizeof spec, .k_dim = dim, .v_dim = dim, .kv_heads = heads };
    const kvt_rope rope = { .size = sizeof rope, .frequencies = FREQUENCIES, .pairs = dim / 2 };
    kvt_cache_group group = { .open_dtype = KVT_F16, .layers = 1, .blocks = 16, .rope = &rope };
    home_open(h, preset, &spec, &group, &(kvt_cache_spec){ .sequences = 3, .tokens = 512, .state_bytes = STATE, .state_marks = 1 });
    memset(kvt_cache_state(h->cache, h->id), 1, STATE);
    home_fill(h, TOKENS);
}

/* ---- wrong arguments ---- */

/* What the cache says of its sequence, and all of its bytes. */
static uint64_t digest_of(const cache_home *h)
{
    const home_tape saved = home_save(h, MODEL, NULL);
    kvt_cache_statistics st = { .size = sizeof st };
    uint64_t hash = 0xcbf29ce484222325 ^ kvt_cache_tokens(h->cache, h->id) ^ kvt_cache_fresh(h->cache, h->id) << 32;
    home_must(kvt_cache_measure(h->cache, 0, &st) == KVT_OK);
    const size_t counts[] = { st.pages.free, st.pages.shared, st.first_pages.free, st.open_pages.free, st.states.free };
    for (size_t i = 0; i < saved.size; i++)
        hash = (hash ^ saved.bytes[i]) * 0x100000001b3;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        hash = (hash ^ counts[i]) * 0x100000001b3;
    free(saved.bytes);
    return hash;
}

#define REFUSED(expected, call)                                                                                                                      \
    do {                                                                                                                                             \
        const kvt_status status = (call);                                                                                                            \
        TEST_REQUIRE(status == (expected), "%s: %s, not %s", #call, kvt_status_text(status), kvt_status_text(expected));                             \
        TEST_REQUIRE(digest_of(&h) == before, "%s: something has changed", #call);                                                                   \
    } while (0)

START_TEST(wrong_arguments)
{
    cache_home h;
    open_wide(&h, KVT_PRESET_BALANCED, 16, 2);
    kvt_cache *c = h.cache;
    const uint32_t id = h.id, nobody[] = { id + 1, 3, KVT_NO_SEQUENCE };
    uint32_t other;
    size_t bytes;
    kvt_sequence entry;
    kvt_cache_statistics st = { .size = sizeof st };
    kvt_save save = { .size = sizeof save, .model = MODEL };
    home_tape saved = home_save(&h, MODEL, NULL);
    kvt_saved opened;
    kvt_view view;
    float scores[TOKENS] = { 0 };
    char why[200];
    ck_assert_int_eq(kvt_saved_open(saved.bytes, saved.size, &opened, why, sizeof why), KVT_OK);
    const uint64_t before = digest_of(&h);
    for (size_t i = 0; i < 3; i++) {
        const uint32_t no = nobody[i];
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_free(c, no));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_append(c, no, 1));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_entry(c, no, 0, &entry));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_commit(c, no, 0));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_fork(c, no, &other));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_truncate(c, no, 0));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_remove(c, no, 0, 0, KVT_POSITIONS_KEEP));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_evict(c, no, scores, 1, KVT_POSITIONS_KEEP));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_shift(c, no, 0, 1, 1));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_work(c, no, 0, 1, h.scratch, h.scratch_bytes));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_mark(c, no));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_save_bytes(c, no, &save, &bytes));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_save(c, no, &save, home_write, &saved, h.scratch, h.scratch_bytes));
        REFUSED(KVT_ERR_SEQUENCE, kvt_cache_load(c, no, &opened, MODEL, home_read, &saved));
        ck_assert(kvt_cache_tokens(c, no) == 0 && kvt_cache_fresh(c, no) == 0 && kvt_cache_state(c, no) == NULL);
    }
    REFUSED(KVT_ERR_NULL, kvt_cache_new(NULL, &other));
    REFUSED(KVT_ERR_NULL, kvt_cache_new(c, NULL));
    REFUSED(KVT_ERR_NULL, kvt_cache_free(NULL, id));
    REFUSED(KVT_ERR_NULL, kvt_cache_append(NULL, id, 1));
    REFUSED(KVT_ERR_NULL, kvt_cache_entry(c, id, 0, NULL));
    REFUSED(KVT_ERR_NULL, kvt_cache_commit(NULL, id, 0));
    REFUSED(KVT_ERR_NULL, kvt_cache_fork(c, id, NULL));
    REFUSED(KVT_ERR_NULL, kvt_cache_truncate(NULL, id, 0));
    REFUSED(KVT_ERR_NULL, kvt_cache_remove(NULL, id, 0, 0, KVT_POSITIONS_KEEP));
    REFUSED(KVT_ERR_NULL, kvt_cache_evict(c, id, NULL, 1, KVT_POSITIONS_KEEP));
    REFUSED(KVT_ERR_NULL, kvt_cache_shift(NULL, id, 0, 1, 1));
    REFUSED(KVT_ERR_NULL, kvt_cache_work(c, id, 0, 1, NULL, h.scratch_bytes));
    REFUSED(KVT_ERR_NULL, kvt_cache_mark(NULL, id));
    REFUSED(KVT_ERR_NULL, kvt_cache_measure(c, 0, NULL));
    REFUSED(KVT_ERR_NULL, kvt_cache_save_bytes(c, id, NULL, &bytes));
    REFUSED(KVT_ERR_NULL, kvt_cache_save_bytes(c, id, &save, NULL));
    REFUSED(KVT_ERR_NULL, kvt_cache_save(c, id, &save, NULL, NULL, h.scratch, h.scratch_bytes));
    REFUSED(KVT_ERR_NULL, kvt_cache_load(c, id, NULL, MODEL, home_read, &saved));
    REFUSED(KVT_ERR_NULL, kvt_cache_load(c, id, &opened, MODEL, NULL, &saved));
    REFUSED(KVT_ERR_RANGE, kvt_cache_append(c, id, 512));
    REFUSED(KVT_ERR_RANGE, kvt_cache_entry(c, id, 1, &entry));
    REFUSED(KVT_ERR_RANGE, kvt_cache_commit(c, id, 1));
    REFUSED(KVT_ERR_RANGE, kvt_cache_truncate(c, id, TOKENS + 1));
    REFUSED(KVT_ERR_RANGE, kvt_cache_truncate(c, id, 100)); /* no mark of the state there */
    REFUSED(KVT_ERR_RANGE, kvt_cache_remove(c, id, 9, 8, KVT_POSITIONS_KEEP));
    REFUSED(KVT_ERR_RANGE, kvt_cache_remove(c, id, 0, TOKENS + 1, KVT_POSITIONS_CLOSE));
    REFUSED(KVT_ERR_OPTIONS, kvt_cache_remove(c, id, 0, 64, (kvt_positions)2));
    REFUSED(KVT_ERR_RANGE, kvt_cache_evict(c, id, scores, TOKENS + 1, KVT_POSITIONS_KEEP));
    REFUSED(KVT_ERR_RANGE, kvt_cache_shift(c, id, 0, TOKENS + 1, 1));
    REFUSED(KVT_ERR_RANGE, kvt_cache_shift(c, id, 0, TOKENS, (INT64_C(1) << 31) + 1));
    REFUSED(KVT_ERR_RANGE, kvt_cache_work(c, id, 1, 1, h.scratch, h.scratch_bytes));
    REFUSED(KVT_ERR_RANGE, kvt_cache_work(c, id, 0, 1, h.scratch, h.scratch_bytes - 1));
    REFUSED(KVT_ERR_RANGE, kvt_cache_work(c, id, 0, 1, (char *)h.scratch + 4, h.scratch_bytes));
    REFUSED(KVT_ERR_RANGE, kvt_cache_measure(c, 1, &st));
    st.size = 0;
    REFUSED(KVT_ERR_STRUCT_SIZE, kvt_cache_measure(c, 0, &st));
    save.first = 63;
    REFUSED(KVT_ERR_RANGE, kvt_cache_save_bytes(c, id, &save, &bytes));
    save.first = 0, save.end = TOKENS - 1;
    REFUSED(KVT_ERR_RANGE, kvt_cache_save_bytes(c, id, &save, &bytes));
    save.end = TOKENS + 1;
    REFUSED(KVT_ERR_RANGE, kvt_cache_save_bytes(c, id, &save, &bytes));
    save.size = 8, save.end = 0;
    REFUSED(KVT_ERR_STRUCT_SIZE, kvt_cache_save_bytes(c, id, &save, &bytes));
    REFUSED(KVT_ERR_RANGE, kvt_cache_load(c, id, &opened, MODEL, home_read, &saved)); /* behind tokens that are there */
    REFUSED(KVT_ERR_NULL, kvt_saved_view(NULL, saved.size, 0, &view, &entry));
    REFUSED(KVT_ERR_RANGE, kvt_saved_view(&opened, saved.size, 1, &view, &entry));
    REFUSED(KVT_ERR_RANGE, kvt_saved_view(&opened, saved.size - 1, 0, &view, &entry));
    REFUSED(KVT_ERR_NULL, kvt_saved_open(NULL, saved.size, &opened, NULL, 0));
    REFUSED(KVT_ERR_NULL, kvt_saved_verify(NULL, saved.size, NULL, 0));
    REFUSED(KVT_ERR_NULL, kvt_saved_head_bytes(NULL, &bytes));
    ck_assert(kvt_cache_view(c, 1) == NULL && kvt_cache_view(NULL, 0) == NULL && kvt_cache_tokens(NULL, 0) == 0 && kvt_cache_work_bytes(NULL) == 0);
    /* New tokens that are not committed: how many, and what has to wait for them. */
    ck_assert_int_eq(kvt_cache_append(c, id, 3), KVT_OK);
    ck_assert_uint_eq(kvt_cache_fresh(c, id), 3);
    ck_assert_uint_eq(kvt_cache_tokens(c, id), TOKENS);
    ck_assert_int_eq(kvt_cache_fork(c, id, &other), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_cache_remove(c, id, 0, 64, KVT_POSITIONS_CLOSE), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_cache_append(c, id, 0), KVT_OK);
    ck_assert_uint_eq(kvt_cache_fresh(c, id), 0);
    ck_assert_uint_eq(digest_of(&h), before);
    free(saved.bytes);
    home_close(&h);
}
END_TEST

/* A fork whose new tokens are taken back before their steps is as if they had never been: the rows of both newest pages are there, of which the older
 * one's were in the block that the new tokens would have taken. */
START_TEST(taken_back)
{
    cache_home h;
    uint32_t fork = KVT_NO_SEQUENCE;
    open_wide(&h, KVT_PRESET_TIGHT, 16, 2);
    ck_assert_int_eq(kvt_cache_new(h.cache, &h.id), KVT_OK);
    home_fill(&h, 320); /* five whole pages */
    ck_assert_int_eq(kvt_cache_fork(h.cache, h.id, &fork), KVT_OK);
    const home_tape before = home_save(&h, 0, NULL);
    ck_assert(kvt_cache_append(h.cache, fork, 100) == KVT_OK && kvt_cache_append(h.cache, fork, 0) == KVT_OK);
    h.id = fork;
    const home_tape after = home_save(&h, 0, NULL);
    ck_assert_uint_eq(before.size, after.size);
    ck_assert_mem_eq(before.bytes, after.bytes, before.size);
    free(before.bytes), free(after.bytes);
    home_close(&h);
}
END_TEST

/* Presets by name, and what they cannot be made of. */
START_TEST(presets)
{
    static const char *const names[] = { "balanced", "quality", "compact", "tight" };
    kvt_spec spec = { .size = sizeof spec, .k_dim = 64, .v_dim = 64, .kv_heads = 1 }, first;
    for (int i = 0; i < 4; i++)
        ck_assert_str_eq(kvt_preset_name((kvt_preset)i), names[i]);
    ck_assert_ptr_null(kvt_preset_name((kvt_preset)4));
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(kvt_preset_spec((kvt_preset)i, &spec, &first), KVT_OK);
        ck_assert(spec.k_options.centring == KVT_CENTRING_OWN && spec.v_options.centring == KVT_CENTRING_OWN);
        ck_assert(first.k_scheme == KVT_SCHEME_kv8 && first.k_options.centring == KVT_CENTRING_NONE && first.v_options.centring == KVT_CENTRING_NONE);
        ck_assert(first.k_options.rotation == spec.k_options.rotation && first.v_options.rotation == spec.v_options.rotation);
    }
    ck_assert_int_eq(kvt_preset_spec((kvt_preset)4, &spec, &first), KVT_ERR_OPTIONS);
    ck_assert_int_eq(kvt_preset_spec(KVT_PRESET_TIGHT, NULL, &first), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_preset_spec(KVT_PRESET_TIGHT, &spec, NULL), KVT_ERR_NULL);
    spec.size = 4;
    ck_assert_int_eq(kvt_preset_spec(KVT_PRESET_TIGHT, &spec, &first), KVT_ERR_STRUCT_SIZE);
}
END_TEST

/* ---- changed layouts ---- */

/* A saved sequence's layouts are in the caller's memory, where anybody may change them. */
START_TEST(changed_layouts)
{
    cache_home h;
    open_wide(&h, KVT_PRESET_COMPACT, 16, 2);
    const home_tape bytes = home_save(&h, MODEL, NULL);
    kvt_saved right;
    kvt_view view;
    kvt_sequence entry;
    ck_assert_int_eq(kvt_saved_open(bytes.bytes, bytes.size, &right, NULL, 0), KVT_OK);
    ck_assert_int_eq(kvt_saved_view(&right, bytes.size, 0, &view, &entry), KVT_OK);
    for (size_t bit = 0; bit < 8 * sizeof(kvt_layout); bit++)
        for (int which = 0; which < 2; which++) {
            kvt_saved changed = right;
            kvt_layout *layout = which ? &changed.groups[0].first_layout : &changed.groups[0].layout;
            ((unsigned char *)layout)[bit / 8] ^= (unsigned char)(1u << bit % 8);
            TEST_REQUIRE(kvt_saved_view(&changed, bytes.size, 0, &view, &entry) == KVT_ERR_LAYOUT, "layout %d, bit %zu", which, bit);
        }
    free(bytes.bytes);
    home_close(&h);
}
END_TEST

/* ---- bits ---- */

/* Rows of tokens of one layer, f16: a function of the token alone, so that any grouping has the same. */
static void make_rows(uint16_t *rows, size_t first, size_t n, uint32_t heads, uint32_t dim, uint32_t kind)
{
    for (size_t i = 0; i < n * heads * dim; i++) {
        uint64_t state = ((first * heads * dim + i) * 4 + kind) * 0x9e3779b97f4a7c15;
        rows[i] = (uint16_t)(0x2c00 + (test_random(&state) & 0x8fff) % 0x9000);
    }
}

enum { ALL = 1230, BIT_DIM = 32, BIT_KV_HEADS = 2, BIT_HEADS = 4 };

/* Stores tokens first .. and attends to them, by so many workers. */
static void run_step(const kvt_view *view, kvt_sequence entry, uint32_t workers, uint16_t *rows, float *out)
{
    static unsigned char workspace[1 << 25] __attribute__((aligned(64)));
    const size_t n = entry.fresh;
    uint16_t *k = rows + n * BIT_HEADS * BIT_DIM, *v = k + n * BIT_KV_HEADS * BIT_DIM;
    make_rows(rows, entry.stored, n, BIT_HEADS, BIT_DIM, 0);
    make_rows(k, entry.stored, n, BIT_KV_HEADS, BIT_DIM, 1);
    make_rows(v, entry.stored, n, BIT_KV_HEADS, BIT_DIM, 2);
    const kvt_step step = { .size = sizeof step,
                            .view = view,
                            .sequences = &entry,
                            .n_sequences = 1,
                            .heads = BIT_HEADS,
                            .dtype = KVT_F16,
                            .out_dtype = KVT_F32,
                            .q = rows,
                            .k = k,
                            .v = v,
                            .out = out + entry.stored * BIT_HEADS * BIT_DIM,
                            .scale = 0.1f,
                            .workspace = workspace,
                            .workspace_bytes = sizeof workspace };
    char why[200];
    TEST_REQUIRE(kvt_step_problem(&step, why, sizeof why) == KVT_OK, "%s", why);
    for (uint32_t i = 0; i < workers; i++)
        ck_assert_int_eq(kvt_step_append(&step, i, workers), KVT_OK);
    for (uint32_t i = 0; i < workers; i++)
        ck_assert_int_eq(kvt_step_attend(&step, i, workers), KVT_OK);
    for (uint32_t i = 0; i < workers; i++)
        ck_assert_int_eq(kvt_step_merge(&step, i, workers), KVT_OK);
}

static kvt_pool blocks_of(size_t page_bytes, size_t blocks)
{
    kvt_pool pool = { .blocks = blocks, .block_stride = page_bytes * BIT_KV_HEADS, .head_stride = page_bytes };
    pool.base = home_memory(pool.block_stride * blocks);
    return pool;
}

/* With a cache, on every tier, by 1 to 16 workers, in any grouping, and in blocks that another sequence left in disorder: what one worker gets
 * without a cache, in one step. */
START_TEST(same_bits)
{
    const size_t results = (size_t)ALL * BIT_HEADS * BIT_DIM;
    float *right = test_malloc(results * sizeof *right), *out = test_malloc(results * sizeof *out);
    uint16_t *rows = test_malloc((size_t)ALL * (BIT_HEADS + 2 * BIT_KV_HEADS) * BIT_DIM * sizeof *rows);
    kvt_spec spec = { .size = sizeof spec, .k_dim = BIT_DIM, .v_dim = BIT_DIM, .kv_heads = BIT_KV_HEADS }, first;
    kvt_layout layout, first_layout;
    size_t open_bytes;
    ck_assert_int_eq(kvt_preset_spec((kvt_preset)_i, &spec, &first), KVT_OK);
    ck_assert(kvt_layout_init(&layout, &spec) == KVT_OK && kvt_layout_init(&first_layout, &first) == KVT_OK);
    ck_assert_int_eq(kvt_view_open_bytes(&layout, KVT_BF16, &open_bytes), KVT_OK);
    enum { BLOCKS = ALL / 64 + 2 };
    const kvt_view alone = { .size = sizeof alone,
                             .layout = &layout,
                             .first_layout = &first_layout,
                             .pages = blocks_of(layout.page_bytes, BLOCKS),
                             .first_pages = blocks_of(first_layout.page_bytes, 1),
                             .open_pages = blocks_of(open_bytes, 2),
                             .open_dtype = KVT_BF16,
                             .layers = 1 };
    uint32_t blocks[BLOCKS];
    for (uint32_t i = 0; i < BLOCKS; i++)
        blocks[i] = i ? i - 1 : 0;
    run_step(&alone, (kvt_sequence){ .blocks = blocks, .n_blocks = BLOCKS, .open = { 0, 1 }, .fresh = ALL }, 1, rows, right);
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    uint64_t state = 99 + (uint64_t)_i;
    for (size_t t = 0; t < n_tiers; t++) {
        cache_home h;
        kvt_spec of_tier = { .size = sizeof of_tier, .k_dim = BIT_DIM, .v_dim = BIT_DIM, .kv_heads = BIT_KV_HEADS, .tiers = tiers[t].mask };
        kvt_cache_group group = { .open_dtype = KVT_BF16, .layers = 1, .blocks = 2 * BLOCKS };
        home_open(&h, (kvt_preset)_i, &of_tier, &group, &(kvt_cache_spec){ .sequences = 2, .tokens = ALL + 64 });
        /* Two sequences take blocks in turns, and one is gone then. */
        uint32_t other;
        ck_assert_int_eq(kvt_cache_new(h.cache, &other), KVT_OK);
        for (uint32_t i = 1; i <= 9; i++)
            ck_assert(kvt_cache_append(h.cache, other, 64 * i) == KVT_OK && kvt_cache_append(h.cache, h.id, 70 * i) == KVT_OK);
        ck_assert(kvt_cache_free(h.cache, other) == KVT_OK && kvt_cache_append(h.cache, h.id, 0) == KVT_OK);
        for (size_t stored = 0; stored < ALL;) {
            const uint32_t most = t % 2 ? 400 : 1300, left = (uint32_t)(ALL - stored), fresh = 1 + test_below(&state, most < left ? most : left);
            kvt_sequence entry;
            ck_assert(kvt_cache_append(h.cache, h.id, fresh) == KVT_OK && kvt_cache_entry(h.cache, h.id, 0, &entry) == KVT_OK);
            run_step(kvt_cache_view(h.cache, 0), entry, 1 + test_below(&state, 16), rows, out);
            ck_assert_int_eq(kvt_cache_commit(h.cache, h.id, fresh), KVT_OK);
            stored += fresh;
        }
        const size_t at = test_difference(out, right, results * sizeof *out);
        TEST_REQUIRE(at == results * sizeof *out, "preset %d, tier %s: token %zu has other results than without the cache", _i, tiers[t].name,
                     at / (BIT_HEADS * BIT_DIM * sizeof *out));
        home_close(&h);
    }
    free(alone.pages.base), free(alone.first_pages.base), free(alone.open_pages.base);
    free(right), free(out), free(rows);
}
END_TEST

/* ---- stack ---- */

typedef struct life {
    kvt_preset preset;
    uint32_t dim;
    const char *step; /* that was the last */
} life;

/* All functions on a sequence, one after the other. */
static void *live(void *argument)
{
    life *l = argument;
    cache_home h;
    uint32_t fork = KVT_NO_SEQUENCE;
    l->step = "opening";
    open_wide(&h, l->preset, l->dim, 1);
    l->step = "kvt_cache_mark, _fork, _truncate";
    home_must(kvt_cache_mark(h.cache, h.id) == KVT_OK && kvt_cache_fork(h.cache, h.id, &fork) == KVT_OK);
    home_must(kvt_cache_truncate(h.cache, fork, 0) == KVT_OK);
    l->step = "kvt_cache_remove, _evict, _shift, _work";
    static float scores[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        scores[i] = (float)(i * 37 % 101);
    home_must(kvt_cache_remove(h.cache, h.id, 70, 90, KVT_POSITIONS_CLOSE) == KVT_OK &&
              kvt_cache_work(h.cache, h.id, 0, 1, h.scratch, h.scratch_bytes) == KVT_OK);
    home_must(kvt_cache_evict(h.cache, h.id, scores, 150, KVT_POSITIONS_CLOSE) == KVT_OK &&
              kvt_cache_work(h.cache, h.id, 0, 1, h.scratch, h.scratch_bytes) == KVT_OK);
    home_must(kvt_cache_shift(h.cache, h.id, 3, 100, 1000) == KVT_OK && kvt_cache_work(h.cache, h.id, 0, 1, h.scratch, h.scratch_bytes) == KVT_OK);
    l->step = "kvt_cache_save";
    home_tape saved = home_save(&h, MODEL, NULL);
    l->step = "kvt_saved_open, _verify, _view, kvt_cache_load";
    static kvt_saved opened;
    static char why[200];
    kvt_view view;
    kvt_sequence entry;
    home_must(kvt_saved_open(saved.bytes, saved.size, &opened, why, sizeof why) == KVT_OK);
    home_must(kvt_saved_verify(&opened, saved.size, why, sizeof why) == KVT_OK && kvt_saved_view(&opened, saved.size, 0, &view, &entry) == KVT_OK);
    saved.at = opened.head_bytes;
    home_must(kvt_cache_load(h.cache, fork, &opened, MODEL, home_read, &saved) == KVT_OK);
    l->step = "all";
    free(saved.bytes);
    home_close(&h);
    return NULL;
}

START_TEST(stack)
{
    enum { LIMIT = 64 << 10, STACK = 512 << 10 };
#ifdef IS_SANITIZED
    printf("the stack is not measured: a sanitizer uses stack of its own\n");
    return;
#endif
    unsigned char *memory = aligned_alloc(4096, STACK);
    ck_assert_ptr_nonnull(memory);
    size_t deepest = 0;
    for (int preset = 0; preset < 4; preset++)
        for (uint32_t dim = 64; dim <= KVT_MAX_DIM; dim *= 4) {
            life traced = { (kvt_preset)preset, dim, "" };
            const size_t taken = painted_stack_depth(memory, STACK, live, &traced); /* a few kB of it are the thread's */
            TEST_REQUIRE(taken <= LIMIT + 8192, "preset %d, %u channels, %s: %zu bytes of stack", preset, dim, traced.step, taken);
            deepest = taken > deepest ? taken : deepest;
        }
    printf("%zu bytes of stack, those of the thread among them\n", deepest);
    free(memory);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache_calls");
    TCase *tcase = tcase_create("cache_calls");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, wrong_arguments);
    tcase_add_test(tcase, taken_back);
    tcase_add_test(tcase, presets);
    tcase_add_test(tcase, changed_layouts);
    tcase_add_loop_test(tcase, same_bits, 0, KVT_TEST_SHARE > 1 ? 1 : 4);
    tcase_add_test(tcase, stack);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
