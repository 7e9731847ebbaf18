/* SPDX-License-Identifier: MIT */
/* The beginning of a file, in memory: metadata come first, and files of models are larger than memory. Nothing is mapped, because a mapped file that
 * becomes shorter is a signal, which a library must not handle. */
#ifndef KVT_MODEL_BEGINNING_H
#define KVT_MODEL_BEGINNING_H

#include "tools/files/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct beginning {
    uint8_t *data;
    size_t size;
    uint64_t whole; /* bytes of the file */
    int descriptor;
} beginning;

/* Reads the first megabyte, or all of the file when it is shorter. 0, or -1 with the error: missing, not a regular file, empty, no memory; nothing is
 * to be closed then. */
int beginning_open(beginning *file, const char *path, error_text *error);

/* Reads four times as much, or all of it. -1 with the error: no memory, a file that cannot be read, or 256 megabytes were not enough. */
int beginning_extend(beginning *file, error_text *error);

void beginning_close(beginning *file);

#endif
