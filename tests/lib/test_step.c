/* SPDX-License-Identifier: MIT */
/* The step: appending, attending and merging of batches, against plain attention in double precision over the rows that are stored, and against
 * itself: the same bits for every number of workers, grouping of tokens into steps, place of blocks and tier. */
#define _POSIX_C_SOURCE 200809L /* pthread_barrier_t */
#include "support.h"

#include <kvtile/step.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SEQUENCES = 3, MOST_TOKENS = 1152, MOST_PAGES = MOST_TOKENS / 64 + 1, WORKERS = 16 };

/* ---- what is asked ---- */

typedef enum masks { NO_MASKS, RUNS, PAGES, RUNS_AND_PAGES, MASKS } masks;

typedef struct scene {
    kvt_spec spec, first;
    bool has_first, is_apart;
    kvt_dtype open, dtype, out_dtype;
    uint32_t heads, n;
    size_t tokens[MOST_SEQUENCES];
    size_t window;
    float soft_cap;
    bool has_sinks, has_slopes;
    masks masks;
    double tolerance; /* of results that have a magnitude of about 1 */
} scene;

static scene plain_scene(kvt_scheme scheme, uint32_t k_dim, uint32_t v_dim)
{
    scene s = { .open = KVT_F16, .dtype = KVT_F16, .out_dtype = KVT_F32, .heads = 4, .n = 3, .tokens = { 150, 1100, 64 }, .tolerance = 2e-3 };
    s.spec = test_spec(scheme, scheme, k_dim, v_dim);
    s.spec.kv_heads = 2;
    s.first = s.spec;
    return s;
}

/* Rows and results of all tokens: of sequence i, token t, head h at (i * MOST_TOKENS + t) * heads + h. */
typedef struct data {
    uint32_t q_dim, k_dim, v_dim, out_dim, kv_heads;
    unsigned char *q, *k, *v;
    double *q_numbers, *k_numbers, *v_numbers; /* the same */
    float sinks[64], slopes[64];
} data;

static size_t row_of(size_t sequence, size_t token, size_t head, size_t heads)
{
    return (sequence * MOST_TOKENS + token) * heads + head;
}

static unsigned char *random_rows(uint64_t *state, size_t rows, uint32_t dim, kvt_dtype dtype)
{
    float *numbers = test_malloc(rows * dim * sizeof *numbers);
    for (size_t i = 0; i < rows * dim; i++)
        numbers[i] = (float)test_normal(state);
    const size_t bytes = kvt_dtype_bytes(dtype);
    unsigned char *narrowed = test_malloc(rows * dim * bytes);
    for (size_t i = 0; i < rows * dim; i++) {
        uint32_t bits;
        memcpy(&bits, &numbers[i], 4);
        if (dtype != KVT_F32)
            bits = oracle_narrow(dtype == KVT_F16 ? oracle_f16 : oracle_bf16, bits);
        memcpy(narrowed + bytes * i, &bits, bytes);
    }
    free(numbers);
    return narrowed;
}

static double *numbers_of(const unsigned char *rows, kvt_dtype dtype, size_t n)
{
    double *numbers = test_malloc(n * sizeof *numbers);
    const size_t bytes = kvt_dtype_bytes(dtype);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0;
        memcpy(&bits, rows + bytes * i, bytes);
        numbers[i] = oracle_value(dtype == KVT_F32 ? oracle_f32 : dtype == KVT_F16 ? oracle_f16 : oracle_bf16, bits);
    }
    return numbers;
}

static data data_of(const scene *s, uint64_t seed)
{
    const kvt_spec *spec = &s->spec;
    data d = { .k_dim = spec->k_dim, .v_dim = spec->v_dim ? spec->v_dim : spec->rope_dim, .kv_heads = spec->kv_heads };
    d.q_dim = spec->k_dim + spec->rope_dim;
    d.out_dim = spec->v_dim ? spec->v_dim : spec->k_dim;
    const size_t tokens = (size_t)s->n * MOST_TOKENS;
    d.q = random_rows(&seed, tokens * s->heads, d.q_dim, s->dtype);
    d.k = random_rows(&seed, tokens * d.kv_heads, d.k_dim, s->dtype);
    d.v = random_rows(&seed, tokens * d.kv_heads, d.v_dim, s->dtype);
    d.q_numbers = numbers_of(d.q, s->dtype, tokens * s->heads * d.q_dim);
    d.k_numbers = numbers_of(d.k, s->dtype, tokens * d.kv_heads * d.k_dim);
    d.v_numbers = numbers_of(d.v, s->dtype, tokens * d.kv_heads * d.v_dim);
    for (int h = 0; h < 64; h++) {
        d.sinks[h] = (float)test_normal(&seed);
        d.slopes[h] = (float)ldexp(1, -1 - h % 8);
    }
    return d;
}
static void free_data(const data *d)
{
    free(d->q);
    free(d->k);
    free(d->v);
    free(d->q_numbers);
    free(d->k_numbers);
    free(d->v_numbers);
}

/* What token `token` may see, by its place alone, so that grouping does not matter. */
static kvt_mask mask_of(const scene *s, size_t token, kvt_run runs[3], uint32_t pages[MOST_PAGES])
{
    kvt_mask m = { .runs = NULL };
    if (s->masks == RUNS || s->masks == RUNS_AND_PAGES) {
        const size_t third = token / 3 + 1;
        runs[0] = (kvt_run){ token % 5, token % 5 + 1 + third / 2 };
        runs[1] = (kvt_run){ runs[0].end + 3, runs[0].end + 3 + third / 3 + 1 };
        runs[2] = (kvt_run){ runs[1].end, token + 100 }; /* touches the one before */
        m.runs = runs;
        m.n_runs = token % 7 ? 3 : 2; /* some tokens do not see themselves, and some nothing */
    }
    if (s->masks == PAGES || s->masks == RUNS_AND_PAGES) {
        for (uint32_t p = 0; p < token / 64; p++)
            if ((p * 7 + token) % 3 == 0 || p == 0)
                pages[m.n_pages++] = p;
        m.pages = pages;
    }
    return m;
}

/* ---- running ---- */

