/* SPDX-License-Identifier: MIT */
/* The metadata of GGUF files, and the cache that llama.cpp makes of it. The rules are those of llama.cpp 0.4.0: load_hparams and create_memory in
 * src/llama-model.cpp, load_arch_hparams in src/models, and src/llama-hparams.cpp, llama-kv-cache*.cpp, llama-memory-recurrent.cpp. */
#include "tools/model/description.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/files/gguf.h"

#define MAX_LAYERS    65536
#define MAX_GROUPS    256                 /* of layers that are alike: files have at most five */
#define MAX_STATE_DIM ((uint32_t)1 << 20) /* recurrent layers: the product of two stays far below 2^64 */
#define MAX_NUMBER    INT32_MAX

/* ---- what the architecture's name says ------------------------------------------------------------------------------------------- */

enum { EVERY_LAYER = 253, EITHER = 254, LISTED = 255 };                                                  /* instead of a period */
typedef enum state_rule { NO_STATE, BY_HEADS, BY_HEADS_AND_MLP, BY_INTERVAL, BESIDE, ALONE } state_rule; /* which layers are recurrent */
typedef enum state_keys { SSM, SSM_WITHOUT_GROUPS, SHORT_CONVOLUTION, KDA, LIGHTNING, RWKV } state_keys;

/* What llama.cpp knows by name and files do not always say. All that follow from keys alone need no row. */
typedef struct architecture {
    const char *name;
    uint8_t period;          /* of its layers all but the last of each period slide: set_swa_pattern */
    bool dense_first;        /* all but the first of each period slide */
    uint32_t window;         /* when the key is missing: this, or an error (GGUF_NEEDED), or no window (0) */
    uint32_t fixed_window;   /* instead of what the key says, unless that is 0 */
    uint32_t sliding_layers; /* only models of as many layers slide */
    uint32_t storing_layers; /* when attention.shared_kv_layers is missing: the first layers that store */
    state_rule states;
    state_keys state_keys;
    bool decoder_has_cross; /* every layer of its decoder has cross attention beside its own */
    uint32_t interval;      /* BY_INTERVAL: when full_attention_interval is missing; 0: 4 */
    bool indexers_shared;   /* long models without a list: only some layers have an indexer of their own */
    bool indexers_sparse;   /* not in the leading dense layers */
    bool compressed;        /* DeepSeek-V4 */
} architecture;

