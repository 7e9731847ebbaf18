/* Reading config.json: the models of the catalogue from their fields, published files where they are at hand, and files that are wrong. */
#define _POSIX_C_SOURCE 200809L
#include "support.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <kvtile/size.h>

#include "tools/model/config_json.h"

/* ---- helpers --------------------------------------------------------------------------------------------------------------------- */

static int read_text(const char *text, size_t length, kvt_config *config, error_text *error)
{
    char path[] = "test_config-XXXXXX";
    const int descriptor = mkstemp(path);
    ck_assert_int_ge(descriptor, 0);
    FILE *file = fdopen(descriptor, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
    const int result = kvt_config_read(path, config, error);
    unlink(path);
    return result;
}

static void read_good(const char *text, kvt_config *config)
{
    error_text error = { "" };
    const int result = read_text(text, strlen(text), config, &error);
    ck_assert_msg(result == 0, "%s\nof %s", error.text, text);
}

static void check_same(const kvt_model *model, const kvt_model *expected)
{
    ck_assert_uint_eq(model->n_groups, expected->n_groups);
    for (size_t i = 0; i < expected->n_groups; i++) {
        const kvt_layer_group *a = &model->groups[i], *b = &expected->groups[i];
        ck_assert_int_eq(a->kind, b->kind);
        ck_assert_uint_eq(a->count, b->count);
        ck_assert_uint_eq(a->kv_heads, b->kv_heads);
        ck_assert_uint_eq(a->k_dim, b->k_dim);
        ck_assert_uint_eq(a->v_dim, b->v_dim);
        ck_assert_uint_eq(a->window, b->window);
        ck_assert_uint_eq(a->conv_elements, b->conv_elements);
        ck_assert_uint_eq(a->conv_element_bytes, b->conv_element_bytes);
        ck_assert_uint_eq(a->recurrent_elements, b->recurrent_elements);
        ck_assert_uint_eq(a->recurrent_element_bytes, b->recurrent_element_bytes);
    }
}

static void check_catalogue(const char *text, const char *name)
{
    kvt_config config;
    read_good(text, &config);
    const kvt_model *expected = kvt_catalogue_find(name);
    ck_assert_ptr_nonnull(expected);
    check_same(&config.model, expected);
    ck_assert_uint_eq(config.model.max_context, expected->max_context);
}

/* ---- the models of the catalogue ------------------------------------------------------------------------------------------------- */

/* A list of layer types: every `interval`-th is full, the others are `other`. */
static void layer_list(char *text, size_t size, unsigned layers, unsigned interval, const char *other)
{
    size_t used = 0;
    for (unsigned i = 1; i <= layers; i++) {
        const char *type = i % interval ? other : "full_attention";
        used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", i == 1 ? "" : ", ", type);
        ck_assert_uint_lt(used, size);
    }
}

START_TEST(gemma4)
{
    static const struct {
        const char *name, *type;
        unsigned layers, interval, heads;
        const char *global_heads;
        unsigned window, shared;
        const char *k_eq_v;
        unsigned context;
    } sizes[] = {
        { "gemma-4-E2B", "gemma4", 35, 5, 1, "null", 512, 20, "false", 131072 },
        { "gemma-4-E4B", "gemma4", 42, 6, 2, "null", 512, 18, "false", 131072 },
        { "gemma-4-12B", "gemma4_unified", 48, 6, 8, "1", 1024, 0, "true", 262144 },
        { "gemma-4-26B-A4B", "gemma4", 30, 6, 8, "2", 1024, 0, "true", 262144 },
        { "gemma-4-31B", "gemma4", 60, 6, 16, "4", 1024, 0, "true", 262144 },
    };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char list[2048], rest[3000], text[6000];
        layer_list(list, sizeof list, sizes[i].layers, sizes[i].interval, "sliding_attention");
        snprintf(rest, sizeof rest,
                 "\"num_hidden_layers\": %u, \"num_key_value_heads\": %u, \"num_global_key_value_heads\": %s, \"head_dim\": 256, "
                 "\"global_head_dim\": 512, \"sliding_window\": %u, \"num_kv_shared_layers\": %u, \"attention_k_eq_v\": %s, "
                 "\"max_position_embeddings\": %u, \"num_attention_heads\": 8, \"hidden_size\": 1536",
                 sizes[i].layers, sizes[i].heads, sizes[i].global_heads, sizes[i].window, sizes[i].shared, sizes[i].k_eq_v, sizes[i].context);

        snprintf(text, sizeof text, "{\"model_type\": \"%s_text\", \"layer_types\": [%s], %s}", sizes[i].type, list, rest);
        check_catalogue(text, sizes[i].name);
        snprintf(text, sizeof text, "{\"model_type\": \"%s_text\", \"sliding_window_pattern\": %u, %s}", sizes[i].type, sizes[i].interval, rest);
        check_catalogue(text, sizes[i].name);
        snprintf(text, sizeof text,
                 "{\"model_type\": \"%s\", \"head_dim\": 7, \"vision_config\": {\"head_dim\": 64}, \"text_config\": "
                 "{\"model_type\": \"%s_text\", \"layer_types\": [%s], %s}}",
                 sizes[i].type, sizes[i].type, list, rest);
        check_catalogue(text, sizes[i].name);
    }
}
END_TEST

