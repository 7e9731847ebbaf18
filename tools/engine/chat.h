/* SPDX-License-Identifier: MIT */
/* A question as a chat model expects it. The rule is plain: the tokens of a vocabulary say which of the common templates a model was trained on. What
 * GGUF files and folders have are programs (Jinja), which are not run; no system message is put before the question. */
#ifndef KVT_ENGINE_CHAT_H
#define KVT_ENGINE_CHAT_H

#include "tools/engine/tokenizer.h"

typedef struct chat_template {
    const char *name, *marker; /* a token that only models of this template have */
    const char *before, *after;
    const char *end;     /* the token that ends an answer */
    const char *between; /* behind it, before the next question */
    bool bos;            /* whether BOS comes first */
} chat_template;

/* NULL with the error (NULL: not wanted): none of them fits. */
const chat_template *chat_find(const tokenizer *words, error_text *error);

/* The question in the template; the caller frees it. NULL: no memory. */
char *chat_wrap(const chat_template *how, const char *question);

/* The token that ends an answer, or NO_TOKEN. */
uint32_t chat_end(const chat_template *how, const tokenizer *words);

#endif
