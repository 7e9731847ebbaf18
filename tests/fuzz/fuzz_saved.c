/* SPDX-License-Identifier: MIT */
/* Saved sequences: words of a right one become others, and checksums are made right again, or not; whatever opens is read where it lies, and loaded.
 */
#include "target.h"
#include "tests/lib/cache_home.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { DIM = 16, HEADS = 2, TOKENS = 70, GROUP_BYTES = 384, RECORD = 320 };

static cache_home home;
static uint8_t *right, *bytes_now;
static size_t right_bytes, head_bytes;

static void must(int holds)
{
    home_must(holds);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = HEADS };
    kvt_cache_group group = { .open_dtype = KVT_F16, .layers = 1, .blocks = 8 };
    home_open(&home, KVT_PRESET_COMPACT, &spec, &group, &(kvt_cache_spec){ .sequences = 1, .tokens = 256, .state_bytes = 8 });
    home_fill(&home, TOKENS);
    const uint32_t ids[TOKENS] = { 0 };
    const home_tape saved = home_save(&home, 5, ids);
    right = saved.bytes;
    right_bytes = saved.size;
    bytes_now = home_memory(right_bytes);
    must(kvt_saved_head_bytes(right, &head_bytes) == KVT_OK && kvt_cache_truncate(home.cache, home.id, 0) == KVT_OK);
    return 0;
}

static void sign(uint8_t *from, size_t n, uint8_t *sum)
{
    const uint64_t hash = XXH64(from, n, 0);
    memcpy(sum, &hash, 8);
}

/* Makes checksums of specs, the header, the head and records what they should be. */
static void sign_all(void)
{
    for (size_t at = KVT_SAVED_HEADER; at < KVT_SAVED_HEADER + 2 * KVT_SPEC_BYTES; at += KVT_SPEC_BYTES)
        sign(bytes_now + at, KVT_SPEC_BYTES - 8, bytes_now + at + KVT_SPEC_BYTES - 8);
    sign(bytes_now, KVT_SAVED_HEADER - 8, bytes_now + KVT_SAVED_HEADER - 8);
    sign(bytes_now, head_bytes - 8, bytes_now + head_bytes - 8);
    for (size_t at = head_bytes; at + RECORD <= right_bytes;) {
        uint64_t payload;
        memcpy(&payload, bytes_now + at + 56, 8);
        if (payload > right_bytes - at - RECORD)
            return;
        sign(bytes_now + at + 16, RECORD - 16 + (size_t)payload, bytes_now + at + 8);
        at += RECORD + (size_t)payload;
    }
}

/* Whatever opens can be read, and loads or does not. */
static void use(size_t size)
{
    kvt_saved saved;
    char why[200];
    const kvt_status status = kvt_saved_open(bytes_now, size, &saved, why, sizeof why);
    must(!status == !*why);
    if (status)
        return;
    const kvt_status verified = kvt_saved_verify(&saved, size, why, sizeof why);
    for (uint32_t g = 0; g < saved.n_groups; g++) {
        kvt_view view;
        kvt_sequence entry;
        if (kvt_saved_view(&saved, size, g, &view, &entry) || kvt_view_problem(&view, why, sizeof why) || entry.stored == 0)
            continue;
        static float rows[2][4 * KVT_MAX_DIM];
        const kvt_view_rows last = { .size = sizeof last,
                                     .view = &view,
                                     .sequence = &entry,
                                     .first_token = entry.stored - 1,
                                     .n_tokens = 1,
                                     .layers = 1,
                                     .rows = rows,
                                     .dtype = KVT_F32,
                                     .side_stride = sizeof rows[0],
                                     .token_stride = sizeof rows[0],
                                     .head_stride = KVT_MAX_DIM * 4 };
        if (view.layout->spec.kv_heads <= 4)
            (void)!kvt_view_read(&last, 0, 1);
    }
    home_tape from = { bytes_now, right_bytes, saved.head_bytes };
    const kvt_status loaded = kvt_cache_load(home.cache, home.id, &saved, 5, home_read, &from);
    must(loaded || !verified);
    must(kvt_cache_truncate(home.cache, home.id, 0) == KVT_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (size < 2)
        return 0;
    memcpy(bytes_now, right, right_bytes);
    for (size_t at = 2; at + 6 <= size && at < 50; at += 6) {
        uint16_t word;
        memcpy(&word, bytes + at, 2);
        const size_t range = bytes[0] & 1 ? right_bytes : head_bytes;
        memcpy(bytes_now + word % (range / 4) * 4, bytes + at + 2, 4);
    }
    if (!(bytes[0] & 2))
        sign_all();
    use(bytes[0] & 4 ? right_bytes * bytes[1] / 255 : right_bytes);
    return 0;
}
