/* SPDX-License-Identifier: MIT */
/* `kvtile size`: how many bytes the KV cache of a model takes. Here: the arguments, and finding the models. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/commands.h"

#include <ctype.h>
#include <inttypes.h>
#include <popt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/presets.h"
#include "tools/cli/size/size.h"
#include "tools/files/error.h"
#include "tools/files/nearest.h"
#include "tools/model/find.h"
#include "tools/model/shard.h"
#include "tools/model/weights.h"
#include "tools/program/options.h"

#define EXIT_ARGUMENTS 2
#define MAX_STAGES     65536 /* as many as a model may have layers */

/* clang-format off */
/* One screen of 80 columns; the rest is below. */
static const char BRIEF[] =
    "Examples:\n"
    "  kvtile size gemma-4-E2B                       a built-in model, cache by cache\n"
    "  kvtile size model.gguf --engine llama.cpp --scheme q8_0 --budget 8GiB\n"
    "  kvtile size my-model/config.json --k kv5 --v kv4 --ctx 128k --json\n"
    "  kvtile size gemma-4-E2B Qwen3-30B-A3B --ctx 32k,128k --schemes f16,q8_0,kv4\n"
    "\n"
    "How many bytes a model's KV cache takes, per token and in total. MODEL is a\n"
    "built-in name, a config.json, a folder that holds one, or a GGUF file.\n"
    "\n"
    "  --scheme S,...   how keys and values are stored (default f16); kv5/kv4: both\n"
    "  --k S, --v S     the same for keys or values alone\n"
    "  --ctx N,...      tokens of context (default 32k)    --seqs N   sequences\n"
    "  --engine E       kvtile, logical, llama.cpp, vllm, transformers, mlx\n"
    "  --budget BYTES   memory: what fits    --weights BYTES  of it, for the weights\n"
    "  --centring own   pages with their own centres, for best accuracy\n"
    "  --explain        formulas with their numbers\n"
    "  --plot FILE.svg  memory against context     --table, --json\n"
    "  --list           built-in models, engines and schemes\n"
    "\n"
    "kvtile size --help-all has every option.\n";

static const char help[] =
    "Usage: kvtile size MODEL [options]          one model, cache by cache\n"
    "       kvtile size MODEL... [options]       a table of models, schemes and contexts\n"
    "       kvtile size --list\n"
    "\n"
    "How many bytes the KV cache of a model takes: what each token of context adds, the sliding windows, the recurrent\n"
    "state, the total, and how much context fits into a memory.\n"
    "\n"
    "MODEL is a built-in name (--list), a config.json as published with the weights, a folder that holds one, or a\n"
    "GGUF file. Files go before names.\n"
    "\n"
    "What is stored:\n"
    "  --scheme S,...     how keys and values are stored, in the engine's own words (default f16; --list names all);\n"
    "                     kv5/kv4: keys in kv5 and values in kv4\n"
    "  --k S, --v S       the same for keys or values alone\n"
    "  --rope S           kvtile, logical: the rotary part of MLA's rows in a scheme of its own, as kvt_attend wants them\n"
    "  --ctx N,...        tokens of context of each sequence (default 32k). k and m stand for 1024 and 1024 * 1024; 65k,\n"
    "                     131k, 262k and 524k for the powers of two that people write so\n"
    "  --seqs N           sequences (default 1): users at the same time, each with its own --ctx\n"
    "  --shared-prefix N  kvtile, logical, vllm: the sequences begin with the same N tokens, which are stored once\n"
    "  --encoder N        tokens that the encoder of T5, Whisper or Llama 3.2 Vision makes, for cross attention\n"
    "  --tp N             one of N ranks of tensor parallelism: KV heads are divided, or copied when there are fewer\n"
    "  --pp N             kvtile, logical, vllm: the largest of N pipeline stages; --json has every one\n"
    "  --assume F=ignored,...  leave out fields of config.json that are not known, instead of refusing\n"
    "  --engine E         whose rules: kvtile (default), logical, llama.cpp, vllm, transformers, mlx; see --list\n"
    "\n"
    "What fits:\n"
    "  --budget BYTES     memory, such as 6GiB or 900MB: says whether this fits, the longest context and the most sequences\n"
    "  --weights BYTES    of it, taken by the model's weights\n"
    "  --with-weights     of it, as many as the files hold: a GGUF (all parts), safetensors or their index beside config.json\n"
    "  --reserve BYTES    and by anything else\n"
    "  --draft MODEL      a second model that drafts beside the first: its cache (and weights) count too\n"
    "\n"
    "Options of engines:\n"
    "  --ubatch N         llama.cpp: tokens of a batch (512); vllm: max_num_batched_tokens, mlx: prefill_step_size (both: what\n"
    "                     decoding holds)\n"
    "  --no-unified       llama.cpp: each sequence has its part of the context for itself (--unified: they share it, default)\n"
    "  --swa-full         llama.cpp: sliding layers keep the whole context\n"
    "  --static           transformers: StaticCache and not DynamicCache\n"
    "  --flash-attn WORD  llama.cpp: on (default) or off\n"
    "  --draft N          a number: llama.cpp: tokens drafted by the model's own MTP layers\n"
    "  --block-size N     vllm: tokens of a block (16)\n"
    "  --centring WORD    kvtile: none (default), sequence, page or own\n"
    "  --fp8-block WORD   kvtile, logical: channels that share a scale of e4m3 or e5m2: row (default), 32, 64, 128\n"
    "  --fp8-scale WORD   kvtile, logical: f32 (default) or e8m0\n"
    "\n"
    "How it is shown:\n"
    "  --json             one JSON object in bytes, or a list of them\n"
    "  --explain          one line for each group of layers: the formula with its numbers\n"
    "  --plot FILE.svg    memory against context, drawn by gnuplot; with --budget a line for what fits\n"
    "  --table            a table of the models named, or of six well-known ones in four schemes\n"
    "  --list             the built-in models, and the engines with their schemes\n"
    "  --help-all         this text; --help: one screen\n"
    "\n"
    "Examples:\n"
    "  kvtile size gemma-4-E2B\n"
    "  kvtile size gemma-4-E2B gemma-4-26B-A4B --ctx 32k,65k --schemes f16,q8_0,kv4,q4_0\n"
    "  kvtile size Qwen3.5-35B-A3B --scheme q8_0 --ctx 128k --seqs 4\n"
    "  kvtile size model.gguf --engine llama.cpp --scheme q8_0 --budget 8GiB --weights 5.2GB\n"
    "  kvtile size GLM-4.7-Flash --schemes f16,kv8,kv4 --ctx 128k --plot glm.svg\n"
    "  kvtile size Qwen3-30B-A3B --seqs 4 --ctx 32k --budget 16GiB --schemes f16,kv5/kv4 --plot fits.svg\n";
