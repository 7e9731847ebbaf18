/* SPDX-License-Identifier: MIT */
/* Reads a model's config.json, as published beside its weights.
 *
 * The fields decide, not the model type: which of them name the layers' kinds, which give the rows of a kind, which give a state. The model type
 * is asked only where a field says nothing by itself: what its class in huggingface/transformers fills in for a field that is left out, and
 * whether a window that stands alone is every layer's. What is missing, contradictory or unknown is an error or a note, never a guess. */
#include "tools/model/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONTEXT ((json_int_t)1 << 48)

/* ---- fields that are not understood ---------------------------------------------------------------------------------------------- */

/* Parts of names that hint at what a cache holds. */
static const char *const suspicious[] = {
    "loop",      "recur",      "repeat",       "ut_steps",        "cla_",        "reuse",       "passes",     "n_cycles",
    "_cycles",   "cross_attn", "num_mem",      "tie_kv",          "window",      "sliding",     "swa",        "kv",
    "key_value", "cache",      "layer_type",   "block_type",      "mixer",       "pattern",     "interval",   "period",
    "ssm",       "mamba",      "conv",         "linear_",         "share",       "index_",      "indexer",    "compress",
    "latent",    "lora_rank",  "chunk",        "hybrid",          "recurrent",   "rwkv",        "lru",        "stride",
    "state",     "memory",     "sparse",       "cross_attention", "cross_layer", "layer_group", "attn_layer", "attention_other",
    "local_att", "global_",    "block_config", "layer_config",    NULL,
};

/* Parts of names, and whole names, that have nothing to do with it all the same. */
static const char *const harmless_parts[] = {
    "activation", "ngram_size", "embeddings", "_eps", "linear_a_log",      "linear_dt", "linear_allow", "expert", "moe", "mlp",
    "rope",       "bias",       "dropout",    "norm", "intermediate_size", "_act",      "multiplier",   "qkv",    NULL,
};
static const char *const harmless_names[] = {
    "use_cache",
    "num_key_value_heads",
    "global_attn_every_n_layers",
    "index_block_size",
    "index_local_blocks",
    "index_topk_blocks",
    "encoder_sparse_step",
    "num_sparse_encoder_layers",
    "num_sparse_decoder_layers",
    "global_block_size",
    "num_global_tokens",
    "prefill_chunk_size",
    "attn_res_block_size",
    "gated_linear_unit",
    "linear_silu",
    "linear_rope",
    "hidden_states",
    "cache_implementation",
    "q_lora_rank",
    "mla_scale_kv_lora",
    "o_lora_rank",
    "index_topk",
    "index_n_heads",
    "swa_num_attention_heads",
    "chunk_size",
    "chunk_size_feed_forward",
    "mamba_chunk_size",
    "mamba_dt_rank",
    "use_mamba_kernels",
    "conv_dim_out",
    "conv_use_xavier_init",
    "activation_sparsity_pattern",
    "decoder_sparse_step",
    "output_hidden_states",
    "compression_config",
    NULL,
};

static bool contains_one_of(const char *name, const char *const *parts)
{
    for (; *parts; parts++) {
        if (strstr(name, *parts))
            return true;
    }
    return false;
}

static bool says_something(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return json_object_size(value) > 0;
    case JSON_ARRAY:
        return json_array_size(value) > 0;
    case JSON_STRING:
        return json_string_length(value) > 0;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(value) != 0;
    case JSON_TRUE:
        return true;
    case JSON_FALSE:
    case JSON_NULL:
        break;
    }
    return false;
}

