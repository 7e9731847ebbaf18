/* kvtile eval: real rows, stored in each scheme and read back. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/commands.h"

#include "tools/io/rows.h"
#include "tools/kvtile/nearest.h"
#include "tools/options.h"

#include <kvtile/kvtile.h>

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char WHO[] = "kvtile eval";

static const char HELP[] = "Usage: kvtile eval INPUT... [--schemes LIST] [--side k|v|auto] [--tier LIST] [--json]\n"
                           "Stores the rows of each INPUT in each scheme, reads them back, and reports exact bytes, accuracy and speed.\n"
                           "\n"
                           "INPUT: rows of keys or values, [token][dim] or [head][token][dim]: QVKT (f32), .npy (f32, f16),\n"
                           "       .safetensors (every tensor of f32, f16 or bf16 that has such a shape)\n"
                           "\n"
                           "  --schemes LIST  names separated by commas, in the order of the report (default: all, by size; see kvtile info)\n"
                           "  --side k|v      store as keys or as values; auto (the default): values when the name of the tensor, or else of the\n"
                           "                  file, has \"value\" or a v of its own in it (\"layer3_v\", \"cache.v\"), keys otherwise\n"
                           "  --tier LIST     kernels that may run: \"avx2\" = that tier and what it inherits, \"-avx512\" = all but that one\n"
                           "  --json          an array of objects, one per tensor and scheme\n"
                           "  --help          this text\n"
                           "\n"
                           "bits/elem   stored bits, scales and padding included, over the row's elements\n"
                           "bytes/token stored bytes of one token in all heads, this side alone\n"
                           "SNR         energy of the rows over energy of the error; \"exact\" when there is no error (JSON: null, max_abs_error 0)\n"
                           "centred     energy of the rows' deviation from each channel's mean over the tokens (per head) over energy of the error:\n"
                           "            an offset that all tokens share carries no information\n"
                           "GB/s        10^9 bytes of f32 rows per second, each way (inputs of 16 bits are widened first, so that all inputs\n"
                           "            compare): the first head, over and over for 50 ms at least, best pass, one thread\n"
                           "Rows with a NaN or an infinity are stored but left out of SNR, mean and error; JSON \"nonfinite\" counts such numbers.\n"
                           "JSON \"lost\" counts finite numbers that did not come back finite; SNR and error are null then.\n"
                           "\n"
                           "Examples:\n"
                           "  kvtile eval layer0_keys.qvkt layer0_values.qvkt\n"
                           "  kvtile eval cache.safetensors --schemes q8_0,q4_0 --json | jq -r '.[] | [.input, .scheme, .snr_db] | @tsv'\n";

typedef struct options {
    size_t n_schemes;
    const kvt_scheme_info **schemes;
    bool sort; /* by size, the largest first */
    bool auto_side;
    kvt_side side;
    uint32_t tiers;
    bool json;
} options;

/* ---- progress, on a terminal only and not before a second has passed ---- */

typedef struct progress {
    bool terminal;
    bool shown;
    double start;
} progress;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void progress_show(progress *state, const char *input, const char *scheme, uint32_t head, uint32_t heads)
{
    if (!state->terminal || seconds() - state->start < 1)
        return;
    fprintf(stderr, "\r\033[K%.60s: %s, head %u of %u", input, scheme, head + 1, heads);
    state->shown = true;
}

static void progress_clear(progress *state)
{
    if (state->shown)
        fputs("\r\033[K", stderr);
    state->shown = false;
}

/* ---- one head ---- */

typedef struct head_rows {
    size_t tokens;
    uint32_t dim;
    float *rows;  /* [token][dim] */
    float *back;  /* what was read back */
    bool *used;   /* token: all its numbers are finite */
    double *mean; /* of each channel, over the tokens used */
    size_t n_used;
    double energy;
    double centred_energy;
    uint64_t nonfinite;
} head_rows;

static void head_free(head_rows *head)
{
    free(head->rows);
    free(head->back);
    free(head->used);
    free(head->mean);
    *head = (head_rows){ 0 };
}