/* clang-format off */
static const architecture architectures[] = {
    { "afmoe", .period = 4 },
    { "arwkv7", .states = ALONE, .state_keys = RWKV },
    { "bailingmoe3", .states = BY_HEADS, .state_keys = KDA },
    { "cohere2", .period = 4, .window = GGUF_NEEDED },
    { "cohere2moe", .period = EITHER, .dense_first = true, .window = GGUF_NEEDED },
    { "deepseek4", .period = EVERY_LAYER, .window = GGUF_NEEDED, .compressed = true },
    { "exaone-moe", .period = 4, .window = GGUF_NEEDED },
    { "exaone4", .period = 4, .window = 4096, .sliding_layers = 64 },
    { "falcon-h1", .states = BESIDE },
    { "gemma2", .period = 2, .window = 4096 },
    { "gemma3", .period = 6 },
    { "gemma3n", .period = 5, .window = GGUF_NEEDED, .storing_layers = 20 },
    { "gemma4", .period = LISTED, .window = GGUF_NEEDED },
    { "glm-dsa", .indexers_shared = true },
    { "gpt-oss", .period = 2, .window = GGUF_NEEDED },
    { "granite_swa", .period = LISTED, .window = GGUF_NEEDED },
    { "granitehybrid", .states = BY_HEADS },
    { "jamba", .states = BY_HEADS, .state_keys = SSM_WITHOUT_GROUPS },
    { "kimi-k3", .states = BY_HEADS, .state_keys = KDA },
    { "kimi-linear", .states = BY_HEADS, .state_keys = KDA },
    { "laguna", .period = 4, .dense_first = true },
    { "lfm2", .period = EVERY_LAYER, .states = BY_HEADS, .state_keys = SHORT_CONVOLUTION },
    { "lfm2moe", .states = BY_HEADS, .state_keys = SHORT_CONVOLUTION },
    { "llama", .period = EVERY_LAYER },
    { "llama4", .period = 4, .window = 8192, .fixed_window = 8192 }, /* chunks */
    { "mamba", .states = ALONE, .state_keys = SSM_WITHOUT_GROUPS },
    { "mamba2", .states = ALONE },
    { "mellum", .period = EITHER },
    { "mimo2", .period = LISTED, .window = GGUF_NEEDED },
    { "minimax-01", .states = BY_INTERVAL, .state_keys = LIGHTNING, .interval = 8 },
    { "minimax-m3", .indexers_sparse = true },
    { "muse-glimmer", .period = EITHER, .window = GGUF_NEEDED },
    { "nemotron_h", .states = BY_HEADS_AND_MLP },
    { "nemotron_h_moe", .states = BY_HEADS_AND_MLP },
    { "olmo2", .period = 4 },
    { "phi3", .period = EVERY_LAYER },
    { "plamo2", .states = BY_HEADS },
    { "plamo3", .period = 8 },
    { "qwen35", .states = BY_INTERVAL },
    { "qwen35moe", .states = BY_INTERVAL },
    { "qwen3next", .states = BY_INTERVAL },
    { "qwen4exp", .states = BY_INTERVAL },
    { "rwkv6", .states = ALONE, .state_keys = RWKV },
    { "rwkv6qwen2", .states = ALONE, .state_keys = RWKV },
    { "rwkv7", .states = ALONE, .state_keys = RWKV },
    { "smallthinker", .period = 4, .dense_first = true, .fixed_window = 4096 },
    { "starcoder2", .period = EVERY_LAYER },
    { "step35", .period = LISTED, .window = GGUF_NEEDED },
    { "t5", .decoder_has_cross = true },
};
/* clang-format on */

/* clang-format off */
/* Encoders, diffusion models and parts of models: create_memory gives them no cache, or another model's. */
static const char *const cacheless[] = {
    "bert", "clip", "dream", "eurobert", "gemma-embedding", "gemma4-assistant", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
    "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "wavtokenizer-dec",
};
/* clang-format on */

static const architecture *find_architecture(const char *name)
{
    static const architecture other = { 0 };
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        if (strcmp(architectures[i].name, name) == 0)
            return &architectures[i];
    }
    return &other;
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------------- */

typedef struct model {
    gguf file;
    const architecture *known;
    state_rule states;
    uint32_t blocks;  /* that the file has, MTP layers included: as many as entries in a list of layers */
    uint32_t layers;  /* blocks, or more of them when they are passed through several times */
    uint32_t mtp;     /* the last blocks */
    uint32_t storing; /* of the layers, the first that have a cache of their own */
    uint32_t window;  /* 0: no layer slides */
    uint32_t period;
    uint32_t interval; /* every interval-th layer is not recurrent */
    bool dense_first, latent;
    uint32_t k_dim, v_dim, k_dim_sliding, v_dim_sliding;
    uint32_t rope_dim;                       /* of rows that are key and value in one */
    uint32_t expanded_k_dim, expanded_v_dim; /* latent */
    uint32_t index_dim;                      /* 0: no indexers */
    uint32_t dense_layers;                   /* the first, which have none */
    uint64_t context;
    /* Of one number for all layers, or a list; NULL when the key is not there. */
    const gguf_entry *heads, *kv_heads, *mlp, *sliding, *recurrent, *indexers, *ratios;
    const gguf_entry *cross; /* a list of numbers of layers */
    kvt_layer_group state;
} model;

