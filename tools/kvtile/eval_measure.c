/* kvtile eval: stores rows, reads them back, and compares. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- memory ---- */

void eval_space_free(eval_space *space)
{
    free(space->rows);
    free(space->back);
    free(space->used);
    free(space->mean);
    free(space->pages);
    *space = (eval_space){ 0 };
}

/* Room for a tensor's heads and for `bytes` of pages. What was there is lost. */
static int space_for(eval_space *space, const rows_tensor *tensor, size_t bytes, error_text *error)
{
    const size_t n = tensor->tokens * tensor->dim; /* fits: at least 2 bytes each are in the file */
    if (n <= space->n_elements && tensor->tokens <= space->n_tokens && tensor->dim <= space->n_channels && bytes <= space->n_bytes)
        return 0;
    eval_space_free(space);
    if (n <= SIZE_MAX / sizeof(float)) {
        space->rows = malloc(n * sizeof *space->rows);
        space->back = malloc(n * sizeof *space->back);
        space->used = malloc(tensor->tokens * sizeof *space->used);
        space->mean = malloc(tensor->dim * sizeof *space->mean);
        space->pages = aligned_alloc(64, bytes);
    }
    if (space->rows == NULL || space->back == NULL || space->used == NULL || space->mean == NULL || space->pages == NULL) {
        eval_space_free(space);
        return error_set(error, "has %zu tokens: more than memory holds as f32, twice, and as pages", tensor->tokens);
    }
    space->n_elements = n;
    space->n_tokens = tensor->tokens;
    space->n_channels = tensor->dim;
    space->n_bytes = bytes;
    return 0;
}

/* ---- one head ---- */

typedef struct head {
    const eval_tensor *report;
    eval_space *space;
    double energy;
    double centred_energy;
} head;

/* Token 0 has no part in what is centred: models give it rows unlike all others. */
static bool is_centred(const eval_tensor *report, size_t token)
{
    return token > 0 && token >= report->from;
}

static void head_load(head *one, eval_tensor *report, uint32_t index)
{
    const rows_tensor *tensor = report->tensor;
    eval_space *space = one->space;
    size_t n_mean = 0;
    rows_head_to_f32(tensor, index, space->rows);
    one->energy = 0;
    one->centred_energy = 0;
    for (uint32_t c = 0; c < tensor->dim; c++)
        space->mean[c] = 0;
    for (size_t t = 0; t < tensor->tokens; t++) {
        const float *row = space->rows + t * tensor->dim;
        uint64_t bad = 0;
        for (uint32_t c = 0; c < tensor->dim; c++)
            bad += isfinite(row[c]) ? 0 : 1;
        report->nonfinite += bad;
        space->used[t] = bad == 0 && t >= report->from;
        for (uint32_t c = 0; space->used[t] && c < tensor->dim; c++)
            one->energy += (double)row[c] * row[c];
        for (uint32_t c = 0; bad == 0 && t > 0 && c < tensor->dim; c++)
            space->mean[c] += row[c];
        report->n_used += space->used[t] ? 1 : 0;
        report->n_centred_used += space->used[t] && t > 0 ? 1 : 0;
        n_mean += bad == 0 && t > 0 ? 1 : 0;
    }
    for (uint32_t c = 0; n_mean > 0 && c < tensor->dim; c++)
        space->mean[c] /= (double)n_mean;
    for (size_t t = 1; t < tensor->tokens; t++) {
        const float *row = space->rows + t * tensor->dim;
        for (uint32_t c = 0; space->used[t] && c < tensor->dim; c++) {
            const double deviation = row[c] - space->mean[c];
            one->centred_energy += deviation * deviation;
        }
    }
    report->energy += one->energy;
    report->centred_energy += one->centred_energy;
}

/* ---- one way ---- */

typedef struct transfer {
    const eval_result *way;
    kvt_side side;
    kvt_pages pages;
    const rows_tensor *tensor;
    eval_space *space;
} transfer;

/* All tokens, in order: the bytes are those of an engine that writes one at a time. */
static kvt_status store(const transfer *job)
{
    return kvt_write(&job->way->layout, job->side, &job->pages, 0, job->tensor->tokens, job->space->rows, KVT_F32,
                     (ptrdiff_t)(job->tensor->dim * sizeof(float)));
}

