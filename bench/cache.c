/* SPDX-License-Identifier: MIT */
/* What kvtile/cache.h costs, and what shifting costs in accuracy.
 *   kvtile-cache costs     appending a token, forking, opening and loading a saved sequence, shifting: 32 layers, 8 KV heads of 128
 *   kvtile-cache steps     decode steps beside the calls of kvt_attend and kvt_write that they consist of: the same model, 4 query heads to a KV head
 *   kvtile-cache rows FILE...   signal to noise of rows (files of kvtile-engine capture) that went through the cache: what kvtile eval says
 *   kvtile-cache shift     errors of keys that were shifted where they lie, against keys that were made for their positions */
#define _GNU_SOURCE /* madvise */
#include "tools/program/statistics.h"
#include "tools/rows/rows.h"

#include <kvtile/saved.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void exit_unless_ok(kvt_status status, const char *what)
{
    if (status) {
        fprintf(stderr, "kvtile-cache: %s: %s\n", what, kvt_status_text(status));
        exit(1);
    }
}

/* In huge pages, where the system has them: what a walk through small ones costs differs from run to run. */
static void *memory_of(size_t bytes)
{
    enum { HUGE_PAGE = 2 << 20 };
    const size_t unit = bytes >= HUGE_PAGE ? HUGE_PAGE : 64, whole = (bytes + unit - 1) / unit * unit;
    void *memory = aligned_alloc(unit, whole);
    if (memory == NULL) {
        fprintf(stderr, "kvtile-cache: %zu bytes: more memory than there is\n", bytes);
        exit(1);
    }
#ifdef MADV_HUGEPAGE
    if (unit == HUGE_PAGE)
        (void)madvise(memory, whole, MADV_HUGEPAGE);
#endif
    return memory;
}

/* About normal. */
static float near_normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005 + 1442695040888963407;
        sum += (float)(*state >> 40) * 0x1p-24f;
    }
    return sum - 6;
}

enum { GROUP = 4, PAGE = KVT_PAGE_TOKENS };

typedef struct shape {
    uint32_t layers, heads, dim;
    size_t tokens;
    uint32_t sequences;
} shape;

typedef struct home {
    kvt_cache *cache;
    void *memory, *workspace, *scratch;
    size_t workspace_bytes;
    double frequencies[KVT_MAX_DIM / 2];
} home;

static void open_home_as(home *h, const shape *s, const kvt_spec *spec, const kvt_spec *first, kvt_dtype open)
{
    const kvt_rope_parameters parameters = { .size = sizeof parameters, .dim = s->dim, .base = 10000 };
    exit_unless_ok(kvt_rope_fill(&parameters, h->frequencies), "frequencies");
    const kvt_rope rope = { .size = sizeof rope, .frequencies = h->frequencies, .pairs = s->dim / 2 };
    const kvt_cache_group group = { .size = sizeof group,
                                    .spec = spec,
                                    .first_spec = first,
                                    .open_dtype = open,
                                    .layers = s->layers,
                                    .blocks = (s->tokens / 64 + 1) * (s->sequences > 2 ? s->sequences : 2),
                                    .rope = &rope };
    const kvt_cache_spec wanted = { .size = sizeof wanted, .groups = &group, .n_groups = 1, .sequences = s->sequences, .tokens = s->tokens };
    size_t bytes;
    exit_unless_ok(kvt_cache_bytes(&wanted, &bytes), "a cache");
    h->memory = memory_of(bytes);
    exit_unless_ok(kvt_cache_init(&wanted, h->memory, bytes, &h->cache), "a cache");
    const kvt_step_limits limits = { s->sequences, s->tokens, 4096, s->heads * GROUP, 1 };
    exit_unless_ok(kvt_step_workspace(kvt_cache_view(h->cache, 0), &limits, &h->workspace_bytes), "a workspace");
    h->workspace = memory_of(h->workspace_bytes);
    h->scratch = memory_of(kvt_cache_work_bytes(h->cache));
}

