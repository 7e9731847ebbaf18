/* SPDX-License-Identifier: MIT */
/* kvtile store: what a folder of blocks holds. */
#include "tools/cli/commands.h"

#include "tools/files/json.h"
#include "tools/files/text.h"
#include "tools/program/options.h"
#include "tools/store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char HELP[] = "Examples:\n"
                           "  kvtile store ~/.cache/kvtile\n"
                           "  kvtile store ~/.cache/kvtile --verify\n"
                           "  kvtile store ~/.cache/kvtile --budget 2GiB\n"
                           "\n"
                           "A folder of blocks (docs/store.md): what the first tokens of prompts became in\n"
                           "an engine's cache. Other processes may use it meanwhile.\n"
                           "\n"
                           "  --list          each block: key, the key before it, bytes, last use\n"
                           "  --verify        reads all blocks, and removes those that are damaged\n"
                           "  --budget BYTES  of all files from now on, such as 2GiB; what was not used for\n"
                           "                  longest goes\n"
                           "  --json          one object: blocks, bytes, budget, damaged, list\n";

static const char WHO[] = "kvtile store";

typedef struct question {
    int list, verify, json;
    char *budget;
} question;

typedef struct listing {
    bool prints;
    json_t *array; /* NULL: not wanted */
} listing;

static int list_block(void *owner, const store_block *block)
{
    const listing *to = owner;
    char key[33], previous[33];
    store_key_text(&block->key, key);
    store_key_text(&block->previous, previous);
    if (to->prints)
        printf("%s after %s: %" PRIu64 " bytes, used at %lld\n", key, previous, block->bytes, (long long)block->used.tv_sec);
    if (to->array != NULL)
        json_array_append_new(to->array, json_pack("{s:s, s:s, s:I, s:I, s:I}", "key", key, "previous", previous, "bytes", (json_int_t)block->bytes,
                                                   "used", (json_int_t)block->used.tv_sec, "first_token", (json_int_t)block->ids[0]));
    return 0;
}

static void print_store_json(const store_measure *all, uint64_t damaged, json_t *list, bool verified)
{
    json_t *object = json_pack("{s:I, s:I}", "blocks", (json_int_t)all->blocks, "bytes", (json_int_t)all->bytes);
    json_object_set_new(object, "budget", all->budget != UINT64_MAX ? json_integer((json_int_t)all->budget) : json_null());
    if (verified)
        json_object_set_new(object, "damaged", json_integer((json_int_t)damaged));
    if (list != NULL)
        json_object_set(object, "list", list);
    json_print(object, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(object);
}

static void print_store(const char *path, const store_measure *all, uint64_t damaged, bool verified)
{
    text_print(stdout, path);
    printf(": %" PRIu64 " blocks of %d tokens, %" PRIu64 " bytes", all->blocks, STORE_TOKENS, all->bytes);
    if (all->budget != UINT64_MAX)
        printf(" of a budget of %" PRIu64, all->budget);
    if (verified)
        printf("; %" PRIu64 " were damaged, and are gone", damaged);
    putchar('\n');
}

/* 0, 1 or -1 with the error. */
static int inspect_folder(store *folder, const char *path, const question *q, error_text *error)
{
    const bool verified = q->verify != 0 || q->list != 0;
    listing to = { .prints = q->list != 0 && q->json == 0, .array = q->list != 0 && q->json != 0 ? json_array() : NULL };
    store_measure all;
    uint64_t damaged = 0;
    int result = 0;
    if (verified)
        result = store_walk(folder, q->list != 0 ? list_block : NULL, &to, &damaged, error);
    if (result == 0)
        result = store_count(folder, &all, error);
    if (result == 0 && q->json != 0)
        print_store_json(&all, damaged, to.array, verified);
    else if (result == 0)
        print_store(path, &all, damaged, verified);
    json_decref(to.array);
    return result == 0 && damaged != 0 ? 1 : result;
}

static int run_question(const char *path, const question *q)
{
    uint64_t budget = 0;
    if (q->budget != NULL && (!options_read_bytes(q->budget, &budget) || budget < STORE_HEADER)) {
        char why[200];
        snprintf(why, sizeof why, "\"%.60s\": a number of bytes, such as 2GiB or 900MB, and at least %d, would be right", q->budget, STORE_HEADER);
        error_print(WHO, "--budget", why);
        return 2;
    }
    struct stat status;
    if (stat(path, &status) != 0) { /* looking makes no folder */
        error_print(WHO, path, "cannot be opened: there is no such folder");
        return 1;
    }
    store *folder;
    error_text error;
    int result = store_open(&folder, path, budget, &error);
    if (result == 0) {
        result = inspect_folder(folder, path, q, &error);
        store_close(folder);
    }
    if (result < 0)
        error_print(WHO, path, error.text);
    return result == 0 ? 0 : 1;
}

int kvt_cmd_store(int argc, const char **argv)
{
    int help = 0, help_all = 0;
    question q = { 0 };
    const struct poptOption table[] = { { "list", 0, POPT_ARG_NONE, &q.list, 0, NULL, NULL },
                                        { "verify", 0, POPT_ARG_NONE, &q.verify, 0, NULL, NULL },
                                        { "budget", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL },
                                        { "json", 0, POPT_ARG_NONE, &q.json, 0, NULL, NULL },
                                        { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
                                        { "help-all", 0, POPT_ARG_NONE, &help_all, 0, NULL, NULL },
                                        POPT_TABLEEND };
    poptContext context = options_open(WHO, "kvtile", argc, argv, table);
    if (context == NULL)
        return 1;
    const int parsed = options_take(context, argc, argv, table, (char **const[]){ &q.budget });
    const char *path = poptGetArg(context);
    int code = 0;
    if (parsed < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help || help_all) {
        fputs(HELP, stdout);
    } else if (path == NULL || poptPeekArg(context) != NULL) {
        error_print(WHO, path == NULL ? "no folder" : poptPeekArg(context), "one folder would be right; see kvtile store --help");
        code = 2;
    } else {
        code = run_question(path, &q);
    }
    free(q.budget);
    poptFreeContext(context);
    return code;
}
