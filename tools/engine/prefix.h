/* SPDX-License-Identifier: MIT */
/* The beginning of a prompt out of a folder of blocks, and into it: docs/store.md. */
#ifndef KVT_ENGINE_PREFIX_H
#define KVT_ENGINE_PREFIX_H

#include "tools/engine/cache.h"
#include "tools/store/store.h"

typedef struct prefix {
    kv_cache *cache;
    store *folder;
    uint64_t model;
    store_key *keys; /* [n_keys] of the blocks that are in the cache; the first is that of no tokens */
    size_t n_keys, most;
    size_t taken, kept; /* tokens, and blocks */
    uint64_t bytes;     /* of blocks that were taken or kept */
} prefix;

/* Of a cache that is empty, and not the reference. A folder without a budget gets one of a gibibyte. 0, or -1 with the error; prefix_close is due
 * after success. */
int prefix_open(prefix *p, kv_cache *cache, const char *folder, error_text *error);
void prefix_close(prefix *p);

/* Loads what is there of the prompt, but for its last token, which has to be run. 0, or -1 with the error. */
int prefix_take(prefix *p, const uint32_t *tokens, size_t n, error_text *error);

/* Keeps the block before the last token, if that is the first one behind a block. 0, or -1 with the error. */
int prefix_keep(prefix *p, error_text *error);

#endif
