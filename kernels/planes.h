/* SPDX-License-Identifier: MIT */
/* Codes of fewer than 8 bits: the four 8-bit lines of a group to lines of 4-, 2- and 1-bit planes and back (docs/formats.md, section 2). */
#ifndef KVT_PLANES_H
#define KVT_PLANES_H

#include "kernels/lanes.h"

/* The bits of `mask` (a byte, where they come to lie) moved from bit `from` to bit `to` in every byte. Both are constants. The count that is not used
 * has to be one that the shift accepts. */
#define MOVED_BITS(line, mask, from, to)                                                                                                             \
    u8x64_and(u8x64_from_i32((to) >= (from) ? i32x16_shl(i32x16_from_u8(line), (uint32_t)((to) >= (from) ? (to) - (from) : 0))                       \
                                            : i32x16_shr(i32x16_from_u8(line), (uint32_t)((from) > (to) ? (from) - (to) : 1))),                      \
              u8x64_from_i32(i32x16_set1(0x01010101u * (uint32_t)(mask))))

KVT_LANES u8x64 or4(u8x64 a, u8x64 b, u8x64 c, u8x64 d)
{
    return u8x64_or(u8x64_or(a, b), u8x64_or(c, d));
}

/* A line of the 2-bit plane that has the bits from `from` up. */
#define PAIRS_JOIN(l, from)                                                                                                                          \
    or4(MOVED_BITS((l)[0], 0x03, from, 0), MOVED_BITS((l)[1], 0x0c, from, 2), MOVED_BITS((l)[2], 0x30, from, 4), MOVED_BITS((l)[3], 0xc0, from, 6))

/* Half a line of the 1-bit plane that has bit `from`: bits at .. at + 3. */
#define BITS_JOIN(l, from, at)                                                                                                                       \
    or4(MOVED_BITS((l)[0], 1 << (at), from, at), MOVED_BITS((l)[1], 2 << (at), from, (at) + 1), MOVED_BITS((l)[2], 4 << (at), from, (at) + 2),       \
        MOVED_BITS((l)[3], 8 << (at), from, (at) + 3))

/* Back: what the plane adds to 8-bit line i of the group. A switch, because shifts want constants: where i is one, nothing is left of it. */
#define PAIRS_SPLIT(line, i, to)                                                                                                                     \
    ((i) == 0   ? MOVED_BITS(line, 3 << (to), 0, to)                                                                                                 \
     : (i) == 1 ? MOVED_BITS(line, 3 << (to), 2, to)                                                                                                 \
     : (i) == 2 ? MOVED_BITS(line, 3 << (to), 4, to)                                                                                                 \
                : MOVED_BITS(line, 3 << (to), 6, to))
#define BITS_SPLIT(line, i, to)                                                                                                                      \
    ((i) == 0   ? MOVED_BITS(line, 1 << (to), 0, to)                                                                                                 \
     : (i) == 1 ? MOVED_BITS(line, 1 << (to), 1, to)                                                                                                 \
     : (i) == 2 ? MOVED_BITS(line, 1 << (to), 2, to)                                                                                                 \
                : MOVED_BITS(line, 1 << (to), 3, to))

static const uint8_t kvt_zeros[16], kvt_ones[16] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255 };

KVT_LANES void planes_store(uint32_t bits, uint8_t *codes, uint32_t groups, uint32_t g, const u8x64 l[4])
{
    const u8x64 nibble = u8x64_from_i32(i32x16_set1(0x0f0f0f0f));
    uint8_t *lower = codes + (size_t)g * 32 * KVT_LOWER_BITS(bits), *upper = codes + (size_t)groups * 32 * KVT_LOWER_BITS(bits);
    if (bits == 4) {
        u8x64_store(lower, u8x64_join_nibbles(l[0], l[1]));
        u8x64_store(lower + 64, u8x64_join_nibbles(l[2], l[3]));
    } else if (bits > 4) {
        u8x64_store(lower, u8x64_join_nibbles(u8x64_and(l[0], nibble), u8x64_and(l[1], nibble)));
        u8x64_store(lower + 64, u8x64_join_nibbles(u8x64_and(l[2], nibble), u8x64_and(l[3], nibble)));
    } else {
        u8x64_store(lower, PAIRS_JOIN(l, 0));
    }
    if (bits == 6)
        u8x64_store(upper + (size_t)g * 64, PAIRS_JOIN(l, 4));
    if (bits == 5 || bits == 3) {
        uint8_t *line = upper + (size_t)(g / 2) * 64;
        if (g % 2 == 0)
            u8x64_store(line, bits == 5 ? BITS_JOIN(l, 4, 0) : BITS_JOIN(l, 2, 0));
        else
            u8x64_store(line, u8x64_or(u8x64_load(line), bits == 5 ? BITS_JOIN(l, 4, 4) : BITS_JOIN(l, 2, 4)));
    }
}