static int head_allocate(head_rows *head, const rows_tensor *tensor)
{
    const size_t n = tensor->tokens * tensor->dim; /* fits: at least 2 bytes each are in the file */
    *head = (head_rows){ .tokens = tensor->tokens, .dim = tensor->dim };
    if (n <= SIZE_MAX / sizeof(float)) {
        head->rows = malloc(n * sizeof *head->rows);
        head->back = malloc(n * sizeof *head->back);
        head->used = malloc(tensor->tokens * sizeof *head->used);
        head->mean = malloc(tensor->dim * sizeof *head->mean);
    }
    if (head->rows != NULL && head->back != NULL && head->used != NULL && head->mean != NULL)
        return 0;
    head_free(head);
    return -1;
}

static void head_load(head_rows *head, const rows_tensor *tensor, uint32_t index)
{
    rows_head_to_f32(tensor, index, head->rows);
    head->n_used = 0;
    head->energy = 0;
    head->centred_energy = 0;
    head->nonfinite = 0;
    for (uint32_t c = 0; c < head->dim; c++)
        head->mean[c] = 0;
    for (size_t t = 0; t < head->tokens; t++) {
        const float *row = head->rows + t * head->dim;
        uint64_t bad = 0;
        for (uint32_t c = 0; c < head->dim; c++)
            bad += isfinite(row[c]) ? 0 : 1;
        head->used[t] = bad == 0;
        head->nonfinite += bad;
        if (bad != 0)
            continue;
        head->n_used++;
        for (uint32_t c = 0; c < head->dim; c++) {
            head->energy += (double)row[c] * row[c];
            head->mean[c] += row[c];
        }
    }
    for (uint32_t c = 0; head->n_used > 0 && c < head->dim; c++)
        head->mean[c] /= (double)head->n_used;
    for (size_t t = 0; t < head->tokens; t++) {
        const float *row = head->rows + t * head->dim;
        for (uint32_t c = 0; head->used[t] && c < head->dim; c++) {
            const double deviation = row[c] - head->mean[c];
            head->centred_energy += deviation * deviation;
        }
    }
}

/* ---- one scheme ---- */

typedef struct result {
    const kvt_scheme_info *scheme;
    kvt_layout layout; /* of one head */
    kvt_side side;
    double error_energy;
    double max_abs_error;
    uint64_t lost;
    double write_gbps;
    double read_gbps;
} result;

static const kvt_side_layout *stored(const result *one)
{
    return one->side == KVT_K ? &one->layout.k : &one->layout.v;
}

typedef struct transfer {
    const kvt_layout *layout;
    kvt_side side;
    kvt_pages pages;
    head_rows *head;
} transfer;

static kvt_status store(const transfer *job)
{
    const head_rows *head = job->head;
    return kvt_write(job->layout, job->side, &job->pages, 0, head->tokens, head->rows, KVT_F32, (ptrdiff_t)(head->dim * sizeof(float)));
}

static kvt_status load(const transfer *job)
{
    head_rows *head = job->head;
    return kvt_read(job->layout, job->side, &job->pages, 0, head->tokens, head->back, KVT_F32, (ptrdiff_t)(head->dim * sizeof(float)));
}

/* The best rate of passes that together take 50 ms or more. A pass repeats the job until the clock's resolution does not matter. */
static kvt_status measure(kvt_status (*run)(const transfer *), const transfer *job, double *gbps)
{
    size_t repeats = 1;
    size_t passes = 0;
    double best = INFINITY;
    double total = 0;
    while (total < 0.05 || passes < 3) {
        const double start = seconds();
        for (size_t i = 0; i < repeats; i++) {
            const kvt_status status = run(job);
            if (status != KVT_OK)
                return status;
        }
        const double taken = seconds() - start;
        if (taken < 1e-3) {
            repeats *= 2;
            continue;
        }
        total += taken;
        passes++;
        best = fmin(best, taken / (double)repeats);
    }
    *gbps = (double)(job->head->tokens * job->head->dim * sizeof(float)) / best / 1e9;
    return KVT_OK;
}

