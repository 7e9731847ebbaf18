/* SPDX-License-Identifier: MIT */
/* Frequencies of RoPE, and rows that are turned by them. */
#include "kernels/api/cache.h"
#include "kernels/api/elementary.h"

#include <math.h>

#define PI 3.14159265358979323846

static bool is_positive(double x)
{
    return x >= 0x1p-60 && x <= 0x1p60;
}

/* base^(-2i / dim) */
static double plain(double base, uint32_t i, uint32_t dim)
{
    return kvt_exp(-(2.0 * i / dim) * kvt_log(base));
}

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

/* The pair, as a fraction, that turns `turns` times within the original length. */
static double pair_of_turns(const kvt_rope_parameters *p, double turns)
{
    return p->dim * kvt_log(p->original_length / (turns * 2 * PI)) / (2 * kvt_log(p->base));
}

/* Pairs that turn often keep their frequency, those that turn seldom get that of linear scaling, and between them it changes gradually. */
static double yarn(const kvt_rope_parameters *p, double frequency, uint32_t i)
{
    double low = pair_of_turns(p, p->beta_fast), high = pair_of_turns(p, p->beta_slow);
    if (!p->is_exact) {
        low = floor(low);
        high = ceil(high);
    }
    low = low < 0 ? 0 : low;
    high = high > p->dim - 1 ? p->dim - 1 : high;
    if (low == high)
        high += 0.001;
    const double stretched = clamp((i - low) / (high - low), 0, 1);
    return frequency / p->factor * stretched + frequency * (1 - stretched);
}

static double llama3(const kvt_rope_parameters *p, double frequency)
{
    const double turns = p->original_length * frequency / (2 * PI);
    if (turns < p->low_frequency)
        return frequency / p->factor;
    if (turns > p->high_frequency)
        return frequency;
    const double smooth = (turns - p->low_frequency) / (p->high_frequency - p->low_frequency);
    return (1 - smooth) * frequency / p->factor + smooth * frequency;
}

static double or_else(double x, double usual)
{
    return x == 0 ? usual : x;
}

static kvt_status check_parameters(kvt_rope_parameters *p)
{
    if (p->dim == 0 || p->dim % 2 || p->dim > KVT_MAX_DIM)
        return KVT_ERR_DIM;
    if ((unsigned)p->kind > KVT_ROPE_PROPORTIONAL)
        return KVT_ERR_OPTIONS;
    const bool has_length = p->kind == KVT_ROPE_YARN || p->kind == KVT_ROPE_LLAMA3;
    const bool has_factor = has_length || p->kind == KVT_ROPE_LINEAR || p->kind == KVT_ROPE_NTK;
    p->factor = has_factor ? p->factor : or_else(p->factor, 1);
    p->beta_fast = or_else(p->beta_fast, 32);
    p->beta_slow = or_else(p->beta_slow, 1);
    p->low_frequency = or_else(p->low_frequency, 1);
    p->high_frequency = or_else(p->high_frequency, 4);
    p->share = or_else(p->share, 1);
    if (!is_positive(p->base) || p->base == 1 || !is_positive(p->factor) || (has_length && !is_positive(p->original_length)) ||
        !is_positive(p->beta_fast) || !is_positive(p->beta_slow) || !is_positive(p->low_frequency) || !is_positive(p->high_frequency) ||
        p->low_frequency >= p->high_frequency || !(p->share > 0 && p->share <= 1) || (p->kind == KVT_ROPE_NTK && p->dim == 2))
        return KVT_ERR_NUMBER;
    if (p->kind == KVT_ROPE_LONGROPE && !p->factors)
        return KVT_ERR_NULL;
    for (uint32_t i = 0; p->kind == KVT_ROPE_LONGROPE && i < p->dim / 2; i++)
        if (!is_positive(p->factors[i]))
            return KVT_ERR_NUMBER;
    return KVT_OK;
}

