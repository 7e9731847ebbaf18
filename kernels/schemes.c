/* Every scheme as the kernels see it, a row each: bits, block and scale from schemes.def, and here how its numbers become codes, how attention
 * multiplies them, and the levels of tables. */
#include "kernels/kernels.h"

static const kvt_table kv2 = {
    .levels = { -127, -44, 19, 92 },
    .midpoints = { -13, -86, 55 },
    .search_first = -11,
    .search_step = 2,
    .best_first = -12,
    .fast = 0,
};
static const kvt_table kv3 = {
    .levels = { -127, -76, -43, -16, 9, 36, 65, 104 },
    .midpoints = { -4, -60, 50, -102, -30, 22, 84 },
    .search_first = -4,
    .search_step = 1,
    .best_first = -8,
    .fast = 0,
};
static const kvt_table kv4 = {
    .levels = { -127, -92, -73, -56, -41, -28, -15, -4, 7, 18, 29, 42, 55, 70, 89, 112 },
    .midpoints = { 1, -49, 48, -83, -22, 23, 79, -110, -65, -35, -10, 12, 35, 62, 100 },
    .search_first = -3,
    .search_step = 1,
    .best_first = -8,
    .fast = 0,
};
static const kvt_table kv4h = {
    .levels = { -127, -88, -69, -54, -41, -28, -15, -4, 7, 18, 29, 42, 57, 72, 91, 114 },
    .midpoints = { 1, -48, 49, -79, -22, 23, 81, -108, -62, -35, -10, 12, 35, 64, 102 },
    .search_first = -1,
    .search_step = 1,
    .best_first = -8,
    .fast = 0,
};
static const kvt_table kv5 = {
    .levels = { -127, -116, -101, -88, -77, -68, -59, -52, -45, -38, -31, -26, -19, -14, -9,  -4,
                1,    6,    11,   16,  23,  28,  35,  42,  49,  56,  63,  72,  81,  90,  101, 120 },
    .midpoints = { -2,  -49, 45,  -83, -23, 19,  76, -109, -64, -35, -12, 8,  31, 59, 95, -122,
                   -95, -73, -56, -42, -29, -17, -7, 3,    13,  25,  38,  52, 67, 85, 110 },
    .search_first = 0,
    .search_step = 1,
    .best_first = -4,
    .fast = 2,
};
static const kvt_table kv6 = {
    .levels = { -127, -120, -113, -106, -101, -96, -93, -88, -83, -78, -73, -68, -63, -60, -57, -54, -51, -48, -45, -42, -39, -36,
                -33,  -30,  -27,  -24,  -21,  -18, -15, -12, -9,  -6,  -3,  0,   3,   6,   9,   12,  15,  18,  21,  24,  27,  30,
                33,   36,   39,   42,   45,   48,  51,  54,  57,  60,  65,  68,  73,  78,  83,  88,  93,  100, 105, 112 },
    .midpoints = { -5,  -53, 43,  -86, -29, 19, 70, -104, -66, -41, -17,  7,    31,  55,  90,  -117, -95, -76, -59, -47, -35,
                   -23, -11, 1,   13,  25,  37, 49, 62,   80,  102, -124, -110, -99, -91, -81, -71,  -62, -56, -50, -44, -38,
                   -32, -26, -20, -14, -8,  -2, 4,  10,   16,  22,  28,   34,   40,  46,  52,  58,   66,  75,  85,  96,  108 },
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
#define CODE_q4_0 .coder = KVT_CODER_q4_0, .loop = KVT_LOOP_4, .table = &biased
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
