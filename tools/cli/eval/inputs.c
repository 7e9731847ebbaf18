/* SPDX-License-Identifier: MIT */
/* Tensors of rows, as kvtile eval finds them in its inputs. */
#include "tools/cli/eval/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const KIND_NAMES[] = { [ROWS_KEYS] = "keys", [ROWS_VALUES] = "values", [ROWS_QUERIES] = "queries" };

const char *eval_kind_name(rows_kind kind)
{
    return KIND_NAMES[kind];
}

/* Names that say nothing are of keys. */
rows_kind eval_kind_of(const char *path, const rows_tensor *tensor)
{
    const char *slash = strrchr(path, '/');
    rows_kind kind = tensor->name != NULL ? rows_kind_of(tensor->name) : ROWS_UNKNOWN;
    if (kind == ROWS_UNKNOWN)
        kind = rows_kind_of(slash != NULL ? slash + 1 : path);
    return kind != ROWS_UNKNOWN ? kind : ROWS_KEYS;
}

char *eval_input_name(const char *path, const rows_file *file, const rows_tensor *tensor)
{
    const char *name = file->n_tensors > 1 ? tensor->name : NULL;
    const size_t room = strlen(path) + (name != NULL ? strlen(name) : 0) + 2;
    char *text = malloc(room);
    if (text != NULL)
        snprintf(text, room, "%s%s%s", path, name != NULL ? ":" : "", name != NULL ? name : "");
    return text;
}

json_t *eval_page_results(const eval_job *chosen)
{
    return json_object_get(chosen->page, "results");
}

int eval_input_open(rows_file *file, const char *path, const eval_job *chosen, error_text *error)
{
    const int status = rows_open_raw(file, path, chosen->shape.n_sizes > 0 ? &chosen->shape : NULL, chosen->order, error);
    for (size_t i = 0; status == 0 && !chosen->is_ordered && i < file->n_tensors; i++) {
        const rows_tensor *tensor = &file->tensors[i];
        if (tensor->heads <= tensor->tokens)
            continue;
        error_text hint;
        error_set(&hint, "%.200s%s%u heads of %zu tokens: if that is [token][head][dim], --order token,head,dim would be right",
                  tensor->name != NULL ? tensor->name : "has", tensor->name != NULL ? " has " : " ", tensor->heads, tensor->tokens);
        error_print(EVAL_WHO, path, hint.text);
        break; /* others will be alike */
    }
    return status;
}
