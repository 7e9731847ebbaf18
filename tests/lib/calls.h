/* SPDX-License-Identifier: MIT */
/* Every function of the library that has errors, with arguments that are right: what tests of stack, of changed layouts and of errors start from.
 * Buffers are as long as they have to be and end where inaccessible memory begins. */
#ifndef KVT_TESTS_CALLS_H
#define KVT_TESTS_CALLS_H

#include "support.h"

#include <kvtile/attend.h>
#include <kvtile/convert.h>
#include <kvtile/mla.h>
#include <kvtile/model.h>
#include <kvtile/step.h>

enum { TEST_HEADS = 2, TEST_PAGES = 3, TEST_TOKENS = 20, TEST_GROUP = 3, TEST_QUERIES = 2, TEST_HIDDEN = 24, TEST_SEGMENTS = 2, TEST_SEQUENCES = 2 };

/* One after the other is a number of a call. */
typedef enum test_call {
    TEST_LAYOUT_INIT,
    TEST_LAYOUT_BYTES,
    TEST_HEAD_PAGES,
    TEST_WRITE,
    TEST_APPEND,
    TEST_READ,
    TEST_ROWS_ENCODE,
    TEST_ROWS_DECODE,
    TEST_CONVERT_IN,
    TEST_CONVERT_OUT,
    TEST_ATTEND_PLAN_SIZES,
    TEST_ATTEND,
    TEST_ATTEND_CHUNKS,
    TEST_MERGE,
    TEST_ATTEND_PLAN,
    TEST_LAYOUT_APART,
    TEST_LAYOUT_PART_BYTES,
    TEST_VIEW_OPEN_BYTES,
    TEST_STEP_WORKSPACE, /* and what follows: with a view */
    TEST_STEP_APPEND,
    TEST_STEP_ATTEND,
    TEST_STEP_MERGE,
    TEST_VIEW_WRITE,
    TEST_VIEW_READ,
    TEST_MLA_WRITE, /* and what follows: of a latent layout */
    TEST_MLA_EXPAND,
    TEST_V4_IN, /* of k_dim 448 and rope_dim 64 */
    TEST_V4_OUT,
    TEST_SIZE, /* and what follows: without a layout */
    TEST_LONGEST_CONTEXT,
    TEST_MOST_SEQUENCES,
    TEST_TIERS_PARSE,
    TEST_CALLS
} test_call;

extern const char *const test_call_names[TEST_CALLS];

typedef enum test_buffer {
    TEST_PAGE_BYTES, /* [head][page] */
    TEST_ROW_BYTES,  /* rows in and out, queries of kvt_attend, and what kvt_mla_write takes */
    TEST_ENCODED,
    TEST_OUT, /* of kvt_attend, and keys of kvt_mla_expand */
    TEST_OUT_V,
    TEST_WORKSPACE,
    TEST_PARTIALS,
    TEST_BLOCK, /* of DeepSeek-V4 */
    TEST_STEP_PAGES,
    TEST_STEP_OPEN,
    TEST_STEP_ROWS,
    TEST_STEP_OUT,
    TEST_STEP_WORK,
    TEST_BUFFERS
} test_buffer;

/* What functions write to beside buffers. */
typedef struct test_results {
    kvt_layout layout;
    size_t bytes, first, count;
    kvt_pages pages;
    kvt_attend_sizes sizes;
    kvt_size_report report;
    kvt_group_size groups[8];
    uint64_t context, sequences;
    uint32_t tiers;
} test_results;

/* The arguments of all functions. Tests change what they like in a copy (test_calls_copy). */
typedef struct test_arguments {
    kvt_spec spec_value;
    const kvt_spec *spec;
    kvt_layout layout_value;
    const kvt_layout *layout;
    kvt_side side;
    uint32_t n_heads;
    kvt_pages pages_value[TEST_HEADS];
    const kvt_pages *pages;
    size_t first, n, tokens;
    uint32_t head, dim;
    void *base;
    void *rows;
    kvt_dtype dtype;
    ptrdiff_t row_stride;
    kvt_row_format format;
    void *encoded;
    ptrdiff_t encoded_stride;
    kvt_row_options options_value;
    const kvt_row_options *options;
    kvt_segment segments[TEST_SEGMENTS];
    kvt_attention attention_value;
    const kvt_attention *attention;
    size_t first_chunk, n_chunks;
    void *partials, *workspace;
    size_t heads, chunks;
    uint32_t workers, worker;
    kvt_view view_value;
    uint32_t blocks[TEST_SEQUENCES][TEST_PAGES];
    kvt_run run;
    kvt_mask mask;
    kvt_sequence sequences[TEST_SEQUENCES];
    kvt_step step_value;
    const kvt_step *step;
    kvt_step_limits limits_value;
    const kvt_step_limits *limits;
    kvt_view_rows view_rows_value;
    const kvt_view_rows *view_rows;
    uint32_t step_worker;
    kvt_mla_rows mla_rows_value;
    const kvt_mla_rows *mla_rows;
    kvt_mla_expansion expansion_value;
    const kvt_mla_expansion *expansion;
    void *block;
    size_t block_tokens, first_in_block;
    kvt_layer_group group;
    kvt_model model_value;
    const kvt_model *model;
    kvt_size_request request_value;
    const kvt_size_request *request;
    uint64_t budget;
    const char *tier_text;
    test_results *results;
} test_arguments;

typedef struct test_calls {
    test_arena arenas[TEST_BUFFERS];
    unsigned char *at[TEST_BUFFERS];
    size_t bytes[TEST_BUFFERS];
    test_results results;
    float *numbers; /* of norms, turns and projections */
    void *tables[TEST_HEADS * TEST_PAGES];
    test_arguments right;
} test_calls;

/* Makes the arguments; numbers and pages have values that depend on the seed. A spec of two heads, or a latent one. */
void test_calls_make(test_calls *calls, const kvt_spec *spec, kvt_row_format format, kvt_dtype dtype, uint64_t seed);
void test_calls_free(test_calls *calls);

/* Whether the function can be called with such a layout. */
bool test_call_applies(const test_calls *calls, test_call call);

/* A copy whose pointers lead to its own values, and to the buffers. */
void test_calls_copy(const test_calls *calls, test_arguments *to);

kvt_status test_call_run(test_call call, const test_arguments *arguments);

#endif
