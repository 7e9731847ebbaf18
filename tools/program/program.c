/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/program/program.h"

#include "tools/files/error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program_name = "kvtile";
static atomic_bool out_of_memory;

/* Each in the direction in which it is not used: output that goes nowhere must not look as if it had gone somewhere. */
static void open_standard_descriptors(void)
{
    for (int descriptor = STDIN_FILENO; descriptor <= STDERR_FILENO; descriptor++) {
        if (fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF)
            continue;
        if (open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) != descriptor) /* the lowest that is free: this one */
            _exit(EXIT_FAILURE);
    }
}

static void check_at_exit(void)
{
    errno = 0;
    bool written = fflush(stdout) == 0;
    written = !ferror(stdout) && written;
    /* Some file systems say only here that there was no room. */
    written = (close(STDOUT_FILENO) == 0 || errno == EBADF) && written;
    const char *why = errno != 0 ? strerror(errno) : "a write failed";
    if (!written)
        error_print(program_name, "the results cannot be written to the standard output", why);
    if (out_of_memory)
        error_print(program_name, "the results are not whole", "out of memory");
    if (!written || out_of_memory)
        _exit(EXIT_FAILURE);
}

void program_start(const char *name)
{
    program_name = name;
    open_standard_descriptors();
#if defined(SIGXFSZ)
    signal(SIGXFSZ, SIG_IGN);
#endif
    if (atexit(check_at_exit) != 0) {
        error_print(name, "start", "out of memory");
        _exit(EXIT_FAILURE);
    }
}

void program_lacks_memory(void)
{
    out_of_memory = true;
}

void *program_allocate(size_t size)
{
    void *memory = malloc(size);
    if (memory == NULL)
        program_lacks_memory();
    return memory;
}

bool program_out_of_memory(void)
{
    return out_of_memory;
}
