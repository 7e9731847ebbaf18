/* SPDX-License-Identifier: MIT */
/* kvt_mla_write, kvt_mla_expand and the blocks of DeepSeek-V4: layouts, ranges, strides, numbers and pages that are whatever bytes the input has.
 * What is refused writes nothing; what is not leaves the same bytes on every tier. All memory is exactly as large as it has to be. */
#include "fuzz_cache.h"

#include <kvtile/mla.h>

#define MAX_PAGES  3
#define MAX_BLOCKS 16
#define MAX_HEADS  4

/* Memory that calls may write to. */
typedef struct target_bytes {
    uint8_t *at, *before, *want; /* what there is; what there was before any call; what the first call left */
    size_t n;
} target_bytes;

typedef struct mla_input {
    kvt_layout layout;
    kvt_pages pages;
    void *table[MAX_PAGES];
    size_t first, n;
    enum { WRITE, EXPAND, V4_IN, V4_OUT } call;
    kvt_mla_rows rows;
    kvt_mla_expansion expansion;
    uint8_t *v4_block;
    size_t v4_tokens, v4_first;
    void *blocks[MAX_BLOCKS]; /* to be freed */
    size_t n_blocks;
    target_bytes targets[3];
    size_t n_targets;
} mla_input;

static uint8_t *filled(mla_input *in, source *s, size_t bytes)
{
    uint8_t *memory = block(bytes);
    must(in->n_blocks < MAX_BLOCKS);
    in->blocks[in->n_blocks++] = memory;
    fill(s, memory, bytes);
    return memory;
}

static uint8_t *target(mla_input *in, source *s, size_t bytes)
{
    uint8_t *at = filled(in, s, bytes);
    target_bytes *added = &in->targets[in->n_targets++];
    *added = (target_bytes){ at, block(bytes), block(bytes), bytes };
    memcpy(added->before, at, bytes);
    return at;
}

static kvt_dtype take_dtype(source *s)
{
    const uint32_t word = take(s, 1);
    return (kvt_dtype)(word < 250 ? 1 + word % 3 : word % 5);
}

static kvt_matrix take_matrix(mla_input *in, source *s, size_t rows, size_t columns)
{
    const kvt_dtype dtype = take_dtype(s);
    const size_t row = columns * (dtype == KVT_F32 ? 4 : 2);
    const ptrdiff_t stride = take_stride(s, row);
    size_t before;
    const size_t bytes = extent(stride, rows, 0, 1, row, &before);
    return (kvt_matrix){ filled(in, s, bytes) + before, dtype, stride };
}

static int make_layout(mla_input *in, source *s)
{
    const uint32_t is_v4 = take(s, 1) % 4 == 0;
    kvt_spec spec = { .size = sizeof spec, .kv_heads = 1, .k_dim = is_v4 ? 448 : 1 + take(s, 1), .rope_dim = is_v4 ? 64 : take(s, 1) % 80 };
    spec.k_scheme = take_scheme(s);
    spec.rope_scheme = take_scheme(s);
    spec.k_options = take_options(s);
    spec.rope_options = take_options(s);
    if (kvt_layout_init(&in->layout, &spec) != KVT_OK) { /* options that only some schemes have */
        spec.k_scheme = spec.rope_scheme = KVT_SCHEME_kv6;
        spec.k_options.fp8_block = spec.rope_options.fp8_block = 0;
        spec.k_options.fp8_scale = spec.rope_options.fp8_scale = KVT_FP8_SCALE_F32;
        return kvt_layout_init(&in->layout, &spec) == KVT_OK ? 0 : -1;
    }
    return 0;
}

static void make_pages(mla_input *in, source *s)
{
    const size_t page = in->layout.page_bytes, count = 1 + take(s, 1) % MAX_PAGES, shift = take(s, 1) % 3;
    uint8_t *base = target(in, s, count * page + shift) + shift; /* of no alignment */
    in->pages = (kvt_pages){ .base = base, .stride = page, .count = count };
    if (take(s, 1) % 2 == 0) {
        for (size_t p = 0; p < count; p++)
            in->table[p] = take(s, 1) < 250 ? base + p * page : NULL;
        in->pages = (kvt_pages){ .table = in->table, .count = count };
    }
    const uint32_t from = take(s, 1), tokens = take(s, 1);
    in->first = from == 255 ? SIZE_MAX : from % (count * KVT_PAGE_TOKENS);
    in->n = tokens >= 250 ? tokens : tokens % (count * KVT_PAGE_TOKENS - in->first % (count * KVT_PAGE_TOKENS) + 1);
}

