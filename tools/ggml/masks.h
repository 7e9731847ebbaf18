/* SPDX-License-Identifier: MIT */
/* Masks of a graph as bits: which cells a query sees. All layers share them, so each is converted once. */
#ifndef KVT_GGML_MASKS_H
#define KVT_GGML_MASKS_H

#include "tools/ggml/host.h"

#include <stdatomic.h>
#include <stdint.h>

/* Cells first .. end - 1, `count` of them. */
typedef struct mask_row {
    uint32_t first, end, count;
} mask_row;

typedef struct mask_bits {
    const struct ggml_tensor *tensor;
    size_t tokens, streams, cells, words; /* words of a row */
    bool is_ready;
    atomic_bool is_odd; /* other values than 0 and -infinity */
    uint64_t *bits;
    mask_row *rows; /* [stream][token] */
    size_t bits_bytes, rows_bytes;
} mask_bits;

typedef struct masks {
    mask_bits **all;
    size_t n, room;
} masks;

/* A new graph: nothing is known of masks. */
void masks_forget(masks *all);
void masks_close(masks *all);

/* Before a graph: room for what `tokens` queries of each stream see of `cells` cells. False without memory. */
bool masks_plan(masks *all, const struct ggml_tensor *tensor, size_t tokens, size_t cells);

mask_bits *masks_find(const masks *all, const struct ggml_tensor *tensor);

/* All workers, while !is_ready; afterwards, behind a barrier, one of them sets it. Values that are seen are 0; or with `own`, the tokens' own cells
 * (stream * stream_cells + cell), distances to those, as ALiBi wants them. */
void mask_convert(mask_bits *m, const int64_t *own, int64_t stream_cells, unsigned worker, unsigned workers);

#endif
