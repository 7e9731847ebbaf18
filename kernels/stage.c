/* Rotation and centring: what happens to rows before they are encoded and after they are decoded. Compiled once per tier. docs/formats.md, sections 6
 * and 7. */
#include "kernels/ggml_scale.h"

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

/* ---- a group of a caller's row ---- */

KVT_LANES f32x16 load_number(const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F32)
        return f32x16_load(p);
    if (dtype == KVT_F16)
        return f32x16_load_f16(p);
    return f32x16_from_bits(widen_bf16(i32x16_load_u16(p)));
}

KVT_LANES void store_number(uint8_t *p, kvt_dtype dtype, f32x16 x)
{
    if (dtype == KVT_F32)
        f32x16_store(p, x);
    else if (dtype == KVT_F16)
        f32x16_store_f16(p, x);
    else
        i32x16_store_u16(p, narrow_bf16(i32x16_from_f32_bits(x)));
}

KVT_LANES uint32_t number_bytes(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? 4 : 2;
}

KVT_LANES f32x16 load_group(const uint8_t *row, kvt_dtype dtype, uint32_t dim, uint32_t g)
{
    const uint8_t *p = row + (size_t)g * 16 * number_bytes(dtype);
    if (16 * g + 16 <= dim)
        return load_number(p, dtype);
    uint8_t tail[64] = { 0 };
    memcpy(tail, p, dim % 16 * number_bytes(dtype));
    return load_number(tail, dtype);
}

KVT_LANES void store_group(uint8_t *row, kvt_dtype dtype, uint32_t dim, uint32_t g, f32x16 x)
{
    uint8_t *p = row + (size_t)g * 16 * number_bytes(dtype);
    if (16 * g + 16 <= dim) {
        store_number(p, dtype, x);
        return;
    }
    uint8_t tail[64];
    store_number(tail, dtype, x);
    memcpy(p, tail, dim % 16 * number_bytes(dtype));
}

/* ---- rows ---- */

/* Groups g .. g+n-1 are a block of the rotation, or one group without a rotation (n is 0). */
KVT_LANES void prepare_block(float *x, const uint8_t *row, kvt_dtype dtype, uint32_t dim, uint32_t g, uint32_t n, const float *mu)
{
    f32x16 v[8];
    const uint32_t groups = n ? n : 1;
    for (uint32_t i = 0; i < groups; i++) {
        v[i] = load_group(row, dtype, dim, g + i);
        if (n)
            v[i] = f32x16_from_bits(i32x16_xor(i32x16_from_f32_bits(without_small(v[i])), signs_of(g + i)));
    }
    if (n)
        hadamard(v, n);
    for (uint32_t i = 0; mu && i < groups; i++)
        v[i] = f32x16_sub(without_small(v[i]), f32x16_load(mu + 16 * (g + i)));
    if (n || mu)
        canonical_nans(v, groups);
    for (uint32_t i = 0; i < groups; i++)
        f32x16_store(x + 16 * (g + i), v[i]);
}

KVT_LANES void restore_block(const float *x, uint8_t *row, kvt_dtype dtype, uint32_t dim, uint32_t g, uint32_t n, const float *mu)
{
    f32x16 v[8];
    const uint32_t groups = n ? n : 1;
    for (uint32_t i = 0; i < groups; i++) {
        v[i] = f32x16_load(x + 16 * (g + i));
        if (mu)
            v[i] = f32x16_add(without_small(v[i]), f32x16_load(mu + 16 * (g + i)));
        if (n)
            v[i] = without_small(v[i]);
    }
    if (n)
        hadamard(v, n);
    for (uint32_t i = 0; n && i < groups; i++)
        v[i] = f32x16_from_bits(i32x16_xor(i32x16_from_f32_bits(v[i]), signs_of(g + i)));
    if (n || mu)
        canonical_nans(v, groups);
    for (uint32_t i = 0; i < groups; i++)
        store_group(row, dtype, dim, g + i, v[i]);
}

