/* SPDX-License-Identifier: MIT */
/* Errors write nothing: every function, with one to three arguments that are wrong at random, returns an error, and all memory it was given is as it
 * was. `test_errors SECONDS [SEED]` goes on for so long. */
#include "calls.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- what can be wrong ---- */

#define OF(call) (UINT32_C(1) << (call))

enum {
    TRANSFERS = OF(TEST_WRITE) | OF(TEST_READ) | OF(TEST_CONVERT_IN) | OF(TEST_CONVERT_OUT),
    WITH_SIDE = TRANSFERS | OF(TEST_APPEND),
    SIZES_OF_PARTS = OF(TEST_LAYOUT_PART_BYTES) | OF(TEST_VIEW_OPEN_BYTES),
    ROW_CALLS = OF(TEST_ROWS_ENCODE) | OF(TEST_ROWS_DECODE),
    FORMATS = ROW_CALLS | OF(TEST_CONVERT_IN) | OF(TEST_CONVERT_OUT),
    MLA = OF(TEST_MLA_WRITE) | OF(TEST_MLA_EXPAND),
    V4 = OF(TEST_V4_IN) | OF(TEST_V4_OUT),
    WITH_PAGES = WITH_SIDE | MLA | V4,
    WITH_RANGE = TRANSFERS | MLA | V4,
    STEPS = OF(TEST_STEP_APPEND) | OF(TEST_STEP_ATTEND) | OF(TEST_STEP_MERGE),
    RESULTS_OF_STEPS = OF(TEST_STEP_ATTEND) | OF(TEST_STEP_MERGE),
    VIEW_ROWS = OF(TEST_VIEW_WRITE) | OF(TEST_VIEW_READ),
    WITH_VIEW = STEPS | VIEW_ROWS | OF(TEST_STEP_WORKSPACE),
    GIVEN_LAYOUTS = WITH_PAGES | WITH_VIEW | SIZES_OF_PARTS | OF(TEST_LAYOUT_APART) | OF(TEST_LAYOUT_BYTES) | OF(TEST_HEAD_PAGES),
    ATTENTIONS = OF(TEST_ATTEND_PLAN_SIZES) | OF(TEST_ATTEND) | OF(TEST_ATTEND_CHUNKS) | OF(TEST_MERGE),
    WITH_WORKSPACE = OF(TEST_ATTEND) | OF(TEST_ATTEND_CHUNKS) | OF(TEST_MERGE),
    WITH_QUERIES = OF(TEST_ATTEND) | OF(TEST_ATTEND_CHUNKS),
    WITH_OUT = OF(TEST_ATTEND) | OF(TEST_MERGE),
    SIZES = OF(TEST_SIZE) | OF(TEST_LONGEST_CONTEXT) | OF(TEST_MOST_SEQUENCES)
};

static size_t huge(uint64_t *state)
{
    static const size_t sizes[] = { SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 2, SIZE_MAX / 64, SIZE_MAX / 64 + 1, (size_t)1 << 31, ((size_t)1 << 32) - 1 };
    return sizes[test_below(state, sizeof sizes / sizeof *sizes)];
}
static size_t wrong_size(uint64_t *state, size_t right)
{
    const size_t sizes[] = { 0, 4, 8, right - 8, right - 1, right + 1, right + 8, SIZE_MAX };
    return sizes[test_below(state, sizeof sizes / sizeof *sizes)];
}
/* Smaller ones are right as long as there are the sequences. */
static size_t wrong_request_size(uint64_t *state)
{
    const size_t all = sizeof(kvt_size_request), least = offsetof(kvt_size_request, sequences) + 8;
    const size_t sizes[] = { 0, 4, 8, least - 8, least - 1, least + 4, all - 1, all + 1, all + 8, SIZE_MAX };
    return sizes[test_below(state, sizeof sizes / sizeof *sizes)];
}
/* Of a struct that has grown: between its first size and today's others are right, too. */
static size_t wrong_grown_size(uint64_t *state, size_t first, size_t right)
{
    return test_below(state, 2) ? first - 8 - 8 * test_below(state, 4) : right + 8 * (1 + test_below(state, 4));
}
static float wrong_float(uint64_t *state)
{
    const float numbers[] = { (float)NAN, (float)INFINITY, -(float)INFINITY, 0x1p-21f, 0x1.000002p20f, 1e38f };
    return numbers[test_below(state, sizeof numbers / sizeof *numbers)];
}
static int wrong_enum(uint64_t *state) /* of those with few members */
{
    static const int numbers[] = { 5, -1, 1000, 0x7fffffff };
    return numbers[test_below(state, sizeof numbers / sizeof *numbers)];
}
static int wrong_id(uint64_t *state)
{
    static const int numbers[] = { -1, 1000, 0x7fffffff };
    return numbers[test_below(state, sizeof numbers / sizeof *numbers)];
}
/* Shorter than a row, of any sign. */
static ptrdiff_t short_stride(uint64_t *state, ptrdiff_t row)
{
    const ptrdiff_t stride = row ? (ptrdiff_t)test_below(state, (uint32_t)(row < 0 ? -row : row)) : 0;
    return test_below(state, 2) ? stride : -stride;
}

