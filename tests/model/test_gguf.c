/* SPDX-License-Identifier: MIT */
/* Reading GGUF (and how many bytes weights take): models with the keys that llama.cpp's converter writes, what each key changes, and files that are
 * wrong. */
#define _POSIX_C_SOURCE 200809L
#include "tests/lib/support.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kvtile/model.h>

#include "tools/files/gguf.h"
#include "tools/model/description.h"
#include "tools/model/shard.h"
#include "tools/model/weights.h"

/* ---- writing ----------------------------------------------------------------------------------------------------------------------- */

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, LIST, U64, I64, F64 };

typedef struct writer {
    unsigned char bytes[1 << 16];
    size_t size;
    uint64_t keys;
} writer;

static writer out; /* of the one file that is being made */

static void put(const void *bytes, size_t size)
{
    TEST_REQUIRE(out.size + size <= sizeof out.bytes, "the file is too large for the test");
    memcpy(out.bytes + out.size, bytes, size);
    out.size += size;
}

static void put_u32(uint32_t value)
{
    put(&value, sizeof value);
}

static void put_u64(uint64_t value)
{
    put(&value, sizeof value);
}

static void put_text(const char *text, size_t length)
{
    put_u64(length);
    put(text, length);
}

static void begin(void)
{
    out.size = 0;
    out.keys = 0;
    put("GGUF", 4);
    put_u32(3);
    put_u64(291); /* tensors */
    put_u64(0);
}

static void add_key(const char *name, uint32_t type)
{
    put_text(name, strlen(name));
    put_u32(type);
    out.keys++;
    memcpy(out.bytes + 16, &out.keys, 8);
}

static void add_string(const char *name, const char *value)
{
    add_key(name, STRING);
    put_text(value, strlen(value));
}

static void add_u32(const char *name, uint32_t value)
{
    add_key(name, U32);
    put_u32(value);
}

/* Of "[1 2]*2[TF]", the numbers or flags 1 2 1 2 or true false. */
static void add_list(const char *name, const char *text)
{
    const bool flags = strpbrk(text, "TF") != NULL;
    add_key(name, LIST);
    put_u32(flags ? BOOL : U32);
    const size_t count_at = out.size;
    uint64_t count = 0;
    put_u64(0);
    while (*text == '[') {
        const char *end = strchr(text, ']');
        const unsigned long times = end[1] == '*' ? strtoul(end + 2, NULL, 10) : 1;
        for (unsigned long i = 0; i < times; i++) {
            for (const char *c = text + 1; c < end; count++) {
                char *next = NULL;
                if (flags) {
                    put(&(unsigned char){ *c++ == 'T' }, 1);
                } else {
                    put_u32((uint32_t)strtoul(c, &next, 10));
                    c = next + (*next == ' ');
                }
            }
        }
        text = end + 1 + strcspn(end + 1, "[");
    }
    memcpy(out.bytes + count_at, &count, 8);
}

/* name=value: a list, "a string", a number with a point (f32), -1 (i32) or a number (u32). */
static void add_value(const char *name, const char *value)
{
    if (*value == '[') {
        add_list(name, value);
    } else if (*value == '"') {
        add_key(name, STRING);
        put_text(value + 1, strlen(value) - 2);
    } else if (strchr(value, '.')) {
        const float number = strtof(value, NULL);
        add_key(name, F32);
        put(&number, sizeof number);
    } else if (*value == '-') {
        add_key(name, I32);
        put_u32((uint32_t)strtol(value, NULL, 10));
    } else {
        add_u32(name, (uint32_t)strtoul(value, NULL, 10));
    }
}

/* Whether `keys`, "name=value;name=value", has the name that `wanted` begins with, up to its '='. */
static bool has_name(const char *keys, const char *wanted)
{
    const size_t length = strcspn(wanted, "=") + 1;
    for (const char *c = keys; *c; c += strcspn(c, ";"), c += *c == ';') {
        if (strncmp(c, wanted, length) == 0)
            return true;
    }
    return false;
}

/* A file of the keys, which all begin with the architecture's name; and of `changes`, which are written instead of those of the same name: "name="
 * leaves it out. */
static void write_model(const char *architecture, const char *keys, const char *changes)
{
    begin();
    add_string("general.architecture", architecture);
    add_string("general.name", "not used");
    const char *const parts[] = { keys, changes };
    for (int part = 0; part < 2; part++) {
        for (const char *c = parts[part]; *c; c += strcspn(c, ";"), c += *c == ';') {
            char name[200], value[4000];
            const int name_length = (int)strcspn(c, "="), length = (int)strcspn(c, ";");
            TEST_REQUIRE(name_length < length && length < 4000, "not name=value: %s", c);
            if (name_length + 1 == length || (part == 0 && has_name(changes, c)))
                continue;
            snprintf(name, sizeof name, "%.70s.%.*s", architecture, name_length < 100 ? name_length : 100, c);
            snprintf(value, sizeof value, "%.*s", length - name_length - 1, c + name_length + 1);
            add_value(name, value);
        }
    }
    add_key("tokenizer.ggml.tokens", LIST);
    put_u32(STRING);
    put_u64(3);
    put_text("<pad>", 5);
    put_text("", 0);
    put_text("a", 1);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------------- */

/* From bytes of exactly that size, so that AddressSanitizer sees every read beyond them. */
static int read_bytes(const void *bytes, size_t size, model_description *description, error_text *error)
{
    void *copy = test_malloc(size ? size : 1);
    memcpy(copy, bytes, size);
    *description = (model_description){ 0 };
    *error = (error_text){ "" };
    const int result = model_read_gguf(copy, size, description, error);
    free(copy);
    TEST_REQUIRE(result == 0 || (*error->text && !description->groups && description->n_groups == 0), "a failure leaves something, or no reason");
    return result;
}

static void read_good(model_description *description)
{
    error_text error;
    TEST_REQUIRE(read_bytes(out.bytes, out.size, description, &error) == 0, "%s", error.text);
}

static void read_bad(const char *part)
{
    model_description description;
    error_text error;
    TEST_REQUIRE(read_bytes(out.bytes, out.size, &description, &error) == -1, "read, but should be: %s", part);
    ck_assert_msg(strstr(error.text, part) != NULL, "\"%s\", but should have: %s", error.text, part);
}

static bool same_group(const kvt_layer_group *a, const kvt_layer_group *b, bool drafts)
{
    return a->kind == b->kind && a->count == b->count && (!drafts || a->draft_count == b->draft_count) && a->shared_count == b->shared_count &&
           a->kv_heads == b->kv_heads && a->k_dim == b->k_dim && a->v_dim == b->v_dim && a->rope_dim == b->rope_dim && a->window == b->window &&
           a->tokens_per_row == b->tokens_per_row && a->expanded_heads == b->expanded_heads && a->expanded_k_dim == b->expanded_k_dim &&
           a->expanded_v_dim == b->expanded_v_dim && a->conv_kernel == b->conv_kernel && a->conv_channels == b->conv_channels &&
           a->conv_element_bytes == b->conv_element_bytes && a->recurrent_elements == b->recurrent_elements &&
           a->recurrent_element_bytes == b->recurrent_element_bytes;
}

static bool same_groups(const kvt_model *a, const kvt_model *b, bool drafts)
{
    bool same = a->n_groups == b->n_groups;
    for (size_t i = 0; same && i < a->n_groups; i++)
        same = same_group(&a->groups[i], &b->groups[i], drafts);
    return same;
}

static const char *groups_text(const kvt_model *model)
{
    static char text[4000];
    size_t used = 0;
    for (size_t i = 0; i < model->n_groups && used < sizeof text; i++) {
        const kvt_layer_group *g = &model->groups[i];
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "\n  %s %u+%u: heads %u, dims %u %u, window %u, tokens %u, expanded %u %u %u, conv %u %" PRIu64 " %u, state %" PRIu64
                                 " %u",
                                 kvt_layer_kind_name(g->kind), g->count, g->draft_count, g->kv_heads, g->k_dim, g->v_dim, g->window,
                                 g->tokens_per_row, g->expanded_heads, g->expanded_k_dim, g->expanded_v_dim, g->conv_kernel, g->conv_channels,
                                 g->conv_element_bytes, g->recurrent_elements, g->recurrent_element_bytes);
    }
    return text;
}

