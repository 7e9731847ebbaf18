/* tokenizer.json: {"model": {"type": "BPE", "vocab": {"text": number}, "merges": ["a b"]}, "normalizer", "pre_tokenizer", "added_tokens"}. What these
 * may be is what Llama-style models have; anything else is refused, because it would give other tokens than the model was trained on. */
#include "tools/engine/tokenizer_read.h"

#include "tools/io/number.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

/* How sentencepiece writes a space. */
static const char SPACE[] = "\xe2\x96\x81";

static const char *text_at(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_string(value) ? json_string_value(value) : "";
}

static bool is_type(const json_t *step, const char *type)
{
    return strcmp(text_at(step, "type"), type) == 0;
}

/* Step i of a normalizer or pre-tokenizer, which is one or a "Sequence" of some; NULL behind the last. */
static const json_t *step_of(const json_t *all, const char *list, size_t i)
{
    if (!json_is_object(all))
        return NULL;
    return is_type(all, "Sequence") ? json_array_get(json_object_get(all, list), i) : i == 0 ? all : NULL;
}

/* ---- how a text is prepared ---- */

static int read_normalizer(tokenizer *words, const json_t *root, error_text *error)
{
    const json_t *all = json_object_get(root, "normalizer"), *step;
    for (size_t i = 0; (step = step_of(all, "normalizers", i)) != NULL; i++) {
        const json_t *pattern = json_object_get(step, "pattern");
        if (is_type(step, "Prepend") && strcmp(text_at(step, "prepend"), SPACE) == 0)
            words->space_first = true;
        else if (!is_type(step, "Replace") || strcmp(text_at(pattern, "String"), " ") != 0 || strcmp(text_at(step, "content"), SPACE) != 0)
            return error_set(error, "normalizer is \"%.40s\": a space before the text, and spaces written as U+2581, would be right",
                             text_at(step, "type"));
    }
    return 0;
}

static int read_split(tokenizer *words, const json_t *step, error_text *error)
{
    static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    static const char llama3[] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
        "\\s+(?!\\S)|\\s+";
    static const char one_digit[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                                    "\\s+(?!\\S)|\\s+";
    const char *pattern = text_at(json_object_get(step, "pattern"), "Regex");
    if (strcmp(pattern, gpt2) == 0)
        words->pieces.kind = PRETOKENS_GPT2;
    else if (strcmp(pattern, llama3) == 0 || strcmp(pattern, one_digit) == 0)
        words->pieces.kind = PRETOKENS_LLAMA3;
    else
        return error_set(error, "pre_tokenizer splits by \"%.200s\": the expressions of GPT-2, Llama 3 or Qwen 2 would be right", pattern);
    words->pieces.most_digits = strcmp(pattern, one_digit) == 0 ? 1 : 3;
    return 0;
}

static int read_pieces(tokenizer *words, const json_t *root, error_text *error)
{
    const json_t *all = json_object_get(root, "pre_tokenizer"), *step;
    for (size_t i = 0; (step = step_of(all, "pretokenizers", i)) != NULL; i++) {
        if (is_type(step, "Split")) {
            if (read_split(words, step, error) != 0)
                return -1;
        } else if (is_type(step, "Digits") && json_is_true(json_object_get(step, "individual_digits"))) {
            words->pieces.lone_digits = true;
        } else if (is_type(step, "ByteLevel")) {
            words->byte_level = true;
            words->space_first = words->unless_there = json_is_true(json_object_get(step, "add_prefix_space"));
            if (!json_is_false(json_object_get(step, "use_regex")))
                words->pieces.kind = PRETOKENS_GPT2;
        } else if (is_type(step, "Metaspace")) {
            words->space_first = words->unless_there = strcmp(text_at(step, "prepend_scheme"), "never") != 0;
            if (!json_is_false(json_object_get(step, "split")))
                words->pieces.kind = PRETOKENS_SPACES;
        } else {
            return error_set(error, "pre_tokenizer is \"%.40s\": ByteLevel, Metaspace, Digits or Split would be right", text_at(step, "type"));
        }
    }
    return 0;
}

/* ---- tokens ---- */

static int place_of(const tokenizer *words, const char *text, const json_t *value, uint32_t *number, error_text *error)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= words->size)
        return error_set(error, "token \"%.60s\" has number %" JSON_INTEGER_FORMAT ": 0 to %" PRIu32 " would be right for the model's vocabulary",
                         text, id, words->size - 1);
    *number = (uint32_t)id;
    return 0;
}

static void add_token(tokenizer *words, uint32_t number, const uint8_t *bytes, uint32_t length)
{
    words->tokens[number] = (token){ .bytes = bytes, .length = length };
}

