/* SPDX-License-Identifier: MIT */
/* What a model answers through llama.cpp with the plug-in, beside what it answers without: the same libllama, in one process. Layers that are left on
 * the CPU device have llama.cpp's own cache; those on the plug-in's device have kvtile's.
 *
 *     GGML_BACKEND_PATH=libkvtile-ggml.so KVTILE=... check_llama MODEL BACKENDS BOUND SCENE... */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <ggml-backend.h>
#include <gguf.h>
#include <llama.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CONTEXT = 2048, MOST_TOKENS = 2048, MOST_TEXT = 4096 };

static struct llama_model *models[2]; /* on the CPU, on the plug-in */
static const struct llama_vocab *vocab;
static int n_vocab, failures;

static void fail(const char *what)
{
    fprintf(stderr, "FAILED: %s\n", what);
    failures++;
}

/* ---- contexts ---- */

typedef struct setup {
    bool is_kvtile, is_unified, has_no_flash;
    int threads, sequences, context, batch;
    bool is_wide; /* rows of f32, not f16 */
} setup;

static struct llama_context *open_context(setup s)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)(s.context ? s.context : CONTEXT);
    p.n_batch = MOST_TOKENS;
    p.n_ubatch = (uint32_t)(s.batch ? s.batch : 512);
    p.n_seq_max = (uint32_t)(s.sequences ? s.sequences : 1);
    p.n_threads = p.n_threads_batch = s.threads ? s.threads : 1;
    p.type_k = p.type_v = s.is_wide ? GGML_TYPE_F32 : GGML_TYPE_F16;
    p.kv_unified = s.is_unified;
    p.flash_attn_type = s.has_no_flash ? LLAMA_FLASH_ATTN_TYPE_DISABLED : LLAMA_FLASH_ATTN_TYPE_AUTO;
    struct llama_context *context = llama_init_from_model(models[s.is_kvtile], p);
    if (!context) {
        fputs("no context\n", stderr);
        exit(1);
    }
    return context;
}

/* The reference keeps f32 and multiplies matrices plainly. */
static struct llama_context *open_reference(int sequences)
{
    return open_context((setup){ .is_wide = true, .has_no_flash = true, .sequences = sequences, .is_unified = true });
}

/* ---- tokens ---- */

static int tokens_of(const char *text, llama_token *tokens)
{
    const int n = llama_tokenize(vocab, text, (int)strlen(text), tokens, MOST_TOKENS, true, true);
    if (n < 0) {
        fputs("the text is too long\n", stderr);
        exit(1);
    }
    return n;
}

/* Words that make no sense but are tokens of the model, alike in every run. */
static void make_tokens(llama_token *tokens, int n, unsigned seed)
{
    for (int i = 0; i < n; i++) {
        seed = seed * 1103515245u + 12345u;
        tokens[i] = (llama_token)(100 + (seed >> 8) % (unsigned)(n_vocab - 200));
    }
}

/* Logits of the last of n tokens of a sequence, from `position` on. */
static const float *decode(struct llama_context *context, const llama_token *tokens, int n, int position, int sequence)
{
    struct llama_batch batch = llama_batch_init(n, 0, 1);
    for (int i = 0; i < n; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = position + i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = sequence;
        batch.logits[i] = i == n - 1;
    }
    batch.n_tokens = n;
    if (llama_decode(context, batch) != 0) {
        fputs("llama_decode failed\n", stderr);
        exit(1);
    }
    llama_batch_free(batch);
    return llama_get_logits_ith(context, n - 1);
}

/* One token of each sequence in one batch; logits of sequence i are those of output i. */
static void decode_all(struct llama_context *context, const llama_token *tokens, const int *positions, int sequences)
{
    struct llama_batch batch = llama_batch_init(sequences, 0, 1);
    for (int i = 0; i < sequences; i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = positions[i];
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = i;
        batch.logits[i] = true;
    }
    batch.n_tokens = sequences;
    if (llama_decode(context, batch) != 0) {
        fputs("llama_decode failed\n", stderr);
        exit(1);
    }
    llama_batch_free(batch);
}

/* ---- comparing ---- */

static double worst; /* of a scene: the largest difference, of the largest logit */

