/* The tiers of this build. Knows no scheme: what a tier brings is a matter of kernels/. */
#ifndef KVT_ARCH_DISPATCH_H
#define KVT_ARCH_DISPATCH_H

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

#endif
