/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_STDLIB_H
#define KVT_WINDOWS_STDLIB_H

#include_next <stdlib.h>

/* Windows has another function to free what is aligned: this `free` knows which is which. */
#define aligned_alloc kvt_aligned_alloc
#define free(memory)  kvt_free(memory)
void *kvt_aligned_alloc(size_t alignment, size_t bytes);
void kvt_free(void *memory);

char *mkdtemp(char *path);
char *realpath(const char *path, char *full);
void qsort_r(void *items, size_t n, size_t size, int (*compare)(const void *, const void *, void *), void *context);

#endif
