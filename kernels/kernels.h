/* What a scheme brings on one tier: the only thing that a tier's objects export. */
#ifndef KVT_KERNELS_H
#define KVT_KERNELS_H

#include <kvtile/kvtile.h>
#include <kvtile/mla.h>
#include <stdbool.h>

/* Bytes of the scale formats of schemes.def; fp8's are a side's option. */
enum { KVT_SCALE_none = 0, KVT_SCALE_f16 = 2, KVT_SCALE_fp8 = 4, KVT_SCALE_s8 = 1 };
enum { KVT_IS_FP8_SCALE_none = 0, KVT_IS_FP8_SCALE_f16 = 0, KVT_IS_FP8_SCALE_fp8 = 1, KVT_IS_FP8_SCALE_s8 = 0 };

/* What kernels have to know of a side. */
typedef struct kvt_tile_spec {
    uint32_t dim; /* channels, a multiple of 16 */
    kvt_effort effort;
    /* FP8: */
    uint32_t block_groups; /* of 16 channels, that share a scale */
    uint32_t scale_bytes;  /* of one scale: 4 (f32), 1 (e8m0), 0 (all have tensor_scale) */
    float tensor_scale;
} kvt_tile_spec;

/* `codes` and `scales` are a tile's (docs/formats.md). No alignment is required.
 *
 *   write        all 16 tokens; `rows` is the row of the first
 *   write_rows   n rows, at most 16, each as a token of a tile of its own or of the same; bits of other tokens stay as they are
 *   read         tokens first .. first + count - 1 (at most 16); `rows` is the row of token `first`
 *   write_codes  16 rows of codes, P(dim) bytes each; scales are the caller's affair
 *   read_codes   back
 */
typedef void kvt_write_fn(uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype);
typedef struct kvt_place {
    const uint8_t *row;
    uint8_t *codes;
    uint8_t *scales;
    uint32_t token;
} kvt_place;
typedef void kvt_write_rows_fn(const kvt_place *places, uint32_t n, const kvt_tile_spec *spec, kvt_dtype dtype);
typedef void kvt_read_fn(const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype,
                         uint32_t first, uint32_t count);
typedef void kvt_write_codes_fn(uint8_t *codes, uint32_t dim, const uint8_t *rows, size_t row_stride);
typedef void kvt_read_codes_fn(const uint8_t *codes, uint32_t dim, uint8_t *rows, size_t row_stride);

/* ---- attention: docs/formats.md, section 9 ---- */

/* Query rows of a KV head, prepared for keys of one scheme. P = spec.dim. */
typedef struct kvt_queries {
    uint32_t n;
    const float *x;  /* [n][P]: widened, rotated, times the scale of attention; magnitudes below KVT_LEAST are zeros */
    uint8_t *quads;  /* [64 channels][n]: as integers, in the tier's own order; KVT_QUADS_BYTES(P) for each row */
    uint32_t *start; /* [n][P / 16]: of each block, what the bias of codes has to be made up for with */
    float *factor;   /* [n]: what the integers are multiples of */
} kvt_queries;

#define KVT_QUADS_BYTES(dim) (((size_t)(dim) + 63) / 64 * 128)
#define KVT_LEAST            0x1p-38f

/* What is wanted next, about as much as a page's keys or values; any address, it is only prefetched. */
typedef const uint8_t *kvt_ahead;

/* Values of up to KVT_SPAN_PAGES pages that follow each other in a span, and the rows whose sums they go to.
 *
 *   weights  row r's of the pages' tokens, at weights + r * KVT_SPAN_TOKENS: 0 .. 1; of tokens that are not first .. end-1 zeros, and their codes
 *            and scales do not matter
 *   words    the same as multiples of 1 / KVT_WEIGHT_UNIT, of a page 128 bytes (words_in_order), at words + r * KVT_SPAN_TOKENS * 2
 *   sums     row r's, of P floats, at sums + r * sum_stride
 */
#define KVT_SPAN_TOKENS 256
#define KVT_SPAN_PAGES  (KVT_SPAN_TOKENS / KVT_PAGE_TOKENS)
#define KVT_WEIGHT_UNIT 32639.0f /* the largest number of 16 bits both of whose bytes, the upper one rounded, are signed */
typedef struct kvt_weighted {
    const uint8_t *codes[KVT_SPAN_PAGES], *scales[KVT_SPAN_PAGES]; /* of each page's first tile; its others follow */
    kvt_ahead ahead[KVT_SPAN_PAGES];
    uint32_t pages;
    uint32_t first, end; /* tokens, of those of the pages */
    uint32_t rows;
    const float *weights;
    const uint8_t *words;
    const float *factors; /* of each row */
    float *sums;
    size_t sum_stride;
} kvt_weighted;

/*   prepare   x -> quads, start, factor; NULL where x is enough
 *   score     logits of a page's first `n_tiles` tiles: row r's of token t to logits[r * KVT_SPAN_TOKENS + t]; any tokens
 *   value     sums of each row += its factor times the sum of weights times values
 */
typedef void kvt_prepare_fn(const kvt_queries *queries, const kvt_tile_spec *spec);
typedef void kvt_score_fn(const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, const kvt_queries *queries, uint32_t n_tiles,
                          float *logits, kvt_ahead ahead);
