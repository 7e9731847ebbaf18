/* SPDX-License-Identifier: MIT */
/* The kinds of layers: all the ways in which files say them. */
#include "tools/model/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the classes of huggingface/transformers say ---------------------------------------------------------------------------- */

/* Types in which every layer slides when sliding_window is a number. */
static const char *const all_slide[] = { "mistral", "mixtral", "ministral", "ministral3", "phi3", "phi3_v", "phimoe", "starcoder2", NULL };

/* Types in which every layer has a state and nothing else. */
static const char *const all_states[] = { "mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv5", "rwkv6", "rwkv7", NULL };

/* Types in which some layers have a state, which only a list or an interval tells from the others. */
static const char *const some_states[] = {
    "bailing_hybrid", "bailing_moe_linear", "bamba",      "granitemoehybrid", "jamba",  "kimi_linear",     "lfm2",  "lfm2_moe", "minimax",
    "minimax_m1",     "minimax_text_01",    "nemotron_h", "olmo_hybrid",      "plamo2", "recurrent_gemma", "zamba", "zamba2",   NULL
};

/* Types whose layers_block_type calls "hybrid" what has attention and a state side by side. */
static const char *const hybrids[] = { "zamba", "zamba2", "falcon_h1", NULL };

/* Types in which use_sliding_window is false unless given, and of these the ones whose layers slide from max_window_layers on. */
static const char *const slide_on_demand[] = { "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen2_moe", "qwen3_moe", "smollm3", NULL };
static const char *const last_slide[] = { "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", NULL };

/* Types whose last layer is full, whatever the pattern says. */
static const char *const last_is_full[] = { "gemma4", "gemma4_unified", NULL };

/* Types in which every layer has both attention and a state, side by side. */
static const char *const parallel[] = { "falcon_h1", NULL };

/* Types whose layers with "full_attention" have no indexer. */
static const char *const some_indexed[] = { "minimax_m3", "minimax_m3_vl", NULL };

bool config_has_sparse_layers(const config_reader *r)
{
    return config_is_type(r, some_indexed) && (config_find(r, "sparse_attention_config") || config_find(r, "index_head_dim"));
}

/* ---- which layer is what --------------------------------------------------------------------------------------------------------- */

typedef struct layer_name {
    const char *name;
    uint16_t parts;
} layer_name;

/* The lists end with an empty row. */
static const layer_name type_names[] = { { "full_attention", PART_FULL },
                                         { "attention", PART_FULL },
                                         { "indexed_attention", PART_FULL },
                                         { "deepseek_sparse_attention", PART_FULL },
                                         { "minimax_m3_sparse", PART_FULL },
                                         { "sliding_attention", PART_SLIDING },
                                         { "chunked_attention", PART_CHUNKED },
                                         { "linear_attention", PART_STATE },
                                         { "mamba", PART_STATE },
                                         { "mamba2", PART_STATE },
                                         { "conv", PART_CONVOLUTION },
                                         { "moe", PART_NOTHING },
                                         { "mlp", PART_NOTHING },
                                         { "hybrid", PART_FULL | PART_STATE },
                                         { 0 } };
static const layer_name indexer_names[] = { { "full", 0 }, { "shared", PART_SHARED_INDEXER }, { 0 } };
static const layer_name block_names[] = { { "recurrent", PART_STATE }, { "attention", PART_SLIDING }, { 0 } };
static const layer_name local_names[] = { { "global", PART_FULL }, { "local", PART_SLIDING }, { 0 } };
static const layer_name hybrid_letters[] = { { "*", PART_FULL }, { "M", PART_STATE }, { "E", PART_NOTHING }, { "-", PART_NOTHING }, { 0 } };
static const layer_name window_letters[] = { { "L", PART_SLIDING }, { "G", PART_FULL }, { 0 } };

/* "a", "b" or "c" */
static void join_names(const layer_name *names, char *text, size_t size)
{
    size_t used = 0;
    for (const layer_name *n = names; n->name && used < size; n++) {
        const char *before = n == names ? "" : n[1].name ? ", " : " or ";
        used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", before, n->name);
    }
}

static bool find_parts(const layer_name *names, const char *name, uint16_t *parts)
{
    for (const layer_name *n = names; n->name; n++) {
        if (name && strcmp(n->name, name) == 0) {
            *parts = n->parts;
            return true;
        }
    }
    return false;
}

