#include "tools/engine/cache.h"

#include "tools/engine/dot.h"

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64 };

/* All arguments were checked when the cache was opened: anything but KVT_OK is a bug. */
static void must(kvt_status status)
{
    if (status != KVT_OK) {
        fprintf(stderr, "kvtile-engine: %s\n", kvt_status_text(status));
        abort();
    }
}

/* ---- kvtile ---- */

/* What is asked of one KV head. `segment` must live as long as the result. */
static kvt_attention ask(const kv_cache *cache, kvt_segment *segment, size_t layer, size_t head, size_t position, const float *queries, float *out)
{
    const checkpoint *model = cache->model;
    const uint32_t group = model->heads / model->kv_heads;
    const size_t row_bytes = model->head_dim * sizeof(float);
    *segment = (kvt_segment){ .layout = &cache->layout, .pages = cache->pages[layer * model->kv_heads + head] };
    return (kvt_attention){
        .size = sizeof(kvt_attention),
        .segments = segment,
        .n_segments = 1,
        .end = position + 1,
        .position = position,
        .group = group,
        .query_tokens = 1,
        .queries = queries != NULL ? queries + head * group * model->head_dim : NULL,
        .query_dtype = KVT_F32,
        .query_head_stride = (ptrdiff_t)row_bytes,
        .out = out != NULL ? out + head * group * model->head_dim : NULL,
        .out_dtype = KVT_F32,
        .out_head_stride = (ptrdiff_t)row_bytes,
        .scale = 1 / sqrtf((float)model->head_dim),
    };
}

typedef struct attend_job {
    const kv_cache *cache;
    size_t layer, position;
    const float *queries;
    float *out;
    size_t chunks;
} attend_job;

static unsigned char *workspace_of(const kv_cache *cache, unsigned worker)
{
    return cache->workspaces + worker * cache->workspace_stride;
}
static unsigned char *partials_of(const kv_cache *cache, size_t head)
{
    return cache->partials + head * cache->sizes.chunks * cache->sizes.partial_bytes;
}

static void attend_heads(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    const kv_cache *cache = job->cache;
    const size_t heads = cache->model->kv_heads;
    for (size_t head = pool_first(heads, worker, workers); head < pool_first(heads, worker + 1, workers); head++) {
        kvt_segment segment;
        const kvt_attention asked = ask(cache, &segment, job->layer, head, job->position, job->queries, job->out);
        must(kvt_attend(&asked, workspace_of(cache, worker)));
    }
}

static void attend_chunks(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    const kv_cache *cache = job->cache;
    size_t first, n;
    must(kvt_attend_plan(cache->model->kv_heads, job->chunks, workers, worker, &first, &n));
    for (size_t unit = first; unit < first + n; unit++) {
        const size_t head = unit / job->chunks;
        kvt_segment segment;
        const kvt_attention asked = ask(cache, &segment, job->layer, head, job->position, job->queries, job->out);
        must(kvt_attend_chunks(&asked, unit % job->chunks, 1, partials_of(cache, head), workspace_of(cache, worker)));
    }
}

static void merge_heads(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    const kv_cache *cache = job->cache;
    const size_t heads = cache->model->kv_heads;
    for (size_t head = pool_first(heads, worker, workers); head < pool_first(heads, worker + 1, workers); head++) {
        kvt_segment segment;
        const kvt_attention asked = ask(cache, &segment, job->layer, head, job->position, job->queries, job->out);
        must(kvt_merge(&asked, partials_of(cache, head), workspace_of(cache, worker)));
    }
}