static void compare(const float *got, const float *expected)
{
    double largest = 0, difference = 0;
    for (int i = 0; i < n_vocab; i++) {
        largest = fmax(largest, fabs((double)expected[i]));
        difference = fmax(difference, fabs((double)got[i] - (double)expected[i]));
    }
    if (!(difference / largest <= worst))
        worst = difference / largest;
}

static void judge(const char *scene, double bound)
{
    printf("%-10s largest difference of logits %.2e, at most %.0e is right\n", scene, worst, bound);
    if (!(worst <= bound))
        fail(scene);
    worst = 0;
}

static float *copy_of(const float *logits)
{
    float *copy = malloc((size_t)n_vocab * sizeof *copy);
    if (!copy)
        abort();
    return memcpy(copy, logits, (size_t)n_vocab * sizeof *copy);
}

/* ---- scenes ---- */

static double bound; /* of logits, against the reference */

static void answer(void)
{
    llama_token tokens[MOST_TOKENS];
    const char *prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    struct llama_context *context = open_context((setup){ .is_kvtile = true });
    int n = tokens_of(prompt, tokens), position = 0;
    char text[MOST_TEXT] = "";
    for (int i = 0; i < 32; i++) {
        const float *logits = decode(context, tokens, n, position, 0);
        position += n;
        n = 1;
        tokens[0] = 0;
        for (int t = 1; t < n_vocab; t++)
            tokens[0] = logits[t] > logits[tokens[0]] ? t : tokens[0];
        if (llama_vocab_is_eog(vocab, tokens[0]))
            break;
        char piece[64];
        const int length = llama_token_to_piece(vocab, tokens[0], piece, sizeof piece, 0, false);
        strncat(text, piece, (size_t)(length > 0 ? length : 0));
    }
    printf("%-10s %s\n", "answer", text);
    if (!strstr(text, "Paris"))
        fail("answer");
    llama_free(context);
}

/* A prompt, and single tokens over several pages. */
static void logits(void)
{
    enum { PROMPT = 300, MORE = 70 };
    llama_token tokens[PROMPT + MORE];
    make_tokens(tokens, PROMPT + MORE, 1);
    struct llama_context *reference = open_reference(1), *context = open_context((setup){ .is_kvtile = true });
    compare(decode(context, tokens, PROMPT, 0, 0), decode(reference, tokens, PROMPT, 0, 0));
    for (int i = PROMPT; i < PROMPT + MORE; i++)
        compare(decode(context, tokens + i, 1, i, 0), decode(reference, tokens + i, 1, i, 0));
    judge("logits", bound);
    llama_free(context);
    llama_free(reference);
}

/* The same bits for any number of threads, and of a prompt in one piece or in many. */
static void threads(void)
{
    enum { PROMPT = 150, MORE = 10 };
    llama_token tokens[PROMPT + MORE];
    make_tokens(tokens, PROMPT + MORE, 2);
    float *first = NULL;
    for (int n = 1; n <= 4; n *= 2) {
        struct llama_context *context = open_context((setup){ .is_kvtile = true, .threads = n });
        decode(context, tokens, PROMPT, 0, 0);
        for (int i = PROMPT; i < PROMPT + MORE - 1; i++)
            decode(context, tokens + i, 1, i, 0);
        const float *got = decode(context, tokens + PROMPT + MORE - 1, 1, PROMPT + MORE - 1, 0);
        if (!first)
            first = copy_of(got);
        else if (memcmp(first, got, (size_t)n_vocab * sizeof *got) != 0)
            fail("threads");
        printf("%-10s %d: %s\n", "threads", n, memcmp(first, got, (size_t)n_vocab * sizeof *got) == 0 ? "the same bits" : "OTHER BITS");
        llama_free(context);
    }
    free(first);
}