typedef struct way {
    uint32_t workers, tiers;
    size_t most_fresh; /* of a sequence in a step; 0: all at once */
    uint64_t seed;     /* of blocks' order and of the grouping */
    bool is_threaded;
} way;

typedef struct run {
    float *out, *lse; /* as rows of queries are */
    unsigned char *pages;
    size_t page_bytes; /* [sequence][page][head][2 parts] of that many */
} run;

typedef struct job {
    const kvt_step *step;
    uint32_t worker, workers;
    pthread_barrier_t *barrier;
    kvt_status status[3];
} job;

static void *work(void *argument)
{
    job *j = argument;
    j->status[0] = kvt_step_append(j->step, j->worker, j->workers);
    pthread_barrier_wait(j->barrier);
    j->status[1] = kvt_step_attend(j->step, j->worker, j->workers);
    pthread_barrier_wait(j->barrier);
    j->status[2] = kvt_step_merge(j->step, j->worker, j->workers);
    return NULL;
}

static void require(kvt_status status, const kvt_step *step)
{
    char why[300] = "";
    if (status)
        (void)kvt_step_problem(step, why, sizeof why);
    TEST_REQUIRE(status == KVT_OK, "%s (%s)", why, kvt_status_text(status));
}

static void do_step(const kvt_step *step, const way *how)
{
    if (!how->is_threaded) {
        for (uint32_t w = how->workers; w-- > 0;)
            require(kvt_step_append(step, w, how->workers), step);
        for (uint32_t w = 0; w < how->workers; w++)
            require(kvt_step_attend(step, w, how->workers), step);
        for (uint32_t w = 0; w < how->workers; w++)
            require(kvt_step_merge(step, w, how->workers), step);
        return;
    }
    pthread_barrier_t barrier;
    pthread_t threads[WORKERS];
    job jobs[WORKERS];
    ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, how->workers), 0);
    for (uint32_t w = 0; w < how->workers; w++) {
        jobs[w] = (job){ step, w, how->workers, &barrier, { KVT_OK } };
        ck_assert_int_eq(pthread_create(&threads[w], NULL, work, &jobs[w]), 0);
    }
    for (uint32_t w = 0; w < how->workers; w++) {
        ck_assert_int_eq(pthread_join(threads[w], NULL), 0);
        for (int i = 0; i < 3; i++)
            require(jobs[w].status[i], step);
    }
    pthread_barrier_destroy(&barrier);
}

/* A pool whose blocks are in some order: [layer][head][block] or [layer][block][head], by the seed. */
static kvt_pool pool_of(size_t bytes, size_t blocks, uint32_t heads, uint64_t *state)
{
    kvt_pool pool = { .blocks = blocks, .layer_stride = bytes * blocks * heads };
    pool.head_stride = test_below(state, 2) ? bytes : bytes * blocks;
    pool.block_stride = pool.head_stride == bytes ? bytes * heads : bytes;
    pool.base = test_malloc(2 * pool.layer_stride);
    test_fill(state, pool.base, 2 * pool.layer_stride);
    return pool;
}

static void shuffled(uint32_t *ids, size_t n, uint64_t *state)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        const size_t j = test_below(state, (uint32_t)i);
        const uint32_t id = ids[i - 1];
        ids[i - 1] = ids[j];
        ids[j] = id;
    }
}

/* A view with room for a scene, and its sequences before their first token. */
typedef struct store {
    kvt_layout layout, first;
    kvt_view view;
    uint32_t ids[MOST_SEQUENCES * MOST_PAGES];
    kvt_sequence sequences[MOST_SEQUENCES];
} store;

static void open_store(store *st, const scene *s, const way *how)
{
    uint64_t state = how->seed;
    kvt_spec spec = s->spec, first = s->first;
    spec.tiers = first.tiers = how->tiers;
    ck_assert_int_eq(kvt_layout_init(&st->layout, &spec), KVT_OK);
    ck_assert_int_eq(kvt_layout_init(&st->first, &first), KVT_OK);
    if (s->is_apart) {
        ck_assert_int_eq(kvt_layout_apart(&st->layout, &st->layout), KVT_OK);
        ck_assert_int_eq(kvt_layout_apart(&st->first, &st->first), KVT_OK);
    }
    const kvt_side second = spec.v_dim ? KVT_V : KVT_ROPE;
    size_t k, v, first_k, first_v, open = 0;
    ck_assert_int_eq(kvt_layout_part_bytes(&st->layout, KVT_K, &k), KVT_OK);
    ck_assert_int_eq(kvt_layout_part_bytes(&st->layout, second, &v), KVT_OK);
    ck_assert_int_eq(kvt_layout_part_bytes(&st->first, KVT_K, &first_k), KVT_OK);
    ck_assert_int_eq(kvt_layout_part_bytes(&st->first, second, &first_v), KVT_OK);
    if (s->open)
        ck_assert_int_eq(kvt_view_open_bytes(&st->layout, s->open, &open), KVT_OK);
    const size_t blocks = (size_t)s->n * MOST_PAGES;
    kvt_view view = { .size = sizeof view, .layout = &st->layout, .open_dtype = s->open, .layers = 2 };
    view.pages = pool_of(k, blocks, spec.kv_heads, &state);
    if (s->is_apart)
        view.value_pages = pool_of(v, blocks, spec.kv_heads, &state);
    if (s->has_first) {
        view.first_layout = &st->first;
        view.first_pages = pool_of(first_k, blocks, spec.kv_heads, &state);
        if (s->is_apart)
            view.first_value_pages = pool_of(first_v, blocks, spec.kv_heads, &state);
    }
    if (s->open)
        view.open_pages = pool_of(open, 2 * (size_t)s->n, spec.kv_heads, &state);
    st->view = view;
    uint32_t opens[2 * MOST_SEQUENCES];
    shuffled(st->ids, blocks, &state);
    shuffled(opens, 2 * (size_t)s->n, &state);
    for (uint32_t i = 0; i < s->n; i++)
        st->sequences[i] = (kvt_sequence){ .blocks = st->ids + i * MOST_PAGES, .n_blocks = MOST_PAGES, .open = { opens[2 * i], opens[2 * i + 1] } };
}
static void close_store(const store *st)
{
    free(st->view.pages.base);
    free(st->view.value_pages.base);
    free(st->view.first_pages.base);
    free(st->view.first_value_pages.base);
    free(st->view.open_pages.base);
}

