/* SPDX-License-Identifier: MIT */
/* The small engine: hostile files, the tokenizer against its definition, and perplexities that only a right forward pass gives. */
#define _GNU_SOURCE /* memmem */
#include "tests/lib/support.h"

#include "tools/engine/forward.h"
#include "tools/engine/pass.h"
#include "tools/engine/sample.h"
#include "tools/engine/stress.h"
#include "tools/engine/tokenizer.h"
#include "tools/files/number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char path[64];

static const char *temporary(void)
{
    snprintf(path, sizeof path, "/tmp/kvtile_engine_%ld", (long)getpid());
    return path;
}

static void save(const void *bytes, size_t n)
{
    FILE *file = fopen(temporary(), "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

/* ---- checkpoints ---- */

/* dim, ffn, layers, heads, kv heads, vocabulary, context */
static const int32_t TINY[7] = { 8, 6, 2, 2, 1, 5, 3 };
/* embedding; per layer rms_att, wq, wk and wv, wo, rms_ffn, w1 w2 w3; rms_final */
enum { TINY_WEIGHTS = 5 * 8 + 2 * (8 + 64 + 2 * 32 + 64 + 8 + 3 * 48) + 8, TINY_ROPE = 3 * 4, TINY_CLASSIFIER = 5 * 8 };

static size_t make_tiny(uint8_t *out, bool own_classifier)
{
    memcpy(out, TINY, sizeof TINY);
    if (own_classifier) {
        const int32_t vocabulary = -TINY[5];
        memcpy(out + 20, &vocabulary, 4);
    }
    const size_t n = TINY_WEIGHTS + TINY_ROPE + (own_classifier ? TINY_CLASSIFIER : 0);
    for (size_t i = 0; i < n; i++) {
        const float value = (float)i / 1024; /* exact in f16, all different */
        memcpy(out + 28 + 4 * i, &value, 4);
    }
    return 28 + 4 * n;
}

START_TEST(checkpoint_forms)
{
    for (int own = 0; own < 2; own++) {
        uint8_t file[8192];
        save(file, make_tiny(file, own != 0));
        checkpoint wide;
        checkpoint half;
        error_text error = { "" };
        ck_assert_msg(checkpoint_open(&wide, temporary(), &error) == 0, "%s", error.text);
        ck_assert_uint_eq(wide.head_dim, 4);
        ck_assert_uint_eq(wide.kv_dim, 4);
        ck_assert_uint_eq(wide.vocabulary, 5);
        ck_assert(wide.own_classifier == (own != 0));
        ck_assert(wide.rms_att[0] == 40.0f / 1024);
        ck_assert(wide.rms_final[7] == (float)(TINY_WEIGHTS - 1) / 1024);
        /* The classifier comes after the RoPE tables, which are skipped. */
        ck_assert(wide.classifier[0] == (own ? (float)(TINY_WEIGHTS + TINY_ROPE) / 1024 : 0));

        ck_assert_msg(checkpoint_export_f16(&wide, temporary(), &error) == 0, "%s", error.text);
        ck_assert_msg(checkpoint_open(&half, temporary(), &error) == 0, "%s", error.text);
        ck_assert_uint_eq(half.n_weights, wide.n_weights);
        ck_assert_int_eq(memcmp(half.weights, wide.weights, half.n_weights * sizeof *half.weights), 0);
        ck_assert_int_eq(half.classifier - half.weights, wide.classifier - wide.weights);
        wide.weights[9] = 1e6f;
        ck_assert_int_eq(checkpoint_export_f16(&wide, temporary(), &error), -1);
        ck_assert_ptr_nonnull(strstr(error.text, "weight 9 is 1e+06"));
        checkpoint_close(&wide);
        checkpoint_close(&half);
    }
}
END_TEST

START_TEST(checkpoint_hostile)
{
    uint8_t file[8192];
    const size_t size = make_tiny(file, false);
    checkpoint model;
    error_text error;
    for (size_t n = 0; n < size + 8; n++) {
        if (n == size || n == 28 + 2 * TINY_WEIGHTS)
            continue;
        save(file, n);
        ck_assert_msg(checkpoint_open(&model, temporary(), &error) == -1, "%zu bytes were accepted", n);
    }
    static const struct {
        size_t field;
        int32_t value;
        const char *part;
    } cases[] = {
        { 0, 0, "dim is 0" },
        { 0, 7, "dim is 7" },
        { 0, 6, "dim is 6: an even multiple" },
        { 1, -1, "ffn is -1" },
        { 2, 0, "layers is 0" },
        { 2, 1 << 20, "bytes of weights" },
        { 3, 0, "heads is 0" },
        { 4, 0, "kv heads is 0" },
        { 4, 3, "kv heads is 3" },
        { 5, 0, "vocabulary is 0" },
        { 5, INT32_MIN, "vocabulary is -2147483648" },
        { 6, 0, "context is 0" },
        { 6, 4, "bytes of weights" },
        { 6, INT32_MAX, "context is 2147483647" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_tiny(file, false);
        memcpy(file + 4 * cases[i].field, &cases[i].value, 4);
        save(file, size);
        ck_assert_int_eq(checkpoint_open(&model, temporary(), &error), -1);
        ck_assert_msg(strstr(error.text, cases[i].part) != NULL, "'%s' does not say '%s'", error.text, cases[i].part);
    }
    /* The largest sizes that a header can state: sums stay in 64 bits. */
    static const int32_t largest[7] = { 1 << 20, 1 << 20, 1 << 20, 1, 1, -(1 << 20), 1 << 20 };
    memcpy(file, largest, sizeof largest);
    save(file, size);
    ck_assert_int_eq(checkpoint_open(&model, temporary(), &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "bytes of weights"));
}
END_TEST

/* ---- folders ---- */

static char folder[64];

static const char *in_folder(const char *name)
{
    static char file[128];
    snprintf(folder, sizeof folder, "/tmp/kvtile_engine_%ld.d", (long)getpid());
    snprintf(file, sizeof file, "%s/%s", folder, name);
    return file;
}

static void save_in_folder(const char *name, const void *bytes, size_t n)
{
    const char *file_name = in_folder(name);
    mkdir(folder, 0777);
    FILE *file = fopen(file_name, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
    ck_assert_int_eq(fclose(file), 0);
}

static const char *const FOLDER_FILES[] = { "config.json", "model.safetensors", "model.safetensors.index.json", "a.safetensors", "b.safetensors" };

static void empty_folder(void)
{
    for (size_t i = 0; i < sizeof FOLDER_FILES / sizeof *FOLDER_FILES; i++)
        remove(in_folder(FOLDER_FILES[i]));
    rmdir(folder);
}

/* A safetensors file in the making. */
typedef struct tensors {
    char header[8192];
    uint8_t data[16384];
    size_t header_bytes, bytes;
} tensors;

/* Rows of `columns` numbers, whose pairs of channels are half a head apart in the file; head_dim 0: rows stay where they are. */
static void add_tensor(tensors *to, const char *name, const char *dtype, const float *from, size_t rows, size_t columns, size_t head_dim)
{
    const size_t begin = to->bytes;
    for (size_t i = 0; i < (rows > 0 ? rows : 1) * columns; i++) {
        size_t row = i / columns;
        if (head_dim > 0)
            row = row - row % head_dim + row % head_dim % (head_dim / 2) * 2 + row % head_dim / (head_dim / 2);
        const float value = from[row * columns + i % columns];
        uint32_t bits;
        memcpy(&bits, &value, 4);
        const uint16_t half = strcmp(dtype, "F16") == 0 ? f32_to_f16(value) : (uint16_t)(bits >> 16);
        const bool wide = strcmp(dtype, "F32") == 0;
        memcpy(to->data + to->bytes, wide ? (const void *)&bits : &half, wide ? 4 : 2);
        to->bytes += wide ? 4 : 2;
        ck_assert_uint_le(to->bytes + 4, sizeof to->data);
    }
    char shape[48];
    if (rows > 0)
        snprintf(shape, sizeof shape, "%zu, %zu", rows, columns);
    else
        snprintf(shape, sizeof shape, "%zu", columns);
    to->header_bytes += (size_t)snprintf(to->header + to->header_bytes, sizeof to->header - to->header_bytes,
                                         "%s\"%s\": {\"dtype\": \"%s\", \"shape\": [%s], \"data_offsets\": [%zu, %zu]}",
                                         to->header_bytes > 0 ? ", " : "{", name, dtype, shape, begin, to->bytes);
}

static void save_tensors(tensors *saved, const char *name)
{
    uint8_t file[8 + sizeof saved->header + sizeof saved->data];
    strcpy(saved->header + saved->header_bytes++, "}");
    const uint64_t length = saved->header_bytes;
    memcpy(file, &length, 8);
    memcpy(file + 8, saved->header, saved->header_bytes);
    memcpy(file + 8 + saved->header_bytes, saved->data, saved->bytes);
    save_in_folder(name, file, 8 + saved->header_bytes + saved->bytes);
}

static void add_layer(tensors *to, const checkpoint *m, size_t layer, const char *dtype)
{
    const size_t dim = m->dim;
    const struct {
        const char *name;
        const float *from;
        size_t rows, columns, head_dim;
    } all[] = { { "input_layernorm", m->rms_att + layer * dim, 0, dim, 0 },
                { "self_attn.q_proj", m->wq + layer * dim * dim, dim, dim, m->head_dim },
                { "self_attn.k_proj", m->wk + layer * m->kv_dim * dim, m->kv_dim, dim, m->head_dim },
                { "self_attn.v_proj", m->wv + layer * m->kv_dim * dim, m->kv_dim, dim, 0 },
                { "self_attn.o_proj", m->wo + layer * dim * dim, dim, dim, 0 },
                { "post_attention_layernorm", m->rms_ffn + layer * dim, 0, dim, 0 },
                { "mlp.gate_proj", m->w1 + layer * m->ffn * dim, m->ffn, dim, 0 },
                { "mlp.down_proj", m->w2 + layer * m->ffn * dim, dim, m->ffn, 0 },
                { "mlp.up_proj", m->w3 + layer * m->ffn * dim, m->ffn, dim, 0 } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%zu.%s.weight", layer, all[i].name);
        add_tensor(to, name, dtype, all[i].from, all[i].rows, all[i].columns, all[i].head_dim);
    }
}

static const char CONFIG[] = "{\"model_type\": \"llama\", \"hidden_act\": \"silu\", \"hidden_size\": 8, \"intermediate_size\": 6, "
                             "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"vocab_size\": 5, "
                             "\"max_position_embeddings\": 3, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, \"bos_token_id\": 1, "
                             "\"eos_token_id\": [2, 3], \"tie_word_embeddings\": true}";

static void save_config(const char *from, const char *to)
{
    char text[sizeof CONFIG + 256];
    const char *at = from != NULL ? strstr(CONFIG, from) : NULL;
    ck_assert(from == NULL || at != NULL);
    const size_t before = at != NULL ? (size_t)(at - CONFIG) : sizeof CONFIG - 1;
    snprintf(text, sizeof text, "%.*s%s%s", (int)before, CONFIG, at != NULL ? to : "", at != NULL ? at + strlen(from) : "");
    save_in_folder("config.json", text, strlen(text));
}

static void open_tiny(checkpoint *model, bool own_classifier)
{
    uint8_t file[8192];
    error_text error = { "" };
    save(file, make_tiny(file, own_classifier));
    ck_assert_msg(checkpoint_open(model, temporary(), &error) == 0, "%s", error.text);
    for (size_t i = 0; i < model->n_weights; i++) /* fit bf16, too */
        model->weights[i] = (float)((i * 7919 + 13) % 255) / 128 - 1;
}

/* A model and what a folder holds of it: the same sizes, weights and frequencies. */
static void check_folder(const checkpoint *expected)
{
    checkpoint model;
    error_text error = { "" };
    ck_assert_msg(checkpoint_open(&model, folder, &error) == 0, "%s", error.text);
    ck_assert_uint_eq(model.n_weights, expected->n_weights);
    ck_assert_int_eq(memcmp(model.weights, expected->weights, model.n_weights * sizeof *model.weights), 0);
    ck_assert_int_eq(memcmp(model.frequencies, expected->frequencies, model.head_dim / 2 * sizeof *model.frequencies), 0);
    ck_assert(model.rms_epsilon == expected->rms_epsilon && model.own_classifier == expected->own_classifier);
    ck_assert(model.context == 3 && model.head_dim == 4 && model.bos == 1 && model.eos == 2);
    checkpoint_close(&model);
}

/* The same numbers as in a llama2.c checkpoint, in each format, in one file and in several, tied and not. So logits are the same, too. */
START_TEST(folder_forms)
{
    static const char *const dtypes[] = { "F32", "F16", "BF16" };
    for (size_t i = 0; i < 6; i++) {
        const bool own = i >= 3;
        tensors file = { .bytes = 0 }, first = { .bytes = 0 }, second = { .bytes = 0 };
        checkpoint tiny;
        open_tiny(&tiny, own);
        save_config(own ? "\"tie_word_embeddings\": true" : NULL, "\"tie_word_embeddings\": false");
        /* Of tied ones either name will do. */
        add_tensor(&file, i == 1 ? "lm_head.weight" : "model.embed_tokens.weight", dtypes[i % 3], tiny.embedding, 5, 8, 0);
        add_layer(&file, &tiny, 0, dtypes[i % 3]);
        add_layer(&file, &tiny, 1, dtypes[i % 3]);
        add_tensor(&file, "model.norm.weight", dtypes[i % 3], tiny.rms_final, 0, 8, 0);
        add_tensor(&file, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", tiny.rms_final, 0, 2, 0);
        if (own)
            add_tensor(&file, "lm_head.weight", dtypes[i % 3], tiny.classifier, 5, 8, 0);
        save_tensors(&file, "model.safetensors");
        check_folder(&tiny);

        remove(in_folder("model.safetensors"));
        add_tensor(&first, "model.embed_tokens.weight", "F32", tiny.embedding, 5, 8, 0);
        add_layer(&first, &tiny, 1, "BF16");
        add_layer(&second, &tiny, 0, "F16");
        add_tensor(&second, "model.norm.weight", "F32", tiny.rms_final, 0, 8, 0);
        add_tensor(&second, "lm_head.weight", "F32", tiny.classifier, 5, 8, 0);
        save_tensors(&first, "a.safetensors");
        save_tensors(&second, "b.safetensors");
        static const char index[] = "{\"weight_map\": {\"x\": \"a.safetensors\", \"y\": \"b.safetensors\", \"z\": \"a.safetensors\"}}";
        save_in_folder("model.safetensors.index.json", index, sizeof index - 1);
        check_folder(&tiny);
        checkpoint_close(&tiny);
        empty_folder();
    }
}
END_TEST

static void refuse_folder(const char *part)
{
    checkpoint model;
    error_text error = { "" };
    ck_assert_int_eq(checkpoint_open(&model, folder, &error), -1);
    ck_assert_msg(strstr(error.text, part) != NULL, "'%s' does not say '%s'", error.text, part);
}

START_TEST(folder_hostile)
{
    static const struct {
        const char *from, *to, *part;
    } configs[] = {
        { "\"llama\"", "\"qwen3\"", "config.json: model_type is \"qwen3\": \"llama\" would be right" },
        { "\"model_type\": \"llama\", ", "", "config.json: model_type is missing" },
        { "\"silu\"", "\"gelu\"", "hidden_act is \"gelu\"" },
        { "\"hidden_size\": 8", "\"hidden_size\": 0", "hidden_size is 0: a whole number from 1" },
        { "\"hidden_size\": 8", "\"hidden_size\": \"8\"", "hidden_size is \"8\"" },
        { "\"hidden_size\": 8", "\"hidden_size\": 9", "hidden_size is 9: a multiple of num_attention_heads, 2" },
        { "\"hidden_size\": 8", "\"hidden_size\": 1e300", "hidden_size is 1" },
        { "\"hidden_size\": 8", "\"hidden_size\": 6", "head_dim is 3: an even number" },
        { "\"hidden_size\": 8", "\"hidden_size\": 8, \"head_dim\": 1000000", "head_dim is 1000000" },
        { "\"hidden_size\": 8", "\"hidden_size\": 8, \"head_dim\": 6", "self_attn.q_proj.weight: shape is not [12, 8]" },
        { "\"vocab_size\": 5, ", "", "vocab_size is missing" },
        { "\"vocab_size\": 5", "\"vocab_size\": 6", "model.embed_tokens.weight: shape is not [6, 8]" },
        { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.safetensors: tensor model.layers.2.input_layernorm.weight is missing" },
        { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1",
          "tensor model.layers.1.input_layernorm.weight: a model of this architecture and 1 layers has no" },
        { "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", "num_key_value_heads is 3: a divisor" },
        { "\"num_key_value_heads\": 1", "\"num_key_value_heads\": null", "self_attn.k_proj.weight: shape is not [8, 8]" },
        { "\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false", "tensor lm_head.weight is missing, and tie_word_embeddings" },
        { "\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": -1", "rms_norm_eps is -1" },
        { "\"rope_theta\": 10000.0", "\"rope_theta\": []", "rope_theta is []" },
        { "\"rope_theta\": 10000.0", "\"rope_scaling\": {\"type\": \"yarn\"}", "rope_type is \"yarn\"" },
        { "\"rope_theta\": 10000.0", "\"rope_scaling\": {\"rope_type\": \"llama3\"}", "factor is missing" },
        { "\"rope_theta\": 10000.0", "\"attention_bias\": true", "attention_bias is true: no biases" },
        { "\"rope_theta\": 10000.0", "\"quantization_config\": {\"bits\": 4}", "quantization_config is {\"bits\":4}: weights of f32" },
        { "{\"model_type\"", "[{\"model_type\"", "config.json: is not JSON" },
    };
    tensors file = { .bytes = 0 };
    checkpoint tiny;
    open_tiny(&tiny, false);
    add_tensor(&file, "model.embed_tokens.weight", "F32", tiny.embedding, 5, 8, 0);
    add_layer(&file, &tiny, 0, "F32");
    add_layer(&file, &tiny, 1, "F32");
    add_tensor(&file, "model.norm.weight", "F32", tiny.rms_final, 0, 8, 0);
    save_config(NULL, NULL);
    save_tensors(&file, "model.safetensors");
    check_folder(&tiny);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        save_config(configs[i].from, configs[i].to);
        refuse_folder(configs[i].part);
    }
    remove(in_folder("config.json"));
    refuse_folder("config.json: cannot be opened");
    save_config(NULL, NULL);
    remove(in_folder("model.safetensors"));
    refuse_folder("model.safetensors: cannot be opened");

    /* Files that end early, in the header and behind it. */
    uint8_t *whole = malloc(32768);
    ck_assert_ptr_nonnull(whole);
    const uint64_t length = file.header_bytes;
    memcpy(whole, &length, 8);
    memcpy(whole + 8, file.header, file.header_bytes);
    memcpy(whole + 8 + file.header_bytes, file.data, file.bytes);
    for (size_t n = 1; n < 8 + file.header_bytes + file.bytes; n += 61) {
        save_in_folder("model.safetensors", whole, n);
        refuse_folder("model.safetensors: ");
    }
    free(whole);
    tensors odd = { .bytes = 0 };
    add_tensor(&odd, "model.layers.0.self_attn.q_proj.bias", "F32", tiny.rms_final, 0, 8, 0);
    save_tensors(&odd, "model.safetensors");
    refuse_folder("tensor model.layers.0.self_attn.q_proj.bias: a model of this architecture and 2 layers has no such tensor");

    /* Indices */
    remove(in_folder("model.safetensors"));
    static const char *const indices[][2] = {
        { "{}", "model.safetensors.index.json: weight_map is missing" },
        { "{\"weight_map\": {\"x\": 5}}", "the file of x is 5: a name in the same folder" },
        { "{\"weight_map\": {\"x\": \"../a\"}}", "the file of x is \"../a\": a name in the same folder" },
        { "{\"weight_map\": {\"x\": \"a.safetensors\"}}", "a.safetensors: cannot be opened" },
    };
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        save_in_folder("model.safetensors.index.json", indices[i][0], strlen(indices[i][0]));
        refuse_folder(indices[i][1]);
    }
    /* What a folder says and the f16 form cannot. */
    error_text error;
    tiny.rms_epsilon = 1e-6f;
    ck_assert_int_eq(checkpoint_export_f16(&tiny, temporary(), &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "rms_norm_eps is 1e-06"));
    checkpoint_close(&tiny);
    empty_folder();
}
END_TEST

/* Frequencies of Llama 3: above a limit as they are, below another a factor slower, and in between both, by how many turns they make. */
START_TEST(long_contexts)
{
    static const struct {
        const char *config;
        double expected[2];
    } cases[] = {
        { "\"rope_theta\": 500000, \"rope_scaling\": null", { 1, 0.0014142135623730951 } },
        { "\"rope_parameters\": {\"rope_theta\": 100, \"rope_type\": \"default\"}", { 1, 0.1 } },
        { "\"rope_theta\": 100, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}", { 0.25, 0.025 } },
        /* 1000 tokens are 159 turns of 1 and 15.9 of 0.1. */
        { "\"rope_theta\": 100, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, \"high_freq_factor\": 4, "
          "\"original_max_position_embeddings\": 1000}",
          { 1, 0.1 } },
        { "\"rope_theta\": 100, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 20, \"high_freq_factor\": 40, "
          "\"original_max_position_embeddings\": 1000}",
          { 1, 0.0125 } },
        { "\"rope_theta\": 100, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 2, \"low_freq_factor\": 5.915494309189535, "
          "\"high_freq_factor\": 25.915494309189535, \"original_max_position_embeddings\": 1000}",
          { 1, 0.075 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tensors file = { .bytes = 0 };
        checkpoint tiny, model;
        error_text error = { "" };
        open_tiny(&tiny, false);
        add_tensor(&file, "model.embed_tokens.weight", "F32", tiny.embedding, 5, 8, 0);
        add_layer(&file, &tiny, 0, "F32");
        add_layer(&file, &tiny, 1, "F32");
        add_tensor(&file, "model.norm.weight", "F32", tiny.rms_final, 0, 8, 0);
        save_tensors(&file, "model.safetensors");
        save_config("\"rope_theta\": 10000.0", cases[i].config);
        ck_assert_msg(checkpoint_open(&model, folder, &error) == 0, "%s", error.text);
        ck_assert_double_eq_tol(model.frequencies[0], cases[i].expected[0], 1e-12);
        ck_assert_double_eq_tol(model.frequencies[1], cases[i].expected[1], 1e-12);
        checkpoint_close(&model);
        checkpoint_close(&tiny);
        empty_folder();
    }
}
END_TEST

/* ---- tokenizer ---- */

static void open_demo_tokenizer(tokenizer *words)
{
    error_text error = { "" };
    ck_assert_msg(tokenizer_open(words, KVT_DEMO_DIR "/tok2048.bin", 2048, &error) == 0, "%s", error.text);
}

static uint32_t slow_find(const tokenizer *words, const uint8_t *bytes, size_t length)
{
    for (uint32_t i = 0; i < words->size; i++) {
        if (words->tokens[i].length == length && memcmp(words->tokens[i].bytes, bytes, length) == 0)
            return i;
    }
    return UINT32_MAX;
}

/* The definition: over and over, of all neighbouring pairs that make a token, merge the one with the best score, the leftmost among equals. */
static size_t slow_encode(const tokenizer *words, const char *text, uint32_t *out)
{
    size_t n = 0;
    out[n++] = slow_find(words, (const uint8_t *)" ", 1);
    for (; *text != '\0'; text++)
        out[n++] = slow_find(words, (const uint8_t *)text, 1);
    for (;;) {
        size_t best = SIZE_MAX;
        uint32_t best_token = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const token *a = &words->tokens[out[i]];
            const token *b = &words->tokens[out[i + 1]];
            uint8_t both[64];
            ck_assert_uint_le((size_t)a->length + b->length, sizeof both);
            memcpy(both, a->bytes, a->length);
            memcpy(both + a->length, b->bytes, b->length);
            const uint32_t merged = slow_find(words, both, (size_t)a->length + b->length);
            if (merged != UINT32_MAX && (best == SIZE_MAX || words->tokens[merged].score > words->tokens[best_token].score)) {
                best = i;
                best_token = merged;
            }
        }
        if (best == SIZE_MAX)
            return n;
        out[best] = best_token;
        memmove(out + best + 1, out + best + 2, (n - best - 2) * sizeof *out);
        n--;
    }
}

START_TEST(tokenizer_encodes)
{
    tokenizer words;
    open_demo_tokenizer(&words);
    static const char *const texts[] = { "a", "Father Brown", "aaaaaaaaaaaaaaaaaaaaaaaaa", "the the  the   the\nthe",
                                         "He regarded the new-comer with a restrained astonishment; \"I hardly understand you,\" he replied." };
    error_text error;
    uint32_t *tokens;
    size_t n;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        uint32_t expected[256];
        const size_t n_expected = slow_encode(&words, texts[i], expected);
        ck_assert_int_eq(tokenizer_encode(&words, false, (const uint8_t *)texts[i], strlen(texts[i]), &tokens, &n, &error), 0);
        ck_assert_uint_eq(n, n_expected);
        ck_assert_int_eq(memcmp(tokens, expected, n * sizeof *tokens), 0);
        free(tokens);
    }
    /* Nothing, and bytes without a character: a euro sign, half of one, a byte that no text has. */
    ck_assert_int_eq(tokenizer_encode(&words, true, NULL, 0, &tokens, &n, &error), 0);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(tokens[0], TOKEN_BOS);
    free(tokens);
    static const uint8_t odd[] = { 0xe2, 0x82, 0xac, 0xe2, 0x82, 0xff, 0x00, 0x80, 0x80, 0x80, 0x80, 0x80 };
    ck_assert_int_eq(tokenizer_encode(&words, true, odd, sizeof odd, &tokens, &n, &error), 0);
    ck_assert_uint_eq(n, 2 + sizeof odd);
    for (size_t i = 0; i < sizeof odd; i++)
        ck_assert_uint_eq(tokens[2 + i], TOKEN_FIRST_BYTE + (uint32_t)odd[i]);
    free(tokens);
    tokenizer_close(&words);
}
END_TEST

START_TEST(tokenizer_hostile)
{
    file_map map;
    error_text error = { "" };
    tokenizer words;
    ck_assert_int_eq(file_map_open(&map, KVT_DEMO_DIR "/tok2048.bin", &error), 0);
    uint8_t *file = malloc(map.size + 1);
    ck_assert_ptr_nonnull(file);
    memcpy(file, map.data, map.size);
    file[map.size] = 0;
    for (size_t n = 0; n <= map.size + 1; n += n < 100 || n + 100 > map.size ? 1 : 97) {
        if (n == map.size)
            continue;
        save(file, n);
        ck_assert_msg(tokenizer_open(&words, temporary(), 2048, &error) == -1, "%zu bytes were accepted", n);
    }
    static const int32_t lengths[] = { -1, INT32_MIN, INT32_MAX, 100000 };
    for (size_t i = 0; i < 4; i++) {
        memcpy(file + 8, &lengths[i], 4);
        save(file, map.size);
        ck_assert_int_eq(tokenizer_open(&words, temporary(), 2048, &error), -1);
        ck_assert_ptr_nonnull(strstr(error.text, "length of token 0 is"));
    }
    ck_assert_int_eq(tokenizer_open(&words, KVT_DEMO_DIR "/tok2048.bin", 2047, &error), -1);
    ck_assert_int_eq(tokenizer_open(&words, KVT_DEMO_DIR "/tok2048.bin", 2049, &error), -1);
    ck_assert_int_eq(tokenizer_open(&words, KVT_DEMO_DIR "/tok2048.bin", 100, &error), -1);
    free(file);
    file_map_close(&map);
}
END_TEST

START_TEST(tokenizer_decodes)
{
    tokenizer words;
    open_demo_tokenizer(&words);
    error_text error;
    uint32_t *tokens;
    size_t n, size;
    char *text;
    /* What was encoded comes back, odd bytes and spaces at the beginning too. */
    static const char odd[] = "  Father Brown\n\xe2\x82\xac\xff\x01 <0x41>";
    for (int bos = 0; bos < 2; bos++) {
        FILE *stream = open_memstream(&text, &size);
        ck_assert_ptr_nonnull(stream);
        ck_assert_int_eq(tokenizer_encode(&words, bos != 0, (const uint8_t *)odd, sizeof odd - 1, &tokens, &n, &error), 0);
        for (size_t i = 0; i < n; i++)
            tokenizer_write(&words, i == 0 ? TOKEN_BOS : tokens[i - 1], tokens[i], stream);
        ck_assert_int_eq(fclose(stream), 0);
        ck_assert_uint_eq(size, sizeof odd - 1);
        ck_assert_str_eq(text, odd);
        free(text);
        free(tokens);
    }
    FILE *stream = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(stream);
    tokenizer_write(&words, TOKEN_BOS, TOKEN_BOS, stream);
    tokenizer_write(&words, TOKEN_BOS, TOKEN_EOS, stream);
    ck_assert_int_eq(fclose(stream), 0);
    ck_assert_uint_eq(size, 0);
    free(text);
    tokenizer_close(&words);
}
END_TEST

/* ---- tokenizer.json ---- */

static void encode_as(const char *json, uint32_t size, const char *text, const char *expected)
{
    tokenizer words;
    error_text error = { "" };
    uint32_t *tokens;
    size_t n;
    char got[256] = "";
    save(json, strlen(json));
    ck_assert_msg(tokenizer_open(&words, temporary(), size, &error) == 0, "%s", error.text);
    if (tokenizer_encode(&words, false, (const uint8_t *)text, strlen(text), &tokens, &n, &error) != 0) {
        snprintf(got, sizeof got, "%s", error.text);
        n = 0;
    }
    for (size_t i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%u", i == 0 ? "" : " ", tokens[i]);
    free(tokens);
    tokenizer_close(&words);
    ck_assert_msg(strcmp(got, expected) == 0, "'%s' is %s, not %s", text, got, expected);
}

#define SPACED(first, more)                                                                                                                          \
    "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [" first "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "                \
    "\"content\": \"\u2581\"}]}, \"added_tokens\": [{\"id\": 7, \"content\": \"<end>\"}], \"model\": {\"type\": \"BPE\", " more                      \
    "\"vocab\": {\"<unk>\": 0, \"\u2581\": 1, \"a\": 2, \"b\": 3, \"ab\": 4, \"\u2581a\": 5, \"ba\": 6, \"<0xC3>\": 8, \"<0xA9>\": 9}, "             \
    "\"merges\": [\"b a\", [\"\u2581\", \"a\"], \"a b\"]}}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, "
#define LEVEL(regex, more)                                                                                                                           \
    "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [" more                                                                         \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": " regex                                                                   \
    "}]}, \"model\": {\"type\": \"BPE\", \"ignore_merges\": true, \"vocab\": {\"a\": 0, \"\u0120\": 1, \"\u0120a\": 2, \"\u00c3\": 3, \"\u00a9\": "  \
    "4, "                                                                                                                                            \
    "\"\u00c3\u00a9\": 5, \"aa\": 6, \"1\": 7, \"11\": 8}, \"merges\": [\"\u0120 a\", \"\u00c3 \u00a9\", \"1 1\"]}}"

START_TEST(tokenizer_json)
{
    /* A space first; the earlier pair of the list first, whatever its place; added tokens before anything else. */
    encode_as(SPACED(PREPEND, ""), 10, "ab", "5 3");
    encode_as(SPACED(PREPEND, ""), 10, "b ab", "1 3 5 3");
    encode_as(SPACED(PREPEND, ""), 10, "aba", "5 6");
    encode_as(SPACED("", ""), 10, "aba", "2 6");
    encode_as(SPACED("", ""), 10, "ab<end>ab", "4 7 4");
    encode_as(SPACED(PREPEND, ""), 10, "ab<end>ab<", "5 3 7 5 3"); /* "<" has no token */
    encode_as(SPACED("", ""), 11, "", "");
    /* Characters without a token: their bytes, if all have one, or unknown. */
    encode_as(SPACED("", "\"byte_fallback\": true, \"unk_token\": \"<unk>\", \"fuse_unk\": true, "), 10, "a\xc3\xa9xxb", "2 8 9 0 3");
    encode_as(SPACED("", "\"unk_token\": \"<unk>\", "), 10, "xxb", "0 0 3");
    /* Bytes; a piece that is a token is not merged from parts, and no merge crosses pieces. */
    encode_as(LEVEL("true", ""), 9, "a a\xc3\xa9", "0 2 5");
    encode_as(LEVEL("true", ""), 9, "aa aa", "6 2 0");
    encode_as(LEVEL("true", ""), 9, "11", "8");
    encode_as(LEVEL("true", "{\"type\": \"Digits\", \"individual_digits\": true}, "), 9, "11", "7 7");
}
END_TEST

#define BPE(more, vocab, merges) "\"model\": {\"type\": \"BPE\", " more "\"vocab\": {" vocab "}, \"merges\": [" merges "]}}"
#define ADDED(id, text, more)    "{\"id\": " #id ", \"content\": \"" text "\"" more "}"
#define SPACE_LETTERS            BPE("", "\"\u2581\": 0, \"a\": 1, \"\u2581a\": 2, \"aa\": 3", "\"\u2581 a\", \"a a\"")
#define METASPACE(scheme, more)                                                                                                                      \
    "{\"added_tokens\": [" ADDED(4, "<x>",                                                                                                           \
                                 "") "], \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"\u2581\", \"prepend_scheme\": \"" scheme    \
                                     "\"" more "}, " SPACE_LETTERS

/* Forms of normalizers, pre-tokenizers and added tokens, each with the tokens that follow from its definition. */
START_TEST(tokenizer_json_forms)
{
    /* A space in front of every stretch between added tokens, of the first, or of none; a literal U+2581 is one, too. */
    encode_as(METASPACE("always", ""), 5, "a<x>a", "2 4 2");
    encode_as(METASPACE("first", ""), 5, "a<x>a", "2 4 1");
    encode_as(METASPACE("first", ""), 5, "<x>a", "4 1");
    encode_as(METASPACE("never", ""), 5, "a<x>a a", "1 4 1 2");
    encode_as(METASPACE("always", ""), 5, " a\u2581a", "2 2");
    encode_as(METASPACE("always", ", \"split\": false"), 5, "a aa", "2 2 1");
    /* White space beside added tokens goes with them where they say so. */
    encode_as("{\"added_tokens\": [" ADDED(4, "<x>", ", \"rstrip\": true") ", " ADDED(5, "<y>", ", \"lstrip\": true") "], " SPACE_LETTERS, 6,
              "a<x> \u3000\na\u00a0 <y>a", "1 4 1 5 1");
    /* The longest of those that begin first; found before or after normalising. */
    encode_as("{\"added_tokens\": [" ADDED(4, "aa", "") ", " ADDED(5, "aaa", "") ", " ADDED(6, "ab", "") "], " SPACE_LETTERS, 7, "aaaaaaab", "5 5 6");
    encode_as("{\"normalizer\": {\"type\": \"NFKC\"}, \"added_tokens\": [" ADDED(4, "\ufb01", ", \"normalized\": true") ", " ADDED(
                  5, "\ufb02", "") "], " SPACE_LETTERS,
              6, "a\ufb01fia\ufb02", "1 4 4 1 5");
    /* Normal forms. */
    encode_as("{\"normalizer\": {\"type\": \"NFC\"}, " BPE("", "\"\u00e9\": 0, \"e\": 1, \"\u0301\": 2, \"\u2460\": 3", ""), 4, "e\u0301\u00e9\u2460",
              "0 0 3");
    encode_as("{\"normalizer\": {\"type\": \"NFD\"}, " BPE("", "\"\u00e9\": 0, \"e\": 1, \"\u0301\": 2, \"\u2460\": 3", ""), 4, "e\u0301\u00e9\u2460",
              "1 2 1 2 3");
    encode_as("{\"normalizer\": {\"type\": \"NFKC\"}, " BPE("", "\"\u00e9\": 0, \"1\": 1, \"\uac00\": 2", ""), 3, "e\u0301\u2460\u1100\u1161",
              "0 1 2");
    encode_as("{\"normalizer\": {\"type\": \"NFKD\"}, " BPE("", "\"\u0301\": 0, \"1\": 1, \"e\": 2", ""), 3, "\u00e9\u2460", "2 0 1");
    encode_as("{\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\s+\"}, \"content\": \"\u2581\"}, " SPACE_LETTERS, 4,
              "a \n\u2003a", "1 2");
    /* A space in front of each piece, where ByteLevel follows a split. */
    encode_as("{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": false}, {\"type\": "
              "\"ByteLevel\"}]}, " BPE("", "\"\u0120\": 0, \"a\": 1, \"1\": 2, \"\u0120a\": 3", "\"\u0120 a\""),
              4, "a11a", "3 0 2 2 3");
    /* Of the same pair twice the last counts; tokens beyond the model's are an error where a text uses them. */
    encode_as("{" BPE("", "\"a\": 0, \"b\": 1, \"ab\": 2, \"ba\": 3", "\"a b\", \"b a\", \"a b\""), 4, "aba", "0 3");
    encode_as("{\"added_tokens\": [" ADDED(9, "<x>", "") "], " SPACE_LETTERS, 4, "aa", "3");
    encode_as("{\"added_tokens\": [" ADDED(9, "<x>", "") "], " SPACE_LETTERS, 4, "aa<x>", "uses token 9: the model's vocabulary is 4");
    encode_as("{" SPACE_LETTERS, 3, "a\u2581a", "1 2");
    encode_as("{" SPACE_LETTERS, 3, "aa", "uses token 3: the model's vocabulary is 3");
    /* Names that are no byte's; no byte at all. */
    encode_as(
        "{" BPE("\"byte_fallback\": true, ", "\"a\": 0, \"<0x-1>\": 1, \"<0x 1>\": 2, \"<0x+1>\": 3, \"<0xa9>\": 4, \"<0xC3>\": 5, \"<0xA9\": 6", ""),
        7, "a\u00e9", "0");
    encode_as("{" SPACE_LETTERS, 4, "a\xff", "is not UTF-8 from byte 1 on: the tokenizer takes nothing else");
    encode_as("{" SPACE_LETTERS, 4, "a\xed\xa0\x80", "is not UTF-8 from byte 1 on: the tokenizer takes nothing else");
}
END_TEST

START_TEST(tokenizer_json_hostile)
{
    static const struct {
        const char *json;
        uint32_t size;
        const char *part;
    } cases[] = {
        { "{\"model\": ", 9, "is not JSON" },
        { "{\"model\": {}}", 9, "model.type is \"\": \"BPE\"" },
        { "{\"model\": {\"type\": \"Unigram\"}}", 9, "model.type is \"Unigram\"" },
        { "{\"model\": {\"type\": \"BPE\"}}", 9, "model.vocab is missing" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": -1}}}", 9, "token \"a\" has number -1: 0 to 4194303" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 4194304}}}", 9, "token \"a\" has number 4194304: 0 to 4194303" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"added_tokens\": [{\"content\": \"x\"}]}", 9, "token \"x\" has number 0" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}, \"added_tokens\": [{\"id\": 1, \"content\": \"x\", \"single_word\": true}]}", 9,
          "added token \"x\" has single_word true" },
        { "{\"model\": {\"type\": \"BPE\", \"dropout\": 0.1, \"vocab\": {\"a\": 0}}}", 9, "model.dropout is there" },
        { "{\"model\": {\"type\": \"BPE\", \"end_of_word_suffix\": \"</w>\", \"vocab\": {\"a\": 0}}}", 9, "model.end_of_word_suffix is there" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 1}}}", 9, "has 1 tokens: the model's vocabulary is 9" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", 1, "model.merges is missing" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [5]}}", 1, "model.merges[0] is no pair" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", 1, "model.merges[0] is no pair" },
        { "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": [\"a a\"]}}", 1, "model.merges[0] is \"a a\" and \"a\"" },
        { "{\"normalizer\": {\"type\": \"Lowercase\"}, \"model\": {\"type\": \"BPE\"}}", 9, "normalizer is \"Lowercase\"" },
        { "{\"normalizer\": {\"type\": \"Replace\"}, \"model\": {\"type\": \"BPE\"}}", 9, "pattern of a \"Replace\" is neither" },
        { "{\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\"}, \"model\": {\"type\": \"BPE\"}}", 9,
          "replacement of a \"Metaspace\" is \"_\"" },
        { "{\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": \"Digits\"}]}, \"model\": "
          "{\"type\": "
          "\"BPE\"}}",
          9, "pre_tokenizer has a \"Digits\" after ByteLevel" },
        { "{\"pre_tokenizer\": {\"type\": \"Whitespace\"}, \"model\": {\"type\": \"BPE\"}}", 9, "pre_tokenizer is \"Whitespace\"" },
        { "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"x+\"}}, \"model\": {\"type\": \"BPE\"}}", 9,
          "behavior of a \"Split\" is \"\"" },
        { "{\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"x\\\\w\"}, \"behavior\": \"Isolated\"}, \"model\": {\"type\": "
          "\"BPE\"}}",
          9, "expression \"x\\w\" cannot be used: \"\\w\" is not understood" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer words;
        error_text error = { "" };
        save(cases[i].json, strlen(cases[i].json));
        ck_assert_int_eq(tokenizer_open(&words, temporary(), cases[i].size, &error), -1);
        ck_assert_msg(strstr(error.text, cases[i].part) != NULL, "'%s' does not say '%s'", error.text, cases[i].part);
    }
}
END_TEST

/* The pieces of a text, each in brackets, by expressions one after the other, or a literal where the pattern begins with "=". */
static void check_pieces(const char *const *patterns, pretokens_behaviour behaviour, bool invert, const char *text, const char *expected)
{
    char got[400] = "";
    error_text error = { "" };
    pretokens how = { 0 };
    pretokens_pieces pieces = { 0 };
    for (; *patterns != NULL; patterns++) {
        pretokens_step step = { .kind = PRETOKENS_SPLIT, .behaviour = behaviour, .invert = invert };
        step.pattern = **patterns == '=' ? expression_open_literal(*patterns + 1, &error) : expression_open(*patterns, &error);
        ck_assert_msg(pretokens_add(&how, step, &error) == 0, "%s", error.text);
    }
    ck_assert_msg(pretokens_cut(&how, (const uint8_t *)text, strlen(text), true, &pieces, &error) == 0, "%s", error.text);
    for (size_t i = 0, first = 0; i < pieces.n; first = pieces.ends[i++])
        snprintf(got + strlen(got), sizeof got - strlen(got), "[%.*s]", (int)(pieces.ends[i] - first), (const char *)pieces.text + first);
    ck_assert_msg(strcmp(got, expected) == 0, "'%s' is %s, not %s", text, got, expected);
    pretokens_pieces_close(&pieces);
    pretokens_close(&how);
}

#define GPT2      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define SHORT     "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LLAMA3    SHORT "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* What the expressions match, worked out by hand from Unicode's categories. */
START_TEST(pieces)
{
    static const struct {
        const char *patterns[3];
        const char *text, *expected;
    } cases[] = {
        { { GPT2 }, "I'll say 'Don't!'  twice\n\n 1234x", "[I]['ll][ say][ '][Don]['t][!'][ ][ twice][\n\n][ 1234][x]" },
        { { GPT2 }, "end  ", "[end][  ]" },
        { { GPT2 }, "caf\u00e9 \u20ac\u2014 x", "[caf\u00e9][ \u20ac\u2014][ x]" },
        { { LLAMA3 }, "I'LL say 'Don't!'\n\n  twice\n 1234x (a)", "[I]['LL][ say][ '][Don]['t][!'\n\n][ ][ twice][\n][ ][123][4][x][ (][a][)]" },
        { { LLAMA3 }, "a \n \n  b", "[a][ \n \n][ ][ b]" },
        /* Vowel signs and viramas are marks, not letters; a superscript and Roman or Arabic digits are numbers; U+202F is a space, U+180E is none. */
        { { LLAMA3 }, "\u0939\u093f\u0928\u094d\u0926\u0940", "[\u0939][\u093f\u0928][\u094d\u0926][\u0940]" },
        { { LLAMA3 }, "\u0e17\u0e35\u0e48\u0e17", "[\u0e17][\u0e35\u0e48][\u0e17]" },
        { { LLAMA3 }, "\u0642\u064f\u0631", "[\u0642][\u064f\u0631]" },
        { { LLAMA3 }, "a 10\u00b2 \u2167\u0663", "[a][ ][10\u00b2][ ][\u2167\u0663]" },
        { { LLAMA3 }, "10\u202f000\u202fx \u180e-", "[10][\u202f][000][\u202fx][ \u180e-]" },
        { { GPT2 },
          "a\u00a0 \u3000b\xc2\x85"
          "c\u200b",
          "[a][\u00a0 ][\u3000][b][\xc2\x85][c][\u200b]" },
        { { LLAMA3 }, "'S'\u017f'", "['S]['\u017f][']" },
        { { "\\p{N}", GPT2 }, "in 1984 10\u00b2", "[in][ ][1][9][8][4][ ][1][0][\u00b2]" },
        { { "\\s+$" }, "a  \n b  ", "[a][  ][\n b][  ]" },
        { { "[\\p{Lu}\\p{Lt}]*[\\p{Ll}\\p{M}]+" SHORT "?" }, "McDon'T\u01c5x", "[Mc][Don'T][\u01c5x]" },
        { { "\\p{Han}+" }, "a\u4e00\u3005\u30fcb", "[a][\u4e00\u3005][\u30fcb]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_pieces(cases[i].patterns, PRETOKENS_ISOLATED, false, cases[i].text, cases[i].expected);
}
END_TEST

/* What becomes of matches. */
START_TEST(split_behaviours)
{
    static const struct {
        pretokens_behaviour behaviour;
        bool invert;
        const char *expected;
    } cases[] = {
        { PRETOKENS_ISOLATED, false, "[-][a][-][-][b][-]" },
        { PRETOKENS_REMOVED, false, "[a][b]" },
        { PRETOKENS_REMOVED, true, "[-][-][-][-]" },
        { PRETOKENS_CONTIGUOUS, false, "[-][a][--][b][-]" },
        { PRETOKENS_MERGED_WITH_PREVIOUS, false, "[-][a-][-][b-]" },
        { PRETOKENS_MERGED_WITH_NEXT, false, "[-a][-][-b][-]" },
        { PRETOKENS_MERGED_WITH_PREVIOUS, true, "[-a][-][-b][-]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_pieces(LIST("=-"), cases[i].behaviour, cases[i].invert, "-a--b-", cases[i].expected);
        check_pieces(LIST("-"), cases[i].behaviour, cases[i].invert, "-a--b-", cases[i].expected);
    }
}
END_TEST

/* What would mean another thing, or take longer than the text is long, is refused by name. */
START_TEST(expressions_refused)
{
    static const char *const patterns[] = { "\\w+",     "\\bx", "\\h",     "[[:alpha:]]", "[a&&b]",  "(?i:ss)", "(?i)x", "x{2}+", "x{,3}",
                                            "\\p{Foo}", "\\p",  "(?<n>x)", "\\u0041",     "(*FAIL)", "[a",      "x)",    "(x",    "x*",
                                            "\\",       "[]a]", "x{2}?",   "(?#x)",       "\\1",     "\\G",     "a**",   "\\Kx",  "{2}" };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        error_text error = { "" };
        expression *opened = expression_open(patterns[i], &error);
        ck_assert_msg(opened == NULL, "%s was accepted", patterns[i]);
        ck_assert_msg(strstr(error.text, "cannot be used: ") != NULL && strstr(error.text, patterns[i]) != NULL, "%s", error.text);
    }
    static const char endless[] = "(?:a+)+[bc]";
    char text[100];
    error_text error = { "" };
    size_t first, end;
    memset(text, 'a', sizeof text);
    expression *opened = expression_open(endless, &error);
    ck_assert_ptr_nonnull(opened);
    ck_assert_int_eq(expression_find(opened, (const uint8_t *)text, sizeof text, 0, &first, &end, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "takes too long"));
    expression_close(opened);
}
END_TEST

/* Time grows as the text does: text without digits where digits are alone, one long piece, spaces, marks, added tokens that almost match. */
START_TEST(linear_time)
{
    static const char *const stretches[] = { "a a aa ", "a", " ", "1", "a\u0301", "\n", "<en", "\u0301\u0323" };
    static const char json[] =
        "{\"normalizer\": {\"type\": \"NFC\"}, \"added_tokens\": [{\"id\": 5, \"content\": \"<end>\"}], \"pre_tokenizer\": {\"type\": \"Sequence\", "
        "\"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true}, {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+$\"}, "
        "\"behavior\": \"Isolated\"}, {\"type\": \"Split\", \"pattern\": {\"Regex\": \"[A-Z]\"}, \"behavior\": \"MergedWithNext\"}, "
        "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": false}]}, \"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", "
        "\"vocab\": {\"a\": 0, \"\u0120\": 1, \"aa\": 2, \"aaaa\": 3, \"?\": 4}, \"merges\": [\"a a\", \"aa aa\"]}}";
    tokenizer words;
    error_text error = { "" };
    save(json, sizeof json - 1);
    ck_assert_msg(tokenizer_open(&words, temporary(), 6, &error) == 0, "%s", error.text);
    enum { SIZE = 1 << 18 };
    char *text = malloc(SIZE + 16);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < sizeof stretches / sizeof *stretches; i++) {
        const size_t n = strlen(stretches[i]);
        size_t length = 0;
        for (; length < SIZE; length += n)
            memcpy(text + length, stretches[i], n);
        memcpy(text + length, "x", 1); /* a trailing space would match at once */
        uint32_t *tokens;
        size_t n_tokens;
        const clock_t start = clock();
        const int result = tokenizer_encode(&words, false, (const uint8_t *)text, length + 1, &tokens, &n_tokens, &error);
        ck_assert_msg(result == (i == 7 ? -1 : 0), "%s: %s", stretches[i], error.text);
        free(tokens);
        /* Quadratic time would be minutes; seconds, under a sanitizer and emulated, too. */
        ck_assert_msg((double)(clock() - start) / CLOCKS_PER_SEC < 20, "'%s' takes %.1f s", stretches[i], (double)(clock() - start) / CLOCKS_PER_SEC);
    }
    ck_assert_ptr_nonnull(strstr(error.text, "more than 1000 combining marks"));
    free(text);
    tokenizer_close(&words);
}
END_TEST