/* 16 bytes of each of four groups, g and those `next` behind it (0 where there is none: g once more): quarter `quarter` of 8-bit line i. */
KVT_LANES u8x64 planes_load_quarters(uint32_t bits, const uint8_t *codes, uint32_t groups, uint32_t g, const size_t next[3], uint32_t i,
                                     uint32_t quarter)
{
    const size_t b = next[0], c = next[1], d = next[2];
    const uint8_t *lower = codes + (size_t)quarter * 16, *upper = lower + (size_t)groups * 32 * KVT_LOWER_BITS(bits);
    u8x64 code;
    if (bits >= 4) {
        const uint8_t *p = lower + (size_t)g * 128 + (size_t)(i / 2) * 64;
        const u8x64 two = u8x64_load_quarters(p, p + b * 128, p + c * 128, p + d * 128);
        code = i % 2 ? u8x64_high_nibbles(two) : u8x64_low_nibbles(two);
    } else {
        const uint8_t *p = lower + (size_t)g * 64;
        const u8x64 four = u8x64_load_quarters(p, p + b * 64, p + c * 64, p + d * 64);
        code = PAIRS_SPLIT(four, i, 0);
    }
    if (bits == 6) {
        const uint8_t *p = upper + (size_t)g * 64;
        const u8x64 four = u8x64_load_quarters(p, p + b * 64, p + c * 64, p + d * 64);
        code = u8x64_or(code, PAIRS_SPLIT(four, i, 4));
    }
    if (bits == 5 || bits == 3) { /* g is even, and odd groups have the upper nibbles of a line */
        const uint8_t *p = upper + (size_t)(g / 2) * 64, *second = p + c / 2 * 64;
        const u8x64 eight = u8x64_load_quarters(p, p, second, second), is_odd = u8x64_load_quarters(kvt_zeros, kvt_ones, kvt_zeros, kvt_ones);
        const u8x64 four = u8x64_or(u8x64_andnot(eight, is_odd), u8x64_and(u8x64_high_nibbles(eight), is_odd));
        code = u8x64_or(code, bits == 5 ? BITS_SPLIT(four, i, 4) : BITS_SPLIT(four, i, 2));
    }
    return code;
}

/* The four 8-bit lines of group g. */
KVT_LANES void planes_load(uint32_t bits, const uint8_t *codes, uint32_t groups, size_t g, u8x64 l[4])
{
    const uint8_t *lower = codes + (size_t)g * 32 * KVT_LOWER_BITS(bits), *upper = codes + (size_t)groups * 32 * KVT_LOWER_BITS(bits);
    if (bits >= 4) {
        const u8x64 first = u8x64_load(lower), second = u8x64_load(lower + 64);
        l[0] = u8x64_low_nibbles(first);
        l[1] = u8x64_high_nibbles(first);
        l[2] = u8x64_low_nibbles(second);
        l[3] = u8x64_high_nibbles(second);
    } else {
        const u8x64 four = u8x64_load(lower);
        l[0] = PAIRS_SPLIT(four, 0, 0);
        l[1] = PAIRS_SPLIT(four, 1, 0);
        l[2] = PAIRS_SPLIT(four, 2, 0);
        l[3] = PAIRS_SPLIT(four, 3, 0);
    }
    if (bits == 6) {
        const u8x64 four = u8x64_load(upper + (size_t)g * 64);
        l[0] = u8x64_or(l[0], PAIRS_SPLIT(four, 0, 4));
        l[1] = u8x64_or(l[1], PAIRS_SPLIT(four, 1, 4));
        l[2] = u8x64_or(l[2], PAIRS_SPLIT(four, 2, 4));
        l[3] = u8x64_or(l[3], PAIRS_SPLIT(four, 3, 4));
    }
    if (bits == 5 || bits == 3) { /* odd groups have the upper nibbles of a line */
        const u8x64 eight = u8x64_load(upper + (size_t)(g / 2) * 64), four = g % 2 ? u8x64_high_nibbles(eight) : eight;
        l[0] = u8x64_or(l[0], bits == 5 ? BITS_SPLIT(four, 0, 4) : BITS_SPLIT(four, 0, 2));
        l[1] = u8x64_or(l[1], bits == 5 ? BITS_SPLIT(four, 1, 4) : BITS_SPLIT(four, 1, 2));
        l[2] = u8x64_or(l[2], bits == 5 ? BITS_SPLIT(four, 2, 4) : BITS_SPLIT(four, 2, 2));
        l[3] = u8x64_or(l[3], bits == 5 ? BITS_SPLIT(four, 3, 4) : BITS_SPLIT(four, 3, 2));
    }
}

/* ---- one token ---- */

/* From a register of its own: compilers would rather make four at once and take them apart, which costs twice as much. */
KVT_LANES void store_cell(uint8_t *to, uint32_t cell)
{
    __asm__ volatile("" : "+r"(cell));
    memcpy(to, &cell, 4);
}

