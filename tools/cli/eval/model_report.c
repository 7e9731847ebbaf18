/* SPDX-License-Identifier: MIT */
/* kvtile eval --model: tables for people and JSON for programs. */
#include "tools/cli/eval/model.h"

#include <math.h>
#include <stdio.h>

static const char *scheme_name(kvt_scheme scheme)
{
    return scheme != KVT_SCHEME_NONE ? kvt_scheme_get(scheme)->name : NULL;
}

/* ---- a table ---- */

/* Half of an interval's width. */
static eval_cell half_of(const char *format, statistics_interval interval, double factor)
{
    return eval_number(format, factor * (interval.high - interval.low) / 2, 0);
}

static eval_cell part_cell(eval_model_part part)
{
    return eval_number("%.3g", part.kld, part.lost);
}

static void print_title(const eval_model_report *report)
{
    const char *first = scheme_name(report->options->first), *open = scheme_name(report->options->open);
    printf("%zu token%s predicted, in %zu window%s of up to %zu%s: perplexity %.4f with the exact cache\n", report->predicted,
           report->predicted == 1 ? "" : "s", report->windows, report->windows == 1 ? "" : "s", report->context,
           report->options->outliers ? ", keys and values with outliers" : "", report->perplexity);
    printf("first page: %s; open page: %s\n", first ? first : "as the others", open ? open : "none, each token is stored at once");
}

static eval_cell detail_of(const eval_pair *way)
{
    eval_cell cell;
    const eval_detail k = eval_detail_of(&way->k), v = eval_detail_of(&way->v);
    snprintf(cell.text, sizeof cell.text, "%s", k.text[0] != '-' ? k.text : v.text);
    return cell;
}

static void print_layers(const eval_model_report *report, int width)
{
    if (report->n == 0 || report->results[0].by_layer == NULL)
        return;
    puts("KLD mean of one layer's keys, or values, alone");
    printf("  %-*s %-8s %-8s %-8s %5s %10s %10s\n", width, "scheme", "rotation", "centring", "detail", "layer", "keys", "values");
    for (size_t i = 0; i < report->n; i++) {
        const eval_model_result *result = &report->results[i];
        for (uint32_t layer = 0; layer < report->layers; layer++)
            printf("  %-*s %-8s %-8s %-8s %5u %10s %10s\n", width, eval_pair_name(&result->way).text, eval_rotation_name(&result->way.k),
                   eval_centring_name(&result->way.k), detail_of(&result->way).text, layer, part_cell(result->by_layer[2 * layer]).text,
                   part_cell(result->by_layer[2 * layer + 1]).text);
    }
    putchar('\n');
}

void eval_model_print(const eval_model_report *report)
{
    int width = eval_wider(0, "scheme");
    for (size_t i = 0; i < report->n; i++)
        width = eval_wider(width, eval_pair_name(&report->results[i].way).text);
    print_title(report);
    printf("  %-*s %-8s %-8s %-8s %6s %6s %7s %6s %9s %7s %8s %8s %6s\n", width, "scheme", "rotation", "centring", "detail", "bits", "told", "PPL %",
           "+-", "KLD mean", "+-", "99.9 %", "KLD max", "top %");
    for (size_t i = 0; i < report->n; i++) {
        const eval_model_result *result = &report->results[i];
        printf("  %-*s %-8s %-8s %-8s %6.3f %6.3f %7s %6s %9s %7s %8s %8s %6s\n", width, eval_pair_name(&result->way).text,
               eval_rotation_name(&result->way.k), eval_centring_name(&result->way.k), detail_of(&result->way).text, result->bits, result->all_told,
               eval_number("%+.3f", 100 * expm1(result->log_ratio.mean), result->lost).text, half_of("%.3f", result->log_ratio, 100).text,
               eval_number("%.3g", result->kld.mean, result->lost).text, half_of("%.2g", result->kld, 1).text,
               eval_number("%.3g", result->kld_p999, result->lost).text, eval_number("%.3g", result->kld_max, result->lost).text,
               eval_number("%.2f", 100 * result->same_top.mean, result->lost).text);
    }
    for (size_t i = 0; i < report->n; i++)
        eval_say_lost(eval_pair_name(&report->results[i].way).text, &report->results[i].way.k, report->results[i].lost, report->predicted,
                      "predictions");
    putchar('\n');
    print_layers(report, width);
}

