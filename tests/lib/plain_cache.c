/* SPDX-License-Identifier: MIT */
#include "plain_cache.h"

#include <stdlib.h>
#include <string.h>

static uint32_t dim_of(const plain_group *g, uint32_t i)
{
    return g->sides[i] == KVT_K ? g->layout.k.dim : g->sides[i] == KVT_V ? g->layout.v.dim : g->layout.rope.dim;
}
static const kvt_layout *layout_of(const plain_group *g, size_t page)
{
    return page == 0 && g->has_first ? &g->first : &g->layout;
}

size_t plain_pages(const plain_group *g, size_t tokens)
{
    return g->open ? tokens / 64 : (tokens + 63) / 64;
}

unsigned char *plain_page(const plain_sequence *s, const plain_group *groups, uint32_t group, uint32_t layer, uint32_t head, size_t page)
{
    const plain_group *g = &groups[group];
    return s->groups[group].pages + (((size_t)layer * g->heads + head) * PLAIN_MOST_PAGES + page) * g->page_bytes;
}

uint16_t *plain_rows(const plain_sequence *s, const plain_group *groups, uint32_t group, uint32_t layer, uint32_t head, uint32_t side, size_t token)
{
    const plain_group *g = &groups[group];
    return s->groups[group].rows[side] + (((size_t)layer * g->heads + head) * PLAIN_MOST_TOKENS + token) * dim_of(g, side);
}

void plain_open(plain_sequence *s, const plain_group *groups, uint32_t n)
{
    *s = (plain_sequence){ .is_used = true };
    for (uint32_t g = 0; g < n; g++) {
        const size_t heads = (size_t)groups[g].layers * groups[g].heads;
        s->groups[g].pages = calloc(heads * PLAIN_MOST_PAGES, groups[g].page_bytes);
        ck_assert_ptr_nonnull(s->groups[g].pages);
        for (uint32_t i = 0; i < groups[g].n_sides; i++) {
            s->groups[g].rows[i] = calloc(heads * PLAIN_MOST_TOKENS * dim_of(&groups[g], i), sizeof(uint16_t));
            ck_assert_ptr_nonnull(s->groups[g].rows[i]);
        }
    }
}

void plain_close(plain_sequence *s, uint32_t n)
{
    for (uint32_t g = 0; g < n; g++) {
        free(s->groups[g].pages);
        free(s->groups[g].rows[0]);
        free(s->groups[g].rows[1]);
    }
    *s = (plain_sequence){ 0 };
}

void plain_row(uint64_t name, uint32_t group, uint32_t layer, uint32_t side, uint32_t head, uint32_t dim, uint16_t *row)
{
    uint64_t state = name * 0x9e3779b97f4a7c15 + (((uint64_t)group * 64 + layer) * 4 + side) * 64 + head, bits = 0;
    for (uint32_t c = 0; c < dim; c++, bits >>= 16) {
        if (c % 4 == 0)
            bits = test_random(&state);
        row[c] = (uint16_t)((bits & 0x83ff) | (0x2c00 + (bits >> 10 & 3) * 0x400 * 2 + 0)); /* magnitudes of 2^-4 to 8 */
    }
}

/* Writes tokens first .. end - 1, all in one page, of one side. */
static void write_page(const plain_sequence *s, const plain_group *groups, uint32_t g, uint32_t layer, uint32_t head, uint32_t i, size_t first,
                       size_t end, const void *rows, kvt_dtype dtype, size_t row_bytes)
{
    const plain_group *group = &groups[g];
    const kvt_pages pages = { .base = plain_page(s, groups, g, layer, head, 0), .stride = group->page_bytes, .count = PLAIN_MOST_PAGES };
    ck_assert_int_eq(kvt_write(layout_of(group, first / 64), group->sides[i], &pages, first, end - first, rows, dtype, (ptrdiff_t)row_bytes), KVT_OK);
}

