/* SPDX-License-Identifier: MIT */
/* One reader per file format, called by open.c, and the writers. */
#ifndef KVT_TOOLS_FORMATS_H
#define KVT_TOOLS_FORMATS_H

#include "tools/rows/make.h"

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

#endif
