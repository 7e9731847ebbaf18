/* SPDX-License-Identifier: MIT */
/* kvtile eval --latent: latent caches in every format, and what a latent of keys and values costs in the first place. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/eval/head.h"

#include <kvtile/convert.h>

#if defined(KVT_LAPACKE)
#include <lapacke.h>
#endif
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- formats ---- */

/* A latent of another engine: its format, and that of the rotary part behind it, which is bf16 where it has none of its own. */
typedef struct peer {
    const char *name;
    kvt_row_format latent;
    kvt_row_format rope;   /* 0: bf16 */
    uint32_t row_multiple; /* what a row's bytes are rounded up to */
} peer;

static const peer PEERS[] = {
    { "FlashMLA", KVT_ROW_deepseek_fp8, 0, 1 },
    { "DeepSeek-V4", KVT_ROW_deepseek_v4, 0, 8 }, /* 7 scales take 8 bytes */
    { "ggml q8_0", KVT_ROW_ggml_q8_0, KVT_ROW_ggml_q8_0, 1 },
    { "ggml q4_0", KVT_ROW_ggml_q4_0, KVT_ROW_ggml_q4_0, 1 },
};
enum { N_PEERS = sizeof PEERS / sizeof *PEERS };

/* One format of the table: a way, or a peer, of latents of some rank; or a way of the keys and values themselves. */
typedef struct format {
    const eval_way *way; /* NULL: a peer */
    const peer *p;
    kvt_scheme rope;
    size_t rank; /* of a latent made here; 0: of no such latent */
    kvt_layout layout;
    eval_divergence sums;
    uint64_t bytes, numbers; /* of 64 tokens, of all layers */
    double latent_signal, latent_error, rope_signal, rope_error;
} format;

typedef struct name {
    char text[40];
} name;

static name format_name(const format *fmt)
{
    name n;
    const kvt_scheme_info *rope = fmt->layout.rope.dim ? kvt_scheme_get(fmt->rope) : NULL;
    snprintf(n.text, sizeof n.text, "%s%s%s", fmt->way ? eval_way_name(fmt->way) : fmt->p->name, fmt->way && rope ? "+" : "",
             fmt->way && rope ? rope->name : "");
    return n;
}

/* ---- rows there and back ---- */

/* Rows of `dim` numbers, `stride` numbers apart. */
typedef struct rows {
    const float *from;
    float *back;
    size_t tokens, stride;
    uint32_t dim;
} rows;

static kvt_status through_side(const format *fmt, kvt_side side, const kvt_pages *pages, const rows *r)
{
    const ptrdiff_t stride = (ptrdiff_t)(r->stride * sizeof(float));
    const kvt_status status = kvt_write(&fmt->layout, side, pages, 0, r->tokens, r->from, KVT_F32, stride);
    return status != KVT_OK ? status : kvt_read(&fmt->layout, side, pages, 0, r->tokens, r->back, KVT_F32, stride);
}

static kvt_status through_row_format(kvt_row_format rows_of, void *encoded, const rows *r)
{
    const ptrdiff_t stride = (ptrdiff_t)(r->stride * sizeof(float)), bytes = (ptrdiff_t)kvt_row_format_bytes(rows_of, r->dim);
    const kvt_status status = kvt_rows_encode(rows_of, r->dim, r->tokens, r->from, KVT_F32, stride, encoded, bytes, NULL);
    return status != KVT_OK ? status : kvt_rows_decode(rows_of, r->dim, r->tokens, encoded, bytes, r->back, KVT_F32, stride, NULL);
}

/* Latents, and rotary parts where rope->dim is not 0. */
static kvt_status through(const format *fmt, void *memory, const rows *latent, const rows *rope)
{
    if (fmt->way) {
        kvt_pages pages;
        kvt_status status = kvt_head_pages(&fmt->layout, memory, latent->tokens, 0, &pages);
        if (status == KVT_OK)
            status = through_side(fmt, KVT_LATENT, &pages, latent);
        if (status == KVT_OK && rope->dim)
            status = through_side(fmt, KVT_ROPE, &pages, rope);
        return status;
    }
    const kvt_status status = through_row_format(fmt->p->latent, memory, latent);
    if (status != KVT_OK || !rope->dim)
        return status;
    if (fmt->p->rope)
        return through_row_format(fmt->p->rope, memory, rope);
    /* A page of bf16 rounds as FlashMLA does; its layout is that of the peer. */
    kvt_pages pages;
    const kvt_status no_pages = kvt_head_pages(&fmt->layout, memory, rope->tokens, 0, &pages);
    return no_pages != KVT_OK ? no_pages : through_side(fmt, KVT_ROPE, &pages, rope);
}