/* Of neighbours in each quarter's four lanes, the second `by` (1, 2, 4) bits above the first: lanes 4q and 4q + 1 of the result. */
static const uint32_t kvt_even_lanes[16] = { ~0u, 0, ~0u, 0, ~0u, 0, ~0u, 0, ~0u, 0, ~0u, 0, ~0u, 0, ~0u, 0 };
KVT_LANES i32x16 joined_neighbours(i32x16 x, uint32_t by)
{
    const u8x64 even = u8x64_load(kvt_even_lanes), moved = u8x64_from_i32(by == 1 ? i32x16_shl(x, 1) : by == 2 ? i32x16_shl(x, 2) : i32x16_shl(x, 4));
    const i32x16 both = i32x16_from_u8(u8x64_or(u8x64_and(u8x64_from_i32(x), even), u8x64_andnot(moved, even)));
    return i32x16_add_pairs(both, both);
}

/* The cell of line l, of those of four groups. */
KVT_LANES uint32_t joined_cell(uint32_t plane, const uint32_t cells[16], uint32_t l)
{
    return plane == 4 ? cells[l / 2 * 4 + l % 2] : plane == 2 ? cells[4 * l] : cells[8 * l] | cells[8 * l + 4] << 4;
}

/* Of the plane that has bits from .. from + plane - 1, both of them constants. K: the token's cell of 8-bit line L is the row's L-th four codes.
 * Those of four groups are joined at once. */
KVT_LANES void plane_store_row(uint32_t from, uint32_t plane, uint8_t *codes, uint32_t groups, const uint8_t *row, uint32_t token)
{
    const uint32_t per_line = 8 / plane, lines = (4 * groups + per_line - 1) / per_line, at_once = 16 / per_line;
    uint8_t *to = codes + token * 4;
    KVT_ROLLED
    for (uint32_t left = lines; left > 0; row += 64) {
        const i32x16 four = i32x16_load(row), bits = i32x16_set1(0x01010101u * ((1u << plane) - 1));
        const i32x16 x = i32x16_and(from == 0 ? four : from == 4 ? i32x16_shr(four, 4) : i32x16_shr(four, 2), bits);
        uint32_t cells[16];
        i32x16_store(cells, plane == 4 ? joined_neighbours(x, 4) : joined_neighbours(joined_neighbours(x, plane), 2 * plane));
        if (plane == 1 && left <= at_once && groups % 2) /* the last line is half a one */
            cells[groups % 4 * 4] = 0;
        if (left < at_once) {
            KVT_ROLLED
            for (uint32_t l = 0; l < left; l++, to += 64)
                store_cell(to, joined_cell(plane, cells, l));
            return;
        }
        for (uint32_t l = 0; l < at_once; l++, to += 64)
            store_cell(to, joined_cell(plane, cells, l));
        left -= at_once;
    }
}

KVT_LANES void planes_store_row(uint32_t bits, uint8_t *codes, uint32_t groups, const uint8_t *row, uint32_t token)
{
    const uint32_t lower = KVT_LOWER_BITS(bits);
    plane_store_row(0, lower, codes, groups, row, token);
    if (bits > lower)
        plane_store_row(lower, bits - lower, codes + (size_t)groups * 32 * lower, groups, row, token);
}

/* V: codes of group g in 32-bit lanes. The unused bits of the last line of a 1-bit plane become zeros. */
KVT_LANES void plane_store_lanes(uint32_t from, uint32_t plane, uint8_t *codes, uint32_t groups, uint32_t g, i32x16 code, uint32_t token)
{
    const uint32_t L = 4 * g + token / 4, per_line = 8 / plane;
    i32x16 c = from == 0 ? code : from == 4 ? i32x16_shr(code, 4) : i32x16_shr(code, 2);
    c = i32x16_and(c, i32x16_set1((1u << plane) - 1));
    if (plane == 1) /* to every place of a byte, then to every byte; one of them is wanted */
        c = i32x16_or(c, i32x16_shl(c, 1));
    if (plane <= 2)
        c = i32x16_or(c, i32x16_shl(c, 2));
    if (plane <= 4)
        c = i32x16_or(c, i32x16_shl(c, 4));
    c = i32x16_or(c, i32x16_shl(c, 8));
    c = i32x16_or(c, i32x16_shl(c, 16));
    const uint32_t wanted = ((1u << plane) - 1) << plane * (L % per_line) << 8 * (token % 4);
    const uint32_t unused = plane == 1 && g % 2 == 0 && g + 1 == groups ? 0xf0u << 8 * (token % 4) : 0;
    uint8_t *line = codes + (size_t)(L / per_line) * 64;
    const i32x16 kept = i32x16_and(i32x16_load(line), i32x16_set1(~(wanted | unused)));
    i32x16_store(line, i32x16_or(kept, i32x16_and(c, i32x16_set1(wanted))));
}

KVT_LANES void planes_store_lanes(uint32_t bits, uint8_t *codes, uint32_t groups, uint32_t g, i32x16 code, uint32_t token)
{
    const uint32_t lower = KVT_LOWER_BITS(bits);
    plane_store_lanes(0, lower, codes, groups, g, code, token);
    if (bits > lower)
        plane_store_lanes(lower, bits - lower, codes + (size_t)groups * 32 * lower, groups, g, code, token);
}

#endif
