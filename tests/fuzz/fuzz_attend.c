/* SPDX-License-Identifier: MIT */
/* kvt_attend: layouts (latents too), ranges, masks, page tables, strides and pages that are whatever bytes the input has. What is refused is refused
 * by all functions; what is not has the same result on every tier, and in chunks. Pages, queries, results and workspaces are exactly as large as they
 * have to be. */
#include <kvtile/attend.h>

#include "fuzz_cache.h"

#define MAX_SEGMENTS 3
#define MAX_PAGES    6

static size_t take_token(source *s)
{
    const uint32_t word = take(s, 2);
    return word == 0xffff ? SIZE_MAX : word == 0xfffe ? SIZE_MAX - 3 : word % 1100;
}

typedef struct attend_input {
    kvt_layout layouts[MAX_SEGMENTS];
    kvt_segment segments[MAX_SEGMENTS];
    void *tables[MAX_SEGMENTS][MAX_PAGES];
    uint8_t *memory[MAX_SEGMENTS];
    float sinks[KVT_MAX_GROUP];
    kvt_attention a;
    uint8_t *queries, *out;
    size_t out_bytes;
} attend_input;

static int make_segment(source *s, attend_input *in, size_t i, size_t *next)
{
    kvt_spec spec = { .size = sizeof spec, .kv_heads = 1 };
    spec.k_scheme = take_scheme(s);
    spec.v_scheme = take_scheme(s);
    spec.k_options = i == 0 ? take_options(s) : in->layouts[0].spec.k_options;
    spec.v_options = i == 0 ? take_options(s) : in->layouts[0].spec.v_options;
    spec.k_dim = i == 0 ? 1 + take(s, 1) : in->layouts[0].k.dim;
    const uint32_t width = i == 0 ? take(s, 1) : 0; /* of values; or of a latent's rotary part */
    spec.v_dim = i > 0 ? in->layouts[0].v.dim : width < 200 ? 1 + width : 0;
    spec.rope_dim = i > 0 ? in->layouts[0].rope.dim : width < 200 ? 0 : width - 200;
    spec.rope_scheme = spec.v_scheme;
    spec.rope_options = spec.v_options;
    if (kvt_layout_init(&in->layouts[i], &spec) != KVT_OK) { /* options that only some schemes have */
        spec.k_scheme = spec.v_scheme = spec.rope_scheme = KVT_SCHEME_kv4;
        spec.k_options.fp8_block = spec.v_options.fp8_block = spec.rope_options.fp8_block = 0;
        spec.k_options.fp8_scale = spec.v_options.fp8_scale = spec.rope_options.fp8_scale = KVT_FP8_SCALE_F32;
        if (kvt_layout_init(&in->layouts[i], &spec) != KVT_OK)
            return -1;
    }
    const size_t page = in->layouts[i].page_bytes, count = 1 + take(s, 1) % MAX_PAGES, shift = take(s, 1) % 3;
    const uint32_t kind = take(s, 1);
    in->segments[i] = (kvt_segment){ .layout = &in->layouts[i], .first_token = kind < 250 ? *next : take_token(s) };
    *next = in->segments[i].first_token + count * KVT_PAGE_TOKENS;
    in->memory[i] = block(count * page + shift);
    fill(s, in->memory[i], count * page + shift);
    uint8_t *base = in->memory[i] + shift; /* of no alignment */
    in->segments[i].pages = (kvt_pages){ .base = base, .stride = page, .count = count };
    if (kind % 2 == 0) {
        for (size_t p = 0; p < count; p++) {
            const uint32_t at = take(s, 1);
            in->tables[i][p] = at == 255 ? NULL : base + at % count * page; /* the same page more than once is allowed */
        }
        in->segments[i].pages = (kvt_pages){ .table = in->tables[i], .count = count };
    }
    return 0;
}

