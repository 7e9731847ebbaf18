/* SPDX-License-Identifier: MIT */
/* kvtile: a language model's KV cache in fewer bytes, the same bytes on every CPU.
 *
 * A *row* is the vector of one token in one KV head. Rows are stored by a *scheme* (schemes.def) in *tiles* of 16 tokens; four tiles, keys and
 * values of 64 tokens of one KV head, are a *page*, the unit of allocation. docs/formats.md gives every byte of a page.
 *
 * Rules that hold for every function here:
 *   - Memory and threads belong to the caller. Nothing allocates, locks, prints, reads files or the environment, or keeps state, except that
 *     the CPU is looked at once (idempotent and thread-safe).
 *   - Bad arguments give a status, never undefined behaviour; nothing was written then.
 *   - Calls may run at the same time as long as no two of them write to the same page and none reads a page that another writes.
 *   - Results are the same bits on every CPU and tier, given the C default floating-point environment (round to nearest). FTZ and DAZ do not
 *     change them. On ARM with SVE, all threads that call must have the vector length of the first that did.
 *   - No function needs more than 64 kB (65536 bytes) of stack, its callees in libc included.
 *   - Strides and sizes are bytes unless said otherwise.
 */
#ifndef KVTILE_KVTILE_H
#define KVTILE_KVTILE_H

#include <stddef.h>
#include <stdint.h>

#define KVT_VERSION_MAJOR 0
#define KVT_VERSION_MINOR 1
#define KVT_VERSION_PATCH 0

#if defined(__GNUC__)
#define KVT_API        __attribute__((visibility("default")))
#define KVT_MUST_CHECK __attribute__((warn_unused_result))
#else
#define KVT_API
#define KVT_MUST_CHECK
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* "major.minor.patch" of the library that was linked. The binary interface changes only together with the soname: before 1.0 with minor versions,
 * then with major ones. With one soname
 *   - structs that callers fill and that begin with `size` grow at their end only. A library takes the smaller struct of a caller that was built
 *     with an older version; fields that it lacks count as zero, which is what older versions did. A larger one is from a newer version than the
 *     library's: KVT_ERR_STRUCT_SIZE.
 *   - all other structs stay as they are. */
KVT_API const char *kvt_version(void);

/* Of what pages hold (docs/formats.md). Within one format version the same calls give the same bytes and the same bytes the same rows, on every CPU
 * and in every release; schemes and options may be added. Pages have no room for it: whoever keeps them in files keeps it beside them. */
#define KVT_FORMAT_VERSION 1

/* ---- status ---------------------------------------------------------------------------------------------------------------------- */

typedef enum kvt_status {
    KVT_OK = 0,
    KVT_ERR_NULL = 1,        /* a pointer that must not be NULL is NULL */
    KVT_ERR_STRUCT_SIZE = 2, /* a struct's `size` is not that of this version or of an older one: set it to sizeof the struct */
    KVT_ERR_SCHEME = 3,      /* no such scheme */
    KVT_ERR_DIM = 4,         /* a row width outside 1..KVT_MAX_DIM (v_dim and rope_dim may be 0), or both v_dim and rope_dim */
    KVT_ERR_HEADS = 5,       /* kv_heads outside 1..KVT_MAX_HEADS */
    KVT_ERR_TIER = 6,        /* a tier that is unknown, not built in, or not supported by this CPU */
    KVT_ERR_DTYPE = 7,       /* no such number format of rows */
    KVT_ERR_SIDE = 8,        /* none of kvt_side, or one that the layout lacks: KVT_V without values, KVT_ROPE without a rotary part */
    KVT_ERR_STRIDE = 9,      /* rows or pages would overlap: |row_stride| is less than a row, or kvt_pages.stride less than a page */
    KVT_ERR_RANGE = 10,      /* tokens beyond the pages; end or position 0; a head, chunk, worker or block beyond the last; a workspace of too few
                              * bytes; no such engine; no sequences */
    KVT_ERR_OVERFLOW = 11,   /* the number of bytes does not fit the type that would hold it */
    KVT_ERR_MODEL = 12,      /* a model description that contradicts itself */
    KVT_ERR_OPTIONS = 13,    /* a rotation, centring, effort, FP8 scale, rounding or global scale that the scheme or format lacks */
    KVT_ERR_FORMAT = 14,     /* no such row format */
    KVT_ERR_LAYOUT = 15,     /* a layout that was not made by kvt_layout_init, or was changed afterwards */
    KVT_ERR_ENGINE = 16,     /* an engine cannot store a model this way: kvt_size_problem says why */
    KVT_ERR_BUDGET = 17,     /* nothing fits into that many bytes */
    KVT_ERR_GROUP = 18,      /* a group outside 1..KVT_MAX_GROUP, or no query tokens */
    KVT_ERR_SEGMENTS = 19,   /* no segments, or such as do not follow each other at multiples of 64 tokens, or differ in widths or rotation */
    KVT_ERR_NUMBER = 20,     /* a scale or soft_cap that is not finite or outside its range */
    KVT_ERR_FULL = 21,       /* kvtile/cache.h: no free block, or no free sequence; nothing was taken */
    KVT_ERR_SEQUENCE = 22,   /* kvtile/cache.h: no such sequence, or rows of it wait for kvt_cache_work */
    KVT_ERR_DATA = 23,       /* kvtile/saved.h: bytes that are no saved sequence, or are damaged, or are another model's or layout's */
    KVT_ERR_IO = 24,         /* kvtile/saved.h: the caller's function could not read or write */
    KVT_ERR_FILE = 32,       /* kvtile/model.h: a file that cannot be read or is not in order */
    KVT_ERR_NAME = 33,       /* kvtile/model.h: no file, folder or built-in model of that name */
    KVT_ERR_MEMORY = 34      /* kvtile/model.h: no memory */
} kvt_status;

