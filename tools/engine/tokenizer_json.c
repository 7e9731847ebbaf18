/* SPDX-License-Identifier: MIT */
/* tokenizer.json: {"model": {"type": "BPE", "vocab": {"text": number}, "merges": ["a b"]}, "normalizer", "pre_tokenizer", "added_tokens"}, as Hugging
 * Face's `tokenizers` reads it. What is not taken is refused by name, because it would give other tokens than the model was trained on. */
#include "tools/engine/tokenizer_read.h"

#include "tools/files/number.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>

static const char *text_at(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_string(value) ? json_string_value(value) : "";
}

static bool is_type(const json_t *step, const char *type)
{
    return strcmp(text_at(step, "type"), type) == 0;
}

/* Whether it is missing, null, or of no consequence: false, "", 0. */
static bool is_nothing(const json_t *value)
{
    return value == NULL || json_is_null(value) || json_is_false(value) || (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_number(value) && json_number_value(value) == 0);
}

/* Step i of a normalizer or pre-tokenizer, which is one or a "Sequence" of some; NULL behind the last. */
static const json_t *step_of(const json_t *all, const char *list, size_t i)
{
    if (!json_is_object(all))
        return NULL;
    return is_type(all, "Sequence") ? json_array_get(json_object_get(all, list), i) : i == 0 ? all : NULL;
}

/* ---- how a text is prepared ---- */

/* {"Regex": ".."} or {"String": ".."}; NULL with the error. */
static expression *read_pattern(const json_t *step, error_text *error)
{
    const json_t *pattern = json_object_get(step, "pattern");
    if (json_is_string(json_object_get(pattern, "Regex")))
        return expression_open(text_at(pattern, "Regex"), error);
    if (json_is_string(json_object_get(pattern, "String")))
        return expression_open_literal(text_at(pattern, "String"), error);
    error_set(error, "pattern of a \"%.40s\" is neither a \"Regex\" nor a \"String\"", text_at(step, "type"));
    return NULL;
}

static int read_normaliser_step(pretokens *to, const json_t *step, error_text *error)
{
    static const struct {
        const char *type;
        pretokens_kind kind;
    } forms[] = { { "NFC", PRETOKENS_NFC }, { "NFD", PRETOKENS_NFD }, { "NFKC", PRETOKENS_NFKC }, { "NFKD", PRETOKENS_NFKD } };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (is_type(step, forms[i].type))
            return pretokens_add(to, (pretokens_step){ .kind = forms[i].kind }, error);
    if (is_type(step, "Prepend"))
        return pretokens_add(to, (pretokens_step){ .kind = PRETOKENS_PREPEND, .text = text_at(step, "prepend") }, error);
    if (is_type(step, "Replace"))
        return pretokens_add(
            to, (pretokens_step){ .kind = PRETOKENS_REPLACE, .pattern = read_pattern(step, error), .text = text_at(step, "content") }, error);
    return error_set(error, "normalizer is \"%.40s\": NFC, NFD, NFKC, NFKD, Prepend or Replace would be right", text_at(step, "type"));
}

static int read_normaliser(tokenizer *words, const json_t *root, error_text *error)
{
    const json_t *all = json_object_get(root, "normalizer"), *step;
    for (size_t i = 0; (step = step_of(all, "normalizers", i)) != NULL; i++) {
        if (read_normaliser_step(&words->normaliser, step, error) != 0)
            return -1;
        words->space_first = words->space_first || (is_type(step, "Prepend") && strcmp(text_at(step, "prepend"), TOKENIZER_SPACE) == 0);
    }
    return 0;
}

static int add_split(pretokens *to, expression *pattern, pretokens_behaviour behaviour, error_text *error)
{
    return pretokens_add(to, (pretokens_step){ .kind = PRETOKENS_SPLIT, .pattern = pattern, .behaviour = behaviour }, error);
}

