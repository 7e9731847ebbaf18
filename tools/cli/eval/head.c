/* SPDX-License-Identifier: MIT */
/* kvtile eval: attention of one head in double precision. */
#include "tools/cli/eval/head.h"

#include "tools/engine/arithmetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void eval_head_free(eval_head *head)
{
    void *const all[] = { head->k,      head->v,   head->back_k,  head->back_v,      head->position, head->q,
                          head->logits, head->out, head->weights, head->back_logits, head->back_out };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    *head = (eval_head){ 0 };
}

/* NULL for what no size_t holds, too. */
static void *numbers(size_t rows, size_t columns, size_t bytes)
{
    size_t n;
    return __builtin_mul_overflow(rows, columns, &n) ? NULL : calloc(n > 0 ? n : 1, bytes);
}

int eval_head_make(eval_head *head)
{
    const size_t rows = head->positions * head->group;
    head->k = numbers(head->tokens, head->k_dim, sizeof(float));
    head->v = numbers(head->tokens, head->v_dim, sizeof(float));
    head->back_k = numbers(head->tokens, head->k_dim, sizeof(float));
    head->back_v = numbers(head->tokens, head->v_dim, sizeof(float));
    head->position = numbers(head->positions, 1, sizeof(size_t));
    head->q = numbers(rows, head->k_dim, sizeof(float));
    head->logits = numbers(rows, head->tokens, sizeof(double));
    head->out = numbers(rows, head->v_dim, sizeof(double));
    head->weights = numbers(head->tokens, 1, sizeof(double));
    head->back_logits = numbers(head->tokens, 1, sizeof(double));
    head->back_out = numbers(head->v_dim, 1, sizeof(double));
    if (head->k && head->v && head->back_k && head->back_v && head->position && head->q && head->logits && head->out && head->weights &&
        head->back_logits && head->back_out)
        return 0;
    eval_head_free(head);
    return -1;
}

static double exact_dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Logits of the n first tokens to weights; returns the logarithm of what they were divided by, the largest logit included. */
static double exact_softmax(const double *logits, double *weights, size_t n)
{
    double largest = logits[0];
    for (size_t t = 1; t < n; t++)
        largest = fmax(largest, logits[t]);
    double sum = 0;
    for (size_t t = 0; t < n; t++)
        sum += weights[t] = exp(logits[t] - largest);
    for (size_t t = 0; t < n; t++)
        weights[t] /= sum;
    return largest + log(sum);
}

static void exact_weighted_sum(double *out, const double *weights, const float *values, size_t n, uint32_t dim)
{
    for (uint32_t c = 0; c < dim; c++)
        out[c] = 0;
    for (size_t t = 0; t < n; t++)
        for (uint32_t c = 0; c < dim; c++)
            out[c] += weights[t] * values[t * dim + c];
}

static size_t top(const double *x, size_t n)
{
    size_t best = 0;
    for (size_t t = 1; t < n; t++)
        best = x[t] > x[best] ? t : best;
    return best;
}

static void choose_positions(eval_head *head, size_t from)
{
    const size_t span = head->tokens - from;
    for (size_t i = 0; i < head->positions; i++)
        head->position[i] = from + span * (i + 1) / head->positions - 1;
}

static void invent_query(const eval_head *head, size_t position, float *q)
{
    const float *key = head->k + position * head->k_dim;
    double sum = 0, squares = 0;
    for (size_t t = 0; t <= position; t++) {
        const double logit = exact_dot(key, head->k + t * head->k_dim, head->k_dim) * head->scale;
        sum += logit;
        squares += logit * logit;
    }
    const double n = (double)position + 1, variance = squares / n - sum / n * (sum / n);
    const double factor = variance > 0 ? 2 / sqrt(variance) : 1;
    for (uint32_t c = 0; c < head->k_dim; c++)
        q[c] = (float)(key[c] * factor);
}

void eval_head_load_queries(eval_head *head, const rows_tensor *queries, uint32_t first_head, size_t from)
{
    choose_positions(head, from);
    for (uint32_t g = 0; g < head->group; g++) {
        if (queries)
            rows_head_to_f32(queries, first_head + g, head->back_k);
        for (size_t i = 0; i < head->positions; i++) {
            float *q = head->q + (i * head->group + g) * head->k_dim;
            if (queries)
                memcpy(q, head->back_k + head->position[i] * head->k_dim, head->k_dim * sizeof *q);
            else
                invent_query(head, head->position[i], q);
        }
    }
}

