/* SPDX-License-Identifier: MIT */
/* vLLM V1, as of 0.27: vllm/v1/kv_cache_interface.py, vllm/v1/core/kv_cache_utils.py, vllm/model_executor/models/config.py; for DeepSeek-V4
 * vllm/models/deepseek_v4. */
#include "engine.h"

#include <string.h>

#define BLOCK          16
#define DS4_BLOCK      256 /* DeepSeek-V4: tokens of a block, 64 in sliding layers */
#define DS4_SLIDING    64
#define DS4_ALIGN      576 /* its pages are multiples of this */
#define DS4_SLOT       584 /* 448 numbers of FP8, 64 of bf16, 8 bytes for 7 scales */
#define MLA_CHANNELS   576
#define MLA_SLOT       656 /* fp8_ds_mla of DeepSeek-V3.2: 512 numbers of FP8, 4 scales of f32, 64 of bf16 */
#define INDEXER_BYTES  132 /* a key of 128 numbers of FP8 and its f32 scale, whatever the type of the cache */
#define INDEXER_SCALES 4

/* Beside 16 bits: FP8 with a scale for a whole tensor; a scale of f32 for each token and head; NVFP4, 16 numbers and their FP8 scale. */
static const struct kvt_store_type types[] = {
    { "f16", 1, 2, 0, 0 },
    { "bf16", 1, 2, 0, 0 },
    { "auto", 1, 2, 0, 0 },
    { "float16", 1, 2, 0, 0 },
    { "bfloat16", 1, 2, 0, 0 },
    { "fp8", 1, 1, 0, 0 },
    { "fp8_e4m3", 1, 1, 0, 0 },
    { "fp8_e5m2", 1, 1, 0, 0 },
    { "int8_per_token_head", 1, 1, 0, 4 },
    { "fp8_per_token_head", 1, 1, 0, 4 },
    { "nvfp4", 16, 9, 1, 0 },
    { "fp8_ds_mla", 1, 1, 0, 0 },
    { NULL, 0, 0, 0, 0 },
};

/* ---- what it does with each model_type (vllm/model_executor/models of 0.33) ----------------------------------------------------------- */

enum {
    EQUAL_WIDTHS = KVT_KNOWS_MORE /* values are padded to the width of keys */
};

#define W KVT_KNOWS_WINDOWS
#define L KVT_KNOWS_LATENT
#define S KVT_KNOWS_SHARING
#define I KVT_KNOWS_INDEXERS

