/* kvtile eval --model: runs a model on an exact cache and on stored ones. */
#define _DEFAULT_SOURCE /* _SC_PHYS_PAGES */
#include "tools/cli/eval/model.h"

#include "tools/cli/eval/stored.h"
#include "tools/engine/forward.h"
#include "tools/engine/stress.h"
#include "tools/program/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static const cache_way EXACT = { .reference = true };

/* ---- runs of the model, side by side ---- */

/* A run, and how far its predictions are from those of run 0. */
typedef struct lane {
    const eval_pair *way; /* NULL: exact */
    forward_state state;
    eval_stored stored;
    double kld_sum;
    size_t lost;                   /* predictions that are not in the sum */
    double *kld, *surprise, *same; /* [predicted], NAN where it was lost; NULL in a run of one layer */
} lane;

/* What run 0 predicts. */
typedef struct truth {
    const float *logits;
    double *probabilities;
    double log_sum;
    uint32_t top;
} truth;

typedef struct job {
    const checkpoint *model;
    lane *lanes;
    size_t n_lanes;
    uint32_t token, next;
    size_t position;
    size_t index; /* of what is predicted, over all windows */
    truth exact;
} job;

static uint32_t top_of(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

static bool are_finite(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Logarithm of the sum of exponentials. */
static double log_sum_of(const float *logits, uint32_t n, uint32_t top)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - logits[top]);
    return log(sum) + logits[top];
}

static void run_lanes(void *data, unsigned worker, unsigned workers)
{
    const job *of = data;
    for (size_t i = pool_first(of->n_lanes, worker, workers); i < pool_first(of->n_lanes, worker + 1, workers); i++)
        forward_token(&of->lanes[i].state, of->token, of->position);
}

static void compare_lanes(void *data, unsigned worker, unsigned workers)
{
    const job *of = data;
    const uint32_t n = of->model->vocabulary;
    for (size_t i = pool_first(of->n_lanes, worker, workers); i < pool_first(of->n_lanes, worker + 1, workers); i++) {
        lane *one = &of->lanes[i];
        const float *logits = one->state.logits;
        const uint32_t top = top_of(logits, n);
        const double log_sum = log_sum_of(logits, n, top);
        double kld = log_sum - of->exact.log_sum;
        for (uint32_t j = 0; j < n; j++)
            kld += of->exact.probabilities[j] * ((double)of->exact.logits[j] - logits[j]);
        kld = kld < 0 ? 0 : kld; /* rounding */
        /* A weight of zero for a key that became infinite leaves finite numbers, too. */
        const bool lost = one->stored.lost || !are_finite(logits, n);
        one->lost += lost ? 1 : 0;
        one->kld_sum += lost ? 0 : kld;
        if (one->kld != NULL) {
            one->kld[of->index] = lost ? (double)NAN : kld;
            one->surprise[of->index] = lost ? (double)NAN : log_sum - logits[of->next];
            one->same[of->index] = lost ? (double)NAN : top == of->exact.top ? 1 : 0;
        }
    }
}

static void find_truth(job *of)
{
    const uint32_t n = of->model->vocabulary;
    truth *exact = &of->exact;
    exact->logits = of->lanes[0].state.logits;
    exact->top = top_of(exact->logits, n);
    exact->log_sum = log_sum_of(exact->logits, n, exact->top);
    for (uint32_t i = 0; i < n; i++)
        exact->probabilities[i] = exp((double)exact->logits[i] - exact->log_sum);
}

/* The text in windows; each begins anew. What is predicted are all tokens but the first, or all where windows begin with BOS: token i of the
 * `predicted` ones at position i % size of window i / size. */
typedef struct windows {
    const uint32_t *tokens;
    size_t predicted, size;
    uint32_t bos; /* NO_TOKEN: none */
} windows;

static uint32_t target(const windows *text, size_t i)
{
    return text->tokens[text->bos != NO_TOKEN ? i : i + 1];
}

/* What the model is given to predict it. */
static uint32_t given(const windows *text, size_t i)
{
    if (text->bos == NO_TOKEN)
        return text->tokens[i];
    return i % text->size == 0 ? text->bos : text->tokens[i - 1];
}

