#include "tools/engine/tokenizer_read.h"

#include "tools/io/gguf.h"
#include "tools/io/number.h"

#include <inttypes.h>
#include <stdlib.h>

#define NOWHERE SIZE_MAX

/* ---- the vocabulary ---- */

static int parse(tokenizer *words, error_text *error)
{
    const file_map *map = &words->map;
    if (words->size < TOKEN_FIRST_BYTE + 256)
        return error_set(error, "vocabulary is %" PRIu32 " tokens: at least %d (3 and one for each byte) would be right", words->size,
                         TOKEN_FIRST_BYTE + 256);
    if (map->size < 4 || (map->size - 4) / 8 < words->size)
        return error_set(error, "file is %zu bytes: %" PRIu32 " tokens, as the model has, take more", map->size, words->size);
    words->tokens = malloc(words->size * sizeof *words->tokens);
    if (words->tokens == NULL)
        return error_set(error, "cannot be read: out of memory");
    size_t at = 4;
    for (uint32_t i = 0; i < words->size; i++) {
        if (map->size - at < 8)
            return error_set(error, "file ends at token %" PRIu32 ": %" PRIu32 ", as the model has, would be right", i, words->size);
        const float score = load_f32(map->data + at);
        const int32_t length = load_i32(map->data + at + 4);
        at += 8;
        if (length < 0 || (size_t)length > map->size - at)
            return error_set(error, "length of token %" PRIu32 " is %" PRId32 ": 0 to %zu would be right", i, length, map->size - at);
        if (score != score)
            return error_set(error, "score of token %" PRIu32 " is not a number", i);
        words->tokens[i] = (token){ .bytes = map->data + at, .length = (uint32_t)length, .score = score };
        at += (size_t)length;
    }
    if (at != map->size)
        return error_set(error, "file goes on for %zu bytes after token %" PRIu32 ", the model's last", map->size - at, words->size - 1);
    words->bos = TOKEN_BOS;
    words->eos = TOKEN_EOS;
    words->space_first = true;
    for (uint32_t i = 0; i < 256; i++)
        words->byte_tokens[i] = TOKEN_FIRST_BYTE + i;
    return tokenizer_sort(words) == 0 ? 0 : error_set(error, "cannot be read: out of memory");
}

/* llama2.c's begins with a number below 2^24. */
static bool is_json(const file_map *map)
{
    return map->size > 1 && map->data[0] == '{' && map->data[1] != 0;
}

int tokenizer_open(tokenizer *words, const char *path, uint32_t size, error_text *error)
{
    *words = (tokenizer){ .size = size, .bos = NO_TOKEN, .eos = NO_TOKEN, .unknown = NO_TOKEN };
    if (file_map_open(&words->map, path, error) != 0)
        return -1;
    const bool is_gguf = gguf_is(words->map.data, words->map.size);
    if ((is_gguf ? tokenizer_read_gguf : is_json(&words->map) ? tokenizer_read_json : parse)(words, error) != 0) {
        tokenizer_close(words);
        return -1;
    }
    return 0;
}

void tokenizer_close(tokenizer *words)
{
    file_map_close(&words->map);
    free(words->tokens);
    free(words->sorted);
    free(words->merges);
    free(words->added);
    free(words->memory);
    *words = (tokenizer){ 0 };
}

/* ---- encoding: a linked list of pieces, and a heap of the pairs that can be merged ---- */

typedef struct piece {
    uint32_t token; /* NO_TOKEN: merged into the piece before it */
    size_t before, after;
} piece;

typedef struct pair {
    float score;
    size_t left;
    uint32_t left_token, right_token; /* as they were: a pair that has changed since is void */
    uint32_t merged;
} pair;

typedef struct encoder {
    const tokenizer *words;
    piece *pieces;
    size_t n_pieces;
    pair *heap; /* the best pair first; each merge takes one out and puts two in at most, so 3 per piece are enough */
    size_t n_pairs;
    uint32_t *out;
    size_t n_out;
    bool lacks_token; /* some character has none, nor its bytes */
} encoder;

