/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_SYS_FILE_H
#define KVT_WINDOWS_SYS_FILE_H

#define LOCK_EX 2
#define LOCK_UN 8
int flock(int file, int operation);

#endif
