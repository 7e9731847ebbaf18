/* `kvtile size`: how many bytes the KV cache of a model takes. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/commands.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <popt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <kvtile/size.h>

#include "tools/io/error.h"
#include "tools/kvtile/nearest.h"
#include "tools/model/config_json.h"

#define EXIT_ARGUMENTS 2

static const char help[] = "Usage: kvtile size MODEL [options]       one model, layer by layer\n"
                           "       kvtile size MODEL MODEL... | --table   several models compared\n"
                           "       kvtile size --list\n"
                           "\n"
                           "How many bytes the KV cache of a model takes: what each token of context adds, the sliding\n"
                           "windows, the recurrent state, and the total.\n"
                           "\n"
                           "MODEL is a built-in name (--list), a config.json as published with the weights, or a folder that\n"
                           "holds one.\n"
                           "\n"
                           "  --scheme S     how keys and values are stored (default f16; --list names all)\n"
                           "  --k S, --v S   the same for keys or values alone\n"
                           "  --ctx N        tokens of context of each sequence; k and m stand for 1024 and 1024 * 1024\n"
                           "                 (default 32k)\n"
                           "  --seqs N       sequences (default 1)\n"
                           "  --engine E     kvtile: what kvtile's pages of 64 tokens allocate (default)\n"
                           "                 logical: the payload alone, sliding windows at exactly their length\n"
                           "  --json         one JSON object, in bytes\n"
                           "  --table        a table of the models named, or of six well-known ones, in several schemes\n"
                           "  --list         the built-in models, schemes and engines\n"
                           "  --help         this text\n"
                           "\n"
                           "Examples:\n"
                           "  kvtile size gemma-4-E2B\n"
                           "  kvtile size Qwen3.5-35B-A3B --scheme q8_0 --ctx 128k --seqs 4\n"
                           "  kvtile size ~/models/gemma-4-31B/config.json --k kv5 --v kv4 --json\n"
                           "  kvtile size --table --ctx 64k\n";

static const char *const well_known[] = { "gemma-4-E2B",   "gemma-4-26B-A4B",         "Qwen3.5-35B-A3B",
                                          "GLM-4.7-Flash", "Nemotron-3-Nano-30B-A3B", "Qwen3-30B-A3B-Instruct-2507" };
#define N_WELL_KNOWN (sizeof well_known / sizeof well_known[0])

typedef struct arguments {
    kvt_size_request request;
    bool json;
    bool table;
    bool list;
    bool help;
    bool scheme_given;
    const char **models; /* belong to popt */
    size_t n_models;
} arguments;

/* A model of the catalogue, or one that was read into `config`. */
typedef struct entry {
    const kvt_model *model;
    kvt_config config;
} entry;

__attribute__((format(printf, 2, 3))) static void say(const char *argument, const char *format, ...)
{
    char text[600];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    error_print("kvtile size", argument, text);
}

/* ---- names ----------------------------------------------------------------------------------------------------------------------- */

static int unknown_name(const char *argument, const char *what, const nearest *best)
{
    if (best->name)
        say(argument, "there is no %s of that name: did you mean %s? \"kvtile size --list\" names all", what, best->name);
    else
        say(argument, "there is no %s of that name: \"kvtile size --list\" names all", what);
    return EXIT_ARGUMENTS;
}

static int parse_scheme(const char *text, kvt_scheme *scheme)
{
    const kvt_scheme_info *info = kvt_scheme_find(text);
    if (info) {
        *scheme = info->scheme;
        return 0;
    }
    nearest best = { .typed = text };
    for (size_t i = 0; (info = kvt_scheme_at(i)) != NULL; i++)
        nearest_consider(&best, info->name);
    if (strcmp(text, "fp8") == 0)
        best.name = "e4m3";
    return unknown_name(text, "scheme", &best);
}

static const kvt_engine engines[] = { KVT_ENGINE_KVTILE, KVT_ENGINE_LOGICAL };

