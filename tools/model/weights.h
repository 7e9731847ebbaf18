/* SPDX-License-Identifier: MIT */
/* How many bytes a model's weights are. */
#ifndef KVT_MODEL_WEIGHTS_H
#define KVT_MODEL_WEIGHTS_H

#include "tools/files/error.h"

#include <stdint.h>

/* Of a GGUF file (all parts of a split one), of a folder with safetensors files or their index, or of the folder that a config.json is in: the bytes
 * of all tensors, as they are stored. 0, or -1 with the error: there are none, a part is missing or not in order. */
int model_weights(const char *path, uint64_t *bytes, error_text *error);

#endif
