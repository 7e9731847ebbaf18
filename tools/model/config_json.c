/* Reads a model's config.json, as published beside its weights.
 *
 * The fields decide, not the model type: which of them name the layers' kinds, which give the rows of a kind, which give a state. The model type
 * is asked only where a field says nothing by itself: what its class in huggingface/transformers fills in for a field that is left out, and
 * whether a window that stands alone is every layer's. What is missing, contradictory or unknown is an error or a note, never a guess. */
#define _XOPEN_SOURCE 700
#include "description.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)16 << 20)
#define MAX_LAYERS     65536
#define MAX_GROUPS     64    /* models have at most 5; each layer is compared with each group */
#define MAX_STATE_DIM  65536 /* recurrent layers: heads, channels and the like; products of three stay far below 2^64 */
#define MAX_HIDDEN     (KVT_MAX_HEADS * KVT_MAX_DIM)
#define MAX_CONTEXT    ((json_int_t)1 << 48)

#define NAMES(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* Where the fields are looked up, and where the results and the first complaint go. */
typedef struct reader {
    json_t *root;
    json_t *text;        /* the language model of those that also see or hear, else the root */
    char model_type[64]; /* ASCII, cut when it is longer */
    json_t *seen;        /* a member for each field that was looked up */
    model_description *description;
    error_text *error;
} reader;

__attribute__((format(printf, 2, 3))) static bool fail(const reader *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->error->text, sizeof r->error->text, format, arguments);
    va_end(arguments);
    error_one_line(r->error->text);
    return false;
}

