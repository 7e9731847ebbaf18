/* Sizing and the catalogue against numbers worked out by hand and figures published for the models. */
#include "support.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <kvtile/size.h>

#define FULL_GROUP                                                                                                                                   \
    {                                                                                                                                                \
        .kind = KVT_LAYER_FULL, .count = 2, .kv_heads = 4, .k_dim = 128, .v_dim = 64                                                                 \
    }
#define SLIDING_GROUP                                                                                                                                \
    {                                                                                                                                                \
        .kind = KVT_LAYER_SLIDING, .count = 3, .kv_heads = 2, .k_dim = 64, .v_dim = 64, .window = 100                                                \
    }
#define LATENT_GROUP                                                                                                                                 \
    {                                                                                                                                                \
        .kind = KVT_LAYER_LATENT, .count = 5, .kv_heads = 1, .k_dim = 576                                                                            \
    }
#define RECURRENT_GROUP                                                                                                                              \
    {                                                                                                                                                \
        KVT_LAYER_RECURRENT, 7, 0, 0, 0, 0, 30, 2, 1000, 4                                                                                           \
    }
#define NONE_GROUP                                                                                                                                   \
    {                                                                                                                                                \
        .kind = KVT_LAYER_NONE, .count = 11                                                                                                          \
    }

static const kvt_layer_group mixed_groups[] = { FULL_GROUP, SLIDING_GROUP, LATENT_GROUP, RECURRENT_GROUP, NONE_GROUP };
static const kvt_model mixed = { "mixed", 0, 5, mixed_groups };

static kvt_size_request request_of(kvt_engine engine, kvt_scheme scheme, uint64_t context)
{
    const kvt_size_request request = {
        .size = sizeof request, .engine = engine, .k_scheme = scheme, .v_scheme = scheme, .context = context, .sequences = 1
    };
    return request;
}

static kvt_size_report size_of(const kvt_model *model, const kvt_size_request *request, kvt_group_size *groups)
{
    kvt_size_report report;
    ck_assert_int_eq(kvt_size(model, request, &report, groups), KVT_OK);
    return report;
}

START_TEST(names)
{
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_FULL), "full");
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_SLIDING), "sliding");
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_LATENT), "latent");
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_RECURRENT), "recurrent");
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_NONE), "none");
    ck_assert_ptr_null(kvt_layer_kind_name((kvt_layer_kind)0));
    ck_assert_ptr_null(kvt_layer_kind_name((kvt_layer_kind)6));
    ck_assert_str_eq(kvt_engine_name(KVT_ENGINE_LOGICAL), "logical");
    ck_assert_str_eq(kvt_engine_name(KVT_ENGINE_KVTILE), "kvtile");
    ck_assert_ptr_null(kvt_engine_name((kvt_engine)0));
    ck_assert_ptr_null(kvt_engine_name((kvt_engine)3));
}
END_TEST

/* f16 rows: full 4 x (256 + 128) x 2 layers = 3072, sliding 2 x 256 x 3 = 1536, latent 1152 x 5 = 5760; state 7 x (60 + 4000) = 28420. */
START_TEST(hand_computed)
{
    kvt_group_size g[5];
    kvt_size_request request = request_of(KVT_ENGINE_LOGICAL, KVT_SCHEME_f16, 1000);
    request.sequences = 3;
    kvt_size_report report = size_of(&mixed, &request, g);
    ck_assert_uint_eq(report.growing_bytes_per_token, 3072 + 5760);
    ck_assert_uint_eq(report.window_bytes_per_token, 1536);
    ck_assert_uint_eq(report.state_bytes_per_sequence, 28420);
    ck_assert_uint_eq(report.total_bytes, 3 * (1000 * (3072 + 5760) + 100 * 1536 + 28420));
    ck_assert_uint_eq(g[0].bytes_per_token, 3072);
    ck_assert_uint_eq(g[0].tokens, 1000);
    ck_assert_uint_eq(g[0].bytes, 3 * 1000 * 3072);
    ck_assert_uint_eq(g[1].bytes_per_token, 1536);
    ck_assert_uint_eq(g[1].tokens, 100);
    ck_assert_uint_eq(g[1].bytes, 3 * 100 * 1536);
    ck_assert_uint_eq(g[2].bytes, 3 * 1000 * 5760);
    ck_assert_uint_eq(g[3].bytes_per_token, 0);
    ck_assert_uint_eq(g[3].tokens, 0);
    ck_assert_uint_eq(g[3].bytes, 3 * 28420);
    ck_assert_uint_eq(g[4].bytes_per_token + g[4].tokens + g[4].bytes, 0);

    /* Pages: 16 of 64 tokens hold 1000; 100 tokens touch at most 3. */
    request.engine = KVT_ENGINE_KVTILE;
    report = size_of(&mixed, &request, g);
    ck_assert_uint_eq(report.growing_bytes_per_token, 3072 + 5760);
    ck_assert_uint_eq(g[0].tokens, 1024);
    ck_assert_uint_eq(g[1].tokens, 192);
    ck_assert_uint_eq(report.total_bytes, 3 * (1024 * (3072 + 5760) + 192 * 1536 + 28420));

    /* q8_0: 34 bytes for 32 channels; q4_0: 18; e4m3: one byte each and 4 for the row. */
    request = request_of(KVT_ENGINE_LOGICAL, KVT_SCHEME_q8_0, 1);
    ck_assert_uint_eq(size_of(&mixed, &request, NULL).growing_bytes_per_token, 2 * 4 * 6 * 34 + 5 * 18 * 34);
    request.v_scheme = KVT_SCHEME_q4_0;
    ck_assert_uint_eq(size_of(&mixed, &request, NULL).growing_bytes_per_token, 2 * 4 * (4 * 34 + 2 * 18) + 5 * 18 * 34);
    request = request_of(KVT_ENGINE_LOGICAL, KVT_SCHEME_e4m3, 1);
    ck_assert_uint_eq(size_of(&mixed, &request, NULL).growing_bytes_per_token, 2 * 4 * (192 + 8) + 5 * 580);
}
END_TEST

