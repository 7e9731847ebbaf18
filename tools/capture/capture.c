/* SPDX-License-Identifier: MIT */
/* kvtile-capture: keys, values and queries of any model that llama.cpp runs, as they go into attention, for kvtile eval. libllama computes; what its
 * graph calls Kcur, Vcur and Qcur is copied each time that it is computed, so that the last of these, after RoPE, is what is written.
 *
 *   kvtile-capture BACKENDS MODEL TEXT TOKENS FOLDER
 *
 * BACKENDS is the folder of llama.cpp's backends (libggml-cpu-*.so). FOLDER, which is made unless it is there, gets layerLLL_keys.npy, _values and
 * _queries, [head][token][channel].
 */
#include "ggml-backend.h"
#include "llama.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_LAYERS = 1024, KINDS = 3 };
static const char *const NAMES[KINDS] = { "Kcur-", "Vcur-", "Qcur-" }, *const KIND_NAMES[KINDS] = { "keys", "values", "queries" };

typedef struct rows {
    float *data; /* [token][head][channel] */
    int64_t channels, heads;
} rows;

typedef struct capture {
    rows all[KINDS][MOST_LAYERS];
    int64_t tokens;
    bool failed;
} capture;

static void fail_and_exit(const char *what, const char *why)
{
    fprintf(stderr, "kvtile-capture: %s: %s\n", what, why);
    exit(1);
}

/* Which kind a name says, and the layer; KINDS: none. */
static int kind_of(const char *name, int *layer)
{
    for (int kind = 0; kind < KINDS; kind++) {
        char *end;
        if (strncmp(name, NAMES[kind], strlen(NAMES[kind])) != 0)
            continue;
        *layer = (int)strtol(name + strlen(NAMES[kind]), &end, 10);
        if (*end == '\0' && *layer >= 0 && *layer < MOST_LAYERS)
            return kind;
    }
    return KINDS;
}

/* llama.cpp asks whether a tensor is wanted, and comes again when it has been computed. Rows of several heads have three sizes: before they are told
 * apart, a name can belong to rows that are still one. */
static bool capture_tensor(struct ggml_tensor *tensor, bool asks, void *owner)
{
    capture *to = owner;
    int layer = 0;
    const int kind = kind_of(tensor->name, &layer);
    const bool wanted = kind < KINDS && tensor->type == GGML_TYPE_F32 && tensor->ne[2] == to->tokens && tensor->ne[3] == 1;
    if (asks || !wanted)
        return wanted || !asks;
    rows *kept = &to->all[kind][layer];
    const size_t bytes = (size_t)ggml_nelements(tensor) * sizeof(float);
    if (tensor->nb[0] != sizeof(float) || (kept->data != NULL && (kept->channels != tensor->ne[0] || kept->heads != tensor->ne[1]))) {
        to->failed = true;
        return false;
    }
    if (kept->data == NULL)
        kept->data = malloc(bytes);
    if (kept->data == NULL)
        fail_and_exit("rows", "out of memory");
    kept->channels = tensor->ne[0];
    kept->heads = tensor->ne[1];
    /* Row by row: they may be a part of wider ones. */
    for (int64_t token = 0; token < to->tokens; token++)
        for (int64_t head = 0; head < kept->heads; head++)
            ggml_backend_tensor_get(tensor, kept->data + (token * kept->heads + head) * kept->channels,
                                    (size_t)token * tensor->nb[2] + (size_t)head * tensor->nb[1], (size_t)kept->channels * sizeof(float));
    return true;
}