static bool make_layers(const config_reader *r, size_t count, config_layers *l)
{
    l->parts = calloc(count, sizeof *l->parts);
    l->kv_heads = calloc(count, sizeof *l->kv_heads);
    l->head_dim = calloc(count, sizeof *l->head_dim);
    l->count = (uint32_t)count;
    l->passes = 1;
    return (l->parts && l->kv_heads && l->head_dim) || config_fail(r, "no memory for %zu layers", count);
}

const char *config_layer_count_field(const config_reader *r)
{
    static const char *const names[] = { "num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers", NULL };
    return config_name_of(r, names);
}

/* As many layers as num_hidden_layers says, all alike. */
static bool alike_layers(const config_reader *r, uint16_t parts, config_layers *l)
{
    uint32_t count;
    if (!config_get_u32(r, config_layer_count_field(r), MAX_LAYERS, &count) || !make_layers(r, count, l))
        return false;
    for (uint32_t i = 0; i < count; i++)
        l->parts[i] = parts;
    return true;
}

/* A list or string that names each layer says how many there are; num_hidden_layers, where it is given, must agree. `extra` more are allowed. */
bool config_check_length(const config_reader *r, const char *field, size_t length, uint32_t extra, size_t *count)
{
    if (length == 0 || length > MAX_LAYERS)
        return config_fail(r, "%s has %zu entries, but must have 1 to %d", field, length, MAX_LAYERS);
    const char *counter = config_layer_count_field(r);
    *count = length;
    if (!config_find(r, counter))
        return true;
    uint32_t layers_given;
    if (!config_get_u32(r, counter, MAX_LAYERS, &layers_given))
        return false;
    *count = layers_given;
    return length == *count || (extra && length == *count + extra) ||
           config_fail(r, "%s has %zu entries, but must have %s = %u%s", field, length, counter, (unsigned)layers_given,
                       extra ? ", or also those of num_nextn_predict_layers" : "");
}

/* A list with an entry for each layer. */
static const json_t *layer_list(const config_reader *r, const char *field, config_layers *l)
{
    const json_t *list = config_find(r, field);
    size_t count;
    if (!json_is_array(list)) {
        config_fail_field(r, field, list, "a list with one entry for each layer");
        return NULL;
    }
    return config_check_length(r, field, json_array_size(list), 0, &count) && make_layers(r, count, l) ? list : NULL;
}

/* What entry i of a list says, by name. */
static bool named_parts(const config_reader *r, const char *field, const json_t *list, size_t i, const layer_name *names, uint16_t *parts)
{
    const json_t *name = json_array_get(list, i);
    if (find_parts(names, json_string_value(name), parts))
        return true;
    char entry[64], right[240];
    snprintf(entry, sizeof entry, "%s[%zu]", field, i);
    join_names(names, right, sizeof right);
    return config_fail_field(r, entry, name, right);
}

static bool named_layers(const config_reader *r, const char *field, config_layers *l)
{
    const json_t *list = layer_list(r, field, l);
    if (!list)
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!named_parts(r, field, list, i, type_names, &l->parts[i]))
            return false;
        if (l->parts[i] == (PART_FULL | PART_STATE) && !config_is_type(r, hybrids))
            return config_fail(r, "%s[%u] is \"hybrid\": what such a layer of %s keeps is not known", field, (unsigned)i, r->model_type);
        if (config_is_type(r, some_indexed) && strcmp(json_string_value(json_array_get(list, i)), "full_attention") == 0)
            l->parts[i] |= PART_NO_INDEXER;
        if (l->parts[i] == PART_STATE && config_is_type(r, hybrids) && config_same_type(r, "falcon_h1"))
            l->parts[i] |= PART_FULL;
    }
    if (config_is_type(r, last_is_full) && l->parts[l->count - 1] != PART_FULL)
        return config_fail(r, "%s does not end with \"full_attention\", but must in %s", field, r->model_type);
    return true;
}

