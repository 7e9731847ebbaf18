/* SPDX-License-Identifier: MIT */
/* The latent cache of MLA: rows that are projected, normalised, rotated and stored, against double precision; the same bits on every tier and for
 * every split; keys and values that are made out of latents; absorbed attention against attention to those; sizes; memory; golden hashes; arguments.
 * (Attention to latents as such: test_attend.) */
#include "support.h"

#include <kvtile/attend.h>
#include <kvtile/convert.h>
#include <kvtile/mla.h>

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 150, MOST_PAGES = 3, MOST_RANK = 512, MOST_ROPE = 64, MOST_HIDDEN = 96, MOST_HEADS = 5 };

static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };

/* ---- numbers of every format ---- */

static double number_at(const kvt_matrix *m, size_t row, size_t column)
{
    const size_t bytes = oracle_element_bytes(m->dtype);
    const unsigned char *p = (const unsigned char *)m->numbers + (ptrdiff_t)row * m->row_stride + column * bytes;
    uint32_t bits = oracle_load(p, bytes);
    if (m->dtype != KVT_F32)
        bits = oracle_widen(oracle_row_format(m->dtype), bits);
    float x;
    memcpy(&x, &bits, 4);
    return (double)x;
}

/* Random numbers; the caller frees them. */
static kvt_matrix make_matrix(uint64_t *state, size_t rows, size_t columns, double size)
{
    const kvt_dtype dtype = dtypes[test_below(state, 3)];
    const size_t bytes = oracle_element_bytes(dtype), stride = columns * bytes + 2 * test_below(state, 3);
    unsigned char *numbers = test_malloc(rows * stride + 1);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) {
            const float x = (float)(test_normal(state) * size);
            uint32_t bits;
            memcpy(&bits, &x, 4);
            oracle_store(numbers + r * stride + c * bytes, bytes, dtype == KVT_F32 ? bits : oracle_narrow(oracle_row_format(dtype), bits));
        }
    return (kvt_matrix){ numbers, dtype, (ptrdiff_t)stride };
}

static void free_matrix(const kvt_matrix *m)
{
    void *numbers;
    memcpy(&numbers, &m->numbers, sizeof numbers);
    free(numbers);
}

/* ---- in ---- */

typedef struct rows_case {
    uint32_t rank, rope, hidden;
    size_t tokens;
    kvt_mla_rows rows;
    kvt_matrix norm;
    float cos[MOST_TOKENS * MOST_ROPE / 2], sin[MOST_TOKENS * MOST_ROPE / 2];
} rows_case;

static void make_rows(rows_case *c, uint64_t seed)
{
    static const uint32_t ranks[] = { 16, 24, 40, 128, 512 }, ropes[] = { 2, 16, 30, 64 }, tokens[] = { 1, 2, 5, 16, 17, 70, MOST_TOKENS };
    uint64_t state = seed;
    memset(c, 0, sizeof *c);
    c->rank = ranks[test_below(&state, 5)];
    c->rope = ropes[test_below(&state, 4)];
    c->tokens = tokens[test_below(&state, 7)];
    c->rows.size = sizeof c->rows;
    if (test_below(&state, 2)) {
        c->hidden = 1 + test_below(&state, MOST_HIDDEN);
        c->rows.hidden_dim = c->hidden;
        c->rows.rows = make_matrix(&state, c->tokens, c->hidden, 1);
        c->rows.down = make_matrix(&state, c->rank + c->rope, c->hidden, 0.2);
    } else {
        c->rows.rows = make_matrix(&state, c->tokens, c->rank + c->rope, 3);
    }
    if (test_below(&state, 3)) {
        c->norm = make_matrix(&state, 1, c->rank, 1);
        c->rows.norm = c->norm.numbers;
        c->rows.norm_dtype = c->norm.dtype;
        c->rows.norm_epsilon = 1e-6f;
    }
    c->rows.rope_pairs = (kvt_rope_pairs)test_below(&state, 3);
    for (uint32_t i = 0; i < c->tokens * (c->rope / 2); i++) {
        const double angle = test_normal(&state) * 3;
        c->cos[i] = (float)cos(angle);
        c->sin[i] = (float)sin(angle);
    }
    c->rows.rope_cos = c->cos;
    c->rows.rope_sin = c->sin;
}

static void free_rows(const rows_case *c)
{
    free_matrix(&c->rows.rows);
    free_matrix(&c->rows.down);
    free_matrix(&c->norm);
}

/* Token t's row in double precision, and a number that no step exceeds. */
static double exact_row(const rows_case *c, size_t t, double *row)
{
    double largest = 0, squares = 0;
    for (uint32_t i = 0; i < c->rank + c->rope; i++) {
        row[i] = 0;
        double all = 0;
        for (uint32_t j = 0; j < c->hidden; j++) {
            const double product = number_at(&c->rows.rows, t, j) * number_at(&c->rows.down, i, j);
            row[i] += product;
            all += fabs(product);
        }
        if (c->hidden == 0)
            all = fabs(row[i] = number_at(&c->rows.rows, t, i));
        largest = fmax(largest, all);
        squares += i < c->rank ? row[i] * row[i] : 0;
    }
    for (uint32_t i = 0; c->rows.norm && i < c->rank; i++) {
        const double factor = number_at(&c->norm, 0, i) / sqrt(squares / c->rank + (double)c->rows.norm_epsilon);
        row[i] *= factor;
        largest = fmax(largest, fabs(factor) * largest);
    }
    double *rope = row + c->rank;
    const uint32_t pairs = c->rope / 2, step = c->rows.rope_pairs == KVT_ROPE_PAIRS_NEIGHBOURS ? 2 : 1, apart = step == 2 ? 1 : pairs;
    for (uint32_t i = 0; c->rows.rope_pairs && i < pairs; i++) {
        const double a = rope[i * step], b = rope[i * step + apart], x = (double)c->cos[t * pairs + i], y = (double)c->sin[t * pairs + i];
        rope[i * step] = a * x - b * y;
        rope[i * step + apart] = a * y + b * x;
    }
    return largest;
}

static kvt_layout latent_layout(kvt_scheme latent, kvt_scheme rope_scheme, uint32_t rank, uint32_t rope, kvt_side_options options, uint32_t tiers)
{
    const kvt_spec spec = { .size = sizeof spec,
                            .k_scheme = latent,
                            .k_dim = rank,
                            .kv_heads = 1,
                            .tiers = tiers,
                            .k_options = options,
                            .rope_scheme = rope_scheme,
                            .rope_dim = rope };
    kvt_layout layout;
    if (kvt_layout_init(&layout, &spec) != KVT_OK)
        abort();
    return layout;
}

START_TEST(rows_are_exact)
{
    static rows_case c;
    make_rows(&c, (uint64_t)_i * KVT_TEST_SHARE);
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    unsigned char *first = NULL;
    for (size_t tier = 0; tier < n_tiers; tier++) {
        const kvt_layout layout = latent_layout(KVT_SCHEME_f32, KVT_SCHEME_f32, c.rank, c.rope, (kvt_side_options){ 0 }, tiers[tier].mask);
        const size_t bytes = MOST_PAGES * layout.page_bytes;
        unsigned char *memory = calloc(1, bytes), *by_token = calloc(1, bytes);
        const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = MOST_PAGES };
        ck_assert_int_eq(kvt_mla_write(&layout, &pages, 0, c.tokens, &c.rows), KVT_OK);
        for (size_t t = 0; tier == 0 && t < c.tokens; t++) {
            double want[MOST_RANK + MOST_ROPE];
            const double largest = exact_row(&c, t, want);
            float got[MOST_RANK + MOST_ROPE];
            ck_assert_int_eq(kvt_read(&layout, KVT_LATENT, &pages, t, 1, got, KVT_F32, 0), KVT_OK);
            ck_assert_int_eq(kvt_read(&layout, KVT_ROPE, &pages, t, 1, got + c.rank, KVT_F32, 0), KVT_OK);
            /* sums of up to 512 numbers in lanes of 32: 2^-18 of what they add up */
            for (uint32_t i = 0; i < c.rank + c.rope; i++)
                TEST_REQUIRE(fabs((double)got[i] - want[i]) <= largest * 0x1p-18 + 1e-10, "seed %d, token %zu, channel %u: %g, not %g", _i, t, i,
                             (double)got[i], want[i]);
        }
        if (tier == 0) {
            first = test_malloc(bytes);
            memcpy(first, memory, bytes);
        }
        TEST_REQUIRE(memcmp(first, memory, bytes) == 0, "seed %d: %s differs from %s", _i, tiers[tier].name, tiers[0].name);
        const kvt_pages others = { .base = by_token, .stride = layout.page_bytes, .count = MOST_PAGES };
        for (size_t t = 0, n; t < c.tokens; t += n) { /* one token, then two, ... */
            n = c.tokens - t < 1 + t % 5 ? c.tokens - t : 1 + t % 5;
            kvt_mla_rows some = c.rows;
            some.rows.numbers = (const unsigned char *)c.rows.rows.numbers + (ptrdiff_t)t * c.rows.rows.row_stride;
            some.rope_cos += t * (c.rope / 2);
            some.rope_sin += t * (c.rope / 2);
            ck_assert_int_eq(kvt_mla_write(&layout, &others, t, n, &some), KVT_OK);
        }
        TEST_REQUIRE(memcmp(first, by_token, bytes) == 0, "seed %d, %s: token by token differs", _i, tiers[tier].name);
        free(memory);
        free(by_token);
    }
    free(first);
    free_rows(&c);
}
END_TEST

