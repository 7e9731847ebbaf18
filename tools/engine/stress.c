/* SPDX-License-Identifier: MIT */
#include "tools/engine/stress.h"

#include <inttypes.h>
#include <stdlib.h>

enum { STRONGEST = 4 };
static const float STRESS = 8; /* a power of two: products are what they were */

/* Energies of the units of `width` channels of a head. */
static void find_energies(double *energy, const float *rows, size_t tokens, uint32_t head_dim, uint32_t width)
{
    for (uint32_t unit = 0; unit < head_dim / width; unit++)
        energy[unit] = 0;
    for (size_t t = 0; t < tokens; t++)
        for (uint32_t c = 0; c < head_dim; c++)
            energy[c / width] += (double)rows[t * head_dim + c] * rows[t * head_dim + c];
}

/* The unit of most energy, which is then taken out. */
static uint32_t take_strongest(double *energy, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        best = energy[i] > energy[best] ? i : best;
    energy[best] = -1;
    return best;
}

static void scale(float *x, size_t n, size_t stride, float by)
{
    for (size_t i = 0; i < n; i++)
        x[i * stride] *= by;
}

static float *writable(const checkpoint *model, const float *weights)
{
    return model->weights + (weights - model->weights);
}

/* A channel's row of a matrix of keys or values, of KV head `head`, and what it meets in the heads of the queries. */
static void scale_key(const checkpoint *model, size_t layer, size_t head, size_t channel)
{
    const size_t dim = model->dim, group = model->heads / model->kv_heads;
    float *wk = writable(model, model->wk), *wq = writable(model, model->wq);
    if (model->kv_bias > 0)
        writable(model, model->bk)[layer * model->kv_dim + head * model->head_dim + channel] *= STRESS;
    for (size_t g = 0; g < group && model->q_bias > 0; g++)
        writable(model, model->bq)[layer * model->q_dim + (head * group + g) * model->head_dim + channel] /= STRESS;
    scale(wk + (layer * model->kv_dim + head * model->head_dim + channel) * dim, dim, 1, STRESS);
    for (size_t g = 0; g < group; g++)
        scale(wq + (layer * model->q_dim + (head * group + g) * model->head_dim + channel) * dim, dim, 1, 1 / STRESS);
}

static void scale_value(const checkpoint *model, size_t layer, size_t head, size_t channel)
{
    const size_t dim = model->dim, group = model->heads / model->kv_heads;
    float *wv = writable(model, model->wv), *wo = writable(model, model->wo);
    if (model->kv_bias > 0)
        writable(model, model->bv)[layer * model->kv_dim + head * model->head_dim + channel] *= STRESS;
    scale(wv + (layer * model->kv_dim + head * model->head_dim + channel) * dim, dim, 1, STRESS);
    for (size_t g = 0; g < group; g++)
        scale(wo + layer * dim * model->q_dim + (head * group + g) * model->head_dim + channel, dim, model->q_dim, 1 / STRESS);
}

int stress_outliers(checkpoint *model, size_t layer, const float *keys, const float *values, size_t room, size_t tokens, error_text *error)
{
    if (model->head_norm > 0)
        return error_set(error,
                         "norms the rows of its queries and keys, so that no weight makes some of their channels larger: a model that does not "
                         "would be right for --stress");
    double *energy = malloc(model->head_dim * sizeof *energy);
    if (energy == NULL)
        return error_set(error, "head_dim is %" PRIu32 ": out of memory", model->head_dim);
    const uint32_t pairs = model->head_dim / 2;
    for (size_t head = 0; head < model->kv_heads; head++) {
        const size_t rows = head * room * model->head_dim;
        find_energies(energy, keys + rows, tokens, model->head_dim, 2);
        for (uint32_t j = 0; j < STRONGEST && j < pairs; j++) {
            const uint32_t pair = take_strongest(energy, pairs);
            scale_key(model, layer, head, 2 * pair);
            scale_key(model, layer, head, 2 * pair + 1);
        }
        find_energies(energy, values + rows, tokens, model->head_dim, 1);
        for (uint32_t j = 0; j < STRONGEST && j < model->head_dim; j++)
            scale_value(model, layer, head, take_strongest(energy, model->head_dim));
    }
    free(energy);
    return 0;
}
