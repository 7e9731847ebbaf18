/* SPDX-License-Identifier: MIT */
/* Every scheme as the kernels see it, a row each: bits, block and scale from schemes.def, and here how its numbers become codes, how attention
 * multiplies them, and the levels of tables. */
#include "kernels/kernels.h"

static const kvt_table kv2 = {
    .levels = { -127, -44, 19, 92 },
    .first = { 2, 2, 2, 2, 3, 3, 3, 3, 0, 0, 0, 1, 1, 1, 1, 1 },
    .bounds = { { 127, 127, 127, 55, 127, 127, 127, 127, 127, 127, -86, 127, 127, 127, 127, -13 } },
    .search_first = -11,
    .search_step = 2,
    .best_first = -12,
    .fast = 0,
};
static const kvt_table kv3 = {
    .levels = { -127, -76, -43, -16, 9, 36, 65, 104 },
    .first = { 4, 4, 5, 5, 6, 6, 7, 7, 0, 0, 1, 1, 1, 2, 2, 3 },
    .bounds = { { 127, 22, 127, 50, 127, 84, 127, 127, 127, -102, 127, 127, -60, 127, -30, -4 } },
    .search_first = -4,
    .search_step = 1,
    .best_first = -8,
    .fast = 0,
};
static const kvt_table kv4 = {
    .levels = { -127, -92, -73, -56, -41, -28, -15, -4, 7, 18, 29, 42, 55, 70, 89, 112 },
    .first = { 7, 9, 10, 11, 13, 14, 14, 15, 0, 0, 1, 2, 3, 4, 5, 6 },
    .bounds = { { 1, 23, 35, 48, 127, 127, 100, 127, 127, -110, -83, 127, 127, -35, -22, -10 },
                { 12, 127, 127, 62, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127 } },
    .search_first = -3,
    .search_step = 1,
    .best_first = -8,
    .fast = 0,
};
static const kvt_table kv4h = {
    .levels = { -127, -88, -69, -54, -41, -28, -15, -4, 7, 18, 29, 42, 57, 72, 91, 114 },
    .first = { 7, 9, 10, 11, 12, 13, 14, 15, 0, 0, 1, 1, 2, 3, 5, 6 },
    .bounds = { { 1, 23, 35, 49, 64, 81, 102, 127, 127, -108, 127, -79, -62, -48, -22, -10 },
                { 12, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, -35, 127, 127 } },
    .search_first = -1,
    .search_step = 1,
    .best_first = -8,
    .fast = 0,
};
static const kvt_table kv5 = {
    .levels = { -127, -116, -101, -88, -77, -68, -59, -52, -45, -38, -31, -26, -19, -14, -9,  -4,
                1,    6,    11,   16,  23,  28,  35,  42,  49,  56,  63,  72,  81,  90,  101, 120 },
    .first = { 16, 19, 22, 24, 26, 28, 30, 31, 0, 1, 2, 4, 5, 8, 10, 13 },
    .bounds = { { 3, 19, 38, 52, 67, 85, 110, 127, -122, -109, -95, -73, -64, -42, -29, -12 },
                { 8, 25, 45, 59, 76, 127, 127, 127, 127, 127, -83, 127, -56, -35, -23, -7 },
                { 13, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, 127, -2 } },
    .search_first = 0,
    .search_step = 1,
    .best_first = -4,
    .fast = 2,
};
static const kvt_table kv6 = {
    .levels = { -127, -120, -113, -106, -101, -96, -93, -88, -83, -78, -73, -68, -63, -60, -57, -54, -51, -48, -45, -42, -39, -36,
                -33,  -30,  -27,  -24,  -21,  -18, -15, -12, -9,  -6,  -3,  0,   3,   6,   9,   12,  15,  18,  21,  24,  27,  30,
                33,   36,   39,   42,   45,   48,  51,  54,  57,  60,  65,  68,  73,  78,  83,  88,  93,  100, 105, 112 },
    .first = { 33, 38, 44, 49, 54, 57, 60, 63, 0, 2, 5, 9, 12, 17, 22, 28 },
    .bounds = { { 1, 16, 34, 49, 66, 80, 96, 127, -124, -110, -95, -76, -62, -47, -32, -14 },
                { 4, 19, 37, 52, 70, 85, 102, 127, -117, -104, -91, -71, -59, -44, -29, -11 },
                { 7, 22, 40, 55, 75, 90, 108, 127, 127, -99, -86, -66, -56, -41, -26, -8 },
                { 10, 25, 43, 58, 127, 127, 127, 127, 127, 127, 127, 127, -53, -38, -23, -5 },
                { 13, 28, 46, 62, 127, 127, 127, 127, 127, 127, 127, 127, -50, -35, -20, -2 } },
    .search_first = 0,
    .search_step = 1,
    .best_first = -4,
    .fast = 4,
};

/* No search and no midpoints: q4_0's codes are numbers biased by 8, which are read as a table's. */
static const kvt_table biased = { .levels = { -8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7 } };

/* The columns that schemes.def has not. */
#define CODE_f32  .coder = KVT_CODER_f32, .loop = KVT_LOOP_f32
#define CODE_f16  .coder = KVT_CODER_f16, .loop = KVT_LOOP_f16
#define CODE_bf16 .coder = KVT_CODER_bf16, .loop = KVT_LOOP_bf16
#define CODE_q8_0 .coder = KVT_CODER_int8, .loop = KVT_LOOP_8
#define CODE_kv8  .coder = KVT_CODER_int8_row, .loop = KVT_LOOP_8
#define CODE_q4_0 .coder = KVT_CODER_q4_0, .loop = KVT_LOOP_table_4, .table = &biased
#define CODE_e4m3 .coder = KVT_CODER_e4m3, .loop = KVT_LOOP_e4m3
#define CODE_e5m2 .coder = KVT_CODER_e5m2, .loop = KVT_LOOP_e5m2
#define CODE_kv6  .coder = KVT_CODER_table, .loop = KVT_LOOP_table_6, .table = &kv6, .is_searched = true
#define CODE_kv5  .coder = KVT_CODER_table, .loop = KVT_LOOP_table_5, .table = &kv5, .is_searched = true
#define CODE_kv4  .coder = KVT_CODER_table, .loop = KVT_LOOP_table_4, .table = &kv4, .is_searched = true
#define CODE_kv4h .coder = KVT_CODER_table, .loop = KVT_LOOP_table_4, .table = &kv4h, .is_searched = true
#define CODE_kv3  .coder = KVT_CODER_table, .loop = KVT_LOOP_table_3, .table = &kv3, .is_searched = true
#define CODE_kv2  .coder = KVT_CODER_table, .loop = KVT_LOOP_table_2, .table = &kv2, .is_searched = true

const kvt_scheme_code kvt_scheme_codes[] = {
#define KVT_SCHEME_ROW(name, id, scheme_bits, block, scale, title)                                                                                   \
    { .bits = (scheme_bits),                                                                                                                         \
      .block_groups = (uint8_t)((block) == 0 || (block) == KVT_BLOCK_ROW ? KVT_MAX_GROUPS : (block) / 16),                                           \
      .scale_bytes = KVT_SCALE_##scale,                                                                                                              \
      .is_fp8 = KVT_IS_FP8_SCALE_##scale,                                                                                                            \
      CODE_##name },
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};

const float kvt_zero_row[KVT_MAX_DIM];
