/* What every scheme_*.c starts from: the lanes of its tier, and the rows of schemes.def as constants.
 *
 * A scheme file defines SCHEME (its name), includes this, defines the functions that op_tile.h asks for, and includes that last. */
#ifndef KVT_SCHEME_H
#define KVT_SCHEME_H

#include "kernels/kernels.h"
#include "kernels/number.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define KVT_JOIN_(a, b)              a##b
#define KVT_JOIN(a, b)               KVT_JOIN_(a, b)
#define KVT_JOIN4_(a, b, c, d)       a##b##c##d
#define KVT_JOIN4(a, b, c, d)        KVT_JOIN4_(a, b, c, d)
#define KVT_KERNELS_OF(scheme, tier) KVT_JOIN4(kvt_kernels_, scheme, _, tier)

enum {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title)                                                                                          \
    KVT_BITS_##name = (bits), KVT_SCALE_BYTES_##name = KVT_SCALE_##scale, KVT_IS_FP8_##name = KVT_IS_FP8_SCALE_##scale,                              \
    KVT_BLOCK_GROUPS_##name = (block) == 0 || (block) == KVT_BLOCK_ROW ? KVT_MAX_DIM / 16 : (block) / 16,
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
    KVT_MAX_GROUPS = KVT_MAX_DIM / 16
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pages are little-endian, and kernels load and store them as they are");
_Static_assert(FLT_EVAL_METHOD == 0, "float operations are rounded to float, each of them");

/* The scales of 16 blocks: of one block of 16 tokens, or of 16 blocks of one token. */
typedef struct block_scale {
    f32x16 scale; /* as it is stored, before narrowing */
    f32x16 r;     /* what encode multiplies by */
    bool has_unrepresentable;
    uint32_t unrepresentable[16]; /* lanes to be encoded as zeros, because their block holds numbers that no code stands for */
} block_scale;

/* Bits of a float without the sign, and rotated left by one: then the magnitude decides, and of +a and -a the negative one is larger. */
KVT_LANES i32x16 magnitude_bits(f32x16 x)
{
    return i32x16_and(i32x16_from_f32_bits(x), i32x16_set1(0x7fffffff));
}
KVT_LANES i32x16 signed_magnitude(f32x16 x)
{
    const i32x16 bits = i32x16_from_f32_bits(x);
    return i32x16_or(i32x16_shl(bits, 1), i32x16_shr(bits, 31));
}

/* Integers of four lanes of 16 to halfwords, such that `dot_store` puts them in order. */
KVT_LANES void words_in_order(const i32x16 x[4], u8x64 half[2])
{
    u8x64 quarter[4];
    i32x16 row[4];
    for (int i = 0; i < 4; i++)
        quarter[i] = u8x64_from_i32(x[i]);
    u8x64_swap_quarters(quarter);
    for (int i = 0; i < 4; i++)
        row[i] = i32x16_from_u8(quarter[i]);
    quad16_words(row, half);
}

#endif
