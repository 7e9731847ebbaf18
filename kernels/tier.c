/* Compiled once per tier: all that the tier brings. */
#include "kernels/row_codec.h"
#include "kernels/scheme.h"

#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) extern const kvt_kernels KVT_KERNELS_OF(name, KVT_TIER);
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW

static const kvt_kernels *const schemes[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) &KVT_KERNELS_OF(name, KVT_TIER),
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};

#define KVT_ROW_FAMILY(family) extern const kvt_row_codec KVT_ROW_CODECS(family, KVT_TIER)[];
#include "kernels/row_families.def"
#undef KVT_ROW_FAMILY

static const kvt_row_codec *const row_families[] = {
#define KVT_ROW_FAMILY(family) KVT_ROW_CODECS(family, KVT_TIER),
#include "kernels/row_families.def"
#undef KVT_ROW_FAMILY
    NULL,
};

extern const kvt_stage KVT_JOIN(kvt_stage_, KVT_TIER);
extern const kvt_attend_kernels KVT_JOIN(kvt_attend_, KVT_TIER);
extern const kvt_mla_kernels KVT_JOIN(kvt_mla_, KVT_TIER);

extern const kvt_tier_kernels KVT_JOIN(kvt_tier_, KVT_TIER);
const kvt_tier_kernels KVT_JOIN(kvt_tier_, KVT_TIER) = {
    .schemes = schemes,
    .stage = &KVT_JOIN(kvt_stage_, KVT_TIER),
    .attend = &KVT_JOIN(kvt_attend_, KVT_TIER),
    .mla = &KVT_JOIN(kvt_mla_, KVT_TIER),
    .row_families = row_families,
};