/* clang-format on */

static const char *const well_known[] = { "gemma-4-E2B",   "gemma-4-26B-A4B",         "Qwen3.5-35B-A3B",
                                          "GLM-4.7-Flash", "Nemotron-3-Nano-30B-A3B", "Qwen3-30B-A3B-Instruct-2507" };
#define N_WELL_KNOWN (sizeof well_known / sizeof well_known[0])

/* Options that have a text, in the order of their rows in `options`. */
enum {
    TEXT_SCHEME,
    TEXT_K,
    TEXT_V,
    TEXT_ROPE,
    TEXT_CTX,
    TEXT_SEQS,
    TEXT_ENGINE,
    TEXT_BUDGET,
    TEXT_WEIGHTS,
    TEXT_RESERVE,
    TEXT_UBATCH,
    TEXT_DRAFT,
    TEXT_BLOCK,
    TEXT_FLASH,
    TEXT_CENTRING,
    TEXT_FP8_BLOCK,
    TEXT_FP8_SCALE,
    TEXT_PLOT,
    TEXT_PREFIX,
    TEXT_ENCODER,
    TEXT_TP,
    TEXT_PP,
    TEXT_ASSUME,
    N_TEXTS
};

typedef struct arguments {
    char *texts[N_TEXTS];
    int unified, no_unified, swa_full, static_cache, json, table, list, help, with_weights, explain, help_all;
    const char **names; /* of models; belong to popt */
    size_t n_names;
} arguments;

/* ---- words and numbers ----------------------------------------------------------------------------------------------------------- */

static int unknown_name(const char *argument, const char *what, const nearest *best)
{
    if (best->name)
        size_say(argument, "there is no %s of that name: did you mean %s? \"kvtile size --list\" names all", what, best->name);
    else
        size_say(argument, "there is no %s of that name: \"kvtile size --list\" names all", what);
    return EXIT_ARGUMENTS;
}

/* Engines whose types are kvtile's schemes. */
static bool is_own(kvt_engine engine)
{
    return engine == KVT_ENGINE_kvtile || engine == KVT_ENGINE_logical;
}

