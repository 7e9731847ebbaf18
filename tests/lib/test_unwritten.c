/* SPDX-License-Identifier: MIT */
/* Attention over pages whose memory was never written but by kvt_write, for every scheme, side and edge, and steps on open pages that only they
 * wrote: results are looked at bit by bit, so that a memory checker complains where one depends on what was not written. tests/lib/CMakeLists.txt
 * runs it under valgrind; alone it shows that what memory held before makes no difference. */
#include "support.h"

#include <kvtile/attend.h>
#include <kvtile/step.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIM = 48, ROPE_DIM = 16, PAGES = 2, GROUP = 2, QUERY_TOKENS = 2 };

enum { PLAIN, LATENT, APART, KINDS };

/* [0] is keys' pages and [1] values': the same ones but where they are apart. */
static void *new_pages(const kvt_layout *layout, int kind, kvt_pages pages[2], int fill, size_t count)
{
    const size_t bytes = PAGES * layout->page_bytes;
    unsigned char *memory = test_malloc(2 * bytes);
    if (fill >= 0)
        memset(memory, fill, 2 * bytes);
    pages[0] = pages[1] = (kvt_pages){ .base = memory, .stride = layout->page_bytes, .count = PAGES };
    if (kind == APART)
        pages[1].base = memory + bytes;
    static float rows[PAGES * 64 * DIM];
    uint64_t state = 3;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        rows[i] = (float)test_normal(&state);
    const uint32_t dims[] = { layout->k.dim, layout->v.dim, layout->rope.dim };
    for (int side = KVT_K; side <= (int)KVT_ROPE; side++)
        if (dims[side])
            ck_assert_int_eq(
                kvt_write(layout, (kvt_side)side, &pages[side == KVT_V], 0, count, rows, KVT_F32, (ptrdiff_t)(dims[side] * sizeof *rows)), KVT_OK);
    return memory;
}

/* A number that every bit of the results changes. */
static uint64_t hash_of(const void *results, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ ((const unsigned char *)results)[i]) * 0x100000001b3;
        if (hash & 1) /* what a memory checker sees */
            hash ^= 2;
    }
    return hash;
}

static uint64_t attend(const kvt_layout *layout, int kind, const kvt_pages pages[2], size_t begin, size_t end)
{
    static float queries[QUERY_TOKENS][GROUP][DIM + ROPE_DIM], out[QUERY_TOKENS][GROUP][DIM];
    uint64_t state = 9;
    for (size_t i = 0; i < sizeof queries / sizeof(float); i++)
        ((float *)queries)[i] = (float)test_normal(&state);
    const kvt_segment segment = { .layout = layout, .pages = pages[0] };
    const uint32_t query_dim = layout->k.dim + layout->rope.dim;
    const kvt_attention a = { .size = sizeof a,
                              .segments = &segment,
                              .n_segments = 1,
                              .value_pages = kind == APART ? &pages[1] : NULL,
                              .begin = begin,
                              .end = end,
                              .position = end - QUERY_TOKENS,
                              .group = GROUP,
                              .query_tokens = QUERY_TOKENS,
                              .queries = queries,
                              .query_dtype = KVT_F32,
                              .query_head_stride = (ptrdiff_t)(query_dim * sizeof(float)),
                              .query_token_stride = (ptrdiff_t)(GROUP * query_dim * sizeof(float)),
                              .out = out,
                              .out_dtype = KVT_F32,
                              .out_head_stride = sizeof out[0][0],
                              .out_token_stride = sizeof out[0],
                              .scale = 0.2f };
    kvt_attend_sizes sizes;
    ck_assert_int_eq(kvt_attend_plan_sizes(&a, &sizes), KVT_OK);
    void *workspace = test_malloc(sizes.workspace_bytes);
    ck_assert_int_eq(kvt_attend(&a, workspace), KVT_OK);
    free(workspace);
    return hash_of(out, sizeof out);
}

START_TEST(what_was_never_written)
{
    static const size_t ends[] = { 2, 5, 16, 23, 64, 66, 77, 100, 127 }, begins[] = { 0, 3, 18, 62 };
    const kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    for (size_t tier = 0; tier < n_tiers; tier++)
        for (int kind = PLAIN; kind < KINDS; kind++) {
            kvt_spec spec = test_spec(scheme, scheme, DIM, kind == LATENT ? 0 : DIM);
            spec.tiers = tiers[tier].mask;
            if (kind == LATENT) {
                spec.rope_scheme = scheme;
                spec.rope_dim = ROPE_DIM;
            }
            kvt_layout layout;
            ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
            if (kind == APART)
                ck_assert_int_eq(kvt_layout_apart(&layout, &layout), KVT_OK);
            for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
                kvt_pages fresh[2], full[2];
                void *memory = new_pages(&layout, kind, fresh, -1, ends[e]), *other = new_pages(&layout, kind, full, 0xff, ends[e]);
                for (size_t b = 0; b < sizeof begins / sizeof *begins && begins[b] + QUERY_TOKENS <= ends[e]; b++)
                    ck_assert_uint_eq(attend(&layout, kind, fresh, begins[b], ends[e]), attend(&layout, kind, full, begins[b], ends[e]));
                free(memory);
                free(other);
            }
        }
}
END_TEST

