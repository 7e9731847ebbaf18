/* SPDX-License-Identifier: MIT */
/* The oracle itself: its number formats, checked exhaustively against their definition; its places, which must be a bijection; and values of each
 * part of docs/formats.md worked out by hand. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every pair of neighbours: what lies below the middle rounds down, above it up, and the middle to the even code. */
static void check_rounding(oracle_format format, uint32_t largest, double beyond, bool saturates)
{
    for (uint32_t code = 0; code <= largest; code++) {
        double low = oracle_value(format, code), high = code < largest ? oracle_value(format, code + 1) : beyond;
        double middle = (low + high) / 2, nudge = (high - low) * 0x1p-20;
        uint32_t even = code % 2 == 0 ? code : code + 1;
        uint32_t up = saturates && code == largest ? code : code + 1;
        uint32_t tie = saturates && code == largest ? code : even;
        TEST_REQUIRE(high > low, "not monotone at %x", code);
        TEST_REQUIRE(oracle_round(format, low) == code, "%x itself", code);
        TEST_REQUIRE(oracle_round(format, middle - nudge) == code, "below the middle above %x", code);
        TEST_REQUIRE(oracle_round(format, middle) == tie, "tie above %x", code);
        TEST_REQUIRE(oracle_round(format, middle + nudge) == up, "above the middle above %x", code);
        uint32_t sign = UINT32_C(1) << (format.exp_bits + format.man_bits);
        TEST_REQUIRE(oracle_round(format, -middle) == (sign | tie), "negative tie beyond %x", code);
        TEST_REQUIRE(oracle_value(format, sign | code) == -low, "sign of %x", code);
    }
}

START_TEST(rounding)
{
    check_rounding(oracle_f16, 0x7bff, 65536, false);
    check_rounding(oracle_bf16, 0x7f7f, 0x1p128, false);
    check_rounding(oracle_e4m3, 0x7e, 480, true);
    check_rounding(oracle_e5m2, 0x7b, 65536, true);
}
END_TEST

START_TEST(known_values)
{
    ck_assert(oracle_value(oracle_f16, 0x3c00) == 1.0 && oracle_value(oracle_f16, 0x7bff) == 65504.0);
    ck_assert(oracle_value(oracle_f16, 0x0001) == 0x1p-24 && oracle_value(oracle_f16, 0xc100) == -2.5);
    ck_assert(oracle_value(oracle_bf16, 0x3f80) == 1.0 && oracle_value(oracle_bf16, 0x0001) == 0x1p-133);
    ck_assert(oracle_value(oracle_f32, 0x00000001) == 0x1p-149 && oracle_value(oracle_f32, 0x7f7fffff) == 0x1.fffffep127);
    /* E4M3: 0.0000001 = 2^-9, 0.0001000 = 2^-6, 0.0111000 = 1, 0.1111110 = 448. */
    ck_assert(oracle_value(oracle_e4m3, 0x01) == 0x1p-9 && oracle_value(oracle_e4m3, 0x08) == 0x1p-6);
    ck_assert(oracle_value(oracle_e4m3, 0x38) == 1.0 && oracle_value(oracle_e4m3, 0x7e) == 448.0 && oracle_value(oracle_e4m3, 0xc0) == -2.0);
    /* E5M2: 0.00000.01 = 2^-16, 0.00001.00 = 2^-14, 0.01111.00 = 1, 0.11110.11 = 57344. */
    ck_assert(oracle_value(oracle_e5m2, 0x01) == 0x1p-16 && oracle_value(oracle_e5m2, 0x04) == 0x1p-14);
    ck_assert(oracle_value(oracle_e5m2, 0x3c) == 1.0 && oracle_value(oracle_e5m2, 0x7b) == 57344.0 && oracle_value(oracle_e5m2, 0xc2) == -3.0);
    ck_assert_uint_eq(oracle_round(oracle_e5m2, (double)INFINITY), 0x7b);
    ck_assert_uint_eq(oracle_round(oracle_e4m3, -(double)INFINITY), 0xfe);
    ck_assert_uint_eq(oracle_narrow(oracle_f16, 0x7f800001), 0x7e00); /* a NaN that would become an infinity */
    ck_assert_uint_eq(oracle_narrow(oracle_f16, 0xffa00000), 0xff00);
    ck_assert_uint_eq(oracle_narrow(oracle_bf16, 0xff810000), 0xffc1);
    ck_assert_uint_eq(oracle_narrow(oracle_f16, 0xff800000), 0xfc00);
    ck_assert_uint_eq(oracle_narrow(oracle_bf16, 0x7f7fffff), 0x7f80);
    ck_assert_uint_eq(oracle_widen(oracle_f16, 0xfd01), 0xffe02000);
    ck_assert_uint_eq(oracle_widen(oracle_bf16, 0x7f81), 0x7f810000);
}
END_TEST

/* A double that a binary32 holds must survive, and binary32 operations agree with the machine's where those are plain. */
START_TEST(binary32)
{
    uint64_t state = 7;
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = (uint32_t)test_random(&state);
        float machine;
        memcpy(&machine, &bits, sizeof machine);
        if ((bits & 0x7f800000) == 0x7f800000)
            continue;
        TEST_REQUIRE(oracle_round(oracle_f32, oracle_value(oracle_f32, bits)) == bits, "%x does not survive", bits);
        TEST_REQUIRE(oracle_value(oracle_f32, bits) == (double)machine, "value of %x", bits);
        double x = (test_uniform(&state) - 0.5) * (double)(1 << test_below(&state, 20));
        float rounded = (float)x;
        memcpy(&bits, &rounded, sizeof bits);
        TEST_REQUIRE(oracle_round(oracle_f32, x) == bits, "rounding of %a", x);
    }
}
END_TEST

/* ---- FP8 ------------------------------------------------------------------------------------------------------------------------- */

/* The definition, with none of the oracle's code: sign, exponent and mantissa of the code; not for infinities and NaN. */
static double fp8_value(bool e4m3, uint32_t code)
{
    int man_bits = e4m3 ? 3 : 2, bias = e4m3 ? 7 : 15;
    int exponent = (int)(code & 0x7f) >> man_bits, mantissa = (int)code & ((1 << man_bits) - 1);
    double magnitude = exponent == 0 ? ldexp(mantissa, 1 - bias - man_bits) : ldexp(mantissa + (1 << man_bits), exponent - bias - man_bits);
    return code & 0x80 ? -magnitude : magnitude;
}

