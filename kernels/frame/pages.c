/* Rows in and out of pages: checks the arguments, then hands tile by tile to the kernels. */
#include "kernels/frame/transfer.h"

#include <string.h>

size_t kvt_dtype_bytes(kvt_dtype dtype)
{
    switch (dtype) {
    case KVT_F32:
        return 4;
    case KVT_F16:
    case KVT_BF16:
        return 2;
    }
    return 0;
}

/* One checked call. */
typedef struct transfer {
    kvt_transfer at;
    kvt_tile_spec tile;
    bool is_staged; /* rows pass through the tier's stage */
    bool is_padded; /* or through a buffer, because kernels work on whole groups of channels */
} transfer;

/* Errors: as kvt_transfer_begin, DTYPE. */
static inline kvt_status begin(transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages, kvt_dtype dtype)
{
    const kvt_status status = kvt_transfer_begin(&t->at, layout, side, pages);
    if (status)
        return status;
    if (!kvt_dtype_bytes(dtype))
        return KVT_ERR_DTYPE;
    const kvt_side_options *options = t->at.options;
    t->tile = kvt_tile_spec_of(t->at.side, options);
    t->is_staged = options->rotation || options->centring || (t->at.kernels->f32_only && dtype != KVT_F32);
    t->is_padded = !t->is_staged && t->at.side->dim != t->at.side->padded_dim;
    return KVT_OK;
}

/* Errors: as kvt_transfer_check. */
static kvt_status check(const transfer *t, size_t first_token, size_t n_tokens, const void *rows, kvt_dtype dtype, ptrdiff_t row_stride)
{
    return kvt_transfer_check(&t->at, first_token, n_tokens, rows, t->at.side->dim * kvt_dtype_bytes(dtype), row_stride);
}

/* The same for writing, which with centring needs the page before a new one. */
static kvt_status check_write(const transfer *t, size_t first_token, size_t n_tokens, const void *rows, kvt_dtype dtype, ptrdiff_t row_stride)
{
    const kvt_status status = check(t, first_token, n_tokens, rows, dtype, row_stride);
    if (!status && t->at.side->centre_bytes && first_token % KVT_PAGE_TOKENS == 0 && first_token > 0 && t->at.pages->table &&
        !t->at.pages->table[first_token / KVT_PAGE_TOKENS - 1])
        return KVT_ERR_NULL; /* its tokens make the centre */
    return status;
}

/* The centre of the page that `token` is in, or NULL. */
static const float *centre_of(const transfer *t, size_t token, float mu[KVT_MAX_DIM])
{
    if (!t->at.side->centre_bytes)
        return NULL;
    t->at.tier->stage->load_centre(mu, kvt_page_at(&t->at, token / KVT_PAGE_TOKENS) + t->at.side->centre_offset, t->tile.dim);
    return mu;
}

/* Writes the centre of page p, whose first token comes next. `staged` is for use in between. */
static void renew_centre(const transfer *t, size_t p, float *staged, float mu[KVT_MAX_DIM])
{
    uint8_t *centre = kvt_page_at(&t->at, p) + t->at.side->centre_offset;
    if (p == 0) {
        memset(centre, 0, t->at.side->centre_bytes);
        return;
    }
    if (p > 1 && t->at.options->centring == KVT_CENTRING_SEQUENCE) {
        memmove(centre, kvt_page_at(&t->at, p - 1) + t->at.side->centre_offset, t->at.side->centre_bytes);
        return;
    }
    float sum[KVT_MAX_DIM] = { 0 };
    for (size_t token = (p - 1) * KVT_PAGE_TOKENS; token < p * KVT_PAGE_TOKENS; token += KVT_TILE_TOKENS) {
        const kvt_tile at = kvt_tile_of(&t->at, token, KVT_TILE_TOKENS);
        t->at.kernels->read[t->at.which](at.codes, at.scales, &t->tile, (uint8_t *)staged, (ptrdiff_t)(t->tile.dim * sizeof *staged), KVT_F32, 0,
                                         KVT_TILE_TOKENS);
        t->at.tier->stage->add(sum, staged, KVT_TILE_TOKENS, t->tile.dim);
    }
    centre_of(t, (p - 1) * KVT_PAGE_TOKENS, mu);
    for (uint32_t c = 0; c < t->tile.dim; c++)
        mu[c] += sum[c] * (1.0f / KVT_PAGE_TOKENS);
    t->at.tier->stage->store_centre(centre, mu, t->tile.dim);
}

