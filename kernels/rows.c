/* SPDX-License-Identifier: MIT */
/* Rows of callers and rows of floats: the dtypes, rotation and centring. What happens before numbers are encoded and after they are decoded.
 * docs/formats.md, sections 6 and 7. */
#include "kernels/f16_scale.h"

/* Channel c changes its sign where bit c mod 64 of word (c div 64) mod 2 is set: the fraction of pi. As bits that are XORed. */
#define SIGN(word, i)    ((uint32_t)((word) >> (i)&1) << 31)
#define SIGNS4(word, i)  SIGN(word, i), SIGN(word, (i) + 1), SIGN(word, (i) + 2), SIGN(word, (i) + 3)
#define SIGNS16(word, i) SIGNS4(word, i), SIGNS4(word, (i) + 4), SIGNS4(word, (i) + 8), SIGNS4(word, (i) + 12)
#define SIGNS64(word)    SIGNS16(word, 0), SIGNS16(word, 16), SIGNS16(word, 32), SIGNS16(word, 48)
static const uint32_t signs[128] = { SIGNS64(0x243f6a8885a308d3), SIGNS64(0x13198a2e03707344) };

/* The same as factors of what the inverse of blocks of 64 channels ends with. */
#define FACTOR(word, i, f)    ((word) >> (i)&1 ? -(f) : (f))
#define FACTORS4(word, i, f)  FACTOR(word, i, f), FACTOR(word, (i) + 1, f), FACTOR(word, (i) + 2, f), FACTOR(word, (i) + 3, f)
#define FACTORS16(word, i, f) FACTORS4(word, i, f), FACTORS4(word, (i) + 4, f), FACTORS4(word, (i) + 8, f), FACTORS4(word, (i) + 12, f)
#define FACTORS64(word, f)    FACTORS16(word, 0, f), FACTORS16(word, 16, f), FACTORS16(word, 32, f), FACTORS16(word, 48, f)
#define FACTORS128(f)         FACTORS64(0x243f6a8885a308d3, f), FACTORS64(0x13198a2e03707344, f)
static const float signed_factors[128] = { FACTORS128(0.125f) };

/* Of group g + i, which are in the same block. */
KVT_LANES i32x16 signs_of(uint32_t g, uint32_t i)
{
    return i32x16_load(signs + g % 8 * 16 + i * 16);
}

/* Of a block of n groups. */
KVT_LANES float hadamard_factor(uint32_t n)
{
    return n == 1 ? 0.25f : n == 2 ? 0x1.6a09e6p-3f : n == 4 ? 0.125f : 0x1.6a09e6p-4f;
}
KVT_LANES f32x16 signed_factor_of(uint32_t n, uint32_t g, uint32_t i)
{
    if (n == 4)
        return f32x16_load(signed_factors + g % 8 * 16 + i * 16);
    return f32x16_from_bits(i32x16_xor(signs_of(g, i), i32x16_from_f32_bits(f32x16_set1(hadamard_factor(n)))));
}

/* Made small, as they are hardly ever called. */
#define KVT_RARE KVT_ONCE __attribute__((cold))

KVT_LANES void butterfly(f32x16 *a, f32x16 *b)
{
    const f32x16 sum = f32x16_add(*a, *b);
    *b = f32x16_sub(*a, *b);
    *a = sum;
}

/* 16 n channels, but for the factor; n is 1, 2 or 4. (Step by step, because what waits for others takes room that CPUs have little of.) */
KVT_LANES void hadamard(f32x16 v[4], uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_butterflies(v[i], 1);
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_butterflies(v[i], 2);
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_butterflies(v[i], 4);
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_butterflies(v[i], 8);
    for (uint32_t h = 1; h < n; h *= 2)
        for (uint32_t i = 0; i < n; i++)
            if (!(i & h))
                butterfly(&v[i], &v[i + h]);
}

