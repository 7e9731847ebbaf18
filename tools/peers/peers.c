#include "tools/peers/peers.h"

#include "tools/peers/arithmetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- arithmetic ---- */

float peer_round(float x, int mantissa_bits, int least)
{
    if (x == 0 || !isfinite(x))
        return x;
    const int exponent = ilogbf(x) > least ? ilogbf(x) : least;
    const float step = ldexpf(1, exponent - mantissa_bits);
    return rintf(x / step) * step;
}

float peer_round_f16(float x)
{
    const float rounded = peer_round(x, 10, -14);
    return fabsf(rounded) > 65504 ? copysignf(65504, x) : rounded;
}

uint32_t peer_block(uint32_t dim, uint32_t most)
{
    uint32_t block = 1;
    while (block < most && dim % (2 * block) == 0)
        block *= 2;
    return block;
}

void peer_hadamard(float *row, uint32_t dim, uint32_t block)
{
    const float scale = 1 / sqrtf((float)block);
    for (uint32_t first = 0; first < dim; first += block) {
        float *x = row + first;
        for (uint32_t apart = 1; apart < block; apart *= 2)
            for (uint32_t i = 0; i < block; i++)
                if ((i & apart) == 0) {
                    const float a = x[i], b = x[i + apart];
                    x[i] = a + b;
                    x[i + apart] = a - b;
                }
        for (uint32_t i = 0; i < block; i++)
            x[i] *= scale;
    }
}

void peer_asymmetric(float *x, size_t n, size_t stride, uint32_t bits)
{
    float least = x[0], most = x[0], sum = 0;
    for (size_t i = 0; i < n; i++) {
        least = fminf(least, x[i * stride]);
        most = fmaxf(most, x[i * stride]);
        sum += x[i * stride] - x[i * stride]; /* NaN, or 0 */
    }
    const float codes = (float)((1U << bits) - 1), zero = peer_round_f16(least), scale = peer_round_f16((most - least) / codes);
    for (size_t i = 0; i < n; i++) {
        const float code = scale > 0 ? fminf(fmaxf(rintf((x[i * stride] - zero) / scale), 0), codes) : 0;
        x[i * stride] = isnan(sum) ? NAN : zero + code * scale;
    }
}

/* ---- formats of rows ---- */

/* One scale for a whole tensor: 1, as engines have it whose models bring no scales. Numbers above 448 become that. */
static int store_fp8_tensor(const peer_format *peer, kvt_side side, const float *rows, size_t tokens, uint32_t dim, float *back, error_text *error)
{
    (void)peer;
    (void)side;
    (void)error;
    for (size_t i = 0; i < tokens * dim; i++)
        back[i] = isnan(rows[i]) ? rows[i] : fminf(fmaxf(peer_round(rows[i], 3, -6), -448), 448);
    return 0;
}

/* NVFP4's scale of all: that which brings the largest number to the largest code times the largest scale, as far as the library has it. */
static float global_scale(const float *rows, size_t n)
{
    float largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = isfinite(rows[i]) ? fmaxf(largest, fabsf(rows[i])) : largest;
    return largest > 0 ? fminf(fmaxf(largest / (6 * 448), 0x1p-64f), 0x1p64f) : 1;
}

static int store_rows(const peer_format *peer, kvt_side side, const float *rows, size_t tokens, uint32_t dim, float *back, error_text *error)
{
    (void)side;
    kvt_row_options options = { .size = sizeof options };
    if (peer->format == KVT_ROW_nvfp4)
        options.nvfp4_global_scale = global_scale(rows, tokens * dim);
    const size_t bytes = kvt_row_format_bytes(peer->format, dim);
    void *row = malloc(bytes);
    kvt_status status = KVT_OK;
    for (size_t t = 0; row != NULL && status == KVT_OK && t < tokens; t++) {
        status = kvt_rows_encode(peer->format, dim, 1, rows + t * dim, KVT_F32, 0, row, 0, &options);
        if (status == KVT_OK)
            status = kvt_rows_decode(peer->format, dim, 1, row, 0, back + t * dim, KVT_F32, 0, &options);
    }
    free(row);
    if (row == NULL)
        return error_set(error, "%s: out of memory", peer->name);
    return status == KVT_OK ? 0 : error_set(error, "%s: %s", peer->name, kvt_status_text(status));
}

