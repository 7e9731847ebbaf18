/* kvtile eval: attention of one head in double precision. */
#include "tools/cli/eval/head.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void eval_head_free(eval_head *one)
{
    void *const all[] = { one->k,      one->v,   one->back_k,  one->back_v,      one->position, one->q,
                          one->logits, one->out, one->weights, one->back_logits, one->back_out };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    *one = (eval_head){ 0 };
}

/* NULL for what no size_t holds, too. */
static void *numbers(size_t rows, size_t columns, size_t bytes)
{
    size_t n;
    return __builtin_mul_overflow(rows, columns, &n) ? NULL : calloc(n > 0 ? n : 1, bytes);
}

int eval_head_make(eval_head *one)
{
    const size_t rows = one->positions * one->group;
    one->k = numbers(one->tokens, one->k_dim, sizeof(float));
    one->v = numbers(one->tokens, one->v_dim, sizeof(float));
    one->back_k = numbers(one->tokens, one->k_dim, sizeof(float));
    one->back_v = numbers(one->tokens, one->v_dim, sizeof(float));
    one->position = numbers(one->positions, 1, sizeof(size_t));
    one->q = numbers(rows, one->k_dim, sizeof(float));
    one->logits = numbers(rows, one->tokens, sizeof(double));
    one->out = numbers(rows, one->v_dim, sizeof(double));
    one->weights = numbers(one->tokens, 1, sizeof(double));
    one->back_logits = numbers(one->tokens, 1, sizeof(double));
    one->back_out = numbers(one->v_dim, 1, sizeof(double));
    if (one->k && one->v && one->back_k && one->back_v && one->position && one->q && one->logits && one->out && one->weights && one->back_logits &&
        one->back_out)
        return 0;
    eval_head_free(one);
    return -1;
}

static double dot(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* Logits of the n first tokens to weights; returns the logarithm of what they were divided by, the largest logit included. */
static double softmax(const double *logits, double *weights, size_t n)
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

static void weigh(double *out, const double *weights, const float *values, size_t n, uint32_t dim)
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

static void choose_positions(eval_head *one, size_t from)
{
    const size_t span = one->tokens - from;
    for (size_t i = 0; i < one->positions; i++)
        one->position[i] = from + span * (i + 1) / one->positions - 1;
}

static void invent_query(const eval_head *one, size_t position, float *q)
{
    const float *key = one->k + position * one->k_dim;
    double sum = 0, squares = 0;
    for (size_t t = 0; t <= position; t++) {
        const double logit = dot(key, one->k + t * one->k_dim, one->k_dim) * one->scale;
        sum += logit;
        squares += logit * logit;
    }
    const double n = (double)position + 1, variance = squares / n - sum / n * (sum / n);
    const double factor = variance > 0 ? 2 / sqrt(variance) : 1;
    for (uint32_t c = 0; c < one->k_dim; c++)
        q[c] = (float)(key[c] * factor);
}

void eval_head_load_queries(eval_head *one, const rows_tensor *queries, uint32_t first_head, size_t from)
{
    choose_positions(one, from);
    for (uint32_t g = 0; g < one->group; g++) {
        if (queries)
            rows_head_to_f32(queries, first_head + g, one->back_k);
        for (size_t i = 0; i < one->positions; i++) {
            float *q = one->q + (i * one->group + g) * one->k_dim;
            if (queries)
                memcpy(q, one->back_k + one->position[i] * one->k_dim, one->k_dim * sizeof *q);
            else
                invent_query(one, one->position[i], q);
        }
    }
}

static bool are_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

static bool all_finite(const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

bool eval_head_is_finite(const eval_head *one)
{
    return are_finite(one->k, one->tokens * one->k_dim) && are_finite(one->v, one->tokens * one->v_dim) &&
           are_finite(one->q, one->positions * one->group * one->k_dim);
}

void eval_head_find_truth(eval_head *one)
{
    for (size_t i = 0; i < one->positions; i++) {
        const size_t n = one->position[i] + 1;
        for (uint32_t g = 0; g < one->group; g++) {
            const size_t row = i * one->group + g;
            double *logits = one->logits + row * one->tokens;
            for (size_t t = 0; t < n; t++)
                logits[t] = dot(one->q + row * one->k_dim, one->k + t * one->k_dim, one->k_dim) * one->scale;
            softmax(logits, one->weights, n);
            weigh(one->out + row * one->v_dim, one->weights, one->v, n, one->v_dim);
        }
    }
}

void eval_head_compare(eval_divergence *sums, const eval_head *one, size_t i, uint32_t g, const float *attended)
{
    const size_t n = one->position[i] + 1, row = i * one->group + g;
    const double *truth = one->logits + row * one->tokens, *exact = one->out + row * one->v_dim;
    for (size_t t = 0; t < n; t++)
        one->back_logits[t] = dot(one->q + row * one->k_dim, one->back_k + t * one->k_dim, one->k_dim) * one->scale;
    const double log_sum = softmax(one->back_logits, one->weights, n);
    weigh(one->back_out, one->weights, one->back_v, n, one->v_dim);
    const double log_sum_of_truth = softmax(truth, one->weights, n);
    sums->rows++;
    if (!all_finite(one->back_logits, n) || !all_finite(one->back_out, one->v_dim) || (attended && !are_finite(attended, one->v_dim))) {
        sums->lost++;
        return;
    }
    double kl = 0;
    for (size_t t = 0; t < n; t++)
        kl += one->weights[t] * ((truth[t] - log_sum_of_truth) - (one->back_logits[t] - log_sum));
    kl = fmax(kl, 0); /* rounding */
    sums->kl += kl;
    sums->most_kl = fmax(sums->most_kl, kl);
    sums->same_top += top(truth, n) == top(one->back_logits, n) ? 1 : 0;
    for (uint32_t c = 0; c < one->v_dim; c++) {
        const double of_codes = one->back_out[c] - exact[c], ours = attended ? attended[c] - exact[c] : of_codes;
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

static double ratio(const eval_divergence *sums, double of, double to)
{
    return sums->lost == 0 && to > 0 ? of / to : (double)NAN;
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
