/* SPDX-License-Identifier: MIT */
/* Files that one system wrote, read by another (tests/platforms.sh exchange):
 *
 *   exchange write FOLDER    a saved sequence, a folder of blocks, and the bits of attention over both, for each preset
 *   exchange check FOLDER    whether this system writes the same files, and attends to those that are there with the same bits
 *
 * A program without Check, as systems have it that have nothing. */
#include "tests/lib/cache_home.h"
#include "tools/store/store.h"

#include <stdbool.h>
#include <stdio.h>

enum { HEADS = 2, LAYERS = 2, DIM = 64, QUERY_HEADS = 4, TOKENS = 1500, STORED = TOKENS / STORE_TOKENS * STORE_TOKENS, MODEL = 99 };

typedef struct result {
    float of_sequence[LAYERS][QUERY_HEADS * DIM], of_blocks[LAYERS][QUERY_HEADS * DIM];
} result;

static void must(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "exchange: %s\n", what);
        exit(1);
    }
}

/* ---- files ---- */

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    must(file != NULL && fwrite(bytes, 1, n, file) == n && fclose(file) == 0, path);
}

static home_tape read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    must(file != NULL && fseek(file, 0, SEEK_END) == 0, path);
    const long size = ftell(file);
    must(size > 0, path);
    home_tape from = { .bytes = home_memory((size_t)size), .size = (size_t)size };
    rewind(file);
    must(fread(from.bytes, 1, from.size, file) == from.size && fclose(file) == 0, path);
    return from;
}

/* ---- a cache ---- */

static void open_cache(cache_home *h, kvt_preset preset)
{
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = HEADS };
    kvt_cache_group group = { .open_dtype = KVT_F16, .layers = LAYERS, .blocks = 2 * TOKENS / STORE_TOKENS };
    home_open(h, preset, &spec, &group, &(kvt_cache_spec){ .sequences = 1, .tokens = TOKENS });
}

/* The newest token's results in all layers. */
static void attend(const kvt_view *view, kvt_sequence entry, float out[LAYERS][QUERY_HEADS * DIM])
{
    const kvt_step_limits limits = { 1, 1, TOKENS, QUERY_HEADS, 1 };
    uint16_t q[QUERY_HEADS * DIM];
    size_t bytes;
    home_must(kvt_step_workspace(view, &limits, &bytes) == KVT_OK);
    void *workspace = home_memory(bytes);
    entry.stored--;
    entry.fresh = 1;
    for (size_t i = 0; i < sizeof q / sizeof *q; i++)
        q[i] = (uint16_t)(0x3400 + i * 59 % 0x600 + i % 3 / 2 * 0x8000);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        const kvt_step step = home_question(view, layer, &entry, QUERY_HEADS, q, out[layer], workspace, bytes);
        home_must(kvt_step_attend(&step, 0, 1) == KVT_OK && kvt_step_merge(&step, 0, 1) == KVT_OK);
    }
    free(workspace);
}

static void attend_in(const cache_home *h, float out[LAYERS][QUERY_HEADS * DIM])
{
    kvt_sequence entry;
    home_must(kvt_cache_entry(h->cache, h->id, 0, &entry) == KVT_OK);
    attend(kvt_cache_view(h->cache, 0), entry, out);
}

/* ---- a block of a sequence ---- */

static home_tape save_block(const cache_home *h, const uint32_t *ids, size_t first)
{
    const kvt_save save = { .size = sizeof save,
                            .model = MODEL,
                            .first = first,
                            .end = first + STORE_TOKENS,
                            .token_ids = ids + first,
                            .prefix = kvt_prefix_hash(0, ids, first) };
    home_tape to = { 0 };
    home_must(kvt_cache_save_bytes(h->cache, h->id, &save, &to.size) == KVT_OK);
    to.bytes = home_memory(to.size);
    home_must(kvt_cache_save(h->cache, h->id, &save, home_write, &to, h->scratch, h->scratch_bytes) == KVT_OK && to.at == to.size);
    return to;
}

static void load(cache_home *h, home_tape *from)
{
    kvt_saved saved;
    char why[300] = "";
    must(kvt_saved_open(from->bytes, from->size, &saved, why, sizeof why) == KVT_OK, why);
    must(kvt_saved_verify(&saved, from->size, why, sizeof why) == KVT_OK, why);
    from->at = saved.head_bytes;
    must(kvt_cache_load(h->cache, h->id, &saved, MODEL, home_read, from) == KVT_OK, "a saved sequence does not load");
}

/* ---- one preset ---- */

typedef struct trial {
    const char *name;
    kvt_preset preset;
    bool checks;
    cache_home home; /* the sequence as this system makes it */
    uint32_t ids[TOKENS];
    home_tape whole;
    char path[3][600]; /* of the sequence, the folder of blocks, and the bits of attention */
} trial;

