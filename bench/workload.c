/* SPDX-License-Identifier: MIT */
#include "bench/workload.h"

#include "bench/floor.h"

#include <kvtile/mla.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- how much ---- */

static bool is_converting(const bench_case *case_)
{
    return case_->op == BENCH_IMPORT || case_->op == BENCH_EXPORT;
}

/* Whether the rows outside are written. */
static bool is_reading(const bench_case *case_)
{
    return case_->op == BENCH_READ || case_->op == BENCH_EXPORT;
}

static size_t at_least_1(size_t n)
{
    return n > 0 ? n : 1;
}

/* Steps of append that have as many rows as a page of one head: what a bulk write writes. */
enum { BULK_STEPS = KVT_PAGE_TOKENS / BENCH_APPEND_HEADS };

static void choose_geometry(workload *state, const machine *here, workload_size size)
{
    enum { MOST_PAGES = 8, SAMPLE_L2 = 1 << 20, SAMPLE_MEMORY = 4 << 20 };
    const bool append = state->case_.op == BENCH_APPEND;
    const size_t token = state->row_bytes + state->stored_bytes;
    const size_t page = KVT_PAGE_TOKENS * token;
    /* An appended token's centre costs what a page has of them, so there has to be a second page. */
    const size_t append_pages = state->case_.options.centring != KVT_CENTRING_NONE ? 2 : 1;
    size_t rounds = 0; /* tokens of each head that are appended */
    if (size == WORKLOAD_TINY) {
        state->head_pages = 1;
        state->heads = 1;
    } else if (state->case_.where == BENCH_L2) {
        /* Half of it, as memcpy's buffers are as large again. */
        const size_t budget = here->l2_bytes / 2;
        const size_t pages = at_least_1(budget / page);
        state->head_pages = append ? append_pages : pages < MOST_PAGES ? pages : MOST_PAGES;
        state->heads = at_least_1(pages / state->head_pages);
    } else {
        const size_t budget = 3 * here->llc_bytes;
        state->head_pages = append ? append_pages : MOST_PAGES;
        if (append) {
            /* Each token touches all lines of its tile, whose 16 tokens share them. */
            state->heads = divide_up(budget, state->row_bytes + KVT_TILE_TOKENS * state->stored_bytes);
            rounds = divide_up(divide_up(budget, state->heads * token), BULK_STEPS) * BULK_STEPS;
        } else {
            state->heads = divide_up(budget, state->head_pages * page);
        }
    }
    state->head_tokens = state->head_pages * KVT_PAGE_TOKENS;
    state->step_rows = state->head_tokens;
    state->steps = state->heads;
    if (append) {
        state->heads = divide_up(state->heads, BENCH_APPEND_HEADS) * BENCH_APPEND_HEADS;
        state->step_rows = BENCH_APPEND_HEADS;
        state->steps = state->heads / BENCH_APPEND_HEADS * (rounds > 0 ? rounds : state->head_tokens);
    }
    state->working_set = state->steps * state->step_rows * token;
    if (rounds > 0)
        state->working_set = state->heads * (state->row_bytes + KVT_TILE_TOKENS * state->stored_bytes);

    const size_t step_bytes = state->step_rows * token;
    state->sample_steps = state->steps;
    state->sample_passes = 1;
    if (size == WORKLOAD_TINY)
        return;
    if (state->case_.where == BENCH_MEMORY) {
        const size_t wanted = at_least_1((size == WORKLOAD_QUICK ? SAMPLE_L2 : SAMPLE_MEMORY) / step_bytes);
        const size_t steps = append ? divide_up(wanted, BULK_STEPS) * BULK_STEPS : wanted;
        state->sample_steps = steps < state->steps ? steps : state->steps;
    } else if (size == WORKLOAD_FULL) {
        state->sample_passes = divide_up(SAMPLE_L2, state->steps * step_bytes);
    }
}

/* ---- what is in the buffers ---- */

