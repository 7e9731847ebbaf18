/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include "tools/engine/pretokens.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- characters ---- */

size_t pretokens_character(const uint8_t *text, size_t length)
{
    size_t n = 1;
    while (n < 4 && n < length && (text[n] & 0xc0) == 0x80)
        n++;
    return n;
}

/* Of a place in a long text: utf8proc looks at no more than 4 bytes. */
static utf8proc_ssize_t code_point(const uint8_t *text, size_t length, utf8proc_int32_t *code)
{
    return utf8proc_iterate(text, length < 4 ? (utf8proc_ssize_t)length : 4, code);
}

size_t pretokens_valid(const uint8_t *text, size_t length)
{
    size_t at = 0;
    utf8proc_int32_t code;
    for (utf8proc_ssize_t n; at < length && (n = code_point(text + at, length - at, &code)) > 0;)
        at += (size_t)n;
    return at;
}

/* Unicode's property White_Space. */
static bool is_space(utf8proc_int32_t code)
{
    const utf8proc_category_t category = utf8proc_category(code);
    return (code >= 9 && code <= 13) || code == 0x85 || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

size_t pretokens_leading_space(const uint8_t *text, size_t length)
{
    size_t at = 0;
    utf8proc_int32_t code;
    for (utf8proc_ssize_t n; at < length && (n = code_point(text + at, length - at, &code)) > 0 && is_space(code);)
        at += (size_t)n;
    return at;
}

size_t pretokens_trailing_space(const uint8_t *text, size_t length)
{
    size_t first = length;
    while (first > 0) {
        size_t at = first - 1;
        utf8proc_int32_t code;
        while (at > 0 && first - at < 4 && (text[at] & 0xc0) == 0x80)
            at--;
        if (code_point(text + at, first - at, &code) != (utf8proc_ssize_t)(first - at) || !is_space(code))
            break;
        first = at;
    }
    return length - first;
}

/* ---- pieces ---- */

int pretokens_lack_memory(error_text *error)
{
    return error_set(error, "is too long for memory");
}

int pretokens_append(pretokens_pieces *to, const uint8_t *text, size_t n, error_text *error)
{
    if (n > to->room - to->length) {
        const size_t room = to->length + n <= SIZE_MAX / 2 ? 2 * (to->length + n) : 0;
        uint8_t *larger = room > 0 ? realloc(to->text, room) : NULL;
        if (larger == NULL)
            return pretokens_lack_memory(error);
        to->text = larger;
        to->room = room;
    }
    if (n > 0)
        memcpy(to->text + to->length, text, n);
    to->length += n;
    return 0;
}

/* Ends the piece that was appended, if it is any. */
static int end_piece(pretokens_pieces *to, error_text *error)
{
    if (to->length == (to->n > 0 ? to->ends[to->n - 1] : 0))
        return 0;
    if (to->n == to->n_room) {
        const size_t room = to->n_room < SIZE_MAX / 4 / sizeof *to->ends ? 2 * to->n_room + 64 : 0;
        size_t *larger = room > 0 ? realloc(to->ends, room * sizeof *to->ends) : NULL;
        if (larger == NULL)
            return pretokens_lack_memory(error);
        to->ends = larger;
        to->n_room = room;
    }
    to->ends[to->n++] = to->length;
    return 0;
}

static int append_piece(pretokens_pieces *to, const uint8_t *text, size_t n, error_text *error)
{
    return pretokens_append(to, text, n, error) == 0 ? end_piece(to, error) : -1;
}

void pretokens_pieces_close(pretokens_pieces *pieces)
{
    free(pieces->text);
    free(pieces->ends);
    *pieces = (pretokens_pieces){ 0 };
}

/* ---- normal forms ---- */

/* utf8proc sorts the marks of a character by exchanging neighbours: few are fast, and more are no language. */
enum { MOST_MARKS = 1000 };

static bool has_many_marks(const uint8_t *text, size_t length)
{
    size_t marks = 0;
    utf8proc_int32_t code;
    for (size_t at = 0; at < length && marks <= MOST_MARKS; at += (size_t)code_point(text + at, length - at, &code)) {
        code_point(text + at, length - at, &code);
        marks = utf8proc_get_property(code)->combining_class != 0 ? marks + 1 : 0;
    }
    return marks > MOST_MARKS;
}

static int normalise_text(pretokens_kind kind, const uint8_t *text, size_t length, pretokens_pieces *to, error_text *error)
{
    static const int forms[] = { [PRETOKENS_NFC] = UTF8PROC_COMPOSE,
                                 [PRETOKENS_NFD] = UTF8PROC_DECOMPOSE,
                                 [PRETOKENS_NFKC] = UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
                                 [PRETOKENS_NFKD] = UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT };
    if (has_many_marks(text, length))
        return error_set(error, "has a character with more than %d combining marks", MOST_MARKS);
    utf8proc_uint8_t *form = NULL;
    const utf8proc_ssize_t n = utf8proc_map(text, (utf8proc_ssize_t)length, &form, (utf8proc_option_t)(UTF8PROC_STABLE | forms[kind]));
    const int result = n >= 0 ? append_piece(to, form, (size_t)n, error) : pretokens_lack_memory(error);
    free(form);
    return result;
}

/* ---- splitting and replacing ---- */

/* The piece that is being made, text[first .. end), as long as it can grow. */
typedef struct splitter {
    const pretokens_step *step;
    const uint8_t *text;
    size_t first, end;
    bool is_match;
    pretokens_pieces *to;
} splitter;

static int flush(splitter *state, error_text *error)
{
    return append_piece(state->to, state->text + state->first, state->end - state->first, error);
}

/* The next stretch of the text. */
static int accept(splitter *state, size_t end, bool is_match, error_text *error)
{
    const pretokens_behaviour behaviour = state->step->behaviour;
    const size_t first = state->end;
    bool grows = false;
    if (first == end)
        return 0;
    if (behaviour == PRETOKENS_CONTIGUOUS)
        grows = is_match == state->is_match;
    else if (behaviour == PRETOKENS_MERGED_WITH_PREVIOUS)
        grows = is_match && !state->is_match;
    else if (behaviour == PRETOKENS_MERGED_WITH_NEXT)
        grows = !is_match && state->is_match;
    if (!grows) {
        if (flush(state, error) != 0)
            return -1;
        state->first = first;
    }
    state->end = end;
    state->is_match = is_match;
    if (behaviour == PRETOKENS_REMOVED && is_match)
        state->first = end;
    return 0;
}

static int split_text(const pretokens_step *step, const uint8_t *text, size_t length, pretokens_pieces *to, error_text *error)
{
    splitter state = { .step = step, .text = text, .to = to };
    size_t first = 0, end = 0;
    int found;
    while ((found = expression_find(step->pattern, text, length, end, &first, &end, error)) == 1)
        if (accept(&state, first, step->invert, error) != 0 || accept(&state, end, !step->invert, error) != 0)
            return -1;
    return found == 0 && accept(&state, length, step->invert, error) == 0 ? flush(&state, error) : -1;
}

static int replace(const pretokens_step *step, const uint8_t *text, size_t length, pretokens_pieces *to, error_text *error)
{
    size_t first = 0, end = 0, after = 0;
    int found;
    while ((found = expression_find(step->pattern, text, length, after, &first, &end, error)) == 1) {
        if (pretokens_append(to, text + after, first - after, error) != 0 ||
            pretokens_append(to, (const uint8_t *)step->text, strlen(step->text), error) != 0)
            return -1;
        after = end;
    }
    return found == 0 ? append_piece(to, text + after, length - after, error) : -1;
}

static int prepend(const pretokens_step *step, const uint8_t *text, size_t length, bool at_start, pretokens_pieces *to, error_text *error)
{
    const size_t n = strlen(step->text);
    const bool is_there = n <= length && memcmp(text, step->text, n) == 0;
    if (!(step->unless_there && is_there) && !(step->only_first && !at_start) && pretokens_append(to, (const uint8_t *)step->text, n, error) != 0)
        return -1;
    return append_piece(to, text, length, error);
}

/* ---- steps ---- */

int pretokens_add(pretokens *how, pretokens_step step, error_text *error)
{
    const bool has_pattern = step.kind == PRETOKENS_REPLACE || step.kind == PRETOKENS_SPLIT;
    if (has_pattern && step.pattern == NULL)
        return -1;
    char *text = strdup(step.text != NULL ? step.text : "");
    pretokens_step *longer = realloc(how->steps, (how->n_steps + 1) * sizeof *how->steps);
    how->steps = longer != NULL ? longer : how->steps;
    if (longer == NULL || text == NULL) {
        free(text);
        expression_close(step.pattern);
        return error_set(error, "cannot be read: out of memory");
    }
    step.text = text;
    how->steps[how->n_steps++] = step;
    return 0;
}

void pretokens_close(pretokens *how)
{
    for (size_t i = 0; i < how->n_steps; i++) {
        free((char *)(uintptr_t)how->steps[i].text);
        expression_close(how->steps[i].pattern);
    }
    free(how->steps);
    *how = (pretokens){ 0 };
}

static int take_step(const pretokens_step *step, const uint8_t *text, size_t length, bool at_start, pretokens_pieces *to, error_text *error)
{
    switch (step->kind) {
    case PRETOKENS_NFC:
    case PRETOKENS_NFD:
    case PRETOKENS_NFKC:
    case PRETOKENS_NFKD:
        return normalise_text(step->kind, text, length, to, error);
    case PRETOKENS_REPLACE:
        return replace(step, text, length, to, error);
    case PRETOKENS_PREPEND:
        return prepend(step, text, length, at_start, to, error);
    case PRETOKENS_SPLIT:
        return split_text(step, text, length, to, error);
    }
    return -1;
}

int pretokens_cut(const pretokens *how, const uint8_t *text, size_t length, bool at_start, pretokens_pieces *pieces, error_text *error)
{
    pretokens_pieces before = { 0 };
    pieces->length = pieces->n = 0;
    int result = append_piece(pieces, text, length, error);
    for (size_t i = 0; result == 0 && i < how->n_steps; i++) {
        const pretokens_pieces from = *pieces;
        *pieces = before;
        pieces->length = pieces->n = 0;
        before = from;
        for (size_t p = 0; result == 0 && p < from.n; p++) {
            const size_t first = p > 0 ? from.ends[p - 1] : 0;
            result = take_step(&how->steps[i], from.text + first, from.ends[p] - first, at_start && p == 0, pieces, error);
        }
    }
    pretokens_pieces_close(&before);
    return result;
}