static bool all_finite(const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

bool eval_head_is_finite(const eval_head *head)
{
    return arithmetic_are_finite(head->k, head->tokens * head->k_dim) && arithmetic_are_finite(head->v, head->tokens * head->v_dim) &&
           arithmetic_are_finite(head->q, head->positions * head->group * head->k_dim);
}

void eval_head_find_truth(eval_head *head)
{
    for (size_t i = 0; i < head->positions; i++) {
        const size_t n = head->position[i] + 1;
        for (uint32_t g = 0; g < head->group; g++) {
            const size_t row = i * head->group + g;
            double *logits = head->logits + row * head->tokens;
            for (size_t t = 0; t < n; t++)
                logits[t] = exact_dot(head->q + row * head->k_dim, head->k + t * head->k_dim, head->k_dim) * head->scale;
            exact_softmax(logits, head->weights, n);
            exact_weighted_sum(head->out + row * head->v_dim, head->weights, head->v, n, head->v_dim);
        }
    }
}

void eval_head_compare(eval_divergence *sums, const eval_head *head, size_t i, uint32_t g, const float *attended)
{
    const size_t n = head->position[i] + 1, row = i * head->group + g;
    const double *truth = head->logits + row * head->tokens, *exact = head->out + row * head->v_dim;
    for (size_t t = 0; t < n; t++)
        head->back_logits[t] = exact_dot(head->q + row * head->k_dim, head->back_k + t * head->k_dim, head->k_dim) * head->scale;
    const double log_sum = exact_softmax(head->back_logits, head->weights, n);
    exact_weighted_sum(head->back_out, head->weights, head->back_v, n, head->v_dim);
    const double log_sum_of_truth = exact_softmax(truth, head->weights, n);
    sums->rows++;
    if (!all_finite(head->back_logits, n) || !all_finite(head->back_out, head->v_dim) ||
        (attended && !arithmetic_are_finite(attended, head->v_dim))) {
        sums->lost++;
        return;
    }
    double kl = 0;
    for (size_t t = 0; t < n; t++)
        kl += head->weights[t] * ((truth[t] - log_sum_of_truth) - (head->back_logits[t] - log_sum));
    kl = fmax(kl, 0); /* rounding */
    sums->kl += kl;
    sums->most_kl = fmax(sums->most_kl, kl);
    sums->same_top += top(truth, n) == top(head->back_logits, n) ? 1 : 0;
    for (uint32_t c = 0; c < head->v_dim; c++) {
        const double of_codes = head->back_out[c] - exact[c], ours = attended ? attended[c] - exact[c] : of_codes;
        sums->signal += exact[c] * exact[c];
        sums->error += ours * ours;
        sums->of_codes += of_codes * of_codes;
    }
}

void eval_divergence_add(eval_divergence *to, const eval_divergence *more)
{
    to->rows += more->rows;
    to->lost += more->lost;
    to->same_top += more->same_top;
    to->kl += more->kl;
    to->most_kl = fmax(to->most_kl, more->most_kl);
    to->signal += more->signal;
    to->error += more->error;
    to->of_codes += more->of_codes;
}

static double ratio(const eval_divergence *sums, double x, double to)
{
    return sums->lost == 0 && to > 0 ? x / to : (double)NAN;
}

double eval_mean_kl(const eval_divergence *sums)
{
    return ratio(sums, sums->kl, (double)sums->rows);
}

double eval_most_kl(const eval_divergence *sums)
{
    return ratio(sums, sums->most_kl, 1);
}

double eval_same_top(const eval_divergence *sums)
{
    return ratio(sums, (double)sums->same_top, (double)sums->rows);
}

double eval_output_error(const eval_divergence *sums)
{
    return sqrt(ratio(sums, sums->error, sums->signal));
}

double eval_output_error_of_codes(const eval_divergence *sums)
{
    return sqrt(ratio(sums, sums->of_codes, sums->signal));
}
