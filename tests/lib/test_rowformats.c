/* SPDX-License-Identifier: MIT */
/* Rows in the formats of other engines: sizes against the golden table, bytes and numbers on every usable tier against the reference, and pages. */
#include "row_reference.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t dims[] = { 1, 2, 15, 16, 31, 32, 33, 64, 65, 80, 96, 112, 127, 128, 192, 256, 576, 1000, 1024 };
enum { N_DIMS = sizeof dims / sizeof *dims, MAX_BYTES = KVT_MAX_DIM * 4 };

static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
static const float globals[] = { 1, 0.0123f, 0x1p-64f, 0x1p64f, 3.25f };

static size_t format_count(void)
{
    size_t n = 0;
    while (kvt_row_format_at(n) != NULL)
        n++;
    return n;
}

static bool has_ggml_rounding(kvt_row_format format)
{
    return format >= KVT_ROW_ggml_q8_0 && format <= KVT_ROW_ggml_nvfp4 && format != KVT_ROW_ggml_iq4_nl;
}

static kvt_row_options options_for(kvt_row_format format, uint32_t tiers, unsigned variant)
{
    kvt_row_options options = { .size = sizeof options, .tiers = tiers };
    if (has_ggml_rounding(format))
        options.rounding = (kvt_rounding)(variant % 4);
    if (format == KVT_ROW_nvfp4)
        options.nvfp4_global_scale = globals[variant % 5];
    return options;
}
static float global_of(const kvt_row_options *options)
{
    return options->nvfp4_global_scale != 0 ? options->nvfp4_global_scale : 1;
}

/* ---- the table ------------------------------------------------------------------------------------------------------------------- */

START_TEST(golden_sizes)
{
    static const struct {
        kvt_row_format format;
        size_t bytes[7];
    } golden[] = {
#define ROW_SIZES(name, ...) { KVT_ROW_##name, { __VA_ARGS__ } },
#include "row_sizes.def"
#undef ROW_SIZES
    };
    static const uint32_t widths[7] = { 64, 80, 96, 112, 128, 192, 256 };
    ck_assert_uint_eq(sizeof golden / sizeof *golden, format_count());
    for (size_t i = 0; i < format_count(); i++)
        for (size_t w = 0; w < 7; w++)
            TEST_REQUIRE(kvt_row_format_bytes(golden[i].format, widths[w]) == golden[i].bytes[w], "%s, %u channels: %zu bytes, not %zu",
                         kvt_row_format_get(golden[i].format)->name, widths[w], kvt_row_format_bytes(golden[i].format, widths[w]),
                         golden[i].bytes[w]);
}
END_TEST

START_TEST(table)
{
    for (size_t i = 0; i < format_count(); i++) {
        const kvt_row_format_info *info = kvt_row_format_at(i);
        ck_assert_ptr_eq(kvt_row_format_find(info->name), info);
        ck_assert_ptr_eq(kvt_row_format_get(info->format), info);
        ck_assert(info->title[0] != '\0' && info->block > 0);
        for (size_t j = 0; j < i; j++)
            ck_assert(kvt_row_format_at(j)->format != info->format && strcmp(kvt_row_format_at(j)->name, info->name) != 0);
        ck_assert_uint_eq(kvt_row_format_bytes(info->format, 0), 0);
        ck_assert_uint_eq(kvt_row_format_bytes(info->format, KVT_MAX_DIM + 1), 0);
        for (uint32_t dim = 1; dim <= KVT_MAX_DIM; dim++)
            ck_assert_uint_eq(kvt_row_format_bytes(info->format, dim), reference_row_bytes(info->format, dim));
    }
    ck_assert_ptr_null(kvt_row_format_find("ggml_q9_9"));
    ck_assert_ptr_null(kvt_row_format_find(NULL));
    ck_assert_ptr_null(kvt_row_format_get(KVT_ROW_NONE));
    ck_assert_uint_eq(kvt_row_format_bytes((kvt_row_format)999, 64), 0);
}
END_TEST

/* ---- against the reference ------------------------------------------------------------------------------------------------------- */

/* More rows that these formats have trouble with. */
enum { PATTERNS = TEST_PATTERNS + 6 };

static double power_of_2(int exponent)
{
    double value = 1;
    for (; exponent > 0; exponent--)
        value *= 2;
    for (; exponent < 0; exponent++)
        value /= 2;
    return value;
}

static void row_of(unsigned pattern, uint64_t *state, uint32_t dim, uint32_t *x)
{
    static const double steps[] = { 15, 31, 255, 6, 127, 16, 32 };
    if (pattern < TEST_PATTERNS) {
        test_row(pattern, state, dim, x);
        return;
    }
    uint32_t value = (uint32_t)test_random(state);
    double step = power_of_2((int)test_below(state, 20) - 12), n = steps[test_below(state, 7)], offset = step * test_below(state, 64);
    for (uint32_t c = 0; c < dim; c++) {
        switch (pattern - TEST_PATTERNS) {
        case 0: /* flat */
            x[c] = value;
            break;
        case 1: /* a large offset */
            x[c] = test_bits(1000 + test_normal(state) * 0.01);
            break;
        case 2: /* on one side of zero, ties */
            x[c] = test_bits(offset + step * 0.5 * (double)test_below(state, (uint32_t)(2 * n + 1)));
            break;
        case 3: /* powers of two, and their neighbours */
            x[c] = (test_bits(power_of_2((int)test_below(state, 12) - 6)) + test_below(state, 3) - 1) | (uint32_t)(test_random(state) & 0x80000000);
            break;
        case 4: /* FP4 ties: quarters */
            x[c] = test_bits(((double)test_below(state, 65) - 32) * 0.25 * step);
            break;
        default: /* blocks of all magnitudes */
            x[c] = (value + (c / 16) * 0x04812345) % 0x7f800000 + test_below(state, 0x200000);
            x[c] |= (uint32_t)(test_random(state) & 0x80000000);
            break;
        }
        if ((pattern - TEST_PATTERNS) == 0 && test_below(state, 400) == 0)
            x[c] ^= 1;
    }
    if (pattern - TEST_PATTERNS == 2)
        x[test_below(state, dim)] = test_bits(offset + step * n);
}

