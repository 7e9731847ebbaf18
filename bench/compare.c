/* SPDX-License-Identifier: MIT */
/* kvtile-compare: two builds of the library in turns, case by case.
 *
 * Each library is in a worker process of its own: this program once more, with that library loaded before the one that it was linked with, or another
 * build's kvtile-compare, where structs differ. A worker reads lines, and answers each with one:
 *   open CASE    "ok", or "error TEXT": the case and its buffers are there (cases.h has the names)
 *   sample       "ok SECONDS", or "error TEXT": one sample was taken
 * Its first line, before it is asked, is "ok VERSION" or "error TEXT". It ends with its input. */
#define _GNU_SOURCE
#include "bench/decode.h"
#include "bench/workload.h"
#include "tools/files/error.h"
#include "tools/files/json.h"
#include "tools/program/options.h"
#include "tools/program/program.h"
#include "tools/program/statistics.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <regex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char WHO[] = "kvtile-compare";

static const char HELP[] =
    "Usage: kvtile-compare [OPTION...] OLD NEW\n"
    "Times two builds of the library in turns, and prints the new one's time over the old one's: below 1 the new one is faster.\n"
    "\n"
    "  OLD, NEW         libkvtile.so..., or, of a version whose structs are others, the kvtile-compare that was built with it\n"
    "  --filter REGEX   cases by their names, as kvtile-bench has them (default: write, read, append of both sides and attend with 1, 4 and 8 query\n"
    "                   heads, all schemes, f32 rows of 128 channels, 4096 tokens; latents of MLA, 20 heads; in L2 and in memory)\n"
    "  --tier NAME      (default: the best that this CPU has)\n"
    "  --openings N     how often each case is set up anew, in new memory (default: 5, at least 2)\n"
    "  --rounds N       pairs of samples each time (default: 11)\n"
    "  --limit RATIO    cases whose ratio may be on either side of RATIO are opened up to four times as often; exit status 1 when one is above it\n"
    "  --list           prints the cases' names and ends; OLD and NEW are not needed\n"
    "  --json           one object: the two libraries, an array of results, and the summary\n"
    "  --help           this text\n"
    "\n"
    "A ratio is the geometric mean over openings; of each opening the median of its pairs counts. The interval is Student's, 95 %, over openings.\n"
    "A library beside itself shows the noise: kvtile-compare X X.\n"
    "\n"
    "Examples:\n"
    "  kvtile-compare ../old/build/release/kernels/libkvtile.so build/release/kernels/libkvtile.so\n"
    "  kvtile-compare --filter '^attend/.*/l2$' --limit 1.03 ../old/build/release/bin/kvtile-compare build/release/kernels/libkvtile.so\n";

ERROR_FORMAT(2, 3) static void complain(const char *argument, const char *format, ...)
{
    error_text error;
    va_list arguments;
    va_start(arguments, format);
    error_set_list(&error, format, arguments);
    va_end(arguments);
    error_print(WHO, argument, error.text);
}

enum { MOST_LINE = 400, MOST_PAIRS = 1000, MOST_OPENINGS = 1000, LONGER = 4 };

/* ---- a worker ---- */

typedef struct worker_state {
    bench_cases all;
    machine here;
    workload work;
    decode step;
    const bench_case *open;
} worker_state;

/* What is wrong with the library that is loaded; NULL: nothing. `path` is what it should be, or NULL. */
static const char *loaded_wrong(const char *path)
{
    /* A library whose layouts are larger writes them whole. */
    union {
        kvt_layout layout;
        unsigned char room[8 * sizeof(kvt_layout)];
    } filled;
    const kvt_spec spec = { .size = sizeof spec, .k_scheme = KVT_SCHEME_f16, .k_dim = 16, .kv_heads = 1 };
    memset(&filled, 0, sizeof filled);
    if (kvt_layout_init(&filled.layout, &spec) != KVT_OK || filled.layout.size != sizeof filled.layout)
        return "its structs are others than this program was built with; build kvtile-compare beside that library and name it instead";
    Dl_info found;
    struct stat wanted, loaded;
    void *version = dlsym(RTLD_DEFAULT, "kvt_version");
    if (path != NULL && (version == NULL || dladdr(version, &found) == 0 || stat(path, &wanted) != 0 || stat(found.dli_fname, &loaded) != 0 ||
                         wanted.st_ino != loaded.st_ino || wanted.st_dev != loaded.st_dev))
        return "was not loaded: is it a libkvtile.so of this CPU architecture?";
    return NULL;
}

