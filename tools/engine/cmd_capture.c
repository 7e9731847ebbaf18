/* SPDX-License-Identifier: MIT */
/* kvtile-engine capture: keys, values and queries into files. */
#define _POSIX_C_SOURCE 200809L
#include "tools/engine/commands.h"
#include "tools/files/text.h"
#include "tools/program/progress.h"
#include "tools/rows/formats.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int write_layers(const forward_state *state, size_t n_tokens, const char *directory, error_text *error)
{
    static const char *const kinds[N_CAPTURED] = { "keys", "values", "queries" };
    const checkpoint *model = state->model;
    const size_t head_stride = state->cache.room * model->head_dim;
    if (mkdir(directory, 0777) != 0 && errno != EEXIST)
        return error_set(error, "cannot be made: %s", strerror(errno));
    const size_t room = strlen(directory) + 64;
    char *path = malloc(room);
    if (path == NULL)
        return error_set(error, "cannot be written: out of memory");
    int result = 0;
    for (uint32_t layer = 0; result == 0 && layer < model->layers; layer++) {
        for (size_t kind = 0; result == 0 && kind < N_CAPTURED; kind++) {
            const uint32_t heads = kind == CAPTURED_QUERIES ? model->heads : model->kv_heads;
            const float *rows = state->captured[kind] + layer * heads * head_stride;
            error_text why;
            snprintf(path, room, "%s/layer%" PRIu32 "_%s.qvkt", directory, layer, kinds[kind]);
            if (qvkt_write(path, layer, heads, n_tokens, model->head_dim, rows, head_stride, &why) != 0)
                result = error_set(error, "layer%" PRIu32 "_%s.qvkt %.300s", layer, kinds[kind], why.text);
        }
    }
    free(path);
    return result;
}

static void report_capture(const char *directory, const text_run *job)
{
    text_print(stdout, directory);
    printf(": %" PRIu32 " layers, %" PRIu32 " KV heads (%" PRIu32 " of queries) x %zu tokens x %" PRIu32 " channels\n", job->model.layers,
           job->model.kv_heads, job->model.heads, job->n_tokens, job->model.head_dim);
}

int cmd_capture(const options *chosen, const char **argument, error_text *error)
{
    text_run job;
    forward_state state = { 0 };
    int result = run_open(&job, &chosen->source, argument, error);
    if (result == 0)
        result = run_limit(&job, chosen, argument, error);
    if (result == 0)
        result = forward_open(&state, &job.model, &chosen->way, job.n_tokens, 1, job.threads, error);
    if (result == 0)
        result = forward_capture(&state, error);
    if (result == 0) {
        progress shown;
        progress_start(&shown);
        for (size_t i = 0; i < job.n_tokens; i++) {
            progress_show(&shown, "capture", i, job.n_tokens, NULL);
            forward_token(&state, job.tokens[i], i);
        }
        progress_end(&shown);
        *argument = chosen->out;
        result = write_layers(&state, job.n_tokens, chosen->out, error);
    }
    if (result == 0)
        report_capture(chosen->out, &job);
    forward_close(&state);
    run_close(&job);
    return result;
}
