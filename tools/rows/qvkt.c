/* SPDX-License-Identifier: MIT */
/* QVKT: "QVKT", then int32 layer, KV heads, tokens, head_dim, then f32 rows [head][token][dim]. */
#include "tools/files/number.h"
#include "tools/files/output.h"
#include "tools/rows/formats.h"

#include <inttypes.h>

enum { HEADER_BYTES = 20 };

int qvkt_read(rows_file *file, error_text *error)
{
    const file_map *map = &file->map;
    if (map->size < HEADER_BYTES)
        return error_set(error, "file is %zu bytes: a QVKT header alone has %d", map->size, HEADER_BYTES);
    if (memcmp(map->data, "QVKT", 4) != 0)
        return error_set(error, "magic is not QVKT: the first 4 bytes of a .qvkt file would be");
    if (file->order != ROWS_HEAD_TOKEN)
        return error_set(error, "is a QVKT file, which is [head][token][dim] whatever its sizes are: --order is of the other formats");

    uint64_t sizes[3];
    static const char *const fields[3] = { "kv heads", "tokens", "head_dim" };
    for (size_t i = 0; i < 3; i++) {
        const int32_t value = load_i32(map->data + 8 + 4 * i);
        if (value < 1)
            return error_set(error, "%s is %" PRId32 ": at least 1 would be right", fields[i], value);
        sizes[i] = (uint64_t)value;
    }
    rows_tensor tensor = { .dtype = KVT_F32, .data = map->data + HEADER_BYTES };
    uint64_t bytes;
    if (rows_set_shape(&tensor, ROWS_HEAD_TOKEN, 3, sizes, &bytes, error) != 0)
        return -1;
    if (bytes != map->size - HEADER_BYTES)
        return error_set(error, "rows take %zu bytes: %" PRIu64 " (%" PRIu32 " heads x %zu tokens x %" PRIu32 " f32) would be right",
                         map->size - HEADER_BYTES, bytes, tensor.heads, tensor.tokens, tensor.dim);
    return rows_add(file, &tensor, NULL, error);
}

int qvkt_write(const char *path, uint32_t layer, uint32_t heads, size_t tokens, uint32_t dim, const float *rows, size_t head_stride,
               error_text *error)
{
    if (layer > INT32_MAX || heads > INT32_MAX || tokens > INT32_MAX || dim > INT32_MAX)
        return error_set(error, "%zu tokens of %" PRIu32 " heads: QVKT holds sizes up to %" PRId32, tokens, heads, INT32_MAX);
    file_output output;
    if (file_output_open(&output, path, error) != 0)
        return -1;
    const int32_t header[4] = { (int32_t)layer, (int32_t)heads, (int32_t)tokens, (int32_t)dim };
    fwrite("QVKT", 1, 4, output.stream);
    fwrite(header, sizeof header, 1, output.stream);
    for (uint32_t head = 0; head < heads; head++)
        fwrite(rows + head * head_stride, sizeof *rows * dim, tokens, output.stream);
    return file_output_commit(&output, error); /* which sees failed writes */
}
