/* SPDX-License-Identifier: MIT */
/* Frequencies of RoPE's kinds against those of transformers 5.24, and turned rows against double precision. */
#include "support.h"

#include <kvtile/cache.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of pairs 0, 1, n / 4, n / 3, n / 2, 2 n / 3 and n - 1, as float32: transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS on these parameters. */
static const struct kind {
    const char *name;
    kvt_rope_parameters p;
    double expected[7];
} KINDS[] = {
    { "linear", /* factor 8 */
      { .kind = KVT_ROPE_LINEAR, .dim = 128, .base = 10000, .factor = 8 },
      { 1.250000000e-01, 1.082455441e-01, 1.250000019e-02, 6.087094080e-03, 1.249999972e-03, 2.964217274e-04, 1.443477413e-05 } },
    { "dynamic, at its original length", /* which is plain */
      { .kind = KVT_ROPE_NTK, .dim = 128, .base = 10000, .factor = 2 * 2048 / 2048.0 - 1 },
      { 1.000000000e+00, 8.659643531e-01, 1.000000015e-01, 4.869675264e-02, 9.999999776e-03, 2.371373819e-03, 1.154781930e-04 } },
    { "yarn",
      { .kind = KVT_ROPE_YARN, .dim = 128, .base = 1e6, .factor = 4, .original_length = 32768 },
      { 1.000000000e+00, 8.058422208e-01, 3.162277862e-02, 1.074607857e-02, 6.029411452e-04, 2.886954826e-05, 3.102344408e-07 } },
    { "yarn of DeepSeek",
      { .kind = KVT_ROPE_YARN, .dim = 64, .base = 10000, .factor = 40, .original_length = 4096, .beta_fast = 32, .beta_slow = 1 },
      { 1.000000000e+00, 7.498942018e-01, 1.000000015e-01, 5.623412877e-02, 5.500000436e-03, 4.149904125e-04, 3.333803534e-06 } },
    { "yarn of gpt-oss",
      { .kind = KVT_ROPE_YARN, .dim = 64, .base = 150000, .factor = 32, .original_length = 4096, .is_exact = 1 },
      { 1.000000000e+00, 6.890442967e-01, 5.081327260e-02, 1.933499984e-02, 4.564839182e-04, 1.253256960e-05, 3.023511397e-07 } },
    { "llama3",
      { .kind = KVT_ROPE_LLAMA3, .dim = 128, .base = 500000, .factor = 8, .original_length = 8192 },
      { 1.000000000e+00, 8.146172166e-01, 3.760603070e-02, 1.349041983e-02, 5.248460220e-04, 2.274892904e-05, 3.068925878e-07 } },
    { "longrope, short factors",
      { .kind = KVT_ROPE_LONGROPE, .dim = 96, .base = 10000 },
      { 1.000000000e+00, 7.503674030e-01, 4.545454681e-02, 1.785226353e-02, 2.941176528e-03, 5.129605997e-04, 2.125486935e-05 } },
    { "proportional",
      { .kind = KVT_ROPE_PROPORTIONAL, .dim = 512, .base = 1e6, .share = 0.25 },
      { 1.000000000e+00, 9.474635124e-01, 0, 0, 0, 0, 0 } },
};

START_TEST(kinds)
{
    const struct kind *k = &KINDS[_i];
    kvt_rope_parameters p = k->p;
    double factors[KVT_MAX_DIM / 2], frequencies[KVT_MAX_DIM / 2];
    for (int i = 0; i < KVT_MAX_DIM / 2; i++)
        factors[i] = 1 + 0.1 * i;
    p.size = sizeof p;
    p.factors = factors;
    ck_assert_int_eq(kvt_rope_fill(&p, frequencies), KVT_OK);
    const uint32_t n = p.dim / 2, at[] = { 0, 1, n / 4, n / 3, n / 2, 2 * n / 3, n - 1 };
    for (int i = 0; i < 7; i++)
        TEST_REQUIRE(fabs(frequencies[at[i]] - k->expected[i]) <= 1e-6 * k->expected[i], "%s: pair %u has %.9e, not %.9e", k->name, at[i],
                     frequencies[at[i]], k->expected[i]);
}
END_TEST

