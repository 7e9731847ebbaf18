/* SPDX-License-Identifier: MIT */
#include "tools/engine/prefix.h"

#include <stdlib.h>
#include <string.h>

/* ---- what the rows of a block depend on ---- */

typedef struct fingerprint {
    unsigned char bytes[8192];
    size_t n;
    bool fits;
} fingerprint;

static void fingerprint_add(fingerprint *f, const void *bytes, size_t n)
{
    f->fits = f->fits && n <= sizeof f->bytes - f->n;
    if (f->fits) {
        memcpy(f->bytes + f->n, bytes, n);
        f->n += n;
    }
}

static void add_key(fingerprint *f, const void *bytes, size_t n)
{
    const store_key key = store_first_key(bytes, n);
    fingerprint_add(f, &key, sizeof key);
}

/* Every weight, as two models may differ in one layer alone. */
static void add_model(fingerprint *f, const checkpoint *m)
{
    const uint32_t sizes[] = { m->dim,      m->ffn,    m->layers,  m->heads,     m->kv_heads,   m->vocabulary, m->own_classifier,
                               m->head_dim, m->q_bias, m->kv_bias, m->head_norm, m->after_norm, m->gelu };
    const float numbers[] = { m->embedding_scale, m->attention_scale, m->rms_epsilon, m->rope_scale };
    fingerprint_add(f, sizes, sizeof sizes);
    fingerprint_add(f, numbers, sizeof numbers);
    add_key(f, m->frequencies, m->head_dim * sizeof *m->frequencies);
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        const uint32_t kind[] = { m->kinds[layer].window, m->kinds[layer].rope };
        fingerprint_add(f, kind, sizeof kind);
    }
    add_key(f, m->weights, m->n_weights * sizeof *m->weights);
}

static void add_layouts(fingerprint *f, const kv_cache *cache)
{
    for (uint32_t g = 0; g < cache->n_groups; g++) {
        const kvt_view *view = kvt_cache_view(cache->cache, g);
        unsigned char bytes[2][KVT_SPEC_BYTES] = { { 0 } };
        const uint32_t open = (uint32_t)view->open_dtype;
        f->fits = f->fits && kvt_spec_to_bytes(&view->layout->spec, bytes[0]) == KVT_OK &&
                  (view->first_layout == NULL || kvt_spec_to_bytes(&view->first_layout->spec, bytes[1]) == KVT_OK);
        fingerprint_add(f, bytes, sizeof bytes);
        fingerprint_add(f, &open, sizeof open);
    }
}

/* ---- blocks ---- */

int prefix_open(prefix *p, kv_cache *cache, const char *folder, error_text *error)
{
    fingerprint f = { .fits = true };
    *p = (prefix){ .cache = cache, .most = cache->room / STORE_TOKENS };
    add_model(&f, cache->model);
    add_layouts(&f, cache);
    if (!f.fits)
        return error_set(error, "%u layers are more than a store's key takes", cache->model->layers);
    int result = store_open_limited(&p->folder, folder, error);
    p->keys = malloc((p->most + 1) * sizeof *p->keys);
    if (result == 0 && p->keys == NULL)
        result = error_set(error, "%zu blocks: out of memory", p->most);
    if (result != 0) {
        prefix_close(p);
        return -1;
    }
    p->keys[p->n_keys++] = store_first_key(f.bytes, f.n);
    memcpy(&p->model, p->keys[0].bytes, sizeof p->model);
    return 0;
}

void prefix_close(prefix *p)
{
    if (p->folder != NULL && p->n_keys > 1)
        store_use(p->folder, p->keys + 1, p->n_keys - 1);
    store_close(p->folder);
    free(p->keys);
    *p = (prefix){ 0 };
}

typedef struct buffer {
    unsigned char *bytes;
    size_t n, room;
} buffer;

static int read_buffer(void *context, void *bytes, size_t n)
{
    buffer *from = context;
    if (n > from->room - from->n)
        return -1;
    memcpy(bytes, from->bytes + from->n, n);
    from->n += n;
    return 0;
}

