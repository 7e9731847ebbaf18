/* kvtile eval: real rows, stored in each scheme and read back. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/commands.h"
#include "tools/cli/eval/budget.h"

#include "tools/cli/eval/model.h"
#include "tools/cli/eval/page.h"
#include "tools/program/options.h"
#include "tools/rows/kind.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char WHO[] = "kvtile eval";

static const char HELP[] =
    "Usage: kvtile eval INPUT... [options]\n"
    "       kvtile eval --attention INPUT... [options]\n"
    "       kvtile eval --latent INPUT... [options]\n"
    "       kvtile eval --budget BITS|BYTES INPUT... [options], or --max-kl X\n"
    "       kvtile eval --model MODEL [--tokenizer FILE] --text FILE [options]\n"
    "Stores the rows of each INPUT in each scheme, with each rotation, centring and effort, reads them back, and reports exact bytes, accuracy and\n"
    "speed: the largest first, of equal size the most accurate first. Several inputs of one side are also summed up.\n"
    "\n"
    "With --attention the first keys, the first values and the first queries among the inputs are a layer, the second ones the next, and what is\n"
    "reported is what causal attention makes of them: the divergence of its weights and the error of its output.\n"
    "\n"
    "With --latent inputs without values are latents of MLA, [token][latent and rotary part], and queries are absorbed ones: they are stored in "
    "each\n"
    "way, the rotary part in each scheme of --rope, and as FlashMLA, DeepSeek-V4 and ggml store them. Of keys and values the best latents of each\n"
    "--rank are made, by singular value decomposition, and stored so, beside the keys and values themselves.\n"
    "\n"
    "With --budget or --max-kl the inputs are layers as for --attention; each scheme is tried on the keys and the values of each layer alone, and "
    "the\n"
    "choice for each layer is proposed that has the least error within the budget, or the fewest bytes within the divergence, and measured.\n"
    "\n"
    "With --model a model runs over a text, once with an exact KV cache and once with each way of storing it, and what is reported is how far its\n"
    "predictions of the next token move.\n"
    "\n"
    "INPUT: rows of keys or values, [token][dim] or [head][token][dim], also in a batch of 1: QVKT (f32), .npy (f32, f16), .npz and .safetensors\n"
    "       (every array of f32, f16 or bf16 that has such a shape); with --shape, numbers and nothing else\n"
    "\n";

static const char HELP_OF_OPTIONS[] =
    "A LIST is words separated by commas, or \"all\". Every combination is measured, once where the width makes two the same.\n"
    "  --schemes LIST    see kvtile info (default: all, which is kvtile's own); formats of others, listed below, or \"peers\", all of them;\n"
    "                    for --attention and --model also pairs, keys/values (kv5/kv4), and presets: quality kv6/kv5, balanced kv5/kv4,\n"
    "                    compact kv4, tight kv4/kv3\n"
    "  --rotation LIST   none, 64, 128\n"
    "  --centring LIST   none, sequence, page, own: none, or a centre from what is stored before, of the first page or of the one before,\n"
    "                    or the mean of the page itself, which must then be written whole. When neither this nor --rotation is\n"
    "                    given: none with none, and 64 with page; when one of them is: \"none\" for the other\n"
    "  --effort LIST     fast, default, best: of the encoders that search, kv6 to kv2 (default: default)\n"
    "  --fp8-block LIST  row, 32, 64, 128: channels that share a scale in e4m3 and e5m2 (default: row)\n"
    "  --fp8-scale LIST  f32, e8m0: their scales (default: f32)\n"
    "\n"
    "  --side k|v      store as keys or as values; auto (the default): as the name of the tensor says, or else that of the file: by a word like\n"
    "                  \"values\", or by a v of its own (\"layer3_v\"), the last one in it; a name that says nothing is of keys\n"
    "  --order ORDER   of arrays: head,token,dim (the default) or token,head,dim\n"
    "  --attention     compare attention; without queries keys stand for them\n"
    "  --queries N     at most so many tokens of a layer ask, evenly spaced (default 128)\n"
    "  --scale X       of logits (default: 1 / sqrt(head_dim))\n"
    "  --budget X      bits per element on average (4.75), or bytes per token of all layers (1200B, 3KiB)\n"
    "  --max-kl X      mean divergence of attention's weights in nats (0.001)\n"
    "  --latent        compare latents\n"
    "  --rope-dim N    the last N numbers of a latent's row are its rotary part (default: 0)\n"
    "  --rope LIST     schemes of the rotary part (default: bf16,kv8)\n"
    "  --rank LIST     ranks of the latents of keys and values (default: an eighth, a quarter and half of a token's numbers)\n"
    "  --shape LIST    INPUTs have no header: [heads,]tokens,dim, or in the order of --order\n"
    "  --dtype f32|f16|bf16\n"
    "                  of INPUTs without a header (default: f32)\n"
    "  --from N        measure tokens N and later; all are stored (default 0).\n"
    "                  Latents of keys and values are made from the tokens before N only, when N is not 0\n"
    "  --mean          only what is summed up over all inputs\n"
    "  --no-speed      do not measure speed, which is what takes time\n"
    "  --tier LIST     kernels that may run: \"avx2\" = that tier and what it inherits, \"-avx512\" = all but that one\n"
    "  --json          an array of objects, one per tensor and way of storing; with --mean one per side and way\n"
    "  --csv           the same as lines with commas, without what is by head, layer or position\n"
    "  --report FILE   also a page to look at, .html: charts, and a table to sort; \"-\": to stdout, in place of the table\n"
    "  --help          this text\n";

static const char HELP_OF_MODELS[] =
    "\n"
    "Models:\n"
    "  --model MODEL   of the Llama architecture: a Hugging Face folder (config.json, safetensors), a GGUF file (f32, f16, bf16, q8_0, q4_0), a\n"
    "                  llama2.c checkpoint or its f16 form. Schemes may be pairs of keys and values: \"kv5/kv4\"\n"
    "  --tokenizer F   of llama2.c, or tokenizer.json (default: what a folder or a GGUF file brings along)\n"
    "  --text FILE     what the model is run on\n"
    "  --tokens N      the first N tokens of the text (default: all)\n"
    "  --context N     tokens of a window, each of which begins anew (default: the model's context)\n"
    "  --bos           windows begin with the token that marks a text's beginning, for models that were trained so\n"
    "  --first S       scheme of the first page of a window, in every way; none: as the others (default kv8)\n"
    "  --open S        scheme of the page that is not full; none: each token is stored at once (default bf16)\n"
    "  --by-layer      also each layer's keys alone, and its values alone, the others exact\n"
    "  --stress S      outliers: a model that computes the same from keys and values with strong outlier channels\n"
    "  --threads N     that share the work (default 1); results do not depend on it\n";

static const char HELP_OF_COLUMNS[] =
    "\n"
    "bits        stored bits per element of the row, all told: codes, scales, centres and padding of a page of 64 tokens that\n"
    "            holds this side of one head and nothing else (JSON: page_bytes), over 64 * dim\n"
    "pair        the same of a page that holds keys and values, both so stored: together their centres need less padding\n"
    "B/token     bytes of one token in all heads, as in \"bits\"\n"
    "SNR         energy of the rows over energy of the error; \"exact\" when there is no error (JSON: null, max_abs_error 0)\n"
    "centred     energy of the rows' deviation from each channel's mean over the tokens (per head) over energy of the error:\n"
    "            an offset that all tokens share carries no information. Token 0, in many models unlike all others, is left\n"
    "            out of the mean and of both energies\n"
    "GB/s        10^9 bytes of f32 rows per second, written and read (inputs of 16 bits are widened first, so that all inputs\n"
    "            compare): the first head, over and over for 20 ms at least, best pass, one thread\n"
    "Energies of a tensor are summed over its heads. The sums over several are means: of each head's dB, of each tensor's GB/s.\n"
    "KL          --attention: of the weights over stored keys from those over the keys themselves, in nats, a query row's; mean and largest\n"
    "same top    rows whose most attended token is the same\n"
    "error %     of the output: root of error energy over energy, all rows together\n"
    "latent dB   --latent: energy of the deviations of latents from their mean over that of their errors; \"rope dB\": of rotary parts\n"
    "added dB    of which this library's arithmetic adds so much to what exact arithmetic on the stored codes would have\n"
    "told        --model: bits of all pages at the end of a window, the first and the open one among them\n"
    "PPL %       change of the perplexity; +-: half of the 95 % interval's width\n"
    "KLD         divergence of next-token distributions from those with the exact cache, in nats: mean, what 99.9 % of the tokens stay below, "
    "largest\n"
    "top %       tokens whose likeliest prediction is the same\n"
    "            Intervals are made from means of blocks of 64 tokens, since neighbours resemble each other\n"
    "All tokens are written in order from 0, as an engine does: page 0 has no centre yet.\n"
    "Rows with a NaN or an infinity are stored but left out of SNR, mean and error; JSON \"nonfinite\" counts such numbers.\n"
    "\"lost\": some row (rows, query rows, predictions) of finite numbers did not come back finite. All that is said of accuracy is \"lost\" then, "
    "in\n"
    "JSON null, in CSV empty, and \"lost\" counts such rows. --budget and --max-kl do not choose what loses a row.\n"
    "\n"
    "Examples:\n"
    "  kvtile eval layer0_keys.qvkt layer0_values.qvkt\n"
    "  kvtile eval --attention layer0_keys.qvkt layer0_values.qvkt layer0_queries.qvkt --schemes q8_0,kv5,kv4\n"
    "  kvtile eval --latent glm_layer3.npy --rope-dim 64 --schemes kv6,kv4 --rotation 64 --centring page\n"
    "  kvtile eval --latent *.qvkt --schemes bf16,kv6,kv4 --rank 64,128 --from 512\n"
    "  kvtile eval keys.f16 --shape 8,4096,128 --dtype f16 --side k\n"
    "  kvtile eval --model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin --text chesterton-brown.txt --schemes kv5/kv4,kv4,q4_0\n"
    "  kvtile eval --attention *.qvkt --schemes balanced,kv4,ggml_q4_0 --rotation 64 --centring own --first kv8 --open bf16\n"
    "  kvtile eval --budget 4.75 *.qvkt --rotation 64 --centring none,page\n"
    "  kvtile eval *.qvkt --mean --schemes kv4,kv4h,q4_0 --rotation none,64 --centring all --effort all\n"
    "  kvtile eval cache.safetensors --schemes q8_0,kv4 --json | jq -r '.[] | [.input, .scheme, .rotation, .snr_db] | @tsv'\n";

typedef struct options {
    eval_ways ways;
    eval_pairs pairs; /* of attention, instead of ways */
    kvt_scheme first, open;
    eval_budget_options of_budget; /* all limits zero: no budget */
    bool auto_side;
    kvt_side side;
    uint32_t tiers;
    size_t from;
    size_t queries;
    double scale; /* 0: of the head_dim */
    bool attention;
    bool latent;
    rows_shape shape; /* of inputs; no sizes: they say it themselves */
    rows_order order;
    bool is_ordered; /* by an option */
    eval_latent_options of_latents;
    bool speed;
    bool mean;
    eval_output output;
    bool table;         /* on stdout */
    const char *report; /* where a page goes, or NULL */
    json_t *page;       /* what it shows, or NULL */
} options;

