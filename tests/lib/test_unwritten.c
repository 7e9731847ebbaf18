/* SPDX-License-Identifier: MIT */
/* Attention over pages whose memory was never written but by kvt_write, for every scheme, side and edge: results are looked at bit by bit, so that a
 * memory checker complains where one depends on what was not written. tests/lib/CMakeLists.txt runs it under valgrind; alone it shows that what
 * memory held before makes no difference. */
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
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; i < sizeof out; i++) {
        hash = (hash ^ ((const unsigned char *)out)[i]) * 0x100000001b3;
        if (hash & 1) /* what a memory checker sees */
            hash ^= 2;
    }
    return hash;
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

int main(void)
{
    Suite *suite = suite_create("unwritten");
    TCase *tcase = tcase_create("unwritten");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, what_was_never_written, 0, (int)test_scheme_count());
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
