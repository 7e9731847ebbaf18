/* GGUF: the metadata at the front of llama.cpp's files, and the cache that llama.cpp makes of it. The bytes are laid out as ggml's docs/gguf.md says.
 * The rules are those of llama.cpp b10256: load_hparams and create_memory in src/llama-model.cpp, load_arch_hparams in src/models, and
 * src/llama-hparams.cpp, llama-kv-cache*.cpp, llama-memory-recurrent.cpp. Nothing is copied out of the bytes: entries point into them. */
#include "description.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/io/number.h"

#define MAX_KEYS      65536 /* files have about fifty */
#define MAX_KEY_BYTES 65535
#define MAX_LAYERS    65536
#define MAX_GROUPS    256                 /* of layers that are alike: files have at most five */
#define MAX_STATE_DIM ((uint32_t)1 << 20) /* recurrent layers: the product of two stays far below 2^64 */
#define MAX_NUMBER    INT32_MAX
#define NEEDED        UINT32_MAX /* instead of what a missing key means */

/* ---- the file -------------------------------------------------------------------------------------------------------------------- */

enum { TYPE_U8, TYPE_I8, TYPE_U16, TYPE_I16, TYPE_U32, TYPE_I32, TYPE_F32, TYPE_BOOL, TYPE_STRING, TYPE_LIST, TYPE_U64, TYPE_I64, TYPE_F64, N_TYPES };
static const uint8_t type_bytes[N_TYPES] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

typedef struct entry {
    const char *key; /* not terminated */
    size_t key_length;
    uint32_t type; /* of a list: its elements' */
    bool list;
    bool used;
    uint64_t count; /* elements of a list, bytes of a string */
    const uint8_t *data;
} entry;

typedef struct gguf {
    entry *entries; /* by key */
    size_t n_entries;
    char architecture[65];
    error_text *error;
} gguf;

typedef struct cursor {
    const uint8_t *at;
    uint64_t left;
} cursor;

/* NULL when fewer are left. */
static const uint8_t *take(cursor *c, uint64_t bytes)
{
    if (bytes > c->left)
        return NULL;
    const uint8_t *taken = c->at;
    c->at += bytes;
    c->left -= bytes;
    return taken;
}

static const uint8_t *take_string(cursor *c, uint64_t *length)
{
    const uint8_t *bytes = take(c, 8);
    if (!bytes)
        return NULL;
    *length = load_u64(bytes);
    return take(c, *length);
}

/* `length` bytes as people can read them: keys and strings of a file may hold anything. */
static const char *shown(const void *bytes, uint64_t length, char text[64])
{
    const size_t n = length < 60 ? (size_t)length : 60;
    memcpy(text, bytes, n);
    for (size_t i = 0; i < n; i++) {
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    }
    memcpy(text + n, length > n ? "..." : "", length > n ? 4 : 1);
    return text;
}

static bool fail_end(const gguf *file)
{
    return error_set(file->error, "the file ends inside its metadata") == 0;
}

/* Strings have no index: a list of them can only be walked. */
static bool skip_strings(cursor *c, uint64_t count)
{
    if (count > c->left / 8)
        return false;
    uint64_t length;
    for (uint64_t i = 0; i < count; i++) {
        if (!take_string(c, &length))
            return false;
    }
    return true;
}

static bool read_value(const gguf *file, cursor *c, entry *one)
{
    char key[64];
    const uint8_t *bytes = take(c, 4);
    if (!bytes)
        return fail_end(file);
    one->type = load_u32(bytes);
    one->list = one->type == TYPE_LIST;
    one->count = 1;
    if (one->list) {
        bytes = take(c, 12);
        if (!bytes)
            return fail_end(file);
        one->type = load_u32(bytes);
        one->count = load_u64(bytes + 4);
    }
    if (one->type >= N_TYPES || one->type == TYPE_LIST)
        return error_set(file->error, "%s has a value of type %" PRIu32 "%s, but must have one of 0 to 12, or a list of those but 9",
                         shown(one->key, one->key_length, key), one->type, one->list ? " in a list" : "") == 0;
    one->data = c->at;
    if (one->type != TYPE_STRING)
        return (one->count <= c->left / type_bytes[one->type] && take(c, one->count * type_bytes[one->type])) || fail_end(file);
    if (one->list)
        return skip_strings(c, one->count) || fail_end(file);
    one->data = take_string(c, &one->count);
    return one->data || fail_end(file);
}

static int compare_keys(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    const int order = memcmp(x->key, y->key, x->key_length < y->key_length ? x->key_length : y->key_length);
    return order ? order : (x->key_length > y->key_length) - (x->key_length < y->key_length);
}

