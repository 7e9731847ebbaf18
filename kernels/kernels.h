/* SPDX-License-Identifier: MIT */
/* What the kernels of a tier are to the rest of the library. A *group* of kernels is a file (or a few) that is compiled for a tier where arch/isa.def
 * says that the tier brings it; what a tier does not bring it inherits (arch/dispatch.c). A group's objects export one table, and nothing else. */
#ifndef KVT_KERNELS_H
#define KVT_KERNELS_H

#include <kvtile/kvtile.h>
#include <kvtile/mla.h>
#include <stdbool.h>

/* Bytes of the scale formats of schemes.def; fp8's are a side's option. */
enum { KVT_SCALE_none = 0, KVT_SCALE_f16 = 2, KVT_SCALE_fp8 = 4, KVT_SCALE_s8 = 1 };
enum { KVT_IS_FP8_SCALE_none = 0, KVT_IS_FP8_SCALE_f16 = 0, KVT_IS_FP8_SCALE_fp8 = 1, KVT_IS_FP8_SCALE_s8 = 0 };

enum { KVT_MAX_GROUPS = KVT_MAX_DIM / 16, KVT_PAGE_TILES = KVT_PAGE_TOKENS / KVT_TILE_TOKENS };

/* ---- schemes: what the kernels have to know, the same on every tier (kernels/schemes.c) ---- */

/* How numbers become codes: which of a tier's coders. */
typedef enum kvt_coder_id {
    KVT_CODER_f32,
    KVT_CODER_f16,
    KVT_CODER_bf16,
    KVT_CODER_int8,     /* in blocks of two groups */
    KVT_CODER_int8_row, /* in one block */
    KVT_CODER_q4_0,
    KVT_CODER_e4m3,
    KVT_CODER_e5m2,
    KVT_CODER_table,
    KVT_CODERS
} kvt_coder_id;

/* How attention multiplies: the loops of integers by the width of codes, those of numbers by their format. */
typedef enum kvt_loop_id {
    KVT_LOOP_f32,
    KVT_LOOP_f16,
    KVT_LOOP_bf16,
    KVT_LOOP_e4m3,
    KVT_LOOP_e5m2,
    KVT_LOOP_8,
    KVT_LOOP_table_6,
    KVT_LOOP_table_5,
    KVT_LOOP_table_4,
    KVT_LOOP_table_3,
    KVT_LOOP_table_2,
    KVT_LOOPS
} kvt_loop_id;

/* Levels of codes, how the nearest to a byte is found, and where the encoder looks for scales (docs/formats.md, section 4). Bytes are looked at by
 * their upper nibble: it says how many midpoints between neighbours lie below all such bytes, and which are among them. */
typedef struct kvt_table {
    int8_t levels[64]; /* ascending, neighbours an odd number apart; padded */
    int8_t first[16];
    int8_t bounds[5][16];                         /* midpoints, rounded down; 127 where there is none */
    int8_t search_first, search_step, best_first; /* the candidates of efforts default and best */
    int8_t fast;                                  /* the one of effort fast */
} kvt_table;

/* Bits of a code's lower plane, or of the only one (docs/formats.md, section 2). */
#define KVT_LOWER_BITS(bits) ((bits) == 3 ? 2 : (bits) == 5 || (bits) == 6 ? 4 : (bits))

typedef struct kvt_scheme_code {
    uint8_t bits;
    uint8_t block_groups; /* of 16 channels, that share a scale, where it is not a side's option */
    uint8_t scale_bytes;  /* of one scale, likewise */
    bool is_fp8;
    uint8_t coder, loop;    /* kvt_coder_id, kvt_loop_id */
    const kvt_table *table; /* what codes stand for; NULL: they are numbers themselves */
    bool is_searched;       /* for its scales; rows are f32 then, whatever the caller has: they pass through kvt_rows */
} kvt_scheme_code;

extern const kvt_scheme_code kvt_scheme_codes[]; /* in the order of schemes.def */
extern const float kvt_zero_row[KVT_MAX_DIM];

