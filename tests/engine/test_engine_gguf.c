/* SPDX-License-Identifier: MIT */
/* GGUF files of whole models: weights in every number format, tokenizers, and files that are wrong. `test_engine_gguf --write FILE` writes the model
 * of the demonstration as such a file, f16, for tests of commands; `--write-tiny FILE` a small one, to fuzz. */
#define _POSIX_C_SOURCE 200809L
#include "tests/lib/support.h"

#include "tools/engine/chat.h"
#include "tools/engine/checkpoint.h"
#include "tools/engine/numbers.h"
#include "tools/engine/tokenizer_read.h"
#include "tools/files/gguf.h"
#include "tools/files/number.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- writing --------------------------------------------------------------------------------------------------------------------- */

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q4_K = 12, Q8_0 = 8, BF16 = 30 }; /* ggml's numbers of types */

/* Bytes that grow. */
typedef struct bytes {
    uint8_t *data;
    size_t size, room;
} bytes;

static void put(bytes *to, const void *from, size_t size)
{
    if (to->size + size > to->room) {
        to->room = 2 * (to->size + size);
        to->data = realloc(to->data, to->room);
        TEST_REQUIRE(to->data != NULL, "out of memory");
    }
    if (size > 0)
        memcpy(to->data + to->size, from, size);
    to->size += size;
}

static void put_u32(bytes *to, uint32_t value)
{
    put(to, &value, sizeof value);
}

static void put_u64(bytes *to, uint64_t value)
{
    put(to, &value, sizeof value);
}

static void put_text(bytes *to, const char *text, size_t length)
{
    put_u64(to, length);
    put(to, text, length);
}

/* A file in the making. */
typedef struct writer {
    bytes keys, tensors, data;
    uint64_t n_keys, n_tensors;
    size_t first, end, seen; /* of the tensors that are added, those from first to end - 1 are in the file; end 0: all */
} writer;

static bytes *add_key(writer *to, const char *key, uint32_t type)
{
    put_text(&to->keys, key, strlen(key));
    put_u32(&to->keys, type);
    to->n_keys++;
    return &to->keys;
}

static void add_u32(writer *to, const char *key, uint32_t value)
{
    put_u32(add_key(to, key, GGUF_U32), value);
}

static void add_f32(writer *to, const char *key, float value)
{
    put(add_key(to, key, GGUF_F32), &value, sizeof value);
}

static void add_string(writer *to, const char *key, const char *value)
{
    put_text(add_key(to, key, GGUF_STRING), value, strlen(value));
}

static bytes *add_list(writer *to, const char *key, uint32_t type, uint64_t count)
{
    put_u32(add_key(to, key, GGUF_LIST), type);
    put_u64(&to->keys, count);
    return &to->keys;
}

/* What lies in 32 channels: multiples of 1/16 from -8/16 to 7/16, which all formats hold exactly. */
static void put_block(bytes *to, uint32_t type, const float *from)
{
    static const uint8_t sixteenth[2] = { 0x00, 0x2c }; /* f16 2^-4 */
    put(to, sixteenth, 2);
    for (size_t i = 0; type == Q8_0 && i < 32; i++)
        put(to, &(int8_t){ (int8_t)(from[i] * 16) }, 1);
    for (size_t i = 0; type == Q4_0 && i < 16; i++)
        put(to, &(uint8_t){ (uint8_t)((int)(from[i] * 16) + 8 + 16 * ((int)(from[i + 16] * 16) + 8)) }, 1);
}

/* rows 0: a vector. */
static void add_tensor(writer *to, const char *name, uint32_t type, const float *from, size_t rows, size_t columns)
{
    static const uint8_t zeros[32] = { 0 };
    const size_t index = to->seen++;
    if (to->end > 0 && (index < to->first || index >= to->end))
        return;
    put(&to->data, zeros, (32 - to->data.size % 32) % 32);
    put_text(&to->tensors, name, strlen(name));
    put_u32(&to->tensors, rows > 0 ? 2 : 1);
    put_u64(&to->tensors, columns);
    if (rows > 0)
        put_u64(&to->tensors, rows);
    put_u32(&to->tensors, type);
    put_u64(&to->tensors, to->data.size);
    to->n_tensors++;
    const size_t n = (rows > 0 ? rows : 1) * columns;
    for (size_t i = 0; (type == Q8_0 || type == Q4_0) && i < n; i += 32)
        put_block(&to->data, type, from + i);
    for (size_t i = 0; type != Q8_0 && type != Q4_0 && i < n; i++) {
        const uint32_t bits = load_u32(&from[i]);
        const uint16_t half = type == F16 ? f32_to_f16(from[i]) : (uint16_t)(bits >> 16);
        put(&to->data, type == F32 ? (const void *)&bits : &half, type == F32 ? 4 : 2);
    }
}

/* The parts in their order; they are freed. */
static bytes finish(writer *from)
{
    static const uint8_t zeros[32] = { 0 };
    bytes file = { NULL, 0, 0 };
    put(&file, "GGUF\3\0\0", 8);
    put_u64(&file, from->n_tensors);
    put_u64(&file, from->n_keys);
    put(&file, from->keys.data, from->keys.size);
    put(&file, from->tensors.data, from->tensors.size);
    put(&file, zeros, (32 - file.size % 32) % 32);
    put(&file, from->data.data, from->data.size);
    free(from->keys.data);
    free(from->tensors.data);
    free(from->data.data);
    *from = (writer){ .n_keys = 0 };
    return file;
}

/* ---- models ---------------------------------------------------------------------------------------------------------------------- */

