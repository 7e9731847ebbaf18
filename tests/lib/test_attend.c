/* SPDX-License-Identifier: MIT */
/* Attention: against exact arithmetic in double precision on what kvt_read gives, over random layouts (values, or latents with and without a rotary
 * part), ranges and masks; the same bits on every tier, for every split, whatever unseen tokens hold, and of keys that are values too as of keys and
 * values that are alike; memory between guard pages; golden hashes; arguments. */
#include "support.h"

#include <kvtile/attend.h>

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 2200, MOST_PAGES = MOST_TOKENS / 64 + 2, MOST_DIM = 256, MOST_QUERY = MOST_DIM + 64, MOST_ROWS = 160 };

/* ---- a case ---- */

typedef struct attend_case {
    kvt_layout layouts[3];
    kvt_segment segments[3];
    void *tables[3][MOST_PAGES];
    kvt_attention a;
    size_t tokens;
    unsigned char *memory; /* pages, each once */
    size_t memory_bytes;
    float *rows[3]; /* of each side, that were written */
    unsigned char *queries, *out;
    size_t query_bytes, out_bytes;
    float sinks[KVT_MAX_GROUP];
    uint64_t seed;
} attend_case;

static const uint32_t dims[] = { 16, 24, 40, 48, 64, 80, 128, 256 };
static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };

static uint32_t pick(uint64_t *state, const uint32_t *from, uint32_t n)
{
    return from[test_below(state, n)];
}

static kvt_side_options random_options(uint64_t *state)
{
    static const uint32_t rotations[] = { 0, 0, 64, 128 }, centrings[] = { 0, 0, 1, 2 };
    return (kvt_side_options){ .rotation = (kvt_rotation)pick(state, rotations, 4), .centring = (kvt_centring)pick(state, centrings, 4) };
}

