/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "bench/buffers.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- memory ---- */

void arena_free(arena *memory)
{
    if (memory->mapped != NULL)
        munmap(memory->mapped, memory->mapped_bytes);
    *memory = (arena){ 0 };
}

static int arena_need(arena *memory, size_t bytes, bool touch)
{
    if (memory->bytes >= bytes)
        return 0;
    arena_free(memory);
    const size_t whole = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *mapped = mmap(NULL, whole + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return -1;
    const size_t beyond = (size_t)((uintptr_t)mapped % HUGE_PAGE);
    *memory = (arena){ .mapped = mapped, .mapped_bytes = whole + HUGE_PAGE, .bytes = whole };
    memory->base = (unsigned char *)mapped + (beyond > 0 ? HUGE_PAGE - beyond : 0);
#ifdef MADV_HUGEPAGE
    (void)madvise(memory->base, whole, MADV_HUGEPAGE);
#endif
    if (touch)
        memset(memory->base, 1, whole);
    return 0;
}

int arenas_need(arena *const *arenas, const size_t *needs, size_t n, bool touch, char *error, size_t error_room)
{
    size_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += needs[i];
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page = sysconf(_SC_PAGESIZE);
    int status = pages > 0 && page > 0 && total / 2 > (size_t)pages / 4 * (size_t)page ? -1 : 0;
    for (size_t i = 0; status == 0 && i < n; i++)
        status = arena_need(arenas[i], needs[i], touch);
    if (status != 0)
        snprintf(error, error_room, "needs %zu MiB: more than half of this machine's memory, or than it gives", total >> 20);
    return status;
}

/* ---- numbers ---- */

static uint16_t f16_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint32_t magnitude = bits & 0x7fffffff;
    const uint32_t narrow = magnitude >= UINT32_C(113) << 23 ? (magnitude - (UINT32_C(112) << 23)) >> 13 : 0; /* cut off; smaller ones are 0 */
    return (uint16_t)(bits >> 16 & 0x8000) | (uint16_t)narrow;
}

void fill_rows(void *rows, size_t n_rows, uint32_t dim, kvt_dtype dtype)
{
    unsigned char *to = rows;
    uint32_t random = 1;
    for (size_t i = 0; i < n_rows * dim; i++) {
        int32_t sum = 0;
        for (int part = 0; part < 4; part++) {
            random = random * 1664525 + 1013904223;
            sum += (int32_t)(random >> 16) - 32768;
        }
        const float value = (float)sum * (i % dim % 29 == 3 ? 1e-3F : 5e-5F);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        const uint16_t half = dtype == KVT_F16 ? f16_of(value) : (uint16_t)(bits >> 16);
        if (dtype == KVT_F32)
            memcpy(to + i * sizeof value, &value, sizeof value);
        else
            memcpy(to + i * sizeof half, &half, sizeof half);
    }
}

void fill_repeat(unsigned char *base, size_t part, size_t total)
{
    for (size_t done = part; done < total;) {
        const size_t n = done < total - done ? done : total - done;
        memcpy(base + done, base, n);
        done += n;
    }
}

size_t divide_up(size_t n, size_t unit)
{
    const size_t units = (n + unit - 1) / unit;
    return units > 0 ? units : 1;
}

double seconds_now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}