/* Vectors are f32, as llama.cpp's converter leaves them; matrices of `type`. */
static void add_weights(writer *to, const checkpoint *m, uint32_t type)
{
    const size_t dim = m->dim, ffn = m->ffn;
    add_tensor(to, "token_embd.weight", type, m->embedding, m->vocabulary, dim);
    if (m->own_classifier)
        add_tensor(to, "output.weight", type, m->classifier, m->vocabulary, dim);
    for (size_t layer = 0; layer < m->layers; layer++) {
        const struct {
            const char *name;
            const float *from;
            size_t rows, columns;
        } all[] = { { "attn_norm", m->rms_att + layer * dim, 0, dim },
                    { "attn_q", m->wq + layer * m->q_dim * dim, m->q_dim, dim },
                    { "attn_k", m->wk + layer * m->kv_dim * dim, m->kv_dim, dim },
                    { "attn_v", m->wv + layer * m->kv_dim * dim, m->kv_dim, dim },
                    { "attn_output", m->wo + layer * m->q_dim * dim, dim, m->q_dim },
                    { "ffn_norm", m->rms_ffn + layer * dim, 0, dim },
                    { "ffn_gate", m->w1 + layer * ffn * dim, ffn, dim },
                    { "ffn_down", m->w2 + layer * ffn * dim, dim, ffn },
                    { "ffn_up", m->w3 + layer * ffn * dim, ffn, dim } };
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            char name[64];
            snprintf(name, sizeof name, "blk.%zu.%s.weight", layer, all[i].name);
            add_tensor(to, name, all[i].rows > 0 ? type : F32, all[i].from, all[i].rows, all[i].columns);
        }
    }
    add_tensor(to, "output_norm.weight", F32, m->rms_final, 0, dim);
}

/* Keys of an architecture. */
static void add_u32_as(writer *to, const char *architecture, const char *name, uint32_t value)
{
    char key[64];
    snprintf(key, sizeof key, "%s.%s", architecture, name);
    add_u32(to, key, value);
}

static void add_sizes_as(writer *to, const checkpoint *m, const char *architecture)
{
    char key[64];
    add_string(to, "general.architecture", architecture);
    add_u32_as(to, architecture, "embedding_length", m->dim);
    add_u32_as(to, architecture, "feed_forward_length", m->ffn);
    add_u32_as(to, architecture, "block_count", m->layers);
    add_u32_as(to, architecture, "attention.head_count", m->heads);
    add_u32_as(to, architecture, "attention.head_count_kv", m->kv_heads);
    add_u32_as(to, architecture, "context_length", m->context);
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", architecture);
    add_f32(to, key, m->rms_epsilon);
    add_u32(to, "tokenizer.ggml.bos_token_id", m->bos);
    add_u32(to, "tokenizer.ggml.eos_token_id", m->eos);
}

static void add_sizes(writer *to, const checkpoint *m)
{
    add_sizes_as(to, m, "llama");
}

/* llama2.c's tokens as sentencepiece has them: 0 is unknown, 1 and 2 are control tokens, 3 .. 258 single bytes, spaces U+2581. */
static void add_sentencepiece(writer *to, const tokenizer *words)
{
    add_string(to, "tokenizer.ggml.model", "llama");
    bytes *list = add_list(to, "tokenizer.ggml.tokens", GGUF_STRING, words->size);
    for (uint32_t i = 0; i < words->size; i++) {
        const token *entry = &words->tokens[i];
        char text[1024] = "";
        size_t n = 0;
        if (i >= TOKEN_FIRST_BYTE && i < TOKEN_FIRST_BYTE + 256)
            n = (size_t)snprintf(text, sizeof text, "<0x%02X>", i - TOKEN_FIRST_BYTE);
        else if (i < TOKEN_FIRST_BYTE)
            n = (size_t)snprintf(text, sizeof text, "%s", i == 0 ? "<unk>" : i == TOKEN_BOS ? "<s>" : "</s>");
        for (uint32_t c = 0; n == 0 && c < entry->length; c++) {
            const bool space = entry->bytes[c] == ' ';
            memcpy(text + strlen(text), space ? "\xe2\x96\x81" : (const char *)&entry->bytes[c], space ? 3 : 1);
        }
        put_text(list, text, strlen(text));
    }
    list = add_list(to, "tokenizer.ggml.scores", GGUF_F32, words->size);
    for (uint32_t i = 0; i < words->size; i++)
        put(list, &words->tokens[i].score, sizeof(float));
    list = add_list(to, "tokenizer.ggml.token_type", GGUF_I32, words->size);
    for (uint32_t i = 0; i < words->size; i++)
        put_u32(list, i == 0 ? 2 : i < TOKEN_FIRST_BYTE ? 3 : i < TOKEN_FIRST_BYTE + 256 ? 6 : 1);
}

static void open_demo(checkpoint *model, tokenizer *words)
{
    error_text error = { "" };
    TEST_REQUIRE(checkpoint_open(model, KVT_DEMO_DIR "/gutenberg-3.5M.f16.bin", &error) == 0, "%s", error.text);
    TEST_REQUIRE(tokenizer_open(words, KVT_DEMO_DIR "/tok2048.bin", model->vocabulary, &error) == 0, "%s", error.text);
}

static bytes make_demo(void)
{
    checkpoint model;
    tokenizer words;
    writer to = { .n_keys = 0 };
    open_demo(&model, &words);
    add_sizes(&to, &model);
    add_sentencepiece(&to, &words);
    add_weights(&to, &model, F16);
    tokenizer_close(&words);
    checkpoint_close(&model);
    return finish(&to);
}