static bool better(const pair *a, const pair *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void push_pair(encoder *state, pair added)
{
    size_t at = state->n_pairs++;
    for (; at > 0 && better(&added, &state->heap[(at - 1) / 2]); at = (at - 1) / 2)
        state->heap[at] = state->heap[(at - 1) / 2];
    state->heap[at] = added;
}

static pair pop_pair(encoder *state)
{
    const pair best = state->heap[0];
    const pair last = state->heap[--state->n_pairs];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < state->n_pairs && better(&state->heap[child + 1], &state->heap[child]))
            child++;
        if (child >= state->n_pairs || !better(&state->heap[child], &last))
            break;
        state->heap[at] = state->heap[child];
        at = child;
    }
    state->heap[at] = last;
    return best;
}

/* The merge of two tokens in the list. */
static const merge *find_merge(const tokenizer *words, uint32_t left, uint32_t right)
{
    size_t first = 0, last = words->n_merges;
    while (first < last) {
        const size_t middle = first + (last - first) / 2;
        const merge *one = &words->merges[middle];
        if (one->left < left || (one->left == left && one->right < right))
            first = middle + 1;
        else
            last = middle;
    }
    const merge *found = &words->merges[first];
    return first < words->n_merges && found->left == left && found->right == right ? found : NULL;
}

/* The token whose bytes are those of both, and its score. */
static uint32_t join(const tokenizer *words, uint32_t left, uint32_t right, float *score)
{
    const token *first = &words->tokens[left], *second = &words->tokens[right];
    uint8_t bytes[256]; /* longer tokens are never made */
    const size_t length = (size_t)first->length + second->length;
    if (length > sizeof bytes)
        return NO_TOKEN;
    memcpy(bytes, first->bytes, first->length);
    memcpy(bytes + first->length, second->bytes, second->length);
    const uint32_t merged = tokenizer_find(words, bytes, length);
    *score = merged != NO_TOKEN ? words->tokens[merged].score : 0;
    return merged;
}

/* The token that `left` and the piece after it would make, if there is one. */
static void offer_pair(encoder *state, size_t left)
{
    if (left == NOWHERE || state->pieces[left].after == NOWHERE)
        return;
    const tokenizer *words = state->words;
    const uint32_t a = state->pieces[left].token;
    const uint32_t b = state->pieces[state->pieces[left].after].token;
    float score = 0;
    uint32_t merged = NO_TOKEN;
    if (words->merges == NULL) {
        merged = join(words, a, b, &score);
    } else {
        const merge *listed = find_merge(words, a, b);
        merged = listed != NULL ? listed->merged : NO_TOKEN;
        score = listed != NULL ? -(float)listed->rank : 0; /* exact: there are less than 2^24 */
    }
    if (merged != NO_TOKEN)
        push_pair(state, (pair){ .score = score, .left = left, .left_token = a, .right_token = b, .merged = merged });
}

static void add_piece(encoder *state, uint32_t number)
{
    const size_t at = state->n_pieces++;
    state->pieces[at] = (piece){ .token = number, .before = at == 0 ? NOWHERE : at - 1, .after = NOWHERE };
    if (at > 0)
        state->pieces[at - 1].after = at;
}

/* A character: its token, or those of its bytes, or that of unknown ones. */
static void add_character(encoder *state, const uint8_t *bytes, size_t n)
{
    const tokenizer *words = state->words;
    const uint32_t whole = words->byte_level ? NO_TOKEN : tokenizer_find(words, bytes, n);
    bool has_bytes = true;
    for (size_t i = 0; i < n; i++)
        has_bytes = has_bytes && words->byte_tokens[bytes[i]] != NO_TOKEN;
    if (whole != NO_TOKEN) {
        add_piece(state, whole);
    } else if (has_bytes) {
        for (size_t i = 0; i < n; i++)
            add_piece(state, words->byte_tokens[bytes[i]]);
    } else if (words->unknown == NO_TOKEN) {
        state->lacks_token = true;
    } else if (!words->fuses_unknown || state->n_pieces == 0 || state->pieces[state->n_pieces - 1].token != words->unknown) {
        add_piece(state, words->unknown);
    }
}

static void merge_pairs(encoder *state)
{
    for (size_t i = 0; i + 1 < state->n_pieces; i++)
        offer_pair(state, i);
    while (state->n_pairs > 0) {
        const pair best = pop_pair(state);
        piece *left = &state->pieces[best.left];
        if (left->token != best.left_token || left->after == NOWHERE || state->pieces[left->after].token != best.right_token)
            continue;
        piece *right = &state->pieces[left->after];
        left->token = best.merged;
        left->after = right->after;
        right->token = NO_TOKEN;
        if (left->after != NOWHERE)
            state->pieces[left->after].before = best.left;
        offer_pair(state, left->before);
        offer_pair(state, best.left);
    }
}

