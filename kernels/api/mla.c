/* SPDX-License-Identifier: MIT */
/* The latent cache of MLA: checks the arguments, then hands tiles of tokens to the kernels and to what stores and reads rows. */
#include "kernels/api/convert.h"

#include <kvtile/mla.h>

/* ---- what calls have in common ---- */

/* Both sides of a latent layout. */
typedef struct latent_call {
    const kvt_mla *kernels;
    kvt_transfer latent, rope;
} latent_call;

/* Errors: NULL, LAYOUT, SIDE. */
static kvt_status begin_latents(latent_call *c, const kvt_layout *layout, const kvt_pages *pages)
{
    kvt_status status = kvt_transfer_begin(&c->latent, layout, KVT_LATENT, pages);
    if (!status)
        status = kvt_transfer_begin(&c->rope, layout, KVT_ROPE, pages);
    if (status)
        return status;
    c->kernels = c->latent.tier->mla;
    return KVT_OK;
}

/* Of so many rows. Errors: NULL, DTYPE, STRIDE. */
static kvt_status check_matrix(const kvt_matrix *m, size_t rows)
{
    if (!m->numbers)
        return KVT_ERR_NULL;
    if (!kvt_dtype_bytes(m->dtype))
        return KVT_ERR_DTYPE;
    return rows > 1 && m->row_stride == 0 ? KVT_ERR_STRIDE : KVT_OK;
}

static kvt_matrix rows_from(const kvt_matrix *m, size_t first)
{
    return (kvt_matrix){ (const uint8_t *)m->numbers + (ptrdiff_t)first * m->row_stride, m->dtype, m->row_stride };
}

/* ---- in ---- */

/* Takes the rows, too. Errors: NULL, STRUCT_SIZE, DIM, DTYPE, OPTIONS, NUMBER, STRIDE. */
static kvt_status check_latent_rows(const latent_call *c, const kvt_mla_rows *given, size_t n_tokens, kvt_mla_rows *r)
{
    if (!given)
        return KVT_ERR_NULL;
    kvt_status status = KVT_TAKE_STRUCT(kvt_mla_rows, rope_sin, r, given);
    if (!status)
        status = check_matrix(&r->rows, n_tokens);
    if (!status && r->down.numbers)
        status = check_matrix(&r->down, (size_t)c->latent.side->dim + c->rope.side->dim);
    if (status)
        return status;
    const size_t row_bytes = (c->latent.side->dim + c->rope.side->dim) * kvt_dtype_bytes(r->rows.dtype);
    if (!r->down.numbers && !kvt_rows_are_apart(n_tokens, row_bytes, r->rows.row_stride))
        return KVT_ERR_STRIDE;
    if (r->down.numbers && (r->hidden_dim < 1 || r->hidden_dim > KVT_MAX_HIDDEN))
        return KVT_ERR_DIM;
    if (r->norm && !kvt_dtype_bytes(r->norm_dtype))
        return KVT_ERR_DTYPE;
    if (r->norm && !(r->norm_epsilon >= 0 && r->norm_epsilon <= 1))
        return KVT_ERR_NUMBER;
    if ((unsigned)r->rope_pairs > KVT_ROPE_PAIRS_HALVES)
        return KVT_ERR_OPTIONS;
    if (!r->rope_pairs)
        return KVT_OK;
    if (!r->rope_cos || !r->rope_sin)
        return KVT_ERR_NULL;
    return c->rope.side->dim % 2 ? KVT_ERR_DIM : KVT_OK;
}

/* Rows that are made lie as a buffer has them. */
static kvt_matrix in_buffer(const kvt_transfer *side, const float *buffer)
{
    return (kvt_matrix){ buffer, KVT_F32, (ptrdiff_t)(side->side->padded_dim * sizeof *buffer) };
}

/* The side's numbers, which begin at number `from` of the rows, of n tokens from `first` on: where they are, or `buffer`, of `down`. */
static kvt_matrix rows_of(const latent_call *c, const kvt_mla_rows *r, size_t first, uint32_t n, uint32_t from, const kvt_transfer *side,
                          float *buffer)
{
    const kvt_matrix rows = rows_from(&r->rows, first);
    if (!r->down.numbers)
        return (kvt_matrix){ (const uint8_t *)rows.numbers + from * kvt_dtype_bytes(rows.dtype), rows.dtype, rows.row_stride };
    const kvt_matrix down = rows_from(&r->down, from);
    c->kernels->project(buffer, side->side->padded_dim, &rows, n, &down, side->side->dim, r->hidden_dim);
    return in_buffer(side, buffer);
}

