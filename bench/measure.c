/* SPDX-License-Identifier: MIT */
#include "bench/measure.h"

#include "tools/program/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct measure_entry {
    measure_plan *plan;
    const bench_case *case_;
} measure_entry;

enum { MOST_SAMPLES = 2048 };

static double median(const double *values, size_t n)
{
    double sorted[MOST_SAMPLES];
    memcpy(sorted, values, n * sizeof *values);
    return statistics_median(sorted, n);
}

/* Two standard errors of a median, as a share of it: 2 * 1.2533 s / sqrt(n), where s is what a normal distribution with these quartiles has. */
static double noise(const double *values, size_t n)
{
    double sorted[MOST_SAMPLES];
    memcpy(sorted, values, n * sizeof *values);
    const double middle = statistics_median(sorted, n), between_quartiles = sorted[n - 1 - (n - 1) / 4] - sorted[(n - 1) / 4];
    return 2 * 1.2533 * between_quartiles / 1.349 / sqrt((double)n) / middle;
}

enum { MOST_CONTENDERS = (int)N_CONTENDERS > (int)N_DECODE_CONTENDERS ? (int)N_CONTENDERS : (int)N_DECODE_CONTENDERS };

/* The last MOST_SAMPLES samples. */
typedef struct samples {
    size_t n; /* all that were taken */
    double ours[MOST_SAMPLES];
    double ratio[MOST_CONTENDERS][MOST_SAMPLES]; /* ours, the first contender's, over theirs */
} samples;

static size_t kept(const samples *all)
{
    return all->n < MOST_SAMPLES ? all->n : MOST_SAMPLES;
}

static double median_ratio(const samples *all, size_t who)
{
    return median(all->ratio[who], kept(all));
}

static int open_case(measure_plan *plan, const bench_case *case_)
{
    if (plan->open == case_) /* Google Benchmark calls a case again and again until its time is up */
        return 0;
    plan->open = NULL;
    const int status = case_->op == BENCH_ATTEND ? decode_open(&plan->step, case_, &plan->machine, plan->size)
                                                 : workload_open(&plan->work, case_, &plan->machine, plan->size);
    if (status == 0)
        plan->open = case_;
    return status;
}

/* Returns our seconds, or a negative number with the error. */
static double take_sample(measure_plan *plan, const bench_case *case_, samples *all)
{
    double seconds[MOST_CONTENDERS];
    const bool is_decode = case_->op == BENCH_ATTEND;
    if ((is_decode ? decode_sample(&plan->step, seconds) : workload_sample(&plan->work, seconds)) != 0)
        return -1;
    const size_t at = all->n++ % MOST_SAMPLES, contenders = is_decode ? (size_t)N_DECODE_CONTENDERS : (size_t)N_CONTENDERS;
    all->ours[at] = seconds[0];
    for (size_t who = 0; who < contenders; who++)
        all->ratio[who][at] = seconds[0] / seconds[who];
    return seconds[0];
}

static void count_conversion(shim_state *state, const workload *work, const samples *all)
{
    static const char *const names[N_CONTENDERS] = { NULL, MEASURE_FLOOR, MEASURE_MEMCPY, MEASURE_GGML, MEASURE_BULK, MEASURE_CELLS };
    const double nanoseconds = 1e9 * median(all->ours, kept(all));
    shim_set_counter(state, MEASURE_ELEMENTS, (double)workload_elements(work) / nanoseconds);
    shim_set_counter(state, MEASURE_IN, (double)workload_bytes_in(work) / nanoseconds);
    shim_set_counter(state, MEASURE_OUT, (double)workload_bytes_out(work) / nanoseconds);
    for (size_t who = 1; who < N_CONTENDERS; who++)
        if (!isnan(all->ratio[who][0])) /* workload_sample says which the case has */
            shim_set_counter(state, names[who], median_ratio(all, who));
    shim_set_counter(state, MEASURE_BYTES, (double)work->working_set);
}

static void count_decode(shim_state *state, const decode *step, const samples *all)
{
    static const char *const names[N_DECODE_CONTENDERS] = { NULL, MEASURE_READ, MEASURE_MULTIPLY, MEASURE_F16, MEASURE_REFERENCE };
    const double microseconds = 1e6 * median(all->ours, kept(all)) / (double)decode_steps(step);
    shim_set_counter(state, MEASURE_TOKENS, (double)step->tokens);
    shim_set_counter(state, MEASURE_STEP, microseconds);
    shim_set_counter(state, MEASURE_STORED, (double)decode_step_bytes(step) / microseconds / 1e3);
    for (size_t who = 1; who < N_DECODE_CONTENDERS; who++)
        if (isfinite(all->ratio[who][0]))
            shim_set_counter(state, names[who], 1 / median_ratio(all, who));
    shim_set_counter(state, MEASURE_BYTES, (double)decode_working_set(step));
}

static void run_case(shim_state *state, void *context)
{
    static samples all;
    const measure_entry *entry = context;
    measure_plan *plan = entry->plan;
    const bool is_decode = entry->case_->op == BENCH_ATTEND;
    const char *error = is_decode ? plan->step.error : plan->work.error;
    if (open_case(plan, entry->case_) != 0) {
        shim_skip_with_error(state, error);
        return;
    }

    const size_t enough = plan->size == WORKLOAD_QUICK ? 3 : 7;
    all.n = 0;
    double seconds = 0;
    while (seconds >= 0 && shim_keep_running(state)) {
        seconds = take_sample(plan, entry->case_, &all);
        shim_set_iteration_time(state, seconds);
    }
    while (seconds >= 0 && all.n < enough)
        seconds = take_sample(plan, entry->case_, &all);
    if (seconds < 0) {
        shim_skip_with_error(state, error);
        return;
    }
    if (is_decode)
        count_decode(state, &plan->step, &all);
    else
        count_conversion(state, &plan->work, &all);
    shim_set_counter(state, MEASURE_NOISE, noise(all.ours, kept(&all)));
    shim_set_counter(state, MEASURE_SAMPLES, (double)all.n);
}

int measure_register(measure_plan *plan)
{
    plan->entries = calloc(plan->list.n + 1, sizeof *plan->entries);
    if (plan->entries == NULL)
        return -1;
    for (size_t i = 0; i < plan->list.n; i++) {
        char name[BENCH_NAME_ROOM];
        bench_case_name(&plan->list.cases[i], name);
        plan->entries[i] = (measure_entry){ .plan = plan, .case_ = &plan->list.cases[i] };
        shim_register(name, run_case, &plan->entries[i], 1);
    }
    return 0;
}

void measure_free(measure_plan *plan)
{
    shim_shutdown();
    workload_close(&plan->work);
    decode_close(&plan->step);
    free(plan->entries);
    free(plan->list.cases);
    *plan = (measure_plan){ 0 };
}
