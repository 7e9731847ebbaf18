/* SPDX-License-Identifier: MIT */
/* A file of rows: which format it is in. The formats' readers know nothing of each other, and nothing of this file. */
#define _POSIX_C_SOURCE 200809L
#include "tools/files/pickle.h"
#include "tools/files/text.h"
#include "tools/rows/formats.h"

#include <inttypes.h>
#include <string.h>

static bool begins_with(const file_map *map, const char *magic)
{
    const size_t length = strlen(magic);
    return map->size >= length && memcmp(map->data, magic, length) == 0;
}

static int read_any(rows_file *file, const char *path, error_text *error)
{
    if (pickle_is(&file->map))
        return pickle_refuse(error);
    if (begins_with(&file->map, "QVKT") || text_ends_with(path, ".qvkt"))
        return qvkt_read(file, error);
    if (begins_with(&file->map, "\x93NUMPY") || text_ends_with(path, ".npy"))
        return npy_read(file, error);
    if (begins_with(&file->map, "PK\x03\x04") || text_ends_with(path, ".npz"))
        return npz_read(file, error);
    if (text_ends_with(path, ".safetensors"))
        return safetensors_read(file, error);
    return error_set(error, "begins neither with QVKT nor as .npy or .npz do, nor is it named .safetensors: one of these would be right");
}

static int read_raw(rows_file *file, const rows_shape *shape, error_text *error)
{
    rows_tensor tensor = { .dtype = shape->dtype, .data = file->map.data };
    uint64_t bytes = 0;
    if (rows_set_shape(&tensor, file->order, shape->n_sizes, shape->sizes, &bytes, error) != 0)
        return -1;
    if (bytes != file->map.size)
        return error_set(error, "has %zu bytes: %" PRIu64 " (%" PRIu32 " heads x %zu tokens x %" PRIu32 " %s) would be right", file->map.size, bytes,
                         tensor.heads, tensor.tokens, tensor.dim, rows_dtype_name(tensor.dtype));
    return rows_add(file, &tensor, NULL, error);
}

/* What is mapped. */
static int read_file(rows_file *file, const char *path, const rows_shape *shape, error_text *error)
{
    const int status = shape != NULL ? read_raw(file, shape, error) : read_any(file, path, error);
    if (status != 0)
        rows_close(file);
    return status;
}

int rows_read(rows_file *file, const uint8_t *bytes, size_t size, const char *path, const rows_shape *shape, rows_order order, error_text *error)
{
    *file = (rows_file){ .map = { bytes, size }, .order = order, .is_lent = true };
    return read_file(file, path, shape, error);
}

int rows_open_raw(rows_file *file, const char *path, const rows_shape *shape, rows_order order, error_text *error)
{
    *file = (rows_file){ .order = order };
    return file_map_open(&file->map, path, error) == 0 ? read_file(file, path, shape, error) : -1;
}

int rows_open(rows_file *file, const char *path, rows_order order, error_text *error)
{
    return rows_open_raw(file, path, NULL, order, error);
}
