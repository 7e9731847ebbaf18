/* SPDX-License-Identifier: MIT */
/* Sizing: model description -> bytes. What an engine keeps of a group is its file's affair (engine/); here are the checks and the sums. */
#include <kvtile/model.h>

#include <stdbool.h>
#include <string.h>

#include "kernels/api/sized.h"
#include "tools/files/number.h"
#include "tools/model/engine/engine.h"

const char *kvt_layer_kind_name(kvt_layer_kind kind)
{
    switch (kind) {
    case KVT_LAYER_FULL:
        return "full";
    case KVT_LAYER_SLIDING:
        return "sliding";
    case KVT_LAYER_LATENT:
        return "latent";
    case KVT_LAYER_COMPRESSED:
        return "compressed";
    case KVT_LAYER_INDEXER:
        return "indexer";
    case KVT_LAYER_RECURRENT:
        return "recurrent";
    case KVT_LAYER_NONE:
        return "none";
    case KVT_LAYER_CROSS:
        return "cross";
    }
    return NULL;
}

/* ---- engines --------------------------------------------------------------------------------------------------------------------- */

static const struct {
    kvt_engine engine;
    const char *name;
    const struct kvt_engine_rules *rules;
} engines[] = {
#define KVT_ENGINE_ROW(name, number, title) { KVT_ENGINE_##name, title, &kvt_engine_##name },
#include <kvtile/engines.def>
#undef KVT_ENGINE_ROW
};
#define N_ENGINES (sizeof engines / sizeof engines[0])

kvt_engine kvt_engine_at(size_t index)
{
    return index < N_ENGINES ? engines[index].engine : KVT_ENGINE_NONE;
}

static const struct kvt_engine_rules *rules_of(kvt_engine engine)
{
    for (size_t i = 0; i < N_ENGINES; i++) {
        if (engines[i].engine == engine)
            return engines[i].rules;
    }
    return NULL;
}

const char *kvt_engine_name(kvt_engine engine)
{
    for (size_t i = 0; i < N_ENGINES; i++) {
        if (engines[i].engine == engine)
            return engines[i].name;
    }
    return NULL;
}

const char *kvt_engine_title(kvt_engine engine)
{
    const struct kvt_engine_rules *rules = rules_of(engine);
    return rules ? rules->title : NULL;
}

bool kvt_engine_knows(kvt_engine engine, const kvt_model *model)
{
    const struct kvt_engine_rules *rules = rules_of(engine);
    return rules && model && (!rules->model_types || kvt_find_type_rule(rules, model));
}

const char *kvt_engine_type_at(kvt_engine engine, size_t index)
{
    const struct kvt_engine_rules *rules = rules_of(engine);
    if (!rules)
        return NULL;
    if (!rules->types) {
        const kvt_scheme_info *info = kvt_scheme_at(index);
        return info ? info->name : NULL;
    }
    for (size_t i = 0; i < index; i++) {
        if (!rules->types[i].name)
            return NULL;
    }
    return rules->types[index].name;
}

/* ---- checks ---------------------------------------------------------------------------------------------------------------------- */

