/* SPDX-License-Identifier: MIT */
/* kvtile eval --model: runs a model on an exact cache and on stored ones. */
#define _DEFAULT_SOURCE /* _SC_PHYS_PAGES */
#include "tools/cli/eval/model.h"

#include "tools/cli/eval/stored.h"
#include "tools/engine/arithmetic.h"
#include "tools/engine/stress.h"
#include "tools/program/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the text ---- */

/* In windows; each begins anew. What is predicted are all tokens but the first, or all where windows begin with BOS: token i of the `predicted` ones
 * at position i % size of window i / size. */
typedef struct windows {
    const uint32_t *tokens;
    size_t predicted, size;
    uint32_t bos; /* NO_TOKEN: none */
} windows;

static uint32_t target(const windows *text, size_t i)
{
    return text->tokens[text->bos != NO_TOKEN ? i : i + 1];
}

/* What the model is given to predict token `first` and those behind it, n. */
static void given(const windows *text, size_t first, size_t n, uint32_t *tokens)
{
    for (size_t i = first; i < first + n; i++)
        tokens[i - first] = text->bos == NO_TOKEN ? text->tokens[i] : i % text->size == 0 ? text->bos : text->tokens[i - 1];
}

/* ---- runs of the model, one after the other ---- */

/* A run in a way of storing, and how far its predictions are from the exact ones. */
typedef struct lane {
    const eval_pair *way;
    eval_stored stored;
    size_t lost;             /* predictions that are not in the sums */
    size_t lost_from;        /* the position in this window since which all are lost */
    float *last;             /* [window][dim], until it is compared */
    double *kld;             /* [predicted], NAN where it was lost */
    double *surprise, *same; /* the same; NULL in a run of one layer */
} lane;

/* What is run: way 0's runs, then way 1's ...; of each way all layers first, then, if wanted, each layer's keys and values alone. */
typedef struct plan {
    const eval_model_options *options;
    const checkpoint *model;
    const eval_pairs *pairs; /* each another way */
    size_t runs_per_way;
    size_t room; /* tokens of the longest window */
} plan;

/* A part of the runs that are compared with the exact one together: so many rows of the last norm are kept. */
enum { GROUP_BYTES = 192 << 20, COMPARED = 16 /* tokens at a time */ };

/* A thread's. */
typedef struct worker_space {
    layer_rows rows; /* for predictions */
    float *logits[2];
    size_t not_finite; /* the first exact prediction that is not, or SIZE_MAX */
} worker_space;

typedef struct job {
    const plan *p;
    const windows *text;
    pool *threads;
    pass_state *pass;
    worker_space *workers;
    lane *runs;
    size_t n_runs, group;      /* and how many of them are compared together */
    float *exact, *lasts;      /* [window][dim], [group][window][dim] */
    uint32_t *tokens;          /* [window] */
    double *surprise;          /* [predicted], of the exact run */
    size_t first, n;           /* of the window, among what is predicted */
    size_t first_run, end_run; /* that are compared */
    atomic_size_t next;
    progress shown;
    size_t done, all; /* layers of all runs */
    char doing[64];
} job;

