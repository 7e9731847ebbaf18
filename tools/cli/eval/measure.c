/* SPDX-License-Identifier: MIT */
/* kvtile eval: stores rows, reads them back, and compares. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/eval/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Heads pass through memory in blocks of tokens, however many they have: whole pages, and whole units of other engines' formats. Of the pages those
 * of a block stay, and the one before it, which centres come from. */
enum { BLOCK_TOKENS = 8192, BLOCK_PAGES = BLOCK_TOKENS / KVT_PAGE_TOKENS, PLACES = BLOCK_PAGES + 1 };
_Static_assert(BLOCK_TOKENS % PEER_MOST_UNIT == 0 && BLOCK_TOKENS % KVT_PAGE_TOKENS == 0, "whole units");

static size_t page_count(size_t tokens)
{
    return tokens / KVT_PAGE_TOKENS + (tokens % KVT_PAGE_TOKENS != 0);
}

static size_t at_most(size_t n, size_t most)
{
    return n < most ? n : most;
}

/* ---- memory ---- */

void eval_space_free(eval_space *space)
{
    free(space->rows);
    free(space->back);
    free(space->used);
    free(space->mean);
    free(space->table);
    free(space->pages);
    *space = (eval_space){ 0 };
}

/* Room for blocks of a tensor and for `bytes` of pages. What was there is lost. */
static int space_for(eval_space *space, const rows_tensor *tensor, size_t bytes, error_text *error)
{
    const size_t n = at_most(tensor->tokens, BLOCK_TOKENS) * tensor->dim, pages = page_count(tensor->tokens);
    if (n <= space->n_elements && tensor->tokens <= space->n_tokens && tensor->dim <= space->n_channels && pages <= space->n_pages &&
        bytes <= space->n_bytes)
        return 0;
    eval_space_free(space);
    space->rows = malloc(n * sizeof *space->rows);
    space->back = malloc(n * sizeof *space->back);
    space->used = malloc(tensor->tokens * sizeof *space->used);
    space->mean = malloc(tensor->dim * sizeof *space->mean);
    space->table = malloc(pages * sizeof *space->table);
    space->pages = aligned_alloc(64, bytes);
    if (!space->rows || !space->back || !space->used || !space->mean || !space->table || !space->pages) {
        eval_space_free(space);
        return error_set(error, "has %zu tokens: more than there is memory for", tensor->tokens);
    }
    space->n_elements = n;
    space->n_tokens = tensor->tokens;
    space->n_channels = tensor->dim;
    space->n_pages = pages;
    space->n_bytes = bytes;
    return 0;
}

/* ---- one head ---- */

typedef struct head {
    const eval_tensor *report;
    eval_space *space;
    uint32_t index;
    size_t first, n; /* tokens of the block that is in space->rows */
    double energy;
    double centred_energy;
} head;

/* The block from token `first` on; false when there is none. */
static bool load_block(head *h, size_t first)
{
    const rows_tensor *tensor = h->report->tensor;
    const size_t n = at_most(tensor->tokens - first, BLOCK_TOKENS);
    if (n > 0 && (first != h->first || n != h->n))
        rows_to_f32(tensor, h->index, first, n, h->space->rows);
    if (n > 0) {
        h->first = first;
        h->n = n;
    }
    return n > 0;
}

/* Token 0 has no part in what is centred: models give it rows unlike all others. */
static bool is_centred(const eval_tensor *report, size_t token)
{
    return token > 0 && token >= report->from;
}

/* What is said of the block's rows, but for their deviations from a mean that is not known yet; `n_mean` rows are in the sums of it so far. */
static void look_at_block(head *h, eval_tensor *report, size_t *n_mean)
{
    const uint32_t dim = report->tensor->dim;
    eval_space *space = h->space;
    for (size_t i = 0; i < h->n; i++) {
        const float *row = space->rows + i * dim;
        const size_t t = h->first + i;
        uint64_t bad = 0;
        for (uint32_t c = 0; c < dim; c++)
            bad += isfinite(row[c]) ? 0 : 1;
        report->nonfinite += bad;
        space->used[t] = bad == 0 && t >= report->from;
        for (uint32_t c = 0; space->used[t] && c < dim; c++)
            h->energy += (double)row[c] * row[c];
        for (uint32_t c = 0; bad == 0 && t > 0 && c < dim; c++)
            space->mean[c] += row[c];
        report->n_used += space->used[t] ? 1 : 0;
        report->n_centred_used += space->used[t] && t > 0 ? 1 : 0;
        *n_mean += bad == 0 && t > 0 ? 1 : 0;
    }
}

