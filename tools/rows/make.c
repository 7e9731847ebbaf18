/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/rows/make.h"

#include <inttypes.h>
#include <stdio.h>
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
    void *p = malloc(bytes > 0 ? bytes : 1);
    if (p != NULL)
        file->blocks[file->n_blocks++] = p;
    return p;
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
