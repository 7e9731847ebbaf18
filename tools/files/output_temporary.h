/* SPDX-License-Identifier: MIT */
/* The temporary files of output.h, alike on all systems: a list of those that are open, from which they are renamed or removed. */
#ifndef KVT_TOOLS_OUTPUT_TEMPORARY_H
#define KVT_TOOLS_OUTPUT_TEMPORARY_H

#include "tools/files/output.h"

/* ---- what each system has ---- */

/* Whoever changes the list, or makes a name that is in it true, does it between these two. Nothing else that changes it, and nothing that ends the
 * program, comes in between. */
void output_begin_change(void);
void output_end_change(void);

/* A name beside `path` that nobody can guess, as `temporary`. 0, or -1 with errno. */
int output_make_name(file_output *output);

/* Closes the stream; all that was written, and the mode, is on the disk then. 0, or -1 with errno, which is 0 where nobody knows. */
int output_finish(file_output *output);

/* ---- what they share ---- */

/* The descriptor of a new file, which is in the list then; or -1 with errno. */
int output_make_temporary(file_output *output);
void output_remove_temporary(file_output *output);

/* Frees what the output has, but for its stream. */
void output_release(file_output *output);

/* For atexit. */
void output_remove_at_exit(void);

/* The error of errno: -1. */
int output_fail(error_text *error);

#endif