static void open_home(home *h, const shape *s, kvt_scheme scheme, const kvt_spec *preset, const kvt_spec *first)
{
    kvt_spec spec = { .size = sizeof spec, .k_scheme = scheme, .v_scheme = scheme, .k_dim = s->dim, .v_dim = s->dim, .kv_heads = s->heads };
    spec.k_options = spec.v_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN };
    open_home_as(h, s, preset ? preset : &spec, first, KVT_BF16);
}

static void close_home(const home *h)
{
    free(h->memory), free(h->workspace), free(h->scratch);
}

/* New tokens in all layers, with the same rows, of `dtype`. */
static void append(const home *h, const shape *s, uint32_t id, uint32_t fresh, const void *k, const void *v, kvt_dtype dtype)
{
    exit_unless_ok(kvt_cache_append(h->cache, id, fresh), "blocks");
    kvt_sequence entry;
    exit_unless_ok(kvt_cache_entry(h->cache, id, 0, &entry), "an entry");
    for (uint32_t layer = 0; layer < s->layers; layer++) {
        const kvt_step step = { .size = sizeof step,
                                .view = kvt_cache_view(h->cache, 0),
                                .layer = layer,
                                .sequences = &entry,
                                .n_sequences = 1,
                                .heads = s->heads,
                                .dtype = dtype,
                                .out_dtype = KVT_F32,
                                .k = k,
                                .v = v,
                                .scale = 1,
                                .workspace = h->workspace,
                                .workspace_bytes = h->workspace_bytes };
        exit_unless_ok(kvt_step_append(&step, 0, 1), "rows");
    }
    exit_unless_ok(kvt_cache_commit(h->cache, id, fresh), "tokens");
}

/* ---- costs ---- */

enum { FRESH = 1024 };

typedef struct tape {
    unsigned char *bytes;
    size_t at;
} tape;

static int write_tape(void *context, const void *bytes, size_t n)
{
    tape *to = context;
    memcpy(to->bytes + to->at, bytes, n);
    to->at += n;
    return 0;
}
static int read_tape(void *context, void *bytes, size_t n)
{
    tape *from = context;
    memcpy(bytes, from->bytes + from->at, n);
    from->at += n;
    return 0;
}

static uint16_t *bf16_rows(size_t n)
{
    uint16_t *rows = memory_of(n * sizeof *rows);
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        const float x = near_normal(&state);
        uint32_t bits;
        memcpy(&bits, &x, 4);
        rows[i] = (uint16_t)(bits >> 16);
    }
    return rows;
}

