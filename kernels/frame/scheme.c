#include "kernels/frame/frame.h"

#include "arch/dispatch.h"

#include <string.h>

const kvt_scheme_info kvt_schemes[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) { KVT_SCHEME_##name, #name, title, bits, block, KVT_SCALE_##scale },
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};
const size_t kvt_schemes_count = sizeof kvt_schemes / sizeof *kvt_schemes;

const kvt_scheme_info *kvt_scheme_at(size_t index)
{
    return index < kvt_schemes_count ? &kvt_schemes[index] : NULL;
}

const kvt_scheme_info *kvt_scheme_find(const char *name)
{
    for (size_t i = 0; name && i < kvt_schemes_count; i++)
        if (strcmp(kvt_schemes[i].name, name) == 0)
            return &kvt_schemes[i];
    return NULL;
}

size_t kvt_scheme_row(kvt_scheme scheme)
{
    size_t i = 0;
    while (i < kvt_schemes_count && kvt_schemes[i].scheme != scheme)
        i++;
    return i;
}

const kvt_scheme_info *kvt_scheme_get(kvt_scheme scheme)
{
    return kvt_scheme_at(kvt_scheme_row(scheme));
}

uint32_t kvt_runnable(uint32_t tiers)
{
    const uint32_t usable = kvt_tiers_usable();
    return tiers ? tiers & usable : usable;
}

static bool brings(const kvt_kernels *kernels, kvt_op op, kvt_side side)
{
    return op == KVT_OP_WRITE ? kernels->write[side] != NULL : kernels->read[side] != NULL;
}

size_t kvt_serving_tier(uint32_t tiers, size_t row, kvt_op op, kvt_side side)
{
    size_t tier = kvt_tiers_count - 1;
    while (tier > 0 && !(tiers >> kvt_tiers[tier].id & 1 && brings(kvt_tiers[tier].kernels[row], op, side)))
        tier--;
    return tier;
}

const char *kvt_scheme_tier(kvt_scheme scheme, uint32_t tiers)
{
    const size_t row = kvt_scheme_row(scheme);
    if (row == kvt_schemes_count)
        return NULL;
    const uint32_t runnable = kvt_runnable(tiers);
    size_t best = 0;
    for (int op = KVT_OP_WRITE; op <= KVT_OP_READ; op++)
        for (int side = KVT_K; side <= KVT_V; side++) {
            const size_t tier = kvt_serving_tier(runnable, row, (kvt_op)op, (kvt_side)side);
            best = tier > best ? tier : best;
        }
    return kvt_tiers[best].name;
}
