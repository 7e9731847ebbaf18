/* Hugging Face transformers: DynamicCache (src/transformers/cache_utils.py). */
#include "engine.h"

static const struct kvt_store_type types[] = { { "f16", 1, 2, 0, 0 },     { "bf16", 1, 2, 0, 0 },     { "f32", 1, 4, 0, 0 },
                                               { "float16", 1, 2, 0, 0 }, { "bfloat16", 1, 2, 0, 0 }, { "float32", 1, 4, 0, 0 },
                                               { NULL, 0, 0, 0, 0 } };

/* A sliding layer keeps what the next token can attend beside itself. A convolution keeps as many inputs as its kernel is wide. */
static kvt_status plan(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    plan->states = request->sequences;
    const kvt_status status = kvt_state_bytes(group, group->conv_kernel, 0, 0, &plan->state);
    if (status != KVT_OK || !kvt_has_rows(group))
        return status;

    if ((group->v_dim || group->expanded_v_dim) && !kvt_same_store(sizing->k_type, sizing->v_type))
        return kvt_cannot(sizing, "values: transformers stores keys and values in the same type");
    uint64_t rows = kvt_used_rows(group, request->context);
    if (group->kind == KVT_LAYER_SLIDING)
        rows = kvt_least(request->context, group->window - 1);
    if (kvt_times(rows, request->sequences, &plan->used_rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    plan->pages = plan->used_rows;

    switch (group->kind) {
    case KVT_LAYER_COMPRESSED:
        return kvt_cannot(sizing, "no rule is known for the compressed caches of DeepSeek-V4 in transformers");
    case KVT_LAYER_LATENT: /* keys and values of all heads are made from the latent row, and those are stored */
        if (!group->expanded_heads)
            return kvt_cannot(sizing, "transformers stores the keys and values of every head, whose number and widths the model does not say");
        kvt_plan_add_rows(plan, sizing->k_type, group->expanded_heads, group->expanded_k_dim);
        kvt_plan_add_rows(plan, sizing->v_type, group->expanded_heads, group->expanded_v_dim);
        return KVT_OK;
    default:
        kvt_plan_add_rows(plan, sizing->k_type, group->kv_heads, group->k_dim);
        kvt_plan_add_rows(plan, sizing->v_type, group->kv_heads, group->v_dim);
        return KVT_OK;
    }
}

const struct kvt_engine_rules kvt_engine_transformers = {
    .title = "transformers 5: DynamicCache; MLA stored as keys and values of every head",
    .types = types,
    .plan = plan,
};
