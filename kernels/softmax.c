/* SPDX-License-Identifier: MIT */
/* Attention between logits and sums: what does not depend on schemes. docs/formats.md, section 9. */
#include "arch/exp.h"
#include "kernels/lanes.h"

/* Logits that are so far below the largest count for nothing: e^-26 of 2^15.5 is nothing to weights of 16 bits, nor to floats; and no product with
 * what is left is subnormal. */
#define FARTHEST -26.0f

/* e^x for x <= MUCH, and 0 from FARTHEST on. */
KVT_LANES f32x16 weight_of(f32x16 x)
{
    const f32x16 farthest = f32x16_set1(FARTHEST);
    const i32x16 e = i32x16_from_f32_bits(f32x16_exp_near(f32x16_max_num(x, farthest)));
    return f32x16_from_bits(i32x16_select(f32x16_gt(x, farthest), e, i32x16_set1(0)));
}
static float weight_of_one(float x)
{
    if (x == 0)
        return 1;
    float v[16];
    f32x16_store(v, weight_of(f32x16_set1(x)));
    return v[0];
}

static void scale_queries(float *x, uint32_t n, uint32_t dim, float scale)
{
    for (size_t i = 0; i < (size_t)n * dim; i += 16)
        f32x16_store(x + i, without_least(f32x16_mul(f32x16_load(x + i), f32x16_set1(scale))));
}

/* logits[0..63] += x . mu */
static void add_offset(float *logits, const float *x, const float *mu, uint32_t dim)
{
    f32x16 sum = f32x16_set1(0);
    for (uint32_t c = 0; c < dim; c += 16)
        sum = f32x16_add(sum, without_small(f32x16_mul(f32x16_load(x + c), f32x16_load(mu + c))));
    const f32x16 offset = f32x16_set1(sum_of_lanes(sum));
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        f32x16_store(logits + 16 * i, f32x16_add(f32x16_load(logits + 16 * i), offset));
}

static void add_logits(float *logits, const float *others, uint32_t n, uint32_t first_tile, uint32_t end_tile)
{
    for (size_t at = 0; at < (size_t)n * KVT_PAGE_TOKENS; at += KVT_PAGE_TOKENS)
        for (uint32_t i = first_tile; i < end_tile; i++)
            f32x16_store(logits + at + 16 * i, f32x16_add(f32x16_load(logits + at + 16 * i), f32x16_load(others + at + 16 * i)));
}

/* cap * tanh(s / cap), from e^-|2s / cap| */
KVT_LANES f32x16 capped(f32x16 s, float cap)
{
    const i32x16 sign = i32x16_and(i32x16_from_f32_bits(s), i32x16_set1(0x80000000));
    const f32x16 y = f32x16_mul(f32x16_from_bits(magnitude_bits(s)), f32x16_set1(-2 / cap)), unit = f32x16_set1(1);
    const f32x16 e = weight_of(y);
    const f32x16 t = f32x16_mul(f32x16_div(f32x16_sub(unit, e), f32x16_add(unit, e)), f32x16_set1(cap));
    return f32x16_from_bits(i32x16_or(i32x16_from_f32_bits(t), sign));
}

KVT_ONCE void scale_sums(float *row, uint32_t dim, float factor)
{
    for (uint32_t c = 0; c < dim; c += 16)
        f32x16_store(row + c, without_small(f32x16_mul(f32x16_load(row + c), f32x16_set1(factor))));
}

/* What a partial gets to know of more tokens, whose largest logit is `largest` and whose weights, relative to that, sum up to `sum`: returns what
 * their weights have to be multiplied with, and scales what is there already. */
KVT_ONCE float admit(float *row, uint32_t dim, float largest, float sum)
{
    float *max = row + dim, *all = row + dim + 1;
    if (*all == 0) {
        *max = largest;
        *all = sum;
        return 1;
    }
    if (largest <= *max) {
        const float factor = weight_of_one(largest - *max);
        *all += sum * factor;
        return factor;
    }
    const float factor = weight_of_one(*max - largest);
    scale_sums(row, dim, factor);
    *all = *all * factor + sum;
    *max = largest;
    return 1;
}

KVT_ONCE void make_nan(float *row, uint32_t dim)
{
    for (uint32_t c = 0; c < dim; c++)
        row[c] = 0;
    row[dim] = row[dim + 1] = (float)NAN;
}

/* ---- a page's weights ---- */

enum { FOUR = 4 };