/* The file that was written has these groups, and nothing that is not understood. */
static void check_groups(const char *what, size_t n, const kvt_layer_group *groups)
{
    model_description description;
    read_good(&description);
    const kvt_model expected = { .n_groups = n, .groups = groups };
    TEST_REQUIRE(same_groups(&description.model, &expected, true), "%s:%s", what, groups_text(&description.model));
    ck_assert_str_eq(description.notes, "");
    description_free(&description);
}

#define CHECK_GROUPS(what, ...)                                                                                                                      \
    check_groups(what, sizeof((kvt_layer_group[]){ __VA_ARGS__ }) / sizeof(kvt_layer_group), (const kvt_layer_group[]){ __VA_ARGS__ })

static void check_catalogue(const char *name, bool drafts)
{
    model_description description;
    const kvt_model *expected = kvt_catalogue_find(name);
    ck_assert_ptr_nonnull(expected);
    read_good(&description);
    TEST_REQUIRE(same_groups(&description.model, expected, drafts), "%s:%s", name, groups_text(&description.model));
    ck_assert_uint_eq(description.model.max_context, expected->max_context);
    ck_assert_str_eq(description.notes, "");
    ck_assert_str_eq(description.model.name, "");
    description_free(&description);
}

/* ---- models of the catalogue ----------------------------------------------------------------------------------------------------- */

#define GEMMA4_E2B                                                                                                                                   \
    "context_length=131072;embedding_length=1536;block_count=35;feed_forward_length=[6144]*15[12288]*20;attention.head_count=8;"                     \
    "attention.head_count_kv=[1]*35;rope.freq_base=1000000.0;rope.freq_base_swa=10000.0;attention.layer_norm_rms_epsilon=0.000001;"                  \
    "attention.key_length=512;attention.value_length=512;attention.key_length_swa=256;attention.value_length_swa=256;"                               \
    "attention.sliding_window=512;attention.shared_kv_layers=20;attention.sliding_window_pattern=[TTTTF]*7;"                                         \
    "embedding_length_per_layer_input=256;rope.dimension_count=512;rope.dimension_count_swa=256;final_logit_softcapping=30.0"

#define GEMMA4_26B                                                                                                                                   \
    "context_length=262144;embedding_length=2816;block_count=30;feed_forward_length=2112;attention.head_count=16;"                                   \
    "attention.head_count_kv=[8 8 8 8 8 2]*5;attention.key_length=512;attention.value_length=512;attention.key_length_swa=256;"                      \
    "attention.value_length_swa=256;attention.sliding_window=1024;attention.shared_kv_layers=0;attention.sliding_window_pattern=[TTTTTF]*5;"         \
    "embedding_length_per_layer_input=0;expert_count=128;expert_used_count=8;expert_feed_forward_length=704;rope.dimension_count=512;"               \
    "rope.dimension_count_swa=256"

#define QWEN3_5_35B                                                                                                                                  \
    "block_count=41;context_length=262144;embedding_length=2048;attention.head_count=16;attention.head_count_kv=2;"                                  \
    "rope.dimension_sections=[11 11 10 0];rope.freq_base=10000000.0;attention.layer_norm_rms_epsilon=0.000001;expert_count=256;"                     \
    "expert_used_count=8;attention.key_length=256;attention.value_length=256;expert_feed_forward_length=512;"                                        \
    "expert_shared_feed_forward_length=512;ssm.conv_kernel=4;ssm.state_size=128;ssm.group_count=16;ssm.time_step_rank=32;ssm.inner_size=4096;"       \
    "full_attention_interval=4;rope.dimension_count=64;nextn_predict_layers=1"

#define GLM_4_7_FLASH                                                                                                                                \
    "block_count=47;context_length=202752;embedding_length=2048;feed_forward_length=10240;attention.head_count=20;attention.head_count_kv=1;"        \
    "leading_dense_block_count=1;vocab_size=154880;attention.q_lora_rank=768;attention.kv_lora_rank=512;attention.key_length=576;"                   \
    "attention.value_length=512;attention.key_length_mla=256;attention.value_length_mla=256;expert_feed_forward_length=1536;expert_count=64;"        \
    "expert_shared_count=1;expert_weights_scale=1.8;rope.dimension_count=64"

#define QWEN3_30B                                                                                                                                    \
    "block_count=48;context_length=262144;embedding_length=2048;feed_forward_length=6144;attention.head_count=32;attention.head_count_kv=4;"         \
    "rope.freq_base=10000000.0;expert_used_count=8;attention.key_length=128;attention.value_length=128;expert_count=128;"                            \
    "expert_feed_forward_length=768"

#define GPT_OSS_20B                                                                                                                                  \
    "block_count=24;context_length=131072;embedding_length=2880;feed_forward_length=2880;attention.head_count=64;attention.head_count_kv=8;"         \
    "expert_count=32;expert_used_count=4;attention.key_length=64;attention.value_length=64;attention.sliding_window=128;"                            \
    "expert_feed_forward_length=2880;rope.scaling.type=\"yarn\";rope.scaling.original_context_length=4096"

#define LFM2_1_2B                                                                                                                                    \
    "block_count=16;context_length=128000;embedding_length=2048;feed_forward_length=8192;attention.head_count=32;"                                   \
    "attention.head_count_kv=[0 0 8 0 0 8 0 0 8 0 8 0 8 0 8 0];vocab_size=65536;shortconv.l_cache=3"

#define GEMMA3_4B                                                                                                                                    \
    "context_length=131072;embedding_length=2560;block_count=34;feed_forward_length=10240;attention.head_count=8;attention.head_count_kv=4;"         \
    "attention.key_length=256;attention.value_length=256;rope.freq_base=1000000.0;attention.sliding_window=1024"

#define NEMOTRON_3_NANO                                                                                                                              \
    "block_count=52;context_length=262144;embedding_length=2688;attention.head_count=32;attention.key_length=128;attention.value_length=128;"        \
    "ssm.conv_kernel=4;ssm.state_size=128;ssm.group_count=8;ssm.inner_size=4096;ssm.time_step_rank=64;rope.scaling.finetuned=0;"                     \
    "expert_count=128;expert_used_count=6;expert_feed_forward_length=1856;expert_shared_feed_forward_length=3712;expert_shared_count=1;"             \
    "attention.head_count_kv=[0 0 0 0 0 2 0][0 0 0 0 0 2 0]*4[0 0 0 0 0 0 0 2 0][0 0 0 0 0 0 0 0];"                                                  \
    "feed_forward_length=[0 1 0 1 0 0 1]*5[0 1 0 1 0 1 0 0 1][0 1 0 1 0 1 0 1]"

static const struct {
    const char *name, *architecture, *keys;
    bool drafts; /* the file has the MTP layers of the catalogue */
} models[] = {
    { "gemma-4-E2B", "gemma4", GEMMA4_E2B, true },
    { "gemma-4-26B-A4B", "gemma4", GEMMA4_26B, true },
    { "Qwen3.5-35B-A3B", "qwen35moe", QWEN3_5_35B, true },
    { "GLM-4.7-Flash", "deepseek2", GLM_4_7_FLASH, false },
    { "Nemotron-3-Nano-30B-A3B", "nemotron_h_moe", NEMOTRON_3_NANO, true },
    { "Qwen3-30B-A3B-Instruct-2507", "qwen3moe", QWEN3_30B, true },
    { "gpt-oss-20b", "gpt-oss", GPT_OSS_20B, true },
    { "LFM2-1.2B", "lfm2", LFM2_1_2B, true },
    { "gemma-3-4b-it", "gemma3", GEMMA3_4B, true },
    { "gemma-3n-E2B", "gemma3n",
      "context_length=32768;embedding_length=2048;block_count=30;attention.head_count=8;attention.head_count_kv=2;attention.key_length=256;"
      "attention.value_length=256;attention.sliding_window=512;attention.shared_kv_layers=10;attention.sliding_window_pattern=[TTTTF]*6",
      true },
    { "gemma-3n-E4B", "gemma3n",
      "context_length=32768;embedding_length=2048;block_count=35;attention.head_count=8;attention.head_count_kv=2;attention.key_length=256;"
      "attention.value_length=256;attention.sliding_window=512",
      true },
    { "DeepSeek-V3.2", "deepseek32",
      "block_count=62;context_length=163840;embedding_length=7168;attention.head_count=128;attention.head_count_kv=1;attention.q_lora_rank=1536;"
      "attention.kv_lora_rank=512;attention.key_length=576;attention.value_length=512;attention.key_length_mla=192;attention.value_length_mla=128;"
      "rope.dimension_count=64;nextn_predict_layers=1;attention.indexer.head_count=64;attention.indexer.key_length=128;"
      "attention.indexer.top_k=2048",
      true },
    { "DeepSeek-V4-Flash", "deepseek4",
      "block_count=44;context_length=1048576;embedding_length=4096;attention.head_count=64;attention.head_count_kv=1;attention.key_length=512;"
      "attention.value_length=512;attention.q_lora_rank=1024;rope.dimension_count=64;attention.sliding_window=128;nextn_predict_layers=1;attention."
      "indexer.head_count=64;"
      "attention.indexer.key_length=128;attention.indexer.top_k=512;attention.output_group_count=8;attention.output_lora_rank=1024;"
      "attention.compress_rope_freq_base=160000.0;attention.compress_ratios=[0 0][4 128]*20[4 0];hash_layer_count=3",
      true },
};
#define N_MODELS (sizeof models / sizeof models[0])

