/* Rows of keys or values in a file: QVKT, .npy, .npz or .safetensors, told apart by their first bytes and, for safetensors, by the name's ending; or
 * nothing but numbers, of which somebody says what they are. */
#ifndef KVT_TOOLS_ROWS_H
#define KVT_TOOLS_ROWS_H

#include "tools/io/file.h"

#include <kvtile/kvtile.h>

/* Rows of all KV heads, in the order [head][token][dim]. A two-dimensional array is one head. */
typedef struct rows_tensor {
    char *name; /* NULL when the format has no names */
    kvt_dtype dtype;
    uint32_t heads;
    size_t tokens;
    uint32_t dim;
    const uint8_t *data; /* in the file or what was inflated of it, at any alignment; heads * tokens * dim elements were checked to be there */
} rows_tensor;

typedef struct rows_file {
    file_map map;
    size_t n_tensors; /* at least 1 */
    rows_tensor *tensors;
    char *note;    /* one line about what was skipped, or NULL */
    void **blocks; /* memory for what was inflated */
    size_t n_blocks;
} rows_file;

/* 0, or -1 with the error; `file` then holds nothing. */
int rows_open(rows_file *file, const char *path, error_text *error);

/* Numbers and nothing else: `n_sizes` of 2 or 3 are [token][dim] or [head][token][dim]. */
typedef struct rows_shape {
    kvt_dtype dtype;
    size_t n_sizes;
    uint64_t sizes[3];
} rows_shape;
int rows_open_raw(rows_file *file, const char *path, const rows_shape *shape, error_text *error);

void rows_close(rows_file *file);

/* The n * dim numbers of n tokens of one head, from `first` on; of all of them. */
void rows_to_f32(const rows_tensor *tensor, uint32_t head, size_t first, size_t n, float *out);
void rows_head_to_f32(const rows_tensor *tensor, uint32_t head, float *out);

const char *rows_dtype_name(kvt_dtype dtype);

#endif