static void costs(void)
{
    enum { TOKENS = 32768, FORKS = 20 };
    static const kvt_scheme schemes[] = { KVT_SCHEME_f16, KVT_SCHEME_kv8, KVT_SCHEME_kv5, KVT_SCHEME_kv4 };
    shape s = { 32, 8, 128, 2048, 2 };
    uint16_t *rows = bf16_rows((size_t)FRESH * s.heads * s.dim);
    printf("scheme  append of a token, 32 layers\n");
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        home h;
        open_home(&h, &s, schemes[i], NULL, NULL);
        uint32_t id;
        exit_unless_ok(kvt_cache_new(h.cache, &id), "a sequence");
        append(&h, &s, id, 64, rows, rows, KVT_BF16);
        const double start = now();
        enum { APPENDS = 256 };
        for (int t = 0; t < APPENDS; t++)
            append(&h, &s, id, 1, rows, rows, KVT_BF16);
        printf("%-7s %.4f ms\n", kvt_scheme_get(schemes[i])->name, (now() - start) / APPENDS * 1e3);
        close_home(&h);
    }
    s = (shape){ 4, 8, 128, TOKENS + 64, 4 }; /* forking does not look at layers */
    kvt_spec spec = { .size = sizeof spec, .k_dim = s.dim, .v_dim = s.dim, .kv_heads = s.heads }, first;
    exit_unless_ok(kvt_preset_spec(KVT_PRESET_BALANCED, &spec, &first), "a preset");
    home h;
    open_home(&h, &s, KVT_SCHEME_f16, &spec, &first);
    uint32_t id, fork;
    exit_unless_ok(kvt_cache_new(h.cache, &id), "a sequence");
    for (int t = 0; t < TOKENS; t += FRESH)
        append(&h, &s, id, FRESH, rows, rows, KVT_BF16);
    append(&h, &s, id, 30, rows, rows, KVT_BF16);
    double best = 1;
    for (int i = 0; i < FORKS; i++) {
        const double start = now();
        exit_unless_ok(kvt_cache_fork(h.cache, id, &fork), "a fork");
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
        exit_unless_ok(kvt_cache_free(h.cache, fork), "a fork");
    }
    printf("fork of %zu tokens %.1f us\n", kvt_cache_tokens(h.cache, id), best * 1e6);
    uint32_t *ids = memory_of((TOKENS + 64) * sizeof *ids);
    memset(ids, 0, (TOKENS + 64) * sizeof *ids);
    const kvt_save save = { .size = sizeof save, .token_ids = ids };
    size_t bytes;
    exit_unless_ok(kvt_cache_save_bytes(h.cache, id, &save, &bytes), "saving");
    tape to = { .bytes = memory_of(bytes) };
    memset(to.bytes, 0, bytes);
    double start = now();
    exit_unless_ok(kvt_cache_save(h.cache, id, &save, write_tape, &to, h.scratch, kvt_cache_work_bytes(h.cache)), "saving");
    printf("saving %.0f MB to memory %.1f ms\n", (double)bytes * 1e-6, (now() - start) * 1e3);
    kvt_saved saved;
    kvt_view view;
    kvt_sequence entry;
    start = now();
    exit_unless_ok(kvt_saved_open(to.bytes, bytes, &saved, NULL, 0), "opening");
    exit_unless_ok(kvt_saved_view(&saved, bytes, 0, &view, &entry), "opening");
    printf("opening what lies in memory %.4f ms\n", (now() - start) * 1e3);
    exit_unless_ok(kvt_cache_free(h.cache, id), "a sequence");
    exit_unless_ok(kvt_cache_new(h.cache, &id), "a sequence");
    to.at = saved.head_bytes;
    start = now();
    exit_unless_ok(kvt_cache_load(h.cache, id, &saved, 0, read_tape, &to), "loading");
    printf("loading from memory %.1f ms\n", (now() - start) * 1e3);
    start = now();
    exit_unless_ok(kvt_cache_remove(h.cache, id, 64, 64 + 4096, KVT_POSITIONS_CLOSE), "removing");
    exit_unless_ok(kvt_cache_work(h.cache, id, 0, 1, h.scratch, kvt_cache_work_bytes(h.cache)), "removing");
    printf("removing 4096 of them at the front, 4 layers, 1 worker %.1f ms\n", (now() - start) * 1e3);
    close_home(&h);
    free(to.bytes), free(ids), free(rows);
}

/* ---- steps ---- */

/* A batch that decodes a token. What the kernels alone take is measured with everything at hand that a step has to find out or to copy: tables of a
 * head's pages, rows of the newest page in a tile already, its queries in one place. */
typedef struct decode {
    home h;
    shape s;
    size_t tokens;
    kvt_sequence *entries; /* [sequences] */
    uint16_t *rows, *out;  /* of the new tokens of a layer: queries, keys, values */
    void **tables;         /* [layer][sequence][head][page] */
    size_t table_pages;
    kvt_layout tile; /* of the newest page's rows */
    unsigned char *tiles, *kernel_workspace;
    size_t kernel_bytes;
    int measured;
    float *kernel_out;
} decode;

static size_t heads_before(const decode *d, uint32_t layer, uint32_t sequence, uint32_t head)
{
    return ((size_t)layer * d->s.sequences + sequence) * d->s.heads + head;
}

