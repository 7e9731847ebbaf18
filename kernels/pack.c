/* SPDX-License-Identifier: MIT */
/* Where codes are (docs/formats.md, section 2): from rows of codes to the lines of a tile and back, once for each width.
 *
 * Sixteen bytes of a row are a column. It meets four lines, and in them sixteen rows: a block of 16 x 16 bytes that only has to be transposed, cell
 * by cell for K, byte by byte for V. A chunk is four columns of sixteen rows; it is transposed at once, because a line of 64 bytes of a row is. */
#include "kernels/levels.h"
#include "kernels/planes.h"

KVT_LANES uint32_t code_bytes(uint32_t bits) /* in a row of codes */
{
    return bits <= 8 ? 1 : bits / 8;
}
KVT_LANES uint32_t group_lines(uint32_t bits) /* of 8 bits and more: 16 tokens x 16 channels */
{
    return 4 * code_bytes(bits);
}

/* ---- a tile ---- */

/* Of one column; line[i] has cell i of each row. */
KVT_LANES void lines_of_k(const uint8_t *rows, size_t stride, u8x64 line[4])
{
    i32x16 cells[4];
    for (uint32_t b = 0; b < 4; b++)
        cells[b] = i32x16_from_u8(u8x64_load_quarters(rows + b * stride, rows + (4 + b) * stride, rows + (8 + b) * stride, rows + (12 + b) * stride));
    quad32_transpose(cells);
    for (int i = 0; i < 4; i++)
        line[i] = u8x64_from_i32(cells[i]);
}

/* Of four columns; line[c][i] is line i of column c. */
KVT_LANES void lines_of_v(const u8x64 row[16], u8x64 line[4][4])
{
    for (int q = 0; q < 4; q++) {
        i32x16 cells[4];
        u8x64 part[4];
        for (int j = 0; j < 4; j++)
            cells[j] = i32x16_from_u8(row[4 * q + j]);
        quad32_transpose(cells);
        for (int i = 0; i < 4; i++)
            part[i] = u8x64_from_i32(cells[i]);
        u8x64_swap_quarters(part); /* [c]: quarter i, cell j has four channels of row 4q + j */
        for (int c = 0; c < 4; c++)
            line[c][q] = u8x64_swap_cells(part[c]);
    }
}

KVT_LANES void store_lines(uint32_t bits, uint8_t *codes, uint32_t groups, uint32_t column, const u8x64 line[4])
{
    if (bits < 8)
        planes_store(bits, codes, groups, column, line);
    else
        for (uint32_t i = 0; i < 4; i++)
            u8x64_store(codes + (size_t)column * 256 + (size_t)i * 64, line[i]);
}

KVT_LANES void pack_tile(kvt_side side, uint32_t bits, uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end, const uint8_t *rows,
                         size_t stride)
{
    if (side == KVT_V && bits == 32) {
        for (uint32_t g = begin; g < end; g++)
            for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
                u8x64_store(codes + ((size_t)g * KVT_TILE_TOKENS + t) * 64, u8x64_load(rows + t * stride + (size_t)(g - begin) * 64));
        return;
    }
    if (side == KVT_V && bits == 16) {
        for (uint32_t g = begin; g < end; g++)
            for (uint32_t t = 0; t < KVT_TILE_TOKENS; t += 2) {
                const uint8_t *row = rows + t * stride + (size_t)(g - begin) * 32;
                i32x16_store(codes + (size_t)g * 512 + (size_t)t * 32,
                             i32x16_or(i32x16_load_u16(row), i32x16_shl(i32x16_load_u16(row + stride), 16)));
            }
        return;
    }
    const uint32_t first = begin * code_bytes(bits), columns = (end - begin) * code_bytes(bits);
    if (side == KVT_K) {
        for (uint32_t c = 0; c < columns; c++) {
            u8x64 line[4];
            lines_of_k(rows + (size_t)c * 16, stride, line);
            store_lines(bits, codes, groups, first + c, line);
        }
        return;
    }
    for (uint32_t c = 0; c < columns; c += 4) {
        u8x64 row[KVT_TILE_TOKENS], line[4][4];
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            row[t] = u8x64_load(rows + t * stride + (size_t)c * 16);
        lines_of_v(row, line);
        for (uint32_t k = 0; k < 4 && c + k < columns; k++)
            store_lines(bits, codes, groups, first + c + k, line[k]);
    }
}