/* A number of every format. */
static void store_number(unsigned char *to, kvt_dtype dtype, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    oracle_store(to, oracle_element_bytes(dtype), dtype == KVT_F32 ? bits : oracle_narrow(oracle_row_format(dtype), bits));
}
static float load_number(const unsigned char *from, kvt_dtype dtype)
{
    uint32_t bits = oracle_load(from, oracle_element_bytes(dtype));
    if (dtype != KVT_F32)
        bits = oracle_widen(oracle_row_format(dtype), bits);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static const kvt_side_layout *side_of(const kvt_layout *layout, int side)
{
    return side == KVT_K ? &layout->k : side == KVT_V ? &layout->v : &layout->rope;
}
/* The side whose rows are the values; numbers of a query. */
static int values_of(const kvt_layout *layout)
{
    return layout->v.dim > 0 ? KVT_V : KVT_K;
}
static uint32_t query_dim(const kvt_layout *layout)
{
    return layout->k.dim + layout->rope.dim;
}
static uint32_t value_dim(const kvt_layout *layout)
{
    return side_of(layout, values_of(layout))->dim;
}

/* Garbage everywhere, then the rows: so tokens that are not written hold garbage. */
static void fill_pages(attend_case *c, uint64_t garbage)
{
    test_fill(&garbage, c->memory, c->memory_bytes);
    for (size_t s = 0; s < c->a.n_segments; s++) {
        const kvt_segment *segment = &c->segments[s];
        const size_t first = segment->first_token, end = s + 1 < c->a.n_segments ? c->segments[s + 1].first_token : c->tokens;
        const kvt_layout *layout = segment->layout;
        for (int side = KVT_K; side <= (int)KVT_ROPE; side++) {
            const uint32_t dim = side_of(layout, side)->dim;
            if (dim > 0)
                ck_assert_int_eq(kvt_write(layout, (kvt_side)side, &segment->pages, 0, end - first, c->rows[side] + first * dim, KVT_F32,
                                           (ptrdiff_t)(dim * sizeof(float))),
                                 KVT_OK);
        }
    }
}

static void make_segments(attend_case *c, uint64_t *state, kvt_spec spec)
{
    const size_t pages = (c->tokens + 63) / 64;
    size_t begins[4] = { 0, pages, pages, pages }, n = 1;
    if (pages > 2 && test_below(state, 3) == 0) {
        begins[1] = 1 + test_below(state, 2);
        begins[2] = pages - 1;
        n = begins[2] > begins[1] ? 3 : 2;
        begins[n] = pages;
    }
    size_t bytes = 0;
    for (size_t s = 0; s < n; s++) {
        if (s > 0) {
            spec.k_scheme = kvt_scheme_at(test_below(state, (uint32_t)test_scheme_count()))->scheme;
            spec.v_scheme = spec.rope_scheme = kvt_scheme_at(test_below(state, (uint32_t)test_scheme_count()))->scheme;
        }
        ck_assert_int_eq(kvt_layout_init(&c->layouts[s], &spec), KVT_OK);
        bytes += (begins[s + 1] - begins[s]) * c->layouts[s].page_bytes;
    }
    c->memory_bytes = bytes;
    c->memory = test_malloc(bytes);
    unsigned char *at = c->memory;
    const bool has_table = test_below(state, 2) == 0;
    for (size_t s = 0; s < n; s++) {
        const size_t count = begins[s + 1] - begins[s], stride = c->layouts[s].page_bytes;
        c->segments[s] = (kvt_segment){ .layout = &c->layouts[s], .first_token = begins[s] * 64 };
        c->segments[s].pages = (kvt_pages){ .base = at, .stride = stride, .count = count };
        if (has_table) {
            for (size_t p = 0; p < count; p++)
                c->tables[s][p] = at + (count - 1 - p) * stride;
            c->segments[s].pages = (kvt_pages){ .table = c->tables[s], .count = count };
        }
        at += count * stride;
    }
    c->a.segments = c->segments;
    c->a.n_segments = n;
}

/* Gaussian rows with an offset, a large channel and a large token; now and then logits that are alike, or far apart. */
static void make_rows(attend_case *c, uint64_t *state)
{
    const double large = test_below(state, 4) == 0 ? 30 : 1, offset = test_below(state, 2);
    const bool is_flat = test_below(state, 8) == 0;
    for (int side = KVT_K; side <= (int)KVT_ROPE; side++) {
        const uint32_t dim = side_of(&c->layouts[0], side)->dim;
        float *rows = c->rows[side] = test_malloc(c->tokens * dim * sizeof(float) + 1);
        for (size_t t = 0; t < c->tokens; t++)
            for (uint32_t i = 0; i < dim; i++) {
                const double x = (test_normal(state) + offset) * (i % 37 == 5 ? large : 1) * (side != KVT_V && t == 17 ? large : 1);
                rows[t * dim + i] = is_flat && side == KVT_K ? 1.0f : (float)x;
            }
    }
}

static void make_queries(attend_case *c, uint64_t *state, uint32_t k_dim, uint32_t v_dim)
{
    kvt_attention *a = &c->a;
    const size_t row = k_dim * oracle_element_bytes(a->query_dtype), out_row = v_dim * oracle_element_bytes(a->out_dtype);
    const size_t rows = (size_t)a->group * a->query_tokens;
    c->query_bytes = rows * row;
    c->queries = test_malloc(c->query_bytes);
    c->out_bytes = rows * out_row;
    c->out = test_malloc(c->out_bytes);
    const double size = test_below(state, 5) == 0 ? 20 : 1;
    for (size_t i = 0; i < rows * k_dim; i++)
        store_number(c->queries + i * oracle_element_bytes(a->query_dtype), a->query_dtype, (float)(test_normal(state) * size));
    a->queries = c->queries;
    a->out = c->out;
    a->query_head_stride = (ptrdiff_t)row;
    a->query_token_stride = (ptrdiff_t)(row * a->group);
    a->out_head_stride = (ptrdiff_t)out_row;
    a->out_token_stride = (ptrdiff_t)(out_row * a->group);
    if (test_below(state, 4) == 0) { /* backwards */
        a->out = c->out + (rows - 1) * out_row;
        a->out_head_stride = -a->out_head_stride;
        a->out_token_stride = -a->out_token_stride;
    }
}

static void make_case(attend_case *c, uint64_t seed)
{
    static const uint32_t groups[] = { 1, 2, 3, 4, 5, 7, 8, 16 }, windows[] = { 0, 0, 0, 1, 7, 64, 300 };
    static const uint32_t tokens[] = { 1, 2, 15, 16, 17, 63, 64, 65, 130, 255, 256, 257, 300, 500, 1023, 1024, 1025, 1300, 2100 };
    uint64_t state = seed;
    memset(c, 0, sizeof *c);
    c->seed = seed;
    kvt_spec spec = { .size = sizeof spec, .kv_heads = 1 };
    spec.k_scheme = kvt_scheme_at(seed % test_scheme_count())->scheme;
    spec.v_scheme = test_below(&state, 3) ? spec.k_scheme : kvt_scheme_at(test_below(&state, (uint32_t)test_scheme_count()))->scheme;
    spec.k_dim = pick(&state, dims, 8);
    spec.v_dim = test_below(&state, 3) ? spec.k_dim : pick(&state, dims, 8);
    spec.k_options = random_options(&state);
    spec.v_options = random_options(&state);
    if (test_below(&state, 3) == 0) { /* a latent */
        static const uint32_t rope_dims[] = { 0, 16, 24, 64 };
        spec.v_dim = 0;
        spec.rope_scheme = spec.v_scheme;
        spec.rope_dim = pick(&state, rope_dims, 4);
        spec.rope_options = random_options(&state);
    }
    c->tokens = pick(&state, tokens, KVT_TEST_SHARE > 1 ? 17 : 19);
    kvt_attention *a = &c->a;
    a->size = sizeof *a;
    a->group = test_below(&state, 40) == 0 ? KVT_MAX_GROUP : pick(&state, groups, 8);
    a->query_tokens = 1 + (test_below(&state, 2) ? test_below(&state, 5) : 0);
    if (a->group == KVT_MAX_GROUP)
        a->query_tokens = 1;
    a->query_dtype = dtypes[test_below(&state, 3)];
    a->out_dtype = dtypes[test_below(&state, 3)];
    a->end = c->tokens;
    a->begin = test_below(&state, 4) ? 0 : test_below(&state, (uint32_t)c->tokens + 1);
    a->position = test_below(&state, 5) == 0 ? KVT_NO_MASK : c->tokens >= a->query_tokens ? c->tokens - a->query_tokens : 0;
    a->window = a->position == KVT_NO_MASK ? 0 : pick(&state, windows, 7);
    a->scale = (float)(1 / sqrt(spec.k_dim)) * (test_below(&state, 5) ? 1 : -4);
    a->soft_cap = test_below(&state, 4) ? 0 : 5;
    if (test_below(&state, 3) == 0) {
        for (uint32_t h = 0; h < a->group; h++)
            c->sinks[h] = h % 5 == 4 ? -INFINITY : h % 7 == 6 ? 1e30f : (float)test_normal(&state);
        a->sinks = c->sinks;
    }
    make_segments(c, &state, spec);
    make_rows(c, &state);
    make_queries(c, &state, query_dim(&c->layouts[0]), value_dim(&c->layouts[0]));
    fill_pages(c, seed + 1);
}

static void free_case(attend_case *c)
{
    free(c->memory);
    for (int side = 0; side < 3; side++)
        free(c->rows[side]);
    free(c->queries);
    free(c->out);
}

static void use_tier(attend_case *c, uint32_t mask)
{
    for (size_t s = 0; s < c->a.n_segments; s++) {
        kvt_spec spec = c->layouts[s].spec;
        spec.tiers = mask;
        ck_assert_int_eq(kvt_layout_init(&c->layouts[s], &spec), KVT_OK);
    }
}

static void attend(attend_case *c)
{
    kvt_attend_sizes sizes;
    kvt_status status = kvt_attend_plan_sizes(&c->a, &sizes);
    TEST_REQUIRE(status == KVT_OK, "seed %" PRIu64 ": %s", c->seed, kvt_status_text(status));
    void *workspace = test_malloc(sizes.workspace_bytes);
    memset(workspace, 0xff, sizes.workspace_bytes);
    status = kvt_attend(&c->a, workspace);
    TEST_REQUIRE(status == KVT_OK, "seed %" PRIu64 ": %s", c->seed, kvt_status_text(status));
    free(workspace);
}

/* ---- exact arithmetic ---- */

/* Rows of a side, `stride` numbers apart. */
static void read_side(const attend_case *c, int side, float *rows, size_t stride)
{
    for (size_t s = 0; s < c->a.n_segments; s++) {
        const kvt_segment *segment = &c->segments[s];
        const size_t first = segment->first_token, end = s + 1 < c->a.n_segments ? c->segments[s + 1].first_token : c->tokens;
        ck_assert_int_eq(kvt_read(segment->layout, (kvt_side)side, &segment->pages, 0, end - first, rows + first * stride, KVT_F32,
                                  (ptrdiff_t)(stride * sizeof(float))),
                         KVT_OK);
    }
}

static bool is_float_scheme(kvt_scheme scheme)
{
    const kvt_scheme_info *info = kvt_scheme_get(scheme);
    return info->scale_bytes == 0 || info->is_fp8;
}

/* The step of a query's integers over the largest of them (formats.md, section 9). */
static double query_step(const attend_case *c)
{
    double step = 0;
    for (size_t s = 0; s < c->a.n_segments; s++)
        for (int side = KVT_K; side <= (int)KVT_ROPE; side += KVT_ROPE) {
            const kvt_scheme_info *info = kvt_scheme_get(side_of(&c->layouts[s], side)->scheme);
            const double of_it = !info || is_float_scheme(info->scheme) ? 0 : info->bits > 5 ? 1 / 32639.0 : 1 / 127.0;
            step = of_it > step ? of_it : step;
        }
    return step;
}

static bool rotates(const attend_case *c, int side)
{
    const kvt_spec *spec = &c->layouts[0].spec;
    const kvt_side_options *options = side == KVT_K ? &spec->k_options : side == KVT_V ? &spec->v_options : &spec->rope_options;
    return side_of(&c->layouts[0], side)->dim > 0 && options->rotation != 0;
}
static bool rotates_queries(const attend_case *c)
{
    return rotates(c, KVT_K) || rotates(c, KVT_ROPE);
}

typedef struct exact {
    float *k, *v;
    double *logits;
} exact;

/* Exact output of one row, and the bound of what ours may differ by:
 *   logits   half a step times the sum of |k|, and float rounding: 2^-22 of the sum of |q k| in all. A rotation makes sums of up to 128 numbers of
 * both, so step and sum may grow by its square root together (|k|_1 <= sqrt(n) |k|_2); a soft cap lets nothing grow. With every logit off by at most
 * d, weights are off by a factor within e^2d.
 *   weights  of 16 bits, times scales of 16 bits, rounded to 16 bits: 2 / 32639 of the largest product in the page, for each of its tokens. A scale
 * is at most 4 times what its block's largest number needs. Those of a byte, for codes of at most 5 bits, are off by half of 1 / 255, to either side:
 * six times the root of so many. Relative to the row's sum of weights, which is 1 at least in its largest page; rotating back adds up sqrt(128) of
 * such errors. floats   2^-17 of the largest value for long sums, and the rounding of `out` */
static double bound_of(const attend_case *c, double l1_kq, double step_sum, double largest_v, size_t seen, double sum)
{
    const bool rotates_k = rotates_queries(c), rotates_v = rotates(c, values_of(&c->layouts[0]));
    const double d = (step_sum / 2 + 0x1p-22 * l1_kq) * (rotates_k ? sqrt(128) : 1) * fabs((double)c->a.scale);
    double of_tokens = 0; /* of all pages, in multiples of the largest product */
    for (size_t s = 0; s < c->a.n_segments; s++) {
        const kvt_scheme_info *info = kvt_scheme_get(side_of(&c->layouts[s], values_of(&c->layouts[s]))->scheme);
        if (!is_float_scheme(info->scheme))
            of_tokens = fmax(of_tokens, 2 / 32639.0 * (double)seen + (info->bits <= 5 ? 0.5 / 255 * 6 * sqrt((double)seen) : 0));
    }
    const double of_weights = 4 * largest_v * of_tokens / sum * (rotates_v ? sqrt(128) : 1);
    const double rounding = c->a.out_dtype == KVT_F32 ? 0x1p-17 : c->a.out_dtype == KVT_F16 ? 0x1p-11 : 0x1p-8;
    return (exp(2 * d) - 1) * 2 * largest_v + of_weights + (rounding + 0x1p-17) * largest_v * 2 + 1e-6;
}

static void check_row(const attend_case *c, const exact *e, uint32_t i, uint32_t h)
{
    const kvt_attention *a = &c->a;
    const uint32_t k_dim = query_dim(&c->layouts[0]), v_dim = value_dim(&c->layouts[0]);
    const size_t last = a->position == KVT_NO_MASK ? 0 : a->position + i;
    size_t first = a->begin, end = a->end;
    if (a->position != KVT_NO_MASK) {
        end = last + 1 < end ? last + 1 : end;
        if (a->window && last + 1 > a->window && last + 1 - a->window > first)
            first = last + 1 - a->window;
    }
    const unsigned char *q_row = c->queries + (ptrdiff_t)i * a->query_token_stride + (ptrdiff_t)h * a->query_head_stride;
    const unsigned char *out = (const unsigned char *)a->out + (ptrdiff_t)i * a->out_token_stride + (ptrdiff_t)h * a->out_head_stride;
    double q[MOST_QUERY], l2_q = 0, largest_q = 0, largest = a->sinks ? a->sinks[h] : -INFINITY, l1_kq = 0, step_sum = 0, largest_v = 0;
    for (uint32_t j = 0; j < k_dim; j++) {
        q[j] = load_number(q_row + j * oracle_element_bytes(a->query_dtype), a->query_dtype);
        l2_q += q[j] * q[j];
        largest_q = fmax(largest_q, fabs(q[j]));
    }
    const bool is_rotated = rotates_queries(c);
    const double step = query_step(c) * (is_rotated ? sqrt(l2_q) / sqrt(128) : largest_q); /* the bound puts the root back */
    for (size_t t = first; t < end; t++) {
        double logit = 0, l1 = 0, l1_k = 0, l2_k = 0;
        for (uint32_t j = 0; j < k_dim; j++) {
            const double k = e->k[t * k_dim + j];
            logit += q[j] * k;
            l1 += fabs(q[j] * k);
            l1_k += fabs(k);
            l2_k += k * k;
        }
        l1 = is_rotated ? sqrt(l2_q * l2_k) : l1;
        l1_kq = fmax(l1_kq, l1);
        step_sum = fmax(step_sum, step * (is_rotated ? sqrt(l2_k) * sqrt(c->layouts[0].k.padded_dim + c->layouts[0].rope.padded_dim) : l1_k));
        logit *= (double)a->scale;
        e->logits[t] = a->soft_cap != 0 ? a->soft_cap * tanh(logit / a->soft_cap) : logit;
        largest = fmax(largest, e->logits[t]);
    }
    double sum = a->sinks ? exp(a->sinks[h] - largest) : 0, of_tokens = 0, o[MOST_DIM] = { 0 };
    for (size_t t = first; t < end; t++) {
        const double w = exp(e->logits[t] - largest);
        sum += w;
        of_tokens = fmax(of_tokens, w);
        for (uint32_t j = 0; j < v_dim; j++) {
            o[j] += w * e->v[t * v_dim + j];
            largest_v = fmax(largest_v, fabs((double)e->v[t * v_dim + j]));
        }
    }
    /* Where a sink takes nearly all, what is left is as exact, relative to it, as it would be without. */
    const double bound = bound_of(c, l1_kq, step_sum, largest_v, end > first ? end - first : 0, of_tokens > 0 ? sum / of_tokens : 1);
    for (uint32_t j = 0; j < v_dim; j++) {
        const double want = sum > 0 ? o[j] / sum : 0, got = load_number(out + j * oracle_element_bytes(a->out_dtype), a->out_dtype);
        TEST_REQUIRE(fabs(got - want) <= bound, "seed %" PRIu64 ", row %u.%u, channel %u: %g, not %g (bound %g)", c->seed, i, h, j, got, want, bound);
    }
}

static void check_case(attend_case *c)
{
    exact e = { test_malloc(c->tokens * MOST_QUERY * 4), test_malloc(c->tokens * MOST_DIM * 4), test_malloc(c->tokens * sizeof(double)) };
    const kvt_layout *layout = &c->layouts[0];
    read_side(c, KVT_K, e.k, query_dim(layout));
    if (layout->rope.dim > 0)
        read_side(c, KVT_ROPE, e.k + layout->k.dim, query_dim(layout));
    read_side(c, values_of(layout), e.v, value_dim(layout));
    for (uint32_t i = 0; i < c->a.query_tokens; i++)
        for (uint32_t h = 0; h < c->a.group; h++)
            check_row(c, &e, i, h);
    free(e.k);
    free(e.v);
    free(e.logits);
}

/* ---- the same bits ---- */

static void expect_same(const attend_case *c, const unsigned char *want, const char *what)
{
    const size_t at = test_difference(c->out, want, c->out_bytes);
    TEST_REQUIRE(at == c->out_bytes, "seed %" PRIu64 ", %s: byte %zu differs", c->seed, what, at);
}

static void attend_in_chunks(attend_case *c)
{
    kvt_attend_sizes sizes;
    ck_assert_int_eq(kvt_attend_plan_sizes(&c->a, &sizes), KVT_OK);
    void *workspace = test_malloc(sizes.workspace_bytes), *partials = test_malloc(sizes.chunks * sizes.partial_bytes + 1);
    for (size_t chunk = sizes.chunks; chunk-- > 0;)
        ck_assert_int_eq(kvt_attend_chunks(&c->a, chunk, 1, partials, workspace), KVT_OK);
    ck_assert_int_eq(kvt_merge(&c->a, partials, workspace), KVT_OK);
    free(workspace);
    free(partials);
}

/* Every row by itself. */
static void attend_in_rows(attend_case *c)
{
    const kvt_attention all = c->a;
    for (uint32_t i = 0; i < all.query_tokens; i++)
        for (uint32_t h = 0; h < all.group; h++) {
            c->a.group = c->a.query_tokens = 1;
            c->a.queries = (const unsigned char *)all.queries + (ptrdiff_t)i * all.query_token_stride + (ptrdiff_t)h * all.query_head_stride;
            c->a.out = (unsigned char *)all.out + (ptrdiff_t)i * all.out_token_stride + (ptrdiff_t)h * all.out_head_stride;
            c->a.position = all.position == KVT_NO_MASK ? KVT_NO_MASK : all.position + i;
            c->a.end = c->a.position == 0 && all.end > 1 ? 1 : all.end; /* position 0 is that of a first token only */
            c->a.sinks = all.sinks ? all.sinks + h : NULL;
            attend(c);
            c->a = all;
        }
}

START_TEST(random_cases)
{
    static attend_case c;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    make_case(&c, 1000 + (uint64_t)_i * KVT_TEST_SHARE);
    use_tier(&c, tiers[0].mask);
    attend(&c);
    check_case(&c);
    unsigned char *want = test_malloc(c.out_bytes);
    memcpy(want, c.out, c.out_bytes);
    for (size_t t = 0; t < n_tiers; t++) {
        use_tier(&c, tiers[t].mask);
        memset(c.out, 0xa5, c.out_bytes);
        attend(&c);
        expect_same(&c, want, tiers[t].name);
    }
    memset(c.out, 0xa5, c.out_bytes);
    attend_in_chunks(&c);
    expect_same(&c, want, "chunks, the last one first");
    memset(c.out, 0xa5, c.out_bytes);
    attend_in_rows(&c);
    expect_same(&c, want, "every row by itself");
    fill_pages(&c, 77);
    memset(c.out, 0xa5, c.out_bytes);
    attend(&c);
    expect_same(&c, want, "other bytes where nothing was written");
    for (size_t s = 0; s < c.a.n_segments; s++) {
        kvt_spec spec = c.layouts[s].spec;
        spec.tiers = tiers[(s + (size_t)_i) % n_tiers].mask;
        ck_assert_int_eq(kvt_layout_init(&c.layouts[s], &spec), KVT_OK);
    }
    memset(c.out, 0xa5, c.out_bytes);
    attend(&c);
    expect_same(&c, want, "segments of different tiers");
    free(want);
    free_case(&c);
}
END_TEST

/* Keys that are values too, against the same rows stored twice. */
START_TEST(latents_are_keys_and_values)
{
    static attend_case c;
    uint64_t seed = 300000 + (uint64_t)_i * KVT_TEST_SHARE;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    make_case(&c, seed);
    const size_t numbers = c.tokens * c.layouts[0].k.dim;
    float *keys = test_malloc(numbers * sizeof(float));
    memcpy(keys, c.rows[KVT_K], numbers * sizeof(float));
    size_t bytes = 0;
    for (int twice = 1; twice >= 0; twice--) {
        unsigned char *want = test_malloc(c.out_bytes);
        for (size_t s = 0; s < c.a.n_segments; s++) {
            kvt_spec spec = c.layouts[s].spec;
            spec.v_scheme = spec.k_scheme;
            spec.v_dim = twice ? spec.k_dim : 0;
            spec.rope_dim = 0;
            spec.v_options = spec.k_options;
            ck_assert_int_eq(kvt_layout_init(&c.layouts[s], &spec), KVT_OK);
            bytes = c.layouts[s].page_bytes > bytes ? c.layouts[s].page_bytes : bytes;
        }
        if (twice) { /* a page each, of the largest of them */
            free(c.memory);
            c.memory_bytes = bytes * c.a.n_segments * MOST_PAGES;
            c.memory = test_malloc(c.memory_bytes);
            for (size_t s = 0; s < c.a.n_segments; s++)
                c.segments[s].pages = (kvt_pages){ .base = c.memory + s * bytes * MOST_PAGES, .stride = bytes, .count = c.segments[s].pages.count };
            for (int side = 0; side < 2; side++) {
                free(c.rows[side]);
                c.rows[side] = test_malloc(numbers * sizeof(float));
                memcpy(c.rows[side], keys, numbers * sizeof(float));
            }
            const uint64_t again = seed;
            free(c.queries);
            free(c.out);
            uint64_t state = again;
            make_queries(&c, &state, c.layouts[0].k.dim, c.layouts[0].k.dim);
            want = realloc(want, c.out_bytes);
        }
        fill_pages(&c, seed);
        for (size_t t = 0; t < (twice ? 1 : n_tiers); t++) {
            use_tier(&c, tiers[t].mask);
            memcpy(want, c.out, c.out_bytes);
            memset(c.out, 0xa5, c.out_bytes);
            attend(&c);
            if (!twice)
                expect_same(&c, want, tiers[t].name);
        }
        free(want);
    }
    free(keys);
    free_case(&c);
}
END_TEST

/* Any bytes: no tier crashes, all agree, and the only NaN is the quiet positive one. */
START_TEST(garbage)
{
    static attend_case c;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    make_case(&c, 500000 + (uint64_t)_i * KVT_TEST_SHARE);
    c.a.out_dtype = KVT_F32;
    if (c.a.out_head_stride < 0 || c.out_bytes < (size_t)value_dim(&c.layouts[0]) * 4 * c.a.group * c.a.query_tokens) {
        free(c.out);
        c.out_bytes = (size_t)value_dim(&c.layouts[0]) * 4 * c.a.group * c.a.query_tokens;
        c.out = test_malloc(c.out_bytes);
    } else {
        c.out_bytes = (size_t)value_dim(&c.layouts[0]) * 4 * c.a.group * c.a.query_tokens;
    }
    c.a.out = c.out;
    c.a.out_head_stride = (ptrdiff_t)value_dim(&c.layouts[0]) * 4;
    c.a.out_token_stride = c.a.out_head_stride * (ptrdiff_t)c.a.group;
    uint64_t state = (uint64_t)_i;
    test_fill(&state, c.memory, c.memory_bytes);
    if (_i % 3 == 0)
        test_fill(&state, c.queries, c.query_bytes);
    unsigned char *want = test_malloc(c.out_bytes);
    for (size_t t = 0; t < n_tiers; t++) {
        use_tier(&c, tiers[t].mask);
        attend(&c);
        if (t == 0)
            memcpy(want, c.out, c.out_bytes);
        expect_same(&c, want, tiers[t].name);
    }
    for (size_t i = 0; i < c.out_bytes; i += 4) {
        const uint32_t bits = oracle_load(c.out + i, 4);
        TEST_REQUIRE((bits & 0x7fffffff) <= 0x7f800000 || bits == 0x7fc00000, "seed %" PRIu64 ": NaN %08x", c.seed, bits);
    }
    free(want);
    free_case(&c);
}
END_TEST

/* ---- Gaussian data: how much arithmetic adds ---- */

enum { GAUSS_TOKENS = 700, GAUSS_DIM = 128, GAUSS_GROUP = 4 };

/* Error energy relative to exact arithmetic on the same codes: queries of 16 bits leave more than 75 dB, those of a byte 38, floats 110. */
START_TEST(little_is_added)
{
    static attend_case c;
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i);
    memset(&c, 0, sizeof c);
    uint64_t state = 4;
    c.tokens = GAUSS_TOKENS;
    kvt_spec spec = test_spec(info->scheme, info->scheme, GAUSS_DIM, GAUSS_DIM);
    ck_assert_int_eq(kvt_layout_init(&c.layouts[0], &spec), KVT_OK);
    c.memory_bytes = (GAUSS_TOKENS + 63) / 64 * c.layouts[0].page_bytes;
    c.memory = test_malloc(c.memory_bytes);
    c.segments[0] =
        (kvt_segment){ .layout = &c.layouts[0], .pages = { .base = c.memory, .stride = c.layouts[0].page_bytes, .count = (GAUSS_TOKENS + 63) / 64 } };
    c.a = (kvt_attention){ .size = sizeof c.a,
                           .segments = c.segments,
                           .n_segments = 1,
                           .end = GAUSS_TOKENS,
                           .position = GAUSS_TOKENS - 1,
                           .group = GAUSS_GROUP,
                           .query_tokens = 1,
                           .query_dtype = KVT_F32,
                           .out_dtype = KVT_F32,
                           .scale = 0.0884f };
    for (int side = 0; side < 2; side++)
        c.rows[side] = test_malloc(GAUSS_TOKENS * GAUSS_DIM * sizeof(float));
    for (size_t i = 0; i < GAUSS_TOKENS * GAUSS_DIM; i++) {
        c.rows[KVT_K][i] = (float)test_normal(&state);
        c.rows[KVT_V][i] = (float)test_normal(&state);
    }
    make_queries(&c, &state, GAUSS_DIM, GAUSS_DIM);
    fill_pages(&c, 5);
    attend(&c);
    float *k = test_malloc(GAUSS_TOKENS * GAUSS_DIM * 4), *v = test_malloc(GAUSS_TOKENS * GAUSS_DIM * 4);
    read_side(&c, KVT_K, k, GAUSS_DIM);
    read_side(&c, KVT_V, v, GAUSS_DIM);
    double signal = 0, error = 0;
    for (uint32_t h = 0; h < GAUSS_GROUP; h++) {
        double o[GAUSS_DIM] = { 0 }, sum = 0;
        const float *q = (const float *)(const void *)(c.queries + h * GAUSS_DIM * 4);
        const float *out = (const float *)(const void *)((unsigned char *)c.a.out + (ptrdiff_t)h * c.a.out_head_stride);
        for (size_t t = 0; t < GAUSS_TOKENS; t++) {
            double logit = 0;
            for (size_t j = 0; j < GAUSS_DIM; j++)
                logit += (double)q[j] * k[t * GAUSS_DIM + j];
            const double w = exp(logit * (double)c.a.scale);
            sum += w;
            for (size_t j = 0; j < GAUSS_DIM; j++)
                o[j] += w * v[t * GAUSS_DIM + j];
        }
        for (size_t j = 0; j < GAUSS_DIM; j++) {
            signal += o[j] / sum * (o[j] / sum);
            error += (out[j] - o[j] / sum) * (out[j] - o[j] / sum);
        }
    }
    const double db = 10 * log10(signal / error), least = is_float_scheme(info->scheme) ? 110 : info->bits > 5 ? 75 : 38;
    ck_assert_msg(db > least, "%s: %.1f dB, less than %.0f", info->name, db, least);
    free(k);
    free(v);
    free_case(&c);
}
END_TEST

