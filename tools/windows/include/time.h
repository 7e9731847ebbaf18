/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_TIME_H
#define KVT_WINDOWS_TIME_H

#include_next <time.h>

/* CLOCK_REALTIME of mingw-w64 has the digits of a tick. */
#define clock_gettime(clock, now) kvt_clock_gettime(clock, now)
int kvt_clock_gettime(clockid_t clock, struct timespec *now);

#undef gmtime_r
struct tm *gmtime_r(const time_t *time, struct tm *utc);

#endif
