/* SPDX-License-Identifier: MIT */
/* TurboQuant-MSE (arXiv 2504.19874): a row is divided by its norm and rotated at random, so that its numbers are nearly normal; each becomes the
 * nearest of the levels that are best for a normal number (Lloyd, Max). What is stored of the norm is that of the row over that of its levels, which
 * corrects the length (turboquant_plus, and what EDEN's authors recommend). */
#include "tools/peers/arithmetic.h"
#include "tools/peers/format.h"

#include <math.h>
#include <string.h>

/* Lloyd's iteration for the normal distribution, a level the mean of what is nearest to it: the positive levels; test_peers repeats it. */
static const double LEVELS_OF_3_BITS[] = { 0.2450941789, 0.7560052812, 1.3439092785, 2.1519457045 };
static const double LEVELS_OF_4_BITS[] = { 0.1283950299, 0.3880482995, 0.6567591185, 0.9423404565,
                                           1.2562311973, 1.6180463860, 2.0690172265, 2.7325895710 };

double peer_normal_level(uint32_t bits, double x)
{
    const double *levels = bits == 3 ? LEVELS_OF_3_BITS : LEVELS_OF_4_BITS;
    const uint32_t n = 1U << (bits - 1);
    uint32_t i = 0;
    while (i + 1 < n && fabs(x) > (levels[i] + levels[i + 1]) / 2)
        i++;
    return copysign(levels[i], x);
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
    const uint32_t block = peer_block(dim, dim);
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
            row[c] = (float)peer_normal_level(peer->code_bits, row[c] / unit);
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