/* ---- four rows of a tile: a quad ---- */

/* Of four columns, `column` and those `next` behind it, the quarter of quad q in line i of K, or quarter i of quad q's line of V. Both i and q should
 * be constants. */
KVT_LANES u8x64 quarters_at(kvt_side side, uint32_t bits, const uint8_t *codes, uint32_t groups, uint32_t column, const size_t next[3], uint32_t i,
                            uint32_t q)
{
    const uint32_t line = side == KVT_K ? i : q, quarter = side == KVT_K ? q : i;
    if (bits < 8)
        return planes_load_quarters(bits, codes, groups, column, next, line, quarter);
    const uint8_t *p = codes + (size_t)column * 256 + (size_t)line * 64 + (size_t)quarter * 16;
    return u8x64_load_quarters(p, p + next[0] * 256, p + next[1] * 256, p + next[2] * 256);
}

/* Four columns at a time. Those behind the last may not be read: the first of the four stands in their place. */
KVT_LANES void unpack_columns(kvt_side side, uint32_t bits, const levels *table, const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end,
                              uint32_t q, uint8_t *rows, size_t stride)
{
    const uint32_t first = begin * code_bytes(bits), last = end * code_bytes(bits);
    size_t next[3] = { 1, 2, 3 };
    KVT_ROLLED
    for (uint32_t c = first; c < last; c += 4) {
        if (last - c < 4) {
            next[0] = last - c > 1 ? 1 : 0;
            next[1] = last - c > 2 ? 2 : 0;
            next[2] = 0;
        }
        u8x64 part[4] = { quarters_at(side, bits, codes, groups, c, next, 0, q), quarters_at(side, bits, codes, groups, c, next, 1, q),
                          quarters_at(side, bits, codes, groups, c, next, 2, q), quarters_at(side, bits, codes, groups, c, next, 3, q) };
        i32x16 cells[4];
        for (int i = 0; i < 4; i++) {
            if (table)
                part[i] = levels_of(bits, table, part[i]);
            cells[i] = i32x16_from_u8(side == KVT_K ? part[i] : u8x64_swap_cells(part[i]));
        }
        quad32_transpose(cells);
        for (uint32_t j = 0; j < 4; j++)
            i32x16_store(rows + j * stride + (size_t)(c - first) * 16, cells[j]);
    }
}

/* Tokens 4q .. 4q + 3 to four rows, of room for whole lines: row after row, as these may be the caller's and far away. */
KVT_LANES void unpack_quad(kvt_side side, uint32_t bits, const levels *table, const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end,
                           uint32_t q, uint8_t *rows, size_t stride)
{
    if (side == KVT_V && bits == 32) {
        for (uint32_t j = 0; j < 4; j++)
            for (uint32_t g = begin; g < end; g++)
                u8x64_store(rows + j * stride + (size_t)(g - begin) * 64, u8x64_load(codes + ((size_t)g * KVT_TILE_TOKENS + 4 * q + j) * 64));
    } else if (side == KVT_V && bits == 16) {
        for (uint32_t j = 0; j < 4; j += 2)
            for (uint32_t g = begin; g < end; g++) {
                uint8_t *row = rows + j * stride + (size_t)(g - begin) * 32;
                const i32x16 both = i32x16_load(codes + (size_t)g * 512 + (size_t)(4 * q + j) * 32);
                i32x16_store_u16(row, i32x16_and(both, i32x16_set1(0xffff)));
                i32x16_store_u16(row + stride, i32x16_shr(both, 16));
            }
    } else if (side == KVT_V && bits < 8) { /* shifts by q */
        if (q == 0)
            unpack_columns(side, bits, table, codes, groups, begin, end, 0, rows, stride);
        else if (q == 1)
            unpack_columns(side, bits, table, codes, groups, begin, end, 1, rows, stride);
        else if (q == 2)
            unpack_columns(side, bits, table, codes, groups, begin, end, 2, rows, stride);
        else
            unpack_columns(side, bits, table, codes, groups, begin, end, 3, rows, stride);
    } else {
        unpack_columns(side, bits, table, codes, groups, begin, end, q, rows, stride);
    }
}