static void open_decode(decode *d, size_t tokens, uint32_t batch)
{
    *d = (decode){ .s = { 32, 8, 128, tokens + 2 * PAGE, batch }, .tokens = tokens, .table_pages = tokens / PAGE };
    const shape *s = &d->s;
    kvt_spec spec = { .size = sizeof spec, .k_dim = s->dim, .v_dim = s->dim, .kv_heads = s->heads }, first, plain = spec;
    exit_unless_ok(kvt_preset_spec(KVT_PRESET_BALANCED, &spec, &first), "a preset");
    open_home(&d->h, s, KVT_SCHEME_f16, &spec, &first);
    plain.k_scheme = plain.v_scheme = KVT_SCHEME_bf16;
    exit_unless_ok(kvt_layout_init(&d->tile, &plain), "a tile");
    d->entries = memory_of(batch * sizeof *d->entries);
    const size_t all = heads_before(d, s->layers, 0, 0);
    d->tables = memory_of(all * d->table_pages * sizeof *d->tables);
    d->tiles = memory_of(all * d->tile.page_bytes);
    memset(d->tiles, 0, all * d->tile.page_bytes);
    d->rows = bf16_rows((size_t)FRESH * s->heads * s->dim);
    d->out = memory_of((size_t)batch * s->heads * GROUP * s->dim * sizeof *d->out);
    d->kernel_out = memory_of((size_t)GROUP * (s->dim + 16) * sizeof *d->kernel_out);
    for (uint32_t n = 0; n < batch; n++) {
        uint32_t id;
        exit_unless_ok(kvt_cache_new(d->h.cache, &id), "a sequence");
        for (size_t t = 0; t < tokens; t += FRESH)
            append(&d->h, s, id, FRESH, d->rows, d->rows, KVT_BF16);
        exit_unless_ok(kvt_cache_append(d->h.cache, id, PAGE), "blocks");
        exit_unless_ok(kvt_cache_entry(d->h.cache, id, 0, &d->entries[n]), "an entry");
        const kvt_view *view = kvt_cache_view(d->h.cache, 0);
        for (uint32_t layer = 0; layer < s->layers; layer++)
            for (uint32_t head = 0; head < s->heads; head++)
                for (size_t p = 0; p < d->table_pages; p++) {
                    const kvt_pool *pool = p ? &view->pages : &view->first_pages;
                    d->tables[heads_before(d, layer, n, head) * d->table_pages + p] = (unsigned char *)pool->base + layer * pool->layer_stride +
                                                                                      d->entries[n].blocks[p] * pool->block_stride +
                                                                                      head * pool->head_stride;
                }
    }
}

static void close_decode(const decode *d)
{
    close_home(&d->h);
    free(d->entries), free(d->rows), free(d->out), free(d->tables), free(d->tiles), free(d->kernel_workspace), free(d->kernel_out);
}

/* Token `token` of all sequences, through the step. */
static void step_token(decode *d, size_t token)
{
    const size_t heads = (size_t)d->s.sequences * d->s.heads * d->s.dim;
    for (uint32_t n = 0; n < d->s.sequences; n++) {
        d->entries[n].stored = token;
        d->entries[n].fresh = 1;
    }
    for (uint32_t layer = 0; layer < d->s.layers; layer++) {
        const kvt_step step = { .size = sizeof step,
                                .view = kvt_cache_view(d->h.cache, 0),
                                .layer = layer,
                                .sequences = d->entries,
                                .n_sequences = d->s.sequences,
                                .heads = d->s.heads * GROUP,
                                .dtype = KVT_BF16,
                                .out_dtype = KVT_BF16,
                                .q = d->rows,
                                .k = d->rows + heads * GROUP,
                                .v = d->rows + heads * (GROUP + 1),
                                .out = d->out,
                                .scale = 0.0884f,
                                .workspace = d->h.workspace,
                                .workspace_bytes = d->h.workspace_bytes };
        exit_unless_ok(kvt_step_append(&step, 0, 1), "append");
        exit_unless_ok(kvt_step_attend(&step, 0, 1), "attend");
        exit_unless_ok(kvt_step_merge(&step, 0, 1), "merge");
    }
}