/* Text of the file as a part of a message: in ASCII, so that no cut can break a character, and cut. */
static void show(const char *text, char *shown, size_t size)
{
    if ((size_t)snprintf(shown, size, "%s", text) >= size)
        memcpy(shown + size - 4, "...", 4);
    for (char *c = shown; *c; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
}

/* "<field> is <value>, but must be <right>", or "<field> is missing: ..." */
static bool fail_field(const reader *r, const char *field, const json_t *value, const char *right)
{
    if (!value)
        return fail(r, "%s is missing: %s needs it, %s", field, r->model_type, right);

    if (json_is_object(value) || json_is_array(value))
        return fail(r, "%s is %s, but must be %s", field, json_is_object(value) ? "an object" : "a list", right);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    fail(r, "%s is %.60s%s, but must be %s", field, text ? text : "?", text && strlen(text) > 60 ? "..." : "", right);
    free(text);
    return false;
}

/* ---- what the classes of huggingface/transformers say ---------------------------------------------------------------------------- */

/* Fields that published files leave out, and what the model type's class then takes: models/<type>/configuration_<type>.py. */
static const struct {
    const char *model_type, *field;
    json_int_t value;
} class_defaults[] = {
    { "gemma", "num_key_value_heads", 16 },
    { "gemma", "head_dim", 256 },
    { "gemma", "max_position_embeddings", 8192 },
    { "gemma2", "num_key_value_heads", 4 },
    { "gemma2", "head_dim", 256 },
    { "gemma2", "sliding_window", 4096 },
    { "gemma2", "sliding_window_pattern", 2 }, /* the class has no such field, but makes such layer_types; also in 3n and 4 */
    { "gemma2", "max_position_embeddings", 8192 },
    { "gemma3", "num_key_value_heads", 4 },
    { "gemma3", "head_dim", 256 },
    { "gemma3", "sliding_window", 4096 },
    { "gemma3", "sliding_window_pattern", 6 },
    { "gemma3", "max_position_embeddings", 131072 },
    { "gemma3n", "num_key_value_heads", 2 },
    { "gemma3n", "head_dim", 256 },
    { "gemma3n", "sliding_window", 512 },
    { "gemma3n", "sliding_window_pattern", 5 },
    { "gemma3n", "num_kv_shared_layers", 15 },
    { "gemma3n", "max_position_embeddings", 32768 },
    { "gemma4", "num_key_value_heads", 4 },
    { "gemma4", "head_dim", 256 },
    { "gemma4", "global_head_dim", 512 },
    { "gemma4", "sliding_window", 512 },
    { "gemma4", "sliding_window_pattern", 6 },
    { "gemma4", "max_position_embeddings", 131072 },
    { "gemma4_unified", "num_key_value_heads", 4 },
    { "gemma4_unified", "head_dim", 256 },
    { "gemma4_unified", "global_head_dim", 512 },
    { "gemma4_unified", "sliding_window", 1024 },
    { "gemma4_unified", "sliding_window_pattern", 6 },
    { "gemma4_unified", "max_position_embeddings", 262144 },
    { "cohere2", "sliding_window", 4096 },
    { "cohere2", "sliding_window_pattern", 4 },
    { "cohere2", "max_position_embeddings", 8192 },
    { "llama4", "attention_chunk_size", 8192 },
    { "llama4", "no_rope_layer_interval", 4 },
    { "mistral", "sliding_window", 4096 },
    { "falcon", "multi_query", 1 },
    { "gpt_bigcode", "multi_query", 1 },
};

/* Types whose head_dim is hidden_size / num_attention_heads when it is not given. */
static const char *const head_dim_from_hidden[] = {
    "llama",      "mistral",  "mixtral",          "qwen2",     "qwen2_moe",    "qwen2_vl", "qwen2_5_vl", "phi",     "phi3",     "phimoe",
    "starcoder2", "stablelm", "cohere",           "cohere2",   "olmo",         "olmo2",    "olmo3",      "olmoe",   "granite",  "bamba",
    "granitemoe", "jamba",    "granitemoehybrid", "smollm3",   "gpt_neox",     "gptj",     "gpt2",       "codegen", "opt",      "bloom",
    "falcon",     "mpt",      "gpt_bigcode",      "persimmon", "falcon_h1",    "lfm2",     "lfm2_moe",   "arcee",   "ernie4_5", "nemotron",
    "minicpm",    "baichuan", "internlm2",        "xverse",    "nemotron-nas", NULL,
};

/* Types that have as many KV heads as query heads when the number of KV heads is not given. */
static const char *const kv_heads_as_queries[] = {
    "llama",    "phi",    "phi3", "olmo",    "olmo2", "olmo3", "olmoe",  "cohere", "cohere2",     "granite",   "granitemoe", "granitemoehybrid",
    "gpt_neox", "gptj",   "gpt2", "codegen", "opt",   "bloom", "falcon", "mpt",    "gpt_bigcode", "persimmon", "baichuan",   "internlm2",
    "minicpm",  "xverse", NULL,
};

/* Types in which every layer slides when sliding_window is a number. */
static const char *const all_slide[] = { "mistral", "mixtral", "ministral3", "phi3", "phimoe", "starcoder2", NULL };

/* Types in which use_sliding_window is false unless given, and of these the ones whose layers slide from max_window_layers on. */
static const char *const slide_on_demand[] = { "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", "qwen2_moe", "qwen3_moe", "smollm3", NULL };
static const char *const last_slide[] = { "qwen2", "qwen3", "qwen2_vl", "qwen2_5_vl", NULL };

/* Types whose last layer is full, whatever the pattern says. */
static const char *const last_is_full[] = { "gemma4", "gemma4_unified", NULL };

/* Types in which every layer has both attention and a state, side by side. */
static const char *const parallel[] = { "falcon_h1", NULL };

/* "gemma3_text" and "gemma3" are one. */
static bool same_type(const reader *r, const char *type)
{
    const size_t length = strlen(type);
    return strncmp(r->model_type, type, length) == 0 && (r->model_type[length] == '\0' || strcmp(r->model_type + length, "_text") == 0);
}

static bool is_type(const reader *r, const char *const *types)
{
    for (; *types; types++) {
        if (same_type(r, *types))
            return true;
    }
    return false;
}

/* Of a field that is not there at all: null is something that the file says. */
static bool class_default(const reader *r, const char *field, json_int_t *value)
{
    if (json_object_get(r->text, field))
        return false;
    for (size_t i = 0; i < sizeof class_defaults / sizeof class_defaults[0]; i++) {
        if (strcmp(class_defaults[i].field, field) == 0 && same_type(r, class_defaults[i].model_type)) {
            *value = class_defaults[i].value;
            return true;
        }
    }
    return false;
}

/* ---- fields ---------------------------------------------------------------------------------------------------------------------- */

/* NULL when the field is not there or null, which config.json uses for "not set". */
static json_t *find_in(const json_t *object, const char *field)
{
    json_t *value = json_object_get(object, field);
    return json_is_null(value) ? NULL : value;
}

static const json_t *find(const reader *r, const char *field)
{
    json_object_set_new(r->seen, field, json_true());
    return find_in(r->text, field);
}

/* Given, or filled in by the class. */
static bool has(const reader *r, const char *field)
{
    json_int_t value = 0;
    return find(r, field) || class_default(r, field, &value);
}

/* Of the names that a field goes by, the first that is there; the first of all when none is. */
static const char *name_of(const reader *r, const char *const *names)
{
    const char *name = NULL;
    for (const char *const *n = names; *n; n++) {
        if (find(r, *n) && !name)
            name = *n;
    }
    return name ? name : names[0];
}

static bool check_integer(const reader *r, const char *field, const json_t *value, json_int_t low, json_int_t high, json_int_t *result)
{
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high) {
        char right[80];
        snprintf(right, sizeof right, "a whole number from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT, low, high);
        return fail_field(r, field, value, right);
    }
    *result = json_integer_value(value);
    return true;
}

static bool get_integer(const reader *r, const char *field, json_int_t low, json_int_t high, json_int_t *result)
{
    const json_t *value = find(r, field);
    return (!value && class_default(r, field, result)) || check_integer(r, field, value, low, high, result);
}

static bool get_u32(const reader *r, const char *field, uint32_t high, uint32_t *result)
{
    json_int_t value = 0;
    if (!get_integer(r, field, 1, high, &value))
        return false;
    *result = (uint32_t)value;
    return true;
}

/* A number of something that most models do not have: 0 when it is not there. */
static bool get_count(const reader *r, const char *field, uint32_t high, uint32_t *result)
{
    json_int_t value = 0;
    if (has(r, field) && !get_integer(r, field, 0, high, &value))
        return false;
    *result = (uint32_t)value;
    return true;
}

static bool check_bool(const reader *r, const char *field, const json_t *value, bool *result)
{
    if (!json_is_boolean(value))
        return fail_field(r, field, value, "true or false");
    *result = json_is_true(value);
    return true;
}

/* False when it is not there and the class does not say otherwise. */
static bool get_flag(const reader *r, const char *field, bool *result)
{
    const json_t *value = find(r, field);
    json_int_t known = 0;
    if (value)
        return check_bool(r, field, value, result);
    *result = class_default(r, field, &known) && known;
    return true;
}

/* A number format by its name in config.json: the bytes of one element. */
static bool check_dtype(const reader *r, const char *field, const json_t *value, uint32_t *bytes)
{
    const char *name = json_string_value(value);
    if (name && strcmp(name, "float32") == 0)
        *bytes = 4;
    else if (name && (strcmp(name, "bfloat16") == 0 || strcmp(name, "float16") == 0))
        *bytes = 2;
    else
        return fail_field(r, field, value, "\"float32\", \"bfloat16\" or \"float16\"");
    return true;
}

/* The number format of the model itself: dtype, in older files torch_dtype, of the text part or of the whole. */
static bool get_model_dtype(const reader *r, uint32_t *bytes)
{
    static const char *const fields[] = { "dtype", "torch_dtype" };
    for (size_t i = 0; i < 4; i++) {
        const json_t *value = find_in(i < 2 ? r->text : r->root, fields[i % 2]);
        if (value)
            return check_dtype(r, fields[i % 2], value, bytes);
    }
    return check_dtype(r, fields[0], NULL, bytes);
}

/* The number format of a state matrix. vLLM takes the model's when the file names none (vllm/model_executor/layers/mamba/mamba_utils.py), and
 * transformers makes the cache of Mamba layers in it too. */
static bool get_state_dtype(const reader *r, uint32_t *bytes)
{
    const char *field = name_of(r, NAMES("mamba_ssm_dtype", "mamba_ssm_cache_dtype"));
    const json_t *value = find(r, field);
    return value ? check_dtype(r, field, value, bytes) : get_model_dtype(r, bytes);
}

/* ---- which layer is what --------------------------------------------------------------------------------------------------------- */

/* What a layer keeps, as bits: some layers have attention and a state side by side. */
enum {
    NOTHING = 0,
    FULL = 1, /* latent when the model has MLA */
    SLIDING = 2,
    CHUNKED = 4,
    STATE = 8, /* linear attention and Mamba; the fields say which */
    CONVOLUTION = 16,
};

typedef struct layers {
    uint32_t count;
    unsigned char *parts;
    uint32_t *kv_heads; /* of a layer that has its own number, else 0 */
} layers;

typedef struct layer_name {
    const char *name;
    unsigned char parts;
} layer_name;

/* The lists end with an empty row. */
static const layer_name type_names[] = { { "full_attention", FULL },
                                         { "attention", FULL },
                                         { "sliding_attention", SLIDING },
                                         { "chunked_attention", CHUNKED },
                                         { "linear_attention", STATE },
                                         { "mamba", STATE },
                                         { "mamba2", STATE },
                                         { "conv", CONVOLUTION },
                                         { "moe", NOTHING },
                                         { "mlp", NOTHING },
                                         { 0 } };
static const layer_name hybrid_letters[] = { { "*", FULL }, { "M", STATE }, { "E", NOTHING }, { "-", NOTHING }, { 0 } };
static const layer_name window_letters[] = { { "L", SLIDING }, { "G", FULL }, { 0 } };

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

static bool make_layers(const reader *r, size_t count, layers *l)
{
    l->parts = calloc(count, sizeof *l->parts);
    l->kv_heads = calloc(count, sizeof *l->kv_heads);
    l->count = (uint32_t)count;
    return (l->parts && l->kv_heads) || fail(r, "no memory for %zu layers", count);
}

static const char *layer_count_field(const reader *r)
{
    return name_of(r, NAMES("num_hidden_layers", "n_layer", "n_layers", "num_layers"));
}

/* As many layers as num_hidden_layers says, all alike. */
static bool alike_layers(const reader *r, unsigned char parts, layers *l)
{
    uint32_t count;
    if (!get_u32(r, layer_count_field(r), MAX_LAYERS, &count) || !make_layers(r, count, l))
        return false;
    memset(l->parts, parts, count);
    return true;
}

/* A list or string that names each layer says how many there are; num_hidden_layers, where it is given, must agree. `extra` more are allowed. */
static bool check_length(const reader *r, const char *field, size_t length, uint32_t extra, size_t *count)
{
    if (length == 0 || length > MAX_LAYERS)
        return fail(r, "%s has %zu entries, but must have 1 to %d", field, length, MAX_LAYERS);
    const char *counter = layer_count_field(r);
    *count = length;
    if (!find(r, counter))
        return true;
    uint32_t layers_given;
    if (!get_u32(r, counter, MAX_LAYERS, &layers_given))
        return false;
    *count = layers_given;
    return length == *count || (extra && length == *count + extra) ||
           fail(r, "%s has %zu entries, but must have %s = %u%s", field, length, counter, (unsigned)layers_given,
                extra ? ", or also those of num_nextn_predict_layers" : "");
}

/* A list with an entry for each layer. */
static const json_t *layer_list(const reader *r, const char *field, layers *l)
{
    const json_t *list = find(r, field);
    size_t count;
    if (!json_is_array(list)) {
        fail_field(r, field, list, "a list with one entry for each layer");
        return NULL;
    }
    return check_length(r, field, json_array_size(list), 0, &count) && make_layers(r, count, l) ? list : NULL;
}

static bool named_layers(const reader *r, const char *field, layers *l)
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
        return fail_field(r, entry, name, right);
    }
    if (is_type(r, last_is_full) && l->parts[l->count - 1] != FULL)
        return fail(r, "%s does not end with \"full_attention\", but must in %s", field, r->model_type);
    return true;
}