static void check_encode(kvt_row_format format, uint32_t dim, const uint32_t *x, const kvt_row_options *options, const char *tier, unsigned pattern)
{
    unsigned char want[MAX_BYTES + 64], got[MAX_BYTES + 64];
    size_t bytes = kvt_row_format_bytes(format, dim);
    memset(got, 0xa5, sizeof got);
    memset(want, 0xa5, sizeof want);
    reference_encode(format, dim, x, want, options->rounding, global_of(options));
    ck_assert_int_eq(kvt_rows_encode(format, dim, 1, x, KVT_F32, 0, got, 0, options), KVT_OK);
    size_t at = test_difference(want, got, bytes + 64);
    TEST_REQUIRE(at == bytes + 64, "%s, dim %u, pattern %u, rounding %d, global %g, tier %s: byte %zu of %zu is %02x, not %02x",
                 kvt_row_format_get(format)->name, dim, pattern, (int)options->rounding, (double)options->nvfp4_global_scale, tier, at, bytes,
                 got[at], want[at]);
}

START_TEST(encoding)
{
    kvt_row_format format = kvt_row_format_at((size_t)_i)->format;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    uint64_t random = (uint64_t)_i + 1;
    uint32_t x[KVT_MAX_DIM];
    unsigned variant = 0;
    for (size_t d = 0; d < N_DIMS; d++)
        for (unsigned pattern = 0; pattern < PATTERNS; pattern++)
            for (unsigned round = 0; round < (dims[d] < 200 ? 20u : 5u) / KVT_TEST_SHARE + 1; round++) {
                row_of(pattern, &random, dims[d], x);
                variant++;
                for (size_t t = 0; t < n_tiers; t++) {
                    kvt_row_options options = options_for(format, tiers[t].mask, variant);
                    check_encode(format, dims[d], x, &options, tiers[t].name, pattern);
                }
            }
}
END_TEST

static void check_decode(kvt_row_format format, uint32_t dim, const unsigned char *row, const kvt_row_options *options, const char *tier)
{
    uint32_t want[KVT_MAX_DIM + 1], got[KVT_MAX_DIM + 1];
    memset(want, 0xa5, sizeof want);
    memset(got, 0xa5, sizeof got);
    reference_decode(format, dim, row, want, global_of(options));
    ck_assert_int_eq(kvt_rows_decode(format, dim, 1, row, 0, got, KVT_F32, 0, options), KVT_OK);
    size_t at = test_difference(want, got, (dim + 1) * sizeof *want) / 4;
    TEST_REQUIRE(at == dim + 1, "%s, dim %u, global %g, tier %s: channel %zu is %08x, not %08x", kvt_row_format_get(format)->name, dim,
                 (double)options->nvfp4_global_scale, tier, at, got[at], want[at]);
}

/* Random bytes; some of them with scales that are often special; every f16 scale there is. */
START_TEST(decoding)
{
    kvt_row_format format = kvt_row_format_at((size_t)_i)->format;
    const kvt_row_format_info *info = kvt_row_format_at((size_t)_i);
    static const uint32_t specials[] = { 0x7f800000, 0xff800000, 0x7fc00001, 0xffa00000, 0x7f800008, 0,          0x80000000,
                                         1,          0x80000001, 0x007fffff, 0x05000000, 0x04ffffff, 0x85000000, 0x0d800000,
                                         0x0d7fffff, 0x33800000, 0x337fffff, 0x7f7fffff, 0x3f800000, 0x00800000 };
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    uint64_t random = (uint64_t)_i + 50;
    unsigned char row[MAX_BYTES];
    unsigned variant = 0;
    for (size_t d = 0; d < N_DIMS; d++) {
        size_t bytes = kvt_row_format_bytes(format, dims[d]);
        for (unsigned round = 0; round < 400 / KVT_TEST_SHARE; round++) {
            test_fill(&random, row, bytes);
            if (round % 4 == 1) /* whatever it is that gets these bytes */
                for (unsigned i = 0; i < 4; i++)
                    oracle_store(row + test_below(&random, (uint32_t)bytes - 3), 4, specials[test_below(&random, 20)]);
            if (round % 4 == 2 && info->row_bytes > 0) { /* the scale and what is beside it, in front and behind */
                oracle_store(row, 4, specials[test_below(&random, 20)]);
                oracle_store(row + 4 * (bytes >= 8), 4, specials[test_below(&random, 20)]);
                oracle_store(row + bytes - 4, 4, specials[test_below(&random, 20)]);
            }
            variant++;
            for (size_t t = 0; t < n_tiers; t++) {
                kvt_row_options options = options_for(format, tiers[t].mask, variant);
                check_decode(format, dims[d], row, &options, tiers[t].name);
            }
        }
    }
    for (uint32_t high = (uint32_t)_i % KVT_TEST_SHARE * 32; high < 65536 && info->block == 32; high += 32 * KVT_TEST_SHARE) {
        size_t bytes = kvt_row_format_bytes(format, 1024);
        test_fill(&random, row, bytes);
        for (uint32_t b = 0; b < 32; b++) {
            oracle_store(row + b * info->block_bytes, 2, high + b);
            if (b % 2 == 0) /* a minimum that is a number */
                row[b * info->block_bytes + 3] &= 0xbf;
        }
        for (size_t t = 0; t < n_tiers; t++) {
            kvt_row_options options = options_for(format, tiers[t].mask, 0);
            check_decode(format, 1024, row, &options, tiers[t].name);
        }
    }
}
END_TEST