/* Rows that need nothing done to them are stored as kvt_write stores them: every scheme, rotated and centred. */
START_TEST(plain_rows)
{
    enum { RANK = 128, ROPE = 64, TOKENS = 140, PAGES = 3 };
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i / 2);
    const kvt_side_options options = { .rotation = KVT_ROTATION_64, .centring = _i % 2 ? KVT_CENTRING_OWN : KVT_CENTRING_PAGE };
    const kvt_layout layout = latent_layout(info->scheme, KVT_SCHEME_kv8, RANK, ROPE, options, 0);
    float(*rows)[RANK + ROPE] = test_malloc(TOKENS * sizeof *rows);
    uint64_t state = 3;
    for (size_t i = 0; i < (size_t)TOKENS * (RANK + ROPE); i++)
        rows[i / (RANK + ROPE)][i % (RANK + ROPE)] = (float)test_normal(&state);
    unsigned char *want = calloc(PAGES, layout.page_bytes), *got = calloc(PAGES, layout.page_bytes);
    kvt_pages pages = { .base = want, .stride = layout.page_bytes, .count = PAGES };
    ck_assert_int_eq(kvt_write(&layout, KVT_LATENT, &pages, 0, TOKENS, rows, KVT_F32, sizeof *rows), KVT_OK);
    ck_assert_int_eq(kvt_write(&layout, KVT_ROPE, &pages, 0, TOKENS, &rows[0][RANK], KVT_F32, sizeof *rows), KVT_OK);
    pages.base = got;
    const kvt_mla_rows plain = { .size = sizeof plain, .rows = { rows, KVT_F32, sizeof *rows } };
    ck_assert_int_eq(kvt_mla_write(&layout, &pages, 0, TOKENS, &plain), KVT_OK);
    TEST_REQUIRE(memcmp(want, got, PAGES * layout.page_bytes) == 0, "%s", info->name);
    free(want);
    free(got);
    free(rows);
}
END_TEST

/* ---- out ---- */

typedef struct heads_case {
    kvt_layout layout;
    unsigned char *memory;
    kvt_pages pages;
    size_t tokens;
    uint32_t nope, v, heads;
    kvt_matrix k_up, v_up; /* [head][row] */
} heads_case;

static void make_heads(heads_case *c, uint64_t *state, const kvt_layout *layout, size_t tokens)
{
    c->layout = *layout;
    c->tokens = tokens;
    c->heads = 1 + test_below(state, MOST_HEADS);
    c->nope = 1 + test_below(state, 70);
    c->v = 1 + test_below(state, 70);
    c->k_up = make_matrix(state, (size_t)c->heads * c->nope, layout->k.dim, 0.1);
    c->v_up = make_matrix(state, (size_t)c->heads * c->v, layout->k.dim, 0.1);
    c->memory = calloc(MOST_PAGES, layout->page_bytes);
    c->pages = (kvt_pages){ .base = c->memory, .stride = layout->page_bytes, .count = MOST_PAGES };
    const kvt_matrix rows = make_matrix(state, tokens, layout->k.dim + layout->rope.dim, 1);
    const kvt_mla_rows stored = { .size = sizeof stored, .rows = rows };
    ck_assert_int_eq(kvt_mla_write(&c->layout, &c->pages, 0, tokens, &stored), KVT_OK);
    free_matrix(&rows);
}

static void free_heads(const heads_case *c)
{
    free(c->memory);
    free_matrix(&c->k_up);
    free_matrix(&c->v_up);
}

/* Keys and values of `dtype`, [token][head]. */
static kvt_mla_expansion expansion_of(const heads_case *c, kvt_dtype dtype, void *k, void *v)
{
    const ptrdiff_t element = (ptrdiff_t)oracle_element_bytes(dtype), k_row = (ptrdiff_t)(c->nope + c->layout.rope.dim) * element,
                    v_row = (ptrdiff_t)c->v * element;
    return (kvt_mla_expansion){ .size = sizeof(kvt_mla_expansion),
                                .heads = c->heads,
                                .nope_dim = c->nope,
                                .v_dim = c->v,
                                .k_up = c->k_up,
                                .v_up = c->v_up,
                                .k_up_head_stride = (ptrdiff_t)c->nope * c->k_up.row_stride,
                                .v_up_head_stride = (ptrdiff_t)c->v * c->v_up.row_stride,
                                .dtype = dtype,
                                .k = k,
                                .k_token_stride = k_row * (ptrdiff_t)c->heads,
                                .k_head_stride = k_row,
                                .v = v,
                                .v_token_stride = v_row * (ptrdiff_t)c->heads,
                                .v_head_stride = v_row };
}

static double exact_product(const heads_case *c, const kvt_matrix *up, size_t row, const float *latent, double *all)
{
    double sum = 0;
    *all = 0;
    for (uint32_t j = 0; j < c->layout.k.dim; j++) {
        const double product = number_at(up, row, j) * (double)latent[j];
        sum += product;
        *all += fabs(product);
    }
    return sum;
}

START_TEST(expansion_is_exact)
{
    static const uint32_t ranks[] = { 16, 40, 128, 512 };
    uint64_t state = (uint64_t)_i * KVT_TEST_SHARE + 50;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    const kvt_scheme scheme = kvt_scheme_at(state % test_scheme_count())->scheme;
    const kvt_side_options options = { .rotation = test_below(&state, 2) ? KVT_ROTATION_64 : KVT_ROTATION_NONE };
    kvt_layout layout = latent_layout(scheme, KVT_SCHEME_bf16, ranks[test_below(&state, 4)], 1 + test_below(&state, MOST_ROPE), options, 0);
    heads_case c;
    make_heads(&c, &state, &layout, 1 + test_below(&state, 40));
    const kvt_dtype dtype = dtypes[test_below(&state, 3)];
    const size_t element = oracle_element_bytes(dtype), k_dim = c.nope + layout.rope.dim, rows = c.tokens * c.heads;
    unsigned char *k = test_malloc(rows * k_dim * element), *v = test_malloc(rows * c.v * element), *k_first = test_malloc(rows * k_dim * element),
                  *v_first = test_malloc(rows * c.v * element);
    const kvt_mla_expansion e = expansion_of(&c, dtype, k, v);
    for (size_t tier = 0; tier < n_tiers; tier++) {
        kvt_spec spec = layout.spec;
        spec.tiers = tiers[tier].mask;
        ck_assert_int_eq(kvt_layout_init(&c.layout, &spec), KVT_OK);
        ck_assert_int_eq(kvt_mla_expand(&c.layout, &c.pages, 0, c.tokens, &e), KVT_OK);
        if (tier == 0) {
            memcpy(k_first, k, rows * k_dim * element);
            memcpy(v_first, v, rows * c.v * element);
        }
        ck_assert_mem_eq(k, k_first, rows * k_dim * element);
        ck_assert_mem_eq(v, v_first, rows * c.v * element);
    }
    const double rounding = dtype == KVT_F32 ? 0x1p-18 : dtype == KVT_F16 ? 0x1p-10 : 0x1p-7;
    const kvt_matrix got_k = { k, dtype, (ptrdiff_t)(k_dim * element) }, got_v = { v, dtype, (ptrdiff_t)(c.v * element) };
    for (size_t t = 0; t < c.tokens; t++) {
        float latent[MOST_RANK], rope[MOST_ROPE];
        ck_assert_int_eq(kvt_read(&c.layout, KVT_LATENT, &c.pages, t, 1, latent, KVT_F32, 0), KVT_OK);
        ck_assert_int_eq(kvt_read(&c.layout, KVT_ROPE, &c.pages, t, 1, rope, KVT_F32, 0), KVT_OK);
        for (uint32_t h = 0; h < c.heads; h++) {
            double all;
            for (uint32_t i = 0; i < c.nope; i++) {
                const double want = exact_product(&c, &c.k_up, (size_t)h * c.nope + i, latent, &all), got = number_at(&got_k, t * c.heads + h, i);
                TEST_REQUIRE(fabs(got - want) <= all * rounding + 1e-7, "key %zu.%u, channel %u: %g, not %g", t, h, i, got, want);
            }
            for (uint32_t i = 0; i < layout.rope.dim; i++)
                TEST_REQUIRE(fabs(number_at(&got_k, t * c.heads + h, c.nope + i) - (double)rope[i]) <= fabs((double)rope[i]) * rounding + 1e-7,
                             "rotary part of %zu.%u", t, h);
            for (uint32_t i = 0; i < c.v; i++) {
                const double want = exact_product(&c, &c.v_up, (size_t)h * c.v + i, latent, &all), got = number_at(&got_v, t * c.heads + h, i);
                TEST_REQUIRE(fabs(got - want) <= all * rounding + 1e-7, "value %zu.%u, channel %u: %g, not %g", t, h, i, got, want);
            }
        }
    }
    free(k);
    free(v);
    free(k_first);
    free(v_first);
    free_heads(&c);
}
END_TEST