/* Fields that mean nothing for the cache in models of these types, though their names sound as if. */
static const struct {
    const char *model_type, *field;
} harmless_of[] = {
    { "zamba", "n_mamba_heads" },
    { "zamba2", "hybrid_layer_ids" },
    { "cohere2_moe", "prefix_dense_sliding_window_pattern" },
    { "nemotron_h", "mtp_layers_block_type" },
    { "nemotron_h", "mtp_hybrid_override_pattern" },
    { "bailing_hybrid", "linear_head_dim" },
    { "bailing_hybrid", "linear_num_heads" },
    { "bailing_hybrid", "linear_conv_kernel_dim" },
    { "zamba2", "num_mem_blocks" },
    { "zamba2", "use_shared_attention_lora" },
    { "zamba2", "use_shared_block_lora" },
    { "zamba2", "use_shared_attention_adapter" },
    { "zamba2", "lora_rank" },
    { "kimi_linear", "attn_res_block_size" },
    { "gemma3n", "laurel_rank" },
    { "exaone4", "sliding_window_pattern" },
    { "mllama", "cross_attention_layers" },
    { "phi3small", "dense_attention_every_n_layers" },
};

static bool is_harmless(const config_reader *r, const char *name)
{
    if (config_is_layer_field(name) || config_is_one_of(name, harmless_names) || contains_one_of(name, harmless_parts))
        return true;
    for (size_t i = 0; i < sizeof harmless_of / sizeof harmless_of[0]; i++) {
        if (config_same_type(r, harmless_of[i].model_type) && strcmp(name, harmless_of[i].field) == 0)
            return true;
    }
    return false;
}

static bool is_assumed(const config_reader *r, const char *name)
{
    return r->description->assumed && config_is_one_of(name, r->description->assumed);
}

/* A field that sounds as if it changed the cache and that nobody asked for: without knowing what it means there is no answer. */
static bool check_unknown_fields(const config_reader *r)
{
    const char *name;
    json_t *value;
    json_object_foreach(r->text, name, value)
    {
        if (json_object_get(r->seen, name) || !contains_one_of(name, suspicious) || is_harmless(r, name) || !says_something(value))
            continue;
        char shown[64];
        config_show(name, shown, sizeof shown);
        if (is_assumed(r, name)) {
            description_note(r->description, "%s is left out, as --assume says", shown);
            continue;
        }
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT);
        config_fail(r, "%s is %.60s%s, and what that changes in the cache of %s is not known: --assume %s=ignored sizes it as if it changed nothing",
                    shown, text ? text : "?", text && strlen(text) > 60 ? "..." : "", r->model_type, shown);
        free(text);
        return false;
    }
    return true;
}

/* A field to be left out must be there, or the name is a mistake. */
static bool check_assumed(const config_reader *r)
{
    for (const char *const *name = r->description->assumed; name && *name; name++) {
        if (!json_object_get(r->text, *name) && !json_object_get(r->root, *name)) {
            char shown[64];
            config_show(*name, shown, sizeof shown);
            return config_fail(r, "there is no field %s, which --assume wants to leave out", shown);
        }
    }
    return true;
}

/* ---- the model ------------------------------------------------------------------------------------------------------------------- */

/* Goes down to the language model: root, root.text_config, root.thinker_config.text_config ... */
static bool find_text(config_reader *r)
{
    static const char *const parts[] = { "text_config", "llm_config", "language_config", "thinker_config" };
    const json_t *type = json_object_get(r->root, "model_type");
    r->text = r->root;
    for (bool deeper = true; deeper;) {
        deeper = false;
        for (size_t i = 0; i < sizeof parts / sizeof parts[0] && !deeper; i++) {
            json_t *part = config_find_in(r->text, parts[i]);
            if (part && !json_is_object(part))
                return config_fail_field(r, parts[i], part, "an object");
            if (!part)
                continue;
            r->text = part;
            type = config_find_in(part, "model_type") ? config_find_in(part, "model_type") : type;
            deeper = true;
        }
    }
    if (!json_is_string(type) || json_string_length(type) == 0)
        return config_fail_field(r, "model_type", type, "the name of a type of model");
    config_show(json_string_value(type), r->model_type, sizeof r->model_type);
    snprintf(r->description->type, sizeof r->description->type, "%s", r->model_type);
    char *end = strstr(r->description->type, "_text"); /* "gemma3_text" and "mllama_text_model" are languages of "gemma3" and "mllama" */
    if (end && (strcmp(end, "_text") == 0 || strcmp(end, "_text_model") == 0))
        *end = '\0';
    r->class = config_find_class(r);
    r->description->unknown_type = !r->class;
    return true;
}