static bool read_entries(gguf *file, cursor *c, uint64_t count)
{
    if (count > MAX_KEYS)
        return error_set(file->error, "the metadata has %" PRIu64 " keys, but may have %d", count, MAX_KEYS) == 0;
    if (count > c->left / 13) /* an empty key, a type, a byte */
        return fail_end(file);
    file->entries = calloc(count ? (size_t)count : 1, sizeof *file->entries);
    if (!file->entries)
        return error_set(file->error, "no memory for %" PRIu64 " keys", count) == 0;
    for (; file->n_entries < count; file->n_entries++) {
        entry *one = &file->entries[file->n_entries];
        uint64_t length;
        const uint8_t *key = take_string(c, &length);
        if (!key)
            return fail_end(file);
        if (length > MAX_KEY_BYTES)
            return error_set(file->error, "a key of the metadata has %" PRIu64 " bytes, but may have %d", length, MAX_KEY_BYTES) == 0;
        one->key = (const char *)key;
        one->key_length = (size_t)length;
        if (!read_value(file, c, one))
            return false;
    }

    qsort(file->entries, file->n_entries, sizeof *file->entries, compare_keys);
    for (size_t i = 1; i < file->n_entries; i++) {
        char key[64];
        const entry *one = &file->entries[i];
        if (compare_keys(one - 1, one) == 0)
            return error_set(file->error, "the metadata has %s twice", shown(one->key, one->key_length, key)) == 0;
    }
    return true;
}

static bool read_header(gguf *file, cursor *c)
{
    const uint8_t *bytes = take(c, 4);
    if (!bytes || memcmp(bytes, "GGUF", 4) != 0)
        return error_set(file->error, "not GGUF: it does not begin with \"GGUF\"") == 0;
    bytes = take(c, 20);
    if (!bytes)
        return fail_end(file);
    const uint32_t version = load_u32(bytes);
    if (version && (version & 0xffff) == 0)
        return error_set(file->error, "a big-endian GGUF file: only little-endian ones are read") == 0;
    if (version != 2 && version != 3)
        return error_set(file->error, "the GGUF version is %" PRIu32 ", but must be 2 or 3%s", version,
                         version == 1 ? ": convert the model again, as llama.cpp asks too" : "") == 0;
    return read_entries(file, c, load_u64(bytes + 12)); /* between them the number of tensors, which come after the metadata */
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------------ */

/* NULL when it is not there. */
static entry *find_key(const gguf *file, const char *key)
{
    const entry wanted = { .key = key, .key_length = strlen(key) };
    return bsearch(&wanted, file->entries, file->n_entries, sizeof wanted, compare_keys);
}

/* Most keys begin with the architecture's name. */
static entry *look(const gguf *file, const char *name)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", file->architecture, name);
    return find_key(file, key);
}

/* A key that is understood. */
static const entry *find(const gguf *file, const char *name)
{
    entry *found = look(file, name);
    if (found)
        found->used = true;
    return found;
}

/* A whole number; true and false are 1 and 0. */
static bool load_number(const entry *one, uint64_t index, int64_t *value)
{
    if (one->type == TYPE_F32 || one->type == TYPE_F64 || one->type == TYPE_STRING)
        return false;
    const uint32_t size = type_bytes[one->type];
    const bool is_signed = one->type == TYPE_I8 || one->type == TYPE_I16 || one->type == TYPE_I32 || one->type == TYPE_I64;
    const uint64_t sign = is_signed ? (uint64_t)1 << (8 * size - 1) : 0;
    uint64_t bits = 0;
    memcpy(&bits, one->data + index * size, size);
    bits = one->type == TYPE_BOOL ? bits != 0 : (bits ^ sign) - sign;
    memcpy(value, &bits, sizeof bits);
    return is_signed || *value >= 0;
}

static const char *value_text(const entry *one, uint64_t index, bool whole, char text[80])
{
    int64_t number;
    char string[64];
    if (one->list && whole)
        snprintf(text, 80, "a list of %" PRIu64, one->count);
    else if (one->type == TYPE_STRING)
        snprintf(text, 80, "\"%s\"", one->list ? "..." : shown(one->data, one->count, string));
    else if (one->type == TYPE_BOOL)
        snprintf(text, 80, "%s", one->data[index] ? "true" : "false");
    else if (load_number(one, index, &number))
        snprintf(text, 80, "%" PRId64, number);
    else
        snprintf(text, 80, "%s", one->type == TYPE_U64 ? "too large" : "not a whole number");
    return text;
}

