/* The loops of a scheme: rows in and out of one tile. Included at the end of a scheme_*.c, which has defined SCHEME and
 *
 *   i32x16 encode(f32x16 x, f32x16 r)     codes of 16 channels of one row; r is what belongs to the row's block
 *   f32x16 decode(i32x16 code, f32x16 s)  and back; codes arrive zero-extended, or sign-extended where CODES_SIGNED is defined; or DECODES_BYTES and
 *   f32x16 decode_bytes(const uint8_t *codes, f32x16 s)         instead: of 16 codes in memory
 *   i32x16 magnitude(f32x16 x)                                  what the largest of a block is looked for by, as unsigned integers
 *   block_scale scale_of(i32x16 largest, const kvt_tile_spec *) 16 blocks at once
 *
 * (tables with searched scales bring their own choice of scales instead, kernels/op_table.h), or, where numbers are stored in a format that rows
 * may have,
 *
 *   SCHEME_DTYPE                          that format
 *
 * Where a row format of another engine has the same codes (kernels/frame/convert.c, grids), SCHEME_COPIES_CODES is defined too: then rows of codes
 * go in and out as they are.
 *
 * Numbers become codes row by row, because rows are what is far away: memory likes long walks. Between a row and the lines of a tile stands the row
 * of its codes, in the L1 cache; kernels/lines.h takes it from there. */

#ifndef SCHEME_IS_TABLE
enum { IS_TABLE = 0 };
KVT_LANES u8x64 levels_of(u8x64 line)
{
    return line;
}
#else
enum { IS_TABLE = 1 };
#endif
#ifdef CODES_SIGNED
enum { IS_SIGNED = 1 };
#else
enum { IS_SIGNED = 0 };
#endif

#include "kernels/lines.h"

#define CODES_DTYPE ((kvt_dtype)UINT8_MAX) /* rows that are codes of a byte: write_codes, read_codes */

/* Copies of a long body gain nothing and cost the instruction cache. */
#if defined(__clang__)
#define KVT_ROLLED   _Pragma("clang loop unroll(disable)")
#define KVT_UNROLLED _Pragma("clang loop unroll_count(4)")
#else
#define KVT_ROLLED   _Pragma("GCC unroll 1")
#define KVT_UNROLLED _Pragma("GCC unroll 4")
#endif

static const uint32_t SCALE_BYTES = KVT_JOIN(KVT_SCALE_BYTES_, SCHEME);
static const bool IS_FP8 = KVT_JOIN(KVT_IS_FP8_, SCHEME);
enum { BLOCK_GROUPS = KVT_JOIN(KVT_BLOCK_GROUPS_, SCHEME) };

/* What a format of rows does not need is defined so that the compiler can see it not being used. */
#ifdef SCHEME_DTYPE
KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    (void)r;
    return i32x16_from_f32_bits(x);
}
KVT_LANES f32x16 decode(i32x16 code, f32x16 s)
{
    (void)s;
    return f32x16_from_bits(code);
}
KVT_LANES i32x16 magnitude(f32x16 x)
{
    return i32x16_from_f32_bits(x);
}
KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    return (block_scale){ .scale = f32x16_from_bits(largest), .r = f32x16_set1(0) };
}
#else
#define SCHEME_DTYPE CODES_DTYPE
#endif
#ifndef DECODES_BYTES
KVT_LANES f32x16 decode_bytes(const uint8_t *codes, f32x16 s)
{
    return decode(IS_SIGNED ? i32x16_load_s8(codes) : i32x16_load_u8(codes), s);
}
#endif
#ifndef SCHEME_IS_TABLE
KVT_LANES u8x64 codes_of(u8x64 line)
{
    return line;
}
#endif

KVT_LANES uint32_t element_bytes(kvt_dtype dtype)
{
    return dtype == CODES_DTYPE ? 1 : dtype == KVT_F32 ? 4 : 2;
}

/* ---- numbers of a row ---- */