/* A list of names that begins again when it ends: RecurrentGemma. */
static bool repeated_names(const config_reader *r, const char *field, const layer_name *names, config_layers *l)
{
    const json_t *list = config_find(r, field);
    const size_t count = json_array_size(list);
    if (count == 0)
        return config_fail_field(r, field, list, "a list of kinds of layers");
    if (!alike_layers(r, PART_NOTHING, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!named_parts(r, field, list, i % count, names, &l->parts[i]))
            return false;
    }
    return true;
}

/* [[["global", "local"], 12]]: lists of names, and how often each comes: GPT-Neo. */
static bool counted_names(const config_reader *r, const char *field, const layer_name *names, config_layers *l)
{
    const json_t *lists = config_find(r, field);
    uint32_t layer = 0;
    if (!json_is_array(lists))
        return config_fail_field(r, field, lists, "a list of kinds of layers and how often they come");
    if (!alike_layers(r, PART_NOTHING, l))
        return false;
    for (size_t i = 0; i < json_array_size(lists); i++) {
        const json_t *item = json_array_get(lists, i), *list = json_array_get(item, 0);
        json_int_t times = 0;
        char entry[64];
        snprintf(entry, sizeof entry, "%s[%zu][1]", field, i);
        if (!config_check_integer(r, entry, json_array_get(item, 1), 1, MAX_LAYERS, &times))
            return false;
        for (size_t t = 0; t < (size_t)times * json_array_size(list); t++, layer++) {
            if (layer == l->count)
                return config_fail(r, "%s names more layers than num_layers = %u", field, (unsigned)l->count);
            if (!named_parts(r, field, list, t % json_array_size(list), names, &l->parts[layer]))
                return false;
        }
    }
    return layer == l->count || config_fail(r, "%s names %u layers, but must name num_layers = %u", field, (unsigned)layer, (unsigned)l->count);
}

/* A list of 0 and 1. */
static bool numbered_layers(const config_reader *r, const char *field, uint16_t zero, uint16_t n, config_layers *l)
{
    const json_t *list = layer_list(r, field, l);
    for (uint32_t i = 0; list && i < l->count; i++) {
        char entry[64];
        json_int_t value = 0;
        snprintf(entry, sizeof entry, "%s[%u]", field, (unsigned)i);
        if (!config_check_integer(r, entry, json_array_get(list, i), 0, 1, &value))
            return false;
        l->parts[i] = value ? n : zero;
    }
    return list != NULL;
}

static bool letter_parts(const config_reader *r, const char *field, const layer_name *names, const char *letters, size_t i, uint16_t *parts)
{
    const char letter[2] = { letters[i], '\0' };
    if (find_parts(names, letter, parts))
        return true;
    char right[80], shown[16];
    join_names(names, right, sizeof right);
    config_show(letter, shown, sizeof shown);
    return config_fail(r, "%s[%zu] is \"%s\", but must be %s", field, i, shown, right);
}

/* One letter for each layer: Nemotron-H. */
static bool lettered_layers(const config_reader *r, const char *field, config_layers *l)
{
    const json_t *value = config_find(r, field);
    size_t count;
    if (!json_is_string(value))
        return config_fail_field(r, field, value, "a string with one letter for each layer");
    if (!config_check_length(r, field, json_string_length(value), 0, &count) || !make_layers(r, count, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!letter_parts(r, field, hybrid_letters, json_string_value(value), i, &l->parts[i]))
            return false;
    }
    return true;
}

/* The layers of a list, counted from `first`, turn from `old` into `parts`; every layer only once. */
static bool mark_layers(const config_reader *r, const char *field, const json_t *list, uint32_t first, uint16_t old, uint16_t parts, config_layers *l)
{
    if (!json_is_array(list))
        return config_fail_field(r, field, list, "a list of numbers of layers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        char entry[80];
        json_int_t number = 0;
        snprintf(entry, sizeof entry, "%s[%zu]", field, i);
        if (!config_check_integer(r, entry, json_array_get(list, i), first, (json_int_t)first + l->count - 1, &number))
            return false;
        if (l->parts[number - first] != old)
            return config_fail(r, "%s names layer %u, but it was named before", entry, (unsigned)number);
        l->parts[number - first] = parts;
    }
    return true;
}

/* The layers of the list have attention, the others `other`: Bamba, LFM2. */
static bool attention_at(const config_reader *r, const char *field, uint16_t other, config_layers *l)
{
    return alike_layers(r, other, l) && mark_layers(r, field, config_find(r, field), 0, other, PART_FULL, l);
}