#define QWEN3_5_FIELDS                                                                                                                               \
    "\"num_hidden_layers\": 40, \"num_attention_heads\": 16, \"num_key_value_heads\": 2, \"head_dim\": 256, \"hidden_size\": 2048, "                 \
    "\"linear_conv_kernel_dim\": 4, \"linear_num_key_heads\": 16, \"linear_key_head_dim\": 128, \"linear_num_value_heads\": 32, "                    \
    "\"linear_value_head_dim\": 128, \"mtp_num_hidden_layers\": 1, \"max_position_embeddings\": 262144"

START_TEST(qwen3_5)
{
    char list[2048], text[4000];
    layer_list(list, sizeof list, 40, 4, "linear_attention");
    snprintf(text, sizeof text,
             "{\"model_type\": \"qwen3_5_moe_text\", \"mamba_ssm_dtype\": \"float32\", \"dtype\": \"bfloat16\", "
             "\"layer_types\": [%s], " QWEN3_5_FIELDS "}",
             list);
    check_catalogue(text, "Qwen3.5-35B-A3B");
    check_catalogue("{\"model_type\": \"qwen3_5_moe\", \"torch_dtype\": \"bfloat16\", \"text_config\": {\"full_attention_interval\": 4, "
                    "\"mamba_ssm_dtype\": \"float32\", " QWEN3_5_FIELDS "}}",
                    "Qwen3.5-35B-A3B");

    kvt_config config;
    read_good("{\"model_type\": \"qwen3_5\", \"full_attention_interval\": 4, \"dtype\": \"float32\", "
              "\"mamba_ssm_dtype\": \"bfloat16\", " QWEN3_5_FIELDS "}",
              &config);
    ck_assert_uint_eq(config.groups[1].conv_element_bytes, 4);
    ck_assert_uint_eq(config.groups[1].recurrent_element_bytes, 2);
}
END_TEST

#define NEMOTRON_FIELDS                                                                                                                              \
    "\"model_type\": \"nemotron_h\", \"hidden_size\": 2688, \"num_attention_heads\": 32, \"num_key_value_heads\": 2, \"head_dim\": 128, "            \
    "\"mamba_num_heads\": 64, \"mamba_head_dim\": 64, \"ssm_state_size\": 128, \"n_groups\": 8, \"conv_kernel\": 4, "                                \
    "\"mamba_ssm_cache_dtype\": \"float32\", \"torch_dtype\": \"bfloat16\", \"max_position_embeddings\": 262144, \"sliding_window\": null"

