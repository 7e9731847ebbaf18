/* SPDX-License-Identifier: MIT */
/* What a layer of each kind keeps, and the groups that all layers make. */
#include "tools/model/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_GROUPS 64 /* models have at most 5; each layer is compared with each group */

/* ---- rows of attention ----------------------------------------------------------------------------------------------------------- */

/* Full layers of Gemma 4 have their own number of KV heads, but only where attention_k_eq_v is true. */
static bool get_global_heads(const config_reader *r, uint32_t *heads)
{
    bool k_eq_v = false;
    if (!config_find(r, "num_global_key_value_heads"))
        return true;
    if (!config_check_bool(r, "attention_k_eq_v", config_find(r, "attention_k_eq_v"), &k_eq_v))
        return false;
    return !k_eq_v || config_get_heads(r, "num_global_key_value_heads", heads);
}

/* An integer of an object, when it is there. */
static bool get_of_object(const config_reader *r, const char *object, const char *field, uint32_t high, uint32_t *result)
{
    char name[100];
    json_int_t number = 0;
    const json_t *value = config_find_in(config_find(r, object), field);
    if (!value)
        return true;
    snprintf(name, sizeof name, "%s.%s", object, field);
    if (!config_check_integer(r, name, value, 1, high, &number))
        return false;
    *result = (uint32_t)number;
    return true;
}

/* `own_heads`: the number of KV heads is known for each layer, and not the model's. */
static bool read_full(const config_reader *r, bool own_heads, kvt_layer_group *group)
{
    uint32_t v_dim;
    group->kind = KVT_LAYER_FULL;
    if (!own_heads && (!config_get_kv_heads(r, &group->kv_heads) || !get_global_heads(r, &group->kv_heads)))
        return false;
    if (config_has(r, "global_head_dim")) {
        if (!config_get_dim(r, "global_head_dim", &group->k_dim))
            return false;
        group->v_dim = group->k_dim;
        return true;
    }
    if (!config_get_head_dim(r, &group->k_dim) || !config_get_count(r, "v_head_dim", KVT_MAX_DIM, &v_dim))
        return false;
    group->v_dim = v_dim ? v_dim : group->k_dim;
    return true;
}

/* Some models give sliding layers heads of their own: MiMo-V2 and Step-3.5. */
static bool get_sliding_heads(const config_reader *r, uint32_t *heads, uint32_t *dim)
{
    static const char other[] = "attention_other_setting";
    if (config_find(r, "swa_num_key_value_heads") ? !config_get_heads(r, "swa_num_key_value_heads", heads) : !config_get_kv_heads(r, heads))
        return false;
    if (config_find(r, "swa_head_dim") ? !config_get_dim(r, "swa_head_dim", dim) : !config_get_head_dim(r, dim))
        return false;
    return get_of_object(r, other, "num_attention_groups", KVT_MAX_HEADS, heads) && get_of_object(r, other, "head_dim", KVT_MAX_DIM, dim);
}

/* Sliding layers, or those with chunks: a chunk is at most as many tokens as a window of its size. */
static bool read_sliding(const config_reader *r, const char *window, kvt_layer_group *group)
{
    uint32_t v_dim, swa_v_dim;
    group->kind = KVT_LAYER_SLIDING;
    if (!config_get_u32(r, window, UINT32_MAX, &group->window))
        return false;
    if (!get_sliding_heads(r, &group->kv_heads, &group->k_dim))
        return false;
    if (!config_get_count(r, "v_head_dim", KVT_MAX_DIM, &v_dim) || !config_get_count(r, "swa_v_head_dim", KVT_MAX_DIM, &swa_v_dim))
        return false;
    group->v_dim = swa_v_dim ? swa_v_dim : v_dim ? v_dim : group->k_dim;

    /* A window as long as the longest context forgets nothing. */
    if (r->description->model.max_context && group->window >= r->description->model.max_context) {
        group->kind = KVT_LAYER_FULL;
        group->window = 0;
    }
    return true;
}