/* ---- absorbed attention ---- */

/* Attention to latents, with the up-projections moved to the query and behind the result, is attention to what latents expand to. Floats agree to
 * 2^-14 of the largest value; integers of queries and weights add what they add (test_attend): 2% where queries are bytes, 2^-10 where they have 16
 * bits. */
START_TEST(absorbed_is_expanded)
{
    enum { RANK = 128, ROPE = 32, TOKENS = 140 };
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i);
    uint64_t state = (uint64_t)_i + 9;
    const kvt_layout layout = latent_layout(info->scheme, KVT_SCHEME_f32, RANK, ROPE, (kvt_side_options){ .rotation = KVT_ROTATION_128 }, 0);
    heads_case c;
    make_heads(&c, &state, &layout, TOKENS);
    const uint32_t k_dim = c.nope + ROPE;
    float *k = test_malloc((size_t)TOKENS * c.heads * k_dim * sizeof *k), *v = test_malloc((size_t)TOKENS * c.heads * c.v * sizeof *v);
    const kvt_mla_expansion e = expansion_of(&c, KVT_F32, k, v);
    ck_assert_int_eq(kvt_mla_expand(&layout, &c.pages, 0, TOKENS, &e), KVT_OK);

    static float q[MOST_HEADS][128], absorbed[MOST_HEADS][RANK + ROPE], out[MOST_HEADS][RANK];
    for (uint32_t h = 0; h < c.heads; h++) {
        for (uint32_t i = 0; i < k_dim; i++)
            q[h][i] = (float)test_normal(&state);
        for (uint32_t j = 0; j < RANK; j++) {
            double sum = 0;
            for (uint32_t i = 0; i < c.nope; i++)
                sum += (double)q[h][i] * number_at(&c.k_up, (size_t)h * c.nope + i, j);
            absorbed[h][j] = (float)sum;
        }
        memcpy(absorbed[h] + RANK, q[h] + c.nope, ROPE * sizeof(float));
    }
    kvt_segment segment = { .layout = &layout, .pages = c.pages };
    kvt_attention a = { .size = sizeof a,
                        .segments = &segment,
                        .n_segments = 1,
                        .end = TOKENS,
                        .position = TOKENS - 1,
                        .group = c.heads,
                        .query_tokens = 1,
                        .queries = absorbed,
                        .query_dtype = KVT_F32,
                        .query_head_stride = sizeof *absorbed,
                        .out = out,
                        .out_dtype = KVT_F32,
                        .out_head_stride = sizeof *out,
                        .scale = 0.1f };
    kvt_attend_sizes sizes;
    ck_assert_int_eq(kvt_attend_plan_sizes(&a, &sizes), KVT_OK);
    void *workspace = test_malloc(sizes.workspace_bytes);
    ck_assert_int_eq(kvt_attend(&a, workspace), KVT_OK);
    free(workspace);

    for (uint32_t h = 0; h < c.heads; h++) {
        const kvt_layout plain = test_layout(KVT_SCHEME_f32, KVT_SCHEME_f32, k_dim, c.v, 1, 0);
        unsigned char *memory = calloc(MOST_PAGES, plain.page_bytes);
        segment = (kvt_segment){ .layout = &plain, .pages = { .base = memory, .stride = plain.page_bytes, .count = MOST_PAGES } };
        ck_assert_int_eq(kvt_write(&plain, KVT_K, &segment.pages, 0, TOKENS, k + (size_t)h * k_dim, KVT_F32, (ptrdiff_t)(c.heads * k_dim * 4)),
                         KVT_OK);
        ck_assert_int_eq(kvt_write(&plain, KVT_V, &segment.pages, 0, TOKENS, v + (size_t)h * c.v, KVT_F32, (ptrdiff_t)(c.heads * c.v * 4)), KVT_OK);
        float want[128];
        a.group = 1;
        a.queries = q[h];
        a.out = want;
        ck_assert_int_eq(kvt_attend_plan_sizes(&a, &sizes), KVT_OK);
        workspace = test_malloc(sizes.workspace_bytes);
        ck_assert_int_eq(kvt_attend(&a, workspace), KVT_OK);
        double largest = 0;
        for (size_t i = 0; i < (size_t)TOKENS * c.v; i++)
            largest = fmax(largest, fabs((double)v[(i / c.v * c.heads + h) * c.v + i % c.v]));
        const double bound = largest * (info->scale_bytes == 0 || info->is_fp8 ? 0x1p-14 : info->bits > 5 ? 0x1p-10 : 0.02);
        for (uint32_t i = 0; i < c.v; i++) {
            double got = 0;
            for (uint32_t j = 0; j < RANK; j++)
                got += (double)out[h][j] * number_at(&c.v_up, (size_t)h * c.v + i, j);
            TEST_REQUIRE(fabs(got - (double)want[i]) <= bound, "%s, head %u, channel %u: %g, not %g (bound %g)", info->name, h, i, got,
                         (double)want[i], bound);
        }
        free(workspace);
        free(memory);
    }
    free(k);
    free(v);
    free_heads(&c);
}
END_TEST

/* ---- sizes ---- */

