/* The loops of a scheme: rows in and out of one tile. Included at the end of a scheme_*.c, which has defined SCHEME and
 *
 *   i32x16 encode(f32x16 x, f32x16 r)     codes of 16 channels of one row; r is what belongs to the row's block
 *   f32x16 decode(i32x16 code, f32x16 s)  and back; codes arrive zero-extended, or sign-extended where CODES_SIGNED is defined
 *
 * for a scheme with scales SCHEME_HAS_SCALES and
 *
 *   i32x16 magnitude(f32x16 x)                                  what the largest of a block is looked for by, as unsigned integers
 *   block_scale scale_of(i32x16 largest, const kvt_tile_spec *) 16 blocks at once
 *
 * (tables with searched scales bring their own choice of scales instead, kernels/op_table.h), and for one without, where rows of the same number
 * format are copied,
 *
 *   SCHEME_DTYPE                          that format
 *
 * A tile is worked on in pieces of four tokens (a quad) times 16 channels (a group), lane = channel. docs/formats.md says where every code goes;
 * arch/VEC.md how the quad functions get it there. */

#include "kernels/planes.h"

#ifdef CODES_SIGNED
#define quad8_pack   quad8_pack_s8
#define quad8_unpack quad8_unpack_s8
#else
#define quad8_pack   quad8_pack_u8
#define quad8_unpack quad8_unpack_u8
#endif

#ifndef SCHEME_DTYPE
#define SCHEME_DTYPE 0 /* no dtype */
#endif
#define CODES_DTYPE ((kvt_dtype)UINT8_MAX) /* rows that are codes of a byte: write_codes, read_codes */

/* Four copies of a quad's code gain nothing and cost the instruction cache. */
#if defined(__clang__)
#define KVT_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define KVT_ROLLED _Pragma("GCC unroll 1")
#endif

enum {
    BITS = KVT_JOIN(KVT_BITS_, SCHEME),
    BLOCK_GROUPS = KVT_JOIN(KVT_BLOCK_GROUPS_, SCHEME),
    GROUP_LINES = BITS <= 8 ? 4 : BITS / 2, /* of 16 tokens x 16 channels; narrower codes are 8-bit lines until they are stored */
    QUAD_LINES = GROUP_LINES / 4
};

static const uint32_t SCALE_BYTES = KVT_JOIN(KVT_SCALE_BYTES_, SCHEME);
static const bool IS_FP8 = KVT_JOIN(KVT_IS_FP8_, SCHEME);

/* What a scheme does not have is defined so that the compiler can see it not being used. */
#ifndef SCHEME_HAS_SCALES
KVT_LANES i32x16 magnitude(f32x16 x)
{
    return i32x16_from_f32_bits(x);
}
KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    return (block_scale){ .scale = f32x16_from_bits(largest), .r = f32x16_set1(0) };
}
#endif
#ifndef SCHEME_IS_TABLE
enum { IS_TABLE = 0 };
KVT_LANES u8x64 codes_of(u8x64 line)
{
    return line;
}
KVT_LANES u8x64 levels_of(u8x64 line)
{
    return line;
}
#else
enum { IS_TABLE = 1 };
#endif

KVT_LANES uint32_t element_bytes(kvt_dtype dtype)
{
    return dtype == CODES_DTYPE ? 1 : dtype == KVT_F32 ? 4 : 2;
}

/* ---- codes of a quad to lines and back: lines[c][q], c-th of the quad's lines ----
 *
 * K: each line has the quad's four tokens in every quarter of 16 bytes, so that swapping quarters between the four quads of a tile makes K lines.
 * V: the lines are V lines already.
 *
 * (c % QUAD_LINES is c wherever the code runs; it keeps indices in range in branches that are dead for this BITS.) */

