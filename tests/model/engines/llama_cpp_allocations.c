/* SPDX-License-Identifier: MIT */
/* What llama.cpp itself allocates for the caches of a model, tensor by tensor.
 *
 *   allocations FOLDER-OF-BACKENDS METADATA.gguf NEVER < settings
 *
 * The model is made of the file's metadata; its weights are never read. It has all weights that llama.cpp asks for but those whose name has one of
 * the parts NEVER, separated by commas. Each line of settings makes one context:
 *
 *   context sequences ubatch type_k type_v unified swa_full flash rollback mtp
 *
 * and is answered by one line: bytes of all cache tensors, bytes of the buffers that they lie in, then name=bytes of each kind of tensor (cache_k,
 * cache_v, cache_r ...), or "error" and why. libllama asks for the memory of its caches by ggml_backend_alloc_ctx_tensors_from_buft: this program
 * has a function of that name, which the dynamic linker finds first, adds up ggml_nbytes and calls the real one. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "gguf.h"
#include "llama.h"

#define MAX_KINDS 32

static struct {
    bool on;
    uint64_t tensors, buffers;
    size_t n_kinds;
    struct {
        char name[32];
        uint64_t bytes;
    } kinds[MAX_KINDS];
} taken;
static char first_error[400];

/* The name without the layer: cache_k_l17 is of the kind cache_k. */
static void add_tensor(const struct ggml_tensor *tensor)
{
    char name[32];
    snprintf(name, sizeof name, "%.31s", tensor->name);
    char *layer = strstr(name, "_l");
    while (layer && (layer[2] < '0' || layer[2] > '9'))
        layer = strstr(layer + 1, "_l");
    if (layer)
        *layer = 0;

    size_t i = 0;
    while (i < taken.n_kinds && strcmp(taken.kinds[i].name, name) != 0)
        i++;
    if (i == MAX_KINDS) {
        fprintf(stderr, "more than %d kinds of tensors\n", MAX_KINDS);
        exit(1);
    }
    if (i == taken.n_kinds)
        strcpy(taken.kinds[taken.n_kinds++].name, name);
    taken.kinds[i].bytes += ggml_nbytes(tensor);
    taken.tensors += ggml_nbytes(tensor);
}

ggml_backend_buffer_t ggml_backend_alloc_ctx_tensors_from_buft(struct ggml_context *ctx, ggml_backend_buffer_type_t type)
{
    ggml_backend_buffer_t (*real)(struct ggml_context *, ggml_backend_buffer_type_t);
    *(void **)&real = dlsym(RTLD_NEXT, "ggml_backend_alloc_ctx_tensors_from_buft");
    ggml_backend_buffer_t buffer = real(ctx, type);
    if (!taken.on || !buffer)
        return buffer;
    taken.buffers += ggml_backend_buffer_get_size(buffer);
    for (struct ggml_tensor *tensor = ggml_get_first_tensor(ctx); tensor; tensor = ggml_get_next_tensor(ctx, tensor)) {
        if (!tensor->view_src)
            add_tensor(tensor);
    }
    return buffer;
}

static void leave_unset(struct ggml_tensor *tensor, void *data)
{
    (void)tensor, (void)data;
}

static void keep_errors(enum ggml_log_level level, const char *text, void *data)
{
    (void)data;
    if (getenv("ALLOCATIONS_LOG"))
        fputs(text, stderr);
    if (level == GGML_LOG_LEVEL_ERROR && !first_error[0]) /* the next ones only say where it was */
        snprintf(first_error, sizeof first_error, "%.*s", (int)strcspn(text, "\n"), text);
}

/* The model, with every weight that llama.cpp asks for, needed or not. The metadata has no tensors: these functions, which libllama finds before
 * those of libggml-base, say that it has every one, in f32. Some builds of libllama check how many there are; the first attempt says what is right.
 */
static int64_t n_weights;
static const char *never; /* parts of names of weights that it does not have, with commas between them */

