/* SPDX-License-Identifier: MIT */
/* The cache's code of docs/integrate.md, as it stands there: what steps give with it is what they give without. */
#include <kvtile/cache.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD_DIM = 64, KV_HEADS = 2, HEADS = 4, LAYERS = 2, BLOCKS = 8, SEQUENCES = 2, MOST_TOKENS = 200 };

static void *memory, *step_workspace;
static size_t step_bytes;
static uint16_t rows[MOST_TOKENS * HEADS * HEAD_DIM], out[LAYERS][MOST_TOKENS * HEADS * HEAD_DIM];

static void run_layer(const kvt_view *view, uint32_t layer, const kvt_sequence *batch, uint32_t n)
{
    const kvt_step step = { .size = sizeof step,
                            .view = view,
                            .layer = layer,
                            .sequences = batch,
                            .n_sequences = n,
                            .heads = HEADS,
                            .dtype = KVT_BF16,
                            .out_dtype = KVT_BF16,
                            .q = rows,
                            .k = rows + 64,
                            .v = rows + 128,
                            .out = out[layer],
                            .scale = 0.125f,
                            .workspace = step_workspace,
                            .workspace_bytes = step_bytes };
    if (kvt_step_append(&step, 0, 1) || kvt_step_attend(&step, 0, 1) || kvt_step_merge(&step, 0, 1))
        abort();
}

/* clang takes what stands behind an #include for a part of the piece's last `if`. */
#pragma GCC diagnostic ignored "-Wmisleading-indentation"

static int take(kvt_cache *cache, uint32_t id, uint32_t fresh)
{
#include "integrate_cache_step.inc"
    return 0;
}

static int shift(kvt_cache *cache, uint32_t id, void *workspace)
{
#include "integrate_cache_shift.inc"
    return 0;
}

int main(void)
{
#include "integrate_cache_setup.inc"
    const kvt_step_limits limits = { 1, MOST_TOKENS, MOST_TOKENS, HEADS, 1 };
    if (kvt_step_workspace(kvt_cache_view(cache, 0), &limits, &step_bytes))
        return 1;
    step_workspace = aligned_alloc(64, (step_bytes + 63) / 64 * 64);
    void *workspace = aligned_alloc(64, (kvt_cache_work_bytes(cache) + 63) / 64 * 64);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        rows[i] = (uint16_t)(0x3e80 + i * 7919 % 0x100 + (i * 31 % 2 << 15)); /* about 0.25 to 1 */
    uint32_t id;
    if (kvt_cache_new(cache, &id) || take(cache, id, 130) || take(cache, id, 1))
        return 1;
    /* The same without a cache. */
    kvt_view view = *kvt_cache_view(cache, 0);
    kvt_pool *const pools[] = { &view.pages, &view.first_pages, &view.open_pages };
    for (int i = 0; i < 3; i++)
        pools[i]->base = malloc(pools[i]->blocks * pools[i]->block_stride);
    static const uint32_t blocks[] = { 1, 5, 3 };
    kvt_sequence alone = { .blocks = blocks, .n_blocks = 3, .open = { 2, 0 }, .fresh = 130 };
    static uint16_t with[LAYERS][HEADS * HEAD_DIM];
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        memcpy(with[layer], out[layer], sizeof with[layer]);
    for (int round = 0; round < 2; round++) {
        for (uint32_t layer = 0; layer < LAYERS; layer++)
            run_layer(&view, layer, &alone, 1);
        alone.stored += alone.fresh;
        alone.fresh = 1;
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++)
        if (memcmp(with[layer], out[layer], sizeof with[layer]) != 0) {
            fprintf(stderr, "layer %u: other results than without the cache\n", layer);
            return 1;
        }
    if (shift(cache, id, workspace) || kvt_cache_tokens(cache, id) != 131 - 64) {
        char why[200];
        kvt_cache_problem(cache, id, why, sizeof why);
        fprintf(stderr, "the shift: %s\n", why);
        return 1;
    }
    for (int i = 0; i < 3; i++)
        free(pools[i]->base);
    free(memory);
    free(step_workspace);
    free(workspace);
    return 0;
}
