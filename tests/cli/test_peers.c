/* SPDX-License-Identifier: MIT */
/* Formats of other engines and papers: numbers by hand, the signal-to-noise ratios that are known of normal numbers, exact bits, odd input. (Formats
 * of rows as such: test_rowformats.) */
#include "tests/lib/support.h"

#include "tools/peers/arithmetic.h"
#include "tools/peers/peers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 1024, DIM = 128 };

static double snr_of(const peer_format *peer, kvt_side side, uint32_t rotation, const float *rows, float *back)
{
    error_text error = { "" };
    ck_assert_msg(peer_store(peer, side, rotation, rows, TOKENS, DIM, back, &error) == 0, "%s", error.text);
    double signal = 0, noise = 0;
    for (size_t i = 0; i < (size_t)TOKENS * DIM; i++) {
        signal += (double)rows[i] * (double)rows[i];
        noise += pow((double)back[i] - (double)rows[i], 2);
    }
    return 10 * log10(signal / noise);
}

/* Normal to the tails, which decide what a block's largest number costs (Box, Muller). */
static void fill_normal(float *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) {
        const double radius = sqrt(-2 * log(1 - test_uniform(&seed))), angle = 2 * acos(-1) * test_uniform(&seed);
        x[i] = (float)(radius * cos(angle));
    }
}

/* The literature's formats as an independent implementation in double precision measured them: rows of 128 normal numbers. KIVI's groups are those of
 * q4_1; KVarN's rows have nothing to even out, and are those of asymmetric int4 with a scale and a zero per 128. */
START_TEST(normal_numbers)
{
    static const struct {
        const char *name;
        double db, bits;
    } known[] = {
        { "ggml_q8_0", 45.4, 8.5 },     { "ggml_q5_0", 27.4, 5.5 },     { "ggml_q5_1", 28.4, 6 },     { "ggml_q4_0", 21.3, 4.5 },
        { "ggml_q4_1", 22.2, 5 },       { "ggml_iq4_nl", 22.1, 4.5 },   { "mxfp4", 18.8, 4.25 },      { "nvfp4", 20.4, 4.5 },
        { "ik_q6_0", 33.5, 6.5 },       { "mxfp8_e4m3", 30.6, 8.25 },   { "vllm_fp8", 31.8, 8.25 },   { "fp8_tensor", 31.5, 8 },
        { "turboquant4", 20.3, 4.125 }, { "turboquant3", 14.7, 3.125 }, { "vllm_int8", 43.8, 8.25 },  { "vllm_int4", 20.0, 4.25 },
        { "kivi4", 22.2, 5 },           { "kvarn4", 20.0, 4.375 },      { "openvino_u4", 20.0, 4.5 },
    };
    float *rows = test_malloc((size_t)TOKENS * DIM * sizeof *rows), *back = test_malloc((size_t)TOKENS * DIM * sizeof *back);
    fill_normal(rows, (size_t)TOKENS * DIM, 2);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const peer_format *peer = peer_find(known[i].name);
        ck_assert_msg(peer != NULL, "%s", known[i].name);
        const double got = snr_of(peer, KVT_K, 0, rows, back);
        TEST_REQUIRE(fabs(got - known[i].db) < 0.15, "%s: %.2f dB, not %.1f", known[i].name, got, known[i].db);
        ck_assert_double_eq(peer_bits(peer, i % 2 ? KVT_V : KVT_K, DIM), known[i].bits);
        const double rotated = snr_of(peer, KVT_V, 64, rows, back); /* normal numbers stay normal */
        TEST_REQUIRE(fabs(got - rotated) < 0.15, "%s, rotated: %.2f dB, not %.2f", known[i].name, rotated, got);
    }
    ck_assert_double_eq(peer_bits(peer_find("kivi4"), KVT_K, DIM), 5);
    ck_assert_double_eq(peer_bits(peer_find("kvarn4"), KVT_K, DIM), 4.375);
    ck_assert_double_eq(peer_bits(peer_find("kvarn4"), KVT_V, DIM), 4.375);
    ck_assert_double_eq(peer_bits(peer_find("kvarn4"), KVT_K, 64),
                        4 + 32.0 / 128 + 16.0 / 64); /* a scale and a zero of 128 tokens, a scale of a token */
    ck_assert_double_eq(peer_bits(peer_find("kvarn4_g64"), KVT_V, 128), 4 + 32.0 / 128 + 16.0 / 64);
    free(rows);
    free(back);
}
END_TEST