void plain_append(plain_sequence *s, const plain_group *groups, uint32_t n, const uint64_t *names, size_t fresh)
{
    const size_t total = s->stored + fresh;
    memcpy(s->names + s->stored, names, fresh * sizeof *names);
    for (uint32_t g = 0; g < n; g++) {
        const plain_group *group = &groups[g];
        for (uint32_t layer = 0; layer < group->layers; layer++)
            for (uint32_t head = 0; head < group->heads; head++)
                for (uint32_t i = 0; i < group->n_sides; i++)
                    for (size_t t = s->stored; t < total; t++) {
                        const size_t bytes = dim_of(group, i) * sizeof(uint16_t);
                        uint16_t *row = plain_rows(s, groups, g, layer, head, i, t);
                        plain_row(s->names[t], g, layer, i, head, dim_of(group, i), row);
                        if (!group->open)
                            write_page(s, groups, g, layer, head, i, t, t + 1, row, KVT_F16, bytes);
                        else if (t % 64 == 63)
                            write_page(s, groups, g, layer, head, i, t - 63, t + 1, row - 63 * (bytes / 2), KVT_F16, bytes);
                    }
        plain_holding *h = &s->groups[g];
        if (fresh && (total - 1) / 64 > h->kept + 1)
            h->kept = (total - 1) / 64 - 1;
    }
    s->stored = total;
}

/* One row as it is seen, as floats. */
static void read_row(const plain_sequence *s, const plain_group *groups, uint32_t g, uint32_t layer, uint32_t head, uint32_t i, size_t token,
                     float *row)
{
    const plain_group *group = &groups[g];
    const uint32_t dim = dim_of(group, i);
    if (group->open && token / 64 >= s->groups[g].kept) {
        const uint16_t *halves = plain_rows(s, groups, g, layer, head, i, token);
        for (uint32_t c = 0; c < dim; c++) {
            const uint32_t bits = oracle_widen(oracle_f16, halves[c]);
            memcpy(&row[c], &bits, 4);
        }
        return;
    }
    const kvt_pages pages = { .base = plain_page(s, groups, g, layer, head, 0), .stride = group->page_bytes, .count = PLAIN_MOST_PAGES };
    ck_assert_int_eq(kvt_read(layout_of(group, token / 64), group->sides[i], &pages, token, 1, row, KVT_F32, 4 * (ptrdiff_t)dim), KVT_OK);
}

static void narrow(const float *row, uint32_t dim, uint16_t *halves)
{
    for (uint32_t c = 0; c < dim; c++) {
        uint32_t bits;
        memcpy(&bits, &row[c], 4);
        halves[c] = (uint16_t)oracle_narrow(oracle_f16, bits);
    }
}

void plain_truncate(plain_sequence *s, const plain_group *groups, uint32_t n, size_t tokens)
{
    for (uint32_t g = 0; g < n; g++) {
        const plain_group *group = &groups[g];
        plain_holding *h = &s->groups[g];
        const size_t page = tokens / 64;
        if (group->open && page < h->kept && tokens % 64)
            for (uint32_t layer = 0; layer < group->layers; layer++)
                for (uint32_t head = 0; head < group->heads; head++)
                    for (uint32_t i = 0; i < group->n_sides; i++)
                        for (size_t t = page * 64; t < tokens; t++) {
                            float row[KVT_MAX_DIM];
                            read_row(s, groups, g, layer, head, i, t, row);
                            narrow(row, dim_of(group, i), plain_rows(s, groups, g, layer, head, i, t));
                        }
        h->kept = h->kept < page ? h->kept : page;
    }
    s->stored = tokens;
}

void plain_copy(plain_sequence *to, const plain_sequence *from, const plain_group *groups, uint32_t n)
{
    plain_open(to, groups, n);
    to->stored = from->stored;
    memcpy(to->names, from->names, sizeof to->names);
    for (uint32_t g = 0; g < n; g++) {
        const size_t heads = (size_t)groups[g].layers * groups[g].heads;
        memcpy(to->groups[g].pages, from->groups[g].pages, heads * PLAIN_MOST_PAGES * groups[g].page_bytes);
        for (uint32_t i = 0; i < groups[g].n_sides; i++)
            memcpy(to->groups[g].rows[i], from->groups[g].rows[i], heads * PLAIN_MOST_TOKENS * dim_of(&groups[g], i) * sizeof(uint16_t));
        to->groups[g].kept = from->groups[g].kept;
    }
}

typedef struct change {
    const size_t *source;
    const int64_t *turned;
    size_t tokens;
} change;

