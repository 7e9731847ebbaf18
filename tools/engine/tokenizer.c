/* SPDX-License-Identifier: MIT */
#include "tools/engine/tokenizer.h"

#include "tools/files/number.h"

#include <inttypes.h>
#include <stdlib.h>

#define NOWHERE SIZE_MAX

int tokenizer_compare_bytes(const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length)
{
    const size_t shared = a_length < b_length ? a_length : b_length;
    const int order = shared > 0 ? memcmp(a, b, shared) : 0;
    return order != 0 ? order : (a_length > b_length) - (a_length < b_length);
}

uint32_t tokenizer_find(const tokenizer *words, const uint8_t *bytes, size_t length)
{
    uint32_t first = 0;
    uint32_t last = (uint32_t)words->n_sorted;
    while (first < last) {
        const uint32_t middle = first + (last - first) / 2;
        const token *candidate = &words->tokens[words->sorted[middle]];
        if (tokenizer_compare_bytes(candidate->bytes, candidate->length, bytes, length) < 0)
            first = middle + 1;
        else
            last = middle;
    }
    if (first == words->n_sorted)
        return NO_TOKEN;
    const uint32_t found = words->sorted[first];
    return tokenizer_compare_bytes(words->tokens[found].bytes, words->tokens[found].length, bytes, length) == 0 ? found : NO_TOKEN;
}

void tokenizer_close(tokenizer *words)
{
    file_map_close(&words->map);
    free(words->tokens);
    free(words->sorted);
    free(words->merges);
    free(words->added.list);
    free(words->normalised_added.list);
    pretokens_close(&words->normaliser);
    pretokens_close(&words->pieces);
    free(words->memory);
    free(words->normalised_memory);
    *words = (tokenizer){ 0 };
}

/* ---- encoding: a linked list of symbols, and a heap of the pairs that can be merged ---- */

/* A stretch of the piece that is encoded. */
typedef struct symbol {
    uint32_t token; /* NO_TOKEN: none yet, so its bytes, unless it is merged into one that there is */
    size_t first;
    size_t length; /* 0: merged into the one before it */
    size_t before, after;
} symbol;

typedef struct pair {
    float score;
    size_t left;
    size_t length; /* of both, as it was: a pair that has changed since is void */
    uint32_t merged;
} pair;

typedef struct encoder {
    const tokenizer *words;
    const uint8_t *text; /* the piece */
    symbol *symbols;
    size_t n_symbols, room;
    pair *heap; /* the best pair first; each merge takes one out and puts two in at most, so 3 per symbol are enough */
    size_t n_pairs;
    uint32_t *out;
    size_t n_out, out_room;
    pretokens_pieces normalised, pieces; /* of the stretch between two added tokens */
    bool at_start;                       /* nothing of the text was encoded yet */
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
        const merge *candidate = &words->merges[middle];
        if (candidate->left < left || (candidate->left == left && candidate->right < right))
            first = middle + 1;
        else
            last = middle;
    }
    const merge *found = &words->merges[first];
    return first < words->n_merges && found->left == left && found->right == right ? found : NULL;
}

/* The token that `left` and the symbol after it would make, if there is one. */
static void offer_pair(encoder *state, size_t left)
{
    if (left == NOWHERE || state->symbols[left].after == NOWHERE)
        return;
    const tokenizer *words = state->words;
    const symbol *a = &state->symbols[left], *b = &state->symbols[a->after];
    pair offered = { .left = left, .length = a->length + b->length, .merged = NO_TOKEN };
    if (words->merges == NULL && offered.length <= words->longest) {
        offered.merged = tokenizer_find(words, state->text + a->first, offered.length);
        offered.score = offered.merged != NO_TOKEN ? words->tokens[offered.merged].score : 0;
    } else if (words->merges != NULL) {
        const merge *listed = find_merge(words, a->token, b->token);
        offered.merged = listed != NULL ? listed->merged : NO_TOKEN;
        offered.score = listed != NULL ? -(float)listed->rank : 0; /* exact: there are less than 2^24 */
    }
    if (offered.merged != NO_TOKEN)
        push_pair(state, offered);
}

static void add_symbol(encoder *state, uint32_t number, size_t first, size_t length)
{
    const size_t at = state->n_symbols++;
    state->symbols[at] = (symbol){ .token = number, .first = first, .length = length, .before = at == 0 ? NOWHERE : at - 1, .after = NOWHERE };
    if (at > 0)
        state->symbols[at - 1].after = at;
}

/* Where there is no token for unknown characters either, they are left out, as `tokenizers` does it. */
static void add_unknown(encoder *state, size_t first, size_t length)
{
    const tokenizer *words = state->words;
    symbol *last = state->n_symbols > 0 ? &state->symbols[state->n_symbols - 1] : NULL;
    if (words->fuses_unknown && last != NULL && last->token == words->unknown)
        last->length += length;
    else if (words->unknown != NO_TOKEN)
        add_symbol(state, words->unknown, first, length);
}

