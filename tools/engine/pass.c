/* SPDX-License-Identifier: MIT */
#include "tools/engine/pass.h"

#include "tools/engine/arithmetic.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 64, CHUNK = 64 /* tokens that a thread takes at a time */ };

typedef struct worker_space {
    layer_rows rows;
    float *scratch; /* of attention */
} worker_space;

struct pass_state {
    pool *threads;
    pass_rows rows;
    float *memory;             /* of all rows: */
    float *x, *query;          /* [room][dim], [room][q_dim] */
    float *cosines, *sines;    /* [room][2][head_dim / 2] */
    uint32_t *kept_end_memory; /* [2][room] */
    worker_space *workers;     /* [threads] */
    /* Of the layer that is run: */
    size_t layer;
    const uint32_t *tokens;
    const pass_cache *cache;
    float *last;
    atomic_size_t next; /* piece of work that nobody has begun */
};

/* ---- memory ---- */

/* Numbers of all rows. */
static size_t count_rows(const checkpoint *model, size_t room)
{
    return room * (model->dim + model->q_dim + 4 * (size_t)model->kv_dim + 4 * (size_t)(model->head_dim / 2));
}

static size_t lines(size_t numbers)
{
    return (numbers * sizeof(float) + LINE - 1) / LINE * LINE;
}

double pass_bytes(const checkpoint *model, size_t room, unsigned threads)
{
    const double widths = 4.0 * model->dim + 2.0 * model->q_dim + 2.0 * model->kv_dim + 3.0 * model->ffn; /* and scratch as wide as ffn */
    return (double)sizeof(float) * ((double)count_rows(model, room) + threads * (CHUNK * widths + 16.0 * (double)room));
}

static int take_memory(pass_state *state, const checkpoint *model, size_t room)
{
    const unsigned n = pool_workers(state->threads);
    state->memory = malloc(count_rows(model, room) * sizeof *state->memory);
    state->kept_end_memory = malloc(2 * room * sizeof *state->kept_end_memory);
    state->workers = calloc(n, sizeof *state->workers);
    if (state->memory == NULL || state->kept_end_memory == NULL || state->workers == NULL)
        return -1;
    for (unsigned i = 0; i < n; i++) {
        state->workers[i].scratch = aligned_alloc(LINE, lines(arithmetic_attention_scratch(room, model->head_dim)));
        if (layer_open(&state->workers[i].rows, model, CHUNK, NULL) != 0 || state->workers[i].scratch == NULL)
            return -1;
    }
    float *next = state->memory;
    state->x = next;
    state->query = next += room * model->dim;
    next += room * model->q_dim;
    for (size_t side = 0; side < 2; side++) {
        state->rows.open[side] = next;
        state->rows.kept[side] = next += room * model->kv_dim;
        next += room * model->kv_dim;
        state->rows.kept_end[side] = state->kept_end_memory + side * room;
    }
    state->cosines = next;
    state->sines = next + room * 2 * (model->head_dim / 2);
    return 0;
}

int pass_open(pass_state **state, const checkpoint *model, size_t room, pool *threads, error_text *error)
{
    *state = calloc(1, sizeof **state);
    if (*state != NULL) {
        (*state)->threads = threads;
        (*state)->rows = (pass_rows){ .model = model, .room = room };
    }
    if (*state == NULL || take_memory(*state, model, room) != 0) {
        pass_close(*state);
        *state = NULL;
        return error_set(error, "%zu tokens: out of memory", room);
    }
    layer_set_angles(model, 0, room, (*state)->cosines, (*state)->sines);
    return 0;
}

void pass_close(pass_state *state)
{
    if (state == NULL)
        return;
    for (unsigned i = 0; state->workers != NULL && i < pool_workers(state->threads); i++) {
        layer_close(&state->workers[i].rows);
        free(state->workers[i].scratch);
    }
    free(state->workers);
    free(state->memory);
    free(state->kept_end_memory);
    free(state);
}

/* ---- pieces of work ---- */

/* The next of n pieces of a layer, or n. */
static size_t take_piece(pass_state *state, size_t n)
{
    const size_t piece = atomic_fetch_add(&state->next, 1);
    return piece < n ? piece : n;
}

static size_t chunk_count(const pass_state *state)
{
    return (state->rows.n + CHUNK - 1) / CHUNK;
}

/* Rows of a chunk's tokens. */
static void point(const pass_state *state, layer_rows *rows, size_t chunk)
{
    const checkpoint *model = state->rows.model;
    const size_t first = chunk * CHUNK, left = state->rows.n - first, angles = first * 2 * (model->head_dim / 2);
    rows->n = left < CHUNK ? left : CHUNK;
    rows->x = state->x + first * model->dim;
    rows->query = state->query + first * model->q_dim;
    rows->cosines = state->cosines + angles;
    rows->sines = state->sines + angles;
}

