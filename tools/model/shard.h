/* SPDX-License-Identifier: MIT */
/* A model divided among the ranks of tensor parallelism and the stages of a pipeline. */
#ifndef KVT_MODEL_SHARD_H
#define KVT_MODEL_SHARD_H

#include "tools/model/description.h"

/* What one of `ranks` (at least 1) holds of the model's caches: heads are divided, or copied when there are fewer of them than ranks; rows that all
 * heads share (MLA, indexers) are on every rank. `rank->model` has the names of `model`, which must live as long. 0, or -1 with the error: heads that
 * cannot be divided, or no memory; description_free is due after 0. */
int model_shard(const kvt_model *model, uint32_t ranks, model_description *rank, error_text *error);

/* One stage of a pipeline: `part.model` is what it holds of the caches. */
typedef struct model_stage {
    uint32_t first, count; /* layers */
    model_description part;
} model_stage;

/* Whether all layers that store are alike: of one group, or MLA's with their indexers. */
bool model_is_uniform(const kvt_model *model);

/* Divides the layers among `n_stages` (at least 1) as vLLM does, and each stage's caches among `ranks` as model_shard does. `read` has the layers in
 * order; NULL: nobody knows the order, and only a uniform model can be divided. `stages` has room for n_stages, and each `part.model` the names of
 * `model`, which must live as long. 0, or -1 with the error; model_free_stages is due after 0. */
int model_split(const kvt_model *model, const model_description *read, uint32_t n_stages, uint32_t ranks, model_stage *stages, error_text *error);
void model_free_stages(model_stage *stages, uint32_t n_stages);

#endif
