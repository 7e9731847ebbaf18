/* SPDX-License-Identifier: MIT */
#include "arch/dispatch.h"

#include "arch/cpu.h"

#include <kvtile/kvtile.h>
#include <stdatomic.h>
#include <string.h>

#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) extern const struct kvt_tier_kernels kvt_tier_##name;
#include "arch/isa.def"
#undef KVT_TIER_ROW

const kvt_tier kvt_tiers[] = {
#define KVT_TIER_ROW(name, id, folder, brings, flags, needs) { #name, id, needs, &kvt_tier_##name },
#include "arch/isa.def"
#undef KVT_TIER_ROW
};
const size_t kvt_tiers_count = sizeof kvt_tiers / sizeof *kvt_tiers;

_Atomic uint32_t kvt_tiers_found; /* scalar is always usable: 0 is no result */

uint32_t kvt_tiers_usable(void)
{
    uint32_t mask = atomic_load_explicit(&kvt_tiers_found, memory_order_relaxed);
    if (!mask) {
        const uint32_t found = kvt_cpu_detect();
        for (size_t i = 0; i < kvt_tiers_count; i++)
            if ((found & kvt_tiers[i].needs) == kvt_tiers[i].needs)
                mask |= UINT32_C(1) << kvt_tiers[i].id;
        atomic_store_explicit(&kvt_tiers_found, mask, memory_order_relaxed);
    }
    return mask;
}

const char *kvt_tier_name(unsigned id)
{
    for (size_t i = 0; i < kvt_tiers_count; i++)
        if (kvt_tiers[i].id == id)
            return kvt_tiers[i].name;
    return NULL;
}

kvt_status kvt_tiers_parse(const char *text, uint32_t *mask)
{
    if (!text || !mask)
        return KVT_ERR_NULL;
    const uint32_t usable = kvt_tiers_usable();
    uint32_t result = usable, named = 0;
    for (;;) {
        const int forbid = *text == '-';
        text += forbid;
        const size_t length = strcspn(text, ",");
        size_t i = 0;
        while (i < kvt_tiers_count && (strlen(kvt_tiers[i].name) != length || strncmp(kvt_tiers[i].name, text, length) != 0))
            i++;
        if (i == kvt_tiers_count)
            return KVT_ERR_TIER;
        const uint32_t bit = UINT32_C(1) << kvt_tiers[i].id;
        if (forbid) {
            if (i == 0) /* scalar is what the others inherit from */
                return KVT_ERR_TIER;
            result &= ~bit;
        } else {
            named |= bit;
            uint32_t lower = 0;
            for (size_t j = 0; j <= i; j++)
                lower |= UINT32_C(1) << kvt_tiers[j].id;
            result &= lower;
        }
        text += length;
        if (!*text)
            break;
        text++;
    }
    if (named & ~result)
        return KVT_ERR_TIER;
    *mask = result;
    return KVT_OK;
}
