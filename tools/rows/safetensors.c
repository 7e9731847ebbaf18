/* SPDX-License-Identifier: MIT */
/* The tensors of a safetensors file that are rows. */
#include "tools/files/safetensors.h"

#include "tools/rows/formats.h"

typedef struct reading {
    rows_file *file;
    rows_skipped skipped;
} reading;

/* 0, or -1 and why the tensor holds no rows that can be stored. */
static int make_rows(rows_tensor *rows, rows_order order, const safetensors_entry *tensor, error_text *reason)
{
    uint64_t bytes;
    error_text why;
    *rows = (rows_tensor){ .dtype = tensor->number, .data = tensor->data };
    if (tensor->number == 0)
        return error_set(reason, "tensor %.120s: dtype is %s: F32, F16 or BF16 would be right", tensor->name, tensor->dtype);
    if (rows_set_shape(rows, order, tensor->n_sizes, tensor->sizes, &bytes, &why) != 0)
        return error_set(reason, "tensor %.120s: %.200s", tensor->name, why.text);
    return 0;
}

static int use_entry(void *owner, const safetensors_entry *tensor, error_text *error)
{
    reading *r = owner;
    rows_tensor rows;
    error_text reason;
    if (make_rows(&rows, r->file->order, tensor, &reason) == 0)
        return rows_add(r->file, &rows, tensor->name, error);
    rows_skip(&r->skipped, &reason);
    return 0;
}

int safetensors_read(rows_file *file, error_text *error)
{
    reading r = { .file = file };
    if (safetensors_walk(&file->map, use_entry, &r, error) != 0)
        return -1;
    return rows_finish(file, &r.skipped, "tensor", error);
}
