/* SPDX-License-Identifier: MIT */
/* Tensors of files, into the places of a checkpoint. */
#ifndef KVT_ENGINE_WEIGHTS_H
#define KVT_ENGINE_WEIGHTS_H

#include "tools/engine/checkpoint.h"
#include "tools/engine/numbers.h"

/* How a file calls its tensors. */
typedef enum weights_naming { WEIGHTS_HUGGING_FACE, WEIGHTS_GGUF } weights_naming;

typedef struct weights_tensor {
    const char *name;
    size_t n_sizes;               /* 1: a vector of `columns` */
    uint64_t rows, columns;       /* numbers of a row are neighbours */
    const numbers_format *format; /* NULL: another */
    const char *format_name;      /* as the file says it */
    const uint8_t *data;
    uint64_t bytes; /* that are there */
} weights_tensor;

typedef struct weights {
    checkpoint *model;
    weights_naming naming;
    bool halves; /* rows of queries and keys have the pairs of RoPE half a head apart, not next to each other */
    bool *seen;  /* [layer][tensor of a layer] */
} weights;

/* For a model that checkpoint_make has made. 0, or -1 with the error, like the others; weights_close is due in any case. */
int weights_open(weights *to, checkpoint *model, weights_naming naming, bool halves, error_text *error);
void weights_close(weights *to);

/* Copies the numbers of a tensor to where they belong. */
int weights_use(weights *to, const weights_tensor *tensor, error_text *error);

/* Whether all were there. */
int weights_check(const weights *loaded, error_text *error);

#endif