/* Checks a number for all layers, or a list with one for each: of all blocks, or of those that are not MTP layers. */
static bool get_layers(const model *m, const char *name, uint32_t high, const gguf_entry **result)
{
    const gguf_entry *entry = gguf_find(&m->file, name);
    char right[100];
    *result = entry;
    if (!entry)
        return true;
    snprintf(right, sizeof right, "whole numbers up to %" PRIu32 ", one or a list of %" PRIu32, high, m->blocks);
    if (entry->list && entry->count != m->blocks && entry->count != m->blocks - m->mtp)
        return gguf_fail(&m->file, name, entry, right);
    for (uint64_t i = 0; i < (entry->list ? entry->count : 1); i++) {
        int64_t value;
        char text[80];
        if ((entry->type != GGUF_BOOL || high == 1) && gguf_number(entry, i, &value) && value >= 0 && value <= high)
            continue;
        if (!entry->list)
            return gguf_fail(&m->file, name, entry, right);
        return error_set(m->file.error, "%s.%s[%" PRIu64 "] is %s, but must be a whole number up to %" PRIu32, m->file.architecture, name, i,
                         gguf_text(entry, i, false, text), high) == 0;
    }
    return true;
}

/* Of layer i; 0 when the list ends before it. */
static uint32_t at(const model *m, const gguf_entry *entry, uint32_t i)
{
    int64_t value = 0;
    const uint32_t index = entry->list ? i % m->blocks : 0;
    if (!entry->list || index < entry->count)
        gguf_number(entry, index, &value);
    return (uint32_t)value;
}

static bool is_mtp(const model *m, uint32_t i)
{
    return i >= m->layers - m->mtp;
}

static bool slides(const model *m, uint32_t i)
{
    if (m->window == 0)
        return false;
    if (m->sliding)
        return at(m, m->sliding, i) != 0;
    return m->period == 0 || (!is_mtp(m, i) && i % m->period != (m->dense_first ? 0 : m->period - 1));
}

static bool is_recurrent(const model *m, uint32_t i)
{
    switch (m->states) {
    case NO_STATE:
        return false;
    case BY_HEADS:
        return at(m, m->kv_heads, i) == 0;
    case BY_HEADS_AND_MLP:
        return at(m, m->kv_heads, i) == 0 && (!m->mlp || at(m, m->mlp, i) == 0);
    case BY_INTERVAL:
        return !is_mtp(m, i) && (m->recurrent ? at(m, m->recurrent, i) != 0 : (i + 1) % m->interval != 0);
    case BESIDE:
    case ALONE:
        break;
    }
    return true;
}

static bool has_attention(const model *m, uint32_t i)
{
    if (m->states == ALONE || i >= m->storing || at(m, m->kv_heads, i) == 0)
        return false;
    if (m->states == BY_HEADS_AND_MLP) /* an MTP layer has both in one block */
        return !m->mlp || at(m, m->mlp, i) == 0 || is_mtp(m, i);
    return m->states == BESIDE || !is_recurrent(m, i);
}

static bool has_indexer(const model *m, uint32_t i)
{
    if (m->index_dim == 0 || i < m->dense_layers)
        return false;
    if (m->indexers)
        return is_mtp(m, i) || at(m, m->indexers, i) != 0;
    return !m->known->indexers_shared || m->context < 1u << 20 || is_mtp(m, i) || i < 2 || i % 4 == 2;
}

/* ---- keys of a model ------------------------------------------------------------------------------------------------------------- */

static bool get_counts(model *m)
{
    const gguf *file = &m->file;
    uint32_t context, loops, shared;
    if (!gguf_get(file, "context_length", 0, MAX_NUMBER, 0, &context) || !gguf_get(file, "block_count", 1, MAX_LAYERS, GGUF_NEEDED, &m->blocks) ||
        !gguf_get(file, "nextn_predict_layers", 0, m->blocks - 1, 0, &m->mtp) || !gguf_get(file, "num_loops", 1, MAX_LAYERS / m->blocks, 1, &loops))
        return false;
    m->context = context;
    m->layers = m->blocks * loops;
    const uint32_t storing = m->known->storing_layers;
    if (!gguf_get(file, "attention.shared_kv_layers", 0, m->layers, storing && storing < m->layers ? m->layers - storing : 0, &shared))
        return false;
    m->storing = m->layers - shared;
    return true;
}