static kvt_pages head_pages_of(const workload *state, size_t head)
{
    return (kvt_pages){ .base = state->pages.base + head * state->head_pages * state->layout.page_bytes,
                        .stride = state->layout.page_bytes,
                        .count = state->head_pages };
}

static size_t ggml_row_bytes(const workload *state)
{
    return state->ggml != NULL ? state->case_.dim / state->ggml->channels * state->ggml->block_bytes : 0;
}

static kvt_status write_head(workload *state, size_t head, size_t first_token, size_t n_tokens, const unsigned char *rows)
{
    const kvt_pages pages = head_pages_of(state, head);
    const ptrdiff_t stride = (ptrdiff_t)state->row_bytes;
    const kvt_status status = kvt_write(&state->layout, state->case_.side, &pages, first_token, n_tokens, rows, state->case_.dtype, stride);
    if (state->case_.rope == NULL || status != KVT_OK)
        return status;
    rows += state->case_.dim * kvt_dtype_bytes(state->case_.dtype);
    return kvt_write(&state->layout, KVT_ROPE, &pages, first_token, n_tokens, rows, state->case_.dtype, stride);
}

/* Normalised and rotated, as of a model. */
static kvt_status write_latents(workload *state, size_t head, const unsigned char *rows)
{
    const kvt_pages pages = head_pages_of(state, head);
    const float *norm = (const float *)(const void *)state->foreign.base;
    const kvt_mla_rows latents = { .size = sizeof latents,
                                   .rows = { rows, state->case_.dtype, (ptrdiff_t)state->row_bytes },
                                   .norm = norm,
                                   .norm_dtype = KVT_F32,
                                   .norm_epsilon = 1e-6f,
                                   .rope_pairs = KVT_ROPE_PAIRS_NEIGHBOURS,
                                   .rope_cos = norm + state->case_.dim,
                                   .rope_sin = norm + state->case_.dim + state->head_tokens * BENCH_ROPE_DIM / 2 };
    return kvt_mla_write(&state->layout, &pages, 0, state->head_tokens, &latents);
}

static size_t norm_and_turns(const workload *state)
{
    return state->case_.rope != NULL ? state->case_.dim + state->head_tokens * BENCH_ROPE_DIM : 0;
}

static kvt_status import_head(workload *state, size_t head, const unsigned char *rows)
{
    const kvt_pages pages = head_pages_of(state, head);
    return kvt_convert_in(&state->layout, state->case_.side, &pages, 0, state->head_tokens, bench_row_format(state->case_.scheme), rows,
                          (ptrdiff_t)state->row_bytes, NULL);
}

static int fill(workload *state, workload_size size)
{
    const size_t different = size == WORKLOAD_TINY ? 4 : state->head_tokens; /* rows */
    const size_t rows_bytes = state->steps * state->step_rows * state->row_bytes;
    kvt_status status = KVT_OK;
    if (is_converting(&state->case_)) {
        fill_rows(state->scratch.base, different, state->case_.dim, KVT_F32);
        status = kvt_rows_encode(bench_row_format(state->case_.scheme), state->case_.dim, different, state->scratch.base, KVT_F32,
                                 (ptrdiff_t)(state->case_.dim * sizeof(float)), state->rows.base, (ptrdiff_t)state->row_bytes, NULL);
        fill_repeat(state->rows.base, different * state->row_bytes, rows_bytes);
        status = status == KVT_OK ? import_head(state, 0, state->rows.base) : status;
    } else {
        fill_rows(state->rows.base, different, bench_row_dim(&state->case_), state->case_.dtype);
        fill_repeat(state->rows.base, different * state->row_bytes, rows_bytes);
        status = write_head(state, 0, 0, state->head_tokens, state->rows.base);
    }
    if (status != KVT_OK) {
        snprintf(state->error, sizeof state->error, "the pages' first rows: %s", kvt_status_text(status));
        return -1;
    }
    const size_t head_bytes = state->head_pages * state->layout.page_bytes;
    fill_repeat(state->pages.base, head_bytes, state->heads * head_bytes);
    if (state->case_.rope != NULL)
        fill_rows(state->foreign.base, 1, (uint32_t)norm_and_turns(state), KVT_F32);
    if (state->ggml != NULL) {
        const size_t stored = ggml_row_bytes(state);
        for (size_t t = 0; t < state->head_tokens; t++) {
            const void *row = state->rows.base + t * state->row_bytes;
            state->ggml->quantize(row, state->foreign.base + t * stored, (int64_t)state->case_.dim);
        }
        fill_repeat(state->foreign.base, state->head_tokens * stored, state->steps * state->step_rows * stored);
    }
    return 0;
}

