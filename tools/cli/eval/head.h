/* SPDX-License-Identifier: MIT */
/* Attention of one KV head in double precision: over rows as they were, and over what came back of them. */
#ifndef KVT_EVAL_HEAD_H
#define KVT_EVAL_HEAD_H

#include "tools/cli/eval/eval.h"

/* One KV head, the query heads that share it, and the positions from which they attend. */
typedef struct eval_head {
    size_t tokens, positions;
    uint32_t k_dim, v_dim, group;
    double scale;
    float *k, *v, *back_k, *back_v; /* [token][dim] */
    size_t *position;               /* [positions] */
    float *q;                       /* [position][group][k_dim] */
    double *logits;                 /* [position][group][token], of keys as they were */
    double *out;                    /* [position][group][v_dim], of values as they were */
    double *weights;                /* [token], scratch, as the next two */
    double *back_logits;            /* [token] */
    double *back_out;               /* [v_dim] */
} eval_head;

/* Sums over query rows. Rows that were lost, because a weight or the output is no finite number, have no part in the sums but their count: where that
 * is not zero, the sums say nothing. */
typedef struct eval_divergence {
    size_t rows, lost;  /* all, and those of them that were lost */
    size_t same_top;    /* whose most attended token is the same */
    double kl, most_kl; /* nats: the sum, the largest */
    double signal;      /* energy of exact outputs */
    double error;       /* of ours */
    double of_codes;    /* of exact arithmetic on what came back */
} eval_divergence;

/* Allocates for the sizes that are set; -1: no memory, and nothing is allocated. */
int eval_head_make(eval_head *head);
void eval_head_free(eval_head *head);

/* Positions evenly over tokens `from` .. tokens-1, the last one among them; `k` is there. Rows of queries from their tensor, whose head g of the
 * group is first_head + g; without one (NULL) the key of a position stands for its query, scaled so that logits have a standard deviation of 2.
 * Needs back_k as scratch. */
void eval_head_load_queries(eval_head *head, const rows_tensor *queries, uint32_t first_head, size_t from);

/* Whether keys, values and queries are finite: attention makes nothing of others that could be compared. */
bool eval_head_is_finite(const eval_head *head);

/* Fills logits and out. */
void eval_head_find_truth(eval_head *head);

/* The means, and the largest. NAN where a row was lost, or there is nothing to divide by. */
double eval_mean_kl(const eval_divergence *sums);
double eval_most_kl(const eval_divergence *sums);
double eval_same_top(const eval_divergence *sums);
double eval_output_error(const eval_divergence *sums);
double eval_output_error_of_codes(const eval_divergence *sums);

void eval_divergence_add(eval_divergence *to, const eval_divergence *more);

/* Query row g of position i over what came back, beside the truth. `attended`: the output of ours; NULL: that of exact arithmetic. */
void eval_head_compare(eval_divergence *sums, const eval_head *head, size_t i, uint32_t g, const float *attended);

#endif
