/* SPDX-License-Identifier: MIT */
/* The functions that SLEEF gives and those that stand for them in builds without it have the same bits: compared where SLEEF is there, and hashed
 * everywhere. `test_exp 1` has every float (target check_exp); otherwise each 4093rd. */
#include "kernels/api/elementary.h"
#include "support.h"
#include "vec_tiers.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLED = 4093 };
static uint32_t step = SAMPLED;

static const vec_word *find(const vec_word *word, const char *name)
{
    while (strcmp(word->name, name) != 0)
        word++;
    return word;
}

static uint64_t mixed(uint64_t hash, const void *bits, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t word;
        memcpy(&word, (const uint8_t *)bits + i, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash;
}

static void require_hash(const char *name, uint64_t hash, uint64_t want)
{
    TEST_REQUIRE(hash == want, "%s: the hash of results is 0x%016llx, not 0x%016llx", name, (unsigned long long)hash, (unsigned long long)want);
}

START_TEST(exp_of_floats)
{
    test_tier usable[32];
    const size_t n = test_tiers(usable);
    for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++) {
        size_t i = 0;
        while (i < n && strcmp(usable[i].name, tiers[t].tier) != 0)
            i++;
        if (i == n)
            continue;
        const vec_word *plain = find(tiers[t].words, "f32x16_exp_plain"), *chosen = find(tiers[t].words, "f32x16_exp");
        uint64_t hash = 0, floats = 0;
        for (uint64_t bits = 0; bits <= UINT32_MAX; floats += 16) {
            uint32_t x[64] = { 0 }, y[64] = { 0 }, z[64] = { 0 };
            for (int lane = 0; lane < 16; lane++, bits += step)
                x[lane] = (uint32_t)bits;
            plain->run((const uint8_t *)x, (uint8_t *)y);
            chosen->run((const uint8_t *)x, (uint8_t *)z);
            for (int lane = 0; memcmp(y, z, 64) != 0 && lane < 16; lane++)
                TEST_REQUIRE(y[lane] == z[lane], "%s: exp of 0x%08x is 0x%08x, and SLEEF's is 0x%08x", tiers[t].tier, x[lane], y[lane], z[lane]);
            hash = mixed(hash, y, 64);
        }
        printf("%s: exp of %llu floats, hash 0x%016llx\n", tiers[t].tier, (unsigned long long)floats, (unsigned long long)hash);
        fflush(stdout);
        if (step == 1 || step == SAMPLED)
            require_hash(tiers[t].tier, hash, step == 1 ? UINT64_C(0x6104050c726e22f5) : UINT64_C(0x756cef39b14a539a));
    }
}
END_TEST

#if defined(KVT_SLEEF)
enum { HAS_SLEEF = 1 };
#else
enum { HAS_SLEEF = 0 };
#endif

static void require_same(const char *function, double x, double plain, double chosen)
{
    TEST_REQUIRE(memcmp(&plain, &chosen, sizeof plain) == 0, "%s of %a is %a, and SLEEF's is %a", function, x, plain, chosen);
}

/* A number of either sign whose binary exponent is anything from low to high - 1. */
static double of_any_size(uint64_t *state, int low, int high)
{
    const int exponent = low + (int)test_below(state, (uint32_t)(high - low));
    const double x = ldexp(1 + test_uniform(state), exponent);
    return test_below(state, 2) ? x : -x;
}

START_TEST(functions_of_doubles)
{
    uint64_t state = 1, hash = 0;
    for (int i = 0; i < 2000000 / KVT_TEST_SHARE; i++) {
        const double x = of_any_size(&state, -60, 9), y = fabs(of_any_size(&state, -1000, 1000)), z = of_any_size(&state, -60, 67);
        const double e = kvt_exp_plain(x), l = kvt_log_plain(y);
        const kvt_sine_cosine s = kvt_sincos_plain(z);
        require_same("exp", x, e, kvt_exp(x));
        require_same("log", y, l, kvt_log(y));
        const kvt_sine_cosine other = kvt_sincos(z);
        require_same("sine", z, s.sine, other.sine);
        require_same("cosine", z, s.cosine, other.cosine);
        if (i < 10000)
            hash = mixed(mixed(mixed(hash, &e, 8), &l, 8), &s, 16);
    }
    require_hash("functions of doubles", hash, UINT64_C(0x921a8aed69ea462c));
}
END_TEST