static int parse_engine(const char *text, kvt_engine *engine)
{
    nearest best = { .typed = text };
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(text, kvt_engine_name(engines[i])) == 0) {
            *engine = engines[i];
            return 0;
        }
        nearest_consider(&best, kvt_engine_name(engines[i]));
    }
    return unknown_name(text, "engine", &best);
}

/* ---- arguments ------------------------------------------------------------------------------------------------------------------- */

/* Digits, then nothing, k or m. */
static int parse_count(const char *option, const char *text, uint64_t low, uint64_t *count)
{
    uint64_t value = 0;
    bool good = *text >= '0' && *text <= '9';
    const char *c = text;
    for (; *c >= '0' && *c <= '9' && good; c++)
        good = !__builtin_mul_overflow(value, (uint64_t)10, &value) && !__builtin_add_overflow(value, (uint64_t)(*c - '0'), &value);
    const int unit = tolower((unsigned char)*c);
    if (unit == 'k' || unit == 'm') {
        good = good && !__builtin_mul_overflow(value, unit == 'k' ? UINT64_C(1024) : UINT64_C(1024) * 1024, &value);
        c++;
    }
    if (!good || *c || value < low) {
        say(option, "\"%.60s\" must be a whole number from %" PRIu64 " to %" PRIu64 ", such as 4096, 32k or 1m", text, low, UINT64_MAX);
        return EXIT_ARGUMENTS;
    }
    *count = value;
    return 0;
}

enum { OPTION_SCHEME = 1, OPTION_K, OPTION_V, OPTION_CTX, OPTION_SEQS, OPTION_ENGINE, OPTION_JSON, OPTION_TABLE, OPTION_LIST, OPTION_HELP };

static int parse_option(int option, const char *text, arguments *a)
{
    int code = 0;
    switch (option) {
    case OPTION_SCHEME:
        code = parse_scheme(text, &a->request.k_scheme);
        a->request.v_scheme = a->request.k_scheme;
        a->scheme_given = true;
        break;
    case OPTION_K:
        code = parse_scheme(text, &a->request.k_scheme);
        a->scheme_given = true;
        break;
    case OPTION_V:
        code = parse_scheme(text, &a->request.v_scheme);
        a->scheme_given = true;
        break;
    case OPTION_CTX:
        code = parse_count("--ctx", text, 0, &a->request.context);
        break;
    case OPTION_SEQS:
        code = parse_count("--seqs", text, 1, &a->request.sequences);
        break;
    case OPTION_ENGINE:
        code = parse_engine(text, &a->request.engine);
        break;
    case OPTION_JSON:
        a->json = true;
        break;
    case OPTION_TABLE:
        a->table = true;
        break;
    case OPTION_LIST:
        a->list = true;
        break;
    case OPTION_HELP:
        a->help = true;
        break;
    }
    return code;
}

static int parse_arguments(poptContext popt, arguments *a)
{
    int option;
    while ((option = poptGetNextOpt(popt)) > 0) {
        char *text = poptGetOptArg(popt);
        const int code = parse_option(option, text, a);
        free(text);
        if (code)
            return code;
    }
    if (option < -1) {
        say(poptBadOption(popt, POPT_BADOPTION_NOALIAS), "%s: see \"kvtile size --help\"", poptStrerror(option));
        return EXIT_ARGUMENTS;
    }

    a->models = poptGetArgs(popt);
    while (a->models && a->models[a->n_models])
        a->n_models++;
    a->table = a->table || a->n_models > 1;
    if (a->help || a->list)
        return 0;
    if (a->n_models == 0 && !a->table) {
        say("MODEL", "is missing: give a name of \"kvtile size --list\" or a config.json, or see \"kvtile size --help\"");
        return EXIT_ARGUMENTS;
    }
    if (a->table && (a->json || a->scheme_given)) {
        say(a->json ? "--json" : "--scheme", "is for one MODEL: the table of several has its own schemes and no JSON");
        return EXIT_ARGUMENTS;
    }
    return 0;
}

