/* SPDX-License-Identifier: MIT */
/* Tiers: names, masks, and which one serves. With KVT_EXPECT_TIER=name in the environment the best tier of every scheme must be that one, so that
 * nothing passes by falling back to a lower one. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(names)
{
    uint32_t usable = kvt_tiers_usable();
    ck_assert_msg(usable & 1, "scalar is always usable");
    ck_assert_str_eq(kvt_tier_name(0), "scalar");
    for (unsigned id = 0; id < 32; id++) {
        const char *name = kvt_tier_name(id);
        ck_assert_msg(name != NULL || (usable >> id & 1) == 0, "usable tier %u has no name", id);
        for (unsigned other = 0; other < id; other++)
            ck_assert_msg(name == NULL || kvt_tier_name(other) == NULL || strcmp(name, kvt_tier_name(other)) != 0, "two tiers named %s", name);
    }
    ck_assert_ptr_null(kvt_tier_name(31));
    ck_assert_ptr_null(kvt_tier_name(32));
    ck_assert_ptr_null(kvt_tier_name(1000));
    ck_assert_uint_eq(kvt_tiers_usable(), usable);
}
END_TEST

static void parses(const char *text, uint32_t want)
{
    uint32_t mask = 0xdeadbeef;
    kvt_status status = kvt_tiers_parse(text, &mask);
    ck_assert_msg(status == KVT_OK, "\"%s\": %s", text, kvt_status_text(status));
    ck_assert_msg(mask == want, "\"%s\" is %x, not %x", text, mask, want);
}

static void refuses(const char *text)
{
    uint32_t mask = 0xdeadbeef;
    kvt_status status = kvt_tiers_parse(text, &mask);
    ck_assert_msg(status == KVT_ERR_TIER, "\"%s\" gives %d", text, (int)status);
    ck_assert_uint_eq(mask, 0xdeadbeef);
}

static const struct {
    const char *name;
    unsigned id;
} rows[] = {
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) { #name, id },
#include "arch/isa.def"
#undef KVT_TIER_ROW
};

START_TEST(parsing)
{
    uint32_t usable = kvt_tiers_usable();
    parses("scalar", 1);
    uint32_t lower = 0; /* the rows of isa.def above this one */
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        const unsigned id = rows[row].id;
        const char *name = kvt_tier_name(id);
        uint32_t bit = UINT32_C(1) << id;
        char text[80];
        ck_assert_str_eq(name, rows[row].name);
        lower |= bit;
        if (usable & bit) {
            parses(name, usable & lower);
            snprintf(text, sizeof text, "%s,-%s", name, name);
            refuses(text);
            snprintf(text, sizeof text, "-%s,%s", name, name);
            refuses(text);
            snprintf(text, sizeof text, "scalar,%s", name);
            if (id != 0)
                refuses(text);
            snprintf(text, sizeof text, "%s,bogus", name);
            refuses(text);
            snprintf(text, sizeof text, "%s,", name);
            refuses(text);
        } else {
            refuses(name);
            snprintf(text, sizeof text, "scalar,%s", name);
            refuses(text);
        }
        /* Forbidding one is fine whether it is usable or not. */
        if (id != 0) {
            snprintf(text, sizeof text, "-%s", name);
            parses(text, usable & ~bit);
            snprintf(text, sizeof text, "scalar,-%s", name);
            parses(text, 1);
        }
    }
    refuses("bogus");
    refuses("-bogus");
    refuses("");
    refuses("-");
    refuses(",");
    refuses("scalar,,scalar");
    refuses("SCALAR");
    refuses("scala");
    refuses("scalarx");
    refuses(" scalar");
    refuses("--scalar");
    char *longer = test_malloc(100000);
    memset(longer, 'a', 99999);
    longer[99999] = '\0';
    refuses(longer);
    free(longer);
    uint32_t mask = 5;
    ck_assert_int_eq(kvt_tiers_parse(NULL, &mask), KVT_ERR_NULL);
    ck_assert_int_eq(kvt_tiers_parse("scalar", NULL), KVT_ERR_NULL);
    ck_assert_uint_eq(mask, 5);
}
END_TEST

START_TEST(serving)
{
    uint32_t usable = kvt_tiers_usable();
    for (size_t i = 0; i < test_scheme_count(); i++) {
        kvt_scheme scheme = kvt_scheme_at(i)->scheme;
        const char *best = kvt_scheme_tier(scheme, 0);
        ck_assert_ptr_nonnull(best);
        ck_assert_str_eq(best, kvt_scheme_tier(scheme, usable));
        ck_assert_str_eq(kvt_scheme_tier(scheme, 1), "scalar");
        test_tier tiers[32];
        size_t n = test_tiers(tiers);
        for (size_t t = 0; t < n; t++) {
            const char *name = kvt_scheme_tier(scheme, tiers[t].mask);
            uint32_t mask = 0;
            ck_assert_ptr_nonnull(name);
            ck_assert_int_eq(kvt_tiers_parse(name, &mask), KVT_OK);
            ck_assert_msg((mask & ~tiers[t].mask) == 0, "%s serves though only %s was allowed", name, tiers[t].name);
        }
        const char *expected = getenv("KVT_EXPECT_TIER");
        printf("%-6s runs on %s\n", kvt_scheme_at(i)->name, best);
        if (expected != NULL && expected[0] != '\0')
            ck_assert_msg(strcmp(best, expected) == 0, "%s runs on %s, not on %s", kvt_scheme_at(i)->name, best, expected);
    }
    ck_assert_ptr_null(kvt_scheme_tier(KVT_SCHEME_NONE, 0));
    ck_assert_ptr_null(kvt_scheme_tier((kvt_scheme)1000, 0));
    size_t n_features = 0;
    for (; n_features < 100 && kvt_cpu_feature(n_features) != NULL; n_features++)
        printf("%s%s", n_features == 0 ? "CPU features: " : " ", kvt_cpu_feature(n_features));
    printf("\n");
    ck_assert_uint_lt(n_features, 100);
    ck_assert_ptr_null(kvt_cpu_feature(SIZE_MAX));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tiers");
    TCase *tcase = tcase_create("tiers");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, names);
    tcase_add_test(tcase, parsing);
    tcase_add_test(tcase, serving);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
