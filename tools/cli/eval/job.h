/* SPDX-License-Identifier: MIT */
/* What is asked of kvtile eval, and its five ways of comparing, a file each: compare_*.c. */
#ifndef KVT_EVAL_JOB_H
#define KVT_EVAL_JOB_H

#include "tools/cli/eval/budget.h"
#include "tools/cli/eval/model.h"
#include "tools/rows/kind.h"

#define EVAL_WHO "kvtile eval"

/* Options that have a text, in the order of their rows in the table of command.c. From the side to the budget they are about rows, then about models.
 */
enum {
    EVAL_SCHEMES,
    EVAL_ROTATION,
    EVAL_CENTRING,
    EVAL_EFFORT,
    EVAL_FP8_BLOCK,
    EVAL_FP8_SCALE,
    EVAL_REPORT,
    EVAL_SIDE,
    EVAL_TIER,
    EVAL_FROM,
    EVAL_QUERIES,
    EVAL_SCALE,
    EVAL_ROPE_DIM,
    EVAL_ROPE,
    EVAL_RANK,
    EVAL_SHAPE,
    EVAL_ORDER,
    EVAL_DTYPE,
    EVAL_BUDGET,
    EVAL_MAX_KL,
    EVAL_MODEL,
    EVAL_TEXTS = EVAL_MODEL + EVAL_MODEL_TEXTS
};

typedef struct eval_job eval_job;

/* One way of comparing. */
typedef struct eval_comparison {
    const char *option; /* that asks for it, in messages; NULL: none does */
    const char *page;   /* what a page is told that it shows; NULL: it has none */
    /* Its own options; 0, or -1 after a message. */
    int (*choose)(eval_job *job, const eval_words *words);
    /* Compares, and prints; the exit code. */
    int (*run)(const eval_job *job, const char **paths);
    /* Of those that run over layers, what eval_layers_run does with them; NULL: none. -1 with the error, and what it is about. */
    int (*of_layers)(const eval_job *job, const eval_layer *layers, size_t n, progress *shown, json_t *array, const char **about, error_text *error);
    bool may_lack_values; /* layers of keys alone are something too */
} eval_comparison;

extern const eval_comparison eval_of_rows, eval_of_attention, eval_of_latents, eval_of_budget, eval_of_models;

struct eval_job {
    const eval_comparison *comparison;
    char *const *texts; /* of the options, or NULL */
    bool attention, latent, bos, by_layer;
    eval_ways ways;
    eval_pairs pairs; /* of attention and models, instead of ways */
    kvt_scheme first, open;
    eval_budget_options of_budget; /* all limits zero: no budget */
    eval_latent_options of_latents;
    bool auto_side;
    kvt_side side;
    uint32_t tiers;
    size_t from;
    size_t queries;
    double scale;     /* 0: of the head_dim */
    rows_shape shape; /* of inputs; no sizes: they say it themselves */
    rows_order order;
    bool is_ordered; /* by an option */
    bool speed;
    bool mean;
    eval_output output;
    bool table;         /* on stdout */
    const char *report; /* where a page goes, or NULL */
    json_t *page;       /* what it shows, or NULL */
};

/* ---- options.c ---- */

/* Which comparison it is, and all options of it; 0, or -1 after a message. */
int eval_job_choose(eval_job *job, const eval_words *words);

/* At most `room` whole numbers from 1 to `most`, separated by commas. How many, or 0. */
size_t eval_take_numbers(uint64_t *numbers, size_t room, uint64_t most, const char *list);

int eval_choose_job_pairs(eval_job *job, const eval_words *words);

/* Ways of kvtile's own schemes alone. */
int eval_choose_own_ways(eval_job *job, const eval_words *words);

/* ---- inputs.c ---- */

/* What a tensor of a file holds, by its name or else the file's; keys where neither says it. */
rows_kind eval_kind_of(const char *path, const rows_tensor *tensor);
const char *eval_kind_name(rows_kind kind);

/* The path, and where a file has several tensors, the name of this one. NULL: no memory; the caller frees it. */
char *eval_input_name(const char *path, const rows_file *file, const rows_tensor *tensor);

int eval_input_open(rows_file *file, const char *path, const eval_job *job, error_text *error);

/* The results of a page; NULL: there is none. */
json_t *eval_page_results(const eval_job *job);

/* ---- layers.c ---- */

/* Makes layers of the inputs, and compares them as the job's comparison does. The exit code. */
int eval_layers_run(const eval_job *job, const char **paths);

/* ---- help.c ---- */

void eval_print_help(bool all);

#endif