/* Which layers are recurrent, and what those keep. */
static bool get_state(model *m)
{
    const gguf *file = &m->file;
    kvt_layer_group *state = &m->state;
    uint32_t kernel = 0, inner, size, groups = 0, heads;
    m->states = m->known->states;
    if (!m->known->name && gguf_look(file, "ssm.inner_size") &&
        (gguf_look(file, "full_attention_interval") || gguf_look(file, "attention.recurrent_layers")))
        m->states = BY_INTERVAL;
    if (m->states == NO_STATE)
        return true;
    if (m->states == BY_INTERVAL &&
        (!get_layers(m, "attention.recurrent_layers", 1, &m->recurrent) ||
         !gguf_get(file, "full_attention_interval", 1, MAX_LAYERS, m->known->interval ? m->known->interval : 4, &m->interval)))
        return false;
    if (m->states == BY_HEADS_AND_MLP && !get_layers(m, "feed_forward_length", MAX_NUMBER, &m->mlp))
        return false;

    state->kind = KVT_LAYER_RECURRENT;
    state->conv_element_bytes = 2; /* of the model: bfloat16, with a float32 state; llama.cpp has both in float32 */
    state->recurrent_element_bytes = 4;
    switch (m->known->state_keys) {
    case SSM:
    case SSM_WITHOUT_GROUPS:
        if (!gguf_get(file, "ssm.conv_kernel", 1, MAX_STATE_DIM, GGUF_NEEDED, &kernel) ||
            !gguf_get(file, "ssm.inner_size", 1, MAX_STATE_DIM, GGUF_NEEDED, &inner) ||
            !gguf_get(file, "ssm.state_size", 1, MAX_STATE_DIM, GGUF_NEEDED, &size))
            return false;
        if (m->known->state_keys == SSM && (!gguf_get(file, "ssm.group_count", 0, MAX_STATE_DIM, GGUF_NEEDED, &groups) ||
                                            !gguf_get(file, "ssm.time_step_rank", 0, MAX_STATE_DIM, 0, &state->state_heads)))
            return false;
        if (m->known->state_keys == SSM_WITHOUT_GROUPS)
            state->state_heads = inner; /* every channel is on its own in Mamba 1 */
        state->state_groups = size ? groups : 0;
        state->state_group_channels = 2 * (uint64_t)groups * size;
        state->conv_channels = inner + 2 * (uint64_t)groups * size;
        state->recurrent_elements = (uint64_t)size * inner;
        break;
    case SHORT_CONVOLUTION:
        if (!gguf_get(file, "shortconv.l_cache", 1, MAX_STATE_DIM, GGUF_NEEDED, &kernel) ||
            !gguf_get(file, "embedding_length", 1, MAX_STATE_DIM, GGUF_NEEDED, &inner))
            return false;
        state->conv_channels = inner;
        state->state_heads = inner;
        state->recurrent_element_bytes = 0;
        break;
    case KDA: /* a convolution each for queries, keys and values */
        heads = m->heads ? at(m, m->heads, 0) : 0;
        if (heads == 0)
            return gguf_fail(file, "attention.head_count", m->heads, "the heads of the first layer, more than 0");
        if (!gguf_get(file, "ssm.conv_kernel", 1, MAX_STATE_DIM, GGUF_NEEDED, &kernel) ||
            !gguf_get(file, "kda.head_dim", 1, MAX_STATE_DIM, GGUF_NEEDED, &size))
            return false;
        state->conv_channels = 3 * (uint64_t)heads * size;
        state->recurrent_elements = (uint64_t)heads * size * size;
        state->state_heads = heads;
        break;
    case LIGHTNING: /* a matrix for every head, as wide as the heads of full attention, and no convolution */
        heads = m->heads ? at(m, m->heads, 0) : 0;
        if (heads == 0)
            return gguf_fail(file, "attention.head_count", m->heads, "the heads of the first layer, more than 0");
        if (!gguf_get(file, "embedding_length", 1, MAX_STATE_DIM, GGUF_NEEDED, &inner) ||
            !gguf_get(file, "attention.key_length", 1, KVT_MAX_DIM, inner / heads, &size))
            return false;
        state->conv_element_bytes = 0;
        state->recurrent_elements = (uint64_t)heads * size * size;
        state->state_heads = heads;
        break;
    case RWKV: /* the inputs of the last tokens, and a matrix for every head */
        if (!gguf_get(file, "embedding_length", 1, MAX_STATE_DIM, GGUF_NEEDED, &inner) ||
            !gguf_get(file, "wkv.head_size", 1, MAX_STATE_DIM, GGUF_NEEDED, &size) || !gguf_get(file, "token_shift_count", 1, 16, 2, &kernel))
            return false;
        kernel++; /* a convolution keeps one input less than its kernel is wide */
        state->conv_channels = inner;
        state->recurrent_elements = (uint64_t)inner * size;
        state->state_heads = inner / size;
        break;
    }
    state->conv_kernel = kernel;
    return true;
}

