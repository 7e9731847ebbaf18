/* SPDX-License-Identifier: MIT */
#ifndef KVT_GGML_WORKERS_H
#define KVT_GGML_WORKERS_H

#include <stdbool.h>
#include <stddef.h>

struct ggml_threadpool;

/* A thread of those that compute an operation: number ith of nth. As ggml_compute_params in ggml-cpu-impl.h, which is not installed. */
typedef struct ggml_workers {
    int ith, nth;
    size_t wsize;
    void *wdata;
    struct ggml_threadpool *threadpool;
    bool use_ref;
} ggml_workers;

#endif
