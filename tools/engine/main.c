/* SPDX-License-Identifier: MIT */
/* kvtile-engine: runs a small model on kvtile's cache and attention, to get real keys and values, and to show that it runs it right. */
#include "tools/engine/commands.h"
#include "tools/program/options.h"
#include "tools/program/program.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One screen of 80 columns; the rest is below. */
static const char BRIEF[] = "Examples:\n"
                            "  cd tools/demo\n"
                            "  kvtile-engine generate --model gutenberg-3.5M.f16.bin \\\n"
                            "      --tokenizer tok2048.bin --prompt \"Father Brown\" --scheme kv4\n"
                            "  kvtile-engine perplexity --model m.gguf --text t.txt --schemes all\n"
                            "  kvtile-engine capture --model m.gguf --text t.txt --out captured\n"
                            "\n"
                            "An example: runs a small model with its KV cache in kvtile's pages.\n"
                            "\n"
                            "  generate    goes on with --prompt TEXT or --text FILE\n"
                            "  chat        answers each line of the standard input\n"
                            "  perplexity  of --text FILE\n"
                            "  capture     writes keys, values and queries of --text FILE into --out FOLDER\n"
                            "  export      writes the model's f16 form\n"
                            "\n"
                            "  --model MODEL    a folder of Hugging Face, a GGUF file, or llama2.c's form\n"
                            "  --tokens N, --threads N\n"
                            "  --scheme S, --k S, --v S, --rotation R, --centring C     how the cache stores\n"
                            "  --reference      plain f32 rows instead\n"
                            "\n"
                            "kvtile-engine --help-all has every option.\n";

static const char HELP[] =
    "Usage: kvtile-engine generate   --model MODEL [--tokenizer FILE] (--prompt TEXT | --text FILE) [options]\n"
    "       kvtile-engine perplexity --model MODEL [--tokenizer FILE] --text FILE [options]\n"
    "       kvtile-engine capture    --model MODEL [--tokenizer FILE] --text FILE --out DIRECTORY [options]\n"
    "       kvtile-engine export     --model MODEL --out FILE\n"
    "       kvtile-engine chat       --model MODEL [--tokenizer FILE] [--prompt TEXT | --text FILE] [options]\n"
    "Runs a small model of the Llama family over a text, with its KV cache in kvtile's pages.\n"
    "\n"
    "  generate    goes on with the text; speed and bytes of KV cache on stderr\n"
    "  chat        answers each line of the standard input, as the model was trained to be asked (see --chat), or goes on with it; the line /new\n"
    "              begins anew behind --prompt or --text, which is stored once and forked\n"
    "  perplexity  exp of the mean surprise of each token after the first, given those before it; speed on stderr\n"
    "  capture     writes what goes into attention: layerL_keys.qvkt and layerL_queries.qvkt (after RoPE) and layerL_values.qvkt for each\n"
    "              layer L, [head][token][channel]. Runs the reference unless a way of storing is given\n"
    "  export      writes the model's f16 form\n"
    "\n"
    "  --model MODEL    a Hugging Face folder (config.json, safetensors), a GGUF file (of llama, qwen2, qwen3, gemma3, phi3, smollm3),\n"
    "                   a llama2.c checkpoint (f32) or its f16 form\n"
    "  --tokenizer FILE of llama2.c, or tokenizer.json (default: what a folder or a GGUF file brings along)\n"
    "  --tokens N       the first N tokens of the text (default: all, but not more than the model's context);\n"
    "                   generate: N tokens more (default: until the context is full), or less if the model ends its text;\n"
    "                   chat: of an answer at most (default 256)\n"
    "  --bos            put the token before the text that marks its beginning, for models that were trained so\n"
    "  --threads N      that share the work (default 1); results do not depend on it\n"
    "\n"
    "How the KV cache stores rows:\n"
    "  --scheme S       keys and values in scheme S, see kvtile info (default f32)\n"
    "  --k S, --v S     keys, or values\n"
    "  --schemes LIST   perplexity: a table of schemes, separated by commas, or \"all\"\n"
    "  --rotation R     none (or 0), 64 or 128 (default none)\n"
    "  --centring C     none, sequence, page or own (default none); with own, rows of unfinished pages are kept in f16\n"
    "  --first S        the first page, keys and values, in scheme S\n"
    "  --preset P       balanced, quality, compact or tight: schemes, rotation 64, own centres, the first page in kv8\n"
    "  --reference      plain f32 rows, and attention in plain C instead of kvtile's\n"
    "\n"
    "generate, chat:\n"
    "  --context N      room for N tokens, 192 to the model's context (perplexity too): when they are full, half of those behind the first page go\n"
    "                   (behind the pages of chat's --prompt), and the keys of the others are turned to their new positions where they lie\n"
    "  --save FILE      in the end, the sequence with its tokens into a file\n"
    "  --resume FILE    go on with a sequence that was saved by the same model and options; generate needs no --prompt then\n"
    "  --store FOLDER   takes what is there of the prompt from a folder of blocks, and keeps the rest there (generate alone)\n"
    "  --chat           the prompt is a question, which is put as the model was trained to be asked: ChatML, Llama 3, Gemma, Phi-3 or Mistral,\n"
    "                   whichever tokens its vocabulary has; only the answer is written (generate alone)\n"
    "  --temperature T  0 takes the likeliest token, 1 draws as the model says (default 0)\n"
    "  --seed N         of the random numbers (default 0)\n"
    "\n"
    "bits/element, B/token: stored for an element of a row, and for a token in all layers and heads; scales, centres and padding count\n"
    "\n"
    "Examples:\n"
    "  kvtile-engine generate --model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin --prompt \"Father Brown\" --tokens 100 --scheme kv4 --rotation "
    "64\n"
    "  kvtile-engine perplexity --model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin --text chesterton-brown.txt --schemes all --rotation 64\n";

