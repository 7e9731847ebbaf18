/* SPDX-License-Identifier: MIT */
/* A cache as one would first write it: every sequence has memory of its own, nothing is shared, nothing is given back, and each change makes all rows
 * anew, token by token. What kvtile/cache.h has to equal, byte for byte. */
#ifndef KVT_TESTS_PLAIN_CACHE_H
#define KVT_TESTS_PLAIN_CACHE_H

#include "support.h"

#include <kvtile/cache.h>

enum { PLAIN_MOST_TOKENS = 448, PLAIN_MOST_PAGES = PLAIN_MOST_TOKENS / 64, PLAIN_MOST_GROUPS = 3 };

/* A group; layouts are those of kvt_cache_group's specs. */
typedef struct plain_group {
    kvt_layout layout, first;
    bool has_first;
    kvt_dtype open; /* 0 or KVT_F16 */
    uint32_t layers, heads, n_sides;
    kvt_side sides[2];
    kvt_rope rope;
    bool has_rope;
    size_t page_bytes; /* of the larger layout */
} plain_group;

typedef struct plain_holding {
    unsigned char *pages; /* [layer][head][page] */
    uint16_t *rows[2];    /* [layer][head][token][dim]: of each side, as they came */
    size_t kept;          /* rows of pages before are forgotten */
} plain_holding;

typedef struct plain_sequence {
    bool is_used;
    size_t stored;
    uint64_t names[PLAIN_MOST_TOKENS]; /* of tokens: what their rows follow from */
    plain_holding groups[PLAIN_MOST_GROUPS];
} plain_sequence;

void plain_open(plain_sequence *s, const plain_group *groups, uint32_t n);
void plain_close(plain_sequence *s, uint32_t n);

/* The row of a token as it comes: dim f16 numbers. */
void plain_row(uint64_t name, uint32_t group, uint32_t layer, uint32_t side, uint32_t head, uint32_t dim, uint16_t *row);

void plain_append(plain_sequence *s, const plain_group *groups, uint32_t n, const uint64_t *names, size_t fresh);
void plain_truncate(plain_sequence *s, const plain_group *groups, uint32_t n, size_t tokens);
void plain_copy(plain_sequence *to, const plain_sequence *from, const plain_group *groups, uint32_t n);

/* Token i will be what token source[i] is, its key turned by turned[i] positions; `tokens` of them, in their order. */
void plain_change(plain_sequence *s, const plain_group *groups, uint32_t n, const size_t *source, const int64_t *turned, size_t tokens);

/* Pages that are stored when so many tokens are there. */
size_t plain_pages(const plain_group *group, size_t tokens);

/* Where the page of a head is. */
unsigned char *plain_page(const plain_sequence *s, const plain_group *groups, uint32_t group, uint32_t layer, uint32_t head, size_t page);
uint16_t *plain_rows(const plain_sequence *s, const plain_group *groups, uint32_t group, uint32_t layer, uint32_t head, uint32_t side, size_t token);

#endif