/* A model whose weights all formats hold exactly. */
static void make_tiny(checkpoint *m, bool own_classifier)
{
    error_text error = { "" };
    *m = (checkpoint){ .dim = 32,
                       .ffn = 64,
                       .layers = 2,
                       .heads = 4,
                       .kv_heads = 2,
                       .vocabulary = 9,
                       .context = 16,
                       .own_classifier = own_classifier,
                       .bos = 1,
                       .eos = 2,
                       .head_dim = 8,
                       .q_dim = 32,
                       .kv_dim = 16,
                       .rms_epsilon = 1e-5f };
    TEST_REQUIRE(checkpoint_make(m, &error) == 0, "%s", error.text);
    checkpoint_set_frequencies(m, 10000);
    for (size_t i = 0; i < m->n_weights; i++)
        m->weights[i] = ((float)((i * 7919 + i / 32 * 5 + 13) % 16) - 8) / 16;
}

static const char *const LEVEL_TOKENS[] = { "a", "\u0120", "\u0120a", "\u00c3", "\u00a9", "\u00c3\u00a9", "aa", "1", "11" };
enum { N_LEVEL = sizeof LEVEL_TOKENS / sizeof *LEVEL_TOKENS };

static void put_texts(bytes *list, const char *const *texts, size_t n)
{
    for (size_t i = 0; i < n; i++)
        put_text(list, texts[i], strlen(texts[i]));
}

static void add_level(writer *to, const char *pre)
{
    static const char *const merges[] = { "\u0120 a", "\u00c3 \u00a9", "1 1" };
    add_string(to, "tokenizer.ggml.model", "gpt2");
    add_string(to, "tokenizer.ggml.pre", pre);
    put_texts(add_list(to, "tokenizer.ggml.tokens", GGUF_STRING, N_LEVEL), LEVEL_TOKENS, N_LEVEL);
    put_texts(add_list(to, "tokenizer.ggml.merges", GGUF_STRING, 3), merges, 3);
}

/* ---- reading --------------------------------------------------------------------------------------------------------------------- */

/* From bytes of exactly that size, so that AddressSanitizer sees every read beyond them. 0 or -1. */
static int read_model(const uint8_t *data, size_t size, checkpoint *model, error_text *error)
{
    uint8_t *copy = test_malloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    *model = (checkpoint){ .dim = 0 };
    *error = (error_text){ "" };
    const int result = checkpoint_read_gguf(model, NULL, copy, size, error);
    free(copy);
    TEST_REQUIRE(result == 0 || *error->text, "a failure without a reason");
    if (result != 0)
        checkpoint_close(model);
    return result;
}

static int read_tokenizer(const uint8_t *data, size_t size, uint32_t tokens, tokenizer *words, error_text *error)
{
    tokenizer_begin(words, tokens);
    words->map = (file_map){ data, size };
    return tokenizer_read_gguf(words, error);
}

static void close_tokenizer(tokenizer *words)
{
    words->map = (file_map){ NULL, 0 }; /* which was not opened */
    tokenizer_close(words);
}

START_TEST(every_number_format)
{
    static const uint32_t types[] = { F32, F16, BF16, Q8_0, Q4_0 };
    for (size_t i = 0; i < 10; i++) {
        checkpoint tiny, model;
        error_text error;
        writer to = { .n_keys = 0 };
        make_tiny(&tiny, i >= 5);
        add_sizes(&to, &tiny);
        add_level(&to, "gpt-2");
        add_weights(&to, &tiny, types[i % 5]);
        bytes file = finish(&to);
        ck_assert_msg(read_model(file.data, file.size, &model, &error) == 0, "%s", error.text);
        ck_assert_uint_eq(model.n_weights, tiny.n_weights);
        ck_assert_int_eq(memcmp(model.weights, tiny.weights, model.n_weights * sizeof *model.weights), 0);
        ck_assert_int_eq(memcmp(model.frequencies, tiny.frequencies, model.head_dim / 2 * sizeof *model.frequencies), 0);
        ck_assert(model.rms_epsilon == tiny.rms_epsilon && model.own_classifier == tiny.own_classifier);
        ck_assert(model.context == 16 && model.head_dim == 8 && model.vocabulary == 9 && model.bos == 1 && model.eos == 2);
        free(file.data);
        checkpoint_close(&model);
        checkpoint_close(&tiny);
    }
}
END_TEST

/* Blocks of random bytes, and what PyPI's gguf makes of them. */
START_TEST(golden_numbers)
{
    static const struct {
        uint32_t type;
        const char *block;
        size_t size;
        uint64_t hash;
    } rows[] = {
#define NUMBERS_GOLDEN(type, block, hash) { type, block, sizeof(block) - 1, hash },
#include "tests/engine/golden_numbers.def"
#undef NUMBERS_GOLDEN
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const numbers_format *format = numbers_find(rows[i].type);
        uint8_t *exactly = test_malloc(rows[i].size);
        float numbers[256];
        ck_assert_ptr_nonnull(format);
        ck_assert_uint_eq(format->bytes, rows[i].size);
        memcpy(exactly, rows[i].block, rows[i].size);
        format->decode(exactly, 1, numbers);
        uint64_t hash = 0xcbf29ce484222325;
        for (size_t j = 0; j < format->block * sizeof *numbers; j++)
            hash = (hash ^ ((const uint8_t *)numbers)[j]) * 0x100000001b3;
        ck_assert_msg(hash == rows[i].hash, "%s: numbers of hash %016" PRIx64 ", not %016" PRIx64, format->name, hash, rows[i].hash);
        free(exactly);
    }
}
END_TEST