/* FAULT(name, calls that see it, what is done to *a) */
#define FAULTS                                                                                                                                       \
    FAULT(spec_null, OF(TEST_LAYOUT_INIT), a->spec = NULL)                                                                                           \
    FAULT(spec_size, OF(TEST_LAYOUT_INIT), a->spec_value.size = wrong_size(state, sizeof a->spec_value))                                             \
    FAULT(spec_scheme, OF(TEST_LAYOUT_INIT), a->spec_value.k_scheme = (kvt_scheme)wrong_id(state))                                                   \
    FAULT(spec_dim, OF(TEST_LAYOUT_INIT), a->spec_value.k_dim = test_below(state, 2) ? 0 : KVT_MAX_DIM + 1)                                          \
    FAULT(spec_dims, OF(TEST_LAYOUT_INIT), a->spec_value.v_dim = a->spec_value.rope_dim = 16)                                                        \
    FAULT(spec_heads, OF(TEST_LAYOUT_INIT), a->spec_value.kv_heads = test_below(state, 2) ? 0 : KVT_MAX_HEADS + 1)                                   \
    FAULT(spec_tiers, OF(TEST_LAYOUT_INIT), a->spec_value.tiers = ~kvt_tiers_usable())                                                               \
    FAULT(spec_rotation, OF(TEST_LAYOUT_INIT), a->spec_value.k_options.rotation = (kvt_rotation)wrong_enum(state))                                   \
    FAULT(spec_centring, OF(TEST_LAYOUT_INIT), a->spec_value.k_options.centring = (kvt_centring)wrong_enum(state))                                   \
    FAULT(spec_effort, OF(TEST_LAYOUT_INIT), a->spec_value.k_options.effort = (kvt_effort)wrong_enum(state))                                         \
    FAULT(spec_fp8, OF(TEST_LAYOUT_INIT), a->spec_value.k_options.fp8_block = 33)                                                                    \
    FAULT(layout_null, GIVEN_LAYOUTS, (a->layout = NULL, a->view_value.layout = NULL))                                                               \
    FAULT(layout_bit, GIVEN_LAYOUTS,                                                                                                                 \
          ((unsigned char *)&a->layout_value)[test_below(state, sizeof a->layout_value)] ^= (unsigned char)(1u << test_below(state, 8)))             \
    FAULT(layout_bytes, GIVEN_LAYOUTS, test_fill(state, &a->layout_value, sizeof a->layout_value))                                                   \
    FAULT(tokens, OF(TEST_LAYOUT_BYTES) | OF(TEST_HEAD_PAGES), a->tokens = SIZE_MAX - test_below(state, 64))                                         \
    FAULT(results_null,                                                                                                                              \
          OF(TEST_LAYOUT_INIT) | OF(TEST_LAYOUT_BYTES) | OF(TEST_HEAD_PAGES) | OF(TEST_ATTEND_PLAN_SIZES) | OF(TEST_ATTEND_PLAN) | SIZES |           \
              SIZES_OF_PARTS | OF(TEST_LAYOUT_APART) | OF(TEST_STEP_WORKSPACE) | OF(TEST_TIERS_PARSE),                                               \
          a->results = NULL)                                                                                                                         \
    FAULT(base, OF(TEST_HEAD_PAGES), a->base = NULL)                                                                                                 \
    FAULT(head, OF(TEST_HEAD_PAGES), a->head = test_below(state, 2) ? a->n_heads : UINT32_MAX)                                                       \
    FAULT(side, WITH_SIDE | OF(TEST_LAYOUT_PART_BYTES),                                                                                              \
          a->side = test_below(state, 2)    ? (kvt_side)wrong_enum(state)                                                                            \
                    : a->layout_value.v.dim ? KVT_ROPE                                                                                               \
                                            : KVT_V)                                                                                                 \
    FAULT(pages_null, WITH_PAGES, a->pages = NULL)                                                                                                   \
    FAULT(pages_count, WITH_PAGES, a->pages_value[0].count = 0)                                                                                      \
    FAULT(pages_base, WITH_PAGES, (a->pages_value[0].base = NULL, a->pages_value[0].table = NULL))                                                   \
    FAULT(pages_stride, WITH_PAGES,                                                                                                                  \
          (a->pages_value[0].base = a->base, a->pages_value[0].table = NULL, a->pages_value[0].stride = a->layout_value.page_bytes - 1))             \
    FAULT(pages_table, WITH_PAGES, a->pages_value[0].table = no_pages)                                                                               \
    FAULT(last_head, OF(TEST_APPEND), a->pages_value[a->n_heads - 1].count = 0)                                                                      \
    FAULT(first, WITH_PAGES, a->first = test_below(state, 2) ? TEST_PAGES * KVT_PAGE_TOKENS : huge(state))                                           \
    FAULT(n, WITH_RANGE, a->n = test_below(state, 2) ? TEST_PAGES * KVT_PAGE_TOKENS : huge(state))                                                   \
    FAULT(own_centre, OF(TEST_WRITE) | OF(TEST_APPEND) | OF(TEST_CONVERT_IN) | OF(TEST_MLA_WRITE) | OF(TEST_V4_IN), a->first = not_a_page(a))        \
    FAULT(rows_null, OF(TEST_WRITE) | OF(TEST_READ) | OF(TEST_APPEND) | ROW_CALLS, a->rows = NULL)                                                   \
    FAULT(dtype, OF(TEST_VIEW_OPEN_BYTES) | OF(TEST_WRITE) | OF(TEST_READ) | OF(TEST_APPEND) | ROW_CALLS,                                            \
          a->dtype = (kvt_dtype)(test_below(state, 2) ? 0 : wrong_enum(state)))                                                                      \
    FAULT(row_stride, OF(TEST_WRITE) | OF(TEST_READ) | ROW_CALLS, a->row_stride = short_stride(state, a->row_stride))                                \
    FAULT(encoded_null, FORMATS, a->encoded = NULL)                                                                                                  \
    FAULT(encoded_stride, FORMATS, a->encoded_stride = short_stride(state, a->encoded_stride))                                                       \
    FAULT(format, FORMATS, a->format = (kvt_row_format)(test_below(state, 2) ? 0 : wrong_id(state)))                                                 \
    FAULT(dim, ROW_CALLS, a->dim = test_below(state, 2) ? 0 : KVT_MAX_DIM + 1)                                                                       \
    FAULT(options_size, FORMATS, a->options_value.size = wrong_size(state, sizeof a->options_value))                                                 \
    FAULT(options_rounding, FORMATS, a->options_value.rounding = (kvt_rounding)wrong_enum(state))                                                    \
    FAULT(options_tiers, FORMATS, a->options_value.tiers = ~kvt_tiers_usable())                                                                      \
    FAULT(options_scale, FORMATS, a->options_value.nvfp4_global_scale = test_below(state, 2) ? (float)NAN : -1)                                      \
    FAULT(attention_null, ATTENTIONS, a->attention = NULL)                                                                                           \
    FAULT(attention_size, ATTENTIONS, a->attention_value.size = wrong_grown_size(state, offsetof(kvt_attention, bits), sizeof a->attention_value))   \
    FAULT(segments_null, ATTENTIONS, a->attention_value.segments = NULL)                                                                             \
    FAULT(segments_none, ATTENTIONS, a->attention_value.n_segments = 0)                                                                              \
    FAULT(segment_layout, ATTENTIONS, a->segments[test_below(state, TEST_SEGMENTS)].layout = NULL)                                                   \
    FAULT(segment_seal, ATTENTIONS, a->layout_value.seal ^= UINT64_C(1) << test_below(state, 64))                                                    \
    FAULT(segment_order, ATTENTIONS, a->segments[1].first_token = test_below(state, 2) ? 0 : 65)                                                     \
    FAULT(segment_begin, ATTENTIONS, a->segments[0].first_token = 64)                                                                                \
    FAULT(segment_pages, ATTENTIONS, a->segments[test_below(state, TEST_SEGMENTS)].pages.count = 1)                                                  \
    FAULT(segment_base, ATTENTIONS, a->segments[test_below(state, TEST_SEGMENTS)].pages = (kvt_pages){ .count = TEST_PAGES, .stride = SIZE_MAX })    \
    FAULT(segment_holes, ATTENTIONS, a->segments[test_below(state, TEST_SEGMENTS)].pages = (kvt_pages){ .table = no_pages, .count = TEST_PAGES })    \
    FAULT(end_zero, ATTENTIONS, a->attention_value.end = 0)                                                                                          \
    FAULT(end_beyond, ATTENTIONS,                                                                                                                    \
          (a->attention_value.end = 2 * TEST_PAGES * KVT_PAGE_TOKENS + 1, a->attention_value.position = KVT_NO_MASK, a->attention_value.begin = 0))  \
    FAULT(begin, ATTENTIONS, a->attention_value.begin = huge(state))                                                                                 \
    FAULT(position, ATTENTIONS, (a->attention_value.position = SIZE_MAX - 1, a->attention_value.begin = 0))                                          \
    FAULT(window, ATTENTIONS, (a->attention_value.position = KVT_NO_MASK, a->attention_value.window = 5))                                            \
    FAULT(group, ATTENTIONS, a->attention_value.group = test_below(state, 2) ? 0 : KVT_MAX_GROUP + 1)                                                \
    FAULT(query_tokens_none, ATTENTIONS, a->attention_value.query_tokens = 0)                                                                        \
    FAULT(query_tokens, ATTENTIONS, (a->attention_value.query_tokens = UINT32_MAX, a->attention_value.position = SIZE_MAX - 9))                      \
    FAULT(query_dtype, ATTENTIONS, a->attention_value.query_dtype = (kvt_dtype)wrong_enum(state))                                                    \
    FAULT(out_dtype, ATTENTIONS, a->attention_value.out_dtype = (kvt_dtype)0)                                                                        \
    FAULT(scale, ATTENTIONS, a->attention_value.scale = test_below(state, 4) ? wrong_float(state) : 0)                                               \
    FAULT(soft_cap, ATTENTIONS, a->attention_value.soft_cap = test_below(state, 4) ? wrong_float(state) : -1)                                        \
    FAULT(queries, WITH_QUERIES, a->attention_value.queries = NULL)                                                                                  \
    FAULT(query_strides, WITH_QUERIES, *(test_below(state, 2) ? &a->attention_value.query_token_stride : &a->attention_value.query_head_stride) = 0) \
    FAULT(out_null, WITH_OUT, a->attention_value.out = NULL)                                                                                         \
    FAULT(out_strides, WITH_OUT,                                                                                                                     \
          a->attention_value.out_token_stride = a->attention_value.out_head_stride = short_stride(state, a->attention_value.out_head_stride))        \
    FAULT(workspace, WITH_WORKSPACE, a->workspace = NULL)                                                                                            \
    FAULT(partials, OF(TEST_ATTEND_CHUNKS) | OF(TEST_MERGE), a->partials = NULL)                                                                     \
    FAULT(chunks_first, OF(TEST_ATTEND_CHUNKS), a->first_chunk = test_below(state, 2) ? a->n_chunks + 1 : huge(state))                               \
    FAULT(chunks_n, OF(TEST_ATTEND_CHUNKS), a->n_chunks = test_below(state, 2) ? a->n_chunks + 1 : huge(state))                                      \
    FAULT(worker, OF(TEST_ATTEND_PLAN), a->worker = a->workers)                                                                                      \
    FAULT(workers, OF(TEST_ATTEND_PLAN), a->workers = 0)                                                                                             \
    FAULT(units, OF(TEST_ATTEND_PLAN), a->heads = SIZE_MAX / 2)                                                                                      \
    FAULT(view_null, WITH_VIEW, (a->step_value.view = NULL, a->view_rows_value.view = NULL))                                                         \
    FAULT(view_size, WITH_VIEW, a->view_value.size = wrong_size(state, sizeof a->view_value))                                                        \
    FAULT(view_open_dtype, WITH_VIEW, a->view_value.open_dtype = (kvt_dtype)9)                                                                       \
    FAULT(view_base, WITH_VIEW, a->view_value.pages.base = NULL)                                                                                     \
    FAULT(view_open_base, WITH_VIEW, a->view_value.open_pages.base = NULL)                                                                           \
    FAULT(view_blocks, WITH_VIEW, a->view_value.pages.blocks = (size_t)1 << 32)                                                                      \
    FAULT(view_block_stride, WITH_VIEW, a->view_value.pages.block_stride = test_below(state, 64))                                                    \
    FAULT(view_layer_stride, WITH_VIEW, a->view_value.pages.layer_stride = test_below(state, 64))                                                    \
    FAULT(view_open_stride, WITH_VIEW, a->view_value.open_pages.block_stride = huge(state) | (size_t)1 << 63)                                        \
    FAULT(view_few_blocks, STEPS, a->view_value.pages.blocks = 0)                                                                                    \
    FAULT(view_few_opens, STEPS | OF(TEST_VIEW_WRITE), a->view_value.open_pages.blocks = 0)                                                          \
    FAULT(limits_null, OF(TEST_STEP_WORKSPACE), a->limits = NULL)                                                                                    \
    FAULT(limits_workers, OF(TEST_STEP_WORKSPACE), a->limits_value.workers = 0)                                                                      \
    FAULT(limits_heads, OF(TEST_STEP_WORKSPACE), a->limits_value.heads = test_below(state, 2) ? 0 : a->view_value.layout ? 65536u * 200 : 1)         \
    FAULT(limits_tokens, OF(TEST_STEP_WORKSPACE), a->limits_value.tokens = SIZE_MAX)                                                                 \
    FAULT(step_null, STEPS, a->step = NULL)                                                                                                          \
    FAULT(step_size, STEPS, a->step_value.size = wrong_size(state, sizeof a->step_value))                                                            \
    FAULT(step_worker, STEPS | VIEW_ROWS, a->step_worker = a->limits_value.workers + test_below(state, 3))                                           \
    FAULT(step_layer, STEPS, a->step_value.layer = 2)                                                                                                \
    FAULT(step_sequences, STEPS, a->step_value.sequences = NULL)                                                                                     \
    FAULT(step_heads, STEPS, a->step_value.heads = test_below(state, 2) ? 0 : KVT_MAX_HEADS * 129u)                                                  \
    FAULT(step_dtype, STEPS, a->step_value.dtype = (kvt_dtype)wrong_enum(state))                                                                     \
    FAULT(step_scale, STEPS, a->step_value.scale = wrong_float(state))                                                                               \
    FAULT(step_soft_cap, STEPS, a->step_value.soft_cap = wrong_float(state))                                                                         \
    FAULT(step_keys, OF(TEST_STEP_APPEND), a->step_value.k = NULL)                                                                                   \
    FAULT(step_stride, OF(TEST_STEP_APPEND), a->step_value.k_token_stride = 1)                                                                       \
    FAULT(step_queries, RESULTS_OF_STEPS, a->step_value.q = NULL)                                                                                    \
    FAULT(step_query_stride, RESULTS_OF_STEPS, (a->step_value.q_token_stride = 0, a->step_value.q_head_stride = 4))                                  \
    FAULT(step_out, RESULTS_OF_STEPS, a->step_value.out = NULL)                                                                                      \
    FAULT(step_out_stride, RESULTS_OF_STEPS, (a->step_value.out_token_stride = 4, a->step_value.out_head_stride = -4))                               \
    FAULT(step_out_dtype, RESULTS_OF_STEPS, a->step_value.out_dtype = (kvt_dtype)wrong_enum(state))                                                  \
    FAULT(step_workspace, STEPS, a->step_value.workspace = NULL)                                                                                     \
    FAULT(step_workspace_bytes, STEPS, a->step_value.workspace_bytes = test_below(state, 10000))                                                     \
    FAULT(step_workspace_at, STEPS, a->step_value.workspace = (void *)((uintptr_t)a->step_value.workspace + 32))                                     \
    FAULT(sequence_blocks, STEPS, a->sequences[0].blocks = NULL)                                                                                     \
    FAULT(sequence_few_blocks, STEPS, a->sequences[0].n_blocks = test_below(state, 2))                                                               \
    FAULT(sequence_block, STEPS, a->blocks[0][test_below(state, 2)] = test_below(state, 2) ? KVT_NO_BLOCK : 6)                                       \
    FAULT(sequence_open, STEPS, a->sequences[test_below(state, 2)].open[0] = 4 + test_below(state, 2))                                               \
    FAULT(sequence_stored, STEPS, a->sequences[0].stored = huge(state))                                                                              \
    FAULT(sequence_mask, STEPS, (a->run.end = test_below(state, 4), a->sequences[0].fresh = 1, a->sequences[0].masks = &a->mask))                    \
    FAULT(view_rows_null, VIEW_ROWS, a->view_rows = NULL)                                                                                            \
    FAULT(view_rows_size, VIEW_ROWS, a->view_rows_value.size = wrong_size(state, sizeof a->view_rows_value))                                         \
    FAULT(view_rows_sequence, VIEW_ROWS, a->view_rows_value.sequence = NULL)                                                                         \
    FAULT(view_rows_rows, VIEW_ROWS, a->view_rows_value.rows = NULL)                                                                                 \
    FAULT(view_rows_dtype, VIEW_ROWS, a->view_rows_value.dtype = (kvt_dtype)wrong_enum(state))                                                       \
    FAULT(view_rows_layers, VIEW_ROWS, a->view_rows_value.first_layer = 1 + test_below(state, 2))                                                    \
    FAULT(view_rows_tokens, VIEW_ROWS, a->view_rows_value.n_tokens = (size_t)1 << 40)                                                                \
    FAULT(view_rows_stride, VIEW_ROWS, a->view_rows_value.token_stride = 3)                                                                          \
    FAULT(mla_null, MLA, (a->mla_rows = NULL, a->expansion = NULL))                                                                                  \
    FAULT(mla_size, MLA,                                                                                                                             \
          (a->mla_rows_value.size = wrong_size(state, sizeof a->mla_rows_value),                                                                     \
           a->expansion_value.size = wrong_size(state, sizeof a->expansion_value)))                                                                  \
    FAULT(mla_numbers, MLA, (a->mla_rows_value.rows.numbers = NULL, a->expansion_value.k_up.numbers = NULL))                                         \
    FAULT(mla_dtype, MLA, (a->mla_rows_value.rows.dtype = (kvt_dtype)9, a->expansion_value.dtype = (kvt_dtype)0))                                    \
    FAULT(mla_up_dtype, MLA, (a->mla_rows_value.down.dtype = (kvt_dtype)9, a->expansion_value.v_up.dtype = (kvt_dtype)0))                            \
    FAULT(mla_rows_stride, MLA, (a->mla_rows_value.rows.row_stride = 0, a->expansion_value.k_up.row_stride = 0))                                     \
    FAULT(mla_down_stride, MLA, (a->mla_rows_value.down.row_stride = 0, a->expansion_value.v_up_head_stride = 0))                                    \
    FAULT(mla_without_down, OF(TEST_MLA_WRITE),                                                                                                      \
          (a->mla_rows_value.down.numbers = NULL, a->mla_rows_value.rows.row_stride = short_stride(state, (ptrdiff_t)a->spec_value.k_dim * 4)))      \
    FAULT(hidden, OF(TEST_MLA_WRITE), a->mla_rows_value.hidden_dim = test_below(state, 2) ? 0 : KVT_MAX_HIDDEN + 1)                                  \
    FAULT(norm_dtype, OF(TEST_MLA_WRITE), a->mla_rows_value.norm_dtype = (kvt_dtype)0)                                                               \
    FAULT(norm_epsilon, OF(TEST_MLA_WRITE), a->mla_rows_value.norm_epsilon = test_below(state, 2) ? (float)NAN : 1.5f)                               \
    FAULT(rope_pairs, OF(TEST_MLA_WRITE), a->mla_rows_value.rope_pairs = (kvt_rope_pairs)wrong_enum(state))                                          \
    FAULT(rope_turns, OF(TEST_MLA_WRITE), (a->mla_rows_value.rope_pairs = KVT_ROPE_PAIRS_HALVES, a->mla_rows_value.rope_sin = NULL))                 \
    FAULT(expansion_heads, OF(TEST_MLA_EXPAND), a->expansion_value.heads = test_below(state, 2) ? 0 : KVT_MAX_HEADS + 1)                             \
    FAULT(expansion_dims, OF(TEST_MLA_EXPAND), a->expansion_value.v_dim = test_below(state, 2) ? 0 : KVT_MAX_DIM + 1)                                \
    FAULT(expansion_k, OF(TEST_MLA_EXPAND), a->expansion_value.k_head_stride = short_stride(state, a->expansion_value.k_head_stride))                \
    FAULT(expansion_v, OF(TEST_MLA_EXPAND), a->expansion_value.v_token_stride = short_stride(state, a->expansion_value.v_head_stride))               \
    FAULT(expansion_nothing, OF(TEST_MLA_EXPAND), a->expansion_value.k = a->expansion_value.v = NULL)                                                \
    FAULT(block, V4, a->block = NULL)                                                                                                                \
    FAULT(block_tokens, V4, a->block_tokens = TEST_TOKENS - 1)                                                                                       \
    FAULT(block_first, V4, a->first_in_block = test_below(state, 2) ? a->block_tokens : huge(state))                                                 \
    FAULT(model, SIZES, a->model = NULL)                                                                                                             \
    FAULT(model_groups, SIZES, a->model_value.n_groups = 0)                                                                                          \
    FAULT(model_kind, SIZES, a->group.kind = (kvt_layer_kind)99)                                                                                     \
    FAULT(model_heads, SIZES, a->group.kv_heads = 0)                                                                                                 \
    FAULT(request, SIZES, a->request = NULL)                                                                                                         \
    FAULT(request_size, SIZES, a->request_value.size = wrong_request_size(state))                                                                    \
    FAULT(request_engine, SIZES, a->request_value.engine = (kvt_engine)wrong_id(state))                                                              \
    FAULT(request_type, SIZES, a->request_value.k_type = "no such type")                                                                             \
    FAULT(sequences, OF(TEST_SIZE) | OF(TEST_LONGEST_CONTEXT), a->request_value.sequences = 0)                                                       \
    FAULT(budget, OF(TEST_MOST_SEQUENCES), a->budget = 0)                                                                                            \
    FAULT(tier_text, OF(TEST_TIERS_PARSE), a->tier_text = test_below(state, 2) ? NULL : "no such tier")