START_TEST(bytes_per_token)
{
    static const struct {
        kvt_scheme latent, rope;
        uint32_t rank, rope_dim;
        kvt_side_options options;
        size_t bytes;
    } rows[] = {
        { KVT_SCHEME_bf16, KVT_SCHEME_bf16, 512, 64, { 0 }, 1152 },
        { KVT_SCHEME_e4m3, KVT_SCHEME_bf16, 512, 64, { .fp8_block = 128 }, 656 },                                 /* FlashMLA's rows, in tiles */
        { KVT_SCHEME_e4m3, KVT_SCHEME_bf16, 448, 64, { .fp8_block = 64, .fp8_scale = KVT_FP8_SCALE_E8M0 }, 583 }, /* DeepSeek-V4's, without a byte of
                                                                                                                     padding */
        { KVT_SCHEME_q8_0, KVT_SCHEME_q8_0, 512, 64, { 0 }, 612 },
        { KVT_SCHEME_q4_0, KVT_SCHEME_q4_0, 512, 64, { 0 }, 324 },
        { KVT_SCHEME_kv8, KVT_SCHEME_kv8, 512, 64, { 0 }, 580 },
        { KVT_SCHEME_kv6, KVT_SCHEME_kv8, 512, 64, { 0 }, 466 },
        { KVT_SCHEME_kv6, KVT_SCHEME_bf16, 512, 64, { 0 }, 528 },
        { KVT_SCHEME_kv4, KVT_SCHEME_kv8, 512, 64, { 0 }, 338 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const kvt_layout layout = latent_layout(rows[i].latent, rows[i].rope, rows[i].rank, rows[i].rope_dim, rows[i].options, 0);
        ck_assert_uint_eq(layout.token_bytes, rows[i].bytes);
        ck_assert_uint_eq(layout.page_bytes, 64 * rows[i].bytes);
        size_t bytes;
        ck_assert_int_eq(kvt_layout_bytes(&layout, 1000, &bytes), KVT_OK);
        ck_assert_uint_eq(bytes, 16 * 64 * rows[i].bytes);
    }
}
END_TEST

/* ---- rows and blocks of other engines ---- */

/* Three channels of an otherwise empty block of 128 (deepseek_fp8) or 64 (deepseek_v4), by hand from the rule: scale = 2^ceil(log2(max(amax / 448,
 * 10^-4))). E4M3 has three bits of mantissa: 448 = 0x7e, 256 = 0x78, 1 = 0x38, 1.0625 rounds to even 1, 2^-6 = 0x08. */
START_TEST(by_hand)
{
    static const struct {
        float x[3];
        int exponent; /* of the scale */
        unsigned char codes[3];
    } vectors[] = {
        { { 448, -256, 1 }, 0, { 0x7e, 0xf8, 0x38 } },
        { { 449, 256, -2 }, 1, { 0x76, 0x70, 0xb8 } },              /* 449 / 2 = 224.5: 224 */
        { { 0, 0, 0 }, -13, { 0, 0, 0 } },                          /* 10^-4 is above 2^-14 */
        { { 0x1p-13f, 0, -0x1p-12f }, -13, { 0x38, 0, 0xc0 } },     /* 1 and -2, times 2^-13 */
        { { 3.5f, 1.0625f, -0x1p-13f }, -7, { 0x7e, 0x70, 0x88 } }, /* 3.5 = 448 * 2^-7; 136 is between 128 and 144: to even */
        { { 1e-30f, INFINITY, NAN }, -13, { 0, 0x7e, 0x7f } },      /* what is not finite has no say in the scale */
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        for (int is_v4 = 0; is_v4 < 2; is_v4++) {
            const uint32_t block = is_v4 ? 64 : 128;
            float x[128] = { 0 };
            unsigned char row[132], want[132] = { 0 };
            memcpy(x + 5, vectors[i].x, sizeof vectors[i].x);
            memcpy(want + 5, vectors[i].codes, 3);
            if (is_v4)
                want[block] = (unsigned char)(127 + vectors[i].exponent);
            else
                oracle_store(want + block, 4, (uint32_t)(127 + vectors[i].exponent) << 23);
            ck_assert_int_eq(kvt_rows_encode(is_v4 ? KVT_ROW_deepseek_v4 : KVT_ROW_deepseek_fp8, block, 1, x, KVT_F32, 0, row, 0, NULL), KVT_OK);
            const size_t at = test_difference(row, want, block + (is_v4 ? 1 : 4));
            TEST_REQUIRE(at == block + (is_v4 ? 1u : 4u), "vector %zu of %u channels: byte %zu is %02x, not %02x", i, block, at, row[at], want[at]);
        }
}
END_TEST

/* Any 656-byte rows go in and come back, and mean what they mean. */
START_TEST(flashmla_rows)
{
    enum { TOKENS = 130, BYTES = 656 };
    const kvt_layout layout = latent_layout(KVT_SCHEME_e4m3, KVT_SCHEME_bf16, 512, 64, (kvt_side_options){ .fp8_block = 128 }, 0);
    unsigned char *rows = test_malloc(TOKENS * BYTES), *back = test_malloc(TOKENS * BYTES), *memory = calloc(MOST_PAGES, layout.page_bytes);
    const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = MOST_PAGES };
    uint64_t state = 6;
    test_fill(&state, rows, TOKENS * BYTES);
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t b = 0; b < 4; b++)
            oracle_store(rows + t * BYTES + 512 + 4 * b, 4, (120 + (uint32_t)test_below(&state, 10)) << 23);
    ck_assert_int_eq(kvt_convert_in(&layout, KVT_LATENT, &pages, 3, TOKENS, KVT_ROW_deepseek_fp8, rows, BYTES, NULL), KVT_OK);
    ck_assert_int_eq(kvt_write(&layout, KVT_ROPE, &pages, 3, TOKENS, rows + 528, KVT_BF16, BYTES), KVT_OK);
    ck_assert_int_eq(kvt_convert_out(&layout, KVT_LATENT, &pages, 3, TOKENS, KVT_ROW_deepseek_fp8, back, BYTES, NULL), KVT_OK);
    ck_assert_int_eq(kvt_read(&layout, KVT_ROPE, &pages, 3, TOKENS, back + 528, KVT_BF16, BYTES), KVT_OK);
    ck_assert_uint_eq(test_difference(rows, back, TOKENS * BYTES), TOKENS * BYTES);
    for (size_t t = 0; t < TOKENS; t++) {
        float latent[512];
        ck_assert_int_eq(kvt_read(&layout, KVT_LATENT, &pages, 3 + t, 1, latent, KVT_F32, 0), KVT_OK);
        for (size_t c = 0; c < 512; c++) {
            const unsigned char code = rows[t * BYTES + c];
            const double scale = ldexp(1, (int)(oracle_load(rows + t * BYTES + 512 + c / 128 * 4, 4) >> 23) - 127);
            if ((code & 0x7f) == 0x7f)
                TEST_REQUIRE(isnan(latent[c]), "token %zu, channel %zu", t, c);
            else
                TEST_REQUIRE((double)latent[c] == (code & 0x80 ? -1 : 1) * oracle_value(oracle_e4m3, code & 0x7f) * scale, "token %zu, channel %zu",
                             t, c);
        }
    }
    free(rows);
    free(back);
    free(memory);
}
END_TEST

/* ggml's rows of 576 channels: blocks of the latent, then of the rotary part. */
START_TEST(ggml_rows)
{
    enum { TOKENS = 70 };
    static const struct {
        kvt_row_format format;
        kvt_scheme scheme;
        size_t block;
    } formats[] = { { KVT_ROW_ggml_q8_0, KVT_SCHEME_q8_0, 34 }, { KVT_ROW_ggml_q4_0, KVT_SCHEME_q4_0, 18 } };
    for (size_t i = 0; i < 2; i++) {
        const size_t bytes = 18 * formats[i].block, latent = 16 * formats[i].block;
        const kvt_layout layout = latent_layout(formats[i].scheme, formats[i].scheme, 512, 64, (kvt_side_options){ 0 }, 0);
        unsigned char *rows = test_malloc(TOKENS * bytes), *back = test_malloc(TOKENS * bytes), *memory = calloc(MOST_PAGES, layout.page_bytes);
        const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = MOST_PAGES };
        uint64_t state = i;
        test_fill(&state, rows, TOKENS * bytes);
        ck_assert_int_eq(kvt_convert_in(&layout, KVT_LATENT, &pages, 0, TOKENS, formats[i].format, rows, (ptrdiff_t)bytes, NULL), KVT_OK);
        ck_assert_int_eq(kvt_convert_in(&layout, KVT_ROPE, &pages, 0, TOKENS, formats[i].format, rows + latent, (ptrdiff_t)bytes, NULL), KVT_OK);
        ck_assert_int_eq(kvt_convert_out(&layout, KVT_LATENT, &pages, 0, TOKENS, formats[i].format, back, (ptrdiff_t)bytes, NULL), KVT_OK);
        ck_assert_int_eq(kvt_convert_out(&layout, KVT_ROPE, &pages, 0, TOKENS, formats[i].format, back + latent, (ptrdiff_t)bytes, NULL), KVT_OK);
        ck_assert_uint_eq(test_difference(rows, back, TOKENS * bytes), TOKENS * bytes);
        free(rows);
        free(back);
        free(memory);
    }
}
END_TEST

