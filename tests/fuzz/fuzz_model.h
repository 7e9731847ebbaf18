/* SPDX-License-Identifier: MIT */
/* The two readers of models: any bytes give a description that can be sized, or an error. */
#ifndef KVT_FUZZ_MODEL_H
#define KVT_FUZZ_MODEL_H

#include <stdlib.h>
#include <string.h>

#include "target.h"
#include "tools/model/description.h"
#include "tools/model/shard.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static bool logical_bytes(const kvt_model *model, uint64_t *bytes)
{
    const kvt_size_request request = { .size = sizeof request, .engine = KVT_ENGINE_logical, .context = 100000, .sequences = 2 };
    kvt_size_report report;
    const kvt_status status = kvt_size(model, &request, &report, NULL);
    *bytes = status == KVT_OK ? report.total_bytes : 0;
    return status == KVT_OK;
}

/* Stages of a pipeline keep together what the whole keeps. */
static void fuzz_stages(const model_description *description)
{
    model_stage stages[3];
    error_text error = { "" };
    uint64_t whole, sum = 0, bytes;
    if (model_split(&description->model, description, 3, 1, stages, &error) != 0) {
        if (!*error.text)
            abort();
        return;
    }
    const bool known = logical_bytes(&description->model, &whole);
    for (int i = 0; i < 3; i++) {
        if (!logical_bytes(&stages[i].part.model, &bytes) && known)
            abort();
        sum += bytes;
    }
    if (known && sum != whole)
        abort();
    model_free_stages(stages, 3);
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
    fuzz_stages(&description);
    description_free(&description);
}

#endif
