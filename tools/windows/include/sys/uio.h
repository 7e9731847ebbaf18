/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_SYS_UIO_H
#define KVT_WINDOWS_SYS_UIO_H

#include <sys/types.h>

struct iovec {
    void *iov_base;
    size_t iov_len;
};
ssize_t writev(int file, const struct iovec *parts, int n);

#endif