static kvt_status check_layer_group(const kvt_layer_group *group)
{
    const kvt_layer_kind kind = group->kind;
    if (!kvt_layer_kind_name(kind) || (group->count == 0 && group->draft_count == 0 && group->shared_count == 0))
        return KVT_ERR_MODEL;

    const bool rows = kvt_has_rows(group), latent = kind == KVT_LAYER_LATENT;
    if (rows != (group->kv_heads != 0) || rows != (group->k_dim != 0))
        return KVT_ERR_MODEL;
    if (group->v_dim && kind != KVT_LAYER_FULL && kind != KVT_LAYER_SLIDING && kind != KVT_LAYER_CROSS)
        return KVT_ERR_MODEL;
    if ((latent || kind == KVT_LAYER_INDEXER) && group->kv_heads != 1)
        return KVT_ERR_MODEL;
    if (group->rope_dim && (group->v_dim || kind == KVT_LAYER_INDEXER || group->rope_dim >= group->k_dim))
        return KVT_ERR_MODEL;
    if ((group->window != 0) != (kind == KVT_LAYER_SLIDING))
        return KVT_ERR_MODEL;
    const uint32_t fewest = kind == KVT_LAYER_COMPRESSED ? 2 : kind == KVT_LAYER_INDEXER ? 1 : 0;
    if (group->tokens_per_row < fewest || (group->tokens_per_row && !fewest))
        return KVT_ERR_MODEL;
    if ((group->expanded_heads || group->expanded_k_dim || group->expanded_v_dim) && !latent)
        return KVT_ERR_MODEL;
    if ((group->expanded_heads != 0) != (group->expanded_k_dim != 0))
        return KVT_ERR_MODEL;

    const bool conv = group->conv_kernel != 0, state = group->recurrent_elements != 0;
    if (conv != (group->conv_channels != 0) || conv != (group->conv_element_bytes != 0) || state != (group->recurrent_element_bytes != 0))
        return KVT_ERR_MODEL;
    if (conv && kind != KVT_LAYER_RECURRENT)
        return KVT_ERR_MODEL;
    if (state && kind != KVT_LAYER_RECURRENT && kind != KVT_LAYER_COMPRESSED && kind != KVT_LAYER_INDEXER)
        return KVT_ERR_MODEL;
    if (kind == KVT_LAYER_RECURRENT && !conv && !state)
        return KVT_ERR_MODEL;
    if ((group->state_heads || group->state_groups || group->state_group_channels) && kind != KVT_LAYER_RECURRENT)
        return KVT_ERR_MODEL;
    if ((group->state_groups != 0) != (group->state_group_channels != 0) || group->state_group_channels > group->conv_channels)
        return KVT_ERR_MODEL;

    if (group->k_dim > KVT_MAX_DIM || group->v_dim > KVT_MAX_DIM || group->expanded_k_dim > KVT_MAX_DIM || group->expanded_v_dim > KVT_MAX_DIM)
        return KVT_ERR_DIM;
    return group->kv_heads > KVT_MAX_HEADS || group->expanded_heads > KVT_MAX_HEADS ? KVT_ERR_HEADS : KVT_OK;
}

static bool has_side_options(const kvt_side_options *options)
{
    return options->rotation || options->centring || options->effort || options->fp8_block || options->fp8_scale || options->fp8_tensor_scale != 0;
}

static uint32_t options_of(const kvt_size_request *request)
{
    return (has_side_options(&request->k_options) || has_side_options(&request->v_options) || request->rope_type ? KVT_OPTION_SIDES : 0u) |
           (request->batch_tokens ? KVT_OPTION_BATCH : 0u) | (request->block_tokens ? KVT_OPTION_BLOCK : 0u) |
           (request->draft_tokens ? KVT_OPTION_DRAFT : 0u) | (request->separate_streams ? KVT_OPTION_STREAMS : 0u) |
           (request->shared_prefix ? KVT_OPTION_PREFIX : 0u) | (request->swa_full ? KVT_OPTION_SWA_FULL : 0u) |
           (request->no_flash_attention ? KVT_OPTION_NO_FLASH : 0u) | (request->static_cache ? KVT_OPTION_STATIC : 0u);
}

static const struct kvt_store_type *find_type(const struct kvt_store_type *types, const char *name)
{
    while (types->name && strcmp(types->name, name) != 0)
        types++;
    return types->name ? types : NULL;
}