/* The nearest of all finite codes, by trying them all; of two equally near ones the even one. */
static uint32_t fp8_nearest(bool e4m3, double magnitude)
{
    uint32_t best = 0, largest = e4m3 ? 0x7e : 0x7b;
    if (magnitude >= fp8_value(e4m3, largest))
        return largest;
    for (uint32_t code = 1; code <= largest; code++) {
        double distance = fabs(fp8_value(e4m3, code) - magnitude), least = fabs(fp8_value(e4m3, best) - magnitude);
        if (distance < least || (distance == least && code % 2 == 0))
            best = code;
    }
    return best;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t fp8_expected(bool e4m3, uint32_t f32)
{
    uint32_t sign = f32 >> 24 & 0x80;
    if ((f32 & 0x7fffffff) > 0x7f800000)
        return sign | (e4m3 ? 0x7f : 0x7e);
    if ((f32 & 0x7fffffff) == 0x7f800000)
        return sign | (e4m3 ? 0x7e : 0x7c);
    return sign | fp8_nearest(e4m3, fabs((double)float_of(f32)));
}

/* Whether n numbers are encoded as they should be with the tensor scale 1. */
static void check_fp8_codes(bool e4m3, const uint32_t *x, uint32_t n)
{
    kvt_spec spec = test_spec(e4m3 ? KVT_SCHEME_e4m3 : KVT_SCHEME_e5m2, KVT_SCHEME_NONE, KVT_MAX_DIM, 0);
    spec.k_options.fp8_block = KVT_BLOCK_TENSOR;
    spec.k_options.fp8_tensor_scale = 1;
    oracle_layout layout;
    oracle_layout_init(&layout, &spec);
    uint32_t row[KVT_MAX_DIM] = { 0 }, codes[KVT_MAX_DIM];
    for (uint32_t begin = 0; begin < n; begin += KVT_MAX_DIM) {
        uint32_t width = n - begin < KVT_MAX_DIM ? n - begin : KVT_MAX_DIM;
        memcpy(row, x + begin, width * sizeof *row);
        oracle_encode(&layout.side[KVT_K], row, codes, NULL);
        for (uint32_t c = 0; c < width; c++) {
            uint32_t want = fp8_expected(e4m3, row[c]);
            TEST_REQUIRE(codes[c] == want, "e%s: %08x becomes %02x, not %02x", e4m3 ? "4m3" : "5m2", row[c], codes[c], want);
        }
    }
}

START_TEST(fp8_every_f16_and_bf16)
{
    bool e4m3 = _i == 0;
    uint32_t *x = test_malloc(65536 * sizeof *x);
    for (uint32_t bits = 0; bits < 65536; bits++)
        x[bits] = oracle_widen(oracle_f16, bits);
    check_fp8_codes(e4m3, x, 65536);
    for (uint32_t bits = 0; bits < 65536; bits++)
        x[bits] = bits << 16;
    check_fp8_codes(e4m3, x, 65536);
    free(x);
}
END_TEST

/* Around every number and every middle between two, and around what is not a number of the format any more. */
START_TEST(fp8_boundaries)
{
    bool e4m3 = _i == 0;
    enum { ULPS = 40 };
    uint32_t largest = e4m3 ? 0x7e : 0x7b, x[2 * (2 * ULPS + 1)];
    for (uint32_t code = 0; code <= 2 * largest + 4; code++) {
        double low = fp8_value(e4m3, code / 2), high = code / 2 < largest ? fp8_value(e4m3, code / 2 + 1) : (e4m3 ? 480 : 65536);
        double middle = code / 2 > largest ? 0x1.fffffep127 : code % 2 == 0 ? low : (low + high) / 2;
        uint32_t n = 0;
        for (int ulp = -ULPS; ulp <= ULPS; ulp++) {
            uint32_t bits = test_bits(middle) + (uint32_t)ulp;
            if ((int)test_bits(middle) + ulp < 0)
                continue;
            x[n++] = bits;
            x[n++] = bits | 0x80000000;
        }
        check_fp8_codes(e4m3, x, n);
    }
}
END_TEST

static oracle_side side_of(const kvt_spec *spec)
{
    oracle_layout layout;
    oracle_layout_init(&layout, spec);
    return layout.side[KVT_K];
}

/* All 256 codes with scales of every kind, decoded. */
START_TEST(fp8_every_code)
{
    bool e4m3 = _i == 0;
    const uint32_t inf = 0x7f800000, nan = 0x7fc00000;
    static const struct {
        uint32_t bits;
        double value; /* NAN: the block is NaN */
    } scales[] = {
        { 0x3f800000, 1 },           { 0xc0000000, -2 },          { 0x3eaaaaab, 0x1.555556p-2 }, { 0x00000000, 0 },
        { 0x7f800000, (double)NAN }, { 0xff800000, (double)NAN }, { 0xffc00001, (double)NAN },   { 0x05000000, 0x1p-117 },
        { 0x04ffffff, 0 },           { 0x84ffffff, 0 },           { 0x08800000, 0x1p-110 },      { 0x887fffff, -0x1.fffffep-111 },
    };
    kvt_spec spec = test_spec(e4m3 ? KVT_SCHEME_e4m3 : KVT_SCHEME_e5m2, KVT_SCHEME_NONE, 256, 0);
    for (size_t i = 0; i < sizeof scales / sizeof scales[0]; i++) {
        oracle_side side = side_of(&spec);
        unsigned char page[64 * 260] = { 0 };
        oracle_store(page + side.scales_offset, 4, scales[i].bits);
        for (uint32_t c = 0; c < 256; c++)
            page[64 * (c / 4) + c % 4] = (unsigned char)c;
        for (uint32_t code = 0; code < 256; code++) {
            uint32_t got, want;
            double value = oracle_decode(&side, KVT_K, page, 0, code, &got);
            const double scale = !e4m3 && fabs(scales[i].value) < 0x1p-110 ? 0 : scales[i].value;
            if ((code & 0x7f) > (e4m3 ? 0x7e : 0x7c) || isnan(scales[i].value))
                want = nan;
            else if (!e4m3 && (code & 0x7f) == 0x7c)
                want = (code & 0x80) << 24 | inf;
            else
                want = test_bits(fp8_value(e4m3, code) * scale);
            TEST_REQUIRE(got == want, "code %02x, scale %08x: %08x, not %08x", code, scales[i].bits, got, want);
            TEST_REQUIRE(want == nan             ? isnan(value)
                         : want << 1 == inf << 1 ? isinf(value)
                                                 : value == fp8_value(e4m3, code) * scale,
                         "code %02x, scale %08x: %a", code, scales[i].bits, value);
        }
    }
}
END_TEST

/* Scales that are stored: f32 and e8m0, per row and per block. */
START_TEST(fp8_scales)
{
    kvt_spec spec = test_spec(KVT_SCHEME_e4m3, KVT_SCHEME_NONE, 80, 0);
    spec.k_options.fp8_block = 32;
    oracle_side side = side_of(&spec);
    ck_assert_uint_eq(side.blocks, 3);
    uint32_t x[80] = { 0 }, codes[80], scales[3];
    x[0] = test_bits(224);         /* 224 / 448 = 0.5 */
    x[1] = test_bits(-1);          /* -2 */
    x[33] = test_bits(0x1.8p-101); /* below 2^-100: scale 0, the sign is kept */
    x[34] = test_bits(-0x1.8p-101);
    x[35] = 0x7fc00000;
    x[36] = 0xff800000;
    x[79] = test_bits(0x1p-100);
    oracle_encode(&side, x, codes, scales);
    ck_assert_uint_eq(scales[0], 0x3f000000);
    ck_assert_uint_eq(codes[0], 0x7e);
    ck_assert_uint_eq(codes[1], 0xc0);
    ck_assert_uint_eq(scales[1], 0);
    ck_assert_uint_eq(codes[33], 0x00);
    ck_assert_uint_eq(codes[34], 0x80);
    ck_assert_uint_eq(codes[35], 0x7f);
    ck_assert_uint_eq(codes[36], 0xfe);
    ck_assert_uint_eq(scales[2], test_bits(0x1p-100 / 448));
    ck_assert_uint_eq(codes[79], 0x7e);

    /* e8m0: 224 / 448 = 2^-1 exactly: byte 126; 225 / 448 is a little more: byte 127; below 2^-100: byte 27, r = 2^100. */
    spec.k_options.fp8_scale = KVT_FP8_SCALE_E8M0;
    side = side_of(&spec);
    x[32] = test_bits(225);
    x[64] = test_bits(0x1.8p-101);
    x[79] = 0;
    oracle_encode(&side, x, codes, scales);
    ck_assert_uint_eq(scales[0], 126);
    ck_assert_uint_eq(codes[0], 0x7e);
    ck_assert_uint_eq(scales[1], 127);
    ck_assert_uint_eq(codes[32], 0x76); /* 225 is nearest to 224 = 1.75 x 2^7 */
    ck_assert_uint_eq(scales[2], 27);
    ck_assert_uint_eq(codes[64], 0x34); /* 0.75 = 1.5 x 2^-1 */
    unsigned char page[64 * 83] = { 0 };
    uint32_t f32;
    memset(page, 0x38, side.scales_offset); /* 1.0 */
    page[side.scales_offset + 5] = 130;
    page[side.scales_offset + 16 + 5] = 255;
    page[side.scales_offset + 32 + 5] = 0;
    ck_assert(oracle_decode(&side, KVT_K, page, 5, 31, &f32) == 8);
    ck_assert(isnan(oracle_decode(&side, KVT_K, page, 5, 32, &f32)));
    ck_assert_uint_eq(f32, 0x7fc00000);
    ck_assert(oracle_decode(&side, KVT_K, page, 5, 64, &f32) == 0); /* 2^-127 is below 2^-117 */

    /* e5m2, one scale per row: 57344. Nothing stored: the scale is the tensor's. */
    spec = test_spec(KVT_SCHEME_e5m2, KVT_SCHEME_NONE, 80, 0);
    side = side_of(&spec);
    x[35] = 0xffc00000;
    x[36] = 0x7f800000;
    oracle_encode(&side, x, codes, scales);
    ck_assert_uint_eq(scales[0], test_bits(225.0 / 57344));
    ck_assert_uint_eq(codes[32], 0x7b);
    ck_assert_uint_eq(codes[35], 0xfe);
    ck_assert_uint_eq(codes[36], 0x7c);
    spec.k_options.fp8_block = KVT_BLOCK_TENSOR;
    spec.k_options.fp8_tensor_scale = 0.25f;
    side = side_of(&spec);
    ck_assert_uint_eq(side.blocks, 0);
    oracle_encode(&side, x, codes, NULL);
    ck_assert_uint_eq(codes[1], 0xc4); /* -4 = -1.00 x 2^2 */
    memset(page, 0x44, sizeof page);
    ck_assert(oracle_decode(&side, KVT_K, page, 63, 79, &f32) == 1);
    ck_assert_uint_eq(f32, 0x3f800000);
}
END_TEST

/* ---- layout ---------------------------------------------------------------------------------------------------------------------- */

START_TEST(row_sizes)
{
    static const uint32_t dims[7] = { 64, 80, 96, 112, 128, 192, 256 };
    static const struct {
        kvt_scheme scheme;
        size_t bytes[7];
    } rows[] = {
        { KVT_SCHEME_f32, { 256, 320, 384, 448, 512, 768, 1024 } }, { KVT_SCHEME_f16, { 128, 160, 192, 224, 256, 384, 512 } },
        { KVT_SCHEME_bf16, { 128, 160, 192, 224, 256, 384, 512 } }, { KVT_SCHEME_q8_0, { 68, 86, 102, 120, 136, 204, 272 } },
        { KVT_SCHEME_q4_0, { 36, 46, 54, 64, 72, 108, 144 } },      { KVT_SCHEME_e4m3, { 68, 84, 100, 116, 132, 196, 260 } },
        { KVT_SCHEME_e5m2, { 68, 84, 100, 116, 132, 196, 260 } },   { KVT_SCHEME_kv8, { 66, 82, 98, 114, 130, 194, 258 } },
        { KVT_SCHEME_kv6, { 50, 63, 75, 88, 100, 150, 200 } },      { KVT_SCHEME_kv5, { 42, 55, 63, 76, 84, 126, 168 } },
        { KVT_SCHEME_kv4, { 34, 43, 51, 60, 68, 102, 136 } },       { KVT_SCHEME_kv4h, { 36, 45, 54, 63, 72, 108, 144 } },
        { KVT_SCHEME_kv3, { 26, 35, 39, 48, 52, 78, 104 } },        { KVT_SCHEME_kv2, { 18, 23, 27, 32, 36, 54, 72 } },
    };
    ck_assert_uint_eq(sizeof rows / sizeof rows[0], test_scheme_count());
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert(oracle_knows(rows[i].scheme));
        for (size_t d = 0; d < 7; d++) {
            kvt_spec spec = test_spec(rows[i].scheme, KVT_SCHEME_f16, dims[d], 16);
            oracle_layout o;
            oracle_layout_init(&o, &spec);
            TEST_REQUIRE(o.side[KVT_K].row_bytes == rows[i].bytes[d], "scheme %d, dim %u: %zu bytes", (int)rows[i].scheme, dims[d],
                         o.side[KVT_K].row_bytes);
            TEST_REQUIRE(o.side[KVT_K].tile_code_bytes % 64 == 0, "not whole lines");
            TEST_REQUIRE(o.side[KVT_V].codes_offset == 64 * rows[i].bytes[d], "V begins at %zu", o.side[KVT_V].codes_offset);
            TEST_REQUIRE(o.page_bytes == 64 * (rows[i].bytes[d] + 32), "page of %zu bytes", o.page_bytes);
            /* Any width is padded to the next of these. */
            spec.k_dim = dims[d] - 15;
            TEST_REQUIRE(side_of(&spec).row_bytes == rows[i].bytes[d], "dim %u", spec.k_dim);
        }
    }
    /* FP8 with blocks, at 80 and 128 channels. */
    static const struct {
        uint32_t block;
        kvt_fp8_scale scale;
        size_t bytes[2];
    } fp8[] = {
        { 32, KVT_FP8_SCALE_F32, { 92, 144 } },  { 64, KVT_FP8_SCALE_F32, { 88, 136 } },
        { 128, KVT_FP8_SCALE_F32, { 84, 132 } }, { 32, KVT_FP8_SCALE_E8M0, { 83, 132 } },
        { 64, KVT_FP8_SCALE_E8M0, { 82, 130 } }, { 128, KVT_FP8_SCALE_E8M0, { 81, 129 } },
        { 0, KVT_FP8_SCALE_E8M0, { 81, 129 } },  { KVT_BLOCK_TENSOR, KVT_FP8_SCALE_F32, { 80, 128 } },
    };
    for (size_t i = 0; i < sizeof fp8 / sizeof fp8[0]; i++) {
        for (size_t d = 0; d < 2; d++) {
            kvt_spec spec = test_spec(i % 2 == 0 ? KVT_SCHEME_e4m3 : KVT_SCHEME_e5m2, KVT_SCHEME_NONE, d == 0 ? 80 : 128, 0);
            spec.k_options.fp8_block = fp8[i].block;
            spec.k_options.fp8_scale = fp8[i].scale;
            ck_assert_uint_eq(side_of(&spec).row_bytes, fp8[i].bytes[d]);
        }
    }
}
END_TEST

