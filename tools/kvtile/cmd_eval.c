/* kvtile eval: real rows, stored in each scheme and read back. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/commands.h"

#include "tools/kvtile/eval.h"
#include "tools/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char WHO[] = "kvtile eval";

static const char HELP[] =
    "Usage: kvtile eval INPUT... [options]\n"
    "Stores the rows of each INPUT in each scheme, with each rotation, centring and effort, reads them back, and reports exact bytes, accuracy and\n"
    "speed: the largest first, of equal size the most accurate first. Several inputs of one side are also summed up.\n"
    "\n"
    "INPUT: rows of keys or values, [token][dim] or [head][token][dim]: QVKT (f32), .npy (f32, f16),\n"
    "       .safetensors (every tensor of f32, f16 or bf16 that has such a shape)\n"
    "\n"
    "A LIST is words separated by commas, or \"all\". Every combination is measured, once where the width makes two the same.\n"
    "  --schemes LIST    see kvtile info (default: all)\n"
    "  --rotation LIST   none, 64, 128\n"
    "  --centring LIST   none, sequence, page. When neither this nor --rotation is given: none with none, and 64 with page;\n"
    "                    when one of them is: \"none\" for the other\n"
    "  --effort LIST     fast, default, best: of the encoders that search, kv6 to kv2 (default: default)\n"
    "  --fp8-block LIST  row, 32, 64, 128: channels that share a scale in e4m3 and e5m2 (default: row)\n"
    "  --fp8-scale LIST  f32, e8m0: their scales (default: f32)\n"
    "\n"
    "  --side k|v      store as keys or as values; auto (the default): values when the name of the tensor, or else of the\n"
    "                  file, has \"value\" or a v of its own in it (\"layer3_v\", \"cache.v\"), keys otherwise\n"
    "  --from N        measure tokens N and later; all are stored (default 0)\n"
    "  --mean          only what is summed up over all inputs\n"
    "  --no-speed      do not measure speed, which is what takes time\n"
    "  --tier LIST     kernels that may run: \"avx2\" = that tier and what it inherits, \"-avx512\" = all but that one\n"
    "  --json          an array of objects, one per tensor and way of storing; with --mean one per side and way\n"
    "  --help          this text\n"
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
    "All tokens are written in order from 0, as an engine does: page 0 has no centre yet.\n"
    "Rows with a NaN or an infinity are stored but left out of SNR, mean and error; JSON \"nonfinite\" counts such numbers.\n"
    "JSON \"lost\" counts finite numbers that did not come back finite; SNR and error are null then.\n"
    "\n"
    "Examples:\n"
    "  kvtile eval layer0_keys.qvkt layer0_values.qvkt\n"
    "  kvtile eval *.qvkt --mean --schemes kv4,kv4h,q4_0 --rotation none,64 --centring all --effort all\n"
    "  kvtile eval cache.safetensors --schemes q8_0,kv4 --json | jq -r '.[] | [.input, .scheme, .rotation, .snr_db] | @tsv'\n";

typedef struct options {
    eval_ways ways;
    bool auto_side;
    kvt_side side;
    uint32_t tiers;
    size_t from;
    bool speed;
    bool mean;
    bool json;
} options;

/* What stays from one input to the next. */
typedef struct state {
    const options *chosen;
    eval_space space;
    eval_progress progress;
    eval_summary summaries[2]; /* by side */
    json_t *array;             /* NULL: tables */
} state;

/* ---- one tensor ---- */

static bool is_letter(char c)
{
    return isalpha((unsigned char)c) != 0;
}

/* Whether `name` has `word` in it, letter case ignored. A word of one letter counts only where it stands alone: "layer3_v", "v0", "cache.v". */
static bool names(const char *name, const char *word)
{
    const size_t length = strlen(word);
    const size_t name_length = strlen(name);
    for (size_t at = 0; at + length <= name_length; at++) {
        size_t same = 0;
        while (same < length && tolower((unsigned char)name[at + same]) == word[same])
            same++;
        if (same == length && (length > 1 || ((at == 0 || !isalnum((unsigned char)name[at - 1])) && !is_letter(name[at + 1]))))
            return true;
    }
    return false;
}

static kvt_side choose_side(const options *chosen, const char *path, const rows_tensor *tensor)
{
    if (!chosen->auto_side)
        return chosen->side;
    if (tensor->name != NULL && (names(tensor->name, "value") || names(tensor->name, "v")))
        return KVT_V;
    if (tensor->name != NULL && (names(tensor->name, "key") || names(tensor->name, "k")))
        return KVT_K;
    const char *slash = strrchr(path, '/');
    const char *file = slash != NULL ? slash + 1 : path;
    return names(file, "value") || names(file, "v") ? KVT_V : KVT_K;
}

static char *input_name(const char *path, const rows_file *file, const rows_tensor *tensor)
{
    const char *name = file->n_tensors > 1 ? tensor->name : NULL;
    const size_t room = strlen(path) + (name != NULL ? strlen(name) : 0) + 2;
    char *text = malloc(room);
    if (text != NULL) {
        snprintf(text, room, "%s%s%s", path, name != NULL ? ":" : "", name != NULL ? name : "");
        error_one_line(text);
    }
    return text;
}