KVT_LANES f32x16 load_row(const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F32)
        return f32x16_load(p);
    if (dtype == KVT_F16)
        return f32x16_load_f16(p);
    return f32x16_from_bits(widen_bf16(i32x16_load_u16(p)));
}

KVT_LANES void store_row(uint8_t *p, kvt_dtype dtype, f32x16 x)
{
    if (dtype == KVT_F32)
        f32x16_store(p, x);
    else if (dtype == KVT_F16)
        f32x16_store_f16(p, x);
    else
        i32x16_store_u16(p, narrow_bf16(i32x16_from_f32_bits(x)));
}

/* Rows of whole groups: the frame pads what has less. */
typedef struct tile_rows {
    const uint8_t *row[KVT_TILE_TOKENS];
} tile_rows;

static const uint8_t kvt_zero_row[KVT_MAX_DIM * 4];

KVT_LANES const uint8_t *group_of(const uint8_t *row, uint32_t g, kvt_dtype dtype)
{
    return row + (size_t)g * 16 * element_bytes(dtype);
}

/* ---- scales ---- */

enum { MAX_BLOCKS = BLOCK_GROUPS >= 2 ? KVT_MAX_GROUPS / 2 : KVT_MAX_GROUPS }; /* FP8's may be of 2 groups, whatever the scheme's own are */

/* What a row's groups are multiplied by, block for block: NaN where a block cannot be represented and is to be encoded as zeros. Of 16 rows side by
 * side, as scales are stored. */
typedef struct tile_factors {
    float r[MAX_BLOCKS][KVT_TILE_TOKENS];
} tile_factors;

KVT_LANES uint32_t scale_bytes(const kvt_tile_spec *spec)
{
    return IS_FP8 ? spec->scale_bytes : SCALE_BYTES;
}
KVT_LANES uint32_t block_groups(const kvt_tile_spec *spec)
{
    return IS_FP8 ? spec->block_groups : (uint32_t)BLOCK_GROUPS;
}
/* Blocks are powers of two of groups. */
KVT_LANES uint32_t block_of(uint32_t g, uint32_t per_block)
{
    return g >> __builtin_ctz(per_block);
}

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

#ifndef LEAST_SCALE
#define LEAST_SCALE 0x05000000 /* 2^-117 */
#endif

/* What garbage counts as (docs/formats.md, section 5): 0 times infinity would be a NaN of another sign on ARM than on x86, and a product that is
 * subnormal would depend on FTZ. */
KVT_LANES f32x16 readable_scale(f32x16 scale)
{
    const i32x16 all = i32x16_from_f32_bits(scale), bits = i32x16_and(all, i32x16_set1(0x7fffffff));
    const i32x16 finite = i32x16_select(i32x16_gt(bits, i32x16_set1(0x7f7fffff)), i32x16_set1(0x7fc00000), all);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(LEAST_SCALE), bits), i32x16_set1(0), finite));
}

#ifndef SCHEME_IS_TABLE
KVT_LANES f32x16 load_block_scales(const uint8_t *scales, uint32_t b, const kvt_tile_spec *spec)
{
    const uint32_t bytes = scale_bytes(spec);
    const uint8_t *p = scales + (size_t)b * KVT_TILE_TOKENS * bytes;
    if (bytes == 4)
        return readable_scale(f32x16_load(p));
    if (bytes == 2)
        return readable_scale(f32x16_load_f16(p));
    if (bytes == 1)
        return readable_scale(f32x16_from_bits(i32x16_shl(i32x16_load_u8(p), 23)));
    return f32x16_set1(spec->tensor_scale);
}
/* Of n blocks from b on; a block's 16 begin `stride` floats after the one's before. */
KVT_LANES void load_tile_scales(const uint8_t *scales, uint32_t b, uint32_t n, const kvt_tile_spec *spec, float *to, size_t stride)
{
    for (uint32_t k = 0; k < n; k++)
        f32x16_store(to + k * stride, load_block_scales(scales, b + k, spec));
}
#else
KVT_LANES f32x16 load_block_scales(const uint8_t *scales, uint32_t b, const kvt_tile_spec *spec);
KVT_LANES void load_tile_scales(const uint8_t *scales, uint32_t b, uint32_t n, const kvt_tile_spec *spec, float *to, size_t stride);
#endif