/* clang-format off */
static const struct kvt_type_rule model_types[] = {
    { "afmoe", W }, { "apertus", W }, { "aria", W }, { "axk1", W | L }, { "bailing_moe", W }, { "bailing_moe_linear", W | L }, { "beam", W },
    { "blip-2", W }, { "bloom", W }, { "chatglm", W }, { "cohere", W }, { "cohere2", W }, { "cohere2_moe", W }, { "cohere2_vision", W },
    { "cohere_compass", W }, { "cosmos3_edge", W }, { "dbrx", W }, { "deepseek_v2", W | L }, { "deepseek_v3", W | L },
    { "deepseek_v32", W | L | I }, { "deepseek_v4", W | L | I }, { "diffusion_gemma", W }, { "dory", W }, { "ernie4_5", W }, { "ernie4_5_moe", W },
    { "ernie4_5_vl_moe", W }, { "exaone", W }, { "exaone4", W }, { "exaone4_5", W }, { "exaone_moe", W }, { "falcon", W }, { "falcon_h1", W },
    { "falcon_mamba", W }, { "flint", W }, { "gemma", W }, { "gemma2", W }, { "gemma3", W }, { "gemma3n", W | S }, { "gemma4", W | S },
    { "gemma4_unified", W | S }, { "glm4", W }, { "glm4_moe", W }, { "glm4_moe_lite", W | L }, { "glm4v", W }, { "glm4v_moe", W },
    { "glm5_next", W }, { "glm_moe_dsa", W | L | I }, { "glm_ocr", W }, { "glmasr", W }, { "gpt-sw3", W }, { "gpt2", W }, { "gpt_oss", W },
    { "gptj", W }, { "granite", W }, { "granite4_vision", W }, { "granite_speech", W }, { "granite_speech_plus", W }, { "granite_swa", W },
    { "granitemoe", W }, { "granitemoe_swa", W }, { "granitemoehybrid", W }, { "granitemoeshared", W }, { "hrm", W }, { "hy_v3", W },
    { "hy_v4", W }, { "hyperclovax", W }, { "idefics3", W }, { "inkling", W }, { "inkling_mm_model", W }, { "internlm2", W }, { "internlm3", W },
    { "internvl", W }, { "iquestcoder", W }, { "jamba", W }, { "kimi_k2", W | L }, { "kimi_k25", W | L }, { "kimi_linear", W | L }, { "laguna", W },
    { "lfm2", W }, { "lfm2_moe", W }, { "lfm2_vl", W }, { "llama", W }, { "llama4", W }, { "llava", W }, { "llava_next", W },
    { "llava_next_video", W }, { "llava_onevision", W }, { "longcat_flash", W | L }, { "mamba", W }, { "mamba2", W }, { "mimo", W },
    { "mimo_v2_flash", W }, { "minicpm", W }, { "minicpm3", W | EQUAL_WIDTHS }, { "minicpm_ocr", W }, { "minicpmv4_6", W }, { "minicpmv4_7", W },
    { "minimax_m2", W }, { "minimax_m3_vl", W }, { "ministral3", W }, { "mistral", W }, { "mistral3", W }, { "mistral4", W | L }, { "mixtral", W },
    { "molmo2", W }, { "moss_transcribe_diarize", W }, { "muse_glimmer", W }, { "muse_spark", W }, { "nemotron", W }, { "nemotron-nas", W },
    { "nemotron_h", W }, { "nemotron_h_omni", W }, { "olmo_hybrid", W }, { "olmoe", W }, { "opt", W }, { "orion", W }, { "paddleocr_vl", W },
    { "paligemma", W }, { "phi3", W }, { "plamo3", W }, { "qianfan_ocr", W }, { "qwen2", W }, { "qwen2_5_omni", W }, { "qwen2_5_vl", W },
    { "qwen2_audio", W }, { "qwen2_moe", W }, { "qwen2_vl", W }, { "qwen3", W }, { "qwen3_5", W }, { "qwen3_5_moe", W }, { "qwen3_asr", W },
    { "qwen3_moe", W }, { "qwen3_next", W }, { "qwen3_omni_moe", W }, { "qwen3_vl", W }, { "qwen3_vl_moe", W }, { "sarvam_mla", W | L },
    { "sarvam_moe", W }, { "shieldgemma2", W }, { "smolvlm", W }, { "stablelm", W }, { "step3p5", W }, { "step3p7", W }, { "voxtral", W },
    { "xverse", W }, { "zamba2", W },
    { NULL, 0 },
};
/* clang-format on */
#undef W
#undef L
#undef S
#undef I

static void adapt_vllm(const struct kvt_sizing *sizing, kvt_layer_group *group)
{
    if ((sizing->knows & EQUAL_WIDTHS) && group->v_dim)
        group->v_dim = group->k_dim;
}

static bool is_ds_mla(const struct kvt_sizing *sizing)
{
    return strcmp(sizing->k_type->name, "fp8_ds_mla") == 0;
}

static bool is_plain(const struct kvt_store_type *type)
{
    return type->block == 1 && type->row_scales == 0;
}