static void *workspace_of(const store *st, const scene *s, const way *how, kvt_step *step)
{
    const kvt_step_limits limits = { s->n, MOST_TOKENS, (size_t)s->n * MOST_TOKENS, s->heads, how->workers };
    ck_assert_int_eq(kvt_step_workspace(&st->view, &limits, &step->workspace_bytes), KVT_OK);
    step->workspace = aligned_alloc(64, (step->workspace_bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(step->workspace);
    return step->workspace;
}

static kvt_step step_of(const store *st, const scene *s, const data *d)
{
    const size_t number = kvt_dtype_bytes(s->dtype);
    return (kvt_step){ .size = sizeof(kvt_step),
                       .view = &st->view,
                       .layer = 1,
                       .heads = s->heads,
                       .dtype = s->dtype,
                       .q_token_stride = (ptrdiff_t)(s->heads * d->q_dim * number),
                       .q_head_stride = (ptrdiff_t)(d->q_dim * number),
                       .k_token_stride = (ptrdiff_t)(d->kv_heads * d->k_dim * number),
                       .k_head_stride = (ptrdiff_t)(d->k_dim * number),
                       .v_token_stride = (ptrdiff_t)(d->kv_heads * d->v_dim * number),
                       .v_head_stride = (ptrdiff_t)(d->v_dim * number),
                       .out_token_stride = (ptrdiff_t)(s->heads * d->out_dim * 4),
                       .out_head_stride = (ptrdiff_t)(d->out_dim * 4),
                       .out_dtype = KVT_F32,
                       .scale = 1 / sqrtf((float)d->q_dim),
                       .soft_cap = s->soft_cap,
                       .window = s->window,
                       .sinks = s->has_sinks ? d->sinks : NULL,
                       .slopes = s->has_slopes ? d->slopes : NULL };
}

/* Copies of the pages that are full, in the order of their sequences. */
static unsigned char *pages_of(const store *st, const scene *s, size_t *bytes)
{
    const kvt_view *v = &st->view;
    const size_t part = st->layout.page_bytes > st->first.page_bytes ? st->layout.page_bytes : st->first.page_bytes;
    *bytes = 2 * part * s->spec.kv_heads * MOST_PAGES * s->n;
    unsigned char *all = calloc(1, *bytes), *to = all;
    ck_assert_ptr_nonnull(all);
    for (uint32_t i = 0; i < s->n; i++)
        for (size_t p = 0; p < MOST_PAGES; p++)
            for (uint32_t h = 0; h < s->spec.kv_heads; h++)
                for (int value = 0; value < 2; value++, to += part) {
                    const bool is_first = p == 0 && s->has_first;
                    const kvt_pool *pool = value ? (is_first ? &v->first_value_pages : &v->value_pages) : (is_first ? &v->first_pages : &v->pages);
                    size_t used;
                    if ((value && !s->is_apart) || p >= s->tokens[i] / 64)
                        continue;
                    ck_assert_int_eq(kvt_layout_part_bytes(is_first ? &st->first : &st->layout, value ? KVT_V : KVT_K, &used), KVT_OK);
                    memcpy(to,
                           (unsigned char *)pool->base + pool->layer_stride + st->sequences[i].blocks[p] * pool->block_stride + h * pool->head_stride,
                           s->spec.v_dim && !s->is_apart ? used / 64 * 64 : used);
                }
    return all;
}

/* Bytes behind centres are nobody's. */
static void forget_padding(const scene *s, const store *st, unsigned char *all)
{
    const size_t part = st->layout.page_bytes > st->first.page_bytes ? st->layout.page_bytes : st->first.page_bytes;
    for (size_t i = 0; i < (size_t)s->n * MOST_PAGES * s->spec.kv_heads * 2; i++) {
        const size_t page = i / 2 / s->spec.kv_heads % MOST_PAGES;
        const kvt_layout *l = page == 0 && s->has_first ? &st->first : &st->layout;
        const kvt_side_layout *sides[] = { &l->k, &l->v, &l->rope };
        size_t used = 0;
        for (int side = 0; side < 3; side++)
            if (!s->is_apart || side == (int)(i % 2))
                used += (size_t)sides[side]->row_bytes * 64 + sides[side]->centre_bytes;
        memset(all + i * part + used, 0, part - used);
    }
}

static run run_scene(const scene *s, const data *d, const way *how)
{
    store st;
    open_store(&st, s, how);
    kvt_step step = step_of(&st, s, d);
    void *workspace = workspace_of(&st, s, how, &step);
    const size_t rows = (size_t)s->n * MOST_TOKENS * s->heads, number = kvt_dtype_bytes(s->dtype);
    run r = { .out = calloc(rows * d->out_dim, sizeof(float)), .lse = calloc(rows, sizeof(float)) };
    const size_t most = (size_t)s->n * MOST_TOKENS;
    unsigned char *q = test_malloc(most * s->heads * d->q_dim * number), *k = test_malloc(most * d->kv_heads * d->k_dim * number),
                  *v = test_malloc(most * d->kv_heads * d->v_dim * number);
    float *out = test_malloc(most * s->heads * d->out_dim * sizeof *out), *lse = test_malloc(most * s->heads * sizeof *lse);
    kvt_mask *all_masks = calloc(most, sizeof *all_masks);
    kvt_run(*runs)[3] = calloc(most, sizeof *runs);
    uint32_t(*pages)[MOST_PAGES] = calloc(most, sizeof *pages);
    uint64_t state = how->seed + 1;
    for (;;) {
        size_t token = 0;
        for (uint32_t i = 0; i < s->n; i++) {
            kvt_sequence *sequence = &st.sequences[i];
            const size_t left = s->tokens[i] - sequence->stored, limit = how->most_fresh && how->most_fresh < left ? how->most_fresh : left;
            sequence->fresh = (uint32_t)(how->most_fresh && limit > 1 ? 1 + test_below(&state, (uint32_t)limit) : limit);
            if (how->most_fresh > 1 && test_below(&state, 4) == 0)
                sequence->fresh = 0;
            sequence->masks = s->masks ? all_masks + token : NULL;
            for (uint32_t t = 0; t < sequence->fresh; t++, token++) {
                memcpy(q + token * s->heads * d->q_dim * number, d->q + row_of(i, sequence->stored + t, 0, s->heads) * d->q_dim * number,
                       s->heads * d->q_dim * number);
                memcpy(k + token * d->kv_heads * d->k_dim * number, d->k + row_of(i, sequence->stored + t, 0, d->kv_heads) * d->k_dim * number,
                       d->kv_heads * d->k_dim * number);
                memcpy(v + token * d->kv_heads * d->v_dim * number, d->v + row_of(i, sequence->stored + t, 0, d->kv_heads) * d->v_dim * number,
                       d->kv_heads * d->v_dim * number);
                all_masks[token] = mask_of(s, sequence->stored + t, runs[token], pages[token]);
            }
        }
        bool is_done = token == 0;
        for (uint32_t i = 0; i < s->n; i++)
            is_done &= st.sequences[i].stored == s->tokens[i];
        if (is_done)
            break;
        step.sequences = st.sequences;
        step.n_sequences = s->n;
        step.q = q;
        step.k = k;
        step.v = d->v_dim ? v : NULL;
        step.out = out;
        step.lse = lse;
        do_step(&step, how);
        token = 0;
        for (uint32_t i = 0; i < s->n; i++) {
            kvt_sequence *sequence = &st.sequences[i];
            const size_t to = row_of(i, sequence->stored, 0, s->heads);
            memcpy(r.out + to * d->out_dim, out + token * s->heads * d->out_dim, sequence->fresh * s->heads * d->out_dim * sizeof *out);
            memcpy(r.lse + to, lse + token * s->heads, sequence->fresh * s->heads * sizeof *lse);
            token += sequence->fresh;
            sequence->stored += sequence->fresh;
        }
    }
    r.pages = pages_of(&st, s, &r.page_bytes);
    forget_padding(s, &st, r.pages);
    free(q), free(k), free(v), free(out), free(lse), free(all_masks), free(runs), free(pages), free(workspace);
    close_store(&st);
    return r;
}
static void free_run(const run *r)
{
    free(r->out);
    free(r->lse);
    free(r->pages);
}

/* ---- the reference ---- */

static bool is_seen(const scene *s, size_t query, size_t token, const kvt_mask *m)
{
    bool is = token <= query && (!s->window || query - token < s->window);
    bool in_runs = m->runs == NULL, in_pages = m->pages == NULL || token / 64 == query / 64;
    for (size_t i = 0; m->runs && i < m->n_runs; i++)
        in_runs |= token >= m->runs[i].first && token < m->runs[i].end;
    for (size_t i = 0; m->pages && i < m->n_pages; i++)
        in_pages |= m->pages[i] == token / 64;
    return is && in_runs && in_pages;
}

/* What one query row gets of rows as they came: what was stored differs by what the scheme costs, which the tolerance has to allow. */
static double reference(const scene *s, const data *d, size_t i, size_t query, uint32_t head, double *out)
{
    kvt_run runs[3];
    uint32_t pages[MOST_PAGES];
    const kvt_mask m = mask_of(s, query, runs, pages);
    const uint32_t kv_head = head / (s->heads / d->kv_heads);
    const bool is_latent = s->spec.v_dim == 0;
    const double scale = (double)(1 / sqrtf((float)d->q_dim));
    static double logits[MOST_TOKENS];
    double max = s->has_sinks ? (double)d->sinks[head] : -INFINITY, sum = 0;
    for (size_t t = 0; t <= query; t++) {
        double logit = 0;
        if (!is_seen(s, query, t, &m))
            continue;
        const size_t row = row_of(i, t, kv_head, d->kv_heads);
        const double *q = d->q_numbers + row_of(i, query, head, s->heads) * d->q_dim;
        for (uint32_t c = 0; c < d->q_dim; c++)
            logit += q[c] * (c < d->k_dim ? d->k_numbers[row * d->k_dim + c] : d->v_numbers[row * d->v_dim + c - d->k_dim]);
        logit *= scale;
        if (s->soft_cap != 0)
            logit = (double)s->soft_cap * tanh(logit / (double)s->soft_cap);
        if (s->has_slopes)
            logit -= (double)d->slopes[head] * (double)(query - t);
        logits[t] = logit;
        max = logit > max ? logit : max;
    }
    memset(out, 0, d->out_dim * sizeof *out);
    if (s->has_sinks)
        sum = exp((double)d->sinks[head] - max);
    for (size_t t = 0; t <= query; t++) {
        if (!is_seen(s, query, t, &m))
            continue;
        const double weight = exp(logits[t] - max);
        const size_t row = row_of(i, t, kv_head, d->kv_heads);
        sum += weight;
        for (uint32_t c = 0; c < d->out_dim; c++)
            out[c] += weight * (is_latent ? d->k_numbers[row * d->k_dim + c] : d->v_numbers[row * d->v_dim + c]);
    }
    for (uint32_t c = 0; c < d->out_dim; c++)
        out[c] = sum > 0 ? out[c] / sum : 0;
    return sum > 0 ? max + log(sum) : -INFINITY;
}

static void compare_with_reference(const scene *s, const data *d, const run *r, size_t every)
{
    double out[KVT_MAX_DIM];
    for (uint32_t i = 0; i < s->n; i++)
        for (size_t t = i; t < s->tokens[i]; t += t + 1 == s->tokens[i] ? 1 : t + every < s->tokens[i] ? every : s->tokens[i] - 1 - t)
            for (uint32_t h = 0; h < s->heads; h++) {
                const size_t row = row_of(i, t, h, s->heads);
                const double lse = reference(s, d, i, t, h, out);
                for (uint32_t c = 0; c < d->out_dim; c++)
                    TEST_REQUIRE(fabs((double)r->out[row * d->out_dim + c] - out[c]) <= s->tolerance,
                                 "sequence %u, token %zu, head %u, channel %u: %g, not %g", i, t, h, c, (double)r->out[row * d->out_dim + c], out[c]);
                TEST_REQUIRE(isinf(lse) ? r->lse[row] == -INFINITY : fabs((double)r->lse[row] - lse) <= s->tolerance,
                             "sequence %u, token %zu, head %u: a logarithm of %g, not %g", i, t, h, (double)r->lse[row], lse);
            }
}

/* ---- scenes ---- */

static scene scene_at(int n)
{
    scene s = plain_scene(KVT_SCHEME_f16, 48, 32);
    switch (n) {
    case 0:
        break;
    case 1: /* keys and values apart, a rotation, f32 rows kept as they are */
        s = plain_scene(KVT_SCHEME_f32, 64, 80);
        s.is_apart = true;
        s.open = s.dtype = KVT_F32;
        s.spec.k_options.rotation = s.spec.v_options.rotation = KVT_ROTATION_64;
        s.spec.v_options.centring = KVT_CENTRING_OWN;
        s.first = s.spec;
        s.has_sinks = true;
        s.tolerance = 1e-4;
        break;
    case 2: /* a window, a soft cap */
        s.window = 200;
        s.soft_cap = 2;
        s.has_sinks = true;
        break;
    case 3:
        s.has_slopes = true;
        s.masks = PAGES;
        break;
    case 4:
        s.masks = RUNS;
        s.soft_cap = 3;
        break;
    case 5: /* all together, another kind of rows */
        s.masks = RUNS_AND_PAGES;
        s.window = 700;
        s.dtype = s.open = KVT_BF16;
        s.spec.k_scheme = s.spec.v_scheme = KVT_SCHEME_bf16;
        break;
    case 6: /* what presets choose */
        s = plain_scene(KVT_SCHEME_kv5, 64, 64);
        ck_assert_int_eq(kvt_preset_spec(KVT_PRESET_BALANCED, &s.spec, &s.first), KVT_OK);
        s.has_first = true;
        s.tolerance = 0.25;
        break;
    case 7: /* the same, apart, and rows that are rounded to be kept */
        s = plain_scene(KVT_SCHEME_kv4, 64, 64);
        ck_assert_int_eq(kvt_preset_spec(KVT_PRESET_QUALITY, &s.spec, &s.first), KVT_OK);
        s.has_first = s.is_apart = true;
        s.dtype = KVT_F32;
        s.tolerance = 0.12;
        break;
    case 8: /* a latent with its rotary part, all heads one group */
        s = plain_scene(KVT_SCHEME_kv8, 96, 0);
        s.spec.kv_heads = 1;
        s.spec.rope_dim = 32;
        s.spec.rope_scheme = KVT_SCHEME_bf16;
        s.spec.k_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN };
        s.first = s.spec;
        s.heads = 5;
        s.tolerance = 0.03;
        break;
    case 9: /* no open pages: rows go to their pages */
        s = plain_scene(KVT_SCHEME_kv8, 64, 64);
        s.open = (kvt_dtype)0;
        s.spec.k_options.centring = KVT_CENTRING_PAGE;
        s.spec.v_options.centring = KVT_CENTRING_SEQUENCE;
        s.tolerance = 0.03;
        break;
    default: /* centres of the page before, with open pages */
        s = plain_scene(KVT_SCHEME_kv8, 64, 64);
        s.spec.k_options.centring = KVT_CENTRING_PAGE;
        s.spec.v_options.centring = KVT_CENTRING_SEQUENCE;
        s.tolerance = 0.03;
    }
    return s;
}
enum { SCENES = 11 };

START_TEST(results_are_right)
{
    scene s = scene_at(_i);
    if (KVT_TEST_SHARE > 1 && _i != 0 && _i != 6) /* these have several chunks */
        s.tokens[1] = 300;
    const data d = data_of(&s, 77);
    const run all = run_scene(&s, &d, &(way){ .workers = 1, .seed = 5 });
    compare_with_reference(&s, &d, &all, KVT_TEST_SHARE > 1 ? 401 : 97);
    free_run(&all);
    free_data(&d);
}
END_TEST

static void compare_runs(const scene *s, const data *d, const run *a, const run *b, const char *what)
{
    const size_t rows = (size_t)s->n * MOST_TOKENS * s->heads;
    TEST_REQUIRE(a->page_bytes == b->page_bytes && test_difference(a->pages, b->pages, a->page_bytes) == a->page_bytes,
                 "%s: pages differ at byte %zu", what, test_difference(a->pages, b->pages, a->page_bytes));
    const size_t at = test_difference(a->out, b->out, rows * d->out_dim * 4);
    TEST_REQUIRE(at == rows * d->out_dim * 4, "%s: results differ: sequence %zu, token %zu", what, at / 4 / d->out_dim / s->heads / MOST_TOKENS,
                 at / 4 / d->out_dim / s->heads % MOST_TOKENS);
    TEST_REQUIRE(test_difference(a->lse, b->lse, rows * 4) == rows * 4, "%s: logarithms differ", what);
}

START_TEST(bits_are_the_same)
{
    scene s = scene_at(_i);
    if (KVT_TEST_SHARE > 1 || (_i != 0 && _i != 6)) /* these have several chunks */
        s.tokens[1] = 300;
    const data d = data_of(&s, 78);
    const run all = run_scene(&s, &d, &(way){ .workers = 1, .seed = 6 });
    const size_t groupings[] = { 0, 300, 70, s.tokens[1] > 300 ? 150 : 9 };
    uint64_t state = 4711 + (uint64_t)_i;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    for (size_t i = 0; i < n_tiers + 2; i++) {
        const way how = { .workers = i == 0 ? WORKERS : 1 + test_below(&state, WORKERS),
                          .seed = test_random(&state),
                          .tiers = i < n_tiers ? tiers[i].mask : 0,
                          .most_fresh = groupings[i % 4],
                          .is_threaded = KVT_TEST_SHARE == 1 && i % 2 };
        char what[100];
        snprintf(what, sizeof what, "%u workers, tiers 0x%x, up to %zu tokens at once", how.workers, how.tiers, how.most_fresh);
        const run small_steps = run_scene(&s, &d, &how);
        compare_runs(&s, &d, &all, &small_steps, what);
        free_run(&small_steps);
    }
    free_run(&all);
    free_data(&d);
}
END_TEST

/* What is stored is, byte by byte, what kvt_write makes of whole pages: accuracy is that of own centres. */
START_TEST(pages_are_those_of_kvt_write)
{
    scene s = scene_at(_i);
    if (s.open && s.dtype != s.open)
        return; /* rows are rounded before */
    s.is_apart = false;
    s.tokens[1] = 300;
    const data d = data_of(&s, 90);
    const way how = { .workers = 2, .seed = 12, .most_fresh = 90 };
    const run stepped = run_scene(&s, &d, &how);
    store st;
    open_store(&st, &s, &how);
    const kvt_side second = s.spec.v_dim ? KVT_V : KVT_ROPE;
    const size_t number = kvt_dtype_bytes(s.dtype);
    for (uint32_t i = 0; i < s.n; i++)
        for (uint32_t h = 0; h < d.kv_heads; h++) {
            void *table[MOST_PAGES];
            for (size_t p = 0; p < MOST_PAGES; p++) {
                const kvt_pool *pool = p == 0 && s.has_first ? &st.view.first_pages : &st.view.pages;
                table[p] = (unsigned char *)pool->base + pool->layer_stride + st.sequences[i].blocks[p] * pool->block_stride + h * pool->head_stride;
            }
            for (int side = 0; side < 2; side++) {
                const size_t dim = side ? d.v_dim : d.k_dim, full = s.tokens[i] / 64 * 64, first = s.has_first ? 64 : 0;
                const unsigned char *rows = (side ? d.v : d.k) + row_of(i, 0, h, d.kv_heads) * dim * number;
                const ptrdiff_t stride = (ptrdiff_t)(d.kv_heads * dim * number);
                const kvt_pages pages = { .table = table, .count = MOST_PAGES };
                ck_assert_int_eq(kvt_write(s.has_first ? &st.first : &st.layout, side ? second : KVT_K, &pages, 0, first, rows, s.dtype, stride),
                                 KVT_OK);
                ck_assert_int_eq(
                    kvt_write(&st.layout, side ? second : KVT_K, &pages, first, full - first, rows + (ptrdiff_t)first * stride, s.dtype, stride),
                    KVT_OK);
            }
        }
    size_t bytes;
    unsigned char *written = pages_of(&st, &s, &bytes);
    forget_padding(&s, &st, written);
    ck_assert_uint_eq(test_difference(written, stepped.pages, bytes), bytes);
    free(written);
    close_store(&st);
    free_run(&stepped);
    free_data(&d);
}
END_TEST

/* One token at a time, which is what decoding is. */
START_TEST(tokens_one_by_one)
{
    scene s = scene_at(6);
    s.n = 2;
    s.tokens[0] = 200;
    s.tokens[1] = 131;
    const data d = data_of(&s, 79);
    const run all = run_scene(&s, &d, &(way){ .workers = 3, .seed = 6 }),
              small_steps = run_scene(&s, &d, &(way){ .workers = 5, .seed = 7, .most_fresh = 1 });
    compare_runs(&s, &d, &all, &small_steps, "one by one");
    free_run(&all);
    free_run(&small_steps);
    free_data(&d);
}
END_TEST

/* ---- drafts ---- */

/* A tree of drafts behind 100 tokens: of token i the parent is (i - 1) / 2, and it sees its ancestors and itself. As bits it gives what it gives as
 * runs, which are compared with the reference elsewhere. Then the first four drafts are taken back but for two, and others follow: nothing tells. */
START_TEST(drafts)
{
    enum { BEFORE = 100, DRAFTS = 33, KEPT = 2, AFTER = 40 };
    scene s = scene_at(6 + _i); /* together, and apart */
    s.n = 1;
    s.tokens[0] = BEFORE + DRAFTS;
    const data d = data_of(&s, 80), other = data_of(&s, 81);
    const size_t q_row = s.heads * d.q_dim * kvt_dtype_bytes(s.dtype), k_row = d.kv_heads * d.k_dim * kvt_dtype_bytes(s.dtype),
                 v_row = d.kv_heads * d.v_dim * kvt_dtype_bytes(s.dtype), out_row = s.heads * d.out_dim;
    uint64_t bits[DRAFTS] = { 0 };
    kvt_run runs[DRAFTS][8];
    kvt_mask as_bits[DRAFTS], as_runs[DRAFTS];
    for (size_t i = 0; i < DRAFTS; i++) {
        bits[i] = UINT64_C(1) << i | (i ? bits[(i - 1) / 2] : 0);
        as_bits[i] = (kvt_mask){ .bits = &bits[i] };
        size_t n = 0;
        runs[i][n++] = (kvt_run){ 0, BEFORE };
        for (size_t t = 0; t <= i; t++)
            if (bits[i] >> t & 1)
                runs[i][n++] = (kvt_run){ BEFORE + t, BEFORE + t + 1 };
        as_runs[i] = (kvt_mask){ .runs = runs[i], .n_runs = n };
    }
    float *out = test_malloc(4 * (BEFORE + DRAFTS + AFTER) * out_row * sizeof *out);
    for (int with = 0; with < 4; with++) { /* bits, runs; then what follows, without drafts and behind them */
        const way how = { .workers = 2, .seed = 9 + (uint64_t)with };
        float *results = out + (size_t)with * (BEFORE + DRAFTS + AFTER) * out_row;
        store st;
        open_store(&st, &s, &how);
        kvt_step step = step_of(&st, &s, &d);
        void *workspace = workspace_of(&st, &s, &how, &step);
        kvt_sequence *sequence = st.sequences;
        step.sequences = sequence;
        step.n_sequences = 1;
        sequence->fresh = BEFORE;
        step.q = d.q, step.k = d.k, step.v = d.v, step.out = results;
        do_step(&step, &how);
        sequence->stored += BEFORE;
        if (with != 2) {
            sequence->fresh = DRAFTS;
            sequence->masks = with == 1 ? as_runs : as_bits;
            step.q = d.q + BEFORE * q_row, step.k = d.k + BEFORE * k_row, step.v = d.v + BEFORE * v_row, step.out = results + BEFORE * out_row;
            do_step(&step, &how);
        }
        if (with >= 2) {
            sequence->masks = NULL;
            if (with == 2) {
                sequence->fresh = KEPT;
                step.q = d.q + BEFORE * q_row, step.k = d.k + BEFORE * k_row, step.v = d.v + BEFORE * v_row, step.out = results + BEFORE * out_row;
                do_step(&step, &how);
            }
            sequence->stored += KEPT;
            sequence->fresh = AFTER;
            step.q = other.q, step.k = other.k, step.v = other.v, step.out = results + (BEFORE + DRAFTS) * out_row;
            do_step(&step, &how);
        }
        free(workspace);
        close_store(&st);
    }
    const size_t run_floats = (BEFORE + DRAFTS + AFTER) * out_row, before = (BEFORE + DRAFTS) * out_row;
    ck_assert_uint_eq(test_difference(out, out + run_floats, before * 4), before * 4);
    ck_assert_uint_eq(test_difference(out + 2 * run_floats + before, out + 3 * run_floats + before, AFTER * out_row * 4), AFTER * out_row * 4);
    free(out);
    free_data(&d);
    free_data(&other);
}
END_TEST

/* ---- rows of many layers ---- */

START_TEST(rows_of_views)
{
    scene s = scene_at(6);
    s.is_apart = _i == 1;
    s.tokens[0] = 64 * 3 + 21;
    s.n = 1;
    const data d = data_of(&s, 82);
    const run appended = run_scene(&s, &d, &(way){ .workers = 1, .seed = 5 });
    const way how = { .workers = 3, .seed = 10 };
    store st;
    open_store(&st, &s, &how);
    const size_t tokens = s.tokens[0], side = tokens * d.kv_heads * d.k_dim * 2;
    unsigned char *rows = test_malloc(4 * side), *back = test_malloc(4 * side);
    for (size_t layer = 0; layer < 2; layer++) { /* [side][layer][head][token] */
        for (size_t t = 0; t < tokens; t++)
            for (size_t h = 0; h < d.kv_heads; h++) {
                const size_t to = layer * side + (h * tokens + t) * d.k_dim * 2;
                memcpy(rows + to, d.k + row_of(0, t, h, d.kv_heads) * d.k_dim * 2, d.k_dim * 2);
                memcpy(rows + 2 * side + to, d.v + row_of(0, t, h, d.kv_heads) * d.k_dim * 2, d.k_dim * 2);
            }
    }
    kvt_view_rows all = { .size = sizeof all,
                          .view = &st.view,
                          .sequence = st.sequences,
                          .n_tokens = tokens,
                          .layers = 2,
                          .rows = rows,
                          .dtype = s.dtype,
                          .side_stride = (ptrdiff_t)(2 * side),
                          .layer_stride = (ptrdiff_t)side,
                          .token_stride = (ptrdiff_t)(d.k_dim * 2),
                          .head_stride = (ptrdiff_t)(tokens * d.k_dim * 2) };
    for (uint32_t w = 0; w < 3; w++)
        ck_assert_int_eq(kvt_view_write(&all, w, 3), KVT_OK);
    size_t bytes;
    unsigned char *pages = pages_of(&st, &s, &bytes);
    forget_padding(&s, &st, pages);
    ck_assert_uint_eq(test_difference(pages, appended.pages, bytes), bytes);
    /* Read in two parts; the first ends within a page: full pages as kvt_read gives them, the open one as it came. */
    st.sequences[0].stored = tokens;
    all.rows = back;
    all.n_tokens = 70;
    for (int part = 0; part < 2; part++) {
        for (uint32_t w = 0; w < 2; w++)
            ck_assert_int_eq(kvt_view_read(&all, w, 2), KVT_OK);
        all.first_token = 70;
        all.n_tokens = tokens - 70;
        all.rows = back + 70 * d.k_dim * 2;
    }
    for (size_t layer = 0; layer < 2; layer++)
        for (uint32_t h = 0; h < d.kv_heads; h++)
            for (int value = 0; value < 2; value++) {
                const size_t at = (size_t)value * 2 * side + layer * side + h * tokens * d.k_dim * 2;
                ck_assert_mem_eq(back + at + 192 * d.k_dim * 2, rows + at + 192 * d.k_dim * 2, 21 * d.k_dim * 2);
                for (size_t p = 0; p < 3; p++) {
                    const kvt_pool *pool = p == 0 ? (value && s.is_apart ? &st.view.first_value_pages : &st.view.first_pages)
                                                  : (value && s.is_apart ? &st.view.value_pages : &st.view.pages);
                    void *page = (unsigned char *)pool->base + layer * pool->layer_stride + st.ids[p] * pool->block_stride + h * pool->head_stride;
                    unsigned char right[64 * 64 * 2];
                    ck_assert_int_eq(kvt_read(p == 0 ? &st.first : &st.layout, value ? KVT_V : KVT_K, &(kvt_pages){ .table = &page, .count = 1 }, 0,
                                              64, right, s.dtype, (ptrdiff_t)(d.k_dim * 2)),
                                     KVT_OK);
                    ck_assert_mem_eq(back + at + p * 64 * d.k_dim * 2, right, 64 * d.k_dim * 2);
                }
            }
    free(rows), free(back), free(pages);
    close_store(&st);
    free_run(&appended);
    free_data(&d);
}
END_TEST

/* ---- what is wrong ---- */

/* A layer that shares another's cache, where a sequence begins within a page and goes on behind the next: it needs rows that the storing layer's
 * workspace keeps, and is told so where they are not there. */
START_TEST(shared_layers)
{
    enum { BEFORE = 70, FRESH = 200 };
    scene s = scene_at(6);
    s.n = 1;
    s.tokens[0] = BEFORE + FRESH;
    const data d = data_of(&s, 83);
    const way how = { .workers = 2, .seed = 9 };
    store st;
    open_store(&st, &s, &how);
    kvt_step step = step_of(&st, &s, &d);
    void *workspace = workspace_of(&st, &s, &how, &step);
    const size_t number = kvt_dtype_bytes(s.dtype), all = (size_t)FRESH * s.heads * d.out_dim;
    float *out[2] = { calloc(all, sizeof(float)), calloc(all, sizeof(float)) };
    step.sequences = st.sequences;
    step.n_sequences = 1;
    st.sequences[0].fresh = BEFORE;
    step.k = d.k;
    step.v = d.v_dim ? d.v : NULL;
    for (uint32_t w = 0; w < how.workers; w++)
        require(kvt_step_append(&step, w, how.workers), &step);
    st.sequences[0].stored = BEFORE;
    st.sequences[0].fresh = FRESH;
    step.k = d.k + BEFORE * d.kv_heads * d.k_dim * number;
    step.v = d.v_dim ? d.v + BEFORE * d.kv_heads * d.v_dim * number : NULL;
    step.q = d.q + BEFORE * s.heads * d.q_dim * number;
    step.out = out[0];
    do_step(&step, &how);
    /* The sharing layer, next in the same workspace, with the same queries: the same results. */
    step.out = out[1];
    for (uint32_t w = 0; w < how.workers; w++)
        require(kvt_step_attend(&step, w, how.workers), &step);
    for (uint32_t w = 0; w < how.workers; w++)
        require(kvt_step_merge(&step, w, how.workers), &step);
    ck_assert_mem_eq(out[0], out[1], all * sizeof(float));
    /* In another workspace, or behind another step in the same, the rows are not there. */
    char why[400];
    kvt_step other = step;
    other.workspace = aligned_alloc(64, (step.workspace_bytes + 63) / 64 * 64);
    memset(other.workspace, 0, step.workspace_bytes);
    ck_assert_int_eq(kvt_step_attend(&other, 0, how.workers), KVT_ERR_RANGE);
    other.k = other.v = NULL; /* of rows that are in the newest pages alone */
    step.layer = 0;
    require(kvt_step_append(&step, 0, how.workers), &step);
    step.layer = 1;
    ck_assert_int_eq(kvt_step_attend(&step, 0, how.workers), KVT_ERR_RANGE);
    kvt_step asked = step;
    asked.k = asked.v = NULL;
    ck_assert_int_ne(kvt_step_problem(&asked, why, sizeof why), KVT_OK);
    ck_assert_str_ne(why, "");
    free(other.workspace), free(workspace), free(out[0]), free(out[1]);
    close_store(&st);
    free_data(&d);
}
END_TEST

START_TEST(problems)
{
    scene s = scene_at(6);
    const data d = data_of(&s, 83);
    const way how = { .workers = 1, .seed = 3 };
    store st;
    open_store(&st, &s, &how);
    kvt_step step = step_of(&st, &s, &d);
    void *workspace = workspace_of(&st, &s, &how, &step);
    step.sequences = st.sequences;
    step.n_sequences = 2;
    step.q = d.q, step.k = d.k, step.v = d.v, step.out = workspace;
    st.sequences[0].fresh = 1;
    st.sequences[1].stored = 1000;
    st.sequences[1].fresh = 24;
    char text[200];
    ck_assert_int_eq(kvt_step_problem(&step, text, sizeof text), KVT_OK);
    ck_assert_str_eq(text, "");
    st.sequences[1].n_blocks = 15;
    ck_assert_int_eq(kvt_step_problem(&step, text, sizeof text), KVT_ERR_RANGE);
    ck_assert_str_eq(text, "sequence 1 has 1024 tokens with those of this step: its table has 15 blocks, not 16");
    ck_assert_int_eq(kvt_step_append(&step, 0, 1), KVT_ERR_RANGE);
    char few[9];
    ck_assert_int_eq(kvt_step_problem(&step, few, sizeof few), KVT_ERR_RANGE);
    ck_assert_str_eq(few, "sequence");
    st.sequences[1].n_blocks = MOST_PAGES;
    step.scale = 0;
    ck_assert_int_eq(kvt_step_problem(&step, text, sizeof text), KVT_ERR_NUMBER);
    ck_assert_str_eq(text, "scale is 0: its magnitude has to be 2^-20 to 2^20");

    kvt_spec spec = s.spec;
    ck_assert_int_eq(kvt_spec_problem(&spec, text, sizeof text), KVT_OK);
    ck_assert_str_eq(text, "");
    spec.v_options.fp8_block = 64;
    ck_assert_int_eq(kvt_spec_problem(&spec, text, sizeof text), KVT_ERR_OPTIONS);
    ck_assert_ptr_nonnull(strstr(text, "v_options has rotation 64, centring 3, effort 0, fp8_block 64"));
    spec.k_dim = 0;
    ck_assert_int_eq(kvt_spec_problem(&spec, text, sizeof text), KVT_ERR_DIM);
    ck_assert_ptr_nonnull(strstr(text, "k_dim is 0"));

    const kvt_segment segment = { &st.layout, { .base = workspace, .stride = st.layout.page_bytes, .count = 2 }, 0 };
    kvt_attention asked = { .size = sizeof asked,
                            .segments = &segment,
                            .n_segments = 1,
                            .end = 129,
                            .position = 128,
                            .group = 1,
                            .query_tokens = 1,
                            .query_dtype = KVT_F32,
                            .out_dtype = KVT_F32,
                            .scale = 1 };
    ck_assert_int_eq(kvt_attention_problem(&asked, text, sizeof text), KVT_ERR_RANGE);
    ck_assert_ptr_nonnull(strstr(text, "end 129, position 128"));
    asked.end = 128;
    ck_assert_int_eq(kvt_attention_problem(&asked, text, sizeof text), KVT_OK);
    free(workspace);
    close_store(&st);
    free_data(&d);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("step");
    TCase *tcase = tcase_create("step");
    tcase_set_timeout(tcase, 600);
    tcase_add_loop_test(tcase, results_are_right, 0, SCENES);
    tcase_add_loop_test(tcase, bits_are_the_same, 0, SCENES);
    tcase_add_loop_test(tcase, pages_are_those_of_kvt_write, 0, SCENES);
    tcase_add_test(tcase, tokens_one_by_one);
    tcase_add_loop_test(tcase, drafts, 0, 2);
    tcase_add_loop_test(tcase, rows_of_views, 0, 2);
    tcase_add_test(tcase, shared_layers);
    tcase_add_test(tcase, problems);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