static size_t peer_bytes(const peer *p, uint32_t dim, uint32_t rope_dim)
{
    const size_t latent = kvt_row_format_bytes(p->latent, dim), rope = p->rope ? kvt_row_format_bytes(p->rope, rope_dim) : 2 * (size_t)rope_dim;
    return (latent + (rope_dim ? rope : 0) + p->row_multiple - 1) / p->row_multiple * p->row_multiple;
}

/* Of latents: energy of deviations from the mean of all tokens but 0, and of errors; both of tokens from `first` on. */
static void add_errors(double *signal, double *error, const rows *r, size_t first)
{
    for (uint32_t c = 0; c < r->dim; c++) {
        double mean = 0;
        for (size_t t = 1; t < r->tokens; t++)
            mean += r->from[t * r->stride + c];
        mean /= (double)(r->tokens > 1 ? r->tokens - 1 : 1);
        for (size_t t = first; t < r->tokens; t++) {
            const double x = r->from[t * r->stride + c], difference = r->back[t * r->stride + c] - x;
            *signal += (x - mean) * (x - mean);
            *error += difference * difference;
        }
    }
}

/* ---- a latent of keys and values ---- */

/* Keys and values of a layer's heads side by side, without their mean, and each side divided by its own deviation, so that both count alike. */
typedef struct joint {
    size_t tokens, width;
    double *numbers; /* [token][width] */
    double *mean;    /* [width] */
    double deviation[2];
    double *basis; /* [rank][width], the best first */
    size_t most;   /* ranks that there are */
} joint;

static void joint_free(joint *j)
{
    free(j->numbers);
    free(j->mean);
    free(j->basis);
}

typedef struct place {
    const float *row;
    float *back;
    uint32_t dim, side;
} place;

/* Rows of token t: those of head i / 2, keys and then values. */
static place rows_place(const eval_head *heads, uint32_t i, size_t t)
{
    const eval_head *head = &heads[i / 2];
    const uint32_t dim = i % 2 ? head->v_dim : head->k_dim;
    return (place){ (i % 2 ? head->v : head->k) + t * dim, (i % 2 ? head->back_v : head->back_k) + t * dim, dim, i % 2 };
}

static void fill_joint(joint *j, const eval_head *heads, uint32_t n_heads, size_t n_basis)
{
    double energy[2] = { 0, 0 };
    for (size_t t = 0; t < j->tokens; t++) {
        double *to = j->numbers + t * j->width;
        for (uint32_t i = 0; i < 2 * n_heads; i++) {
            const place at = rows_place(heads, i, t);
            for (uint32_t c = 0; c < at.dim; c++)
                *to++ = at.row[c];
        }
    }
    for (size_t c = 0; c < j->width; c++) {
        j->mean[c] = 0;
        for (size_t t = 0; t < n_basis; t++)
            j->mean[c] += j->numbers[t * j->width + c] / (double)n_basis;
    }
    for (size_t t = 0; t < j->tokens; t++) {
        double *at = j->numbers + t * j->width;
        const double *mean = j->mean;
        for (uint32_t i = 0; i < 2 * n_heads; i++)
            for (uint32_t c = 0; c < rows_place(heads, i, t).dim; c++, at++) {
                *at -= *mean++;
                energy[i % 2] += t < n_basis ? *at * *at : 0;
            }
    }
    for (int side = 0; side < 2; side++)
        j->deviation[side] = energy[side] > 0 ? sqrt(energy[side]) : 1;
    for (size_t t = 0; t < j->tokens; t++) {
        double *at = j->numbers + t * j->width;
        for (uint32_t i = 0; i < 2 * n_heads; i++)
            for (uint32_t c = 0; c < rows_place(heads, i, t).dim; c++)
                *at++ /= j->deviation[i % 2];
    }
}

