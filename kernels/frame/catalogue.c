/* The built-in models of catalogue.def, and finding them by name. */
#include <kvtile/size.h>

#include <stdbool.h>
#include <string.h>

#define BF16_BYTES 2
#define F32_BYTES  4

/* clang-format off */
#define FULL(layers, heads, k, v) { .kind = KVT_LAYER_FULL, .count = (layers), .kv_heads = (heads), .k_dim = (k), .v_dim = (v) }
#define SLIDING(layers, heads, k, v, tokens) \
    { .kind = KVT_LAYER_SLIDING, .count = (layers), .kv_heads = (heads), .k_dim = (k), .v_dim = (v), .window = (tokens) }
#define LATENT(layers, rank, rope) { .kind = KVT_LAYER_LATENT, .count = (layers), .kv_heads = 1, .k_dim = (rank) + (rope) }
#define RECURRENT(layers, conv, state) \
    { .kind = KVT_LAYER_RECURRENT, .count = (layers), .conv_elements = (conv), .conv_element_bytes = BF16_BYTES, \
      .recurrent_elements = (state), .recurrent_element_bytes = F32_BYTES }
#define DELTA_NET(layers, kernel, k_heads, k, v_heads, v) \
    RECURRENT(layers, ((kernel) - 1) * (2 * (k_heads) * (k) + (v_heads) * (v)), (v_heads) * (k) * (v))
#define MAMBA2(layers, kernel, heads, dim, groups, state) \
    RECURRENT(layers, ((kernel) - 1) * ((heads) * (dim) + 2 * (groups) * (state)), (heads) * (dim) * (state))
#define NONE(layers) { .kind = KVT_LAYER_NONE, .count = (layers) }

#define KVT_MODEL(name, context, ...) \
    { (name), (context), sizeof((const kvt_layer_group[]){ __VA_ARGS__ }) / sizeof(kvt_layer_group), (const kvt_layer_group[]){ __VA_ARGS__ } },
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