START_TEST(centre_places)
{
    /* 80 codes and 3 scales; 128 codes and 4 scales: 86 + 136 = 222 bytes, in 256. */
    kvt_spec spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_kv2, 80, 128);
    oracle_layout o;
    spec.k_options.centring = KVT_CENTRING_PAGE;
    spec.v_options.centring = KVT_CENTRING_SEQUENCE;
    oracle_layout_init(&o, &spec);
    ck_assert_uint_eq(o.token_bytes, 43 + 36);
    ck_assert_uint_eq(o.side[KVT_K].centre_bytes, 86);
    ck_assert_uint_eq(o.side[KVT_V].centre_bytes, 136);
    ck_assert_uint_eq(o.side[KVT_K].centre_offset, 64 * 79);
    ck_assert_uint_eq(o.side[KVT_V].centre_offset, 64 * 79 + 86);
    ck_assert_uint_eq(o.page_bytes, 64 * 79 + 256);
    spec.k_options.centring = KVT_CENTRING_NONE;
    oracle_layout_init(&o, &spec);
    ck_assert_uint_eq(o.side[KVT_K].centre_bytes, 0);
    ck_assert_uint_eq(o.side[KVT_V].centre_offset, 64 * 79);
    ck_assert_uint_eq(o.page_bytes, 64 * 79 + 192);
    spec.v_dim = 0; /* then V's options are ignored */
    oracle_layout_init(&o, &spec);
    ck_assert_uint_eq(o.page_bytes, 64 * 43);
}
END_TEST

/* Bits of a byte that are in no code: the upper half of the last line of a 1-bit plane when the width is an odd multiple of 16. */
static unsigned char unused_bits(const oracle_layout *layout, size_t byte)
{
    for (int which = 0; which < 2; which++) {
        const oracle_side *side = &layout->side[which];
        const bool has_bit_plane = side->n_planes > 0 && side->planes[side->n_planes - 1].bits == 1;
        if (has_bit_plane && side->padded_dim / 16 % 2 == 1 && byte >= side->codes_offset && byte < side->codes_offset + 4 * side->tile_code_bytes &&
            (byte - side->codes_offset) % side->tile_code_bytes >= side->tile_code_bytes - 64)
            return 0xf0;
    }
    return 0;
}

