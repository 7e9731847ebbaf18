/* Formats of other engines and of papers, to compare with: what is left of rows that were stored in one, and its exact bits. Their kernels are not
 * the point; each keeps the numbers that its description says, by plain arithmetic or by the library's own row formats. */
#ifndef KVT_TOOLS_PEERS_H
#define KVT_TOOLS_PEERS_H

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

const peer_format *peer_at(size_t i); /* NULL past the last */
const peer_format *peer_find(const char *name);

/* Stored bits of an element, all told. */
double peer_bits(const peer_format *peer, kvt_side side, uint32_t dim);

/* What is left of rows, [tokens][dim] of one head; of the last ones, that fill no unit, everything. `rotation`: 0, or the block (64 or 128) of an
 * orthonormal Hadamard transform without sign changes before, and back after, as llama.cpp has it; narrower rows, and widths that are no multiple of
 * the block, have blocks of the largest power of two that divides the width. Not used where the format `rotates`. 0, or -1 with the error. */
int peer_store(const peer_format *peer, kvt_side side, uint32_t rotation, const float *rows, size_t tokens, uint32_t dim, float *back,
               error_text *error);

#endif