/* The engine's own copy of the name, which lives for ever. */
static int parse_type(kvt_engine engine, const char *text, const char **type)
{
    nearest best = { .typed = text };
    const char *name;
    for (size_t i = 0; (name = kvt_engine_type_at(engine, i)) != NULL; i++) {
        if (strcmp(text, name) == 0) {
            *type = name;
            return 0;
        }
        nearest_consider(&best, name);
    }
    preset_schemes preset;
    if (is_own(engine) && preset_find(&preset, text)) {
        size_say(text, "is a preset: \"--scheme %s/%s --centring own\" is the size of its pages; a sequence's first page is in %s", preset.k,
                 preset.v, preset.first);
        return EXIT_ARGUMENTS;
    }
    if (strcmp(text, "fp8") == 0 && is_own(engine))
        best.name = "e4m3";
    char what[60];
    snprintf(what, sizeof what, "scheme of engine %s", kvt_engine_name(engine));
    return unknown_name(text, what, &best);
}

static int parse_engine(const char *text, kvt_engine *engine)
{
    nearest best = { .typed = text };
    for (size_t i = 0; kvt_engine_at(i) != KVT_ENGINE_NONE; i++) {
        if (strcmp(text, kvt_engine_name(kvt_engine_at(i))) == 0) {
            *engine = kvt_engine_at(i);
            return 0;
        }
        nearest_consider(&best, kvt_engine_name(kvt_engine_at(i)));
    }
    return unknown_name(text, "engine", &best);
}

typedef struct word {
    const char *name;
    uint32_t value;
} word;

/* `words` ends with an empty row. NULL: the first. */
static int parse_word(const char *option, const char *text, const word *words, uint32_t *value)
{
    char right[80] = "";
    *value = words->value;
    for (const word *w = words; w->name; w++) {
        if (!text || strcmp(text, w->name) == 0) {
            *value = w->value;
            return 0;
        }
        snprintf(right + strlen(right), sizeof right - strlen(right), "%s%s", w == words ? "" : w[1].name ? ", " : " or ", w->name);
    }
    size_say(option, "is \"%.60s\", but must be %s", text, right);
    return EXIT_ARGUMENTS;
}

/* Digits, then nothing, k or m. */
static bool count_of(const char *text, uint64_t *count)
{
    uint64_t value = 0;
    const char *c = text;
    if (*c < '0' || *c > '9')
        return false;
    for (; *c >= '0' && *c <= '9'; c++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) || __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value))
            return false;
    }
    const int unit = tolower((unsigned char)*c);
    if (unit == 'k' || unit == 'm') {
        /* 65,536 in thousands: nobody who writes 65k means 66,560. */
        if (unit == 'k' && (value == 65 || value == 131 || value == 262 || value == 524))
            value = value / 64 * 64;
        if (__builtin_mul_overflow(value, unit == 'k' ? UINT64_C(1024) : UINT64_C(1024) * 1024, &value))
            return false;
        c++;
    }
    *count = value;
    return *c == '\0';
}

static int parse_count(const char *option, const char *text, uint64_t low, uint64_t high, uint64_t *count)
{
    if (count_of(text, count) && *count >= low && *count <= high)
        return 0;
    size_say(option, "\"%.60s\" must be a whole number from %" PRIu64 " to %" PRIu64 ", such as 4096, 32k or 1m", text, low, high);
    return EXIT_ARGUMENTS;
}

static int parse_bytes(const char *option, const char *text, uint64_t *bytes)
{
    if (options_read_bytes(text, bytes))
        return 0;
    size_say(option, "\"%.60s\" must be a number of bytes below 2^64, such as 6GiB, 900MB or 123456", text);
    return EXIT_ARGUMENTS;
}

/* Cuts a list at its commas, in place. */
static int split_list(const char *option, char *text, const char **items, size_t *n)
{
    for (*n = 0;; (*n)++) {
        if (*n == SIZE_MAX_LIST) {
            size_say(option, "has more than %d entries", SIZE_MAX_LIST);
            return EXIT_ARGUMENTS;
        }
        items[*n] = text;
        text = strchr(text, ',');
        if (!text)
            break;
        *text++ = '\0';
    }
    (*n)++;
    return 0;
}

/* ---- arguments to a question ----------------------------------------------------------------------------------------------------- */