/* Right singular vectors of m rows of n numbers, which are lost, to `basis`. 0, or -1 with the error. */
static int decompose(double *matrix, size_t m, size_t n, size_t most, double *values, double *left, double *basis, error_text *error)
{
#if defined(KVT_LAPACKE)
    const lapack_int failed = LAPACKE_dgesdd(LAPACK_ROW_MAJOR, 'S', (lapack_int)m, (lapack_int)n, matrix, (lapack_int)n, values, left,
                                             (lapack_int)most, basis, (lapack_int)n);
    return failed == 0 ? 0 : error_set(error, "has no singular value decomposition: LAPACKE_dgesdd returned %d", (int)failed);
#else
    (void)matrix, (void)m, (void)n, (void)most, (void)values, (void)left, (void)basis;
    return error_set(error, "has no singular value decomposition: this kvtile was built without LAPACKE");
#endif
}

/* The directions of largest energy of the first n_basis tokens: right singular vectors. */
static int find_basis(joint *j, size_t n_basis, error_text *error)
{
    j->most = n_basis < j->width ? n_basis : j->width;
    double *copy = calloc(n_basis * j->width, sizeof *copy), *left = calloc(n_basis * j->most, sizeof *left),
           *values = calloc(j->most, sizeof *values);
    j->basis = calloc(j->most * j->width, sizeof *j->basis);
    int status = 0;
    if (!copy || !left || !values || !j->basis || n_basis > INT32_MAX || j->width > INT32_MAX) {
        status = error_set(error, "has %zu tokens of %zu numbers: more than memory holds", n_basis, j->width);
    } else {
        memcpy(copy, j->numbers, n_basis * j->width * sizeof *copy);
        status = decompose(copy, n_basis, j->width, j->most, values, left, j->basis, error);
    }
    free(copy);
    free(left);
    free(values);
    return status;
}

static int joint_make(joint *j, const eval_head *heads, uint32_t n_heads, size_t n_basis, error_text *error)
{
    *j = (joint){ .tokens = heads->tokens, .width = (size_t)n_heads * (heads->k_dim + heads->v_dim) };
    size_t n;
    j->mean = calloc(j->width, sizeof *j->mean);
    j->numbers = __builtin_mul_overflow(j->tokens, j->width, &n) ? NULL : calloc(n, sizeof *j->numbers);
    if (!j->mean || !j->numbers)
        return error_set(error, "has %zu tokens of %zu numbers: more than memory holds", j->tokens, j->width);
    fill_joint(j, heads, n_heads, n_basis);
    return find_basis(j, n_basis, error);
}

static void make_latents(const joint *j, size_t rank, float *latents)
{
    for (size_t t = 0; t < j->tokens; t++)
        for (size_t r = 0; r < rank; r++) {
            const double *row = j->numbers + t * j->width, *axis = j->basis + r * j->width;
            double sum = 0;
            for (size_t c = 0; c < j->width; c++)
                sum += row[c] * axis[c];
            latents[t * rank + r] = (float)(sum * j->deviation[0]);
        }
}

/* Latents to the heads' back_k and back_v; `row` is scratch. */
static void expand_latents(const joint *j, size_t rank, const float *latents, const eval_head *heads, uint32_t n_heads, double *row)
{
    for (size_t t = 0; t < j->tokens; t++) {
        memset(row, 0, j->width * sizeof *row);
        for (size_t r = 0; r < rank; r++) {
            const double *axis = j->basis + r * j->width, x = latents[t * rank + r] / j->deviation[0];
            for (size_t c = 0; c < j->width; c++)
                row[c] += x * axis[c];
        }
        const double *from = row, *mean = j->mean;
        for (uint32_t i = 0; i < 2 * n_heads; i++) {
            const place at = rows_place(heads, i, t);
            for (uint32_t c = 0; c < at.dim; c++)
                at.back[c] = (float)(*from++ * j->deviation[at.side] + *mean++);
        }
    }
}

/* ---- a layer ---- */