START_TEST(catalogue)
{
    for (size_t i = 0; i < N_MODELS; i++) {
        write_model(models[i].architecture, models[i].keys, "");
        check_catalogue(models[i].name, models[i].drafts);
        out.bytes[4] = 2; /* GGUF 2 has the same layout */
        check_catalogue(models[i].name, models[i].drafts);
    }
}
END_TEST

/* Bytes that llama.cpp allocates, from its logs and from shared/models/facts.json. */
START_TEST(llama_cpp_bytes)
{
    static const struct {
        size_t model;
        uint64_t context, bytes;
        const char *type;
    } known[] = {
        { 0, 32768, 213909504, "f16" },
        { 0, 65536, 111 * 1048576 + 393216, "q4_0" },
        { 1, 262144, 3019243520, "q8_0" },
        { 2, 32768, 736952320, "f16" },
        { 3, 32768, 1774190592, "f16" },
        { 4, 65536, 163176448, "q4_0" },
        { 5, 32768, 3221225472, "f16" },
        { 7, 4096, 48 * 1048576 + 163840, "f16" },
        { 6, 131072, (3072 + 18) * UINT64_C(1048576), "f16" },
        { 8, 8192, 334 * 1048576, "f16" },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        model_description description;
        kvt_size_report report;
        const kvt_size_request request = { .size = sizeof request,
                                           .engine = KVT_ENGINE_llama_cpp,
                                           .k_type = known[i].type,
                                           .v_type = known[i].type,
                                           .context = known[i].context,
                                           .sequences = 1 };
        write_model(models[known[i].model].architecture, models[known[i].model].keys, "");
        read_good(&description);
        ck_assert_int_eq(kvt_size(&description.model, &request, &report, NULL), KVT_OK);
        ck_assert_msg(report.total_bytes == known[i].bytes, "%s: %" PRIu64 ", but llama.cpp allocates %" PRIu64, models[known[i].model].name,
                      report.total_bytes, known[i].bytes);
        description_free(&description);
    }
}
END_TEST

#define FULL(layers, heads, k, v)                                                                                                                    \
    {                                                                                                                                                \
        .kind = KVT_LAYER_FULL, .count = (layers), .kv_heads = (heads), .k_dim = (k), .v_dim = (v)                                                   \
    }
#define SLIDING(layers, heads, dim, tokens)                                                                                                          \
    {                                                                                                                                                \
        .kind = KVT_LAYER_SLIDING, .count = (layers), .kv_heads = (heads), .k_dim = (dim), .v_dim = (dim), .window = (tokens)                        \
    }
#define NONE(layers)                                                                                                                                 \
    {                                                                                                                                                \
        .kind = KVT_LAYER_NONE, .count = (layers)                                                                                                    \
    }
#define LATENT(layers, dim, rope, heads, k, v)                                                                                                       \
    {                                                                                                                                                \
        .kind = KVT_LAYER_LATENT, .count = (layers), .kv_heads = 1, .k_dim = (dim), .rope_dim = (rope), .expanded_heads = (heads),                   \
        .expanded_k_dim = (k), .expanded_v_dim = (v)                                                                                                 \
    }
#define INDEXER(layers, dim)                                                                                                                         \
    {                                                                                                                                                \
        .kind = KVT_LAYER_INDEXER, .count = (layers), .kv_heads = 1, .k_dim = (dim), .tokens_per_row = 1                                             \
    }
#define STATE(layers, kernel, channels, elements)                                                                                                    \
    {                                                                                                                                                \
        .kind = KVT_LAYER_RECURRENT, .count = (layers), .conv_kernel = (kernel), .conv_channels = (channels), .conv_element_bytes = 2,               \
        .recurrent_elements = (elements), .recurrent_element_bytes = (elements) ? 4 : 0                                                              \
    }

/* Keys of a small model of `layers` layers. */
#define SMALL(layers) "block_count=" #layers ";context_length=4096;embedding_length=512;attention.head_count=8;attention.head_count_kv=2"

/* Which layers slide is known by name, as in llama.cpp's set_swa_pattern. */
START_TEST(sliding)
{
    static const struct {
        const char *architecture, *keys;
        uint32_t window, sliding, full; /* of 48 layers */
    } rules[] = {
        { "afmoe", "attention.sliding_window=32", 32, 36, 12 },
        { "cohere2", "attention.sliding_window=32", 32, 36, 12 },
        { "cohere2moe", "attention.sliding_window=32;attention.sliding_window_pattern=4", 32, 36, 12 },
        { "exaone-moe", "attention.sliding_window=32", 32, 36, 12 },
        { "exaone4", "attention.sliding_window=32", 0, 0, 48 },
        { "exaone4", "block_count=64;attention.sliding_window=32", 32, 48, 16 },
        { "exaone4", "block_count=64", 4096, 48, 16 },
        { "gemma2", "attention.sliding_window=32", 32, 24, 24 },
        { "gemma2", "attention.sliding_window=0", 0, 0, 48 },
        { "gemma2", "", 4096, 24, 24 },
        { "gemma3", "attention.sliding_window=32", 32, 40, 8 },
        { "gemma3", "", 0, 0, 48 },
        { "gpt-oss", "attention.sliding_window=32", 32, 24, 24 },
        { "laguna", "attention.sliding_window=32", 32, 36, 12 },
        { "llama4", "attention.sliding_window=32", 8192, 36, 12 },
        { "llama4", "attention.sliding_window=0", 0, 0, 48 },
        { "llama4", "", 8192, 36, 12 },
        { "mellum", "attention.sliding_window=32;attention.sliding_window_pattern=4", 32, 36, 12 },
        { "mimo2", "attention.sliding_window=32;attention.sliding_window_pattern=[FT]*24", 32, 24, 24 },
        { "olmo2", "attention.sliding_window=32", 32, 36, 12 },
        { "plamo3", "attention.sliding_window=32", 32, 42, 6 },
        { "smallthinker", "attention.sliding_window=32", 4096, 36, 12 },
        { "smallthinker", "", 0, 0, 48 },
        { "step35", "attention.sliding_window=32;attention.sliding_window_pattern=[0 1 1]*16", 32, 32, 16 },
        { "lfm2", "attention.sliding_window=32;shortconv.l_cache=3", 32, 48, 0 },
        { "not-known", "attention.sliding_window=32;attention.sliding_window_pattern=[FT]*24", 32, 24, 24 },
        { "not-known", "attention.sliding_window=32;attention.sliding_window_pattern=3", 32, 32, 16 },
        { "gemma3", "attention.sliding_window=32;attention.sliding_window_pattern=3", 32, 32, 16 },
        { "gemma3", "attention.sliding_window=32;attention.sliding_window_pattern=1", 32, 0, 48 },
        { "gemma3", "attention.sliding_window=32;attention.sliding_window_pattern=0", 32, 48, 0 },
        { "gemma3", "attention.sliding_window=32;attention.sliding_window_pattern=[T]*47[F]", 32, 40, 8 },
        { "not-known", "attention.sliding_window=0;attention.sliding_window_pattern=[FT]*24", 0, 0, 48 },
    };
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const kvt_layer_group full = FULL(rules[i].full, 2, 64, 64), slide = SLIDING(rules[i].sliding, 2, 64, rules[i].window);
        write_model(rules[i].architecture, SMALL(48), rules[i].keys);
        if (rules[i].sliding == 0)
            CHECK_GROUPS(rules[i].architecture, full);
        else if (rules[i].full == 0)
            CHECK_GROUPS(rules[i].architecture, slide);
        else
            CHECK_GROUPS(rules[i].architecture, full, slide);
    }

    /* Where the first layers are: 4 of 5 layers slide, or 3 when the first of each four is full. */
    write_model("cohere2", SMALL(5), "attention.sliding_window=32");
    CHECK_GROUPS("dense last", FULL(1, 2, 64, 64), SLIDING(4, 2, 64, 32));
    write_model("laguna", SMALL(5), "attention.sliding_window=32");
    CHECK_GROUPS("dense first", FULL(2, 2, 64, 64), SLIDING(3, 2, 64, 32));

    /* Sliding layers of other widths and heads. */
    write_model("mimo2", SMALL(4),
                "attention.head_count_kv=[2 4 4 2];attention.key_length=192;attention.value_length=128;attention.key_length_swa=96;"
                "attention.value_length_swa=96;attention.sliding_window=32;attention.sliding_window_pattern=[FTTF]");
    CHECK_GROUPS("widths", FULL(2, 2, 192, 128), SLIDING(2, 4, 96, 32));
}
END_TEST