enum { MOST_FRESH = 66 };

static kvt_pool pool_of(size_t page_bytes, int fill)
{
    kvt_pool pool = { .blocks = 2, .head_stride = page_bytes, .block_stride = page_bytes, .layer_stride = 2 * page_bytes };
    pool.base = test_malloc(2 * page_bytes);
    if (fill >= 0)
        memset(pool.base, fill, 2 * page_bytes);
    return pool;
}

/* The results of steps of one sequence, [token][head][channel], whose pools and workspace held `fill`, or were never written. */
static void step_through(uint32_t tiers, kvt_dtype open, kvt_dtype dtype, const uint32_t *fresh, size_t steps, int fill, float *out)
{
    kvt_spec spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_kv5, DIM, DIM);
    spec.tiers = tiers;
    kvt_layout layout;
    size_t open_bytes, workspace_bytes;
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    ck_assert_int_eq(kvt_view_open_bytes(&layout, open, &open_bytes), KVT_OK);
    const kvt_view view = { .size = sizeof view,
                            .layout = &layout,
                            .pages = pool_of(layout.page_bytes, fill),
                            .open_pages = pool_of(open_bytes, fill),
                            .open_dtype = open,
                            .layers = 1 };
    ck_assert_int_eq(kvt_step_workspace(&view, &(kvt_step_limits){ 1, PAGES * 64, MOST_FRESH, GROUP, 1 }, &workspace_bytes), KVT_OK);
    void *workspace = aligned_alloc(64, workspace_bytes);
    ck_assert_ptr_nonnull(workspace);
    if (fill >= 0)
        memset(workspace, fill, workspace_bytes);
    static const uint32_t blocks[] = { 1, 0 };
    kvt_sequence sequence = { .blocks = blocks, .n_blocks = 2, .open = { 0, 1 } };
    static float rows[(GROUP + 2) * MOST_FRESH * DIM]; /* of 16 bits: each two numbers, one or 2^-7 and a sign */
    uint64_t state = 5;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint32_t number = 0;
        const float x = (float)test_normal(&state);
        memcpy(&number, &x, sizeof number);
        number = dtype == KVT_F32 ? number : (number & 0x8000) | 0x3c003c00;
        memcpy(&rows[i], &number, sizeof number);
    }
    for (size_t i = 0; i < steps; i++, sequence.stored += sequence.fresh) {
        sequence.fresh = fresh[i];
        const kvt_step step = { .size = sizeof step,
                                .view = &view,
                                .sequences = &sequence,
                                .n_sequences = 1,
                                .heads = GROUP,
                                .dtype = dtype,
                                .q = rows,
                                .k = rows + (size_t)GROUP * MOST_FRESH * DIM,
                                .v = rows + (size_t)(GROUP + 1) * MOST_FRESH * DIM,
                                .out = out + sequence.stored * GROUP * DIM,
                                .out_dtype = KVT_F32,
                                .scale = 0.2f,
                                .workspace = workspace,
                                .workspace_bytes = workspace_bytes };
        ck_assert_int_eq(kvt_step_append(&step, 0, 1), KVT_OK);
        ck_assert_int_eq(kvt_step_attend(&step, 0, 1), KVT_OK);
        ck_assert_int_eq(kvt_step_merge(&step, 0, 1), KVT_OK);
    }
    free(workspace);
    free(view.open_pages.base);
    free(view.pages.base);
}

START_TEST(open_pages)
{
    static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
    static const uint32_t fresh[] = { 1, 4, 15, MOST_FRESH, 3 };
    enum { STEPS = sizeof fresh / sizeof *fresh, ALL = (1 + 4 + 15 + MOST_FRESH + 3) * GROUP * DIM };
    static float once[ALL], again[ALL];
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    for (size_t tier = 0; tier < n_tiers; tier++)
        for (int d = 0; d < 3; d++) {
            step_through(tiers[tier].mask, dtypes[_i], dtypes[d], fresh, STEPS, -1, once);
            step_through(tiers[tier].mask, dtypes[_i], dtypes[d], fresh, STEPS, 0xff, again);
            ck_assert_uint_eq(hash_of(once, sizeof once), hash_of(again, sizeof again));
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("unwritten");
    TCase *tcase = tcase_create("unwritten");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, what_was_never_written, 0, (int)test_scheme_count());
    tcase_add_loop_test(tcase, open_pages, 0, 3);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
