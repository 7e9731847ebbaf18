/* SPDX-License-Identifier: MIT */
/* kvtile eval --budget, --max-kl: which scheme for which layer. */
#ifndef KVT_EVAL_BUDGET_H
#define KVT_EVAL_BUDGET_H

#include "tools/cli/eval/eval.h"

typedef struct eval_budget_options {
    uint32_t tiers;
    size_t from, queries;
    double scale;  /* as of attention */
    double bits;   /* of an element, on average, at most; or */
    double bytes;  /* of a token in all layers, at most; or */
    double max_kl; /* mean divergence of the weights, at most, in as few bytes as it takes */
    progress *progress;
} eval_budget_options;

/* Measures what each way costs the keys and the values of each layer alone, chooses for each layer what together is best within the limit that is not
 * zero, and measures that. Reports as the others do. */
int eval_budget(const eval_layer *layers, size_t n_layers, const eval_ways *ways, const eval_budget_options *options, json_t *array,
                const char **about, error_text *error);

#endif
