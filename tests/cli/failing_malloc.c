/* SPDX-License-Identifier: MIT */
/* Preloaded into a command: of its allocations the one with the number in KVT_FAIL_AT fails, and with KVT_FAIL_ALL set all after it too, from main
 * on: before that, libgfortran calls itself for ever when nothing can be allocated. At the end the number of allocations, and how many of them were
 * before main, are written to the descriptor in KVT_FAIL_COUNT. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* glibc's own, which need no looking up: that would allocate. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static atomic_long allocations;
static long before_main = -1; /* -1: this is before main */
static long fail_at, fail_all, count_to = -1;
static int is_ready;

static long number_of(const char *name, long missing)
{
    const char *text = getenv(name);
    return text != NULL ? atol(text) : missing;
}

static int fails(void)
{
    if (!is_ready) { /* first called by the dynamic linker, when there is one thread */
        is_ready = 1;
        fail_at = number_of("KVT_FAIL_AT", 0);
        fail_all = number_of("KVT_FAIL_ALL", 0);
        count_to = number_of("KVT_FAIL_COUNT", -1);
        unsetenv("LD_PRELOAD"); /* what the command starts is not what is tested */
    }
    const long number = atomic_fetch_add(&allocations, 1) + 1;
    if (fail_at == 0 || (fail_all != 0 ? number < fail_at || before_main < 0 : number != fail_at))
        return 0;
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *memory, size_t size)
{
    return fails() ? NULL : __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return fails() ? NULL : __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size)
{
    return fails() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    *memory = fails() ? NULL : __libc_memalign(alignment, size);
    return *memory != NULL ? 0 : ENOMEM;
}

typedef int main_function(int argc, char **argv, char **environment);
typedef int start_function(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void), void (*linker_fini)(void), void *end);
start_function __libc_start_main;

/* What glibc's startup code calls when shared libraries have been initialised. */
int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*fini)(void), void (*linker_fini)(void), void *end)
{
    start_function *next;
    void *symbol = dlsym(RTLD_NEXT, "__libc_start_main");
    memcpy(&next, &symbol, sizeof next); /* ISO C converts no object pointer to a function pointer */
    before_main = atomic_load(&allocations);
    return next(main, argc, argv, init, fini, linker_fini, end);
}

__attribute__((destructor)) static void tell(void)
{
    char text[64];
    const int length = snprintf(text, sizeof text, "%ld %ld\n", (long)allocations, before_main);
    if (count_to >= 0 && write((int)count_to, text, (size_t)length) != length)
        _exit(99);
}
