/* SPDX-License-Identifier: MIT */
/* A Hugging Face folder of the Llama architecture: config.json, and model.safetensors or the files that model.safetensors.index.json names. */
#include "tools/engine/checkpoint.h"

#include "tools/engine/tokenizer.h"
#include "tools/engine/weights.h"
#include "tools/files/pickle.h"
#include "tools/files/safetensors.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 1 << 20 };

/* ---- files of the folder ---- */

typedef struct file_path {
    char text[4096];
} file_path;

static file_path path_of(const char *folder, const char *name)
{
    file_path path;
    snprintf(path.text, sizeof path.text, "%.3000s/%.1000s", folder, name);
    return path;
}

/* An error in a file, with its name before it. */
static int error_in(error_text *error, const char *name)
{
    const error_text why = *error;
    return error_set(error, "%.100s: %.290s", name, why.text);
}

static json_t *load_json(const char *folder, const char *name, error_text *error)
{
    file_map map;
    json_error_t where;
    json_t *value = NULL;
    if (file_map_open(&map, path_of(folder, name).text, error) == 0) {
        value = json_loadb((const char *)map.data, map.size, JSON_REJECT_DUPLICATES, &where);
        if (value == NULL)
            error_set(error, "is not JSON: %s (line %d)", where.text, where.line);
        else if (!json_is_object(value))
            error_set(error, "is not a JSON object");
        file_map_close(&map);
    }
    if (json_is_object(value))
        return value;
    error_in(error, name);
    json_decref(value);
    return NULL;
}

/* ---- config.json ---- */

/* A value as it stands in the file. */
static error_text value_text(const json_t *value)
{
    error_text text;
    char *dump = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(text.text, sizeof text.text, "%.60s", value == NULL ? "missing" : dump != NULL ? dump : "?");
    free(dump);
    return text;
}

static const json_t *present(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

/* `standard` where the field is missing; 0: it must not be. */
static int read_size(const json_t *config, const char *name, uint32_t standard, uint32_t *to, error_text *error)
{
    const json_t *value = present(config, name);
    *to = standard;
    if (value == NULL && standard > 0)
        return 0;
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 1 || number > MOST)
        return error_set(error, "%s is %s: a whole number from 1 to %d would be right", name, value_text(value).text, MOST);
    *to = (uint32_t)number;
    return 0;
}

static int read_positive(const json_t *config, const char *name, double standard, double *to, error_text *error)
{
    const json_t *value = present(config, name);
    *to = value != NULL ? json_number_value(value) : standard;
    if (value != NULL && (!json_is_number(value) || !(*to > 0 && *to < 1e12)))
        return error_set(error, "%s is %s: a positive number would be right", name, value_text(value).text);
    if (!(*to > 0))
        return error_set(error, "%s is missing: a positive number would be right", name);
    return 0;
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* What this engine computes is all there is. */
static int check_architecture(const json_t *config, error_text *error)
{
    static const struct {
        const char *name, *right;
    } absent[] = { { "attention_bias", "no biases" }, { "mlp_bias", "no biases" }, { "quantization_config", "weights of f32, f16 or bf16" } };
    const json_t *type = present(config, "model_type"), *activation = present(config, "hidden_act");
    if (!is_text(type, "llama"))
        return error_set(error, "model_type is %s: \"llama\" would be right, other architectures are not supported", value_text(type).text);
    if (activation != NULL && !is_text(activation, "silu"))
        return error_set(error, "hidden_act is %s: \"silu\" would be right", value_text(activation).text);
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) {
        const json_t *value = present(config, absent[i].name);
        if (value != NULL && !json_is_false(value))
            return error_set(error, "%s is %s: %s would be right, others are not supported", absent[i].name, value_text(value).text, absent[i].right);
    }
    return 0;
}

/* Stretches frequencies for longer contexts, as Llama 3 does: those of wavelengths above a limit by a factor, those below another not at all. */
static int stretch_frequencies(checkpoint *model, const json_t *scaling, bool smooth, error_text *error)
{
    double factor, low = 1, high = 4, context = 1;
    if (read_positive(scaling, "factor", 0, &factor, error) != 0)
        return -1;
    if (smooth &&
        (read_positive(scaling, "low_freq_factor", 0, &low, error) != 0 || read_positive(scaling, "high_freq_factor", 0, &high, error) != 0 ||
         read_positive(scaling, "original_max_position_embeddings", 0, &context, error) != 0))
        return -1;
    if (smooth && high <= low)
        return error_set(error, "high_freq_factor is %g: more than low_freq_factor, %g, would be right", high, low);
    for (uint32_t i = 0; i < model->head_dim / 2; i++) {
        const double turns = context * model->frequencies[i] / (2 * 3.14159265358979323846);
        const double kept = !smooth ? 0 : fmin(fmax((turns - low) / (high - low), 0), 1);
        model->frequencies[i] *= kept + (1 - kept) / factor;
    }
    return 0;
}

