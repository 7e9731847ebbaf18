/* SPDX-License-Identifier: MIT */
#include "tools/program/statistics.h"

#include <math.h>
#include <stdlib.h>

static const double NORMAL = 1.959963984540054;

double statistics_student(size_t degrees)
{
    if (degrees == 1)
        return 12.706204736432095;
    if (degrees == 2)
        return 4.302652729911275;
    /* Cornish and Fisher's expansion in 1 / degrees: 1 % too small for 3, exact to 4 digits from 10 on. */
    const double z = NORMAL, z2 = z * z, n = (double)degrees;
    const double first = z * (z2 + 1) / 4;
    const double second = z * ((5 * z2 + 16) * z2 + 3) / 96;
    const double third = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384;
    const double fourth = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
    return z + (first + (second + (third + fourth / n) / n) / n) / n;
}

/* The mean, how many blocks there are, and the variance of the mean: that of a ratio of sums over blocks, which need not be equally long. */
static double mean_of(const double *x, size_t n, statistics_blocks blocks, size_t *n_blocks, double *variance)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    const double mean = sum / (double)n;
    *n_blocks = 0;
    for (size_t first = 0; first < n;) {
        const size_t window_end = (first / blocks.window + 1) * blocks.window;
        size_t end = first + blocks.block < window_end ? first + blocks.block : window_end;
        end = end < n ? end : n;
        double deviation = 0;
        for (size_t i = first; i < end; i++)
            deviation += x[i] - mean;
        squares += deviation * deviation;
        ++*n_blocks;
        first = end;
    }
    const double b = (double)*n_blocks;
    *variance = b > 1 ? b / (b - 1) * squares / ((double)n * (double)n) : (double)NAN;
    return mean;
}

statistics_interval statistics_mean(const double *x, size_t n, statistics_blocks blocks)
{
    size_t n_blocks;
    double variance;
    const double mean = mean_of(x, n, blocks, &n_blocks, &variance);
    const double half = n_blocks > 1 ? statistics_student(n_blocks - 1) * sqrt(variance) : (double)NAN;
    return (statistics_interval){ mean, mean - half, mean + half };
}

statistics_interval statistics_rate(const double *x, size_t n, statistics_blocks blocks)
{
    size_t n_blocks;
    double variance;
    const double p = mean_of(x, n, blocks, &n_blocks, &variance);
    if (n_blocks < 2)
        return (statistics_interval){ p, (double)NAN, (double)NAN };
    const double independent = p * (1 - p) / variance; /* NaN where all are equal */
    const double count = independent < (double)n ? independent : (double)n;
    const double t = statistics_student(n_blocks - 1), share = t * t / count;
    const double middle = (p + share / 2) / (1 + share);
    const double half = t / (1 + share) * sqrt((p * (1 - p) + share / 4) / count);
    return (statistics_interval){ p, fmax(middle - half, 0), fmin(middle + half, 1) };
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double statistics_quantile(double *x, size_t n, double q)
{
    qsort(x, n, sizeof *x, by_size);
    const double rank = ceil(q * (double)n);
    return x[rank < 1 ? 0 : rank > (double)n ? n - 1 : (size_t)rank - 1];
}

double statistics_median(double *x, size_t n)
{
    qsort(x, n, sizeof *x, by_size);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}
