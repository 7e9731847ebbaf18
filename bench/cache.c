/* What kvtile/cache.h costs, and what shifting costs in accuracy.
 *   kvtile-cache costs     appending a token, forking, opening and loading a saved sequence, shifting: 32 layers, 8 KV heads of 128
 *   kvtile-cache shift     errors of keys that were shifted where they lie, against keys that were made for their positions */
#include <kvtile/saved.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void must(kvt_status status, const char *what)
{
    if (status) {
        fprintf(stderr, "kvtile-cache: %s: %s\n", what, kvt_status_text(status));
        exit(1);
    }
}

static void *memory_of(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (memory == NULL) {
        fprintf(stderr, "kvtile-cache: %zu bytes: more memory than there is\n", bytes);
        exit(1);
    }
    return memory;
}

/* About normal. */
static float normal(uint64_t *state)
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *state = *state * 6364136223846793005 + 1442695040888963407;
        sum += (float)(*state >> 40) * 0x1p-24f;
    }
    return sum - 6;
}

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

static void open_home(home *h, const shape *s, kvt_scheme scheme, const kvt_spec *preset, const kvt_spec *first)
{
    kvt_spec spec = { .size = sizeof spec, .k_scheme = scheme, .v_scheme = scheme, .k_dim = s->dim, .v_dim = s->dim, .kv_heads = s->heads };
    spec.k_options = spec.v_options = (kvt_side_options){ .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_OWN };
    const kvt_rope_parameters parameters = { .size = sizeof parameters, .dim = s->dim, .base = 10000 };
    must(kvt_rope_fill(&parameters, h->frequencies), "frequencies");
    const kvt_rope rope = { .size = sizeof rope, .frequencies = h->frequencies, .pairs = s->dim / 2 };
    const kvt_cache_group group = { .size = sizeof group,
                                    .spec = preset ? preset : &spec,
                                    .first_spec = first,
                                    .open_dtype = KVT_BF16,
                                    .layers = s->layers,
                                    .blocks = (s->tokens / 64 + 1) * 2,
                                    .rope = &rope };
    const kvt_cache_spec wanted = { .size = sizeof wanted, .groups = &group, .n_groups = 1, .sequences = s->sequences, .tokens = s->tokens };
    size_t bytes;
    must(kvt_cache_bytes(&wanted, &bytes), "a cache");
    h->memory = memory_of(bytes);
    must(kvt_cache_init(&wanted, h->memory, bytes, &h->cache), "a cache");
    const kvt_step_limits limits = { 1, s->tokens, 4096, s->heads, 1 };
    must(kvt_step_workspace(kvt_cache_view(h->cache, 0), &limits, &h->workspace_bytes), "a workspace");
    h->workspace = memory_of(h->workspace_bytes);
    h->scratch = memory_of(kvt_cache_work_bytes(h->cache));
}

static void close_home(const home *h)
{
    free(h->memory), free(h->workspace), free(h->scratch);
}

/* New tokens in all layers, with the same rows, of `dtype`. */
static void append(const home *h, const shape *s, uint32_t id, uint32_t fresh, const void *k, const void *v, kvt_dtype dtype)
{
    must(kvt_cache_append(h->cache, id, fresh), "blocks");
    kvt_sequence entry;
    must(kvt_cache_entry(h->cache, id, 0, &entry), "an entry");
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
        must(kvt_step_append(&step, 0, 1), "rows");
    }
    must(kvt_cache_commit(h->cache, id, fresh), "tokens");
}

/* ---- costs ---- */

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
        const float x = normal(&state);
        uint32_t bits;
        memcpy(&bits, &x, 4);
        rows[i] = (uint16_t)(bits >> 16);
    }
    return rows;
}

