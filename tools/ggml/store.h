/* SPDX-License-Identifier: MIT */
/* Cells of one layer of llama.cpp's cache: rows that come in any order, some of them again, as pages of kvtile.
 *
 * A *cell* is the place of a token in a *stream* (a cache has several where sequences do not share one); 64 cells are a block. Rows of a block lie in
 * its open page, in 16 bits or f32, until all are there; then they are stored in the layout's scheme, with a centre of their own. A cell that is
 * written again opens its block again, by the rows that are still kept, or else by those that are stored. Any number of blocks may be open, in any
 * order, and a sequence of kvt_step has one open page, at its end: so attention is asked of kvt_attend, with a segment for each run of blocks that
 * are stored alike.
 *
 * Pages have addresses from the beginning, and memory from when they are written until they are given back.
 *
 * Of functions without a worker one is called at a time; those with one are called by all workers at once. */
#ifndef KVT_GGML_STORE_H
#define KVT_GGML_STORE_H

#include <kvtile/step.h>

#include <stdbool.h>

/* How rows are stored. */
typedef struct store_way {
    kvt_scheme k_scheme, v_scheme;
    kvt_scheme first; /* of a sequence's first page; KVT_SCHEME_NONE: as others */
    kvt_rotation rotation;
    kvt_centring centring; /* none or own */
} store_way;

/* A row of keys has k_dim channels, then rope_dim; one of values v_dim, or where that is 0 keys are values. */
typedef struct store_shape {
    uint32_t heads, k_dim, v_dim, rope_dim;
    size_t cells, streams;
    kvt_dtype dtype; /* of rows in open pages */
} store_shape;

typedef enum store_form { STORE_EMPTY, STORE_OPEN, STORE_SEALED, STORE_FIRST, STORE_FORMS } store_form;

typedef struct store_block {
    uint64_t written[2]; /* cells since it was opened: of keys, of values */
    uint64_t call;       /* that wrote to it last */
    store_form form, before;
    bool has_rows; /* its open page holds its rows */
    bool is_first; /* a sequence begins here */
    bool opens;    /* rows that are stored have to be read first */
    bool is_due;   /* it is sealed, whole or not */
} store_block;

typedef struct store {
    store_shape shape;
    store_way way;
    bool seals;                     /* false: open pages are as wanted */
    size_t blocks;                  /* of a stream */
    kvt_layout layout[STORE_FORMS]; /* by form */
    size_t block_bytes[STORE_FORMS], memory_bytes[STORE_FORMS];
    uint8_t *memory[STORE_FORMS];
    size_t counts[STORE_FORMS], with_rows; /* blocks */
    store_block *block;                    /* [stream][block] */
    uint64_t call;                         /* of store_begin */
    uint32_t *lists;                       /* of blocks: */
    uint32_t *open, *kept, *touched;       /* open ones; sealed ones with rows, the oldest first; those that something is done with */
    size_t n_open, n_kept, n_touched;
    bool has_sealed; /* since memory was given back */
} store;

/* NULL, or what is wrong. */
const char *store_open(store *made, const store_way *way, const store_shape *shape);
void store_close(store *s);

/* As if nothing had been written. */
void store_clear(store *s);

/* Rows of n cells are written, of keys (side 0) or values (1); a cell's number is stream * shape.cells + cell. First store_begin, then all workers.
 * Row i begins at rows + i * stride and has all heads. */
void store_begin(store *s, int side, const int64_t *cells, size_t n);
void store_write(const store *s, int side, const int64_t *cells, size_t n, const void *rows, kvt_dtype dtype, ptrdiff_t stride, uint32_t worker,
                 uint32_t workers);

/* The cell is the first of a sequence: its block is sealed in the scheme for that, as a stream's first one is. */
void store_mark_first(store *s, int64_t cell);

/* Blocks that are whole are sealed, and of those that were opened again and are not whole all but a stream's newest: if there are any,
 * store_begin_seal, then all workers, and then store_end_seal. */
bool store_has_unsealed(const store *s);
void store_begin_seal(store *s);
void store_seal(const store *s, uint32_t worker, uint32_t workers);
void store_end_seal(store *s);

/* Gives memory back: of rows in open pages that are sealed, but for the newest of each stream. */
void store_release(store *s);

/* Rows of cells first .. first + n - 1 of a stream, as f32, all heads in a row. Cells that never were written are zeros. */
void store_read(const store *s, int side, size_t stream, size_t first, size_t n, float *rows);

/* 64 rows that replace a block's, which stays as open as it is. Nothing happens to a block that is empty. */
void store_replace(const store *s, int side, size_t stream, size_t block, const float *rows);

/* All of a stream becomes that of another. */
void store_copy_stream(store *s, size_t from, size_t to);

/* Segments of blocks first .. end - 1 of a stream and head, as a query in block `own` sees them (SIZE_MAX: none is its own); at most end - first. */
size_t store_segments(const store *s, size_t stream, uint32_t head, size_t first, size_t end, size_t own, kvt_segment *segments);

uint32_t store_row_dim(const store *s, int side); /* of a head */
size_t store_bytes(const store *s);               /* in use */
size_t store_most_bytes(const store *s);          /* of all cells, when sealed */

#endif
