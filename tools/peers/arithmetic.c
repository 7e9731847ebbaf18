/* SPDX-License-Identifier: MIT */
#include "tools/peers/arithmetic.h"

#include <math.h>

float peer_round(float x, int mantissa_bits, int least)
{
    if (x == 0 || !isfinite(x))
        return x;
    const int exponent = ilogbf(x) > least ? ilogbf(x) : least;
    const float step = ldexpf(1, exponent - mantissa_bits);
    return rintf(x / step) * step;
}

float peer_round_f16(float x)
{
    const float rounded = peer_round(x, 10, -14);
    return fabsf(rounded) > 65504 ? copysignf(65504, x) : rounded;
}

uint32_t peer_block(uint32_t dim, uint32_t most)
{
    uint32_t block = 1;
    while (block < most && dim % (2 * block) == 0)
        block *= 2;
    return block;
}

void peer_hadamard(float *row, uint32_t dim, uint32_t block)
{
    const float scale = 1 / sqrtf((float)block);
    for (uint32_t first = 0; first < dim; first += block) {
        float *x = row + first;
        for (uint32_t apart = 1; apart < block; apart *= 2)
            for (uint32_t i = 0; i < block; i++)
                if ((i & apart) == 0) {
                    const float a = x[i], b = x[i + apart];
                    x[i] = a + b;
                    x[i + apart] = a - b;
                }
        for (uint32_t i = 0; i < block; i++)
            x[i] *= scale;
    }
}

void peer_asymmetric(float *x, size_t n, size_t stride, uint32_t bits)
{
    float least = x[0], most = x[0], sum = 0;
    for (size_t i = 0; i < n; i++) {
        least = fminf(least, x[i * stride]);
        most = fmaxf(most, x[i * stride]);
        sum += x[i * stride] - x[i * stride]; /* NaN, or 0 */
    }
    const float codes = (float)((1U << bits) - 1), zero = peer_round_f16(least), scale = peer_round_f16((most - least) / codes);
    for (size_t i = 0; i < n; i++) {
        const float code = scale > 0 ? fminf(fmaxf(rintf((x[i * stride] - zero) / scale), 0), codes) : 0;
        x[i * stride] = isnan(sum) ? NAN : zero + code * scale;
    }
}
