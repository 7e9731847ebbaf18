/* SPDX-License-Identifier: MIT */
/* kvt_write and kvt_read on every usable tier against the oracle: every scheme, side and number format of rows, byte for byte. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t dims[] = { 1, 7, 15, 16, 17, 31, 32, 33, 48, 64, 80, 96, 100, 112, 128, 192, 256, 512, 576, 1000, 1024 };
static const size_t n_dims = sizeof dims / sizeof dims[0];

static const struct {
    size_t first, n;
} ranges[] = {
    { 0, 1 }, { 15, 1 }, { 14, 3 }, { 62, 5 }, { 64, 64 }, { 3, 133 }, { 130, 3 }, { 7, 24 },
};
static const size_t n_ranges = sizeof ranges / sizeof ranges[0];

enum { PAGES = 3, MAX_ROWS = 133 };

static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
static const char *const dtype_names[] = { "?", "f32", "f16", "bf16" };
static const char *const side_names[] = { "K", "V" };

/* Rows in memory: tight, padded, or in reverse order; never aligned more than they must be. */
typedef struct row_block {
    unsigned char *memory; /* bytes of it, all of them compared */
    size_t bytes;
    ptrdiff_t origin; /* of row 0 */
    ptrdiff_t stride;
} row_block;

static void row_block_shape(row_block *rows, uint32_t dim, size_t n, kvt_dtype dtype, unsigned variant)
{
    size_t row_bytes = dim * oracle_element_bytes(dtype);
    size_t gap = variant % 3 == 0 ? 0 : variant % 3 == 1 ? 12 : 7;
    size_t stride = row_bytes + gap, lead = 1 + variant % 4;
    rows->bytes = lead + n * stride + 16;
    rows->stride = variant % 3 == 2 ? -(ptrdiff_t)stride : (ptrdiff_t)stride;
    rows->origin = (ptrdiff_t)(variant % 3 == 2 ? lead + (n - 1) * stride : lead);
}

static unsigned char *row_0(const row_block *rows)
{
    return rows->memory + rows->origin;
}

/* Everything that a case needs, allocated once for the largest. */
typedef struct bench {
    unsigned char *fill, *want, *got; /* pages, with a margin on both sides */
    row_block in, want_rows, got_rows;
    uint64_t random;
} bench;

enum { MARGIN = 64, LARGEST_PAGE = 64 * 2 * KVT_MAX_DIM * 4, LARGEST_ROWS = MAX_ROWS * (KVT_MAX_DIM * 4 + 16) + 64 };

static size_t memory_bytes(const oracle_layout *o)
{
    return MARGIN + PAGES * o->page_bytes + MARGIN;
}

static bench bench_make(uint64_t seed)
{
    bench b = { 0 };
    size_t bytes = 2 * MARGIN + (size_t)PAGES * LARGEST_PAGE;
    b.fill = test_malloc(bytes);
    b.want = test_malloc(bytes);
    b.got = test_malloc(bytes);
    b.in.memory = test_malloc(LARGEST_ROWS);
    b.want_rows.memory = test_malloc(LARGEST_ROWS);
    b.got_rows.memory = test_malloc(LARGEST_ROWS);
    b.random = seed;
    test_fill(&b.random, b.fill, bytes);
    return b;
}

static void bench_free(bench *b)
{
    free(b->fill);
    free(b->want);
    free(b->got);
    free(b->in.memory);
    free(b->want_rows.memory);
    free(b->got_rows.memory);
}

