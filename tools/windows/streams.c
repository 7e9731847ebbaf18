/* SPDX-License-Identifier: MIT */
/* POSIX's calls for streams and strings that Windows lacks. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#undef fclose

/* ---- streams into memory: files that are deleted when they are closed, and mostly never reach the disk ---- */

typedef struct memory_stream {
    FILE *stream;
    char **bytes;
    size_t *size;
} memory_stream;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static memory_stream open_ones[16];
enum { MOST = sizeof open_ones / sizeof *open_ones };

static FILE *open_temporary(void)
{
    char folder[MAX_PATH + 1], path[MAX_PATH + 1];
    if (GetTempPathA(sizeof folder, folder) == 0 || GetTempFileNameA(folder, "kvt", 0, path) == 0) {
        errno = EACCES;
        return NULL;
    }
    return fopen(path, "w+bTD");
}

FILE *open_memstream(char **bytes, size_t *size)
{
    FILE *stream = open_temporary();
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (stream != NULL && i < MOST && open_ones[i].stream != NULL)
        i++;
    if (stream != NULL && i < MOST)
        open_ones[i] = (memory_stream){ stream, bytes, size };
    pthread_mutex_unlock(&lock);
    if (stream == NULL || i < MOST)
        return stream;
    fclose(stream);
    errno = EMFILE;
    return NULL;
}

static int take_bytes(const memory_stream *memory)
{
    const off64_t n = fflush(memory->stream) == 0 ? ftello64(memory->stream) : -1;
    char *bytes = n >= 0 ? malloc((size_t)n + 1) : NULL;
    if (bytes == NULL)
        return -1;
    rewind(memory->stream);
    if (fread(bytes, 1, (size_t)n, memory->stream) != (size_t)n) {
        free(bytes);
        return -1;
    }
    bytes[n] = 0;
    *memory->bytes = bytes;
    *memory->size = (size_t)n;
    return 0;
}

int kvt_fclose(FILE *stream)
{
    memory_stream memory = { 0 };
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < MOST; i++)
        if (open_ones[i].stream == stream) {
            memory = open_ones[i];
            open_ones[i] = (memory_stream){ 0 };
        }
    pthread_mutex_unlock(&lock);
    const int result = memory.stream != NULL ? take_bytes(&memory) : 0;
    return fclose(stream) == 0 ? result : EOF;
}

/* ---- lines ---- */

ssize_t getline(char **line, size_t *room, FILE *stream)
{
    size_t n = 0;
    for (int c = 0; c != '\n' && (c = getc(stream)) != EOF; n++) {
        if (*line == NULL || n + 2 > *room) {
            const size_t more = 2 * n + 128;
            char *bytes = realloc(*line, more);
            if (bytes == NULL)
                return -1;
            *line = bytes;
            *room = more;
        }
        (*line)[n] = (char)c;
    }
    if (n == 0 || ferror(stream))
        return -1;
    (*line)[n] = 0;
    return (ssize_t)n;
}

/* ---- strings ---- */

void *memmem(const void *bytes, size_t n, const void *wanted, size_t n_wanted)
{
    const char *from = bytes;
    for (size_t i = 0; n_wanted <= n && i <= n - n_wanted; i++)
        if (memcmp(from + i, wanted, n_wanted) == 0)
            return (void *)(uintptr_t)(from + i);
    return NULL;
}

char *stpcpy(char *to, const char *from)
{
    const size_t n = strlen(from);
    memcpy(to, from, n + 1);
    return to + n;
}
