/* SPDX-License-Identifier: MIT */
/* The part of a model's caches that one rank of tensor parallelism holds (vllm/model_executor/layers, attention/layer.py and mamba), and that of a
 * stage of a pipeline (vllm/distributed/utils.py). */
#include "tools/model/shard.h"

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

/* All but the groups is the whole model's. */
static void take_names(const kvt_model *model, model_description *part)
{
    part->model = *model;
    part->model.n_groups = part->n_groups;
    part->model.groups = part->groups;
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
    take_names(model, rank);
    return 0;
}

/* ---- stages of a pipeline -------------------------------------------------------------------------------------------------------- */

static bool is_storing(const kvt_layer_group *group)
{
    return group->kind != KVT_LAYER_NONE && group->count != 0;
}

bool model_is_uniform(const kvt_model *model)
{
    const kvt_layer_group *first = NULL, *second = NULL;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *group = &model->groups[i];
        if (!is_storing(group))
            continue;
        if (second)
            return false;
        *(first ? &second : &first) = group;
    }
    return first && (!second || (first->kind == KVT_LAYER_LATENT && second->kind == KVT_LAYER_INDEXER));
}

/* The layers of a uniform model, whose order needs no telling. Groups that only draft belong to the last layer. */
static int spread(const kvt_model *model, model_description *whole, error_text *error)
{
    const uint32_t layers = model->groups[0].count;
    for (size_t i = 0; i < model->n_groups; i++) {
        kvt_layer_group group = model->groups[i];
        const uint32_t drafts = group.draft_count;
        if (group.count != layers || group.shared_count || !model_is_uniform(model))
            return error_set(error, "--pp: the order of its layers is not in the catalogue, and they are not all alike: give its config.json");
        for (uint32_t layer = 0; layer < layers; layer++) {
            whole->layer = layer;
            group.count = 1;
            group.draft_count = layer + 1 == layers ? drafts : 0;
            if (description_add(whole, &group, error) != 0)
                return -1;
        }
    }
    return 0;
}

/* vllm/distributed/utils.py, get_pp_indices: stages before the last have one layer more, as many as there are layers left over. */
static uint32_t count_layers(uint32_t layers, uint32_t n_stages, uint32_t stage)
{
    const uint32_t left = layers % n_stages;
    return layers / n_stages + (stage + 1 < n_stages && stage + left + 1 >= n_stages);
}

static int fill_stage(const model_description *whole, uint32_t ranks, model_stage *stage, error_text *error)
{
    for (size_t i = 0; i < whole->n_caches; i++) {
        const layer_cache *cache = &whole->caches[i];
        kvt_layer_group group = cache->group;
        if (cache->layer < stage->first || cache->layer - stage->first >= stage->count)
            continue;
        if (ranks > 1 && divide_group(&group, ranks, error) != 0)
            return -1;
        bool found = group.shared_count == 0;
        for (size_t g = 0; g < stage->part.n_groups && !found; g++)
            found = stage->part.groups[g].count != 0 && description_alike(&stage->part.groups[g], &group);
        if (!found)
            return error_set(error,
                             "--pp: layer %u reads what a layer before %u stores, which is in another stage: another number of stages may be right",
                             (unsigned)cache->layer, (unsigned)stage->first);
        if (description_add(&stage->part, &group, error) != 0)
            return -1;
    }
    return 0;
}

static int split_layers(const kvt_model *model, const model_description *whole, uint32_t n_stages, uint32_t ranks, model_stage *stages,
                        error_text *error)
{
    uint32_t first = 0;
    if (n_stages > whole->n_layers)
        return error_set(error, "--pp %u: it has %u layers, and a stage needs one: 1 to %u would be right", (unsigned)n_stages,
                         (unsigned)whole->n_layers, (unsigned)whole->n_layers);
    for (uint32_t i = 0; i < n_stages; i++) {
        stages[i] = (model_stage){ .first = first, .count = count_layers(whole->n_layers, n_stages, i) };
        first += stages[i].count;
        if (fill_stage(whole, ranks, &stages[i], error) != 0) {
            model_free_stages(stages, i + 1);
            return -1;
        }
        description_finish(&stages[i].part);
        take_names(model, &stages[i].part);
    }
    return 0;
}

int model_split(const kvt_model *model, const model_description *read, uint32_t n_stages, uint32_t ranks, model_stage *stages, error_text *error)
{
    model_description spread_out = { 0 };
    int result = read ? 0 : spread(model, &spread_out, error);
    if (result == 0)
        result = split_layers(model, read ? read : &spread_out, n_stages, ranks, stages, error);
    description_free(&spread_out);
    return result;
}

void model_free_stages(model_stage *stages, uint32_t n_stages)
{
    for (uint32_t i = 0; i < n_stages; i++)
        description_free(&stages[i].part);
}