/* Writing one token twice over different patterns tells which bits it owns: all tokens together own every bit of the page, none owns another's. */
START_TEST(places_are_a_bijection)
{
    static const uint32_t dims[] = { 1, 16, 48, 80 };
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i);
    uint64_t state = 3;
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        oracle_layout layout;
        kvt_spec spec = test_spec(info->scheme, info->scheme, dims[d], dims[d]);
        oracle_layout_init(&layout, &spec);
        unsigned char *zeros = test_malloc(layout.page_bytes), *ones = test_malloc(layout.page_bytes), *owned = test_malloc(layout.page_bytes);
        memset(owned, 0, layout.page_bytes);
        for (int which = 0; which < 2; which++) {
            for (size_t token = 0; token < 64; token++) {
                unsigned char row[80 * 4];
                test_rows(0, &state, 1, dims[d], row, KVT_F32, 0);
                memset(zeros, 0, layout.page_bytes);
                memset(ones, 0xff, layout.page_bytes);
                oracle_write(&layout, (kvt_side)which, &zeros, token, 1, row, KVT_F32, 0);
                oracle_write(&layout, (kvt_side)which, &ones, token, 1, row, KVT_F32, 0);
                for (size_t i = 0; i < layout.page_bytes; i++) {
                    unsigned char written = (unsigned char)~(zeros[i] ^ ones[i]);
                    if (which == KVT_V) /* tokens of a byte clear its unused bits together */
                        written &= (unsigned char)~unused_bits(&layout, i);
                    TEST_REQUIRE((owned[i] & written) == 0, "byte %zu belongs to two tokens", i);
                    owned[i] |= written;
                }
            }
        }
        for (size_t i = 0; i < layout.page_bytes; i++)
            TEST_REQUIRE((owned[i] | unused_bits(&layout, i)) == 0xff, "%s, dim %u: byte %zu of the page: %02x is written", info->name, dims[d], i,
                         owned[i]);
        free(zeros);
        free(ones);
        free(owned);
    }
}
END_TEST

/* One code, whose bits are at places found by hand. */
START_TEST(plane_places)
{
    static const struct {
        kvt_scheme scheme;
        kvt_side side;
        uint32_t dim, token, channel, code;
        size_t tile; /* bytes before the token's tile */
        struct {
            size_t byte;
            unsigned char bits;
        } at[2];
    } cases[] = {
        /* 8-bit line 77 div 4 = 19, place 4 x 5 + 1 = 21. Four bits: line 9, upper half; two bits: line 4, bits 6-7, after 16 lines. */
        { KVT_SCHEME_kv6, KVT_K, 128, 5, 77, 0x29, 0, { { 9 * 64 + 21, 0x90 }, { 1024 + 4 * 64 + 21, 0x80 } } },
        /* Line 4 x 2 + 13 div 4 = 11, place 4 x 5 + 1 = 21; four bits: line 5, upper half; one bit: line 1, bit 3, after 10 lines. Tile 2. */
        { KVT_SCHEME_kv5, KVT_V, 80, 45, 37, 0x16, 2 * 16 * 52, { { 5 * 64 + 21, 0x60 }, { 640 + 64 + 21, 0x08 } } },
        /* Line 79 div 4 = 19, place 4 x 15 + 3 = 63; one bit: line 2, bit 3. */
        { KVT_SCHEME_kv5, KVT_K, 80, 15, 79, 0x1a, 0, { { 9 * 64 + 63, 0xa0 }, { 640 + 2 * 64 + 63, 0x08 } } },
        /* Line 8, place 0: lower half of line 4. */
        { KVT_SCHEME_kv4, KVT_K, 64, 16, 32, 0xb, 16 * 32, { { 4 * 64, 0x0b }, { 0, 0 } } },
        /* Line 4 x 3 + 2 = 14, place 4 x 2 + 1 = 9: two bits: line 3, bits 4-5; one bit: line 1, bit 6, after 4 lines. Tile 1. */
        { KVT_SCHEME_kv3, KVT_V, 64, 25, 50, 0x6, 16 * 24, { { 3 * 64 + 9, 0x20 }, { 256 + 64 + 9, 0x40 } } },
        /* Line 31, place 4 x 9: line 7, bits 6-7. */
        { KVT_SCHEME_kv2, KVT_K, 128, 9, 124, 0x2, 0, { { 7 * 64 + 36, 0x80 }, { 0, 0 } } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kvt_spec spec = test_spec(cases[i].scheme, cases[i].scheme, cases[i].dim, cases[i].dim);
        oracle_layout o;
        oracle_layout_init(&o, &spec);
        const oracle_side *side = &o.side[cases[i].side];
        unsigned char *page = test_malloc(o.page_bytes), *scales = page + side->scales_offset;
        memset(page, 0, o.page_bytes);
        unsigned char *codes = page + side->codes_offset + cases[i].tile;
        for (size_t p = 0; p < 2; p++)
            codes[cases[i].at[p].byte] |= cases[i].at[p].bits;
        /* Scales of 1: u(0) = 22 x 8; then 4 x 16. */
        for (size_t s = 0; s < 4 * side->tile_scale_bytes; s++)
            scales[s] = s % side->tile_scale_bytes < 16 ? 176 : 64;
        uint32_t f32, code_0;
        double value = oracle_decode(side, cases[i].side, page, cases[i].token, cases[i].channel, &f32);
        /* Everything else has code 0, -127; this one is what its code means in a page that holds nothing else. */
        size_t others = 0;
        for (uint32_t token = 0; token < 64; token++)
            for (uint32_t c = 0; c < cases[i].dim; c++)
                others += oracle_decode(side, cases[i].side, page, token, c, &code_0) == -127;
        ck_assert_uint_eq(others, 64 * cases[i].dim - 1);
        static const double values[] = { 24, 35, 63, 42, 65, 19 };
        ck_assert_msg(value == values[i] && test_bits(value) == f32, "case %zu: %g", i, value);
        free(page);
    }
}
END_TEST

/* ---- scales of the kv schemes ---------------------------------------------------------------------------------------------------- */

START_TEST(kv_scales)
{
    static const struct {
        unsigned char first, other;
        double s_first, s_other;
    } cases[] = {
        { 176, 64, 1, 1 }, /* E = 22 */
        { 177, 65, 1.125, 1.0625 },
        { 183, 192, 1.875, -1 },
        { 176, 0, 1, 0 },
        { 176, 128, 1, 0 },
        { 176, 127, 1, 15.5 }, /* 31/16 x 2^(7 + 22 - 26) */
        { 176, 255, 1, -15.5 },
        { 176, 1, 1, 0x1.1p-4 },
        { 1, 1, 0x1.2p-22, 0x1.1p-26 },  /* E = 0 */
        { 254, 127, 0x1.cp9, 0x1.fp12 }, /* E = 31 */
        { 8, 16, 0x1p-21, 0x1p-24 },     /* E = 1 */
        { 0, 64, 0, 0 },
        { 255, 64, (double)NAN, (double)NAN },
    };
    kvt_spec spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_NONE, 48, 0);
    oracle_side side = side_of(&spec);
    ck_assert_uint_eq(side.blocks, 2);
    unsigned char page[64 * 26];
    memset(page, 0, sizeof page); /* codes 0: -127 */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        page[side.scales_offset + 32 + 3] = cases[i].first; /* token 19 */
        page[side.scales_offset + 32 + 16 + 3] = cases[i].other;
        for (uint32_t c = 0; c < 48; c++) {
            double s = c < 32 ? cases[i].s_first : cases[i].s_other;
            uint32_t f32;
            double value = oracle_decode(&side, KVT_K, page, 19, c, &f32);
            TEST_REQUIRE(isnan(s) ? isnan(value) && f32 == 0x7fc00000 : value == -127 * s && f32 == test_bits(-127 * s), "scales %d %d: %g",
                         cases[i].first, cases[i].other, value);
        }
    }
}
END_TEST

/* ---- encoders of the kv schemes -------------------------------------------------------------------------------------------------- */

static const kvt_scheme kv_schemes[] = { KVT_SCHEME_kv6, KVT_SCHEME_kv5, KVT_SCHEME_kv4, KVT_SCHEME_kv4h, KVT_SCHEME_kv3, KVT_SCHEME_kv2 };
enum { KV_SCHEMES = sizeof kv_schemes / sizeof kv_schemes[0] };
static const kvt_effort efforts[] = { KVT_EFFORT_FAST, KVT_EFFORT_DEFAULT, KVT_EFFORT_BEST };
static const char *const effort_names[] = { "fast", "default", "best" };

/* What a code means with the scale 1. */
static double level(const oracle_side *side, uint32_t code)
{
    unsigned char page[64 * 128] = { 0 };
    uint32_t f32;
    page[side->scales_offset] = 176;
    for (uint32_t p = 0, low = 0; p < side->n_planes; low += side->planes[p++].bits)
        page[side->planes[p].offset] = (unsigned char)(code >> low & ((1U << side->planes[p].bits) - 1));
    return oracle_decode(side, KVT_K, page, 0, 0, &f32);
}

