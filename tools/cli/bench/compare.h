/* SPDX-License-Identifier: MIT */
/* Runs of kvtile bench --json beside each other. */
#ifndef KVT_CLI_BENCH_COMPARE_H
#define KVT_CLI_BENCH_COMPARE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Prints how much faster each case of the second file is, and what is noise, or the same as JSON. Returns an exit code. */
int bench_compare(const char *who, const char *first, const char *second, int json);

/* Prints a page that ranks the machines of n files. Returns an exit code. */
int bench_rank(const char *who, const char **paths, size_t n);

/* A file of kvtile bench --json; NULL, and why was said. */
json_t *bench_open_run(const char *who, const char *path);

/* Whether two results are of one case; of two CPUs tiers and sizes of caches do not count. */
bool bench_is_same_case(const json_t *a, const json_t *b, bool same_cpu);

/* Of a conversion elements, of attention bytes in a time; NaN where it was not measured. */
double bench_speed_of(const json_t *result);

#endif
