/* SPDX-License-Identifier: MIT */
/* kvtile eval --model: what storing the cache costs a whole model. */
#include "tools/cli/eval/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int choose_options(eval_model_options *to, char *const texts[EVAL_MODEL_TEXTS], const char *who)
{
    size_t threads = 1;
    to->source = (run_source){ .model = texts[EVAL_MODEL_MODEL], .tokenizer = texts[EVAL_MODEL_TOKENIZER], .text = texts[EVAL_MODEL_TEXT] };
    if (to->source.text == NULL) {
        error_print(who, "--text", "is missing: --model needs it");
        return -1;
    }
    const struct {
        size_t *to;
        const char *text, *option;
    } counts[] = { { &to->tokens, texts[EVAL_MODEL_TOKENS], "--tokens" },
                   { &to->context, texts[EVAL_MODEL_CONTEXT], "--context" },
                   { &threads, texts[EVAL_MODEL_THREADS], "--threads" } };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (counts[i].text != NULL && eval_choose_count(counts[i].to, counts[i].text, counts[i].option, 1, who) != 0)
            return -1;
    if (threads > POOL_MOST_WORKERS) {
        char text[64];
        snprintf(text, sizeof text, "at most %d would be right for --threads", POOL_MOST_WORKERS);
        error_print(who, texts[EVAL_MODEL_THREADS], text);
        return -1;
    }
    to->source.threads = (unsigned)threads;
    to->outliers = texts[EVAL_MODEL_STRESS] != NULL;
    if (to->outliers && strcmp(texts[EVAL_MODEL_STRESS], "outliers") != 0) {
        error_print(who, texts[EVAL_MODEL_STRESS], "outliers would be right for --stress");
        return -1;
    }
    if (eval_choose_end(&to->first, texts[EVAL_MODEL_FIRST], KVT_SCHEME_kv8, "--first", who) != 0)
        return -1;
    return eval_choose_end(&to->open, texts[EVAL_MODEL_OPEN], KVT_SCHEME_bf16, "--open", who);
}

static int report_models(const eval_pairs *pairs, const eval_model_options *options, eval_output output, bool table, json_t *page, const char *who)
{
    eval_model_report r;
    const char *about = "--model";
    error_text error;
    const int status = eval_model(&r, pairs, options, &about, &error);
    if (status != 0)
        error_print(who, about, error.text);
    json_t *array = page != NULL ? json_incref(json_object_get(page, "results")) : output != EVAL_TABLE ? json_array() : NULL;
    if (status == 0 && array != NULL)
        eval_model_append(&r, array);
    if (status == 0 && output != EVAL_TABLE)
        eval_print_array(array, output);
    if (status == 0 && table)
        eval_model_print(&r);
    json_decref(array);
    eval_model_free(&r);
    return status == 0 ? 0 : 1;
}

/* Without an open page each token is stored at once, where centres of whole pages are not known. */
static int check_centres(const eval_pairs *pairs, const eval_model_options *options, const char *who)
{
    for (size_t i = 0; i < pairs->n && options->open == KVT_SCHEME_NONE; i++) {
        if (pairs->pairs[i].k.options.centring != KVT_CENTRING_OWN && pairs->pairs[i].v.options.centring != KVT_CENTRING_OWN)
            continue;
        error_print(who, "--centring own", "pages are written when they are full, so there is an open page: another --open than none would be right");
        return -1;
    }
    return 0;
}

static int compare_models(const eval_job *job, const char **paths)
{
    (void)paths; /* none: command.c has seen to it */
    eval_model_options options = { .bos = job->bos, .by_layer = job->by_layer };
    if (choose_options(&options, job->texts + EVAL_MODEL, EVAL_WHO) != 0 || check_centres(&job->pairs, &options, EVAL_WHO) != 0)
        return 2;
    return report_models(&job->pairs, &options, job->output, job->table, job->page, EVAL_WHO);
}

const eval_comparison eval_of_models = { .option = "--model", .page = "model", .choose = eval_choose_job_pairs, .run = compare_models };
