/* The tokenizer in a GGUF file's metadata, tokenizer.ggml.*: "llama", as sentencepiece has it (pairs by score, single bytes for characters without a
 * token), or "gpt2" (the byte level, pairs in the order of a list), where tokenizer.ggml.pre names the expression that cuts a text into pieces. */
#include "tools/engine/tokenizer_read.h"

#include "tools/io/gguf.h"
#include "tools/io/number.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { CONTROL = 3, USER_DEFINED = 4, SINGLE_BYTE = 6 };

/* ---- keys ---- */

/* A list of `type` with an element for each token; NULL with the error. */
static const gguf_entry *list_of(const gguf *file, const char *key, uint32_t type, uint64_t count, const char *right)
{
    const gguf_entry *one = gguf_key(file, key);
    char text[80];
    if (one != NULL && one->list && one->type == type && one->count == count)
        return one;
    if (one == NULL)
        error_set(file->error, "%s is missing: %s would be right", key, right);
    else
        error_set(file->error, "%s is %s, but must be %s", key, gguf_text(one, 0, true, text), right);
    return NULL;
}

/* ---- how a text is prepared ---- */

static int read_pieces(tokenizer *words, const gguf *file)
{
    static const char key[] = "tokenizer.ggml.pre";
    static const struct {
        const char *name;
        pretokens pieces;
        bool whole_first;
    } known[] = {
        { "gpt-2", { .kind = PRETOKENS_GPT2 }, false },
        { "smollm", { .kind = PRETOKENS_GPT2, .lone_digits = true }, false },
        { "starcoder", { .kind = PRETOKENS_GPT2, .lone_digits = true }, false },
        { "llama-bpe", { .kind = PRETOKENS_LLAMA3, .most_digits = 3 }, true },
        { "llama3", { .kind = PRETOKENS_LLAMA3, .most_digits = 3 }, true },
        { "qwen2", { .kind = PRETOKENS_LLAMA3, .most_digits = 1 }, false },
    };
    const gguf_entry *one = gguf_key(file, key);
    char text[80];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (gguf_is_text(one, known[i].name)) {
            words->pieces = known[i].pieces;
            words->whole_first = known[i].whole_first;
            return 0;
        }
    }
    return error_set(file->error, "%s is %s: gpt-2, smollm, starcoder, llama-bpe, llama3 or qwen2 would be right", key,
                     one != NULL ? gguf_text(one, 0, true, text) : "missing");
}

static int read_model(tokenizer *words, const gguf *file)
{
    static const char key[] = "tokenizer.ggml.model";
    const gguf_entry *model = gguf_key(file, key), *space = gguf_key(file, "tokenizer.ggml.add_space_prefix");
    const gguf_entry *unknown = gguf_key(file, "tokenizer.ggml.unknown_token_id");
    int64_t number;
    char text[80];
    words->byte_level = gguf_is_text(model, "gpt2");
    if (!words->byte_level && !gguf_is_text(model, "llama"))
        return error_set(file->error, "%s is %s: llama or gpt2 would be right", key, model != NULL ? gguf_text(model, 0, true, text) : "missing");
    words->space_first = !words->byte_level;
    if (space != NULL && !space->list && gguf_number(space, 0, &number))
        words->space_first = number != 0;
    if (unknown != NULL && !unknown->list && gguf_number(unknown, 0, &number) && number >= 0 && number < words->size)
        words->unknown = (uint32_t)number;
    for (size_t i = 0; i < 256; i++)
        words->byte_tokens[i] = NO_TOKEN;
    return words->byte_level ? read_pieces(words, file) : 0;
}

/* ---- tokens ---- */

/* Token `number`, whose text is `string`. Returns the bytes that were written to `next`. */
static uint32_t add_token(tokenizer *words, uint32_t number, int64_t kind, const char *string, size_t length, uint8_t *next)
{
    const bool added = (kind == CONTROL || kind == USER_DEFINED) && length > 0;
    unsigned byte;
    uint32_t n = (uint32_t)length;
    if (added && words->byte_level)
        memcpy(next, string, length);
    else
        n = tokenizer_decode(words, string, length, next);
    words->tokens[number].bytes = next;
    words->tokens[number].length = n;
    if (added)
        words->added[words->n_added++] = number;
    else if (kind == SINGLE_BYTE && tokenizer_byte_name(string, length, &byte))
        words->byte_tokens[byte] = number;
    else if (words->byte_level && n == 1)
        words->byte_tokens[*next] = number;
    return n;
}

