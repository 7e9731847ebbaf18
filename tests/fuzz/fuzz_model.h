/* The two readers of models: any bytes give a description that can be sized, or an error. */
#ifndef KVT_FUZZ_MODEL_H
#define KVT_FUZZ_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "target.h"
#include "tools/model/description.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

/* Aborts when a reader breaks its promise. */
static void fuzz_model(int (*read)(const void *, size_t, model_description *, error_text *), const uint8_t *bytes, size_t size)
{
    model_description description = { 0 };
    error_text error = { "" };
    if (read(bytes, size, &description, &error) != 0) {
        if (!*error.text || strchr(error.text, '\n') || description.groups)
            abort();
        return;
    }
    /* What was read can be sized by every engine, or is refused for a reason: never for contradicting itself. */
    for (size_t i = 0; kvt_engine_at(i) != KVT_ENGINE_NONE; i++) {
        const kvt_size_request request = { .size = sizeof request, .engine = kvt_engine_at(i), .context = 100000, .sequences = 2 };
        kvt_size_report report;
        const kvt_status status = kvt_size(&description.model, &request, &report, NULL);
        if (status != KVT_OK && status != KVT_ERR_OVERFLOW && status != KVT_ERR_ENGINE)
            abort();
    }
    description_free(&description);
}

#endif
