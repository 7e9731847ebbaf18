/* Between a model's tensors and the latent cache: matrices, the root mean square, rotary positions. Compiled once per tier. docs/formats.md,
 * section 10. */
#include "kernels/scheme.h"

/* What is below 2^-38 counts as nothing, so that neither products nor their sums have subnormal bits. f16 has no such numbers. */
KVT_LANES f32x16 without_least(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(0x2c800000), magnitude_bits(x)), i32x16_set1(0), bits));
}

KVT_LANES f32x16 load_numbers(const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F16)
        return f32x16_load_f16(p);
    return without_least(dtype == KVT_F32 ? f32x16_load(p) : f32x16_from_bits(widen_bf16(i32x16_load_u16(p))));
}

KVT_LANES size_t number_bytes(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? 4 : 2;
}

/* 16 numbers, of which n exist, of any dtype. */
KVT_LANES f32x16 load_group(const uint8_t *p, kvt_dtype dtype, uint32_t n)
{
    uint8_t some[64];
    if (n < 16) {
        memset(some, 0, sizeof some);
        memcpy(some, p, n * number_bytes(dtype));
        p = some;
    }
    return load_numbers(p, dtype);
}

#if defined(__clang__)
#define KVT_FOR_ROWS _Pragma("clang loop unroll(full)")
#else
#define KVT_FOR_ROWS _Pragma("GCC unroll 16")
#endif

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

/* Rows of a matrix, of which the first few are meant; a missing one is the last once more. */
typedef struct few_rows {
    const uint8_t *row[16];
} few_rows;

KVT_LANES few_rows rows_at(const kvt_matrix *m, uint32_t first, uint32_t count, uint32_t n)
{
    few_rows made;
    for (uint32_t i = 0; i < n; i++)
        made.row[i] = (const uint8_t *)m->numbers + (ptrdiff_t)(first + (i < count ? i : count - 1)) * m->row_stride;
    return made;
}

/* sum[4i + j]: lanes of row i of x times row j of w, for n_x and n_w rows at once. */
KVT_LANES void multiply_few(uint32_t n_x, uint32_t n_w, const uint8_t *const *x, kvt_dtype x_dtype, const uint8_t *const *w, kvt_dtype w_dtype,
                            uint32_t columns, f32x16 *sum, uint32_t x_step)
{
    f32x16 s[16];
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < n_x * n_w; i++)
        s[i] = f32x16_set1(0);
    uint32_t c = 0;
    for (; c + 16 <= columns; c += 16) {
        f32x16 of_w[4];
        KVT_FOR_ROWS
        for (uint32_t j = 0; j < n_w; j++)
            of_w[j] = load_numbers(w[j] + c * number_bytes(w_dtype), w_dtype);
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < n_x; i++) {
            const f32x16 of_x = load_numbers(x[i] + c * number_bytes(x_dtype), x_dtype);
            KVT_FOR_ROWS
            for (uint32_t j = 0; j < n_w; j++)
                s[i * n_w + j] = f32x16_fma(of_x, of_w[j], s[i * n_w + j]);
        }
    }
    if (c < columns) {
        KVT_FOR_ROWS
        for (uint32_t i = 0; i < n_x; i++) {
            const f32x16 of_x = load_group(x[i] + c * number_bytes(x_dtype), x_dtype, columns - c);
            KVT_FOR_ROWS
            for (uint32_t j = 0; j < n_w; j++)
                s[i * n_w + j] = f32x16_fma(of_x, load_group(w[j] + c * number_bytes(w_dtype), w_dtype, columns - c), s[i * n_w + j]);
        }
    }
    KVT_FOR_ROWS
    for (uint32_t i = 0; i < n_x; i++)
        KVT_FOR_ROWS
    for (uint32_t j = 0; j < n_w; j++)
        sum[i * x_step + j] = s[i * n_w + j];
}

/* Four rows times four, or one times sixteen; as many at once as there are registers for the sums of. */
KVT_LANES void multiply_dtypes(bool is_one, const few_rows *x, kvt_dtype x_dtype, const few_rows *w, kvt_dtype w_dtype, uint32_t columns,
                               f32x16 sum[16])
{
    enum { AT_ONCE = KVT_FLOAT_SUMS >= 16 ? 4 : KVT_FLOAT_SUMS >= 8 ? 2 : 1 };
    if (is_one)
        for (uint32_t j = 0; j < 16; j += 4)
            multiply_few(1, 4, x->row, x_dtype, w->row + j, w_dtype, columns, sum + j, 16);
    else
        for (uint32_t j = 0; j < 4; j += AT_ONCE)
            multiply_few(4, AT_ONCE, x->row, x_dtype, w->row + j, w_dtype, columns, sum + j, 4);
}

