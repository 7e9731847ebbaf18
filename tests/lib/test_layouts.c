/* SPDX-License-Identifier: MIT */
/* Layouts that were changed after kvt_layout_init: every function that is given one returns KVT_ERR_LAYOUT and writes nothing, whichever bit it is.
 * Buffers end where inaccessible memory begins. */
#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYOUT_CALLS = TEST_SIZE };

/* Whether a changed layout is seen by the call. */
static bool is_given_a_layout(test_call call)
{
    return call != TEST_LAYOUT_INIT && call != TEST_ROWS_ENCODE && call != TEST_ROWS_DECODE && call != TEST_ATTEND_PLAN;
}

typedef struct snapshot {
    unsigned char *buffers[TEST_BUFFERS];
    test_results results;
} snapshot;

static snapshot snapshot_of(const test_calls *calls)
{
    snapshot taken;
    for (size_t i = 0; i < TEST_BUFFERS; i++) {
        taken.buffers[i] = test_malloc(calls->bytes[i]);
        memcpy(taken.buffers[i], calls->at[i], calls->bytes[i]);
    }
    taken.results = calls->results;
    return taken;
}

static void snapshot_free(const snapshot *taken)
{
    for (size_t i = 0; i < TEST_BUFFERS; i++)
        free(taken->buffers[i]);
}

static void expect_unchanged(const snapshot *before, const test_calls *calls, const char *what)
{
    for (size_t i = 0; i < TEST_BUFFERS; i++)
        TEST_REQUIRE(memcmp(before->buffers[i], calls->at[i], calls->bytes[i]) == 0, "%s: buffer %zu was written", what, i);
    TEST_REQUIRE(memcmp(&before->results, &calls->results, sizeof before->results) == 0, "%s: results were written", what);
}

static kvt_spec spec_of(int which)
{
    kvt_spec spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_q8_0, 128, 32);
    spec.kv_heads = TEST_HEADS;
    spec.k_options.rotation = KVT_ROTATION_64;
    spec.v_options.centring = KVT_CENTRING_OWN;
    if (which == 1) {
        spec = test_spec(KVT_SCHEME_kv4, KVT_SCHEME_NONE, 448, 0);
        spec.rope_scheme = KVT_SCHEME_bf16;
        spec.rope_dim = 64;
        spec.k_options.centring = KVT_CENTRING_PAGE;
    }
    if (which == 2) {
        spec = test_spec(KVT_SCHEME_e4m3, KVT_SCHEME_e5m2, 64, 80);
        spec.kv_heads = TEST_HEADS;
        spec.k_options = (kvt_side_options){ .fp8_block = 32, .fp8_scale = KVT_FP8_SCALE_E8M0 };
        spec.v_options = (kvt_side_options){ .fp8_block = KVT_BLOCK_TENSOR, .fp8_tensor_scale = 0.5f };
    }
    return spec;
}

/* Calls that get the changed layout; kvt_attend has it as its first segment's or as its second's. */
static void refuse(const test_calls *calls, const snapshot *before, const kvt_layout *changed, const char *what)
{
    for (int call = 0; call < LAYOUT_CALLS; call++) {
        if (!is_given_a_layout((test_call)call) || !test_call_applies(calls, (test_call)call))
            continue;
        for (size_t segment = 0; segment < TEST_SEGMENTS; segment++) {
            test_arguments arguments;
            test_calls_copy(calls, &arguments);
            arguments.layout = arguments.view_value.layout = changed;
            arguments.segments[segment].layout = changed;
            const kvt_status status = test_call_run((test_call)call, &arguments);
            TEST_REQUIRE(status == KVT_ERR_LAYOUT, "%s, %s: %s", test_call_names[call], what, kvt_status_text(status));
        }
    }
    expect_unchanged(before, calls, what);
}

