/* SPDX-License-Identifier: MIT */
/* The command lines of `kvtile eval`, `convert` and `info`, and the options of kvtile-engine: each line of the input is an argument, the first one
 * the command. Inputs are in_k.npy, in_v.npy and in_q.npy; nothing is read or written beside the working directory, which is empty otherwise. */
#define _GNU_SOURCE /* mkdtemp, unlink */
#include <fcntl.h>

#include "target.h"
#include "tools/cli/commands.h"
#include "tools/engine/commands.h"
#include "tools/rows/formats.h"

#include "fuzz_files.h"

#define MAX_ARGUMENTS 40

static void write_rows(const char *name, uint32_t heads)
{
    enum { TOKENS = 5, DIM = 16 };
    FILE *file = fopen(name, "wb");
    if (file == NULL)
        abort();
    npy_write_header(file, KVT_F32, heads, TOKENS, DIM);
    for (uint32_t i = 0; i < heads * TOKENS * DIM; i++) {
        const float number = (float)(i * 7919 % 101) / 50 - 1;
        fwrite(&number, sizeof number, 1, file);
    }
    if (fclose(file) != 0)
        abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const int nowhere = open("/dev/null", O_WRONLY);
    if (nowhere < 0 || dup2(nowhere, STDOUT_FILENO) < 0 || files_begin() != 0)
        return -1;
    write_rows("in_k.npy", 1);
    write_rows("in_v.npy", 1);
    write_rows("in_q.npy", 2);
    return 0;
}

static void read_engine_options(char *const *lines, int n)
{
    option_texts texts = { 0 };
    char **const places[] = { &texts.model,  &texts.tokenizer, &texts.text,    &texts.prompt,      &texts.out,
                              &texts.tokens, &texts.threads,   &texts.seed,    &texts.temperature, &texts.scheme,
                              &texts.k,      &texts.v,         &texts.schemes, &texts.rotation,    &texts.centring };
    for (int i = 0; i < n && i < (int)(sizeof places / sizeof *places); i++)
        *places[i] = strcmp(lines[i], "-") != 0 ? lines[i] : NULL;
    options chosen = { .tokens = 0 };
    const char *argument = NULL;
    error_text error = { "" };
    if (options_read(&chosen, &texts, &argument, &error) != 0 && (!*error.text || strchr(error.text, '\n') || argument == NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (memchr(bytes, '/', size) != NULL)
        return 0;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, bytes, size);
    text[size] = '\0';
    char *lines[MAX_ARGUMENTS + 1] = { "" };
    int n = 0;
    for (char *line = text, *end; line && n < MAX_ARGUMENTS; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        if (*line)
            lines[n++] = line;
    }
    const bool is_eval = strcmp(lines[0], "eval") == 0;
    const char *arguments[MAX_ARGUMENTS + 2] = { NULL };
    for (int i = 0; i < n; i++)
        arguments[is_eval && i > 0 ? i + 1 : i] = lines[i];
    int code = 0;
    if (is_eval) {
        arguments[1] = "--no-speed"; /* measuring it takes time */
        code = kvt_cmd_eval(n + 1, arguments);
    } else if (strcmp(lines[0], "convert") == 0) {
        code = kvt_cmd_convert(n, arguments);
    } else if (strcmp(lines[0], "info") == 0) {
        code = kvt_cmd_info(n, arguments);
    } else if (n > 0) {
        read_engine_options(lines + 1, n - 1);
    }
    if (code < 0 || code > 2)
        abort();
    free(text);
    files_remove("in_");
    return 0;
}
