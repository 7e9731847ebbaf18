/* SPDX-License-Identifier: MIT */
/* Rows in and out of pages: checks the arguments, then hands tile by tile to the kernels. */
#include "kernels/api/transfer.h"

#include <string.h>

static inline size_t bytes_of(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? 4 : dtype == KVT_F16 || dtype == KVT_BF16 ? 2 : 0;
}

size_t kvt_dtype_bytes(kvt_dtype dtype)
{
    return bytes_of(dtype);
}

/* One checked call. */
typedef struct transfer {
    kvt_transfer at;
    kvt_tile_spec tile;
    kvt_dtype dtype;      /* of the rows */
    size_t element_bytes; /* of one of them */
    bool is_staged;       /* rows pass through the tier's kvt_rows */
    bool is_padded;       /* or through a buffer, because kernels work on whole groups of channels */
} transfer;

/* A checked call that gives or takes rows of that number format. */
static inline transfer transfer_of(const kvt_transfer *at, kvt_dtype dtype)
{
    const bool is_staged =
        at->options->rotation || at->options->centring || (kvt_scheme_codes[kvt_scheme_rows[at->side->scheme]].is_searched && dtype != KVT_F32);
    return (transfer){
        .at = *at,
        .tile = kvt_tile_spec_of(at->side, at->options),
        .dtype = dtype,
        .element_bytes = bytes_of(dtype),
        .is_staged = is_staged,
        .is_padded = !is_staged && at->side->dim != at->side->padded_dim,
    };
}

/* Errors: as kvt_transfer_begin, DTYPE. */
static inline kvt_status begin_transfer(transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages, kvt_dtype dtype)
{
    kvt_transfer at;
    const kvt_status status = kvt_transfer_begin(&at, layout, side, pages);
    if (status)
        return status;
    if (!bytes_of(dtype))
        return KVT_ERR_DTYPE;
    *t = transfer_of(&at, dtype);
    return KVT_OK;
}

static inline bool is_direct(const transfer *t)
{
    return !t->is_staged && !t->is_padded;
}

/* Rows in a buffer are of this format, P of them next to each other. */
static inline kvt_dtype buffered_dtype(const transfer *t)
{
    return t->is_staged ? KVT_F32 : t->dtype;
}
static inline size_t buffered_bytes(const transfer *t)
{
    return t->tile.dim * (t->is_staged ? sizeof(float) : t->element_bytes);
}

/* The centre of the page that `token` is in, or NULL; `mu` has it already where the call's tokens before are of the same page. */
static const float *centre_of(const transfer *t, size_t token, bool is_first, float mu[KVT_MAX_DIM])
{
    if (!t->at.side->centre_bytes)
        return NULL;
    if (is_first || token % KVT_PAGE_TOKENS == 0)
        t->at.tier->rows->load_centre(mu, kvt_page_at(t->at.pages, token / KVT_PAGE_TOKENS) + t->at.side->centre_offset, t->tile.dim);
    return mu;
}

/* ---- centres ---- */

/* Codes of a piece to a buffer, as floats, with nothing undone. */
static void read_staged(const transfer *t, size_t token, uint32_t n, float *buffer)
{
    const kvt_tile at = kvt_tile_of(&t->at, token, n);
    kvt_tile_read(t->at.tier, t->at.order, &t->tile, at.codes, at.scales, (uint8_t *)buffer, (ptrdiff_t)(t->tile.dim * sizeof *buffer), KVT_F32,
                  at.first, n);
}

/* Writes the centre of page p, whose first token comes next, from what is stored. `buffer` is for use in between. */
static void renew_centre(const transfer *t, size_t p, float *buffer)
{
    uint8_t *centre = kvt_page_at(t->at.pages, p) + t->at.side->centre_offset;
    if (p == 0) {
        memset(centre, 0, t->at.side->centre_bytes);
        return;
    }
    if (p > 1 && t->at.options->centring == KVT_CENTRING_SEQUENCE) {
        memmove(centre, kvt_page_at(t->at.pages, p - 1) + t->at.side->centre_offset, t->at.side->centre_bytes);
        return;
    }
    float sum[KVT_MAX_DIM] = { 0 };
    for (size_t token = (p - 1) * KVT_PAGE_TOKENS; token < p * KVT_PAGE_TOKENS;) {
        const uint32_t n = kvt_piece_of(&t->at, token, KVT_PAGE_TOKENS);
        read_staged(t, token, n, buffer);
        t->at.tier->rows->sum(sum, (const uint8_t *)buffer, (ptrdiff_t)(t->tile.dim * sizeof *buffer), KVT_F32, n, t->tile.dim);
        token += n;
    }
    centre_of(t, (p - 1) * KVT_PAGE_TOKENS, true, buffer);
    for (uint32_t c = 0; c < t->tile.dim; c++)
        buffer[c] += sum[c] * (1.0f / KVT_PAGE_TOKENS);
    t->at.tier->rows->store_centre(centre, buffer, t->tile.dim);
}