/* Bytes of a row of one layer. */
static kvt_status plan_row(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const struct kvt_store_type *type = sizing->k_type;
    if (group->v_dim && !kvt_same_store(type, sizing->v_type))
        return kvt_cannot(sizing, "values: vllm stores keys and values in the same type");
    if (group->kind == KVT_LAYER_INDEXER) {
        if (group->k_dim != INDEXER_BYTES - INDEXER_SCALES)
            return kvt_cannot(sizing, "no rule of vllm is known for an indexer whose keys are not 128 channels wide");
        plan->payload = INDEXER_BYTES - INDEXER_SCALES;
        plan->scales = INDEXER_SCALES;
    } else if (sizing->compressed) {
        if (group->kv_heads != 1 || group->k_dim != 512 || group->v_dim)
            return kvt_cannot(sizing, "no rule of vllm is known for compressed caches that are not one head of 512 channels");
        plan->payload = DS4_SLOT - 8;
        plan->scales = 8;
    } else if (is_ds_mla(sizing)) {
        if (group->kind != KVT_LAYER_LATENT || group->k_dim != MLA_CHANNELS)
            return kvt_cannot(sizing, "fp8_ds_mla is for MLA of 512 + 64 channels");
        plan->payload = MLA_SLOT - 16;
        plan->scales = 16;
    } else if (group->kind == KVT_LAYER_LATENT && !is_plain(type)) {
        return kvt_cannot(sizing, "vllm stores MLA in 16 bits, fp8 or fp8_ds_mla");
    } else if (group->k_dim % type->block != 0 || group->v_dim % type->block != 0) {
        return kvt_cannot(sizing, "vllm cannot store a head whose channels are not a multiple of the type's block of 16");
    } else {
        kvt_plan_add_rows(plan, type, group->kv_heads, group->k_dim);
        kvt_plan_add_rows(plan, type, group->kv_heads, group->v_dim);
    }
    return KVT_OK;
}

static uint64_t row_bytes(struct kvt_sizing *sizing, const kvt_layer_group *group)
{
    struct kvt_group_plan plan = { 0 };
    return plan_row(sizing, group, &plan) == KVT_OK ? plan.payload + plan.scales : 0;
}

static uint64_t block_tokens_of(const struct kvt_sizing *sizing)
{
    return sizing->request->block_tokens ? sizing->request->block_tokens : BLOCK;
}

/* How many blocks make up a page: as many as bring its bytes closest to a page's. */
static uint64_t blocks_in_page(const struct kvt_sizing *sizing, uint64_t row)
{
    const uint64_t block = block_tokens_of(sizing) * row, blocks = (sizing->page_bytes + block / 2) / block;
    return blocks ? blocks : 1;
}

/* Layers of different types (full, sliding, recurrent) share one pool: their pages are made equal, and so are the numbers of layers of the
 * groups they are split into. A recurrent state is a page; the block of full layers grows until it is no smaller. */
static kvt_status share_pool(struct kvt_sizing *sizing)
{
    const kvt_model *model = sizing->model;
    uint64_t largest = 0, state = 0, fewest = UINT64_MAX, most = 0;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group stored = kvt_stored_group(sizing, i), *group = &stored;
        if (group->kind == KVT_LAYER_NONE || group->count == 0)
            continue;
        fewest = kvt_least(fewest, group->count);
        most = most < group->count ? group->count : most;
        if (kvt_has_rows(group)) {
            const uint64_t row = row_bytes(sizing, group);
            if (row == 0)
                return KVT_OK; /* plan_vllm says what is wrong */
            largest = largest < row ? row : largest;
        } else {
            uint64_t bytes;
            if (kvt_state_bytes(group, kvt_conv_history(group), 0, 0, &bytes) != KVT_OK)
                return KVT_ERR_OVERFLOW;
            state = state < bytes ? bytes : state;
        }
    }
    sizing->group_layers = 2 * most < 3 * fewest ? most : fewest;

    uint64_t page = block_tokens_of(sizing) * largest;
    if (page < state && kvt_times(kvt_parts(state, block_tokens_of(sizing) * largest), block_tokens_of(sizing) * largest, &page) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    if (page > UINT64_MAX / 4)
        return KVT_ERR_OVERFLOW;
    sizing->page_bytes = page;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group group = kvt_stored_group(sizing, i);
        if (!kvt_has_rows(&group) || group.count == 0)
            continue;
        const uint64_t row = row_bytes(sizing, &group);
        const uint64_t bytes = blocks_in_page(sizing, row) * block_tokens_of(sizing) * row;
        page = page < bytes ? bytes : page;
    }
    sizing->page_bytes = page;
    return KVT_OK;
}

/* "auto" is what the checkpoint asks for, else 16 bits. */
static kvt_status resolve_auto(const char *asked, const struct kvt_store_type **type)
{
    if (!asked || strcmp((*type)->name, "auto") != 0)
        return KVT_OK;
    for (const struct kvt_store_type *t = types; t->name; t++) {
        if (strcmp(t->name, asked) == 0) {
            *type = t;
            return KVT_OK;
        }
    }
    return KVT_ERR_ENGINE;
}