#define MULTIPLY_OF(x_type, w_type)                                                                                                                  \
    static __attribute__((noinline)) void multiply_##x_type##_##w_type(bool is_one, const few_rows *x, const few_rows *w, uint32_t columns,          \
                                                                       f32x16 sum[16])                                                               \
    {                                                                                                                                                \
        if (is_one)                                                                                                                                  \
            multiply_dtypes(true, x, KVT_##x_type, w, KVT_##w_type, columns, sum);                                                                   \
        else                                                                                                                                         \
            multiply_dtypes(false, x, KVT_##x_type, w, KVT_##w_type, columns, sum);                                                                  \
    }
MULTIPLY_OF(F32, F32)
MULTIPLY_OF(F32, F16)
MULTIPLY_OF(F32, BF16)
MULTIPLY_OF(F16, F32)
MULTIPLY_OF(F16, F16)
MULTIPLY_OF(F16, BF16)
MULTIPLY_OF(BF16, F32)
MULTIPLY_OF(BF16, F16)
MULTIPLY_OF(BF16, BF16)

typedef void multiply_fn(bool is_one, const few_rows *x, const few_rows *w, uint32_t columns, f32x16 sum[16]);
static multiply_fn *const multiplies[3][3] = {
    { multiply_F32_F32, multiply_F32_F16, multiply_F32_BF16 },
    { multiply_F16_F32, multiply_F16_F16, multiply_F16_BF16 },
    { multiply_BF16_F32, multiply_BF16_F16, multiply_BF16_BF16 },
};
_Static_assert(KVT_F32 == 1 && KVT_F16 == 2 && KVT_BF16 == 3, "the order of the table");

static void project(float *out, size_t out_stride, const kvt_matrix *x, uint32_t n, const kvt_matrix *w, uint32_t rows, uint32_t columns)
{
    multiply_fn *const multiply = multiplies[x->dtype - 1][w->dtype - 1];
    const bool is_one = n == 1;
    const uint32_t x_at_once = is_one ? 1 : 4, w_at_once = is_one ? 16 : 4;
    for (uint32_t r = 0; r < rows; r += w_at_once) {
        const uint32_t n_w = rows - r < w_at_once ? rows - r : w_at_once;
        const few_rows w_rows = rows_at(w, r, n_w, w_at_once);
        for (uint32_t t = 0; t < n; t += x_at_once) {
            const uint32_t n_x = n - t < x_at_once ? n - t : x_at_once;
            const few_rows x_rows = rows_at(x, t, n_x, x_at_once);
            f32x16 sum[16];
            float all[16];
            multiply(is_one, &x_rows, &w_rows, columns, sum);
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
        f32x16_store(to + c, dtype == KVT_F32   ? f32x16_load(row + (size_t)c * 4)
                             : dtype == KVT_F16 ? f32x16_load_f16(row + (size_t)c * 2)
                                                : f32x16_from_bits(widen_bf16(i32x16_load_u16(row + (size_t)c * 2))));
    if (c < dim) {
        uint8_t all[64] = { 0 };
        float last[16];
        memcpy(all, row + c * number_bytes(dtype), (dim - c) * number_bytes(dtype));
        widen(last, all, dtype, 16);
        memcpy(to + c, last, (dim - c) * sizeof *to);
    }
}

/* A product of which small ones count for nothing, and NaNs are all the same. */
KVT_LANES f32x16 settled(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x), magnitude = magnitude_bits(x), zero = i32x16_set1(0);
    const i32x16 number = i32x16_select(i32x16_gt(magnitude, i32x16_set1(0x7f800000)), i32x16_set1(0x7fc00000), bits);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(0x0f800000), magnitude), zero, number));
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

KVT_LANES void normalise_row(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim, const float *weights, float epsilon)
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
        float of_weights[16] = { 0 }, made[16];
        memcpy(of_weights, weights + c, (dim - c) * sizeof *weights);
        f32x16_store(made, normal(row + c * bytes, dtype, dim - c, r, f32x16_load(of_weights)));
        memcpy(to + c, made, (dim - c) * sizeof *to);
    }
}

static void normalise(float *to, const uint8_t *row, kvt_dtype dtype, uint32_t dim, const float *weights, float epsilon)
{
    if (dtype == KVT_F32)
        normalise_row(to, row, KVT_F32, dim, weights, epsilon);
    else if (dtype == KVT_F16)
        normalise_row(to, row, KVT_F16, dim, weights, epsilon);
    else
        normalise_row(to, row, KVT_BF16, dim, weights, epsilon);
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
    const f32x16 of_cos = without_small(f32x16_load(c)), of_sin = without_small(f32x16_load(s));
    f32x16_store(a, canonical_nan(f32x16_sub(without_small(f32x16_mul(u, of_cos)), without_small(f32x16_mul(v, of_sin)))));
    f32x16_store(b, canonical_nan(f32x16_add(without_small(f32x16_mul(u, of_sin)), without_small(f32x16_mul(v, of_cos)))));
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

extern const kvt_mla_kernels KVT_JOIN(kvt_mla_, KVT_TIER);
const kvt_mla_kernels KVT_JOIN(kvt_mla_, KVT_TIER) = {
    .project = project,
    .widen = widen,
    .normalise = normalise,
    .rotate = rotate,
};