/* Tensors of other architectures come to the same places: biases and norms, rows of pairs half a head apart, several matrices in one tensor. What is
 * computed from them is compared with llama.cpp by compare_gguf.py. */
static void use_architecture(checkpoint *m, const char *name, bool has_biases, bool has_norms)
{
    error_text error = { "" };
    make_tiny(m, true);
    checkpoint sizes = *m;
    checkpoint_close(m);
    sizes.q_bias = has_biases ? sizes.q_dim : 0;
    sizes.kv_bias = has_biases ? sizes.kv_dim : 0;
    sizes.head_norm = has_norms ? sizes.head_dim : 0;
    sizes.after_norm = strcmp(name, "gemma3") == 0 ? sizes.dim : 0;
    *m = sizes;
    TEST_REQUIRE(checkpoint_make(m, &error) == 0, "%s", error.text);
    for (size_t i = 0; i < m->n_weights; i++)
        m->weights[i] = (float)(i % 1021) / 16;
}

/* Row (or channel) `row` of a file whose pairs are half a head apart, of the model's. */
static size_t apart(const checkpoint *m, size_t row)
{
    const size_t half = m->head_dim / 2, channel = row % m->head_dim;
    return row - channel + channel % half * 2 + channel / half;
}

static void put_apart(float *to, const checkpoint *m, const float *from, size_t rows, size_t width)
{
    for (size_t row = 0; row < rows; row++)
        memcpy(to + row * width, from + apart(m, row) * width, width * sizeof *to);
}

static void add_architecture(writer *to, const checkpoint *m, bool joined)
{
    const size_t dim = m->dim, q = m->q_dim, kv = m->kv_dim, ffn = m->ffn;
    float rows[(32 + 16 + 16) * 32], both[2 * 64 * 32];
    char name[64];
    add_tensor(to, "token_embd.weight", F32, m->embedding, m->vocabulary, dim);
    add_tensor(to, "output.weight", F32, m->classifier, m->vocabulary, dim);
    add_tensor(to, "output_norm.weight", F32, m->rms_final, 0, dim);
#define ADD(what, from, rows, columns) (snprintf(name, sizeof name, "blk.%zu." what, layer), add_tensor(to, name, F32, from, rows, columns))
    for (size_t layer = 0; layer < m->layers; layer++) {
        ADD("attn_norm.weight", m->rms_att + layer * dim, 0, dim);
        ADD("ffn_norm.weight", m->rms_ffn + layer * dim, 0, dim);
        ADD("attn_output.weight", m->wo + layer * dim * q, dim, q);
        ADD("ffn_down.weight", m->w2 + layer * ffn * dim, dim, ffn);
        put_apart(rows, m, m->wq + layer * q * dim, q, dim);
        put_apart(rows + q * dim, m, m->wk + layer * kv * dim, kv, dim);
        memcpy(rows + (q + kv) * dim, m->wv + layer * kv * dim, kv * dim * sizeof *rows);
        memcpy(both, m->w1 + layer * ffn * dim, ffn * dim * sizeof *both);
        memcpy(both + ffn * dim, m->w3 + layer * ffn * dim, ffn * dim * sizeof *both);
        if (joined) {
            ADD("attn_qkv.weight", rows, q + 2 * kv, dim);
            ADD("ffn_up.weight", both, 2 * ffn, dim);
        } else {
            ADD("attn_q.weight", rows, q, dim);
            ADD("attn_k.weight", rows + q * dim, kv, dim);
            ADD("attn_v.weight", rows + (q + kv) * dim, kv, dim);
            ADD("ffn_gate.weight", both, ffn, dim);
            ADD("ffn_up.weight", both + ffn * dim, ffn, dim);
        }
        if (m->q_bias > 0) {
            put_apart(rows, m, m->bq + layer * q, q, 1);
            ADD("attn_q.bias", rows, 0, q);
            put_apart(rows, m, m->bk + layer * kv, kv, 1);
            ADD("attn_k.bias", rows, 0, kv);
            ADD("attn_v.bias", m->bv + layer * kv, 0, kv);
        }
        if (m->head_norm > 0) {
            put_apart(rows, m, m->rms_q + layer * m->head_dim, m->head_dim, 1);
            ADD("attn_q_norm.weight", rows, 0, m->head_dim);
            put_apart(rows, m, m->rms_k + layer * m->head_dim, m->head_dim, 1);
            ADD("attn_k_norm.weight", rows, 0, m->head_dim);
        }
        if (m->after_norm > 0) {
            ADD("post_attention_norm.weight", m->rms_wo + layer * dim, 0, dim);
            ADD("post_ffw_norm.weight", m->rms_w2 + layer * dim, 0, dim);
        }
    }
#undef ADD
}

