/* SPDX-License-Identifier: MIT */
/* See weights.h. */
#include "tools/engine/weights.h"

#include "tools/files/number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a tensor is called, and where it goes ---- */

typedef struct slot {
    const char *names[2]; /* by weights_naming; in a layer: behind its number */
    bool in_layer;
    size_t place;         /* in the struct, the pointer to its numbers in layer 0 */
    size_t rows, columns; /* in the struct, their number; or VECTOR; no columns: the model has no such tensor */
    bool turned;          /* by RoPE */
} slot;

#define AT(field) offsetof(checkpoint, field)
#define VECTOR    SIZE_MAX

enum { EMBEDDING = 0, CLASSIFIER = 1 };
static const slot SLOTS[] = {
    { { "model.embed_tokens.weight", "token_embd.weight" }, false, AT(embedding), AT(vocabulary), AT(dim), false },
    { { "lm_head.weight", "output.weight" }, false, AT(classifier), AT(vocabulary), AT(dim), false }, /* of tied ones it may be the only one */
    { { "model.norm.weight", "output_norm.weight" }, false, AT(rms_final), VECTOR, AT(dim), false },
    { { "input_layernorm.weight", "attn_norm.weight" }, true, AT(rms_att), VECTOR, AT(dim), false },
    { { "self_attn.q_proj.weight", "attn_q.weight" }, true, AT(wq), AT(q_dim), AT(dim), true },
    { { "self_attn.k_proj.weight", "attn_k.weight" }, true, AT(wk), AT(kv_dim), AT(dim), true },
    { { "self_attn.v_proj.weight", "attn_v.weight" }, true, AT(wv), AT(kv_dim), AT(dim), false },
    { { "self_attn.q_proj.bias", "attn_q.bias" }, true, AT(bq), VECTOR, AT(q_bias), true },
    { { "self_attn.k_proj.bias", "attn_k.bias" }, true, AT(bk), VECTOR, AT(kv_bias), true },
    { { "self_attn.v_proj.bias", "attn_v.bias" }, true, AT(bv), VECTOR, AT(kv_bias), false },
    { { "self_attn.q_norm.weight", "attn_q_norm.weight" }, true, AT(rms_q), VECTOR, AT(head_norm), true },
    { { "self_attn.k_norm.weight", "attn_k_norm.weight" }, true, AT(rms_k), VECTOR, AT(head_norm), true },
    { { "self_attn.o_proj.weight", "attn_output.weight" }, true, AT(wo), AT(dim), AT(q_dim), false },
    { { NULL, "post_attention_norm.weight" }, true, AT(rms_wo), VECTOR, AT(after_norm), false },
    { { "post_attention_layernorm.weight", "ffn_norm.weight" }, true, AT(rms_ffn), VECTOR, AT(dim), false },
    { { "mlp.gate_proj.weight", "ffn_gate.weight" }, true, AT(w1), AT(ffn), AT(dim), false },
    { { "mlp.down_proj.weight", "ffn_down.weight" }, true, AT(w2), AT(dim), AT(ffn), false },
    { { "mlp.up_proj.weight", "ffn_up.weight" }, true, AT(w3), AT(ffn), AT(dim), false },
    { { NULL, "post_ffw_norm.weight" }, true, AT(rms_w2), VECTOR, AT(after_norm), false },
};
enum { N_SLOTS = sizeof SLOTS / sizeof *SLOTS };

static const struct {
    const char *layers;    /* before a layer's number */
    const char *sizes_are; /* where the sizes of tensors come from */
    const char *tied;      /* what says that one tensor is embedding and classifier */
} NAMINGS[] = {
    { "model.layers.", "config.json", ", and tie_word_embeddings of config.json is not true: one of the two would be right" },
    { "blk.", "the metadata", "" },
};

static uint32_t number_in(const checkpoint *model, size_t place)
{
    uint32_t number;
    memcpy(&number, (const char *)model + place, sizeof number);
    return number;
}

static float *numbers_of(const checkpoint *model, const slot *wanted)
{
    const float *numbers;
    memcpy(&numbers, (const char *)model + wanted->place, sizeof numbers);
    return model->weights + (numbers - model->weights);
}

/* ---- numbers ---- */

static uint64_t bytes_of_row(const numbers_format *format, uint64_t columns)
{
    return columns / format->block * format->bytes;
}

/* Pairs of RoPE are needed next to each other. Where the file has them half a head apart: the place there of row (of a vector: channel) `row`. */
static size_t place_in_file(const weights *to, const slot *wanted, size_t row)
{
    if (!wanted->turned || !to->halves)
        return row;
    const uint32_t head_dim = to->model->head_dim;
    const size_t channel = row % head_dim;
    return row - channel + channel / 2 + channel % 2 * (head_dim / 2);
}

