/* SPDX-License-Identifier: MIT */
/* The engine's loops beside plain ones: products to the bit, the rest beside double precision. */
#include "tests/lib/support.h"

#include "tools/engine/arithmetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static float number(void)
{
    static uint32_t state = 1;
    state = state * 1664525 + 1013904223;
    return (float)(state >> 8) / (1 << 23) - 1;
}

static float *numbers(size_t n)
{
    float *memory = test_malloc((n > 0 ? n : 1) * sizeof *memory);
    for (size_t i = 0; i < n; i++)
        memory[i] = number();
    return memory;
}

static float *scratch(size_t n)
{
    float *memory = aligned_alloc(64, (n * sizeof *memory + 63) / 64 * 64);
    TEST_REQUIRE(memory != NULL, "out of memory");
    return memory;
}

/* One sum of a vector product, in the order that is promised. */
static float plain_dot(const float *a, const float *b, size_t n)
{
    float sums[8] = { 0 };
    for (size_t i = 0; i < n; i++)
        sums[i < n / 8 * 8 ? i % 8 : 0] += a[i] * b[i];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

START_TEST(products)
{
    static const size_t sizes[][3] = { { 1, 1, 1 }, { 5, 7, 2 }, { 50, 64, 16 }, { 25, 8, 17 }, { 96, 100, 33 }, { 3, 1536, 5 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t rows = sizes[i][0], columns = sizes[i][1], n = sizes[i][2], stride = rows + 3;
        float *matrix = numbers(rows * columns), *in = numbers(n * columns), *out = numbers(n * stride);
        float *memory = scratch(arithmetic_product_scratch(columns, n));
        for (size_t batched = 0; batched < 2; batched++) {
            const arithmetic_product product = { out, stride, matrix, in, columns, n, batched ? memory : NULL };
            memset(out, 0, n * stride * sizeof *out);
            if (batched)
                arithmetic_prepare(&product);
            arithmetic_multiply(&product, 0, rows / 2);
            arithmetic_multiply(&product, rows / 2, rows);
            for (size_t t = 0; t < n; t++) {
                for (size_t r = 0; r < rows; r++)
                    ck_assert(out[t * stride + r] == plain_dot(matrix + r * columns, in + t * columns, columns));
                for (size_t r = rows; r < stride; r++)
                    ck_assert(out[t * stride + r] == 0);
            }
        }
        free(matrix);
        free(in);
        free(out);
        free(memory);
    }
}
END_TEST

/* Softmax attention of one query in double. */
static void attend_plainly(double *out, const arithmetic_attention *attention, size_t lane)
{
    double weights[300], sum = 0;
    const size_t dim = attention->head_dim;
    for (size_t t = attention->begin[lane]; t < attention->end[lane]; t++) {
        const float *row = (t < attention->kept_end[0][lane] ? attention->kept[0] : attention->open[0]) + t * dim;
        double logit = 0;
        for (size_t c = 0; c < dim; c++)
            logit += (double)row[c] * attention->queries[lane][c];
        weights[t] = exp(logit * (double)attention->scale);
        sum += weights[t];
    }
    memset(out, 0, dim * sizeof *out);
    for (size_t t = attention->begin[lane]; t < attention->end[lane]; t++) {
        const float *row = (t < attention->kept_end[1][lane] ? attention->kept[1] : attention->open[1]) + t * dim;
        for (size_t c = 0; c < dim; c++)
            out[c] += weights[t] / sum * (double)row[c];
    }
}

START_TEST(attention)
{
    enum { TOKENS = 300 };
    static const size_t dims[] = { 64, 20, 8 };
    for (size_t i = 0; i < 3; i++) {
        const size_t dim = dims[i], n = i == 0 ? ARITHMETIC_LANES : 5;
        float *rows[4], *queries = numbers(n * dim), out[ARITHMETIC_LANES * 64], alone[64];
        for (size_t j = 0; j < 4; j++)
            rows[j] = numbers(TOKENS * dim);
        arithmetic_attention all = { .n = n,
                                     .head_dim = dim,
                                     .scale = 1.5f,
                                     .kept = { rows[0], rows[1] },
                                     .open = { rows[2], rows[3] },
                                     .scratch = scratch(arithmetic_attention_scratch(TOKENS, dim)) };
        for (size_t lane = 0; lane < n; lane++) {
            all.queries[lane] = queries + lane * dim;
            all.out[lane] = out + lane * dim;
            all.begin[lane] = i == 1 ? 40 + lane : 0;
            all.end[lane] = TOKENS - 7 * lane;
            all.kept_end[0][lane] = i == 2 ? all.end[lane] : 64 * (lane % 3);
            all.kept_end[1][lane] = i == 2 ? 0 : 128 * (lane % 2) + 100;
        }
        arithmetic_attend(&all);
        for (size_t lane = 0; lane < n; lane++) {
            double expected[64];
            attend_plainly(expected, &all, lane);
            for (size_t c = 0; c < dim; c++)
                ck_assert_msg(fabs(expected[c] - (double)out[lane * dim + c]) < 2e-6, "lane %zu, channel %zu: %g, not %g", lane, c,
                              (double)out[lane * dim + c], expected[c]);
            /* To the bit what it is beside no others. */
            arithmetic_attention single = all;
            single.n = 1;
            single.queries[0] = all.queries[lane];
            single.out[0] = alone;
            single.begin[0] = all.begin[lane];
            single.end[0] = all.end[lane];
            single.kept_end[0][0] = all.kept_end[0][lane];
            single.kept_end[1][0] = all.kept_end[1][lane];
            arithmetic_attend(&single);
            ck_assert_mem_eq(alone, out + lane * dim, dim * sizeof *out);
        }
        for (size_t j = 0; j < 4; j++)
            free(rows[j]);
        free(queries);
        free(all.scratch);
    }
}
END_TEST

START_TEST(activations)
{
    enum { N = 1003 };
    float *gate = numbers(N), *up = numbers(N), *silu = test_malloc(N * sizeof *silu), *gelu = test_malloc(N * sizeof *gelu);
    for (size_t i = 0; i < N; i++)
        gate[i] *= i % 3 == 0 ? 1000 : 8;
    memcpy(silu, gate, N * sizeof *silu);
    memcpy(gelu, gate, N * sizeof *gelu);
    arithmetic_silu(silu, up, N);
    arithmetic_gelu(gelu, up, N);
    for (size_t i = 0; i < N; i++) {
        const double x = (double)gate[i], inner = sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x);
        const double expected[] = { x / (1 + exp(-x)) * (double)up[i], x / 2 * (1 + tanh(inner)) * (double)up[i] };
        ck_assert_msg(fabs((double)silu[i] - expected[0]) <= 1e-6 * fabs(expected[0]) + 1e-12, "silu of %g", x);
        ck_assert_msg(fabs((double)gelu[i] - expected[1]) <= 1e-6 * fabs(expected[1]) + 1e-12, "gelu of %g", x);
    }
    free(gate);
    free(up);
    free(silu);
    free(gelu);
}
END_TEST

START_TEST(divergence)
{
    enum { N = 1003 };
    float *logits = numbers(N), *other = numbers(N);
    for (size_t i = 0; i < N; i++) {
        logits[i] *= 20;
        other[i] = logits[i] + 0.01f * other[i];
    }
    double sums[2] = { 0, 0 }, expected = 0;
    for (size_t i = 0; i < N; i++) {
        sums[0] += exp((double)logits[i]);
        sums[1] += exp((double)other[i]);
    }
    for (size_t i = 0; i < N; i++)
        expected += exp((double)logits[i]) / sums[0] * ((double)logits[i] - log(sums[0]) - (double)other[i] + log(sums[1]));
    const double log_sum = log(arithmetic_exp_sum(logits, N, 20)) + 20, other_sum = log(arithmetic_exp_sum(other, N, 20)) + 20;
    ck_assert(fabs(log_sum - log(sums[0])) < 1e-13 && fabs(other_sum - log(sums[1])) < 1e-13);
    ck_assert(fabs(arithmetic_divergence(logits, other, N, log_sum, other_sum) - expected) < 1e-13);
    ck_assert(arithmetic_divergence(logits, logits, N, log_sum, log_sum) == 0);
    free(logits);
    free(other);
}
END_TEST

START_TEST(not_finite)
{
    float gate[9] = { 0, NAN, INFINITY, -INFINITY, 1, 1, 1, 1, NAN }, up[9] = { 1, 1, 1, 1, 1, 1, 1, 1, 1 };
    arithmetic_silu(gate, up, 9);
    ck_assert(gate[0] == 0 && isnan(gate[1]) && isinf(gate[2]) && isnan(gate[8]));
    ck_assert(isnan(arithmetic_exp_sum(gate, 9, 1)));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("arithmetic");
    TCase *cases = tcase_create("arithmetic");
    tcase_set_timeout(cases, 300);
    tcase_add_test(cases, products);
    tcase_add_test(cases, attention);
    tcase_add_test(cases, activations);
    tcase_add_test(cases, divergence);
    tcase_add_test(cases, not_finite);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