/* What was encoded reads back within half a step of its block, or the format is useless. */
START_TEST(accuracy)
{
    kvt_row_format format = kvt_row_format_at((size_t)_i)->format;
    static const double least_db[] = { 0, 45, 19, 21, 26, 27, 21, 17, 19, 33, 43, 30, 17, 20, 40, 30, 16, 43, 16, 30, 30 };
    TEST_REQUIRE((size_t)format < sizeof least_db / sizeof *least_db, "%s: no least accuracy", kvt_row_format_get(format)->name);
    uint64_t random = 77;
    double energy = 0, error = 0;
    for (int i = 0; i < 200; i++) {
        uint32_t x[128], back[128];
        unsigned char row[512];
        test_row(0, &random, 128, x);
        ck_assert_int_eq(kvt_rows_encode(format, 128, 1, x, KVT_F32, 512, row, 512, NULL), KVT_OK);
        ck_assert_int_eq(kvt_rows_decode(format, 128, 1, row, 512, back, KVT_F32, 512, NULL), KVT_OK);
        for (int c = 0; c < 128; c++) {
            double a = oracle_value(oracle_f32, x[c]), b = oracle_value(oracle_f32, back[c]);
            energy += a * a;
            error += (a - b) * (a - b);
        }
    }
    /* 10^(db/10), without libm: 2^(db/3) and a bit. */
    double ratio = 1;
    for (int i = 0; i < (int)least_db[format]; i++)
        ratio *= 1.2589254117941673;
    TEST_REQUIRE(energy >= error * ratio, "%s: energy %g, error %g, less than %g dB", kvt_row_format_get(format)->name, energy, error,
                 least_db[format]);
}
END_TEST

/* ---- FTZ and DAZ ----------------------------------------------------------------------------------------------------------------- */

START_TEST(flushing_of_subnormals)
{
    kvt_row_format format = kvt_row_format_at((size_t)_i)->format;
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    uint64_t random = (uint64_t)_i + 99;
    for (unsigned round = 0; round < 60 * PATTERNS / KVT_TEST_SHARE; round++) {
        uint32_t dim = dims[round % N_DIMS], x[KVT_MAX_DIM], want_x[KVT_MAX_DIM], got_x[KVT_MAX_DIM];
        unsigned char want[MAX_BYTES], got[MAX_BYTES], garbage[MAX_BYTES];
        size_t bytes = kvt_row_format_bytes(format, dim);
        row_of(round % PATTERNS, &random, dim, x);
        test_fill(&random, garbage, bytes);
        if (round % 3 == 0) /* subnormals everywhere */
            for (uint32_t c = round % 5; c < dim; c += 2)
                x[c] &= 0x80ffffff;
        for (size_t t = 0; t < n_tiers; t++) {
            kvt_row_options options = options_for(format, tiers[t].mask, round);
            reference_encode(format, dim, x, want, options.rounding, global_of(&options));
            reference_decode(format, dim, garbage, want_x, global_of(&options));
            test_flush_subnormals(true);
            kvt_status encoded = kvt_rows_encode(format, dim, 1, x, KVT_F32, 0, got, 0, &options);
            kvt_status decoded = kvt_rows_decode(format, dim, 1, garbage, 0, got_x, KVT_F32, 0, &options);
            test_flush_subnormals(false);
            ck_assert(encoded == KVT_OK && decoded == KVT_OK);
            TEST_REQUIRE(memcmp(want, got, bytes) == 0, "FTZ: %s, dim %u, tier %s, pattern %u: byte %zu", kvt_row_format_get(format)->name, dim,
                         tiers[t].name, round % PATTERNS, test_difference(want, got, bytes));
            TEST_REQUIRE(memcmp(want_x, got_x, dim * 4) == 0, "FTZ: %s, dim %u, tier %s, reading", kvt_row_format_get(format)->name, dim,
                         tiers[t].name);
        }
    }
}
END_TEST

/* ---- memory, strides, number formats of rows ------------------------------------------------------------------------------------- */

