/* Which layer is of which kind: all the ways in which files say so. */
#include "tools/model/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the classes of huggingface/transformers say ---------------------------------------------------------------------------- */

/* Types in which every layer slides when sliding_window is a number. */
static const char *const all_slide[] = { "mistral", "mixtral", "ministral3", "phi3", "phimoe", "starcoder2", NULL };

/* Types in which use_sliding_window is false unless given, and of these the ones whose layers slide from max_window_layers on. */
static const char *const slide_on_demand[] = { "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen2_moe", "qwen3_moe", "smollm3", NULL };
static const char *const last_slide[] = { "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", NULL };

/* Types whose last layer is full, whatever the pattern says. */
static const char *const last_is_full[] = { "gemma4", "gemma4_unified", NULL };

/* Types in which every layer has both attention and a state, side by side. */
static const char *const parallel[] = { "falcon_h1", NULL };

/* ---- which layer is what --------------------------------------------------------------------------------------------------------- */

typedef struct layer_name {
    const char *name;
    unsigned char parts;
} layer_name;

/* The lists end with an empty row. */
static const layer_name type_names[] = { { "full_attention", PART_FULL },
                                         { "attention", PART_FULL },
                                         { "sliding_attention", PART_SLIDING },
                                         { "chunked_attention", PART_CHUNKED },
                                         { "linear_attention", PART_STATE },
                                         { "mamba", PART_STATE },
                                         { "mamba2", PART_STATE },
                                         { "conv", PART_CONVOLUTION },
                                         { "moe", PART_NOTHING },
                                         { "mlp", PART_NOTHING },
                                         { 0 } };
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

static bool find_parts(const layer_name *names, const char *name, unsigned char *parts)
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
    l->count = (uint32_t)count;
    return (l->parts && l->kv_heads) || config_fail(r, "no memory for %zu layers", count);
}

const char *config_layer_count_field(const config_reader *r)
{
    return config_name_of(r, NAMES("num_hidden_layers", "n_layer", "n_layers", "num_layers"));
}

/* As many layers as num_hidden_layers says, all alike. */
static bool alike_layers(const config_reader *r, unsigned char parts, config_layers *l)
{
    uint32_t count;
    if (!config_get_u32(r, config_layer_count_field(r), MAX_LAYERS, &count) || !make_layers(r, count, l))
        return false;
    memset(l->parts, parts, count);
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

static bool named_layers(const config_reader *r, const char *field, config_layers *l)
{
    const json_t *list = layer_list(r, field, l);
    if (!list)
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        const json_t *name = json_array_get(list, i);
        if (find_parts(type_names, json_string_value(name), &l->parts[i]))
            continue;
        char entry[64], right[240];
        snprintf(entry, sizeof entry, "%s[%u]", field, (unsigned)i);
        join_names(type_names, right, sizeof right);
        return config_fail_field(r, entry, name, right);
    }
    if (config_is_type(r, last_is_full) && l->parts[l->count - 1] != PART_FULL)
        return config_fail(r, "%s does not end with \"full_attention\", but must in %s", field, r->model_type);
    return true;
}

/* A list of 0 and 1. */
static bool numbered_layers(const config_reader *r, const char *field, unsigned char zero, unsigned char one, config_layers *l)
{
    const json_t *list = layer_list(r, field, l);
    for (uint32_t i = 0; list && i < l->count; i++) {
        char entry[64];
        json_int_t value = 0;
        snprintf(entry, sizeof entry, "%s[%u]", field, (unsigned)i);
        if (!config_check_integer(r, entry, json_array_get(list, i), 0, 1, &value))
            return false;
        l->parts[i] = value ? one : zero;
    }
    return list != NULL;
}

static bool letter_parts(const config_reader *r, const char *field, const layer_name *names, const char *letters, size_t i, unsigned char *parts)
{
    const char letter[2] = { letters[i], '\0' };
    if (find_parts(names, letter, parts))
        return true;
    char right[80];
    join_names(names, right, sizeof right);
    return config_fail(r, "%s[%zu] is \"%s\", but must be %s", field, i, letters[i] > ' ' && letters[i] <= '~' ? letter : "?", right);
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
static bool mark_layers(const config_reader *r, const char *field, const json_t *list, uint32_t first, unsigned char old, unsigned char parts,
                        config_layers *l)
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
static bool attention_at(const config_reader *r, const char *field, unsigned char other, config_layers *l)
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

/* One layer in `period` has attention: Jamba. */
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
        l->parts[i] = PART_FULL;
    return true;
}

/* Every `field`-th layer is full, the others are `other`. */
static bool interval_layers(const config_reader *r, const char *field, unsigned char other, config_layers *l)
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
static bool read_block(const config_reader *r, const json_t *block, uint32_t i, uint32_t query_heads, config_layers *l)
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
        if (!read_block(r, json_array_get(list, i), i, query_heads, l))
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
    return config_name_of(r, NAMES("sliding_window", "sliding_window_size"));
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

bool config_map_layers(const config_reader *r, config_layers *l)
{
    bool good;
    if (config_find(r, "layer_types"))
        good = named_layers(r, "layer_types", l);
    else if (config_find(r, "layers_block_type"))
        good = named_layers(r, "layers_block_type", l);
    else if (config_find(r, "hybrid_override_pattern"))
        good = lettered_layers(r, "hybrid_override_pattern", l);
    else if (config_find(r, "hybrid_layer_pattern")) /* MiMo-V2 */
        good = numbered_layers(r, "hybrid_layer_pattern", PART_FULL, PART_SLIDING, l);
    else if (config_find(r, "attn_type_list")) /* MiniMax */
        good = numbered_layers(r, "attn_type_list", PART_STATE, PART_FULL, l);
    else if (config_find(r, "block_configs"))
        good = block_layers(r, l);
    else if (config_find(r, "linear_attn_config"))
        good = linear_config_layers(r, l);
    else if (config_find(r, "attn_layer_indices"))
        good = attention_at(r, "attn_layer_indices", PART_STATE, l);
    else if (config_find(r, "full_attn_idxs"))
        good = attention_at(r, "full_attn_idxs", PART_CONVOLUTION, l);
    else if (config_find(r, "attn_layer_period"))
        good = period_layers(r, l);
    else if (config_find(r, "full_attention_interval"))
        good = interval_layers(r, "full_attention_interval", PART_STATE, l);
    else
        good = unlisted_layers(r, l);
    return good && share_layers(r, l);
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
