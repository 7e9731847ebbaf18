/* SPDX-License-Identifier: MIT */
/* Sizes of random models under random requests: parts add up, nothing overflows in silence, budgets are the largest that fit, an error writes
 * nothing, and kvtile's bytes are those of the layout that places them. test_size_random [FIRST SECONDS]: with arguments it looks for more, and each
 * failure names its seed. */
#include <check.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <kvtile/model.h>

#include "tests/lib/support.h"

#define MODELS     3000
#define MAX_GROUPS 6

__extension__ typedef unsigned __int128 wide;

static uint64_t state, seed, first = 1;
static double seconds; /* 0: a number of models instead */

/* splitmix64 */
static uint64_t next(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(next() % n);
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

/* Any size of number, the edges often. */
static uint64_t any_number(void)
{
    static const uint64_t edges[] = { 0, 1, 2, 63, 64, 65, 1u << 16, UINT32_MAX, (uint64_t)UINT32_MAX + 1, INT64_MAX, UINT64_MAX };
    return one_in(3) ? edges[below(sizeof edges / sizeof edges[0])] : next() >> below(64);
}

static kvt_layer_group random_group(void)
{
    kvt_layer_group g = { .kind = (kvt_layer_kind)(KVT_LAYER_FULL + (int)below(8)), .count = 1 + below(60) };
    const bool latent = g.kind == KVT_LAYER_LATENT, indexer = g.kind == KVT_LAYER_INDEXER;
    g.draft_count = one_in(5) ? 1 + below(3) : 0;
    g.shared_count = one_in(5) ? 1 + below(20) : 0;
    if (g.kind != KVT_LAYER_RECURRENT && g.kind != KVT_LAYER_NONE) {
        g.kv_heads = latent || indexer ? 1 : 1 + below(32);
        g.k_dim = one_in(3) ? 1 + below(700) : 32 * (1 + below(16));
    }
    if ((g.kind == KVT_LAYER_FULL || g.kind == KVT_LAYER_SLIDING || g.kind == KVT_LAYER_CROSS) && !one_in(4))
        g.v_dim = one_in(3) ? 1 + below(700) : g.k_dim;
    if (g.kind == KVT_LAYER_SLIDING)
        g.window = 1 + below(one_in(4) ? UINT32_MAX - 1 : 6000);
    if (g.kind == KVT_LAYER_COMPRESSED || indexer)
        g.tokens_per_row = indexer ? 1 + below(5) : 2 + below(200);
    if (latent && one_in(2)) {
        g.expanded_heads = 1 + below(128);
        g.expanded_k_dim = 192;
        g.expanded_v_dim = 128;
    }
    if (latent && g.k_dim > 1 && one_in(2))
        g.rope_dim = 1 + below(g.k_dim - 1);
    if (g.kind == KVT_LAYER_RECURRENT) {
        g.recurrent_elements = 1 + (one_in(20) ? any_number() >> 1 : below(3000000));
        g.recurrent_element_bytes = 4;
        if (one_in(2)) {
            g.conv_kernel = 1 + below(5);
            g.conv_channels = 1 + below(20000);
            g.conv_element_bytes = 2;
        }
    }
    return g;
}

static kvt_size_request random_request(void)
{
    kvt_size_request r = { .size = sizeof r };
    size_t engines = 0, types = 0;
    while (kvt_engine_at(engines) != KVT_ENGINE_NONE)
        engines++;
    r.engine = kvt_engine_at(below((uint32_t)engines));
    while (kvt_engine_type_at(r.engine, types))
        types++;
    r.k_type = kvt_engine_type_at(r.engine, below((uint32_t)types));
    r.v_type = one_in(3) ? kvt_engine_type_at(r.engine, below((uint32_t)types)) : r.k_type;
    r.context = one_in(3) ? any_number() : below(300000);
    r.sequences = one_in(6) ? any_number() : 1 + below(9);
    r.encoder_tokens = one_in(4) ? any_number() : 1500;
    const bool own = r.engine == KVT_ENGINE_kvtile || r.engine == KVT_ENGINE_logical, llama = r.engine == KVT_ENGINE_llama_cpp;
    if ((own || r.engine == KVT_ENGINE_vllm) && one_in(3))
        r.shared_prefix = one_in(3) ? any_number() : below(100000);
    if (own && one_in(3))
        r.rope_type = "bf16";
    if (r.engine == KVT_ENGINE_kvtile && one_in(3))
        r.k_options.centring = KVT_CENTRING_PAGE;
    if ((llama || r.engine == KVT_ENGINE_vllm || r.engine == KVT_ENGINE_mlx) && one_in(3))
        r.batch_tokens = 1 + below(9000);
    if (r.engine == KVT_ENGINE_vllm && one_in(3))
        r.block_tokens = 1u << below(9);
    if (llama) {
        r.separate_streams = one_in(4);
        r.swa_full = one_in(4);
        r.no_flash_attention = one_in(4);
        r.draft_tokens = one_in(4) ? 1 + below(4) : 0;
    }
    return r;
}

#define HOLDS(condition, ...) TEST_REQUIRE(condition, "seed %" PRIu64 ", engine %s: " __VA_ARGS__)

static void check_parts(const kvt_model *model, const kvt_size_request *r, const kvt_size_report *report, const kvt_group_size *groups)
{
    /* 128 bits: no sum of these can pass unseen. */
    wide parts = (wide)report->payload_bytes + report->scale_bytes + report->padding_bytes + report->rounding_bytes;
    parts = parts + report->window_bytes + report->state_bytes + report->cross_bytes;
    HOLDS(parts == report->total_bytes, "parts do not add up", seed, kvt_engine_name(r->engine));
    wide all = 0;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_group_size *g = &groups[i];
        all += g->bytes;
        HOLDS((wide)g->payload_bytes + g->scale_bytes + g->padding_bytes + g->rounding_bytes + g->state_bytes == g->bytes,
              "parts of group %zu do not add up", seed, kvt_engine_name(r->engine), i);
        HOLDS(g->rows <= g->allocated_rows, "group %zu uses %" PRIu64 " rows of %" PRIu64, seed, kvt_engine_name(r->engine), i, g->rows,
              g->allocated_rows);
    }
    HOLDS(all == report->total_bytes, "groups do not add up", seed, kvt_engine_name(r->engine));
}