/* Attention of a head to pages that are at hand. */
static void attend_alone(decode *d, const kvt_segment *segments, size_t n, size_t begin, size_t end, const uint16_t *queries)
{
    const kvt_attention asked = { .size = sizeof asked,
                                  .segments = segments,
                                  .n_segments = n,
                                  .begin = begin,
                                  .end = end,
                                  .position = end - 1,
                                  .group = GROUP,
                                  .query_tokens = 1,
                                  .queries = queries,
                                  .query_dtype = KVT_BF16,
                                  .query_head_stride = (ptrdiff_t)(d->s.dim * sizeof *queries),
                                  .out = d->kernel_out,
                                  .out_dtype = KVT_BF16,
                                  .out_head_stride = (ptrdiff_t)(d->s.dim * sizeof *queries),
                                  .scale = 0.0884f };
    kvt_attend_sizes sizes;
    if (d->measured < 2) { /* calls of either kind */
        exit_unless_ok(kvt_attend_plan_sizes(&asked, &sizes), "a workspace");
        free(d->kernel_workspace);
        d->kernel_bytes = sizes.workspace_bytes > d->kernel_bytes ? sizes.workspace_bytes : d->kernel_bytes;
        d->kernel_workspace = memory_of(d->kernel_bytes);
        d->measured++;
    }
    exit_unless_ok(kvt_attend(&asked, d->kernel_workspace), "attention");
}

/* The same token by the kernels alone: a row of keys and of values is stored, the 64th makes a page, and queries attend to both. */
static void kernels_token(decode *d, size_t token)
{
    const kvt_view *view = kvt_cache_view(d->h.cache, 0);
    const size_t row = d->s.dim;
    for (uint32_t layer = 0; layer < d->s.layers; layer++)
        for (uint32_t n = 0; n < d->s.sequences; n++)
            for (uint32_t head = 0; head < d->s.heads; head++) {
                const size_t at = heads_before(d, layer, n, head), of_layer = heads_before(d, 0, n, head);
                void *tile = d->tiles + at * d->tile.page_bytes;
                const kvt_pages own = { .table = &tile, .count = 1 };
                const uint16_t *rows = d->rows + of_layer * row;
                const kvt_segment sealed[] = {
                    { .layout = view->first_layout, .pages = { .table = d->tables + at * d->table_pages, .count = 1 } },
                    { .layout = view->layout,
                      .pages = { .table = d->tables + at * d->table_pages + 1, .count = d->table_pages - 1 },
                      .first_token = PAGE },
                };
                const kvt_segment newest = { .layout = &d->tile, .pages = own, .first_token = token / PAGE * PAGE };
                for (int side = 0; side < 2; side++) {
                    exit_unless_ok(kvt_write(&d->tile, (kvt_side)side, &own, token % PAGE, 1, rows, KVT_BF16, (ptrdiff_t)(row * sizeof *rows)),
                                   "a row");
                    if (token % PAGE == PAGE - 1)
                        exit_unless_ok(
                            kvt_write(view->layout, (kvt_side)side, &sealed[1].pages, 0, PAGE, d->rows, KVT_BF16, (ptrdiff_t)(row * sizeof *rows)),
                            "a page");
                }
                attend_alone(d, sealed, 2, 0, token / PAGE * PAGE, d->rows + of_layer * GROUP * row);
                attend_alone(d, &newest, 1, token / PAGE * PAGE, token + 1, d->rows + of_layer * GROUP * row);
            }
}

/* Every fourth token of a page, each by both in turns, twice in each memory: a batch of one sequence, whose results depend on where its memory is, is
 * opened anew four times. */
