/* SPDX-License-Identifier: MIT */
/* Committed hashes of pages and of what is read back, for one fixed stream of inputs: no compiler, CPU or tier may ever change them, and no release
 * within one KVT_FORMAT_VERSION may either. `test_golden --print` prints golden.def anew, from the oracle; that is only right when a scheme or an
 * option is added, and leaves the rows that are there as they are. Some tiny vectors worked out by hand precede them. */
#include "support.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- by hand --------------------------------------------------------------------------------------------------------------------- */

static void write_one(kvt_scheme scheme, uint32_t dim, const float *row, unsigned char *page, kvt_layout *layout, uint32_t tiers)
{
    *layout = test_layout(scheme, scheme, dim, 0, 1, tiers);
    kvt_pages pages = { .base = page, .stride = layout->page_bytes, .count = 1 };
    memset(page, 0, layout->page_bytes);
    ck_assert_int_eq(kvt_write(layout, KVT_K, &pages, 0, 1, row, KVT_F32, 0), KVT_OK);
}

/* Token 0 of a K tile of 8-bit codes: cell 0 of each line, 64 bytes apart, four channels in each. */
static void check_cells(const unsigned char *page, const unsigned char *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(page[i / 4 * 64 + i % 4] == want[i], "%s: code byte %zu is %02x, not %02x", what, i, page[i / 4 * 64 + i % 4], want[i]);
}

START_TEST(q8_0_by_hand)
{
    /* The largest is 127/2, so d = 0.5 = f16 0x3800 and r = 2. Codes are 2x, ties to even: 1.25 -> 2.5 -> 2, 0.75 -> 1.5 -> 2, -0.25 -> -0.5 -> 0,
     * -0.75 -> -1.5 -> -2 = 0xfe, -63.5 -> -127 = 0x81. */
    float row[32] = { 63.5f, 1.25f, 0.75f, -0.25f, -0.75f, -63.5f, 0.5f, -0.5f, 0.26f };
    static const unsigned char want[32] = { 0x7f, 0x02, 0x02, 0x00, 0xfe, 0x81, 0x01, 0xff, 0x01 };
    unsigned char page[64 * 34];
    kvt_layout layout;
    test_tier tiers[32];
    for (size_t n = test_tiers(tiers), t = 0; t < n; t++) {
        write_one(KVT_SCHEME_q8_0, 32, row, page, &layout, tiers[t].mask);
        check_cells(page, want, 32, tiers[t].name);
        ck_assert_uint_eq(layout.k.scales_offset, 64 * 32);
        ck_assert_uint_eq(page[64 * 32], 0x00);
        ck_assert_uint_eq(page[64 * 32 + 1], 0x38);
    }
}
END_TEST

START_TEST(q4_0_by_hand)
{
    /* Of -4 and 4 the negative one counts: d = -4 / -8 = 0.5 = f16 0x3800, r = 2. Code = min(15, floor(2x + 8.5)):
     *   channel  0: -4    -> 0.5  -> 0      channel 4: 1     -> 10.5 -> 10
     *   channel  1:  4    -> 16.5 -> 15     channel 5: -0.25 -> 8.0  -> 8
     *   channel  2:  0.25 -> 9.0  -> 9      channel 6: -1.75 -> 5.0  -> 5
     *   channel  3:  0.2  -> 8.9  -> 8      channel 7: 3.25  -> 15.0 -> 15
     * and 0 -> 8 in the others. Channels 0-3 are the low nibbles of cell 0 of line 0, channels 4-7 the high ones. */
    float row[32] = { -4.0f, 4.0f, 0.25f, 0.2f, 1.0f, -0.25f, -1.75f, 3.25f };
    static const unsigned char want[16] = { 0xa0, 0x8f, 0x59, 0xf8, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88 };
    unsigned char page[64 * 18];
    kvt_layout layout;
    test_tier tiers[32];
    for (size_t n = test_tiers(tiers), t = 0; t < n; t++) {
        write_one(KVT_SCHEME_q4_0, 32, row, page, &layout, tiers[t].mask);
        check_cells(page, want, 16, tiers[t].name);
        ck_assert_uint_eq(layout.k.scales_offset, 64 * 16);
        ck_assert_uint_eq(page[64 * 16], 0x00);
        ck_assert_uint_eq(page[64 * 16 + 1], 0x38);
    }
}
END_TEST

