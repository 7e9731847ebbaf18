/* SPDX-License-Identifier: MIT */
/* The tensors of a safetensors file. */
#ifndef KVT_TOOLS_SAFETENSORS_H
#define KVT_TOOLS_SAFETENSORS_H

#include "tools/files/file.h"

#include <kvtile/kvtile.h>

enum { SAFETENSORS_SIZES = 8 };

typedef struct safetensors_entry {
    const char *name;
    const char *dtype;
    kvt_dtype number; /* 0: another dtype */
    size_t n_sizes;
    uint64_t sizes[SAFETENSORS_SIZES]; /* the first ones, of any number */
    uint64_t elements;
    uint64_t begin, end; /* in the data */
    const uint8_t *data; /* what is there was checked to be as many bytes as shape and dtype take */
} safetensors_entry;

/* Returns 0 to go on; anything else ends the walk. */
typedef int safetensors_visit(void *owner, const safetensors_entry *tensor, error_text *error);

/* Calls `visit` for each tensor. 0, what `visit` ended with, or -1 with the error: the file is not in order. */
int safetensors_walk(const file_map *map, safetensors_visit *visit, void *owner, error_text *error);

#endif
