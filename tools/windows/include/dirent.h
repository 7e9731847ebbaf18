/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_DIRENT_H
#define KVT_WINDOWS_DIRENT_H

#include_next <dirent.h>

DIR *fdopendir(int folder);

#endif