static void add_errors(result *sums, const head_rows *head)
{
    for (size_t t = 0; t < head->tokens; t++) {
        const float *row = head->rows + t * head->dim;
        const float *back = head->back + t * head->dim;
        for (uint32_t c = 0; head->used[t] && c < head->dim; c++) {
            if (!isfinite(back[c])) {
                sums->lost++;
                continue;
            }
            const double difference = (double)back[c] - row[c];
            sums->error_energy += difference * difference;
            sums->max_abs_error = fmax(sums->max_abs_error, fabs(difference));
        }
    }
}

/* Stores and reads back one head in pages of exactly the size that the layout says. */
static int run_head(result *sums, head_rows *head, bool timed, error_text *error)
{
    transfer job = { .layout = &sums->layout, .side = sums->side, .head = head };
    size_t bytes;
    kvt_status status = kvt_layout_bytes(&sums->layout, head->tokens, &bytes);
    if (status != KVT_OK)
        return error_set(error, "cannot be stored as %s: %s", sums->scheme->name, kvt_status_text(status));
    void *memory = aligned_alloc(64, bytes);
    if (memory == NULL)
        return error_set(error, "needs %zu bytes for one head's pages: more than there is", bytes);
    status = kvt_head_pages(&sums->layout, memory, head->tokens, 0, &job.pages);
    if (status == KVT_OK)
        status = store(&job);
    if (status == KVT_OK && timed)
        status = measure(store, &job, &sums->write_gbps);
    if (status == KVT_OK)
        status = load(&job);
    if (status == KVT_OK && timed)
        status = measure(load, &job, &sums->read_gbps);
    free(memory);
    if (status != KVT_OK)
        return error_set(error, "cannot be stored as %s: %s", sums->scheme->name, kvt_status_text(status));
    add_errors(sums, head);
    return 0;
}

/* ---- one tensor ---- */

typedef struct tensor_report {
    char *input;
    const rows_tensor *tensor;
    kvt_side side;
    uint64_t nonfinite;
    size_t n_used; /* rows that the sums are of */
    double energy;
    double centred_energy;
    result *results; /* one per scheme */
} tensor_report;

static bool is_letter(char c)
{
    return isalpha((unsigned char)c) != 0;
}

/* Whether `name` has `word` in it, letter case ignored. A word of one letter counts only where it stands alone: "layer3_v", "v0", "cache.v". */
static bool names(const char *name, const char *word)
{
    const size_t length = strlen(word);
    const size_t name_length = strlen(name);
    for (size_t at = 0; at + length <= name_length; at++) {
        size_t same = 0;
        while (same < length && tolower((unsigned char)name[at + same]) == word[same])
            same++;
        if (same == length && (length > 1 || ((at == 0 || !isalnum((unsigned char)name[at - 1])) && !is_letter(name[at + 1]))))
            return true;
    }
    return false;
}

static kvt_side choose_side(const options *chosen, const char *path, const rows_tensor *tensor)
{
    if (!chosen->auto_side)
        return chosen->side;
    if (tensor->name != NULL && (names(tensor->name, "value") || names(tensor->name, "v")))
        return KVT_V;
    if (tensor->name != NULL && (names(tensor->name, "key") || names(tensor->name, "k")))
        return KVT_K;
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    return names(file, "value") || names(file, "v") ? KVT_V : KVT_K;
}

static int set_layout(result *one, const rows_tensor *tensor, kvt_side side, uint32_t tiers, error_text *error)
{
    /* Heads are processed one after the other. Values need keys beside them: the narrowest there are. */
    const kvt_spec spec = { .size = sizeof spec,
                            .k_scheme = one->scheme->scheme,
                            .v_scheme = one->scheme->scheme,
                            .k_dim = side == KVT_K ? tensor->dim : 1,
                            .v_dim = side == KVT_K ? 0 : tensor->dim,
                            .kv_heads = 1,
                            .tiers = tiers };
    one->side = side;
    const kvt_status status = kvt_layout_init(&one->layout, &spec);
    if (status != KVT_OK)
        return error_set(error, "cannot be stored as %s: %s", one->scheme->name, kvt_status_text(status));
    return 0;
}

