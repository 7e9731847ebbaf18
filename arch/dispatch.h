/* SPDX-License-Identifier: MIT */
/* The tiers of this build. Knows no scheme: what a tier brings is a matter of kernels/. */
#ifndef KVT_ARCH_DISPATCH_H
#define KVT_ARCH_DISPATCH_H

#include <kvtile/kvtile.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct kvt_tier_kernels;

typedef struct kvt_tier {
    const char *name;
    unsigned id;
    uint32_t needs; /* CPU features */
    const struct kvt_tier_kernels *kernels;
} kvt_tier;

/* Lowest tier first. */
extern const kvt_tier kvt_tiers[];
extern const size_t kvt_tiers_count;

/* What kvt_tiers_usable has found, without a call; 0 before it was called. */
extern _Atomic uint32_t kvt_tiers_found;

static inline uint32_t kvt_usable(void)
{
    const uint32_t found = atomic_load_explicit(&kvt_tiers_found, memory_order_relaxed);
    return found ? found : kvt_tiers_usable();
}

#endif