static void renew_centre_if_due(const transfer *t, size_t token, float *buffer)
{
    if (t->at.side->centre_bytes && token % KVT_PAGE_TOKENS == 0 && t->at.options->centring != KVT_CENTRING_OWN)
        renew_centre(t, token / KVT_PAGE_TOKENS, buffer);
}

/* ---- in ---- */

/* Rows of a piece to a buffer, which may be where they are: then they are floats of P channels each. `mu`: their centre, or NULL. */
static void buffer_rows(const transfer *t, uint32_t n, const uint8_t *from, ptrdiff_t row_stride, const float *mu, uint8_t *buffer)
{
    if (t->is_staged) {
        const kvt_rows *rows = t->at.tier->rows;
        (kvt_is_integer(t->tile.scheme) ? rows->prepare_integers : rows->prepare)((float *)(void *)buffer, from, row_stride, t->dtype, n,
                                                                                  t->at.side->dim, t->at.options->rotation, mu);
        return;
    }
    const size_t bytes = t->at.side->dim * t->element_bytes, padding = buffered_bytes(t) - bytes;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t *row = buffer + i * buffered_bytes(t);
        if (from != buffer)
            memcpy(row, from + (ptrdiff_t)i * row_stride, bytes);
        memset(row + bytes, 0, padding);
    }
}

/* Tokens of one tile; rows as kernels take them. */
static void write_rows(const transfer *t, size_t token, uint32_t n, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype)
{
    const kvt_tile at = kvt_tile_of(&t->at, token, n);
    if (n == KVT_TILE_TOKENS) {
        kvt_tile_write(t->at.tier, t->at.order, &t->tile, at.codes, at.scales, rows, row_stride, dtype);
        return;
    }
    kvt_place places[KVT_TILE_TOKENS];
    for (uint32_t i = 0; i < n; i++)
        places[i] = (kvt_place){ .row = rows + (ptrdiff_t)i * row_stride, .codes = at.codes, .scales = at.scales, .token = at.first + i };
    kvt_tile_write_tokens(t->at.tier, t->at.order, &t->tile, places, n, dtype);
}

/* A piece. The buffer may be where its rows are (buffer_rows). */
static void write_piece(const transfer *t, size_t token, uint32_t n, const uint8_t *rows, ptrdiff_t row_stride, const float *mu, float *buffer)
{
    if (is_direct(t)) {
        write_rows(t, token, n, rows, row_stride, t->dtype);
        return;
    }
    buffer_rows(t, n, rows, row_stride, mu, (uint8_t *)buffer);
    write_rows(t, token, n, (const uint8_t *)buffer, (ptrdiff_t)buffered_bytes(t), buffered_dtype(t));
}

/* The centre of n tokens, at most a page and from its first on, that are the call's from `first` on: rotating their mean is rotating each of them. */
static void store_own_centre(const kvt_transfer *at, size_t token, size_t first, uint32_t n, kvt_make_rows *make, const void *context, float *buffer)
{
    const kvt_rows *kernels = at->tier->rows;
    const uint32_t dim = at->side->dim, padded = at->side->padded_dim;
    float mean[KVT_MAX_DIM] = { 0 };
    for (uint32_t i = 0; i < n;) {
        const uint32_t count = kvt_piece_of(at, token + i, n - i);
        const kvt_matrix rows = make(context, first + i, count, buffer);
        kernels->sum(mean, rows.numbers, rows.row_stride, rows.dtype, count, dim);
        i += count;
    }
    const float part = 1.0f / (float)n;
    for (uint32_t c = 0; c < padded; c++)
        mean[c] *= part;
    kernels->prepare(buffer, (const uint8_t *)mean, 0, KVT_F32, 1, dim, at->options->rotation, NULL);
    kernels->store_centre(kvt_page_at(at->pages, token / KVT_PAGE_TOKENS) + at->side->centre_offset, buffer, padded);
}

