/* SPDX-License-Identifier: MIT */
/* kvtile inspect: what a saved sequence is, and whether it is whole. */
#include "tools/cli/commands.h"

#include "tools/files/json.h"
#include "tools/files/saved.h"
#include "tools/files/text.h"
#include "tools/program/options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char HELP[] = "Examples:\n"
                           "  kvtile inspect chat.kvt\n"
                           "  kvtile inspect chat.kvt --json | jq .groups[0].bytes\n"
                           "\n"
                           "What a saved sequence holds (kvtile/saved.h, docs/formats.md), and whether each\n"
                           "block's checksum is right. Exit code 1 when it is damaged.\n"
                           "\n"
                           "  --json  one object: tokens, model, state_bytes, groups, is_whole\n";

static size_t records_bytes(const kvt_saved_group *g)
{
    return g->n_pages * g->page_stride + g->n_first * g->first_stride + g->n_open * g->open_stride;
}

static const char *value_scheme(const kvt_spec *spec)
{
    return spec->v_dim ? kvt_scheme_get(spec->v_scheme)->name : spec->rope_dim ? kvt_scheme_get(spec->rope_scheme)->name : "";
}

static void print_saved(const char *path, const kvt_saved *s)
{
    text_print(stdout, path);
    printf(": tokens %zu to %zu, model %016" PRIx64 ", %zu bytes%s%s\n", s->first, s->end, s->model, s->bytes, s->token_ids ? ", with token ids" : "",
           s->state_bytes ? ", with a state" : "");
    printf("  group  layers  heads  K          V or RoPE  pages  first  open  bytes\n");
    for (uint32_t i = 0; i < s->n_groups; i++) {
        const kvt_saved_group *g = &s->groups[i];
        const kvt_spec *spec = &g->layout.spec;
        printf("  %5" PRIu32 "  %6" PRIu32 "  %5" PRIu32 "  %-4s x %-4" PRIu32 "  %-4s x %-4" PRIu32 "  %5" PRIu32 "  %5" PRIu32 "  %4" PRIu32
               "  %zu\n",
               i, g->layers, spec->kv_heads, kvt_scheme_get(spec->k_scheme)->name, spec->k_dim, value_scheme(spec), spec->v_dim + spec->rope_dim,
               g->n_pages, g->n_first, g->n_open, records_bytes(g));
    }
    puts("all checksums are right");
}

static void print_saved_json(const kvt_saved *s, const char *why)
{
    json_t *groups = json_array();
    for (uint32_t i = 0; i < s->n_groups; i++) {
        const kvt_saved_group *g = &s->groups[i];
        const kvt_spec *spec = &g->layout.spec;
        json_array_append_new(groups, json_pack("{s:I, s:I, s:s, s:I, s:s, s:I, s:I, s:b, s:I, s:I, s:I, s:I}", "layers", (json_int_t)g->layers,
                                                "kv_heads", (json_int_t)spec->kv_heads, "k_scheme", kvt_scheme_get(spec->k_scheme)->name, "k_dim",
                                                (json_int_t)spec->k_dim, "v_scheme", value_scheme(spec), "v_dim", (json_int_t)spec->v_dim, "rope_dim",
                                                (json_int_t)spec->rope_dim, "has_first_spec", g->first_layout.size != 0, "pages",
                                                (json_int_t)g->n_pages, "first_pages", (json_int_t)g->n_first, "open_pages", (json_int_t)g->n_open,
                                                "bytes", (json_int_t)records_bytes(g)));
    }
    char model[17];
    snprintf(model, sizeof model, "%016" PRIx64, s->model);
    json_t *object = json_pack("{s:I, s:I, s:s, s:b, s:I, s:I, s:o, s:b, s:s}", "first_token", (json_int_t)s->first, "tokens",
                               (json_int_t)(s->end - s->first), "model", model, "has_token_ids", s->token_ids != NULL, "state_bytes",
                               (json_int_t)s->state_bytes, "bytes", (json_int_t)s->bytes, "groups", groups, "is_whole", *why == '\0', "problem", why);
    json_print(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static int inspect(const char *path, bool json)
{
    saved_file file;
    error_text error;
    if (saved_open(&file, path, &error) != 0) {
        error_print("kvtile inspect", path, error.text);
        return 1;
    }
    char why[200];
    const kvt_status status = kvt_saved_verify(&file.saved, file.map.size, why, sizeof why);
    if (json)
        print_saved_json(&file.saved, why);
    else if (status == KVT_OK)
        print_saved(path, &file.saved);
    if (status != KVT_OK)
        error_print("kvtile inspect", path, why);
    saved_close(&file);
    return status == KVT_OK ? 0 : 1;
}

int kvt_cmd_inspect(int argc, const char **argv)
{
    static const char who[] = "kvtile inspect";
    int help = 0, help_all = 0, json = 0;
    const struct poptOption table[] = { { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },
                                        { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
                                        { "help-all", 0, POPT_ARG_NONE, &help_all, 0, NULL, NULL },
                                        POPT_TABLEEND };
    poptContext context = options_open(who, "kvtile", argc, argv, table);
    if (context == NULL)
        return 1;
    const int parsed = options_take(context, argc, argv, table, (char **const[]){ NULL });
    const char *path = poptGetArg(context);
    int code = 0;
    if (parsed < -1) {
        error_print(who, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help || help_all) {
        fputs(HELP, stdout);
    } else if (path == NULL || poptPeekArg(context) != NULL) {
        error_print(who, path == NULL ? "no file" : poptPeekArg(context), "one file would be right; see kvtile inspect --help");
        code = 2;
    } else {
        code = inspect(path, json != 0);
    }
    poptFreeContext(context);
    return code;
}
