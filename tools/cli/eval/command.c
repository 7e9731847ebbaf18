/* SPDX-License-Identifier: MIT */
/* kvtile eval: real rows, stored in each scheme and read back. Here: which comparison, and its page. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/commands.h"
#include "tools/cli/eval/job.h"
#include "tools/cli/eval/page.h"
#include "tools/program/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Neither an option nor an input that has no part in what is done. */
static bool is_alone(const char *option, const char *what, const char *input)
{
    char text[32];
    snprintf(text, sizeof text, "--%s", option != NULL ? option : "");
    if (option != NULL || input != NULL)
        error_print(EVAL_WHO, option != NULL ? text : input, what);
    return option == NULL && input == NULL;
}

/* What only rows or only a model has, where the other is compared. */
static int check_parts(const eval_job *job, const struct poptOption *table, const char *input)
{
    const char *with_rows = job->attention ? "attention" : job->latent ? "latent" : job->mean ? "mean" : !job->speed ? "no-speed" : NULL;
    const char *with_model = job->bos ? "bos" : job->by_layer ? "by-layer" : NULL;
    bool with_ends = false;
    for (int i = 0; i < EVAL_TEXTS; i++) {
        const bool ends = i == EVAL_MODEL + EVAL_MODEL_FIRST || i == EVAL_MODEL + EVAL_MODEL_OPEN;
        if (i >= EVAL_SIDE && i < EVAL_MODEL && job->texts[i] != NULL)
            with_rows = table[i].longName;
        if (i > EVAL_MODEL && job->texts[i] != NULL && !(job->attention && ends)) {
            with_model = table[i].longName;
            with_ends = ends;
        }
    }
    if (job->texts[EVAL_MODEL] != NULL)
        return is_alone(with_rows, "has no part in --model: one of the two would be right", input) ? 0 : -1;
    if (!is_alone(with_model, with_ends ? "only --attention and --model have pages that are kept otherwise" : "only --model runs a model", NULL))
        return -1;
    if (input == NULL)
        error_print(EVAL_WHO, "no input", "at least one file of rows would be right; see kvtile eval --help");
    return input != NULL ? 0 : -1;
}

/* ---- a page ---- */

/* Says what is wrong with --report before anything is measured. The exit code. */
static int begin_page(eval_job *job, int argc, const char **argv)
{
    error_text error;
    if (job->comparison->page == NULL) {
        error_print(EVAL_WHO, "--report", "shows comparisons, which --budget and --max-kl are not");
        return 2;
    }
    const bool to_stdout = strcmp(job->report, "-") == 0;
    if (to_stdout && job->output != EVAL_TABLE) {
        error_print(EVAL_WHO, "--report", "and --json or --csv cannot both go to stdout: a file would be right");
        return 2;
    }
    if (eval_page_check(job->report, &error) != 0) {
        error_print(EVAL_WHO, *job->report != '\0' ? job->report : "--report", error.text);
        return 1;
    }
    job->table = job->table && !to_stdout;
    job->page = eval_page_begin(job->comparison->page, argc, argv);
    if (job->page == NULL)
        error_print(EVAL_WHO, "--report", "out of memory");
    return job->page != NULL ? 0 : 1;
}

static int end_page(const eval_job *job)
{
    error_text error;
    if (eval_page_write(job->report, job->page, &error) == 0)
        return 0;
    error_print(EVAL_WHO, job->report, error.text);
    return 1;
}

/* ---- the command ---- */

static int run_job(eval_job *job, const eval_words *words, const struct poptOption *table, poptContext context, int argc, const char **argv)
{
    if (check_parts(job, table, poptPeekArg(context)) != 0)
        return 2;
    job->comparison = &eval_of_models;
    if (job->texts[EVAL_MODEL] == NULL && eval_job_choose(job, words) != 0)
        return 2;
    int code = job->report != NULL ? begin_page(job, argc, argv) : 0;
    if (code == 0 && job->comparison == &eval_of_models && job->comparison->choose(job, words) != 0)
        code = 2;
    if (code == 0)
        code = job->comparison->run(job, poptGetArgs(context));
    return code == 0 && job->page != NULL ? end_page(job) : code;
}

