/* SPDX-License-Identifier: MIT */
/* llama.cpp 0.4.0 (September 2026): src/llama-model.cpp (create_memory), llama-kv-cache*.cpp, llama-memory-*.cpp, llama-context.cpp,
 * llama-hparams.cpp and src/models. tests/model/engines/llama_cpp.py compares with what libllama allocates. */
#include "engine.h"

#define CELLS 256 /* cells are allocated in multiples of this */

static const struct kvt_store_type types[] = {
    { "f16", 1, 2, 0, 0 },    { "bf16", 1, 2, 0, 0 },   { "f32", 1, 4, 0, 0 },    { "q8_0", 32, 34, 2, 0 },   { "q5_1", 32, 24, 4, 0 },
    { "q5_0", 32, 22, 2, 0 }, { "q4_1", 32, 20, 4, 0 }, { "q4_0", 32, 18, 2, 0 }, { "iq4_nl", 32, 18, 2, 0 }, { NULL, 0, 0, 0, 0 },
};

/* ---- what it does with each architecture ----------------------------------------------------------------------------------------- */

enum {
    ROLLBACK = KVT_KNOWS_MORE,       /* states have a copy for every drafted token (llm_arch_supports_rs_rollback); else none has */
    MTP_OUT = KVT_KNOWS_MORE << 1,   /* the main context has no MTP layers; else it has them like any other */
    MTP_APART = KVT_KNOWS_MORE << 2, /* the context that drafts has nothing but MTP layers; else all layers that the main context has, once more */
    MTP_IN_FILE =
        KVT_KNOWS_MORE << 3, /* not all files have the MTP layers: the main context has those that are there, and config.json does not tell */
    INDEXER_VALUES = KVT_KNOWS_MORE << 4, /* indexers have values too, of a head's width, which nobody reads */
    EMPTY_LAYERS = KVT_KNOWS_MORE << 5,   /* layers without heads are layers of the cache: padded values where those are padded */
    WINDOWS_OF_64 = KVT_KNOWS_MORE << 6,  /* only models of 64 layers have windows */
};
#define MTP (MTP_OUT | MTP_APART)
#define W   KVT_KNOWS_WINDOWS
#define L   KVT_KNOWS_LATENT
#define S   KVT_KNOWS_SHARING
#define I   KVT_KNOWS_INDEXERS

/* clang-format off */
static const struct kvt_type_rule model_types[] = {
    /* sliding layers */
    { "afmoe", W }, { "cohere2", W }, { "cohere2moe", W }, { "exaone-moe", W }, { "exaone4", W | WINDOWS_OF_64 }, { "gemma2", W }, { "gemma3", W },
    { "gemma3n", W | S }, { "gemma4", W | S }, { "gpt-oss", W }, { "granite_swa", W }, { "laguna", W }, { "llama4", W }, { "mellum", W },
    { "mimo2", W | MTP }, { "muse-glimmer", W }, { "olmo2", W }, { "plamo3", W }, { "smallthinker", W }, { "step35", W | MTP },
    /* MLA, indexers, compressed caches */
    { "deepseek2", L | MTP_IN_FILE }, { "mistral4", L | MTP_IN_FILE }, { "deepseek32", L | I | MTP },
    { "deepseek4", W | I | ROLLBACK }, { "dots3note", W | L | I | MTP }, { "glm-dsa", L | I | S | MTP },
    { "minimax-m3", I | INDEXER_VALUES },
    /* states */
    { "arwkv7", 0 }, { "bailingmoe3", L | ROLLBACK | MTP_APART }, { "falcon-h1", 0 }, { "granitehybrid", 0 }, { "jamba", 0 },
    { "kimi-k3", L }, { "kimi-linear", L }, { "lfm2", W | ROLLBACK }, { "lfm2moe", ROLLBACK }, { "mamba", 0 }, { "mamba2", 0 }, { "minimax-01", MTP_OUT },
    { "nemotron_h", ROLLBACK | MTP_OUT }, { "nemotron_h_moe", ROLLBACK | MTP }, { "plamo2", 0 }, { "qwen35", ROLLBACK | MTP },
    { "qwen35moe", ROLLBACK | MTP }, { "qwen3next", MTP }, { "qwen4exp", I | ROLLBACK | INDEXER_VALUES | MTP_OUT }, { "rwkv6", 0 },
    { "rwkv6qwen2", 0 }, { "rwkv7", 0 },
    /* plain attention, whatever windows, shared layers or latent rows the model declares */
    { "apertus", 0 }, { "arcee", 0 }, { "arctic", 0 }, { "baichuan", 0 }, { "bailingmoe", 0 }, { "bailingmoe2", 0 }, { "bitnet", 0 }, { "bloom", 0 },
    { "chameleon", 0 }, { "chatglm", 0 }, { "codeshell", 0 }, { "cogvlm", 0 }, { "command-r", 0 }, { "dbrx", 0 }, { "deci", EMPTY_LAYERS },
    { "deepseek", 0 }, { "deepseek2-ocr", 0 }, { "dots1", 0 }, { "ernie4_5", 0 }, { "ernie4_5-moe", 0 }, { "exaone", 0 }, { "falcon", 0 },
    { "gemma", 0 }, { "glm4", 0 }, { "glm4moe", 0 }, { "gpt2", 0 }, { "gptneox", 0 }, { "granite", 0 }, { "granitemoe", 0 }, { "grok", 0 },
    { "grovemoe", 0 }, { "hunyuan-dense", 0 }, { "hunyuan-moe", 0 }, { "hunyuan_vl", 0 }, { "hy_v3", MTP }, { "internlm2", 0 }, { "jais", 0 },
    { "jais2", 0 }, { "llama", 0 }, { "maincoder", 0 }, { "minicpm", 0 }, { "minicpm3", 0 }, { "minimax-m2", 0 }, { "mistral3", 0 }, { "mpt", 0 },
    { "nanbeige", 0 }, { "nemotron", 0 }, { "olmo", 0 }, { "olmoe", 0 }, { "openelm", 0 }, { "orion", 0 }, { "paddleocr", 0 },
    { "pangu-embedded", 0 }, { "phi2", 0 }, { "phi3", 0 }, { "phimoe", 0 }, { "plamo", 0 }, { "plm", 0 }, { "qwen", 0 }, { "qwen2", 0 },
    { "qwen2moe", 0 }, { "qwen2vl", 0 }, { "qwen3", 0 }, { "qwen3moe", 0 }, { "qwen3vl", 0 }, { "qwen3vlmoe", 0 }, { "refact", 0 },
    { "seed_oss", 0 }, { "smollm3", 0 }, { "stablelm", 0 }, { "starcoder", 0 }, { "starcoder2", 0 }, { "t5", 0 }, { "talkie", 0 }, { "xverse", 0 },
    { NULL, 0 },
};
/* clang-format on */
#undef MTP
#undef W
#undef L
#undef S
#undef I

