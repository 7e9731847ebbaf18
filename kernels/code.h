/* SPDX-License-Identifier: MIT */
/* Between rows of numbers and rows of codes, once for all coders: a code_*.c is its steps, and KVT_CODER makes the loops of them.
 *
 * Numbers become codes row by row, because rows are what is far away: memory likes long walks. Between a row and the lines of a tile stands the row
 * of its codes, in the L1 cache; kernels/pack.c takes it from there. */
#ifndef KVT_CODE_H
#define KVT_CODE_H

#include "kernels/lanes.h"

/* The scales of 16 blocks: of one block of 16 tokens, or of 16 blocks of one token. */
typedef struct block_scale {
    f32x16 scale; /* as it is stored, before narrowing */
    f32x16 r;     /* what encode multiplies by */
    bool has_unrepresentable;
    uint32_t unrepresentable[16]; /* lanes to be encoded as zeros, because their block holds numbers that no code stands for */
} block_scale;

/* What a coder of codes of a byte and less is made of. */
typedef struct code_steps {
    i32x16 (*magnitude)(f32x16 x);                                      /* what the largest of a block is looked for by, as unsigned integers */
    block_scale (*scale_of)(i32x16 largest, const kvt_tile_spec *spec); /* of 16 blocks */
    i32x16 (*encode)(f32x16 x, f32x16 r);                               /* of 16 channels of one row; r belongs to the row's block */
    u8x64 (*pack)(const i32x16 code[4], const kvt_table *table);        /* of four groups, to bytes */
    f32x16 (*decode)(const uint8_t *codes, f32x16 s);                   /* and back: of 16 codes, or levels */
    uint32_t (*least_scale)(const kvt_tile_spec *spec); /* bits of the least scale that garbage may have: what is smaller counts as zero */
    bool has_small_blocks;                              /* of one or two groups: four blocks of a row are looked at at once */
} code_steps;

KVT_LANES const uint8_t *group_of(const uint8_t *row, uint32_t g, kvt_dtype dtype)
{
    return row + (size_t)g * 16 * number_bytes(dtype);
}

/* ---- the largest number of a block ---- */

/* Of two groups, or of one and itself. */
KVT_LANES i32x16 largest_of_pair(const code_steps *steps, const uint8_t *row, kvt_dtype dtype, uint32_t a, uint32_t b)
{
    return i32x16_max_u(steps->magnitude(load_number(group_of(row, a, dtype), dtype)), steps->magnitude(load_number(group_of(row, b, dtype), dtype)));
}

/* Of each block of the first `quads` times four rows, and zeros for the others. */
KVT_LANES void largest_of_blocks(const code_steps *steps, kvt_dtype dtype, const kvt_tile_rows *rows, uint32_t quads, uint32_t groups,
                                 uint32_t per_block, uint32_t largest[][KVT_TILE_TOKENS])
{
    for (uint32_t b = 0; quads < 4 && b << __builtin_ctz(per_block) < groups; b++)
        i32x16_store(largest[b], i32x16_set1(0));
    KVT_ROLLED
    for (uint32_t q = 0; q < quads; q++) {
        const uint8_t *const *row = rows->row + 4 * q;
        for (uint32_t begin = 0, b = 0; begin < groups; begin += per_block, b++) {
            const uint32_t end = groups - begin < per_block ? groups : begin + per_block;
            i32x16 m[4];
            if (steps->has_small_blocks && per_block <= 2) { /* not a loop */
                for (uint32_t k = 0; k < 4; k++)
                    m[k] = largest_of_pair(steps, row[k], dtype, begin, end - 1);
            } else {
                for (uint32_t k = 0; k < 4; k++)
                    m[k] = steps->magnitude(load_number(group_of(row[k], begin, dtype), dtype));
                for (uint32_t g = begin + 1; g < end; g++)
                    for (uint32_t k = 0; k < 4; k++)
                        m[k] = i32x16_max_u(m[k], steps->magnitude(load_number(group_of(row[k], g, dtype), dtype)));
            }
            quad_max_u(m, largest[b] + 4 * q);
        }
    }
}