/* What stays from one input to the next. */
typedef struct state {
    const options *chosen;
    eval_space space;
    progress shown;
    eval_summary summaries[2]; /* by side */
    json_t *array;             /* of --json, or NULL */
} state;

/* ---- one tensor ---- */

static const char *const KIND_NAMES[] = { [ROWS_KEYS] = "keys", [ROWS_VALUES] = "values", [ROWS_QUERIES] = "queries" };

/* Names that say nothing are of keys. */
static rows_kind kind_of(const char *path, const rows_tensor *tensor)
{
    const char *slash = strrchr(path, '/');
    rows_kind kind = tensor->name != NULL ? rows_kind_of(tensor->name) : ROWS_UNKNOWN;
    if (kind == ROWS_UNKNOWN)
        kind = rows_kind_of(slash != NULL ? slash + 1 : path);
    return kind != ROWS_UNKNOWN ? kind : ROWS_KEYS;
}

static char *input_name(const char *path, const rows_file *file, const rows_tensor *tensor)
{
    const char *name = file->n_tensors > 1 ? tensor->name : NULL;
    const size_t room = strlen(path) + (name != NULL ? strlen(name) : 0) + 2;
    char *text = malloc(room);
    if (text != NULL)
        snprintf(text, room, "%s%s%s", path, name != NULL ? ":" : "", name != NULL ? name : "");
    return text;
}

