/* SPDX-License-Identifier: MIT */
#include "bench/decode.h"

#include "bench/floor.h"
#include "bench/multiply.h"
#include "bench/reference.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- how much ---- */

enum { FILLED_TOKENS = 256 }; /* that differ */

static size_t round_up(size_t n, size_t unit)
{
    return divide_up(n, unit) * unit;
}

/* Of a layer's rows as f16, K and V. */
static size_t row_layer_bytes(const decode *state)
{
    return 2 * sizeof(uint16_t) * state->case_.kv_heads * state->tokens * state->case_.dim;
}

static bool has_reference(const decode *state)
{
    return state->case_.dim % 16 == 0 && state->case_.rope == NULL && reference_exists();
}

/* In the L2 cache as many pages for every scheme, so that those of f16 fill half of it. */
static void choose_size(decode *state, const machine *here, workload_size size)
{
    const bench_case *case_ = &state->case_;
    state->tokens = case_->tokens;
    state->passes = 1;
    if (size == WORKLOAD_TINY) {
        state->tokens = FILLED_TOKENS;
    } else if (case_->where == BENCH_L2) {
        const size_t pages = here->l2_bytes / 2 / state->f16.layout.page_bytes;
        state->tokens = (pages > 0 ? pages : 1) * KVT_PAGE_TOKENS;
        state->passes = size == WORKLOAD_FULL ? 8 : 1;
    }
    state->pages = divide_up(state->tokens, KVT_PAGE_TOKENS);
}

static size_t decode_layers(const decode *state, const machine *here, size_t layer_bytes, workload_size size)
{
    return size == WORKLOAD_TINY || state->case_.where == BENCH_L2 ? 1 : divide_up(3 * here->llc_bytes, layer_bytes);
}

/* ---- a step ---- */

/* All pages of a layer, [head][page]; where centres are the pages' own, rows of the newest, which is not full, are behind all layers. */
static kvt_view view_of(const decode *state, const decode_tiles *tiles, unsigned char *base)
{
    const size_t page = tiles->layout.page_bytes, heads = state->case_.kv_heads;
    return (kvt_view){ .size = sizeof(kvt_view),
                       .layout = &tiles->layout,
                       .pages = { .base = base,
                                  .blocks = state->pages,
                                  .layer_stride = tiles->layer_bytes,
                                  .block_stride = page,
                                  .head_stride = state->pages * page },
                       .open_pages = { .base = base + tiles->layers * tiles->layer_bytes,
                                       .blocks = 1,
                                       .layer_stride = heads * tiles->open_bytes,
                                       .block_stride = heads * tiles->open_bytes,
                                       .head_stride = tiles->open_bytes },
                       .open_dtype = tiles->open_bytes ? KVT_F16 : (kvt_dtype)0,
                       .layers = (uint32_t)tiles->layers };
}

/* What all workers of a step get. */
typedef struct step_job {
    decode *state;
    kvt_view view;
    kvt_sequence sequence;
    kvt_step step;
} step_job;

static void note_status(decode *state, unsigned worker, kvt_status status)
{
    if (state->statuses[worker] == KVT_OK)
        state->statuses[worker] = status;
}

static void step_attend_share(void *data, unsigned worker, unsigned workers)
{
    const step_job *job = data;
    note_status(job->state, worker, kvt_step_attend(&job->step, worker, workers));
}

static void step_merge_share(void *data, unsigned worker, unsigned workers)
{
    const step_job *job = data;
    note_status(job->state, worker, kvt_step_merge(&job->step, worker, workers));
}

/* The newest token's rows are stored already: they are the last that was written, or, where centres are the pages' own, alone in their page. */
static void run_tiles(decode *state, decode_tiles *tiles)
{
    const bench_case *case_ = &state->case_;
    step_job job = { .state = state, .view = view_of(state, tiles, tiles->memory.base) };
    job.sequence = (kvt_sequence){ .blocks = state->blocks,
                                   .n_blocks = state->pages,
                                   .stored = tiles->open_bytes ? state->pages * KVT_PAGE_TOKENS : state->tokens - 1,
                                   .fresh = 1 };
    job.step = (kvt_step){ .size = sizeof(kvt_step),
                           .view = &job.view,
                           .layer = (uint32_t)tiles->at,
                           .sequences = &job.sequence,
                           .n_sequences = 1,
                           .heads = case_->kv_heads * case_->group,
                           .dtype = KVT_F32,
                           .out_dtype = KVT_F32,
                           .q = state->queries,
                           .out = state->out,
                           .scale = 1 / sqrtf((float)bench_row_dim(case_)),
                           .workspace = state->workspace,
                           .workspace_bytes = tiles->workspace_bytes };
    pool_run(state->threads, step_attend_share, &job);
    pool_run(state->threads, step_merge_share, &job);
    tiles->at = (tiles->at + 1) % tiles->layers;
}

