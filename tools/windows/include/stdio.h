/* SPDX-License-Identifier: MIT */
#ifndef KVT_WINDOWS_STDIO_H
#define KVT_WINDOWS_STDIO_H

#include_next <stdio.h>
#include <sys/types.h>

/* Over a file that is there, too. */
#define rename kvt_rename
int kvt_rename(const char *from, const char *to);
int renameat(int from_folder, const char *from, int to_folder, const char *to);

/* The bytes are there after fclose. */
#define fclose(stream) kvt_fclose(stream)
int kvt_fclose(FILE *stream);
FILE *open_memstream(char **bytes, size_t *size);

ssize_t getline(char **line, size_t *room, FILE *stream);

#endif