START_TEST(no_context)
{
    for (int engine = KVT_ENGINE_LOGICAL; engine <= KVT_ENGINE_KVTILE; engine++) {
        kvt_group_size g[5];
        const kvt_size_request request = request_of((kvt_engine)engine, KVT_SCHEME_q4_0, 0);
        const kvt_size_report report = size_of(&mixed, &request, g);
        ck_assert_uint_eq(report.total_bytes, 28420);
        ck_assert_uint_eq(g[0].tokens, 0);
        ck_assert_uint_eq(g[1].tokens, 0);
        ck_assert_uint_gt(report.growing_bytes_per_token, 0);
    }
}
END_TEST

/* Every window against the worst of all places where it can end. Check's assertions are slow: they are kept out of the loops. */
START_TEST(sliding_pages)
{
    kvt_layer_group group = SLIDING_GROUP;
    const kvt_model model = { "sliding", 0, 1, &group };
    for (uint32_t window = 1; window < 200; window++) {
        uint64_t worst = 0;
        for (uint64_t context = 0; context < 400; context++) {
            if (context > 0) {
                const uint64_t first = context < window ? 0 : context - window;
                const uint64_t pages = (context - 1) / 64 - first / 64 + 1;
                worst = pages > worst ? pages : worst;
            }
            group.window = window;
            kvt_group_size size;
            kvt_size_report report;
            const kvt_size_request request = request_of(KVT_ENGINE_KVTILE, KVT_SCHEME_q8_0, context);
            if (kvt_size(&model, &request, &report, &size) != KVT_OK || size.tokens != 64 * worst || size.bytes != size.tokens * size.bytes_per_token)
                ck_abort_msg("window %u, context %u: %u tokens", (unsigned)window, (unsigned)context, (unsigned)size.tokens);
        }
    }
    group.window = UINT32_MAX;
    kvt_group_size size;
    const kvt_size_request request = request_of(KVT_ENGINE_KVTILE, KVT_SCHEME_q8_0, UINT64_C(1) << 40);
    size_of(&model, &request, &size);
    ck_assert_uint_eq(size.tokens, (UINT64_C(1) << 32) + 64);
}
END_TEST

/* What is said here is what is allocated. */
START_TEST(agrees_with_layout)
{
    kvt_layer_group group = FULL_GROUP;
    const kvt_model model = { "full", 0, 1, &group };
    const uint32_t dims[] = { 1, 16, 64, 72, 80, 96, 112, 128, 256, 512, 576, 1000, 1024 };
    const kvt_scheme_info *k, *v;
    for (size_t i = 0; (k = kvt_scheme_at(i)) != NULL; i++) {
        for (size_t j = 0; (v = kvt_scheme_at(j)) != NULL; j++) {
            for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
                group.k_dim = dims[d];
                group.v_dim = dims[(d + 5) % 13];
                const kvt_spec spec = { .size = sizeof spec,
                                        .k_scheme = k->scheme,
                                        .v_scheme = v->scheme,
                                        .k_dim = group.k_dim,
                                        .v_dim = group.v_dim,
                                        .kv_heads = group.kv_heads };
                kvt_layout layout;
                ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
                for (size_t context = 0; context < 200; context += 21) {
                    kvt_size_request request = request_of(KVT_ENGINE_KVTILE, k->scheme, context);
                    request.v_scheme = v->scheme;
                    size_t bytes;
                    kvt_group_size size;
                    kvt_size_report report;
                    if (kvt_layout_bytes(&layout, context, &bytes) != KVT_OK || kvt_size(&model, &request, &report, &size) != KVT_OK ||
                        report.total_bytes != group.count * bytes || size.bytes != size.tokens * size.bytes_per_token)
                        ck_abort_msg("keys %s %u, values %s %u, context %zu", k->name, (unsigned)group.k_dim, v->name, (unsigned)group.v_dim,
                                     context);
                }
            }
        }
    }
}
END_TEST