static int parse_types(const arguments *a, size_question *q)
{
    static const char *const table[] = { "f16", "q8_0", "kv4", "q4_0" }, *const other[] = { "f16" };
    const char *items[SIZE_MAX_LIST];
    const bool own = is_own(q->request.engine);
    const bool standard = a->table && !a->texts[TEXT_SCHEME] && !a->texts[TEXT_K] && !a->texts[TEXT_V];
    if (a->texts[TEXT_SCHEME]) {
        const int code = split_list("--scheme", a->texts[TEXT_SCHEME], items, &q->n_types);
        if (code)
            return code;
        if (q->n_types > 1 && (a->texts[TEXT_K] || a->texts[TEXT_V])) {
            size_say(a->texts[TEXT_K] ? "--k" : "--v", "is for one scheme: --scheme has several");
            return EXIT_ARGUMENTS;
        }
    } else {
        q->n_types = standard && own ? sizeof table / sizeof table[0] : 1;
        memcpy(items, standard && own ? table : other, q->n_types * sizeof items[0]);
    }
    for (size_t i = 0; i < q->n_types; i++) {
        char k_item[40]; /* "kv5/kv4": keys and values */
        const char *slash = strchr(items[i], '/'), *v_item = slash ? slash + 1 : items[i];
        snprintf(k_item, sizeof k_item, "%.*s", slash ? (int)(slash - items[i] < 39 ? slash - items[i] : 39) : 39, items[i]);
        int code = parse_type(q->request.engine, a->texts[TEXT_K] ? a->texts[TEXT_K] : k_item, &q->k_types[i]);
        if (code == 0)
            code = parse_type(q->request.engine, a->texts[TEXT_V] ? a->texts[TEXT_V] : v_item, &q->v_types[i]);
        if (code)
            return code;
    }
    return 0;
}

static int parse_contexts(const arguments *a, size_question *q)
{
    q->contexts[0] = 32768;
    q->n_contexts = 1;
    if (!a->texts[TEXT_CTX])
        return 0;
    const char *items[SIZE_MAX_LIST];
    int code = split_list("--ctx", a->texts[TEXT_CTX], items, &q->n_contexts);
    for (size_t i = 0; i < q->n_contexts && code == 0; i++)
        code = parse_count("--ctx", items[i], 0, UINT64_MAX, &q->contexts[i]);
    return code;
}

static int parse_memory(const arguments *a, size_question *q)
{
    q->budget = UINT64_C(1) << 30; /* for tables: what a phone can spare */
    q->budget_given = a->texts[TEXT_BUDGET] != NULL;
    const struct {
        const char *option;
        int text;
        uint64_t *bytes;
    } sizes[] = { { "--budget", TEXT_BUDGET, &q->budget }, { "--weights", TEXT_WEIGHTS, &q->weights }, { "--reserve", TEXT_RESERVE, &q->reserve } };
    if (a->with_weights && (!q->budget_given || a->texts[TEXT_WEIGHTS])) {
        size_say("--with-weights", q->budget_given ? "contradicts --weights" : "is a part of a budget: give --budget too");
        return EXIT_ARGUMENTS;
    }
    for (size_t i = 0; i < 3; i++) {
        const char *text = a->texts[sizes[i].text];
        if (text && !q->budget_given) {
            size_say(sizes[i].option, "is a part of a budget: give --budget too");
            return EXIT_ARGUMENTS;
        }
        const int code = text ? parse_bytes(sizes[i].option, text, sizes[i].bytes) : 0;
        if (code)
            return code;
    }
    return 0;
}

/* --draft is a number of tokens, or a model. */
static bool names_tokens(const char *draft)
{
    return draft && *draft && strspn(draft, "0123456789") == strlen(draft);
}

/* An option of an engine that another one was asked for is a mistake, not something to ignore. */
static int refuse_foreign(const arguments *a, kvt_engine engine)
{
    const kvt_engine llama = KVT_ENGINE_llama_cpp, vllm = KVT_ENGINE_vllm, mlx = KVT_ENGINE_mlx, tiles = KVT_ENGINE_kvtile, rows = KVT_ENGINE_logical;
    const struct {
        const char *option;
        bool given;
        kvt_engine engines[3];
        const char *right;
    } options[] = {
        { "--ubatch", a->texts[TEXT_UBATCH], { llama, vllm, mlx }, "llama.cpp, vllm or mlx" },
        { "--unified", a->unified, { llama }, "llama.cpp" },
        { "--no-unified", a->no_unified, { llama }, "llama.cpp" },
        { "--swa-full", a->swa_full, { llama }, "llama.cpp" },
        { "--static", a->static_cache, { KVT_ENGINE_transformers }, "transformers" },
        { "--flash-attn", a->texts[TEXT_FLASH], { llama }, "llama.cpp" },
        { "--draft", names_tokens(a->texts[TEXT_DRAFT]), { llama }, "llama.cpp" },
        { "--shared-prefix", a->texts[TEXT_PREFIX], { tiles, rows, vllm }, "kvtile, logical or vllm" },
        { "--pp", a->texts[TEXT_PP], { tiles, rows, vllm }, "kvtile, logical or vllm" },
        { "--block-size", a->texts[TEXT_BLOCK], { vllm }, "vllm" },
        { "--centring", a->texts[TEXT_CENTRING], { tiles }, "kvtile" },
        { "--fp8-block", a->texts[TEXT_FP8_BLOCK], { tiles, rows }, "kvtile or logical" },
        { "--fp8-scale", a->texts[TEXT_FP8_SCALE], { tiles, rows }, "kvtile or logical" },
        { "--rope", a->texts[TEXT_ROPE], { tiles, rows }, "kvtile or logical" },
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        const kvt_engine *e = options[i].engines;
        if (options[i].given && engine != e[0] && engine != e[1] && engine != e[2]) {
            size_say(options[i].option, "is an option of --engine %s, not of %s", options[i].right, kvt_engine_name(engine));
            return EXIT_ARGUMENTS;
        }
    }
    return 0;
}