static int measure_tensor(const char *path, const rows_file *file, const rows_tensor *tensor, state *run, error_text *error)
{
    const options *chosen = run->chosen;
    eval_tensor report = { .input = input_name(path, file, tensor),
                           .tensor = tensor,
                           .side = choose_side(chosen, path, tensor),
                           .from = chosen->from,
                           .results = calloc(chosen->ways.n, sizeof *report.results) };
    int status = report.input == NULL || report.results == NULL ? error_set(error, "cannot be evaluated: out of memory") : 0;
    if (status == 0)
        status = eval_measure(&report, &chosen->ways, chosen->tiers, chosen->speed, &run->space, &run->progress, error);
    if (status == 0)
        eval_summary_add(&run->summaries[report.side == KVT_V], &report);
    if (status == 0 && !chosen->mean && eval_report_tensor(&report, run->array) != 0)
        status = error_set(error, "cannot be reported: out of memory");
    free(report.input);
    free(report.results);
    return status;
}

/* ---- the command ---- */

static int eval_input(const char *path, state *run)
{
    rows_file file;
    error_text error;
    int status = rows_open(&file, path, &error);
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
        const bool wanted = chosen->mean ? summary->n_tensors > 0 : summary->n_tensors > 1 && run->array == NULL;
        if (wanted && eval_report_summary(summary, &chosen->ways, side == 0 ? KVT_K : KVT_V, chosen->from, run->array) != 0) {
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
    eval_progress_start(&run.progress);
    for (size_t side = 0; side < 2; side++) {
        eval_summary *summary = &run.summaries[side];
        *summary = (eval_summary){ .n_ways = chosen->ways.n, .sums = calloc(chosen->ways.n, sizeof *summary->sums) };
        status = summary->sums == NULL ? -1 : status;
    }
    run.array = chosen->json ? json_array() : NULL;
    if (status != 0)
        error_print(WHO, "arguments", "out of memory");
    for (; status == 0 && *paths != NULL; paths++)
        status = eval_input(*paths, &run);
    if (status == 0)
        status = report_summaries(&run);
    if (status == 0 && run.array != NULL) {
        json_dumpf(run.array, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        putchar('\n');
    }
    json_decref(run.array);
    eval_space_free(&run.space);
    free(run.summaries[0].sums);
    free(run.summaries[1].sums);
    return status == 0 ? 0 : 1;
}

static int choose_from(options *chosen, const char *text)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end != '\0' || errno != 0 || value > SIZE_MAX) {
        error_print(WHO, text, "a whole number, the first token to measure, would be right for --from");
        return -1;
    }
    chosen->from = (size_t)value;
    return 0;
}

static int choose_options(options *chosen, const eval_words *words, const char *side, const char *tiers, const char *from)
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
    if (from != NULL && choose_from(chosen, from) != 0)
        return -1;
    return eval_choose_ways(&chosen->ways, words, WHO);
}

int kvt_cmd_eval(int argc, const char **argv)
{
    enum { SCHEMES, ROTATION, CENTRING, EFFORT, FP8_BLOCK, FP8_SCALE, SIDE, TIER, FROM, N_TEXTS };
    int help = 0;
    int json = 0;
    int mean = 0;
    int no_speed = 0;
    char *texts[N_TEXTS] = { NULL };
    const struct poptOption table[] = { { "schemes", 0, POPT_ARG_STRING, NULL, 1 + SCHEMES, NULL, NULL },
                                        { "rotation", 0, POPT_ARG_STRING, NULL, 1 + ROTATION, NULL, NULL },
                                        { "centring", 0, POPT_ARG_STRING, NULL, 1 + CENTRING, NULL, NULL },
                                        { "effort", 0, POPT_ARG_STRING, NULL, 1 + EFFORT, NULL, NULL },
                                        { "fp8-block", 0, POPT_ARG_STRING, NULL, 1 + FP8_BLOCK, NULL, NULL },
                                        { "fp8-scale", 0, POPT_ARG_STRING, NULL, 1 + FP8_SCALE, NULL, NULL },
                                        { "side", 0, POPT_ARG_STRING, NULL, 1 + SIDE, NULL, NULL },
                                        { "tier", 0, POPT_ARG_STRING, NULL, 1 + TIER, NULL, NULL },
                                        { "from", 0, POPT_ARG_STRING, NULL, 1 + FROM, NULL, NULL },
                                        { "mean", 0, POPT_ARG_NONE, &mean, 0, NULL, NULL },
                                        { "no-speed", 0, POPT_ARG_NONE, &no_speed, 0, NULL, NULL },
                                        { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },
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
    const int parsed = options_take(context, values);
    const eval_words words = { .schemes = texts[SCHEMES],
                               .rotation = texts[ROTATION],
                               .centring = texts[CENTRING],
                               .effort = texts[EFFORT],
                               .fp8_block = texts[FP8_BLOCK],
                               .fp8_scale = texts[FP8_SCALE] };
    options chosen = { .json = json != 0, .mean = mean != 0, .speed = no_speed == 0 };
    int code;
    if (parsed < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help) {
        fputs(HELP, stdout);
        code = 0;
    } else if (poptPeekArg(context) == NULL) {
        error_print(WHO, "no input", "at least one file of rows would be right; see kvtile eval --help");
        code = 2;
    } else if (choose_options(&chosen, &words, texts[SIDE], texts[TIER], texts[FROM]) != 0) {
        code = 2;
    } else {
        code = eval_inputs(poptGetArgs(context), &chosen);
    }
    free(chosen.ways.ways);
    for (size_t i = 0; i < N_TEXTS; i++)
        free(texts[i]);
    poptFreeContext(context);
    return code;
}
