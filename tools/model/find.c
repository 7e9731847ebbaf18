/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/model/find.h"

#include "tools/files/nearest.h"
#include "tools/files/text.h"
#include "tools/model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct kvt_model_file {
    model_description description;
    const kvt_model *model;
};

/* ---- messages -------------------------------------------------------------------------------------------------------------------- */

enum { LONGEST_PATH = 4 * 4096 }; /* each byte as \x1b */

void model_say(char *problem, size_t room, const char *what, const char *why)
{
    char shown[LONGEST_PATH], all[sizeof shown + sizeof(error_text)];
    if (!problem || room == 0)
        return;
    *problem = '\0';
    const size_t rest = strlen(why) + sizeof ": ", space = room > rest + 16 ? room - rest : 16; /* of a path at least its beginning */
    text_shown(shown, space < sizeof shown ? space : sizeof shown, what);
    snprintf(all, sizeof all, "%s: %s", shown, why);
    if (room >= 4)
        text_shown(problem, room, all);
}

static kvt_status fail_find(kvt_status status, char *problem, size_t room, const char *what, const char *why)
{
    model_say(problem, room, what, why);
    return status;
}

/* ---- finding --------------------------------------------------------------------------------------------------------------------- */

static kvt_status read_model(const char *path, model_description *description, const kvt_model **model, char *problem, size_t room)
{
    error_text error;
    if (model_read_file(path, description, &error) != 0)
        return fail_find(KVT_ERR_FILE, problem, room, path, error.text);
    *model = &description->model;
    return KVT_OK;
}

/* Sets *model when the folder holds a config.json. */
static kvt_status read_folder(const char *folder, model_description *description, const kvt_model **model, char *problem, size_t room)
{
    const size_t size = strlen(folder) + sizeof "/config.json";
    char *path = malloc(size);
    if (!path)
        return fail_find(KVT_ERR_MEMORY, problem, room, folder, "no memory");
    snprintf(path, size, "%s%sconfig.json", folder, text_ends_with(folder, "/") ? "" : "/");
    const kvt_status status = access(path, F_OK) == 0 ? read_model(path, description, model, problem, room) : KVT_OK;
    free(path);
    return status;
}

static kvt_status not_found(const char *name, char *problem, size_t room)
{
    const char *slash = strchr(name, '/');
    nearest best = { .typed = slash ? slash + 1 : name };
    const kvt_model *known;
    char why[200];
    for (size_t i = 0; (known = kvt_catalogue_at(i)) != NULL; i++)
        nearest_consider(&best, known->name);
    if (best.name)
        snprintf(why, sizeof why, "there is no file and no built-in model of that name: did you mean %s?", best.name);
    else
        snprintf(why, sizeof why,
                 "there is no file and no built-in model of that name: a config.json, a folder with one, a .gguf file or a name of the "
                 "catalogue would be right");
    return fail_find(KVT_ERR_NAME, problem, room, name, why);
}

/* Files go before names, so that a model on disk is sized as it is. */
kvt_status model_find(const char *name, model_description *description, const kvt_model **model, char *problem, size_t room)
{
    struct stat file;
    const bool there = stat(name, &file) == 0, is_folder = there && S_ISDIR(file.st_mode);
    *model = NULL;
    if (text_ends_with(name, ".json") || text_ends_with(name, ".gguf") || (there && !is_folder))
        return read_model(name, description, model, problem, room);
    const kvt_status status = is_folder ? read_folder(name, description, model, problem, room) : KVT_OK;
    if (status != KVT_OK || *model)
        return status;
    *model = kvt_catalogue_find(name);
    if (*model)
        return KVT_OK;
    return is_folder ? fail_find(KVT_ERR_FILE, problem, room, name, "is a folder without a config.json") : not_found(name, problem, room);
}

/* ---- the library's -------------------------------------------------------------------------------------------------------------- */

kvt_status kvt_model_open(const char *name, const char *const *ignored, kvt_model_file **file, char *problem, size_t room)
{
    if (file)
        *file = NULL;
    if (!name || !file)
        return fail_find(KVT_ERR_NULL, problem, room, name ? "file" : "name", "is NULL");
    kvt_model_file *parsed = calloc(1, sizeof *parsed);
    if (!parsed)
        return fail_find(KVT_ERR_MEMORY, problem, room, name, "no memory");
    parsed->description.assumed = ignored;
    const kvt_status status = model_find(name, &parsed->description, &parsed->model, problem, room);
    parsed->description.assumed = NULL; /* the caller's */
    if (status == KVT_OK)
        *file = parsed;
    else
        kvt_model_close(parsed);
    return status;
}

const kvt_model *kvt_model_get(const kvt_model_file *file)
{
    return file ? file->model : NULL;
}

const char *kvt_model_notes(const kvt_model_file *file)
{
    return file ? file->description.notes : "";
}

void kvt_model_close(kvt_model_file *file)
{
    if (file)
        description_free(&file->description);
    free(file);
}

kvt_status kvt_model_weights(const char *path, uint64_t *bytes, char *problem, size_t room)
{
    error_text error;
    uint64_t found;
    if (!path || !bytes)
        return fail_find(KVT_ERR_NULL, problem, room, path ? "bytes" : "path", "is NULL");
    if (model_weights(path, &found, &error) != 0)
        return fail_find(KVT_ERR_FILE, problem, room, path, error.text);
    *bytes = found;
    return KVT_OK;
}