/* "<key> is <value>, but must be <right>", or "<key> is missing: ..." */
static bool fail_key(const gguf *file, const char *name, const entry *one, const char *right)
{
    char text[80];
    if (!one)
        return error_set(file->error, "%s.%s is missing: sizing needs it, %s", file->architecture, name, right) == 0;
    return error_set(file->error, "%s.%s is %s, but must be %s", file->architecture, name, value_text(one, 0, true, text), right) == 0;
}

/* One number; `missing` is what it is when the key is not there. */
static bool get(const gguf *file, const char *name, uint32_t low, uint32_t high, uint32_t missing, uint32_t *result)
{
    const entry *one = find(file, name);
    int64_t value;
    if (!one && missing != NEEDED) {
        *result = missing;
        return true;
    }
    if (!one || one->list || one->type == TYPE_BOOL || !load_number(one, 0, &value) || value < low || value > high) {
        char right[80];
        snprintf(right, sizeof right, "a whole number from %" PRIu32 " to %" PRIu32, low, high);
        return fail_key(file, name, one, right);
    }
    *result = (uint32_t)value;
    return true;
}

/* ---- what the architecture's name says ------------------------------------------------------------------------------------------- */

enum { EVERY_LAYER = 254, LISTED = 255 };                                                                /* instead of a period */
typedef enum state_rule { NO_STATE, BY_HEADS, BY_HEADS_AND_MLP, BY_INTERVAL, BESIDE, ALONE } state_rule; /* which layers are recurrent */
typedef enum state_keys { SSM, SSM_WITHOUT_GROUPS, SHORT_CONVOLUTION, KDA } state_keys;

/* What llama.cpp knows by name and files do not always say. All that follow from keys alone need no row. */
typedef struct architecture {
    const char *name;
    uint8_t period;          /* of its layers all but the last of each period slide: set_swa_pattern */
    bool dense_first;        /* all but the first of each period slide */
    uint32_t window;         /* when the key is missing: this, or an error (NEEDED), or no window (0) */
    uint32_t fixed_window;   /* instead of what the key says, unless that is 0 */
    uint32_t sliding_layers; /* only models of as many layers slide */
    uint32_t storing_layers; /* when attention.shared_kv_layers is missing: the first layers that store */
    state_rule states;
    state_keys state_keys;
    bool mtp_stored;      /* MTP layers are stored like any other */
    bool mtp_full;        /* they never slide */
    bool indexers_shared; /* long models without a list: only some layers have an indexer of their own */
    bool indexers_sparse; /* not in the leading dense layers */
    bool compressed;      /* DeepSeek-V4 */
} architecture;

/* clang-format off */
static const architecture architectures[] = {
    { "afmoe", .period = 4 },
    { "bailingmoe2", .mtp_stored = true },
    { "cohere2", .period = 4, .window = NEEDED },
    { "cohere2moe", .period = 4, .dense_first = true, .window = NEEDED, .mtp_stored = true, .mtp_full = true },
    { "deepseek2", .mtp_stored = true },
    { "deepseek4", .period = EVERY_LAYER, .window = NEEDED, .compressed = true },
    { "exaone-moe", .period = 4, .window = NEEDED, .mtp_stored = true },
    { "exaone4", .period = 4, .window = 4096, .sliding_layers = 64, .mtp_stored = true },
    { "falcon-h1", .states = BESIDE },
    { "gemma2", .period = 2, .window = 4096 },
    { "gemma3", .period = 6 },
    { "gemma3n", .period = 5, .window = NEEDED, .storing_layers = 20 },
    { "gemma4", .period = LISTED, .window = NEEDED },
    { "glm-dsa", .indexers_shared = true },
    { "glm4", .mtp_stored = true },
    { "glm4moe", .mtp_stored = true },
    { "gpt-oss", .period = 2, .window = NEEDED },
    { "granitehybrid", .states = BY_HEADS },
    { "jamba", .states = BY_HEADS, .state_keys = SSM_WITHOUT_GROUPS },
    { "kimi-linear", .states = BY_HEADS, .state_keys = KDA },
    { "laguna", .period = 4, .dense_first = true },
    { "lfm2", .period = EVERY_LAYER, .states = BY_HEADS, .state_keys = SHORT_CONVOLUTION },
    { "lfm2moe", .states = BY_HEADS, .state_keys = SHORT_CONVOLUTION },
    { "llama4", .period = 4, .window = 8192, .fixed_window = 8192 }, /* chunks */
    { "mamba", .states = ALONE, .state_keys = SSM_WITHOUT_GROUPS },
    { "mamba2", .states = ALONE },
    { "mellum", .period = 4 },
    { "mimo2", .period = LISTED, .window = NEEDED },
    { "minimax-m3", .indexers_sparse = true },
    { "mistral4", .mtp_stored = true },
    { "nemotron_h", .states = BY_HEADS_AND_MLP },
    { "nemotron_h_moe", .states = BY_HEADS_AND_MLP },
    { "olmo2", .period = 4 },
    { "plamo2", .states = BY_HEADS },
    { "plamo3", .period = 8 },
    { "qwen35", .states = BY_INTERVAL },
    { "qwen35moe", .states = BY_INTERVAL },
    { "qwen3next", .states = BY_INTERVAL },
    { "smallthinker", .period = 4, .dense_first = true, .fixed_window = 4096 },
    { "step35", .period = LISTED, .window = NEEDED },
};
/* clang-format on */