/* The same of one row: of four blocks from group `begin` on where they are small, otherwise of one, as all four. */
KVT_LANES void largest_of_row(const code_steps *steps, kvt_dtype dtype, const uint8_t *row, uint32_t begin, uint32_t groups, uint32_t per_block,
                              uint32_t largest[4])
{
    i32x16 m[4];
    if (steps->has_small_blocks && per_block <= 2) {
        const uint32_t last = groups - 1; /* in place of those that are missing */
        if (groups - begin >= 4 * per_block)
            for (uint32_t k = 0; k < 4; k++)
                m[k] = largest_of_pair(steps, group_of(row, begin, dtype), dtype, k * per_block, (k + 1) * per_block - 1);
        else
            for (uint32_t k = 0; k < 4; k++) {
                const uint32_t first = begin + k * per_block < last ? begin + k * per_block : last;
                m[k] = largest_of_pair(steps, row, dtype, first, first + per_block - 1 < last ? first + per_block - 1 : last);
            }
        quad_max_u(m, largest);
        return;
    }
    const uint32_t end = groups - begin < per_block ? groups : begin + per_block;
    for (uint32_t k = 0; k < 4; k++)
        m[k] = steps->magnitude(load_number(group_of(row, begin + k < end ? begin + k : begin, dtype), dtype));
    for (uint32_t g = begin + 4; g < end; g += 4)
        for (uint32_t k = 0; k < 4; k++)
            m[k] = i32x16_max_u(m[k], steps->magnitude(load_number(group_of(row, g + k < end ? g + k : begin, dtype), dtype)));
    m[0] = i32x16_max_u(i32x16_max_u(m[0], m[1]), i32x16_max_u(m[2], m[3]));
    m[1] = m[2] = m[3] = m[0];
    quad_max_u(m, largest);
}

/* ---- scales ---- */

KVT_LANES void store_scales(uint8_t *to, uint32_t bytes, f32x16 scale)
{
    if (bytes == 4)
        f32x16_store(to, scale);
    else if (bytes == 2)
        f32x16_store_f16(to, scale);
    else if (bytes == 1)
        i32x16_store_u8(to, i32x16_shr(i32x16_from_f32_bits(scale), 23));
}

KVT_LANES void copy_scale(uint8_t *to, const uint8_t *from, uint32_t bytes)
{
    if (bytes == 4)
        memcpy(to, from, 4);
    else if (bytes == 2)
        memcpy(to, from, 2);
    else if (bytes == 1)
        *to = *from;
}

/* What garbage counts as (docs/formats.md, section 5): 0 times infinity would be a NaN of another sign on ARM than on x86, and a product that is
 * subnormal would depend on FTZ. */
KVT_LANES f32x16 readable_scale(f32x16 scale, uint32_t least)
{
    const i32x16 all = i32x16_from_f32_bits(scale), bits = i32x16_and(all, i32x16_set1(0x7fffffff));
    const i32x16 finite = i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(0x7fc00000), all);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(least), bits), i32x16_set1(0), finite));
}

KVT_LANES void load_scales(const code_steps *steps, uint32_t bytes, const uint8_t *scales, uint32_t b, uint32_t n, const kvt_tile_spec *spec,
                           float *to, size_t stride)
{
    const uint32_t least = steps->least_scale(spec);
    for (uint32_t k = 0; k < n; k++) {
        const uint8_t *p = scales + (size_t)(b + k) * KVT_TILE_TOKENS * bytes;
        f32x16 s;
        if (bytes == 4)
            s = readable_scale(f32x16_load(p), least);
        else if (bytes == 2)
            s = readable_scale(f32x16_load_f16(p), least);
        else if (bytes == 1)
            s = readable_scale(f32x16_from_bits(i32x16_shl(i32x16_load_u8(p), 23)), least);
        else
            s = f32x16_set1(spec->tensor_scale);
        f32x16_store(to + k * stride, s);
    }
}

