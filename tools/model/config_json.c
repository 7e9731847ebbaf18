#define _XOPEN_SOURCE 700
#include "config_json.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/io/file.h"

#define MAX_FILE_BYTES ((size_t)16 << 20)
#define MAX_LAYERS     65536
#define MAX_STATE_DIM  65536 /* recurrent layers: heads, channels and the like; products of three stay far below 2^64 */
#define MAX_CONTEXT    ((json_int_t)1 << 48)

/* Where the fields are looked up, and where the first complaint goes. */
typedef struct reader {
    const json_t *root;
    const json_t *text; /* text_config of models that also see or hear, else the root */
    const char *model_type;
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

/* ---- fields ---------------------------------------------------------------------------------------------------------------------- */

/* NULL when the field is not there or null, which config.json uses for "not set". */
static const json_t *find(const reader *r, const char *field)
{
    const json_t *value = json_object_get(r->text, field);
    return json_is_null(value) ? NULL : value;
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
    return check_integer(r, field, find(r, field), low, high, result);
}

static bool get_u32(const reader *r, const char *field, uint32_t high, uint32_t *result)
{
    json_int_t value = 0;
    if (!get_integer(r, field, 1, high, &value))
        return false;
    *result = (uint32_t)value;
    return true;
}

static bool get_bool(const reader *r, const char *field, bool *result)
{
    const json_t *value = find(r, field);
    if (!json_is_boolean(value))
        return fail_field(r, field, value, "true or false");
    *result = json_is_true(value);
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
        const json_t *value = json_object_get(i < 2 ? r->text : r->root, fields[i % 2]);
        if (value && !json_is_null(value))
            return check_dtype(r, fields[i % 2], value, bytes);
    }
    return check_dtype(r, fields[0], NULL, bytes);
}

/* ---- which layer is of which kind ------------------------------------------------------------------------------------------------ */

typedef struct layers {
    uint32_t count;
    kvt_layer_kind *kinds;
} layers;

typedef struct layer_name {
    const char *name;
    kvt_layer_kind kind;
} layer_name;

/* Every list ends with an empty row. */
static const layer_name attention_names[] = { { "full_attention", KVT_LAYER_FULL }, { "sliding_attention", KVT_LAYER_SLIDING }, { 0 } };
static const layer_name delta_net_names[] = { { "full_attention", KVT_LAYER_FULL }, { "linear_attention", KVT_LAYER_RECURRENT }, { 0 } };
static const layer_name nemotron_names[] = { { "attention", KVT_LAYER_FULL },
                                             { "full_attention", KVT_LAYER_FULL },
                                             { "mamba", KVT_LAYER_RECURRENT },
                                             { "linear_attention", KVT_LAYER_RECURRENT },
                                             { "moe", KVT_LAYER_NONE },
                                             { "mlp", KVT_LAYER_NONE },
                                             { 0 } };
static const layer_name nemotron_letters[] = {
    { "*", KVT_LAYER_FULL }, { "M", KVT_LAYER_RECURRENT }, { "E", KVT_LAYER_NONE }, { "-", KVT_LAYER_NONE }, { 0 }
};

/* "a", "b" or "c" */
static void join_names(const layer_name *names, char *text, size_t size)
{
    size_t used = 0;
    for (const layer_name *n = names; n->name && used < size; n++) {
        const char *before = n == names ? "" : n[1].name ? ", " : " or ";
        used += (size_t)snprintf(text + used, size - used, "%s\"%s\"", before, n->name);
    }
}

static bool find_kind(const layer_name *names, const char *name, kvt_layer_kind *kind)
{
    for (const layer_name *n = names; n->name; n++) {
        if (name && strcmp(n->name, name) == 0) {
            *kind = n->kind;
            return true;
        }
    }
    return false;
}

static bool make_layers(const reader *r, size_t count, layers *out)
{
    out->kinds = calloc(count, sizeof *out->kinds);
    out->count = (uint32_t)count;
    return out->kinds || fail(r, "num_hidden_layers: no memory for %zu layers", count);
}

/* As many layers as num_hidden_layers says, all of one kind. */
static bool alike_layers(const reader *r, kvt_layer_kind kind, layers *out)
{
    json_int_t count;
    if (!get_integer(r, "num_hidden_layers", 1, MAX_LAYERS, &count) || !make_layers(r, (size_t)count, out))
        return false;
    for (uint32_t i = 0; i < out->count; i++)
        out->kinds[i] = kind;
    return true;
}

