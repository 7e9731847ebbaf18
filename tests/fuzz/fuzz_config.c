/* SPDX-License-Identifier: MIT */
#include "fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    fuzz_model(model_read_config, bytes, size);
    return 0;
}