static void *no_pages[TEST_PAGES];

/* A first token that is refused where pages have centres of their own, or else one beyond the pages. */
static size_t not_a_page(const test_arguments *a)
{
    const kvt_layout *l = &a->layout_value;
    const bool is_own = l->spec.k_options.centring == KVT_CENTRING_OWN; /* all sides have the same */
    return is_own ? a->first - a->first % KVT_PAGE_TOKENS + 1 : TEST_PAGES * KVT_PAGE_TOKENS;
}

typedef struct fault {
    const char *name;
    uint32_t calls;
    void (*make)(test_arguments *a, uint64_t *state);
} fault;

#define FAULT(name, calls, ...)                                                                                                                      \
    static void make_##name(test_arguments *a, uint64_t *state)                                                                                      \
    {                                                                                                                                                \
        (void)state;                                                                                                                                 \
        __VA_ARGS__;                                                                                                                                 \
    }
FAULTS
#undef FAULT
#define FAULT(name, calls, ...) { #name, (calls), make_##name },
static const fault faults[] = { FAULTS };
#undef FAULT
enum { N_FAULTS = sizeof faults / sizeof *faults };

/* ---- trying them ---- */

static unsigned char *copies[TEST_BUFFERS];

static void take_copies(const test_calls *calls)
{
    for (size_t i = 0; i < TEST_BUFFERS; i++) {
        free(copies[i]);
        copies[i] = test_malloc(calls->bytes[i]);
        memcpy(copies[i], calls->at[i], calls->bytes[i]);
    }
}

