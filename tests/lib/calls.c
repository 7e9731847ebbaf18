/* SPDX-License-Identifier: MIT */
#include "calls.h"

#include <stdlib.h>
#include <string.h>

const char *const test_call_names[TEST_CALLS] = {
    [TEST_LAYOUT_INIT] = "kvt_layout_init",
    [TEST_LAYOUT_BYTES] = "kvt_layout_bytes",
    [TEST_HEAD_PAGES] = "kvt_head_pages",
    [TEST_WRITE] = "kvt_write",
    [TEST_APPEND] = "kvt_append",
    [TEST_READ] = "kvt_read",
    [TEST_ROWS_ENCODE] = "kvt_rows_encode",
    [TEST_ROWS_DECODE] = "kvt_rows_decode",
    [TEST_CONVERT_IN] = "kvt_convert_in",
    [TEST_CONVERT_OUT] = "kvt_convert_out",
    [TEST_ATTEND_PLAN_SIZES] = "kvt_attend_plan_sizes",
    [TEST_ATTEND] = "kvt_attend",
    [TEST_ATTEND_CHUNKS] = "kvt_attend_chunks",
    [TEST_MERGE] = "kvt_merge",
    [TEST_ATTEND_PLAN] = "kvt_attend_plan",
    [TEST_LAYOUT_APART] = "kvt_layout_apart",
    [TEST_LAYOUT_PART_BYTES] = "kvt_layout_part_bytes",
    [TEST_VIEW_OPEN_BYTES] = "kvt_view_open_bytes",
    [TEST_STEP_WORKSPACE] = "kvt_step_workspace",
    [TEST_STEP_APPEND] = "kvt_step_append",
    [TEST_STEP_ATTEND] = "kvt_step_attend",
    [TEST_STEP_MERGE] = "kvt_step_merge",
    [TEST_VIEW_WRITE] = "kvt_view_write",
    [TEST_VIEW_READ] = "kvt_view_read",
    [TEST_MLA_WRITE] = "kvt_mla_write",
    [TEST_MLA_EXPAND] = "kvt_mla_expand",
    [TEST_V4_IN] = "kvt_deepseek_v4_in",
    [TEST_V4_OUT] = "kvt_deepseek_v4_out",
    [TEST_SIZE] = "kvt_size",
    [TEST_LONGEST_CONTEXT] = "kvt_size_longest_context",
    [TEST_MOST_SEQUENCES] = "kvt_size_most_sequences",
    [TEST_TIERS_PARSE] = "kvt_tiers_parse",
};

static bool is_latent(const test_calls *calls)
{
    return calls->right.layout_value.rope.dim > 0;
}

bool test_call_applies(const test_calls *calls, test_call call)
{
    const kvt_layout *layout = &calls->right.layout_value;
    if (call == TEST_V4_IN || call == TEST_V4_OUT)
        return layout->k.dim == 448 && layout->rope.dim == 64;
    if (call == TEST_MLA_WRITE || call == TEST_MLA_EXPAND)
        return is_latent(calls);
    if (call == TEST_LAYOUT_APART)
        return layout->v.dim > 0;
    return true;
}

static unsigned char *buffer(test_calls *calls, test_buffer which, size_t bytes, uint64_t *state)
{
    calls->arenas[which] = test_arena_make(bytes);
    calls->bytes[which] = bytes;
    calls->at[which] = test_arena_flush(&calls->arenas[which], bytes, true);
    test_fill(state, calls->at[which], bytes);
    return calls->at[which];
}

