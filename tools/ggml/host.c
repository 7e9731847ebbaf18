/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* dl_iterate_phdr */
#include "tools/ggml/host.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <string.h>

host_table host;

/* The library of the CPU backend, of which there are variants by CPU; through it the base library is found too. */
static int find_cpu(struct dl_phdr_info *info, size_t bytes, void *found)
{
    (void)bytes;
    const char *name = info->dlpi_name ? strrchr(info->dlpi_name, '/') : NULL;
    if (!name || strncmp(name, "/libggml-cpu", strlen("/libggml-cpu")) != 0)
        return 0;
    *(void **)found = dlopen(info->dlpi_name, RTLD_NOW | RTLD_NOLOAD);
    return *(void **)found != NULL;
}

static void find_operation(enum ggml_op *to, const char *name)
{
    int op = 0;
    while (strcmp(host.ggml_op_name((enum ggml_op)op), name) != 0)
        op++;
    *to = (enum ggml_op)op;
}

bool host_open(void)
{
    void *cpu = NULL;
    dl_iterate_phdr(find_cpu, &cpu);
    if (!cpu) {
        fputs("kvtile: this llama.cpp has no backend for the CPU that is a library of its own: a build with dynamic backends is needed\n", stderr);
        return false;
    }
    const char *missing = NULL;
#define HOST_FIND(name)                                                                                                                              \
    *(void **)&host.name = dlsym(cpu, #name);                                                                                                        \
    missing = host.name ? missing : #name;
    HOST_FUNCTIONS(HOST_FIND)
#undef HOST_FIND
    host.extra_buffer_types = dlsym(cpu, "_Z39ggml_backend_cpu_get_extra_buffer_typesv");
    missing = host.extra_buffer_types ? missing : "ggml_backend_cpu_get_extra_buffer_types";
    if (missing) {
        fprintf(stderr, "kvtile: this llama.cpp does not export %s\n", missing);
        return false;
    }
    host.abi = host.ggml_backend_cpu_reg()->api_version;
    if (host.abi < HOST_ABI_FIRST || host.abi > HOST_ABI_LAST) {
        fprintf(stderr, "kvtile: this llama.cpp has version %d of the interface of backends; versions %d and %d are known\n", host.abi,
                HOST_ABI_FIRST, HOST_ABI_LAST);
        return false;
    }
#define HOST_FIND(name) find_operation(&host.name, #name);
    HOST_OPERATIONS(HOST_FIND)
#undef HOST_FIND
    return true;
}
