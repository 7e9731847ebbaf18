/* SPDX-License-Identifier: MIT */
#include "tools/engine/forward.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int forward_open(forward_state *state, const checkpoint *model, const cache_way *way, size_t tokens, uint32_t sequences, pool *threads,
                 error_text *error)
{
    *state = (forward_state){ .model = model, .threads = threads, .kept = KVT_PAGE_TOKENS };
    if (tokens < 1 || tokens > model->context)
        return error_set(error, "tokens is %zu: 1 to %" PRIu32 ", the model's context, would be right", tokens, model->context);
    state->logits = malloc(model->vocabulary * sizeof *state->logits);
    if (state->logits == NULL || layer_open(&state->rows, model, 1, threads) != 0) {
        forward_close(state);
        return error_set(error, "vocabulary is %" PRIu32 ": out of memory", model->vocabulary);
    }
    const int result = cache_open(&state->cache, model, way, tokens, sequences, threads, error);
    if (result != 0)
        forward_close(state);
    return result;
}

void forward_close(forward_state *state)
{
    for (size_t kind = 0; kind < N_CAPTURED; kind++)
        free(state->captured[kind]);
    cache_close(&state->cache);
    layer_close(&state->rows);
    free(state->logits);
    *state = (forward_state){ 0 };
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
    const float *const rows[N_CAPTURED] = { state->rows.key, state->rows.value, state->rows.query };
    for (size_t kind = 0; kind < N_CAPTURED && state->captured[kind] != NULL; kind++) {
        for (size_t h = 0; h < heads_of(model, kind); h++) {
            const size_t row = (layer * heads_of(model, kind) + h) * state->cache.room + position;
            memcpy(state->captured[kind] + row * model->head_dim, rows[kind] + h * model->head_dim, model->head_dim * sizeof(float));
        }
    }
}

/* ---- the model ---- */

const float *forward_token(forward_state *state, uint32_t token, size_t position)
{
    layer_rows *rows = &state->rows;
    rows->n = 1;
    layer_set_angles(state->model, position, 1, rows->cosines, rows->sines);
    layer_embed(rows, &token);
    cache_begin(&state->cache, token, position);
    for (size_t layer = 0; layer < state->model->layers; layer++) {
        layer_project(rows, layer);
        capture(state, layer, position);
        cache_append(&state->cache, layer, position, rows->key, rows->value);
        cache_attend(&state->cache, layer, position, rows->query, rows->attended);
        layer_finish(rows, layer);
    }
    cache_end(&state->cache);
    layer_norm_last(rows);
    layer_predict(rows, rows->normed, 1, state->logits);
    return state->logits;
}

const float *forward_next(forward_state *state, uint32_t token)
{
    kv_cache *cache = &state->cache;
    if (cache_tokens(cache) == cache->room) {
        const size_t pages = (cache->room - state->kept) / 2 / KVT_PAGE_TOKENS;
        cache_remove(cache, state->kept, state->kept + pages * KVT_PAGE_TOKENS);
    }
    return forward_token(state, token, cache_tokens(cache));
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