/* A list of 0 and 1. */
static bool numbered_layers(const reader *r, const char *field, unsigned char zero, unsigned char one, layers *l)
{
    const json_t *list = layer_list(r, field, l);
    for (uint32_t i = 0; list && i < l->count; i++) {
        char entry[64];
        json_int_t value = 0;
        snprintf(entry, sizeof entry, "%s[%u]", field, (unsigned)i);
        if (!check_integer(r, entry, json_array_get(list, i), 0, 1, &value))
            return false;
        l->parts[i] = value ? one : zero;
    }
    return list != NULL;
}

static bool letter_parts(const reader *r, const char *field, const layer_name *names, const char *letters, size_t i, unsigned char *parts)
{
    const char letter[2] = { letters[i], '\0' };
    if (find_parts(names, letter, parts))
        return true;
    char right[80];
    join_names(names, right, sizeof right);
    return fail(r, "%s[%zu] is \"%s\", but must be %s", field, i, letters[i] > ' ' && letters[i] <= '~' ? letter : "?", right);
}

/* One letter for each layer: Nemotron-H. */
static bool lettered_layers(const reader *r, const char *field, layers *l)
{
    const json_t *value = find(r, field);
    size_t count;
    if (!json_is_string(value))
        return fail_field(r, field, value, "a string with one letter for each layer");
    if (!check_length(r, field, json_string_length(value), 0, &count) || !make_layers(r, count, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!letter_parts(r, field, hybrid_letters, json_string_value(value), i, &l->parts[i]))
            return false;
    }
    return true;
}

/* The layers of a list, counted from `first`, turn from `old` into `parts`; every layer only once. */
static bool mark_layers(const reader *r, const char *field, const json_t *list, uint32_t first, unsigned char old, unsigned char parts, layers *l)
{
    if (!json_is_array(list))
        return fail_field(r, field, list, "a list of numbers of layers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        char entry[80];
        json_int_t number = 0;
        snprintf(entry, sizeof entry, "%s[%zu]", field, i);
        if (!check_integer(r, entry, json_array_get(list, i), first, (json_int_t)first + l->count - 1, &number))
            return false;
        if (l->parts[number - first] != old)
            return fail(r, "%s names layer %u, but it was named before", entry, (unsigned)number);
        l->parts[number - first] = parts;
    }
    return true;
}

/* The layers of the list have attention, the others `other`: Bamba, LFM2. */
static bool attention_at(const reader *r, const char *field, unsigned char other, layers *l)
{
    return alike_layers(r, other, l) && mark_layers(r, field, find(r, field), 0, other, FULL, l);
}

/* Two lists of layers, counted from 1, that must make up the whole: Kimi Linear. */
static bool linear_config_layers(const reader *r, layers *l)
{
    const json_t *config = find(r, "linear_attn_config");
    if (!json_is_object(config))
        return fail_field(r, "linear_attn_config", config, "an object");
    if (!alike_layers(r, NOTHING, l) ||
        !mark_layers(r, "linear_attn_config.full_attn_layers", find_in(config, "full_attn_layers"), 1, NOTHING, FULL, l))
        return false;
    const json_t *linear = find_in(config, "kda_layers");
    const size_t n_linear = json_array_size(linear), n_full = json_array_size(find_in(config, "full_attn_layers"));
    if (!mark_layers(r, "linear_attn_config.kda_layers", linear, 1, NOTHING, STATE, l))
        return false;
    return n_linear + n_full == l->count ||
           fail(r, "linear_attn_config.kda_layers and full_attn_layers name %zu layers, but must name num_hidden_layers = %u", n_linear + n_full,
                (unsigned)l->count);
}

/* One layer in `period` has attention: Jamba. */
static bool period_layers(const reader *r, layers *l)
{
    uint32_t period, offset;
    if (!get_u32(r, "attn_layer_period", MAX_LAYERS, &period))
        return false;
    if (!find(r, "attn_layer_offset"))
        return fail_field(r, "attn_layer_offset", NULL, "the first layer with attention");
    if (!get_count(r, "attn_layer_offset", period - 1, &offset) || !alike_layers(r, STATE, l))
        return false;
    for (uint32_t i = offset; i < l->count; i += period)
        l->parts[i] = FULL;
    return true;
}

