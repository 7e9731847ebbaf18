/* The oracle itself: its number formats, checked exhaustively against their definition; and its places, which must be a bijection. */
#include "support.h"

#include <stdlib.h>
#include <string.h>

/* Every pair of neighbours: what lies below the middle rounds down, above it up, and the middle to the even code. */
static void check_rounding(oracle_format format, uint32_t largest, double beyond)
{
    for (uint32_t code = 0; code <= largest; code++) {
        double low = oracle_value(format, code), high = code < largest ? oracle_value(format, code + 1) : beyond;
        double middle = (low + high) / 2, nudge = (high - low) * 0x1p-20;
        uint32_t even = code % 2 == 0 ? code : code + 1;
        uint32_t up = format.exp_bits == oracle_e4m3.exp_bits && code == largest ? code : code + 1;
        uint32_t tie = format.exp_bits == oracle_e4m3.exp_bits && code == largest ? code : even;
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
    check_rounding(oracle_f16, 0x7bff, 65536);
    check_rounding(oracle_bf16, 0x7f7f, 0x1p128);
    check_rounding(oracle_e4m3, 0x7e, 480);
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

/* Writing one token twice over different patterns tells which bits it owns: all tokens together own every bit of the page, none owns another's. */
START_TEST(places_are_a_bijection)
{
    static const uint32_t dims[] = { 1, 16, 48, 80 };
    const kvt_scheme_info *info = kvt_scheme_at((size_t)_i);
    uint64_t state = 3;
    for (size_t d = 0; d < sizeof dims / sizeof dims[0]; d++) {
        oracle_layout layout;
        oracle_layout_init(&layout, info->scheme, info->scheme, dims[d], dims[d]);
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
                    TEST_REQUIRE((owned[i] & written) == 0, "byte %zu belongs to two tokens", i);
                    owned[i] |= written;
                }
            }
        }
        for (size_t i = 0; i < layout.page_bytes; i++)
            TEST_REQUIRE(owned[i] == 0xff, "%s, dim %u: byte %zu of the page has bits that nobody writes", info->name, dims[d], i);
        free(zeros);
        free(ones);
        free(owned);
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
    tcase_add_loop_test(tcase, places_are_a_bijection, 0, (int)test_scheme_count());
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