/* A list or string that names each layer says how many there are; num_hidden_layers must agree. */
static bool check_length(const reader *r, const char *field, size_t length, bool count_needed)
{
    if (length == 0 || length > MAX_LAYERS)
        return fail(r, "%s has %zu entries, but must have 1 to %d", field, length, MAX_LAYERS);
    json_int_t count;
    if (!count_needed && !find(r, "num_hidden_layers"))
        return true;
    if (!get_integer(r, "num_hidden_layers", 1, MAX_LAYERS, &count))
        return false;
    if (length != (size_t)count)
        return fail(r, "%s has %zu entries, but must have num_hidden_layers = %" JSON_INTEGER_FORMAT, field, length, count);
    return true;
}

static bool listed_layers(const reader *r, const char *field, const layer_name *names, bool count_needed, layers *out)
{
    const json_t *list = find(r, field);
    if (!json_is_array(list))
        return fail_field(r, field, list, "a list with one name for each layer");
    if (!check_length(r, field, json_array_size(list), count_needed) || !make_layers(r, json_array_size(list), out))
        return false;
    for (uint32_t i = 0; i < out->count; i++) {
        const json_t *name = json_array_get(list, i);
        if (find_kind(names, json_string_value(name), &out->kinds[i]))
            continue;
        char entry[64], right[160];
        snprintf(entry, sizeof entry, "%s[%u]", field, (unsigned)i);
        join_names(names, right, sizeof right);
        return fail_field(r, entry, name, right);
    }
    return true;
}

/* One letter for each layer. */
static bool lettered_layers(const reader *r, const char *field, const layer_name *names, layers *out)
{
    const json_t *value = find(r, field);
    const char *letters = json_string_value(value);
    if (!letters)
        return fail_field(r, field, value, "a string with one letter for each layer");
    if (!check_length(r, field, json_string_length(value), false) || !make_layers(r, json_string_length(value), out))
        return false;
    for (uint32_t i = 0; i < out->count; i++) {
        const char letter[2] = { letters[i], '\0' };
        if (find_kind(names, letter, &out->kinds[i]))
            continue;
        char right[160];
        join_names(names, right, sizeof right);
        return fail(r, "%s[%u] is \"%s\", but must be %s", field, (unsigned)i, letters[i] > ' ' && letters[i] <= '~' ? letter : "?", right);
    }
    return true;
}

/* Every `field`-th layer is full, the others are `other`. */
static bool interval_layers(const reader *r, const char *field, kvt_layer_kind other, layers *out)
{
    json_int_t interval;
    if (!find(r, field))
        return fail(r, "layer_types is missing: %s needs it, or %s", r->model_type, field);
    if (!get_integer(r, field, 1, MAX_LAYERS, &interval) || !alike_layers(r, KVT_LAYER_FULL, out))
        return false;
    for (uint32_t i = 0; i < out->count; i++) {
        if ((i + 1) % (uint32_t)interval != 0)
            out->kinds[i] = other;
    }
    return true;
}

/* ---- layers to groups ------------------------------------------------------------------------------------------------------------ */

/* In all known models the layers of one kind are alike, so a group for each kind is enough. */
static kvt_layer_group *group_of(kvt_config *config, kvt_layer_kind kind)
{
    return &config->groups[kind - 1];
}

static void count_kinds(const layers *l, kvt_config *config)
{
    for (uint32_t i = 0; i < l->count; i++)
        group_of(config, l->kinds[i])->count++;
}

static bool declared_head_dim(const reader *r, uint32_t *dim)
{
    return get_u32(r, "head_dim", KVT_MAX_DIM, dim);
}

static bool read_attention(const reader *r, kvt_layer_group *group, bool (*head_dim)(const reader *, uint32_t *))
{
    if (!get_u32(r, "num_key_value_heads", KVT_MAX_HEADS, &group->kv_heads) || !head_dim(r, &group->k_dim))
        return false;
    group->v_dim = group->k_dim;
    return true;
}

static bool read_full_and_sliding(const reader *r, kvt_config *config, bool (*head_dim)(const reader *, uint32_t *))
{
    kvt_layer_group *full = group_of(config, KVT_LAYER_FULL);
    kvt_layer_group *sliding = group_of(config, KVT_LAYER_SLIDING);
    if (full->count && !read_attention(r, full, head_dim))
        return false;
    return !sliding->count || (read_attention(r, sliding, head_dim) && get_u32(r, "sliding_window", UINT32_MAX, &sliding->window));
}

