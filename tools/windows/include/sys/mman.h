/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_SYS_MMAN_H
#define KVT_WINDOWS_SYS_MMAN_H

#include <stddef.h>
#include <sys/types.h>

#define PROT_READ     1
#define PROT_WRITE    2
#define MAP_PRIVATE   1
#define MAP_ANONYMOUS 2
#define MAP_NORESERVE 0
#define MAP_FAILED    ((void *)-1)

/* New memory alone; files: tools/files/file_map_windows.c. */
void *mmap(void *at, size_t bytes, int protection, int flags, int file, off64_t offset);
int munmap(void *memory, size_t bytes);

#define MADV_DONTNEED   4
#define MADV_NOHUGEPAGE 15
int madvise(void *memory, size_t bytes, int advice);

#endif
