/* SPDX-License-Identifier: MIT */
/* One decode step of one layer: a token's queries over all KV heads. What attention is timed with, and beside. */
#ifndef KVT_BENCH_DECODE_H
#define KVT_BENCH_DECODE_H

#include "bench/buffers.h"
#include "bench/cases.h"
#include "bench/machine.h"
#include "tools/pool/pool.h"

#include <kvtile/step.h>

typedef enum decode_contender {
    DECODE_OURS,
    DECODE_READ,      /* the same pages, only read */
    DECODE_MULTIPLY,  /* as many multiplications, with nothing to read */
    DECODE_F16,       /* the same step from f16 tiles on the same tier; not where those are ours */
    DECODE_REFERENCE, /* the same step as one would first write it, from rows of f16; only widths that are multiples of 16 */
    N_DECODE_CONTENDERS
} decode_contender;

/* Pages of as many layers as keep the same pages from being seen again while they are in a cache. */
typedef struct decode_tiles {
    arena memory;
    kvt_layout layout;
    size_t layer_bytes, open_bytes, workspace_bytes; /* open_bytes: of a head's newest page; 0: that is as the others */
    size_t layers;
    size_t at; /* layer */
} decode_tiles;

typedef struct decode {
    /* memory, kept from case to case */
    decode_tiles ours, f16;
    arena rows;  /* the reference's: [layer][kv_head] keys, then values */
    arena small; /* all the rest: see the pointers */
    pool *threads;
    /* the case */
    bench_case case_;
    size_t pages; /* of a head */
    size_t tokens;
    size_t passes;
    size_t read_at, row_layers, row_at;
    float *queries, *out; /* [kv_head][group][dim] */
    float *logits;        /* of each worker, the reference's */
    unsigned char *workspace;
    uint32_t *blocks; /* [pages] */
    kvt_status statuses[POOL_MOST_WORKERS];
    char error[200];
} decode;

/* As their namesakes in workload.h. */
int decode_open(decode *state, const bench_case *case_, const machine *here, workload_size size);
int decode_sample(decode *state, double seconds[N_DECODE_CONTENDERS]);
int decode_sample_ours(decode *state, double *seconds);
kvt_status decode_run_ours(decode *state);

/* Of one sample: */
size_t decode_steps(const decode *state);
size_t decode_cells(const decode *state); /* numbers of K and V that are stored */

size_t decode_step_bytes(const decode *state); /* of pages */
size_t decode_working_set(const decode *state);

void decode_close(decode *state);

#endif
