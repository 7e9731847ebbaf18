/* SPDX-License-Identifier: MIT */
/* One layer of a step of an engine, in three calls: rows of a batch's new tokens are stored, and their queries attend.
 *
 * A *block* is 64 tokens of all KV heads of one layer: a page of each head. A *view* says where blocks are: in memory that an engine manages as it
 * likes. A *sequence* is a table of its blocks, the number of tokens stored and the number of new ones. A step is a layer's work for any number of
 * sequences with any number of new tokens each:
 *
 *     kvt_step_append(&step, worker, workers);   barrier
 *     kvt_step_attend(&step, worker, workers);   barrier
 *     kvt_step_merge(&step, worker, workers);
 *
 * Every worker of the engine makes all three calls, with its number, 0 .. workers - 1; `barrier` is the engine's own. The library splits the work and
 * starts no threads. Results are the same bits for every number of workers, every place of blocks, and every grouping of tokens into steps.
 *
 * The *open page*: where a view has open pages, rows of a page's tokens are kept as they came (16 bits, or f32) until there are 64 of them; then they
 * are stored in the layout's scheme, with the page's own mean as its centre (KVT_CENTRING_OWN). A query sees its own page as rows and pages before it
 * as stored, whether they were full before the step or not: so grouping does not matter. The newest two pages' rows are kept (page p's in open block
 * p mod 2), so that taking back up to 64 tokens (kvt_sequence.stored made smaller, as after a draft) is exact.
 *
 * Threads: calls of different steps may run at the same time as long as no two append to the same sequence and nobody attends to a sequence while it
 * is appended to. Sequences may share blocks that none of them appends to.
 */
#ifndef KVTILE_STEP_H
#define KVTILE_STEP_H

#include <kvtile/attend.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- presets --------------------------------------------------------------------------------------------------------------------- */

/* Schemes of keys and values, rotation and centres; a sequence's first page (what attention sinks into) is kept in kv8 and has no centres,
 * as a first token that is unlike all others would move them.
 *     quality kv6/kv5, balanced kv5/kv4, compact kv4/kv4, tight kv4/kv3 */
typedef enum kvt_preset { KVT_PRESET_BALANCED = 0, KVT_PRESET_QUALITY = 1, KVT_PRESET_COMPACT = 2, KVT_PRESET_TIGHT = 3 } kvt_preset;

/* Sets schemes and options of *spec, which has its widths, heads and tiers already, and makes *first the same with kv8 and without centres; rotation
 * is 64. Of a latent (v_dim 0) keys' scheme counts, and the rotary part is kept as bf16. Errors: NULL, STRUCT_SIZE, OPTIONS (no such preset). */
KVT_API KVT_MUST_CHECK kvt_status kvt_preset_spec(kvt_preset preset, kvt_spec *spec, kvt_spec *first);

/* "balanced", "quality", "compact", "tight"; NULL when there is no such preset. */
KVT_API const char *kvt_preset_name(kvt_preset preset);

/* ---- views ----------------------------------------------------------------------------------------------------------------------- */

/* The same layout with values in pages of their own: offsets of v count from there. K's part of a page and V's are as many bytes as
 * kvt_layout_part_bytes says, whole lines; page_bytes is the larger. Errors: NULL, LAYOUT, SIDE (no values). */
KVT_API KVT_MUST_CHECK kvt_status kvt_layout_apart(const kvt_layout *layout, kvt_layout *apart);

/* Bytes that one KV head takes in a block: of a layout whose values are apart, of the side's own pages; of others, of the page, whatever the side.
 * Errors: NULL, LAYOUT, SIDE. */
KVT_API KVT_MUST_CHECK kvt_status kvt_layout_part_bytes(const kvt_layout *layout, kvt_side side, size_t *bytes);

/* The page of head h in block b of layer l is at base + l * layer_stride + b * block_stride + h * head_stride. Strides are bytes; 64 is an alignment
 * that is advised and none is required. */
typedef struct kvt_pool {
    void *base;
    size_t blocks; /* ids are below */
    size_t layer_stride, block_stride, head_stride;
} kvt_pool;

/* A page of a window's sequence that was given back, or of tokens that are not there. */
#define KVT_NO_BLOCK UINT32_MAX

/* Where blocks are. Zero it, then fill it. `first_layout`: of a sequence's first page, where that has another (NULL: it has not); widths and rotation
 * are the layout's. `open_dtype` 0: there are no open pages, and rows go to their pages at once, in order; KVT_CENTRING_OWN needs open pages, and
 * KVT_CENTRING_PAGE and _SEQUENCE have no first layout. A head's open page is kvt_view_open_bytes bytes. */
