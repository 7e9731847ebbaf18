/* kvtile-engine: runs a small model to get real keys and values, and to show that it runs it right. */
#define _POSIX_C_SOURCE 200809L
#include "tools/engine/forward.h"
#include "tools/engine/tokenizer.h"
#include "tools/io/formats.h"
#include "tools/options.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char HELP[] =
    "Usage: kvtile-engine capture    --model FILE --tokenizer FILE --text FILE [--tokens N] [--bos] --out DIRECTORY\n"
    "       kvtile-engine perplexity --model FILE --tokenizer FILE --text FILE [--tokens N] [--bos]\n"
    "       kvtile-engine export     --model FILE --out FILE\n"
    "Runs a small Llama-style model (llama2.c checkpoint, f32 or f16) over a text.\n"
    "\n"
    "  capture     writes the KV cache: layerL_keys.qvkt (after RoPE) and layerL_values.qvkt for each layer L\n"
    "  perplexity  exp of the mean surprise of each token after the first, given those before it\n"
    "  export      writes the model's f16 form\n"
    "\n"
    "  --tokens N  the first N tokens of the text (default: all, but not more than the model's context)\n"
    "  --bos       put the token before the text that marks its beginning, for models that were trained so; --tokens counts it\n"
    "\n"
    "Example:\n"
    "  kvtile-engine capture --model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin --text chesterton-brown.txt --tokens 1024 --out captured\n";

typedef struct options {
    char *model, *tokenizer, *text, *out;
    long tokens; /* 0: as many as there are */
    int bos;
} options;

/* A model, its state, and the tokens of the text. */
typedef struct run {
    checkpoint model;
    tokenizer words;
    forward_state state;
    uint32_t *tokens;
    size_t n_tokens;
} run;

static void run_close(run *job)
{
    free(job->tokens);
    forward_close(&job->state);
    tokenizer_close(&job->words);
    checkpoint_close(&job->model);
}

static int encode_file(run *job, const char *path, bool bos, error_text *error)
{
    file_map text;
    if (file_map_open(&text, path, error) != 0)
        return -1;
    const int result = tokenizer_encode(&job->words, bos, text.data, text.size, &job->tokens, &job->n_tokens, error);
    file_map_close(&text);
    return result;
}

/* On failure *argument is what the error is about. */
static int run_open(run *job, const options *chosen, const char **argument, error_text *error)
{
    *job = (run){ 0 };
    *argument = chosen->model;
    if (checkpoint_open(&job->model, chosen->model, error) != 0)
        return -1;
    *argument = chosen->tokenizer;
    if (tokenizer_open(&job->words, chosen->tokenizer, job->model.vocabulary, error) != 0)
        return -1;
    *argument = chosen->text;
    if (encode_file(job, chosen->text, chosen->bos != 0, error) != 0)
        return -1;
    *argument = "--tokens";
    const size_t wanted = (size_t)chosen->tokens;
    if (wanted > job->n_tokens)
        return error_set(error, "%zu: the text has only %zu", wanted, job->n_tokens);
    if (wanted != 0)
        job->n_tokens = wanted;
    else if (job->n_tokens > job->model.context)
        job->n_tokens = job->model.context;
    return forward_open(&job->state, &job->model, job->n_tokens, error);
}

static int write_layers(const run *job, const char *directory, const char **argument, error_text *error)
{
    static const char *const kinds[2] = { "keys", "values" };
    const checkpoint *model = &job->model;
    const size_t head_stride = job->state.room * model->head_dim;
    *argument = directory;
    if (mkdir(directory, 0777) != 0 && errno != EEXIST)
        return error_set(error, "cannot be made: %s", strerror(errno));
    const size_t room = strlen(directory) + 64;
    char *path = malloc(room);
    if (path == NULL)
        return error_set(error, "cannot be written: out of memory");
    int result = 0;
    for (uint32_t layer = 0; result == 0 && layer < model->layers; layer++) {
        for (size_t kind = 0; result == 0 && kind < 2; kind++) {
            const float *rows = (kind == 0 ? job->state.keys : job->state.values) + layer * model->kv_heads * head_stride;
            error_text why;
            snprintf(path, room, "%s/layer%" PRIu32 "_%s.qvkt", directory, layer, kinds[kind]);
            if (qvkt_write(path, layer, model->kv_heads, job->n_tokens, model->head_dim, rows, head_stride, &why) != 0)
                result = error_set(error, "layer%" PRIu32 "_%s.qvkt %.300s", layer, kinds[kind], why.text);
        }
    }
    free(path);
    return result;
}

