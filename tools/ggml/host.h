/* SPDX-License-Identifier: MIT */
/* The llama.cpp that has loaded us: its functions, found when it runs, so that one plug-in serves every build; and what its headers do not say. */
#ifndef KVT_GGML_HOST_H
#define KVT_GGML_HOST_H

#include <ggml-backend-impl.h>
#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>

#include <stdbool.h>

void ggml_barrier(struct ggml_threadpool *threadpool);
void ggml_log_internal(enum ggml_log_level level, const char *format, ...);

/* clang-format off */
#define HOST_FUNCTIONS(F) \
    F(ggml_backend_buffer_init) F(ggml_backend_buft_is_meta) F(ggml_backend_cpu_init) F(ggml_backend_cpu_reg) F(ggml_backend_cpu_set_n_threads) \
    F(ggml_barrier) F(ggml_get_type_traits) F(ggml_log_internal) F(ggml_nbytes) F(ggml_op_name) F(ggml_quantize_chunk) F(ggml_row_size)

/* Numbers of operations differ between versions; their names do not. */
#define HOST_OPERATIONS(F) \
    F(NONE) F(RESHAPE) F(VIEW) F(PERMUTE) F(TRANSPOSE) F(CPY) F(GET_ROWS) F(SET_ROWS) F(ROPE) F(FLASH_ATTN_EXT) F(NORM) F(RMS_NORM)
/* clang-format on */

enum { HOST_ABI_FIRST = 2, HOST_ABI_LAST = 3 };

typedef struct host_table {
#define HOST_FIELD(name) __typeof__(name) *name;
    HOST_FUNCTIONS(HOST_FIELD)
#undef HOST_FIELD
#define HOST_FIELD(name) enum ggml_op name;
    HOST_OPERATIONS(HOST_FIELD)
#undef HOST_FIELD
    int abi;
    void *extra_buffer_types; /* ggml_backend_cpu_get_extra_buffer_types, which is of C++ */
} host_table;
extern host_table host;

/* False, and a message, where this llama.cpp has not what is needed. */
bool host_open(void);

/* Messages go where llama.cpp's own go. */
#define host_say(...)  host.ggml_log_internal(GGML_LOG_LEVEL_INFO, __VA_ARGS__)
#define host_warn(...) host.ggml_log_internal(GGML_LOG_LEVEL_WARN, __VA_ARGS__)

#endif
