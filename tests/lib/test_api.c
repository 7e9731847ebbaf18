/* SPDX-License-Identifier: MIT */
/* Arguments: every error gives its status and writes nothing; layouts are the sizes that docs/formats.md says. */
#include "support.h"

#include "kernels/api/api.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- schemes and texts ----------------------------------------------------------------------------------------------------------- */

START_TEST(scheme_table)
{
    size_t n = test_scheme_count();
    ck_assert_uint_ge(n, 6);
    for (size_t i = 0; i < n; i++) {
        const kvt_scheme_info *info = kvt_scheme_at(i);
        ck_assert_msg(oracle_knows(info->scheme), "the oracle does not know %s", info->name);
        oracle_layout o;
        kvt_spec spec = test_spec(info->scheme, info->scheme, 64, 64);
        oracle_layout_init(&o, &spec);
        const oracle_side *side = &o.side[KVT_K];
        ck_assert_ptr_eq(kvt_scheme_find(info->name), info);
        ck_assert_ptr_eq(kvt_scheme_get(info->scheme), info);
        ck_assert(info->title != NULL && info->title[0] != '\0');
        ck_assert_uint_eq(info->bits, side->bits);
        ck_assert_uint_eq(info->scale_bytes, side->scale_bytes);
        ck_assert_uint_eq(info->block, side->block == side->padded_dim ? KVT_BLOCK_ROW : side->block);
    }
    ck_assert_ptr_null(kvt_scheme_at(n));
    ck_assert_ptr_null(kvt_scheme_at(SIZE_MAX));
    ck_assert_ptr_null(kvt_scheme_find("nosuch"));
    ck_assert_ptr_null(kvt_scheme_find(""));
    ck_assert_ptr_null(kvt_scheme_find("q8_"));
    ck_assert_ptr_null(kvt_scheme_find("q8_00"));
    ck_assert_ptr_null(kvt_scheme_find(NULL));
    ck_assert_ptr_null(kvt_scheme_get(KVT_SCHEME_NONE));
    ck_assert_ptr_null(kvt_scheme_get((kvt_scheme)9999));
    ck_assert_str_eq(kvt_scheme_find("q8_0")->name, "q8_0");
    ck_assert_int_eq(kvt_scheme_find("f16")->scheme, KVT_SCHEME_f16);
}
END_TEST

START_TEST(texts)
{
    for (int status = -1; status < 40; status++) {
        const char *text = kvt_status_text((kvt_status)status);
        ck_assert_msg(text != NULL && text[0] != '\0', "status %d has no text", status);
        ck_assert_msg(text[strlen(text) - 1] != '.', "a full stop: %s", text);
    }
    ck_assert_str_ne(kvt_status_text(KVT_ERR_DIM), kvt_status_text(KVT_ERR_HEADS));
    ck_assert_uint_eq(kvt_dtype_bytes(KVT_F32), 4);
    ck_assert_uint_eq(kvt_dtype_bytes(KVT_F16), 2);
    ck_assert_uint_eq(kvt_dtype_bytes(KVT_BF16), 2);
    ck_assert_uint_eq(kvt_dtype_bytes((kvt_dtype)0), 0);
    ck_assert_uint_eq(kvt_dtype_bytes((kvt_dtype)4), 0);
    ck_assert_uint_eq(kvt_dtype_bytes((kvt_dtype)1000), 0);
    char version[40];
    snprintf(version, sizeof version, "%d.%d.%d", KVT_VERSION_MAJOR, KVT_VERSION_MINOR, KVT_VERSION_PATCH);
    ck_assert_str_eq(kvt_version(), version);
}
END_TEST

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