/* MLA: one row per token. Engines without it store keys and values of every head; how wide these are is known when all their fields are there. */
static bool read_latent(const config_reader *r, kvt_layer_group *group)
{
    uint32_t rank, rope, nope, v_dim;
    if (!config_get_dim(r, "kv_lora_rank", &rank) || !config_get_dim(r, "qk_rope_head_dim", &rope))
        return false;
    if (rank + rope > KVT_MAX_DIM)
        return config_fail(r, "kv_lora_rank + qk_rope_head_dim is %u, but must be at most %d", (unsigned)(rank + rope), KVT_MAX_DIM);
    group->kind = KVT_LAYER_LATENT;
    group->kv_heads = 1;
    group->k_dim = rank + rope;
    group->rope_dim = rope;

    config_find(r, "num_key_value_heads");                 /* of engines without MLA, where it is num_attention_heads */
    const bool minicpm3 = config_same_type(r, "minicpm3"); /* leaves out what is hidden_size / heads */
    const bool known = config_find(r, "num_attention_heads") && config_find(r, "qk_nope_head_dim") && (config_find(r, "v_head_dim") || minicpm3);
    if (!known)
        return true;
    if (!config_get_query_heads(r, &group->expanded_heads) || !config_get_dim(r, "qk_nope_head_dim", &nope) ||
        !(config_find(r, "v_head_dim") ? config_get_dim(r, "v_head_dim", &v_dim) : config_get_head_dim(r, &v_dim)))
        return false;
    if (nope + rope > KVT_MAX_DIM)
        return config_fail(r, "qk_nope_head_dim + qk_rope_head_dim is %u, but must be at most %d", (unsigned)(nope + rope), KVT_MAX_DIM);
    group->expanded_k_dim = nope + rope;
    group->expanded_v_dim = v_dim;
    return true;
}

/* The keys of an indexer; MiniMax-M3 has its fields in an object. */
static bool read_indexer(const config_reader *r, uint32_t tokens_per_row, kvt_layer_group *group)
{
    static const char object[] = "sparse_attention_config";
    group->kind = KVT_LAYER_INDEXER;
    group->kv_heads = 1;
    group->tokens_per_row = tokens_per_row;
    if (!config_find(r, "index_head_dim") && config_find(r, object))
        return get_of_object(r, object, "sparse_index_dim", KVT_MAX_DIM, &group->k_dim) &&
               (group->k_dim || config_fail_field(r, "sparse_attention_config.sparse_index_dim", NULL, "the channels of an indexer's key"));
    return config_get_dim(r, "index_head_dim", &group->k_dim);
}

/* ---- layers to groups ------------------------------------------------------------------------------------------------------------ */

/* The caches of each kind of layer; kind 0: the model has none. */
typedef struct caches {
    kvt_layer_group full, indexer, sliding, chunked, state, convolution, cross;
} caches;

static bool add_checked_group(const config_reader *r, kvt_layer_group group)
{
    if (description_add(r->description, &group, r->error) != 0)
        return false;
    return r->description->n_groups <= MAX_GROUPS ||
           config_fail(r, "the layers are of more than %d kinds, which is no model that is known", MAX_GROUPS);
}

static bool add_counted(const config_reader *r, kvt_layer_group group, uint32_t count, uint32_t draft_count)
{
    group.count = count;
    group.draft_count = draft_count;
    return group.kind == 0 || count + draft_count == 0 || add_checked_group(r, group);
}

static bool has_mla(const config_reader *r, bool *mla)
{
    const json_t *use = config_find(r, "use_mla");
    *mla = config_find(r, "kv_lora_rank") != NULL;
    return !use || (config_check_bool(r, "use_mla", use, mla) &&
                    (!*mla || config_find(r, "kv_lora_rank") || config_fail_field(r, "kv_lora_rank", NULL, "as use_mla is true")));
}

/* Full layers, which are latent in models with MLA and may have an indexer then. */
static bool read_full_or_latent(const config_reader *r, bool own_heads, caches *c)
{
    bool mla = false;
    if (!has_mla(r, &mla))
        return false;
    if (!mla)
        return read_full(r, own_heads, &c->full) && (!config_has_sparse_layers(r) || read_indexer(r, 1, &c->indexer));
    if (c->sliding.kind || c->chunked.kind)
        return config_fail(r, "kv_lora_rank is given and layers slide: what sliding layers with MLA store is not known");
    return read_latent(r, &c->full) && (!config_find(r, "index_head_dim") || read_indexer(r, 1, &c->indexer));
}

static bool read_cross(const config_reader *r, kvt_layer_group *group)
{
    group->kind = KVT_LAYER_CROSS;
    if (!config_get_kv_heads(r, &group->kv_heads) || !config_get_head_dim(r, &group->k_dim))
        return false;
    group->v_dim = group->k_dim;
    return true;
}

static bool read_caches(const config_reader *r, const config_layers *l, caches *c)
{
    unsigned parts = 0;
    bool own_heads = true; /* of all full layers */
    for (uint32_t i = 0; i < l->count; i++) {
        parts |= l->parts[i];
        own_heads &= l->kv_heads[i] != 0 || !(l->parts[i] & PART_FULL);
    }
    if (!parts)
        return config_fail(r, "no layer of %s has attention or a state", r->model_type);
    return (!(parts & PART_SLIDING) || read_sliding(r, config_window_field(r), &c->sliding)) &&
           (!(parts & PART_CHUNKED) || read_sliding(r, "attention_chunk_size", &c->chunked)) &&
           (!(parts & PART_FULL) || read_full_or_latent(r, own_heads, c)) && (!(parts & PART_STATE) || config_read_state(r, &c->state)) &&
           (!(parts & PART_CONVOLUTION) || config_read_short_convolution(r, &c->convolution)) && (!(parts & PART_CROSS) || read_cross(r, &c->cross));
}