/* Multipliers with NaN for blocks that cannot be represented; returns whether there are any. */
KVT_LANES bool store_factors(float r[16], const block_scale *s)
{
    f32x16_store(r, s->r);
    if (s->has_unrepresentable)
        for (uint32_t i = 0; i < 16; i++)
            if (s->unrepresentable[i])
                r[i] = (float)NAN;
    return s->has_unrepresentable;
}

KVT_LANES bool choose_scales(const code_steps *steps, uint32_t bytes, uint32_t per_block, const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales,
                             const kvt_tile_rows *rows, uint32_t quads, kvt_factors *factors)
{
    const uint32_t groups = spec->dim / 16, blocks = blocks_in(groups, per_block);
    uint32_t largest[KVT_MAX_GROUPS][KVT_TILE_TOKENS];
    if (bytes == 0)
        for (uint32_t b = 0; b < blocks; b++)
            i32x16_store(largest[b], i32x16_set1(0));
    else if (dtype == KVT_F32)
        largest_of_blocks(steps, KVT_F32, rows, quads, groups, per_block, largest);
    else if (dtype == KVT_F16)
        largest_of_blocks(steps, KVT_F16, rows, quads, groups, per_block, largest);
    else
        largest_of_blocks(steps, KVT_BF16, rows, quads, groups, per_block, largest);
    bool has_nan = false;
    for (uint32_t b = 0; b < blocks; b++) {
        const block_scale s = steps->scale_of(i32x16_load(largest[b]), spec);
        store_scales(scales + (size_t)b * KVT_TILE_TOKENS * bytes, bytes, s.scale);
        has_nan |= store_factors(factors->r[b], &s);
    }
    return has_nan;
}

KVT_LANES bool choose_row_scales(const code_steps *steps, uint32_t bytes, uint32_t per_block, const kvt_tile_spec *spec, kvt_dtype dtype,
                                 uint8_t *scales, const uint8_t *row, uint32_t token, float *r)
{
    const uint32_t groups = spec->dim / 16, blocks = blocks_in(groups, per_block);
    const uint32_t at_once = steps->has_small_blocks && per_block <= 2 ? 4 : 1;
    bool has_nan = false;
    for (uint32_t b = 0; b < blocks; b += at_once) {
        uint32_t largest[4];
        uint8_t stored[64], *to = scales + ((size_t)b * KVT_TILE_TOKENS + token) * bytes;
        largest_of_row(steps, dtype, row, b * per_block, groups, per_block, largest);
        const block_scale s = steps->scale_of(i32x16_from_u8(u8x64_load_quarter(largest)), spec);
        store_scales(stored, bytes, s.scale);
        has_nan |= store_factors(r + b, &s);
        if (at_once == 4 && blocks - b >= 4) /* all of them, without a question for each */
            for (uint32_t i = 0; i < 4; i++)
                copy_scale(to + (size_t)i * KVT_TILE_TOKENS * bytes, stored + i * bytes, bytes);
        else
            for (uint32_t i = 0; i < (at_once < blocks - b ? at_once : blocks - b); i++)
                copy_scale(to + (size_t)i * KVT_TILE_TOKENS * bytes, stored + i * bytes, bytes);
    }
    return has_nan;
}

/* ---- rows to codes ---- */

/* Codes that are unsigned numbers of a byte. */
KVT_LANES u8x64 pack_bytes(const i32x16 code[4], const kvt_table *table)
{
    (void)table;
    return u8x64_pack_u8(code);
}

/* Four groups, whose factors are r[step[k]]. What is `ahead`, where that is not 0, is wanted next: a tile's rows are looked through for the largest
 * number first, four side by side, and memory takes a while to understand such a walk. */
