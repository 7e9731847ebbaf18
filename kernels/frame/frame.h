/* What the parts of the framework share. */
#ifndef KVT_FRAME_H
#define KVT_FRAME_H

#include "kernels/kernels.h"

#include <stdbool.h>

/* The row of schemes.def that a scheme has, or kvt_schemes_count. */
size_t kvt_scheme_row(kvt_scheme scheme);
extern const kvt_scheme_info kvt_schemes[];
extern const size_t kvt_schemes_count;

/* A layout's own word on its sizes is not taken: these follow from scheme and dim alone, so that a layout that was changed after
 * kvt_layout_init cannot lead outside the pages that its spec describes. */
kvt_side_layout kvt_side_of(const kvt_scheme_info *scheme, uint32_t dim);

/* Both sides' places in a page. */
typedef struct kvt_page_shape {
    kvt_side_layout k;
    kvt_side_layout v;
    size_t page_bytes;
} kvt_page_shape;

kvt_status kvt_page_shape_of(const kvt_spec *spec, kvt_page_shape *shape);

#endif
