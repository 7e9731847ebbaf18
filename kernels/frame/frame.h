/* What the parts of the framework share. */
#ifndef KVT_FRAME_H
#define KVT_FRAME_H

#include "kernels/kernels.h"

#include <stdbool.h>

/* The row of schemes.def that a scheme has, or kvt_schemes_count. */
size_t kvt_scheme_row(kvt_scheme scheme);
extern const kvt_scheme_info kvt_schemes[];
extern const size_t kvt_schemes_count;

typedef enum kvt_op { KVT_OP_WRITE, KVT_OP_READ } kvt_op;

/* The tier (an index of kvt_tiers) that serves an operation on the scheme in that row: the highest that `tiers` allows and that brings a kernel for
 * it. The lowest brings all. */
size_t kvt_serving_tier(uint32_t tiers, size_t row, kvt_op op, kvt_side side);

/* A tier mask of the API, where 0 means all, as one that this CPU can run. */
uint32_t kvt_runnable(uint32_t tiers);

/* Both sides' places in a page. They follow from the spec alone: a layout's own word on its sizes is not taken, so that a layout that was changed
 * after kvt_layout_init cannot lead outside the pages that its spec describes. */
typedef struct kvt_page_shape {
    kvt_side_layout k;
    kvt_side_layout v;
    size_t page_bytes;
} kvt_page_shape;

kvt_status kvt_page_shape_of(const kvt_spec *spec, kvt_page_shape *shape);

#endif
