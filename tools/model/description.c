/* SPDX-License-Identifier: MIT */
#define _XOPEN_SOURCE 700
#include "tools/model/description.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/files/file.h"
#include "tools/files/gguf.h"
#include "tools/files/pickle.h"
#include "tools/files/text.h"
#include "tools/model/beginning.h"

bool description_alike(const kvt_layer_group *a, const kvt_layer_group *b)
{
    return a->kind == b->kind && a->kv_heads == b->kv_heads && a->k_dim == b->k_dim && a->v_dim == b->v_dim && a->rope_dim == b->rope_dim &&
           a->window == b->window && a->tokens_per_row == b->tokens_per_row && a->expanded_heads == b->expanded_heads &&
           a->expanded_k_dim == b->expanded_k_dim && a->expanded_v_dim == b->expanded_v_dim && a->conv_kernel == b->conv_kernel &&
           a->conv_channels == b->conv_channels && a->conv_element_bytes == b->conv_element_bytes && a->recurrent_elements == b->recurrent_elements &&
           a->recurrent_element_bytes == b->recurrent_element_bytes && a->state_heads == b->state_heads && a->state_groups == b->state_groups &&
           a->state_group_channels == b->state_group_channels;
}

/* The array with room for one more, or NULL: no memory. */
static void *grown(void *array, size_t used, size_t *room, size_t size)
{
    if (used < *room)
        return array;
    const size_t more = *room ? 2 * *room : 8;
    void *larger = realloc(array, more * size);
    *room = larger ? more : *room;
    return larger;
}

int description_add(model_description *description, const kvt_layer_group *layer_group, error_text *error)
{
    layer_cache *caches = grown(description->caches, description->n_caches, &description->caches_room, sizeof *caches);
    if (!caches)
        return error_set(error, "no memory for %zu caches of layers", description->n_caches + 1);
    description->caches = caches;
    caches[description->n_caches++] = (layer_cache){ description->layer, *layer_group };
    if (description->n_layers <= description->layer)
        description->n_layers = description->layer + 1;

    for (size_t i = 0; i < description->n_groups; i++) {
        kvt_layer_group *group = &description->groups[i];
        if (description_alike(group, layer_group)) {
            group->count += layer_group->count;
            group->draft_count += layer_group->draft_count;
            group->shared_count += layer_group->shared_count;
            return 0;
        }
    }
    kvt_layer_group *groups = grown(description->groups, description->n_groups, &description->room, sizeof *groups);
    if (!groups)
        return error_set(error, "no memory for %zu groups of layers", description->n_groups + 1);
    description->groups = groups;
    description->groups[description->n_groups++] = *layer_group;
    return 0;
}

/* Layers without a cache come last. */
static int place(kvt_layer_kind kind)
{
    return kind == KVT_LAYER_NONE ? KVT_LAYER_CROSS + 1 : (int)kind;
}

void description_finish(model_description *description)
{
    /* Insertion sort: stable, and there are few groups. */
    kvt_layer_group *groups = description->groups;
    for (size_t i = 1; i < description->n_groups; i++) {
        const kvt_layer_group group = groups[i];
        size_t j = i;
        for (; j > 0 && place(groups[j - 1].kind) > place(group.kind); j--)
            groups[j] = groups[j - 1];
        groups[j] = group;
    }
    description->model.name = description->name;
    description->model.n_groups = description->n_groups;
    description->model.groups = groups;
    description->model.kv_type = description->kv_type;
    description->model.encoder_tokens = description->encoder_tokens;
}

void description_free(model_description *description)
{
    free(description->groups);
    free(description->caches);
    *description = (model_description){ .assumed = description->assumed };
}

void description_note(model_description *description, const char *format, ...)
{
    char *notes = description->notes;
    const size_t room = sizeof description->notes, used = strlen(notes);
    char text[300], shown[sizeof text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    text_shown(shown, sizeof shown, text);
    if (used >= room - 4)
        return;
    if ((size_t)snprintf(notes + used, room - used, "%s%s", used ? "; " : "", shown) >= room - used)
        memcpy(notes + room - 4, "...", 4);
}

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

/* The last part of a folder's path of `length` bytes, "" when it has none. */
static void last_part(const char *folder, size_t length, char *name, size_t size)
{
    const char *end = folder + length;
    while (end > folder && end[-1] == '/')
        end--;
    const char *begin = end;
    while (begin > folder && begin[-1] != '/')
        begin--;
    snprintf(name, size, "%.*s", (int)(end - begin > 1000 ? 1000 : end - begin), begin);
}

static size_t length_without(const char *text, const char *suffix)
{
    const size_t length = strlen(text), cut = strlen(suffix);
    return length > cut && strcmp(text + length - cut, suffix) == 0 ? length - cut : length;
}

/* "gemma-4-E2B" from ".../gemma-4-E2B/config.json", ".../gemma-4-E2B.json" or ".../gemma-4-E2B.gguf", as people see it. */
static int make_name(const char *path, char *shown, size_t room, error_text *error)
{
    char name[1024];
    const char *file = strrchr(path, '/');
    file = file ? file + 1 : path;
    if (strcmp(file, "config.json") == 0) {
        last_part(path, (size_t)(file - path), name, sizeof name);
        if (strcmp(name, "") == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            char folder[4097];
            snprintf(folder, sizeof folder, "%.*s", (int)(file - path), path);
            char *full = realpath(file > path ? folder : ".", NULL);
            if (!full && errno == ENOMEM)
                return error_set(error, "cannot be read: out of memory");
            last_part(full ? full : "", full ? strlen(full) : 0, name, sizeof name);
            free(full);
        }
    } else {
        size_t length = length_without(file, ".json");
        if (length == strlen(file))
            length = length_without(file, ".gguf");
        snprintf(name, sizeof name, "%.*s", (int)(length > 1000 ? 1000 : length), file);
    }
    text_shown(shown, room, *name ? name : "model");
    return 0;
}

/* A config.json; of a file that is too long for one only its length is looked at. */
static int read_config_file(beginning *file, model_description *description, error_text *error)
{
    while (file->size < file->whole && file->whole <= MODEL_CONFIG_BYTES)
        if (beginning_extend(file, error) != 0)
            return -1;
    return model_read_config(file->data, (size_t)file->whole, description, error);
}

/* The metadata of a GGUF file: as much of its beginning as it takes. */
static int read_gguf(beginning *file, model_description *description, error_text *error)
{
    bool is_short = true;
    while (model_read_gguf_part(file->data, file->size, file->whole, &is_short, description, error) != 0)
        if (!is_short || beginning_extend(file, error) != 0)
            return -1;
    return 0;
}

int model_read_file(const char *path, model_description *description, error_text *error)
{
    beginning file;
    *description = (model_description){ .assumed = description->assumed };
    if (beginning_open(&file, path, error) != 0)
        return -1;
    int result;
    if (pickle_is(&(file_map){ file.data, file.size }))
        result =
            error_set(error, "is a file of PyTorch, a pickle, which says nothing about the model without being run: the config.json beside it, or a "
                             "GGUF file, would be right");
    else
        result = (gguf_is(file.data, file.size) ? read_gguf : read_config_file)(&file, description, error);
    beginning_close(&file);
    if (result != 0)
        return -1;
    if (make_name(path, description->name, sizeof description->name, error) == 0)
        return 0;
    description_free(description);
    return -1;
}
