/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/engine/checkpoint.h"

#include "tools/files/file.h"
#include "tools/files/number.h"
#include "tools/files/output.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* What the format does not say. */
static const float RMS_EPSILON = 1e-5f;
static const double ROPE_BASE = 10000;

enum { N_FIELDS = 7, HEADER_BYTES = 4 * N_FIELDS, MAX_FIELD = 1 << 20, N_TENSORS = 19 };

static int parse_sizes(checkpoint *model, const file_map *map, error_text *error)
{
    static const char *const names[N_FIELDS] = { "dim", "ffn", "layers", "heads", "kv heads", "vocabulary", "context" };
    uint32_t *const fields[N_FIELDS] = { &model->dim,      &model->ffn,        &model->layers, &model->heads,
                                         &model->kv_heads, &model->vocabulary, &model->context };
    if (map->size < HEADER_BYTES)
        return error_set(error, "file is %zu bytes: a checkpoint's header alone has %d", map->size, HEADER_BYTES);
    for (size_t i = 0; i < N_FIELDS; i++) {
        const int32_t value = load_i32(map->data + 4 * i);
        const bool negative_vocabulary = fields[i] == &model->vocabulary && value < 0;
        const int64_t magnitude = negative_vocabulary ? -(int64_t)value : value;
        if (magnitude < 1 || magnitude > MAX_FIELD)
            return error_set(error, "%s is %" PRId32 ": 1 to %d would be right", names[i], value, MAX_FIELD);
        if (negative_vocabulary)
            model->own_classifier = true;
        *fields[i] = (uint32_t)magnitude;
    }
    if (model->dim % model->heads != 0 || model->dim / model->heads % 2 != 0)
        return error_set(error, "dim is %" PRIu32 ": an even multiple of heads (%" PRIu32 ") would be right", model->dim, model->heads);
    if (model->heads % model->kv_heads != 0)
        return error_set(error, "kv heads is %" PRIu32 ": a divisor of heads (%" PRIu32 ") would be right", model->kv_heads, model->heads);
    model->head_dim = model->dim / model->heads;
    model->q_dim = model->dim;
    model->kv_dim = model->kv_heads * model->head_dim;
    model->rms_epsilon = RMS_EPSILON;
    model->bos = 1;
    model->eos = 2;
    return 0;
}

typedef struct tensor {
    const float **place; /* in the struct */
    uint64_t elements;
} tensor;

/* The tensors in file order. No product overflows: three factors of at most 2^20. */
static void list_tensors(checkpoint *model, tensor tensors[N_TENSORS])
{
    const uint64_t layers = model->layers;
    const uint64_t dim = model->dim;
    const uint64_t per_query = layers * model->q_dim * dim;
    const uint64_t per_kv = layers * model->kv_dim * dim;
    const uint64_t per_ffn = layers * model->ffn * dim;
    const uint64_t embedding = model->vocabulary * dim;
    const tensor list[N_TENSORS] = {
        { &model->embedding, embedding },
        { &model->rms_att, layers * dim },
        { &model->wq, per_query },
        { &model->wk, per_kv },
        { &model->wv, per_kv },
        { &model->bq, layers * model->q_bias },
        { &model->bk, layers * model->kv_bias },
        { &model->bv, layers * model->kv_bias },
        { &model->rms_q, layers * model->head_norm },
        { &model->rms_k, layers * model->head_norm },
        { &model->wo, per_query },
        { &model->rms_wo, layers * model->after_norm },
        { &model->rms_ffn, layers * dim },
        { &model->w1, per_ffn },
        { &model->w2, per_ffn },
        { &model->w3, per_ffn },
        { &model->rms_w2, layers * model->after_norm },
        { &model->rms_final, dim },
        { &model->classifier, model->own_classifier ? embedding : 0 },
    };
    memcpy(tensors, list, sizeof list);
}

static uint64_t count_elements(const tensor tensors[N_TENSORS])
{
    uint64_t elements = 0;
    for (size_t i = 0; i < N_TENSORS; i++)
        elements += tensors[i].elements; /* below 2^64: each is at most 2^60 */
    return elements;
}

uint64_t checkpoint_count(const checkpoint *model)
{
    checkpoint sizes = *model;
    tensor tensors[N_TENSORS];
    list_tensors(&sizes, tensors);
    return count_elements(tensors);
}

int checkpoint_make(checkpoint *model, error_text *error)
{
    tensor tensors[N_TENSORS];
    list_tensors(model, tensors);
    const uint64_t elements = count_elements(tensors);
    model->n_weights = (size_t)elements;
    model->weights = elements <= SIZE_MAX / sizeof *model->weights ? malloc(model->n_weights * sizeof *model->weights) : NULL;
    model->frequencies = malloc(2 * (size_t)(model->head_dim / 2) * sizeof *model->frequencies);
    model->kinds = calloc(model->layers, sizeof *model->kinds);
    if (model->weights == NULL || model->frequencies == NULL || model->kinds == NULL)
        return error_set(error, "needs memory for %" PRIu64 " weights: more than there is", elements);
    float *next = model->weights;
    for (size_t i = 0; i < N_TENSORS; i++) {
        *tensors[i].place = next;
        next += tensors[i].elements;
    }
    if (!model->own_classifier)
        model->classifier = model->embedding;
    return 0;
}