static void load_matrix(const weights *to, const weights_tensor *tensor, const slot *wanted, uint32_t rows, uint32_t columns, float *out)
{
    const size_t bytes = (size_t)bytes_of_row(tensor->format, columns);
    for (size_t row = 0; row < rows; row++)
        tensor->format->decode(tensor->data + place_in_file(to, wanted, row) * bytes, columns / tensor->format->block, out + row * columns);
}

/* Of plain numbers, which are blocks of one. */
static void load_vector(const weights *to, const weights_tensor *tensor, const slot *wanted, uint32_t columns, float *out)
{
    for (size_t i = 0; i < columns; i++)
        tensor->format->decode(tensor->data + place_in_file(to, wanted, i) * tensor->format->bytes, 1, out + i);
}

/* ---- tensors ---- */

int weights_open(weights *to, checkpoint *model, weights_naming naming, bool halves, error_text *error)
{
    *to = (weights){ .model = model, .naming = naming, .halves = halves, .seen = calloc((size_t)model->layers * N_SLOTS, sizeof(bool)) };
    return to->seen != NULL ? 0 : error_set(error, "needs memory for %" PRIu32 " layers: more than there is", model->layers);
}

void weights_close(weights *to)
{
    free(to->seen);
    to->seen = NULL;
}

/* The model's sizes allow some formats, and those of vectors are plain. */
static int check_format(const weights *to, const weights_tensor *tensor, bool has_rows, uint32_t columns, error_text *error)
{
    const numbers_format *format = tensor->format;
    if (format == NULL || (!has_rows && format->block != 1))
        return error_set(error, "tensor %.120s: dtype is %.40s: %s would be right", tensor->name, tensor->format_name,
                         to->naming == WEIGHTS_HUGGING_FACE || !has_rows ? "F32, F16 or BF16" : numbers_names());
    if (columns % format->block != 0)
        return error_set(error, "tensor %.120s: rows are %" PRIu32 " numbers: blocks of %" PRIu32 " would be right for %.40s", tensor->name, columns,
                         format->block, tensor->format_name);
    return 0;
}

static int check_tensor(const weights *to, const weights_tensor *tensor, const slot *wanted, uint32_t rows, uint32_t columns, error_text *error)
{
    const char *from = NAMINGS[to->naming].sizes_are;
    const bool has_rows = wanted->rows != VECTOR;
    if (has_rows && (tensor->n_sizes != 2 || tensor->rows != rows || tensor->columns != columns))
        return error_set(error, "tensor %.120s: shape is not [%" PRIu32 ", %" PRIu32 "], which would be right for %s", tensor->name, rows, columns,
                         from);
    if (!has_rows && (tensor->n_sizes != 1 || tensor->columns != columns))
        return error_set(error, "tensor %.120s: shape is not [%" PRIu32 "], which would be right for %s", tensor->name, columns, from);
    if (check_format(to, tensor, has_rows, columns, error) != 0)
        return -1;
    const uint64_t bytes = rows * bytes_of_row(tensor->format, columns); /* at most 2^42 */
    if (bytes > tensor->bytes)
        return error_set(error, "tensor %.120s: takes %" PRIu64 " bytes, and the file has %" PRIu64, tensor->name, bytes, tensor->bytes);
    return 0;
}

static uint32_t slot_rows(const checkpoint *model, const slot *wanted)
{
    return wanted->rows != VECTOR ? number_in(model, wanted->rows) : 1;
}

static int use_slot(weights *to, const weights_tensor *tensor, size_t index, size_t layer, error_text *error)
{
    const checkpoint *model = to->model;
    const slot *wanted = &SLOTS[index];
    const uint32_t rows = slot_rows(model, wanted), columns = number_in(model, wanted->columns);
    if (check_tensor(to, tensor, wanted, rows, columns, error) != 0)
        return -1;
    if (index == CLASSIFIER && !model->own_classifier && to->seen[EMBEDDING])
        return 0; /* tied: the same numbers again */
    float *out = numbers_of(model, wanted) + layer * rows * columns;
    if (wanted->rows != VECTOR)
        load_matrix(to, tensor, wanted, rows, columns, out);
    else
        load_vector(to, tensor, wanted, columns, out);
    to->seen[layer * N_SLOTS + index] = true;
    return 0;
}

/* ---- several matrices in one tensor, whose rows follow each other ---- */

static const struct joined {
    const char *whole;    /* in GGUF */
    const char *parts[3]; /* in their order, as slots call them */
} JOINED[] = {
    { "attn_qkv.weight", { "attn_q.weight", "attn_k.weight", "attn_v.weight" } },
    { "ffn_up.weight", { "ffn_gate.weight", "ffn_up.weight" } }, /* where it has twice the rows */
};