/* Two lists of layers, counted from 1, that must make up the whole: Kimi Linear. */
static bool linear_config_layers(const config_reader *r, config_layers *l)
{
    const json_t *config = config_find(r, "linear_attn_config");
    if (!json_is_object(config))
        return config_fail_field(r, "linear_attn_config", config, "an object");
    if (!alike_layers(r, PART_NOTHING, l) ||
        !mark_layers(r, "linear_attn_config.full_attn_layers", config_find_in(config, "full_attn_layers"), 1, PART_NOTHING, PART_FULL, l))
        return false;
    const json_t *linear = config_find_in(config, "kda_layers");
    const size_t n_linear = json_array_size(linear), n_full = json_array_size(config_find_in(config, "full_attn_layers"));
    if (!mark_layers(r, "linear_attn_config.kda_layers", linear, 1, PART_NOTHING, PART_STATE, l))
        return false;
    return n_linear + n_full == l->count ||
           config_fail(r, "linear_attn_config.kda_layers and full_attn_layers name %zu layers, but must name num_hidden_layers = %u",
                       n_linear + n_full, (unsigned)l->count);
}

/* One layer in `period` has attention: Jamba, and beside its state Zamba. */
static bool period_layers(const config_reader *r, config_layers *l)
{
    uint32_t period, offset;
    if (!config_get_u32(r, "attn_layer_period", MAX_LAYERS, &period))
        return false;
    if (!config_find(r, "attn_layer_offset"))
        return config_fail_field(r, "attn_layer_offset", NULL, "the first layer with attention");
    if (!config_get_count(r, "attn_layer_offset", period - 1, &offset) || !alike_layers(r, PART_STATE, l))
        return false;
    for (uint32_t i = offset; i < l->count; i += period)
        l->parts[i] = config_same_type(r, "zamba") ? PART_FULL | PART_STATE : PART_FULL;
    return true;
}

/* The last layer of each group has attention, and so have those that fill no group: Ring-linear. */
static bool grouped_layers(const config_reader *r, config_layers *l)
{
    uint32_t group;
    if (!config_get_u32(r, "layer_group_size", MAX_LAYERS, &group) || !alike_layers(r, PART_STATE, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if ((i + 1) % group == 0 || i >= l->count / group * group)
            l->parts[i] = PART_FULL;
    }
    return true;
}

/* The number of KV heads of each layer: OpenELM. */
static bool layers_of_heads(const config_reader *r, config_layers *l)
{
    const json_t *list = layer_list(r, "num_kv_heads", l);
    for (uint32_t i = 0; list && i < l->count; i++) {
        char entry[64];
        json_int_t heads = 0;
        snprintf(entry, sizeof entry, "num_kv_heads[%u]", (unsigned)i);
        if (!config_check_integer(r, entry, json_array_get(list, i), 1, KVT_MAX_HEADS, &heads))
            return false;
        l->parts[i] = PART_FULL;
        l->kv_heads[i] = (uint32_t)heads;
    }
    return list != NULL;
}

/* Every `field`-th layer is full, the others are `other`. */
static bool interval_layers(const config_reader *r, const char *field, uint16_t other, config_layers *l)
{
    uint32_t interval;
    if (!config_get_u32(r, field, MAX_LAYERS, &interval) || !alike_layers(r, PART_FULL, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if ((i + 1) % interval != 0)
            l->parts[i] = other;
    }
    return true;
}

/* The attention of one entry of block_configs. */
static bool read_block_config(const config_reader *r, const json_t *block, uint32_t i, uint32_t query_heads, config_layers *l)
{
    static const char *const harmless[] = {
        "n_heads_in_group", "no_op", "replace_with_linear", "num_sink_tokens", "sparsify", "unshifted_sink", "use_prefill_window_in_sink_attention"
    };
    char field[64];
    snprintf(field, sizeof field, "block_configs[%u].attention", (unsigned)i);
    json_t *attention = json_object_get(block, "attention"), *value;
    if (!json_is_object(attention))
        return config_fail_field(r, field, attention, "an object");

    const char *key;
    json_object_foreach(attention, key, value)
    {
        bool known = json_is_null(value) || json_is_false(value);
        for (size_t j = 0; j < sizeof harmless / sizeof harmless[0]; j++)
            known |= strcmp(key, harmless[j]) == 0;
        if (!known) {
            char shown[64];
            config_show(key, shown, sizeof shown);
            return config_fail(r, "%s has %s, which is not understood", field, shown);
        }
    }
    for (size_t j = 1; j < 3; j++) { /* no_op, replace_with_linear */
        bool gone = false;
        char name[100];
        snprintf(name, sizeof name, "%s.%s", field, harmless[j]);
        value = config_find_in(attention, harmless[j]);
        if (value && !config_check_bool(r, name, value, &gone))
            return false;
        if (gone)
            return true;
    }
    char name[100];
    json_int_t group = 0;
    snprintf(name, sizeof name, "%s.n_heads_in_group", field);
    if (!config_check_integer(r, name, config_find_in(attention, "n_heads_in_group"), 1, query_heads, &group))
        return false;
    if (query_heads % group != 0)
        return config_fail(r, "%s is %u, but must divide num_attention_heads = %u", name, (unsigned)group, (unsigned)query_heads);
    l->parts[i] = PART_FULL;
    l->kv_heads[i] = query_heads / (uint32_t)group;
    return true;
}

/* Layers found by a search over variants of a model, each with its own number of KV heads or none: Nemotron-NAS. */
static bool block_layers(const config_reader *r, config_layers *l)
{
    uint32_t query_heads;
    const json_t *list = layer_list(r, "block_configs", l);
    if (!list || !config_get_query_heads(r, &query_heads))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!read_block_config(r, json_array_get(list, i), i, query_heads, l))
            return false;
    }
    return true;
}

