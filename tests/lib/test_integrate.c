/* SPDX-License-Identifier: MIT */
/* The code of docs/integrate.md, as it stands there: two sequences of a batch decode, and what they get is what plain attention gives, about. */
#define _POSIX_C_SOURCE 200809L /* pthread_barrier_t */
#include <kvtile/step.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_DIM = 64, KV_HEADS = 2, HEADS = 4, LAYERS = 2, BLOCKS = 8, SEQUENCES = 2, MOST_TOKENS = 200, MOST_NEW = 200, WORKERS = 2 };

static kvt_pool pool_of(size_t page_bytes, size_t heads, size_t blocks)
{
    kvt_pool pool = { .blocks = blocks, .head_stride = page_bytes, .block_stride = page_bytes * heads, .layer_stride = page_bytes * heads * blocks };
    pool.base = malloc(pool.layer_stride * LAYERS);
    return pool;
}

static void barrier_wait(pthread_barrier_t *barrier)
{
    pthread_barrier_wait(barrier);
}

/* What the engine has of one layer's step. */
typedef struct layer_work {
    kvt_view view;
    uint32_t layer, n, worker;
    const kvt_sequence *batch;
    const uint16_t *q, *k, *v;
    uint16_t *out;
    float scale;
    void *workspace;
    size_t workspace_bytes;
    pthread_barrier_t *barrier;
    kvt_status status;
} layer_work;

static void *do_layer(void *argument)
{
    layer_work *work = argument;
    const kvt_view view = work->view;
    const uint32_t layer = work->layer, n = work->n, worker = work->worker;
    const kvt_sequence *const batch = work->batch;
    const uint16_t *const q = work->q, *const k = work->k, *const v = work->v;
    uint16_t *const out = work->out;
    const float scale = work->scale;
    void *const workspace = work->workspace;
    const size_t workspace_bytes = work->workspace_bytes;
    pthread_barrier_t *const barrier = work->barrier;
#include "integrate_step.inc"
    work->status = status;
    return NULL;
}

static uint16_t bf16_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}
static float float_of(uint16_t bf16)
{
    const uint32_t bits = (uint32_t)bf16 << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The row of a token: no two are alike. */
static void make_row(uint16_t *row, unsigned kind, unsigned sequence, unsigned token, unsigned head)
{
    for (unsigned c = 0; c < HEAD_DIM; c++)
        row[c] = bf16_of(sinf((float)(kind * 37 + sequence * 11 + token * 7 + head * 5 + 1) * (float)(c + 1) * 0.37f));
}

static float plain(unsigned sequence, unsigned token, unsigned head, unsigned channel)
{
    double sum = 0, out = 0;
    uint16_t q[HEAD_DIM], row[HEAD_DIM];
    make_row(q, 0, sequence, token, head);
    for (unsigned t = 0; t <= token; t++) {
        double logit = 0;
        make_row(row, 1, sequence, t, head / 2);
        for (unsigned c = 0; c < HEAD_DIM; c++)
            logit += (double)(float_of(row[c]) * float_of(q[c]));
        make_row(row, 2, sequence, t, head / 2);
        const double weight = exp(logit / 8);
        sum += weight;
        out += weight * (double)float_of(row[channel]);
    }
    return (float)(out / sum);
}

static int fail(const char *what)
{
    fprintf(stderr, "%s\n", what);
    return 1;
}

int main(void)
{
#include "integrate_setup.inc"
    if (workspace == NULL || view.pages.base == NULL || view.first_pages.base == NULL || view.open_pages.base == NULL)
        return fail("out of memory");
    static const uint32_t blocks[SEQUENCES][4] = { { 0, 7, 3, 5 }, { 1, 2, 6, 4 } };
    kvt_sequence batch[SEQUENCES];
    for (uint32_t i = 0; i < SEQUENCES; i++)
        batch[i] = (kvt_sequence){ .blocks = blocks[i], .n_blocks = 4, .open = { 2 * i, 2 * i + 1 } };
    static uint16_t q[MOST_NEW * HEADS * HEAD_DIM], k[MOST_NEW * KV_HEADS * HEAD_DIM], v[MOST_NEW * KV_HEADS * HEAD_DIM],
        out[MOST_NEW * HEADS * HEAD_DIM];
    static const uint32_t fresh[][SEQUENCES] = { { 100, 90 }, { 1, 1 }, { 30, 1 }, { 1, 0 } };
    double error = 0, energy = 0;
    for (unsigned round = 0; round < sizeof fresh / sizeof *fresh; round++) {
        unsigned token = 0;
        for (unsigned i = 0; i < SEQUENCES; i++) {
            batch[i].fresh = fresh[round][i];
            for (unsigned t = 0; t < batch[i].fresh; t++, token++)
                for (unsigned h = 0; h < HEADS; h++) {
                    make_row(q + (token * HEADS + h) * HEAD_DIM, 0, i, (unsigned)batch[i].stored + t, h);
                    if (h < KV_HEADS) {
                        make_row(k + (token * KV_HEADS + h) * HEAD_DIM, 1, i, (unsigned)batch[i].stored + t, h);
                        make_row(v + (token * KV_HEADS + h) * HEAD_DIM, 2, i, (unsigned)batch[i].stored + t, h);
                    }
                }
        }
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            pthread_barrier_t barrier;
            pthread_t threads[WORKERS];
            layer_work works[WORKERS];
            if (pthread_barrier_init(&barrier, NULL, WORKERS))
                return fail("pthread_barrier_init");
            for (uint32_t w = 0; w < WORKERS; w++) {
                works[w] = (layer_work){ view, layer, SEQUENCES, w, batch, q, k, v, out, 0.125f, workspace, workspace_bytes, &barrier, KVT_OK };
                if (pthread_create(&threads[w], NULL, do_layer, &works[w]))
                    return fail("pthread_create");
            }
            for (uint32_t w = 0; w < WORKERS; w++) {
                if (pthread_join(threads[w], NULL))
                    return fail("pthread_join");
                if (works[w].status)
                    return fail(kvt_status_text(works[w].status));
            }
            pthread_barrier_destroy(&barrier);
        }
        token = 0;
        for (unsigned i = 0; i < SEQUENCES; i++) {
            for (unsigned t = 0; t < batch[i].fresh; t++, token++)
                for (unsigned h = 0; h < HEADS; h++)
                    for (unsigned c = 0; c < HEAD_DIM; c += 9) {
                        const double right = (double)plain(i, (unsigned)batch[i].stored + t, h, c);
                        const double got = (double)float_of(out[(token * HEADS + h) * HEAD_DIM + c]);
                        error += (got - right) * (got - right);
                        energy += right * right;
                    }
            batch[i].stored += batch[i].fresh;
        }
    }
    printf("relative error %.4f\n", sqrt(error / energy));
    free(workspace);
    free(view.pages.base);
    free(view.first_pages.base);
    free(view.open_pages.base);
    return sqrt(error / energy) < 0.05 ? 0 : fail("results are not those of attention");
}
