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

/* What kind of state it is shows in the names of its fields. */
bool config_read_state(const config_reader *r, kvt_layer_group *group)
{
    group->kind = KVT_LAYER_RECURRENT;
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