/* ---- layers with windows that no list names -------------------------------------------------------------------------------------- */

/* A string of L (local) and G (global) that repeats; Exaone 4's last layer is global whatever it says. */
static bool repeated_letters(const config_reader *r, const char *field, const json_t *value, config_layers *l)
{
    const char *letters = json_string_value(value);
    const size_t length = json_string_length(value);
    if (length == 0)
        return config_fail_field(r, field, value, "a number, or a string of \"L\" and \"G\"");
    if (!alike_layers(r, PART_FULL, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!letter_parts(r, field, window_letters, letters, i % length, &l->parts[i]))
            return false;
    }
    l->parts[l->count - 1] = PART_FULL;
    return true;
}

static bool pattern_layers(const config_reader *r, const char *field, config_layers *l)
{
    const json_t *value = config_find(r, field);
    if (json_is_string(value))
        return repeated_letters(r, field, value, l);
    if (!interval_layers(r, field, PART_SLIDING, l))
        return false;
    if (config_is_type(r, last_is_full))
        l->parts[l->count - 1] = PART_FULL;
    return true;
}

/* From max_window_layers on. */
static bool demanded_layers(const config_reader *r, config_layers *l)
{
    json_int_t first = 0;
    if (!config_is_type(r, last_slide))
        return config_fail(r, "use_sliding_window is true, but must be false for %s unless layer_types says which layers slide", r->model_type);
    if (!config_get_integer(r, "max_window_layers", 0, MAX_LAYERS, &first) || !alike_layers(r, PART_FULL, l))
        return false;
    for (uint32_t i = (uint32_t)first; i < l->count; i++)
        l->parts[i] = PART_SLIDING;
    return true;
}

/* Layers with RoPE attend within their chunk, the others to everything: Llama 4. An empty list stands for the interval. */
static bool chunked_layers(const config_reader *r, config_layers *l)
{
    if (json_array_size(config_find(r, "no_rope_layers")) > 0)
        return numbered_layers(r, "no_rope_layers", PART_FULL, PART_CHUNKED, l);
    if (!config_has(r, "no_rope_layer_interval"))
        return config_fail(r, "attention_chunk_size is given, but nothing says which layers have chunks: layer_types is missing");
    return interval_layers(r, "no_rope_layer_interval", PART_CHUNKED, l);
}

const char *config_window_field(const config_reader *r)
{
    static const char *const names[] = {
        "sliding_window", "sliding_window_size", "attention_window_size", "loop_window_size", "window_size", "local_attention", NULL
    };
    return config_name_of(r, names);
}

