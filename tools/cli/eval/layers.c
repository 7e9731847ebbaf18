/* SPDX-License-Identifier: MIT */
/* The layers that the inputs of kvtile eval make: the first keys, values and queries are one, the second ones the next. */
#include "tools/cli/eval/job.h"
#include "tools/cli/eval/page.h"

#include <stdio.h>
#include <stdlib.h>

/* Tensors of one kind, in the order of the inputs. */
typedef struct tensors {
    const rows_tensor **tensor;
    const char **paths;
    size_t n;
} tensors;

static int tensors_add(tensors *list, const char *path, const rows_tensor *tensor)
{
    const rows_tensor **t = realloc(list->tensor, (list->n + 1) * sizeof *t);
    list->tensor = t != NULL ? t : list->tensor;
    const char **paths = realloc(list->paths, (list->n + 1) * sizeof *paths);
    list->paths = paths != NULL ? paths : list->paths;
    if (t == NULL || paths == NULL)
        return -1;
    list->tensor[list->n] = tensor;
    list->paths[list->n++] = path;
    return 0;
}

static int compare_layers(const tensors kinds[ROWS_UNKNOWN], const eval_job *chosen)
{
    const eval_comparison *comparison = chosen->comparison;
    const size_t n = kinds[ROWS_KEYS].n, n_values = kinds[ROWS_VALUES].n, n_queries = kinds[ROWS_QUERIES].n;
    char text[200];
    if (n == 0 || (n_values != n && !(comparison->may_lack_values && n_values == 0)) || (n_queries != 0 && n_queries != n)) {
        snprintf(text, sizeof text,
                 "%zu of keys, %zu of values, %zu of queries: as many of each, %sor no queries, would be right; names tell them apart", n, n_values,
                 n_queries, comparison->may_lack_values ? "no values, " : "");
        error_print(EVAL_WHO, comparison->option, text);
        return 1;
    }
    eval_layer *layers = calloc(n, sizeof *layers);
    json_t *array = chosen->page != NULL ? json_incref(eval_page_results(chosen)) : chosen->output != EVAL_TABLE ? json_array() : NULL;
    progress shown;
    progress_start(&shown);
    error_text error;
    const char *about = "inputs";
    int status = layers == NULL ? error_set(&error, "out of memory") : 0;
    for (size_t i = 0; status == 0 && i < n; i++)
        layers[i] = (eval_layer){ n_values > 0 ? kinds[ROWS_VALUES].paths[i] : kinds[ROWS_KEYS].paths[i], kinds[ROWS_KEYS].tensor[i],
                                  n_values > 0 ? kinds[ROWS_VALUES].tensor[i] : NULL, n_queries > 0 ? kinds[ROWS_QUERIES].tensor[i] : NULL };
    if (status == 0)
        status = comparison->of_layers(chosen, layers, n, &shown, array, &about, &error);
    if (status != 0)
        error_print(EVAL_WHO, about, error.text);
    if (status == 0 && chosen->output != EVAL_TABLE)
        eval_print_array(array, chosen->output);
    json_decref(array);
    free(layers);
    return status == 0 ? 0 : 1;
}

int eval_layers_run(const eval_job *chosen, const char **paths)
{
    size_t n = 0;
    while (paths[n] != NULL)
        n++;
    rows_file *files = calloc(n, sizeof *files);
    if (files == NULL) {
        error_print(EVAL_WHO, "arguments", "out of memory");
        return 1;
    }
    tensors kinds[ROWS_UNKNOWN] = { { 0 } };
    error_text error;
    int code = 0;
    size_t opened = 0;
    for (; code == 0 && opened < n; opened++) {
        code = eval_input_open(&files[opened], paths[opened], chosen, &error) != 0;
        for (size_t i = 0; code == 0 && i < files[opened].n_tensors; i++) {
            const rows_tensor *tensor = &files[opened].tensors[i];
            const rows_kind is = eval_kind_of(paths[opened], tensor);
            char *name = eval_input_name(paths[opened], &files[opened], tensor);
            if (name == NULL || tensors_add(&kinds[is], paths[opened], tensor) != 0)
                code = -error_set(&error, "cannot be evaluated: out of memory");
            else if (chosen->page != NULL)
                eval_page_add_input(chosen->page, name, eval_kind_name(is), tensor);
            free(name);
        }
        if (code != 0)
            error_print(EVAL_WHO, paths[opened], error.text);
    }
    if (code == 0)
        code = compare_layers(kinds, chosen);
    for (size_t i = 0; i < opened; i++)
        rows_close(&files[i]);
    for (size_t i = 0; i < ROWS_UNKNOWN; i++) {
        free(kinds[i].tensor);
        free(kinds[i].paths);
    }
    free(files);
    return code;
}
