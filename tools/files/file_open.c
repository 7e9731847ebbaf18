/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/files/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_open(const char *path, uint64_t *size, error_text *error)
{
    struct stat status;
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return error_set(error, "cannot be opened: %s", strerror(errno));
    if (fstat(descriptor, &status) != 0)
        error_set(error, "cannot be read: %s", strerror(errno));
    else if (!S_ISREG(status.st_mode))
        error_set(error, "is %s: a regular file is needed", S_ISDIR(status.st_mode) ? "a directory" : "a device or a pipe");
    else if (status.st_size == 0)
        error_set(error, "is empty");
    else {
        *size = (uint64_t)status.st_size;
        return descriptor;
    }
    close(descriptor);
    return -1;
}
