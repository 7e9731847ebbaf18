/* SPDX-License-Identifier: MIT */
/* One token through the model, with attention over the KV cache. Results do not depend on the number of threads. */
#ifndef KVT_ENGINE_FORWARD_H
#define KVT_ENGINE_FORWARD_H

#include "tools/engine/cache.h"
#include "tools/engine/layer.h"

enum { CAPTURED_KEYS, CAPTURED_VALUES, CAPTURED_QUERIES, N_CAPTURED };

typedef struct forward_state {
    const checkpoint *model;
    pool *threads;
    kv_cache cache;
    float *captured[N_CAPTURED]; /* NULL, or [layer][head][room][head_dim] */
    layer_rows rows;
    float *logits; /* [vocabulary] */
    size_t kept;   /* first tokens that stay when the room is full: a multiple of 64 */
} forward_state;

/* Room for `tokens` tokens, at most the model's context, in each of `sequences` sequences (cache_open). The model and the threads must outlive the
 * state. 0, or -1 with the error. */
int forward_open(forward_state *state, const checkpoint *model, const cache_way *way, size_t tokens, uint32_t sequences, pool *threads,
                 error_text *error);
void forward_close(forward_state *state);

/* From now on, rows are captured as the cache gets them, and queries as attention does: after RoPE. 0, or -1 with the error. */
int forward_capture(forward_state *state, error_text *error);

/* Runs `token` (below the vocabulary) at `position` (below the room; all before it have been run) and returns the logits of the next one. */
const float *forward_token(forward_state *state, uint32_t token, size_t position);

/* The same for the next token, whatever its position: where the room is full, half of the tokens behind the first `kept` go before, in whole pages,
 * and the others move up (cache_remove). That takes FORWARD_LEAST_ROOM tokens behind those. Not of the reference. */
enum { FORWARD_LEAST_ROOM = 128 };
const float *forward_next(forward_state *state, uint32_t token);

/* The probability's negative natural logarithm of `token`. */
double forward_surprise(const forward_state *state, uint32_t token);

#endif
