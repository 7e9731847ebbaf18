/* SPDX-License-Identifier: MIT */
/* A cache of one group, and a sequence in it: what tests of kvtile/saved.h and its fuzz target begin with. Whatever fails aborts. */
#ifndef KVT_TESTS_CACHE_HOME_H
#define KVT_TESTS_CACHE_HOME_H

#include <kvtile/saved.h>

#include <stdlib.h>
#include <string.h>

typedef struct cache_home {
    kvt_cache *cache;
    void *memory, *scratch;
    size_t bytes, scratch_bytes;
    uint32_t id;
} cache_home;

static inline void home_must(int holds)
{
    if (!holds)
        abort();
}

static inline void *home_memory(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    home_must(memory != NULL);
    memset(memory, 0x5a, bytes);
    return memory;
}

/* *group has layers, blocks, open_dtype and rope; *spec has widths and heads. */
static inline void home_open(cache_home *h, kvt_preset preset, kvt_spec *spec, kvt_cache_group *group, const kvt_cache_spec *others)
{
    kvt_spec first;
    kvt_cache_spec wanted = *others;
    home_must(kvt_preset_spec(preset, spec, &first) == KVT_OK);
    group->size = sizeof *group;
    group->spec = spec;
    group->first_spec = &first;
    wanted.size = sizeof wanted;
    wanted.groups = group;
    wanted.n_groups = 1;
    home_must(kvt_cache_bytes(&wanted, &h->bytes) == KVT_OK);
    h->memory = home_memory(h->bytes);
    home_must(kvt_cache_init(&wanted, h->memory, h->bytes, &h->cache) == KVT_OK && kvt_cache_new(h->cache, &h->id) == KVT_OK);
    h->scratch_bytes = kvt_cache_work_bytes(h->cache);
    h->scratch = home_memory(h->scratch_bytes);
}

static inline void home_close(const cache_home *h)
{
    free(h->memory);
    free(h->scratch);
}

/* `tokens` more tokens of f16 numbers, the same in all layers. */
static inline void home_fill(const cache_home *h, size_t tokens)
{
    const kvt_view *view = kvt_cache_view(h->cache, 0);
    const size_t heads = view->layout->spec.kv_heads, dim = view->layout->k.dim > view->layout->v.dim ? view->layout->k.dim : view->layout->v.dim;
    uint16_t *rows = malloc(tokens * heads * dim * sizeof *rows);
    kvt_sequence entry;
    home_must(rows != NULL);
    for (size_t i = 0; i < tokens * heads * dim; i++)
        rows[i] = (uint16_t)(0x3000 + i * 37 % 0x800);
    home_must(kvt_cache_append(h->cache, h->id, (uint32_t)tokens) == KVT_OK && kvt_cache_entry(h->cache, h->id, 0, &entry) == KVT_OK);
    const kvt_view_rows stored = { .size = sizeof stored,
                                   .view = view,
                                   .sequence = &entry,
                                   .first_token = entry.stored,
                                   .n_tokens = tokens,
                                   .layers = view->layers,
                                   .rows = rows,
                                   .dtype = KVT_F16,
                                   .token_stride = (ptrdiff_t)(heads * dim * sizeof *rows),
                                   .head_stride = (ptrdiff_t)(dim * sizeof *rows) };
    home_must(kvt_view_write(&stored, 0, 1) == KVT_OK && kvt_cache_commit(h->cache, h->id, (uint32_t)tokens) == KVT_OK);
    free(rows);
}

/* What asks for f32 results of f16 queries that came with tokens which are stored already. */
static inline kvt_step home_question(const kvt_view *view, uint32_t layer, const kvt_sequence *entry, uint32_t heads, const uint16_t *q, float *out,
                                     void *workspace, size_t bytes)
{
    return (kvt_step){ .size = sizeof(kvt_step),
                       .view = view,
                       .layer = layer,
                       .sequences = entry,
                       .n_sequences = 1,
                       .heads = heads,
                       .dtype = KVT_F16,
                       .out_dtype = KVT_F32,
                       .q = q,
                       .out = out,
                       .scale = 0.25f,
                       .workspace = workspace,
                       .workspace_bytes = bytes };
}

/* Bytes in memory, as the functions of kvtile/saved.h write and read them. */
typedef struct home_tape {
    unsigned char *bytes;
    size_t size, at;
} home_tape;

static inline int home_write(void *context, const void *bytes, size_t n)
{
    home_tape *to = context;
    home_must(n <= to->size - to->at);
    memcpy(to->bytes + to->at, bytes, n);
    to->at += n;
    return 0;
}
static inline int home_read(void *context, void *bytes, size_t n)
{
    home_tape *from = context;
    if (n > from->size - from->at)
        return -1;
    memcpy(bytes, from->bytes + from->at, n);
    from->at += n;
    return 0;
}

/* The whole sequence; the caller frees its bytes. */
static inline home_tape home_save(const cache_home *h, uint64_t model, const uint32_t *token_ids)
{
    const kvt_save save = { .size = sizeof save, .model = model, .token_ids = token_ids };
    home_tape to = { 0 };
    home_must(kvt_cache_save_bytes(h->cache, h->id, &save, &to.size) == KVT_OK);
    to.bytes = home_memory(to.size);
    home_must(kvt_cache_save(h->cache, h->id, &save, home_write, &to, h->scratch, h->scratch_bytes) == KVT_OK && to.at == to.size);
    return to;
}

#endif