/* ---- what is not finite ---- */

START_TEST(nan_stays_where_it_is_seen)
{
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    for (size_t s = 0; s < test_scheme_count(); s++)
        for (size_t tier = 0; tier < n_tiers; tier++) {
            enum { DIM = 64, TOKENS = 300, BAD = 270 };
            const kvt_scheme_info *info = kvt_scheme_at(s);
            const kvt_layout layout = test_layout(info->scheme, info->scheme, DIM, DIM, 1, tiers[tier].mask);
            static float rows[TOKENS][DIM], q[2][DIM], out[2][DIM];
            unsigned char *memory = test_malloc(5 * layout.page_bytes), *workspace;
            kvt_segment segment = { .layout = &layout, .pages = { .base = memory, .stride = layout.page_bytes, .count = 5 } };
            uint64_t state = s;
            for (size_t i = 0; i < (size_t)TOKENS * DIM; i++)
                rows[i / DIM][i % DIM] = (float)test_normal(&state);
            for (size_t i = 0; i < (size_t)2 * DIM; i++)
                q[i / DIM][i % DIM] = (float)test_normal(&state);
            ck_assert_int_eq(kvt_write(&layout, KVT_K, &segment.pages, 0, TOKENS, rows, KVT_F32, sizeof rows[0]), KVT_OK);
            rows[BAD][40] = NAN;
            ck_assert_int_eq(kvt_write(&layout, KVT_V, &segment.pages, 0, TOKENS, rows, KVT_F32, sizeof rows[0]), KVT_OK);
            kvt_attention a = { .size = sizeof a,
                                .segments = &segment,
                                .n_segments = 1,
                                .end = TOKENS,
                                .position = BAD - 1,
                                .group = 1,
                                .query_tokens = 2,
                                .queries = q,
                                .query_dtype = KVT_F32,
                                .query_token_stride = sizeof q[0],
                                .out = out,
                                .out_dtype = KVT_F32,
                                .out_token_stride = sizeof out[0],
                                .scale = 0.125f };
            kvt_attend_sizes sizes;
            ck_assert_int_eq(kvt_attend_plan_sizes(&a, &sizes), KVT_OK);
            workspace = test_malloc(sizes.workspace_bytes);
            ck_assert_int_eq(kvt_attend(&a, workspace), KVT_OK);
            float back[DIM];
            ck_assert_int_eq(kvt_read(&layout, KVT_V, &segment.pages, BAD, 1, back, KVT_F32, sizeof back), KVT_OK);
            for (size_t c = 0; c < DIM; c++) {
                TEST_REQUIRE(isfinite(out[0][c]), "%s, %s: a row sees a NaN that is not before it", info->name, tiers[tier].name);
                TEST_REQUIRE(isnan(out[1][c]) == isnan(back[c]), "%s, %s: channel %zu", info->name, tiers[tier].name, c);
            }
            ck_assert_int_eq(kvt_write(&layout, KVT_K, &segment.pages, BAD, 1, rows[BAD], KVT_F32, 0), KVT_OK);
            ck_assert_int_eq(kvt_attend(&a, workspace), KVT_OK);
            ck_assert_int_eq(kvt_read(&layout, KVT_K, &segment.pages, BAD, 1, back, KVT_F32, sizeof back), KVT_OK);
            for (size_t c = 0; c < DIM; c++)
                TEST_REQUIRE(isfinite(out[0][c]) && isnan(out[1][c]), "%s, %s: a key that is NaN", info->name, tiers[tier].name);
            q[0][3] = INFINITY;
            ck_assert_int_eq(kvt_attend(&a, workspace), KVT_OK);
            for (size_t c = 0; c < DIM; c++)
                TEST_REQUIRE(isnan(out[0][c]), "%s, %s: a query that is infinite", info->name, tiers[tier].name);
            free(memory);
            free(workspace);
        }
}
END_TEST

