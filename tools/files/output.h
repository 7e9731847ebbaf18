/* SPDX-License-Identifier: MIT */
/* The one writer of files: what is written appears under its name only when it is complete, and nothing is left behind when it is not. */
#ifndef KVT_TOOLS_OUTPUT_H
#define KVT_TOOLS_OUTPUT_H

#include "tools/files/error.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* Its address is known to the handler of signals while it is open: it is not copied. From one thread at a time. */
typedef struct file_output {
    FILE *stream;
    char *path;      /* links followed; NULL: a device, a pipe or the standard output itself, written as it comes */
    char *temporary; /* beside `path` */
    bool replaces;   /* a file, whose owner and mode stay: */
    uid_t owner;
    gid_t group;
    mode_t mode;
    int descriptor;
    int why; /* errno of the first write that failed */
    struct file_output *next;
} file_output;

/* Opens a temporary file beside `path`, for which the caller must have write permission where it exists. Of a symbolic link the target is meant.
 * Devices, pipes and whatever the standard output is are opened themselves; a pipe's reader is waited for, five seconds at most. A signal that ends
 * the program removes the temporary file first. 0, or -1 with the error. */
int file_output_open(file_output *output, const char *path, error_text *error);

/* Gives the file its name. On failure (some write failed, or the disk is full) -1 with the error, what was there before stays, and nothing is left
 * behind. */
int file_output_commit(file_output *output, error_text *error);
void file_output_discard(file_output *output);

/* For handlers of signals, in which it is safe, and which end the program then: removes all temporary files. No other thread opens one any more. */
void file_output_abandon(void);

/* Whether file_output_open would be successful, without opening a pipe, and without leaving anything. */
int file_output_check(const char *path, error_text *error);

#endif