/* Every `field`-th layer is full, the others are `other`. */
static bool interval_layers(const reader *r, const char *field, unsigned char other, layers *l)
{
    uint32_t interval;
    if (!get_u32(r, field, MAX_LAYERS, &interval) || !alike_layers(r, FULL, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if ((i + 1) % interval != 0)
            l->parts[i] = other;
    }
    return true;
}

/* The attention of one entry of block_configs. */
static bool read_block(const reader *r, const json_t *block, uint32_t i, uint32_t query_heads, layers *l)
{
    static const char *const harmless[] = {
        "n_heads_in_group", "no_op", "replace_with_linear", "num_sink_tokens", "sparsify", "unshifted_sink", "use_prefill_window_in_sink_attention"
    };
    char field[64];
    snprintf(field, sizeof field, "block_configs[%u].attention", (unsigned)i);
    json_t *attention = json_object_get(block, "attention"), *value;
    if (!json_is_object(attention))
        return fail_field(r, field, attention, "an object");

    const char *key;
    json_object_foreach(attention, key, value)
    {
        bool known = json_is_null(value) || json_is_false(value);
        for (size_t j = 0; j < sizeof harmless / sizeof harmless[0]; j++)
            known |= strcmp(key, harmless[j]) == 0;
        if (!known) {
            char shown[64];
            show(key, shown, sizeof shown);
            return fail(r, "%s has %s, which is not understood", field, shown);
        }
    }
    for (size_t j = 1; j < 3; j++) { /* no_op, replace_with_linear */
        bool gone = false;
        char name[100];
        snprintf(name, sizeof name, "%s.%s", field, harmless[j]);
        value = find_in(attention, harmless[j]);
        if (value && !check_bool(r, name, value, &gone))
            return false;
        if (gone)
            return true;
    }
    char name[100];
    json_int_t group = 0;
    snprintf(name, sizeof name, "%s.n_heads_in_group", field);
    if (!check_integer(r, name, find_in(attention, "n_heads_in_group"), 1, query_heads, &group))
        return false;
    if (query_heads % group != 0)
        return fail(r, "%s is %u, but must divide num_attention_heads = %u", name, (unsigned)group, (unsigned)query_heads);
    l->parts[i] = FULL;
    l->kv_heads[i] = query_heads / (uint32_t)group;
    return true;
}

static bool get_query_heads(const reader *r, uint32_t *heads)
{
    return get_u32(r, name_of(r, NAMES("num_attention_heads", "n_head", "n_heads", "num_heads")), KVT_MAX_HEADS, heads);
}

/* Layers found by a search over variants of a model, each with its own number of KV heads or none: Nemotron-NAS. */
static bool block_layers(const reader *r, layers *l)
{
    uint32_t query_heads;
    const json_t *list = layer_list(r, "block_configs", l);
    if (!list || !get_query_heads(r, &query_heads))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!read_block(r, json_array_get(list, i), i, query_heads, l))
            return false;
    }
    return true;
}

/* ---- layers with windows that no list names -------------------------------------------------------------------------------------- */

/* A string of L (local) and G (global) that repeats; Exaone 4's last layer is global whatever it says. */
static bool repeated_letters(const reader *r, const char *field, const json_t *value, layers *l)
{
    const char *letters = json_string_value(value);
    const size_t length = json_string_length(value);
    if (length == 0)
        return fail_field(r, field, value, "a number, or a string of \"L\" and \"G\"");
    if (!alike_layers(r, FULL, l))
        return false;
    for (uint32_t i = 0; i < l->count; i++) {
        if (!letter_parts(r, field, window_letters, letters, i % length, &l->parts[i]))
            return false;
    }
    l->parts[l->count - 1] = FULL;
    return true;
}

static bool pattern_layers(const reader *r, const char *field, layers *l)
{
    const json_t *value = find(r, field);
    if (json_is_string(value))
        return repeated_letters(r, field, value, l);
    if (!interval_layers(r, field, SLIDING, l))
        return false;
    if (is_type(r, last_is_full))
        l->parts[l->count - 1] = FULL;
    return true;
}

/* From max_window_layers on. */
static bool demanded_layers(const reader *r, layers *l)
{
    json_int_t first = 0;
    if (!is_type(r, last_slide))
        return fail(r, "use_sliding_window is true, but must be false for %s unless layer_types says which layers slide", r->model_type);
    if (!get_integer(r, "max_window_layers", 0, MAX_LAYERS, &first) || !alike_layers(r, FULL, l))
        return false;
    for (uint32_t i = (uint32_t)first; i < l->count; i++)
        l->parts[i] = SLIDING;
    return true;
}

/* Layers with RoPE attend within their chunk, the others to everything: Llama 4. An empty list stands for the interval. */
static bool chunked_layers(const reader *r, layers *l)
{
    if (json_array_size(find(r, "no_rope_layers")) > 0)
        return numbered_layers(r, "no_rope_layers", FULL, CHUNKED, l);
    if (!has(r, "no_rope_layer_interval"))
        return fail(r, "attention_chunk_size is given, but nothing says which layers have chunks: layer_types is missing");
    return interval_layers(r, "no_rope_layer_interval", CHUNKED, l);
}

static const char *window_field(const reader *r)
{
    return name_of(r, NAMES("sliding_window", "sliding_window_size"));
}