/* ---- a block, or groups without a rotation: groups g .. g+n-1; n is 1, 2, 4 or, rotated, 8 ----
 *
 * Rows on their way to integers or from them need less care (`are_integers`). What is below 2^-96 becomes a zero there as well, and any NaN the one
 * of its block; what comes back is a multiple of 2^-30, or the one NaN, which no sum changes, and only zeros have a sign to be rid of, which the sum
 * with a centre does. So these always have a centre. */

/* Numbers without small ones, where they are or, if there are any, in `room`: one question for all of them. */
KVT_RARE const float *copy_without_small(float room[8 * 16], const float *from, uint32_t n)
{
    KVT_ROLLED
    for (uint32_t i = 0; i < n; i++)
        f32x16_store(room + 16 * i, without_small(f32x16_load(from + 16 * i)));
    return room;
}
KVT_LANES const float *drop_small(float room[8 * 16], const float *from, uint32_t n)
{
    i32x16 least = magnitude_bits(f32x16_load(from));
    for (uint32_t i = 1; i < n; i++)
        least = i32x16_min_u(least, magnitude_bits(f32x16_load(from + 16 * i)));
    const bool has_small = mask16_any(i32x16_gt(i32x16_set1(SMALL_BITS), least));
    return __builtin_expect(has_small, 0) ? copy_without_small(room, from, n) : from;
}

/* The same for NaNs: a sum has one where one of its numbers does (or where infinities meet, which costs time only). */
KVT_RARE void make_nans_canonical(float *x, uint32_t n)
{
    KVT_ROLLED
    for (uint32_t i = 0; i < n; i++)
        f32x16_store(x + 16 * i, canonical_nan(f32x16_load(x + 16 * i)));
}
KVT_LANES void canonical_nans(f32x16 sum, float *x, uint32_t n)
{
    if (__builtin_expect(mask16_any(i32x16_gt(magnitude_bits(sum), i32x16_set1(0x7f800000))), 0))
        make_nans_canonical(x, n);
}

/* The end of it for group i. */
KVT_LANES f32x16 centred(f32x16 v, uint32_t i, uint32_t n, bool is_rotated, const float *mu, bool are_integers)
{
    const f32x16 factor = f32x16_set1(hadamard_factor(n));
    const bool is_exact = n == 1 || n == 4; /* a product with the factor */
    if (is_rotated && are_integers && is_exact)
        return f32x16_scale_sub(v, factor, f32x16_load(mu + 16 * i));
    if (is_rotated)
        v = f32x16_mul(v, factor);
    return !mu ? v : f32x16_sub(are_integers ? v : without_small(v), f32x16_load(mu + 16 * i));
}

KVT_LANES void prepare_block(float *x, const float *from, uint32_t g, uint32_t n, bool is_rotated, const float *mu, bool are_integers)
{
    const uint32_t part = n < 4 ? n : 4;
    float room[8 * 16];
    f32x16 sum = f32x16_set1(0);
    if (is_rotated)
        from = drop_small(room, from, n);
    KVT_ROLLED
    for (uint32_t begin = 0; begin < n; begin += part) {
        f32x16 v[4];
        for (uint32_t i = 0; i < part; i++)
            v[i] = f32x16_load(from + 16 * (begin + i));
        if (is_rotated) {
            for (uint32_t i = 0; i < part; i++)
                v[i] = f32x16_from_bits(i32x16_xor(i32x16_from_f32_bits(v[i]), signs_of(g, begin + i)));
            hadamard(v, part);
        }
        for (uint32_t i = 0; i < part; i++) {
            if (part == n)
                v[i] = centred(v[i], i, n, is_rotated, mu, are_integers);
            f32x16_store(x + 16 * (begin + i), v[i]);
            sum = f32x16_add(sum, v[i]);
        }
    }
    if (part < n) {
        sum = f32x16_set1(0);
        KVT_ROLLED
        for (uint32_t i = 0; i < part; i++) {
            f32x16 a = f32x16_load(x + 16 * i), b = f32x16_load(x + 16 * (i + part));
            butterfly(&a, &b);
            a = centred(a, i, n, is_rotated, mu, are_integers);
            b = centred(b, i + part, n, is_rotated, mu, are_integers);
            f32x16_store(x + 16 * i, a);
            f32x16_store(x + 16 * (i + part), b);
            sum = f32x16_add(sum, f32x16_add(a, b));
        }
    }
    if ((is_rotated || mu) && !are_integers)
        canonical_nans(sum, x, n);
}

