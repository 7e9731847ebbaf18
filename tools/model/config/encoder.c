/* SPDX-License-Identifier: MIT */
/* Decoders that attend to an encoder's tokens: their own cache, and the keys and values of cross attention, which each layer makes once. */
#include "tools/model/config/config.h"

#define MAX_TOKENS ((json_int_t)1 << 32)

static const char *const t5_like[] = { "t5", "mt5", "umt5", "longt5", "switch_transformers", NULL };
/* clang-format off */
static const char *const bart_like[] = {
    "bart", "mbart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "m2m_100", "marian", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart",
    "speech_to_text", "whisper", NULL,
};
/* clang-format on */

bool config_has_encoder(const config_reader *r, bool *has)
{
    *has = config_is_type(r, t5_like) || config_is_type(r, bart_like);
    for (int i = 0; i < 2 && !*has; i++) {
        const json_t *value = config_find_in(i ? r->root : r->text, "is_encoder_decoder");
        if (value && !config_check_bool(r, "is_encoder_decoder", value, has))
            return false;
    }
    return true;
}

static bool add_layers(const config_reader *r, uint32_t layers, kvt_layer_group group)
{
    group.v_dim = group.k_dim;
    group.count = 1;
    for (uint32_t i = 0; i < layers; i++) {
        r->description->layer = i;
        group.kind = KVT_LAYER_FULL;
        if (description_add(r->description, &group, r->error) != 0)
            return false;
        group.kind = KVT_LAYER_CROSS;
        if (description_add(r->description, &group, r->error) != 0)
            return false;
    }
    return true;
}

/* d_kv is declared; num_layers are the encoder's, and the decoder's too unless it has a number of its own. */
static bool read_t5(const config_reader *r)
{
    kvt_layer_group group = { 0 };
    uint32_t layers;
    const char *count = config_name_of(r, NAMES("num_decoder_layers", "num_layers"));
    return config_get_u32(r, count, MAX_LAYERS, &layers) && config_get_u32(r, "num_heads", KVT_MAX_HEADS, &group.kv_heads) &&
           config_get_dim(r, "d_kv", &group.k_dim) && add_layers(r, layers, group);
}

static bool read_bart(const config_reader *r)
{
    kvt_layer_group group = { 0 };
    uint32_t layers, width;
    json_int_t tokens = 0;
    if (!config_get_u32(r, "decoder_layers", MAX_LAYERS, &layers) || !config_get_u32(r, "decoder_attention_heads", KVT_MAX_HEADS, &group.kv_heads) ||
        !config_get_u32(r, "d_model", MAX_HIDDEN, &width))
        return false;
    if (width % group.kv_heads != 0 || width / group.kv_heads > KVT_MAX_DIM)
        return config_fail(r, "d_model / decoder_attention_heads is %u / %u, but must be a whole number from 1 to %d", (unsigned)width,
                           (unsigned)group.kv_heads, KVT_MAX_DIM);
    group.k_dim = width / group.kv_heads;
    if (config_same_type(r, "whisper")) { /* audio of 30 seconds, whatever there is to hear */
        if (!config_get_integer(r, "max_source_positions", 1, MAX_TOKENS, &tokens))
            return false;
        r->description->encoder_tokens = (uint64_t)tokens;
    }
    return add_layers(r, layers, group);
}

bool config_read_decoder(const config_reader *r)
{
    if (config_is_type(r, t5_like))
        return read_t5(r);
    if (config_is_type(r, bart_like))
        return read_bart(r);
    return config_fail(r, "is_encoder_decoder is true: what the decoder of %s keeps is not known", r->model_type);
}

/* An image is as many tiles as may be, each of its patches and a token for the whole. */
bool config_read_image_tokens(const config_reader *r)
{
    const json_t *vision = config_find_in(r->root, "vision_config");
    json_int_t size = 0, patch = 0, tiles = 0;
    if (!vision) /* the request must say it */
        return true;
    if (!config_check_integer(r, "vision_config.image_size", config_find_in(vision, "image_size"), 1, 65536, &size) ||
        !config_check_integer(r, "vision_config.patch_size", config_find_in(vision, "patch_size"), 1, size, &patch) ||
        !config_check_integer(r, "vision_config.max_num_tiles", config_find_in(vision, "max_num_tiles"), 1, 65536, &tiles))
        return false;
    r->description->encoder_tokens = (uint64_t)tiles * ((uint64_t)(size / patch) * (uint64_t)(size / patch) + 1);
    return true;
}