static void make_pages(test_calls *calls, uint64_t *state)
{
    test_arguments *a = &calls->right;
    const kvt_layout *layout = &a->layout_value;
    const size_t page = layout->page_bytes;
    a->n_heads = layout->spec.kv_heads;
    a->base = buffer(calls, TEST_PAGE_BYTES, layout->spec.kv_heads * TEST_PAGES * page, state);
    const bool has_tables = test_below(state, 2) == 0;
    for (uint32_t h = 0; h < layout->spec.kv_heads; h++) {
        unsigned char *first = calls->at[TEST_PAGE_BYTES] + h * TEST_PAGES * page;
        for (size_t p = 0; p < TEST_PAGES; p++)
            calls->tables[h * TEST_PAGES + p] = first + p * page;
        a->pages_value[h] = has_tables ? (kvt_pages){ .table = calls->tables + h * TEST_PAGES, .count = TEST_PAGES }
                                       : (kvt_pages){ .base = first, .stride = page, .count = TEST_PAGES };
    }
    /* Pages of their own centres are written from their first token on; the others from the middle of a tile on, over a page's end. */
    const bool is_own = layout->spec.k_options.centring == KVT_CENTRING_OWN || layout->spec.v_options.centring == KVT_CENTRING_OWN ||
                        layout->spec.rope_options.centring == KVT_CENTRING_OWN;
    a->first = is_own ? KVT_PAGE_TOKENS : KVT_PAGE_TOKENS - 3;
    a->n = TEST_TOKENS;
    a->tokens = TEST_PAGES * KVT_PAGE_TOKENS;
}

static void make_attention(test_calls *calls, uint64_t *state)
{
    test_arguments *a = &calls->right;
    const kvt_layout *layout = &a->layout_value;
    const uint32_t query_dim = layout->k.dim + layout->rope.dim, out_dim = layout->v.dim ? layout->v.dim : layout->k.dim;
    const size_t rows = TEST_QUERIES * TEST_GROUP;
    for (size_t i = 0; i < TEST_SEGMENTS; i++) /* the same pages twice */
        a->segments[i] = (kvt_segment){ .pages = a->pages_value[0], .first_token = i * TEST_PAGES * KVT_PAGE_TOKENS };
    const ptrdiff_t query_row = (ptrdiff_t)(query_dim * sizeof(float)), out_row = (ptrdiff_t)(out_dim * sizeof(float));
    a->attention_value = (kvt_attention){
        .size = sizeof(kvt_attention),
        .n_segments = TEST_SEGMENTS,
        .end = 2 * TEST_PAGES * KVT_PAGE_TOKENS - 5,
        .position = 2 * TEST_PAGES * KVT_PAGE_TOKENS - 5 - TEST_QUERIES,
        .group = TEST_GROUP,
        .query_tokens = TEST_QUERIES,
        .queries = calls->at[TEST_ROW_BYTES],
        .query_dtype = KVT_F32,
        .out_dtype = KVT_F32,
        .query_token_stride = query_row * TEST_GROUP,
        .query_head_stride = query_row,
        .out = buffer(calls, TEST_OUT,
                      rows * (size_t)out_row > TEST_TOKENS * TEST_HEADS * (size_t)query_row ? rows * (size_t)out_row
                                                                                            : TEST_TOKENS * TEST_HEADS * (size_t)query_row,
                      state),
        .out_token_stride = out_row * TEST_GROUP,
        .out_head_stride = out_row,
        .scale = 0.125f,
    };
    kvt_attend_sizes sizes;
    test_arguments sized = *a;
    sized.attention_value.segments = sized.segments;
    sized.segments[0].layout = sized.segments[1].layout = layout;
    TEST_REQUIRE(kvt_attend_plan_sizes(&sized.attention_value, &sizes) == KVT_OK, "kvt_attend_plan_sizes");
    a->workspace = buffer(calls, TEST_WORKSPACE, sizes.workspace_bytes, state);
    a->partials = buffer(calls, TEST_PARTIALS, sizes.chunks * sizes.partial_bytes, state);
    a->n_chunks = sizes.chunks;
}

/* A step of two sequences: the first fills a page, and begins another. (If it began within a page, attending would ask for what
 * appending keeps in the workspace.) */