static kvt_status load(const transfer *job)
{
    return kvt_read(&job->way->layout, job->side, &job->pages, 0, job->tensor->tokens, job->space->back, KVT_F32,
                    (ptrdiff_t)(job->tensor->dim * sizeof(float)));
}

/* The best rate of passes that together take 20 ms or more. A pass repeats the job until the clock's resolution does not matter. */
static kvt_status measure(kvt_status (*run)(const transfer *), const transfer *job, double *gbps)
{
    size_t repeats = 1;
    size_t passes = 0;
    double best = INFINITY;
    double total = 0;
    while (total < 0.02 || passes < 3) {
        const double start = seconds();
        for (size_t i = 0; i < repeats; i++) {
            const kvt_status status = run(job);
            if (status != KVT_OK)
                return status;
        }
        const double taken = seconds() - start;
        if (taken < 1e-3) {
            repeats *= 2;
            continue;
        }
        total += taken;
        passes++;
        best = fmin(best, taken / (double)repeats);
    }
    *gbps = (double)(job->tensor->tokens * job->tensor->dim * sizeof(float)) / best / 1e9;
    return KVT_OK;
}

static void mean_add(eval_mean *mean, double energy, double error_energy)
{
    if (energy > 0 && error_energy > 0) {
        mean->sum += 10 * log10(energy / error_energy);
        mean->n++;
    } else if (energy > 0) {
        mean->n_exact++;
    }
}

static void add_errors(eval_result *sums, const head *one)
{
    const rows_tensor *tensor = one->report->tensor;
    double error_energy = 0;
    double centred_error_energy = 0;
    for (size_t t = 0; t < tensor->tokens; t++) {
        const float *row = one->space->rows + t * tensor->dim;
        const float *back = one->space->back + t * tensor->dim;
        double of_token = 0;
        for (uint32_t c = 0; one->space->used[t] && c < tensor->dim; c++) {
            if (!isfinite(back[c])) {
                sums->lost++;
                continue;
            }
            const double difference = (double)back[c] - row[c];
            of_token += difference * difference;
            sums->max_abs_error = fmax(sums->max_abs_error, fabs(difference));
        }
        error_energy += of_token;
        centred_error_energy += is_centred(one->report, t) ? of_token : 0;
    }
    sums->error_energy += error_energy;
    sums->centred_error_energy += centred_error_energy;
    mean_add(&sums->snr, one->energy, error_energy);
    mean_add(&sums->centred_snr, one->centred_energy, centred_error_energy);
}

/* Stores and reads back one head in pages of exactly the size that the layout says, at the end of the memory, so that an overrun is one. */
static int run_head(eval_result *sums, const head *one, bool speed, error_text *error)
{
    const eval_space *space = one->space;
    const rows_tensor *tensor = one->report->tensor;
    if (sums->way->peer != NULL) {
        if (peer_store(sums->way->peer, one->report->side, sums->way->options.rotation, space->rows, tensor->tokens, tensor->dim, space->back,
                       error) != 0)
            return -1;
        add_errors(sums, one);
        return 0;
    }
    transfer job = { .way = sums, .side = one->report->side, .tensor = tensor, .space = one->space };
    size_t bytes;
    kvt_status status = kvt_layout_bytes(&sums->layout, job.tensor->tokens, &bytes);
    if (status == KVT_OK)
        status = kvt_head_pages(&sums->layout, one->space->pages + (one->space->n_bytes - bytes), job.tensor->tokens, 0, &job.pages);
    if (status == KVT_OK)
        status = store(&job);
    if (status == KVT_OK && speed)
        status = measure(store, &job, &sums->write_gbps);
    if (status == KVT_OK)
        status = load(&job);
    if (status == KVT_OK && speed)
        status = measure(load, &job, &sums->read_gbps);
    if (status != KVT_OK)
        return error_set(error, "cannot be stored as %s: %s", eval_way_name(sums->way), kvt_status_text(status));
    add_errors(sums, one);
    return 0;
}

/* ---- one tensor ---- */