static void run_our_tiles(decode *state)
{
    run_tiles(state, &state->ours);
}

static void run_f16(decode *state)
{
    run_tiles(state, &state->f16);
}

static void read_share(void *data, unsigned worker, unsigned workers)
{
    const decode *state = data;
    const size_t bytes = state->ours.layer_bytes, first = pool_first(bytes / LINE, worker, workers) * LINE,
                 end = pool_first(bytes / LINE, worker + 1, workers) * LINE;
    floor_move(state->ours.memory.base + state->read_at * bytes + first, end - first, NULL, 0);
}

static void run_read_pages(decode *state)
{
    pool_run(state->threads, read_share, state);
    state->read_at = (state->read_at + 1) % state->ours.layers;
}

static void multiply_lines_share(void *data, unsigned worker, unsigned workers)
{
    const decode *state = data;
    const multiply_loops *loops = multiply_of_tier(state->case_.tier);
    bool is_floats;
    const size_t lines = state->case_.kv_heads * multiply_lines(loops, &state->ours.layout, state->case_.group, state->tokens, &is_floats);
    (is_floats ? loops->floats : loops->dots)(pool_first(lines, worker + 1, workers) - pool_first(lines, worker, workers));
}

static void run_multiply(decode *state)
{
    pool_run(state->threads, multiply_lines_share, state);
}

static void reference_share(void *data, unsigned worker, unsigned workers)
{
    const decode *state = data;
    const bench_case *case_ = &state->case_;
    const uint16_t *layer = (const uint16_t *)(const void *)(state->rows.base + state->row_at * row_layer_bytes(state));
    const size_t side = state->tokens * case_->dim, rows = (size_t)case_->group * case_->dim;
    for (size_t head = pool_first(case_->kv_heads, worker, workers); head < pool_first(case_->kv_heads, worker + 1, workers); head++) {
        const uint16_t *keys = layer + head * 2 * side;
        reference_attend(keys, keys + side, state->tokens, case_->dim, state->queries + head * rows, case_->group, 1 / sqrtf((float)case_->dim),
                         state->logits + worker * case_->group * state->tokens, state->out + head * rows);
    }
}

static void run_reference(decode *state)
{
    pool_run(state->threads, reference_share, state);
    state->row_at = (state->row_at + 1) % state->row_layers;
}

/* ---- a case ---- */

static int refuse_step(decode *state, kvt_status status)
{
    snprintf(state->error, sizeof state->error, "%s", kvt_status_text(status));
    return -1;
}

/* The layout and sizes of `scheme`, with the case's options where it is the case's scheme. */
static kvt_status choose_layout(decode_tiles *tiles, const bench_case *case_, kvt_scheme scheme)
{
    bench_case of_scheme = *case_;
    of_scheme.scheme = kvt_scheme_get(scheme);
    if (scheme != case_->scheme->scheme) {
        of_scheme.options = (kvt_side_options){ 0 };
        of_scheme.rope = case_->rope != NULL ? of_scheme.scheme : NULL;
    }
    return bench_case_layout(&of_scheme, &tiles->layout);
}