/* A call that fails writes nothing. */
static kvt_status failing(const kvt_model *model, const kvt_size_request *request)
{
    kvt_size_report report, before;
    kvt_group_size groups[5], groups_before[5];
    memset(&report, 0x5a, sizeof report);
    memset(groups, 0x5a, sizeof groups);
    memcpy(&before, &report, sizeof report);
    memcpy(groups_before, groups, sizeof groups);
    const kvt_status status = kvt_size(model, request, &report, groups);
    ck_assert_mem_eq(&report, &before, sizeof report);
    ck_assert_mem_eq(groups, groups_before, sizeof groups);
    return status;
}

START_TEST(bad_requests)
{
    const kvt_size_request good = request_of(KVT_ENGINE_KVTILE, KVT_SCHEME_f16, 100);
    kvt_size_report report;
    ck_assert_int_eq(failing(NULL, &good), KVT_ERR_NULL);
    ck_assert_int_eq(failing(&mixed, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_size(&mixed, &good, NULL, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_size(&mixed, &good, &report, NULL), KVT_OK);

    kvt_size_request bad = good;
    bad.size--;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_STRUCT_SIZE);
    bad = good;
    bad.k_scheme = (kvt_scheme)77;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_SCHEME);
    bad = good;
    bad.v_scheme = KVT_SCHEME_NONE;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_SCHEME);
    bad = good;
    bad.engine = (kvt_engine)0;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_RANGE);
    bad = good;
    bad.sequences = 0;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_RANGE);

    const kvt_model nothing = { "nothing", 0, 0, mixed_groups };
    const kvt_model nowhere = { "nowhere", 0, 1, NULL };
    ck_assert_int_eq(failing(&nothing, &good), KVT_ERR_MODEL);
    ck_assert_int_eq(failing(&nowhere, &good), KVT_ERR_NULL);
}
END_TEST

START_TEST(overflows)
{
    for (int engine = KVT_ENGINE_LOGICAL; engine <= KVT_ENGINE_KVTILE; engine++) {
        kvt_size_request request = request_of((kvt_engine)engine, KVT_SCHEME_f16, UINT64_MAX);
        ck_assert_int_eq(failing(&mixed, &request), KVT_ERR_OVERFLOW);
        request.context = UINT64_MAX / 4;
        ck_assert_int_eq(failing(&mixed, &request), KVT_ERR_OVERFLOW);
        request.context = 100;
        request.sequences = UINT64_MAX;
        ck_assert_int_eq(failing(&mixed, &request), KVT_ERR_OVERFLOW);
        request.context = 0;
        ck_assert_int_eq(failing(&mixed, &request), KVT_ERR_OVERFLOW);
    }

    /* The largest context that fits, and one token more: a row of 16 channels in q4_0 takes 10 bytes. */
    const kvt_layer_group group = { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 16 };
    const kvt_model one = { "one", 0, 1, &group };
    kvt_size_request request = request_of(KVT_ENGINE_LOGICAL, KVT_SCHEME_q4_0, UINT64_MAX / 10);
    ck_assert_uint_eq(size_of(&one, &request, NULL).total_bytes, UINT64_MAX / 10 * 10);
    request.context++;
    ck_assert_int_eq(failing(&one, &request), KVT_ERR_OVERFLOW);
    request.engine = KVT_ENGINE_KVTILE;
    request.context = UINT64_MAX / 640 * 64;
    ck_assert_uint_eq(size_of(&one, &request, NULL).total_bytes, UINT64_MAX / 640 * 640);
    request.context++;
    ck_assert_int_eq(failing(&one, &request), KVT_ERR_OVERFLOW);
}
END_TEST

