/* SPDX-License-Identifier: MIT */
/* Rows in the formats of other engines: checks the arguments, then hands row by row to the codecs, and tile by tile to the kernels. */
#include "kernels/api/transfer.h"

#include "kernels/api/convert.h"

#include <string.h>

/* ---- formats ---- */

/* What options a format has. */
typedef struct format_traits {
    bool has_ggml_rounding;
    bool has_global_scale;
} format_traits;

static const kvt_row_format_info formats[] = {
#define KVT_ROW_FORMAT(name, id, family, block, block_bytes, row_bytes, title) { KVT_ROW_##name, #name, title, block, block_bytes, row_bytes },
#include <kvtile/rowformats.def>
#undef KVT_ROW_FORMAT
};
static const size_t n_formats = sizeof formats / sizeof *formats;

static format_traits traits_of(kvt_row_format format)
{
    switch (format) {
    case KVT_ROW_ggml_q8_0:
    case KVT_ROW_ggml_q4_0:
    case KVT_ROW_ggml_q4_1:
    case KVT_ROW_ggml_q5_0:
    case KVT_ROW_ggml_q5_1:
    case KVT_ROW_ggml_mxfp4:
    case KVT_ROW_ggml_nvfp4:
        return (format_traits){ .has_ggml_rounding = true };
    case KVT_ROW_nvfp4:
        return (format_traits){ .has_global_scale = true };
    default:
        return (format_traits){ 0 };
    }
}

const kvt_row_format_info *kvt_row_format_at(size_t index)
{
    return index < n_formats ? &formats[index] : NULL;
}

