/* SPDX-License-Identifier: MIT */
/* Caches of llama.cpp, and their layers. Each is kept by a store from when the first graph shows what its rows are; before, and where a graph reads
 * it as we cannot, it is *raw*: rows of the declared type in the buffer's own memory, where ggml's operations work. */
#ifndef KVT_GGML_LAYERS_H
#define KVT_GGML_LAYERS_H

#include "tools/ggml/host.h"
#include "tools/ggml/masks.h"
#include "tools/ggml/options.h"

typedef struct layer layer;

typedef struct counts {
    size_t stored, attended, queries; /* rows' operations, attention's, and its query tokens */
    size_t foreign[256];              /* operations on a store's layer that ggml computed, by number */
    size_t given_back;                /* layers */
} counts;

/* A buffer of ours. */
typedef struct cache {
    uint8_t *memory;
    size_t bytes;
    layer *layers;  /* a list */
    layer *last;    /* that was attended to */
    masks masks;    /* of the present graph */
    uint64_t graph; /* its number */
    atomic_bool is_computed;
    bool is_told;
    size_t most_bytes; /* that were in use */
    counts counts;
    struct prefix *prefix; /* what is known of its tokens */
    uint64_t changes;      /* of what it holds, that are no followed graph's */
    uint64_t followed;     /* graph */
} cache;

struct layer {
    cache *owner;
    layer *next;
    char name[GGML_MAX_NAME];      /* behind "cache_", without the side */
    struct ggml_tensor *tensor[2]; /* keys, values; no values: keys are values too */
    cell_store rows;
    bool is_stored;                    /* in rows */
    bool is_refused;                   /* it stays raw */
    bool is_raw_newer[2];              /* a foreign operation has written to it */
    size_t raw_cells;                  /* of a stream, that may have been written before there was a cell_store */
    uint64_t wrote, attended, foreign; /* the graphs that last did so */
    uint64_t computed[2];              /* the graph that last wrote rows of the side */
    unsigned foreign_graphs;           /* in which rows were stored too */
    int64_t *cells;                    /* of the last rows */
    size_t n_cells, cells_room;
};

/* Whoever wants to know what caches hold. */
typedef struct layers_watcher {
    void (*rows)(layer *l, int side); /* a graph will write rows */
    void (*changes)(cache *c);        /* it will change in another way */
    void (*ends)(cache *c);
} layers_watcher;
extern layers_watcher layers_watch;
void layers_change(cache *c);

extern options layers_options;
extern ggml_backend_buffer_type_t layers_type; /* of our buffers */

bool layers_open(cache *opened, size_t bytes);
void layers_close(cache *c);
void layers_clear(cache *c);

/* Tensors named cache_k_l7 and cache_v_l7 are a layer's; others are nothing to us. */
void layers_take(cache *c, struct ggml_tensor *tensor);
layer *layer_of(const struct ggml_tensor *tensor);
int layer_side(const layer *l, const struct ggml_tensor *tensor);

/* From raw to stored. False, and it stays raw for ever, where kvtile has no such rows. */
bool layer_store(layer *l, const cells_shape *shape);
void layer_give_back(layer *l);

/* A worker's share of copying rows to the raw memory, or from it. */
void layer_export(const layer *l, int side, unsigned worker, unsigned workers);
void layer_import(const layer *l, int side, unsigned worker, unsigned workers);

/* Bytes of a tensor's rows, as if they were raw. */
void layer_get(layer *l, const struct ggml_tensor *tensor, void *data, size_t offset, size_t bytes);
void layer_set(layer *l, const struct ggml_tensor *tensor, const void *data, size_t offset, size_t bytes);
bool layer_copy(layer *l, const struct ggml_tensor *from, const struct ggml_tensor *to);

/* What is in use, and what llama.cpp believes. */
void layers_tell(cache *c);

#endif