/* clang-format off */
/* Encoders, diffusion models and parts of models: create_memory gives them no cache, or another model's. */
static const char *const cacheless[] = {
    "bert", "clip", "dream", "eurobert", "gemma-embedding", "gemma4-assistant", "jina-bert-v2", "jina-bert-v3", "llada", "llada-moe",
    "modern-bert", "neo-bert", "nomic-bert", "nomic-bert-moe", "rnd1", "wavtokenizer-dec",
};
/* clang-format on */

static const architecture *find_architecture(const char *name)
{
    static const architecture other = { 0 };
    for (size_t i = 0; i < sizeof architectures / sizeof architectures[0]; i++) {
        if (strcmp(architectures[i].name, name) == 0)
            return &architectures[i];
    }
    return &other;
}

/* ---- layers ---------------------------------------------------------------------------------------------------------------------- */

typedef struct model {
    gguf file;
    const architecture *known;
    state_rule states;
    uint32_t blocks;  /* that the file has, MTP layers included: as many as entries in a list of layers */
    uint32_t layers;  /* blocks, or more of them when they are passed through several times */
    uint32_t mtp;     /* the last blocks */
    uint32_t storing; /* of the layers, the first that have a cache of their own */
    uint32_t window;  /* 0: no layer slides */
    uint32_t period;
    uint32_t interval; /* every interval-th layer is not recurrent */
    bool dense_first, latent;
    uint32_t k_dim, v_dim, k_dim_sliding, v_dim_sliding;
    uint32_t rope_dim;                       /* of rows that are key and value in one */
    uint32_t expanded_k_dim, expanded_v_dim; /* latent */
    uint32_t index_dim;                      /* 0: no indexers */
    uint32_t dense_layers;                   /* the first, which have none */
    uint64_t context;
    /* Of one number for all layers, or a list; NULL when the key is not there. */
    const entry *heads, *kv_heads, *mlp, *sliding, *recurrent, *indexers, *ratios;
    kvt_layer_group state;
} model;

/* Checks a number for all layers, or a list with one for each: of all blocks, or of those that are not MTP layers. */
static bool get_layers(const model *m, const char *name, uint32_t high, const entry **result)
{
    const entry *one = find(&m->file, name);
    char right[100];
    *result = one;
    if (!one)
        return true;
    snprintf(right, sizeof right, "whole numbers up to %" PRIu32 ", one or a list of %" PRIu32, high, m->blocks);
    if (one->list && one->count != m->blocks && one->count != m->blocks - m->mtp)
        return fail_key(&m->file, name, one, right);
    for (uint64_t i = 0; i < (one->list ? one->count : 1); i++) {
        int64_t value;
        char text[80];
        if ((one->type != TYPE_BOOL || high == 1) && load_number(one, i, &value) && value >= 0 && value <= high)
            continue;
        if (!one->list)
            return fail_key(&m->file, name, one, right);
        return error_set(m->file.error, "%s.%s[%" PRIu64 "] is %s, but must be a whole number up to %" PRIu32, m->file.architecture, name, i,
                         value_text(one, i, false, text), high) == 0;
    }
    return true;
}

/* Of layer i; 0 when the list ends before it. */
static uint32_t at(const model *m, const entry *one, uint32_t i)
{
    int64_t value = 0;
    const uint32_t index = one->list ? i % m->blocks : 0;
    if (!one->list || index < one->count)
        load_number(one, index, &value);
    return (uint32_t)value;
}

static bool is_mtp(const model *m, uint32_t i)
{
    return i >= m->layers - m->mtp;
}

static bool slides(const model *m, uint32_t i)
{
    if (m->window == 0)
        return false;
    if (m->sliding)
        return at(m, m->sliding, i) != 0;
    if (m->known->mtp_full && is_mtp(m, i))
        return false;
    return m->period == 0 || i % m->period != (m->dense_first ? 0 : m->period - 1);
}

