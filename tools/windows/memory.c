/* SPDX-License-Identifier: MIT */
/* Aligned memory that `free` takes, as C says. Windows' own goes to _aligned_free alone, so what is aligned is remembered here; it is little. */
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#undef free

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void **aligned;
static size_t n_aligned, room;

void *kvt_aligned_alloc(size_t alignment, size_t bytes)
{
    void *memory = _aligned_malloc(bytes, alignment);
    if (memory == NULL)
        return NULL;
    pthread_mutex_lock(&lock);
    if (n_aligned == room) {
        void **more = realloc(aligned, (2 * room + 16) * sizeof *more);
        if (more != NULL) {
            aligned = more;
            room = 2 * room + 16;
        }
    }
    const int fits = n_aligned < room;
    if (fits)
        aligned[n_aligned++] = memory;
    pthread_mutex_unlock(&lock);
    if (fits)
        return memory;
    _aligned_free(memory);
    return NULL;
}

static int forget_aligned(const void *memory)
{
    int found = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = n_aligned; i > 0 && !found; i--)
        if (aligned[i - 1] == memory) {
            aligned[i - 1] = aligned[--n_aligned];
            found = 1;
        }
    pthread_mutex_unlock(&lock);
    return found;
}

void kvt_free(void *memory)
{
    /* Alignments are those of lines at least. */
    if (memory != NULL && (uintptr_t)memory % 64 == 0 && forget_aligned(memory))
        _aligned_free(memory);
    else
        free(memory);
}
