/* SPDX-License-Identifier: MIT */
/* What a layer does to the rows of some tokens, but for attention itself: RMSNorm, products, RoPE, the feed-forward part. */
#ifndef KVT_ENGINE_LAYER_H
#define KVT_ENGINE_LAYER_H

#include "tools/engine/checkpoint.h"
#include "tools/pool/pool.h"

/* Rows of n tokens at positions that follow each other. Those of the last of these, n - 1, are behind each other: [n][width]. */
typedef struct layer_rows {
    const checkpoint *model;
    pool *threads;                 /* that share the products of one token; NULL: one thread does all */
    size_t room, n;                /* tokens there is memory for, and tokens */
    float *memory;                 /* all that follow */
    float *x, *normed, *projected; /* [n][dim]; x goes from layer to layer */
    float *query, *attended;       /* [n][q_dim] */
    float *key, *value;            /* [n][kv_dim] */
    float *gate, *up;              /* [n][ffn] */
    float *cosines, *sines;        /* [n][2][head_dim / 2]: by layer_rope */
    float *scratch;                /* of products of several tokens; NULL where there is room for one alone */
} layer_rows;

/* 0, or -1: no memory. */
int layer_open(layer_rows *rows, const checkpoint *model, size_t room, pool *threads);
void layer_close(layer_rows *rows);

/* Cosines and sines of n positions, [n][2][head_dim / 2]. */
void layer_set_angles(const checkpoint *model, size_t first, size_t n, float *cosines, float *sines);

/* Tokens into x; how many they are, and their angles, have been set. */
void layer_embed(layer_rows *rows, const uint32_t *tokens);

/* x into queries, keys and values, after RoPE. */
void layer_project(layer_rows *rows, size_t layer);

/* What attention gave into x, and the feed-forward part. */
void layer_finish(layer_rows *rows, size_t layer);

/* The last norm of x into `normed`, and of such rows, [n][dim], the logits of what comes next, [n][vocabulary]. */
void layer_norm_last(layer_rows *rows);
void layer_predict(layer_rows *rows, const float *normed, size_t n, float *logits);

/* Of logits. */
float layer_attention_scale(const checkpoint *model);

/* The first position that a query at `position` sees. */
size_t layer_begin(const checkpoint *model, size_t layer, size_t position);

#endif