static bool is_recurrent(const model *m, uint32_t i)
{
    switch (m->states) {
    case NO_STATE:
        return false;
    case BY_HEADS:
        return at(m, m->kv_heads, i) == 0;
    case BY_HEADS_AND_MLP:
        return at(m, m->kv_heads, i) == 0 && (!m->mlp || at(m, m->mlp, i) == 0);
    case BY_INTERVAL:
        return !is_mtp(m, i) && (m->recurrent ? at(m, m->recurrent, i) != 0 : (i + 1) % m->interval != 0);
    case BESIDE:
    case ALONE:
        break;
    }
    return true;
}

static bool has_attention(const model *m, uint32_t i)
{
    if (m->states == ALONE || i >= m->storing || at(m, m->kv_heads, i) == 0)
        return false;
    if (m->states == BY_HEADS_AND_MLP) /* an MTP layer has both in one block */
        return !m->mlp || at(m, m->mlp, i) == 0 || is_mtp(m, i);
    return m->states == BESIDE || !is_recurrent(m, i);
}

static bool has_indexer(const model *m, uint32_t i)
{
    if (m->index_dim == 0 || i < m->dense_layers)
        return false;
    if (m->indexers)
        return is_mtp(m, i) || at(m, m->indexers, i) != 0;
    return !m->known->indexers_shared || m->context < 1u << 20 || is_mtp(m, i) || i < 2 || i % 4 == 2;
}

/* ---- keys of a model ------------------------------------------------------------------------------------------------------------- */

static bool get_counts(model *m)
{
    const gguf *file = &m->file;
    uint32_t context, loops, shared;
    if (!get(file, "context_length", 0, MAX_NUMBER, 0, &context) || !get(file, "block_count", 1, MAX_LAYERS, NEEDED, &m->blocks) ||
        !get(file, "nextn_predict_layers", 0, m->blocks - 1, 0, &m->mtp) || !get(file, "num_loops", 1, MAX_LAYERS / m->blocks, 1, &loops))
        return false;
    m->context = context;
    m->layers = m->blocks * loops;
    const uint32_t storing = m->known->storing_layers;
    if (!get(file, "attention.shared_kv_layers", 0, m->layers, storing && storing < m->layers ? m->layers - storing : 0, &shared))
        return false;
    m->storing = m->layers - shared;
    return true;
}

/* Which layers are recurrent, and what those keep. */
static bool get_state(model *m)
{
    const gguf *file = &m->file;
    kvt_layer_group *state = &m->state;
    uint32_t kernel = 0, inner, size, groups = 0, heads;
    m->states = m->known->states;
    if (!m->known->name && look(file, "ssm.inner_size") && (look(file, "full_attention_interval") || look(file, "attention.recurrent_layers")))
        m->states = BY_INTERVAL;
    if (m->states == NO_STATE)
        return true;
    if (m->states == BY_INTERVAL &&
        (!get_layers(m, "attention.recurrent_layers", 1, &m->recurrent) || !get(file, "full_attention_interval", 1, MAX_LAYERS, 4, &m->interval)))
        return false;
    if (m->states == BY_HEADS_AND_MLP && !get_layers(m, "feed_forward_length", MAX_NUMBER, &m->mlp))
        return false;

    state->kind = KVT_LAYER_RECURRENT;
    state->conv_element_bytes = 2; /* of the model: bfloat16, with a float32 state; llama.cpp has both in float32 */
    state->recurrent_element_bytes = 4;
    switch (m->known->state_keys) {
    case SSM:
    case SSM_WITHOUT_GROUPS:
        if (!get(file, "ssm.conv_kernel", 1, MAX_STATE_DIM, NEEDED, &kernel) || !get(file, "ssm.inner_size", 1, MAX_STATE_DIM, NEEDED, &inner) ||
            !get(file, "ssm.state_size", 1, MAX_STATE_DIM, NEEDED, &size))
            return false;
        if (m->known->state_keys == SSM && !get(file, "ssm.group_count", 0, MAX_STATE_DIM, NEEDED, &groups))
            return false;
        state->conv_channels = inner + 2 * (uint64_t)groups * size;
        state->recurrent_elements = (uint64_t)size * inner;
        break;
    case SHORT_CONVOLUTION:
        if (!get(file, "shortconv.l_cache", 1, MAX_STATE_DIM, NEEDED, &kernel) || !get(file, "embedding_length", 1, MAX_STATE_DIM, NEEDED, &inner))
            return false;
        state->conv_channels = inner;
        state->recurrent_element_bytes = 0;
        break;
    case KDA: /* a convolution each for queries, keys and values */
        heads = m->heads ? at(m, m->heads, 0) : 0;
        if (heads == 0)
            return fail_key(file, "attention.head_count", m->heads, "the heads of the first layer, more than 0");
        if (!get(file, "ssm.conv_kernel", 1, MAX_STATE_DIM, NEEDED, &kernel) || !get(file, "kda.head_dim", 1, MAX_STATE_DIM, NEEDED, &size))
            return false;
        state->conv_channels = 3 * (uint64_t)heads * size;
        state->recurrent_elements = (uint64_t)heads * size * size;
        break;
    }
    state->conv_kernel = kernel;
    return true;
}

