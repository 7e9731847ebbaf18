/* SPDX-License-Identifier: MIT */
/* kvtile size: one model in detail, tables of many, plots. */
#ifndef KVT_KVTILE_SIZE_H
#define KVT_KVTILE_SIZE_H

#include <kvtile/model.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "tools/files/error.h"
#include "tools/model/shard.h"

#define SIZE_MAX_LIST 32 /* schemes, contexts */

/* Everything that was asked. */
typedef struct size_question {
    const kvt_model **models;
    const char **notes;        /* for each model, "" when all of it was understood */
    const bool *unknown_types; /* of each model: nobody has looked at its type */
    uint64_t *model_weights;   /* bytes of each model's weights, with --with-weights; else 0 */
    const kvt_model *draft;    /* a model that drafts beside each; NULL: none */
    uint64_t draft_weights;
    uint32_t ranks;             /* of tensor parallelism: models are those of one rank; 1: whole */
    uint32_t n_stages;          /* of a pipeline; 1: whole */
    const model_stage **stages; /* of each model, when there are several: of one rank, as models are */
    bool explain;
    size_t n_models;
    kvt_size_request request; /* but for the types and the context */
    const char *k_types[SIZE_MAX_LIST];
    const char *v_types[SIZE_MAX_LIST];
    size_t n_types;
    uint64_t contexts[SIZE_MAX_LIST];
    size_t n_contexts;
    bool budget_given;
    uint64_t budget;  /* bytes of memory in all; without a budget: what tables compare with */
    uint64_t weights; /* of it, that are not for the cache */
    uint64_t reserve;
} size_question;

/* One answer: a model in one type at one context. */
typedef struct size_answer {
    const kvt_model *model;    /* with several stages: what the largest one holds */
    const model_stage *stages; /* NULL: there is one */
    uint32_t n_stages, largest;
    const char *notes;
    kvt_size_request request;
    kvt_size_report report;
    kvt_group_size *groups; /* of each group of the model */
    const kvt_model *draft; /* NULL: none */
    uint64_t draft_bytes;   /* its cache at the same context */
    uint64_t total;         /* of both */
    bool unknown_type;
} size_answer;

/* Bytes of the budget that are left for the cache; 0 when the weights and the reserve take it all. `model`: of that one, or SIZE_NO_MODEL: of one
 * whose weights are not counted. */
#define SIZE_NO_MODEL SIZE_MAX
uint64_t size_cache_budget(const size_question *question, size_t model);

/* 0, or an exit code after a message. The functions below return the same. */
int size_answer_make(const size_question *question, size_t model, size_t type, uint64_t context, size_answer *answer);
void size_answer_free(size_answer *answer);

/* The largest context and number of sequences within the budget; 0 when not even the smallest fits. */
int size_longest_context(const size_answer *answer, uint64_t budget, uint64_t *context);
int size_most_sequences(const size_answer *answer, uint64_t budget, uint64_t *sequences);

#define SIZE_ENGINE_NOTE 220

/* A sentence when it is not known what the engine does with models of this type, else "": written to `text`, which is returned. */
const char *size_engine_note(kvt_engine engine, const kvt_model *model, char text[SIZE_ENGINE_NOTE]);

int size_print_model(const size_question *question);
int size_print_table(const size_question *question);
int size_print_json(const size_question *question);

/* Memory against context, one line for each model and type, drawn by gnuplot. */
int size_plot(const size_question *question, const char *path);

/* ---- numbers for people: static storage is in the result. */

typedef struct number {
    char text[48];
} number;

number number_grouped(uint64_t value);               /* 1234567 -> 1,234,567 */
number number_binary(uint64_t bytes);                /* 1.18 MiB */
number number_growth(const kvt_size_report *report); /* bytes of a further token, with two digits where they are not whole */

/* Prints "kvtile size: argument: ..." */
ERROR_FORMAT(2, 3) void size_say(const char *argument, const char *format, ...);

#endif
