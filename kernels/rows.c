/* Rows of callers and rows of floats: the dtypes, rotation and centring. What happens before numbers are encoded and after they are decoded.
 * docs/formats.md, sections 6 and 7. */
#include "kernels/f16_scale.h"

/* Channel c changes its sign where bit c mod 64 of word (c div 64) mod 2 is set: the fraction of pi. As bits that are XORed. */
#define SIGN(word, i)    ((uint32_t)((word) >> (i)&1) << 31)
#define SIGNS4(word, i)  SIGN(word, i), SIGN(word, (i) + 1), SIGN(word, (i) + 2), SIGN(word, (i) + 3)
#define SIGNS16(word, i) SIGNS4(word, i), SIGNS4(word, (i) + 4), SIGNS4(word, (i) + 8), SIGNS4(word, (i) + 12)
#define SIGNS64(word)    SIGNS16(word, 0), SIGNS16(word, 16), SIGNS16(word, 32), SIGNS16(word, 48)
static const uint32_t signs[128] = { SIGNS64(0x243f6a8885a308d3), SIGNS64(0x13198a2e03707344) };

KVT_LANES i32x16 signs_of(uint32_t g)
{
    return i32x16_load(signs + g % 8 * 16);
}

/* One question for all: a sum has a NaN where one of them does (or where infinities meet, which costs time only). */
KVT_LANES void canonical_nans(f32x16 *v, uint32_t n)
{
    f32x16 sum = v[0];
    for (uint32_t i = 1; i < n; i++)
        sum = f32x16_add(sum, v[i]);
    if (mask16_any(i32x16_gt(magnitude_bits(sum), i32x16_set1(0x7f800000))))
        for (uint32_t i = 0; i < n; i++)
            v[i] = canonical_nan(v[i]);
}

KVT_LANES void butterfly(f32x16 *a, f32x16 *b)
{
    const f32x16 sum = f32x16_add(*a, *b);
    *b = f32x16_sub(*a, *b);
    *a = sum;
}

/* A block of 16 n channels; n is 1, 2, 4 or 8. */
KVT_LANES void hadamard(f32x16 v[8], uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_hadamard(v[i]);
    for (uint32_t h = 1; h < n; h *= 2)
        for (uint32_t i = 0; i < n; i++)
            if (!(i & h))
                butterfly(&v[i], &v[i + h]);
    const float factor = n == 1 ? 0.25f : n == 2 ? 0x1.6a09e6p-3f : n == 4 ? 0.125f : 0x1.6a09e6p-4f;
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_mul(v[i], f32x16_set1(factor));
}

/* ---- n groups of a caller's row, whose dtype is asked for once ---- */

KVT_LANES void load_groups(f32x16 *v, uint32_t n, const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F32)
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_load(p + (size_t)i * 64);
    else if (dtype == KVT_F16)
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_load_f16(p + (size_t)i * 32);
    else
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_from_bits(widen_bf16(i32x16_load_u16(p + (size_t)i * 32)));
}

KVT_LANES void store_groups(uint8_t *p, kvt_dtype dtype, uint32_t n, const f32x16 *v)
{
    if (dtype == KVT_F32)
        for (uint32_t i = 0; i < n; i++)
            f32x16_store(p + (size_t)i * 64, v[i]);
    else if (dtype == KVT_F16)
        for (uint32_t i = 0; i < n; i++)
            f32x16_store_f16(p + (size_t)i * 32, v[i]);
    else
        for (uint32_t i = 0; i < n; i++)
            i32x16_store_u16(p + (size_t)i * 32, narrow_bf16(i32x16_from_f32_bits(v[i])));
}

/* ---- rows ---- */

/* Groups g .. g+n-1 are a block of the rotation, or groups without a rotation. `from`, `to`: where group g of the caller's row is. */
KVT_LANES void prepare_block(float *x, const uint8_t *from, kvt_dtype dtype, uint32_t g, uint32_t n, bool is_rotated, const float *mu)
{
    f32x16 v[8];
    load_groups(v, n, from, dtype);
    if (is_rotated) {
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_from_bits(i32x16_xor(i32x16_from_f32_bits(without_small(v[i])), signs_of(g + i)));
        hadamard(v, n);
    }
    if (mu)
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_sub(without_small(v[i]), f32x16_load(mu + 16 * (g + i)));
    if (is_rotated || mu)
        canonical_nans(v, n);
    for (uint32_t i = 0; i < n; i++)
        f32x16_store(x + 16 * (g + i), v[i]);
}