static kvt_status find_types(const struct kvt_engine_rules *rules, struct kvt_sizing *sizing)
{
    const kvt_size_request *request = sizing->request;
    const char *k = request->k_type ? request->k_type : "f16", *v = request->v_type ? request->v_type : "f16";
    if (rules->types) {
        sizing->k_type = find_type(rules->types, k);
        sizing->v_type = find_type(rules->types, v);
        return sizing->k_type && sizing->v_type ? KVT_OK : KVT_ERR_SCHEME;
    }
    const kvt_scheme_info *k_info = kvt_scheme_find(k), *v_info = kvt_scheme_find(v);
    const kvt_scheme_info *rope_info = request->rope_type ? kvt_scheme_find(request->rope_type) : NULL;
    if (!k_info || !v_info || (request->rope_type && !rope_info))
        return KVT_ERR_SCHEME;
    sizing->rope_scheme = rope_info ? rope_info->scheme : KVT_SCHEME_NONE;
    sizing->k_scheme = k_info->scheme;
    sizing->v_scheme = v_info->scheme;
    return KVT_OK;
}

/* What comes after the number of sequences are options, which an older caller may lack. */
static kvt_status take_request(kvt_size_request *to, const kvt_size_request *from)
{
    return KVT_TAKE_STRUCT(kvt_size_request, sequences, to, from);
}

/* Everything that is wrong before a group is looked at on its own. */
static kvt_status begin_sizing(struct kvt_sizing *sizing, const kvt_model *model, const kvt_size_request *given)
{
    *sizing = (struct kvt_sizing){ .model = model };
    if (!model || !given)
        return KVT_ERR_NULL;
    if (take_request(&sizing->taken, given) != KVT_OK)
        return KVT_ERR_STRUCT_SIZE;
    const kvt_size_request *request = sizing->request = &sizing->taken;
    const struct kvt_engine_rules *rules = rules_of(request->engine);
    if (!rules || request->sequences == 0)
        return KVT_ERR_RANGE;
    if (model->n_groups == 0)
        return KVT_ERR_MODEL;
    if (!model->groups)
        return KVT_ERR_NULL;

    kvt_status status = find_types(rules, sizing);
    for (size_t i = 0; i < model->n_groups && status == KVT_OK; i++) {
        status = check_layer_group(&model->groups[i]);
        sizing->compressed = sizing->compressed || model->groups[i].kind == KVT_LAYER_COMPRESSED;
    }
    if (status != KVT_OK)
        return status;
    if (options_of(request) & ~rules->options)
        return kvt_cannot(sizing, "an option is given that the engine does not have");
    const struct kvt_type_rule *rule = kvt_find_type_rule(rules, model);
    sizing->knows = rule ? rule->knows : rules->model_types ? rules->knows_unknown : KVT_KNOWS_ALL;
    sizing->adapt = rules->adapt;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_layer_group *group = &model->groups[i];
        if (group->kind == KVT_LAYER_LATENT && !(sizing->knows & KVT_KNOWS_LATENT) && !group->expanded_heads)
            return kvt_cannot(sizing, "MLA: the engine stores keys and values of every head, whose number and widths the model does not say");
    }
    return rules->prepare ? rules->prepare(sizing) : KVT_OK;
}

/* ---- sums ------------------------------------------------------------------------------------------------------------------------ */

/* 0, or the product of all: *total += layers * a * b */
static kvt_status add_of_layers(uint64_t *total, uint64_t layers, uint64_t a, uint64_t b)
{
    uint64_t n;
    return kvt_times(a, b, &n) == KVT_OK ? kvt_add_product(total, layers, n) : KVT_ERR_OVERFLOW;
}

