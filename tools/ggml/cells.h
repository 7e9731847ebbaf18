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
#ifndef KVT_GGML_CELLS_H
#define KVT_GGML_CELLS_H

#include <kvtile/step.h>

#include <stdbool.h>

/* How rows are stored. */
typedef struct cells_way {
    kvt_scheme k_scheme, v_scheme;
    kvt_scheme first; /* of a sequence's first page; KVT_SCHEME_NONE: as others */
    kvt_rotation rotation;
    kvt_centring centring; /* none or own */
} cells_way;

/* A row of keys has k_dim channels, then rope_dim; one of values v_dim, or where that is 0 keys are values. */
typedef struct cells_shape {
    uint32_t heads, k_dim, v_dim, rope_dim;
    size_t cells, streams;
    kvt_dtype dtype; /* of rows in open pages */
} cells_shape;

typedef enum cells_form { CELLS_EMPTY, CELLS_OPEN, CELLS_SEALED, CELLS_FIRST, CELLS_FORMS } cells_form;

typedef struct cells_block {
    uint64_t written[2]; /* cells since it was opened: of keys, of values */
    uint64_t call;       /* that wrote to it last */
    cells_form form, before;
    bool has_rows; /* its open page holds its rows */
    bool is_first; /* a sequence begins here */
    bool opens;    /* rows that are stored have to be read first */
    bool is_due;   /* it is sealed, whole or not */
} cells_block;

typedef struct cell_store {
    cells_shape shape;
    cells_way way;
    bool seals;                     /* false: open pages are as wanted */
    size_t blocks;                  /* of a stream */
    kvt_layout layout[CELLS_FORMS]; /* by form */
    size_t block_bytes[CELLS_FORMS], memory_bytes[CELLS_FORMS];
    uint8_t *memory[CELLS_FORMS];
    size_t counts[CELLS_FORMS], with_rows; /* blocks */
    cells_block *block;                    /* [stream][block] */
    uint64_t call;                         /* of cells_begin */
    uint32_t *lists;                       /* of blocks: */
    uint32_t *open, *kept, *touched;       /* open ones; sealed ones with rows, the oldest first; those that something is done with */
    size_t n_open, n_kept, n_touched;
    bool has_sealed; /* since memory was given back */
} cell_store;

/* NULL, or what is wrong. */
const char *cells_open(cell_store *opened, const cells_way *way, const cells_shape *shape);
void cells_close(cell_store *s);

/* As if nothing had been written. */
void cells_clear(cell_store *s);

/* Rows of n cells are written, of keys (side 0) or values (1); a cell's number is stream * shape.cells + cell. First cells_begin, then all workers.
 * Row i begins at rows + i * stride and has all heads. */
void cells_begin(cell_store *s, int side, const int64_t *cells, size_t n);
void cells_write(const cell_store *s, int side, const int64_t *cells, size_t n, const void *rows, kvt_dtype dtype, ptrdiff_t stride, uint32_t worker,
                 uint32_t workers);

/* The cell is the first of a sequence: its block is sealed in the scheme for that, as a stream's first one is. */
void cells_mark_first(cell_store *s, int64_t cell);

/* Blocks that are whole are sealed, and of those that were opened again and are not whole all but a stream's newest: if there are any,
 * cells_begin_seal, then all workers, and then cells_end_seal. */
bool cells_has_unsealed(const cell_store *s);
void cells_begin_seal(cell_store *s);
void cells_seal(const cell_store *s, uint32_t worker, uint32_t workers);
void cells_end_seal(cell_store *s);

/* Gives memory back: of rows in open pages that are sealed, but for the newest of each stream. */
void cells_release(cell_store *s);

/* Rows of cells first .. first + n - 1 of a stream, as f32, all heads in a row. Cells that never were written are zeros. */
void cells_read(const cell_store *s, int side, size_t stream, size_t first, size_t n, float *rows);

/* 64 rows that replace a block's, which stays as open as it is. Nothing happens to a block that is empty. */
void cells_replace(const cell_store *s, int side, size_t stream, size_t block, const float *rows);

/* A block as it is when it is whole: its bytes, which cells_save writes, or false where it is not, and which cells_restore takes, in a store that is
 * alike; there the block is whole afterwards, whatever it was. */
size_t cells_saved_bytes(const cell_store *s, size_t block);
bool cells_save(const cell_store *s, size_t stream, size_t block, void *to);
void cells_restore(cell_store *s, size_t stream, size_t block, const void *from);

/* All of a stream becomes that of another. */
void cells_copy_stream(cell_store *s, size_t from, size_t to);

/* Segments of blocks first .. end - 1 of a stream's first head, as a query in block `own` (SIZE_MAX: none) sees them; at most end - first. */
size_t cells_segments(const cell_store *s, size_t stream, size_t first, size_t end, size_t own, kvt_segment *segments);
/* From a head's to the next one's. */
void cells_next_head(kvt_segment *segments, size_t n);

/* Arguments were checked when the store was opened: anything but KVT_OK from kvtile, which did `what`, is a bug and ends the process. */
void cells_must(kvt_status status, const char *what);

uint32_t cells_row_dim(const cell_store *s, int side); /* of a head */
size_t cells_bytes(const cell_store *s);               /* in use */
size_t cells_most_bytes(const cell_store *s);          /* of all cells, when sealed */

#endif