KVT_LANES void lines_from_quad(kvt_side side, kvt_dtype dtype, i32x16 code[4], u8x64 lines[QUAD_LINES][4], uint32_t q)
{
    if (BITS == 32) {
        if (side == KVT_K)
            quad32_transpose(code);
        for (int c = 0; c < 4; c++)
            lines[c % QUAD_LINES][q] = u8x64_from_i32(code[c]);
    } else if (BITS == 16 && side == KVT_K) {
        u8x64 half[2];
        quad16_pack(code, half);
        for (int c = 0; c < 2; c++)
            lines[c % QUAD_LINES][q] = half[c];
    } else if (BITS == 16) {
        for (int c = 0; c < 2; c++)
            lines[c % QUAD_LINES][q] = u8x64_from_i32(i32x16_or(code[2 * c], i32x16_shl(code[2 * c + 1], 16)));
    } else {
        const u8x64 packed = dtype == CODES_DTYPE ? quad8_pack_u8(code) : IS_TABLE ? codes_of(quad8_pack_sat_s8(code)) : quad8_pack(code);
        lines[0][q] = side == KVT_K ? packed : u8x64_swap_cells(packed);
    }
}

KVT_LANES void quad_from_lines(kvt_side side, kvt_dtype dtype, u8x64 lines[QUAD_LINES][4], uint32_t q, i32x16 code[4])
{
    if (BITS == 32) {
        for (int c = 0; c < 4; c++)
            code[c] = i32x16_from_u8(lines[c % QUAD_LINES][q]);
        if (side == KVT_K)
            quad32_transpose(code);
    } else if (BITS == 16 && side == KVT_K) {
        const u8x64 half[2] = { lines[0][q], lines[1 % QUAD_LINES][q] };
        quad16_unpack(half, code);
    } else if (BITS == 16) {
        for (int c = 0; c < 2; c++) {
            const i32x16 both = i32x16_from_u8(lines[c % QUAD_LINES][q]);
            code[2 * c] = i32x16_and(both, i32x16_set1(0xffff));
            code[2 * c + 1] = i32x16_shr(both, 16);
        }
    } else {
        const u8x64 packed = side == KVT_K ? lines[0][q] : u8x64_swap_cells(lines[0][q]);
        if (dtype == CODES_DTYPE)
            quad8_unpack_u8(packed, code);
        else
            quad8_unpack(packed, code);
    }
}

/* ---- a group's lines to memory and back ---- */

KVT_LANES void store_group(kvt_side side, uint8_t *codes, uint32_t groups, uint32_t g, u8x64 lines[QUAD_LINES][4])
{
    u8x64 line[GROUP_LINES];
    for (int c = 0; c < QUAD_LINES; c++) {
        if (side == KVT_K)
            u8x64_swap_quarters(lines[c]);
        for (int i = 0; i < 4; i++)
            line[i * QUAD_LINES + c] = lines[c][i];
    }
    if (BITS < 8)
        planes_store(BITS, codes, groups, g, line);
    else
        for (int i = 0; i < GROUP_LINES; i++)
            u8x64_store(codes + ((size_t)g * GROUP_LINES + (size_t)i) * 64, line[i]);
}

KVT_LANES void load_group(kvt_side side, kvt_dtype dtype, const uint8_t *codes, uint32_t groups, uint32_t g, u8x64 lines[QUAD_LINES][4])
{
    u8x64 line[GROUP_LINES];
    if (BITS < 8) {
        planes_load(BITS, codes, groups, g, line);
        if (dtype != CODES_DTYPE)
            for (int i = 0; i < 4; i++)
                line[i] = levels_of(line[i]);
    } else {
        for (int i = 0; i < GROUP_LINES; i++)
            line[i] = u8x64_load(codes + ((size_t)g * GROUP_LINES + (size_t)i) * 64);
    }
    for (int c = 0; c < QUAD_LINES; c++) {
        for (int i = 0; i < 4; i++)
            lines[c][i] = line[i * QUAD_LINES + c];
        if (side == KVT_K)
            u8x64_swap_quarters(lines[c]);
    }
}

/* ---- rows ---- */

KVT_LANES f32x16 load_row(const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F32)
        return f32x16_load(p);
    if (dtype == KVT_F16)
        return f32x16_load_f16(p);
    return f32x16_from_bits(widen_bf16(i32x16_load_u16(p)));
}