KVT_LANES void restore_block(const float *x, uint8_t *to, kvt_dtype dtype, uint32_t g, uint32_t n, bool is_rotated, const float *mu)
{
    f32x16 v[8];
    for (uint32_t i = 0; i < n; i++)
        v[i] = f32x16_load(x + 16 * (g + i));
    if (mu)
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_add(without_small(v[i]), f32x16_load(mu + 16 * (g + i)));
    if (is_rotated) {
        for (uint32_t i = 0; i < n; i++)
            v[i] = without_small(v[i]);
        hadamard(v, n);
        for (uint32_t i = 0; i < n; i++)
            v[i] = f32x16_from_bits(i32x16_xor(i32x16_from_f32_bits(v[i]), signs_of(g + i)));
    }
    if (is_rotated || mu)
        canonical_nans(v, n);
    store_groups(to, dtype, n, v);
}

/* `count` blocks: a function for each number of groups, and for four groups without rotation. */
#define BLOCKS_OF(name, n, is_rotated)                                                                                                               \
    KVT_ONCE void prepare_##name(float *x, const uint8_t *from, kvt_dtype dtype, uint32_t g, uint32_t count, const float *mu)                        \
    {                                                                                                                                                \
        for (; count > 0; count--, g += n, from += (size_t)(n)*16 * number_bytes(dtype))                                                             \
            prepare_block(x, from, dtype, g, n, is_rotated, mu);                                                                                     \
    }                                                                                                                                                \
    KVT_ONCE void restore_##name(const float *x, uint8_t *to, kvt_dtype dtype, uint32_t g, uint32_t count, const float *mu)                          \
    {                                                                                                                                                \
        for (; count > 0; count--, g += n, to += (size_t)(n)*16 * number_bytes(dtype))                                                               \
            restore_block(x, to, dtype, g, n, is_rotated, mu);                                                                                       \
    }
BLOCKS_OF(8, 8, true)
BLOCKS_OF(4, 4, true)
BLOCKS_OF(2, 2, true)
BLOCKS_OF(1, 1, true)
BLOCKS_OF(four_plain, 4, false)
BLOCKS_OF(plain, 1, false)

typedef void prepare_fn(float *x, const uint8_t *from, kvt_dtype dtype, uint32_t g, uint32_t count, const float *mu);
typedef void restore_fn(const float *x, uint8_t *to, kvt_dtype dtype, uint32_t g, uint32_t count, const float *mu);

/* A rotation in blocks of n groups; the last block may have fewer; 0: none. */
static prepare_fn *prepare_of(uint32_t n)
{
    return n == 8 ? prepare_8 : n == 4 ? prepare_4 : n == 2 ? prepare_2 : n == 1 ? prepare_1 : prepare_plain;
}
static restore_fn *restore_of(uint32_t n)
{
    return n == 8 ? restore_8 : n == 4 ? restore_4 : n == 2 ? restore_2 : n == 1 ? restore_1 : restore_plain;
}

/* What blocks of a row with all their channels leave over, from group g on: padded. */
KVT_ONCE void prepare_rest(float *x, const uint8_t *row, kvt_dtype dtype, uint32_t dim, uint32_t g, uint32_t n, const float *mu)
{
    const uint32_t groups = (dim + 15) / 16;
    for (uint32_t i = g; i < groups; i++)
        f32x16_store(x + 16 * i, load_some(row + (size_t)i * 16 * number_bytes(dtype), dtype, dim - 16 * i));
    for (; g < groups; g += n ? n : 1) {
        while (n > groups - g)
            n /= 2;
        prepare_of(n)(x, (const uint8_t *)(x + 16 * g), KVT_F32, g, 1, mu);
    }
}