void kvt_write_made(const kvt_transfer *at, size_t first_token, size_t n_tokens, kvt_make_rows *make, const void *context)
{
    const bool is_own = at->options->centring == KVT_CENTRING_OWN;
    _Alignas(64) float buffer[KVT_BUFFER_FLOATS];
    _Alignas(64) float mu[KVT_MAX_DIM];
    transfer t = transfer_of(at, KVT_F32);
    for (size_t done = 0; done < n_tokens;) {
        const size_t token = first_token + done, left = n_tokens - done;
        if (is_own && token % KVT_PAGE_TOKENS == 0)
            store_own_centre(at, token, done, left < KVT_PAGE_TOKENS ? (uint32_t)left : KVT_PAGE_TOKENS, make, context, buffer);
        const uint32_t n = kvt_piece_of(at, token, left);
        renew_centre_if_due(&t, token, buffer);
        const kvt_matrix rows = make(context, done, n, buffer);
        t = transfer_of(at, rows.dtype);
        write_piece(&t, token, n, rows.numbers, rows.row_stride, centre_of(&t, token, done == 0, mu), buffer);
        done += n;
    }
}

static kvt_matrix rows_as_they_are(const void *context, size_t first, uint32_t n, float *buffer)
{
    (void)n;
    (void)buffer;
    const kvt_matrix *all = context;
    return (kvt_matrix){ (const uint8_t *)all->numbers + (ptrdiff_t)first * all->row_stride, all->dtype, all->row_stride };
}

kvt_status kvt_write(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *rows,
                     kvt_dtype dtype, ptrdiff_t row_stride)
{
    transfer t;
    kvt_status status = begin_transfer(&t, layout, side, pages, dtype);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check(&t.at, first_token, n_tokens, rows, t.at.side->dim * t.element_bytes, row_stride);
    if (!status)
        status = kvt_transfer_check_centre(&t.at, first_token);
    if (status)
        return status;
    if (!is_direct(&t)) {
        kvt_write_made(&t.at, first_token, n_tokens, rows_as_they_are, &(kvt_matrix){ rows, dtype, row_stride });
        return KVT_OK;
    }
    for (size_t done = 0; done < n_tokens;) {
        const uint32_t n = kvt_tile_of(&t.at, first_token + done, n_tokens - done).count;
        write_rows(&t, first_token + done, n, (const uint8_t *)rows + (ptrdiff_t)done * row_stride, row_stride, dtype);
        done += n;
    }
    return KVT_OK;
}

/* ---- a token of all heads ---- */

/* Of so many heads, at most as many as a tile has tokens. */
static void append_rows(const transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, kvt_dtype dtype,
                        ptrdiff_t head_stride)
{
    kvt_place places[KVT_TILE_TOKENS];
    for (uint32_t h = 0; h < heads; h++) {
        const kvt_tile at = kvt_tile_in(kvt_page_at(pages + h, token / KVT_PAGE_TOKENS), &t->at, token, 1);
        places[h] = (kvt_place){ .row = rows + (ptrdiff_t)h * head_stride, .codes = at.codes, .scales = at.scales, .token = at.first };
    }
    kvt_tile_write_tokens(t->at.tier, t->at.order, &t->tile, places, heads, dtype);
}

/* Of as many as a buffer has room for. */
static void append_buffered(const transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, ptrdiff_t head_stride,
                            float *buffer)
{
    float mu[KVT_MAX_DIM];
    transfer of_head = *t;
    for (uint32_t h = 0; h < heads; h++) {
        of_head.at.pages = pages + h;
        renew_centre_if_due(&of_head, token, buffer);
    }
    for (uint32_t h = 0; h < heads; h++) {
        of_head.at.pages = pages + h;
        buffer_rows(&of_head, 1, rows + (ptrdiff_t)h * head_stride, 0, centre_of(&of_head, token, true, mu),
                    (uint8_t *)buffer + h * buffered_bytes(t));
    }
    append_rows(t, pages, heads, token, (const uint8_t *)buffer, buffered_dtype(t), (ptrdiff_t)buffered_bytes(t));
}

static void append_all_buffered(const transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, ptrdiff_t head_stride)
{
    float buffer[KVT_BUFFER_FLOATS];
    const uint32_t at_once = kvt_rows_at_once(t->tile.dim);
    for (uint32_t h = 0; h < heads; h += at_once)
        append_buffered(t, pages + h, heads - h < at_once ? heads - h : at_once, token, rows + (ptrdiff_t)h * head_stride, head_stride, buffer);
}

