/* SPDX-License-Identifier: MIT */
/* Looking up fields, checking them, and complaining. */
#include "tools/files/text.h"
#include "tools/model/config/config.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool config_fail(const config_reader *r, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    error_set_list(r->error, format, arguments);
    va_end(arguments);
    return false;
}

void config_show(const char *text, char *shown, size_t size)
{
    text_shown(shown, size, text);
}

/* "<field> is <value>, but must be <right>", or "<field> is missing: ..." */
bool config_fail_field(const config_reader *r, const char *field, const json_t *value, const char *right)
{
    if (!value)
        return config_fail(r, "%s is missing: %s needs it, %s", field, r->model_type, right);

    if (json_is_object(value) || json_is_array(value))
        return config_fail(r, "%s is %s, but must be %s", field, json_is_object(value) ? "an object" : "a list", right);
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    config_fail(r, "%s is %.60s%s, but must be %s", field, text ? text : "?", text && strlen(text) > 60 ? "..." : "", right);
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
    { "olmo3", "sliding_window", 4096 },
    { "olmo3", "sliding_window_pattern", 4 }, /* in this and the next five the class makes such layer_types */
    { "gpt_oss", "sliding_window", 128 },
    { "gpt_oss", "sliding_window_pattern", 2 },
    { "qwen3_next", "full_attention_interval", 4 },
    { "qwen3_5", "full_attention_interval", 4 },
    { "qwen3_5_moe", "full_attention_interval", 4 },
    { "mistral", "sliding_window", 4096 },
    { "falcon", "multi_query", 1 },
    { "gpt_bigcode", "multi_query", 1 },
};

static const config_class classes[] = {
#define KVT_TYPE(...) { __VA_ARGS__ },
#include "types.def"
#undef KVT_TYPE
};

const config_class *config_find_class(const config_reader *r)
{
    for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
        if (config_same_type(r, classes[i].model_type))
            return &classes[i];
    }
    return NULL;
}

/* All names that a number of the class goes by. A file at its top level has what makes a model's size; a part of one leaves out what is as in its
 * class. */
static const struct {
    const char *field;
    size_t offset;
    bool of_parts;
} class_fields[] = {
    { "num_hidden_layers", offsetof(config_class, layers), true },
    { "n_layer", offsetof(config_class, layers), true },
    { "n_layers", offsetof(config_class, layers), true },
    { "num_layers", offsetof(config_class, layers), true },
    { "num_attention_heads", offsetof(config_class, query_heads), true },
    { "n_head", offsetof(config_class, query_heads), true },
    { "hidden_size", offsetof(config_class, hidden_size), true },
    { "num_key_value_heads", offsetof(config_class, kv_heads), false },
    { "head_dim", offsetof(config_class, head_dim), false },
    { "max_position_embeddings", offsetof(config_class, context), false },
};

/* "gemma3_text", "mllama_text_model" and the types without the ending are one. */
bool config_same_type(const config_reader *r, const char *type)
{
    const size_t length = strlen(type);
    return strncmp(r->model_type, type, length) == 0 &&
           (r->model_type[length] == '\0' || strcmp(r->model_type + length, "_text") == 0 || strcmp(r->model_type + length, "_text_model") == 0);
}

bool config_is_type(const config_reader *r, const char *const *types)
{
    for (; *types; types++) {
        if (config_same_type(r, *types))
            return true;
    }
    return false;
}

/* Of a field that is not there at all: null is something that the file says. */
static bool class_default(const config_reader *r, const char *field, json_int_t *value)
{
    if (json_object_get(r->text, field))
        return false;
    for (size_t i = 0; i < sizeof class_defaults / sizeof class_defaults[0]; i++) {
        if (strcmp(class_defaults[i].field, field) == 0 && config_same_type(r, class_defaults[i].model_type)) {
            *value = class_defaults[i].value;
            return true;
        }
    }
    for (size_t i = 0; i < sizeof class_fields / sizeof class_fields[0] && r->class; i++) {
        if (strcmp(class_fields[i].field, field) != 0 || (class_fields[i].of_parts && r->text == r->root))
            continue;
        const uint32_t number = *(const uint32_t *)((const char *)r->class + class_fields[i].offset);
        *value = number;
        return number != 0;
    }
    return false;
}

/* ---- fields ---------------------------------------------------------------------------------------------------------------------- */

/* NULL when the field is not there or null, which config.json uses for "not set". */
json_t *config_find_in(const json_t *object, const char *field)
{
    json_t *value = json_object_get(object, field);
    return json_is_null(value) ? NULL : value;
}

