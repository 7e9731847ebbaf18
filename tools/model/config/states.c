/* SPDX-License-Identifier: MIT */
/* The states of recurrent layers. */
#include "tools/model/config/config.h"

#include <stdio.h>
#include <string.h>

/* ---- states ---------------------------------------------------------------------------------------------------------------------- */

static bool get_state_u32(const config_reader *r, const char *field, uint32_t *result)
{
    return config_get_u32(r, field, MAX_STATE_DIM, result);
}

static bool set_convolution(const config_reader *r, uint32_t kernel, uint64_t channels, kvt_layer_group *group)
{
    group->conv_kernel = kernel;
    group->conv_channels = channels;
    return config_get_model_dtype(r, &group->conv_element_bytes);
}

/* What tensor parallelism divides: each head has its channels and its part of the matrix; groups have channels only. */
static void set_heads(kvt_layer_group *group, uint32_t heads, uint32_t groups, uint64_t group_channels)
{
    group->state_heads = heads;
    group->state_groups = groups;
    group->state_group_channels = group_channels;
}

static bool read_delta_net(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, k_heads, k_dim, v_heads, v_dim;
    if (!get_state_u32(r, "linear_conv_kernel_dim", &kernel) || !get_state_u32(r, "linear_num_key_heads", &k_heads) ||
        !get_state_u32(r, "linear_key_head_dim", &k_dim) || !get_state_u32(r, "linear_num_value_heads", &v_heads) ||
        !get_state_u32(r, "linear_value_head_dim", &v_dim))
        return false;
    group->recurrent_elements = (uint64_t)v_heads * k_dim * v_dim;
    set_heads(group, v_heads, k_heads, 2 * (uint64_t)k_heads * k_dim);
    return config_get_state_dtype(r, &group->recurrent_element_bytes) &&
           set_convolution(r, kernel, 2 * (uint64_t)k_heads * k_dim + (uint64_t)v_heads * v_dim, group);
}

/* Kimi Delta Attention: a convolution for queries, keys and values each. The engines' kernels keep its state in float32. */
static bool read_kda(const config_reader *r, kvt_layer_group *group)
{
    static const char *const fields[] = { "short_conv_kernel_size", "num_heads", "head_dim" };
    const json_t *config = config_find(r, "linear_attn_config");
    uint64_t numbers[3];
    for (size_t i = 0; i < 3; i++) {
        char field[64];
        json_int_t value = 0;
        snprintf(field, sizeof field, "linear_attn_config.%s", fields[i]);
        if (!config_check_integer(r, field, config_find_in(config, fields[i]), 1, MAX_STATE_DIM, &value))
            return false;
        numbers[i] = (uint64_t)value;
    }
    group->recurrent_elements = numbers[1] * numbers[2] * numbers[2];
    group->recurrent_element_bytes = 4;
    set_heads(group, (uint32_t)numbers[1], 0, 0);
    return set_convolution(r, (uint32_t)numbers[0], 3 * numbers[1] * numbers[2], group);
}

/* The same from the fields of huggingface/transformers. */
static bool read_kda_fields(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim;
    if (!get_state_u32(r, "linear_conv_kernel_dim", &kernel) || !get_state_u32(r, "linear_num_heads", &heads) ||
        !get_state_u32(r, "linear_head_dim", &dim))
        return false;
    group->recurrent_elements = (uint64_t)heads * dim * dim;
    group->recurrent_element_bytes = 4;
    set_heads(group, heads, 0, 0);
    return set_convolution(r, kernel, 3 * (uint64_t)heads * dim, group);
}

/* Lightning attention of MiniMax-Text-01: no convolution. */
static bool read_lightning(const config_reader *r, kvt_layer_group *group)
{
    uint32_t heads, dim;
    if (!config_get_query_heads(r, &heads) || !config_get_head_dim(r, &dim))
        return false;
    group->recurrent_elements = (uint64_t)heads * dim * dim;
    set_heads(group, heads, 0, 0);
    return config_get_state_dtype(r, &group->recurrent_element_bytes);
}