static bool get_dim(const model *m, const char *name, uint32_t missing, uint32_t *result)
{
    if (missing >= 1 && missing <= KVT_MAX_DIM)
        return gguf_get(&m->file, name, 1, KVT_MAX_DIM, missing, result);
    return gguf_get(&m->file, name, 1, KVT_MAX_DIM, GGUF_NEEDED, result);
}

static bool get_dims(model *m)
{
    uint32_t width;
    if (!gguf_get(&m->file, "embedding_length", 0, MAX_NUMBER, 0, &width))
        return false;
    const gguf_entry *expanded_k = gguf_find(&m->file, "attention.key_length_mla"), *expanded_v = gguf_find(&m->file, "attention.value_length_mla");
    m->latent = expanded_k || expanded_v; /* without them keys and values of every head are stored */
    if (m->latent &&
        (!get_dim(m, "attention.key_length_mla", 0, &m->expanded_k_dim) || !get_dim(m, "attention.value_length_mla", 0, &m->expanded_v_dim)))
        return false;

    const uint32_t heads = m->heads ? at(m, m->heads, 0) : 0;
    const uint32_t head = heads && !m->latent ? width / heads : 0;
    const bool only_k = m->latent || m->known->compressed;
    if (!get_dim(m, "attention.key_length", head, &m->k_dim) || !get_dim(m, "attention.key_length_swa", m->k_dim, &m->k_dim_sliding))
        return false;
    if (only_k && (!gguf_get(&m->file, "rope.dimension_count", 0, MAX_NUMBER, 0, &m->rope_dim) || m->rope_dim >= m->k_dim))
        m->rope_dim = 0; /* then it is not known */
    gguf_find(&m->file, "attention.value_length");
    gguf_find(&m->file, "attention.value_length_swa");
    return only_k || (get_dim(m, "attention.value_length", head, &m->v_dim) && get_dim(m, "attention.value_length_swa", m->v_dim, &m->v_dim_sliding));
}

/* Which layers slide, and how far. */
static bool get_window(model *m, model_description *description)
{
    static const char window[] = "attention.sliding_window", pattern[] = "attention.sliding_window_pattern";
    const architecture *known = m->known;
    const gguf_entry *listed = gguf_find(&m->file, pattern);
    const bool understood = known->period || listed;
    if (!gguf_get(&m->file, window, 0, MAX_NUMBER, understood ? known->window : 0, &m->window))
        return false;
    if (m->window == 0)
        return true;
    if (known->fixed_window)
        m->window = known->fixed_window;
    if (known->sliding_layers && m->blocks != known->sliding_layers)
        m->window = 0;
    if (!understood) {
        description_note(description, "%s.%s is %" PRIu32 ", but not which layers it is for: they are sized as full, as llama.cpp does",
                         m->file.architecture, window, m->window);
        m->window = 0;
    }
    if (m->window == 0)
        return true;

    m->period = known->period == EVERY_LAYER ? 0 : known->period;
    m->dense_first = known->dense_first;
    if ((known->period == LISTED && (!listed || !listed->list)) || (known->period == EITHER && !listed))
        return gguf_fail(&m->file, pattern, listed,
                         known->period == LISTED ? "a list that says of each layer whether it slides"
                                                 : "a list that says of each layer whether it slides, or a number of layers");
    if (listed && listed->list && (known->period == 0 || known->period >= EITHER))
        return get_layers(m, pattern, 1, &m->sliding);
    if (listed && listed->list) /* llama.cpp reads a number here, and takes its own where there is a list */
        return true;
    return gguf_get(&m->file, pattern, 0, MAX_LAYERS, m->period, &m->period);
}

