/* SPDX-License-Identifier: MIT */
#ifndef KVT_ENGINE_SAMPLE_H
#define KVT_ENGINE_SAMPLE_H

#include <stdint.h>

/* The next token of n. At temperature 0 the likeliest, the first among equals; otherwise drawn, with logits divided by the temperature. *random
 * is the state of the random numbers, any number to begin with. */
uint32_t sample_token(const float *logits, uint32_t n, double temperature, uint64_t *random);

#endif
