/* SPDX-License-Identifier: MIT */
/* The table of each tier: what it brings, and what it inherits. CMake has looked up whose each group is (kvt_inherits.h, from arch/isa.def), so that
 * nothing is left to be found out at run time. */
#include "kernels/kernels.h"
#include "kernels/row_codec.h"

#include "kvt_inherits.h"

#define JOIN_(name, tier)         kvt_##name##_##tier
#define JOIN(name, tier)          JOIN_(name, tier)
#define FROM(group, export, tier) JOIN(export, KVT_HAS_##group##_##tier)
#define FAMILY_(family, tier)     kvt_row_codecs_##family##_##tier
#define FAMILY(family, tier)      FAMILY_(family, tier)

/* X(group, type, export, tier) for all that a tier has. */
#define KVT_EACH_EXPORT(X, tier)                                                                                                                     \
    X(rows, kvt_rows, rows, tier)                                                                                                                    \
    X(code, kvt_coder, coder_f32, tier)                                                                                                              \
    X(code, kvt_coder, coder_f16, tier)                                                                                                              \
    X(code, kvt_coder, coder_bf16, tier)                                                                                                             \
    X(code, kvt_coder, coder_int8, tier)                                                                                                             \
    X(code, kvt_coder, coder_int8_row, tier)                                                                                                         \
    X(code, kvt_coder, coder_q4_0, tier)                                                                                                             \
    X(code, kvt_coder, coder_e4m3, tier)                                                                                                             \
    X(code, kvt_coder, coder_e5m2, tier)                                                                                                             \
    X(table, kvt_coder, coder_table, tier)                                                                                                           \
    X(search, kvt_search, search, tier)                                                                                                              \
    X(floats, kvt_loops, loops_f32, tier)                                                                                                            \
    X(floats, kvt_loops, loops_f16, tier)                                                                                                            \
    X(floats, kvt_loops, loops_bf16, tier)                                                                                                           \
    X(fp8, kvt_loops, loops_e4m3, tier)                                                                                                              \
    X(fp8, kvt_loops, loops_e5m2, tier)                                                                                                              \
    X(dots, kvt_loops, dots, tier)                                                                                                                   \
    X(softmax, kvt_softmax, softmax, tier)                                                                                                           \
    X(mla, kvt_mla, mla, tier)

#define DECLARE(group, type, export, tier) extern const type FROM(group, export, tier);
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs)                                                                                         \
    extern const kvt_pack FROM(pack, pack, name)[KVT_WIDTHS];                                                                                        \
    KVT_EACH_EXPORT(DECLARE, name)
#include "arch/isa.def"
#undef KVT_TIER_ROW

#define DECLARE_FAMILY(family, tier)                         extern const kvt_row_codec FAMILY(family, tier)[];
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) KVT_EACH_ROW_FAMILY(DECLARE_FAMILY, KVT_HAS_foreign_##name)
#include "arch/isa.def"
#undef KVT_TIER_ROW

#define ADDRESS_OF_FAMILY(family, tier) FAMILY(family, tier),
#define ADDRESS(group, export, tier)    &FROM(group, export, tier)
#define CODER(name, tier)               [KVT_CODER_##name] = ADDRESS(code, coder_##name, tier)
#define LOOP(group, name, tier)         [KVT_LOOP_##name] = ADDRESS(group, loops_##name, tier)
#define DOTS(name, tier)                [KVT_LOOP_##name] = ADDRESS(dots, dots, tier)
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs)                                                                                         \
    static const kvt_row_codec *const families_##name[] = { KVT_EACH_ROW_FAMILY(ADDRESS_OF_FAMILY, KVT_HAS_foreign_##name) NULL };                   \
    extern const kvt_tier_kernels kvt_tier_##name;                                                                                                   \
    const kvt_tier_kernels kvt_tier_##name = {                                                                                                       \
        .rows = ADDRESS(rows, rows, name),                                                                                                           \
        .pack = FROM(pack, pack, name),                                                                                                              \
        .coders = { CODER(f32, name), CODER(f16, name), CODER(bf16, name), CODER(int8, name), CODER(int8_row, name), CODER(q4_0, name),              \
                    CODER(e4m3, name), CODER(e5m2, name), [KVT_CODER_table] = ADDRESS(table, coder_table, name) },                                   \
        .search = ADDRESS(search, search, name),                                                                                                     \
        .loops = { LOOP(floats, f32, name), LOOP(floats, f16, name), LOOP(floats, bf16, name), LOOP(fp8, e4m3, name), LOOP(fp8, e5m2, name),         \
                   DOTS(8, name), DOTS(table_6, name), DOTS(table_5, name), DOTS(table_4, name), DOTS(table_3, name), DOTS(table_2, name) },         \
        .softmax = ADDRESS(softmax, softmax, name),                                                                                                  \
        .mla = ADDRESS(mla, mla, name),                                                                                                              \
        .row_families = families_##name,                                                                                                             \
    };
#include "arch/isa.def"
#undef KVT_TIER_ROW
