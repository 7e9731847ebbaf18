/* SPDX-License-Identifier: MIT */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

/* ---- tiers ----------------------------------------------------------------------------------------------------------------------- */

size_t test_tiers(test_tier tiers[32])
{
    const char *only = getenv("KVT_TEST_TIER");
    size_t n = 0;
    for (unsigned id = 0; id < 32; id++) {
        if ((kvt_tiers_usable() >> id & 1) == 0)
            continue;
        if (only != NULL && kvt_tier_name(id) != NULL && strcmp(only, kvt_tier_name(id)) != 0)
            continue;
        tiers[n].name = kvt_tier_name(id);
        ck_assert_msg(tiers[n].name != NULL, "tier %u is usable but has no name", id);
        ck_assert_int_eq(kvt_tiers_parse(tiers[n].name, &tiers[n].mask), KVT_OK);
        ck_assert_msg(tiers[n].mask >> id & 1, "the mask of %s lacks it", tiers[n].name);
        n++;
    }
    ck_assert_msg(n > 0, "no tier is usable%s%s", only != NULL ? ", or not KVT_TEST_TIER=" : "", only != NULL ? only : "");
    return n;
}

kvt_spec test_spec(kvt_scheme k_scheme, kvt_scheme v_scheme, uint32_t k_dim, uint32_t v_dim)
{
    return (kvt_spec){ .size = sizeof(kvt_spec), .k_scheme = k_scheme, .v_scheme = v_scheme, .k_dim = k_dim, .v_dim = v_dim, .kv_heads = 1 };
}

kvt_layout test_layout(kvt_scheme k_scheme, kvt_scheme v_scheme, uint32_t k_dim, uint32_t v_dim, uint32_t kv_heads, uint32_t tiers)
{
    kvt_spec spec = test_spec(k_scheme, v_scheme, k_dim, v_dim);
    spec.kv_heads = kv_heads;
    spec.tiers = tiers;
    kvt_layout layout;
    kvt_status status = kvt_layout_init(&layout, &spec);
    TEST_REQUIRE(status == KVT_OK, "schemes %d %d, dims %u %u, tiers %x: %s", (int)k_scheme, (int)v_scheme, k_dim, v_dim, tiers,
                 kvt_status_text(status));
    return layout;
}

size_t test_scheme_count(void)
{
    size_t n = 0;
    while (kvt_scheme_at(n) != NULL)
        n++;
    return n;
}

/* ---- random numbers -------------------------------------------------------------------------------------------------------------- */

uint64_t test_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint32_t test_below(uint64_t *state, uint32_t n)
{
    return (uint32_t)(test_random(state) >> 32) % n;
}

double test_uniform(uint64_t *state)
{
    return (double)(test_random(state) >> 11) * 0x1p-53;
}

double test_normal(uint64_t *state)
{
    /* Exact in double: multiples of 2^-20. */
    int64_t sum = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t r = test_random(state);
        sum += (int64_t)((r & 0xfffff) + (r >> 20 & 0xfffff) + (r >> 40 & 0xfffff));
    }
    return (double)sum * 0x1p-20 - 6;
}

uint32_t test_bits(double value)
{
    return oracle_round(oracle_f32, value);
}

void test_fill(uint64_t *state, void *memory, size_t bytes)
{
    unsigned char *p = memory;
    for (size_t i = 0; i < bytes; i += 8) {
        uint64_t r = test_random(state);
        memcpy(p + i, &r, bytes - i < 8 ? bytes - i : 8);
    }
}

/* ---- rows ------------------------------------------------------------------------------------------------------------------------ */

static uint32_t random_sign(uint64_t *state)
{
    return (uint32_t)(test_random(state) & 0x80000000);
}

static double power(int exponent)
{
    double value = 1;
    for (; exponent > 0; exponent--)
        value *= 2;
    for (; exponent < 0; exponent++)
        value /= 2;
    return value;
}

static int between(uint64_t *state, int low, int high)
{
    return low + (int)test_below(state, (uint32_t)(high - low + 1));
}

/* A number and its neighbours, up to `ulps` away. */
static uint32_t neighbour(uint64_t *state, double value, int ulps)
{
    return test_bits(value) + (uint32_t)between(state, -ulps, ulps);
}

static uint32_t any_nan(uint64_t *state)
{
    uint32_t payload = (uint32_t)test_random(state) & 0x7fffff;
    if (test_below(state, 3) == 0)
        payload &= 0xff; /* lost when narrowed */
    return random_sign(state) | 0x7f800000 | (payload == 0 ? 1 : payload);
}

/* Half way between two codes of the scheme `kind` (0 = q8_0, 1 = q4_0, 2 = e4m3) in a block or row whose largest magnitude is `largest`. */
static double half_way(uint64_t *state, int kind, double largest)
{
    switch (kind) {
    case 0:
        return (between(state, -127, 126) + 0.5) * (largest / 127);
    case 1:
        return (between(state, -8, 7) + 0.5) * (largest / 8);
    default: {
        uint32_t code = test_below(state, 0x7e);
        double middle = (oracle_value(oracle_e4m3, code) + oracle_value(oracle_e4m3, code + 1)) / 2;
        return (test_below(state, 2) ? middle : -middle) * (largest / 448);
    }
    }
}

