/* One reader per file format, called by rows.c, and what they share. */
#ifndef KVT_TOOLS_FORMATS_H
#define KVT_TOOLS_FORMATS_H

#include "tools/rows/rows.h"

#include <stdbool.h>
#include <stdio.h>

/* Each looks at file->map and adds tensors to `file`; 0, or -1 with the error (rows_close is then still due). */
int qvkt_read(rows_file *file, error_text *error);
int npy_read(rows_file *file, error_text *error);
int npz_read(rows_file *file, error_text *error);
int safetensors_read(rows_file *file, error_text *error);

/* The rows of an .npy file of `size` bytes. */
int npy_parse(const uint8_t *data, size_t size, rows_order order, rows_tensor *tensor, error_text *error);

/* Writes [head][token][dim] f32 rows as QVKT; head h begins at rows + h * head_stride (in elements). */
int qvkt_write(const char *path, uint32_t layer, uint32_t heads, size_t tokens, uint32_t dim, const float *rows, size_t head_stride,
               error_text *error);

/* Writes what stands before the numbers of an .npy file of f32 or f16: shape [head][token][dim], or [token][dim] with heads = 0. Failures show in
 * ferror(stream). */
void npy_write_header(FILE *stream, kvt_dtype dtype, uint32_t heads, size_t tokens, uint32_t dim);

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
