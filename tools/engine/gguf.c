/* SPDX-License-Identifier: MIT */
/* GGUF files as llama.cpp's converter writes them: what stretches frequencies channel by channel is a tensor of divisors, and one is added to the
 * norms' weights where a model means that. */
#include "tools/engine/checkpoint.h"

#include "tools/engine/tokenizer.h"
#include "tools/engine/weights.h"
#include "tools/files/file.h"
#include "tools/files/gguf.h"
#include "tools/files/number.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 20 };

/* ---- architectures ---- */

/* What of them this engine knows, beside Llama. */
static const struct architecture {
    const char *name;
    bool halves;       /* rows of queries and keys have the pairs of RoPE half a head apart */
    bool biases;       /* of queries, keys and values */
    bool head_norm;    /* of queries and keys */
    bool after_norm;   /* of what attention and the feed-forward part give */
    bool gelu;         /* instead of SiLU; and embeddings are scaled by the root of their width */
    uint32_t period;   /* every so many layers one sees all tokens, and the others a window, with RoPE of their own; 1: all layers are alike */
    uint32_t unturned; /* every so many layers one has no RoPE; 0: none */
    uint32_t largest;  /* the number of layers of the largest model, whose logits are scaled by its width / heads; 0: as the others */
} ARCHITECTURES[] = {
    { .name = "llama", .period = 1 },
    { .name = "qwen2", .halves = true, .biases = true, .period = 1 },
    { .name = "qwen3", .halves = true, .head_norm = true, .period = 1 },
    { .name = "gemma3", .halves = true, .head_norm = true, .after_norm = true, .gelu = true, .period = 6, .largest = 62 },
    { .name = "phi3", .halves = true, .period = 1 },
    { .name = "smollm3", .period = 1, .unturned = 4 },
};
enum { N_ARCHITECTURES = sizeof ARCHITECTURES / sizeof *ARCHITECTURES };

static const struct architecture *supported_architecture(const gguf *file)
{
    for (size_t i = 0; i < N_ARCHITECTURES; i++)
        if (strcmp(file->architecture, ARCHITECTURES[i].name) == 0)
            return &ARCHITECTURES[i];
    error_set(file->error, "general.architecture is \"%s\", but must be llama, qwen2, qwen3, gemma3, phi3 or smollm3: others are not supported",
              file->architecture);
    return NULL;
}

/* ---- metadata ---- */

/* `standard` when the key is not there; 0: it must be. */
static bool get_real(const gguf *file, const char *name, double standard, double *to)
{
    const gguf_entry *entry = gguf_find(file, name);
    *to = standard;
    if (entry == NULL && standard > 0)
        return true;
    const bool real = entry != NULL && entry->type == GGUF_F32 && !entry->list;
    const double value = real ? (double)load_float(entry->data) : 0;
    *to = value;
    if (real && !(value > 0 && value < 1e12))
        return error_set(file->error, "%s.%s is %g, but must be a positive number", file->architecture, name, value) == 0;
    return real || gguf_fail(file, name, entry, "a positive number of type f32");
}

/* One number, or a list of the same one for every layer: this engine's layers are all alike. */
static bool get_kv_heads(const gguf *file, checkpoint *model)
{
    static const char name[] = "attention.head_count_kv", right[] = "the same for all layers, a divisor of attention.head_count";
    const gguf_entry *entry = gguf_find(file, name);
    int64_t value = model->heads, other;
    if (entry != NULL && (entry->count != (entry->list ? model->layers : 1) || !gguf_number(entry, 0, &value)))
        return gguf_fail(file, name, entry, right);
    for (uint64_t i = 1; entry != NULL && entry->list && i < entry->count; i++)
        if (!gguf_number(entry, i, &other) || other != value)
            return gguf_fail(file, name, entry, right);
    if (value < 1 || value > model->heads || model->heads % (uint32_t)value != 0)
        return gguf_fail(file, name, entry, right);
    model->kv_heads = (uint32_t)value;
    return true;
}