static void ties(uint64_t *state, uint32_t dim, uint32_t *x, int kind, bool exact)
{
    static const double steps[3] = { 127, 8, 448 };
    double largest = exact ? steps[kind] * power(between(state, -12, 8)) : (1 + test_uniform(state)) * power(between(state, -10, 10));
    for (uint32_t c = 0; c < dim; c++)
        x[c] = neighbour(state, half_way(state, kind, largest), exact ? (int)test_below(state, 2) : 2);
    for (uint32_t c = test_below(state, 16); c < dim; c += 16) /* in every block */
        x[c] = test_bits(largest) | random_sign(state);
}

static void thresholds(uint64_t *state, uint32_t dim, uint32_t *x)
{
    static const double limits[] = { 0x1p-25 * 127, 0x1p-24 * 127, 65520.0 * 127, 65504.0 * 127, 0x1p-25 * 8, 65520.0 * 8, 0x1p-100,
                                     0x1p-126,      448,           464,           0x1p-14 * 127, 0x1p-14 * 8, 65520,       0x1.fffffep127 };
    const uint32_t n = sizeof limits / sizeof limits[0];
    bool one_for_all = test_below(state, 2);
    double limit = 0;
    for (uint32_t begin = 0; begin < dim; begin += 32) {
        uint32_t width = dim - begin < 32 ? dim - begin : 32;
        if (begin == 0 || !one_for_all)
            limit = limits[test_below(state, n)];
        for (uint32_t c = begin; c < begin + width; c++)
            x[c] = test_bits(limit * test_uniform(state)) | random_sign(state);
        uint32_t bits = neighbour(state, limit, 2);
        x[begin + test_below(state, width)] = (bits < 0x7f800000 ? bits : 0x7f7fffff) | random_sign(state);
    }
}

void test_row(unsigned pattern, uint64_t *state, uint32_t dim, uint32_t *x)
{
    /* Most patterns set single elements in a normal row. */
    for (uint32_t c = 0; c < dim; c++)
        x[c] = test_bits(test_normal(state));
    uint32_t position = test_below(state, dim);
    switch (pattern) {
    case 0: /* random normal */
        break;
    case 1: /* zeros of both signs */
        for (uint32_t c = 0; c < dim; c++)
            x[c] = random_sign(state);
        break;
    case 2: /* subnormals */
        for (uint32_t c = 0; c < dim; c++)
            x[c] = (uint32_t)test_random(state) & 0x807fffff;
        break;
    case 3: /* subnormals among others */
        for (uint32_t c = position; c < dim; c += 3)
            x[c] = (uint32_t)test_random(state) & 0x807fffff;
        break;
    case 4: /* the largest numbers */
        for (uint32_t c = 0; c < dim; c++)
            x[c] = 0x7f7fffff | random_sign(state);
        break;
    case 5: /* a NaN */
        x[position] = any_nan(state);
        break;
    case 6: /* an infinity, sometimes with a NaN */
        x[position] = 0x7f800000 | random_sign(state);
        if (test_below(state, 2))
            x[test_below(state, dim)] = any_nan(state);
        break;
    case 7: /* nothing but NaN and infinities, or those and numbers below every threshold */
        for (uint32_t c = 0; c < dim; c++)
            x[c] = test_below(state, 2) ? any_nan(state) : 0x7f800000 | random_sign(state);
        if (test_below(state, 2))
            for (uint32_t c = 0; c < dim; c += 2)
                x[c] = test_bits(test_normal(state) * 0x1p-110);
        break;
    case 8: /* alternating */
        for (uint32_t c = 0; c < dim; c++)
            x[c] = c % 2 ? 0xbf8ccccd : 0x3f8ccccd;
        break;
    case 9:
        ties(state, dim, x, 0, true);
        break;
    case 10:
        ties(state, dim, x, 1, true);
        break;
    case 11:
        ties(state, dim, x, 2, true);
        break;
    case 12:
        ties(state, dim, x, 0, false);
        break;
    case 13:
        ties(state, dim, x, 1, false);
        break;
    case 14:
        ties(state, dim, x, 2, false);
        break;
    case 15: /* random bits */
        for (uint32_t c = 0; c < dim; c++)
            x[c] = (uint32_t)test_random(state);
        break;
    case 16: /* random bits without NaN and infinity */
        for (uint32_t c = 0; c < dim; c++) {
            x[c] = (uint32_t)test_random(state);
            if ((x[c] & 0x7f800000) == 0x7f800000)
                x[c] &= 0x807fffff;
        }
        break;
    case 17: /* one outlier */
        x[position] = test_bits(test_normal(state) * 3000);
        break;
    case 18: { /* the largest magnitude with both signs, in either order */
        uint32_t largest = test_bits(6.5 + test_uniform(state));
        for (uint32_t c = position % 8; c < dim; c += 1 + test_below(state, 16))
            x[c] = largest | random_sign(state);
        break;
    }
    default:
        thresholds(state, dim, x);
        break;
    }
}