static bool windowed_layers(const reader *r, layers *l)
{
    const char *window = window_field(r), *pattern = name_of(r, NAMES("sliding_window_pattern", "_sliding_window_pattern"));
    bool slides = false;
    if (!get_flag(r, "use_sliding_window", &slides))
        return false;
    if (slides)
        return demanded_layers(r, l);
    if (find(r, "use_sliding_window") || is_type(r, slide_on_demand))
        return alike_layers(r, FULL, l);

    /* null: no window, whatever the pattern. */
    const bool off = json_is_null(json_object_get(r->text, window));
    if (has(r, pattern) && !off)
        return pattern_layers(r, pattern, l);
    if (has(r, "attention_chunk_size"))
        return chunked_layers(r, l);
    if (!has(r, window))
        return alike_layers(r, FULL, l);
    if (is_type(r, all_slide))
        return alike_layers(r, SLIDING, l);
    return fail(r, "%s is given, but nothing says which layers slide: layer_types or sliding_window_pattern is missing", window);
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
static bool unlisted_layers(const reader *r, layers *l)
{
    const char *state = name_of(r, state_fields);
    if (find(r, state) && !is_type(r, parallel))
        return fail(r, "%s is given, but nothing says which layers are recurrent: layer_types is missing", state);
    if (!windowed_layers(r, l))
        return false;
    if (find(r, state)) {
        for (uint32_t i = 0; i < l->count; i++)
            l->parts[i] |= STATE;
    }
    return true;
}

/* The last layers read what earlier ones store: Gemma 3n and 4. */
static bool share_layers(const reader *r, layers *l)
{
    uint32_t shared;
    if (!get_count(r, "num_kv_shared_layers", l->count - 1, &shared))
        return false;
    if (shared >= l->count) /* the class's number in a model of fewer layers */
        return fail(r, "num_kv_shared_layers is missing: %s has %u layers and its class shares %u", r->model_type, (unsigned)l->count,
                    (unsigned)shared);
    memset(l->parts + l->count - shared, NOTHING, shared);
    return true;
}

static bool map_layers(const reader *r, layers *l)
{
    bool good;
    if (find(r, "layer_types"))
        good = named_layers(r, "layer_types", l);
    else if (find(r, "layers_block_type"))
        good = named_layers(r, "layers_block_type", l);
    else if (find(r, "hybrid_override_pattern"))
        good = lettered_layers(r, "hybrid_override_pattern", l);
    else if (find(r, "hybrid_layer_pattern")) /* MiMo-V2 */
        good = numbered_layers(r, "hybrid_layer_pattern", FULL, SLIDING, l);
    else if (find(r, "attn_type_list")) /* MiniMax */
        good = numbered_layers(r, "attn_type_list", STATE, FULL, l);
    else if (find(r, "block_configs"))
        good = block_layers(r, l);
    else if (find(r, "linear_attn_config"))
        good = linear_config_layers(r, l);
    else if (find(r, "attn_layer_indices"))
        good = attention_at(r, "attn_layer_indices", STATE, l);
    else if (find(r, "full_attn_idxs"))
        good = attention_at(r, "full_attn_idxs", CONVOLUTION, l);
    else if (find(r, "attn_layer_period"))
        good = period_layers(r, l);
    else if (find(r, "full_attention_interval"))
        good = interval_layers(r, "full_attention_interval", STATE, l);
    else
        good = unlisted_layers(r, l);
    return good && share_layers(r, l);
}

/* ---- rows of attention ----------------------------------------------------------------------------------------------------------- */

static bool get_dim(const reader *r, const char *field, uint32_t *dim)
{
    return get_u32(r, field, KVT_MAX_DIM, dim);
}

static bool get_heads(const reader *r, const char *field, uint32_t *heads)
{
    return get_u32(r, field, KVT_MAX_HEADS, heads);
}

static bool get_kv_heads(const reader *r, uint32_t *heads)
{
    const char *field = name_of(r, NAMES("num_key_value_heads", "n_head_kv", "num_kv_heads", "n_kv_heads"));
    bool single = false, falcon_2 = false;
    if (!get_flag(r, "multi_query", &single) || !get_flag(r, "new_decoder_architecture", &falcon_2))
        return false;
    if (single && !falcon_2) {
        *heads = 1;
        return true;
    }
    return !has(r, field) && is_type(r, kv_heads_as_queries) ? get_query_heads(r, heads) : get_heads(r, field, heads);
}

static bool get_head_dim(const reader *r, uint32_t *dim)
{
    const char *field = name_of(r, NAMES("head_dim", "attention_head_dim"));
    if (has(r, field) || !is_type(r, head_dim_from_hidden))
        return get_dim(r, field, dim);

    const char *hidden_field = name_of(r, NAMES("hidden_size", "n_embd", "n_embed", "d_model"));
    uint32_t hidden, heads;
    if (!get_u32(r, hidden_field, MAX_HIDDEN, &hidden) || !get_query_heads(r, &heads))
        return false;
    if (hidden % heads != 0 || hidden / heads > KVT_MAX_DIM)
        return fail(r, "%s / num_attention_heads is %u / %u, but must be a whole number from 1 to %d", hidden_field, (unsigned)hidden,
                    (unsigned)heads, KVT_MAX_DIM);
    *dim = hidden / heads;
    return true;
}

/* Full layers of Gemma 4 have their own number of KV heads, but only where attention_k_eq_v is true. */
static bool get_global_heads(const reader *r, uint32_t *heads)
{
    bool k_eq_v = false;
    if (!find(r, "num_global_key_value_heads"))
        return true;
    if (!check_bool(r, "attention_k_eq_v", find(r, "attention_k_eq_v"), &k_eq_v))
        return false;
    return !k_eq_v || get_heads(r, "num_global_key_value_heads", heads);
}

/* `own_heads`: the number of KV heads is known for each layer, and not the model's. */
static bool read_full(const reader *r, bool own_heads, kvt_layer_group *group)
{
    uint32_t v_dim;
    group->kind = KVT_LAYER_FULL;
    if (!own_heads && (!get_kv_heads(r, &group->kv_heads) || !get_global_heads(r, &group->kv_heads)))
        return false;
    if (has(r, "global_head_dim")) {
        if (!get_dim(r, "global_head_dim", &group->k_dim))
            return false;
        group->v_dim = group->k_dim;
        return true;
    }
    if (!get_head_dim(r, &group->k_dim) || !get_count(r, "v_head_dim", KVT_MAX_DIM, &v_dim))
        return false;
    group->v_dim = v_dim ? v_dim : group->k_dim;
    return true;
}

/* Sliding layers, or those with chunks: a chunk is at most as many tokens as a window of its size. */
static bool read_sliding(const reader *r, const char *window, kvt_layer_group *group)
{
    uint32_t v_dim, swa_v_dim;
    group->kind = KVT_LAYER_SLIDING;
    if (!get_u32(r, window, UINT32_MAX, &group->window))
        return false;
    if (find(r, "swa_num_key_value_heads") ? !get_heads(r, "swa_num_key_value_heads", &group->kv_heads) : !get_kv_heads(r, &group->kv_heads))
        return false;
    if (find(r, "swa_head_dim") ? !get_dim(r, "swa_head_dim", &group->k_dim) : !get_head_dim(r, &group->k_dim))
        return false;
    if (!get_count(r, "v_head_dim", KVT_MAX_DIM, &v_dim) || !get_count(r, "swa_v_head_dim", KVT_MAX_DIM, &swa_v_dim))
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
static bool read_latent(const reader *r, kvt_layer_group *group)
{
    uint32_t rank, rope, nope, v_dim;
    if (!get_dim(r, "kv_lora_rank", &rank) || !get_dim(r, "qk_rope_head_dim", &rope))
        return false;
    if (rank + rope > KVT_MAX_DIM)
        return fail(r, "kv_lora_rank + qk_rope_head_dim is %u, but must be at most %d", (unsigned)(rank + rope), KVT_MAX_DIM);
    group->kind = KVT_LAYER_LATENT;
    group->kv_heads = 1;
    group->k_dim = rank + rope;

    find(r, "num_key_value_heads"); /* of engines without MLA, where it is num_attention_heads */
    const bool known = find(r, "num_attention_heads") && find(r, "qk_nope_head_dim") && find(r, "v_head_dim");
    if (!known)
        return true;
    if (!get_query_heads(r, &group->expanded_heads) || !get_dim(r, "qk_nope_head_dim", &nope) || !get_dim(r, "v_head_dim", &v_dim))
        return false;
    if (nope + rope > KVT_MAX_DIM)
        return fail(r, "qk_nope_head_dim + qk_rope_head_dim is %u, but must be at most %d", (unsigned)(nope + rope), KVT_MAX_DIM);
    group->expanded_k_dim = nope + rope;
    group->expanded_v_dim = v_dim;
    return true;
}

static bool read_indexer(const reader *r, uint32_t tokens_per_row, kvt_layer_group *group)
{
    group->kind = KVT_LAYER_INDEXER;
    group->kv_heads = 1;
    group->tokens_per_row = tokens_per_row;
    return get_dim(r, "index_head_dim", &group->k_dim);
}

/* ---- states ---------------------------------------------------------------------------------------------------------------------- */

static bool get_state_u32(const reader *r, const char *field, uint32_t *result)
{
    return get_u32(r, field, MAX_STATE_DIM, result);
}

static bool set_convolution(const reader *r, uint32_t kernel, uint64_t channels, kvt_layer_group *group)
{
    group->conv_kernel = kernel;
    group->conv_channels = channels;
    return get_model_dtype(r, &group->conv_element_bytes);
}

static bool read_delta_net(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, k_heads, k_dim, v_heads, v_dim;
    if (!get_state_u32(r, "linear_conv_kernel_dim", &kernel) || !get_state_u32(r, "linear_num_key_heads", &k_heads) ||
        !get_state_u32(r, "linear_key_head_dim", &k_dim) || !get_state_u32(r, "linear_num_value_heads", &v_heads) ||
        !get_state_u32(r, "linear_value_head_dim", &v_dim))
        return false;
    group->recurrent_elements = (uint64_t)v_heads * k_dim * v_dim;
    return get_state_dtype(r, &group->recurrent_element_bytes) &&
           set_convolution(r, kernel, 2 * (uint64_t)k_heads * k_dim + (uint64_t)v_heads * v_dim, group);
}

/* Kimi Delta Attention: a convolution for queries, keys and values each. The engines' kernels keep its state in float32. */
static bool read_kda(const reader *r, kvt_layer_group *group)
{
    static const char *const fields[] = { "short_conv_kernel_size", "num_heads", "head_dim" };
    const json_t *config = find(r, "linear_attn_config");
    uint64_t numbers[3];
    for (size_t i = 0; i < 3; i++) {
        char field[64];
        json_int_t value = 0;
        snprintf(field, sizeof field, "linear_attn_config.%s", fields[i]);
        if (!check_integer(r, field, find_in(config, fields[i]), 1, MAX_STATE_DIM, &value))
            return false;
        numbers[i] = (uint64_t)value;
    }
    group->recurrent_elements = numbers[1] * numbers[2] * numbers[2];
    group->recurrent_element_bytes = 4;
    return set_convolution(r, (uint32_t)numbers[0], 3 * numbers[1] * numbers[2], group);
}

/* Lightning attention of MiniMax-Text-01: no convolution. */
static bool read_lightning(const reader *r, kvt_layer_group *group)
{
    uint32_t heads, dim;
    if (!get_query_heads(r, &heads) || !get_head_dim(r, &dim))
        return false;
    group->recurrent_elements = (uint64_t)heads * dim * dim;
    return get_state_dtype(r, &group->recurrent_element_bytes);
}

static bool set_mamba2(const reader *r, uint32_t kernel, uint32_t heads, uint32_t dim, uint32_t groups, uint32_t state, kvt_layer_group *group)
{
    group->recurrent_elements = (uint64_t)heads * dim * state;
    return get_state_dtype(r, &group->recurrent_element_bytes) &&
           set_convolution(r, kernel, (uint64_t)heads * dim + 2 * (uint64_t)groups * state, group);
}

static bool read_mamba2_nemotron(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim, groups, state;
    return get_state_u32(r, "conv_kernel", &kernel) && get_state_u32(r, "mamba_num_heads", &heads) && get_state_u32(r, "mamba_head_dim", &dim) &&
           get_state_u32(r, "n_groups", &groups) && get_state_u32(r, "ssm_state_size", &state) &&
           set_mamba2(r, kernel, heads, dim, groups, state, group);
}

/* The channels that a Mamba layer works on. */
static bool get_inner_size(const reader *r, uint64_t *size)
{
    uint32_t inner, expand, hidden;
    if (find(r, "mamba_d_ssm")) { /* Falcon-H1 */
        *size = get_u32(r, "mamba_d_ssm", MAX_HIDDEN, &inner) ? inner : 0;
        return *size != 0;
    }
    if (!get_state_u32(r, "mamba_expand", &expand) || !get_u32(r, "hidden_size", MAX_HIDDEN, &hidden))
        return false;
    *size = (uint64_t)expand * hidden;
    return true;
}

/* Granite, Bamba and Falcon-H1, whose head size may be "auto". */
static bool read_mamba2_granite(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim, groups, state;
    if (!get_state_u32(r, "mamba_d_conv", &kernel) || !get_state_u32(r, "mamba_n_heads", &heads) || !get_state_u32(r, "mamba_n_groups", &groups) ||
        !get_state_u32(r, "mamba_d_state", &state))
        return false;
    const char *text = json_string_value(find(r, "mamba_d_head"));
    if (text && strcmp(text, "auto") == 0) {
        uint64_t inner;
        if (!get_inner_size(r, &inner))
            return false;
        if (inner % heads != 0 || inner / heads > MAX_STATE_DIM)
            return fail(r, "mamba_d_head is \"auto\", but mamba_expand * hidden_size / mamba_n_heads is %llu / %u: not a whole number up to %d",
                        (unsigned long long)inner, (unsigned)heads, MAX_STATE_DIM);
        dim = (uint32_t)(inner / heads);
    } else if (!get_state_u32(r, "mamba_d_head", &dim)) {
        return false;
    }
    return set_mamba2(r, kernel, heads, dim, groups, state, group);
}

/* Mamba 1, as in Jamba. */
static bool read_mamba1(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, state;
    uint64_t channels;
    if (!get_state_u32(r, "mamba_d_conv", &kernel) || !get_state_u32(r, "mamba_d_state", &state) || !get_inner_size(r, &channels))
        return false;
    group->recurrent_elements = channels * state;
    return get_state_dtype(r, &group->recurrent_element_bytes) && set_convolution(r, kernel, channels, group);
}

/* What kind of state it is shows in the names of its fields. */
static bool read_state(const reader *r, kvt_layer_group *group)
{
    group->kind = KVT_LAYER_RECURRENT;
    if (find(r, "linear_conv_kernel_dim") || find(r, "linear_num_value_heads"))
        return read_delta_net(r, group);
    if (find(r, "linear_attn_config"))
        return read_kda(r, group);
    if (find(r, "attn_type_list"))
        return read_lightning(r, group);
    if (find(r, "mamba_num_heads"))
        return read_mamba2_nemotron(r, group);
    if (find(r, "mamba_n_heads"))
        return read_mamba2_granite(r, group);
    if (find(r, "mamba_d_state"))
        return read_mamba1(r, group);
    return fail(r,
                "linear_conv_kernel_dim, mamba_num_heads, mamba_n_heads and mamba_d_state are missing: one must say what the recurrent layers of "
                "%s keep",
                r->model_type);
}

/* LFM2 */
static bool read_short_convolution(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, channels;
    group->kind = KVT_LAYER_RECURRENT;
    return get_state_u32(r, "conv_L_cache", &kernel) && get_u32(r, name_of(r, NAMES("conv_dim", "hidden_size")), MAX_HIDDEN, &channels) &&
           set_convolution(r, kernel, channels, group);
}

/* ---- layers to groups ------------------------------------------------------------------------------------------------------------ */

/* The caches of each kind of layer; kind 0: the model has none. */
typedef struct caches {
    kvt_layer_group full, indexer, sliding, chunked, state, convolution;
} caches;

static bool add(const reader *r, kvt_layer_group group, uint32_t count, uint32_t draft_count)
{
    group.count = count;
    group.draft_count = draft_count;
    if (group.kind == 0 || count + draft_count == 0)
        return true;
    if (description_add(r->description, &group, r->error) != 0)
        return false;
    return r->description->n_groups <= MAX_GROUPS || fail(r, "the layers are of more than %d kinds, which is no model that is known", MAX_GROUPS);
}

static bool has_mla(const reader *r, bool *mla)
{
    const json_t *use = find(r, "use_mla");
    *mla = find(r, "kv_lora_rank") != NULL;
    return !use ||
           (check_bool(r, "use_mla", use, mla) && (!*mla || find(r, "kv_lora_rank") || fail_field(r, "kv_lora_rank", NULL, "as use_mla is true")));
}

/* Full layers, which are latent in models with MLA and may have an indexer then. */
static bool read_full_or_latent(const reader *r, bool own_heads, caches *c)
{
    bool mla = false;
    if (!has_mla(r, &mla))
        return false;
    if (!mla)
        return read_full(r, own_heads, &c->full);
    if (c->sliding.kind || c->chunked.kind)
        return fail(r, "kv_lora_rank is given and layers slide: what sliding layers with MLA store is not understood");
    return read_latent(r, &c->full) && (!find(r, "index_head_dim") || read_indexer(r, 1, &c->indexer));
}

static bool read_caches(const reader *r, const layers *l, caches *c)
{
    unsigned parts = 0;
    bool own_heads = false;
    for (uint32_t i = 0; i < l->count; i++) {
        parts |= l->parts[i];
        own_heads |= l->kv_heads[i] != 0;
    }
    if (!parts)
        return fail(r, "no layer of %s has attention or a state", r->model_type);
    return (!(parts & SLIDING) || read_sliding(r, window_field(r), &c->sliding)) &&
           (!(parts & CHUNKED) || read_sliding(r, "attention_chunk_size", &c->chunked)) &&
           (!(parts & FULL) || read_full_or_latent(r, own_heads, c)) && (!(parts & STATE) || read_state(r, &c->state)) &&
           (!(parts & CONVOLUTION) || read_short_convolution(r, &c->convolution));
}

static bool add_layer(const reader *r, const layers *l, uint32_t i, const caches *c)
{
    const unsigned parts = l->parts[i];
    if (parts == NOTHING)
        return add(r, (kvt_layer_group){ .kind = KVT_LAYER_NONE }, 1, 0);
    kvt_layer_group full = c->full;
    if (l->kv_heads[i])
        full.kv_heads = l->kv_heads[i];
    return (!(parts & FULL) || (add(r, full, 1, 0) && add(r, c->indexer, 1, 0))) && (!(parts & SLIDING) || add(r, c->sliding, 1, 0)) &&
           (!(parts & CHUNKED) || add(r, c->chunked, 1, 0)) && (!(parts & STATE) || add(r, c->state, 1, 0)) &&
           (!(parts & CONVOLUTION) || add(r, c->convolution, 1, 0));
}

/* ---- layers for multi-token prediction ------------------------------------------------------------------------------------------- */

static bool get_draft_layers(const reader *r, uint32_t *count)
{
    const char *field = name_of(r, NAMES("num_nextn_predict_layers", "mtp_num_hidden_layers"));
    if (find(r, field) || !find(r, "num_mtp_modules")) /* DeepSeek and GLM; Qwen3.5 */
        return get_count(r, field, MAX_LAYERS, count);

    bool use = true; /* MiniMax */
    uint32_t modules, each;
    *count = 0;
    if (find(r, "use_mtp") && !get_flag(r, "use_mtp", &use))
        return false;
    if (!get_count(r, "num_mtp_modules", 255, &modules))
        return false;
    if (!use || modules == 0)
        return true;
    if (!get_u32(r, "mtp_transformer_layers", 255, &each))
        return false;
    *count = modules * each;
    return true;
}

/* They have the attention of full layers; where a model also slides or has several numbers of heads, nothing says so. */
static bool add_draft_layers(const reader *r, const caches *c)
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
    return add(r, c->full, 0, count) && add(r, c->indexer, 0, count);
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
static bool add_compressing_layer(const reader *r, uint32_t ratio, bool draft, const kvt_layer_group *window)
{
    const uint32_t count = draft ? 0 : 1, draft_count = draft ? 1 : 0;
    if (!add(r, *window, count, draft_count))
        return false;
    if (ratio == 0)
        return true;
    kvt_layer_group rows = { .kind = KVT_LAYER_COMPRESSED, .kv_heads = 1, .k_dim = window->k_dim, .tokens_per_row = ratio };
    set_compressor(ratio, &rows);
    if (!add(r, rows, count, draft_count))
        return false;
    if (ratio != 4)
        return true;
    kvt_layer_group indexer = { 0 };
    if (!read_indexer(r, ratio, &indexer))
        return false;
    set_compressor(ratio, &indexer);
    return add(r, indexer, count, draft_count);
}

static bool read_compressing(const reader *r)
{
    const json_t *ratios = find(r, "compress_ratios");
    kvt_layer_group window = { .kind = KVT_LAYER_SLIDING, .kv_heads = 1 };
    uint32_t heads, draft, layers_given;
    size_t count;
    if (!json_is_array(ratios))
        return fail_field(r, "compress_ratios", ratios, "a list with one number for each layer");
    if (!get_u32(r, layer_count_field(r), MAX_LAYERS, &layers_given) || !get_draft_layers(r, &draft) ||
        !check_length(r, "compress_ratios", json_array_size(ratios), draft, &count))
        return false;
    if (!get_u32(r, "num_key_value_heads", 1, &heads) || !get_dim(r, "head_dim", &window.k_dim) ||
        !get_u32(r, "sliding_window", UINT32_MAX, &window.window))
        return false;
    for (size_t i = 0; i < json_array_size(ratios); i++) {
        char entry[64];
        json_int_t ratio = 0;
        snprintf(entry, sizeof entry, "compress_ratios[%zu]", i);
        if (!check_integer(r, entry, json_array_get(ratios, i), 0, MAX_STATE_DIM, &ratio))
            return false;
        if (ratio == 1)
            return fail(r, "%s is 1, but must be 0 or at least 2", entry);
        if (!add_compressing_layer(r, (uint32_t)ratio, i >= count, &window))
            return false;
    }
    /* A list without them says nothing of the MTP layers: these have the window, as in the published files. */
    return json_array_size(ratios) > count || add(r, window, 0, draft);
}

/* ---- fields that are not understood ---------------------------------------------------------------------------------------------- */

/* Parts of names that hint at what a cache holds. */
static const char *const suspicious[] = {
    "window",      "sliding",     "swa",          "kv",
    "key_value",   "cache",       "layer_type",   "block_type",
    "mixer",       "pattern",     "interval",     "period",
    "ssm",         "mamba",       "conv",         "linear_",
    "share",       "index_",      "indexer",      "compress",
    "latent",      "lora_rank",   "chunk",        "hybrid",
    "recurrent",   "rwkv",        "lru",          "stride",
    "state",       "memory",      "sparse",       "cross_attention",
    "cross_layer", "layer_group", "attn_layer",   "attention_other",
    "local_att",   "global_",     "block_config", "layer_config",
    NULL,
};

/* Parts of names, and whole names, that have nothing to do with it all the same. */
static const char *const harmless_parts[] = {
    "expert", "moe", "mlp", "rope", "bias", "dropout", "norm", "intermediate_size", "_act", "multiplier", "qkv", NULL,
};
static const char *const harmless_names[] = {
    "use_cache",
    "cache_implementation",
    "q_lora_rank",
    "o_lora_rank",
    "index_topk",
    "index_n_heads",
    "swa_num_attention_heads",
    "chunk_size",
    "chunk_size_feed_forward",
    "mamba_chunk_size",
    "mamba_dt_rank",
    "use_mamba_kernels",
    "conv_dim_out",
    "conv_use_xavier_init",
    "activation_sparsity_pattern",
    "decoder_sparse_step",
    "output_hidden_states",
    "compression_config",
    NULL,
};

static bool is_one_of(const char *name, const char *const *names)
{
    for (; *names; names++) {
        if (strcmp(name, *names) == 0)
            return true;
    }
    return false;
}

static bool contains_one_of(const char *name, const char *const *parts)
{
    for (; *parts; parts++) {
        if (strstr(name, *parts))
            return true;
    }
    return false;
}

static bool says_something(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) > 0;
    case JSON_ARRAY:
        return json_array_size(value) > 0;
    case JSON_STRING:
        return json_string_length(value) > 0;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(value) != 0;
    case JSON_TRUE:
        return true;
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
    return false;
}

static void note_unknown_fields(const reader *r)
{
    const char *name;
    json_t *value;
    json_object_foreach(r->text, name, value)
    {
        const bool known = json_object_get(r->seen, name) || is_one_of(name, map_fields) || is_one_of(name, state_fields) ||
                           is_one_of(name, harmless_names) || contains_one_of(name, harmless_parts);
        if (known || !contains_one_of(name, suspicious) || !says_something(value))
            continue;
        char shown[64];
        show(name, shown, sizeof shown);
        description_note(r->description, "%s is not understood and left out", shown);
    }
}

/* ---- the model ------------------------------------------------------------------------------------------------------------------- */

/* Goes down to the language model: root, root.text_config, root.thinker_config.text_config ... */
static bool find_text(reader *r)
{
    static const char *const parts[] = { "text_config", "llm_config", "language_config", "thinker_config" };
    const json_t *type = json_object_get(r->root, "model_type");
    r->text = r->root;
    for (bool deeper = true; deeper;) {
        deeper = false;
        for (size_t i = 0; i < sizeof parts / sizeof parts[0] && !deeper; i++) {
            json_t *part = find_in(r->text, parts[i]);
            if (part && !json_is_object(part))
                return fail_field(r, parts[i], part, "an object");
            if (!part)
                continue;
            r->text = part;
            type = find_in(part, "model_type") ? find_in(part, "model_type") : type;
            deeper = true;
        }
    }
    if (!json_is_string(type) || json_string_length(type) == 0)
        return fail_field(r, "model_type", type, "the name of a type of model");
    show(json_string_value(type), r->model_type, sizeof r->model_type);
    return true;
}

/* Models whose caches have another shape than the fields would say. */
static bool check_sizable(const reader *r)
{
    for (int i = 0; i < 2; i++) {
        const json_t *value = find_in(i ? r->root : r->text, "is_encoder_decoder");
        bool encoder = false;
        if (value && !check_bool(r, "is_encoder_decoder", value, &encoder))
            return false;
        if (encoder)
            return fail(r, "is_encoder_decoder is true, but must be false: the cache of cross attention is not sized");
    }
    static const char *const unsized[] = { "cross_attention_layers", "add_cross_attention", "per_layer_config" };
    for (size_t i = 0; i < sizeof unsized / sizeof unsized[0]; i++) {
        const json_t *value = find(r, unsized[i]);
        if (value && says_something(value))
            return fail_field(r, unsized[i], value, "absent: its caches are not sized");
    }
    const json_t *both_ways = find(r, "use_bidirectional_attention");
    if (json_is_true(both_ways) || (json_is_string(both_ways) && strcmp(json_string_value(both_ways), "all") == 0))
        return fail_field(r, "use_bidirectional_attention", both_ways, "absent: a model that sees what comes later has no cache");
    if (same_type(r, "longcat_flash"))
        return fail(r, "model_type is \"longcat_flash\", which has two attentions in each layer: not understood");
    return true;
}

static bool read_context(const reader *r)
{
    const char *field =
        name_of(r, NAMES("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "model_max_length"));
    json_int_t context = 0;
    const json_t *outer = find_in(r->root, "max_position_embeddings");
    if (has(r, field) ? !get_integer(r, field, 1, MAX_CONTEXT, &context) : outer && !check_integer(r, field, outer, 1, MAX_CONTEXT, &context))
        return false;
    r->description->model.max_context = (uint64_t)context;
    return true;
}

static bool read_groups(const reader *r)
{
    layers l = { 0 };
    caches c = { 0 };
    bool good = map_layers(r, &l) && read_caches(r, &l, &c);
    for (uint32_t i = 0; good && i < l.count; i++)
        good = add_layer(r, &l, i, &c);
    free(l.parts);
    free(l.kv_heads);
    return good && add_draft_layers(r, &c);
}

static bool read_model(reader *r)
{
    if (!json_is_object(r->root))
        return fail(r, "the file holds %s, but must hold an object", json_is_array(r->root) ? "a list" : "a single value");
    show("every model", r->model_type, sizeof r->model_type);
    if (!find_text(r) || !check_sizable(r) || !read_context(r))
        return false;
    if (find(r, "compress_ratios") ? !read_compressing(r) : !read_groups(r))
        return false;
    note_unknown_fields(r);
    return true;
}

/* ---- the file -------------------------------------------------------------------------------------------------------------------- */

/* Python writes numbers that JSON does not have, outside strings. Strings of the same length stand for them, so that errors keep their column; a
 * field that is used must hold another type anyway. */
static void replace_names(char *text, size_t size)
{
    static const struct {
        const char *name, *string;
    } names[] = { { "-Infinity", "\"-Infin.\"" }, { "Infinity", "\"Infin.\"" }, { "NaN", "\"N\"" } };
    bool inside = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            inside = !inside;
        else if (text[i] == '\\' && inside)
            i++;
        for (size_t n = 0; n < 3 && !inside; n++) {
            const size_t length = strlen(names[n].name);
            if (size - i < length || memcmp(text + i, names[n].name, length) != 0)
                continue;
            memcpy(text + i, names[n].string, length);
            i += length - 1;
            break;
        }
    }
}

static json_t *parse(const reader *r, const void *bytes, size_t size)
{
    json_error_t where;
    json_t *root = NULL;
    char *text = NULL;
    if (size == 0)
        fail(r, "is empty: a config.json holds an object");
    else if (size > MAX_FILE_BYTES)
        fail(r, "has %zu bytes: a config.json has at most %zu", size, MAX_FILE_BYTES);
    else if (!(text = malloc(size)))
        fail(r, "no memory for %zu bytes", size);
    else {
        memcpy(text, bytes, size);
        replace_names(text, size);
        if (!(root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where)))
            fail(r, "is not JSON: line %d, column %d: %s", where.line, where.column, where.text);
    }
    free(text);
    return root;
}

int model_read_config(const void *bytes, size_t size, model_description *description, error_text *error)
{
    reader r = { .description = description, .error = error, .seen = json_object() };
    json_t *root = parse(&r, bytes, size);
    r.root = root;
    const bool good = root && read_model(&r);
    json_decref(root);
    json_decref(r.seen);
    if (!good) {
        description_free(description);
        return -1;
    }
    description_finish(description);
    return 0;
}