static json_t *page_results(const options *chosen)
{
    return json_object_get(chosen->page, "results");
}

static int report_tensor(const eval_tensor *report, const state *run)
{
    if (run->chosen->table && eval_report_tensor(report, NULL) != 0)
        return -1;
    if (run->array != NULL && eval_report_tensor(report, run->array) != 0)
        return -1;
    return run->chosen->page != NULL ? eval_report_tensor(report, page_results(run->chosen)) : 0;
}

static int measure_tensor(const char *path, const rows_file *file, const rows_tensor *tensor, state *run, error_text *error)
{
    const options *chosen = run->chosen;
    const rows_kind is = kind_of(path, tensor);
    if (chosen->auto_side && is == ROWS_QUERIES) {
        error_print(WHO, path, "has queries, which only --attention wants: left out");
        return 0;
    }
    eval_tensor report = { .input = input_name(path, file, tensor),
                           .tensor = tensor,
                           .side = !chosen->auto_side  ? chosen->side
                                   : is == ROWS_VALUES ? KVT_V
                                                       : KVT_K,
                           .from = chosen->from,
                           .results = calloc(chosen->ways.n, sizeof *report.results) };
    int status = report.input == NULL || report.results == NULL ? error_set(error, "cannot be evaluated: out of memory") : 0;
    if (status == 0)
        status = eval_measure(&report, &chosen->ways, chosen->tiers, chosen->speed, &run->space, &run->shown, error);
    if (status == 0)
        eval_summary_add(&run->summaries[report.side == KVT_V], &report);
    if (status == 0 && !chosen->mean && report_tensor(&report, run) != 0)
        status = error_set(error, "cannot be reported: out of memory");
    if (status == 0 && chosen->page != NULL)
        eval_page_add_input(chosen->page, report.input, KIND_NAMES[report.side == KVT_V ? ROWS_VALUES : ROWS_KEYS], tensor);
    free(report.input);
    free(report.results);
    return status;
}

/* ---- the command ---- */

static int open_input(rows_file *file, const char *path, const options *chosen, error_text *error)
{
    const int status = rows_open_raw(file, path, chosen->shape.n_sizes > 0 ? &chosen->shape : NULL, chosen->order, error);
    for (size_t i = 0; status == 0 && !chosen->is_ordered && i < file->n_tensors; i++) {
        const rows_tensor *one = &file->tensors[i];
        if (one->heads <= one->tokens)
            continue;
        error_text hint;
        error_set(&hint, "%.200s%s%u heads of %zu tokens: if that is [token][head][dim], --order token,head,dim would be right",
                  one->name != NULL ? one->name : "has", one->name != NULL ? " has " : " ", one->heads, one->tokens);
        error_print(WHO, path, hint.text);
        break; /* others will be alike */
    }
    return status;
}

static int eval_input(const char *path, state *run)
{
    rows_file file;
    error_text error;
    int status = open_input(&file, path, run->chosen, &error);
    if (status == 0 && file.note != NULL)
        error_print(WHO, path, file.note);
    for (size_t i = 0; status == 0 && i < file.n_tensors; i++)
        status = measure_tensor(path, &file, &file.tensors[i], run, &error);
    if (status != 0)
        error_print(WHO, path, error.text);
    rows_close(&file);
    return status;
}

