/* SPDX-License-Identifier: MIT */
/* What libFuzzer calls, and replay.c. */
#ifndef KVT_FUZZ_TARGET_H
#define KVT_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#endif
