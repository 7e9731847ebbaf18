/* llama.cpp, as of b10256 (August 2026): src/llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp, llama-context.cpp. */
#include "engine.h"

#define CELLS 256 /* cells are allocated in multiples of this */

static const struct kvt_store_type types[] = {
    { "f16", 1, 2, 0, 0 },    { "bf16", 1, 2, 0, 0 },   { "f32", 1, 4, 0, 0 },    { "q8_0", 32, 34, 2, 0 },   { "q5_1", 32, 24, 4, 0 },
    { "q5_0", 32, 22, 2, 0 }, { "q4_1", 32, 20, 4, 0 }, { "q4_0", 32, 18, 2, 0 }, { "iq4_nl", 32, 18, 2, 0 }, { NULL, 0, 0, 0, 0 },
};

/* Without flash attention values are stored transposed, in tensors as wide as the widest layer of the model. */
static kvt_status prepare(struct kvt_sizing *sizing)
{
    for (size_t i = 0; i < sizing->model->n_groups; i++) {
        const kvt_layer_group *group = &sizing->model->groups[i];
        const uint64_t width = (uint64_t)group->kv_heads * group->v_dim;
        if (sizing->widest_v < width)
            sizing->widest_v = width;
    }
    if (sizing->request->no_flash_attention && sizing->widest_v && sizing->v_type->block > 1)
        return kvt_cannot(sizing, "values: llama.cpp can only quantize them with flash attention on");
    return KVT_OK;
}

/* Cells of one stream. Sliding layers keep their window for each sequence of the stream, and what one batch adds. */
static kvt_status cells_of(const kvt_layer_group *group, const kvt_size_request *request, uint64_t context, uint64_t *cells)
{
    const uint64_t batch = request->batch_tokens ? request->batch_tokens : 512;
    const uint64_t sequences = request->separate_streams ? 1 : request->sequences;
    *cells = kvt_parts(context, kvt_tokens_per_row(group));
    if (group->kind == KVT_LAYER_SLIDING && !request->swa_full) {
        uint64_t windows;
        if (__builtin_mul_overflow(sequences, (uint64_t)group->window, &windows) || __builtin_add_overflow(windows, batch, &windows))
            windows = UINT64_MAX;
        *cells = kvt_least(*cells, windows);
    }
    return kvt_times(kvt_parts(*cells, CELLS), CELLS, cells);
}

static kvt_status plan_rows(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    if (group->k_dim % sizing->k_type->block != 0 || group->v_dim % sizing->v_type->block != 0)
        return kvt_cannot(sizing, "llama.cpp cannot store a head whose channels are not a multiple of the type's block of 32");

    /* The streams share the context; the caches of DeepSeek-V4 are never shared by sequences. */
    const bool own = request->separate_streams || sizing->compressed;
    const uint64_t streams = own ? request->sequences : 1;
    const uint64_t context = request->separate_streams ? request->context / streams : request->context;
    uint64_t padded, cells;
    if (kvt_times(kvt_parts(context, CELLS), CELLS, &padded) != KVT_OK || cells_of(group, request, padded, &cells) != KVT_OK ||
        kvt_times(cells, streams, &plan->pages) != KVT_OK)
        return KVT_ERR_OVERFLOW;

    uint64_t used = kvt_parts(request->context, kvt_tokens_per_row(group)), windows;
    if (group->kind == KVT_LAYER_SLIDING && !__builtin_mul_overflow(request->sequences, (uint64_t)group->window, &windows))
        used = kvt_least(used, windows);
    plan->used_rows = kvt_least(used, plan->pages);

    kvt_plan_add_rows(plan, sizing->k_type, group->kv_heads, group->k_dim);
    kvt_plan_add_rows(plan, sizing->v_type, group->kv_heads, group->v_dim);
    if (request->no_flash_attention && group->v_dim)
        plan->padding = (sizing->widest_v - (uint64_t)group->kv_heads * group->v_dim) * sizing->v_type->bytes;
    return KVT_OK;
}

/* Both parts of a state in f32, and a copy for every token that may have to be taken back. */
static kvt_status plan(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    if (sizing->cross) /* made anew for every token from the encoder's output (llama_cross) */
        return KVT_OK;
    if (kvt_state_bytes(group, kvt_conv_history(group), 4, 4, &plan->state) != KVT_OK ||
        kvt_times(sizing->request->sequences, 1 + (uint64_t)sizing->request->draft_tokens, &plan->states) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    if (sizing->request->draft_tokens && group->kind != KVT_LAYER_INDEXER) /* the context that drafts has dense attention */
        plan->draft_layers = group->draft_count;
    return kvt_has_rows(group) ? plan_rows(sizing, group, plan) : KVT_OK;
}

const struct kvt_engine_rules kvt_engine_llama_cpp = {
    .title = "llama.cpp b10256: --ctx is shared by the sequences; sliding layers hold windows and a batch, state is f32",
    .types = types,
    .options = KVT_OPTION_BATCH | KVT_OPTION_DRAFT | KVT_OPTION_STREAMS | KVT_OPTION_SWA_FULL | KVT_OPTION_NO_FLASH,
    .prepare = prepare,
    .plan = plan,
};
