/* SPDX-License-Identifier: MIT */
/* Tokenizer files of all three forms, and a text. Byte 0: how many tokens the model has; bytes 1 and 2: how many bytes the text takes; the text; the
 * file. */
#include "target.h"

#include "tools/engine/tokenizer_read.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    tokenizer words;
    error_text error = { "" };
    uint32_t *tokens = NULL;
    size_t n = 0, length = 0;
    if (size < 4)
        return 0;
    const uint32_t vocabulary = bytes[0] < 250 ? bytes[0] + 1u : 259u; /* llama2.c's has at least 259 */
    length = bytes[1] | (size_t)bytes[2] << 8;
    length = length < size - 3 ? length : size - 4;
    const file_map file = { bytes + 3 + length, size - 3 - length };
    const bool is_read = tokenizer_read(&words, file, vocabulary, &error) == 0;
    if (!is_read && (!*error.text || strchr(error.text, '\n')))
        abort();
    if (is_read && tokenizer_encode(&words, false, bytes + 3, length, &tokens, &n, &error) == 0) {
        FILE *stream = fopen("/dev/null", "w");
        for (size_t i = 0; stream != NULL && i < n; i++) {
            if (tokens[i] >= vocabulary)
                abort();
            tokenizer_write(&words, i > 0 ? tokens[i - 1] : NO_TOKEN, tokens[i], stream);
        }
        if (stream != NULL)
            fclose(stream);
    }
    free(tokens);
    if (is_read) {
        words.map = (file_map){ NULL, 0 }; /* which was not opened */
        tokenizer_close(&words);
    }
    return 0;
}