/* Tokens first .. end-1 of a page. */
typedef struct seen {
    uint32_t first, end;
} seen;

/* Floats as unsigned integers of the same order, and back. */
KVT_LANES i32x16 order_of(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x), zero = i32x16_set1(0);
    return i32x16_xor(bits, i32x16_select(i32x16_gt(zero, bits), i32x16_set1(0xffffffff), i32x16_set1(0x80000000)));
}
static float float_in_order(uint32_t order)
{
    const uint32_t bits = order ^ (order >> 31 ? 0x80000000 : 0xffffffff);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

KVT_LANES f32x16 choose(mask16 m, f32x16 a, f32x16 b)
{
    return f32x16_from_bits(i32x16_select(m, i32x16_from_f32_bits(a), i32x16_from_f32_bits(b)));
}

/* 0, or NaN where x is not finite. */
KVT_LANES f32x16 nothing_of(f32x16 x)
{
    return f32x16_mul(x, f32x16_set1(0));
}

/* A row's logits: as small as can be where they are not seen, and capped; what is hidden stays so. */
KVT_ONCE void hide_and_cap(float *logits, const seen *s, float soft_cap)
{
    KVT_ROLLED
    for (uint32_t i = 0; i < PAGE_TILES; i++) {
        const f32x16 least = f32x16_set1(-FLT_MAX);
        const f32x16 x = lanes_between(f32x16_load(logits + 16 * i), 16 * i, s->first, s->end, least);
        const f32x16 y = soft_cap != 0 ? choose(f32x16_gt(x, least), capped(x, soft_cap), x) : x;
        f32x16_store(logits + 16 * i, f32x16_add(y, nothing_of(x)));
    }
}

/* The largest logits of up to four rows; NaN if one is not finite. */
KVT_LANES void find_largest(const float *logits, uint32_t rows, float *largest)
{
    i32x16 order[FOUR], spoilt[FOUR];
    KVT_ROLLED
    for (uint32_t r = 0; r < FOUR; r++) {
        order[r] = spoilt[r] = i32x16_set1(0);
        if (r >= rows)
            continue;
        const float *of_row = logits + r * KVT_PAGE_TOKENS;
        f32x16 x[PAGE_TILES];
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < PAGE_TILES; i++)
            x[i] = f32x16_load(of_row + 16 * i);
        const f32x16 zero = f32x16_set1(0);
        order[r] = order_of(f32x16_max_num(f32x16_max_num(x[0], x[1]), f32x16_max_num(x[2], x[3])));
        spoilt[r] = magnitude_bits(f32x16_fma(x[3], zero, f32x16_fma(x[2], zero, f32x16_fma(x[1], zero, nothing_of(x[0])))));
    }
    uint32_t in_order[FOUR], bits[FOUR];
    quad_max_u(order, in_order);
    quad_max_u(spoilt, bits);
    for (uint32_t r = 0; r < rows; r++)
        largest[r] = bits[r] ? (float)NAN : float_in_order(in_order[r]);
}

/* Logits to weights, of which those as small as can be have none; returns the sum of the lanes. */
KVT_LANES f32x16 weigh(float *logits, float largest)
{
    f32x16 weight[PAGE_TILES];
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        weight[i] = weight_of(f32x16_sub(f32x16_load(logits + 16 * i), f32x16_set1(largest)));
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        f32x16_store(logits + 16 * i, weight[i]);
    return f32x16_add(f32x16_add(f32x16_add(weight[0], weight[1]), weight[2]), weight[3]);
}

/* The lane sums of four rows: that of row k to lane 4 k. */
KVT_LANES f32x16 lane_sums(const f32x16 row[FOUR])
{
    u8x64 part[4];
    for (int k = 0; k < 4; k++)
        part[k] = u8x64_from_i32(i32x16_from_f32_bits(row[k]));
    u8x64_swap_quarters(part); /* [i]: quarter i of each */
    f32x16 p[4];
    for (int i = 0; i < 4; i++)
        p[i] = f32x16_from_bits(i32x16_from_u8(part[i]));
    const i32x16 of_quarters = i32x16_from_f32_bits(f32x16_add(f32x16_add(p[0], p[2]), f32x16_add(p[1], p[3])));
    i32x16 lane[4] = { of_quarters, of_quarters, of_quarters, of_quarters };
    quad32_transpose(lane);
    for (int i = 0; i < 4; i++)
        p[i] = f32x16_from_bits(lane[i]);
    return f32x16_add(f32x16_add(p[0], p[2]), f32x16_add(p[1], p[3]));
}