static bool set_mamba2(const config_reader *r, uint32_t kernel, uint32_t heads, uint32_t dim, uint32_t groups, uint32_t state, kvt_layer_group *group)
{
    group->recurrent_elements = (uint64_t)heads * dim * state;
    set_heads(group, heads, groups, 2 * (uint64_t)groups * state);
    return config_get_state_dtype(r, &group->recurrent_element_bytes) &&
           set_convolution(r, kernel, (uint64_t)heads * dim + 2 * (uint64_t)groups * state, group);
}

static bool read_mamba2_nemotron(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim, groups, state;
    return get_state_u32(r, "conv_kernel", &kernel) && get_state_u32(r, "mamba_num_heads", &heads) && get_state_u32(r, "mamba_head_dim", &dim) &&
           get_state_u32(r, "n_groups", &groups) && get_state_u32(r, "ssm_state_size", &state) &&
           set_mamba2(r, kernel, heads, dim, groups, state, group);
}

/* The channels that a Mamba layer works on. */
static bool get_inner_size(const config_reader *r, uint64_t *size)
{
    uint32_t inner, expand, hidden;
    if (config_find(r, "mamba_d_ssm")) { /* Falcon-H1 */
        *size = config_get_u32(r, "mamba_d_ssm", MAX_HIDDEN, &inner) ? inner : 0;
        return *size != 0;
    }
    if (!get_state_u32(r, "mamba_expand", &expand) || !config_get_u32(r, "hidden_size", MAX_HIDDEN, &hidden))
        return false;
    *size = (uint64_t)expand * hidden;
    return true;
}

/* Granite, Bamba and Falcon-H1, whose head size may be "auto". */
static bool read_mamba2_granite(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim, groups, state;
    if (!get_state_u32(r, "mamba_d_conv", &kernel) || !get_state_u32(r, "mamba_n_heads", &heads) || !get_state_u32(r, "mamba_n_groups", &groups) ||
        !get_state_u32(r, "mamba_d_state", &state))
        return false;
    const char *text = json_string_value(config_find(r, "mamba_d_head"));
    if (text && strcmp(text, "auto") == 0) {
        uint64_t inner;
        if (!get_inner_size(r, &inner))
            return false;
        if (inner % heads != 0 || inner / heads > MAX_STATE_DIM)
            return config_fail(r,
                               "mamba_d_head is \"auto\", but mamba_expand * hidden_size / mamba_n_heads is %llu / %u: not a whole number up to %d",
                               (unsigned long long)inner, (unsigned)heads, MAX_STATE_DIM);
        dim = (uint32_t)(inner / heads);
    } else if (!get_state_u32(r, "mamba_d_head", &dim)) {
        return false;
    }
    return set_mamba2(r, kernel, heads, dim, groups, state, group);
}

/* Mamba 1, as in Jamba. */
static bool read_mamba1(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, state;
    uint64_t channels;
    if (!get_state_u32(r, "mamba_d_conv", &kernel) || !get_state_u32(r, "mamba_d_state", &state) || !get_inner_size(r, &channels))
        return false;
    group->recurrent_elements = channels * state;
    set_heads(group, (uint32_t)channels, 0, 0);
    return config_get_state_dtype(r, &group->recurrent_element_bytes) && set_convolution(r, kernel, channels, group);
}

/* Linear attention of Ring-linear: a matrix for each query head, in float32; newer ones have convolutions as Kimi's. */
static bool read_ring(const config_reader *r, kvt_layer_group *group)
{
    uint32_t heads, dim, kernel;
    if (!config_get_query_heads(r, &heads) || !config_get_head_dim(r, &dim) || !config_get_count(r, "short_conv_kernel_size", MAX_STATE_DIM, &kernel))
        return false;
    group->recurrent_elements = (uint64_t)heads * dim * dim;
    group->recurrent_element_bytes = 4;
    set_heads(group, heads, 0, 0);
    return kernel == 0 || set_convolution(r, kernel, 3 * (uint64_t)heads * dim, group);
}

