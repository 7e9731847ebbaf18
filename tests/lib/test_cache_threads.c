/* SPDX-License-Identifier: MIT */
/* Calls for different sequences at the same time: appends, forks and frees on one pool of blocks, workers who move rows, and several who read a
 * sequence that nobody changes. Run it under ThreadSanitizer (preset tsan). */
#define _POSIX_C_SOURCE 200809L
#include "plain_cache.h"

#include <kvtile/saved.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { WRITERS = 4, READERS = 3, ROUNDS = 300 / KVT_TEST_SHARE + 20, DIM = 16, HEADS = 2, TOKENS = 300 };

static kvt_cache *cache;
static const kvt_view *view;
static size_t step_bytes;
static uint32_t shared; /* sequence that all read and fork */

static void *aligned(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* `fresh` tokens of a sequence, with rows by their names. False where there is no room. */
static bool append(uint32_t id, uint32_t fresh, uint64_t name, void *workspace)
{
    static _Thread_local uint16_t rows[2][TOKENS * HEADS * DIM];
    const kvt_status status = kvt_cache_append(cache, id, fresh);
    if (status) {
        ck_assert(status == KVT_ERR_FULL || status == KVT_ERR_RANGE);
        return false;
    }
    kvt_sequence entry;
    ck_assert_int_eq(kvt_cache_entry(cache, id, 0, &entry), KVT_OK);
    for (uint32_t t = 0; t < fresh; t++)
        for (uint32_t side = 0; side < 2; side++)
            for (uint32_t head = 0; head < HEADS; head++)
                plain_row(name + t, 0, 0, side, head, DIM, rows[side] + (t * HEADS + head) * DIM);
    const kvt_step step = { .size = sizeof step,
                            .view = view,
                            .sequences = &entry,
                            .n_sequences = 1,
                            .heads = HEADS,
                            .dtype = KVT_F16,
                            .out_dtype = KVT_F16,
                            .k = rows[0],
                            .v = rows[1],
                            .scale = 1,
                            .workspace = workspace,
                            .workspace_bytes = step_bytes };
    ck_assert_int_eq(kvt_step_append(&step, 0, 1), KVT_OK);
    ck_assert_int_eq(kvt_cache_commit(cache, id, fresh), KVT_OK);
    return true;
}

/* What the newest token's keys and values say, so that a row that somebody else wrote would be seen. */
static void read_rows(uint32_t id, size_t first, size_t n, float *rows)
{
    kvt_sequence entry;
    ck_assert_int_eq(kvt_cache_entry(cache, id, 0, &entry), KVT_OK);
    const kvt_view_rows asked = { .size = sizeof asked,
                                  .view = view,
                                  .sequence = &entry,
                                  .first_token = first,
                                  .n_tokens = n,
                                  .layers = 1,
                                  .rows = rows,
                                  .dtype = KVT_F32,
                                  .side_stride = (ptrdiff_t)(n * HEADS * DIM * 4),
                                  .token_stride = HEADS * DIM * 4,
                                  .head_stride = DIM * 4 };
    ck_assert_int_eq(kvt_view_read(&asked, 0, 1), KVT_OK);
}

static void *write_sequences(void *argument)
{
    const uint32_t writer = (uint32_t)(uintptr_t)argument;
    uint64_t state = writer + 1;
    void *workspace = aligned(step_bytes), *scratch = aligned(kvt_cache_work_bytes(cache));
    float *before = test_malloc(2 * TOKENS * HEADS * DIM * sizeof *before), *after = test_malloc(2 * TOKENS * HEADS * DIM * sizeof *after);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t id, fork;
        kvt_status status = test_below(&state, 2) ? kvt_cache_fork(cache, shared, &id) : kvt_cache_new(cache, &id);
        if (status) {
            ck_assert_int_eq(status, KVT_ERR_FULL);
            continue;
        }
        append(id, 1 + test_below(&state, 150), writer * 1000000 + (uint64_t)round * 1000, workspace);
        const size_t n = kvt_cache_tokens(cache, id);
        read_rows(id, 0, n, before);
        if (kvt_cache_fork(cache, id, &fork) == KVT_OK) {
            append(fork, 1 + test_below(&state, 90), 77, workspace);
            if (kvt_cache_remove(cache, fork, 0, kvt_cache_tokens(cache, fork) / 2, KVT_POSITIONS_CLOSE) == KVT_OK)
                ck_assert_int_eq(kvt_cache_work(cache, fork, 0, 1, scratch, kvt_cache_work_bytes(cache)), KVT_OK);
            ck_assert_int_eq(kvt_cache_free(cache, fork), KVT_OK);
        }
        read_rows(id, 0, n, after);
        ck_assert_mem_eq(before, after, 2 * n * HEADS * DIM * sizeof *after);
        ck_assert_int_eq(kvt_cache_free(cache, id), KVT_OK);
    }
    free(workspace), free(scratch), free(before), free(after);
    return NULL;
}

