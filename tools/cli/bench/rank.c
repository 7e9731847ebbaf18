/* SPDX-License-Identifier: MIT */
/* kvtile bench --rank: a page without scripts, whose only texts of files are escaped by one function. */
#include "tools/cli/bench/compare.h"

#include "tools/files/error.h"
#include "tools/files/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct ranked {
    json_t *run;
    const char *path;
    double speed; /* of the case that is at hand */
    double score; /* geometric mean of the speeds of the cases that all have, over the first file's */
} ranked;

static const char HEAD[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, "
    "initial-scale=1\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<meta name=\"generator\" content=\"kvtile bench --rank\">\n<title>kvtile: machines</title>\n<style>\n"
    "body { font: 1rem/1.4 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }\n"
    ".scroll { overflow-x: auto }\n"
    "table { border-collapse: collapse; width: 100% }\n"
    "th, td { padding: .4rem .6rem; border-bottom: 1px solid #8886; text-align: right; vertical-align: top }\n"
    "th:nth-child(2), td:nth-child(2) { text-align: left }\n"
    "small { display: block; opacity: .7 }\n"
    "meter { width: 8rem }\n"
    "</style>\n</head>\n<body>\n<main>\n<h1>Attention on these machines</h1>\n";

/* Text of a file, as text of the page. */
static void print_escaped(const char *text)
{
    static const char special[] = "&<>\"'";
    static const char *const names[] = { "amp", "lt", "gt", "quot", "#39" };
    char shown[300];
    text_shown(shown, sizeof shown, text);
    for (const char *at = shown; *at != '\0'; at++) {
        const char *name = strchr(special, *at);
        name != NULL ? printf("&%s;", names[name - special]) : putchar(*at);
    }
}

static const char *member_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* The speed of a case of attention in a run, on the first of its tiers; NaN where it is not there. */
static double speed_in(const json_t *run, const json_t *wanted)
{
    const json_t *result;
    size_t i;
    json_array_foreach(json_object_get(run, "results"), i, result)
    {
        if (bench_is_same_case(result, wanted, false))
            return bench_speed_of(result);
    }
    return (double)NAN;
}

/* Sets the scores; returns the number of cases of attention that all runs have. */
static size_t rank_all(ranked *all, size_t n)
{
    const json_t *wanted;
    size_t at, cases = 0;
    json_array_foreach(json_object_get(all->run, "results"), at, wanted)
    {
        bool is_common = strcmp(member_text(wanted, "op"), "attend") == 0;
        for (size_t i = 0; is_common && i < n; i++)
            is_common = isfinite(all[i].speed = speed_in(all[i].run, wanted));
        if (!is_common)
            continue;
        for (size_t i = 0; i < n; i++)
            all[i].score += log(all[i].speed / bench_speed_of(wanted));
        cases++;
    }
    for (size_t i = 0; i < n; i++)
        all[i].score = exp(all[i].score / (double)cases);
    return cases;
}

static int by_score(const void *a, const void *b)
{
    const double x = ((const ranked *)a)->score, y = ((const ranked *)b)->score;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* A scheme's first case of attention, or NULL: any scheme's. */
static const json_t *attention_of(const json_t *run, const char *scheme)
{
    const json_t *result;
    size_t i;
    json_array_foreach(json_object_get(run, "results"), i, result)
    {
        if (strcmp(member_text(result, "op"), "attend") == 0 && (scheme == NULL || strcmp(member_text(result, "scheme"), scheme) == 0))
            return result;
    }
    return NULL;
}

static void print_machine(const ranked *it, size_t place, double best)
{
    static const char *const shown[] = { "f16", "q8_0", "kv8", "kv4" };
    printf("<tr><td>%zu</td><td>", place);
    print_escaped(member_text(it->run, "cpu"));
    fputs("<small>", stdout);
    print_escaped(member_text(attention_of(it->run, NULL), "tier"));
    fputs(", kvtile ", stdout);
    print_escaped(member_text(it->run, "version"));
    fputs(", ", stdout);
    print_escaped(member_text(it->run, "date"));
    fputs(", ", stdout);
    print_escaped(it->path);
    printf("</small></td><td>%.3g <meter value=\"%.4f\"></meter></td>", it->score / best, it->score / best);
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        const double speed = bench_speed_of(attention_of(it->run, shown[i]));
        isfinite(speed) ? printf("<td>%.3g</td>", speed) : printf("<td></td>");
    }
    puts("</tr>");
}

int bench_rank(const char *who, const char **paths, size_t n)
{
    ranked *all = calloc(n + 1, sizeof *all);
    size_t opened = 0, cases = 0;
    if (all == NULL)
        error_print(who, "--rank", "out of memory");
    for (; all != NULL && opened < n; opened++) {
        all[opened].path = paths[opened];
        if ((all[opened].run = bench_open_run(who, paths[opened])) == NULL)
            break;
    }
    if (all != NULL && opened == n && (cases = rank_all(all, n)) == 0)
        error_print(who, "--rank", "the files have no case of attention in common: files of kvtile bench --quick --json would be right");
    if (cases > 0) {
        qsort(all, n, sizeof *all, by_score);
        fputs(HEAD, stdout);
        printf("<p>Speed is the geometric mean over %zu cases of attention that all files have, as a share of the fastest machine's. The other "
               "columns are 10<sup>9</sup> stored bytes per second, of one scheme each.</p>\n",
               cases);
        puts("<div class=\"scroll\"><table>\n<tr><th>#</th><th>machine</th><th>speed</th><th>f16</th><th>q8_0</th><th>kv8</th><th>kv4</th></tr>");
        for (size_t i = 0; i < n; i++)
            print_machine(&all[i], i + 1, all->score);
        puts("</table></div>\n</main>\n</body>\n</html>");
    }
    for (size_t i = 0; all != NULL && i < n; i++)
        json_decref(all[i].run);
    free(all);
    return cases > 0 ? 0 : 1;
}
