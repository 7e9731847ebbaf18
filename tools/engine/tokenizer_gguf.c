/* SPDX-License-Identifier: MIT */
/* The tokenizer in a GGUF file's metadata, tokenizer.ggml.*: "llama", as sentencepiece has it (pairs by score, single bytes for characters without a
 * token), or "gpt2" (the byte level, pairs in the order of a list), where tokenizer.ggml.pre names the expression that cuts a text into pieces. */
#include "tools/engine/tokenizer_read.h"

#include "tools/files/gguf.h"
#include "tools/files/number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { CONTROL = 3, USER_DEFINED = 4, SINGLE_BYTE = 6 };

/* ---- keys ---- */

/* A list of `type` with an element for each token; NULL with the error. */
static const gguf_entry *list_of(const gguf *file, const char *key, uint32_t type, uint64_t count, const char *right)
{
    const gguf_entry *entry = gguf_key(file, key);
    char text[80];
    if (entry != NULL && entry->list && entry->type == type && entry->count == count)
        return entry;
    if (entry == NULL)
        error_set(file->error, "%s is missing: %s would be right", key, right);
    else
        error_set(file->error, "%s is %s, but must be %s", key, gguf_text(entry, 0, true, text), right);
    return NULL;
}

/* ---- how a text is prepared ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD_BEFORE  "[^\\r\\n\\p{L}\\p{N}]?"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(most) CONTRACTIONS "|" WORD_BEFORE "\\p{L}+|\\p{N}" most "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
#define CASED(short, most)                                                                                                                           \
    WORD_BEFORE UPPER "*" LOWER "+" short "|" WORD_BEFORE UPPER "+" LOWER "*" short "|\\p{N}" most "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES

/* The expressions that models of these names have in their tokenizer.json, one after the other. */
static const struct pre {
    const char *name;
    const char *expressions[5];
    bool nfc, whole_first;
} KNOWN[] = {
    { "gpt-2", { TOKENIZER_GPT2 }, false, false },
    { "smollm", { "\\p{N}", TOKENIZER_GPT2 }, false, false },
    { "starcoder", { "\\p{N}", TOKENIZER_GPT2 }, false, false },
    { "llama-bpe", { LLAMA3("{1,3}") }, false, true },
    { "llama3", { LLAMA3("{1,3}") }, false, true },
    { "llama-v3", { LLAMA3("{1,3}") }, false, true },
    { "qwen2", { LLAMA3("") }, true, false },
    { "gpt-4o", { CASED(CONTRACTIONS "?", "{1,3}") }, false, false },
    { "tekken", { CASED("", "") }, false, true },
    { "deepseek-coder", { "[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+", "\\p{N}" }, false, false },
    { "deepseek-v3",
      { "\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|" SPACES },
      false,
      false },
};
enum { N_KNOWN = sizeof KNOWN / sizeof *KNOWN, N_EXPRESSIONS = 5 };

static const struct pre *find_pre(const gguf *file)
{
    static const char key[] = "tokenizer.ggml.pre";
    const gguf_entry *entry = gguf_key(file, key);
    char text[80], names[200] = "";
    for (size_t i = 0; i < N_KNOWN; i++) {
        if (gguf_is_text(entry, KNOWN[i].name))
            return &KNOWN[i];
        const size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i == 0 ? "" : i + 1 < N_KNOWN ? ", " : " or ", KNOWN[i].name);
    }
    error_set(file->error, "%s is %s: %s would be right", key, entry != NULL ? gguf_text(entry, 0, true, text) : "missing", names);
    return NULL;
}

static int read_gguf_pieces(tokenizer *words, const gguf *file)
{
    const struct pre *how = find_pre(file);
    if (how == NULL || (how->nfc && pretokens_add(&words->normaliser, (pretokens_step){ .kind = PRETOKENS_NFC }, file->error) != 0))
        return -1;
    words->whole_first = how->whole_first;
    for (size_t i = 0; i < N_EXPRESSIONS && how->expressions[i] != NULL; i++) {
        const pretokens_step step = { .kind = PRETOKENS_SPLIT, .pattern = expression_open(how->expressions[i], file->error) };
        if (pretokens_add(&words->pieces, step, file->error) != 0)
            return -1;
    }
    return 0;
}

