/* TurboQuant-MSE (arXiv 2504.19874): a row is divided by its norm and rotated at random, so that its numbers are nearly normal; each becomes the
 * nearest of the levels that are best for a normal number (Lloyd, Max). What is stored of the norm is that of the row over that of its levels, which
 * corrects the length (turboquant_plus, and what EDEN's authors recommend). */
#include "tools/peers/arithmetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_LEVELS = 16, STEPS = 4000 };

static double density(double x)
{
    return exp(-x * x / 2) / sqrt(2 * acos(-1));
}
static double below(double x)
{
    return erfc(-x / sqrt(2)) / 2;
}

/* Lloyd's iteration for the normal distribution: a level is the mean of what is nearest to it. */
static void find_levels(double *levels, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        levels[i] = 6 * ((i + 0.5) / n - 0.5);
    for (int step = 0; step < STEPS; step++) {
        double from = -INFINITY;
        for (uint32_t i = 0; i < n; i++) {
            const double to = i + 1 < n ? (levels[i] + levels[i + 1]) / 2 : INFINITY;
            levels[i] = (density(from) - density(to)) / (below(to) - below(from));
            from = to;
        }
    }
}

static double nearest(const double *levels, uint32_t n, double x)
{
    uint32_t i = 0;
    while (i + 1 < n && x > (levels[i] + levels[i + 1]) / 2)
        i++;
    return levels[i];
}

/* Signs of a fixed stream, the same for all rows. */
static void flip_signs(float *row, uint32_t dim)
{
    uint64_t state = 0x9e3779b97f4a7c15;
    for (uint32_t c = 0; c < dim; c++) {
        state = state * 6364136223846793005 + 1442695040888963407;
        row[c] = state >> 63 ? -row[c] : row[c];
    }
}

int peer_store_turboquant(const peer_format *peer, kvt_side side, const float *rows, size_t tokens, uint32_t dim, float *back, error_text *error)
{
    (void)side;
    (void)error;
    double levels[MOST_LEVELS];
    const uint32_t n = 1U << peer->code_bits, block = peer_block(dim, dim);
    find_levels(levels, n);
    for (size_t t = 0; t < tokens; t++) {
        float *row = back + t * dim;
        memcpy(row, rows + t * dim, dim * sizeof *row);
        flip_signs(row, dim);
        peer_hadamard(row, dim, block);
        double squares = 0, of_levels = 0;
        for (uint32_t c = 0; c < dim; c++)
            squares += (double)row[c] * row[c];
        const double unit = sqrt(squares / dim);
        for (uint32_t c = 0; c < dim && unit > 0 && isfinite(unit); c++) {
            row[c] = (float)nearest(levels, n, row[c] / unit);
            of_levels += (double)row[c] * row[c];
        }
        const float norm = isfinite(unit) ? unit > 0 ? peer_round_f16((float)sqrt(squares / of_levels)) : 0 : NAN;
        for (uint32_t c = 0; c < dim; c++)
            row[c] *= norm;
        peer_hadamard(row, dim, block);
        flip_signs(row, dim);
    }
    return 0;
}
