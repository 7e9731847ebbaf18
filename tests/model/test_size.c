/* SPDX-License-Identifier: MIT */
/* Sizing and the catalogue against numbers worked out by hand and figures published for the models. */
#include "tests/lib/support.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <kvtile/model.h>

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
        .kind = KVT_LAYER_RECURRENT, .count = 7, .conv_kernel = 4, .conv_channels = 10, .conv_element_bytes = 2, .recurrent_elements = 1000,         \
        .recurrent_element_bytes = 4                                                                                                                 \
    }
#define NONE_GROUP                                                                                                                                   \
    {                                                                                                                                                \
        .kind = KVT_LAYER_NONE, .count = 11                                                                                                          \
    }

static const kvt_layer_group mixed_groups[] = { FULL_GROUP, SLIDING_GROUP, LATENT_GROUP, RECURRENT_GROUP, NONE_GROUP };
static const kvt_model mixed = { .name = "mixed", .max_context = 0, .n_groups = 5, .groups = mixed_groups };

static kvt_size_request request_of(kvt_engine engine, const char *type, uint64_t context)
{
    const kvt_size_request request = { .size = sizeof request, .engine = engine, .k_type = type, .v_type = type, .context = context, .sequences = 1 };
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
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_CROSS), "cross");
    ck_assert_ptr_null(kvt_layer_kind_name((kvt_layer_kind)0));
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_COMPRESSED), "compressed");
    ck_assert_str_eq(kvt_layer_kind_name(KVT_LAYER_INDEXER), "indexer");
    ck_assert_ptr_null(kvt_layer_kind_name((kvt_layer_kind)9));
    ck_assert_str_eq(kvt_engine_name(KVT_ENGINE_logical), "logical");
    ck_assert_str_eq(kvt_engine_name(KVT_ENGINE_kvtile), "kvtile");
    ck_assert_str_eq(kvt_engine_name(KVT_ENGINE_llama_cpp), "llama.cpp");
    ck_assert_ptr_null(kvt_engine_name(KVT_ENGINE_NONE));
    ck_assert_ptr_null(kvt_engine_title((kvt_engine)7));
    ck_assert_ptr_null(kvt_engine_type_at((kvt_engine)7, 0));
    size_t n = 0;
    while (kvt_engine_at(n) != KVT_ENGINE_NONE) {
        ck_assert_ptr_nonnull(kvt_engine_name(kvt_engine_at(n)));
        ck_assert_ptr_nonnull(kvt_engine_title(kvt_engine_at(n)));
        ck_assert_ptr_nonnull(kvt_engine_type_at(kvt_engine_at(n), 0));
        ck_assert_ptr_null(kvt_engine_type_at(kvt_engine_at(n), 1000));
        n++;
    }
    ck_assert_uint_eq(n, 6);
    ck_assert_int_eq(kvt_engine_at(SIZE_MAX), KVT_ENGINE_NONE);
}
END_TEST

/* f16 rows: full 4 x (256 + 128) x 2 layers = 3072, sliding 2 x 256 x 3 = 1536, latent 1152 x 5 = 5760; state 7 x (60 + 4000) = 28420. */
START_TEST(hand_computed)
{
    kvt_group_size g[5];
    kvt_size_request request = request_of(KVT_ENGINE_logical, "f16", 1000);
    request.sequences = 3;
    kvt_size_report report = size_of(&mixed, &request, g);
    ck_assert_uint_eq(report.growing_bytes, 3072 + 5760);
    ck_assert_uint_eq(report.window_bytes_per_token, 1536);
    ck_assert_uint_eq(report.state_bytes_per_sequence, 28420);
    ck_assert_uint_eq(report.total_bytes, 3 * (1000 * (3072 + 5760) + 100 * 1536 + 28420));
    ck_assert_uint_eq(g[0].bytes_per_token, 3072);
    ck_assert_uint_eq(g[0].allocated_rows, 3000);
    ck_assert_uint_eq(g[0].bytes, 3 * 1000 * 3072);
    ck_assert_uint_eq(g[1].bytes_per_token, 1536);
    ck_assert_uint_eq(g[1].allocated_rows, 300);
    ck_assert_uint_eq(g[1].bytes, 3 * 100 * 1536);
    ck_assert_uint_eq(g[2].bytes, 3 * 1000 * 5760);
    ck_assert_uint_eq(g[3].bytes_per_token, 0);
    ck_assert_uint_eq(g[3].allocated_rows, 0);
    ck_assert_uint_eq(g[3].bytes, 3 * 28420);
    ck_assert_uint_eq(g[4].bytes_per_token + g[4].allocated_rows + g[4].bytes, 0);

    /* Pages: 16 of 64 tokens hold 1000; 100 tokens touch at most 3. */
    request.engine = KVT_ENGINE_kvtile;
    report = size_of(&mixed, &request, g);
    ck_assert_uint_eq(report.growing_bytes, 3072 + 5760);
    ck_assert_uint_eq(g[0].allocated_rows, 3 * 1024);
    ck_assert_uint_eq(g[1].allocated_rows, 3 * 192);
    ck_assert_uint_eq(report.total_bytes, 3 * (1024 * (3072 + 5760) + 192 * 1536 + 28420));

    /* q8_0: 34 bytes for 32 channels; q4_0: 18; e4m3: one byte each and 4 for the row. */
    request = request_of(KVT_ENGINE_logical, "q8_0", 1);
    ck_assert_uint_eq(size_of(&mixed, &request, NULL).growing_bytes, 2 * 4 * 6 * 34 + 5 * 18 * 34);
    request.v_type = "q4_0";
    ck_assert_uint_eq(size_of(&mixed, &request, NULL).growing_bytes, 2 * 4 * (4 * 34 + 2 * 18) + 5 * 18 * 34);
    request = request_of(KVT_ENGINE_logical, "e4m3", 1);
    ck_assert_uint_eq(size_of(&mixed, &request, NULL).growing_bytes, 2 * 4 * (192 + 8) + 5 * 580);
}
END_TEST

/* kvtile stores channels up to a multiple of 16; no engine has to. */
START_TEST(channels_beyond_groups)
{
    const kvt_layer_group group = { .kind = KVT_LAYER_FULL, .count = 3, .kv_heads = 2, .k_dim = 100, .v_dim = 72 };
    const kvt_model model = { .name = "odd", .n_groups = 1, .groups = &group };
    kvt_size_request request = request_of(KVT_ENGINE_logical, "f16", 64);
    ck_assert_uint_eq(size_of(&model, &request, NULL).total_bytes, 64 * 3 * 2 * (100 + 72) * 2);
    request.k_type = request.v_type = "kv4";
    const kvt_size_report payload = size_of(&model, &request, NULL);
    ck_assert_uint_eq(payload.padding_bytes, 0);
    request.engine = KVT_ENGINE_kvtile;
    const kvt_size_report stored = size_of(&model, &request, NULL);
    ck_assert_uint_eq(stored.padding_bytes, 64 * 3 * 2 * (12 + 8) / 2);
    ck_assert_uint_eq(stored.total_bytes, payload.total_bytes + stored.padding_bytes);
    request.k_type = request.v_type = "f16";
    ck_assert_uint_eq(size_of(&model, &request, NULL).total_bytes, 64 * 3 * 2 * (112 + 80) * 2);
}
END_TEST