/* A layout with `dim` channels of `scheme` on one side, and something else on the other. */
static oracle_layout mixed_layout(kvt_scheme scheme, kvt_side which, uint32_t dim, unsigned other, kvt_layout *layout, uint32_t tiers)
{
    static const uint32_t other_dims[] = { 16, 33, 64, 1 };
    kvt_scheme other_scheme = kvt_scheme_at(other % test_scheme_count())->scheme;
    uint32_t other_dim = other_dims[other % 4];
    oracle_layout o;
    kvt_spec spec;
    if (which == KVT_V) {
        spec = test_spec(other_scheme, scheme, other_dim, dim);
    } else {
        if (other % 5 == 0)
            other_dim = 0; /* no values */
        spec = test_spec(scheme, other_scheme, dim, other_dim);
    }
    oracle_layout_init(&o, &spec);
    *layout = test_layout(spec.k_scheme, spec.v_scheme, spec.k_dim, spec.v_dim, 1, tiers);
    TEST_REQUIRE(layout->page_bytes == o.page_bytes, "page of %zu bytes, not %zu", layout->page_bytes, o.page_bytes);
    return o;
}

static void oracle_table(const oracle_layout *o, unsigned char *memory, unsigned char *table[PAGES])
{
    for (size_t p = 0; p < PAGES; p++)
        table[p] = memory + MARGIN + p * o->page_bytes;
}

static kvt_pages contiguous(const oracle_layout *o, unsigned char *memory)
{
    return (kvt_pages){ .base = memory + MARGIN, .stride = o->page_bytes, .count = PAGES };
}

/* What the oracle reads into prefilled rows: once for all tiers, as it is slow. */
static void expect_read(bench *b, const oracle_layout *o, kvt_side which, unsigned char *const *table, size_t first, size_t n, kvt_dtype dtype,
                        unsigned variant)
{
    row_block_shape(&b->want_rows, o->side[which].dim, n, dtype, variant);
    memset(b->want_rows.memory, 0xa5, b->want_rows.bytes);
    oracle_read(o, which, table, first, n, row_0(&b->want_rows), dtype, b->want_rows.stride);
}

/* Reads into rows prefilled likewise and compares them all, gaps included. */
static void check_read(bench *b, const kvt_layout *layout, const oracle_layout *o, kvt_side which, const kvt_pages *pages, size_t first, size_t n,
                       kvt_dtype dtype, unsigned variant, const char *what)
{
    uint32_t dim = o->side[which].dim;
    row_block_shape(&b->got_rows, dim, n, dtype, variant);
    memset(b->got_rows.memory, 0xa5, b->got_rows.bytes);
    kvt_status status = kvt_read(layout, which, pages, first, n, row_0(&b->got_rows), dtype, b->got_rows.stride);
    TEST_REQUIRE(status == KVT_OK, "%s: %s", what, kvt_status_text(status));
    size_t at = test_difference(b->want_rows.memory, b->got_rows.memory, b->want_rows.bytes);
    TEST_REQUIRE(at == b->want_rows.bytes, "%s, read as %s, %s dim %u, tokens %zu+%zu, row stride %td: byte %zu of the rows is %02x, not %02x", what,
                 dtype_names[dtype], side_names[which], dim, first, n, b->got_rows.stride, at, b->got_rows.memory[at], b->want_rows.memory[at]);
}