START_TEST(recurrent)
{
#define SSM_1 "ssm.conv_kernel=4;ssm.inner_size=1024;ssm.state_size=16;ssm.time_step_rank=8"
#define SSM   SSM_1 ";ssm.group_count=2"
    write_model("granitehybrid", SMALL(4), "attention.head_count_kv=[0 0 2 0];" SSM);
    CHECK_GROUPS("granitehybrid", FULL(1, 2, 64, 64), STATE(3, 4, 1024 + 2 * 2 * 16, 16 * 1024));
    write_model("plamo2", SMALL(4), "attention.head_count_kv=[0 0 2 0];" SSM);
    CHECK_GROUPS("plamo2", FULL(1, 2, 64, 64), STATE(3, 4, 1024 + 2 * 2 * 16, 16 * 1024));
    write_model("jamba", SMALL(4), "attention.head_count_kv=[0 0 2 0];" SSM_1);
    CHECK_GROUPS("jamba", FULL(1, 2, 64, 64), STATE(3, 4, 1024, 16 * 1024));
    write_model("falcon-h1", SMALL(4), SSM);
    CHECK_GROUPS("falcon-h1", FULL(4, 2, 64, 64), STATE(4, 4, 1024 + 2 * 2 * 16, 16 * 1024));
    write_model("mamba", "block_count=4;context_length=4096;embedding_length=512;attention.head_count=0;feed_forward_length=0", SSM_1);
    CHECK_GROUPS("mamba", STATE(4, 4, 1024, 16 * 1024));
    write_model("mamba2", "block_count=4;context_length=4096;embedding_length=512;attention.head_count=0;attention.head_count_kv=0", SSM);
    CHECK_GROUPS("mamba2", STATE(4, 4, 1024 + 2 * 2 * 16, 16 * 1024));
    write_model("lfm2moe", SMALL(4), "attention.head_count_kv=[0 0 2 0];shortconv.l_cache=3");
    CHECK_GROUPS("lfm2moe", FULL(1, 2, 64, 64), STATE(3, 3, 512, 0));
    write_model("kimi-linear", SMALL(4),
                "attention.head_count_kv=[0 0 0 1];ssm.conv_kernel=4;kda.head_dim=128;attention.kv_lora_rank=512;attention.key_length=576;"
                "attention.key_length_mla=192;attention.value_length_mla=128");
    CHECK_GROUPS("kimi-linear", LATENT(1, 576, 0, 8, 192, 128), STATE(3, 4, 3 * 8 * 128, 8 * 128 * 128));

    /* A layer of Nemotron-H is a Mamba-2, attention or feed-forward layer. */
    write_model("nemotron_h", SMALL(4), "attention.head_count_kv=[0 0 2 2];feed_forward_length=[0 9 0 9];" SSM);
    CHECK_GROUPS("nemotron_h", FULL(1, 2, 64, 64), STATE(1, 4, 1088, 16 * 1024), NONE(2));
    write_model("nemotron_h_moe", SMALL(4), "attention.head_count_kv=[0 0 2 2];feed_forward_length=[0 9 0 9];nextn_predict_layers=1;" SSM);
    CHECK_GROUPS("its MTP layer", { .kind = KVT_LAYER_FULL, .count = 1, .draft_count = 1, .kv_heads = 2, .k_dim = 64, .v_dim = 64 },
                 STATE(1, 4, 1088, 16 * 1024), NONE(1));

    /* Every fourth layer, every second, or a list. */
    write_model("qwen3next", SMALL(8), SSM);
    CHECK_GROUPS("qwen3next", FULL(2, 2, 64, 64), STATE(6, 4, 1088, 16 * 1024));
    write_model("qwen35", SMALL(8), "full_attention_interval=2;" SSM);
    CHECK_GROUPS("qwen35", FULL(4, 2, 64, 64), STATE(4, 4, 1088, 16 * 1024));
    write_model("qwen35", SMALL(8), "full_attention_interval=2;attention.recurrent_layers=[TTTTTTTF];" SSM);
    CHECK_GROUPS("a list", FULL(1, 2, 64, 64), STATE(7, 4, 1088, 16 * 1024));
    write_model("not-known", SMALL(8), "full_attention_interval=8;" SSM);
    CHECK_GROUPS("not-known", FULL(1, 2, 64, 64), STATE(7, 4, 1088, 16 * 1024));
}
END_TEST