START_TEST(deepseek_v4_blocks)
{
    enum { TOKENS = 100, BLOCK = 128, FIRST = 20, BYTES = BLOCK * KVT_DEEPSEEK_V4_TOKEN_BYTES };
    const kvt_side_options options = { .fp8_block = 64, .fp8_scale = KVT_FP8_SCALE_E8M0 };
    const kvt_layout layout = latent_layout(KVT_SCHEME_e4m3, KVT_SCHEME_bf16, 448, 64, options, 0),
                     other = latent_layout(KVT_SCHEME_e4m3, KVT_SCHEME_bf16, 512, 64, options, 0);
    unsigned char *block = test_malloc(BYTES), *back = test_malloc(BYTES), *memory = calloc(MOST_PAGES, layout.page_bytes);
    const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = MOST_PAGES };
    uint64_t state = 4;
    test_fill(&state, block, BYTES);
    ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &pages, 5, TOKENS, block, BLOCK, FIRST), KVT_OK);
    memset(back, 0xa5, BYTES);
    ck_assert_int_eq(kvt_deepseek_v4_out(&layout, &pages, 5, TOKENS, back, BLOCK, FIRST), KVT_OK);
    for (size_t t = 0; t < BLOCK; t++) {
        const bool is_in = t >= FIRST && t < FIRST + TOKENS;
        for (size_t i = 0; i < 576; i++)
            ck_assert_int_eq(back[t * 576 + i], is_in ? block[t * 576 + i] : 0xa5);
        for (size_t i = 0; i < 8; i++)
            ck_assert_int_eq(back[BLOCK * 576 + t * 8 + i], !is_in ? 0xa5 : i == 7 ? 0 : block[BLOCK * 576 + t * 8 + i]);
    }
    float latent[448];
    ck_assert_int_eq(kvt_read(&layout, KVT_LATENT, &pages, 5, 1, latent, KVT_F32, 0), KVT_OK);
    for (size_t c = 0; c < 448; c++) {
        const unsigned char code = block[FIRST * 576 + c], scale = block[BLOCK * 576 + FIRST * 8 + c / 64];
        if (scale > 20 && scale < 220 && (code & 0x7f) != 0x7f)
            TEST_REQUIRE((double)latent[c] == (code & 0x80 ? -1 : 1) * oracle_value(oracle_e4m3, code & 0x7f) * ldexp(1, scale - 127), "channel %zu",
                         c);
    }
    ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &pages, 5, TOKENS, NULL, BLOCK, FIRST), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &pages, 5, TOKENS, block, BLOCK, FIRST + 9), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &pages, 5, TOKENS, block, BLOCK, SIZE_MAX), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &pages, 100, TOKENS, block, BLOCK, FIRST), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_deepseek_v4_in(&other, &pages, 5, TOKENS, block, BLOCK, FIRST), KVT_ERR_DIM);
    ck_assert_int_eq(kvt_deepseek_v4_out(&other, &pages, 5, TOKENS, back, BLOCK, FIRST), KVT_ERR_DIM);
    ck_assert_int_eq(kvt_deepseek_v4_out(&layout, &pages, 5, TOKENS, NULL, BLOCK, FIRST), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_deepseek_v4_out(&layout, &pages, 5, 0, NULL, BLOCK, FIRST), KVT_OK);
    free(block);
    free(back);
    free(memory);
}
END_TEST

/* ---- memory, and numbers of every kind ---- */

static unsigned char *place(size_t bytes, bool at_end)
{
    const test_arena arena = test_arena_make(bytes);
    return test_arena_flush(&arena, bytes, at_end);
}

/* Infinities, NaN, subnormal numbers and others, between guard pages; rows may go backwards. */
static kvt_matrix place_matrix(uint64_t *state, size_t rows, uint32_t columns, bool at_end)
{
    const kvt_dtype dtype = dtypes[test_below(state, 3)];
    const size_t row = columns * oracle_element_bytes(dtype), stride = row + 2 * test_below(state, 3), bytes = (rows - 1) * stride + row;
    unsigned char *numbers = place(bytes, at_end);
    test_fill(state, numbers, bytes);
    test_rows(test_below(state, TEST_PATTERNS), state, rows, columns, numbers, dtype, (ptrdiff_t)stride);
    if (test_below(state, 2))
        return (kvt_matrix){ numbers, dtype, (ptrdiff_t)stride };
    return (kvt_matrix){ numbers + (rows - 1) * stride, dtype, -(ptrdiff_t)stride };
}

/* Bytes that a call left behind: those of the first call are what all others have to leave. */
typedef struct left_bytes {
    const unsigned char *now;
    unsigned char *first;
    size_t n;
} left_bytes;

static left_bytes watch(const unsigned char *now, size_t n)
{
    return (left_bytes){ now, place(n, false), n };
}

static void expect_left(left_bytes *bytes, bool is_first, const char *what, int seed, const char *tier, bool flushes)
{
    if (is_first)
        memcpy(bytes->first, bytes->now, bytes->n);
    const size_t at = test_difference(bytes->first, bytes->now, bytes->n);
    TEST_REQUIRE(at == bytes->n, "seed %d, %s, %s%s: byte %zu is %02x, not %02x", seed, what, tier, flushes ? ", flushing subnormals" : "", at,
                 bytes->now[at], bytes->first[at]);
}

static kvt_scheme any_scheme(uint64_t *state)
{
    return kvt_scheme_at(test_below(state, (uint32_t)test_scheme_count()))->scheme;
}

/* Rows, weights and pages that may hold anything: the same bytes on every tier, whether or not subnormal numbers are flushed, and no byte touched
 * that is not the call's. */
START_TEST(guard_pages)
{
    enum { PAGES = 2, HEADS = 3 };
    static const uint32_t ranks[] = { 16, 24, 40, 200 }, ropes[] = { 2, 16, 30, 64 };
    const int seed = _i * KVT_TEST_SHARE;
    uint64_t state = 31 + (uint64_t)seed;
    const bool at_end = _i % 2;
    const uint32_t rank = ranks[test_below(&state, 4)], rope = ropes[test_below(&state, 4)], nope = 1 + test_below(&state, 40),
                   v_dim = 1 + test_below(&state, 40), hidden = test_below(&state, 2) ? 1 + test_below(&state, 60) : 0;
    static const kvt_centring centrings[] = { KVT_CENTRING_NONE, KVT_CENTRING_PAGE, KVT_CENTRING_OWN };
    const kvt_centring centring = centrings[test_below(&state, 3)];
    const size_t first = centring == KVT_CENTRING_OWN ? 0 : test_below(&state, 3) * 31, tokens = 1 + test_below(&state, 2 * KVT_PAGE_TOKENS - 62);
    const kvt_scheme latent_scheme = any_scheme(&state), rope_scheme = any_scheme(&state);
    const kvt_side_options options = { .rotation = test_below(&state, 2) ? KVT_ROTATION_64 : KVT_ROTATION_NONE, .centring = centring };
    kvt_mla_rows rows = { .size = sizeof rows,
                          .rows = place_matrix(&state, tokens, hidden ? hidden : rank + rope, at_end),
                          .hidden_dim = hidden,
                          .norm_epsilon = test_below(&state, 2) ? 1e-6f : 1e-40f,
                          .rope_pairs = (kvt_rope_pairs)test_below(&state, 3) };
    if (hidden)
        rows.down = place_matrix(&state, rank + rope, hidden, at_end);
    if (test_below(&state, 3)) {
        const kvt_matrix norm = place_matrix(&state, 1, rank, at_end);
        rows.norm = norm.numbers;
        rows.norm_dtype = norm.dtype;
    }
    float *turns[2];
    for (int i = 0; i < 2; i++) {
        const size_t bytes = tokens * (rope / 2) * sizeof(float);
        unsigned char *numbers = place(bytes, at_end);
        test_rows(test_below(&state, TEST_PATTERNS), &state, tokens, rope / 2, numbers, KVT_F32, (ptrdiff_t)(bytes / tokens));
        turns[i] = (float *)(void *)numbers;
    }
    rows.rope_cos = turns[0];
    rows.rope_sin = turns[1];

    const kvt_dtype dtype = dtypes[test_below(&state, 3)];
    const size_t element = oracle_element_bytes(dtype), k_row = (nope + rope) * element, v_row = v_dim * element;
    const kvt_matrix k_up = place_matrix(&state, (size_t)HEADS * nope, rank, at_end),
                     v_up = place_matrix(&state, (size_t)HEADS * v_dim, rank, at_end);
    unsigned char *k = place(tokens * HEADS * k_row, at_end), *v = place(tokens * HEADS * v_row, at_end);
    const kvt_mla_expansion e = { .size = sizeof e,
                                  .heads = HEADS,
                                  .nope_dim = nope,
                                  .v_dim = v_dim,
                                  .k_up = k_up,
                                  .v_up = v_up,
                                  .k_up_head_stride = (ptrdiff_t)nope * k_up.row_stride,
                                  .v_up_head_stride = (ptrdiff_t)v_dim * v_up.row_stride,
                                  .dtype = dtype,
                                  .k = k,
                                  .k_token_stride = (ptrdiff_t)(HEADS * k_row),
                                  .k_head_stride = (ptrdiff_t)k_row,
                                  .v = v,
                                  .v_token_stride = (ptrdiff_t)(HEADS * v_row),
                                  .v_head_stride = (ptrdiff_t)v_row };

    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    const size_t bytes = PAGES * latent_layout(latent_scheme, rope_scheme, rank, rope, options, 0).page_bytes;
    unsigned char *memory = place(bytes, at_end), *garbage = place(bytes, false);
    test_fill(&state, garbage, bytes);
    left_bytes written = watch(memory, bytes), keys = watch(k, tokens * HEADS * k_row), values = watch(v, tokens * HEADS * v_row),
               keys_of_garbage = watch(k, tokens * HEADS * k_row);
    for (size_t t = 0; t < n_tiers; t++)
        for (int flushes = 0; flushes < 2; flushes++) {
            const kvt_layout layout = latent_layout(latent_scheme, rope_scheme, rank, rope, options, tiers[t].mask);
            const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = PAGES };
            const bool is_first = t == 0 && !flushes;
            memcpy(memory, garbage, bytes);
            test_flush_subnormals(flushes != 0);
            ck_assert_int_eq(kvt_mla_expand(&layout, &pages, first, tokens, &e), KVT_OK);
            expect_left(&keys_of_garbage, is_first, "keys of garbage", seed, tiers[t].name, flushes != 0);
            ck_assert_int_eq(kvt_mla_write(&layout, &pages, first, tokens, &rows), KVT_OK);
            expect_left(&written, is_first, "pages", seed, tiers[t].name, flushes != 0);
            ck_assert_int_eq(kvt_mla_expand(&layout, &pages, first, tokens, &e), KVT_OK);
            test_flush_subnormals(false);
            expect_left(&keys, is_first, "keys", seed, tiers[t].name, flushes != 0);
            expect_left(&values, is_first, "values", seed, tiers[t].name, flushes != 0);
        }
}
END_TEST