static void check_case(bench *b, kvt_scheme scheme, kvt_side which, uint32_t dim, kvt_dtype dtype, size_t range, unsigned variant,
                       const test_tier *tiers, size_t n_tiers)
{
    size_t first = ranges[range].first, n = ranges[range].n;
    kvt_layout layout;
    oracle_layout o = mixed_layout(scheme, which, dim, variant, &layout, 0);
    size_t bytes = memory_bytes(&o);
    unsigned char *table[PAGES];

    row_block_shape(&b->in, dim, n, dtype, variant);
    test_rows(variant, &b->random, n, dim, row_0(&b->in), dtype, b->in.stride);
    memcpy(b->want, b->fill, bytes);
    oracle_table(&o, b->want, table);
    oracle_write(&o, which, table, first, n, row_0(&b->in), dtype, b->in.stride);
    const kvt_dtype back = dtypes[(dtype + range) % 3];
    expect_read(b, &o, which, table, first, n, back, variant + 1);

    for (size_t t = 0; t < n_tiers; t++) {
        char what[80];
        snprintf(what, sizeof what, "%s, %s rows, tier %s", kvt_scheme_get(scheme)->name, dtype_names[dtype], tiers[t].name);
        mixed_layout(scheme, which, dim, variant, &layout, tiers[t].mask);
        memcpy(b->got, b->fill, bytes);
        kvt_pages pages = contiguous(&o, b->got);
        kvt_status status = kvt_write(&layout, which, &pages, first, n, row_0(&b->in), dtype, b->in.stride);
        TEST_REQUIRE(status == KVT_OK, "%s: %s", what, kvt_status_text(status));
        size_t at = test_difference(b->want, b->got, bytes);
        TEST_REQUIRE(at == bytes, "%s, %s dim %u, tokens %zu+%zu, row stride %td: byte %td of the pages (%zu each) is %02x, not %02x", what,
                     side_names[which], dim, first, n, b->in.stride, (ptrdiff_t)at - MARGIN, o.page_bytes, b->got[at], b->want[at]);
        check_read(b, &layout, &o, which, &pages, first, n, back, variant + 1, what);
    }
}

START_TEST(against_the_oracle)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    kvt_side which = _i % 2 == 0 ? KVT_K : KVT_V;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    bench b = bench_make((uint64_t)_i + 1);
    unsigned variant = (unsigned)_i;
    for (size_t d = 0; d < n_dims; d++)
        for (size_t t = 0; t < 3; t++)
            for (size_t r = 0; r < n_ranges; r++)
                if ((d + t + r + (size_t)_i / 2) % (KVT_TEST_SHARE == 1 ? 3 : 7) == 0) /* every pair of them, over the schemes */
                    check_case(&b, scheme, which, dims[d], dtypes[t], r, variant++, tiers, n_tiers);
    bench_free(&b);
}
END_TEST

/* A pattern in every row of a tile, so that each meets every scheme in every lane. */
START_TEST(every_pattern)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    kvt_side which = _i % 2 == 0 ? KVT_K : KVT_V;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    bench b = bench_make((uint64_t)_i + 100);
    kvt_layout layout;
    oracle_layout o;
    unsigned char *table[PAGES];
    const uint32_t dim = 112;
    for (unsigned pattern = 0; pattern < TEST_PATTERNS; pattern++) {
        o = mixed_layout(scheme, which, dim, 1, &layout, 0);
        size_t bytes = memory_bytes(&o), row_bytes = (size_t)dim * 4;
        for (size_t i = 0; i < 64; i++) {
            uint32_t x[112];
            test_row(pattern, &b.random, dim, x);
            for (size_t c = 0; c < dim; c++)
                oracle_store(b.in.memory + i * row_bytes + 4 * c, 4, x[c]);
        }
        memcpy(b.want, b.fill, bytes);
        oracle_table(&o, b.want, table);
        oracle_write(&o, which, table, 0, 64, b.in.memory, KVT_F32, (ptrdiff_t)row_bytes);
        const kvt_dtype back = dtypes[(pattern + (unsigned)_i) % 3];
        expect_read(&b, &o, which, table, 0, 64, back, 1);
        for (size_t t = 0; t < n_tiers; t++) {
            char what[80];
            snprintf(what, sizeof what, "%s, tier %s, pattern %u", kvt_scheme_get(scheme)->name, tiers[t].name, pattern);
            mixed_layout(scheme, which, dim, 1, &layout, tiers[t].mask);
            memcpy(b.got, b.fill, bytes);
            kvt_pages pages = contiguous(&o, b.got);
            ck_assert_int_eq(kvt_write(&layout, which, &pages, 0, 64, b.in.memory, KVT_F32, (ptrdiff_t)row_bytes), KVT_OK);
            size_t at = test_difference(b.want, b.got, bytes);
            TEST_REQUIRE(at == bytes, "%s, %s: byte %td of the page is %02x, not %02x", what, side_names[which], (ptrdiff_t)at - MARGIN, b.got[at],
                         b.want[at]);
            check_read(&b, &layout, &o, which, &pages, 0, 64, back, 1, what);
        }
    }
    bench_free(&b);
}
END_TEST

