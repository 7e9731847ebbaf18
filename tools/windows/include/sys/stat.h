/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_SYS_STAT_H
#define KVT_WINDOWS_SYS_STAT_H

#include <stdint.h>
#include_next <sys/stat.h>
#include <time.h>

#define S_IFLNK        0120000
#define S_ISLNK(mode)  (((mode)&S_IFMT) == S_IFLNK)
#define S_IFSOCK       0140000
#define S_ISSOCK(mode) (((mode)&S_IFMT) == S_IFSOCK)

/* Windows' own has neither numbers of files nor parts of seconds. */
#undef stat
#undef fstat
#define stat  kvt_stat
#define fstat kvt_fstat
struct kvt_stat {
    uint64_t st_dev, st_ino;
    unsigned st_mode;
    int st_uid, st_gid;
    long long st_size;
    struct timespec st_mtim;
};
int kvt_stat(const char *path, struct kvt_stat *status);
int kvt_fstat(int file, struct kvt_stat *status);
int lstat(const char *path, struct kvt_stat *status);
int fstatat(int folder, const char *name, struct kvt_stat *status, int flags);
int futimens(int file, const struct timespec times[2]);

#define mkdir(path, mode) kvt_mkdir(path, mode)
int kvt_mkdir(const char *path, int mode);

#endif
