/* SPDX-License-Identifier: MIT */
#include "tools/ggml/masks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WORD = 64 };

void masks_forget(masks *all)
{
    all->n = 0;
}

void masks_close(masks *all)
{
    for (size_t i = 0; i < all->room; i++) {
        free(all->all[i]->bits);
        free(all->all[i]->rows);
        free(all->all[i]);
    }
    free(all->all);
    *all = (masks){ 0 };
}

static bool make_buffer(void *pointer, size_t *bytes, size_t wanted)
{
    if (wanted <= *bytes)
        return true;
    void **at = pointer;
    free(*at);
    *at = malloc(wanted);
    *bytes = *at ? wanted : 0;
    return *at != NULL;
}

static mask_bits *next_mask(masks *all)
{
    if (all->n < all->room)
        return all->all[all->n++];
    mask_bits **more = realloc(all->all, (all->room + 1) * sizeof *more);
    if (!more)
        return NULL;
    all->all = more;
    more[all->room] = calloc(1, sizeof **more);
    if (!more[all->room])
        return NULL;
    all->room++;
    return more[all->n++];
}

mask_bits *masks_find(const masks *all, const struct ggml_tensor *tensor)
{
    for (size_t i = 0; i < all->n; i++)
        if (all->all[i]->tensor == tensor)
            return all->all[i];
    return NULL;
}

bool masks_plan(masks *all, const struct ggml_tensor *tensor, size_t tokens, size_t cells)
{
    mask_bits *m = masks_find(all, tensor);
    if (!m)
        m = next_mask(all);
    if (!m)
        return false;
    m->tensor = tensor;
    m->tokens = tokens;
    m->streams = (size_t)tensor->ne[3];
    m->cells = cells;
    m->words = (cells + WORD - 1) / WORD;
    m->is_ready = false;
    m->is_odd = false;
    const size_t rows = m->tokens * m->streams;
    return make_buffer(&m->bits, &m->bits_bytes, rows * m->words * sizeof *m->bits) && make_buffer(&m->rows, &m->rows_bytes, rows * sizeof *m->rows);
}

/* Of a cell: what a query sees, or not; or anything else. */
enum { HALF_HIDDEN = 0xfc00 };

static float value_at(const mask_bits *m, const uint8_t *row, size_t cell)
{
    if (m->tensor->type == GGML_TYPE_F32) {
        float value;
        memcpy(&value, row + cell * sizeof value, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, row + cell * sizeof half, sizeof half);
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const float magnitude =
        exponent == 31 ? (fraction ? NAN : INFINITY) : ldexpf((float)(exponent ? fraction + 1024 : fraction), (exponent ? exponent : 1) - 25);
    return half >> 15 ? -magnitude : magnitude;
}

/* Distances are rounded to 11 bits in masks of f16. */
static bool is_distance(const mask_bits *m, float value, int64_t own, size_t cell)
{
    const float distance = (float)(own - (int64_t)cell);
    return own >= (int64_t)cell && fabsf(value + distance) <= (m->tensor->type == GGML_TYPE_F16 ? distance * 0x1p-11f : 0);
}

static uint64_t seen_word(mask_bits *m, const uint8_t *row, size_t first, size_t n, int64_t own)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++) {
        const float value = value_at(m, row, first + i);
        const bool is_seen = !(isinf(value) && value < 0);
        if (is_seen && (own >= 0 ? !is_distance(m, value, own, first + i) : value != 0))
            m->is_odd = true;
        word |= (uint64_t)is_seen << i;
    }
    return word;
}

/* Most words of a causal mask of f16 are all 0 or all -infinity. */
static uint64_t whole_word_of(mask_bits *m, const uint8_t *row, size_t first, size_t n, int64_t own)
{
    if (m->tensor->type == GGML_TYPE_F16 && n == WORD && own < 0) {
        uint64_t quad[WORD / 4], any = 0, all = UINT64_MAX;
        memcpy(quad, row + first * 2, sizeof quad);
        for (size_t i = 0; i < WORD / 4; i++) {
            any |= quad[i];
            all &= quad[i];
        }
        if (any == 0)
            return UINT64_MAX;
        if (any == UINT64_C(0x0001000100010001) * HALF_HIDDEN && all == any)
            return 0;
    }
    return seen_word(m, row, first, n, own);
}

/* own < 0: there are no distances */
static void convert_mask_row(mask_bits *m, size_t stream, size_t token, int64_t own)
{
    const uint8_t *row = (const uint8_t *)m->tensor->data + token * m->tensor->nb[1] + stream * m->tensor->nb[3];
    const size_t at = stream * m->tokens + token;
    uint64_t *bits = m->bits + at * m->words;
    mask_row seen = { 0 };
    for (size_t i = 0; i < m->words; i++) {
        const size_t first = i * WORD, n = m->cells - first < WORD ? m->cells - first : WORD;
        bits[i] = whole_word_of(m, row, first, n, own);
        if (!bits[i])
            continue;
        if (!seen.count)
            seen.first = (uint32_t)(first + (size_t)__builtin_ctzll(bits[i]));
        seen.end = (uint32_t)(first + WORD - (size_t)__builtin_clzll(bits[i]));
        seen.count += (uint32_t)__builtin_popcountll(bits[i]);
    }
    m->rows[at] = seen;
}

void mask_convert(mask_bits *m, const int64_t *own, int64_t stream_cells, unsigned worker, unsigned workers)
{
    const size_t rows = m->tokens * m->streams;
    for (size_t i = rows * worker / workers; i < rows * (worker + 1) / workers; i++)
        convert_mask_row(m, i / m->tokens, i % m->tokens, own ? own[i] % stream_cells : -1);
}
