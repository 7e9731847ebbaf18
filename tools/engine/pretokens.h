/* SPDX-License-Identifier: MIT */
/* What is done to a text before pairs are merged: it is rewritten and cut into pieces, no token reaches from one into the next. */
#ifndef KVT_ENGINE_PRETOKENS_H
#define KVT_ENGINE_PRETOKENS_H

#include "tools/engine/expression.h"
#include "tools/files/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pretokens_kind {
    PRETOKENS_NFC, /* Unicode's normal forms */
    PRETOKENS_NFD,
    PRETOKENS_NFKC,
    PRETOKENS_NFKD,
    PRETOKENS_REPLACE, /* each match becomes `text` */
    PRETOKENS_PREPEND, /* `text` comes before every piece */
    PRETOKENS_SPLIT    /* pieces end where matches begin and end */
} pretokens_kind;

typedef enum pretokens_behaviour {
    PRETOKENS_ISOLATED,   /* each match is a piece, and so is what lies between two */
    PRETOKENS_REMOVED,    /* matches are left out */
    PRETOKENS_CONTIGUOUS, /* matches in a row are one piece */
    PRETOKENS_MERGED_WITH_PREVIOUS,
    PRETOKENS_MERGED_WITH_NEXT
} pretokens_behaviour;

typedef struct pretokens_step {
    pretokens_kind kind;
    expression *pattern;
    const char *text;
    bool unless_there; /* prepend: unless a piece begins with it; */
    bool only_first;   /* only where a text begins */
    pretokens_behaviour behaviour;
    bool invert; /* split: what lies between matches counts as a match, and the other way round */
} pretokens_step;

/* Steps in order, each for every piece that the one before it made. Zeros are none. */
typedef struct pretokens {
    pretokens_step *steps;
    size_t n_steps;
} pretokens;

/* A text in pieces; none is empty. Zeros are none. */
typedef struct pretokens_pieces {
    uint8_t *text;
    size_t length, room;
    size_t *ends; /* of pieces, in `text`; each begins where the one before it ends */
    size_t n, n_room;
} pretokens_pieces;

/* Adds a step. `pattern`, of one that has any, is the step's afterwards, also on failure; NULL is refused without a word: the error is that of
 * opening it. `text` is copied. 0, or -1 with the error. */
int pretokens_add(pretokens *how, pretokens_step step, error_text *error);
void pretokens_close(pretokens *how);

/* Into `pieces`, which may hold others from before. `at_start`: the text is the first of what is encoded. 0, or -1 with the error. */
int pretokens_cut(const pretokens *how, const uint8_t *text, size_t length, bool at_start, pretokens_pieces *pieces, error_text *error);

/* Appends bytes to the text of `pieces`. 0, or -1 with the error. */
int pretokens_append(pretokens_pieces *pieces, const uint8_t *text, size_t n, error_text *error);
void pretokens_pieces_close(pretokens_pieces *pieces);

/* -1, with the error of a text that is too long for memory. */
int pretokens_lack_memory(error_text *error);

/* Bytes of the character that a text begins with; of bytes that make none, 1. */
size_t pretokens_character(const uint8_t *text, size_t length);

/* Bytes of the white space that a text begins or ends with. */
size_t pretokens_leading_space(const uint8_t *text, size_t length);
size_t pretokens_trailing_space(const uint8_t *text, size_t length);

/* Bytes before the first that belongs to no character; `length` if all do. */
size_t pretokens_valid(const uint8_t *text, size_t length);

#endif
