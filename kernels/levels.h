/* SPDX-License-Identifier: MIT */
/* Codes that are indices of a table of levels (docs/formats.md, section 4, kv6 ... kv2): `bits` of them, a constant where it matters. */
#ifndef KVT_LEVELS_H
#define KVT_LEVELS_H

#include "kernels/lanes.h"

typedef struct levels {
    u8x64 part[4];
} levels;

/* With `bias` added to each. */
KVT_LANES levels load_levels(uint32_t bits, const kvt_table *table, uint8_t bias)
{
    levels all;
    for (uint32_t i = 0; i < 4; i++)
        if (i == 0 || 16u * i < 1u << bits) {
            all.part[i] = u8x64_load_quarter(table->levels + 16 * i);
            if (bias)
                all.part[i] = u8x64_add(all.part[i], u8x64_from_i32(i32x16_set1(0x01010101u * bias)));
        } else {
            all.part[i] = all.part[0];
        }
    return all;
}

KVT_LANES u8x64 levels_of(uint32_t bits, const levels *all, u8x64 code)
{
    return bits <= 4 ? u8x64_lookup16(all->part[0], code) : bits == 5 ? u8x64_lookup32(all->part, code) : u8x64_lookup64(all->part, code);
}

/* Levels with the signs of their tokens' scales, for codes of at most 5 bits: a quad says which bytes of cells are negated. Where a lookup has room
 * for twice as many levels, that is a bit more of the index. */
#if defined(KVT_HAS_LOOKUP256)
KVT_LANES levels load_signed_levels(uint32_t bits, const kvt_table *table)
{
    levels all = load_levels(bits, table, 0);
    if (bits == 5) {
        all.part[2] = u8x64_neg_s8(all.part[0]);
        all.part[3] = u8x64_neg_s8(all.part[1]);
    } else {
        all.part[1] = u8x64_neg_s8(all.part[0]);
    }
    return all;
}
/* Of signs that are 0 or 1. */
KVT_LANES u8x64 sign_bytes(uint32_t bits, u8x64 signs)
{
    return u8x64_from_i32(bits == 5 ? i32x16_shl(i32x16_from_u8(signs), 5) : i32x16_shl(i32x16_from_u8(signs), 4));
}
KVT_LANES u8x64 signed_levels_of(uint32_t bits, const levels *all, u8x64 code, const uint8_t *quad)
{
    uint32_t cell;
    memcpy(&cell, quad, 4);
    const u8x64 index = u8x64_or(code, u8x64_from_i32(i32x16_set1(cell)));
    return bits == 5 ? u8x64_lookup64(all->part, index) : u8x64_lookup32(all->part, index);
}
#else
KVT_LANES levels load_signed_levels(uint32_t bits, const kvt_table *table)
{
    return load_levels(bits, table, 0);
}
KVT_LANES u8x64 sign_bytes(uint32_t bits, u8x64 signs)
{
    (void)bits;
    return u8x64_neg_s8(signs);
}
KVT_LANES u8x64 signed_levels_of(uint32_t bits, const levels *all, u8x64 code, const uint8_t *quad)
{
    uint32_t cell;
    memcpy(&cell, quad, 4);
    const i32x16 mask = i32x16_set1(cell);
    const u8x64 flipped = u8x64_from_i32(i32x16_xor(i32x16_from_u8(levels_of(bits, all, code)), mask));
    return u8x64_add(flipped, u8x64_neg_s8(u8x64_from_i32(mask)));
}
#endif

/* Levels of the lower nibbles; on those that look 64 bytes up, upper ones make no difference where the quarters of the table are alike. */
KVT_LANES u8x64 levels_of_nibbles(const levels *all, u8x64 line)
{
#if defined(KVT_HAS_LOOKUP256)
    return u8x64_lookup64_whole(all->part[0], line);
#else
    return u8x64_lookup16(all->part[0], u8x64_low_nibbles(line));
#endif
}

/* Of kvt_table.bounds, those that codes of so many bits need. */
KVT_LANES uint32_t bounds_of(uint32_t bits)
{
    return bits <= 3 ? 1 : bits - 2 + (bits == 6);
}

/* The code of the nearest level, of signed bytes. A midpoint is never an integer, so it is rounded down and compared with >. */
KVT_LANES u8x64 codes_of(uint32_t bits, const kvt_table *table, u8x64 y)
{
    const u8x64 sixteenth = u8x64_high_nibbles(y);
    u8x64 code = u8x64_lookup16(u8x64_load_quarter(table->first), sixteenth);
    for (uint32_t i = 0; i < bounds_of(bits); i++)
        code = u8x64_count_gt_s8(code, y, u8x64_lookup16(u8x64_load_quarter(table->bounds[i]), sixteenth));
    return code;
}

#endif
