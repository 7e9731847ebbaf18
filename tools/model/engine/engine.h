/* SPDX-License-Identifier: MIT */
/* What an engine's rules are: one file for each engine in this folder, one row for each in kvtile/engines.def, the sums in ../size.c. */
#ifndef KVT_ENGINE_H
#define KVT_ENGINE_H

#include <kvtile/model.h>

/* A way to store numbers: `block` channels take `bytes`, with `scales` bytes of scales among them; then row_scales for each row of each head. */
struct kvt_store_type {
    const char *name;
    uint16_t block;
    uint16_t bytes;
    uint16_t scales;
    uint16_t row_scales;
};

/* What an engine knows to do with models of a type. What a model declares and the engine does not know, it stores in the plain way. */
enum {
    KVT_KNOWS_WINDOWS = 1,  /* sliding layers; else they are full ones */
    KVT_KNOWS_LATENT = 2,   /* MLA's rows; else keys and values of every head */
    KVT_KNOWS_SHARING = 4,  /* layers that read another layer's cache; else they have their own */
    KVT_KNOWS_INDEXERS = 8, /* keys of indexers; else there are none */
    KVT_KNOWS_ALL = 15,
    KVT_KNOWS_MORE = 16 /* the first of the bits that each engine gives its own meaning */
};

struct kvt_type_rule {
    const char *type;
    uint32_t knows;
};

/* A request, and what an engine needs to know of the whole model before it looks at a group. */
struct kvt_sizing {
    const kvt_model *model;
    kvt_size_request taken; /* the caller's, as this version has it */
    const kvt_size_request *request;
    const struct kvt_store_type *k_type; /* NULL for the engines whose types are schemes */
    const struct kvt_store_type *v_type;
    kvt_scheme k_scheme;
    kvt_scheme v_scheme;
    kvt_scheme rope_scheme;                                                 /* KVT_SCHEME_NONE: rows are stored whole */
    const char *problem;                                                    /* set when KVT_ERR_ENGINE is returned */
    uint32_t knows;                                                         /* KVT_KNOWS_...: of the model's type */
    void (*adapt)(const struct kvt_sizing *sizing, kvt_layer_group *group); /* of the engine's rules */
    bool cross;            /* the group at hand is cross attention: it looks like a full one whose context is the encoder's tokens */
    bool drafts;           /* llama.cpp: the model has MTP layers */
    bool compressed;       /* the model has compressed caches: DeepSeek-V4 */
    uint64_t widest_v;     /* llama.cpp: channels of the widest value row, all heads */
    uint64_t page_bytes;   /* vllm: of every page when layers of different types share one pool, else 0 */
    uint64_t group_layers; /* vllm: layers of a group of that pool, else 0 */
};

/* What one layer of a group keeps, for all sequences together. */
struct kvt_group_plan {
    uint64_t payload, scales, padding; /* bytes of a row: all KV heads, keys and values */
    uint64_t page_rows;                /* 1 where there are no pages */
    uint64_t page_tokens;              /* 0: as many as page_rows stand for */
    uint64_t page_scales;              /* bytes of a page beside its rows: centres */
    uint64_t page_padding;             /* and those that serve nothing */
    uint64_t pages;
    uint64_t used_rows;
    uint64_t state;         /* bytes of one state */
    uint64_t state_padding; /* beside it */
    uint64_t states;
    uint64_t draft_layers;   /* of the group's draft_count, that are stored */
    uint64_t padding_layers; /* further layers that are allocated to fill a group, each as large as a real one */
};

/* Bits of kvt_size_request's options, for kvt_engine_rules.options. */
enum {
    KVT_OPTION_SIDES = 1,
    KVT_OPTION_BATCH = 2,
    KVT_OPTION_BLOCK = 4,
    KVT_OPTION_DRAFT = 8,
    KVT_OPTION_STREAMS = 16,
    KVT_OPTION_SWA_FULL = 32,
    KVT_OPTION_NO_FLASH = 64,
    KVT_OPTION_PREFIX = 128,
    KVT_OPTION_STATIC = 256
};