static const char *worker_open(worker_state *state, const char *name)
{
    for (size_t i = 0; i < state->all.n; i++) {
        char other[BENCH_NAME_ROOM];
        const bench_case *case_ = &state->all.cases[i];
        bench_case_name(case_, other);
        if (strcmp(name, other) != 0)
            continue;
        state->open = NULL;
        /* Memory is let go of before, so that each time other pages are used. */
        workload_close(&state->work);
        decode_close(&state->step);
        const bool is_decode = case_->op == BENCH_ATTEND;
        if ((is_decode ? decode_open(&state->step, case_, &state->here, WORKLOAD_FULL)
                       : workload_open(&state->work, case_, &state->here, WORKLOAD_FULL)) != 0)
            return is_decode ? state->step.error : state->work.error;
        state->open = case_;
        return NULL;
    }
    return "has no such case on this CPU";
}

static const char *worker_sample(worker_state *state, double *seconds)
{
    if (state->open == NULL)
        return "no case is open";
    if (state->open->op == BENCH_ATTEND)
        return decode_sample_ours(&state->step, seconds) != 0 ? state->step.error : NULL;
    return workload_sample_ours(&state->work, seconds) != 0 ? state->work.error : NULL;
}

static void print_answer(const char *error, const char *result)
{
    if (error != NULL)
        printf("error %s\n", error);
    else
        printf("ok%s%s\n", result[0] != '\0' ? " " : "", result);
    fflush(stdout);
}

static int serve_lines(const char *path)
{
    static worker_state state;
    const char *wrong = loaded_wrong(path);
    if (wrong == NULL && bench_cases_add_all(&state.all) != 0)
        wrong = "out of memory";
    print_answer(wrong, kvt_version());
    machine_look(&state.here);
    char line[MOST_LINE];
    while (wrong == NULL && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char text[40] = "";
        double seconds;
        const char *error;
        if (strncmp(line, "open ", 5) == 0) {
            error = worker_open(&state, line + 5);
        } else if (strcmp(line, "sample") == 0) {
            error = worker_sample(&state, &seconds);
            if (error == NULL)
                snprintf(text, sizeof text, "%.9e", seconds);
        } else {
            error = "no such request";
        }
        print_answer(error, text);
    }
    workload_close(&state.work);
    decode_close(&state.step);
    free(state.all.cases);
    return wrong != NULL;
}

/* ---- the other end ---- */

typedef struct worker {
    const char *path;
    pid_t process;
    FILE *to, *from;
    char line[MOST_LINE]; /* the last answer, behind "ok " or "error " */
} worker;