kvt_status kvt_rope_fill(const kvt_rope_parameters *given, double *frequencies)
{
    if (!given || !frequencies)
        return KVT_ERR_NULL;
    kvt_rope_parameters p;
    kvt_status status = KVT_TAKE_STRUCT(kvt_rope_parameters, is_exact, &p, given);
    if (!status)
        status = check_parameters(&p);
    if (status)
        return status;
    const double exponent = p.dim / (p.dim - 2.0);
    const double base = p.kind == KVT_ROPE_NTK ? p.base * kvt_exp(exponent * kvt_log(p.factor)) : p.base;
    for (uint32_t i = 0; i < p.dim / 2; i++) {
        const double frequency = plain(base, i, p.dim);
        switch (p.kind) {
        case KVT_ROPE_PLAIN:
        case KVT_ROPE_NTK:
            frequencies[i] = frequency;
            break;
        case KVT_ROPE_LINEAR:
            frequencies[i] = frequency / p.factor;
            break;
        case KVT_ROPE_YARN:
            frequencies[i] = yarn(&p, frequency, i);
            break;
        case KVT_ROPE_LLAMA3:
            frequencies[i] = llama3(&p, frequency);
            break;
        case KVT_ROPE_LONGROPE:
            frequencies[i] = frequency / p.factors[i];
            break;
        case KVT_ROPE_PROPORTIONAL:
            frequencies[i] = i < (uint32_t)(p.share * p.dim / 2) ? frequency / p.factor : 0;
            break;
        }
    }
    return KVT_OK;
}

/* ---- turning ---- */

kvt_status kvt_rope_take(const kvt_rope *given, uint32_t dim, kvt_rope *rope)
{
    if (!given)
        return KVT_ERR_NULL;
    const kvt_status status = KVT_TAKE_STRUCT(kvt_rope, interleaved, rope, given);
    if (status)
        return status;
    const uint32_t most = dim ? dim : KVT_MAX_DIM;
    if (rope->pairs < 1 || rope->pairs > most / 2 || rope->first > most - 2 * rope->pairs || rope->interleaved > 1)
        return KVT_ERR_DIM;
    if (!rope->frequencies)
        return KVT_ERR_NULL;
    for (uint32_t i = 0; i < rope->pairs; i++)
        if (!(fabs(rope->frequencies[i]) <= 16))
            return KVT_ERR_NUMBER;
    return KVT_OK;
}

void kvt_rope_angles(const kvt_rope *rope, int64_t positions, float *cosines, float *sines)
{
    for (uint32_t i = 0; i < rope->pairs; i++) {
        const kvt_sine_cosine turned = kvt_sincos((double)positions * rope->frequencies[i]);
        sines[i] = (float)turned.sine;
        cosines[i] = (float)turned.cosine;
    }
}

/* What is tinier counts as nothing, so that it does not matter whether denormal numbers do. */
static float not_tiny(float x)
{
    return x > -0x1p-60f && x < 0x1p-60f ? 0 : x;
}

void kvt_rope_apply(const kvt_rope *rope, const float *cosines, const float *sines, float *rows, size_t n, ptrdiff_t stride)
{
    const size_t step = rope->interleaved ? 2 : 1, other = rope->interleaved ? 1 : rope->pairs;
    for (size_t t = 0; t < n; t++) {
        float *x = (float *)(void *)((uint8_t *)rows + (ptrdiff_t)t * stride) + rope->first;
        for (uint32_t i = 0; i < rope->pairs; i++, x += step) {
            const float a = not_tiny(x[0]), b = not_tiny(x[other]), c = cosines[i], s = sines[i];
            const float first = a * c - b * s, second = a * s + b * c;
            x[0] = s == 0 && c == 1 ? x[0] : not_tiny(first);
            x[other] = s == 0 && c == 1 ? x[other] : not_tiny(second);
        }
    }
}

kvt_status kvt_rope_turn(const kvt_rope *given, int64_t positions, float *rows, size_t n, ptrdiff_t stride)
{
    kvt_rope rope;
    const kvt_status status = kvt_rope_take(given, 0, &rope);
    if (status)
        return status;
    if (!rows)
        return KVT_ERR_NULL;
    float cosines[KVT_MAX_DIM / 2], sines[KVT_MAX_DIM / 2];
    kvt_rope_angles(&rope, positions, cosines, sines);
    kvt_rope_apply(&rope, cosines, sines, rows, n, stride);
    return KVT_OK;
}