/* ---- JSON ---- */

static void set_interval(json_t *object, const char *name, statistics_interval interval)
{
    char key[64];
    json_object_set_new(object, name, number_or_null(interval.mean));
    snprintf(key, sizeof key, "%s_low", name);
    json_object_set_new(object, key, number_or_null(interval.low));
    snprintf(key, sizeof key, "%s_high", name);
    json_object_set_new(object, key, number_or_null(interval.high));
}

static void set_part(json_t *object, eval_model_part part)
{
    json_object_set_new(object, "lost", json_integer((json_int_t)part.lost));
    json_object_set_new(object, "kld_mean", number_or_null(part.kld));
}

static json_t *positions_json(const eval_model_report *report, const eval_model_result *result)
{
    json_t *list = json_array();
    for (size_t bin = 0; bin < report->bins; bin++) {
        json_t *entry = json_object();
        json_object_set_new(entry, "first", json_integer((json_int_t)eval_model_bin(report, bin)));
        json_object_set_new(entry, "last", json_integer((json_int_t)eval_model_bin(report, bin + 1) - 1));
        set_part(entry, result->by_position[bin]);
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *layer_parts_json(const eval_model_report *report, const eval_model_result *result)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < 2 * report->layers; i++) {
        json_t *entry = json_object();
        json_object_set_new(entry, "layer", json_integer(i / 2));
        json_object_set_new(entry, "side", json_string(i % 2 == 0 ? "k" : "v"));
        set_part(entry, result->by_layer[i]);
        json_array_append_new(list, entry);
    }
    return list;
}

static void set_run(json_t *object, const eval_model_report *report)
{
    const eval_model_options *options = report->options;
    json_object_set_new(object, "model", json_text(options->source.model));
    json_object_set_new(object, "text", json_text(options->source.text));
    json_object_set_new(object, "stress", name_or_null(options->outliers ? "outliers" : NULL));
    json_object_set_new(object, "first", name_or_null(scheme_name(options->first)));
    json_object_set_new(object, "open", name_or_null(scheme_name(options->open)));
    json_object_set_new(object, "bos", json_boolean(options->bos));
    json_object_set_new(object, "layers", json_integer(report->layers));
    json_object_set_new(object, "context", json_integer((json_int_t)report->context));
    json_object_set_new(object, "windows", json_integer((json_int_t)report->windows));
    json_object_set_new(object, "predicted", json_integer((json_int_t)report->predicted));
    json_object_set_new(object, "block", json_integer(EVAL_MODEL_BLOCK));
    json_object_set_new(object, "exact_perplexity", number_or_null(report->perplexity));
}

void eval_model_append(const eval_model_report *report, json_t *array)
{
    for (size_t i = 0; i < report->n; i++) {
        const eval_model_result *result = &report->results[i];
        json_t *object = eval_pair_json(&result->way);
        set_run(object, report);
        json_object_set_new(object, "bits_per_element", json_real(result->bits));
        json_object_set_new(object, "bits_all_told", json_real(result->all_told));
        json_object_set_new(object, "lost", json_integer((json_int_t)result->lost));
        json_object_set_new(object, "perplexity", number_or_null(result->perplexity));
        json_object_set_new(object, "perplexity_ratio", number_or_null(exp(result->log_ratio.mean)));
        set_interval(object, "log_perplexity_ratio", result->log_ratio);
        set_interval(object, "kld_mean", result->kld);
        json_object_set_new(object, "kld_p99", number_or_null(result->kld_p99));
        json_object_set_new(object, "kld_p999", number_or_null(result->kld_p999));
        json_object_set_new(object, "kld_max", number_or_null(result->kld_max));
        set_interval(object, "same_top", result->same_top);
        json_object_set_new(object, "by_position", positions_json(report, result));
        if (result->by_layer != NULL)
            json_object_set_new(object, "by_layer", layer_parts_json(report, result));
        json_array_append_new(array, object);
    }
}
