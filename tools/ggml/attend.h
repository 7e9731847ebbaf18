/* SPDX-License-Identifier: MIT */
/* llama.cpp's flash attention, on a layer that is stored. */
#ifndef KVT_GGML_ATTEND_H
#define KVT_GGML_ATTEND_H

#include "tools/ggml/layers.h"
#include "tools/ggml/workers.h"

/* What the rows of the node's layer are; false where kvtile cannot compute the node, or the layer is stored otherwise. */
bool attend_shape(const layer *l, const struct ggml_tensor *op, cells_shape *shape);

/* Bytes for all threads, for us or for ggml, whoever computes it. False without memory. */
bool attend_plan(layer *l, const struct ggml_tensor *op, unsigned threads, size_t *bytes);

/* On all threads. False on all of them: the mask is none that kvtile has. */
bool attend_compute(layer *l, const ggml_workers *with, const struct ggml_tensor *op);

#endif
