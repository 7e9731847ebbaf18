/* SPDX-License-Identifier: MIT */
/* No function takes more than 64 kB of stack: each runs on a painted one, for every scheme, tier, rotation and centring, and the paint that is gone
 * is counted. `test_stack --report` takes every width of rows, too, and prints the deepest of each function. */
#define _XOPEN_SOURCE 700 /* pthread_attr_setstack */
#include "calls.h"
#include "painted_stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT = 64 << 10, STACK_BYTES = 256 << 10, SKIPPED = 77 };

static unsigned char *stack;
static size_t base;    /* what a thread needs for itself */
static int widths = 1; /* of rows, for each scheme, tier, centring and kind of layout; which ones differs from one to the next */
static struct {
    size_t bytes;
    char where[160];
} deepest[TEST_CALLS];

/* ---- a call on a painted stack ---- */

typedef struct job {
    test_call call;
    const test_arguments *arguments; /* NULL: no call */
    kvt_status status;
} job;

static void *run(void *argument)
{
    job *measured = argument;
    if (measured->arguments)
        measured->status = test_call_run(measured->call, measured->arguments);
    return NULL;
}

static size_t depth_of(job *measured)
{
    return painted_stack_depth(stack, STACK_BYTES, run, measured);
}

/* ---- all of them ---- */

static void try_call(const test_calls *calls, test_call call, const char *where)
{
    test_arguments arguments;
    test_calls_copy(calls, &arguments);
    job measured = { call, &arguments, KVT_OK };
    const size_t bytes = depth_of(&measured) - base;
    TEST_REQUIRE(measured.status == KVT_OK, "%s, %s: %s", test_call_names[call], where, kvt_status_text(measured.status));
    TEST_REQUIRE(bytes <= LIMIT, "%s, %s: %zu bytes of stack", test_call_names[call], where, bytes);
    if (bytes > deepest[call].bytes) {
        deepest[call].bytes = bytes;
        snprintf(deepest[call].where, sizeof deepest[call].where, "%s", where);
    }
}

typedef enum kind { OF_KEYS_AND_VALUES, OF_LATENTS, OF_V4, KINDS } kind;

static void try_layout(kvt_scheme scheme, kvt_side_options options, const test_tier *tier, kind sides, unsigned n)
{
    static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
    static const uint32_t dims[] = { KVT_MAX_DIM, KVT_MAX_DIM - 7, 512, 256, 250 }; /* 16 and 4 rows go through a buffer at once */
    const uint32_t dim = dims[n % 5];
    kvt_spec spec = test_spec(scheme, scheme, dim, dim);
    spec.tiers = tier->mask;
    spec.kv_heads = TEST_HEADS;
    spec.k_options = spec.v_options = spec.rope_options = options;
    if (sides != OF_KEYS_AND_VALUES) {
        spec.kv_heads = 1;
        spec.v_dim = 0;
        spec.rope_scheme = scheme;
        spec.rope_dim = sides == OF_V4 ? 64 : KVT_MAX_DIM;
        spec.k_dim = sides == OF_V4 ? 448 : dim;
    }
    size_t formats = 0;
    while (kvt_row_format_at(formats))
        formats++;
    const kvt_row_format_info *format = kvt_row_format_at(n % formats);
    char where[160];
    snprintf(where, sizeof where, "%s, tier %s, k_dim %u, rope_dim %u, rotation %d, centring %d, effort %d, rows of type %d, %s",
             kvt_scheme_get(scheme)->name, tier->name, spec.k_dim, spec.rope_dim, (int)options.rotation, (int)options.centring, (int)options.effort,
             (int)dtypes[n % 3], format->name);
    test_calls calls;
    test_calls_make(&calls, &spec, format->format, dtypes[n % 3], n);
    for (int call = 0; call < TEST_CALLS; call++) {
        const bool is_again = sides != OF_KEYS_AND_VALUES && (call >= TEST_SIZE || (sides == OF_V4 && call < TEST_V4_IN));
        if (!is_again && test_call_applies(&calls, (test_call)call))
            try_call(&calls, (test_call)call, where);
    }
    test_calls_free(&calls);
}

START_TEST(all_functions)
{
    const kvt_scheme scheme = kvt_scheme_at((size_t)_i)->scheme;
    test_tier tiers[32];
    const size_t n_tiers = test_tiers(tiers);
    job nothing = { TEST_CALLS, NULL, KVT_OK };
    stack = aligned_alloc(4096, STACK_BYTES);
    ck_assert_ptr_nonnull(stack);
    (void)depth_of(&nothing);
    base = depth_of(&nothing);
    unsigned n = (unsigned)_i;
    for (size_t t = 0; t < n_tiers; t++)
        for (int centring = KVT_CENTRING_NONE; centring <= KVT_CENTRING_OWN; centring++)
            for (int sides = 0; sides < KINDS; sides++)
                for (int again = 0; again < widths; again++, n++) {
                    const kvt_effort effort = n % 4 ? KVT_EFFORT_FAST : KVT_EFFORT_DEFAULT;
                    const kvt_rotation rotation = n % 2 ? KVT_ROTATION_128 : KVT_ROTATION_NONE;
                    if (n % KVT_TEST_SHARE == 0)
                        try_layout(scheme, (kvt_side_options){ rotation, (kvt_centring)centring, effort, 0, 0, 0 }, &tiers[t], (kind)sides, n);
                }
    free(stack);
}
END_TEST

int main(int argc, char **argv)
{
#ifdef IS_SANITIZED
    fprintf(stderr, "skipped: test_stack: a sanitizer uses stack of its own\n");
    return SKIPPED;
#endif
    const bool reports = argc > 1 && strcmp(argv[1], "--report") == 0;
    Suite *suite = suite_create("stack");
    TCase *tcase = tcase_create("stack");
    tcase_set_timeout(tcase, 900);
    tcase_add_loop_test(tcase, all_functions, 0, (int)test_scheme_count());
    suite_add_tcase(suite, tcase);
    if (!reports)
        return test_run(suite);
    widths = 5;
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* what it finds is to be seen here */
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    for (int call = 0; call < TEST_CALLS; call++)
        printf("%6zu  %-24s %s\n", deepest[call].bytes, test_call_names[call], deepest[call].where);
    return failed != 0;
}
