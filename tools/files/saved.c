/* SPDX-License-Identifier: MIT */
#include "tools/files/saved.h"

#include "tools/files/output.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int write_stream(void *context, const void *bytes, size_t n)
{
    return fwrite(bytes, 1, n, context) == n ? 0 : -1;
}

int saved_write(const char *path, const kvt_cache *cache, uint32_t id, const kvt_save *save, void *workspace, size_t workspace_bytes,
                error_text *error)
{
    file_output output;
    if (file_output_open(&output, path, error) != 0)
        return -1;
    const kvt_status status = kvt_cache_save(cache, id, save, write_stream, output.stream, workspace, workspace_bytes);
    if (status == KVT_OK || status == KVT_ERR_IO) /* whose reason the stream has */
        return file_output_commit(&output, error);
    file_output_discard(&output);
    return error_set(error, "tokens %zu to %zu cannot be saved: %s", save->first, save->end, kvt_status_text(status));
}

int saved_open(saved_file *file, const char *path, error_text *error)
{
    if (file_map_open(&file->map, path, error) != 0)
        return -1;
    char why[200];
    kvt_status status = kvt_saved_open(file->map.data, file->map.size, &file->saved, why, sizeof why);
    if (status == KVT_OK && file->map.size != file->saved.bytes) {
        snprintf(why, sizeof why, "%zu bytes: %zu would be right", file->map.size, file->saved.bytes);
        status = KVT_ERR_DATA;
    }
    if (status == KVT_OK)
        return 0;
    file_map_close(&file->map);
    return error_set(error, "%s", why);
}

void saved_close(saved_file *file)
{
    file_map_close(&file->map);
}

typedef struct reader {
    const uint8_t *at;
    size_t left;
} reader;

static int read_map(void *context, void *bytes, size_t n)
{
    reader *from = context;
    if (n > from->left)
        return -1;
    memcpy(bytes, from->at, n);
    from->at += n;
    from->left -= n;
    return 0;
}

int saved_load(const saved_file *file, kvt_cache *cache, uint32_t id, uint64_t model, error_text *error)
{
    reader from = { file->map.data + file->saved.head_bytes, file->map.size - file->saved.head_bytes };
    if (kvt_cache_load(cache, id, &file->saved, model, read_map, &from) == KVT_OK)
        return 0;
    char why[200];
    kvt_cache_problem(cache, id, why, sizeof why);
    return error_set(error, "cannot be loaded: %s", why);
}