/* ---- what is tiny ---- */

/* Numbers over the whole range of exponents: the same bits whether or not subnormal ones are flushed. */
START_TEST(flushing)
{
    static attend_case c;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    make_case(&c, 700000 + (uint64_t)_i * KVT_TEST_SHARE);
    uint64_t state = (uint64_t)_i;
    for (int side = KVT_K; side <= (int)KVT_ROPE; side++)
        for (size_t i = 0; i < c.tokens * side_of(&c.layouts[0], side)->dim; i++)
            c.rows[side][i] = ldexpf(c.rows[side][i], 4 - (int)test_below(&state, 150));
    const size_t bytes = oracle_element_bytes(c.a.query_dtype);
    for (size_t i = 0; i < c.query_bytes; i += bytes)
        store_number(c.queries + i, c.a.query_dtype, ldexpf(load_number(c.queries + i, c.a.query_dtype), 4 - (int)test_below(&state, 150)));
    fill_pages(&c, (uint64_t)_i);
    unsigned char *want = test_malloc(c.out_bytes);
    for (size_t t = 0; t < n_tiers; t++) {
        use_tier(&c, tiers[t].mask);
        for (int flushes = 0; flushes < 2; flushes++) {
            memset(c.out, 0xa5, c.out_bytes);
            test_flush_subnormals(flushes != 0);
            attend(&c);
            test_flush_subnormals(false);
            if (t == 0 && !flushes)
                memcpy(want, c.out, c.out_bytes);
            expect_same(&c, want, tiers[t].name);
        }
    }
    free(want);
    free_case(&c);
}
END_TEST

