/* SPDX-License-Identifier: MIT */
/* Tokens of many texts, for compare_tokenizers.py. `tokens FILE SIZE`: a tokenizer of a model with SIZE tokens. Reads texts from stdin, each a u32
 * number of bytes and the bytes; writes for each a u32 number of tokens and the tokens as u32, or UINT32_MAX, a u32 number of bytes and an error. */
#include "tools/engine/tokenizer.h"

#include <stdlib.h>
#include <string.h>

static void write_u32(uint32_t value)
{
    fwrite(&value, sizeof value, 1, stdout);
}

static int encode(const tokenizer *words, const uint8_t *text, size_t length)
{
    error_text error = { "" };
    uint32_t *tokens;
    size_t n;
    if (tokenizer_encode(words, false, text, length, &tokens, &n, &error) != 0) {
        write_u32(UINT32_MAX);
        write_u32((uint32_t)strlen(error.text));
        fputs(error.text, stdout);
    } else {
        write_u32((uint32_t)n);
        for (size_t i = 0; i < n; i++)
            write_u32(tokens[i]);
    }
    free(tokens);
    return fflush(stdout);
}

int main(int argc, char **argv)
{
    tokenizer words;
    error_text error = { "" };
    if (argc != 3 || tokenizer_open(&words, argv[1], (uint32_t)strtoul(argv[2], NULL, 10), &error) != 0) {
        fprintf(stderr, "tokens: %s: %s\n", argc == 3 ? argv[1] : "FILE SIZE", error.text);
        return 1;
    }
    int result = 0;
    for (uint32_t length; result == 0 && fread(&length, sizeof length, 1, stdin) == 1;) {
        uint8_t *text = malloc(length + (size_t)1);
        result = text != NULL && fread(text, 1, length, stdin) == length ? encode(&words, text, length) : 1;
        free(text);
    }
    tokenizer_close(&words);
    return result != 0;
}