static void look_at_head(head *h, eval_tensor *report)
{
    const uint32_t dim = report->tensor->dim;
    eval_space *space = h->space;
    size_t n_mean = 0;
    for (uint32_t c = 0; c < dim; c++)
        space->mean[c] = 0;
    for (size_t first = 0; load_block(h, first); first += h->n)
        look_at_block(h, report, &n_mean);
    for (uint32_t c = 0; n_mean > 0 && c < dim; c++)
        space->mean[c] /= (double)n_mean;
    for (size_t first = 0; load_block(h, first); first += h->n) {
        for (size_t i = first == 0; i < h->n; i++) {
            const float *row = space->rows + i * dim;
            for (uint32_t c = 0; space->used[first + i] && c < dim; c++) {
                const double deviation = row[c] - space->mean[c];
                h->centred_energy += deviation * deviation;
            }
        }
    }
    report->energy += h->energy;
    report->centred_energy += h->centred_energy;
}

/* ---- one way ---- */

typedef struct transfer {
    const eval_result *way;
    const head *h;
    kvt_pages pages;
} transfer;

/* All tokens, in order: the bytes are those of an engine that writes one at a time. */
static kvt_status write_to_pages(const transfer *job)
{
    const head *h = job->h;
    return kvt_write(&job->way->layout, h->report->side, &job->pages, h->first, h->n, h->space->rows, KVT_F32,
                     (ptrdiff_t)(h->report->tensor->dim * sizeof(float)));
}

static kvt_status read_from_pages(const transfer *job)
{
    const head *h = job->h;
    return kvt_read(&job->way->layout, h->report->side, &job->pages, h->first, h->n, h->space->back, KVT_F32,
                    (ptrdiff_t)(h->report->tensor->dim * sizeof(float)));
}

/* The best rate of passes that together take 20 ms or more. A pass repeats the job until the clock's resolution does not matter. */
static kvt_status best_rate(kvt_status (*run)(const transfer *), const transfer *job, double *gbps)
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
    *gbps = (double)(job->h->n * job->h->report->tensor->dim * sizeof(float)) / best / 1e9;
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

/* Energies of a head's errors. */
typedef struct errors {
    double all, centred;
} errors;

static void add_block_errors(eval_result *sums, const head *h, errors *e)
{
    const uint32_t dim = h->report->tensor->dim;
    for (size_t i = 0; i < h->n; i++) {
        const float *row = h->space->rows + i * dim;
        const float *back = h->space->back + i * dim;
        const size_t t = h->first + i;
        double of_token = 0;
        bool lost = false;
        for (uint32_t c = 0; h->space->used[t] && c < dim; c++) {
            const double difference = (double)back[c] - row[c];
            lost = lost || !isfinite(back[c]);
            of_token += difference * difference;
            sums->max_abs_error = fmax(sums->max_abs_error, fabs(difference));
        }
        sums->lost += lost ? 1 : 0;
        e->all += of_token;
        e->centred += is_centred(h->report, t) ? of_token : 0;
    }
}

static int pass_block(eval_result *sums, const transfer *job, bool speed, error_text *error)
{
    const head *h = job->h;
    const eval_space *space = h->space;
    if (sums->way->peer != NULL)
        return peer_store(sums->way->peer, h->report->side, sums->way->options.rotation, space->rows, h->n, h->report->tensor->dim, space->back,
                          error);
    kvt_status status = write_to_pages(job);
    if (status == KVT_OK && speed)
        status = best_rate(write_to_pages, job, &sums->write_gbps);
    if (status == KVT_OK)
        status = read_from_pages(job);
    if (status == KVT_OK && speed)
        status = best_rate(read_from_pages, job, &sums->read_gbps);
    return status == KVT_OK ? 0 : error_set(error, "cannot be stored as %s: %s", eval_way_name(sums->way), kvt_status_text(status));
}