static bool has_bytes(const encoder *state, size_t first, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (state->words->byte_tokens[state->text[first + i]] == NO_TOKEN)
            return false;
    return true;
}

/* A character: its token, or those of its bytes, or that of unknown ones. Where texts are merged, it may become a part of one before it needs a
 * token. */
static void add_character(encoder *state, size_t first, size_t length)
{
    const tokenizer *words = state->words;
    const uint32_t whole = words->byte_level ? NO_TOKEN : tokenizer_find(words, state->text + first, length);
    if (whole != NO_TOKEN || words->merges == NULL)
        add_symbol(state, whole, first, length);
    else if (!has_bytes(state, first, length))
        add_unknown(state, first, length);
    else
        for (size_t i = 0; i < length; i++)
            add_symbol(state, words->byte_tokens[state->text[first + i]], first + i, 1);
}

static void merge_pairs(encoder *state)
{
    state->n_pairs = 0;
    for (size_t i = 0; i + 1 < state->n_symbols; i++)
        offer_pair(state, i);
    while (state->n_pairs > 0) {
        const pair best = pop_pair(state);
        symbol *left = &state->symbols[best.left];
        if (left->length == 0 || left->after == NOWHERE || left->length + state->symbols[left->after].length != best.length)
            continue;
        symbol *right = &state->symbols[left->after];
        left->token = best.merged;
        left->length = best.length;
        left->after = right->after;
        right->length = 0;
        if (left->after != NOWHERE)
            state->symbols[left->after].before = best.left;
        offer_pair(state, left->before);
        offer_pair(state, best.left);
    }
}

static int put_token(encoder *state, uint32_t number, error_text *error)
{
    const tokenizer *words = state->words;
    if (number >= words->size)
        return error_set(error, "uses token %" PRIu32 ": the model's vocabulary is %" PRIu32, number, words->size);
    if (state->n_out == state->out_room) {
        const size_t room = state->out_room < SIZE_MAX / 4 / sizeof *state->out ? 2 * state->out_room + 64 : 0;
        uint32_t *larger = room > 0 ? realloc(state->out, room * sizeof *state->out) : NULL;
        if (larger == NULL)
            return pretokens_lack_memory(error);
        state->out = larger;
        state->out_room = room;
    }
    state->out[state->n_out++] = number;
    return 0;
}

/* The token of a symbol that is not merged any more. */
static int put_symbol(encoder *state, const symbol *from, error_text *error)
{
    const tokenizer *words = state->words;
    if (from->token != NO_TOKEN)
        return put_token(state, from->token, error);
    if (!has_bytes(state, from->first, from->length)) {
        if (words->unknown == NO_TOKEN)
            return error_set(error, "has characters that the tokenizer has neither a token nor bytes for");
        return put_token(state, words->unknown, error);
    }
    for (size_t i = 0; i < from->length; i++)
        if (put_token(state, words->byte_tokens[state->text[from->first + i]], error) != 0)
            return -1;
    return 0;
}

static int make_symbol_room(encoder *state, size_t length, error_text *error)
{
    if (length <= state->room)
        return 0;
    free(state->symbols);
    free(state->heap);
    state->symbols = length < SIZE_MAX / 3 / sizeof *state->heap ? malloc(length * sizeof *state->symbols) : NULL;
    state->heap = state->symbols != NULL ? malloc(3 * length * sizeof *state->heap) : NULL;
    state->room = state->heap != NULL ? length : 0;
    return state->heap != NULL ? 0 : pretokens_lack_memory(error);
}

static int encode_piece(encoder *state, const uint8_t *text, size_t length, error_text *error)
{
    const tokenizer *words = state->words;
    const uint32_t whole = words->whole_first ? tokenizer_find(words, text, length) : NO_TOKEN;
    if (whole != NO_TOKEN)
        return put_token(state, whole, error);
    if (make_symbol_room(state, length, error) != 0)
        return -1;
    state->text = text;
    state->n_symbols = 0;
    for (size_t i = 0, n; i < length; i += n) {
        n = words->byte_level ? 1 : pretokens_character(text + i, length - i);
        add_character(state, i, n);
    }
    merge_pairs(state);
    for (size_t i = state->n_symbols > 0 ? 0 : NOWHERE; i != NOWHERE; i = state->symbols[i].after)
        if (put_symbol(state, &state->symbols[i], error) != 0)
            return -1;
    return 0;
}

/* Text without added tokens, normalised. */
static int encode_text(encoder *state, const uint8_t *text, size_t length, error_text *error)
{
    if (pretokens_cut(&state->words->pieces, text, length, state->at_start, &state->pieces, error) != 0)
        return -1;
    for (size_t i = 0, first = 0; i < state->pieces.n; first = state->pieces.ends[i++])
        if (encode_piece(state, state->pieces.text + first, state->pieces.ends[i] - first, error) != 0)
            return -1;
    return 0;
}