static const uint8_t *matrix_row(const kvt_matrix *m, uint32_t i)
{
    return (const uint8_t *)m->numbers + (ptrdiff_t)i * m->row_stride;
}

/* One call that stores tokens; weights are those of the norm. */
typedef struct write_call {
    const latent_call *c;
    const kvt_mla_rows *rows;
    const float *weights;
} write_call;

/* The latents of n tokens, as they are to be stored. */
static kvt_matrix latents_of(const void *context, size_t first, uint32_t n, float *buffer)
{
    const write_call *w = context;
    const latent_call *c = w->c;
    const kvt_mla_rows *r = w->rows;
    const uint32_t dim = c->latent.side->dim;
    const kvt_matrix rows = rows_of(c, r, first, n, 0, &c->latent, buffer);
    if (!r->norm)
        return rows;
    for (uint32_t i = 0; i < n; i++)
        c->kernels->normalise(buffer + (size_t)i * c->latent.side->padded_dim, matrix_row(&rows, i), rows.dtype, dim, w->weights, r->norm_epsilon);
    return in_buffer(&c->latent, buffer);
}

/* And their rotary parts. */
static kvt_matrix ropes_of(const void *context, size_t first, uint32_t n, float *buffer)
{
    const write_call *w = context;
    const latent_call *c = w->c;
    const kvt_mla_rows *r = w->rows;
    const uint32_t dim = c->rope.side->dim, pairs = dim / 2;
    const kvt_matrix rows = rows_of(c, r, first, n, c->latent.side->dim, &c->rope, buffer);
    if (!r->rope_pairs)
        return rows;
    for (uint32_t i = 0; i < n; i++) {
        float *row = buffer + (size_t)i * c->rope.side->padded_dim;
        if (!r->down.numbers)
            c->kernels->widen(row, matrix_row(&rows, i), rows.dtype, dim);
        c->kernels->rotate(row, dim, r->rope_pairs == KVT_ROPE_PAIRS_NEIGHBOURS, r->rope_cos + (first + i) * pairs,
                           r->rope_sin + (first + i) * pairs);
    }
    return in_buffer(&c->rope, buffer);
}

kvt_status kvt_mla_write(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const kvt_mla_rows *rows)
{
    latent_call c;
    kvt_mla_rows r;
    kvt_status status = begin_latents(&c, layout, pages);
    if (!status)
        status = check_latent_rows(&c, rows, n_tokens, &r);
    if (status || n_tokens == 0)
        return status;
    status = kvt_check_pages(pages, layout->page_bytes, first_token, n_tokens);
    if (!status)
        status = kvt_transfer_check_centre(&c.latent, first_token);
    if (!status)
        status = kvt_transfer_check_centre(&c.rope, first_token);
    if (status)
        return status;
    float weights[KVT_MAX_DIM];
    if (r.norm)
        c.kernels->widen(weights, r.norm, r.norm_dtype, c.latent.side->dim);
    const write_call call = { &c, &r, weights };
    kvt_write_made(&c.latent, first_token, n_tokens, latents_of, &call);
    kvt_write_made(&c.rope, first_token, n_tokens, ropes_of, &call);
    return KVT_OK;
}

/* ---- out ---- */

/* The up-projection of all heads. Errors: NULL, DIM, DTYPE, STRIDE. */
static kvt_status check_up(const kvt_matrix *up, uint32_t dim, uint32_t heads, ptrdiff_t head_stride)
{
    const kvt_status status = check_matrix(up, dim);
    if (status)
        return status;
    if (dim < 1 || dim > KVT_MAX_DIM)
        return KVT_ERR_DIM;
    return heads > 1 && head_stride == 0 ? KVT_ERR_STRIDE : KVT_OK;
}

/* Takes the expansion, too. Errors: NULL, STRUCT_SIZE, HEADS, DIM, DTYPE, STRIDE. */
static kvt_status check_expansion(const latent_call *c, const kvt_mla_expansion *given, size_t n_tokens, kvt_mla_expansion *e)
{
    if (!given)
        return KVT_ERR_NULL;
    kvt_status status = KVT_TAKE_STRUCT(kvt_mla_expansion, v_head_stride, e, given);
    if (status)
        return status;
    if (!e->k && !e->v)
        return KVT_ERR_NULL;
    if (e->heads < 1 || e->heads > KVT_MAX_HEADS)
        return KVT_ERR_HEADS;
    const size_t element = kvt_dtype_bytes(e->dtype);
    if (!element)
        return KVT_ERR_DTYPE;
    if (e->k) {
        status = check_up(&e->k_up, e->nope_dim, e->heads, e->k_up_head_stride);
        if (!status && !kvt_grid_is_apart(n_tokens, e->heads, (e->nope_dim + c->rope.side->dim) * element, e->k_token_stride, e->k_head_stride))
            status = KVT_ERR_STRIDE;
    }
    if (!status && e->v) {
        status = check_up(&e->v_up, e->v_dim, e->heads, e->v_up_head_stride);
        if (!status && !kvt_grid_is_apart(n_tokens, e->heads, e->v_dim * element, e->v_token_stride, e->v_head_stride))
            status = KVT_ERR_STRIDE;
    }
    return status;
}

