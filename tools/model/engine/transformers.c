/* SPDX-License-Identifier: MIT */
/* Hugging Face transformers 5.24: src/transformers/cache_utils.py (DynamicCache of a configuration, the layers that it makes of layer_types, and
 * QuantizedCache), and the calls of cache.update in the models' files. MLA is cached as latent rows since 5.2x; older versions stored what they
 * expand to. tests/model/engines/transformers_caches.py compares with the tensors of small models. */
#include "engine.h"

/* Beside the model's own types, those of QuantizedCache, by backend and bits: groups of 64 numbers, whatever heads they are of, with a scale and a
 * zero point of 16 bits each. It quantizes prompts whole; later tokens wait in 16 bits until there are 128, which is not counted here. "fp8" has a
 * scale for a whole tensor, 8 bytes for a layer, which are not counted either. */
static const struct kvt_store_type types[] = {
    { "f16", 1, 2, 0, 0 },     { "bf16", 1, 2, 0, 0 },      { "f32", 1, 4, 0, 0 },       { "float16", 1, 2, 0, 0 }, { "bfloat16", 1, 2, 0, 0 },
    { "float32", 1, 4, 0, 0 }, { "quanto4", 64, 36, 4, 0 }, { "quanto2", 64, 20, 4, 0 }, { "hqq8", 64, 68, 4, 0 },  { "hqq4", 64, 36, 4, 0 },
    { "hqq2", 64, 20, 4, 0 },  { "hqq1", 64, 12, 4, 0 },    { "fp8", 1, 1, 0, 0 },       { NULL, 0, 0, 0, 0 },
};

enum {
    SHORT_HISTORY = KVT_KNOWS_MORE /* convolutions keep one input less than their kernel is wide */
};

#define W KVT_KNOWS_WINDOWS
#define L KVT_KNOWS_LATENT
#define S KVT_KNOWS_SHARING
#define I KVT_KNOWS_INDEXERS

/* clang-format off */
static const struct kvt_type_rule model_types[] = {
    { "afmoe", W }, { "apertus", W }, { "apertus1p5", W }, { "arcee", W }, { "aria", W }, { "axk1", W | L }, { "axk2", W }, { "bailing_hybrid", W },
    { "bamba", W }, { "beam", W }, { "bitnet", W }, { "bloom", W }, { "cohere", W }, { "cohere2", W }, { "cohere2_moe", W },
    { "cohere_compass", W }, { "cwm", W }, { "dbrx", W }, { "deepseek_v2", W | L }, { "deepseek_v3", W | L }, { "deepseek_v32", W | L | I },
    { "diffllama", W }, { "doge", W }, { "dory", W }, { "dots1", W }, { "ernie4_5", W }, { "ernie4_5_moe", W }, { "exaone", W }, { "exaone4", W },
    { "exaone_moe", W }, { "falcon", W }, { "falcon_h1", W }, { "falcon_mamba", W }, { "flex_olmo", W }, { "flint", W }, { "gemma", W },
    { "gemma2", W }, { "gemma3", W }, { "gemma3n", W | S }, { "gemma4", W | S }, { "gemma4_unified", W | S }, { "glm", W }, { "glm4", W },
    { "glm4_moe", W }, { "glm4_moe_lite", W | L }, { "glm4v", W }, { "glm4v_moe", W }, { "glm_moe_dsa", W | L | I }, { "gpt-sw3", W },
    { "gpt2", W }, { "gpt_bigcode", W }, { "gpt_neo", W }, { "gpt_neox", W }, { "gpt_neox_japanese", W }, { "gpt_oss", W }, { "gptj", W },
    { "granite", W }, { "granite_swa", W }, { "granitemoe", W }, { "granitemoe_swa", W }, { "granitemoehybrid", W }, { "granitemoeshared", W },
    { "helium", W }, { "hrm", W }, { "hunyuan_v1_dense", W }, { "hunyuan_v1_moe", W }, { "hy_v3", W }, { "hy_v4", W }, { "hyperclovax", W },
    { "inkling", W }, { "inkling2", W }, { "inkling2_loop", W }, { "internlm3", W }, { "iquestcoder", W }, { "jais2", W }, { "jamba", W },
    { "jetmoe", W }, { "kimi_k2", W | L }, { "kimi_k25", W | L }, { "kimi_linear", W | L }, { "kolibri1", W }, { "laguna", W }, { "lara_mini", W },
    { "lfm2", W }, { "lfm2_moe", W }, { "lfm3", W }, { "llama", W }, { "llama4", W }, { "llava", W }, { "longcat_flash", W | L }, { "mamba", W },
    { "mamba2", W }, { "mellum", W }, { "mimo_v2_flash", W }, { "minicpm3", W | L }, { "minimax", W }, { "minimax_m2", W }, { "minimax_m3_vl", W },
    { "ministral", W }, { "ministral3", W }, { "mistral", W }, { "mistral3", W }, { "mixtral", W }, { "modernbert-decoder", W },
    { "moss_transcribe_diarize", W }, { "mpt", W }, { "musicgen", W }, { "musicgen_melody", W }, { "nanochat", W }, { "nemotron", W },
    { "nemotron_h", W }, { "olmo", W }, { "olmo2", W }, { "olmo3", W }, { "olmo_hybrid", W }, { "olmoe", W }, { "opt", W }, { "persimmon", W },
    { "phi", W }, { "phi3", W }, { "phi4_multimodal", W }, { "phimoe", W }, { "qwen2", W }, { "qwen2_5_vl", W }, { "qwen2_moe", W },
    { "qwen2_vl", W }, { "qwen3", W }, { "qwen3_5", W }, { "qwen3_5_moe", W }, { "qwen3_moe", W }, { "qwen3_next", W }, { "qwen3_vl", W },
    { "qwen3_vl_moe", W }, { "recurrent_gemma", W | SHORT_HISTORY }, { "sarvam_mla", W }, { "sarvam_moe", W }, { "seed_oss", W }, { "smollm3", W },
    { "solar_open", W }, { "stablelm", W }, { "starcoder2", W }, { "vaultgemma", W }, { "youtu", W | L }, { "zamba", W }, { "zamba2", W },
    { "zaya", W },
    { NULL, 0 },
};
/* clang-format on */
#undef W
#undef L
#undef S
#undef I