/* Encoders: they see what comes later, and keep nothing. */
/* clang-format off */
static const char *const encoders[] = {
    "albert", "bert", "bert-generation", "big_bird", "camembert", "clip", "data2vec", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
    "esm", "megatron-bert", "modernbert", "mpnet", "new", "nomic_bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer",
    "siglip", "vit", "xlm-roberta", "xlm-roberta-xl", "xmod", NULL,
};
/* clang-format on */

/* Types whose fields do not tell what they keep. */
static const struct {
    const char *model_type, *why;
} unsizable[] = {
    { "blt", "it has three transformers, of bytes and of patches" },
    { "dory", "it passes through some of its layers several times" },
    { "hrm", "it passes through its layers in nested cycles" },
    { "inkling", "its convolutions have states beside attention" },
    { "inkling2", "its convolutions have states beside attention" },
    { "inkling2_loop", "it passes through some of its layers several times" },
    { "moshi", "it has a second decoder for every token" },
    { "musicgen", "it has a text encoder and several codebooks" },
    { "musicgen_melody", "it has a text encoder and several codebooks" },
    { "reformer", "its attention keeps buckets of hashes" },
    { "xlnet", "it keeps hidden states of earlier segments" },
    { "xlstm", "its states are not known" },
    { "xlm", "it sees what comes later" },
    { "zaya", "its compressed convolutional attention keeps states beside keys" },
};

/* Models whose caches have another shape than the fields would say. */
static bool check_sizable(const config_reader *r)
{
    static const char *const unsized[] = { "add_cross_attention" };
    for (size_t i = 0; i < sizeof unsized / sizeof unsized[0]; i++) {
        const json_t *value = config_find(r, unsized[i]);
        if (value && says_something(value))
            return config_fail_field(r, unsized[i], value, "absent: its caches are not sized");
    }
    bool both = false;
    const json_t *causal = config_find(r, "is_causal");
    if (causal && config_check_bool(r, "is_causal", causal, &both) && !both)
        return config_fail_field(r, "is_causal", causal, "true: a model that sees what comes later has no cache");
    const json_t *both_ways = config_find(r, "use_bidirectional_attention"), *outer = config_find_in(r->root, "model_type");
    const bool prefix = json_is_string(outer) && strcmp(json_string_value(outer), "paligemma") == 0; /* sees all of the image and the prompt */
    if (!prefix && (json_is_true(both_ways) || (json_is_string(both_ways) && strcmp(json_string_value(both_ways), "all") == 0)))
        return config_fail_field(r, "use_bidirectional_attention", both_ways, "absent: a model that sees what comes later has no cache");
    if (config_is_type(r, encoders))
        return config_fail(r, "model_type is \"%s\": an encoder, which sees what comes later and has no cache", r->model_type);
    for (size_t i = 0; i < sizeof unsizable / sizeof unsizable[0]; i++) {
        if (config_same_type(r, unsizable[i].model_type))
            return config_fail(r, "model_type is \"%s\", which cannot be sized yet: %s", r->model_type, unsizable[i].why);
    }
    return true;
}

static bool read_context(const config_reader *r)
{
    const char *field =
        config_name_of(r, NAMES("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "max_seq_length", "seq_length",
                                "n_ctx", "max_target_positions", "max_context_length", "context_window_size", "model_max_length"));
    json_int_t context = 0;
    const json_t *outer = config_find_in(r->root, "max_position_embeddings");
    if (config_has(r, field) ? !config_get_integer(r, field, 1, MAX_CONTEXT, &context)
                             : outer && !config_check_integer(r, field, outer, 1, MAX_CONTEXT, &context))
        return false;
    r->description->model.max_context = (uint64_t)context;
    return true;
}

