/* SPDX-License-Identifier: MIT */
#include "tools/engine/layer.h"

#include "tools/engine/arithmetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

static size_t largest(const size_t *numbers, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = numbers[i] > most ? numbers[i] : most;
    return most;
}

int layer_open(layer_rows *rows, const checkpoint *model, size_t room, pool *threads)
{
    *rows = (layer_rows){ .model = model, .threads = threads, .room = room };
    const size_t inputs[] = { model->dim, model->q_dim, model->ffn };
    const struct {
        float **place;
        size_t n;
    } all[] = {
        { &rows->x, room * model->dim },
        { &rows->normed, room * model->dim },
        { &rows->projected, room * model->dim },
        { &rows->query, room * model->q_dim },
        { &rows->attended, room * model->q_dim },
        { &rows->key, room * model->kv_dim },
        { &rows->value, room * model->kv_dim },
        { &rows->gate, room * model->ffn },
        { &rows->up, room * model->ffn },
        { &rows->cosines, room * 2 * (model->head_dim / 2) },
        { &rows->sines, room * 2 * (model->head_dim / 2) },
        { &rows->scratch, room > 1 ? arithmetic_product_scratch(largest(inputs, 3), room) : 0 },
    };
    const size_t per_line = LINE / sizeof *rows->memory;
    size_t n = 0; /* widths are at most 2^20, and tokens here a few */
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        n += (all[i].n + per_line - 1) / per_line * per_line;
    rows->memory = aligned_alloc(LINE, n * sizeof *rows->memory);
    float *next = rows->memory;
    for (size_t i = 0; next != NULL && i < sizeof all / sizeof *all; i++) {
        *all[i].place = all[i].n > 0 ? next : NULL;
        next += (all[i].n + per_line - 1) / per_line * per_line;
    }
    return next != NULL ? 0 : -1;
}

void layer_close(layer_rows *rows)
{
    free(rows->memory);
    *rows = (layer_rows){ 0 };
}

/* ---- products ---- */

typedef struct product_job {
    const arithmetic_product *products;
    const size_t *rows;
    size_t n;
} product_job;

static void multiply_share(void *data, unsigned worker, unsigned workers)
{
    const product_job *job = data;
    for (size_t i = 0; i < job->n; i++)
        arithmetic_multiply(&job->products[i], pool_first(job->rows[i], worker, workers), pool_first(job->rows[i], worker + 1, workers));
}

typedef struct product {
    float *out;
    const float *matrix;
    size_t rows;
} product;

enum { MOST_PRODUCTS = 3 };

/* Several products of the same inputs. */
static void multiply_products(const layer_rows *rows, const product *products, size_t n_products, const float *in, size_t columns, size_t n)
{
    arithmetic_product all[MOST_PRODUCTS];
    size_t n_rows[MOST_PRODUCTS];
    for (size_t i = 0; i < n_products; i++) {
        all[i] = (arithmetic_product){ .out = products[i].out,
                                       .out_stride = products[i].rows,
                                       .matrix = products[i].matrix,
                                       .in = in,
                                       .columns = columns,
                                       .n = n,
                                       .scratch = n > 1 ? rows->scratch : NULL };
        n_rows[i] = products[i].rows;
    }
    product_job job = { all, n_rows, n_products };
    if (all[0].scratch != NULL)
        arithmetic_prepare(&all[0]);
    if (rows->threads != NULL)
        pool_run(rows->threads, multiply_share, &job);
    else
        multiply_share(&job, 0, 1);
}

/* ---- rows ---- */

static void add_term(float *sum, const float *term, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += term[i];
}

/* A vector, if there is one, to each of n rows. */
static void add_bias(float *to, const float *bias, uint32_t width, size_t n)
{
    for (size_t i = 0; i < n && width > 0; i++)
        add_term(to + i * width, bias, width);
}

static void norm(float *out, const float *in, const float *weight, size_t width, size_t n, float epsilon)
{
    for (size_t i = 0; i < n; i++, out += width, in += width) {
        const float scale = 1 / sqrtf(arithmetic_dot(in, in, width) / (float)width + epsilon);
        for (size_t c = 0; c < width; c++)
            out[c] = weight[c] * (scale * in[c]);
    }
}

/* The angles of RoPE depend on the position and the pair of channels. In double: what libraries differ in is lost in rounding. */
void layer_set_angles(const checkpoint *model, size_t first, size_t n, float *cosines, float *sines)
{
    const size_t both = 2 * (model->head_dim / 2);
    const double scale = model->rope_scale != 0 ? (double)model->rope_scale : 1;
    for (size_t i = 0; i < n * both; i++) {
        const double angle = (double)(first + i / both) * model->frequencies[i % both];
        cosines[i] = (float)(cos(angle) * scale);
        sines[i] = (float)(sin(angle) * scale);
    }
}

