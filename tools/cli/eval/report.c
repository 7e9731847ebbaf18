/* SPDX-License-Identifier: MIT */
/* kvtile eval: tables for people and JSON for programs. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/eval/eval.h"

#include "tools/files/text.h"
#include "tools/program/program.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rows and their order ---- */

static double decibels(double energy, double error_energy, size_t n_used)
{
    if (n_used > 0 && error_energy == 0)
        return INFINITY;
    return energy > 0 && error_energy > 0 ? 10 * log10(energy / error_energy) : (double)NAN;
}

static double mean_decibels(const eval_mean *mean)
{
    if (mean->n > 0)
        return mean->sum / (double)mean->n;
    return mean->n_exact > 0 ? INFINITY : (double)NAN;
}

static eval_row row_of(const eval_tensor *report, const eval_result *result)
{
    const bool whole = result->lost == 0;
    return (eval_row){
        .way = result->way,
        .bits = 8.0 * (double)result->page_bytes / ((double)KVT_PAGE_TOKENS * report->tensor->dim),
        .pair_bits = 4.0 * (double)result->pair_bytes / ((double)KVT_PAGE_TOKENS * report->tensor->dim),
        .page_bytes = result->page_bytes,
        .bytes_per_token = result->page_bytes / KVT_PAGE_TOKENS * report->tensor->heads,
        .snr = whole ? decibels(report->energy, result->error_energy, report->n_used) : (double)NAN,
        .centred_snr = whole ? decibels(report->centred_energy, result->centred_error_energy, report->n_centred_used) : (double)NAN,
        .max_abs_error = whole && report->n_used > 0 ? result->max_abs_error : (double)NAN,
        .lost = result->lost,
        .rows = report->n_used,
        .write_gbps = result->write_gbps,
        .read_gbps = result->read_gbps,
    };
}

static eval_row row_of_sum(const eval_summary *summary, const struct eval_sum *sum, const eval_way *way)
{
    return (eval_row){
        .way = way,
        .bits = 8.0 * (double)sum->bytes_per_token / (double)sum->elements_per_token,
        .pair_bits = 4.0 * (double)sum->pair_bytes / ((double)KVT_PAGE_TOKENS * (double)sum->elements_per_token),
        .page_bytes = sum->page_bytes,
        .bytes_per_token = sum->bytes_per_token,
        .snr = sum->lost == 0 ? mean_decibels(&sum->snr) : (double)NAN,
        .centred_snr = sum->lost == 0 ? mean_decibels(&sum->centred_snr) : (double)NAN,
        .max_abs_error = sum->lost == 0 ? sum->max_abs_error : (double)NAN,
        .lost = sum->lost,
        .rows = sum->rows,
        .write_gbps = sum->write_gbps / (double)summary->n_tensors,
        .read_gbps = sum->read_gbps / (double)summary->n_tensors,
    };
}

static bool goes_before(const eval_row *a, const eval_row *b)
{
    if (a->bits != b->bits)
        return a->bits > b->bits;
    if (isnan(a->snr) || isnan(b->snr))
        return !isnan(a->snr) && isnan(b->snr);
    return a->snr > b->snr;
}

/* Equal ones stay in order. */
static void insert(eval_row *rows, size_t *n, eval_row row)
{
    size_t at = (*n)++;
    for (; at > 0 && goes_before(&row, &rows[at - 1]); at--)
        rows[at] = rows[at - 1];
    rows[at] = row;
}

/* ---- as a table ---- */

eval_cell eval_number(const char *format, double value, uint64_t lost)
{
    eval_cell cell = { "-" };
    if (lost > 0)
        return (eval_cell){ "lost" };
    if (!isnan(value))
        snprintf(cell.text, sizeof cell.text, format, value);
    return cell;
}

void eval_say_lost(const char *name, const eval_way *way, uint64_t lost, uint64_t rows, const char *what)
{
    if (lost == 0)
        return;
    printf("%s", name);
    if (way != NULL)
        printf(" (rotation %s, centring %s)", eval_rotation_name(way), eval_centring_name(way));
    printf(" lost %" PRIu64 " of %" PRIu64 " %s: finite numbers went in, and what came of them is not finite\n", lost, rows, what);
}