static bool get_indexer(model *m)
{
    if (!gguf_find(&m->file, "attention.indexer.key_length"))
        return true;
    return get_dim(m, "attention.indexer.key_length", 0, &m->index_dim) && get_layers(m, "attention.indexer.types", 1, &m->indexers) &&
           (!m->known->indexers_sparse || gguf_get(&m->file, "leading_dense_block_count", 0, m->blocks, 0, &m->dense_layers));
}

/* DeepSeek-V4: for every layer how many tokens a compressed row stands for, 0 when there are none. The list also has MTP layers that the file
 * may not have. */
static bool get_ratios(model *m)
{
    static const char name[] = "attention.compress_ratios", right[] = "a list that has 0, 4 or 128 for each layer";
    m->ratios = gguf_find(&m->file, name);
    if (!m->ratios || !m->ratios->list || m->ratios->count < m->blocks)
        return gguf_fail(&m->file, name, m->ratios, right);
    for (uint32_t i = 0; i < m->blocks; i++) {
        int64_t ratio;
        if (!gguf_number(m->ratios, i, &ratio) || (ratio != 0 && ratio != 4 && ratio != 128))
            return gguf_fail(&m->file, name, m->ratios, right);
    }
    if (m->index_dim == 0)
        return gguf_fail(&m->file, "attention.indexer.key_length", NULL, "the channels of an indexer's key");
    return true;
}

static bool get_head_counts(model *m)
{
    if (!get_layers(m, "attention.head_count", KVT_MAX_HEADS, &m->heads) || !get_layers(m, "attention.head_count_kv", KVT_MAX_HEADS, &m->kv_heads))
        return false;
    if (!m->kv_heads)
        m->kv_heads = m->heads;
    if (!m->kv_heads && m->known->states != ALONE)
        return gguf_fail(&m->file, "attention.head_count", NULL, "the heads of each layer");
    return true;
}

/* ---- groups ---------------------------------------------------------------------------------------------------------------------- */

static bool add_layer_group(const model *m, model_description *description, uint32_t i, kvt_layer_group group)
{
    const bool draft = is_mtp(m, i), shared = i >= m->storing && group.kind != KVT_LAYER_NONE;
    group.count = !draft && !shared;
    group.draft_count = draft && !shared;
    group.shared_count = shared;
    if (description_add(description, &group, m->file.error) != 0)
        return false;
    return description->n_groups <= MAX_GROUPS || error_set(m->file.error, "the layers are of more than %d kinds", MAX_GROUPS) == 0;
}

static bool add_attention(const model *m, model_description *description, uint32_t i)
{
    const bool sliding = slides(m, i), latent = m->latent && !sliding;
    kvt_layer_group group = {
        .kind = sliding  ? KVT_LAYER_SLIDING
                : latent ? KVT_LAYER_LATENT
                         : KVT_LAYER_FULL,
        .kv_heads = at(m, m->kv_heads, i),
        .k_dim = sliding ? m->k_dim_sliding : m->k_dim,
        .v_dim = sliding ? m->v_dim_sliding : m->v_dim,
        .rope_dim = m->rope_dim,
        .window = sliding ? m->window : 0,
    };
    if (latent) {
        group.expanded_heads = m->heads ? at(m, m->heads, i) : 0;
        group.expanded_k_dim = group.expanded_heads ? m->expanded_k_dim : 0;
        group.expanded_v_dim = group.expanded_heads ? m->expanded_v_dim : 0;
        if (group.kv_heads != 1)
            return gguf_fail(&m->file, "attention.head_count_kv", gguf_find(&m->file, "attention.head_count_kv"),
                             "1 where attention.key_length_mla says that rows are latent");
    }
    return add_layer_group(m, description, i, group);
}