static kvt_status choose_sizes(const decode *state, decode_tiles *tiles)
{
    const bench_case *case_ = &state->case_;
    const bool is_own = tiles->layout.spec.k_options.centring == KVT_CENTRING_OWN || tiles->layout.spec.v_options.centring == KVT_CENTRING_OWN;
    tiles->open_bytes = 0;
    tiles->layers = 1;
    kvt_status status = kvt_layout_bytes(&tiles->layout, state->tokens, &tiles->layer_bytes);
    if (status == KVT_OK && is_own)
        status = kvt_view_open_bytes(&tiles->layout, KVT_F16, &tiles->open_bytes);
    if (status != KVT_OK)
        return status;
    unsigned char nowhere;
    const kvt_view view = view_of(state, tiles, &nowhere); /* only measured */
    const kvt_step_limits limits = {
        .sequences = 1, .tokens = state->tokens + KVT_PAGE_TOKENS, .fresh = 1, .heads = case_->kv_heads * case_->group, .workers = case_->threads
    };
    return kvt_step_workspace(&view, &limits, &tiles->workspace_bytes);
}

static kvt_status fill_tiles(const decode *state, const decode_tiles *tiles, const float *rows)
{
    const size_t page = tiles->layout.page_bytes, n = state->pages < FILLED_TOKENS / KVT_PAGE_TOKENS ? state->pages : FILLED_TOKENS / KVT_PAGE_TOKENS;
    const kvt_pages pages = { .base = tiles->memory.base, .stride = page, .count = n };
    const size_t tokens = n * KVT_PAGE_TOKENS;
    kvt_status status = KVT_OK;
    const bool is_latent = state->case_.rope != NULL;
    const ptrdiff_t stride = (ptrdiff_t)(bench_row_dim(&state->case_) * sizeof(float));
    status = kvt_write(&tiles->layout, KVT_K, &pages, 0, tokens, rows, KVT_F32, stride);
    if (status == KVT_OK)
        status =
            kvt_write(&tiles->layout, is_latent ? KVT_ROPE : KVT_V, &pages, 0, tokens, is_latent ? rows + state->case_.dim : rows, KVT_F32, stride);
    fill_repeat(tiles->memory.base, n * page, tiles->layers * tiles->layer_bytes);
    return status;
}

/* Gives out parts of `small`, or only counts them while there is none. */
static void *part(decode *state, size_t *used, size_t bytes)
{
    unsigned char *at = state->small.base != NULL ? state->small.base + *used : NULL;
    *used += round_up(bytes, LINE);
    return at;
}

static size_t place_small(decode *state)
{
    const bench_case *case_ = &state->case_;
    const size_t rows = (size_t)case_->kv_heads * case_->group * bench_row_dim(case_) * sizeof(float);
    const size_t ours = state->ours.workspace_bytes, f16 = state->f16.workspace_bytes;
    size_t used = 0;
    state->queries = part(state, &used, rows);
    state->out = part(state, &used, rows);
    state->logits = part(state, &used, case_->threads * (size_t)case_->group * state->tokens * sizeof(float));
    state->workspace = part(state, &used, ours > f16 ? ours : f16);
    state->blocks = part(state, &used, state->pages * sizeof *state->blocks);
    return used;
}

static int start_threads(decode *state)
{
    if (state->threads != NULL && pool_workers(state->threads) == state->case_.threads)
        return 0;
    pool_close(state->threads);
    state->threads = pool_open(state->case_.threads);
    if (state->threads != NULL)
        return 0;
    snprintf(state->error, sizeof state->error, "%u threads cannot be started: %s", state->case_.threads, strerror(errno));
    return -1;
}

static size_t tiles_bytes(const decode *state, const decode_tiles *tiles)
{
    return tiles->layers * (tiles->layer_bytes + state->case_.kv_heads * tiles->open_bytes);
}