/* A row of one large channel: what a rotation is for. An offset that all tokens share: what groups of tokens are for. */
START_TEST(structure)
{
    float *rows = test_malloc((size_t)TOKENS * DIM * sizeof *rows), *back = test_malloc((size_t)TOKENS * DIM * sizeof *back);
    uint64_t state = 3;
    for (size_t i = 0; i < (size_t)TOKENS * DIM; i++)
        rows[i] = (float)(test_normal(&state) * (i % DIM == 5 ? 30 : 1));
    const peer_format *q4 = peer_find("ggml_q4_0");
    double noise = 0;
    snr_of(q4, KVT_K, 0, rows, back);
    for (size_t t = 0; t < TOKENS; t++)
        noise += pow((double)back[t * DIM + 6] - (double)rows[t * DIM + 6], 2) / TOKENS;
    ck_assert(noise > 0.5); /* beside the large one nothing is left */
    snr_of(q4, KVT_K, 64, rows, back);
    double of_block[2] = { 0, 0 };
    for (size_t t = 0; t < TOKENS; t++)
        for (size_t b = 0; b < 2; b++)
            of_block[b] += pow((double)back[t * DIM + 6 + 64 * b] - (double)rows[t * DIM + 6 + 64 * b], 2) / TOKENS;
    ck_assert(of_block[0] < noise / 2); /* spread over the block */
    ck_assert(of_block[1] < 0.02);      /* and not to the other one */
    for (size_t i = 0; i < (size_t)TOKENS * DIM; i++)
        rows[i] = (float)(10 * sin((double)(i % DIM)) + test_normal(&state));
    const double plain = snr_of(q4, KVT_K, 64, rows, back);
    ck_assert(snr_of(peer_find("kivi4"), KVT_K, 0, rows, back) > plain + 8);
    ck_assert(snr_of(peer_find("kvarn4"), KVT_K, 0, rows, back) > plain + 8);
    ck_assert(snr_of(peer_find("kivi4"), KVT_V, 0, rows, back) < snr_of(peer_find("kivi4"), KVT_K, 0, rows, back) - 8); /* in groups of channels */
    /* Tokens of very different size: a scale for a token, which KIVI's keys do not have and KVarN's do. */
    for (size_t i = 0; i < (size_t)TOKENS * DIM; i++)
        rows[i] = (float)(test_normal(&state) * (i / DIM % 16 == 0 ? 30 : 1));
    double of_small[2] = { 0, 0 };
    for (int i = 0; i < 2; i++) {
        snr_of(peer_find(i ? "kvarn4" : "kivi4"), KVT_K, 0, rows, back);
        for (size_t at = DIM; at < (size_t)2 * DIM; at++)
            of_small[i] += pow((double)back[at] - (double)rows[at], 2);
    }
    ck_assert(of_small[1] < of_small[0] / 50);
    free(rows);
    free(back);
}
END_TEST

/* By hand. Asymmetric codes: range -1 .. 14 in 15 steps of 1. E4M3: steps of 2^-9 below 2^-6, of 32 in 256 .. 448. */
START_TEST(by_hand)
{
    float x[4] = { -1, 14, 3.4f, 2.5f };
    peer_asymmetric(x, 4, 1, 4);
    ck_assert(x[0] == -1 && x[1] == 14 && x[2] == 3 && x[3] == 3); /* 3.5 above zero is half way: to the even code, 4 */
    float y[4] = { 5, 5, 5, 5 };
    peer_asymmetric(y, 4, 1, 4);
    ck_assert(y[0] == 5 && y[3] == 5);
    static const float in[] = { 0.0029f, 1000, -303, 1.0625f, 0.3f }, out[] = { 0.001953125f, 448, -288, 1, 0.3125f };
    float back[5];
    error_text error;
    ck_assert_int_eq(peer_store(peer_find("fp8_tensor"), KVT_K, 0, in, 1, 5, back, &error), 0);
    for (int i = 0; i < 5; i++)
        ck_assert_msg(back[i] == out[i], "%g becomes %g, not %g", (double)in[i], (double)back[i], (double)out[i]);
    ck_assert(peer_round_f16(65520) == 65504 && peer_round_f16(0x1p-25f) == 0 && peer_round_f16(0x1.8p-24f) == 0x1p-23f);
    ck_assert(peer_round_f16(1.00048828125f) == 1 && peer_round_f16(1.00146484375f) == 1.001953125f);
    float h[4] = { 1, 2, 3, 4 };
    peer_hadamard(h, 4, 4);
    ck_assert(h[0] == 5 && h[1] == -1 && h[2] == -2 && h[3] == 0);
    ck_assert(peer_block(80, 64) == 16 && peer_block(128, 64) == 64 && peer_block(7, 64) == 1);
    /* KIVI: 32 tokens of one channel, 0 .. 31: 15 steps of 31 / 15 as f16. */
    float keys[32], kept[32];
    for (int t = 0; t < 32; t++)
        keys[t] = (float)t;
    ck_assert_int_eq(peer_store(peer_find("kivi4"), KVT_K, 0, keys, 32, 1, kept, &error), 0);
    const float step = peer_round_f16(31.0f / 15);
    for (int t = 0; t < 32; t++)
        ck_assert(kept[t] == rintf((float)t / step) * step);
    /* A row of one number, times the signs, is its norm: 16 levels whose largest is all that is used. */
    const float number = 3;
    ck_assert_int_eq(peer_store(peer_find("turboquant4"), KVT_K, 0, &number, 1, 1, back, &error), 0);
    ck_assert(fabsf(back[0] - 3) < 0.003f);
}
END_TEST