typedef struct kvt_view {
    size_t size; /* sizeof(kvt_view) */
    const kvt_layout *layout, *first_layout;
    kvt_pool pages, first_pages;             /* first_pages: with first_layout */
    kvt_pool value_pages, first_value_pages; /* of layouts whose values are apart */
    kvt_pool open_pages;
    kvt_dtype open_dtype;
    uint32_t layers;
} kvt_view;

/* Bytes of a head's open page: 64 rows of keys, then 64 of values or of the rotary part. Errors: NULL, LAYOUT, DTYPE. */
KVT_API KVT_MUST_CHECK kvt_status kvt_view_open_bytes(const kvt_layout *layout, kvt_dtype open_dtype, size_t *bytes);

/* ---- steps ----------------------------------------------------------------------------------------------------------------------- */

/* Tokens first .. end - 1 of a sequence. */
typedef struct kvt_run {
    size_t first, end;
} kvt_run;

/* What one new token sees, beyond what the step says of all (its own place, the window). Where several are given all have to allow a token. */
typedef struct kvt_mask {
    const kvt_run *runs; /* in order, apart from each other; NULL: all */
    size_t n_runs;
    const uint32_t *pages; /* that were chosen (64 tokens each), ascending; its own page is seen without being named; NULL: all */
    size_t n_pages;
    const uint64_t *bits; /* of the step's new tokens of the sequence: bit i of word i / 64; tokens before are not asked about; NULL: all */
} kvt_mask;

/* One sequence of a step. Its rows follow those of the sequence before it: the new tokens of a step are numbered through. */
typedef struct kvt_sequence {
    const uint32_t *blocks; /* page p is in block blocks[p]; page 0, with a first layout, in the pool of first pages */
    size_t n_blocks;        /* pages that the table has; full pages need them, and without open pages those of all tokens */
    uint32_t open[2];       /* blocks of open pages: even pages' rows, odd pages' */
    size_t stored;          /* tokens before the step */
    uint32_t fresh;         /* new tokens; 0: nothing is done */
    const kvt_mask *masks;  /* [fresh]; NULL: none */
} kvt_sequence;

/* Zero it, then fill it.
 *
 * Rows of new token t and head h begin at base + t * token_stride + h * head_stride. Strides are bytes and may be negative; both 0 means that rows
 * follow each other, [token][head][dim]. Query token i of a sequence is its token stored + i: it sees tokens up to itself, with a window only the
 * last `window` of them, and of these what its mask allows. A row that sees nothing has a result of zeros.
 *
 * A layer that shares the cache of another calls kvt_step_attend and kvt_step_merge only, before or after the tokens are counted as stored: `stored`
 * is what it was before they came. k and v may be NULL then, where all new tokens are in the newest two pages; otherwise they are the other layer's.
 * A sequence that begins within a page and has more than 64 new tokens needs rows that the other layer's kvt_step_append keeps in its workspace: the
 * sharing layer's step comes next in the same workspace, with the same `layer`, or gets KVT_ERR_RANGE. (Prefills that are cut at multiples of 64
 * tokens never need them.) */
typedef struct kvt_step {
    size_t size; /* sizeof(kvt_step) */
    const kvt_view *view;
    uint32_t layer;
    uint32_t n_sequences;
    const kvt_sequence *sequences;
    uint32_t heads;        /* of queries: a multiple of kv_heads, heads / kv_heads (1 .. KVT_MAX_GROUP) for each, one after the other */
    kvt_dtype dtype;       /* of q, k and v */
    const void *q, *k, *v; /* q: k_dim and then rope_dim numbers; v: of a layout with a rotary part, its rows; NULL without either */
    ptrdiff_t q_token_stride, q_head_stride, k_token_stride, k_head_stride, v_token_stride, v_head_stride;
    void *out; /* v_dim numbers (k_dim where there are no values); may not overlap anything else */
    ptrdiff_t out_token_stride, out_head_stride;
    kvt_dtype out_dtype;
    float scale, soft_cap; /* as in kvt_attention */
    size_t window;         /* 0: none */
    const float *sinks;    /* [heads] more logits that have no value; NULL: none */
    const float *slopes;   /* [heads] of ALiBi: slope * (token - own token) is added to logits; not with a soft_cap; NULL: none */
    float *lse;            /* [token][head]: ln of the sum of e^logit, sinks included, -infinity where nothing is seen; NULL: not wanted */
    void *workspace;       /* kvt_step_workspace bytes, aligned to 64, that stay as they are from kvt_step_append to the end of kvt_step_merge */
    size_t workspace_bytes;
} kvt_step;