/* Turns each pair of neighbouring channels of n rows of `heads` heads. */
static void rotate_pairs(const layer_rows *rows, size_t layer, float *to, size_t heads)
{
    const checkpoint *model = rows->model;
    const size_t pairs = model->head_dim / 2;
    const layer_rope rope = model->kinds[layer].rope;
    for (size_t i = 0; rope != ROPE_NONE && i < rows->n * heads; i++, to += model->head_dim) {
        const float *cosines = rows->cosines + (2 * (i / heads) + rope) * pairs, *sines = rows->sines + (2 * (i / heads) + rope) * pairs;
        for (size_t j = 0; j < pairs; j++) {
            const float first = to[2 * j], second = to[2 * j + 1];
            to[2 * j] = first * cosines[j] - second * sines[j];
            to[2 * j + 1] = first * sines[j] + second * cosines[j];
        }
    }
}

/* ---- the layer ---- */

void layer_embed(layer_rows *rows, const uint32_t *tokens)
{
    const checkpoint *model = rows->model;
    const size_t dim = model->dim, n = rows->n;
    for (size_t i = 0; i < n; i++)
        memcpy(rows->x + i * dim, model->embedding + tokens[i] * dim, dim * sizeof *rows->x);
    for (size_t i = 0; model->embedding_scale != 0 && i < n * dim; i++)
        rows->x[i] *= model->embedding_scale;
}

void layer_project(layer_rows *rows, size_t layer)
{
    const checkpoint *model = rows->model;
    const size_t dim = model->dim, q_dim = model->q_dim, kv_dim = model->kv_dim, n = rows->n, head_dim = model->head_dim;
    const product inputs[] = { { rows->query, model->wq + layer * q_dim * dim, q_dim },
                               { rows->key, model->wk + layer * kv_dim * dim, kv_dim },
                               { rows->value, model->wv + layer * kv_dim * dim, kv_dim } };
    norm(rows->normed, rows->x, model->rms_att + layer * dim, dim, n, model->rms_epsilon);
    multiply_products(rows, inputs, 3, rows->normed, dim, n);
    add_bias(rows->query, model->bq + layer * model->q_bias, model->q_bias, n);
    add_bias(rows->key, model->bk + layer * model->kv_bias, model->kv_bias, n);
    add_bias(rows->value, model->bv + layer * model->kv_bias, model->kv_bias, n);
    if (model->head_norm > 0) {
        norm(rows->query, rows->query, model->rms_q + layer * head_dim, head_dim, n * model->heads, model->rms_epsilon);
        norm(rows->key, rows->key, model->rms_k + layer * head_dim, head_dim, n * model->kv_heads, model->rms_epsilon);
    }
    rotate_pairs(rows, layer, rows->query, model->heads);
    rotate_pairs(rows, layer, rows->key, model->kv_heads);
}

/* What a part of the layer gave, `projected`, into x. */
static void add_residual(layer_rows *rows, const float *after)
{
    const checkpoint *model = rows->model;
    if (model->after_norm > 0)
        norm(rows->projected, rows->projected, after, model->dim, rows->n, model->rms_epsilon);
    add_term(rows->x, rows->projected, rows->n * model->dim);
}

void layer_finish(layer_rows *rows, size_t layer)
{
    const checkpoint *model = rows->model;
    const size_t dim = model->dim, ffn = model->ffn, n = rows->n, weights = layer * ffn * dim;
    const product attended = { rows->projected, model->wo + layer * dim * model->q_dim, dim };
    multiply_products(rows, &attended, 1, rows->attended, model->q_dim, n);
    add_residual(rows, model->rms_wo + layer * model->after_norm);

    const product inputs[] = { { rows->gate, model->w1 + weights, ffn }, { rows->up, model->w3 + weights, ffn } };
    const product output = { rows->projected, model->w2 + weights, dim };
    norm(rows->normed, rows->x, model->rms_ffn + layer * dim, dim, n, model->rms_epsilon);
    multiply_products(rows, inputs, 2, rows->normed, dim, n);
    if (model->gelu)
        arithmetic_gelu(rows->gate, rows->up, n * ffn);
    else
        arithmetic_silu(rows->gate, rows->up, n * ffn);
    multiply_products(rows, &output, 1, rows->gate, ffn, n);
    add_residual(rows, model->rms_w2 + layer * model->after_norm);
}

void layer_norm_last(layer_rows *rows)
{
    norm(rows->normed, rows->x, rows->model->rms_final, rows->model->dim, rows->n, rows->model->rms_epsilon);
}

void layer_predict(layer_rows *rows, const float *normed, size_t n, float *logits)
{
    const product output = { logits, rows->model->classifier, rows->model->vocabulary };
    multiply_products(rows, &output, 1, normed, rows->model->dim, n);
}

float layer_attention_scale(const checkpoint *model)
{
    return model->attention_scale != 0 ? model->attention_scale : 1 / sqrtf((float)model->head_dim);
}

size_t layer_begin(const checkpoint *model, size_t layer, size_t position)
{
    const uint32_t window = model->kinds[layer].window;
    return window > 0 && position + 1 > window ? position + 1 - window : 0;
}
