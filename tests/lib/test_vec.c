/* SPDX-License-Identifier: MIT */
/* Every word of the lane vocabulary, on every usable tier, against the scalar tier; and the scalar tier's permutations against arch/VEC.md. */
#include "kernels/kernels.h"
#include "support.h"
#include "vec_tiers.h"

#include <stdlib.h>
#include <string.h>

static void put32(uint8_t *p, uint32_t x)
{
    memcpy(p, &x, 4);
}

static uint32_t float_within(uint64_t *state, int low_exponent, int high_exponent)
{
    const uint32_t exponent = (uint32_t)(127 + low_exponent) + test_below(state, (uint32_t)(high_exponent - low_exponent));
    return (uint32_t)(test_random(state) & 0x807fffff) | exponent << 23;
}

/* Often at one of the limits that matter. */
static int32_t s16_of_any_size(uint64_t *state)
{
    static const int32_t limits[] = { -32768, 32767, -129, -128, 127, 128 };
    if (test_below(state, 8) == 0)
        return limits[test_below(state, sizeof limits / sizeof *limits)];
    return ((int32_t)test_below(state, 65536) - 32768) / (1 << test_below(state, 16));
}

static void make_input(int input, uint64_t *state, uint8_t in[256])
{
    test_fill(state, in, 256);
    for (int i = 0; i < 64; i++) {
        uint32_t lane;
        memcpy(&lane, in + 4 * i, 4);
        if (input == INPUT_QUIET && (lane & 0x7fffffff) > 0x7f800000)
            lane |= 0x400000;
        if (input == INPUT_FLOATS)
            lane = float_within(state, -126, 127);
        if (input == INPUT_SMALL)
            lane = float_within(state, -20, 30);
        if (input == INPUT_ALIKE) {
            const uint32_t kind = test_below(state, 4);
            lane = float_within(state, -20, 30);
            if (kind < 2)
                lane = (lane & 0x80000000) | (kind == 0 ? 0 : 0x40490fdb);
        }
        if (input == INPUT_EXP)
            lane = test_bits(-100.0 * test_uniform(state));
        if (input == INPUT_U8)
            lane &= 0xff;
        if (input == INPUT_S8)
            lane = (lane & 0xff) - 128;
        if (input == INPUT_S16)
            lane = (uint32_t)s16_of_any_size(state);
        if (input == INPUT_U16)
            lane &= 0xffff;
        put32(in + 4 * i, lane);
    }
    for (int i = 0; i < 256; i++) {
        if (input == INPUT_NIBBLES || (input == INPUT_TABLE && i >= 64))
            in[i] &= 15;
        if (input == INPUT_INDEX32 && i >= 64)
            in[i] &= 31;
        if (input == INPUT_INDEX64 && i >= 64)
            in[i] &= 63;
        if (input == INPUT_ABS && in[i] == 0x80)
            in[i] = 0x7f;
        if (input == INPUT_DOT && i < 64)
            in[i] &= 127;
    }
    if (input == INPUT_TABLE)
        for (int i = 16; i < 64; i++)
            in[i] = in[i - 16];
    for (int i = 0; i < 128 && (input == INPUT_HALVES || input == INPUT_MULHRS || input == INPUT_DOT16); i++) {
        int32_t x = s16_of_any_size(state);
        if (input == INPUT_MULHRS && i >= 32 && x == -32768)
            x = -32767;
        if (input == INPUT_DOT16 && i >= 32)
            x /= 2;
        const uint16_t half = (uint16_t)x;
        memcpy(in + 2 * i, &half, 2);
    }
    for (int i = 0; i < 16 && input == INPUT_DOT16; i++)
        put32(in + 128 + 4 * i, ((uint32_t)test_random(state) & 0x7fffffff) - 0x40000000);
    /* The extremes that the dot product's contract is about. */
    if (input == INPUT_DOT && test_below(state, 4) == 0) {
        memset(in, 127, 64);
        memset(in + 64, test_below(state, 2) ? 0x80 : 0x7f, 64);
    }
}

START_TEST(same_on_every_tier)
{
    const uint32_t usable = kvt_tiers_usable();
    for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++) {
        if (!(usable >> tiers[t].id & 1))
            continue;
        for (size_t w = 0; tiers[0].words[w].name; w++) {
            const vec_word *reference = &tiers[0].words[w], *word = &tiers[t].words[w];
            uint64_t state = 1;
            for (int round = 0; round < 2000; round++) {
                uint8_t in[256], want[256], got[256];
                make_input(reference->input, &state, in);
                memset(want, 0xa5, sizeof want);
                memset(got, 0xa5, sizeof got);
                reference->run(in, want);
                word->run(in, got);
                const size_t at = test_difference(want, got, sizeof want);
                TEST_REQUIRE(at == sizeof want, "%s on %s, round %d: byte %zu is %02x, scalar has %02x", word->name, tiers[t].tier, round, at,
                             got[at % 256], want[at % 256]);
            }
        }
    }
}
END_TEST

static const vec_word *scalar_word(const char *name)
{
    const vec_word *word = tiers[0].words;
    while (strcmp(word->name, name) != 0)
        word++;
    return word;
}

/* When the elements of the input, `from` bytes each, are 0, 1, 2 ..., element i of the output, of `to` bytes, is want(i). */
static void require_elements(const char *name, int from, int to, int count, int (*want)(int))
{
    uint8_t in[256] = { 0 }, out[256];
    for (int i = 0; i < 256 / from; i++)
        in[from * i] = (uint8_t)i;
    scalar_word(name)->run(in, out);
    for (int i = 0; i < count; i++) {
        uint32_t got = 0;
        memcpy(&got, out + to * i, (size_t)to);
        TEST_REQUIRE(got == (uint32_t)want(i), "%s: element %d is %u, not %d", name, i, got, want(i));
    }
}
/* Byte i of the output is byte source(i) of the input. */
static void require_permutation(const char *name, int lines, int (*source)(int))
{
    require_elements(name, 1, 1, 64 * lines, source);
}

