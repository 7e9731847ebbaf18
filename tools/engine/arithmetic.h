/* SPDX-License-Identifier: MIT */
/* The loops of a model. Each result is one chain of roundings, whatever it is computed beside and on which CPU: tokens and queries stand side by side
 * in the lanes, and all sums have the order of arithmetic_dot. */
#ifndef KVT_ENGINE_ARITHMETIC_H
#define KVT_ENGINE_ARITHMETIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARITHMETIC_LANES = 16 };

/* Eight sums side by side, which are then added pair by pair. */
float arithmetic_dot(const float *a, const float *b, size_t n);

bool arithmetic_are_finite(const float *x, size_t n);

/* out[i][r] = row r of the matrix times in[i], for i < n and first <= r < end. */
typedef struct arithmetic_product {
    float *out;
    size_t out_stride;   /* from out[i] to out[i + 1] */
    const float *matrix; /* [row][columns] */
    const float *in;     /* [n][columns] */
    size_t columns, n;
    float *scratch; /* arithmetic_product_scratch numbers that arithmetic_prepare has filled, at addresses of 64 bytes; NULL: row by row */
} arithmetic_product;
size_t arithmetic_product_scratch(size_t columns, size_t n);
void arithmetic_prepare(const arithmetic_product *product);
void arithmetic_multiply(const arithmetic_product *product, size_t first, size_t end);

/* Attention of queries, at most ARITHMETIC_LANES, over rows of one KV head, [token][head_dim]. */
typedef struct arithmetic_attention {
    size_t n, head_dim;
    float scale; /* of logits */
    const float *queries[ARITHMETIC_LANES];
    float *out[ARITHMETIC_LANES];
    size_t begin[ARITHMETIC_LANES], end[ARITHMETIC_LANES]; /* tokens that are seen: at least one */
    const float *kept[2], *open[2];                        /* keys and values: rows of tokens before `kept_end`, and from there on */
    size_t kept_end[2][ARITHMETIC_LANES];
    float *scratch; /* arithmetic_attention_scratch(the most that `end` is, head_dim) numbers, at addresses of 64 bytes */
} arithmetic_attention;
size_t arithmetic_attention_scratch(size_t tokens, size_t head_dim);
void arithmetic_attend(const arithmetic_attention *attention);

/* gate = activation(gate) * up */
void arithmetic_silu(float *gate, const float *up, size_t n);
void arithmetic_gelu(float *gate, const float *up, size_t n);

/* The sum of exp(x - largest). */
double arithmetic_exp_sum(const float *x, size_t n, float largest);

/* The divergence in nats of the distribution that logits `other` stand for from that of `logits`; largest and log_sum: of `logits`, the logarithm of
 * the sum of exponentials among them. */
double arithmetic_divergence(const float *logits, const float *other, size_t n, double log_sum, double other_log_sum);

#endif
