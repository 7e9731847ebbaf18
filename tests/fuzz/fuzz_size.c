/* SPDX-License-Identifier: MIT */
/* The command line of `kvtile size`: each line of the input is an argument. */
#define _GNU_SOURCE /* memmem */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "target.h"
#include "tools/cli/commands.h"

#define MAX_ARGUMENTS 40

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    const int nowhere = open("/dev/null", O_WRONLY);
    return nowhere < 0 || dup2(nowhere, STDOUT_FILENO) < 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, bytes, size);
    text[size] = '\0';

    const char *arguments[MAX_ARGUMENTS + 2] = { "size" };
    int n = 1;
    for (char *line = text, *end; line && n <= MAX_ARGUMENTS; line = end) {
        end = strchr(line, '\n');
        if (end)
            *end++ = '\0';
        if (*line)
            arguments[n++] = line;
    }
    /* Not what is fuzzed here: writing files and running gnuplot. */
    if (!memmem(bytes, size, "plot", 4))
        (void)kvt_cmd_size(n, arguments);
    free(text);
    return 0;
}