static int report_summaries(const state *run)
{
    const options *chosen = run->chosen;
    for (size_t side = 0; side < 2; side++) {
        const eval_summary *summary = &run->summaries[side];
        const bool wanted = chosen->mean ? summary->n_tensors > 0 : summary->n_tensors > 1;
        /* --json has them only when they are all that it has. */
        json_t *const of[] = { NULL, chosen->mean ? run->array : NULL, page_results(chosen) };
        const bool to[] = { chosen->table, of[1] != NULL, of[2] != NULL };
        for (size_t i = 0; wanted && i < sizeof of / sizeof *of; i++)
            if (to[i] && eval_report_summary(summary, &chosen->ways, side == 0 ? KVT_K : KVT_V, chosen->from, of[i]) != 0) {
                error_print(WHO, "--mean", "out of memory");
                return -1;
            }
    }
    return 0;
}

static int eval_inputs(const char **paths, const options *chosen)
{
    state run = { .chosen = chosen };
    int status = 0;
    progress_start(&run.shown);
    for (size_t side = 0; side < 2; side++) {
        eval_summary *summary = &run.summaries[side];
        *summary = (eval_summary){ .n_ways = chosen->ways.n, .sums = calloc(chosen->ways.n, sizeof *summary->sums) };
        status = summary->sums == NULL ? -1 : status;
    }
    run.array = chosen->output != EVAL_TABLE ? json_array() : NULL;
    if (status != 0)
        error_print(WHO, "arguments", "out of memory");
    for (; status == 0 && *paths != NULL; paths++)
        status = eval_input(*paths, &run);
    if (status == 0)
        status = report_summaries(&run);
    if (status == 0 && run.array != NULL) {
        eval_print_array(run.array, chosen->output);
    }
    json_decref(run.array);
    eval_space_free(&run.space);
    free(run.summaries[0].sums);
    free(run.summaries[1].sums);
    return status == 0 ? 0 : 1;
}

/* ---- attention ---- */

/* Tensors of one kind, in the order of the inputs. */
typedef struct tensors {
    const rows_tensor **of;
    const char **paths;
    size_t n;
} tensors;

static int tensors_add(tensors *list, const char *path, const rows_tensor *tensor)
{
    const rows_tensor **of = realloc(list->of, (list->n + 1) * sizeof *of);
    list->of = of != NULL ? of : list->of;
    const char **paths = realloc(list->paths, (list->n + 1) * sizeof *paths);
    list->paths = paths != NULL ? paths : list->paths;
    if (of == NULL || paths == NULL)
        return -1;
    list->of[list->n] = tensor;
    list->paths[list->n++] = path;
    return 0;
}

static bool has_budget(const options *chosen)
{
    return chosen->of_budget.bits > 0 || chosen->of_budget.bytes > 0 || chosen->of_budget.max_kl > 0;
}

static int attend_layers(const tensors kinds[ROWS_UNKNOWN], const options *chosen)
{
    const size_t n = kinds[ROWS_KEYS].n, n_values = kinds[ROWS_VALUES].n, n_queries = kinds[ROWS_QUERIES].n;
    char text[200];
    if (n == 0 || (n_values != n && !(chosen->latent && n_values == 0)) || (n_queries != 0 && n_queries != n)) {
        snprintf(text, sizeof text,
                 "%zu of keys, %zu of values, %zu of queries: as many of each, %sor no queries, would be right; names tell them apart", n, n_values,
                 n_queries, chosen->latent ? "no values, " : "");
        error_print(WHO, chosen->latent ? "--latent" : has_budget(chosen) ? "--budget" : "--attention", text);
        return 1;
    }
    eval_layer *layers = calloc(n, sizeof *layers);
    json_t *array = chosen->page != NULL ? json_incref(page_results(chosen)) : chosen->output != EVAL_TABLE ? json_array() : NULL;
    progress shown;
    progress_start(&shown);
    const eval_attention_options how = { .tiers = chosen->tiers,
                                         .from = chosen->from,
                                         .queries = chosen->queries,
                                         .scale = chosen->scale,
                                         .first = chosen->first,
                                         .open = chosen->open,
                                         .table = chosen->table,
                                         .progress = &shown };
    eval_latent_options of_latents = chosen->of_latents;
    of_latents.tiers = chosen->tiers;
    of_latents.from = chosen->from;
    of_latents.queries = chosen->queries;
    of_latents.scale = chosen->scale;
    of_latents.table = chosen->table;
    of_latents.progress = &shown;
    error_text error;
    const char *about = "inputs";
    int status = layers == NULL ? error_set(&error, "out of memory") : 0;
    for (size_t i = 0; status == 0 && i < n; i++)
        layers[i] = (eval_layer){ n_values > 0 ? kinds[ROWS_VALUES].paths[i] : kinds[ROWS_KEYS].paths[i], kinds[ROWS_KEYS].of[i],
                                  n_values > 0 ? kinds[ROWS_VALUES].of[i] : NULL, n_queries > 0 ? kinds[ROWS_QUERIES].of[i] : NULL };
    eval_budget_options of_budget = chosen->of_budget;
    of_budget.tiers = chosen->tiers;
    of_budget.from = chosen->from;
    of_budget.queries = chosen->queries;
    of_budget.scale = chosen->scale;
    of_budget.progress = &shown;
    if (status == 0)
        status = chosen->latent       ? eval_latent(layers, n, &chosen->ways, &of_latents, array, &about, &error)
                 : has_budget(chosen) ? eval_budget(layers, n, &chosen->ways, &of_budget, array, &about, &error)
                                      : eval_attention(layers, n, &chosen->pairs, &how, array, &about, &error);
    if (status != 0)
        error_print(WHO, about, error.text);
    if (status == 0 && chosen->output != EVAL_TABLE) {
        eval_print_array(array, chosen->output);
    }
    json_decref(array);
    free(layers);
    return status == 0 ? 0 : 1;
}

