#define _GNU_SOURCE
#include "tools/engine/tokenizer.h"

#include "tools/io/number.h"

#include <inttypes.h>
#include <stdlib.h>

#define NO_TOKEN UINT32_MAX
#define NOWHERE  SIZE_MAX

/* ---- the vocabulary ---- */

static int compare_bytes(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
    const size_t shared = a_length < b_length ? a_length : b_length;
    const int order = shared > 0 ? memcmp(a, b, shared) : 0;
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

static int compare_tokens(const void *a, const void *b, void *tokens)
{
    const uint32_t i = *(const uint32_t *)a;
    const uint32_t j = *(const uint32_t *)b;
    const token *list = tokens;
    const int order = compare_bytes(list[i].bytes, list[i].length, list[j].bytes, list[j].length);
    return order != 0 ? order : (i > j) - (i < j);
}

/* The lowest token of these bytes. */
static uint32_t find(const tokenizer *words, const uint8_t *bytes, size_t length)
{
    uint32_t first = 0;
    uint32_t last = words->size;
    while (first < last) {
        const uint32_t middle = first + (last - first) / 2;
        const token *candidate = &words->tokens[words->sorted[middle]];
        if (compare_bytes(candidate->bytes, candidate->length, bytes, length) < 0)
            first = middle + 1;
        else
            last = middle;
    }
    if (first == words->size)
        return NO_TOKEN;
    const uint32_t found = words->sorted[first];
    return compare_bytes(words->tokens[found].bytes, words->tokens[found].length, bytes, length) == 0 ? found : NO_TOKEN;
}

static int parse(tokenizer *words, error_text *error)
{
    const file_map *map = &words->map;
    if (words->size < TOKEN_FIRST_BYTE + 256)
        return error_set(error, "vocabulary is %" PRIu32 " tokens: at least %d (3 and one for each byte) would be right", words->size,
                         TOKEN_FIRST_BYTE + 256);
    if (map->size < 4 || (map->size - 4) / 8 < words->size)
        return error_set(error, "file is %zu bytes: %" PRIu32 " tokens, as the model has, take more", map->size, words->size);
    words->tokens = malloc(words->size * sizeof *words->tokens);
    words->sorted = malloc(words->size * sizeof *words->sorted);
    if (words->tokens == NULL || words->sorted == NULL)
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
        words->sorted[i] = i;
        at += (size_t)length;
    }
    if (at != map->size)
        return error_set(error, "file goes on for %zu bytes after token %" PRIu32 ", the model's last", map->size - at, words->size - 1);
    qsort_r(words->sorted, words->size, sizeof *words->sorted, compare_tokens, words->tokens);
    return 0;
}

int tokenizer_open(tokenizer *words, const char *path, uint32_t size, error_text *error)
{
    *words = (tokenizer){ .size = size };
    if (file_map_open(&words->map, path, error) != 0)
        return -1;
    if (parse(words, error) != 0) {
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

/* The token that `left` and the piece after it would make, if there is one. */
static void offer_pair(encoder *state, size_t left)
{
    if (left == NOWHERE || state->pieces[left].after == NOWHERE)
        return;
    const uint32_t a = state->pieces[left].token;
    const uint32_t b = state->pieces[state->pieces[left].after].token;
    const token *first = &state->words->tokens[a];
    const token *second = &state->words->tokens[b];
    uint8_t bytes[256]; /* longer tokens are never made */
    const size_t length = (size_t)first->length + second->length;
    if (length > sizeof bytes)
        return;
    memcpy(bytes, first->bytes, first->length);
    memcpy(bytes + first->length, second->bytes, second->length);
    const uint32_t merged = find(state->words, bytes, length);
    if (merged != NO_TOKEN)
        push_pair(state, (pair){ .score = state->words->tokens[merged].score, .left = left, .left_token = a, .right_token = b, .merged = merged });
}

static void add_piece(encoder *state, uint32_t number)
{
    const size_t at = state->n_pieces++;
    state->pieces[at] = (piece){ .token = number, .before = at == 0 ? NOWHERE : at - 1, .after = NOWHERE };
    if (at > 0)
        state->pieces[at - 1].after = at;
}

/* Starts with one piece per character; characters without a token become one piece per byte. */
static void split(encoder *state, const uint8_t *text, size_t length)
{
    const uint32_t space = find(state->words, (const uint8_t *)" ", 1);
    if (length > 0)
        add_piece(state, space != NO_TOKEN ? space : TOKEN_FIRST_BYTE + ' ');
    for (size_t i = 0; i < length;) {
        size_t n = 1;
        while (n < 4 && i + n < length && (text[i + n] & 0xc0) == 0x80)
            n++;
        const uint32_t whole = find(state->words, text + i, n);
        if (whole != NO_TOKEN)
            add_piece(state, whole);
        for (size_t j = 0; whole == NO_TOKEN && j < n; j++)
            add_piece(state, TOKEN_FIRST_BYTE + (uint32_t)text[i + j]);
        i += n;
    }
}

static void merge(encoder *state)
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

int tokenizer_encode(const tokenizer *words, bool bos, const uint8_t *text, size_t length, uint32_t **out, size_t *n_out, error_text *error)
{
    encoder state = { .words = words };
    if (length > SIZE_MAX / (4 * sizeof *state.heap) - 1)
        return error_set(error, "is %zu bytes: too long to encode", length);
    state.pieces = malloc((length + 1) * sizeof *state.pieces);
    state.heap = malloc(3 * (length + 1) * sizeof *state.heap);
    *out = malloc((length + 2) * sizeof **out);
    *n_out = 0;
    if (state.pieces != NULL && state.heap != NULL && *out != NULL) {
        split(&state, text, length);
        merge(&state);
        if (bos)
            (*out)[(*n_out)++] = TOKEN_BOS;
        for (size_t i = 0; state.n_pieces > 0 && i != NOWHERE; i = state.pieces[i].after)
            (*out)[(*n_out)++] = state.pieces[i].token;
    } else {
        free(*out);
        *out = NULL;
        error_set(error, "is %zu bytes: too long for memory", length);
    }
    free(state.pieces);
    free(state.heap);
    return *out != NULL ? 0 : -1;
}

/* ---- decoding ---- */

void tokenizer_write(const tokenizer *words, uint32_t before, uint32_t number, FILE *stream)
{
    if (number == TOKEN_BOS || number == TOKEN_EOS)
        return;
    token text = words->tokens[number];
    uint8_t byte;
    if (number >= TOKEN_FIRST_BYTE && number < TOKEN_FIRST_BYTE + 256) { /* in the file as "<0x41>" */
        byte = (uint8_t)(number - TOKEN_FIRST_BYTE);
        text = (token){ .bytes = &byte, .length = 1 };
    }
    const bool has_space = before == TOKEN_BOS && text.length > 0 && text.bytes[0] == ' ';
    fwrite(text.bytes + has_space, 1, text.length - has_space, stream);
}
