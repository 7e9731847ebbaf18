/* SPDX-License-Identifier: MIT */
/* Rotation, centring, effort and FP8 scales: bytes and rows of every scheme equal the oracle's on every tier, however the tokens come. */
#include "tests/lib/support.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS = 150, PAGES = 3, MARGIN = 64 };

static const kvt_side_options plain[] = {
    { .rotation = KVT_ROTATION_64 },
    { .rotation = KVT_ROTATION_128 },
    { .centring = KVT_CENTRING_PAGE },
    { .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_PAGE },
    { .rotation = KVT_ROTATION_128, .centring = KVT_CENTRING_SEQUENCE },
    { .centring = KVT_CENTRING_OWN },
    { .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN },
};
static const kvt_side_options efforts[] = {
    { .effort = KVT_EFFORT_FAST },
    { .effort = KVT_EFFORT_BEST, .rotation = KVT_ROTATION_64 },
};
static const kvt_side_options fp8[] = {
    { .fp8_block = 32 },
    { .fp8_block = 64, .fp8_scale = KVT_FP8_SCALE_E8M0 },
    { .fp8_block = 128, .fp8_scale = KVT_FP8_SCALE_E8M0 },
    { .fp8_scale = KVT_FP8_SCALE_E8M0 },
    { .fp8_block = KVT_BLOCK_TENSOR, .fp8_tensor_scale = 0.03125f },
    { .fp8_block = KVT_BLOCK_TENSOR, .fp8_tensor_scale = 0x1.234p-20f, .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_PAGE },
};

/* Options that mean something for the scheme, one after the other; false past the end. */
static bool options_at(const kvt_scheme_info *info, size_t index, kvt_side_options *options)
{
    const size_t n_plain = sizeof plain / sizeof *plain, n_efforts = info->scale_bytes == 1 ? sizeof efforts / sizeof *efforts : 0,
                 n_fp8 = info->is_fp8 ? sizeof fp8 / sizeof *fp8 : 0;
    if (index < n_plain)
        *options = plain[index];
    else if (index < n_plain + n_efforts)
        *options = efforts[index - n_plain];
    else if (index < n_plain + n_efforts + n_fp8)
        *options = fp8[index - n_plain - n_efforts];
    else
        return false;
    return true;
}

/* Rows as real ones are, with an offset that all have in common, and now and then something odd. */
static void make_rows(uint64_t *state, uint32_t dim, unsigned char *rows, kvt_dtype dtype)
{
    const size_t element = oracle_element_bytes(dtype);
    for (uint32_t t = 0; t < TOKENS; t++) {
        uint32_t x[256];
        if (t % 23 == 22) {
            test_row(test_below(state, TEST_PATTERNS), state, dim, x);
        } else {
            for (uint32_t c = 0; c < dim; c++)
                x[c] = test_bits(test_normal(state) + (c % 7 == 3 ? 5.0 : 0.25) * (double)(c % 5));
        }
        for (uint32_t c = 0; c < dim; c++)
            oracle_store(rows + (t * dim + c) * element, element, dtype == KVT_F32 ? x[c] : oracle_narrow(oracle_row_format(dtype), x[c]));
    }
}