static void steps(void)
{
    static const size_t lengths[] = { 1024, 8192 };
    static const uint32_t batches[] = { 1, 8 };
    enum { TIMES = PAGE / 4, ROUNDS = 2, OPENINGS = 5 };
    printf("| tokens | sequences | step, ms | kernels, ms | more |\n|---:|---:|---:|---:|---:|\n");
    for (int b = 0; b < 2; b++)
        for (int l = 0; l < 2; l++) {
            double times[2][OPENINGS * ROUNDS * TIMES], shares[OPENINGS * ROUNDS * TIMES];
            size_t n = 0;
            for (int opening = 0; opening < (batches[b] == 1 ? OPENINGS : 1); opening++) {
                decode d;
                open_decode(&d, lengths[l], batches[b]);
                step_token(&d, d.tokens);
                kernels_token(&d, d.tokens);
                for (size_t i = 0; i < ROUNDS * TIMES; i++, n++) {
                    for (size_t turn = 0; turn < 2; turn++) {
                        const size_t who = (turn + i) % 2;
                        const double start = now();
                        (who ? kernels_token : step_token)(&d, d.tokens + 4 * (i % TIMES));
                        times[who][n] = now() - start;
                    }
                    shares[n] = times[0][n] / times[1][n];
                }
                close_decode(&d);
            }
            printf("| %zu | %u | %.3f | %.3f | %.1f %% |\n", lengths[l], (unsigned)batches[b], statistics_median(times[0], n) * 1e3,
                   statistics_median(times[1], n) * 1e3, (statistics_median(shares, n) - 1) * 100);
            fflush(stdout);
        }
}

/* ---- rows of files ---- */

typedef struct file_rows {
    uint32_t heads, dim;
    size_t tokens; /* of whole pages */
    float *rows;   /* [head][token][dim], all that are in the file */
    size_t head_stride;
    bool is_bf16; /* every number is one */
} file_rows;

static void refuse_file(const char *path, const char *why)
{
    error_print("kvtile-cache", path, why);
    exit(1);
}

static file_rows open_file_rows(const char *path)
{
    rows_file file;
    error_text error;
    if (rows_open(&file, path, ROWS_HEAD_TOKEN, &error) != 0)
        refuse_file(path, error.text);
    const rows_tensor *rows = &file.tensors[0];
    if (rows->heads > KVT_MAX_HEADS || rows->tokens < PAGE || rows->tokens > 1 << 20 || rows->dim > KVT_MAX_DIM)
        refuse_file(path, "heads, tokens or channels are not what a cache holds: at least 64 tokens would be right");
    file_rows f = { .heads = rows->heads, .dim = rows->dim, .tokens = rows->tokens / PAGE * PAGE, .is_bf16 = true };
    f.head_stride = rows->tokens * f.dim;
    const size_t n = f.heads * f.head_stride;
    f.rows = memory_of(n * sizeof *f.rows);
    for (uint32_t head = 0; head < f.heads; head++)
        rows_head_to_f32(rows, head, f.rows + head * f.head_stride);
    rows_close(&file);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &f.rows[i], 4);
        f.is_bf16 = f.is_bf16 && (bits & 0xffff) == 0;
    }
    return f;
}

/* Rows as keys and as values through a cache whose first page is in kv8 where there are more, in steps of 1 to 100 tokens, and read back. Rows that
 * are bf16 numbers wait in open pages of bf16, as an engine's do; others in f32. */