/* What went wrong and what would be right, in one English sentence without a full stop. Never NULL. */
KVT_API const char *kvt_status_text(kvt_status status);

/* ---- schemes --------------------------------------------------------------------------------------------------------------------- */

#define KVT_BLOCK_ROW UINT32_MAX

typedef enum kvt_scheme {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) KVT_SCHEME_##name = (id),
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
    KVT_SCHEME_NONE = 0
} kvt_scheme;

typedef struct kvt_scheme_info {
    kvt_scheme scheme;
    const char *name;
    const char *title;
    uint32_t bits;        /* of one code */
    uint32_t block;       /* channels that share a scale: 0 = no scale, KVT_BLOCK_ROW = the whole row */
    uint32_t scale_bytes; /* of one scale */
    int is_fp8;           /* block and scale_bytes are what they are unless kvt_side_options says otherwise */
} kvt_scheme_info;

/* The rows of schemes.def in order; NULL past the end. The result is static. */
KVT_API const kvt_scheme_info *kvt_scheme_at(size_t index);

/* NULL when there is no such scheme. The result is static. */
KVT_API const kvt_scheme_info *kvt_scheme_find(const char *name);
KVT_API const kvt_scheme_info *kvt_scheme_get(kvt_scheme scheme);

/* ---- tiers ----------------------------------------------------------------------------------------------------------------------- */

/* A *tier* is one compiled set of kernels (arch/isa.def). Masks have bit n for the tier with id n; tier 0, "scalar", is always usable.
 * All tiers give the same bytes, so a mask is only ever needed to test or to measure. */

/* The tiers that are built in and that this CPU and operating system support. */
KVT_API uint32_t kvt_tiers_usable(void);

/* NULL when no tier built into this library has that id. Ids are below 32. */
KVT_API const char *kvt_tier_name(unsigned id);

/* Makes a mask from words separated by commas, what all of them allow: "avx2" = avx2 and all that it inherits from, "-avx512" = all usable tiers
 * but that one. Errors: NULL; TIER when a word names no tier that is built in, or "-scalar", or when a tier named without a minus is not in the
 * result, because this CPU or another word forbids it. *mask is then unchanged. */
KVT_API KVT_MUST_CHECK kvt_status kvt_tiers_parse(const char *text, uint32_t *mask);

/* The name of the highest tier whose kernels serve `scheme` under `tiers` (0 = all usable). NULL when there is no such scheme. */
KVT_API const char *kvt_scheme_tier(kvt_scheme scheme, uint32_t tiers);

/* The CPU features that some tier asks for and this CPU has, in order; NULL past the end. The result is static. */
KVT_API const char *kvt_cpu_feature(size_t index);

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

#define KVT_TILE_TOKENS 16
#define KVT_PAGE_TOKENS 64
#define KVT_MAX_DIM     1024
#define KVT_MAX_HEADS   65536

/* What is stored of a token: its key and its value; or, of MLA, its *latent*, the compressed row that is key and value in one and is stored as keys
 * are, and beside it the rotary part of the key (RoPE), which has no value. */
