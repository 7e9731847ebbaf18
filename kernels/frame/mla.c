/* The latent cache of MLA: checks the arguments, then hands tiles of tokens to the kernels and to kvt_write and kvt_read. */
#include "kernels/frame/transfer.h"

#include <kvtile/convert.h>
#include <kvtile/mla.h>

/* ---- what calls have in common ---- */

/* Both sides of a latent layout. */
typedef struct latent_call {
    const kvt_layout *layout;
    const kvt_pages *pages;
    const kvt_mla_kernels *kernels;
    kvt_transfer latent, rope;
} latent_call;

/* Errors: NULL, STRUCT_SIZE, LAYOUT, SIDE. */
static kvt_status begin(latent_call *c, const kvt_layout *layout, const kvt_pages *pages)
{
    kvt_status status = kvt_transfer_begin(&c->latent, layout, KVT_LATENT, pages);
    if (!status)
        status = kvt_transfer_begin(&c->rope, layout, KVT_ROPE, pages);
    if (status)
        return status;
    c->layout = layout;
    c->pages = pages;
    c->kernels = c->latent.tier->mla;
    return KVT_OK;
}

/* Errors: NULL, DTYPE. */
static kvt_status check_matrix(const kvt_matrix *m)
{
    if (!m->numbers)
        return KVT_ERR_NULL;
    return kvt_dtype_bytes(m->dtype) ? KVT_OK : KVT_ERR_DTYPE;
}

static kvt_matrix rows_from(const kvt_matrix *m, size_t first)
{
    return (kvt_matrix){ (const uint8_t *)m->numbers + (ptrdiff_t)first * m->row_stride, m->dtype, m->row_stride };
}

/* ---- in ---- */

