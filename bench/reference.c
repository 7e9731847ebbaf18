/* SPDX-License-Identifier: MIT */
#include "bench/reference.h"

#include <kvtile/attend.h>

#include <math.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define WITH_F16 __attribute__((target("avx2,fma,f16c")))
enum { LANES = 8 };
typedef __m256 lanes;
WITH_F16 static inline lanes widen_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
#define load(p)           _mm256_loadu_ps(p)
#define store(p, x)       _mm256_storeu_ps(p, x)
#define everywhere(x)     _mm256_set1_ps(x)
#define multiply(a, b, c) _mm256_fmadd_ps(a, b, c)
#elif defined(__aarch64__)
#include <arm_neon.h>
#define WITH_F16
enum { LANES = 4 };
typedef float32x4_t lanes;
static inline lanes widen_f16(const uint16_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
#define load(p)           vld1q_f32(p)
#define store(p, x)       vst1q_f32(p, x)
#define everywhere(x)     vdupq_n_f32(x)
#define multiply(a, b, c) vfmaq_f32(c, a, b)
#endif

bool reference_exists(void)
{
#if defined(__x86_64__)
    uint32_t tiers;
    return kvt_tiers_parse("avx2", &tiers) == KVT_OK; /* needs the same */
#else
    return true;
#endif
}

WITH_F16 static inline float dot_f16(const uint16_t *row, const float *x, size_t dim)
{
    float sums[2 * LANES];
    lanes even = everywhere(0), odd = everywhere(0);
    for (size_t i = 0; i < dim; i += 2 * LANES) {
        even = multiply(widen_f16(row + i), load(x + i), even);
        odd = multiply(widen_f16(row + i + LANES), load(x + i + LANES), odd);
    }
    store(sums, even);
    store(sums + LANES, odd);
    float sum = 0;
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        sum += sums[i];
    return sum;
}

WITH_F16 static inline void add_row(const uint16_t *row, float weight, float *sum, size_t dim)
{
    for (size_t i = 0; i < dim; i += LANES)
        store(sum + i, multiply(widen_f16(row + i), everywhere(weight), load(sum + i)));
}

/* Returns one over the sum of what stands there afterwards. */
static float softmax_unscaled(float *x, size_t n)
{
    float largest = x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - largest);
        sum += x[i];
    }
    return 1 / sum;
}

/* All queries of the KV head for each row, so that a row comes from memory once. */
WITH_F16 void reference_attend(const uint16_t *keys, const uint16_t *values, size_t tokens, size_t dim, const float *query_rows, size_t queries,
                               float scale, float *logits, float *out)
{
    for (size_t t = 0; t < tokens; t++)
        for (size_t q = 0; q < queries; q++)
            logits[q * tokens + t] = scale * dot_f16(keys + t * dim, query_rows + q * dim, dim);
    memset(out, 0, queries * dim * sizeof *out);
    float factor[KVT_MAX_GROUP];
    for (size_t q = 0; q < queries; q++)
        factor[q] = softmax_unscaled(logits + q * tokens, tokens);
    for (size_t t = 0; t < tokens; t++)
        for (size_t q = 0; q < queries; q++)
            add_row(values + t * dim, factor[q] * logits[q * tokens + t], out + q * dim, dim);
}