static void costs(void)
{
    enum { TOKENS = 32768, FRESH = 1024, FORKS = 20 };
    static const kvt_scheme schemes[] = { KVT_SCHEME_f16, KVT_SCHEME_kv8, KVT_SCHEME_kv5, KVT_SCHEME_kv4 };
    shape s = { 32, 8, 128, 2048, 2 };
    uint16_t *rows = bf16_rows((size_t)FRESH * s.heads * s.dim);
    printf("scheme  append of a token, 32 layers\n");
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        home h;
        open_home(&h, &s, schemes[i], NULL, NULL);
        uint32_t id;
        must(kvt_cache_new(h.cache, &id), "a sequence");
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
    must(kvt_preset_spec(KVT_PRESET_BALANCED, &spec, &first), "a preset");
    home h;
    open_home(&h, &s, KVT_SCHEME_f16, &spec, &first);
    uint32_t id, fork;
    must(kvt_cache_new(h.cache, &id), "a sequence");
    for (int t = 0; t < TOKENS; t += FRESH)
        append(&h, &s, id, FRESH, rows, rows, KVT_BF16);
    append(&h, &s, id, 30, rows, rows, KVT_BF16);
    double best = 1;
    for (int i = 0; i < FORKS; i++) {
        const double start = now();
        must(kvt_cache_fork(h.cache, id, &fork), "a fork");
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
        must(kvt_cache_free(h.cache, fork), "a fork");
    }
    printf("fork of %zu tokens %.1f us\n", kvt_cache_tokens(h.cache, id), best * 1e6);
    uint32_t *ids = memory_of((TOKENS + 64) * sizeof *ids);
    memset(ids, 0, (TOKENS + 64) * sizeof *ids);
    const kvt_save save = { .size = sizeof save, .token_ids = ids };
    size_t bytes;
    must(kvt_cache_save_bytes(h.cache, id, &save, &bytes), "saving");
    tape to = { .bytes = memory_of(bytes) };
    memset(to.bytes, 0, bytes);
    double start = now();
    must(kvt_cache_save(h.cache, id, &save, write_tape, &to, h.scratch, kvt_cache_work_bytes(h.cache)), "saving");
    printf("saving %.0f MB to memory %.1f ms\n", (double)bytes * 1e-6, (now() - start) * 1e3);
    kvt_saved saved;
    kvt_view view;
    kvt_sequence entry;
    start = now();
    must(kvt_saved_open(to.bytes, bytes, &saved, NULL, 0), "opening");
    must(kvt_saved_view(&saved, bytes, 0, &view, &entry), "opening");
    printf("opening what lies in memory %.4f ms\n", (now() - start) * 1e3);
    must(kvt_cache_free(h.cache, id), "a sequence");
    must(kvt_cache_new(h.cache, &id), "a sequence");
    to.at = saved.head_bytes;
    start = now();
    must(kvt_cache_load(h.cache, id, &saved, 0, read_tape, &to), "loading");
    printf("loading from memory %.1f ms\n", (now() - start) * 1e3);
    start = now();
    must(kvt_cache_remove(h.cache, id, 64, 64 + 4096, KVT_POSITIONS_CLOSE), "removing");
    must(kvt_cache_work(h.cache, id, 0, 1, h.scratch, kvt_cache_work_bytes(h.cache)), "removing");
    printf("removing 4096 of them at the front, 4 layers, 1 worker %.1f ms\n", (now() - start) * 1e3);
    close_home(&h);
    free(to.bytes), free(ids), free(rows);
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
    must(kvt_cache_entry(h->cache, id, 0, &entry), "an entry");
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
    must(kvt_view_read(&all, 0, 1), "rows");
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
        rows[i] = normal(&state) + (i % s.dim % 16 == 0 ? 4 : 0); /* some channels have a mean, as keys' have */
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
            must(kvt_cache_new(h.cache, &id), "a sequence");
            append(&h, &s, id, TOKENS, keys, keys, KVT_F32);
            if (i == 0)
                printf(" %.5f |", error_of(&h, &s, id, rows, 0));
            for (int times = 1; times <= 10; times++) {
                must(kvt_cache_shift(h.cache, id, 0, TOKENS, by[i]), "shifting");
                must(kvt_cache_work(h.cache, id, 0, 1, h.scratch, kvt_cache_work_bytes(h.cache)), "shifting");
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
    else if (argc == 2 && strcmp(argv[1], "shift") == 0)
        shift();
    else {
        fprintf(stderr, "Usage: kvtile-cache costs | shift\n");
        return 2;
    }
    return 0;
}
