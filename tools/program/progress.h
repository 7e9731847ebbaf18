/* SPDX-License-Identifier: MIT */
/* How far a long run is and how long it will take: on a terminal only, and not before a second has passed. */
#ifndef KVT_TOOLS_PROGRESS_H
#define KVT_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct progress {
    bool terminal;
    bool shown;
    double start;  /* seconds() */
    double last;   /* shown */
    double origin; /* of what is being done now: when `done` was 0, or less than before */
    size_t done;
} progress;

double seconds(void);

void progress_start(progress *state);

/* "what: a bar, percent, time left, detail"; `detail` NULL: none. */
void progress_show(progress *state, const char *what, size_t done, size_t all, const char *detail);

/* Takes the line away. Returns the seconds since the start. */
double progress_end(progress *state);

#endif