/* Of rows, whose width is embedding_length / attention.head_count where the file does not say it. */
static bool get_head_dim(const gguf *file, checkpoint *model)
{
    static const char *const same[] = { "attention.value_length", "rope.dimension_count" };
    const uint32_t standard = model->dim % model->heads == 0 ? model->dim / model->heads : GGUF_NEEDED;
    if (!gguf_get(file, "attention.key_length", 1, MOST, standard, &model->head_dim))
        return false;
    if (model->head_dim % 2 != 0 || (uint64_t)model->heads * model->head_dim > MOST)
        return error_set(file->error, "heads are %" PRIu32 " wide, but must be of an even width that times attention.head_count is at most %d",
                         model->head_dim, MOST) == 0;
    for (size_t i = 0; i < 2; i++) {
        uint32_t value;
        if (!gguf_get(file, same[i], 1, MOST, model->head_dim, &value))
            return false;
        if (value != model->head_dim)
            return error_set(file->error, "%s.%s is %" PRIu32 ", but must be %" PRIu32 ", like the width of heads: others are not supported",
                             file->architecture, same[i], value, model->head_dim) == 0;
    }
    return true;
}

/* The number of tokens: with a list of them, its length. */
static bool get_vocabulary(const gguf *file, checkpoint *model)
{
    const gguf_entry *tokens = gguf_key(file, "tokenizer.ggml.tokens");
    const uint32_t listed = tokens != NULL && tokens->list && tokens->count <= MOST ? (uint32_t)tokens->count : 0;
    return gguf_get(file, "vocab_size", 1, MOST, listed > 0 ? listed : GGUF_NEEDED, &model->vocabulary);
}

static uint32_t token_at(const gguf *file, const char *key, uint32_t vocabulary)
{
    const gguf_entry *entry = gguf_key(file, key);
    int64_t number;
    return entry != NULL && !entry->list && gguf_number(entry, 0, &number) && number >= 0 && number < vocabulary ? (uint32_t)number : NO_TOKEN;
}

static bool get_sizes(const gguf *file, checkpoint *model)
{
    static const char soft_cap[] = "final_logit_softcapping";
    const struct architecture *known = supported_architecture(file);
    uint32_t experts;
    double epsilon;
    if (known == NULL)
        return false;
    if (gguf_find(file, soft_cap) != NULL)
        return gguf_fail(file, soft_cap, gguf_find(file, soft_cap), "missing: soft caps are not supported");
    if (!gguf_get(file, "expert_count", 0, MOST, 0, &experts))
        return false;
    if (experts != 0)
        return error_set(file->error, "%s.expert_count is %" PRIu32 ", but must be 0: experts are not supported", file->architecture, experts) == 0;
    if (!gguf_get(file, "embedding_length", 1, MOST, GGUF_NEEDED, &model->dim) ||
        !gguf_get(file, "feed_forward_length", 1, MOST, GGUF_NEEDED, &model->ffn) ||
        !gguf_get(file, "block_count", 1, MOST, GGUF_NEEDED, &model->layers) ||
        !gguf_get(file, "attention.head_count", 1, MOST, GGUF_NEEDED, &model->heads) ||
        !gguf_get(file, "context_length", 1, MOST, GGUF_NEEDED, &model->context) || !get_kv_heads(file, model) || !get_head_dim(file, model) ||
        !get_vocabulary(file, model) || !get_real(file, "attention.layer_norm_rms_epsilon", 0, &epsilon))
        return false;
    model->q_dim = model->heads * model->head_dim;
    model->kv_dim = model->kv_heads * model->head_dim;
    model->rms_epsilon = (float)epsilon;
    model->q_bias = known->biases ? model->q_dim : 0;
    model->kv_bias = known->biases ? model->kv_dim : 0;
    model->head_norm = known->head_norm ? model->head_dim : 0;
    model->after_norm = known->after_norm ? model->dim : 0;
    model->gelu = known->gelu;
    model->embedding_scale = known->gelu ? sqrtf((float)model->dim) : 0;
    model->attention_scale = known->largest == model->layers ? 1 / sqrtf((float)(model->dim / model->heads)) : 0;
    model->bos = token_at(file, "tokenizer.ggml.bos_token_id", model->vocabulary);
    model->eos = token_at(file, "tokenizer.ggml.eos_token_id", model->vocabulary);
    return true;
}

/* Phi-3's divisors are for contexts up to the one of its training, or for longer ones: the first are used, and the context is that. */
static bool set_short_context(const gguf *file, checkpoint *model)
{
    uint32_t context;
    double scale;
    if (!gguf_get(file, "rope.scaling.original_context_length", 1, MOST, model->context, &context) ||
        !get_real(file, "rope.scaling.attn_factor", 1, &scale))
        return false;
    model->context = context < model->context ? context : model->context;
    model->rope_scale = scale != 1 ? (float)scale : 0;
    return true;
}