/* What the checkpoint was calibrated for: compressed-tensors' kv_cache_scheme, or ModelOpt's kv_cache_quant_algo. */
static bool read_kv_type(const config_reader *r)
{
    const json_t *quantization = config_find_in(r->root, "quantization_config");
    if (!quantization)
        quantization = config_find(r, "quantization_config");
    if (!json_is_object(quantization))
        return true;
    const json_t *scheme = config_find_in(quantization, "kv_cache_scheme"), *algorithm = config_find_in(quantization, "kv_cache_quant_algo");
    if (!scheme && !algorithm)
        return true;
    const char *type = json_string_value(config_find_in(scheme, "type"));
    const char *name = json_string_value(json_is_string(scheme) ? scheme : algorithm);
    const bool float8 = type && strcmp(type, "float") == 0 && json_integer_value(config_find_in(scheme, "num_bits")) == 8;
    if ((scheme && float8) || (name && strcmp(name, "FP8") == 0))
        r->description->kv_type = "fp8";
    else if (name && strcmp(name, "NVFP4") == 0)
        r->description->kv_type = "nvfp4";
    else
        return config_fail_field(r, scheme ? "quantization_config.kv_cache_scheme" : "quantization_config.kv_cache_quant_algo",
                                 scheme ? scheme : algorithm, "a float of 8 bits, or \"FP8\" or \"NVFP4\"");
    return true;
}

static bool read_config_root(config_reader *r)
{
    if (!json_is_object(r->root))
        return config_fail(r, "the file holds %s, but must hold an object", json_is_array(r->root) ? "a list" : "a single value");
    config_show("every model", r->model_type, sizeof r->model_type);
    if (!find_text(r) || !check_sizable(r) || !read_context(r) || !read_kv_type(r))
        return false;
    bool encoder = false;
    if (!config_has_encoder(r, &encoder))
        return false;
    if (encoder ? !config_read_decoder(r) : config_find(r, "compress_ratios") ? !config_read_compressing(r) : !config_read_groups(r))
        return false;
    return check_assumed(r) && check_unknown_fields(r);
}

/* ---- the file -------------------------------------------------------------------------------------------------------------------- */

/* Python writes numbers that JSON does not have, outside strings. Strings of the same length stand for them, so that errors keep their column; a
 * field that is used must hold another type anyway. */
static void replace_names(char *text, size_t size)
{
    static const struct {
        const char *name, *string;
    } names[] = { { "-Infinity", "\"-Infin.\"" }, { "Infinity", "\"Infin.\"" }, { "NaN", "\"N\"" } };
    bool inside = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            inside = !inside;
        else if (text[i] == '\\' && inside)
            i++;
        for (size_t n = 0; n < 3 && !inside; n++) {
            const size_t length = strlen(names[n].name);
            if (size - i < length || memcmp(text + i, names[n].name, length) != 0)
                continue;
            memcpy(text + i, names[n].string, length);
            i += length - 1;
            break;
        }
    }
}

static json_t *parse(const config_reader *r, const void *bytes, size_t size)
{
    json_error_t where;
    json_t *root = NULL;
    char *text = NULL;
    if (size == 0)
        config_fail(r, "is empty: a config.json holds an object");
    else if (size > MODEL_CONFIG_BYTES)
        config_fail(r, "has %zu bytes: a config.json has at most %zu", size, MODEL_CONFIG_BYTES);
    else if (!(text = malloc(size)))
        config_fail(r, "no memory for %zu bytes", size);
    else {
        memcpy(text, bytes, size);
        replace_names(text, size);
        if (!(root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &where)))
            config_fail(r, "is not JSON: line %d, column %d: %s", where.line, where.column, where.text);
    }
    free(text);
    return root;
}

int model_read_config(const void *bytes, size_t size, model_description *description, error_text *error)
{
    config_reader r = { .description = description, .error = error, .seen = json_object() };
    json_t *root = parse(&r, bytes, size);
    r.root = root;
    const bool good = root && read_config_root(&r);
    json_decref(root);
    json_decref(r.seen);
    if (!good) {
        description_free(description);
        return -1;
    }
    description_finish(description);
    description->model.model_type = description->type;
    return 0;
}