/* ---- memory ---- */

START_TEST(guard_pages)
{
    static attend_case c;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    make_case(&c, 900000 + (uint64_t)_i * KVT_TEST_SHARE);
    kvt_attend_sizes sizes;
    ck_assert_int_eq(kvt_attend_plan_sizes(&c.a, &sizes), KVT_OK);
    const bool at_end = _i % 2 == 0;
    test_arena memory = test_arena_make(c.memory_bytes), queries = test_arena_make(c.query_bytes), out = test_arena_make(c.out_bytes),
               workspace = test_arena_make(sizes.workspace_bytes), partials = test_arena_make(sizes.chunks * sizes.partial_bytes + 64);
    unsigned char *old = c.memory, *moved = test_arena_flush(&memory, c.memory_bytes, at_end);
    memcpy(moved, old, c.memory_bytes);
    for (size_t s = 0; s < c.a.n_segments; s++) {
        kvt_pages *pages = &c.segments[s].pages;
        for (size_t p = 0; pages->table && p < pages->count; p++)
            c.tables[s][p] = moved + ((unsigned char *)c.tables[s][p] - old);
        if (!pages->table)
            pages->base = moved + ((unsigned char *)pages->base - old);
    }
    unsigned char *q = test_arena_flush(&queries, c.query_bytes, at_end), *o = test_arena_flush(&out, c.out_bytes, at_end);
    memcpy(q, c.queries, c.query_bytes);
    c.a.queries = q;
    c.a.out = o + ((unsigned char *)c.a.out - c.out);
    unsigned char *w = test_arena_flush(&workspace, sizes.workspace_bytes, at_end);
    unsigned char *p = test_arena_flush(&partials, sizes.chunks * sizes.partial_bytes, at_end);
    for (size_t t = 0; t < n_tiers; t++) {
        use_tier(&c, tiers[t].mask);
        ck_assert_int_eq(kvt_attend(&c.a, w), KVT_OK);
        if (sizes.chunks > 0) {
            ck_assert_int_eq(kvt_attend_chunks(&c.a, 0, sizes.chunks, p, w), KVT_OK);
            ck_assert_int_eq(kvt_merge(&c.a, p, w), KVT_OK);
        }
    }
    free_case(&c);
}
END_TEST

