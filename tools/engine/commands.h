/* SPDX-License-Identifier: MIT */
/* What kvtile-engine's commands are given and share. */
#ifndef KVT_ENGINE_COMMANDS_H
#define KVT_ENGINE_COMMANDS_H

#include "tools/engine/forward.h"
#include "tools/engine/run.h"

enum { MOST_SCHEMES = 64 };

/* The texts of the options, NULL where not given. */
typedef struct option_texts {
    char *model, *tokenizer, *text, *prompt, *out, *tokens, *threads, *seed, *temperature;
    char *scheme, *k, *v, *schemes, *rotation, *centring, *first, *preset;
    char *context, *save, *resume, *store;
} option_texts;

typedef struct options {
    run_source source;
    const char *out, *save, *resume, *store; /* NULL where not given */
    size_t tokens, context;                  /* 0: not given */
    cache_way way;
    bool shows_way; /* a scheme was asked for */
    kvt_scheme schemes[MOST_SCHEMES];
    size_t n_schemes; /* 0: --schemes was not given */
    double temperature;
    uint64_t seed;
} options;

/* Words and numbers of `texts` into `chosen`, whose flags are set. On failure -1 with the error, and *argument is the option. */
int options_read(options *chosen, const option_texts *texts, const char **argument, error_text *error);

/* All of these: 0, or -1 with the error, and *argument is what it is about. */

/* Cuts the tokens down to --tokens, or to the model's context where there is no --context. */
int run_limit(text_run *job, const options *chosen, const char **argument, error_text *error);

/* Holds --context against what shifting needs, and the model's. */
int run_room(const text_run *job, const options *chosen, const char **argument, error_text *error);

int cmd_chat(const options *chosen, const char **argument, error_text *error);
int cmd_capture(const options *chosen, const char **argument, error_text *error);
int cmd_perplexity(const options *chosen, const char **argument, error_text *error);
int cmd_generate(const options *chosen, const char **argument, error_text *error);

#endif
