#include "tools/engine/cache.h"

#include "tools/engine/arithmetic.h"
#include "tools/engine/layer.h"

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

/* ---- kvtile ---- */

/* One token's step of a layer. */
typedef struct attend_job {
    const kv_cache *cache;
    size_t layer, position;
    const float *queries;
    float *out;
    kvt_sequence sequence;
    kvt_step step;
} attend_job;

/* All arguments were checked when the cache was opened: anything but KVT_OK is a bug. */
static void must(const kvt_step *step, kvt_status status)
{
    if (status != KVT_OK) {
        char why[200] = "";
        (void)kvt_step_problem(step, why, sizeof why);
        fprintf(stderr, "kvtile-engine: %s (%s)\n", why, kvt_status_text(status));
        abort();
    }
}

/* What the token at `position` is to a layer; the job has to stay where it is. */
static void make_step(attend_job *job, const float *keys, const float *values)
{
    const kv_cache *cache = job->cache;
    const checkpoint *model = cache->model;
    job->sequence = (kvt_sequence){ .blocks = cache->blocks, .n_blocks = cache->n_blocks, .open = { 0, 1 }, .stored = job->position, .fresh = 1 };
    job->step = (kvt_step){ .size = sizeof(kvt_step),
                            .view = &cache->view,
                            .layer = (uint32_t)job->layer,
                            .sequences = &job->sequence,
                            .n_sequences = 1,
                            .heads = model->heads,
                            .dtype = KVT_F32,
                            .out_dtype = KVT_F32,
                            .q = job->queries,
                            .k = keys,
                            .v = values,
                            .out = job->out,
                            .scale = layer_attention_scale(model),
                            .window = model->kinds[job->layer].window,
                            .workspace = cache->workspace,
                            .workspace_bytes = cache->workspace_bytes };
}

static void append_share(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    must(&job->step, kvt_step_append(&job->step, worker, workers));
}
static void attend_share(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    must(&job->step, kvt_step_attend(&job->step, worker, workers));
}
static void merge_share(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    must(&job->step, kvt_step_merge(&job->step, worker, workers));
}

/* Blocks of all layers, [layer][block][kv head], at `*at` of the cache's memory, or only counted while there is none. */
static kvt_pool place_blocks(const kv_cache *cache, size_t page_bytes, size_t blocks, size_t *at)
{
    const checkpoint *model = cache->model;
    const size_t block = page_bytes * model->kv_heads;
    unsigned char *base = cache->memory != NULL ? (unsigned char *)cache->memory + *at : NULL;
    *at += block * blocks * model->layers;
    return (kvt_pool){ .base = base, .blocks = blocks, .layer_stride = block * blocks, .block_stride = block, .head_stride = page_bytes };
}

static void place_pools(kv_cache *cache)
{
    kvt_view *view = &cache->view;
    size_t at = 0;
    view->pages = place_blocks(cache, cache->layout.page_bytes, cache->n_blocks, &at);
    if (view->first_layout != NULL)
        view->first_pages = place_blocks(cache, cache->first.page_bytes, 1, &at);
    if (view->open_dtype)
        view->open_pages = place_blocks(cache, cache->open_bytes, 2, &at);
    cache->bytes = at;
}