START_TEST(no_context)
{
    for (int engine = KVT_ENGINE_logical; engine <= KVT_ENGINE_kvtile; engine++) {
        kvt_group_size g[5];
        const kvt_size_request request = request_of((kvt_engine)engine, "q4_0", 0);
        const kvt_size_report report = size_of(&mixed, &request, g);
        ck_assert_uint_eq(report.total_bytes, 28420);
        ck_assert_uint_eq(g[0].allocated_rows, 0);
        ck_assert_uint_eq(g[1].allocated_rows, 0);
        ck_assert_uint_gt(report.growing_bytes, 0);
    }
}
END_TEST

/* Every window against the worst of all places where it can end. Check's assertions are slow: they are kept out of the loops. */
START_TEST(sliding_pages)
{
    kvt_layer_group group = SLIDING_GROUP;
    const kvt_model model = { .name = "sliding", .max_context = 0, .n_groups = 1, .groups = &group };
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
            const kvt_size_request request = request_of(KVT_ENGINE_kvtile, "q8_0", context);
            if (kvt_size(&model, &request, &report, &size) != KVT_OK || size.allocated_rows != 64 * worst ||
                size.bytes != size.allocated_rows * size.bytes_per_token)
                ck_abort_msg("window %u, context %u: %u tokens", (unsigned)window, (unsigned)context, (unsigned)size.allocated_rows);
        }
    }
    group.window = UINT32_MAX;
    kvt_group_size size;
    const kvt_size_request request = request_of(KVT_ENGINE_kvtile, "q8_0", UINT64_C(1) << 40);
    size_of(&model, &request, &size);
    ck_assert_uint_eq(size.allocated_rows, (UINT64_C(1) << 32) + 64);
}
END_TEST

/* What is said here is what is allocated. */
START_TEST(agrees_with_layout)
{
    kvt_layer_group group = FULL_GROUP;
    const kvt_model model = { .name = "full", .max_context = 0, .n_groups = 1, .groups = &group };
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
                    kvt_size_request request = request_of(KVT_ENGINE_kvtile, k->name, context);
                    request.v_type = v->name;
                    size_t bytes;
                    kvt_group_size size;
                    kvt_size_report report;
                    if (kvt_layout_bytes(&layout, context, &bytes) != KVT_OK || kvt_size(&model, &request, &report, &size) != KVT_OK ||
                        report.total_bytes != group.count * bytes || size.bytes != size.allocated_rows * size.bytes_per_token)
                        ck_abort_msg("keys %s %u, values %s %u, context %zu", k->name, (unsigned)group.k_dim, v->name, (unsigned)group.v_dim,
                                     context);
                }
            }
        }
    }
}
END_TEST

/* Latents whose rotary part has a scheme of its own: every model that has them, every pair of schemes; and formats that are written about. */
START_TEST(latents_agree_with_layout)
{
    static const char *const models[] = { "GLM-4.7-Flash", "DeepSeek-V3", "DeepSeek-V3.2", "Kimi-K2-Instruct", "DeepSeek-V4-Flash" };
    const kvt_scheme_info *latent, *rope;
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        const kvt_model *model = kvt_catalogue_find(models[m]);
        const kvt_layer_group *group = model->groups;
        while (!group->rope_dim || group->kind == KVT_LAYER_SLIDING)
            group++;
        const uint64_t step = group->tokens_per_row ? group->tokens_per_row : 1;
        const kvt_model only = { .name = model->name, .max_context = 0, .n_groups = 1, .groups = group };
        for (size_t i = 0; (latent = kvt_scheme_at(i)) != NULL; i++) {
            for (size_t j = 0; (rope = kvt_scheme_at(j)) != NULL; j++) {
                const kvt_spec spec = { .size = sizeof spec,
                                        .k_scheme = latent->scheme,
                                        .k_dim = group->k_dim - group->rope_dim,
                                        .kv_heads = 1,
                                        .rope_scheme = rope->scheme,
                                        .rope_dim = group->rope_dim };
                kvt_layout layout;
                ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
                kvt_size_request request = request_of(KVT_ENGINE_kvtile, latent->name, 1000 * step);
                request.rope_type = rope->name;
                size_t bytes;
                kvt_group_size size;
                kvt_size_report report;
                ck_assert_int_eq(kvt_layout_bytes(&layout, 1000, &bytes), KVT_OK);
                ck_assert_int_eq(kvt_size(&only, &request, &report, &size), KVT_OK);
                ck_assert_uint_eq(size.bytes_per_token, group->count * layout.token_bytes);
                ck_assert_uint_eq(size.bytes - size.state_bytes, group->count * bytes);
            }
        }
    }
    const kvt_model *glm = kvt_catalogue_find("GLM-4.7-Flash");
    kvt_size_request request = request_of(KVT_ENGINE_logical, "kv6", 1);
    kvt_size_report report;
    request.rope_type = "kv8";
    ck_assert_int_eq(kvt_size(glm, &request, &report, NULL), KVT_OK);
    ck_assert_uint_eq(report.growing_bytes, 47 * 466);
    request.k_type = "e4m3"; /* FlashMLA's 656 bytes */
    request.k_options.fp8_block = 128;
    request.rope_type = "bf16";
    ck_assert_int_eq(kvt_size(glm, &request, &report, NULL), KVT_OK);
    ck_assert_uint_eq(report.growing_bytes, 47 * 656);
    request.rope_type = "no";
    ck_assert_int_eq(kvt_size(glm, &request, &report, NULL), KVT_ERR_SCHEME);
    request = request_of(KVT_ENGINE_llama_cpp, "q8_0", 256);
    request.rope_type = "q8_0";
    ck_assert_int_eq(kvt_size(glm, &request, &report, NULL), KVT_ERR_ENGINE);
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

/* A program that was built when there were fewer options asks for what they are by default, whatever lies behind its struct. */
START_TEST(older_requests)
{
    const kvt_size_request today = request_of(KVT_ENGINE_llama_cpp, "f16", 1000);
    kvt_size_report right, report;
    uint64_t budget, context, sequences;
    ck_assert_int_eq(kvt_size(&mixed, &today, &right, NULL), KVT_OK);
    for (size_t size = offsetof(kvt_size_request, sequences) + 8; size < sizeof today; size += 8) {
        kvt_size_request older;
        memset(&older, 0xff, sizeof older);
        memcpy(&older, &today, size);
        older.size = size;
        ck_assert_int_eq(kvt_size(&mixed, &older, &report, NULL), KVT_OK);
        ck_assert_mem_eq(&report, &right, sizeof right);
        ck_assert_ptr_null(kvt_size_problem(&mixed, &older));
        budget = right.total_bytes;
        ck_assert_int_eq(kvt_size_longest_context(&mixed, &older, budget, &context), KVT_OK);
        ck_assert_uint_ge(context, 1000);
        ck_assert_int_eq(kvt_size_most_sequences(&mixed, &older, budget, &sequences), KVT_OK);
        ck_assert_uint_ge(sequences, 1);
    }
}
END_TEST