static void check_options(const kvt_scheme_info *info, kvt_side which, uint32_t dim, kvt_dtype dtype, const kvt_side_options *options)
{
    uint64_t state = dim + 1000u * (unsigned)info->scheme;
    kvt_spec spec = test_spec(info->scheme, KVT_SCHEME_f16, dim, 16);
    if (which == KVT_V) {
        spec = test_spec(KVT_SCHEME_f16, info->scheme, 16, dim);
        spec.v_options = *options;
    } else {
        spec.k_options = *options;
    }
    oracle_layout o;
    oracle_layout_init(&o, &spec);
    const size_t bytes = PAGES * o.page_bytes, row_bytes = dim * oracle_element_bytes(dtype);
    unsigned char *rows = test_malloc(TOKENS * row_bytes), *back = test_malloc(TOKENS * row_bytes), *want_back = test_malloc(TOKENS * row_bytes);
    unsigned char *fill = test_malloc(bytes), *want = test_malloc(bytes), *got = test_malloc(bytes);
    make_rows(&state, dim, rows, dtype);
    test_fill(&state, fill, bytes);
    memcpy(want, fill, bytes);
    unsigned char *table[PAGES];
    for (size_t p = 0; p < PAGES; p++)
        table[p] = want + p * o.page_bytes;
    oracle_write(&o, which, table, 0, TOKENS, rows, dtype, (ptrdiff_t)row_bytes);
    oracle_read(&o, which, table, 0, TOKENS, want_back, dtype, (ptrdiff_t)row_bytes);

    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    for (size_t t = 0; t < n_tiers; t++) {
        spec.tiers = tiers[t].mask;
        kvt_layout layout;
        ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
        ck_assert_uint_eq(layout.page_bytes, o.page_bytes);
        const kvt_pages pages = { .base = got, .stride = o.page_bytes, .count = PAGES };
        /* At once, in pieces of any size, and one by one; of pages that have centres of their own, page by page. */
        for (unsigned piece = 0; piece < 3; piece++) {
            memcpy(got, fill, bytes);
            for (size_t done = 0; done < TOKENS;) {
                size_t n = piece == 0 ? TOKENS : piece == 1 ? 1 + test_below(&state, 40) : 1;
                if (piece > 0 && options->centring == KVT_CENTRING_OWN)
                    n = KVT_PAGE_TOKENS * piece;
                n = n < TOKENS - done ? n : TOKENS - done;
                ck_assert_int_eq(kvt_write(&layout, which, &pages, done, n, rows + done * row_bytes, dtype, (ptrdiff_t)row_bytes), KVT_OK);
                done += n;
            }
            const size_t at = test_difference(want, got, bytes);
            TEST_REQUIRE(
                at == bytes,
                "%s, rotation %d, centring %d, effort %d, FP8 block %u: %s, %c, dim %u, dtype %d, pieces %u: byte %zu of page %zu is %02x, not %02x",
                info->name, options->rotation, options->centring, options->effort, options->fp8_block, tiers[t].name, which == KVT_K ? 'K' : 'V', dim,
                dtype, piece, at % o.page_bytes, at / o.page_bytes, got[at], want[at]);
        }
        ck_assert_int_eq(kvt_read(&layout, which, &pages, 0, TOKENS, back, dtype, (ptrdiff_t)row_bytes), KVT_OK);
        const size_t at = test_difference(want_back, back, TOKENS * row_bytes);
        TEST_REQUIRE(at == TOKENS * row_bytes, "%s, rotation %d, centring %d: %s, %c, dim %u, dtype %d: byte %zu read back is %02x, not %02x",
                     info->name, options->rotation, options->centring, tiers[t].name, which == KVT_K ? 'K' : 'V', dim, dtype, at, back[at],
                     want_back[at]);
    }
    free(rows);
    free(back);
    free(want_back);
    free(fill);
    free(want);
    free(got);
}

START_TEST(against_the_oracle)
{
    static const uint32_t dims[] = { 64, 80, 128, 72 };
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i / 2);
    kvt_side_options options;
    size_t n = (size_t)_i; /* another share of each scheme */
    for (size_t i = 0; options_at(info, i, &options); i++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            if (((i + d) % 2 == 0 || d == 1) && n++ % KVT_TEST_SHARE == 0)
                check_options(info, _i % 2 ? KVT_V : KVT_K, dims[d], i % 3 == 0 ? KVT_F32 : i % 3 == 1 ? KVT_BF16 : KVT_F16, &options);
}
END_TEST

/* Garbage in codes, scales and centres is read as the oracle reads it. */
START_TEST(garbage)
{
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i);
    kvt_side_options options;
    uint64_t state = 77;
    for (size_t i = 0; options_at(info, i, &options); i++) {
        kvt_spec spec = test_spec(info->scheme, info->scheme, 80, 80);
        spec.k_options = spec.v_options = options;
        oracle_layout o;
        oracle_layout_init(&o, &spec);
        const size_t bytes = PAGES * o.page_bytes;
        unsigned char *memory = test_malloc(bytes), *table[PAGES];
        for (size_t p = 0; p < PAGES; p++)
            table[p] = memory + p * o.page_bytes;
        const kvt_pages pages = { .base = memory, .stride = o.page_bytes, .count = PAGES };
        test_tier tiers[32];
        const size_t n_tiers = test_tiers(tiers);
        for (unsigned round = 0; round < 8; round++) {
            test_fill(&state, memory, bytes);
            for (int which = KVT_K; which <= KVT_V; which++) {
                float want[64 * 80], got[64 * 80];
                oracle_read(&o, (kvt_side)which, table, 70, 64, (unsigned char *)want, KVT_F32, 320);
                for (size_t t = 0; t < n_tiers; t++) {
                    spec.tiers = tiers[t].mask;
                    kvt_layout layout;
                    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
                    ck_assert_int_eq(kvt_read(&layout, (kvt_side)which, &pages, 70, 64, got, KVT_F32, 320), KVT_OK);
                    const size_t at = test_difference(want, got, sizeof want);
                    TEST_REQUIRE(at == sizeof want, "%s, options %zu, %s, side %d: element %zu is %a, not %a", info->name, i, tiers[t].name, which,
                                 at / 4, (double)got[at / 4 % 5120], (double)want[at / 4 % 5120]);
                }
            }
        }
        free(memory);
    }
}
END_TEST

