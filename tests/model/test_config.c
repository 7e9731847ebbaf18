/* SPDX-License-Identifier: MIT */
/* Reading config.json: the rules one by one, the models of the catalogue from their fields, published files where they are at hand, which fields
 * matter and which do not, and files that are wrong. */
#define _XOPEN_SOURCE 700
#include "tests/lib/support.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kvtile/model.h>

#include "tools/files/file.h"
#include "tools/model/description.h"
#include "tools/model/shard.h"

/* ---- helpers --------------------------------------------------------------------------------------------------------------------- */

/* The bytes are exactly as many as are read: a sanitizer sees what is read beyond. */
static int read_bytes(const char *text, size_t length, model_description *description, error_text *error)
{
    char *copy = test_malloc(length ? length : 1);
    memcpy(copy, text, length);
    *description = (model_description){ 0 };
    const int result = model_read_config(copy, length, description, error);
    free(copy);
    return result;
}

static void check_sizable(const model_description *description)
{
    const kvt_size_request request = { .size = sizeof request, .engine = KVT_ENGINE_logical, .context = 1000, .sequences = 1 };
    kvt_size_report report;
    const kvt_status status = kvt_size(&description->model, &request, &report, NULL);
    TEST_REQUIRE(status == KVT_OK, "kvt_size: %s", kvt_status_text(status));
}

static void read_good(const char *text, model_description *description)
{
    error_text error = { "" };
    TEST_REQUIRE(read_bytes(text, strlen(text), description, &error) == 0, "%s\nof %s", error.text, text);
    check_sizable(description);
}

/* An error that says so, in one line, not cut, and leaves nothing behind. */
static void check_error(const char *text, const error_text *error, const model_description *description, const char *says)
{
    TEST_REQUIRE(strstr(error->text, says), "\"%s\" does not say \"%s\", of %.1000s", error->text, says, text);
    TEST_REQUIRE(*error->text && !strchr(error->text, '\n') && strlen(error->text) < sizeof error->text - 1, "\"%s\"", error->text);
    TEST_REQUIRE(!description->groups && description->n_groups == 0, "groups after an error");
}

static void check_bad(const char *text, size_t length, const char *says)
{
    model_description description;
    error_text error = { "" };
    TEST_REQUIRE(read_bytes(text, length, &description, &error) == -1, "was accepted: %.1000s", text);
    check_error(text, &error, &description, says);
}

/* "full 10+1 2x256/256, recurrent 30 conv 4*8192*2 state 524288*4": layers and those for drafts, KV heads x channels of key / value. */
static void show_groups(const kvt_model *model, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
#define SHOW(...) (used += (size_t)snprintf(text + used, used < size ? size - used : 0, __VA_ARGS__))
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *g = &model->groups[i];
        SHOW("%s%s %u", i ? ", " : "", kvt_layer_kind_name(g->kind), g->count);
        if (g->draft_count)
            SHOW("+%u", g->draft_count);
        if (g->shared_count)
            SHOW(" read by %u", g->shared_count);
        if (g->kv_heads)
            SHOW(g->rope_dim ? " %ux%u+%u/%u" : " %ux%u/%u", g->kv_heads, g->k_dim - g->rope_dim, g->rope_dim ? g->rope_dim : g->v_dim, g->v_dim);
        if (g->window)
            SHOW(" window %u", g->window);
        if (g->tokens_per_row)
            SHOW(" per %u", g->tokens_per_row);
        if (g->expanded_heads)
            SHOW(" for %ux%u/%u", g->expanded_heads, g->expanded_k_dim, g->expanded_v_dim);
        if (g->conv_kernel)
            SHOW(" conv %u*%" PRIu64 "*%u", g->conv_kernel, g->conv_channels, g->conv_element_bytes);
        if (g->recurrent_elements)
            SHOW(" state %" PRIu64 "*%u", g->recurrent_elements, g->recurrent_element_bytes);
        TEST_REQUIRE(used < size, "too long: %s", text);
    }
#undef SHOW
}

static void check_groups(const char *config, const char *groups, const char *notes)
{
    model_description description;
    char found[1024];
    read_good(config, &description);
    show_groups(&description.model, found, sizeof found);
    TEST_REQUIRE(strcmp(found, groups) == 0, "%s\nnot %s\nof %s", found, groups, config);
    TEST_REQUIRE(strcmp(description.notes, notes) == 0, "notes are \"%s\"\nof %s", description.notes, config);
    description_free(&description);
}

/* A model of one kind of layer, and pieces to say more. */
#define KIND(type) "\"model_type\": \"" type "\""
#define ROWS       "\"num_key_value_heads\": 2, \"head_dim\": 64"
#define LAYERS(n)  "\"num_hidden_layers\": " #n
#define NEW        KIND("brand_new") ", " ROWS
#define HIDDEN     "\"hidden_size\": 512, \"num_attention_heads\": 8"
#define BF16       "\"dtype\": \"bfloat16\""
#define DELTA_NET                                                                                                                                    \
    "\"linear_conv_kernel_dim\": 4, \"linear_num_key_heads\": 2, \"linear_key_head_dim\": 16, \"linear_num_value_heads\": 4, "                       \
    "\"linear_value_head_dim\": 32"
#define NEMOTRON "\"conv_kernel\": 4, \"mamba_num_heads\": 8, \"mamba_head_dim\": 16, \"n_groups\": 2, \"ssm_state_size\": 32"
#define GRANITE  "\"mamba_d_conv\": 4, \"mamba_n_heads\": 8, \"mamba_n_groups\": 1, \"mamba_d_state\": 32, \"mamba_expand\": 2"
#define MLA      "\"kv_lora_rank\": 512, \"qk_rope_head_dim\": 64"
#define LATENT_3 "latent 3 1x512+64/0"

typedef struct rule {
    const char *config, *groups;
} rule;

static void check_rules(const rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_groups(rules[i].config, rules[i].groups, "");
}
#define CHECK_RULES(rules) check_rules(rules, sizeof(rules) / sizeof(rules)[0])

/* ---- rules ----------------------------------------------------------------------------------------------------------------------- */