int64_t gguf_get_n_tensors(const struct gguf_context *metadata)
{
    (void)metadata;
    return n_weights;
}

int64_t gguf_find_tensor(const struct gguf_context *metadata, const char *name)
{
    (void)metadata;
    for (const char *part = never; *part; part += strcspn(part, ",") + (part[strcspn(part, ",")] == ',')) {
        char text[64];
        snprintf(text, sizeof text, "%.*s", (int)strcspn(part, ","), part);
        if (strstr(name, text))
            return -1;
    }
    return 0;
}

enum ggml_type gguf_get_tensor_type(const struct gguf_context *metadata, int64_t id)
{
    (void)metadata, (void)id;
    return GGML_TYPE_F32;
}

static struct llama_model *make_model(struct gguf_context *metadata, struct llama_model_params params)
{
    struct llama_model *model = llama_model_init_from_user(metadata, leave_unset, NULL, params);
    const char *counts = strstr(first_error, "too many tensors created; expected 0, got ");
    if (model || !counts)
        return model;
    n_weights = strtol(strstr(counts, "got ") + 4, NULL, 10);
    first_error[0] = 0;
    return llama_model_init_from_user(metadata, leave_unset, NULL, params);
}

static enum ggml_type find_type(const char *name)
{
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char *known = ggml_type_name((enum ggml_type)i);
        if (known && strcmp(known, name) == 0)
            return (enum ggml_type)i;
    }
    fprintf(stderr, "no type is called %s\n", name);
    exit(1);
}

/* One line of settings; false when it is not one. */
static bool measure(struct llama_model *model, const char *line)
{
    unsigned context, sequences, ubatch, unified, swa_full, flash, rollback, mtp;
    char type_k[16], type_v[16];
    if (sscanf(line, "%u %u %u %15s %15s %u %u %u %u %u", &context, &sequences, &ubatch, type_k, type_v, &unified, &swa_full, &flash, &rollback,
               &mtp) != 10)
        return false;
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = context;
    params.n_seq_max = sequences;
    params.n_ubatch = ubatch;
    params.n_batch = params.n_batch < ubatch ? ubatch : params.n_batch;
    params.n_rs_seq = rollback;
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = find_type(type_k);
    params.type_v = find_type(type_v);
    params.kv_unified = unified;
    params.swa_full = swa_full;
    params.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.ctx_type = mtp ? LLAMA_CONTEXT_TYPE_MTP : LLAMA_CONTEXT_TYPE_DEFAULT;

    memset(&taken, 0, sizeof taken);
    first_error[0] = 0;
    taken.on = true;
    struct llama_context *opened = llama_init_from_model(model, params);
    taken.on = false;
    if (!opened) {
        printf("error %s\n", first_error);
        return true;
    }
    llama_free(opened);
    printf("%" PRIu64 " %" PRIu64, taken.tensors, taken.buffers);
    for (size_t i = 0; i < taken.n_kinds; i++)
        printf(" %s=%" PRIu64, taken.kinds[i].name, taken.kinds[i].bytes);
    putchar('\n');
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: allocations FOLDER-OF-BACKENDS METADATA.gguf NEVER < settings\n");
        return 2;
    }
    never = argv[3];
    llama_log_set(keep_errors, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    struct gguf_context *metadata = gguf_init_from_file(argv[2], (struct gguf_init_params){ .no_alloc = true });
    if (!metadata) {
        fprintf(stderr, "%s is no GGUF file\n", argv[2]);
        return 1;
    }
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = 0;
    params.load_mtp = true;
    params.use_extra_bufts = false;
    struct llama_model *model = make_model(metadata, params);
    if (!model) {
        fprintf(stderr, "%s\n", first_error);
        return 1;
    }
    char line[200];
    while (fgets(line, sizeof line, stdin)) {
        if (!measure(model, line)) {
            fprintf(stderr, "not a line of settings: %s", line);
            return 1;
        }
        fflush(stdout);
    }
    llama_model_free(model);
    gguf_free(metadata);
    return 0;
}