START_TEST(wrong_options)
{
    static const struct {
        kvt_scheme scheme;
        kvt_side_options options;
    } wrong[] = {
        { KVT_SCHEME_kv4, { .rotation = (kvt_rotation)32 } },
        { KVT_SCHEME_kv4, { .centring = (kvt_centring)4 } },
        { KVT_SCHEME_kv4, { .effort = (kvt_effort)3 } },
        { KVT_SCHEME_kv4, { .fp8_block = 32 } },
        { KVT_SCHEME_kv4, { .fp8_scale = KVT_FP8_SCALE_E8M0 } },
        { KVT_SCHEME_q8_0, { .fp8_tensor_scale = 1 } },
        { KVT_SCHEME_e4m3, { .fp8_block = 16 } },
        { KVT_SCHEME_e4m3, { .fp8_scale = (kvt_fp8_scale)2 } },
        { KVT_SCHEME_e4m3, { .fp8_tensor_scale = 1 } },
        { KVT_SCHEME_e4m3, { .fp8_block = KVT_BLOCK_TENSOR } },
        { KVT_SCHEME_e4m3, { .fp8_block = KVT_BLOCK_TENSOR, .fp8_tensor_scale = -1 } },
        { KVT_SCHEME_e4m3, { .fp8_block = KVT_BLOCK_TENSOR, .fp8_tensor_scale = 0x1p65f } },
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kvt_layout layout, before;
        memset(&layout, 0x5a, sizeof layout);
        memcpy(&before, &layout, sizeof layout);
        kvt_spec spec = test_spec(wrong[i].scheme, wrong[i].scheme, 64, 64);
        spec.k_options = wrong[i].options;
        ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_ERR_OPTIONS);
        spec.k_options = (kvt_side_options){ 0 };
        spec.v_options = wrong[i].options;
        ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_ERR_OPTIONS);
        ck_assert_uint_eq(test_difference(&layout, &before, sizeof layout), sizeof layout);
        spec.v_dim = 0; /* then they are ignored */
        ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    }
}
END_TEST

/* The first token of a page needs the page before it, and only with centring. */
START_TEST(page_before)
{
    kvt_spec spec = test_spec(KVT_SCHEME_q8_0, KVT_SCHEME_q8_0, 64, 64);
    spec.k_options.centring = KVT_CENTRING_PAGE;
    kvt_layout layout;
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    unsigned char *page = test_malloc(layout.page_bytes);
    memset(page, 0, layout.page_bytes);
    void *table[] = { NULL, page };
    const kvt_pages pages = { .table = table, .count = 2 };
    const float row[64] = { 1 };
    ck_assert_int_eq(kvt_write(&layout, KVT_K, &pages, 64, 1, row, KVT_F32, 0), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_write(&layout, KVT_K, &pages, 65, 1, row, KVT_F32, 0), KVT_OK);
    ck_assert_int_eq(kvt_write(&layout, KVT_V, &pages, 64, 1, row, KVT_F32, 0), KVT_OK);
    table[0] = test_malloc(layout.page_bytes);
    memset(table[0], 0, layout.page_bytes);
    ck_assert_int_eq(kvt_write(&layout, KVT_K, &pages, 64, 1, row, KVT_F32, 0), KVT_OK);
    free(table[0]);
    free(page);
}
END_TEST

/* Pages that have centres of their own are written from their first token on, in any order, however many tokens they have; again when there are more.
 */
