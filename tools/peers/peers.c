/* SPDX-License-Identifier: MIT */
#include "tools/peers/peers.h"

#include "tools/peers/arithmetic.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
