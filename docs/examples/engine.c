/* SPDX-License-Identifier: MIT */
/* An engine's loop: two sequences share a batch, are read in at once and then decoded token by token, on two threads.
 *
 *     cc engine.c $(pkg-config --cflags --libs kvtile) -pthread */
#define _POSIX_C_SOURCE 200809L
#include <kvtile/step.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { LAYERS = 2, HEADS = 8, KV_HEADS = 2, DIM = 64, SEQUENCES = 2, BLOCKS = 8, PROMPT = 100, TOKENS = 150, WORKERS = 2 };

static float q[SEQUENCES * PROMPT][HEADS][DIM], k[SEQUENCES * PROMPT][KV_HEADS][DIM], v[SEQUENCES * PROMPT][KV_HEADS][DIM];
static float out[SEQUENCES * PROMPT][HEADS][DIM];
static pthread_barrier_t barrier;
static kvt_step step;

/* What a worker of the engine does in each layer. It returns after all have done their part. */
static void *work(void *number)
{
    const uint32_t worker = *(const uint32_t *)number;
    kvt_status (*const calls[])(const kvt_step *, uint32_t, uint32_t) = { kvt_step_append, kvt_step_attend, kvt_step_merge };
    for (int i = 0; i < 3; i++) {
        if (calls[i](&step, worker, WORKERS)) {
            char text[256];
            kvt_step_problem(&step, text, sizeof text);
            fprintf(stderr, "%s\n", text);
            exit(1);
        }
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

/* Stands for a model: some numbers for each new token. */
static void project(float *rows, uint32_t numbers)
{
    for (uint32_t i = 0; i < numbers; i++)
        rows[i] = (float)rand() / (float)RAND_MAX - 0.5f;
}

static kvt_pool pool_for(size_t page_bytes, size_t blocks)
{
    const size_t block = KV_HEADS * page_bytes;
    return (kvt_pool){ aligned_alloc(64, LAYERS * blocks * block), blocks, blocks * block, block, page_bytes };
}

int main(void)
{
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = KV_HEADS }, first_spec;
    kvt_layout layout, first;
    size_t open_bytes, workspace_bytes;
    if (kvt_preset_spec(KVT_PRESET_BALANCED, &spec, &first_spec) || kvt_layout_init(&layout, &spec) || kvt_layout_init(&first, &first_spec) ||
        kvt_view_open_bytes(&layout, KVT_F16, &open_bytes))
        return 1;
    kvt_view view = { .size = sizeof view,
                      .layout = &layout,
                      .first_layout = &first,
                      .layers = LAYERS,
                      .open_dtype = KVT_F16,
                      .pages = pool_for(layout.page_bytes, BLOCKS),
                      .first_pages = pool_for(first.page_bytes, SEQUENCES),
                      .open_pages = pool_for(open_bytes, 2 * SEQUENCES) };
    const uint32_t tables[SEQUENCES][3] = { { 0, 5, 2 }, { 1, 3, 7 } }; /* of block ids: any order will do */
    kvt_sequence batch[SEQUENCES] = { { .blocks = tables[0], .n_blocks = 3, .open = { 0, 1 } },
                                      { .blocks = tables[1], .n_blocks = 3, .open = { 2, 3 } } };
    const kvt_step_limits limits = { .sequences = SEQUENCES, .tokens = TOKENS, .fresh = SEQUENCES * PROMPT, .heads = HEADS, .workers = WORKERS };
    if (kvt_step_workspace(&view, &limits, &workspace_bytes))
        return 1;
    workspace_bytes = (workspace_bytes + 63) / 64 * 64;
    step = (kvt_step){ .size = sizeof step, .view = &view, .sequences = batch, .n_sequences = SEQUENCES, .heads = HEADS, .scale = 0.125f };
    step.q = q, step.k = k, step.v = v, step.out = out, step.dtype = step.out_dtype = KVT_F32;
    step.workspace = aligned_alloc(64, workspace_bytes), step.workspace_bytes = workspace_bytes;
    pthread_barrier_init(&barrier, NULL, WORKERS);
    for (uint32_t stored = 0, fresh = PROMPT; stored < TOKENS; stored += fresh, fresh = 1) {
        for (int s = 0; s < SEQUENCES; s++)
            batch[s].stored = stored, batch[s].fresh = fresh;
        for (step.layer = 0; step.layer < LAYERS; step.layer++) {
            project(&q[0][0][0], SEQUENCES * fresh * HEADS * DIM);
            project(&k[0][0][0], SEQUENCES * fresh * KV_HEADS * DIM);
            project(&v[0][0][0], SEQUENCES * fresh * KV_HEADS * DIM);
            uint32_t numbers[WORKERS] = { 0, 1 }; /* an engine keeps its threads; here each layer starts one */
            pthread_t other;
            pthread_create(&other, NULL, work, &numbers[1]);
            work(&numbers[0]);
            pthread_join(other, NULL);
        }
    }
    printf("%d tokens of %d sequences in %zu bytes a page; the last result begins with %g\n", TOKENS, SEQUENCES, layout.page_bytes,
           (double)out[0][0][0]);
    free(view.pages.base), free(view.first_pages.base), free(view.open_pages.base), free(step.workspace);
    return 0;
}
