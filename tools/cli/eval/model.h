/* SPDX-License-Identifier: MIT */
/* kvtile eval --model: what storing the KV cache in each way costs a whole model. The model runs over a text in windows, once with an exact cache and
 * once per way; next-token distributions are compared. */
#ifndef KVT_EVAL_MODEL_H
#define KVT_EVAL_MODEL_H

#include "tools/cli/eval/eval.h"
#include "tools/engine/run.h"
#include "tools/program/statistics.h"

enum { EVAL_MODEL_BINS = 32, EVAL_MODEL_BLOCK = 64 /* tokens that count as one when intervals are made */ };

typedef struct eval_model_options {
    run_source source; /* its text begins with no BOS: windows do */
    bool bos;
    size_t tokens;    /* of the text; 0: all */
    size_t context;   /* tokens of a window; 0: of the model */
    kvt_scheme first; /* of the first page, in every way; KVT_SCHEME_NONE: as the others */
    kvt_scheme open;  /* of the page that is not full yet; KVT_SCHEME_NONE: as the others */
    bool by_layer;
    bool outliers; /* --stress outliers */
} eval_model_options;

/* Of a part of what is stored, or predicted. */
typedef struct eval_model_part {
    size_t lost; /* predictions */
    double kld;  /* mean; NAN where some were lost */
} eval_model_part;

/* One way. */
typedef struct eval_model_result {
    eval_pair way;
    double bits;     /* of an element, in a page of keys and values */
    double all_told; /* the same of all pages at the end of a window */
    size_t lost;     /* predictions from rows, or of numbers, that are not finite: where it is not zero, all that follow are NAN */
    double perplexity;
    statistics_interval log_ratio; /* of its perplexity to that of the exact cache */
    statistics_interval kld;       /* nats */
    double kld_p99, kld_p999;      /* that 99 %, and 99.9 %, of the tokens do not exceed */
    double kld_max;
    statistics_interval same_top;
    eval_model_part by_position[EVAL_MODEL_BINS];
    eval_model_part *by_layer; /* [layer][keys, values]; NULL: not measured */
} eval_model_result;

typedef struct eval_model_report {
    const eval_model_options *options;
    uint32_t layers;
    size_t context;   /* tokens of the longest window */
    size_t predicted; /* tokens */
    size_t windows, bins;
    double perplexity; /* with the exact cache */
    size_t n;
    eval_model_result *results; /* the most bits first, of equal ones the least divergent */
} eval_model_report;

/* 0, or -1 with the error and what it is about. eval_model_free is due in any case. */
int eval_model(eval_model_report *report, const eval_pairs *pairs, const eval_model_options *options, const char **about, error_text *error);
void eval_model_free(eval_model_report *report);

/* The first position of a bin of `by_position`; that of bin `report->bins` is the end. */
size_t eval_model_bin(const eval_model_report *report, size_t bin);

/* A table on stdout, or objects that are appended. */
void eval_model_print(const eval_model_report *report);
void eval_model_append(const eval_model_report *report, json_t *array);

/* The texts of the options that are about models, in this order, NULL where not given. */
enum {
    EVAL_MODEL_MODEL,
    EVAL_MODEL_TOKENIZER,
    EVAL_MODEL_TEXT,
    EVAL_MODEL_TOKENS,
    EVAL_MODEL_CONTEXT,
    EVAL_MODEL_FIRST,
    EVAL_MODEL_OPEN,
    EVAL_MODEL_STRESS,
    EVAL_MODEL_THREADS,
    EVAL_MODEL_TEXTS
};

#endif
