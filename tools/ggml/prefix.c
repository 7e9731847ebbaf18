/* SPDX-License-Identifier: MIT */
#include "tools/ggml/prefix.h"

#include "tools/files/error.h"
#include "tools/ggml/layers.h"
#include "tools/ggml/ops.h"
#include "tools/store/store.h"

#include <kvtile/saved.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum {
    MOST_RUNS = 16,  /* threads that compute graphs */
    MOST_INPUTS = 8, /* of a graph that are alike */
    PIECES = 64,     /* of a weight that tell it from others, each of */
    PIECE = 256,     /* bytes */
    KNOWN = 4        /* graphs of a cache whose key is known */
};

static struct {
    store *folder;
    const char *path;
    pthread_mutex_t lock; /* of folder */
    atomic_bool has_failed;
} kept = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* A stream's tokens from the first on, as far as they are known, and the keys before each of their blocks. */
typedef struct chain {
    uint32_t *ids;
    store_key *keys; /* keys[0] is the graph's */
    size_t n, room;
    size_t in_folder; /* blocks */
    bool is_used;     /* blocks were taken or put that the folder has not been told of as a chain */
} chain;

/* Of a cache. */
typedef struct prefix {
    uint64_t changes; /* of the cache that are known; another number: nothing is known */
    layer **layers;
    size_t n_layers;
    chain *chains; /* [streams] */
    size_t streams;
    struct {
        uint64_t quick;
        store_key key;
    } known[KNOWN];
    size_t n_known;
    store_key key;
    /* The last graph that was followed: its number, its stream, whether its blocks are still to be put into the folder, and whether it was computed.
     */
    uint64_t graph;
    size_t stream;
    bool is_pending, was_computed;
    size_t taken, put; /* tokens, blocks */
    const char *why;   /* a graph was not followed */
} prefix;

/* A thread that computes graphs, and the graph that it is at. */
typedef struct run {
    const struct ggml_tensor **nodes;
    size_t n, room;
    bool is_computing, is_decided;
    const cache *_Atomic owner; /* of the last graph that was skipped */
    uintptr_t lowest, highest;  /* node: no other graph has nodes between while this one is there */
    atomic_bool skips;          /* it is not computed */
} run;

static run runs[MOST_RUNS];
static atomic_uint n_runs;
static _Thread_local run *my_run;

bool prefix_is_on(void)
{
    return kept.folder != NULL;
}

/* ---- a graph ---- */

typedef struct graph {
    const struct ggml_tensor *tokens;
    const struct ggml_tensor *cells[MOST_INPUTS], *positions[MOST_INPUTS], *masks[MOST_INPUTS], *picks[MOST_INPUTS];
    size_t n_cells, n_positions, n_masks, n_picks;
    cache *owner;
    size_t n_layers;
    size_t n;             /* tokens */
    size_t stream, first; /* of the first token, its cell */
    bool has_results, has_no_result;
} graph;

static const struct ggml_tensor *root_of(const struct ggml_tensor *t)
{
    return t && t->view_src ? t->view_src : t;
}

static bool is_input(const struct ggml_tensor *t)
{
    return (t->flags & GGML_TENSOR_FLAG_INPUT) != 0;
}

static bool is_empty_tensor(const struct ggml_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3] == 0;
}

/* Turned by them, or added to a table's rows. */
static bool takes_positions(const struct ggml_tensor *op)
{
    return (op->op == host.ROPE || (op->op == host.GET_ROWS && root_of(op->src[0])->op == host.NONE)) && is_input(root_of(op->src[1]));
}

/* Behind the last layer's cells nothing is computed for tokens of which nobody wants a result. */
static bool picks_results(const struct ggml_tensor *op)
{
    return op->op == host.GET_ROWS && root_of(op->src[0])->op != host.NONE && is_input(root_of(op->src[1]));
}

static bool add_input(const struct ggml_tensor **list, size_t *n, const struct ggml_tensor *input)
{
    size_t i = 0;
    while (i < *n && list[i] != input)
        i++;
    if (i == MOST_INPUTS)
        return false;
    list[i] = input;
    *n += i == *n;
    return true;
}