START_TEST(other_caches)
{
    /* No attention in some layers; heads where head_count_kv is missing; passes. */
    write_model("deci", SMALL(4), "attention.head_count_kv=[2 0 4 2]");
    CHECK_GROUPS("deci", FULL(2, 2, 64, 64), FULL(1, 4, 64, 64), NONE(1));
    write_model("llama", SMALL(4), "attention.head_count_kv=");
    CHECK_GROUPS("llama", FULL(4, 8, 64, 64));
    write_model("nanbeige", SMALL(4), "num_loops=3;attention.head_count_kv=[2 0 4 2]");
    CHECK_GROUPS("nanbeige", FULL(6, 2, 64, 64), FULL(3, 4, 64, 64), NONE(3));

    /* MLA: latent rows only with both keys; older files store every head. */
    write_model("deepseek2", GLM_4_7_FLASH, "block_count=48;nextn_predict_layers=1");
    kvt_layer_group with_mtp = LATENT(47, 576, 64, 20, 256, 256);
    with_mtp.draft_count = 1;
    check_groups("an MTP layer", 1, &with_mtp);
    write_model("deepseek2", GLM_4_7_FLASH,
                "attention.key_length_mla=;attention.value_length_mla=;attention.head_count_kv=20;attention.key_length=256;"
                "attention.value_length=256");
    CHECK_GROUPS("older", FULL(47, 20, 256, 256));

    /* MTP layers: what an engine does with them is its affair. They slide only where a list says so. */
    static const char *const drafts[] = { "bailingmoe2", "deepseek2", "exaone4", "glm4", "glm4moe", "mistral4", "hy_v3", "not-known" };
    for (size_t i = 0; i < sizeof drafts / sizeof drafts[0]; i++) {
        write_model(drafts[i], SMALL(4), "nextn_predict_layers=1");
        CHECK_GROUPS(drafts[i], { .kind = KVT_LAYER_FULL, .count = 3, .draft_count = 1, .kv_heads = 2, .k_dim = 64, .v_dim = 64 });
    }
#define WITH_MTP(layers, mtp) { .kind = KVT_LAYER_FULL, .count = (layers), .draft_count = (mtp), .kv_heads = 2, .k_dim = 64, .v_dim = 64 }
    write_model("cohere2moe", SMALL(6), "nextn_predict_layers=1;attention.sliding_window=32;attention.sliding_window_pattern=4");
    CHECK_GROUPS("cohere2moe", WITH_MTP(2, 1), SLIDING(3, 2, 64, 32));
    write_model("exaone-moe", SMALL(6), "nextn_predict_layers=1;attention.sliding_window=32");
    CHECK_GROUPS("exaone-moe", WITH_MTP(1, 1), SLIDING(4, 2, 64, 32));
    write_model("cohere2moe", SMALL(4), "nextn_predict_layers=1;attention.sliding_window=32;attention.sliding_window_pattern=[TTT]");
    CHECK_GROUPS("a list without them", WITH_MTP(0, 1), SLIDING(3, 2, 64, 32));

    /* Lists where llama.cpp reads a number: it takes its own. */
    write_model("exaone-moe", SMALL(4), "attention.sliding_window=32;attention.sliding_window_pattern=[FFFF]");
    CHECK_GROUPS("a list for a number", FULL(1, 2, 64, 64), SLIDING(3, 2, 64, 32));

    /* Windows that models declare and llama.cpp does not know. */
    static const char *const windows[] = { "llama", "phi3", "starcoder2" };
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        write_model(windows[i], SMALL(4), "attention.sliding_window=2047");
        CHECK_GROUPS(windows[i], SLIDING(4, 2, 64, 2047));
    }

    /* Cross attention: beside each layer's own, or in its place. */
    const kvt_layer_group cross = { .kind = KVT_LAYER_CROSS, .count = 4, .kv_heads = 2, .k_dim = 64, .v_dim = 64 };
    write_model("t5", SMALL(4), "decoder_block_count=4");
    CHECK_GROUPS("t5", FULL(4, 2, 64, 64), cross);
    write_model("mllama", SMALL(6), "attention.cross_attention_layers=[3 5]");
    CHECK_GROUPS("mllama", FULL(4, 2, 64, 64), { .kind = KVT_LAYER_CROSS, .count = 2, .kv_heads = 2, .k_dim = 64, .v_dim = 64 });

    /* States without a convolution, and of RWKV. */
    write_model("minimax-01", SMALL(8), "");
    CHECK_GROUPS("minimax-01", FULL(1, 2, 64, 64),
                 { .kind = KVT_LAYER_RECURRENT, .count = 7, .recurrent_elements = 8 * 64 * 64, .recurrent_element_bytes = 4, .state_heads = 8 });
    write_model("rwkv7", SMALL(4), "wkv.head_size=64");
    CHECK_GROUPS("rwkv7", { .kind = KVT_LAYER_RECURRENT,
                            .count = 4,
                            .conv_kernel = 3,
                            .conv_channels = 512,
                            .conv_element_bytes = 2,
                            .recurrent_elements = 512 * 64,
                            .recurrent_element_bytes = 4,
                            .state_heads = 8 });

    /* Indexers: of all layers, of listed ones, after the dense layers. */
#define MLA "attention.head_count_kv=1;attention.key_length=576;attention.key_length_mla=192;attention.value_length_mla=128;"
    write_model("glm-dsa", SMALL(12), MLA "attention.indexer.key_length=128");
    CHECK_GROUPS("GLM-5", LATENT(12, 576, 0, 8, 192, 128), INDEXER(12, 128));
    write_model("glm-dsa", SMALL(12), MLA "attention.indexer.key_length=128;context_length=1048576");
    CHECK_GROUPS("GLM-5.2", LATENT(12, 576, 0, 8, 192, 128), INDEXER(5, 128)); /* 0 1 2 6 10 */
    write_model("glm-dsa", SMALL(12), MLA "attention.indexer.key_length=128;attention.indexer.types=[T]*7[F]*5");
    CHECK_GROUPS("a list", LATENT(12, 576, 0, 8, 192, 128), INDEXER(7, 128));
    write_model("minimax-m3", SMALL(12), "attention.indexer.key_length=128;leading_dense_block_count=3");
    CHECK_GROUPS("minimax-m3", FULL(12, 2, 64, 64), INDEXER(9, 128));
}
END_TEST

/* ---- what each key changes ---------------------------------------------------------------------------------------------------------------- */

START_TEST(mutations)
{
    static const struct {
        size_t model;
        const char *change;
        bool matters;
    } rows[] = {
        { 0, "block_count=36;attention.head_count_kv=1;attention.sliding_window_pattern=[TTTTF]*7[T]", true },
        { 0, "attention.head_count_kv=2", true },
        { 0, "attention.key_length=256", true },
        { 0, "attention.value_length=256", true },
        { 0, "attention.key_length_swa=128", true },
        { 0, "attention.value_length_swa=128", true },
        { 0, "attention.sliding_window=1024", true },
        { 0, "attention.sliding_window_pattern=[TTTTTTF]*5", true },
        { 0, "attention.shared_kv_layers=19", true },
        { 0, "attention.shared_kv_layers=", true },
        { 0, "embedding_length=2048", false },
        { 0, "feed_forward_length=1", false },
        { 0, "attention.head_count=16", false },
        { 0, "attention.head_count=", false },
        { 0, "embedding_length=", false },
        { 0, "context_length=1", false },
        { 0, "rope.dimension_count=64", false },
        { 0, "attention.head_count_kv=1", false },
        { 1, "expert_count=64", false },
        { 1, "expert_used_count=4", false },
        { 1, "expert_feed_forward_length=1", false },
        { 1, "feed_forward_length=1", false },
        { 1, "attention.head_count_kv=8", true },
        { 2, "full_attention_interval=5", true },
        { 2, "full_attention_interval=", false }, /* 4 unless it says otherwise */
        { 2, "nextn_predict_layers=0", true },
        { 2, "nextn_predict_layers=2", true },
        { 2, "ssm.conv_kernel=3", true },
        { 2, "ssm.inner_size=2048", true },
        { 2, "ssm.state_size=64", true },
        { 2, "ssm.group_count=8", true },
        { 2, "ssm.time_step_rank=16", false },
        { 2, "attention.key_length=128", true },
        { 2, "embedding_length=4096", false },
        { 2, "attention.head_count=32", false },
        { 2, "expert_count=512", false },
        { 3, "attention.key_length=320", true },
        { 3, "attention.value_length=256", false },
        { 3, "attention.head_count=40", true }, /* of engines that undo the compression */
        { 3, "attention.key_length_mla=192", true },
        { 3, "attention.value_length_mla=128", true },
        { 3, "attention.q_lora_rank=1", false },
        { 3, "embedding_length=4096", false },
        { 3, "attention.indexer.key_length=64", true },
        { 4, "feed_forward_length=[0]*52", true },
        { 4, "feed_forward_length=[0 7 0 7 0 0 7]*5[0 7 0 7 0 7 0 0 7][0 7 0 7 0 7 0 7]", false },
        { 4, "attention.head_count=16", false },
        { 5, "attention.key_length=64", true },
        { 5, "attention.key_length=", true }, /* embedding_length / head_count is another width */
        { 5, "embedding_length=1", false },
        { 6, "attention.sliding_window=0", true },
        { 7, "embedding_length=1024;attention.head_count=16", true },
        { 7, "shortconv.l_cache=4", true },
        { 7, "attention.sliding_window=64", true },
        { 8, "attention.sliding_window=", true },
        { 8, "attention.sliding_window_pattern=7", true },
        { 8, "attention.sliding_window_pattern=6", false },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        model_description before, after;
        write_model(models[rows[i].model].architecture, models[rows[i].model].keys, "");
        read_good(&before);
        write_model(models[rows[i].model].architecture, models[rows[i].model].keys, rows[i].change);
        read_good(&after);
        TEST_REQUIRE(same_groups(&before.model, &after.model, true) != rows[i].matters, "%s: %s%s", models[rows[i].model].name, rows[i].change,
                     groups_text(&after.model));
        description_free(&before);
        description_free(&after);
    }
}
END_TEST