/* The numbers of Mamba's class that files leave out. */
static bool get_state_or(const config_reader *r, const char *field, uint32_t missing, uint32_t *result)
{
    *result = missing;
    return !config_find(r, field) || get_state_u32(r, field, result);
}

/* Channels of a pure Mamba model: intermediate_size, or expand times hidden_size. */
static bool get_mamba_inner(const config_reader *r, uint32_t *inner)
{
    const char *field = config_name_of(r, NAMES("intermediate_size", "d_inner"));
    uint32_t expand, hidden;
    config_find(r, "expand");
    if (config_find(r, field))
        return config_get_u32(r, field, MAX_HIDDEN, inner);
    if (!get_state_or(r, "expand", 2, &expand) || !config_get_hidden(r, &hidden))
        return false;
    if ((uint64_t)expand * hidden > MAX_HIDDEN)
        return config_fail(r, "expand * hidden_size is %llu, but must be at most %d", (unsigned long long)expand * hidden, MAX_HIDDEN);
    *inner = expand * hidden;
    return true;
}

static bool read_pure_mamba1(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, state, inner;
    if (!get_state_or(r, "conv_kernel", 4, &kernel) || !get_state_or(r, "state_size", 16, &state) || !get_mamba_inner(r, &inner))
        return false;
    group->recurrent_elements = (uint64_t)inner * state;
    set_heads(group, inner, 0, 0);
    return config_get_state_dtype(r, &group->recurrent_element_bytes) && set_convolution(r, kernel, inner, group);
}

static bool read_pure_mamba2(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, heads, dim, groups, state;
    return get_state_or(r, "conv_kernel", 4, &kernel) && get_state_or(r, "num_heads", 128, &heads) && get_state_or(r, "head_dim", 64, &dim) &&
           get_state_or(r, "n_groups", 8, &groups) && get_state_or(r, "state_size", 128, &state) &&
           set_mamba2(r, kernel, heads, dim, groups, state, group);
}

/* Zamba2's names, new and old; its heads fill expand * hidden_size. */
static bool read_zamba2(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, expand, hidden, groups, state, dim, heads;
    const char *kernel_field = config_name_of(r, NAMES("mamba_d_conv", "conv_dimension"));
    const char *expand_field = config_name_of(r, NAMES("mamba_expand", "expansion_factor"));
    const char *state_field = config_name_of(r, NAMES("mamba_d_state", "state_size"));
    if (!get_state_or(r, kernel_field, 4, &kernel) || !get_state_or(r, expand_field, 2, &expand) || !get_state_or(r, state_field, 64, &state) ||
        !get_state_or(r, "mamba_ngroups", 1, &groups) || !config_get_hidden(r, &hidden))
        return false;
    if (config_find(r, "n_mamba_heads")) {
        if (!get_state_u32(r, "n_mamba_heads", &heads))
            return false;
        config_find(r, "mamba_headdim");
    } else {
        if (!get_state_u32(r, "mamba_headdim", &dim))
            return false;
        heads = (uint32_t)((uint64_t)expand * hidden / dim);
    }
    const uint64_t inner = (uint64_t)expand * hidden;
    if (heads == 0 || heads > MAX_STATE_DIM || inner % heads != 0 || inner / heads > MAX_STATE_DIM)
        return config_fail(r, "mamba_expand * hidden_size is %llu, but must be a multiple of the number of heads, %u", (unsigned long long)inner,
                           (unsigned)heads);
    return set_mamba2(r, kernel, heads, (uint32_t)(inner / heads), groups, state, group);
}

/* A convolution over lru_width channels, and as many gated units in float32. */
static bool read_griffin(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, width;
    const char *field = config_name_of(r, NAMES("lru_width", "hidden_size"));
    if (!get_state_or(r, "conv1d_width", 4, &kernel) || !config_get_u32(r, field, MAX_HIDDEN, &width))
        return false;
    group->recurrent_elements = width;
    group->recurrent_element_bytes = 4;
    set_heads(group, width, 0, 0);
    return set_convolution(r, kernel, width, group);
}