/* The mask may be another input in 16 bits, which is not there yet. */
static const struct ggml_tensor *input_of_mask(const struct ggml_tensor *mask)
{
    const struct ggml_tensor *root = root_of(mask);
    return root && !is_input(root) && root->op == host.CPY ? root_of(root->src[0]) : root;
}

static bool is_of_tokens(const struct ggml_tensor *op)
{
    return op->op == host.GET_ROWS && op->src[1] && strcmp(op->src[1]->name, "inp_tokens") == 0;
}

/* What the graph does. NULL, or why it is not followed. */
static const char *read_node(graph *g, const struct ggml_tensor *op)
{
    layer *to = layer_of(op), *keys = op->op == host.FLASH_ATTN_EXT ? layer_of(op->src[1]) : NULL;
    layer *l = to ? to : keys;
    if (op->flags & GGML_TENSOR_FLAG_OUTPUT) {
        g->has_results |= !is_empty_tensor(op);
        g->has_no_result |= is_empty_tensor(op);
    }
    if (ops_is_view(op->op))
        return NULL;
    if (l && g->owner && l->owner != g->owner)
        return "it has two caches";
    if (l)
        g->owner = l->owner;
    if (l && (!l->is_stored || l->is_raw_newer[0] || l->is_raw_newer[1]))
        return "a layer is ggml's";
    if (is_of_tokens(op))
        g->tokens = op->src[1];
    else if (takes_positions(op) && !add_input(g->positions, &g->n_positions, root_of(op->src[1])))
        return "it has many positions";
    else if (picks_results(op) && !add_input(g->picks, &g->n_picks, root_of(op->src[1])))
        return "it has many results";
    if (to) {
        if (!ops_is_of_rows(to, op) || !is_input(root_of(op->src[1])) || !add_input(g->cells, &g->n_cells, root_of(op->src[1])))
            return "cells are written in other ways";
        g->n_layers += layer_side(to, op) == 0;
    } else if (ops_is_ours(op)) {
        return "the model has other memory";
    }
    if (keys && (!op->src[3] || !is_input(input_of_mask(op->src[3])) || !add_input(g->masks, &g->n_masks, input_of_mask(op->src[3]))))
        return "it has other masks";
    return NULL;
}

static bool is_listed(const struct ggml_tensor *const *list, size_t n, const struct ggml_tensor *input)
{
    bool does = false;
    for (size_t i = 0; i < n; i++)
        does |= list[i] == input;
    return does;
}

static bool is_known(const graph *g, const struct ggml_tensor *input)
{
    return input == g->tokens || is_listed(g->cells, g->n_cells, input) || is_listed(g->positions, g->n_positions, input) ||
           is_listed(g->masks, g->n_masks, input) || is_listed(g->picks, g->n_picks, input);
}

/* Its results depend on nothing that is not known. */
static const char *check_sources(const graph *g, const struct ggml_tensor *op)
{
    const bool is_ours = layer_of(op) || (op->op == host.FLASH_ATTN_EXT && layer_of(op->src[1]));
    for (int i = 0; i < GGML_MAX_SRC && !ops_is_view(op->op); i++) {
        const struct ggml_tensor *root = root_of(op->src[i]);
        if (!root)
            continue;
        if (!is_ours && ops_is_ours(root))
            return "ggml reads cells, or other memory of the model's";
        if (is_input(root) && !is_empty_tensor(root) && !is_known(g, root))
            return "it has other inputs";
    }
    return NULL;
}

