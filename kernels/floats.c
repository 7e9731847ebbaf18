/* SPDX-License-Identifier: MIT */
/* Attention over f32, f16 and bf16. */
#include "kernels/floats.h"

KVT_LANES void load_f32(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS])
{
    (void)first, (void)n;
    part[0] = without_least(f32x16_load(line));
}

KVT_LANES void load_f16(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS])
{
    KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        part[i] = f32x16_load_f16(line + (size_t)i * 32);
}

KVT_LANES void load_bf16(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS])
{
    KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        part[i] = without_least(f32x16_from_bits(widen_bf16(i32x16_load_u16(line + (size_t)i * 32))));
}

static const float_format f32 = { 32, false, load_f32 }, f16 = { 16, false, load_f16 }, bf16 = { 16, false, load_bf16 };

FLOAT_LOOPS(f32, &f32)
FLOAT_LOOPS(f16, &f16)
FLOAT_LOOPS(bf16, &bf16)
