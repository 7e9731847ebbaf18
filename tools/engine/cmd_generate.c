/* kvtile-engine generate: the prompt, and how the model goes on. */
#define _POSIX_C_SOURCE 200809L /* open_memstream */
#include "tools/engine/commands.h"
#include "tools/engine/sample.h"
#include "tools/files/text.h"
#include "tools/program/progress.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Text on its way to the standard output. On a terminal it is shown as names are: a vocabulary may have tokens that steer it. */
typedef struct destination {
    bool terminal;
    char held[4]; /* the beginning of a character */
    size_t n_held;
} destination;

static int write_token(destination *to, const tokenizer *words, uint32_t before, uint32_t next)
{
    if (!to->terminal) {
        tokenizer_write(words, before, next, stdout);
        return fflush(stdout) == 0 ? 0 : -1;
    }
    char *bytes = NULL;
    size_t size = 0;
    FILE *memory = open_memstream(&bytes, &size);
    if (memory == NULL)
        return -1;
    fwrite(to->held, 1, to->n_held, memory);
    tokenizer_write(words, before, next, memory);
    int result = ferror(memory) ? -1 : 0;
    result = fclose(memory) == 0 ? result : -1;
    if (result == 0) {
        const size_t printed = text_print_part(stdout, bytes, size, false);
        to->n_held = size - printed;
        memcpy(to->held, bytes + printed, to->n_held);
        result = fflush(stdout) == 0 ? 0 : -1;
    }
    free(bytes);
    return result;
}

static bool are_finite(const float *x, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* Writes the prompt, unless it is a question, and up to n_new tokens more, each as soon as it is known, until the model ends its text. Tokens that
 * were run: *n_run. */
static int write_text(forward_state *state, const text_run *job, const options *chosen, size_t n_new, size_t *n_run, error_text *error)
{
    destination to = { .terminal = isatty(STDOUT_FILENO) != 0 };
    uint64_t random = chosen->seed;
    uint32_t before = job->words.bos;
    const float *logits = NULL;
    const size_t n = job->n_tokens + n_new;
    for (size_t i = 0; i < n; i++) {
        const bool is_new = i >= job->n_tokens;
        if (is_new && (state->cache.lost || !are_finite(logits, job->model.vocabulary))) {
            putchar('\n');
            return error_set(error, "gives no finite predictions of token %zu: rows of the KV cache, or numbers of the model, are too large for %s",
                             i, kvt_scheme_get(chosen->way.k_scheme)->name);
        }
        const uint32_t next = is_new ? sample_token(logits, job->model.vocabulary, chosen->temperature, &random) : job->tokens[i];
        if (is_new && (next == job->words.bos || next == job->words.eos || next == job->answer_end))
            break;
        if ((is_new || !chosen->source.chat) && write_token(&to, &job->words, before, next) != 0)
            return error_set(error, "cannot be written: %s", strerror(errno));
        before = next;
        if (i + 1 == n)
            break;
        logits = forward_token(state, next, i);
        *n_run = i + 1;
    }
    text_print_part(stdout, to.held, to.n_held, true);
    return putchar('\n') != EOF && fflush(stdout) == 0 ? 0 : error_set(error, "cannot be written: %s", strerror(errno));
}

/* How many new tokens there is room for, if the prompt leaves any. */
static int choose_length(const text_run *job, const options *chosen, size_t *n_new, const char **argument, error_text *error)
{
    const size_t context = job->model.context;
    *argument = chosen->source.prompt != NULL ? "--prompt" : chosen->source.text;
    if (job->n_tokens == 0)
        return error_set(error, "\"\": some text, or --bos, would be right");
    if (job->n_tokens >= context)
        return error_set(error, "takes %zu tokens: at most %zu, one less than the model's context, would be right", job->n_tokens, context - 1);
    *argument = "--tokens";
    if (chosen->tokens > context - job->n_tokens)
        return error_set(error, "%zu: 1 to %zu would be right, as the prompt takes %zu of %zu tokens, the model's context", chosen->tokens,
                         context - job->n_tokens, job->n_tokens, context);
    *n_new = chosen->tokens != 0 ? chosen->tokens : context - job->n_tokens;
    return 0;
}

int cmd_generate(const options *chosen, const char **argument, error_text *error)
{
    text_run job;
    forward_state state = { 0 };
    size_t n_new = 0;
    int result = run_open(&job, &chosen->source, argument, error);
    if (result == 0)
        result = choose_length(&job, chosen, &n_new, argument, error);
    if (result == 0) {
        *argument = chosen->source.model;
        result = forward_open(&state, &job.model, &chosen->way, job.n_tokens + n_new - 1, job.threads, error);
    }
    if (result == 0) {
        size_t n_run = 0;
        const double start = seconds();
        *argument = "the text";
        result = write_text(&state, &job, chosen, n_new, &n_run, error);
        if (result == 0)
            fprintf(stderr, "%zu tokens, %.1f tokens/s; KV cache: %zu bytes, %zu per token\n", n_run, (double)n_run / (seconds() - start),
                    state.cache.bytes, state.cache.token_bytes);
    }
    forward_close(&state);
    run_close(&job);
    return result;
}