static eval_cell decibel_cell(const eval_row *row, double value)
{
    return isinf(value) ? (eval_cell){ "exact" } : eval_number("%.2f", value, row->lost);
}

int eval_wider(int width, const char *text)
{
    const int own = (int)strlen(text);
    return own > width ? own : width;
}

static void print_rows(const eval_row *rows, size_t n)
{
    int width = eval_wider(0, "scheme");
    for (size_t i = 0; i < n; i++)
        width = eval_wider(width, eval_way_name(rows[i].way));
    printf("  %-*s %-8s %-8s %-8s %6s %6s %7s %6s %7s %9s %7s %7s\n", width, "scheme", "rotation", "centring", "detail", "bits", "pair", "B/token",
           "SNR dB", "centred", "max error", "wr GB/s", "rd GB/s");
    for (size_t i = 0; i < n; i++) {
        const eval_row *row = &rows[i];
        printf("  %-*s %-8s %-8s %-8s %6.3f %6.3f %7llu %6s %7s %9s %7s %7s\n", width, eval_way_name(row->way), eval_rotation_name(row->way),
               eval_centring_name(row->way), eval_detail_of(row->way).text, row->bits, row->pair_bits, (unsigned long long)row->bytes_per_token,
               decibel_cell(row, row->snr).text, decibel_cell(row, row->centred_snr).text, eval_number("%.3g", row->max_abs_error, row->lost).text,
               eval_number("%.2f", row->write_gbps, 0).text, eval_number("%.2f", row->read_gbps, 0).text);
    }
    for (size_t i = 0; i < n; i++)
        eval_say_lost(eval_way_name(rows[i].way), rows[i].way, rows[i].lost, rows[i].rows, "rows");
    putchar('\n');
    fflush(stdout);
}

static void print_from(size_t from)
{
    if (from > 0)
        printf("measured: tokens from %zu on\n", from);
}

static void print_tensor_title(const eval_tensor *report)
{
    const rows_tensor *tensor = report->tensor;
    text_print(stdout, report->input);
    printf("\n%u head%s x %zu tokens x %u channels, %s, stored as %s\n", tensor->heads, text_plural(tensor->heads), tensor->tokens, tensor->dim,
           rows_dtype_name(tensor->dtype), report->side == KVT_K ? "keys" : "values");
    const uint32_t padded = eval_padded_dim(report->tensor->dim);
    if (padded != tensor->dim)
        printf("rows are padded to %u channels\n", padded);
    print_from(report->from);
    if (report->nonfinite > 0)
        printf("%llu numbers are not finite; %zu rows are left out of SNR and error\n", (unsigned long long)report->nonfinite,
               (tensor->tokens - report->from) * tensor->heads - report->n_used);
}

/* ---- as JSON ---- */

