/* SPDX-License-Identifier: MIT */
/* The parts of the config.json reader. A function that can fail returns false, after the first complaint went to `error`. */
#ifndef KVT_MODEL_CONFIG_H
#define KVT_MODEL_CONFIG_H

#include "tools/model/description.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define MAX_LAYERS    65536
#define MAX_STATE_DIM 65536 /* recurrent layers: heads, channels and the like; products of three stay far below 2^64 */
#define MAX_HIDDEN    (KVT_MAX_HEADS * KVT_MAX_DIM)

/* What the class of a model type takes for a field that a file leaves out; 0: nothing. */
typedef struct config_class {
    const char *model_type;
    uint32_t layers, query_heads, kv_heads, head_dim, hidden_size, context;
} config_class;

/* Where the fields are looked up, and where the results and the first complaint go. */
typedef struct config_reader {
    json_t *root;
    json_t *text;              /* the language model of those that also see or hear, else the root */
    char model_type[64];       /* as text_shown shows it, cut when it is longer */
    const config_class *class; /* NULL: not known, sized by its fields alone */
    json_t *seen;              /* a member for each field that was looked up */
    model_description *description;
    error_text *error;
} config_reader;

/* ---- fields.c: complaints -------------------------------------------------------------------------------------------------------- */

/* All of these return false. */
ERROR_FORMAT(2, 3) bool config_fail(const config_reader *r, const char *format, ...);

/* "<field> is <value>, but must be <right>", or, when it is NULL, "<field> is missing: <model type> needs it, <right>". */
bool config_fail_field(const config_reader *r, const char *field, const json_t *value, const char *right);

/* Text of the file as a part of a message, as text_shown shows it: cut between characters. */
void config_show(const char *text, char *shown, size_t size);

/* ---- fields.c: model types and fields -------------------------------------------------------------------------------------------- */

/* A list of names ends with NULL. */
#define NAMES(...) ((const char *const[]){ __VA_ARGS__, NULL })

const config_class *config_find_class(const config_reader *r);

/* "gemma3_text" and "gemma3" are one. */
bool config_same_type(const config_reader *r, const char *type);
bool config_is_type(const config_reader *r, const char *const *types);

/* NULL when the field is not there or null, which config.json uses for "not set". `find` remembers that somebody asked. */
json_t *config_find_in(const json_t *object, const char *field);
const json_t *config_find(const config_reader *r, const char *field);

/* Given, or filled in by the class of the model type, as the functions below do. */
bool config_has(const config_reader *r, const char *field);

/* Of the names that a field goes by, the first that is there; the first of all when none is. */
const char *config_name_of(const config_reader *r, const char *const *names);

bool config_check_integer(const config_reader *r, const char *field, const json_t *value, json_int_t low, json_int_t high, json_int_t *result);
bool config_check_bool(const config_reader *r, const char *field, const json_t *value, bool *result);
bool config_get_integer(const config_reader *r, const char *field, json_int_t low, json_int_t high, json_int_t *result);
bool config_get_u32(const config_reader *r, const char *field, uint32_t high, uint32_t *result);   /* from 1 */
bool config_get_count(const config_reader *r, const char *field, uint32_t high, uint32_t *result); /* 0 when it is not there */
bool config_get_flag(const config_reader *r, const char *field, bool *result);                     /* false when it is not there */
bool config_get_model_dtype(const config_reader *r, uint32_t *bytes);
bool config_get_state_dtype(const config_reader *r, uint32_t *bytes);

bool config_get_query_heads(const config_reader *r, uint32_t *heads);
bool config_get_heads(const config_reader *r, const char *field, uint32_t *heads);
bool config_get_dim(const config_reader *r, const char *field, uint32_t *dim);
bool config_get_head_dim(const config_reader *r, uint32_t *dim);
bool config_get_kv_heads(const config_reader *r, uint32_t *heads);
bool config_get_hidden(const config_reader *r, uint32_t *hidden);

/* ---- layers.c -------------------------------------------------------------------------------------------------------------------- */

/* What a layer keeps, as bits: some layers have attention and a state side by side. */
enum {
    PART_NOTHING = 0,
    PART_FULL = 1, /* latent when the model has MLA */
    PART_SLIDING = 2,
    PART_CHUNKED = 4,
    PART_STATE = 8, /* linear attention and Mamba; the fields say which */
    PART_CONVOLUTION = 16,
    PART_SHARED = 32,         /* reads what an earlier layer with the same parts stores, and stores nothing */
    PART_CROSS = 64,          /* cross attention to an encoder's tokens */
    PART_NO_INDEXER = 128,    /* in a model with indexers: attends to everything */
    PART_SHARED_INDEXER = 256 /* in a model with indexers: uses an earlier layer's choice */
};

typedef struct config_layers {
    uint32_t count;
    uint16_t *parts;
    uint32_t passes;    /* through all layers, each with caches of its own */
    uint32_t *kv_heads; /* of a layer that has its own number, else 0 */
    uint32_t *head_dim; /* likewise */
} config_layers;

/* Has the model layers whose indexers choose among keys and values of every head? */
bool config_has_sparse_layers(const config_reader *r);

/* Which layer keeps what. The caller frees the arrays, also when it fails. */
bool config_map_layers(const config_reader *r, config_layers *l);

/* The names that the number of layers and the window go by in this file. */
const char *config_layer_count_field(const config_reader *r);
const char *config_window_field(const config_reader *r);

/* A list or string that names each layer says how many there are; num_hidden_layers, where it is given, must agree. `extra` more are allowed. */
bool config_check_length(const config_reader *r, const char *field, size_t length, uint32_t extra, size_t *count);

/* Is this a field that says which layer keeps what, or what recurrent ones keep? */
bool config_is_layer_field(const char *name);
bool config_is_one_of(const char *name, const char *const *names);

/* ---- states.c: a recurrent layer ------------------------------------------------------------------------------------------------- */

bool config_read_state(const config_reader *r, kvt_layer_group *group);
bool config_read_short_convolution(const config_reader *r, kvt_layer_group *group);

/* ---- encoder.c: decoders with cross attention ------------------------------------------------------------------------------------ */

/* Is it an encoder and a decoder, whose cache is the decoder's? */
bool config_has_encoder(const config_reader *r, bool *has);
bool config_read_decoder(const config_reader *r);
/* The tokens of an image, where the file says how many: Llama 3.2 Vision. */
bool config_read_image_tokens(const config_reader *r);

/* ---- caches.c: all groups of the description, of DeepSeek-V4 and of all others --------------------------------------------------- */

bool config_read_compressing(const config_reader *r);
bool config_read_groups(const config_reader *r);

#endif
