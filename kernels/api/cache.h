/* SPDX-License-Identifier: MIT */
/* What a cache's memory holds, for the files that work on it. */
#ifndef KVT_API_CACHE_H
#define KVT_API_CACHE_H

#include "kernels/api/view.h"

#include <kvtile/cache.h>

#include <stdatomic.h>

/* Blocks of a kind: which of them are free, and how many hold each of the others. Any number of threads may take and release. */
typedef struct kvt_blocks {
    uint8_t *base;
    size_t bytes; /* of a block */
    uint32_t all;
    _Atomic uint64_t top;     /* the first free block, or KVT_NO_BLOCK, and a number in the upper half that changes whenever it does */
    _Atomic uint32_t *counts; /* [all] holders */
    _Atomic uint32_t *next;   /* [all] of a free block: the next, or KVT_NO_BLOCK */
} kvt_blocks;

/* A group, with its own copy of what the caller described it by. */
typedef struct kvt_group {
    kvt_layout layout, first_layout;
    kvt_checked_view view; /* view.v is what callers get */
    kvt_rope rope;
    bool has_rope;
    size_t window, spare, first_kept;
    kvt_blocks pages, first_pages, open_pages;
} kvt_group;

/* What a sequence holds in a group. */
typedef struct kvt_holding {
    uint32_t *table, *other; /* [most pages]; other: what the table will be */
    size_t n;                /* pages that the table has */
    size_t given;            /* pages before it were given back, but for the group's first_kept */
    size_t kept;             /* the first page whose rows are kept, in open block kept % 2; that of the next is in the other */
    uint32_t open[2];
    /* while an operation is prepared */
    size_t new_n, new_given, new_kept;
    uint32_t new_open[2], new_page;
} kvt_holding;

typedef struct kvt_record {
    _Atomic uint32_t is_used;
    size_t stored;
    uint32_t fresh;
    kvt_holding *groups;
    uint32_t state, new_state;
    uint32_t n_marks;
    uint32_t *marks; /* [most marks] blocks of states */
    size_t *marked;  /* the numbers of tokens that they belong to */
    /* a change that waits for its rows */
    bool is_pending;
    kvt_positions positions;
    size_t shift_first, shift_end;
    int64_t shift;
    size_t new_stored;
    uint64_t *map;          /* [most pages] bits of the tokens that stay */
    uint32_t *before;       /* [most pages + 1] how many of them are in pages before */
    _Atomic uint32_t ready; /* workers */
    char why[192];
} kvt_record;

struct kvt_cache {
    size_t bytes, book_bytes, tokens, pages; /* of a sequence: the most */
    uint32_t n_groups, n_sequences;
    size_t state_bytes;
    uint32_t state_marks;
    kvt_group *groups;
    kvt_record *records;
    kvt_blocks states;
    size_t scratch_bytes;
};

/* KVT_NO_BLOCK where none is free; otherwise with one holder. */
uint32_t kvt_block_take(kvt_blocks *blocks);
void kvt_block_release(kvt_blocks *blocks, uint32_t id);
/* Releases what may be no block, and is none behind it. */
void kvt_block_give(kvt_blocks *blocks, uint32_t *id);

static inline void kvt_block_hold(kvt_blocks *blocks, uint32_t id)
{
    atomic_fetch_add_explicit(&blocks->counts[id], 1, memory_order_relaxed);
}
static inline bool kvt_block_is_shared(const kvt_blocks *blocks, uint32_t id)
{
    return atomic_load_explicit(&blocks->counts[id], memory_order_acquire) > 1;
}
static inline uint8_t *kvt_block_at(const kvt_blocks *blocks, uint32_t id)
{
    return blocks->base + id * blocks->bytes;
}

/* The kind that page p's block is of. */
static inline kvt_blocks *kvt_kind_of(kvt_group *group, size_t p)
{
    return p == 0 && group->view.v.first_layout ? &group->first_pages : &group->pages;
}

/* Gives the blocks of pages first .. end - 1 of a table back. */
void kvt_give_pages(kvt_group *group, uint32_t *table, size_t first, size_t end);

/* What an operation took for open pages: given back, or open page i from now on, in place of the one that was. */
void kvt_give_new_open(kvt_group *group, kvt_holding *h);
void kvt_keep_new_open(kvt_group *group, kvt_holding *h, uint32_t i);

/* Pages whose blocks are in the table when so many tokens are there. */
static inline size_t kvt_pages_held(const kvt_group *group, size_t tokens)
{
    return group->view.v.open_dtype ? tokens / KVT_PAGE_TOKENS : kvt_pages_of(tokens);
}

/* The first page that the query behind so many tokens sees. */
static inline size_t kvt_first_seen(const kvt_group *group, size_t tokens)
{
    return group->window && tokens >= group->window ? (tokens - group->window + 1) / KVT_PAGE_TOKENS : 0;
}

/* The first page that so many tokens and those behind them need and that is missing, if pages before `given` are; or `given`. */
static inline size_t kvt_first_missing(const kvt_group *group, size_t tokens, size_t given)
{
    const size_t first = kvt_larger(kvt_first_seen(group, tokens), kvt_pages_of(group->first_kept));
    return first < kvt_smaller(given, kvt_pages_of(tokens)) ? first : given;
}

/* The sequence, or NULL with the status. */
kvt_record *kvt_record_of(const kvt_cache *cache, uint32_t id, kvt_status *status);

/* Where a sentence about it goes. */
static inline kvt_problem kvt_why(kvt_record *record)
{
    return (kvt_problem){ record->why, sizeof record->why };
}

/* The entry that steps have of a sequence, of a table of it. */
static inline kvt_sequence kvt_entry_of(const kvt_holding *h, const uint32_t *table, size_t n, size_t stored, uint32_t fresh)
{
    return (kvt_sequence){ .blocks = table, .n_blocks = n, .open = { h->open[0], h->open[1] }, .stored = stored, .fresh = fresh };
}

void kvt_drop_marks(kvt_cache *cache, kvt_record *record, size_t above);

/* Turns rows as kvt_rope_turn does, by cosines and sines that were filled before, [pairs] each. */
void kvt_rope_angles(const kvt_rope *rope, int64_t positions, float *cosines, float *sines);
void kvt_rope_apply(const kvt_rope *rope, const float *cosines, const float *sines, float *rows, size_t n, ptrdiff_t stride);

/* A rope as this version has it. Errors: NULL, STRUCT_SIZE, DIM (of rows of `dim` channels; 0: any), NUMBER. */
kvt_status kvt_rope_take(const kvt_rope *given, uint32_t dim, kvt_rope *rope);

#endif