/* Own centres of the latent, of the rotary part, or of both: what kvt_convert_in and kvt_write make of whole pages. */
START_TEST(deepseek_v4_with_own_centres)
{
    enum { BLOCK = 80, FIRST = 3, TOKENS = 70, LATENT = 448, ROW = 455 };
    kvt_spec spec = test_spec(kvt_scheme_at((size_t)_i / 3)->scheme, KVT_SCHEME_NONE, LATENT, 0);
    spec.rope_scheme = spec.k_scheme;
    spec.rope_dim = 64;
    spec.k_options.effort = spec.rope_options.effort = KVT_EFFORT_FAST;
    if (_i % 3 != 1)
        spec.k_options.centring = KVT_CENTRING_OWN;
    if (_i % 3 != 0)
        spec.rope_options.centring = KVT_CENTRING_OWN;
    kvt_layout layout;
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    unsigned char *block = test_malloc((size_t)BLOCK * KVT_DEEPSEEK_V4_TOKEN_BYTES), rows[TOKENS][ROW];
    unsigned char *got = test_malloc(2 * layout.page_bytes), *want = test_malloc(2 * layout.page_bytes);
    uint64_t state = 9;
    test_fill(&state, block, (size_t)BLOCK * KVT_DEEPSEEK_V4_TOKEN_BYTES);
    const unsigned char *numbers = block + FIRST * 576, *scales = block + BLOCK * 576 + FIRST * 8;
    for (size_t t = 0; t < TOKENS; t++) {
        memcpy(rows[t], numbers + t * 576, LATENT);
        memcpy(rows[t] + LATENT, scales + t * 8, 7);
    }
    static const size_t counts[] = { 16, 32, 48, 64, TOKENS };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        const kvt_pages to = { .base = got, .stride = layout.page_bytes, .count = 2 },
                        wanted = { .base = want, .stride = layout.page_bytes, .count = 2 };
        memset(got, 0xaa, 2 * layout.page_bytes);
        memset(want, 0xaa, 2 * layout.page_bytes);
        ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &to, 0, counts[i], block, BLOCK, FIRST), KVT_OK);
        ck_assert_int_eq(kvt_convert_in(&layout, KVT_LATENT, &wanted, 0, counts[i], KVT_ROW_deepseek_v4, rows, ROW, NULL), KVT_OK);
        ck_assert_int_eq(kvt_write(&layout, KVT_ROPE, &wanted, 0, counts[i], numbers + LATENT, KVT_BF16, 576), KVT_OK);
        TEST_REQUIRE(test_difference(got, want, 2 * layout.page_bytes) == 2 * layout.page_bytes, "%s, %zu tokens: other bytes",
                     kvt_scheme_at((size_t)_i / 3)->name, counts[i]);
    }
    ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &(kvt_pages){ .base = got, .stride = layout.page_bytes, .count = 2 }, 16, 16, block, BLOCK, FIRST),
                     KVT_ERR_RANGE);
    TEST_REQUIRE(test_difference(got, want, 2 * layout.page_bytes) == 2 * layout.page_bytes, "refused, but written");
    free(block);
    free(got);
    free(want);
}
END_TEST

START_TEST(guard_pages_of_v4)
{
    enum { BLOCK = 80, FIRST = 3, TOKENS = 77, PAGES = 2, BYTES = BLOCK * KVT_DEEPSEEK_V4_TOKEN_BYTES };
    const kvt_scheme latent_scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    const bool at_end = _i % 2;
    uint64_t state = (uint64_t)_i;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    const kvt_scheme rope_scheme = any_scheme(&state);
    const size_t bytes = PAGES * latent_layout(latent_scheme, rope_scheme, 448, 64, (kvt_side_options){ 0 }, 0).page_bytes;
    unsigned char *block = place(BYTES, at_end), *memory = place(bytes, at_end), *back = place(BYTES, at_end);
    test_fill(&state, block, BYTES);
    left_bytes written = watch(memory, bytes), read = watch(back, BYTES);
    for (size_t t = 0; t < n_tiers; t++)
        for (int flushes = 0; flushes < 2; flushes++) {
            const kvt_layout layout = latent_layout(latent_scheme, rope_scheme, 448, 64, (kvt_side_options){ 0 }, tiers[t].mask);
            const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = PAGES };
            memset(memory, 0xa5, bytes);
            memset(back, 0xa5, BYTES);
            test_flush_subnormals(flushes != 0);
            ck_assert_int_eq(kvt_deepseek_v4_in(&layout, &pages, 5, TOKENS, block, BLOCK, FIRST), KVT_OK);
            ck_assert_int_eq(kvt_deepseek_v4_out(&layout, &pages, 5, TOKENS, back, BLOCK, FIRST), KVT_OK);
            test_flush_subnormals(false);
            expect_left(&written, t == 0 && !flushes, "pages", _i, tiers[t].name, flushes != 0);
            expect_left(&read, t == 0 && !flushes, "block", _i, tiers[t].name, flushes != 0);
        }
}
END_TEST

/* ---- accuracy ---- */

/* Energy of what storing 256 rows of 512 + 64 numbers loses. */
static double error_of(const kvt_layout *layout, const float *rows, size_t tokens)
{
    const uint32_t dim = layout->k.dim + layout->rope.dim;
    unsigned char *memory = calloc(tokens / KVT_PAGE_TOKENS, layout->page_bytes);
    const kvt_pages pages = { .base = memory, .stride = layout->page_bytes, .count = tokens / KVT_PAGE_TOKENS };
    const kvt_mla_rows given = { .size = sizeof given, .rows = { rows, KVT_F32, (ptrdiff_t)(dim * sizeof *rows) } };
    ck_assert_int_eq(kvt_mla_write(layout, &pages, 0, tokens, &given), KVT_OK);
    double error = 0;
    for (size_t t = 0; t < tokens; t++) {
        float back[MOST_RANK + MOST_ROPE];
        ck_assert_int_eq(kvt_read(layout, KVT_LATENT, &pages, t, 1, back, KVT_F32, 0), KVT_OK);
        ck_assert_int_eq(kvt_read(layout, KVT_ROPE, &pages, t, 1, back + layout->k.dim, KVT_F32, 0), KVT_OK);
        for (uint32_t c = 0; c < dim; c++)
            error += pow((double)back[c] - (double)rows[t * dim + c], 2);
    }
    free(memory);
    return error;
}

/* Normal numbers, half of whose energy all tokens share: 466 bytes a token keep at least 2 dB more of them than the 656 of FlashMLA, and the centre
 * of a page, which takes 9 more and which the first page has not, another 1.5. */
START_TEST(smaller_and_better_than_fp8)
{
    enum { TOKENS = 256, DIM = 512 + 64 };
    float *rows = test_malloc(TOKENS * DIM * sizeof *rows);
    double offset[DIM];
    uint64_t state = 66;
    for (int c = 0; c < DIM; c++)
        offset[c] = test_normal(&state);
    for (int i = 0; i < TOKENS * DIM; i++)
        rows[i] = (float)(offset[i % DIM] + test_normal(&state));
    kvt_side_options options = { .rotation = KVT_ROTATION_64 };
    const kvt_layout fp8 = latent_layout(KVT_SCHEME_e4m3, KVT_SCHEME_bf16, 512, 64, (kvt_side_options){ .fp8_block = 128 }, 0),
                     small = latent_layout(KVT_SCHEME_kv6, KVT_SCHEME_kv8, 512, 64, options, 0);
    options.centring = KVT_CENTRING_PAGE;
    const kvt_layout centred = latent_layout(KVT_SCHEME_kv6, KVT_SCHEME_kv8, 512, 64, options, 0);
    ck_assert_uint_eq(fp8.token_bytes, 656);
    ck_assert_uint_eq(small.token_bytes, 466);
    ck_assert_uint_eq(centred.page_bytes, 64 * 466 + 576);
    const double of_fp8 = error_of(&fp8, rows, TOKENS), of_small = error_of(&small, rows, TOKENS), of_centred = error_of(&centred, rows, TOKENS);
    TEST_REQUIRE(10 * log10(of_fp8 / of_small) >= 2, "466 bytes: %.2f dB better", 10 * log10(of_fp8 / of_small));
    TEST_REQUIRE(10 * log10(of_small / of_centred) >= 1.5, "with centres: %.2f dB better", 10 * log10(of_small / of_centred));
    free(rows);
}
END_TEST

