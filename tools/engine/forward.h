/* One token through the model: RMSNorm, rotary attention over a plain f32 cache, SwiGLU. */
#ifndef KVT_ENGINE_FORWARD_H
#define KVT_ENGINE_FORWARD_H

#include "tools/engine/checkpoint.h"

typedef struct forward_state {
    const checkpoint *model;
    size_t room; /* tokens that the caches hold */
    float *keys; /* [layer][kv head][room][head_dim], after RoPE */
    float *values;
    float *memory;                                    /* all that follow */
    float *x, *normed, *query, *attended, *projected; /* [dim] */
    float *gate, *up;                                 /* [ffn] */
    float *scores;                                    /* [room] */
    float *logits;                                    /* [vocabulary] */
} forward_state;

/* Room for `tokens` tokens, at most the model's context. The model must outlive the state. 0, or -1 with the error. */
int forward_open(forward_state *state, const checkpoint *model, size_t tokens, error_text *error);
void forward_close(forward_state *state);

/* Runs `token` (below the vocabulary) at `position` (below the room; all before it have been run) and returns the logits of the next one. */
const float *forward_token(forward_state *state, uint32_t token, size_t position);

/* The probability's negative natural logarithm of `token`. */
double forward_surprise(const forward_state *state, uint32_t token);

#endif