/* ---- model types ----------------------------------------------------------------------------------------------------------------- */

static bool read_gemma4(const reader *r, layers *l, kvt_config *config)
{
    if (find(r, "layer_types")) {
        if (!listed_layers(r, "layer_types", attention_names, true, l))
            return false;
        if (l->kinds[l->count - 1] != KVT_LAYER_FULL)
            return fail(r, "layer_types ends with \"sliding_attention\", but must end with \"full_attention\"");
    } else {
        if (!interval_layers(r, "sliding_window_pattern", KVT_LAYER_SLIDING, l))
            return false;
        l->kinds[l->count - 1] = KVT_LAYER_FULL;
    }

    json_int_t shared;
    if (!get_integer(r, "num_kv_shared_layers", 0, (json_int_t)l->count - 1, &shared))
        return false;
    for (uint32_t i = l->count - (uint32_t)shared; i < l->count; i++)
        l->kinds[i] = KVT_LAYER_NONE;
    count_kinds(l, config);
    if (!read_full_and_sliding(r, config, declared_head_dim))
        return false;

    kvt_layer_group *full = group_of(config, KVT_LAYER_FULL);
    if (!full->count)
        return true;
    if (!get_u32(r, "global_head_dim", KVT_MAX_DIM, &full->k_dim))
        return false;
    full->v_dim = full->k_dim;
    if (!find(r, "num_global_key_value_heads"))
        return true;
    bool k_eq_v = false;
    if (!get_bool(r, "attention_k_eq_v", &k_eq_v))
        return false;
    return !k_eq_v || get_u32(r, "num_global_key_value_heads", KVT_MAX_HEADS, &full->kv_heads);
}

static bool read_delta_net(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, k_heads, k_dim, v_heads, v_dim;
    if (!get_u32(r, "linear_conv_kernel_dim", MAX_STATE_DIM, &kernel) || !get_u32(r, "linear_num_key_heads", MAX_STATE_DIM, &k_heads) ||
        !get_u32(r, "linear_key_head_dim", MAX_STATE_DIM, &k_dim) || !get_u32(r, "linear_num_value_heads", MAX_STATE_DIM, &v_heads) ||
        !get_u32(r, "linear_value_head_dim", MAX_STATE_DIM, &v_dim))
        return false;
    group->conv_elements = (uint64_t)(kernel - 1) * (2 * (uint64_t)k_heads * k_dim + (uint64_t)v_heads * v_dim);
    group->recurrent_elements = (uint64_t)v_heads * k_dim * v_dim;
    if (!check_dtype(r, "mamba_ssm_dtype", find(r, "mamba_ssm_dtype"), &group->recurrent_element_bytes))
        return false;
    return !group->conv_elements || get_model_dtype(r, &group->conv_element_bytes);
}

static bool read_qwen3_5(const reader *r, layers *l, kvt_config *config)
{
    if (find(r, "layer_types") ? !listed_layers(r, "layer_types", delta_net_names, true, l)
                               : !interval_layers(r, "full_attention_interval", KVT_LAYER_RECURRENT, l))
        return false;
    count_kinds(l, config);
    kvt_layer_group *recurrent = group_of(config, KVT_LAYER_RECURRENT);
    return read_full_and_sliding(r, config, declared_head_dim) && (!recurrent->count || read_delta_net(r, recurrent));
}

static bool read_mamba2(const reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim, groups, state;
    if (!get_u32(r, "conv_kernel", MAX_STATE_DIM, &kernel) || !get_u32(r, "mamba_num_heads", MAX_STATE_DIM, &heads) ||
        !get_u32(r, "mamba_head_dim", MAX_STATE_DIM, &dim) || !get_u32(r, "n_groups", MAX_STATE_DIM, &groups) ||
        !get_u32(r, "ssm_state_size", MAX_STATE_DIM, &state))
        return false;
    group->conv_elements = (uint64_t)(kernel - 1) * ((uint64_t)heads * dim + 2 * (uint64_t)groups * state);
    group->recurrent_elements = (uint64_t)heads * dim * state;
    if (!check_dtype(r, "mamba_ssm_cache_dtype", find(r, "mamba_ssm_cache_dtype"), &group->recurrent_element_bytes))
        return false;
    return !group->conv_elements || get_model_dtype(r, &group->conv_element_bytes);
}

