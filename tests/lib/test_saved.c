/* SPDX-License-Identifier: MIT */
/* Saved sequences: every bit of them counts, specs go through bytes, what lies in memory is attended to as it was in the cache, and the bytes are the
 * same on every CPU. */
#define _POSIX_C_SOURCE 200809L
#include "cache_home.h"
#include "plain_cache.h"

#include <kvtile/saved.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2, LAYERS = 2, DIM = 16, MOST_TOKENS = 4096 };

typedef home_tape tape;

/* ---- a cache with one sequence ---- */

typedef struct home {
    cache_home in;
    void *workspace;
    size_t workspace_bytes;
} home;

static const double FREQUENCIES[DIM / 2] = { 1, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003 };

static void open_home(home *h, size_t tokens)
{
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = HEADS };
    const kvt_rope rope = { .size = sizeof rope, .frequencies = FREQUENCIES, .pairs = DIM / 2 };
    kvt_cache_group group = { .open_dtype = KVT_F16, .layers = LAYERS, .blocks = 2 * MOST_TOKENS / 64, .rope = &rope };
    home_open(&h->in, KVT_PRESET_BALANCED, &spec, &group,
              &(kvt_cache_spec){ .sequences = 2, .tokens = MOST_TOKENS, .state_bytes = 40, .state_marks = 1 });
    const kvt_step_limits limits = { 1, MOST_TOKENS, MOST_TOKENS, 2 * HEADS, 1 };
    ck_assert_int_eq(kvt_step_workspace(kvt_cache_view(h->in.cache, 0), &limits, &h->workspace_bytes), KVT_OK);
    h->workspace = aligned_alloc(64, (h->workspace_bytes + 63) / 64 * 64);
    if (!tokens)
        return;
    ck_assert_int_eq(kvt_cache_append(h->in.cache, h->in.id, (uint32_t)tokens), KVT_OK);
    kvt_sequence entry;
    ck_assert_int_eq(kvt_cache_entry(h->in.cache, h->in.id, 0, &entry), KVT_OK);
    uint16_t *rows[2] = { test_malloc(tokens * HEADS * DIM * 2), test_malloc(tokens * HEADS * DIM * 2) };
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (size_t t = 0; t < tokens; t++)
            for (uint32_t side = 0; side < 2; side++)
                for (uint32_t head = 0; head < HEADS; head++)
                    plain_row(t, 0, layer, side, head, DIM, rows[side] + (t * HEADS + head) * DIM);
        const kvt_step step = { .size = sizeof step,
                                .view = kvt_cache_view(h->in.cache, 0),
                                .layer = layer,
                                .sequences = &entry,
                                .n_sequences = 1,
                                .heads = 2 * HEADS,
                                .dtype = KVT_F16,
                                .out_dtype = KVT_F32,
                                .k = rows[0],
                                .v = rows[1],
                                .scale = 0.25f,
                                .workspace = h->workspace,
                                .workspace_bytes = h->workspace_bytes };
        ck_assert_int_eq(kvt_step_append(&step, 0, 1), KVT_OK);
    }
    free(rows[0]), free(rows[1]);
    memset(kvt_cache_state(h->in.cache, h->in.id), 0x5c, 40);
    ck_assert_int_eq(kvt_cache_commit(h->in.cache, h->in.id, (uint32_t)tokens), KVT_OK);
}

static void close_home(home *h)
{
    home_close(&h->in);
    free(h->workspace);
}

static tape save_home(const home *h)
{
    const size_t tokens = kvt_cache_tokens(h->in.cache, h->in.id);
    uint32_t *ids = test_malloc(tokens * sizeof *ids + 1);
    for (size_t t = 0; t < tokens; t++)
        ids[t] = (uint32_t)(t * 7 + 3);
    const tape to = home_save(&h->in, 99, ids);
    free(ids);
    return to;
}

/* ---- damage ---- */

/* Whether opening or loading finds that something is wrong; nothing of the cache changes then. */
static bool is_refused(home *h, tape *from)
{
    kvt_saved saved;
    char why[300];
    if (kvt_saved_open(from->bytes, from->size, &saved, why, sizeof why) != KVT_OK)
        return why[0] != '\0';
    from->at = saved.head_bytes;
    const kvt_status verified = kvt_saved_verify(&saved, from->size, why, sizeof why);
    const kvt_status status = kvt_cache_load(h->in.cache, h->in.id, &saved, 99, home_read, from);
    ck_assert(status != KVT_OK || verified == KVT_OK);
    ck_assert_uint_eq(kvt_cache_tokens(h->in.cache, h->in.id), status ? 0 : saved.end);
    return status != KVT_OK;
}