START_TEST(large_states)
{
    kvt_layer_group groups[2] = { RECURRENT_GROUP, RECURRENT_GROUP };
    const kvt_model model = { "states", 0, 2, groups };
    const kvt_size_request request = request_of(KVT_ENGINE_LOGICAL, KVT_SCHEME_f16, 0);

    groups[0].recurrent_elements = UINT64_MAX;
    ck_assert_int_eq(failing(&model, &request), KVT_ERR_OVERFLOW);
    groups[0].recurrent_elements = UINT64_MAX / 4;
    ck_assert_int_eq(failing(&model, &request), KVT_ERR_OVERFLOW);
    groups[0].recurrent_elements = UINT64_MAX / 32; /* 7 layers of half of 2^62: fits */
    kvt_size_report report;
    ck_assert_int_eq(kvt_size(&model, &request, &report, NULL), KVT_OK);
    groups[1].recurrent_elements = UINT64_MAX / 32; /* the sum of both groups does not */
    ck_assert_int_eq(failing(&model, &request), KVT_ERR_OVERFLOW);
}
END_TEST

START_TEST(bad_models)
{
    static const struct {
        kvt_status status;
        kvt_layer_group group;
    } bad[] = {
        { KVT_ERR_MODEL, { 0 } },
        { KVT_ERR_MODEL, { .kind = (kvt_layer_kind)6, .count = 1 } },
        { KVT_ERR_MODEL, { KVT_LAYER_FULL, 0, 1, 64, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_FULL, 1, 0, 64, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_FULL, 1, 1, 0, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_FULL, 1, 1, 64, 0, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_FULL, 1, 1, 64, 64, 512, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_FULL, 1, 1, 64, 64, 0, 0, 0, 5, 4 } },
        { KVT_ERR_DIM, { KVT_LAYER_FULL, 1, 1, KVT_MAX_DIM + 1, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_DIM, { KVT_LAYER_FULL, 1, 1, 64, UINT32_MAX, 0, 0, 0, 0, 0 } },
        { KVT_ERR_HEADS, { KVT_LAYER_FULL, 1, KVT_MAX_HEADS + 1, 64, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_SLIDING, 1, 1, 64, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_LATENT, 1, 2, 576, 0, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_LATENT, 1, 1, 576, 512, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_LATENT, 1, 1, 576, 0, 512, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_RECURRENT, 1, 0, 0, 0, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_RECURRENT, 1, 0, 0, 0, 0, 10, 0, 10, 4 } },
        { KVT_ERR_MODEL, { KVT_LAYER_RECURRENT, 1, 0, 0, 0, 0, 10, 2, 0, 4 } },
        { KVT_ERR_MODEL, { KVT_LAYER_RECURRENT, 1, 0, 0, 0, 0, 0, 2, 10, 4 } },
        { KVT_ERR_MODEL, { KVT_LAYER_RECURRENT, 1, 1, 0, 0, 0, 10, 2, 10, 4 } },
        { KVT_ERR_MODEL, { KVT_LAYER_NONE, 0, 0, 0, 0, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_NONE, 1, 1, 64, 64, 0, 0, 0, 0, 0 } },
        { KVT_ERR_MODEL, { KVT_LAYER_NONE, 1, 0, 0, 0, 0, 10, 2, 10, 4 } },
    };
    const kvt_size_request request = request_of(KVT_ENGINE_KVTILE, KVT_SCHEME_f16, 100);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const kvt_layer_group groups[2] = { FULL_GROUP, bad[i].group };
        const kvt_model model = { "bad", 0, 2, groups };
        ck_assert_msg(failing(&model, &request) == bad[i].status, "model %zu of the list", i);
    }

    /* A convolution without a state matrix, and the other way round, are models that exist. */
    const kvt_layer_group lone[2] = { { KVT_LAYER_RECURRENT, 1, 0, 0, 0, 0, 10, 2, 0, 0 }, { KVT_LAYER_RECURRENT, 1, 0, 0, 0, 0, 0, 0, 10, 4 } };
    const kvt_model model = { "lone", 0, 2, lone };
    ck_assert_uint_eq(size_of(&model, &request, NULL).total_bytes, 20 + 40);
}
END_TEST