/* Whether tokens first .. end - 1 are to be what all of one page is, and of which. */
static bool is_whole(const plain_group *group, const change *c, size_t old_tokens, size_t first, size_t end, size_t *from)
{
    *from = c->source[first] / 64;
    const size_t there = old_tokens - *from * 64 < 64 ? old_tokens - *from * 64 : 64;
    bool whole = c->source[first] % 64 == 0 && end - first == there && (!group->has_first || (*from == 0) == (first == 0));
    for (size_t t = first; t < end; t++)
        whole &= c->source[t] == *from * 64 + (t - first);
    return whole;
}
static bool is_turned(const plain_group *group, const change *c, size_t first, size_t end)
{
    bool turned = false;
    for (size_t t = first; t < end; t++)
        turned |= group->has_rope && c->turned[t] != 0;
    return turned;
}

/* Rows of tokens first .. end - 1 as they will be. */
static void gather(const plain_sequence *s, const plain_group *groups, uint32_t g, uint32_t layer, uint32_t head, uint32_t i, const change *c,
                   size_t first, size_t end, float *rows)
{
    const plain_group *group = &groups[g];
    const uint32_t dim = dim_of(group, i);
    const bool is_key = group->sides[i] == (group->layout.rope.dim ? KVT_ROPE : KVT_K);
    for (size_t t = first; t < end; t++) {
        float *row = rows + (t - first) * dim;
        read_row(s, groups, g, layer, head, i, c->source[t], row);
        if (group->has_rope && is_key && c->turned[t])
            ck_assert_int_eq(kvt_rope_turn(&group->rope, c->turned[t], row, 1, 0), KVT_OK);
    }
}

static void change_group(plain_sequence *to, const plain_sequence *s, const plain_group *groups, uint32_t g, const change *c)
{
    const plain_group *group = &groups[g];
    static float rows[64 * KVT_MAX_DIM];
    const size_t own = c->tokens / 64, kept = s->groups[g].kept;
    bool is_same = c->tokens == s->stored;
    for (size_t first = kept * 64; is_same && first < c->tokens; first += 64)
        is_same = !is_turned(group, c, first, first + 64 < c->tokens ? first + 64 : c->tokens);
    for (uint32_t layer = 0; layer < group->layers; layer++)
        for (uint32_t head = 0; head < group->heads; head++) {
            for (size_t p = 0; p < plain_pages(group, c->tokens); p++) {
                const size_t first = p * 64, end = first + 64 < c->tokens ? first + 64 : c->tokens;
                size_t from;
                const bool whole = is_whole(group, c, s->stored, first, end, &from);
                if (whole)
                    memcpy(plain_page(to, groups, g, layer, head, p), plain_page(s, groups, g, layer, head, from), group->page_bytes);
                for (uint32_t i = 0; i < group->n_sides; i++) {
                    const bool is_key = group->sides[i] == (group->layout.rope.dim ? KVT_ROPE : KVT_K);
                    if (whole && !(is_key && is_turned(group, c, first, end)))
                        continue;
                    gather(s, groups, g, layer, head, i, c, first, end, rows);
                    write_page(to, groups, g, layer, head, i, first, end, rows, KVT_F32, dim_of(group, i) * sizeof *rows);
                }
            }
            for (uint32_t i = 0; group->open && i < group->n_sides; i++) {
                const uint32_t dim = dim_of(group, i);
                if (is_same) {
                    memcpy(plain_rows(to, groups, g, layer, head, i, 0), plain_rows(s, groups, g, layer, head, i, 0), s->stored * dim * 2);
                    continue;
                }
                gather(s, groups, g, layer, head, i, c, own * 64, c->tokens, rows);
                for (size_t t = own * 64; t < c->tokens; t++)
                    narrow(rows + (t - own * 64) * dim, dim, plain_rows(to, groups, g, layer, head, i, t));
            }
        }
    to->groups[g].kept = is_same ? kept : own;
}

void plain_change(plain_sequence *s, const plain_group *groups, uint32_t n, const size_t *source, const int64_t *turned, size_t tokens)
{
    plain_sequence to;
    plain_open(&to, groups, n);
    const change c = { source, turned, tokens };
    for (uint32_t g = 0; g < n; g++)
        change_group(&to, s, groups, g, &c);
    to.stored = tokens;
    for (size_t t = 0; t < tokens; t++)
        to.names[t] = s->names[source[t]];
    plain_close(s, n);
    *s = to;
}