static bool add_indexer(const model *m, model_description *description, uint32_t i, uint32_t tokens_per_row)
{
    /* What a compressor of DeepSeek-V4 has not made a row of: keys and scores of twice the tokens, twice as wide. */
    const uint64_t unfinished = tokens_per_row > 1 ? 2 * 2 * 2 * (uint64_t)tokens_per_row * m->index_dim : 0;
    return add_layer_group(m, description, i,
                           (kvt_layer_group){ .kind = KVT_LAYER_INDEXER,
                                              .kv_heads = 1,
                                              .k_dim = m->index_dim,
                                              .tokens_per_row = tokens_per_row,
                                              .recurrent_elements = unfinished,
                                              .recurrent_element_bytes = unfinished ? 4 : 0 });
}

/* DeepSeek-V4: rows that are key and value in one, of a window and of several tokens each. At 4 tokens a row overlaps the one before. */
static bool add_compressed(const model *m, model_description *description, uint32_t i)
{
    const uint32_t ratio = is_mtp(m, i) ? 0 : at(m, m->ratios, i);
    const kvt_layer_group group = { .kind = KVT_LAYER_COMPRESSED,
                                    .kv_heads = 1,
                                    .k_dim = m->k_dim,
                                    .rope_dim = m->rope_dim,
                                    .tokens_per_row = ratio,
                                    .recurrent_elements = (ratio == 4 ? 8 : 2) * (uint64_t)ratio * m->k_dim,
                                    .recurrent_element_bytes = 4 };
    return add_attention(m, description, i) && (ratio == 0 || add_layer_group(m, description, i, group)) &&
           (ratio != 4 || add_indexer(m, description, i, ratio));
}

static bool add_gguf_layer(const model *m, model_description *description, uint32_t i)
{
    const bool state = is_recurrent(m, i), attention = has_attention(m, i);
    if (!state && !attention) {
        const bool shared = i >= m->storing && at(m, m->kv_heads, i) != 0;
        return add_layer_group(m, description, i, (kvt_layer_group){ .kind = KVT_LAYER_NONE }) && (!shared || add_attention(m, description, i));
    }
    if (m->known->compressed)
        return add_compressed(m, description, i);
    if (state && !add_layer_group(m, description, i, m->state))
        return false;
    return !attention || (add_attention(m, description, i) && (!has_indexer(m, i) || add_indexer(m, description, i, 1)));
}

/* Cross attention: of all layers of a decoder, or of listed layers, which then have none of their own. */
static bool has_cross(const model *m, uint32_t i)
{
    for (uint64_t j = 0; m->cross && j < m->cross->count; j++) {
        int64_t layer;
        if (gguf_number(m->cross, j, &layer) && layer == i)
            return true;
    }
    return m->known->decoder_has_cross;
}

static bool add_cross(const model *m, model_description *description, uint32_t i)
{
    return add_layer_group(m, description, i,
                           (kvt_layer_group){ .kind = KVT_LAYER_CROSS, .kv_heads = at(m, m->kv_heads, i), .k_dim = m->k_dim, .v_dim = m->v_dim });
}

