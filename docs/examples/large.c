/* SPDX-License-Identifier: MIT */
/* A large cache in memory of huge pages: many tokens, or many sequences. Their bytes are counted, and a step's time is measured.
 *
 *     cc -O2 large.c $(pkg-config --cflags --libs kvtile) -o large
 *     ./large 1048576 1        tokens of each sequence, and sequences
 *     ./large 4096 256
 *
 * A cache is one piece of memory that nothing has touched before rows are written. So a thousand blocks that are not used take no memory, and on a
 * machine with several NUMA nodes a block lies on the node of the thread that first writes to it: a worker that stays with its sequences and on its
 * node has them near. Where workers share sequences, interleave: `numactl --interleave=all ./large`. Results do not depend on where blocks lie. */
#define _GNU_SOURCE /* MAP_HUGETLB, MADV_HUGEPAGE */
#include <kvtile/cache.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

enum { HEADS = 8, KV_HEADS = 2, DIM = 128, AT_ONCE = 1024, HUGE_PAGE = 2 << 20 };

static float rows[2][AT_ONCE][KV_HEADS][DIM];

static void must(int is_right, const char *what)
{
    if (!is_right) {
        fprintf(stderr, "large: %s\n", what);
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Pages of 2 MiB where the system has set some aside (/proc/sys/vm/nr_hugepages); otherwise it is asked to make them of others as it goes. Attention
 * reads pages in order, so what huge ones save are misses of the TLB. */
static void *map(size_t bytes, const char **how)
{
    bytes = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    *how = "huge pages";
    if (memory != MAP_FAILED)
        return memory;
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "no memory");
    *how = madvise(memory, bytes, MADV_HUGEPAGE) == 0 ? "pages that may become huge" : "pages";
    return memory;
}

/* The rows of AT_ONCE tokens more, of one sequence. */
static void write_rows(kvt_cache *cache, uint32_t id)
{
    kvt_sequence entry;
    const kvt_view_rows some = { .size = sizeof some,
                                 .view = kvt_cache_view(cache, 0),
                                 .sequence = &entry,
                                 .first_token = kvt_cache_tokens(cache, id),
                                 .n_tokens = AT_ONCE,
                                 .layers = 1,
                                 .rows = rows,
                                 .dtype = KVT_F32,
                                 .side_stride = sizeof rows[0],
                                 .token_stride = sizeof rows[0][0],
                                 .head_stride = sizeof rows[0][0][0] };
    must(kvt_cache_append(cache, id, AT_ONCE) == KVT_OK && kvt_cache_entry(cache, id, 0, &entry) == KVT_OK && kvt_view_write(&some, 0, 1) == KVT_OK &&
             kvt_cache_commit(cache, id, AT_ONCE) == KVT_OK,
         "rows cannot be written");
}

/* One more token in every sequence, which is taken back: microseconds of attention. */
static double time_step(kvt_cache *cache, const uint32_t *ids, uint32_t sequences, kvt_sequence *entries, const float *q, float *out, void *workspace,
                        size_t workspace_bytes)
{
    for (uint32_t s = 0; s < sequences; s++)
        must(kvt_cache_append(cache, ids[s], 1) == KVT_OK && kvt_cache_entry(cache, ids[s], 0, &entries[s]) == KVT_OK, "no block");
    const kvt_step step = { .size = sizeof step,
                            .view = kvt_cache_view(cache, 0),
                            .sequences = entries,
                            .n_sequences = sequences,
                            .heads = HEADS,
                            .dtype = KVT_F32,
                            .out_dtype = KVT_F32,
                            .q = q,
                            .k = rows[0],
                            .v = rows[1],
                            .out = out,
                            .scale = 0.0884f,
                            .workspace = workspace,
                            .workspace_bytes = workspace_bytes };
    must(kvt_step_append(&step, 0, 1) == KVT_OK, "append");
    const double start = now();
    must(kvt_step_attend(&step, 0, 1) == KVT_OK && kvt_step_merge(&step, 0, 1) == KVT_OK, "attend");
    const double end = now();
    for (uint32_t s = 0; s < sequences; s++)
        must(kvt_cache_commit(cache, ids[s], 0) == KVT_OK, "commit");
    return 1e6 * (end - start);
}

/* What blocks are taken, against what so many tokens need: a first page, the others, and two open pages of each sequence. */
static size_t check_bytes(const kvt_cache *cache, size_t tokens, uint32_t sequences)
{
    kvt_cache_statistics is = { .size = sizeof is };
    must(kvt_cache_measure(cache, 0, &is) == KVT_OK, "measure");
    const kvt_view *view = kvt_cache_view(cache, 0);
    const size_t pages = sequences * (tokens / KVT_PAGE_TOKENS - 1);
    must((is.pages.all - is.pages.free) * is.pages.bytes == pages * KV_HEADS * view->layout->page_bytes, "pages take other bytes");
    must((is.first_pages.all - is.first_pages.free) * is.first_pages.bytes == sequences * KV_HEADS * view->first_layout->page_bytes,
         "first pages take other bytes");
    return (is.pages.all - is.pages.free) * is.pages.bytes + (is.first_pages.all - is.first_pages.free) * is.first_pages.bytes;
}

int main(int argc, char **argv)
{
    const size_t tokens = argc > 1 ? strtoull(argv[1], NULL, 10) : 4096;
    const uint32_t sequences = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 2;
    must(tokens >= AT_ONCE && tokens % AT_ONCE == 0 && sequences > 0, "TOKENS, a multiple of 1024, and SEQUENCES would be right");
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = KV_HEADS }, first;
    must(kvt_preset_spec(KVT_PRESET_BALANCED, &spec, &first) == KVT_OK, "preset");
    const kvt_cache_group group = { .size = sizeof group,
                                    .spec = &spec,
                                    .first_spec = &first,
                                    .open_dtype = KVT_F16,
                                    .layers = 1,
                                    .blocks = sequences * (tokens / KVT_PAGE_TOKENS + 1) };
    const kvt_cache_spec wanted = { .size = sizeof wanted, .groups = &group, .n_groups = 1, .sequences = sequences, .tokens = tokens + 1 };
    size_t bytes, workspace_bytes;
    must(kvt_cache_bytes(&wanted, &bytes) == KVT_OK, "bytes");
    const char *how;
    kvt_cache *cache;
    void *memory = map(bytes, &how);
    must(kvt_cache_init(&wanted, memory, bytes, &cache) == KVT_OK, "init");
    const kvt_step_limits limits = { .sequences = sequences, .tokens = tokens + 1, .fresh = sequences, .heads = HEADS, .workers = 1 };
    must(kvt_step_workspace(kvt_cache_view(cache, 0), &limits, &workspace_bytes) == KVT_OK, "workspace");
    void *workspace = aligned_alloc(64, (workspace_bytes + 63) / 64 * 64);
    uint32_t *ids = malloc(sequences * sizeof *ids);
    kvt_sequence *entries = malloc(sequences * sizeof *entries);
    float *q = malloc(sequences * HEADS * DIM * sizeof *q), *out = malloc(sequences * HEADS * DIM * sizeof *out);
    must(workspace && ids && entries && q && out, "no memory");
    for (size_t i = 0; i < sizeof rows / sizeof(float); i++)
        (&rows[0][0][0][0])[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (size_t i = 0; i < (size_t)sequences * HEADS * DIM; i++)
        q[i] = (float)rand() / (float)RAND_MAX - 0.5f;
    for (uint32_t s = 0; s < sequences; s++)
        must(kvt_cache_new(cache, &ids[s]) == KVT_OK, "no sequence");

    printf("%u sequences, a cache of %zu bytes in %s\n", sequences, bytes, how);
    /* Once for the system, which gives memory when it is written to for the first time. */
    double writing = now();
    for (size_t stored = 0; stored < tokens; stored += AT_ONCE)
        for (uint32_t s = 0; s < sequences; s++)
            write_rows(cache, ids[s]);
    printf("written for the first time: %.1f ns/token\n", 1e9 * (now() - writing) / ((double)tokens * sequences));
    for (uint32_t s = 0; s < sequences; s++)
        must(kvt_cache_truncate(cache, ids[s], 0) == KVT_OK, "truncate");
    printf("    tokens  bytes of pages  bytes/token  write ns/token  step us  step ns/token\n");
    writing = 0;
    for (size_t stored = 0, shown = tokens / 16 > AT_ONCE ? tokens / 16 : AT_ONCE; stored < tokens;) {
        const double start = now();
        for (uint32_t s = 0; s < sequences; s++)
            write_rows(cache, ids[s]);
        writing += now() - start;
        stored += AT_ONCE;
        if (stored != shown && stored != tokens)
            continue;
        shown *= 2;
        double best = 1e300;
        for (int i = 0; i < 3; i++) {
            const double us = time_step(cache, ids, sequences, entries, q, out, workspace, workspace_bytes);
            best = us < best ? us : best;
        }
        const size_t used = check_bytes(cache, stored, sequences);
        const double all = (double)stored * sequences;
        printf("%10zu %15zu %12.1f %15.1f %8.0f %14.3f\n", stored, used, (double)used / all, 1e9 * writing / all, best, 1e3 * best / all);
    }
    munmap(memory, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    free(workspace), free(ids), free(entries), free(q), free(out);
}
