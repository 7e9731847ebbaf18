/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "bench/machine.h"

#include <kvtile/kvtile.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* The beginning of a small file, which needs no memory that there may not be. Returns 0, or -1 when there is none. */
static int read_beginning(const char *path, char *text, size_t room)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    const ssize_t n = read(file, text, room - 1);
    close(file);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    return 0;
}

static int read_first_line(const char *path, char *text, size_t room)
{
    if (read_beginning(path, text, room) != 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    return 0;
}

/* Linux's own list. It is preferred to sysconf, which on AMD in virtual machines multiplies the last level. */
static int caches_from_sysfs(machine *found)
{
    unsigned last = 0;
    for (unsigned i = 0; i < 16; i++) {
        char path[96];
        char text[32];
        unsigned level;
        unsigned long kib;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/type", i);
        if (read_first_line(path, text, sizeof text) != 0)
            break;
        if (strcmp(text, "Instruction") == 0)
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/level", i);
        if (read_first_line(path, text, sizeof text) != 0 || sscanf(text, "%u", &level) != 1)
            continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%u/size", i);
        if (read_first_line(path, text, sizeof text) != 0 || sscanf(text, "%luK", &kib) != 1)
            continue;
        const size_t bytes = (size_t)kib * 1024;
        if (level == 1)
            found->l1_bytes = bytes;
        if (level == 2)
            found->l2_bytes = bytes;
        if (level > last) {
            last = level;
            found->llc_bytes = bytes;
        }
    }
    return found->l2_bytes != 0 && found->llc_bytes != 0 ? 0 : -1;
}

static int caches_from_sysconf(machine *found)
{
#if defined(_SC_LEVEL1_DCACHE_SIZE) /* glibc */
    const long l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (l2 <= 0)
        return -1;
    found->l1_bytes = l1 > 0 ? (size_t)l1 : 0;
    found->l2_bytes = (size_t)l2;
    found->llc_bytes = l3 > l2 ? (size_t)l3 : (size_t)l2;
    return 0;
#else
    (void)found;
    return -1;
#endif
}

static void look_for_caches(machine *found)
{
    found->cache_source = "sysfs";
    if (caches_from_sysfs(found) == 0)
        return;
    found->cache_source = "sysconf";
    if (caches_from_sysconf(found) == 0)
        return;
    found->cache_source = "assumed, the system does not say";
    found->l1_bytes = (size_t)32 << 10;
    found->l2_bytes = (size_t)1 << 20;
    found->llc_bytes = (size_t)32 << 20;
}

static void look_for_cpu(machine *found)
{
    struct utsname system;
    if (uname(&system) == 0)
        snprintf(found->cpu, sizeof found->cpu, "%.60s", system.machine);
    char first[4096] = ""; /* processor, or more */
    char part[16] = "";
    char *rest = NULL;
    if (read_beginning("/proc/cpuinfo", first, sizeof first) != 0)
        return;
    for (char *line = strtok_r(first, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        const char *colon = strchr(line, ':');
        if (colon == NULL || colon[1] == '\0')
            continue;
        if (strncmp(line, "model name", 10) == 0) {
            snprintf(found->cpu, sizeof found->cpu, "%.79s", colon + 2);
            break;
        }
        /* ARM has numbers instead of a name. */
        if (strncmp(line, "CPU implementer", 15) == 0)
            snprintf(part, sizeof part, "%.10s", colon + 2);
        if (strncmp(line, "CPU part", 8) == 0) {
            const size_t length = strlen(found->cpu);
            snprintf(found->cpu + length, sizeof found->cpu - length, ", implementer %s, part %.10s", part, colon + 2);
            break;
        }
    }
}

void machine_look(machine *found)
{
    memset(found, 0, sizeof *found);
    look_for_cpu(found);
    look_for_caches(found);
    for (unsigned id = 0; id < 32; id++) {
        const size_t length = strlen(found->tiers);
        if ((kvt_tiers_usable() & UINT32_C(1) << id) != 0)
            snprintf(found->tiers + length, sizeof found->tiers - length, "%s%s", length > 0 ? " " : "", kvt_tier_name(id));
    }
    const time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL)
        strftime(found->date, sizeof found->date, "%Y-%m-%dT%H:%M:%SZ", &utc);
}