static kvt_spec random_spec(uint64_t *state)
{
    const size_t schemes = test_scheme_count();
    const uint32_t kind = test_below(state, 3); /* keys and values, latents, latents of DeepSeek-V4 */
    const kvt_scheme k = kvt_scheme_at(test_below(state, (uint32_t)schemes))->scheme, v = kvt_scheme_at(test_below(state, (uint32_t)schemes))->scheme;
    kvt_spec spec = test_spec(k, v, 2 + test_below(state, 100), 1 + test_below(state, 100));
    spec.kv_heads = TEST_HEADS;
    if (kind > 0) {
        spec.kv_heads = 1;
        spec.v_dim = 0;
        spec.rope_scheme = v;
        spec.rope_dim = kind == 2 ? 64 : 2 + 2 * test_below(state, 40);
        spec.k_dim = kind == 2 ? 448 : spec.k_dim;
    }
    spec.k_options.rotation = test_below(state, 2) ? KVT_ROTATION_NONE : KVT_ROTATION_64;
    spec.k_options.centring = (kvt_centring)test_below(state, KVT_CENTRING_OWN + 1);
    spec.v_options = spec.rope_options = spec.k_options;
    test_tier tiers[32];
    spec.tiers = tiers[test_below(state, (uint32_t)test_tiers(tiers))].mask;
    return spec;
}

