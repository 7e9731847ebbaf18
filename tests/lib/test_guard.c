/* SPDX-License-Identifier: MIT */
/* An allocation of exactly kvt_layout_bytes between inaccessible pages, used to its last byte and not beyond, and rows placed likewise, for every
 * scheme, side, tier and row width. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

enum { SLICES = 4, LARGEST_PAGE = 64 * 2 * KVT_MAX_DIM * 4, LARGEST_ROW = KVT_MAX_DIM * 4 };

static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };

static void write_and_read(const kvt_layout *layout, kvt_side which, uint32_t dim, const kvt_pages *pages, size_t first, size_t n, kvt_dtype dtype,
                           const test_arena *rows, bool at_end)
{
    size_t stride = dim * oracle_element_bytes(dtype);
    unsigned char *row = test_arena_flush(rows, n * stride, at_end);
    kvt_status status = kvt_write(layout, which, pages, first, n, row, dtype, (ptrdiff_t)stride);
    TEST_REQUIRE(status == KVT_OK, "kvt_write: %s", kvt_status_text(status));
    status = kvt_read(layout, which, pages, first, n, row, dtype, (ptrdiff_t)stride);
    TEST_REQUIRE(status == KVT_OK, "kvt_read: %s", kvt_status_text(status));
}

/* Each call gets the dims of one residue of SLICES; all of 16..1024 in all. */
START_TEST(every_dim)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i / SLICES)->scheme;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    test_arena memory = test_arena_make(2 * (size_t)LARGEST_PAGE), rows = test_arena_make(67 * (size_t)LARGEST_ROW);
    uint64_t state = 11;
    test_fill(&state, rows.base, rows.bytes);
    for (uint32_t dim = 16 + (uint32_t)_i % SLICES; dim <= 1024; dim += SLICES) {
        if (dim / SLICES % KVT_TEST_SHARE != n_tiers % KVT_TEST_SHARE)
            continue;
        for (size_t t = 0; t < n_tiers; t++) {
            if (t == 0 && n_tiers > 1 && dim / SLICES / KVT_TEST_SHARE % 4 != 0) /* scalar: the same loops, and slow */
                continue;
            kvt_dtype dtype = dtypes[(dim / SLICES + t) % 3];
            for (int side = 0; side < 2; side++) {
                /* The side under test ends the page. */
                kvt_side which = (kvt_side)side;
                kvt_spec spec = test_spec(scheme, scheme, which == KVT_K ? dim : 16, which == KVT_K ? 0 : dim);
                spec.tiers = tiers[t].mask;
                kvt_side_options *options = which == KVT_K ? &spec.k_options : &spec.v_options;
                options->effort = KVT_EFFORT_FAST; /* quick, and in the same memory */
                if (dim / SLICES % 3 == 1)
                    *options = (kvt_side_options){ .rotation = KVT_ROTATION_128, .centring = KVT_CENTRING_PAGE, .effort = KVT_EFFORT_FAST };
                kvt_layout layout;
                TEST_REQUIRE(kvt_layout_init(&layout, &spec) == KVT_OK, "kvt_layout_init");
                for (int at_end = 0; at_end < 2; at_end++) {
                    size_t tokens = dim % 64 <= 1 ? 67 : dim % 16 == 3 ? 17 : 1, bytes;
                    TEST_REQUIRE(kvt_layout_bytes(&layout, tokens, &bytes) == KVT_OK, "kvt_layout_bytes");
                    kvt_pages pages;
                    unsigned char *base = test_arena_flush(&memory, bytes, at_end);
                    TEST_REQUIRE(kvt_head_pages(&layout, base, tokens, 0, &pages) == KVT_OK, "kvt_head_pages");
                    write_and_read(&layout, which, dim, &pages, 0, tokens, dtype, &rows, at_end);
                    /* The last tokens of the last page: its last bytes. */
                    write_and_read(&layout, which, dim, &pages, pages.count * 64 - 2, 2, dtype, &rows, at_end);
                }
            }
        }
    }
}
END_TEST

/* Writing all tokens leaves no bit of the allocation as it was, padding channels included, and the heads' pages do not overlap. */
START_TEST(used_to_the_last_byte)
{
    static const uint32_t dims[] = { 1, 16, 33, 80, 100, 128, 576 };
    kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    const uint32_t heads = 3;
    const size_t tokens = 100;
    uint64_t state = 5;
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        for (size_t t = 0; t < n_tiers; t++) {
            kvt_layout layout = test_layout(scheme, scheme, dims[d], dims[d], heads, tiers[t].mask);
            size_t bytes;
            ck_assert_int_eq(kvt_layout_bytes(&layout, tokens, &bytes), KVT_OK);
            ck_assert_uint_eq(bytes, heads * 2 * layout.page_bytes);
            unsigned char *copies[2];
            size_t stride = (size_t)dims[d] * 4;
            unsigned char *rows = test_malloc(128 * stride);
            test_rows(0, &state, 128, dims[d], rows, KVT_F32, (ptrdiff_t)stride);
            for (int copy = 0; copy < 2; copy++) {
                copies[copy] = test_malloc(bytes);
                memset(copies[copy], copy == 0 ? 0x00 : 0xff, bytes);
                for (uint32_t head = 0; head < heads; head++) {
                    kvt_pages pages;
                    ck_assert_int_eq(kvt_head_pages(&layout, copies[copy], tokens, head, &pages), KVT_OK);
                    ck_assert_ptr_eq(pages.base, copies[copy] + head * 2 * layout.page_bytes);
                    ck_assert_uint_eq(pages.count, 2);
                    ck_assert(pages.table == NULL && pages.stride == layout.page_bytes);
                    for (int side = 0; side < 2; side++)
                        ck_assert_int_eq(kvt_write(&layout, (kvt_side)side, &pages, 0, 128, rows, KVT_F32, (ptrdiff_t)stride), KVT_OK);
                }
            }
            size_t at = test_difference(copies[0], copies[1], bytes);
            TEST_REQUIRE(at == bytes, "%s, tier %s, dim %u: byte %zu of %zu is not written", kvt_scheme_get(scheme)->name, tiers[t].name, dims[d], at,
                         bytes);
            TEST_REQUIRE(memcmp(copies[0], copies[0] + 2 * layout.page_bytes, 2 * layout.page_bytes) == 0, "heads differ");
            free(copies[0]);
            free(copies[1]);
            free(rows);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guard");
    TCase *tcase = tcase_create("guard");
    int schemes = (int)test_scheme_count();
    tcase_set_timeout(tcase, 900);
    tcase_add_loop_test(tcase, every_dim, 0, schemes * SLICES);
    tcase_add_loop_test(tcase, used_to_the_last_byte, 0, schemes);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
