/* SPDX-License-Identifier: MIT */
/* Which row of an engine's table a model belongs to, and what becomes of the model's groups. */
#include "engine.h"

#include <string.h>

static const struct {
    const char *model_type, *architecture;
} names[] = {
#define KVT_MODEL_TYPE(model_type, architecture) { model_type, architecture },
#include "model_types.def"
#undef KVT_MODEL_TYPE
};

/* The model's type in the words of the table's; NULL when it is not known. */
static const char *known_type_name(const kvt_model *model, bool by_architecture)
{
    if (by_architecture ? model->architecture != NULL : model->model_type != NULL)
        return by_architecture ? model->architecture : model->model_type;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (by_architecture && model->model_type && strcmp(names[i].model_type, model->model_type) == 0)
            return names[i].architecture;
        if (!by_architecture && model->architecture && strcmp(names[i].architecture, model->architecture) == 0)
            return names[i].model_type;
    }
    return NULL;
}

const struct kvt_type_rule *kvt_find_type_rule(const struct kvt_engine_rules *rules, const kvt_model *model)
{
    const char *name = known_type_name(model, rules->by_architecture);
    for (const struct kvt_type_rule *rule = rules->model_types; name && rule && rule->type; rule++) {
        if (strcmp(rule->type, name) == 0)
            return rule;
    }
    return NULL;
}

kvt_layer_group kvt_stored_group(const struct kvt_sizing *sizing, size_t i)
{
    kvt_layer_group group = sizing->model->groups[i];
    const uint32_t knows = sizing->knows;
    if (!(knows & KVT_KNOWS_SHARING))
        group.count += group.shared_count;
    group.shared_count = 0;
    if (group.kind == KVT_LAYER_INDEXER && !(knows & KVT_KNOWS_INDEXERS))
        return (kvt_layer_group){ .kind = KVT_LAYER_NONE, .count = group.count };
    if (group.kind == KVT_LAYER_SLIDING && !(knows & KVT_KNOWS_WINDOWS)) {
        group.kind = KVT_LAYER_FULL;
        group.window = 0;
    }
    if (group.kind == KVT_LAYER_LATENT && !(knows & KVT_KNOWS_LATENT) && group.expanded_heads) {
        group.kind = KVT_LAYER_FULL;
        group.kv_heads = group.expanded_heads;
        group.k_dim = group.expanded_k_dim;
        group.v_dim = group.expanded_v_dim;
        group.expanded_heads = group.expanded_k_dim = group.expanded_v_dim = group.rope_dim = 0;
    }
    if (sizing->adapt)
        sizing->adapt(sizing, &group);
    return group;
}