static void make_rows(mla_input *in, source *s)
{
    const uint32_t rank = in->layout.k.dim, rope = in->layout.rope.dim, kind = take(s, 1);
    const size_t tokens = in->n > 0 ? in->n : 1;
    kvt_mla_rows *r = &in->rows;
    *r = (kvt_mla_rows){ .size = sizeof *r, .norm_epsilon = take_float(s), .rope_pairs = (kvt_rope_pairs)(take(s, 1) % 4) };
    if (kind % 2 == 0) {
        r->hidden_dim = kind < 250 ? 1 + take(s, 1) % 90 : kind == 250 ? 0 : KVT_MAX_HIDDEN + 1;
        r->rows = take_matrix(in, s, tokens, kind < 250 ? r->hidden_dim : 1);
        r->down = take_matrix(in, s, rank + rope, kind < 250 ? r->hidden_dim : 1);
    } else {
        r->rows = take_matrix(in, s, tokens, rank + rope);
    }
    if (take(s, 1) % 3 > 0) {
        r->norm_dtype = take_dtype(s);
        r->norm = filled(in, s, rank * (r->norm_dtype == KVT_F32 ? 4 : 2));
    }
    const size_t turns = tokens * (rope / 2) * sizeof(float);
    r->rope_cos = (float *)(void *)filled(in, s, turns);
    r->rope_sin = take(s, 1) < 250 ? (float *)(void *)filled(in, s, turns) : NULL;
}

static void make_expansion(mla_input *in, source *s)
{
    const uint32_t rank = in->layout.k.dim, rope = in->layout.rope.dim;
    const size_t tokens = in->n > 0 ? in->n : 1;
    kvt_mla_expansion *e = &in->expansion;
    *e = (kvt_mla_expansion){ .size = sizeof *e, .heads = take(s, 1) % (MAX_HEADS + 1), .dtype = take_dtype(s) };
    e->nope_dim = take(s, 1) % 50;
    e->v_dim = take(s, 1) % 50;
    const size_t heads = e->heads > 0 ? e->heads : 1, element = e->dtype == KVT_F32 ? 4 : 2, nope = e->nope_dim > 0 ? e->nope_dim : 1,
                 v_dim = e->v_dim > 0 ? e->v_dim : 1;
    e->k_up = take_matrix(in, s, heads * nope, rank);
    e->v_up = take_matrix(in, s, heads * v_dim, rank);
    e->k_up_head_stride = (ptrdiff_t)nope * e->k_up.row_stride;
    e->v_up_head_stride = (ptrdiff_t)v_dim * e->v_up.row_stride;
    const size_t k_row = (nope + rope) * element, v_row = v_dim * element;
    size_t before;
    e->k_head_stride = take_stride(s, k_row);
    e->k_token_stride = take_stride(s, k_row * heads);
    size_t bytes = extent(e->k_token_stride, tokens, e->k_head_stride, heads, k_row, &before);
    if (take(s, 1) < 200)
        e->k = target(in, s, bytes) + before;
    e->v_head_stride = take_stride(s, v_row);
    e->v_token_stride = take_stride(s, v_row * heads);
    bytes = extent(e->v_token_stride, tokens, e->v_head_stride, heads, v_row, &before);
    if (take(s, 1) < 200)
        e->v = target(in, s, bytes) + before;
}

static void make_v4(mla_input *in, source *s)
{
    in->v4_tokens = take(s, 1);
    const uint32_t first = take(s, 1);
    in->v4_first = first == 255 ? SIZE_MAX : first;
    in->v4_block = target(in, s, in->v4_tokens * KVT_DEEPSEEK_V4_TOKEN_BYTES);
}

static kvt_status run(mla_input *in)
{
    switch (in->call) {
    case WRITE:
        return kvt_mla_write(&in->layout, &in->pages, in->first, in->n, &in->rows);
    case EXPAND:
        return kvt_mla_expand(&in->layout, &in->pages, in->first, in->n, &in->expansion);
    case V4_IN:
        return kvt_deepseek_v4_in(&in->layout, &in->pages, in->first, in->n, in->v4_block, in->v4_tokens, in->v4_first);
    case V4_OUT:
        break;
    }
    return kvt_deepseek_v4_out(&in->layout, &in->pages, in->first, in->n, in->v4_block, in->v4_tokens, in->v4_first);
}

static void run_on_all_tiers(mla_input *in)
{
    kvt_status want = KVT_OK;
    for (unsigned id = 0; id < 32; id++) {
        if ((kvt_tiers_usable() >> id & 1) == 0)
            continue;
        kvt_spec spec = in->layout.spec;
        must(kvt_tiers_parse(kvt_tier_name(id), &spec.tiers) == KVT_OK);
        must(kvt_layout_init(&in->layout, &spec) == KVT_OK);
        for (size_t i = 0; i < in->n_targets; i++)
            memcpy(in->targets[i].at, in->targets[i].before, in->targets[i].n);
        const kvt_status status = run(in);
        must(id == 0 || status == want);
        want = status;
        for (size_t i = 0; i < in->n_targets; i++) {
            const target_bytes *t = &in->targets[i];
            if (id == 0)
                memcpy(t->want, t->at, t->n);
            must(memcmp(t->at, status == KVT_OK ? t->want : t->before, t->n) == 0);
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static mla_input in;
    source s = { bytes, size };
    memset(&in, 0, sizeof in);
    if (make_layout(&in, &s) == 0) {
        make_pages(&in, &s);
        in.call = take(&s, 1) % 4;
        if (in.call == WRITE)
            make_rows(&in, &s);
        else if (in.call == EXPAND)
            make_expansion(&in, &s);
        else
            make_v4(&in, &s);
        run_on_all_tiers(&in);
    }
    for (size_t i = 0; i < in.n_targets; i++) {
        free(in.targets[i].before);
        free(in.targets[i].want);
    }
    for (size_t i = 0; i < in.n_blocks; i++)
        free(in.blocks[i]);
    return 0;
}