static bool knows(const struct kvt_sizing *sizing, uint32_t what)
{
    return (sizing->knows & what) != 0;
}

/* Layers of the model that are not MTP's. */
static uint64_t layers_of(const kvt_model *model)
{
    uint64_t layers = 0;
    for (size_t i = 0; i < model->n_groups; i++) {
        if (model->groups[i].kind != KVT_LAYER_INDEXER && model->groups[i].kind != KVT_LAYER_COMPRESSED)
            layers += model->groups[i].count;
    }
    return layers;
}

static void adapt_llama_cpp(const struct kvt_sizing *sizing, kvt_layer_group *group)
{
    if (group->kind == KVT_LAYER_SLIDING && knows(sizing, WINDOWS_OF_64) && layers_of(sizing->model) != 64) {
        group->kind = KVT_LAYER_FULL;
        group->window = 0;
    }
    if (group->kind == KVT_LAYER_NONE && knows(sizing, EMPTY_LAYERS) && sizing->request->no_flash_attention)
        group->kind = KVT_LAYER_FULL;
    if (group->kind == KVT_LAYER_INDEXER && knows(sizing, INDEXER_VALUES)) {
        for (size_t i = 0; i < sizing->model->n_groups; i++) {
            if (sizing->model->groups[i].kind == KVT_LAYER_FULL)
                group->v_dim = sizing->model->groups[i].v_dim;
        }
    }
}

/* ---- what it allocates ----------------------------------------------------------------------------------------------------------- */

/* Without flash attention values are stored transposed, in tensors as wide as the widest layer of the model. */
static kvt_status prepare_llama_cpp(struct kvt_sizing *sizing)
{
    bool one_row = sizing->compressed;
    for (size_t i = 0; i < sizing->model->n_groups; i++) {
        const kvt_layer_group group = kvt_stored_group(sizing, i);
        const uint64_t width = (uint64_t)group.kv_heads * group.v_dim;
        if (group.kind != KVT_LAYER_INDEXER && sizing->widest_v < width)
            sizing->widest_v = width;
        one_row = one_row || group.kind == KVT_LAYER_LATENT;
        sizing->drafts = sizing->drafts || group.draft_count != 0;
    }
    if (sizing->request->no_flash_attention && sizing->v_type->block > 1)
        return kvt_cannot(sizing, "values: llama.cpp can only quantize them with flash attention on");
    if (one_row && sizing->k_type != sizing->v_type)
        return kvt_cannot(sizing, "values: llama.cpp wants the same type for keys and values where one row is both (MLA, DeepSeek-V4)");
    if (sizing->compressed && sizing->drafts && sizing->request->draft_tokens)
        return kvt_cannot(sizing, "draft: no rule is known for the MTP layers of DeepSeek-V4 in llama.cpp");
    return KVT_OK;
}