int decode_open(decode *state, const bench_case *case_, const machine *here, workload_size size)
{
    state->case_ = *case_;
    state->error[0] = '\0';
    memset(state->statuses, 0, sizeof state->statuses);
    kvt_status status = choose_layout(&state->ours, case_, case_->scheme->scheme);
    if (status == KVT_OK)
        status = choose_layout(&state->f16, case_, KVT_SCHEME_f16);
    if (status != KVT_OK)
        return refuse_step(state, status);
    choose_size(state, here, size);
    status = choose_sizes(state, &state->ours);
    if (status == KVT_OK)
        status = choose_sizes(state, &state->f16);
    if (status != KVT_OK)
        return refuse_step(state, status);

    const bool is_alone = size == WORKLOAD_TINY;
    state->ours.layers = decode_layers(state, here, state->ours.layer_bytes, size);
    state->f16.layers = case_->scheme->scheme == KVT_SCHEME_f16 || is_alone ? 0 : decode_layers(state, here, state->f16.layer_bytes, size);
    state->row_layers = !has_reference(state) || is_alone ? 0 : decode_layers(state, here, row_layer_bytes(state), size);
    state->ours.at = state->f16.at = state->row_at = 0;
    state->read_at = state->ours.layers / 2; /* where ours have not just been */
    const size_t filled = (size_t)FILLED_TOKENS * bench_row_dim(case_) * sizeof(float), used = place_small(state);
    const size_t needs[] = { tiles_bytes(state, &state->ours), tiles_bytes(state, &state->f16), state->row_layers * row_layer_bytes(state),
                             used > filled ? used : filled };
    arena *const arenas[] = { &state->ours.memory, &state->f16.memory, &state->rows, &state->small };
    if (start_threads(state) != 0 || arenas_need(arenas, needs, 4, !is_alone, state->error, sizeof state->error) != 0)
        return -1;

    float *rows = (float *)(void *)state->small.base;
    fill_rows(rows, FILLED_TOKENS, bench_row_dim(case_), KVT_F32);
    status = fill_tiles(state, &state->ours, rows);
    if (status == KVT_OK && state->f16.layers > 0)
        status = fill_tiles(state, &state->f16, rows);
    if (status != KVT_OK)
        return refuse_step(state, status);
    if (state->row_layers > 0) {
        const size_t different = state->tokens < FILLED_TOKENS ? state->tokens : FILLED_TOKENS, bytes = different * case_->dim * sizeof(uint16_t);
        fill_rows(state->rows.base, different, case_->dim, KVT_F16);
        fill_repeat(state->rows.base, bytes, state->row_layers * row_layer_bytes(state));
    }
    place_small(state);
    for (size_t p = 0; p < state->pages; p++)
        state->blocks[p] = (uint32_t)p;
    fill_rows(state->queries, (size_t)case_->kv_heads * case_->group, bench_row_dim(case_), KVT_F32);
    return 0;
}

/* ---- samples ---- */

static double sample_contender(decode *state, decode_contender who)
{
    static void (*const run[N_DECODE_CONTENDERS])(decode *) = { run_our_tiles, run_read_pages, run_multiply, run_f16, run_reference };
    if (state->case_.where == BENCH_L2)
        run[who](state); /* brings it into the cache */
    const double start = seconds_now();
    for (size_t pass = 0; pass < state->passes; pass++)
        run[who](state);
    return seconds_now() - start;
}

/* What the calls of samples have come to so far. */
static int steps_outcome(decode *state)
{
    for (unsigned worker = 0; worker < state->case_.threads; worker++)
        if (state->statuses[worker] != KVT_OK)
            return refuse_step(state, state->statuses[worker]);
    return 0;
}

int decode_sample_ours(decode *state, double *seconds)
{
    *seconds = sample_contender(state, DECODE_OURS);
    return steps_outcome(state);
}

int decode_sample(decode *state, double seconds[N_DECODE_CONTENDERS])
{
    const bool is_there[N_DECODE_CONTENDERS] = { true, true, multiply_of_tier(state->case_.tier) != NULL, state->f16.layers > 0,
                                                 state->row_layers > 0 };
    for (size_t who = 0; who < N_DECODE_CONTENDERS; who++)
        seconds[who] = is_there[who] ? sample_contender(state, (decode_contender)who) : (double)NAN;
    return steps_outcome(state);
}

kvt_status decode_run_ours(decode *state)
{
    run_our_tiles(state);
    return state->statuses[0];
}

size_t decode_steps(const decode *state)
{
    return state->passes;
}

size_t decode_cells(const decode *state)
{
    return state->passes * state->case_.kv_heads * state->tokens * state->case_.dim * 2;
}

size_t decode_step_bytes(const decode *state)
{
    return state->ours.layer_bytes;
}

size_t decode_working_set(const decode *state)
{
    return state->ours.layers * state->ours.layer_bytes;
}

void decode_close(decode *state)
{
    arena_free(&state->ours.memory);
    arena_free(&state->f16.memory);
    arena_free(&state->rows);
    arena_free(&state->small);
    pool_close(state->threads);
    state->threads = NULL;
}