const kvt_row_format_info *kvt_row_format_find(const char *name)
{
    for (size_t i = 0; name && i < n_formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

const kvt_row_format_info *kvt_row_format_get(kvt_row_format format)
{
    for (size_t i = 0; i < n_formats; i++)
        if (formats[i].format == format)
            return &formats[i];
    return NULL;
}

size_t kvt_row_format_bytes(kvt_row_format format, uint32_t dim)
{
    const kvt_row_format_info *info = kvt_row_format_get(format);
    if (!info || dim < 1 || dim > KVT_MAX_DIM)
        return 0;
    return (size_t)(dim + info->block - 1) / info->block * info->block_bytes + info->row_bytes;
}

/* ---- one checked call ---- */

typedef struct coder {
    const kvt_row_codec *codec;
    const kvt_rows *rows; /* for number formats of rows */
    kvt_row_params params;
    uint32_t tiers; /* runnable */
} coder;

static kvt_status check_options(const kvt_row_options *options, kvt_row_format format, coder *c)
{
    const format_traits traits = traits_of(format);
    c->params = (kvt_row_params){ .rounding = KVT_ROUNDING_CANONICAL, .global_scale = 1 };
    c->tiers = kvt_runnable(0);
    if (!options)
        return KVT_OK;
    kvt_row_options taken;
    const kvt_status status = KVT_TAKE_STRUCT(kvt_row_options, nvfp4_global_scale, &taken, options);
    if (status)
        return status;
    options = &taken;
    if ((unsigned)options->rounding > KVT_ROUNDING_GGML_SCALAR || (options->rounding != KVT_ROUNDING_CANONICAL && !traits.has_ggml_rounding))
        return KVT_ERR_OPTIONS;
    const float scale = options->nvfp4_global_scale;
    if (scale != 0 && !(traits.has_global_scale && scale >= 0x1p-64f && scale <= 0x1p64f))
        return KVT_ERR_OPTIONS;
    if (options->tiers & ~kvt_tiers_usable())
        return KVT_ERR_TIER;
    c->params.rounding = options->rounding;
    c->params.global_scale = scale != 0 ? scale : 1;
    c->tiers = kvt_runnable(options->tiers);
    return KVT_OK;
}

/* The codec of the highest of the coder's tiers: every tier brings all. */
static void choose_codec(coder *c, kvt_row_format format)
{
    const kvt_tier_kernels *kernels = kvt_serving_tier(c->tiers)->kernels;
    c->rows = kernels->rows;
    for (const kvt_row_codec *const *family = kernels->row_families; *family; family++)
        for (const kvt_row_codec *codec = *family; codec->format != KVT_ROW_NONE; codec++)
            if (codec->format == format)
                c->codec = codec;
}

/* ---- rows and rows ---- */

static kvt_status check_conversion(kvt_row_format format, uint32_t dim, size_t n_rows, const void *rows, kvt_dtype dtype, ptrdiff_t row_stride,
                                   const void *encoded, ptrdiff_t encoded_stride, const kvt_row_options *options, coder *c)
{
    if (!kvt_row_format_get(format))
        return KVT_ERR_FORMAT;
    if (dim < 1 || dim > KVT_MAX_DIM)
        return KVT_ERR_DIM;
    const size_t element = kvt_dtype_bytes(dtype);
    if (!element)
        return KVT_ERR_DTYPE;
    const kvt_status status = check_options(options, format, c);
    if (status || n_rows == 0)
        return status;
    if (!rows || !encoded)
        return KVT_ERR_NULL;
    if (!kvt_rows_are_apart(n_rows, dim * element, row_stride) || !kvt_rows_are_apart(n_rows, kvt_row_format_bytes(format, dim), encoded_stride))
        return KVT_ERR_STRIDE;
    choose_codec(c, format);
    return KVT_OK;
}

kvt_status kvt_rows_encode(kvt_row_format format, uint32_t dim, size_t n_rows, const void *rows, kvt_dtype dtype, ptrdiff_t row_stride, void *encoded,
                           ptrdiff_t encoded_stride, const kvt_row_options *options)
{
    coder c;
    const kvt_status status = check_conversion(format, dim, n_rows, rows, dtype, row_stride, encoded, encoded_stride, options, &c);
    if (status || n_rows == 0)
        return status;
    const uint8_t *from = rows;
    uint8_t *to = encoded;
    float x[KVT_MAX_DIM] = { 0 };
    for (size_t i = 0; i < n_rows; i++) {
        c.rows->prepare(x, from + (ptrdiff_t)i * row_stride, row_stride, dtype, 1, dim, KVT_ROTATION_NONE, NULL);
        c.codec->encode(to + (ptrdiff_t)i * encoded_stride, x, dim, &c.params);
    }
    return KVT_OK;
}

kvt_status kvt_rows_decode(kvt_row_format format, uint32_t dim, size_t n_rows, const void *encoded, ptrdiff_t encoded_stride, void *rows,
                           kvt_dtype dtype, ptrdiff_t row_stride, const kvt_row_options *options)
{
    coder c;
    const kvt_status status = check_conversion(format, dim, n_rows, rows, dtype, row_stride, encoded, encoded_stride, options, &c);
    if (status || n_rows == 0)
        return status;
    const uint8_t *from = encoded;
    uint8_t *to = rows;
    float x[KVT_MAX_DIM] = { 0 };
    for (size_t i = 0; i < n_rows; i++) {
        c.codec->decode(x, from + (ptrdiff_t)i * encoded_stride, dim, &c.params);
        c.rows->restore(x, to + (ptrdiff_t)i * row_stride, row_stride, dtype, 1, dim, KVT_ROTATION_NONE, NULL);
    }
    return KVT_OK;
}

/* ---- rows and pages ---- */

/* A format and what stores its grid: codes and scales are the same bits. */
typedef struct grid {
    kvt_row_format format;
    kvt_scheme scheme;
    uint32_t fp8_block;
    kvt_fp8_scale fp8_scale;
    uint32_t scale_bytes; /* of one scale */
    uint8_t zero_code;
} grid;

static const grid grids[] = {
    { .format = KVT_ROW_ggml_q8_0, .scheme = KVT_SCHEME_q8_0, .scale_bytes = 2 },
    { .format = KVT_ROW_ggml_q4_0, .scheme = KVT_SCHEME_q4_0, .scale_bytes = 2, .zero_code = 8 },
    { .format = KVT_ROW_vllm_fp8, .scheme = KVT_SCHEME_e4m3, .scale_bytes = 4 },
    { .format = KVT_ROW_mxfp8_e4m3, .scheme = KVT_SCHEME_e4m3, .fp8_block = 32, .fp8_scale = KVT_FP8_SCALE_E8M0, .scale_bytes = 1 },
    { .format = KVT_ROW_deepseek_fp8, .scheme = KVT_SCHEME_e4m3, .fp8_block = 128, .scale_bytes = 4 },
    { .format = KVT_ROW_deepseek_v4, .scheme = KVT_SCHEME_e4m3, .fp8_block = 64, .fp8_scale = KVT_FP8_SCALE_E8M0, .scale_bytes = 1 },
};

/* NULL when rows have to pass through floats. */
static const grid *common_grid(const kvt_transfer *t, kvt_row_format format)
{
    const kvt_side_options *o = t->options;
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        const grid *g = &grids[i];
        if (g->format == format && g->scheme == t->side->scheme && g->fp8_block == o->fp8_block && g->fp8_scale == o->fp8_scale &&
            o->rotation == KVT_ROTATION_NONE && o->centring == KVT_CENTRING_NONE)
            return g;
    }
    return NULL;
}

static kvt_status check_convert(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                                kvt_row_format format, const void *rows, ptrdiff_t row_stride, const kvt_row_options *options, kvt_transfer *t,
                                coder *c)
{
    kvt_status status = kvt_transfer_begin(t, layout, side, pages);
    if (status)
        return status;
    if (!kvt_row_format_get(format))
        return KVT_ERR_FORMAT;
    status = check_options(options, format, c);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check(t, first_token, n_tokens, rows, kvt_row_format_bytes(format, t->side->dim), row_stride);
    if (status)
        return status;
    c->tiers &= kvt_runnable(layout->spec.tiers);
    choose_codec(c, format);
    return KVT_OK;
}

/* A tile's codes, a byte each, and one row's scales; codecs work on whole blocks. */
typedef struct tile_codes {
    uint8_t codes[KVT_TILE_TOKENS][KVT_MAX_DIM];
    uint8_t scales[KVT_MAX_DIM / 32 * 2];
} tile_codes;

_Static_assert(sizeof((tile_codes){ { { 0 } }, { 0 } }.scales) >= 4, "a row has one f32 scale, or two bytes per 32 channels at most");

/* Block b's scale of token `token` is at index 16 b + token of the tile's. */
static uint8_t *scale_of_token(const kvt_tile *at, const grid *g, uint32_t b, uint32_t token)
{
    return at->scales + (size_t)(b * KVT_TILE_TOKENS + token) * g->scale_bytes;
}

/* Rows of another engine that go in; one at a time is gathered to `gathered`, where it does not lie in one piece. */
typedef struct encoded_rows {
    const coder *c;
    kvt_encoded_row *row;
    const void *context;
    uint32_t dim;
} encoded_rows;

static const kvt_scheme_code *scheme_of(const kvt_transfer *t)
{
    return &kvt_scheme_codes[kvt_scheme_rows[t->side->scheme]];
}

static void copy_in(const kvt_transfer *t, const encoded_rows *e, const grid *g, const kvt_tile *at, size_t first, tile_codes *tile)
{
    uint8_t gathered[KVT_MAX_GATHERED];
    if (at->count < KVT_TILE_TOKENS)
        kvt_tile_read_codes(t->tier, t->order, scheme_of(t), at->codes, e->dim, tile->codes[0], KVT_MAX_DIM);
    for (uint32_t i = 0; i < at->count; i++) {
        uint8_t *codes = tile->codes[at->first + i];
        e->c->codec->split(codes, tile->scales, e->row(e->context, first + i, gathered), e->dim);
        memset(codes + e->dim, g->zero_code, t->side->padded_dim - e->dim);
        for (uint32_t b = 0; b < t->side->blocks; b++)
            memcpy(scale_of_token(at, g, b, at->first + i), tile->scales + (size_t)b * g->scale_bytes, g->scale_bytes);
    }
    kvt_tile_write_codes(t->tier, t->order, scheme_of(t), at->codes, e->dim, tile->codes[0], KVT_MAX_DIM);
}

static void copy_all_in(const kvt_transfer *t, const encoded_rows *e, const grid *g, size_t first_token, size_t n_tokens)
{
    tile_codes tile;
    for (size_t done = 0; done < n_tokens;) {
        const kvt_tile at = kvt_tile_of(t, first_token + done, n_tokens - done);
        copy_in(t, e, g, &at, done, &tile);
        done += at.count;
    }
}

static void copy_out(const kvt_transfer *t, const coder *c, const grid *g, const kvt_tile *at, uint8_t *rows, ptrdiff_t row_stride, tile_codes *tile)
{
    const uint32_t dim = t->side->dim, in_groups = (dim + KVT_ROW_GROUP - 1) / KVT_ROW_GROUP * KVT_ROW_GROUP;
    kvt_tile_read_codes(t->tier, t->order, scheme_of(t), at->codes, dim, tile->codes[0], KVT_MAX_DIM);
    for (uint32_t i = 0; i < at->count; i++) {
        uint8_t *codes = tile->codes[at->first + i];
        memset(codes + dim, g->zero_code, in_groups - dim);
        for (uint32_t b = 0; b < t->side->blocks; b++)
            memcpy(tile->scales + (size_t)b * g->scale_bytes, scale_of_token(at, g, b, at->first + i), g->scale_bytes);
        c->codec->join(rows + (ptrdiff_t)i * row_stride, codes, tile->scales, dim);
    }
}

static void copy_all_out(const kvt_transfer *t, const coder *c, const grid *g, size_t first_token, size_t n_tokens, uint8_t *rows,
                         ptrdiff_t row_stride)
{
    tile_codes tile;
    for (size_t done = 0; done < n_tokens;) {
        const kvt_tile at = kvt_tile_of(t, first_token + done, n_tokens - done);
        copy_out(t, c, g, &at, rows + (ptrdiff_t)done * row_stride, row_stride, &tile);
        done += at.count;
    }
}

static kvt_matrix decoded_rows(const void *context, size_t first, uint32_t n, float *buffer)
{
    const encoded_rows *e = context;
    const uint32_t padded = (e->dim + KVT_GROUP_CHANNELS - 1) / KVT_GROUP_CHANNELS * KVT_GROUP_CHANNELS;
    uint8_t gathered[KVT_MAX_GATHERED];
    for (uint32_t i = 0; i < n; i++) /* in this order: what a row has too much is where the next one begins */
        e->c->codec->decode(buffer + (size_t)i * padded, e->row(e->context, first + i, gathered), e->dim, &e->c->params);
    return (kvt_matrix){ buffer, KVT_F32, (ptrdiff_t)(padded * sizeof *buffer) };
}

static void convert_rows_in(const kvt_transfer *t, const coder *c, size_t first_token, size_t n_tokens, kvt_row_format format, kvt_encoded_row *row,
                            const void *context)
{
    const encoded_rows rows = { c, row, context, t->side->dim };
    const grid *g = common_grid(t, format);
    if (g)
        copy_all_in(t, &rows, g, first_token, n_tokens);
    else
        kvt_write_made(t, first_token, n_tokens, decoded_rows, &rows);
}

void kvt_convert_gathered_in(const kvt_transfer *t, size_t first_token, size_t n_tokens, kvt_row_format format, kvt_encoded_row *row,
                             const void *context)
{
    coder c;
    (void)check_options(NULL, format, &c);
    c.tiers = kvt_runnable(t->tiers);
    choose_codec(&c, format);
    convert_rows_in(t, &c, first_token, n_tokens, format, row, context);
}

typedef struct strided_rows {
    const uint8_t *rows;
    ptrdiff_t stride;
} strided_rows;

static const uint8_t *strided_row(const void *context, size_t i, uint8_t gathered[KVT_MAX_GATHERED])
{
    (void)gathered;
    const strided_rows *all = context;
    return all->rows + (ptrdiff_t)i * all->stride;
}

kvt_status kvt_convert_in(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, kvt_row_format format,
                          const void *rows, ptrdiff_t row_stride, const kvt_row_options *options)
{
    kvt_transfer t;
    coder c;
    kvt_status status = check_convert(layout, side, pages, first_token, n_tokens, format, rows, row_stride, options, &t, &c);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check_centre(&t, first_token);
    if (status)
        return status;
    convert_rows_in(&t, &c, first_token, n_tokens, format, strided_row, &(strided_rows){ rows, row_stride });
    return KVT_OK;
}

/* Rows that are read back as floats and encoded. */
static void encode_all_out(const kvt_transfer *t, const coder *c, size_t first_token, size_t n_tokens, uint8_t *rows, ptrdiff_t row_stride)
{
    float buffer[KVT_BUFFER_FLOATS], x[KVT_MAX_DIM] = { 0 }; /* zeros behind a row, to whole blocks */
    for (size_t done = 0; done < n_tokens;) {
        const uint32_t n = kvt_piece_of(t, first_token + done, n_tokens - done);
        kvt_read_piece(t, first_token + done, n, buffer);
        for (uint32_t i = 0; i < n; i++) {
            memcpy(x, buffer + (size_t)i * t->side->padded_dim, t->side->dim * sizeof *x);
            c->codec->encode(rows + (ptrdiff_t)(done + i) * row_stride, x, t->side->dim, &c->params);
        }
        done += n;
    }
}

kvt_status kvt_convert_out(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens,
                           kvt_row_format format, void *rows, ptrdiff_t row_stride, const kvt_row_options *options)
{
    kvt_transfer t;
    coder c;
    const kvt_status status = check_convert(layout, side, pages, first_token, n_tokens, format, rows, row_stride, options, &t, &c);
    if (status || n_tokens == 0)
        return status;
    const grid *g = common_grid(&t, format);
    if (g)
        copy_all_out(&t, &c, g, first_token, n_tokens, rows, row_stride);
    else
        encode_all_out(&t, &c, first_token, n_tokens, rows, row_stride);
    return KVT_OK;
}