START_TEST(bad_requests)
{
    const kvt_size_request good = request_of(KVT_ENGINE_kvtile, "f16", 100);
    kvt_size_report report;
    ck_assert_int_eq(failing(NULL, &good), KVT_ERR_NULL);
    ck_assert_int_eq(failing(&mixed, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_size(&mixed, &good, NULL, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_size(&mixed, &good, &report, NULL), KVT_OK);

    kvt_size_request bad = good;
    bad.size--;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_STRUCT_SIZE);
    bad = good;
    bad.k_type = "nosuch";
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_SCHEME);
    bad = good;
    bad.v_type = "";
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_SCHEME);
    bad = good;
    bad.engine = (kvt_engine)0;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_RANGE);
    bad = good;
    bad.sequences = 0;
    ck_assert_int_eq(failing(&mixed, &bad), KVT_ERR_RANGE);

    const kvt_model nothing = { .name = "nothing", .max_context = 0, .n_groups = 0, .groups = mixed_groups };
    const kvt_model nowhere = { .name = "nowhere", .max_context = 0, .n_groups = 1, .groups = NULL };
    ck_assert_int_eq(failing(&nothing, &good), KVT_ERR_MODEL);
    ck_assert_int_eq(failing(&nowhere, &good), KVT_ERR_NULL);
}
END_TEST

START_TEST(overflows)
{
    for (int engine = KVT_ENGINE_logical; engine <= KVT_ENGINE_kvtile; engine++) {
        kvt_size_request request = request_of((kvt_engine)engine, "f16", UINT64_MAX);
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
    const kvt_model latents = { .name = "one", .max_context = 0, .n_groups = 1, .groups = &group };
    kvt_size_request request = request_of(KVT_ENGINE_logical, "q4_0", UINT64_MAX / 10);
    ck_assert_uint_eq(size_of(&latents, &request, NULL).total_bytes, UINT64_MAX / 10 * 10);
    request.context++;
    ck_assert_int_eq(failing(&latents, &request), KVT_ERR_OVERFLOW);
    request.engine = KVT_ENGINE_kvtile;
    request.context = UINT64_MAX / 640 * 64;
    ck_assert_uint_eq(size_of(&latents, &request, NULL).total_bytes, UINT64_MAX / 640 * 640);
    request.context++;
    ck_assert_int_eq(failing(&latents, &request), KVT_ERR_OVERFLOW);
}
END_TEST

START_TEST(large_states)
{
    kvt_layer_group groups[2] = { RECURRENT_GROUP, RECURRENT_GROUP };
    const kvt_model model = { .name = "states", .max_context = 0, .n_groups = 2, .groups = groups };
    const kvt_size_request request = request_of(KVT_ENGINE_logical, "f16", 0);

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
        { KVT_ERR_MODEL, { .kind = (kvt_layer_kind)9, .count = 1 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .kv_heads = 1, .k_dim = 64, .v_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .k_dim = 64, .v_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .v_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = 64, .v_dim = 64, .window = 512 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = 64, .tokens_per_row = 4 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = 64, .expanded_heads = 4, .expanded_k_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = 64, .recurrent_elements = 5, .recurrent_element_bytes = 4 } },
        { KVT_ERR_DIM, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = KVT_MAX_DIM + 1, .v_dim = 64 } },
        { KVT_ERR_DIM, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = 64, .v_dim = UINT32_MAX } },
        { KVT_ERR_HEADS, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = KVT_MAX_HEADS + 1, .k_dim = 64, .v_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_SLIDING, .count = 1, .kv_heads = 1, .k_dim = 64, .v_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 2, .k_dim = 576 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 576, .v_dim = 512 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 576, .window = 512 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 576, .expanded_heads = 20 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 576, .rope_dim = 576 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_FULL, .count = 1, .kv_heads = 1, .k_dim = 64, .v_dim = 64, .rope_dim = 32 } },
        { KVT_ERR_HEADS,
          { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 576, .expanded_heads = KVT_MAX_HEADS + 1, .expanded_k_dim = 1 } },
        { KVT_ERR_DIM, { .kind = KVT_LAYER_LATENT, .count = 1, .kv_heads = 1, .k_dim = 576, .expanded_heads = 1, .expanded_k_dim = 5000 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_COMPRESSED, .count = 1, .kv_heads = 1, .k_dim = 512 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_COMPRESSED, .count = 1, .kv_heads = 1, .k_dim = 512, .tokens_per_row = 1 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_COMPRESSED, .count = 1, .kv_heads = 1, .k_dim = 512, .v_dim = 512, .tokens_per_row = 4 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_INDEXER, .count = 1, .kv_heads = 1, .k_dim = 128 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_INDEXER, .count = 1, .kv_heads = 2, .k_dim = 128, .tokens_per_row = 1 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1, .conv_kernel = 4, .conv_channels = 10 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1, .conv_kernel = 4, .conv_element_bytes = 2 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1, .conv_channels = 4, .conv_element_bytes = 2 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1, .recurrent_elements = 10 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1, .recurrent_element_bytes = 4 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_RECURRENT, .count = 1, .kv_heads = 1, .recurrent_elements = 10, .recurrent_element_bytes = 4 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_NONE } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_NONE, .count = 1, .kv_heads = 1, .k_dim = 64, .v_dim = 64 } },
        { KVT_ERR_MODEL, { .kind = KVT_LAYER_NONE, .count = 1, .recurrent_elements = 10, .recurrent_element_bytes = 4 } },
    };
    const kvt_size_request request = request_of(KVT_ENGINE_kvtile, "f16", 100);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const kvt_layer_group groups[2] = { FULL_GROUP, bad[i].group };
        const kvt_model model = { .name = "bad", .max_context = 0, .n_groups = 2, .groups = groups };
        ck_assert_msg(failing(&model, &request) == bad[i].status, "model %zu of the list", i);
    }

    /* A convolution without a state matrix, and the other way round, are models that exist. */
    const kvt_layer_group lone[2] = { { .kind = KVT_LAYER_RECURRENT, .count = 1, .conv_kernel = 2, .conv_channels = 10, .conv_element_bytes = 2 },
                                      { .kind = KVT_LAYER_RECURRENT, .count = 1, .recurrent_elements = 10, .recurrent_element_bytes = 4 } };
    const kvt_model model = { .name = "lone", .max_context = 0, .n_groups = 2, .groups = lone };
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
    static const char *const schemes[] = { "bf16", "q8_0", "q4_0" };
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
            ck_assert(g == 0 || model->groups[g].kind >= model->groups[g - 1].kind);
        }
        ck_assert_uint_eq(layers, models[i].layers);
        ck_assert_uint_eq(window, models[i].window);

        for (size_t s = 0; s < 3; s++) {
            const kvt_size_request request = request_of(KVT_ENGINE_logical, schemes[s], 32768);
            const kvt_size_report report = size_of(model, &request, NULL);
            ck_assert_uint_eq(report.growing_bytes, models[i].growing[s]);
            ck_assert_uint_eq(report.state_bytes_per_sequence, models[i].state);
            if (s == 0)
                ck_assert_uint_eq(report.window_bytes_per_token, models[i].window_bytes);
            ck_assert_uint_eq(report.total_bytes, 32768 * models[i].growing[s] + models[i].window * report.window_bytes_per_token + models[i].state);
        }
    }
    size_t all = n;
    while (kvt_catalogue_at(all))
        all++;
    ck_assert_uint_ge(all, 60);
    ck_assert_ptr_null(kvt_catalogue_at(SIZE_MAX));

    const kvt_size_request request = request_of(KVT_ENGINE_logical, "f16", 32768);
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

