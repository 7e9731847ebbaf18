/* SPDX-License-Identifier: MIT */
#include "tools/cli/bench/compare.h"

#include "tools/files/error.h"
#include "tools/files/json.h"
#include "tools/files/text.h"
#include "tools/program/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What makes two results those of one case; the last two do not where the CPUs differ, which have tiers and sizes of caches of their own. */
static const char *const KEYS[] = { "op",       "scheme",   "side",   "group",     "threads",   "kv_heads", "rope_scheme", "head_dim", "dtype",
                                    "rotation", "centring", "effort", "fp8_block", "fp8_scale", "where",    "tier",        "tokens" };

typedef struct comparison {
    double speedup; /* the second's speed over the first's */
    double noise;   /* what speedup may be off, as a share: the scatter of either's samples, and BETWEEN_RUNS */
} comparison;

json_t *bench_open_run(const char *who, const char *path)
{
    json_error_t where;
    json_t *run = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    char text[300];
    if (run == NULL && where.line < 0)
        snprintf(text, sizeof text, "%.200s", where.text);
    else if (run == NULL)
        snprintf(text, sizeof text, "line %d: %.200s; a file that kvtile bench --json printed would be right", where.line, where.text);
    else if (!json_is_array(json_object_get(run, "results")) || !json_is_string(json_object_get(run, "cpu")))
        snprintf(text, sizeof text, "it has no results; a file that kvtile bench --json printed would be right");
    else
        return run;
    error_print(who, path, text);
    json_decref(run);
    return NULL;
}

bool bench_is_same_case(const json_t *a, const json_t *b, bool same_cpu)
{
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS - (same_cpu ? 0 : 2); i++) {
        const json_t *x = json_object_get(a, KEYS[i]), *y = json_object_get(b, KEYS[i]);
        if ((x != NULL) != (y != NULL) || (x != NULL && !json_equal(x, y)))
            return false;
    }
    return true;
}

double bench_speed_of(const json_t *result)
{
    const json_t *elements = json_object_get(result, "elements_per_ns");
    const double speed = json_number_value(elements != NULL ? elements : json_object_get(result, "gbps_stored"));
    return speed > 0 ? speed : (double)NAN;
}

/* What two runs of one build on one machine differ by, beside the scatter of samples: where memory lies, the clock, what else runs. Two runs of
 * --quick on a busy machine differed by up to 3 %. */
#define BETWEEN_RUNS 0.05

static bool compare_case(const json_t *first, const json_t *second, comparison *compared)
{
    const json_t *a = json_object_get(first, "noise"), *b = json_object_get(second, "noise");
    compared->speedup = bench_speed_of(second) / bench_speed_of(first);
    compared->noise = json_is_number(a) && json_is_number(b) ? hypot(BETWEEN_RUNS, hypot(json_number_value(a), json_number_value(b))) : (double)NAN;
    return isfinite(compared->speedup);
}

/* Files of versions that measured no noise have none: then nothing is called faster. */
static const char *verdict(const comparison *compared)
{
    if (isnan(compared->noise))
        return "unknown";
    return fabs(compared->speedup - 1) <= compared->noise ? "noise" : compared->speedup > 1 ? "faster" : "slower";
}

static const char *word(const json_t *result, const char *key)
{
    const char *text = json_string_value(json_object_get(result, key));
    return text != NULL ? text : "";
}

/* At most 40 columns. */
static void print_comparison_row(const json_t *result, const comparison *compared)
{
    char side[24], noise[24] = "";
    snprintf(side, sizeof side, "%lld", (long long)json_integer_value(json_object_get(result, "group")));
    if (!isnan(compared->noise))
        snprintf(noise, sizeof noise, "%.2f", compared->noise);
    printf("%-6.6s %-6.6s %-3.3s %-3.3s %6.2f %5.5s %s\n", word(result, "op"), word(result, "scheme"),
           json_object_get(result, "side") ? word(result, "side") : side, word(result, "where"), compared->speedup, noise, verdict(compared));
}

static json_t *comparison_json(const json_t *result, const comparison *compared)
{
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof KEYS / sizeof *KEYS; i++)
        if (json_object_get(result, KEYS[i]) != NULL)
            json_object_set(object, KEYS[i], json_object_get(result, KEYS[i]));
    json_object_set_new(object, "speedup", json_real(compared->speedup));
    if (!isnan(compared->noise))
        json_object_set_new(object, "noise", json_real(compared->noise));
    json_object_set_new(object, "verdict", json_string(verdict(compared)));
    return object;
}

static void print_run(char letter, const json_t *run)
{
    char shown[80];
    text_shown(shown, sizeof shown, word(run, "cpu"));
    printf("%c: %s\n   kvtile %.12s, %.20s\n", letter, shown, word(run, "version"), word(run, "date"));
}

static void print_head(const json_t *a, const json_t *b)
{
    print_run('A', a);
    print_run('B', b);
    printf("\nHow many times as fast B is as A\n%-6s %-6s %-3s %-3s %6s %5s\n", "op", "scheme", "", "", "B/A", "+-");
}

int bench_compare(const char *who, const char *first, const char *second, int json)
{
    json_t *a = bench_open_run(who, first), *b = a != NULL ? bench_open_run(who, second) : NULL;
    if (b == NULL) {
        json_decref(a);
        return 1;
    }
    const json_t *results[2] = { json_object_get(a, "results"), json_object_get(b, "results") };
    const bool same_cpu = json_equal(json_object_get(a, "cpu"), json_object_get(b, "cpu"));
    double *speedups = calloc(json_array_size(results[0]) + 1, sizeof *speedups);
    json_t *array = json_array();
    size_t n = 0, i, j, faster = 0, slower = 0;
    json_t *x, *y;
    if (speedups == NULL) {
        error_print(who, "cases", "out of memory");
        goto end;
    }
    json_array_foreach(results[0], i, x)
    {
        json_array_foreach(results[1], j, y)
        {
            comparison compared;
            if (!bench_is_same_case(x, y, same_cpu) || !compare_case(x, y, &compared))
                continue;
            if (n == 0 && !json)
                print_head(a, b);
            speedups[n++] = compared.speedup;
            faster += strcmp(verdict(&compared), "faster") == 0;
            slower += strcmp(verdict(&compared), "slower") == 0;
            if (json)
                json_array_append_new(array, comparison_json(x, &compared));
            else
                print_comparison_row(x, &compared);
            break;
        }
    }
    const double middle = n > 0 ? statistics_median(speedups, n) : 0;
    if (n == 0) {
        error_print(who, second, "it has no case in common with the first file");
    } else if (json) {
        json_t *object = json_pack("{s:f, s:I, s:I, s:I, s:o}", "median_speedup", middle, "cases", (json_int_t)n, "faster", (json_int_t)faster,
                                   "slower", (json_int_t)slower, "results", json_incref(array));
        json_print(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(object);
    } else {
        printf("\n%zu cases: %zu faster, %zu slower,\n%zu noise; median %.2f\n", n, faster, slower, n - faster - slower, middle);
    }
end:
    free(speedups);
    json_decref(array);
    json_decref(a);
    json_decref(b);
    return n ? 0 : 1;
}
