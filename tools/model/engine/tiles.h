/* SPDX-License-Identifier: MIT */
/* What kvtile and its payload alone have in common: rows as the layout says. */
#ifndef KVT_ENGINE_TILES_H
#define KVT_ENGINE_TILES_H

#include "engine.h"

/* One token of one head and side: padding is what the channels up to a multiple of 16 take of the codes. */
static inline void kvt_plan_add_side(struct kvt_group_plan *plan, const kvt_side_layout *side, uint64_t heads)
{
    if (side->dim == 0)
        return;
    const uint64_t codes = side->code_bytes / KVT_TILE_TOKENS;
    const uint64_t payload = kvt_parts(codes * side->dim, side->padded_dim);
    plan->payload += heads * payload;
    plan->padding += heads * (codes - payload);
    plan->scales += heads * (side->row_bytes - codes);
}

/* Row sizes of a group, and the layout they come from. */
static inline kvt_status kvt_plan_tiles(const struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan,
                                        kvt_layout *layout)
{
    const uint32_t rope_dim = sizing->rope_scheme ? group->rope_dim : 0;
    const kvt_spec spec = {
        .size = sizeof spec,
        .k_scheme = sizing->k_scheme,
        .v_scheme = sizing->v_scheme,
        .rope_scheme = sizing->rope_scheme,
        .k_dim = group->k_dim - rope_dim,
        .rope_dim = rope_dim,
        .v_dim = group->v_dim,
        .kv_heads = group->kv_heads,
        .k_options = sizing->request->k_options,
        .v_options = sizing->request->v_options,
    };
    const kvt_status status = kvt_layout_init(layout, &spec);
    if (status != KVT_OK)
        return status;
    kvt_plan_add_side(plan, &layout->k, group->kv_heads);
    kvt_plan_add_side(plan, &layout->v, group->kv_heads);
    kvt_plan_add_side(plan, &layout->rope, group->kv_heads);
    return KVT_OK;
}

#endif
