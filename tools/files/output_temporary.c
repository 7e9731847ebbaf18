/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/files/output_temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static file_output *opened;

static void take_from_list(const file_output *output)
{
    for (file_output **link = &opened; *link != NULL; link = &(*link)->next)
        if (*link == output) {
            *link = output->next;
            return;
        }
}

static void remove_opened(void)
{
    for (const file_output *output = opened; output != NULL; output = output->next)
        unlink(output->temporary);
}

void file_output_abandon(void)
{
    output_begin_change(); /* for good: no thread goes on writing files while the program ends */
    remove_opened();
}

void output_remove_at_exit(void)
{
    output_begin_change();
    remove_opened();
    opened = NULL;
    output_end_change();
}

int output_fail(error_text *error)
{
    return error_set(error, "cannot be written: %s", strerror(errno));
}

int output_make_temporary(file_output *output)
{
    int descriptor = -1;
    for (int tries = 0; descriptor < 0 && tries < 100; tries++) {
        if (output_make_name(output) != 0)
            return -1;
        output_begin_change();
        /* Nobody reads what replaces a file before it has that file's mode. */
        descriptor = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, output->replaces ? 0600 : 0666);
        if (descriptor >= 0) {
            output->next = opened;
            opened = output;
        }
        const int why = errno;
        output_end_change();
        errno = why;
        if (descriptor < 0 && errno != EEXIST)
            return -1;
    }
    return descriptor;
}

void output_remove_temporary(file_output *output)
{
    output_begin_change();
    unlink(output->temporary);
    take_from_list(output);
    output_end_change();
}

void output_release(file_output *output)
{
    free(output->path);
    free(output->temporary);
    *output = (file_output){ 0 };
}

int file_output_commit(file_output *output, error_text *error)
{
    int result = output_finish(output);
    int why = errno;
    if (output->path != NULL) {
        output_begin_change();
        if (result == 0) {
            result = rename(output->temporary, output->path);
            why = errno;
        }
        if (result != 0)
            unlink(output->temporary);
        take_from_list(output);
        output_end_change();
    }
    if (result != 0)
        error_set(error, "cannot be written: %s", why != 0 ? strerror(why) : "a write failed");
    output_release(output);
    return result != 0 ? -1 : 0;
}

void file_output_discard(file_output *output)
{
    fclose(output->stream);
    if (output->path != NULL)
        output_remove_temporary(output);
    output_release(output);
}

int file_output_check(const char *path, error_text *error)
{
    struct stat status;
    file_output output;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        if (S_ISDIR(status.st_mode))
            errno = EISDIR;
        return !S_ISDIR(status.st_mode) && access(path, W_OK) == 0 ? 0 : output_fail(error);
    }
    if (file_output_open(&output, path, error) != 0)
        return -1;
    file_output_discard(&output);
    return 0;
}
