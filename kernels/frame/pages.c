/* Rows in and out of pages: checks the arguments, then hands tile by tile to the kernels. */
#include "kernels/frame/transfer.h"

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
    size_t element_bytes; /* of the caller's rows */
    bool is_staged;       /* rows pass through the tier's stage */
    bool is_padded;       /* or through a buffer, because kernels work on whole groups of channels */
} transfer;

/* Errors: as kvt_transfer_begin, DTYPE. */
static inline kvt_status begin(transfer *t, const kvt_layout *layout, kvt_side side, const kvt_pages *pages, kvt_dtype dtype)
{
    const kvt_status status = kvt_transfer_begin(&t->at, layout, side, pages);
    if (status)
        return status;
    t->element_bytes = bytes_of(dtype);
    if (!t->element_bytes)
        return KVT_ERR_DTYPE;
    const kvt_side_options *options = t->at.options;
    t->tile = kvt_tile_spec_of(t->at.side, options);
    t->is_staged = options->rotation || options->centring || (t->at.kernels->f32_only && dtype != KVT_F32);
    t->is_padded = !t->is_staged && t->at.side->dim != t->at.side->padded_dim;
    return KVT_OK;
}

/* The centre of the page that `token` is in, or NULL. */
static const float *centre_of(const transfer *t, size_t token, float mu[KVT_MAX_DIM])
{
    if (!t->at.side->centre_bytes)
        return NULL;
    t->at.tier->stage->load_centre(mu, kvt_page_at(t->at.pages, token / KVT_PAGE_TOKENS) + t->at.side->centre_offset, t->tile.dim);
    return mu;
}

/* Writes the centre of page p, whose first token comes next, from what is stored. `staged` is for use in between. */
static void renew_centre(const transfer *t, size_t p, float *staged, float mu[KVT_MAX_DIM])
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
    for (size_t token = (p - 1) * KVT_PAGE_TOKENS; token < p * KVT_PAGE_TOKENS; token += KVT_TILE_TOKENS) {
        const kvt_tile at = kvt_tile_of(&t->at, token, KVT_TILE_TOKENS);
        t->at.kernels->read[t->at.order](at.codes, at.scales, &t->tile, (uint8_t *)staged, (ptrdiff_t)(t->tile.dim * sizeof *staged), KVT_F32, 0,
                                         KVT_TILE_TOKENS);
        t->at.tier->stage->add(sum, staged, KVT_TILE_TOKENS, t->tile.dim);
    }
    centre_of(t, (p - 1) * KVT_PAGE_TOKENS, mu);
    for (uint32_t c = 0; c < t->tile.dim; c++)
        mu[c] += sum[c] * (1.0f / KVT_PAGE_TOKENS);
    t->at.tier->stage->store_centre(centre, mu, t->tile.dim);
}

/* Rows in the buffer are t->tile.dim elements each, of this many bytes. */
static size_t buffered_bytes(const transfer *t)
{
    return t->tile.dim * (t->is_staged ? sizeof(float) : t->element_bytes);
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
        memcpy(buffer + i * buffered_bytes(t), from + (ptrdiff_t)i * row_stride, t->at.side->dim * t->element_bytes);
}

static void renew_centre_if_due(const transfer *t, size_t token, float *buffer, float mu[KVT_MAX_DIM])
{
    if (t->at.side->centre_bytes && token % KVT_PAGE_TOKENS == 0 && t->at.options->centring != KVT_CENTRING_OWN)
        renew_centre(t, token / KVT_PAGE_TOKENS, buffer, mu);
}

static void write_rows(const transfer *t, const kvt_tile *at, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype)
{
    if (at->count == KVT_TILE_TOKENS) {
        t->at.kernels->write[t->at.order](at->codes, at->scales, &t->tile, rows, row_stride, dtype);
        return;
    }
    kvt_place places[KVT_TILE_TOKENS];
    for (uint32_t i = 0; i < at->count; i++)
        places[i] = (kvt_place){ .row = rows + (ptrdiff_t)i * row_stride, .codes = at->codes, .scales = at->scales, .token = at->first + i };
    t->at.kernels->write_rows[t->at.order](places, at->count, &t->tile, dtype);
}

