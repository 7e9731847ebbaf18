/* SPDX-License-Identifier: MIT */
/* libkvtile-model: a model from a file, a folder or a name, and the exact bytes of its KV cache, as kvtile or another engine stores it.
 *
 * This header belongs to a library of its own, which needs jansson and libkvtile: `pkg-config kvtile-model`, or the CMake target kvtile::model.
 * Sizes of kvtile's rows and pages come from kvt_layout_init, so that what is said here is what is allocated. docs/sizing.md has every engine's rules
 * and where they come from.
 *
 * Functions that size are pure arithmetic: they allocate nothing, and check every sum for overflow. Functions that find a model read files and
 * allocate. None prints, and none keeps state; they may run at the same time in several threads. */
#ifndef KVTILE_MODEL_H
#define KVTILE_MODEL_H

#include <kvtile/kvtile.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a cache of a layer keeps. */
typedef enum kvt_layer_kind {
    KVT_LAYER_FULL = 1,       /* rows of all tokens: grows with every token */
    KVT_LAYER_SLIDING = 2,    /* rows of the last `window` tokens */
    KVT_LAYER_LATENT = 3,     /* MLA: one row of k_dim channels per token, key and value in one; kv_heads is 1 and v_dim 0 */
    KVT_LAYER_COMPRESSED = 4, /* one row for every `tokens_per_row` tokens (DeepSeek-V4) */
    KVT_LAYER_INDEXER = 5,    /* keys that choose what a sparse attention reads; v_dim is 0 */
    KVT_LAYER_RECURRENT = 6,  /* a state of constant size per sequence */
    KVT_LAYER_NONE = 7,       /* stores nothing: reads another layer's cache, or has no attention */
    KVT_LAYER_CROSS = 8       /* cross attention: rows of an encoder's tokens, whatever the context */
} kvt_layer_kind;

/* "full", "sliding", "latent", "compressed", "indexer", "recurrent", "none", "cross"; NULL when there is no such kind. */
KVT_API const char *kvt_layer_kind_name(kvt_layer_kind kind);

/* Caches that are alike, of `count` layers. A layer with several caches (latent rows and indexer keys) counts in each of their groups. Fields
 * that a kind does not use are zero. */
typedef struct kvt_layer_group {
    kvt_layer_kind kind;
    uint32_t count;
    uint32_t draft_count;  /* further layers of this kind that only predict draft tokens (MTP); engines store them when they draft with them */
    uint32_t shared_count; /* further layers of this kind that read another layer's cache; an engine that does not know sharing stores them too */
    uint32_t kv_heads;
    uint32_t k_dim;          /* channels of one head's key row (not of all heads together) */
    uint32_t v_dim;          /* 0: key and value are one row */
    uint32_t rope_dim;       /* of k_dim, the rotary part of a row that is key and value in one; 0: there is none, or it is not known */
    uint32_t window;         /* sliding: tokens that can be attended, the current one included */
    uint32_t tokens_per_row; /* compressed: at least 2; indexer: at least 1 */
    /* latent: the heads and rows of engines that undo the compression and store keys and values of every head; 0 when not known */
    uint32_t expanded_heads;
    uint32_t expanded_k_dim;
    uint32_t expanded_v_dim;
    /* recurrent, per layer and sequence: a convolution's last conv_kernel - 1 inputs, a state matrix, or both (elements and element bytes are
     * zero together). A compressed or indexer group may have the latter: the rows that a compressor has not finished. */
    uint32_t conv_kernel;
    uint64_t conv_channels;
    uint32_t conv_element_bytes; /* as the model declares it; llama.cpp takes its own */
    uint64_t recurrent_elements;
    uint32_t recurrent_element_bytes; /* as the model declares it; llama.cpp takes its own */
    /* recurrent, for dividing a state among the ranks of tensor parallelism: the heads that the matrix and the convolution's channels belong to,
     * and the groups of keys (B and C of Mamba-2) that some of the channels belong to instead; 0 when not known */
    uint32_t state_heads;
    uint32_t state_groups;
    uint64_t state_group_channels; /* of all groups together, a part of conv_channels */
} kvt_layer_group;

/* What a model declares. What an engine makes of it is the engine's affair: it is looked up by model_type or architecture. */
typedef struct kvt_model {
    const char *name;
    uint64_t max_context; /* tokens; 0 = unknown */
    size_t n_groups;
    const kvt_layer_group *groups;
    const char *model_type;   /* config.json's, of the language model and without "_text": "gemma3"; NULL: not known */
    const char *architecture; /* a GGUF file's general.architecture; NULL: not known */
    const char *kv_type;      /* what the checkpoint asks engines to store keys and values in, in vLLM's words: "fp8"; NULL: nothing */
    uint64_t encoder_tokens;  /* rows of cross attention, when the model says how many: 1500 of Whisper; 0 = not known */
} kvt_model;