/* Of codes, without a call of memcpy, which compilers like to make of such a loop: it would cost more than a row. */
KVT_LANES void copy_groups(uint8_t *to, const uint8_t *from, uint32_t groups)
{
    const size_t bytes = (size_t)groups * 16 * CODE_BYTES;
    size_t i = 0;
    for (; i + 64 <= bytes; i += 64) {
        u8x64_store(to + i, u8x64_load(from + i));
        __asm__ volatile("");
    }
    for (; i < bytes; i += 16) {
        memcpy(to + i, from + i, 16);
        __asm__ volatile("");
    }
}

/* What is prefetched may be not there. Rows come as far as the L2 cache (a tile's are often 4 KiB apart, and would put each other out of L1), lines
 * of codes to L1. */
KVT_LANES void prefetch_row(const uint8_t *p, ptrdiff_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + (size_t)ahead), 0, 2);
}
KVT_LANES void prefetch_line(const uint8_t *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead), 0, 3);
}

/* ---- rows to codes ---- */

/* n groups from g on, a multiple of four; in place of those that are missing, the first once more. What is `ahead` is wanted next: a tile's rows are
 * looked through for the largest number first, four side by side, and memory takes a while to understand such a walk. */
KVT_LANES void encode_four(kvt_dtype dtype, const uint8_t *row, ptrdiff_t ahead, uint32_t g, uint32_t n, uint32_t per_block, const float *r,
                           uint32_t r_stride, bool has_blank, uint8_t *codes)
{
    i32x16 code[4];
    for (uint32_t k = 0; k < 4; k++) {
        const uint32_t at = k < n ? g + k : g, b = IS_FP8 ? block_of(at, per_block) : block_of(g, BLOCK_GROUPS) + (at - g) / BLOCK_GROUPS;
        const float factor = SCALE_BYTES > 0 ? r[b * r_stride] : 0;
        if (ahead)
            prefetch_row(group_of(row, at, dtype), ahead);
        if (has_blank && factor != factor) /* its elements may be no numbers that a code exists for */
            code[k] = encode(load_row(kvt_zero_row, dtype), f32x16_set1(0));
        else
            code[k] = encode(load_row(group_of(row, at, dtype), dtype), f32x16_set1(factor));
    }
    u8x64_store(codes, IS_TABLE ? codes_of(u8x64_pack_sat_s8(code)) : IS_SIGNED ? u8x64_pack_s8(code) : u8x64_pack_u8(code));
}

/* What is the same for both sides and is not asked for often has one copy only: it compiles in half the time. */
#define KVT_ONCE static __attribute__((noinline, unused))

/* Blocks that cannot be represented, and what four groups at a time leave over. */
KVT_ONCE void encode_rest(kvt_dtype dtype, const uint8_t *row, uint32_t begin, uint32_t end, uint32_t per_block, const float *r, uint32_t r_stride,
                          uint8_t *codes)
{
    for (uint32_t g = begin; g < end; g += 4) {
        const uint32_t n = end - g < 4 ? end - g : 4;
        uint8_t *to = codes + (size_t)(g - begin) * 16;
        if (IS_TABLE || dtype == KVT_F32)
            encode_four(KVT_F32, row, 0, g, n, per_block, r, r_stride, true, to);
        else if (dtype == KVT_F16)
            encode_four(KVT_F16, row, 0, g, n, per_block, r, r_stride, true, to);
        else
            encode_four(KVT_BF16, row, 0, g, n, per_block, r, r_stride, true, to);
    }
}