/* Which layers see a window, and which have which RoPE. */
static bool set_layers(const gguf *file, checkpoint *model)
{
    const struct architecture *known = supported_architecture(file);
    uint32_t window, period;
    double base;
    if (!gguf_get(file, "attention.sliding_window", 0, UINT32_MAX - 1, 0, &window) ||
        !gguf_get(file, "attention.sliding_window_pattern", 1, MOST, known->period, &period) || !get_real(file, "rope.freq_base_swa", 10000, &base))
        return false;
    if (known->period > 1)
        checkpoint_set_local_frequencies(model, base);
    for (uint32_t i = 0; i < model->layers; i++) {
        const bool local = window > 0 && period > 1 && (i + 1) % period != 0;
        model->kinds[i].window = local || period == 1 ? window : 0;
        model->kinds[i].rope = local ? ROPE_LOCAL : known->unturned > 0 && (i + 1) % known->unturned == 0 ? ROPE_NONE : ROPE_WHOLE;
    }
    return true;
}

static bool set_rope(const gguf *file, checkpoint *model)
{
    static const char name[] = "rope.scaling.type";
    const gguf_entry *type = gguf_find(file, name);
    const bool none = gguf_is_text(type, "none"), phi = strcmp(file->architecture, "phi3") == 0;
    double base, factor;
    if (type != NULL && !none && !gguf_is_text(type, "linear") && !(phi && gguf_is_text(type, "longrope")))
        return gguf_fail(file, name, type, "\"none\" or \"linear\": others are not supported");
    if (!get_real(file, "rope.freq_base", 10000, &base) || !get_real(file, "rope.scaling.factor", 1, &factor))
        return false;
    checkpoint_set_frequencies(model, base);
    for (uint32_t i = 0; !none && i < model->head_dim / 2; i++)
        model->frequencies[i] /= factor;
    return (!phi || set_short_context(file, model)) && set_layers(file, model);
}

/* ---- tensors ---- */

static int find_classifier(void *owner, const gguf_tensor *tensor, error_text *error)
{
    (void)error;
    checkpoint *model = owner;
    model->own_classifier = model->own_classifier || strcmp(tensor->name, "output.weight") == 0;
    return 0;
}

/* Each frequency divided by a number. */
static int divide_frequencies(checkpoint *model, const gguf_tensor *tensor, error_text *error)
{
    const uint32_t n = model->head_dim / 2;
    if (tensor->type != 0 || tensor->n_sizes != 1 || tensor->sizes[0] != n || tensor->left / 4 < n)
        return error_set(error, "tensor %s: %" PRIu32 " numbers of type F32 would be right", tensor->name, n);
    for (uint32_t i = 0; i < n; i++) {
        const float divisor = load_float(tensor->data + 4 * i);
        if (!(divisor > 0 && isfinite(divisor)))
            return error_set(error, "tensor %s: number %" PRIu32 " is %g: a positive one would be right", tensor->name, i, (double)divisor);
        model->frequencies[i] /= (double)divisor;
    }
    return 0;
}

static int use_gguf_tensor(void *owner, const gguf_tensor *tensor, error_text *error)
{
    weights *to = owner;
    if (strcmp(tensor->name, "rope_freqs.weight") == 0 || strcmp(tensor->name, "rope_factors_short.weight") == 0)
        return divide_frequencies(to->model, tensor, error);
    if (strcmp(tensor->name, "rope_factors_long.weight") == 0)
        return 0;
    const numbers_format *format = numbers_find(tensor->type);
    char number[24];
    snprintf(number, sizeof number, "type %" PRIu32 " of ggml", tensor->type);
    const weights_tensor found = {
        .name = tensor->name,
        .n_sizes = tensor->n_sizes,
        .rows = tensor->sizes[1],
        .columns = tensor->sizes[0],
        .format = format,
        .format_name = format != NULL ? format->name : number,
        .data = tensor->data,
        .bytes = tensor->left,
    };
    return weights_use(to, &found, error);
}

/* The files of a model: one, or several parts; the first part has the metadata. */
typedef struct model_files {
    gguf *files;
    file_map *maps; /* of the parts but the first; NULL: the model is whole */
    size_t n;
} model_files;

static int walk_all(const model_files *all, gguf_visit *visit, void *owner)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < all->n; i++)
        result = gguf_walk_tensors(&all->files[i], visit, owner);
    return result;
}

static int load_gguf_tensors(const model_files *all, checkpoint *model, error_text *error)
{
    weights to;
    if (weights_open(&to, model, WEIGHTS_GGUF, supported_architecture(all->files)->halves, error) != 0)
        return -1;
    int result = walk_all(all, use_gguf_tensor, &to);
    if (result == 0)
        result = weights_check(&to, error);
    weights_close(&to);
    return result;
}