/* KVT_ENGINE_kvtile: what kvtile's pages allocate; KVT_ENGINE_logical: the payload alone, rows as kvtile stores them (padded to 16 channels), no
 * pages, sliding layers at exactly their window; the others: what that engine allocates. */
typedef enum kvt_engine {
    KVT_ENGINE_NONE = 0,
#define KVT_ENGINE_ROW(name, number, title) KVT_ENGINE_##name = number,
#include <kvtile/engines.def>
#undef KVT_ENGINE_ROW
} kvt_engine;

/* The engines in the order in which they are best listed; KVT_ENGINE_NONE past the end. */
KVT_API kvt_engine kvt_engine_at(size_t index);

/* "kvtile", "llama.cpp" ...: the last column of engines.def; NULL when there is no such engine. */
KVT_API const char *kvt_engine_name(kvt_engine engine);

/* The engine, its version and its rule, in one line; NULL when there is no such engine. */
KVT_API const char *kvt_engine_title(kvt_engine engine);

/* Whether it is known what the engine does with models of this model's type. False: it is sized as if the engine did what the model declares. */
KVT_API bool kvt_engine_knows(kvt_engine engine, const kvt_model *model);

/* The names of the types that the engine can store keys and values in, the usual one first; NULL past the end. "f16" and "bf16" are names of
 * every engine; the others are its own. */
KVT_API const char *kvt_engine_type_at(kvt_engine engine, size_t index);

typedef struct kvt_size_request {
    size_t size; /* sizeof(kvt_size_request); an older program's is smaller, and options that it lacks count as 0 */
    kvt_engine engine;
    const char *k_type; /* a name of kvt_engine_type_at; NULL: f16 */
    const char *v_type;
    uint64_t context;   /* tokens of each sequence. llama.cpp: its --ctx-size, which the sequences share */
    uint64_t sequences; /* at least 1 */
    /* Options of engines: 0 is the engine's default, and anything else an error where the engine has no such option. */
    kvt_side_options k_options; /* kvtile and logical: centres and the scales of FP8 take bytes; centres belong to pages, so logical has none */
    kvt_side_options v_options;
    const char *rope_type;  /* kvtile and logical: of rotary parts, whose options are plain; NULL: rows are stored whole, as k_type says */
    uint32_t batch_tokens;  /* tokens that one step adds, for which sliding layers keep room. llama.cpp: --ubatch-size (512); vllm:
                               max_num_batched_tokens, mlx: prefill_step_size (1 for both: what is held while decoding) */
    uint32_t block_tokens;  /* vllm: --block-size (16) */
    uint32_t draft_tokens;  /* llama.cpp: tokens drafted by the model's own MTP layers (0: none) */
    uint64_t shared_prefix; /* kvtile, logical and vllm: the first tokens, which all sequences have in common and whose whole pages are stored once */
    uint64_t encoder_tokens; /* of cross attention; 0: as many as the model says. All engines */
    bool separate_streams;   /* llama.cpp: --no-kv-unified: every sequence has its part of the context for itself */
    bool swa_full;           /* llama.cpp: --swa-full: sliding layers keep the whole context */
    bool no_flash_attention; /* llama.cpp: --flash-attn off */
    bool static_cache;       /* transformers: StaticCache of `context` tokens, and not DynamicCache */
} kvt_size_request;

/* One layer group. The bytes of its parts add up to `bytes`, of all layers and all sequences. */
typedef struct kvt_group_size {
    kvt_layer_kind kind; /* of the cache that the engine makes of it, as are the next four: "full" where it does not know windows, or MLA */
    uint32_t kv_heads;
    uint32_t k_dim;
    uint32_t v_dim;
    uint32_t window;
    uint64_t layers;          /* that are stored: count, and draft_count where the engine drafts */
    uint64_t bytes_per_token; /* a row of each of the layers; one row stands for `tokens_per_row` tokens in compressed and indexer groups */
    uint64_t rows;            /* of each layer, that all sequences together make use of: the context, or what the windows hold */
    uint64_t allocated_rows;  /* of each layer */
    uint64_t payload_bytes;   /* codes of `rows` */
    uint64_t scale_bytes;     /* scales of `rows` */
    uint64_t padding_bytes;   /* in and between rows and pages, and of layers that exist only to fill a group */
    uint64_t rounding_bytes;  /* rows that are allocated and not used at this context */
    uint64_t state_bytes;
    uint64_t bytes;
} kvt_group_size;