/* Stores and reads back one head in pages of exactly the size that the layout says, at the end of the memory, so that an overrun is one. */
static int run_head(eval_result *sums, head *h, bool speed, error_text *error)
{
    eval_space *space = h->space;
    const size_t page = sums->layout.page_bytes, pages = page_count(h->report->tensor->tokens), places = at_most(pages, PLACES);
    for (size_t p = 0; p < pages; p++)
        space->table[p] = space->pages + (space->n_bytes - (places - p % places) * page);
    const transfer job = { .way = sums, .h = h, .pages = { .table = space->table, .count = pages } };
    errors e = { 0, 0 };
    for (size_t first = 0; load_block(h, first); first += h->n) {
        if (pass_block(sums, &job, speed && first == 0, error) != 0)
            return -1;
        add_block_errors(sums, h, &e);
    }
    sums->error_energy += e.all;
    sums->centred_error_energy += e.centred;
    mean_add(&sums->snr, h->energy, e.all);
    mean_add(&sums->centred_snr, h->centred_energy, e.centred);
    return 0;
}

/* ---- one tensor ---- */

static int set_layout(eval_result *result, const eval_tensor *report, uint32_t tiers, error_text *error)
{
    const uint32_t dim = report->tensor->dim;
    if (result->way->peer != NULL) {
        result->page_bytes = eval_peer_page(result->way->peer, report->side, dim);
        result->pair_bytes = eval_peer_page(result->way->peer, KVT_K, dim) + eval_peer_page(result->way->peer, KVT_V, dim);
        return 0;
    }
    const kvt_scheme scheme = result->way->scheme->scheme;
    const kvt_side_options *options = &result->way->options;
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
        status = kvt_layout_init(&result->layout, report->side == KVT_K ? &alone.spec : &spec);
    if (status != KVT_OK)
        return error_set(error, "cannot be stored as %s: %s", eval_way_name(result->way), kvt_status_text(status));
    result->page_bytes = alone.page_bytes;
    result->pair_bytes = pair.page_bytes;
    return 0;
}

static int set_results(eval_tensor *report, const eval_ways *ways, uint32_t tiers, size_t *most_bytes, error_text *error)
{
    *most_bytes = 64;
    report->n_results = ways->n;
    for (size_t i = 0; i < ways->n; i++) {
        eval_result *result = &report->results[i];
        *result = (eval_result){ .way = &ways->ways[i], .same_as = i, .write_gbps = (double)NAN, .read_gbps = (double)NAN };
        if (set_layout(result, report, tiers, error) != 0)
            return -1;
        const uint32_t padded = eval_padded_dim(report->tensor->dim);
        for (size_t j = 0; j < i && result->same_as == i; j++) {
            if (eval_same_way(result->way, &ways->ways[j], padded))
                result->same_as = j;
        }
        if (result->same_as == i && eval_is_too_short(result->way, report->tensor->tokens)) {
            result->same_as = (size_t)-1;
            if (i == 0 || ways->ways[i - 1].peer != result->way->peer) /* once, not for each rotation */
                eval_say_too_short(result->way, report->tensor->tokens, report->input);
        }
        if (result->way->peer != NULL)
            continue;
        const size_t bytes = at_most(page_count(report->tensor->tokens), PLACES) * result->layout.page_bytes;
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
        head part = { .report = report, .space = space, .index = h };
        look_at_head(&part, report);
        for (size_t i = 0; status == 0 && i < ways->n; i++) {
            if (report->results[i].same_as != i)
                continue;
            progress_show(state, report->input, h * ways->n + i, report->tensor->heads * ways->n, eval_way_name(&ways->ways[i]));
            status = run_head(&report->results[i], &part, speed && h == 0, error);
        }
    }
    progress_end(state);
    return status;
}
