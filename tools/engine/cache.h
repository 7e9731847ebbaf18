/* The model's KV cache and the attention over it: kvtile's pages and kernels, or plain f32 rows and plain C to compare them with. */
#ifndef KVT_ENGINE_CACHE_H
#define KVT_ENGINE_CACHE_H

#include "tools/engine/checkpoint.h"
#include "tools/pool/pool.h"

#include <kvtile/attend.h>

/* How rows are stored; all zero is not a way. */
typedef struct cache_way {
    bool reference; /* plain f32, and nothing below counts */
    kvt_scheme k_scheme, v_scheme;
    kvt_rotation rotation; /* of both */
    kvt_centring centring;
} cache_way;

typedef struct kv_cache {
    const checkpoint *model;
    pool *threads;
    bool reference;
    size_t room;        /* tokens */
    size_t bytes;       /* allocated for `room` tokens */
    size_t token_bytes; /* that a further token takes, in all layers and heads */
    double bits;        /* stored per element, with scales, centres and padding */

    kvt_layout layout;         /* of every layer */
    kvt_pages *pages;          /* [layer][kv head] */
    void *memory;              /* [layer][kv head][page] */
    kvt_attend_sizes sizes;    /* with all tokens there */
    unsigned char *workspaces; /* [worker][workspace_stride] */
    size_t workspace_stride;
    unsigned char *partials; /* [kv head][chunk][sizes.partial_bytes] */
    float *row;              /* [head_dim], of a row that is read back */
    bool lost;               /* some number that was finite is stored as none */

    float *keys, *values; /* of the reference: [layer][kv head][room][head_dim] */
    float *scores;        /* [worker][room] */

    /* Of the reference: called when a token's rows are in, before they are attended to, and may change what is there. NULL: nothing */
    void (*appended)(void *owner, size_t layer, size_t position);
    void *owner;
} kv_cache;

/* Room for `tokens` tokens, at least 1. The model and the threads must outlive the cache. 0, or -1 with the error. */
int cache_open(kv_cache *cache, const checkpoint *model, const cache_way *way, size_t tokens, pool *threads, error_text *error);
void cache_close(kv_cache *cache);

/* Stores a token's rows, [kv head][head_dim]. Tokens come in order. */
void cache_append(kv_cache *cache, size_t layer, size_t position, const float *keys, const float *values);

/* out and queries: [head][head_dim]. The query at `position` sees all tokens up to there. */
void cache_attend(const kv_cache *cache, size_t layer, size_t position, const float *queries, float *out);

#endif