static int capture(const options *chosen, const char **argument, error_text *error)
{
    run job;
    int result = run_open(&job, chosen, argument, error);
    for (size_t i = 0; result == 0 && i < job.n_tokens; i++)
        forward_token(&job.state, job.tokens[i], i);
    if (result == 0)
        result = write_layers(&job, chosen->out, argument, error);
    if (result == 0)
        printf("%s: %" PRIu32 " layers, %" PRIu32 " KV heads x %zu tokens x %" PRIu32 " channels\n", chosen->out, job.model.layers,
               job.model.kv_heads, job.n_tokens, job.model.head_dim);
    run_close(&job);
    return result;
}

static int perplexity(const options *chosen, const char **argument, error_text *error)
{
    run job;
    int result = run_open(&job, chosen, argument, error);
    if (result == 0 && job.n_tokens < 2)
        result = error_set(error, "%zu: at least 2 would be right", job.n_tokens);
    double surprise = 0;
    for (size_t i = 0; result == 0 && i + 1 < job.n_tokens; i++) {
        forward_token(&job.state, job.tokens[i], i);
        surprise += forward_surprise(&job.state, job.tokens[i + 1]);
    }
    if (result == 0)
        printf("perplexity %.4f over %zu tokens\n", exp(surprise / (double)(job.n_tokens - 1)), job.n_tokens);
    run_close(&job);
    return result;
}

static int export(const options *chosen, const char **argument, error_text *error)
{
    checkpoint model;
    *argument = chosen->model;
    if (checkpoint_open(&model, chosen->model, error) != 0)
        return -1;
    *argument = chosen->out;
    const int result = checkpoint_export_f16(&model, chosen->out, error);
    checkpoint_close(&model);
    return result;
}

static const struct command {
    const char *name;
    int (*run)(const options *chosen, const char **argument, error_text *error);
    bool runs_model; /* needs --tokenizer and --text */
    bool writes;     /* needs --out */
} COMMANDS[] = {
    { "capture", capture, true, true },
    { "perplexity", perplexity, true, false },
    { "export", export, false, true },
};

static const char *missing_option(const struct command *command, const options *chosen)
{
    if (chosen->model == NULL)
        return "--model";
    if (command->runs_model && chosen->tokenizer == NULL)
        return "--tokenizer";
    if (command->runs_model && chosen->text == NULL)
        return "--text";
    if (command->writes && chosen->out == NULL)
        return "--out";
    return NULL;
}

static int run_command(const char *name, const options *chosen)
{
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        const struct command *command = &COMMANDS[i];
        if (strcmp(name, command->name) != 0)
            continue;
        char who[64];
        snprintf(who, sizeof who, "kvtile-engine %s", name);
        const char *argument = missing_option(command, chosen);
        if (argument != NULL) {
            error_print(who, argument, "is missing; see kvtile-engine --help");
            return 2;
        }
        if (chosen->tokens < 0) {
            error_print(who, "--tokens", "at least 1 would be right");
            return 2;
        }
        error_text error;
        if (command->run(chosen, &argument, &error) == 0)
            return 0;
        error_print(who, argument, error.text);
        return 1;
    }
    error_print("kvtile-engine", name, "no such command: capture, perplexity or export would be right");
    return 2;
}

int main(int argc, char **argv)
{
    options chosen = { 0 };
    int help = 0;
    const struct poptOption table[] = {
        { "model", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL },          { "tokenizer", 0, POPT_ARG_STRING, NULL, 2, NULL, NULL },
        { "text", 0, POPT_ARG_STRING, NULL, 3, NULL, NULL },           { "out", 0, POPT_ARG_STRING, NULL, 4, NULL, NULL },
        { "tokens", 0, POPT_ARG_LONG, &chosen.tokens, 0, NULL, NULL }, { "bos", 0, POPT_ARG_NONE, &chosen.bos, 0, NULL, NULL },
        { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },          POPT_TABLEEND
    };
    void *arguments = argv; /* popt wants const char **, which C does not convert to */
    poptContext context = poptGetContext("kvtile-engine", argc, arguments, table, 0);
    if (context == NULL) {
        error_print("kvtile-engine", "arguments", "cannot be read: out of memory");
        return 1;
    }
    char **const values[] = { &chosen.model, &chosen.tokenizer, &chosen.text, &chosen.out };
    const int parsed = options_take(context, values);
    const char *name = poptGetArg(context);
    int code;
    if (parsed < -1) {
        error_print("kvtile-engine", poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help) {
        fputs(HELP, stdout);
        code = 0;
    } else if (name == NULL) {
        error_print("kvtile-engine", "no command", "capture, perplexity or export would be right; see kvtile-engine --help");
        code = 2;
    } else if (poptPeekArg(context) != NULL) {
        error_print("kvtile-engine", poptPeekArg(context), "one command and its options would be right; see kvtile-engine --help");
        code = 2;
    } else {
        code = run_command(name, &chosen);
    }
    free(chosen.model);
    free(chosen.tokenizer);
    free(chosen.text);
    free(chosen.out);
    poptFreeContext(context);
    return code;
}
