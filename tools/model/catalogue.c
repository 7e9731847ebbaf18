/* SPDX-License-Identifier: MIT */
/* The built-in models of catalogue.def, and finding them by name. */
#include <kvtile/model.h>

#include <stdbool.h>
#include <string.h>

#define BF16_BYTES 2
#define F32_BYTES  4

/* `layers` is a number, or a number WITH_DRAFT(layers) WITH_SHARED(layers), and may therefore not stand in parentheses. */
/* clang-format off */
#define WITH_DRAFT(layers) , .draft_count = (layers)
#define WITH_SHARED(layers) , .shared_count = (layers)
#define FULL(layers, heads, k, v) { .kind = KVT_LAYER_FULL, .count = layers, .kv_heads = (heads), .k_dim = (k), .v_dim = (v) }
#define SLIDING(layers, heads, k, v, tokens) \
    { .kind = KVT_LAYER_SLIDING, .count = layers, .kv_heads = (heads), .k_dim = (k), .v_dim = (v), .window = (tokens) }
#define LATENT(layers, rank, rope, heads, nope, v) \
    { .kind = KVT_LAYER_LATENT, .count = layers, .kv_heads = 1, .k_dim = (rank) + (rope), .rope_dim = (rope), \
      .expanded_heads = (heads), .expanded_k_dim = (nope) + (rope), .expanded_v_dim = (v) }

/* Keys and scores of the tokens that DeepSeek-V4's compressor has not made a row of. At 4 tokens per row each row overlaps the one before: twice
 * the tokens and twice the width. */
#define COMPRESSOR(dim, tokens) \
    .recurrent_elements = (tokens) > 1 ? 2 * (tokens) * (dim) * ((tokens) == 4 ? 4 : 1) : 0, \
    .recurrent_element_bytes = (tokens) > 1 ? F32_BYTES : 0
#define COMPRESSED(layers, dim, rope, tokens) \
    { .kind = KVT_LAYER_COMPRESSED, .count = layers, .kv_heads = 1, .k_dim = (dim), .rope_dim = (rope), .tokens_per_row = (tokens), COMPRESSOR(dim, tokens) }
#define SLIDING_SHARED(layers, dim, rope, tokens) \
    { .kind = KVT_LAYER_SLIDING, .count = layers, .kv_heads = 1, .k_dim = (dim), .rope_dim = (rope), .window = (tokens) }
#define INDEXER(layers, dim, tokens) \
    { .kind = KVT_LAYER_INDEXER, .count = layers, .kv_heads = 1, .k_dim = (dim), .tokens_per_row = (tokens), COMPRESSOR(dim, tokens) }

#define CONVOLUTION(kernel, channels) .conv_kernel = (kernel), .conv_channels = (channels), .conv_element_bytes = BF16_BYTES
#define DELTA_NET(layers, kernel, k_heads, k, v_heads, v, state_bytes) \
    { .kind = KVT_LAYER_RECURRENT, .count = layers, CONVOLUTION(kernel, 2 * (k_heads) * (k) + (v_heads) * (v)), \
      .recurrent_elements = (v_heads) * (k) * (v), .recurrent_element_bytes = (state_bytes), .state_heads = (v_heads), \
      .state_groups = (k_heads), .state_group_channels = 2 * (k_heads) * (k) }
#define MAMBA2(layers, kernel, heads, dim, groups, state, state_bytes) \
    { .kind = KVT_LAYER_RECURRENT, .count = layers, CONVOLUTION(kernel, (heads) * (dim) + 2 * (groups) * (state)), \
      .recurrent_elements = (heads) * (dim) * (state), .recurrent_element_bytes = (state_bytes), .state_heads = (heads), \
      .state_groups = (groups), .state_group_channels = 2 * (groups) * (state) }
#define SHORT_CONV(layers, kernel, channels) { .kind = KVT_LAYER_RECURRENT, .count = layers, CONVOLUTION(kernel, channels), .state_heads = (channels) }
#define NONE(layers) { .kind = KVT_LAYER_NONE, .count = layers }

#define KVT_MODEL(title, type, context, ...) \
    { .name = (title), .max_context = (context), .n_groups = sizeof((const kvt_layer_group[]){ __VA_ARGS__ }) / sizeof(kvt_layer_group), \
      .groups = (const kvt_layer_group[]){ __VA_ARGS__ }, .model_type = (type) },
/* clang-format on */

static const kvt_model models[] = {
#include "catalogue.def"
};

const kvt_model *kvt_catalogue_at(size_t index)
{
    return index < sizeof models / sizeof models[0] ? &models[index] : NULL;
}

/* The C library's functions would ask the locale. */
static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool equal_names(const char *a, const char *b)
{
    while (*a && lower(*a) == lower(*b))
        a++, b++;
    return *a == *b;
}

const kvt_model *kvt_catalogue_find(const char *name)
{
    if (!name)
        return NULL;

    const char *slash = strchr(name, '/');
    if (slash && slash > name)
        name = slash + 1;
    for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
        if (equal_names(models[i].name, name))
            return &models[i];
    }
    return NULL;
}
