#define _POSIX_C_SOURCE 200809L
#include "tools/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int map_descriptor(file_map *map, int descriptor, error_text *error)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return error_set(error, "cannot be read: %s", strerror(errno));
    if (!S_ISREG(status.st_mode))
        return error_set(error, "is %s: a regular file is needed", S_ISDIR(status.st_mode) ? "a directory" : "a device or a pipe");
    if (status.st_size == 0)
        return error_set(error, "is empty");
    if ((uintmax_t)status.st_size > SIZE_MAX)
        return error_set(error, "is too large for this machine's address space");
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED)
        return error_set(error, "cannot be mapped: %s", strerror(errno));
    *map = (file_map){ .data = data, .size = (size_t)status.st_size };
    return 0;
}

int file_map_open(file_map *map, const char *path, error_text *error)
{
    *map = (file_map){ 0 };
    /* Without O_NONBLOCK, opening a pipe would wait for its writer. */
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return error_set(error, "cannot be opened: %s", strerror(errno));
    const int result = map_descriptor(map, descriptor, error);
    close(descriptor);
    return result;
}

void file_map_close(file_map *map)
{
    if (map->data != NULL)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (file_map){ 0 };
}

static void release(file_output *output)
{
    free(output->path);
    free(output->temporary);
    *output = (file_output){ 0 };
}

int file_output_open(file_output *output, const char *path, error_text *error)
{
    const size_t room = strlen(path) + 32;
    *output = (file_output){ .path = strdup(path), .temporary = malloc(room) };
    if (output->path == NULL || output->temporary == NULL) {
        release(output);
        return error_set(error, "cannot be written: out of memory");
    }
    snprintf(output->temporary, room, "%s.%ld.part", path, (long)getpid());
    output->stream = fopen(output->temporary, "wb");
    if (output->stream == NULL) {
        error_set(error, "cannot be written: %s", strerror(errno));
        release(output);
        return -1;
    }
    return 0;
}

int file_output_commit(file_output *output, error_text *error)
{
    errno = 0;
    const int written = !ferror(output->stream);
    const int closed = fclose(output->stream) == 0;
    int result = 0;
    if (!written || !closed || rename(output->temporary, output->path) != 0) {
        result = error_set(error, "cannot be written: %s", errno != 0 ? strerror(errno) : "a write failed");
        unlink(output->temporary);
    }
    release(output);
    return result;
}

void file_output_discard(file_output *output)
{
    fclose(output->stream);
    unlink(output->temporary);
    release(output);
}