static int read_split(pretokens *to, const json_t *step, error_text *error)
{
    static const char *const names[] = { [PRETOKENS_ISOLATED] = "Isolated",
                                         [PRETOKENS_REMOVED] = "Removed",
                                         [PRETOKENS_CONTIGUOUS] = "Contiguous",
                                         [PRETOKENS_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                         [PRETOKENS_MERGED_WITH_NEXT] = "MergedWithNext" };
    pretokens_step split = { .kind = PRETOKENS_SPLIT, .invert = json_is_true(json_object_get(step, "invert")) };
    while (split.behaviour <= PRETOKENS_MERGED_WITH_NEXT && strcmp(text_at(step, "behavior"), names[split.behaviour]) != 0)
        split.behaviour++;
    if (split.behaviour > PRETOKENS_MERGED_WITH_NEXT)
        return error_set(error,
                         "behavior of a \"Split\" is \"%.40s\": Isolated, Removed, Contiguous, MergedWithPrevious or MergedWithNext would be right",
                         text_at(step, "behavior"));
    split.pattern = read_pattern(step, error);
    return pretokens_add(to, split, error);
}

static int read_byte_level(tokenizer *words, const json_t *step, error_text *error)
{
    words->byte_level = true;
    if (!json_is_false(json_object_get(step, "add_prefix_space"))) {
        words->space_first = true;
        if (pretokens_add(&words->pieces, (pretokens_step){ .kind = PRETOKENS_PREPEND, .text = " ", .unless_there = true }, error) != 0)
            return -1;
    }
    if (json_is_false(json_object_get(step, "use_regex")))
        return 0;
    return add_split(&words->pieces, expression_open(TOKENIZER_GPT2, error), PRETOKENS_ISOLATED, error);
}

static int read_metaspace(tokenizer *words, const json_t *step, error_text *error)
{
    const char *scheme = text_at(step, "prepend_scheme");
    const bool never = strcmp(scheme, "never") == 0 || json_is_false(json_object_get(step, "add_prefix_space"));
    static const char space[] = TOKENIZER_SPACE;
    if (strcmp(text_at(step, "replacement"), space) != 0)
        return error_set(error, "replacement of a \"Metaspace\" is \"%.40s\": U+2581 would be right", text_at(step, "replacement"));
    if (*scheme != 0 && !never && strcmp(scheme, "first") != 0 && strcmp(scheme, "always") != 0)
        return error_set(error, "prepend_scheme of a \"Metaspace\" is \"%.40s\": first, never or always would be right", scheme);
    if (pretokens_add(&words->pieces, (pretokens_step){ .kind = PRETOKENS_REPLACE, .pattern = expression_open_literal(" ", error), .text = space },
                      error) != 0)
        return -1;
    words->space_first = words->space_first || !never;
    if (!never &&
        pretokens_add(&words->pieces,
                      (pretokens_step){ .kind = PRETOKENS_PREPEND, .text = space, .unless_there = true, .only_first = strcmp(scheme, "first") == 0 },
                      error) != 0)
        return -1;
    if (json_is_false(json_object_get(step, "split")))
        return 0;
    return add_split(&words->pieces, expression_open_literal(space, error), PRETOKENS_MERGED_WITH_NEXT, error);
}

static int read_json_pieces(tokenizer *words, const json_t *root, error_text *error)
{
    const json_t *all = json_object_get(root, "pre_tokenizer"), *step;
    int result = 0;
    for (size_t i = 0; result == 0 && (step = step_of(all, "pretokenizers", i)) != NULL; i++) {
        if (words->byte_level) /* it would see bytes as characters */
            return error_set(error, "pre_tokenizer has a \"%.40s\" after ByteLevel, which would be right as the last", text_at(step, "type"));
        if (is_type(step, "Split")) {
            result = read_split(&words->pieces, step, error);
        } else if (is_type(step, "Digits")) {
            const bool alone = json_is_true(json_object_get(step, "individual_digits"));
            result = add_split(&words->pieces, expression_open("\\p{N}", error), alone ? PRETOKENS_ISOLATED : PRETOKENS_CONTIGUOUS, error);
        } else if (is_type(step, "ByteLevel")) {
            result = read_byte_level(words, step, error);
        } else if (is_type(step, "Metaspace")) {
            result = read_metaspace(words, step, error);
        } else {
            return error_set(error, "pre_tokenizer is \"%.40s\": ByteLevel, Metaspace, Digits or Split would be right", text_at(step, "type"));
        }
    }
    return result;
}

/* ---- tokens ---- */

static int read_token_number(const char *text, const json_t *value, uint32_t *number, error_text *error)
{
    const json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 || id >= TOKENIZER_TOKENS)
        return error_set(error, "token \"%.60s\" has number %" JSON_INTEGER_FORMAT ": 0 to %d would be right", text, id, TOKENIZER_TOKENS - 1);
    *number = (uint32_t)id;
    return 0;
}