enum { CAPTURE = 1, PERPLEXITY = 2, GENERATE = 4, EXPORT = 8, CHAT = 16, SAYS = GENERATE | CHAT, RUNS = CAPTURE | PERPLEXITY | SAYS };

static int cmd_export(const options *chosen, const char **argument, error_text *error)
{
    checkpoint model;
    *argument = chosen->source.model;
    if (checkpoint_open(&model, chosen->source.model, error) != 0)
        return -1;
    *argument = chosen->out;
    const int result = checkpoint_export_f16(&model, chosen->out, error);
    checkpoint_close(&model);
    return result;
}

static const struct command {
    const char *name;
    unsigned bit;
    int (*run)(const options *chosen, const char **argument, error_text *error);
} COMMANDS[] = {
    { "capture", CAPTURE, cmd_capture },    { "perplexity", PERPLEXITY, cmd_perplexity },
    { "generate", GENERATE, cmd_generate }, { "chat", CHAT, cmd_chat },
    { "export", EXPORT, cmd_export },
};

typedef struct arguments {
    option_texts texts;
    int bos, reference, chat;
} arguments;

/* An option with a text: the commands that take it, and those that cannot do without. */
typedef struct text_option {
    const char *name;
    char **place;
    unsigned takes, needs;
} text_option;

enum { N_TEXTS = sizeof(option_texts) / sizeof(char *) };

static void list_options(arguments *given, text_option list[N_TEXTS])
{
    option_texts *texts = &given->texts;
    const text_option all[N_TEXTS] = {
        { "--model", &texts->model, RUNS | EXPORT, RUNS | EXPORT },
        { "--tokenizer", &texts->tokenizer, RUNS, 0 },
        { "--text", &texts->text, RUNS, CAPTURE | PERPLEXITY },
        { "--prompt", &texts->prompt, SAYS, 0 },
        { "--out", &texts->out, CAPTURE | EXPORT, CAPTURE | EXPORT },
        { "--tokens", &texts->tokens, RUNS, 0 },
        { "--threads", &texts->threads, RUNS, 0 },
        { "--scheme", &texts->scheme, RUNS, 0 },
        { "--k", &texts->k, RUNS, 0 },
        { "--v", &texts->v, RUNS, 0 },
        { "--schemes", &texts->schemes, PERPLEXITY, 0 },
        { "--rotation", &texts->rotation, RUNS, 0 },
        { "--centring", &texts->centring, RUNS, 0 },
        { "--first", &texts->first, RUNS, 0 },
        { "--preset", &texts->preset, RUNS, 0 },
        { "--temperature", &texts->temperature, SAYS, 0 },
        { "--seed", &texts->seed, SAYS, 0 },
        { "--context", &texts->context, SAYS | PERPLEXITY, 0 },
        { "--save", &texts->save, SAYS, 0 },
        { "--resume", &texts->resume, SAYS, 0 },
        { "--store", &texts->store, GENERATE, 0 },
    };
    memcpy(list, all, sizeof all);
}