static bool read_nemotron_h(const reader *r, layers *l, kvt_config *config)
{
    if (find(r, "layers_block_type") ? !listed_layers(r, "layers_block_type", nemotron_names, false, l)
                                     : !lettered_layers(r, "hybrid_override_pattern", nemotron_letters, l))
        return false;
    count_kinds(l, config);
    kvt_layer_group *recurrent = group_of(config, KVT_LAYER_RECURRENT);
    return read_full_and_sliding(r, config, declared_head_dim) && (!recurrent->count || read_mamba2(r, recurrent));
}

static bool read_glm4_moe_lite(const reader *r, layers *l, kvt_config *config)
{
    if (!alike_layers(r, KVT_LAYER_LATENT, l))
        return false;
    count_kinds(l, config);
    uint32_t rank, rope;
    if (!get_u32(r, "kv_lora_rank", KVT_MAX_DIM, &rank) || !get_u32(r, "qk_rope_head_dim", KVT_MAX_DIM, &rope))
        return false;
    if (rank + rope > KVT_MAX_DIM)
        return fail(r, "kv_lora_rank + qk_rope_head_dim is %u, but must be at most %d", (unsigned)(rank + rope), KVT_MAX_DIM);
    kvt_layer_group *latent = group_of(config, KVT_LAYER_LATENT);
    latent->kv_heads = 1;
    latent->k_dim = rank + rope;
    return true;
}

/* Qwen3: with use_sliding_window, and no list of layers, the layers from max_window_layers on slide. The mixture-of-experts sibling has no
 * such rule, and those who run it disagree. */
static bool read_qwen3(const reader *r, layers *l, kvt_config *config)
{
    bool slides = false;
    if (find(r, "layer_types")) {
        if (!listed_layers(r, "layer_types", attention_names, true, l))
            return false;
    } else {
        if (find(r, "use_sliding_window") && !get_bool(r, "use_sliding_window", &slides))
            return false;
        if (slides && strcmp(r->model_type, "qwen3_moe") == 0)
            return fail(r, "use_sliding_window is true, but must be false for qwen3_moe unless layer_types says which layers slide");
        if (!alike_layers(r, KVT_LAYER_FULL, l))
            return false;
    }
    if (slides) {
        json_int_t first;
        if (!get_integer(r, "max_window_layers", 0, MAX_LAYERS, &first))
            return false;
        for (uint32_t i = (uint32_t)first; i < l->count; i++)
            l->kinds[i] = KVT_LAYER_SLIDING;
    }
    count_kinds(l, config);
    return read_full_and_sliding(r, config, declared_head_dim);
}

static bool llama_head_dim(const reader *r, uint32_t *dim)
{
    if (find(r, "head_dim"))
        return declared_head_dim(r, dim);
    uint32_t hidden, heads;
    if (!get_u32(r, "hidden_size", KVT_MAX_HEADS * KVT_MAX_DIM, &hidden) || !get_u32(r, "num_attention_heads", KVT_MAX_HEADS, &heads))
        return false;
    if (hidden % heads != 0 || hidden / heads > KVT_MAX_DIM)
        return fail(r, "hidden_size / num_attention_heads is %u / %u, but must be a whole number from 1 to %d", (unsigned)hidden, (unsigned)heads,
                    KVT_MAX_DIM);
    *dim = hidden / heads;
    return true;
}

static bool read_llama(const reader *r, layers *l, kvt_config *config)
{
    if (!alike_layers(r, KVT_LAYER_FULL, l))
        return false;
    count_kinds(l, config);
    return read_full_and_sliding(r, config, llama_head_dim);
}

static const struct {
    const char *name;
    bool (*read)(const reader *, layers *, kvt_config *);
} model_types[] = {
    { "gemma4", read_gemma4 },   { "gemma4_text", read_gemma4 },   { "gemma4_unified", read_gemma4 },       { "gemma4_unified_text", read_gemma4 },
    { "qwen3_5", read_qwen3_5 }, { "qwen3_5_text", read_qwen3_5 }, { "qwen3_5_moe", read_qwen3_5 },         { "qwen3_5_moe_text", read_qwen3_5 },
    { "qwen3", read_qwen3 },     { "qwen3_moe", read_qwen3 },      { "glm4_moe_lite", read_glm4_moe_lite }, { "nemotron_h", read_nemotron_h },
    { "llama", read_llama },
};
#define N_MODEL_TYPES (sizeof model_types / sizeof model_types[0])