/* How much there is of `root`: the largest number of a token and 1, and bytes of texts. */
static int measure_vocabulary(const json_t *vocabulary, const json_t *added, size_t *n_tokens, size_t *room, error_text *error)
{
    const char *text;
    json_t *value;
    size_t i;
    uint32_t number = 0;
    json_object_foreach((json_t *)(uintptr_t)vocabulary, text, value)
    {
        if (read_token_number(text, value, &number, error) != 0)
            return -1;
        *n_tokens = number >= *n_tokens ? number + (size_t)1 : *n_tokens;
        *room += strlen(text);
    }
    json_array_foreach(added, i, value)
    {
        if (read_token_number(text_at(value, "content"), json_object_get(value, "id"), &number, error) != 0)
            return -1;
        *n_tokens = number >= *n_tokens ? number + (size_t)1 : *n_tokens;
        *room += strlen(text_at(value, "content"));
    }
    return 0;
}

/* The texts of the vocabulary. Returns where the next goes. */
static uint8_t *read_texts(tokenizer *words, const json_t *model, uint8_t *next)
{
    const bool fallback = json_is_true(json_object_get(model, "byte_fallback"));
    const char *text;
    json_t *value;
    json_object_foreach(json_object_get(model, "vocab"), text, value)
    {
        const uint32_t number = (uint32_t)json_integer_value(value);
        const size_t length = strlen(text);
        unsigned byte;
        bool whole = true;
        uint32_t n = (uint32_t)length;
        if (words->byte_level)
            n = tokenizer_decode(text, length, next, &whole);
        else
            memcpy(next, text, length);
        words->tokens[number] = (token){ .bytes = next, .length = n, .is_found = whole };
        if (words->byte_level && whole && n == 1)
            words->byte_tokens[*next] = number;
        else if (!words->byte_level && fallback && tokenizer_byte_name(text, length, &byte))
            words->byte_tokens[byte] = number;
        next += n;
    }
    return next;
}

static int read_added(tokenizer *words, const json_t *value, uint8_t *next, error_text *error)
{
    const char *content = text_at(value, "content");
    const size_t length = strlen(content);
    const uint32_t number = (uint32_t)json_integer_value(json_object_get(value, "id"));
    if (!is_nothing(json_object_get(value, "single_word")))
        return error_set(error, "added token \"%.60s\" has single_word true: false would be right", content);
    if (length > 0)
        memcpy(next, content, length);
    if (words->tokens[number].bytes == NULL)
        words->tokens[number] = (token){ .bytes = next, .length = (uint32_t)length };
    added_token entry = { .text = next,
                          .length = (uint32_t)length,
                          .number = number,
                          .takes_left = json_is_true(json_object_get(value, "lstrip")),
                          .takes_right = json_is_true(json_object_get(value, "rstrip")) };
    const bool normalised = json_is_true(json_object_get(value, "normalized"));
    added_tokens *to = normalised ? &words->normalised_added : &words->added;
    if (length > 0)
        to->list[to->n++] = entry;
    return 0;
}

/* Those that are looked for in a normalised text are so themselves. */
static int normalise_added(tokenizer *words, error_text *error)
{
    pretokens_pieces all = { 0 }, pieces = { 0 };
    added_tokens *added = &words->normalised_added;
    int result = 0;
    for (size_t i = 0; result == 0 && words->normaliser.n_steps > 0 && i < added->n; i++) {
        added_token *each = &added->list[i];
        result = pretokens_cut(&words->normaliser, each->text, each->length, true, &pieces, error);
        each->length = (uint32_t)pieces.length;
        if (result == 0)
            result = pretokens_append(&all, pieces.text, pieces.length, error);
    }
    pretokens_pieces_close(&pieces);
    words->normalised_memory = all.text;
    for (size_t i = 0, at = 0, n = added->n; result == 0 && words->normaliser.n_steps > 0 && i < n; at += added->list[i++].length)
        added->list[i].text = all.text + at;
    return result;
}