START_TEST(nemotron)
{
    static const char pattern[] = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
    char text[4000];
    snprintf(text, sizeof text, "{" NEMOTRON_FIELDS ", \"num_hidden_layers\": 52, \"hybrid_override_pattern\": \"%s\"}", pattern);
    check_catalogue(text, "Nemotron-3-Nano-30B-A3B");

    /* Newer files list the layers and leave out their number. */
    for (int old = 0; old < 2; old++) {
        size_t used = (size_t)snprintf(text, sizeof text, "{" NEMOTRON_FIELDS ", \"layers_block_type\": [");
        for (const char *c = pattern; *c; c++) {
            const char *type = *c == 'M' ? (old ? "mamba" : "linear_attention") : *c == 'E' ? "moe" : old ? "attention" : "full_attention";
            used += (size_t)snprintf(text + used, sizeof text - used, "%s\"%s\"", c == pattern ? "" : ",", type);
        }
        snprintf(text + used, sizeof text - used, "]}");
        check_catalogue(text, "Nemotron-3-Nano-30B-A3B");
    }
}
END_TEST

START_TEST(glm_and_qwen3)
{
    check_catalogue("{\"model_type\": \"glm4_moe_lite\", \"num_hidden_layers\": 47, \"hidden_size\": 2048, \"num_attention_heads\": 20, "
                    "\"num_key_value_heads\": 20, \"kv_lora_rank\": 512, \"qk_rope_head_dim\": 64, \"qk_nope_head_dim\": 192, "
                    "\"v_head_dim\": 256, \"num_nextn_predict_layers\": 1, \"max_position_embeddings\": 202752}",
                    "GLM-4.7-Flash");
    check_catalogue("{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 48, \"hidden_size\": 2048, \"num_attention_heads\": 32, "
                    "\"num_key_value_heads\": 4, \"head_dim\": 128, \"sliding_window\": null, \"use_sliding_window\": false, "
                    "\"max_window_layers\": 48, \"max_position_embeddings\": 262144}",
                    "Qwen3-30B-A3B-Instruct-2507");

    /* sliding_window says nothing without use_sliding_window. */
    static const char text[] = "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 10, \"num_key_value_heads\": 4, \"head_dim\": 128, "
                               "\"sliding_window\": 4096, \"max_window_layers\": 7, \"use_sliding_window\": %s}";
    char changed[400];
    kvt_config config;
    snprintf(changed, sizeof changed, text, "false");
    read_good(changed, &config);
    ck_assert_uint_eq(config.model.n_groups, 1);
    ck_assert_uint_eq(config.groups[0].count, 10);
    ck_assert_uint_eq(config.model.max_context, 0);
    snprintf(changed, sizeof changed, text, "true");
    read_good(changed, &config);
    ck_assert_uint_eq(config.model.n_groups, 2);
    ck_assert_uint_eq(config.groups[0].count, 7);
    ck_assert_uint_eq(config.groups[1].count, 3);
    ck_assert_uint_eq(config.groups[1].window, 4096);
}
END_TEST

START_TEST(llama)
{
    kvt_config config;
    read_good("{\"model_type\": \"llama\", \"num_hidden_layers\": 32, \"hidden_size\": 4096, \"num_attention_heads\": 32, "
              "\"num_key_value_heads\": 8}",
              &config);
    ck_assert_uint_eq(config.model.n_groups, 1);
    ck_assert_uint_eq(config.groups[0].kv_heads, 8);
    ck_assert_uint_eq(config.groups[0].k_dim, 128);
    ck_assert_uint_eq(config.groups[0].v_dim, 128);
    read_good("{\"model_type\": \"llama\", \"num_hidden_layers\": 32, \"hidden_size\": 4096, \"num_attention_heads\": 32, "
              "\"num_key_value_heads\": 8, \"head_dim\": 80}",
              &config);
    ck_assert_uint_eq(config.groups[0].k_dim, 80);
}
END_TEST

/* ---- published files ------------------------------------------------------------------------------------------------------------- */