static int run_token(job *of, const windows *text, size_t i, pool *threads, error_text *error)
{
    of->index = i;
    of->position = i % text->size;
    of->token = given(text, i);
    of->next = target(text, i);
    pool_run(threads, run_lanes, of);
    for (size_t j = 0; j < of->n_lanes; j++)
        if (of->lanes[j].stored.failed) {
            *error = of->lanes[j].stored.error;
            return -1;
        }
    if (!are_finite(of->lanes[0].state.logits, of->model->vocabulary))
        return error_set(error, "makes predictions that are not finite with the exact cache, first of token %zu: there is nothing to compare with",
                         i);
    find_truth(of);
    pool_run(threads, compare_lanes, of);
    return 0;
}

static int run_windows(job *of, const windows *text, pool *threads, error_text *error)
{
    progress shown;
    int status = 0;
    progress_start(&shown);
    for (size_t i = 0; status == 0 && i < text->predicted; i++) {
        char detail[64];
        snprintf(detail, sizeof detail, "token %zu of %zu", i, text->predicted);
        progress_show(&shown, "model", i, text->predicted, detail);
        status = run_token(of, text, i, threads, error);
    }
    progress_end(&shown);
    return status;
}

/* ---- opening runs ---- */

/* What is run: way 0's runs after the exact one, then way 1's ...; of each way all layers first, then, if wanted, each layer's keys and values alone.
 */
typedef struct plan {
    const eval_model_options *options;
    const checkpoint *model;
    const eval_pairs *pairs; /* each another way */
    size_t runs_per_way;
    size_t room; /* tokens of the longest window */
} plan;

static int check_memory(const plan *of, size_t predicted, error_text *error)
{
    const checkpoint *model = of->model;
    const double ways = (double)of->pairs->n, room = (double)of->room;
    const double rows = 2.0 * sizeof(float) * model->kv_dim * model->layers * room;
    double bytes = (1 + ways * (double)of->runs_per_way) * rows + (1 + ways) * 3 * sizeof(double) * (double)predicted;
    for (size_t i = 0; i < of->pairs->n; i++) {
        kvt_layout layout;
        if (eval_stored_layout(&layout, &of->pairs->pairs[i], model, error) != 0)
            return -1;
        const double pages = (double)layout.page_bytes * model->kv_heads * model->layers * ceil(room / KVT_PAGE_TOKENS);
        bytes += of->runs_per_way > 1 ? 3 * pages : pages; /* of layers alone each two runs keep one */
    }
    const double there = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (bytes > there)
        return error_set(error,
                         "%zu ways over windows of %zu tokens take %.1f GB, more than the %.1f GB of this machine: fewer --schemes%s or a smaller "
                         "--context would be right",
                         of->pairs->n, of->room, bytes / 1e9, there / 1e9, of->options->by_layer ? ", no --by-layer" : "");
    return 0;
}

static int lane_open(lane *one, const plan *of, size_t index, size_t predicted, pool *alone, error_text *error)
{
    const checkpoint *model = of->model;
    if (forward_open(&one->state, model, &EXACT, of->room, alone, error) != 0)
        return -1;
    const size_t run = index > 0 ? (index - 1) % of->runs_per_way : 0;
    if (run == 0) {
        one->kld = malloc(predicted * sizeof *one->kld);
        one->surprise = malloc(predicted * sizeof *one->surprise);
        one->same = malloc(predicted * sizeof *one->same);
        if (one->kld == NULL || one->surprise == NULL || one->same == NULL)
            return error_set(error, "%zu tokens: out of memory", predicted);
    }
    if (index == 0)
        return 0;
    one->way = &of->pairs->pairs[(index - 1) / of->runs_per_way];
    one->stored.first_layer = run > 0 ? (uint32_t)(run - 1) / 2 : 0;
    one->stored.layers = run > 0 ? 1 : model->layers;
    one->stored.sides[0] = run == 0 || run % 2 == 1;
    one->stored.sides[1] = run == 0 || run % 2 == 0;
    return eval_stored_open(&one->stored, &one->state.cache, one->way, of->options->first, of->options->open, error);
}