typedef struct kvt_size_report {
    uint64_t growing_bytes;          /* what each further growing_tokens tokens of context cost, for ever */
    uint64_t growing_tokens;         /* 1, unless layers store one row for several tokens or an engine's page is not a multiple: lowest terms */
    uint64_t window_bytes_per_token; /* what each further token costs until the window is full */
    uint64_t state_bytes_per_sequence;
    /* These seven add up to total_bytes: the parts of groups that grow, then all of the sliding groups, all state, all of cross attention. */
    uint64_t payload_bytes;
    uint64_t scale_bytes;
    uint64_t padding_bytes;
    uint64_t rounding_bytes;
    uint64_t window_bytes;
    uint64_t state_bytes;
    uint64_t cross_bytes;
    uint64_t total_bytes; /* of all sequences at the context */
} kvt_size_report;

/* Sizes a model. `groups`, when not NULL, has room for model->n_groups results. Errors: NULL, STRUCT_SIZE, SCHEME (the engine has no type of
 * that name), DIM, HEADS, RANGE (engine unknown, or sequences 0), OVERFLOW, MODEL (no groups, a field that the kind needs is zero, or one that
 * it does not use is not), ENGINE (the engine cannot store this: kvt_size_problem says why). Nothing is written then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_size(const kvt_model *model, const kvt_size_request *request, kvt_size_report *report, kvt_group_size *groups);

/* Why kvt_size returns KVT_ERR_ENGINE, as a sentence that names the option or type; NULL when it returns something else. */
KVT_API const char *kvt_size_problem(const kvt_model *model, const kvt_size_request *request);

/* The largest context, up to UINT64_MAX, whose total is at most `budget` bytes; request->context does not matter. Errors: those of kvt_size, and
 * BUDGET when not even context 0 fits. */
KVT_API KVT_MUST_CHECK kvt_status kvt_size_longest_context(const kvt_model *model, const kvt_size_request *request, uint64_t budget,
                                                           uint64_t *context);

/* The largest number of sequences of request->context tokens whose total is at most `budget` bytes; request->sequences does not matter. Errors: those
 * of kvt_size, RANGE with separate_streams (more streams only divide the same context), and BUDGET when not even one fits. */
KVT_API KVT_MUST_CHECK kvt_status kvt_size_most_sequences(const kvt_model *model, const kvt_size_request *request, uint64_t budget,
                                                          uint64_t *sequences);

/* ---- the catalogue --------------------------------------------------------------------------------------------------------------- */

/* The built-in models in order; NULL past the end. The result is static. */
KVT_API const kvt_model *kvt_catalogue_at(size_t index);

/* The built-in model of that name, letter case ignored, with or without "organisation/" before it; NULL when there is none. */
KVT_API const kvt_model *kvt_catalogue_find(const char *name);

/* ---- models from files ------------------------------------------------------------------------------------------------------------- */

/* A model that was found, in memory of the library's own. */
typedef struct kvt_model_file kvt_model_file;

#define KVT_PROBLEM_BYTES 1024 /* enough for a message about a path of usual length */

/* Finds a model. `name` is, in this order,
 *   - a config.json as it is published with a model's weights, or a GGUF file (of a split model: its first part);
 *   - a folder that holds a config.json;
 *   - a name of the catalogue.
 * Of a GGUF file only the metadata are read, whatever the size of the file. Any bytes are safe.
 *
 * `ignored` is a list of names that ends with NULL: fields of config.json that are left out where they are not understood, instead of being refused.
 * NULL: none.
 *
 * Errors: NULL (name or file); NAME (there is no such file, folder or name: the message has the nearest name); FILE (it cannot be read or is not in
 * order); MEMORY. `*file` is NULL then. Unless `problem` is NULL, the message goes there, into `room` bytes with a terminating zero: one line of
 * UTF-8 that names the file, the key, its value and what would be right. A path that is too long for the room is cut, and so is what does not fit
 * then. */
KVT_API KVT_MUST_CHECK kvt_status kvt_model_open(const char *name, const char *const *ignored, kvt_model_file **file, char *problem, size_t room);

/* What was found, for kvt_size. It lives as long as the file. NULL of NULL. */
KVT_API const kvt_model *kvt_model_get(const kvt_model_file *file);

/* Sentences for people, separated by "; ": what was taken for granted or left out. "" when all of it was understood. */
KVT_API const char *kvt_model_notes(const kvt_model_file *file);

/* NULL is allowed. */
KVT_API void kvt_model_close(kvt_model_file *file);

/* How many bytes a model's weights take: the tensors of a GGUF file (all parts of a split one), or of the safetensors files in a folder or beside a
 * config.json. Errors: NULL (path or bytes), FILE; `problem` as above. */
KVT_API KVT_MUST_CHECK kvt_status kvt_model_weights(const char *path, uint64_t *bytes, char *problem, size_t room);

#ifdef __cplusplus
}
#endif

#endif
