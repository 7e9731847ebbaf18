/* Looking up fields, checking them, and complaining. */
#include "tools/model/config/config.h"

#include <stdarg.h>
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

/* Text of the file as a part of a message: in ASCII, so that no cut can break a character, and cut. */
void config_show(const char *text, char *shown, size_t size)
{
    if ((size_t)snprintf(shown, size, "%s", text) >= size)
        memcpy(shown + size - 4, "...", 4);
    for (char *c = shown; *c; c++) {
        if (*c < ' ' || *c > '~')
            *c = '?';
    }
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
    { "mistral", "sliding_window", 4096 },
    { "falcon", "multi_query", 1 },
    { "gpt_bigcode", "multi_query", 1 },
};

/* "gemma3_text" and "gemma3" are one. */
bool config_same_type(const config_reader *r, const char *type)
{
    const size_t length = strlen(type);
    return strncmp(r->model_type, type, length) == 0 && (r->model_type[length] == '\0' || strcmp(r->model_type + length, "_text") == 0);
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
    return check_dtype(r, fields[0], NULL, bytes);
}

/* The number format of a state matrix. vLLM takes the model's when the file names none (vllm/model_executor/layers/mamba/mamba_utils.py). */
bool config_get_state_dtype(const config_reader *r, uint32_t *bytes)
{
    const char *field = config_name_of(r, NAMES("mamba_ssm_dtype", "mamba_ssm_cache_dtype"));
    const json_t *value = config_find(r, field);
    return value ? check_dtype(r, field, value, bytes) : config_get_model_dtype(r, bytes);
}

/* ---- heads and widths ------------------------------------------------------------------------------------------------------------- */

bool config_get_query_heads(const config_reader *r, uint32_t *heads)
{
    return config_get_u32(r, config_name_of(r, NAMES("num_attention_heads", "n_head", "n_heads", "num_heads")), KVT_MAX_HEADS, heads);
}

bool config_get_dim(const config_reader *r, const char *field, uint32_t *dim)
{
    return config_get_u32(r, field, KVT_MAX_DIM, dim);
}

/* Types whose head_dim is hidden_size / num_attention_heads when it is not given. */
static const char *const head_dim_from_hidden[] = {
    "llama",      "mistral",  "mixtral",          "qwen2",     "qwen2_moe",    "qwen2_vl", "qwen2_5_vl", "phi",     "phi3",     "phimoe",
    "starcoder2", "stablelm", "cohere",           "cohere2",   "olmo",         "olmo2",    "olmo3",      "olmoe",   "granite",  "bamba",
    "granitemoe", "jamba",    "granitemoehybrid", "smollm3",   "gpt_neox",     "gptj",     "gpt2",       "codegen", "opt",      "bloom",
    "falcon",     "mpt",      "gpt_bigcode",      "persimmon", "falcon_h1",    "lfm2",     "lfm2_moe",   "arcee",   "ernie4_5", "nemotron",
    "minicpm",    "baichuan", "internlm2",        "xverse",    "nemotron-nas", NULL,
};

bool config_get_head_dim(const config_reader *r, uint32_t *dim)
{
    const char *field = config_name_of(r, NAMES("head_dim", "attention_head_dim"));
    if (config_has(r, field) || !config_is_type(r, head_dim_from_hidden))
        return config_get_dim(r, field, dim);

    const char *hidden_field = config_name_of(r, NAMES("hidden_size", "n_embd", "n_embed", "d_model"));
    uint32_t hidden, heads;
    if (!config_get_u32(r, hidden_field, MAX_HIDDEN, &hidden) || !config_get_query_heads(r, &heads))
        return false;
    if (hidden % heads != 0 || hidden / heads > KVT_MAX_DIM)
        return config_fail(r, "%s / num_attention_heads is %u / %u, but must be a whole number from 1 to %d", hidden_field, (unsigned)hidden,
                           (unsigned)heads, KVT_MAX_DIM);
    *dim = hidden / heads;
    return true;
}