static void make_step(test_calls *calls, kvt_dtype dtype, uint64_t *state)
{
    test_arguments *a = &calls->right;
    const kvt_layout *layout = &a->layout_value;
    enum { LAYERS = 2, OPENS = 2 * TEST_SEQUENCES, STORED = 64, FRESH = 70, FEW = 3, ALL = FRESH + FEW, BLOCKS = TEST_SEQUENCES * TEST_PAGES };
    const size_t heads = layout->spec.kv_heads;
    const uint32_t query_dim = layout->k.dim + layout->rope.dim, second = layout->v.dim + layout->rope.dim;
    size_t open;
    TEST_REQUIRE(kvt_view_open_bytes(layout, KVT_F16, &open) == KVT_OK, "kvt_view_open_bytes");
    a->view_value = (kvt_view){ .size = sizeof(kvt_view), .open_dtype = KVT_F16, .layers = LAYERS };
    const size_t page = layout->page_bytes;
    a->view_value.pages = (kvt_pool){ NULL, BLOCKS, page * heads * BLOCKS, page, page * BLOCKS };
    a->view_value.pages.base = buffer(calls, TEST_STEP_PAGES, LAYERS * a->view_value.pages.layer_stride, state);
    a->view_value.open_pages = (kvt_pool){ NULL, OPENS, open * heads * OPENS, open * heads, open };
    a->view_value.open_pages.base = buffer(calls, TEST_STEP_OPEN, LAYERS * a->view_value.open_pages.layer_stride, state);
    for (uint32_t i = 0; i < TEST_SEQUENCES; i++) {
        for (uint32_t p = 0; p < TEST_PAGES; p++)
            a->blocks[i][p] = (TEST_PAGES - 1 - p) * TEST_SEQUENCES + i;
        a->sequences[i] = (kvt_sequence){ .n_blocks = TEST_PAGES, .open = { 2 * i, 2 * i + 1 }, .stored = i ? 0 : STORED, .fresh = i ? FEW : FRESH };
    }
    a->run = (kvt_run){ 3, 100 };
    a->mask = (kvt_mask){ .n_runs = 1 };
    const size_t number = kvt_dtype_bytes(dtype), group = 2, q = ALL * heads * group * query_dim * number, k = ALL * heads * layout->k.dim * number;
    unsigned char *rows = buffer(calls, TEST_STEP_ROWS, q + k + ALL * heads * second * number, state);
    const uint32_t out_dim = layout->v.dim ? layout->v.dim : layout->k.dim;
    const size_t results = ALL * heads * group * out_dim * sizeof(float), row = (layout->k.dim > second ? layout->k.dim : second) * sizeof(float),
                 read = 2 * LAYERS * STORED * heads * row;
    a->step_value = (kvt_step){
        .size = sizeof(kvt_step),
        .layer = 1,
        .n_sequences = TEST_SEQUENCES,
        .heads = (uint32_t)(heads * group),
        .dtype = dtype,
        .q = rows,
        .k = rows + q,
        .v = second ? rows + q + k : NULL,
        .out = buffer(calls, TEST_STEP_OUT, results > read ? results : read, state),
        .out_dtype = KVT_F32,
        .scale = 0.125f,
    };
    a->limits_value =
        (kvt_step_limits){ .sequences = TEST_SEQUENCES, .tokens = STORED + FRESH, .fresh = ALL, .heads = a->step_value.heads, .workers = 3 };
    kvt_view view = a->view_value;
    view.layout = layout;
    TEST_REQUIRE(kvt_step_workspace(&view, &a->limits_value, &a->step_value.workspace_bytes) == KVT_OK, "kvt_step_workspace");
    a->step_value.workspace_bytes = (a->step_value.workspace_bytes + 63) / 64 * 64;
    a->step_value.workspace = buffer(calls, TEST_STEP_WORK, a->step_value.workspace_bytes, state);
    a->step_worker = 1;
    a->view_rows_value = (kvt_view_rows){
        .size = sizeof(kvt_view_rows),
        .n_tokens = STORED,
        .layers = LAYERS,
        .rows = a->step_value.out,
        .dtype = KVT_F32,
        .side_stride = (ptrdiff_t)(LAYERS * STORED * heads * row),
        .layer_stride = (ptrdiff_t)(STORED * heads * row),
        .token_stride = (ptrdiff_t)(heads * row),
        .head_stride = (ptrdiff_t)row,
    };
}

