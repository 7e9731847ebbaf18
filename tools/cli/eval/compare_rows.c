/* SPDX-License-Identifier: MIT */
/* kvtile eval: rows stored in each way and read back. */
#include "tools/cli/eval/job.h"
#include "tools/cli/eval/page.h"

#include <stdlib.h>

/* What stays from one input to the next. */
typedef struct state {
    const eval_job *chosen;
    eval_space space;
    progress shown;
    eval_summary summaries[2]; /* by side */
    json_t *array;             /* of --json, or NULL */
} state;

static int report_tensor(const eval_tensor *report, const state *run)
{
    if (run->chosen->table && eval_report_tensor(report, NULL) != 0)
        return -1;
    if (run->array != NULL && eval_report_tensor(report, run->array) != 0)
        return -1;
    return run->chosen->page != NULL ? eval_report_tensor(report, eval_page_results(run->chosen)) : 0;
}

static int measure_tensor(const char *path, const rows_file *file, const rows_tensor *tensor, state *run, error_text *error)
{
    const eval_job *chosen = run->chosen;
    const rows_kind is = eval_kind_of(path, tensor);
    if (chosen->auto_side && is == ROWS_QUERIES) {
        error_print(EVAL_WHO, path, "has queries, which only --attention wants: left out");
        return 0;
    }
    eval_tensor report = { .input = eval_input_name(path, file, tensor),
                           .tensor = tensor,
                           .side = !chosen->auto_side  ? chosen->side
                                   : is == ROWS_VALUES ? KVT_V
                                                       : KVT_K,
                           .from = chosen->from,
                           .results = calloc(chosen->ways.n, sizeof *report.results) };
    int status = report.input == NULL || report.results == NULL ? error_set(error, "cannot be evaluated: out of memory") : 0;
    if (status == 0)
        status = eval_measure(&report, &chosen->ways, chosen->tiers, chosen->speed, &run->space, &run->shown, error);
    if (status == 0)
        eval_summary_add(&run->summaries[report.side == KVT_V], &report);
    if (status == 0 && !chosen->mean && report_tensor(&report, run) != 0)
        status = error_set(error, "cannot be reported: out of memory");
    if (status == 0 && chosen->page != NULL)
        eval_page_add_input(chosen->page, report.input, eval_kind_name(report.side == KVT_V ? ROWS_VALUES : ROWS_KEYS), tensor);
    free(report.input);
    free(report.results);
    return status;
}

static int eval_input(const char *path, state *run)
{
    rows_file file;
    error_text error;
    int status = eval_input_open(&file, path, run->chosen, &error);
    if (status == 0 && file.note != NULL)
        error_print(EVAL_WHO, path, file.note);
    for (size_t i = 0; status == 0 && i < file.n_tensors; i++)
        status = measure_tensor(path, &file, &file.tensors[i], run, &error);
    if (status != 0)
        error_print(EVAL_WHO, path, error.text);
    rows_close(&file);
    return status;
}

static int report_summaries(const state *run)
{
    const eval_job *chosen = run->chosen;
    for (size_t side = 0; side < 2; side++) {
        const eval_summary *summary = &run->summaries[side];
        const bool wanted = chosen->mean ? summary->n_tensors > 0 : summary->n_tensors > 1;
        /* --json has them only when they are all that it has. */
        json_t *const item[] = { NULL, chosen->mean ? run->array : NULL, eval_page_results(chosen) };
        const bool to[] = { chosen->table, item[1] != NULL, item[2] != NULL };
        for (size_t i = 0; wanted && i < sizeof item / sizeof *item; i++)
            if (to[i] && eval_report_summary(summary, &chosen->ways, side == 0 ? KVT_K : KVT_V, chosen->from, item[i]) != 0) {
                error_print(EVAL_WHO, "--mean", "out of memory");
                return -1;
            }
    }
    return 0;
}

static int run_rows(const eval_job *chosen, const char **paths)
{
    state run = { .chosen = chosen };
    int status = 0;
    progress_start(&run.shown);
    for (size_t side = 0; side < 2; side++) {
        eval_summary *summary = &run.summaries[side];
        *summary = (eval_summary){ .n_ways = chosen->ways.n, .sums = calloc(chosen->ways.n, sizeof *summary->sums) };
        status = summary->sums == NULL ? -1 : status;
    }
    run.array = chosen->output != EVAL_TABLE ? json_array() : NULL;
    if (status != 0)
        error_print(EVAL_WHO, "arguments", "out of memory");
    for (; status == 0 && *paths != NULL; paths++)
        status = eval_input(*paths, &run);
    if (status == 0 && run.summaries[0].n_tensors == 0 && run.summaries[1].n_tensors == 0) {
        error_print(EVAL_WHO, "no keys and no values", "inputs that have some would be right");
        status = -1;
    }
    if (status == 0)
        status = report_summaries(&run);
    if (status == 0 && run.array != NULL) {
        eval_print_array(run.array, chosen->output);
    }
    json_decref(run.array);
    eval_space_free(&run.space);
    free(run.summaries[0].sums);
    free(run.summaries[1].sums);
    return status == 0 ? 0 : 1;
}

static int choose_rows(eval_job *job, const eval_words *words)
{
    return eval_choose_ways(&job->ways, words, EVAL_WHO);
}

const eval_comparison eval_of_rows = { .page = "rows", .choose = choose_rows, .run = run_rows };