/* ---- models ---------------------------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    return strlen(text) >= strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0;
}

static int read_config(const char *path, entry *e)
{
    error_text error;
    if (kvt_config_read(path, &e->config, &error) != 0) {
        say(path, "%s", error.text);
        return EXIT_FAILURE;
    }
    e->model = &e->config.model;
    return 0;
}

/* Sets *found when the folder holds a config.json. */
static int read_folder(const char *folder, entry *e, bool *found)
{
    const size_t size = strlen(folder) + sizeof "/config.json";
    char *path = malloc(size);
    if (!path) {
        say(folder, "no memory");
        return EXIT_FAILURE;
    }
    snprintf(path, size, "%s%sconfig.json", folder, ends_with(folder, "/") ? "" : "/");
    *found = access(path, F_OK) == 0;
    const int code = *found ? read_config(path, e) : 0;
    free(path);
    return code;
}

/* Files go before names, so that a model on disk is sized as it is. */
static int find_model(const char *text, entry *e)
{
    struct stat file;
    const bool there = stat(text, &file) == 0;
    if (ends_with(text, ".json") || (there && !S_ISDIR(file.st_mode)))
        return read_config(text, e);

    if (there) {
        bool found;
        const int code = read_folder(text, e, &found);
        if (code || found)
            return code;
    }
    e->model = kvt_catalogue_find(text);
    if (e->model)
        return 0;
    if (there) {
        say(text, "is a folder without a config.json");
        return EXIT_FAILURE;
    }

    const char *slash = strchr(text, '/');
    nearest best = { .typed = slash ? slash + 1 : text };
    const kvt_model *model;
    for (size_t i = 0; (model = kvt_catalogue_at(i)) != NULL; i++)
        nearest_consider(&best, model->name);
    return unknown_name(text, "file and no built-in model", &best);
}

/* Sizes of one model; `groups` may be NULL. */
static int size_model(const kvt_model *model, const kvt_size_request *request, kvt_size_report *report, kvt_group_size *groups)
{
    const kvt_status status = kvt_size(model, request, report, groups);
    if (status == KVT_OK)
        return 0;
    say(model->name, "%s", kvt_status_text(status));
    return EXIT_FAILURE;
}

/* ---- numbers for people ---------------------------------------------------------------------------------------------------------- */

typedef struct number {
    char text[32];
} number;

/* 1234567 -> 1,234,567 */
static number grouped(uint64_t value)
{
    number n;
    char *c = n.text + sizeof n.text - 1;
    *c = '\0';
    unsigned digits = 0;
    do {
        if (digits && digits % 3 == 0)
            *--c = ',';
        *--c = (char)('0' + value % 10);
        value /= 10;
        digits++;
    } while (value);
    memmove(n.text, c, strlen(c) + 1);
    return n;
}

static number grouped_or_dash(uint64_t value)
{
    return value ? grouped(value) : (number){ "-" };
}

/* In the largest unit that leaves at least 1. */
static number binary_units(uint64_t bytes)
{
    static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    number n;
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    snprintf(n.text, sizeof n.text, "%.2f %s", value, units[unit]);
    return n;
}

static const char *plural(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/* ---- one model ------------------------------------------------------------------------------------------------------------------- */

static void print_total(const char *what, uint64_t bytes)
{
    printf("%-34s %20s bytes  %11s\n", what, grouped(bytes).text, binary_units(bytes).text);
}

/* Widths that are not a multiple of 16 are stored with zero channels, which the reader would not expect. */
static void print_padding(const kvt_model *model, const kvt_size_request *request)
{
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *g = &model->groups[i];
        const kvt_spec spec = {
            .size = sizeof spec,
            .k_scheme = request->k_scheme,
            .v_scheme = request->v_scheme,
            .k_dim = g->k_dim,
            .v_dim = g->v_dim,
            .kv_heads = g->kv_heads,
        };
        kvt_layout layout;
        if (g->k_dim == 0 || kvt_layout_init(&layout, &spec) != KVT_OK)
            continue;
        const kvt_side_layout *sides[] = { &layout.k, &layout.v };
        for (size_t s = 0; s < 2; s++) {
            if (sides[s]->padded_dim != sides[s]->dim)
                printf("%s layers: %s of %" PRIu32 " channels are stored as %" PRIu32 "\n", kvt_layer_kind_name(g->kind), s == 0 ? "keys" : "values",
                       sides[s]->dim, sides[s]->padded_dim);
        }
    }
}