static void make_mla(test_calls *calls, uint64_t *state)
{
    test_arguments *a = &calls->right;
    const uint32_t rank = a->layout_value.k.dim, rope = a->layout_value.rope.dim;
    const ptrdiff_t float_row = sizeof(float);
    a->mla_rows_value = (kvt_mla_rows){
        .size = sizeof(kvt_mla_rows),
        .rows = { calls->at[TEST_ROW_BYTES], KVT_F32, TEST_HIDDEN * float_row },
        .down = { calls->numbers, KVT_F32, TEST_HIDDEN * float_row },
        .hidden_dim = TEST_HIDDEN,
        .norm = calls->numbers,
        .norm_dtype = KVT_F32,
        .norm_epsilon = 1e-6f,
        .rope_pairs = rope % 2 ? KVT_ROPE_PAIRS_NONE : KVT_ROPE_PAIRS_HALVES,
        .rope_cos = calls->numbers,
        .rope_sin = calls->numbers,
    };
    const uint32_t expanded = rank < 96 ? rank : 96;
    const ptrdiff_t k_row = (ptrdiff_t)(expanded + rope) * float_row, v_row = expanded * float_row;
    a->expansion_value = (kvt_mla_expansion){
        .size = sizeof(kvt_mla_expansion),
        .heads = TEST_HEADS,
        .nope_dim = expanded,
        .v_dim = expanded,
        .k_up = { calls->numbers, KVT_F32, float_row }, /* rows that overlap */
        .v_up = { calls->numbers, KVT_F32, float_row },
        .k_up_head_stride = float_row,
        .v_up_head_stride = float_row,
        .dtype = KVT_F32,
        .k = calls->at[TEST_OUT],
        .k_token_stride = TEST_HEADS * k_row,
        .k_head_stride = k_row,
        .v = buffer(calls, TEST_OUT_V, (size_t)(TEST_TOKENS * TEST_HEADS * v_row), state),
        .v_token_stride = TEST_HEADS * v_row,
        .v_head_stride = v_row,
    };
    a->block_tokens = TEST_TOKENS + 7;
    a->first_in_block = 5;
    a->block = buffer(calls, TEST_BLOCK, a->block_tokens * KVT_DEEPSEEK_V4_TOKEN_BYTES, state);
}

