#include "kernels/frame/frame.h"

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

/* Row + 1 of each id, 0 where there is none. */
enum {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) ROW_##name,
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
    ROW_COUNT
};
static const uint8_t row_of[] = {
#define KVT_SCHEME_ROW(name, id, bits, block, scale, title) [id] = ROW_##name + 1,
#include <kvtile/schemes.def>
#undef KVT_SCHEME_ROW
};

size_t kvt_scheme_row(kvt_scheme scheme)
{
    const size_t id = (size_t)scheme;
    return id < sizeof row_of && row_of[id] ? row_of[id] - 1u : (size_t)ROW_COUNT;
}

const kvt_scheme_info *kvt_scheme_get(kvt_scheme scheme)
{
    return kvt_scheme_at(kvt_scheme_row(scheme));
}

const char *kvt_scheme_tier(kvt_scheme scheme, uint32_t tiers)
{
    return kvt_scheme_get(scheme) ? kvt_serving_tier(tiers)->name : NULL;
}
