/* SPDX-License-Identifier: MIT */
/* kvtile-bench: all cases as Google Benchmark's own program. */
#include "bench/ggml.h"
#include "bench/measure.h"
#include "tools/files/output.h"
#include "tools/program/program.h"

#include <kvtile/kvtile.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char WHO[] = "kvtile-bench";

static const char HELP[] =
    "Usage: kvtile-bench [--benchmark_filter=REGEX] [GOOGLE BENCHMARK'S FLAGS]\n"
    "Times kvtile's kernels in turns with what limits them.\n"
    "\n"
    "Names are op/scheme/side/tier/head_dim/dtype/options/where:\n"
    "  op       write, read: whole heads; append: a token in 8 heads per call; import, export: whole heads from and to rows of another engine\n"
    "  options  plain, rot64, page (centring), fast, best (effort), block32+e8m0 (FP8)\n"
    "  where    l2: the data stay in the L2 cache; memory: at least three times the last level is walked\n"
    "Names of attention are attend/scheme/group/tier/head_dim/tokens/threads/where; tokens is fit where as many as the L2 cache holds.\n"
    "Counters: docs/performance.md. Ratios are our time over the other's; shares and speed-ups are the other's time over ours.\n"
    "Without a filter the plain cases of f32 rows run. `kvtile bench` prints the same as a table.\n"
    "\n"
    "Examples:\n"
    "  kvtile-bench --benchmark_filter='write/q8_0/k/.*/128/f32/plain'\n"
    "  kvtile-bench --benchmark_filter='read/kv.*/rot64/l2' --benchmark_min_time=0.5 --benchmark_out=kv.json\n"
    "  kvtile-bench --benchmark_filter='attend/.*/g4/.*/128/32768/t1/memory'\n"
    "  kvtile-bench --benchmark_list_tests --benchmark_filter=.\n"
    "\n";

static void add_context(const machine *here)
{
    char caches[120];
    snprintf(caches, sizeof caches, "L1 %zu KiB, L2 %zu KiB, last level %zu KiB (%s)", here->l1_bytes >> 10, here->l2_bytes >> 10,
             here->llc_bytes >> 10, here->cache_source);
    shim_add_context("kvtile", kvt_version());
    shim_add_context("cpu", here->cpu);
    shim_add_context("tiers", here->tiers);
    shim_add_context("caches", caches);
    if (ggml_report() != NULL)
        shim_add_context("ggml", ggml_report());
}

/* Google's --benchmark_out would leave half a file where the disk is full: the flag is taken here, and the file is written as all others are. */
typedef struct out_flags {
    const char *path; /* NULL: none */
    const char *format;
} out_flags;

static const char *value_of(const char *argument, const char *flag, const char *before)
{
    const size_t length = strlen(flag);
    return strncmp(argument, flag, length) == 0 && argument[length] == '=' ? argument + length + 1 : before;
}

static out_flags find_out(int argc, char **argv)
{
    out_flags found = { getenv("BENCHMARK_OUT"), getenv("BENCHMARK_OUT_FORMAT") };
    for (int i = 1; i < argc; i++) {
        found.path = value_of(argv[i], "--benchmark_out", found.path);
        found.format = value_of(argv[i], "--benchmark_out_format", found.format);
    }
    found.path = found.path != NULL && *found.path != '\0' ? found.path : NULL;
    return found;
}

static shim_format format_of(const char *name)
{
    if (name != NULL && strcmp(name, "csv") == 0)
        return SHIM_CSV;
    return name != NULL && strcmp(name, "console") == 0 ? SHIM_CONSOLE : SHIM_JSON; /* shim_initialize refuses others */
}

/* The benchmarks that are registered. The exit code. */
static int run_registered(const out_flags *to)
{
    file_output output = { 0 };
    error_text error;
    if (to->path != NULL && file_output_open(&output, to->path, &error) != 0) {
        error_print(WHO, to->path, error.text);
        return 1;
    }
    if (shim_run(output.stream, format_of(to->format)) == 0) {
        error_print(WHO, "--benchmark_filter", "fits no case; --benchmark_list_tests --benchmark_filter=. lists them");
        if (to->path != NULL)
            file_output_discard(&output);
        return 1;
    }
    if (to->path == NULL || file_output_commit(&output, &error) == 0)
        return 0;
    error_print(WHO, to->path, error.text);
    return 1;
}

int main(int argc, char **argv)
{
    static char filter[] = "--benchmark_filter=/f32/plain/";
    static char min_time[] = "--benchmark_min_time=0.05";
    static char tabular[] = "--benchmark_counters_tabular=true";
    static char nowhere[] = "--benchmark_out=/dev/null", none[] = "--benchmark_out=";
    program_start(WHO);
    char **arguments = calloc((size_t)argc + 5, sizeof *arguments);
    if (arguments == NULL) {
        error_print(WHO, "arguments", "cannot be read: out of memory");
        return 1;
    }
    /* Ours first, but for the file: of the same flag twice the last counts. */
    const out_flags to = find_out(argc, argv);
    arguments[0] = argv[0];
    arguments[1] = filter;
    arguments[2] = min_time;
    arguments[3] = tabular;
    if (argc > 1)
        memcpy(arguments + 4, argv + 1, (size_t)(argc - 1) * sizeof *argv);
    arguments[argc + 3] = to.path != NULL ? nowhere : none;
    int n_arguments = argc + 4;

    int code = 0;
    static measure_plan plan;
    if (shim_initialize(&n_arguments, arguments, HELP) != 0) {
        code = 2;
    } else {
        machine_look(&plan.machine);
        add_context(&plan.machine);
        if (bench_cases_add_all(&plan.list) != 0 || measure_register(&plan) != 0) {
            error_print(WHO, "cases", "out of memory");
            code = 1;
        } else {
            code = run_registered(&to);
        }
    }
    measure_free(&plan);
    free(arguments);
    return code;
}
