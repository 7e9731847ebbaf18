/* Where codes are (docs/formats.md, section 2): from rows of codes to the lines of a tile and back. A row of codes has its channels in order, in
 * BITS / 8 bytes each, or in one where BITS is less than 8. Rows are padded to whole lines of 64 bytes; what the padding holds does not matter.
 *
 * Sixteen bytes of a row are a column. It meets four lines, and in them sixteen rows: a block of 16 x 16 bytes that only has to be transposed, cell
 * by cell for K, byte by byte for V. A chunk is four columns of sixteen rows; it is transposed at once, because a line of 64 bytes of a row is. */
#ifndef KVT_LINES_H
#define KVT_LINES_H

#include "kernels/planes.h"

enum {
    BITS = KVT_JOIN(KVT_BITS_, SCHEME),
    CODE_BYTES = BITS <= 8 ? 1 : BITS / 8, /* in a row of codes */
    GROUP_LINES = 4 * CODE_BYTES,          /* of 8 bits and more: 16 tokens x 16 channels */
    SLICE_GROUPS = 1024 / 16 / CODE_BYTES  /* of which rows of codes are kept: all that a row can have, where codes are bytes */
};

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

KVT_LANES void store_lines(uint8_t *codes, uint32_t groups, uint32_t column, const u8x64 line[4])
{
    if (BITS < 8)
        planes_store(BITS, codes, groups, column, line);
    else
        for (uint32_t i = 0; i < 4; i++)
            u8x64_store(codes + (size_t)column * 256 + (size_t)i * 64, line[i]);
}

/* `rows`: of whole lines, `stride` bytes apart. */
KVT_LANES void pack_tile(kvt_side side, uint8_t *codes, uint32_t groups, const uint8_t *rows, size_t stride)
{
    if (side == KVT_V && BITS == 32) {
        for (uint32_t g = 0; g < groups; g++)
            for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
                u8x64_store(codes + ((size_t)g * KVT_TILE_TOKENS + t) * 64, u8x64_load(rows + t * stride + (size_t)g * 64));
        return;
    }
    if (side == KVT_V && BITS == 16) {
        for (uint32_t g = 0; g < groups; g++)
            for (uint32_t t = 0; t < KVT_TILE_TOKENS; t += 2) {
                const uint8_t *row = rows + t * stride + (size_t)g * 32;
                i32x16_store(codes + (size_t)g * 512 + (size_t)t * 32,
                             i32x16_or(i32x16_load_u16(row), i32x16_shl(i32x16_load_u16(row + stride), 16)));
            }
        return;
    }
    const uint32_t columns = groups * CODE_BYTES;
    if (side == KVT_K) {
        for (uint32_t c = 0; c < columns; c++) {
            u8x64 line[4];
            lines_of_k(rows + (size_t)c * 16, stride, line);
            store_lines(codes, groups, c, line);
        }
        return;
    }
    for (uint32_t begin = 0; begin < columns; begin += 4) {
        u8x64 row[KVT_TILE_TOKENS], line[4][4];
        for (uint32_t t = 0; t < KVT_TILE_TOKENS; t++)
            row[t] = u8x64_load(rows + t * stride + (size_t)begin * 16);
        lines_of_v(row, line);
        for (uint32_t c = 0; c < 4 && begin + c < columns; c++)
            store_lines(codes, groups, begin + c, line[c]);
    }
}

/* ---- four rows of a tile: a quad ---- */

/* Of four columns from `begin` on, the quarter of quad q in line i of K, or quarter i of quad q's line of V. Columns from n on are repeated: nothing
 * behind the last is read. Both i and q should be constants. */
KVT_LANES u8x64 quarters_at(kvt_side side, const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t n, uint32_t i, uint32_t q)
{
    const uint32_t line = side == KVT_K ? i : q, quarter = side == KVT_K ? q : i;
    if (BITS < 8)
        return planes_load_quarters(BITS, codes, groups, begin, n, line, quarter);
    const uint8_t *p = codes + (size_t)begin * 256 + (size_t)line * 64 + (size_t)quarter * 16;
    return u8x64_load_quarters(p, p + (n > 1 ? 256 : 0), p + (n > 2 ? 512 : 0), p + (n > 3 ? 768 : 0));
}