START_TEST(e4m3_by_hand)
{
    /* The largest is 448, so the scale is 1 = 0x3f800000. Sign, exponent (bias 7), mantissa:
     *   448 = 1.75 x 2^8 -> 0 1111 110 = 7e      1 -> 0 0111 000 = 38             -1.5 -> 1 0111 100 = bc       0 -> 00, -0 -> 80
     *   17 is half way between 16 and 18 -> the even 0 1011 000 = 58              19 is half way between 18 and 20 -> 0 1011 010 = 5a
     *   2^-9 -> 0 0000 001 = 01                  2^-10 is half way to 0 -> 00     1.5 x 2^-9 -> the even 0 0000 010 = 02
     *   433 > 432, the middle of 416 and 448 -> 7e */
    float row[16] = { 448.0f, 1.0f, -1.5f, 0.0f, -0.0f, 17.0f, 19.0f, 0x1p-9f, 0x1p-10f, 0x1.8p-9f, 433.0f, -448.0f };
    static const unsigned char want[16] = { 0x7e, 0x38, 0xbc, 0x00, 0x80, 0x58, 0x5a, 0x01, 0x00, 0x02, 0x7e, 0xfe };
    unsigned char page[64 * 20];
    kvt_layout layout;
    test_tier tiers[32];
    for (size_t n = test_tiers(tiers), t = 0; t < n; t++) {
        write_one(KVT_SCHEME_e4m3, 16, row, page, &layout, tiers[t].mask);
        check_cells(page, want, 16, tiers[t].name);
        ck_assert_uint_eq(layout.k.scales_offset, 64 * 16);
        static const unsigned char scale[4] = { 0x00, 0x00, 0x80, 0x3f };
        ck_assert_mem_eq(page + 64 * 16, scale, 4);
    }
}
END_TEST

/* The V tile is the transpose: token t of channel c in line t div 4, cell c, byte t mod 4 (8 bits, 16 channels). */
START_TEST(value_side_by_hand)
{
    float rows[2][16];
    for (int c = 0; c < 16; c++) {
        rows[0][c] = c == 3 ? 63.5f : 0.0f;       /* d = 0.5: code 127 in channel 3 */
        rows[1][c] = c == 5 ? -127.0f : (float)c; /* d = 1 = 0x3c00: code c */
    }
    test_tier tiers[32];
    for (size_t n = test_tiers(tiers), t = 0; t < n; t++) {
        kvt_layout layout = test_layout(KVT_SCHEME_q8_0, KVT_SCHEME_q8_0, 16, 16, 1, tiers[t].mask);
        const size_t v = 64 * 18;
        ck_assert_uint_eq(layout.v.codes_offset, v);
        unsigned char page[2 * 64 * 18];
        memset(page, 0x77, sizeof page);
        kvt_pages pages = { .base = page, .stride = sizeof page, .count = 1 };
        ck_assert_int_eq(kvt_write(&layout, KVT_V, &pages, 5, 2, rows, KVT_F32, sizeof rows[0]), KVT_OK);
        for (size_t c = 0; c < 16; c++) {
            const unsigned char *cell = page + v + 64 + 4 * c; /* tokens 4..7: line 1 */
            unsigned char code5 = c == 3 ? 127 : 0, code6 = c == 5 ? 0x81 : (unsigned char)c;
            ck_assert_msg(cell[0] == 0x77 && cell[1] == code5 && cell[2] == code6 && cell[3] == 0x77, "%s: channel %zu", tiers[t].name, c);
        }
        const unsigned char *scales = page + v + 64 * 16;
        static const unsigned char want[6] = { 0x77, 0x77, 0x00, 0x38, 0x00, 0x3c }; /* tokens 4, 5, 6 */
        ck_assert_mem_eq(scales + 2 * 4, want, sizeof want);
        ck_assert_uint_eq(scales[2 * 7], 0x77);
    }
}
END_TEST

/* ---- by hash --------------------------------------------------------------------------------------------------------------------- */

enum { TOKENS = 200, PAGES = 4, LARGEST_DIM = 128 };