int workload_open(workload *state, const bench_case *case_, const machine *here, workload_size size)
{
    state->case_ = *case_;
    state->error[0] = '\0';
    state->status = bench_case_layout(case_, &state->layout);
    if (state->status != KVT_OK) {
        snprintf(state->error, sizeof state->error, "%s", kvt_status_text(state->status));
        return -1;
    }
    state->ggml = size != WORKLOAD_TINY ? ggml_format_find(case_) : NULL;
    state->row_bytes = is_converting(case_) ? kvt_row_format_bytes(bench_row_format(case_->scheme), case_->dim)
                                            : bench_row_dim(case_) * kvt_dtype_bytes(case_->dtype);
    state->stored_bytes = case_->side == KVT_K ? state->layout.k.row_bytes + state->layout.rope.row_bytes : state->layout.v.row_bytes;
    choose_geometry(state, here, size);
    for (size_t i = 0; i < N_CONTENDERS; i++)
        state->cursor[i] = state->steps / N_CONTENDERS * i; /* far apart: none finds in the cache what another has just walked */

    const size_t tokens = state->steps * state->step_rows;
    const size_t filled = tokens > state->head_tokens ? tokens : state->head_tokens;
    const size_t moved = tokens * (state->row_bytes + state->stored_bytes);
    const size_t needs[] = { filled * state->row_bytes, state->heads * state->head_pages * state->layout.page_bytes,
                             moved + HUGE_PAGE, /* the halves of memcpy apart from each other */
                             case_->rope != NULL ? norm_and_turns(state) * sizeof(float) : filled * ggml_row_bytes(state) };
    arena *const arenas[] = { &state->rows, &state->pages, &state->scratch, &state->foreign };
    if (arenas_need(arenas, needs, 4, size != WORKLOAD_TINY, state->error, sizeof state->error) != 0)
        return -1;
    return fill(state, size);
}

/* ---- the contenders: steps first .. first + n - 1 ---- */

/* The first refusal is kept. */
static void note_refusal(workload *state, kvt_status status)
{
    if (state->status == KVT_OK)
        state->status = status;
}

static unsigned char *rows_at_step(const workload *state, size_t step)
{
    return state->rows.base + step * state->step_rows * state->row_bytes;
}

static void run_write(workload *state, size_t first, size_t n)
{
    for (size_t s = first; s < first + n; s++)
        note_refusal(state, state->case_.rope != NULL ? write_latents(state, s, rows_at_step(state, s))
                                                      : write_head(state, s, 0, state->head_tokens, rows_at_step(state, s)));
}

static void run_read(workload *state, size_t first, size_t n)
{
    for (size_t s = first; s < first + n; s++) {
        const kvt_pages pages = head_pages_of(state, s);
        note_refusal(state, kvt_read(&state->layout, state->case_.side, &pages, 0, state->head_tokens, rows_at_step(state, s), state->case_.dtype,
                                     (ptrdiff_t)state->row_bytes));
    }
}

/* Where a step of append is: one token of every sequence, then the next of every sequence. */
typedef struct append_place {
    size_t head, token; /* the first of its heads, and the token in each */
} append_place;

static append_place append_place_of(const workload *state, size_t step)
{
    enum { STAGGER = 29 }; /* sequences are not all at the same token of their pages */
    const size_t sequences = state->heads / BENCH_APPEND_HEADS, sequence = step % sequences;
    return (append_place){ .head = sequence * BENCH_APPEND_HEADS,
                           .token = (step / sequences + sequence * STAGGER) % KVT_PAGE_TOKENS + (state->head_pages - 1) * KVT_PAGE_TOKENS };
}