/* ---- other engines --------------------------------------------------------------------------------------------------------------- */

/* Every expectation is worked out by hand from the engine's rule, or was logged by the engine. */
START_TEST(llama_cpp)
{
    const kvt_model *gemma = kvt_catalogue_find("gemma-4-26B-A4B");
    kvt_group_size g[4];
    kvt_size_request r = request_of(KVT_ENGINE_llama_cpp, "q8_0", 262144);
    ck_assert_uint_eq(size_of(gemma, &r, g).total_bytes, 3019243520); /* logged */
    ck_assert_uint_eq(g[1].allocated_rows, 1536);

    /* 1000 tokens are 1024 cells; 4 sequences hold 4 windows and a batch, but no more than the context. */
    r.context = 5000;
    r.sequences = 4;
    size_of(gemma, &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 5120);
    ck_assert_uint_eq(g[0].rows, 5000);
    ck_assert_uint_eq(g[1].allocated_rows, 4608);
    ck_assert_uint_eq(g[1].rows, 4096);
    r.batch_tokens = 100;
    size_of(gemma, &r, g);
    ck_assert_uint_eq(g[1].allocated_rows, 4352);
    r.swa_full = true;
    size_of(gemma, &r, g);
    ck_assert_uint_eq(g[1].allocated_rows, 5120);
    r.swa_full = false;
    r.separate_streams = true; /* 5000 / 4 = 1250: 1280 cells each; a window and 100 are 1280 too */
    size_of(gemma, &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 4 * 1280);
    ck_assert_uint_eq(g[1].allocated_rows, 4 * 1280);

    /* Values as wide as the widest layer's without flash attention: 26B-A4B full 30,720, E2B sliding 18,432 bytes a token. */
    r = request_of(KVT_ENGINE_llama_cpp, "f16", 32768);
    r.no_flash_attention = true;
    size_of(gemma, &r, g);
    ck_assert_uint_eq(g[0].bytes_per_token, 30720);
    size_of(kvt_catalogue_find("gemma-4-E2B"), &r, g);
    ck_assert_uint_eq(g[1].bytes_per_token, 18432);
    r.k_type = "q8_0";
    ck_assert_ptr_null(kvt_size_problem(gemma, &r));
    r.v_type = "q8_0";
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(gemma, &r), "flash attention"));

    /* State in f32, and a copy for each drafted token; the MTP layer stores rows while drafting. */
    const kvt_model *qwen = kvt_catalogue_find("Qwen3.5-35B-A3B");
    r = request_of(KVT_ENGINE_llama_cpp, "f16", 0);
    ck_assert_uint_eq(size_of(qwen, &r, g).total_bytes, 65863680);
    r.draft_tokens = 3;
    const kvt_size_report drafting = size_of(qwen, &r, g);
    ck_assert_uint_eq(drafting.total_bytes, 4 * 65863680);
    ck_assert_uint_eq(drafting.growing_bytes, 11 * 2048);

    kvt_layer_group odd = FULL_GROUP;
    odd.k_dim = 80;
    const kvt_model model = { .name = "odd", .max_context = 0, .n_groups = 1, .groups = &odd };
    r = request_of(KVT_ENGINE_llama_cpp, "q4_0", 100);
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "multiple"));
}
END_TEST

START_TEST(vllm)
{
    kvt_group_size g[4];
    /* Hybrid: the block of full layers grows until a page holds a state (logged: 1056 and 2096 tokens, 2,162,688 bytes). */
    const kvt_model *qwen = kvt_catalogue_find("Qwen3.5-35B-A3B");
    kvt_size_request r = request_of(KVT_ENGINE_vllm, "bf16", 1);
    size_of(qwen, &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 1056);
    ck_assert_uint_eq(g[1].state_bytes, 30 * 2146304);
    ck_assert_uint_eq(g[1].bytes, 30 * 2162688);
    r = request_of(KVT_ENGINE_vllm, "fp8", 1);
    size_of(qwen, &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 2096);

    /* 6 attention layers and 23 Mamba-2 layers make 5 groups of 6: one page serves no layer. */
    const kvt_model *nemotron = kvt_catalogue_find("Nemotron-3-Nano-30B-A3B");
    r = request_of(KVT_ENGINE_vllm, "bf16", 1);
    size_of(nemotron, &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 2096);
    ck_assert_uint_eq(g[1].bytes, 24 * 2146304);

    /* Equal pages: 16 tokens of the wider layers, more of the narrower. */
    static const struct {
        const char *model, *type;
        uint64_t full, sliding; /* tokens of a page */
    } pages[] = { { "gemma-4-E2B", "bf16", 16, 32 },
                  { "gemma-4-E4B", "bf16", 16, 32 },
                  { "gemma-4-12B", "bf16", 64, 16 },
                  { "gemma-4-26B-A4B", "bf16", 32, 16 },
                  { "gemma-4-31B", "bf16", 32, 16 },
                  { "gemma-4-26B-A4B", "fp8_per_token_head", 32, 16 },
                  { "gemma-4-E2B", "int8_per_token_head", 16, 32 } };
    for (size_t i = 0; i < sizeof pages / sizeof pages[0]; i++) {
        r = request_of(KVT_ENGINE_vllm, pages[i].type, 1);
        size_of(kvt_catalogue_find(pages[i].model), &r, g);
        ck_assert_msg(g[0].allocated_rows == pages[i].full && g[1].allocated_rows == pages[i].sliding, "%s: %u and %u", pages[i].model,
                      (unsigned)g[0].allocated_rows, (unsigned)g[1].allocated_rows);
        ck_assert_uint_eq(g[0].bytes * g[1].layers, g[1].bytes * g[0].layers);
    }
    /* Per-token-head types: 1040 bytes per head of 512 channels, K and V 520 each of what a page of the narrow layers needs. */
    r = request_of(KVT_ENGINE_vllm, "fp8_per_token_head", 16);
    size_of(kvt_catalogue_find("gemma-4-E2B"), &r, g);
    ck_assert_uint_eq(g[0].bytes, 3 * 16 * 1040);

    /* Sliding layers in steady state: 6.375 MiB and 203.125 MiB. */
    r = request_of(KVT_ENGINE_vllm, "bf16", 32768);
    size_of(kvt_catalogue_find("gemma-4-E2B"), &r, g);
    ck_assert_uint_eq(g[1].bytes, 6684672);
    size_of(kvt_catalogue_find("gemma-4-26B-A4B"), &r, g);
    ck_assert_uint_eq(g[1].bytes, 212992000);
    r.batch_tokens = 2048; /* ceil((1023 + 2048) / 16) + 1 = 193 pages */
    size_of(kvt_catalogue_find("gemma-4-26B-A4B"), &r, g);
    ck_assert_uint_eq(g[1].allocated_rows, 193 * 16);

    /* DeepSeek: MLA and its indexer; V4's pages of 256 tokens, multiples of 576 bytes. */
    r = request_of(KVT_ENGINE_vllm, "fp8_ds_mla", 1);
    size_of(kvt_catalogue_find("DeepSeek-V3.2"), &r, g);
    ck_assert_uint_eq(g[0].bytes, 61 * 16 * 656);
    ck_assert_uint_eq(g[1].bytes, 61 * 16 * 132);
    const kvt_size_report v4 = size_of(kvt_catalogue_find("DeepSeek-V4-Flash"), &r, g);
    ck_assert_uint_eq(g[0].bytes, 43 * 37440);
    ck_assert_uint_eq(g[1].bytes - g[1].state_bytes, 21 * 37440);
    ck_assert_uint_eq(g[2].bytes - g[2].state_bytes, 20 * 1728);
    ck_assert_uint_eq(g[3].bytes - g[3].state_bytes, 21 * 8640);
    ck_assert_uint_eq(v4.state_bytes, 12206080);
    ck_assert_uint_eq(v4.growing_bytes, 3915); /* 12285/4 + 135 + 2835/4 */
    ck_assert_uint_eq(v4.growing_tokens, 1);

    r.k_type = "bf16";
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(kvt_catalogue_find("DeepSeek-V4-Flash"), &r), "fp8_ds_mla"));
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(kvt_catalogue_find("gemma-4-E2B"), &r), "same type"));
    r.k_type = "nvfp4"; /* 16 numbers in 9 bytes */
    r.v_type = "nvfp4";
    size_of(kvt_catalogue_find("Qwen3-30B-A3B-Instruct-2507"), &r, g);
    ck_assert_uint_eq(g[0].bytes_per_token, 48 * 4 * 256 * 9 / 16);
}
END_TEST