enum { EXPANDED_AT_ONCE = 64 }; /* channels */

/* Rows of n tokens and all heads, from latents. */
static void expand_side(const latent_call *c, const kvt_mla_expansion *e, const kvt_matrix *latents, uint32_t n, const kvt_matrix *up,
                        ptrdiff_t up_stride, uint32_t dim, uint8_t *to, ptrdiff_t token_stride, ptrdiff_t head_stride)
{
    const size_t element = kvt_dtype_bytes(e->dtype);
    float buffer[KVT_TILE_TOKENS * EXPANDED_AT_ONCE];
    for (uint32_t h = 0; h < e->heads; h++) {
        const kvt_matrix of_head = { (const uint8_t *)up->numbers + (ptrdiff_t)h * up_stride, up->dtype, up->row_stride };
        for (uint32_t first = 0; first < dim; first += EXPANDED_AT_ONCE) {
            const uint32_t some = dim - first < EXPANDED_AT_ONCE ? dim - first : EXPANDED_AT_ONCE,
                           padded = (some + KVT_GROUP_CHANNELS - 1) / KVT_GROUP_CHANNELS * KVT_GROUP_CHANNELS;
            const kvt_matrix w = rows_from(&of_head, first);
            c->kernels->project(buffer, padded, latents, n, &w, some, c->latent.side->dim);
            c->latent.tier->rows->restore(buffer, to + (ptrdiff_t)h * head_stride + first * element, token_stride, e->dtype, n, some, 0, NULL);
        }
    }
}

/* The rotary part of n tokens, behind the other channels of every head's key: of one head, and from there copies. */
static void expand_rope(const latent_call *c, const kvt_mla_expansion *e, size_t token, uint32_t n, float *buffer, uint8_t *to)
{
    const uint32_t dim = c->rope.side->dim;
    const size_t element = kvt_dtype_bytes(e->dtype);
    to += e->nope_dim * element;
    for (uint32_t done = 0; done < n;) {
        const uint32_t count = kvt_piece_of(&c->rope, token + done, n - done);
        uint8_t *rows = to + (ptrdiff_t)done * e->k_token_stride;
        kvt_read_piece(&c->rope, token + done, count, buffer);
        c->rope.tier->rows->restore(buffer, rows, e->k_token_stride, e->dtype, count, dim, 0, NULL);
        for (uint32_t i = 0; i < count; i++)
            for (uint32_t h = 1; h < e->heads; h++)
                memcpy(rows + (ptrdiff_t)i * e->k_token_stride + (ptrdiff_t)h * e->k_head_stride, rows + (ptrdiff_t)i * e->k_token_stride,
                       dim * element);
        done += count;
    }
}

kvt_status kvt_mla_expand(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const kvt_mla_expansion *expansion)
{
    latent_call c;
    kvt_mla_expansion e;
    kvt_status status = begin_latents(&c, layout, pages);
    if (!status)
        status = check_expansion(&c, expansion, n_tokens, &e);
    if (!status && n_tokens > 0)
        status = kvt_check_pages(pages, layout->page_bytes, first_token, n_tokens);
    if (status)
        return status;
    float buffer[KVT_BUFFER_FLOATS];
    const kvt_matrix latents = in_buffer(&c.latent, buffer);
    for (size_t done = 0; done < n_tokens;) {
        const uint32_t n = kvt_piece_of(&c.latent, first_token + done, n_tokens - done);
        kvt_read_piece(&c.latent, first_token + done, n, buffer);
        if (e.v)
            expand_side(&c, &e, &latents, n, &e.v_up, e.v_up_head_stride, e.v_dim, (uint8_t *)e.v + (ptrdiff_t)done * e.v_token_stride,
                        e.v_token_stride, e.v_head_stride);
        if (e.k) {
            uint8_t *k = (uint8_t *)e.k + (ptrdiff_t)done * e.k_token_stride;
            expand_side(&c, &e, &latents, n, &e.k_up, e.k_up_head_stride, e.nope_dim, k, e.k_token_stride, e.k_head_stride);
            expand_rope(&c, &e, first_token + done, n, buffer, k); /* last: the latents are gone then */
        }
        done += n;
    }
    return KVT_OK;
}