START_TEST(catalogue)
{
    static const struct {
        const char *name;
        uint64_t growing[3]; /* bf16, q8_0, q4_0 */
        uint64_t window_bytes;
        uint32_t window;
        uint64_t state;
        uint64_t context;
        uint32_t layers;
    } models[] = {
        { "gemma-4-E2B", { 6144, 3264, 1728 }, 12288, 512, 0, 131072, 35 },
        { "gemma-4-E4B", { 16384, 8704, 4608 }, 40960, 512, 0, 131072, 42 },
        { "gemma-4-12B", { 16384, 8704, 4608 }, 327680, 1024, 0, 262144, 48 },
        { "gemma-4-26B-A4B", { 20480, 10880, 5760 }, 204800, 1024, 0, 262144, 30 },
        { "gemma-4-31B", { 81920, 43520, 23040 }, 819200, 1024, 0, 262144, 60 },
        { "Qwen3.5-35B-A3B", { 20480, 10880, 5760 }, 0, 0, 64389120, 262144, 40 },
        { "GLM-4.7-Flash", { 54144, 28764, 15228 }, 0, 0, 0, 202752, 47 },
        { "Nemotron-3-Nano-30B-A3B", { 6144, 3264, 1728 }, 0, 0, 49082368, 262144, 52 },
        { "Qwen3-30B-A3B-Instruct-2507", { 98304, 52224, 27648 }, 0, 0, 0, 262144, 48 },
    };
    static const kvt_scheme schemes[] = { KVT_SCHEME_bf16, KVT_SCHEME_q8_0, KVT_SCHEME_q4_0 };
    const size_t n = sizeof models / sizeof models[0];
    for (size_t i = 0; i < n; i++) {
        const kvt_model *model = kvt_catalogue_at(i);
        ck_assert_ptr_nonnull(model);
        ck_assert_str_eq(model->name, models[i].name);
        ck_assert_uint_eq(model->max_context, models[i].context);

        uint32_t layers = 0, window = 0;
        for (size_t g = 0; g < model->n_groups; g++) {
            layers += model->groups[g].count;
            window |= model->groups[g].window;
            ck_assert(g == 0 || model->groups[g].kind > model->groups[g - 1].kind);
        }
        ck_assert_uint_eq(layers, models[i].layers);
        ck_assert_uint_eq(window, models[i].window);

        for (size_t s = 0; s < 3; s++) {
            const kvt_size_request request = request_of(KVT_ENGINE_LOGICAL, schemes[s], 32768);
            const kvt_size_report report = size_of(model, &request, NULL);
            ck_assert_uint_eq(report.growing_bytes_per_token, models[i].growing[s]);
            ck_assert_uint_eq(report.state_bytes_per_sequence, models[i].state);
            if (s == 0)
                ck_assert_uint_eq(report.window_bytes_per_token, models[i].window_bytes);
            ck_assert_uint_eq(report.total_bytes, 32768 * models[i].growing[s] + models[i].window * report.window_bytes_per_token + models[i].state);
        }
    }
    ck_assert_ptr_null(kvt_catalogue_at(n));
    ck_assert_ptr_null(kvt_catalogue_at(SIZE_MAX));

    const kvt_size_request request = request_of(KVT_ENGINE_LOGICAL, KVT_SCHEME_f16, 32768);
    ck_assert_uint_eq(size_of(kvt_catalogue_find("gemma-4-E2B"), &request, NULL).total_bytes, 207618048);
}
END_TEST

START_TEST(finding)
{
    const kvt_model *e2b = kvt_catalogue_at(0);
    ck_assert_ptr_eq(kvt_catalogue_find("gemma-4-E2B"), e2b);
    ck_assert_ptr_eq(kvt_catalogue_find("GEMMA-4-e2b"), e2b);
    ck_assert_ptr_eq(kvt_catalogue_find("google/gemma-4-E2B"), e2b);
    for (size_t i = 0; kvt_catalogue_at(i); i++)
        ck_assert_ptr_eq(kvt_catalogue_find(kvt_catalogue_at(i)->name), kvt_catalogue_at(i));

    static const char *const unknown[] = { "", "/", "nosuch", "gemma-4-E2", "gemma-4-E2B ", "gemma-4-E2B/", "/gemma-4-E2B", "a/b/gemma-4-E2B" };
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        ck_assert_ptr_null(kvt_catalogue_find(unknown[i]));
    ck_assert_ptr_null(kvt_catalogue_find(NULL));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("size");
    TCase *cases = tcase_create("size");
    tcase_add_test(cases, names);
    tcase_add_test(cases, hand_computed);
    tcase_add_test(cases, no_context);
    tcase_add_test(cases, sliding_pages);
    tcase_add_test(cases, agrees_with_layout);
    tcase_add_test(cases, bad_requests);
    tcase_add_test(cases, overflows);
    tcase_add_test(cases, large_states);
    tcase_add_test(cases, bad_models);
    tcase_add_test(cases, catalogue);
    tcase_add_test(cases, finding);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