static void check_side(const kvt_side_layout *got, const oracle_side *want)
{
    uint32_t dim = want->dim;
    TEST_REQUIRE(got->scheme == want->scheme, "dim %u", dim);
    TEST_REQUIRE(got->dim == want->dim, "dim %u", dim);
    TEST_REQUIRE(got->padded_dim == want->padded_dim, "dim %u", dim);
    TEST_REQUIRE(got->row_bytes == want->row_bytes, "dim %u", dim);
    TEST_REQUIRE(got->code_bytes == want->tile_code_bytes, "dim %u", dim);
    TEST_REQUIRE(got->scale_bytes == want->tile_scale_bytes, "dim %u", dim);
    TEST_REQUIRE(got->codes_offset == want->codes_offset, "dim %u", dim);
    TEST_REQUIRE(got->scales_offset == want->scales_offset, "dim %u", dim);
    TEST_REQUIRE(got->centre_bytes == want->centre_bytes, "dim %u", dim);
    TEST_REQUIRE(want->centre_bytes == 0 || got->centre_offset == want->centre_offset, "dim %u", dim);
}

START_TEST(layout_sizes)
{
    size_t n = test_scheme_count();
    kvt_scheme k_scheme = kvt_scheme_at((size_t)_i)->scheme;
    for (size_t v = 0; v < n; v++) {
        kvt_scheme v_scheme = kvt_scheme_at(v)->scheme;
        for (uint32_t dim = 1; dim <= KVT_MAX_DIM; dim++) {
            uint32_t v_dim = (uint32_t)(dim * 37 + v) % (KVT_MAX_DIM + 1); /* 0 included */
            oracle_layout o;
            kvt_spec spec = test_spec(k_scheme, v_scheme, dim, v_dim);
            oracle_layout_init(&o, &spec);
            kvt_layout layout = test_layout(k_scheme, v_scheme, dim, v_dim, 8, 0);
            check_side(&layout.k, &o.side[KVT_K]);
            if (v_dim != 0) {
                check_side(&layout.v, &o.side[KVT_V]);
            } else {
                kvt_side_layout zero;
                memset(&zero, 0, sizeof zero);
                TEST_REQUIRE(memcmp(&layout.v, &zero, sizeof zero) == 0, "v is not zero");
            }
            TEST_REQUIRE(layout.page_bytes == o.page_bytes, "dim %u", dim);
            TEST_REQUIRE(layout.token_bytes == o.token_bytes, "dim %u", dim);
            TEST_REQUIRE(layout.size == sizeof layout, "dim %u", dim);
            TEST_REQUIRE(layout.page_bytes == 64 * layout.token_bytes, "dim %u", dim);
            TEST_REQUIRE(layout.spec.kv_heads == 8, "dim %u", dim);
            size_t bytes;
            TEST_REQUIRE(kvt_layout_bytes(&layout, 0, &bytes) == KVT_OK, "dim %u", dim);
            TEST_REQUIRE(bytes == 0, "dim %u", dim);
            TEST_REQUIRE(kvt_layout_bytes(&layout, 64, &bytes) == KVT_OK, "dim %u", dim);
            TEST_REQUIRE(bytes == 8 * o.page_bytes, "dim %u", dim);
            TEST_REQUIRE(kvt_layout_bytes(&layout, 65, &bytes) == KVT_OK, "dim %u", dim);
            TEST_REQUIRE(bytes == 16 * o.page_bytes, "dim %u", dim);
        }
    }
}
END_TEST

static const kvt_spec good_spec = {
    .size = sizeof(kvt_spec), .k_scheme = KVT_SCHEME_q8_0, .v_scheme = KVT_SCHEME_q4_0, .k_dim = 64, .v_dim = 48, .kv_heads = 2
};

static void refuses_spec(kvt_spec spec, kvt_status want, const char *what)
{
    kvt_layout layout, before;
    memset(&layout, 0x5a, sizeof layout);
    memcpy(&before, &layout, sizeof layout);
    kvt_status status = kvt_layout_init(&layout, &spec);
    ck_assert_msg(status == want, "%s: status %d, not %d", what, (int)status, (int)want);
    ck_assert_msg(memcmp(&layout, &before, sizeof layout) == 0, "%s: the layout was written", what);
}

