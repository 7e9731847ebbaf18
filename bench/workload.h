/* SPDX-License-Identifier: MIT */
/* The buffers of a case, and the contenders that are timed on them. */
#ifndef KVT_BENCH_WORKLOAD_H
#define KVT_BENCH_WORKLOAD_H

#include "bench/buffers.h"
#include "bench/cases.h"
#include "bench/ggml.h"
#include "bench/machine.h"

typedef enum contender {
    CONTENDER_OURS,
    CONTENDER_FLOOR,  /* floor.h, the same bytes in and out */
    CONTENDER_MEMCPY, /* as many bytes together, half in, half out */
    CONTENDER_GGML,
    CONTENDER_BULK,  /* kvt_write of whole heads, as many tokens as are appended, or as many latents and rotary parts as kvt_mla_write takes */
    CONTENDER_CELLS, /* of appended keys: a store of four bytes to each line of the token's tile, and nothing else */
    N_CONTENDERS
} contender;

/* Work is counted in steps: a head, or a token of a sequence (append), which are so many rows. */
typedef struct workload {
    /* memory, kept from case to case */
    arena rows;
    arena pages;
    arena scratch; /* memcpy's, and what the floor of a write stores */
    arena foreign; /* ggml's; of latents the weights of the norm, then cosines, then sines */
    /* the case */
    bench_case case_;
    kvt_layout layout;
    const ggml_format *ggml; /* NULL: none */
    size_t row_bytes;        /* outside, as numbers or in a format; of latents with the rotary part */
    size_t stored_bytes;     /* of a row */
    size_t heads;
    size_t head_pages;
    size_t head_tokens;
    size_t steps; /* the working set has */
    size_t step_rows;
    size_t sample_steps;
    size_t sample_passes; /* of sample_steps */
    size_t cursor[N_CONTENDERS];
    size_t working_set; /* bytes: rows and what is stored of them that are walked before any is seen again */
    kvt_status status;  /* of the calls */
    char error[200];
} workload;

/* Takes up another case. `state` was zeroed, or had one. Returns 0, or -1 with state->error set. */
int workload_open(workload *state, const bench_case *case_, const machine *here, workload_size size);

/* Times all contenders, one right after the other: seconds of a sample; NAN for those that the case does not have. Returns as workload_open. */
int workload_sample(workload *state, double seconds[N_CONTENDERS]);

/* Ours alone. */
int workload_sample_ours(workload *state, double *seconds);

/* One sample of ours, not timed. */
kvt_status workload_run_ours(workload *state);

/* Of one sample: */
size_t workload_elements(const workload *state);
size_t workload_bytes_in(const workload *state);
size_t workload_bytes_out(const workload *state);

void workload_close(workload *state);

#endif