static void write_rows(const transfer *t, const kvt_tile *at, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype)
{
    if (at->count == KVT_TILE_TOKENS) {
        t->at.kernels->write[t->at.which](at->codes, at->scales, &t->tile, rows, row_stride, dtype);
        return;
    }
    kvt_place places[KVT_TILE_TOKENS];
    for (uint32_t i = 0; i < at->count; i++)
        places[i] = (kvt_place){ .row = rows + (ptrdiff_t)i * row_stride, .codes = at->codes, .scales = at->scales, .token = at->first + i };
    t->at.kernels->write_rows[t->at.which](places, at->count, &t->tile, dtype);
}

/* Rows in the buffer are t->tile.dim elements each, of this many bytes. */
static size_t buffered_bytes(const transfer *t, kvt_dtype dtype)
{
    return t->tile.dim * (t->is_staged ? sizeof(float) : kvt_dtype_bytes(dtype));
}

/* Rows of tokens from `token` on to the buffer, which has zeros where they are padded. */
static void buffer_rows(const transfer *t, size_t token, uint32_t count, const uint8_t *from, ptrdiff_t row_stride, kvt_dtype dtype, uint8_t *buffer,
                        float mu[KVT_MAX_DIM])
{
    if (t->is_staged) {
        t->at.tier->stage->prepare((float *)(void *)buffer, from, row_stride, dtype, count, t->at.side->dim, t->at.options->rotation,
                                   centre_of(t, token, mu));
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        memcpy(buffer + i * buffered_bytes(t, dtype), from + (ptrdiff_t)i * row_stride, t->at.side->dim * kvt_dtype_bytes(dtype));
}

static void renew_centre_if_due(const transfer *t, size_t token, float *buffer, float mu[KVT_MAX_DIM])
{
    if (t->at.side->centre_bytes && token % KVT_PAGE_TOKENS == 0)
        renew_centre(t, token / KVT_PAGE_TOKENS, buffer, mu);
}

static void write_buffered(const transfer *t, size_t first_token, size_t n_tokens, const uint8_t *row, kvt_dtype dtype, ptrdiff_t row_stride)
{
    float buffer[KVT_TILE_TOKENS * KVT_MAX_DIM], mu[KVT_MAX_DIM];
    const size_t stride = buffered_bytes(t, dtype);
    if (t->is_padded)
        memset(buffer, 0, KVT_TILE_TOKENS * stride);
    for (size_t done = 0; done < n_tokens;) {
        const size_t token = first_token + done;
        const kvt_tile at = kvt_tile_of(&t->at, token, n_tokens - done);
        renew_centre_if_due(t, token, buffer, mu);
        buffer_rows(t, token, at.count, row + (ptrdiff_t)done * row_stride, row_stride, dtype, (uint8_t *)buffer, mu);
        write_rows(t, &at, (const uint8_t *)buffer, (ptrdiff_t)stride, t->is_staged ? KVT_F32 : dtype);
        done += at.count;
    }
}

kvt_status kvt_write(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *rows,
                     kvt_dtype dtype, ptrdiff_t row_stride)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, dtype);
    if (status || n_tokens == 0)
        return status;
    status = check_write(&t, first_token, n_tokens, rows, dtype, row_stride);
    if (status)
        return status;
    if (t.is_staged || t.is_padded) {
        write_buffered(&t, first_token, n_tokens, rows, dtype, row_stride);
        return KVT_OK;
    }
    for (size_t done = 0; done < n_tokens;) {
        const kvt_tile at = kvt_tile_of(&t.at, first_token + done, n_tokens - done);
        write_rows(&t, &at, (const uint8_t *)rows + (ptrdiff_t)done * row_stride, row_stride, dtype);
        done += at.count;
    }
    return KVT_OK;
}

