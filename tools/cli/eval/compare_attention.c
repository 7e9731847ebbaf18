/* SPDX-License-Identifier: MIT */
/* kvtile eval --attention: what attention makes of stored layers. */
#include "tools/cli/eval/job.h"

static int compare_attention(const eval_job *job, const eval_layer *layers, size_t n, progress *shown, json_t *array, const char **about,
                             error_text *error)
{
    const eval_attention_options how = { .tiers = job->tiers,
                                         .from = job->from,
                                         .queries = job->queries,
                                         .scale = job->scale,
                                         .first = job->first,
                                         .open = job->open,
                                         .table = job->table,
                                         .progress = shown };
    return eval_attention(layers, n, &job->pairs, &how, array, about, error);
}

const eval_comparison eval_of_attention = {
    .option = "--attention", .page = "attention", .choose = eval_choose_job_pairs, .run = eval_layers_run, .of_layers = compare_attention
};
