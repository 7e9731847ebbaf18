#include "bench/measure.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct measure_entry {
    measure_plan *plan;
    const bench_case *one;
} measure_entry;

enum { MOST_SAMPLES = 2048 };

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, size_t n)
{
    double sorted[MOST_SAMPLES];
    memcpy(sorted, values, n * sizeof *values);
    qsort(sorted, n, sizeof *sorted, compare);
    return (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
}

/* The last MOST_SAMPLES samples. */
typedef struct samples {
    size_t n;
    double ours[MOST_SAMPLES];
    double ratio[N_CONTENDERS][MOST_SAMPLES]; /* ours over theirs */
} samples;

static void add_sample(samples *all, const double seconds[N_CONTENDERS])
{
    const size_t at = all->n++ % MOST_SAMPLES;
    all->ours[at] = seconds[CONTENDER_OURS];
    for (size_t who = 0; who < N_CONTENDERS; who++)
        all->ratio[who][at] = seconds[CONTENDER_OURS] / seconds[who];
}

static void run_case(shim_state *state, void *context)
{
    static samples all;
    const measure_entry *entry = context;
    measure_plan *plan = entry->plan;
    workload *work = &plan->work;
    if (plan->open != entry->one) { /* Google Benchmark calls a case again and again until its time is up */
        plan->open = NULL;
        if (workload_open(work, entry->one, &plan->machine, plan->size) != 0) {
            shim_skip_with_error(state, work->error);
            return;
        }
        plan->open = entry->one;
    }

    const size_t enough = plan->size == WORKLOAD_QUICK ? 3 : 7;
    double seconds[N_CONTENDERS];
    int status = 0;
    all.n = 0;
    while (shim_keep_running(state)) {
        status |= workload_sample(work, seconds);
        add_sample(&all, seconds);
        shim_set_iteration_time(state, seconds[CONTENDER_OURS]);
    }
    while (all.n < enough && status == 0) {
        status |= workload_sample(work, seconds);
        add_sample(&all, seconds);
    }
    if (status != 0) {
        shim_skip_with_error(state, work->error);
        return;
    }

    const size_t n = all.n < MOST_SAMPLES ? all.n : MOST_SAMPLES;
    const double nanoseconds = 1e9 * median(all.ours, n);
    shim_set_counter(state, MEASURE_ELEMENTS, (double)workload_elements(work) / nanoseconds);
    shim_set_counter(state, MEASURE_IN, (double)workload_bytes_in(work) / nanoseconds);
    shim_set_counter(state, MEASURE_OUT, (double)workload_bytes_out(work) / nanoseconds);
    shim_set_counter(state, MEASURE_FLOOR, median(all.ratio[CONTENDER_FLOOR], n));
    shim_set_counter(state, MEASURE_MEMCPY, median(all.ratio[CONTENDER_MEMCPY], n));
    if (work->ggml != NULL)
        shim_set_counter(state, MEASURE_GGML, median(all.ratio[CONTENDER_GGML], n));
    if (entry->one->op == BENCH_APPEND)
        shim_set_counter(state, MEASURE_BULK, median(all.ratio[CONTENDER_BULK], n));
    shim_set_counter(state, MEASURE_BYTES, (double)work->working_set);
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
        plan->entries[i] = (measure_entry){ .plan = plan, .one = &plan->list.cases[i] };
        shim_register(name, run_case, &plan->entries[i], 1);
    }
    return 0;
}

void measure_free(measure_plan *plan)
{
    shim_shutdown();
    workload_close(&plan->work);
    free(plan->entries);
    free(plan->list.cases);
    *plan = (measure_plan){ 0 };
}
