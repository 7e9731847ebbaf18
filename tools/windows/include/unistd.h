/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_UNISTD_H
#define KVT_WINDOWS_UNISTD_H

#include <stddef.h>
#include <sys/types.h>
#include_next <unistd.h>

/* Windows counts bytes in 32 bits. */
static inline ssize_t kvt_read_file(int file, void *bytes, size_t n)
{
    return read(file, bytes, n < 0x40000000 ? (unsigned)n : 0x40000000);
}
static inline ssize_t kvt_write_file(int file, const void *bytes, size_t n)
{
    return write(file, bytes, n < 0x40000000 ? (unsigned)n : 0x40000000);
}
#define read  kvt_read_file
#define write kvt_write_file

ssize_t pread(int file, void *bytes, size_t n, off64_t at);
ssize_t pwrite(int file, const void *bytes, size_t n, off64_t at);
int unlinkat(int folder, const char *name, int flags);
int fsync(int file);

#define access(path, mode) kvt_access(path, mode)
int kvt_access(const char *path, int mode);

#define truncate  truncate64
#define ftruncate ftruncate64

#define _SC_PAGESIZE   1
#define _SC_PHYS_PAGES 2
long sysconf(int name);

#endif
