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