/* Rows of every number format against the reference, placed at the very beginning and end of what may be touched. */
START_TEST(rows_in_memory)
{
    kvt_row_format format = kvt_row_format_at((size_t)_i)->format;
    enum { ROWS = 5 };
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    test_arena rows = test_arena_make(ROWS * (MAX_BYTES + 16)), encoded = test_arena_make(ROWS * (MAX_BYTES + 16));
    uint64_t random = (uint64_t)_i + 7;
    for (uint32_t dim = 1; dim <= KVT_MAX_DIM; dim += dim < 140 ? 1 : 97)
        for (unsigned variant = 0; variant < 6 && (dim + (uint32_t)_i) % KVT_TEST_SHARE == 0; variant++)
            for (size_t t = 0; t < n_tiers; t++) {
                kvt_dtype dtype = dtypes[variant % 3];
                size_t element = oracle_element_bytes(dtype), row_bytes = dim * element, bytes = kvt_row_format_bytes(format, dim);
                size_t stride = row_bytes + (variant < 3 ? 0 : 5), encoded_stride = bytes + (variant < 3 ? 0 : 3);
                size_t span = (ROWS - 1) * stride + row_bytes, encoded_span = (ROWS - 1) * encoded_stride + bytes;
                bool at_end = variant % 2, backwards = variant >= 3;
                kvt_row_options options = options_for(format, tiers[t].mask, variant);
                unsigned char *x = test_arena_flush(&rows, span, at_end), *to = test_arena_flush(&encoded, encoded_span, at_end);
                test_fill(&random, x, span);
                test_rows(variant + dim, &random, ROWS, dim, x, dtype, (ptrdiff_t)stride);
                memset(to, 0xa5, encoded_span);
                unsigned char *first = backwards ? to + (ROWS - 1) * encoded_stride : to;
                ptrdiff_t step = backwards ? -(ptrdiff_t)encoded_stride : (ptrdiff_t)encoded_stride;
                ck_assert_int_eq(kvt_rows_encode(format, dim, ROWS, x, dtype, (ptrdiff_t)stride, first, step, &options), KVT_OK);
                for (size_t i = 0; i < ROWS; i++) {
                    uint32_t wide[KVT_MAX_DIM];
                    unsigned char want[MAX_BYTES];
                    for (uint32_t c = 0; c < dim; c++) {
                        uint32_t element_bits = oracle_load(x + i * stride + c * element, element);
                        wide[c] = dtype == KVT_F32 ? element_bits : oracle_widen(oracle_row_format(dtype), element_bits);
                    }
                    reference_encode(format, dim, wide, want, options.rounding, global_of(&options));
                    TEST_REQUIRE(memcmp(want, first + (ptrdiff_t)i * step, bytes) == 0, "%s, dim %u, dtype %d, tier %s, row %zu: byte %zu",
                                 kvt_row_format_get(format)->name, dim, (int)dtype, tiers[t].name, i,
                                 test_difference(want, first + (ptrdiff_t)i * step, bytes));
                    for (size_t gap = bytes; gap < encoded_stride && i + 1 < ROWS; gap++)
                        ck_assert_int_eq(to[i * encoded_stride + gap], 0xa5);
                }
                test_fill(&random, to, encoded_span);
                memset(x, 0x5a, span);
                ck_assert_int_eq(kvt_rows_decode(format, dim, ROWS, first, step, x, dtype, (ptrdiff_t)stride, &options), KVT_OK);
                for (size_t i = 0; i < ROWS; i++) {
                    uint32_t want[KVT_MAX_DIM];
                    reference_decode(format, dim, first + (ptrdiff_t)i * step, want, global_of(&options));
                    for (uint32_t c = 0; c < dim; c++) {
                        uint32_t narrow = dtype == KVT_F32 ? want[c] : oracle_narrow(oracle_row_format(dtype), want[c]);
                        TEST_REQUIRE(oracle_load(x + i * stride + c * element, element) == narrow,
                                     "%s, dim %u, dtype %d, tier %s, row %zu, channel %u", kvt_row_format_get(format)->name, dim, (int)dtype,
                                     tiers[t].name, i, c);
                    }
                    for (size_t gap = row_bytes; gap < stride && i + 1 < ROWS; gap++)
                        ck_assert_int_eq(x[i * stride + gap], 0x5a);
                }
            }
}
END_TEST

