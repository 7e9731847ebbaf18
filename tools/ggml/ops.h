/* SPDX-License-Identifier: MIT */
/* Operations of a graph that touch a cache of ours. ggml asks about each node before a graph, once, and then computes it, on all of its threads. */
#ifndef KVT_GGML_OPS_H
#define KVT_GGML_OPS_H

#include "tools/ggml/workers.h"

#include <ggml.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether a node reads or writes a layer. */
bool ops_concerns(const struct ggml_tensor *op);

/* Whether it computes nothing. */
bool ops_is_view(enum ggml_op op);

/* Whether a node stores whole rows of a layer's cells; transposed values, without flash attention, are not. */
struct layer;
bool ops_is_of_rows(const struct layer *l, const struct ggml_tensor *op);

/* Whether a tensor, or what it is a view of, is in a buffer of ours. */
bool ops_is_ours(const struct ggml_tensor *tensor);

/* Whether the CPU backend computes a node with tensors in our buffers: all that it computes with its own. A tensor in a buffer without bytes is a
 * weight that looks for a place, which is not with us, or a cache that is only measured. */
bool ops_supports(const struct ggml_tensor *op);

/* Before a graph, from one thread. False: ggml says itself how much memory the node needs; otherwise it is *bytes. */
bool ops_plan(int threads, const struct ggml_tensor *op, size_t *bytes);

/* On all threads. False: ggml computes it. */
bool ops_compute(const ggml_workers *with, struct ggml_tensor *op);

#ifdef __cplusplus
}
#endif

#endif