/* The parts of a group, from what one of its layers keeps. */
static kvt_status sum_group(const struct kvt_group_plan *plan, uint64_t layers, kvt_group_size *size)
{
    const uint64_t row = plan->payload + plan->scales + plan->padding;
    uint64_t allocated, layer = 0;
    if (kvt_times(plan->pages, plan->page_rows, &allocated) != KVT_OK)
        return KVT_ERR_OVERFLOW;

    size->layers = layers;
    size->rows = plan->used_rows;
    size->allocated_rows = allocated;
    if (kvt_add_product(&size->bytes_per_token, layers, row) != KVT_OK ||
        add_of_layers(&size->payload_bytes, layers, plan->used_rows, plan->payload) != KVT_OK ||
        add_of_layers(&size->scale_bytes, layers, plan->used_rows, plan->scales) != KVT_OK ||
        add_of_layers(&size->scale_bytes, layers, plan->pages, plan->page_scales) != KVT_OK ||
        add_of_layers(&size->padding_bytes, layers, plan->used_rows, plan->padding) != KVT_OK ||
        add_of_layers(&size->padding_bytes, layers, plan->pages, plan->page_padding) != KVT_OK ||
        add_of_layers(&size->rounding_bytes, layers, allocated - plan->used_rows, row) != KVT_OK ||
        add_of_layers(&size->state_bytes, layers, plan->states, plan->state) != KVT_OK ||
        add_of_layers(&size->padding_bytes, layers, plan->states, plan->state_padding) != KVT_OK)
        return KVT_ERR_OVERFLOW;

    /* Layers that only fill a group are all padding. */
    if (kvt_add_product(&layer, allocated, row) != KVT_OK || kvt_add_product(&layer, plan->pages, plan->page_scales + plan->page_padding) != KVT_OK ||
        kvt_add_product(&layer, plan->states, plan->state + plan->state_padding) != KVT_OK ||
        kvt_add_product(&size->padding_bytes, plan->padding_layers, layer) != KVT_OK)
        return KVT_ERR_OVERFLOW;

    const uint64_t parts[] = { size->payload_bytes, size->scale_bytes, size->padding_bytes, size->rounding_bytes, size->state_bytes };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (kvt_add_product(&size->bytes, parts[i], 1) != KVT_OK)
            return KVT_ERR_OVERFLOW;
    }
    return KVT_OK;
}