#define REFUSES_SPEC(field, value, want)                                                                                                             \
    do {                                                                                                                                             \
        kvt_spec spec_ = good_spec;                                                                                                                  \
        spec_.field = (value);                                                                                                                       \
        refuses_spec(spec_, (want), #field " = " #value);                                                                                            \
    } while (0)

START_TEST(layout_init_errors)
{
    kvt_layout layout;
    ck_assert_int_eq(kvt_layout_init(NULL, &good_spec), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_layout_init(&layout, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_layout_init(&layout, &good_spec), KVT_OK);
    REFUSES_SPEC(size, 0, KVT_ERR_STRUCT_SIZE);
    REFUSES_SPEC(size, sizeof(kvt_spec) - 1, KVT_ERR_STRUCT_SIZE);
    REFUSES_SPEC(size, sizeof(kvt_spec) + 8, KVT_ERR_STRUCT_SIZE);
    REFUSES_SPEC(size, SIZE_MAX, KVT_ERR_STRUCT_SIZE);
    REFUSES_SPEC(k_scheme, KVT_SCHEME_NONE, KVT_ERR_SCHEME);
    REFUSES_SPEC(k_scheme, (kvt_scheme)1000, KVT_ERR_SCHEME);
    REFUSES_SPEC(v_scheme, KVT_SCHEME_NONE, KVT_ERR_SCHEME);
    REFUSES_SPEC(v_scheme, (kvt_scheme)0x7fffffff, KVT_ERR_SCHEME);
    REFUSES_SPEC(k_dim, 0, KVT_ERR_DIM);
    REFUSES_SPEC(k_dim, KVT_MAX_DIM + 1, KVT_ERR_DIM);
    REFUSES_SPEC(k_dim, UINT32_MAX, KVT_ERR_DIM);
    REFUSES_SPEC(v_dim, KVT_MAX_DIM + 1, KVT_ERR_DIM);
    REFUSES_SPEC(v_dim, UINT32_MAX, KVT_ERR_DIM);
    REFUSES_SPEC(kv_heads, 0, KVT_ERR_HEADS);
    REFUSES_SPEC(kv_heads, KVT_MAX_HEADS + 1, KVT_ERR_HEADS);
    REFUSES_SPEC(kv_heads, UINT32_MAX, KVT_ERR_HEADS);
    for (unsigned id = 0; id < 32; id++)
        if ((kvt_tiers_usable() >> id & 1) == 0)
            REFUSES_SPEC(tiers, kvt_tiers_usable() | UINT32_C(1) << id, KVT_ERR_TIER);

    /* What is at the limit is fine, and v_scheme is ignored without values. */
    kvt_spec spec = good_spec;
    spec.k_dim = spec.v_dim = KVT_MAX_DIM;
    spec.kv_heads = KVT_MAX_HEADS;
    spec.tiers = kvt_tiers_usable();
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    spec.v_dim = 0;
    spec.v_scheme = (kvt_scheme)1000;
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    ck_assert_uint_eq(layout.v.scheme, 0);
}
END_TEST

START_TEST(layout_bytes_errors)
{
    kvt_layout layout = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_NONE, 1, 0, 1, 0), bad = layout;
    const size_t page = 64 * 18;
    size_t bytes = 77;
    ck_assert_int_eq(kvt_layout_bytes(NULL, 1, &bytes), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_layout_bytes(&layout, 1, NULL), KVT_ERR_NULL);
    bad.size = sizeof bad + 1;
    ck_assert_int_eq(kvt_layout_bytes(&bad, 1, &bytes), KVT_ERR_LAYOUT);
    bad.size = 0;
    ck_assert_int_eq(kvt_layout_bytes(&bad, 1, &bytes), KVT_ERR_LAYOUT);
    ck_assert_int_eq(kvt_layout_bytes(&layout, SIZE_MAX, &bytes), KVT_ERR_OVERFLOW);
    ck_assert_int_eq(kvt_layout_bytes(&layout, SIZE_MAX / page * 64 + 1, &bytes), KVT_ERR_OVERFLOW);
    ck_assert_uint_eq(bytes, 77);
    ck_assert_int_eq(kvt_layout_bytes(&layout, SIZE_MAX / page * 64, &bytes), KVT_OK);
    ck_assert_uint_eq(bytes, SIZE_MAX / page * page);

    layout = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_NONE, 1, 0, KVT_MAX_HEADS, 0);
    const size_t pages = SIZE_MAX / page / KVT_MAX_HEADS;
    ck_assert_int_eq(kvt_layout_bytes(&layout, pages * 64, &bytes), KVT_OK);
    ck_assert_uint_eq(bytes, pages * page * KVT_MAX_HEADS);
    bytes = 77;
    ck_assert_int_eq(kvt_layout_bytes(&layout, pages * 64 + 1, &bytes), KVT_ERR_OVERFLOW);
    ck_assert_int_eq(kvt_layout_bytes(&layout, SIZE_MAX, &bytes), KVT_ERR_OVERFLOW);
    ck_assert_int_eq(kvt_layout_bytes(&layout, SIZE_MAX - 63, &bytes), KVT_ERR_OVERFLOW);
    ck_assert_uint_eq(bytes, 77);
}
END_TEST