START_TEST(published)
{
    static const struct {
        const char *file, *catalogue;
        uint64_t growing, state;
    } files[] = {
        { "gemma-4-26B-A4B", "gemma-4-26B-A4B", 20480, 0 },
        { "Qwen3.5-35B-A3B", "Qwen3.5-35B-A3B", 20480, 64389120 },
        { "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Nemotron-3-Nano-30B-A3B", 6144, 49082368 },
        { "Qwen3-30B-A3B", "Qwen3-30B-A3B-Instruct-2507", 98304, 0 },
        { "Qwen3-0.6B", NULL, 114688, 0 },
        { "Qwen3-8B", NULL, 147456, 0 },
        { "Qwen3.5-27B", NULL, 65536, 153944064 },
        { "Meta-Llama-3.1-8B", NULL, 131072, 0 },
        { "Meta-Llama-3.1-70B", NULL, 327680, 0 },
    };
    if (access(KVT_SHARED_DIR "/configs", R_OK) != 0) {
        printf("published config.json files: skipped, no shared data\n");
        return;
    }
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[1024];
        snprintf(path, sizeof path, KVT_SHARED_DIR "/configs/%s.json", files[i].file);
        kvt_config config;
        error_text error = { "" };
        ck_assert_msg(kvt_config_read(path, &config, &error) == 0, "%s: %s", path, error.text);
        ck_assert_str_eq(config.model.name, files[i].file);
        if (files[i].catalogue)
            check_same(&config.model, kvt_catalogue_find(files[i].catalogue));

        const kvt_size_request request = { .size = sizeof request,
                                           .engine = KVT_ENGINE_LOGICAL,
                                           .k_scheme = KVT_SCHEME_bf16,
                                           .v_scheme = KVT_SCHEME_bf16,
                                           .context = 1,
                                           .sequences = 1 };
        kvt_size_report report;
        ck_assert_int_eq(kvt_size(&config.model, &request, &report, NULL), KVT_OK);
        ck_assert_uint_eq(report.growing_bytes_per_token, files[i].growing);
        ck_assert_uint_eq(report.state_bytes_per_sequence, files[i].state);
    }
}
END_TEST

/* ---- what is wrong --------------------------------------------------------------------------------------------------------------- */

static void check_bad(const char *text, size_t length, const char *says)
{
    kvt_config config;
    error_text error = { "" };
    ck_assert_msg(read_text(text, length, &config, &error) == -1, "was accepted: %.300s", text);
    ck_assert_msg(strstr(error.text, says) != NULL, "\"%s\" does not say \"%s\"", error.text, says);
    ck_assert_ptr_null(strchr(error.text, '\n'));
    ck_assert_uint_lt(strlen(error.text), sizeof error.text - 1);
}

#define LLAMA   "\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 8, \"head_dim\": 128"
#define GEMMA   "\"model_type\": \"gemma4_text\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 8, \"head_dim\": 256, \"global_head_dim\": 512"
#define LAYERS  "\"layer_types\": [\"sliding_attention\", \"full_attention\"], \"sliding_window\": 512"
#define GLM     "\"model_type\": \"glm4_moe_lite\", \"num_hidden_layers\": 2"
#define QWEN3_5 "\"model_type\": \"qwen3_5\", \"full_attention_interval\": 4, " QWEN3_5_FIELDS

