/* Files in and out: a read-only view of a whole file, and output that appears under its name only when it is complete. */
#ifndef KVT_TOOLS_FILE_H
#define KVT_TOOLS_FILE_H

#include "tools/io/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct file_map {
    const uint8_t *data;
    size_t size; /* at least 1 */
} file_map;

/* 0, or -1 with the error: missing, not a regular file, empty. A file that becomes shorter while it is looked at ends the program with a message. */
int file_map_open(file_map *map, const char *path, error_text *error);
void file_map_close(file_map *map);

typedef struct file_output {
    FILE *stream;
    char *path;
    char *temporary;
} file_output;

int file_output_open(file_output *output, const char *path, error_text *error);

/* Gives the file its name. On failure (some write failed, or the disk is full) nothing is left behind. */
int file_output_commit(file_output *output, error_text *error);
void file_output_discard(file_output *output);

#endif