void test_calls_make(test_calls *calls, const kvt_spec *spec, kvt_row_format format, kvt_dtype dtype, uint64_t seed)
{
    uint64_t state = seed;
    memset(calls, 0, sizeof *calls);
    test_arguments *a = &calls->right;
    a->spec_value = *spec;
    TEST_REQUIRE(kvt_layout_init(&a->layout_value, spec) == KVT_OK, "kvt_layout_init");
    const kvt_layout *layout = &a->layout_value;
    make_pages(calls, &state);

    a->side = layout->v.dim ? (kvt_side)test_below(&state, 2) : layout->rope.dim ? (test_below(&state, 2) ? KVT_ROPE : KVT_K) : KVT_K;
    a->dim = a->side == KVT_K ? layout->k.dim : a->side == KVT_V ? layout->v.dim : layout->rope.dim;
    a->dtype = dtype;
    a->row_stride = (ptrdiff_t)(a->dim * kvt_dtype_bytes(dtype));
    a->format = format;
    a->encoded_stride = (ptrdiff_t)kvt_row_format_bytes(format, a->dim);
    const size_t rows = TEST_TOKENS * (size_t)(layout->k.dim + layout->v.dim + layout->rope.dim + TEST_HIDDEN) * sizeof(float);
    a->rows = buffer(calls, TEST_ROW_BYTES, rows, &state);
    for (size_t i = 0; i < rows / sizeof(float); i++) {
        const float x = (float)test_normal(&state);
        memcpy((unsigned char *)a->rows + i * sizeof x, &x, sizeof x);
    }
    a->encoded = buffer(calls, TEST_ENCODED, TEST_TOKENS * (size_t)a->encoded_stride, &state);
    a->options_value = (kvt_row_options){ .size = sizeof(kvt_row_options) };

    const size_t n_numbers = (size_t)(KVT_MAX_DIM * 2) * TEST_HIDDEN;
    calls->numbers = test_malloc(n_numbers * sizeof *calls->numbers);
    for (size_t i = 0; i < n_numbers; i++)
        calls->numbers[i] = (float)test_uniform(&state) - 0.5f;
    make_attention(calls, &state);
    make_mla(calls, &state);
    make_step(calls, dtype, &state);

    a->heads = 8;
    a->chunks = 5;
    a->workers = 3;
    a->worker = 2;
    a->group = (kvt_layer_group){ .kind = KVT_LAYER_FULL, .count = 4, .kv_heads = 8, .k_dim = 128, .v_dim = 128 };
    a->model_value = (kvt_model){ .name = "test", .n_groups = 1 };
    a->request_value = (kvt_size_request){ .size = sizeof(kvt_size_request), .engine = KVT_ENGINE_kvtile, .context = 1000, .sequences = 2 };
    a->budget = UINT64_C(1) << 30;
    a->tier_text = "scalar";
    a->results = &calls->results;
    test_fill(&state, &calls->results, sizeof calls->results);
}

void test_calls_free(test_calls *calls)
{
    for (size_t i = 0; i < TEST_BUFFERS; i++)
        test_arena_free(&calls->arenas[i]);
    free(calls->numbers);
}

void test_calls_copy(const test_calls *calls, test_arguments *to)
{
    *to = calls->right;
    to->spec = &to->spec_value;
    to->layout = &to->layout_value;
    to->pages = to->pages_value;
    to->options = &to->options_value;
    for (size_t i = 0; i < TEST_SEGMENTS; i++)
        to->segments[i].layout = &to->layout_value;
    to->attention_value.segments = to->segments;
    to->attention = &to->attention_value;
    to->view_value.layout = &to->layout_value;
    for (size_t i = 0; i < TEST_SEQUENCES; i++)
        to->sequences[i].blocks = to->blocks[i];
    to->mask.runs = &to->run;
    to->sequences[1].masks = NULL;
    to->step_value.view = &to->view_value;
    to->step_value.sequences = to->sequences;
    to->step = &to->step_value;
    to->limits = &to->limits_value;
    to->view_rows_value.view = &to->view_value;
    to->view_rows_value.sequence = to->sequences;
    to->view_rows = &to->view_rows_value;
    to->mla_rows = &to->mla_rows_value;
    to->expansion = &to->expansion_value;
    to->model_value.groups = &to->group;
    to->model = &to->model_value;
    to->request = &to->request_value;
}

