/* SPDX-License-Identifier: MIT */
#include "kernels/api/api.h"

#include "arch/dispatch.h"

#include <string.h>

const kvt_scheme_info kvt_schemes[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title)                                                                                          \
    { KVT_SCHEME_##name, #name, title, bits, block, KVT_SCALE_##scale, KVT_IS_FP8_SCALE_##scale },
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

enum {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) ROW_##name,
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};
const uint8_t kvt_scheme_rows[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) [id] = ROW_##name,
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};

const kvt_scheme_info *kvt_scheme_get(kvt_scheme scheme)
{
    const size_t id = (size_t)scheme, row = id < sizeof kvt_scheme_rows ? kvt_scheme_rows[id] : 0;
    return kvt_schemes[row].scheme == scheme ? &kvt_schemes[row] : NULL;
}

const char *kvt_scheme_tier(kvt_scheme scheme, uint32_t tiers)
{
    return kvt_scheme_get(scheme) ? kvt_serving_tier(tiers)->name : NULL;
}