KVT_LANES void unpack_quads(kvt_side side, uint32_t bits, const kvt_table *table, const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end,
                            uint32_t first, uint32_t end_quad, uint8_t *rows, size_t stride)
{
    levels all;
    if (table)
        all = load_levels(bits, table, 0);
    const size_t quad_bytes = (size_t)(end - begin) * 8 * bits;
    const uint8_t *next = codes + (size_t)begin * 32 * bits;
    KVT_ROLLED
    for (uint32_t q = first; q < end_quad; q++) {
        unpack_quad(side, bits, table ? &all : NULL, codes, groups, begin, end, q, rows, stride);
        for (size_t i = q * quad_bytes; i < (q + 1) * quad_bytes; i += 64) /* of the next tile, as V's lines are not met in order */
            prefetch_near(next, (size_t)groups * 32 * bits + i);
        rows += 4 * stride;
    }
}

/* ---- one row ---- */

/* Byte `at` of the lanes of a line of 16 cells for each group. */
KVT_LANES void store_byte_lanes(uint8_t *lines, uint32_t groups, const uint8_t *row, uint32_t at)
{
    const i32x16 others = i32x16_set1(~(0xffu << 8 * at));
    for (uint32_t g = 0; g < groups; g++) {
        uint8_t *line = lines + (size_t)g * 256;
        const i32x16 code = i32x16_load_u8(row + (size_t)g * 16), old = i32x16_and(i32x16_load(line), others);
        i32x16_store(line, i32x16_or(old, at == 0 ? code : at == 1 ? i32x16_shl(code, 8) : at == 2 ? i32x16_shl(code, 16) : i32x16_shl(code, 24)));
    }
}

KVT_LANES void copy_cell(uint8_t *to, const uint8_t *from)
{
    uint32_t cell;
    memcpy(&cell, from, 4);
    store_cell(to, cell);
}

/* Scattered over its tile's lines. */
KVT_LANES void pack_token(kvt_side side, uint32_t bits, uint8_t *codes, uint32_t groups, const uint8_t *row, uint32_t token)
{
    if (side == KVT_K && bits < 8) {
        planes_store_row(bits, codes, groups, row, token);
    } else if (side == KVT_K) {
        uint8_t *to = codes + (size_t)token * 4;
        for (uint32_t left = groups * group_lines(bits); left > 0; left -= 4, to += 256, row += 16)
            for (uint32_t k = 0; k < 4; k++)
                copy_cell(to + (size_t)k * 64, row + (size_t)k * 4);
    } else if (bits == 8) { /* constants for the shifts */
        uint8_t *lines = codes + (size_t)(token / 4) * 64;
        if (token % 4 == 0)
            store_byte_lanes(lines, groups, row, 0);
        else if (token % 4 == 1)
            store_byte_lanes(lines, groups, row, 1);
        else if (token % 4 == 2)
            store_byte_lanes(lines, groups, row, 2);
        else
            store_byte_lanes(lines, groups, row, 3);
    } else if (bits < 8) {
        for (uint32_t g = 0; g < groups; g++)
            planes_store_lanes(bits, codes, groups, g, i32x16_load_u8(row + (size_t)g * 16), token);
    } else if (bits == 32) {
        for (uint32_t g = 0; g < groups; g++)
            u8x64_store(codes + ((size_t)g * KVT_TILE_TOKENS + token) * 64, u8x64_load(row + (size_t)g * 64));
    } else {
        const i32x16 low = i32x16_set1(0xffff), high = i32x16_set1(0xffff0000);
        for (uint32_t g = 0; g < groups; g++) {
            uint8_t *line = codes + (size_t)g * 512 + (size_t)(token / 2) * 64;
            const i32x16 old = i32x16_load(line), code = i32x16_load_u16(row + (size_t)g * 32);
            i32x16_store(line, token % 2 ? i32x16_or(i32x16_and(old, low), i32x16_shl(code, 16)) : i32x16_or(i32x16_and(old, high), code));
        }
    }
}