static void lanes_close(lane *lanes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        forward_close(&lanes[i].state);
        eval_stored_close(&lanes[i].stored);
        free(lanes[i].kld);
        free(lanes[i].surprise);
        free(lanes[i].same);
    }
    free(lanes);
}

/* ---- stress ---- */

/* Runs the first window to see which channels are strong. */
static int add_outliers(checkpoint *model, const windows *text, pool *alone, error_text *error)
{
    forward_state state;
    if (forward_open(&state, model, &EXACT, text->size, alone, error) != 0)
        return -1;
    for (size_t i = 0; i < text->size; i++)
        forward_token(&state, given(text, i), i);
    const int status = stress_outliers(model, &state.cache, text->size, error);
    forward_close(&state);
    return status;
}

/* ---- results ---- */

size_t eval_model_bin(const eval_model_report *report, size_t bin)
{
    return bin * report->context / report->bins;
}

static void fill_positions(eval_model_result *one, const eval_model_report *report, const double *kld)
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
        one->by_position[bin] = (eval_model_part){ lost[bin], sums[bin] / (double)counts[bin] };
}

/* Nothing but how many is said of a way that lost predictions. */
static void set_lost(eval_model_result *one)
{
    static const statistics_interval none = { (double)NAN, (double)NAN, (double)NAN };
    one->perplexity = one->kld_most_of = one->kld_max = (double)NAN;
    one->log_ratio = one->kld = one->same_top = none;
}

static void fill_means(eval_model_result *one, const eval_model_report *report, const lane *whole, const double *exact_surprise)
{
    const size_t n = report->predicted;
    const statistics_blocks blocks = { report->context, EVAL_MODEL_BLOCK };
    double surprise = 0;
    for (size_t i = 0; i < n; i++) {
        surprise += whole->surprise[i];
        whole->surprise[i] -= exact_surprise[i];
    }
    one->perplexity = exp(surprise / (double)n);
    one->log_ratio = statistics_mean(whole->surprise, n, blocks);
    one->same_top = statistics_rate(whole->same, n, blocks);
    one->kld = statistics_mean(whole->kld, n, blocks);
    one->kld_most_of = statistics_quantile(whole->kld, n, 0.999); /* sorts */
    one->kld_max = whole->kld[n - 1];
}

static int fill_result(eval_model_result *one, const eval_model_report *report, const plan *of, const lane *lanes, const double *exact_surprise,
                       error_text *error)
{
    const lane *whole = &lanes[0];
    one->way = *whole->way;
    one->bits = 8.0 * (double)eval_pair_page(whole->way, of->model->head_dim, of->model->head_dim) / (2.0 * KVT_PAGE_TOKENS * of->model->head_dim);
    one->all_told = eval_stored_bits(&whole->stored, of->room);
    one->lost = whole->lost;
    fill_positions(one, report, whole->kld);
    if (one->lost == 0)
        fill_means(one, report, whole, exact_surprise);
    else
        set_lost(one);
    if (of->runs_per_way == 1)
        return 0;
    one->by_layer = malloc((of->runs_per_way - 1) * sizeof *one->by_layer);
    if (one->by_layer == NULL)
        return error_set(error, "%" PRIu32 " layers: out of memory", of->model->layers);
    for (size_t i = 0; i + 1 < of->runs_per_way; i++)
        one->by_layer[i] =
            (eval_model_part){ lanes[i + 1].lost, lanes[i + 1].lost == 0 ? lanes[i + 1].kld_sum / (double)report->predicted : (double)NAN };
    return 0;
}

static int by_bits(const void *a, const void *b)
{
    const eval_model_result *one = a, *other = b;
    if (one->bits != other->bits)
        return one->bits > other->bits ? -1 : 1;
    if (one->lost != other->lost)
        return one->lost < other->lost ? -1 : 1;
    return one->kld.mean < other->kld.mean ? -1 : one->kld.mean > other->kld.mean;
}

