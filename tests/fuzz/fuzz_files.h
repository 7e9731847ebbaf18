/* SPDX-License-Identifier: MIT */
/* A folder of its own for targets whose input is files, which becomes the working directory. */
#ifndef KVT_FUZZ_FILES_H
#define KVT_FUZZ_FILES_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char files_folder[256];

/* All but the files whose names begin with `kept`; NULL: all. */
static inline void files_remove(const char *kept)
{
    DIR *directory = opendir(".");
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        if (kept == NULL || strncmp(entry->d_name, kept, strlen(kept)) != 0)
            unlink(entry->d_name); /* "." and ".." stay */
    if (directory != NULL)
        closedir(directory);
}

static inline void files_end(void)
{
    files_remove(NULL);
    rmdir(files_folder);
}

/* In memory where the system has such a place. 0, or -1. */
static inline int files_begin(void)
{
    snprintf(files_folder, sizeof files_folder, "%s/kvtile_fuzz_XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(files_folder) == NULL || chdir(files_folder) != 0)
        return -1;
    return atexit(files_end);
}

static inline void files_write(const char *name, const uint8_t *bytes, size_t size)
{
    FILE *file = fopen(name, "wb");
    if (file == NULL || fwrite(bytes, 1, size, file) != size || fclose(file) != 0)
        abort();
}

#endif
