/* SPDX-License-Identifier: MIT */
/* A model by file, folder or name. */
#ifndef KVT_MODEL_FIND_H
#define KVT_MODEL_FIND_H

#include "tools/model/description.h"

/* What kvt_model_open does, into a description, which starts as { 0 } or with `assumed` alone; *model points into it, or into the catalogue. Whatever
 * the status, description_free is allowed. */
kvt_status model_find(const char *name, model_description *description, const kvt_model **model, char *problem, size_t room);

/* Writes "what: why" into `room` bytes at `problem`, as one line; the reason stays whole where it can. NULL: nothing to do. */
void model_say(char *problem, size_t room, const char *what, const char *why);

#endif