/* ---- added tokens ---- */

/* The first of list[first .. last), which share `at` bytes, whose next byte is not below `byte`. */
static size_t narrow(const added_tokens *added, size_t first, size_t last, size_t at, unsigned byte)
{
    while (first < last) {
        const size_t middle = first + (last - first) / 2;
        const added_token *candidate = &added->list[middle];
        if (candidate->length <= at || candidate->text[at] < byte)
            first = middle + 1;
        else
            last = middle;
    }
    return first;
}

/* The longest added token that a text begins with, or NULL. */
static const added_token *added_at(const added_tokens *added, const uint8_t *text, size_t length)
{
    const added_token *found = NULL;
    size_t first = 0, last = added->n;
    for (size_t at = 0; first < last; at++) {
        if (added->list[first].length == at) /* a shorter one is sorted first */
            found = &added->list[first];
        if (at == length)
            break;
        first = narrow(added, first, last, at, text[at]);
        last = narrow(added, first, last, at, text[at] + 1u);
    }
    return found;
}

typedef int encode_between(encoder *state, const uint8_t *text, size_t length, error_text *error);

/* Added tokens of a text, the longest of those that begin first; what lies between them as `between` says. */
static int encode_added(encoder *state, const added_tokens *added, const uint8_t *text, size_t length, encode_between *between, error_text *error)
{
    size_t done = 0;
    for (size_t i = 0; i < length && added->n > 0;) {
        const added_token *found = added_at(added, text + i, length - i);
        if (found == NULL) {
            i++;
            continue;
        }
        size_t first = i, end = i + found->length;
        if (found->takes_left)
            first -= pretokens_trailing_space(text, i);
        if (found->takes_right)
            end += pretokens_leading_space(text + end, length - end);
        first = first > done ? first : done;
        if (first > done && between(state, text + done, first - done, error) != 0)
            return -1;
        state->at_start = false;
        if (put_token(state, found->number, error) != 0)
            return -1;
        done = end;
        i += found->length;
    }
    if (done < length && between(state, text + done, length - done, error) != 0)
        return -1;
    state->at_start = false;
    return 0;
}

static int normalise_and_encode(encoder *state, const uint8_t *text, size_t length, error_text *error)
{
    if (pretokens_cut(&state->words->normaliser, text, length, state->at_start, &state->normalised, error) != 0)
        return -1;
    return encode_added(state, &state->words->normalised_added, state->normalised.text, state->normalised.length, encode_text, error);
}

int tokenizer_encode(const tokenizer *words, bool bos, const uint8_t *text, size_t length, uint32_t **out, size_t *n_out, error_text *error)
{
    encoder state = { .words = words, .at_start = true };
    *out = NULL;
    *n_out = 0;
    if (bos && words->bos == NO_TOKEN)
        return error_set(error, "cannot begin with BOS: the model has no such token");
    const size_t valid = words->takes_bytes ? length : pretokens_valid(text, length);
    if (valid < length)
        return error_set(error, "is not UTF-8 from byte %zu on: the tokenizer takes nothing else", valid);
    int result = bos ? put_token(&state, words->bos, error) : 0;
    if (result == 0 && length > 0) /* nothing may be a null pointer, to which not even 0 is added */
        result = encode_added(&state, &words->added, text, length, normalise_and_encode, error);
    if (result == 0) {
        *out = state.out;
        *n_out = state.n_out;
    } else {
        free(state.out);
    }
    free(state.symbols);
    free(state.heap);
    pretokens_pieces_close(&state.normalised);
    pretokens_pieces_close(&state.pieces);
    return result;
}

/* ---- decoding ---- */

/* What a text without byte-level characters says; sentencepiece writes a space as U+2581. */
static size_t next_byte(const token *text, size_t at, uint8_t *byte)
{
    static const char space[] = "\xe2\x96\x81";
    const bool is_space = text->length - at >= 3 && memcmp(text->bytes + at, space, 3) == 0;
    *byte = is_space ? ' ' : text->bytes[at];
    return is_space ? 3 : 1;
}

void tokenizer_write(const tokenizer *words, uint32_t before, uint32_t number, FILE *stream)
{
    if (number == words->bos || number == words->eos || number >= words->n_tokens)
        return;
    token text = words->tokens[number];
    uint8_t byte = 0;
    for (uint32_t i = 0; !words->byte_level && i < 256; i++) {
        if (words->byte_tokens[i] == number) { /* in the file as "<0x41>" */
            byte = (uint8_t)i;
            text = (token){ .bytes = &byte, .length = 1 };
        }
    }
    for (size_t i = 0, n; i < text.length; i += n) {
        uint8_t next = text.bytes[i];
        n = words->byte_level ? 1 : next_byte(&text, i, &next);
        if (i > 0 || !words->space_first || before != words->bos || next != ' ')
            putc(next, stream);
    }
}