/* Tokens one by one in random order, into pages in shuffled order, equal one bulk write into contiguous pages; reads through the table likewise. */
START_TEST(append_and_page_table)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    kvt_side which = _i % 2 == 0 ? KVT_K : KVT_V;
    static const uint32_t some_dims[] = { 80, 100, 128 };
    enum { TOKENS = PAGES * 64 };
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    bench b = bench_make((uint64_t)_i + 200);
    unsigned char *rows = test_malloc(TOKENS * 128 * 4), *back = test_malloc(TOKENS * 128 * 4), *back_table = test_malloc(TOKENS * 128 * 4);
    for (size_t d = 0; d < 3; d++) {
        for (size_t t = 0; t < n_tiers; t++) {
            uint32_t dim = some_dims[d];
            ptrdiff_t stride = (ptrdiff_t)(4 * dim);
            kvt_layout layout;
            oracle_layout o = mixed_layout(scheme, which, dim, 2, &layout, tiers[t].mask);
            size_t bytes = memory_bytes(&o), row_bytes = (size_t)stride * TOKENS;
            test_rows(0, &b.random, TOKENS, dim, rows, KVT_F32, stride);

            memcpy(b.want, b.fill, bytes);
            kvt_pages bulk = contiguous(&o, b.want);
            ck_assert_int_eq(kvt_write(&layout, which, &bulk, 0, TOKENS, rows, KVT_F32, stride), KVT_OK);

            /* Sequence page p lies at place order[p], prefilled as in the bulk write. */
            static const size_t order[PAGES] = { 2, 0, 1 };
            void *table[PAGES];
            memcpy(b.got, b.fill, bytes);
            for (size_t p = 0; p < PAGES; p++) {
                table[p] = b.got + MARGIN + order[p] * o.page_bytes;
                memcpy(table[p], b.fill + MARGIN + p * o.page_bytes, o.page_bytes);
            }
            kvt_pages scattered = { .base = NULL, .table = table, .stride = 0, .count = PAGES };
            size_t tokens[TOKENS];
            for (size_t i = 0; i < TOKENS; i++)
                tokens[i] = i;
            for (size_t i = TOKENS - 1; i > 0; i--) {
                size_t j = test_below(&b.random, (uint32_t)i + 1), other = tokens[i];
                tokens[i] = tokens[j];
                tokens[j] = other;
            }
            for (size_t i = 0; i < TOKENS; i++)
                TEST_REQUIRE(kvt_write(&layout, which, &scattered, tokens[i], 1, rows + (ptrdiff_t)tokens[i] * stride, KVT_F32, 0) == KVT_OK,
                             "kvt_write");
            for (size_t p = 0; p < PAGES; p++) {
                size_t at = test_difference(table[p], b.want + MARGIN + p * o.page_bytes, o.page_bytes);
                TEST_REQUIRE(at == o.page_bytes, "%s, tier %s, %s dim %u: page %zu differs at byte %zu", kvt_scheme_get(scheme)->name, tiers[t].name,
                             side_names[which], dim, p, at);
            }

            ck_assert_int_eq(kvt_read(&layout, which, &bulk, 0, TOKENS, back, KVT_F32, stride), KVT_OK);
            ck_assert_int_eq(kvt_read(&layout, which, &scattered, 0, TOKENS, back_table, KVT_F32, stride), KVT_OK);
            TEST_REQUIRE(memcmp(back, back_table, row_bytes) == 0, "reading through a page table differs");
            memset(back_table, 0, row_bytes);
            for (size_t i = 0; i < TOKENS; i++)
                TEST_REQUIRE(kvt_read(&layout, which, &scattered, tokens[i], 1, back_table + (ptrdiff_t)tokens[i] * stride, KVT_F32, 0) == KVT_OK,
                             "kvt_read");
            TEST_REQUIRE(memcmp(back, back_table, row_bytes) == 0, "reading one by one differs");
        }
    }
    free(rows);
    free(back);
    free(back_table);
    bench_free(&b);
}
END_TEST

