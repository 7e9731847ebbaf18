/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/program/progress.h"

#include "tools/files/text.h"

#include <stdio.h>
#include <time.h>
#include <unistd.h>

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void progress_start(progress *state)
{
    *state = (progress){ .terminal = isatty(STDERR_FILENO) != 0, .start = seconds() };
    state->origin = state->start;
    state->last = state->start + 0.8;
}

static void print_time_left(double left)
{
    const unsigned whole = left < 359999 ? (unsigned)left : 359999;
    if (whole >= 3600)
        fprintf(stderr, ", %u:%02u:%02u left", whole / 3600, whole / 60 % 60, whole % 60);
    else
        fprintf(stderr, ", %u:%02u left", whole / 60, whole % 60);
}

void progress_show(progress *state, const char *what, size_t done, size_t all, const char *detail)
{
    enum { CELLS = 20 };
    static const char bar[] = "####################....................";
    if (!state->terminal)
        return;
    const double now = seconds();
    if (done < state->done)
        state->origin = now;
    state->done = done;
    if (now - state->last < 0.2)
        return;
    state->last = now;
    state->shown = true;
    char title[41], more[41];
    text_shown(title, sizeof title, what);
    fprintf(stderr, "\r\033[K%s: %.*s %zu %%", title, CELLS, bar + CELLS - done * CELLS / all, done * 100 / all);
    if (done > 0 && now - state->origin >= 1)
        print_time_left((now - state->origin) * (double)(all - done) / (double)done);
    if (detail != NULL) {
        text_shown(more, sizeof more, detail);
        fprintf(stderr, ", %s", more);
    }
}

double progress_end(progress *state)
{
    if (state->shown)
        fputs("\r\033[K", stderr);
    state->shown = false;
    return seconds() - state->start;
}