/* One layout, and every function several times. Returns how many calls there were. */
static size_t try_layout(uint64_t seed, size_t tries)
{
    static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
    uint64_t state = seed;
    const kvt_spec spec = random_spec(&state);
    size_t formats = 0, done = 0;
    while (kvt_row_format_at(formats))
        formats++;
    test_calls calls;
    test_calls_make(&calls, &spec, kvt_row_format_at(test_below(&state, (uint32_t)formats))->format, dtypes[test_below(&state, 3)], seed);
    for (int call = 0; call < TEST_CALLS; call++) {
        if (!test_call_applies(&calls, (test_call)call))
            continue;
        test_arguments arguments;
        test_calls_copy(&calls, &arguments);
        const kvt_status right = test_call_run((test_call)call, &arguments);
        TEST_REQUIRE(right == KVT_OK, "%s, seed %llu, nothing wrong: %s", test_call_names[call], (unsigned long long)seed, kvt_status_text(right));
        take_copies(&calls);
        const test_results results = calls.results;
        for (size_t i = 0; i < tries; i++) {
            char what[200] = "";
            test_calls_copy(&calls, &arguments);
            const size_t wanted = 1 + test_below(&state, 3);
            bool is_made[N_FAULTS] = { false }; /* none twice: a bit that is flipped twice is right again */
            for (size_t n = 0, left = 50 * N_FAULTS; n < 1 || (n < wanted && left > 0); left--) {
                const size_t which = test_below(&state, N_FAULTS);
                if (is_made[which] || !(faults[which].calls >> call & 1))
                    continue;
                is_made[which] = true;
                faults[which].make(&arguments, &state);
                snprintf(what + strlen(what), sizeof what - strlen(what), " %s", faults[which].name);
                n++;
            }
            const kvt_status status = test_call_run((test_call)call, &arguments);
            TEST_REQUIRE(status != KVT_OK, "%s, seed %llu,%s: no error", test_call_names[call], (unsigned long long)seed, what);
            for (size_t b = 0; b < TEST_BUFFERS; b++)
                TEST_REQUIRE(memcmp(copies[b], calls.at[b], calls.bytes[b]) == 0, "%s, seed %llu,%s: %s, and buffer %zu was written",
                             test_call_names[call], (unsigned long long)seed, what, kvt_status_text(status), b);
            TEST_REQUIRE(memcmp(&results, &calls.results, sizeof results) == 0, "%s, seed %llu,%s: %s, and results were written",
                         test_call_names[call], (unsigned long long)seed, what, kvt_status_text(status));
            done++;
        }
    }
    test_calls_free(&calls);
    return done;
}

