/* SPDX-License-Identifier: MIT */
/* Other engines' and papers' formats, to compare with: what is left of rows that were stored in one, and its exact bits. Their kernels are not
 * the point; each keeps the numbers that its description says, by plain arithmetic or by the library's own row formats. */
#ifndef KVT_TOOLS_PEERS_H
#define KVT_TOOLS_PEERS_H

#include "tools/peers/format.h"

const peer_format *peer_at(size_t i); /* NULL past the last */
const peer_format *peer_find(const char *name);

/* Stored bits of an element: codes, and what goes with them. */
double peer_bits(const peer_format *peer, kvt_side side, uint32_t dim);

/* What is left of rows, [tokens][dim] of one head; of the last ones, that fill no unit, everything. `rotation`: 0, or the block (64 or 128) of an
 * orthonormal Hadamard transform without sign changes before, and back after, as llama.cpp has it; narrower rows, and widths that are no multiple of
 * the block, have blocks of the largest power of two that divides the width. Not used where the format `rotates`. 0, or -1 with the error. */
int peer_store(const peer_format *peer, kvt_side side, uint32_t rotation, const float *rows, size_t tokens, uint32_t dim, float *back,
               error_text *error);

#endif
