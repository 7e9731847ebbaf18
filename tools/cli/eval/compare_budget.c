/* SPDX-License-Identifier: MIT */
/* kvtile eval --budget and --max-kl: which scheme for which layer. */
#include "tools/cli/eval/job.h"

static int compare_budget(const eval_job *job, const eval_layer *layers, size_t n, progress *shown, json_t *array, const char **about,
                          error_text *error)
{
    eval_budget_options how = job->of_budget;
    how.tiers = job->tiers;
    how.from = job->from;
    how.queries = job->queries;
    how.scale = job->scale;
    how.progress = shown;
    return eval_budget(layers, n, &job->ways, &how, array, about, error);
}

const eval_comparison eval_of_budget = { .option = "--budget", .choose = eval_choose_own_ways, .run = eval_layers_run, .of_layers = compare_budget };