/* Per token and layer: full and sliding 2 heads of 64 + 64 in f16: 512 bytes; latent 1152, expanded 4 heads of 96 + 64: 1280; indexer 256. */
static const kvt_layer_group typed_groups[] = {
    { .kind = KVT_LAYER_FULL, .count = 2, .draft_count = 1, .shared_count = 3, .kv_heads = 2, .k_dim = 64, .v_dim = 64 },
    { .kind = KVT_LAYER_SLIDING, .count = 4, .kv_heads = 2, .k_dim = 64, .v_dim = 64, .window = 256 },
    { .kind = KVT_LAYER_LATENT, .count = 5, .kv_heads = 1, .k_dim = 576, .expanded_heads = 4, .expanded_k_dim = 96, .expanded_v_dim = 64 },
    { .kind = KVT_LAYER_INDEXER, .count = 5, .shared_count = 7, .kv_heads = 1, .k_dim = 128, .tokens_per_row = 1 },
    { .kind = KVT_LAYER_RECURRENT, .count = 1, .recurrent_elements = 10, .recurrent_element_bytes = 4 },
};
#define FULL_BYTES(layers)     ((layers)*512u * 4096u)
#define SLIDING_BYTES(layers)  ((layers)*512u * 768u)
#define LATENT_BYTES(layers)   ((layers)*1152u * 4096u)
#define EXPANDED_BYTES(layers) ((layers)*1280u * 4096u)
#define INDEXER_BYTES(layers)  ((layers)*256u * 4096u)

