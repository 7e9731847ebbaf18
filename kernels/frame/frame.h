/* What the parts of the framework share. */
#ifndef KVT_FRAME_H
#define KVT_FRAME_H

#include "arch/dispatch.h"
#include "kernels/kernels.h"

#include <stdbool.h>

/* The row of schemes.def that a scheme has, or kvt_schemes_count. */
size_t kvt_scheme_row(kvt_scheme scheme);
extern const kvt_scheme_info kvt_schemes[];
extern const size_t kvt_schemes_count;

/* Centres are rows of ggml's q8_0: an f16 scale per so many channels. */
enum { KVT_CENTRE_BLOCK = 32 };

/* A tier mask of the API, where 0 means all, as one that this CPU can run; scalar is always in it. */
uint32_t kvt_runnable(uint32_t tiers);

/* The highest of them. Every tier brings every kernel. */
const kvt_tier *kvt_serving_tier(uint32_t tiers);

/* What `layout->seal` has to be. Whatever reads or writes pages looks at it, so that a layout that was changed after kvt_layout_init cannot lead
 * outside the pages that it describes. (Deriving the sizes anew costs more than a token takes to write.) */
uint64_t kvt_layout_seal(const kvt_layout *layout);

/* What kernels have to know of a side that kvt_layout_init has accepted. */
kvt_tile_spec kvt_tile_spec_of(const kvt_side_layout *side, const kvt_side_options *options);

#endif
