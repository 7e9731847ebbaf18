/* SPDX-License-Identifier: MIT */
/* Numbers of tables: codes are indices of levels, blocks have a signed byte as scale, which kernels/search.c has found. Between a row and its codes
 * stands the integer whose nearest level is wanted, and what is decoded is levels already. */
#include "kernels/code.h"
#include "kernels/levels.h"
#include "kernels/table_scale.h"

KVT_LANES i32x16 level_wanted(f32x16 x, f32x16 r)
{
    return i32x16_from_f32_rne(f32x16_mul(x, r));
}

KVT_LANES f32x16 decode_level(const uint8_t *levels_of_row, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(i32x16_load_s8(levels_of_row)), s);
}

#define ROWS_OF(name, bits, per_block)                                                                                                               \
    KVT_LANES u8x64 pack_##name(const i32x16 code[4], const kvt_table *table)                                                                        \
    {                                                                                                                                                \
        return codes_of(bits, table, u8x64_pack_sat_s8(code));                                                                                       \
    }                                                                                                                                                \
    static const code_steps steps_##name = { .encode = level_wanted, .pack = pack_##name };                                                          \
    KVT_ONCE void rest_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *row, uint32_t begin, uint32_t end, const float *r,          \
                              uint32_t r_stride, uint8_t *codes)                                                                                     \
    {                                                                                                                                                \
        (void)dtype;                                                                                                                                 \
        encode_rest(&steps_##name, spec->scheme->table, KVT_F32, row, begin, end, per_block, r, r_stride, codes);                                    \
    }                                                                                                                                                \
    KVT_ONCE void rows_##name(const kvt_tile_spec *spec, const uint8_t *const *rows, uint32_t n, ptrdiff_t ahead, uint32_t begin, uint32_t end,      \
                              const float *r, uint32_t r_stride, bool has_nan, uint8_t *codes, size_t stride)                                        \
    {                                                                                                                                                \
        encode_rows(&steps_##name, rest_##name, per_block, spec, KVT_F32, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);          \
    }
ROWS_OF(2, 2, 2)
ROWS_OF(3, 3, 2)
ROWS_OF(4, 4, 2)
ROWS_OF(4h, 4, 1)
ROWS_OF(5, 5, 2)
ROWS_OF(6, 6, 2)

/* Rows are f32. */
static void encode_table(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *const *rows, uint32_t n, ptrdiff_t ahead, uint32_t begin,
                         uint32_t end, const float *r, uint32_t r_stride, bool has_nan, uint8_t *codes, size_t stride)
{
    (void)dtype;
    const uint32_t bits = spec->scheme->bits;
    if (bits == 2)
        rows_2(spec, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);
    else if (bits == 3)
        rows_3(spec, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);
    else if (bits == 4 && spec->block_groups == 2)
        rows_4(spec, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);
    else if (bits == 4)
        rows_4h(spec, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);
    else if (bits == 5)
        rows_5(spec, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);
    else
        rows_6(spec, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);
}

static void decode_table(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *codes, size_t stride, uint32_t n, uint32_t begin, uint32_t end,
                         const float *scale, uint8_t *rows, ptrdiff_t row_stride)
{
    static const code_steps steps = { .decode = decode_level };
    (void)dtype;
    if (spec->block_groups == 2)
        decode_rows(&steps, 2, KVT_F32, codes, stride, n, begin, end, scale, rows, row_stride);
    else
        decode_rows(&steps, 1, KVT_F32, codes, stride, n, begin, end, scale, rows, row_stride);
}

/* ---- scales ---- */

/* What the first scales of 16 rows decide for the others. */
typedef struct first_scales {
    f32x16 scale;
    i32x16 exponent; /* to be added to the others' */
    mask16 is_zero, is_nan;
    bool are_plain; /* no zero, no NaN */
} first_scales;

KVT_LANES first_scales load_first_scales(const uint8_t *scales)
{
    const i32x16 u = i32x16_load_u8(scales), zero = i32x16_set1(0);
    first_scales first = { .exponent = i32x16_shl(i32x16_add(i32x16_shr(u, 3), i32x16_set1(OTHER_BIAS)), 23),
                           .is_zero = i32x16_gt(i32x16_set1(1), u),
                           .is_nan = i32x16_gt(u, i32x16_set1(254)) };
    const i32x16 bits = i32x16_shl(i32x16_add(u, i32x16_set1(FIRST_BIAS << 3)), FIRST_SHIFT);
    first.scale = f32x16_from_bits(i32x16_select(first.is_zero, zero, i32x16_select(first.is_nan, i32x16_set1(0x7fc00000), bits)));
    first.are_plain = !mask16_any(i32x16_gt(i32x16_add(u, i32x16_set1(UINT32_MAX)), i32x16_set1(253))) && !mask16_any(first.is_zero);
    return first;
}

KVT_LANES f32x16 load_other_scales(const first_scales *first, const uint8_t *scales)
{
    /* The sign is copied to all bits above; those of the exponent are not wanted. */
    const i32x16 s = i32x16_load_s8(scales), zero = i32x16_set1(0);
    const i32x16 shifted = i32x16_and(i32x16_shl(s, OTHER_SHIFT), i32x16_set1(0x80000000 | 127u << OTHER_SHIFT));
    const i32x16 bits = i32x16_select(i32x16_gt(i32x16_and(s, i32x16_set1(127)), zero), i32x16_add(shifted, first->exponent), zero);
    if (first->are_plain)
        return f32x16_from_bits(bits);
    return f32x16_from_bits(i32x16_select(first->is_zero, zero, i32x16_select(first->is_nan, i32x16_set1(0x7fc00000), bits)));
}

static void load_scales_table(const uint8_t *scales, size_t tile_bytes, uint32_t tiles, uint32_t b, uint32_t n, const kvt_tile_spec *spec, float *to,
                              size_t stride)
{
    (void)spec;
    const uint32_t first_stored = b == 0 && n > 0;
    KVT_ROLLED
    for (; tiles > 0; tiles--, scales += tile_bytes, to += KVT_TILE_TOKENS) {
        const first_scales first = load_first_scales(scales);
        if (first_stored)
            f32x16_store(to, first.scale);
        const uint8_t *other = scales + (size_t)(b + first_stored) * KVT_TILE_TOKENS;
        float *at = to + first_stored * stride;
        KVT_ROLLED
        for (uint32_t k = first_stored; k < n; k++, at += stride, other += KVT_TILE_TOKENS)
            f32x16_store(at, load_other_scales(&first, other));
    }
}

extern const kvt_coder KVT_EXPORT(coder_table);
const kvt_coder KVT_EXPORT(coder_table) = { .encode = encode_table, .decode = decode_table, .load_scales = load_scales_table };