static void sort_by_size(tensor_report *report, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        for (size_t j = i; j > 0 && stored(&report->results[j - 1])->row_bytes < stored(&report->results[j])->row_bytes; j--) {
            const result larger = report->results[j];
            report->results[j] = report->results[j - 1];
            report->results[j - 1] = larger;
        }
    }
}

static int run_tensor(tensor_report *report, const options *chosen, progress *state, error_text *error)
{
    const rows_tensor *tensor = report->tensor;
    for (size_t i = 0; i < chosen->n_schemes; i++) {
        report->results[i] = (result){ .scheme = chosen->schemes[i] };
        if (set_layout(&report->results[i], tensor, report->side, chosen->tiers, error) != 0)
            return -1;
    }
    if (chosen->sort)
        sort_by_size(report, chosen->n_schemes);

    head_rows head;
    if (head_allocate(&head, tensor) != 0)
        return error_set(error, "has %zu tokens: more than memory holds as f32, twice", tensor->tokens);
    int status = 0;
    for (uint32_t h = 0; status == 0 && h < tensor->heads; h++) {
        head_load(&head, tensor, h);
        report->nonfinite += head.nonfinite;
        report->n_used += head.n_used;
        report->energy += head.energy;
        report->centred_energy += head.centred_energy;
        for (size_t i = 0; status == 0 && i < chosen->n_schemes; i++) {
            progress_show(state, report->input, report->results[i].scheme->name, h, tensor->heads);
            status = run_head(&report->results[i], &head, h == 0, error);
        }
    }
    head_free(&head);
    progress_clear(state);
    return status;
}

/* ---- reports ---- */

/* NAN when there is no such number: no error at all, no energy, or an error without bounds. */
static double decibels(double energy, const result *one)
{
    return energy > 0 && one->error_energy > 0 && one->lost == 0 ? 10 * log10(energy / one->error_energy) : (double)NAN;
}

static json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *json_of(const tensor_report *report, const result *one)
{
    const rows_tensor *tensor = report->tensor;
    const kvt_side_layout *side = stored(one);
    json_t *object = json_object();
    json_t *input = json_string(report->input);
    if (input == NULL) { /* not UTF-8 */
        char *ascii = strdup(report->input);
        for (char *c = ascii; c != NULL && *c != '\0'; c++)
            *c = (unsigned char)*c < 0x80 ? *c : '?';
        input = json_string(ascii);
        free(ascii);
    }
    json_object_set_new(object, "input", input);
    json_object_set_new(object, "side", json_string(one->side == KVT_K ? "k" : "v"));
    json_object_set_new(object, "dtype", json_string(rows_dtype_name(tensor->dtype)));
    json_object_set_new(object, "heads", json_integer((json_int_t)tensor->heads));
    json_object_set_new(object, "tokens", json_integer((json_int_t)tensor->tokens));
    json_object_set_new(object, "dim", json_integer((json_int_t)tensor->dim));
    json_object_set_new(object, "padded_dim", json_integer((json_int_t)side->padded_dim));
    json_object_set_new(object, "nonfinite", json_integer((json_int_t)report->nonfinite));
    json_object_set_new(object, "scheme", json_string(one->scheme->name));
    json_object_set_new(object, "rotation", json_string("none"));
    json_object_set_new(object, "centring", json_string("none"));
    json_object_set_new(object, "bits_per_element", json_real(8.0 * side->row_bytes / tensor->dim));
    json_object_set_new(object, "bytes_per_token", json_integer((json_int_t)side->row_bytes * tensor->heads));
    json_object_set_new(object, "snr_db", number_or_null(decibels(report->energy, one)));
    json_object_set_new(object, "centred_snr_db", number_or_null(decibels(report->centred_energy, one)));
    json_object_set_new(object, "max_abs_error", one->lost == 0 && report->n_used > 0 ? json_real(one->max_abs_error) : json_null());
    json_object_set_new(object, "lost", json_integer((json_int_t)one->lost));
    json_object_set_new(object, "write_gbps", json_real(one->write_gbps));
    json_object_set_new(object, "read_gbps", json_real(one->read_gbps));
    return object;
}