struct kvt_engine_rules {
    const char *title;
    const struct kvt_store_type *types; /* ends with a row without a name; NULL: kvtile's schemes */
    uint32_t options;
    /* One row for each type of model that the engine is known to load: ends with a row without a type. NULL: the engine, like kvtile, stores what
     * models declare. */
    const struct kvt_type_rule *model_types;
    uint32_t knows_unknown; /* of models of other types: as much as can be */
    bool by_architecture;   /* its rows have names of GGUF's general.architecture; else of config.json's model_type */
    /* Looks at the whole model; NULL: nothing to do. Groups are consistent and within kvtile's limits when it runs. */
    kvt_status (*prepare)(struct kvt_sizing *sizing);
    /* Changes a group that kvt_stored_group has made, for what only this engine does; NULL: nothing to do. */
    void (*adapt)(const struct kvt_sizing *sizing, kvt_layer_group *group);
    /* *plan is zero, but for page_rows 1, when it is called. */
    kvt_status (*plan)(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan);
};

#define KVT_ENGINE_ROW(name, number, title) extern const struct kvt_engine_rules kvt_engine_##name;
#include <kvtile/engines.def>
#undef KVT_ENGINE_ROW

/* The row for a model's type; NULL when there is none, or the type is not known. */
const struct kvt_type_rule *kvt_find_type_rule(const struct kvt_engine_rules *rules, const kvt_model *model);

/* Group i of the model as the engine stores it: count holds all layers that are stored whatever the request. */
kvt_layer_group kvt_stored_group(const struct kvt_sizing *sizing, size_t i);

/* ---- for the engines' files ------------------------------------------------------------------------------------------------------ */

static inline kvt_status kvt_cannot(struct kvt_sizing *sizing, const char *problem)
{
    sizing->problem = problem;
    return KVT_ERR_ENGINE;
}

static inline bool kvt_has_rows(const kvt_layer_group *group)
{
    return group->kind != KVT_LAYER_RECURRENT && group->kind != KVT_LAYER_NONE;
}

static inline uint64_t kvt_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* a / b, rounded up; b is not 0. */
static inline uint64_t kvt_parts(uint64_t a, uint64_t b)
{
    return a / b + (a % b != 0);
}

static inline uint64_t kvt_tokens_per_row(const kvt_layer_group *group)
{
    return group->tokens_per_row ? group->tokens_per_row : 1;
}

/* Rows that one sequence makes use of at a context. */
static inline uint64_t kvt_used_rows(const kvt_layer_group *group, uint64_t context)
{
    if (group->kind == KVT_LAYER_SLIDING)
        return kvt_least(context, group->window);
    return kvt_parts(context, kvt_tokens_per_row(group));
}

static inline bool kvt_same_store(const struct kvt_store_type *a, const struct kvt_store_type *b)
{
    return a->block == b->block && a->bytes == b->bytes && a->scales == b->scales && a->row_scales == b->row_scales;
}

/* Adds `heads` rows of `dim` channels, which is a multiple of the type's block. Bounded by KVT_MAX_HEADS and KVT_MAX_DIM: cannot overflow. */
static inline void kvt_plan_add_rows(struct kvt_group_plan *plan, const struct kvt_store_type *type, uint64_t heads, uint64_t dim)
{
    if (dim == 0)
        return;
    const uint64_t blocks = dim / type->block;
    plan->payload += heads * blocks * (uint64_t)(type->bytes - type->scales);
    plan->scales += heads * (blocks * type->scales + type->row_scales);
}

/* *out = a * b */
static inline kvt_status kvt_times(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out) ? KVT_ERR_OVERFLOW : KVT_OK;
}

/* *total += a * b */
static inline kvt_status kvt_add_product(uint64_t *total, uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) || __builtin_add_overflow(*total, product, total) ? KVT_ERR_OVERFLOW : KVT_OK;
}

/* Bytes of one state: `history` inputs of the convolution, and the state matrix. 0 element bytes mean: as the model declares them. */
static inline kvt_status kvt_state_bytes(const kvt_layer_group *group, uint64_t history, uint32_t conv_bytes, uint32_t recurrent_bytes,
                                         uint64_t *bytes)
{
    uint64_t conv;
    *bytes = 0;
    if (kvt_times(history, group->conv_channels, &conv) != KVT_OK ||
        kvt_add_product(bytes, conv, conv_bytes ? conv_bytes : group->conv_element_bytes) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    return kvt_add_product(bytes, group->recurrent_elements, recurrent_bytes ? recurrent_bytes : group->recurrent_element_bytes);
}

/* The inputs that a convolution needs again: all but the newest. */
static inline uint64_t kvt_conv_history(const kvt_layer_group *group)
{
    return group->conv_kernel ? group->conv_kernel - 1 : 0;
}

#endif