START_TEST(kv_tables)
{
    /* The sum of all levels and of their squares, the first and the last, and the level nearest to 0. */
    static const struct {
        int sum, squares, last, zero;
    } want[KV_SCHEMES] = {
        { -344, 246012, 112, 0 }, { -80, 128696, 120, 1 }, { -14, 67132, 112, -4 },
        { 4, 66944, 114, -4 },    { -48, 40428, 104, 9 },  { -60, 26890, 92, 19 },
    };
    for (size_t i = 0; i < KV_SCHEMES; i++) {
        kvt_spec spec = test_spec(kv_schemes[i], KVT_SCHEME_NONE, 32, 0);
        oracle_side side = side_of(&spec);
        uint32_t n = 1U << side.bits;
        double sum = 0, squares = 0;
        for (uint32_t code = 0; code < n; code++) {
            double t = level(&side, code);
            sum += t;
            squares += t * t;
            ck_assert(code == 0 || fmod(t - level(&side, code - 1), 2) == 1); /* odd and positive */
        }
        ck_assert(level(&side, 0) == -127 && level(&side, n - 1) == want[i].last);
        ck_assert_msg(sum == want[i].sum && squares == want[i].squares, "table %zu: %g %g", i, sum, squares);
        uint32_t x[32] = { 0 }, codes[32], scales[2];
        oracle_encode(&side, x, codes, scales);
        ck_assert_uint_eq(scales[0], 0);
        ck_assert_msg(level(&side, codes[7]) == want[i].zero, "table %zu: zero becomes %g", i, level(&side, codes[7]));
    }
}
END_TEST

START_TEST(kv_fast_by_hand)
{
    /* kv4. Block 0: x(0) = -127, so d = 1, u = 22 x 8 = 176, s = 1. p = 2047/127, X(0) = -2047, g = p, M = RNE(2033.0) = 2033,
     * y(0) = (-2047 x 2033 + 2^14) >> 15 = -127, y = 0 elsewhere, whose level is -4. A = 2047 x 127, N = 127^2 + 31 x 16 = 16625.
     * f = A / N / p = 0.9702 = 1.9404 / 2, and of eighths 7.52 rounds up: u = 176 again.
     * Block 1: x(32) = 127, the other sign, so that s < 0: j = 64, A and N as before, f = 0.9702, and of sixteenths 15.05 rounds down:
     * u = 128 + 63, s = -0.96875; 127 / s = -131 is limited. Block 2: 2^-30 is zero. */
    kvt_spec spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_NONE, 80, 0);
    spec.k_options.effort = KVT_EFFORT_FAST;
    oracle_side side = side_of(&spec);
    uint32_t x[80] = { 0 }, codes[80], scales[3];
    x[0] = test_bits(-127);
    x[32] = test_bits(127);
    x[79] = test_bits(0x1p-30);
    oracle_encode(&side, x, codes, scales);
    ck_assert_uint_eq(scales[0], 176);
    ck_assert_uint_eq(scales[1], 128 + 63);
    ck_assert_uint_eq(scales[2], 0);
    for (uint32_t c = 0; c < 80; c++)
        ck_assert_uint_eq(codes[c], c == 0 || c == 32 ? 0 : 7);

    /* +a and -a: the negative one counts, s > 0. */
    x[40] = test_bits(-127);
    oracle_encode(&side, x, codes, scales);
    ck_assert_uint_lt(scales[1], 128);
    ck_assert_uint_eq(codes[40], 0);
}
END_TEST

START_TEST(kv_limits)
{
    for (size_t i = 0; i < KV_SCHEMES; i++) {
        for (size_t e = 0; e < 3; e++) {
            kvt_spec spec = test_spec(kv_schemes[i], KVT_SCHEME_NONE, 96, 0);
            spec.k_options.effort = efforts[e];
            oracle_side side = side_of(&spec);
            uint32_t x[96] = { 0 }, codes[96], scales[6], zero = kv_schemes[i] == KVT_SCHEME_kv6 ? 33 : (1U << side.bits) / 2;
            if (kv_schemes[i] == KVT_SCHEME_kv4 || kv_schemes[i] == KVT_SCHEME_kv4h)
                zero = 7;
            /* What cannot be represented. */
            static const uint32_t bad[] = { 0x7f800000, 0xff800000, 0x7fc00000, 0xff800001, 0x47800000, 0xc7800000, 0x7f7fffff };
            for (size_t b = 0; b < sizeof bad / sizeof bad[0]; b++) {
                x[95] = bad[b];
                oracle_encode(&side, x, codes, scales);
                ck_assert_uint_eq(scales[0], 255);
                for (uint32_t s = 1; s < side.blocks; s++)
                    ck_assert_uint_eq(scales[s], 0);
                for (uint32_t c = 0; c < 96; c++)
                    ck_assert_uint_eq(codes[c], zero);
            }
            /* The largest number below 2^16 can. d = 2^16 / 127 = 1.008 x 2^9: low = (136 - 108) x 8 = 224, and block 0 is below 2^-20. */
            x[95] = 0x477fffff;
            oracle_encode(&side, x, codes, scales);
            ck_assert_uint_eq(scales[0], 224);
            for (uint32_t s = 1; s + 1 < side.blocks; s++)
                ck_assert_uint_eq(scales[s], 0);
            for (uint32_t c = 0; c < 95; c++)
                ck_assert_uint_eq(codes[c], c < side.block || c < 96 - side.block ? zero : codes[94]);
            double last = level(&side, codes[95]) * (scales[side.blocks - 1] >= 128 ? -1 : 1);
            ck_assert_msg(last > 90, "scheme %zu, %s: %g", i, effort_names[e], last);
            /* Below 2^-20 in all: zero. At 2^-20: not, and the scales stop at their smallest. */
            x[95] = 0;
            x[3] = 0xb57fffff;
            oracle_encode(&side, x, codes, scales);
            ck_assert_uint_eq(scales[0], 0);
            ck_assert_uint_eq(codes[3], zero);
            x[3] = 0xb5800000;
            oracle_encode(&side, x, codes, scales);
            ck_assert_msg(scales[0] >= 1 && (scales[0] == 1 || efforts[e] == KVT_EFFORT_FAST), "u(0) = %u", scales[0]);
        }
    }
}
END_TEST

/* Rows that are on the grid, with a block that has both of the largest levels' signs, come back as they are. (kv2's default steps over w = 0, and
 * kv6's and kv5's fast start beside it.) */
START_TEST(kv_grid_is_kept)
{
    uint64_t state = 21;
    for (size_t i = 0; i < KV_SCHEMES; i++) {
        for (size_t e = 0; e < 3; e++) {
            if (kv_schemes[i] == KVT_SCHEME_kv2 && efforts[e] == KVT_EFFORT_DEFAULT)
                continue;
            if ((kv_schemes[i] == KVT_SCHEME_kv6 || kv_schemes[i] == KVT_SCHEME_kv5) && efforts[e] == KVT_EFFORT_FAST)
                continue;
            kvt_spec spec = test_spec(kv_schemes[i], KVT_SCHEME_NONE, 112, 0);
            spec.k_options.effort = efforts[e];
            oracle_layout o;
            oracle_layout_init(&o, &spec);
            const oracle_side *side = &o.side[KVT_K];
            unsigned char *page = test_malloc(o.page_bytes);
            for (int round = 0; round < 50; round++) {
                unsigned char row[112 * 4], back[112 * 4];
                uint32_t scale = 48 + test_below(&state, 100);
                for (uint32_t c = 0; c < 112; c++) {
                    uint32_t b = c / side->block;
                    double s = (1 + (scale % 8) / 8.0) * ldexp(1, (int)(scale / 8) - 22);
                    if (b > 0) /* around it, of either sign */
                        s = ldexp((round + (int)b) % 3 == 0 ? -1 : 1, (int)(scale / 8) - 22 - (int)b % 3);
                    uint32_t code = c % side->block == 5 ? 0 : test_below(&state, 1U << side->bits);
                    oracle_store(row + 4 * (size_t)c, 4, test_bits(s * level(side, code)) & (level(side, code) == 0 ? 0 : UINT32_MAX));
                }
                oracle_write(&o, KVT_K, &page, (size_t)round, 1, row, KVT_F32, 0);
                oracle_read(&o, KVT_K, &page, (size_t)round, 1, back, KVT_F32, 0);
                for (uint32_t c = 0; c < 112; c++)
                    TEST_REQUIRE(float_of(oracle_load(row + 4 * (size_t)c, 4)) == float_of(oracle_load(back + 4 * (size_t)c, 4)),
                                 "scheme %zu, %s, round %d, channel %u", i, effort_names[e], round, c);
            }
            free(page);
        }
    }
}
END_TEST