typedef enum kvt_side { KVT_K = 0, KVT_V = 1, KVT_ROPE = 2, KVT_LATENT = KVT_K } kvt_side;

/* An orthonormal transform of rows before they are encoded, undone when they are read: it spreads outlier channels over a block of 64 or 128. */
typedef enum kvt_rotation { KVT_ROTATION_NONE = 0, KVT_ROTATION_64 = 64, KVT_ROTATION_128 = 128 } kvt_rotation;

/* A row that is subtracted before encoding and added when reading; every page stores its own.
 *   SEQUENCE, PAGE  estimated from tokens that are stored already: once, of the first page, or of the page before. The first token of a page must be
 *                   written before its others, and after all tokens of the page before it.
 *   OWN             the mean of the page's own tokens, which is the more accurate: a page is written in one call, from its first token on. What is
 *                   not a whole page yet is best kept as f16 or bf16 elsewhere (a segment of its own when attending). Pages need no order. */
typedef enum kvt_centring { KVT_CENTRING_NONE = 0, KVT_CENTRING_SEQUENCE = 1, KVT_CENTRING_PAGE = 2, KVT_CENTRING_OWN = 3 } kvt_centring;

/* How long the kv schemes' encoder searches for scales. Reading does not depend on it, nor do sizes. */
typedef enum kvt_effort { KVT_EFFORT_DEFAULT = 0, KVT_EFFORT_FAST = 1, KVT_EFFORT_BEST = 2 } kvt_effort;

typedef enum kvt_fp8_scale { KVT_FP8_SCALE_F32 = 0, KVT_FP8_SCALE_E8M0 = 1 } kvt_fp8_scale;

#define KVT_BLOCK_TENSOR (UINT32_MAX - 1)

/* How one side is stored, beyond its scheme. All zero is plain. */
typedef struct kvt_side_options {
    kvt_rotation rotation;
    kvt_centring centring;
    kvt_effort effort;
    /* e4m3 and e5m2 only, zero elsewhere: */
    uint32_t fp8_block;      /* channels that share a scale: 0 = the row, 32, 64, 128, or KVT_BLOCK_TENSOR: nothing is stored */
    kvt_fp8_scale fp8_scale; /* number format of the scales that are stored */
    float fp8_tensor_scale;  /* with KVT_BLOCK_TENSOR: 2^-64 .. 2^64; otherwise 0 */
} kvt_side_options;

/* What is to be stored. Zero it, then fill it. */
typedef struct kvt_spec {
    size_t size; /* sizeof(kvt_spec) */
    kvt_scheme k_scheme;
    kvt_scheme v_scheme; /* ignored when v_dim is 0 */
    uint32_t k_dim;      /* channels of a key row */
    uint32_t v_dim;      /* channels of a value row; 0: keys are values too, as the latent of MLA is */
    uint32_t kv_heads;
    uint32_t tiers; /* tiers that may run, a subset of kvt_tiers_usable(), with scalar always among them; 0 = all */
    kvt_side_options k_options;
    kvt_side_options v_options; /* ignored when v_dim is 0 */
    /* MLA: k_scheme, k_dim and k_options are the latent's, without the rotary part, and v_dim is 0 */
    kvt_scheme rope_scheme; /* ignored when rope_dim is 0 */
    uint32_t rope_dim;      /* channels of the rotary part; 0: there is none */
    kvt_side_options rope_options;
} kvt_spec;

/* One side of a page. Rows are padded with zero channels to a multiple of 16. (No bytes of it are padding: all are sealed.) */
typedef struct kvt_side_layout {
    kvt_scheme scheme;
    uint32_t dim;          /* channels that callers see */
    uint32_t padded_dim;   /* channels that are stored */
    uint32_t blocks;       /* of a row, that have scales of their own; 0 where none are stored */
    uint32_t row_bytes;    /* stored for one token: codes and scales */
    uint32_t code_bytes;   /* of a tile: its lines of 64 bytes */
    uint32_t scale_bytes;  /* of a tile: [block][16 tokens] */
    uint32_t centre_bytes; /* of a page: the centre, 0 without centring */
    size_t codes_offset;   /* in the page: tile i's codes begin at codes_offset + i * code_bytes */
    size_t scales_offset;  /* in the page: tile i's scales begin at scales_offset + i * scale_bytes */
    size_t centre_offset;  /* in the page */
} kvt_side_layout;

/* Sizes and places, made by kvt_layout_init and only read afterwards. It holds no pointers: it may be copied. Every function that is given one tells
 * by its seal when a field was changed, and returns KVT_ERR_LAYOUT then: always for changes within 8 bytes, and but for one in 2^64 for others. */
