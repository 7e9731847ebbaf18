/* SPDX-License-Identifier: MIT */
/* What can be measured, and its name. */
#ifndef KVT_BENCH_CASES_H
#define KVT_BENCH_CASES_H

#include <kvtile/convert.h>
#include <kvtile/kvtile.h>

#include <stdbool.h>
#include <stddef.h>

typedef enum bench_op {
    BENCH_WRITE,  /* whole heads, row after row; of latents kvt_mla_write, which normalises and rotates them */
    BENCH_READ,   /* the same back */
    BENCH_APPEND, /* one token of a sequence per call, in all its heads, and one of the next sequence's */
    BENCH_IMPORT, /* whole heads, from rows of bench_row_format */
    BENCH_EXPORT, /* the same back */
    BENCH_ATTEND, /* one decode step of one layer: kvt_attend for all KV heads, decode.h */
    BENCH_N_OPS
} bench_op;

extern const char *const BENCH_OP_NAMES[BENCH_N_OPS];

typedef enum bench_where { BENCH_L2, BENCH_MEMORY, BENCH_N_WHERE } bench_where;

extern const char *const BENCH_WHERE_NAMES[BENCH_N_WHERE];

typedef struct bench_case {
    bench_op op;
    const kvt_scheme_info *scheme; /* of attend: for K and V alike, as are the options */
    kvt_side side;                 /* not of attend */
    unsigned tier;
    uint32_t dim;
    kvt_dtype dtype; /* of the rows outside */
    kvt_side_options options;
    bench_where where;
    /* of attend: */
    uint32_t group;  /* query heads of a KV head */
    uint32_t tokens; /* 0: as many as the L2 cache has room for */
    uint32_t threads;
    uint32_t kv_heads;
    /* of attend and write: */
    const kvt_scheme_info *rope; /* NULL: keys and values; otherwise latents of MLA, beside which it stores rotary parts */
} bench_case;

enum { BENCH_ROPE_DIM = 64 };

/* Numbers of a query of attend, and of a row. */
uint32_t bench_row_dim(const bench_case *case_);

/* What rows are imported from into the scheme, and exported to: the format that stores the same numbers, or numbers of the same width. 0: none. */
kvt_row_format bench_row_format(const kvt_scheme_info *scheme);

/* KV heads of a layout: several where a call is for all of them; of attend where nobody says how many. */
enum { BENCH_APPEND_HEADS = 8, BENCH_ATTEND_HEADS = 8 };

/* The layout of heads that have the case's side, or all (attend); where that is V, the narrowest K there is stands beside it. */
kvt_status bench_case_layout(const bench_case *case_, kvt_layout *layout);

/* "kv4", and of latents "kv6+kv8". */
typedef struct bench_scheme_name {
    char text[24];
} bench_scheme_name;
bench_scheme_name bench_scheme_name_of(const bench_case *case_);

enum { BENCH_NAME_ROOM = 96 };

/* "write/q8_0/k/avx2/128/f32/plain/l2"; options other than plain are joined by +: "rot64+page+fast", "block32+e8m0". Of attend
 * "attend/kv4/g4/avx2/128/32768/t1/memory" (group, tokens, threads), and "attend/kv4/g4/avx2/128/fit/t1/l2"; options other than plain stand before
 * where. Latents: "attend/kv6+kv8/...", "write/kv6+kv8/k/...". */
void bench_case_name(const bench_case *case_, char name[BENCH_NAME_ROOM]);

const char *bench_dtype_name(kvt_dtype dtype);

/* The id of the tier that serves this CPU. (Not the largest id: those are in the order in which tiers came to be.) */
uint32_t bench_best_tier(void);

/* Every combination of what is chosen that makes sense: effort only for schemes whose encoder searches, import and export only for those with a row
 * format. These and attend only for dtype f32: they have no other rows. In the L2 cache attend has a KV head per thread and as many tokens as fit,
 * so there neither tokens nor kv_heads are chosen. Masks have bit n for the enumerator n, or tier n. */
typedef struct bench_selection {
    unsigned ops;
    unsigned sides;
    unsigned wheres;
    uint32_t tiers;
    size_t n_schemes;
    const kvt_scheme_info *const *schemes; /* NULL: all */
    size_t n_dims;
    const uint32_t *dims;
    kvt_dtype dtype;
    kvt_side_options options;
    /* of attend: */
    size_t n_groups;
    const uint32_t *groups;
    size_t n_tokens;
    const uint32_t *tokens;
    size_t n_threads;
    const uint32_t *threads;
    uint32_t kv_heads;
    const kvt_scheme_info *rope; /* of attend and write */
} bench_selection;

typedef struct bench_cases {
    size_t n;
    bench_case *cases;
} bench_cases;

/* Appends to `list`, which starts zeroed and whose cases the caller frees. Returns 0, or -1 when memory is out. */
int bench_cases_add(bench_cases *list, const bench_selection *selection);

/* All there is on this CPU: the plain cases, then one option at a time (effort not for reading, which has none). Returns as bench_cases_add. */
int bench_cases_add_all(bench_cases *list);

#endif