START_TEST(head_pages_errors)
{
    kvt_layout layout = test_layout(KVT_SCHEME_f16, KVT_SCHEME_q4_0, 64, 64, 2, 0), bad = layout;
    kvt_pages pages, before;
    memset(&pages, 0x5a, sizeof pages);
    memcpy(&before, &pages, sizeof pages);
    char base[1];
    bad.size--;
    ck_assert_int_eq(kvt_head_pages(NULL, base, 64, 0, &pages), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_head_pages(&layout, NULL, 64, 0, &pages), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_head_pages(&layout, base, 64, 0, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_head_pages(&bad, base, 64, 0, &pages), KVT_ERR_LAYOUT);
    ck_assert_int_eq(kvt_head_pages(&layout, base, 64, 2, &pages), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_head_pages(&layout, base, 64, UINT32_MAX, &pages), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_head_pages(&layout, base, SIZE_MAX, 1, &pages), KVT_ERR_OVERFLOW);
    ck_assert_mem_eq(&pages, &before, sizeof pages);
}
END_TEST

/* ---- rows in and out ------------------------------------------------------------------------------------------------------------- */

enum { N_PAGES = 2, DIM = 64, N_ROWS = 128 };

/* Calls that are right but for one argument. */
typedef struct call {
    const kvt_layout *layout;
    kvt_side side;
    const kvt_pages *pages;
    size_t first, n;
    unsigned char *rows;
    kvt_dtype dtype;
    ptrdiff_t stride;
} call;

static kvt_layout good_layout;
static unsigned char *page_memory, *page_copy, *row_memory, *row_copy;
static size_t page_memory_bytes;
static const size_t row_memory_bytes = N_ROWS * DIM * 4;
static kvt_pages good_pages;

static void setup(void)
{
    good_layout = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_q4_0, DIM, DIM, 1, 0);
    page_memory_bytes = N_PAGES * good_layout.page_bytes;
    page_memory = test_malloc(page_memory_bytes);
    page_copy = test_malloc(page_memory_bytes);
    row_memory = test_malloc(row_memory_bytes);
    row_copy = test_malloc(row_memory_bytes);
    uint64_t state = 1;
    test_fill(&state, page_memory, page_memory_bytes);
    test_rows(0, &state, N_ROWS, DIM, row_memory, KVT_F32, 4 * DIM);
    memcpy(page_copy, page_memory, page_memory_bytes);
    memcpy(row_copy, row_memory, row_memory_bytes);
    good_pages = (kvt_pages){ .base = page_memory, .stride = good_layout.page_bytes, .count = N_PAGES };
}

static void teardown(void)
{
    free(page_memory);
    free(page_copy);
    free(row_memory);
    free(row_copy);
}

static call good_call(void)
{
    return (call){
        .layout = &good_layout, .side = KVT_K, .pages = &good_pages, .first = 1, .n = 66, .rows = row_memory, .dtype = KVT_F32, .stride = 4 * DIM
    };
}

static kvt_status write_call(const call *c)
{
    return kvt_write(c->layout, c->side, c->pages, c->first, c->n, c->rows, c->dtype, c->stride);
}
static kvt_status read_call(const call *c)
{
    return kvt_read(c->layout, c->side, c->pages, c->first, c->n, c->rows, c->dtype, c->stride);
}