static const char *decibel_text(char *text, size_t room, double energy, const tensor_report *report, const result *one)
{
    const double value = decibels(energy, one);
    if (one->lost > 0)
        return "lost";
    if (report->n_used > 0 && one->error_energy == 0)
        return "exact";
    if (!isfinite(value))
        return "-";
    snprintf(text, room, "%.2f", value);
    return text;
}

static void print_table(const tensor_report *report, size_t n_schemes)
{
    const rows_tensor *tensor = report->tensor;
    printf("%s\n%u %s x %zu tokens x %u channels, %s, stored as %s\n", report->input, tensor->heads, tensor->heads == 1 ? "head" : "heads",
           tensor->tokens, tensor->dim, rows_dtype_name(tensor->dtype), report->side == KVT_K ? "keys" : "values");
    const uint32_t padded = stored(&report->results[0])->padded_dim;
    if (padded != tensor->dim)
        printf("rows are padded to %u channels\n", padded);
    if (report->nonfinite > 0)
        printf("%llu numbers are not finite; %zu rows are left out of SNR and error\n", (unsigned long long)report->nonfinite,
               tensor->tokens * tensor->heads - report->n_used);
    printf("  %-8s %10s %12s %9s %9s %11s %11s %11s\n", "scheme", "bits/elem", "bytes/token", "SNR dB", "centred", "max error", "write GB/s",
           "read GB/s");
    for (size_t i = 0; i < n_schemes; i++) {
        const result *one = &report->results[i];
        char snr[32];
        char centred[32];
        printf("  %-8s %10.3f %12llu %9s %9s %11.3g %11.2f %11.2f\n", one->scheme->name, 8.0 * stored(one)->row_bytes / tensor->dim,
               (unsigned long long)stored(one)->row_bytes * tensor->heads, decibel_text(snr, sizeof snr, report->energy, report, one),
               decibel_text(centred, sizeof centred, report->centred_energy, report, one), one->lost == 0 ? one->max_abs_error : (double)INFINITY,
               one->write_gbps, one->read_gbps);
    }
    putchar('\n');
    fflush(stdout);
}

/* ---- the command ---- */

static char *input_name(const char *path, const rows_file *file, const rows_tensor *tensor)
{
    const char *name = file->n_tensors > 1 ? tensor->name : NULL;
    const size_t room = strlen(path) + (name != NULL ? strlen(name) : 0) + 2;
    char *text = malloc(room);
    if (text != NULL) {
        snprintf(text, room, "%s%s%s", path, name != NULL ? ":" : "", name != NULL ? name : "");
        error_one_line(text);
    }
    return text;
}

static int eval_tensor(const char *path, const rows_file *file, const rows_tensor *tensor, const options *chosen, progress *state, json_t *array,
                       error_text *error)
{
    tensor_report report = { .input = input_name(path, file, tensor),
                             .tensor = tensor,
                             .side = choose_side(chosen, path, tensor),
                             .results = calloc(chosen->n_schemes, sizeof *report.results) };
    int status;
    if (report.input == NULL || report.results == NULL)
        status = error_set(error, "cannot be evaluated: out of memory");
    else
        status = run_tensor(&report, chosen, state, error);
    if (status == 0 && array == NULL)
        print_table(&report, chosen->n_schemes);
    for (size_t i = 0; status == 0 && array != NULL && i < chosen->n_schemes; i++)
        json_array_append_new(array, json_of(&report, &report.results[i]));
    free(report.input);
    free(report.results);
    return status;
}

static int eval_input(const char *path, const options *chosen, progress *state, json_t *array)
{
    rows_file file;
    error_text error;
    int status = rows_open(&file, path, &error);
    if (status == 0 && file.note != NULL)
        error_print(WHO, path, file.note);
    for (size_t i = 0; status == 0 && i < file.n_tensors; i++)
        status = eval_tensor(path, &file, &file.tensors[i], chosen, state, array, &error);
    if (status != 0)
        error_print(WHO, path, error.text);
    rows_close(&file);
    return status;
}