/* Reads an answer. Returns 0, or -1 with the error in `line`. */
static int hear(worker *peer)
{
    if (fgets(peer->line, sizeof peer->line, peer->from) == NULL) {
        int status = 0;
        waitpid(peer->process, &status, 0);
        peer->process = 0;
        snprintf(peer->line, sizeof peer->line, "ended by %s %d", WIFSIGNALED(status) ? "signal" : "exit status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        return -1;
    }
    peer->line[strcspn(peer->line, "\n")] = '\0';
    const bool is_ok = strncmp(peer->line, "ok", 2) == 0;
    const size_t prefix = strcspn(peer->line, " ");
    memmove(peer->line, peer->line + prefix + (peer->line[prefix] == ' '), strlen(peer->line + prefix) + (peer->line[prefix] != ' '));
    return is_ok ? 0 : -1;
}

static int request(worker *peer, const char *word, const char *argument)
{
    if (peer->process == 0)
        return -1;
    fprintf(peer->to, "%s%s%s\n", word, argument[0] != '\0' ? " " : "", argument);
    fflush(peer->to);
    return hear(peer);
}

/* Starts the worker of `path` and reads its first line. Returns 0, or -1 with the error in `line`. */
static int start(worker *peer, const char *path)
{
    int in[2], out[2];
    *peer = (worker){ .path = path };
    char *whole = realpath(path, NULL);
    if (whole == NULL || access(whole, R_OK) != 0 || pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
        snprintf(peer->line, sizeof peer->line, "cannot be read: %s", strerror(errno));
        free(whole);
        return -1;
    }
    const char *name = strrchr(whole, '/') + 1;
    const bool is_library = strstr(name, ".so") != NULL;
    peer->process = fork();
    if (peer->process == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        if (is_library)
            setenv("LD_PRELOAD", whole, 1);
        const char *program = is_library ? "/proc/self/exe" : whole;
        execl(program, "kvtile-compare", "--worker", is_library ? whole : (char *)NULL, (char *)NULL);
        printf("error cannot be run: %s\n", strerror(errno));
        fflush(stdout);
        _exit(127);
    }
    free(whole);
    close(in[0]);
    close(out[1]);
    peer->to = fdopen(in[1], "w");
    peer->from = fdopen(out[0], "r");
    if (peer->process > 0 && peer->to != NULL && peer->from != NULL)
        return hear(peer);
    snprintf(peer->line, sizeof peer->line, "cannot be run: %s", strerror(errno));
    return -1;
}

static void stop(worker *peer)
{
    if (peer->to != NULL)
        fclose(peer->to);
    if (peer->from != NULL)
        fclose(peer->from);
    if (peer->process > 0)
        waitpid(peer->process, NULL, 0);
}

/* ---- measuring ---- */

typedef struct plan {
    worker workers[2]; /* old, new */
    size_t openings, rounds;
    double limit; /* 0: none */
    bool json;
} plan;

typedef struct outcome {
    double ratio, low, high; /* new over old */
    double seconds[2];       /* medians, of a sample */
    size_t openings;
} outcome;

/* One opening: the median of its ratios' logarithms, and of each worker's seconds. Returns NULL, or the worker that failed. */
static worker *measure_opening(plan *work, const char *name, double *logarithm, double medians[2])
{
    double pairs[MOST_PAIRS], seconds[2][MOST_PAIRS];
    for (size_t who = 0; who < 2; who++)
        if (request(&work->workers[who], "open", name) != 0)
            return &work->workers[who];
    for (size_t round = 0; round < work->rounds; round++) {
        for (size_t turn = 0; turn < 2; turn++) {
            const size_t who = (round + turn) % 2; /* who comes second gains or loses nothing by it */
            if (request(&work->workers[who], "sample", "") != 0)
                return &work->workers[who];
            seconds[who][round] = strtod(work->workers[who].line, NULL);
        }
        pairs[round] = log(seconds[1][round] / seconds[0][round]);
    }
    *logarithm = statistics_quantile(pairs, work->rounds, 0.5);
    for (size_t who = 0; who < 2; who++)
        medians[who] = statistics_quantile(seconds[who], work->rounds, 0.5);
    return NULL;
}

/* Returns NULL, or the worker that failed. */
static worker *measure_case(plan *work, const char *name, outcome *found)
{
    double logarithms[LONGER * MOST_OPENINGS], medians[2][LONGER * MOST_OPENINGS];
    *found = (outcome){ 0 };
    for (size_t n = 0; n < LONGER * work->openings; n++) {
        double both[2];
        worker *failed = measure_opening(work, name, &logarithms[n], both);
        if (failed != NULL)
            return failed;
        medians[0][n] = both[0];
        medians[1][n] = both[1];
        found->openings = n + 1;
        if (found->openings < work->openings)
            continue;
        const statistics_interval mean = statistics_mean(logarithms, found->openings, (statistics_blocks){ 1, 1 });
        found->ratio = exp(mean.mean);
        found->low = exp(mean.low);
        found->high = exp(mean.high);
        if (work->limit <= 0 || found->high < work->limit || found->low > work->limit)
            break;
    }
    for (size_t who = 0; who < 2; who++)
        found->seconds[who] = statistics_quantile(medians[who], found->openings, 0.5);
    return NULL;
}

typedef struct summary {
    size_t cases, failed, above;
    double logarithms; /* summed */
    double worst;
    char worst_name[BENCH_NAME_ROOM];
} summary;

static void add_to_summary(summary *all, const plan *work, const char *name, const outcome *found)
{
    all->cases++;
    all->logarithms += log(found->ratio);
    all->above += work->limit > 0 && found->ratio > work->limit;
    if (found->ratio > all->worst) {
        all->worst = found->ratio;
        snprintf(all->worst_name, sizeof all->worst_name, "%s", name);
    }
}

static json_t *outcome_json(const char *name, const outcome *found)
{
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:I}", "case", name, "ratio", found->ratio, "low", found->low, "high", found->high,
                     "old_seconds", found->seconds[0], "new_seconds", found->seconds[1], "openings", (json_int_t)found->openings);
}