/* Groups begin .. end - 1 of a row to the row of their codes, whose length is that of whole lines. r[b * r_stride] belongs to block b. */
KVT_LANES void encode_row(kvt_dtype dtype, const uint8_t *row, ptrdiff_t ahead, uint32_t begin, uint32_t end, const kvt_tile_spec *spec,
                          const float *r, uint32_t r_stride, bool has_blank, uint8_t *codes)
{
    if (dtype == CODES_DTYPE || dtype == SCHEME_DTYPE) {
        copy_groups(codes, group_of(row, begin, dtype), end - begin);
        return;
    }
    if (BITS > 8) {
        for (uint32_t g = begin; g < end; g++)
            store_row(codes + (size_t)(g - begin) * 16 * CODE_BYTES, SCHEME_DTYPE, load_row(group_of(row, g, dtype), dtype));
        return;
    }
    const uint32_t per_block = SCALE_BYTES > 0 ? block_groups(spec) : 1;
    uint32_t g = begin;
    for (; !has_blank && g + 4 <= end; g += 4)
        encode_four(dtype, row, ahead, g, 4, per_block, r, r_stride, false, codes + (size_t)(g - begin) * 16);
    if (g < end)
        encode_rest(dtype, row, g, end, per_block, r, r_stride, codes + (size_t)(g - begin) * 16);
}

/* Of two groups, or of one and itself. */
KVT_LANES i32x16 largest_of_pair(const uint8_t *row, kvt_dtype dtype, uint32_t a, uint32_t b)
{
    return i32x16_max_u(magnitude(load_row(group_of(row, a, dtype), dtype)), magnitude(load_row(group_of(row, b, dtype), dtype)));
}

/* The largest of each block of the first `quads` times four rows, and zeros for the others. */
KVT_LANES void largest_of_blocks(const tile_rows *rows, uint32_t quads, kvt_dtype dtype, uint32_t groups, uint32_t per_block,
                                 uint32_t largest[][KVT_TILE_TOKENS])
{
    for (uint32_t b = 0; quads < 4 && b << __builtin_ctz(per_block) < groups; b++)
        i32x16_store(largest[b], i32x16_set1(0));
    KVT_ROLLED
    for (uint32_t q = 0; q < quads; q++) {
        const uint8_t *const *row = rows->row + 4 * q;
        for (uint32_t begin = 0, b = 0; begin < groups; begin += per_block, b++) {
            const uint32_t end = groups - begin < per_block ? groups : begin + per_block;
            i32x16 m[4];
            if (BLOCK_GROUPS == 2 && !IS_FP8) { /* not a loop */
                for (uint32_t k = 0; k < 4; k++)
                    m[k] = largest_of_pair(row[k], dtype, begin, end - 1);
            } else {
                for (uint32_t k = 0; k < 4; k++)
                    m[k] = magnitude(load_row(group_of(row[k], begin, dtype), dtype));
                for (uint32_t g = begin + 1; g < end; g++)
                    for (uint32_t k = 0; k < 4; k++)
                        m[k] = i32x16_max_u(m[k], magnitude(load_row(group_of(row[k], g, dtype), dtype)));
            }
            quad_max_u(m, largest[b] + 4 * q);
        }
    }
}

/* The same of one row: of four blocks where they are small, otherwise of one, as all four. */
enum { BLOCKS_AT_ONCE = BLOCK_GROUPS <= 2 && !KVT_JOIN(KVT_IS_FP8_, SCHEME) ? 4 : 1 };

