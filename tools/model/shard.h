/* A model divided among the ranks of tensor parallelism. */
#ifndef KVT_MODEL_SHARD_H
#define KVT_MODEL_SHARD_H

#include "tools/model/description.h"

/* What one of `ranks` (at least 1) holds of the model's caches: heads are divided, or copied when there are fewer of them than ranks; rows that all
 * heads share (MLA, indexers) are on every rank. `rank->model` has the names of `model`, which must live as long. 0, or -1 with the error: heads that
 * cannot be divided, or no memory; description_free is due after 0. */
int model_shard(const kvt_model *model, uint32_t ranks, model_description *rank, error_text *error);

#endif