/* What the largest steps need: `sequences` of them, each of at most `tokens` tokens with the step's own, `fresh` of them new in all sequences
 * together, for `workers` workers. It grows with each of the numbers. Errors: NULL, STRUCT_SIZE, LAYOUT, DTYPE, OPTIONS, SEGMENTS (of the view),
 * GROUP (heads), RANGE (no workers), OVERFLOW. */
typedef struct kvt_step_limits {
    size_t sequences, tokens, fresh;
    uint32_t heads, workers;
} kvt_step_limits;
KVT_API KVT_MUST_CHECK kvt_status kvt_step_workspace(const kvt_view *view, const kvt_step_limits *limits, size_t *bytes);

/* Each returns the same status to all workers, and an error has written nothing; kvt_step_problem says more.
 * Errors: NULL, STRUCT_SIZE, LAYOUT, SEGMENTS (a first layout of other widths or rotation), OPTIONS (centring that needs open pages, or cannot have a
 * first layout; slopes with a soft_cap), DTYPE, GROUP, STRIDE, NUMBER, RANGE (layer, worker, tokens beyond the table, blocks beyond the pool, masks,
 * a workspace that is too small or not aligned), OVERFLOW. */
KVT_API KVT_MUST_CHECK kvt_status kvt_step_append(const kvt_step *step, uint32_t worker, uint32_t workers);
KVT_API KVT_MUST_CHECK kvt_status kvt_step_attend(const kvt_step *step, uint32_t worker, uint32_t workers);
KVT_API KVT_MUST_CHECK kvt_status kvt_step_merge(const kvt_step *step, uint32_t worker, uint32_t workers);

/* The status that all three calls give of this step (append where k or v is there, attend where q or out is), and why: a sentence without a full
 * stop, "sequence 3 has 4096 tokens with those of this step: its table has 63 blocks, not 64"; "" without an error. The text is cut to `bytes`, its
 * end included; NULL: none. kvt_view_problem is about a view alone. */
KVT_API kvt_status kvt_step_problem(const kvt_step *step, char *text, size_t bytes);
KVT_API kvt_status kvt_view_problem(const kvt_view *view, char *text, size_t bytes);

/* The same of a kvt_spec that kvt_layout_init refuses, and of what kvt_attend refuses (without its rows and workspace). */
KVT_API kvt_status kvt_spec_problem(const kvt_spec *spec, char *text, size_t bytes);
KVT_API kvt_status kvt_attention_problem(const kvt_attention *attention, char *text, size_t bytes);

/* ---- rows of blocks -------------------------------------------------------------------------------------------------------------- */

/* Rows of many layers and heads at once, as a store of prefixes takes and gives them. Zero it, then fill it. The row of side i (0: keys, 1: values or
 * the rotary part), layer first_layer + l, token first_token + t and head h is at rows + i * side_stride + l * layer_stride + t * token_stride + h *
 * head_stride: strides are bytes and may be negative; those of tokens and heads let no rows overlap. */
typedef struct kvt_view_rows {
    size_t size; /* sizeof(kvt_view_rows) */
    const kvt_view *view;
    const kvt_sequence *sequence; /* its blocks and open pages; `stored` counts in kvt_view_read only */
    size_t first_token, n_tokens;
    uint32_t first_layer, layers;
    void *rows; /* kvt_view_write only reads them */
    kvt_dtype dtype;
    ptrdiff_t side_stride, layer_stride, token_stride, head_stride;
} kvt_view_rows;

/* As kvt_step_append of the same tokens behind first_token others, except that with open pages first_token is a multiple of 64, and that rows of
 * whole pages are stored as they come (not rounded to open_dtype before). Every worker calls it; without a barrier, as workers write to different
 * heads. Errors: NULL, STRUCT_SIZE, LAYOUT, SEGMENTS, OPTIONS, DTYPE, STRIDE, RANGE. Nothing is written then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_view_write(const kvt_view_rows *rows, uint32_t worker, uint32_t workers);

/* Reads tokens that are stored (sequence->stored counts them all), full pages as stored and others as the rows that are kept. Errors as above. */
KVT_API KVT_MUST_CHECK kvt_status kvt_view_read(const kvt_view_rows *rows, uint32_t worker, uint32_t workers);

#ifdef __cplusplus
}
#endif

#endif