void test_rows(unsigned pattern, uint64_t *state, size_t n, uint32_t dim, unsigned char *rows, kvt_dtype dtype, ptrdiff_t row_stride)
{
    size_t bytes = oracle_element_bytes(dtype);
    uint32_t x[KVT_MAX_DIM];
    for (size_t i = 0; i < n; i++) {
        unsigned p = (unsigned)((pattern + i) % TEST_PATTERNS);
        test_row(p, state, dim, x);
        for (uint32_t c = 0; c < dim; c++) {
            uint32_t bits = x[c];
            if (dtype != KVT_F32)
                bits = p == 15 ? bits >> 16 : oracle_narrow(oracle_row_format(dtype), bits);
            oracle_store(rows + (ptrdiff_t)i * row_stride + c * bytes, bytes, bits);
        }
    }
}

/* ---- comparing ------------------------------------------------------------------------------------------------------------------- */

size_t test_difference(const void *a, const void *b, size_t bytes)
{
    const unsigned char *p = a, *q = b;
    if (memcmp(p, q, bytes) == 0)
        return bytes;
    size_t i = 0;
    while (p[i] == q[i])
        i++;
    return i;
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------------- */

enum { GUARD_BYTES = 1 << 20 }; /* a multiple of every machine's page size */

test_arena test_arena_make(size_t bytes)
{
    const size_t guard = GUARD_BYTES;
    bytes = (bytes + guard - 1) / guard * guard;
#if defined(_WIN32)
    unsigned char *all = VirtualAlloc(NULL, bytes + 2 * guard, MEM_RESERVE, PAGE_NOACCESS);
    ck_assert_msg(all && VirtualAlloc(all + guard, bytes, MEM_COMMIT, PAGE_READWRITE), "VirtualAlloc of %zu bytes", bytes);
#else
    unsigned char *all = mmap(NULL, bytes + 2 * guard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_msg(all != MAP_FAILED, "mmap of %zu bytes", bytes);
    ck_assert_msg(mprotect(all + guard, bytes, PROT_READ | PROT_WRITE) == 0, "mprotect of %zu bytes", bytes);
#endif
    return (test_arena){ all + guard, bytes };
}

void test_arena_free(const test_arena *arena)
{
#if defined(_WIN32)
    if (arena->base)
        ck_assert(VirtualFree(arena->base - GUARD_BYTES, 0, MEM_RELEASE));
#else
    if (arena->base)
        ck_assert_int_eq(munmap(arena->base - GUARD_BYTES, arena->bytes + 2 * (size_t)GUARD_BYTES), 0);
#endif
}

unsigned char *test_arena_flush(const test_arena *arena, size_t bytes, bool at_end)
{
    TEST_REQUIRE(bytes <= arena->bytes, "the arena is too small");
    return at_end ? arena->base + (arena->bytes - bytes) : arena->base;
}

void *test_malloc(size_t bytes)
{
    void *memory = malloc(bytes);
    TEST_REQUIRE(memory != NULL, "malloc of %zu bytes", bytes);
    return memory;
}

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

void test_remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    TEST_REQUIRE(folder != NULL, "%s cannot be opened", path);
    for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char name[1024];
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        TEST_REQUIRE((size_t)snprintf(name, sizeof name, "%s/%s", path, entry->d_name) < sizeof name, "%s: too long a name", path);
        if (lstat(name, &status) == 0 && S_ISDIR(status.st_mode))
            test_remove_folder(name);
        else
            TEST_REQUIRE(unlink(name) == 0, "%s cannot be removed", name);
    }
    closedir(folder);
    TEST_REQUIRE(rmdir(path) == 0, "%s cannot be removed", path);
}

/* ---- floating point -------------------------------------------------------------------------------------------------------------- */

void test_flush_subnormals(bool flushes)
{
#if defined(__x86_64__)
    const unsigned bits = 0x8040; /* FTZ, DAZ */
    _mm_setcsr(flushes ? _mm_getcsr() | bits : _mm_getcsr() & ~bits);
#elif defined(__aarch64__)
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control));
    control = flushes ? control | 1U << 24 : control & ~(UINT64_C(1) << 24); /* FZ */
    __asm__ volatile("msr fpcr, %0" : : "r"(control));
#else
    (void)flushes;
#endif
}

/* ---- running --------------------------------------------------------------------------------------------------------------------- */

_Noreturn void test_skip(const char *why)
{
    printf("skipped: %s\n", why);
    exit(77);
}

void test_needs(const char *path)
{
    char why[1100];
    if (access(path, R_OK) == 0)
        return;
    snprintf(why, sizeof why, "%s is not there", path);
    test_skip(why);
}

int test_run(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