/* What the parts of tensor `rest` of a layer are called; NULL: it is one matrix. */
static const struct joined *find_joined(const weights *to, const weights_tensor *tensor, const char *rest)
{
    for (size_t i = 0; to->naming == WEIGHTS_GGUF && i < sizeof JOINED / sizeof *JOINED; i++)
        if (strcmp(rest, JOINED[i].whole) == 0 && (i == 0 || tensor->rows == 2 * (uint64_t)to->model->ffn))
            return &JOINED[i];
    return NULL;
}

static size_t slot_of(weights_naming naming, bool in_layer, const char *rest)
{
    for (size_t i = 0; i < N_SLOTS; i++)
        if (SLOTS[i].in_layer == in_layer && SLOTS[i].names[naming] != NULL && strcmp(SLOTS[i].names[naming], rest) == 0)
            return i;
    return N_SLOTS;
}

static int use_joined(weights *to, const weights_tensor *tensor, const struct joined *parts, size_t layer, error_text *error)
{
    uint64_t rows = 0, before = 0;
    for (size_t i = 0; i < 3 && parts->parts[i] != NULL; i++)
        rows += slot_rows(to->model, &SLOTS[slot_of(to->naming, true, parts->parts[i])]);
    if (tensor->n_sizes != 2 || tensor->rows != rows || tensor->columns != to->model->dim)
        return error_set(error, "tensor %.120s: shape is not [%" PRIu64 ", %" PRIu32 "], which would be right for %s", tensor->name, rows,
                         to->model->dim, NAMINGS[to->naming].sizes_are);
    if (check_format(to, tensor, true, to->model->dim, error) != 0)
        return -1;
    const uint64_t bytes = bytes_of_row(tensor->format, tensor->columns);
    for (size_t i = 0; i < 3 && parts->parts[i] != NULL; i++) {
        const size_t index = slot_of(to->naming, true, parts->parts[i]);
        weights_tensor part = *tensor;
        part.rows = slot_rows(to->model, &SLOTS[index]);
        if (before * bytes > tensor->bytes)
            return error_set(error, "tensor %.120s: takes %" PRIu64 " bytes, and the file has %" PRIu64, tensor->name, rows * bytes, tensor->bytes);
        part.data += before * bytes;
        part.bytes -= before * bytes;
        if (use_slot(to, &part, index, layer, error) != 0)
            return -1;
        before += part.rows;
    }
    return 0;
}

/* ---- all ---- */

int weights_use(weights *to, const weights_tensor *tensor, error_text *error)
{
    const checkpoint *model = to->model;
    const char *prefix = NAMINGS[to->naming].layers, *rest = tensor->name;
    const bool in_layer = strncmp(rest, prefix, strlen(prefix)) == 0;
    size_t layer = 0;
    bool is_there = true;
    if (in_layer) {
        char *end;
        layer = strtoul(rest + strlen(prefix), &end, 10);
        is_there = *end == '.' && layer < model->layers;
        rest = *end == '.' ? end + 1 : end;
    }
    const struct joined *parts = in_layer && is_there ? find_joined(to, tensor, rest) : NULL;
    if (parts != NULL)
        return use_joined(to, tensor, parts, layer, error);
    const size_t index = is_there ? slot_of(to->naming, in_layer, rest) : N_SLOTS;
    if (index == N_SLOTS || number_in(model, SLOTS[index].columns) == 0)
        return error_set(error, "tensor %.120s: a model of this architecture and %" PRIu32 " layers has no such tensor", tensor->name, model->layers);
    return use_slot(to, tensor, index, layer, error);
}

int weights_check(const weights *loaded, error_text *error)
{
    const bool tied = !loaded->model->own_classifier;
    for (size_t i = 0; i < (size_t)loaded->model->layers * N_SLOTS; i++) {
        const slot *wanted = &SLOTS[i % N_SLOTS];
        const char *name = wanted->names[loaded->naming];
        const bool either = tied && i < 2 && (loaded->seen[EMBEDDING] || loaded->seen[CLASSIFIER]);
        if (loaded->seen[i] || (!wanted->in_layer && i >= N_SLOTS) || either || number_in(loaded->model, wanted->columns) == 0)
            continue;
        if (wanted->in_layer)
            return error_set(error, "tensor %s%zu.%s is missing", NAMINGS[loaded->naming].layers, i / N_SLOTS, name);
        return error_set(error, "tensor %s is missing%s", name, i == CLASSIFIER ? NAMINGS[loaded->naming].tied : "");
    }
    return 0;
}