static int parse_small(const char *option, const char *text, uint32_t *value)
{
    uint64_t count = 0;
    const int code = text ? parse_count(option, text, 1, UINT32_MAX, &count) : 0;
    *value = (uint32_t)count;
    return code;
}

static int parse_engine_options(const arguments *a, kvt_size_request *r)
{
    static const word flash[] = { { "on", 0 }, { "off", 1 }, { NULL, 0 } };
    static const word centrings[] = {
        { "none", KVT_CENTRING_NONE }, { "sequence", KVT_CENTRING_SEQUENCE }, { "page", KVT_CENTRING_PAGE }, { "own", KVT_CENTRING_OWN }, { NULL, 0 }
    };
    static const word blocks[] = { { "row", 0 }, { "32", 32 }, { "64", 64 }, { "128", 128 }, { NULL, 0 } };
    static const word scales[] = { { "f32", KVT_FP8_SCALE_F32 }, { "e8m0", KVT_FP8_SCALE_E8M0 }, { NULL, 0 } };
    uint32_t off, centring, block, scale;
    int code = refuse_foreign(a, r->engine);
    if (code || (code = parse_small("--ubatch", a->texts[TEXT_UBATCH], &r->batch_tokens)) ||
        (code = parse_small("--draft", names_tokens(a->texts[TEXT_DRAFT]) ? a->texts[TEXT_DRAFT] : NULL, &r->draft_tokens)) ||
        (code = parse_small("--block-size", a->texts[TEXT_BLOCK], &r->block_tokens)) ||
        (code = parse_word("--flash-attn", a->texts[TEXT_FLASH], flash, &off)) ||
        (code = parse_word("--centring", a->texts[TEXT_CENTRING], centrings, &centring)) ||
        (code = parse_word("--fp8-block", a->texts[TEXT_FP8_BLOCK], blocks, &block)) ||
        (code = parse_word("--fp8-scale", a->texts[TEXT_FP8_SCALE], scales, &scale)))
        return code;
    if (a->unified && a->no_unified) {
        size_say("--no-unified", "contradicts --unified");
        return EXIT_ARGUMENTS;
    }
    r->separate_streams = a->no_unified;
    r->swa_full = a->swa_full;
    r->static_cache = a->static_cache;
    r->no_flash_attention = off;
    r->k_options = (kvt_side_options){ .centring = (kvt_centring)centring, .fp8_block = block, .fp8_scale = (kvt_fp8_scale)scale };
    r->v_options = r->k_options;
    return a->texts[TEXT_ROPE] ? parse_type(r->engine, a->texts[TEXT_ROPE], &r->rope_type) : 0;
}

static int parse_question(const arguments *a, size_question *q)
{
    q->request = (kvt_size_request){ .size = sizeof q->request, .engine = KVT_ENGINE_kvtile, .sequences = 1 };
    int code = a->texts[TEXT_ENGINE] ? parse_engine(a->texts[TEXT_ENGINE], &q->request.engine) : 0;
    if (code == 0 && a->texts[TEXT_SEQS])
        code = parse_count("--seqs", a->texts[TEXT_SEQS], 1, UINT64_MAX, &q->request.sequences);
    if (code == 0 && a->texts[TEXT_PREFIX])
        code = parse_count("--shared-prefix", a->texts[TEXT_PREFIX], 1, UINT64_MAX, &q->request.shared_prefix);
    if (code == 0 && a->texts[TEXT_ENCODER])
        code = parse_count("--encoder", a->texts[TEXT_ENCODER], 1, UINT64_MAX, &q->request.encoder_tokens);
    if (code == 0)
        code = parse_small("--tp", a->texts[TEXT_TP], &q->ranks);
    q->ranks = q->ranks ? q->ranks : 1;
    uint64_t n_stages = 1;
    if (code == 0 && a->texts[TEXT_PP])
        code = parse_count("--pp", a->texts[TEXT_PP], 1, MAX_STAGES, &n_stages);
    q->n_stages = (uint32_t)n_stages;
    if (code == 0 && q->n_stages > 1 && (a->with_weights || a->texts[TEXT_DRAFT])) {
        size_say(a->with_weights ? "--with-weights" : "--draft", "cannot be divided among the stages of --pp: %s",
                 a->with_weights ? "give the bytes of one stage's weights with --weights" : "size the draft model by itself");
        code = EXIT_ARGUMENTS;
    }
    q->explain = a->explain;
    if (code == 0)
        code = parse_types(a, q);
    if (code == 0)
        code = parse_contexts(a, q);
    if (code == 0)
        code = parse_memory(a, q);
    return code ? code : parse_engine_options(a, &q->request);
}