/* Pages further apart than they must be: what lies between them stays. */
START_TEST(page_stride)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    kvt_side which = _i % 2 == 0 ? KVT_K : KVT_V;
    bench b = bench_make((uint64_t)_i + 300);
    kvt_layout layout;
    const uint32_t dim = 48;
    oracle_layout o = mixed_layout(scheme, which, dim, 3, &layout, 0);
    const size_t gap = 40, stride = o.page_bytes + gap, bytes = PAGES * stride;
    unsigned char *table[PAGES];
    test_rows(3, &b.random, MAX_ROWS, dim, b.in.memory, KVT_F32, 4 * 48);
    memcpy(b.want, b.fill, bytes);
    memcpy(b.got, b.fill, bytes);
    for (size_t p = 0; p < PAGES; p++)
        table[p] = b.want + p * stride;
    oracle_write(&o, which, table, 5, MAX_ROWS, b.in.memory, KVT_F32, 4 * 48);
    kvt_pages pages = { .base = b.got, .stride = stride, .count = PAGES };
    ck_assert_int_eq(kvt_write(&layout, which, &pages, 5, MAX_ROWS, b.in.memory, KVT_F32, 4 * 48), KVT_OK);
    ck_assert_uint_eq(test_difference(b.want, b.got, bytes), bytes);
    expect_read(&b, &o, which, table, 5, MAX_ROWS, KVT_F32, 1);
    check_read(&b, &layout, &o, which, &pages, 5, MAX_ROWS, KVT_F32, 1, "spread pages");
    bench_free(&b);
}
END_TEST

/* Pages full of random bytes are safe to read, and give what the oracle says. */
START_TEST(garbage)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    kvt_side which = _i % 2 == 0 ? KVT_K : KVT_V;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    bench b = bench_make((uint64_t)_i + 400);
    static const uint32_t some_dims[] = { 64, 80, 33 };
    for (int round = 0; round < 6; round++) {
        kvt_layout layout;
        const uint32_t dim = some_dims[round % 3];
        const oracle_layout o = mixed_layout(scheme, which, dim, 4, &layout, 0);
        test_fill(&b.random, b.got, memory_bytes(&o));
        memcpy(b.want, b.got, memory_bytes(&o));
        unsigned char *table[PAGES];
        oracle_table(&o, b.got, table);
        const kvt_pages pages = contiguous(&o, b.got);
        for (size_t d = 0; d < 3; d++) {
            expect_read(&b, &o, which, table, 1, MAX_ROWS, dtypes[d], (unsigned)round);
            for (size_t t = 0; t < n_tiers; t++) {
                mixed_layout(scheme, which, dim, 4, &layout, tiers[t].mask);
                check_read(&b, &layout, &o, which, &pages, 1, MAX_ROWS, dtypes[d], (unsigned)round, tiers[t].name);
                TEST_REQUIRE(memcmp(b.want, b.got, memory_bytes(&o)) == 0, "reading changed the pages");
            }
        }
    }
    bench_free(&b);
}
END_TEST

/* Every scale there is: all of one byte and all 65,536 of f16, and for f32 scales all sign and exponent bits with several mantissas; every code with
 * each. */