/* What kvtile says of a group of full layers is what the layout takes for as many pages. */
static void check_layout(const kvt_model *model, const kvt_size_request *r, const kvt_group_size *groups)
{
    if (r->engine != KVT_ENGINE_kvtile || r->shared_prefix || r->context > 1u << 20)
        return;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *g = &model->groups[i];
        if (g->kind != KVT_LAYER_FULL && g->kind != KVT_LAYER_LATENT)
            continue;
        const uint32_t rope = r->rope_type ? g->rope_dim : 0;
        const kvt_spec spec = { .size = sizeof spec,
                                .k_scheme = kvt_scheme_find(r->k_type)->scheme,
                                .v_scheme = kvt_scheme_find(r->v_type)->scheme,
                                .rope_scheme = rope           ? KVT_SCHEME_bf16
                                               : r->rope_type ? KVT_SCHEME_bf16
                                                              : KVT_SCHEME_NONE,
                                .k_dim = g->k_dim - rope,
                                .rope_dim = rope,
                                .v_dim = g->v_dim,
                                .kv_heads = g->kv_heads,
                                .k_options = r->k_options };
        kvt_layout layout;
        size_t bytes;
        HOLDS(kvt_layout_init(&layout, &spec) == KVT_OK && kvt_layout_bytes(&layout, r->context, &bytes) == KVT_OK, "group %zu has no layout", seed,
              "kvtile", i);
        wide expected = (wide)bytes * groups[i].layers * r->sequences;
        HOLDS(expected == groups[i].bytes, "group %zu: %" PRIu64 " bytes, of the layout %" PRIu64, seed, "kvtile", i, groups[i].bytes,
              (uint64_t)expected);
    }
}