/* What a row's logits are relative to: the largest of the first page, or of a later one where that is much larger; sums are scaled then. As that is
 * rare, nobody waits for the largest. */
#define MUCH 8.0f
KVT_LANES float admit_largest(float *row, uint32_t dim, float largest)
{
    float *max = row + dim, *all = row + dim + 1;
    if (*all == 0 || largest - *max > MUCH) {
        if (*all != 0) {
            const float factor = weight_of_one(*max - largest);
            scale_sums(row, dim, factor);
            *all *= factor;
        }
        *max = largest;
    }
    return *max;
}

static void soften(float *logits, uint32_t rows, uint32_t first, uint32_t end, float soft_cap, float *sums, size_t sum_stride, uint32_t dim,
                   float *totals)
{
    const seen s = { first, end };
    for (uint32_t r = 0; (first > 0 || end < KVT_PAGE_TOKENS || soft_cap != 0) && r < rows; r++)
        hide_and_cap(logits + (size_t)r * KVT_PAGE_TOKENS, &s, soft_cap);
    for (uint32_t begin = 0; begin < rows; begin += FOUR) {
        const uint32_t n = rows - begin < FOUR ? rows - begin : FOUR;
        float *of_rows = logits + (size_t)begin * KVT_PAGE_TOKENS;
        float largest[FOUR], lanes[16];
        f32x16 sum[FOUR];
        find_largest(of_rows, n, largest);
        KVT_ROLLED
        for (uint32_t r = 0; r < FOUR; r++) {
            sum[r] = f32x16_set1(0);
            if (r >= n)
                continue;
            float *row = sums + (begin + r) * sum_stride;
            if (largest[r] == largest[r] && row[dim] == row[dim]) {
                sum[r] = weigh(of_rows + (size_t)r * KVT_PAGE_TOKENS, admit_largest(row, dim, largest[r]));
            } else {
                memset(of_rows + (size_t)r * KVT_PAGE_TOKENS, 0, KVT_PAGE_TOKENS * sizeof *logits);
                make_nan(row, dim);
            }
        }
        f32x16_store(lanes, lane_sums(sum));
        for (uint32_t r = 0; r < n; r++) {
            totals[begin + r] = lanes[4 * r];
            sums[(begin + r) * sum_stride + dim + 1] += lanes[4 * r];
        }
    }
}

static void add_centre(float *row, float weight, const float *mu, uint32_t dim)
{
    for (uint32_t c = 0; c < dim; c += 16)
        f32x16_store(row + c, f32x16_add(f32x16_load(row + c), without_small(f32x16_mul(f32x16_load(mu + c), f32x16_set1(weight)))));
}

static void close_partial(float *row, uint32_t dim)
{
    for (uint32_t c = 0; c < dim; c += 16)
        f32x16_store(row + c, canonical_nan(f32x16_load(row + c)));
}

static void merge(float *row, const float *partial, uint32_t dim)
{
    if (partial[dim + 1] == 0 || row[dim] != row[dim])
        return;
    if (partial[dim] != partial[dim]) {
        make_nan(row, dim);
        return;
    }
    const float factor = admit(row, dim, partial[dim], partial[dim + 1]);
    for (uint32_t c = 0; c < dim; c += 16) {
        const f32x16 more = without_small(f32x16_mul(f32x16_load(partial + c), f32x16_set1(factor)));
        f32x16_store(row + c, f32x16_add(f32x16_load(row + c), more));
    }
}

static void finish(float *row, uint32_t dim, const float *sink)
{
    if (sink != NULL && *sink == *sink && row[dim] == row[dim])
        admit(row, dim, *sink, 1);
    else if (sink != NULL)
        make_nan(row, dim);
    const float sum = row[dim + 1];
    if (row[dim] != row[dim]) {
        for (uint32_t c = 0; c < dim; c += 16)
            i32x16_store(row + c, i32x16_set1(0x7fc00000));
        return;
    }
    scale_sums(row, dim, sum > 0 ? 1 / sum : 0);
    close_partial(row, dim);
}

extern const kvt_softmax KVT_EXPORT(softmax);
const kvt_softmax KVT_EXPORT(softmax) = {
    .scale_queries = scale_queries,
    .add_offset = add_offset,
    .add_logits = add_logits,
    .soften = soften,
    .add_centre = add_centre,
    .close_partial = close_partial,
    .merge = merge,
    .finish = finish,
};
