/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_STRING_H
#define KVT_WINDOWS_STRING_H

#include_next <string.h>

void *memmem(const void *bytes, size_t n, const void *wanted, size_t n_wanted);
char *stpcpy(char *to, const char *from);

#endif