/* The largest that fits fits, what is a little larger does not, and everything smaller does. */
static void check_budget(const kvt_model *model, const kvt_size_request *r, uint64_t budget, bool contexts)
{
    uint64_t most = 7;
    const kvt_status status = contexts ? kvt_size_longest_context(model, r, budget, &most) : kvt_size_most_sequences(model, r, budget, &most);
    if (status != KVT_OK) {
        HOLDS(most == 7, "status %d, but written", seed, kvt_engine_name(r->engine), status);
        return;
    }
    kvt_size_request q = *r;
    uint64_t *field = contexts ? &q.context : &q.sequences;
    for (int i = 0; i < 8; i++) {
        kvt_size_report report;
        const uint64_t step = i < 3 ? (uint64_t)i + 1 : 1 + any_number() % 100000;
        if (most <= UINT64_MAX - step) {
            *field = most + step;
            HOLDS(kvt_size(model, &q, &report, NULL) != KVT_OK || report.total_bytes > budget, "%" PRIu64 " fit too, not only %" PRIu64, seed,
                  kvt_engine_name(r->engine), *field, most);
        }
        *field = i == 0 ? most : contexts ? next() % (most ? most : 1) : 1 + next() % most;
        HOLDS(kvt_size(model, &q, &report, NULL) == KVT_OK && report.total_bytes <= budget, "%" PRIu64 " do not fit, but %" PRIu64 " should", seed,
              kvt_engine_name(r->engine), *field, most);
    }
}

/* Seeds with faults that were mended: sequences share pages of vLLM whose tokens are no multiple of a row's. */
static const uint64_t found[] = { 920014705, 50609 };

static void check_model(void)
{
    state = seed * 0x2545f4914f6cdd1du + 1;
    kvt_layer_group groups[MAX_GROUPS];
    const kvt_model model = { .name = "random", .n_groups = 1 + below(MAX_GROUPS), .groups = groups, .encoder_tokens = one_in(2) ? 0 : below(9000) };
    for (size_t i = 0; i < model.n_groups; i++)
        groups[i] = random_group();
    const kvt_size_request request = random_request();
    kvt_size_report report, before;
    kvt_group_size sizes[MAX_GROUPS], sizes_before[MAX_GROUPS];
    memset(&report, 0x5a, sizeof report);
    memset(sizes, 0x3c, sizeof sizes);
    before = report;
    memcpy(sizes_before, sizes, sizeof sizes);

    const kvt_status status = kvt_size(&model, &request, &report, sizes);
    HOLDS((status == KVT_ERR_ENGINE) == (kvt_size_problem(&model, &request) != NULL), "a problem and status %d", seed,
          kvt_engine_name(request.engine), status);
    if (status != KVT_OK) {
        HOLDS(memcmp(&report, &before, sizeof report) == 0 && memcmp(sizes, sizes_before, sizeof sizes) == 0, "status %d, but written", seed,
              kvt_engine_name(request.engine), status);
        return;
    }
    check_parts(&model, &request, &report, sizes);
    check_layout(&model, &request, sizes);
    const uint64_t budget = one_in(3) ? any_number() : report.total_bytes - (one_in(2) && report.total_bytes > 999 ? below(999) : 0);
    check_budget(&model, &request, budget, true);
    if (!request.separate_streams)
        check_budget(&model, &request, budget, false);
}

START_TEST(random_models)
{
    const clock_t end = clock() + (clock_t)(seconds * CLOCKS_PER_SEC);
    for (size_t i = 0; i < sizeof found / sizeof found[0]; i++) {
        seed = found[i];
        check_model();
    }
    for (seed = first; seconds > 0 ? clock() < end : seed < first + MODELS / KVT_TEST_SHARE; seed++)
        check_model();
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 3) {
        first = strtoull(argv[1], NULL, 10);
        seconds = strtod(argv[2], NULL);
    }
    Suite *suite = suite_create("size_random");
    TCase *cases = tcase_create("size_random");
    tcase_set_timeout(cases, 60 + 2 * seconds);
    tcase_add_test(cases, random_models);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
