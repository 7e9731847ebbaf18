/* SPDX-License-Identifier: MIT */
/* Attention over e4m3 and e5m2. */
#include "kernels/floats.h"

#define FP8_LOOPS(name)                                                                                                                              \
    KVT_LANES void parts_of_##name(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS])                                         \
    {                                                                                                                                                \
        if (n == 4) {                                                                                                                                \
            f32x16_load_line_##name(line, part);                                                                                                     \
            return;                                                                                                                                  \
        }                                                                                                                                            \
        KVT_FOR_ROWS                                                                                                                                 \
        for (uint32_t i = first; i < first + n; i++)                                                                                                 \
            part[i] = f32x16_load_##name(line + (size_t)i * 16);                                                                                     \
    }                                                                                                                                                \
    static const float_format name = { 8, true, parts_of_##name };                                                                                   \
    FLOAT_LOOPS(name, &name)

FP8_LOOPS(e4m3)
FP8_LOOPS(e5m2)