START_TEST(errors_of_rows)
{
    float x[128] = { 1 };
    unsigned char row[512], copy[512];
    memset(row, 0x33, sizeof row);
    memcpy(copy, row, sizeof row);
    const kvt_row_format q8 = KVT_ROW_ggml_q8_0;
    kvt_row_options good = { .size = sizeof good }, bad = good;
    ck_assert_int_eq(kvt_rows_encode(KVT_ROW_NONE, 32, 1, x, KVT_F32, 128, row, 34, NULL), KVT_ERR_FORMAT);
    ck_assert_int_eq(kvt_rows_encode((kvt_row_format)1000, 32, 1, x, KVT_F32, 128, row, 34, NULL), KVT_ERR_FORMAT);
    ck_assert_int_eq(kvt_rows_encode(q8, 0, 1, x, KVT_F32, 128, row, 34, NULL), KVT_ERR_DIM);
    ck_assert_int_eq(kvt_rows_encode(q8, KVT_MAX_DIM + 1, 1, x, KVT_F32, 128, row, 34, NULL), KVT_ERR_DIM);
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, x, (kvt_dtype)0, 128, row, 34, NULL), KVT_ERR_DTYPE);
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, NULL, KVT_F32, 128, row, 34, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, x, KVT_F32, 128, NULL, 34, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 2, x, KVT_F32, 127, row, 34, NULL), KVT_ERR_STRIDE);
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 2, x, KVT_F32, -127, row, 34, NULL), KVT_ERR_STRIDE);
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 2, x, KVT_F32, 128, row, 33, NULL), KVT_ERR_STRIDE);
    bad.size = 3;
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, x, KVT_F32, 128, row, 34, &bad), KVT_ERR_STRUCT_SIZE);
    bad = good;
    bad.rounding = (kvt_rounding)4;
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, x, KVT_F32, 128, row, 34, &bad), KVT_ERR_OPTIONS);
    bad = good;
    bad.nvfp4_global_scale = 1;
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, x, KVT_F32, 128, row, 34, &bad), KVT_ERR_OPTIONS);
    static const float wrong[] = { -1, 0x1p-65f, 0x1p65f };
    for (size_t i = 0; i < 3; i++) {
        bad.nvfp4_global_scale = wrong[i];
        ck_assert_int_eq(kvt_rows_encode(KVT_ROW_nvfp4, 32, 1, x, KVT_F32, 128, row, 34, &bad), KVT_ERR_OPTIONS);
    }
    bad = good;
    bad.tiers = ~kvt_tiers_usable();
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 1, x, KVT_F32, 128, row, 34, &bad), KVT_ERR_TIER);
    for (size_t i = 0; i < format_count(); i++) {
        kvt_row_format format = kvt_row_format_at(i)->format;
        bad = good;
        bad.rounding = KVT_ROUNDING_GGML_NEON;
        ck_assert_int_eq(kvt_rows_encode(format, 32, 0, x, KVT_F32, 128, row, 512, &bad), has_ggml_rounding(format) ? KVT_OK : KVT_ERR_OPTIONS);
        ck_assert_int_eq(kvt_rows_decode(format, 32, 0, row, 0, x, KVT_F32, 0, &bad), has_ggml_rounding(format) ? KVT_OK : KVT_ERR_OPTIONS);
    }
    ck_assert_int_eq(kvt_rows_encode(q8, 32, 0, NULL, KVT_F32, 0, NULL, 0, NULL), KVT_OK);
    ck_assert_int_eq(kvt_rows_decode(q8, 32, 0, NULL, 0, NULL, KVT_F32, 0, NULL), KVT_OK);
    ck_assert_int_eq(kvt_rows_decode(q8, 32, 2, row, 33, x, KVT_F32, 128, NULL), KVT_ERR_STRIDE);
    ck_assert_mem_eq(row, copy, sizeof row);
    ck_assert_str_ne(kvt_status_text(KVT_ERR_FORMAT), "unknown status");
}
END_TEST

/* ---- pages ----------------------------------------------------------------------------------------------------------------------- */

enum { PAGES = 3, TOKENS = 133, LARGEST_PAGE = 64 * 2 * KVT_MAX_DIM * 4 + 4096 };

typedef struct grid {
    kvt_row_format format;
    kvt_scheme scheme;
    kvt_side_options options;
    unsigned zero; /* the byte, or nibble, of a channel that is zero */
} grid;

static const grid grids[] = {
    { KVT_ROW_ggml_q8_0, KVT_SCHEME_q8_0, { .effort = KVT_EFFORT_DEFAULT }, 0 },
    { KVT_ROW_ggml_q4_0, KVT_SCHEME_q4_0, { .effort = KVT_EFFORT_DEFAULT }, 8 },
    { KVT_ROW_vllm_fp8, KVT_SCHEME_e4m3, { .effort = KVT_EFFORT_DEFAULT }, 0 },
    { KVT_ROW_mxfp8_e4m3, KVT_SCHEME_e4m3, { .fp8_block = 32, .fp8_scale = KVT_FP8_SCALE_E8M0 }, 0 },
    { KVT_ROW_deepseek_fp8, KVT_SCHEME_e4m3, { .fp8_block = 128 }, 0 },
    { KVT_ROW_deepseek_v4, KVT_SCHEME_e4m3, { .fp8_block = 64, .fp8_scale = KVT_FP8_SCALE_E8M0 }, 0 },
};
enum { N_GRIDS = sizeof grids / sizeof *grids };

static kvt_layout layout_of(kvt_side side, kvt_scheme scheme, const kvt_side_options *options, uint32_t dim, uint32_t tiers)
{
    kvt_spec spec = {
        .size = sizeof spec, .k_scheme = KVT_SCHEME_f16, .v_scheme = KVT_SCHEME_f16, .k_dim = 33, .v_dim = 16, .kv_heads = 1, .tiers = tiers
    };
    *(side == KVT_K ? &spec.k_scheme : &spec.v_scheme) = scheme;
    *(side == KVT_K ? &spec.k_dim : &spec.v_dim) = dim;
    *(side == KVT_K ? &spec.k_options : &spec.v_options) = *options;
    kvt_layout layout;
    kvt_status status = kvt_layout_init(&layout, &spec);
    TEST_REQUIRE(status == KVT_OK, "%s", kvt_status_text(status));
    return layout;
}

/* What pads a row to whole blocks, set to zero. */
static void without_padding(const grid *g, uint32_t dim, unsigned char *row)
{
    uint32_t block = g->format == KVT_ROW_deepseek_fp8 ? 128 : g->format == KVT_ROW_deepseek_v4 ? 64 : 32, padded = (dim + block - 1) / block * block;
    for (uint32_t c = dim; c < padded; c++) {
        if (g->format == KVT_ROW_ggml_q8_0)
            row[c / 32 * 34 + 2 + c % 32] = 0;
        if (g->format == KVT_ROW_mxfp8_e4m3 || g->format == KVT_ROW_deepseek_fp8 || g->format == KVT_ROW_deepseek_v4)
            row[c] = 0;
        if (g->format == KVT_ROW_ggml_q4_0) {
            unsigned char *at = row + c / 32 * 18 + 2 + c % 16;
            *at = (unsigned char)(c % 32 < 16 ? (*at & 0xf0) | 8 : (*at & 15) | 0x80);
        }
    }
}

