/* SPDX-License-Identifier: MIT */
/* What several tests share: tiers, random numbers, rows worth testing, memory between guard pages, and running Check. */
#ifndef KVT_TESTS_SUPPORT_H
#define KVT_TESTS_SUPPORT_H

#include "oracle.h"

#include <check.h>

/* Like ck_assert_msg, but free when it holds: Check writes a record of every assertion, which is slow in inner loops. */
#define TEST_REQUIRE(condition, ...)                                                                                                                 \
    do {                                                                                                                                             \
        if (!(condition))                                                                                                                            \
            ck_abort_msg(__VA_ARGS__);                                                                                                               \
    } while (0)

/* ---- tiers ----------------------------------------------------------------------------------------------------------------------- */

typedef struct test_tier {
    const char *name;
    uint32_t mask; /* that tier and all that it inherits from */
} test_tier;

/* The usable tiers, lowest first; returns their number, at least 1. With KVT_TEST_TIER=name in the environment that one alone, as under emulation,
 * where time is short. */
size_t test_tiers(test_tier tiers[32]);

/* One KV head, all tiers, no options. */
kvt_spec test_spec(kvt_scheme k_scheme, kvt_scheme v_scheme, uint32_t k_dim, uint32_t v_dim);

/* kvt_layout_init that must succeed. */
kvt_layout test_layout(kvt_scheme k_scheme, kvt_scheme v_scheme, uint32_t k_dim, uint32_t v_dim, uint32_t kv_heads, uint32_t tiers);

/* Makes no assertion: main functions need it, where Check allows none. */
size_t test_scheme_count(void);

/* ---- random numbers -------------------------------------------------------------------------------------------------------------- */

uint64_t test_random(uint64_t *state); /* splitmix64 */
uint32_t test_below(uint64_t *state, uint32_t n);
double test_uniform(uint64_t *state); /* 0 <= x < 1, a multiple of 2^-53 */
double test_normal(uint64_t *state);  /* about normal: a sum of twelve, so no libm */
uint32_t test_bits(double value);     /* rounded to binary32 */
void test_fill(uint64_t *state, void *memory, size_t bytes);

/* ---- rows ------------------------------------------------------------------------------------------------------------------------ */

/* Kinds of rows: zeros, subnormals, largest numbers, NaN, infinities, ties, thresholds, random bits ... */
#define TEST_PATTERNS 20

/* One row of binary32 numbers. */
void test_row(unsigned pattern, uint64_t *state, uint32_t dim, uint32_t *x);

/* n rows of any dtype; row i has pattern (pattern + i) % TEST_PATTERNS. */
void test_rows(unsigned pattern, uint64_t *state, size_t n, uint32_t dim, unsigned char *rows, kvt_dtype dtype, ptrdiff_t row_stride);

/* ---- comparing ------------------------------------------------------------------------------------------------------------------- */

/* The first byte that differs; `bytes` when none does. */
size_t test_difference(const void *a, const void *b, size_t bytes);

/* ---- memory ---------------------------------------------------------------------------------------------------------------------- */

/* Memory with inaccessible pages on both sides. */
typedef struct test_arena {
    unsigned char *base;
    size_t bytes; /* a multiple of the machine's page size */
} test_arena;

test_arena test_arena_make(size_t bytes);

void test_arena_free(const test_arena *arena);

/* `bytes` at the very end of the arena, or at its very beginning. */
unsigned char *test_arena_flush(const test_arena *arena, size_t bytes, bool at_end);

void *test_malloc(size_t bytes);

/* A folder that the test made, with all that is in it. */
void test_remove_folder(const char *path);

/* ---- floating point -------------------------------------------------------------------------------------------------------------- */

/* Whether subnormal numbers count as zeros, in and out (FTZ and DAZ, FZ), as an engine may have it. Nothing on other machines. */
void test_flush_subnormals(bool flushes);

/* ---- data that are not in the tree ------------------------------------------------------------------------------------------------ */

/* The tag of test cases that need them. ctest runs these by themselves, as NAME_data, without forks (tests/CMakeLists.txt). */
#define TEST_NEEDS_DATA "data"

/* Ends the program as one that was skipped, and says why: where the file or folder is not there, or where only a share of the tests is run. */
void test_needs(const char *path);
#define test_needs_time()                                                                                                                            \
    do {                                                                                                                                             \
        if (KVT_TEST_SHARE > 1)                                                                                                                      \
            test_skip("takes too long where KVT_TEST_SHARE is more than 1");                                                                         \
    } while (0)
_Noreturn void test_skip(const char *why);

/* ---- running --------------------------------------------------------------------------------------------------------------------- */

int test_run(Suite *suite);

#endif
