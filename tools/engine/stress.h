/* SPDX-License-Identifier: MIT */
/* A stress that leaves the function as it is: outlier channels in keys and values, as large models have them and small ones do not. */
#ifndef KVT_ENGINE_STRESS_H
#define KVT_ENGINE_STRESS_H

#include "tools/engine/checkpoint.h"

/* Multiplies, of each KV head of a layer, the 4 pairs of key channels and the 4 value channels that have most energy in the `tokens` first rows of
 * `keys` and `values`, [kv head][room][head_dim], by 8, by way of the weights, and divides what they meet by 8. Every product is what it was, to the
 * bit. 0, or -1 with the error. */
int stress_outliers(checkpoint *model, size_t layer, const float *keys, const float *values, size_t room, size_t tokens, error_text *error);

#endif