START_TEST(architectures)
{
    static const struct {
        const char *name;
        bool biases, norms, joined;
    } all[] = { { "qwen2", true, false, false }, { "qwen3", false, true, false }, { "gemma3", false, true, false }, { "phi3", false, false, true } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        checkpoint expected, model;
        error_text error;
        writer to = { .n_keys = 0 };
        const bool gemma = strcmp(all[i].name, "gemma3") == 0;
        use_architecture(&expected, all[i].name, all[i].biases, all[i].norms);
        add_sizes_as(&to, &expected, all[i].name);
        add_u32_as(&to, all[i].name, "vocab_size", 9);
        add_u32_as(&to, all[i].name, "attention.sliding_window", 5);
        add_u32_as(&to, all[i].name, "attention.sliding_window_pattern", gemma ? 2 : 1);
        add_architecture(&to, &expected, all[i].joined);
        bytes file = finish(&to);
        ck_assert_msg(read_model(file.data, file.size, &model, &error) == 0, "%s: %s", all[i].name, error.text);
        ck_assert_uint_eq(model.n_weights, expected.n_weights);
        for (size_t j = 0; j < model.n_weights; j++)
            ck_assert_msg(model.weights[j] == expected.weights[j], "%s: weight %zu", all[i].name, j);
        ck_assert(model.gelu == gemma && (model.embedding_scale != 0) == gemma);
        ck_assert(model.kinds[0].window == 5 && model.kinds[1].window == (gemma ? 0 : 5));
        ck_assert(model.kinds[0].rope == (gemma ? ROPE_LOCAL : ROPE_WHOLE) && model.kinds[1].rope == ROPE_WHOLE);
        free(file.data);
        checkpoint_close(&model);
        checkpoint_close(&expected);
    }
}
END_TEST

START_TEST(rope)
{
    checkpoint tiny, model;
    error_text error;
    writer to = { .n_keys = 0 };
    static const float divisors[4] = { 1, 2, 4, 32 };
    make_tiny(&tiny, false);
    add_sizes(&to, &tiny);
    add_u32(&to, "llama.vocab_size", 9);
    add_f32(&to, "llama.rope.freq_base", 500000);
    add_string(&to, "llama.rope.scaling.type", "linear");
    add_f32(&to, "llama.rope.scaling.factor", 4);
    add_tensor(&to, "rope_freqs.weight", F32, divisors, 0, 4);
    add_weights(&to, &tiny, F32);
    bytes file = finish(&to);
    ck_assert_msg(read_model(file.data, file.size, &model, &error) == 0, "%s", error.text);
    checkpoint_set_frequencies(&tiny, 500000);
    for (size_t i = 0; i < 4; i++)
        ck_assert(model.frequencies[i] == tiny.frequencies[i] / 4 / (double)divisors[i]);
    free(file.data);
    checkpoint_close(&model);
    checkpoint_close(&tiny);
}
END_TEST

/* The demonstration's tokenizer in both forms gives the same tokens of a whole text. */
START_TEST(sentencepiece)
{
    checkpoint model;
    tokenizer known, words;
    file_map text;
    error_text error = { "" };
    uint32_t *expected, *tokens;
    size_t n_expected, n;
    bytes file = make_demo();
    open_demo(&model, &known);
    ck_assert_msg(read_tokenizer(file.data, file.size, model.vocabulary, &words, &error) == 0, "%s", error.text);
    ck_assert_int_eq(file_map_open(&text, KVT_DEMO_DIR "/chesterton-brown.txt", &error), 0);
    ck_assert_int_eq(tokenizer_encode(&known, false, text.data, text.size, &expected, &n_expected, &error), 0);
    ck_assert_int_eq(tokenizer_encode(&words, false, text.data, text.size, &tokens, &n, &error), 0);
    ck_assert_uint_gt(n, 1000);
    ck_assert_uint_eq(n, n_expected);
    ck_assert_int_eq(memcmp(tokens, expected, n * sizeof *tokens), 0);
    ck_assert_uint_eq(words.unknown, NO_TOKEN);
    free(expected);
    free(tokens);
    file_map_close(&text);
    close_tokenizer(&words);
    tokenizer_close(&known);
    checkpoint_close(&model);
    free(file.data);
}
END_TEST