static bool windowed_layers(const config_reader *r, config_layers *l)
{
    const char *window = config_window_field(r), *pattern = config_name_of(r, NAMES("sliding_window_pattern", "_sliding_window_pattern"));
    bool slides = false;
    if (!config_get_flag(r, "use_sliding_window", &slides))
        return false;
    if (slides)
        return demanded_layers(r, l);
    if (config_find(r, "use_sliding_window") || config_is_type(r, slide_on_demand))
        return alike_layers(r, PART_FULL, l);

    /* null: no window, whatever the pattern. */
    const bool off = json_is_null(json_object_get(r->text, window));
    if (config_has(r, pattern) && !off)
        return pattern_layers(r, pattern, l);
    if (config_has(r, "attention_chunk_size"))
        return chunked_layers(r, l);
    if (!config_has(r, window))
        return alike_layers(r, PART_FULL, l);
    if (config_is_type(r, all_slide))
        return alike_layers(r, PART_SLIDING, l);
    return config_fail(r, "%s is given, but nothing says which layers slide: layer_types or sliding_window_pattern is missing", window);
}

/* ---- all ways to say which layer is what ----------------------------------------------------------------------------------------- */

/* Fields that say which layer is what, the strongest first, and those of windows, which any list of layers overrides. */
static const char *const map_fields[] = {
    "layer_types",        "layers_block_type",   "hybrid_override_pattern", "hybrid_layer_pattern",
    "attn_type_list",     "block_configs",       "linear_attn_config",      "attn_layer_indices",
    "full_attn_idxs",     "attn_layer_period",   "attn_layer_offset",       "full_attention_interval",
    "sliding_window",     "sliding_window_size", "sliding_window_pattern",  "_sliding_window_pattern",
    "use_sliding_window", "max_window_layers",   "attention_chunk_size",    NULL,
};

/* Fields of recurrent layers. They mean nothing in a model whose list of layers names none, and are a riddle in one without a list. */
static const char *const state_fields[] = {
    "linear_conv_kernel_dim",
    "linear_num_key_heads",
    "linear_key_head_dim",
    "linear_num_value_heads",
    "linear_value_head_dim",
    "conv_kernel",
    "mamba_num_heads",
    "mamba_head_dim",
    "ssm_state_size",
    "state_size",
    "mamba_d_conv",
    "mamba_n_heads",
    "mamba_d_head",
    "mamba_n_groups",
    "mamba_d_state",
    "mamba_d_ssm",
    "mamba_expand",
    "conv_L_cache",
    "conv_dim",
    "mamba_ssm_dtype",
    "mamba_ssm_cache_dtype",
    NULL,
};

/* Without any list of layers they are alike, but for windows. */
static bool unlisted_layers(const config_reader *r, config_layers *l)
{
    const char *state = config_name_of(r, state_fields);
    if (config_find(r, state) && !config_is_type(r, parallel))
        return config_fail(r, "%s is given, but nothing says which layers are recurrent: layer_types is missing", state);
    if (config_is_type(r, some_states))
        return config_fail(r, "nothing says which layers of %s are recurrent: layer_types is missing", r->model_type);
    if (!windowed_layers(r, l))
        return false;
    if (config_find(r, state)) {
        for (uint32_t i = 0; i < l->count; i++)
            l->parts[i] |= PART_STATE;
    }
    return true;
}

/* The last layers read what earlier ones store: Gemma 3n and 4. */
static bool share_layers(const config_reader *r, config_layers *l)
{
    uint32_t shared;
    if (!config_get_count(r, "num_kv_shared_layers", l->count - 1, &shared))
        return false;
    if (shared >= l->count) /* the class's number in a model of fewer config_layers */
        return config_fail(r, "num_kv_shared_layers is missing: %s has %u layers and its class shares %u", r->model_type, (unsigned)l->count,
                           (unsigned)shared);
    for (uint32_t i = l->count - shared; i < l->count; i++)
        l->parts[i] |= PART_SHARED;
    return true;
}

/* Of `share_factor` neighbours the first stores, and the others read it: Hunyuan. */
static bool share_between_neighbours(const config_reader *r, config_layers *l)
{
    bool use = false;
    uint32_t factor;
    if (!config_get_flag(r, "use_cla", &use))
        return false;
    if (!use) {
        if (config_find(r, "use_cla"))
            config_find(r, "cla_share_factor");
        return true;
    }
    if (!config_get_u32(r, "cla_share_factor", MAX_LAYERS, &factor))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (i % factor != 0)
            l->parts[i] |= PART_SHARED;
    }
    return true;
}