START_TEST(every_scale)
{
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i);
    if (info->scale_bytes == 0)
        return;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    const uint32_t dim = 32;
    kvt_layout layout = test_layout(info->scheme, info->scheme, dim, 0, 1, 0);
    oracle_layout o;
    kvt_spec spec = test_spec(info->scheme, info->scheme, dim, 0);
    oracle_layout_init(&o, &spec);
    bench b = bench_make((uint64_t)_i + 500);
    unsigned char *table[PAGES];
    oracle_table(&o, b.got, table);
    kvt_pages pages = contiguous(&o, b.got);
    for (uint32_t high = (uint32_t)_i % KVT_TEST_SHARE * 128; high < 65536; high += 128 * KVT_TEST_SHARE) {
        test_fill(&b.random, b.got, memory_bytes(&o));
        for (uint32_t i = 0; i < 128; i++) {
            uint32_t low = (uint32_t)test_random(&b.random) & (i % 2 ? 0xffff : 0);
            uint32_t scale = info->scale_bytes < 4 ? high + i : (high + i) << 16 | low;
            unsigned char *scales = table[i / 64] + o.side[KVT_K].scales_offset;
            oracle_store(scales + i % 64 * info->scale_bytes, info->scale_bytes, scale);
        }
        expect_read(&b, &o, KVT_K, table, 0, 128, KVT_F32, 0);
        for (size_t t = 0; t < n_tiers; t++) {
            layout = test_layout(info->scheme, info->scheme, dim, 0, 1, tiers[t].mask);
            check_read(&b, &layout, &o, KVT_K, &pages, 0, 128, KVT_F32, 0, tiers[t].name);
        }
    }
    bench_free(&b);
}
END_TEST

/* What FP8 rounds, with a tensor's scale of 1: as rows of f16 and bf16 all numbers there are, and as rows of f32 every sign, exponent and upper seven
 * bits of mantissa with what lies on, beside and between the middles of codes (whose places are in those bits); a page at once, and token by token.
 */
START_TEST(fp8_every_input)
{
    static const uint32_t low_bits[] = { 0, 1, 0x7fff, 0x8000, 0x8001, 0xffff };
    const kvt_scheme scheme = _i % 2 == 0 ? KVT_SCHEME_e4m3 : KVT_SCHEME_e5m2;
    const kvt_side which = _i / 2 == 0 ? KVT_K : KVT_V;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    bench b = bench_make((uint64_t)_i + 800);
    kvt_spec spec = test_spec(scheme, scheme, KVT_MAX_DIM, KVT_MAX_DIM);
    spec.k_options.fp8_block = spec.v_options.fp8_block = KVT_BLOCK_TENSOR;
    spec.k_options.fp8_tensor_scale = spec.v_options.fp8_tensor_scale = 1;
    oracle_layout o;
    oracle_layout_init(&o, &spec);
    const size_t bytes = memory_bytes(&o), n_low = sizeof low_bits / sizeof *low_bits;
    unsigned char *table[PAGES], *got_table[PAGES];
    oracle_table(&o, b.want, table);
    oracle_table(&o, b.got, got_table);
    for (size_t fill = 0; fill < n_low + 2; fill++) {
        const kvt_dtype dtype = fill < n_low ? KVT_F32 : fill == n_low ? KVT_F16 : KVT_BF16;
        const size_t element = oracle_element_bytes(dtype);
        const ptrdiff_t stride = (ptrdiff_t)(KVT_MAX_DIM * element);
        for (uint32_t upper = 0; upper < 65536; upper++)
            oracle_store(b.in.memory + upper * element, element, dtype == KVT_F32 ? upper << 16 | low_bits[fill] : upper);
        memcpy(b.want, b.fill, bytes);
        oracle_write(&o, which, table, 0, 64, b.in.memory, dtype, stride);
        for (size_t t = 0; t < 2 * n_tiers; t++) {
            spec.tiers = tiers[t / 2].mask;
            kvt_layout layout;
            ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
            memcpy(b.got, b.fill, bytes);
            const kvt_pages pages = contiguous(&o, b.got);
            const size_t n = t % 2 == 0 ? 64 : 1;
            for (size_t token = 0; token < 64; token += n)
                ck_assert_int_eq(kvt_write(&layout, which, &pages, token, n, b.in.memory + (ptrdiff_t)token * stride, dtype, stride), KVT_OK);
            const size_t at = test_difference(b.want, b.got, bytes);
            TEST_REQUIRE(at == bytes, "tier %s, %s %s of %s, low bits %zu: byte %zu of the pages is %02x, not %02x", tiers[t / 2].name,
                         side_names[which], kvt_scheme_get(scheme)->name, dtype_names[dtype], fill, at, b.got[at], b.want[at]);
        }
    }
    /* And back: all 256 codes, in every place. */
    for (size_t i = 0; i < 64 * KVT_MAX_DIM; i++)
        got_table[0][o.side[which].codes_offset + i] = (unsigned char)(i + i / 256);
    for (size_t d = 0; d < 3; d++) {
        expect_read(&b, &o, which, got_table, 0, 64, dtypes[d], 0);
        for (size_t t = 0; t < n_tiers; t++) {
            spec.tiers = tiers[t].mask;
            kvt_layout layout;
            ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
            const kvt_pages pages = contiguous(&o, b.got);
            check_read(&b, &layout, &o, which, &pages, 0, 64, dtypes[d], 0, tiers[t].name);
        }
    }
    bench_free(&b);
}
END_TEST