static void nothing_written(const char *what)
{
    ck_assert_msg(memcmp(page_memory, page_copy, page_memory_bytes) == 0, "%s: pages were written", what);
    ck_assert_msg(memcmp(row_memory, row_copy, row_memory_bytes) == 0, "%s: rows were written", what);
}

static void refuses(call c, kvt_status want, const char *what)
{
    kvt_status status = write_call(&c);
    ck_assert_msg(status == want, "kvt_write, %s: status %d, not %d", what, (int)status, (int)want);
    nothing_written(what);
    status = read_call(&c);
    ck_assert_msg(status == want, "kvt_read, %s: status %d, not %d", what, (int)status, (int)want);
    nothing_written(what);
}

#define REFUSES(field, value, want)                                                                                                                  \
    do {                                                                                                                                             \
        call call_ = good_call();                                                                                                                    \
        call_.field = (value);                                                                                                                       \
        refuses(call_, (want), #field " = " #value);                                                                                                 \
    } while (0)

START_TEST(rows_errors)
{
    REFUSES(layout, NULL, KVT_ERR_NULL);
    REFUSES(pages, NULL, KVT_ERR_NULL);
    REFUSES(rows, NULL, KVT_ERR_NULL);
    REFUSES(side, (kvt_side)2, KVT_ERR_SIDE);
    REFUSES(side, (kvt_side)1000, KVT_ERR_SIDE);
    REFUSES(dtype, (kvt_dtype)0, KVT_ERR_DTYPE);
    REFUSES(dtype, (kvt_dtype)4, KVT_ERR_DTYPE);
    REFUSES(stride, 0, KVT_ERR_STRIDE);
    REFUSES(stride, 4 * DIM - 1, KVT_ERR_STRIDE);
    REFUSES(stride, -(4 * DIM - 1), KVT_ERR_STRIDE);
    REFUSES(first, 128, KVT_ERR_RANGE);
    REFUSES(first, 63, KVT_ERR_RANGE); /* 63 + 66 = 129 */
    REFUSES(first, SIZE_MAX, KVT_ERR_RANGE);
    REFUSES(first, SIZE_MAX - 65, KVT_ERR_RANGE); /* wraps around to 0 */
    REFUSES(n, 128, KVT_ERR_RANGE);
    REFUSES(n, SIZE_MAX, KVT_ERR_RANGE);

    kvt_layout bad = good_layout;
    bad.size = sizeof bad - 1;
    REFUSES(layout, &bad, KVT_ERR_LAYOUT);
    bad.size = 0;
    REFUSES(layout, &bad, KVT_ERR_LAYOUT);

    kvt_layout latent = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_NONE, DIM, 0, 1, 0);
    call c = good_call();
    c.layout = &latent;
    c.side = KVT_V;
    refuses(c, KVT_ERR_SIDE, "V of a layout without values");

    kvt_pages pages = good_pages;
    pages.base = NULL;
    REFUSES(pages, &pages, KVT_ERR_NULL);
    pages = good_pages;
    pages.count = 1;
    REFUSES(pages, &pages, KVT_ERR_RANGE);
    pages.count = 0;
    REFUSES(pages, &pages, KVT_ERR_RANGE);

    /* The last page of a table is missing: the first one stays as it is. */
    void *table[N_PAGES] = { page_memory, NULL };
    pages = (kvt_pages){ .table = table, .count = N_PAGES };
    REFUSES(pages, &pages, KVT_ERR_NULL);

    /* The header does not name the status for pages that overlap. */
    pages = good_pages;
    pages.stride = good_layout.page_bytes - 1;
    c = good_call();
    c.pages = &pages;
    ck_assert_int_ne(write_call(&c), KVT_OK);
    ck_assert_int_ne(read_call(&c), KVT_OK);
    nothing_written("overlapping pages");
}
END_TEST