/* Layers with an indexer are 1 in a list: MiniMax-M3. */
static bool sparse_layers(const config_reader *r, config_layers *l)
{
    static const char field[] = "sparse_attention_config.sparse_attention_freq";
    const json_t *object = config_has_sparse_layers(r) ? config_find(r, "sparse_attention_config") : NULL,
                 *list = config_find_in(object, "sparse_attention_freq");
    if (!object || config_find(r, "layer_types"))
        return true;
    if (!json_is_array(list) || json_array_size(list) != l->count)
        return config_fail_field(r, field, list, "a list with 0 or 1 for each layer");
    for (uint32_t i = 0; i < l->count; i++) {
        json_int_t sparse = 0;
        char entry[80];
        snprintf(entry, sizeof entry, "%s[%u]", field, (unsigned)i);
        if (!config_check_integer(r, entry, json_array_get(list, i), 0, 1, &sparse))
            return false;
        if (!sparse)
            l->parts[i] |= PART_NO_INDEXER;
    }
    return true;
}

/* Layers without an indexer of their own: GLM-5.2 names each. */
static bool share_indexers(const config_reader *r, config_layers *l)
{
    static const char field[] = "indexer_types";
    const json_t *list = config_find(r, field);
    size_t count;
    if (!list)
        return true;
    if (!json_is_array(list))
        return config_fail_field(r, field, list, "a list with one entry for each layer");
    if (!config_check_length(r, field, json_array_size(list), 0, &count))
        return false;
    for (uint32_t i = 0; i < l->count && i < count; i++) {
        uint16_t parts = 0;
        if (!named_parts(r, field, list, i, indexer_names, &parts))
            return false;
        l->parts[i] |= parts;
    }
    /* These made the list. */
    config_find(r, "index_topk_freq");
    config_find(r, "index_skip_topk_offset");
    config_find(r, "index_topk_pattern");
    config_find(r, "index_share_for_mtp_iteration");
    return true;
}

/* Layers that cross attention alone belongs to: Llama 3.2 Vision. */
static bool cross_layers(const config_reader *r, config_layers *l)
{
    const json_t *list = config_find(r, "cross_attention_layers");
    if (list && !config_same_type(r, "mllama"))
        return config_fail_field(r, "cross_attention_layers", list, "absent: what is known of cross attention is Llama 3.2 Vision's");
    return !list || (mark_layers(r, "cross_attention_layers", list, 0, PART_FULL, PART_CROSS, l) && config_read_image_tokens(r));
}

/* Models that pass through their layers several times, or have several attentions in each. */
static bool count_passes(const config_reader *r, config_layers *l)
{
    static const char *const looped[] = { "ouro", NULL }, *const doubled[] = { "longcat_flash", "longcat_flash_ngram", NULL };
    if (config_is_type(r, doubled))
        l->passes = 2;
    return !config_is_type(r, looped) || config_get_u32(r, "total_ut_steps", MAX_LAYERS, &l->passes);
}

/* After a first pass with full attention the others look at a window: IQuest-LoopCoder. */
static bool looped_layers(const config_reader *r, config_layers *l)
{
    uint32_t loops;
    if (!config_get_u32(r, "loop_num", 255, &loops))
        return false;
    return loops == 2 ? alike_layers(r, PART_FULL | PART_SLIDING, l)
                      : config_fail_field(r, "loop_num", config_find(r, "loop_num"), "2: what further passes keep is not known");
}

/* The layers that reuse what the last one before them stores: AFM. */
static bool reusing_layers(const config_reader *r, config_layers *l)
{
    uint32_t reusing;
    if (!alike_layers(r, PART_FULL, l) || !config_get_count(r, "num_kv_reuse_layers", l->count - 1, &reusing))
        return false;
    for (uint32_t i = l->count - reusing; i < l->count; i++)
        l->parts[i] |= PART_SHARED;
    return true;
}