static kvt_status padded_to_cells(uint64_t rows, uint64_t *cells)
{
    return kvt_times(kvt_parts(rows, CELLS), CELLS, cells);
}

/* Cells of one stream. Sliding layers keep their window for each sequence of the stream, and what one batch adds. */
static kvt_status stream_cells(const kvt_layer_group *group, const kvt_size_request *request, bool own_streams, uint64_t context, uint64_t *cells)
{
    const uint64_t batch = request->batch_tokens ? request->batch_tokens : 512;
    const uint64_t sequences = own_streams ? 1 : request->sequences;
    *cells = kvt_parts(context, kvt_tokens_per_row(group));
    if (group->kind == KVT_LAYER_SLIDING && !request->swa_full) {
        uint64_t windows;
        if (__builtin_mul_overflow(sequences, (uint64_t)group->window, &windows) || __builtin_add_overflow(windows, batch, &windows))
            windows = UINT64_MAX;
        *cells = kvt_least(*cells, windows);
    }
    return padded_to_cells(*cells, cells);
}

static kvt_status plan_rows(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    if (group->k_dim % sizing->k_type->block != 0 || group->v_dim % sizing->v_type->block != 0)
        return kvt_cannot(sizing, "llama.cpp cannot store a head whose channels are not a multiple of the type's block of 32");

    /* The streams share the context; the caches of DeepSeek-V4 are never shared by sequences. */
    const bool own = request->separate_streams || sizing->compressed;
    const uint64_t streams = own ? request->sequences : 1;
    uint64_t padded, cells;
    if (padded_to_cells(request->context, &padded) != KVT_OK || (request->separate_streams && padded_to_cells(padded / streams, &padded) != KVT_OK) ||
        stream_cells(group, request, own, padded, &cells) != KVT_OK || kvt_times(cells, streams, &plan->pages) != KVT_OK)
        return KVT_ERR_OVERFLOW;

    uint64_t used = kvt_parts(request->context, kvt_tokens_per_row(group)), windows;
    if (group->kind == KVT_LAYER_SLIDING && !__builtin_mul_overflow(request->sequences, (uint64_t)group->window, &windows))
        used = kvt_least(used, windows);
    plan->used_rows = kvt_least(used, plan->pages);

    kvt_plan_add_rows(plan, sizing->k_type, group->kv_heads, group->k_dim);
    kvt_plan_add_rows(plan, sizing->v_type, group->kv_heads, group->v_dim);
    if (request->no_flash_attention && group->kind != KVT_LAYER_INDEXER && group->kind != KVT_LAYER_LATENT)
        plan->padding = (sizing->widest_v - (uint64_t)group->kv_heads * group->v_dim) * sizing->v_type->bytes;
    return KVT_OK;
}

/* MTP layers, and those of the context that drafts, which has dense attention. */
static uint64_t draft_layers(const struct kvt_sizing *sizing, const kvt_layer_group *group)
{
    const bool in_file = sizing->model->architecture || !knows(sizing, MTP_IN_FILE);
    const uint64_t in_main = !knows(sizing, MTP_OUT) && in_file ? group->draft_count : 0;
    if (sizing->request->draft_tokens == 0 || !sizing->drafts || group->kind == KVT_LAYER_INDEXER)
        return in_main;
    return in_main + (knows(sizing, MTP_APART) || !in_file ? group->draft_count : group->count + in_main);
}

/* Both parts of a state in f32, and a copy for every token that may have to be taken back. */
static kvt_status plan_llama_cpp(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    if (sizing->cross) /* made anew for every token from the encoder's output (llama_cross) */
        return KVT_OK;
    const uint64_t copies = 1 + (knows(sizing, ROLLBACK) ? (uint64_t)sizing->request->draft_tokens : 0);
    if (kvt_state_bytes(group, kvt_conv_history(group), 4, 4, &plan->state) != KVT_OK ||
        kvt_times(sizing->request->sequences, copies, &plan->states) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    if (group->kind == KVT_LAYER_RECURRENT)
        return KVT_OK;
    plan->draft_layers = draft_layers(sizing, group);
    return kvt_has_rows(group) ? plan_rows(sizing, group, plan) : KVT_OK;
}

const struct kvt_engine_rules kvt_engine_llama_cpp = {
    .title = "llama.cpp 0.4.0: --ctx is shared by the sequences; sliding layers hold windows and a batch, state is f32",
    .types = types,
    .options = KVT_OPTION_BATCH | KVT_OPTION_DRAFT | KVT_OPTION_STREAMS | KVT_OPTION_SWA_FULL | KVT_OPTION_NO_FLASH,
    .model_types = model_types,
    .by_architecture = true,
    .knows_unknown = KVT_KNOWS_ALL | ROLLBACK | MTP_OUT | MTP_APART,
    .prepare = prepare_llama_cpp,
    .adapt = adapt_llama_cpp,
    .plan = plan_llama_cpp,
};