static kvt_status choose_view(kv_cache *cache, const cache_way *way)
{
    const checkpoint *model = cache->model;
    const kvt_side_options options = { .rotation = way->rotation, .centring = way->centring };
    kvt_spec spec = { .size = sizeof spec,
                      .k_scheme = way->k_scheme,
                      .v_scheme = way->v_scheme,
                      .k_dim = model->head_dim,
                      .v_dim = model->head_dim,
                      .kv_heads = model->kv_heads,
                      .k_options = options,
                      .v_options = options };
    size_t layer_bytes;
    kvt_status status = kvt_layout_init(&cache->layout, &spec);
    spec.k_scheme = spec.v_scheme = way->first;
    if (status == KVT_OK && way->first)
        status = kvt_layout_init(&cache->first, &spec);
    if (status == KVT_OK && way->open)
        status = kvt_view_open_bytes(&cache->layout, way->open, &cache->open_bytes);
    if (status == KVT_OK)
        status = kvt_layout_bytes(&cache->layout, cache->room, &layer_bytes);
    if (status == KVT_OK && layer_bytes > SIZE_MAX / 64 / model->layers)
        status = KVT_ERR_OVERFLOW;
    if (status != KVT_OK)
        return status;
    cache->n_blocks = (cache->room + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS;
    cache->view = (kvt_view){ .size = sizeof(kvt_view),
                              .layout = &cache->layout,
                              .first_layout = way->first ? &cache->first : NULL,
                              .open_dtype = way->open,
                              .layers = model->layers };
    place_pools(cache);
    return KVT_OK;
}

static int open_pages(kv_cache *cache, const cache_way *way, error_text *error)
{
    const checkpoint *model = cache->model;
    kvt_status status = choose_view(cache, way);
    if (status != KVT_OK)
        return error_set(error, "head_dim is %" PRIu32 " with %" PRIu32 " kv heads: %s", model->head_dim, model->kv_heads, kvt_status_text(status));
    cache->token_bytes = cache->layout.page_bytes / KVT_PAGE_TOKENS * model->layers * model->kv_heads;
    cache->bits = 8.0 * (double)cache->layout.page_bytes / (2.0 * KVT_PAGE_TOKENS * model->head_dim);
    cache->memory = aligned_alloc(LINE, (cache->bytes + LINE - 1) / LINE * LINE);
    cache->blocks = malloc(cache->n_blocks * sizeof *cache->blocks);
    cache->rows = malloc(2 * (size_t)KVT_PAGE_TOKENS * model->kv_dim * sizeof *cache->rows);
    if (cache->memory == NULL || cache->blocks == NULL || cache->rows == NULL)
        return error_set(error, "KV cache of %zu tokens takes %zu bytes: more than there is", cache->room, cache->bytes);
    place_pools(cache);
    for (size_t i = 0; i < cache->n_blocks; i++)
        cache->blocks[i] = (uint32_t)(way->first && i > 0 ? i - 1 : i); /* the first page has a pool of its own */

    const kvt_step_limits limits = {
        .sequences = 1, .tokens = cache->room, .fresh = 1, .heads = model->heads, .workers = pool_workers(cache->threads)
    };
    status = kvt_step_workspace(&cache->view, &limits, &cache->workspace_bytes);
    if (status != KVT_OK)
        return error_set(error, "heads is %" PRIu32 " with %" PRIu32 " kv heads: %s", model->heads, model->kv_heads, kvt_status_text(status));
    cache->workspace = aligned_alloc(LINE, (cache->workspace_bytes + LINE - 1) / LINE * LINE);
    return cache->workspace != NULL ? 0 : error_set(error, "attention over %zu tokens: out of memory", cache->room);
}

/* ---- the reference ---- */

/* The heads that share a KV head, as many at a time as there are lanes. */
static void attend_group(const attend_job *job, size_t kv_head, float *scratch)
{
    const kv_cache *cache = job->cache;
    const checkpoint *model = cache->model;
    const size_t group = model->heads / model->kv_heads, dim = model->head_dim, first = kv_head * group;
    const size_t rows = (job->layer * model->kv_heads + kv_head) * cache->room * dim;
    for (size_t g = 0; g < group; g += ARITHMETIC_LANES) {
        arithmetic_attention of = { .n = group - g < ARITHMETIC_LANES ? group - g : ARITHMETIC_LANES,
                                    .head_dim = dim,
                                    .scale = layer_attention_scale(model),
                                    .kept = { cache->keys + rows, cache->values + rows },
                                    .open = { cache->keys + rows, cache->values + rows },
                                    .scratch = scratch };
        for (size_t i = 0; i < of.n; i++) {
            of.queries[i] = job->queries + (first + g + i) * dim;
            of.out[i] = job->out + (first + g + i) * dim;
            of.begin[i] = layer_begin(model, job->layer, job->position);
            of.end[i] = of.kept_end[0][i] = of.kept_end[1][i] = job->position + 1;
        }
        arithmetic_attend(&of);
    }
}

static void attend_reference(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    const checkpoint *model = job->cache->model;
    float *scratch = job->cache->scratch + worker * arithmetic_attention_scratch(job->cache->room, model->head_dim);
    for (size_t h = pool_first(model->kv_heads, worker, workers); h < pool_first(model->kv_heads, worker + 1, workers); h++)
        attend_group(job, h, scratch);
}

static int open_reference(kv_cache *cache, error_text *error)
{
    const checkpoint *model = cache->model;
    cache->token_bytes = 2 * (size_t)model->layers * model->kv_dim * sizeof(float);
    cache->bits = 8 * sizeof(float);
    if (!__builtin_mul_overflow(cache->token_bytes, cache->room, &cache->bytes)) {
        cache->keys = malloc(cache->bytes / 2);
        cache->values = malloc(cache->bytes / 2);
    }
    cache->scratch = aligned_alloc(LINE, pool_workers(cache->threads) * arithmetic_attention_scratch(cache->room, model->head_dim) * sizeof(float));
    if (cache->keys == NULL || cache->values == NULL || cache->scratch == NULL)
        return error_set(error, "KV cache of %zu tokens: more than memory holds", cache->room);
    return 0;
}

/* ---- both ---- */

int cache_open(kv_cache *cache, const checkpoint *model, const cache_way *way, size_t tokens, pool *threads, error_text *error)
{
    *cache = (kv_cache){ .model = model, .threads = threads, .reference = way->reference, .room = tokens };
    const int result = way->reference ? open_reference(cache, error) : open_pages(cache, way, error);
    if (result != 0)
        cache_close(cache);
    return result;
}

void cache_close(kv_cache *cache)
{
    free(cache->memory);
    free(cache->blocks);
    free(cache->workspace);
    free(cache->rows);
    free(cache->keys);
    free(cache->values);
    free(cache->scratch);
    *cache = (kv_cache){ 0 };
}

static bool are_finite(const float *rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(rows[i]))
            return false;
    return true;
}