static uint32_t top_of(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* What a row of logits says; a logarithm that is not finite where some logit is not. */
typedef struct prediction {
    uint32_t top;
    double log_sum; /* of the exponentials */
} prediction;

static prediction predict(const float *logits, uint32_t n)
{
    const uint32_t top = top_of(logits, n);
    bool finite = true;
    for (uint32_t i = 0; i < n; i++)
        finite = finite && isfinite(logits[i]);
    return (prediction){ top, finite ? log(arithmetic_exp_sum(logits, n, logits[top])) + (double)logits[top] : (double)NAN };
}

/* One run's prediction of token i beside the exact one. */
static void compare_one(const job *work, lane *l, size_t i, const float *exact, prediction truth, const float *logits)
{
    const uint32_t n = work->p->model->vocabulary;
    const prediction ours = predict(logits, n);
    /* A weight of zero for a key that became infinite leaves finite numbers, too. */
    const bool lost = i - work->first >= l->lost_from || !isfinite(ours.log_sum);
    l->kld[i] = lost ? (double)NAN : arithmetic_divergence(exact, logits, n, truth.log_sum, ours.log_sum);
    if (l->surprise != NULL) {
        l->surprise[i] = lost ? (double)NAN : ours.log_sum - (double)logits[target(work->text, i)];
        l->same[i] = lost ? (double)NAN : ours.top == truth.top ? 1 : 0;
    }
}

/* Predictions of some tokens at a time, of the exact run and of those of the group. */
static void compare_chunks(void *data, unsigned worker, unsigned workers)
{
    (void)workers;
    job *work = data;
    const checkpoint *model = work->p->model;
    worker_space *space = &work->workers[worker];
    for (size_t at; (at = COMPARED * atomic_fetch_add(&work->next, 1)) < work->n;) {
        const size_t n = work->n - at < COMPARED ? work->n - at : COMPARED;
        prediction truth[COMPARED];
        layer_predict(&space->rows, work->exact + at * model->dim, n, space->logits[0]);
        for (size_t j = 0; j < n; j++) {
            const float *logits = space->logits[0] + j * model->vocabulary;
            const size_t i = work->first + at + j;
            truth[j] = predict(logits, model->vocabulary);
            work->surprise[i] = truth[j].log_sum - (double)logits[target(work->text, i)];
            space->not_finite = !isfinite(truth[j].log_sum) && i < space->not_finite ? i : space->not_finite;
        }
        for (size_t r = work->first_run; r < work->end_run; r++) {
            layer_predict(&space->rows, work->runs[r].last + at * model->dim, n, space->logits[1]);
            for (size_t j = 0; j < n; j++)
                compare_one(work, &work->runs[r], work->first + at + j, space->logits[0] + j * model->vocabulary, truth[j],
                            space->logits[1] + j * model->vocabulary);
        }
    }
}

static int compare_to_exact(job *work, size_t first_run, size_t end_run, error_text *error)
{
    work->first_run = first_run;
    work->end_run = end_run;
    atomic_store(&work->next, 0);
    pool_run(work->threads, compare_chunks, work);
    size_t not_finite = SIZE_MAX;
    for (unsigned i = 0; i < pool_workers(work->threads); i++)
        not_finite = work->workers[i].not_finite < not_finite ? work->workers[i].not_finite : not_finite;
    if (not_finite == SIZE_MAX)
        return 0;
    return error_set(error, "makes predictions that are not finite with the exact cache, first of token %zu: there is nothing to compare with",
                     not_finite);
}

/* Called by a pass when a layer is done. */
static void show(void *owner, const pass_rows *rows, size_t layer)
{
    (void)rows;
    (void)layer;
    job *work = owner;
    progress_show(&work->shown, "model", ++work->done, work->all, work->doing);
}

/* For a pass, which calls back with one owner. */
typedef struct stored_run {
    job *work;
    lane *l;
} stored_run;

static void store_of(void *owner, const pass_rows *rows, size_t layer, size_t side, size_t head)
{
    const stored_run *run = owner;
    eval_stored_store(&run->l->stored, rows, layer, side, head);
}

static void show_of(void *owner, const pass_rows *rows, size_t layer)
{
    const stored_run *run = owner;
    show(run->work, rows, layer);
}

static int run_stored(job *work, size_t index, error_text *error)
{
    lane *l = &work->runs[index];
    stored_run both = { work, l };
    const pass_cache cache = { .store = store_of, .done = show_of, .owner = &both };
    l->last = work->lasts + index % work->group * work->p->room * work->p->model->dim;
    snprintf(work->doing, sizeof work->doing, "token %zu of %zu, %s", work->first, work->text->predicted, eval_pair_name(l->way).text);
    eval_stored_begin(&l->stored);
    pass_run(work->pass, work->tokens, work->n, &cache, l->last);
    return eval_stored_end(&l->stored, &l->lost_from, error);
}

static int run_window(job *work, error_text *error)
{
    const pass_cache nothing = { .done = show, .owner = work };
    given(work->text, work->first, work->n, work->tokens);
    snprintf(work->doing, sizeof work->doing, "token %zu of %zu, exact", work->first, work->text->predicted);
    pass_run(work->pass, work->tokens, work->n, &nothing, work->exact);
    int status = 0;
    for (size_t i = 0; status == 0 && i < work->n_runs; i++) {
        status = run_stored(work, i, error);
        if (status == 0 && ((i + 1) % work->group == 0 || i + 1 == work->n_runs))
            status = compare_to_exact(work, i / work->group * work->group, i + 1, error);
    }
    return status;
}

static int run_windows(job *work, error_text *error)
{
    const windows *text = work->text;
    int status = 0;
    progress_start(&work->shown);
    work->all = (text->predicted + text->size - 1) / text->size * (1 + work->n_runs) * work->p->model->layers;
    for (work->first = 0; status == 0 && work->first < text->predicted; work->first += text->size) {
        work->n = text->predicted - work->first < text->size ? text->predicted - work->first : text->size;
        status = run_window(work, error);
    }
    progress_end(&work->shown);
    for (size_t r = 0; r < work->n_runs; r++)
        for (size_t i = 0; i < text->predicted; i++)
            work->runs[r].lost += isnan(work->runs[r].kld[i]) ? 1 : 0;
    return status;
}

/* ---- opening runs ---- */

static int check_memory(const job *work, size_t predicted, error_text *error)
{
    const plan *p = work->p;
    const checkpoint *model = p->model;
    const double rows = (double)p->room * model->dim * sizeof(float), workers = pool_workers(work->threads);
    double bytes = pass_bytes(model, p->room, pool_workers(work->threads)) + (1 + (double)work->group) * rows +
                   workers * 2 * COMPARED * sizeof(float) * (double)model->vocabulary +
                   (1 + (double)work->n_runs) * 3 * sizeof(double) * (double)predicted;
    for (size_t i = 0; i < p->pairs->n; i++) {
        kvt_layout layout;
        if (eval_stored_layout(&layout, &p->pairs->pairs[i], model, error) != 0)
            return -1;
        bytes += 2.0 * (double)layout.page_bytes * model->kv_heads * ceil((double)p->room / KVT_PAGE_TOKENS) * (double)p->runs_per_way;
    }
    const double there = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (bytes > there)
        return error_set(error,
                         "%zu ways over windows of %zu tokens take %.1f GB, more than the %.1f GB of this machine: fewer --schemes%s or a smaller "
                         "--context would be right",
                         p->pairs->n, p->room, bytes / 1e9, there / 1e9, p->options->by_layer ? ", no --by-layer" : "");
    return 0;
}

static int lane_open(lane *l, const plan *p, size_t index, size_t predicted, error_text *error)
{
    const checkpoint *model = p->model;
    const size_t part = index % p->runs_per_way;
    l->way = &p->pairs->pairs[index / p->runs_per_way];
    l->kld = malloc(predicted * sizeof *l->kld);
    l->surprise = part == 0 ? malloc(predicted * sizeof *l->surprise) : NULL;
    l->same = part == 0 ? malloc(predicted * sizeof *l->same) : NULL;
    if (l->kld == NULL || (part == 0 && (l->surprise == NULL || l->same == NULL)))
        return error_set(error, "%zu tokens: out of memory", predicted);
    l->stored.first_layer = part > 0 ? (uint32_t)(part - 1) / 2 : 0;
    l->stored.layers = part > 0 ? 1 : model->layers;
    l->stored.sides[0] = part == 0 || part % 2 == 1;
    l->stored.sides[1] = part == 0 || part % 2 == 0;
    return eval_stored_open(&l->stored, model, p->room, l->way, p->options->first, p->options->open, error);
}

static void job_close(job *work)
{
    for (size_t i = 0; work->runs != NULL && i < work->n_runs; i++) {
        eval_stored_close(&work->runs[i].stored);
        free(work->runs[i].kld);
        free(work->runs[i].surprise);
        free(work->runs[i].same);
    }
    for (unsigned i = 0; work->workers != NULL && i < pool_workers(work->threads); i++) {
        layer_close(&work->workers[i].rows);
        free(work->workers[i].logits[0]);
        free(work->workers[i].logits[1]);
    }
    pass_close(work->pass);
    free(work->runs);
    free(work->workers);
    free(work->exact);
    free(work->lasts);
    free(work->tokens);
    free(work->surprise);
}

static int job_open(job *work, error_text *error)
{
    const plan *p = work->p;
    const checkpoint *model = p->model;
    const size_t rows = p->room * model->dim, fit = GROUP_BYTES / (rows * sizeof(float));
    work->n_runs = p->pairs->n * p->runs_per_way;
    work->group = fit < 1 ? 1 : fit < work->n_runs ? fit : work->n_runs;
    if (check_memory(work, work->text->predicted, error) != 0 || pass_open(&work->pass, model, p->room, work->threads, error) != 0)
        return -1;
    work->runs = calloc(work->n_runs, sizeof *work->runs);
    work->workers = calloc(pool_workers(work->threads), sizeof *work->workers);
    work->exact = malloc(rows * sizeof *work->exact);
    work->lasts = malloc(work->group * rows * sizeof *work->lasts);
    work->tokens = malloc(p->room * sizeof *work->tokens);
    work->surprise = malloc(work->text->predicted * sizeof *work->surprise);
    bool there = work->runs && work->workers && work->exact && work->lasts && work->tokens && work->surprise;
    for (unsigned i = 0; there && i < pool_workers(work->threads); i++) {
        worker_space *space = &work->workers[i];
        space->not_finite = SIZE_MAX;
        space->logits[0] = malloc(COMPARED * sizeof(float) * model->vocabulary);
        space->logits[1] = malloc(COMPARED * sizeof(float) * model->vocabulary);
        there = layer_open(&space->rows, model, COMPARED, NULL) == 0 && space->logits[0] != NULL && space->logits[1] != NULL;
    }
    if (!there)
        return error_set(error, "%zu ways: out of memory", p->pairs->n);
    for (size_t i = 0; i < work->n_runs; i++)
        if (lane_open(&work->runs[i], p, i, work->text->predicted, error) != 0)
            return -1;
    return 0;
}

/* ---- stress ---- */

typedef struct stress_job {
    checkpoint *model;
    int status;
    error_text *error;
} stress_job;

static void stress_layer(void *owner, const pass_rows *rows, size_t layer)
{
    stress_job *own = owner;
    if (own->status == 0)
        own->status = stress_outliers(own->model, layer, rows->open[0], rows->open[1], rows->room, rows->n, own->error);
}

/* Runs the first window to see which channels are strong. */
static int add_outliers(checkpoint *model, const windows *text, pool *threads, error_text *error)
{
    pass_state *pass;
    stress_job own = { model, 0, error };
    const pass_cache cache = { .done = stress_layer, .owner = &own };
    if (pass_open(&pass, model, text->size, threads, error) != 0)
        return -1;
    uint32_t *tokens = malloc(text->size * sizeof *tokens);
    float *last = malloc(text->size * model->dim * sizeof *last);
    if (tokens == NULL || last == NULL) {
        own.status = error_set(error, "%zu tokens: out of memory", text->size);
    } else {
        given(text, 0, text->size, tokens);
        pass_run(pass, tokens, text->size, &cache, last);
    }
    free(tokens);
    free(last);
    pass_close(pass);
    return own.status;
}

/* ---- results ---- */

size_t eval_model_bin(const eval_model_report *report, size_t bin)
{
    return bin * report->context / report->bins;
}

static void fill_positions(eval_model_result *result, const eval_model_report *report, const double *kld)
{
    double sums[EVAL_MODEL_BINS] = { 0 };
    size_t counts[EVAL_MODEL_BINS] = { 0 }, lost[EVAL_MODEL_BINS] = { 0 };
    for (size_t i = 0, bin = 0; i < report->predicted; i++) {
        const size_t position = i % report->context;
        bin = position == 0 ? 0 : bin;
        bin += position == eval_model_bin(report, bin + 1) ? 1 : 0;
        sums[bin] += kld[i]; /* NAN where it was lost */
        lost[bin] += isnan(kld[i]) ? 1 : 0;
        counts[bin]++;
    }
    for (size_t bin = 0; bin < report->bins; bin++)
        result->by_position[bin] = (eval_model_part){ lost[bin], sums[bin] / (double)counts[bin] };
}

/* Nothing but how many is said of a way that lost predictions. */
static void set_lost(eval_model_result *result)
{
    static const statistics_interval none = { (double)NAN, (double)NAN, (double)NAN };
    result->perplexity = result->kld_p99 = result->kld_p999 = result->kld_max = (double)NAN;
    result->log_ratio = result->kld = result->same_top = none;
}

static void fill_means(eval_model_result *result, const eval_model_report *report, const lane *whole, const double *exact_surprise)
{
    const size_t n = report->predicted;
    const statistics_blocks blocks = { report->context, EVAL_MODEL_BLOCK };
    double surprise = 0;
    for (size_t i = 0; i < n; i++) {
        surprise += whole->surprise[i];
        whole->surprise[i] -= exact_surprise[i];
    }
    result->perplexity = exp(surprise / (double)n);
    result->log_ratio = statistics_mean(whole->surprise, n, blocks);
    result->same_top = statistics_rate(whole->same, n, blocks);
    result->kld = statistics_mean(whole->kld, n, blocks);
    result->kld_p99 = statistics_quantile(whole->kld, n, 0.99); /* sorts */
    result->kld_p999 = statistics_quantile(whole->kld, n, 0.999);
    result->kld_max = whole->kld[n - 1];
}

/* Of a run of one layer. */
static eval_model_part layer_part(const lane *l, size_t predicted)
{
    double sum = 0;
    for (size_t i = 0; i < predicted; i++)
        sum += l->kld[i];
    return (eval_model_part){ l->lost, sum / (double)predicted }; /* NAN where some were lost */
}

static int fill_result(eval_model_result *result, const eval_model_report *report, const plan *p, const lane *runs, const double *exact_surprise,
                       error_text *error)
{
    const lane *whole = &runs[0];
    result->way = *whole->way;
    result->bits = 8.0 * (double)eval_pair_page(whole->way, p->model->head_dim, p->model->head_dim) / (2.0 * KVT_PAGE_TOKENS * p->model->head_dim);
    result->all_told = eval_stored_bits(&whole->stored, p->room);
    result->lost = whole->lost;
    fill_positions(result, report, whole->kld);
    if (result->lost == 0)
        fill_means(result, report, whole, exact_surprise);
    else
        set_lost(result);
    if (p->runs_per_way == 1)
        return 0;
    result->by_layer = malloc((p->runs_per_way - 1) * sizeof *result->by_layer);
    if (result->by_layer == NULL)
        return error_set(error, "%" PRIu32 " layers: out of memory", p->model->layers);
    for (size_t i = 0; i + 1 < p->runs_per_way; i++)
        result->by_layer[i] = layer_part(&runs[i + 1], report->predicted);
    return 0;
}

static int by_bits(const void *a, const void *b)
{
    const eval_model_result *result = a, *other = b;
    if (result->bits != other->bits)
        return result->bits > other->bits ? -1 : 1;
    if (result->lost != other->lost)
        return result->lost < other->lost ? -1 : 1;
    return result->kld.mean < other->kld.mean ? -1 : result->kld.mean > other->kld.mean;
}

static int fill_report(eval_model_report *report, const job *work, error_text *error)
{
    const plan *p = work->p;
    double surprise = 0;
    for (size_t i = 0; i < report->predicted; i++)
        surprise += work->surprise[i];
    report->perplexity = exp(surprise / (double)report->predicted);
    report->results = calloc(p->pairs->n, sizeof *report->results);
    if (report->results == NULL)
        return error_set(error, "%zu ways: out of memory", p->pairs->n);
    for (size_t i = 0; i < p->pairs->n; i++) {
        report->n++;
        if (fill_result(&report->results[i], report, p, &work->runs[i * p->runs_per_way], work->surprise, error) != 0)
            return -1;
    }
    qsort(report->results, report->n, sizeof *report->results, by_bits);
    return 0;
}

void eval_model_free(eval_model_report *report)
{
    for (size_t i = 0; i < report->n; i++)
        free(report->results[i].by_layer);
    free(report->results);
    *report = (eval_model_report){ 0 };
}

/* ---- the whole ---- */

static int measure_pair(eval_model_report *report, const plan *p, const windows *text, pool *threads, error_text *error)
{
    job work = { .p = p, .text = text, .threads = threads };
    int status = job_open(&work, error);
    if (status == 0)
        status = run_windows(&work, error);
    if (status == 0)
        status = fill_report(report, &work, error);
    job_close(&work);
    return status;
}

/* Each pair once: those that the width makes the same are one. */
static int distinct(eval_pairs *to, const eval_pairs *from, const checkpoint *model)
{
    const uint32_t padded = (model->head_dim + KVT_TILE_TOKENS - 1) / KVT_TILE_TOKENS * KVT_TILE_TOKENS;
    *to = (eval_pairs){ .pairs = malloc(from->n * sizeof *to->pairs) };
    for (size_t i = 0; to->pairs != NULL && i < from->n; i++) {
        size_t j = 0;
        while (j < to->n && !eval_same_pair(&from->pairs[i], &to->pairs[j], padded))
            j++;
        if (j == to->n)
            to->pairs[to->n++] = from->pairs[i];
    }
    return to->pairs != NULL ? 0 : -1;
}

static int choose_windows(windows *text, const text_run *run, const eval_model_options *options, const char **about, error_text *error)
{
    *about = "--tokens";
    if (options->tokens > run->n_tokens)
        return error_set(error, "%zu: the text has only %zu", options->tokens, run->n_tokens);
    const size_t n = options->tokens != 0 ? options->tokens : run->n_tokens;
    if (n < 2)
        return error_set(error, "%zu: at least 2 would be right", n);
    *about = "--bos";
    if (options->bos && run->model.bos == NO_TOKEN)
        return error_set(error, "the model has no token that begins a text");
    *about = "--context";
    if (options->context > run->model.context)
        return error_set(error, "%zu: 1 to %" PRIu32 ", the model's context, would be right", options->context, run->model.context);
    const size_t context = options->context != 0 ? options->context : run->model.context;
    *text = (windows){ .tokens = run->tokens, .predicted = options->bos ? n : n - 1, .bos = options->bos ? run->model.bos : NO_TOKEN };
    text->size = context < text->predicted ? context : text->predicted;
    return 0;
}

int eval_model(eval_model_report *report, const eval_pairs *pairs, const eval_model_options *options, const char **about, error_text *error)
{
    text_run run;
    windows text = { 0 };
    eval_pairs each = { 0 };
    *report = (eval_model_report){ .options = options };
    int status = run_open(&run, &options->source, about, error);
    if (status == 0)
        status = choose_windows(&text, &run, options, about, error);
    if (status == 0) {
        *about = options->source.model;
        if (distinct(&each, pairs, &run.model) != 0)
            status = error_set(error, "out of memory");
    }
    if (status == 0 && options->outliers)
        status = add_outliers(&run.model, &text, run.threads, error);
    if (status == 0) {
        const plan all = { options, &run.model, &each, options->by_layer ? 1 + 2 * (size_t)run.model.layers : 1, text.size };
        report->layers = run.model.layers;
        report->context = text.size;
        report->predicted = text.predicted;
        report->windows = (text.predicted + text.size - 1) / text.size;
        report->bins = text.size < EVAL_MODEL_BINS ? text.size : EVAL_MODEL_BINS;
        status = measure_pair(report, &all, &text, run.threads, error);
    }
    free(each.pairs);
    run_close(&run);
    return status;
}