/* Tokens that a basis is made from: those that are not measured, where there are some. */
static size_t basis_tokens(const eval_latent_options *options, size_t tokens)
{
    return options->from > 0 ? options->from : tokens;
}

/* What a layer's formats are measured with. */
typedef struct layer_work {
    const eval_latent_options *options;
    eval_head *heads;
    uint32_t n_heads;
    size_t first; /* token whose error counts */
    void *memory;
} layer_work;

static void compare_heads(const layer_work *work, eval_divergence *sums)
{
    for (uint32_t h = 0; h < work->n_heads; h++) {
        const eval_head *head = &work->heads[h];
        for (size_t i = 0; i < head->positions; i++)
            for (uint32_t g = 0; g < head->group; g++)
                eval_head_compare(sums, head, i, g, NULL);
    }
}

static int cannot(error_text *error, const format *fmt, kvt_status status)
{
    return error_set(error, "cannot be stored as %s: %s", format_name(fmt).text, kvt_status_text(status));
}

/* Keys and values of each head as they are. */
static int measure_direct(format *fmt, const layer_work *work, error_text *error)
{
    for (uint32_t h = 0; h < work->n_heads; h++) {
        const eval_head *head = &work->heads[h];
        const rows r[2] = { { head->k, head->back_k, head->tokens, head->k_dim, head->k_dim },
                            { head->v, head->back_v, head->tokens, head->v_dim, head->v_dim } };
        kvt_pages pages;
        kvt_status status = kvt_head_pages(&fmt->layout, work->memory, head->tokens, 0, &pages);
        for (kvt_side side = KVT_K; status == KVT_OK && side <= KVT_V; side++)
            status = through_side(fmt, side, &pages, &r[side]);
        if (status != KVT_OK)
            return cannot(error, fmt, status);
    }
    fmt->bytes += fmt->layout.page_bytes * work->n_heads;
    return 0;
}

static int measure_rank(format *fmt, const layer_work *work, const joint *j, const float *latents, float *back, double *row, error_text *error)
{
    const rows latent = { latents, back, j->tokens, fmt->rank, (uint32_t)fmt->rank }, none = { 0 };
    const kvt_status status = through(fmt, work->memory, &latent, &none);
    if (status != KVT_OK)
        return cannot(error, fmt, status);
    add_errors(&fmt->latent_signal, &fmt->latent_error, &latent, work->first);
    expand_latents(j, fmt->rank, back, work->heads, work->n_heads, row);
    fmt->bytes += fmt->way ? fmt->layout.page_bytes : peer_bytes(fmt->p, (uint32_t)fmt->rank, 0) * KVT_PAGE_TOKENS;
    return 0;
}

/* Formats of one rank follow each other: latents are made once for all of them. */
static int measure_joint(format *formats, size_t n, const layer_work *work, const char *layer, error_text *error)
{
    const size_t n_basis = basis_tokens(work->options, work->heads->tokens);
    joint j;
    int status = joint_make(&j, work->heads, work->n_heads, n_basis, error);
    float *latents = calloc(j.tokens * KVT_MAX_DIM, sizeof *latents), *back = calloc(j.tokens * KVT_MAX_DIM, sizeof *back);
    double *row = calloc(j.width, sizeof *row);
    if (status == 0 && (!latents || !back || !row))
        status = error_set(error, "has %zu tokens: more than memory holds", j.tokens);
    size_t count = 0;
    for (size_t i = 0; status == 0 && i < n; i++) {
        format *fmt = &formats[i];
        progress_show(work->options->progress, layer, i, n, format_name(fmt).text);
        if (fmt->rank > j.most) {
            status = error_set(error, "--rank %zu is more than the %zu that %zu tokens of %zu numbers have", fmt->rank, j.most, n_basis, j.width);
            break;
        }
        if (fmt->rank != 0 && fmt->rank != count)
            make_latents(&j, count = fmt->rank, latents);
        status = fmt->rank ? measure_rank(fmt, work, &j, latents, back, row, error) : measure_direct(fmt, work, error);
        fmt->numbers += j.width * KVT_PAGE_TOKENS;
        if (status == 0)
            compare_heads(work, &fmt->sums);
    }
    free(latents);
    free(back);
    free(row);
    joint_free(&j);
    return status;
}