START_TEST(malformed)
{
    static const struct {
        const char *text, *says;
    } files[] = {
        { "", "empty" },
        { " ", "not JSON: line 1" },
        { "{\"model_type\": \"llama\",\n \"num_hidden_layers\": 2, ", "not JSON: line 2, column" },
        { "{\"model_type\": \"ll", "not JSON: line 1" },
        { "{\"a\": 1, \"a\": 2}", "duplicate" },
        { "{" LLAMA ", \"head_dim\": 64}", "duplicate" },
        { "{" LLAMA "} {", "not JSON" },
        { "{\"a\": NaN}", "not JSON" },
        { "[]", "the file holds a list" },
        { "3", "the file holds a single value" },
        { "{}", "model_type is missing" },
        { "{\"model_type\": 5}", "model_type is 5" },
        { "{\"model_type\": null}", "model_type is null" },
        { "{\"model_type\": [\"llama\"]}", "model_type is a list" },
        { "{\"model_type\": \"mamba9\"}", "model_type is \"mamba9\", but must be one that is known: gemma4, " },
        { "{\"model_type\": \"a\\n\\u001b[31mb\"}", "model_type is \"a\\n\\u001B[31mb\"" },
        { "{\"model_type\": \"llama\", \"text_config\": 3}", "text_config is 3" },
        { "{\"model_type\": \"gemma4\", \"text_config\": {\"model_type\": \"unheard\"}}", "model_type is \"unheard\"" },

        { "{\"model_type\": \"llama\"}", "num_hidden_layers is missing: llama needs it" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 0}", "num_hidden_layers is 0, but must be a whole number from 1 to 65536" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": -3}", "num_hidden_layers is -3" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 65537}", "num_hidden_layers is 65537" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 9223372036854775807}", "num_hidden_layers is 9223372036854775807" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 99999999999999999999}", "too big integer" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 1e400}", "not JSON" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2.0}", "num_hidden_layers is 2.0" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": \"2\"}", "num_hidden_layers is \"2\"" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": true}", "num_hidden_layers is true" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": {}}", "num_hidden_layers is an object" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": -2}",
          "num_key_value_heads is -2, but must be a whole number from 1 to 65536" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 4294967297}", "num_key_value_heads is 4294967297" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": null}", "num_key_value_heads is missing" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2}", "hidden_size is missing" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"head_dim\": 1025}", "head_dim is 1025" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"hidden_size\": 100, \"num_attention_heads\": 3}",
          "hidden_size / num_attention_heads is 100 / 3" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"hidden_size\": 8192, \"num_attention_heads\": 1}",
          "hidden_size / num_attention_heads is 8192 / 1" },
        { "{" LLAMA ", \"max_position_embeddings\": -1}", "max_position_embeddings is -1" },
        { "{" LLAMA ", \"max_position_embeddings\": \"long\"}", "max_position_embeddings is \"long\"" },

        { "{" GEMMA "}", "layer_types is missing: gemma4_text needs it, or sliding_window_pattern" },
        { "{" GEMMA ", \"layer_types\": \"full_attention\"}", "layer_types is \"full_attention\", but must be a list" },
        { "{" GEMMA ", \"layer_types\": []}", "layer_types has 0 entries" },
        { "{" GEMMA ", \"layer_types\": [\"full_attention\"]}", "layer_types has 1 entries, but must have num_hidden_layers = 2" },
        { "{" GEMMA ", \"layer_types\": [\"full_attention\", \"odd\"]}", "layer_types[1] is \"odd\"" },
        { "{" GEMMA ", \"layer_types\": [4, \"full_attention\"]}", "layer_types[0] is 4" },
        { "{" GEMMA ", \"layer_types\": [null, \"full_attention\"]}", "layer_types[0] is null" },
        { "{" GEMMA ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", "must end with \"full_attention\"" },
        { "{" GEMMA ", \"sliding_window_pattern\": 0}", "sliding_window_pattern is 0" },
        { "{" GEMMA ", " LAYERS "}", "num_kv_shared_layers is missing" },
        { "{" GEMMA ", " LAYERS ", \"num_kv_shared_layers\": 2}", "num_kv_shared_layers is 2, but must be a whole number from 0 to 1" },
        { "{" GEMMA ", " LAYERS ", \"num_kv_shared_layers\": 0, \"num_global_key_value_heads\": 2}", "attention_k_eq_v is missing" },
        { "{" GEMMA ", " LAYERS ", \"num_kv_shared_layers\": 0, \"num_global_key_value_heads\": 2, \"attention_k_eq_v\": 1}",
          "attention_k_eq_v is 1, but must be true or false" },
        { "{" GEMMA ", " LAYERS ", \"num_kv_shared_layers\": 0, \"num_global_key_value_heads\": 0, \"attention_k_eq_v\": true}",
          "num_global_key_value_heads is 0" },
        { "{" GEMMA ", \"layer_types\": [\"sliding_attention\", \"full_attention\"], \"num_kv_shared_layers\": 0}", "sliding_window is missing" },

        { "{" GLM "}", "kv_lora_rank is missing" },
        { "{" GLM ", \"kv_lora_rank\": 512}", "qk_rope_head_dim is missing" },
        { "{" GLM ", \"kv_lora_rank\": 1000, \"qk_rope_head_dim\": 64}", "kv_lora_rank + qk_rope_head_dim is 1064" },

        { "{" QWEN3_5 "}", "mamba_ssm_dtype is missing" },
        { "{" QWEN3_5 ", \"mamba_ssm_dtype\": \"int3\"}", "mamba_ssm_dtype is \"int3\"" },
        { "{" QWEN3_5 ", \"mamba_ssm_dtype\": \"float32\"}", "dtype is missing" },
        { "{" QWEN3_5 ", \"mamba_ssm_dtype\": \"float32\", \"torch_dtype\": 16}", "torch_dtype is 16" },
        { "{\"model_type\": \"qwen3_5\", " QWEN3_5_FIELDS "}", "layer_types is missing: qwen3_5 needs it, or full_attention_interval" },

        { "{" NEMOTRON_FIELDS "}", "hybrid_override_pattern is missing" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"\"}", "hybrid_override_pattern has 0 entries" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"M*X\"}", "hybrid_override_pattern[2] is \"X\"" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"M\\u00fc*\"}", "hybrid_override_pattern[1] is \"?\"" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"M*\", \"num_hidden_layers\": 3}", "must have num_hidden_layers = 3" },
        { "{" NEMOTRON_FIELDS ", \"layers_block_type\": [\"mamba\", \"sliding_attention\"]}", "layers_block_type[1] is \"sliding_attention\"" },

        { "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 2, \"use_sliding_window\": \"no\"}", "use_sliding_window is \"no\"" },
        { "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 2, \"use_sliding_window\": true}", "max_window_layers is missing" },
        { "{\"model_type\": \"qwen3\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 8}", "head_dim is missing" },
        { "{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 2, \"use_sliding_window\": true}", "use_sliding_window is true" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        check_bad(files[i].text, strlen(files[i].text), files[i].says);
}
END_TEST