/* ---- models ---------------------------------------------------------------------------------------------------------------------- */

static int find_model(const char *text, model_description *description, const kvt_model **model)
{
    char problem[4 * 4096 + sizeof(error_text)];
    const kvt_status status = model_find(text, description, model, problem, sizeof problem);
    if (status == KVT_OK)
        return 0;
    fprintf(stderr, "kvtile size: %s%s\n", problem, status == KVT_ERR_NAME ? " (\"kvtile size --list\" names all)" : "");
    return status == KVT_ERR_NAME ? EXIT_ARGUMENTS : EXIT_FAILURE;
}

/* ---- the command ----------------------------------------------------------------------------------------------------------------- */

static void print_list(void)
{
    const kvt_model *model;
    printf("Models, the longest context that each was made for, and what a token of it takes in f16:\n");
    for (size_t i = 0; (model = kvt_catalogue_at(i)) != NULL; i++) {
        const kvt_size_request request = { .size = sizeof request, .engine = KVT_ENGINE_logical, .sequences = 1 };
        kvt_size_report report;
        const kvt_status status = kvt_size(model, &request, &report, NULL);
        printf("  %-40s %9s %12s\n", model->name, number_grouped(model->max_context).text, status == KVT_OK ? number_growth(&report).text : "?");
    }
    printf("\nSchemes of kvtile:\n");
    const kvt_scheme_info *scheme;
    for (size_t i = 0; (scheme = kvt_scheme_at(i)) != NULL; i++)
        printf("  %-5s %s\n", scheme->name, scheme->title);
    printf("\nEngines, and their names for schemes:\n");
    for (size_t i = 0; kvt_engine_at(i) != KVT_ENGINE_NONE; i++) {
        const kvt_engine engine = kvt_engine_at(i);
        printf("  %-12s %s\n", kvt_engine_name(engine), kvt_engine_title(engine));
        const char *type;
        printf("  %-12s", "");
        for (size_t t = 0; (type = kvt_engine_type_at(engine, t)) != NULL; t++)
            printf(" %s", type);
        printf("\n");
    }
}

/* What was left out of an answer, and what no answer can mean. */
static void print_notes(const size_question *q)
{
    for (size_t i = 0; i < q->n_models; i++) {
        if (*q->notes[i])
            size_say(q->models[i]->name, "note: %s", q->notes[i]);
        uint64_t longest = 0;
        for (size_t c = 0; c < q->n_contexts; c++)
            longest = longest < q->contexts[c] ? q->contexts[c] : longest;
        const bool shared = q->request.engine == KVT_ENGINE_llama_cpp && q->request.sequences > 1;
        if (!shared && q->models[i]->max_context && longest > q->models[i]->max_context)
            size_say("--ctx", "note: %s was made for at most %s tokens", q->models[i]->name, number_grouped(q->models[i]->max_context).text);
    }
}

static int answer(const arguments *a, size_question *q)
{
    int code;
    if (a->json)
        code = size_print_json(q);
    else if (a->table || q->n_models * q->n_types * q->n_contexts > 1)
        code = size_print_table(q);
    else
        code = size_print_model(q);
    if (code == 0 && a->texts[TEXT_PLOT])
        code = size_plot(q, a->texts[TEXT_PLOT]);
    if (code == 0)
        print_notes(q);
    return code;
}

/* A model that was asked for, and all that belongs to it. */
typedef struct found_model {
    model_description description; /* of a file */
    model_description rank;        /* its part on one rank */
    model_stage *stages;           /* of that; NULL: one */
    uint32_t n_stages;
    const kvt_model *model;
    uint64_t weights;
} found_model;