/* Sequences that share a cache, whose cells are mixed, against each of them alone. */
static void sequences_of(bool is_unified, const char *name)
{
    enum { SEQUENCES = 4, PROMPT = 40, MORE = 40 };
    llama_token tokens[SEQUENCES][PROMPT + SEQUENCES * 40 + MORE];
    struct llama_context *reference = open_reference(SEQUENCES),
                         *context =
                             open_context((setup){ .is_kvtile = true, .is_unified = is_unified, .sequences = SEQUENCES, .context = 4 * CONTEXT });
    int positions[SEQUENCES];
    for (int s = 0; s < SEQUENCES; s++) {
        make_tokens(tokens[s], PROMPT + s * 40 + MORE, 10u + (unsigned)s);
        positions[s] = PROMPT + s * 40;
        compare(decode(context, tokens[s], positions[s], 0, s), decode(reference, tokens[s], positions[s], 0, s));
    }
    for (int i = 0; i < MORE; i++) {
        llama_token next[SEQUENCES];
        for (int s = 0; s < SEQUENCES; s++)
            next[s] = tokens[s][positions[s]];
        decode_all(context, next, positions, SEQUENCES);
        decode_all(reference, next, positions, SEQUENCES);
        for (int s = 0; s < SEQUENCES; s++) {
            compare(llama_get_logits_ith(context, s), llama_get_logits_ith(reference, s));
            positions[s]++;
        }
        /* One is taken back, and goes another way; one ends, and its cells are used again. */
        if (i == MORE / 2) {
            llama_memory_seq_rm(llama_get_memory(context), 1, positions[1] - 30, -1);
            llama_memory_seq_rm(llama_get_memory(reference), 1, positions[1] - 30, -1);
            positions[1] -= 30;
            llama_memory_seq_rm(llama_get_memory(context), 2, -1, -1);
            llama_memory_seq_rm(llama_get_memory(reference), 2, -1, -1);
            positions[2] = 0;
        }
    }
    judge(name, bound);
    llama_free(context);
    llama_free(reference);
}
static void unified(void)
{
    sequences_of(true, "unified");
}
static void split(void)
{
    sequences_of(false, "split");
}

/* Rows leave the cache as f16, in states and where ggml turns keys: nothing is lost of f16, and of f32 what f16 has not. */
static double bound_of_halves(void)
{
    return fmax(bound, 1e-3);
}

/* A sequence's state in another context, against the context that it is from. */
static void state(void)
{
    enum { PROMPT = 200, MORE = 20 };
    llama_token tokens[PROMPT + MORE];
    make_tokens(tokens, PROMPT + MORE, 3);
    struct llama_context *context = open_context((setup){ .is_kvtile = true }), *other = open_context((setup){ .is_kvtile = true });
    decode(context, tokens, PROMPT, 0, 0);
    const size_t bytes = llama_state_seq_get_size(context, 0);
    uint8_t *saved = malloc(bytes);
    if (llama_state_seq_get_data(context, saved, bytes, 0) != bytes || llama_state_seq_set_data(other, saved, bytes, 0) == 0)
        fail("state: not saved");
    free(saved);
    for (int i = PROMPT; i < PROMPT + MORE; i++)
        compare(decode(other, tokens + i, 1, i, 0), decode(context, tokens + i, 1, i, 0));
    judge("state", bound_of_halves());
    llama_free(context);
    llama_free(other);
}

/* The context is full: the oldest tokens go, and the others move. Twice, as keys are turned where they are. */
static void shift(void)
{
    enum { PROMPT = 200, GONE = 70, MORE = 20 };
    llama_token tokens[PROMPT + 3 * MORE];
    make_tokens(tokens, PROMPT + 3 * MORE, 4);
    struct llama_context *both[] = { open_context((setup){ .is_kvtile = true }), open_reference(1) };
    for (int c = 0; c < 2; c++)
        decode(both[c], tokens, PROMPT, 0, 0);
    int position = PROMPT;
    for (int i = 0; i < 2 * MORE; i++) {
        if (i % MORE == 0) {
            for (int c = 0; c < 2; c++) {
                llama_memory_seq_rm(llama_get_memory(both[c]), 0, 4, 4 + GONE);
                llama_memory_seq_add(llama_get_memory(both[c]), 0, 4 + GONE, -1, -GONE);
            }
            position -= GONE;
        }
        compare(decode(both[0], tokens + PROMPT + i, 1, position, 0), decode(both[1], tokens + PROMPT + i, 1, position, 0));
        position++;
    }
    judge("shift", bound_of_halves());
    for (int c = 0; c < 2; c++)
        llama_free(both[c]);
}