/* Options, by name: plain in every scheme, side, width and number format of rows, the others in one width. */
typedef struct way {
    const char *name;
    kvt_side_options options;
} way;
static const way ways[] = {
    { "plain", { .rotation = KVT_ROTATION_NONE } },
    { "page", { .centring = KVT_CENTRING_PAGE } },
    { "rotated_own", { .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN } },
    { "rotated_128_sequence", { .rotation = KVT_ROTATION_128, .centring = KVT_CENTRING_SEQUENCE } },
    { "fast", { .effort = KVT_EFFORT_FAST } },
    { "best", { .effort = KVT_EFFORT_BEST } },
    { "fp8_blocks", { .fp8_block = 32 } },
    { "fp8_e8m0", { .fp8_block = 64, .fp8_scale = KVT_FP8_SCALE_E8M0 } },
    { "fp8_tensor", { .fp8_block = KVT_BLOCK_TENSOR, .fp8_tensor_scale = 0.125f } },
};
static const size_t n_ways = sizeof ways / sizeof *ways;

/* Whether the scheme has it. */
static bool way_is_of(const way *w, const kvt_scheme_info *info)
{
    const bool of_fp8 = w->options.fp8_block != 0 || w->options.fp8_scale != KVT_FP8_SCALE_F32;
    return (w->options.effort == KVT_EFFORT_DEFAULT || info->scale_bytes == 1) && (!of_fp8 || info->is_fp8);
}

static const kvt_side_options *options_named(const char *name)
{
    for (size_t i = 0; i < n_ways; i++)
        if (strcmp(ways[i].name, name) == 0)
            return &ways[i].options;
    abort();
}

typedef struct golden {
    const char *scheme;
    const char *way;
    const char *side;
    uint32_t dim;
    kvt_dtype dtype;
    uint64_t pages, rows;
} golden;

static const golden goldens[] = {
#define KVT_GOLDEN_ROW(scheme, way, side, dim, dtype, pages, rows) { #scheme, #way, #side, (dim), KVT_##dtype, UINT64_C(pages), UINT64_C(rows) },
#include "golden.def"
#undef KVT_GOLDEN_ROW
};
static const size_t n_goldens = sizeof goldens / sizeof goldens[0];

/* FNV-1a, 64 bits. */
static uint64_t hash(const unsigned char *bytes, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < n; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return h;
}

/* The same for every scheme: normal rows with a channel that is larger, a token that is larger, zeros, and now and then a number of any size. */
static void inputs(uint32_t dim, kvt_dtype dtype, unsigned char *rows)
{
    uint64_t state = 20260101;
    size_t bytes = oracle_element_bytes(dtype);
    for (size_t t = 0; t < TOKENS; t++) {
        for (uint32_t c = 0; c < dim; c++) {
            double x = test_normal(&state) * (c % 37 == 5 ? 24 : 1) * (t == 17 ? 64 : 1);
            uint32_t bits = test_bits(t == 31 ? 0 : x);
            uint64_t r = test_random(&state);
            if (r % 1021 == 0)
                bits = (uint32_t)(r >> 32) & 0xcfffffff; /* finite */
            if (dtype != KVT_F32)
                bits = oracle_narrow(oracle_row_format(dtype), bits);
            oracle_store(rows + (t * dim + c) * bytes, bytes, bits);
        }
    }
}

