/* SPDX-License-Identifier: MIT */
/* Threads that wait for work: all run the same function, each on its share, and nobody goes on before all are done. */
#ifndef KVT_TOOLS_POOL_H
#define KVT_TOOLS_POOL_H

#include <stddef.h>

enum { POOL_MOST_WORKERS = 256 };

typedef struct pool pool;
typedef void pool_work(void *data, unsigned worker, unsigned workers);

/* 1 .. POOL_MOST_WORKERS workers; the caller is one of them. NULL, with errno, when memory is out or the system starts no more threads. */
pool *pool_open(unsigned workers);
void pool_close(pool *threads);
unsigned pool_workers(const pool *threads);

/* Calls work(data, worker, workers) for each worker at once. What was written before is seen by all, and what they write by the caller. */
void pool_run(pool *threads, pool_work *work, void *data);

/* The first of n things that are the worker's; the next worker's first is its end. */
static inline size_t pool_first(size_t n, unsigned worker, unsigned workers)
{
    return n * worker / workers;
}

#endif