static double frequency(double base, uint32_t i, uint32_t head_dim)
{
    return pow(base, -2.0 * i / head_dim);
}

void checkpoint_set_local_frequencies(checkpoint *model, double base)
{
    for (uint32_t i = 0; i < model->head_dim / 2; i++)
        model->frequencies[model->head_dim / 2 + i] = frequency(base, i, model->head_dim);
}

void checkpoint_set_frequencies(checkpoint *model, double base)
{
    for (uint32_t i = 0; i < model->head_dim / 2; i++)
        model->frequencies[i] = frequency(base, i, model->head_dim);
    checkpoint_set_local_frequencies(model, base);
}

int checkpoint_read_llama2(checkpoint *model, const file_map *map, error_text *error)
{
    if (parse_sizes(model, map, error) != 0)
        return -1;
    tensor tensors[N_TENSORS];
    list_tensors(model, tensors);
    const uint64_t elements = count_elements(tensors);
    const uint64_t rope = (uint64_t)model->context * model->head_dim;
    const uint64_t bytes = map->size - HEADER_BYTES;
    /* Halves, because four times the number of elements might not fit. */
    const bool wide = bytes % 4 == 0 && bytes / 4 == elements + rope;
    const bool half = bytes % 2 == 0 && bytes / 2 == elements;
    if (!wide && !half)
        return error_set(error, "file has %" PRIu64 " bytes of weights: 4 x %" PRIu64 " (f32) or 2 x %" PRIu64 " (f16) would be right for its header",
                         bytes, elements + rope, elements);

    if (checkpoint_make(model, error) != 0)
        return -1;
    checkpoint_set_frequencies(model, ROPE_BASE);
    const uint8_t *in = map->data + HEADER_BYTES;
    float *out = model->weights;
    for (size_t i = 0; i < N_TENSORS; i++) {
        const size_t n = (size_t)tensors[i].elements;
        if (wide && tensors[i].place == &model->classifier)
            in += rope * sizeof(float);
        for (size_t j = 0; j < n; j++)
            out[j] = wide ? load_float(in + 4 * j) : f16_to_f32(load_u16(in + 2 * j));
        in += n * (wide ? 4 : 2);
        out += n;
    }
    return 0;
}

void checkpoint_close(checkpoint *model)
{
    free(model->weights);
    free(model->frequencies);
    free(model->kinds);
    *model = (checkpoint){ 0 };
}

/* What the format does not say must be what it means. */
static int check_exportable(const checkpoint *model, error_text *error)
{
    bool plain = !model->gelu && model->embedding_scale == 0 && model->attention_scale == 0 && model->rope_scale == 0 && model->q_bias == 0 &&
                 model->head_norm == 0 && model->after_norm == 0;
    for (uint32_t i = 0; i < model->layers; i++)
        plain = plain && model->kinds[i].window == 0 && model->kinds[i].rope == ROPE_WHOLE;
    if (!plain)
        return error_set(error, "is not of the Llama architecture, which is what the f16 form has");
    if (model->q_dim != model->dim)
        return error_set(error, "head_dim is %" PRIu32 ": dim / heads, %" PRIu32 ", is what the f16 form has", model->head_dim,
                         model->dim / model->heads);
    if (model->rms_epsilon != RMS_EPSILON)
        return error_set(error, "rms_norm_eps is %g: %g is what the f16 form has", (double)model->rms_epsilon, (double)RMS_EPSILON);
    for (uint32_t i = 0; i < model->head_dim / 2; i++)
        if (fabs(model->frequencies[i] / frequency(ROPE_BASE, i, model->head_dim) - 1) > 1e-9)
            return error_set(error, "RoPE turns channel %" PRIu32 " by %g per token: %g is what the f16 form has", 2 * i, model->frequencies[i],
                             frequency(ROPE_BASE, i, model->head_dim));
    return 0;
}

int checkpoint_export_f16(const checkpoint *model, const char *path, error_text *error)
{
    if (check_exportable(model, error) != 0)
        return -1;
    for (size_t i = 0; i < model->n_weights; i++) {
        if ((f32_to_f16(model->weights[i]) & 0x7c00) == 0x7c00)
            return error_set(error, "weight %zu is %g: at most 65504 fits f16", i, (double)model->weights[i]);
    }
    file_output output;
    if (file_output_open(&output, path, error) != 0)
        return -1;
    const int32_t vocabulary = model->own_classifier ? -(int32_t)model->vocabulary : (int32_t)model->vocabulary;
    const int32_t header[N_FIELDS] = { (int32_t)model->dim,      (int32_t)model->ffn, (int32_t)model->layers, (int32_t)model->heads,
                                       (int32_t)model->kv_heads, vocabulary,          (int32_t)model->context };
    fwrite(header, sizeof header, 1, output.stream);
    for (size_t i = 0; i < model->n_weights; i++) {
        const uint16_t half = f32_to_f16(model->weights[i]);
        fwrite(&half, sizeof half, 1, output.stream);
    }
    return file_output_commit(&output, error);
}