/* ---- FTZ and DAZ ----------------------------------------------------------------------------------------------------------------- */

START_TEST(flushing_of_subnormals)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / 2)->scheme;
    kvt_side which = _i % 2 == 0 ? KVT_K : KVT_V;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    bench b = bench_make((uint64_t)_i + 600);
    static const uint32_t some_dims[] = { 64, 80, 33 };
    for (unsigned round = 0; round < 18; round++) {
        uint32_t dim = some_dims[round % 3];
        kvt_dtype dtype = dtypes[round / 3 % 3], back = dtypes[round % 3];
        bool garbage_in = round >= 9;
        size_t stride = dim * oracle_element_bytes(dtype), back_stride = dim * oracle_element_bytes(back);
        kvt_layout layout;
        const oracle_layout o = mixed_layout(scheme, which, dim, 1, &layout, 0);
        const size_t bytes = memory_bytes(&o);
        const kvt_pages pages = contiguous(&o, b.got);
        unsigned char *table[PAGES];
        oracle_table(&o, b.want, table);
        test_rows(round, &b.random, MAX_ROWS, dim, b.in.memory, dtype, (ptrdiff_t)stride);
        if (garbage_in) {
            test_fill(&b.random, b.want, bytes);
        } else {
            memcpy(b.want, b.fill, bytes);
            oracle_write(&o, which, table, 0, MAX_ROWS, b.in.memory, dtype, (ptrdiff_t)stride);
        }
        oracle_read(&o, which, table, 0, MAX_ROWS, b.want_rows.memory, back, (ptrdiff_t)back_stride);
        for (size_t t = 0; t < n_tiers; t++) {
            mixed_layout(scheme, which, dim, 1, &layout, tiers[t].mask);
            memcpy(b.got, garbage_in ? b.want : b.fill, bytes);
            if (!garbage_in) {
                test_flush_subnormals(true);
                kvt_status status = kvt_write(&layout, which, &pages, 0, MAX_ROWS, b.in.memory, dtype, (ptrdiff_t)stride);
                test_flush_subnormals(false);
                ck_assert_int_eq(status, KVT_OK);
                size_t at = test_difference(b.want, b.got, bytes);
                TEST_REQUIRE(at == bytes, "FTZ: %s, tier %s, %s rows, %s dim %u: byte %td is %02x, not %02x", kvt_scheme_get(scheme)->name,
                             tiers[t].name, dtype_names[dtype], side_names[which], dim, (ptrdiff_t)at - MARGIN, b.got[at], b.want[at]);
            }
            test_flush_subnormals(true);
            kvt_status status = kvt_read(&layout, which, &pages, 0, MAX_ROWS, b.got_rows.memory, back, (ptrdiff_t)back_stride);
            test_flush_subnormals(false);
            ck_assert_int_eq(status, KVT_OK);
            size_t at = test_difference(b.want_rows.memory, b.got_rows.memory, MAX_ROWS * back_stride);
            TEST_REQUIRE(at == MAX_ROWS * back_stride, "FTZ: %s, tier %s, read as %s, %s dim %u, row %zu, channel %zu", kvt_scheme_get(scheme)->name,
                         tiers[t].name, dtype_names[back], side_names[which], dim, at / back_stride, at % back_stride / oracle_element_bytes(back));
        }
    }
    bench_free(&b);
}
END_TEST