/* Garbage rows and rows of numbers go in and come back, read as what they mean, and leave all else as it was. */
START_TEST(same_grid)
{
    const grid *g = &grids[_i / 2];
    kvt_side side = _i % 2 ? KVT_V : KVT_K;
    static const struct {
        size_t first, n;
    } ranges[] = { { 0, 1 }, { 15, 1 }, { 14, 3 }, { 62, 5 }, { 64, 64 }, { 3, TOKENS }, { 7, 24 }, { 16, 16 } };
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    uint64_t random = (uint64_t)_i + 300;
    unsigned char *memory = test_malloc(PAGES * LARGEST_PAGE), *before = test_malloc(PAGES * LARGEST_PAGE);
    unsigned char *rows = test_malloc(TOKENS * (MAX_BYTES + 8)), *old = test_malloc(TOKENS * (MAX_BYTES + 8)),
                  *back = test_malloc(TOKENS * (MAX_BYTES + 8));
    float *values = test_malloc(TOKENS * MAX_BYTES);
    for (size_t d = 0; d < N_DIMS; d++)
        for (size_t r = 0; r < sizeof ranges / sizeof *ranges; r++)
            for (size_t t = 0; t < n_tiers; t++) {
                uint32_t dim = dims[d];
                size_t first = ranges[r].first, n = ranges[r].n, bytes = kvt_row_format_bytes(g->format, dim), stride = bytes + r % 3;
                kvt_layout layout = layout_of(side, g->scheme, &g->options, dim, tiers[t].mask);
                size_t size = PAGES * layout.page_bytes;
                kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = PAGES };
                test_fill(&random, memory, size);
                test_fill(&random, rows, n * stride);
                if (r % 2) /* as a writer would make them */
                    for (size_t i = 0; i < n; i++) {
                        uint32_t x[KVT_MAX_DIM];
                        test_row((unsigned)(i + t) % TEST_PATTERNS, &random, dim, x);
                        reference_encode(g->format, dim, x, rows + i * stride, KVT_ROUNDING_CANONICAL, 1);
                    }
                memcpy(before, memory, size);
                ck_assert_int_eq(kvt_convert_out(&layout, side, &pages, first, n, g->format, old, (ptrdiff_t)stride, NULL), KVT_OK);
                ck_assert_mem_eq(memory, before, size);
                ck_assert_int_eq(kvt_convert_in(&layout, side, &pages, first, n, g->format, rows, (ptrdiff_t)stride, NULL), KVT_OK);

                /* They mean the same there. */
                ck_assert_int_eq(kvt_read(&layout, side, &pages, first, n, values, KVT_F32, (ptrdiff_t)(dim * 4)), KVT_OK);
                for (size_t i = 0; i < n; i++) {
                    uint32_t want[KVT_MAX_DIM];
                    reference_decode(g->format, dim, rows + i * stride, want, 1);
                    TEST_REQUIRE(memcmp(want, values + i * dim, dim * 4) == 0, "%s, dim %u, tier %s, row %zu: channel %zu reads as %a, not %a",
                                 kvt_row_format_get(g->format)->name, dim, tiers[t].name, i, test_difference(want, values + i * dim, dim * 4) / 4,
                                 (double)values[i * dim + test_difference(want, values + i * dim, dim * 4) / 4],
                                 oracle_value(oracle_f32, want[test_difference(want, values + i * dim, dim * 4) / 4]));
                    without_padding(g, dim, rows + i * stride);
                }

                /* They come back bit for bit, in reverse order too. */
                memset(back, 0xa5, n * stride);
                unsigned char *last = back + (n - 1) * stride;
                ck_assert_int_eq(kvt_convert_out(&layout, side, &pages, first, n, g->format, last, -(ptrdiff_t)stride, NULL), KVT_OK);
                for (size_t i = 0; i < n; i++) {
                    const unsigned char *got = last - i * stride;
                    size_t at = test_difference(rows + i * stride, got, bytes);
                    TEST_REQUIRE(at == bytes, "%s, %s dim %u, tokens %zu+%zu, tier %s, row %zu: byte %zu is %02x, not %02x",
                                 kvt_row_format_get(g->format)->name, side == KVT_K ? "K" : "V", dim, first, n, tiers[t].name, i, at, got[at],
                                 rows[i * stride + at]);
                    for (size_t gap = bytes; gap < stride; gap++)
                        ck_assert_int_eq(got[gap], 0xa5);
                }

                /* With the old rows put back, every bit is what it was, if no channel pads. */
                ck_assert_int_eq(kvt_convert_in(&layout, side, &pages, first, n, g->format, old, (ptrdiff_t)stride, NULL), KVT_OK);
                if (dim % 16 == 0)
                    TEST_REQUIRE(memcmp(memory, before, size) == 0,
                                 "%s, %s dim %u, tokens %zu+%zu, tier %s: other bits of the pages were changed, at %zu",
                                 kvt_row_format_get(g->format)->name, side == KVT_K ? "K" : "V", dim, first, n, tiers[t].name,
                                 test_difference(memory, before, size));
            }
    free(memory);
    free(before);
    free(rows);
    free(old);
    free(back);
    free(values);
}
END_TEST

