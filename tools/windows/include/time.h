/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_TIME_H
#define KVT_WINDOWS_TIME_H

#include_next <time.h>

#undef gmtime_r
struct tm *gmtime_r(const time_t *time, struct tm *utc);

#endif