static int attend_inputs(const char **paths, const options *chosen)
{
    size_t n = 0;
    while (paths[n] != NULL)
        n++;
    rows_file *files = calloc(n, sizeof *files);
    if (files == NULL) {
        error_print(WHO, "arguments", "out of memory");
        return 1;
    }
    tensors kinds[ROWS_UNKNOWN] = { { 0 } };
    error_text error;
    int code = 0;
    size_t opened = 0;
    for (; code == 0 && opened < n; opened++) {
        code = open_input(&files[opened], paths[opened], chosen, &error) != 0;
        for (size_t i = 0; code == 0 && i < files[opened].n_tensors; i++) {
            const rows_tensor *tensor = &files[opened].tensors[i];
            const rows_kind is = kind_of(paths[opened], tensor);
            char *name = input_name(paths[opened], &files[opened], tensor);
            if (name == NULL || tensors_add(&kinds[is], paths[opened], tensor) != 0)
                code = -error_set(&error, "cannot be evaluated: out of memory");
            else if (chosen->page != NULL)
                eval_page_add_input(chosen->page, name, KIND_NAMES[is], tensor);
            free(name);
        }
        if (code != 0)
            error_print(WHO, paths[opened], error.text);
    }
    if (code == 0)
        code = attend_layers(kinds, chosen);
    for (size_t i = 0; i < opened; i++)
        rows_close(&files[i]);
    for (size_t i = 0; i < ROWS_UNKNOWN; i++) {
        free(kinds[i].of);
        free(kinds[i].paths);
    }
    free(files);
    return code;
}

/* ---- options ---- */

static int choose_scale(options *chosen, const char *text)
{
    char *end;
    chosen->scale = strtod(text, &end);
    if (end == text || *end != '\0' || !(fabs(chosen->scale) >= 0x1p-20 && fabs(chosen->scale) <= 0x1p20)) {
        error_print(WHO, text, "a number of magnitude 2^-20 to 2^20 would be right for --scale");
        return -1;
    }
    return 0;
}

/* At most `room` whole numbers from 1 to `most`, separated by commas. How many, or 0. */
static size_t take_numbers(uint64_t *numbers, size_t room, uint64_t most, const char *list)
{
    size_t n = 0;
    for (const char *at = list; at != NULL;) {
        char *end;
        errno = 0;
        const unsigned long long number = strtoull(at, &end, 10);
        if (!isdigit((unsigned char)*at) || (*end != '\0' && *end != ',') || errno != 0 || number < 1 || number > most || n == room)
            return 0;
        numbers[n++] = number;
        at = *end == ',' ? end + 1 : NULL;
    }
    return n;
}

static int choose_ranks(eval_latent_options *to, const char *list)
{
    uint64_t ranks[EVAL_MOST_RANKS];
    to->n_ranks = take_numbers(ranks, EVAL_MOST_RANKS, KVT_MAX_DIM, list);
    for (size_t i = 0; i < to->n_ranks; i++)
        to->ranks[i] = (uint32_t)ranks[i];
    if (to->n_ranks > 0)
        return 0;
    char what[96];
    snprintf(what, sizeof what, "up to %d whole numbers of 1 to %d would be right for --rank", EVAL_MOST_RANKS, KVT_MAX_DIM);
    error_print(WHO, list, what);
    return -1;
}

static int choose_shape(rows_shape *to, const char *shape, const char *dtype)
{
    static const kvt_dtype dtypes[] = { KVT_F32, KVT_F16, KVT_BF16 };
    for (size_t i = 0; i < 3; i++)
        if (dtype == NULL || strcmp(dtype, rows_dtype_name(dtypes[i])) == 0) {
            to->dtype = dtypes[i];
            break;
        }
    if (to->dtype == 0) {
        error_print(WHO, dtype, "f32, f16 or bf16 would be right for --dtype");
        return -1;
    }
    if (shape == NULL && dtype != NULL) {
        error_print(WHO, "--dtype", "only inputs without a header need it, which --shape is for");
        return -1;
    }
    to->n_sizes = shape != NULL ? take_numbers(to->sizes, 4, UINT32_MAX, shape) : 0;
    if (shape == NULL || to->n_sizes >= 2)
        return 0;
    error_print(WHO, shape, "tokens,dim or heads,tokens,dim would be right for --shape");
    return -1;
}

static int choose_order(options *chosen, const char *order)
{
    chosen->is_ordered = order != NULL;
    chosen->order = order != NULL && strcmp(order, "token,head,dim") == 0 ? ROWS_TOKEN_HEAD : ROWS_HEAD_TOKEN;
    if (order == NULL || chosen->order == ROWS_TOKEN_HEAD || strcmp(order, "head,token,dim") == 0)
        return 0;
    error_print(WHO, order, "head,token,dim or token,head,dim would be right for --order");
    return -1;
}

