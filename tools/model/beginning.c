/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/model/beginning.h"

#include "tools/files/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_BYTES = 1 << 20, MOST_BYTES = 256 << 20 };

/* Makes `size` bytes of what is there. */
static int read_to(beginning *file, size_t size, error_text *error)
{
    uint8_t *data = realloc(file->data, size);
    if (!data)
        return error_set(error, "cannot be read: out of memory");
    file->data = data;
    while (file->size < size) {
        const ssize_t n = pread(file->descriptor, data + file->size, size - file->size, (off_t)file->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(error, "cannot be read: %s", strerror(errno));
        if (n == 0)
            return error_set(error, "became shorter while it was read: the same file, whole and left alone, would be right");
        file->size += (size_t)n;
    }
    return 0;
}

static size_t least(uint64_t whole, size_t size)
{
    return whole < size ? (size_t)whole : size;
}

int beginning_open(beginning *file, const char *path, error_text *error)
{
    *file = (beginning){ .descriptor = -1 };
    file->descriptor = file_open(path, &file->whole, error);
    if (file->descriptor < 0)
        return -1;
    if (read_to(file, least(file->whole, FIRST_BYTES), error) == 0)
        return 0;
    beginning_close(file);
    return -1;
}

int beginning_extend(beginning *file, error_text *error)
{
    if (file->size >= MOST_BYTES)
        return error_set(error, "its metadata take more than %d MiB: less would be right", MOST_BYTES >> 20);
    return read_to(file, least(file->whole, 4 * file->size), error);
}

void beginning_close(beginning *file)
{
    free(file->data);
    if (file->descriptor >= 0)
        close(file->descriptor);
    *file = (beginning){ .descriptor = -1 };
}