/* Returns 0, or -1 when there is nothing to attend to. */
static int make(source *s, attend_input *in)
{
    memset(in, 0, sizeof *in);
    kvt_attention *a = &in->a;
    size_t next = 0;
    *a = (kvt_attention){ .size = sizeof *a, .segments = in->segments, .n_segments = 1 + take(s, 1) % MAX_SEGMENTS };
    for (size_t i = 0; i < a->n_segments; i++)
        if (make_segment(s, in, i, &next) != 0)
            return -1;
    a->group = take(s, 1) % (KVT_MAX_GROUP + 2);
    a->query_tokens = take(s, 1) % 7;
    a->end = take(s, 1) < 200 ? next : take_token(s);
    a->begin = take(s, 1) < 128 ? 0 : take_token(s);
    a->position = take(s, 1) < 128 ? next - a->query_tokens : take_token(s);
    a->window = take(s, 1) < 128 ? 0 : take_token(s);
    a->scale = take_float(s);
    a->soft_cap = take(s, 1) < 128 ? 0 : take_float(s);
    a->query_dtype = (kvt_dtype)(take(s, 1) % 5);
    a->out_dtype = (kvt_dtype)(take(s, 1) % 5);
    if (take(s, 1) % 3 == 0) {
        for (size_t h = 0; h < KVT_MAX_GROUP; h++)
            in->sinks[h] = take_float(s);
        a->sinks = in->sinks;
    }
    const size_t heads = a->group > 0 ? a->group : 1, tokens = a->query_tokens > 0 ? a->query_tokens : 1;
    const kvt_layout *first = &in->layouts[0];
    const size_t query_row = (first->k.dim + first->rope.dim) * sizeof(float), out_row = (first->v.dim ? first->v.dim : first->k.dim) * sizeof(float);
    a->query_head_stride = take_stride(s, query_row);
    a->query_token_stride = take_stride(s, query_row * heads);
    a->out_head_stride = take_stride(s, out_row);
    a->out_token_stride = take_stride(s, out_row * heads);
    size_t before;
    const size_t query_bytes = extent(a->query_token_stride, tokens, a->query_head_stride, heads, query_row, &before);
    in->queries = block(query_bytes);
    fill(s, in->queries, query_bytes);
    a->queries = in->queries + before;
    in->out_bytes = extent(a->out_token_stride, tokens, a->out_head_stride, heads, out_row, &before);
    in->out = block(in->out_bytes);
    a->out = in->out + before;
    return 0;
}

static void use_tier(attend_input *in, unsigned id)
{
    for (size_t i = 0; i < in->a.n_segments; i++) {
        kvt_spec spec = in->layouts[i].spec;
        must(kvt_tiers_parse(kvt_tier_name(id), &spec.tiers) == KVT_OK);
        must(kvt_layout_init(&in->layouts[i], &spec) == KVT_OK);
    }
}

/* The result to `to`; `splits`: chunk by chunk, and merged. */
static kvt_status attend(attend_input *in, int splits, uint8_t *to)
{
    kvt_attend_sizes sizes = { 0 };
    kvt_status status = kvt_attend_plan_sizes(&in->a, &sizes);
    memset(in->out, 0xa5, in->out_bytes);
    uint8_t *workspace = block(sizes.workspace_bytes), *partials = block(splits ? sizes.chunks * sizes.partial_bytes : 0);
    memset(workspace, 0xff, sizes.workspace_bytes);
    if (status == KVT_OK && !splits)
        status = kvt_attend(&in->a, workspace);
    for (size_t c = 0; status == KVT_OK && splits && c < sizes.chunks; c++)
        status = kvt_attend_chunks(&in->a, c, 1, partials, workspace);
    if (status == KVT_OK && splits)
        status = kvt_merge(&in->a, partials, workspace);
    free(workspace);
    free(partials);
    memcpy(to, in->out, in->out_bytes);
    return status;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static attend_input in;
    source s = { bytes, size };
    if (make(&s, &in) == 0) {
        uint8_t *want = block(in.out_bytes), *got = block(in.out_bytes);
        use_tier(&in, 0);
        const kvt_status status = attend(&in, 0, want);
        for (unsigned id = 0; id < 32; id++) {
            if ((kvt_tiers_usable() >> id & 1) == 0)
                continue;
            use_tier(&in, id);
            for (int splits = 0; splits < 2; splits++) {
                must(attend(&in, splits, got) == status);
                must(memcmp(got, want, in.out_bytes) == 0);
            }
        }
        for (size_t i = 0; status != KVT_OK && i < in.out_bytes; i++)
            must(want[i] == 0xa5);
        free(want);
        free(got);
    }
    for (size_t i = 0; i < MAX_SEGMENTS; i++)
        free(in.memory[i]);
    free(in.queries);
    free(in.out);
    return 0;
}
