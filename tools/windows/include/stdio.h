/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_STDIO_H
#define KVT_WINDOWS_STDIO_H

#include_next <stdio.h>

/* Over a file that is there, too. */
#define rename kvt_rename
int kvt_rename(const char *from, const char *to);
int renameat(int from_folder, const char *from, int to_folder, const char *to);

#endif