static void print_model(const kvt_model *model, const kvt_size_request *request, const kvt_size_report *report, const kvt_group_size *sizes)
{
    printf("%s: keys %s, values %s, %s token%s of context, %s sequence%s, %s\n\n", model->name, kvt_scheme_get(request->k_scheme)->name,
           kvt_scheme_get(request->v_scheme)->name, grouped(request->context).text, plural(request->context), grouped(request->sequences).text,
           plural(request->sequences), request->engine == KVT_ENGINE_KVTILE ? "kvtile's pages" : "payload alone");

    printf("%-9s %5s %8s %5s %5s %6s %11s %10s %18s\n", "layers", "count", "KV heads", "K dim", "V dim", "window", "bytes/token", "tokens", "bytes");
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *g = &model->groups[i];
        printf("%-9s %5" PRIu32 " %8s %5s %5s %6s %11s %10s %18s", kvt_layer_kind_name(g->kind), g->count, grouped_or_dash(g->kv_heads).text,
               grouped_or_dash(g->k_dim).text, grouped_or_dash(g->v_dim).text, grouped_or_dash(g->window).text,
               grouped_or_dash(sizes[i].bytes_per_token).text, grouped_or_dash(sizes[i].tokens).text, grouped(sizes[i].bytes).text);
        if (sizes[i].bytes)
            printf("  %11s", binary_units(sizes[i].bytes).text);
        printf("\n");
    }

    printf("\n");
    print_total("each further token", report->growing_bytes_per_token);
    if (report->window_bytes_per_token)
        print_total("and until the windows are full", report->window_bytes_per_token);
    if (report->state_bytes_per_sequence)
        print_total("state of each sequence", report->state_bytes_per_sequence);
    print_total("total", report->total_bytes);
    print_padding(model, request);
}

static json_int_t integer(uint64_t value)
{
    return (json_int_t)value;
}

static json_t *make_json(const kvt_model *model, const kvt_size_request *request, const kvt_size_report *report, const kvt_group_size *sizes)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *g = &model->groups[i];
        json_t *layer =
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "kind", kvt_layer_kind_name(g->kind), "count", integer(g->count), "kv_heads",
                      integer(g->kv_heads), "k_dim", integer(g->k_dim), "v_dim", integer(g->v_dim), "window", integer(g->window), "bytes_per_token",
                      integer(sizes[i].bytes_per_token), "tokens", integer(sizes[i].tokens), "bytes", integer(sizes[i].bytes));
        if (json_array_append_new(layers, layer) != 0) {
            json_decref(layers);
            return NULL;
        }
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:{s:I, s:I}, s:I, s:I, s:o}", "model", model->name, "k_scheme",
                     kvt_scheme_get(request->k_scheme)->name, "v_scheme", kvt_scheme_get(request->v_scheme)->name, "context",
                     integer(request->context), "sequences", integer(request->sequences), "engine", kvt_engine_name(request->engine),
                     "bytes_per_token", "growing", integer(report->growing_bytes_per_token), "window", integer(report->window_bytes_per_token),
                     "state_bytes_per_sequence", integer(report->state_bytes_per_sequence), "total_bytes", integer(report->total_bytes), "layers",
                     layers);
}

