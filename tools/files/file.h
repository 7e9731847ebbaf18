/* SPDX-License-Identifier: MIT */
/* Files in: a read-only view of a whole file. Files out: output.h. */
#ifndef KVT_TOOLS_FILE_H
#define KVT_TOOLS_FILE_H

#include "tools/files/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct file_map {
    const uint8_t *data;
    size_t size; /* at least 1 */
} file_map;

/* 0, or -1 with the error: missing, not a regular file, empty. A file that becomes shorter while it is looked at ends the program with a message. */
int file_map_open(file_map *map, const char *path, error_text *error);
void file_map_close(file_map *map);

/* A descriptor of a regular file of at least one byte, for reading, and its size; or -1 with the error: missing, not a regular file, empty. */
int file_open(const char *path, uint64_t *size, error_text *error);

#endif
