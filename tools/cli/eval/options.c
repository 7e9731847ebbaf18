/* SPDX-License-Identifier: MIT */
/* The options of kvtile eval's comparisons of rows. */
#include "tools/cli/eval/job.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int choose_scale(eval_job *chosen, const char *text)
{
    char *end;
    chosen->scale = strtod(text, &end);
    if (end == text || *end != '\0' || !(fabs(chosen->scale) >= 0x1p-20 && fabs(chosen->scale) <= 0x1p20)) {
        error_print(EVAL_WHO, text, "a number of magnitude 2^-20 to 2^20 would be right for --scale");
        return -1;
    }
    return 0;
}

size_t eval_take_numbers(uint64_t *numbers, size_t room, uint64_t most, const char *list)
{
    size_t n = 0;
    for (const char *at = list; at != NULL;) {
        char *end;
        errno = 0;
        const unsigned long long number = strtoull(at, &end, 10);
        if (!isdigit((unsigned char)*at) || (*end != '\0' && *end != ',') || errno != 0 || number < 1 || number > most || n == room)
            return 0;
        numbers[n++] = number;
        at = *end == ',' ? end + 1 : NULL;
    }
    return n;
}

static int choose_shape(rows_shape *to, const char *shape, const char *dtype)
{
    static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
    for (size_t i = 0; i < 3; i++)
        if (dtype == NULL || strcmp(dtype, rows_dtype_name(dtypes[i])) == 0) {
            to->dtype = dtypes[i];
            break;
        }
    if (to->dtype == 0) {
        error_print(EVAL_WHO, dtype, "f32, f16 or bf16 would be right for --dtype");
        return -1;
    }
    if (shape == NULL && dtype != NULL) {
        error_print(EVAL_WHO, "--dtype", "only inputs without a header need it, which --shape is for");
        return -1;
    }
    to->n_sizes = shape != NULL ? eval_take_numbers(to->sizes, 4, UINT32_MAX, shape) : 0;
    if (shape == NULL || to->n_sizes >= 2)
        return 0;
    error_print(EVAL_WHO, shape, "tokens,dim or heads,tokens,dim would be right for --shape");
    return -1;
}

static int choose_order(eval_job *chosen, const char *order)
{
    chosen->is_ordered = order != NULL;
    chosen->order = order != NULL && strcmp(order, "token,head,dim") == 0 ? ROWS_TOKEN_HEAD : ROWS_HEAD_TOKEN;
    if (order == NULL || chosen->order == ROWS_TOKEN_HEAD || strcmp(order, "head,token,dim") == 0)
        return 0;
    error_print(EVAL_WHO, order, "head,token,dim or token,head,dim would be right for --order");
    return -1;
}

/* A number above zero, and what stands behind it; 0, or -1 where it is none. */
static int take_positive(double *to, const char *text, const char **rest)
{
    char *end;
    errno = 0;
    *to = strtod(text, &end);
    *rest = end;
    return end == text || errno != 0 || !(*to > 0) || !isfinite(*to) ? -1 : 0;
}

static int choose_budget(eval_job *chosen, const char *budget, const char *max_kl)
{
    eval_budget_options *to = &chosen->of_budget;
    const char *rest;
    double value;
    if (budget != NULL && max_kl != NULL) {
        error_print(EVAL_WHO, "--max-kl", "is another limit than --budget: one of them would be right");
        return -1;
    }
    if (max_kl != NULL && (take_positive(&to->max_kl, max_kl, &rest) != 0 || *rest != '\0')) {
        error_print(EVAL_WHO, max_kl, "a number of nats above 0 would be right for --max-kl");
        return -1;
    }
    if (budget == NULL)
        return 0;
    const bool is_number = take_positive(&value, budget, &rest) == 0;
    if (is_number && *rest == '\0')
        to->bits = value;
    else if (is_number && strcmp(rest, "B") == 0)
        to->bytes = value;
    else if (is_number && strcmp(rest, "KiB") == 0)
        to->bytes = 1024 * value;
    else {
        error_print(EVAL_WHO, budget, "bits per element (4.75) or bytes per token (1200B, 3KiB) would be right for --budget");
        return -1;
    }
    return 0;
}

static int choose_side(eval_job *job, const char *side)
{
    job->auto_side = side == NULL || strcmp(side, "auto") == 0;
    if (!job->auto_side && strcmp(side, "k") != 0 && strcmp(side, "v") != 0) {
        error_print(EVAL_WHO, side, "k, v or auto would be right for --side");
        return -1;
    }
    job->side = !job->auto_side && strcmp(side, "v") == 0 ? KVT_V : KVT_K;
    return 0;
}

