/* The part of a model's caches that one rank of tensor parallelism holds: vllm/model_executor/layers, attention/layer.py and mamba. */
#include "shard.h"

/* KV heads are divided among the ranks or, when there are fewer, copied; a row that all heads share is on every rank. */
static int divide_heads(uint32_t *heads, uint32_t ranks, const char *kind, error_text *error)
{
    if (*heads % ranks == 0)
        *heads /= ranks;
    else if (ranks % *heads == 0)
        *heads = 1;
    else
        return error_set(error, "--tp %u: %u KV heads of %s layers cannot be divided: a divisor or a multiple of them would be right",
                         (unsigned)ranks, (unsigned)*heads, kind);
    return 0;
}

/* The heads of a state are divided; its groups of keys are divided, or copied when there are fewer. */
static int divide_state(kvt_layer_group *group, uint32_t ranks, error_text *error)
{
    if (group->state_heads == 0)
        return error_set(error, "--tp %u: how recurrent states are divided is not known for this model", (unsigned)ranks);
    if (group->state_heads % ranks != 0)
        return error_set(error, "--tp %u: %u heads of recurrent layers cannot be divided: a divisor of them would be right", (unsigned)ranks,
                         (unsigned)group->state_heads);
    uint64_t shared = group->state_group_channels;
    const uint64_t own = group->conv_channels - shared;
    if (group->state_groups) {
        uint32_t groups = group->state_groups;
        if (divide_heads(&groups, ranks, "recurrent", error) != 0)
            return -1;
        shared = shared / group->state_groups * groups;
        group->state_groups = groups;
    }
    group->state_group_channels = shared;
    group->conv_channels = own / ranks + shared;
    group->recurrent_elements /= ranks;
    group->state_heads /= ranks;
    return 0;
}

static int divide_group(kvt_layer_group *group, uint32_t ranks, error_text *error)
{
    const char *kind = kvt_layer_kind_name(group->kind);
    if (group->kind == KVT_LAYER_RECURRENT)
        return divide_state(group, ranks, error);
    if (group->kv_heads && divide_heads(&group->kv_heads, ranks, kind, error) != 0)
        return -1;
    return group->expanded_heads ? divide_heads(&group->expanded_heads, ranks, kind, error) : 0;
}

int model_shard(const kvt_model *model, uint32_t ranks, model_description *rank, error_text *error)
{
    *rank = (model_description){ 0 };
    for (size_t i = 0; i < model->n_groups; i++) {
        kvt_layer_group group = model->groups[i];
        if (divide_group(&group, ranks, error) != 0 || description_add(rank, &group, error) != 0) {
            description_free(rank);
            return -1;
        }
    }
    rank->model = *model;
    rank->model.n_groups = rank->n_groups;
    rank->model.groups = rank->groups;
    return 0;
}
