#define _POSIX_C_SOURCE 200809L
#include "tools/io/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
