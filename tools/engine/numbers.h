/* SPDX-License-Identifier: MIT */
/* Number formats of weights: plain floats, and ggml's blocks of numbers with scales. */
#ifndef KVT_ENGINE_NUMBERS_H
#define KVT_ENGINE_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

/* ggml's numbers of the plain ones. */
enum { NUMBERS_F32 = 0, NUMBERS_F16 = 1, NUMBERS_BF16 = 30 };

typedef struct numbers_format {
    const char *name;
    uint32_t block, bytes; /* numbers of a row that are stored together, and their bytes */
    void (*decode)(const uint8_t *blocks, size_t n, float *out);
} numbers_format;

/* By ggml's number of a type; NULL: not read here. */
const numbers_format *numbers_find(uint32_t type);

/* The names of all, as "F32, F16 or BF16" is written. */
const char *numbers_names(void);

#endif