static void run_append(workload *state, size_t first, size_t n)
{
    for (size_t s = first; s < first + n; s++) {
        const append_place at = append_place_of(state, s);
        kvt_pages pages[BENCH_APPEND_HEADS];
        for (size_t h = 0; h < BENCH_APPEND_HEADS; h++)
            pages[h] = head_pages_of(state, at.head + h);
        note_refusal(state, kvt_append(&state->layout, state->case_.side, pages, at.token, rows_at_step(state, s), state->case_.dtype,
                                       (ptrdiff_t)state->row_bytes));
    }
}

static void run_cells(workload *state, size_t first, size_t n)
{
    const kvt_side_layout *side = &state->layout.k;
    for (size_t s = first; s < first + n; s++) {
        const append_place at = append_place_of(state, s);
        const size_t tile = at.token % KVT_PAGE_TOKENS / KVT_TILE_TOKENS;
        for (size_t h = 0; h < BENCH_APPEND_HEADS; h++) {
            const kvt_pages pages = head_pages_of(state, at.head + h);
            unsigned char *page = (unsigned char *)pages.base + at.token / KVT_PAGE_TOKENS * pages.stride;
            unsigned char *cell = page + side->codes_offset + tile * side->code_bytes + at.token % KVT_TILE_TOKENS * 4;
            for (size_t line = 0; line < side->code_bytes / LINE; line++) {
                uint32_t four = 0;
                __asm__ volatile("" : "+r"(four)); /* a store each, as it is for who has numbers to store */
                memcpy(cell + line * LINE, &four, sizeof four);
            }
        }
    }
    __asm__ volatile("" : : "r"(state->pages.base) : "memory");
}

/* As many rows as the same steps of append; or the same rows of latents as they are. */
static void run_bulk(workload *state, size_t first, size_t n)
{
    for (size_t s = first; state->case_.rope != NULL && s < first + n; s++)
        note_refusal(state, write_head(state, s, 0, state->head_tokens, rows_at_step(state, s)));
    if (state->case_.rope != NULL)
        return;
    for (size_t s = first; s < first + n; s += BULK_STEPS)
        note_refusal(state, write_head(state, s / BULK_STEPS % state->heads, (state->head_pages - 1) * KVT_PAGE_TOKENS, KVT_PAGE_TOKENS,
                                       rows_at_step(state, s)));
}

static void run_import(workload *state, size_t first, size_t n)
{
    for (size_t s = first; s < first + n; s++)
        note_refusal(state, import_head(state, s, rows_at_step(state, s)));
}

static void run_export(workload *state, size_t first, size_t n)
{
    for (size_t s = first; s < first + n; s++) {
        const kvt_pages pages = head_pages_of(state, s);
        note_refusal(state, kvt_convert_out(&state->layout, state->case_.side, &pages, 0, state->head_tokens, bench_row_format(state->case_.scheme),
                                            rows_at_step(state, s), (ptrdiff_t)state->row_bytes, NULL));
    }
}

static void run_ours(workload *state, size_t first, size_t n)
{
    static void (*const run[BENCH_N_OPS])(workload *, size_t, size_t) = { run_write, run_read, run_append, run_import, run_export };
    run[state->case_.op](state, first, n);
}

static size_t whole_lines(size_t bytes)
{
    return bytes / LINE * LINE;
}

static void run_floor(workload *state, size_t first, size_t n)
{
    const size_t rows = state->step_rows * state->row_bytes;
    const size_t stored = state->step_rows * state->stored_bytes;
    unsigned char *row = state->rows.base + whole_lines(first * rows);
    if (is_reading(&state->case_))
        floor_move(state->pages.base + whole_lines(first * stored), n * stored, row, n * rows);
    else
        floor_move(row, n * rows, state->scratch.base + whole_lines(first * stored), n * stored);
}

