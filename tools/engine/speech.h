/* SPDX-License-Identifier: MIT */
/* Text into a model, and what it says: printed as it comes. */
#ifndef KVT_ENGINE_SPEECH_H
#define KVT_ENGINE_SPEECH_H

#include "tools/engine/commands.h"
#include "tools/engine/prefix.h"

typedef struct speech {
    forward_state *state;
    const text_run *job;
    const options *chosen;
    bool terminal; /* where text is shown as names are: a vocabulary may have tokens that steer it */
    char held[4];  /* the beginning of a character */
    size_t n_held;
    uint64_t random;
    uint32_t before;     /* the token before */
    const float *logits; /* of what comes next; NULL: nothing has been run */
    size_t n_run;
    prefix *beginning; /* where blocks of the prompt come from and go to, or NULL */
    double said_at;    /* when the first token was said */
} speech;

/* What is stored already counts as heard. */
speech speech_open(forward_state *state, const text_run *job, const options *chosen);

/* Runs tokens, and writes them where `is_shown`. 0, or -1 with the error, as in what follows. */
int speech_hear(speech *s, const uint32_t *tokens, size_t n, bool is_shown, error_text *error);

/* Writes up to n tokens, each as soon as it is known, until the model ends its text, and then the end of the line. The last is run, and so is the one
 * that ended it, where `is_kept`. At least one has been heard. */
int speech_say(speech *s, size_t n, bool is_kept, error_text *error);

#endif