/* {"05": {"head_dim": 512}}: what single layers have of their own, as huggingface/transformers writes it since 5.2. */
static bool read_per_layer(const config_reader *r, config_layers *l)
{
    const json_t *object = config_find(r, "per_layer_config");
    const char *key, *field;
    json_t *item, *value;
    if (object && !json_is_object(object))
        return config_fail_field(r, "per_layer_config", object, "an object with a member for each layer");
    json_object_foreach((json_t *)(uintptr_t)object, key, item)
    {
        char *end, name[160], shown[64];
        const unsigned long layer = strtoul(key, &end, 10);
        config_show(key, shown, sizeof shown);
        if (*key < '0' || *key > '9' || *end || layer >= l->count)
            return config_fail(r, "per_layer_config has \"%s\", but must have numbers of layers below %u", shown, (unsigned)l->count);
        if (!json_is_object(item))
            return config_fail(r, "per_layer_config.%s must be an object", shown);
        json_object_foreach(item, field, value)
        {
            json_int_t number = 0;
            char what[64];
            const bool dim = strcmp(field, "head_dim") == 0;
            config_show(field, what, sizeof what);
            snprintf(name, sizeof name, "per_layer_config.%s.%s", shown, what);
            if (!dim && strcmp(field, "num_key_value_heads") != 0)
                return config_fail(r, "%s: what single layers have of this field is not known", name);
            if (!config_check_integer(r, name, value, 1, dim ? KVT_MAX_DIM : KVT_MAX_HEADS, &number))
                return false;
            *(dim ? &l->head_dim[layer] : &l->kv_heads[layer]) = (uint32_t)number;
        }
    }
    return true;
}

static bool map_kinds(const config_reader *r, config_layers *l)
{
    if (config_is_type(r, all_states))
        return alike_layers(r, PART_STATE, l);
    if (config_same_type(r, "iquestloopcoder"))
        return looped_layers(r, l);
    if (config_find(r, "layer_types"))
        return named_layers(r, "layer_types", l);
    if (config_find(r, "layers_block_type"))
        return named_layers(r, "layers_block_type", l);
    if (config_find(r, "hybrid_override_pattern"))
        return lettered_layers(r, "hybrid_override_pattern", l);
    if (config_find(r, "hybrid_layer_pattern")) /* MiMo-V2 */
        return numbered_layers(r, "hybrid_layer_pattern", PART_FULL, PART_SLIDING, l);
    if (config_find(r, "sliding_window_layout")) /* SmallThinker */
        return numbered_layers(r, "sliding_window_layout", PART_FULL, PART_SLIDING, l);
    if (config_find(r, "attn_type_list")) /* MiniMax */
        return numbered_layers(r, "attn_type_list", PART_STATE, PART_FULL, l);
    if (config_find(r, "block_types"))
        return repeated_names(r, "block_types", block_names, l);
    if (config_find(r, "attention_types"))
        return counted_names(r, "attention_types", local_names, l);
    if (config_find(r, "block_configs"))
        return block_layers(r, l);
    if (config_find(r, "linear_attn_config"))
        return linear_config_layers(r, l);
    if (config_find(r, "attn_layer_indices"))
        return attention_at(r, "attn_layer_indices", PART_STATE, l);
    if (config_find(r, "full_attn_idxs"))
        return attention_at(r, "full_attn_idxs", PART_CONVOLUTION, l);
    if (config_find(r, "attn_layer_period"))
        return period_layers(r, l);
    if (config_has(r, "full_attention_interval"))
        return interval_layers(r, "full_attention_interval", PART_STATE, l);
    if (config_find(r, "layer_group_size"))
        return grouped_layers(r, l);
    if (config_find(r, "num_kv_reuse_layers"))
        return reusing_layers(r, l);
    if (json_is_array(config_find(r, "num_kv_heads")))
        return layers_of_heads(r, l);
    return unlisted_layers(r, l);
}

bool config_map_layers(const config_reader *r, config_layers *l)
{
    return map_kinds(r, l) && share_layers(r, l) && share_between_neighbours(r, l) && sparse_layers(r, l) && share_indexers(r, l) &&
           cross_layers(r, l) && count_passes(r, l) && read_per_layer(r, l);
}

/* ---- for the list of what is understood ------------------------------------------------------------------------------------------ */

bool config_is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

bool config_is_layer_field(const char *name)
{
    return config_is_one_of(name, map_fields) || config_is_one_of(name, state_fields);
}