static void run_memcpy(workload *state, size_t first, size_t n)
{
    enum { APART = 17 * LINE }; /* the halves do not begin at the same place of a small page */
    const size_t half = state->step_rows * (state->row_bytes + state->stored_bytes) / 2;
    unsigned char *to = state->scratch.base + state->steps * half / LINE * LINE + APART;
    for (size_t s = first; s < first + n; s++)
        memcpy(to + s * half, state->scratch.base + s * half, half);
    __asm__ volatile("" : : "r"(to) : "memory");
}

static void run_ggml(workload *state, size_t first, size_t n)
{
    const size_t rows = state->step_rows * state->row_bytes;
    const size_t stored = state->step_rows * ggml_row_bytes(state);
    const int64_t elements = (int64_t)(state->step_rows * state->case_.dim);
    for (size_t s = first; s < first + n; s++) {
        void *row = state->rows.base + s * rows;
        if (state->case_.op == BENCH_READ)
            state->ggml->dequantize(state->foreign.base + s * stored, row, elements);
        else
            state->ggml->quantize(row, state->foreign.base + s * stored, elements);
    }
}

/* ---- samples ---- */

static double sample_one(workload *state, contender who)
{
    static void (*const run[N_CONTENDERS])(workload *, size_t, size_t) = { run_ours, run_floor, run_memcpy, run_ggml, run_bulk, run_cells };
    size_t *cursor = &state->cursor[who];
    if (state->case_.where == BENCH_L2) {
        *cursor = 0;
        run[who](state, 0, state->steps); /* brings it into the cache */
    } else if (*cursor + state->sample_steps > state->steps) {
        *cursor = 0;
    }
    const double start = seconds_now();
    for (size_t pass = 0; pass < state->sample_passes; pass++)
        run[who](state, *cursor, state->sample_steps);
    const double taken = seconds_now() - start;
    *cursor += state->sample_steps;
    return taken;
}

/* What the calls of samples have come to so far. */
static int sampled(workload *state)
{
    if (state->status == KVT_OK)
        return 0;
    snprintf(state->error, sizeof state->error, "%s: %s", BENCH_OP_NAMES[state->case_.op], kvt_status_text(state->status));
    return -1;
}

int workload_sample_ours(workload *state, double *seconds)
{
    *seconds = sample_one(state, CONTENDER_OURS);
    return sampled(state);
}

int workload_sample(workload *state, double seconds[N_CONTENDERS])
{
    seconds[CONTENDER_OURS] = sample_one(state, CONTENDER_OURS);
    seconds[CONTENDER_FLOOR] = sample_one(state, CONTENDER_FLOOR);
    seconds[CONTENDER_MEMCPY] = sample_one(state, CONTENDER_MEMCPY);
    seconds[CONTENDER_GGML] = state->ggml != NULL ? sample_one(state, CONTENDER_GGML) : (double)NAN;
    seconds[CONTENDER_BULK] = state->case_.op == BENCH_APPEND || state->case_.rope != NULL ? sample_one(state, CONTENDER_BULK) : (double)NAN;
    seconds[CONTENDER_CELLS] = state->case_.op == BENCH_APPEND && state->case_.side == KVT_K ? sample_one(state, CONTENDER_CELLS) : (double)NAN;
    return sampled(state);
}

kvt_status workload_run_ours(workload *state)
{
    run_ours(state, 0, state->sample_steps);
    return state->status;
}

static size_t sample_rows(const workload *state)
{
    return state->sample_passes * state->sample_steps * state->step_rows;
}

size_t workload_elements(const workload *state)
{
    return sample_rows(state) * bench_row_dim(&state->case_);
}

size_t workload_bytes_in(const workload *state)
{
    return sample_rows(state) * (is_reading(&state->case_) ? state->stored_bytes : state->row_bytes);
}

size_t workload_bytes_out(const workload *state)
{
    return sample_rows(state) * (is_reading(&state->case_) ? state->row_bytes : state->stored_bytes);
}

void workload_close(workload *state)
{
    arena_free(&state->rows);
    arena_free(&state->pages);
    arena_free(&state->scratch);
    arena_free(&state->foreign);
}