/* A sliding layer keeps what the next token can attend beside itself, or a static cache the whole window. A convolution keeps as many inputs as its
 * kernel is wide; state matrices are in f32 whatever the model's type. */
static kvt_status plan_transformers(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    plan->states = request->sequences;
    const uint64_t history = sizing->knows & SHORT_HISTORY ? kvt_conv_history(group) : group->conv_kernel;
    const kvt_status status = kvt_state_bytes(group, history, 0, 4, &plan->state);
    if (status != KVT_OK || !kvt_has_rows(group))
        return status;

    if ((group->v_dim || group->expanded_v_dim) && !kvt_same_store(sizing->k_type, sizing->v_type))
        return kvt_cannot(sizing, "values: transformers stores keys and values in the same type");
    const bool quantized = sizing->k_type->bytes == 1 || sizing->k_type->block > 1;
    if (quantized && request->static_cache)
        return kvt_cannot(sizing, "static: transformers has no static cache that quantizes");
    uint64_t rows = kvt_used_rows(group, request->context);
    if (group->kind == KVT_LAYER_SLIDING)
        rows = kvt_least(request->context, request->static_cache ? group->window : group->window - 1);
    if (kvt_times(rows, request->sequences, &plan->used_rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    plan->pages = plan->used_rows;

    if (group->kind == KVT_LAYER_COMPRESSED)
        return kvt_cannot(sizing, "no rule is known for the compressed caches of DeepSeek-V4 in transformers");
    const uint64_t k = (uint64_t)group->kv_heads * group->k_dim, v = (uint64_t)group->kv_heads * group->v_dim;
    if (k % sizing->k_type->block != 0 || v % sizing->k_type->block != 0)
        return kvt_cannot(sizing,
                          "no rule is known for quantized caches in transformers of rows that are not a multiple of 64 channels, all heads together");
    kvt_plan_add_rows(plan, sizing->k_type, 1, k);
    kvt_plan_add_rows(plan, sizing->v_type, 1, v);
    return KVT_OK;
}

static kvt_status prepare_transformers(struct kvt_sizing *sizing)
{
    if (sizing->k_type->bytes != 1 && sizing->k_type->block == 1)
        return KVT_OK;
    for (size_t i = 0; i < sizing->model->n_groups; i++) {
        const kvt_layer_kind kind = sizing->model->groups[i].kind;
        if (kind != KVT_LAYER_FULL && kind != KVT_LAYER_LATENT)
            return kvt_cannot(sizing, "transformers has quantized caches only for models whose layers all have full attention");
    }
    return KVT_OK;
}

const struct kvt_engine_rules kvt_engine_transformers = {
    .title = "transformers 5.24: DynamicCache; sliding layers hold the window but for its newest token",
    .types = types,
    .options = KVT_OPTION_STATIC,
    .model_types = model_types,
    .knows_unknown = KVT_KNOWS_ALL,
    .prepare = prepare_transformers,
    .plan = plan_transformers,
};