static int read_rope(checkpoint *model, const json_t *config, error_text *error)
{
    /* One object holds both in newer files. */
    const json_t *parameters = present(config, "rope_parameters"), *scaling = parameters ? parameters : present(config, "rope_scaling");
    const json_t *type = present(scaling, "rope_type") ? present(scaling, "rope_type") : present(scaling, "type");
    double base;
    if (read_positive(present(parameters, "rope_theta") ? parameters : config, "rope_theta", 10000, &base, error) != 0)
        return -1;
    checkpoint_set_frequencies(model, base);
    if (scaling == NULL || is_text(type, "default"))
        return 0;
    if (is_text(type, "linear") || is_text(type, "llama3"))
        return stretch_frequencies(model, scaling, is_text(type, "llama3"), error);
    return error_set(error, "rope_type is %s: \"default\", \"linear\" or \"llama3\" would be right, others are not supported", value_text(type).text);
}

/* The number of a token, or the first of a list. */
static uint32_t token_of(const json_t *value, uint32_t vocabulary)
{
    const json_t *first = json_is_array(value) ? json_array_get(value, 0) : value;
    const json_int_t number = json_integer_value(first);
    return json_is_integer(first) && number >= 0 && number < vocabulary ? (uint32_t)number : NO_TOKEN;
}

static int read_config(checkpoint *model, const json_t *config, error_text *error)
{
    double epsilon;
    if (check_architecture(config, error) != 0 || read_size(config, "hidden_size", 0, &model->dim, error) != 0 ||
        read_size(config, "intermediate_size", 0, &model->ffn, error) != 0 || read_size(config, "num_hidden_layers", 0, &model->layers, error) != 0 ||
        read_size(config, "num_attention_heads", 0, &model->heads, error) != 0 ||
        read_size(config, "num_key_value_heads", model->heads, &model->kv_heads, error) != 0 ||
        read_size(config, "vocab_size", 0, &model->vocabulary, error) != 0 ||
        read_size(config, "max_position_embeddings", 0, &model->context, error) != 0 ||
        read_positive(config, "rms_norm_eps", 1e-6, &epsilon, error) != 0)
        return -1;
    if (present(config, "head_dim") == NULL && model->dim % model->heads != 0)
        return error_set(error, "hidden_size is %" PRIu32 ": a multiple of num_attention_heads, %" PRIu32 ", would be right, or a head_dim",
                         model->dim, model->heads);
    if (read_size(config, "head_dim", model->dim / model->heads, &model->head_dim, error) != 0)
        return -1;
    if (model->head_dim % 2 != 0 || (uint64_t)model->heads * model->head_dim > MOST)
        return error_set(error, "head_dim is %" PRIu32 ": an even number would be right, that times num_attention_heads is at most %d",
                         model->head_dim, MOST);
    if (model->heads % model->kv_heads != 0)
        return error_set(error, "num_key_value_heads is %" PRIu32 ": a divisor of num_attention_heads (%" PRIu32 ") would be right", model->kv_heads,
                         model->heads);
    model->q_dim = model->heads * model->head_dim;
    model->kv_dim = model->kv_heads * model->head_dim;
    model->rms_epsilon = (float)epsilon;
    model->own_classifier = !json_is_true(present(config, "tie_word_embeddings"));
    model->bos = token_of(present(config, "bos_token_id"), model->vocabulary);
    model->eos = token_of(present(config, "eos_token_id"), model->vocabulary);
    return 0;
}

/* Sizes that no folder of these files can have are found out before memory is taken for them: a weight has 16 bits. Small models (a quarter of a GiB
 * as floats), and half of the bytes, pass, so that what they lack is named. */
