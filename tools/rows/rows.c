/* SPDX-License-Identifier: MIT */
#include "tools/rows/rows.h"

#include "tools/files/number.h"

#include <stdlib.h>
#include <string.h>

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