START_TEST(parts_of_the_file)
{
    static const rule rules[] = {
        { "{" NEW ", " LAYERS(3) "}", "full 3 2x64/64" },
        { "{\"model_type\": \"a\", \"head_dim\": 7, \"text_config\": {" NEW ", " LAYERS(3) "}, \"vision_config\": {\"head_dim\": 9}}",
          "full 3 2x64/64" },
        { "{\"model_type\": \"llama\", \"text_config\": {" ROWS ", " LAYERS(3) "}}", "full 3 2x64/64" }, /* the type from further out */
        { "{\"llm_config\": {" NEW ", " LAYERS(3) "}}", "full 3 2x64/64" },
        { "{\"language_config\": {" NEW ", " LAYERS(3) "}, \"text_config\": null}", "full 3 2x64/64" },
        { "{\"thinker_config\": {\"audio_config\": {}, \"text_config\": {" NEW ", " LAYERS(3) "}}, \"talker_config\": {\"head_dim\": 9}}",
          "full 3 2x64/64" },
        { "{" NEW ", " LAYERS(3) ", \"is_encoder_decoder\": false}", "full 3 2x64/64" },
        { "{" NEW ", \"n_layer\": 3}", "full 3 2x64/64" },
        { "{" NEW ", \"n_layers\": 3, \"num_layers\": null}", "full 3 2x64/64" },
        { "{" NEW ", \"num_layers\": 3}", "full 3 2x64/64" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(heads_and_dimensions)
{
    static const rule rules[] = {
        { "{" KIND("llama") ", " LAYERS(2) ", " HIDDEN ", \"num_key_value_heads\": 4}", "full 2 4x64/64" },
        { "{" KIND("llama") ", " LAYERS(2) ", " HIDDEN "}", "full 2 8x64/64" },
        { "{" KIND("llama") ", " LAYERS(2) ", " HIDDEN ", \"num_key_value_heads\": null, \"head_dim\": null}", "full 2 8x64/64" },
        { "{" KIND("llama") ", " LAYERS(2) ", " HIDDEN ", \"head_dim\": 80}", "full 2 8x80/80" },
        { "{" KIND("gpt2") ", \"n_layer\": 2, \"n_embd\": 768, \"n_head\": 12}", "full 2 12x64/64" },
        { "{" KIND("gpt_bigcode") ", \"n_layer\": 2, \"n_embd\": 768, \"n_head\": 12}", "full 2 1x64/64" },
        { "{" KIND("gpt_bigcode") ", \"n_layer\": 2, \"n_embd\": 768, \"n_head\": 12, \"multi_query\": false}", "full 2 12x64/64" },
        { "{" KIND("falcon") ", " LAYERS(2) ", " HIDDEN ", \"num_kv_heads\": 8}", "full 2 1x64/64" },
        { "{" KIND("falcon") ", " LAYERS(2) ", " HIDDEN ", \"num_kv_heads\": 4, \"new_decoder_architecture\": true}", "full 2 4x64/64" },
        { "{" KIND("falcon") ", " LAYERS(2) ", " HIDDEN ", \"n_head_kv\": 4, \"new_decoder_architecture\": true}", "full 2 4x64/64" },
        { "{" KIND("mpt") ", \"n_layers\": 2, \"d_model\": 512, \"n_heads\": 8}", "full 2 8x64/64" },
        { "{" NEW ", " LAYERS(2) ", \"v_head_dim\": 32}", "full 2 2x64/32" },
        { "{" NEW ", " LAYERS(2) ", \"v_head_dim\": 0}", "full 2 2x64/64" },
        { "{" KIND("brand_new") ", " LAYERS(2) ", \"num_key_value_heads\": 2, \"attention_head_dim\": 48}", "full 2 2x48/48" },
        /* The number of KV heads and the widths of sliding layers may be their own. */
        { "{" NEW ", \"hybrid_layer_pattern\": [0, 1, 1], \"v_head_dim\": 32, \"sliding_window\": 128, \"swa_num_key_value_heads\": 4, "
          "\"swa_head_dim\": 48, \"swa_v_head_dim\": 16}",
          "full 1 2x64/32, sliding 2 4x48/16 window 128" },
        { "{" NEW ", \"hybrid_layer_pattern\": [0, 1, 1], \"v_head_dim\": 32, \"sliding_window\": 128}",
          "full 1 2x64/32, sliding 2 2x64/32 window 128" },
        /* Gemma 4 */
        { "{" NEW ", \"layer_types\": [\"sliding_attention\", \"full_attention\"], \"sliding_window\": 9, \"global_head_dim\": 128, "
          "\"num_global_key_value_heads\": 1, \"attention_k_eq_v\": true}",
          "full 1 1x128/128, sliding 1 2x64/64 window 9" },
        { "{" NEW ", \"layer_types\": [\"sliding_attention\", \"full_attention\"], \"sliding_window\": 9, \"global_head_dim\": 128, "
          "\"num_global_key_value_heads\": 1, \"attention_k_eq_v\": false}",
          "full 1 2x128/128, sliding 1 2x64/64 window 9" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(class_defaults)
{
    static const rule rules[] = {
        { "{" KIND("gemma") ", " LAYERS(2) "}", "full 2 16x256/256" },
        { "{" KIND("gemma2") ", " LAYERS(4) "}", "full 2 4x256/256, sliding 2 4x256/256 window 4096" },
        { "{" KIND("gemma3_text") ", " LAYERS(8) ", \"sliding_window\": 512}", "full 1 4x256/256, sliding 7 4x256/256 window 512" },
        { "{" KIND("gemma3") ", \"text_config\": {" LAYERS(6) "}}", "full 1 4x256/256, sliding 5 4x256/256 window 4096" },
        { "{" KIND("gemma3n_text") ", " LAYERS(30) "}", "full 3 read by 3 2x256/256, sliding 12 read by 12 2x256/256 window 512, none 15" },
        { "{" KIND("gemma4_text") ", " LAYERS(8) "}", "full 2 4x512/512, sliding 6 4x256/256 window 512" },
        { "{" KIND("gemma4_unified") ", " LAYERS(8) "}", "full 2 4x512/512, sliding 6 4x256/256 window 1024" },
        { "{" KIND("cohere2") ", " LAYERS(8) ", " HIDDEN "}", "full 2 8x64/64, sliding 6 8x64/64 window 4096" },
        { "{" KIND("mistral") ", " LAYERS(2) ", " ROWS "}", "sliding 2 2x64/64 window 4096" },
        { "{" KIND("mistral") ", " LAYERS(2) ", " ROWS ", \"sliding_window\": null}", "full 2 2x64/64" },
        { "{" KIND("llama4_text") ", " LAYERS(8) ", " ROWS "}", "full 2 2x64/64, sliding 6 2x64/64 window 8192" },
    };
    CHECK_RULES(rules);

    model_description description;
    read_good("{" KIND("gemma3_text") ", " LAYERS(6) "}", &description);
    ck_assert_uint_eq(description.model.max_context, 131072);
    description_free(&description);
}
END_TEST

#define FSF "\"layer_types\": [\"full_attention\", \"sliding_attention\", \"full_attention\"]"

START_TEST(windows)
{
    static const rule rules[] = {
        { "{" NEW ", " FSF ", \"sliding_window\": 9}", "full 2 2x64/64, sliding 1 2x64/64 window 9" },
        { "{" NEW ", " FSF ", " LAYERS(3) ", \"sliding_window\": 4294967295}", "full 2 2x64/64, sliding 1 2x64/64 window 4294967295" },
        { "{" NEW ", \"layer_types\": [\"full_attention\"], \"sliding_window\": 9}", "full 1 2x64/64" },
        { "{" NEW ", " LAYERS(2) ", \"sliding_window\": null}", "full 2 2x64/64" },
        { "{" NEW ", " LAYERS(5) ", \"sliding_window\": 9, \"sliding_window_pattern\": 2}", "full 2 2x64/64, sliding 3 2x64/64 window 9" },
        { "{" NEW ", " LAYERS(5) ", \"sliding_window\": 9, \"sliding_window_pattern\": 1}", "full 5 2x64/64" },
        { "{" NEW ", " LAYERS(5) ", \"sliding_window\": null, \"sliding_window_pattern\": 2}", "full 5 2x64/64" },
        { "{" KIND("gemma4") ", " ROWS ", " LAYERS(5) ", \"sliding_window\": 9, \"sliding_window_pattern\": 2}",
          "full 3 2x512/512, sliding 2 2x64/64 window 9" },
        { "{" NEW ", " LAYERS(8) ", \"sliding_window\": 9, \"sliding_window_pattern\": \"LLG\"}", "full 3 2x64/64, sliding 5 2x64/64 window 9" },
        { "{" NEW ", " LAYERS(3) ", \"attention_chunk_size\": 16, \"no_rope_layers\": [1, 0, 1]}", "full 1 2x64/64, sliding 2 2x64/64 window 16" },
        { "{" NEW ", " LAYERS(3) ", \"attention_chunk_size\": null, \"no_rope_layers\": [1, 0, 1]}", "full 3 2x64/64" },
        { "{" KIND("llama4") ", " ROWS ", " LAYERS(4) ", \"no_rope_layers\": []}", "full 1 2x64/64, sliding 3 2x64/64 window 8192" },
        { "{" NEW ", \"layer_types\": [\"chunked_attention\", \"full_attention\"], \"attention_chunk_size\": 16}",
          "full 1 2x64/64, sliding 1 2x64/64 window 16" },
        /* sliding_window says nothing where use_sliding_window is false. */
        { "{" NEW ", " LAYERS(9) ", \"use_sliding_window\": false, \"sliding_window\": 9, \"max_window_layers\": 7}", "full 9 2x64/64" },
        { "{" KIND("qwen2") ", " ROWS ", " LAYERS(9) ", \"sliding_window\": 9, \"max_window_layers\": 7}", "full 9 2x64/64" },
        { "{" KIND("qwen3") ", " ROWS ", " LAYERS(9) ", \"use_sliding_window\": true, \"sliding_window\": 9, \"max_window_layers\": 7}",
          "full 7 2x64/64, sliding 2 2x64/64 window 9" },
        { "{" KIND("qwen3") ", " ROWS ", " LAYERS(9) ", \"use_sliding_window\": true, \"sliding_window\": 9, \"max_window_layers\": 10}",
          "full 9 2x64/64" },
        /* Every layer of these slides, unless the window holds all that the model can see. */
        { "{" KIND("mixtral") ", " ROWS ", " LAYERS(2) ", \"sliding_window\": 9}", "sliding 2 2x64/64 window 9" },
        { "{" KIND("phi3") ", " ROWS ", " LAYERS(2) ", \"sliding_window\": 2047, \"max_position_embeddings\": 4096}",
          "sliding 2 2x64/64 window 2047" },
        { "{" KIND("phi3") ", " ROWS ", " LAYERS(2) ", \"sliding_window\": 4096, \"max_position_embeddings\": 4096}", "full 2 2x64/64" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(layers_that_store_nothing)
{
    static const rule rules[] = {
        { "{" NEW ", \"layer_types\": [\"attention\", \"mlp\", \"moe\", \"full_attention\"]}", "full 2 2x64/64, none 2" },
        { "{" NEW ", " FSF ", \"sliding_window\": 9, \"num_kv_shared_layers\": 1}", "full 1 read by 1 2x64/64, sliding 1 2x64/64 window 9, none 1" },
        { "{" NEW ", " FSF ", \"sliding_window\": 9, \"num_kv_shared_layers\": 0}", "full 2 2x64/64, sliding 1 2x64/64 window 9" },
        { "{" KIND("nemotron-nas") ", " HIDDEN ", " LAYERS(
              4) ", \"num_key_value_heads\": null, \"block_configs\": ["
                 "{\"attention\": {\"n_heads_in_group\": 4, \"no_op\": false, \"replace_with_linear\": false, \"window_length\": null}, \"ffn\": {}},"
                 "{\"attention\": {\"n_heads_in_group\": null, \"no_op\": true}}, {\"attention\": {\"n_heads_in_group\": 8}},"
                 "{\"attention\": {\"n_heads_in_group\": null, \"replace_with_linear\": true}}]}",
          "full 1 2x64/64, full 1 1x64/64, none 2" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(states)
{
    static const rule rules[] = {
        /* 2 * 2 * 16 + 4 * 32 channels, 4 matrices of 16 x 32 */
        { "{" NEW ", " BF16 ", " DELTA_NET ", \"layer_types\": [\"linear_attention\", \"full_attention\"], \"mamba_ssm_dtype\": \"float32\"}",
          "full 1 2x64/64, recurrent 1 conv 4*192*2 state 2048*4" },
        { "{" NEW ", \"torch_dtype\": \"float16\", " DELTA_NET ", " LAYERS(5) ", \"full_attention_interval\": 2}",
          "full 2 2x64/64, recurrent 3 conv 4*192*2 state 2048*2" },
        { "{\"dtype\": \"float32\", \"text_config\": {" NEW ", " DELTA_NET ", " LAYERS(2) ", \"full_attention_interval\": 2, "
                                                                                          "\"mamba_ssm_dtype\": \"bfloat16\"}}",
          "full 1 2x64/64, recurrent 1 conv 4*192*4 state 2048*2" },
        /* 8 * 16 + 2 * 2 * 32 channels, 8 * 16 * 32 elements */
        { "{" NEW ", " BF16 ", " NEMOTRON ", \"hybrid_override_pattern\": \"ME*-\", \"mamba_ssm_cache_dtype\": \"float32\"}",
          "full 1 2x64/64, recurrent 1 conv 4*256*2 state 4096*4, none 2" },
        { "{" NEW ", " BF16 ", " NEMOTRON ", \"layers_block_type\": [\"mamba2\", \"linear_attention\", \"attention\"]}",
          "full 1 2x64/64, recurrent 2 conv 4*256*2 state 4096*2" },
        /* 8 * 24 + 2 * 32 channels; "auto": 2 * 512 / 8 channels of a head */
        { "{" NEW ", " BF16 ", " GRANITE ", \"mamba_d_head\": 24, \"layer_types\": [\"mamba\", \"attention\"]}",
          "full 1 2x64/64, recurrent 1 conv 4*256*2 state 6144*2" },
        { "{" KIND("bamba") ", " ROWS ", " HIDDEN ", " BF16 ", " GRANITE ", \"mamba_d_head\": \"auto\", " LAYERS(3) ", \"attn_layer_indices\": [2]}",
          "full 1 2x64/64, recurrent 2 conv 4*1088*2 state 32768*2" },
        { "{" NEW ", " GRANITE ", \"layer_types\": [\"attention\"]}", "full 1 2x64/64" },
        /* Both in each layer; mamba_d_ssm instead of mamba_expand * hidden_size */
        { "{" KIND("falcon_h1") ", " ROWS ", " HIDDEN ", " BF16 ", " GRANITE ", \"mamba_d_head\": \"auto\", \"mamba_d_ssm\": 256, " LAYERS(3) "}",
          "full 3 2x64/64, recurrent 3 conv 4*320*2 state 8192*2" },
        /* 2 * 512 channels, 16 elements each */
        { "{" KIND("jamba") ", " ROWS ", " HIDDEN ", " BF16
                            ", " LAYERS(8) ", \"attn_layer_period\": 4, \"attn_layer_offset\": 1, "
                                           "\"mamba_d_conv\": 4, \"mamba_d_state\": 16, \"mamba_expand\": 2, \"mamba_dt_rank\": 9}",
          "full 2 2x64/64, recurrent 6 conv 4*1024*2 state 16384*2" },
        { "{" KIND("lfm2") ", " ROWS ", " HIDDEN ", " BF16 ", " LAYERS(4) ", \"full_attn_idxs\": [1, 3], \"conv_L_cache\": 3}",
          "full 2 2x64/64, recurrent 2 conv 3*512*2" },
        { "{" KIND("lfm2") ", " ROWS ", " HIDDEN ", " BF16
                           ", \"layer_types\": [\"conv\", \"full_attention\"], \"conv_L_cache\": 3, \"conv_dim\": 256}",
          "full 1 2x64/64, recurrent 1 conv 3*256*2" },
        /* Kimi Linear: layers from 1 on, 3 * 4 * 32 channels, 4 matrices of 32 x 32 in float32 */
        { "{" KIND("kimi_linear") ", " BF16 ", " MLA
                                  ", " LAYERS(4) ", \"linear_attn_config\": {\"full_attn_layers\": [4], \"kda_layers\": [1, 2, 3], "
                                                 "\"num_heads\": 4, \"head_dim\": 32, \"short_conv_kernel_size\": 4}}",
          "latent 1 1x512+64/0, recurrent 3 conv 4*384*2 state 4096*4" },
        { "{" KIND("minimax_text_01") ", " ROWS ", " HIDDEN ", " BF16 ", " LAYERS(3) ", \"attn_type_list\": [0, 0, 1]}",
          "full 1 2x64/64, recurrent 2 state 32768*2" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(latent)
{
    static const rule rules[] = {
        { "{" KIND("a") ", " LAYERS(3) ", " MLA "}", LATENT_3 },
        { "{" KIND("a") ", " LAYERS(3) ", " MLA ", \"num_attention_heads\": 16, \"qk_nope_head_dim\": 128, \"v_head_dim\": 96}",
          LATENT_3 " for 16x192/96" },
        { "{" KIND("a") ", " LAYERS(3) ", " MLA ", \"num_attention_heads\": 16, \"v_head_dim\": 96}", LATENT_3 },
        { "{" KIND("a") ", " LAYERS(3) ", " MLA ", \"index_head_dim\": 128, \"index_topk\": 9}", LATENT_3 ", indexer 3 1x128/0 per 1" },
        { "{" NEW ", " LAYERS(3) ", \"kv_lora_rank\": null, \"use_mla\": false}", "full 3 2x64/64" },
        { "{" NEW ", " LAYERS(3) ", " MLA ", \"use_mla\": false, \"num_attention_heads\": 4}", "full 3 2x64/64" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(drafts)
{
    static const rule rules[] = {
        { "{" NEW ", " LAYERS(3) ", \"num_nextn_predict_layers\": 2}", "full 3+2 2x64/64" },
        { "{" NEW ", " LAYERS(3) ", \"mtp_num_hidden_layers\": 1}", "full 3+1 2x64/64" },
        { "{" NEW ", " LAYERS(3) ", \"num_nextn_predict_layers\": 0}", "full 3 2x64/64" },
        { "{" NEW ", " LAYERS(3) ", \"use_mtp\": true, \"num_mtp_modules\": 3, \"mtp_transformer_layers\": 2}", "full 3+6 2x64/64" },
        { "{" NEW ", " LAYERS(3) ", \"use_mtp\": false, \"num_mtp_modules\": 3, \"mtp_transformer_layers\": 2}", "full 3 2x64/64" },
        { "{" KIND("a") ", " LAYERS(3) ", " MLA ", \"num_nextn_predict_layers\": 1, \"index_head_dim\": 128}",
          "latent 3+1 1x512+64/0, indexer 3+1 1x128/0 per 1" },
    };
    CHECK_RULES(rules);
    check_groups("{" NEW ", " FSF ", \"sliding_window\": 9, \"num_nextn_predict_layers\": 1}", "full 2+1 2x64/64, sliding 1 2x64/64 window 9",
                 "the layers for multi-token prediction are taken for full attention");
    check_groups("{" KIND("mistral") ", " ROWS ", " LAYERS(3) ", \"num_nextn_predict_layers\": 1}", "sliding 3 2x64/64 window 4096",
                 "what the layers for multi-token prediction store is not understood, they are left out");
}
END_TEST

#define V4 KIND("deepseek_v4") ", " LAYERS(4) ", \"head_dim\": 512, \"num_key_value_heads\": 1, \"sliding_window\": 128"

START_TEST(compressed)
{
    static const rule rules[] = {
        { "{" V4 ", \"index_head_dim\": 128, \"compress_ratios\": [0, 4, 128, 4]}",
          "sliding 4 1x512/0 window 128, compressed 2 1x512/0 per 4 state 16384*4, compressed 1 1x512/0 per 128 state 131072*4, "
          "indexer 2 1x128/0 per 4 state 4096*4" },
        { "{" V4 ", \"compress_ratios\": [0, 8, 0, 0, 8], \"num_nextn_predict_layers\": 1}",
          "sliding 4+1 1x512/0 window 128, compressed 1+1 1x512/0 per 8 state 8192*4" },
        { "{" V4 ", \"compress_ratios\": [0, 8, 0, 0], \"num_nextn_predict_layers\": 1}",
          "sliding 4+1 1x512/0 window 128, compressed 1 1x512/0 per 8 state 8192*4" },
    };
    CHECK_RULES(rules);
}
END_TEST

START_TEST(contexts)
{
    static const struct {
        const char *fields;
        uint64_t context;
    } files[] = {
        { "\"max_position_embeddings\": 4096", 4096 },
        { "\"n_positions\": 1024", 1024 },
        { "\"max_sequence_length\": 7", 7 },
        { "\"seq_length\": 32768", 32768 },
        { "\"model_max_length\": 1048576", 1048576 },
        { "\"max_position_embeddings\": null", 0 },
        { "\"vocab_size\": 9", 0 },
        { "\"max_seq_len\": 5, \"n_positions\": 6", 6 },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char text[400];
        model_description description;
        snprintf(text, sizeof text, "{" NEW ", " LAYERS(2) ", %s}", files[i].fields);
        read_good(text, &description);
        ck_assert_uint_eq(description.model.max_context, files[i].context);
        ck_assert_str_eq(description.notes, "");
        description_free(&description);
    }
    model_description description;
    read_good("{\"max_position_embeddings\": 9, \"text_config\": {" NEW ", " LAYERS(2) "}}", &description);
    ck_assert_uint_eq(description.model.max_context, 9);
    description_free(&description);
}
END_TEST

/* ---- what is not understood ------------------------------------------------------------------------------------------------------ */

/* A field that sounds as if it changed the cache is a refusal that names it and its value, unless it is to be left out. */
START_TEST(unknown_fields)
{
    static const struct {
        const char *field;
        const char *refusal; /* NULL: means nothing */
    } fields[] = {
        { "\"kv_mixer\": \"mean\"", "kv_mixer is \"mean\", and what that changes in the cache of brand_new is not known" },
        { "\"cla_share_factor\": 2", "cla_share_factor is 2, and" },
        { "\"total_ut_steps\": 4", "total_ut_steps is 4, and" },
        { "\"num_recurrences\": 4", "num_recurrences is 4, and" },
        { "\"loop_num\": 2", "loop_num is 2, and" },
        { "\"index_topk_freq\": 4", "index_topk_freq is 4, and" },
        { "\"index_head_dim\": 128", "index_head_dim is 128, and" }, /* without MLA */
        { "\"mtp_hybrid_override_pattern\": \"*E\"", "mtp_hybrid_override_pattern is \"*E\", and" },
        { "\"rwkv_version\": 7", "rwkv_version is 7, and" },
        { "\"compress_every\": [0, 1]", "compress_every is [0,1], and" },
        { "\"shared_kv\": {\"a\": 1}", "shared_kv is {\"a\":1}, and" },
        { "\"shared_kv\": {}", NULL },
        { "\"shared_kv\": []", NULL },
        { "\"shared_kv\": \"\"", NULL },
        { "\"shared_kv\": null", NULL },
        { "\"shared_kv\": false", NULL },
        { "\"shared_kv\": 0", NULL },
        { "\"shared_kv\": 0.0", NULL },
        { "\"shared_kv\": 0.5", "shared_kv is 0.5, and" },
        { "\"attention_window_size\": 9", "attention_window_size is given, but nothing says which layers slide" },
        { "\"use_cache\": true", NULL },
        { "\"n_shared_experts\": 1", NULL },
        { "\"moe_shared_expert_intermediate_size\": 9", NULL },
        { "\"q_lora_rank\": 1536", NULL },
        { "\"clip_qkv\": 8.0", NULL },
        { "\"rope_scaling\": {\"factor\": 8}", NULL },
        { "\"anything\": 17", NULL },
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        char text[400];
        snprintf(text, sizeof text, "{" NEW ", " LAYERS(2) ", %s}", fields[i].field);
        if (fields[i].refusal)
            check_bad(text, strlen(text), fields[i].refusal);
        else
            check_groups(text, "full 2 2x64/64", "");
    }

    static const char text[] = "{" NEW ", " LAYERS(2) ", \"kv_\\u00fc\\n\": 1, \"ssm\": 1}";
    static const char *const assumed[] = { "kv_\u00fc\n", "ssm", NULL }, *const not_there[] = { "ssn", NULL };
    model_description description = { .assumed = assumed };
    error_text error;
    check_bad(text, strlen(text), "--assume kv_\u00fc\\x0a=ignored");
    ck_assert_int_eq(model_read_config(text, strlen(text), &description, &error), 0);
    ck_assert_str_eq(description.notes, "kv_\u00fc\\x0a is left out, as --assume says; ssm is left out, as --assume says");
    description_free(&description);
    description = (model_description){ .assumed = not_there };
    ck_assert_int_eq(model_read_config("{" NEW ", " LAYERS(2) "}", strlen("{" NEW ", " LAYERS(2) "}"), &description, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "no field ssn"));
}
END_TEST

/* ---- the models of the catalogue ------------------------------------------------------------------------------------------------- */

/* The file gives the catalogue's groups and context, and nothing is left to note. */
static void check_catalogue(const char *text, const char *name)
{
    model_description description;
    char found[1024], expected[1024];
    const kvt_model *model = kvt_catalogue_find(name);
    ck_assert_ptr_nonnull(model);
    read_good(text, &description);
    show_groups(&description.model, found, sizeof found);
    show_groups(model, expected, sizeof expected);
    TEST_REQUIRE(strcmp(found, expected) == 0, "%s is %s\nnot %s", name, found, expected);
    TEST_REQUIRE(!*description.notes, "%s: %s", name, description.notes);
    ck_assert_uint_eq(description.model.max_context, model->max_context);
    description_free(&description);
}

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
#define NEMOTRON_FIELDS                                                                                                                              \
    "\"model_type\": \"nemotron_h\", \"hidden_size\": 2688, \"num_attention_heads\": 32, \"num_key_value_heads\": 2, \"head_dim\": 128, "            \
    "\"mamba_num_heads\": 64, \"mamba_head_dim\": 64, \"ssm_state_size\": 128, \"n_groups\": 8, \"conv_kernel\": 4, "                                \
    "\"mamba_ssm_cache_dtype\": \"float32\", \"torch_dtype\": \"bfloat16\", \"max_position_embeddings\": 262144, \"sliding_window\": null"

START_TEST(hybrids)
{
    static const char pattern[] = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
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

    snprintf(list, sizeof list, "%s", "");
    for (int i = 0; i < 40; i++)
        strcat(list, i % 10 == 5 ? (i ? ", \"attention\"" : "\"attention\"") : (i ? ", \"mamba\"" : "\"mamba\""));
    snprintf(text, sizeof text,
             "{\"model_type\": \"granitemoehybrid\", \"num_hidden_layers\": 40, \"hidden_size\": 1536, \"num_attention_heads\": 12, "
             "\"num_key_value_heads\": 4, \"mamba_n_heads\": 48, \"mamba_d_head\": 64, \"mamba_d_state\": 128, \"mamba_n_groups\": 1, "
             "\"mamba_d_conv\": 4, \"mamba_expand\": 2, \"mamba_chunk_size\": 256, \"mamba_conv_bias\": true, \"mamba_proj_bias\": false, "
             "\"shared_intermediate_size\": 1024, \"torch_dtype\": \"bfloat16\", \"max_position_embeddings\": 131072, \"layer_types\": [%s]}",
             list);
    check_catalogue(text, "granite-4.0-h-tiny");
    check_catalogue("{\"model_type\": \"lfm2\", \"num_hidden_layers\": 16, \"hidden_size\": 2048, \"num_attention_heads\": 32, "
                    "\"num_key_value_heads\": 8, \"full_attn_idxs\": [2, 5, 8, 10, 12, 14], \"conv_L_cache\": 3, \"conv_dim\": 2048, "
                    "\"conv_dim_out\": 2048, \"conv_bias\": false, \"torch_dtype\": \"bfloat16\", \"max_position_embeddings\": 128000}",
                    "LFM2-1.2B");
}
END_TEST

START_TEST(others)
{
    static const struct {
        const char *name, *text;
    } models[] = {
        { "GLM-4.7-Flash", "{\"model_type\": \"glm4_moe_lite\", \"num_hidden_layers\": 47, \"hidden_size\": 2048, \"num_attention_heads\": 20, "
                           "\"num_key_value_heads\": 20, \"kv_lora_rank\": 512, \"qk_rope_head_dim\": 64, \"qk_nope_head_dim\": 192, "
                           "\"v_head_dim\": 256, \"q_lora_rank\": 768, \"num_nextn_predict_layers\": 1, \"max_position_embeddings\": 202752}" },
        { "Qwen3-30B-A3B-Instruct-2507",
          "{\"model_type\": \"qwen3_moe\", \"num_hidden_layers\": 48, \"hidden_size\": 2048, \"num_attention_heads\": 32, "
          "\"num_key_value_heads\": 4, \"head_dim\": 128, \"sliding_window\": null, \"use_sliding_window\": false, "
          "\"max_window_layers\": 48, \"max_position_embeddings\": 262144}" },
        { "gemma-3-1b-it", "{\"model_type\": \"gemma3_text\", \"num_hidden_layers\": 26, \"num_key_value_heads\": 1, \"head_dim\": 256, "
                           "\"sliding_window\": 512, \"sliding_window_pattern\": 6, \"max_position_embeddings\": 32768}" },
        /* Published files of the larger ones leave out what the class says. */
        { "gemma-3-4b-it", "{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", \"hidden_size\": 2560, "
                           "\"intermediate_size\": 10240, \"num_hidden_layers\": 34, \"sliding_window\": 1024}}" },
        { "gemma-3-27b-it",
          "{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", \"head_dim\": 128, \"num_hidden_layers\": 62, "
          "\"num_attention_heads\": 32, \"num_key_value_heads\": 16, \"sliding_window\": 1024}}" },
        { "gemma-3n-E4B", "{\"model_type\": \"gemma3n\", \"text_config\": {\"model_type\": \"gemma3n_text\", \"num_hidden_layers\": 35, "
                          "\"activation_sparsity_pattern\": [0.95, 0.0], \"num_kv_shared_layers\": 15}}" },
        { "gemma-3n-E2B", "{\"model_type\": \"gemma3n\", \"text_config\": {\"model_type\": \"gemma3n_text\", \"num_hidden_layers\": 30, "
                          "\"num_kv_shared_layers\": 10}}" },
        { "Phi-4-mini-instruct", "{\"model_type\": \"phi3\", \"num_hidden_layers\": 32, \"hidden_size\": 3072, \"num_attention_heads\": 24, "
                                 "\"num_key_value_heads\": 8, \"sliding_window\": 262144, \"max_position_embeddings\": 131072}" },
        { "SmolLM3-3B", "{\"model_type\": \"smollm3\", \"num_hidden_layers\": 36, \"hidden_size\": 2048, \"num_attention_heads\": 16, "
                        "\"num_key_value_heads\": 4, \"no_rope_layers\": [1, 1, 1, 0], \"no_rope_layer_interval\": 4, \"sliding_window\": null, "
                        "\"use_sliding_window\": false, \"max_position_embeddings\": 65536}" },
        { "Kimi-K2.5", "{\"model_type\": \"kimi_k25\", \"text_config\": {\"model_type\": \"kimi_k2\", \"num_hidden_layers\": 61, "
                       "\"kv_lora_rank\": 512, \"qk_rope_head_dim\": 64, \"qk_nope_head_dim\": 128, \"v_head_dim\": 128, "
                       "\"num_attention_heads\": 64, \"num_nextn_predict_layers\": 0, \"max_position_embeddings\": 262144}}" },
        { "GLM-5", "{\"model_type\": \"glm_moe_dsa\", \"num_hidden_layers\": 78, \"kv_lora_rank\": 512, \"qk_rope_head_dim\": 64, "
                   "\"qk_nope_head_dim\": 192, \"v_head_dim\": 256, \"num_attention_heads\": 64, \"num_nextn_predict_layers\": 1, "
                   "\"index_head_dim\": 128, \"index_n_heads\": 32, \"index_topk\": 2048, \"max_position_embeddings\": 202752}" },
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check_catalogue(models[i].text, models[i].name);
}
END_TEST

/* ---- published files ------------------------------------------------------------------------------------------------------------- */

/* The caches of published models, with what only the reader says: layers for drafts, widths of engines without MLA. */
static const struct {
    const char *file, *groups;
    uint64_t context;
} published_files[] = {
    { "DeepSeek-V3.2", "latent 61+1 1x512+64/0 for 128x192/128, indexer 61+1 1x128/0 per 1", 163840 },
    { "DeepSeek-V3", "latent 61+1 1x512+64/0 for 128x192/128", 163840 },
    { "DeepSeek-V4-Flash",
      "sliding 43+1 1x448+64/0 window 128, compressed 21 1x448+64/0 per 4 state 16384*4, compressed 20 1x448+64/0 per 128 state 131072*4, "
      "indexer 21 1x128/0 per 4 state 4096*4",
      1048576 },
    { "Kimi-K2-Instruct", "latent 61 1x512+64/0 for 64x192/128", 131072 },
    { "Meta-Llama-3.1-70B", "full 80 8x128/128", 131072 },
    { "Meta-Llama-3.1-8B", "full 32 8x128/128", 131072 },
    { "MiniMax-M2.5", "full 62+3 8x128/128", 196608 },
    { "Mixtral-8x7B-v0.1", "full 32 8x128/128", 32768 },
    { "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "full 6 2x128/128, recurrent 23 conv 4*6144*2 state 524288*4, none 23", 262144 },
    { "Nemotron-H-56B-Base-8K", "full 10 8x128/128, recurrent 54 conv 4*20480*2 state 4194304*4, none 54", 8192 },
    { "Qwen3-0.6B", "full 28 8x128/128", 40960 },
    { "Qwen3-30B-A3B", "full 48 4x128/128", 40960 },
    { "Qwen3-8B", "full 36 8x128/128", 40960 },
    { "Qwen3-VL-8B-Instruct", "full 36 8x128/128", 262144 },
    { "Qwen3.5-27B", "full 16+1 4x256/256, recurrent 48 conv 4*10240*2 state 786432*4", 262144 },
    { "Qwen3.5-35B-A3B", "full 10+1 2x256/256, recurrent 30 conv 4*8192*2 state 524288*4", 262144 },
    { "gemma-4-26B-A4B", "full 5 2x512/512, sliding 25 8x256/256 window 1024", 262144 },
    { "gpt-oss-20b", "full 12 8x64/64, sliding 12 8x64/64 window 128", 131072 },
};
#define N_PUBLISHED (sizeof published_files / sizeof published_files[0])

static const char *published_path(size_t i)
{
    static char path[1024];
    snprintf(path, sizeof path, KVT_SHARED_DIR "/configs/%s.json", published_files[i].file);
    return path;
}

/* Families whose files look like no other's: what the modelling code of each keeps. Fields as in published files, cut to what matters. */
START_TEST(families)
{
    static const struct {
        const char *config, *groups;
    } files[] = {
        { "{" KIND(
              "mamba") ", \"hidden_size\": 2560, \"intermediate_size\": 5120, \"num_hidden_layers\": 64, \"state_size\": 16, \"conv_kernel\": 4, "
                       "\"expand\": 2, \"time_step_rank\": 160, \"torch_dtype\": \"float32\"}",
          "recurrent 64 conv 4*5120*4 state 81920*4" },
        { "{" KIND("falcon_mamba") ", \"hidden_size\": 4096, \"expand\": 2, \"num_hidden_layers\": 64, \"torch_dtype\": \"bfloat16\"}",
          "recurrent 64 conv 4*8192*2 state 131072*2" },
        { "{" KIND(
              "mamba2") ", \"hidden_size\": 4096, \"num_heads\": 128, \"head_dim\": 64, \"n_groups\": 8, \"state_size\": 128, \"conv_kernel\": 4, "
                        "\"num_hidden_layers\": 64, \"torch_dtype\": \"bfloat16\"}",
          "recurrent 64 conv 4*10240*2 state 1048576*2" },
        { "{" KIND("rwkv") ", \"hidden_size\": 4096, \"attention_hidden_size\": 4096, \"num_hidden_layers\": 32, \"torch_dtype\": \"float16\"}",
          "recurrent 32 conv 2*8192*2 state 12288*4" },
        { "{" KIND("rwkv6") ", \"hidden_size\": 2048, \"attention_hidden_size\": 2048, \"head_size\": 64, \"num_hidden_layers\": 24, "
                            "\"torch_dtype\": \"bfloat16\"}",
          "recurrent 24 conv 2*4096*2 state 131072*4" },
        { "{" KIND(
              "recurrent_gemma") ", \"attention_window_size\": 2048, \"block_types\": [\"recurrent\", \"recurrent\", \"attention\"], "
                                 "\"conv1d_width\": 4, \"head_dim\": 256, \"hidden_size\": 2560, \"lru_width\": 2560, \"num_attention_heads\": 10, "
                                 "\"num_hidden_layers\": 26, \"num_key_value_heads\": 1, \"torch_dtype\": \"float32\"}",
          "sliding 8 1x256/256 window 2048, recurrent 18 conv 4*2560*4 state 2560*4" },
        { "{" KIND(
              "zamba") ", \"hidden_size\": 3712, \"num_hidden_layers\": 7, \"num_attention_heads\": 16, \"attn_layer_period\": 6, "
                       "\"attn_layer_offset\": 4, \"mamba_d_state\": 16, \"mamba_d_conv\": 4, \"mamba_expand\": 2, \"torch_dtype\": \"bfloat16\"}",
          "full 1 16x464/464, recurrent 7 conv 4*7424*2 state 118784*2" },
        { "{" KIND(
              "zamba2") ", \"conv_dimension\": 4, \"expansion_factor\": 2, \"hidden_size\": 3584, \"kv_channels\": 112, \"layers_block_type\": "
                        "[\"mamba\", \"hybrid\", \"mamba\"], \"lora_rank\": 128, \"mamba_headdim\": 64, \"mamba_ngroups\": 2, "
                        "\"num_attention_heads\": 32, "
                        "\"num_hidden_layers\": 3, \"num_key_value_heads\": 32, \"num_mem_blocks\": 2, \"num_query_groups\": 32, \"sliding_window\": "
                        "null, "
                        "\"state_size\": 64, \"use_mem_rope\": true, \"use_shared_block_lora\": true, \"gated_linear_unit\": true, \"torch_dtype\": "
                        "\"bfloat16\"}",
          "full 1 32x224/224, recurrent 3 conv 4*7424*2 state 458752*2" },
        { "{" KIND(
              "bailing_moe_linear") ", \"head_dim\": 128, \"layer_group_size\": 5, \"group_norm_size\": 4, \"num_attention_heads\": 16, "
                                    "\"num_key_value_heads\": 4, \"num_hidden_layers\": 22, \"num_nextn_predict_layers\": 0, \"linear_silu\": false}",
          "full 6 4x128/128, recurrent 16 state 262144*4" },
        { "{" KIND("hunyuan") ", \"attention_head_dim\": 128, \"use_cla\": true, \"cla_share_factor\": 2, \"hidden_size\": 6400, "
                              "\"num_attention_heads\": 80, \"num_key_value_heads\": 8, \"num_hidden_layers\": 5}",
          "full 3 read by 2 8x128/128, none 2" },
        { "{" KIND("longcat_flash") ", \"num_layers\": 28, " MLA
                                    ", \"num_attention_heads\": 64, \"qk_nope_head_dim\": 128, \"v_head_dim\": 128, \"hidden_size\": 6144, "
                                    "\"mla_scale_q_lora\": true, \"mla_scale_kv_lora\": true}",
          "latent 56 1x512+64/0 for 64x192/128" },
        { "{" KIND("olmo3") ", " ROWS ", " LAYERS(5) ", \"max_position_embeddings\": 65536}", "full 1 2x64/64, sliding 4 2x64/64 window 4096" },
        { "{" KIND("gpt_oss") ", " ROWS ", " LAYERS(5) "}", "full 2 2x64/64, sliding 3 2x64/64 window 128" },
        { "{" KIND("qwen3_next") ", " ROWS
                                 ", " LAYERS(8) ", " BF16 ", \"linear_conv_kernel_dim\": 4, \"linear_num_key_heads\": 2, "
                                                "\"linear_key_head_dim\": 16, \"linear_num_value_heads\": 4, \"linear_value_head_dim\": 32}",
          "full 2 2x64/64, recurrent 6 conv 4*192*2 state 2048*2" },
        { "{" KIND("nemotron_h") ", " ROWS ", " LAYERS(2) ", " BF16 ", \"hybrid_override_pattern\": \"M*\", \"conv_kernel\": 4, "
                                                          "\"mamba_num_heads\": 4, \"mamba_head_dim\": 16, \"n_groups\": 2, \"ssm_state_size\": 32}",
          "full 1 2x64/64, recurrent 1 conv 4*192*2 state 2048*4" },
        { "{" KIND("gemma4_text") ", " ROWS ", " LAYERS(
              3) ", \"sliding_window\": 9, \"global_head_dim\": 128, \"layer_types\": [\"sliding_attention\", "
                 "\"full_attention\", \"full_attention\"], \"per_layer_config\": {\"01\": {\"head_dim\": 512}, \"02\": {\"head_dim\": 512, "
                 "\"num_key_value_heads\": 1}}}",
          "full 1 2x512/512, full 1 1x512/512, sliding 1 2x64/64 window 9" },
        { "{" KIND("minimax") ", \"layer_types\": [\"linear_attention\", \"full_attention\"], \"num_attention_heads\": 64, \"head_dim\": 128, "
                              "\"num_key_value_heads\": 8, \"torch_dtype\": \"bfloat16\"}",
          "full 1 8x128/128, recurrent 1 state 1048576*2" },
        { "{" KIND("minicpm3") ", \"hidden_size\": 2560, \"num_hidden_layers\": 62, \"num_attention_heads\": 40, \"num_key_value_heads\": 40, "
                               "\"qk_nope_head_dim\": 64, \"qk_rope_head_dim\": 32, \"q_lora_rank\": 768, \"kv_lora_rank\": 256}",
          "latent 62 1x256+32/0 for 40x96/64" },
        { "{" KIND("ouro") ", \"head_dim\": 128, \"num_attention_heads\": 16, \"num_key_value_heads\": 16, \"num_hidden_layers\": 24, "
                           "\"max_window_layers\": 24, \"sliding_window\": null, \"use_sliding_window\": false, \"total_ut_steps\": 4}",
          "full 96 16x128/128" },
        { "{" KIND("iquestloopcoder") ", \"head_dim\": 128, \"num_attention_heads\": 40, \"num_key_value_heads\": 8, \"num_hidden_layers\": 80, "
                                      "\"loop_num\": 2, \"loop_window_size\": 64}",
          "full 80 8x128/128, sliding 80 8x128/128 window 64" },
        { "{" KIND("chatglm") ", \"hidden_size\": 4096, \"kv_channels\": 128, \"multi_query_attention\": true, \"multi_query_group_num\": 2, "
                              "\"num_attention_heads\": 32, \"num_layers\": 28, \"seq_length\": 8192}",
          "full 28 2x128/128" },
        { "{" KIND("llava") ", \"text_config\": {\"model_type\": \"llama\", \"vocab_size\": 32064}}", "full 32 32x128/128" },
        { "{" KIND("llava") ", \"hidden_size\": 4096, \"num_attention_heads\": 32, \"num_hidden_layers\": 32, \"num_key_value_heads\": 32, "
                            "\"mm_vision_select_layer\": -2}",
          "full 32 32x128/128" },
        { "{" KIND("glm_moe_dsa") ", " MLA
                                  ", \"num_hidden_layers\": 4, \"index_head_dim\": 128, \"index_topk_freq\": 4, \"index_skip_topk_offset\": 3, "
                                  "\"indexer_types\": [\"full\", \"shared\", \"shared\", \"full\"], \"num_nextn_predict_layers\": 1}",
          "latent 4+1 1x512+64/0, indexer 2+1 read by 2 1x128/0 per 1" },
        { "{" KIND("minimax_m3") ", \"head_dim\": 128, \"num_attention_heads\": 64, \"num_key_value_heads\": 4, \"num_hidden_layers\": 3, "
                                 "\"sparse_attention_config\": {\"sparse_attention_freq\": [0, 1, 1], \"sparse_index_dim\": 128}}",
          "full 3 4x128/128, indexer 2 1x128/0 per 1" },
        { "{" KIND("gpt_neo") ", \"attention_types\": [[[\"global\", \"local\"], 2]], \"hidden_size\": 2048, \"num_heads\": 16, \"num_layers\": 4, "
                              "\"window_size\": 256}",
          "full 2 16x128/128, sliding 2 16x128/128 window 256" },
        { "{" KIND("openelm") ", \"head_dim\": 64, \"num_transformer_layers\": 3, \"num_kv_heads\": [3, 3, 5], \"num_query_heads\": [12, 12, 20]}",
          "full 2 3x64/64, full 1 5x64/64" },
        { "{" KIND("dbrx") ", \"attn_config\": {\"kv_n_heads\": 8, \"clip_qkv\": 8}, \"d_model\": 6144, \"n_heads\": 48, \"n_layers\": 40}",
          "full 40 8x128/128" },
        { "{" KIND("mpt") ", \"attn_config\": {\"attn_type\": \"multihead_attention\"}, \"d_model\": 4096, \"n_heads\": 32, \"n_layers\": 32}",
          "full 32 32x128/128" },
        { "{" KIND("jetmoe") ", \"kv_channels\": 128, \"num_key_value_heads\": 16, \"num_attention_heads\": 32, \"num_hidden_layers\": 24, "
                             "\"hidden_size\": 2048}",
          "full 24 16x128/128" },
        { "{" KIND(
              "smallthinker") ", \"head_dim\": 128, \"num_key_value_heads\": 2, \"num_hidden_layers\": 4, \"sliding_window_layout\": [0, 1, 1, 1], "
                              "\"sliding_window_size\": 4096}",
          "full 1 2x128/128, sliding 3 2x128/128 window 4096" },
        { "{" KIND("step3p5") ", \"head_dim\": 128, \"num_attention_heads\": 64, \"num_attention_groups\": 8, \"num_hidden_layers\": 2, "
                              "\"layer_types\": [\"full_attention\", \"sliding_attention\"], \"sliding_window\": 512, \"attention_other_setting\": "
                              "{\"num_attention_heads\": 96, \"num_attention_groups\": 4, \"head_dim\": 64}}",
          "full 1 8x128/128, sliding 1 4x64/64 window 512" },
        { "{" KIND("afm7") ", \"num_layers\": 5, \"num_kv_reuse_layers\": 2, \"hidden_dim\": 2048, \"num_heads\": 16, \"num_kv_heads\": 2}",
          "full 3 read by 2 2x128/128, none 2" },
        { "{" KIND("t5") ", \"is_encoder_decoder\": true, \"d_kv\": 64, \"d_model\": 768, \"num_heads\": 12, \"num_layers\": 12, "
                         "\"num_decoder_layers\": 6, \"n_positions\": 512}",
          "full 6 12x64/64, cross 6 12x64/64" },
        { "{" KIND("whisper") ", \"is_encoder_decoder\": true, \"d_model\": 1280, \"decoder_layers\": 4, \"decoder_attention_heads\": 20, "
                              "\"max_source_positions\": 1500, \"max_target_positions\": 448}",
          "full 4 20x64/64, cross 4 20x64/64" },
        { "{" KIND("mllama") ", \"text_config\": {\"model_type\": \"mllama_text_model\", \"cross_attention_layers\": [1, 3], \"hidden_size\": 4096, "
                             "\"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"num_hidden_layers\": 5}, \"vision_config\": "
                             "{\"image_size\": 560, "
                             "\"patch_size\": 14, \"max_num_tiles\": 4}}",
          "full 3 8x128/128, cross 2 8x128/128" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        model_description description = { 0 };
        error_text error = { "" };
        char found[1024];
        TEST_REQUIRE(model_read_config(files[i].config, strlen(files[i].config), &description, &error) == 0, "%s\nof %s", error.text,
                     files[i].config);
        show_groups(&description.model, found, sizeof found);
        TEST_REQUIRE(strcmp(found, files[i].groups) == 0, "%s\nnot %s\nof %s", found, files[i].groups, files[i].config);
        ck_assert_msg(!description.unknown_type, "%s", files[i].config);
        ck_assert_str_eq(description.notes, "");
        description_free(&description);
    }
}
END_TEST

/* What is said of an encoder's tokens, of the type, and of what the checkpoint was made for. */
START_TEST(declarations)
{
    model_description d;
    read_good("{" NEW ", " LAYERS(2) "}", &d);
    ck_assert(d.unknown_type);
    ck_assert_str_eq(d.model.model_type, "brand_new");
    ck_assert_ptr_null(d.model.kv_type);
    description_free(&d);
    read_good("{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", \"num_hidden_layers\": 6}}", &d);
    ck_assert(!d.unknown_type);
    ck_assert_str_eq(d.model.model_type, "gemma3");
    ck_assert_ptr_null(d.model.architecture);
    description_free(&d);
    read_good("{" KIND("llama") ", " ROWS ", " LAYERS(2) ", \"quantization_config\": {\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\"}}}",
              &d);
    ck_assert_str_eq(d.model.kv_type, "fp8");
    description_free(&d);
    read_good("{" KIND("llama") ", " ROWS ", " LAYERS(2) ", \"quantization_config\": {\"kv_cache_quant_algo\": \"NVFP4\"}}", &d);
    ck_assert_str_eq(d.model.kv_type, "nvfp4");
    description_free(&d);
    read_good("{" KIND("llama") ", " ROWS ", " LAYERS(2) ", \"quantization_config\": {\"kv_cache_scheme\": null}}", &d);
    ck_assert_ptr_null(d.model.kv_type);
    description_free(&d);
    static const char odd[] =
        "{" KIND("llama") ", " ROWS ", " LAYERS(2) ", \"quantization_config\": {\"kv_cache_scheme\": {\"num_bits\": 3, \"type\": \"int\"}}}";
    check_bad(odd, sizeof odd - 1, "quantization_config.kv_cache_scheme is an object, but must be a float of 8 bits");
    static const char whisper[] = "{" KIND("whisper") ", \"d_model\": 384, \"decoder_layers\": 4, \"decoder_attention_heads\": 6, "
                                                      "\"max_source_positions\": 1500}";
    read_good(whisper, &d);
    ck_assert_uint_eq(d.model.encoder_tokens, 1500);
    description_free(&d);
}
END_TEST

START_TEST(published)
{
    test_needs(KVT_SHARED_DIR "/configs");
    for (size_t i = 0; i < N_PUBLISHED; i++) {
        model_description description = { 0 };
        error_text error = { "" };
        char found[1024], expected[1024];
        const int result = model_read_file(published_path(i), &description, &error);
        TEST_REQUIRE(result == 0, "%s: %s", published_files[i].file, error.text);
        check_sizable(&description);
        show_groups(&description.model, found, sizeof found);
        ck_assert_str_eq(found, published_files[i].groups);
        ck_assert_str_eq(description.notes, "");
        ck_assert_str_eq(description.model.name, published_files[i].file);
        ck_assert_uint_eq(description.model.max_context, published_files[i].context);

        /* The catalogue has no layers for drafts where their weights are not published: MiniMax. */
        const kvt_model *model = kvt_catalogue_find(published_files[i].file);
        if (model && strcmp(published_files[i].file, "MiniMax-M2.5") != 0) {
            show_groups(model, expected, sizeof expected);
            ck_assert_str_eq(found, expected);
        }
        description_free(&description);
    }
}
END_TEST

/* ---- which fields matter --------------------------------------------------------------------------------------------------------- */

/* The object that the reader takes the fields from. */
static json_t *text_part(json_t *root)
{
    json_t *text = json_object_get(root, "text_config");
    return text ? text : root;
}

/* Another value of the same type. */
static json_t *changed_value(const json_t *value)
{
    static const struct {
        const char *old, *new;
    } words[] = { { "float32", "bfloat16" },
                  { "bfloat16", "float32" },
                  { "full_attention", "sliding_attention" },
                  { "attention", "mamba" },
                  { "mamba", "attention" },
                  { "sliding_attention", "full_attention" },
                  { "linear_attention", "full_attention" } };
    if (json_is_integer(value))
        return json_integer(json_integer_value(value) + 1);
    if (json_is_boolean(value))
        return json_boolean(!json_is_true(value));
    if (json_is_array(value)) {
        json_t *list = json_deep_copy(value), *first = json_array_get(list, 0);
        json_array_set_new(list, 0, json_is_integer(first) ? json_integer(json_integer_value(first) == 0 ? 1 : 0) : changed_value(first));
        return list;
    }
    if (json_is_object(value)) /* linear_attn_config: no field of its own */
        return json_object();
    const char *text = json_string_value(value);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i].old) == 0)
            return json_string(words[i].new);
    }
    json_t *letters = json_string(text); /* hybrid_override_pattern */
    char *copy = strdup(text);
    copy[0] = copy[0] == '*' ? 'M' : '*';
    json_string_set(letters, copy);
    free(copy);
    return letters;
}

/* The groups after the field has another value, or the error. */
static void groups_with(const char *config, const char *field, char *groups, size_t size)
{
    json_t *root = json_loads(config, 0, NULL);
    ck_assert_ptr_nonnull(root);
    json_t *text = text_part(root), *old = json_object_get(text, field);
    TEST_REQUIRE(old, "no %s in %s", field, config);
    json_object_set_new(text, field, changed_value(old));
    char *changed = json_dumps(root, 0);
    json_decref(root);

    model_description description;
    error_text error = { "" };
    if (read_bytes(changed, strlen(changed), &description, &error) == 0)
        show_groups(&description.model, groups, size);
    else
        snprintf(groups, size, "error: %s", error.text);
    description_free(&description);
    free(changed);
}

/* `matter` and `do_not` are names of fields, separated by spaces. */
static void check_fields(const char *config, const char *matter, const char *do_not)
{
    model_description description;
    char original[1024], changed[1024], names[1000];
    read_good(config, &description);
    show_groups(&description.model, original, sizeof original);
    description_free(&description);
    for (int pass = 0; pass < 2; pass++) {
        snprintf(names, sizeof names, "%s", pass ? do_not : matter);
        char *rest = names;
        for (char *name; (name = strtok_r(rest, " ", &rest));) {
            groups_with(config, name, changed, sizeof changed);
            TEST_REQUIRE((strcmp(original, changed) == 0) == (pass == 1), "%s: %s\nbecomes %s\nof %.500s", name, original, changed, config);
        }
    }
}

/* A file's bytes, with a zero behind them. */
static char *load_text(const char *path, size_t *length)
{
    file_map file;
    error_text error = { "" };
    ck_assert_msg(file_map_open(&file, path, &error) == 0, "%s: %s", path, error.text);
    char *text = test_malloc(file.size + 1);
    memcpy(text, file.data, file.size);
    text[file.size] = '\0';
    *length = file.size;
    file_map_close(&file);
    return text;
}

#define SIZES "vocab_size intermediate_size hidden_size "

START_TEST(fields_of_published_files)
{
    static const char attention[] = "num_hidden_layers num_key_value_heads head_dim";
    static const char delta_net[] = "layer_types num_key_value_heads head_dim linear_conv_kernel_dim linear_num_key_heads linear_key_head_dim "
                                    "linear_num_value_heads linear_value_head_dim mamba_ssm_dtype dtype mtp_num_hidden_layers num_hidden_layers";
    static const char mla[] = "num_hidden_layers kv_lora_rank qk_rope_head_dim qk_nope_head_dim v_head_dim num_attention_heads";
    static const char mamba2[] = "num_hidden_layers num_key_value_heads hybrid_override_pattern conv_kernel mamba_num_heads mamba_head_dim n_groups "
                                 "ssm_state_size torch_dtype";
    static const struct {
        const char *file, *matter, *also, *do_not;
    } files[] = {
        { "Meta-Llama-3.1-8B", "num_hidden_layers num_key_value_heads hidden_size num_attention_heads", "",
          "vocab_size intermediate_size max_position_embeddings torch_dtype" },
        { "Mixtral-8x7B-v0.1", "num_hidden_layers num_key_value_heads hidden_size num_attention_heads", "",
          "vocab_size intermediate_size num_local_experts num_experts_per_tok" },
        { "MiniMax-M2.5", attention, "num_mtp_modules mtp_transformer_layers use_mtp",
          SIZES "num_attention_heads num_local_experts num_experts_per_tok rotary_dim" },
        { "Qwen3-0.6B", attention, "", SIZES "num_attention_heads max_window_layers torch_dtype" },
        { "Qwen3-30B-A3B", attention, "use_sliding_window", SIZES "num_attention_heads num_experts num_experts_per_tok moe_intermediate_size" },
        { "Qwen3-VL-8B-Instruct", attention, "", SIZES "num_attention_heads" },
        { "Qwen3.5-27B", delta_net, "", SIZES "num_attention_heads full_attention_interval max_position_embeddings" },
        { "Qwen3.5-35B-A3B", delta_net, "", "vocab_size hidden_size num_attention_heads num_experts moe_intermediate_size" },
        { "DeepSeek-V3", mla, "num_nextn_predict_layers", SIZES "num_key_value_heads n_routed_experts n_shared_experts q_lora_rank" },
        { "DeepSeek-V3.2", mla, "num_nextn_predict_layers index_head_dim", SIZES "n_routed_experts index_n_heads index_topk" },
        { "Kimi-K2-Instruct", mla, "num_nextn_predict_layers", SIZES "num_key_value_heads n_routed_experts" },
        { "DeepSeek-V4-Flash", attention, "sliding_window index_head_dim qk_rope_head_dim compress_ratios num_nextn_predict_layers",
          "vocab_size hidden_size num_attention_heads n_routed_experts q_lora_rank o_lora_rank index_topk" },
        { "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", mamba2, "head_dim mamba_ssm_cache_dtype",
          SIZES "num_attention_heads n_routed_experts chunk_size expand" },
        { "gemma-4-26B-A4B", "layer_types num_hidden_layers num_key_value_heads num_global_key_value_heads head_dim global_head_dim sliding_window",
          "num_kv_shared_layers attention_k_eq_v", SIZES "num_attention_heads num_experts moe_intermediate_size dtype" },
        { "gpt-oss-20b", attention, "layer_types sliding_window", SIZES "num_attention_heads num_local_experts experts_per_token" },
    };
    test_needs(KVT_SHARED_DIR "/configs");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[1024], matter[1000];
        size_t length;
        snprintf(path, sizeof path, KVT_SHARED_DIR "/configs/%s.json", files[i].file);
        char *text = load_text(path, &length);
        snprintf(matter, sizeof matter, "%s %s", files[i].matter, files[i].also);
        check_fields(text, matter, files[i].do_not);
        free(text);
    }
}
END_TEST

START_TEST(fields_of_rules)
{
    static const struct {
        const char *config, *matter, *do_not;
    } models[] = {
        { "{" KIND("jamba") ", " ROWS ", " HIDDEN ", " BF16
                            ", " LAYERS(9) ", \"attn_layer_period\": 4, \"attn_layer_offset\": 0, "
                                           "\"mamba_d_conv\": 4, \"mamba_d_state\": 16, \"mamba_expand\": 2, \"vocab_size\": 9, \"num_experts\": 16}",
          "num_hidden_layers num_key_value_heads head_dim hidden_size dtype attn_layer_period mamba_d_conv mamba_d_state mamba_expand",
          "vocab_size num_experts num_attention_heads" },
        { "{" KIND("falcon_h1") ", " ROWS ", " HIDDEN ", " BF16 ", " GRANITE ", \"mamba_d_head\": 32, \"mamba_d_ssm\": 256, " LAYERS(3) "}",
          "num_hidden_layers num_key_value_heads head_dim dtype mamba_d_conv mamba_n_heads mamba_n_groups mamba_d_state mamba_d_head",
          "hidden_size num_attention_heads" },
        { "{" KIND("bamba") ", " ROWS ", " BF16 ", " GRANITE ", \"mamba_d_head\": 24, " LAYERS(3) ", \"attn_layer_indices\": [2, 0]}",
          "num_hidden_layers num_key_value_heads head_dim dtype mamba_d_conv mamba_n_heads mamba_n_groups mamba_d_state mamba_d_head "
          "attn_layer_indices",
          "" },
        { "{" KIND("lfm2") ", " ROWS ", " HIDDEN ", " BF16 ", " LAYERS(4) ", \"full_attn_idxs\": [1, 3], \"conv_L_cache\": 3, \"conv_dim\": 512}",
          "num_hidden_layers num_key_value_heads head_dim dtype conv_L_cache conv_dim", "hidden_size num_attention_heads" },
        { "{" KIND("minimax_text_01") ", " ROWS ", " HIDDEN ", " BF16 ", " LAYERS(3) ", \"attn_type_list\": [0, 0, 1]}",
          "num_hidden_layers num_key_value_heads head_dim dtype num_attention_heads attn_type_list", "hidden_size" },
        { "{" KIND("kimi_linear") ", " BF16 ", " MLA ", " LAYERS(
              2) ", \"linear_attn_config\": {\"full_attn_layers\": [2], \"kda_layers\": [1], "
                 "\"num_heads\": 4, \"head_dim\": 32, \"short_conv_kernel_size\": 4}, \"hidden_size\": 9, \"num_experts\": 4}",
          "num_hidden_layers kv_lora_rank qk_rope_head_dim dtype linear_attn_config", "hidden_size num_experts" },
        { "{" NEW ", \"hybrid_layer_pattern\": [0, 1, 1], \"v_head_dim\": 32, \"sliding_window\": 128, \"swa_num_key_value_heads\": 4, "
          "\"swa_head_dim\": 48, \"swa_v_head_dim\": 16, \"num_experts\": 9}",
          "num_key_value_heads head_dim v_head_dim sliding_window swa_num_key_value_heads swa_head_dim swa_v_head_dim hybrid_layer_pattern",
          "num_experts" },
        { "{" NEW ", " LAYERS(9) ", \"sliding_window\": 9, \"sliding_window_pattern\": 3}",
          "num_hidden_layers num_key_value_heads head_dim sliding_window sliding_window_pattern", "" },
        { "{" NEW ", " LAYERS(8) ", \"attention_chunk_size\": 16, \"no_rope_layer_interval\": 4, \"num_local_experts\": 16}",
          "num_hidden_layers num_key_value_heads head_dim attention_chunk_size no_rope_layer_interval", "num_local_experts" },
        { "{" KIND("qwen3") ", " ROWS ", " LAYERS(9) ", \"use_sliding_window\": true, \"sliding_window\": 9, \"max_window_layers\": 7}",
          "num_hidden_layers num_key_value_heads head_dim use_sliding_window sliding_window max_window_layers", "" },
    };
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++)
        check_fields(models[i].config, models[i].matter, models[i].do_not);
}
END_TEST

/* Any value in any field: an error, or a model that can be sized. */
START_TEST(any_value)
{
    static const char *const values[] = { "null",
                                          "true",
                                          "false",
                                          "-1",
                                          "0",
                                          "1",
                                          "2",
                                          "65536",
                                          "4294967296",
                                          "9223372036854775807",
                                          "0.5",
                                          "1e300",
                                          "\"\"",
                                          "\"auto\"",
                                          "[]",
                                          "[1]",
                                          "[\"full_attention\"]",
                                          "[[]]",
                                          "{}",
                                          "{\"head_dim\": 9223372036854775807}" };
    test_needs(KVT_SHARED_DIR "/configs");
    for (size_t i = 0; i < N_PUBLISHED; i++) {
        model_description description;
        error_text error = { "" };
        size_t length;
        char *text = load_text(published_path(i), &length);
        char *infinity = strstr(text, "Infinity");
        if (infinity)
            memcpy(infinity, "1234567 ", 8);
        json_t *root = json_loads(text, 0, NULL), *copy = json_deep_copy(text_part(root)), *value;
        const char *field;
        ck_assert_ptr_nonnull(root);
        json_object_foreach(copy, field, value)
        {
            for (size_t v = 0; v < sizeof values / sizeof values[0]; v++) {
                if ((i + v) % KVT_TEST_SHARE != 0)
                    continue;
                json_object_set_new(text_part(root), field, json_loads(values[v], JSON_DECODE_ANY, NULL));
                char *changed = json_dumps(root, 0);
                if (read_bytes(changed, strlen(changed), &description, &error) == 0)
                    check_sizable(&description);
                else
                    check_error(changed, &error, &description, "");
                description_free(&description);
                free(changed);
            }
            json_object_set(text_part(root), field, value);
        }
        json_decref(copy);
        json_decref(root);
        free(text);
    }
}
END_TEST

/* ---- what is wrong --------------------------------------------------------------------------------------------------------------- */

#define LLAMA     KIND("llama") ", " LAYERS(2) ", \"num_key_value_heads\": 8, \"head_dim\": 128"
#define GEMMA     KIND("gemma4_text") ", " LAYERS(2) ", \"head_dim\": 256"
#define GLM       KIND("glm4_moe_lite") ", " LAYERS(2)
#define QWEN3_5   KIND("qwen3_5") ", \"full_attention_interval\": 4, " QWEN3_5_FIELDS
#define BLOCKS(b) KIND("nemotron-nas") ", " HIDDEN ", \"block_configs\": [{\"attention\": " b "}]"
#define KDA(full, kda)                                                                                                                               \
    KIND("kimi_linear") ", " BF16 ", " MLA ", " LAYERS(3) ", \"linear_attn_config\": {\"full_attn_layers\": " full ", \"kda_layers\": " kda "}"

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
        { "[]", "the file holds a list" },
        { "3", "the file holds a single value" },
        { "{}", "model_type is missing" },
        { "{\"model_type\": 5}", "model_type is 5" },
        { "{\"model_type\": null}", "model_type is null" },
        { "{\"model_type\": [\"llama\"]}", "model_type is a list" },
        { "{\"model_type\": \"\"}", "model_type is \"\"" },
        { "{\"model_type\": \"a\\n\\u001b[31m\\u00fcb\"}", "num_hidden_layers is missing: a\\x0a\\x1b[31m\u00fcb needs it" },
        { "{\"model_type\": \"llama\", \"text_config\": 3}", "text_config is 3, but must be an object" },
        { "{\"model_type\": \"llama\", \"thinker_config\": {\"text_config\": []}}", "text_config is a list, but must be an object" },

        /* Names that Python adds: errors behind them keep their column, and they are no number. */
        { "{\"a\": [NaN, Infinity, -Infinity],\n \"b\": [NaN, -Infinity] x", "line 2, column 24" },
        { "{\"a\": [-Infinity], \"b\": \"\\\"Infinity\", \"model_type\": \"NaN\"}", "num_hidden_layers is missing: NaN needs it" },
        { "{" NEW ", \"num_hidden_layers\": Infinity}", "num_hidden_layers is \"Infin.\", but must be a whole number" },
        { "{" NEW ", \"num_hidden_layers\": NaN}", "num_hidden_layers is \"N\"" },
        { "{\"a\": Infinit}", "not JSON" },
        { "{\"a\": - Infinity}", "not JSON" },
        { "{\"a\": NaNNaN}", "not JSON" },

        /* Not a model that can be sized */
        { "{" LLAMA ", \"is_encoder_decoder\": true}", "is_encoder_decoder is true" },
        { "{\"is_encoder_decoder\": true, \"text_config\": {" LLAMA "}}", "is_encoder_decoder is true" },
        { "{" LLAMA ", \"is_encoder_decoder\": 1}", "is_encoder_decoder is 1" },
        { "{" LLAMA ", \"cross_attention_layers\": [3, 8]}", "cross_attention_layers is a list, but must be absent" },
        { "{" LLAMA ", \"add_cross_attention\": true}", "add_cross_attention is true" },
        { "{" LLAMA ", \"per_layer_config\": {\"1\": {\"window\": 9}}}", "per_layer_config.1.window: what single layers have of this field" },
        { "{" LLAMA ", \"per_layer_config\": {\"2\": {\"head_dim\": 9}}}", "numbers of layers below 2" },
        { "{" LLAMA ", \"per_layer_config\": {\"1\": {\"head_dim\": 0}}}", "per_layer_config.1.head_dim is 0, but must be" },
        { "{" LLAMA ", \"use_bidirectional_attention\": true}", "use_bidirectional_attention is true" },
        { "{" LLAMA ", \"use_bidirectional_attention\": \"all\"}", "use_bidirectional_attention is \"all\"" },
        { "{" NEW ", \"layer_types\": [\"mlp\", \"moe\"]}", "no layer of brand_new has attention or a state" },

        /* Numbers */
        { "{\"model_type\": \"llama\"}", "num_hidden_layers is missing: llama needs it" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 0}", "num_hidden_layers is 0, but must be a whole number from 1 to 65536" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": -3}", "num_hidden_layers is -3" },
        { "{\"model_type\": \"llama\", \"n_layer\": 65537}", "n_layer is 65537" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 1000000000000000000}", "num_hidden_layers is 1000000000000000000" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 9223372036854775807}", "num_hidden_layers is 9223372036854775807" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 9223372036854775808}", "too big integer" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 1e400}", "not JSON" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2.0}", "num_hidden_layers is 2.0" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": \"2\"}", "num_hidden_layers is \"2\"" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": true}", "num_hidden_layers is true" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": {}}", "num_hidden_layers is an object" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": -2}",
          "num_key_value_heads is -2, but must be a whole number from 1 to 65536" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 4294967297}", "num_key_value_heads is 4294967297" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": [4, 8]}", "num_key_value_heads is a list" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2}", "num_attention_heads is missing" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2}", "hidden_size is missing" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"head_dim\": 1025}", "head_dim is 1025" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"hidden_size\": 100, \"num_attention_heads\": 3}",
          "hidden_size / num_attention_heads is 100 / 3" },
        { "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"num_key_value_heads\": 2, \"hidden_size\": 8192, \"num_attention_heads\": 1}",
          "hidden_size / num_attention_heads is 8192 / 1" },
        { "{" KIND("gpt2") ", \"n_layer\": 2, \"n_embd\": 100, \"n_head\": 3}", "n_embd / num_attention_heads is 100 / 3" },
        { "{" LLAMA ", \"v_head_dim\": 1025}", "v_head_dim is 1025" },
        { "{" LLAMA ", \"multi_query\": 1}", "multi_query is 1, but must be true or false" },
        { "{" LLAMA ", \"max_position_embeddings\": -1}", "max_position_embeddings is -1" },
        { "{" LLAMA ", \"max_position_embeddings\": \"long\"}", "max_position_embeddings is \"long\"" },
        { "{" LLAMA ", \"num_nextn_predict_layers\": -1}", "num_nextn_predict_layers is -1" },
        { "{" LLAMA ", \"num_mtp_modules\": 256}", "num_mtp_modules is 256" },
        /* Not every class takes these from other fields. */
        { "{" KIND("minimax") ", " ROWS ", " LAYERS(2) "}", "nothing says which layers of minimax are recurrent: layer_types is missing" },
        { "{" KIND("lfm2") ", " ROWS ", " LAYERS(2) "}", "nothing says which layers of lfm2 are recurrent" },
        { "{" KIND("qwen3") ", " LAYERS(2) ", " HIDDEN ", \"head_dim\": 8}", "num_key_value_heads is missing: qwen3 needs it" },

        /* Which layer is what */
        { "{" NEW ", \"layer_types\": \"full_attention\"}", "layer_types is \"full_attention\", but must be a list" },
        { "{" NEW ", \"layer_types\": []}", "layer_types has 0 entries" },
        { "{" NEW ", " LAYERS(2) ", \"layer_types\": [\"full_attention\"]}", "layer_types has 1 entries, but must have num_hidden_layers = 2" },
        { "{" NEW ", \"layer_types\": [\"full_attention\", \"odd\"]}", "layer_types[1] is \"odd\", but must be \"full_attention\", \"attention\"" },
        { "{" NEW ", \"layer_types\": [4, \"full_attention\"]}", "layer_types[0] is 4" },
        { "{" NEW ", \"layer_types\": [null, \"full_attention\"]}", "layer_types[0] is null" },
        { "{" NEW ", " FSF "}", "sliding_window is missing" },
        { "{" NEW ", " FSF ", \"sliding_window\": 0}", "sliding_window is 0" },
        { "{" NEW ", " FSF ", \"sliding_window\": 4294967296}", "sliding_window is 4294967296" },
        { "{" NEW ", \"layer_types\": [\"chunked_attention\"]}", "attention_chunk_size is missing" },
        { "{" GEMMA ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", "layer_types does not end with \"full_attention\"" },
        { "{" GEMMA ", \"sliding_window_pattern\": 0}", "sliding_window_pattern is 0" },
        { "{" GEMMA ", \"num_kv_shared_layers\": 2}", "num_kv_shared_layers is 2, but must be a whole number from 0 to 1" },
        { "{" GEMMA ", \"num_global_key_value_heads\": 2}", "attention_k_eq_v is missing" },
        { "{" GEMMA ", \"num_global_key_value_heads\": 2, \"attention_k_eq_v\": 1}", "attention_k_eq_v is 1, but must be true or false" },
        { "{" GEMMA ", \"num_global_key_value_heads\": 0, \"attention_k_eq_v\": true}", "num_global_key_value_heads is 0" },
        { "{" KIND("gemma3n") ", " LAYERS(12) "}", "num_kv_shared_layers is missing: gemma3n has 12 layers" },
        { "{" NEW ", " LAYERS(2) ", \"sliding_window\": 9}", "sliding_window is given, but nothing says which layers slide" },
        { "{" NEW ", " LAYERS(2) ", \"sliding_window_pattern\": 2}", "sliding_window is missing" },
        { "{" NEW ", " LAYERS(2) ", \"sliding_window\": 9, \"sliding_window_pattern\": \"LX\"}", "sliding_window_pattern[1] is \"X\"" },
        { "{" NEW ", " LAYERS(2) ", \"sliding_window\": 9, \"sliding_window_pattern\": \"\"}", "sliding_window_pattern is \"\"" },
        { "{" NEW ", " LAYERS(2) ", \"sliding_window\": 9, \"sliding_window_pattern\": [1]}", "sliding_window_pattern is a list" },
        { "{" NEW ", " LAYERS(2) ", \"attention_chunk_size\": 9}", "nothing says which layers have chunks" },
        { "{" NEW ", " LAYERS(2) ", \"attention_chunk_size\": 9, \"no_rope_layers\": [1, 2]}", "no_rope_layers[1] is 2" },
        { "{" KIND("qwen3") ", " LAYERS(2) ", \"use_sliding_window\": \"no\"}", "use_sliding_window is \"no\"" },
        { "{" KIND("qwen3") ", " LAYERS(2) ", \"use_sliding_window\": true}", "max_window_layers is missing" },
        { "{" KIND("qwen3_moe") ", " LAYERS(2) ", \"use_sliding_window\": true}", "use_sliding_window is true" },
        { "{" NEW ", " LAYERS(2) ", \"use_sliding_window\": true}", "use_sliding_window is true" },
        { "{" NEW ", " LAYERS(3) ", \"hybrid_layer_pattern\": [0, 1, 2]}", "hybrid_layer_pattern[2] is 2" },
        { "{" NEW ", " LAYERS(3) ", \"attn_layer_indices\": [0, 3]}", "attn_layer_indices[1] is 3, but must be a whole number from 0 to 2" },
        { "{" NEW ", " LAYERS(3) ", \"attn_layer_indices\": [1, 1]}", "attn_layer_indices[1] names layer 1, but it was named before" },
        { "{" NEW ", " LAYERS(3) ", \"full_attn_idxs\": 1}", "full_attn_idxs is 1, but must be a list" },
        { "{" NEW ", " LAYERS(3) ", \"attn_layer_period\": 2}", "attn_layer_offset is missing" },
        { "{" NEW ", " LAYERS(3) ", \"attn_layer_period\": 2, \"attn_layer_offset\": 2}",
          "attn_layer_offset is 2, but must be a whole number from 0 to 1" },
        { "{" KDA("[3]", "[1]") "}", "name 2 layers, but must name num_hidden_layers = 3" },
        { "{" KDA("[3]", "[1, 3]") "}", "linear_attn_config.kda_layers[1] names layer 3, but it was named before" },
        { "{" KDA("[4]", "[1, 2]") "}", "linear_attn_config.full_attn_layers[0] is 4, but must be a whole number from 1 to 3" },
        { "{" KDA("[3]", "[1, 2]") "}", "linear_attn_config.short_conv_kernel_size is missing" },
        { "{" KDA("null", "[1, 2]") "}", "linear_attn_config.full_attn_layers is missing" },
        { "{" BLOCKS("3") "}", "block_configs[0].attention is 3" },
        { "{" BLOCKS("{\"n_heads_in_group\": 3}") "}", "block_configs[0].attention.n_heads_in_group is 3, but must divide num_attention_heads = 8" },
        { "{" BLOCKS("{\"n_heads_in_group\": 8, \"window_length\": 9}") "}",
          "block_configs[0].attention has window_length, which is not understood" },
        { "{" BLOCKS("{\"n_heads_in_group\": null}") "}", "block_configs[0].attention.n_heads_in_group is missing" },
        { "{" BLOCKS("{\"n_heads_in_group\": 8, \"no_op\": 1}") "}", "block_configs[0].attention.no_op is 1" },
        { "{" BLOCKS("{\"no_op\": true}") "}", "no layer of nemotron-nas has attention" },

        { "{" NEMOTRON_FIELDS "}", "conv_kernel is given, but nothing says which layers are recurrent" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"\"}", "hybrid_override_pattern has 0 entries" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": 5}", "hybrid_override_pattern is 5, but must be a string" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"M*X\"}", "hybrid_override_pattern[2] is \"X\"" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"M\\u00fc*\"}", "hybrid_override_pattern[1] is \"\\xc3\"" },
        { "{" NEMOTRON_FIELDS ", \"hybrid_override_pattern\": \"M*\", \"num_hidden_layers\": 3}", "must have num_hidden_layers = 3" },
        { "{" NEMOTRON_FIELDS ", \"layers_block_type\": [\"mamba\", \"hybrid\"]}", "layers_block_type[1] is \"hybrid\"" },

        /* MLA, states, compression */
        { "{" GLM ", \"kv_lora_rank\": 512}", "qk_rope_head_dim is missing" },
        { "{" GLM ", \"kv_lora_rank\": 1000, \"qk_rope_head_dim\": 64}", "kv_lora_rank + qk_rope_head_dim is 1064" },
        { "{" GLM ", " MLA ", \"num_attention_heads\": 8, \"v_head_dim\": 64, \"qk_nope_head_dim\": 1000}",
          "qk_nope_head_dim + qk_rope_head_dim is 1064" },
        { "{" GLM ", \"use_mla\": true}", "kv_lora_rank is missing" },
        { "{" NEW ", " FSF ", \"sliding_window\": 9, " MLA "}", "what sliding layers with MLA store is not known" },
        { "{" QWEN3_5 ", \"mamba_ssm_dtype\": \"int3\"}", "mamba_ssm_dtype is \"int3\"" },
        { "{" QWEN3_5 ", \"torch_dtype\": 16}", "torch_dtype is 16" },
        { "{" NEW ", \"layer_types\": [\"linear_attention\"]}", "one must say what the recurrent layers of brand_new keep" },
        { "{" NEW ", \"layer_types\": [\"conv\"]}", "conv_L_cache is missing" },
        { "{" NEW ", " BF16 ", " GRANITE ", \"layer_types\": [\"mamba\"]}", "mamba_d_head is missing" },
        { "{" NEW ", " BF16 ", " GRANITE ", \"layer_types\": [\"mamba\"], \"mamba_d_head\": \"auto\", \"hidden_size\": 9}",
          "mamba_d_head is \"auto\", but mamba_expand * hidden_size / mamba_n_heads is 18 / 8" },
        { "{" NEW ", " BF16 ", \"mamba_n_heads\": 65537, \"mamba_d_conv\": 4, \"layer_types\": [\"mamba\"]}", "mamba_n_heads is 65537" },
        { "{" V4 ", \"compress_ratios\": [0, 4, 128, 4]}", "index_head_dim is missing" },
        { "{" V4 ", \"compress_ratios\": [0, 1, 128, 8]}", "compress_ratios[1] is 1, but must be 0 or at least 2" },
        { "{" V4 ", \"compress_ratios\": [0, -4, 128, 8]}", "compress_ratios[1] is -4" },
        { "{" V4 ", \"compress_ratios\": [0, 0, 0]}", "compress_ratios has 3 entries, but must have num_hidden_layers = 4" },
        { "{" V4 ", \"compress_ratios\": [0, 0, 0, 0, 0], \"num_nextn_predict_layers\": 2}", "or also those of num_nextn_predict_layers" },
        { "{" V4 ", \"compress_ratios\": 4}", "compress_ratios is 4" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
        check_bad(files[i].text, strlen(files[i].text), files[i].says);
}
END_TEST

/* Cut anywhere, a file is an error and nothing worse. */
START_TEST(truncated)
{
    static const char text[] = "{" NEW ", " FSF ", \"sliding_window\": 9, \"time_step_limit\": [0.0, -Infinity]}";
    model_description description;
    read_good(text, &description);
    description_free(&description);
    for (size_t length = 1; length < sizeof text - 1; length++)
        check_bad(text, length, "not JSON: line 1, column");
}
END_TEST

START_TEST(truncated_published_file)
{
    size_t length;
    test_needs(KVT_SHARED_DIR "/configs");
    char *file = load_text(KVT_SHARED_DIR "/configs/Nemotron-H-56B-Base-8K.json", &length);
    while (file[length - 1] != '}')
        length--;
    for (size_t cut = 1; cut < length; cut++)
        check_bad(file, cut, "not JSON: line ");
    free(file);
}
END_TEST

/* Text that repeats `piece`, between two others. */
static char *repeated(const char *before, const char *piece, size_t times, const char *after)
{
    char *text = test_malloc(strlen(before) + times * strlen(piece) + strlen(after) + 1), *end = stpcpy(text, before);
    for (size_t i = 0; i < times; i++)
        end = stpcpy(end, piece);
    strcpy(end, after);
    return text;
}

START_TEST(nested_and_long)
{
    static const struct {
        const char *before, *piece;
        size_t times;
        const char *after, *says;
    } files[] = {
        { "", "[", 1 << 20, "", "depth" },
        { "", "[", 100000, "", "depth" },
        { "", "{\"text_config\": ", 100000, "", "depth" },
        { "", "{\"text_config\": ", 2000, "", "not JSON" },
        /* A long value is cut short. */
        { "{\"model_type\": 3, \"a\": \"", "a", 1 << 20, "\"}", "model_type is 3" },
        { "{" LLAMA ", \"max_position_embeddings\": \"", "a", 1 << 20, "\"}", "aaaa..., but must be" },
        { "{\"model_type\": \"", "a", 1 << 20, "\"}", "num_hidden_layers is missing: aaaa" },
        { "{\"model_type\": \"", "\xc3\xbc", 1 << 10, "\"}", "num_hidden_layers is missing: \u00fc\u00fc" },
        { "{" NEW ", \"layer_types\": [\"full_attention\"", ", \"full_attention\"", 65536, "]}",
          "layer_types has 65537 entries, but must have 1 to 65536" },
        { "{" NEW ", \"hybrid_override_pattern\": \"", "*", 65537, "\"}", "hybrid_override_pattern has 65537 entries" },
        { " ", " ", 16 << 20, "{}", "a config.json has at most 16777216" },
        { "\xff\xff", "\xff", 100, "", "not JSON" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *text = repeated(files[i].before, files[i].piece, files[i].times, files[i].after);
        check_bad(text, strlen(text), files[i].says);
        free(text);
    }
    static const char zeros[100];
    check_bad(zeros, sizeof zeros, "not JSON");

    /* As many layers as can be, and as many kinds. */
    char *text = repeated("{" NEW ", \"layer_types\": [\"full_attention\"", ", \"full_attention\"", 65535, "]}");
    check_groups(text, "full 65536 2x64/64", "");
    free(text);
    char kinds[2000] = "{" KIND("deepseek_v4") ", \"num_hidden_layers\": 70, \"head_dim\": 512, \"num_key_value_heads\": 1, \"sliding_window\": 128, "
                                               "\"compress_ratios\": [0";
    for (int i = 10; i < 79; i++)
        snprintf(kinds + strlen(kinds), sizeof kinds - strlen(kinds), ", %d", i);
    strcat(kinds, "]}");
    check_bad(kinds, strlen(kinds), "the layers are of more than 64 kinds");

    /* text_config within text_config */
    text = repeated("{" NEW ", " LAYERS(9), ", \"text_config\": {" NEW ", " LAYERS(2), 500, "");
    text = realloc(text, strlen(text) + 502);
    ck_assert_ptr_nonnull(text);
    memset(text + strlen(text) + 1, '\0', 501);
    for (int i = 0; i < 501; i++)
        strcat(text, "}");
    check_groups(text, "full 2 2x64/64", "");
    free(text);
}
END_TEST

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

START_TEST(files)
{
    static const char text[] = "{" NEW ", " LAYERS(2) "}";
    model_description description = { 0 };
    error_text error = { "" };
    ck_assert_int_eq(model_read_file("no/such/file.json", &description, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "No such file"));
    ck_assert_int_eq(model_read_file(".", &description, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "directory"));

    char folder[] = "test_config-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(folder));
    static const char *const names[] = { "config.json", "other-1B.json" };
    for (size_t i = 0; i < 2; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        FILE *file = fopen(path, "wb");
        ck_assert_ptr_nonnull(file);
        ck_assert_uint_eq(fwrite(text, 1, sizeof text - 1, file), sizeof text - 1);
        ck_assert_int_eq(fclose(file), 0);
        ck_assert_int_eq(model_read_file(path, &description, &error), 0);
        ck_assert_str_eq(description.model.name, i ? "other-1B" : folder);
        ck_assert_uint_eq(description.model.n_groups, 1);
        description_free(&description);
        unlink(path);
    }
    rmdir(folder);
}
END_TEST

/* ---- stages of a pipeline -------------------------------------------------------------------------------------------------------- */

/* Groups of all stages, "first+count: groups" with " | " between them. */
static void show_stages(const model_stage *stages, uint32_t n_stages, char *text, size_t size)
{
    size_t used = 0;
    for (uint32_t i = 0; i < n_stages && used < size; i++) {
        char groups[300];
        show_groups(&stages[i].part.model, groups, sizeof groups);
        used += (size_t)snprintf(text + used, size - used, "%s%u+%u: %s", i ? " | " : "", stages[i].first, stages[i].count, groups);
    }
}

static void check_stages(const char *config, uint32_t n_stages, uint32_t ranks, const char *expected)
{
    model_description description;
    model_stage parts[8];
    error_text error = { "" };
    char found[2000] = "";
    read_good(config, &description);
    const int result = model_split(&description.model, &description, n_stages, ranks, parts, &error);
    if (result == 0) {
        show_stages(parts, n_stages, found, sizeof found);
        model_free_stages(parts, n_stages);
    }
    TEST_REQUIRE(strcmp(result == 0 ? found : error.text, expected) == 0, "%s%s\nnot %s\nof %s", found, error.text, expected, config);
    description_free(&description);
}

/* The layers that are left over go to the stages before the last, from the back; drafts to the last. */
START_TEST(stages)
{
#define UNIFORM(n) "{" NEW ", " LAYERS(n) "}"
#define SHARED(n)                                                                                                                                    \
    "{" KIND("gemma4_text") ", " ROWS ", " LAYERS(                                                                                                   \
        6) ", \"sliding_window\": 32, \"num_kv_shared_layers\": " #n ", \"layer_types\": "                                                           \
           "[\"full_attention\", \"sliding_attention\", \"sliding_attention\", \"full_attention\", \"sliding_attention\", \"full_attention\"]}"
    static const char letters[] = "{" NEW ", " BF16 ", " NEMOTRON ", \"hybrid_override_pattern\": \"ME*-M*\", "
                                  "\"mamba_ssm_cache_dtype\": \"float32\"}";
    static const char window[] = "{" KIND("gemma3_text") ", " ROWS ", " LAYERS(8) ", \"sliding_window\": 32, \"sliding_window_pattern\": 6}";
    check_stages(UNIFORM(6), 1, 1, "0+6: full 6 2x64/64");
    check_stages(UNIFORM(6), 4, 1, "0+1: full 1 2x64/64 | 1+2: full 2 2x64/64 | 3+2: full 2 2x64/64 | 5+1: full 1 2x64/64");
    check_stages(UNIFORM(5), 3, 2, "0+2: full 2 1x64/64 | 2+2: full 2 1x64/64 | 4+1: full 1 1x64/64");
    check_stages(UNIFORM(6), 7, 1, "--pp 7: it has 6 layers, and a stage needs one: 1 to 6 would be right");
    check_stages(UNIFORM(6), 2, 3, "--tp 3: 2 KV heads of full layers cannot be divided: a divisor or a multiple of them would be right");
    check_stages(window, 3, 1,
                 "0+3: sliding 3 2x64/64 window 32 | 3+3: full 1 2x64/64, sliding 2 2x64/64 window 32 | 6+2: sliding 2 2x64/64 window 32");
    check_stages(letters, 3, 1,
                 "0+2: recurrent 1 conv 4*256*2 state 4096*4, none 1 | 2+2: full 1 2x64/64, none 1 | 4+2: full 1 2x64/64, recurrent 1 conv 4*256*2 "
                 "state 4096*4");
    check_stages(
        letters, 2, 2,
        "0+3: full 1 1x64/64, recurrent 1 conv 4*128*2 state 2048*4, none 1 | 3+3: full 1 1x64/64, recurrent 1 conv 4*128*2 state 2048*4, none 1");
    check_stages("{" KIND("deepseek_v3") ", " MLA ", " LAYERS(3) ", \"num_nextn_predict_layers\": 1}", 2, 1,
                 "0+2: latent 2 1x512+64/0 | 2+1: latent 1+1 1x512+64/0");
    check_stages("{" KIND("longcat_flash") ", " MLA ", \"num_layers\": 3}", 3, 1,
                 "0+1: latent 2 1x512+64/0 | 1+1: latent 2 1x512+64/0 | 2+1: latent 2 1x512+64/0");
    check_stages(SHARED(2), 2, 1,
                 "--pp: layer 4 reads what a layer before 3 stores, which is in another stage: another number of stages may be right");
    check_stages(SHARED(1), 2, 1,
                 "0+3: full 1 2x512/512, sliding 2 2x64/64 window 32 | 3+3: full 1 read by 1 2x512/512, sliding 1 2x64/64 window 32, none 1");
#undef SHARED
#undef UNIFORM
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *cases = tcase_create("config");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, parts_of_the_file);
    tcase_add_test(cases, heads_and_dimensions);
    tcase_add_test(cases, class_defaults);
    tcase_add_test(cases, windows);
    tcase_add_test(cases, layers_that_store_nothing);
    tcase_add_test(cases, states);
    tcase_add_test(cases, latent);
    tcase_add_test(cases, drafts);
    tcase_add_test(cases, compressed);
    tcase_add_test(cases, contexts);
    tcase_add_test(cases, unknown_fields);
    tcase_add_test(cases, gemma4);
    tcase_add_test(cases, hybrids);
    tcase_add_test(cases, others);
    tcase_add_test(cases, families);
    tcase_add_test(cases, declarations);
    tcase_add_test(cases, fields_of_rules);
    tcase_add_test(cases, malformed);
    tcase_add_test(cases, truncated);
    tcase_add_test(cases, nested_and_long);
    tcase_add_test(cases, files);
    tcase_add_test(cases, stages);
    TCase *shared = tcase_create("published files");
    tcase_set_timeout(shared, 60);
    tcase_set_tags(shared, TEST_NEEDS_DATA);
    tcase_add_test(shared, published);
    tcase_add_test(shared, fields_of_published_files);
    tcase_add_test(shared, any_value);
    tcase_add_test(shared, truncated_published_file);
    suite_add_tcase(suite, shared);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