KVT_LANES void encode_four(const code_steps *steps, const kvt_table *table, kvt_dtype dtype, const uint8_t *from, ptrdiff_t ahead, const float *r,
                           const size_t step[4], uint8_t *codes)
{
    i32x16 code[4];
    for (uint32_t k = 0; k < 4; k++) {
        if (ahead)
            prefetch_far(from + (size_t)k * 16 * number_bytes(dtype), (size_t)ahead);
        code[k] = steps->encode(load_number(from + (size_t)k * 16 * number_bytes(dtype), dtype), f32x16_set1(r[step[k]]));
    }
    u8x64_store(codes, steps->pack(code, table));
}

/* Blocks that cannot be represented, and what four groups at a time leave over of rows that have no four or are no floats: in place of groups that
 * are missing stands the first of the four. */
KVT_LANES void encode_rest(const code_steps *steps, const kvt_table *table, kvt_dtype dtype, const uint8_t *row, uint32_t begin, uint32_t end,
                           uint32_t per_block, const float *r, uint32_t r_stride, uint8_t *codes)
{
    const uint32_t shift = (uint32_t)__builtin_ctz(per_block);
    KVT_ROLLED
    for (uint32_t g = begin; g < end; g += 4) {
        i32x16 code[4];
        for (uint32_t k = 0; k < 4; k++) {
            const uint32_t at = g + k < end ? g + k : g;
            const float factor = r[(size_t)(at >> shift) * r_stride];
            const bool is_nan = factor != factor; /* elements may be no numbers that a code exists for */
            code[k] = steps->encode(is_nan ? f32x16_set1(0) : load_number(group_of(row, at, dtype), dtype), f32x16_set1(is_nan ? 0 : factor));
        }
        u8x64_store(codes + (size_t)(g - begin) * 16, steps->pack(code, table));
    }
}

/* `rest` is a function of its own, because it is hardly ever called: encode_rest for any dtype. `begin` is a multiple of a block, or of four. */
typedef void encode_rest_fn(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *row, uint32_t begin, uint32_t end, const float *r,
                            uint32_t r_stride, uint8_t *codes);
KVT_LANES void encode_rows(const code_steps *steps, encode_rest_fn *rest, uint32_t per_block, const kvt_tile_spec *spec, kvt_dtype dtype,
                           const uint8_t *const *rows, uint32_t n, ptrdiff_t ahead, uint32_t begin, uint32_t end, const float *r, uint32_t r_stride,
                           bool has_nan, uint8_t *codes, size_t stride)
{
    const uint32_t left = (end - begin) % 4, whole = has_nan ? begin : end - left, shift = (uint32_t)__builtin_ctz(per_block);
    const uint32_t last = dtype == KVT_F32 && whole > begin && left > 0 ? end - 4 : end; /* once more what was encoded, to have four */
    const size_t step[4] = { 0, (size_t)(1u >> shift) * r_stride, (size_t)(2u >> shift) * r_stride, (size_t)(3u >> shift) * r_stride };
    const kvt_table *table = spec->scheme->table;
    KVT_ROLLED
    for (uint32_t t = 0; t < n; t++) {
        const uint8_t *from = group_of(rows[t], begin, dtype);
        uint8_t *to = codes + t * stride;
        for (uint32_t g = begin; g < whole; g += 4, to += 64, from += (size_t)64 * number_bytes(dtype))
            encode_four(steps, table, dtype, from, ahead, r + t + (size_t)(g >> shift) * r_stride, step, to);
        if (last < end) {
            size_t last_step[4];
            for (uint32_t k = 0; k < 4; k++)
                last_step[k] = (size_t)(((last + k) >> shift) - (last >> shift)) * r_stride;
            encode_four(steps, table, dtype, group_of(rows[t], last, dtype), 0, r + t + (size_t)(last >> shift) * r_stride, last_step,
                        codes + t * stride + (size_t)(last - begin) * 16);
        } else if (whole < end) {
            rest(spec, dtype, rows[t], whole, end, r + t, r_stride, to);
        }
    }
}