static bool fail_model_type(const reader *r, const json_t *value)
{
    char known[256] = "one that is known:";
    for (size_t i = 0; i < N_MODEL_TYPES; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s %s", i ? "," : "", model_types[i].name);
    return fail_field(r, "model_type", value, known);
}

static bool read_model(reader *r, kvt_config *config)
{
    if (!json_is_object(r->root))
        return fail(r, "the file holds %s, but must hold an object", json_is_array(r->root) ? "a list" : "a single value");

    const json_t *text = json_object_get(r->root, "text_config");
    if (text && !json_is_null(text) && !json_is_object(text))
        return fail_field(r, "text_config", text, "an object");
    r->text = json_is_object(text) ? text : r->root;

    const json_t *type = find(r, "model_type");
    if (!type)
        type = json_object_get(r->root, "model_type");
    r->model_type = json_is_string(type) ? json_string_value(type) : "every model";
    size_t i = 0;
    while (i < N_MODEL_TYPES && strcmp(model_types[i].name, r->model_type) != 0)
        i++;
    if (i == N_MODEL_TYPES)
        return fail_model_type(r, type);

    layers l = { 0 };
    const bool good = model_types[i].read(r, &l, config);
    free(l.kinds);
    if (!good)
        return false;

    json_int_t context = 0;
    if (find(r, "max_position_embeddings") && !get_integer(r, "max_position_embeddings", 1, MAX_CONTEXT, &context))
        return false;
    config->model.max_context = (uint64_t)context;
    return true;
}

/* ---- the file -------------------------------------------------------------------------------------------------------------------- */

/* The last part of a folder's path, "" when it has none. */
static void last_part(const char *folder, char *name, size_t size)
{
    const char *end = folder + strlen(folder);
    while (end > folder && end[-1] == '/')
        end--;
    const char *begin = end;
    while (begin > folder && begin[-1] != '/')
        begin--;
    snprintf(name, size, "%.*s", (int)(end - begin > 1000 ? 1000 : end - begin), begin);
}

/* "gemma-4-E2B" from ".../gemma-4-E2B/config.json" or ".../gemma-4-E2B.json". */
static void make_name(const char *path, char *name, size_t size)
{
    static const char standard[] = "config.json", suffix[] = ".json";
    const char *file = strrchr(path, '/');
    file = file ? file + 1 : path;
    const size_t length = strlen(file);
    if (strcmp(file, standard) == 0) {
        char *folder = file > path ? strndup(path, (size_t)(file - path)) : strdup(".");
        last_part(folder ? folder : "", name, size);
        if (folder && (strcmp(name, "") == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)) {
            char *full = realpath(folder, NULL);
            last_part(full ? full : "", name, size);
            free(full);
        }
        free(folder);
    } else {
        const bool ends = length > sizeof suffix - 1 && strcmp(file + length - (sizeof suffix - 1), suffix) == 0;
        snprintf(name, size, "%.*s", (int)(ends ? length - (sizeof suffix - 1) : length), file);
    }
    if (!*name)
        snprintf(name, size, "config");

    for (char *c = name; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    }
    json_t *utf8 = json_string(name);
    for (char *c = name; *c && !utf8; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    json_decref(utf8);
}

static json_t *parse(const reader *r, const char *path)
{
    file_map file;
    if (file_map_open(&file, path, r->error) != 0)
        return NULL;
    json_t *root = NULL;
    json_error_t where;
    if (file.size > MAX_FILE_BYTES)
        fail(r, "has %zu bytes: a config.json has at most %zu", file.size, MAX_FILE_BYTES);
    else if (!(root = json_loadb((const char *)file.data, file.size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where)))
        fail(r, "is not JSON: line %d, column %d: %s", where.line, where.column, where.text);
    file_map_close(&file);
    return root;
}

int kvt_config_read(const char *path, kvt_config *config, error_text *error)
{
    *config = (kvt_config){ 0 };
    reader r = { .error = error };
    json_t *root = parse(&r, path);
    r.root = root;
    const bool good = root && read_model(&r, config);
    json_decref(root);
    if (!good)
        return -1;

    /* Close the gaps: groups of kinds that the model does not have. */
    for (size_t i = 0; i < KVT_LAYER_NONE; i++) {
        if (config->groups[i].count == 0)
            continue;
        config->groups[i].kind = (kvt_layer_kind)(i + 1);
        config->groups[config->model.n_groups++] = config->groups[i];
    }
    make_name(path, config->name, sizeof config->name);
    config->model.name = config->name;
    config->model.groups = config->groups;
    return 0;
}
