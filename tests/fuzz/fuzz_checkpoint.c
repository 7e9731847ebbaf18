/* SPDX-License-Identifier: MIT */
/* Checkpoints of llama2.c, in f32 and f16, and whatever else is given as a model's file: any bytes give a model, or an error and what can be closed.
 */
#include <stdlib.h>
#include <string.h>

#include "target.h"
#include "tools/engine/checkpoint.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    checkpoint model = { .dim = 0 };
    error_text error = { "" };
    if (size == 0)
        return 0;
    if (checkpoint_read(&model, NULL, bytes, size, &error) != 0 && (!*error.text || strchr(error.text, '\n')))
        abort();
    checkpoint_close(&model);
    return 0;
}
