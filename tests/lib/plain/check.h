/* SPDX-License-Identifier: MIT */
/* As much of Check's interface as the tests of bits need, for systems that have no Check: phones, Windows, cross compilers. Every test runs in this
 * process, one after the other, and the first that fails ends it. */
#ifndef KVT_TESTS_PLAIN_CHECK_H
#define KVT_TESTS_PLAIN_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct plain_test {
    const char *name;
    void (*run)(int i);
    int begin, end;
} plain_test;
typedef struct TCase {
    plain_test tests[128];
    int count;
} TCase;
typedef struct Suite {
    const char *name;
    TCase cases[8];
    int count;
} Suite;

#define START_TEST(test)                                                                                                                             \
    static void test##_run(int _i);                                                                                                                  \
    static const plain_test test = { #test, test##_run, 0, 1 };                                                                                      \
    static void test##_run(int _i)                                                                                                                   \
    {                                                                                                                                                \
        (void)_i;
#define END_TEST }

static inline Suite *suite_create(const char *name)
{
    static Suite suite;
    suite.name = name;
    return &suite;
}
static inline TCase *tcase_create(const char *name)
{
    static TCase cases[8];
    static int created;
    (void)name;
    if (created == 8)
        abort();
    return &cases[created++];
}
static inline void plain_add(TCase *tcase, plain_test test, int begin, int end)
{
    if (tcase->count == (int)(sizeof tcase->tests / sizeof *tcase->tests))
        abort();
    test.begin = begin;
    test.end = end;
    tcase->tests[tcase->count++] = test;
}
#define tcase_add_test(tcase, test)                  plain_add(tcase, test, 0, 1)
#define tcase_add_loop_test(tcase, test, begin, end) plain_add(tcase, test, begin, end)
#define tcase_set_timeout(tcase, seconds)            ((void)(tcase), (void)(seconds))
static inline void suite_add_tcase(Suite *suite, const TCase *tcase)
{
    if (suite->count == (int)(sizeof suite->cases / sizeof *suite->cases))
        abort();
    suite->cases[suite->count++] = *tcase;
}

typedef const Suite SRunner;
#define CK_NORMAL                     0
#define srunner_create(suite)         (suite)
#define srunner_free(runner)          ((void)(runner))
#define srunner_ntests_failed(runner) ((void)(runner), 0)
static inline void srunner_run_all(SRunner *suite, int verbosity)
{
    (void)verbosity;
    int run = 0;
    for (int c = 0; c < suite->count; c++)
        for (int t = 0; t < suite->cases[c].count; t++) {
            const plain_test *test = &suite->cases[c].tests[t];
            for (int i = test->begin; i < test->end; i++, run++)
                test->run(i);
        }
    printf("%s: %d tests passed\n", suite->name, run);
}

#define ck_abort_msg(...)                                                                                                                            \
    do {                                                                                                                                             \
        printf("%s:%d: ", __FILE__, __LINE__);                                                                                                       \
        printf(__VA_ARGS__);                                                                                                                         \
        printf("\n");                                                                                                                                \
        fflush(stdout);                                                                                                                              \
        exit(1);                                                                                                                                     \
    } while (0)
#define ck_assert_msg(condition, ...)                                                                                                                \
    do {                                                                                                                                             \
        if (!(condition))                                                                                                                            \
            ck_abort_msg(__VA_ARGS__);                                                                                                               \
    } while (0)
#define ck_assert(condition) ck_assert_msg(condition, "%s", #condition)
#define plain_compare(type, format, a, op, b)                                                                                                        \
    do {                                                                                                                                             \
        const type a_ = (type)(a), b_ = (type)(b);                                                                                                   \
        ck_assert_msg(a_ op b_, "%s is " format ", %s is " format, #a, a_, #b, b_);                                                                  \
    } while (0)
#define ck_assert_int_eq(a, b)  plain_compare(long long, "%lld", a, ==, b)
#define ck_assert_int_ne(a, b)  plain_compare(long long, "%lld", a, !=, b)
#define ck_assert_uint_eq(a, b) plain_compare(unsigned long long, "%llu", a, ==, b)
#define ck_assert_uint_ne(a, b) plain_compare(unsigned long long, "%llu", a, !=, b)
#define ck_assert_uint_lt(a, b) plain_compare(unsigned long long, "%llu", a, <, b)
#define ck_assert_uint_le(a, b) plain_compare(unsigned long long, "%llu", a, <=, b)
#define ck_assert_uint_gt(a, b) plain_compare(unsigned long long, "%llu", a, >, b)
#define ck_assert_uint_ge(a, b) plain_compare(unsigned long long, "%llu", a, >=, b)
#define ck_assert_double_eq_tol(a, b, tolerance)                                                                                                     \
    do {                                                                                                                                             \
        const double a_ = (a), b_ = (b);                                                                                                             \
        ck_assert_msg(a_ - b_ < (tolerance) && b_ - a_ < (tolerance), "%s is %.17g, %s is %.17g", #a, a_, #b, b_);                                   \
    } while (0)
#define ck_assert_ptr_eq(a, b)        ck_assert((const void *)(a) == (const void *)(b))
#define ck_assert_ptr_null(a)         ck_assert((a) == NULL)
#define ck_assert_ptr_nonnull(a)      ck_assert((a) != NULL)
#define ck_assert_str_eq(a, b)        ck_assert(strcmp(a, b) == 0)
#define ck_assert_str_ne(a, b)        ck_assert(strcmp(a, b) != 0)
#define ck_assert_mem_eq(a, b, bytes) ck_assert(memcmp(a, b, bytes) == 0)

#endif
