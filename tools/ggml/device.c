/* SPDX-License-Identifier: MIT */
/* The device that llama.cpp sees. Layers' caches lie in the buffers of their device, so all caches are ours; weights do not, as the device computes
 * nothing with them, and stay where the CPU backend puts them. All operations run on the CPU backend's threads (hook.h).
 *
 * `-fa auto` asks which device would compute attention, once, before any work: it takes the answer that it is the layer's own device, or goes
 * without. So from when a context is made until its graphs are first reserved the device *claims* all operations. Graphs are reserved, and computed,
 * behind a call of synchronize, and that of the question is not. */
#define _GNU_SOURCE /* _SC_AVPHYS_PAGES */
#include "tools/ggml/hook.h"
#include "tools/ggml/layers.h"
#include "tools/ggml/ops.h"
#include "tools/ggml/prefix.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "KVTILE"

static struct ggml_backend_device device;
static struct ggml_backend_reg registration;
static atomic_bool claims, divides;

/* ---- buffers ---- */

static void buffer_free(ggml_backend_buffer_t buffer)
{
    layers_close(buffer->context);
    free(buffer->context);
}

static void *buffer_base(ggml_backend_buffer_t buffer)
{
    const cache *c = buffer->context;
    return c->memory;
}

static enum ggml_status buffer_init_tensor(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor)
{
    layers_take(buffer->context, tensor);
    return GGML_STATUS_SUCCESS;
}

static void buffer_set(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, const void *data, size_t offset, size_t bytes)
{
    layer *l = layer_of(tensor);
    (void)buffer;
    if (l)
        layer_set(l, tensor, data, offset, bytes);
    else
        memcpy((uint8_t *)tensor->data + offset, data, bytes);
}

static void buffer_memset(ggml_backend_buffer_t buffer, struct ggml_tensor *tensor, uint8_t value, size_t offset, size_t bytes)
{
    void *data = malloc(bytes ? bytes : 1);
    if (!data)
        abort();
    memset(data, value, bytes);
    buffer_set(buffer, tensor, data, offset, bytes);
    free(data);
}

static void buffer_get(ggml_backend_buffer_t buffer, const struct ggml_tensor *tensor, void *data, size_t offset, size_t bytes)
{
    layer *l = layer_of(tensor);
    (void)buffer;
    if (l)
        layer_get(l, tensor, data, offset, bytes);
    else
        memcpy(data, (const uint8_t *)tensor->data + offset, bytes);
}

/* False: ggml gets and sets the rows. */
static bool buffer_copy(ggml_backend_buffer_t buffer, const struct ggml_tensor *from, struct ggml_tensor *to)
{
    layer *l = layer_of(from);
    (void)buffer;
    return l && layer_of(to) == l && layer_side(l, from) == layer_side(l, to) && layer_copy(l, from, to);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value)
{
    cache *c = buffer->context;
    layers_clear(c);
    if (value)
        memset(c->memory, value, c->bytes);
}

static const char *type_name(ggml_backend_buffer_type_t type)
{
    (void)type;
    return NAME;
}

static ggml_backend_buffer_t type_alloc(ggml_backend_buffer_type_t type, size_t bytes)
{
    static const struct ggml_backend_buffer_i functions = { .free_buffer = buffer_free,
                                                            .get_base = buffer_base,
                                                            .init_tensor = buffer_init_tensor,
                                                            .memset_tensor = buffer_memset,
                                                            .set_tensor = buffer_set,
                                                            .get_tensor = buffer_get,
                                                            .cpy_tensor = buffer_copy,
                                                            .clear = buffer_clear };
    cache *c = malloc(sizeof *c);
    claims = true;
    if (c && layers_open(c, bytes))
        return host.ggml_backend_buffer_init(type, functions, c, bytes);
    free(c);
    return NULL;
}

static size_t type_alignment(ggml_backend_buffer_type_t type)
{
    (void)type;
    return 64;
}

static bool type_is_host(ggml_backend_buffer_type_t type)
{
    (void)type;
    return false;
}