/* ---- golden hashes ---- */

typedef struct golden {
    const char *scheme;
    uint32_t dim;
    uint64_t hash;
} golden;

static const golden goldens[] = {
#define KVT_GOLDEN_ROW(scheme, dim, hash) { #scheme, dim, hash },
#include "golden_attend.def"
#undef KVT_GOLDEN_ROW
};
static const uint32_t golden_dims[] = { 64, 128, 80 };

/* 1100 tokens, three query tokens of five heads; at the smallest dim with rotation, centring, window, soft cap and sinks. */
static uint64_t hash_of(const char *name, uint32_t dim, uint32_t tiers)
{
    enum { TOKENS = 1100, PAGES = (TOKENS + 63) / 64, GROUP = 5, ASKING = 3 };
    kvt_spec spec = test_spec(kvt_scheme_find(name)->scheme, kvt_scheme_find(name)->scheme, dim, dim);
    spec.tiers = tiers;
    if (dim == 64) {
        spec.k_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_PAGE };
        spec.v_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_SEQUENCE };
    }
    kvt_layout layout;
    if (kvt_layout_init(&layout, &spec) != KVT_OK)
        abort();
    unsigned char *memory = test_malloc(PAGES * layout.page_bytes);
    kvt_segment segment = { .layout = &layout, .pages = { .base = memory, .stride = layout.page_bytes, .count = PAGES } };
    float *rows = test_malloc((size_t)TOKENS * dim * 4), *q = test_malloc((size_t)ASKING * GROUP * dim * 4),
          *out = test_malloc((size_t)ASKING * GROUP * dim * 4);
    uint64_t state = dim;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < (size_t)TOKENS * dim; i++)
            rows[i] = (float)(test_normal(&state) * (i % dim == 5 ? 8 : 1) + 0.5);
        if (kvt_write(&layout, (kvt_side)side, &segment.pages, 0, TOKENS, rows, KVT_F32, (ptrdiff_t)dim * 4) != KVT_OK)
            abort();
    }
    for (size_t i = 0; i < (size_t)ASKING * GROUP * dim; i++)
        q[i] = (float)test_normal(&state);
    static const float sinks[GROUP] = { 0.5f, -1, 2, 0, 1 };
    const kvt_attention a = { .size = sizeof a,
                              .segments = &segment,
                              .n_segments = 1,
                              .end = TOKENS,
                              .position = TOKENS - ASKING,
                              .group = GROUP,
                              .query_tokens = ASKING,
                              .queries = q,
                              .query_dtype = KVT_F32,
                              .query_head_stride = (ptrdiff_t)dim * 4,
                              .query_token_stride = (ptrdiff_t)dim * 4 * GROUP,
                              .out = out,
                              .out_dtype = KVT_F32,
                              .out_head_stride = (ptrdiff_t)dim * 4,
                              .out_token_stride = (ptrdiff_t)dim * 4 * GROUP,
                              .scale = 0.125f,
                              .window = dim == 64 ? 900 : 0,
                              .soft_cap = dim == 64 ? 3 : 0,
                              .sinks = dim == 64 ? sinks : NULL };
    kvt_attend_sizes sizes;
    if (kvt_attend_plan_sizes(&a, &sizes) != KVT_OK)
        abort();
    void *workspace = test_malloc(sizes.workspace_bytes);
    if (kvt_attend(&a, workspace) != KVT_OK)
        abort();
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; i < (size_t)ASKING * GROUP * dim * 4; i++)
        hash = (hash ^ ((const unsigned char *)out)[i]) * 0x100000001b3;
    free(memory);
    free(rows);
    free(q);
    free(out);
    free(workspace);
    return hash;
}