/* ---- how good it is -------------------------------------------------------------------------------------------------------------- */

/* Marsaglia's polar method; support's test_normal has lighter tails. */
static double gaussian(uint64_t *state)
{
    for (;;) {
        double u = 2 * test_uniform(state) - 1, v = 2 * test_uniform(state) - 1, s = u * u + v * v;
        if (s > 0 && s < 1)
            return u * sqrt(-2 * log(s) / s);
    }
}

/* Gaussian rows as the oracle stores them in `pages` pages; those from `from_page` on count: signal (without the offsets) to noise, in dB.
 * Channels 3i + 1 and 3i + 2 have an offset, once and twice. */
static double measure(const kvt_spec *spec, size_t pages, size_t from_page, double offset)
{
    uint64_t state = 77;
    oracle_layout o;
    oracle_layout_init(&o, spec);
    const size_t dim = spec->k_dim, n = 64 * pages, bytes = n * dim * 4;
    unsigned char *memory = test_malloc(pages * o.page_bytes), *rows = test_malloc(bytes), *back = test_malloc(bytes);
    unsigned char **table = test_malloc(pages * sizeof *table);
    memset(memory, 0x5a, pages * o.page_bytes);
    for (size_t p = 0; p < pages; p++)
        table[p] = memory + p * o.page_bytes;
    for (size_t i = 0; i < n * dim; i++)
        oracle_store(rows + 4 * i, 4, test_bits(gaussian(&state) + (double)(i % dim % 3) * offset));
    oracle_write(&o, KVT_K, table, 0, n, rows, KVT_F32, (ptrdiff_t)dim * 4);
    oracle_read(&o, KVT_K, table, 0, n, back, KVT_F32, (ptrdiff_t)dim * 4);
    double noise = 0;
    for (size_t i = 64 * from_page * dim; i < n * dim; i++) {
        double e = (double)float_of(oracle_load(rows + 4 * i, 4)) - (double)float_of(oracle_load(back + 4 * i, 4));
        noise += e * e;
    }
    free(memory);
    free(rows);
    free(back);
    free(table);
    return 10 * log10((double)((n - 64 * from_page) * dim) / noise);
}

static const double least_db[KV_SCHEMES] = { 34.2, 28.4, 22.3, 23.4, 16.0, 9.9 };

START_TEST(kv_quality)
{
    kvt_spec spec = test_spec(kv_schemes[_i], KVT_SCHEME_NONE, 128, 0);
    double db[3];
    for (size_t e = 0; e < 3; e++) {
        spec.k_options.effort = efforts[e];
        db[e] = measure(&spec, 8, 0, 0);
    }
    printf("%-4s fast %.3f dB, default %.3f dB, best %.3f dB\n", kvt_scheme_get(kv_schemes[_i])->name, db[0], db[1], db[2]);
    ck_assert_msg(db[1] >= least_db[_i], "%g dB", db[1]);
    ck_assert_msg(db[2] >= db[1] && db[1] >= db[0], "fast %g, default %g, best %g dB", db[0], db[1], db[2]);
}
END_TEST

/* Every scheme with every option at widths of every kind: Gaussian rows stay Gaussian under a rotation, and a centre that is not needed does little
 * harm, but where channels have means of their own it helps. */
START_TEST(options_quality)
{
    static const uint32_t dims[] = { 128, 112, 80 };
    static const kvt_rotation rotations[] = { KVT_ROTATION_NONE, KVT_ROTATION_64, KVT_ROTATION_128 };
    static const kvt_centring centrings[] = { KVT_CENTRING_NONE, KVT_CENTRING_SEQUENCE, KVT_CENTRING_PAGE, KVT_CENTRING_OWN };
    kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    for (size_t d = 0; d < 3; d++) {
        kvt_spec spec = test_spec(scheme, KVT_SCHEME_NONE, dims[d], 0);
        spec.k_options.effort = KVT_EFFORT_FAST;
        double plain = measure(&spec, 3, 1, 0), shifted = 0;
        for (size_t r = 0; r < 3; r++) {
            for (size_t c = 0; c < sizeof centrings / sizeof *centrings; c++) {
                spec.k_options.rotation = rotations[r];
                spec.k_options.centring = centrings[c];
                double db = measure(&spec, 3, 1, 0), least = plain < 100 ? plain - 0.8 : 100;
                TEST_REQUIRE(db >= least, "dim %u, rotation %d, centring %d: %g dB, plain %g", dims[d], (int)rotations[r], (int)centrings[c], db,
                             plain);
                double centred = measure(&spec, 3, 1, 4);
                if (r == 0 && c == 0)
                    shifted = centred;
                if (r == 0 && c > 0 && plain < 60)
                    TEST_REQUIRE(centred >= plain - 3 && centred >= shifted, "dim %u, rotation %d, centring %d: %g dB, not centred %g", dims[d],
                                 (int)rotations[r], (int)centrings[c], centred, shifted);
            }
        }
    }
}
END_TEST

/* ---- rotation -------------------------------------------------------------------------------------------------------------------- */

START_TEST(hadamard_of_units)
{
    static const struct {
        uint32_t dim;
        kvt_rotation rotation;
        uint32_t blocks[4]; /* widths */
    } cases[] = {
        { 16, KVT_ROTATION_64, { 16 } },         { 48, KVT_ROTATION_64, { 32, 16 } },      { 64, KVT_ROTATION_128, { 64 } },
        { 80, KVT_ROTATION_128, { 64, 16 } },    { 112, KVT_ROTATION_64, { 64, 32, 16 } }, { 112, KVT_ROTATION_128, { 64, 32, 16 } },
        { 128, KVT_ROTATION_64, { 64, 64 } },    { 128, KVT_ROTATION_128, { 128 } },       { 192, KVT_ROTATION_128, { 128, 64 } },
        { 256, KVT_ROTATION_128, { 128, 128 } },
    };
    /* The first channels whose sign changes, from the lowest bits of the words: 3 = 0011, d = 1101, 8 = 1000; 4 = 0100, 4 = 0100, 3 = 0011. */
    static const uint32_t flips[] = { 0, 1, 4, 6, 7, 11, 66, 70, 72, 73, 128, 129, 194 },
                          keeps[] = { 2, 3, 5, 8, 9, 10, 64, 65, 67, 68, 69, 71, 130 };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kvt_spec spec = test_spec(KVT_SCHEME_f32, KVT_SCHEME_NONE, cases[i].dim, 0);
        spec.k_options.rotation = cases[i].rotation;
        oracle_side side = side_of(&spec);
        uint32_t begin = 0;
        for (size_t b = 0; b < 4 && cases[i].blocks[b] != 0; begin += cases[i].blocks[b++]) {
            uint32_t n = cases[i].blocks[b];
            float root = n == 16 ? 0.25f : n == 32 ? 0x1.6a09e6p-3f : n == 64 ? 0.125f : 0x1.6a09e6p-4f;
            for (uint32_t k = 0; k < n; k++) {
                uint32_t x[KVT_MAX_DIM] = { 0 };
                x[begin + k] = 0x3f800000;
                oracle_rotate(&side, x);
                double first = (double)float_of(x[begin]); /* row 0 of the matrix: no sign but the channel's */
                ck_assert(fabs(first) == (double)root);
                for (size_t f = 0; f < sizeof flips / sizeof flips[0]; f++) {
                    ck_assert(flips[f] != begin + k || first < 0);
                    ck_assert(keeps[f] != begin + k || first > 0);
                }
                for (uint32_t c = 0; c < cases[i].dim; c++) {
                    bool odd = false;
                    for (uint32_t bit = 1; bit < n; bit *= 2)
                        odd ^= (c - begin) & k & bit ? true : false;
                    double want = c < begin || c >= begin + n ? 0 : odd ? -first : first;
                    ck_assert_msg((double)float_of(x[c]) == want, "case %zu, unit %u, channel %u", i, begin + k, c);
                }
                oracle_unrotate(&side, x);
                for (uint32_t c = 0; c < cases[i].dim; c++)
                    ck_assert(fabs((double)float_of(x[c]) - (c == begin + k ? 1 : 0)) < 0x1p-22);
            }
        }
        ck_assert_uint_eq(begin, cases[i].dim);
    }
}
END_TEST