/* Version 3 has two entries more. */
typedef struct buffer_type_2 {
    const char *(*get_name)(ggml_backend_buffer_type_t);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, size_t);
    size_t (*get_alignment)(ggml_backend_buffer_type_t);
    size_t (*get_max_size)(ggml_backend_buffer_type_t);
    size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const struct ggml_tensor *);
    bool (*is_host)(ggml_backend_buffer_type_t);
    ggml_backend_dev_t device;
    void *context;
} buffer_type_2;
typedef struct buffer_type_3 {
    const char *(*get_name)(ggml_backend_buffer_type_t);
    ggml_backend_buffer_t (*alloc_buffer)(ggml_backend_buffer_type_t, size_t);
    ggml_backend_buffer_t (*alloc_buffer_n)(ggml_backend_buffer_type_t, struct ggml_tensor **, int);
    size_t (*get_alignment)(ggml_backend_buffer_type_t);
    size_t (*get_max_size)(ggml_backend_buffer_type_t);
    size_t (*get_alloc_size)(ggml_backend_buffer_type_t, const struct ggml_tensor *);
    size_t (*get_alloc_size_n)(ggml_backend_buffer_type_t, struct ggml_tensor **, int);
    bool (*is_host)(ggml_backend_buffer_type_t);
    ggml_backend_dev_t device;
    void *context;
} buffer_type_3;

static ggml_backend_buffer_type_t make_type(void)
{
    static buffer_type_2 second = {
        .get_name = type_name, .alloc_buffer = type_alloc, .get_alignment = type_alignment, .is_host = type_is_host, .device = &device
    };
    static buffer_type_3 third = {
        .get_name = type_name, .alloc_buffer = type_alloc, .get_alignment = type_alignment, .is_host = type_is_host, .device = &device
    };
    second.context = third.context = hook_context();
    return host.abi == 2 ? (void *)&second : (void *)&third;
}

/* ---- backends: what was claimed is computed after all, by a CPU backend of the backend's own ---- */

typedef struct backend_state {
    ggml_backend_t cpu;
    int threads;
} backend_state;

static const char *backend_name(ggml_backend_t backend)
{
    (void)backend;
    return NAME;
}

static void backend_free(ggml_backend_t backend)
{
    backend_state *state = backend->context;
    if (state->cpu)
        state->cpu->iface.free(state->cpu);
    free(state);
    free(backend);
}

static void backend_synchronize(ggml_backend_t backend)
{
    (void)backend;
    claims = false;
}

static enum ggml_status backend_compute(ggml_backend_t backend, struct ggml_cgraph *graph)
{
    backend_state *state = backend->context;
    if (!state->cpu)
        state->cpu = host.ggml_backend_cpu_init();
    if (!state->cpu)
        return GGML_STATUS_ALLOC_FAILED;
    host.ggml_backend_cpu_set_n_threads(state->cpu, state->threads);
    return state->cpu->iface.graph_compute(state->cpu, graph);
}

static void backend_set_threads(ggml_backend_t backend, int threads)
{
    backend_state *state = backend->context;
    state->threads = threads;
}

static ggml_guid *backend_guid(void)
{
    static ggml_guid guid = { 'k', 'v', 't', 'i', 'l', 'e' };
    return &guid;
}

/* ---- the device ---- */

static ggml_backend_t device_init(ggml_backend_dev_t dev, const char *parameters)
{
    ggml_backend_t backend = calloc(1, sizeof *backend);
    backend_state *state = calloc(1, sizeof *state);
    (void)parameters;
    if (!backend || !state) {
        free(backend);
        free(state);
        return NULL;
    }
    state->threads = 1;
    backend->guid = backend_guid();
    backend->device = dev;
    backend->context = state;
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->iface.synchronize = backend_synchronize;
    backend->iface.graph_compute = backend_compute;
    claims = false;
    return backend;
}

static const char *device_name(ggml_backend_dev_t dev)
{
    (void)dev;
    return NAME;
}

static const char *device_description(ggml_backend_dev_t dev)
{
    (void)dev;
    return "KV cache by kvtile, on the CPU";
}