/* Of sentencepiece: a space in front if wanted, and all of them as the vocabulary writes them. */
static int read_spaces(tokenizer *words, const gguf *file)
{
    const pretokens_step first = { .kind = PRETOKENS_PREPEND, .text = TOKENIZER_SPACE };
    if (words->space_first && pretokens_add(&words->normaliser, first, file->error) != 0)
        return -1;
    const pretokens_step all = { .kind = PRETOKENS_REPLACE, .pattern = expression_open_literal(" ", file->error), .text = TOKENIZER_SPACE };
    return pretokens_add(&words->normaliser, all, file->error);
}

static int read_gguf_model(tokenizer *words, const gguf *file)
{
    static const char key[] = "tokenizer.ggml.model", space_key[] = "tokenizer.ggml.add_space_prefix";
    const gguf_entry *model = gguf_key(file, key), *space = gguf_key(file, space_key);
    const gguf_entry *unknown = gguf_key(file, "tokenizer.ggml.unknown_token_id");
    int64_t number;
    char text[80];
    words->byte_level = gguf_is_text(model, "gpt2");
    if (!words->byte_level && !gguf_is_text(model, "llama"))
        return error_set(file->error, "%s is %s: llama or gpt2 would be right", key, model != NULL ? gguf_text(model, 0, true, text) : "missing");
    words->takes_bytes = words->space_first = !words->byte_level;
    if (space != NULL && !space->list && gguf_number(space, 0, &number)) {
        if (words->byte_level && number != 0)
            return error_set(file->error, "%s is true: false would be right where %s is gpt2", space_key, key);
        words->space_first = number != 0;
    }
    if (!words->byte_level && unknown != NULL && !unknown->list && gguf_number(unknown, 0, &number) && number >= 0 && number < TOKENIZER_TOKENS)
        words->unknown = (uint32_t)number;
    return words->byte_level ? read_gguf_pieces(words, file) : read_spaces(words, file);
}

/* ---- tokens ---- */

/* Token `number`, whose text is `string`. Returns the bytes that were written to `next`. */
static uint32_t add_token(tokenizer *words, uint32_t number, int64_t kind, const char *string, size_t length, uint8_t *next)
{
    const bool added = (kind == CONTROL || kind == USER_DEFINED) && length > 0;
    unsigned byte;
    bool whole = true;
    uint32_t n = (uint32_t)length;
    if (words->byte_level && !added)
        n = tokenizer_decode(string, length, next, &whole);
    else if (length > 0)
        memcpy(next, string, length);
    words->tokens[number] = (token){ .bytes = next, .length = n, .is_found = whole };
    if (added)
        words->added.list[words->added.n++] = (added_token){ .text = next, .length = n, .number = number };
    else if (kind == SINGLE_BYTE && tokenizer_byte_name(string, length, &byte))
        words->byte_tokens[byte] = number;
    else if (words->byte_level && whole && n == 1)
        words->byte_tokens[*next] = number;
    return n;
}

