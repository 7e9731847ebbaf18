/* Every word of the lane vocabulary, on every usable tier, against the scalar tier; and the scalar tier's permutations against arch/VEC.md. */
#include "support.h"
#include "vec_words.h"

#include <string.h>

#define KVT_TIER_ROW(name, id, folder, flags, needs) extern const vec_word vec_words_##name[];
#include "arch/isa.def"
#undef KVT_TIER_ROW

static const struct tier_words {
    const char *tier;
    unsigned id;
    const vec_word *words;
} tiers[] = {
#define KVT_TIER_ROW(name, id, folder, flags, needs) { #name, id, vec_words_##name },
#include "arch/isa.def"
#undef KVT_TIER_ROW
};

static void put32(uint8_t *p, uint32_t x)
{
    memcpy(p, &x, 4);
}

static uint32_t float_within(uint64_t *state, int low_exponent, int high_exponent)
{
    const uint32_t exponent = (uint32_t)(127 + low_exponent) + test_below(state, (uint32_t)(high_exponent - low_exponent));
    return (uint32_t)(test_random(state) & 0x807fffff) | exponent << 23;
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
        if (input == INPUT_EXP)
            lane = test_bits(-100.0 * test_uniform(state));
        if (input == INPUT_U8)
            lane &= 0xff;
        if (input == INPUT_S8)
            lane = (lane & 0xff) - 128;
        if (input == INPUT_U16)
            lane &= 0xffff;
        put32(in + 4 * i, lane);
    }
    for (int i = 0; i < 256; i++) {
        if (input == INPUT_NIBBLES || (input == INPUT_TABLE && i >= 64))
            in[i] &= 15;
        if (input == INPUT_DOT && i < 64)
            in[i] &= 127;
    }
    if (input == INPUT_TABLE)
        for (int i = 16; i < 64; i++)
            in[i] = in[i - 16];
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

/* Byte i of the output is byte source(i) of the input. */
static void require_permutation(const char *name, int lines, int (*source)(int))
{
    uint8_t in[256], out[256];
    for (int i = 0; i < 256; i++)
        in[i] = (uint8_t)i;
    scalar_word(name)->run(in, out);
    for (int i = 0; i < 64 * lines; i++)
        TEST_REQUIRE(out[i] == source(i), "%s: byte %d comes from %d, not %d", name, i, out[i], source(i));
}

static int swapped_cells(int i)
{
    return i / 16 * 16 + i % 4 * 4 + i / 4 % 4;
}
static int swapped_quarters(int i)
{
    return i / 16 % 4 * 64 + i / 64 * 16 + i % 16;
}
/* Line byte i: quarter l, cell k, byte j; source: row k, channel 4l + j, a lane of 4 bytes. */
static int packed8(int i)
{
    return i / 4 % 4 * 64 + (i / 16 * 4 + i % 4) * 4;
}
static int packed16(int i)
{
    return i / 4 % 4 * 64 + (i / 16 % 4 * 4 + i / 64 * 2 + i / 2 % 2) * 4 + i % 2;
}
static int transposed32(int i)
{
    return i / 4 % 4 * 64 + (i / 16 % 4 * 4 + i / 64) * 4 + i % 4;
}

START_TEST(permutations_as_documented)
{
    require_permutation("u8x64_swap_cells", 1, swapped_cells);
    require_permutation("u8x64_swap_quarters", 4, swapped_quarters);
    require_permutation("quad8_pack_u8", 1, packed8);
    require_permutation("quad16_pack", 2, packed16);
    require_permutation("quad32_transpose", 4, transposed32);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vec");
    TCase *tc = tcase_create("words");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, same_on_every_tier);
    tcase_add_test(tc, permutations_as_documented);
    suite_add_tcase(suite, tc);
    return test_run(suite);
}
