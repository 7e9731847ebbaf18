/* SPDX-License-Identifier: MIT */
/* kvtile-engine chat: each line of the standard input is a question. What comes before all of them is stored once; a conversation is a fork of it. */
#define _POSIX_C_SOURCE 200809L /* getline */
#include "tools/engine/chat.h"
#include "tools/engine/speech.h"
#include "tools/program/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER = 256 };

typedef struct conversation {
    speech said;
    const chat_template *how; /* NULL: the model goes on with lines as they are */
    bool is_begun;            /* an answer came before */
} conversation;

static int hear_text(conversation *c, const char *text, error_text *error)
{
    uint32_t *tokens = NULL;
    size_t n = 0;
    const tokenizer *words = &c->said.job->words;
    const bool bos = c->how != NULL && c->how->bos && words->bos != NO_TOKEN && cache_tokens(&c->said.state->cache) == 0;
    int result = tokenizer_encode(words, bos, (const uint8_t *)text, strlen(text), &tokens, &n, error);
    if (result == 0)
        result = speech_hear(&c->said, tokens, n, false, error);
    free(tokens);
    return result;
}

/* A question and its answer. */
static int take_turn(conversation *c, const char *question, error_text *error)
{
    const char *between = c->how != NULL && c->is_begun ? c->how->between : "";
    char *wrapped = c->how != NULL ? chat_wrap(c->how, question) : strdup(question), *text = NULL;
    const size_t room = wrapped != NULL ? strlen(between) + strlen(wrapped) + 1 : 0;
    if (wrapped == NULL || (text = malloc(room)) == NULL) {
        free(wrapped);
        return error_set(error, "a question of %zu bytes: out of memory", strlen(question));
    }
    snprintf(text, room, "%s%s", between, wrapped);
    int result = hear_text(c, text, error);
    free(wrapped);
    free(text);
    if (result == 0 && cache_tokens(&c->said.state->cache) == 0)
        return error_set(error, "\"\": a line with some text would be right");
    const options *chosen = c->said.chosen;
    if (result == 0)
        result = speech_say(&c->said, chosen->tokens ? chosen->tokens : ANSWER, true, error);
    /* An answer that was cut off is ended for the model. */
    const uint32_t end = c->said.job->answer_end;
    if (result == 0 && c->how != NULL && c->said.before != end && end != NO_TOKEN)
        result = speech_hear(&c->said, &end, 1, false, error);
    c->is_begun = true;
    return result;
}

/* A line without its end; false: there is none. */
static bool read_line(char **line, size_t *room)
{
    if (isatty(STDIN_FILENO))
        fputs("> ", stderr);
    ssize_t n = getline(line, room, stdin);
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r'))
        (*line)[--n] = '\0';
    return n >= 0;
}

/* Goes back to what all conversations begin with: it is stored, and is forked. */
static void begin_conversation(conversation *c)
{
    kv_cache *cache = &c->said.state->cache;
    cache_fork(cache);
    const size_t n = cache_tokens(cache);
    c->said.before = n ? cache->tokens[n - 1] : c->said.job->words.bos;
    c->is_begun = c->said.chosen->resume != NULL;
}

static int talk(conversation *c, error_text *error)
{
    char *line = NULL;
    size_t room = 0;
    int result = 0;
    begin_conversation(c);
    while (result == 0 && read_line(&line, &room))
        if (strcmp(line, "/new") == 0)
            begin_conversation(c);
        else if (*line != '\0')
            result = take_turn(c, line, error);
    free(line);
    return result == 0 && !feof(stdin) ? error_set(error, "a question cannot be read: %s", strerror(errno)) : result;
}

/* What is saved goes on; otherwise --prompt or --text is what all conversations begin with. */
static int hear_prefix(conversation *c, const char **argument, error_text *error)
{
    const options *chosen = c->said.chosen;
    const text_run *job = c->said.job;
    forward_state *state = c->said.state;
    const size_t room = state->cache.room, kept = (job->n_tokens + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS;
    if (chosen->resume != NULL) {
        *argument = chosen->resume;
        return cache_load(&state->cache, chosen->resume, error);
    }
    *argument = chosen->source.prompt != NULL ? "--prompt" : "--text";
    if (kept + FORWARD_LEAST_ROOM > room)
        return error_set(error, "takes %zu tokens: at most %zu, %d less than there is room for, would be right", job->n_tokens,
                         (room - FORWARD_LEAST_ROOM) / KVT_PAGE_TOKENS * KVT_PAGE_TOKENS, FORWARD_LEAST_ROOM);
    state->kept = kept > state->kept ? kept : state->kept;
    return speech_hear(&c->said, job->tokens, job->n_tokens, false, error);
}

int cmd_chat(const options *chosen, const char **argument, error_text *error)
{
    text_run job;
    forward_state state = { 0 };
    int result = run_open(&job, &chosen->source, argument, error);
    if (result == 0)
        result = run_room(&job, chosen, argument, error);
    if (result == 0) {
        *argument = chosen->source.model;
        result = forward_open(&state, &job.model, &chosen->way, chosen->context ? chosen->context : job.model.context, 2, job.threads, error);
    }
    if (result == 0) {
        conversation c = { .said = speech_open(&state, &job, chosen), .how = chat_find(&job.words, NULL) };
        job.answer_end = c.how != NULL ? chat_end(c.how, &job.words) : NO_TOKEN;
        result = hear_prefix(&c, argument, error);
        if (result == 0) {
            const double start = seconds();
            *argument = "the chat";
            result = talk(&c, error);
            if (result == 0)
                fprintf(stderr, "%zu tokens, %.1f tokens/s; %zu of %zu are in the KV cache\n", c.said.n_run,
                        (double)c.said.n_run / (seconds() - start), cache_tokens(&state.cache), state.cache.room);
        }
    }
    if (result == 0 && chosen->save != NULL) {
        *argument = chosen->save;
        result = cache_save(&state.cache, chosen->save, error);
    }
    forward_close(&state);
    run_close(&job);
    return result;
}