START_TEST(golden_hashes)
{
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    ck_assert_uint_eq(sizeof goldens / sizeof *goldens, test_scheme_count() * 3);
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        for (size_t t = 0; t < n_tiers; t++) {
            const uint64_t hash = hash_of(goldens[i].scheme, goldens[i].dim, tiers[t].mask);
            ck_assert_msg(hash == goldens[i].hash, "%s, dim %u, tier %s: 0x%016" PRIx64, goldens[i].scheme, goldens[i].dim, tiers[t].name, hash);
        }
}
END_TEST

static int print(void)
{
    printf("/* SPDX-License-Identifier: MIT */\n"
           "/* Made by test_attend --print: what kvt_attend gives for a fixed stream of numbers, on every tier and with every compiler.\n"
           " *\n"
           " *   KVT_GOLDEN_ROW(scheme, head_dim, hash of the results)\n"
           " */\n");
    for (size_t s = 0; s < test_scheme_count(); s++)
        for (size_t d = 0; d < 3; d++)
            printf("KVT_GOLDEN_ROW(%s, %" PRIu32 ", 0x%016" PRIx64 ")\n", kvt_scheme_at(s)->name, golden_dims[d],
                   hash_of(kvt_scheme_at(s)->name, golden_dims[d], 0));
    return 0;
}

/* ---- threads ---- */

enum { WORKERS = 4, HEADS = 3, THREAD_TOKENS = 3000, THREAD_DIM = 64, THREAD_GROUP = 3, THREAD_PAGES = (THREAD_TOKENS + 63) / 64 };

typedef struct job {
    const kvt_attention *heads;
    unsigned char **partials;
    size_t chunks;
    uint32_t worker;
    kvt_status status;
    void *workspace;
} job;

static void *run_worker(void *argument)
{
    job *j = argument;
    size_t first, count;
    j->status = kvt_attend_plan(HEADS, j->chunks, WORKERS, j->worker, &first, &count);
    for (size_t u = first; j->status == KVT_OK && u < first + count; u++)
        j->status = kvt_attend_chunks(&j->heads[u / j->chunks], u % j->chunks, 1, j->partials[u / j->chunks], j->workspace);
    return NULL;
}

START_TEST(workers)
{
    const kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    const kvt_layout layout = test_layout(scheme, scheme, THREAD_DIM, THREAD_DIM, HEADS, 0);
    unsigned char *memory = test_malloc(HEADS * THREAD_PAGES * layout.page_bytes);
    float *rows = test_malloc((size_t)THREAD_TOKENS * THREAD_DIM * 4);
    static float q[HEADS][THREAD_GROUP][THREAD_DIM], alone[HEADS][THREAD_GROUP][THREAD_DIM], together[HEADS][THREAD_GROUP][THREAD_DIM];
    uint64_t state = 8;
    for (uint32_t i = 0; i < HEADS * THREAD_GROUP * THREAD_DIM; i++)
        q[i / THREAD_DIM / THREAD_GROUP][i / THREAD_DIM % THREAD_GROUP][i % THREAD_DIM] = (float)test_normal(&state);
    for (size_t i = 0; i < (size_t)THREAD_TOKENS * THREAD_DIM; i++)
        rows[i] = (float)test_normal(&state);
    kvt_segment segments[HEADS];
    kvt_attention heads[HEADS];
    kvt_attend_sizes sizes;
    unsigned char *partials[HEADS];
    for (uint32_t h = 0; h < HEADS; h++) {
        segments[h] = (kvt_segment){ .layout = &layout };
        ck_assert_int_eq(kvt_head_pages(&layout, memory, THREAD_TOKENS, h, &segments[h].pages), KVT_OK);
        for (int side = 0; side < 2; side++)
            ck_assert_int_eq(kvt_write(&layout, (kvt_side)side, &segments[h].pages, 0, THREAD_TOKENS, rows, KVT_F32, THREAD_DIM * 4), KVT_OK);
        heads[h] = (kvt_attention){ .size = sizeof *heads,
                                    .segments = &segments[h],
                                    .n_segments = 1,
                                    .end = THREAD_TOKENS,
                                    .position = THREAD_TOKENS - 1,
                                    .group = THREAD_GROUP,
                                    .query_tokens = 1,
                                    .queries = q[h],
                                    .query_dtype = KVT_F32,
                                    .query_head_stride = THREAD_DIM * 4,
                                    .out = alone[h],
                                    .out_dtype = KVT_F32,
                                    .out_head_stride = THREAD_DIM * 4,
                                    .scale = 0.125f };
        ck_assert_int_eq(kvt_attend_plan_sizes(&heads[h], &sizes), KVT_OK);
        partials[h] = test_malloc(sizes.chunks * sizes.partial_bytes);
    }
    void *workspace = test_malloc(sizes.workspace_bytes);
    for (uint32_t h = 0; h < HEADS; h++) {
        ck_assert_int_eq(kvt_attend(&heads[h], workspace), KVT_OK);
        heads[h].out = together[h];
    }
    pthread_t threads[WORKERS];
    job jobs[WORKERS];
    for (uint32_t w = 0; w < WORKERS; w++) {
        jobs[w] = (job){ .heads = heads, .partials = partials, .chunks = sizes.chunks, .worker = w, .workspace = test_malloc(sizes.workspace_bytes) };
        ck_assert_int_eq(pthread_create(&threads[w], NULL, run_worker, &jobs[w]), 0);
    }
    for (uint32_t w = 0; w < WORKERS; w++) {
        ck_assert_int_eq(pthread_join(threads[w], NULL), 0);
        ck_assert_int_eq(jobs[w].status, KVT_OK);
        free(jobs[w].workspace);
    }
    for (uint32_t h = 0; h < HEADS; h++) {
        ck_assert_int_eq(kvt_merge(&heads[h], partials[h], workspace), KVT_OK);
        free(partials[h]);
    }
    ck_assert_mem_eq(alone, together, sizeof alone);
    free(workspace);
    free(memory);
    free(rows);
}
END_TEST

START_TEST(plan_covers_all)
{
    for (size_t heads = 0; heads <= 5; heads++)
        for (size_t chunks = 0; chunks <= 7; chunks++)
            for (uint32_t n = 1; n <= 9; n++) {
                size_t next = 0;
                for (uint32_t w = 0; w < n; w++) {
                    size_t first, count;
                    ck_assert_int_eq(kvt_attend_plan(heads, chunks, n, w, &first, &count), KVT_OK);
                    ck_assert_uint_eq(first, next);
                    ck_assert_uint_le(count, (heads * chunks + n - 1) / n);
                    next += count;
                }
                ck_assert_uint_eq(next, heads * chunks);
            }
    size_t first = 7, count = 7;
    ck_assert_int_eq(kvt_attend_plan(1, 1, 2, 2, &first, &count), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_attend_plan(1, 1, 0, 0, &first, &count), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_attend_plan(SIZE_MAX, 2, 1, 0, &first, &count), KVT_ERR_OVERFLOW);
    ck_assert_int_eq(kvt_attend_plan(1, 1, 1, 0, NULL, &count), KVT_ERR_NULL);
    ck_assert_uint_eq(first, 7);
}
END_TEST

/* ---- arguments ---- */

