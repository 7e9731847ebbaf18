/* SPDX-License-Identifier: MIT */
#include "tools/engine/sample.h"

#include <math.h>

/* SplitMix64; 0 to 1, without 1. */
static double draw(uint64_t *random)
{
    uint64_t z = *random += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

uint32_t sample_token(const float *logits, uint32_t n, double temperature, uint64_t *random)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = logits[i] > logits[best] ? i : best;
    if (temperature == 0)
        return best;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(((double)logits[i] - logits[best]) / temperature);
    double left = draw(random) * sum;
    for (uint32_t i = 0; i < n; i++) {
        left -= exp(((double)logits[i] - logits[best]) / temperature);
        if (left < 0)
            return i;
    }
    return best; /* rounding left something over */
}