/* NTK by what it is for: the slowest pair is stretched by the factor, the fastest not at all. */
START_TEST(ntk)
{
    double plain[64], stretched[64];
    kvt_rope_parameters p = { .size = sizeof p, .dim = 128, .base = 10000 };
    ck_assert_int_eq(kvt_rope_fill(&p, plain), KVT_OK);
    for (uint32_t i = 0; i < 64; i++)
        ck_assert_double_eq_tol(plain[i], pow(10000, -2.0 * i / 128), 1e-14);
    p.kind = KVT_ROPE_NTK;
    p.factor = 4;
    ck_assert_int_eq(kvt_rope_fill(&p, stretched), KVT_OK);
    ck_assert_double_eq_tol(stretched[0], 1, 1e-14);
    ck_assert_double_eq_tol(stretched[63] * 4, plain[63], 1e-16);
}
END_TEST

START_TEST(refused_parameters)
{
    double frequencies[KVT_MAX_DIM / 2];
    const kvt_rope_parameters good = { .size = sizeof good, .kind = KVT_ROPE_YARN, .dim = 64, .base = 10000, .factor = 4, .original_length = 4096 };
    ck_assert_int_eq(kvt_rope_fill(&good, frequencies), KVT_OK);
    ck_assert_int_eq(kvt_rope_fill(NULL, frequencies), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_rope_fill(&good, NULL), KVT_ERR_NULL);
#define REFUSED(status, ...)                                                                                                                         \
    do {                                                                                                                                             \
        kvt_rope_parameters p = good;                                                                                                                \
        __VA_ARGS__;                                                                                                                                 \
        ck_assert_int_eq(kvt_rope_fill(&p, frequencies), status);                                                                                    \
    } while (0)
    REFUSED(KVT_ERR_STRUCT_SIZE, p.size = 1);
    REFUSED(KVT_ERR_DIM, p.dim = 0);
    REFUSED(KVT_ERR_DIM, p.dim = 63);
    REFUSED(KVT_ERR_DIM, p.dim = KVT_MAX_DIM + 2);
    REFUSED(KVT_ERR_OPTIONS, p.kind = (kvt_rope_kind)7);
    REFUSED(KVT_ERR_NUMBER, p.base = 0);
    REFUSED(KVT_ERR_NUMBER, p.base = (double)NAN);
    REFUSED(KVT_ERR_NUMBER, p.factor = 0);
    REFUSED(KVT_ERR_NUMBER, p.original_length = 0);
    REFUSED(KVT_ERR_NUMBER, p.kind = KVT_ROPE_PROPORTIONAL; p.share = 1.5);
    REFUSED(KVT_ERR_NULL, p.kind = KVT_ROPE_LONGROPE);
    double factors[32] = { 0 };
    REFUSED(KVT_ERR_NUMBER, p.kind = KVT_ROPE_LONGROPE; p.factors = factors);
}
END_TEST

enum { DIM = 40, ROWS = 3, STRIDE = DIM + 4 };

START_TEST(turned_rows)
{
    uint64_t state = (uint64_t)_i + 1;
    double frequencies[12];
    for (int i = 0; i < 12; i++)
        frequencies[i] = i == 5 ? 0 : test_uniform(&state) * 2 - 0.5;
    const kvt_rope rope = {
        .size = sizeof rope, .frequencies = frequencies, .pairs = 12, .first = (uint32_t)(_i % 3) * 8, .interleaved = (uint32_t)_i % 2
    };
    static const int64_t positions[] = { 0, 1, -1, 64, -4096, 1000003, -(INT64_C(1) << 31) };
    for (size_t n = 0; n < sizeof positions / sizeof *positions; n++) {
        float rows[ROWS * STRIDE], turned[ROWS * STRIDE];
        for (int i = 0; i < ROWS * STRIDE; i++)
            turned[i] = rows[i] = (float)test_normal(&state);
        ck_assert_int_eq(kvt_rope_turn(&rope, positions[n], turned, ROWS, STRIDE * sizeof *rows), KVT_OK);
        for (int t = 0; t < ROWS; t++) {
            double expected[STRIDE];
            for (int c = 0; c < STRIDE; c++)
                expected[c] = (double)rows[t * STRIDE + c];
            for (uint32_t i = 0; i < rope.pairs; i++) {
                const uint32_t a = rope.first + (rope.interleaved ? 2 * i : i), b = rope.interleaved ? a + 1 : a + rope.pairs;
                const double angle = (double)positions[n] * frequencies[i], x = expected[a], y = expected[b];
                expected[a] = x * cos(angle) - y * sin(angle);
                expected[b] = x * sin(angle) + y * cos(angle);
            }
            for (int c = 0; c < STRIDE; c++)
                TEST_REQUIRE(fabs((double)turned[t * STRIDE + c] - expected[c]) < 2e-6, "row %d, channel %d: %.9g, not %.9g", t, c,
                             (double)turned[t * STRIDE + c], expected[c]);
        }
    }
}
END_TEST