/* The tokens of a piece of the text, after a space if wanted. */
static void encode_piece(encoder *state, bool space, const uint8_t *text, size_t length)
{
    const tokenizer *words = state->words;
    const uint32_t whole = words->whole_first && !space ? tokenizer_find(words, text, length) : NO_TOKEN;
    state->n_pieces = 0;
    if (whole != NO_TOKEN)
        add_piece(state, whole);
    else if (space)
        add_character(state, (const uint8_t *)" ", 1);
    for (size_t i = 0, n; whole == NO_TOKEN && i < length; i += n) {
        n = pretokens_character(text + i, length - i);
        add_character(state, text + i, n);
    }
    merge_pairs(state);
    for (size_t i = 0; state->n_pieces > 0 && i != NOWHERE; i = state->pieces[i].after)
        state->out[state->n_out++] = state->pieces[i].token;
}

static void encode_text(encoder *state, const uint8_t *text, size_t length)
{
    const tokenizer *words = state->words;
    bool space = length > 0 && words->space_first && !(words->unless_there && text[0] == ' ');
    for (size_t i = 0, n; i < length; i += n, space = false) {
        n = pretokens_next(&words->pieces, text + i, length - i);
        encode_piece(state, space, text + i, n);
    }
}

/* The added token that a text begins with. */
static uint32_t added_at(const tokenizer *words, const uint8_t *text, size_t length)
{
    for (size_t i = 0; i < words->n_added; i++) {
        const token *one = &words->tokens[words->added[i]];
        if (one->length <= length && memcmp(one->bytes, text, one->length) == 0)
            return words->added[i];
    }
    return NO_TOKEN;
}

static void encode_all(encoder *state, const uint8_t *text, size_t length)
{
    size_t first = 0;
    for (size_t i = 0; i < length;) {
        const uint32_t added = added_at(state->words, text + i, length - i);
        if (added == NO_TOKEN) {
            i++;
            continue;
        }
        encode_text(state, text + first, i - first);
        state->out[state->n_out++] = added;
        first = i += state->words->tokens[added].length;
    }
    encode_text(state, text + first, length - first);
}

int tokenizer_encode(const tokenizer *words, bool bos, const uint8_t *text, size_t length, uint32_t **out, size_t *n_out, error_text *error)
{
    encoder state = { .words = words };
    *out = NULL;
    *n_out = 0;
    if (bos && words->bos == NO_TOKEN)
        return error_set(error, "cannot begin with BOS: the model has no such token");
    if (length > SIZE_MAX / (4 * sizeof *state.heap) - 1)
        return error_set(error, "is %zu bytes: too long to encode", length);
    state.pieces = malloc((length + 1) * sizeof *state.pieces);
    state.heap = malloc(3 * (length + 1) * sizeof *state.heap);
    state.out = malloc((2 * length + 2) * sizeof *state.out); /* BOS, and a space before the text and behind each added token */
    int result = 0;
    if (state.pieces == NULL || state.heap == NULL || state.out == NULL)
        result = error_set(error, "is %zu bytes: too long for memory", length);
    if (result == 0 && bos)
        state.out[state.n_out++] = words->bos;
    if (result == 0 && length > 0) /* nothing may be a null pointer, to which not even 0 is added */
        encode_all(&state, text, length);
    if (state.lacks_token)
        result = error_set(error, "has characters that the tokenizer has neither a token nor bytes for");
    if (result == 0) {
        *out = state.out;
        *n_out = state.n_out;
    } else {
        free(state.out);
    }
    free(state.pieces);
    free(state.heap);
    return result;
}

/* ---- decoding ---- */

void tokenizer_write(const tokenizer *words, uint32_t before, uint32_t number, FILE *stream)
{
    if (number == words->bos || number == words->eos)
        return;
    token text = words->tokens[number];
    uint8_t byte = 0;
    for (uint32_t i = 0; !words->byte_level && i < 256; i++) {
        if (words->byte_tokens[i] == number) { /* in the file as "<0x41>" */
            byte = (uint8_t)i;
            text = (token){ .bytes = &byte, .length = 1 };
        }
    }
    const bool has_space = words->space_first && before == words->bos && text.length > 0 && text.bytes[0] == ' ';
    fwrite(text.bytes + has_space, 1, text.length - has_space, stream);
}