/* Prints each case, or appends it to `results` where that is not NULL. A worker that has ended ends it all. */
static summary compare_cases(plan *work, char *const *names, size_t n_names, json_t *results)
{
    summary all = { .worst = 0 };
    if (results == NULL)
        printf("%-52s %7s %7s %7s %11s %11s\n", "case", "ratio", "low", "high", "old us", "new us");
    for (size_t i = 0; i < n_names; i++) {
        outcome found;
        const worker *failed = measure_case(work, names[i], &found);
        if (failed != NULL) {
            complain(failed->path, "%s: %s", names[i], failed->line);
            all.failed++;
            if (failed->process == 0)
                break;
            continue;
        }
        add_to_summary(&all, work, names[i], &found);
        if (results != NULL)
            json_array_append_new(results, outcome_json(names[i], &found));
        else
            printf("%-52s %7.3f %7.3f %7.3f %11.1f %11.1f\n", names[i], found.ratio, found.low, found.high, 1e6 * found.seconds[0],
                   1e6 * found.seconds[1]);
        fflush(stdout);
    }
    return all;
}

static void print_summary(const plan *work, const summary *all)
{
    if (all->cases == 0)
        return;
    printf("%zu cases: geometric mean %.3f; worst %.3f, %s\n", all->cases, exp(all->logarithms / (double)all->cases), all->worst, all->worst_name);
    if (work->limit > 0)
        printf("%zu above %.3f\n", all->above, work->limit);
}

static int print_summary_json(const plan *work, const summary *all, json_t *results, json_t *libraries)
{
    json_t *whole = json_pack("{s:o, s:o, s:I, s:I}", "libraries", libraries, "results", results, "cases", (json_int_t)all->cases, "failed",
                              (json_int_t)all->failed);
    if (whole != NULL && all->cases > 0) {
        json_object_set_new(whole, "geometric_mean", json_real(exp(all->logarithms / (double)all->cases)));
        json_object_set_new(whole, "worst", json_real(all->worst));
        json_object_set_new(whole, "worst_case", json_string(all->worst_name));
    }
    if (whole != NULL && work->limit > 0)
        json_object_set_new(whole, "above_limit", json_integer((json_int_t)all->above));
    const int status = whole != NULL ? json_print(whole, stdout, JSON_INDENT(2)) : -1;
    printf("\n");
    json_decref(whole);
    return status;
}

/* ---- arguments ---- */

