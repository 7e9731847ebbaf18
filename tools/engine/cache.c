/* SPDX-License-Identifier: MIT */
#include "tools/engine/cache.h"

#include "tools/engine/arithmetic.h"
#include "tools/engine/layer.h"
#include "tools/files/saved.h"

#include <inttypes.h>
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
    kvt_step step;
} attend_job;

/* All arguments were checked when the cache was opened, and there is room: anything but KVT_OK is a bug. */
static void must_be_ok(kvt_status status, const char *why)
{
    if (status != KVT_OK) {
        fprintf(stderr, "kvtile-engine: %s (%s)\n", why, kvt_status_text(status));
        abort();
    }
}
static void must_step(const kvt_step *step, kvt_status status)
{
    char why[200] = "";
    if (status != KVT_OK)
        (void)kvt_step_problem(step, why, sizeof why);
    must_be_ok(status, why);
}
static void must_cache(const kv_cache *cache, kvt_status status)
{
    char why[200] = "";
    if (status != KVT_OK)
        kvt_cache_problem(cache->cache, cache->id, why, sizeof why);
    must_be_ok(status, why);
}

/* What the token is to a layer. */
static void make_step(attend_job *job, const float *keys, const float *values)
{
    const kv_cache *cache = job->cache;
    const checkpoint *model = cache->model;
    const cache_place place = cache->places[job->layer];
    job->step = (kvt_step){ .size = sizeof(kvt_step),
                            .view = kvt_cache_view(cache->cache, place.group),
                            .layer = place.layer,
                            .sequences = &cache->entries[place.group],
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
    must_step(&job->step, kvt_step_append(&job->step, worker, workers));
}
static void attend_share(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    must_step(&job->step, kvt_step_attend(&job->step, worker, workers));
}
static void merge_share(void *data, unsigned worker, unsigned workers)
{
    const attend_job *job = data;
    must_step(&job->step, kvt_step_merge(&job->step, worker, workers));
}

/* Puts each layer into the group of its kind; which[g]: some layer of group g. */
static int find_groups(kv_cache *cache, uint32_t which[KVT_CACHE_MAX_GROUPS], uint32_t layers[KVT_CACHE_MAX_GROUPS], error_text *error)
{
    const checkpoint *model = cache->model;
    for (uint32_t layer = 0; layer < model->layers; layer++) {
        const layer_kind *kind = &model->kinds[layer];
        uint32_t g = 0;
        while (g < cache->n_groups && (model->kinds[which[g]].window != kind->window || model->kinds[which[g]].rope != kind->rope))
            g++;
        if (g == KVT_CACHE_MAX_GROUPS)
            return error_set(error, "has layers of more than %d kinds", KVT_CACHE_MAX_GROUPS);
        if (g == cache->n_groups) {
            which[cache->n_groups++] = layer;
            layers[g] = 0;
        }
        cache->places[layer] = (cache_place){ g, layers[g]++ };
    }
    return 0;
}

static int make_cache(kv_cache *cache, const cache_way *way, const uint32_t *which, const uint32_t *layers, uint32_t sequences, error_text *error)
{
    const checkpoint *model = cache->model;
    const kvt_side_options options = { .rotation = way->rotation, .centring = way->centring };
    const kvt_spec spec = { .size = sizeof spec,
                            .k_scheme = way->k_scheme,
                            .v_scheme = way->v_scheme,
                            .k_dim = model->head_dim,
                            .v_dim = model->head_dim,
                            .kv_heads = model->kv_heads,
                            .k_options = options,
                            .v_options = options };
    kvt_spec first = spec;
    first.k_scheme = first.v_scheme = way->first;
    first.k_options.centring = first.v_options.centring = KVT_CENTRING_NONE; /* as kvt_preset_spec has it */
    kvt_rope ropes[KVT_CACHE_MAX_GROUPS];
    kvt_cache_group groups[KVT_CACHE_MAX_GROUPS];
    const size_t pages = (cache->room + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS;
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        const layer_kind *kind = &model->kinds[which[g]];
        const size_t window = (kind->window + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS + 2;
        ropes[g] = (kvt_rope){ .size = sizeof(kvt_rope),
                               .frequencies = model->frequencies + (kind->rope == ROPE_LOCAL ? model->head_dim / 2 : 0),
                               .pairs = model->head_dim / 2,
                               .interleaved = 1 };
        groups[g] = (kvt_cache_group){ .size = sizeof(kvt_cache_group),
                                       .spec = &spec,
                                       .first_spec = way->first ? &first : NULL,
                                       .open_dtype = way->open,
                                       .layers = layers[g],
                                       .blocks = (kind->window && window < pages ? window : pages) * sequences,
                                       .window = kind->window,
                                       .rope = kind->rope != ROPE_NONE ? &ropes[g] : NULL };
    }
    const kvt_cache_spec wanted = {
        .size = sizeof wanted, .groups = groups, .n_groups = cache->n_groups, .sequences = sequences, .tokens = cache->room
    };
    size_t bytes;
    const kvt_status status = kvt_cache_bytes(&wanted, &bytes);
    if (status != KVT_OK) {
        char why[200];
        (void)kvt_cache_spec_problem(&wanted, why, sizeof why);
        return error_set(error, "head_dim is %" PRIu32 " with %" PRIu32 " kv heads: %s", model->head_dim, model->kv_heads, why);
    }
    cache->bytes = bytes;
    cache->memory = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
    if (cache->memory == NULL)
        return error_set(error, "KV cache of %zu tokens takes %zu bytes: more than there is", cache->room, bytes);
    must_be_ok(kvt_cache_init(&wanted, cache->memory, bytes, &cache->cache), "a cache of bytes that were counted");
    return 0;
}

/* What the groups' blocks take, and workspaces for their steps. */
static kvt_status measure_groups(kv_cache *cache)
{
    const checkpoint *model = cache->model;
    kvt_status status = KVT_OK;
    size_t all = 0;
    for (uint32_t g = 0; g < cache->n_groups && status == KVT_OK; g++) {
        const kvt_view *view = kvt_cache_view(cache->cache, g);
        const kvt_step_limits limits = {
            .sequences = 1, .tokens = cache->room, .fresh = 1, .heads = model->heads, .workers = pool_workers(cache->threads)
        };
        kvt_cache_statistics blocks = { .size = sizeof blocks };
        size_t workspace = 0;
        status = kvt_step_workspace(view, &limits, &workspace);
        if (status == KVT_OK)
            status = kvt_cache_measure(cache->cache, g, &blocks);
        cache->workspace_bytes = workspace > cache->workspace_bytes ? workspace : cache->workspace_bytes;
        cache->token_bytes += view->layout->page_bytes / KVT_PAGE_TOKENS * view->layers * model->kv_heads;
        cache->bits = 8.0 * (double)view->layout->page_bytes / (2.0 * KVT_PAGE_TOKENS * model->head_dim);
        all += blocks.pages.all * blocks.pages.bytes + blocks.first_pages.all * blocks.first_pages.bytes +
               blocks.open_pages.all * blocks.open_pages.bytes;
    }
    cache->bytes = all;
    return status;
}

static int open_pages(kv_cache *cache, const cache_way *way, uint32_t sequences, error_text *error)
{
    const checkpoint *model = cache->model;
    uint32_t which[KVT_CACHE_MAX_GROUPS], layers[KVT_CACHE_MAX_GROUPS];
    cache->places = malloc(model->layers * sizeof *cache->places);
    if (cache->places == NULL)
        return error_set(error, "%" PRIu32 " layers: out of memory", model->layers);
    if (find_groups(cache, which, layers, error) != 0)
        return -1;
    if (make_cache(cache, way, which, layers, sequences, error) != 0)
        return -1;
    const kvt_status status = measure_groups(cache);
    if (status != KVT_OK)
        return error_set(error, "heads is %" PRIu32 " with %" PRIu32 " kv heads: %s", model->heads, model->kv_heads, kvt_status_text(status));
    must_be_ok(kvt_cache_new(cache->cache, &cache->id), "no sequence");
    cache->scratch_bytes = (kvt_cache_work_bytes(cache->cache) + LINE - 1) / LINE * LINE;
    cache->scratch_memory = aligned_alloc(LINE, cache->scratch_bytes * pool_workers(cache->threads));
    cache->workspace = aligned_alloc(LINE, (cache->workspace_bytes + LINE - 1) / LINE * LINE);
    cache->tokens = malloc(cache->room * sizeof *cache->tokens);
    cache->rows = malloc(2 * (size_t)KVT_PAGE_TOKENS * model->kv_dim * sizeof *cache->rows);
    if (cache->scratch_memory == NULL || cache->workspace == NULL || cache->tokens == NULL || cache->rows == NULL)
        return error_set(error, "attention over %zu tokens: out of memory", cache->room);
    return 0;
}

/* ---- sequences ---- */

size_t cache_tokens(const kv_cache *cache)
{
    return kvt_cache_tokens(cache->cache, cache->id);
}

void cache_begin(kv_cache *cache, uint32_t token, size_t position)
{
    if (cache->reference)
        return;
    cache->tokens[position] = token;
    must_cache(cache, kvt_cache_append(cache->cache, cache->id, 1));
    for (uint32_t g = 0; g < cache->n_groups; g++)
        must_cache(cache, kvt_cache_entry(cache->cache, cache->id, g, &cache->entries[g]));
}

void cache_end(kv_cache *cache)
{
    if (!cache->reference)
        must_cache(cache, kvt_cache_commit(cache->cache, cache->id, 1));
}

static void work_share(void *data, unsigned worker, unsigned workers)
{
    const kv_cache *cache = data;
    must_cache(cache,
               kvt_cache_work(cache->cache, cache->id, worker, workers, cache->scratch_memory + worker * cache->scratch_bytes, cache->scratch_bytes));
}

void cache_remove(kv_cache *cache, size_t first, size_t end)
{
    const size_t stored = cache_tokens(cache);
    must_cache(cache, kvt_cache_remove(cache->cache, cache->id, first, end, KVT_POSITIONS_CLOSE));
    pool_run(cache->threads, work_share, cache);
    memmove(cache->tokens + first, cache->tokens + end, (stored - end) * sizeof *cache->tokens);
}

void cache_truncate(kv_cache *cache, size_t tokens)
{
    must_cache(cache, kvt_cache_truncate(cache->cache, cache->id, tokens));
}

void cache_fork(kv_cache *cache)
{
    if (cache->prefix == KVT_NO_SEQUENCE)
        cache->prefix = cache->id;
    else
        must_cache(cache, kvt_cache_free(cache->cache, cache->id));
    must_cache(cache, kvt_cache_fork(cache->cache, cache->prefix, &cache->id));
}

/* ---- files ---- */

/* A number for the model: its sizes, and some of its weights. */
static uint64_t model_number(const checkpoint *model)
{
    const uint32_t sizes[] = { model->dim,        model->ffn,     model->layers,   model->heads,  model->kv_heads,
                               model->vocabulary, model->context, model->head_dim, model->q_bias, model->kv_bias };
    enum { LOOKED_AT = 1 << 16 };
    uint64_t number = kvt_prefix_hash(0, sizes, sizeof sizes / sizeof *sizes);
    for (size_t i = 0; i < model->n_weights; i += model->n_weights / LOOKED_AT + 1) {
        uint32_t bits;
        memcpy(&bits, &model->weights[i], sizeof bits);
        number = kvt_prefix_hash(number, &bits, 1);
    }
    return number;
}

int cache_save(kv_cache *cache, const char *path, error_text *error)
{
    const kvt_save save = { .size = sizeof save, .model = model_number(cache->model), .token_ids = cache->tokens };
    return saved_write(path, cache->cache, cache->id, &save, cache->scratch_memory, cache->scratch_bytes, error);
}

/* Copies its tokens, and holds them against the model and the room. */
static int take_saved_tokens(kv_cache *cache, const kvt_saved *saved, error_text *error)
{
    if (saved->first != 0 || saved->token_ids == NULL)
        return error_set(error, "begins with token %zu%s: a whole sequence with its tokens' numbers would be right", saved->first,
                         saved->token_ids == NULL ? " and has no tokens' numbers" : "");
    if (saved->end < 1 || saved->end > cache->room)
        return error_set(error, "has %zu tokens: 1 to %zu, the room of the cache, would be right", saved->end, cache->room);
    for (size_t i = 0; i < saved->end; i++)
        if (saved->token_ids[i] >= cache->model->vocabulary)
            return error_set(error, "token %zu is %" PRIu32 ": less than %" PRIu32 ", the model's vocabulary, would be right", i, saved->token_ids[i],
                             cache->model->vocabulary);
    memcpy(cache->tokens, saved->token_ids, saved->end * sizeof *cache->tokens);
    return 0;
}

int cache_load(kv_cache *cache, const char *path, error_text *error)
{
    saved_file file;
    if (saved_open(&file, path, error) != 0)
        return -1;
    int result = take_saved_tokens(cache, &file.saved, error);
    if (result == 0)
        result = saved_load(&file, cache->cache, cache->id, model_number(cache->model), error);
    saved_close(&file);
    return result;
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
        arithmetic_attention attention = { .n = group - g < ARITHMETIC_LANES ? group - g : ARITHMETIC_LANES,
                                           .head_dim = dim,
                                           .scale = layer_attention_scale(model),
                                           .kept = { cache->keys + rows, cache->values + rows },
                                           .open = { cache->keys + rows, cache->values + rows },
                                           .scratch = scratch };
        for (size_t i = 0; i < attention.n; i++) {
            attention.queries[i] = job->queries + (first + g + i) * dim;
            attention.out[i] = job->out + (first + g + i) * dim;
            attention.begin[i] = layer_begin(model, job->layer, job->position);
            attention.end[i] = attention.kept_end[0][i] = attention.kept_end[1][i] = job->position + 1;
        }
        arithmetic_attend(&attention);
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

int cache_open(kv_cache *cache, const checkpoint *model, const cache_way *way, size_t tokens, uint32_t sequences, pool *threads, error_text *error)
{
    *cache = (kv_cache){ .model = model, .threads = threads, .reference = way->reference, .room = tokens, .prefix = KVT_NO_SEQUENCE };
    const int result = way->reference ? open_reference(cache, error) : open_pages(cache, way, sequences, error);
    if (result != 0)
        cache_close(cache);
    return result;
}

void cache_close(kv_cache *cache)
{
    free(cache->memory);
    free(cache->places);
    free(cache->tokens);
    free(cache->scratch_memory);
    free(cache->workspace);
    free(cache->rows);
    free(cache->keys);
    free(cache->values);
    free(cache->scratch);
    *cache = (kv_cache){ 0 };
}

/* Whether what is stored of a layer's token, and of its whole page where it is the last, is finite. Infinite keys can have weights of 0, so what
 * comes of them need not show it. */
static bool are_kept(const kv_cache *cache, size_t layer)
{
    const checkpoint *model = cache->model;
    const cache_place place = cache->places[layer];
    const kvt_view *view = kvt_cache_view(cache->cache, place.group);
    kvt_sequence stored = cache->entries[place.group];
    stored.stored++;
    const size_t n = view->open_dtype && stored.stored % KVT_PAGE_TOKENS == 0 ? KVT_PAGE_TOKENS : 1, row = model->head_dim * sizeof(float);
    const kvt_view_rows rows = { .size = sizeof rows,
                                 .view = view,
                                 .sequence = &stored,
                                 .first_token = stored.stored - n,
                                 .n_tokens = n,
                                 .first_layer = place.layer,
                                 .layers = 1,
                                 .rows = cache->rows,
                                 .dtype = KVT_F32,
                                 .side_stride = (ptrdiff_t)(n * model->kv_heads * row),
                                 .token_stride = (ptrdiff_t)(model->kv_heads * row),
                                 .head_stride = (ptrdiff_t)row };
    if (kvt_view_read(&rows, 0, 1) != KVT_OK)
        abort();
    return arithmetic_are_finite(cache->rows, 2 * n * model->kv_dim);
}

void cache_append(kv_cache *cache, size_t layer, size_t position, const float *keys, const float *values)
{
    const checkpoint *model = cache->model;
    const size_t row_bytes = model->head_dim * sizeof(float);
    if (!cache->reference) {
        attend_job job = { .cache = cache, .layer = layer, .position = position };
        make_step(&job, keys, values);
        pool_run(cache->threads, append_share, &job);
        cache->strange = cache->strange || !arithmetic_are_finite(keys, model->kv_dim) || !arithmetic_are_finite(values, model->kv_dim);
        cache->lost = cache->lost || (!cache->strange && !are_kept(cache, layer));
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
