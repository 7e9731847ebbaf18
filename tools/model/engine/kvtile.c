/* SPDX-License-Identifier: MIT */
/* kvtile's own pages of 64 tokens. */
#include "tiles.h"

/* The most pages that any `window` consecutive tokens of a sequence can touch: they may begin at the last token of a page. */
static uint64_t pages_of_window(uint32_t window, uint64_t context)
{
    return kvt_least(kvt_parts(window - 1, KVT_PAGE_TOKENS) + 1, kvt_parts(context, KVT_PAGE_TOKENS));
}

static kvt_status plan_kvtile(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    plan->states = request->sequences;
    kvt_status status = kvt_state_bytes(group, kvt_conv_history(group), 0, 0, &plan->state);
    if (status != KVT_OK || !kvt_has_rows(group))
        return status;

    const uint64_t rows = kvt_used_rows(group, request->context);
    const bool sliding = group->kind == KVT_LAYER_SLIDING;
    const uint64_t pages = sliding ? pages_of_window(group->window, request->context) : kvt_parts(rows, KVT_PAGE_TOKENS);
    if (kvt_times(rows, request->sequences, &plan->used_rows) != KVT_OK || kvt_times(pages, request->sequences, &plan->pages) != KVT_OK)
        return KVT_ERR_OVERFLOW;

    kvt_layout layout;
    status = kvt_plan_tiles(sizing, group, plan, &layout);
    if (status != KVT_OK)
        return status;
    plan->page_rows = KVT_PAGE_TOKENS;
    plan->page_scales = (uint64_t)group->kv_heads * (layout.k.centre_bytes + layout.v.centre_bytes);
    plan->page_padding = group->kv_heads * (layout.page_bytes - KVT_PAGE_TOKENS * layout.token_bytes) - plan->page_scales;
    return KVT_OK;
}

const struct kvt_engine_rules kvt_engine_kvtile = {
    .title = "kvtile's pages of 64 tokens",
    .options = KVT_OPTION_SIDES | KVT_OPTION_PREFIX,
    .plan = plan_kvtile,
};
