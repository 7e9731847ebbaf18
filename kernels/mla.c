/* SPDX-License-Identifier: MIT */
/* Between a model's tensors and the latent cache: matrices, the root mean square, rotary positions. docs/formats.md, section
 * 10. */
#include "kernels/lanes.h"

/* n registers of numbers of any dtype, which is asked for once; small ones count for nothing. f16 has none. */
KVT_LANES void load_rows(f32x16 *v, uint32_t n, const uint8_t *const *row, size_t column, kvt_dtype dtype)
{
    if (dtype == KVT_F32) {
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < n; i++)
            v[i] = without_least(f32x16_load(row[i] + column * 4));
    } else if (dtype == KVT_F16) {
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_load_f16(row[i] + column * 2);
    } else {
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < n; i++)
            v[i] = without_least(f32x16_from_bits(widen_bf16(i32x16_load_u16(row[i] + column * 2))));
    }
}

/* Sixteen sums of lanes: that of sum[4k + l] to lane 4l + k. Each adds the upper half to the lower, the upper quarter to the lower, ... */
KVT_LANES f32x16 sums_of_lanes(const f32x16 sum[16])
{
    i32x16 quarters[4];
    for (int a = 0; a < 4; a++) {
        u8x64 part[4];
        for (int j = 0; j < 4; j++)
            part[j] = u8x64_from_i32(i32x16_from_f32_bits(sum[4 * a + j]));
        u8x64_swap_quarters(part); /* [i]: quarter i of each */
        f32x16 p[4];
        for (int i = 0; i < 4; i++)
            p[i] = f32x16_from_bits(i32x16_from_u8(part[i]));
        quarters[a] = i32x16_from_f32_bits(f32x16_add(f32x16_add(p[0], p[2]), f32x16_add(p[1], p[3])));
    }
    quad32_transpose(quarters);
    f32x16 p[4];
    for (int i = 0; i < 4; i++)
        p[i] = f32x16_from_bits(quarters[i]);
    return f32x16_add(f32x16_add(p[0], p[2]), f32x16_add(p[1], p[3]));
}

/* The first few rows of a matrix; a missing one is the last once more. */
typedef struct few_rows {
    const uint8_t *row[16];
} few_rows;

KVT_LANES few_rows rows_at(const kvt_matrix *m, uint32_t first, uint32_t count, uint32_t n)
{
    few_rows few;
    for (uint32_t i = 0; i < n; i++)
        few.row[i] = (const uint8_t *)m->numbers + (ptrdiff_t)(first + (i < count ? i : count - 1)) * m->row_stride;
    return few;
}

/* sum[i * x_step + j]: lanes of row i of x times row j of w, for n_x and n_w rows at once. Of the last columns, which are less than 16, there is a
 * copy with zeros behind them. */
KVT_LANES void multiply_few(uint32_t n_x, uint32_t n_w, const uint8_t *const *x, kvt_dtype x_dtype, const uint8_t *const *w, kvt_dtype w_dtype,
                            uint32_t columns, f32x16 *sum, uint32_t x_step)
{
    f32x16 s[16];
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < n_x * n_w; i++)
        s[i] = f32x16_set1(0);
    uint8_t padded[8][64];
    const uint8_t *last[8];
    const uint32_t left = columns % 16;
    for (uint32_t i = 0; left && i < n_x + n_w; i++) {
        const kvt_dtype dtype = i < n_x ? x_dtype : w_dtype;
        memset(padded[i], 0, sizeof padded[i]);
        memcpy(padded[i], (i < n_x ? x[i] : w[i - n_x]) + (size_t)(columns - left) * number_bytes(dtype), left * number_bytes(dtype));
        last[i] = padded[i];
    }
    for (uint32_t c = 0; c < columns; c += 16) {
        const bool is_last = columns - c < 16;
        f32x16 x_row[4], w_row[4];
        load_rows(w_row, n_w, is_last ? last + n_x : w, is_last ? 0 : c, w_dtype);
        load_rows(x_row, n_x, is_last ? last : x, is_last ? 0 : c, x_dtype);
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < n_x; i++)
            KVT_FOR_ROWS
        for (uint32_t j = 0; j < n_w; j++)
            s[i * n_w + j] = f32x16_fma(x_row[i], w_row[j], s[i * n_w + j]);
    }
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < n_x; i++)
        KVT_FOR_ROWS
    for (uint32_t j = 0; j < n_w; j++)
        sum[i * x_step + j] = s[i * n_w + j];
}

