/* How far a long run is: on a terminal only, and not before a second has passed. */
#ifndef KVT_ENGINE_PROGRESS_H
#define KVT_ENGINE_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

typedef struct progress {
    const char *what;
    bool terminal;
    bool shown;
    double start; /* seconds() */
    double last;  /* shown */
} progress;

double seconds(void);

void progress_start(progress *state, const char *what);
void progress_show(progress *state, size_t done, size_t all);

/* Clears the line. Returns the seconds since the start. */
double progress_end(progress *state);

#endif