KVT_LANES void largest_of_row(const uint8_t *row, kvt_dtype dtype, uint32_t begin, uint32_t groups, uint32_t per_block, uint32_t largest[4])
{
    i32x16 m[4];
    if (BLOCKS_AT_ONCE == 4) {
        const uint32_t last = groups - 1; /* in place of those that are missing */
        if (groups - begin >= 4 * BLOCK_GROUPS)
            for (uint32_t k = 0; k < 4; k++)
                m[k] = largest_of_pair(row, dtype, begin + k * BLOCK_GROUPS, begin + k * BLOCK_GROUPS + BLOCK_GROUPS - 1);
        else
            for (uint32_t k = 0; k < 4; k++) {
                const uint32_t first = begin + k * BLOCK_GROUPS < last ? begin + k * BLOCK_GROUPS : last;
                m[k] = largest_of_pair(row, dtype, first, first + BLOCK_GROUPS - 1 < last ? first + BLOCK_GROUPS - 1 : last);
            }
        quad_max_u(m, largest);
        return;
    }
    const uint32_t end = groups - begin < per_block ? groups : begin + per_block;
    for (uint32_t k = 0; k < 4; k++)
        m[k] = magnitude(load_row(group_of(row, begin + k < end ? begin + k : begin, dtype), dtype));
    uint32_t g = begin + 4;
    for (; g + 4 <= end; g += 4)
        for (uint32_t k = 0; k < 4; k++)
            m[k] = i32x16_max_u(m[k], magnitude(load_row(group_of(row, g + k, dtype), dtype)));
    for (; g < end; g++)
        m[0] = i32x16_max_u(m[0], magnitude(load_row(group_of(row, g, dtype), dtype)));
    m[0] = i32x16_max_u(i32x16_max_u(m[0], m[1]), i32x16_max_u(m[2], m[3]));
    m[1] = m[2] = m[3] = m[0];
    quad_max_u(m, largest);
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

#ifdef SCHEME_IS_TABLE
KVT_ONCE bool choose_tile_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const tile_rows *given, uint32_t quads,
                                 tile_factors *factors);
KVT_ONCE bool choose_row_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const uint8_t *row, uint32_t token,
                                float *r);
#else
KVT_LANES bool choose_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const tile_rows *rows, uint32_t quads,
                             tile_factors *factors)
{
    const uint32_t per_block = block_groups(spec), bytes = scale_bytes(spec), blocks = (groups + per_block - 1) / per_block;
    uint32_t largest[MAX_BLOCKS][KVT_TILE_TOKENS];
    if (!IS_FP8 || bytes > 0)
        largest_of_blocks(rows, quads, dtype, groups, per_block, largest);
    bool has_blank = false;
    for (uint32_t b = 0; b < blocks; b++) {
        const block_scale s = scale_of(IS_FP8 && bytes == 0 ? i32x16_set1(0) : i32x16_load(largest[b]), spec);
        store_scales(scales + (size_t)b * KVT_TILE_TOKENS * bytes, bytes, s.scale);
        has_blank |= store_factors(factors->r[b], &s);
    }
    return has_blank;
}

/* The scales of a tile's rows, of which only the first `quads` times four matter. */
KVT_ONCE bool choose_tile_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const tile_rows *rows, uint32_t quads,
                                 tile_factors *factors)
{
    if (dtype == KVT_F32)
        return choose_scales(KVT_F32, scales, spec, groups, rows, quads, factors);
    if (dtype == KVT_F16)
        return choose_scales(KVT_F16, scales, spec, groups, rows, quads, factors);
    return choose_scales(KVT_BF16, scales, spec, groups, rows, quads, factors);
}

/* The same for one row; r[b] is for block b. */
KVT_LANES bool choose_row_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const uint8_t *row, uint32_t token,
                                 float *r)
{
    const uint32_t per_block = block_groups(spec), bytes = scale_bytes(spec), blocks = (groups + per_block - 1) >> __builtin_ctz(per_block);
    bool has_blank = false;
    for (uint32_t b = 0; b < blocks; b += BLOCKS_AT_ONCE) {
        uint32_t largest[4];
        uint8_t stored[64], *to = scales + ((size_t)b * KVT_TILE_TOKENS + token) * bytes;
        largest_of_row(row, dtype, b * per_block, groups, per_block, largest);
        const block_scale s = scale_of(i32x16_from_u8(u8x64_load_quarter(largest)), spec);
        store_scales(stored, bytes, s.scale);
        has_blank |= store_factors(r + b, &s);
        if (blocks - b >= BLOCKS_AT_ONCE) /* all of them, without a question for each */
            for (uint32_t i = 0; i < BLOCKS_AT_ONCE; i++)
                copy_scale(to + (size_t)i * KVT_TILE_TOKENS * bytes, stored + i * bytes, bytes);
        else
            for (uint32_t i = 0; i < blocks - b; i++)
                copy_scale(to + (size_t)i * KVT_TILE_TOKENS * bytes, stored + i * bytes, bytes);
    }
    return has_blank;
}
#endif