/* ---- golden hashes ---- */

typedef struct golden {
    const char *scheme;
    uint64_t pages, attention, expansion;
} golden;

static const golden goldens[] = {
#define KVT_GOLDEN_ROW(scheme, pages, attention, expansion) { #scheme, pages, attention, expansion },
#include "golden_mla.def"
#undef KVT_GOLDEN_ROW
};

static uint64_t hash_of(const void *bytes, size_t n) /* FNV-1a */
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return hash;
}

/* 300 tokens of 512 + 64 channels from a hidden state of 48, three heads. */
static golden make_golden(const char *name, uint32_t tiers)
{
    enum { RANK = 512, ROPE = 64, HIDDEN = 48, TOKENS = 300, PAGES = 5, HEADS = 3, NOPE = 20 };
    const kvt_side_options options = { .rotation = KVT_ROTATION_128, .centring = KVT_CENTRING_PAGE };
    const kvt_layout layout = latent_layout(kvt_scheme_find(name)->scheme, KVT_SCHEME_kv8, RANK, ROPE, options, tiers);
    float *x = test_malloc(TOKENS * HIDDEN * sizeof *x), *down = test_malloc((RANK + ROPE) * HIDDEN * sizeof *down),
          *norm = test_malloc(RANK * sizeof *norm), *turns = test_malloc(2 * TOKENS * ROPE / 2 * sizeof *turns),
          *up = test_malloc(HEADS * NOPE * RANK * sizeof *up), *q = test_malloc(HEADS * (RANK + ROPE) * sizeof *q);
    uint64_t state = 5;
    for (size_t i = 0; i < (size_t)TOKENS * HIDDEN; i++)
        x[i] = (float)test_normal(&state);
    for (size_t i = 0; i < (size_t)(RANK + ROPE) * HIDDEN; i++)
        down[i] = (float)test_normal(&state) / 8;
    for (size_t i = 0; i < RANK; i++)
        norm[i] = 1 + (float)test_normal(&state) / 4;
    for (size_t i = 0; i < (size_t)TOKENS * ROPE; i++)
        turns[i] = (float)test_normal(&state) / 2;
    for (size_t i = 0; i < (size_t)HEADS * NOPE * RANK; i++)
        up[i] = (float)test_normal(&state) / 16;
    for (size_t i = 0; i < (size_t)HEADS * (RANK + ROPE); i++)
        q[i] = (float)test_normal(&state);
    unsigned char *memory = calloc(PAGES, layout.page_bytes);
    const kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = PAGES };
    const kvt_mla_rows rows = { .size = sizeof rows,
                                .rows = { x, KVT_F32, HIDDEN * sizeof *x },
                                .down = { down, KVT_F32, HIDDEN * sizeof *down },
                                .hidden_dim = HIDDEN,
                                .norm = norm,
                                .norm_dtype = KVT_F32,
                                .norm_epsilon = 1e-5f,
                                .rope_pairs = KVT_ROPE_PAIRS_NEIGHBOURS,
                                .rope_cos = turns,
                                .rope_sin = turns + TOKENS * ROPE / 2 };
    if (kvt_mla_write(&layout, &pages, 0, TOKENS, &rows) != KVT_OK)
        abort();
    golden found = { .scheme = name, .pages = hash_of(memory, PAGES * layout.page_bytes) };

    float *out = test_malloc(HEADS * RANK * sizeof *out);
    const kvt_segment segment = { .layout = &layout, .pages = pages };
    const kvt_attention a = { .size = sizeof a,
                              .segments = &segment,
                              .n_segments = 1,
                              .end = TOKENS,
                              .position = TOKENS - 1,
                              .group = HEADS,
                              .query_tokens = 1,
                              .queries = q,
                              .query_dtype = KVT_F32,
                              .query_head_stride = (RANK + ROPE) * sizeof *q,
                              .out = out,
                              .out_dtype = KVT_F32,
                              .out_head_stride = RANK * sizeof *out,
                              .scale = 0.04f };
    kvt_attend_sizes sizes;
    if (kvt_attend_plan_sizes(&a, &sizes) != KVT_OK)
        abort();
    void *workspace = test_malloc(sizes.workspace_bytes);
    if (kvt_attend(&a, workspace) != KVT_OK)
        abort();
    found.attention = hash_of(out, HEADS * RANK * sizeof *out);

    float *keys = test_malloc((size_t)TOKENS * HEADS * (NOPE + ROPE) * sizeof *keys);
    const kvt_mla_expansion e = { .size = sizeof e,
                                  .heads = HEADS,
                                  .nope_dim = NOPE,
                                  .k_up = { up, KVT_F32, RANK * sizeof *up },
                                  .k_up_head_stride = NOPE * RANK * sizeof *up,
                                  .dtype = KVT_F32,
                                  .k = keys,
                                  .k_token_stride = HEADS * (NOPE + ROPE) * sizeof *keys,
                                  .k_head_stride = (NOPE + ROPE) * sizeof *keys };
    if (kvt_mla_expand(&layout, &pages, 0, TOKENS, &e) != KVT_OK)
        abort();
    found.expansion = hash_of(keys, (size_t)TOKENS * HEADS * (NOPE + ROPE) * sizeof *keys);
    free(x);
    free(down);
    free(norm);
    free(turns);
    free(up);
    free(q);
    free(memory);
    free(out);
    free(workspace);
    free(keys);
    return found;
}

START_TEST(golden_hashes)
{
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    ck_assert_uint_eq(sizeof goldens / sizeof *goldens, test_scheme_count());
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        for (size_t t = 0; t < n_tiers; t++) {
            const golden got = make_golden(goldens[i].scheme, tiers[t].mask);
            ck_assert_msg(got.pages == goldens[i].pages && got.attention == goldens[i].attention && got.expansion == goldens[i].expansion,
                          "%s, tier %s: 0x%016" PRIx64 ", 0x%016" PRIx64 ", 0x%016" PRIx64, goldens[i].scheme, tiers[t].name, got.pages,
                          got.attention, got.expansion);
        }
}
END_TEST

static int print(void)
{
    printf("/* SPDX-License-Identifier: MIT */\n"
           "/* Made by test_mla --print: what the functions of mla.h give for a fixed stream of numbers, on every tier and with every compiler.\n"
           " *\n"
           " *   KVT_GOLDEN_ROW(scheme of the latent, hash of the pages, of attention's results, of the expanded keys)\n"
           " */\n");
    for (size_t s = 0; s < test_scheme_count(); s++) {
        const golden row = make_golden(kvt_scheme_at(s)->name, 0);
        printf("KVT_GOLDEN_ROW(%s, 0x%016" PRIx64 ", 0x%016" PRIx64 ", 0x%016" PRIx64 ")\n", row.scheme, row.pages, row.attention, row.expansion);
    }
    return 0;
}

/* ---- arguments ---- */

#define EXPECT_WRITE(change, status)                                                                                                                 \
    do {                                                                                                                                             \
        kvt_mla_rows rows = good_rows;                                                                                                               \
        kvt_pages pages = good_pages;                                                                                                                \
        const kvt_layout *layout = &good_layout;                                                                                                     \
        size_t first = 0, n = 3;                                                                                                                     \
        change;                                                                                                                                      \
        memset(memory, 0xa5, 2 * good_layout.page_bytes);                                                                                            \
        ck_assert_int_eq(kvt_mla_write(layout, &pages, first, n, &rows), status);                                                                    \
        for (size_t i = 0; i < 2 * good_layout.page_bytes; i++)                                                                                      \
            ck_assert_int_eq(memory[i], 0xa5);                                                                                                       \
    } while (0)

