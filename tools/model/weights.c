/* SPDX-License-Identifier: MIT */
#define _XOPEN_SOURCE 700
#include "tools/model/weights.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/files/gguf.h"
#include "tools/files/text.h"
#include "tools/model/beginning.h"

static int add_bytes(uint64_t *total, uint64_t bytes, error_text *error)
{
    return __builtin_add_overflow(*total, bytes, total) ? error_set(error, "the tensors have more bytes than 64 bits count") : 0;
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------------------------ */

/* From the first tensor's numbers on the file holds nothing else; it holds less when it is cut short. */
static int note_tensor(void *owner, const gguf_tensor *tensor, error_text *error)
{
    uint64_t *most = owner, bytes;
    if (gguf_tensor_bytes(tensor, &bytes) && bytes > tensor->left)
        return error_set(error, "is cut short: tensor %s takes %" PRIu64 " bytes, and the file ends %" PRIu64 " bytes before its end", tensor->name,
                         bytes, bytes - tensor->left);
    *most = *most < tensor->left ? tensor->left : *most;
    return 0;
}

/* The metadata and the list of tensors: as much of the file's beginning as they take. */
static int walk_gguf(const beginning *part, gguf *file, uint64_t *tensors, error_text *error)
{
    *file = (gguf){ .error = error, .whole = part->whole };
    *tensors = 0;
    return gguf_open(file, part->data, part->size) ? gguf_walk_tensors(file, note_tensor, tensors) : -1;
}

static int add_gguf(const char *path, uint64_t *bytes, uint32_t *parts, error_text *error)
{
    beginning part;
    gguf file;
    uint64_t tensors;
    int64_t count = 1;
    if (beginning_open(&part, path, error) != 0)
        return -1;
    int result = walk_gguf(&part, &file, &tensors, error);
    while (result != 0 && file.is_short && beginning_extend(&part, error) == 0) {
        gguf_free(&file);
        result = walk_gguf(&part, &file, &tensors, error);
    }
    const gguf_entry *split = result == 0 ? gguf_key(&file, "split.count") : NULL;
    if (split && (!gguf_number(split, 0, &count) || count < 0 || count > 99999))
        result = error_set(error, "split.count must be a whole number up to 99999");
    gguf_free(&file);
    beginning_close(&part);
    *parts = count > 1 ? (uint32_t)count : 1;
    return result == 0 ? add_bytes(bytes, tensors, error) : -1;
}

/* The parts of name-00001-of-00003.gguf differ in the first number. */
static int measure_gguf(const char *path, uint64_t *bytes, error_text *error)
{
    static const char form[] = "-00001-of-00001.gguf";
    uint32_t parts, other;
    if (add_gguf(path, bytes, &parts, error) != 0)
        return -1;
    if (parts == 1)
        return 0;
    const size_t length = strlen(path), tail = sizeof form - 1;
    char end[40];
    snprintf(end, sizeof end, "-of-%05" PRIu32 ".gguf", parts);
    if (length <= tail || path[length - tail] != '-' || strspn(path + length - tail + 1, "0123456789") != 5 || !text_ends_with(path, end))
        return error_set(error, "is a part of %" PRIu32 ", but its name does not end with -00001-of-%05" PRIu32 ".gguf", parts, parts);
    char *part = strdup(path);
    if (!part)
        return error_set(error, "no memory for a name");
    *bytes = 0;
    int result = 0;
    for (uint32_t i = 1; i <= parts && result == 0; i++) {
        snprintf(end, sizeof end, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", i, parts);
        memcpy(part + length - tail, end, tail);
        error_text why;
        result = add_gguf(part, bytes, &other, &why);
        if (result != 0)
            error_set(error, "part %" PRIu32 " of %" PRIu32 ": %.300s", i, parts, why.text);
    }
    free(part);
    return result;
}

/* ---- safetensors ----------------------------------------------------------------------------------------------------------------- */

/* All but the header, whose length comes first. */
static int add_safetensors(const char *path, uint64_t *bytes, error_text *error)
{
    struct stat file;
    unsigned char length[8];
    FILE *stream = fopen(path, "rb");
    if (!stream || fread(length, 1, sizeof length, stream) != sizeof length || fstat(fileno(stream), &file) != 0) {
        if (stream)
            fclose(stream);
        return error_set(error, "%.300s cannot be read, or is no safetensors file", path);
    }
    fclose(stream);
    uint64_t header = 0;
    for (size_t i = 0; i < sizeof length; i++)
        header |= (uint64_t)length[i] << 8 * i;
    if (file.st_size < 8 || header > (uint64_t)file.st_size - 8)
        return error_set(error, "%.300s is cut short: its header alone has %" PRIu64 " bytes", path, header);
    return add_bytes(bytes, (uint64_t)file.st_size - 8 - header, error);
}

/* metadata.total_size of the index, which is there even when the parts are not. False: there is no index. */
static bool read_index(const char *folder, uint64_t *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder);
    json_t *index = json_load_file(path, 0, NULL);
    const json_t *size = json_object_get(json_object_get(index, "metadata"), "total_size");
    const bool there = json_is_integer(size) && json_integer_value(size) > 0;
    if (there)
        *bytes = (uint64_t)json_integer_value(size);
    json_decref(index);
    return there;
}

/* A folder may hold the same weights under several names: as "model.safetensors" or its parts, and in the form of their maker as
 * "consolidated.safetensors". The smallest number counts. */
enum { WHOLE, PART, OTHER, NO_WEIGHTS };

static int weights_rank(const char *name)
{
    if (!text_ends_with(name, ".safetensors"))
        return NO_WEIGHTS;
    return strcmp(name, "model.safetensors") == 0 ? WHOLE : strncmp(name, "model-", 6) == 0 ? PART : OTHER;
}

static int measure_folder(const char *folder, uint64_t *bytes, error_text *error)
{
    if (read_index(folder, bytes))
        return 0;
    DIR *list = opendir(folder);
    if (!list)
        return error_set(error, "%.300s cannot be listed", folder);
    int result = 0, best = NO_WEIGHTS;
    for (const struct dirent *entry; (entry = readdir(list)) != NULL;)
        best = weights_rank(entry->d_name) < best ? weights_rank(entry->d_name) : best;
    rewinddir(list);
    for (const struct dirent *entry; result == 0 && (entry = readdir(list)) != NULL;) {
        char path[4096];
        if (weights_rank(entry->d_name) == NO_WEIGHTS || weights_rank(entry->d_name) > best)
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        result = add_safetensors(path, bytes, error);
    }
    closedir(list);
    return result == 0 && best == NO_WEIGHTS
               ? error_set(error, "there are no weights beside it: *.safetensors, or model.safetensors.index.json, in %.300s", folder)
               : result;
}

int model_weights(const char *path, uint64_t *bytes, error_text *error)
{
    struct stat file;
    *bytes = 0;
    if (stat(path, &file) != 0)
        return error_set(error, "has no weights: only files and folders have");
    if (S_ISDIR(file.st_mode))
        return measure_folder(path, bytes, error);
    if (!text_ends_with(path, ".json"))
        return measure_gguf(path, bytes, error);
    char folder[4096];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    return measure_folder(*folder ? folder : "/", bytes, error);
}