/* What each engine makes of the same declarations, by the model's type. */
START_TEST(model_types)
{
    static const struct {
        kvt_engine engine;
        const char *model_type, *architecture;
        uint32_t draft;
        uint64_t full, sliding, latent, indexer, state;
    } rows[] = {
        /* Nothing is known by llama: all is plain, and the converter's files have no MTP layer unless they say so. */
        { KVT_ENGINE_llama_cpp, "mistral", NULL, 0, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, NULL, "llama", 0, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, "phi3", NULL, 0, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, "minicpm3", NULL, 0, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        /* The context that drafts has every layer once more, states have no copies. */
        { KVT_ENGINE_llama_cpp, "glm4_moe", NULL, 3, FULL_BYTES(12), FULL_BYTES(8), EXPANDED_BYTES(10), 0, 40 },
        { KVT_ENGINE_llama_cpp, "deepseek_v3", NULL, 0, FULL_BYTES(5), FULL_BYTES(4), LATENT_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, NULL, "deepseek2", 0, FULL_BYTES(6), FULL_BYTES(4), LATENT_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, "glm_moe_dsa", NULL, 3, FULL_BYTES(3), FULL_BYTES(4), LATENT_BYTES(5), INDEXER_BYTES(5), 40 },
        { KVT_ENGINE_llama_cpp, "deepseek_v32", NULL, 0, FULL_BYTES(5), FULL_BYTES(4), LATENT_BYTES(5), INDEXER_BYTES(12), 40 },
        { KVT_ENGINE_llama_cpp, "gemma4", NULL, 0, FULL_BYTES(3), SLIDING_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, "qwen3_5", NULL, 3, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 160 },
        { KVT_ENGINE_llama_cpp, "qwen3_next", NULL, 3, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_llama_cpp, "minimax_m3", NULL, 0, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), INDEXER_BYTES(12) * 3 / 2, 40 },
        { KVT_ENGINE_llama_cpp, "exaone4", NULL, 0, FULL_BYTES(6), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 }, /* not 64 layers */
        { KVT_ENGINE_llama_cpp, "nobody's", NULL, 0, FULL_BYTES(2), SLIDING_BYTES(4), LATENT_BYTES(5), INDEXER_BYTES(5), 40 },
        { KVT_ENGINE_mlx, "mistral", NULL, 0, FULL_BYTES(5), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_mlx, NULL, "gemma2", 0, FULL_BYTES(5), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_mlx, "gemma3", NULL, 0, FULL_BYTES(5), 4 * 512 * 256, EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_mlx, "deepseek_v2", NULL, 0, FULL_BYTES(5), FULL_BYTES(4), EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_mlx, "deepseek_v32", NULL, 0, FULL_BYTES(5), FULL_BYTES(4), LATENT_BYTES(5), INDEXER_BYTES(24), 40 },
        { KVT_ENGINE_mlx, "gemma4", NULL, 0, FULL_BYTES(2), 4 * 512 * 256, EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_transformers, "mistral", NULL, 0, FULL_BYTES(5), 4 * 512 * 255, EXPANDED_BYTES(5), 0, 40 },
        { KVT_ENGINE_transformers, "deepseek_v3", NULL, 0, FULL_BYTES(5), 4 * 512 * 255, LATENT_BYTES(5), 0, 40 },
        { KVT_ENGINE_transformers, "gemma4", NULL, 0, FULL_BYTES(2), 4 * 512 * 255, EXPANDED_BYTES(5), 0, 40 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const kvt_model model = {
            .name = "typed", .n_groups = 5, .groups = typed_groups, .model_type = rows[i].model_type, .architecture = rows[i].architecture
        };
        kvt_size_request r = request_of(rows[i].engine, "f16", 4096);
        kvt_group_size g[5];
        r.draft_tokens = rows[i].draft;
        size_of(&model, &r, g);
        const uint64_t right[] = { rows[i].full, rows[i].sliding, rows[i].latent, rows[i].indexer, rows[i].state };
        for (size_t j = 0; j < 5; j++)
            ck_assert_msg(g[j].bytes == right[j], "row %zu, group %zu: %" PRIu64 ", not %" PRIu64, i, j, g[j].bytes, right[j]);
        const bool known = !rows[i].model_type || strcmp(rows[i].model_type, "nobody's") != 0;
        ck_assert_int_eq(kvt_engine_knows(rows[i].engine, &model), known);
        ck_assert_int_eq(g[1].kind, right[1] == FULL_BYTES(4) || right[1] == FULL_BYTES(8) ? KVT_LAYER_FULL : KVT_LAYER_SLIDING);
    }

    /* What it is not told it cannot store; one type for one row; 1281 tokens of 5 streams are 1536 cells, and 512 of each. */
    kvt_model model = { .name = "typed", .n_groups = 1, .groups = &typed_groups[2], .architecture = "deepseek2" };
    kvt_size_request r = request_of(KVT_ENGINE_llama_cpp, "q8_0", 1281);
    r.v_type = "f16";
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "same type"));
    r.v_type = "q8_0";
    r.no_flash_attention = true;
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "flash attention"));
    r.no_flash_attention = false;
    r.separate_streams = true;
    r.sequences = 5;
    kvt_group_size g[1];
    size_of(&model, &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 5 * 512);
    const kvt_layer_group unsaid = { .kind = KVT_LAYER_LATENT, .count = 5, .kv_heads = 1, .k_dim = 576 };
    model = (kvt_model){ .name = "typed", .n_groups = 1, .groups = &unsaid, .model_type = "minicpm3" };
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "every head"));
    ck_assert(kvt_engine_knows(KVT_ENGINE_kvtile, &model));

    /* transformers: windows whole in a static cache; a quantized one is of groups of 64 with 4 bytes, and for full attention alone. */
    kvt_model windows = { .name = "typed", .n_groups = 2, .groups = typed_groups, .model_type = "gemma3" };
    kvt_group_size two[2];
    r = request_of(KVT_ENGINE_transformers, "f16", 4096);
    r.static_cache = true;
    size_of(&windows, &r, two);
    ck_assert_uint_eq(two[1].bytes, 4 * 512 * 256);
    r = request_of(KVT_ENGINE_transformers, "hqq4", 4096);
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&windows, &r), "full attention"));
    windows.n_groups = 1;
    size_of(&windows, &r, two);
    ck_assert_uint_eq(two[0].bytes, FULL_BYTES(5) / 2 * 36 / 64);
    r.static_cache = true;
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&windows, &r), "static"));

    /* And RecurrentGemma's convolutions keep 3 inputs of 4, all others 4. */
    const kvt_layer_group griffin = { .kind = KVT_LAYER_RECURRENT,
                                      .count = 1,
                                      .conv_kernel = 4,
                                      .conv_channels = 8,
                                      .conv_element_bytes = 2,
                                      .recurrent_elements = 8,
                                      .recurrent_element_bytes = 2 };
    kvt_model recurrent = { .name = "griffin", .n_groups = 1, .groups = &griffin, .model_type = "recurrent_gemma" };
    r = request_of(KVT_ENGINE_transformers, "f16", 4096);
    ck_assert_uint_eq(size_of(&recurrent, &r, g).state_bytes, 3 * 8 * 2 + 8 * 4);
    recurrent.model_type = "jamba";
    ck_assert_uint_eq(size_of(&recurrent, &r, g).state_bytes, 4 * 8 * 2 + 8 * 4);

    /* vllm: what the checkpoint asks for under auto; values as wide as keys. */
    model.kv_type = "fp8";
    model.groups = &typed_groups[2];
    r = request_of(KVT_ENGINE_vllm, "auto", 4096);
    size_of(&model, &r, g);
    ck_assert_uint_eq(g[0].bytes, 5 * 4 * 2 * 96 * 4096);
    model.kv_type = "int3";
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "auto"));
}
END_TEST

START_TEST(transformers_and_mlx)
{
    kvt_group_size g[4];
    /* window - 1 tokens; MLA as latent rows; a convolution's whole kernel. */
    kvt_size_request r = request_of(KVT_ENGINE_transformers, "bf16", 5000);
    size_of(kvt_catalogue_find("gemma-4-E2B"), &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 5000);
    ck_assert_uint_eq(g[1].allocated_rows, 511);
    ck_assert_uint_eq(size_of(kvt_catalogue_find("GLM-4.7-Flash"), &r, g).growing_bytes, 54144);
    ck_assert_uint_eq(size_of(kvt_catalogue_find("Qwen3.5-35B-A3B"), &r, g).state_bytes, 30 * (4 * 8192 * 2 + 32 * 128 * 128 * 4));
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(kvt_catalogue_find("DeepSeek-V4-Flash"), &r), "DeepSeek-V4"));

    /* Steps of 256; groups of 64 with 4 bytes; sliding layers are never quantized. */
    r = request_of(KVT_ENGINE_mlx, "bf16", 5000);
    size_of(kvt_catalogue_find("gemma-4-E2B"), &r, g);
    ck_assert_uint_eq(g[0].allocated_rows, 5120);
    ck_assert_uint_eq(g[1].allocated_rows, 512);
    r.batch_tokens = 2048;
    size_of(kvt_catalogue_find("gemma-4-E2B"), &r, g);
    ck_assert_uint_eq(g[1].allocated_rows, 512 + 2047);
    r = request_of(KVT_ENGINE_mlx, "4bit", 256);
    ck_assert_uint_eq(size_of(kvt_catalogue_find("GLM-4.7-Flash"), &r, g).growing_bytes, 47 * 576 * 9 / 16);
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(kvt_catalogue_find("gemma-4-E2B"), &r), "sliding"));
    r = request_of(KVT_ENGINE_mlx, "8bit", 256);
    ck_assert_uint_eq(size_of(kvt_catalogue_find("Qwen3-30B-A3B-Instruct-2507"), &r, g).growing_bytes, 49152 * 17 / 16);
}
END_TEST