static int64_t number_at(const struct ggml_tensor *t, size_t i)
{
    const uint8_t *at = (const uint8_t *)t->data + i * t->nb[0];
    int64_t wide;
    int32_t narrow;
    if (t->type != GGML_TYPE_I64) {
        memcpy(&narrow, at, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, at, sizeof wide);
    return wide;
}

/* One for each token; or, of models that see pictures too, four, and the first three are a text's. */
static bool are_positions(const graph *g, const struct ggml_tensor *t)
{
    const size_t n = (size_t)t->ne[0];
    bool are = t->type == GGML_TYPE_I32 && (n == g->n || n == 4 * g->n);
    for (size_t i = 0; are && i < n; i++)
        are = number_at(t, i) == (i < 3 * g->n ? (int64_t)(g->first + i % g->n) : 0);
    return are;
}

static bool is_causal_mask(const graph *g, const struct ggml_tensor *mask)
{
    const bool is_half = mask->type == GGML_TYPE_F16;
    const size_t width = is_half ? 2 : 4;
    if ((!is_half && mask->type != GGML_TYPE_F32) || mask->nb[0] != width || mask->ne[1] < (int64_t)g->n || mask->ne[2] * mask->ne[3] != 1)
        return false;
    bool is = true;
    for (size_t i = 0; is && i < g->n; i++) {
        const uint8_t *row = (const uint8_t *)mask->data + i * mask->nb[1];
        for (size_t cell = 0; cell < (size_t)mask->ne[0]; cell++) {
            uint32_t value = 0; /* 0, or -infinity */
            memcpy(&value, row + cell * width, width);
            is &= value == (cell <= g->first + i ? 0 : is_half ? 0xfc00u : 0xff800000u);
        }
    }
    return is;
}

/* What the inputs are. NULL, or why the graph is not followed. */
static const char *check_inputs(graph *g)
{
    const size_t cells = (size_t)g->owner->layers->tensor[0]->ne[1];
    g->n = (size_t)g->tokens->ne[0];
    const int64_t first = number_at(g->cells[0], 0);
    g->stream = (size_t)first / cells;
    g->first = (size_t)first % cells;
    if (g->first + g->n > cells)
        return "cells do not follow each other";
    for (size_t c = 0; c < g->n_cells; c++)
        for (size_t i = 0; i < g->n; i++)
            if (g->cells[c]->ne[0] != (int64_t)g->n || number_at(g->cells[c], i) != first + (int64_t)i)
                return "cells do not follow each other";
    for (size_t i = 0; i < g->n_positions; i++)
        if (!are_positions(g, g->positions[i]))
            return "cells are not positions";
    for (size_t i = 0; i < g->n_masks; i++)
        if (!is_causal_mask(g, g->masks[i]))
            return "tokens do not see all that is before them";
    return NULL;
}

static const char *read_graph(const run *r, graph *g)
{
    const char *why = NULL;
    for (size_t i = 0; i < r->n; i++) {
        const char *now = read_node(g, r->nodes[i]);
        why = why ? why : now;
    }
    if (why || !g->owner)
        return why;
    size_t layers = 0;
    for (const layer *l = g->owner->layers; l; l = l->next)
        layers++;
    if (!g->tokens || !g->n_cells || !g->n_masks || g->n_layers != layers)
        return "it is no whole step of a text's tokens";
    for (size_t i = 0; i < r->n && !why; i++)
        why = check_sources(g, r->nodes[i]);
    return why ? why : check_inputs(g);
}

/* ---- keys ---- */

/* Of a weight the bytes of `pieces` places, or all. */
static void add_weight(XXH3_state_t *hash, const struct ggml_tensor *t, size_t pieces)
{
    const size_t bytes = host.ggml_nbytes(t);
    XXH3_128bits_update(hash, t->name, strlen(t->name) + 1);
    XXH3_128bits_update(hash, &t->type, sizeof t->type);
    XXH3_128bits_update(hash, t->ne, sizeof t->ne);
    if (pieces == 1)
        XXH3_128bits_update(hash, &t->data, sizeof t->data);
    if (bytes <= pieces * PIECE)
        XXH3_128bits_update(hash, t->data, bytes);
    else
        for (size_t i = 0; i < pieces; i++)
            XXH3_128bits_update(hash, (const uint8_t *)t->data + (bytes - PIECE) / (pieces + 1) * (i + 1), PIECE);
}

/* What the rows depend on beside tokens: operations with their parameters, which are the model and its options, its weights, and how rows are stored.
 * How many tokens there are leaves no trace. */
static XXH128_hash_t hash_graph(const run *r, const cache *c, size_t pieces)
{
    XXH3_state_t hash;
    XXH3_INITSTATE(&hash);
    XXH3_128bits_reset(&hash);
    for (size_t n = 0; n < r->n; n++) {
        const struct ggml_tensor *op = r->nodes[n];
        if (ops_is_view(op->op))
            continue;
        const char *name = host.ggml_op_name(op->op);
        XXH3_128bits_update(&hash, name, strlen(name) + 1);
        XXH3_128bits_update(&hash, &op->type, sizeof op->type);
        XXH3_128bits_update(&hash, op->op_params, sizeof op->op_params);
        for (int i = 0; i < GGML_MAX_SRC; i++) {
            const struct ggml_tensor *root = root_of(op->src[i]);
            if (root && root->op == host.NONE && !is_input(root) && !ops_is_ours(root))
                add_weight(&hash, root, pieces);
        }
    }
    for (const layer *l = c->layers; l; l = l->next)
        for (cells_form form = CELLS_OPEN; form < CELLS_FORMS; form++) {
            uint8_t bytes[KVT_SPEC_BYTES] = { 0 };
            if (l->rows.layout[form].page_bytes && kvt_spec_to_bytes(&l->rows.layout[form].spec, bytes) != KVT_OK)
                abort();
            XXH3_128bits_update(&hash, bytes, sizeof bytes);
        }
    return XXH3_128bits_digest(&hash);
}

/* Weights stay where they are and what they are as long as a cache is there, but for adapters: so a look at each is enough from the second graph on.
 */
static store_key graph_key(prefix *p, const run *r, const cache *c)
{
    const uint64_t quick = hash_graph(r, c, 1).low64;
    for (size_t i = 0; i < p->n_known; i++)
        if (p->known[i].quick == quick)
            return p->known[i].key;
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, hash_graph(r, c, PIECES));
    const size_t place = p->n_known < KNOWN ? p->n_known++ : 0;
    p->known[place].quick = quick;
    p->known[place].key = store_first_key(digest.digest, sizeof digest.digest);
    return p->known[place].key;
}