static int swapped_cells(int i)
{
    return i / 16 * 16 + i % 4 * 4 + i / 4 % 4;
}
static int swapped_quarters(int i)
{
    return i / 16 % 4 * 64 + i / 64 * 16 + i % 16;
}
static int in_order(int i)
{
    return i;
}
static int transposed32(int i)
{
    return i / 4 % 4 * 64 + (i / 16 % 4 * 4 + i / 64) * 4 + i % 4;
}
/* Halfword i: half h, quarter l, row 2h or 2h + 1, channel 4l + j. */
static int words16(int i)
{
    return (i / 32 * 2 + i / 4 % 2) * 16 + i / 8 % 4 * 4 + i % 4;
}
static int quarters(int i)
{
    static const int first[] = { 70, 3, 240, 100 };
    return first[i / 16] + i % 16;
}
static int quarter_at_3(int i)
{
    return 3 + i % 16;
}
static int eighth_at_5(int i)
{
    return 5 + i % 8;
}
static int byte_at_1(int i)
{
    return 1 + i;
}
/* Byte i: quarter l, the eight of a or of b; source: halfword 8l + j of line a or b. */
static int packed_halfwords(int i)
{
    return i / 8 % 2 * 32 + i / 16 * 8 + i % 8;
}
/* Halfword i: half h, quarter l; source: byte 16l + 8h + j. */
static int widened_high(int i)
{
    return (i / 8 % 4 * 16 + i / 32 * 8 + i % 8) << 8;
}
/* Lane i: quarter l, pair j of a or b. */
static int paired_sums(int i)
{
    const int first = i / 2 % 2 * 16 + i / 4 * 4 + i % 2 * 2;
    return first + (first + 1);
}
/* Lane i: half h, quarter l. */
static int twice(int i)
{
    return i / 4 % 4 * 4 + i / 16 * 2 + i / 2 % 2;
}

START_TEST(permutations_as_documented)
{
    require_permutation("u8x64_swap_cells", 1, swapped_cells);
    require_permutation("u8x64_swap_quarters", 4, swapped_quarters);
    require_permutation("quad32_transpose", 4, transposed32);
    require_permutation("u8x64_load_quarters", 1, quarters);
    require_permutation("u8x64_load_quarter", 1, quarter_at_3);
    require_permutation("u8x64_load_eighth", 1, eighth_at_5);
    require_elements("i32x16_load_u8", 1, 4, 16, byte_at_1);
    require_elements("i32x16_load_s8", 1, 4, 16, byte_at_1);
    require_elements("u8x64_pack_u8", 4, 1, 64, in_order);
    require_elements("u8x64_pack_sat_s8", 4, 1, 64, in_order);
    require_elements("quad16_words", 4, 2, 64, words16);
    require_elements("i16x32_pack_s8", 2, 1, 64, packed_halfwords);
    require_elements("u8x64_widen_high_s8", 1, 2, 64, widened_high);
    require_elements("i32x16_add_pairs", 4, 4, 16, paired_sums);
    require_elements("i32x16_twice", 4, 4, 32, twice);
}
END_TEST

/* Line 0 is the table, line 1 has the indices. */
/* What a table says of each byte is what its levels say. */
START_TEST(tables_find_the_nearest_level)
{
    static const size_t bounds[] = { [2] = 1, [3] = 1, [4] = 2, [5] = 3, [6] = 5 };
    for (size_t i = 0; kvt_scheme_at(i) != NULL; i++) {
        const kvt_scheme_code *scheme = &kvt_scheme_codes[i];
        if (!scheme->is_searched)
            continue;
        const kvt_table *table = scheme->table;
        for (int y = -128; y < 128; y++) {
            int code = table->first[(y & 255) >> 4], nearest = 0;
            for (size_t k = 0; k < bounds[scheme->bits]; k++)
                code += y > table->bounds[k][(y & 255) >> 4];
            for (int c = 1; c < 1 << scheme->bits; c++)
                nearest = abs(y - table->levels[c]) < abs(y - table->levels[nearest]) ? c : nearest;
            TEST_REQUIRE(code == nearest, "%s: the level nearest to %d is that of %d, not of %d", kvt_scheme_at(i)->name, y, nearest, code);
        }
    }
}
END_TEST

START_TEST(lookups_as_documented)
{
    static const char *const names[] = { "u8x64_lookup16", "u8x64_lookup32", "u8x64_lookup64" };
    for (int n = 0; n < 3; n++) {
        const vec_word *word = scalar_word(names[n]);
        uint64_t state = 1;
        uint8_t in[256], out[256];
        make_input(word->input, &state, in);
        word->run(in, out);
        for (int i = 0; i < 64; i++)
            TEST_REQUIRE(out[i] == in[in[64 + i]], "%s: byte %d is %02x, not %02x", names[n], i, out[i], in[in[64 + i]]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vec");
    TCase *tc = tcase_create("words");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, same_on_every_tier);
    tcase_add_test(tc, permutations_as_documented);
    tcase_add_test(tc, tables_find_the_nearest_level);
    tcase_add_test(tc, lookups_as_documented);
    suite_add_tcase(suite, tc);
    return test_run(suite);
}