kvt_status kvt_append(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t token, const void *rows, kvt_dtype dtype,
                      ptrdiff_t head_stride)
{
    transfer t;
    kvt_status status = begin_transfer(&t, layout, side, pages, dtype);
    if (status)
        return status;
    const uint32_t heads = layout->spec.kv_heads;
    const bool is_centred = t.at.options->centring != KVT_CENTRING_NONE;
    for (uint32_t h = 0; h < heads && !status; h++) {
        status = kvt_check_pages(pages + h, t.at.page_bytes, token, 1);
        if (is_centred && !status) {
            t.at.pages = pages + h;
            status = kvt_transfer_check_centre(&t.at, token);
        }
    }
    if (status)
        return status;
    if (!rows)
        return KVT_ERR_NULL;
    if (!kvt_rows_are_apart(heads, t.at.side->dim * t.element_bytes, head_stride))
        return KVT_ERR_STRIDE;
    if (t.at.options->centring == KVT_CENTRING_OWN) {
        for (uint32_t h = 0; h < heads; h++) {
            t.at.pages = pages + h;
            kvt_write_made(&t.at, token, 1, rows_as_they_are, &(kvt_matrix){ (const uint8_t *)rows + (ptrdiff_t)h * head_stride, dtype, 0 });
        }
    } else if (is_direct(&t)) {
        for (uint32_t h = 0; h < heads; h += KVT_TILE_TOKENS)
            append_rows(&t, pages + h, heads - h < KVT_TILE_TOKENS ? heads - h : KVT_TILE_TOKENS, token,
                        (const uint8_t *)rows + (ptrdiff_t)h * head_stride, dtype, head_stride);
    } else {
        append_all_buffered(&t, pages, heads, token, rows, head_stride);
    }
    return KVT_OK;
}

/* ---- out ---- */

/* A piece, through a buffer that may be where the rows go: then they are floats of P channels each. */
static void read_piece(const transfer *t, size_t token, uint32_t n, uint8_t *rows, ptrdiff_t row_stride, const float *mu, float *buffer)
{
    if (t->is_staged) {
        const kvt_rows *kernels = t->at.tier->rows;
        read_staged(t, token, n, buffer);
        (kvt_is_integer(t->tile.scheme) ? kernels->restore_integers : kernels->restore)(buffer, rows, row_stride, t->dtype, n, t->at.side->dim,
                                                                                        t->at.options->rotation, mu);
        return;
    }
    const kvt_tile at = kvt_tile_of(&t->at, token, n);
    const bool is_there = is_direct(t) || rows == (uint8_t *)buffer;
    uint8_t *decoded = is_there ? rows : (uint8_t *)buffer;
    const ptrdiff_t stride = is_there ? row_stride : (ptrdiff_t)buffered_bytes(t);
    kvt_tile_read(t->at.tier, t->at.order, &t->tile, at.codes, at.scales, decoded, stride, t->dtype, at.first, n);
    for (uint32_t i = 0; !is_there && i < n; i++)
        memcpy(rows + (ptrdiff_t)i * row_stride, decoded + (ptrdiff_t)i * stride, t->at.side->dim * t->element_bytes);
}

void kvt_read_piece(const kvt_transfer *at, size_t token, uint32_t n, float *buffer)
{
    float mu[KVT_MAX_DIM];
    const transfer t = transfer_of(at, KVT_F32);
    read_piece(&t, token, n, (uint8_t *)buffer, (ptrdiff_t)(t.tile.dim * sizeof *buffer), centre_of(&t, token, true, mu), buffer);
}

kvt_status kvt_read(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, void *rows, kvt_dtype dtype,
                    ptrdiff_t row_stride)
{
    transfer t;
    kvt_status status = begin_transfer(&t, layout, side, pages, dtype);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check(&t.at, first_token, n_tokens, rows, t.at.side->dim * t.element_bytes, row_stride);
    if (status)
        return status;
    _Alignas(64) float buffer[KVT_BUFFER_FLOATS];
    _Alignas(64) float mu[KVT_MAX_DIM];
    for (size_t done = 0; done < n_tokens;) {
        const size_t token = first_token + done, left = n_tokens - done;
        const uint32_t n = is_direct(&t) ? kvt_tile_of(&t.at, token, left).count : kvt_piece_of(&t.at, token, left);
        read_piece(&t, token, n, (uint8_t *)rows + (ptrdiff_t)done * row_stride, row_stride, centre_of(&t, token, done == 0, mu), buffer);
        done += n;
    }
    return KVT_OK;
}