int kvt_cmd_eval(int argc, const char **argv)
{
    struct {
        int help, help_all, json, csv, mean, no_speed, attention, latent, bos, by_layer;
    } flags = { 0 };
    char *texts[EVAL_TEXTS] = { NULL };
    const struct poptOption table[] = { { "schemes", 0, POPT_ARG_STRING, NULL, 1 + EVAL_SCHEMES, NULL, NULL },
                                        { "rotation", 0, POPT_ARG_STRING, NULL, 1 + EVAL_ROTATION, NULL, NULL },
                                        { "centring", 0, POPT_ARG_STRING, NULL, 1 + EVAL_CENTRING, NULL, NULL },
                                        { "effort", 0, POPT_ARG_STRING, NULL, 1 + EVAL_EFFORT, NULL, NULL },
                                        { "fp8-block", 0, POPT_ARG_STRING, NULL, 1 + EVAL_FP8_BLOCK, NULL, NULL },
                                        { "fp8-scale", 0, POPT_ARG_STRING, NULL, 1 + EVAL_FP8_SCALE, NULL, NULL },
                                        { "report", 0, POPT_ARG_STRING, NULL, 1 + EVAL_REPORT, NULL, NULL },
                                        { "side", 0, POPT_ARG_STRING, NULL, 1 + EVAL_SIDE, NULL, NULL },
                                        { "tier", 0, POPT_ARG_STRING, NULL, 1 + EVAL_TIER, NULL, NULL },
                                        { "from", 0, POPT_ARG_STRING, NULL, 1 + EVAL_FROM, NULL, NULL },
                                        { "queries", 0, POPT_ARG_STRING, NULL, 1 + EVAL_QUERIES, NULL, NULL },
                                        { "scale", 0, POPT_ARG_STRING, NULL, 1 + EVAL_SCALE, NULL, NULL },
                                        { "rope-dim", 0, POPT_ARG_STRING, NULL, 1 + EVAL_ROPE_DIM, NULL, NULL },
                                        { "rope", 0, POPT_ARG_STRING, NULL, 1 + EVAL_ROPE, NULL, NULL },
                                        { "rank", 0, POPT_ARG_STRING, NULL, 1 + EVAL_RANK, NULL, NULL },
                                        { "shape", 0, POPT_ARG_STRING, NULL, 1 + EVAL_SHAPE, NULL, NULL },
                                        { "order", 0, POPT_ARG_STRING, NULL, 1 + EVAL_ORDER, NULL, NULL },
                                        { "dtype", 0, POPT_ARG_STRING, NULL, 1 + EVAL_DTYPE, NULL, NULL },
                                        { "budget", 0, POPT_ARG_STRING, NULL, 1 + EVAL_BUDGET, NULL, NULL },
                                        { "max-kl", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MAX_KL, NULL, NULL },
                                        { "model", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_MODEL, NULL, NULL },
                                        { "tokenizer", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_TOKENIZER, NULL, NULL },
                                        { "text", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_TEXT, NULL, NULL },
                                        { "tokens", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_TOKENS, NULL, NULL },
                                        { "context", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_CONTEXT, NULL, NULL },
                                        { "first", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_FIRST, NULL, NULL },
                                        { "open", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_OPEN, NULL, NULL },
                                        { "stress", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_STRESS, NULL, NULL },
                                        { "threads", 0, POPT_ARG_STRING, NULL, 1 + EVAL_MODEL + EVAL_MODEL_THREADS, NULL, NULL },
                                        { "attention", 0, POPT_ARG_NONE, &flags.attention, 0, NULL, NULL },
                                        { "latent", 0, POPT_ARG_NONE, &flags.latent, 0, NULL, NULL },
                                        { "bos", 0, POPT_ARG_NONE, &flags.bos, 0, NULL, NULL },
                                        { "by-layer", 0, POPT_ARG_NONE, &flags.by_layer, 0, NULL, NULL },
                                        { "mean", 0, POPT_ARG_NONE, &flags.mean, 0, NULL, NULL },
                                        { "no-speed", 0, POPT_ARG_NONE, &flags.no_speed, 0, NULL, NULL },
                                        { "json", 0, POPT_ARG_NONE, &flags.json, 0, NULL, NULL },
                                        { "csv", 0, POPT_ARG_NONE, &flags.csv, 0, NULL, NULL },
                                        { "help-all", 0, POPT_ARG_NONE, &flags.help_all, 0, NULL, NULL },
                                        { "help", 'h', POPT_ARG_NONE, &flags.help, 0, NULL, NULL },
                                        { "scheme", 0, POPT_ARG_STRING, NULL, 1 + EVAL_SCHEMES, NULL, NULL },
                                        POPT_TABLEEND };
    poptContext context = options_open(EVAL_WHO, "kvtile", argc, argv, table);
    if (context == NULL)
        return 1;
    char **values[EVAL_TEXTS];
    for (size_t i = 0; i < EVAL_TEXTS; i++)
        values[i] = &texts[i];
    const int parsed = options_take(context, argc, argv, table, values);
    const eval_words words = { .schemes = texts[EVAL_SCHEMES],
                               .rotation = texts[EVAL_ROTATION],
                               .centring = texts[EVAL_CENTRING],
                               .effort = texts[EVAL_EFFORT],
                               .fp8_block = texts[EVAL_FP8_BLOCK],
                               .fp8_scale = texts[EVAL_FP8_SCALE] };
    eval_job job = { .texts = texts,
                     .attention = flags.attention,
                     .latent = flags.latent,
                     .bos = flags.bos,
                     .by_layer = flags.by_layer,
                     .mean = flags.mean,
                     .speed = !flags.no_speed,
                     .output = flags.csv    ? EVAL_CSV
                               : flags.json ? EVAL_JSON
                                            : EVAL_TABLE,
                     .table = !flags.csv && !flags.json,
                     .report = texts[EVAL_REPORT] };
    int code = 2;
    if (parsed < -1) {
        error_print(EVAL_WHO, poptBadOption(context, 0), poptStrerror(parsed));
    } else if (flags.help || flags.help_all) {
        eval_print_help(flags.help_all);
        code = 0;
    } else if (flags.json && flags.csv) {
        error_print(EVAL_WHO, "--csv", "and --json cannot both go to stdout: one of them would be right");
    } else {
        code = run_job(&job, &words, table, context, argc, argv);
    }
    json_decref(job.page);
    free(job.ways.ways);
    free(job.pairs.pairs);
    for (size_t i = 0; i < EVAL_TEXTS; i++)
        free(texts[i]);
    poptFreeContext(context);
    return code;
}
