/* SPDX-License-Identifier: MIT */
#include "tools/files/pickle.h"

#include "tools/files/number.h"

#include <stdio.h>

/* A zip archive's first member: 30 bytes; bytes 26 and 27 are the length of the name behind them. */
enum { ZIP_HEADER = 30, ZIP_NAME_LENGTH = 26 };

bool pickle_is_member(const char *name)
{
    static const char file[] = "data.pkl";
    const size_t length = strlen(name), own = sizeof file - 1;
    return length >= own && strcmp(name + length - own, file) == 0 && (length == own || name[length - own - 1] == '/');
}

bool pickle_is(const file_map *map)
{
    if (map->size > ZIP_HEADER && memcmp(map->data, "PK\x03\x04", 4) == 0) {
        char name[256];
        const size_t length = load_u16(map->data + ZIP_NAME_LENGTH);
        if (length >= sizeof name || length > map->size - ZIP_HEADER)
            return false;
        memcpy(name, map->data + ZIP_HEADER, length);
        name[length] = '\0';
        return pickle_is_member(name);
    }
    /* PROTO, the protocol, and an instruction; no instruction is below '('. A checkpoint of 640 channels begins with the same two bytes, then zeros.
     */
    return map->size > 3 && map->data[0] == 0x80 && map->data[1] >= 2 && map->data[1] <= 5 && map->data[2] >= '(';
}

int pickle_refuse(error_text *error)
{
    return error_set(error, "is a file of PyTorch, a pickle, which runs code when it is loaded: its tensors in a .safetensors file "
                            "(safetensors.torch.save_file) or .npy files (numpy.save) would be right");
}