/* ---- threads ---- */

enum { COUNTED = 1000 };

typedef struct counting {
    unsigned workers;
    unsigned counts[COUNTED];
} counting;

static void count_share(void *data, unsigned worker, unsigned workers)
{
    counting *job = data;
    if (worker == 0)
        job->workers = workers;
    for (size_t i = pool_first(COUNTED, worker, workers); i < pool_first(COUNTED, worker + 1, workers); i++)
        job->counts[i]++;
}

static pool *open_pool(unsigned workers)
{
    pool *threads = pool_open(workers);
    ck_assert_msg(threads != NULL, "%u workers: %s", workers, strerror(errno));
    return threads;
}

/* Every share is run once per round, and all are done when the round is. */
START_TEST(pool_runs_all)
{
    enum { ROUNDS = 2000 / KVT_TEST_SHARE };
    for (unsigned workers = 1; workers <= 5; workers++) {
        pool *threads = open_pool(workers);
        static counting job;
        job = (counting){ 0 };
        for (unsigned round = 1; round <= ROUNDS; round++) {
            pool_run(threads, count_share, &job);
            size_t right = 0; /* an assertion takes longer than all of this */
            for (size_t i = 0; i < COUNTED; i++)
                right += job.counts[i] == round ? 1 : 0;
            ck_assert_uint_eq(right, COUNTED);
        }
        ck_assert_uint_eq(job.workers, workers);
        ck_assert_uint_eq(pool_workers(threads), workers);
        pool_close(threads);
    }
    pool_close(open_pool(POOL_MOST_WORKERS)); /* more than there are cores, and nothing to do */
    pool_close(NULL);
}
END_TEST