static int set_layout(eval_result *one, const eval_tensor *report, uint32_t tiers, error_text *error)
{
    const uint32_t dim = report->tensor->dim;
    if (one->way->peer != NULL) {
        one->page_bytes = eval_peer_page(one->way->peer, report->side, dim);
        one->pair_bytes = eval_peer_page(one->way->peer, KVT_K, dim) + eval_peer_page(one->way->peer, KVT_V, dim);
        return 0;
    }
    const kvt_scheme scheme = one->way->scheme->scheme;
    const kvt_side_options *options = &one->way->options;
    kvt_spec spec = { .size = sizeof spec, .k_scheme = scheme, .k_dim = dim, .kv_heads = 1, .tiers = tiers, .k_options = *options };
    kvt_layout alone, pair;
    kvt_status status = kvt_layout_init(&alone, &spec); /* a page of values alone, if there were one, would take as much */
    spec.v_scheme = scheme;
    spec.v_dim = dim;
    spec.v_options = *options;
    if (status == KVT_OK)
        status = kvt_layout_init(&pair, &spec);
    /* Values need keys beside them: the narrowest there are, which are not written. */
    spec.k_dim = 1;
    spec.k_options = (kvt_side_options){ 0 };
    if (status == KVT_OK)
        status = kvt_layout_init(&one->layout, report->side == KVT_K ? &alone.spec : &spec);
    if (status != KVT_OK)
        return error_set(error, "cannot be stored as %s: %s", eval_way_name(one->way), kvt_status_text(status));
    one->page_bytes = alone.page_bytes;
    one->pair_bytes = pair.page_bytes;
    return 0;
}

static int set_results(eval_tensor *report, const eval_ways *ways, uint32_t tiers, size_t *most_bytes, error_text *error)
{
    *most_bytes = 64;
    report->n_results = ways->n;
    for (size_t i = 0; i < ways->n; i++) {
        eval_result *one = &report->results[i];
        *one = (eval_result){ .way = &ways->ways[i], .same_as = i, .write_gbps = (double)NAN, .read_gbps = (double)NAN };
        if (set_layout(one, report, tiers, error) != 0)
            return -1;
        const uint32_t padded = eval_padded_dim(report->tensor->dim);
        for (size_t j = 0; j < i && one->same_as == i; j++) {
            if (eval_same_way(one->way, &ways->ways[j], padded))
                one->same_as = j;
        }
        if (one->same_as == i && eval_is_too_short(one->way, report->tensor->tokens)) {
            one->same_as = (size_t)-1;
            if (i == 0 || ways->ways[i - 1].peer != one->way->peer) /* once, not for each rotation */
                eval_say_too_short(one->way, report->tensor->tokens, report->input);
        }
        if (one->way->peer != NULL)
            continue;
        size_t bytes;
        const kvt_status status = kvt_layout_bytes(&one->layout, report->tensor->tokens, &bytes);
        if (status != KVT_OK)
            return error_set(error, "cannot be stored as %s: %s", eval_way_name(one->way), kvt_status_text(status));
        *most_bytes = bytes > *most_bytes ? bytes : *most_bytes;
    }
    return 0;
}

int eval_measure(eval_tensor *report, const eval_ways *ways, uint32_t tiers, bool speed, eval_space *space, progress *state, error_text *error)
{
    size_t bytes;
    if (report->from >= report->tensor->tokens)
        return error_set(error, "has %zu tokens: --from %zu leaves none", report->tensor->tokens, report->from);
    if (set_results(report, ways, tiers, &bytes, error) != 0 || space_for(space, report->tensor, bytes, error) != 0)
        return -1;
    int status = 0;
    for (uint32_t h = 0; status == 0 && h < report->tensor->heads; h++) {
        head one = { .report = report, .space = space };
        head_load(&one, report, h);
        for (size_t i = 0; status == 0 && i < ways->n; i++) {
            if (report->results[i].same_as != i)
                continue;
            progress_show(state, report->input, h * ways->n + i, report->tensor->heads * ways->n, eval_way_name(&ways->ways[i]));
            status = run_head(&report->results[i], &one, speed && h == 0, error);
        }
    }
    progress_end(state);
    return status;
}
