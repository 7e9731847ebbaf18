/* SPDX-License-Identifier: MIT */
/* Rows of keys or values in a file: QVKT, .npy, .npz or .safetensors, told apart by their first bytes and, for safetensors, by the name's ending; or
 * nothing but numbers, and somebody says what they are. */
#ifndef KVT_TOOLS_ROWS_H
#define KVT_TOOLS_ROWS_H

#include "tools/files/file.h"

#include <kvtile/kvtile.h>

/* How rows lie in an array of three dimensions. Before them there may be a fourth: a batch, which must be of 1. An array of two is one head. QVKT
 * says its order itself. */
typedef enum rows_order { ROWS_HEAD_TOKEN, ROWS_TOKEN_HEAD } rows_order;

/* Rows of all KV heads. */
typedef struct rows_tensor {
    char *name; /* NULL when the format has no names */
    kvt_dtype dtype;
    uint32_t heads;
    size_t tokens;
    uint32_t dim;
    rows_order order;
    const uint8_t *data; /* in the file or what was inflated of it, at any alignment; heads * tokens * dim elements were checked to be there */
} rows_tensor;

typedef struct rows_file {
    file_map map;
    size_t n_tensors; /* at least 1 */
    rows_tensor *tensors;
    char *note; /* one line about what was skipped, or NULL */
    rows_order order;
    bool is_lent;  /* the map is not the file's own */
    void **blocks; /* memory for what was inflated */
    size_t n_blocks;
} rows_file;

/* 0, or -1 with the error; `file` then holds nothing. */
int rows_open(rows_file *file, const char *path, rows_order order, error_text *error);

/* Numbers and nothing else: `n_sizes` of 2 to 4, as an array has them in that order. */
typedef struct rows_shape {
    kvt_dtype dtype;
    size_t n_sizes;
    uint64_t sizes[4];
} rows_shape;
int rows_open_raw(rows_file *file, const char *path, const rows_shape *shape, rows_order order, error_text *error);

/* The same of bytes that are in memory, and stay; `path` is only looked at for its ending. `shape` NULL: they say it themselves. */
int rows_read(rows_file *file, const uint8_t *bytes, size_t size, const char *path, const rows_shape *shape, rows_order order, error_text *error);

void rows_close(rows_file *file);

/* The n * dim numbers of n tokens of one head, from `first` on; of all of them. */
void rows_to_f32(const rows_tensor *tensor, uint32_t head, size_t first, size_t n, float *out);
void rows_head_to_f32(const rows_tensor *tensor, uint32_t head, float *out);

const char *rows_dtype_name(kvt_dtype dtype);

#endif