/* A copy of a sequence, which goes its own way. */
static void copies_of(bool is_unified, const char *name)
{
    enum { PROMPT = 150, MORE = 20 };
    llama_token tokens[2][PROMPT + MORE];
    make_tokens(tokens[0], PROMPT + MORE, 5);
    make_tokens(tokens[1], PROMPT + MORE, 6);
    struct llama_context *both[] = { open_context((setup){ .is_kvtile = true, .is_unified = is_unified, .sequences = 2 }), open_reference(2) };
    int positions[] = { PROMPT, PROMPT };
    for (int c = 0; c < 2; c++) {
        decode(both[c], tokens[0], PROMPT, 0, 0);
        llama_memory_seq_cp(llama_get_memory(both[c]), 0, 1, -1, -1);
    }
    for (int i = PROMPT; i < PROMPT + MORE; i++) {
        const llama_token next[] = { tokens[0][i], tokens[1][i] };
        for (int c = 0; c < 2; c++)
            decode_all(both[c], next, positions, 2);
        for (int s = 0; s < 2; s++) {
            compare(llama_get_logits_ith(both[0], s), llama_get_logits_ith(both[1], s));
            positions[s]++;
        }
    }
    judge(name, bound);
    for (int c = 0; c < 2; c++)
        llama_free(both[c]);
}
static void copy(void)
{
    copies_of(true, "copy");
}
static void copy_split(void)
{
    copies_of(false, "copy_split");
}

/* Without flash attention ggml's own operations read the cache: the same bits as on the CPU. */
/* Prompts that begin alike, in cells that were used in all ways. Nothing is compared here: whoever runs it without a folder of blocks, with an empty
 * one and with a full one gets the same lines. */
static void say(const char *what, const float *logits)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < (size_t)n_vocab * sizeof *logits; i++)
        hash = (hash ^ ((const unsigned char *)logits)[i]) * 0x100000001b3u;
    printf("%-10s %-24s %016llx\n", "prefix", what, (unsigned long long)hash);
}

enum { STEP = 64, LONG = 7 * STEP + 12 };

static void say_new(const char *what, const llama_token *tokens, int n)
{
    struct llama_context *context = open_context((setup){ .is_kvtile = true, .batch = STEP });
    say(what, decode(context, tokens, n, 0, 0));
    llama_free(context);
}

static bool always(void *data)
{
    int *left = data;
    return --*left < 0;
}