static int open_pages(kv_cache *cache, const cache_way *way, error_text *error)
{
    const checkpoint *model = cache->model;
    const size_t n = (size_t)model->layers * model->kv_heads; /* below 2^40 */
    const kvt_side_options options = { .rotation = way->rotation, .centring = way->centring };
    const kvt_spec spec = { .size = sizeof spec,
                            .k_scheme = way->k_scheme,
                            .v_scheme = way->v_scheme,
                            .k_dim = model->head_dim,
                            .v_dim = model->head_dim,
                            .kv_heads = model->kv_heads,
                            .k_options = options,
                            .v_options = options };
    size_t layer_bytes;
    kvt_status status = kvt_layout_init(&cache->layout, &spec);
    if (status == KVT_OK)
        status = kvt_layout_bytes(&cache->layout, cache->room, &layer_bytes);
    if (status == KVT_OK && __builtin_mul_overflow(layer_bytes, model->layers, &cache->bytes))
        status = KVT_ERR_OVERFLOW;
    if (status != KVT_OK)
        return error_set(error, "head_dim is %" PRIu32 " with %" PRIu32 " kv heads: %s", model->head_dim, model->kv_heads, kvt_status_text(status));
    cache->token_bytes = cache->layout.page_bytes / KVT_PAGE_TOKENS * n;
    cache->bits = 8.0 * (double)cache->layout.page_bytes / (2.0 * KVT_PAGE_TOKENS * model->head_dim);
    cache->pages = calloc(n, sizeof *cache->pages);
    cache->memory = aligned_alloc(LINE, cache->bytes); /* whole lines: page_bytes is */
    if (cache->pages == NULL || cache->memory == NULL)
        return error_set(error, "KV cache of %zu tokens takes %zu bytes: more than there is", cache->room, cache->bytes);
    for (size_t i = 0; i < n; i++) {
        unsigned char *layer = (unsigned char *)cache->memory + i / model->kv_heads * layer_bytes;
        must(kvt_head_pages(&cache->layout, layer, cache->room, (uint32_t)(i % model->kv_heads), &cache->pages[i]));
    }

    kvt_segment segment;
    const kvt_attention asked = ask(cache, &segment, 0, 0, cache->room - 1, NULL, NULL);
    status = kvt_attend_plan_sizes(&asked, &cache->sizes);
    if (status != KVT_OK)
        return error_set(error, "heads is %" PRIu32 " with %" PRIu32 " kv heads: %s", model->heads, model->kv_heads, kvt_status_text(status));
    cache->workspace_stride = (cache->sizes.workspace_bytes + LINE - 1) / LINE * LINE; /* workers write to lines of their own */
    cache->workspaces = aligned_alloc(LINE, pool_workers(cache->threads) * cache->workspace_stride);
    cache->partials = malloc(model->kv_heads * cache->sizes.chunks * cache->sizes.partial_bytes); /* below 2^50: no overflow */
    cache->row = malloc(model->head_dim * sizeof *cache->row);
    return cache->workspaces != NULL && cache->partials != NULL && cache->row != NULL
               ? 0
               : error_set(error, "attention over %zu tokens: out of memory", cache->room);
}

/* ---- the reference ---- */

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
static void attend_plainly(float *out, float *scores, const float *query, const float *keys, const float *values, size_t n_tokens, size_t head_dim)
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

static void attend_reference(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    const kv_cache *cache = job->cache;
    const checkpoint *model = cache->model;
    const size_t group = model->heads / model->kv_heads;
    for (size_t h = pool_first(model->heads, worker, workers); h < pool_first(model->heads, worker + 1, workers); h++) {
        const size_t rows = (job->layer * model->kv_heads + h / group) * cache->room * model->head_dim;
        attend_plainly(job->out + h * model->head_dim, cache->scores + worker * cache->room, job->queries + h * model->head_dim, cache->keys + rows,
                       cache->values + rows, job->position + 1, model->head_dim);
    }
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
    cache->scores = malloc(pool_workers(cache->threads) * cache->room * sizeof(float));
    if (cache->keys == NULL || cache->values == NULL || cache->scores == NULL)
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
    free(cache->pages);
    free(cache->memory);
    free(cache->workspaces);
    free(cache->partials);
    free(cache->row);
    free(cache->keys);
    free(cache->values);
    free(cache->scores);
    *cache = (kv_cache){ 0 };
}

/* Whether a token's rows of one side, which are stored, are finite where `rows` are. Infinite keys can have weights of 0, so what comes of them need
 * not show it. */
static bool are_kept(const kv_cache *cache, kvt_side side, const kvt_pages *pages, size_t position, const float *rows)
{
    const uint32_t dim = cache->model->head_dim;
    for (size_t head = 0; head < cache->model->kv_heads; head++) {
        must(kvt_read(&cache->layout, side, &pages[head], position, 1, cache->row, KVT_F32, (ptrdiff_t)(dim * sizeof(float))));
        for (uint32_t c = 0; c < dim; c++)
            if (!isfinite(cache->row[c]) && isfinite(rows[head * dim + c]))
                return false;
    }
    return true;
}

void cache_append(kv_cache *cache, size_t layer, size_t position, const float *keys, const float *values)
{
    const checkpoint *model = cache->model;
    const size_t row_bytes = model->head_dim * sizeof(float);
    if (!cache->reference) {
        const kvt_pages *pages = cache->pages + layer * model->kv_heads;
        must(kvt_append(&cache->layout, KVT_K, pages, position, keys, KVT_F32, (ptrdiff_t)row_bytes));
        must(kvt_append(&cache->layout, KVT_V, pages, position, values, KVT_F32, (ptrdiff_t)row_bytes));
        cache->lost = cache->lost || !are_kept(cache, KVT_K, pages, position, keys) || !are_kept(cache, KVT_V, pages, position, values);
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
    attend_job job = { cache, layer, position, queries, out, position / KVT_CHUNK_TOKENS + 1 };
    if (cache->reference) {
        pool_run(cache->threads, attend_reference, &job);
    } else if (job.chunks == 1 || cache->model->kv_heads % pool_workers(cache->threads) == 0) {
        pool_run(cache->threads, attend_heads, &job);
    } else { /* heads alone would leave some workers with less */
        pool_run(cache->threads, attend_chunks, &job);
        pool_run(cache->threads, merge_heads, &job);
    }
}