KVT_LANES i32x16 load_codes(const uint8_t *p, kvt_dtype dtype, float r)
{
    if (dtype == CODES_DTYPE)
        return i32x16_load_u8(p);
    if (dtype == SCHEME_DTYPE)
        return BITS == 32 ? i32x16_load(p) : i32x16_load_u16(p);
    return encode(load_row(p, dtype), f32x16_set1(r));
}

/* Rows of whole groups: the frame pads what has less. */
typedef struct tile_rows {
    const uint8_t *row[KVT_TILE_TOKENS];
} tile_rows;

static const uint8_t kvt_zero_row[KVT_MAX_DIM * 4];

KVT_LANES const uint8_t *group_of(const tile_rows *rows, uint32_t t, uint32_t g, kvt_dtype dtype)
{
    return rows->row[t] + (size_t)g * 16 * element_bytes(dtype);
}

/* Rows with numbers that cannot be encoded are encoded as zeros. */
KVT_LANES tile_rows without_blank(const tile_rows *rows, const uint32_t is_blank[KVT_TILE_TOKENS])
{
    tile_rows result = *rows;
    for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
        if (is_blank[t])
            result.row[t] = kvt_zero_row;
    return result;
}

/* ---- scales ---- */

KVT_LANES uint32_t scale_bytes(const kvt_tile_spec *spec)
{
    return IS_FP8 ? spec->scale_bytes : SCALE_BYTES;
}
KVT_LANES uint32_t block_groups(const kvt_tile_spec *spec)
{
    return IS_FP8 ? spec->block_groups : (uint32_t)BLOCK_GROUPS;
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
#else
KVT_LANES f32x16 load_block_scales(const uint8_t *scales, uint32_t b, const kvt_tile_spec *spec);
#endif

/* ---- write a tile ---- */

KVT_LANES void write_groups(kvt_side side, kvt_dtype dtype, uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end, const tile_rows *rows,
                            const float r[KVT_TILE_TOKENS])
{
    for (uint32_t g = begin; g < end; g++) {
        u8x64 lines[QUAD_LINES][4];
        KVT_ROLLED
        for (uint32_t q = 0; q < 4; q++) {
            i32x16 code[4];
            for (uint32_t k = 0; k < 4; k++)
                code[k] = load_codes(group_of(rows, 4 * q + k, g, dtype), dtype, r[4 * q + k]);
            lines_from_quad(side, dtype, code, lines, q);
        }
        store_group(side, codes, groups, g, lines);
    }
}

/* The largest of groups begin .. end-1 for each token. */
KVT_LANES i32x16 largest_of(const tile_rows *rows, kvt_dtype dtype, uint32_t begin, uint32_t end)
{
    uint32_t largest[KVT_TILE_TOKENS];
    KVT_ROLLED
    for (uint32_t q = 0; q < 4; q++) {
        i32x16 m[4] = { i32x16_set1(0), i32x16_set1(0), i32x16_set1(0), i32x16_set1(0) };
        for (uint32_t g = begin; g < end; g++)
            for (uint32_t k = 0; k < 4; k++)
                m[k] = i32x16_max_u(m[k], magnitude(load_row(group_of(rows, 4 * q + k, g, dtype), dtype)));
        quad_max_u(m, largest + 4 * q);
    }
    return i32x16_load(largest);
}

#ifdef SCHEME_IS_TABLE
KVT_LANES void write_table_tile(kvt_side side, uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const tile_rows *given);
KVT_LANES const uint8_t *choose_row_scales(uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const uint8_t *row, uint32_t token,
                                           float r[KVT_MAX_GROUPS]);
#endif

KVT_LANES void write_tile(kvt_side side, kvt_dtype dtype, uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups,
                          const uint8_t *from, ptrdiff_t row_stride)
{
    tile_rows rows;
    for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
        rows.row[t] = from + (ptrdiff_t)t * row_stride;

    float r[KVT_TILE_TOKENS] = { 0 };
    if (SCALE_BYTES == 0 || dtype == CODES_DTYPE) {
        write_groups(side, dtype, codes, groups, 0, groups, &rows, r);
        return;
    }
#ifdef SCHEME_IS_TABLE
    write_table_tile(side, codes, scales, spec, groups, &rows);
#else
    const uint32_t per_block = block_groups(spec), bytes = scale_bytes(spec);
    for (uint32_t begin = 0; begin < groups; begin += per_block) {
        const uint32_t end = groups - begin < per_block ? groups : begin + per_block;
        const i32x16 largest = IS_FP8 && bytes == 0 ? i32x16_set1(0) : largest_of(&rows, dtype, begin, end);
        const block_scale s = scale_of(largest, spec);
        store_scales(scales + begin / per_block * KVT_TILE_TOKENS * bytes, bytes, s.scale);
        f32x16_store(r, s.r);
        if (s.has_unrepresentable) {
            const tile_rows encodable = without_blank(&rows, s.unrepresentable);
            write_groups(side, dtype, codes, groups, begin, end, &encodable, r);
        } else {
            write_groups(side, dtype, codes, groups, begin, end, &rows, r);
        }
    }
#endif
}

/* ---- write one token ---- */

/* The largest of each group of one row; its array has room for whole quads. */
KVT_LANES void largest_of_groups(const uint8_t *row, kvt_dtype dtype, uint32_t groups, uint32_t largest[KVT_MAX_GROUPS])
{
    const uint32_t group_bytes = 16 * element_bytes(dtype);
    uint32_t g = 0;
    for (; g + 4 <= groups; g += 4) {
        i32x16 m[4];
        for (uint32_t k = 0; k < 4; k++)
            m[k] = magnitude(load_row(row + (g + k) * group_bytes, dtype));
        quad_max_u(m, largest + g);
    }
    if (g < groups) {
        i32x16 m[4];
        for (uint32_t k = 0; k < 4; k++)
            m[k] = magnitude(load_row(row + (g + k < groups ? g + k : g) * group_bytes, dtype));
        quad_max_u(m, largest + g);
    }
}

/* A token's scales, and what its groups are multiplied by: NaN where a block cannot be represented; returns whether there is such a block. */
KVT_LANES bool write_row_scales(kvt_dtype dtype, uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups, const uint8_t *row, uint32_t token,
                                float r[KVT_MAX_GROUPS])
{
    const uint32_t per_block = block_groups(spec), bytes = scale_bytes(spec);
    uint32_t largest[KVT_MAX_GROUPS];
    largest_of_groups(row, dtype, groups, largest);
    uint32_t blocks = 0;
    for (uint32_t begin = 0; begin < groups; begin += per_block) {
        const uint32_t end = groups - begin < per_block ? groups : begin + per_block;
        uint32_t m = largest[begin];
        for (uint32_t g = begin + 1; g < end; g++)
            m = largest[g] > m ? largest[g] : m;
        largest[blocks++] = m;
    }
    memset(largest + blocks, 0, (-blocks % 16) * sizeof *largest);
    bool has_blank = false;
    uint32_t g = 0;
    for (uint32_t first = 0; first < blocks; first += 16) {
        const uint32_t n = blocks - first < 16 ? blocks - first : 16;
        const block_scale s = scale_of(i32x16_load(largest + first), spec);
        uint8_t stored[64], *to = scales + (first * KVT_TILE_TOKENS + token) * bytes;
        float multiplier[16];
        store_scales(stored, bytes, s.scale);
        f32x16_store(multiplier, s.r);
        if (s.has_unrepresentable) {
            has_blank = true;
            for (uint32_t b = 0; b < n; b++)
                if (s.unrepresentable[b])
                    multiplier[b] = (float)NAN;
        }
        for (uint32_t b = 0; b < n; b++) {
            if (bytes == 4)
                memcpy(to + b * KVT_TILE_TOKENS * 4, stored + b * 4, 4);
            else if (bytes == 2)
                memcpy(to + b * KVT_TILE_TOKENS * 2, stored + b * 2, 2);
            else if (bytes == 1)
                to[b * KVT_TILE_TOKENS] = stored[b];
            const uint32_t end = groups - g < per_block ? groups : g + per_block;
            for (; g < end; g++)
                r[g] = multiplier[b];
        }
    }
    return has_blank;
}

/* Codes of one token wider than a byte, in lanes, to their lines: K four bytes of each, V one code of each cell. */
KVT_LANES void store_wide(kvt_side side, uint8_t *to, i32x16 code, uint32_t token)
{
    if (side == KVT_K) {
        uint32_t cell[16];
        if (BITS == 16)
            i32x16_store_u16(cell, code);
        else
            i32x16_store(cell, code);
        for (uint32_t i = 0; i < GROUP_LINES; i++)
            memcpy(to + i * 64 + token * 4, cell + i, 4);
    } else if (BITS == 32) {
        i32x16_store(to + token * 64, code);
    } else {
        uint8_t *line = to + token / 2 * 64;
        const i32x16 old = i32x16_load(line);
        i32x16_store(line, token % 2 ? i32x16_or(i32x16_and(old, i32x16_set1(0xffff)), i32x16_shl(code, 16))
                                     : i32x16_or(i32x16_and(old, i32x16_set1(0xffff0000)), i32x16_and(code, i32x16_set1(0xffff))));
    }
}

/* n groups of one token, from g on; n is at most 4. */
KVT_LANES void write_token_groups(kvt_side side, kvt_dtype dtype, uint8_t *codes, uint32_t groups, uint32_t g, uint32_t n, const uint8_t *row,
                                  const float *r, bool has_blank, uint32_t token, uint32_t *cells)
{
    i32x16 code[4];
    for (uint32_t k = 0; k < 4; k++) {
        const uint32_t at = k < n ? g + k : g;
        const bool is_blank = has_blank && r[at] != r[at]; /* its elements may be no numbers that a code exists for */
        const uint8_t *from = row + (size_t)at * 16 * element_bytes(dtype);
        code[k] = load_codes(is_blank ? kvt_zero_row : from, dtype, SCALE_BYTES > 0 && !is_blank ? r[at] : 0);
    }
    if (BITS > 8) {
        for (uint32_t k = 0; k < n; k++)
            store_wide(side, codes + (size_t)(g + k) * GROUP_LINES * 64, code[k], token);
        return;
    }
    /* The packed line has group k's channels 4l .. 4l+3 in quarter l, cell k. */
    const u8x64 packed = IS_TABLE ? codes_of(quad8_pack_sat_s8(code)) : quad8_pack(code);
    if (side == KVT_K) {
        uint32_t cell[16];
        u8x64_store(cell, packed);
        uint8_t *to = codes + (size_t)g * 256 + token * 4;
        for (uint32_t k = 0; k < n; k++)
            for (uint32_t l = 0; l < 4; l++) {
                if (BITS == 8)
                    memcpy(to + (4 * k + l) * 64, &cell[4 * l + k], 4);
                else
                    cells[4 * (g + k) + l] = cell[4 * l + k];
            }
    } else {
        if (IS_TABLE)
            quad8_unpack_u8(packed, code);
        for (uint32_t k = 0; k < n; k++)
            planes_store_lanes(BITS, codes, groups, g + k, code[k], token);
    }
}

/* One token is scattered over its lines. */
KVT_LANES void write_token(kvt_side side, kvt_dtype dtype, uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, const uint8_t *row,
                           uint32_t token)
{
    const uint32_t groups = spec->dim / 16;
    float r[KVT_MAX_GROUPS];
    bool has_blank = false;
#ifdef SCHEME_IS_TABLE
    row = choose_row_scales(scales, spec, groups, row, token, r);
#else
    if (SCALE_BYTES > 0)
        has_blank = write_row_scales(dtype, scales, spec, groups, row, token, r);
#endif
    uint32_t cells[4 * KVT_MAX_GROUPS], g = 0; /* K, codes of less than 8 bits */
    for (; g + 4 <= groups; g += 4)
        write_token_groups(side, dtype, codes, groups, g, 4, row, r, has_blank, token, cells);
    if (g < groups)
        write_token_groups(side, dtype, codes, groups, g, groups - g, row, r, has_blank, token, cells);
    if (BITS < 8 && side == KVT_K)
        planes_store_cells(BITS, codes, groups, cells, token);
}

/* ---- read ---- */

KVT_LANES void store_row(uint8_t *p, kvt_dtype dtype, f32x16 x)
{
    if (dtype == KVT_F32)
        f32x16_store(p, x);
    else if (dtype == KVT_F16)
        f32x16_store_f16(p, x);
    else
        i32x16_store_u16(p, narrow_bf16(i32x16_from_f32_bits(x)));
}

KVT_LANES void store_decoded(uint8_t *p, kvt_dtype dtype, i32x16 code, float scale)
{
    if (dtype == CODES_DTYPE)
        i32x16_store_u8(p, code);
    else if (dtype != SCHEME_DTYPE)
        store_row(p, dtype, decode(code, f32x16_set1(scale)));
    else if (BITS == 32)
        i32x16_store(p, code);
    else
        i32x16_store_u16(p, code);
}

KVT_LANES void read_tile(kvt_side side, kvt_dtype dtype, const uint8_t *codes, const uint8_t *scales, const kvt_tile_spec *spec, uint32_t groups,
                         uint8_t *to, ptrdiff_t row_stride, uint32_t first, uint32_t count)
{
    const uint32_t group_bytes = 16 * element_bytes(dtype), first_quad = first / 4, end_quad = (first + count + 3) / 4, end = first + count;
    const bool has_scales = SCALE_BYTES > 0 && dtype != CODES_DTYPE;
    const uint32_t per_block = has_scales ? block_groups(spec) : groups;
    float scale[KVT_TILE_TOKENS] = { 0 };
    for (uint32_t b = 0; b * per_block < groups; b++) {
        const uint32_t end_group = groups - b * per_block < per_block ? groups : (b + 1) * per_block;
        if (has_scales)
            f32x16_store(scale, load_block_scales(scales, b, spec));
        for (uint32_t g = b * per_block; g < end_group; g++) {
            u8x64 lines[QUAD_LINES][4];
            load_group(side, dtype, codes, groups, g, lines);
            for (uint32_t q = first_quad; q < end_quad; q++) {
                i32x16 code[4];
                quad_from_lines(side, dtype, lines, q, code);
                if (4 * q >= first && 4 * q + 4 <= end) {
                    uint8_t *row = to + (ptrdiff_t)(4 * q - first) * row_stride + (size_t)g * group_bytes;
                    for (uint32_t k = 0; k < 4; k++)
                        store_decoded(row + (ptrdiff_t)k * row_stride, dtype, code[k], scale[4 * q + k]);
                } else { /* not all of the quad's tokens are wanted */
                    uint8_t row[4][64];
                    for (uint32_t k = 0; k < 4; k++)
                        store_decoded(row[k], dtype, code[k], scale[4 * q + k]);
                    for (uint32_t k = 0; k < 4; k++)
                        if (4 * q + k >= first && 4 * q + k < end)
                            memcpy(to + (ptrdiff_t)(4 * q + k - first) * row_stride + (size_t)g * group_bytes, row[k], group_bytes);
                }
            }
        }
    }
}

#ifdef SCHEME_IS_TABLE
#include "kernels/op_table.h"
#endif

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
    static void write_row_##name(uint8_t *codes, uint8_t *scales, const kvt_tile_spec *spec, const uint8_t *row, kvt_dtype dtype, uint32_t token)    \
    {                                                                                                                                                \
        KVT_BY_DTYPE(write_token, side, codes, scales, spec, row, token)                                                                             \
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
#ifdef SCHEME_HAS_SCALES
KVT_CODES_FUNCTIONS(k, KVT_K)
KVT_CODES_FUNCTIONS(v, KVT_V)
#endif

extern const kvt_kernels KVT_KERNELS_OF(SCHEME, KVT_TIER);
const kvt_kernels KVT_KERNELS_OF(SCHEME, KVT_TIER) = {
    .write = { write_k, write_v },
    .write_row = { write_row_k, write_row_v },
    .read = { read_k, read_v },
#ifdef SCHEME_HAS_SCALES
    .write_codes = { write_codes_k, write_codes_v },
    .read_codes = { read_codes_k, read_codes_v },
#endif
    .f32_only = IS_TABLE,
};