/* The hashes by the library, or by the oracle when `tiers` is NULL. */
static void hashes(const golden *g, const test_tier *tier, uint64_t *pages_hash, uint64_t *rows_hash)
{
    kvt_scheme scheme = kvt_scheme_find(g->scheme)->scheme;
    kvt_side side = strcmp(g->side, "K") == 0 ? KVT_K : KVT_V;
    kvt_scheme other = KVT_SCHEME_f16;
    oracle_layout o;
    kvt_spec spec = side == KVT_K ? test_spec(scheme, other, g->dim, 16) : test_spec(other, scheme, 16, g->dim);
    *(side == KVT_K ? &spec.k_options : &spec.v_options) = *options_named(g->way);
    oracle_layout_init(&o, &spec);
    size_t bytes = PAGES * o.page_bytes, in_stride = g->dim * oracle_element_bytes(g->dtype), out_stride = g->dim * 4;
    unsigned char *memory = malloc(bytes), *rows = malloc(TOKENS * in_stride), *back = malloc(TOKENS * out_stride);
    if (memory == NULL || rows == NULL || back == NULL)
        abort();
    memset(memory, 0, bytes);
    inputs(g->dim, g->dtype, rows);
    if (tier == NULL) {
        unsigned char *table[PAGES];
        for (size_t p = 0; p < PAGES; p++)
            table[p] = memory + p * o.page_bytes;
        oracle_write(&o, side, table, 0, TOKENS, rows, g->dtype, (ptrdiff_t)in_stride);
        oracle_read(&o, side, table, 0, TOKENS, back, KVT_F32, (ptrdiff_t)out_stride);
    } else {
        kvt_layout layout;
        spec.tiers = tier->mask;
        ck_assert_int_eq(kvt_layout_init(&layout, &spec), KVT_OK);
        kvt_pages pages = { .base = memory, .stride = o.page_bytes, .count = PAGES };
        ck_assert_int_eq(kvt_write(&layout, side, &pages, 0, TOKENS, rows, g->dtype, (ptrdiff_t)in_stride), KVT_OK);
        ck_assert_int_eq(kvt_read(&layout, side, &pages, 0, TOKENS, back, KVT_F32, (ptrdiff_t)out_stride), KVT_OK);
    }
    *pages_hash = hash(memory, bytes);
    *rows_hash = hash(back, TOKENS * out_stride);
    free(memory);
    free(rows);
    free(back);
}

static const uint32_t dims[] = { 64, 80, 128 };
static const kvt_dtype dtypes[] = { KVT_F32, KVT_BF16 };
static const char *const dtype_names[] = { "?", "F32", "F16", "BF16" };

/* Calls `each`, unless it is NULL, of all rows that golden.def has; how many there are. */
static size_t rows_of_all(void (*each)(golden *g))
{
    size_t n = 0;
    for (size_t s = 0; s < test_scheme_count(); s++)
        for (size_t w = 0; w < n_ways; w++)
            for (size_t i = 0; way_is_of(&ways[w], kvt_scheme_at(s)) && i < (w == 0 ? 12 : 2); i++) {
                golden g = { .scheme = kvt_scheme_at(s)->name,
                             .way = ways[w].name,
                             .side = i < (w == 0 ? 6 : 1) ? "K" : "V",
                             .dim = w == 0 ? dims[i / 2 % 3] : 80,
                             .dtype = w == 0 ? dtypes[i % 2] : KVT_F32 };
                if (each)
                    each(&g);
                n++;
            }
    return n;
}

START_TEST(golden_hashes)
{
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    ck_assert_msg(n_goldens == rows_of_all(NULL), "golden.def has %zu rows", n_goldens);
    for (size_t i = 0; i < n_goldens; i++) {
        const golden *g = &goldens[i];
        for (size_t t = 0; t < n_tiers; t++) {
            uint64_t pages, rows;
            hashes(g, &tiers[t], &pages, &rows);
            ck_assert_msg(pages == g->pages && rows == g->rows, "%s, %s, %s, dim %u, %s rows, tier %s: pages %s, rows %s", g->scheme, g->way, g->side,
                          g->dim, dtype_names[g->dtype], tiers[t].name, pages == g->pages ? "agree" : "differ", rows == g->rows ? "agree" : "differ");
        }
    }
}
END_TEST

static void print_row(golden *g)
{
    hashes(g, NULL, &g->pages, &g->rows);
    printf("KVT_GOLDEN_ROW(%s, %s, %s, %" PRIu32 ", %s, 0x%016" PRIx64 ", 0x%016" PRIx64 ")\n", g->scheme, g->way, g->side, g->dim,
           dtype_names[g->dtype], g->pages, g->rows);
}

static int print(void)
{
    printf("/* SPDX-License-Identifier: MIT */\n"
           "/* Made by test_golden --print, from the oracle: format version %d.\n"
           " *\n"
           " *   KVT_GOLDEN_ROW(scheme, options, side, dim, dtype of the rows, hash of the pages, hash of the rows read back as f32)\n"
           " */\n",
           KVT_FORMAT_VERSION);
    rows_of_all(print_row);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--print") == 0)
        return print();
    Suite *suite = suite_create("golden");
    TCase *tcase = tcase_create("golden");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, q8_0_by_hand);
    tcase_add_test(tcase, q4_0_by_hand);
    tcase_add_test(tcase, e4m3_by_hand);
    tcase_add_test(tcase, value_side_by_hand);
    tcase_add_test(tcase, golden_hashes);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
