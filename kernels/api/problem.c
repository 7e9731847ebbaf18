/* SPDX-License-Identifier: MIT */
/* Why a spec or a question is refused: the fields that the status is about, and what would be right. */
#include "kernels/api/api.h"

#include <kvtile/step.h>

#include <stdio.h>

/* The first side whose options alone are refused. */
static const char *refused_side(const kvt_spec *spec, const kvt_side_options **options)
{
    const struct {
        const char *name;
        kvt_scheme scheme;
        uint32_t dim;
        const kvt_side_options *options;
    } sides[] = { { "k_options", spec->k_scheme, spec->k_dim, &spec->k_options },
                  { "v_options", spec->v_scheme, spec->v_dim, &spec->v_options },
                  { "rope_options", spec->rope_scheme, spec->rope_dim, &spec->rope_options } };
    for (int i = 0; i < 3; i++) {
        kvt_layout layout;
        const kvt_spec alone = {
            .size = sizeof alone, .k_scheme = sides[i].scheme, .k_dim = sides[i].dim, .kv_heads = 1, .k_options = *sides[i].options
        };
        *options = sides[i].options;
        if (sides[i].dim && kvt_layout_init(&layout, &alone) == KVT_ERR_OPTIONS)
            return sides[i].name;
    }
    return "options";
}

kvt_status kvt_spec_problem(const kvt_spec *given, char *text, size_t bytes)
{
    kvt_layout layout;
    kvt_spec spec;
    const kvt_status status = kvt_layout_init(&layout, given);
    if (!text || !bytes)
        return status;
    if (!status || status == KVT_ERR_NULL || KVT_TAKE_STRUCT(kvt_spec, rope_options, &spec, given)) {
        snprintf(text, bytes, "%s", status ? kvt_status_text(status) : "");
        return status;
    }
    const kvt_side_options *o;
    switch (status) {
    case KVT_ERR_SCHEME:
        snprintf(text, bytes, "k_scheme is %d, v_scheme %d, rope_scheme %d: one that is needed is no scheme (kvt_scheme_at lists them)",
                 (int)spec.k_scheme, (int)spec.v_scheme, (int)spec.rope_scheme);
        break;
    case KVT_ERR_DIM:
        snprintf(text, bytes, "k_dim is %u, v_dim %u, rope_dim %u: k_dim has to be 1 to %d, the others 0 to %d and one of them 0", spec.k_dim,
                 spec.v_dim, spec.rope_dim, KVT_MAX_DIM, KVT_MAX_DIM);
        break;
    case KVT_ERR_HEADS:
        snprintf(text, bytes, "kv_heads is %u: it has to be 1 to %d", spec.kv_heads, KVT_MAX_HEADS);
        break;
    case KVT_ERR_TIER:
        snprintf(text, bytes, "tiers is 0x%x, but this CPU can run 0x%x alone", spec.tiers, kvt_tiers_usable());
        break;
    default: {
        const char *name = refused_side(&spec, &o);
        snprintf(text, bytes,
                 "%s has rotation %d, centring %d, effort %d, fp8_block %u, fp8_scale %d, fp8_tensor_scale %g: the scheme has not all of them", name,
                 (int)o->rotation, (int)o->centring, (int)o->effort, o->fp8_block, (int)o->fp8_scale, (double)o->fp8_tensor_scale);
    }
    }
    return status;
}

kvt_status kvt_attention_problem(const kvt_attention *given, char *text, size_t bytes)
{
    kvt_attend_sizes sizes;
    kvt_attention a;
    const kvt_status status = kvt_attend_plan_sizes(given, &sizes);
    if (!text || !bytes)
        return status;
    if (!status || status == KVT_ERR_NULL || KVT_TAKE_STRUCT(kvt_attention, soft_cap, &a, given)) {
        snprintf(text, bytes, "%s", status ? kvt_status_text(status) : "");
        return status;
    }
    switch (status) {
    case KVT_ERR_GROUP:
        snprintf(text, bytes, "group is %u and query_tokens %u: they have to be 1 to %d, and at least 1", a.group, a.query_tokens, KVT_MAX_GROUP);
        break;
    case KVT_ERR_DTYPE:
        snprintf(text, bytes, "query_dtype is %d and out_dtype %d: one of them is no number format of rows", (int)a.query_dtype, (int)a.out_dtype);
        break;
    case KVT_ERR_NUMBER:
        snprintf(text, bytes, "scale is %g and soft_cap %g: magnitudes have to be 2^-20 to 2^20 (soft_cap may be 0)", (double)a.scale,
                 (double)a.soft_cap);
        break;
    case KVT_ERR_OPTIONS:
        snprintf(text, bytes, "window is %zu, soft_cap %g, %s: a window and slopes need a position, slopes no soft_cap", a.window, (double)a.soft_cap,
                 a.slopes ? "and there are slopes" : "without slopes");
        break;
    case KVT_ERR_RANGE:
        snprintf(text, bytes,
                 "begin is %zu, end %zu, position %zu, query_tokens %u, bit_first %zu, and the last of %zu segments begins at %zu with %zu pages",
                 a.begin, a.end, a.position, a.query_tokens, a.bit_first, a.n_segments, a.segments[a.n_segments - 1].first_token,
                 a.segments[a.n_segments - 1].pages.count);
        break;
    default:
        snprintf(text, bytes, "%s", kvt_status_text(status));
    }
    return status;
}