START_TEST(every_bit)
{
    test_calls calls;
    const kvt_spec spec = spec_of(_i);
    test_calls_make(&calls, &spec, KVT_ROW_ggml_q8_0, KVT_F32, 3);
    const snapshot before = snapshot_of(&calls);
    char what[80];
    for (size_t bit = 0; bit < 8 * sizeof(kvt_layout); bit++) {
        if (bit % KVT_TEST_SHARE != 0)
            continue;
        kvt_layout changed = calls.right.layout_value;
        ((unsigned char *)&changed)[bit / 8] ^= (unsigned char)(1u << bit % 8);
        snprintf(what, sizeof what, "layout %d, bit %zu (byte %zu)", _i, bit, bit / 8);
        refuse(&calls, &before, &changed, what);
    }
    snapshot_free(&before);
    test_calls_free(&calls);
}
END_TEST

/* Words that are zero, one, as large as they can be, or another word of the layout; two words that changed places; one layout's field in another. */
START_TEST(words)
{
    static const uint32_t values[] = { 0, 1, 16, 64, 1024, 65536, 0x7fffffff, 0xffffffff };
    test_calls calls;
    const kvt_spec spec = spec_of(_i), other_spec = spec_of((_i + 1) % 3);
    kvt_layout other;
    ck_assert_int_eq(kvt_layout_init(&other, &other_spec), KVT_OK);
    test_calls_make(&calls, &spec, KVT_ROW_ggml_q8_0, KVT_F32, 4);
    const snapshot before = snapshot_of(&calls);
    const kvt_layout *right = &calls.right.layout_value;
    char what[80];
    enum { WORDS = sizeof(kvt_layout) / 4, VALUES = sizeof values / sizeof *values };
    for (size_t word = (size_t)_i; word < WORDS; word += KVT_TEST_SHARE) {
        for (size_t v = 0; v < VALUES + 2; v++) {
            kvt_layout changed = *right;
            unsigned char *at = (unsigned char *)&changed + 4 * word, *after = (unsigned char *)&changed + (4 * word + 4) % sizeof changed;
            if (v < VALUES) {
                memcpy(at, &values[v], 4);
            } else if (v == VALUES) {
                memcpy(at, (const unsigned char *)&other + 4 * word, 4);
            } else {
                unsigned char kept[4];
                memcpy(kept, at, 4);
                memcpy(at, after, 4);
                memcpy(after, kept, 4);
            }
            snprintf(what, sizeof what, "layout %d, word %zu, change %zu", _i, word, v);
            if (memcmp(&changed, right, sizeof changed) != 0)
                refuse(&calls, &before, &changed, what);
        }
    }
    kvt_layout changed = other;
    changed.seal = right->seal;
    refuse(&calls, &before, &changed, "another layout with this one's seal");
    memset(&changed, 0, sizeof changed);
    refuse(&calls, &before, &changed, "zeros");
    snapshot_free(&before);
    test_calls_free(&calls);
}
END_TEST

/* A layout may be copied, as bytes and as a struct, and moved. */
START_TEST(copies)
{
    test_calls calls;
    const kvt_spec spec = spec_of(_i);
    test_calls_make(&calls, &spec, KVT_ROW_ggml_q8_0, KVT_F32, 5);
    const kvt_layout assigned = calls.right.layout_value;
    kvt_layout field_by_field;
    memset(&field_by_field, 0xff, sizeof field_by_field);
    field_by_field.size = assigned.size;
    field_by_field.spec = assigned.spec;
    field_by_field.k = assigned.k;
    field_by_field.v = assigned.v;
    field_by_field.rope = assigned.rope;
    field_by_field.page_bytes = assigned.page_bytes;
    field_by_field.token_bytes = assigned.token_bytes;
    field_by_field.seal = assigned.seal;
    for (int call = 0; call < LAYOUT_CALLS; call++) {
        if (!test_call_applies(&calls, (test_call)call))
            continue;
        test_arguments arguments;
        test_calls_copy(&calls, &arguments);
        arguments.layout = arguments.segments[0].layout = &field_by_field;
        arguments.segments[1].layout = &assigned;
        const kvt_status status = test_call_run((test_call)call, &arguments);
        TEST_REQUIRE(status == KVT_OK, "%s: %s", test_call_names[call], kvt_status_text(status));
    }
    test_calls_free(&calls);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("layouts");
    TCase *tcase = tcase_create("layouts");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, every_bit, 0, 3);
    tcase_add_loop_test(tcase, words, 0, 3);
    tcase_add_loop_test(tcase, copies, 0, 3);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