/* ---- chains ---- */

static void forget_chains(prefix *p)
{
    for (size_t i = 0; i < p->streams; i++)
        p->chains[i].n = p->chains[i].in_folder = 0;
    p->is_pending = false;
}

static bool make_prefix(cache *c)
{
    if (c->prefix)
        return c->prefix->layers && c->prefix->chains;
    prefix *p = calloc(1, sizeof *p);
    if (!p)
        return false;
    for (const layer *l = c->layers; l; l = l->next)
        p->n_layers++;
    p->streams = (size_t)c->layers->tensor[0]->ne[2];
    p->layers = calloc(p->n_layers, sizeof *p->layers);
    p->chains = calloc(p->streams, sizeof *p->chains);
    size_t i = p->n_layers; /* the list begins with the newest */
    for (layer *l = c->layers; l && p->layers; l = l->next)
        p->layers[--i] = l;
    p->changes = c->changes;
    c->prefix = p;
    return p->layers && p->chains;
}

/* The graph's tokens behind those that are known. False: there is a gap, or no memory. */
static bool follow(chain *h, const graph *g, const store_key *key)
{
    if (g->first > h->n)
        return false;
    const size_t n = g->first + g->n;
    if (n > h->room) {
        const size_t room = 2 * n;
        uint32_t *ids = realloc(h->ids, room * sizeof *ids);
        h->ids = ids ? ids : h->ids;
        store_key *keys = realloc(h->keys, (room / STORE_TOKENS + 1) * sizeof *keys);
        h->keys = keys ? keys : h->keys;
        if (!ids || !keys)
            return false;
        h->room = room;
    }
    h->keys[0] = *key;
    for (size_t i = 0; i < g->n; i++)
        h->ids[g->first + i] = (uint32_t)number_at(g->tokens, i);
    for (size_t block = g->first / STORE_TOKENS; block < n / STORE_TOKENS; block++)
        h->keys[block + 1] = store_next_key(&h->keys[block], h->ids + block * STORE_TOKENS);
    h->n = n;
    h->in_folder = h->in_folder < g->first / STORE_TOKENS ? h->in_folder : g->first / STORE_TOKENS;
    return true;
}

static size_t bytes_of_block(const prefix *p, size_t block)
{
    size_t bytes = 0;
    for (size_t i = 0; i < p->n_layers; i++)
        bytes += cells_saved_bytes(&p->layers[i]->rows, block);
    return bytes;
}

static void warn(const error_text *error)
{
    if (!atomic_exchange(&kept.has_failed, true))
        host_warn("kvtile: %s: %s\n", kept.path, error->text);
}