START_TEST(every_bit_counts)
{
    home from, to;
    open_home(&from, 70);
    open_home(&to, 0);
    tape small = save_home(&from);
    for (size_t bit = 0; bit < small.size * 8; bit += KVT_TEST_SHARE) {
        small.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        TEST_REQUIRE(is_refused(&to, &small), "bit %zu of %zu does not count", bit, small.size * 8);
        small.bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    ck_assert(!is_refused(&to, &small));
    printf("%zu bits\n", small.size * 8);
    free(small.bytes);
    close_home(&from), close_home(&to);
}
END_TEST

START_TEST(bits_of_a_large_file)
{
    home from, to;
    open_home(&from, 2000);
    open_home(&to, 0);
    tape large = save_home(&from);
    kvt_saved saved;
    ck_assert_int_eq(kvt_saved_open(large.bytes, large.size, &saved, NULL, 0), KVT_OK);
    uint64_t state = 5;
    /* Records by themselves: checking them all for each bit would take hours. */
    for (int i = 0; i < 100000 / KVT_TEST_SHARE; i++) {
        const size_t bit = (size_t)(test_random(&state) % (large.size * 8)), at = bit / 8;
        large.bytes[at] ^= (unsigned char)(1u << bit % 8);
        if (at < saved.head_bytes) {
            kvt_saved damaged;
            TEST_REQUIRE(kvt_saved_open(large.bytes, large.size, &damaged, NULL, 0) != KVT_OK, "bit %zu of the head", bit);
        } else if (i % 100 == 0) {
            TEST_REQUIRE(is_refused(&to, &large), "bit %zu", bit);
        } else {
            TEST_REQUIRE(kvt_saved_verify(&saved, large.size, NULL, 0) == KVT_ERR_DATA, "bit %zu", bit);
        }
        large.bytes[at] ^= (unsigned char)(1u << bit % 8);
    }
    ck_assert(!is_refused(&to, &large));
    free(large.bytes);
    close_home(&from), close_home(&to);
}
END_TEST

START_TEST(every_length)
{
    home from, to;
    open_home(&from, 70);
    open_home(&to, 0);
    tape small = save_home(&from);
    const size_t whole = small.size;
    for (small.size = 0; small.size < whole; small.size += KVT_TEST_SHARE)
        TEST_REQUIRE(is_refused(&to, &small), "%zu of %zu bytes", small.size, whole);
    free(small.bytes);
    close_home(&from), close_home(&to);
}
END_TEST

/* Heads whose fields are anything, with checksums that are right: no crash, and nothing that is out of bounds. */
static uint64_t hash64(const unsigned char *bytes, size_t n);

START_TEST(any_head)
{
    home from, to;
    open_home(&from, 70);
    open_home(&to, 0);
    const tape small = save_home(&from);
    kvt_saved saved;
    ck_assert_int_eq(kvt_saved_open(small.bytes, small.size, &saved, NULL, 0), KVT_OK);
    tape copy = { .bytes = aligned_alloc(64, (small.size + 63) / 64 * 64), .size = small.size };
    uint64_t state = 11;
    size_t accepted = 0;
    for (int i = 0; i < 200000 / KVT_TEST_SHARE; i++) {
        memcpy(copy.bytes, small.bytes, small.size);
        for (uint32_t n = 1 + test_below(&state, 2); n; n--) {
            const size_t word = test_below(&state, (uint32_t)saved.head_bytes / 4) * 4;
            const uint32_t values[] = { 0, 1, 2, 63, 64, 0x7fffffff, 0xffffffff, (uint32_t)test_random(&state) };
            memcpy(copy.bytes + word, &values[test_below(&state, 8)], 4);
        }
        for (int at = 0; at < 2; at++) { /* specs */
            const uint64_t sum = hash64(copy.bytes + 128 + 128 * at, 120);
            memcpy(copy.bytes + 128 + 128 * at + 120, &sum, 8);
        }
        const uint64_t header = hash64(copy.bytes, 120);
        memcpy(copy.bytes + 120, &header, 8);
        const uint64_t head = hash64(copy.bytes, saved.head_bytes - 8);
        memcpy(copy.bytes + saved.head_bytes - 8, &head, 8);
        accepted += !is_refused(&to, &copy);
        if (kvt_cache_tokens(to.in.cache, to.in.id))
            ck_assert_int_eq(kvt_cache_truncate(to.in.cache, to.in.id, 0), KVT_OK);
    }
    printf("%zu heads were accepted\n", accepted);
    free(copy.bytes), free(small.bytes);
    close_home(&from), close_home(&to);
}
END_TEST

/* ---- attention where it lies ---- */

/* All layers' results of the newest token, asked for again. */
static void attend(const kvt_view *view, kvt_sequence entry, void *workspace, size_t bytes, float out[LAYERS][2 * HEADS * DIM])
{
    uint16_t q[2 * HEADS * DIM];
    entry.stored--;
    entry.fresh = 1;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        for (uint32_t head = 0; head < 2 * HEADS; head++)
            plain_row(123456, 1, layer, 0, head, DIM, q + head * DIM);
        const kvt_step step = home_question(view, layer, &entry, 2 * HEADS, q, out[layer], workspace, bytes);
        char why[300] = "";
        const kvt_status status = kvt_step_problem(&step, why, sizeof why);
        TEST_REQUIRE(status == KVT_OK, "%s", why);
        ck_assert_int_eq(kvt_step_attend(&step, 0, 1), KVT_OK);
        ck_assert_int_eq(kvt_step_merge(&step, 0, 1), KVT_OK);
    }
}

