/* A stress that leaves the function as it is: outlier channels in keys and values, as large models have them and small ones do not. */
#ifndef KVT_ENGINE_STRESS_H
#define KVT_ENGINE_STRESS_H

#include "tools/engine/cache.h"

/* Multiplies, of each layer and KV head, the 4 pairs of key channels and the 4 value channels that have most energy in the `tokens` first rows of
 * `cache` (a reference) by 8, by way of the weights, and divides what they meet by 8. Every product is what it was, to the bit. 0, or -1 with the
 * error. */
int stress_outliers(checkpoint *model, const kv_cache *cache, size_t tokens, error_text *error);

#endif
