/* SPDX-License-Identifier: MIT */
/* How a reader of a format makes a rows_file. */
#ifndef KVT_TOOLS_ROWS_MAKE_H
#define KVT_TOOLS_ROWS_MAKE_H

#include "tools/rows/rows.h"

/* Fills the shape of `tensor` from an array's and gives the bytes of its rows, its dtype being set; -1 with the error when the library could not
 * store such rows. */
int rows_set_shape(rows_tensor *tensor, rows_order order, size_t n_sizes, const uint64_t *sizes, uint64_t *bytes, error_text *error);

/* Takes a copy of `name`, which may be NULL. */
int rows_add(rows_file *file, const rows_tensor *tensor, const char *name, error_text *error);

/* Memory that lives as long as the file; NULL when there is none. The second gives the last one back before that. */
void *rows_block(rows_file *file, size_t bytes);
void rows_drop_block(rows_file *file);

/* What a file has beside rows: counted, with the reason of the first. */
typedef struct rows_skipped {
    size_t n;
    error_text first;
} rows_skipped;
void rows_skip(rows_skipped *skipped, const error_text *reason);

/* When all were looked at: makes the note; -1 with the error when there are no rows. `what`: a file of this format has such things. */
int rows_finish(rows_file *file, const rows_skipped *skipped, const char *what, error_text *error);

#endif