static void free_model(found_model *found)
{
    description_free(&found->description);
    description_free(&found->rank);
    if (found->stages)
        model_free_stages(found->stages, found->n_stages);
    free(found->stages);
}

static int split_model(const size_question *q, found_model *found)
{
    const kvt_model *model = found->model;
    error_text error;
    if (q->request.engine == KVT_ENGINE_vllm && !model_is_uniform(model)) {
        size_say(model->name, "--pp: vllm puts layers of different kinds into groups before it divides them, which cannot be sized yet: "
                              "--engine kvtile or logical counts each stage's layers");
        return EXIT_FAILURE;
    }
    const bool from_file = model == &found->description.model;
    found->stages = calloc(q->n_stages, sizeof *found->stages);
    if (!found->stages || model_split(model, from_file ? &found->description : NULL, q->n_stages, q->ranks, found->stages, &error) != 0) {
        size_say(model->name, "%s", found->stages ? error.text : "--pp: no memory");
        free(found->stages);
        found->stages = NULL;
        return EXIT_FAILURE;
    }
    found->n_stages = q->n_stages;
    return 0;
}

static int take_model(const arguments *a, const size_question *q, const char *const *assumed, const char *text, found_model *found)
{
    error_text error;
    found->description.assumed = assumed;
    const int code = find_model(text, &found->description, &found->model);
    if (code)
        return code;
    if (a->with_weights && model_weights(text, &found->weights, &error) != 0) {
        size_say(text, "--with-weights: %s", error.text);
        return EXIT_FAILURE;
    }
    if (q->n_stages > 1 && split_model(q, found) != 0)
        return EXIT_FAILURE;
    if (q->ranks == 1)
        return 0;
    if (model_shard(found->model, q->ranks, &found->rank, &error) != 0) {
        size_say(found->model->name, "%s", error.text);
        return EXIT_FAILURE;
    }
    found->model = &found->rank.model;
    return 0;
}

/* FIELD=ignored,... to names; in place. */
static int parse_assumed(char *text, const char **names)
{
    static const char ending[] = "=ignored";
    size_t n = 0;
    if (!text)
        return 0;
    const int code = split_list("--assume", text, names, &n);
    for (size_t i = 0; i < n && code == 0; i++) {
        char *end = strstr(names[i], ending);
        if (!end || end == names[i] || end[sizeof ending - 1]) {
            size_say("--assume", "\"%.60s\" must be FIELD=ignored", names[i]);
            return EXIT_ARGUMENTS;
        }
        *end = '\0';
    }
    return code;
}

/* All that can be read, in order: *code is 0, or what the first that cannot ended with. Its message is out by then. */
static void take_models(const arguments *a, size_question *q, const char *const *assumed, found_model *found, bool *unknown, int *code)
{
    const size_t asked = q->n_models;
    q->n_models = 0;
    for (size_t i = 0; i < asked; i++) {
        found_model *match = &found[q->n_models];
        const int failed = take_model(a, q, assumed, a->n_names ? a->names[i] : well_known[i], match);
        *code = *code ? *code : failed;
        if (failed) {
            free_model(match);
            *match = (found_model){ 0 };
            continue;
        }
        q->models[q->n_models] = match->model;
        q->notes[q->n_models] = match->description.notes;
        q->model_weights[q->n_models] = match->weights;
        q->stages[q->n_models] = match->stages;
        unknown[q->n_models++] = match->description.unknown_type;
    }
}

static int run_models(const arguments *a, size_question *q)
{
    const char *assumed[SIZE_MAX_LIST + 1] = { NULL };
    int code = parse_assumed(a->texts[TEXT_ASSUME], assumed), bad = 0;
    if (code)
        return code;
    const bool drafts = a->texts[TEXT_DRAFT] && !names_tokens(a->texts[TEXT_DRAFT]);
    const size_t asked = q->n_models = a->n_names ? a->n_names : N_WELL_KNOWN;
    found_model *found = calloc(asked, sizeof *found), draft = { .weights = 0 };
    bool *unknown = calloc(asked, sizeof *unknown);
    q->models = calloc(asked, sizeof *q->models);
    q->notes = calloc(asked, sizeof *q->notes);
    q->model_weights = calloc(asked, sizeof *q->model_weights);
    q->stages = calloc(asked, sizeof *q->stages);
    q->unknown_types = unknown;
    code = found && unknown && q->stages && q->models && q->notes && q->model_weights ? 0 : EXIT_FAILURE;
    if (code)
        size_say("MODEL", "no memory");
    if (code == 0 && drafts)
        code = take_model(a, q, assumed, a->texts[TEXT_DRAFT], &draft);
    q->draft = drafts ? draft.model : NULL;
    q->draft_weights = draft.weights;
    if (code == 0) {
        take_models(a, q, assumed, found, unknown, &bad);
        code = q->n_models ? answer(a, q) : bad;
    }
    for (size_t i = 0; found && i < asked; i++)
        free_model(&found[i]);
    free_model(&draft);
    free(found);
    free(unknown);
    free(q->models);
    free(q->notes);
    free(q->model_weights);
    free(q->stages);
    return code ? code : bad;
}