static int write_buffer(void *context, const void *bytes, size_t n)
{
    buffer *to = context;
    if (n > to->room - to->n)
        return -1;
    memcpy(to->bytes + to->n, bytes, n);
    to->n += n;
    return 0;
}

static int load_prefix_block(const prefix *p, unsigned char *bytes, size_t n, error_text *error)
{
    kv_cache *cache = p->cache;
    kvt_saved saved;
    char why[200];
    if (kvt_saved_open(bytes, n, &saved, why, sizeof why) != KVT_OK || saved.bytes != n)
        return error_set(error, "a block is no saved sequence: %s", saved.bytes != n ? "its size" : why);
    buffer from = { .bytes = bytes, .n = saved.head_bytes, .room = n };
    /* Windows give blocks back when something is committed. */
    if (kvt_cache_load(cache->cache, cache->id, &saved, p->model, read_buffer, &from) == KVT_OK &&
        kvt_cache_commit(cache->cache, cache->id, 0) == KVT_OK)
        return 0;
    kvt_cache_problem(cache->cache, cache->id, why, sizeof why);
    return error_set(error, "a block cannot be loaded: %s", why);
}

int prefix_take(prefix *p, const uint32_t *tokens, size_t n, error_text *error)
{
    int found = 1;
    while (found == 1 && p->taken + STORE_TOKENS < n && p->n_keys <= p->most) {
        const uint32_t *ids = tokens + p->taken;
        const store_key *previous = &p->keys[p->n_keys - 1];
        void *bytes;
        size_t size;
        found = store_get(p->folder, previous, ids, &bytes, &size, error);
        if (found != 1)
            break;
        const int result = load_prefix_block(p, bytes, size, error);
        free(bytes);
        if (result != 0)
            return -1;
        p->keys[p->n_keys] = store_next_key(previous, ids);
        p->n_keys++;
        memcpy(p->cache->tokens + p->taken, ids, STORE_TOKENS * sizeof *ids);
        p->taken += STORE_TOKENS;
        p->bytes += size + STORE_HEADER;
    }
    return found < 0 ? -1 : 0;
}

static int save(const prefix *p, const kvt_save *wanted, buffer *to, error_text *error)
{
    const kv_cache *cache = p->cache;
    kvt_status status = kvt_cache_save_bytes(cache->cache, cache->id, wanted, &to->room);
    if (status == KVT_OK && (to->bytes = malloc(to->room)) == NULL)
        return error_set(error, "a block of %zu bytes: out of memory", to->room);
    if (status == KVT_OK)
        status = kvt_cache_save(cache->cache, cache->id, wanted, write_buffer, to, cache->scratch_memory, cache->scratch_bytes);
    return status == KVT_OK ? 0 : error_set(error, "tokens %zu to %zu cannot be kept: %s", wanted->first, wanted->end, kvt_status_text(status));
}

int prefix_keep(prefix *p, error_text *error)
{
    const size_t n = p->n_keys * STORE_TOKENS;
    if (cache_tokens(p->cache) != n + 1 || p->n_keys > p->most)
        return 0; /* as the end of all tokens it would be saved with rows of open pages */
    const kvt_save wanted = { .size = sizeof wanted, .model = p->model, .first = n - STORE_TOKENS, .end = n };
    const uint32_t *ids = p->cache->tokens + wanted.first;
    const store_key *previous = &p->keys[p->n_keys - 1];
    buffer to = { 0 };
    int result = save(p, &wanted, &to, error);
    if (result == 0)
        result = store_put(p->folder, previous, ids, to.bytes, to.n, error);
    free(to.bytes);
    if (result != 0)
        return -1;
    p->keys[p->n_keys] = store_next_key(previous, ids);
    p->n_keys++;
    p->kept++;
    p->bytes += to.n + STORE_HEADER;
    return 0;
}