enum { SLICE_BYTES = SLICE_GROUPS * 16 * CODE_BYTES };

KVT_LANES void write_tile(kvt_side side, kvt_dtype dtype, uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups,
                          const uint8_t *from, ptrdiff_t row_stride)
{
    tile_rows rows;
    for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
        rows.row[t] = from + (ptrdiff_t)t * row_stride;
    tile_factors factors;
    bool has_blank = false;
    if (SCALE_BYTES > 0 && dtype != CODES_DTYPE)
        has_blank = choose_tile_scales(dtype, scales, spec, groups, &rows, 4, &factors);
    uint8_t row_codes[KVT_TILE_TOKENS * SLICE_BYTES];
    for (uint32_t begin = 0; begin < groups; begin += SLICE_GROUPS) {
        const uint32_t end = groups - begin < SLICE_GROUPS ? groups : begin + SLICE_GROUPS;
        const size_t stride = ((size_t)(end - begin) * 16 * CODE_BYTES + 63) / 64 * 64;
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            encode_row(dtype, rows.row[t], KVT_TILE_TOKENS * row_stride, begin, end, spec, factors.r[0] + t, KVT_TILE_TOKENS, has_blank,
                       row_codes + t * stride);
        pack_tile(side, codes + (size_t)begin * GROUP_LINES * 64, end - begin, row_codes, stride);
    }
}

/* One row, whose factors are r[b * r_stride], as the token of a tile. */
KVT_LANES void write_codes_of(kvt_side side, kvt_dtype dtype, const kvt_place *at, const kvt_tile_spec *spec, const float *r, uint32_t r_stride,
                              bool has_blank)
{
    const uint32_t groups = spec->dim / 16;
    uint8_t row_codes[SLICE_BYTES];
    if (CODE_BYTES == 1) { /* a slice has room for all that a row can have */
        encode_row(dtype, at->row, 0, 0, groups, spec, r, r_stride, has_blank, row_codes);
        pack_row(side, at->codes, groups, row_codes, at->token);
        return;
    }
    for (uint32_t begin = 0; begin < groups; begin += SLICE_GROUPS) {
        const uint32_t end = groups - begin < SLICE_GROUPS ? groups : begin + SLICE_GROUPS;
        encode_row(dtype, at->row, 0, begin, end, spec, r, r_stride, has_blank, row_codes);
        pack_row(side, at->codes + (size_t)begin * GROUP_LINES * 64, end - begin, row_codes, at->token);
    }
}

/* From how many rows on it pays to choose their scales as a tile's, side by side, though 16 are paid for (a table's search) or four at a time. */
enum { ROWS_SIDE_BY_SIDE = IS_TABLE ? 6 : 3 };

KVT_LANES void write_side_by_side(kvt_side side, kvt_dtype dtype, const kvt_place *places, uint32_t n, const kvt_tile_spec *spec)
{
    const uint32_t groups = spec->dim / 16, bytes = scale_bytes(spec), per_block = block_groups(spec), quads = (n + 3) / 4;
    tile_rows rows = { { NULL } };
    KVT_ROLLED
    for (uint32_t t = 0; t < (IS_TABLE ? KVT_TILE_TOKENS : 4 * quads); t++)
        rows.row[t] = places[t < n ? t : 0].row;
    tile_factors factors;
    uint8_t scales[sizeof factors]; /* none is wider than a float */
    const bool has_blank = choose_tile_scales(dtype, scales, spec, groups, &rows, quads, &factors);
    for (uint32_t t = 0; t < n; t++) {
        const kvt_place *at = &places[t];
        const uint8_t *from = scales + (size_t)t * bytes;
        uint8_t *to = at->scales + (size_t)at->token * bytes;
        for (uint32_t b = 0; bytes > 0 && b << __builtin_ctz(per_block) < groups; b++)
            copy_scale(to + (size_t)b * KVT_TILE_TOKENS * bytes, from + (size_t)b * KVT_TILE_TOKENS * bytes, bytes);
        write_codes_of(side, dtype, at, spec, factors.r[0] + t, KVT_TILE_TOKENS, has_blank);
    }
}