/* A numpy file: a header of 128 bytes, then the numbers. */
static void write_npy(const rows *kept, int64_t tokens, const char *path)
{
    char header[129], shape[100];
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        fail_and_exit(path, "cannot be written");
    snprintf(shape, sizeof shape, "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld, %lld), }", (long long)kept->heads,
             (long long)tokens, (long long)kept->channels);
    memcpy(header, "\x93NUMPY\1\0\x76\0", 10);
    snprintf(header + 10, sizeof header - 10, "%-117s\n", shape);
    bool good = fwrite(header, 1, 128, file) == 128;
    for (int64_t head = 0; head < kept->heads; head++)
        for (int64_t token = 0; token < tokens; token++)
            good = good && fwrite(kept->data + (token * kept->heads + head) * kept->channels, sizeof(float), (size_t)kept->channels, file) ==
                               (size_t)kept->channels;
    if (fclose(file) != 0 || !good)
        fail_and_exit(path, "cannot be written");
}

static char *read_text(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    if (file == NULL || fseek(file, 0, SEEK_END) != 0 || (text = malloc((size_t)ftell(file) + 1)) == NULL)
        fail_and_exit(path, "cannot be read");
    *size = (size_t)ftell(file);
    rewind(file);
    if (fread(text, 1, *size, file) != *size)
        fail_and_exit(path, "cannot be read");
    fclose(file);
    return text;
}

static void say_errors(enum ggml_log_level level, const char *text, void *unused)
{
    (void)unused;
    if (level >= GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

/* All tokens are one batch, so that each tensor comes once whole. */
static void run_model(capture *to, struct llama_model *model, llama_token *tokens)
{
    struct llama_context_params how = llama_context_default_params();
    how.n_ctx = how.n_batch = how.n_ubatch = (uint32_t)to->tokens;
    how.cb_eval = capture_tensor;
    how.cb_eval_user_data = to;
    struct llama_context *context = llama_init_from_model(model, how);
    if (context == NULL || llama_decode(context, llama_batch_get_one(tokens, (int32_t)to->tokens)) != 0 || to->failed)
        fail_and_exit("the model", "cannot be run, or its rows are not what attention sees");
    llama_free(context);
}

int main(int argc, char **argv)
{
    static capture to;
    size_t size;
    if (argc != 6) {
        fputs("usage: kvtile-capture BACKENDS MODEL TEXT TOKENS FOLDER\n", stderr);
        return 2;
    }
    to.tokens = strtol(argv[4], NULL, 10);
    if (to.tokens < 1 || to.tokens > 1 << 20)
        fail_and_exit(argv[4], "TOKENS must be a whole number from 1 to 1048576");
    llama_log_set(say_errors, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    struct llama_model *model = llama_model_load_from_file(argv[2], llama_model_default_params());
    if (model == NULL)
        fail_and_exit(argv[2], "cannot be loaded");
    char *text = read_text(argv[3], &size);
    llama_token *tokens = malloc((size + 16) * sizeof *tokens);
    if (tokens == NULL)
        fail_and_exit(argv[3], "out of memory");
    const int32_t n = llama_tokenize(llama_model_get_vocab(model), text, (int32_t)size, tokens, (int32_t)size + 16, false, false);
    if (n < to.tokens) {
        fprintf(stderr, "kvtile-capture: TOKENS: %lld: the text has only %d\n", (long long)to.tokens, n);
        return 1;
    }
    run_model(&to, model, tokens);
    mkdir(argv[5], 0777); /* where that fails, writing into it does */
    int written = 0;
    for (int layer = 0; layer < MOST_LAYERS; layer++)
        for (int kind = 0; kind < KINDS; kind++) {
            const rows *kept = &to.all[kind][layer];
            char path[4096];
            if (kept->data == NULL)
                continue;
            snprintf(path, sizeof path, "%s/layer%03d_%s.npy", argv[5], layer, KIND_NAMES[kind]);
            write_npy(kept, to.tokens, path);
            free(kept->data);
            written++;
        }
    free(text);
    free(tokens);
    llama_model_free(model);
    if (written == 0)
        fail_and_exit(argv[2], "its graph has no Kcur, Vcur and Qcur of several heads");
    printf("%s: %d files of %lld tokens\n", argv[5], written, (long long)to.tokens);
    return 0;
}
