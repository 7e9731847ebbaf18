/* SPDX-License-Identifier: MIT */
/* What a format to compare with is made of, and the functions of those that the library has not. */
#ifndef KVT_TOOLS_PEERS_FORMAT_H
#define KVT_TOOLS_PEERS_FORMAT_H

#include "tools/files/error.h"

#include <kvtile/convert.h>

#include <stdbool.h>

typedef struct peer_format peer_format;

/* Rows and back, [tokens][dim] of one head; whole units. 0, or -1 with the error. */
typedef int peer_store_fn(const peer_format *peer, kvt_side side, const float *rows, size_t tokens, uint32_t dim, float *back, error_text *error);

enum { PEER_MOST_UNIT = 128 };

struct peer_format {
    const char *name, *title;
    uint32_t unit;         /* tokens that are stored at once: 1 for formats of rows, at most PEER_MOST_UNIT */
    bool rotates;          /* has a rotation of its own, beside which no other makes sense */
    kvt_row_format format; /* of the library, or 0 */
    uint32_t code_bits;    /* of other formats */
    double row_bits[2];    /* beside codes, of keys and of values: that a row has once */
    double number_bits[2]; /* and of each number, what it shares with those of other tokens, or of a few channels */
    peer_store_fn *store;
};

peer_store_fn peer_store_turboquant, peer_store_kivi, peer_store_kvarn;

#endif