KVT_LANES void write_rows(kvt_side side, kvt_dtype dtype, const kvt_place *places, uint32_t n, const kvt_tile_spec *spec)
{
    if (SCALE_BYTES > 0 && n >= ROWS_SIDE_BY_SIDE) {
        write_side_by_side(side, dtype, places, n, spec);
        return;
    }
    KVT_ROLLED
    for (uint32_t i = 0; i < n; i++) {
        const kvt_place *at = &places[i];
        float r[MAX_BLOCKS + 12]; /* whole registers are stored, for four blocks or one */
        const bool has_blank = SCALE_BYTES > 0 && choose_row_scales(dtype, at->scales, spec, spec->dim / 16, at->row, at->token, r);
        write_codes_of(side, dtype, at, spec, r, 1, has_blank);
    }
}

/* ---- codes to rows ---- */

KVT_LANES void decode_row(kvt_dtype dtype, const uint8_t *codes, uint32_t begin, uint32_t end, uint32_t per_block, const float *scale, uint8_t *row)
{
    uint8_t *to = row + (size_t)begin * 16 * element_bytes(dtype);
    if (dtype == CODES_DTYPE || dtype == SCHEME_DTYPE) {
        copy_groups(to, codes, end - begin);
        return;
    }
    KVT_UNROLLED
    for (uint32_t g = begin; g < end; g++) {
        const uint8_t *from = codes + (size_t)(g - begin) * 16 * CODE_BYTES;
        f32x16 x;
        if (BITS > 8)
            x = load_row(from, SCHEME_DTYPE);
        else
            x = decode_bytes(from, f32x16_set1(scale[block_of(g, per_block) * KVT_TILE_TOKENS]));
        store_row(to + (size_t)(g - begin) * 16 * element_bytes(dtype), dtype, x);
    }
}

KVT_LANES void read_tile(kvt_side side, kvt_dtype dtype, const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups,
                         uint8_t *to, ptrdiff_t row_stride, uint32_t first, uint32_t count)
{
    const bool has_scales = SCALE_BYTES > 0 && dtype != CODES_DTYPE;
    const uint32_t per_block = has_scales ? block_groups(spec) : 1, end_token = first + count;
    float scale[MAX_BLOCKS][KVT_TILE_TOKENS];
    if (has_scales)
        load_tile_scales(scales, 0, (groups + per_block - 1) / per_block, spec, scale[0], KVT_TILE_TOKENS);
    uint8_t row_codes[4 * SLICE_BYTES];
    const size_t tile_bytes = (size_t)groups * 32 * BITS;
    for (uint32_t begin = 0; begin < groups; begin += SLICE_GROUPS) {
        const uint32_t end = groups - begin < SLICE_GROUPS ? groups : begin + SLICE_GROUPS;
        const size_t stride = ((size_t)(end - begin) * 16 * CODE_BYTES + 63) / 64 * 64;
        KVT_ROLLED
        for (uint32_t q = first / 4; 4 * q < end_token; q++) {
            unpack_quad(side, IS_TABLE, codes + (size_t)begin * GROUP_LINES * 64, end - begin, q, row_codes, stride);
            for (size_t i = q * tile_bytes / 4; i < (q + 1) * tile_bytes / 4; i += 64) /* of the next tile, as V's lines are not met in order */
                prefetch_line(codes, tile_bytes + i);
            const uint32_t from_token = 4 * q < first ? first : 4 * q, to_token = 4 * q + 4 < end_token ? 4 * q + 4 : end_token;
            for (uint32_t t = from_token; t < to_token; t++)
                decode_row(dtype, row_codes + (t - 4 * q) * stride, begin, end, per_block, scale[0] + t, to + (ptrdiff_t)(t - first) * row_stride);
        }
    }
}