static int forget(void *context, const void *bytes, size_t n)
{
    (void)bytes;
    *(size_t *)context += n;
    return 0;
}

static void *read_shared(void *argument)
{
    const float *right = argument;
    float *rows = test_malloc(2 * TOKENS * HEADS * DIM * sizeof *rows);
    void *scratch = aligned(kvt_cache_work_bytes(cache));
    for (int round = 0; round < ROUNDS; round++) {
        const size_t n = kvt_cache_tokens(cache, shared);
        read_rows(shared, 0, n, rows);
        ck_assert_mem_eq(rows, right, 2 * n * HEADS * DIM * sizeof *rows);
        const kvt_save save = { .size = sizeof save };
        size_t bytes, written = 0;
        ck_assert_int_eq(kvt_cache_save_bytes(cache, shared, &save, &bytes), KVT_OK);
        ck_assert_int_eq(kvt_cache_save(cache, shared, &save, forget, &written, scratch, kvt_cache_work_bytes(cache)), KVT_OK);
        ck_assert_uint_eq(bytes, written);
    }
    free(rows), free(scratch);
    return NULL;
}

START_TEST(many_threads)
{
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = HEADS }, first;
    ck_assert_int_eq(kvt_preset_spec(KVT_PRESET_COMPACT, &spec, &first), KVT_OK);
    static const double frequencies[DIM / 2] = { 1, 0.5, 0.2, 0.1 };
    const kvt_rope rope = { .size = sizeof rope, .frequencies = frequencies, .pairs = DIM / 2 };
    const kvt_cache_group group = {
        .size = sizeof group, .spec = &spec, .first_spec = &first, .open_dtype = KVT_F16, .layers = 1, .blocks = 30, .rope = &rope
    };
    const kvt_cache_spec wanted = { .size = sizeof wanted, .groups = &group, .n_groups = 1, .sequences = 7, .tokens = TOKENS };
    size_t bytes;
    ck_assert_int_eq(kvt_cache_bytes(&wanted, &bytes), KVT_OK);
    void *memory = aligned(bytes);
    ck_assert_int_eq(kvt_cache_init(&wanted, memory, bytes, &cache), KVT_OK);
    view = kvt_cache_view(cache, 0);
    const kvt_step_limits limits = { 1, TOKENS, TOKENS, HEADS, 1 };
    ck_assert_int_eq(kvt_step_workspace(view, &limits, &step_bytes), KVT_OK);
    ck_assert_int_eq(kvt_cache_new(cache, &shared), KVT_OK);
    void *workspace = aligned(step_bytes);
    ck_assert(append(shared, 100, 5, workspace));
    float right[2 * 100 * HEADS * DIM];
    read_rows(shared, 0, 100, right);
    pthread_t threads[WRITERS + READERS];
    for (uint32_t i = 0; i < WRITERS + READERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, i < WRITERS ? write_sequences : read_shared, i < WRITERS ? (void *)(uintptr_t)i : right),
                         0);
    for (uint32_t i = 0; i < WRITERS + READERS; i++)
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    ck_assert_int_eq(kvt_cache_free(cache, shared), KVT_OK);
    kvt_cache_statistics st = { .size = sizeof st };
    ck_assert_int_eq(kvt_cache_measure(cache, 0, &st), KVT_OK);
    ck_assert(st.pages.free == st.pages.all && st.first_pages.free == st.first_pages.all && st.open_pages.free == st.open_pages.all);
    free(memory), free(workspace);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache_threads");
    TCase *tcase = tcase_create("cache_threads");
    tcase_set_timeout(tcase, 600);
    tcase_add_test(tcase, many_threads);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
