/* SPDX-License-Identifier: MIT */
/* kvt_write, kvt_append, kvt_read and kvt_convert_in and _out, a few calls on the same pages, each on some tier: pages and rows are the oracle's
 * after every one, to the last bit. What is refused writes nothing. Pages and rows are exactly as large as they have to be. */
#include <kvtile/convert.h>

#include "fuzz_cache.h"

#include "tests/lib/oracle.h"
#include "tests/lib/row_reference.h"

enum { MAX_PAGES = 3, MAX_CALLS = 6 };

typedef struct cache {
    kvt_spec spec;
    kvt_layout layout;
    oracle_layout oracle;
    uint8_t *got, *want;
    size_t bytes, count;
    void *table[MAX_PAGES];
    unsigned char *wanted[MAX_PAGES];
    kvt_pages pages;
} cache;

static int make_cache(cache *c, source *s)
{
    c->spec = (kvt_spec){ .size = sizeof c->spec, .kv_heads = 1, .k_dim = 1 + take(s, 1), .v_dim = take(s, 1) };
    const uint32_t width = take(s, 1);
    c->spec.k_dim = width < 250 ? c->spec.k_dim : width == 250 ? KVT_MAX_DIM : 4 * c->spec.k_dim; /* wide ones now and then */
    c->spec.k_scheme = take_scheme(s);
    c->spec.v_scheme = take_scheme(s);
    c->spec.k_options = take_options(s);
    c->spec.v_options = take_options(s);
    c->spec.k_options.effort = c->spec.v_options.effort = (kvt_effort)(take(s, 1) % 3);
    if (take(s, 1) % 4 == 0)
        c->spec.k_options.centring = KVT_CENTRING_OWN;
    if (kvt_layout_init(&c->layout, &c->spec) != KVT_OK) { /* options that only some schemes have */
        c->spec.k_options.fp8_block = c->spec.v_options.fp8_block = 0;
        c->spec.k_options.fp8_scale = c->spec.v_options.fp8_scale = KVT_FP8_SCALE_F32;
        if (kvt_layout_init(&c->layout, &c->spec) != KVT_OK)
            return -1;
    }
    oracle_layout_init(&c->oracle, &c->spec);
    must(c->layout.page_bytes == c->oracle.page_bytes && c->layout.token_bytes == c->oracle.token_bytes);
    const size_t page = c->layout.page_bytes, shift = take(s, 1) % 3;
    c->count = 1 + take(s, 1) % MAX_PAGES;
    c->bytes = c->count * page + shift;
    c->got = block(c->bytes);
    c->want = block(c->bytes);
    fill(s, c->got, c->bytes);
    memcpy(c->want, c->got, c->bytes);
    const int is_backwards = take(s, 1) % 2;
    for (size_t p = 0; p < c->count; p++) {
        const size_t at = shift + (is_backwards ? c->count - 1 - p : p) * page;
        c->table[p] = c->got + at;
        c->wanted[p] = c->want + at;
    }
    c->pages =
        is_backwards ? (kvt_pages){ .table = c->table, .count = c->count } : (kvt_pages){ .base = c->got + shift, .stride = page, .count = c->count };
    return 0;
}

/* The layout, on one tier. */
static kvt_layout some_layout(const cache *c, source *s)
{
    unsigned id = take(s, 1) % 32;
    while ((kvt_tiers_usable() >> id & 1) == 0)
        id = (id + 1) % 32;
    kvt_spec spec = c->spec;
    kvt_layout layout;
    must(kvt_tiers_parse(kvt_tier_name(id), &spec.tiers) == KVT_OK);
    must(kvt_layout_init(&layout, &spec) == KVT_OK);
    return layout;
}

static void expect_pages(const cache *c)
{
    must(memcmp(c->got, c->want, c->bytes) == 0);
}

/* Rows of n tokens, exactly as long as they have to be; the first is at *origin. */
static uint8_t *make_rows(source *s, size_t n, size_t row, ptrdiff_t *stride, uint8_t **origin)
{
    size_t before;
    *stride = take_stride(s, row);
    if (n > 1 && (size_t)(*stride < 0 ? -*stride : *stride) < row)
        *stride = (ptrdiff_t)row;
    const size_t bytes = extent(*stride, n, 0, 1, row, &before);
    uint8_t *rows = block(bytes);
    fill(s, rows, bytes);
    *origin = rows + before;
    return rows;
}

static size_t rows_bytes(size_t n, size_t row, ptrdiff_t stride)
{
    size_t before;
    return extent(stride, n, 0, 1, row, &before);
}