static void prefix(void)
{
    llama_token a[LONG], b[LONG];
    make_tokens(a, LONG, 20);
    make_tokens(b, LONG, 21);
    say_new("first", a, LONG);
    say_new("again", a, LONG);
    say_new("shorter", a, 3 * STEP + 1);
    memcpy(b, a, 3 * STEP * sizeof *a);
    say_new("another end", b, LONG);
    b[0]++;
    say_new("another beginning", b, LONG);

    /* Taken back to within a block, and gone another way; then to its beginning. */
    struct llama_context *context = open_context((setup){ .is_kvtile = true, .batch = STEP, .sequences = 2 });
    llama_memory_t memory = llama_get_memory(context);
    decode(context, a, 4 * STEP, 0, 0);
    llama_memory_seq_rm(memory, 0, STEP + 36, -1);
    say("taken back", decode(context, b + STEP + 36, 3 * STEP, STEP + 36, 0));
    llama_memory_seq_rm(memory, 0, -1, -1);
    say("anew", decode(context, a, LONG, 0, 0));
    /* The first tokens are gone, the others see each other alone. */
    make_tokens(b, LONG, 22);
    llama_memory_seq_rm(memory, 0, -1, -1);
    decode(context, b, 2 * STEP, 0, 0);
    llama_memory_seq_rm(memory, 0, 0, STEP);
    say("without the first", decode(context, b + 2 * STEP, LONG - 2 * STEP, 2 * STEP, 0));
    say_new("with the first", b, LONG);
    /* Moved. */
    make_tokens(b, LONG, 23);
    llama_memory_seq_rm(memory, 0, -1, -1);
    decode(context, b, 3 * STEP, 0, 0);
    llama_memory_seq_rm(memory, 0, STEP, 2 * STEP);
    llama_memory_seq_add(memory, 0, 2 * STEP, -1, -STEP);
    say("moved", decode(context, b + 3 * STEP, LONG - 3 * STEP, 2 * STEP, 0));
    say_new("not moved", b, LONG);
    memmove(b + STEP, b + 2 * STEP, (LONG - 2 * STEP) * sizeof *b);
    say_new("as if never there", b, LONG - STEP);
    /* A state of another prompt. */
    make_tokens(b, LONG, 24);
    llama_memory_seq_rm(memory, 0, -1, -1);
    decode(context, b, 3 * STEP, 0, 0);
    const size_t bytes = llama_state_seq_get_size(context, 0);
    uint8_t *saved = malloc(bytes);
    if (llama_state_seq_get_data(context, saved, bytes, 0) != bytes)
        fail("prefix: not saved");
    llama_memory_seq_rm(memory, 0, -1, -1);
    decode(context, a, 3 * STEP, 0, 0);
    if (llama_state_seq_set_data(context, saved, bytes, 0) == 0)
        fail("prefix: not restored");
    free(saved);
    decode(context, a + 3 * STEP, LONG - 3 * STEP, 3 * STEP, 0);
    say_new("after a state", a, LONG);
    /* A copy goes its own way. */
    make_tokens(b, LONG, 25);
    memcpy(b, a, 3 * STEP * sizeof *a);
    llama_memory_clear(memory, true);
    decode(context, a, 3 * STEP, 0, 0);
    llama_memory_seq_cp(memory, 0, 1, -1, -1);
    say("a copy", decode(context, b + 3 * STEP, LONG - 3 * STEP, 3 * STEP, 1));
    say("its original", decode(context, a + 3 * STEP, LONG - 3 * STEP, 3 * STEP, 0));
    say_new("as the copy", b, LONG);
    /* Broken off in the middle, and gone another way. */
    make_tokens(b, LONG, 26);
    llama_memory_clear(memory, true);
    decode(context, a, 3 * STEP, 0, 0);
    llama_memory_seq_rm(memory, 0, STEP, -1);
    int nodes = 20;
    llama_set_abort_callback(context, always, &nodes);
    struct llama_batch batch = llama_batch_get_one(b + STEP, STEP);
    if (llama_decode(context, batch) == 0)
        fail("prefix: not broken off");
    llama_set_abort_callback(context, NULL, NULL);
    llama_free(context);
    memcpy(b, a, STEP * sizeof *a);
    say_new("after a break", b, LONG);
    /* Sequences that share a cache. */
    make_tokens(b, LONG, 27);
    context = open_context((setup){ .is_kvtile = true, .is_unified = true, .sequences = 2, .batch = STEP });
    say("one", decode(context, a, 2 * STEP + 20, 0, 0));
    say("and another", decode(context, b, LONG, 0, 1));
    say("and the one", decode(context, a + 2 * STEP + 20, LONG - 2 * STEP - 20, 2 * STEP + 20, 0));
    llama_free(context);
    say_new("each alone", b, LONG);
    /* Other batches, and tokens one by one. */
    make_tokens(b, LONG, 28);
    context = open_context((setup){ .is_kvtile = true, .batch = 2 * STEP, .threads = 2 });
    decode(context, b, 4 * STEP, 0, 0);
    for (int i = 4 * STEP; i < LONG; i++)
        decode(context, b + i, 1, i, 0);
    llama_free(context);
    context = open_context((setup){ .is_kvtile = true, .batch = 2 * STEP, .threads = 2 });
    say("in larger steps", decode(context, b, 4 * STEP + 5, 0, 0));
    llama_free(context);
}

/* Time to the first token of a prompt, and what of it a file of its state takes. */
static void first_token(const char *what, setup s, const llama_token *tokens, int n)
{
    struct llama_context *context = open_context(s);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    decode(context, tokens, n, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) * 1e-9;
    printf("%-32s micro-batches of %3d: %7.3f s, a state has %zu bytes\n", what, s.batch, seconds, llama_state_seq_get_size(context, 0));
    fflush(stdout);
    llama_free(context);
}

enum { LONG_PROMPT = 30 * STEP + 12 };

static void own_first_token(void)
{
    llama_token tokens[LONG_PROMPT];
    make_tokens(tokens, LONG_PROMPT, 30);
    first_token("llama.cpp's own f16", (setup){ .threads = 2, .batch = 512 }, tokens, LONG_PROMPT);
}

static void first_tokens(void)
{
    llama_token tokens[LONG_PROMPT];
    make_tokens(tokens, LONG_PROMPT, 30);
    for (int batch = 512; batch >= STEP; batch /= 2)
        first_token("the plug-in", (setup){ .is_kvtile = true, .threads = 2, .batch = batch }, tokens, LONG_PROMPT);
}