START_TEST(rows_at_the_limits)
{
    call c = good_call();
    /* No tokens: nothing happens, even at the end. */
    c.n = 0;
    ck_assert_int_eq(write_call(&c), KVT_OK);
    ck_assert_int_eq(read_call(&c), KVT_OK);
    c.first = 128;
    ck_assert_int_eq(write_call(&c), KVT_OK);
    ck_assert_int_eq(read_call(&c), KVT_OK);
    nothing_written("no tokens");

    /* One token: any stride. */
    static const ptrdiff_t strides[] = { 0, 1, -1, PTRDIFF_MIN, PTRDIFF_MAX };
    for (size_t i = 0; i < sizeof strides / sizeof strides[0]; i++) {
        c = good_call();
        c.n = 1;
        c.stride = strides[i];
        ck_assert_int_eq(write_call(&c), KVT_OK);
        ck_assert_int_eq(read_call(&c), KVT_OK);
        memcpy(row_memory, row_copy, row_memory_bytes);
    }
    c = good_call();
    c.first = 127;
    c.n = 1;
    ck_assert_int_eq(write_call(&c), KVT_OK);
    c.first = 0;
    c.n = 128;
    ck_assert_int_eq(write_call(&c), KVT_OK);
    ck_assert_int_ne(memcmp(page_memory, page_copy, page_memory_bytes), 0);

    /* A table may have holes where no token is asked for. */
    void *table[N_PAGES] = { NULL, page_memory };
    kvt_pages pages = { .table = table, .count = N_PAGES };
    c.pages = &pages;
    c.first = 64;
    c.n = 64;
    ck_assert_int_eq(write_call(&c), KVT_OK);
    ck_assert_int_eq(read_call(&c), KVT_OK);
}
END_TEST

/* ---- a token of all heads -------------------------------------------------------------------------------------------------------- */

enum { HEADS = 19, HEAD_TOKENS = 70 };

static void append_all(const kvt_layout *layout, kvt_side side, const kvt_pages pages[HEADS], const float *rows, uint32_t dim, bool is_reversed)
{
    const ptrdiff_t stride = (ptrdiff_t)(dim * sizeof *rows);
    for (size_t token = 0; token < HEAD_TOKENS; token++) {
        const float *first = rows + (token * HEADS + (is_reversed ? HEADS - 1 : 0)) * dim;
        ck_assert_int_eq(kvt_append(layout, side, pages, token, first, KVT_F32, is_reversed ? -stride : stride), KVT_OK);
    }
}