static int choose_latents(options *chosen, const char *rope_dim, const char *rope, const char *rank)
{
    eval_latent_options *to = &chosen->of_latents;
    if (!chosen->latent && (rope_dim != NULL || rope != NULL || rank != NULL)) {
        error_print(WHO, rope_dim != NULL ? "--rope-dim" : rope != NULL ? "--rope" : "--rank", "only --latent has latents");
        return -1;
    }
    size_t dim = 0;
    if (rope_dim != NULL && eval_choose_count(&dim, rope_dim, "--rope-dim", 1, WHO) != 0)
        return -1;
    to->rope_dim = dim < UINT32_MAX ? (uint32_t)dim : UINT32_MAX;
    if (rank != NULL && choose_ranks(to, rank) != 0)
        return -1;
    return eval_choose_schemes(to->rope_schemes, &to->n_rope_schemes, EVAL_MOST_SCHEMES, rope != NULL ? rope : "bf16,kv8", "--rope", WHO);
}

static int choose_options(options *chosen, const eval_words *words, const char *side, const char *tiers, const char *from, const char *queries,
                          const char *scale)
{
    chosen->auto_side = side == NULL || strcmp(side, "auto") == 0;
    if (!chosen->auto_side && strcmp(side, "k") != 0 && strcmp(side, "v") != 0) {
        error_print(WHO, side, "k, v or auto would be right for --side");
        return -1;
    }
    chosen->side = !chosen->auto_side && strcmp(side, "v") == 0 ? KVT_V : KVT_K;
    if (tiers != NULL) {
        const kvt_status status = kvt_tiers_parse(tiers, &chosen->tiers);
        if (status != KVT_OK) {
            error_print(WHO, tiers, kvt_status_text(status));
            return -1;
        }
    }
    if (from != NULL && eval_choose_count(&chosen->from, from, "--from", 0, WHO) != 0)
        return -1;
    if (chosen->attention + chosen->latent + has_budget(chosen) > 1) {
        error_print(WHO, chosen->latent ? "--latent" : "--budget", "is another comparison than --attention or --latent: one of them would be right");
        return -1;
    }
    if (!chosen->attention && !chosen->latent && !has_budget(chosen) && (queries != NULL || scale != NULL)) {
        error_print(WHO, queries != NULL ? "--queries" : "--scale", "only --attention, --latent and --budget have queries and logits");
        return -1;
    }
    chosen->queries = 128;
    if (queries != NULL && eval_choose_count(&chosen->queries, queries, "--queries", 1, WHO) != 0)
        return -1;
    if (scale != NULL && choose_scale(chosen, scale) != 0)
        return -1;
    if (chosen->attention)
        return eval_choose_pairs(&chosen->pairs, words, WHO);
    if (eval_choose_ways(&chosen->ways, words, WHO) != 0)
        return -1;
    for (size_t i = 0; (chosen->latent || has_budget(chosen)) && i < chosen->ways.n; i++)
        if (chosen->ways.ways[i].peer != NULL) {
            error_print(WHO, chosen->ways.ways[i].peer->name, "kvtile's own schemes would be right with --latent, --budget and --max-kl");
            return -1;
        }
    return 0;
}

/* A number above zero, and what stands behind it; 0, or -1 where it is none. */
static int take_positive(double *to, const char *text, const char **rest)
{
    char *end;
    errno = 0;
    *to = strtod(text, &end);
    *rest = end;
    return end == text || errno != 0 || !(*to > 0) || !isfinite(*to) ? -1 : 0;
}

static int choose_budget(options *chosen, const char *budget, const char *max_kl)
{
    eval_budget_options *to = &chosen->of_budget;
    const char *rest;
    double value;
    if (budget != NULL && max_kl != NULL) {
        error_print(WHO, "--max-kl", "is another limit than --budget: one of them would be right");
        return -1;
    }
    if (max_kl != NULL && (take_positive(&to->max_kl, max_kl, &rest) != 0 || *rest != '\0')) {
        error_print(WHO, max_kl, "a number of nats above 0 would be right for --max-kl");
        return -1;
    }
    if (budget == NULL)
        return 0;
    const bool is_number = take_positive(&value, budget, &rest) == 0;
    if (is_number && *rest == '\0')
        to->bits = value;
    else if (is_number && strcmp(rest, "B") == 0)
        to->bytes = value;
    else if (is_number && strcmp(rest, "KiB") == 0)
        to->bytes = 1024 * value;
    else {
        error_print(WHO, budget, "bits per element (4.75) or bytes per token (1200B, 3KiB) would be right for --budget");
        return -1;
    }
    return 0;
}

static int choose_ends(options *chosen, const char *first, const char *open)
{
    if (eval_choose_end(&chosen->first, first, KVT_SCHEME_NONE, "--first", WHO) != 0)
        return -1;
    return eval_choose_end(&chosen->open, open, KVT_SCHEME_NONE, "--open", WHO);
}

/* Neither an option nor an input that has no part in what is done. */
static bool is_alone(const char *option, const char *what, const char *input)
{
    char text[32];
    snprintf(text, sizeof text, "--%s", option != NULL ? option : "");
    if (option != NULL || input != NULL)
        error_print(WHO, option != NULL ? text : input, what);
    return option == NULL && input == NULL;
}

