/* SPDX-License-Identifier: MIT */
/* Hugging Face folders as models: config.json, model.safetensors, model.safetensors.index.json and another shard, one behind the other with "\n---\n"
 * between them. What is empty is not in the folder. */
#define _GNU_SOURCE /* memmem */
#include "target.h"
#include "tools/engine/checkpoint.h"

#include "fuzz_files.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return files_begin();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char between[] = "\n---\n";
    static const char *const names[] = { "config.json", "model.safetensors", "model.safetensors.index.json", "shard.safetensors" };
    const uint8_t *at = bytes, *end = bytes + size;
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *next = i < 3 && at < end ? memmem(at, (size_t)(end - at), between, sizeof between - 1) : NULL;
        const size_t n = (size_t)((next != NULL ? next : end) - at);
        if (n > 0)
            files_write(names[i], at, n);
        else
            unlink(names[i]);
        at = next != NULL ? next + sizeof between - 1 : end;
    }
    checkpoint model;
    error_text error = { "" };
    if (checkpoint_open(&model, ".", &error) == 0)
        checkpoint_close(&model);
    else if (!*error.text || strchr(error.text, '\n') || model.weights != NULL)
        abort();
    return 0;
}
