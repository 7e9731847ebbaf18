/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "bench/ggml.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#ifdef KVT_BENCH_GGML /* paths separated by colons */

typedef void quantize_fn(const float *row, void *stored, int64_t n);
typedef void dequantize_fn(const void *stored, float *row, int64_t n);

/* Of several symbols the first that exists is taken: the SIMD loop of libggml-cpu before the reference loop of libggml-base. */
static const struct known {
    const char *scheme;
    const char *name;
    uint32_t channels;
    size_t block_bytes;
    const char *quantize[2];
    const char *dequantize[2];
} known[] = {
    { "q8_0", "q8_0", 32, 34, { "quantize_row_q8_0", "quantize_row_q8_0_ref" }, { "dequantize_row_q8_0" } },
    { "q4_0", "q4_0", 32, 18, { "quantize_row_q4_0", "quantize_row_q4_0_ref" }, { "dequantize_row_q4_0" } },
    { "kv5", "q5_0", 32, 22, { "quantize_row_q5_0", "quantize_row_q5_0_ref" }, { "dequantize_row_q5_0" } },
    { "kv4", "iq4_nl", 32, 18, { "quantize_row_iq4_nl", "quantize_row_iq4_nl_ref" }, { "dequantize_row_iq4_nl" } },
    { "f16", "f16", 1, 2, { "ggml_cpu_fp32_to_fp16", "ggml_fp32_to_fp16_row" }, { "ggml_cpu_fp16_to_fp32", "ggml_fp16_to_fp32_row" } },
    { "bf16", "bf16", 1, 2, { "ggml_cpu_fp32_to_bf16", "ggml_fp32_to_bf16_row" }, { "ggml_cpu_bf16_to_fp32", "ggml_bf16_to_fp32_row" } },
};
enum { N_KNOWN = sizeof known / sizeof *known, MOST_LIBRARIES = 4 };

static struct library {
    int looked;
    size_t n_handles;
    void *handles[MOST_LIBRARIES];
    char report[400];
} library;

static void library_open(void)
{
    char paths[] = KVT_BENCH_GGML;
    char *rest = NULL;
    library.looked = 1;
    for (char *path = strtok_r(paths, ":", &rest); path != NULL && library.n_handles < MOST_LIBRARIES; path = strtok_r(NULL, ":", &rest)) {
        void *handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
        if (handle != NULL)
            library.handles[library.n_handles++] = handle;
        else
            snprintf(library.report, sizeof library.report, "%.300s", dlerror());
    }
}

/* Returns what dlsym does, as a function pointer that is to be converted. */
static void (*library_symbol(const char *const names[2], const char **found))(void)
{
    void (*function)(void) = NULL;
    for (size_t i = 0; i < 2 && names[i] != NULL; i++) {
        for (size_t h = 0; h < library.n_handles; h++) {
            void *address = dlsym(library.handles[h], names[i]);
            if (address == NULL)
                continue;
            memcpy(&function, &address, sizeof function); /* ISO C converts no object pointer to a function pointer, POSIX promises it */
            *found = names[i];
            return function;
        }
    }
    return NULL;
}

static ggml_format formats[N_KNOWN];

static void find_formats(void)
{
    if (library.looked)
        return;
    library_open();
    static const char *const init[2] = { "ggml_cpu_init", NULL };
    const char *name;
    void (*initialise)(void) = library_symbol(init, &name);
    if (initialise != NULL)
        initialise(); /* its table of f16 numbers */
    for (size_t i = 0; i < N_KNOWN; i++) {
        ggml_format *format = &formats[i];
        *format = (ggml_format){ .name = known[i].name, .channels = known[i].channels, .block_bytes = known[i].block_bytes };
        format->quantize = (quantize_fn *)library_symbol(known[i].quantize, &format->quantize_symbol);
        format->dequantize = (dequantize_fn *)library_symbol(known[i].dequantize, &format->dequantize_symbol);
        const char *const symbols[] = { format->quantize_symbol, format->dequantize_symbol };
        for (size_t s = 0; s < 2; s++) {
            const size_t length = strlen(library.report);
            if (symbols[s] != NULL)
                snprintf(library.report + length, sizeof library.report - length, "%s%s", length > 0 ? " " : "", symbols[s]);
        }
    }
}

const ggml_format *ggml_format_find(const bench_case *case_)
{
    static const kvt_side_options plain;
    find_formats();
    if (case_->op == BENCH_IMPORT || case_->op == BENCH_EXPORT || case_->dtype != KVT_F32 || case_->options.rotation != plain.rotation ||
        case_->options.centring != plain.centring || case_->options.fp8_block != plain.fp8_block)
        return NULL;
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (strcmp(known[i].scheme, case_->scheme->name) != 0 || case_->dim % known[i].channels != 0)
            continue;
        const int there = case_->op == BENCH_READ ? formats[i].dequantize != NULL && formats[i].quantize != NULL : formats[i].quantize != NULL;
        return there ? &formats[i] : NULL;
    }
    return NULL;
}

const char *ggml_report(void)
{
    find_formats();
    return library.report[0] != '\0' ? library.report : "none of the known symbols found";
}

#else

const ggml_format *ggml_format_find(const bench_case *case_)
{
    (void)case_;
    return NULL;
}

const char *ggml_report(void)
{
    return NULL;
}

#endif
