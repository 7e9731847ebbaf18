/* SPDX-License-Identifier: MIT */
/* Attention from stored pages: queries in, weighted sums of values out, without reading rows back.
 *
 * For one KV head and the query heads that share it (its *group*), out = softmax(scale * q k') v over the tokens that a query may see. Where a layout
 * has no values, keys are values too: the latent of MLA (mla.h), whose rotary part counts for logits only; all heads are its group. Codes are
 * multiplied as they are stored; rotation and centring happen inside. docs/formats.md, section 9, gives the arithmetic: results are the same bits on
 * every CPU and tier, for every split of the work, and of a query token alone or among others.
 *
 * The work is split into *chunks* of 1024 tokens of the sequence (0 .. 1023, 1024 .. 2047, ...). A chunk's result is a *partial*: for every query
 * row its largest logit, the sum of its weights, and the weighted sum of values. Partials are merged in order of their tokens, whoever made them.
 *
 * Threads: calls may run at the same time as long as each has a workspace of its own and nobody writes to the pages.
 */
#ifndef KVTILE_ATTEND_H
#define KVTILE_ATTEND_H

#include <kvtile/kvtile.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVT_CHUNK_TOKENS 1024
#define KVT_MAX_GROUP    128

/* Tokens from first_token on, until the next segment begins, are in these pages: page p has tokens first_token + 64p .. first_token + 64p + 63. A
 * sequence whose first pages or whose open page are stored by another scheme than the others has several segments. */
typedef struct kvt_segment {
    const kvt_layout *layout;
    kvt_pages pages;    /* of one KV head; NULL in a table is allowed for pages that no query sees */
    size_t first_token; /* a multiple of 64, larger than that of the segment before */
} kvt_segment;

/* A position for queries that see everything from `begin` to `end`. */
#define KVT_NO_MASK SIZE_MAX

/* What is asked. Zero it, then fill it.
 *
 * Row (i, h), query token i of query_tokens and query head h of group, is k_dim numbers at queries + i * query_token_stride + h * query_head_stride,
 * and behind them rope_dim ones; its result is v_dim numbers (k_dim, where v_dim is 0) at out + i * out_token_stride + h * out_head_stride. Strides
 * are bytes and may be negative; result rows must not overlap each other or the queries.
 *
 * Query token i is at position + i in the sequence and sees the tokens up to there, its own included, from `begin` on and below `end`; with a window,
 * only the last `window` of these. A row that sees nothing has a result of zeros. What is not seen has no influence, whatever its bytes are, and
 * tokens before `begin` and behind the last one that is seen need never have been written.
 * An `end` of 0 is an error, and so is a position of 0 with an `end` beyond the query tokens, which either was forgotten or asks for tokens that no
 * query sees: the first tokens of a longer sequence have end = query_tokens.
 *
 * NaN and infinity: a logit that is not finite (a key or the query holds such numbers) makes the row's result NaN, and so does a seen value's NaN in
 * the channels that share its scale; a seen infinity gives an infinity or NaN. All NaNs are quiet and positive. */
typedef struct kvt_attention {
    size_t size; /* sizeof(kvt_attention) */
    const kvt_segment *segments;
    size_t n_segments; /* all with the same widths and the same rotation of each side; tiers may differ: each runs its own */
    size_t begin;
    size_t end;      /* at least 1 */
    size_t position; /* or KVT_NO_MASK; 0 only where `end` is at most query_tokens */
    size_t window;   /* 0: none */
    uint32_t group;  /* query heads, 1 .. KVT_MAX_GROUP */
    uint32_t query_tokens;
    const void *queries;
    kvt_dtype query_dtype;
    kvt_dtype out_dtype;
    ptrdiff_t query_token_stride, query_head_stride; /* 0 only where there is one token, one head */
    void *out;
    ptrdiff_t out_token_stride, out_head_stride;
    const float *sinks;           /* `group` more logits, one for each query head, that have no value; NULL: none */
    float scale;                  /* of logits; finite, magnitude 2^-20 .. 2^20 */
    float soft_cap;               /* logits become cap * tanh(logit / cap) after scaling; 2^-20 .. 2^20, or 0: none */
    const uint64_t *bits;         /* which tokens are seen of those that would be; NULL: all. See below */
    size_t bit_first, bit_words;  /* a multiple of 64; words for each query token */
    const float *slopes;          /* `group` of ALiBi: slope * (token - (position + i)) is added to logits; not with soft_cap; NULL: none */
    const kvt_pages *value_pages; /* [n_segments], of layouts whose values are apart (kvt_layout_apart); NULL: they are not */
} kvt_attention;

/* Holes: bit b of bits[i * bit_words + w] says whether query token i sees token bit_first + 64 w + b; tokens before bit_first and behind all words
 * are seen. Pages that no query token of a call sees anything of are not read (their place in a table may not be NULL, though), and others cost no
 * more than if they were seen. Where a page has both seen and hidden tokens, the hidden values have to be finite: their weight is 0. */

typedef struct kvt_attend_sizes {
    size_t workspace_bytes; /* a call needs: by rows of queries, layouts of the segments, and whether value_pages are given */
    size_t chunks;          /* that any query sees something of */
    size_t partial_bytes;   /* of one chunk */
} kvt_attend_sizes;

/* Errors of all functions here: NULL, STRUCT_SIZE, LAYOUT, SEGMENTS, GROUP, DTYPE, STRIDE, RANGE (tokens beyond the
 * pages, end 0, begin > end, position 0 before more than query_tokens tokens, positions that overflow), NUMBER (scale, soft_cap), OPTIONS (a window
 * without positions), OVERFLOW. Nothing is written then.
 * `queries` and `out` may be NULL where only sizes are asked for. */
KVT_API KVT_MUST_CHECK kvt_status kvt_attend_plan_sizes(const kvt_attention *attention, kvt_attend_sizes *sizes);

/* All of it. `workspace`: workspace_bytes, of any alignment, needs no initialisation, and holds nothing of use afterwards. */
KVT_API KVT_MUST_CHECK kvt_status kvt_attend(const kvt_attention *attention, void *workspace);

/* The partials of chunks first_chunk .. first_chunk + n_chunks - 1 (of kvt_attend_sizes.chunks): chunk c's to partials + c * partial_bytes.
 * `partials` is aligned to 4 bytes. Does not touch `out`. */
KVT_API KVT_MUST_CHECK kvt_status kvt_attend_chunks(const kvt_attention *attention, size_t first_chunk, size_t n_chunks, void *partials,
                                                    void *workspace);

/* The result, from the partials of all chunks: the bits that kvt_attend gives. `workspace` as there. */
KVT_API KVT_MUST_CHECK kvt_status kvt_merge(const kvt_attention *attention, const void *partials, void *workspace);

/* An even split of work units 0 .. heads * chunks - 1 (unit = head * chunks + chunk) for worker `worker` of `workers`: count units from *first on;
 * where there are fewer units than workers some get none. Errors: NULL, RANGE (worker >= workers), OVERFLOW. */
KVT_API KVT_MUST_CHECK kvt_status kvt_attend_plan(size_t heads, size_t chunks, uint32_t workers, uint32_t worker, size_t *first, size_t *count);

#ifdef __cplusplus
}
#endif

#endif
