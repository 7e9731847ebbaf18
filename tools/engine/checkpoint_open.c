/* SPDX-License-Identifier: MIT */
/* Which of its forms a model has. The forms' readers know nothing of each other, and nothing of this file. */
#define _POSIX_C_SOURCE 200809L
#include "tools/engine/checkpoint.h"
#include "tools/files/gguf.h"
#include "tools/files/pickle.h"

#include <sys/stat.h>

int checkpoint_read(checkpoint *model, const char *path, const uint8_t *bytes, size_t size, error_text *error)
{
    const file_map map = { bytes, size };
    if (pickle_is(&map))
        return pickle_refuse(error);
    return gguf_is(bytes, size) ? checkpoint_read_gguf(model, path, bytes, size, error) : checkpoint_read_llama2(model, &map, error);
}

static int open_file(checkpoint *model, const char *path, error_text *error)
{
    file_map map;
    if (file_map_open(&map, path, error) != 0)
        return -1;
    const int result = checkpoint_read(model, path, map.data, map.size, error);
    file_map_close(&map);
    return result;
}

int checkpoint_open(checkpoint *model, const char *path, error_text *error)
{
    struct stat status;
    *model = (checkpoint){ 0 };
    const bool folder = stat(path, &status) == 0 && S_ISDIR(status.st_mode);
    const int result = folder ? checkpoint_open_folder(model, path, error) : open_file(model, path, error);
    if (result != 0)
        checkpoint_close(model);
    return result;
}