enum { SMALL_MODEL = 1 << 26 };
static int check_folder_bytes(const checkpoint *model, const char *folder, error_text *error)
{
    static const char ending[] = ".safetensors";
    const uint64_t n = checkpoint_count(model);
    uint64_t bytes = 0;
    bool has_pickle = false;
    DIR *directory = opendir(folder);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        struct stat status;
        const size_t length = strlen(entry->d_name);
        has_pickle = has_pickle || strncmp(entry->d_name, "pytorch_model", strlen("pytorch_model")) == 0;
        if (length >= sizeof ending && strcmp(entry->d_name + length - (sizeof ending - 1), ending) == 0 &&
            stat(path_of(folder, entry->d_name).text, &status) == 0)
            bytes += (uint64_t)status.st_size;
    }
    if (directory != NULL)
        closedir(directory);
    if (bytes == 0 && has_pickle)
        return pickle_refuse(error);
    if (n <= bytes || n <= SMALL_MODEL)
        return 0;
    return error_set(error, "config.json: the model has %" PRIu64 " weights, which take more than the %" PRIu64 " bytes of the folder's %s files", n,
                     bytes, ending);
}

/* ---- tensors ---- */

static int use_safetensor(void *owner, const safetensors_entry *tensor, error_text *error)
{
    static const char table[] = ".rotary_emb.inv_freq"; /* which follows from the configuration */
    const size_t length = strlen(tensor->name);
    if (length >= sizeof table && strcmp(tensor->name + length - (sizeof table - 1), table) == 0)
        return 0;
    const bool vector = tensor->n_sizes == 1;
    const weights_tensor found = {
        .name = tensor->name,
        .n_sizes = tensor->n_sizes,
        .rows = vector ? 1 : tensor->sizes[0],
        .columns = tensor->sizes[vector ? 0 : 1],
        .format = tensor->number == KVT_F32    ? numbers_find(NUMBERS_F32)
                  : tensor->number == KVT_F16  ? numbers_find(NUMBERS_F16)
                  : tensor->number == KVT_BF16 ? numbers_find(NUMBERS_BF16)
                                               : NULL,
        .format_name = tensor->dtype,
        .data = tensor->data,
        .bytes = tensor->end - tensor->begin,
    };
    return weights_use(owner, &found, error);
}

static int load_file(weights *to, const char *folder, const char *name, error_text *error)
{
    file_map map;
    if (file_map_open(&map, path_of(folder, name).text, error) != 0)
        return error_in(error, name);
    const int result = safetensors_walk(&map, use_safetensor, to, error);
    file_map_close(&map);
    return result == 0 ? 0 : error_in(error, name);
}

/* Each file that the index names, once. */
static int load_shards(weights *to, const char *folder, const char *index_name, error_text *error)
{
    json_t *index = load_json(folder, index_name, error), *files = json_object();
    const json_t *map = json_object_get(index, "weight_map");
    int result = index != NULL && files != NULL ? 0 : -1;
    if (result == 0 && json_object_size(map) == 0)
        result = error_set(error, "%s: weight_map is %s: names of tensors with names of files would be right", index_name, value_text(map).text);
    for (void *at = json_object_iter((json_t *)(uintptr_t)map); result == 0 && at != NULL; at = json_object_iter_next((json_t *)(uintptr_t)map, at)) {
        const char *name = json_string_value(json_object_iter_value(at));
        if (name == NULL || strchr(name, '/') != NULL)
            result = error_set(error, "%s: the file of %.100s is %s: a name in the same folder would be right", index_name, json_object_iter_key(at),
                               value_text(json_object_iter_value(at)).text);
        else if (json_object_get(files, name) == NULL) {
            json_object_set_new(files, name, json_true());
            result = load_file(to, folder, name, error);
        }
    }
    json_decref(files);
    json_decref(index);
    return result;
}

static int load_safetensors(checkpoint *model, const char *folder, error_text *error)
{
    static const char single[] = "model.safetensors", index[] = "model.safetensors.index.json";
    weights to;
    if (weights_open(&to, model, WEIGHTS_HUGGING_FACE, true, error) != 0)
        return -1;
    const bool sharded = access(path_of(folder, single).text, F_OK) != 0 && access(path_of(folder, index).text, F_OK) == 0;
    int result = sharded ? load_shards(&to, folder, index, error) : load_file(&to, folder, single, error);
    if (result == 0 && weights_check(&to, error) != 0)
        result = error_in(error, sharded ? index : single);
    weights_close(&to);
    return result;
}

int checkpoint_open_folder(checkpoint *model, const char *folder, error_text *error)
{
    static const char name[] = "config.json";
    json_t *config = load_json(folder, name, error);
    if (config == NULL)
        return -1;
    int result = read_config(model, config, error);
    if (result != 0)
        error_in(error, name);
    if (result == 0)
        result = check_folder_bytes(model, folder, error);
    if (result == 0)
        result = checkpoint_make(model, error);
    if (result == 0 && read_rope(model, config, error) != 0)
        result = error_in(error, name);
    json_decref(config);
    return result == 0 ? load_safetensors(model, folder, error) : -1;
}