/* `kinds`: of the tokens, or NULL. */
static void encode_as(const char *pre, const int32_t *kinds, const char *text, const char *expected)
{
    tokenizer words;
    writer to = { .n_keys = 0 };
    error_text error = { "" };
    uint32_t *tokens;
    size_t n;
    char got[64] = "";
    add_string(&to, "general.architecture", "llama");
    add_level(&to, pre);
    if (kinds != NULL)
        put(add_list(&to, "tokenizer.ggml.token_type", GGUF_I32, N_LEVEL), kinds, N_LEVEL * sizeof *kinds);
    bytes file = finish(&to);
    ck_assert_msg(read_tokenizer(file.data, file.size, N_LEVEL, &words, &error) == 0, "%s", error.text);
    ck_assert_msg(tokenizer_encode(&words, false, (const uint8_t *)text, strlen(text), &tokens, &n, &error) == 0, "%s", error.text);
    for (size_t i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%u", i == 0 ? "" : " ", tokens[i]);
    ck_assert_msg(strcmp(got, expected) == 0, "'%s' is %s, not %s", text, got, expected);
    free(tokens);
    close_tokenizer(&words);
    free(file.data);
}

START_TEST(byte_level)
{
    static const int32_t kinds[N_LEVEL] = { 1, 1, 1, 1, 1, 1, 4, 1, 1 };
    encode_as("gpt-2", NULL, "a a\xc3\xa9", "0 2 5");
    encode_as("gpt-2", NULL, "aa aa", "0 0 2 0"); /* no pair makes "aa" */
    encode_as("llama-bpe", NULL, "aa aa", "6 2 0");
    encode_as("gpt-2", kinds, "aa aa", "6 1 6");
    encode_as("gpt-2", NULL, "11", "8");
    encode_as("smollm", NULL, "11", "7 7");
    encode_as("qwen2", NULL, "11", "7 7");
    encode_as("deepseek-v3", NULL, "1111", "8 7 7"); /* 111, 1 */
    encode_as("gpt-4o", NULL, "a a\u00e9", "0 2 5");
    encode_as("deepseek-coder", NULL, "a a11", "0 2 7 7");
    encode_as("tekken", NULL, "aa aa", "6 2 0");
}
END_TEST

/* The tokens of a vocabulary say how a question is put, and which token ends the answer. */
START_TEST(chat)
{
    static const struct {
        const char *marker, *end, *expected;
    } cases[] = { { "<|im_start|>", "<|im_end|>", "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n" },
                  { "<start_of_turn>", "<end_of_turn>", "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n" },
                  { "<|start_header_id|>", "<|eot_id|>",
                    "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n" },
                  { "<|assistant|>", "<|end|>", "<|user|>\na<|end|>\n<|assistant|>\n" },
                  { "b", "c", NULL } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tokenizer words;
        writer to = { .n_keys = 0 };
        error_text error = { "" };
        const char *const tokens[] = { "a", cases[i].marker, cases[i].end };
        static const int32_t kinds[] = { 1, 3, 3 };
        add_string(&to, "general.architecture", "llama");
        add_string(&to, "tokenizer.ggml.model", "gpt2");
        add_string(&to, "tokenizer.ggml.pre", "gpt-2");
        put_texts(add_list(&to, "tokenizer.ggml.tokens", GGUF_STRING, 3), tokens, 3);
        put(add_list(&to, "tokenizer.ggml.token_type", GGUF_I32, 3), kinds, sizeof kinds);
        put_texts(add_list(&to, "tokenizer.ggml.merges", GGUF_STRING, 0), NULL, 0);
        bytes file = finish(&to);
        ck_assert_msg(read_tokenizer(file.data, file.size, 3, &words, &error) == 0, "%s", error.text);
        const chat_template *how = chat_find(&words, &error);
        if (cases[i].expected == NULL) {
            ck_assert_ptr_null(how);
            ck_assert_ptr_nonnull(strstr(error.text, "none of the tokens that mark a question"));
        } else {
            ck_assert_msg(how != NULL, "%s", error.text);
            char *text = chat_wrap(how, "a");
            ck_assert_str_eq(text, cases[i].expected);
            ck_assert_uint_eq(chat_end(how, &words), 2);
            free(text);
        }
        close_tokenizer(&words);
        free(file.data);
    }
}
END_TEST

/* ---- files that are wrong -------------------------------------------------------------------------------------------------------- */

/* Any file that ends early is refused. */
START_TEST(truncated)
{
    checkpoint tiny, model;
    tokenizer words;
    error_text error;
    writer to = { .n_keys = 0 };
    make_tiny(&tiny, true);
    add_sizes(&to, &tiny);
    add_level(&to, "gpt-2");
    add_weights(&to, &tiny, Q4_0);
    const size_t front = 24 + to.keys.size;
    bytes file = finish(&to);
    for (size_t n = 0; n < file.size; n++)
        ck_assert_msg(read_model(file.data, n, &model, &error) == -1, "%zu bytes of %zu were accepted", n, file.size);
    for (size_t n = 0; n < front; n++) {
        uint8_t *copy = test_malloc(n > 0 ? n : 1);
        memcpy(copy, file.data, n);
        ck_assert_msg(read_tokenizer(copy, n, N_LEVEL, &words, &error) == -1, "%zu bytes of %zu were accepted", n, front);
        close_tokenizer(&words);
        free(copy);
    }
    free(file.data);
    checkpoint_close(&tiny);
}
END_TEST

/* Something is put in the place of a key's value or a tensor's name: `change` is called between sizes and weights. */
static void refuse(const checkpoint *tiny, void (*change)(writer *), uint32_t type, const char *part)
{
    checkpoint model;
    error_text error;
    writer to = { .n_keys = 0 };
    add_sizes(&to, tiny);
    change(&to);
    add_weights(&to, tiny, type);
    bytes file = finish(&to);
    ck_assert_int_eq(read_model(file.data, file.size, &model, &error), -1);
    ck_assert_msg(strstr(error.text, part) != NULL, "'%s' does not say '%s'", error.text, part);
    free(file.data);
}

static void lacks_vocabulary(writer *to)
{
    (void)to;
}

static void has_experts(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
    add_u32(to, "llama.expert_count", 8);
}

static void has_odd_heads(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
    add_u32(to, "llama.attention.key_length", 7);
}

static void has_partial_rope(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
    add_u32(to, "llama.rope.dimension_count", 4);
}

static void has_yarn(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
    add_string(to, "llama.rope.scaling.type", "yarn");
}

static void has_other_base(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
    add_f32(to, "llama.rope.freq_base", -1);
}

static void has_other_vocabulary(writer *to)
{
    add_u32(to, "llama.vocab_size", 10);
}

static void has_large_vocabulary(writer *to)
{
    add_u32(to, "llama.vocab_size", 1 << 20);
}

static void has_bias(writer *to)
{
    static const float zeros[32] = { 0 };
    add_u32(to, "llama.vocab_size", 9);
    add_tensor(to, "blk.0.attn_q.bias", F32, zeros, 0, 32);
}

static void has_third_layer(writer *to)
{
    static const float zeros[32] = { 0 };
    add_u32(to, "llama.vocab_size", 9);
    add_tensor(to, "blk.2.attn_norm.weight", F32, zeros, 0, 32);
}

static void has_few_divisors(writer *to)
{
    static const float ones[4] = { 1, 1, 1, 1 };
    add_u32(to, "llama.vocab_size", 9);
    add_tensor(to, "rope_freqs.weight", F32, ones, 0, 3);
}

static void has_zero_divisor(writer *to)
{
    static const float zeros[4] = { 1, 0, 1, 1 };
    add_u32(to, "llama.vocab_size", 9);
    add_tensor(to, "rope_freqs.weight", F32, zeros, 0, 4);
}

static void has_alignment_zero(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
    add_u32(to, "general.alignment", 0);
}

static void has_vocabulary(writer *to)
{
    add_u32(to, "llama.vocab_size", 9);
}

START_TEST(hostile)
{
    static const struct {
        void (*change)(writer *);
        uint32_t type;
        const char *part;
    } cases[] = {
        { lacks_vocabulary, F32, "llama.vocab_size is missing: a whole number from 1" },
        { has_experts, F32, "llama.expert_count is 8, but must be 0" },
        { has_odd_heads, F32, "heads are 7 wide, but must be of an even width" },
        { has_partial_rope, F32, "llama.rope.dimension_count is 4, but must be 8" },
        { has_yarn, F32, "llama.rope.scaling.type is \"yarn\", but must be \"none\" or \"linear\"" },
        { has_other_base, F32, "llama.rope.freq_base is -1, but must be a positive number" },
        { has_other_vocabulary, F32, "tensor token_embd.weight: shape is not [10, 32], which would be right for the metadata" },
        { has_large_vocabulary, F32, "weights, as its metadata says, take more" },
        { has_bias, F32, "tensor blk.0.attn_q.bias: a model of this architecture and 2 layers has no such tensor" },
        { has_third_layer, F32, "tensor blk.2.attn_norm.weight: a model of this architecture and 2 layers has no such tensor" },
        { has_few_divisors, F32, "tensor rope_freqs.weight: 4 numbers of type F32 would be right" },
        { has_zero_divisor, F32, "tensor rope_freqs.weight: number 1 is 0" },
        { has_alignment_zero, F32, "general.alignment is 0, but must be a whole number from 1" },
        { has_vocabulary, Q4_K, "tensor token_embd.weight: rows are 32 numbers: blocks of 256 would be right for Q4_K" },
        { has_vocabulary, 77, "tensor token_embd.weight: dtype is type 77 of ggml: F32, F16, BF16, Q8_0, Q5_1," },
    };
    checkpoint tiny;
    make_tiny(&tiny, false);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refuse(&tiny, cases[i].change, cases[i].type, cases[i].part);
    /* Without a tensor of a layer, of another architecture, and of heads that differ. */
    tiny.layers = 1;
    writer to = { .n_keys = 0 };
    checkpoint model, two = tiny;
    error_text error;
    two.layers = 2;
    add_sizes(&to, &two);
    add_u32(&to, "llama.vocab_size", 9);
    add_weights(&to, &tiny, F32);
    bytes file = finish(&to);
    ck_assert_int_eq(read_model(file.data, file.size, &model, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "tensor blk.1.attn_norm.weight is missing"));
    free(file.data);
    add_string(&to, "general.architecture", "mamba");
    file = finish(&to);
    ck_assert_int_eq(read_model(file.data, file.size, &model, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "general.architecture is \"mamba\", but must be llama, qwen2,"));
    free(file.data);
    checkpoint_close(&tiny);
}
END_TEST

/* A tokenizer with one wrong key; score 3 is NaN. */
static void refuse_tokenizer(const char *model, const char *pre, size_t n_scores, const char *pair, uint32_t size, const char *part)
{
    tokenizer words;
    writer to = { .n_keys = 0 };
    error_text error = { "" };
    add_string(&to, "general.architecture", "llama");
    add_string(&to, "tokenizer.ggml.model", model);
    add_string(&to, "tokenizer.ggml.pre", pre);
    put_texts(add_list(&to, "tokenizer.ggml.tokens", GGUF_STRING, N_LEVEL), LEVEL_TOKENS, N_LEVEL);
    bytes *scores = add_list(&to, "tokenizer.ggml.scores", GGUF_F32, n_scores);
    for (size_t i = 0; i < n_scores; i++)
        put(scores, &(float){ i == 3 ? (float)NAN : 0 }, sizeof(float));
    if (pair != NULL)
        put_texts(add_list(&to, "tokenizer.ggml.merges", GGUF_STRING, 1), &pair, 1);
    bytes file = finish(&to);
    ck_assert_int_eq(read_tokenizer(file.data, file.size, size, &words, &error), -1);
    ck_assert_msg(strstr(error.text, part) != NULL, "'%s' does not say '%s'", error.text, part);
    close_tokenizer(&words);
    free(file.data);
}

START_TEST(hostile_tokenizer)
{
    refuse_tokenizer("bert", "gpt-2", 9, "1 1", 9, "tokenizer.ggml.model is \"bert\": llama or gpt2 would be right");
    refuse_tokenizer("gpt2", "viking", 9, "1 1", 9, "tokenizer.ggml.pre is \"viking\": gpt-2, ");
    refuse_tokenizer("gpt2", "gpt-2", 9, "1 1", 18, "has 9 tokens: the model's vocabulary is 18");
    refuse_tokenizer("gpt2", "gpt-2", 9, NULL, 9, "tokenizer.ggml.merges is missing");
    refuse_tokenizer("gpt2", "gpt-2", 9, "11", 9, "tokenizer.ggml.merges[0] is \"11\": two tokens with a space between");
    refuse_tokenizer("gpt2", "gpt-2", 9, "a 1", 9, "tokenizer.ggml.merges[0] is \"a 1\"");
    refuse_tokenizer("llama", "gpt-2", 8, NULL, 9, "tokenizer.ggml.scores is a list of 8, but must be a list of an f32 for each token");
    refuse_tokenizer("llama", "gpt-2", 9, NULL, 9, "tokenizer.ggml.scores[3] is not a number");
}
END_TEST

/* ---- the whole ------------------------------------------------------------------------------------------------------------------- */

static int save(const char *path, bytes file)
{
    FILE *stream = fopen(path, "wb");
    const bool good = stream && fwrite(file.data, 1, file.size, stream) == file.size;
    free(file.data);
    return stream && fclose(stream) == 0 && good ? 0 : 1;
}

static bytes make_tiny_file(void)
{
    checkpoint tiny;
    writer to = { .n_keys = 0 };
    make_tiny(&tiny, false);
    add_sizes(&to, &tiny);
    add_level(&to, "gpt-2");
    add_weights(&to, &tiny, Q4_0);
    checkpoint_close(&tiny);
    return finish(&to);
}

/* ---- models in several files ---- */

static char folder[] = "/tmp/kvtile_gguf_XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void save_in_folder(const char *name, bytes file)
{
    FILE *out = fopen(in_folder(name), "wb");
    TEST_REQUIRE(out != NULL && fwrite(file.data, 1, file.size, out) == file.size && fclose(out) == 0, "%s: cannot be written", name);
    free(file.data);
}

/* Part `part` of 3 of the tiny model, as gguf-split writes it: the first has all metadata. */
static bytes make_part(const checkpoint *model, uint16_t part, uint16_t said_part, uint16_t said_parts)
{
    static const size_t bounds[] = { 0, 5, 11, 1000 };
    writer to = { .first = bounds[part], .end = bounds[part + 1] };
    if (part == 0) {
        add_sizes(&to, model);
        add_u32(&to, "llama.vocab_size", model->vocabulary);
    }
    put(add_key(&to, "split.no", GGUF_U16), &said_part, sizeof said_part);
    put(add_key(&to, "split.count", GGUF_U16), &said_parts, sizeof said_parts);
    add_weights(&to, model, F32);
    return finish(&to);
}

static void expect_open_error(const char *name, const char *part)
{
    checkpoint model;
    error_text error = { "" };
    ck_assert_int_eq(checkpoint_open(&model, in_folder(name), &error), -1);
    ck_assert_msg(strstr(error.text, part) != NULL, "%s: %s", name, error.text);
    ck_assert_ptr_null(model.weights);
}

START_TEST(several_parts)
{
    checkpoint tiny, back;
    error_text error = { "" };
    make_tiny(&tiny, true);
    TEST_REQUIRE(mkdtemp(folder) != NULL, "no folder");
    const char *const names[] = { "m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf" };
    for (uint16_t i = 0; i < 3; i++)
        save_in_folder(names[i], make_part(&tiny, i, i, 3));
    TEST_REQUIRE(checkpoint_open(&back, in_folder(names[0]), &error) == 0, "%s", error.text);
    ck_assert_uint_eq(back.n_weights, tiny.n_weights);
    ck_assert_mem_eq(back.weights, tiny.weights, tiny.n_weights * sizeof *tiny.weights);
    checkpoint_close(&back);

    expect_open_error(names[1], "only the first part of a split model");
    remove(in_folder(names[2]));
    expect_open_error(names[0], "part 3 of 3, m-00003-of-00003.gguf: cannot be opened");
    save_in_folder(names[2], make_part(&tiny, 2, 1, 3));
    expect_open_error(names[0], "part 3 of 3, m-00003-of-00003.gguf: split.no is 1 of 3, but must be 2 of 3");
    save_in_folder(names[2], make_part(&tiny, 2, 2, 4));
    expect_open_error(names[0], "split.no is 2 of 4");
    save_in_folder(names[2], make_part(&tiny, 1, 2, 3));
    expect_open_error(names[0], "is missing");
    save_in_folder(names[1], (bytes){ .data = calloc(1, 8), .size = 8 });
    expect_open_error(names[0], "part 2 of 3, m-00002-of-00003.gguf: not GGUF");
    save_in_folder("m.gguf", make_part(&tiny, 0, 0, 3));
    expect_open_error("m.gguf", "must end in -00001-of-00003.gguf");
    save_in_folder("n-00001-of-00003.gguf", make_part(&tiny, 0, 3, 3));
    expect_open_error("n-00001-of-00003.gguf", "split.no is 3, but must be below split.count, 3");
    const bytes alone = make_part(&tiny, 0, 0, 3);
    ck_assert_int_eq(read_model(alone.data, alone.size, &back, &error), -1);
    ck_assert_msg(strstr(error.text, "beside the others") != NULL, "%s", error.text);
    free(alone.data);
    for (size_t i = 0; i < 3; i++)
        remove(in_folder(names[i]));
    remove(in_folder("m.gguf"));
    remove(in_folder("n-00001-of-00003.gguf"));
    rmdir(folder);
    checkpoint_close(&tiny);
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--write") == 0)
        return save(argv[2], make_demo());
    if (argc == 3 && strcmp(argv[1], "--write-tiny") == 0)
        return save(argv[2], make_tiny_file());
    Suite *suite = suite_create("engine_gguf");
    TCase *cases = tcase_create("engine_gguf");
    tcase_set_timeout(cases, 300); /* for emulators, and machines that do much else */
    tcase_add_test(cases, every_number_format);
    tcase_add_test(cases, golden_numbers);
    tcase_add_test(cases, architectures);
    tcase_add_test(cases, rope);
    tcase_add_test(cases, sentencepiece);
    tcase_add_test(cases, byte_level);
    tcase_add_test(cases, chat);
    tcase_add_test(cases, several_parts);
    tcase_add_test(cases, truncated);
    tcase_add_test(cases, hostile);
    tcase_add_test(cases, hostile_tokenizer);
    suite_add_tcase(suite, cases);
    return test_run(suite);
}