static int fill_report(eval_model_report *report, const plan *of, const lane *lanes, error_text *error)
{
    double surprise = 0;
    for (size_t i = 0; i < report->predicted; i++)
        surprise += lanes[0].surprise[i];
    report->perplexity = exp(surprise / (double)report->predicted);
    report->results = calloc(of->pairs->n, sizeof *report->results);
    if (report->results == NULL)
        return error_set(error, "%zu ways: out of memory", of->pairs->n);
    for (size_t i = 0; i < of->pairs->n; i++) {
        report->n++;
        if (fill_result(&report->results[i], report, of, &lanes[1 + i * of->runs_per_way], lanes[0].surprise, error) != 0)
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

static int measure(eval_model_report *report, const plan *of, const windows *text, pool *threads, pool *alone, error_text *error)
{
    job work = { .model = of->model, .n_lanes = 1 + of->pairs->n * of->runs_per_way };
    if (check_memory(of, text->predicted, error) != 0)
        return -1;
    work.lanes = calloc(work.n_lanes, sizeof *work.lanes);
    work.exact.probabilities = malloc(of->model->vocabulary * sizeof *work.exact.probabilities);
    int status = work.lanes == NULL || work.exact.probabilities == NULL ? error_set(error, "%zu ways: out of memory", of->pairs->n) : 0;
    for (size_t i = 0; status == 0 && i < work.n_lanes; i++)
        status = lane_open(&work.lanes[i], of, i, text->predicted, alone, error);
    if (status == 0)
        status = run_windows(&work, text, threads, error);
    if (status == 0)
        status = fill_report(report, of, work.lanes, error);
    lanes_close(work.lanes, work.lanes != NULL ? work.n_lanes : 0);
    free(work.exact.probabilities);
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

static int choose_windows(windows *text, const text_run *of, const eval_model_options *options, const char **about, error_text *error)
{
    *about = "--tokens";
    if (options->tokens > of->n_tokens)
        return error_set(error, "%zu: the text has only %zu", options->tokens, of->n_tokens);
    const size_t n = options->tokens != 0 ? options->tokens : of->n_tokens;
    if (n < 2)
        return error_set(error, "%zu: at least 2 would be right", n);
    *about = "--bos";
    if (options->bos && of->model.bos == NO_TOKEN)
        return error_set(error, "the model has no token that begins a text");
    *about = "--context";
    if (options->context > of->model.context)
        return error_set(error, "%zu: 1 to %" PRIu32 ", the model's context, would be right", options->context, of->model.context);
    const size_t context = options->context != 0 ? options->context : of->model.context;
    *text = (windows){ .tokens = of->tokens, .predicted = options->bos ? n : n - 1, .bos = options->bos ? of->model.bos : NO_TOKEN };
    text->size = context < text->predicted ? context : text->predicted;
    return 0;
}

int eval_model(eval_model_report *report, const eval_pairs *pairs, const eval_model_options *options, const char **about, error_text *error)
{
    text_run of;
    windows text = { 0 };
    eval_pairs each = { 0 };
    pool *alone = NULL; /* a run is one thread's */
    *report = (eval_model_report){ .options = options };
    int status = run_open(&of, &options->source, about, error);
    if (status == 0)
        status = choose_windows(&text, &of, options, about, error);
    if (status == 0) {
        *about = options->source.model;
        alone = pool_open(1);
        if (alone == NULL || distinct(&each, pairs, &of.model) != 0)
            status = error_set(error, "out of memory");
    }
    if (status == 0 && options->outliers)
        status = add_outliers(&of.model, &text, alone, error);
    if (status == 0) {
        const plan all = { options, &of.model, &each, options->by_layer ? 1 + 2 * (size_t)of.model.layers : 1, text.size };
        report->layers = of.model.layers;
        report->context = text.size;
        report->predicted = text.predicted;
        report->windows = (text.predicted + text.size - 1) / text.size;
        report->bins = text.size < EVAL_MODEL_BINS ? text.size : EVAL_MODEL_BINS;
        status = measure(report, &all, &text, of.threads, alone, error);
    }
    free(each.pairs);
    pool_close(alone);
    run_close(&of);
    return status;
}