static uint64_t fnv(const void *bytes, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3;
    return hash;
}

/* In the cache, where the bytes lie, and in another cache: the same bits. The bytes and the results are those of every CPU. */
START_TEST(attention)
{
    home from, to;
    open_home(&from, 1500);
    open_home(&to, 0);
    tape whole = save_home(&from);
    kvt_saved saved;
    ck_assert_int_eq(kvt_saved_open(whole.bytes, whole.size, &saved, NULL, 0), KVT_OK);
    whole.at = saved.head_bytes;
    ck_assert_int_eq(kvt_cache_load(to.in.cache, to.in.id, &saved, 99, home_read, &whole), KVT_OK);
    ck_assert_mem_eq(kvt_cache_state(to.in.cache, to.in.id), kvt_cache_state(from.in.cache, from.in.id), 40);
    kvt_view view;
    kvt_sequence entries[3];
    float out[3][LAYERS][2 * HEADS * DIM];
    ck_assert_int_eq(kvt_cache_entry(from.in.cache, from.in.id, 0, &entries[0]), KVT_OK);
    ck_assert_int_eq(kvt_saved_view(&saved, whole.size, 0, &view, &entries[1]), KVT_OK);
    ck_assert_int_eq(kvt_cache_entry(to.in.cache, to.in.id, 0, &entries[2]), KVT_OK);
    const kvt_view *views[] = { kvt_cache_view(from.in.cache, 0), &view, kvt_cache_view(to.in.cache, 0) };
    for (int i = 0; i < 3; i++)
        attend(views[i], entries[i], from.workspace, from.workspace_bytes, out[i]);
    ck_assert_mem_eq(out[0], out[1], sizeof out[0]);
    ck_assert_mem_eq(out[0], out[2], sizeof out[0]);
    ck_assert_uint_eq(fnv(whole.bytes, whole.size), UINT64_C(8165019779276929663));
    ck_assert_uint_eq(fnv(out[0], sizeof out[0]), UINT64_C(4708046979773286485));
    free(whole.bytes);
    close_home(&from), close_home(&to);
}
END_TEST

/* ---- specs ---- */