kvt_status test_call_run(test_call call, const test_arguments *a)
{
    test_results *r = a->results;
    switch (call) {
    case TEST_LAYOUT_INIT:
        return kvt_layout_init(r ? &r->layout : NULL, a->spec);
    case TEST_LAYOUT_BYTES:
        return kvt_layout_bytes(a->layout, a->tokens, r ? &r->bytes : NULL);
    case TEST_HEAD_PAGES:
        return kvt_head_pages(a->layout, a->base, a->tokens, a->head, r ? &r->pages : NULL);
    case TEST_WRITE:
        return kvt_write(a->layout, a->side, a->pages, a->first, a->n, a->rows, a->dtype, a->row_stride);
    case TEST_APPEND:
        return kvt_append(a->layout, a->side, a->pages, a->first, a->rows, a->dtype, a->row_stride);
    case TEST_READ:
        return kvt_read(a->layout, a->side, a->pages, a->first, a->n, a->rows, a->dtype, a->row_stride);
    case TEST_ROWS_ENCODE:
        return kvt_rows_encode(a->format, a->dim, a->n, a->rows, a->dtype, a->row_stride, a->encoded, a->encoded_stride, a->options);
    case TEST_ROWS_DECODE:
        return kvt_rows_decode(a->format, a->dim, a->n, a->encoded, a->encoded_stride, a->rows, a->dtype, a->row_stride, a->options);
    case TEST_CONVERT_IN:
        return kvt_convert_in(a->layout, a->side, a->pages, a->first, a->n, a->format, a->encoded, a->encoded_stride, a->options);
    case TEST_CONVERT_OUT:
        return kvt_convert_out(a->layout, a->side, a->pages, a->first, a->n, a->format, a->encoded, a->encoded_stride, a->options);
    case TEST_ATTEND_PLAN_SIZES:
        return kvt_attend_plan_sizes(a->attention, r ? &r->sizes : NULL);
    case TEST_ATTEND:
        return kvt_attend(a->attention, a->workspace);
    case TEST_ATTEND_CHUNKS:
        return kvt_attend_chunks(a->attention, a->first_chunk, a->n_chunks, a->partials, a->workspace);
    case TEST_MERGE:
        return kvt_merge(a->attention, a->partials, a->workspace);
    case TEST_ATTEND_PLAN:
        return kvt_attend_plan(a->heads, a->chunks, a->workers, a->worker, r ? &r->first : NULL, r ? &r->count : NULL);
    case TEST_LAYOUT_APART:
        return kvt_layout_apart(a->layout, r ? &r->layout : NULL);
    case TEST_LAYOUT_PART_BYTES:
        return kvt_layout_part_bytes(a->layout, a->side, r ? &r->bytes : NULL);
    case TEST_VIEW_OPEN_BYTES:
        return kvt_view_open_bytes(a->layout, a->dtype, r ? &r->bytes : NULL);
    case TEST_STEP_WORKSPACE:
        return kvt_step_workspace(a->step_value.view, a->limits, r ? &r->bytes : NULL);
    case TEST_STEP_APPEND:
        return kvt_step_append(a->step, a->step_worker, a->limits_value.workers);
    case TEST_STEP_ATTEND:
        return kvt_step_attend(a->step, a->step_worker, a->limits_value.workers);
    case TEST_STEP_MERGE:
        return kvt_step_merge(a->step, a->step_worker, a->limits_value.workers);
    case TEST_VIEW_WRITE:
        return kvt_view_write(a->view_rows, a->step_worker, a->limits_value.workers);
    case TEST_VIEW_READ:
        return kvt_view_read(a->view_rows, a->step_worker, a->limits_value.workers);
    case TEST_MLA_WRITE:
        return kvt_mla_write(a->layout, a->pages, a->first, a->n, a->mla_rows);
    case TEST_MLA_EXPAND:
        return kvt_mla_expand(a->layout, a->pages, a->first, a->n, a->expansion);
    case TEST_V4_IN:
        return kvt_deepseek_v4_in(a->layout, a->pages, a->first, a->n, a->block, a->block_tokens, a->first_in_block);
    case TEST_V4_OUT:
        return kvt_deepseek_v4_out(a->layout, a->pages, a->first, a->n, a->block, a->block_tokens, a->first_in_block);
    case TEST_SIZE:
        return kvt_size(a->model, a->request, r ? &r->report : NULL, r ? r->groups : NULL);
    case TEST_LONGEST_CONTEXT:
        return kvt_size_longest_context(a->model, a->request, a->budget, r ? &r->context : NULL);
    case TEST_MOST_SEQUENCES:
        return kvt_size_most_sequences(a->model, a->request, a->budget, r ? &r->sequences : NULL);
    case TEST_TIERS_PARSE:
        return kvt_tiers_parse(a->tier_text, r ? &r->tiers : NULL);
    case TEST_CALLS:
        break;
    }
    ck_abort_msg("no call %d", (int)call);
    return KVT_OK; /* where Check does not fork, it does not say that nobody returns from there */
}