START_TEST(random_faults)
{
    for (uint64_t seed = 1; seed <= 240 / KVT_TEST_SHARE; seed++)
        (void)try_layout(seed, 40);
}
END_TEST

/* Every fault alone, in every function that sees it. */
START_TEST(each_fault)
{
    for (uint64_t seed = 1000; seed < 1000 + 24 / KVT_TEST_SHARE; seed++) {
        uint64_t state = seed;
        const kvt_spec spec = random_spec(&state);
        test_calls calls;
        test_calls_make(&calls, &spec, KVT_ROW_ggml_q4_0, KVT_F16, seed);
        take_copies(&calls);
        const test_results results = calls.results;
        for (size_t i = 0; i < N_FAULTS; i++)
            for (int call = 0; call < TEST_CALLS; call++) {
                if (!(faults[i].calls >> call & 1) || !test_call_applies(&calls, (test_call)call))
                    continue;
                test_arguments arguments;
                test_calls_copy(&calls, &arguments);
                faults[i].make(&arguments, &state);
                const kvt_status status = test_call_run((test_call)call, &arguments);
                TEST_REQUIRE(status != KVT_OK, "%s, seed %llu, %s: no error", test_call_names[call], (unsigned long long)seed, faults[i].name);
                for (size_t b = 0; b < TEST_BUFFERS; b++)
                    TEST_REQUIRE(memcmp(copies[b], calls.at[b], calls.bytes[b]) == 0, "%s, seed %llu, %s: buffer %zu was written",
                                 test_call_names[call], (unsigned long long)seed, faults[i].name, b);
                TEST_REQUIRE(memcmp(&results, &calls.results, sizeof results) == 0, "%s, seed %llu, %s: results were written", test_call_names[call],
                             (unsigned long long)seed, faults[i].name);
            }
        test_calls_free(&calls);
    }
}
END_TEST

static long seconds;
static uint64_t first_seed = 1;

START_TEST(for_so_long)
{
    const time_t end = time(NULL) + seconds;
    size_t done = 0;
    uint64_t seed = first_seed;
    for (; time(NULL) < end; seed++)
        done += try_layout(seed, 40);
    printf("%zu calls with wrong arguments, up to seed %llu\n", done, (unsigned long long)seed);
}
END_TEST

int main(int argc, char **argv)
{
    Suite *suite = suite_create("errors");
    TCase *tcase = tcase_create("errors");
    if (argc > 1) {
        seconds = atol(argv[1]);
        first_seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
        tcase_set_timeout(tcase, 0);
        tcase_add_test(tcase, for_so_long);
    } else {
        tcase_set_timeout(tcase, 600);
        tcase_add_test(tcase, random_faults);
        tcase_add_test(tcase, each_fault);
    }
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
