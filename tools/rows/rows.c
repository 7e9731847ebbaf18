#define _POSIX_C_SOURCE 200809L
#include "tools/rows/rows.h"

#include "tools/files/number.h"
#include "tools/files/pickle.h"
#include "tools/rows/formats.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int rows_set_shape(rows_tensor *tensor, rows_order order, size_t n_sizes, const uint64_t *sizes, uint64_t *bytes, error_text *error)
{
    if (n_sizes == 4 && sizes[0] != 1)
        return error_set(error, "shape has a batch of %" PRIu64 " before its heads and tokens: a batch of 1, or none, would be right", sizes[0]);
    if (n_sizes < 2 || n_sizes > 4)
        return error_set(error, "shape has %zu dimensions: 2 ([token][dim]) or 3 ([head][token][dim]) would be right", n_sizes);
    if (n_sizes == 4) {
        sizes++;
        n_sizes--;
    }
    const bool tokens_first = n_sizes == 3 && order == ROWS_TOKEN_HEAD;
    const uint64_t heads = n_sizes == 2 ? 1 : sizes[tokens_first ? 1 : 0];
    const uint64_t tokens = sizes[tokens_first ? 0 : n_sizes - 2];
    const uint64_t dim = sizes[n_sizes - 1];
    if (heads < 1 || heads > KVT_MAX_HEADS)
        return error_set(error, "heads is %" PRIu64 ": 1 to %d would be right%s", heads, KVT_MAX_HEADS,
                         heads > KVT_MAX_HEADS && !tokens_first ? "; kvtile eval --order token,head,dim takes [token][head][dim]" : "");
    if (tokens < 1)
        return error_set(error, "tokens is 0: at least 1 would be right");
    if (dim < 1 || dim > KVT_MAX_DIM)
        return error_set(error, "dim is %" PRIu64 ": 1 to %d would be right", dim, KVT_MAX_DIM);
    const uint64_t token_bytes = heads * dim * kvt_dtype_bytes(tensor->dtype);
    if (__builtin_mul_overflow(token_bytes, tokens, bytes) || *bytes > SIZE_MAX)
        return error_set(error, "tokens is %" PRIu64 ": more than fits memory", tokens);
    tensor->heads = (uint32_t)heads;
    tensor->tokens = (size_t)tokens;
    tensor->dim = (uint32_t)dim;
    tensor->order = tokens_first ? ROWS_TOKEN_HEAD : ROWS_HEAD_TOKEN;
    return 0;
}

int rows_add(rows_file *file, const rows_tensor *tensor, const char *name, error_text *error)
{
    rows_tensor *tensors = realloc(file->tensors, (file->n_tensors + 1) * sizeof *tensors);
    if (tensors == NULL)
        return error_set(error, "cannot be read: out of memory");
    file->tensors = tensors;
    rows_tensor *added = &tensors[file->n_tensors];
    *added = *tensor;
    added->name = NULL;
    if (name != NULL) {
        added->name = strdup(name);
        if (added->name == NULL)
            return error_set(error, "cannot be read: out of memory");
    }
    file->n_tensors++;
    return 0;
}

void *rows_block(rows_file *file, size_t bytes)
{
    void **blocks = realloc(file->blocks, (file->n_blocks + 1) * sizeof *blocks);
    if (blocks == NULL)
        return NULL;
    file->blocks = blocks;
    void *made = malloc(bytes > 0 ? bytes : 1);
    if (made != NULL)
        file->blocks[file->n_blocks++] = made;
    return made;
}

void rows_drop_block(rows_file *file)
{
    free(file->blocks[--file->n_blocks]);
}

void rows_skip(rows_skipped *skipped, const error_text *reason)
{
    if (skipped->n++ == 0)
        skipped->first = *reason;
}

int rows_finish(rows_file *file, const rows_skipped *skipped, const char *what, error_text *error)
{
    if (file->n_tensors == 0 && skipped->n == 0)
        return error_set(error, "has no %s: at least one of f32, f16 or bf16 would be right", what);
    if (file->n_tensors == 0)
        return error_set(error, "no %s holds rows; %.300s", what, skipped->first.text);
    if (skipped->n == 0)
        return 0;
    const size_t room = sizeof skipped->first.text + 80;
    file->note = malloc(room);
    if (file->note == NULL)
        return error_set(error, "cannot be read: out of memory");
    snprintf(file->note, room, "%zu of %zu %ss skipped: %s", skipped->n, skipped->n + file->n_tensors, what, skipped->first.text);
    return 0;
}

static bool begins_with(const file_map *map, const char *magic)
{
    const size_t length = strlen(magic);
    return map->size >= length && memcmp(map->data, magic, length) == 0;
}

static bool ends_with(const char *path, const char *ending)
{
    const size_t path_length = strlen(path);
    const size_t length = strlen(ending);
    return path_length >= length && strcmp(path + path_length - length, ending) == 0;
}

static int read_any(rows_file *file, const char *path, error_text *error)
{
    if (pickle_is(&file->map))
        return pickle_refuse(error);
    if (begins_with(&file->map, "QVKT") || ends_with(path, ".qvkt"))
        return qvkt_read(file, error);
    if (begins_with(&file->map, "\x93NUMPY") || ends_with(path, ".npy"))
        return npy_read(file, error);
    if (begins_with(&file->map, "PK\x03\x04") || ends_with(path, ".npz"))
        return npz_read(file, error);
    if (ends_with(path, ".safetensors"))
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

void rows_close(rows_file *file)
{
    for (size_t i = 0; i < file->n_tensors; i++)
        free(file->tensors[i].name);
    free(file->tensors);
    free(file->note);
    for (size_t i = 0; i < file->n_blocks; i++)
        free(file->blocks[i]);
    free(file->blocks);
    if (!file->is_lent)
        file_map_close(&file->map);
    *file = (rows_file){ 0 };
}

static void numbers_to_f32(kvt_dtype dtype, const uint8_t *in, size_t n, float *out)
{
    switch (dtype) {
    case KVT_F32:
        memcpy(out, in, n * sizeof *out);
        break;
    case KVT_F16:
        for (size_t i = 0; i < n; i++)
            out[i] = f16_to_f32(load_u16(in + 2 * i));
        break;
    case KVT_BF16:
        for (size_t i = 0; i < n; i++)
            out[i] = bf16_to_f32(load_u16(in + 2 * i));
        break;
    }
}

void rows_to_f32(const rows_tensor *tensor, uint32_t head, size_t first, size_t tokens, float *out)
{
    const size_t dim = tensor->dim, bytes = kvt_dtype_bytes(tensor->dtype);
    if (tensor->order == ROWS_HEAD_TOKEN) {
        numbers_to_f32(tensor->dtype, tensor->data + (head * tensor->tokens + first) * dim * bytes, tokens * dim, out);
        return;
    }
    for (size_t t = 0; t < tokens; t++)
        numbers_to_f32(tensor->dtype, tensor->data + ((first + t) * tensor->heads + head) * dim * bytes, dim, out + t * dim);
}

void rows_head_to_f32(const rows_tensor *tensor, uint32_t head, float *out)
{
    rows_to_f32(tensor, head, 0, tensor->tokens, out);
}

const char *rows_dtype_name(kvt_dtype dtype)
{
    switch (dtype) {
    case KVT_F32:
        return "f32";
    case KVT_F16:
        return "f16";
    case KVT_BF16:
        return "bf16";
    }
    return "?";
}
