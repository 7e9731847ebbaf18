/* Reads a model's config.json, as published beside its weights, into the description that sizing takes.
 *
 * It does not guess: every field that the model type needs must be there, of the right type and within bounds. */
#ifndef KVT_CONFIG_JSON_H
#define KVT_CONFIG_JSON_H

#include <kvtile/size.h>

#include "tools/io/error.h"

/* `model` points into the struct itself: do not copy it. Nothing is to be freed. */
typedef struct kvt_config {
    kvt_model model;
    kvt_layer_group groups[KVT_LAYER_NONE]; /* at most one of each kind, in the order of kvt_layer_kind */
    char name[128];                         /* of the file, or of its folder when the file is called config.json; valid UTF-8 */
} kvt_config;

/* 0 on success. Otherwise -1, and `error` says which field is wrong, what it holds and what would be right. */
int kvt_config_read(const char *path, kvt_config *config, error_text *error);

#endif
