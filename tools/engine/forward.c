#include "tools/engine/forward.h"

#include "tools/engine/dot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static int take_memory(forward_state *state)
{
    const checkpoint *model = state->model;
    const struct {
        float **place;
        size_t n;
    } rows[] = {
        { &state->x, model->dim },
        { &state->normed, model->dim },
        { &state->query, model->q_dim },
        { &state->attended, model->q_dim },
        { &state->projected, model->dim },
        { &state->key, model->kv_dim },
        { &state->value, model->kv_dim },
        { &state->gate, model->ffn },
        { &state->up, model->ffn },
        { &state->cosines, model->head_dim / 2 },
        { &state->sines, model->head_dim / 2 },
        { &state->logits, model->vocabulary },
    };
    size_t n = 0; /* a few million at most, see checkpoint.c: no overflow */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        n += rows[i].n;
    state->memory = malloc(n * sizeof *state->memory);
    float *next = state->memory;
    for (size_t i = 0; next != NULL && i < sizeof rows / sizeof *rows; i++) {
        *rows[i].place = next;
        next += rows[i].n;
    }
    return next != NULL ? 0 : -1;
}

int forward_open(forward_state *state, const checkpoint *model, const cache_way *way, size_t tokens, pool *threads, error_text *error)
{
    *state = (forward_state){ .model = model, .threads = threads };
    if (tokens < 1 || tokens > model->context)
        return error_set(error, "tokens is %zu: 1 to %" PRIu32 ", the model's context, would be right", tokens, model->context);
    if (take_memory(state) != 0)
        return error_set(error, "vocabulary is %" PRIu32 ": out of memory", model->vocabulary);
    const int result = cache_open(&state->cache, model, way, tokens, threads, error);
    if (result != 0)
        forward_close(state);
    return result;
}

void forward_close(forward_state *state)
{
    for (size_t kind = 0; kind < N_CAPTURED; kind++)
        free(state->captured[kind]);
    cache_close(&state->cache);
    free(state->memory);
    *state = (forward_state){ 0 };
}

/* ---- arithmetic ---- */

/* out[rows] = matrix[rows][columns] * in */
typedef struct product {
    float *out;
    const float *matrix;
    size_t rows;
} product;

typedef struct product_job {
    const product *products;
    size_t n;
    const float *in;
    size_t columns;
} product_job;

static void multiply_share(void *data, unsigned worker, unsigned workers)
{
    const product_job *job = data;
    for (size_t i = 0; i < job->n; i++) {
        const product *one = &job->products[i];
        for (size_t r = pool_first(one->rows, worker, workers); r < pool_first(one->rows, worker + 1, workers); r++)
            one->out[r] = dot(one->matrix + r * job->columns, job->in, job->columns);
    }
}

/* Several products of one input, rows split among the workers. */
static void multiply(const forward_state *state, const product *products, size_t n, const float *in, size_t columns)
{
    product_job job = { products, n, in, columns };
    pool_run(state->threads, multiply_share, &job);
}

static void add(float *sum, const float *term, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += term[i];
}

static void rms_norm(float *out, const float *in, const float *weight, size_t n, float epsilon)
{
    const float scale = 1 / sqrtf(dot(in, in, n) / (float)n + epsilon);
    for (size_t i = 0; i < n; i++)
        out[i] = weight[i] * (scale * in[i]);
}

/* The angles of RoPE depend on the position and the pair of channels. In double: what libraries differ in is lost in rounding. */
static void set_angles(forward_state *state, size_t position)
{
    for (size_t i = 0; i < state->model->head_dim / 2; i++) {
        const double angle = (double)position * state->model->frequencies[i];
        state->cosines[i] = (float)cos(angle);
        state->sines[i] = (float)sin(angle);
    }
}

/* Turns each pair of neighbouring channels. */
static void rotate(const forward_state *state, float *rows, size_t n_rows)
{
    const size_t pairs = state->model->head_dim / 2;
    for (size_t i = 0; i < n_rows * pairs; i++) {
        const float cosine = state->cosines[i % pairs];
        const float sine = state->sines[i % pairs];
        const float first = rows[2 * i];
        const float second = rows[2 * i + 1];
        rows[2 * i] = first * cosine - second * sine;
        rows[2 * i + 1] = first * sine + second * cosine;
    }
}

