/* SPDX-License-Identifier: MIT */
/* A model, and the tokens of a text. */
#ifndef KVT_ENGINE_RUN_H
#define KVT_ENGINE_RUN_H

#include "tools/engine/checkpoint.h"
#include "tools/engine/tokenizer.h"
#include "tools/pool/pool.h"

typedef struct run_source {
    const char *model;     /* a file or a folder */
    const char *tokenizer; /* a file, or NULL: what the model brings along */
    const char *text;      /* a file, not looked at when there is a prompt, or NULL: no text */
    const char *prompt;    /* the text itself, or NULL */
    bool chat;             /* the prompt is a question to a chat model */
    bool bos;
    unsigned threads;
} run_source;

typedef struct text_run {
    checkpoint model;
    tokenizer words;
    pool *threads;
    uint32_t *tokens;
    size_t n_tokens;
    uint32_t answer_end; /* the token that ends an answer, or NO_TOKEN */
} text_run;

/* 0, or -1 with the error, and *argument is what it is about. run_close is due in any case. */
int run_open(text_run *job, const run_source *source, const char **argument, error_text *error);
void run_close(text_run *job);

#endif