START_TEST(own_pages)
{
    enum { DIM = 72 };
    kvt_spec spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_kv5, DIM, DIM);
    spec.kv_heads = 3;
    spec.k_options = spec.v_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN };
    oracle_layout o;
    oracle_layout_init(&o, &spec);
    kvt_layout layout;
    ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
    const size_t bytes = PAGES * o.page_bytes, stride = DIM * sizeof(float);
    unsigned char *rows = test_malloc(TOKENS * stride), *want = test_malloc(3 * bytes), *got = test_malloc(3 * bytes);
    uint64_t state = 5;
    make_rows(&state, DIM, rows, KVT_F32);
    memset(want, 0xa5, 3 * bytes);
    memset(got, 0xa5, 3 * bytes);
    unsigned char *table[PAGES];
    void *places[PAGES];
    for (size_t p = 0; p < PAGES; p++) {
        table[p] = want + p * o.page_bytes;
        places[p] = p == 1 ? NULL : got + p * o.page_bytes; /* nobody needs the page before */
    }
    const kvt_pages pages = { .table = places, .count = PAGES };
    for (int which = KVT_K; which <= KVT_V; which++) {
        const kvt_side side = (kvt_side)which;
        oracle_write(&o, side, table, 128, 21, rows, KVT_F32, (ptrdiff_t)stride);
        ck_assert_int_eq(kvt_write(&layout, side, &pages, 128, 21, rows, KVT_F32, (ptrdiff_t)stride), KVT_OK);
        ck_assert_uint_eq(test_difference(want, got, bytes), bytes);
        oracle_write(&o, side, table, 128, 1, rows + stride, KVT_F32, (ptrdiff_t)stride);
        ck_assert_int_eq(kvt_write(&layout, side, &pages, 128, 1, rows + stride, KVT_F32, (ptrdiff_t)stride), KVT_OK);
        ck_assert_uint_eq(test_difference(want, got, bytes), bytes);
        oracle_write(&o, side, table, 0, 64, rows + 64 * stride, KVT_F32, (ptrdiff_t)stride);
        ck_assert_int_eq(kvt_write(&layout, side, &pages, 0, 64, rows + 64 * stride, KVT_F32, (ptrdiff_t)stride), KVT_OK);
        ck_assert_uint_eq(test_difference(want, got, bytes), bytes);
        for (size_t first = 1; first < 64; first += 31) {
            ck_assert_int_eq(kvt_write(&layout, side, &pages, first, 1, rows, KVT_F32, (ptrdiff_t)stride), KVT_ERR_RANGE);
            ck_assert_int_eq(kvt_write(&layout, side, &pages, first, 64, rows, KVT_F32, (ptrdiff_t)stride), KVT_ERR_NULL);
            ck_assert_uint_eq(test_difference(want, got, bytes), bytes);
        }
    }
    /* One token of all heads. */
    kvt_pages heads[3];
    for (size_t h = 0; h < 3; h++)
        heads[h] = (kvt_pages){ .base = got + h * bytes, .stride = o.page_bytes, .count = PAGES };
    ck_assert_int_eq(kvt_append(&layout, KVT_K, heads, 63, rows, KVT_F32, (ptrdiff_t)stride), KVT_ERR_RANGE);
    ck_assert_int_eq(kvt_append(&layout, KVT_K, heads, 64, rows, KVT_F32, (ptrdiff_t)stride), KVT_OK);
    for (size_t h = 0; h < 3; h++) {
        for (size_t p = 0; p < PAGES; p++)
            table[p] = want + h * bytes + p * o.page_bytes;
        oracle_write(&o, KVT_K, table, 64, 1, rows + h * stride, KVT_F32, (ptrdiff_t)stride);
    }
    ck_assert_uint_eq(test_difference(want, got, 3 * bytes), 3 * bytes);
    free(rows);
    free(want);
    free(got);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *tcase = tcase_create("options");
    const int schemes = (int)test_scheme_count();
    tcase_set_timeout(tcase, 900);
    tcase_add_loop_test(tcase, against_the_oracle, 0, 2 * schemes);
    tcase_add_loop_test(tcase, garbage, 0, schemes);
    tcase_add_test(tcase, wrong_options);
    tcase_add_test(tcase, page_before);
    tcase_add_test(tcase, own_pages);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