/* As many at once as there are registers for the sums of. */
enum { W_AT_ONCE = KVT_FLOAT_SUMS >= 16 ? 4 : KVT_FLOAT_SUMS >= 8 ? 2 : 1 };

/* One row times sixteen. */
KVT_ONCE void multiply_row(const few_rows *x, kvt_dtype x_dtype, const few_rows *w, kvt_dtype w_dtype, uint32_t columns, f32x16 sum[16])
{
    KVT_ROLLED
    for (uint32_t j = 0; j < 16; j += 4)
        multiply_few(1, 4, x->row, x_dtype, w->row + j, w_dtype, columns, sum + j, 16);
}

/* Four rows times four. */
KVT_ONCE void multiply_rows(const few_rows *x, kvt_dtype x_dtype, const few_rows *w, kvt_dtype w_dtype, uint32_t columns, f32x16 sum[16])
{
    KVT_ROLLED
    for (uint32_t j = 0; j < 4; j += W_AT_ONCE)
        multiply_few(4, W_AT_ONCE, x->row, x_dtype, w->row + j, w_dtype, columns, sum + j, 4);
}

static void project(float *out, size_t out_stride, const kvt_matrix *x, uint32_t n, const kvt_matrix *w, uint32_t rows, uint32_t columns)
{
    const bool is_single = n == 1;
    const uint32_t x_at_once = is_single ? 1 : 4, w_at_once = is_single ? 16 : 4;
    for (uint32_t r = 0; r < rows; r += w_at_once) {
        const uint32_t n_w = rows - r < w_at_once ? rows - r : w_at_once;
        const few_rows w_rows = rows_at(w, r, n_w, w_at_once);
        for (uint32_t t = 0; t < n; t += x_at_once) {
            const uint32_t n_x = n - t < x_at_once ? n - t : x_at_once;
            const few_rows x_rows = rows_at(x, t, n_x, x_at_once);
            f32x16 sum[16];
            float all[16];
            if (is_single)
                multiply_row(&x_rows, x->dtype, &w_rows, w->dtype, columns, sum);
            else
                multiply_rows(&x_rows, x->dtype, &w_rows, w->dtype, columns, sum);
            f32x16_store(all, canonical_nan(sums_of_lanes(sum)));
            for (uint32_t i = 0; i < n_x; i++)
                for (uint32_t j = 0; j < n_w; j++) {
                    const uint32_t s = i * w_at_once + j;
                    out[(t + i) * out_stride + r + j] = all[s % 4 * 4 + s / 4];
                }
        }
    }
}

static void widen(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim)
{
    uint32_t c = 0;
    for (; c + 16 <= dim; c += 16)
        f32x16_store(to + c, load_number(row + (size_t)c * number_bytes(dtype), dtype));
    if (c < dim) {
        float last[16];
        f32x16_store(last, load_some(row + (size_t)c * number_bytes(dtype), dtype, dim - c));
        memcpy(to + c, last, (dim - c) * sizeof *to);
    }
}

/* A product; small ones count for nothing, and NaNs are all the same. */
KVT_LANES f32x16 settled(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x), magnitude = magnitude_bits(x), zero = i32x16_set1(0);
    const i32x16 number = i32x16_select(i32x16_gt(magnitude, i32x16_set1(0x7f800000)), i32x16_set1(0x7fc00000), bits);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(0x0f800000), magnitude), zero, number));
}

/* 16 numbers; n of them exist, and small ones count for nothing. */
KVT_LANES f32x16 load_group(const uint8_t *p, kvt_dtype dtype, uint32_t n)
{
    const f32x16 x = load_some(p, dtype, n);
    return dtype == KVT_F16 ? x : without_least(x);
}

KVT_LANES f32x16 add_square(f32x16 sum, const uint8_t *p, kvt_dtype dtype, uint32_t n)
{
    const f32x16 y = load_group(p, dtype, n);
    return f32x16_fma(y, y, sum);
}

/* y * r is 2^-102 at least, as r is 2^-64 at least, and its magnitude is at most the root of dim: weights that are subnormal make it count for
 * nothing. */
KVT_LANES f32x16 normal(const uint8_t *p, kvt_dtype dtype, uint32_t n, f32x16 r, f32x16 weight)
{
    return settled(f32x16_mul(f32x16_mul(load_group(p, dtype, n), r), weight));
}