/* The sequence that lies in the file, where it lies and in another cache. */
static void check_sequence(const trial *t, const result *right)
{
    home_tape file = read_file(t->path[0]);
    float out[LAYERS][QUERY_HEADS * DIM];
    must(file.size == t->whole.size && memcmp(file.bytes, t->whole.bytes, file.size) == 0, "this system saves a sequence as other bytes");
    kvt_saved saved;
    kvt_view view;
    kvt_sequence entry;
    home_must(kvt_saved_open(file.bytes, file.size, &saved, NULL, 0) == KVT_OK);
    home_must(kvt_saved_view(&saved, file.size, 0, &view, &entry) == KVT_OK);
    attend(&view, entry, out);
    must(memcmp(out, right->of_sequence, sizeof out) == 0, "attention to a saved sequence where it lies has other bits");
    cache_home other;
    open_cache(&other, t->preset);
    load(&other, &file);
    attend_in(&other, out);
    must(memcmp(out, right->of_sequence, sizeof out) == 0, "attention to a sequence that was loaded has other bits");
    home_close(&other);
    free(file.bytes);
}

/* All blocks of the folder, which are written first or compared; and a sequence of them and a token more. */
static void run_store(const trial *t, float out[LAYERS][QUERY_HEADS * DIM])
{
    error_text error;
    store *folder;
    must(store_open(&folder, t->path[1], 0, &error) == 0, "the folder of blocks does not open");
    cache_home other;
    open_cache(&other, t->preset);
    store_key key = store_first_key(t->name, strlen(t->name));
    for (size_t first = 0; first < STORED; first += STORE_TOKENS) {
        home_tape block = save_block(&t->home, t->ids, first), found = { 0 };
        void *bytes;
        if (!t->checks)
            must(store_put(folder, &key, t->ids + first, block.bytes, block.size, &error) == 0, "a block is not kept");
        must(store_get(folder, &key, t->ids + first, &bytes, &found.size, &error) == 1, "a block is not there");
        must(found.size == block.size && memcmp(bytes, block.bytes, block.size) == 0, "this system makes a block of other bytes");
        found.bytes = bytes;
        load(&other, &found);
        free(bytes);
        free(block.bytes);
        key = store_next_key(&key, t->ids + first);
    }
    store_measure measure;
    must(store_count(folder, &measure, &error) == 0 && measure.blocks == STORED / STORE_TOKENS, "the folder has another number of blocks");
    store_close(folder);
    home_fill(&other, 1); /* a query sees its own page as rows came, and blocks have none */
    attend_in(&other, out);
    home_close(&other);
}

static void run(kvt_preset preset, const char *folder, bool checks)
{
    trial t = { .name = kvt_preset_name(preset), .preset = preset, .checks = checks };
    static const char *const endings[] = { ".kvt", ".blocks", ".bits" };
    result here, there;
    for (int i = 0; i < 3; i++)
        snprintf(t.path[i], sizeof t.path[i], "%s/%s%s", folder, t.name, endings[i]);
    for (uint32_t i = 0; i < TOKENS; i++)
        t.ids[i] = i * 7 + 3;
    open_cache(&t.home, preset);
    home_fill(&t.home, TOKENS);
    t.whole = home_save(&t.home, MODEL, t.ids);
    attend_in(&t.home, here.of_sequence);
    run_store(&t, here.of_blocks);
    if (checks) {
        home_tape bits = read_file(t.path[2]);
        must(bits.size == sizeof there, "the file of bits has another size");
        memcpy(&there, bits.bytes, sizeof there);
        free(bits.bytes);
        must(memcmp(here.of_sequence, there.of_sequence, sizeof here.of_sequence) == 0, "attention has other bits than there");
        must(memcmp(here.of_blocks, there.of_blocks, sizeof here.of_blocks) == 0, "attention to a sequence of blocks has other bits than there");
        check_sequence(&t, &there);
    } else {
        write_file(t.path[0], t.whole.bytes, t.whole.size);
        write_file(t.path[2], &here, sizeof here);
    }
    printf("%s: a sequence of %zu bytes, %d blocks\n", t.name, t.whole.size, STORED / STORE_TOKENS);
    free(t.whole.bytes);
    home_close(&t.home);
}

int main(int argc, char **argv)
{
    const bool checks = argc == 3 && strcmp(argv[1], "check") == 0;
    if (argc != 3 || (!checks && strcmp(argv[1], "write") != 0)) {
        fprintf(stderr, "usage: exchange write|check FOLDER\n");
        return 2;
    }
    for (int preset = 0; kvt_preset_name((kvt_preset)preset) != NULL; preset++)
        run((kvt_preset)preset, argv[2], checks);
    return 0;
}