/* Rows are latents already, and their rotary parts behind them: keys of one head, and values without those. */
static int measure_latents(format *formats, size_t n, const layer_work *work, const char *layer, error_text *error)
{
    const eval_head *head = work->heads;
    const rows latent = { head->k, head->back_k, head->tokens, head->k_dim, head->v_dim };
    const rows rope = { head->k + head->v_dim, head->back_k + head->v_dim, head->tokens, head->k_dim, head->k_dim - head->v_dim };
    for (size_t i = 0; i < n; i++) {
        format *fmt = &formats[i];
        progress_show(work->options->progress, layer, i, n, format_name(fmt).text);
        const kvt_status status = through(fmt, work->memory, &latent, &rope);
        if (status != KVT_OK)
            return cannot(error, fmt, status);
        for (size_t t = 0; t < head->tokens; t++)
            memcpy(head->back_v + t * head->v_dim, head->back_k + t * head->k_dim, head->v_dim * sizeof(float));
        add_errors(&fmt->latent_signal, &fmt->latent_error, &latent, work->first);
        add_errors(&fmt->rope_signal, &fmt->rope_error, &rope, work->first);
        fmt->bytes += fmt->way ? fmt->layout.page_bytes : peer_bytes(fmt->p, latent.dim, rope.dim) * KVT_PAGE_TOKENS;
        fmt->numbers += (uint64_t)head->k_dim * KVT_PAGE_TOKENS;
        compare_heads(work, &fmt->sums);
    }
    return 0;
}

static int check_layer(const eval_layer *layer, const eval_latent_options *options, error_text *error)
{
    const rows_tensor *k = layer->k, *v = layer->v;
    if (!v && k->heads != 1)
        return error_set(error, "has %u heads: latents are of all heads, 1 would be right; or values beside keys", k->heads);
    if (!v && options->rope_dim >= k->dim)
        return error_set(error, "has rows of %u numbers: --rope-dim %u leaves no latent", k->dim, options->rope_dim);
    if (v && options->rope_dim > 0)
        return error_set(error, "has values: --rope-dim %u is of latents, and those that are made of keys and values have no rotary part",
                         options->rope_dim);
    if (!v && options->n_ranks > 0)
        return error_set(error, "--rank makes latents of keys and values, and there are no values");
    const eval_layer attended = { layer->name, k, v ? v : k, layer->q };
    return eval_check_layer(&attended, options->from, error);
}

static int load_heads(const layer_work *work, const eval_layer *layer, error_text *error)
{
    for (uint32_t h = 0; h < work->n_heads; h++) {
        eval_head *this_head = &work->heads[h];
        rows_head_to_f32(layer->k, h, this_head->k);
        if (layer->v)
            rows_head_to_f32(layer->v, h, this_head->v);
        else
            for (size_t t = 0; t < this_head->tokens; t++)
                memcpy(this_head->v + t * this_head->v_dim, this_head->k + t * this_head->k_dim, this_head->v_dim * sizeof(float));
        eval_head_load_queries(this_head, layer->q, h * this_head->group, work->options->from);
        if (!eval_head_is_finite(this_head))
            return error_set(error, "has a NaN or an infinity in head %u: what attention makes of it cannot be compared", h);
        eval_head_find_truth(this_head);
    }
    return 0;
}

static int set_format_layout(format *fmt, const eval_layer *layer, const eval_latent_options *options, size_t *memory_bytes, error_text *error)
{
    const uint32_t dim = fmt->rank ? (uint32_t)fmt->rank : layer->k->dim - options->rope_dim;
    kvt_spec spec = { .size = sizeof spec,
                      .k_scheme = fmt->way ? fmt->way->scheme->scheme : KVT_SCHEME_bf16,
                      .rope_scheme = fmt->rope,
                      .k_dim = dim,
                      .rope_dim = fmt->rank ? 0 : options->rope_dim,
                      .kv_heads = 1,
                      .tiers = options->tiers };
    if (fmt->way)
        spec.k_options = fmt->way->options;
    if (layer->v && !fmt->rank) {
        spec.v_scheme = spec.k_scheme;
        spec.v_dim = layer->v->dim;
        spec.v_options = spec.k_options;
    }
    kvt_status status = kvt_layout_init(&fmt->layout, &spec);
    size_t bytes = 0;
    if (status == KVT_OK)
        status = kvt_layout_bytes(&fmt->layout, layer->k->tokens, &bytes);
    if (status != KVT_OK)
        return cannot(error, fmt, status);
    if (!fmt->way) /* peers' rows are not more than those of f32 */
        bytes += layer->k->tokens * (peer_bytes(fmt->p, dim, spec.rope_dim) + 64) + 63;
    bytes -= bytes % 64;
    *memory_bytes = bytes > *memory_bytes ? bytes : *memory_bytes;
    return 0;
}

