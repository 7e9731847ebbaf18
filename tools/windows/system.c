/* SPDX-License-Identifier: MIT */
/* POSIX's calls for the machine by those of Windows, and how a program starts: bytes go in and out as they are, and a terminal is UTF-8. */
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include <windows.h>

__attribute__((constructor)) static void start(void)
{
    _fmode = _O_BINARY;
    for (int file = 0; file < 3; file++)
        if (_get_osfhandle(file) >= 0)
            _setmode(file, _O_BINARY);
    SetConsoleOutputCP(CP_UTF8);
    const HANDLE errors = GetStdHandle(STD_ERROR_HANDLE);
    DWORD mode;
    if (GetConsoleMode(errors, &mode))
        SetConsoleMode(errors, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
}

int fcntl(int file, int command, ...)
{
    (void)command; /* whether it is open is all that is asked */
    if (_get_osfhandle(file) != -1)
        return 0;
    errno = EBADF;
    return -1;
}

long sysconf(int name)
{
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    if (name == _SC_PAGESIZE)
        return (long)system.dwPageSize;
    MEMORYSTATUSEX memory = { .dwLength = sizeof memory };
    return name == _SC_PHYS_PAGES && GlobalMemoryStatusEx(&memory) ? (long)(memory.ullTotalPhys / system.dwPageSize) : -1;
}

int uname(struct utsname *system)
{
    memset(system, 0, sizeof *system);
    for (unsigned part = 0; part < 3; part++) {
        unsigned words[4];
        if (!__get_cpuid(0x80000002 + part, &words[0], &words[1], &words[2], &words[3])) {
            strcpy(system->machine, "x86_64");
            break;
        }
        memcpy(system->machine + part * sizeof words, words, sizeof words);
    }
    return 0;
}

void *mmap(void *at, size_t bytes, int protection, int flags, int file, off64_t offset)
{
    (void)at, (void)protection, (void)flags, (void)file, (void)offset;
    void *memory = VirtualAlloc(NULL, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    return memory != NULL ? memory : MAP_FAILED;
}

int munmap(void *memory, size_t bytes)
{
    (void)bytes;
    return VirtualFree(memory, 0, MEM_RELEASE) ? 0 : -1;
}

int madvise(void *memory, size_t bytes, int advice)
{
    if (advice != MADV_DONTNEED)
        return 0;
    /* Zeros come back where it is touched again. */
    return VirtualFree(memory, bytes, MEM_DECOMMIT) && VirtualAlloc(memory, bytes, MEM_COMMIT, PAGE_READWRITE) != NULL ? 0 : -1;
}

void *dlopen(const char *path, int flags)
{
    (void)flags;
    return (void *)LoadLibraryA(path);
}

void *dlsym(void *library, const char *name)
{
    return (void *)(uintptr_t)GetProcAddress(library, name);
}

const char *dlerror(void)
{
    return "the library cannot be opened";
}

char *realpath(const char *path, char *full)
{
    return access(path, F_OK) == 0 ? _fullpath(full, path, _MAX_PATH) : NULL;
}

/* What qsort calls with two items alone. */
static _Thread_local struct {
    int (*compare)(const void *, const void *, void *);
    void *context;
} sorting;

static int compare_in_context(const void *a, const void *b)
{
    return sorting.compare(a, b, sorting.context);
}

void qsort_r(void *items, size_t n, size_t size, int (*compare)(const void *, const void *, void *), void *context)
{
    sorting.compare = compare;
    sorting.context = context;
    qsort(items, n, size, compare_in_context);
}

int kvt_clock_gettime(clockid_t clock, struct timespec *now)
{
    enum { TICKS = 10000000 }; /* of a second */
    FILETIME time;
    if (clock != CLOCK_REALTIME)
        return (clock_gettime)(clock, now);
    GetSystemTimePreciseAsFileTime(&time);
    const uint64_t ticks = ((uint64_t)time.dwHighDateTime << 32 | time.dwLowDateTime) - UINT64_C(116444736000000000); /* 1970 */
    *now = (struct timespec){ .tv_sec = (time_t)(ticks / TICKS), .tv_nsec = (long)(ticks % TICKS * 100) };
    return 0;
}

struct tm *gmtime_r(const time_t *time, struct tm *utc)
{
    return gmtime_s(utc, time) == 0 ? utc : NULL;
}