START_TEST(specs)
{
    uint64_t state = 3;
    size_t right = 0;
    for (int i = 0; i < 20000; i++) {
        const kvt_side_options options[3] = { { (kvt_rotation)(64 * test_below(&state, 3)), (kvt_centring)test_below(&state, 4),
                                                (kvt_effort)test_below(&state, 3), 0, KVT_FP8_SCALE_F32, 0 },
                                              { (kvt_rotation)(64 * test_below(&state, 3)), (kvt_centring)test_below(&state, 4),
                                                (kvt_effort)test_below(&state, 3), test_below(&state, 2) ? 32 : KVT_BLOCK_TENSOR,
                                                (kvt_fp8_scale)test_below(&state, 2), test_below(&state, 2) ? 0.5f : 0 },
                                              { (kvt_rotation)0, (kvt_centring)0, (kvt_effort)0, 0, KVT_FP8_SCALE_F32, 0 } };
        const bool is_latent = test_below(&state, 2);
        const kvt_spec spec = { .size = sizeof spec,
                                .k_scheme = kvt_scheme_at(test_below(&state, (uint32_t)test_scheme_count()))->scheme,
                                .v_scheme = kvt_scheme_at(test_below(&state, (uint32_t)test_scheme_count()))->scheme,
                                .k_dim = 1 + test_below(&state, KVT_MAX_DIM),
                                .v_dim = is_latent ? 0 : 1 + test_below(&state, KVT_MAX_DIM),
                                .kv_heads = 1 + test_below(&state, KVT_MAX_HEADS),
                                .k_options = options[test_below(&state, 2)],
                                .v_options = options[test_below(&state, 2)],
                                .rope_scheme = KVT_SCHEME_bf16,
                                .rope_dim = is_latent ? test_below(&state, KVT_MAX_DIM) : 0,
                                .rope_options = options[2] };
        kvt_layout layout, again;
        unsigned char bytes[KVT_SPEC_BYTES], twice[KVT_SPEC_BYTES];
        kvt_spec back;
        const kvt_status status = kvt_layout_init(&layout, &spec);
        ck_assert_int_eq(kvt_spec_to_bytes(&spec, bytes), status);
        if (status)
            continue;
        right++;
        ck_assert_int_eq(kvt_spec_from_bytes(bytes, &back), KVT_OK);
        ck_assert_int_eq(kvt_layout_init(&again, &back), KVT_OK);
        ck_assert(again.page_bytes == layout.page_bytes && memcmp(&again.k, &layout.k, sizeof layout.k) == 0 &&
                  memcmp(&again.v, &layout.v, sizeof layout.v) == 0 && memcmp(&again.rope, &layout.rope, sizeof layout.rope) == 0 &&
                  memcmp(&again.spec.k_options, &layout.spec.k_options, sizeof layout.spec.k_options) == 0);
        ck_assert_int_eq(kvt_spec_to_bytes(&back, twice), KVT_OK);
        ck_assert_mem_eq(bytes, twice, sizeof bytes);
        for (size_t bit = (size_t)i % 8; i < 100 && bit < KVT_SPEC_BYTES * 8; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            ck_assert_int_eq(kvt_spec_from_bytes(bytes, &back), KVT_ERR_DATA);
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
    }
    ck_assert_uint_gt(right, 1000);
    kvt_spec back;
    unsigned char bytes[KVT_SPEC_BYTES] = { 0 };
    ck_assert_int_eq(kvt_spec_from_bytes(NULL, &back), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_spec_from_bytes(bytes, NULL), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_spec_from_bytes(bytes, &back), KVT_ERR_DATA);
    ck_assert_int_eq(kvt_spec_to_bytes(NULL, bytes), KVT_ERR_NULL);
}
END_TEST

/* Hashes of prefixes go on from each other. */
START_TEST(prefixes)
{
    const uint32_t ids[] = { 5, 0, 7, 5 };
    const uint64_t half = kvt_prefix_hash(0, ids, 2);
    ck_assert_uint_eq(kvt_prefix_hash(half, ids + 2, 2), kvt_prefix_hash(0, ids, 4));
    ck_assert_uint_ne(kvt_prefix_hash(0, ids, 1), kvt_prefix_hash(0, ids + 1, 1));
    ck_assert_uint_eq(kvt_prefix_hash(77, ids, 0), 77);
}
END_TEST

/* XXH64, as its specification has it: the test does not take the library's word for it. */
static uint64_t rotated(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}
static uint64_t word64(const unsigned char *at)
{
    uint64_t x = 0;
    for (int i = 8; i-- > 0;)
        x = x << 8 | at[i];
    return x;
}
static uint64_t hash64(const unsigned char *at, size_t n)
{
    const uint64_t p1 = 0x9E3779B185EBCA87, p2 = 0xC2B2AE3D27D4EB4F, p3 = 0x165667B19E3779F9, p4 = 0x85EBCA77C2B2AE63, p5 = 0x27D4EB2F165667C5;
    const unsigned char *end = at + n;
    uint64_t hash = p5;
    if (n >= 32) {
        uint64_t v[4] = { p1 + p2, p2, 0, 0 - p1 };
        for (; end - at >= 32; at += 32)
            for (int i = 0; i < 4; i++)
                v[i] = rotated(v[i] + word64(at + 8 * i) * p2, 31) * p1;
        hash = rotated(v[0], 1) + rotated(v[1], 7) + rotated(v[2], 12) + rotated(v[3], 18);
        for (int i = 0; i < 4; i++)
            hash = (hash ^ rotated(v[i] * p2, 31) * p1) * p1 + p4;
    }
    hash += n;
    for (; end - at >= 8; at += 8)
        hash = rotated(hash ^ rotated(word64(at) * p2, 31) * p1, 27) * p1 + p4;
    for (; end - at >= 4; at += 4)
        hash = rotated(hash ^ (uint64_t)(at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24) * p1, 23) * p2 + p3;
    for (; at < end; at++)
        hash = rotated(hash ^ *at * p5, 11) * p1;
    hash = (hash ^ hash >> 33) * p2;
    hash = (hash ^ hash >> 29) * p3;
    return hash ^ hash >> 32;
}

int main(void)
{
    Suite *suite = suite_create("saved");
    TCase *tcase = tcase_create("saved");
    tcase_set_timeout(tcase, 1200);
    tcase_add_test(tcase, every_bit_counts);
    tcase_add_test(tcase, bits_of_a_large_file);
    tcase_add_test(tcase, every_length);
    tcase_add_test(tcase, any_head);
    tcase_add_test(tcase, attention);
    tcase_add_test(tcase, specs);
    tcase_add_test(tcase, prefixes);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