const json_t *config_find(const config_reader *r, const char *field)
{
    json_object_set_new(r->seen, field, json_true());
    return config_find_in(r->text, field);
}

/* Given, or filled in by the class. */
bool config_has(const config_reader *r, const char *field)
{
    json_int_t value = 0;
    return config_find(r, field) || class_default(r, field, &value);
}

/* Of the names that a field goes by, the first that is there; the first of all when none is. */
const char *config_name_of(const config_reader *r, const char *const *names)
{
    const char *name = NULL;
    for (const char *const *n = names; *n; n++) {
        if (config_find(r, *n) && !name)
            name = *n;
    }
    return name ? name : names[0];
}

bool config_check_integer(const config_reader *r, const char *field, const json_t *value, json_int_t low, json_int_t high, json_int_t *result)
{
    if (!json_is_integer(value) || json_integer_value(value) < low || json_integer_value(value) > high) {
        char right[80];
        snprintf(right, sizeof right, "a whole number from %" JSON_INTEGER_FORMAT " to %" JSON_INTEGER_FORMAT, low, high);
        return config_fail_field(r, field, value, right);
    }
    *result = json_integer_value(value);
    return true;
}

bool config_get_integer(const config_reader *r, const char *field, json_int_t low, json_int_t high, json_int_t *result)
{
    const json_t *value = config_find(r, field);
    return (!value && class_default(r, field, result)) || config_check_integer(r, field, value, low, high, result);
}

bool config_get_u32(const config_reader *r, const char *field, uint32_t high, uint32_t *result)
{
    json_int_t value = 0;
    if (!config_get_integer(r, field, 1, high, &value))
        return false;
    *result = (uint32_t)value;
    return true;
}

/* A number of something that most models do not have: 0 when it is not there. */
bool config_get_count(const config_reader *r, const char *field, uint32_t high, uint32_t *result)
{
    json_int_t value = 0;
    if (config_has(r, field) && !config_get_integer(r, field, 0, high, &value))
        return false;
    *result = (uint32_t)value;
    return true;
}

bool config_check_bool(const config_reader *r, const char *field, const json_t *value, bool *result)
{
    if (!json_is_boolean(value))
        return config_fail_field(r, field, value, "true or false");
    *result = json_is_true(value);
    return true;
}

/* False when it is not there and the class does not say otherwise. */
bool config_get_flag(const config_reader *r, const char *field, bool *result)
{
    const json_t *value = config_find(r, field);
    json_int_t known = 0;
    if (value)
        return config_check_bool(r, field, value, result);
    *result = class_default(r, field, &known) && known;
    return true;
}

/* A number format by its name in config.json: the bytes of one element. */
static bool check_dtype(const config_reader *r, const char *field, const json_t *value, uint32_t *bytes)
{
    const char *name = json_string_value(value);
    if (name && strcmp(name, "float32") == 0)
        *bytes = 4;
    else if (name && (strcmp(name, "bfloat16") == 0 || strcmp(name, "float16") == 0))
        *bytes = 2;
    else
        return config_fail_field(r, field, value, "\"float32\", \"bfloat16\" or \"float16\"");
    return true;
}

/* The number format of the model itself: dtype, in older files torch_dtype, of the text part or of the whole. */
bool config_get_model_dtype(const config_reader *r, uint32_t *bytes)
{
    static const char *const fields[] = { "dtype", "torch_dtype" };
    for (size_t i = 0; i < 4; i++) {
        const json_t *value = config_find_in(i < 2 ? r->text : r->root, fields[i % 2]);
        if (value)
            return check_dtype(r, fields[i % 2], value, bytes);
    }
    description_note(r->description, "dtype is not given: what a state holds in the model's own numbers is taken for 16 bits each");
    *bytes = 2;
    return true;
}

/* The number format of a state matrix. vLLM takes the model's when the file names none (vllm/model_executor/layers/mamba/mamba_utils.py). */
bool config_get_state_dtype(const config_reader *r, uint32_t *bytes)
{
    const char *field = config_name_of(r, NAMES("mamba_ssm_dtype", "mamba_ssm_cache_dtype"));
    const json_t *value = config_find(r, field);
    if (!value && config_same_type(r, "nemotron_h")) { /* its class has a number of its own, as has vLLM 0.33 */
        *bytes = 4;
        return true;
    }
    return value ? check_dtype(r, field, value, bytes) : config_get_model_dtype(r, bytes);
}