static bool get_dim(const model *m, const char *name, uint32_t missing, uint32_t *result)
{
    if (missing >= 1 && missing <= KVT_MAX_DIM)
        return get(&m->file, name, 1, KVT_MAX_DIM, missing, result);
    return get(&m->file, name, 1, KVT_MAX_DIM, NEEDED, result);
}

static bool get_dims(model *m)
{
    uint32_t width;
    if (!get(&m->file, "embedding_length", 0, MAX_NUMBER, 0, &width))
        return false;
    const entry *expanded_k = find(&m->file, "attention.key_length_mla"), *expanded_v = find(&m->file, "attention.value_length_mla");
    m->latent = expanded_k || expanded_v; /* without them keys and values of every head are stored */
    if (m->latent &&
        (!get_dim(m, "attention.key_length_mla", 0, &m->expanded_k_dim) || !get_dim(m, "attention.value_length_mla", 0, &m->expanded_v_dim)))
        return false;

    const uint32_t heads = m->heads ? at(m, m->heads, 0) : 0;
    const uint32_t head = heads && !m->latent ? width / heads : 0;
    const bool only_k = m->latent || m->known->compressed;
    if (!get_dim(m, "attention.key_length", head, &m->k_dim) || !get_dim(m, "attention.key_length_swa", m->k_dim, &m->k_dim_sliding))
        return false;
    if (only_k && (!get(&m->file, "rope.dimension_count", 0, MAX_NUMBER, 0, &m->rope_dim) || m->rope_dim >= m->k_dim))
        m->rope_dim = 0; /* then it is not known */
    find(&m->file, "attention.value_length");
    find(&m->file, "attention.value_length_swa");
    return only_k || (get_dim(m, "attention.value_length", head, &m->v_dim) && get_dim(m, "attention.value_length_swa", m->v_dim, &m->v_dim_sliding));
}

/* Which layers slide, and how far. */
static bool get_window(model *m, model_description *description)
{
    static const char window[] = "attention.sliding_window", pattern[] = "attention.sliding_window_pattern";
    const architecture *known = m->known;
    const entry *listed = find(&m->file, pattern);
    const bool understood = known->period || listed;
    if (!get(&m->file, window, 0, MAX_NUMBER, understood ? known->window : 0, &m->window))
        return false;
    if (m->window == 0)
        return true;
    if (known->fixed_window)
        m->window = known->fixed_window;
    if (known->sliding_layers && m->blocks != known->sliding_layers)
        m->window = 0;
    if (!understood) {
        description_note(description, "%s.%s is %" PRIu32 ", but not which layers it is for: they are sized as full, as llama.cpp does",
                         m->file.architecture, window, m->window);
        m->window = 0;
    }
    if (m->window == 0)
        return true;

    m->period = known->period == EVERY_LAYER ? 0 : known->period;
    m->dense_first = known->dense_first;
    if (known->period == LISTED && (!listed || !listed->list))
        return fail_key(&m->file, pattern, listed, "a list that says of each layer whether it slides");
    if (listed && listed->list)
        return get_layers(m, pattern, 1, &m->sliding);
    return get(&m->file, pattern, 0, MAX_LAYERS, m->period, &m->period);
}

static bool get_indexer(model *m)
{
    if (!find(&m->file, "attention.indexer.key_length"))
        return true;
    return get_dim(m, "attention.indexer.key_length", 0, &m->index_dim) && get_layers(m, "attention.indexer.types", 1, &m->indexers) &&
           (!m->known->indexers_sparse || get(&m->file, "leading_dense_block_count", 0, m->blocks, 0, &m->dense_layers));
}

/* DeepSeek-V4: for every layer how many tokens a compressed row stands for, 0 when there are none. The list also has MTP layers that the file
 * may not have. */
static bool get_ratios(model *m)
{
    static const char name[] = "attention.compress_ratios", right[] = "a list that has 0, 4 or 128 for each layer";
    m->ratios = find(&m->file, name);
    if (!m->ratios || !m->ratios->list || m->ratios->count < m->blocks)
        return fail_key(&m->file, name, m->ratios, right);
    for (uint32_t i = 0; i < m->blocks; i++) {
        int64_t ratio;
        if (!load_number(m->ratios, i, &ratio) || (ratio != 0 && ratio != 4 && ratio != 128))
            return fail_key(&m->file, name, m->ratios, right);
    }
    if (m->index_dim == 0)
        return fail_key(&m->file, "attention.indexer.key_length", NULL, "the channels of an indexer's key");
    return true;
}