/* ---- forward pass ---- */

static const cache_way REFERENCE = { .reference = true };
static const cache_way F32_TILES = { .k_scheme = KVT_SCHEME_f32, .v_scheme = KVT_SCHEME_f32 };
static const cache_way SMALL_TILES = {
    .k_scheme = KVT_SCHEME_kv4, .v_scheme = KVT_SCHEME_kv3, .rotation = KVT_ROTATION_64, .centring = KVT_CENTRING_PAGE
};

/* The demonstration's model, and the tokens of its book. */
typedef struct book {
    checkpoint model;
    tokenizer words;
    uint32_t *tokens;
    size_t n_tokens;
} book;

static void open_book(book *it, const char *model_path)
{
    file_map text;
    error_text error = { "" };
    ck_assert_msg(checkpoint_open(&it->model, model_path, &error) == 0, "%s", error.text);
    open_demo_tokenizer(&it->words);
    ck_assert_int_eq(file_map_open(&text, KVT_DEMO_DIR "/chesterton-brown.txt", &error), 0);
    ck_assert_int_eq(tokenizer_encode(&it->words, false, text.data, text.size, &it->tokens, &it->n_tokens, &error), 0);
    file_map_close(&text);
}

static void close_book(book *it)
{
    free(it->tokens);
    tokenizer_close(&it->words);
    checkpoint_close(&it->model);
}

