/* SPDX-License-Identifier: MIT */
/* Files of rows: QVKT, .npy, .npz, .safetensors, and numbers without a header. Any bytes give rows that can all be read, or an error. The first
 * byte says what the file is called, and in which order its arrays are. */
#include <stdlib.h>
#include <string.h>

#include "target.h"
#include "tools/rows/kind.h"
#include "tools/rows/rows.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

/* Where sums go, so that reading is not left out. */
static volatile float sink;

static float sum_of(const rows_file *file)
{
    float sum = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const rows_tensor *tensor = &file->tensors[i];
        float *rows = malloc(tensor->dim * sizeof *rows);
        if (rows == NULL)
            continue;
        for (uint32_t head = 0; head < tensor->heads; head++)
            for (size_t t = 0; t < tensor->tokens; t++) {
                rows_to_f32(tensor, head, t, 1, rows);
                sum += rows[tensor->dim - 1];
            }
        free(rows);
        if (tensor->name != NULL)
            sum += (float)rows_kind_of(tensor->name);
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = { "file", "file.qvkt", "file.npy", "file.npz", "file.safetensors" };
    enum { NAMES = sizeof names / sizeof *names };
    if (size < 2)
        return 0;
    const unsigned kind = bytes[0] % (2 * (NAMES + 1));
    const rows_order order = kind % 2 != 0 ? ROWS_TOKEN_HEAD : ROWS_HEAD_TOKEN;
    /* Exactly as many: a read beyond them is seen. */
    uint8_t *copy = malloc(size - 1);
    if (copy == NULL)
        return 0;
    memcpy(copy, bytes + 1, size - 1);
    rows_shape shape = { .dtype = (kvt_dtype)(1 + copy[0] % 3), .n_sizes = copy[0] / 3 % 5 };
    for (size_t i = 0; i < 4 && i + 1 < size - 1; i++)
        shape.sizes[i] = copy[i + 1];
    rows_file file;
    error_text error = { "" };
    const bool raw = kind / 2 == NAMES;
    if (rows_read(&file, copy, size - 1, raw ? "" : names[kind / 2], raw ? &shape : NULL, order, &error) == 0) {
        if (file.n_tensors == 0)
            abort();
        sink = sum_of(&file);
        rows_close(&file);
    } else if (!*error.text || strchr(error.text, '\n') || file.tensors != NULL) {
        abort();
    }
    free(copy);
    return 0;
}