/* Errors: NULL, STRUCT_SIZE, DIM, DTYPE, OPTIONS, NUMBER, STRIDE. */
static kvt_status check_rows(const latent_call *c, const kvt_mla_rows *r, size_t n_tokens)
{
    if (!r)
        return KVT_ERR_NULL;
    if (r->size != sizeof *r)
        return KVT_ERR_STRUCT_SIZE;
    kvt_status status = check_matrix(&r->rows);
    if (!status && r->down.numbers)
        status = check_matrix(&r->down);
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

/* Numbers `from` .. from + dim - 1 of the rows of n tokens from `first` on: where they are, or `made`, of `down`. */
static kvt_matrix rows_of(const latent_call *c, const kvt_mla_rows *r, size_t first, uint32_t n, uint32_t from, uint32_t dim, float *made)
{
    const kvt_matrix rows = rows_from(&r->rows, first);
    if (!r->down.numbers)
        return (kvt_matrix){ (const uint8_t *)rows.numbers + from * kvt_dtype_bytes(rows.dtype), rows.dtype, rows.row_stride };
    const kvt_matrix down = rows_from(&r->down, from);
    c->kernels->project(made, dim, &rows, n, &down, dim, r->hidden_dim);
    return (kvt_matrix){ made, KVT_F32, (ptrdiff_t)(dim * sizeof *made) };
}

static const uint8_t *row_at(const kvt_matrix *m, uint32_t i)
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
static kvt_matrix latents_of(const void *of, size_t first, uint32_t n, float *made)
{
    const write_call *w = of;
    const latent_call *c = w->c;
    const kvt_mla_rows *r = w->rows;
    const uint32_t dim = c->latent.side->dim;
    const kvt_matrix rows = rows_of(c, r, first, n, 0, dim, made);
    if (!r->norm)
        return rows;
    for (uint32_t i = 0; i < n; i++)
        c->kernels->normalise(made + (size_t)i * dim, row_at(&rows, i), rows.dtype, dim, w->weights, r->norm_epsilon);
    return (kvt_matrix){ made, KVT_F32, (ptrdiff_t)(dim * sizeof *made) };
}

/* And their rotary parts. */
static kvt_matrix ropes_of(const void *of, size_t first, uint32_t n, float *made)
{
    const write_call *w = of;
    const latent_call *c = w->c;
    const kvt_mla_rows *r = w->rows;
    const uint32_t dim = c->rope.side->dim, pairs = dim / 2;
    const kvt_matrix rows = rows_of(c, r, first, n, c->latent.side->dim, dim, made);
    if (!r->rope_pairs)
        return rows;
    for (uint32_t i = 0; i < n; i++) {
        float *row = made + (size_t)i * dim;
        if (!r->down.numbers)
            c->kernels->widen(row, row_at(&rows, i), rows.dtype, dim);
        c->kernels->rotate(row, dim, r->rope_pairs == KVT_ROPE_PAIRS_NEIGHBOURS, r->rope_cos + (first + i) * pairs,
                           r->rope_sin + (first + i) * pairs);
    }
    return (kvt_matrix){ made, KVT_F32, (ptrdiff_t)(dim * sizeof *made) };
}

kvt_status kvt_mla_write(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const kvt_mla_rows *r)
{
    latent_call c;
    kvt_status status = begin(&c, layout, pages);
    if (!status)
        status = check_rows(&c, r, n_tokens);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check_pages(&c.latent, first_token, n_tokens);
    if (!status)
        status = kvt_transfer_check_centre(&c.latent, first_token);
    if (!status)
        status = kvt_transfer_check_centre(&c.rope, first_token);
    if (status)
        return status;
    float weights[KVT_MAX_DIM];
    if (r->norm)
        c.kernels->widen(weights, r->norm, r->norm_dtype, c.latent.side->dim);
    const write_call call = { &c, r, weights };
    status = kvt_write_made(layout, KVT_LATENT, pages, first_token, n_tokens, latents_of, &call);
    return status ? status : kvt_write_made(layout, KVT_ROPE, pages, first_token, n_tokens, ropes_of, &call);
}

/* ---- out ---- */

/* Errors: NULL, STRUCT_SIZE, HEADS, DIM, DTYPE, STRIDE. */
static kvt_status check_expansion(const latent_call *c, const kvt_mla_expansion *e, size_t n_tokens)
{
    if (!e)
        return KVT_ERR_NULL;
    if (e->size != sizeof *e)
        return KVT_ERR_STRUCT_SIZE;
    if (e->heads < 1 || e->heads > KVT_MAX_HEADS)
        return KVT_ERR_HEADS;
    const size_t element = kvt_dtype_bytes(e->dtype);
    if (!element)
        return KVT_ERR_DTYPE;
    kvt_status status = KVT_OK;
    if (e->k) {
        status = check_matrix(&e->k_up);
        if (!status && (e->nope_dim < 1 || e->nope_dim > KVT_MAX_DIM))
            status = KVT_ERR_DIM;
        if (!status && !kvt_grid_is_apart(n_tokens, e->heads, (e->nope_dim + c->rope.side->dim) * element, e->k_token_stride, e->k_head_stride))
            status = KVT_ERR_STRIDE;
    }
    if (!status && e->v) {
        status = check_matrix(&e->v_up);
        if (!status && (e->v_dim < 1 || e->v_dim > KVT_MAX_DIM))
            status = KVT_ERR_DIM;
        if (!status && !kvt_grid_is_apart(n_tokens, e->heads, e->v_dim * element, e->v_token_stride, e->v_head_stride))
            status = KVT_ERR_STRIDE;
    }
    return status;
}

/* Rows of n tokens and all heads, from latents. */
static void expand_side(const latent_call *c, const kvt_mla_expansion *e, const float *latents, uint32_t n, const kvt_matrix *up, ptrdiff_t up_stride,
                        uint32_t dim, uint8_t *to, ptrdiff_t token_stride, ptrdiff_t head_stride)
{
    const uint32_t padded = (dim + KVT_GROUP_CHANNELS - 1) / KVT_GROUP_CHANNELS * KVT_GROUP_CHANNELS, rank = c->latent.side->dim;
    const kvt_matrix x = { latents, KVT_F32, (ptrdiff_t)(rank * sizeof *latents) };
    float made[KVT_TILE_TOKENS * KVT_MAX_DIM];
    for (uint32_t h = 0; h < e->heads; h++) {
        const kvt_matrix w = { (const uint8_t *)up->numbers + (ptrdiff_t)h * up_stride, up->dtype, up->row_stride };
        c->kernels->project(made, padded, &x, n, &w, dim, rank);
        c->latent.tier->stage->restore(made, to + (ptrdiff_t)h * head_stride, token_stride, e->dtype, n, dim, 0, NULL);
    }
}

/* The rotary part of n tokens, behind the other channels of every head's key. */
static kvt_status expand_rope(const latent_call *c, const kvt_mla_expansion *e, size_t token, uint32_t n, uint8_t *to)
{
    const size_t element = kvt_dtype_bytes(e->dtype), bytes = c->rope.side->dim * element;
    to += e->nope_dim * element;
    float rows[KVT_TILE_TOKENS * KVT_MAX_DIM];
    const kvt_status status = kvt_read(c->layout, KVT_ROPE, c->pages, token, n, rows, e->dtype, (ptrdiff_t)bytes);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t h = 0; h < e->heads; h++)
            memcpy(to + (ptrdiff_t)i * e->k_token_stride + (ptrdiff_t)h * e->k_head_stride, (const uint8_t *)rows + i * bytes, bytes);
    return status;
}