/* ---- a few tokens ---- */

/* From how many rows on it pays to choose their scales as a tile's, side by side, though four at a time are paid for. */
enum { ROWS_SIDE_BY_SIDE = 3 };

/* Numbers of any dtype, which is asked for row by row. */
KVT_LANES void write_tokens(const code_steps *steps, const code_steps *scale_steps, kvt_choose_fn *choose, encode_rest_fn *rest, uint32_t bytes,
                            uint32_t per_block, const kvt_tile_spec *spec, kvt_dtype dtype, const kvt_place *places, uint32_t n,
                            kvt_pack_token_fn *scatter)
{
    _Alignas(64) kvt_factors factors;
    _Alignas(64) uint8_t scales[sizeof factors]; /* no scale is wider than a float */
    _Alignas(64) uint8_t codes[KVT_MAX_DIM];
    const uint32_t groups = spec->dim / 16, blocks = blocks_in(groups, per_block), r_stride = KVT_TILE_TOKENS;
    const bool are_many = n >= ROWS_SIDE_BY_SIDE;
    bool has_nan = false;
    if (are_many) {
        kvt_tile_rows rows;
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            rows.row[t] = places[t < n ? t : 0].row;
        has_nan = choose(spec, dtype, scales, &rows, (n + 3) / 4, &factors);
    }
    KVT_ROLLED
    for (uint32_t t = 0; t < n; t++) {
        const kvt_place *at = &places[t];
        if (are_many) {
            for (uint32_t b = 0; b < blocks; b++)
                copy_scale(at->scales + ((size_t)b * KVT_TILE_TOKENS + at->token) * bytes, scales + ((size_t)b * KVT_TILE_TOKENS + t) * bytes, bytes);
        } else {
            float r[KVT_MAX_GROUPS + 12]; /* whole registers are stored, for four blocks or one */
            has_nan = choose_row_scales(scale_steps, bytes, per_block, spec, dtype, at->scales, at->row, at->token, r);
            for (uint32_t b = 0; b < blocks; b++)
                factors.r[b][t] = r[b];
        }
        const float *r = factors.r[0] + t;
        if (dtype == KVT_F32)
            encode_rows(steps, rest, per_block, spec, KVT_F32, &at->row, 1, 0, 0, groups, r, r_stride, has_nan, codes, 0);
        else if (dtype == KVT_F16)
            encode_rows(steps, rest, per_block, spec, KVT_F16, &at->row, 1, 0, 0, groups, r, r_stride, has_nan, codes, 0);
        else
            encode_rows(steps, rest, per_block, spec, KVT_BF16, &at->row, 1, 0, 0, groups, r, r_stride, has_nan, codes, 0);
        scatter(at->codes, groups, codes, at->token);
    }
}

/* ---- codes to rows ---- */

KVT_LANES void decode_rows(const code_steps *steps, uint32_t per_block, kvt_dtype dtype, const uint8_t *codes, size_t stride, uint32_t n,
                           uint32_t begin, uint32_t end, const float *scale, uint8_t *rows, ptrdiff_t row_stride)
{
    const uint32_t shift = (uint32_t)__builtin_ctz(per_block);
    KVT_ROLLED
    for (uint32_t t = 0; t < n; t++) {
        uint8_t *to = rows + (ptrdiff_t)t * row_stride + (size_t)begin * 16 * number_bytes(dtype);
        const uint8_t *from = codes + t * stride;
        KVT_UNROLLED
        for (uint32_t g = begin; g < end; g++, from += 16, to += 16 * number_bytes(dtype))
            store_number(to, dtype, steps->decode(from, f32x16_set1(scale[(size_t)(g >> shift) * KVT_TILE_TOKENS + t])));
    }
}

/* ---- a coder ---- */