START_TEST(rotation_and_back)
{
    uint64_t state = 31;
    for (int round = 0; round < 200; round++) {
        kvt_spec spec = test_spec(KVT_SCHEME_f32, KVT_SCHEME_NONE, 16 * (1 + test_below(&state, 64)), 0);
        spec.k_options.rotation = round % 2 == 0 ? KVT_ROTATION_64 : KVT_ROTATION_128;
        oracle_side side = side_of(&spec);
        uint32_t x[KVT_MAX_DIM], y[KVT_MAX_DIM];
        double before = 0, between = 0;
        for (uint32_t c = 0; c < spec.k_dim; c++)
            y[c] = x[c] = test_bits(gaussian(&state));
        oracle_rotate(&side, y);
        for (uint32_t c = 0; c < spec.k_dim; c++) {
            before += (double)float_of(x[c]) * (double)float_of(x[c]);
            between += (double)float_of(y[c]) * (double)float_of(y[c]);
        }
        ck_assert(fabs(before / between - 1) < 0x1p-20);
        oracle_unrotate(&side, y);
        for (uint32_t c = 0; c < spec.k_dim; c++)
            ck_assert(fabs((double)float_of(x[c]) - (double)float_of(y[c])) < 0x1p-19);
    }
}
END_TEST

START_TEST(rotation_of_odd_numbers)
{
    kvt_spec spec = test_spec(KVT_SCHEME_f32, KVT_SCHEME_NONE, 96, 0);
    spec.k_options.rotation = KVT_ROTATION_64;
    oracle_side side = side_of(&spec);
    uint32_t x[96] = { 0 };
    x[3] = 0xffa00001;  /* a NaN spoils its block, and no other */
    x[70] = 0x0f7fffff; /* below 2^-96 */
    x[71] = 0x8f7fffff;
    oracle_rotate(&side, x);
    for (uint32_t c = 0; c < 96; c++)
        ck_assert(c < 64 ? x[c] == 0x7fc00000 : float_of(x[c]) == 0.0f);
    oracle_unrotate(&side, x);
    for (uint32_t c = 0; c < 96; c++)
        ck_assert(c < 64 ? x[c] == 0x7fc00000 : float_of(x[c]) == 0.0f);
    memset(x, 0, sizeof x);
    x[70] = 0x0f800000; /* 2^-96, sign changed; 32 of them: 2^-96 x 32^-1/2 = 1.414 x 2^-99 */
    x[5] = 0x7f800000;  /* infinity alone: infinities of both signs; channel 5 keeps its sign */
    oracle_rotate(&side, x);
    for (uint32_t c = 0; c < 96; c++)
        ck_assert((x[c] & 0x7fffffff) == (c < 64 ? 0x7f800000 : 0x0e3504f3));
    ck_assert_uint_eq(x[64], 0x8e3504f3);
    ck_assert(x[0] == 0x7f800000 && x[1] == 0xff800000);
    oracle_unrotate(&side, x); /* infinity less infinity */
    ck_assert_uint_eq(x[0], 0x7fc00000);
    /* Two of the largest overflow. */
    memset(x, 0, sizeof x);
    x[2] = x[3] = 0x7f7fffff;
    oracle_rotate(&side, x);
    ck_assert(x[0] == 0x7f800000 && x[1] == 0);
}
END_TEST

/* ---- centring -------------------------------------------------------------------------------------------------------------------- */

enum { CENTRE_DIM = 48, CENTRE_PAGES = 4, CENTRE_TOKENS = 64 * CENTRE_PAGES };

/* f32 keeps what it is given, so everything can be followed. Token t of page p is, in channel c: a(c) + p · b(c), and a NaN in the last channel of
 * token 3. */
START_TEST(centre_by_hand)
{
    kvt_centring centring = _i == 0 ? KVT_CENTRING_SEQUENCE : KVT_CENTRING_PAGE;
    kvt_spec spec = test_spec(KVT_SCHEME_f32, KVT_SCHEME_f32, 16, CENTRE_DIM);
    spec.v_options.centring = centring;
    oracle_layout o;
    oracle_layout_init(&o, &spec);
    const oracle_side *side = &o.side[KVT_V];
    unsigned char *memory = test_malloc(CENTRE_PAGES * o.page_bytes), *rows = test_malloc(CENTRE_TOKENS * CENTRE_DIM * 4), *table[CENTRE_PAGES];
    unsigned char *back = test_malloc(CENTRE_TOKENS * CENTRE_DIM * 4);
    memset(memory, 0xa5, CENTRE_PAGES * o.page_bytes);
    for (size_t p = 0; p < CENTRE_PAGES; p++)
        table[p] = memory + p * o.page_bytes;
    memset(rows, 0, CENTRE_TOKENS * CENTRE_DIM * 4);
    for (size_t t = 0; t < CENTRE_TOKENS; t++) {
        double p = (double)(t / 64);
        unsigned char *row = rows + t * CENTRE_DIM * 4;
        oracle_store(row, 4, test_bits(63.5));                                    /* the block's scale is 0.5 while this is the largest */
        oracle_store(row + 4, 4, test_bits(3 + (t % 2 == 0 ? 1 : -1)));           /* mean 3: code 6 */
        oracle_store(row + 8, 4, test_bits(-10 * p));                             /* mean 0, -10, -20: codes 0, -20, -40 */
        oracle_store(row + 4 * 47, 4, t % 64 == 3 ? 0xffc12345 : test_bits(127)); /* mean 63/64 of 127 = 125.015625 = 127 scales of 0.984375 */
    }
    oracle_write(&o, KVT_V, table, 0, CENTRE_TOKENS, rows, KVT_F32, CENTRE_DIM * 4);
    for (size_t p = 0; p < CENTRE_PAGES; p++) {
        const unsigned char *centre = table[p] + 64 * 4 * (16 + CENTRE_DIM);
        unsigned char want[CENTRE_DIM + 4] = { 0 };
        if (p > 0) {
            want[0] = 127;
            want[1] = 6;
            want[2] = centring == KVT_CENTRING_PAGE ? (unsigned char)(256 - 20 * (p - 1)) : 0;
            want[47] = 127;
            want[49] = 0x38; /* 0.5 */
            want[50] = 0xe0; /* 0.984375 = 1.96875 / 2: f16 0x3be0 */
            want[51] = 0x3b;
        }
        if (p > 1 && centring == KVT_CENTRING_PAGE) {
            /* What is stored of page 1 is 127 - 125.015625 in channel 47; 63/64 of it more: 126.968994 = 127 x 0.999756, f16 0x3bff or 0x3c00. */
            double mean = p == 2 ? 125.015625 + (127 - 125.015625) * 63 / 64 : 0;
            uint32_t mu[CENTRE_DIM];
            oracle_centre(side, table[p], mu);
            if (p == 2)
                ck_assert(fabs((double)float_of(mu[47]) - mean) <= 127 * 0x1p-12);
            memcpy(want + 50, centre + 50, 2);
        }
        for (size_t i = 0; i < sizeof want; i++)
            ck_assert_msg(centre[i] == want[i], "page %zu: byte %zu of the centre is %02x, not %02x", p, i, centre[i], want[i]);
        for (size_t i = sizeof want; i < 64; i++)
            ck_assert_uint_eq(centre[i], 0xa5);
        /* What is stored, with the centre: 63.5 - 63.5; 2 - 3; -10 p less what the centre says. */
        uint32_t f32;
        double mu_2 = p == 0 ? 0 : centring == KVT_CENTRING_PAGE ? -10 * (double)(p - 1) : 0;
        ck_assert(oracle_decode(side, KVT_V, table[p], 17, 0, &f32) == (p == 0 ? 63.5 : 0));
        ck_assert(oracle_decode(side, KVT_V, table[p], 17, 1, &f32) == (p == 0 ? 2 : -1));
        ck_assert(oracle_decode(side, KVT_V, table[p], 17, 2, &f32) == -10 * (double)p - mu_2);
        ck_assert(isnan(oracle_decode(side, KVT_V, table[p], 3, 47, &f32)));
    }
    oracle_read(&o, KVT_V, table, 0, CENTRE_TOKENS, back, KVT_F32, CENTRE_DIM * 4);
    for (size_t i = 0; i < CENTRE_TOKENS * CENTRE_DIM; i++) {
        double x = (double)float_of(oracle_load(rows + 4 * i, 4)), y = (double)float_of(oracle_load(back + 4 * i, 4));
        ck_assert(isnan(x) ? oracle_load(back + 4 * i, 4) == 0x7fc00000 : fabs(x - y) < 0x1p-16);
    }
    free(memory);
    free(rows);
    free(back);
}
END_TEST