static void fallback(void)
{
    enum { PROMPT = 40, MORE = 4 };
    llama_token tokens[PROMPT + MORE];
    make_tokens(tokens, PROMPT + MORE, 7);
    struct llama_context *context = open_context((setup){ .is_kvtile = true, .has_no_flash = true }),
                         *reference = open_context((setup){ .has_no_flash = true });
    compare(decode(context, tokens, PROMPT, 0, 0), decode(reference, tokens, PROMPT, 0, 0));
    for (int i = PROMPT; i < PROMPT + MORE; i++)
        compare(decode(context, tokens + i, 1, i, 0), decode(reference, tokens + i, 1, i, 0));
    judge("fallback", 0);
    llama_free(context);
    llama_free(reference);
}

static void quiet(enum ggml_log_level level, const char *text, void *data)
{
    (void)data;
    if (level >= GGML_LOG_LEVEL_WARN || strncmp(text, "kvtile", strlen("kvtile")) == 0 || getenv("CHECK_LLAMA_LOG"))
        fputs(text, stderr);
}

/* Weights in f32: others make llama.cpp round what they are multiplied with, and then a difference in the last bit becomes one of percents. */
static int widen(const char *from, const char *to)
{
    struct llama_model_quantize_params p = llama_model_quantize_default_params();
    p.ftype = LLAMA_FTYPE_ALL_F32;
    p.allow_requantize = true;
    return llama_model_quantize(from, to, &p) != 0;
}

/* The first layers alone: 30 of them make a difference in the last bit 5000 times larger, llama.cpp's own between one token and many too. */
static int shorten(const char *from, const char *to, int layers)
{
    struct ggml_context *tensors = NULL;
    struct gguf_context *source = gguf_init_from_file(from, (struct gguf_init_params){ .ctx = &tensors }), *shortened = gguf_init_empty();
    if (!source)
        return 1;
    gguf_set_kv(shortened, source);
    gguf_set_val_u32(shortened, "llama.block_count", (uint32_t)layers);
    for (int64_t i = 0; i < gguf_get_n_tensors(source); i++) {
        const char *name = gguf_get_tensor_name(source, i);
        int layer;
        if (sscanf(name, "blk.%d.", &layer) != 1 || layer < layers)
            gguf_add_tensor(shortened, ggml_get_tensor(tensors, name));
    }
    const bool is_written = gguf_write_to_file(shortened, to, false);
    gguf_free(source);
    gguf_free(shortened);
    ggml_free(tensors);
    return !is_written;
}

int main(int n, char **words)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } scenes[] = { { "answer", answer },
                   { "logits", logits },
                   { "threads", threads },
                   { "unified", unified },
                   { "split", split },
                   { "state", state },
                   { "shift", shift },
                   { "copy", copy },
                   { "copy_split", copy_split },
                   { "fallback", fallback },
                   { "prefix", prefix },
                   { "own_first_token", own_first_token },
                   { "first_tokens", first_tokens } };
    if (n == 4 && strcmp(words[1], "--widen") == 0)
        return widen(words[2], words[3]);
    if (n == 5 && strcmp(words[1], "--shorten") == 0)
        return shorten(words[2], words[3], atoi(words[4]));
    if (n < 5) {
        fprintf(stderr, "%s MODEL BACKENDS BOUND SCENE...\n%s --widen MODEL NEW_MODEL\n%s --shorten MODEL NEW_MODEL LAYERS\n", words[0], words[0],
                words[0]);
        return 2;
    }
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(words[2]);
    llama_backend_init();
    bound = strtod(words[3], NULL);
    for (int i = 0; i < 2; i++) {
        struct llama_model_params p = llama_model_default_params();
        if (i == 0)
            p.n_gpu_layers = 0;
        models[i] = llama_model_load_from_file(words[1], p);
        if (!models[i])
            return 1;
    }
    vocab = llama_model_get_vocab(models[0]);
    n_vocab = llama_vocab_n_tokens(vocab);
    for (int w = 4; w < n; w++) {
        bool is_known = false;
        for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
            if (strcmp(words[w], scenes[i].name) == 0) {
                is_known = true;
                scenes[i].run();
            }
        if (!is_known)
            fail(words[w]);
        fflush(stdout);
    }
    for (int i = 0; i < 2; i++)
        llama_model_free(models[i]);
    llama_backend_free();
    return failures != 0;
}