/* Calls block(..., dim, g, n, mu) for each block of a row, with n as a constant; and where blocks are whole, as they nearly always are, with nothing
 * left to ask: a dim without an end, and whether there is a centre. */
#define FOR_WHOLE_BLOCKS(n, block, a, b, dtype, dim, mu)                                                                                             \
    for (; (g + (n)) * 16 <= (dim); g += (n))                                                                                                        \
        block(a, b, dtype, UINT32_MAX, g, n, mu);

#define FOR_BLOCKS(groups, rotation, block, a, b, dtype, dim, mu)                                                                                    \
    {                                                                                                                                                \
        uint32_t g = 0, n = (rotation) / 16;                                                                                                         \
        if (n == 4 && (mu))                                                                                                                          \
            FOR_WHOLE_BLOCKS(4, block, a, b, dtype, dim, mu)                                                                                         \
        else if (n == 4)                                                                                                                             \
            FOR_WHOLE_BLOCKS(4, block, a, b, dtype, dim, NULL)                                                                                       \
        else if (n == 8)                                                                                                                             \
            FOR_WHOLE_BLOCKS(8, block, a, b, dtype, dim, mu)                                                                                         \
        for (; g < (groups); g += n ? n : 1) {                                                                                                       \
            while (n > (groups)-g)                                                                                                                   \
                n /= 2;                                                                                                                              \
            if (n == 8)                                                                                                                              \
                block(a, b, dtype, dim, g, 8, mu);                                                                                                   \
            else if (n == 4)                                                                                                                         \
                block(a, b, dtype, dim, g, 4, mu);                                                                                                   \
            else if (n == 2)                                                                                                                         \
                block(a, b, dtype, dim, g, 2, mu);                                                                                                   \
            else if (n == 1)                                                                                                                         \
                block(a, b, dtype, dim, g, 1, mu);                                                                                                   \
            else                                                                                                                                     \
                block(a, b, dtype, dim, g, 0, mu);                                                                                                   \
        }                                                                                                                                            \
    }

static void prepare(float *staged, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                    const float *mu)
{
    const uint32_t groups = (dim + 15) / 16;
    for (uint32_t t = 0; t < count; t++) {
        const uint8_t *row = rows + (ptrdiff_t)t * row_stride;
        float *x = staged + (size_t)t * groups * 16;
        if (dtype == KVT_F32)
            FOR_BLOCKS(groups, rotation, prepare_block, x, row, KVT_F32, dim, mu)
        else if (dtype == KVT_F16)
            FOR_BLOCKS(groups, rotation, prepare_block, x, row, KVT_F16, dim, mu)
        else
            FOR_BLOCKS(groups, rotation, prepare_block, x, row, KVT_BF16, dim, mu)
    }
}

static void restore(const float *staged, uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype, uint32_t count, uint32_t dim, uint32_t rotation,
                    const float *mu)
{
    const uint32_t groups = (dim + 15) / 16;
    for (uint32_t t = 0; t < count; t++) {
        uint8_t *row = rows + (ptrdiff_t)t * row_stride;
        const float *x = staged + (size_t)t * groups * 16;
        if (dtype == KVT_F32)
            FOR_BLOCKS(groups, rotation, restore_block, x, row, KVT_F32, dim, mu)
        else if (dtype == KVT_F16)
            FOR_BLOCKS(groups, rotation, restore_block, x, row, KVT_F16, dim, mu)
        else
            FOR_BLOCKS(groups, rotation, restore_block, x, row, KVT_BF16, dim, mu)
    }
}

static void add(float *sum, const float *staged, uint32_t count, uint32_t dim)
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
        const block_scale s = ggml_scale(f32x16_div(f32x16_from_bits(i32x16_set1(largest[0])), f32x16_set1(127.0f)));
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

extern const kvt_stage KVT_JOIN(kvt_stage_, KVT_TIER);
const kvt_stage KVT_JOIN(kvt_stage_, KVT_TIER) = {
    .prepare = prepare,
    .restore = restore,
    .add = add,
    .load_centre = load_centre,
    .store_centre = store_centre,
};
