#ifndef KVT_ENGINE_DOT_H
#define KVT_ENGINE_DOT_H

#include <stddef.h>

/* Eight sums side by side: the compiler may use vectors without changing the order of any addition. */
static inline float dot(const float *a, const float *b, size_t n)
{
    float sums[8] = { 0 };
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (size_t lane = 0; lane < 8; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    }
    for (; i < n; i++)
        sums[0] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

#endif
