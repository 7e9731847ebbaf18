/* SPDX-License-Identifier: MIT */
/* A model that was read from a file, as sizing takes it, and what the reader did not understand. */
#ifndef KVT_MODEL_DESCRIPTION_H
#define KVT_MODEL_DESCRIPTION_H

#include <kvtile/model.h>

#include <stdbool.h>
#include <stddef.h>

#include "tools/files/error.h"

/* What one layer keeps, as a group of one layer. */
typedef struct layer_cache {
    uint32_t layer;
    kvt_layer_group group;
} layer_cache;

/* Starts as { 0 }, or with `assumed` alone. `model` points into the struct itself: do not copy it. */
typedef struct model_description {
    kvt_model model; /* complete after description_finish */
    kvt_layer_group *groups;
    size_t n_groups, room;
    layer_cache *caches; /* what description_add was given, in its order */
    size_t n_caches, caches_room;
    uint32_t layer; /* that description_add adds to, from 0: readers set it. Layers for multi-token prediction belong to the last one */
    uint32_t n_layers;
    char name[128];      /* valid UTF-8 */
    char type[72];       /* model_type or architecture, which `model` points to: valid UTF-8 */
    const char *kv_type; /* for model.kv_type: static */
    uint64_t encoder_tokens;
    char notes[400];            /* sentences for people: what was taken for granted; "" when nothing was */
    bool unknown_type;          /* nobody has looked at this type: what its fields say is all that is known */
    const char *const *assumed; /* names of fields that are left out when they are not understood, and NULL; or NULL */
} model_description;

/* Are they the same but for the numbers of layers? */
bool description_alike(const kvt_layer_group *a, const kvt_layer_group *b);

/* Adds a cache of `one->count` layers: to the group that is like it, or as a new group. 0, or -1 with the error: no memory. */
int description_add(model_description *description, const kvt_layer_group *group, error_text *error);

/* Puts the groups into the order of kvt_layer_kind (within a kind, as they were added) and makes `model`. */
void description_finish(model_description *description);

void description_free(model_description *description);

/* Appends "; " and the text to the notes. Too long is cut with "...". */
ERROR_FORMAT(2, 3) void description_note(model_description *description, const char *format, ...);

/* ---- readers. 0, or -1 and the error: which field is wrong, what it holds and what would be right. `bytes` is only read; any bytes are safe. */

int model_read_config(const void *bytes, size_t size, model_description *description, error_text *error);
int model_read_gguf(const void *bytes, size_t size, model_description *description, error_text *error);

/* The same for the beginning of a GGUF file of `whole` bytes. *is_short is set: whether more of the file may do better. */
int model_read_gguf_part(const void *bytes, size_t size, uint64_t whole, bool *is_short, model_description *description, error_text *error);

/* The longest config.json: bytes of one that is longer are not looked at. */
#define MODEL_CONFIG_BYTES ((size_t)16 << 20)

/* A file: GGUF when it begins like one, else config.json. The name comes from the file, or from its folder when it is called config.json. */
int model_read_file(const char *path, model_description *description, error_text *error);

#endif