/* ---- heads and widths ------------------------------------------------------------------------------------------------------------- */

static const char *query_heads_field(const config_reader *r)
{
    return config_name_of(r, NAMES("num_attention_heads", "n_head", "n_heads", "num_heads", "num_query_heads", "attention_heads"));
}

bool config_get_query_heads(const config_reader *r, uint32_t *heads)
{
    return config_get_u32(r, query_heads_field(r), KVT_MAX_HEADS, heads);
}

bool config_get_dim(const config_reader *r, const char *field, uint32_t *dim)
{
    return config_get_u32(r, field, KVT_MAX_DIM, dim);
}

static const char *hidden_field(const config_reader *r)
{
    return config_name_of(r, NAMES("hidden_size", "n_embd", "n_embed", "d_model", "model_dim", "hidden_dim"));
}

bool config_get_hidden(const config_reader *r, uint32_t *hidden)
{
    return config_get_u32(r, hidden_field(r), MAX_HIDDEN, hidden);
}

/* hidden_size / num_attention_heads, unless the file or the class says something else. Zamba's attention is twice as wide as its layers. */
bool config_get_head_dim(const config_reader *r, uint32_t *dim)
{
    static const char *const twice[] = { "zamba", "zamba2", NULL };
    const bool wide = config_is_type(r, twice);
    config_find(r, "kv_channels");
    const char *field = config_name_of(r, NAMES("head_dim", "attention_head_dim", "hidden_size_per_head"));
    if (!wide && !config_find(r, field) && config_find(r, "kv_channels"))
        field = "kv_channels";
    if (config_has(r, field))
        return config_get_dim(r, field, dim);

    uint32_t hidden, heads;
    if (!config_get_hidden(r, &hidden) || !config_get_query_heads(r, &heads))
        return false;
    const uint64_t width = (uint64_t)hidden * (wide ? 2 : 1);
    if (width % heads != 0 || width / heads > KVT_MAX_DIM)
        return config_fail(r, "%s%s / num_attention_heads is %llu / %u, but must be a whole number from 1 to %d", wide ? "2 * " : "", hidden_field(r),
                           (unsigned long long)width, (unsigned)heads, KVT_MAX_DIM);
    *dim = (uint32_t)(width / heads);
    return true;
}

bool config_get_heads(const config_reader *r, const char *field, uint32_t *heads)
{
    return config_get_u32(r, field, KVT_MAX_HEADS, heads);
}

/* dbrx and mpt have an object for it. */
static bool get_heads_of_object(const config_reader *r, const json_t *object, uint32_t *heads)
{
    const json_t *value = config_find_in(object, "kv_n_heads");
    const char *type = json_string_value(config_find_in(object, "attn_type"));
    json_int_t number = 1;
    if (value && !config_check_integer(r, "attn_config.kv_n_heads", value, 1, KVT_MAX_HEADS, &number))
        return false;
    *heads = (uint32_t)number;
    return value || (type && strcmp(type, "multiquery_attention") == 0) || config_get_query_heads(r, heads);
}

/* As many as query heads, unless the file or the class says something else. */
bool config_get_kv_heads(const config_reader *r, uint32_t *heads)
{
    static const char *const names[] = { "num_key_value_heads", "n_head_kv", "num_kv_heads", "n_kv_heads", "num_attention_groups",
                                         "num_query_groups",    NULL };
    const char *field = config_name_of(r, names);
    bool single = false, falcon_2 = false, grouped = false;
    const json_t *object = config_find(r, "attn_config");
    if (!config_get_flag(r, "multi_query", &single) || !config_get_flag(r, "new_decoder_architecture", &falcon_2) ||
        !config_get_flag(r, "multi_query_attention", &grouped))
        return false;
    if (json_is_object(object))
        return get_heads_of_object(r, object, heads);
    if (config_find(r, "multi_query_group_num") && grouped)
        return config_get_heads(r, "multi_query_group_num", heads);
    if (single && !falcon_2) {
        *heads = 1;
        return true;
    }
    if (config_find(r, field))
        return config_get_heads(r, field, heads);
    if (!config_has(r, field))
        return config_get_query_heads(r, heads);
    /* The class's number is of the class's own model, and means nothing in one whose query heads it does not divide. */
    uint32_t query_heads;
    if (!config_get_heads(r, field, heads) || !config_has(r, query_heads_field(r)))
        return *heads != 0;
    return config_get_query_heads(r, &query_heads) &&
           (query_heads % *heads == 0 || config_fail_field(r, field, NULL, "a divisor of the number of query heads"));
}