/* As many heads at once as a tile has rows. With a buffer for them, or NULL. */
static void append_heads(transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, kvt_dtype dtype,
                         ptrdiff_t head_stride, float *buffer, float *mu)
{
    const size_t buffered = buffered_bytes(t, dtype);
    kvt_place places[KVT_TILE_TOKENS];
    if (buffer)
        for (uint32_t h = 0; h < heads; h++) {
            t->at.pages = pages + h;
            renew_centre_if_due(t, token, buffer, mu);
        }
    if (buffer && t->is_padded)
        memset(buffer, 0, heads * buffered);
    for (uint32_t h = 0; h < heads; h++) {
        t->at.pages = pages + h;
        const kvt_tile at = kvt_tile_of(&t->at, token, 1);
        const uint8_t *row = rows + (ptrdiff_t)h * head_stride;
        places[h] = (kvt_place){ .row = row, .codes = at.codes, .scales = at.scales, .token = at.first };
        if (buffer) {
            uint8_t *to = (uint8_t *)buffer + h * buffered;
            buffer_rows(t, token, 1, row, 0, dtype, to, mu);
            places[h].row = to;
        }
    }
    t->at.kernels->write_rows[t->at.which](places, heads, &t->tile, t->is_staged ? KVT_F32 : dtype);
}

static void append_buffered(transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, kvt_dtype dtype,
                            ptrdiff_t head_stride)
{
    float buffer[KVT_TILE_TOKENS * KVT_MAX_DIM], mu[KVT_MAX_DIM];
    append_heads(t, pages, heads, token, rows, dtype, head_stride, buffer, mu);
}

kvt_status kvt_append(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t token, const void *rows, kvt_dtype dtype,
                      ptrdiff_t head_stride)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, dtype);
    if (status)
        return status;
    const uint32_t heads = layout->spec.kv_heads;
    if (!kvt_rows_are_apart(heads, t.at.side->dim * kvt_dtype_bytes(dtype), head_stride))
        return KVT_ERR_STRIDE;
    for (uint32_t h = 0; h < heads && !status; h++) {
        t.at.pages = pages + h;
        status = check_write(&t, token, 1, rows, dtype, 0);
    }
    for (uint32_t h = 0; h < heads && !status; h += KVT_TILE_TOKENS) {
        const uint32_t n = heads - h < KVT_TILE_TOKENS ? heads - h : KVT_TILE_TOKENS;
        const uint8_t *row = (const uint8_t *)rows + (ptrdiff_t)h * head_stride;
        if (t.is_staged || t.is_padded)
            append_buffered(&t, pages + h, n, token, row, dtype, head_stride);
        else
            append_heads(&t, pages + h, n, token, row, dtype, head_stride, NULL, NULL);
    }
    return status;
}

kvt_status kvt_read(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, void *rows, kvt_dtype dtype,
                    ptrdiff_t row_stride)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, dtype);
    if (status || n_tokens == 0)
        return status;
    status = check(&t, first_token, n_tokens, rows, dtype, row_stride);
    if (status)
        return status;
    uint8_t *row = rows;
    float buffer[KVT_TILE_TOKENS * KVT_MAX_DIM], mu[KVT_MAX_DIM];
    const bool is_direct = !t.is_staged && !t.is_padded;
    const size_t element = t.is_staged ? sizeof *buffer : kvt_dtype_bytes(dtype);
    const ptrdiff_t stride = is_direct ? row_stride : (ptrdiff_t)(t.tile.dim * element);
    for (size_t done = 0; done < n_tokens;) {
        const size_t token = first_token + done;
        const kvt_tile at = kvt_tile_of(&t.at, token, n_tokens - done);
        uint8_t *to = row + (ptrdiff_t)done * row_stride, *decoded = is_direct ? to : (uint8_t *)buffer;
        t.at.kernels->read[side](at.codes, at.scales, &t.tile, decoded, stride, t.is_staged ? KVT_F32 : dtype, at.first, at.count);
        if (t.is_staged)
            t.at.tier->stage->restore(buffer, to, row_stride, dtype, at.count, t.at.side->dim, t.at.options->rotation, centre_of(&t, token, mu));
        else if (t.is_padded)
            for (uint32_t i = 0; i < at.count; i++)
                memcpy(to + (ptrdiff_t)i * row_stride, decoded + (ptrdiff_t)i * stride, t.at.side->dim * element);
        done += at.count;
    }
    return KVT_OK;
}