/* What kernels have to know of a side. */
typedef struct kvt_tile_spec {
    const kvt_scheme_code *scheme;
    uint32_t dim; /* channels, a multiple of 16 */
    kvt_effort effort;
    uint32_t block_groups; /* of 16 channels, that share a scale; a power of two */
    uint32_t scale_bytes;  /* of one scale: 4 (f32), 2 (f16), 1 (e8m0; a table's), 0 (none, or all have tensor_scale) */
    float tensor_scale;
} kvt_tile_spec;

/* ---- pack: between rows of codes and the lines of a tile ---- */

/* A row of codes has its channels in order, in bits / 8 bytes each, or in one where bits are less than 8. Rows are padded to whole lines of 64
 * bytes; what the padding holds does not matter. `codes` are those of a tile of `groups` groups; groups begin .. end-1 are meant (begin is a
 * multiple of 8), and `rows` begins with group `begin`.
 *
 *   tile    16 rows, `stride` apart, to lines
 *   token   one whole row
 *   unpack  tokens 4 first .. 4 end-1 to rows; `table`: what codes stand for instead of them, or NULL
 */
typedef void kvt_pack_tile_fn(uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end, const uint8_t *rows, size_t stride);
typedef void kvt_pack_token_fn(uint8_t *codes, uint32_t groups, const uint8_t *row, uint32_t token);
typedef void kvt_unpack_fn(const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end, uint32_t first, uint32_t end_quad,
                           const kvt_table *table, uint8_t *rows, size_t stride);

enum { KVT_WIDTHS = 33 }; /* indexed by bits */
typedef struct kvt_pack {
    kvt_pack_tile_fn *tile[2]; /* by kvt_side */
    kvt_pack_token_fn *token[2];
    kvt_unpack_fn *unpack[2];
} kvt_pack;

/* ---- code: between rows of numbers and rows of codes ---- */

typedef struct kvt_tile_rows {
    const uint8_t *row[KVT_TILE_TOKENS];
} kvt_tile_rows;

/* A row, and where it goes: as token `token` of a tile. */
typedef struct kvt_place {
    const uint8_t *row;
    uint8_t *codes;
    uint8_t *scales;
    uint32_t token;
} kvt_place;

/* What a row's groups are multiplied by, block for block: of 16 rows side by side, as scales are stored. NaN where a block cannot be represented and
 * is to be encoded as zeros. */
typedef struct kvt_factors {
    float r[KVT_MAX_GROUPS][KVT_TILE_TOKENS];
} kvt_factors;

/* Scales are a tile's: block b's of token t at index 16 b + t.
 *
 *   choose      the scales of a tile's rows (only the first `quads` times four matter) and their factors; returns whether there is a NaN
 *   choose_row  of one row, as token `token`; its factors to r[0], one per block (whole registers are written: 12 floats more)
 *   write_tokens  chooses the scales of n rows, at most 16, encodes them, and has each packed before the next is encoded, as what is scattered over
 *               one row's lines waits for memory meanwhile
 *   encode      rows 0 .. n-1, groups begin .. end-1, to rows of codes; row t's factor of block b is r[b * r_stride + t]. What is `ahead` bytes
 *               further in each row is prefetched, if that is not 0
 *   decode      rows of codes, or of levels, to rows: of n tokens, with the scales at scale[b * 16 + token]
 *   load_scales n blocks' scales from block b on, 16 floats for each tile, which begin `tile_bytes` apart; those of blocks are `stride` floats apart
 */
typedef bool kvt_choose_fn(const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales, const kvt_tile_rows *rows, uint32_t quads,
                           kvt_factors *factors);
typedef bool kvt_choose_row_fn(const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales, const uint8_t *row, uint32_t token, float *r);
typedef void kvt_encode_fn(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *const *rows, uint32_t n, ptrdiff_t ahead, uint32_t begin,
                           uint32_t end, const float *r, uint32_t r_stride, bool has_nan, uint8_t *codes, size_t stride);