static void project_chunks(void *data, unsigned worker, unsigned workers)
{
    (void)workers;
    pass_state *state = data;
    const checkpoint *model = state->rows.model;
    const size_t dim = model->head_dim, chunks = chunk_count(state);
    layer_rows rows = state->workers[worker].rows;
    for (size_t chunk; (chunk = take_piece(state, chunks)) < chunks;) {
        point(state, &rows, chunk);
        if (state->layer == 0)
            layer_embed(&rows, state->tokens + chunk * CHUNK);
        layer_project(&rows, state->layer);
        for (size_t i = 0; i < rows.n; i++)
            for (size_t head = 0; head < model->kv_heads; head++) {
                const size_t to = (head * state->rows.room + chunk * CHUNK + i) * dim, from = (i * model->kv_heads + head) * dim;
                memcpy(state->rows.open[0] + to, rows.key + from, dim * sizeof(float));
                memcpy(state->rows.open[1] + to, rows.value + from, dim * sizeof(float));
            }
    }
}

static void store_heads(void *data, unsigned worker, unsigned workers)
{
    (void)worker;
    (void)workers;
    pass_state *state = data;
    const size_t heads = 2 * (size_t)state->rows.model->kv_heads;
    for (size_t i; (i = take_piece(state, heads)) < heads;)
        state->cache->store(state->cache->owner, &state->rows, state->layer, i % 2, i / 2);
}

/* The queries of a chunk that share a KV head, as many at a time as there are lanes. */
static void attend_kv_head(const pass_state *state, const layer_rows *rows, size_t first, size_t kv_head, float *scratch)
{
    const checkpoint *model = rows->model;
    const size_t dim = model->head_dim, group = model->heads / model->kv_heads, at = kv_head * state->rows.room * dim;
    arithmetic_attention attention = { .head_dim = dim, .scale = layer_attention_scale(model), .scratch = scratch };
    for (size_t side = 0; side < 2; side++) {
        attention.kept[side] = state->rows.kept[side] + at;
        attention.open[side] = state->rows.open[side] + at;
    }
    for (size_t i = 0; i < rows->n * group; i++) {
        const size_t position = first + i / group, row = i / group * model->q_dim + (kv_head * group + i % group) * dim;
        attention.queries[attention.n] = rows->query + row;
        attention.out[attention.n] = rows->attended + row;
        attention.begin[attention.n] = layer_begin(model, state->layer, position);
        attention.end[attention.n] = position + 1;
        for (size_t side = 0; side < 2; side++)
            attention.kept_end[side][attention.n] = state->rows.kept_end[side][position];
        attention.n++;
        if (attention.n == ARITHMETIC_LANES || i + 1 == rows->n * group) {
            arithmetic_attend(&attention);
            attention.n = 0;
        }
    }
}

/* The last chunks first: they are the longest. */
static void attend_pieces(void *data, unsigned worker, unsigned workers)
{
    (void)workers;
    pass_state *state = data;
    const checkpoint *model = state->rows.model;
    const size_t chunks = chunk_count(state);
    worker_space *space = &state->workers[worker];
    layer_rows rows = space->rows;
    for (size_t piece; (piece = take_piece(state, chunks)) < chunks;) {
        const size_t chunk = chunks - 1 - piece, first = chunk * CHUNK;
        point(state, &rows, chunk);
        for (size_t head = 0; head < model->kv_heads; head++)
            attend_kv_head(state, &rows, first, head, space->scratch);
        layer_finish(&rows, state->layer);
        if (state->layer + 1 == model->layers) {
            layer_norm_last(&rows);
            memcpy(state->last + first * model->dim, rows.normed, rows.n * model->dim * sizeof(float));
        }
    }
}

static void run_pieces(pass_state *state, pool_work *work)
{
    atomic_store(&state->next, 0);
    pool_run(state->threads, work, state);
}

void pass_run(pass_state *state, const uint32_t *tokens, size_t n, const pass_cache *cache, float *last)
{
    state->rows.n = n;
    state->tokens = tokens;
    state->cache = cache;
    state->last = last;
    for (state->layer = 0; state->layer < state->rows.model->layers; state->layer++) {
        memset(state->kept_end_memory, 0, 2 * state->rows.room * sizeof *state->kept_end_memory);
        run_pieces(state, project_chunks);
        if (cache != NULL && cache->store != NULL)
            run_pieces(state, store_heads);
        run_pieces(state, attend_pieces);
        if (cache != NULL && cache->done != NULL)
            cache->done(cache->owner, &state->rows, state->layer);
    }
}
