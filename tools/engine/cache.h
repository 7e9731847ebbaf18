/* SPDX-License-Identifier: MIT */
/* The model's KV cache and the attention over it: kvtile's pages and kernels, or plain f32 rows and plain C to compare them with. */
#ifndef KVT_ENGINE_CACHE_H
#define KVT_ENGINE_CACHE_H

#include "tools/engine/checkpoint.h"
#include "tools/pool/pool.h"

#include <kvtile/saved.h>

/* How rows are stored; all zero is not a way. */
typedef struct cache_way {
    bool reference; /* plain f32, and nothing below counts */
    kvt_scheme k_scheme, v_scheme;
    kvt_rotation rotation; /* of both */
    kvt_centring centring;
    kvt_dtype open;   /* of rows of unfinished pages, which own centres need; 0: rows go to their pages at once */
    kvt_scheme first; /* of both sides of the first page; KVT_SCHEME_NONE: that of the others */
} cache_way;

/* Where a layer is: which of the cache's groups, and which of its layers. */
typedef struct cache_place {
    uint32_t group, layer;
} cache_place;

typedef struct kv_cache {
    const checkpoint *model;
    pool *threads;
    bool reference;
    size_t room;        /* tokens */
    size_t bytes;       /* of blocks for `room` tokens of each sequence */
    size_t token_bytes; /* that a further token takes, in all layers and heads */
    double bits;        /* stored per element, scales and centres included */

    kvt_cache *cache; /* layers with the same window and the same RoPE are a group */
    void *memory;
    cache_place *places; /* [layer] */
    uint32_t n_groups;
    uint32_t id, prefix;                        /* the sequence, and the one that it was forked from, or KVT_NO_SEQUENCE */
    kvt_sequence entries[KVT_CACHE_MAX_GROUPS]; /* of the token that is run */
    uint32_t *tokens;                           /* [room] of the sequence */
    void *workspace;
    size_t workspace_bytes;
    unsigned char *scratch_memory; /* [worker] of kvt_cache_work, each scratch_bytes */
    size_t scratch_bytes;
    float *rows;  /* [2][64][kv_dim], that are read back */
    bool strange; /* some number that came is not finite */
    bool lost;    /* some number is not, though all that came are */

    float *keys, *values; /* of the reference: [layer][kv head][room][head_dim] */
    float *scratch;       /* [worker], of attention */

    /* Of the reference: called when a token's rows are in, before they are attended to, and may change what is there. NULL: nothing */
    void (*appended)(void *owner, size_t layer, size_t position);
    void *owner;
} kv_cache;

/* Room for `tokens` tokens, at least 1, in each of `sequences` sequences (1 or 2; of the reference 1). The model and the threads must outlive the
 * cache. 0, or -1 with the error. */
int cache_open(kv_cache *cache, const checkpoint *model, const cache_way *way, size_t tokens, uint32_t sequences, pool *threads, error_text *error);
void cache_close(kv_cache *cache);

/* Tokens that are stored. Not of the reference, as all that follows. */
size_t cache_tokens(const kv_cache *cache);

/* A token's rows come, of all layers; cache_end counts it as stored. */
void cache_begin(kv_cache *cache, uint32_t token, size_t position);
void cache_end(kv_cache *cache);

/* Stores a token's rows, [kv head][head_dim]. Tokens come in order. */
void cache_append(kv_cache *cache, size_t layer, size_t position, const float *keys, const float *values);

/* out and queries: [head][head_dim]. The query at `position` sees all tokens up to there. */
void cache_attend(const kv_cache *cache, size_t layer, size_t position, const float *queries, float *out);

/* Tokens first .. end - 1 go; those behind move up, their keys turned. */
void cache_remove(kv_cache *cache, size_t first, size_t end);

/* Only the first `tokens` stay: one less than there are, or the prefix. */
void cache_truncate(kv_cache *cache, size_t tokens);

/* What is stored becomes a prefix: the sequence goes on in a fork of it, and begins anew there each time it is called. Of a cache of two sequences.
 */
void cache_fork(kv_cache *cache);

/* The sequence into a file, and out of one into a cache that is empty. 0, or -1 with the error. */
int cache_save(kv_cache *cache, const char *path, error_text *error);
int cache_load(kv_cache *cache, const char *path, error_text *error);

#endif