static kvt_status prepare_vllm(struct kvt_sizing *sizing)
{
    const char *asked = sizing->model->kv_type;
    if (resolve_auto(asked, &sizing->k_type) != KVT_OK || resolve_auto(asked, &sizing->v_type) != KVT_OK)
        return kvt_cannot(sizing, "auto: the checkpoint asks for a type of cache that is not known; name one");
    if (sizing->compressed) {
        if (!is_ds_mla(sizing))
            return kvt_cannot(sizing, "vllm stores DeepSeek-V4 as fp8_ds_mla");
        if (sizing->request->block_tokens)
            return kvt_cannot(sizing, "block: vllm stores DeepSeek-V4 in blocks of 256 tokens");
        return KVT_OK;
    }

    bool full = false, sliding = false, recurrent = false;
    for (size_t i = 0; i < sizing->model->n_groups; i++) {
        const kvt_layer_group group = kvt_stored_group(sizing, i);
        const kvt_layer_kind kind = group.count ? group.kind : KVT_LAYER_NONE;
        full = full || kind == KVT_LAYER_FULL || kind == KVT_LAYER_LATENT;
        sliding = sliding || kind == KVT_LAYER_SLIDING;
        recurrent = recurrent || kind == KVT_LAYER_RECURRENT;
    }
    return full + sliding + recurrent > 1 ? share_pool(sizing) : KVT_OK;
}

/* Tokens of a page and the bytes that fill it up. */
static void plan_page(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const uint64_t row = plan->payload + plan->scales;
    if (sizing->compressed) {
        plan->page_tokens = group->kind == KVT_LAYER_SLIDING ? DS4_SLIDING : DS4_BLOCK;
        plan->page_rows = kvt_parts(plan->page_tokens, kvt_tokens_per_row(group));
        plan->page_padding = kvt_parts(plan->page_rows * row, DS4_ALIGN) * DS4_ALIGN - plan->page_rows * row;
        return;
    }
    plan->page_tokens = block_tokens_of(sizing);
    if (sizing->page_bytes)
        plan->page_tokens *= blocks_in_page(sizing, row);
    plan->page_rows = kvt_parts(plan->page_tokens, kvt_tokens_per_row(group));
    plan->page_padding = sizing->page_bytes ? sizing->page_bytes - plan->page_rows * row : 0;
}

static kvt_status plan_vllm(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    if (group->kind == KVT_LAYER_NONE)
        return KVT_OK;
    if (sizing->group_layers)
        plan->padding_layers = kvt_parts(group->count, sizing->group_layers) * sizing->group_layers - group->count;

    plan->states = request->sequences;
    if (kvt_state_bytes(group, kvt_conv_history(group), 0, 0, &plan->state) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    if (!kvt_has_rows(group)) {
        plan->state_padding = sizing->page_bytes > plan->state ? sizing->page_bytes - plan->state : 0;
        return KVT_OK;
    }

    const kvt_status status = plan_row(sizing, group, plan);
    if (status != KVT_OK)
        return status;
    plan_page(sizing, group, plan);
    uint64_t pages = kvt_parts(request->context, plan->page_tokens);
    if (group->kind == KVT_LAYER_SLIDING) { /* the window, what a step adds, and a page in which they may begin */
        const uint64_t batch = request->batch_tokens ? request->batch_tokens : 1;
        pages = kvt_least(pages, kvt_parts((uint64_t)group->window - 1 + batch, plan->page_tokens) + 1);
    }
    if (kvt_times(pages, request->sequences, &plan->pages) != KVT_OK ||
        kvt_times(kvt_used_rows(group, request->context), request->sequences, &plan->used_rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    return KVT_OK;
}

const struct kvt_engine_rules kvt_engine_vllm = {
    .title = "vllm 0.27: blocks of 16 tokens, one pool of equal pages for layers of different types",
    .types = types,
    .options = KVT_OPTION_BATCH | KVT_OPTION_BLOCK | KVT_OPTION_PREFIX,
    .model_types = model_types,
    .knows_unknown = KVT_KNOWS_ALL,
    .prepare = prepare_vllm,
    .adapt = adapt_vllm,
    .plan = plan_vllm,
};