/* Whether what is stored of a layer's token, and of its whole page where it is the last, is finite. Infinite keys can have weights of 0, so what
 * comes of them need not show it. */
static bool are_kept(const kv_cache *cache, const kvt_sequence *sequence, size_t layer)
{
    const checkpoint *model = cache->model;
    kvt_sequence stored = *sequence;
    stored.stored++;
    const size_t n = cache->view.open_dtype && stored.stored % KVT_PAGE_TOKENS == 0 ? KVT_PAGE_TOKENS : 1, row = model->head_dim * sizeof(float);
    const kvt_view_rows rows = { .size = sizeof rows,
                                 .view = &cache->view,
                                 .sequence = &stored,
                                 .first_token = stored.stored - n,
                                 .n_tokens = n,
                                 .first_layer = (uint32_t)layer,
                                 .layers = 1,
                                 .rows = cache->rows,
                                 .dtype = KVT_F32,
                                 .side_stride = (ptrdiff_t)(n * model->kv_heads * row),
                                 .token_stride = (ptrdiff_t)(model->kv_heads * row),
                                 .head_stride = (ptrdiff_t)row };
    if (kvt_view_read(&rows, 0, 1) != KVT_OK)
        abort();
    return are_finite(cache->rows, 2 * n * model->kv_dim);
}

void cache_append(kv_cache *cache, size_t layer, size_t position, const float *keys, const float *values)
{
    const checkpoint *model = cache->model;
    const size_t row_bytes = model->head_dim * sizeof(float);
    if (!cache->reference) {
        attend_job job = { .cache = cache, .layer = layer, .position = position };
        make_step(&job, keys, values);
        pool_run(cache->threads, append_share, &job);
        cache->strange = cache->strange || !are_finite(keys, model->kv_dim) || !are_finite(values, model->kv_dim);
        cache->lost = cache->lost || (!cache->strange && !are_kept(cache, &job.sequence, layer));
        return;
    }
    for (size_t head = 0; head < model->kv_heads; head++) {
        const size_t row = ((layer * model->kv_heads + head) * cache->room + position) * model->head_dim;
        memcpy(cache->keys + row, keys + head * model->head_dim, row_bytes);
        memcpy(cache->values + row, values + head * model->head_dim, row_bytes);
    }
    if (cache->appended != NULL)
        cache->appended(cache->owner, layer, position);
}

void cache_attend(const kv_cache *cache, size_t layer, size_t position, const float *queries, float *out)
{
    attend_job job = { .cache = cache, .layer = layer, .position = position, .queries = queries, .out = out };
    if (cache->reference) {
        pool_run(cache->threads, attend_reference, &job);
        return;
    }
    make_step(&job, NULL, NULL);
    pool_run(cache->threads, attend_share, &job);
    pool_run(cache->threads, merge_share, &job);
}
