/* Compiled once per tier: that tier's kernels of every scheme, in the order of schemes.def. */
#include "kernels/scheme.h"

#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) extern const kvt_kernels KVT_KERNELS_OF(name, KVT_TIER);
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW

extern const kvt_kernels *const KVT_JOIN(kvt_tier_, KVT_TIER)[];
const kvt_kernels *const KVT_JOIN(kvt_tier_, KVT_TIER)[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) &KVT_KERNELS_OF(name, KVT_TIER),
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};