/* Layers that only draft are not there when nothing is drafted, for any rule that compares layers. */
START_TEST(draft_only)
{
    const kvt_layer_group groups[] = { { .kind = KVT_LAYER_FULL, .draft_count = 2, .kv_heads = 64, .k_dim = 1024, .v_dim = 1024 },
                                       { .kind = KVT_LAYER_SLIDING, .count = 3, .kv_heads = 1, .k_dim = 64, .v_dim = 64, .window = 100 },
                                       RECURRENT_GROUP };
    const kvt_model with = { .name = "with", .max_context = 0, .n_groups = 3, .groups = groups },
                    without = { .name = "without", .max_context = 0, .n_groups = 2, .groups = groups + 1 };
    for (size_t e = 0; kvt_engine_at(e) != KVT_ENGINE_NONE; e++) {
        const kvt_size_request r = request_of(kvt_engine_at(e), "bf16", 1000);
        kvt_group_size g[3];
        ck_assert_uint_eq(size_of(&with, &r, g).total_bytes, size_of(&without, &r, NULL).total_bytes);
        ck_assert_uint_eq(g[0].bytes, 0);
    }
}
END_TEST

/* Rows of an encoder's tokens, however long the context is; llama.cpp makes them anew for every token. */
START_TEST(cross_attention)
{
    const kvt_layer_group groups[] = { FULL_GROUP, { .kind = KVT_LAYER_CROSS, .count = 2, .kv_heads = 4, .k_dim = 128, .v_dim = 64 } };
    kvt_model model = { .name = "cross", .n_groups = 2, .groups = groups };
    kvt_size_request r = request_of(KVT_ENGINE_logical, "f16", 1000);
    kvt_group_size g[2];
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "encoder"));
    model.encoder_tokens = 1500;
    kvt_size_report size = size_of(&model, &r, g);
    ck_assert_uint_eq(size.growing_bytes, 2 * 4 * 192 * 2);
    ck_assert_uint_eq(size.cross_bytes, 1500 * size.growing_bytes);
    ck_assert_uint_eq(size.total_bytes, 2500 * size.growing_bytes);
    ck_assert_uint_eq(g[1].rows, 1500);
    r.encoder_tokens = 30;
    r.sequences = 3;
    ck_assert_uint_eq(size_of(&model, &r, g).cross_bytes, 3 * 30 * size.growing_bytes);
    r.engine = KVT_ENGINE_vllm;
    ck_assert_uint_eq(size_of(&model, &r, g).cross_bytes, 3 * 32 * size.growing_bytes);
    r.engine = KVT_ENGINE_llama_cpp;
    ck_assert_uint_eq(size_of(&model, &r, g).cross_bytes, 0);
}
END_TEST

/* Whole pages of tokens that all sequences begin with are stored once. */
START_TEST(shared_prefix)
{
    const kvt_layer_group groups[] = { FULL_GROUP, SLIDING_GROUP, RECURRENT_GROUP };
    const kvt_model model = { .name = "prefix", .n_groups = 3, .groups = groups };
    kvt_size_request r = request_of(KVT_ENGINE_kvtile, "f16", 1000);
    kvt_group_size without[3], with[3];
    r.sequences = 5;
    size_of(&model, &r, without);
    r.shared_prefix = 200; /* three pages of 64, and 8 tokens that each sequence has for itself */
    size_of(&model, &r, with);
    ck_assert_uint_eq(without[0].allocated_rows, 5 * 1024);
    ck_assert_uint_eq(with[0].allocated_rows, 5 * 1024 - 4 * 192);
    ck_assert_uint_eq(with[0].rows, 5 * 1000 - 4 * 192);
    ck_assert_uint_eq(with[1].bytes, without[1].bytes);
    ck_assert_uint_eq(with[2].bytes, without[2].bytes);
    uint64_t before = 0; /* longer contexts never cost less, so that budgets can be searched */
    for (r.context = 0; r.context < 400; r.context++) {
        const uint64_t bytes = size_of(&model, &r, NULL).total_bytes;
        ck_assert_uint_ge(bytes, before);
        before = bytes;
    }
    r.engine = KVT_ENGINE_mlx;
    ck_assert_int_eq(failing(&model, &r), KVT_ERR_ENGINE);
}
END_TEST

/* Centres and the scales of FP8 are bytes too. */
START_TEST(options_of_sides)
{
    kvt_layer_group group = FULL_GROUP;
    const kvt_model model = { .name = "full", .max_context = 0, .n_groups = 1, .groups = &group };
    kvt_size_request r = request_of(KVT_ENGINE_kvtile, "kv4", 640);
    const uint64_t plain = size_of(&model, &r, NULL).total_bytes;
    r.k_options.centring = KVT_CENTRING_PAGE;
    const kvt_spec spec = { .size = sizeof spec,
                            .k_scheme = KVT_SCHEME_kv4,
                            .v_scheme = KVT_SCHEME_kv4,
                            .k_dim = 128,
                            .v_dim = 64,
                            .kv_heads = 4,
                            .k_options = { .centring = KVT_CENTRING_PAGE } };
    kvt_layout layout;
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    ck_assert_uint_gt(layout.k.centre_bytes, 0);
    kvt_group_size g;
    ck_assert_uint_eq(size_of(&model, &r, &g).total_bytes, 2 * 4 * 10 * layout.page_bytes);
    ck_assert_uint_ge(g.bytes, plain + 2 * 4 * 10 * layout.k.centre_bytes); /* and what makes pages a multiple of 64 */
    ck_assert_uint_eq(g.bytes, plain + 2 * 4 * 10 * layout.k.centre_bytes + g.padding_bytes);
    r.engine = KVT_ENGINE_logical;
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "centring"));

    r = request_of(KVT_ENGINE_logical, "e4m3", 1);
    r.k_options.fp8_block = 32;
    r.k_options.fp8_scale = KVT_FP8_SCALE_E8M0;
    ck_assert_uint_eq(size_of(&model, &r, NULL).growing_bytes, 2 * 4 * (128 + 4 + 64 + 4));

    /* An option that the engine does not have is an error. */
    r = request_of(KVT_ENGINE_llama_cpp, "f16", 1);
    r.k_options.centring = KVT_CENTRING_PAGE;
    ck_assert_int_eq(failing(&model, &r), KVT_ERR_ENGINE);
    r = request_of(KVT_ENGINE_kvtile, "f16", 1);
    r.swa_full = true;
    ck_assert_int_eq(failing(&model, &r), KVT_ERR_ENGINE);
    r = request_of(KVT_ENGINE_llama_cpp, "f16", 1);
    r.block_tokens = 32;
    ck_assert_ptr_nonnull(strstr(kvt_size_problem(&model, &r), "option"));
}
END_TEST

/* One row for 4 or 128 tokens: what a token adds is a fraction. */
START_TEST(fractions)
{
    const kvt_layer_group groups[] = { { .kind = KVT_LAYER_COMPRESSED, .count = 1, .kv_heads = 1, .k_dim = 32, .tokens_per_row = 128 },
                                       { .kind = KVT_LAYER_INDEXER, .count = 1, .kv_heads = 1, .k_dim = 32, .tokens_per_row = 12 } };
    const kvt_model model = { .name = "rows", .max_context = 0, .n_groups = 2, .groups = groups };
    const kvt_size_request r = request_of(KVT_ENGINE_logical, "q8_0", 129);
    kvt_group_size g[2];
    const kvt_size_report report = size_of(&model, &r, g);
    ck_assert_uint_eq(g[0].rows, 2);
    ck_assert_uint_eq(g[1].rows, 11);
    ck_assert_uint_eq(report.total_bytes, 13 * 34);
    ck_assert_uint_eq(report.growing_bytes * 384, report.growing_tokens * 34 * (3 + 32)); /* 34/128 + 34/12 */
    ck_assert_uint_eq(report.growing_tokens, 192);
}
END_TEST