/* However the tokens are split into calls, in order: the same bytes; and a token that is not its page's first leaves the centre alone. */
START_TEST(centre_in_pieces)
{
    kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    uint64_t state = (uint64_t)_i;
    for (int round = 0; round < 4; round++) {
        kvt_spec spec = test_spec(scheme, scheme, 96, 64);
        spec.k_options.centring = spec.v_options.centring = round % 2 == 0 ? KVT_CENTRING_PAGE : KVT_CENTRING_SEQUENCE;
        spec.v_options.rotation = round < 2 ? KVT_ROTATION_64 : KVT_ROTATION_NONE;
        spec.k_options.effort = spec.v_options.effort = KVT_EFFORT_FAST;
        oracle_layout o;
        oracle_layout_init(&o, &spec);
        unsigned char *memory[2], *table[2][CENTRE_PAGES], *rows = test_malloc(CENTRE_TOKENS * 96 * 4);
        for (int copy = 0; copy < 2; copy++) {
            memory[copy] = test_malloc(CENTRE_PAGES * o.page_bytes);
            memset(memory[copy], 0x3c, CENTRE_PAGES * o.page_bytes);
            for (size_t p = 0; p < CENTRE_PAGES; p++)
                table[copy][p] = memory[copy] + p * o.page_bytes;
        }
        for (int which = 0; which < 2; which++) {
            ptrdiff_t stride = (ptrdiff_t)o.side[which].dim * 4;
            test_rows(0, &state, CENTRE_TOKENS, o.side[which].dim, rows, KVT_F32, stride);
            oracle_write(&o, (kvt_side)which, table[0], 0, CENTRE_TOKENS, rows, KVT_F32, stride);
            for (size_t first = 0, n; first < CENTRE_TOKENS; first += n) {
                n = 1 + test_below(&state, round < 2 ? 90 : 5);
                if (n > CENTRE_TOKENS - first)
                    n = CENTRE_TOKENS - first;
                oracle_write(&o, (kvt_side)which, table[1], first, n, rows + (ptrdiff_t)first * stride, KVT_F32, stride);
            }
            ck_assert_uint_eq(test_difference(memory[0], memory[1], CENTRE_PAGES * o.page_bytes), CENTRE_PAGES * o.page_bytes);
            const oracle_side *side = &o.side[which];
            unsigned char *centre = table[1][2] + side->centre_offset;
            memset(centre, 0x7f, side->centre_bytes);
            oracle_write(&o, (kvt_side)which, table[1], 129, 63, rows, KVT_F32, stride);
            for (size_t i = 0; i < side->centre_bytes; i++)
                ck_assert_uint_eq(centre[i], 0x7f);
            memcpy(memory[1], memory[0], CENTRE_PAGES * o.page_bytes);
        }
        free(memory[0]);
        free(memory[1]);
        free(rows);
    }
}
END_TEST

/* Rows of every pattern and pages full of random bytes with every option: nothing undefined happens (the sanitizers watch), and what is computed
 * never gives another NaN than the quiet one. */
START_TEST(any_input)
{
    enum { TOKENS = 130 };
    kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    bool fp8 = scheme == KVT_SCHEME_e4m3 || scheme == KVT_SCHEME_e5m2;
    uint64_t state = (uint64_t)_i + 41;
    for (unsigned round = 0; round < 36; round++) {
        static const uint32_t dims[] = { 16, 33, 80, 112 }, fp8_blocks[] = { 0, 32, 64, 128, KVT_BLOCK_TENSOR };
        kvt_spec spec = test_spec(KVT_SCHEME_q4_0, scheme, 16, dims[round % 4]);
        kvt_side_options *options = &spec.v_options;
        options->rotation = round % 3 == 0 ? KVT_ROTATION_NONE : round % 3 == 1 ? KVT_ROTATION_64 : KVT_ROTATION_128;
        options->centring = (kvt_centring)(round / 3 % 3);
        options->effort = (kvt_effort)(round / 9 % 3);
        if (fp8) {
            options->fp8_block = fp8_blocks[test_below(&state, 5)];
            if (options->fp8_block == KVT_BLOCK_TENSOR)
                options->fp8_tensor_scale = round % 2 == 0 ? 0x1p-64f : 0x1p64f;
            else
                options->fp8_scale = round % 2 == 0 ? KVT_FP8_SCALE_F32 : KVT_FP8_SCALE_E8M0;
        }
        oracle_layout o;
        oracle_layout_init(&o, &spec);
        const size_t row_bytes = (size_t)spec.v_dim * 4;
        unsigned char *memory = test_malloc(3 * o.page_bytes), *rows = test_malloc(TOKENS * row_bytes);
        unsigned char *table[] = { memory, memory + o.page_bytes, memory + 2 * o.page_bytes };
        test_fill(&state, memory, 3 * o.page_bytes);
        bool plain = options->rotation == KVT_ROTATION_NONE && options->centring == KVT_CENTRING_NONE;
        for (int written = 0; written < 2; written++) {
            if (written) {
                test_rows(round, &state, TOKENS, spec.v_dim, rows, KVT_F32, (ptrdiff_t)row_bytes);
                oracle_write(&o, KVT_V, table, round % 2, TOKENS, rows, KVT_F32, (ptrdiff_t)row_bytes);
            }
            oracle_read(&o, KVT_V, table, 0, TOKENS, rows, KVT_F32, (ptrdiff_t)row_bytes);
            for (size_t i = 0; i < TOKENS * (size_t)spec.v_dim; i++) {
                uint32_t bits = oracle_load(rows + 4 * i, 4);
                bool copied = plain && (scheme == KVT_SCHEME_f32 || scheme == KVT_SCHEME_f16 || scheme == KVT_SCHEME_bf16);
                TEST_REQUIRE(!oracle_is_nan(oracle_f32, bits) || bits == 0x7fc00000 || copied, "round %u: %08x", round, bits);
            }
        }
        free(memory);
        free(rows);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oracle");
    TCase *tcase = tcase_create("oracle");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, rounding);
    tcase_add_test(tcase, known_values);
    tcase_add_test(tcase, binary32);
    tcase_add_loop_test(tcase, fp8_every_f16_and_bf16, 0, 2);
    tcase_add_loop_test(tcase, fp8_boundaries, 0, 2);
    tcase_add_loop_test(tcase, fp8_every_code, 0, 2);
    tcase_add_test(tcase, fp8_scales);
    tcase_add_test(tcase, row_sizes);
    tcase_add_test(tcase, centre_places);
    tcase_add_loop_test(tcase, places_are_a_bijection, 0, (int)test_scheme_count());
    tcase_add_test(tcase, plane_places);
    tcase_add_test(tcase, kv_scales);
    tcase_add_test(tcase, kv_tables);
    tcase_add_test(tcase, kv_fast_by_hand);
    tcase_add_test(tcase, kv_limits);
    tcase_add_test(tcase, kv_grid_is_kept);
    tcase_add_loop_test(tcase, kv_quality, 0, KV_SCHEMES);
    tcase_add_loop_test(tcase, options_quality, 0, (int)test_scheme_count());
    tcase_add_test(tcase, hadamard_of_units);
    tcase_add_test(tcase, rotation_and_back);
    tcase_add_test(tcase, rotation_of_odd_numbers);
    tcase_add_loop_test(tcase, centre_by_hand, 0, 2);
    tcase_add_loop_test(tcase, centre_in_pieces, 0, (int)test_scheme_count());
    tcase_add_loop_test(tcase, any_input, 0, (int)test_scheme_count());
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
