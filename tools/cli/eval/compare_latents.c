/* SPDX-License-Identifier: MIT */
/* kvtile eval --latent: latents of MLA, as they are or made of keys and values. */
#include "tools/cli/eval/job.h"

#include <stdio.h>

static int choose_ranks(eval_latent_options *to, const char *list)
{
    uint64_t ranks[EVAL_MOST_RANKS];
    to->n_ranks = eval_take_numbers(ranks, EVAL_MOST_RANKS, KVT_MAX_DIM, list);
    for (size_t i = 0; i < to->n_ranks; i++)
        to->ranks[i] = (uint32_t)ranks[i];
    if (to->n_ranks > 0)
        return 0;
    char what[96];
    snprintf(what, sizeof what, "up to %d whole numbers of 1 to %d would be right for --rank", EVAL_MOST_RANKS, KVT_MAX_DIM);
    error_print(EVAL_WHO, list, what);
    return -1;
}

static int choose_latents(eval_job *job, const eval_words *words)
{
    const char *rope_dim = job->texts[EVAL_ROPE_DIM], *rope = job->texts[EVAL_ROPE], *rank = job->texts[EVAL_RANK];
    eval_latent_options *to = &job->of_latents;
    size_t dim = 0;
    if (eval_choose_own_ways(job, words) != 0 || (rope_dim != NULL && eval_choose_count(&dim, rope_dim, "--rope-dim", 1, EVAL_WHO) != 0))
        return -1;
    to->rope_dim = dim < UINT32_MAX ? (uint32_t)dim : UINT32_MAX;
    if (rank != NULL && choose_ranks(to, rank) != 0)
        return -1;
    return eval_choose_schemes(to->rope_schemes, &to->n_rope_schemes, EVAL_MOST_SCHEMES, rope != NULL ? rope : "bf16,kv8", "--rope", EVAL_WHO);
}

static int compare_latents(const eval_job *job, const eval_layer *layers, size_t n, progress *shown, json_t *array, const char **about,
                           error_text *error)
{
    eval_latent_options how = job->of_latents;
    how.tiers = job->tiers;
    how.from = job->from;
    how.queries = job->queries;
    how.scale = job->scale;
    how.table = job->table;
    how.progress = shown;
    return eval_latent(layers, n, &job->ways, &how, array, about, error);
}

const eval_comparison eval_of_latents = {
    .option = "--latent", .page = "latent", .choose = choose_latents, .run = eval_layers_run, .of_layers = compare_latents, .may_lack_values = true
};