KVT_ONCE void restore_rest(const float *x, uint8_t *row, kvt_dtype dtype, uint32_t dim, uint32_t g, uint32_t n, const float *mu)
{
    const uint32_t groups = (dim + 15) / 16;
    while (g < groups) {
        float restored[8 * 16];
        while (n > groups - g)
            n /= 2;
        restore_of(n)(x, (uint8_t *)restored, KVT_F32, g, 1, mu);
        for (uint32_t i = 0; i < (n ? n : 1); i++, g++) {
            uint8_t narrowed[64];
            const uint32_t left = dim - 16 * g;
            store_number(narrowed, dtype, f32x16_load(restored + 16 * i));
            memcpy(row + (size_t)g * 16 * number_bytes(dtype), narrowed, (left < 16 ? left : 16) * number_bytes(dtype));
        }
    }
}

static void prepare_rows(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                         const float *mu)
{
    const uint32_t groups = (dim + 15) / 16, n = rotation / 16, step = n ? n : 4;
    prepare_fn *const block = n ? prepare_of(n) : prepare_four_plain;
    for (uint32_t t = 0; t < count; t++) {
        const uint8_t *row = rows + (ptrdiff_t)t * row_stride;
        float *x = staged + (size_t)t * groups * 16;
        const uint32_t whole = dim / 16 / step, g = whole * step;
        block(x, row, dtype, 0, whole, mu);
        if (g < groups)
            prepare_rest(x, row, dtype, dim, g, n, mu);
    }
}

static void restore_rows(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                         const float *mu)
{
    const uint32_t groups = (dim + 15) / 16, n = rotation / 16, step = n ? n : 4;
    restore_fn *const block = n ? restore_of(n) : restore_four_plain;
    for (uint32_t t = 0; t < count; t++) {
        uint8_t *row = rows + (ptrdiff_t)t * row_stride;
        const float *x = staged + (size_t)t * groups * 16;
        const uint32_t whole = dim / 16 / step, g = whole * step;
        block(x, row, dtype, 0, whole, mu);
        if (g < groups)
            restore_rest(x, row, dtype, dim, g, n, mu);
    }
}

static void add_rows(float *sum, const float *staged, uint32_t count, uint32_t dim)
{
    const uint32_t groups = (dim + 15) / 16;
    for (uint32_t g = 0; g < groups; g++) {
        f32x16 s = f32x16_load(sum + 16 * g);
        for (uint32_t t = 0; t < count; t++) {
            const f32x16 x = f32x16_load(staged + ((size_t)t * groups + g) * 16);
            const mask16 is_finite = i32x16_gt(i32x16_set1(0x7f800000), magnitude_bits(x));
            s = f32x16_add(s, without_small(f32x16_from_bits(i32x16_select(is_finite, i32x16_from_f32_bits(x), i32x16_set1(0)))));
        }
        f32x16_store(sum + 16 * g, s);
    }
}

enum { CENTRE_BLOCK_GROUPS = 2 };

static void load_centre(float *mu, const uint8_t *centre, uint32_t dim)
{
    const uint32_t groups = (dim + 15) / 16;
    const uint8_t *scales = centre + (size_t)groups * 16;
    for (uint32_t g = 0; g < groups; g++) {
        uint8_t half[32] = { 0 };
        memcpy(half, scales + g / CENTRE_BLOCK_GROUPS * 2, 2);
        float scale[16];
        f32x16_store(scale, f32x16_load_f16(half));
        uint32_t bits;
        memcpy(&bits, scale, 4);
        const bool is_finite = (bits & 0x7f800000) != 0x7f800000;
        i32x16 code = i32x16_load_u8(centre + (size_t)g * 16);
        code = i32x16_sub(i32x16_xor(code, i32x16_set1(0x80)), i32x16_set1(0x80)); /* sign */
        f32x16_store(mu + 16 * g, f32x16_mul(f32x16_from_i32(code), f32x16_set1(is_finite ? scale[0] : 0)));
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
    .add = add_rows,
    .load_centre = load_centre,
    .store_centre = store_centre,
};
