/* SPDX-License-Identifier: MIT */
/* Google Benchmark for C programs: as much of it as bench/ uses. gbench_shim.cc is the project's only C++. */
#ifndef KVT_BENCH_GBENCH_SHIM_H
#define KVT_BENCH_GBENCH_SHIM_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct shim_state shim_state;

/* ---- what to run ---- */

/* `run` is called with `context` as often as Google Benchmark likes, each time with more iterations. With `manual_time`, the time of an iteration
 * is what shim_set_iteration_time says, otherwise what passes. */
void shim_register(const char *name, void (*run)(shim_state *state, void *context), void *context, int manual_time);

/* A line in the head of the report. */
void shim_add_context(const char *key, const char *value);

/* ---- inside a benchmark ---- */

/* `while (shim_keep_running(state)) ...` */
int shim_keep_running(shim_state *state);
uint64_t shim_iterations(const shim_state *state); /* so far */
void shim_set_iteration_time(shim_state *state, double seconds);

/* After the loop, for all iterations together: */
void shim_set_counter(shim_state *state, const char *name, double value);
void shim_set_items_processed(shim_state *state, uint64_t items);
void shim_set_bytes_processed(shim_state *state, uint64_t bytes);

/* Ends the loop; the benchmark is reported as failed. */
void shim_skip_with_error(shim_state *state, const char *message);

/* ---- running ---- */

/* A program that has no memory for Google Benchmark ends with a message and status 1. Takes Google Benchmark's flags out of argv; of the same flag
 * twice the last counts. --help prints `help` and then Google's, and exits. Returns 0, or -1 when an argument is left, having printed it. */
int shim_initialize(int *argc, char **argv, const char *help);

typedef struct shim_result {
    const char *name;
    const char *error; /* NULL: none */
    uint64_t iterations;
    double seconds; /* of one iteration */
    size_t n_counters;
    const char *const *counter_names;
    const double *counter_values;
} shim_result;

/* The value of a counter; NAN when there is none of that name. */
double shim_result_counter(const shim_result *result, const char *name);

/* What --benchmark_out_format says. */
typedef enum shim_format { SHIM_JSON, SHIM_CSV, SHIM_CONSOLE } shim_format;

/* Runs what is registered and fits --benchmark_filter, and returns the number of benchmarks. shim_run prints the usual report, and writes one in
 * `format` to `out` unless that is NULL; otherwise --benchmark_out must have been given as /dev/null. shim_run_captured gives each result (aggregates
 * left out) to `take` and prints nothing. */
size_t shim_run(FILE *out, shim_format format);
size_t shim_run_captured(void (*take)(void *context, const shim_result *result), void *context);

/* Forgets what is registered and frees everything. */
void shim_shutdown(void);

#ifdef __cplusplus
}
#endif

#endif