static int run_size(poptContext popt, int argc, const char **argv, const struct poptOption *options, arguments *a)
{
    char **values[N_TEXTS];
    for (size_t i = 0; i < N_TEXTS; i++)
        values[i] = &a->texts[i];
    const int end = options_take(popt, argc, argv, options, values);
    if (end < -1) {
        size_say(poptBadOption(popt, POPT_BADOPTION_NOALIAS), "%s: see \"kvtile size --help\"", poptStrerror(end));
        return EXIT_ARGUMENTS;
    }
    a->names = poptGetArgs(popt);
    while (a->names && a->names[a->n_names])
        a->n_names++;
    if (a->help || a->help_all) {
        fputs(a->help_all ? help : BRIEF, stdout);
        return 0;
    }
    if (a->list) {
        print_list();
        return 0;
    }
    if (a->n_names == 0 && !a->table) {
        size_say("MODEL", "is missing: give a name of \"kvtile size --list\", a config.json or a .gguf file, or see \"kvtile size --help\"");
        return EXIT_ARGUMENTS;
    }
    a->table = a->table || a->n_names > 1;
    size_question question = { 0 };
    const int code = parse_question(a, &question);
    return code ? code : run_models(a, &question);
}

int kvt_cmd_size(int argc, const char **argv)
{
    arguments a = { 0 };
#define TEXT(name, index)                                                                                                                            \
    {                                                                                                                                                \
        name, '\0', POPT_ARG_STRING, NULL, (index) + 1, NULL, NULL                                                                                   \
    }
#define FLAG(name, letter, flag)                                                                                                                     \
    {                                                                                                                                                \
        name, letter, POPT_ARG_NONE, &a.flag, 0, NULL, NULL                                                                                          \
    }
    const struct poptOption options[] = { TEXT("scheme", TEXT_SCHEME),
                                          TEXT("schemes", TEXT_SCHEME),
                                          TEXT("k", TEXT_K),
                                          TEXT("v", TEXT_V),
                                          TEXT("rope", TEXT_ROPE),
                                          TEXT("ctx", TEXT_CTX),
                                          TEXT("seqs", TEXT_SEQS),
                                          TEXT("engine", TEXT_ENGINE),
                                          TEXT("budget", TEXT_BUDGET),
                                          TEXT("weights", TEXT_WEIGHTS),
                                          TEXT("reserve", TEXT_RESERVE),
                                          TEXT("ubatch", TEXT_UBATCH),
                                          TEXT("draft", TEXT_DRAFT),
                                          TEXT("block-size", TEXT_BLOCK),
                                          TEXT("flash-attn", TEXT_FLASH),
                                          TEXT("centring", TEXT_CENTRING),
                                          TEXT("fp8-block", TEXT_FP8_BLOCK),
                                          TEXT("fp8-scale", TEXT_FP8_SCALE),
                                          TEXT("plot", TEXT_PLOT),
                                          TEXT("shared-prefix", TEXT_PREFIX),
                                          TEXT("encoder", TEXT_ENCODER),
                                          TEXT("tp", TEXT_TP),
                                          TEXT("pp", TEXT_PP),
                                          TEXT("assume", TEXT_ASSUME),
                                          FLAG("with-weights", '\0', with_weights),
                                          FLAG("explain", '\0', explain),
                                          FLAG("unified", '\0', unified),
                                          FLAG("no-unified", '\0', no_unified),
                                          FLAG("swa-full", '\0', swa_full),
                                          FLAG("static", '\0', static_cache),
                                          FLAG("json", '\0', json),
                                          FLAG("table", '\0', table),
                                          FLAG("list", '\0', list),
                                          FLAG("help", 'h', help),
                                          FLAG("help-all", '\0', help_all),
                                          POPT_TABLEEND };
#undef TEXT
#undef FLAG
    poptContext popt = options_open("kvtile size", "kvtile size", argc, argv, options);
    if (!popt)
        return EXIT_FAILURE;
    const int code = run_size(popt, argc, argv, options, &a);
    for (size_t i = 0; i < N_TEXTS; i++)
        free(a.texts[i]);
    poptFreeContext(popt);
    return code;
}