#define EXPECT_EXPAND(change, status)                                                                                                                \
    do {                                                                                                                                             \
        kvt_mla_expansion e = good;                                                                                                                  \
        size_t first = 0, n = 3;                                                                                                                     \
        change;                                                                                                                                      \
        memset(k, 0xa5, sizeof k);                                                                                                                   \
        memset(v, 0xa5, sizeof v);                                                                                                                   \
        ck_assert_int_eq(kvt_mla_expand(&good_layout, &good_pages, first, n, &e), status);                                                           \
        for (size_t i = 0; i < sizeof k; i++)                                                                                                        \
            ck_assert_int_eq(((unsigned char *)k)[i], 0xa5);                                                                                         \
        for (size_t i = 0; i < sizeof v; i++)                                                                                                        \
            ck_assert_int_eq(((unsigned char *)v)[i], 0xa5);                                                                                         \
    } while (0)

START_TEST(arguments)
{
    enum { RANK = 32, ROPE = 16, HIDDEN = 8, HEADS = 2, NOPE = 5, V = 7 };
    static float x[3][HIDDEN], down[RANK + ROPE][HIDDEN], norm[RANK], turns[3][ROPE / 2], up[HEADS][NOPE + V][RANK], k[3][HEADS][NOPE + ROPE],
        v[3][HEADS][V];
    const kvt_layout good_layout = latent_layout(KVT_SCHEME_q8_0, KVT_SCHEME_bf16, RANK, ROPE, (kvt_side_options){ 0 }, 0),
                     without = latent_layout(KVT_SCHEME_q8_0, 0, RANK, 0, (kvt_side_options){ 0 }, 0),
                     odd = latent_layout(KVT_SCHEME_q8_0, KVT_SCHEME_bf16, RANK, 15, (kvt_side_options){ 0 }, 0);
    kvt_layout broken = good_layout;
    broken.rope.dim--;
    unsigned char *memory = calloc(2, good_layout.page_bytes);
    const kvt_pages good_pages = { .base = memory, .stride = good_layout.page_bytes, .count = 2 };
    const kvt_mla_rows good_rows = { .size = sizeof good_rows,
                                     .rows = { x, KVT_F32, sizeof *x },
                                     .down = { down, KVT_F32, sizeof *down },
                                     .hidden_dim = HIDDEN,
                                     .norm = norm,
                                     .norm_dtype = KVT_F32,
                                     .rope_pairs = KVT_ROPE_PAIRS_HALVES,
                                     .rope_cos = turns[0],
                                     .rope_sin = turns[0] };
    EXPECT_WRITE(layout = NULL, KVT_ERR_NULL);
    EXPECT_WRITE(layout = &without, KVT_ERR_SIDE);
    EXPECT_WRITE(layout = &odd, KVT_ERR_DIM);
    EXPECT_WRITE(layout = &broken, KVT_ERR_LAYOUT);
    EXPECT_WRITE(rows.size++, KVT_ERR_STRUCT_SIZE);
    EXPECT_WRITE(rows.rows.numbers = NULL, KVT_ERR_NULL);
    EXPECT_WRITE(rows.rows.dtype = 0, KVT_ERR_DTYPE);
    EXPECT_WRITE(rows.down.dtype = 9, KVT_ERR_DTYPE);
    EXPECT_WRITE(rows.norm_dtype = 0, KVT_ERR_DTYPE);
    EXPECT_WRITE(rows.hidden_dim = 0, KVT_ERR_DIM);
    EXPECT_WRITE(rows.hidden_dim = KVT_MAX_HIDDEN + 1, KVT_ERR_DIM);
    EXPECT_WRITE(rows.norm_epsilon = -1, KVT_ERR_NUMBER);
    EXPECT_WRITE(rows.norm_epsilon = NAN, KVT_ERR_NUMBER);
    EXPECT_WRITE(rows.rope_pairs = (kvt_rope_pairs)3, KVT_ERR_OPTIONS);
    EXPECT_WRITE(rows.rope_sin = NULL, KVT_ERR_NULL);
    EXPECT_WRITE(first = 126, KVT_ERR_RANGE);
    EXPECT_WRITE(pages.base = NULL, KVT_ERR_NULL);
    EXPECT_WRITE(pages.stride--, KVT_ERR_STRIDE);
    EXPECT_WRITE((rows.down.numbers = NULL, rows.rows.row_stride = (RANK + ROPE) * sizeof(float) - 1), KVT_ERR_STRIDE);
    EXPECT_WRITE(rows.rows.row_stride = 0, KVT_ERR_STRIDE);
    EXPECT_WRITE(rows.down.row_stride = 0, KVT_ERR_STRIDE);
    EXPECT_WRITE(n = 0, KVT_OK);
    ck_assert_int_eq(kvt_mla_write(&good_layout, &good_pages, 0, 3, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_mla_write(&good_layout, NULL, 0, 3, &good_rows), KVT_ERR_NULL);

    const kvt_mla_expansion good = { .size = sizeof good,
                                     .heads = HEADS,
                                     .nope_dim = NOPE,
                                     .v_dim = V,
                                     .k_up = { up, KVT_F32, sizeof up[0][0] },
                                     .v_up = { up[0][NOPE], KVT_F32, sizeof up[0][0] },
                                     .k_up_head_stride = sizeof *up,
                                     .v_up_head_stride = sizeof *up,
                                     .dtype = KVT_F32,
                                     .k = k,
                                     .k_token_stride = sizeof *k,
                                     .k_head_stride = sizeof **k,
                                     .v = v,
                                     .v_token_stride = sizeof *v,
                                     .v_head_stride = sizeof **v };
    EXPECT_EXPAND(e.size--, KVT_ERR_STRUCT_SIZE);
    EXPECT_EXPAND(e.heads = 0, KVT_ERR_HEADS);
    EXPECT_EXPAND(e.nope_dim = 0, KVT_ERR_DIM);
    EXPECT_EXPAND(e.v_dim = KVT_MAX_DIM + 1, KVT_ERR_DIM);
    EXPECT_EXPAND(e.dtype = 0, KVT_ERR_DTYPE);
    EXPECT_EXPAND(e.k_up.numbers = NULL, KVT_ERR_NULL);
    EXPECT_EXPAND(e.v_up.dtype = 7, KVT_ERR_DTYPE);
    EXPECT_EXPAND(e.k_head_stride--, KVT_ERR_STRIDE);
    EXPECT_EXPAND(e.v_token_stride--, KVT_ERR_STRIDE);
    EXPECT_EXPAND(e.k_up.row_stride = 0, KVT_ERR_STRIDE);
    EXPECT_EXPAND(e.v_up_head_stride = 0, KVT_ERR_STRIDE);
    EXPECT_EXPAND(first = 126, KVT_ERR_RANGE);
    EXPECT_EXPAND(n = 0, KVT_OK);
    EXPECT_EXPAND(e.k = e.v = NULL, KVT_ERR_NULL);
    ck_assert_int_eq(kvt_mla_expand(&good_layout, &good_pages, 0, 3, NULL), KVT_ERR_NULL);
    kvt_spec spec = good_layout.spec;
    kvt_layout refused;
    spec.v_dim = 16;
    spec.v_scheme = KVT_SCHEME_q8_0;
    ck_assert_int_eq(kvt_layout_init(&refused, &spec), KVT_ERR_DIM); /* values beside a latent */
    spec.v_dim = 0;
    spec.rope_scheme = KVT_SCHEME_NONE;
    ck_assert_int_eq(kvt_layout_init(&refused, &spec), KVT_ERR_SCHEME);
    free(memory);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--print") == 0)
        return print();
    Suite *suite = suite_create("mla");
    TCase *tcase = tcase_create("mla");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, rows_are_exact, 0, 120 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, plain_rows, 0, 2 * (int)test_scheme_count());
    tcase_add_loop_test(tcase, expansion_is_exact, 0, 80 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, absorbed_is_expanded, 0, (int)test_scheme_count());
    tcase_add_test(tcase, bytes_per_token);
    tcase_add_test(tcase, by_hand);
    tcase_add_test(tcase, flashmla_rows);
    tcase_add_test(tcase, ggml_rows);
    tcase_add_test(tcase, deepseek_v4_blocks);
    tcase_add_loop_test(tcase, guard_pages, 0, 300 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, deepseek_v4_with_own_centres, 0, 3 * (int)test_scheme_count());
    tcase_add_loop_test(tcase, guard_pages_of_v4, 0, 2 * (int)test_scheme_count());
    tcase_add_test(tcase, smaller_and_better_than_fp8);
    tcase_add_test(tcase, golden_hashes);
    tcase_add_test(tcase, arguments);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
