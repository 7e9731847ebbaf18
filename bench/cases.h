/* What can be measured, and its name. */
#ifndef KVT_BENCH_CASES_H
#define KVT_BENCH_CASES_H

#include <kvtile/convert.h>
#include <kvtile/kvtile.h>

#include <stdbool.h>
#include <stddef.h>

typedef enum bench_op {
    BENCH_WRITE,  /* whole heads, row after row */
    BENCH_READ,   /* the same back */
    BENCH_APPEND, /* one token of a sequence per call, in all its heads, and one of the next sequence's */
    BENCH_IMPORT, /* whole heads, from rows of bench_row_format */
    BENCH_EXPORT, /* the same back */
    BENCH_N_OPS
} bench_op;

extern const char *const BENCH_OP_NAMES[BENCH_N_OPS];

typedef enum bench_where { BENCH_L2, BENCH_MEMORY, BENCH_N_WHERE } bench_where;

extern const char *const BENCH_WHERE_NAMES[BENCH_N_WHERE];

typedef struct bench_case {
    bench_op op;
    const kvt_scheme_info *scheme;
    kvt_side side;
    unsigned tier;
    uint32_t dim;
    kvt_dtype dtype; /* of the rows outside */
    kvt_side_options options;
    bench_where where;
} bench_case;

/* What rows are imported from into the scheme, and exported to: the format that stores the same numbers, or numbers of the same width. 0: none. */
kvt_row_format bench_row_format(const kvt_scheme_info *scheme);

/* KV heads of a layout: several where a call is for all of them. */
enum { BENCH_APPEND_HEADS = 8 };

/* The layout of heads that have the case's side; where that is V, the narrowest K there is stands beside it. */
kvt_status bench_case_layout(const bench_case *one, kvt_layout *layout);

enum { BENCH_NAME_ROOM = 96 };

/* "write/q8_0/k/avx2/128/f32/plain/l2"; options other than plain are joined by +: "rot64+page+fast", "block32+e8m0". */
void bench_case_name(const bench_case *one, char name[BENCH_NAME_ROOM]);

const char *bench_dtype_name(kvt_dtype dtype);

/* Every combination of what is chosen that makes sense: effort only for schemes whose encoder searches, import and export only for those with a row
 * format and, as they have no other rows, for dtype f32. Masks have bit n for the enumerator n, or
 * tier n. */
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