typedef void kvt_write_tokens_fn(const kvt_tile_spec *spec, kvt_dtype dtype, const kvt_place *places, uint32_t n, kvt_pack_token_fn *pack);
typedef void kvt_decode_fn(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *codes, size_t stride, uint32_t n, uint32_t begin, uint32_t end,
                           const float *scale, uint8_t *rows, ptrdiff_t row_stride);
typedef void kvt_load_scales_fn(const uint8_t *scales, size_t tile_bytes, uint32_t tiles, uint32_t b, uint32_t n, const kvt_tile_spec *spec,
                                float *to, size_t stride);

typedef struct kvt_coder {
    kvt_choose_fn *choose;             /* NULL: no scales, or they are searched for */
    kvt_write_tokens_fn *write_tokens; /* NULL, likewise */
    kvt_encode_fn *encode;
    kvt_decode_fn *decode;
    kvt_load_scales_fn *load_scales; /* NULL: no scales */
} kvt_coder;

/* The scales of tables. */
typedef struct kvt_search {
    kvt_choose_fn *choose;
    kvt_choose_row_fn *choose_row;
} kvt_search;

/* ---- dots, floats, fp8: attention over codes (docs/formats.md, section 9) ---- */

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

/* One side of a page, which attention may read whole; tokens of tiles first_tile .. end_tile-1 are seen. */
typedef struct kvt_page_side {
    const uint8_t *codes, *scales; /* of the first tile; the others follow */
    uint32_t first_tile, end_tile;
    const uint8_t *ahead; /* the same side of the page that is read next, which is fetched meanwhile; any address */
} kvt_page_side;

/* Values of a page, and the rows whose sums they go to.
 *
 *   weights  row r's of the page's tokens, at weights + r * KVT_PAGE_TOKENS: 0 .. 1; of tokens that are not first .. end-1 zeros, and their codes
 *            and scales do not matter
 *   sums     row r's, of P floats, at sums + r * sum_stride
 */
#define KVT_WEIGHT_UNIT 32639.0f /* the largest number of 16 bits both of whose bytes, the upper one rounded, are signed */
typedef struct kvt_weighted {
    const kvt_page_side *page;
    uint32_t first, end; /* tokens of the page */
    bool is_precise;     /* weights have 15 bits at least, whatever the codes have */
    uint32_t rows;
    const float *weights;
    float *sums;
    size_t sum_stride;
} kvt_weighted;

/* `load` loads the scheme's scales, on the same tier.
 *
 *   prepare   x -> quads, start, factor; NULL where x is enough
 *   score     logits of a page's tiles: row r's of token t to logits[r * KVT_PAGE_TOKENS + t]; any tokens
 *   value     sums of each row += the sum of weights times values; [KVT_K]: of keys that are values too
 *
 * `joins_rows`: four rows at once take less time than two and then one, so three get a row of zeros.
 */
typedef void kvt_prepare_fn(const kvt_queries *queries, const kvt_tile_spec *spec);
typedef void kvt_score_fn(kvt_load_scales_fn *load, const kvt_page_side *page, const kvt_tile_spec *spec, const kvt_queries *queries, float *logits);
typedef void kvt_value_fn(kvt_load_scales_fn *load, const kvt_tile_spec *spec, const kvt_weighted *weighted);

typedef struct kvt_loops {
    kvt_prepare_fn *prepare;
    kvt_score_fn *score;
    kvt_value_fn *value[2]; /* by kvt_side */
    bool joins_rows;
} kvt_loops;

/* Whether attention multiplies integers. */
static inline bool kvt_is_integer(const kvt_scheme_code *scheme)
{
    return scheme->loop >= KVT_LOOP_8;
}

/* ---- rows: the dtypes of callers; rotation, centring (docs/formats.md, sections 6 and 7) ---- */

/* P = P(dim). `mu` has P floats, or is NULL; staged rows have P floats each, one after the other.
 *
 *   prepare, restore  rows -> staged: widened, padded, rotated, less mu; and back
 *   ..._integers  the same where a scheme stores integers or levels: staged rows may differ in what makes no difference to these
 *   sum           sum[0..dim-1] += each of `count` rows, in order, what is not finite counting as 0
 *   load_centre   a page's centre -> mu
 *   store_centre  and back, quantized
 */
