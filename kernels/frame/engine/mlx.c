/* mlx-lm d78bf58e: mlx_lm/models/cache.py, KVCache, QuantizedKVCache, RotatingKVCache. */
#include "engine.h"

#define STEP 256 /* caches grow by this many tokens */

/* Quantized: groups of 64 channels, each with a scale and a bias of 16 bits. */
static const struct kvt_store_type types[] = { { "f16", 1, 2, 0, 0 },    { "bf16", 1, 2, 0, 0 },   { "f32", 1, 4, 0, 0 },    { "8bit", 64, 68, 4, 0 },
                                               { "6bit", 64, 52, 4, 0 }, { "5bit", 64, 44, 4, 0 }, { "4bit", 64, 36, 4, 0 }, { "3bit", 64, 28, 4, 0 },
                                               { "2bit", 64, 20, 4, 0 }, { NULL, 0, 0, 0, 0 } };

static kvt_status plan(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    plan->states = request->sequences;
    const kvt_status status = kvt_state_bytes(group, kvt_conv_history(group), 0, 4, &plan->state);
    if (status != KVT_OK || !kvt_has_rows(group))
        return status;

    const bool sliding = group->kind == KVT_LAYER_SLIDING;
    if (group->v_dim && !kvt_same_store(sizing->k_type, sizing->v_type))
        return kvt_cannot(sizing, "values: mlx-lm stores keys and values in the same type");
    if (sliding && sizing->k_type->block > 1)
        return kvt_cannot(sizing, "mlx-lm cannot quantize the cache of sliding layers (RotatingKVCache)");
    if (group->kind == KVT_LAYER_COMPRESSED)
        return kvt_cannot(sizing, "no rule is known for the compressed caches of DeepSeek-V4 in mlx-lm");
    if (group->k_dim % sizing->k_type->block != 0 || group->v_dim % sizing->v_type->block != 0)
        return kvt_cannot(sizing, "mlx-lm cannot store a head whose channels are not a multiple of the group of 64");

    uint64_t rows;
    if (kvt_times(kvt_parts(request->context, STEP), STEP, &rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    if (sliding) /* while a prompt is read in chunks, a chunk is beside the window but for its first token */
        rows = kvt_least(rows, (uint64_t)group->window - 1 + (request->batch_tokens ? request->batch_tokens : 1));
    if (kvt_times(rows, request->sequences, &plan->pages) != KVT_OK ||
        kvt_times(kvt_used_rows(group, request->context), request->sequences, &plan->used_rows) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    kvt_plan_add_rows(plan, sizing->k_type, group->kv_heads, group->k_dim);
    kvt_plan_add_rows(plan, sizing->v_type, group->kv_heads, group->v_dim);
    return KVT_OK;
}

const struct kvt_engine_rules kvt_engine_mlx = {
    .title = "mlx-lm d78bf58e: caches that grow by 256 tokens, quantized in groups of 64",
    .types = types,
    .options = KVT_OPTION_BATCH,
    .plan = plan,
};