/* Cut anywhere, a file is an error and nothing worse. */
START_TEST(truncated)
{
    static const char text[] = "{" GEMMA ", " LAYERS ", \"num_kv_shared_layers\": 1}";
    kvt_config config;
    read_good(text, &config);
    for (size_t length = 1; length < sizeof text - 1; length++)
        check_bad(text, length, "not JSON: line 1, column");
}
END_TEST

START_TEST(nested_and_long)
{
    const size_t size = 1 << 20;
    char *text = malloc(size);
    ck_assert_ptr_nonnull(text);
    memset(text, '[', size);
    check_bad(text, size, "depth");

    /* A long value is cut short. */
    memset(text, 'a', size);
    memcpy(text, "{\"model_type\": \"", 16);
    memcpy(text + size - 2, "\"}", 2);
    check_bad(text, size, "aaaa..., but must be");

    memset(text, 0xff, 100);
    check_bad(text, 100, "not JSON");
    memset(text, 0, 100);
    check_bad(text, 100, "not JSON");
    free(text);
}
END_TEST

START_TEST(files)
{
    kvt_config config;
    error_text error = { "" };
    ck_assert_int_eq(kvt_config_read("no/such/file.json", &config, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "No such file"));
    ck_assert_int_eq(kvt_config_read(".", &config, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "directory"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *cases = tcase_create("config");
    tcase_add_test(cases, gemma4);
    tcase_add_test(cases, qwen3_5);
    tcase_add_test(cases, nemotron);
    tcase_add_test(cases, glm_and_qwen3);
    tcase_add_test(cases, llama);
    tcase_add_test(cases, published);
    tcase_add_test(cases, malformed);
    tcase_add_test(cases, truncated);
    tcase_add_test(cases, nested_and_long);
    tcase_add_test(cases, files);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