/* ---- capturing ---- */

static size_t heads_of(const checkpoint *model, size_t kind)
{
    return kind == CAPTURED_QUERIES ? model->heads : model->kv_heads;
}

int forward_capture(forward_state *state, error_text *error)
{
    const checkpoint *model = state->model;
    for (size_t kind = 0; kind < N_CAPTURED; kind++) {
        size_t bytes; /* at most 2^60 but for the room */
        if (__builtin_mul_overflow((size_t)model->layers * heads_of(model, kind) * model->head_dim * sizeof(float), state->cache.room, &bytes) ||
            (state->captured[kind] = malloc(bytes)) == NULL)
            return error_set(error, "rows of %zu tokens: more than memory holds", state->cache.room);
    }
    return 0;
}

static void capture(const forward_state *state, size_t layer, size_t position)
{
    const checkpoint *model = state->model;
    const float *const rows[N_CAPTURED] = { state->key, state->value, state->query };
    for (size_t kind = 0; kind < N_CAPTURED && state->captured[kind] != NULL; kind++) {
        for (size_t h = 0; h < heads_of(model, kind); h++) {
            const size_t row = (layer * heads_of(model, kind) + h) * state->cache.room + position;
            memcpy(state->captured[kind] + row * model->head_dim, rows[kind] + h * model->head_dim, model->head_dim * sizeof(float));
        }
    }
}

/* ---- the model ---- */

static void attention(forward_state *state, size_t layer, size_t position)
{
    const checkpoint *model = state->model;
    const size_t dim = model->dim;
    const size_t q_dim = model->q_dim;
    const size_t kv_dim = model->kv_dim;
    const product inputs[] = { { state->query, model->wq + layer * q_dim * dim, q_dim },
                               { state->key, model->wk + layer * kv_dim * dim, kv_dim },
                               { state->value, model->wv + layer * kv_dim * dim, kv_dim } };
    const product output = { state->projected, model->wo + layer * dim * q_dim, dim };
    rms_norm(state->normed, state->x, model->rms_att + layer * dim, dim, model->rms_epsilon);
    multiply(state, inputs, 3, state->normed, dim);
    rotate(state, state->query, model->heads);
    rotate(state, state->key, model->kv_heads);
    capture(state, layer, position);
    cache_append(&state->cache, layer, position, state->key, state->value);
    cache_attend(&state->cache, layer, position, state->query, state->attended);
    multiply(state, &output, 1, state->attended, q_dim);
    add(state->x, state->projected, dim);
}

static void feed_forward(forward_state *state, size_t layer)
{
    const checkpoint *model = state->model;
    const size_t dim = model->dim;
    const size_t ffn = model->ffn;
    const size_t weights = layer * ffn * dim;
    const product inputs[] = { { state->gate, model->w1 + weights, ffn }, { state->up, model->w3 + weights, ffn } };
    const product output = { state->projected, model->w2 + weights, dim };
    rms_norm(state->normed, state->x, model->rms_ffn + layer * dim, dim, model->rms_epsilon);
    multiply(state, inputs, 2, state->normed, dim);
    for (size_t i = 0; i < ffn; i++)
        state->gate[i] = state->gate[i] / (1 + expf(-state->gate[i])) * state->up[i];
    multiply(state, &output, 1, state->gate, ffn);
    add(state->x, state->projected, dim);
}

const float *forward_token(forward_state *state, uint32_t token, size_t position)
{
    const checkpoint *model = state->model;
    const size_t dim = model->dim;
    const product output = { state->logits, model->classifier, model->vocabulary };
    memcpy(state->x, model->embedding + token * dim, dim * sizeof *state->x);
    set_angles(state, position);
    for (size_t layer = 0; layer < model->layers; layer++) {
        attention(state, layer, position);
        feed_forward(state, layer);
    }
    rms_norm(state->normed, state->x, model->rms_final, dim, model->rms_epsilon);
    multiply(state, &output, 1, state->normed, dim);
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