/* ---- all ---- */

static const peer_format PEERS[] = {
#define KVT_ROW_FORMAT(name, id, family, block, block_bytes, row_bytes, title)                                                                       \
    { #name, title, 1, false, KVT_ROW_##name, 0, { 0, 0 }, { 0, 0 }, store_rows },
#include <kvtile/rowformats.def>
#undef KVT_ROW_FORMAT
    { "fp8_tensor", "FP8 per tensor: E4M3, a scale of 1 for all", 1, false, 0, 8, { 0, 0 }, { 0, 0 }, store_fp8_tensor },
    { "turboquant4", "TurboQuant-MSE, 4 bits: rotated, 16 levels, an f16 norm per row", 1, true, 0, 4, { 16, 16 }, { 0, 0 }, peer_store_turboquant },
    { "turboquant3", "TurboQuant-MSE, 3 bits: rotated, 8 levels, an f16 norm per row", 1, true, 0, 3, { 16, 16 }, { 0, 0 }, peer_store_turboquant },
    { "kivi4",
      "KIVI, 4 bits: f16 scale and zero per 32, of keys along tokens",
      32,
      false,
      0,
      4,
      { 0, 0 },
      { 32.0 / 32, 32.0 / 32 },
      peer_store_kivi },
    { "kvarn4",
      "KVarN, 4 bits: rotated, variances of tokens and channels evened out in tiles of 128 tokens",
      128,
      true,
      0,
      4,
      { 16, 32 },
      { 32.0 / 128, 16.0 / 128 },
      peer_store_kvarn },
    { "kvarn4_g64", "KVarN, 4 bits, tiles of 64 tokens", 64, true, 0, 4, { 16, 32 }, { 32.0 / 64, 16.0 / 64 }, peer_store_kvarn },
};

const peer_format *peer_at(size_t i)
{
    return i < sizeof PEERS / sizeof *PEERS ? &PEERS[i] : NULL;
}

const peer_format *peer_find(const char *name)
{
    for (size_t i = 0; i < sizeof PEERS / sizeof *PEERS; i++)
        if (strcmp(PEERS[i].name, name) == 0)
            return &PEERS[i];
    return NULL;
}

double peer_bits(const peer_format *peer, kvt_side side, uint32_t dim)
{
    if (peer->format != 0)
        return 8.0 * (double)kvt_row_format_bytes(peer->format, dim) / dim;
    return peer->code_bits + peer->row_bits[side == KVT_V] / dim + peer->number_bits[side == KVT_V];
}

int peer_store(const peer_format *peer, kvt_side side, uint32_t rotation, const float *rows, size_t tokens, uint32_t dim, float *back,
               error_text *error)
{
    const size_t rest = tokens % peer->unit;
    tokens -= rest;
    memcpy(back + tokens * dim, rows + tokens * dim, rest * dim * sizeof *back);
    if (rotation == 0 || peer->rotates)
        return peer->store(peer, side, rows, tokens, dim, back, error);
    float *rotated = malloc(tokens * dim * sizeof *rotated);
    if (rotated == NULL)
        return error_set(error, "%s: out of memory", peer->name);
    const uint32_t block = peer_block(dim, rotation);
    memcpy(rotated, rows, tokens * dim * sizeof *rotated);
    for (size_t t = 0; t < tokens; t++)
        peer_hadamard(rotated + t * dim, dim, block);
    const int status = peer->store(peer, side, rotated, tokens, dim, back, error);
    for (size_t t = 0; status == 0 && t < tokens; t++)
        peer_hadamard(back + t * dim, dim, block);
    free(rotated);
    return status;
}