/* A layer that stores nothing, and the layer whose cache it reads instead. */
static bool add_shared(const config_reader *r, kvt_layer_group group)
{
    group.count = group.draft_count = 0;
    group.shared_count = 1;
    return group.kind == 0 || add_checked_group(r, group);
}

static bool add_layer(const config_reader *r, const config_layers *l, uint32_t i, const caches *c)
{
    const unsigned parts = l->parts[i];
    const bool shared = parts & PART_SHARED;
    kvt_layer_group full = c->full, sliding = c->sliding;
    if (l->kv_heads[i])
        full.kv_heads = sliding.kv_heads = l->kv_heads[i];
    if (l->head_dim[i]) {
        full.k_dim = full.v_dim = sliding.k_dim = sliding.v_dim = l->head_dim[i];
        if (full.kind == KVT_LAYER_LATENT)
            return config_fail(r, "per_layer_config.%u.head_dim: what it means for MLA is not known", (unsigned)i);
    }
    if (!sliding.kind)
        sliding = (kvt_layer_group){ 0 };
    const struct {
        unsigned part;
        kvt_layer_group group;
    } all[] = { { PART_FULL, full },
                { PART_SLIDING, sliding },
                { PART_CHUNKED, c->chunked },
                { PART_STATE, c->state },
                { PART_CONVOLUTION, c->convolution },
                { PART_CROSS, c->cross } };
    if ((parts == PART_NOTHING || shared) && !add_counted(r, (kvt_layer_group){ .kind = KVT_LAYER_NONE }, 1, 0))
        return false;
    for (size_t p = 0; p < sizeof all / sizeof all[0]; p++) {
        if ((parts & all[p].part) && !(shared ? add_shared(r, all[p].group) : add_counted(r, all[p].group, 1, 0)))
            return false;
    }
    if (!(parts & PART_FULL) || (parts & PART_NO_INDEXER))
        return true;
    return shared || (parts & PART_SHARED_INDEXER) ? add_shared(r, c->indexer) : add_counted(r, c->indexer, 1, 0);
}

/* ---- layers for multi-token prediction ------------------------------------------------------------------------------------------- */

/* Of the parts that a layer for multi-token prediction is made of, how many have attention: Nemotron-H. */
static uint32_t attentions_of_draft(const config_reader *r)
{
    const json_t *letters = config_find(r, "mtp_hybrid_override_pattern"), *list = config_find(r, "mtp_layers_block_type");
    uint32_t count = 0;
    for (const char *c = json_string_value(letters); c && *c; c++)
        count += *c == '*';
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        count += name && strcmp(name, "attention") == 0;
    }
    return letters || list ? count : 1;
}

static bool get_nextn_layers(const config_reader *r, uint32_t *count)
{
    const char *field = config_name_of(r, NAMES("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers"));
    if (config_find(r, field) || !config_find(r, "num_mtp_modules")) /* DeepSeek and GLM; Qwen3.5 */
        return config_get_count(r, field, MAX_LAYERS, count);

    bool use = true; /* MiniMax */
    uint32_t modules, each;
    *count = 0;
    if (config_find(r, "use_mtp") && !config_get_flag(r, "use_mtp", &use))
        return false;
    if (!config_get_count(r, "num_mtp_modules", 255, &modules))
        return false;
    if (!use || modules == 0)
        return true;
    if (!config_get_count(r, "mtp_transformer_layers", 255, &each))
        return false;
    *count = modules * (config_find(r, "mtp_transformer_layers") ? each : 1);
    return true;
}

static bool get_draft_layers(const config_reader *r, uint32_t *count)
{
    static const char *const parts[] = { "nemotron_h", NULL };
    if (!get_nextn_layers(r, count))
        return false;
    if (*count && config_is_type(r, parts))
        *count *= attentions_of_draft(r);
    return true;
}

/* They have the attention of full layers; where a model also slides or has several numbers of heads, nothing says so. */
static bool add_draft_layers(const config_reader *r, const caches *c)
{
    uint32_t count;
    if (!get_draft_layers(r, &count))
        return false;
    if (count == 0)
        return true;
    if (!c->full.kind || !c->full.kv_heads) {
        description_note(r->description, "what the layers for multi-token prediction store is not understood, they are left out");
        return true;
    }
    if (c->sliding.kind || c->chunked.kind)
        description_note(r->description, "the layers for multi-token prediction are taken for full attention");
    return add_counted(r, c->full, 0, count) && add_counted(r, c->indexer, 0, count);
}