KVT_LANES void unpack_chunk(kvt_side side, bool is_levels, const uint8_t *codes, uint32_t groups, uint32_t begin, uint32_t n, uint32_t q,
                            uint8_t *rows, size_t stride)
{
    u8x64 part[4] = { quarters_at(side, codes, groups, begin, n, 0, q), quarters_at(side, codes, groups, begin, n, 1, q),
                      quarters_at(side, codes, groups, begin, n, 2, q), quarters_at(side, codes, groups, begin, n, 3, q) };
    i32x16 cells[4];
    for (int i = 0; i < 4; i++) {
        if (is_levels)
            part[i] = levels_of(part[i]);
        cells[i] = i32x16_from_u8(side == KVT_K ? part[i] : u8x64_swap_cells(part[i]));
    }
    quad32_transpose(cells);
    for (uint32_t j = 0; j < 4; j++)
        i32x16_store(rows + j * stride + (size_t)begin * 16, cells[j]);
}

KVT_LANES void unpack_columns(kvt_side side, bool is_levels, const uint8_t *codes, uint32_t groups, uint32_t q, uint8_t *rows, size_t stride)
{
    const uint32_t columns = groups * CODE_BYTES;
    uint32_t begin = 0;
    for (; begin + 4 <= columns; begin += 4)
        unpack_chunk(side, is_levels, codes, groups, begin, 4, q, rows, stride);
    if (begin < columns)
        unpack_chunk(side, is_levels, codes, groups, begin, columns - begin, q, rows, stride);
}

/* Tokens 4q .. 4q + 3 to four rows, of room for whole lines. is_levels: what the codes of a table stand for instead of them. */
KVT_LANES void unpack_quad(kvt_side side, bool is_levels, const uint8_t *codes, uint32_t groups, uint32_t q, uint8_t *rows, size_t stride)
{
    if (side == KVT_V && BITS == 32) {
        for (uint32_t g = 0; g < groups; g++)
            for (uint32_t j = 0; j < 4; j++)
                u8x64_store(rows + j * stride + (size_t)g * 64, u8x64_load(codes + ((size_t)g * KVT_TILE_TOKENS + 4 * q + j) * 64));
    } else if (side == KVT_V && BITS == 16) {
        for (uint32_t g = 0; g < groups; g++)
            for (uint32_t j = 0; j < 4; j += 2) {
                const i32x16 both = i32x16_load(codes + (size_t)g * 512 + (size_t)(4 * q + j) * 32);
                i32x16_store_u16(rows + j * stride + (size_t)g * 32, i32x16_and(both, i32x16_set1(0xffff)));
                i32x16_store_u16(rows + (j + 1) * stride + (size_t)g * 32, i32x16_shr(both, 16));
            }
    } else if (side == KVT_V && BITS < 8) { /* shifts by q */
        if (q == 0)
            unpack_columns(side, is_levels, codes, groups, 0, rows, stride);
        else if (q == 1)
            unpack_columns(side, is_levels, codes, groups, 1, rows, stride);
        else if (q == 2)
            unpack_columns(side, is_levels, codes, groups, 2, rows, stride);
        else
            unpack_columns(side, is_levels, codes, groups, 3, rows, stride);
    } else {
        unpack_columns(side, is_levels, codes, groups, q, rows, stride);
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

/* Through a register of its own: compilers would rather load four and take them apart, which costs twice as much. */
KVT_LANES void copy_cell(uint8_t *to, const uint8_t *from)
{
    uint32_t cell;
    memcpy(&cell, from, 4);
    __asm__ volatile("" : "+r"(cell));
    memcpy(to, &cell, 4);
}

/* Scattered over its tile's lines. */
KVT_LANES void pack_row(kvt_side side, uint8_t *codes, uint32_t groups, const uint8_t *row, uint32_t token)
{
    if (side == KVT_K && BITS < 8) {
        planes_store_row(BITS, codes, groups, row, token);
    } else if (side == KVT_K) {
        uint8_t *to = codes + (size_t)token * 4;
        for (uint32_t i = 0; i < groups * GROUP_LINES; i += 4)
            for (uint32_t k = i; k < i + 4; k++)
                copy_cell(to + (size_t)k * 64, row + (size_t)k * 4);
    } else if (BITS == 8) { /* constants for the shifts */
        uint8_t *lines = codes + (size_t)(token / 4) * 64;
        if (token % 4 == 0)
            store_byte_lanes(lines, groups, row, 0);
        else if (token % 4 == 1)
            store_byte_lanes(lines, groups, row, 1);
        else if (token % 4 == 2)
            store_byte_lanes(lines, groups, row, 2);
        else
            store_byte_lanes(lines, groups, row, 3);
    } else if (BITS < 8) {
        for (uint32_t g = 0; g < groups; g++)
            planes_store_lanes(BITS, codes, groups, g, i32x16_load_u8(row + (size_t)g * 16), token);
    } else if (BITS == 32) {
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

#endif
