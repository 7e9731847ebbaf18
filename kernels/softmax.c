/* Attention between logits and sums: what does not depend on schemes. docs/formats.md, section 9. */
#include "arch/exp.h"
#include "kernels/lanes.h"

/* Logits that are so far below the largest count for nothing: e^-26 of 2^15.5 is nothing to weights of 16 bits, nor to floats; and no product with
 * what is left is subnormal. */
#define FARTHEST -26.0f

KVT_LANES float largest_lane(f32x16 x)
{
    float v[16];
    f32x16_store(v, x);
    for (int n = 8; n > 0; n /= 2)
        for (int i = 0; i < n; i++)
            v[i] = v[i] > v[i + n] ? v[i] : v[i + n];
    return v[0];
}

/* e^x for x <= 0, and 0 from FARTHEST on. */
KVT_LANES f32x16 weight_of(f32x16 x)
{
    const f32x16 farthest = f32x16_set1(FARTHEST);
    const i32x16 e = i32x16_from_f32_bits(f32x16_exp(f32x16_max_num(x, farthest)));
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

static void add_logits(float *logits, const float *others, uint32_t n, uint32_t n_tiles)
{
    for (size_t at = 0; at < (size_t)n * KVT_SPAN_TOKENS; at += KVT_SPAN_TOKENS)
        for (uint32_t i = 0; i < n_tiles; i++)
            f32x16_store(logits + at + 16 * i, f32x16_add(f32x16_load(logits + at + 16 * i), f32x16_load(others + at + 16 * i)));
}

/* cap * tanh(s / cap), from e^-|2s / cap| */
KVT_LANES f32x16 capped(f32x16 s, float cap)
{
    const i32x16 sign = i32x16_and(i32x16_from_f32_bits(s), i32x16_set1(0x80000000));
    const f32x16 y = f32x16_mul(f32x16_from_bits(magnitude_bits(s)), f32x16_set1(-2 / cap)), one = f32x16_set1(1);
    const f32x16 e = weight_of(y);
    const f32x16 t = f32x16_mul(f32x16_div(f32x16_sub(one, e), f32x16_add(one, e)), f32x16_set1(cap));
    return f32x16_from_bits(i32x16_or(i32x16_from_f32_bits(t), sign));
}

KVT_LANES void scale_sums(float *row, uint32_t dim, float factor)
{
    for (uint32_t c = 0; c < dim; c += 16)
        f32x16_store(row + c, without_small(f32x16_mul(f32x16_load(row + c), f32x16_set1(factor))));
}

/* What a partial gets to know of more tokens, whose largest logit is `largest` and whose weights, relative to that, sum up to `sum`: returns what
 * their weights have to be multiplied with, and scales what is there already. */
KVT_LANES float admit(float *row, uint32_t dim, float largest, float sum)
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

KVT_LANES void make_nan(float *row, uint32_t dim)
{
    for (uint32_t c = 0; c < dim; c++)
        row[c] = 0;
    row[dim] = row[dim + 1] = (float)NAN;
}

/* The words of a page's weights. */
KVT_LANES void store_words(const float *weights, uint8_t *words)
{
    i32x16 number[PAGE_TILES];
    for (uint32_t i = 0; i < PAGE_TILES; i++)
        number[i] = i32x16_from_f32_rne(f32x16_mul(f32x16_load(weights + 16 * i), f32x16_set1(KVT_WEIGHT_UNIT)));
    u8x64 half[2];
    words_in_order(number, half);
    u8x64_store(words, half[0]);
    u8x64_store(words + 64, half[1]);
}

enum { ROWS_AT_ONCE = 16 };

/* Tokens of a span: those of whole pages that hold first .. end-1. */
typedef struct span {
    uint32_t first, end;
    uint32_t begin_page, end_page;
} span;

static bool is_edge(const span *s, uint32_t tile)
{
    return 16 * tile < s->first || 16 * tile + 16 > s->end;
}

/* The largest of a row's logits, which are capped, and become as small as can be where they are not seen; NaN if one is not finite. */
KVT_LANES float cap_logits(float *logits, const span *s, float soft_cap)
{
    i32x16 largest_bits = i32x16_set1(0);
    f32x16 largest = f32x16_set1(-FLT_MAX);
    for (uint32_t i = s->begin_page * PAGE_TILES; i < s->end_page * PAGE_TILES; i++) {
        f32x16 x = f32x16_load(logits + 16 * i);
        if (is_edge(s, i))
            x = lanes_between(x, 16 * i, s->first, s->end, f32x16_set1(-FLT_MAX));
        largest_bits = i32x16_max_u(largest_bits, magnitude_bits(x));
        if (soft_cap != 0) /* what is hidden stays so */
            x = f32x16_from_bits(
                i32x16_select(f32x16_gt(x, f32x16_set1(-FLT_MAX)), i32x16_from_f32_bits(capped(x, soft_cap)), i32x16_from_f32_bits(x)));
        largest = f32x16_max_num(x, largest);
        if (is_edge(s, i) || soft_cap != 0)
            f32x16_store(logits + 16 * i, x);
    }
    return mask16_any(i32x16_gt(largest_bits, i32x16_set1(0x7f7fffff))) ? (float)NAN : largest_lane(largest);
}

KVT_LANES void weigh(float *logits, const span *s, float largest)
{
    for (uint32_t i = s->begin_page * PAGE_TILES; i < s->end_page * PAGE_TILES; i++) {
        f32x16 weight = weight_of(f32x16_sub(f32x16_load(logits + 16 * i), f32x16_set1(largest)));
        if (is_edge(s, i))
            weight = lanes_between(weight, 16 * i, s->first, s->end, f32x16_set1(0));
        f32x16_store(logits + 16 * i, weight);
    }
}

KVT_LANES void clear(float *logits, const span *s)
{
    for (uint32_t i = s->begin_page * PAGE_TILES; i < s->end_page * PAGE_TILES; i++)
        f32x16_store(logits + 16 * i, f32x16_set1(0));
}

/* In passes over all rows: each pass keeps few registers over the calls to the exponential function, and nobody waits for a row's largest. */
static void soften(float *logits, uint32_t rows, uint32_t first, uint32_t end, float soft_cap, float *sums, size_t sum_stride, uint32_t dim,
                   uint8_t *words, float *factors)
{
    const span s = { first, end, first / KVT_PAGE_TOKENS, (end + KVT_PAGE_TOKENS - 1) / KVT_PAGE_TOKENS };
    for (uint32_t begin = 0, n; begin < rows; begin += n) {
        n = rows - begin < ROWS_AT_ONCE ? rows - begin : ROWS_AT_ONCE;
        float *of_rows = logits + (size_t)begin * KVT_SPAN_TOKENS;
        float largest[ROWS_AT_ONCE];
        for (uint32_t r = 0; r < n; r++)
            largest[r] = cap_logits(of_rows + (size_t)r * KVT_SPAN_TOKENS, &s, soft_cap);
        for (uint32_t r = 0; r < n; r++) {
            float *row = sums + (begin + r) * sum_stride;
            if (largest[r] == largest[r] && row[dim] == row[dim]) {
                weigh(of_rows + (size_t)r * KVT_SPAN_TOKENS, &s, largest[r]);
                continue;
            }
            clear(of_rows + (size_t)r * KVT_SPAN_TOKENS, &s);
            make_nan(row, dim);
        }
        for (uint32_t r = 0; r < n; r++) {
            float *row = sums + (begin + r) * sum_stride;
            const float *weights = of_rows + (size_t)r * KVT_SPAN_TOKENS;
            f32x16 sum = f32x16_set1(0);
            for (uint32_t i = s.begin_page * PAGE_TILES; i < s.end_page * PAGE_TILES; i++)
                sum = f32x16_add(sum, f32x16_load(weights + 16 * i));
            for (uint32_t p = s.begin_page; words && p < s.end_page; p++)
                store_words(weights + (size_t)p * KVT_PAGE_TOKENS, words + ((begin + r) * (size_t)KVT_SPAN_TOKENS + (size_t)p * KVT_PAGE_TOKENS) * 2);
            factors[begin + r] = row[dim] != row[dim] ? 0 : admit(row, dim, largest[r], sum_of_lanes(sum));
        }
    }
}

static void add_centre(float *row, const float *weights, float factor, const float *mu, uint32_t dim)
{
    f32x16 sum = f32x16_load(weights);
    for (uint32_t i = 1; i < PAGE_TILES; i++)
        sum = f32x16_add(sum, f32x16_load(weights + 16 * i));
    const f32x16 all = f32x16_set1(sum_of_lanes(sum) * factor);
    for (uint32_t c = 0; c < dim; c += 16)
        f32x16_store(row + c, f32x16_add(f32x16_load(row + c), without_small(f32x16_mul(f32x16_load(mu + c), all))));
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
