/* SPDX-License-Identifier: MIT */
/* kvtile: the command line. Each subcommand has its own folder. */
#include "tools/cli/commands.h"

#include "tools/files/error.h"
#include "tools/files/nearest.h"
#include "tools/program/options.h"
#include "tools/program/program.h"

#include <kvtile/kvtile.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, const char **argv);
    const char *title;
} COMMANDS[] = {
    { "size", kvt_cmd_size, "bytes of a model's KV cache, per token and at a context" },
    { "eval", kvt_cmd_eval, "what each scheme costs: rows, attention, whole models" },
    { "convert", kvt_cmd_convert, "rows in and out of other engines' formats" },
    { "bench", kvt_cmd_bench, "speed of each scheme's kernels, beside what limits them" },
    { "inspect", kvt_cmd_inspect, "a saved sequence: what is in it, and whether it is whole" },
    { "store", kvt_cmd_store, "a folder of blocks: what it holds, its budget, damaged blocks" },
    { "info", kvt_cmd_info, "version, CPU features, and which kernels run" },
};
static const size_t N_COMMANDS = sizeof COMMANDS / sizeof *COMMANDS;

static void print_help(void)
{
    fputs("Examples:\n"
          "  kvtile size gemma-4-E2B --k kv5 --v kv4 --ctx 128k\n"
          "  kvtile size model.gguf --engine llama.cpp --budget 8GiB\n"
          "  kvtile eval --attention keys.npy values.npy queries.npy\n"
          "  kvtile bench --quick\n"
          "\n"
          "A language model's KV cache in fewer bytes, the same bits on every CPU.\n"
          "\n",
          stdout);
    for (size_t i = 0; i < N_COMMANDS; i++)
        printf("  kvtile %-8s %s\n", COMMANDS[i].name, COMMANDS[i].title);
    puts("\nkvtile COMMAND --help explains a command, --help-all all of it.\n"
         "kvtile --version prints the version.");
}

int main(int argc, char **argv)
{
    program_start("kvtile");
    json_set_alloc_funcs(program_allocate, free);
    static char help[] = "--help";
    if (argc > 2 && strcmp(argv[1], "help") == 0) { /* kvtile help size */
        argv[1] = argv[2];
        argv[2] = help;
        argc = 3;
    }
    if (argc < 2 || strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--help-all") == 0 ||
        strcmp(argv[1], "-h") == 0) {
        print_help();
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("kvtile %s\n", kvt_version());
        return 0;
    }
    /* What shells complete by: `kvtile --options` lists the commands, `kvtile --options COMMAND` its options. */
    if (strcmp(argv[1], "--options") == 0) {
        if (argc == 2) {
            for (size_t i = 0; i < N_COMMANDS; i++)
                puts(COMMANDS[i].name);
            return 0;
        }
        options_list_only();
        argv++;
        argc = 2;
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], COMMANDS[i].name) == 0) {
            void *arguments = argv + 1; /* commands take const char **, which C does not convert to */
            return COMMANDS[i].run(argc - 1, arguments);
        }
    }
    nearest best = { .typed = argv[1] };
    for (size_t i = 0; i < N_COMMANDS; i++)
        nearest_consider(&best, COMMANDS[i].name);
    char text[64] = "no such command; see kvtile --help";
    if (best.name)
        snprintf(text, sizeof text, "no such command; did you mean %s?", best.name);
    error_print("kvtile", argv[1], text);
    return 2;
}