/* What the library's own writer stores, exported, is what ggml's row of the same numbers would be by this library's rounding. */
START_TEST(stored_rows_are_encoded_rows)
{
    uint64_t random = 5;
    for (int g = 0; g < 2; g++) {
        const uint32_t dim = 128;
        kvt_layout layout = layout_of(KVT_K, grids[g].scheme, &grids[g].options, dim, 0);
        unsigned char *memory = test_malloc(layout.page_bytes), got[512], want[512];
        kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = 1 };
        memset(memory, 0, layout.page_bytes);
        for (unsigned pattern = 0; pattern < PATTERNS; pattern++) {
            uint32_t x[128];
            row_of(pattern, &random, dim, x);
            ck_assert_int_eq(kvt_write(&layout, KVT_K, &pages, pattern, 1, x, KVT_F32, 0), KVT_OK);
            ck_assert_int_eq(kvt_convert_out(&layout, KVT_K, &pages, pattern, 1, grids[g].format, got, 0, NULL), KVT_OK);
            reference_encode(grids[g].format, dim, x, want, KVT_ROUNDING_CANONICAL, 1);
            ck_assert_mem_eq(got, want, kvt_row_format_bytes(grids[g].format, dim));
        }
        free(memory);
    }
}
END_TEST

/* Every format and side that share no grid, or have a rotation or a centre: the same as going by way of f32 rows. */
START_TEST(through_floats)
{
    kvt_row_format format = kvt_row_format_at((size_t)_i)->format;
    static const struct {
        kvt_scheme scheme;
        kvt_side_options options;
    } sides[] = {
        { KVT_SCHEME_f32, { .effort = KVT_EFFORT_DEFAULT } },
        { KVT_SCHEME_f16, { .effort = KVT_EFFORT_DEFAULT } },
        { KVT_SCHEME_q8_0, { .rotation = KVT_ROTATION_64 } },
        { KVT_SCHEME_q4_0, { .centring = KVT_CENTRING_PAGE } },
        { KVT_SCHEME_e4m3, { .fp8_block = 64 } },
        { KVT_SCHEME_e4m3, { .fp8_scale = KVT_FP8_SCALE_E8M0 } },
        { KVT_SCHEME_kv8, { .effort = KVT_EFFORT_DEFAULT } },
        { KVT_SCHEME_kv4, { .rotation = KVT_ROTATION_128, .centring = KVT_CENTRING_SEQUENCE, .effort = KVT_EFFORT_FAST } },
        { KVT_SCHEME_kv5, { .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN } },
    };
    static const uint32_t some_dims[] = { 64, 80, 33, 576 };
    test_tier tiers[32];
    size_t n_tiers = test_tiers(tiers);
    uint64_t random = (uint64_t)_i + 900;
    unsigned char *want = test_malloc(PAGES * LARGEST_PAGE), *got = test_malloc(PAGES * LARGEST_PAGE);
    unsigned char *rows = test_malloc(TOKENS * MAX_BYTES), *want_rows = test_malloc(TOKENS * MAX_BYTES), *got_rows = test_malloc(TOKENS * MAX_BYTES);
    float *x = test_malloc(TOKENS * MAX_BYTES);
    for (size_t s = 0; s < sizeof sides / sizeof *sides; s++)
        for (size_t d = 0; d < 4; d++) {
            const size_t t = (s + d) % n_tiers;
            kvt_side side = (s + d) % 2 ? KVT_V : KVT_K;
            uint32_t dim = some_dims[d];
            kvt_layout layout = layout_of(side, sides[s].scheme, &sides[s].options, dim, tiers[t].mask);
            size_t size = PAGES * layout.page_bytes, bytes = kvt_row_format_bytes(format, dim);
            kvt_pages want_pages = { .base = want, .stride = layout.page_bytes, .count = PAGES }, got_pages = want_pages;
            got_pages.base = got;
            kvt_row_options options = options_for(format, 0, (unsigned)(s + d));
            for (size_t i = 0; i < TOKENS; i++) {
                uint32_t numbers[KVT_MAX_DIM];
                test_row((unsigned)(i % 7 ? 0 : i) % TEST_PATTERNS, &random, dim, numbers);
                reference_encode(format, dim, numbers, rows + i * bytes, options.rounding, global_of(&options));
            }
            memset(want, 0x11, size);
            memset(got, 0x11, size);
            ck_assert_int_eq(kvt_rows_decode(format, dim, TOKENS, rows, (ptrdiff_t)bytes, x, KVT_F32, (ptrdiff_t)(dim * 4), &options), KVT_OK);
            ck_assert_int_eq(kvt_write(&layout, side, &want_pages, 0, TOKENS, x, KVT_F32, (ptrdiff_t)(dim * 4)), KVT_OK);
            ck_assert_int_eq(kvt_convert_in(&layout, side, &got_pages, 0, TOKENS, format, rows, (ptrdiff_t)bytes, &options), KVT_OK);
            TEST_REQUIRE(memcmp(want, got, size) == 0, "%s into %s, dim %u", kvt_row_format_get(format)->name, kvt_scheme_get(sides[s].scheme)->name,
                         dim);
            ck_assert_int_eq(kvt_read(&layout, side, &got_pages, 5, 100, x, KVT_F32, (ptrdiff_t)(dim * 4)), KVT_OK);
            ck_assert_int_eq(kvt_rows_encode(format, dim, 100, x, KVT_F32, (ptrdiff_t)(dim * 4), want_rows, (ptrdiff_t)bytes, &options), KVT_OK);
            ck_assert_int_eq(kvt_convert_out(&layout, side, &got_pages, 5, 100, format, got_rows, (ptrdiff_t)bytes, &options), KVT_OK);
            TEST_REQUIRE(memcmp(want_rows, got_rows, 100 * bytes) == 0, "%s out of %s, dim %u", kvt_row_format_get(format)->name,
                         kvt_scheme_get(sides[s].scheme)->name, dim);
        }
    free(want);
    free(got);
    free(rows);
    free(want_rows);
    free(got_rows);
    free(x);
}
END_TEST