/* Layers of a file for three stages: 10 each of Gemma 4, in which every sixth is full; those for drafts belong to the last stage. */
START_TEST(stages)
{
    static const uint32_t counts[3][2] = { { 1, 9 }, { 2, 8 }, { 2, 8 } }; /* full, sliding */
    model_description description;
    model_stage parts[3];
    error_text error = { "" };
    write_model("gemma4", GEMMA4_26B, "");
    read_good(&description);
    ck_assert_msg(model_split(&description.model, &description, 3, 1, parts, &error) == 0, "%s", error.text);
    for (uint32_t i = 0; i < 3; i++) {
        const kvt_model *part = &parts[i].part.model;
        ck_assert_uint_eq(parts[i].first, 10 * i);
        ck_assert_uint_eq(part->n_groups, 2);
        ck_assert(part->groups[0].kind == KVT_LAYER_FULL && part->groups[1].kind == KVT_LAYER_SLIDING);
        ck_assert_uint_eq(part->groups[0].count, counts[i][0]);
        ck_assert_uint_eq(part->groups[1].count, counts[i][1]);
    }
    model_free_stages(parts, 3);
    description_free(&description);

    write_model("qwen35moe", QWEN3_5_35B, "");
    read_good(&description);
    ck_assert_uint_eq(description.n_layers, 40);
    ck_assert_msg(model_split(&description.model, &description, 2, 1, parts, &error) == 0, "%s", error.text);
    for (uint32_t i = 0; i < 2; i++)
        ck_assert(parts[i].part.model.groups[0].count == 5 && parts[i].part.model.groups[0].draft_count == i);
    model_free_stages(parts, 2);
    description_free(&description);
}
END_TEST

START_TEST(notes)
{
    static const struct {
        const char *architecture, *keys, *note;
    } rows[] = {
        { "qwen2", "attention.sliding_window=2047", "qwen2.attention.sliding_window is 2047, but not which layers it is for" },
        { "llama", "ssm.inner_size=64", "llama.ssm.inner_size is not understood and left out" },
        { "llama", "attention.kv_groups=64", "llama.attention.kv_groups is not understood" },
        { "llama", "attention.compress_ratios=[4]*4", "compress_ratios is not understood" },
        { "lfm2moe", "shortconv.l_cache=3;attention.sliding_window=5", "but not which layers" },
        { "llama", "shared=1;shared.too=1", "llama.shared is not understood and left out; llama.shared.too is" },
        { "llama", "rope.freq_base=1.0;attention.q_lora_rank=1;expert_shared_count=1;attention.clamp_kqv=1.0;kvx=", "" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        model_description description;
        write_model(rows[i].architecture, SMALL(4), rows[i].keys);
        read_good(&description);
        ck_assert_msg(strstr(description.notes, rows[i].note) && !*rows[i].note == !*description.notes, "\"%s\", but should be: %s",
                      description.notes, rows[i].note);
        description_free(&description);
    }

    /* A key that is not text. */
    model_description description;
    write_model("llama", SMALL(4), "");
    add_u32("llama.window\xff\n\x1b", 1);
    read_good(&description);
    ck_assert_str_eq(description.notes, "llama.window\\xff\\x0a\\x1b is not understood and left out");
    description_free(&description);
}
END_TEST

/* ---- files that are wrong ------------------------------------------------------------------------------------------------------------- */

START_TEST(wrong_values)
{
    static const struct {
        const char *architecture, *change, *message;
    } rows[] = {
        { "llama", "block_count=", "llama.block_count is missing: a whole number from 1 to 65536 would be right" },
        { "llama", "block_count=0", "llama.block_count is 0, but must be a whole number from 1 to 65536" },
        { "llama", "block_count=65537", "is 65537, but" },
        { "llama", "block_count=-1", "is -1, but" },
        { "llama", "block_count=1.5", "is not a whole number, but" },
        { "llama", "block_count=\"four\n\"", "is \"four\\x0a\", but" },
        { "llama", "block_count=[4]", "is a list of 1, but" },
        { "llama", "attention.head_count=;attention.head_count_kv=", "llama.attention.head_count is missing" },
        { "llama", "attention.head_count_kv=[2 2 2]", "is a list of 3, but must be whole numbers up to 65536, one or a list of 4" },
        { "llama", "attention.head_count_kv=[2]*5", "is a list of 5, but" },
        { "llama", "attention.head_count_kv=[TTTT]", "attention.head_count_kv[0] is true, but" },
        { "llama", "attention.head_count_kv=[2 2 2 65537]", "llama.attention.head_count_kv[3] is 65537, but must be a whole number up to 65536" },
        { "llama", "attention.head_count_kv=65537", "is 65537, but" },
        { "llama", "attention.head_count_kv=2.5", "is not a whole number" },
        { "llama", "attention.head_count_kv=\"\"", "attention.head_count_kv is \"\", but" },
        { "llama", "attention.head_count=0", "llama.attention.key_length is missing" },
        { "llama", "attention.head_count=1024", "llama.attention.key_length is missing" },
        { "llama", "embedding_length=", "llama.attention.key_length is missing: a whole number from 1 to 1024 would be right" },
        { "llama", "attention.key_length=1025", "is 1025, but" },
        { "llama", "attention.value_length=0", "attention.value_length is 0, but" },
        { "llama", "attention.indexer.key_length=0", "indexer.key_length is 0" },
        { "llama", "attention.shared_kv_layers=5", "shared_kv_layers is 5, but must be a whole number from 0 to 4" },
        { "llama", "nextn_predict_layers=4", "nextn_predict_layers is 4, but must be a whole number from 0 to 3" },
        { "llama", "num_loops=20000", "num_loops is 20000, but must be a whole number from 1 to 16384" },
        { "llama", "attention.key_length_mla=192", "attention.value_length_mla is missing" },
        { "llama", "attention.key_length_mla=192;attention.value_length_mla=128", "attention.key_length is missing" },
        { "deepseek2", "attention.key_length_mla=192;attention.value_length_mla=128;attention.key_length=576",
          "attention.head_count_kv is 2, but must be 1 where" },
        { "gemma4", "", "gemma4.attention.sliding_window is missing" },
        { "gemma4", "attention.sliding_window=5", "attention.sliding_window_pattern is missing" },
        { "gemma4", "attention.sliding_window=5;attention.sliding_window_pattern=6", "pattern is 6, but must be a list" },
        { "gemma4", "attention.sliding_window=5;attention.sliding_window_pattern=[TF]", "pattern is a list of 2, but" },
        { "gemma4", "attention.sliding_window=5;attention.sliding_window_pattern=[0 1 2 0]", "pattern[2] is 2, but" },
        { "gemma3", "attention.sliding_window=[5 5 5 5]", "sliding_window is a list of 4, but" },
        { "mamba", "ssm.conv_kernel=4", "mamba.ssm.inner_size is missing" },
        { "qwen35", "", "qwen35.ssm.conv_kernel is missing" },
        { "qwen35", "full_attention_interval=0", "full_attention_interval is 0" },
        { "qwen35", "attention.recurrent_layers=[TF]", "recurrent_layers is a list of 2" },
        { "lfm2", "", "lfm2.shortconv.l_cache is missing" },
        { "kimi-linear", "attention.head_count=0", "attention.head_count is 0, but" },
        { "deepseek4", "attention.sliding_window=5", "compress_ratios is missing" },
        { "deepseek4", "attention.sliding_window=5;attention.compress_ratios=[4 4 4]", "compress_ratios is a list of 3" },
        { "deepseek4", "attention.sliding_window=5;attention.compress_ratios=[4 5 4 4]", "a list that has 0, 4 or 128" },
        { "deepseek4", "attention.sliding_window=5;attention.compress_ratios=[4]*4", "indexer.key_length is missing" },
        { "rwkv7", "", "rwkv7.wkv.head_size is missing" },
        { "t5", "decoder_block_count=3", "t5.decoder_block_count is 3, but must be as many as block_count" },
        { "mllama", "attention.cross_attention_layers=1", "must be a list of the layers that have cross attention" },
        { "llama", "wkv.head_size=64", "its state, of wkv.head_size, is of no known kind" },
        { "bert", "", "general.architecture is \"bert\": such models have no cache" },
        { "gemma4-assistant", "", "no cache of their own" },
        { "", "", "general.architecture is \"\", but must be a name" },
        { "two words", "", "must be of plain characters" },
        { "12345678901234567890123456789012345678901234567890123456789012345", "", "a name of 1 to 64" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_model(rows[i].architecture, SMALL(4), rows[i].change);
        read_bad(rows[i].message);
    }
    write_model("llama", SMALL(300), "");
    char list[4000] = "attention.head_count_kv=[", *end = list + strlen(list);
    for (int i = 1; i <= 300; i++)
        end += snprintf(end, sizeof list - (size_t)(end - list), "%d ", i);
    end[-1] = ']';
    write_model("llama", SMALL(300), list);
    read_bad("more than 256 kinds");

    /* Other widths of numbers are as good; too large a one is not. */
    static const struct {
        uint32_t type;
        size_t bytes;
        bool good;
    } types[] = { { U8, 1, true },  { I8, 1, true },  { U16, 2, true }, { I16, 2, true },  { U32, 4, true },
                  { I32, 4, true }, { U64, 8, true }, { I64, 8, true }, { F64, 8, false }, { BOOL, 1, false } };
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const uint64_t four = 4, huge = UINT64_MAX;
        write_model("llama", SMALL(4), "block_count=");
        add_key("llama.block_count", types[i].type);
        put(&four, types[i].bytes);
        if (types[i].good)
            CHECK_GROUPS("a type", FULL(4, 2, 64, 64));
        else
            read_bad("llama.block_count is ");
        write_model("llama", SMALL(4), "block_count=");
        add_key("llama.block_count", types[i].type);
        put(&huge, types[i].bytes);
        if (types[i].type == U8 || types[i].type == U16)
            CHECK_GROUPS("a type", FULL(types[i].type == U8 ? 255 : 65535, 2, 64, 64));
        else
            read_bad("llama.block_count is ");
    }
}
END_TEST

START_TEST(split)
{
    begin();
    add_key("split.no", U16);
    put(&(uint16_t){ 1 }, 2);
    add_key("split.count", U16);
    put(&(uint16_t){ 3 }, 2);
    read_bad("split.no is 1: only the first part");
    write_model("llama", SMALL(4), "block_count=");
    add_u32("split.no", 2);
    read_bad("split.no is 2: only the first part");
    write_model("llama", SMALL(4), "");
    add_u32("split.no", 0);
    add_u32("split.count", 3);
    CHECK_GROUPS("the first part", FULL(4, 2, 64, 64));
    begin();
    read_bad("general.architecture is missing");
    add_u32("general.architecture", 4);
    read_bad("general.architecture is 4, but");
}
END_TEST

/* ---- bytes of weights ---------------------------------------------------------------------------------------------------------------- */

static char weights_folder[] = "/tmp/kvtile-weights-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "%s/%s", weights_folder, name);
    return path;
}

