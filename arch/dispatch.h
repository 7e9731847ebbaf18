/* The tiers of this build. Knows no scheme: a tier's kernels are an array indexed by the scheme's row in schemes.def. */
#ifndef KVT_ARCH_DISPATCH_H
#define KVT_ARCH_DISPATCH_H

#include <stddef.h>
#include <stdint.h>

struct kvt_kernels;

typedef struct kvt_tier {
    const char *name;
    unsigned id;
    uint32_t needs; /* CPU features */
    const struct kvt_kernels *const *kernels;
} kvt_tier;

/* Lowest tier first. */
extern const kvt_tier kvt_tiers[];
extern const size_t kvt_tiers_count;

#endif