START_TEST(errors_of_pages)
{
    const uint32_t dim = 64;
    const kvt_row_format format = KVT_ROW_ggml_q8_0;
    kvt_layout layout = layout_of(KVT_K, KVT_SCHEME_q8_0, &grids[0].options, dim, 0), broken = layout;
    unsigned char *memory = test_malloc(2 * layout.page_bytes), *copy = test_malloc(2 * layout.page_bytes), rows[2 * 68], rows_copy[2 * 68];
    uint64_t random = 3;
    test_fill(&random, memory, 2 * layout.page_bytes);
    test_fill(&random, rows, sizeof rows);
    memcpy(copy, memory, 2 * layout.page_bytes);
    memcpy(rows_copy, rows, sizeof rows);
    kvt_pages pages = { .base = memory, .stride = layout.page_bytes, .count = 2 }, odd = pages;
    kvt_row_options bad = { .size = 1 };
#define BOTH(status, layout, side, pages, first, n, format, rows, stride, options)                                                                   \
    ck_assert_int_eq(kvt_convert_in(layout, side, pages, first, n, format, rows, stride, options), status);                                          \
    ck_assert_int_eq(kvt_convert_out(layout, side, pages, first, n, format, rows, stride, options), status)
    BOTH(KVT_ERR_NULL, NULL, KVT_K, &pages, 0, 1, format, rows, 68, NULL);
    BOTH(KVT_ERR_NULL, &layout, KVT_K, NULL, 0, 1, format, rows, 68, NULL);
    BOTH(KVT_ERR_NULL, &layout, KVT_K, &pages, 0, 1, format, NULL, 68, NULL);
    broken.size = 8;
    BOTH(KVT_ERR_LAYOUT, &broken, KVT_K, &pages, 0, 1, format, rows, 68, NULL);
    BOTH(KVT_ERR_STRUCT_SIZE, &layout, KVT_K, &pages, 0, 1, format, rows, 68, &bad);
    BOTH(KVT_ERR_SIDE, &layout, (kvt_side)2, &pages, 0, 1, format, rows, 68, NULL);
    BOTH(KVT_ERR_FORMAT, &layout, KVT_K, &pages, 0, 1, KVT_ROW_NONE, rows, 68, NULL);
    BOTH(KVT_ERR_STRIDE, &layout, KVT_K, &pages, 0, 2, format, rows, 67, NULL);
    BOTH(KVT_ERR_STRIDE, &layout, KVT_K, &pages, 0, 2, format, rows, -67, NULL);
    odd.stride--;
    BOTH(KVT_ERR_STRIDE, &layout, KVT_K, &odd, 0, 2, format, rows, 68, NULL);
    BOTH(KVT_ERR_RANGE, &layout, KVT_K, &pages, 127, 2, format, rows, 68, NULL);
    BOTH(KVT_ERR_RANGE, &layout, KVT_K, &pages, SIZE_MAX, 2, format, rows, 68, NULL);
    bad = (kvt_row_options){ .size = sizeof bad, .rounding = (kvt_rounding)9 };
    BOTH(KVT_ERR_OPTIONS, &layout, KVT_K, &pages, 0, 1, format, rows, 68, &bad);
    bad = (kvt_row_options){ .size = sizeof bad, .tiers = ~kvt_tiers_usable() };
    BOTH(KVT_ERR_TIER, &layout, KVT_K, &pages, 0, 1, format, rows, 68, &bad);
    BOTH(KVT_OK, &layout, KVT_K, &pages, 0, 0, format, NULL, 0, NULL);
    ck_assert_mem_eq(memory, copy, 2 * layout.page_bytes);
    ck_assert_mem_eq(rows, rows_copy, sizeof rows);
    free(memory);
    free(copy);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rowformats");
    TCase *tcase = tcase_create("rowformats");
    const int formats = (int)format_count();
    tcase_set_timeout(tcase, 900);
    tcase_add_test(tcase, golden_sizes);
    tcase_add_test(tcase, table);
    tcase_add_loop_test(tcase, encoding, 0, formats);
    tcase_add_loop_test(tcase, decoding, 0, formats);
    tcase_add_loop_test(tcase, accuracy, 0, formats);
    tcase_add_loop_test(tcase, flushing_of_subnormals, 0, formats);
    tcase_add_loop_test(tcase, rows_in_memory, 0, formats);
    tcase_add_test(tcase, errors_of_rows);
    tcase_add_loop_test(tcase, same_grid, 0, 2 * N_GRIDS);
    tcase_add_test(tcase, stored_rows_are_encoded_rows);
    tcase_add_loop_test(tcase, through_floats, 0, formats);
    tcase_add_test(tcase, errors_of_pages);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
