/* SPDX-License-Identifier: MIT */
/* Prompts that begin alike, from a folder of blocks (tools/store): what is in it is not computed again.
 *
 * llama.cpp decides what it computes, and its calls for states do not say which tokens they are of. So this works from below: before a graph each of
 * its nodes is seen, and the graph's inputs are there when the first one is computed. They tell the token ids, their positions, the cells that they
 * are put into and what they see. If all of it is a prompt's beginning as any other, its blocks are in the folder, and nobody wants a result, the
 * cells get the folder's rows and no node is computed. llama.cpp goes on as if it had been.
 *
 * What is not certain is computed: a token's place in its sequence has to be its cell, and it has to see all cells before. Layers of one cache alone
 * are known, and no other memory of the model's; no input but these.
 *
 * A graph is one of llama.cpp's micro-batches (-ub), so that is the piece in which prompts are taken. */
#ifndef KVT_GGML_PREFIX_H
#define KVT_GGML_PREFIX_H

#include "tools/ggml/workers.h"

#include <ggml.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `folder` NULL: none is used. With one, caches are watched (layers.h). False, and a message, where it cannot be opened. */
bool prefix_use_folder(const char *folder, char *problem, size_t bytes);
bool prefix_is_on(void);

/* Each node before a graph, in order, from one thread. */
void prefix_plan(const struct ggml_tensor *op);

/* Each node, on all threads. True: it is not computed. */
bool prefix_compute(const ggml_workers *with, const struct ggml_tensor *op);

#ifdef __cplusplus
}
#endif

#endif