static int measure_layer_formats(format *formats, size_t n, const eval_layer *layer, const eval_latent_options *options, error_text *error)
{
    if (check_layer(layer, options, error) != 0)
        return -1;
    size_t memory_bytes = 64;
    for (size_t i = 0; i < n; i++)
        if (set_format_layout(&formats[i], layer, options, &memory_bytes, error) != 0)
            return -1;
    const rows_tensor *k = layer->k;
    const size_t left = k->tokens - options->from;
    layer_work work = { .options = options,
                        .heads = calloc(k->heads, sizeof *work.heads),
                        .n_heads = k->heads,
                        .first = options->from > 1 ? options->from : 1,
                        .memory = aligned_alloc(64, memory_bytes) };
    bool is_made = work.heads && work.memory;
    for (uint32_t h = 0; is_made && h < k->heads; h++) {
        work.heads[h] = (eval_head){ .tokens = k->tokens,
                                     .positions = options->queries < left ? options->queries : left,
                                     .k_dim = k->dim,
                                     .v_dim = layer->v ? layer->v->dim : k->dim - options->rope_dim,
                                     .group = layer->q ? layer->q->heads / k->heads : 1,
                                     .scale = options->scale != 0 ? options->scale : 1 / sqrt((double)k->dim) };
        is_made = eval_head_make(&work.heads[h]) == 0;
    }
    int status = is_made ? load_heads(&work, layer, error) : error_set(error, "has %zu tokens: more than memory holds", k->tokens);
    if (status == 0)
        status = layer->v ? measure_joint(formats, n, &work, layer->name, error) : measure_latents(formats, n, &work, layer->name, error);
    progress_end(options->progress);
    for (uint32_t h = 0; work.heads && h < k->heads; h++)
        eval_head_free(&work.heads[h]);
    free(work.heads);
    free(work.memory);
    return status;
}

/* ---- which formats ---- */

static void add_ways(format *formats, size_t *n, const eval_ways *ways, uint32_t dim, kvt_scheme rope, size_t rank)
{
    for (size_t i = 0; i < ways->n; i++) {
        bool is_new = true;
        for (size_t j = 0; j < i && is_new; j++)
            is_new = !eval_same_way(&ways->ways[i], &ways->ways[j], (dim + 15) / 16 * 16);
        if (is_new)
            formats[(*n)++] = (format){ .way = &ways->ways[i], .rope = rope, .rank = rank };
    }
}

static void add_peers(format *formats, size_t *n, size_t rank)
{
    for (size_t i = 0; i < N_PEERS; i++)
        formats[(*n)++] = (format){ .p = &PEERS[i], .rope = KVT_SCHEME_bf16, .rank = rank };
}

/* Returns how many; at most (ranks + 1 or schemes of rotary parts) * (ways + peers). */
static size_t choose_formats(format *formats, const eval_layer *layer, const eval_ways *ways, const eval_latent_options *options)
{
    size_t n = 0;
    if (layer->v) {
        add_ways(formats, &n, ways, layer->k->dim, KVT_SCHEME_bf16, 0);
        for (size_t i = 0; i < options->n_ranks; i++) {
            add_ways(formats, &n, ways, options->ranks[i], KVT_SCHEME_bf16, options->ranks[i]);
            add_peers(formats, &n, options->ranks[i]);
        }
        return n;
    }
    for (size_t i = 0; i < (options->rope_dim ? options->n_rope_schemes : 1); i++)
        add_ways(formats, &n, ways, layer->k->dim - options->rope_dim, options->rope_schemes[i], 0);
    add_peers(formats, &n, 0);
    return n;
}