static void read_through(const file_rows *f, kvt_scheme scheme, float *read)
{
    home h;
    const shape s = { 1, f->heads, f->dim, f->tokens, 1 };
    kvt_spec spec = { .size = sizeof spec, .k_dim = f->dim, .v_dim = f->dim, .kv_heads = f->heads }, first;
    exit_unless_ok(kvt_preset_spec(KVT_PRESET_BALANCED, &spec, &first), "a preset");
    spec.k_scheme = spec.v_scheme = scheme;
    open_home_as(&h, &s, &spec, f->tokens > PAGE ? &first : NULL, f->is_bf16 ? KVT_BF16 : KVT_F32);
    uint32_t id;
    exit_unless_ok(kvt_cache_new(h.cache, &id), "a sequence");
    float *rows = memory_of(100 * (size_t)f->heads * f->dim * sizeof *rows);
    uint64_t state = 3;
    for (size_t t = 0, n; t < f->tokens; t += n) {
        (void)near_normal(&state);
        n = 1 + (size_t)(state >> 33) % 100;
        n = n < f->tokens - t ? n : f->tokens - t;
        for (size_t i = 0; i < n * f->heads; i++)
            memcpy(rows + i * f->dim, f->rows + i % f->heads * f->head_stride + (t + i / f->heads) * f->dim, f->dim * sizeof *rows);
        append(&h, &s, id, (uint32_t)n, rows, rows, KVT_F32);
    }
    kvt_sequence entry;
    exit_unless_ok(kvt_cache_entry(h.cache, id, 0, &entry), "an entry");
    const kvt_view_rows all = { .size = sizeof all,
                                .view = kvt_cache_view(h.cache, 0),
                                .sequence = &entry,
                                .n_tokens = f->tokens,
                                .layers = 1,
                                .rows = read,
                                .dtype = KVT_F32,
                                .side_stride = (ptrdiff_t)(f->heads * f->tokens * f->dim * sizeof *read),
                                .token_stride = (ptrdiff_t)(f->dim * sizeof *read),
                                .head_stride = (ptrdiff_t)(f->tokens * f->dim * sizeof *read) };
    exit_unless_ok(kvt_view_read(&all, 0, 1), "rows");
    free(rows);
    close_home(&h);
}

static void print_row_errors(int n, char **paths)
{
    static const kvt_scheme schemes[] = { KVT_SCHEME_kv8, KVT_SCHEME_kv6, KVT_SCHEME_kv5, KVT_SCHEME_kv4, KVT_SCHEME_kv3 };
    for (int i = 0; i < n; i++) {
        const file_rows f = open_file_rows(paths[i]);
        const size_t side = f.heads * f.tokens * f.dim, from = f.tokens > PAGE ? PAGE : 0;
        float *read = memory_of(2 * side * sizeof *read);
        for (size_t k = 0; k < sizeof schemes / sizeof *schemes; k++) {
            read_through(&f, schemes[k], read);
            double energy[2] = { 0 }, error[2] = { 0 };
            for (size_t at = 0; at < 2 * side; at++) {
                const size_t token = at / f.dim % f.tokens, which = at / side;
                const double exact = (double)f.rows[at % side / (f.tokens * f.dim) * f.head_stride + token * f.dim + at % f.dim];
                const double difference = (double)read[at] - exact;
                energy[which] += token >= from ? exact * exact : 0;
                error[which] += token >= from ? difference * difference : 0;
            }
            printf("%s %s from %zu: as keys %.9g dB, as values %.9g dB\n", paths[i], kvt_scheme_get(schemes[k])->name, from,
                   10 * log10(energy[0] / error[0]), 10 * log10(energy[1] / error[1]));
        }
        free(read), free(f.rows);
    }
}

/* ---- shift ---- */

/* The exact row at a position. */
static void turned(const double *frequencies, uint32_t dim, const float *row, double position, double *out)
{
    for (uint32_t i = 0; i < dim / 2; i++) {
        const double c = cos(position * frequencies[i]), s = sin(position * frequencies[i]), a = (double)row[i], b = (double)row[i + dim / 2];
        out[i] = a * c - b * s;
        out[i + dim / 2] = a * s + b * c;
    }
}