/* The last input of time mix and of channel mix (a convolution of 2 over both), then RWKV-4's three vectors in float32, or from RWKV-5 on a matrix
 * for each head. */
static bool read_rwkv(const config_reader *r, kvt_layer_group *group)
{
    static const char *const matrices[] = { "rwkv5", "rwkv6", "rwkv7", NULL };
    uint32_t hidden, dim = 64, width;
    if (!config_get_hidden(r, &hidden) || !config_get_u32(r, config_name_of(r, NAMES("attention_hidden_size", "hidden_size")), MAX_HIDDEN, &width))
        return false;
    group->recurrent_element_bytes = 4;
    if (config_is_type(r, matrices)) {
        if (!get_state_or(r, config_name_of(r, NAMES("head_size", "head_dim")), 64, &dim))
            return false;
        if (width % dim != 0)
            return config_fail(r, "attention_hidden_size is %u, but must be a multiple of the head size, %u", (unsigned)width, (unsigned)dim);
        group->recurrent_elements = (uint64_t)width * dim;
        set_heads(group, width / dim, 0, 0);
    } else {
        group->recurrent_elements = 3 * (uint64_t)width;
    }
    return set_convolution(r, 2, 2 * (uint64_t)hidden, group);
}

/* What kind of state it is shows in the names of its fields; for models of nothing else, in their type. */
bool config_read_state(const config_reader *r, kvt_layer_group *group)
{
    static const char *const mamba1[] = { "mamba", "falcon_mamba", NULL }, *const rwkv[] = { "rwkv", "rwkv5", "rwkv6", "rwkv7", NULL };
    static const char *const lightning[] = { "minimax", "minimax_text_01", "minimax_m1", NULL };
    group->kind = KVT_LAYER_RECURRENT;
    if (config_is_type(r, mamba1))
        return read_pure_mamba1(r, group);
    if (config_same_type(r, "mamba2"))
        return read_pure_mamba2(r, group);
    if (config_is_type(r, rwkv))
        return read_rwkv(r, group);
    if (config_same_type(r, "zamba2"))
        return read_zamba2(r, group);
    if (config_find(r, "block_types"))
        return read_griffin(r, group);
    if (config_find(r, "layer_group_size"))
        return read_ring(r, group);
    if (config_is_type(r, lightning))
        return read_lightning(r, group);
    if (config_find(r, "linear_num_heads"))
        return read_kda_fields(r, group);
    if (config_find(r, "linear_conv_kernel_dim") || config_find(r, "linear_num_value_heads"))
        return read_delta_net(r, group);
    if (config_find(r, "linear_attn_config"))
        return read_kda(r, group);
    if (config_find(r, "attn_type_list"))
        return read_lightning(r, group);
    if (config_find(r, "mamba_num_heads"))
        return read_mamba2_nemotron(r, group);
    if (config_find(r, "mamba_n_heads"))
        return read_mamba2_granite(r, group);
    if (config_find(r, "mamba_d_state"))
        return read_mamba1(r, group);
    return config_fail(
        r,
        "linear_conv_kernel_dim, mamba_num_heads, mamba_n_heads and mamba_d_state are missing: one must say what the recurrent layers of "
        "%s keep",
        r->model_type);
}

/* LFM2 */
bool config_read_short_convolution(const config_reader *r, kvt_layer_group *group)
{
    uint32_t kernel, channels;
    group->kind = KVT_LAYER_RECURRENT;
    if (!get_state_u32(r, "conv_L_cache", &kernel) || !config_get_u32(r, config_name_of(r, NAMES("conv_dim", "hidden_size")), MAX_HIDDEN, &channels))
        return false;
    set_heads(group, channels, 0, 0);
    return set_convolution(r, kernel, channels, group);
}