KVT_LANES void restore_block(float *x, const float *from, uint32_t g, uint32_t n, bool is_rotated, const float *mu, bool are_integers)
{
    const uint32_t part = n < 4 ? n : 4;
    f32x16 sum = f32x16_set1(0);
    KVT_ROLLED
    for (uint32_t begin = 0; begin < n; begin += part) {
        f32x16 v[4];
        for (uint32_t i = 0; i < part; i++) {
            v[i] = f32x16_load(from + 16 * (begin + i));
            if (mu)
                v[i] = f32x16_add(are_integers ? v[i] : without_small(v[i]), f32x16_load(mu + 16 * (begin + i)));
            if (is_rotated && !are_integers)
                v[i] = without_small(v[i]);
        }
        if (is_rotated)
            hadamard(v, part);
        for (uint32_t i = 0; i < part; i++) {
            if (is_rotated && part == n)
                v[i] = f32x16_mul(v[i], signed_factor_of(n, g, i));
            f32x16_store(x + 16 * (begin + i), v[i]);
            sum = f32x16_add(sum, v[i]);
        }
    }
    if (part < n) {
        sum = f32x16_set1(0);
        KVT_ROLLED
        for (uint32_t i = 0; i < part; i++) {
            f32x16 a = f32x16_load(x + 16 * i), b = f32x16_load(x + 16 * (i + part));
            butterfly(&a, &b);
            a = f32x16_mul(a, signed_factor_of(n, g, i));
            b = f32x16_mul(b, signed_factor_of(n, g, i + part));
            f32x16_store(x + 16 * i, a);
            f32x16_store(x + 16 * (i + part), b);
            sum = f32x16_add(sum, f32x16_add(a, b));
        }
    }
    if ((is_rotated || mu) && !are_integers)
        canonical_nans(sum, x, n);
}

/* ---- rows of floats ---- */

/* `count` rows: where their group g comes from and goes to, strides in floats. */
typedef struct float_rows {
    float *to;
    ptrdiff_t to_stride;
    const float *from;
    ptrdiff_t from_stride;
    uint32_t count;
    const float *mu; /* from group 0 on, or NULL */
} float_rows;

/* `blocks` of each row from group g on. */
#define BLOCKS(name, block, n, is_rotated, are_integers)                                                                                             \
    KVT_ONCE void name(const float_rows *all, uint32_t g, uint32_t blocks)                                                                           \
    {                                                                                                                                                \
        const float_rows rows = *all;                                                                                                                \
        float *to = rows.to;                                                                                                                         \
        const float *from = rows.from;                                                                                                               \
        for (uint32_t t = 0; t < rows.count; t++, to += rows.to_stride, from += rows.from_stride)                                                    \
            for (uint32_t b = 0; b < blocks; b++)                                                                                                    \
                block(to + (size_t)b * (n)*16, from + (size_t)b * (n)*16, g + b * (n), n, is_rotated,                                                \
                      are_integers || rows.mu ? rows.mu + (size_t)(g + b * (n)) * 16 : NULL, are_integers);                                          \
    }