START_TEST(append_is_write_in_every_head)
{
    static const uint32_t dims[] = { 64, 80 };
    const kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    uint64_t random = 1;
    for (int variant = 0; variant < 4; variant++) {
        const uint32_t dim = dims[variant % 2];
        kvt_spec spec = test_spec(scheme, scheme, dim, dim);
        spec.kv_heads = HEADS;
        if (variant >= 2) {
            spec.k_options.rotation = KVT_ROTATION_64;
            spec.k_options.centring = spec.v_options.centring = KVT_CENTRING_PAGE;
        }
        kvt_layout layout;
        ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
        size_t bytes;
        ck_assert_int_eq(kvt_layout_bytes(&layout, HEAD_TOKENS, &bytes), KVT_OK);
        unsigned char *want = test_malloc(bytes), *got = test_malloc(bytes);
        memset(want, 0, bytes);
        memset(got, 0, bytes);
        kvt_pages want_pages[HEADS], pages[HEADS];
        for (uint32_t h = 0; h < HEADS; h++) {
            ck_assert_int_eq(kvt_head_pages(&layout, want, HEAD_TOKENS, h, &want_pages[h]), KVT_OK);
            ck_assert_int_eq(kvt_head_pages(&layout, got, HEAD_TOKENS, variant % 2 ? HEADS - 1 - h : h, &pages[h]), KVT_OK);
        }
        float *rows = test_malloc(sizeof *rows * HEAD_TOKENS * HEADS * dim);
        for (size_t i = 0; i < (size_t)HEAD_TOKENS * HEADS * dim; i++)
            rows[i] = (float)test_normal(&random);
        for (int side = 0; side < 2; side++) {
            for (uint32_t h = 0; h < HEADS; h++)
                ck_assert_int_eq(kvt_write(&layout, (kvt_side)side, &want_pages[h], 0, HEAD_TOKENS, rows + (size_t)h * dim, KVT_F32,
                                           (ptrdiff_t)(HEADS * dim * sizeof *rows)),
                                 KVT_OK);
            append_all(&layout, (kvt_side)side, pages, rows, dim, false);
        }
        if (variant % 2) { /* heads in the other order: rows too */
            for (int side = 0; side < 2; side++)
                append_all(&layout, (kvt_side)side, pages, rows, dim, true);
        }
        TEST_REQUIRE(memcmp(want, got, bytes) == 0, "%s, variant %d: not what kvt_write writes", kvt_scheme_at((size_t)_i)->name, variant);

        /* Refused as a whole: only the last head lacks the page. */
        const ptrdiff_t stride = (ptrdiff_t)(dim * sizeof *rows);
        memset(rows, 0, sizeof *rows * HEADS * dim);
        pages[HEADS - 1].count = 1;
        ck_assert_int_eq(kvt_append(&layout, KVT_K, pages, 65, rows, KVT_F32, stride), KVT_ERR_RANGE);
        ck_assert_int_eq(kvt_append(&layout, KVT_K, pages, 3, rows, KVT_F32, stride - 1), KVT_ERR_STRIDE);
        ck_assert_int_eq(kvt_append(&layout, KVT_K, pages, 3, rows, KVT_F32, 1 - stride), KVT_ERR_STRIDE);
        ck_assert_int_eq(kvt_append(&layout, KVT_K, pages, 3, rows, (kvt_dtype)7, stride), KVT_ERR_DTYPE);
        ck_assert_int_eq(kvt_append(&layout, KVT_K, pages, 3, NULL, KVT_F32, stride), KVT_ERR_NULL);
        ck_assert_int_eq(kvt_append(&layout, KVT_K, NULL, 3, rows, KVT_F32, stride), KVT_ERR_NULL);
        ck_assert_int_eq(kvt_append(NULL, KVT_K, pages, 3, rows, KVT_F32, stride), KVT_ERR_NULL);
        ck_assert_int_eq(kvt_append(&layout, (kvt_side)2, pages, 3, rows, KVT_F32, stride), KVT_ERR_SIDE);
        TEST_REQUIRE(memcmp(want, got, bytes) == 0, "refused, but written");
        free(rows);
        free(want);
        free(got);
    }
}
END_TEST

/* ---- structs of older callers ---------------------------------------------------------------------------------------------------- */

/* A struct that has grown twice: its first version ended with `first`. */
typedef struct grown {
    size_t size;
    uint32_t first, second;
    uint64_t third;
} grown;

START_TEST(structs_of_older_callers)
{
    const grown given = { .size = sizeof given, .first = 1, .second = 2, .third = 3 };
    for (size_t size = 0; size < 40; size++) {
        grown from = given, taken;
        memset(&taken, 0x5a, sizeof taken);
        from.size = size;
        const kvt_status status = KVT_TAKE_STRUCT(grown, first, &taken, &from);
        if (size != 16 && size != 24) {
            ck_assert_int_eq(status, KVT_ERR_STRUCT_SIZE);
            continue;
        }
        ck_assert_int_eq(status, KVT_OK);
        ck_assert_uint_eq(taken.size, sizeof taken);
        ck_assert_uint_eq(taken.first, 1);
        ck_assert_uint_eq(taken.second, 2); /* it fills what would be padding of the first version: callers zero their structs */
        ck_assert_uint_eq(taken.third, size == 24 ? 3 : 0);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("api");
    TCase *tcase = tcase_create("tables and layouts");
    int schemes = (int)test_scheme_count();
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, scheme_table);
    tcase_add_test(tcase, texts);
    tcase_add_loop_test(tcase, layout_sizes, 0, schemes);
    tcase_add_test(tcase, layout_init_errors);
    tcase_add_test(tcase, layout_bytes_errors);
    tcase_add_test(tcase, head_pages_errors);
    tcase_add_test(tcase, structs_of_older_callers);
    tcase_add_loop_test(tcase, append_is_write_in_every_head, 0, schemes);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("rows");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, rows_errors);
    tcase_add_test(tcase, rows_at_the_limits);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