static bool get_heads(model *m)
{
    if (!get_layers(m, "attention.head_count", KVT_MAX_HEADS, &m->heads) || !get_layers(m, "attention.head_count_kv", KVT_MAX_HEADS, &m->kv_heads))
        return false;
    if (!m->kv_heads)
        m->kv_heads = m->heads;
    if (!m->kv_heads && m->known->states != ALONE)
        return fail_key(&m->file, "attention.head_count", NULL, "the heads of each layer");
    return true;
}

/* ---- groups ---------------------------------------------------------------------------------------------------------------------- */

static bool add(const model *m, model_description *description, uint32_t i, kvt_layer_group one)
{
    const bool draft = is_mtp(m, i) && !m->known->mtp_stored;
    one.count = !draft;
    one.draft_count = draft;
    if (description_add(description, &one, m->file.error) != 0)
        return false;
    return description->n_groups <= MAX_GROUPS || error_set(m->file.error, "the layers are of more than %d kinds", MAX_GROUPS) == 0;
}

static bool add_attention(const model *m, model_description *description, uint32_t i)
{
    const bool sliding = slides(m, i), latent = m->latent && !sliding;
    kvt_layer_group one = {
        .kind = sliding  ? KVT_LAYER_SLIDING
                : latent ? KVT_LAYER_LATENT
                         : KVT_LAYER_FULL,
        .kv_heads = at(m, m->kv_heads, i),
        .k_dim = sliding ? m->k_dim_sliding : m->k_dim,
        .v_dim = sliding ? m->v_dim_sliding : m->v_dim,
        .rope_dim = m->rope_dim,
        .window = sliding ? m->window : 0,
    };
    if (latent) {
        one.expanded_heads = m->heads ? at(m, m->heads, i) : 0;
        one.expanded_k_dim = one.expanded_heads ? m->expanded_k_dim : 0;
        one.expanded_v_dim = one.expanded_heads ? m->expanded_v_dim : 0;
        if (one.kv_heads != 1)
            return fail_key(&m->file, "attention.head_count_kv", find(&m->file, "attention.head_count_kv"),
                            "1 where attention.key_length_mla says that rows are latent");
    }
    return add(m, description, i, one);
}

static bool add_indexer(const model *m, model_description *description, uint32_t i, uint32_t tokens_per_row)
{
    /* What a compressor of DeepSeek-V4 has not made a row of: keys and scores of twice the tokens, twice as wide. */
    const uint64_t unfinished = tokens_per_row > 1 ? 2 * 2 * 2 * (uint64_t)tokens_per_row * m->index_dim : 0;
    return add(m, description, i,
               (kvt_layer_group){ .kind = KVT_LAYER_INDEXER,
                                  .kv_heads = 1,
                                  .k_dim = m->index_dim,
                                  .tokens_per_row = tokens_per_row,
                                  .recurrent_elements = unfinished,
                                  .recurrent_element_bytes = unfinished ? 4 : 0 });
}

/* DeepSeek-V4: rows that are key and value in one, of a window and of several tokens each. At 4 tokens a row overlaps the one before. */
static bool add_compressed(const model *m, model_description *description, uint32_t i)
{
    const uint32_t ratio = is_mtp(m, i) ? 0 : at(m, m->ratios, i);
    const kvt_layer_group one = { .kind = KVT_LAYER_COMPRESSED,
                                  .kv_heads = 1,
                                  .k_dim = m->k_dim,
                                  .rope_dim = m->rope_dim,
                                  .tokens_per_row = ratio,
                                  .recurrent_elements = (ratio == 4 ? 8 : 2) * (uint64_t)ratio * m->k_dim,
                                  .recurrent_element_bytes = 4 };
    return add_attention(m, description, i) && (ratio == 0 || add(m, description, i, one)) && (ratio != 4 || add_indexer(m, description, i, ratio));
}