static void open_state(forward_state *state, const checkpoint *model, const cache_way *way, size_t tokens, pool *threads)
{
    error_text error = { "" };
    ck_assert_msg(forward_open(state, model, way, tokens, 1, threads, &error) == 0, "%s", error.text);
}

/* The surprise of tokens 1 .. n-1. */
static double surprise_of(forward_state *state, const uint32_t *tokens, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        forward_token(state, tokens[i], i);
        sum += forward_surprise(state, tokens[i + 1]);
    }
    return sum;
}

static double perplexity_of_book(const char *model_path, const cache_way *way, size_t n, uint32_t *first_guess)
{
    book it;
    forward_state state;
    open_book(&it, model_path);
    ck_assert_uint_ge(it.n_tokens, n);
    pool *threads = open_pool(1);
    open_state(&state, &it.model, way, n, threads);
    const double surprise = surprise_of(&state, it.tokens, n);
    const float *logits = forward_token(&state, it.tokens[n - 1], n - 1);
    uint64_t random = 0;
    *first_guess = sample_token(logits, it.model.vocabulary, 0, &random);
    forward_close(&state);
    pool_close(threads);
    close_book(&it);
    return exp(surprise / (double)(n - 1));
}

/* Tolerances. The order of additions is fixed, so compilers and CPUs differ only through the C library's exp, sin and cos: an ulp of binary32,
 * 6e-8, in each of about 10^3 additions of each logit, which is 10^-5 of the perplexity at most; 0.01 of 50 leaves 20 times that.
 * f16 weights are off by up to 2^-12 each at random signs; measured: 0.0001. */