/* ---- reports ---- */

static double format_bytes(const format *fmt)
{
    return (double)fmt->bytes / KVT_PAGE_TOKENS;
}
static double format_bits(const format *fmt)
{
    return 8.0 * (double)fmt->bytes / (double)fmt->numbers;
}

static int most_bytes_first(const void *a, const void *b)
{
    const format *fmt = a, *other = b;
    if (fmt->bytes != other->bytes)
        return fmt->bytes > other->bytes ? -1 : 1;
    if (fmt->sums.lost != other->sums.lost)
        return fmt->sums.lost < other->sums.lost ? -1 : 1;
    return fmt->sums.error < other->sums.error ? -1 : fmt->sums.error > other->sums.error;
}

/* In dB. */
static double signal_to_noise(double signal, double error)
{
    return signal > 0 && error > 0 ? 10 * log10(signal / error) : (double)NAN;
}

/* Of what is left, where nothing was lost. */
static double latent_decibels(const format *fmt)
{
    return fmt->sums.lost == 0 ? signal_to_noise(fmt->latent_signal, fmt->latent_error) : (double)NAN;
}
static double rope_decibels(const format *fmt)
{
    return fmt->sums.lost == 0 ? signal_to_noise(fmt->rope_signal, fmt->rope_error) : (double)NAN;
}

static void print_formats(const format *formats, size_t n, bool has_ranks)
{
    printf("  %-13s %-4s %-8s %-8s %-8s %8s %6s %9s %7s %9s %8s %8s\n", "format", has_ranks ? "rank" : "", "rotation", "centring", "detail",
           "B/token", "bits", "latent dB", "rope dB", "KL mean", "same top", "error %");
    for (size_t i = 0; i < n; i++) {
        const format *fmt = &formats[i];
        const eval_divergence *sums = &fmt->sums;
        printf("  %-13s %-4s %-8s %-8s %-8s %8s %6.3f %9s %7s %9s %8s %8s\n", format_name(fmt).text,
               fmt->rank   ? eval_number("%.0f", (double)fmt->rank, 0).text
               : has_ranks ? "-"
                           : "",
               fmt->way ? eval_rotation_name(fmt->way) : "-", fmt->way ? eval_centring_name(fmt->way) : "-",
               fmt->way ? eval_detail_of(fmt->way).text : "-", eval_number("%.1f", format_bytes(fmt), 0).text, format_bits(fmt),
               fmt->latent_signal > 0 ? eval_number("%.2f", latent_decibels(fmt), sums->lost).text : "-",
               fmt->rope_signal > 0 ? eval_number("%.2f", rope_decibels(fmt), sums->lost).text : "-",
               eval_number("%.3g", eval_mean_kl(sums), sums->lost).text, eval_number("%.2f%%", 100 * eval_same_top(sums), sums->lost).text,
               eval_number("%.4f", 100 * eval_output_error(sums), sums->lost).text);
    }
    for (size_t i = 0; i < n; i++)
        eval_say_lost(format_name(&formats[i]).text, formats[i].way, formats[i].sums.lost, formats[i].sums.rows, "query rows");
    putchar('\n');
}