#define EXPECT(change, status)                                                                                                                       \
    do {                                                                                                                                             \
        kvt_attention a = good;                                                                                                                      \
        kvt_segment segments[2] = { segment, second };                                                                                               \
        a.segments = segments;                                                                                                                       \
        change;                                                                                                                                      \
        memset(out, 0xa5, sizeof out);                                                                                                               \
        ck_assert_msg(kvt_attend(&a, workspace) == (status), #change ": %s", kvt_status_text(kvt_attend(&a, workspace)));                            \
        ck_assert_msg(kvt_attend_chunks(&a, 0, 0, partials, workspace) != KVT_OK || !for_all, #change);                                              \
        for (size_t i = 0; i < sizeof out; i++)                                                                                                      \
            ck_assert_int_eq(((unsigned char *)out)[i], 0xa5);                                                                                       \
    } while (0)

START_TEST(arguments)
{
    enum { DIM = 32, GROUP = 2, ASKING = 2 };
    const kvt_layout layout = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_kv4, DIM, DIM, 1, 0),
                     wider = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_kv4, 48, DIM, 1, 0),
                     latent = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_kv4, DIM, 0, 1, 0);
    kvt_layout broken = layout;
    broken.page_bytes++;
    unsigned char *memory = test_malloc(4 * layout.page_bytes);
    memset(memory, 0, 4 * layout.page_bytes);
    const kvt_segment segment = { .layout = &layout, .pages = { .base = memory, .stride = layout.page_bytes, .count = 4 } };
    const kvt_segment second = { .layout = &layout, .pages = { .base = memory, .stride = layout.page_bytes, .count = 4 }, .first_token = 64 };
    static float q[ASKING][GROUP][DIM], out[ASKING][GROUP][DIM], partials[4096];
    const kvt_attention good = { .size = sizeof good,
                                 .n_segments = 1,
                                 .end = 200,
                                 .position = 198,
                                 .group = GROUP,
                                 .query_tokens = ASKING,
                                 .queries = q,
                                 .query_dtype = KVT_F32,
                                 .query_head_stride = sizeof q[0][0],
                                 .query_token_stride = sizeof q[0],
                                 .out = out,
                                 .out_dtype = KVT_F32,
                                 .out_head_stride = sizeof q[0][0],
                                 .out_token_stride = sizeof q[0],
                                 .scale = 1 };
    static unsigned char workspace[1 << 17];
    bool for_all = true;
    void *table[4] = { memory, memory, NULL, memory };
    EXPECT(a.size--, KVT_ERR_STRUCT_SIZE);
    EXPECT(a.segments = NULL, KVT_ERR_NULL);
    EXPECT(a.n_segments = 0, KVT_ERR_SEGMENTS);
    EXPECT(segments[0].layout = NULL, KVT_ERR_NULL);
    EXPECT(segments[0].layout = &broken, KVT_ERR_LAYOUT);
    EXPECT((a.n_segments = 2, segments[1].layout = &latent), KVT_ERR_SEGMENTS);
    EXPECT((a.n_segments = 2, segments[1].layout = &wider), KVT_ERR_SEGMENTS);
    EXPECT((a.n_segments = 2, segments[1].first_token = 0), KVT_ERR_SEGMENTS);
    EXPECT((a.n_segments = 2, segments[1].first_token = 65), KVT_ERR_SEGMENTS);
    EXPECT(segments[0].first_token = 64, KVT_ERR_RANGE);
    EXPECT(segments[0].pages.base = NULL, KVT_ERR_NULL);
    EXPECT(segments[0].pages.stride--, KVT_ERR_STRIDE);
    EXPECT(segments[0].pages.count = 3, KVT_ERR_RANGE);
    EXPECT(segments[0].pages.table = table, KVT_ERR_NULL);
    EXPECT((a.end = 257, a.position = 256), KVT_ERR_RANGE);
    EXPECT(a.begin = 201, KVT_ERR_RANGE);
    EXPECT(a.end = 0, KVT_ERR_RANGE);
    EXPECT((a.end = 0, a.position = KVT_NO_MASK), KVT_ERR_RANGE);
    EXPECT(a.position = 0, KVT_ERR_RANGE);
    EXPECT((a.position = 0, a.end = ASKING + 1), KVT_ERR_RANGE);
    EXPECT(a.query_head_stride = 0, KVT_ERR_STRIDE);
    EXPECT(a.query_token_stride = 0, KVT_ERR_STRIDE);
    EXPECT(a.position = SIZE_MAX - 1, KVT_ERR_RANGE);
    EXPECT((a.position = KVT_NO_MASK, a.window = 3), KVT_ERR_OPTIONS);
    EXPECT(a.group = 0, KVT_ERR_GROUP);
    EXPECT(a.group = KVT_MAX_GROUP + 1, KVT_ERR_GROUP);
    EXPECT(a.query_tokens = 0, KVT_ERR_GROUP);
    EXPECT(a.query_dtype = 0, KVT_ERR_DTYPE);
    EXPECT(a.out_dtype = 4, KVT_ERR_DTYPE);
    EXPECT(a.scale = 0, KVT_ERR_NUMBER);
    EXPECT(a.scale = NAN, KVT_ERR_NUMBER);
    EXPECT(a.scale = 0x1p21f, KVT_ERR_NUMBER);
    EXPECT(a.soft_cap = -1, KVT_ERR_NUMBER);
    EXPECT(a.soft_cap = INFINITY, KVT_ERR_NUMBER);
    EXPECT(a.queries = NULL, KVT_ERR_NULL);
    for_all = false; /* partials do not touch `out` */
    EXPECT(a.out = NULL, KVT_ERR_NULL);
    EXPECT(a.out_head_stride--, KVT_ERR_STRIDE);
    EXPECT(a.out_token_stride--, KVT_ERR_STRIDE);
    EXPECT((a.out_token_stride = sizeof q[0][0], a.out_head_stride = sizeof q[0][0]), KVT_ERR_STRIDE);
    kvt_attention a = good;
    a.segments = &segment;
    kvt_attend_sizes sizes;
    a.position = 0;
    for (a.end = 1; a.end <= ASKING; a.end++) /* a sequence that begins with the queries */
        ck_assert_int_eq(kvt_attend_plan_sizes(&a, &sizes), KVT_OK);
    a = good;
    a.segments = &segment;
    ck_assert_int_eq(kvt_attend_plan_sizes(&a, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_attend_plan_sizes(NULL, &sizes), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_attend_plan_sizes(&a, &sizes), KVT_OK);
    ck_assert_uint_eq(sizes.chunks, 1);
    ck_assert_uint_le(sizes.workspace_bytes, sizeof workspace);
    ck_assert_int_eq(kvt_attend(&a, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_attend_chunks(&a, 0, 1, NULL, workspace), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_attend_chunks(&a, 1, 1, partials, workspace), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_attend_chunks(&a, 2, 0, partials, workspace), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_merge(&a, NULL, workspace), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_merge(&a, partials, NULL), KVT_ERR_NULL);
    free(memory);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--print") == 0)
        return print();
    Suite *suite = suite_create("attend");
    TCase *tcase = tcase_create("attend");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, random_cases, 0, 400 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, latents_are_keys_and_values, 0, 120 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, garbage, 0, 160 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, flushing, 0, 160 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, guard_pages, 0, 80 / KVT_TEST_SHARE);
    tcase_add_loop_test(tcase, little_is_added, 0, (int)test_scheme_count());
    tcase_add_test(tcase, nan_stays_where_it_is_seen);
    tcase_add_test(tcase, golden_hashes);
    tcase_add_loop_test(tcase, workers, 0, (int)test_scheme_count());
    tcase_add_test(tcase, plan_covers_all);
    tcase_add_test(tcase, arguments);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
