/* Exact bytes of a KV cache, from a plain description of a model. Row and page sizes come from kvt_layout_init, so that what is
 * said here is what is allocated. Pure arithmetic: nothing here reads files; every sum is checked for overflow. */
#ifndef KVTILE_SIZE_H
#define KVTILE_SIZE_H

#include <kvtile/kvtile.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kvt_layer_kind {
    KVT_LAYER_FULL = 1,      /* attention over the whole context: grows with every token */
    KVT_LAYER_SLIDING = 2,   /* attention over the last `window` tokens */
    KVT_LAYER_LATENT = 3,    /* MLA: one row of k_dim channels per token, key and value in one; kv_heads is 1 and v_dim 0 */
    KVT_LAYER_RECURRENT = 4, /* a state of constant size per sequence */
    KVT_LAYER_NONE = 5       /* stores nothing: reads another layer's cache, or has no attention */
} kvt_layer_kind;

/* "full", "sliding", "latent", "recurrent", "none"; NULL when there is no such kind. */
KVT_API const char *kvt_layer_kind_name(kvt_layer_kind kind);

/* `count` layers that are alike. Fields that a kind does not use are zero. A recurrent layer has a convolution history, a state matrix, or
 * both: elements and element bytes are zero together. */
typedef struct kvt_layer_group {
    kvt_layer_kind kind;
    uint32_t count;
    uint32_t kv_heads;
    uint32_t k_dim; /* channels of one head's key row (not of all heads together) */
    uint32_t v_dim;
    uint32_t window;                  /* sliding: tokens that can be attended, the current one included */
    uint64_t conv_elements;           /* recurrent, per layer and sequence: convolution history, (kernel - 1) * channels */
    uint32_t conv_element_bytes;      /* as the model declares it */
    uint64_t recurrent_elements;      /* recurrent, per layer and sequence: the state matrix */
    uint32_t recurrent_element_bytes; /* as the model declares it */
} kvt_layer_group;

typedef struct kvt_model {
    const char *name;
    uint64_t max_context; /* tokens; 0 = unknown */
    size_t n_groups;
    const kvt_layer_group *groups;
} kvt_model;

typedef enum kvt_engine {
    KVT_ENGINE_LOGICAL = 1, /* payload: rows as they are stored (padded to 16 channels), no page rounding, sliding layers at exactly their window */
    KVT_ENGINE_KVTILE = 2   /* what kvtile's pages allocate; docs/sizing.md has the rule for sliding layers */
} kvt_engine;

/* "logical", "kvtile"; NULL when there is no such engine. */
KVT_API const char *kvt_engine_name(kvt_engine engine);

typedef struct kvt_size_request {
    size_t size; /* sizeof(kvt_size_request) */
    kvt_engine engine;
    kvt_scheme k_scheme;
    kvt_scheme v_scheme;
    uint64_t context;   /* tokens of each sequence */
    uint64_t sequences; /* at least 1 */
} kvt_size_request;

/* One layer group. bytes = (bytes_per_token * tokens, or the state) * sequences. */
typedef struct kvt_group_size {
    uint64_t bytes_per_token; /* of all `count` layers together */
    uint64_t tokens;          /* that one sequence stores: the context, or what its window or pages hold */
    uint64_t bytes;           /* of all layers of the group and all sequences */
} kvt_group_size;

typedef struct kvt_size_report {
    uint64_t growing_bytes_per_token; /* what each further token of context costs, for ever */
    uint64_t window_bytes_per_token;  /* what each further token costs until the window is full */
    uint64_t state_bytes_per_sequence;
    uint64_t total_bytes; /* of all sequences at the context */
} kvt_size_report;

/* Sizes a model. `groups`, when not NULL, has room for model->n_groups results. Both schemes must exist, even where a model has no
 * values. Errors: NULL, STRUCT_SIZE, SCHEME, DIM, HEADS, RANGE (engine unknown, or sequences 0), OVERFLOW, MODEL (no groups, a field that the
 * kind needs is zero, or one that it does not use is not). Nothing is written then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_size(const kvt_model *model, const kvt_size_request *request, kvt_size_report *report, kvt_group_size *groups);

/* The built-in models in order; NULL past the end. The result is static. */
KVT_API const kvt_model *kvt_catalogue_at(size_t index);

/* The built-in model of that name, letter case ignored, with or without "organisation/" before it; NULL when there is none. */
KVT_API const kvt_model *kvt_catalogue_find(const char *name);

#ifdef __cplusplus
}
#endif

#endif
