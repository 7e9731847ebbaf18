/* SPDX-License-Identifier: MIT */
/* The CPU backend asks each of its *extra buffer types* first whether it computes an operation. They are C++ classes, which is why this file's other
 * half is no C. */
#ifndef KVT_GGML_HOOK_H
#define KVT_GGML_HOOK_H

#include <ggml-backend.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a buffer type's context has to be, to be asked. */
void *hook_context(void);

/* Puts a buffer type before the others of the CPU backend's list; `list` is its ggml_backend_cpu_get_extra_buffer_types. */
void hook_add(void *list, ggml_backend_buffer_type_t type);

#ifdef __cplusplus
}
#endif

#endif
