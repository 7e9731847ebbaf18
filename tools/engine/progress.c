#define _POSIX_C_SOURCE 200809L
#include "tools/engine/progress.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_start(progress *state, const char *what)
{
    *state = (progress){ .what = what, .terminal = isatty(STDERR_FILENO) != 0, .start = seconds() };
    state->last = state->start + 0.8;
}

void progress_show(progress *state, size_t done, size_t all)
{
    if (!state->terminal || seconds() - state->last < 0.2)
        return;
    state->last = seconds();
    state->shown = true;
    fprintf(stderr, "\r\033[K%s: %zu of %zu tokens", state->what, done, all);
}

double progress_end(progress *state)
{
    if (state->shown)
        fputs("\r\033[K", stderr);
    state->shown = false;
    return seconds() - state->start;
}
