/* Saved sequences: words of a right one become others, and checksums are made right again, or not; whatever opens is read where it lies, and loaded.
 */
#include "target.h"

#include <kvtile/saved.h>

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { DIM = 16, HEADS = 2, TOKENS = 70, GROUP_BYTES = 384, RECORD = 320 };

static kvt_cache *cache;
static uint32_t id;
static uint8_t *right, *bytes_now;
static size_t right_bytes, head_bytes, written;
static void *scratch;

static int keep(void *context, const void *bytes, size_t n)
{
    (void)context;
    memcpy(right + written, bytes, n);
    written += n;
    return 0;
}
static int read_on(void *context, void *bytes, size_t n)
{
    const uint8_t **at = context;
    if (n > (size_t)(bytes_now + right_bytes - *at))
        return -1;
    memcpy(bytes, *at, n);
    *at += n;
    return 0;
}

static void must(int holds)
{
    if (!holds)
        abort();
}

static void *memory_of(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    must(memory != NULL);
    memset(memory, 0, bytes);
    return memory;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = HEADS }, first;
    must(kvt_preset_spec(KVT_PRESET_COMPACT, &spec, &first) == KVT_OK);
    const kvt_cache_group group = { .size = sizeof group, .spec = &spec, .first_spec = &first, .open_dtype = KVT_F16, .layers = 1, .blocks = 8 };
    const kvt_cache_spec wanted = { .size = sizeof wanted, .groups = &group, .n_groups = 1, .sequences = 1, .tokens = 256, .state_bytes = 8 };
    size_t bytes;
    must(kvt_cache_bytes(&wanted, &bytes) == KVT_OK && kvt_cache_init(&wanted, memory_of(bytes), bytes, &cache) == KVT_OK);
    scratch = memory_of(kvt_cache_work_bytes(cache));
    must(kvt_cache_new(cache, &id) == KVT_OK && kvt_cache_append(cache, id, TOKENS) == KVT_OK);
    kvt_sequence entry;
    must(kvt_cache_entry(cache, id, 0, &entry) == KVT_OK);
    static uint16_t rows[TOKENS * HEADS * DIM];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        rows[i] = (uint16_t)(0x3000 + i * 37 % 0x800);
    const kvt_view_rows stored = { .size = sizeof stored,
                                   .view = kvt_cache_view(cache, 0),
                                   .sequence = &entry,
                                   .n_tokens = TOKENS,
                                   .layers = 1,
                                   .rows = rows,
                                   .dtype = KVT_F16,
                                   .token_stride = HEADS * DIM * 2,
                                   .head_stride = DIM * 2 };
    must(kvt_view_write(&stored, 0, 1) == KVT_OK && kvt_cache_commit(cache, id, TOKENS) == KVT_OK);
    uint32_t ids[TOKENS] = { 0 };
    const kvt_save save = { .size = sizeof save, .model = 5, .token_ids = ids };
    must(kvt_cache_save_bytes(cache, id, &save, &right_bytes) == KVT_OK);
    right = memory_of(right_bytes);
    bytes_now = memory_of(right_bytes);
    must(kvt_cache_save(cache, id, &save, keep, NULL, scratch, kvt_cache_work_bytes(cache)) == KVT_OK);
    must(kvt_saved_head_bytes(right, &head_bytes) == KVT_OK && kvt_cache_truncate(cache, id, 0) == KVT_OK);
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
    const uint8_t *at = bytes_now + saved.head_bytes;
    const kvt_status loaded = kvt_cache_load(cache, id, &saved, 5, read_on, &at);
    must(loaded || !verified);
    must(kvt_cache_truncate(cache, id, 0) == KVT_OK);
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