static int read_tokens(tokenizer *words, const gguf *file)
{
    static const char key[] = "tokenizer.ggml.tokens";
    const gguf_entry *tokens = gguf_key(file, key), *kinds = NULL, *scores = NULL;
    const uint64_t n = tokens != NULL && tokens->list ? tokens->count : 0;
    if (n > words->size)
        return error_set(file->error, "%s has %" PRIu64 ": the model's vocabulary is %" PRIu32, key, n, words->size);
    if (!(tokens = list_of(file, key, GGUF_STRING, n, "a list of texts")) ||
        (gguf_key(file, "tokenizer.ggml.token_type") &&
         !(kinds = list_of(file, "tokenizer.ggml.token_type", GGUF_I32, n, "a list of an i32 for each token"))) ||
        (!words->byte_level && !(scores = list_of(file, "tokenizer.ggml.scores", GGUF_F32, n, "a list of an f32 for each token"))))
        return -1;
    words->tokens = calloc(words->size, sizeof *words->tokens);
    words->added = malloc((words->size + (size_t)1) * sizeof *words->added);
    words->memory = malloc(words->map.size); /* texts are not longer than what they are in the file */
    if (words->tokens == NULL || words->added == NULL || words->memory == NULL)
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
        words->tokens[i].score = scores != NULL ? load_f32(scores->data + (size_t)4 * i) : 0;
        if (words->tokens[i].score != words->tokens[i].score)
            return error_set(file->error, "tokenizer.ggml.scores[%" PRIu32 "] is not a number", i);
    }
    return tokenizer_check_size(words, file->error);
}

/* ---- merges ---- */

/* The token of a text; `buffer` has room for its bytes. */
static uint32_t number_of(const tokenizer *words, const char *text, size_t length, uint8_t *buffer)
{
    return tokenizer_find(words, buffer, tokenizer_decode(words, text, length, buffer));
}

/* "a b": neither has a space in it, as the byte level writes that as another character. */
static int read_merge(tokenizer *words, const gguf *file, const char *text, size_t length, uint8_t *buffer)
{
    const char *space = length > 0 ? memchr(text, ' ', length) : NULL;
    const size_t left = space != NULL ? (size_t)(space - text) : 0, right = space != NULL ? length - left - 1 : 0;
    char shown[64];
    merge *to = &words->merges[words->n_merges];
    *to = (merge){ .left = NO_TOKEN, .right = NO_TOKEN, .merged = NO_TOKEN, .rank = (uint32_t)words->n_merges };
    if (left > 0 && right > 0) {
        const uint32_t n = tokenizer_decode(words, text, left, buffer);
        to->left = tokenizer_find(words, buffer, n);
        to->right = number_of(words, space + 1, right, buffer + n);
        to->merged = tokenizer_find(words, buffer, n + tokenizer_decode(words, space + 1, right, buffer + n));
    }
    if (to->left == NO_TOKEN || to->right == NO_TOKEN || to->merged == NO_TOKEN)
        return error_set(file->error,
                         "tokenizer.ggml.merges[%zu] is \"%s\": two tokens with a space between, which are a token together, would be right",
                         words->n_merges, gguf_shown(text, length, shown));
    words->n_merges++;
    return 0;
}

static int read_merges(tokenizer *words, const gguf *file)
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
        result = read_merge(words, file, string, (size_t)length, buffer);
    }
    free(buffer);
    tokenizer_sort_merges(words);
    return result;
}

int tokenizer_read_gguf(tokenizer *words, error_text *error)
{
    gguf file = { .error = error };
    int result = -1;
    if (gguf_open(&file, words->map.data, words->map.size) && read_model(words, &file) == 0 && read_tokens(words, &file) == 0)
        result = tokenizer_sort(words) == 0 ? 0 : error_set(error, "cannot be read: out of memory");
    if (result == 0 && words->byte_level)
        result = read_merges(words, &file);
    gguf_free(&file);
    return result;
}