/* False: it is not whole in each layer, or cannot be kept. */
static bool put_block(prefix *p, const chain *h, size_t block, uint8_t *bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_layers; i++) {
        if (!cells_save(&p->layers[i]->rows, p->stream, block, bytes + n))
            return false;
        n += cells_saved_bytes(&p->layers[i]->rows, block);
    }
    error_text error;
    const bool is_put = store_put(kept.folder, &h->keys[block], h->ids + block * STORE_TOKENS, bytes, n, &error) == 0;
    if (!is_put)
        warn(&error);
    p->put += is_put;
    return is_put;
}

/* The last graph that was followed is over: its blocks go into the folder. */
static void put_blocks(cache *c)
{
    prefix *p = c->prefix;
    if (!p || !p->is_pending || p->changes != c->changes)
        return;
    p->is_pending = false;
    for (size_t i = 0; i < p->n_layers && p->was_computed; i++) {
        const layer *l = p->layers[i];
        if (l->computed[0] != p->graph || (l->tensor[1] && l->computed[1] != p->graph)) {
            forget_chains(p); /* it was broken off */
            return;
        }
    }
    chain *h = &p->chains[p->stream];
    const size_t end = h->n / STORE_TOKENS;
    if (h->in_folder < end) {
        /* The first block is the largest where it is stored in another way. */
        const size_t first = bytes_of_block(p, 0), other = bytes_of_block(p, 1);
        uint8_t *bytes = malloc(first > other ? first : other);
        while (bytes && h->in_folder < end && put_block(p, h, h->in_folder, bytes)) {
            h->in_folder++;
            h->is_used = true;
        }
        free(bytes);
    }
    if (h->is_used && p->was_computed) {
        store_use(kept.folder, h->keys + 1, h->in_folder);
        h->is_used = false;
    }
}

/* All of the graph's blocks, from the folder into the cells. False: nothing has changed. */
static bool take_blocks(prefix *p, chain *h, const graph *g)
{
    const size_t first = g->first / STORE_TOKENS, n = g->n / STORE_TOKENS;
    void **bytes = calloc(n, sizeof *bytes);
    bool is_there = bytes != NULL;
    for (size_t i = 0; i < n && is_there; i++) {
        error_text error;
        size_t count = 0;
        const int result = store_get(kept.folder, &h->keys[first + i], h->ids + (first + i) * STORE_TOKENS, &bytes[i], &count, &error);
        if (result < 0)
            warn(&error);
        bytes[i] = result == 1 ? bytes[i] : NULL;
        is_there = result == 1 && count == bytes_of_block(p, first + i);
    }
    for (size_t i = 0; i < n && is_there; i++) {
        const uint8_t *from = bytes[i];
        for (size_t k = 0; k < p->n_layers; k++) {
            cells_restore(&p->layers[k]->rows, g->stream, first + i, from);
            from += cells_saved_bytes(&p->layers[k]->rows, first + i);
        }
    }
    for (size_t i = 0; i < n && bytes; i++)
        free(bytes[i]);
    free(bytes);
    return is_there;
}

static void decide(run *r)
{
    graph g = { 0 };
    const char *why = read_graph(r, &g);
    if (!g.owner || !make_prefix(g.owner))
        return;
    cache *c = g.owner;
    prefix *p = c->prefix;
    put_blocks(c);
    if (why) {
        p->why = why;
        return;
    }
    const store_key key = graph_key(p, r, c);
    if (p->changes != c->changes || memcmp(&key, &p->key, sizeof key) != 0)
        forget_chains(p);
    p->changes = c->changes;
    p->key = key;
    c->followed = c->graph;
    chain *h = &p->chains[g.stream];
    if (!follow(h, &g, &key))
        return;
    p->graph = c->graph;
    p->stream = g.stream;
    p->is_pending = p->was_computed = true;
    const bool is_of_blocks = g.n && g.first % STORE_TOKENS == 0 && g.n % STORE_TOKENS == 0;
    if (!is_of_blocks || g.has_results || !g.has_no_result || !take_blocks(p, h, &g))
        return;
    h->in_folder = h->n / STORE_TOKENS;
    h->is_used = true;
    p->was_computed = false;
    p->taken += g.n;
    atomic_store(&c->is_computed, true);
    atomic_store(&r->owner, c);
    atomic_store(&r->skips, true);
}

/* ---- what is told ---- */