static bool add_layer(const model *m, model_description *description, uint32_t i)
{
    const bool state = is_recurrent(m, i), attention = has_attention(m, i);
    if (!state && !attention)
        return add(m, description, i, (kvt_layer_group){ .kind = KVT_LAYER_NONE });
    if (m->known->compressed)
        return add_compressed(m, description, i);
    if (state && !add(m, description, i, m->state))
        return false;
    return !attention || (add_attention(m, description, i) && (!has_indexer(m, i) || add_indexer(m, description, i, 1)));
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------- */

/* Keys of the architecture that nobody asked for, and that sound as if they were about the cache. */
static void note_unknown(const gguf *file, model_description *description)
{
    /* clang-format off */
    static const char *const words[] = {
        "cache", "compress", "indexer", "interval", "kda", "kv", "lora_rank", "loop", "mla", "recurrent", "shared", "shortconv", "sliding", "ssm",
        "state", "swa", "window",
    };
    static const char *const harmless[] = {
        "attention.compress_rope_freq_base", "attention.indexer.block_size", "attention.indexer.head_count", "attention.indexer.local_blocks",
        "attention.indexer.top_k", "attention.kv_lora_rank", "attention.output_lora_rank", "attention.q_lora_rank", "expert_shared_count",
        "expert_shared_feed_forward_length", "rope.dimension_count_swa", "rope.freq_base_swa", "skip_loop_final_norm", "ssm.dt_b_c_rms",
        "ssm.time_step_rank",
    };
    /* clang-format on */
    const size_t prefix = strlen(file->architecture);
    for (size_t i = 0; i < file->n_entries; i++) {
        const entry *one = &file->entries[i];
        char key[64];
        if (one->used || one->key_length <= prefix + 1 || memcmp(one->key, file->architecture, prefix) != 0 || one->key[prefix] != '.')
            continue;
        const char *name = shown(one->key + prefix + 1, one->key_length - prefix - 1, key);
        bool sounds = false;
        for (size_t w = 0; w < sizeof words / sizeof words[0]; w++)
            sounds |= strstr(name, words[w]) != NULL;
        for (size_t h = 0; h < sizeof harmless / sizeof harmless[0]; h++)
            sounds &= strcmp(name, harmless[h]) != 0;
        if (sounds)
            description_note(description, "%s.%s is not understood and left out", file->architecture, name);
    }
}

/* general.architecture, and whether such models can be sized at all. */
static bool get_architecture(gguf *file)
{
    static const char name[] = "general.architecture";
    const entry *one = find_key(file, name), *part = find_key(file, "split.no");
    int64_t number = 0;
    char text[80];
    if (part && !part->list)
        load_number(part, 0, &number);
    if (one && one->type == TYPE_STRING && !one->list && one->count > 0 && one->count < sizeof file->architecture)
        snprintf(file->architecture, sizeof file->architecture, "%.*s", (int)one->count, (const char *)one->data);
    if (number > 0 && !look(file, "block_count"))
        return error_set(file->error, "split.no is %" PRId64 ": only the first part of a split model says what it is", number) == 0;
    if (!one)
        return error_set(file->error, "%s is missing: without it the other keys have no names", name) == 0;
    if (!*file->architecture || strlen(file->architecture) != one->count)
        return error_set(file->error, "%s is %s, but must be a name of 1 to 64 characters", name, value_text(one, 0, true, text)) == 0;
    for (const char *c = file->architecture; *c; c++) {
        if (*c <= ' ' || *c > '~')
            return error_set(file->error, "%s is %s, but must be of plain characters", name, value_text(one, 0, true, text)) == 0;
    }
    if (strstr(file->architecture, "rwkv") || look(file, "wkv.head_size"))
        return error_set(file->error, "%s is \"%s\": the state of RWKV models cannot be sized yet", name, file->architecture) == 0;
    for (size_t i = 0; i < sizeof cacheless / sizeof cacheless[0]; i++) {
        if (strcmp(file->architecture, cacheless[i]) == 0)
            return error_set(file->error, "%s is \"%s\": such models have no cache of their own", name, cacheless[i]) == 0;
    }
    return true;
}

static bool describe(model *m, model_description *description)
{
    m->known = find_architecture(m->file.architecture);
    if (!get_counts(m) || !get_heads(m) || !get_state(m))
        return false;
    if (m->states != ALONE && (!get_dims(m) || !get_window(m, description) || !get_indexer(m)))
        return false;
    if (m->known->compressed && !get_ratios(m))
        return false;
    for (uint32_t i = 0; i < m->layers; i++) {
        if (!add_layer(m, description, i))
            return false;
    }
    note_unknown(&m->file, description);
    description->model.max_context = m->context;
    description_finish(description);
    return true;
}

int model_read_gguf(const void *bytes, size_t size, model_description *description, error_text *error)
{
    model m = { .file.error = error };
    cursor c = { bytes, size };
    const bool good = read_header(&m.file, &c) && get_architecture(&m.file) && describe(&m, description);
    free(m.file.entries);
    if (!good)
        description_free(description);
    return good ? 0 : -1;
}
