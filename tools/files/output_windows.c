/* SPDX-License-Identifier: MIT */
/* output.h on Windows: a file has the rights of its folder, so none are kept. */
#define _CRT_RAND_S
#include "tools/files/output_temporary.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <windows.h>

/* ---- what is removed when the program ends early ---- */

static CRITICAL_SECTION lock;

void output_begin_change(void)
{
    EnterCriticalSection(&lock);
}

void output_end_change(void)
{
    LeaveCriticalSection(&lock);
}

static BOOL WINAPI end_by_console(DWORD event)
{
    (void)event;
    file_output_abandon();
    return FALSE; /* and it ends as it does by default */
}

static void watch_console(void)
{
    static bool watched;
    if (watched)
        return;
    watched = true;
    InitializeCriticalSection(&lock);
    atexit(output_remove_at_exit);
    SetConsoleCtrlHandler(end_by_console, TRUE);
}

/* ---- writing ---- */

int output_make_name(file_output *output)
{
    const char *slash = output->path;
    for (const char *at = output->path; *at != '\0'; at++)
        if (*at == '/' || *at == '\\' || *at == ':')
            slash = at + 1;
    if (*slash == '\0') { /* the temporary file could be made, and not renamed */
        errno = ENOENT;
        return -1;
    }
    const size_t folder = (size_t)(slash - output->path);
    unsigned random[2];
    if (rand_s(&random[0]) != 0 || rand_s(&random[1]) != 0)
        return -1;
    free(output->temporary);
    output->temporary = malloc(folder + sizeof ".kvtile-0123456789abcdef.part");
    if (output->temporary == NULL)
        return -1;
    memcpy(output->temporary, output->path, folder);
    sprintf(output->temporary + folder, ".kvtile-%08x%08x.part", random[0], random[1]);
    return 0;
}

int output_finish(file_output *output)
{
    errno = 0;
    int result = fflush(output->stream) != 0 || ferror(output->stream) || (output->path != NULL && fsync(fileno(output->stream)) != 0) ? -1 : 0;
    const int why = errno;
    if (fclose(output->stream) != 0 && result == 0)
        return -1;
    errno = why;
    return result;
}

int file_output_open(file_output *output, const char *path, error_text *error)
{
    struct stat status;
    const bool exists = stat(path, &status) == 0;
    *output = (file_output){ 0 };
    watch_console();
    if (exists && S_ISDIR(status.st_mode))
        return error_set(error, "cannot be written: %s", strerror(EISDIR));
    if (exists && !S_ISREG(status.st_mode)) {
        const int device = open(path, O_WRONLY | O_CLOEXEC);
        output->stream = device >= 0 ? fdopen(device, "wb") : NULL;
        return output->stream != NULL ? 0 : output_fail(error);
    }
    if (exists && access(path, W_OK) != 0)
        return output_fail(error);
    output->replaces = exists;
    output->path = strdup(path);
    const int descriptor = output->path != NULL ? output_make_temporary(output) : -1;
    if (descriptor >= 0 && (output->stream = fdopen(descriptor, "wb")) != NULL)
        return 0;
    output_fail(error);
    if (descriptor >= 0) {
        close(descriptor);
        output_remove_temporary(output);
    }
    output_release(output);
    return -1;
}
