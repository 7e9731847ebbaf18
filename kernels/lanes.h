/* SPDX-License-Identifier: MIT */
/* What every kernel starts from: the lanes of its tier, the numbers of rows, and how loops are to be compiled. */
#ifndef KVT_LANES_H
#define KVT_LANES_H

#include "kernels/kernels.h"
#include "kernels/number.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#define KVT_JOIN_(a, b)        a##b
#define KVT_JOIN(a, b)         KVT_JOIN_(a, b)
#define KVT_JOIN4_(a, b, c, d) a##b##c##d
#define KVT_JOIN4(a, b, c, d)  KVT_JOIN4_(a, b, c, d)

/* The name of what a group exports. */
#define KVT_EXPORT(name) KVT_JOIN4(kvt_, name, _, KVT_TIER)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "pages are little-endian, and kernels load and store them as they are");
_Static_assert(FLT_EVAL_METHOD == 0, "float operations are rounded to float, each of them");

/* Copies of a long body gain nothing and cost the instruction cache; rows of queries are registers. */
#if defined(__clang__)
#define KVT_ROLLED   _Pragma("clang loop unroll(disable)")
#define KVT_UNROLLED _Pragma("clang loop unroll_count(4)")
#define KVT_FOR_ROWS _Pragma("clang loop unroll(full)")
#else
#define KVT_ROLLED   _Pragma("GCC unroll 1")
#define KVT_UNROLLED _Pragma("GCC unroll 4")
#define KVT_FOR_ROWS _Pragma("GCC unroll 16")
#endif

/* One copy only of what many ask for. */
#if defined(__clang__)
#define KVT_ONCE static __attribute__((noinline, unused))
#else
#define KVT_ONCE static __attribute__((noinline, noclone, unused))
#endif

enum { PAGE_TILES = KVT_PAGE_TILES };

/* ---- words of arch/VEC.md that most ISAs have alike ---- */

/* Where 16 lanes are one register, a fourth row costs less than loading and unpacking lines a second time for a third. */
enum { JOINS_ROWS = KVT_FLOAT_SUMS >= 16 };

#if !defined(KVT_DOT_SETS)
#define KVT_DOT_SETS 1
#endif
#if !defined(KVT_FEW_REGISTERS)
#define KVT_FEW_REGISTERS 0
#endif
#if !defined(KVT_DOT_U8_OFFSET)
#define KVT_DOT_U8_OFFSET 0
#endif
#if !defined(dot_add_shared)
#define dot_add_shared dot_add
#endif
#if !defined(dot_add_u8)
#define dot_add_u8 dot_add
#endif
#if !defined(dot_store_u8)
#define dot_store_u8 u8x64_store
#endif

/* ---- numbers of rows ---- */

KVT_LANES uint32_t number_bytes(kvt_dtype dtype)
{
    return dtype == KVT_F32 ? 4 : 2;
}

KVT_LANES f32x16 load_number(const uint8_t *p, kvt_dtype dtype)
{
    if (dtype == KVT_F32)
        return f32x16_load(p);
    if (dtype == KVT_F16)
        return f32x16_load_f16(p);
    return f32x16_from_bits(widen_bf16(i32x16_load_u16(p)));
}

KVT_LANES void store_number(uint8_t *p, kvt_dtype dtype, f32x16 x)
{
    if (dtype == KVT_F32)
        f32x16_store(p, x);
    else if (dtype == KVT_F16)
        f32x16_store_f16(p, x);
    else
        i32x16_store_u16(p, narrow_bf16(i32x16_from_f32_bits(x)));
}

/* 16 numbers; n of them exist. */
KVT_LANES f32x16 load_some(const uint8_t *p, kvt_dtype dtype, uint32_t n)
{
    uint8_t some[64] = { 0 };
    if (n >= 16)
        return load_number(p, dtype);
    memcpy(some, p, n * number_bytes(dtype));
    return load_number(some, dtype);
}

/* ---- bits ---- */

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

/* What is below KVT_LEAST counts as nothing, so that products and their sums have no subnormal bits. */
KVT_LANES f32x16 without_least(f32x16 x)
{
    return f32x16_zero_below(x, 0x2c800000);
}

/* Lanes i of `base` + i, ... that are first .. end-1 keep x, the others get `otherwise`. */
static const uint32_t kvt_lane_numbers[16] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15 };
KVT_LANES f32x16 lanes_between(f32x16 x, uint32_t base, uint32_t first, uint32_t end, f32x16 otherwise)
{
    const i32x16 number = i32x16_add(i32x16_load(kvt_lane_numbers), i32x16_set1(base)), others = i32x16_from_f32_bits(otherwise);
    const i32x16 before = i32x16_select(i32x16_gt(i32x16_set1(end), number), i32x16_from_f32_bits(x), others);
    return f32x16_from_bits(i32x16_select(i32x16_gt(i32x16_set1(first), number), others, before));
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

/* ---- memory ---- */

/* What is prefetched may be not there. To L1; to L2, as rows, which are often 4 KiB apart and would put each other out of L1, and what is further
 * away, because L1 has too few ways to wait for memory (24 on Zen 4, and one more line every 8 cycles). */
KVT_LANES void prefetch_near(const uint8_t *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead), 0, 3);
}
KVT_LANES void prefetch_far(const uint8_t *p, size_t ahead)
{
    __builtin_prefetch((const void *)((uintptr_t)p + ahead), 0, 2);
}

/* Bytes of a tile's codes, and of its scales. */
KVT_LANES size_t tile_code_bytes(uint32_t bits, uint32_t groups)
{
    return bits == 5 || bits == 3 ? (size_t)groups * 32 * (bits - 1) + (size_t)((groups + 1) / 2) * 64 : (size_t)groups * 32 * bits;
}
KVT_LANES uint32_t blocks_in(uint32_t groups, uint32_t per_block)
{
    return (groups + per_block - 1) >> __builtin_ctz(per_block);
}
KVT_LANES size_t tile_scale_bytes(uint32_t groups, const kvt_tile_spec *spec)
{
    return (size_t)blocks_in(groups, spec->block_groups) * KVT_TILE_TOKENS * spec->scale_bytes;
}

/* Scales of n blocks of a page from b on, to [block][token of the page]. */
KVT_LANES void load_scales_of_tiles(kvt_load_scales_fn *load, const kvt_page_side *page, uint32_t first_tile, uint32_t end_tile,
                                    const kvt_tile_spec *spec, uint32_t b, uint32_t n, float *to)
{
    const size_t bytes = tile_scale_bytes(spec->dim / 16, spec);
    load(page->scales + first_tile * bytes, bytes, end_tile - first_tile, b, n, spec, to + first_tile * KVT_TILE_TOKENS, KVT_PAGE_TOKENS);
}

#endif
