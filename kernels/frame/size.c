/* Sizing: model description -> bytes. The layout code is the only place that knows what a row or a page takes. */
#include <kvtile/size.h>

#include <stdbool.h>

const char *kvt_layer_kind_name(kvt_layer_kind kind)
{
    switch (kind) {
    case KVT_LAYER_FULL:
        return "full";
    case KVT_LAYER_SLIDING:
        return "sliding";
    case KVT_LAYER_LATENT:
        return "latent";
    case KVT_LAYER_RECURRENT:
        return "recurrent";
    case KVT_LAYER_NONE:
        return "none";
    }
    return NULL;
}

const char *kvt_engine_name(kvt_engine engine)
{
    switch (engine) {
    case KVT_ENGINE_LOGICAL:
        return "logical";
    case KVT_ENGINE_KVTILE:
        return "kvtile";
    }
    return NULL;
}

/* *total += a * b */
static kvt_status add_product(uint64_t *total, uint64_t a, uint64_t b)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product) || __builtin_add_overflow(*total, product, total))
        return KVT_ERR_OVERFLOW;
    return KVT_OK;
}

static bool has_rows(kvt_layer_kind kind)
{
    return kind == KVT_LAYER_FULL || kind == KVT_LAYER_SLIDING || kind == KVT_LAYER_LATENT;
}

static bool group_is_consistent(const kvt_layer_group *group)
{
    const kvt_layer_kind kind = group->kind;
    if (!kvt_layer_kind_name(kind) || group->count == 0)
        return false;

    if (has_rows(kind) != (group->kv_heads != 0) || has_rows(kind) != (group->k_dim != 0))
        return false;
    if ((group->v_dim != 0) != (kind == KVT_LAYER_FULL || kind == KVT_LAYER_SLIDING))
        return false;
    if (kind == KVT_LAYER_LATENT && group->kv_heads != 1)
        return false;
    if ((group->window != 0) != (kind == KVT_LAYER_SLIDING))
        return false;

    const bool conv = group->conv_elements != 0;
    const bool state = group->recurrent_elements != 0;
    if (conv != (group->conv_element_bytes != 0) || state != (group->recurrent_element_bytes != 0))
        return false;
    return (conv || state) == (kind == KVT_LAYER_RECURRENT);
}

static uint64_t pages_of(uint64_t tokens)
{
    return tokens / KVT_PAGE_TOKENS + (tokens % KVT_PAGE_TOKENS != 0);
}

/* The most pages that any `window` consecutive tokens of a sequence can touch: they may begin at the last token of a page. */
static uint64_t pages_of_window(uint32_t window, uint64_t context)
{
    const uint64_t touched = pages_of(window - 1) + 1;
    const uint64_t all = pages_of(context);
    return touched < all ? touched : all;
}

/* Layers that store rows: full, sliding and latent. */
static kvt_status rows_size(const kvt_layer_group *group, const kvt_size_request *request, kvt_group_size *size)
{
    const kvt_spec spec = {
        .size = sizeof spec,
        .k_scheme = request->k_scheme,
        .v_scheme = request->v_scheme,
        .k_dim = group->k_dim,
        .v_dim = group->v_dim,
        .kv_heads = group->kv_heads,
    };
    kvt_layout layout;
    const kvt_status status = kvt_layout_init(&layout, &spec);
    if (status != KVT_OK)
        return status;

    const uint64_t rows_per_token = (uint64_t)group->count * group->kv_heads;
    const bool sliding = group->kind == KVT_LAYER_SLIDING;
    uint64_t units; /* tokens or pages */
    uint64_t unit_bytes;
    if (request->engine == KVT_ENGINE_LOGICAL) {
        units = sliding && group->window < request->context ? group->window : request->context;
        unit_bytes = layout.token_bytes;
        size->tokens = units;
    } else {
        units = sliding ? pages_of_window(group->window, request->context) : pages_of(request->context);
        unit_bytes = layout.page_bytes;
        if (__builtin_mul_overflow(units, (uint64_t)KVT_PAGE_TOKENS, &size->tokens))
            return KVT_ERR_OVERFLOW;
    }

    uint64_t all_units;
    if (__builtin_mul_overflow(units, rows_per_token, &all_units) || __builtin_mul_overflow(all_units, request->sequences, &all_units))
        return KVT_ERR_OVERFLOW;
    if (add_product(&size->bytes_per_token, rows_per_token, layout.token_bytes) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    return add_product(&size->bytes, all_units, unit_bytes);
}

/* Of all layers of the group, for one sequence. */
static kvt_status state_bytes(const kvt_layer_group *group, uint64_t *bytes)
{
    uint64_t layer = 0;
    *bytes = 0;
    if (add_product(&layer, group->conv_elements, group->conv_element_bytes) != KVT_OK ||
        add_product(&layer, group->recurrent_elements, group->recurrent_element_bytes) != KVT_OK)
        return KVT_ERR_OVERFLOW;
    return add_product(bytes, layer, group->count);
}

/* Sizes one group and adds it to the report. */
static kvt_status add_group(const kvt_layer_group *group, const kvt_size_request *request, kvt_size_report *report, kvt_group_size *size)
{
    *size = (kvt_group_size){ 0 };
    if (!group_is_consistent(group))
        return KVT_ERR_MODEL;

    kvt_status status;
    if (has_rows(group->kind)) {
        status = rows_size(group, request, size);
        uint64_t *per_token = group->kind == KVT_LAYER_SLIDING ? &report->window_bytes_per_token : &report->growing_bytes_per_token;
        if (status == KVT_OK)
            status = add_product(per_token, size->bytes_per_token, 1);
    } else {
        uint64_t state;
        status = state_bytes(group, &state);
        if (status == KVT_OK)
            status = add_product(&size->bytes, state, request->sequences);
        if (status == KVT_OK)
            status = add_product(&report->state_bytes_per_sequence, state, 1);
    }
    if (status != KVT_OK)
        return status;
    return add_product(&report->total_bytes, size->bytes, 1);
}

kvt_status kvt_size(const kvt_model *model, const kvt_size_request *request, kvt_size_report *report, kvt_group_size *groups)
{
    if (!model || !request || !report)
        return KVT_ERR_NULL;
    if (request->size != sizeof *request)
        return KVT_ERR_STRUCT_SIZE;
    if (!kvt_scheme_get(request->k_scheme) || !kvt_scheme_get(request->v_scheme))
        return KVT_ERR_SCHEME;
    if (!kvt_engine_name(request->engine) || request->sequences == 0)
        return KVT_ERR_RANGE;
    if (model->n_groups == 0)
        return KVT_ERR_MODEL;
    if (!model->groups)
        return KVT_ERR_NULL;

    kvt_size_report sum = { 0 };
    kvt_group_size size;
    for (size_t i = 0; i < model->n_groups; i++) {
        const kvt_status status = add_group(&model->groups[i], request, &sum, &size);
        if (status != KVT_OK)
            return status;
    }
    *report = sum;

    /* Once more, now that nothing can fail: the caller's array is not to be touched by a call that fails. */
    for (size_t i = 0; groups && i < model->n_groups; i++) {
        sum = (kvt_size_report){ 0 };
        (void)add_group(&model->groups[i], request, &sum, &groups[i]);
    }
    return KVT_OK;
}
