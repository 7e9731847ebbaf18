/* SPDX-License-Identifier: MIT */
/* Saved sequences as files: written whole or not at all, and mapped read-only, so that processes share what they read. */
#ifndef KVT_TOOLS_SAVED_H
#define KVT_TOOLS_SAVED_H

#include "tools/files/file.h"

#include <kvtile/saved.h>

typedef struct saved_file {
    file_map map;
    kvt_saved saved;
} saved_file;

/* Writes a sequence of a cache; what had the name before stays when it fails. The workspace is kvt_cache_work's. 0, or -1 with the error. */
int saved_write(const char *path, const kvt_cache *cache, uint32_t id, const kvt_save *save, void *workspace, size_t workspace_bytes,
                error_text *error);

/* Maps a file and looks at its head; records are not read. 0, or -1 with the error; saved_close is due after success. */
int saved_open(saved_file *file, const char *path, error_text *error);
void saved_close(saved_file *file);

/* Loads it, behind the tokens that it begins after. 0, or -1 with the error. */
int saved_load(const saved_file *file, kvt_cache *cache, uint32_t id, uint64_t model, error_text *error);

#endif
