/* SPDX-License-Identifier: MIT */
/* PyTorch's files (.pt, .pth, .bin), which are pickles: loading one runs whatever code is in it, so they are refused with what to do instead. */
#ifndef KVT_TOOLS_PICKLE_H
#define KVT_TOOLS_PICKLE_H

#include "tools/files/file.h"

/* Whether a file is a pickle, or a zip archive that begins with one. No row file, GGUF file or llama2.c checkpoint begins so. */
bool pickle_is(const file_map *map);

/* Whether a member of a zip archive is what torch.save writes. */
bool pickle_is_member(const char *name);

/* Sets the error and returns -1. */
int pickle_refuse(error_text *error);

#endif
