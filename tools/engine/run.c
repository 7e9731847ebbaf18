#include "tools/engine/run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int encode(text_run *job, const run_source *source, error_text *error)
{
    if (source->prompt != NULL)
        return tokenizer_encode(&job->words, source->bos, (const uint8_t *)source->prompt, strlen(source->prompt), &job->tokens, &job->n_tokens,
                                error);
    file_map text;
    if (file_map_open(&text, source->text, error) != 0)
        return -1;
    const int result = tokenizer_encode(&job->words, source->bos, text.data, text.size, &job->tokens, &job->n_tokens, error);
    file_map_close(&text);
    return result;
}

int run_open(text_run *job, const run_source *source, const char **argument, error_text *error)
{
    *job = (text_run){ 0 };
    *argument = source->model;
    if (checkpoint_open(&job->model, source->model, error) != 0)
        return -1;
    *argument = source->tokenizer;
    if (tokenizer_open(&job->words, source->tokenizer, job->model.vocabulary, error) != 0)
        return -1;
    job->words.bos = job->model.bos;
    job->words.eos = job->model.eos;
    *argument = source->prompt != NULL ? "--prompt" : source->text;
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
