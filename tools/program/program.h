/* SPDX-License-Identifier: MIT */
/* How every program begins and ends, so that none says it was successful when its results went nowhere. */
#ifndef KVT_TOOLS_PROGRAM_H
#define KVT_TOOLS_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

/* The first thing in main, from one thread, once. `name` begins messages and must live on.
 *
 * Descriptors 0 to 2 that are closed are opened, so that no file gets their numbers; they stay of no use: reading and writing them fails.
 * SIGXFSZ is ignored: a write beyond `ulimit -f` is an error with a message then, as on a full disk.
 * When the program ends, by return or by exit() from anywhere, and something could not be written to the standard output, or program_allocate failed,
 * that is a line on stderr, and the status is 1. */
void program_start(const char *name);

/* Some memory was not to be had: whatever the program returns, it ends with status 1 and a message. */
void program_lacks_memory(void);

/* malloc for libraries that lose sight of its failures, such as jansson, where a value that cannot be made is missing without a word: what fails here
 * calls program_lacks_memory. */
void *program_allocate(size_t size);

/* Whether program_lacks_memory was called: for outputs that are better not written than written in part. */
bool program_out_of_memory(void);

#endif
