/* SPDX-License-Identifier: MIT */
/* Means and rates of what neighbours resemble each other in, with intervals that know it: 95 %, by the method of batch means. The numbers stand in
 * the order of a text that was run in windows; blocks of neighbours, which begin anew with each window, are what is taken as independent. Student's t
 * has one degree of freedom less than there are blocks. */
#ifndef KVT_STATISTICS_H
#define KVT_STATISTICS_H

#include <stddef.h>

/* Where blocks begin: every `block` numbers, and every `window`. */
typedef struct statistics_blocks {
    size_t window, block;
} statistics_blocks;

/* low and high are NAN where there are less than two blocks. */
typedef struct statistics_interval {
    double mean, low, high;
} statistics_interval;

statistics_interval statistics_mean(const double *x, size_t n, statistics_blocks blocks);

/* Of numbers that are 0 or 1: Wilson's interval, for as many independent numbers as would scatter like the blocks do, at most n. */
statistics_interval statistics_rate(const double *x, size_t n, statistics_blocks blocks);

/* The smallest number that at least a share q of all do not exceed. Sorts x. */
double statistics_quantile(double *x, size_t n, double q);

/* The number in the middle, or the mean of the two that are. Sorts x. */
double statistics_median(double *x, size_t n);

/* Two-sided 95 %: 1.96 for many degrees of freedom, more for few. */
double statistics_student(size_t degrees);

#endif