typedef struct kvt_layout {
    size_t size;   /* sizeof(kvt_layout) */
    kvt_spec spec; /* as it was given; `size` is this version's */
    kvt_side_layout k;
    kvt_side_layout v;    /* all zero when v_dim is 0 */
    kvt_side_layout rope; /* all zero when rope_dim is 0 */
    size_t page_bytes;    /* of one KV head: a multiple of 64 */
    size_t token_bytes;   /* one token in one KV head: the row_bytes of its sides */
    uint64_t seal;        /* of all fields before it */
} kvt_layout;

/* Errors: NULL, STRUCT_SIZE, SCHEME, DIM, HEADS, TIER, OPTIONS. */
KVT_API KVT_MUST_CHECK kvt_status kvt_layout_init(kvt_layout *layout, const kvt_spec *spec);

/* Bytes of all KV heads' pages for `tokens` tokens of one sequence in one layer: kv_heads * ceil(tokens / 64) * page_bytes.
 * An allocation of exactly that size is used to its last byte and never overrun. Errors: NULL, LAYOUT, OVERFLOW. */
KVT_API KVT_MUST_CHECK kvt_status kvt_layout_bytes(const kvt_layout *layout, size_t tokens, size_t *bytes);

/* Where the pages of one KV head are. Page p holds tokens 64p .. 64p+63 of the sequence. It begins at table[p], or where `table` is NULL at
 * base + p * stride. No alignment is required; 64 is advised. A page needs no initialisation: writing a token changes that token's bits and
 * no others (with centring, the first token of a page also the page's centre), and whatever is read is what was there. */
typedef struct kvt_pages {
    void *base;
    void *const *table;
    size_t stride; /* of `base`: at least page_bytes; ignored with a table */
    size_t count;  /* pages */
} kvt_pages;

/* The pages of KV head `head` in one contiguous allocation of kvt_layout_bytes(layout, tokens), ordered [kv_head][page].
 * `base` is not NULL, even for 0 tokens. Errors: NULL, LAYOUT, RANGE, OVERFLOW. */
KVT_API KVT_MUST_CHECK kvt_status kvt_head_pages(const kvt_layout *layout, void *base, size_t tokens, uint32_t head, kvt_pages *pages);

/* ---- rows in and out ------------------------------------------------------------------------------------------------------------- */

typedef enum kvt_dtype { KVT_F32 = 1, KVT_F16 = 2, KVT_BF16 = 3 } kvt_dtype;

/* Bytes of one element; 0 when there is no such dtype. */
KVT_API size_t kvt_dtype_bytes(kvt_dtype dtype);

/* Stores rows: token first_token + i of one KV head becomes the row at rows + i * row_stride, for i in 0 .. n_tokens-1.
 *   rows        dim elements each, contiguous; no alignment required; must not overlap the pages
 *   row_stride  bytes from one row to the next, may be negative; |row_stride| >= the bytes of a row unless n_tokens is 1
 *   n_tokens    0 is allowed and does nothing
 * Writing tokens one by one, in any order, gives the same bytes as writing them at once. With centring the order
 * matters (kvt_centring), and writing the first token of page p > 0 reads page p - 1, or, with KVT_CENTRING_OWN, first_token is
 * a multiple of 64 (otherwise RANGE). NaN and infinity: docs/formats.md, each scheme.
 * Errors: NULL, LAYOUT, SIDE, DTYPE, STRIDE, RANGE. Nothing is written then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_write(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                            const void *rows, kvt_dtype dtype, ptrdiff_t row_stride);

/* Stores one token in all KV heads, as kv_heads calls of kvt_write would, but checks what they share once: the row of head h, at
 * rows + h * head_stride, becomes token `token` of pages[h]. Rules and errors as for kvt_write, with head_stride for row_stride; nothing is written
 * in any head then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_append(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t token, const void *rows,
                                             kvt_dtype dtype, ptrdiff_t head_stride);

/* Reads rows back: the inverse of kvt_write, with the same arguments, rules and errors. Exactly dim elements of each row are written.
 * f16 and bf16 rows are rounded to nearest even from the f32 value. Any bytes in the pages are safe to read. */
KVT_API KVT_MUST_CHECK kvt_status kvt_read(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                           void *rows, kvt_dtype dtype, ptrdiff_t row_stride);

#ifdef __cplusplus
}
#endif

#endif