#ifdef SCHEME_IS_TABLE
#include "kernels/op_table.h"
#endif

#include "kernels/op_attend.h"

/* ---- the table: one copy of the loops for each side and number format of rows ---- */

/* Rows of tables have been staged as f32 (kvt_kernels.f32_only): their loops are long enough already. */
#define KVT_BY_DTYPE(call, side, ...)                                                                                                                \
    if (IS_TABLE || dtype == KVT_F32)                                                                                                                \
        call(side, KVT_F32, __VA_ARGS__);                                                                                                            \
    else if (dtype == KVT_F16)                                                                                                                       \
        call(side, KVT_F16, __VA_ARGS__);                                                                                                            \
    else                                                                                                                                             \
        call(side, KVT_BF16, __VA_ARGS__);

#define KVT_TILE_FUNCTIONS(name, side)                                                                                                               \
    static void write_##name(uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, const uint8_t *rows, ptrdiff_t row_stride, kvt_dtype dtype) \
    {                                                                                                                                                \
        KVT_BY_DTYPE(write_tile, side, codes, scales, spec, spec->dim / 16, rows, row_stride)                                                        \
    }                                                                                                                                                \
    static void write_rows_##name(const kvt_place *places, uint32_t n, const kvt_tile_spec *spec, kvt_dtype dtype)                                   \
    {                                                                                                                                                \
        KVT_BY_DTYPE(write_rows, side, places, n, spec)                                                                                              \
    }                                                                                                                                                \
    static void read_##name(const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, uint8_t *rows, ptrdiff_t row_stride,             \
                            kvt_dtype dtype, uint32_t first, uint32_t count)                                                                         \
    {                                                                                                                                                \
        KVT_BY_DTYPE(read_tile, side, codes, scales, spec, spec->dim / 16, rows, row_stride, first, count)                                           \
    }

#define KVT_CODES_FUNCTIONS(name, side)                                                                                                              \
    static void write_codes_##name(uint8_t *codes, uint32_t dim, const uint8_t *rows, size_t row_stride)                                             \
    {                                                                                                                                                \
        write_tile(side, CODES_DTYPE, codes, NULL, NULL, (dim + 15) / 16, rows, (ptrdiff_t)row_stride);                                              \
    }                                                                                                                                                \
    static void read_codes_##name(const uint8_t *codes, uint32_t dim, uint8_t *rows, size_t row_stride)                                              \
    {                                                                                                                                                \
        read_tile(side, CODES_DTYPE, codes, NULL, NULL, (dim + 15) / 16, rows, (ptrdiff_t)row_stride, 0, KVT_TILE_TOKENS);                           \
    }

KVT_TILE_FUNCTIONS(k, KVT_K)
KVT_TILE_FUNCTIONS(v, KVT_V)
#ifdef SCHEME_COPIES_CODES
KVT_CODES_FUNCTIONS(k, KVT_K)
KVT_CODES_FUNCTIONS(v, KVT_V)
#endif

extern const kvt_kernels KVT_KERNELS_OF(SCHEME, KVT_TIER);
const kvt_kernels KVT_KERNELS_OF(SCHEME, KVT_TIER) = {
    .write = { write_k, write_v },
    .write_rows = { write_rows_k, write_rows_v },
    .read = { read_k, read_v },
#ifdef SCHEME_COPIES_CODES
    .write_codes = { write_codes_k, write_codes_v },
    .read_codes = { read_codes_k, read_codes_v },
#endif
    .prepare = IS_INTEGER ? prepare_queries : NULL,
    .score = score_page,
    .value = { value_keys, value_span },
    .value_takes_words = IS_INTEGER,
    .f32_only = IS_TABLE,
};