static void print_peers(void)
{
    puts("\nFormats of others, which have no centring; rotated, as llama.cpp does it, by Hadamard transforms of blocks:");
    for (size_t i = 0; peer_at(i) != NULL; i++)
        printf("  %-13s %s\n", peer_at(i)->name, peer_at(i)->title);
}

/* ---- a page ---- */

/* Says what is wrong with --report before anything is measured. The exit code. */
static int begin_page(options *chosen, const char *of, int argc, const char **argv)
{
    error_text error;
    if (has_budget(chosen)) {
        error_print(WHO, "--report", "shows comparisons, which --budget and --max-kl are not");
        return 2;
    }
    const bool to_stdout = strcmp(chosen->report, "-") == 0;
    if (to_stdout && chosen->output != EVAL_TABLE) {
        error_print(WHO, "--report", "and --json or --csv cannot both go to stdout: a file would be right");
        return 2;
    }
    if (eval_page_check(chosen->report, &error) != 0) {
        error_print(WHO, *chosen->report != '\0' ? chosen->report : "--report", error.text);
        return 1;
    }
    chosen->table = chosen->table && !to_stdout;
    chosen->page = eval_page_begin(of, argc, argv);
    if (chosen->page == NULL)
        error_print(WHO, "--report", "out of memory");
    return chosen->page != NULL ? 0 : 1;
}

static int end_page(const options *chosen)
{
    error_text error;
    if (eval_page_write(chosen->report, chosen->page, &error) == 0)
        return 0;
    error_print(WHO, chosen->report, error.text);
    return 1;
}

