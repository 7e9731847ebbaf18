/* SPDX-License-Identifier: MIT */
/* Cases through Google Benchmark: it decides how many samples are taken, and reports. */
#ifndef KVT_BENCH_MEASURE_H
#define KVT_BENCH_MEASURE_H

#include "bench/cases.h"
#include "bench/decode.h"
#include "bench/gbench_shim.h"
#include "bench/machine.h"
#include "bench/workload.h"

/* What a sample's times come to. Medians over the samples; a ratio is the median of the samples' ratios, our time over the other's. */
#define MEASURE_ELEMENTS "elements_per_ns"
#define MEASURE_IN       "gbps_in"
#define MEASURE_OUT      "gbps_out"
#define MEASURE_FLOOR    "floor_ratio"
#define MEASURE_MEMCPY   "memcpy_ratio"
#define MEASURE_GGML     "ggml_ratio"  /* only where ggml has the format */
#define MEASURE_BULK     "bulk_ratio"  /* only of append and of latents */
#define MEASURE_CELLS    "cells_ratio" /* only of appended keys */
#define MEASURE_BYTES    "working_set"
#define MEASURE_SAMPLES  "samples"
#define MEASURE_NOISE    "noise" /* what the median of our times may be off, as a share, after their scatter: two standard errors */
/* Of attend, which has these and the last two: shares of a limit are its time over ours, speed-ups the other's time over ours. */
#define MEASURE_TOKENS    "tokens"
#define MEASURE_STEP      "microseconds"
#define MEASURE_STORED    "gbps_stored"
#define MEASURE_READ      "read_share"
#define MEASURE_MULTIPLY  "multiply_share"    /* only of tiers with vectors */
#define MEASURE_F16       "f16_speedup"       /* not of f16 */
#define MEASURE_REFERENCE "reference_speedup" /* only of widths that are multiples of 16 */

typedef struct measure_plan {
    machine machine;
    workload_size size;
    bench_cases list;
    struct measure_entry *entries;
    workload work; /* or, of attend, */
    decode step;
    const bench_case *open; /* the case that these have */
} measure_plan;

/* Registers the plan's cases under their names. The plan stays until measure_free. Returns 0, or -1 when memory is out. */
int measure_register(measure_plan *plan);

/* Shuts Google Benchmark down too. */
void measure_free(measure_plan *plan);

#endif
