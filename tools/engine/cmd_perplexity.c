/* SPDX-License-Identifier: MIT */
/* kvtile-engine perplexity: of one way of storing, or of several in a table. */
#include "tools/engine/commands.h"
#include "tools/program/progress.h"

#include <math.h>
#include <stdio.h>

typedef struct measured {
    double perplexity; /* NAN where predictions were lost */
    size_t lost;       /* predictions that are not finite, or from stored rows that are not */
    double speed;      /* tokens per second */
    double bits;
    size_t token_bytes;
} measured;

static int measure_perplexity(measured *result, const text_run *job, const cache_way *way, size_t context, const char *name, error_text *error)
{
    forward_state state;
    if (forward_open(&state, &job->model, way, context ? context : job->n_tokens, 1, job->threads, error) != 0)
        return -1;
    const size_t n = job->n_tokens - 1; /* the last is only predicted */
    double surprise = 0;
    size_t lost = 0;
    progress shown;
    progress_start(&shown);
    for (size_t i = 0; i < n; i++) {
        progress_show(&shown, name, i, n, NULL);
        if (context)
            forward_next(&state, job->tokens[i]);
        else
            forward_token(&state, job->tokens[i], i);
        const double added = forward_surprise(&state, job->tokens[i + 1]);
        const bool is_lost = state.cache.lost || !isfinite(added);
        lost += is_lost ? 1 : 0;
        surprise += is_lost ? 0 : added;
    }
    *result = (measured){ .perplexity = lost == 0 ? exp(surprise / (double)n) : (double)NAN,
                          .lost = lost,
                          .speed = (double)n / progress_end(&shown),
                          .bits = state.cache.bits,
                          .token_bytes = state.cache.token_bytes };
    forward_close(&state);
    return 0;
}

static void print_lost(const char *name, const measured *result, const text_run *job)
{
    printf("%s lost: %zu of %zu predictions are not finite, or come of stored rows that are not\n", name, result->lost, job->n_tokens - 1);
}

static int report_one(const text_run *job, const options *chosen, error_text *error)
{
    const cache_way *way = &chosen->way;
    measured result;
    if (measure_perplexity(&result, job, way, chosen->context, "perplexity", error) != 0)
        return -1;
    if (result.lost == 0)
        printf("perplexity %.4f over %zu tokens\n", result.perplexity, job->n_tokens);
    else
        print_lost("perplexity", &result, job);
    if (chosen->shows_way)
        printf("K %s, V %s: %.4g bits per element\n", kvt_scheme_get(way->k_scheme)->name, kvt_scheme_get(way->v_scheme)->name, result.bits);
    fprintf(stderr, "%.1f tokens/s\n", result.speed);
    return 0;
}

static void print_perplexity_row(const char *name, const measured *row, double base)
{
    char perplexity[32] = "lost", change[32] = "-";
    if (row->lost == 0)
        snprintf(perplexity, sizeof perplexity, "%.4f", row->perplexity);
    if (row->lost == 0 && !isnan(base))
        snprintf(change, sizeof change, "%+.3f", 100 * (row->perplexity / base - 1));
    printf("%-6s  %10s  %10s  %12.4g  %8zu  %9.1f\n", name, perplexity, change, row->bits, row->token_bytes, row->speed);
    fflush(stdout);
}

/* The f32 row comes first, asked for or not: the others are compared with it. */
static int report_table(const text_run *job, const options *chosen, error_text *error)
{
    cache_way way = chosen->way;
    measured base;
    if (measure_perplexity(&base, job, &way, chosen->context, "f32", error) != 0)
        return -1;
    printf("over %zu tokens\n%-6s  %10s  %10s  %12s  %8s  %9s\n", job->n_tokens, "scheme", "perplexity", "to f32, %", "bits/element", "B/token",
           "tokens/s");
    print_perplexity_row("f32", &base, base.perplexity);
    if (base.lost > 0)
        print_lost("f32", &base, job);
    for (size_t i = 0; i < chosen->n_schemes; i++) {
        const char *name = kvt_scheme_get(chosen->schemes[i])->name;
        measured row;
        way.k_scheme = way.v_scheme = chosen->schemes[i];
        if (way.k_scheme == KVT_SCHEME_f32)
            continue;
        if (measure_perplexity(&row, job, &way, chosen->context, name, error) != 0)
            return -1;
        print_perplexity_row(name, &row, base.perplexity);
        if (row.lost > 0)
            print_lost(name, &row, job);
    }
    return 0;
}

int cmd_perplexity(const options *chosen, const char **argument, error_text *error)
{
    text_run job;
    int result = run_open(&job, &chosen->source, argument, error);
    if (result == 0)
        result = run_room(&job, chosen, argument, error);
    if (result == 0)
        result = run_limit(&job, chosen, argument, error);
    if (result == 0 && job.n_tokens < 2) {
        *argument = "--tokens";
        result = error_set(error, "%zu: at least 2 would be right", job.n_tokens);
    }
    if (result == 0)
        result = chosen->n_schemes > 0 ? report_table(&job, chosen, error) : report_one(&job, chosen, error);
    run_close(&job);
    return result;
}
