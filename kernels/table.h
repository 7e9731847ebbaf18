/* Schemes whose codes are indices of a table of levels (docs/formats.md, section 4, kv6 ... kv2). Included by a scheme_*.c, which has defined
 *
 *   LEVELS                                   the table's numbers, ascending, neighbours an odd number apart
 *   MIDPOINTS                                between neighbours, rounded down, in the order of a binary search: the middle, those of its halves, ...
 *   SEARCH_FIRST, SEARCH_STEP, BEST_FIRST    the candidates of efforts default and best
 *   FAST                                     the one of effort fast
 *
 * before it includes op_tile.h. In op_tile.h's terms a code is a level until it is packed: `encode` gives the integer whose nearest level is wanted,
 * and `decode` gets the level. */
#include "kernels/scheme.h"

#define SCHEME_HAS_SCALES
#define SCHEME_IS_TABLE
#define CODES_SIGNED

enum { LEVEL_BITS = KVT_JOIN(KVT_BITS_, SCHEME), LEVEL_COUNT = 1 << LEVEL_BITS };

/* Padded, because they are loaded by 16 bytes. */
static const int8_t kvt_levels[64] = { LEVELS };
static const int8_t kvt_midpoints[LEVEL_COUNT + 15] = { MIDPOINTS };

KVT_LANES i32x16 magnitude(f32x16 x)
{
    return signed_magnitude(x);
}

KVT_LANES i32x16 encode(f32x16 x, f32x16 r)
{
    return i32x16_from_f32_rne(f32x16_mul(x, r));
}

KVT_LANES f32x16 decode(i32x16 level, f32x16 s)
{
    return f32x16_mul(f32x16_from_i32(level), s);
}

/* The code of the nearest level, of signed bytes: a binary search. A midpoint is never an integer, so it is rounded down and compared with >. */
KVT_LANES u8x64 codes_of(u8x64 y)
{
    u8x64 code = u8x64_from_i32(i32x16_set1(0));
    for (int depth = 0; depth < LEVEL_BITS; depth++) {
        const int8_t *entry = kvt_midpoints + (1 << depth) - 1;
        u8x64 bound = u8x64_load_quarter(entry);
        if (depth == 0) {
            bound = u8x64_from_i32(i32x16_set1(0x01010101u * (uint8_t)kvt_midpoints[0]));
        } else if (depth < 5) {
            bound = u8x64_lookup16(bound, code);
        } else {
            const u8x64 table[2] = { bound, u8x64_load_quarter(entry + 16) };
            bound = u8x64_lookup32(table, code);
        }
        code = u8x64_count_gt_s8(u8x64_add(code, code), y, bound);
    }
    return code;
}

KVT_LANES u8x64 levels_of(u8x64 code)
{
    if (LEVEL_BITS <= 4)
        return u8x64_lookup16(u8x64_load_quarter(kvt_levels), code);
    const u8x64 table[4] = { u8x64_load_quarter(kvt_levels), u8x64_load_quarter(kvt_levels + 16), u8x64_load_quarter(kvt_levels + 32),
                             u8x64_load_quarter(kvt_levels + 48) };
    return LEVEL_BITS == 5 ? u8x64_lookup32(table, code) : u8x64_lookup64(table, code);
}

/* As integers to be multiplied (kernels/op_attend.h): the bias is in the table. */
enum { CODE_BIAS = KVT_DOT_BIAS };
KVT_LANES u8x64 biased_codes(u8x64 code)
{
    const u8x64 bias = u8x64_from_i32(i32x16_set1(0x01010101u * KVT_DOT_BIAS));
    if (LEVEL_BITS <= 4)
        return u8x64_lookup16(u8x64_add(u8x64_load_quarter(kvt_levels), bias), code);
    u8x64 table[4];
    for (int i = 0; i < 4; i++)
        table[i] = u8x64_add(u8x64_load_quarter(kvt_levels + 16 * i), bias);
    return LEVEL_BITS == 5 ? u8x64_lookup32(table, code) : u8x64_lookup64(table, code);
}

/* levels_of(codes_of(y)) for many y: where bytes can be looked up in a table of 256, that is made first. */
typedef struct nearest {
#ifdef KVT_HAS_LOOKUP256
    u8x64 level[4];
#else
    char none;
#endif
} nearest;

KVT_LANES nearest nearest_make(void)
{
    nearest n = { 0 };
#ifdef KVT_HAS_LOOKUP256
    for (int i = 0; i < 4; i++) {
        uint8_t y[64];
        for (int j = 0; j < 64; j++)
            y[j] = (uint8_t)(64 * i + j);
        n.level[i] = levels_of(codes_of(u8x64_load(y)));
    }
#endif
    return n;
}

KVT_LANES u8x64 nearest_level(const nearest *n, u8x64 y)
{
#ifdef KVT_HAS_LOOKUP256
    return u8x64_lookup256(n->level, y);
#else
    (void)n;
    return levels_of(codes_of(y));
#endif
}

/* Scales are searched (kernels/op_table.h); op_tile.h's way to them is not taken. */
KVT_LANES block_scale scale_of(i32x16 largest, const kvt_tile_spec *spec)
{
    (void)spec;
    return (block_scale){ .scale = f32x16_from_bits(largest), .r = f32x16_set1(0) };
}