static bool get_cross(model *m)
{
    static const char listed[] = "attention.cross_attention_layers", decoder[] = "decoder_block_count";
    uint32_t blocks;
    m->cross = gguf_find(&m->file, listed);
    if (m->cross && !m->cross->list)
        return gguf_fail(&m->file, listed, m->cross, "a list of the layers that have cross attention");
    if (!m->known->decoder_has_cross || !gguf_look(&m->file, decoder))
        return true;
    const gguf_entry *given = gguf_find(&m->file, decoder);
    return gguf_get(&m->file, decoder, 1, MAX_LAYERS, m->blocks, &blocks) &&
           (blocks == m->blocks || gguf_fail(&m->file, decoder, given, "as many as block_count: encoders of another depth cannot be sized"));
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------- */

/* Keys of the architecture that nobody asked for, and that sound as if they were about the cache. */
static void note_unknown(const gguf *file, model_description *description)
{
    /* clang-format off */
    static const char *const words[] = {
        "cache", "compress", "indexer", "interval", "kda", "kv", "lora_rank", "loop", "mla", "recurrent", "shared", "shortconv", "sliding", "ssm",
        "state", "swa", "window",
    };
    static const char *const harmless[] = {
        "attention.compress_rope_freq_base", "attention.indexer.block_size", "attention.indexer.head_count", "attention.indexer.local_blocks",
        "attention.indexer.top_k", "attention.kv_lora_rank", "attention.output_lora_rank", "attention.q_lora_rank", "expert_shared_count",
        "expert_shared_feed_forward_length", "rope.dimension_count_swa", "rope.freq_base_swa", "skip_loop_final_norm", "ssm.dt_b_c_rms",
        "ssm.time_step_rank",
    };
    /* clang-format on */
    const size_t prefix = strlen(file->architecture);
    for (size_t i = 0; i < file->n_entries; i++) {
        const gguf_entry *entry = &file->entries[i];
        char key[64];
        if (entry->used || entry->key_length <= prefix + 1 || memcmp(entry->key, file->architecture, prefix) != 0 || entry->key[prefix] != '.')
            continue;
        const char *name = gguf_shown(entry->key + prefix + 1, entry->key_length - prefix - 1, key);
        bool sounds = false;
        for (size_t w = 0; w < sizeof words / sizeof words[0]; w++)
            sounds |= strstr(name, words[w]) != NULL;
        for (size_t h = 0; h < sizeof harmless / sizeof harmless[0]; h++)
            sounds &= strcmp(name, harmless[h]) != 0;
        if (sounds)
            description_note(description, "%s.%s is not understood and left out", file->architecture, name);
    }
}

/* Whether such models can be sized at all. */
static bool check_has_cache(const gguf *file)
{
    if (gguf_look(file, "wkv.head_size") && find_architecture(file->architecture)->state_keys != RWKV)
        return error_set(file->error, "general.architecture is \"%s\": its state, of wkv.head_size, is of no known kind", file->architecture) == 0;
    for (size_t i = 0; i < sizeof cacheless / sizeof cacheless[0]; i++) {
        if (strcmp(file->architecture, cacheless[i]) == 0)
            return error_set(file->error, "general.architecture is \"%s\": such models have no cache of their own", file->architecture) == 0;
    }
    return true;
}

static bool describe_file(model *m, model_description *description)
{
    m->known = find_architecture(m->file.architecture);
    if (!get_counts(m) || !get_head_counts(m) || !get_state(m))
        return false;
    if (m->states != ALONE && (!get_dims(m) || !get_window(m, description) || !get_indexer(m)))
        return false;
    if ((m->known->compressed && !get_ratios(m)) || !get_cross(m))
        return false;
    for (uint32_t i = 0; i < m->layers; i++) {
        const uint32_t block = i % m->blocks, last = m->blocks - m->mtp - 1;
        description->layer = block < last ? block : last;
        const bool cross = has_cross(m, i);
        if ((!cross || m->known->decoder_has_cross) && !add_gguf_layer(m, description, i))
            return false;
        if (cross && !add_cross(m, description, i))
            return false;
    }
    note_unknown(&m->file, description);
    description->model.max_context = m->context;
    description_finish(description);
    snprintf(description->type, sizeof description->type, "%s", m->file.architecture);
    description->model.architecture = description->type;
    description->unknown_type = !m->known->name && !kvt_engine_knows(KVT_ENGINE_llama_cpp, &description->model);
    return true;
}

int model_read_gguf_part(const void *bytes, size_t size, uint64_t whole, bool *is_short, model_description *description, error_text *error)
{
    model m = { .file = { .error = error, .whole = whole } };
    const bool good = gguf_open(&m.file, bytes, size) && check_has_cache(&m.file) && describe_file(&m, description);
    *is_short = m.file.is_short;
    gguf_free(&m.file);
    if (!good)
        description_free(description);
    return good ? 0 : -1;
}

int model_read_gguf(const void *bytes, size_t size, model_description *description, error_text *error)
{
    bool is_short;
    return model_read_gguf_part(bytes, size, size, &is_short, description, error);
}