json_t *number_or_null(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *name_or_null(const char *name)
{
    return name != NULL ? json_string(name) : json_null();
}

/* A field of text. What a spreadsheet would take for a formula has an apostrophe before it, as people write it there. */
static void print_quoted(const char *text)
{
    const size_t room = 4 * strlen(text) + 4;
    char *shown = program_allocate(room);
    if (shown == NULL)
        return;
    text_shown(shown, room, text);
    const char *quote = strpbrk(shown, ",\"") != NULL ? "\"" : "";
    fputs(quote, stdout);
    fputs(*shown != '\0' && strchr("=+-@", *shown) != NULL ? "'" : "", stdout);
    for (const char *c = shown; *c != '\0'; c++)
        fputs(*c == '"' ? "\"\"" : (const char[]){ *c, '\0' }, stdout);
    fputs(quote, stdout);
    free(shown);
}

static void print_field(const json_t *value)
{
    if (json_is_string(value))
        print_quoted(json_string_value(value));
    else if (!json_is_null(value) && value != NULL)
        json_print(value, stdout, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
}

static void print_csv(const json_t *array)
{
    json_t *head = json_array_get(array, 0);
    for (size_t i = 0; i <= json_array_size(array); i++) {
        const json_t *object = i > 0 ? json_array_get(array, i - 1) : NULL;
        const char *name;
        json_t *field;
        bool is_first = true;
        json_object_foreach(head, name, field)
        {
            if (json_is_array(field) || json_is_object(field))
                continue;
            fputs(is_first ? "" : ",", stdout);
            is_first = false;
            if (object != NULL)
                print_field(json_object_get(object, name));
            else
                print_quoted(name);
        }
        fputs("\r\n", stdout);
    }
}

void eval_print_array(const json_t *array, eval_output output)
{
    if (output == EVAL_CSV) {
        print_csv(array);
        return;
    }
    json_print(array, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
}

/* Of the two sides, the one that has it. */
static const char *either(const char *k, const char *v)
{
    return k != NULL ? k : v;
}

json_t *eval_pair_json(const eval_pair *way)
{
    const eval_way *k = &way->k, *v = &way->v;
    json_t *object = json_object();
    json_object_set_new(object, "scheme", json_string(eval_pair_name(way).text));
    json_object_set_new(object, "k_scheme", json_string(eval_way_name(k)));
    json_object_set_new(object, "v_scheme", json_string(eval_way_name(v)));
    json_object_set_new(object, "peer", json_boolean(eval_has_peer(way)));
    json_object_set_new(object, "rotation", json_string(eval_rotation_name(k)));
    json_object_set_new(object, "centring", json_string(eval_centring_name(k)));
    json_object_set_new(object, "effort", name_or_null(either(eval_effort_name(k), eval_effort_name(v))));
    json_object_set_new(object, "fp8_block", name_or_null(either(eval_fp8_block_name(k), eval_fp8_block_name(v))));
    json_object_set_new(object, "fp8_scale", name_or_null(either(eval_fp8_scale_name(k), eval_fp8_scale_name(v))));
    return object;
}

static json_t *tensor_json(const eval_tensor *report)
{
    const rows_tensor *tensor = report->tensor;
    json_t *object = json_object();
    json_object_set_new(object, "input", json_text(report->input));
    json_object_set_new(object, "side", json_string(report->side == KVT_K ? "k" : "v"));
    json_object_set_new(object, "dtype", json_string(rows_dtype_name(tensor->dtype)));
    json_object_set_new(object, "heads", json_integer((json_int_t)tensor->heads));
    json_object_set_new(object, "tokens", json_integer((json_int_t)tensor->tokens));
    json_object_set_new(object, "from", json_integer((json_int_t)report->from));
    json_object_set_new(object, "dim", json_integer((json_int_t)tensor->dim));
    json_object_set_new(object, "padded_dim", json_integer((json_int_t)eval_padded_dim(report->tensor->dim)));
    json_object_set_new(object, "nonfinite", json_integer((json_int_t)report->nonfinite));
    return object;
}

static json_t *summary_json(const eval_summary *summary, kvt_side side, size_t from)
{
    json_t *object = json_object();
    json_object_set_new(object, "side", json_string(side == KVT_K ? "k" : "v"));
    json_object_set_new(object, "tensors", json_integer((json_int_t)summary->n_tensors));
    json_object_set_new(object, "heads", json_integer((json_int_t)summary->n_heads));
    json_object_set_new(object, "from", json_integer((json_int_t)from));
    return object;
}

static void append_rows_json(json_t *array, json_t *common, const eval_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const eval_row *row = &rows[i];
        json_t *object = json_copy(common);
        json_object_set_new(object, "scheme", json_string(eval_way_name(row->way)));
        json_object_set_new(object, "peer", json_boolean(row->way->peer != NULL));
        json_object_set_new(object, "rotation", json_string(eval_rotation_name(row->way)));
        json_object_set_new(object, "centring", json_string(eval_centring_name(row->way)));
        json_object_set_new(object, "effort", name_or_null(eval_effort_name(row->way)));
        json_object_set_new(object, "fp8_block", name_or_null(eval_fp8_block_name(row->way)));
        json_object_set_new(object, "fp8_scale", name_or_null(eval_fp8_scale_name(row->way)));
        json_object_set_new(object, "bits_per_element", json_real(row->bits));
        json_object_set_new(object, "pair_bits_per_element", json_real(row->pair_bits));
        json_object_set_new(object, "page_bytes", row->page_bytes > 0 ? json_integer((json_int_t)row->page_bytes) : json_null());
        json_object_set_new(object, "bytes_per_token", json_integer((json_int_t)row->bytes_per_token));
        json_object_set_new(object, "snr_db", number_or_null(row->snr));
        json_object_set_new(object, "centred_snr_db", number_or_null(row->centred_snr));
        json_object_set_new(object, "max_abs_error", number_or_null(row->max_abs_error));
        json_object_set_new(object, "rows", json_integer((json_int_t)row->rows));
        json_object_set_new(object, "lost", json_integer((json_int_t)row->lost));
        json_object_set_new(object, "write_gbps", number_or_null(row->write_gbps));
        json_object_set_new(object, "read_gbps", number_or_null(row->read_gbps));
        json_array_append_new(array, object);
    }
}

/* ---- both ---- */

int eval_report_tensor(const eval_tensor *report, json_t *array)
{
    eval_row *rows = malloc(report->n_results * sizeof *rows);
    size_t n = 0;
    if (rows == NULL)
        return -1;
    for (size_t i = 0; i < report->n_results; i++) {
        if (report->results[i].same_as == i)
            insert(rows, &n, row_of(report, &report->results[i]));
    }
    if (array == NULL) {
        print_tensor_title(report);
        print_rows(rows, n);
    } else {
        json_t *common = tensor_json(report);
        append_rows_json(array, common, rows, n);
        json_decref(common);
    }
    free(rows);
    return 0;
}

static void add_mean(eval_mean *sum, const eval_mean *mean)
{
    sum->sum += mean->sum;
    sum->n += mean->n;
    sum->n_exact += mean->n_exact;
}

void eval_summary_add(eval_summary *summary, const eval_tensor *report)
{
    for (size_t i = 0; i < report->n_results; i++) {
        if (report->results[i].same_as >= report->n_results)
            continue; /* left out */
        const eval_result *result = &report->results[report->results[i].same_as];
        struct eval_sum *sum = &summary->sums[i];
        sum->shown = sum->shown || report->results[i].same_as == i;
        sum->page_bytes = summary->n_tensors == 0 || sum->page_bytes == result->page_bytes ? result->page_bytes : 0;
        sum->bytes_per_token += result->page_bytes / KVT_PAGE_TOKENS * report->tensor->heads;
        sum->pair_bytes += (uint64_t)result->pair_bytes * report->tensor->heads;
        sum->elements_per_token += (uint64_t)report->tensor->dim * report->tensor->heads;
        add_mean(&sum->snr, &result->snr);
        add_mean(&sum->centred_snr, &result->centred_snr);
        sum->max_abs_error = fmax(sum->max_abs_error, result->max_abs_error);
        sum->lost += result->lost;
        sum->rows += report->n_used;
        sum->write_gbps += result->write_gbps;
        sum->read_gbps += result->read_gbps;
    }
    summary->n_tensors++;
    summary->n_heads += report->tensor->heads;
}

int eval_report_summary(const eval_summary *summary, const eval_ways *ways, kvt_side side, size_t from, json_t *array)
{
    eval_row *rows = malloc(summary->n_ways * sizeof *rows);
    size_t n = 0;
    if (rows == NULL)
        return -1;
    for (size_t i = 0; i < summary->n_ways; i++) {
        if (summary->sums[i].shown)
            insert(rows, &n, row_of_sum(summary, &summary->sums[i], &ways->ways[i]));
    }
    if (array == NULL) {
        printf("all %s: the mean of dB over %zu head%s of %zu tensor%s\n", side == KVT_K ? "keys" : "values", summary->n_heads,
               text_plural(summary->n_heads), summary->n_tensors, text_plural(summary->n_tensors));
        print_from(from);
        print_rows(rows, n);
    } else {
        json_t *common = summary_json(summary, side, from);
        append_rows_json(array, common, rows, n);
        json_decref(common);
    }
    free(rows);
    return 0;
}
