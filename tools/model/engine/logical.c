/* SPDX-License-Identifier: MIT */
/* The payload: what rows take in kvtile's schemes, without pages. What no engine can go below in that scheme. */
#include "tiles.h"

static kvt_status plan_logical(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    plan->states = request->sequences;
    const kvt_status status = kvt_state_bytes(group, kvt_conv_history(group), 0, 0, &plan->state);
    if (status != KVT_OK || !kvt_has_rows(group))
        return status;

    if (request->k_options.centring || request->v_options.centring)
        return kvt_cannot(sizing, "centring: a centre belongs to a page of kvtile, and the payload alone has no pages");
    if (kvt_times(kvt_used_rows(group, request->context), request->sequences, &plan->used_rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    plan->pages = plan->used_rows;
    kvt_layout layout;
    const kvt_status outcome = kvt_plan_tiles(sizing, group, plan, &layout);
    plan->padding = 0; /* channels up to a multiple of 16 are kvtile's layout, and no other engine has them */
    return outcome;
}

const struct kvt_engine_rules kvt_engine_logical = {
    .title = "the payload alone: rows in kvtile's schemes, sliding windows at exactly their length",
    .options = KVT_OPTION_SIDES | KVT_OPTION_PREFIX,
    .plan = plan_logical,
};