static int print_json(const kvt_model *model, const kvt_size_request *request, const kvt_size_report *report, const kvt_group_size *sizes)
{
    /* The other numbers are never larger than these. */
    if (request->context > INT64_MAX || request->sequences > INT64_MAX || report->total_bytes > INT64_MAX) {
        say("--json", "cannot hold numbers above %" PRId64 ": ask for less context or fewer sequences", INT64_MAX);
        return EXIT_FAILURE;
    }
    json_t *object = make_json(model, request, report, sizes);
    if (!object) {
        say("--json", "no memory");
        return EXIT_FAILURE;
    }
    json_dumpf(object, stdout, JSON_INDENT(2)); /* run() looks for errors of stdout */
    putchar('\n');
    json_decref(object);
    return 0;
}

static int run_model(const entry *e, const arguments *a)
{
    kvt_group_size *sizes = calloc(e->model->n_groups, sizeof *sizes);
    if (!sizes) {
        say(e->model->name, "no memory");
        return EXIT_FAILURE;
    }
    kvt_size_report report;
    int code = size_model(e->model, &a->request, &report, sizes);
    if (code == 0 && a->json)
        code = print_json(e->model, &a->request, &report, sizes);
    else if (code == 0)
        print_model(e->model, &a->request, &report, sizes);
    free(sizes);
    return code;
}

/* ---- several models -------------------------------------------------------------------------------------------------------------- */

#define N_TABLE_SCHEMES 4
#define N_TABLE_TOTALS  3 /* of the first schemes */

static int run_table(const entry *entries, size_t n, const arguments *a)
{
    static const kvt_scheme schemes[N_TABLE_SCHEMES] = { KVT_SCHEME_f16, KVT_SCHEME_q8_0, KVT_SCHEME_q4_0, KVT_SCHEME_e4m3 };
    kvt_size_report(*reports)[N_TABLE_SCHEMES] = calloc(n, sizeof *reports);
    if (!reports) {
        say("--table", "no memory");
        return EXIT_FAILURE;
    }
    int code = 0;
    kvt_size_request request = a->request;
    for (size_t i = 0; i < n * N_TABLE_SCHEMES && code == 0; i++) {
        request.k_scheme = request.v_scheme = schemes[i % N_TABLE_SCHEMES];
        code = size_model(entries[i / N_TABLE_SCHEMES].model, &request, &reports[i / N_TABLE_SCHEMES][i % N_TABLE_SCHEMES], NULL);
    }

    if (code == 0) {
        printf("KV cache of %s sequence%s with %s token%s of context%s, %s\n\n", grouped(request.sequences).text, plural(request.sequences),
               grouped(request.context).text, plural(request.context), request.sequences == 1 ? "" : " each",
               request.engine == KVT_ENGINE_KVTILE ? "kvtile's pages" : "payload alone");
        printf("%-28s%32s%39s\n%-28s", "", "bytes for each further token", "total", "model");
        for (size_t s = 0; s < N_TABLE_SCHEMES; s++)
            printf("%8s", kvt_scheme_get(schemes[s])->name);
        for (size_t s = 0; s < N_TABLE_TOTALS; s++)
            printf("%13s", kvt_scheme_get(schemes[s])->name);
        printf("\n");
        for (size_t i = 0; i < n; i++) {
            printf("%-28s", entries[i].model->name);
            for (size_t s = 0; s < N_TABLE_SCHEMES; s++)
                printf("%8s", grouped(reports[i][s].growing_bytes_per_token).text);
            for (size_t s = 0; s < N_TABLE_TOTALS; s++)
                printf("%13s", binary_units(reports[i][s].total_bytes).text);
            printf("\n");
        }
        printf("\nTotals include sliding windows and recurrent state. One model in detail: kvtile size MODEL\n");
    }
    free(reports);
    return code;
}

/* ---- the command ----------------------------------------------------------------------------------------------------------------- */

