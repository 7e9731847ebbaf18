/* SPDX-License-Identifier: MIT */
/* mlx-lm 0.32.2: mlx_lm/models/cache.py (KVCache, QuantizedKVCache, RotatingKVCache), and make_cache and the calls of update_and_fetch in the models'
 * files; MODEL_REMAPPING in mlx_lm/utils.py. */
#include "engine.h"

#define STEP 256 /* caches grow by this many tokens */

/* Quantized: groups of 64 channels, each with a scale and a bias of 16 bits. */
static const struct kvt_store_type types[] = { { "f16", 1, 2, 0, 0 },    { "bf16", 1, 2, 0, 0 },   { "f32", 1, 4, 0, 0 },    { "8bit", 64, 68, 4, 0 },
                                               { "6bit", 64, 52, 4, 0 }, { "5bit", 64, 44, 4, 0 }, { "4bit", 64, 36, 4, 0 }, { "3bit", 64, 28, 4, 0 },
                                               { "2bit", 64, 20, 4, 0 }, { NULL, 0, 0, 0, 0 } };

/* ---- what it does with each model_type --------------------------------------------------------------------------------------------- */

enum {
    INDEXER_VALUES = KVT_KNOWS_MORE /* indexers' caches have values, as wide as the keys and all zero */
};

#define W KVT_KNOWS_WINDOWS
#define L KVT_KNOWS_LATENT
#define S KVT_KNOWS_SHARING
#define I KVT_KNOWS_INDEXERS

/* clang-format off */
static const struct kvt_type_rule model_types[] = {
    { "Klear", 0 }, { "afmoe", W }, { "apertus", 0 }, { "bailing_moe", 0 }, { "bailing_moe_linear", 0 }, { "bailing_moe_v3", L }, { "bitnet", 0 },
    { "cohere", 0 }, { "cohere2", W }, { "dbrx", 0 }, { "deepseek", 0 }, { "deepseek_v2", 0 }, { "deepseek_v3", L }, { "deepseek_v32", L | I | INDEXER_VALUES },
    { "dots1", 0 }, { "ernie4_5", 0 }, { "ernie4_5_moe", 0 }, { "exaone", 0 }, { "exaone4", W }, { "exaone_moe", W }, { "falcon_h1", 0 },
    { "falcon_mamba", 0 }, { "gemma", 0 }, { "gemma2", 0 }, { "gemma3", W }, { "gemma3n", W | S }, { "gemma4", W | S }, { "gemma4_unified", W | S },
    { "glm", 0 }, { "glm4", 0 }, { "glm4_moe", 0 }, { "glm4_moe_lite", L }, { "glm_moe_dsa", L | I | INDEXER_VALUES }, { "gpt2", 0 }, { "gpt_bigcode", 0 },
    { "gpt_neox", 0 }, { "gpt_oss", W }, { "gptj", 0 }, { "granite", 0 }, { "granitemoe", 0 }, { "granitemoehybrid", 0 }, { "hunyuan", 0 },
    { "hunyuan_v1_dense", 0 }, { "internlm2", 0 }, { "internlm3", 0 }, { "iquestcoder", 0 }, { "jamba", 0 }, { "kimi_k2", L }, { "kimi_k25", L },
    { "kimi_k3", L }, { "kimi_linear", L }, { "laguna", W }, { "lfm2", 0 }, { "lfm2_moe", 0 }, { "llama", W }, { "longcat_flash", L },
    { "longcat_flash_ngram", L }, { "mamba", 0 }, { "mamba2", 0 }, { "mellum", W }, { "mimo", 0 }, { "mimo_v2_flash", W }, { "minicpm", 0 },
    { "minicpm3", 0 }, { "minimax", 0 }, { "minimax_m2", 0 }, { "ministral3", W }, { "mistral", 0 },
    { "mistral3", 0 }, { "mistral4", L }, { "mixtral", 0 }, { "muse_glimmer", W }, { "nanbeige", 0 }, { "nemotron", 0 }, { "nemotron-nas", 0 },
    { "nemotron_h", 0 }, { "olmo", 0 }, { "olmo2", 0 }, { "olmo3", W }, { "olmo_hybrid", 0 }, { "olmoe", 0 }, { "openelm", 0 }, { "phi", 0 },
    { "phi3", 0 }, { "phi3small", 0 }, { "phimoe", 0 }, { "phixtral", 0 }, { "plamo", 0 }, { "plamo2", 0 }, { "plamo3", W }, { "qwen", 0 },
    { "qwen2", 0 }, { "qwen2_5_vl", 0 }, { "qwen2_moe", 0 }, { "qwen2_vl", 0 }, { "qwen3", 0 }, { "qwen3_5", 0 }, { "qwen3_5_moe", 0 },
    { "qwen3_moe", 0 }, { "qwen3_next", 0 }, { "qwen3_vl", 0 }, { "qwen3_vl_moe", 0 }, { "recurrent_gemma", W }, { "rwkv7", 0 }, { "seed_oss", 0 },
    { "smollm3", 0 }, { "solar_open", 0 }, { "stablelm", 0 }, { "starcoder2", 0 }, { "step3p5", W }, { "talkie", 0 }, { "telechat3", 0 },
    { "xverse", 0 }, { "youtu_llm", 0 },
    { NULL, 0 },
};
/* clang-format on */
#undef W
#undef L
#undef S
#undef I

