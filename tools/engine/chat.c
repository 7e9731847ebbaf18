/* SPDX-License-Identifier: MIT */
#include "tools/engine/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Those with the rarer marker come first. */
static const chat_template TEMPLATES[] = {
    { "Llama 3", "<|start_header_id|>", "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
      "<|eot_id|>", "", true },
    { "ChatML", "<|im_start|>", "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>", "\n", false },
    { "Gemma", "<start_of_turn>", "<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>", "\n", true },
    { "Phi-3", "<|assistant|>", "<|user|>\n", "<|end|>\n<|assistant|>\n", "<|end|>", "\n", false },
    { "Mistral", "[INST]", "[INST] ", " [/INST]", "</s>", "", true },
};
enum { N_TEMPLATES = sizeof TEMPLATES / sizeof *TEMPLATES };

static uint32_t find(const tokenizer *words, const char *text)
{
    return tokenizer_find(words, (const uint8_t *)text, strlen(text));
}

const chat_template *chat_find(const tokenizer *words, error_text *error)
{
    for (size_t i = 0; i < N_TEMPLATES; i++)
        if (find(words, TEMPLATES[i].marker) != NO_TOKEN)
            return &TEMPLATES[i];
    if (error != NULL)
        error_set(error,
                  "the vocabulary has none of the tokens that mark a question (<|im_start|>, <|start_header_id|>, <start_of_turn>, <|assistant|>, "
                  "[INST]): a model that was trained to chat would be right");
    return NULL;
}

char *chat_wrap(const chat_template *how, const char *question)
{
    const size_t room = strlen(how->before) + strlen(question) + strlen(how->after) + 1;
    char *text = malloc(room);
    if (text != NULL)
        snprintf(text, room, "%s%s%s", how->before, question, how->after);
    return text;
}

uint32_t chat_end(const chat_template *how, const tokenizer *words)
{
    return find(words, how->end);
}
