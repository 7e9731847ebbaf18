/* SPDX-License-Identifier: MIT */
/* kvtile-engine generate: the prompt, and how the model goes on. */
#include "tools/engine/speech.h"
#include "tools/program/progress.h"

#include <stdio.h>

/* How many new tokens there is room for behind `used` others, if the prompt leaves any. A context that was asked for is never full. */
static int choose_length(const text_run *job, const options *chosen, size_t used, size_t *n_new, const char **argument, error_text *error)
{
    const size_t context = chosen->context ? chosen->context : job->model.context, n = used + job->n_tokens;
    *argument = chosen->source.prompt != NULL ? "--prompt" : chosen->source.text != NULL ? "--text" : "--resume";
    if (chosen->source.text != NULL && chosen->source.prompt == NULL)
        *argument = chosen->source.text;
    if (n == 0)
        return error_set(error, "\"\": some text, or --bos, would be right");
    *n_new = chosen->tokens != 0 ? chosen->tokens : n < context ? context - n : 0;
    if (chosen->context && *n_new)
        return 0;
    if (n >= context)
        return error_set(error, "takes %zu tokens: at most %zu, one less than the model's context, would be right", n, context - 1);
    *argument = "--tokens";
    if (chosen->tokens > context - n)
        return error_set(error, "%zu: 1 to %zu would be right, as the prompt takes %zu of %zu tokens, the model's context", chosen->tokens,
                         context - n, n, context);
    return 0;
}

/* What was saved, and the logits behind it where no prompt comes. */
static int resume(forward_state *state, const options *chosen, const char **argument, error_text *error)
{
    if (chosen->resume == NULL)
        return 0;
    *argument = chosen->resume;
    return cache_load(&state->cache, chosen->resume, error);
}

/* The last of the tokens that are stored is run again, for what it predicts. */
static int hear_last(speech *s, error_text *error)
{
    kv_cache *cache = &s->state->cache;
    const size_t n = cache_tokens(cache);
    const uint32_t last = cache->tokens[n - 1];
    cache_truncate(cache, n - 1);
    return speech_hear(s, &last, 1, false, error);
}

static int write_text(speech *s, size_t n_new, error_text *error)
{
    const text_run *job = s->job;
    if (s->state->cache.reference || job->n_tokens)
        return speech_hear(s, job->tokens, job->n_tokens, !s->chosen->source.chat, error) != 0 ? -1 : speech_say(s, n_new, s->chosen->save, error);
    return hear_last(s, error) != 0 ? -1 : speech_say(s, n_new, s->chosen->save, error);
}

/* What is there of the prompt. */
static int take_beginning(prefix *beginning, speech *s, const char **argument, error_text *error)
{
    if (s->chosen->store == NULL)
        return 0;
    *argument = s->chosen->store;
    if (prefix_open(beginning, &s->state->cache, s->chosen->store, error) != 0)
        return -1;
    s->beginning = beginning;
    return prefix_take(beginning, s->job->tokens, s->job->n_tokens, error);
}

int cmd_generate(const options *chosen, const char **argument, error_text *error)
{
    text_run job;
    forward_state state = { 0 };
    size_t n_new = 0;
    int result = run_open(&job, &chosen->source, argument, error);
    const bool is_open_ended = chosen->context || chosen->resume;
    if (result == 0 && !is_open_ended)
        result = choose_length(&job, chosen, 0, &n_new, argument, error);
    if (result == 0)
        result = run_room(&job, chosen, argument, error);
    if (result == 0) {
        *argument = chosen->source.model;
        const size_t room = chosen->context ? chosen->context : chosen->resume ? job.model.context : job.n_tokens + n_new - (chosen->save ? 0 : 1);
        result = forward_open(&state, &job.model, &chosen->way, room, 1, job.threads, error);
    }
    if (result == 0)
        result = resume(&state, chosen, argument, error);
    if (result == 0 && is_open_ended)
        result = choose_length(&job, chosen, chosen->resume ? cache_tokens(&state.cache) : 0, &n_new, argument, error);
    if (result == 0) {
        speech said = speech_open(&state, &job, chosen);
        const double start = seconds();
        prefix beginning = { 0 };
        result = take_beginning(&beginning, &said, argument, error);
        *argument = result == 0 ? "the text" : *argument;
        if (result == 0)
            result = write_text(&said, n_new, error);
        if (result == 0 && chosen->store != NULL)
            fprintf(stderr, "%zu of %zu tokens of the prompt were there, %zu blocks are new, of %llu bytes in all; the first token after %.3f s\n",
                    beginning.taken, job.n_tokens, beginning.kept, (unsigned long long)beginning.bytes, said.said_at - start);
        prefix_close(&beginning);
        if (result == 0)
            fprintf(stderr, "%zu tokens, %.1f tokens/s; KV cache: %zu bytes, %zu per token\n", said.n_run, (double)said.n_run / (seconds() - start),
                    state.cache.bytes, state.cache.token_bytes);
    }
    if (result == 0 && chosen->save != NULL) {
        *argument = chosen->save;
        result = cache_save(&state.cache, chosen->save, error);
    }
    forward_close(&state);
    run_close(&job);
    return result;
}
