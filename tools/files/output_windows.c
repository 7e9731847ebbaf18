/* SPDX-License-Identifier: MIT */
/* output.h on Windows: a file has the rights of its folder, so none are kept. */
#define _CRT_RAND_S
#include "tools/files/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <windows.h>

/* ---- what is removed when the program ends early ---- */

static CRITICAL_SECTION lock;
static file_output *opened;

/* Files are removed while they are open: whoever opens one here allows that. */
void file_output_abandon(void)
{
    EnterCriticalSection(&lock); /* for good */
    for (const file_output *output = opened; output != NULL; output = output->next)
        DeleteFileA(output->temporary);
    opened = NULL;
}

static BOOL WINAPI end_by_console(DWORD event)
{
    (void)event;
    file_output_abandon();
    return FALSE; /* and it ends as it does by default */
}

static void remove_at_exit(void)
{
    file_output_abandon();
    LeaveCriticalSection(&lock);
}

static void watch(void)
{
    static bool watched;
    if (watched)
        return;
    watched = true;
    InitializeCriticalSection(&lock);
    atexit(remove_at_exit);
    SetConsoleCtrlHandler(end_by_console, TRUE);
}

static void forget(const file_output *output)
{
    for (file_output **link = &opened; *link != NULL; link = &(*link)->next)
        if (*link == output) {
            *link = output->next;
            return;
        }
}

/* ---- writing ---- */

static int fail(error_text *error)
{
    return error_set(error, "cannot be written: %s", strerror(errno));
}

static void release(file_output *output)
{
    free(output->path);
    free(output->temporary);
    *output = (file_output){ 0 };
}

/* A new file beside the path, which is in the list then; -1 with errno. */
static int make_temporary(file_output *output)
{
    const char *slash = output->path;
    for (const char *at = output->path; *at != '\0'; at++)
        if (*at == '/' || *at == '\\' || *at == ':')
            slash = at + 1;
    const size_t folder = (size_t)(slash - output->path);
    int descriptor = -1;
    output->temporary = malloc(folder + sizeof ".kvtile-0123456789abcdef.part");
    if (output->temporary == NULL)
        return -1;
    memcpy(output->temporary, output->path, folder);
    for (int tries = 0; descriptor < 0 && tries < 100; tries++) {
        unsigned random[2];
        if (rand_s(&random[0]) != 0 || rand_s(&random[1]) != 0)
            return -1;
        sprintf(output->temporary + folder, ".kvtile-%08x%08x.part", random[0], random[1]);
        EnterCriticalSection(&lock);
        descriptor = open(output->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0) {
            output->next = opened;
            opened = output;
        }
        LeaveCriticalSection(&lock);
        if (descriptor < 0 && errno != EEXIST)
            return -1;
    }
    return descriptor;
}

static void remove_temporary(file_output *output)
{
    EnterCriticalSection(&lock);
    DeleteFileA(output->temporary);
    forget(output);
    LeaveCriticalSection(&lock);
}

int file_output_open(file_output *output, const char *path, error_text *error)
{
    struct stat status;
    const bool exists = stat(path, &status) == 0;
    *output = (file_output){ 0 };
    watch();
    if (exists && S_ISDIR(status.st_mode))
        return error_set(error, "cannot be written: %s", strerror(EISDIR));
    if (exists && !S_ISREG(status.st_mode)) {
        output->stream = fopen(path, "wb");
        return output->stream != NULL ? 0 : fail(error);
    }
    if (exists && access(path, W_OK) != 0)
        return fail(error);
    output->replaces = exists;
    output->path = strdup(path);
    const int descriptor = output->path != NULL ? make_temporary(output) : -1;
    if (descriptor >= 0 && (output->stream = fdopen(descriptor, "wb")) != NULL)
        return 0;
    fail(error);
    if (descriptor >= 0) {
        close(descriptor);
        remove_temporary(output);
    }
    release(output);
    return -1;
}

int file_output_commit(file_output *output, error_text *error)
{
    errno = 0;
    int result = fflush(output->stream) != 0 || ferror(output->stream) || (output->path != NULL && fsync(fileno(output->stream)) != 0) ? -1 : 0;
    int why = errno;
    if (fclose(output->stream) != 0 && result == 0) {
        result = -1;
        why = errno;
    }
    if (output->path != NULL) {
        EnterCriticalSection(&lock);
        if (result == 0) {
            result = rename(output->temporary, output->path);
            why = errno;
        }
        if (result != 0)
            DeleteFileA(output->temporary);
        forget(output);
        LeaveCriticalSection(&lock);
    }
    if (result != 0)
        error_set(error, "cannot be written: %s", why != 0 ? strerror(why) : "a write failed");
    release(output);
    return result != 0 ? -1 : 0;
}

void file_output_discard(file_output *output)
{
    fclose(output->stream);
    if (output->path != NULL)
        remove_temporary(output);
    release(output);
}

int file_output_check(const char *path, error_text *error)
{
    struct stat status;
    file_output output;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode))
        return 0;
    if (file_output_open(&output, path, error) != 0)
        return -1;
    file_output_discard(&output);
    return 0;
}
