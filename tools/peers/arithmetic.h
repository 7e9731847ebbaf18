/* SPDX-License-Identifier: MIT */
/* Arithmetic that several formats have. */
#ifndef KVT_TOOLS_PEERS_ARITHMETIC_H
#define KVT_TOOLS_PEERS_ARITHMETIC_H

#include <stddef.h>
#include <stdint.h>

/* To the nearest number with so many bits of mantissa (the leading one not counted) whose exponents begin at `least`, ties to even; NaN stays. */
float peer_round(float x, int mantissa_bits, int least);

/* To the nearest binary16 number; beyond 65504 to that. */
float peer_round_f16(float x);

/* The largest power of two that divides dim and is not above `most`. */
uint32_t peer_block(uint32_t dim, uint32_t most);

/* Orthonormal Hadamard transforms of blocks, in place; its own inverse. */
void peer_hadamard(float *row, uint32_t dim, uint32_t block);

/* Asymmetric codes of `bits` bits for n numbers, `stride` apart: the nearest of zero + code * scale, zero the least and scale the range over the
 * largest code, both as f16. In place. What is not finite makes all of them NaN. */
void peer_asymmetric(float *x, size_t n, size_t stride, uint32_t bits);

/* The nearest of the 8 (3 bits) or 16 levels that are best for a normal number of variance 1. */
double peer_normal_level(uint32_t bits, double x);

#endif