/* Its scales, of so many `bytes`, and its rows, in blocks of `per_block` groups: constants, where they are. */
#define KVT_CODER_SCALES(name, steps, bytes, per_block)                                                                                              \
    static bool choose_##name(const kvt_tile_spec *spec, kvt_dtype dtype, uint8_t *scales, const kvt_tile_rows *rows, uint32_t quads,                \
                              kvt_factors *factors)                                                                                                  \
    {                                                                                                                                                \
        return choose_scales(steps, bytes, per_block, spec, dtype, scales, rows, quads, factors);                                                    \
    }                                                                                                                                                \
    static void load_scales_##name(const uint8_t *scales, size_t tile_bytes, uint32_t tiles, uint32_t b, uint32_t n, const kvt_tile_spec *spec,      \
                                   float *to, size_t stride)                                                                                         \
    {                                                                                                                                                \
        for (uint32_t i = 0; i < tiles; i++)                                                                                                         \
            load_scales(steps, bytes, scales + i * tile_bytes, b, n, spec, to + i * KVT_TILE_TOKENS, stride);                                        \
    }

#define KVT_CODER_ROWS(name, steps, per_block)                                                                                                       \
    KVT_ONCE void rest_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *row, uint32_t begin, uint32_t end, const float *r,          \
                              uint32_t r_stride, uint8_t *codes)                                                                                     \
    {                                                                                                                                                \
        encode_rest(steps, spec->scheme->table, dtype, row, begin, end, per_block, r, r_stride, codes);                                              \
    }                                                                                                                                                \
    KVT_ONCE void encode_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *const *rows, uint32_t n, ptrdiff_t ahead, uint32_t begin, \
                                uint32_t end, const float *r, uint32_t r_stride, bool has_nan, uint8_t *codes, size_t stride)                        \
    {                                                                                                                                                \
        if (dtype == KVT_F32)                                                                                                                        \
            encode_rows(steps, rest_##name, per_block, spec, KVT_F32, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);              \
        else if (dtype == KVT_F16)                                                                                                                   \
            encode_rows(steps, rest_##name, per_block, spec, KVT_F16, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);              \
        else                                                                                                                                         \
            encode_rows(steps, rest_##name, per_block, spec, KVT_BF16, rows, n, ahead, begin, end, r, r_stride, has_nan, codes, stride);             \
    }                                                                                                                                                \
    static void decode_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const uint8_t *codes, size_t stride, uint32_t n, uint32_t begin,           \
                              uint32_t end, const float *scale, uint8_t *rows, ptrdiff_t row_stride)                                                 \
    {                                                                                                                                                \
        (void)spec;                                                                                                                                  \
        if (dtype == KVT_F32)                                                                                                                        \
            decode_rows(steps, per_block, KVT_F32, codes, stride, n, begin, end, scale, rows, row_stride);                                           \
        else if (dtype == KVT_F16)                                                                                                                   \
            decode_rows(steps, per_block, KVT_F16, codes, stride, n, begin, end, scale, rows, row_stride);                                           \
        else                                                                                                                                         \
            decode_rows(steps, per_block, KVT_BF16, codes, stride, n, begin, end, scale, rows, row_stride);                                          \
    }

#define KVT_CODER_EXPORT(name, scales, steps, scale_steps, bytes, per_block)                                                                         \
    static void write_tokens_##name(const kvt_tile_spec *spec, kvt_dtype dtype, const kvt_place *places, uint32_t n, kvt_pack_token_fn *scatter)     \
    {                                                                                                                                                \
        write_tokens(steps, scale_steps, choose_##scales, rest_##name, bytes, per_block, spec, dtype, places, n, scatter);                           \
    }                                                                                                                                                \
    extern const kvt_coder KVT_EXPORT(coder_##name);                                                                                                 \
    const kvt_coder KVT_EXPORT(coder_##name) = { choose_##scales, write_tokens_##name, encode_##name, decode_##name, load_scales_##scales };

#endif