/* Whether the command has what it needs, and nothing that it would not look at. */
static int check_given(const struct command *command, arguments *given, const char **argument, error_text *error)
{
    text_option list[N_TEXTS];
    list_options(given, list);
    for (size_t i = 0; i < N_TEXTS; i++) {
        *argument = list[i].name;
        if (*list[i].place != NULL && (list[i].takes & command->bit) == 0)
            return error_set(error, "\"%.60s\": %s has no such option; see kvtile-engine --help", *list[i].place, command->name);
        if (*list[i].place == NULL && (list[i].needs & command->bit) != 0)
            return error_set(error, "is missing; see kvtile-engine --help");
    }
    *argument = given->bos ? "--bos" : "--reference";
    if ((given->bos || given->reference) && (RUNS & command->bit) == 0)
        return error_set(error, "%s has no such option; see kvtile-engine --help", command->name);
    *argument = "--chat";
    if (given->chat && command->bit != GENERATE)
        return error_set(error, "%s has no such option; see kvtile-engine --help", command->name);
    if (given->chat && given->texts.prompt == NULL)
        return error_set(error, "a question is a --prompt, which is missing");
    *argument = "--prompt";
    if (command->bit == GENERATE && given->texts.prompt == NULL && given->texts.text == NULL && given->texts.resume == NULL)
        return error_set(error, "is missing, and --text too: one of them would be right");
    if ((command->bit & SAYS) && given->texts.prompt != NULL && given->texts.text != NULL)
        return error_set(error, "\"%.60s\": --text is given too; one of them would be right", given->texts.prompt);
    return 0;
}

static int run_command(const char *name, arguments *given)
{
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        const struct command *command = &COMMANDS[i];
        if (strcmp(name, command->name) != 0)
            continue;
        const option_texts *texts = &given->texts;
        const bool has_way = texts->scheme || texts->k || texts->v || texts->rotation || texts->centring || texts->first || texts->preset;
        options chosen = { .source.bos = given->bos != 0, .source.chat = given->chat != 0 };
        chosen.way.reference = given->reference != 0 || (command->bit == CAPTURE && !has_way);
        const char *argument = NULL;
        error_text error;
        int code = 2;
        if (check_given(command, given, &argument, &error) == 0 && options_read(&chosen, texts, &argument, &error) == 0)
            code = command->run(&chosen, &argument, &error) == 0 ? 0 : 1;
        if (code != 0) {
            char who[64];
            snprintf(who, sizeof who, "kvtile-engine %s", name);
            error_print(who, argument, error.text);
        }
        return code;
    }
    error_print("kvtile-engine", name, "no such command: generate, chat, perplexity, capture or export would be right");
    return 2;
}

int main(int argc, char **argv)
{
    program_start("kvtile-engine");
    json_set_alloc_funcs(program_allocate, free);
    arguments given = { 0 };
    int help = 0, help_all = 0;
    text_option list[N_TEXTS];
    char **values[N_TEXTS];
    struct poptOption table[N_TEXTS + 6] = {
        [N_TEXTS] = { "bos", 0, POPT_ARG_NONE, &given.bos, 0, NULL, NULL }, { "chat", 0, POPT_ARG_NONE, &given.chat, 0, NULL, NULL },
        { "reference", 0, POPT_ARG_NONE, &given.reference, 0, NULL, NULL }, { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
        { "help-all", 0, POPT_ARG_NONE, &help_all, 0, NULL, NULL },         POPT_TABLEEND,
    };
    list_options(&given, list);
    for (int i = 0; i < N_TEXTS; i++) {
        table[i] = (struct poptOption){ list[i].name + 2, 0, POPT_ARG_STRING, NULL, i + 1, NULL, NULL };
        values[i] = list[i].place;
    }
    if (argc == 2 && strcmp(argv[1], "--options") == 0)
        options_list_only();
    void *words = argv; /* popt wants const char **, which C does not convert to */
    poptContext context = options_open("kvtile-engine", "kvtile-engine", argc, words, table);
    if (context == NULL)
        return 1;
    const int parsed = options_take(context, argc, words, table, values);
    const char *name = poptGetArg(context);
    int code;
    if (parsed < -1) {
        error_print("kvtile-engine", poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help || help_all) {
        fputs(help_all ? HELP : BRIEF, stdout);
        code = 0;
    } else if (name == NULL) {
        error_print("kvtile-engine", "no command", "generate, chat, perplexity, capture or export would be right; see kvtile-engine --help");
        code = 2;
    } else if (poptPeekArg(context) != NULL) {
        error_print("kvtile-engine", poptPeekArg(context), "one command and its options would be right; see kvtile-engine --help");
        code = 2;
    } else {
        code = run_command(name, &given);
    }
    for (size_t i = 0; i < N_TEXTS; i++)
        free(*list[i].place);
    poptFreeContext(context);
    return code;
}
