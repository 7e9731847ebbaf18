/* SPDX-License-Identifier: MIT */
/* ggml's loops beside ours, when the build was told of a library (KVT_BENCH_GGML). No header of ggml's is needed. */
#ifndef KVT_BENCH_GGML_H
#define KVT_BENCH_GGML_H

#include "bench/cases.h"

typedef struct ggml_format {
    const char *name;   /* ggml's */
    uint32_t channels;  /* of a block */
    size_t block_bytes; /* of a block */
    const char *quantize_symbol;
    const char *dequantize_symbol;
    void (*quantize)(const float *row, void *stored, int64_t n);
    void (*dequantize)(const void *stored, float *row, int64_t n);
} ggml_format;

/* The format of ggml's that stores what the scheme of `case_` does, or nearly. NULL: there is none, or no library, or `case_` has options that ggml
 * does not have. The result is static. */
const ggml_format *ggml_format_find(const bench_case *case_);

/* What was found, in a few words; NULL when the build was not told of a library. */
const char *ggml_report(void);

#endif