/* growing_bytes / growing_tokens += bytes / tokens */
static kvt_status add_growth(kvt_size_report *report, uint64_t bytes, uint64_t tokens)
{
    const uint64_t shared = common_divisor(report->growing_tokens, tokens);
    uint64_t sum = 0, all;
    if (kvt_add_product(&sum, report->growing_bytes, tokens / shared) != KVT_OK ||
        kvt_add_product(&sum, bytes, report->growing_tokens / shared) != KVT_OK || kvt_times(report->growing_tokens, tokens / shared, &all) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    const uint64_t divisor = common_divisor(all, sum);
    report->growing_bytes = sum / divisor;
    report->growing_tokens = all / divisor;
    return KVT_OK;
}

static kvt_status page_tokens(const struct kvt_group_plan *plan, const kvt_layer_group *group, uint64_t *tokens)
{
    *tokens = plan->page_tokens;
    return *tokens ? KVT_OK : kvt_times(plan->page_rows, kvt_tokens_per_row(group), tokens);
}

/* What the next tokens cost: a page over the tokens of a page. */
static kvt_status add_group_growth(const struct kvt_group_plan *plan, const kvt_layer_group *group, uint64_t layers, kvt_size_report *report)
{
    uint64_t page = plan->page_scales + plan->page_padding, bytes, tokens;
    if (kvt_add_product(&page, plan->page_rows, plan->payload + plan->scales + plan->padding) != KVT_OK ||
        kvt_times(page, layers + plan->padding_layers, &bytes) != KVT_OK || page_tokens(plan, group, &tokens) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    return add_growth(report, bytes, tokens);
}

/* Pages that the sequences have in common are stored once. The last token of a context is never of them: it is what is computed. */
static kvt_status share_prefix(const kvt_size_request *request, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    if (request->shared_prefix == 0 || request->context == 0 || !kvt_has_rows(group) || group->kind == KVT_LAYER_SLIDING)
        return KVT_OK;
    uint64_t tokens;
    if (page_tokens(plan, group, &tokens) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    const uint64_t pages = kvt_least(request->shared_prefix, request->context - 1) / tokens;
    plan->pages -= (request->sequences - 1) * pages; /* each sequence has more than these: cannot pass below zero */
    /* A row of several tokens that ends in the first page behind them belongs to them. */
    plan->used_rows -= (request->sequences - 1) * kvt_parts(pages * tokens, kvt_tokens_per_row(group));
    return KVT_OK;
}

/* Adds a group's parts to those of the report. */
static kvt_status add_to_report(const kvt_layer_group *group, const kvt_group_size *size, kvt_size_report *report)
{
    if (group->kind == KVT_LAYER_CROSS)
        return kvt_add_product(&report->cross_bytes, size->bytes, 1) == KVT_OK ? kvt_add_product(&report->total_bytes, size->bytes, 1)
                                                                               : KVT_ERR_OVERFLOW;
    const bool sliding = group->kind == KVT_LAYER_SLIDING, recurrent = group->kind == KVT_LAYER_RECURRENT;
    const struct {
        uint64_t *sum;
        uint64_t bytes;
    } parts[] = {
        { sliding ? &report->window_bytes : &report->payload_bytes, size->payload_bytes },
        { sliding ? &report->window_bytes : &report->scale_bytes, size->scale_bytes },
        { sliding     ? &report->window_bytes
          : recurrent ? &report->state_bytes
                      : &report->padding_bytes,
          size->padding_bytes },
        { sliding ? &report->window_bytes : &report->rounding_bytes, size->rounding_bytes },
        { &report->state_bytes, size->state_bytes },
        { &report->total_bytes, size->bytes },
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (kvt_add_product(parts[i].sum, parts[i].bytes, 1) != KVT_OK)
            return KVT_ERR_OVERFLOW;
    }
    return sliding ? kvt_add_product(&report->window_bytes_per_token, size->bytes_per_token, 1) : KVT_OK;
}

/* Cross attention is to an engine what full attention is, over a context of the encoder's tokens. */
static kvt_status plan_cross(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    const kvt_size_request *request = sizing->request;
    kvt_size_request encoder = *request;
    kvt_layer_group full = *group;
    full.kind = KVT_LAYER_FULL;
    encoder.context = request->encoder_tokens ? request->encoder_tokens : sizing->model->encoder_tokens;
    if (encoder.context == 0)
        return kvt_cannot(sizing, "cross attention: neither the model nor the request says how many tokens the encoder makes");
    sizing->request = &encoder;
    sizing->cross = true;
    const kvt_status status = rules_of(request->engine)->plan(sizing, &full, plan);
    sizing->request = request;
    sizing->cross = false;
    return status;
}

static kvt_status plan_group(struct kvt_sizing *sizing, const kvt_layer_group *group, struct kvt_group_plan *plan)
{
    if (group->kind == KVT_LAYER_CROSS)
        return plan_cross(sizing, group, plan);
    const kvt_status status = rules_of(sizing->request->engine)->plan(sizing, group, plan);
    return status == KVT_OK ? share_prefix(sizing->request, group, plan) : status;
}

static kvt_status size_group(struct kvt_sizing *sizing, const kvt_layer_group *group, kvt_size_report *report, kvt_group_size *size)
{
    *size =
        (kvt_group_size){ .kind = group->kind, .kv_heads = group->kv_heads, .k_dim = group->k_dim, .v_dim = group->v_dim, .window = group->window };
    struct kvt_group_plan plan = { .page_rows = 1 };
    kvt_status status = plan_group(sizing, group, &plan);
    const uint64_t layers = group->count + plan.draft_layers;
    if (status == KVT_OK && layers == 0)
        return KVT_OK;
    if (status == KVT_OK)
        status = sum_group(&plan, layers, size);
    if (status == KVT_OK)
        status = add_to_report(group, size, report);
    if (status == KVT_OK && kvt_has_rows(group) && group->kind != KVT_LAYER_SLIDING && group->kind != KVT_LAYER_CROSS)
        status = add_group_growth(&plan, group, layers, report);
    if (status == KVT_OK)
        status = add_of_layers(&report->state_bytes_per_sequence, layers, plan.states / sizing->request->sequences, plan.state + plan.state_padding);
    return status;
}

static kvt_status sum_groups(struct kvt_sizing *sizing, kvt_size_report *report, kvt_group_size *groups)
{
    kvt_size_report sum = { .growing_tokens = 1 };
    kvt_group_size size;
    for (size_t i = 0; i < sizing->model->n_groups; i++) {
        const kvt_layer_group group = kvt_stored_group(sizing, i);
        const kvt_status status = size_group(sizing, &group, &sum, groups ? &groups[i] : &size);
        if (status != KVT_OK)
            return status;
    }
    *report = sum;
    return KVT_OK;
}

kvt_status kvt_size(const kvt_model *model, const kvt_size_request *request, kvt_size_report *report, kvt_group_size *groups)
{
    struct kvt_sizing sizing;
    kvt_size_report sum;
    if (!report)
        return KVT_ERR_NULL;
    kvt_status status = begin_sizing(&sizing, model, request);
    if (status == KVT_OK)
        status = sum_groups(&sizing, &sum, NULL);
    if (status != KVT_OK)
        return status;

    /* Once more, now that nothing can fail: the caller's array is not to be touched by a call that fails. */
    return sum_groups(&sizing, report, groups);
}

const char *kvt_size_problem(const kvt_model *model, const kvt_size_request *request)
{
    struct kvt_sizing sizing;
    kvt_size_report report;
    kvt_status status = begin_sizing(&sizing, model, request);
    if (status == KVT_OK)
        status = sum_groups(&sizing, &report, NULL);
    return status == KVT_ERR_ENGINE ? sizing.problem : NULL;
}

/* ---- budgets --------------------------------------------------------------------------------------------------------------------- */

/* The largest value of *unknown, a field of *request, from `low` on, whose total is at most the budget. The total never falls as either field
 * grows, so that halving finds it. */
static kvt_status largest_within(const kvt_model *model, const kvt_size_request *request, uint64_t *unknown, uint64_t low, uint64_t budget)
{
    kvt_size_report report;
    *unknown = low;
    const kvt_status status = kvt_size(model, request, &report, NULL);
    if (status != KVT_OK)
        return status;
    if (report.total_bytes > budget)
        return KVT_ERR_BUDGET;

    uint64_t high = UINT64_MAX;
    while (low < high) {
        *unknown = low + (high - low) / 2 + (high - low) % 2;
        if (kvt_size(model, request, &report, NULL) == KVT_OK && report.total_bytes <= budget)
            low = *unknown;
        else
            high = *unknown - 1;
    }
    *unknown = low;
    return KVT_OK;
}

kvt_status kvt_size_longest_context(const kvt_model *model, const kvt_size_request *request, uint64_t budget, uint64_t *context)
{
    if (!request || !context)
        return KVT_ERR_NULL;
    kvt_size_request changed;
    if (take_request(&changed, request) != KVT_OK)
        return KVT_ERR_STRUCT_SIZE;
    const kvt_status status = largest_within(model, &changed, &changed.context, 0, budget);
    if (status == KVT_OK)
        *context = changed.context;
    return status;
}

kvt_status kvt_size_most_sequences(const kvt_model *model, const kvt_size_request *request, uint64_t budget, uint64_t *sequences)
{
    if (!request || !sequences)
        return KVT_ERR_NULL;
    kvt_size_request changed;
    if (take_request(&changed, request) != KVT_OK)
        return KVT_ERR_STRUCT_SIZE;
    if (changed.separate_streams)
        return KVT_ERR_RANGE;
    const kvt_status status = largest_within(model, &changed, &changed.sequences, 1, budget);
    if (status == KVT_OK)
        *sequences = changed.sequences;
    return status;
}