START_TEST(demonstration_model)
{
    static const char small[] = KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin";
    uint32_t guess;
    ck_assert_double_eq_tol(perplexity_of_book(small, &REFERENCE, 256, &guess), 53.491, 0.01);
    ck_assert_uint_eq(guess, 367);
}
END_TEST

START_TEST(demonstration_model_whole_context)
{
    static const char small[] = KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin";
    uint32_t guess;
    test_needs_time();
    ck_assert_double_eq_tol(perplexity_of_book(small, &REFERENCE, 1024, &guess), 50.574, 0.01);
    ck_assert_uint_eq(guess, 371);
    ck_assert_double_eq_tol(perplexity_of_book(small, &F32_TILES, 1024, &guess), 50.574, 0.01);
    ck_assert_uint_eq(guess, 371);
}
END_TEST

START_TEST(demonstration_model_in_f32)
{
    static const char full[] = KVT_SHARED_DIR "/data/gutenberg-3.5M/model.bin";
    uint32_t guess;
    test_needs_time();
    test_needs(full);
    ck_assert_double_eq_tol(perplexity_of_book(full, &REFERENCE, 1024, &guess), 50.574, 0.01);
    ck_assert_uint_eq(guess, 371);
}
END_TEST

/* Both do the same arithmetic in f32, in another order and with another exp. */
START_TEST(f32_tiles_are_the_reference)
{
    enum { TOKENS = 256 / KVT_TEST_SHARE };
    uint32_t guess;
    const double reference = perplexity_of_book(KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin", &REFERENCE, TOKENS, &guess);
    const double tiles = perplexity_of_book(KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin", &F32_TILES, TOKENS, &guess);
    ck_assert_msg(fabs(tiles / reference - 1) <= 1e-6, "%.9g is not %.9g", tiles, reference);
}
END_TEST

/* All logits of n tokens (repeated where there are fewer), by 1 and by 3 threads. */
static void check_threads(const checkpoint *model, const cache_way *way, const uint32_t *tokens, size_t n_tokens, size_t n)
{
    pool *alone = open_pool(1);
    pool *three = open_pool(3);
    forward_state by_one, by_three;
    open_state(&by_one, model, way, n, alone);
    open_state(&by_three, model, way, n, three);
    for (size_t i = 0; i < n; i++) {
        const float *a = forward_token(&by_one, tokens[i % n_tokens], i);
        const float *b = forward_token(&by_three, tokens[i % n_tokens], i);
        ck_assert_msg(memcmp(a, b, model->vocabulary * sizeof *a) == 0, "token %zu", i);
    }
    forward_close(&by_one);
    forward_close(&by_three);
    pool_close(alone);
    pool_close(three);
}

START_TEST(threads_change_nothing)
{
    static const cache_way *const ways[] = { &REFERENCE, &F32_TILES, &SMALL_TILES };
    book it;
    open_book(&it, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin");
    for (size_t i = 0; i < 3; i++)
        check_threads(&it.model, ways[i], it.tokens, it.n_tokens, 100 / KVT_TEST_SHARE);
    close_book(&it);

    /* A model with one KV head and a context of several chunks: these are split, and merged. */
    uint8_t file[8192];
    checkpoint model;
    error_text error = { "" };
    save(file, make_tiny(file, false));
    ck_assert_msg(checkpoint_open(&model, temporary(), &error) == 0, "%s", error.text);
    model.context = 3000;
    for (size_t i = 0; i < model.n_weights; i++)
        model.weights[i] = (float)((i * 7919 + 13) % 2003) / 1001 - 1;
    static const uint32_t tokens[] = { 4, 0, 2, 3, 1, 1, 3 };
    check_threads(&model, &SMALL_TILES, tokens, sizeof tokens / sizeof *tokens, KVT_TEST_SHARE > 1 ? 1100 : 2100);
    checkpoint_close(&model);
}
END_TEST

/* Greedy: the same text from every compiler, CPU and number of threads. */
static void generate(const cache_way *way, unsigned n_threads, size_t n_new, const char *prompt, const char *expected)
{
    checkpoint model;
    tokenizer words;
    forward_state state;
    error_text error = { "" };
    uint32_t *tokens;
    size_t n, size;
    char *text;
    FILE *stream = open_memstream(&text, &size);
    ck_assert_ptr_nonnull(stream);
    ck_assert_int_eq(checkpoint_open(&model, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin", &error), 0);
    open_demo_tokenizer(&words);
    ck_assert_int_eq(tokenizer_encode(&words, false, (const uint8_t *)prompt, strlen(prompt), &tokens, &n, &error), 0);
    pool *threads = open_pool(n_threads);
    open_state(&state, &model, way, n + n_new, threads);
    const float *logits = NULL;
    uint64_t random = 0;
    for (size_t i = 0; i < n; i++)
        logits = forward_token(&state, tokens[i], i);
    uint32_t before = tokens[n - 1];
    for (size_t i = 0; i < n_new; i++) {
        const uint32_t next = sample_token(logits, model.vocabulary, 0, &random);
        tokenizer_write(&words, before, next, stream);
        logits = forward_token(&state, next, n + i);
        before = next;
    }
    ck_assert_int_eq(fclose(stream), 0);
    ck_assert_msg(strncmp(text, expected, size) == 0, "%s", text);
    ck_assert_uint_ge(size, n_new);
    free(text);
    free(tokens);
    forward_close(&state);
    pool_close(threads);
    tokenizer_close(&words);
    checkpoint_close(&model);
}

START_TEST(generates_this_text)
{
    enum { TOKENS = KVT_TEST_SHARE > 1 ? 16 : 48 };
    static const char prompt[] = "The old man looked at the sea, and";
    static const char expected[] =
        " he was going to see the little Red Man's berries.\n\"What is the matter? You are the best,\" said the little Hal, \"you are not"
        " the best.\"\n\"Well, I don't know";
    generate(&F32_TILES, 1, TOKENS, prompt, expected);
    generate(&F32_TILES, 3, TOKENS, prompt, expected);
    generate(&REFERENCE, 1, TOKENS, prompt, expected);
}
END_TEST

START_TEST(samples_as_the_model_says)
{
    static const float logits[4] = { 0, 1.0986123f, -1000, 0 }; /* 1 : 3 : 0 : 1 */
    uint64_t random = 7;
    ck_assert_uint_eq(sample_token(logits, 4, 0, &random), 1);
    ck_assert_uint_eq(random, 7);
    static const float equal[3] = { -1, 2, 2 };
    ck_assert_uint_eq(sample_token(equal, 3, 0, &random), 1);
    unsigned counts[4] = { 0 };
    for (unsigned i = 0; i < 10000; i++)
        counts[sample_token(logits, 4, 1, &random)]++;
    /* Five standard deviations: 5 * sqrt(10000 * p * (1 - p)) */
    ck_assert_uint_eq(counts[2], 0);
    ck_assert_uint_le(counts[0] - 1800, 400);
    ck_assert_uint_le(counts[1] - 5755, 490);
    for (unsigned i = 0; i < 1000; i++) /* cold: 3^-50 */
        ck_assert_uint_eq(sample_token(logits, 4, 0.02, &random), 1);
}
END_TEST

/* Keys and values are the reference's, and so are those that the cache of f32 tiles holds. */
START_TEST(captures_what_attention_sees)
{
    enum { TOKENS = 70 / KVT_TEST_SHARE };
    book it;
    forward_state plain, tiles;
    error_text error;
    open_book(&it, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin");
    pool *threads = open_pool(1);
    open_state(&plain, &it.model, &REFERENCE, TOKENS, threads);
    open_state(&tiles, &it.model, &F32_TILES, TOKENS, threads);
    ck_assert_int_eq(forward_capture(&plain, &error), 0);
    ck_assert_int_eq(forward_capture(&tiles, &error), 0);
    for (size_t i = 0; i < TOKENS; i++) {
        forward_token(&plain, it.tokens[i], i);
        forward_token(&tiles, it.tokens[i], i);
    }
    const size_t n = (size_t)it.model.layers * it.model.kv_dim * TOKENS;
    ck_assert_int_eq(memcmp(plain.captured[CAPTURED_KEYS], plain.cache.keys, n * sizeof(float)), 0);
    ck_assert_int_eq(memcmp(plain.captured[CAPTURED_VALUES], plain.cache.values, n * sizeof(float)), 0);
    /* Layer 0 has not been through attention: its queries are the same bits. */
    const size_t layer_queries = (size_t)it.model.dim * TOKENS;
    ck_assert_int_eq(memcmp(plain.captured[CAPTURED_QUERIES], tiles.captured[CAPTURED_QUERIES], layer_queries * sizeof(float)), 0);
    ck_assert_uint_eq(it.model.head_dim, 64);
    const size_t side = (size_t)it.model.layers * it.model.kv_dim * TOKENS;
    float *back = malloc(2 * side * sizeof *back);
    ck_assert_ptr_nonnull(back);
    kvt_sequence stored;
    ck_assert_int_eq(kvt_cache_entry(tiles.cache.cache, tiles.cache.id, 0, &stored), KVT_OK);
    const kvt_view_rows rows = { .size = sizeof rows,
                                 .view = kvt_cache_view(tiles.cache.cache, 0),
                                 .sequence = &stored,
                                 .n_tokens = TOKENS,
                                 .layers = it.model.layers,
                                 .rows = back,
                                 .dtype = KVT_F32,
                                 .side_stride = (ptrdiff_t)(side * sizeof *back),
                                 .layer_stride = (ptrdiff_t)(it.model.kv_dim * TOKENS * sizeof *back),
                                 .token_stride = 64 * sizeof *back,
                                 .head_stride = TOKENS * 64 * sizeof *back };
    ck_assert_int_eq(kvt_view_read(&rows, 0, 1), KVT_OK);
    for (int which = 0; which < 2; which++)
        ck_assert_int_eq(memcmp(back + (size_t)which * side, tiles.captured[which], side * sizeof *back), 0);
    free(back);
    forward_close(&plain);
    forward_close(&tiles);
    pool_close(threads);
    close_book(&it);
}
END_TEST

START_TEST(context_is_the_limit)
{
    checkpoint model;
    forward_state state;
    error_text error = { "" };
    pool *threads = open_pool(1);
    ck_assert_int_eq(checkpoint_open(&model, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin", &error), 0);
    ck_assert_int_eq(forward_open(&state, &model, &F32_TILES, 1025, 1, threads, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "1 to 1024"));
    ck_assert_int_eq(forward_open(&state, &model, &F32_TILES, 0, 1, threads, &error), -1);
    checkpoint_close(&model);
    pool_close(threads);
}
END_TEST

/* Outliers in keys and values, and not a bit of a logit is another. */
START_TEST(stress_changes_no_logit)
{
    enum { TOKENS = 100 / KVT_TEST_SHARE, ROOM = TOKENS + 3 };
    book it;
    forward_state plain, stressed;
    error_text error = { "" };
    open_book(&it, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin");
    pool *threads = open_pool(1);
    open_state(&plain, &it.model, &REFERENCE, ROOM, threads);
    open_state(&stressed, &it.model, &REFERENCE, ROOM, threads);
    float *logits = malloc(TOKENS * sizeof *logits * it.model.vocabulary);
    ck_assert_ptr_nonnull(logits);
    for (size_t i = 0; i < TOKENS; i++)
        memcpy(logits + i * it.model.vocabulary, forward_token(&plain, it.tokens[i], i), it.model.vocabulary * sizeof *logits);
    for (size_t layer = 0; layer < it.model.layers; layer++) {
        const size_t rows = layer * it.model.kv_heads * ROOM * 64;
        ck_assert_int_eq(stress_outliers(&it.model, layer, plain.cache.keys + rows, plain.cache.values + rows, ROOM, TOKENS, &error), 0);
    }
    for (size_t i = 0; i < TOKENS; i++)
        ck_assert_int_eq(memcmp(logits + i * it.model.vocabulary, forward_token(&stressed, it.tokens[i], i), it.model.vocabulary * sizeof *logits),
                         0);
    /* Of each head 8 of 64 key channels and 4 value channels are 8 times what they were, whole pairs of keys; the others are the same. */
    const float *const before[2] = { plain.cache.keys, plain.cache.values }, *const after[2] = { stressed.cache.keys, stressed.cache.values };
    for (size_t i = 0; i < (size_t)2 * it.model.layers * it.model.kv_heads; i++) {
        size_t changed = 0;
        for (size_t c = 0; c < 64; c++) {
            const size_t at = (i / 2 * ROOM + TOKENS - 1) * 64 + c;
            const float factor = after[i % 2][at] / before[i % 2][at];
            ck_assert(factor == 1 || factor == 8);
            changed += factor == 8;
            if (i % 2 == 0 && c % 2 == 1)
                ck_assert_uint_eq(changed % 2, 0);
        }
        ck_assert_uint_eq(changed, i % 2 == 0 ? 8 : 4);
    }
    free(logits);
    forward_close(&plain);
    forward_close(&stressed);
    pool_close(threads);
    close_book(&it);
}
END_TEST

/* All tokens at once, by several threads, and one after the other: the same bits, also of a text that is no multiple of anything. */
START_TEST(pass_is_token_by_token)
{
    enum { TOKENS = KVT_TEST_SHARE > 1 ? 70 : 203, ROOM = TOKENS + 3 };
    book it;
    error_text error = { "" };
    open_book(&it, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin");
    it.model.kinds[1].window = 33; /* of a layer, as some models have */
    const size_t dim = it.model.dim;
    float *last = malloc(TOKENS * dim * sizeof *last);
    float *logits = malloc(it.model.vocabulary * sizeof *logits);
    ck_assert(last != NULL && logits != NULL);
    for (unsigned workers = 1; workers <= 3; workers += 2) {
        forward_state state;
        pass_state *pass;
        pool *threads = open_pool(workers);
        open_state(&state, &it.model, &REFERENCE, ROOM, threads);
        ck_assert_int_eq(pass_open(&pass, &it.model, ROOM, threads, &error), 0);
        pass_run(pass, it.tokens, TOKENS, NULL, last);
        for (size_t i = 0; i < TOKENS; i++) {
            forward_token(&state, it.tokens[i], i);
            ck_assert_mem_eq(state.rows.normed, last + i * dim, dim * sizeof *last);
            layer_predict(&state.rows, last + i * dim, 1, logits);
            ck_assert_mem_eq(state.logits, logits, it.model.vocabulary * sizeof *logits);
        }
        pass_close(pass);
        forward_close(&state);
        pool_close(threads);
    }
    free(last);
    free(logits);
    close_book(&it);
}
END_TEST

/* Models that this engine reads, but whose rows or groups kvtile does not store or attend to: errors, and no memory is left behind. */
START_TEST(limits_of_kvtile)
{
    pool *threads = open_pool(1);
    static const struct {
        uint32_t heads, kv_heads, head_dim;
        const char *part;
    } cases[] = { { 1, 1, 1026, "head_dim is 1026" }, { 258, 2, 16, "heads is 258 with 2 kv heads: a group" } };
    for (size_t i = 0; i < 2; i++) {
        const uint32_t dim = cases[i].heads * cases[i].head_dim;
        static double frequencies[2 * 1026];
        layer_kind kind = { .rope = ROPE_WHOLE };
        const checkpoint model = { .dim = dim,
                                   .kinds = &kind,
                                   .frequencies = frequencies,
                                   .ffn = 1,
                                   .layers = 1,
                                   .vocabulary = 5,
                                   .context = 64,
                                   .heads = cases[i].heads,
                                   .kv_heads = cases[i].kv_heads,
                                   .head_dim = cases[i].head_dim,
                                   .kv_dim = cases[i].kv_heads * cases[i].head_dim };
        forward_state state;
        error_text error = { "" };
        ck_assert_int_eq(forward_open(&state, &model, &F32_TILES, 64, 1, threads, &error), -1);
        ck_assert_msg(strstr(error.text, cases[i].part) != NULL, "%s", error.text);
        open_state(&state, &model, &REFERENCE, 64, threads);
        forward_close(&state);
    }
    pool_close(threads);
}
END_TEST

/* Perplexity over the stories of a text, each run alone, trimmed, after BOS. */
static double perplexity_of_stories(const checkpoint *model, const tokenizer *words, bool predicts_bos, bool plain_quotes)
{
    file_map map;
    forward_state state;
    error_text error = { "" };
    ck_assert_int_eq(file_map_open(&map, KVT_SHARED_DIR "/data/text/tinystories_sample.txt", &error), 0);
    /* Typographic ones are U+2018 to U+201D. */
    uint8_t *text = malloc(map.size), *end = text;
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < map.size; i++) {
        const bool quote = plain_quotes && i + 2 < map.size && map.data[i] == 0xe2 && map.data[i + 1] == 0x80;
        *end++ = !quote ? map.data[i] : map.data[i + 2] < 0x9b ? '\'' : '"';
        i += quote ? 2 : 0;
    }
    pool *threads = open_pool(1);
    open_state(&state, model, &REFERENCE, model->context, threads);
    static const char separator[] = "<|endoftext|>";
    double surprise = 0;
    size_t n_predicted = 0;
    for (const uint8_t *story = text; story < end;) {
        const uint8_t *next = memmem(story, (size_t)(end - story), separator, sizeof separator - 1);
        const uint8_t *last = next != NULL ? next : end;
        while (story < last && *story <= ' ')
            story++;
        while (story < last && last[-1] <= ' ')
            last--;
        uint32_t *tokens;
        size_t n;
        ck_assert_int_eq(tokenizer_encode(words, true, story, (size_t)(last - story), &tokens, &n, &error), 0);
        if (last > story) {
            if (predicts_bos)
                tokens[n++] = words->bos; /* there is room: a space was merged */
            surprise += surprise_of(&state, tokens, n);
            n_predicted += n - 1;
        }
        free(tokens);
        story = next != NULL ? next + sizeof separator - 1 : end;
    }
    forward_close(&state);
    pool_close(threads);
    file_map_close(&map);
    free(text);
    return exp(surprise / (double)n_predicted);
}

static double perplexity_of_known(const char *model_path, const char *tokenizer_path, bool predicts_bos, bool plain_quotes)
{
    checkpoint model;
    tokenizer words;
    error_text error = { "" };
    ck_assert_msg(checkpoint_open(&model, model_path, &error) == 0, "%s", error.text);
    ck_assert_msg(tokenizer_open(&words, tokenizer_path, model.vocabulary, &error) == 0, "%s", error.text);
    words.bos = model.bos;
    const double perplexity = perplexity_of_stories(&model, &words, predicts_bos, plain_quotes);
    tokenizer_close(&words);
    checkpoint_close(&model);
    return perplexity;
}

/* The figures known for these models are 3.54 and 17.5; how they were taken is not. This way agrees; in the first, the BOS of the next story is
 * predicted too, without which it is 3.548, and with untrimmed stories 3.8; the second has no tokens for typographic quotes. */
START_TEST(known_perplexities)
{
    test_needs_time(); /* the engine is plain C, and a minute of emulation tells no more than a book */
    test_needs(KVT_SHARED_DIR "/data/stories260K");
    ck_assert_double_eq_tol(
        perplexity_of_known(KVT_SHARED_DIR "/data/stories260K/stories260K.bin", KVT_SHARED_DIR "/data/stories260K/tok512.bin", true, false), 3.54,
        0.005);
    ck_assert_double_eq_tol(
        perplexity_of_known(KVT_SHARED_DIR "/data/tinystories-656K", KVT_SHARED_DIR "/data/tinystories-656K/tokenizer.json", false, true), 17.5,
        0.05);
}
END_TEST

static void remove_temporary(void)
{
    remove(temporary());
}

int main(void)
{
    Suite *suite = suite_create("engine");
    TCase *all = tcase_create("all");
    tcase_set_timeout(all, 600); /* for emulators */
    tcase_add_checked_fixture(all, NULL, remove_temporary);
    tcase_add_test(all, checkpoint_forms);
    tcase_add_test(all, checkpoint_hostile);
    tcase_add_test(all, tokenizer_encodes);
    tcase_add_test(all, tokenizer_hostile);
    tcase_add_test(all, tokenizer_decodes);
    tcase_add_test(all, pool_runs_all);
    tcase_add_test(all, demonstration_model);
    tcase_add_test(all, f32_tiles_are_the_reference);
    tcase_add_test(all, threads_change_nothing);
    tcase_add_test(all, generates_this_text);
    tcase_add_test(all, samples_as_the_model_says);
    tcase_add_test(all, captures_what_attention_sees);
    tcase_add_test(all, context_is_the_limit);
    tcase_add_test(all, stress_changes_no_logit);
    tcase_add_test(all, pass_is_token_by_token);
    tcase_add_test(all, limits_of_kvtile);
    tcase_add_test(all, folder_forms);
    tcase_add_test(all, folder_hostile);
    tcase_add_test(all, long_contexts);
    tcase_add_test(all, tokenizer_json);
    tcase_add_test(all, tokenizer_json_hostile);
    tcase_add_test(all, tokenizer_json_forms);
    tcase_add_test(all, pieces);
    tcase_add_test(all, split_behaviours);
    tcase_add_test(all, expressions_refused);
    tcase_add_test(all, linear_time);
    suite_add_tcase(suite, all);
    TCase *whole = tcase_create("the whole context");
    tcase_set_timeout(whole, 600);
    tcase_set_tags(whole, "whole");
    tcase_add_test(whole, demonstration_model_whole_context);
    suite_add_tcase(suite, whole);
    TCase *shared = tcase_create("models that are not in the tree");
    tcase_set_timeout(shared, 600);
    tcase_set_tags(shared, TEST_NEEDS_DATA);
    tcase_add_test(shared, demonstration_model_in_f32);
    tcase_add_test(shared, known_perplexities);
    suite_add_tcase(suite, shared);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
