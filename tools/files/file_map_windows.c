/* SPDX-License-Identifier: MIT */
/* file.h on Windows, where a file that is mapped cannot become shorter. */
#include "tools/files/file.h"

#include <errno.h>
#include <io.h>
#include <string.h>
#include <unistd.h>
#include <windows.h>

int file_map_open(file_map *map, const char *path, error_text *error)
{
    uint64_t size;
    *map = (file_map){ 0 };
    const int descriptor = file_open(path, &size, error);
    if (descriptor < 0)
        return -1;
    const HANDLE mapping = CreateFileMappingA((HANDLE)_get_osfhandle(descriptor), NULL, PAGE_READONLY, 0, 0, NULL);
    const void *data = mapping != NULL ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : NULL;
    const DWORD why = GetLastError();
    if (mapping != NULL)
        CloseHandle(mapping); /* the view keeps it */
    close(descriptor);
    if (data == NULL)
        return error_set(error, "cannot be mapped: Windows' error %lu", (unsigned long)why);
    *map = (file_map){ .data = data, .size = (size_t)size };
    return 0;
}

void file_map_close(file_map *map)
{
    if (map->data != NULL)
        UnmapViewOfFile(map->data);
    *map = (file_map){ 0 };
}