static double density(double x)
{
    return exp(-x * x / 2) / sqrt(2 * acos(-1));
}
static double below(double x)
{
    return erfc(-x / sqrt(2)) / 2;
}

/* TurboQuant's levels, by Lloyd's iteration from evenly spaced ones. */
START_TEST(normal_levels)
{
    for (uint32_t bits = 3; bits <= 4; bits++) {
        double levels[16];
        const uint32_t n = 1U << bits;
        for (uint32_t i = 0; i < n; i++)
            levels[i] = 6 * ((i + 0.5) / n - 0.5);
        for (int step = 0; step < 2000; step++) {
            double from = -INFINITY;
            for (uint32_t i = 0; i < n; i++) {
                const double to = i + 1 < n ? (levels[i] + levels[i + 1]) / 2 : INFINITY;
                levels[i] = (density(from) - density(to)) / (below(to) - below(from));
                from = to;
            }
        }
        for (uint32_t i = 0; i < n; i++) {
            TEST_REQUIRE(fabs(peer_normal_level(bits, levels[i]) - levels[i]) < 1e-9, "level %u of %u bits is %.10f", i, bits, levels[i]);
            const double middle = (levels[i] + levels[i + 1 < n ? i + 1 : i]) / 2;
            ck_assert(fabs(peer_normal_level(bits, middle - 1e-6) - levels[i]) < 1e-9);
        }
    }
}
END_TEST

/* Sizes of tokens times sizes of channels times signs, after the rotation: once evened out, all that is left is the signs, which codes hold exactly.
 */
START_TEST(kvarn_evens_out)
{
    static float numbers[128 * 64], rows[128 * 64], back[128 * 64];
    for (size_t i = 0; i < (size_t)128 * 64; i++) {
        const size_t t = i / 64, c = i % 64;
        numbers[i] = rows[i] = ldexpf((t + c) % 2 ? -1 : 1, (int)(t / 2 % 7) - (int)(c / 2 % 5));
    }
    for (size_t t = 0; t < 128; t++)
        peer_hadamard(rows + t * 64, 64, 64);
    for (int i = 0; i < 4; i++) {
        error_text error;
        ck_assert_int_eq(peer_store(peer_find(i % 2 ? "kvarn4" : "kvarn4_g64"), i / 2 ? KVT_V : KVT_K, 0, rows, 128, 64, back, &error), 0);
        for (size_t t = 0; t < 128; t++) {
            float *kept = back + t * 64;
            peer_hadamard(kept, 64, 64);
            for (size_t c = 0; c < 64; c++) {
                const float x = numbers[t * 64 + c];
                TEST_REQUIRE(fabsf(kept[c] / x - 1) < 0.003f, "token %zu, channel %zu: %g, not %g", t, c, (double)kept[c], (double)x);
            }
        }
    }
}
END_TEST

START_TEST(odd_rows)
{
    enum { MOST = 128 * 80 };
    static float rows[MOST], back[MOST];
    static const uint32_t dims[] = { 1, 7, 16, 40, 80 };
    for (size_t p = 0; peer_at(p) != NULL; p++)
        for (size_t d = 0; d < 5; d++)
            for (unsigned kind = 0; kind < 5; kind++)
                for (int side = 0; side < 2; side++) {
                    const peer_format *peer = peer_at(p);
                    const uint32_t dim = dims[d];
                    for (size_t i = 0; i < (size_t)128 * dim; i++)
                        rows[i] = kind == 0             ? 0
                                  : kind == 1           ? 3e38f
                                  : kind == 2           ? 1e-40f
                                  : kind == 3 && i == 3 ? NAN
                                  : kind == 4 && i == 3 ? INFINITY
                                                        : 1;
                    error_text error = { "" };
                    ck_assert_msg(peer_store(peer, side ? KVT_V : KVT_K, 64, rows, 128, dim, back, &error) == 0, "%s: %s", peer->name, error.text);
                    for (size_t i = 0; kind == 0 && i < (size_t)128 * dim; i++)
                        ck_assert(fabsf(back[i]) == 0);
                    ck_assert(peer_bits(peer, KVT_K, dim) >= 3);
                }
    ck_assert_ptr_null(peer_find("q9"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peers");
    TCase *tcase = tcase_create("peers");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, normal_numbers);
    tcase_add_test(tcase, structure);
    tcase_add_test(tcase, by_hand);
    tcase_add_test(tcase, normal_levels);
    tcase_add_test(tcase, kvarn_evens_out);
    tcase_add_test(tcase, odd_rows);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