static void print_list(void)
{
    const kvt_model *model;
    const kvt_scheme_info *scheme;
    printf("Models, and the longest context that each was made for:\n");
    for (size_t i = 0; (model = kvt_catalogue_at(i)) != NULL; i++)
        printf("  %-28s %9s\n", model->name, grouped(model->max_context).text);
    printf("\nSchemes:\n");
    for (size_t i = 0; (scheme = kvt_scheme_at(i)) != NULL; i++)
        printf("  %-5s %s\n", scheme->name, scheme->title);
    printf("\nEngines:\n");
    printf("  %-8s what kvtile's pages of %d tokens allocate\n", kvt_engine_name(KVT_ENGINE_KVTILE), KVT_PAGE_TOKENS);
    printf("  %-8s the payload alone, sliding windows at exactly their length\n", kvt_engine_name(KVT_ENGINE_LOGICAL));
}

static int run_models(const arguments *a)
{
    const size_t n = a->n_models ? a->n_models : N_WELL_KNOWN;
    entry *entries = calloc(n, sizeof *entries);
    if (!entries) {
        say("MODEL", "no memory");
        return EXIT_FAILURE;
    }
    int code = 0;
    for (size_t i = 0; i < n && code == 0; i++)
        code = find_model(a->n_models ? a->models[i] : well_known[i], &entries[i]);
    if (code == 0)
        code = a->table ? run_table(entries, n, a) : run_model(&entries[0], a);
    for (size_t i = 0; i < n && code == 0; i++) {
        const kvt_model *model = entries[i].model;
        if (model->max_context && a->request.context > model->max_context)
            say("--ctx", "note: %s was made for at most %s tokens", model->name, grouped(model->max_context).text);
    }
    free(entries);
    return code;
}

static int run(const arguments *a)
{
    int code = 0;
    if (a->help)
        fputs(help, stdout);
    else if (a->list)
        print_list();
    else
        code = run_models(a);

    errno = 0;
    if (code == 0 && (fflush(stdout) != 0 || ferror(stdout))) {
        say("stdout", "cannot be written: %s", errno ? strerror(errno) : "an earlier write failed");
        code = EXIT_FAILURE;
    }
    return code;
}

int kvt_cmd_size(int argc, const char **argv)
{
    static const struct poptOption options[] = { { "scheme", '\0', POPT_ARG_STRING, NULL, OPTION_SCHEME, NULL, NULL },
                                                 { "k", '\0', POPT_ARG_STRING, NULL, OPTION_K, NULL, NULL },
                                                 { "v", '\0', POPT_ARG_STRING, NULL, OPTION_V, NULL, NULL },
                                                 { "ctx", '\0', POPT_ARG_STRING, NULL, OPTION_CTX, NULL, NULL },
                                                 { "seqs", '\0', POPT_ARG_STRING, NULL, OPTION_SEQS, NULL, NULL },
                                                 { "engine", '\0', POPT_ARG_STRING, NULL, OPTION_ENGINE, NULL, NULL },
                                                 { "json", '\0', POPT_ARG_NONE, NULL, OPTION_JSON, NULL, NULL },
                                                 { "table", '\0', POPT_ARG_NONE, NULL, OPTION_TABLE, NULL, NULL },
                                                 { "list", '\0', POPT_ARG_NONE, NULL, OPTION_LIST, NULL, NULL },
                                                 { "help", 'h', POPT_ARG_NONE, NULL, OPTION_HELP, NULL, NULL },
                                                 POPT_TABLEEND };
    arguments a = {
        .request = {
            .size = sizeof a.request,
            .engine = KVT_ENGINE_KVTILE,
            .k_scheme = KVT_SCHEME_f16,
            .v_scheme = KVT_SCHEME_f16,
            .context = 32768,
            .sequences = 1,
        },
    };
    poptContext popt = poptGetContext("kvtile size", argc, argv, options, 0);
    if (!popt) {
        say("arguments", "no memory");
        return EXIT_FAILURE;
    }
    int code = parse_arguments(popt, &a);
    if (code == 0)
        code = run(&a);
    poptFreeContext(popt);
    return code;
}
