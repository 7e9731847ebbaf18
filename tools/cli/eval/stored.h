/* SPDX-License-Identifier: MIT */
/* What storing leaves of a model's rows, as an engine would have them: an open page that is filled token by token, pages that are stored when they
 * are full, in the order of a sequence, and a first page of its own. */
#ifndef KVT_EVAL_STORED_H
#define KVT_EVAL_STORED_H

#include "tools/cli/eval/eval.h"
#include "tools/engine/pass.h"

/* Keys or values of one KV head, of one layer at a time: a thread's, while it stores them. */
typedef struct eval_stored_head {
    unsigned char *memory; /* of pages, and of a page each of the first scheme and the open one, for rows that go through them by themselves: */
    kvt_pages pages, first, open;
    float *peer_rows; /* of a unit of a format of others */
    size_t lost_from; /* the first position since which a finite row has not stayed finite, or SIZE_MAX */
    bool failed;      /* and why: */
    error_text error;
} eval_stored_head;

typedef struct eval_stored {
    const checkpoint *model;
    const eval_pair *way;
    uint32_t first_layer, layers; /* that are stored; the others stay as they are, */
    bool sides[2];                /* and so may keys, or values */
    kvt_layout layout;            /* of the sides that are not in other engines' formats */
    bool has_first, has_open;
    kvt_layout first, open;
    eval_stored_head *heads; /* [kv head][side] */
} eval_stored;

/* How a model's rows are stored in a way. */
int eval_stored_layout(kvt_layout *layout, const eval_pair *way, const checkpoint *model, error_text *error);

/* Windows of at most `room` tokens; layers and sides have been set, and all else in `to` is zero. `first` and `open`: schemes of the first page and
 * the open one, or KVT_SCHEME_NONE: as the others, and no open page. Model and way must outlive it. 0, or -1 with the error; eval_stored_close is due
 * in any case. */
int eval_stored_open(eval_stored *to, const checkpoint *model, size_t room, const eval_pair *way, kvt_scheme first, kvt_scheme open,
                     error_text *error);
void eval_stored_close(eval_stored *to);

/* Before each window; and what a pass calls for it. */
void eval_stored_begin(eval_stored *to);
void eval_stored_store(eval_stored *to, const pass_rows *rows, size_t layer, size_t side, size_t head);

/* The first position since which some row of the window is lost, or SIZE_MAX. -1 with the error: something could not be stored. */
int eval_stored_end(const eval_stored *stored, size_t *lost_from, error_text *error);

/* Bits of an element, of all pages of a sequence of `tokens` tokens, whose last page still counts as open. */
double eval_stored_bits(const eval_stored *stored, size_t tokens);

#endif