static void append_formats(json_t *array, const format *formats, size_t n, size_t layers, bool has_queries)
{
    for (size_t i = 0; i < n; i++) {
        const format *fmt = &formats[i];
        const eval_divergence *sums = &fmt->sums;
        const eval_way *way = fmt->way;
        json_t *object = json_object();
        json_object_set_new(object, "format", json_string(format_name(fmt).text));
        json_object_set_new(object, "rank", fmt->rank ? json_integer((json_int_t)fmt->rank) : json_null());
        json_object_set_new(object, "scheme", name_or_null(way ? eval_way_name(way) : NULL));
        json_object_set_new(object, "rope_scheme", name_or_null(way && fmt->layout.rope.dim ? kvt_scheme_get(fmt->rope)->name : NULL));
        json_object_set_new(object, "rotation", name_or_null(way ? eval_rotation_name(way) : NULL));
        json_object_set_new(object, "centring", name_or_null(way ? eval_centring_name(way) : NULL));
        json_object_set_new(object, "effort", name_or_null(way ? eval_effort_name(way) : NULL));
        json_object_set_new(object, "fp8_block", name_or_null(way ? eval_fp8_block_name(way) : NULL));
        json_object_set_new(object, "fp8_scale", name_or_null(way ? eval_fp8_scale_name(way) : NULL));
        json_object_set_new(object, "layers", json_integer((json_int_t)layers));
        json_object_set_new(object, "query_rows", json_integer((json_int_t)sums->rows));
        json_object_set_new(object, "lost", json_integer((json_int_t)sums->lost));
        json_object_set_new(object, "real_queries", json_boolean(has_queries));
        json_object_set_new(object, "bytes_per_token", json_real(format_bytes(fmt)));
        json_object_set_new(object, "bits_per_element", json_real(format_bits(fmt)));
        json_object_set_new(object, "latent_snr_db", number_or_null(latent_decibels(fmt)));
        json_object_set_new(object, "rope_snr_db", number_or_null(rope_decibels(fmt)));
        json_object_set_new(object, "kl_mean", number_or_null(eval_mean_kl(sums)));
        json_object_set_new(object, "kl_max", number_or_null(eval_most_kl(sums)));
        json_object_set_new(object, "same_top", number_or_null(eval_same_top(sums)));
        json_object_set_new(object, "output_error", number_or_null(eval_output_error(sums)));
        json_array_append_new(array, object);
    }
}

/* An eighth, a quarter and half of the numbers of a token, to whole groups of channels. */
static void set_default_ranks(eval_latent_options *options, const eval_layer *layer)
{
    const size_t width = (size_t)layer->k->heads * (layer->k->dim + layer->v->dim), tokens = basis_tokens(options, layer->k->tokens);
    for (size_t part = 8; part >= 2; part /= 2) {
        const size_t rank = width / part / 16 * 16;
        if (rank > 0 && rank <= tokens && rank <= KVT_MAX_DIM)
            options->ranks[options->n_ranks++] = (uint32_t)rank;
    }
}

int eval_latent(const eval_layer *layers, size_t n_layers, const eval_ways *ways, const eval_latent_options *given, json_t *array, const char **about,
                error_text *error)
{
    *about = layers[0].name;
    eval_latent_options chosen = *given;
    const eval_latent_options *options = &chosen;
    if (layers[0].v && chosen.n_ranks == 0)
        set_default_ranks(&chosen, &layers[0]);
    format *formats = calloc((options->n_ranks + options->n_rope_schemes + 1) * (ways->n + N_PEERS), sizeof *formats);
    if (formats == NULL)
        return error_set(error, "cannot be evaluated: out of memory");
    const size_t n = choose_formats(formats, &layers[0], ways, options);
    int status = 0;
    for (size_t i = 0; status == 0 && i < n_layers; i++) {
        *about = layers[i].name;
        if (layers[i].k->dim != layers[0].k->dim || (layers[i].v && layers[i].v->dim != layers[0].v->dim))
            status = error_set(error, "has another width than the first layer: the same would be right");
        if (status == 0)
            status = measure_layer_formats(formats, n, &layers[i], options, error);
    }
    const bool has_queries = layers[0].q != NULL;
    if (status == 0)
        qsort(formats, n, sizeof *formats, most_bytes_first);
    if (status == 0 && array != NULL)
        append_formats(array, formats, n, n_layers, has_queries);
    if (status == 0 && options->table) {
        printf("%s in %zu layer%s: %zu rows of %s\n", layers[0].v ? "latents of keys and values" : "latents", n_layers, n_layers == 1 ? "" : "s",
               formats[0].sums.rows, has_queries ? "queries" : "keys that stand for queries, which are not given");
        if (layers[0].v)
            printf("%s\n", options->from > 0 ? "their bases are of the tokens before --from, errors of those from there on"
                                             : "their bases are of the tokens that are measured, which flatters them: see --from");
        print_formats(formats, n, layers[0].v != NULL);
    }
    free(formats);
    return status;
}