typedef struct names {
    size_t n;
    char **names;
    bool several_threads; /* in one of them */
} names;

/* The names of the cases that fit; the caller frees them. Returns 0, or the exit status having printed the error: 2 where the filter is wrong, 1
 * without memory, which glibc's regexec says where a match would need more. */
static int choose_names(names *chosen, const char *filter, const char *tier)
{
    char usual[300], error[120];
    regex_t fits;
    bench_cases all = { 0 };
    snprintf(usual, sizeof usual,
             "^((write|read|append)/[^/+]+/[kv]/%s/128/f32/plain|attend/[^/+]+/g[148]/%s/128/(fit|4096)/t1"
             "|write/[^/]+[+][^/]+/k/%s/512/f32/plain|attend/[^/]+[+][^/]+/g20/%s/512/(fit|4096)/t1)/(l2|memory)$",
             tier, tier, tier, tier);
    const int refused = regcomp(&fits, filter != NULL ? filter : usual, REG_EXTENDED | REG_NOSUB);
    if (refused == REG_ESPACE) {
        complain("--filter", "out of memory");
        return 1;
    }
    if (refused != 0) {
        regerror(refused, &fits, error, sizeof error);
        complain("--filter", "\"%.100s\" is no extended regular expression: %s", filter, error);
        return 2;
    }
    bool has_memory = bench_cases_add_all(&all) == 0;
    if (has_memory)
        has_memory = (chosen->names = calloc(all.n + 1, sizeof *chosen->names)) != NULL;
    for (size_t i = 0; has_memory && i < all.n; i++) {
        char name[BENCH_NAME_ROOM];
        bench_case_name(&all.cases[i], name);
        if (strcmp(kvt_tier_name(all.cases[i].tier), tier) != 0)
            continue;
        const int differs = regexec(&fits, name, 0, NULL, 0);
        if (differs == REG_NOMATCH)
            continue;
        has_memory = differs == 0 && (chosen->names[chosen->n] = strdup(name)) != NULL;
        chosen->n += has_memory;
        chosen->several_threads |= all.cases[i].op == BENCH_ATTEND && all.cases[i].threads > 1;
    }
    regfree(&fits);
    free(all.cases);
    if (!has_memory) {
        complain("cases", "out of memory");
        return 1;
    }
    if (chosen->n == 0) {
        complain("--filter", "fits no case; kvtile-compare --list --filter . lists those of the tier");
        return 2;
    }
    return 0;
}

/* A whole number of least .. most. Returns 0, or -1 having printed what would be right. */
static int take_count(size_t *value, const char *option, const char *text, size_t least, size_t most)
{
    char *end;
    if (text == NULL)
        return 0;
    const unsigned long number = strtoul(text, &end, 10);
    if (text[0] >= '0' && text[0] <= '9' && *end == '\0' && number >= least && number <= most) {
        *value = number;
        return 0;
    }
    complain(option, "\"%.100s\" is none: %zu to %zu would be right", text, least, most);
    return -1;
}

static int take_limit(double *limit, const char *text)
{
    char *end;
    if (text == NULL)
        return 0;
    *limit = strtod(text, &end);
    if (end != text && *end == '\0' && *limit > 0 && isfinite(*limit))
        return 0;
    complain("--limit", "\"%.100s\" is none: a ratio such as 1.03 would be right", text);
    return -1;
}

/* Runs on one CPU, with the workers, so that none has the better one. */
static void stay_here(void)
{
    cpu_set_t here;
    CPU_ZERO(&here);
    CPU_SET((size_t)sched_getcpu(), &here);
    (void)sched_setaffinity(0, sizeof here, &here);
}

