/* SPDX-License-Identifier: MIT */
/* GGUF files: what sizing reads of them, and the model and the tokenizer that the engine reads. */
#include "fuzz_model.h"

#include "tools/engine/checkpoint.h"
#include "tools/engine/tokenizer_read.h"

/* Any bytes give a model, or an error and what can be closed. */
static void fuzz_engine(const uint8_t *bytes, size_t size)
{
    checkpoint model = { .dim = 0 };
    tokenizer words;
    error_text error = { "" };
    uint32_t *tokens;
    size_t n;
    if (checkpoint_read_gguf(&model, NULL, bytes, size, &error) != 0 && (!*error.text || strchr(error.text, '\n')))
        abort();
    checkpoint_close(&model);
    tokenizer_begin(&words, 9);
    words.map = (file_map){ bytes, size };
    if (tokenizer_read_gguf(&words, &error) == 0 && tokenizer_encode(&words, false, bytes, size < 100 ? size : 100, &tokens, &n, &error) == 0)
        free(tokens);
    words.map = (file_map){ NULL, 0 }; /* which was not opened */
    tokenizer_close(&words);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_model(model_read_gguf, bytes, size);
    if (size > 0)
        fuzz_engine(bytes, size);
    return 0;
}