static void write_some(cache *c, source *s, const kvt_layout *layout, kvt_side side, size_t first, size_t n)
{
    const kvt_dtype dtype = (kvt_dtype)(1 + take(s, 1) % 3);
    const oracle_side *expected = &c->oracle.side[side];
    ptrdiff_t stride;
    uint8_t *row, *rows = make_rows(s, n, expected->dim * kvt_dtype_bytes(dtype), &stride, &row);
    const int is_own = expected->options.centring == KVT_CENTRING_OWN, is_append = n == 1 && take(s, 1) % 2;
    const kvt_status status =
        is_append ? kvt_append(layout, side, &c->pages, first, row, dtype, stride) : kvt_write(layout, side, &c->pages, first, n, row, dtype, stride);
    must(status == (is_own && first % KVT_PAGE_TOKENS ? KVT_ERR_RANGE : KVT_OK));
    if (status == KVT_OK)
        oracle_write(&c->oracle, side, c->wanted, first, n, row, dtype, stride);
    free(rows);
}

static void read_some(const cache *c, source *s, const kvt_layout *layout, kvt_side side, size_t first, size_t n)
{
    const kvt_dtype dtype = (kvt_dtype)(1 + take(s, 1) % 3);
    const size_t bytes = c->oracle.side[side].dim * kvt_dtype_bytes(dtype);
    ptrdiff_t stride;
    uint8_t *row, *rows = make_rows(s, n, bytes, &stride, &row);
    const size_t all = rows_bytes(n, bytes, stride);
    uint8_t *want = block(all);
    memcpy(want, rows, all);
    must(kvt_read(layout, side, &c->pages, first, n, row, dtype, stride) == KVT_OK);
    oracle_read(&c->oracle, side, c->wanted, first, n, want + (row - rows), dtype, stride);
    must(memcmp(rows, want, all) == 0);
    free(rows);
    free(want);
}

/* Formats whose codes are copied where a scheme has the same grid come back bit for bit; the others pass through floats. */
static void convert_some(cache *c, source *s, const kvt_layout *layout, kvt_side side, size_t first, size_t n)
{
    size_t formats = 0;
    while (kvt_row_format_at(formats) != NULL)
        formats++;
    const kvt_row_format format = kvt_row_format_at(take(s, 1) % formats)->format;
    const oracle_side *expected = &c->oracle.side[side];
    const uint32_t dim = expected->dim;
    const size_t bytes = kvt_row_format_bytes(format, dim);
    const int is_out = take(s, 1) % 2, is_own = expected->options.centring == KVT_CENTRING_OWN;
    const int may_copy = expected->scheme == KVT_SCHEME_q8_0 || expected->scheme == KVT_SCHEME_q4_0 || expected->scheme == KVT_SCHEME_e4m3;
    ptrdiff_t stride;
    uint8_t *row, *rows = make_rows(s, n, bytes, &stride, &row);
    uint32_t *x = block(n * dim * sizeof *x);
    if (is_out) {
        const size_t all = rows_bytes(n, bytes, stride);
        uint8_t *want = block(all);
        memcpy(want, rows, all);
        must(kvt_convert_out(layout, side, &c->pages, first, n, format, row, stride, NULL) == KVT_OK);
        oracle_read(&c->oracle, side, c->wanted, first, n, (unsigned char *)x, KVT_F32, (ptrdiff_t)(dim * sizeof *x));
        for (size_t i = 0; i < n; i++)
            reference_encode(format, dim, x + i * dim, want + (row - rows) + (ptrdiff_t)i * stride, KVT_ROUNDING_CANONICAL, 1);
        must(may_copy || memcmp(rows, want, all) == 0);
        free(want);
    } else if (!may_copy) {
        const kvt_status status = kvt_convert_in(layout, side, &c->pages, first, n, format, row, stride, NULL);
        must(status == (is_own && first % KVT_PAGE_TOKENS ? KVT_ERR_RANGE : KVT_OK));
        for (size_t i = 0; i < n; i++)
            reference_decode(format, dim, row + (ptrdiff_t)i * stride, x + i * dim, 1);
        if (status == KVT_OK)
            oracle_write(&c->oracle, side, c->wanted, first, n, (const unsigned char *)x, KVT_F32, (ptrdiff_t)(dim * sizeof *x));
    }
    free(x);
    free(rows);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static cache c;
    source s = { bytes, size };
    memset(&c, 0, sizeof c);
    if (make_cache(&c, &s) == 0) {
        const uint32_t calls = 1 + take(&s, 1) % MAX_CALLS;
        for (uint32_t i = 0; i < calls; i++) {
            const kvt_layout layout = some_layout(&c, &s);
            const kvt_side side = c.spec.v_dim > 0 && take(&s, 1) % 2 ? KVT_V : KVT_K;
            const size_t tokens = c.count * KVT_PAGE_TOKENS, first = take(&s, 1) % tokens / (take(&s, 1) % 2 ? 1 : KVT_PAGE_TOKENS) % tokens;
            const uint32_t some = take(&s, 1);
            const size_t n = some < 80 ? 1 : 1 + some % (tokens - first), kind = take(&s, 1) % 4;
            if (kind < 2)
                write_some(&c, &s, &layout, side, first, n);
            else if (kind == 2)
                read_some(&c, &s, &layout, side, first, n);
            else
                convert_some(&c, &s, &layout, side, first, n);
            expect_pages(&c);
        }
    }
    free(c.got);
    free(c.want);
    return 0;
}
