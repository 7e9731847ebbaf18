#include "kernels/frame/frame.h"

#include "arch/dispatch.h"

#include <string.h>

enum { SCALE_none = 0, SCALE_f16 = 2, SCALE_f32 = 4 }; /* bytes */

const kvt_scheme_info kvt_schemes[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) { KVT_SCHEME_##name, #name, title, bits, block, SCALE_##scale },
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

const char *kvt_scheme_tier(kvt_scheme scheme, uint32_t tiers)
{
    const size_t row = kvt_scheme_row(scheme);
    if (row == kvt_schemes_count)
        return NULL;
    const uint32_t usable = kvt_tiers_usable();
    const uint32_t mask = tiers ? tiers & usable : usable;
    for (size_t i = kvt_tiers_count; i-- > 1;)
        if (mask >> kvt_tiers[i].id & 1 && kvt_tiers[i].kernels[row])
            return kvt_tiers[i].name;
    return kvt_tiers[0].name;
}