static void write_buffered(const transfer *t, size_t first_token, size_t n_tokens, const uint8_t *row, kvt_dtype dtype, ptrdiff_t row_stride)
{
    float buffer[KVT_TILE_TOKENS * KVT_MAX_DIM], mu[KVT_MAX_DIM];
    const size_t stride = buffered_bytes(t);
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

/* Sums of channels of a page's own tokens, of which there are n; rotating their mean is rotating each of them. */
static void store_own_centre(const transfer *t, size_t token, const float *sum, size_t n)
{
    float mean[KVT_MAX_DIM], mu[KVT_MAX_DIM];
    const float part = 1.0f / (float)n;
    for (uint32_t c = 0; c < t->tile.dim; c++)
        mean[c] = sum[c] * part;
    t->at.tier->stage->prepare(mu, (const uint8_t *)mean, 0, KVT_F32, 1, t->at.side->dim, t->at.options->rotation, NULL);
    t->at.tier->stage->store_centre(kvt_page_at(t->at.pages, token / KVT_PAGE_TOKENS) + t->at.side->centre_offset, mu, t->tile.dim);
}

/* The n tokens, at most a page and from its first on, that are the call's from `first` on. */
static void write_page(const transfer *t, size_t token, size_t first, uint32_t n, kvt_make_rows *make, const void *of)
{
    float made[KVT_TILE_TOKENS * KVT_MAX_DIM];
    {
        float sum[KVT_MAX_DIM] = { 0 }, staged[KVT_TILE_TOKENS * KVT_MAX_DIM];
        for (uint32_t i = 0; i < n; i += KVT_TILE_TOKENS) {
            const uint32_t count = n - i < KVT_TILE_TOKENS ? n - i : KVT_TILE_TOKENS;
            const kvt_matrix rows = make(of, first + i, count, made);
            t->at.tier->stage->prepare(staged, rows.numbers, rows.row_stride, rows.dtype, count, t->at.side->dim, KVT_ROTATION_NONE, NULL);
            t->at.tier->stage->add(sum, staged, count, t->tile.dim);
        }
        store_own_centre(t, token, sum, n);
    }
    for (uint32_t i = 0; i < n; i += KVT_TILE_TOKENS) {
        const uint32_t count = n - i < KVT_TILE_TOKENS ? n - i : KVT_TILE_TOKENS;
        const kvt_matrix rows = make(of, first + i, count, made);
        write_buffered(t, token + i, count, rows.numbers, rows.dtype, rows.row_stride);
    }
}

/* Pages that have centres of their own. */
static void write_pages(const transfer *t, size_t first_token, size_t n_tokens, kvt_make_rows *make, const void *of)
{
    for (size_t done = 0; done < n_tokens; done += KVT_PAGE_TOKENS) {
        const uint32_t n = n_tokens - done < KVT_PAGE_TOKENS ? (uint32_t)(n_tokens - done) : KVT_PAGE_TOKENS;
        write_page(t, first_token + done, done, n, make, of);
    }
}

/* A token's rows of so many heads, at most as many as a tile has. */
static void append_rows(const transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, kvt_dtype dtype,
                        ptrdiff_t head_stride)
{
    kvt_place places[KVT_TILE_TOKENS];
    for (uint32_t h = 0; h < heads; h++) {
        const kvt_tile at = kvt_tile_in(kvt_page_at(pages + h, token / KVT_PAGE_TOKENS), &t->at, token, 1);
        places[h] = (kvt_place){ .row = rows + (ptrdiff_t)h * head_stride, .codes = at.codes, .scales = at.scales, .token = at.first };
    }
    t->at.kernels->write_rows[t->at.order](places, heads, &t->tile, dtype);
}

static void append_buffered(const transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, kvt_dtype dtype,
                            ptrdiff_t head_stride)
{
    float buffer[KVT_TILE_TOKENS * KVT_MAX_DIM], mu[KVT_MAX_DIM];
    const size_t stride = buffered_bytes(t);
    transfer of_head = *t;
    for (uint32_t h = 0; h < heads; h++) {
        of_head.at.pages = pages + h;
        renew_centre_if_due(&of_head, token, buffer, mu);
    }
    if (t->is_padded)
        memset(buffer, 0, heads * stride);
    for (uint32_t h = 0; h < heads; h++) {
        of_head.at.pages = pages + h;
        buffer_rows(&of_head, token, 1, rows + (ptrdiff_t)h * head_stride, 0, dtype, (uint8_t *)buffer + h * stride, mu);
    }
    append_rows(t, pages, heads, token, (const uint8_t *)buffer, t->is_staged ? KVT_F32 : dtype, (ptrdiff_t)stride);
}

static void append(const transfer *t, const kvt_pages *pages, uint32_t heads, size_t token, const uint8_t *rows, kvt_dtype dtype,
                   ptrdiff_t head_stride)
{
    if (t->is_staged || t->is_padded)
        append_buffered(t, pages, heads, token, rows, dtype, head_stride);
    else
        append_rows(t, pages, heads, token, rows, dtype, head_stride);
}

static kvt_matrix rows_as_they_are(const void *of, size_t first, uint32_t n, float *made)
{
    (void)n;
    (void)made;
    const kvt_matrix *all = of;
    return (kvt_matrix){ (const uint8_t *)all->numbers + (ptrdiff_t)first * all->row_stride, all->dtype, all->row_stride };
}

kvt_status kvt_write(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *rows,
                     kvt_dtype dtype, ptrdiff_t row_stride)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, dtype);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check(&t.at, first_token, n_tokens, rows, t.at.side->dim * t.element_bytes, row_stride);
    if (!status)
        status = kvt_transfer_check_centre(&t.at, first_token);
    if (status)
        return status;
    if (t.at.options->centring == KVT_CENTRING_OWN) {
        write_pages(&t, first_token, n_tokens, rows_as_they_are, &(kvt_matrix){ rows, dtype, row_stride });
    } else if (n_tokens == 1) {
        append(&t, pages, 1, first_token, rows, dtype, 0);
    } else if (t.is_staged || t.is_padded) {
        write_buffered(&t, first_token, n_tokens, rows, dtype, row_stride);
    } else {
        for (size_t done = 0; done < n_tokens;) {
            const kvt_tile at = kvt_tile_of(&t.at, first_token + done, n_tokens - done);
            write_rows(&t, &at, (const uint8_t *)rows + (ptrdiff_t)done * row_stride, row_stride, dtype);
            done += at.count;
        }
    }
    return KVT_OK;
}

