/* SPDX-License-Identifier: MIT */
/* Many threads: the first use of the library at once, and writes and reads of different pages at once. */
#define _POSIX_C_SOURCE 200809L /* pthread_barrier_t */

#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 8, PAGES = 24, TOKENS = PAGES * 64, K_DIM = 96, V_DIM = 80 };

typedef struct job {
    unsigned index;
    const char *failure;
    uint32_t usable;
    const char *feature;
    unsigned char *memory;
    const unsigned char *rows;
    unsigned char *back;
} job;

/* Nobody starts before everybody is here. */
static pthread_barrier_t start;

static void run(void *(*body)(void *), job jobs[THREADS])
{
    pthread_t threads[THREADS];
    ck_assert_int_eq(pthread_barrier_init(&start, NULL, THREADS), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        jobs[i].index = i;
        ck_assert_int_eq(pthread_create(&threads[i], NULL, body, &jobs[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    pthread_barrier_destroy(&start);
    for (unsigned i = 0; i < THREADS; i++)
        ck_assert_msg(jobs[i].failure == NULL, "thread %u: %s", i, jobs[i].failure);
}

static kvt_status make_layout(kvt_layout *layout, kvt_scheme scheme)
{
    kvt_spec spec = { .size = sizeof spec, .k_scheme = scheme, .v_scheme = scheme, .k_dim = K_DIM, .v_dim = V_DIM, .kv_heads = 1 };
    return kvt_layout_init(layout, &spec);
}

/* Check's process has not called the library before: each thread begins with another function. */
static void *first_use(void *argument)
{
    job *j = argument;
    kvt_layout layout;
    uint32_t mask = 0;
    pthread_barrier_wait(&start);
    switch (j->index % 4) {
    case 0:
        break;
    case 1:
        if (kvt_tiers_parse("scalar", &mask) != KVT_OK)
            j->failure = "kvt_tiers_parse";
        break;
    case 2:
        if (kvt_scheme_tier(KVT_SCHEME_q4_0, 0) == NULL)
            j->failure = "kvt_scheme_tier";
        break;
    default:
        if (make_layout(&layout, KVT_SCHEME_q8_0) != KVT_OK)
            j->failure = "kvt_layout_init";
        break;
    }
    j->usable = kvt_tiers_usable();
    j->feature = kvt_cpu_feature(0);
    return NULL;
}

START_TEST(first_use_at_once)
{
    job jobs[THREADS];
    memset(jobs, 0, sizeof jobs);
    run(first_use, jobs);
    for (unsigned i = 1; i < THREADS; i++) {
        ck_assert_uint_eq(jobs[i].usable, jobs[0].usable);
        ck_assert_ptr_eq(jobs[i].feature, jobs[0].feature);
    }
    ck_assert_uint_eq(jobs[0].usable, kvt_tiers_usable());
}
END_TEST

static kvt_scheme current;

/* Pages index, index + THREADS ... of both sides, written and read back by one thread. */
static const char *work(const job *j, unsigned begin, unsigned step)
{
    kvt_layout layout;
    if (make_layout(&layout, current) != KVT_OK)
        return "kvt_layout_init";
    kvt_pages pages = { .base = j->memory, .stride = layout.page_bytes, .count = PAGES };
    for (size_t p = begin; p < PAGES; p += step) {
        const size_t k_bytes = K_DIM * 4, v_bytes = V_DIM * 4;
        if (kvt_write(&layout, KVT_K, &pages, p * 64, 64, j->rows + p * 64 * k_bytes, KVT_F32, (ptrdiff_t)k_bytes) != KVT_OK ||
            kvt_write(&layout, KVT_V, &pages, p * 64, 64, j->rows + p * 64 * v_bytes, KVT_F32, (ptrdiff_t)v_bytes) != KVT_OK)
            return "kvt_write";
        if (kvt_read(&layout, KVT_K, &pages, p * 64, 64, j->back + p * 64 * k_bytes, KVT_F32, (ptrdiff_t)k_bytes) != KVT_OK)
            return "kvt_read";
    }
    return NULL;
}

static void *write_pages(void *argument)
{
    job *j = argument;
    pthread_barrier_wait(&start);
    j->failure = work(j, j->index, THREADS);
    return NULL;
}

START_TEST(pages_at_once)
{
    current = kvt_scheme_at((size_t)_i)->scheme;
    kvt_layout layout;
    ck_assert_int_eq(make_layout(&layout, current), KVT_OK);
    const size_t bytes = PAGES * layout.page_bytes, row_bytes = (size_t)TOKENS * K_DIM * 4;
    unsigned char *alone = test_malloc(bytes), *together = test_malloc(bytes);
    unsigned char *rows = test_malloc(row_bytes), *back_alone = test_malloc(row_bytes), *back_together = test_malloc(row_bytes);
    uint64_t state = 9;
    memset(alone, 0, bytes);
    memset(together, 0xff, bytes);
    test_rows(0, &state, TOKENS, K_DIM, rows, KVT_F32, K_DIM * 4);
    job single = { .memory = alone, .rows = rows, .back = back_alone };
    ck_assert_ptr_null(work(&single, 0, 1));
    job jobs[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        jobs[i] = (job){ .memory = together, .rows = rows, .back = back_together };
    run(write_pages, jobs);
    ck_assert_uint_eq(test_difference(alone, together, bytes), bytes);
    ck_assert_uint_eq(test_difference(back_alone, back_together, row_bytes), row_bytes);
    free(alone);
    free(together);
    free(rows);
    free(back_alone);
    free(back_together);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("threads");
    TCase *tcase = tcase_create("threads");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, first_use_at_once);
    tcase_add_loop_test(tcase, pages_at_once, 0, (int)test_scheme_count());
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