static int read_tokens(tokenizer *words, const gguf *file)
{
    static const char key[] = "tokenizer.ggml.tokens";
    const gguf_entry *tokens = gguf_key(file, key), *kinds = NULL, *scores = NULL;
    const uint64_t n = tokens != NULL && tokens->list ? tokens->count : 0;
    if (n > TOKENIZER_TOKENS)
        return error_set(file->error, "%s has %" PRIu64 ": at most %d would be right", key, n, TOKENIZER_TOKENS);
    if (!(tokens = list_of(file, key, GGUF_STRING, n, "a list of texts")) ||
        (gguf_key(file, "tokenizer.ggml.token_type") &&
         !(kinds = list_of(file, "tokenizer.ggml.token_type", GGUF_I32, n, "a list of an i32 for each token"))) ||
        (!words->byte_level && !(scores = list_of(file, "tokenizer.ggml.scores", GGUF_F32, n, "a list of an f32 for each token"))))
        return -1;
    if (tokenizer_make_room(words, (size_t)n, (size_t)n, file->error) != 0)
        return -1;
    words->memory = malloc(words->map.size); /* texts are not longer than what they are in the file */
    if (words->memory == NULL)
        return error_set(file->error, "cannot be read: out of memory");
    uint8_t *next = words->memory;
    const uint8_t *at = tokens->data;
    for (uint32_t i = 0; i < n; i++) {
        const char *string;
        uint64_t length;
        int64_t kind = 0;
        at = gguf_string(at, &string, &length);
        if (length > UINT32_MAX)
            return error_set(file->error, "%s[%" PRIu32 "] has %" PRIu64 " bytes", key, i, length);
        if (kinds != NULL)
            gguf_number(kinds, i, &kind);
        next += add_token(words, i, kind, string, (size_t)length, next);
        words->tokens[i].score = scores != NULL ? load_float(scores->data + (size_t)4 * i) : 0;
        if (words->tokens[i].score != words->tokens[i].score)
            return error_set(file->error, "tokenizer.ggml.scores[%" PRIu32 "] is not a number", i);
    }
    return tokenizer_check_size(words, file->error);
}

/* ---- merges ---- */

/* "a b": neither has a space in it, as the byte level writes that as another character. */
static int read_gguf_merge(tokenizer *words, const gguf *file, const char *text, size_t length, uint8_t *buffer)
{
    const char *space = length > 0 ? memchr(text, ' ', length) : NULL;
    const size_t left = space != NULL ? (size_t)(space - text) : 0, right = space != NULL ? length - left - 1 : 0;
    char shown[64];
    merge *to = &words->merges[words->n_merges];
    *to = (merge){ .left = NO_TOKEN, .right = NO_TOKEN, .merged = NO_TOKEN, .rank = (uint32_t)words->n_merges };
    if (left > 0 && right > 0) {
        bool whole[2];
        const uint32_t n = tokenizer_decode(text, left, buffer, &whole[0]), more = tokenizer_decode(space + 1, right, buffer + n, &whole[1]);
        to->left = whole[0] ? tokenizer_find(words, buffer, n) : NO_TOKEN;
        to->right = whole[1] ? tokenizer_find(words, buffer + n, more) : NO_TOKEN;
        to->merged = whole[0] && whole[1] ? tokenizer_find(words, buffer, n + more) : NO_TOKEN;
    }
    if (to->left == NO_TOKEN || to->right == NO_TOKEN || to->merged == NO_TOKEN)
        return error_set(file->error,
                         "tokenizer.ggml.merges[%zu] is \"%s\": two tokens with a space between, which are a token together, would be right",
                         words->n_merges, gguf_shown(text, length, shown));
    words->n_merges++;
    return 0;
}

static int read_gguf_merges(tokenizer *words, const gguf *file)
{
    static const char key[] = "tokenizer.ggml.merges";
    const gguf_entry *list = gguf_key(file, key);
    const uint64_t n = list != NULL && list->count < TOKENIZER_MERGES ? list->count : 0;
    if (!(list = list_of(file, key, GGUF_STRING, n, "a list of less than 2^24 texts")))
        return -1;
    words->merges = malloc((size_t)(n + 1) * sizeof *words->merges);
    uint8_t *buffer = malloc(words->map.size);
    int result = words->merges != NULL && buffer != NULL ? 0 : error_set(file->error, "cannot be read: out of memory");
    const uint8_t *at = list->data;
    for (uint64_t i = 0; result == 0 && i < n; i++) {
        const char *string;
        uint64_t length;
        at = gguf_string(at, &string, &length);
        result = read_gguf_merge(words, file, string, (size_t)length, buffer);
    }
    free(buffer);
    tokenizer_sort_merges(words, false);
    return result;
}

int tokenizer_read_gguf(tokenizer *words, error_text *error)
{
    gguf file = { .error = error };
    int result = -1;
    if (gguf_open(&file, words->map.data, words->map.size) && read_gguf_model(words, &file) == 0 && read_tokens(words, &file) == 0)
        result = tokenizer_sort(words, error);
    if (result == 0 && words->byte_level)
        result = read_gguf_merges(words, &file);
    gguf_free(&file);
    return result;
}
