/* SPDX-License-Identifier: MIT */
/* Formats that store tokens in groups: KIVI (arXiv 2402.02750) and KVarN (arXiv 2606.03458). */
#include "tools/peers/arithmetic.h"
#include "tools/peers/format.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KIVI_GROUP = 32, KVARN_PASSES = 8 };

/* Keys: a scale and a zero for a channel of 32 tokens. Values: for 32 channels of a token. */
int peer_store_kivi(const peer_format *peer, kvt_side side, const float *rows, size_t tokens, uint32_t dim, float *back, error_text *error)
{
    (void)error;
    memcpy(back, rows, tokens * dim * sizeof *back);
    for (size_t t = 0; side == KVT_K && t < tokens; t += KIVI_GROUP)
        for (uint32_t c = 0; c < dim; c++)
            peer_asymmetric(back + t * dim + c, KIVI_GROUP, dim, peer->code_bits);
    for (size_t t = 0; side == KVT_V && t < tokens; t++)
        for (uint32_t c = 0; c < dim; c += KIVI_GROUP)
            peer_asymmetric(back + t * dim + c, dim - c < KIVI_GROUP ? dim - c : KIVI_GROUP, 1, peer->code_bits);
    return 0;
}

/* Divides n numbers by their standard deviation, which `scale` takes on. */
static void even_out(float *x, size_t n, size_t stride, float *scale)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i * stride];
    for (size_t i = 0; i < n; i++)
        squares += (x[i * stride] - sum / (double)n) * (x[i * stride] - sum / (double)n);
    const float deviation = (float)sqrt(squares / (double)n);
    if (!(deviation > 0) || !isfinite(deviation))
        return;
    for (size_t i = 0; i < n; i++)
        x[i * stride] /= deviation;
    *scale *= deviation;
}

/* Only products of both scales mean something: gives `from` the geometric mean 1, and `to` what it had. */
static void hand_over(float *from, size_t n_from, float *to, size_t n_to)
{
    double logarithms = 0;
    for (size_t i = 0; i < n_from; i++)
        logarithms += log((double)from[i]);
    const double mean = exp(logarithms / (double)n_from);
    for (size_t i = 0; i < n_from; i++)
        from[i] = (float)(from[i] / mean);
    for (size_t i = 0; i < n_to; i++)
        to[i] = (float)(to[i] * mean);
}

/* A tile of 128 tokens: after the rotation, variances of tokens and of channels are made 1 in turns. Keys then have codes with a scale and a zero per
 * channel, and a scale per token beside them; values the other way round. */
static void store_tile(float *tile, size_t tokens, uint32_t dim, kvt_side side, uint32_t bits, float *of_tokens, float *of_channels)
{
    for (size_t t = 0; t < tokens; t++) {
        peer_hadamard(tile + t * dim, dim, peer_block(dim, dim));
        of_tokens[t] = 1;
    }
    for (uint32_t c = 0; c < dim; c++)
        of_channels[c] = 1;
    for (int pass = 0; pass < KVARN_PASSES; pass++) {
        for (uint32_t c = 0; c < dim; c++)
            even_out(tile + c, tokens, dim, &of_channels[c]);
        for (size_t t = 0; t < tokens; t++)
            even_out(tile + t * dim, dim, 1, &of_tokens[t]);
        if (side == KVT_K)
            hand_over(of_tokens, tokens, of_channels, dim);
        else
            hand_over(of_channels, dim, of_tokens, tokens);
    }
    /* What codes have a scale for anyway is in that. */
    for (size_t t = 0; t < tokens; t++)
        for (uint32_t c = 0; c < dim; c++)
            tile[t * dim + c] *= side == KVT_K ? of_channels[c] : of_tokens[t];
    for (uint32_t c = 0; side == KVT_K && c < dim; c++)
        peer_asymmetric(tile + c, tokens, dim, bits);
    for (size_t t = 0; side == KVT_V && t < tokens; t++)
        peer_asymmetric(tile + t * dim, dim, 1, bits);
    for (size_t t = 0; t < tokens; t++) {
        for (uint32_t c = 0; c < dim; c++)
            tile[t * dim + c] *= peer_round_f16(side == KVT_K ? of_tokens[t] : of_channels[c]);
        peer_hadamard(tile + t * dim, dim, peer_block(dim, dim));
    }
}

int peer_store_kvarn(const peer_format *peer, kvt_side side, const float *rows, size_t tokens, uint32_t dim, float *back, error_text *error)
{
    float *scales = malloc((peer->unit + dim) * sizeof *scales);
    if (scales == NULL)
        return error_set(error, "%s: out of memory", peer->name);
    memcpy(back, rows, tokens * dim * sizeof *back);
    for (size_t t = 0; t < tokens; t += peer->unit)
        store_tile(back + t * dim, peer->unit, dim, side, peer->code_bits, scales, scales + peer->unit);
    free(scales);
    return 0;
}