/* The exit status. */
static int compare_builds(plan *work, const names *chosen, const char *const paths[2])
{
    json_t *libraries = json_array(), *results = json_array();
    int status = 0;
    if (!chosen->several_threads)
        stay_here();
    signal(SIGPIPE, SIG_IGN);
    for (size_t who = 0; status == 0 && who < 2; who++) {
        status = start(&work->workers[who], paths[who]) != 0;
        if (status != 0)
            error_print(WHO, paths[who], work->workers[who].line);
        json_array_append_new(libraries, json_pack("{s:o, s:s}", "path", json_text(paths[who]), "version", work->workers[who].line));
    }
    if (status == 0) {
        const summary all = compare_cases(work, chosen->names, chosen->n, work->json ? results : NULL);
        if (!work->json)
            print_summary(work, &all);
        else if (print_summary_json(work, &all, json_incref(results), json_incref(libraries)) != 0)
            status = 1;
        if (all.failed > 0 || all.cases == 0 || all.above > 0)
            status = 1;
    }
    for (size_t who = 0; who < 2; who++)
        stop(&work->workers[who]);
    json_decref(libraries);
    json_decref(results);
    return status;
}

int main(int argc, char **argv)
{
    program_start(WHO);
    json_set_alloc_funcs(program_allocate, free);
    if (argc >= 2 && strcmp(argv[1], "--worker") == 0)
        return serve_lines(argc > 2 ? argv[2] : NULL);
    int json = 0, list = 0, help = 0;
    char *filter = NULL, *tier = NULL, *openings = NULL, *rounds = NULL, *limit = NULL;
    char **const values[] = { &filter, &tier, &openings, &rounds, &limit };
    const struct poptOption table[] = { { "filter", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL },
                                        { "tier", 0, POPT_ARG_STRING, NULL, 2, NULL, NULL },
                                        { "openings", 0, POPT_ARG_STRING, NULL, 3, NULL, NULL },
                                        { "rounds", 0, POPT_ARG_STRING, NULL, 4, NULL, NULL },
                                        { "limit", 0, POPT_ARG_STRING, NULL, 5, NULL, NULL },
                                        { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },
                                        { "list", 0, POPT_ARG_NONE, &list, 0, NULL, NULL },
                                        { "help", 0, POPT_ARG_NONE, &help, 0, NULL, NULL },
                                        POPT_TABLEEND };
    static plan work = { .openings = 5, .rounds = 11 };
    names chosen = { 0 };
    const char **words = (const char **)(void *)argv;
    poptContext context = options_open(WHO, WHO, argc, words, table);
    if (context == NULL)
        return 1;
    const int end = options_take(context, argc, words, table, values);
    const char *const paths[2] = { poptGetArg(context), poptGetArg(context) };
    int status = 2;
    uint32_t mask;
    if (end < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(end));
    } else if (help) {
        fputs(HELP, stdout);
        status = 0;
    } else if (tier != NULL && (strpbrk(tier, ",-") != NULL || kvt_tiers_parse(tier, &mask) != KVT_OK)) {
        complain("--tier", "\"%.100s\" is none that this CPU has: kvtile info lists them", tier);
    } else if (take_count(&work.openings, "--openings", openings, 2, MOST_OPENINGS) == 0 &&
               take_count(&work.rounds, "--rounds", rounds, 1, MOST_PAIRS) == 0 && take_limit(&work.limit, limit) == 0) {
        work.json = json != 0;
        status = choose_names(&chosen, filter, tier != NULL ? tier : kvt_tier_name(bench_best_tier()));
        if (status == 0 && list) {
            for (size_t i = 0; i < chosen.n; i++)
                puts(chosen.names[i]);
        } else if (status == 0 && (paths[1] == NULL || poptPeekArg(context) != NULL)) {
            complain("arguments", "two builds would be right, OLD and NEW: see kvtile-compare --help");
            status = 2;
        } else if (status == 0) {
            status = compare_builds(&work, &chosen, paths);
        }
    }
    for (size_t i = 0; i < chosen.n; i++)
        free(chosen.names[i]);
    free(chosen.names);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        free(*values[i]);
    poptFreeContext(context);
    return status;
}