static bool is_skipped(const run *r, const struct ggml_tensor *op)
{
    return atomic_load(&r->skips) && (uintptr_t)op >= r->lowest && (uintptr_t)op <= r->highest;
}

/* A thread's run, made when it plans for the first time. NULL: there are too many. */
static run *own_run(void)
{
    if (!my_run) {
        unsigned i = atomic_load(&n_runs);
        while (i < MOST_RUNS && !atomic_compare_exchange_weak(&n_runs, &i, i + 1))
            ;
        my_run = i < MOST_RUNS ? &runs[i] : NULL;
        if (my_run)
            my_run->is_computing = true; /* so the first plan begins anew, as all do */
    }
    return my_run;
}

void prefix_plan(const struct ggml_tensor *op)
{
    run *r = own_run();
    const unsigned n = atomic_load(&n_runs);
    for (unsigned i = 0; i < n; i++)
        if (is_skipped(&runs[i], op)) /* a graph is computed again, perhaps by another thread */
            atomic_store(&runs[i].skips, false);
    if (!r)
        return;
    if (r->is_computing) {
        atomic_store(&r->skips, false);
        r->n = 0;
        r->lowest = UINTPTR_MAX;
        r->highest = 0;
        r->is_computing = r->is_decided = false;
    }
    if (!(op->flags & GGML_TENSOR_FLAG_COMPUTE))
        return;
    if (r->n == r->room) {
        const size_t room = r->room ? 2 * r->room : 1024;
        const struct ggml_tensor **nodes = realloc(r->nodes, room * sizeof *nodes);
        if (!nodes) {
            r->is_decided = true;
            return;
        }
        r->nodes = nodes;
        r->room = room;
    }
    r->nodes[r->n++] = op;
    r->lowest = (uintptr_t)op < r->lowest ? (uintptr_t)op : r->lowest;
    r->highest = (uintptr_t)op > r->highest ? (uintptr_t)op : r->highest;
}

bool prefix_compute(const ggml_workers *with, const struct ggml_tensor *op)
{
    run *r = with->ith == 0 ? my_run : NULL;
    const bool is_new = r && !r->is_decided;
    if (r)
        r->is_computing = true;
    if (is_of_tokens(op)) {
        if (is_new) {
            r->is_decided = true;
            pthread_mutex_lock(&kept.lock);
            decide(r);
            pthread_mutex_unlock(&kept.lock);
        }
        host.ggml_barrier(with->threadpool);
    }
    const unsigned n = atomic_load_explicit(&n_runs, memory_order_relaxed);
    bool skips = false;
    for (unsigned i = 0; i < n; i++)
        skips |= is_skipped(&runs[i], op);
    return skips;
}

static void change(cache *c)
{
    pthread_mutex_lock(&kept.lock);
    put_blocks(c);
    c->changes++;
    pthread_mutex_unlock(&kept.lock);
}

static void see_rows(layer *l, int side)
{
    cache *c = l->owner;
    if (c->followed != c->graph)
        change(c);
    l->computed[side] = c->graph;
}

static void end(cache *c)
{
    prefix *p = c->prefix;
    if (!p)
        return;
    change(c);
    for (unsigned i = 0; i < MOST_RUNS; i++)
        if (runs[i].owner == c)
            atomic_store(&runs[i].skips, false);
    if (layers_options.report)
        fprintf(stderr, "kvtile: %s: %zu tokens were taken and not computed, %zu blocks were kept%s%s\n", kept.path, p->taken, p->put,
                p->why ? "; there was a graph of which nothing is kept, as " : "", p->why ? p->why : "");
    for (size_t i = 0; p->chains && i < p->streams; i++) {
        free(p->chains[i].ids);
        free(p->chains[i].keys);
    }
    free(p->chains);
    free(p->layers);
    free(p);
    c->prefix = NULL;
}

bool prefix_use_folder(const char *folder, char *problem, size_t bytes)
{
    error_text error;
    if (!folder || !*folder)
        return true;
    const int result = store_open_limited(&kept.folder, folder, &error);
    if (result != 0)
        snprintf(problem, bytes, "KVTILE_STORE: %s: %s", folder, error.text);
    kept.path = folder;
    if (result == 0)
        layers_watch = (layers_watcher){ .rows = see_rows, .changes = change, .ends = end };
    return result == 0;
}