static int eval_inputs(const char **paths, const options *chosen)
{
    progress state = { .terminal = isatty(STDERR_FILENO) != 0, .start = seconds() };
    json_t *array = chosen->json ? json_array() : NULL;
    int status = 0;
    for (; status == 0 && *paths != NULL; paths++)
        status = eval_input(*paths, chosen, &state, array);
    if (status == 0 && array != NULL) {
        json_dumpf(array, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
    }
    json_decref(array);
    return status == 0 ? 0 : 1;
}

/* Fills chosen->schemes, which the caller frees. `list` may be NULL: all of them. */
static int choose_schemes(options *chosen, const char *list)
{
    size_t n_all = 0;
    while (kvt_scheme_at(n_all) != NULL)
        n_all++;
    size_t n_words = 1;
    for (const char *c = list; c != NULL && *c != '\0'; c++)
        n_words += *c == ',';
    chosen->schemes = malloc((n_all + n_words) * sizeof *chosen->schemes);
    if (chosen->schemes == NULL) {
        error_print(WHO, "--schemes", "out of memory");
        return -1;
    }
    chosen->sort = list == NULL;
    for (size_t i = 0; list == NULL && i < n_all; i++)
        chosen->schemes[chosen->n_schemes++] = kvt_scheme_at(i);
    for (const char *word = list; word != NULL;) {
        const size_t length = strcspn(word, ",");
        char name[32];
        snprintf(name, sizeof name, "%.*s", length < sizeof name ? (int)length : (int)sizeof name, word);
        const kvt_scheme_info *info = kvt_scheme_find(name);
        if (info == NULL) {
            nearest best = { .typed = name };
            for (size_t i = 0; i < n_all; i++)
                nearest_consider(&best, kvt_scheme_at(i)->name);
            char text[160];
            snprintf(text, sizeof text, "\"%s\" is no scheme: %s%skvtile info lists them", name, best.name ? best.name : "",
                     best.name ? " would be right, " : "");
            error_print(WHO, "--schemes", text);
            return -1;
        }
        chosen->schemes[chosen->n_schemes++] = info;
        word = word[length] == ',' ? word + length + 1 : NULL;
    }
    return 0;
}

static int choose_options(options *chosen, const char *schemes, const char *side, const char *tiers)
{
    chosen->auto_side = side == NULL || strcmp(side, "auto") == 0;
    if (!chosen->auto_side && strcmp(side, "k") != 0 && strcmp(side, "v") != 0) {
        error_print(WHO, side, "k, v or auto would be right for --side");
        return -1;
    }
    chosen->side = !chosen->auto_side && strcmp(side, "v") == 0 ? KVT_V : KVT_K;
    if (tiers != NULL) {
        const kvt_status status = kvt_tiers_parse(tiers, &chosen->tiers);
        if (status != KVT_OK) {
            error_print(WHO, tiers, kvt_status_text(status));
            return -1;
        }
    }
    return choose_schemes(chosen, schemes);
}

int kvt_cmd_eval(int argc, const char **argv)
{
    int help = 0;
    int json = 0;
    char *schemes = NULL;
    char *side = NULL;
    char *tiers = NULL;
    const struct poptOption table[] = { { "schemes", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL }, { "side", 0, POPT_ARG_STRING, NULL, 2, NULL, NULL },
                                        { "tier", 0, POPT_ARG_STRING, NULL, 3, NULL, NULL },    { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },
                                        { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },   POPT_TABLEEND };
    poptContext context = poptGetContext("kvtile", argc, argv, table, 0);
    if (context == NULL) {
        error_print(WHO, "arguments", "cannot be read: out of memory");
        return 1;
    }
    char **const values[] = { &schemes, &side, &tiers };
    const int parsed = options_take(context, values);
    options chosen = { .json = json != 0 };
    int code;
    if (parsed < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help) {
        fputs(HELP, stdout);
        code = 0;
    } else if (poptPeekArg(context) == NULL) {
        error_print(WHO, "no input", "at least one file of rows would be right; see kvtile eval --help");
        code = 2;
    } else if (choose_options(&chosen, schemes, side, tiers) != 0) {
        code = 2;
    } else {
        code = eval_inputs(poptGetArgs(context), &chosen);
    }
    free(chosen.schemes);
    free(schemes);
    free(side);
    free(tiers);
    poptFreeContext(context);
    return code;
}
