/* SPDX-License-Identifier: MIT */
/* Intervals of kvtile eval --model: against numbers worked out by hand or by definition, and against how often they hold the truth. */
#include "tests/lib/support.h"

#include "tools/program/statistics.h"

#include <math.h>
#include <stdint.h>

/* A table's numbers. */
START_TEST(student)
{
    static const struct {
        size_t degrees;
        double t, tolerance;
    } rows[] = {
        { 1, 12.7062, 1e-4 }, { 2, 4.30265, 1e-5 }, { 3, 3.18245, 0.02 }, { 5, 2.57058, 2e-3 }, { 10, 2.22814, 1e-4 }, { 127, 1.97882, 1e-5 }
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        ck_assert_double_eq_tol(statistics_student(rows[i].degrees), rows[i].t, rows[i].tolerance);
}
END_TEST

START_TEST(mean_by_hand)
{
    /* Windows of 5, blocks of 3: {1 2 3} {4 5} | {6 7 8} {9}. The mean is 5, deviations of blocks are -9 -1 6 4, their squares add up to 134;
     * the variance of the mean is 4/3 * 134 / 81. */
    static const double x[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    const statistics_interval interval = statistics_mean(x, 9, (statistics_blocks){ 5, 3 });
    ck_assert_double_eq_tol(interval.mean, 5, 1e-12);
    ck_assert_double_eq_tol(interval.high - 5, statistics_student(3) * sqrt(4.0 / 3 * 134 / 81), 1e-12);
    ck_assert_double_eq_tol(5 - interval.low, interval.high - 5, 1e-12);
    /* One block says nothing of how blocks scatter. */
    const statistics_interval alone = statistics_mean(x, 3, (statistics_blocks){ 5, 3 });
    ck_assert_double_eq(alone.mean, 2);
    ck_assert(isnan(alone.low) && isnan(alone.high));
}
END_TEST

/* Each number is 0.9 of the one before and something new: 95 % of the intervals should hold the mean, 0, and with blocks that are long
 * enough they nearly do; as if all were independent it is less than half of them. */
START_TEST(neighbours_resemble_each_other)
{
    enum { ROUNDS = 400 / KVT_TEST_SHARE, N = 4096 };
    static double x[N];
    uint64_t random = 3;
    size_t held = 0, held_alone = 0;
    for (size_t round = 0; round < ROUNDS; round++) {
        double state = 0;
        for (size_t i = 0; i < N + 100; i++) {
            state = 0.9 * state + test_uniform(&random) + test_uniform(&random) - 1;
            if (i >= 100)
                x[i - 100] = state;
        }
        const statistics_interval blocks = statistics_mean(x, N, (statistics_blocks){ 1024, 64 });
        const statistics_interval alone = statistics_mean(x, N, (statistics_blocks){ 1024, 1 });
        held += blocks.low <= 0 && blocks.high >= 0;
        held_alone += alone.low <= 0 && alone.high >= 0;
    }
    ck_assert_uint_ge(held * 100, 85 * (size_t)ROUNDS);
    ck_assert_uint_le(held_alone * 2, ROUNDS);
}
END_TEST

START_TEST(rates)
{
    static double x[1000];
    uint64_t random = 1;
    /* All alike: the interval ends there, and does not begin there. Wilson, n = 1000, t of 15 degrees of freedom: 1 / (1 + t * t / n). */
    for (size_t i = 0; i < 1000; i++)
        x[i] = 1;
    statistics_interval interval = statistics_rate(x, 1000, (statistics_blocks){ 1024, 64 });
    const double t = statistics_student(15);
    ck_assert_double_eq(interval.mean, 1);
    ck_assert_double_eq_tol(interval.high, 1, 1e-12);
    ck_assert_double_eq_tol(interval.low, 1 / (1 + t * t / 1000), 1e-12);
    /* Independent: about Wilson's own width, never less. */
    for (size_t i = 0; i < 1000; i++)
        x[i] = test_uniform(&random) < 0.9 ? 1 : 0;
    interval = statistics_rate(x, 1000, (statistics_blocks){ 1024, 64 });
    ck_assert(interval.low < 0.9 && interval.high > 0.9);
    ck_assert_double_ge(interval.high - interval.low, 0.035);
    ck_assert_double_le(interval.high - interval.low, 0.06);
    /* In runs of 50: as wide as 20 numbers leave it. */
    for (size_t i = 0; i < 1000; i++)
        x[i] = i / 50 % 5 == 0 ? 0 : 1;
    interval = statistics_rate(x, 1000, (statistics_blocks){ 1000, 50 });
    ck_assert_double_ge(interval.high - interval.low, 0.3);
    ck_assert(interval.low > 0 && interval.high < 1);
}
END_TEST

START_TEST(quantiles)
{
    double x[] = { 5, 1, 4, 2, 3 };
    ck_assert_double_eq(statistics_quantile(x, 5, 0.5), 3);
    ck_assert_double_eq(statistics_quantile(x, 5, 0.999), 5);
    ck_assert_double_eq(statistics_quantile(x, 5, 0), 1);
    ck_assert_double_eq(statistics_quantile(x, 5, 1), 5);
    ck_assert_double_eq(statistics_quantile(x, 5, 0.2), 1);
    ck_assert_double_eq(statistics_quantile(x, 5, 0.21), 2);
    ck_assert_double_eq(statistics_median(x, 5), 3);
    ck_assert_double_eq(statistics_median(x, 4), 2.5); /* in order by then */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("statistics");
    TCase *tcase = tcase_create("statistics");
    tcase_add_test(tcase, student);
    tcase_add_test(tcase, mean_by_hand);
    tcase_add_test(tcase, neighbours_resemble_each_other);
    tcase_add_test(tcase, rates);
    tcase_add_test(tcase, quantiles);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
