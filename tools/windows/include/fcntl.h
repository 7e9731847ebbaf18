/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_FCNTL_H
#define KVT_WINDOWS_FCNTL_H

#include_next <fcntl.h>

#define O_CLOEXEC   _O_NOINHERIT
#define O_NONBLOCK  0 /* opening waits for nobody */
#define O_NOCTTY    0
#define O_NOFOLLOW  0x10000000
#define O_DIRECTORY 0x20000000

#define AT_SYMLINK_NOFOLLOW 1

/* Bytes as they are, and a file may be renamed and removed while it is open. */
#define open kvt_open
int kvt_open(const char *path, int flags, ...);
#define F_GETFD 1
int fcntl(int file, int command, ...);
int openat(int folder, const char *name, int flags, ...);

#endif
