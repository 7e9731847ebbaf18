/* SPDX-License-Identifier: MIT */
/* Structs of callers that may be older than the library. */
#ifndef KVT_API_SIZED_H
#define KVT_API_SIZED_H

#include <kvtile/kvtile.h>

#include <string.h>

/* A struct that begins with its size, from a caller that may be older: `first` bytes are what the first version had, `known` is what this one has.
 * Errors: STRUCT_SIZE. */
static inline kvt_status kvt_take_sized(void *to, const void *from, size_t first, size_t known)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < first || size > known || size % sizeof size)
        return KVT_ERR_STRUCT_SIZE;
    memcpy(to, from, size);
    memset((uint8_t *)to + size, 0, known - size);
    memcpy(to, &known, sizeof known);
    return KVT_OK;
}
/* `last`: the last field of the first version. */
#define KVT_TAKE_STRUCT(type, last, to, from) kvt_take_sized((to), (from), (offsetof(type, last) + sizeof((to)->last) + 7) / 8 * 8, sizeof(type))

#endif