typedef void kvt_value_fn(const kvt_tile_spec *spec, const kvt_weighted *weighted);

/* Indexed by kvt_side. The codes functions are NULL where no row format of another engine has the scheme's codes. */
typedef struct kvt_kernels {
    kvt_write_fn *write[2];
    kvt_write_rows_fn *write_rows[2];
    kvt_read_fn *read[2];
    kvt_write_codes_fn *write_codes[2];
    kvt_read_codes_fn *read_codes[2];
    kvt_prepare_fn *prepare;
    kvt_score_fn *score;
    kvt_value_fn *value[2]; /* of lines of V, or of K: keys that are values too */
    int value_takes_words;  /* and no weights */
    int f32_only;           /* rows are given and taken as f32, whatever the caller has: they pass through kvt_stage */
} kvt_kernels;

/* What happens to rows before they are encoded and after they are decoded (docs/formats.md, sections 6 and 7), on one tier; every tier brings it.
 * P = P(dim). `mu` has P floats, or is NULL; staged rows have P floats each, one after the other.
 *
 *   prepare       rows -> staged: widened, padded, rotated, less mu
 *   restore       staged -> rows
 *   add           sum[0..P-1] += each of `count` staged rows, in order, what is not finite counting as 0
 *   load_centre   a page's centre -> mu
 *   store_centre  and back, quantized
 */
typedef struct kvt_stage {
    void (*prepare)(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                    const float *mu);
    void (*restore)(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                    const float *mu);
    void (*add)(float *sum, const float *staged, uint32_t count, uint32_t dim);
    void (*load_centre)(float *mu, const uint8_t *centre, uint32_t dim);
    void (*store_centre)(uint8_t *centre, const float *mu, uint32_t dim);
} kvt_stage;

/* Attention between logits and sums, on one tier; every tier brings it. P = P(dim). A *row* of sums is P sums of weighted values, then the largest
 * logit and the sum of the weights, which is 0 while there are none: KVT_SUMS(P) floats. Its largest logit is NaN once it has seen a logit that is
 * not finite.
 *
 *   scale_queries  x *= scale, and zeros for what is below KVT_LEAST
 *   add_offset     logits of a page += x . mu
 *   add_logits     logits of n rows and a page's first tiles += others
 *   soften         logits of a span to weights, those of tokens first .. end-1 (first < end <= KVT_SPAN_TOKENS), and zeros for the others of
 *                  their pages; for `rows`, of which each is KVT_SPAN_TOKENS logits. Tells the rows of sums of them and says what their weighted
 *                  values are to be multiplied with (factors[rows]); `words`: the same weights as kvt_weighted has them, or NULL
 *   add_centre     sums += mu times factor times the sum of a page's weights
 *   close_partial  no more tokens come: NaNs to the one NaN
 *   merge          row += partial, of later tokens
 *   finish         sums to results, with one more logit where there is a sink
 */
#define KVT_SUMS(dim) ((size_t)(dim) + 16)
typedef struct kvt_attend_kernels {
    void (*scale_queries)(float *x, uint32_t n, uint32_t dim, float scale);
    void (*add_offset)(float *logits, const float *x, const float *mu, uint32_t dim);
    void (*add_logits)(float *logits, const float *others, uint32_t n, uint32_t n_tiles);
    void (*soften)(float *logits, uint32_t rows, uint32_t first, uint32_t end, float soft_cap, float *sums, size_t sum_stride, uint32_t dim,
                   uint8_t *words, float *factors);
    void (*add_centre)(float *row, const float *weights, float factor, const float *mu, uint32_t dim);
    void (*close_partial)(float *row, uint32_t dim);
    void (*merge)(float *row, const float *partial, uint32_t dim);
    void (*finish)(float *row, uint32_t dim, const float *sink);
} kvt_attend_kernels;

/* Between a model's tensors and the latent cache of MLA (docs/formats.md, section 10), on one tier; every tier brings it.
 *
 *   project    out[t * out_stride + r] = row t of x times row r of w, for t < n (at most 16) and r < rows
 *   widen      a row of `dim` numbers -> floats
 *   normalise  a row times weights / the root of (its mean square + epsilon); `to` may be the row
 *   rotate     pairs of x, each by its cosine and sine
 */
typedef struct kvt_mla_kernels {
    void (*project)(float *out, size_t out_stride, const kvt_matrix *x, uint32_t n, const kvt_matrix *w, uint32_t rows, uint32_t columns);
    void (*widen)(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim);
    void (*normalise)(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim, const float *weights, float epsilon);
    void (*rotate)(float *x, uint32_t dim, bool are_neighbours, const float *cos, const float *sin);
} kvt_mla_kernels;

/* All of a tier. */
typedef struct kvt_tier_kernels {
    const kvt_kernels *const *schemes; /* in the order of schemes.def */
    const kvt_stage *stage;
    const kvt_attend_kernels *attend;
    const kvt_mla_kernels *mla;
    const struct kvt_row_codec *const *row_families; /* in the order of row_families.def; NULL ends the list */
} kvt_tier_kernels;

#endif