static void normalise(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim, const float *weights, float epsilon)
{
    const size_t bytes = number_bytes(dtype);
    const f32x16 zero = f32x16_set1(0);
    f32x16 s0 = zero, s1 = zero, s2 = zero, s3 = zero; /* of every fourth group each, so that they do not wait for each other */
    uint32_t c = 0;
    for (; c + 64 <= dim; c += 64) {
        s0 = add_square(s0, row + c * bytes, dtype, 16);
        s1 = add_square(s1, row + (c + 16) * bytes, dtype, 16);
        s2 = add_square(s2, row + (c + 32) * bytes, dtype, 16);
        s3 = add_square(s3, row + (c + 48) * bytes, dtype, 16);
    }
    if (c < dim)
        s0 = add_square(s0, row + c * bytes, dtype, dim - c < 16 ? dim - c : 16);
    if (c + 16 < dim)
        s1 = add_square(s1, row + (c + 16) * bytes, dtype, dim - c - 16 < 16 ? dim - c - 16 : 16);
    if (c + 32 < dim)
        s2 = add_square(s2, row + (c + 32) * bytes, dtype, dim - c - 32 < 16 ? dim - c - 32 : 16);
    if (c + 48 < dim)
        s3 = add_square(s3, row + (c + 48) * bytes, dtype, dim - c - 48);
    const float squares = sum_of_lanes(f32x16_add(f32x16_add(s0, s1), f32x16_add(s2, s3)));
    const f32x16 r = f32x16_set1(1 / sqrtf(squares / (float)dim + (epsilon < 0x1p-96f ? 0 : epsilon)));
    for (c = 0; c + 16 <= dim; c += 16)
        f32x16_store(to + c, normal(row + c * bytes, dtype, 16, r, f32x16_load(weights + c)));
    if (c < dim) {
        float last_weights[16] = { 0 }, last[16];
        memcpy(last_weights, weights + c, (dim - c) * sizeof *weights);
        f32x16_store(last, normal(row + c * bytes, dtype, dim - c, r, f32x16_load(last_weights)));
        memcpy(to + c, last, (dim - c) * sizeof *to);
    }
}

/* Pairs of x, whose numbers are `step` apart from pair to pair and `apart` within. Halves of pairs side by side are what compilers make vectors of.
 */
KVT_LANES void turn(float *x, uint32_t n, uint32_t step, uint32_t apart, const float *cos, const float *sin)
{
    float a[16] = { 0 }, b[16] = { 0 }, c[16] = { 0 }, s[16] = { 0 };
    for (uint32_t i = 0; i < n; i++) {
        a[i] = x[i * step];
        b[i] = x[i * step + apart];
        c[i] = cos[i];
        s[i] = sin[i];
    }
    const f32x16 u = without_small(f32x16_load(a)), v = without_small(f32x16_load(b));
    const f32x16 cosines = without_small(f32x16_load(c)), sines = without_small(f32x16_load(s));
    f32x16_store(a, canonical_nan(f32x16_sub(without_small(f32x16_mul(u, cosines)), without_small(f32x16_mul(v, sines)))));
    f32x16_store(b, canonical_nan(f32x16_add(without_small(f32x16_mul(u, sines)), without_small(f32x16_mul(v, cosines)))));
    for (uint32_t i = 0; i < n; i++) {
        x[i * step] = a[i];
        x[i * step + apart] = b[i];
    }
}

static void rotate(float *x, uint32_t dim, bool are_neighbours, const float *cos, const float *sin)
{
    const uint32_t pairs = dim / 2;
    uint32_t i = 0;
    for (; are_neighbours && i + 16 <= pairs; i += 16)
        turn(x + (size_t)2 * i, 16, 2, 1, cos + i, sin + i);
    for (; !are_neighbours && i + 16 <= pairs; i += 16)
        turn(x + i, 16, 1, pairs, cos + i, sin + i);
    if (i < pairs)
        turn(x + (size_t)(are_neighbours ? 2 : 1) * i, pairs - i, are_neighbours ? 2 : 1, are_neighbours ? 1 : pairs, cos + i, sin + i);
}

extern const kvt_mla KVT_EXPORT(mla);
const kvt_mla KVT_EXPORT(mla) = {
    .project = project,
    .widen = widen,
    .normalise = normalise,
    .rotate = rotate,
};