/* ---- DeepSeek-V4's blocks ---- */

enum { V4_LATENT = 448, V4_ROPE = 64, V4_SCALES = 7, V4_NUMBERS = V4_LATENT + 2 * V4_ROPE, V4_TAIL = KVT_DEEPSEEK_V4_TOKEN_BYTES - V4_NUMBERS };

/* Errors: NULL, LAYOUT, SIDE, DIM, RANGE, STRIDE. */
static kvt_status check_v4(latent_call *c, const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *block,
                           size_t block_tokens, size_t first_in_block)
{
    const kvt_status status = begin_latents(c, layout, pages);
    if (status)
        return status;
    if (c->latent.side->dim != V4_LATENT || c->rope.side->dim != V4_ROPE)
        return KVT_ERR_DIM;
    if (n_tokens == 0)
        return KVT_OK;
    if (!block)
        return KVT_ERR_NULL;
    if (first_in_block > block_tokens || n_tokens > block_tokens - first_in_block)
        return KVT_ERR_RANGE;
    return kvt_check_pages(pages, layout->page_bytes, first_token, n_tokens);
}

/* Tokens of a block from a call's first on: what is kept apart. */
typedef struct v4_rows {
    const uint8_t *numbers, *scales;
} v4_rows;

/* As a row of KVT_ROW_deepseek_v4. */
static const uint8_t *v4_latent(const void *context, size_t i, uint8_t gathered[KVT_MAX_GATHERED])
{
    const v4_rows *rows = context;
    memcpy(gathered, rows->numbers + i * V4_NUMBERS, V4_LATENT);
    memcpy(gathered + V4_LATENT, rows->scales + i * V4_TAIL, V4_SCALES);
    return gathered;
}

static kvt_matrix v4_ropes(const void *context, size_t first, uint32_t n, float *buffer)
{
    (void)n;
    (void)buffer;
    const v4_rows *rows = context;
    return (kvt_matrix){ rows->numbers + first * V4_NUMBERS + V4_LATENT, KVT_BF16, V4_NUMBERS };
}

kvt_status kvt_deepseek_v4_in(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *block,
                              size_t block_tokens, size_t first_in_block)
{
    latent_call c;
    kvt_status status = check_v4(&c, layout, pages, first_token, n_tokens, block, block_tokens, first_in_block);
    if (!status && n_tokens > 0)
        status = kvt_transfer_check_centre(&c.latent, first_token);
    if (!status && n_tokens > 0)
        status = kvt_transfer_check_centre(&c.rope, first_token);
    if (status || n_tokens == 0)
        return status;
    const uint8_t *numbers = block;
    const v4_rows rows = { numbers + first_in_block * V4_NUMBERS, numbers + block_tokens * V4_NUMBERS + first_in_block * V4_TAIL };
    kvt_convert_gathered_in(&c.latent, first_token, n_tokens, KVT_ROW_deepseek_v4, v4_latent, &rows);
    kvt_write_made(&c.rope, first_token, n_tokens, v4_ropes, &rows);
    return KVT_OK;
}

kvt_status kvt_deepseek_v4_out(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, void *block,
                               size_t block_tokens, size_t first_in_block)
{
    latent_call c;
    kvt_status status = check_v4(&c, layout, pages, first_token, n_tokens, block, block_tokens, first_in_block);
    for (size_t done = 0; done < n_tokens && !status;) {
        const size_t token = first_token + done, at = first_in_block + done;
        const uint32_t n = kvt_tile_of(&c.latent, token, n_tokens - done).count;
        uint8_t *numbers = (uint8_t *)block + at * V4_NUMBERS, *scales = (uint8_t *)block + block_tokens * V4_NUMBERS + at * V4_TAIL;
        uint8_t rows[KVT_TILE_TOKENS][V4_LATENT + V4_SCALES];
        status = kvt_convert_out(layout, KVT_LATENT, pages, token, n, KVT_ROW_deepseek_v4, rows, sizeof rows[0], NULL);
        for (uint32_t i = 0; i < n && !status; i++) {
            memcpy(numbers + (size_t)i * V4_NUMBERS, rows[i], V4_LATENT);
            memcpy(scales + (size_t)i * V4_TAIL, rows[i] + V4_LATENT, V4_SCALES);
            scales[(size_t)i * V4_TAIL + V4_SCALES] = 0;
        }
        if (!status)
            status = kvt_read(layout, KVT_ROPE, pages, token, n, numbers + V4_LATENT, KVT_BF16, V4_NUMBERS);
        done += n;
    }
    return status;
}