static int read_vocabulary(tokenizer *words, const json_t *model, const json_t *added, error_text *error)
{
    const json_t *vocabulary = json_object_get(model, "vocab");
    const bool fallback = json_is_true(json_object_get(model, "byte_fallback"));
    const char *text;
    json_t *value;
    size_t room = 0, i;
    if (json_object_size(vocabulary) == 0)
        return error_set(error, "model.vocab is missing or empty: an object of texts and numbers would be right");
    json_object_foreach((json_t *)(uintptr_t)vocabulary, text, value) room += strlen(text);
    json_array_foreach(added, i, value) room += strlen(text_at(value, "content"));
    words->tokens = calloc(words->size, sizeof *words->tokens);
    words->added = malloc((json_array_size(added) + 1) * sizeof *words->added);
    words->memory = malloc(room + 1);
    if (words->tokens == NULL || words->added == NULL || words->memory == NULL)
        return error_set(error, "cannot be read: out of memory");
    uint8_t *next = words->memory;
    uint32_t number = 0;
    json_object_foreach((json_t *)(uintptr_t)vocabulary, text, value)
    {
        unsigned byte;
        if (place_of(words, text, value, &number, error) != 0)
            return -1;
        const uint32_t length = tokenizer_decode(words, text, strlen(text), next);
        add_token(words, number, next, length);
        if (fallback && tokenizer_byte_name(text, strlen(text), &byte))
            words->byte_tokens[byte] = number;
        if (words->byte_level && length == 1)
            words->byte_tokens[*next] = number;
        next += length;
    }
    json_array_foreach(added, i, value)
    {
        const char *content = text_at(value, "content");
        const size_t length = strlen(content);
        if (place_of(words, content, json_object_get(value, "id"), &number, error) != 0)
            return -1;
        if (length == 0)
            continue;
        memcpy(next, content, length);
        add_token(words, number, next, (uint32_t)length);
        words->added[words->n_added++] = number;
        next += length;
    }
    return 0;
}

/* ---- merges ---- */

static uint32_t number_of(const json_t *vocabulary, const char *text, size_t length)
{
    const json_t *value = json_object_getn(vocabulary, text, length);
    return json_is_integer(value) ? (uint32_t)json_integer_value(value) : NO_TOKEN; /* all were checked */
}

/* "a b", or in newer files ["a", "b"]. */
static int read_merge(merge *to, const json_t *vocabulary, const json_t *value, size_t rank, error_text *error)
{
    const char *left = json_string_value(json_is_array(value) ? json_array_get(value, 0) : value), *right = NULL;
    size_t left_length = 0;
    if (json_is_array(value) && left != NULL) {
        right = json_string_value(json_array_get(value, 1));
        left_length = strlen(left);
    } else if (left != NULL) {
        right = strchr(left, ' ');
        left_length = right != NULL ? (size_t)(right - left) : 0;
        right = right != NULL ? right + 1 : NULL;
    }
    if (right == NULL)
        return error_set(error, "model.merges[%zu] is no pair of texts", rank);
    const size_t right_length = strlen(right);
    char *both = malloc(left_length + right_length + 1);
    if (both == NULL)
        return error_set(error, "cannot be read: out of memory");
    memcpy(both, left, left_length);
    memcpy(both + left_length, right, right_length);
    *to = (merge){ .left = number_of(vocabulary, left, left_length),
                   .right = number_of(vocabulary, right, right_length),
                   .merged = number_of(vocabulary, both, left_length + right_length),
                   .rank = (uint32_t)rank };
    free(both);
    if (to->left == NO_TOKEN || to->right == NO_TOKEN || to->merged == NO_TOKEN)
        return error_set(error, "model.merges[%zu] is \"%.60s\" and \"%.60s\": texts of model.vocab would be right, and both together too", rank,
                         left, right);
    return 0;
}

static int read_merges(tokenizer *words, const json_t *model, error_text *error)
{
    const json_t *merges = json_object_get(model, "merges"), *vocabulary = json_object_get(model, "vocab");
    if (!json_is_array(merges) || json_array_size(merges) >= TOKENIZER_MERGES)
        return error_set(error, "model.merges is missing or too long: an array of less than %d pairs would be right", TOKENIZER_MERGES);
    words->merges = malloc((json_array_size(merges) + 1) * sizeof *words->merges);
    if (words->merges == NULL)
        return error_set(error, "cannot be read: out of memory");
    for (; words->n_merges < json_array_size(merges); words->n_merges++)
        if (read_merge(&words->merges[words->n_merges], vocabulary, json_array_get(merges, words->n_merges), words->n_merges, error) != 0)
            return -1;
    tokenizer_sort_merges(words);
    return 0;
}

/* ---- the file ---- */

static int read_root(tokenizer *words, const json_t *root, error_text *error)
{
    const json_t *model = json_object_get(root, "model");
    if (!is_type(model, "BPE"))
        return error_set(error, "model.type is \"%.40s\": \"BPE\" would be right", text_at(model, "type"));
    for (size_t i = 0; i < 256; i++)
        words->byte_tokens[i] = NO_TOKEN;
    if (read_normalizer(words, root, error) != 0 || read_pieces(words, root, error) != 0 ||
        read_vocabulary(words, model, json_object_get(root, "added_tokens"), error) != 0 || tokenizer_check_size(words, error) != 0 ||
        read_merges(words, model, error) != 0)
        return -1;
    words->unknown = number_of(json_object_get(model, "vocab"), text_at(model, "unk_token"), strlen(text_at(model, "unk_token")));
    words->fuses_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    words->whole_first = json_is_true(json_object_get(model, "ignore_merges"));
    return tokenizer_sort(words) == 0 ? 0 : error_set(error, "cannot be read: out of memory");
}

int tokenizer_read_json(tokenizer *words, error_text *error)
{
    json_error_t where;
    json_t *root = json_loadb((const char *)words->map.data, words->map.size, 0, &where);
    if (root == NULL)
        return error_set(error, "is not JSON: %s (line %d)", where.text, where.line);
    const int result = read_root(words, root, error);
    json_decref(root);
    return result;
}