static int read_vocabulary(tokenizer *words, const json_t *model, const json_t *added, error_text *error)
{
    const json_t *vocabulary = json_object_get(model, "vocab");
    json_t *value;
    size_t room = 0, n_tokens = 0, i;
    if (json_object_size(vocabulary) == 0)
        return error_set(error, "model.vocab is missing or empty: an object of texts and numbers would be right");
    if (measure_vocabulary(vocabulary, added, &n_tokens, &room, error) != 0 ||
        tokenizer_make_room(words, n_tokens, json_array_size(added), error) != 0)
        return -1;
    words->memory = malloc(room + 1);
    if (words->memory == NULL)
        return error_set(error, "cannot be read: out of memory");
    uint8_t *next = read_texts(words, model, words->memory);
    json_array_foreach(added, i, value)
    {
        if (read_added(words, value, next, error) != 0)
            return -1;
        next += strlen(text_at(value, "content"));
    }
    return normalise_added(words, error);
}

/* ---- merges ---- */

static uint32_t token_number(const json_t *vocabulary, const char *text, size_t length)
{
    const json_t *value = json_object_getn(vocabulary, text, length);
    return json_is_integer(value) ? (uint32_t)json_integer_value(value) : NO_TOKEN; /* all were checked */
}

/* "a b", or in newer files ["a", "b"]. */
static int read_json_merge(merge *to, const json_t *vocabulary, const json_t *value, size_t rank, error_text *error)
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
    *to = (merge){ .left = token_number(vocabulary, left, left_length),
                   .right = token_number(vocabulary, right, right_length),
                   .merged = token_number(vocabulary, both, left_length + right_length),
                   .rank = (uint32_t)rank };
    free(both);
    if (to->left == NO_TOKEN || to->right == NO_TOKEN || to->merged == NO_TOKEN)
        return error_set(error, "model.merges[%zu] is \"%.60s\" and \"%.60s\": texts of model.vocab would be right, and both together too", rank,
                         left, right);
    return 0;
}

static int read_json_merges(tokenizer *words, const json_t *model, error_text *error)
{
    const json_t *merges = json_object_get(model, "merges"), *vocabulary = json_object_get(model, "vocab");
    if (!json_is_array(merges) || json_array_size(merges) >= TOKENIZER_MERGES)
        return error_set(error, "model.merges is missing or too long: an array of less than %d pairs would be right", TOKENIZER_MERGES);
    words->merges = malloc((json_array_size(merges) + 1) * sizeof *words->merges);
    if (words->merges == NULL)
        return error_set(error, "cannot be read: out of memory");
    for (; words->n_merges < json_array_size(merges); words->n_merges++)
        if (read_json_merge(&words->merges[words->n_merges], vocabulary, json_array_get(merges, words->n_merges), words->n_merges, error) != 0)
            return -1;
    tokenizer_sort_merges(words, true);
    return 0;
}

/* ---- the file ---- */

static int check_json_model(const json_t *model, error_text *error)
{
    static const char *const refused[] = { "dropout", "continuing_subword_prefix", "end_of_word_suffix" };
    if (!is_type(model, "BPE"))
        return error_set(error, "model.type is \"%.40s\": \"BPE\" would be right", text_at(model, "type"));
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!is_nothing(json_object_get(model, refused[i])))
            return error_set(error, "model.%s is there: null would be right", refused[i]);
    return 0;
}

static int read_root(tokenizer *words, const json_t *root, error_text *error)
{
    const json_t *model = json_object_get(root, "model");
    if (check_json_model(model, error) != 0 || read_normaliser(words, root, error) != 0 || read_json_pieces(words, root, error) != 0 ||
        read_vocabulary(words, model, json_object_get(root, "added_tokens"), error) != 0 || tokenizer_check_size(words, error) != 0 ||
        read_json_merges(words, model, error) != 0)
        return -1;
    words->unknown = token_number(json_object_get(model, "vocab"), text_at(model, "unk_token"), strlen(text_at(model, "unk_token")));
    words->fuses_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    words->whole_first = json_is_true(json_object_get(model, "ignore_merges"));
    return tokenizer_sort(words, error);
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