/* Where those ranges end in which sines are reduced alike, at multiples of pi / 2, and where nothing is left of the argument. */
START_TEST(edges_of_doubles)
{
    static const double edges[] = { 0, 0x1p-60, 0x1.921fb54442d18p-1, 0x1.921fb54442d18p+0, 0x1.921fb54442d18p+1, 15, 1e14, 0x1p55, 0x1p56, 0x1p67 };
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
        for (int k = -2; k <= 2; k++)
            for (int sign = -1; sign <= 1; sign += 2) {
                double x = edges[i];
                for (int j = 0; j < abs(k); j++)
                    x = nextafter(x, k < 0 || x == 0x1p67 ? 0 : INFINITY);
                x *= sign;
                const kvt_sine_cosine plain = kvt_sincos_plain(x), chosen = kvt_sincos(x);
                require_same("sine", x, plain.sine, chosen.sine);
                require_same("cosine", x, plain.cosine, chosen.cosine);
                const double e = fmod(x, 700);
                require_same("exp", e, kvt_exp_plain(e), kvt_exp(e));
            }
}
END_TEST

#if defined(_WIN32) /* msvcrt's sine of 2^32 has 30 good bits */
static const bool accurate_libm = false;
#else
static const bool accurate_libm = true;
#endif

/* Against libm, whose functions are accurate to a unit in the last place or less: no constant is wrong in a build that has nothing else to compare.
 */
START_TEST(doubles_are_accurate)
{
    uint64_t state = 2;
    for (int i = 0; i < 100000 / KVT_TEST_SHARE; i++) {
        const double x = of_any_size(&state, -60, 9), y = fabs(of_any_size(&state, -1000, 1000)), z = of_any_size(&state, -60, 67);
        const double e = exp(x), l = log(y);
        const kvt_sine_cosine s = kvt_sincos_plain(z);
        TEST_REQUIRE(fabs(kvt_exp_plain(x) - e) <= 0x1p-51 * e, "exp of %a is %a, not %a", x, kvt_exp_plain(x), e);
        TEST_REQUIRE(fabs(kvt_log_plain(y) - l) <= 0x1p-51 * fabs(l), "log of %a is %a, not %a", y, kvt_log_plain(y), l);
        TEST_REQUIRE(fabs(s.sine - sin(z)) <= 0x1p-51 * fabs(sin(z)), "sine of %a is %a, not %a", z, s.sine, sin(z));
        TEST_REQUIRE(fabs(s.cosine - cos(z)) <= 0x1p-51 * fabs(cos(z)), "cosine of %a is %a, not %a", z, s.cosine, cos(z));
    }
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1)
        step = (uint32_t)strtoul(argv[1], NULL, 10);
    if (step == 0 || argc > 2) {
        fprintf(stderr, "test_exp [STEP]: every STEP-th float; 1: all\n");
        return 2;
    }
    printf("%s\n", HAS_SLEEF ? "compared with SLEEF" : "without SLEEF: hashes alone");
    Suite *suite = suite_create("exp");
    TCase *tc = tcase_create("bits");
    tcase_set_timeout(tc, step == 1 ? 36000 : 300);
    tcase_add_test(tc, exp_of_floats);
    tcase_add_test(tc, functions_of_doubles);
    tcase_add_test(tc, edges_of_doubles);
    if (accurate_libm)
        tcase_add_test(tc, doubles_are_accurate);
    suite_add_tcase(suite, tc);
    return test_run(suite);
}
