/* The model's KV cache and the attention over it: kvtile's pages and kernels, or plain f32 rows and plain C to compare them with. */
#ifndef KVT_ENGINE_CACHE_H
#define KVT_ENGINE_CACHE_H

#include "tools/engine/checkpoint.h"
#include "tools/pool/pool.h"

#include <kvtile/step.h>

/* How rows are stored; all zero is not a way. */
typedef struct cache_way {
    bool reference; /* plain f32, and nothing below counts */
    kvt_scheme k_scheme, v_scheme;
    kvt_rotation rotation; /* of both */
    kvt_centring centring;
    kvt_dtype open;   /* of rows of unfinished pages, which own centres need; 0: rows go to their pages at once */
    kvt_scheme first; /* of both sides of the first page; KVT_SCHEME_NONE: that of the others */
} cache_way;

typedef struct kv_cache {
    const checkpoint *model;
    pool *threads;
    bool reference;
    size_t room;        /* tokens */
    size_t bytes;       /* allocated for `room` tokens */
    size_t token_bytes; /* that a further token takes, in all layers and heads */
    double bits;        /* stored per element, scales and centres included */

    kvt_layout layout, first; /* of every layer */
    kvt_view view;
    void *memory;                /* of the view's pools */
    uint32_t *blocks;            /* [n_blocks], of all layers */
    size_t n_blocks, open_bytes; /* of a head's open page */
    void *workspace;
    size_t workspace_bytes;
    float *rows;  /* [2][64][kv_dim], that are read back */
    bool strange; /* some number that came is not finite */
    bool lost;    /* some number is not, though all that came are */

    float *keys, *values; /* of the reference: [layer][kv head][room][head_dim] */
    float *scratch;       /* [worker], of attention */

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