typedef void kvt_prepare_rows_fn(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim,
                                 uint32_t rotation, const float *mu);
typedef void kvt_restore_rows_fn(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim,
                                 uint32_t rotation, const float *mu);
typedef struct kvt_rows {
    kvt_prepare_rows_fn *prepare, *prepare_integers;
    kvt_restore_rows_fn *restore, *restore_integers;
    void (*sum)(float *sum, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim);
    void (*load_centre)(float *mu, const uint8_t *centre, uint32_t dim);
    void (*store_centre)(uint8_t *centre, const float *mu, uint32_t dim);
} kvt_rows;

/* ---- softmax: attention between logits and sums ---- */

/* P = P(dim). A *row* of sums is P sums of weighted values, then the largest logit and the sum of the weights, which is 0 while there are none:
 * KVT_SUMS(P) floats. Its largest logit is NaN once it has seen a logit that is not finite.
 *
 *   scale_queries  x *= scale, and zeros for what is below KVT_LEAST
 *   add_offset     logits of a page += x . mu
 *   add_logits     logits of n rows and a page's tiles first_tile .. end_tile-1 += others
 *   soften         logits of a page to weights, those of tokens first .. end-1 (first < end), and zeros for the others; for `rows`, each of
 *                  KVT_PAGE_TOKENS logits. Tells the rows of sums of them, and says what they add up to (totals[rows])
 *   add_centre     sums += mu times the total of a page's weights
 *   close_partial  no more tokens come: NaNs to the one NaN
 *   merge          row += partial, of later tokens
 *   finish         sums to results, with one more logit where there is a sink
 */
#define KVT_SUMS(dim) ((size_t)(dim) + 16)
typedef struct kvt_softmax {
    void (*scale_queries)(float *x, uint32_t n, uint32_t dim, float scale);
    void (*add_offset)(float *logits, const float *x, const float *mu, uint32_t dim);
    void (*add_logits)(float *logits, const float *others, uint32_t n, uint32_t first_tile, uint32_t end_tile);
    void (*soften)(float *logits, uint32_t rows, uint32_t first, uint32_t end, float soft_cap, float *sums, size_t sum_stride, uint32_t dim,
                   float *totals);
    void (*add_centre)(float *row, float weight, const float *mu, uint32_t dim);
    void (*close_partial)(float *row, uint32_t dim);
    void (*merge)(float *row, const float *partial, uint32_t dim);
    void (*finish)(float *row, uint32_t dim, const float *sink);
} kvt_softmax;

/* ---- mla: between a model's tensors and the latent cache (docs/formats.md, section 10) ---- */

/*   project    out[t * out_stride + r] = row t of x times row r of w, for t < n (at most 16) and r < rows
 *   widen      a row of `dim` numbers -> floats
 *   normalise  a row times weights / the root of (its mean square + epsilon); `to` may be the row
 *   rotate     pairs of x, each by its cosine and sine
 */
typedef struct kvt_mla {
    void (*project)(float *out, size_t out_stride, const kvt_matrix *x, uint32_t n, const kvt_matrix *w, uint32_t rows, uint32_t columns);
    void (*widen)(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim);
    void (*normalise)(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim, const float *weights, float epsilon);
    void (*rotate)(float *x, uint32_t dim, bool are_neighbours, const float *cos, const float *sin);
} kvt_mla;

/* ---- all of a tier ---- */

struct kvt_row_codec;

typedef struct kvt_tier_kernels {
    const kvt_rows *rows;
    const kvt_pack *pack;                /* [KVT_WIDTHS] */
    const kvt_coder *coders[KVT_CODERS]; /* by kvt_coder_id */
    const kvt_search *search;
    const kvt_loops *loops[KVT_LOOPS]; /* by kvt_loop_id */
    const kvt_softmax *softmax;
    const kvt_mla *mla;
    const struct kvt_row_codec *const *row_families; /* in the order of row_families.def; NULL ends the list */
} kvt_tier_kernels;

#endif
