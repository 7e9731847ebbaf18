/* What commands that run the model begin with. */
#include "tools/engine/commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int encode(run *job, const options *chosen, error_text *error)
{
    if (chosen->prompt != NULL)
        return tokenizer_encode(&job->words, chosen->bos, (const uint8_t *)chosen->prompt, strlen(chosen->prompt), &job->tokens, &job->n_tokens,
                                error);
    file_map text;
    if (file_map_open(&text, chosen->text, error) != 0)
        return -1;
    const int result = tokenizer_encode(&job->words, chosen->bos, text.data, text.size, &job->tokens, &job->n_tokens, error);
    file_map_close(&text);
    return result;
}

int run_open(run *job, const options *chosen, const char **argument, error_text *error)
{
    *job = (run){ 0 };
    *argument = chosen->model;
    if (checkpoint_open(&job->model, chosen->model, error) != 0)
        return -1;
    *argument = chosen->tokenizer;
    if (tokenizer_open(&job->words, chosen->tokenizer, job->model.vocabulary, error) != 0)
        return -1;
    *argument = chosen->prompt != NULL ? "--prompt" : chosen->text;
    if (encode(job, chosen, error) != 0)
        return -1;
    *argument = "--threads";
    job->threads = pool_open(chosen->threads);
    return job->threads != NULL ? 0 : error_set(error, "%u threads cannot be started: %s", chosen->threads, strerror(errno));
}

void run_close(run *job)
{
    pool_close(job->threads);
    free(job->tokens);
    tokenizer_close(&job->words);
    checkpoint_close(&job->model);
}

int run_limit(run *job, const options *chosen, const char **argument, error_text *error)
{
    *argument = "--tokens";
    if (chosen->tokens > job->n_tokens)
        return error_set(error, "%zu: the text has only %zu", chosen->tokens, job->n_tokens);
    if (chosen->tokens > job->model.context)
        return error_set(error, "%zu: 1 to %" PRIu32 ", the model's context, would be right", chosen->tokens, job->model.context);
    if (chosen->tokens != 0)
        job->n_tokens = chosen->tokens;
    else if (job->n_tokens > job->model.context)
        job->n_tokens = job->model.context;
    *argument = chosen->model; /* what is wrong from now on is the model's */
    return 0;
}