/* Whatever the engine: parts add up, more context or sequences never take less, an answer within a budget is the largest. */
START_TEST(every_engine)
{
    static const uint64_t contexts[] = { 0, 1, 63, 64, 511, 512, 513, 4096, 40000, 262144 };
    const kvt_model *model;
    unsigned answers = 0;
    for (size_t m = 0; (model = kvt_catalogue_at(m)) != NULL; m++) {
        for (size_t e = 0; kvt_engine_at(e) != KVT_ENGINE_NONE; e++) {
            const char *type;
            for (size_t t = 0; (type = kvt_engine_type_at(kvt_engine_at(e), t)) != NULL; t++) {
                uint64_t before = 0;
                for (size_t c = 0; c < sizeof contexts / sizeof contexts[0]; c++) {
                    kvt_size_request r = request_of(kvt_engine_at(e), type, contexts[c]);
                    r.sequences = 1 + c % 3;
                    kvt_size_report report;
                    kvt_group_size g[8];
                    ck_assert_uint_le(model->n_groups, 8);
                    const kvt_status status = kvt_size(model, &r, &report, g);
                    if (status == KVT_ERR_ENGINE && kvt_size_problem(model, &r))
                        continue;
                    answers++;
                    uint64_t sum = 0;
                    for (size_t i = 0; i < model->n_groups; i++) {
                        sum += g[i].bytes;
                        if (g[i].bytes != g[i].payload_bytes + g[i].scale_bytes + g[i].padding_bytes + g[i].rounding_bytes + g[i].state_bytes ||
                            g[i].rows > g[i].allocated_rows)
                            ck_abort_msg("%s, %s, %s: parts of group %zu", model->name, kvt_engine_name(r.engine), type, i);
                    }
                    const uint64_t parts = report.payload_bytes + report.scale_bytes + report.padding_bytes + report.rounding_bytes +
                                           report.window_bytes + report.state_bytes;
                    r.sequences = 1;
                    kvt_size_report single;
                    if (status != KVT_OK || sum != report.total_bytes || parts != sum || kvt_size(model, &r, &single, NULL) != KVT_OK ||
                        single.total_bytes < before || single.total_bytes > report.total_bytes)
                        ck_abort_msg("%s, %s, %s, %u tokens", model->name, kvt_engine_name(r.engine), type, (unsigned)contexts[c]);
                    before = single.total_bytes;
                }
            }
        }
    }
    ck_assert_uint_gt(answers, 10000);
}
END_TEST

START_TEST(budgets)
{
    const kvt_model *model = kvt_catalogue_find("gemma-4-26B-A4B");
    for (size_t e = 0; kvt_engine_at(e) != KVT_ENGINE_NONE; e++) {
        kvt_size_request r = request_of(kvt_engine_at(e), "f16", 4096);
        uint64_t context, sequences;
        kvt_size_report report;
        for (uint64_t budget = UINT64_C(300) << 20; budget < UINT64_C(64) << 30; budget = budget * 3 + 12345) {
            ck_assert_int_eq(kvt_size_longest_context(model, &r, budget, &context), KVT_OK);
            kvt_size_request at = r;
            at.context = context;
            ck_assert_int_eq(kvt_size(model, &at, &report, NULL), KVT_OK);
            ck_assert_uint_le(report.total_bytes, budget);
            at.context++;
            ck_assert_int_eq(kvt_size(model, &at, &report, NULL), KVT_OK);
            ck_assert_uint_gt(report.total_bytes, budget);
        }
        ck_assert_int_eq(kvt_size_most_sequences(model, &r, UINT64_C(20) << 30, &sequences), KVT_OK);
        if (sequences == UINT64_MAX) /* llama.cpp's share 4096 tokens: there is no window left to add */
            ck_assert_int_eq(r.engine, KVT_ENGINE_llama_cpp);
        r.sequences = sequences;
        ck_assert_int_eq(kvt_size(model, &r, &report, NULL), KVT_OK);
        ck_assert_uint_le(report.total_bytes, UINT64_C(20) << 30);
    }

    const kvt_size_request r = request_of(KVT_ENGINE_kvtile, "f16", 4096);
    uint64_t count = 77;
    const kvt_model *nemotron = kvt_catalogue_find("Nemotron-3-Nano-30B-A3B");
    ck_assert_int_eq(kvt_size_longest_context(nemotron, &r, 1000, &count), KVT_ERR_BUDGET);
    ck_assert_int_eq(kvt_size_most_sequences(nemotron, &r, 1000, &count), KVT_ERR_BUDGET);
    ck_assert_uint_eq(count, 77);
    ck_assert_int_eq(kvt_size_longest_context(nemotron, NULL, 1000, &count), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_size_longest_context(nemotron, &r, 1000, NULL), KVT_ERR_NULL);
    kvt_size_request streams = request_of(KVT_ENGINE_llama_cpp, "f16", 4096);
    streams.separate_streams = true;
    ck_assert_int_eq(kvt_size_most_sequences(nemotron, &streams, UINT64_MAX, &count), KVT_ERR_RANGE);

    /* Nothing grows: there is no limit. */
    const kvt_layer_group state = RECURRENT_GROUP;
    const kvt_model recurrent = { .name = "state", .max_context = 0, .n_groups = 1, .groups = &state };
    ck_assert_int_eq(kvt_size_longest_context(&recurrent, &r, UINT64_MAX, &count), KVT_OK);
    ck_assert_uint_eq(count, UINT64_MAX);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("size");
    TCase *cases = tcase_create("size");
    tcase_add_test(cases, names);
    tcase_add_test(cases, hand_computed);
    tcase_add_test(cases, channels_beyond_groups);
    tcase_add_test(cases, no_context);
    tcase_add_test(cases, sliding_pages);
    tcase_add_test(cases, agrees_with_layout);
    tcase_add_test(cases, latents_agree_with_layout);
    tcase_add_test(cases, bad_requests);
    tcase_add_test(cases, older_requests);
    tcase_add_test(cases, overflows);
    tcase_add_test(cases, large_states);
    tcase_add_test(cases, bad_models);
    tcase_add_test(cases, catalogue);
    tcase_add_test(cases, finding);
    tcase_add_test(cases, llama_cpp);
    tcase_add_test(cases, vllm);
    tcase_add_test(cases, model_types);
    tcase_add_test(cases, transformers_and_mlx);
    tcase_add_test(cases, draft_only);
    tcase_add_test(cases, options_of_sides);
    tcase_add_test(cases, cross_attention);
    tcase_add_test(cases, shared_prefix);
    tcase_add_test(cases, fractions);
    tcase_add_test(cases, every_engine);
    tcase_add_test(cases, budgets);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
