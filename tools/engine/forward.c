#include "tools/engine/forward.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float RMS_EPSILON = 1e-5f;
static const double ROPE_BASE = 10000;

int forward_open(forward_state *state, const checkpoint *model, size_t tokens, error_text *error)
{
    *state = (forward_state){ .model = model, .room = tokens };
    if (tokens < 1 || tokens > model->context)
        return error_set(error, "tokens is %zu: 1 to %" PRIu32 ", the model's context, would be right", tokens, model->context);
    size_t cache; /* elements */
    if (!__builtin_mul_overflow((size_t)model->layers * model->kv_dim, tokens, &cache) && cache <= SIZE_MAX / sizeof(float)) {
        state->keys = malloc(cache * sizeof(float));
        state->values = malloc(cache * sizeof(float));
    }
    /* Sizes of a few million at most, see checkpoint.c: no overflow. */
    state->memory = malloc((5 * (size_t)model->dim + 2 * (size_t)model->ffn + tokens + model->vocabulary) * sizeof(float));
    if (state->keys == NULL || state->values == NULL || state->memory == NULL) {
        forward_close(state);
        return error_set(error, "tokens is %zu: more than memory holds", tokens);
    }
    float *next = state->memory;
    float **const of_dim[] = { &state->x, &state->normed, &state->query, &state->attended, &state->projected };
    for (size_t i = 0; i < sizeof of_dim / sizeof *of_dim; i++) {
        *of_dim[i] = next;
        next += model->dim;
    }
    state->gate = next;
    state->up = state->gate + model->ffn;
    state->scores = state->up + model->ffn;
    state->logits = state->scores + tokens;
    return 0;
}

void forward_close(forward_state *state)
{
    free(state->keys);
    free(state->values);
    free(state->memory);
    *state = (forward_state){ 0 };
}

/* Eight sums side by side: the compiler may use vectors without changing the order of any addition. */
static float dot(const float *a, const float *b, size_t n)
{
    float sums[8] = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (size_t lane = 0; lane < 8; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < n; i++)
        sums[0] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

/* out[rows] = matrix[rows][columns] * in */
static void multiply(float *out, const float *matrix, const float *in, size_t rows, size_t columns)
{
    for (size_t r = 0; r < rows; r++)
        out[r] = dot(matrix + r * columns, in, columns);
}

static void add(float *sum, const float *term, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += term[i];
}

static void rms_norm(float *out, const float *in, const float *weight, size_t n)
{
    const float scale = 1 / sqrtf(dot(in, in, n) / (float)n + RMS_EPSILON);
    for (size_t i = 0; i < n; i++)
        out[i] = weight[i] * (scale * in[i]);
}

/* Turns each pair of neighbouring channels by an angle that depends on the position and the pair. */
static void rotate(float *row, size_t head_dim, size_t position)
{
    for (size_t i = 0; i < head_dim; i += 2) {
        const double angle = (double)position * pow(ROPE_BASE, -(double)i / (double)head_dim);
        const float cosine = (float)cos(angle);
        const float sine = (float)sin(angle);
        const float first = row[i];
        const float second = row[i + 1];
        row[i] = first * cosine - second * sine;
        row[i + 1] = first * sine + second * cosine;
    }
}

static void softmax(float *scores, size_t n)
{
    float largest = scores[0];
    for (size_t i = 1; i < n; i++)
        largest = fmaxf(largest, scores[i]);
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        scores[i] = expf(scores[i] - largest);
        sum += scores[i];
    }
    for (size_t i = 0; i < n; i++)
        scores[i] /= sum;
}

/* One query head over the n_tokens cached rows of its KV head. */
static void attend(float *out, float *scores, const float *query, const float *keys, const float *values, size_t n_tokens, size_t head_dim)
{
    const float scale = 1 / sqrtf((float)head_dim);
    for (size_t t = 0; t < n_tokens; t++)
        scores[t] = dot(query, keys + t * head_dim, head_dim) * scale;
    softmax(scores, n_tokens);
    memset(out, 0, head_dim * sizeof *out);
    for (size_t t = 0; t < n_tokens; t++) {
        for (size_t i = 0; i < head_dim; i++)
            out[i] += scores[t] * values[t * head_dim + i];
    }
}

static void attention(forward_state *state, size_t layer, size_t position)
{
    const checkpoint *model = state->model;
    const size_t dim = model->dim;
    const size_t kv_dim = model->kv_dim;
    const size_t head_dim = model->head_dim;
    rms_norm(state->normed, state->x, model->rms_att + layer * dim, dim);
    multiply(state->query, model->wq + layer * dim * dim, state->normed, dim, dim);
    for (size_t h = 0; h < model->kv_heads; h++) {
        const size_t weights = (layer * kv_dim + h * head_dim) * dim;
        const size_t row = ((layer * model->kv_heads + h) * state->room + position) * head_dim;
        multiply(state->keys + row, model->wk + weights, state->normed, head_dim, dim);
        multiply(state->values + row, model->wv + weights, state->normed, head_dim, dim);
        rotate(state->keys + row, head_dim, position);
    }
    const size_t group = model->heads / model->kv_heads;
    for (size_t h = 0; h < model->heads; h++) {
        float *query = state->query + h * head_dim;
        const size_t cached = (layer * model->kv_heads + h / group) * state->room * head_dim;
        rotate(query, head_dim, position);
        attend(state->attended + h * head_dim, state->scores, query, state->keys + cached, state->values + cached, position + 1, head_dim);
    }
    multiply(state->projected, model->wo + layer * dim * dim, state->attended, dim, dim);
    add(state->x, state->projected, dim);
}

static void feed_forward(forward_state *state, size_t layer)
{
    const checkpoint *model = state->model;
    const size_t dim = model->dim;
    const size_t ffn = model->ffn;
    const size_t weights = layer * ffn * dim;
    rms_norm(state->normed, state->x, model->rms_ffn + layer * dim, dim);
    multiply(state->gate, model->w1 + weights, state->normed, ffn, dim);
    multiply(state->up, model->w3 + weights, state->normed, ffn, dim);
    for (size_t i = 0; i < ffn; i++)
        state->gate[i] = state->gate[i] / (1 + expf(-state->gate[i])) * state->up[i];
    multiply(state->projected, model->w2 + weights, state->gate, dim, ffn);
    add(state->x, state->projected, dim);
}

const float *forward_token(forward_state *state, uint32_t token, size_t position)
{
    const checkpoint *model = state->model;
    const size_t dim = model->dim;
    memcpy(state->x, model->embedding + token * dim, dim * sizeof *state->x);
    for (size_t layer = 0; layer < model->layers; layer++) {
        attention(state, layer, position);
        feed_forward(state, layer);
    }
    rms_norm(state->normed, state->x, model->rms_final, dim);
    multiply(state->logits, model->classifier, state->normed, model->vocabulary, dim);
    return state->logits;
}

double forward_surprise(const forward_state *state, uint32_t token)
{
    const float *logits = state->logits;
    float largest = logits[0];
    for (uint32_t i = 1; i < state->model->vocabulary; i++)
        largest = fmaxf(largest, logits[i]);
    double sum = 0;
    for (uint32_t i = 0; i < state->model->vocabulary; i++)
        sum += exp((double)logits[i] - largest);
    return log(sum) + largest - logits[token];
}
