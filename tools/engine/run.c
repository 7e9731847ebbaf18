/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/engine/run.h"

#include "tools/engine/chat.h"
#include "tools/files/gguf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int encode_question(text_run *job, const run_source *source, error_text *error)
{
    const chat_template *how = chat_find(&job->words, error);
    if (how == NULL)
        return -1;
    char *text = chat_wrap(how, source->prompt);
    if (text == NULL)
        return error_set(error, "cannot be put into a question: out of memory");
    const bool bos = source->bos || (how->bos && job->model.bos != NO_TOKEN);
    const int result = tokenizer_encode(&job->words, bos, (const uint8_t *)text, strlen(text), &job->tokens, &job->n_tokens, error);
    job->answer_end = chat_end(how, &job->words);
    free(text);
    return result;
}

static int encode(text_run *job, const run_source *source, error_text *error)
{
    if (source->chat)
        return encode_question(job, source, error);
    if (source->prompt != NULL)
        return tokenizer_encode(&job->words, source->bos, (const uint8_t *)source->prompt, strlen(source->prompt), &job->tokens, &job->n_tokens,
                                error);
    if (source->text == NULL)
        return tokenizer_encode(&job->words, source->bos, (const uint8_t *)"", 0, &job->tokens, &job->n_tokens, error);
    file_map text;
    if (file_map_open(&text, source->text, error) != 0)
        return -1;
    const int result = tokenizer_encode(&job->words, source->bos, text.data, text.size, &job->tokens, &job->n_tokens, error);
    file_map_close(&text);
    return result;
}

/* The tokenizer that a model brings along: a folder's tokenizer.json, or a GGUF file's own. */
static int open_tokenizer_of(text_run *job, const char *model, error_text *error)
{
    static const char name[] = "tokenizer.json";
    struct stat status;
    if (stat(model, &status) == 0 && S_ISDIR(status.st_mode)) {
        char path[4096];
        snprintf(path, sizeof path, "%.4000s/%s", model, name);
        if (tokenizer_open(&job->words, path, job->model.vocabulary, error) == 0)
            return 0;
        const error_text why = *error;
        return error_set(error, "%s: %.300s", name, why.text);
    }
    file_map map;
    if (file_map_open(&map, model, error) != 0)
        return -1;
    const bool has_one = gguf_is(map.data, map.size);
    file_map_close(&map);
    if (!has_one)
        return error_set(error, "brings no tokenizer along: its file as --tokenizer would be right");
    return tokenizer_open(&job->words, model, job->model.vocabulary, error);
}

int run_open(text_run *job, const run_source *source, const char **argument, error_text *error)
{
    *job = (text_run){ .answer_end = NO_TOKEN };
    *argument = source->model;
    if (checkpoint_open(&job->model, source->model, error) != 0)
        return -1;
    if (source->tokenizer == NULL && open_tokenizer_of(job, source->model, error) != 0)
        return -1;
    *argument = source->tokenizer;
    if (source->tokenizer != NULL && tokenizer_open(&job->words, source->tokenizer, job->model.vocabulary, error) != 0)
        return -1;
    job->words.bos = job->model.bos;
    job->words.eos = job->model.eos;
    *argument = source->chat ? "--chat" : source->prompt != NULL ? "--prompt" : source->text;
    if (encode(job, source, error) != 0)
        return -1;
    *argument = "--threads";
    job->threads = pool_open(source->threads);
    return job->threads != NULL ? 0 : error_set(error, "%u threads cannot be started: %s", source->threads, strerror(errno));
}

void run_close(text_run *job)
{
    pool_close(job->threads);
    free(job->tokens);
    tokenizer_close(&job->words);
    checkpoint_close(&job->model);
}
