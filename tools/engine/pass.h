/* SPDX-License-Identifier: MIT */
/* A whole text through a model, layer by layer: all its tokens are known, so rows of one layer are there at a time, and weights are read once for
 * many tokens. Gives the bits that forward_token gives with the reference's cache, whatever the number of threads. */
#ifndef KVT_ENGINE_PASS_H
#define KVT_ENGINE_PASS_H

#include "tools/engine/layer.h"

/* Keys (0) and values (1) of a layer, [kv head][room][head_dim], as an engine's cache would have them. A query sees the rows that were kept by its
 * time, and of the tokens behind them the open ones. */
typedef struct pass_rows {
    const checkpoint *model;
    size_t room, n;
    float *open[2];        /* as the model makes them, or what is changed of them */
    float *kept[2];        /* nothing, unless a pass_cache writes it */
    uint32_t *kept_end[2]; /* [room]: for the query at each position, the first token that is still open; 0 at first */
} pass_rows;

/* What a cache does to the rows. */
typedef struct pass_cache {
    /* Of one KV head's keys or values, before anything is attended to. By several threads at once, each another head or side. NULL: nothing */
    void (*store)(void *owner, const pass_rows *rows, size_t layer, size_t side, size_t head);
    /* When the layer is done. NULL: nothing */
    void (*done)(void *owner, const pass_rows *rows, size_t layer);
    void *owner;
} pass_cache;

typedef struct pass_state pass_state;

/* Room for a text of `room` tokens. Model and threads must outlive it. 0, or -1 with the error; the caller closes what was opened. */
int pass_open(pass_state **state, const checkpoint *model, size_t room, pool *threads, error_text *error);
void pass_close(pass_state *state);

/* Bytes that it takes. */
double pass_bytes(const checkpoint *model, size_t room, unsigned threads);

/* Runs n tokens, at most the room. last: [n][dim], rows of the last norm: of what layer_predict makes logits. `cache` may be NULL. */
void pass_run(pass_state *state, const uint32_t *tokens, size_t n, const pass_cache *cache, float *last);

#endif
