/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_SYS_TYPES_H
#define KVT_WINDOWS_SYS_TYPES_H

#include_next <sys/types.h>

typedef int uid_t;
typedef int gid_t;

#endif
