/* SPDX-License-Identifier: MIT */
/* Files that are looked at where they lie: of one that is larger than memory only what is used comes in. Its price is that a file which shrinks
 * meanwhile, or whose disk fails, is a signal, SIGBUS, and no error of a call: the handler here turns it into a message and exit status 1. */
#define _POSIX_C_SOURCE 200809L
#include "tools/files/file.h"

#include "tools/files/output.h"
#include "tools/files/text.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- what is mapped, for the handler ---- */

/* Entries are used again and never freed, so that the handler can always walk them. */
typedef struct mapped {
    struct mapped *next;
    _Atomic(const uint8_t *) data; /* NULL: not in use */
    size_t size;
    char path[4096];
} mapped;

static _Atomic(mapped *) all_mapped;
static struct sigaction before; /* what SIGBUS did */

static void write_to_stderr(const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        const ssize_t written = write(STDERR_FILENO, text, left);
        if (written <= 0)
            return;
        text += written;
        left -= (size_t)written;
    }
}

/* Does only what is safe in a handler. A fault anywhere else happens again, and is what it was before. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    const uintptr_t at = (uintptr_t)info->si_addr;
    for (const mapped *mapping = all_mapped; mapping != NULL; mapping = mapping->next) {
        const uintptr_t begin = (uintptr_t)atomic_load(&mapping->data);
        if (begin == 0 || at < begin || at - begin >= mapping->size)
            continue;
        write_to_stderr("kvtile: ");
        write_to_stderr(mapping->path);
        write_to_stderr(": became shorter while it was read, or could not be read: the same file, whole and left alone, would be right\n");
        file_output_abandon();
        _exit(1);
    }
    sigaction(SIGBUS, &before, NULL);
}

static void watch(void)
{
    struct sigaction action = { .sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO };
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &before);
}

static int remember(const file_map *map, const char *path)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch);
    mapped *mapping = all_mapped;
    while (mapping != NULL && atomic_load(&mapping->data) != NULL)
        mapping = mapping->next;
    const bool is_new = mapping == NULL;
    if (is_new)
        mapping = calloc(1, sizeof *mapping);
    if (mapping == NULL)
        return -1;
    text_shown(mapping->path, sizeof mapping->path, path);
    mapping->size = map->size;
    atomic_store(&mapping->data, map->data);
    if (is_new) {
        mapping->next = all_mapped;
        atomic_store(&all_mapped, mapping);
    }
    return 0;
}

static void forget_map(const file_map *map)
{
    for (mapped *mapping = all_mapped; mapping != NULL; mapping = mapping->next)
        if (atomic_load(&mapping->data) == map->data)
            atomic_store(&mapping->data, NULL);
}

/* ---- files ---- */

int file_map_open(file_map *map, const char *path, error_text *error)
{
    uint64_t size;
    *map = (file_map){ 0 };
    const int descriptor = file_open(path, &size, error);
    if (descriptor < 0)
        return -1;
    void *data = size <= SIZE_MAX ? mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, descriptor, 0) : MAP_FAILED;
    const int why = size <= SIZE_MAX ? errno : EFBIG;
    close(descriptor);
    if (data == MAP_FAILED)
        return error_set(error, "cannot be mapped: %s", strerror(why));
    *map = (file_map){ .data = data, .size = (size_t)size };
    if (remember(map, path) == 0)
        return 0;
    munmap(data, map->size);
    *map = (file_map){ 0 };
    return error_set(error, "cannot be read: out of memory");
}

void file_map_close(file_map *map)
{
    if (map->data != NULL) {
        forget_map(map);
        munmap((void *)(uintptr_t)map->data, map->size);
    }
    *map = (file_map){ 0 };
}
