/* SPDX-License-Identifier: MIT */
/* kvtile info: what the library finds on this machine. */
#include "tools/cli/commands.h"

#include "tools/files/error.h"
#include "tools/files/json.h"
#include "tools/program/options.h"

#include <kvtile/kvtile.h>

#include <stdio.h>
#include <stdlib.h>

/* One screen of 80 columns: it is all that there is. */
static const char HELP[] = "Examples:\n"
                           "  kvtile info\n"
                           "  kvtile info --tier scalar --json | jq .tiers.q8_0\n"
                           "\n"
                           "The library's version, the CPU features that it uses, and the tier (a compiled\n"
                           "set of kernels) that serves each scheme.\n"
                           "\n"
                           "  --tier LIST  tiers that may run: \"avx2\" = that one and what it inherits,\n"
                           "               \"-avx512\" = all but that one\n"
                           "  --json       one object: version, cpu_features, tiers {scheme: tier}\n";

static void print_info_json(uint32_t tiers)
{
    json_t *features = json_array();
    const char *feature;
    for (size_t i = 0; (feature = kvt_cpu_feature(i)) != NULL; i++)
        json_array_append_new(features, json_string(feature));
    json_t *schemes = json_object();
    const kvt_scheme_info *info;
    for (size_t i = 0; (info = kvt_scheme_at(i)) != NULL; i++)
        json_object_set_new(schemes, info->name, json_string(kvt_scheme_tier(info->scheme, tiers)));
    json_t *object = json_pack("{s:s, s:o, s:o}", "version", kvt_version(), "cpu_features", features, "tiers", schemes);
    json_print(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static void print_info(uint32_t tiers)
{
    printf("kvtile %s\nCPU features:", kvt_version());
    const char *feature;
    for (size_t i = 0; (feature = kvt_cpu_feature(i)) != NULL; i++)
        printf(" %s", feature);
    printf("\nusable tiers:");
    for (unsigned id = 0; id < 32; id++) {
        if ((kvt_tiers_usable() & UINT32_C(1) << id) != 0)
            printf(" %s", kvt_tier_name(id));
    }
    printf("\n\n  %-6s  %-10s  %s\n", "scheme", "tier", "what");
    const kvt_scheme_info *info;
    for (size_t i = 0; (info = kvt_scheme_at(i)) != NULL; i++)
        printf("  %-6s  %-10s  %s\n", info->name, kvt_scheme_tier(info->scheme, tiers), info->title);
}

int kvt_cmd_info(int argc, const char **argv)
{
    static const char who[] = "kvtile info";
    int help = 0, help_all = 0;
    int json = 0;
    char *tier_list = NULL;
    const struct poptOption table[] = { { "tier", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL },
                                        { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },
                                        { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
                                        { "help-all", 0, POPT_ARG_NONE, &help_all, 0, NULL, NULL },
                                        POPT_TABLEEND };
    poptContext context = options_open(who, "kvtile", argc, argv, table);
    if (context == NULL)
        return 1;
    const int parsed = options_take(context, argc, argv, table, (char **const[]){ &tier_list });
    int code = 0;
    uint32_t tiers = 0;
    if (parsed < -1) {
        error_print(who, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (poptPeekArg(context) != NULL) {
        error_print(who, poptPeekArg(context), "no argument would be right, only options; see kvtile info --help");
        code = 2;
    } else if (help || help_all) {
        fputs(HELP, stdout);
    } else if (tier_list != NULL && kvt_tiers_parse(tier_list, &tiers) != KVT_OK) {
        error_print(who, tier_list, kvt_status_text(KVT_ERR_TIER));
        code = 2;
    } else if (json) {
        print_info_json(tiers);
    } else {
        print_info(tiers);
    }
    free(tier_list);
    poptFreeContext(context);
    return code;
}