/* The control bits really flush, or the test above shows nothing. */
START_TEST(flushing_flushes)
{
#if defined(__x86_64__) || defined(__aarch64__)
    volatile float tiny = 0x1p-130f, half = 0.5f, result;
    test_flush_subnormals(true);
    result = tiny * half;
    test_flush_subnormals(false);
    ck_assert(result == 0.0f);
    result = tiny * half;
    ck_assert(result > 0.0f);
#endif
}
END_TEST

/* One tier alone, without those it inherits from, serves too: kvt_spec.tiers is any subset. */
START_TEST(lone_tiers)
{
    uint32_t usable = kvt_tiers_usable();
    bench b = bench_make(700);
    for (unsigned id = 0; id < 32; id++) {
        if ((usable >> id & 1) == 0)
            continue;
        for (size_t s = 0; s < test_scheme_count(); s++) {
            kvt_scheme scheme = kvt_scheme_at(s)->scheme;
            kvt_layout layout;
            oracle_layout o = mixed_layout(scheme, KVT_V, 64, 1, &layout, UINT32_C(1) << id);
            unsigned char *table[PAGES];
            test_rows(0, &b.random, MAX_ROWS, 64, b.in.memory, KVT_F32, 256);
            memcpy(b.want, b.fill, memory_bytes(&o));
            memcpy(b.got, b.fill, memory_bytes(&o));
            oracle_table(&o, b.want, table);
            oracle_write(&o, KVT_V, table, 0, MAX_ROWS, b.in.memory, KVT_F32, 256);
            kvt_pages pages = contiguous(&o, b.got);
            ck_assert_int_eq(kvt_write(&layout, KVT_V, &pages, 0, MAX_ROWS, b.in.memory, KVT_F32, 256), KVT_OK);
            ck_assert_uint_eq(test_difference(b.want, b.got, memory_bytes(&o)), memory_bytes(&o));
            expect_read(&b, &o, KVT_V, table, 0, MAX_ROWS, KVT_F32, 0);
            check_read(&b, &layout, &o, KVT_V, &pages, 0, MAX_ROWS, KVT_F32, 0, kvt_tier_name(id));
        }
    }
    bench_free(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tiles");
    TCase *tcase = tcase_create("tiles");
    int schemes = (int)test_scheme_count();
    tcase_set_timeout(tcase, 900);
    tcase_add_loop_test(tcase, against_the_oracle, 0, 2 * schemes);
    tcase_add_loop_test(tcase, every_pattern, 0, 2 * schemes);
    tcase_add_loop_test(tcase, append_and_page_table, 0, 2 * schemes);
    tcase_add_loop_test(tcase, page_stride, 0, 2 * schemes);
    tcase_add_loop_test(tcase, garbage, 0, 2 * schemes);
    tcase_add_loop_test(tcase, every_scale, 0, schemes);
    tcase_add_loop_test(tcase, fp8_every_input, 0, 4);
    tcase_add_loop_test(tcase, flushing_of_subnormals, 0, 2 * schemes);
    tcase_add_test(tcase, flushing_flushes);
    tcase_add_test(tcase, lone_tiers);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