static void device_memory(ggml_backend_dev_t dev, size_t *free_bytes, size_t *total)
{
    (void)dev;
    *free_bytes = (size_t)sysconf(_SC_AVPHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    *total = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
}

/* Layers go to a GPU of the machine first, where there is one. */
static enum ggml_backend_dev_type device_type(ggml_backend_dev_t dev)
{
    (void)dev;
    return GGML_BACKEND_DEVICE_TYPE_IGPU;
}

static void device_properties(ggml_backend_dev_t dev, struct ggml_backend_dev_props *to)
{
    memset(to, 0, sizeof *to);
    to->name = device_name(dev);
    to->description = device_description(dev);
    to->type = device_type(dev);
    device_memory(dev, &to->memory_free, &to->memory_total);
}

static ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t dev)
{
    (void)dev;
    return layers_type;
}

/* With `--split-mode tensor` llama.cpp divides the tensors of a model among devices, and has no other: then all of it is ours, weights too, in plain
 * memory. A model is divided or not from when its weights look for a place. */
static bool is_divided(const struct ggml_tensor *tensor)
{
    const struct ggml_tensor *root = tensor && tensor->view_src ? tensor->view_src : tensor;
    return root && root->buffer && host.ggml_backend_buft_is_meta(root->buffer->buft);
}

static void notice_model(const struct ggml_tensor *op)
{
    bool has_divided = is_divided(op);
    for (int i = 0; i < GGML_MAX_SRC; i++)
        has_divided |= is_divided(op->src[i]);
    if (has_divided)
        divides = true;
    else if (!ops_supports(op))
        divides = false;
}

static bool device_supports_op(ggml_backend_dev_t dev, const struct ggml_tensor *op)
{
    (void)dev;
    /* llama.cpp puts norms on their layer's device when it builds a graph, which is before it synchronizes. */
    const bool is_anothers = op->op == host.NORM || op->op == host.RMS_NORM || (op->op == host.FLASH_ATTN_EXT && !ops_is_ours(op->src[1]));
    notice_model(op);
    return divides || (claims && !is_anothers && ops_supports(op));
}

static bool device_supports_type(ggml_backend_dev_t dev, ggml_backend_buffer_type_t type)
{
    (void)dev;
    return claims || type == layers_type;
}

/* ---- the registration ---- */

static const char *registration_name(ggml_backend_reg_t reg)
{
    (void)reg;
    return NAME;
}

static size_t registration_count(ggml_backend_reg_t reg)
{
    (void)reg;
    return 1;
}

static ggml_backend_dev_t registration_device(ggml_backend_reg_t reg, size_t index)
{
    (void)reg;
    return index == 0 ? &device : NULL;
}

static void *registration_function(ggml_backend_reg_t reg, const char *name)
{
    void *found = NULL;
    void (*set_threads)(ggml_backend_t, int) = backend_set_threads;
    (void)reg;
    if (strcmp(name, "ggml_backend_set_n_threads") == 0)
        memcpy(&found, &set_threads, sizeof found);
    return found;
}

__attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void);

/* The one function that llama.cpp looks for. NULL: it goes on without us. */
ggml_backend_reg_t ggml_backend_init(void)
{
    char problem[600];
    if (!options_parse(&layers_options, getenv("KVTILE"), problem, sizeof problem)) {
        fprintf(stderr, "kvtile: %s\n", problem);
        return NULL;
    }
    if (!host_open())
        return NULL;
    if (!prefix_use_folder(getenv("KVTILE_STORE"), problem, sizeof problem)) {
        fprintf(stderr, "kvtile: %s\n", problem);
        return NULL;
    }
    device.iface = (struct ggml_backend_device_i){ .get_name = device_name,
                                                   .get_description = device_description,
                                                   .get_memory = device_memory,
                                                   .get_type = device_type,
                                                   .get_props = device_properties,
                                                   .init_backend = device_init,
                                                   .get_buffer_type = device_buffer_type,
                                                   .supports_op = device_supports_op,
                                                   .supports_buft = device_supports_type };
    device.reg = &registration;
    registration.api_version = host.abi;
    registration.iface = (struct ggml_backend_reg_i){ .get_name = registration_name,
                                                      .get_device_count = registration_count,
                                                      .get_device = registration_device,
                                                      .get_proc_address = registration_function };
    layers_type = make_type();
    hook_add(host.extra_buffer_types, layers_type);
    return &registration;
}