/* ---- DeepSeek-V4 ----------------------------------------------------------------------------------------------------------------- */

/* Keys and scores of the tokens that make no whole row yet, in float32. At 4 tokens per row each row overlaps the one before: twice the tokens and
 * twice the width. */
static void set_compressor(uint32_t tokens, kvt_layer_group *group)
{
    const uint64_t twice = tokens == 4 ? 2 : 1;
    group->recurrent_elements = 2 * twice * tokens * twice * group->k_dim;
    group->recurrent_element_bytes = 4;
}

/* Each layer keeps a window of rows that are key and value in one. Those with a ratio also keep a row for every so many tokens, and at 4 an indexer
 * chooses among these. Entries beyond num_hidden_layers are the MTP layers. */
static bool add_compressing_layer(const config_reader *r, uint32_t ratio, bool draft, const kvt_layer_group *window)
{
    const uint32_t count = draft ? 0 : 1, draft_count = draft ? 1 : 0;
    if (!add_counted(r, *window, count, draft_count))
        return false;
    if (ratio == 0)
        return true;
    kvt_layer_group rows = {
        .kind = KVT_LAYER_COMPRESSED, .kv_heads = 1, .k_dim = window->k_dim, .rope_dim = window->rope_dim, .tokens_per_row = ratio
    };
    set_compressor(ratio, &rows);
    if (!add_counted(r, rows, count, draft_count))
        return false;
    if (ratio != 4)
        return true;
    kvt_layer_group indexer = { 0 };
    if (!read_indexer(r, ratio, &indexer))
        return false;
    set_compressor(ratio, &indexer);
    return add_counted(r, indexer, count, draft_count);
}

bool config_read_compressing(const config_reader *r)
{
    const json_t *ratios = config_find(r, "compress_ratios");
    kvt_layer_group window = { .kind = KVT_LAYER_SLIDING, .kv_heads = 1 };
    uint32_t heads, draft, layers_given;
    size_t count;
    if (!json_is_array(ratios))
        return config_fail_field(r, "compress_ratios", ratios, "a list with one number for each layer");
    if (!config_get_u32(r, config_layer_count_field(r), MAX_LAYERS, &layers_given) || !get_draft_layers(r, &draft) ||
        !config_check_length(r, "compress_ratios", json_array_size(ratios), draft, &count))
        return false;
    if (!config_get_u32(r, "num_key_value_heads", 1, &heads) || !config_get_dim(r, "head_dim", &window.k_dim) ||
        !config_get_u32(r, "sliding_window", UINT32_MAX, &window.window) || !config_get_count(r, "qk_rope_head_dim", KVT_MAX_DIM, &window.rope_dim))
        return false;
    if (window.rope_dim >= window.k_dim)
        return config_fail(r, "qk_rope_head_dim is %u, but must be less than head_dim, which is %u", (unsigned)window.rope_dim,
                           (unsigned)window.k_dim);
    for (size_t i = 0; i < json_array_size(ratios); i++) {
        char entry[64];
        json_int_t ratio = 0;
        snprintf(entry, sizeof entry, "compress_ratios[%zu]", i);
        if (!config_check_integer(r, entry, json_array_get(ratios, i), 0, MAX_STATE_DIM, &ratio))
            return false;
        if (ratio == 1)
            return config_fail(r, "%s is 1, but must be 0 or at least 2", entry);
        r->description->layer = (uint32_t)(i < count ? i : count - 1);
        if (!add_compressing_layer(r, (uint32_t)ratio, i >= count, &window))
            return false;
    }
    /* A list without them says nothing of the MTP layers: these have the window, as in the published files. */
    return json_array_size(ratios) > count || add_counted(r, window, 0, draft);
}

/* ---- all groups ------------------------------------------------------------------------------------------------------------------ */

bool config_read_groups(const config_reader *r)
{
    config_layers l = { 0 };
    caches c = { 0 };
    bool good = config_map_layers(r, &l) && read_caches(r, &l, &c);
    if (good && (uint64_t)l.passes * l.count > MAX_LAYERS)
        good = config_fail(r, "the layers are passed through %u times: more than %d caches", (unsigned)l.passes, MAX_LAYERS);
    for (uint32_t i = 0; good && i < l.passes * l.count; i++) {
        r->description->layer = i % l.count;
        good = add_layer(r, &l, i % l.count, &c);
    }
    free(l.parts);
    free(l.kv_heads);
    free(l.head_dim);
    return good && add_draft_layers(r, &c);
}