static void adapt_mlx(const struct kvt_sizing *sizing, kvt_layer_group *group)
{
    if (group->kind == KVT_LAYER_INDEXER && (sizing->knows & INDEXER_VALUES))
        group->v_dim = group->k_dim;
}

/* ---- what it allocates ----------------------------------------------------------------------------------------------------------- */

static kvt_status plan_mlx(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    plan->states = request->sequences;
    const kvt_status status = kvt_state_bytes(group, kvt_conv_history(group), 0, 4, &plan->state);
    if (status != KVT_OK || !kvt_has_rows(group))
        return status;

    const bool sliding = group->kind == KVT_LAYER_SLIDING;
    if (group->v_dim && !kvt_same_store(sizing->k_type, sizing->v_type))
        return kvt_cannot(sizing, "values: mlx-lm stores keys and values in the same type");
    if (sliding && sizing->k_type->block > 1)
        return kvt_cannot(sizing, "mlx-lm cannot quantize the cache of sliding layers (RotatingKVCache)");
    if (group->kind == KVT_LAYER_COMPRESSED)
        return kvt_cannot(sizing, "no rule is known for the compressed caches of DeepSeek-V4 in mlx-lm");
    if (group->k_dim % sizing->k_type->block != 0 || group->v_dim % sizing->v_type->block != 0)
        return kvt_cannot(sizing, "mlx-lm cannot store a head whose channels are not a multiple of the group of 64");

    uint64_t rows;
    if (kvt_times(kvt_parts(request->context, STEP), STEP, &rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    if (sliding) /* while a prompt is read in chunks, a chunk is beside the window but for its first token */
        rows = kvt_least(rows, (uint64_t)group->window - 1 + (request->batch_tokens ? request->batch_tokens : 1));
    if (kvt_times(rows, request->sequences, &plan->pages) != KVT_OK ||
        kvt_times(kvt_used_rows(group, request->context), request->sequences, &plan->used_rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    kvt_plan_add_rows(plan, sizing->k_type, group->kv_heads, group->k_dim);
    kvt_plan_add_rows(plan, sizing->v_type, group->kv_heads, group->v_dim);
    return KVT_OK;
}

const struct kvt_engine_rules kvt_engine_mlx = {
    .title = "mlx-lm 0.32.2: caches that grow by 256 tokens, quantized in groups of 64",
    .types = types,
    .options = KVT_OPTION_BATCH,
    .model_types = model_types,
    .knows_unknown = KVT_KNOWS_ALL,
    .adapt = adapt_mlx,
    .plan = plan_mlx,
};