static void store(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(in_folder(name), "wb");
    ck_assert(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0);
}

/* A GGUF of f32 vectors of 8 and `elements`, in `parts` parts if there are several. The first takes a whole alignment of 32 bytes. */
static void store_gguf(const char *name, uint64_t elements, uint32_t parts)
{
    static const char zeros[4096];
    const uint64_t n_tensors = 2;
    const struct {
        const char *name;
        uint64_t size, at;
    } tensors[] = { { "a.weight", 8, 0 }, { "b.weight", elements, 32 } };
    begin();
    memcpy(out.bytes + 8, &n_tensors, 8);
    add_string("general.architecture", "llama");
    if (parts > 1)
        add_u32("split.count", parts);
    for (size_t i = 0; i < n_tensors; i++) {
        put_text(tensors[i].name, strlen(tensors[i].name));
        put_u32(1);
        put_u64(tensors[i].size);
        put_u32(0);
        put_u64(tensors[i].at);
    }
    put(zeros, (32 - out.size % 32) % 32 + 32 + elements * 4);
    store(name, out.bytes, out.size);
}

static void store_safetensors(const char *name, const char *header, size_t bytes)
{
    static const char zeros[4096];
    out.size = 0;
    put_text(header, strlen(header));
    put(zeros, bytes);
    store(name, out.bytes, out.size);
}

static uint64_t weights_of(const char *path)
{
    uint64_t bytes = 0;
    error_text error = { "" };
    ck_assert_msg(model_weights(path, &bytes, &error) == 0, "%s", error.text);
    return bytes;
}

static void refuses_weights(const char *path, const char *part)
{
    uint64_t bytes = 0;
    error_text error = { "" };
    ck_assert_int_eq(model_weights(path, &bytes, &error), -1);
    ck_assert_msg(strstr(error.text, part) != NULL, "\"%s\" instead of \"%s\"", error.text, part);
}

static void cut_by(const char *name, off_t bytes)
{
    struct stat file;
    ck_assert_int_eq(stat(in_folder(name), &file), 0);
    ck_assert_int_eq(truncate(in_folder(name), file.st_size - bytes), 0);
}

/* The types of ggml, from the widths of their blocks: rows of 512 numbers, three of them. */
START_TEST(bytes_of_tensors)
{
    static const struct {
        uint32_t type, bits; /* of 16 numbers */
    } rows[] = { { 0, 512 }, { 1, 256 }, { 2, 72 }, { 8, 136 }, { 12, 72 }, { 14, 105 }, { 23, 68 }, { 30, 256 }, { 39, 68 }, { 40, 72 } };
    gguf_tensor tensor = { .n_sizes = 2, .sizes = { 512, 3, 1, 1 } };
    uint64_t bytes;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tensor.type = rows[i].type;
        ck_assert(gguf_tensor_bytes(&tensor, &bytes));
        ck_assert_uint_eq(bytes, 3 * 512 / 16 * rows[i].bits / 8);
    }
    for (uint32_t type = 4; type < 1000; type += type == 5 ? 26 : type == 31 ? 10 : 1) { /* 4, 5, 31, 41 and so on */
        tensor.type = type;
        ck_assert_msg(!gguf_tensor_bytes(&tensor, &bytes), "type %u", type);
    }
    tensor.type = 0;
    tensor.sizes[3] = UINT64_MAX / 8;
    ck_assert(!gguf_tensor_bytes(&tensor, &bytes));
}
END_TEST

START_TEST(weights)
{
    static const char *const names[] = {
        "one.gguf",    "two-00001-of-00002.gguf",     "two-00002-of-00002.gguf", "alone.gguf", "a.safetensors", "b.safetensors",
        "config.json", "model.safetensors.index.json"
    };
    static const char *const forms[] = { "consolidated.safetensors", "model-00001-of-00001.safetensors", "model.safetensors" };
    static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}",
                      index[] = "{\"metadata\": {\"total_size\": 1234}}";
    ck_assert_ptr_nonnull(mkdtemp(weights_folder));

    store_gguf("one.gguf", 100, 1);
    ck_assert_uint_eq(weights_of(in_folder("one.gguf")), 32 + 400);
    store_gguf("two-00001-of-00002.gguf", 100, 2);
    refuses_weights(in_folder("two-00001-of-00002.gguf"), "part 2 of 2: ");
    store_gguf("two-00002-of-00002.gguf", 10, 2);
    ck_assert_uint_eq(weights_of(in_folder("two-00001-of-00002.gguf")), 32 + 400 + 32 + 40);
    store_gguf("alone.gguf", 10, 2);
    refuses_weights(in_folder("alone.gguf"), "-00001-of-00002.gguf");
    cut_by("one.gguf", 1);
    refuses_weights(in_folder("one.gguf"), "takes 400 bytes, and the file ends 1 bytes before its end");
    cut_by("two-00002-of-00002.gguf", 4);
    refuses_weights(in_folder("two-00001-of-00002.gguf"), "part 2 of 2: is cut short: tensor ");
    ck_assert_int_eq(truncate(in_folder("one.gguf"), 40), 0);
    refuses_weights(in_folder("one.gguf"), "");

    refuses_weights(weights_folder, "there are no weights");
    store_safetensors("a.safetensors", header, 16);
    store_safetensors("b.safetensors", "{}", 1000);
    store("config.json", "{}", 2);
    ck_assert_uint_eq(weights_of(weights_folder), 1016);
    ck_assert_uint_eq(weights_of(in_folder("config.json")), 1016);
    store_safetensors("consolidated.safetensors", header, 16); /* the same weights again, and those of an adapter */
    store_safetensors("model-00001-of-00001.safetensors", "{}", 500);
    ck_assert_uint_eq(weights_of(weights_folder), 500);
    store_safetensors("model.safetensors", "{}", 501);
    ck_assert_uint_eq(weights_of(weights_folder), 501);
    ck_assert_int_eq(truncate(in_folder("consolidated.safetensors"), 4), 0); /* is not looked at */
    ck_assert_uint_eq(weights_of(weights_folder), 501);
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        ck_assert_int_eq(unlink(in_folder(forms[i])), 0);
    ck_assert_int_eq(truncate(in_folder("a.safetensors"), 20), 0);
    refuses_weights(weights_folder, "is cut short");
    ck_assert_int_eq(truncate(in_folder("a.safetensors"), 4), 0);
    refuses_weights(weights_folder, "is no safetensors file");
    store("model.safetensors.index.json", index, sizeof index - 1); /* counts, whatever lies beside it */
    ck_assert_uint_eq(weights_of(weights_folder), 1234);
    refuses_weights(in_folder("nothing.gguf"), "has no weights");

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        ck_assert_int_eq(unlink(in_folder(names[i])), 0);
    ck_assert_int_eq(rmdir(weights_folder), 0);
}
END_TEST