static double error_of(const home *h, const shape *s, uint32_t id, const float *rows, double shifted)
{
    float *read = memory_of(s->tokens * 2 * s->dim * sizeof *read);
    kvt_sequence entry;
    exit_unless_ok(kvt_cache_entry(h->cache, id, 0, &entry), "an entry");
    const kvt_view_rows all = { .size = sizeof all,
                                .view = kvt_cache_view(h->cache, 0),
                                .sequence = &entry,
                                .n_tokens = s->tokens,
                                .layers = 1,
                                .rows = read,
                                .dtype = KVT_F32,
                                .side_stride = (ptrdiff_t)(s->tokens * s->dim * sizeof *read),
                                .token_stride = (ptrdiff_t)(s->dim * sizeof *read),
                                .head_stride = (ptrdiff_t)(s->dim * sizeof *read) };
    exit_unless_ok(kvt_view_read(&all, 0, 1), "rows");
    double error = 0, energy = 0, exact[KVT_MAX_DIM];
    for (size_t t = 0; t < s->tokens; t++) {
        turned(h->frequencies, s->dim, rows + t * s->dim, (double)t + shifted, exact);
        for (uint32_t c = 0; c < s->dim; c++) {
            const double difference = (double)read[t * s->dim + c] - exact[c];
            error += difference * difference;
            energy += exact[c] * exact[c];
        }
    }
    free(read);
    return sqrt(error / energy);
}

static void shift(void)
{
    enum { TOKENS = 1024 };
    static const kvt_scheme schemes[] = { KVT_SCHEME_f16, KVT_SCHEME_bf16, KVT_SCHEME_q8_0, KVT_SCHEME_kv8, KVT_SCHEME_kv6,
                                          KVT_SCHEME_kv5, KVT_SCHEME_q4_0, KVT_SCHEME_kv4,  KVT_SCHEME_kv3, KVT_SCHEME_kv2 };
    static const int by[] = { 1, 64, 1000, 4096 };
    const shape s = { 1, 1, 128, TOKENS, 1 };
    float *rows = memory_of(TOKENS * s.dim * sizeof *rows), *keys = memory_of(TOKENS * s.dim * sizeof *keys);
    uint64_t state = 7;
    for (size_t i = 0; i < (size_t)TOKENS * s.dim; i++)
        rows[i] = near_normal(&state) + (i % s.dim % 16 == 0 ? 4 : 0); /* some channels have a mean, as keys' have */
    printf("| scheme | as stored |");
    for (size_t i = 0; i < 4; i++)
        printf(" by %d, once | ten times |", by[i]);
    printf("\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    for (size_t n = 0; n < sizeof schemes / sizeof *schemes; n++) {
        printf("| %s |", kvt_scheme_get(schemes[n])->name);
        for (size_t i = 0; i < 4; i++) {
            home h;
            open_home(&h, &s, schemes[n], NULL, NULL);
            for (size_t t = 0; t < TOKENS; t++) {
                double exact[KVT_MAX_DIM];
                turned(h.frequencies, s.dim, rows + t * s.dim, (double)t, exact);
                for (uint32_t c = 0; c < s.dim; c++)
                    keys[t * s.dim + c] = (float)exact[c];
            }
            uint32_t id;
            exit_unless_ok(kvt_cache_new(h.cache, &id), "a sequence");
            append(&h, &s, id, TOKENS, keys, keys, KVT_F32);
            if (i == 0)
                printf(" %.5f |", error_of(&h, &s, id, rows, 0));
            for (int times = 1; times <= 10; times++) {
                exit_unless_ok(kvt_cache_shift(h.cache, id, 0, TOKENS, by[i]), "shifting");
                exit_unless_ok(kvt_cache_work(h.cache, id, 0, 1, h.scratch, kvt_cache_work_bytes(h.cache)), "shifting");
                if (times == 1 || times == 10)
                    printf(" %.5f |", error_of(&h, &s, id, rows, (double)times * by[i]));
            }
            close_home(&h);
        }
        printf("\n");
    }
    free(rows), free(keys);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "costs") == 0)
        costs();
    else if (argc == 2 && strcmp(argv[1], "steps") == 0)
        steps();
    else if (argc > 2 && strcmp(argv[1], "rows") == 0)
        print_row_errors(argc - 2, argv + 2);
    else if (argc == 2 && strcmp(argv[1], "shift") == 0)
        shift();
    else {
        fprintf(stderr, "Usage: kvtile-cache costs | steps | rows FILE... | shift\n");
        return 2;
    }
    return 0;
}
