/* SPDX-License-Identifier: MIT */
#include "bench/floor.h"

#include <kvtile/kvtile.h>

typedef void move_fn(const void *in, size_t in_lines, void *out, size_t out_lines);

#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) move_fn floor_move_##name;
#include "arch/isa.def"
#undef KVT_TIER_ROW

static const struct entry {
    unsigned id;
    move_fn *move;
} entries[] = {
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) { (id), floor_move_##name },
#include "arch/isa.def"
#undef KVT_TIER_ROW
};

void floor_move(const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    const uint32_t usable = kvt_tiers_usable();
    size_t best = 0;
    for (size_t i = 1; i < sizeof entries / sizeof *entries; i++) {
        if ((usable & UINT32_C(1) << entries[i].id) != 0)
            best = i;
    }
    entries[best].move(in, in_bytes / 64, out, out_bytes / 64);
}