int kvt_cmd_eval(int argc, const char **argv)
{
    enum {
        SCHEMES,
        ROTATION,
        CENTRING,
        EFFORT,
        FP8_BLOCK,
        FP8_SCALE,
        REPORT,
        SIDE,
        TIER,
        FROM,
        QUERY_COUNT,
        SCALE,
        ROPE_DIM,
        ROPE,
        RANK,
        SHAPE,
        ORDER,
        DTYPE,
        BUDGET,
        MAX_KL,
        MODEL,
        N_TEXTS = MODEL + EVAL_MODEL_TEXTS
    };
    int help = 0;
    int json = 0;
    int csv = 0;
    int mean = 0;
    int no_speed = 0;
    int attention = 0;
    int latent = 0;
    int bos = 0;
    int by_layer = 0;
    char *texts[N_TEXTS] = { NULL };
    const struct poptOption table[] = { { "schemes", 0, POPT_ARG_STRING, NULL, 1 + SCHEMES, NULL, NULL },
                                        { "rotation", 0, POPT_ARG_STRING, NULL, 1 + ROTATION, NULL, NULL },
                                        { "centring", 0, POPT_ARG_STRING, NULL, 1 + CENTRING, NULL, NULL },
                                        { "effort", 0, POPT_ARG_STRING, NULL, 1 + EFFORT, NULL, NULL },
                                        { "fp8-block", 0, POPT_ARG_STRING, NULL, 1 + FP8_BLOCK, NULL, NULL },
                                        { "fp8-scale", 0, POPT_ARG_STRING, NULL, 1 + FP8_SCALE, NULL, NULL },
                                        { "report", 0, POPT_ARG_STRING, NULL, 1 + REPORT, NULL, NULL },
                                        { "side", 0, POPT_ARG_STRING, NULL, 1 + SIDE, NULL, NULL },
                                        { "tier", 0, POPT_ARG_STRING, NULL, 1 + TIER, NULL, NULL },
                                        { "from", 0, POPT_ARG_STRING, NULL, 1 + FROM, NULL, NULL },
                                        { "queries", 0, POPT_ARG_STRING, NULL, 1 + QUERY_COUNT, NULL, NULL },
                                        { "scale", 0, POPT_ARG_STRING, NULL, 1 + SCALE, NULL, NULL },
                                        { "rope-dim", 0, POPT_ARG_STRING, NULL, 1 + ROPE_DIM, NULL, NULL },
                                        { "rope", 0, POPT_ARG_STRING, NULL, 1 + ROPE, NULL, NULL },
                                        { "rank", 0, POPT_ARG_STRING, NULL, 1 + RANK, NULL, NULL },
                                        { "shape", 0, POPT_ARG_STRING, NULL, 1 + SHAPE, NULL, NULL },
                                        { "order", 0, POPT_ARG_STRING, NULL, 1 + ORDER, NULL, NULL },
                                        { "dtype", 0, POPT_ARG_STRING, NULL, 1 + DTYPE, NULL, NULL },
                                        { "budget", 0, POPT_ARG_STRING, NULL, 1 + BUDGET, NULL, NULL },
                                        { "max-kl", 0, POPT_ARG_STRING, NULL, 1 + MAX_KL, NULL, NULL },
                                        { "model", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_MODEL, NULL, NULL },
                                        { "tokenizer", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_TOKENIZER, NULL, NULL },
                                        { "text", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_TEXT, NULL, NULL },
                                        { "tokens", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_TOKENS, NULL, NULL },
                                        { "context", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_CONTEXT, NULL, NULL },
                                        { "first", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_FIRST, NULL, NULL },
                                        { "open", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_OPEN, NULL, NULL },
                                        { "stress", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_STRESS, NULL, NULL },
                                        { "threads", 0, POPT_ARG_STRING, NULL, 1 + MODEL + EVAL_MODEL_THREADS, NULL, NULL },
                                        { "attention", 0, POPT_ARG_NONE, &attention, 0, NULL, NULL },
                                        { "latent", 0, POPT_ARG_NONE, &latent, 0, NULL, NULL },
                                        { "bos", 0, POPT_ARG_NONE, &bos, 0, NULL, NULL },
                                        { "by-layer", 0, POPT_ARG_NONE, &by_layer, 0, NULL, NULL },
                                        { "mean", 0, POPT_ARG_NONE, &mean, 0, NULL, NULL },
                                        { "no-speed", 0, POPT_ARG_NONE, &no_speed, 0, NULL, NULL },
                                        { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },
                                        { "csv", 0, POPT_ARG_NONE, &csv, 0, NULL, NULL },
                                        { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
                                        POPT_TABLEEND };
    poptContext context = poptGetContext("kvtile", argc, argv, table, 0);
    if (context == NULL) {
        error_print(WHO, "arguments", "cannot be read: out of memory");
        return 1;
    }
    char **values[N_TEXTS];
    for (size_t i = 0; i < N_TEXTS; i++)
        values[i] = &texts[i];
    const int parsed = options_take(context, argc, argv, table, values);
    const eval_words words = { .schemes = texts[SCHEMES],
                               .rotation = texts[ROTATION],
                               .centring = texts[CENTRING],
                               .effort = texts[EFFORT],
                               .fp8_block = texts[FP8_BLOCK],
                               .fp8_scale = texts[FP8_SCALE] };
    options chosen = { .output = csv    ? EVAL_CSV
                                 : json ? EVAL_JSON
                                        : EVAL_TABLE,
                       .mean = mean != 0,
                       .speed = no_speed == 0,
                       .attention = attention != 0,
                       .latent = latent != 0 };
    /* What only one of the two has, rows or a model. */
    const char *with_rows = attention ? "attention" : latent ? "latent" : mean ? "mean" : no_speed ? "no-speed" : NULL;
    const char *with_model = bos ? "bos" : by_layer ? "by-layer" : NULL;
    bool with_ends = false;
    for (int i = 0; i < N_TEXTS; i++) {
        const bool ends = i == MODEL + EVAL_MODEL_FIRST || i == MODEL + EVAL_MODEL_OPEN;
        if (i >= SIDE && i < MODEL && texts[i] != NULL)
            with_rows = table[i].longName;
        if (i > MODEL && texts[i] != NULL && !(attention && ends)) {
            with_model = table[i].longName;
            with_ends = ends;
        }
    }
    chosen.table = chosen.output == EVAL_TABLE;
    chosen.report = texts[REPORT];
    int code;
    if (parsed < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help) {
        fputs(HELP, stdout);
        fputs(HELP_OF_OPTIONS, stdout);
        print_peers();
        fputs(HELP_OF_MODELS, stdout);
        fputs(HELP_OF_COLUMNS, stdout);
        code = 0;
    } else if (json && csv) {
        error_print(WHO, "--csv", "and --json cannot both go to stdout: one of them would be right");
        code = 2;
    } else if (texts[MODEL] != NULL) {
        code = is_alone(with_rows, "has no part in --model: one of the two would be right", poptPeekArg(context)) ? 0 : 2;
        if (code == 0 && chosen.report != NULL)
            code = begin_page(&chosen, "model", argc, argv);
        if (code == 0)
            code = eval_model_command(texts + MODEL, &words, bos != 0, by_layer != 0, chosen.output, chosen.table, chosen.page, WHO);
        if (code == 0 && chosen.page != NULL)
            code = end_page(&chosen);
    } else if (!is_alone(with_model, with_ends ? "only --attention and --model have pages that are kept otherwise" : "only --model runs a model",
                         NULL)) {
        code = 2;
    } else if (poptPeekArg(context) == NULL) {
        error_print(WHO, "no input", "at least one file of rows would be right; see kvtile eval --help");
        code = 2;
    } else if (choose_budget(&chosen, texts[BUDGET], texts[MAX_KL]) != 0 ||
               choose_options(&chosen, &words, texts[SIDE], texts[TIER], texts[FROM], texts[QUERY_COUNT], texts[SCALE]) != 0 ||
               choose_ends(&chosen, texts[MODEL + EVAL_MODEL_FIRST], texts[MODEL + EVAL_MODEL_OPEN]) != 0 ||
               choose_latents(&chosen, texts[ROPE_DIM], texts[ROPE], texts[RANK]) != 0 ||
               choose_shape(&chosen.shape, texts[SHAPE], texts[DTYPE]) != 0 || choose_order(&chosen, texts[ORDER]) != 0) {
        code = 2;
    } else {
        code = chosen.report != NULL ? begin_page(&chosen, chosen.attention ? "attention" : chosen.latent ? "latent" : "rows", argc, argv) : 0;
        if (code == 0)
            code = chosen.attention || chosen.latent || has_budget(&chosen) ? attend_inputs(poptGetArgs(context), &chosen)
                                                                            : eval_inputs(poptGetArgs(context), &chosen);
        if (code == 0 && chosen.page != NULL)
            code = end_page(&chosen);
    }
    json_decref(chosen.page);
    free(chosen.ways.ways);
    free(chosen.pairs.pairs);
    for (size_t i = 0; i < N_TEXTS; i++)
        free(texts[i]);
    poptFreeContext(context);
    return code;
}
