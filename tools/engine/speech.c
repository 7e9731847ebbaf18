/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "tools/engine/speech.h"

#include "tools/engine/arithmetic.h"
#include "tools/engine/sample.h"
#include "tools/files/text.h"
#include "tools/program/progress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

speech speech_open(forward_state *state, const text_run *job, const options *chosen)
{
    return (speech){
        .state = state, .job = job, .chosen = chosen, .terminal = isatty(STDOUT_FILENO) != 0, .random = chosen->seed, .before = job->words.bos
    };
}

static int write_token(speech *s, uint32_t next)
{
    const tokenizer *words = &s->job->words;
    if (!s->terminal) {
        tokenizer_write(words, s->before, next, stdout);
        return fflush(stdout) == 0 ? 0 : -1;
    }
    char *bytes = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&bytes, &size);
    if (memory == NULL)
        return -1;
    fwrite(s->held, 1, s->n_held, memory);
    tokenizer_write(words, s->before, next, memory);
    int result = ferror(memory) ? -1 : 0;
    result = fclose(memory) == 0 ? result : -1;
    if (result == 0) {
        const size_t printed = text_print_part(stdout, bytes, size, false);
        s->n_held = size - printed;
        memcpy(s->held, bytes + printed, s->n_held);
        result = fflush(stdout) == 0 ? 0 : -1;
    }
    free(bytes);
    return result;
}

static int cannot_write(error_text *error)
{
    return error_set(error, "cannot be written: %s", strerror(errno));
}

static void run_token(speech *s, uint32_t next)
{
    s->logits = s->state->cache.reference ? forward_token(s->state, next, s->n_run) : forward_next(s->state, next);
    s->n_run++;
    s->before = next;
}

int speech_hear(speech *s, const uint32_t *tokens, size_t n, bool is_shown, error_text *error)
{
    for (size_t i = 0; i < n; i++) {
        if (is_shown && write_token(s, tokens[i]) != 0)
            return cannot_write(error);
        if (s->beginning != NULL && i < s->beginning->taken) {
            s->before = tokens[i];
            continue;
        }
        run_token(s, tokens[i]);
        if (s->beginning != NULL && prefix_keep(s->beginning, error) != 0)
            return -1;
    }
    return 0;
}

static int end_line(speech *s, error_text *error)
{
    text_print_part(stdout, s->held, s->n_held, true);
    s->n_held = 0;
    return putchar('\n') != EOF && fflush(stdout) == 0 ? 0 : cannot_write(error);
}

int speech_say(speech *s, size_t n, bool is_kept, error_text *error)
{
    const text_run *job = s->job;
    for (size_t i = 0; i < n; i++) {
        if (s->state->cache.lost || !arithmetic_are_finite(s->logits, job->model.vocabulary)) {
            putchar('\n');
            return error_set(error, "gives no finite predictions of token %zu: rows of the KV cache, or numbers of the model, are too large for %s",
                             s->n_run, kvt_scheme_get(s->chosen->way.k_scheme)->name);
        }
        const uint32_t next = sample_token(s->logits, job->model.vocabulary, s->chosen->temperature, &s->random);
        if (i == 0)
            s->said_at = seconds();
        const bool is_end = next == job->words.bos || next == job->words.eos || next == job->answer_end;
        if (!is_end && write_token(s, next) != 0)
            return cannot_write(error);
        if (i + 1 < n ? !is_end || is_kept : is_kept)
            run_token(s, next);
        if (is_end)
            break;
    }
    return end_line(s, error);
}