/* ---- a copy for each width and side ---- */

#define PACK_OF(name, side, bits)                                                                                                                    \
    static void tile_##name##bits(uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end, const uint8_t *rows, size_t stride)                 \
    {                                                                                                                                                \
        pack_tile(side, bits, codes, groups, begin, end, rows, stride);                                                                              \
    }                                                                                                                                                \
    static void token_##name##bits(uint8_t *codes, uint32_t groups, const uint8_t *row, uint32_t token)                                              \
    {                                                                                                                                                \
        pack_token(side, bits, codes, groups, row, token);                                                                                           \
    }

/* Whether there is a table is what all schemes of a width have in common, but for 4 bits. */
#define UNPACK_OF(name, side, bits, of_table)                                                                                                        \
    static void unpack_##name##bits(const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t end, uint32_t first, uint32_t end_quad,          \
                                    const kvt_table *table, uint8_t *rows, size_t stride)                                                            \
    {                                                                                                                                                \
        (void)table;                                                                                                                                 \
        of_table                                                                                                                                     \
    }
#define UNPACK(side, bits, table) unpack_quads(side, bits, table, codes, groups, begin, end, first, end_quad, rows, stride);
#define UNPACK_EITHER(side, bits)                                                                                                                    \
    if (table)                                                                                                                                       \
        UNPACK(side, bits, table)                                                                                                                    \
    else                                                                                                                                             \
        UNPACK(side, bits, NULL)

#define WIDTH_OF_TABLE(bits)                                                                                                                         \
    PACK_OF(k, KVT_K, bits)                                                                                                                          \
    PACK_OF(v, KVT_V, bits)                                                                                                                          \
    UNPACK_OF(k, KVT_K, bits, UNPACK(KVT_K, bits, table))                                                                                            \
    UNPACK_OF(v, KVT_V, bits, UNPACK(KVT_V, bits, table))
#define WIDTH_OF_NUMBERS(bits)                                                                                                                       \
    PACK_OF(k, KVT_K, bits)                                                                                                                          \
    PACK_OF(v, KVT_V, bits)                                                                                                                          \
    UNPACK_OF(k, KVT_K, bits, UNPACK(KVT_K, bits, NULL))                                                                                             \
    UNPACK_OF(v, KVT_V, bits, UNPACK(KVT_V, bits, NULL))
#define WIDTH_OF_BOTH(bits)                                                                                                                          \
    PACK_OF(k, KVT_K, bits)                                                                                                                          \
    PACK_OF(v, KVT_V, bits)                                                                                                                          \
    UNPACK_OF(k, KVT_K, bits, UNPACK_EITHER(KVT_K, bits))                                                                                            \
    UNPACK_OF(v, KVT_V, bits, UNPACK_EITHER(KVT_V, bits))

WIDTH_OF_TABLE(2)
WIDTH_OF_TABLE(3)
WIDTH_OF_BOTH(4)
WIDTH_OF_TABLE(5)
WIDTH_OF_TABLE(6)
WIDTH_OF_NUMBERS(8)
WIDTH_OF_NUMBERS(16)
WIDTH_OF_NUMBERS(32)

#define ROW_OF(bits) [bits] = { { tile_k##bits, tile_v##bits }, { token_k##bits, token_v##bits }, { unpack_k##bits, unpack_v##bits } }
extern const kvt_pack KVT_EXPORT(pack)[KVT_WIDTHS];
const kvt_pack KVT_EXPORT(pack)[KVT_WIDTHS] = { ROW_OF(2), ROW_OF(3), ROW_OF(4), ROW_OF(5), ROW_OF(6), ROW_OF(8), ROW_OF(16), ROW_OF(32) };