/* Sizes that no file of these bytes can have are found out before memory is taken for them: a weight has 2.6 bits at least. */
static bool check_file_bytes(const model_files *all, const checkpoint *model, error_text *error)
{
    const uint64_t n = checkpoint_count(model);
    uint64_t bytes = 0;
    for (size_t i = 0; i < all->n; i++)
        bytes += all->files[i].size;
    return n / 4 <= bytes || error_set(error, "the model has %" PRIu64 " bytes: %" PRIu64 " weights, as its metadata says, take more", bytes, n) == 0;
}

static int read_files(checkpoint *model, const model_files *all, error_text *error)
{
    const gguf *first = all->files;
    if (get_sizes(first, model) && walk_all(all, find_classifier, model) == 0 && check_file_bytes(all, model, error) &&
        checkpoint_make(model, error) == 0 && set_rope(first, model))
        return load_gguf_tensors(all, model, error);
    return -1;
}

/* ---- parts of a split model ---- */

/* What a split model's first part is called from its number on, and how long that is. */
typedef struct part_name {
    char text[32];
} part_name;

static part_name name_of_part(uint32_t part, uint32_t parts)
{
    part_name name;
    snprintf(name.text, sizeof name.text, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", part + 1, parts);
    return name;
}

/* Opens a part beside the first. */
static int open_part(const model_files *all, const char *path, uint32_t part, uint32_t parts, error_text *error)
{
    char name[4096];
    uint32_t number, count;
    const size_t stem = strlen(path) - strlen(name_of_part(0, parts).text);
    snprintf(name, sizeof name, "%.*s%s", (int)stem, path, name_of_part(part, parts).text);
    const char *slash = strrchr(name, '/'), *base = slash != NULL ? slash + 1 : name;
    gguf *file = &all->files[part];
    *file = (gguf){ .error = error };
    int result = file_map_open(&all->maps[part], name, error);
    if (result == 0 && (!gguf_open_part(file, all->maps[part].data, all->maps[part].size) || !gguf_get_part(file, &number, &count)))
        result = -1;
    if (result == 0 && (number != part || count != parts))
        result = error_set(error, "split.no is %" PRIu32 " of %" PRIu32 ", but must be %" PRIu32 " of %" PRIu32, number, count, part, parts);
    if (result == 0)
        return 0;
    const error_text why = *error;
    return error_set(error, "part %" PRIu32 " of %" PRIu32 ", %.160s: %.200s", part + 1, parts, base, why.text);
}

/* All but the first, which is open. */
static int open_parts(model_files *all, const char *path, error_text *error)
{
    uint32_t part, parts;
    if (!gguf_get_part(all->files, &part, &parts))
        return -1;
    if (parts == 1)
        return 0;
    if (path == NULL || part != 0)
        return error_set(error, "is part %" PRIu32 " of %" PRIu32 ": the first of the files, beside the others, would be right", part + 1, parts);
    const part_name ending = name_of_part(0, parts);
    const size_t length = strlen(path), own = strlen(ending.text);
    if (length <= own || strcmp(path + length - own, ending.text) != 0)
        return error_set(error, "is part 1 of %" PRIu32 ", whose name must end in %s: so the others are found", parts, ending.text);
    gguf *files = realloc(all->files, parts * sizeof *files);
    all->files = files != NULL ? files : all->files;
    all->maps = calloc(parts, sizeof *all->maps);
    if (files == NULL || all->maps == NULL)
        return error_set(error, "has %" PRIu32 " parts: out of memory", parts);
    while (all->n < parts)
        if (open_part(all, path, (uint32_t)all->n++, parts, error) != 0)
            return -1;
    return 0;
}

int checkpoint_read_gguf(checkpoint *model, const char *path, const uint8_t *bytes, size_t size, error_text *error)
{
    model_files all = { .files = calloc(1, sizeof *all.files), .n = 1 };
    if (all.files == NULL)
        return error_set(error, "cannot be read: out of memory");
    all.files->error = error;
    int result = -1;
    if (gguf_open(all.files, bytes, size) && open_parts(&all, path, error) == 0)
        result = read_files(model, &all, error);
    for (size_t i = 0; i < all.n; i++) {
        gguf_free(&all.files[i]);
        if (all.maps != NULL)
            file_map_close(&all.maps[i]);
    }
    free(all.files);
    free(all.maps);
    return result;
}
