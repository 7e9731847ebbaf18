/* Attention over e4m3 and e5m2. */
#include "kernels/floats.h"

KVT_LANES void load_e4m3(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS])
{
    if (n == 4) {
        f32x16_load_line_e4m3(line, part);
        return;
    }
    KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        part[i] = f32x16_load_e4m3(line + (size_t)i * 16);
}

KVT_LANES void load_e5m2(const uint8_t *line, uint32_t first, uint32_t n, f32x16 part[MOST_PARTS])
{
    if (n == 4) {
        f32x16_load_line_e5m2(line, part);
        return;
    }
    KVT_FOR_ROWS
    for (uint32_t i = first; i < first + n; i++)
        part[i] = f32x16_load_e5m2(line + (size_t)i * 16);
}

static const float_format e4m3 = { 8, true, load_e4m3 }, e5m2 = { 8, true, load_e5m2 };

FLOAT_LOOPS(e4m3, &e4m3)
FLOAT_LOOPS(e5m2, &e5m2)
