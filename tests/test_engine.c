/* The small engine: hostile files, the tokenizer against its definition, and perplexities that only a right forward pass gives. */
#define _GNU_SOURCE /* memmem */
#include "support.h"

#include "tools/engine/forward.h"
#include "tools/engine/sample.h"
#include "tools/engine/stress.h"
#include "tools/engine/tokenizer.h"
#include "tools/io/number.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    ck_assert_msg(forward_open(state, model, way, tokens, threads, &error) == 0, "%s", error.text);
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
    static const char full[] = KVT_SHARED_DIR "/data/gutenberg-3.5M/model.bin";
    uint32_t guess;
    ck_assert_double_eq_tol(perplexity_of_book(small, &REFERENCE, 256, &guess), 53.491, 0.01);
    ck_assert_uint_eq(guess, 367);
    if (KVT_TEST_SHARE > 1) {
        puts("the whole context: skipped, emulated");
        return;
    }
    ck_assert_double_eq_tol(perplexity_of_book(small, &REFERENCE, 1024, &guess), 50.574, 0.01);
    ck_assert_uint_eq(guess, 371);
    ck_assert_double_eq_tol(perplexity_of_book(small, &F32_TILES, 1024, &guess), 50.574, 0.01);
    ck_assert_uint_eq(guess, 371);
    if (access(full, R_OK) != 0) {
        puts("f32 weights: skipped, no shared data");
        return;
    }
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
    forward_state one, other;
    open_state(&one, model, way, n, alone);
    open_state(&other, model, way, n, three);
    for (size_t i = 0; i < n; i++) {
        const float *a = forward_token(&one, tokens[i % n_tokens], i);
        const float *b = forward_token(&other, tokens[i % n_tokens], i);
        ck_assert_msg(memcmp(a, b, model->vocabulary * sizeof *a) == 0, "token %zu", i);
    }
    forward_close(&one);
    forward_close(&other);
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
    float back[TOKENS][64];
    ck_assert_uint_eq(it.model.head_dim, 64);
    for (size_t head = 0; head < (size_t)it.model.layers * it.model.kv_heads; head++) {
        for (int side = 0; side < 2; side++) {
            ck_assert_int_eq(
                kvt_read(&tiles.cache.layout, side == 0 ? KVT_K : KVT_V, &tiles.cache.pages[head], 0, TOKENS, back, KVT_F32, sizeof back[0]), 0);
            ck_assert_int_eq(memcmp(back, tiles.captured[side] + head * TOKENS * 64, sizeof back), 0);
        }
    }
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
    ck_assert_int_eq(forward_open(&state, &model, &F32_TILES, 1025, threads, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "1 to 1024"));
    ck_assert_int_eq(forward_open(&state, &model, &F32_TILES, 0, threads, &error), -1);
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
    ck_assert_int_eq(stress_outliers(&it.model, &plain.cache, TOKENS, &error), 0);
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
        const checkpoint model = { .dim = dim,
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
        ck_assert_int_eq(forward_open(&state, &model, &F32_TILES, 64, threads, &error), -1);
        ck_assert_msg(strstr(error.text, cases[i].part) != NULL, "%s", error.text);
        open_state(&state, &model, &REFERENCE, 64, threads);
        forward_close(&state);
    }
    pool_close(threads);
}
END_TEST

/* The figure known for this model is 3.54; how it was taken is not. This way agrees: each story is run alone, trimmed, after BOS, and the BOS of the
 * next story is predicted too. Without that last prediction it is 3.548, with untrimmed stories 3.8. */
START_TEST(known_perplexity_of_stories260K)
{
    const char *folder = KVT_SHARED_DIR "/data/stories260K";
    if (KVT_TEST_SHARE > 1 || access(folder, R_OK) != 0) { /* the engine is plain C, and a minute of emulation tells no more than a book */
        puts("stories260K: skipped, emulated or no shared data");
        return;
    }
    checkpoint model;
    tokenizer words;
    forward_state state;
    file_map text;
    error_text error = { "" };
    ck_assert_int_eq(checkpoint_open(&model, KVT_SHARED_DIR "/data/stories260K/stories260K.bin", &error), 0);
    ck_assert_int_eq(tokenizer_open(&words, KVT_SHARED_DIR "/data/stories260K/tok512.bin", model.vocabulary, &error), 0);
    ck_assert_int_eq(file_map_open(&text, KVT_SHARED_DIR "/data/text/tinystories_sample.txt", &error), 0);
    pool *threads = open_pool(1);
    open_state(&state, &model, &REFERENCE, model.context, threads);
    static const char separator[] = "<|endoftext|>";
    double surprise = 0;
    size_t n_predicted = 0;
    const uint8_t *end = text.data + text.size;
    for (const uint8_t *story = text.data; story < end;) {
        const uint8_t *next = memmem(story, (size_t)(end - story), separator, sizeof separator - 1);
        const uint8_t *last = next != NULL ? next : end;
        while (story < last && *story <= ' ')
            story++;
        while (story < last && last[-1] <= ' ')
            last--;
        uint32_t *tokens;
        size_t n;
        ck_assert_int_eq(tokenizer_encode(&words, true, story, (size_t)(last - story), &tokens, &n, &error), 0);
        if (last > story) {
            tokens[n++] = TOKEN_BOS; /* there is room: a space was merged */
            surprise += surprise_of(&state, tokens, n);
            n_predicted += n - 1;
        }
        free(tokens);
        story = next != NULL ? next + sizeof separator - 1 : end;
    }
    ck_assert_double_eq_tol(exp(surprise / (double)n_predicted), 3.54, 0.005);
    forward_close(&state);
    pool_close(threads);
    file_map_close(&text);
    tokenizer_close(&words);
    checkpoint_close(&model);
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
    tcase_add_test(all, limits_of_kvtile);
    tcase_add_test(all, known_perplexity_of_stories260K);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