static int choose_tiers(eval_job *job, const char *tiers)
{
    const kvt_status status = tiers != NULL ? kvt_tiers_parse(tiers, &job->tiers) : KVT_OK;
    if (status != KVT_OK)
        error_print(EVAL_WHO, tiers, kvt_status_text(status));
    return status == KVT_OK ? 0 : -1;
}

/* Which comparison of rows it is. */
static int choose_comparison(eval_job *job)
{
    const bool budget = job->of_budget.bits > 0 || job->of_budget.bytes > 0 || job->of_budget.max_kl > 0;
    if (job->attention + job->latent + budget > 1) {
        error_print(EVAL_WHO, job->latent ? "--latent" : "--budget",
                    "is another comparison than --attention or --latent: one of them would be right");
        return -1;
    }
    job->comparison = job->attention ? &eval_of_attention : job->latent ? &eval_of_latents : budget ? &eval_of_budget : &eval_of_rows;
    return 0;
}

/* Options that only some comparisons have. */
static int refuse_others(const eval_job *job)
{
    char *const *texts = job->texts;
    if (job->comparison == &eval_of_rows && (texts[EVAL_QUERIES] != NULL || texts[EVAL_SCALE] != NULL)) {
        error_print(EVAL_WHO, texts[EVAL_QUERIES] != NULL ? "--queries" : "--scale",
                    "only --attention, --latent and --budget have queries and logits");
        return -1;
    }
    if (job->comparison != &eval_of_latents && (texts[EVAL_ROPE_DIM] != NULL || texts[EVAL_ROPE] != NULL || texts[EVAL_RANK] != NULL)) {
        error_print(EVAL_WHO,
                    texts[EVAL_ROPE_DIM] != NULL ? "--rope-dim"
                    : texts[EVAL_ROPE] != NULL   ? "--rope"
                                                 : "--rank",
                    "only --latent has latents");
        return -1;
    }
    return 0;
}

int eval_choose_job_pairs(eval_job *job, const eval_words *words)
{
    return eval_choose_pairs(&job->pairs, words, EVAL_WHO);
}

int eval_choose_own_ways(eval_job *job, const eval_words *words)
{
    if (eval_choose_ways(&job->ways, words, EVAL_WHO) != 0)
        return -1;
    for (size_t i = 0; i < job->ways.n; i++)
        if (job->ways.ways[i].peer != NULL) {
            error_print(EVAL_WHO, job->ways.ways[i].peer->name, "kvtile's own schemes would be right with --latent, --budget and --max-kl");
            return -1;
        }
    return 0;
}

int eval_job_choose(eval_job *job, const eval_words *words)
{
    char *const *texts = job->texts;
    if (choose_budget(job, texts[EVAL_BUDGET], texts[EVAL_MAX_KL]) != 0 || choose_side(job, texts[EVAL_SIDE]) != 0 ||
        choose_tiers(job, texts[EVAL_TIER]) != 0 || choose_comparison(job) != 0 || refuse_others(job) != 0)
        return -1;
    if (texts[EVAL_FROM] != NULL && eval_choose_count(&job->from, texts[EVAL_FROM], "--from", 0, EVAL_WHO) != 0)
        return -1;
    job->queries = 128;
    if (texts[EVAL_QUERIES] != NULL && eval_choose_count(&job->queries, texts[EVAL_QUERIES], "--queries", 1, EVAL_WHO) != 0)
        return -1;
    if (texts[EVAL_SCALE] != NULL && choose_scale(job, texts[EVAL_SCALE]) != 0)
        return -1;
    if (job->comparison->choose(job, words) != 0 ||
        eval_choose_end(&job->first, texts[EVAL_MODEL + EVAL_MODEL_FIRST], KVT_SCHEME_NONE, "--first", EVAL_WHO) != 0 ||
        eval_choose_end(&job->open, texts[EVAL_MODEL + EVAL_MODEL_OPEN], KVT_SCHEME_NONE, "--open", EVAL_WHO) != 0)
        return -1;
    return choose_shape(&job->shape, texts[EVAL_SHAPE], texts[EVAL_DTYPE]) != 0 ? -1 : choose_order(job, texts[EVAL_ORDER]);
}
