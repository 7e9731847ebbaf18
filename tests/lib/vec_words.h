/* SPDX-License-Identifier: MIT */
/* Every word of the lane vocabulary as a function on memory, one table per tier (vec_words.c is compiled once for each). */
#ifndef KVT_TESTS_VEC_WORDS_H
#define KVT_TESTS_VEC_WORDS_H

#include <stdint.h>

/* `in` and `out` are four lines. A word reads as many as it needs and writes the first `lines` of `out`. */
typedef struct vec_word {
    const char *name;
    int input; /* which inputs the contract allows: enum vec_input */
    void (*run)(const uint8_t in[256], uint8_t out[256]);
} vec_word;

enum vec_input {
    INPUT_BYTES,   /* any bytes */
    INPUT_QUIET,   /* any floats but signalling NaNs */
    INPUT_FLOATS,  /* finite floats of all sizes */
    INPUT_SMALL,   /* floats within +-2^31 */
    INPUT_ALIKE,   /* as SMALL, but many are zeros or alike up to the sign: also across lines, lane by lane */
    INPUT_NIBBLES, /* bytes below 16 */
    INPUT_TABLE,   /* line 0: a 16-byte table four times; line 1: bytes below 16 */
    INPUT_INDEX32, /* line 1: bytes below 32 */
    INPUT_INDEX64, /* line 1: bytes below 64 */
    INPUT_DOT,     /* line 0: bytes below 128 */
    INPUT_ABS,     /* bytes -127..127 */
    INPUT_HALVES,  /* halfwords of all sizes */
    INPUT_MULHRS,  /* the same, but line 1 has no -32768 */
    INPUT_DOT16,   /* the same, but line 1 has half of each, and the lanes of line 2 are within +-2^30 */
    INPUT_U8,      /* lanes 0..255 */
    INPUT_S8,      /* lanes -128..127 */
    INPUT_S16,     /* lanes -32768..32767, of all sizes */
    INPUT_U16,     /* lanes 0..65535 */
    INPUT_EXP      /* floats in -100..0 */
};

#endif
