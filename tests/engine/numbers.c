/* SPDX-License-Identifier: MIT */
/* Numbers of this engine, for compare_gguf.py. `numbers decode TYPE`: rows in ggml's number format TYPE on stdin, their floats on stdout.
 * `numbers logits MODEL TOKEN...`: what the model predicts after each of the tokens, [token][vocabulary] floats. */
#include "tools/engine/numbers.h"
#include "tools/engine/forward.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int decode(uint32_t type)
{
    const numbers_format *format = numbers_find(type);
    uint8_t block[256];
    float out[256];
    while (format != NULL && fread(block, format->bytes, 1, stdin) == 1) {
        format->decode(block, 1, out);
        fwrite(out, sizeof *out, format->block, stdout);
    }
    return format != NULL && fflush(stdout) == 0 ? 0 : 1;
}

static int predict(const char *path, size_t n, char **tokens)
{
    checkpoint model;
    error_text error = { "" };
    forward_state state = { 0 };
    const cache_way exact = { .reference = true };
    pool *alone = pool_open(1);
    int result = checkpoint_open(&model, path, &error);
    if (result == 0)
        result = forward_open(&state, &model, &exact, n, 1, alone, &error);
    for (size_t i = 0; result == 0 && i < n; i++)
        fwrite(forward_token(&state, (uint32_t)strtoul(tokens[i], NULL, 10), i), sizeof(float), model.vocabulary, stdout);
    if (result != 0)
        fprintf(stderr, "numbers: %s: %s\n", path, error.text);
    forward_close(&state);
    checkpoint_close(&model);
    pool_close(alone);
    return result == 0 && fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "decode") == 0)
        return decode((uint32_t)strtoul(argv[2], NULL, 10));
    if (argc > 3 && strcmp(argv[1], "logits") == 0)
        return predict(argv[2], (size_t)argc - 3, argv + 3);
    fputs("usage: numbers decode TYPE | numbers logits MODEL TOKEN...\n", stderr);
    return 2;
}