kvt_status kvt_mla_expand(const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const kvt_mla_expansion *e)
{
    latent_call c;
    kvt_status status = begin(&c, layout, pages);
    if (!status)
        status = check_expansion(&c, e, n_tokens);
    if (status || n_tokens == 0)
        return status;
    status = kvt_transfer_check_pages(&c.latent, first_token, n_tokens);
    const uint32_t rank = c.latent.side->dim;
    float latents[KVT_TILE_TOKENS * KVT_MAX_DIM];
    for (size_t done = 0; done < n_tokens && !status;) {
        const size_t token = first_token + done;
        const uint32_t n = kvt_tile_of(&c.latent, token, n_tokens - done).count;
        status = kvt_read(layout, KVT_LATENT, pages, token, n, latents, KVT_F32, (ptrdiff_t)(rank * sizeof *latents));
        if (!status && e->k) {
            uint8_t *to = (uint8_t *)e->k + (ptrdiff_t)done * e->k_token_stride;
            expand_side(&c, e, latents, n, &e->k_up, e->k_up_head_stride, e->nope_dim, to, e->k_token_stride, e->k_head_stride);
            status = expand_rope(&c, e, token, n, to);
        }
        if (!status && e->v)
            expand_side(&c, e, latents, n, &e->v_up, e->v_up_head_stride, e->v_dim, (uint8_t *)e->v + (ptrdiff_t)done * e->v_token_stride,
                        e->v_token_stride, e->v_head_stride);
        done += n;
    }
    return status;
}

/* ---- DeepSeek-V4's blocks ---- */

enum { V4_LATENT = 448, V4_ROPE = 64, V4_SCALES = 7, V4_NUMBERS = V4_LATENT + 2 * V4_ROPE, V4_TAIL = KVT_DEEPSEEK_V4_TOKEN_BYTES - V4_NUMBERS };

/* A tile's rows of KVT_ROW_deepseek_v4. */
typedef uint8_t v4_rows[KVT_TILE_TOKENS][V4_LATENT + V4_SCALES];

/* Errors: NULL, STRUCT_SIZE, LAYOUT, SIDE, DIM, RANGE, STRIDE. */
static kvt_status check_v4(latent_call *c, const kvt_layout *layout, const kvt_pages *pages, size_t first_token, size_t n_tokens, const void *block,
                           size_t block_tokens, size_t first_in_block)
{
    const kvt_status status = begin(c, layout, pages);
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
    return kvt_transfer_check_pages(&c->latent, first_token, n_tokens);
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
    for (size_t done = 0; done < n_tokens && !status;) {
        const size_t token = first_token + done, at = first_in_block + done;
        const uint32_t n = kvt_tile_of(&c.latent, token, n_tokens - done).count;
        const uint8_t *numbers = (const uint8_t *)block + at * V4_NUMBERS,
                      *scales = (const uint8_t *)block + block_tokens * V4_NUMBERS + at * V4_TAIL;
        v4_rows rows;
        for (uint32_t i = 0; i < n; i++) {
            memcpy(rows[i], numbers + (size_t)i * V4_NUMBERS, V4_LATENT);
            memcpy(rows[i] + V4_LATENT, scales + (size_t)i * V4_TAIL, V4_SCALES);
        }
        status = kvt_convert_in(layout, KVT_LATENT, pages, token, n, KVT_ROW_deepseek_v4, rows, sizeof rows[0], NULL);
        if (!status)
            status = kvt_write(layout, KVT_ROPE, pages, token, n, numbers + V4_LATENT, KVT_BF16, V4_NUMBERS);
        done += n;
    }
    return status;
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
        v4_rows rows;
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