kvt_status kvt_write_made(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, kvt_make_rows *make,
                          const void *of)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, KVT_F32);
    if (status)
        return status;
    if (t.at.options->centring == KVT_CENTRING_OWN) {
        write_pages(&t, first_token, n_tokens, make, of);
        return KVT_OK;
    }
    float made[KVT_TILE_TOKENS * KVT_MAX_DIM];
    for (size_t done = 0; done < n_tokens && !status;) {
        const uint32_t n = kvt_tile_of(&t.at, first_token + done, n_tokens - done).count;
        const kvt_matrix rows = make(of, done, n, made);
        status = kvt_write(layout, side, pages, first_token + done, n, rows.numbers, rows.dtype, rows.row_stride);
        done += n;
    }
    return status;
}

kvt_status kvt_append(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t token, const void *rows, kvt_dtype dtype,
                      ptrdiff_t head_stride)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, dtype);
    if (status)
        return status;
    const uint32_t heads = layout->spec.kv_heads;
    for (uint32_t h = 0; h < heads && !status; h++) {
        t.at.pages = pages + h;
        status = kvt_transfer_check_pages(&t.at, token, 1);
        if (!status)
            status = kvt_transfer_check_centre(&t.at, token);
    }
    if (status)
        return status;
    if (!rows)
        return KVT_ERR_NULL;
    if (!kvt_rows_are_apart(heads, t.at.side->dim * t.element_bytes, head_stride))
        return KVT_ERR_STRIDE;
    const bool is_own = t.at.options->centring == KVT_CENTRING_OWN;
    for (uint32_t h = 0; is_own && h < heads; h++) {
        t.at.pages = pages + h;
        write_pages(&t, token, 1, rows_as_they_are, &(kvt_matrix){ (const uint8_t *)rows + (ptrdiff_t)h * head_stride, dtype, 0 });
    }
    for (uint32_t h = 0; !is_own && h < heads; h += KVT_TILE_TOKENS)
        append(&t, pages + h, heads - h < KVT_TILE_TOKENS ? heads - h : KVT_TILE_TOKENS, token, (const uint8_t *)rows + (ptrdiff_t)h * head_stride,
               dtype, head_stride);
    return KVT_OK;
}

kvt_status kvt_read(const kvt_layout *layout, kvt_side side, const kvt_pages *pages, size_t first_token, size_t n_tokens, void *rows, kvt_dtype dtype,
                    ptrdiff_t row_stride)
{
    transfer t;
    kvt_status status = begin(&t, layout, side, pages, dtype);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check(&t.at, first_token, n_tokens, rows, t.at.side->dim * t.element_bytes, row_stride);
    if (status)
        return status;
    uint8_t *row = rows;
    float buffer[KVT_TILE_TOKENS * KVT_MAX_DIM], mu[KVT_MAX_DIM];
    const bool is_direct = !t.is_staged && !t.is_padded;
    const size_t element = t.is_staged ? sizeof *buffer : t.element_bytes;
    const ptrdiff_t stride = is_direct ? row_stride : (ptrdiff_t)(t.tile.dim * element);
    for (size_t done = 0; done < n_tokens;) {
        const size_t token = first_token + done;
        const kvt_tile at = kvt_tile_of(&t.at, token, n_tokens - done);
        uint8_t *to = row + (ptrdiff_t)done * row_stride, *decoded = is_direct ? to : (uint8_t *)buffer;
        t.at.kernels->read[t.at.order](at.codes, at.scales, &t.tile, decoded, stride, t.is_staged ? KVT_F32 : dtype, at.first, at.count);
        if (t.is_staged)
            t.at.tier->stage->restore(buffer, to, row_stride, dtype, at.count, t.at.side->dim, t.at.options->rotation, centre_of(&t, token, mu));
        else if (t.is_padded)
            for (uint32_t i = 0; i < at.count; i++)
                memcpy(to + (ptrdiff_t)i * row_stride, decoded + (ptrdiff_t)i * stride, t.at.side->dim * element);
        done += at.count;
    }
    return KVT_OK;
}