/* Whatever flush-to-zero modes do. */
START_TEST(tiny_rows)
{
    const double frequency = 0.3;
    const kvt_rope rope = { .size = sizeof rope, .frequencies = &frequency, .pairs = 1 };
    float rows[2][6] = { { 1e-30f, 1e-39f, 1e-45f, 1, -1e-20f, 3e-39f }, { 0 } };
    memcpy(rows[1], rows[0], sizeof rows[0]);
    for (int i = 0; i < 2; i++) {
        test_flush_subnormals(i == 1);
        for (size_t at = 0; at < 6; at += 2)
            ck_assert_int_eq(kvt_rope_turn(&rope, 17, rows[i] + at, 1, 0), KVT_OK);
        test_flush_subnormals(false);
    }
    ck_assert_mem_eq(rows[0], rows[1], sizeof rows[0]);
}
END_TEST

START_TEST(refused_ropes)
{
    double frequencies[4] = { 1, 1, 1, 1 };
    float row[KVT_MAX_DIM] = { 0 };
    const kvt_rope good = { .size = sizeof good, .frequencies = frequencies, .pairs = 4 };
#undef REFUSED
#define REFUSED(status, change)                                                                                                                      \
    do {                                                                                                                                             \
        kvt_rope rope = good;                                                                                                                        \
        change;                                                                                                                                      \
        ck_assert_int_eq(kvt_rope_turn(&rope, 1, row, 1, 0), status);                                                                                \
    } while (0)
    REFUSED(KVT_OK, (void)0);
    REFUSED(KVT_ERR_STRUCT_SIZE, rope.size = 8);
    REFUSED(KVT_ERR_DIM, rope.pairs = 0);
    REFUSED(KVT_ERR_DIM, rope.first = KVT_MAX_DIM - 7);
    REFUSED(KVT_ERR_DIM, rope.interleaved = 2);
    REFUSED(KVT_ERR_NULL, rope.frequencies = NULL);
    REFUSED(KVT_ERR_NUMBER, frequencies[2] = (double)NAN);
    REFUSED(KVT_ERR_NUMBER, frequencies[2] = 17);
    frequencies[2] = 1;
    ck_assert_int_eq(kvt_rope_turn(&good, 1, NULL, 1, 0), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_rope_turn(NULL, 1, row, 1, 0), KVT_ERR_NULL);
}
END_TEST

/* Turned rows have the same bits on every CPU. */
START_TEST(golden)
{
    double frequencies[32];
    const kvt_rope_parameters p = { .size = sizeof p, .kind = KVT_ROPE_LLAMA3, .dim = 64, .base = 500000, .factor = 8, .original_length = 8192 };
    ck_assert_int_eq(kvt_rope_fill(&p, frequencies), KVT_OK);
    const kvt_rope rope = { .size = sizeof rope, .frequencies = frequencies, .pairs = 32 };
    uint64_t state = 1, hash = 0xcbf29ce484222325;
    for (int t = 0; t < 64; t++) {
        float row[64];
        for (int c = 0; c < 64; c++)
            row[c] = (float)test_normal(&state);
        ck_assert_int_eq(kvt_rope_turn(&rope, 97 * t - 2000, row, 1, 0), KVT_OK);
        for (size_t i = 0; i < sizeof row; i++)
            hash = (hash ^ ((const unsigned char *)row)[i]) * 0x100000001b3;
    }
    ck_assert_uint_eq(hash, UINT64_C(1206224188833141537));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rope");
    TCase *tcase = tcase_create("rope");
    tcase_add_loop_test(tcase, kinds, 0, sizeof KINDS / sizeof *KINDS);
    tcase_add_test(tcase, ntk);
    tcase_add_test(tcase, refused_parameters);
    tcase_add_loop_test(tcase, turned_rows, 0, 6);
    tcase_add_test(tcase, tiny_rows);
    tcase_add_test(tcase, refused_ropes);
    tcase_add_test(tcase, golden);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