/* For each number of groups, and for four groups without a rotation; the most frequent ones of integers by themselves. */
#define BLOCKS_OF(step)                                                                                                                              \
    BLOCKS(step##_8, step##_block, 8, true, false)                                                                                                   \
    BLOCKS(step##_4, step##_block, 4, true, false)                                                                                                   \
    BLOCKS(step##_2, step##_block, 2, true, false)                                                                                                   \
    BLOCKS(step##_1, step##_block, 1, true, false)                                                                                                   \
    BLOCKS(step##_four_plain, step##_block, 4, false, false)                                                                                         \
    BLOCKS(step##_plain, step##_block, 1, false, false)                                                                                              \
    BLOCKS(step##_integers_8, step##_block, 8, true, true)                                                                                           \
    BLOCKS(step##_integers_4, step##_block, 4, true, true)                                                                                           \
    BLOCKS(step##_integers_plain, step##_block, 4, false, true)
BLOCKS_OF(prepare)
BLOCKS_OF(restore)

typedef void blocks_fn(const float_rows *all, uint32_t g, uint32_t blocks);

/* By n, the groups of a block; 0: one group without a rotation, FOUR_PLAIN: four of them. */
enum { FOUR_PLAIN = 3 };
#define FUNCTION_OF(step)                                                                                                                            \
    static blocks_fn *step##_of(uint32_t n, bool are_integers)                                                                                       \
    {                                                                                                                                                \
        return n == 8            ? (are_integers ? step##_integers_8 : step##_8)                                                                     \
               : n == 4          ? (are_integers ? step##_integers_4 : step##_4)                                                                     \
               : n == FOUR_PLAIN ? (are_integers ? step##_integers_plain : step##_four_plain)                                                        \
               : n == 2          ? step##_2                                                                                                          \
               : n == 1          ? step##_1                                                                                                          \
                                 : step##_plain;                                                                                                              \
    }
FUNCTION_OF(prepare)
FUNCTION_OF(restore)

/* Whole groups 0 .. groups-1 in blocks of n; the last blocks may have fewer. */
KVT_ONCE void step_blocks(bool are_restored, bool are_integers, const float_rows *rows, uint32_t groups, uint32_t n)
{
    float_rows at = *rows;
    for (uint32_t g = 0; g < groups;) {
        while (n > groups - g)
            n /= 2;
        const uint32_t step = n ? n : groups - g >= 4 ? 4 : 1, blocks = (groups - g) / step, which = n ? n : step == 4 ? FOUR_PLAIN : 0;
        (are_restored ? restore_of : prepare_of)(which, are_integers)(&at, g, blocks);
        at.to += (size_t)blocks * step * 16;
        at.from += (size_t)blocks * step * 16;
        g += blocks * step;
    }
}

/* ---- rows of callers ---- */

/* Numbers of another format, or fewer than whole groups, become floats, and are padded, before anything else. */
KVT_ONCE void widen_rows(float *to, size_t groups, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim)
{
    for (uint32_t t = 0; t < count; t++, rows += row_stride, to += groups * 16) {
        KVT_ROLLED
        for (uint32_t g = 0; g < dim / 16; g++)
            f32x16_store(to + 16 * g, load_number(rows + (size_t)g * 16 * number_bytes(dtype), dtype));
        if (dim % 16)
            f32x16_store(to + dim / 16 * 16, load_some(rows + (size_t)(dim / 16) * 16 * number_bytes(dtype), dtype, dim % 16));
    }
}

KVT_ONCE void narrow_row(uint8_t *row, kvt_dtype dtype, uint32_t dim, const float *from)
{
    const size_t group_bytes = (size_t)16 * number_bytes(dtype);
    KVT_ROLLED
    for (uint32_t g = 0; g < dim / 16; g++)
        store_number(row + g * group_bytes, dtype, f32x16_load(from + 16 * g));
    if (dim % 16) {
        uint8_t narrowed[64];
        store_number(narrowed, dtype, f32x16_load(from + dim / 16 * 16));
        memcpy(row + dim / 16 * group_bytes, narrowed, dim % 16 * number_bytes(dtype));
    }
}

static const float *centre_for(bool are_integers, const float *mu)
{
    return mu || !are_integers ? mu : kvt_zero_row;
}

static void prepare_any(bool are_integers, float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim,
                        uint32_t rotation, const float *mu)
{
    const uint32_t groups = (dim + 15) / 16;
    const bool is_there = dtype == KVT_F32 && dim % 16 == 0 && row_stride % 4 == 0;
    if (!is_there)
        widen_rows(staged, groups, rows, row_stride, dtype, count, dim);
    if (!is_there && !rotation && !mu)
        return;
    const float_rows all = { .to = staged,
                             .to_stride = (ptrdiff_t)groups * 16,
                             .from = is_there ? (const float *)(const void *)rows : staged,
                             .from_stride = is_there ? row_stride / 4 : (ptrdiff_t)groups * 16,
                             .count = count,
                             .mu = centre_for(are_integers, mu) };
    step_blocks(false, are_integers, &all, groups, rotation / 16);
}

static void prepare_rows(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                         const float *mu)
{
    prepare_any(false, staged, rows, row_stride, dtype, count, dim, rotation, mu);
}

static void prepare_integers(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim,
                             uint32_t rotation, const float *mu)
{
    prepare_any(true, staged, rows, row_stride, dtype, count, dim, rotation, mu);
}

/* A row at a time where it has to be narrowed. */
static void restore_any(bool are_integers, const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim,
                        uint32_t rotation, const float *mu)
{
    const uint32_t groups = (dim + 15) / 16;
    float_rows all = { .from = staged, .from_stride = (ptrdiff_t)groups * 16, .count = count, .mu = centre_for(are_integers, mu) };
    if (dtype == KVT_F32 && dim % 16 == 0 && row_stride % 4 == 0) {
        all.to = (float *)(void *)rows;
        all.to_stride = row_stride / 4;
        step_blocks(true, are_integers, &all, groups, rotation / 16);
        return;
    }
    const bool is_there = !rotation && !mu;
    float restored[KVT_MAX_DIM];
    all.to = restored;
    all.count = 1;
    for (uint32_t t = 0; t < count; t++, all.from += all.from_stride, rows += row_stride) {
        if (!is_there)
            step_blocks(true, are_integers, &all, groups, rotation / 16);
        narrow_row(rows, dtype, dim, is_there ? all.from : restored);
    }
}

static void restore_rows(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                         const float *mu)
{
    restore_any(false, staged, rows, row_stride, dtype, count, dim, rotation, mu);
}

static void restore_integers(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim,
                             uint32_t rotation, const float *mu)
{
    restore_any(true, staged, rows, row_stride, dtype, count, dim, rotation, mu);
}

/* ---- sums of rows ---- */

KVT_LANES f32x16 without_nonfinite(f32x16 x)
{
    const mask16 is_finite = i32x16_gt(i32x16_set1(0x7f800000), magnitude_bits(x));
    return f32x16_from_bits(i32x16_select(is_finite, i32x16_from_f32_bits(x), i32x16_set1(0)));
}

enum { SUMMED_GROUPS = 4 };

/* As if all numbers were finite. The sums are, too, or nothing has happened. `from` is where the groups are in the first row. */
KVT_LANES bool sum_finite(float *sum, const uint8_t *from, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count)
{
    i32x16 largest = i32x16_set1(0);
    f32x16 s[SUMMED_GROUPS];
    for (uint32_t i = 0; i < SUMMED_GROUPS; i++)
        s[i] = f32x16_load(sum + 16 * i);
    for (uint32_t t = 0; t < count; t++, from += row_stride)
        for (uint32_t i = 0; i < SUMMED_GROUPS; i++)
            s[i] = f32x16_add(s[i], without_small(load_number(from + (size_t)i * 16 * number_bytes(dtype), dtype)));
    for (uint32_t i = 0; i < SUMMED_GROUPS; i++)
        largest = i32x16_max_s(largest, magnitude_bits(s[i]));
    if (mask16_any(i32x16_gt(largest, i32x16_set1(0x7f7fffff))))
        return false;
    for (uint32_t i = 0; i < SUMMED_GROUPS; i++)
        f32x16_store(sum + 16 * i, s[i]);
    return true;
}

/* Any numbers, one group, which may have fewer channels. */
KVT_RARE void sum_any(float *sum, const uint8_t *from, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t left)
{
    f32x16 s = f32x16_load(sum);
    for (uint32_t t = 0; t < count; t++, from += row_stride)
        s = f32x16_add(s, without_small(without_nonfinite(load_some(from, dtype, left))));
    f32x16_store(sum, s);
}

static void sum_rows(float *sum, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim)
{
    for (uint32_t g = 0; 16 * g < dim;) {
        const uint8_t *from = rows + (size_t)g * 16 * number_bytes(dtype);
        float *to = sum + 16 * g;
        if (dim / 16 - g >= SUMMED_GROUPS && (dtype == KVT_F32   ? sum_finite(to, from, row_stride, KVT_F32, count)
                                              : dtype == KVT_F16 ? sum_finite(to, from, row_stride, KVT_F16, count)
                                                                 : sum_finite(to, from, row_stride, KVT_BF16, count))) {
            g += SUMMED_GROUPS;
        } else {
            sum_any(to, from, row_stride, dtype, count, dim - 16 * g);
            g++;
        }
    }
}

enum { CENTRE_BLOCK_GROUPS = 2 };

static void load_centre(float *mu, const uint8_t *centre, uint32_t dim)
{
    const uint32_t groups = (dim + 15) / 16;
    const uint8_t *scales = centre + (size_t)groups * 16;
    f32x16 scale = f32x16_set1(0);
    for (uint32_t g = 0; g < groups; g++) {
        if (g % CENTRE_BLOCK_GROUPS == 0) {
            uint16_t half;
            memcpy(&half, scales + (size_t)g / CENTRE_BLOCK_GROUPS * 2, 2);
            const bool is_finite = (half & 0x7c00) != 0x7c00;
            scale = f32x16_widen_f16(i32x16_set1(is_finite ? half : 0));
        }
        i32x16 code = i32x16_load_u8(centre + (size_t)g * 16);
        code = i32x16_sub(i32x16_xor(code, i32x16_set1(0x80)), i32x16_set1(0x80)); /* sign */
        /* no zero keeps a sign */
        f32x16_store(mu + 16 * g, f32x16_add(f32x16_mul(f32x16_from_i32(code), scale), f32x16_set1(0)));
    }
}

static void store_centre(uint8_t *centre, const float *mu, uint32_t dim)
{
    const uint32_t groups = (dim + 15) / 16, blocks = (groups + CENTRE_BLOCK_GROUPS - 1) / CENTRE_BLOCK_GROUPS;
    for (uint32_t b = 0; b < blocks; b++) {
        const uint32_t begin = b * CENTRE_BLOCK_GROUPS, end = groups - begin < CENTRE_BLOCK_GROUPS ? groups : begin + CENTRE_BLOCK_GROUPS;
        i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
        for (uint32_t g = begin; g < end; g++)
            m[0] = i32x16_max_u(m[0], magnitude_bits(f32x16_load(mu + 16 * g)));
        uint32_t largest[4];
        quad_max_u(m, largest);
        const block_scale s = f16_scale(f32x16_div(f32x16_from_bits(i32x16_set1(largest[0])), f32x16_set1(127.0f)));
        uint8_t half[32];
        f32x16_store_f16(half, s.scale);
        memcpy(centre + (size_t)groups * 16 + b * 2, half, 2);
        const f32x16 r = s.has_unrepresentable ? f32x16_set1(0) : s.r;
        for (uint32_t g = begin; g < end; g++) {
            const f32x16 x = s.has_unrepresentable ? f32x16_set1(0) : f32x16_load(mu + 16 * g);
            i32x16_store_u8(centre + (size_t)g * 16, i32x16_from_f32_rne(f32x16_mul(x, r)));
        }
    }
}

extern const kvt_rows KVT_EXPORT(rows);
const kvt_rows KVT_EXPORT(rows) = {
    .prepare = prepare_rows,
    .restore = restore_rows,
    .prepare_integers = prepare_integers,
    .restore_integers = restore_integers,
    .sum = sum_rows,
    .load_centre = load_centre,
    .store_centre = store_centre,
};
