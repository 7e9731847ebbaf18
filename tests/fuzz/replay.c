/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target once for each file: the kept corpus as a test, with any compiler and sanitizer. */
#include <stdio.h>
#include <stdlib.h>

#include "target.h"

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        return 1;
    }
    const long size = ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(size > 0 ? (size_t)size : 1); /* exactly as many: a read beyond them is seen */
    const int bad = size < 0 || !bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size;
    if (!bad)
        LLVMFuzzerTestOneInput(bytes, (size_t)size);
    free(bytes);
    fclose(file);
    return bad;
}

int main(int argc, char **argv)
{
    int failures = argc < 2;
    if (LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    for (int i = 1; i < argc; i++)
        failures += replay(argv[i]);
    fprintf(stderr, "%d files, %d failures\n", argc - 1, failures);
    return failures != 0;
}