static void set_u64(size_t at, uint64_t value)
{
    memcpy(out.bytes + at, &value, 8);
}

START_TEST(malformed)
{
    static const uint64_t huge[] = {
        1000, 65536, UINT64_C(1) << 31, UINT64_C(1) << 32, UINT64_C(1) << 60, (UINT64_C(1) << 61) + 1, UINT64_C(1) << 63, UINT64_MAX - 8, UINT64_MAX
    };
    for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
        write_model("llama", SMALL(4), "");
        set_u64(16, huge[i]);
        read_bad(huge[i] <= 65536 ? "ends inside" : "keys, but may have 65536");
        write_model("llama", SMALL(4), "");
        set_u64(24, huge[i]); /* the first key's length */
        read_bad("ends inside");
        write_model("llama", SMALL(4), "");
        set_u64(24 + 8 + 20 + 4, huge[i]); /* of the string general.architecture */
        read_bad("ends inside");
        static const uint32_t types[] = { U8, U16, U32, U64, STRING };
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            write_model("llama", SMALL(4), "");
            add_key("list", LIST);
            put_u32(types[t]);
            put_u64(huge[i]);
            put_u64(0);
            read_bad("ends inside");
        }
    }

    write_model("llama", SMALL(4), "");
    add_key("nested\t", LIST);
    put_u32(LIST);
    put_u64(1);
    put_u32(U8);
    put_u64(0);
    read_bad("nested\\x09 has a value of type 9 in a list");
    write_model("llama", SMALL(4), "");
    add_key("strange", 13);
    put_u64(0);
    read_bad("strange has a value of type 13, but");
    write_model("llama", SMALL(4), "llama.block_count=4");
    add_u32("llama.block_count", 4);
    read_bad("the metadata has llama.block_count twice");
    write_model("llama", SMALL(4), "");
    add_u32("", 1);
    add_u32("", 1);
    read_bad("the metadata has  twice");

    static char key[65537];
    memset(key, 'k', 65536);
    writer *const long_one = &out;
    begin();
    put_text(key, 60000);
    put_u32(U8);
    put("", 1);
    set_u64(16, 1);
    read_bad("general.architecture is missing");
    unsigned char *bytes = test_malloc(24 + 8 + 65536 + 5);
    begin();
    set_u64(16, 1);
    memcpy(bytes, long_one->bytes, 24);
    memcpy(bytes + 24, &(uint64_t){ 65536 }, 8);
    memset(bytes + 32, 'k', 65536);
    memset(bytes + 32 + 65536, 0, 5);
    model_description description;
    error_text error;
    ck_assert_int_eq(read_bytes(bytes, 24 + 8 + 65536 + 5, &description, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "a key of the metadata has 65536 bytes, but may have 65535"));
    free(bytes);

    /* Empty keys, strings and lists are none of our business. */
    write_model("llama", SMALL(4), "");
    add_u32("", 1);
    add_string("empty", "");
    add_key("list", LIST);
    put_u32(F64);
    put_u64(0);
    CHECK_GROUPS("empty", FULL(4, 2, 64, 64));
}
END_TEST

START_TEST(header)
{
    static const struct {
        uint32_t version;
        const char *message;
    } rows[] = { { 0, "the GGUF version is 0, but must be 2 or 3" },
                 { 1, "is 1, but must be 2 or 3: convert the model again" },
                 { 4, "the GGUF version is 4, but" },
                 { 0x03000000, "a big-endian GGUF file" },
                 { 0x02000000, "a big-endian GGUF file" },
                 { UINT32_MAX, "is 4294967295, but" } };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_model("llama", SMALL(4), "");
        memcpy(out.bytes + 4, &rows[i].version, 4);
        read_bad(rows[i].message);
    }
    write_model("llama", SMALL(4), "");
    out.bytes[0] = 'g';
    read_bad("not GGUF");

    model_description description;
    error_text error;
    ck_assert_int_eq(read_bytes("", 0, &description, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "not GGUF"));
}
END_TEST

/* Every cut inside the metadata is an error, and what follows the metadata does not matter. */
START_TEST(truncated)
{
    write_model("gemma4", GEMMA4_26B, "");
    for (size_t size = 0; size <= out.size + 9; size++) {
        model_description description;
        error_text error;
        TEST_REQUIRE(read_bytes(out.bytes, size, &description, &error) == (size < out.size ? -1 : 0), "cut after %zu bytes", size);
        description_free(&description);
    }
}
END_TEST

/* What was read can be sized by every engine, or is refused for a reason: never for contradicting itself. */
static void check_changed(const unsigned char *bytes, size_t size)
{
    model_description description;
    error_text error;
    if (read_bytes(bytes, size, &description, &error) != 0) {
        TEST_REQUIRE(!strchr(error.text, '\n'), "%s", error.text);
        return;
    }
    for (size_t i = 0; kvt_engine_at(i) != KVT_ENGINE_NONE; i++) {
        const kvt_size_request request = { .size = sizeof request, .engine = kvt_engine_at(i), .context = 100000, .sequences = 2 };
        kvt_size_report report;
        const kvt_status status = kvt_size(&description.model, &request, &report, NULL);
        TEST_REQUIRE(status == KVT_OK || status == KVT_ERR_OVERFLOW || status == KVT_ERR_ENGINE, "%s:%s", kvt_status_text(status),
                     groups_text(&description.model));
    }
    description_free(&description);
}

START_TEST(changed_bytes)
{
    write_model(models[_i].architecture, models[_i].keys, "");
    const size_t step = KVT_TEST_SHARE;
    for (size_t at = 0; at < out.size; at += step) {
        const unsigned char old = out.bytes[at];
        const unsigned char others[] = { 0x00, 0xff, (unsigned char)(old + 1), (unsigned char)(old - 1), old ^ 0x80 };
        for (size_t i = 0; i < sizeof others; i++) {
            out.bytes[at] = others[i];
            check_changed(out.bytes, out.size);
        }
        out.bytes[at] = old;
    }

    /* Several at once, that are more often than not in the values. */
    uint64_t state = 20260806 + (uint64_t)_i;
    static unsigned char bytes[sizeof out.bytes];
    for (unsigned n = 0; n < 4000 / step; n++) {
        memcpy(bytes, out.bytes, out.size);
        for (uint32_t changes = 1 + test_below(&state, 6); changes > 0; changes--)
            bytes[24 + test_below(&state, (uint32_t)out.size - 24)] = (unsigned char)test_below(&state, test_below(&state, 2) ? 256 : 4);
        check_changed(bytes, out.size);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gguf");
    TCase *cases = tcase_create("gguf");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, catalogue);
    tcase_add_test(cases, llama_cpp_bytes);
    tcase_add_test(cases, sliding);
    tcase_add_test(cases, recurrent);
    tcase_add_test(cases, other_caches);
    tcase_add_test(cases, mutations);
    tcase_add_test(cases, stages);
    tcase_add_test(cases, notes);
    tcase_add_test(cases, wrong_values);
    tcase_add_test(cases, split);
    tcase_add_test(cases, bytes_of_tensors);
    tcase_add_test(cases, weights);
    tcase_add_test(cases, malformed);
    tcase_add_test(cases, header);
    tcase_add_test(cases, truncated);
    tcase_add_loop_test(cases, changed_bytes, 0, N_MODELS);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
