/* SPDX-License-Identifier: MIT */
/* kvtile bench: the cases of bench/, as a table or as JSON. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/commands.h"

#include "tools/files/error.h"

#ifdef KVT_HAVE_BENCH

#include "bench/measure.h"
#include "tools/cli/bench/compare.h"
#include "tools/files/json.h"
#include "tools/files/nearest.h"
#include "tools/program/options.h"

#include <kvtile/kvtile.h>

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char WHO[] = "kvtile bench";

/* One screen of 80 columns; the rest is below. */
static const char BRIEF[] = "Examples:\n"
                            "  kvtile bench --quick\n"
                            "  kvtile bench --schemes q8_0,kv4 --ops read --tier all --head-dim 64,128\n"
                            "  kvtile bench --ops attend --tokens 4096,32768 --threads 1,2 --where memory\n"
                            "\n"
                            "Times the kernels in turns with what limits them: the simplest loop that moves\n"
                            "the same bytes, memcpy, reading alone, multiplying alone, and 16-bit tiles.\n"
                            "\n"
                            "  --schemes LIST   kv4,q8_0 ...; default: all\n"
                            "  --ops LIST       write, read, append, import, export, attend; default: all\n"
                            "  --side k|v|both\n"
                            "  --where l2|memory|both\n"
                            "  --head-dim LIST  channels of a row (default: 128)\n"
                            "  --tier LIST      tiers to measure, or all (default: the best of this CPU)\n"
                            "  --group LIST, --tokens LIST, --kv-heads N, --threads LIST     of attend\n"
                            "  --quick          a rough look: short samples, from L2\n"
                            "  --json           the machine, and an array of results\n"
                            "  --compare A B    two files of --json: what is faster, and what is noise\n"
                            "  --rank FILE...   files of --json: a page that ranks the machines\n"
                            "\n"
                            "kvtile bench --help-all has every option and explains the columns.\n";

static const char HELP[] =
    "Usage: kvtile bench [OPTION...]\n"
    "Times the kernels in turns with what limits them: conversions beside the simplest loop that moves the same bytes, and memcpy, on one thread;\n"
    "attention beside only reading what is stored, only multiplying as much, f16 tiles, and a plain loop over rows of f16.\n"
    "\n"
    "  --schemes LIST   names separated by commas (default: all; see kvtile info)\n"
    "  --ops LIST       write, read: whole heads in and out; append: a token in 8 heads per call; import, export: whole heads from and to rows of\n"
    "                   another engine; attend: a decode step of one layer (default: all)\n"
    "  --side k|v|both  (default: both)\n"
    "  --tier LIST      tiers to measure, or all (default: the best that this CPU has; see kvtile info)\n"
    "  --head-dim LIST  channels of a row (default: 128)\n"
    "  --where l2|memory|both\n"
    "                   l2: all data stay in the L2 cache; memory: three times the last-level cache is walked (default: both)\n"
    "  --dtype f32|f16|bf16\n"
    "                   rows outside (default: f32)\n"
    "  --rotation none|64|128, --centring none|sequence|page|own, --effort default|fast|best\n"
    "  --fp8-block row|32|64|128, --fp8-scale f32|e8m0\n"
    "                   how rows are stored (default: the first of each); schemes that have no such option are left out\n"
    "  --group LIST, --tokens LIST, --kv-heads N, --threads LIST\n"
    "                   of attend: query heads of a KV head (default: 4), tokens of the sequence in memory (default: 32768; in L2 as many as fit),\n"
    "                   KV heads in memory (default: 8; in L2 one per thread), threads (default: 1)\n"
    "  --rope SCHEME    of attend and write: MLA. Rows are latents, keys that are values too, of --head-dim (default: 512) channels, and beside "
    "them\n"
    "                   rotary parts of 64 channels in that scheme; --group is all heads (default: 20), and there is one KV head. Writing "
    "normalises\n"
    "                   the latents and rotates the rotary parts\n"
    "  --quick          a rough look: short samples, --where l2 unless it is given, 40 columns unless lists are\n"
    "  --json           one object: the machine, and an array of results\n"
    "  --compare A.json B.json\n"
    "                   how many times as fast each case of B is as it is in A, both of them files of --json. What differs\n"
    "                   by less than 5 %, or than the samples of either scatter, is noise. Of two CPUs the first tier of each case counts\n"
    "  --rank FILE...   a page (HTML) that ranks machines\n"
    "  --help-all       this text; --help: one screen\n"
    "\n"
    "elem/ns        elements (channels of all rows) per nanosecond, median\n"
    "GB/s in, out   10^9 bytes per second read and written: rows outside, and what is stored of them\n"
    "floor, memcpy  our time over that of the simplest SIMD loop that reads and writes the same bytes, and over memcpy's for as many bytes, half in "
    "and\n"
    "               half out; median of pairs measured right after each other. 1 would be as fast, 2 takes twice the time. ggml: in a build that "
    "compares\n"
    "bulk           of append: our time over that of writing as many tokens as whole pages; of latents: of writing them as they are\n"
    "               JSON has cells_ratio beside it: of appended keys, over the time of a store of four bytes to each line of their tile\n"
    "us, GB/s       of attend: microseconds of a step, and 10^9 stored bytes per second that it attends to\n"
    "read, multiply the time of only reading the bytes, and of only multiplying as often, over ours: 1: at the limit; *: which binds\n"
    "f16, plain     speed-up: the time from f16 tiles, and of a plain loop over rows of f16, over ours\n"
    "docs/performance.md says more. kvtile-bench runs the same cases under Google Benchmark's flags.\n"
    "\n"
    "Examples:\n"
    "  kvtile bench --quick\n"
    "  kvtile bench --schemes q8_0,kv4 --ops read --tier all --head-dim 64,128,256\n"
    "  kvtile bench --schemes e4m3 --fp8-block 32 --fp8-scale e8m0\n"
    "  kvtile bench --ops attend --group 1,4,8 --tokens 4096,32768 --threads 1,2 --where memory\n"
    "  kvtile bench --ops write,attend --schemes bf16,kv6,kv4 --rope kv8 --group 20,128 --where memory\n"
    "  kvtile bench --schemes kv4 --ops write --effort best --where l2 --json | jq -r '.results[] | [.side, .elements_per_ns] | @tsv'\n";

enum { MOST_WORDS = 64 };

typedef struct options {
    bench_selection selection;
    const kvt_scheme_info *schemes[MOST_WORDS];
    uint32_t dims[MOST_WORDS];
    uint32_t groups[MOST_WORDS];
    uint32_t tokens[MOST_WORDS];
    uint32_t threads[MOST_WORDS];
    bool quick;
    bool json;
} options;

/* ---- arguments ---- */

static int refuse_word(const char *option, const char *word, const char *right)
{
    char text[200];
    snprintf(text, sizeof text, "\"%.40s\" is none: %s", word, right);
    error_print(WHO, option, text);
    return -1;
}

static int take_scheme(options *chosen, const char *word)
{
    const kvt_scheme_info *info = kvt_scheme_find(word);
    if (info != NULL && chosen->selection.n_schemes < MOST_WORDS) {
        chosen->schemes[chosen->selection.n_schemes++] = info;
        chosen->selection.schemes = chosen->schemes;
        return 0;
    }
    nearest best = { .typed = word };
    for (size_t i = 0; kvt_scheme_at(i) != NULL; i++)
        nearest_consider(&best, kvt_scheme_at(i)->name);
    char text[160];
    snprintf(text, sizeof text, "\"%.40s\" is no scheme: %s%skvtile info lists them", word, best.name != NULL ? best.name : "",
             best.name != NULL ? " would be right, " : "");
    error_print(WHO, "--schemes", text);
    return -1;
}

static int take_op(options *chosen, const char *word)
{
    for (unsigned i = 0; i < BENCH_N_OPS; i++) {
        if (strcmp(word, BENCH_OP_NAMES[i]) == 0) {
            chosen->selection.ops |= 1U << i;
            return 0;
        }
    }
    return refuse_word("--ops", word, "write, read, append, import, export or attend would be right");
}

static int take_tier(options *chosen, const char *word)
{
    const uint32_t usable = kvt_tiers_usable();
    if (strcmp(word, "all") == 0) {
        chosen->selection.tiers = usable;
        return 0;
    }
    for (unsigned id = 0; id < 32; id++) {
        if ((usable & UINT32_C(1) << id) != 0 && strcmp(word, kvt_tier_name(id)) == 0) {
            chosen->selection.tiers |= UINT32_C(1) << id;
            return 0;
        }
    }
    return refuse_word("--tier", word, "all, or one that this CPU has, would be right; kvtile info lists them");
}

/* A whole number 1 .. most. */
static int take_whole(uint32_t *value, const char *option, const char *word, uint32_t most)
{
    char *end;
    const unsigned long number = strtoul(word, &end, 10);
    if (isdigit((unsigned char)*word) && *end == '\0' && number >= 1 && number <= most) {
        *value = (uint32_t)number;
        return 0;
    }
    char right[60];
    snprintf(right, sizeof right, "1 to %u would be right", most);
    return refuse_word(option, word, right);
}

/* One more of a list of them. */
static int add_number(uint32_t *list, size_t *n, const char *option, const char *word, uint32_t most)
{
    if (*n == MOST_WORDS)
        return refuse_word(option, word, "as many as there may be are there already");
    return take_whole(&list[(*n)++], option, word, most);
}

static int take_dim(options *chosen, const char *word)
{
    return add_number(chosen->dims, &chosen->selection.n_dims, "--head-dim", word, KVT_MAX_DIM);
}

static int take_group(options *chosen, const char *word)
{
    return add_number(chosen->groups, &chosen->selection.n_groups, "--group", word, KVT_MAX_GROUP);
}

static int take_tokens(options *chosen, const char *word)
{
    return add_number(chosen->tokens, &chosen->selection.n_tokens, "--tokens", word, 1U << 30);
}

static int take_threads(options *chosen, const char *word)
{
    return add_number(chosen->threads, &chosen->selection.n_threads, "--threads", word, POOL_MOST_WORKERS);
}

/* Words separated by commas; none when `list` is NULL. */
static int take_words(options *chosen, const char *list, int (*take)(options *, const char *))
{
    while (list != NULL) {
        const size_t length = strcspn(list, ",");
        char word[64];
        snprintf(word, sizeof word, "%.*s", length < sizeof word ? (int)length : (int)sizeof word, list);
        if (take(chosen, word) != 0)
            return -1;
        list = list[length] == ',' ? list + length + 1 : NULL;
    }
    return 0;
}

typedef struct word_value {
    const char *word;
    int value;
} word_value;

/* One word out of `values`, which end with a NULL; the first is the default. Returns 0, or -1 having printed what would be right. */
static int take_choice(int *value, const char *option, const char *word, const word_value *values)
{
    char right[120] = "";
    *value = values->value;
    if (word == NULL)
        return 0;
    for (const word_value *w = values; w->word != NULL; w++) {
        if (strcmp(word, w->word) == 0) {
            *value = w->value;
            return 0;
        }
        const size_t length = strlen(right);
        snprintf(right + length, sizeof right - length, "%s%s", length == 0 ? "" : w[1].word != NULL ? ", " : " or ", w->word);
    }
    const size_t length = strlen(right);
    snprintf(right + length, sizeof right - length, " would be right");
    return refuse_word(option, word, right);
}

/* The options that take a text, in the order of the popt table. */
typedef struct texts {
    char *schemes;
    char *ops;
    char *side;
    char *tier;
    char *head_dim;
    char *where;
    char *dtype;
    char *rotation;
    char *centring;
    char *effort;
    char *fp8_block;
    char *fp8_scale;
    char *group;
    char *tokens;
    char *kv_heads;
    char *threads;
    char *rope;
} texts;

static int take_rope(bench_selection *selection, const char *name)
{
    char text[100];
    selection->rope = kvt_scheme_find(name);
    const unsigned ops = 1U << BENCH_ATTEND | 1U << BENCH_WRITE;
    if (selection->rope != NULL && selection->ops != 0 && (selection->ops & ~ops) == 0)
        return 0;
    if (selection->rope != NULL)
        snprintf(text, sizeof text, "is for latents, which are written and attended to; --ops write,attend would be right");
    else
        snprintf(text, sizeof text, "\"%.40s\" is no scheme; kvtile info names all", name);
    error_print(WHO, "--rope", text);
    return -1;
}

static int choose_cases(options *chosen, const texts *given)
{
    static const word_value sides[] = { { "both", 3 }, { "k", 1 << KVT_K }, { "v", 1 << KVT_V }, { NULL, 0 } };
    static const word_value wheres[] = { { "both", 3 }, { "l2", 1 << BENCH_L2 }, { "memory", 1 << BENCH_MEMORY }, { NULL, 0 } };
    static const word_value dtypes[] = { { "f32", KVT_F32 }, { "f16", KVT_F16 }, { "bf16", KVT_BF16 }, { NULL, 0 } };
    static const word_value rotations[] = { { "none", KVT_ROTATION_NONE }, { "64", KVT_ROTATION_64 }, { "128", KVT_ROTATION_128 }, { NULL, 0 } };
    static const word_value centrings[] = {
        { "none", KVT_CENTRING_NONE }, { "sequence", KVT_CENTRING_SEQUENCE }, { "page", KVT_CENTRING_PAGE }, { "own", KVT_CENTRING_OWN }, { NULL, 0 }
    };
    static const word_value efforts[] = { { "default", KVT_EFFORT_DEFAULT }, { "fast", KVT_EFFORT_FAST }, { "best", KVT_EFFORT_BEST }, { NULL, 0 } };
    static const word_value fp8_blocks[] = { { "row", 0 }, { "32", 32 }, { "64", 64 }, { "128", 128 }, { NULL, 0 } };
    static const word_value fp8_scales[] = { { "f32", KVT_FP8_SCALE_F32 }, { "e8m0", KVT_FP8_SCALE_E8M0 }, { NULL, 0 } };
    bench_selection *selection = &chosen->selection;
    int side, where, dtype, rotation, centring, effort, fp8_block, fp8_scale;
    if (take_choice(&side, "--side", given->side, sides) != 0 || take_choice(&where, "--where", given->where, wheres) != 0 ||
        take_choice(&dtype, "--dtype", given->dtype, dtypes) != 0 || take_choice(&rotation, "--rotation", given->rotation, rotations) != 0 ||
        take_choice(&centring, "--centring", given->centring, centrings) != 0 || take_choice(&effort, "--effort", given->effort, efforts) != 0 ||
        take_choice(&fp8_block, "--fp8-block", given->fp8_block, fp8_blocks) != 0 ||
        take_choice(&fp8_scale, "--fp8-scale", given->fp8_scale, fp8_scales) != 0)
        return -1;
    if (take_words(chosen, given->schemes, take_scheme) != 0 || take_words(chosen, given->ops, take_op) != 0 ||
        take_words(chosen, given->tier, take_tier) != 0 || take_words(chosen, given->head_dim, take_dim) != 0 ||
        take_words(chosen, given->group, take_group) != 0 || take_words(chosen, given->tokens, take_tokens) != 0 ||
        take_words(chosen, given->threads, take_threads) != 0)
        return -1;
    if (given->rope != NULL && take_rope(selection, given->rope) != 0)
        return -1;
    selection->kv_heads = selection->rope != NULL ? 1 : BENCH_ATTEND_HEADS;
    if (given->kv_heads != NULL && take_whole(&selection->kv_heads, "--kv-heads", given->kv_heads, 1024) != 0)
        return -1;
    selection->sides = (unsigned)side;
    selection->wheres = given->where == NULL && chosen->quick ? 1U << BENCH_L2 : (unsigned)where;
    selection->dtype = (kvt_dtype)dtype;
    selection->options.rotation = (kvt_rotation)rotation;
    selection->options.centring = (kvt_centring)centring;
    selection->options.effort = (kvt_effort)effort;
    selection->options.fp8_block = (uint32_t)fp8_block;
    selection->options.fp8_scale = (kvt_fp8_scale)fp8_scale;
    if (given->ops == NULL)
        selection->ops = (1U << BENCH_N_OPS) - 1;
    if (centring == KVT_CENTRING_OWN && given->ops != NULL && (selection->ops >> BENCH_APPEND & 1) != 0) {
        error_print(WHO, "--centring own", "is for whole pages, which are not appended token by token: other --ops would be right");
        return -1;
    }
    if (centring == KVT_CENTRING_OWN)
        selection->ops &= ~(1U << BENCH_APPEND);
    if (given->head_dim == NULL)
        chosen->dims[selection->n_dims++] = selection->rope != NULL ? 512 : 128;
    if (given->group == NULL)
        chosen->groups[selection->n_groups++] = selection->rope != NULL ? 20 : 4;
    if (given->tokens == NULL)
        chosen->tokens[selection->n_tokens++] = 32768;
    if (given->threads == NULL)
        chosen->threads[selection->n_threads++] = 1;
    selection->dims = chosen->dims;
    selection->groups = chosen->groups;
    selection->tokens = chosen->tokens;
    selection->threads = chosen->threads;
    if (given->tier == NULL)
        selection->tiers = UINT32_C(1) << bench_best_tier();
    return 0;
}

/* ---- results ---- */

typedef struct report {
    const measure_plan *plan;
    size_t done;
    size_t failed;
    bool terminal;                  /* progress is shown */
    bool narrow;                    /* 40 columns */
    double kv4_stored, kv4_speedup; /* of attention over kv4, for the line to share; 0: not measured */
    json_t *results;                /* NULL: a table */
} report;

static void progress(const report *state)
{
    if (!state->terminal)
        return;
    fputs("\r\033[K", stderr);
    if (state->done == state->plan->list.n)
        return;
    char name[BENCH_NAME_ROOM];
    bench_case_name(&state->plan->list.cases[state->done], name);
    fprintf(stderr, "%zu of %zu: %s", state->done + 1, state->plan->list.n, name);
}

static const char *rotation_name(kvt_rotation rotation)
{
    return rotation == KVT_ROTATION_64 ? "64" : rotation == KVT_ROTATION_128 ? "128" : "none";
}

static const char *centring_name(kvt_centring centring)
{
    return centring == KVT_CENTRING_OWN ? "own" : centring == KVT_CENTRING_PAGE ? "page" : centring == KVT_CENTRING_SEQUENCE ? "sequence" : "none";
}

static const char *effort_name(kvt_effort effort)
{
    return effort == KVT_EFFORT_FAST ? "fast" : effort == KVT_EFFORT_BEST ? "best" : "default";
}

static const char *fp8_block_name(uint32_t block)
{
    return block == 32 ? "32" : block == 64 ? "64" : block == 128 ? "128" : "row";
}

static const char *fp8_scale_name(kvt_fp8_scale scale)
{
    return scale == KVT_FP8_SCALE_E8M0 ? "e8m0" : "f32";
}

static void print_setting(const options *chosen, const machine *here)
{
    const kvt_side_options *stored = &chosen->selection.options;
    printf("kvtile %s on %s, tiers %s, %s\n", kvt_version(), here->cpu, here->tiers, here->date);
    printf("L1 %zu KiB, L2 %zu KiB, last-level cache %zu KiB (%s)%s\n", here->l1_bytes >> 10, here->l2_bytes >> 10, here->llc_bytes >> 10,
           here->cache_source, chosen->quick ? "; a rough look" : "");
    printf("rows of %s; rotation %s, centring %s, effort %s, fp8: a scale per %s, %s\n", bench_dtype_name(chosen->selection.dtype),
           rotation_name(stored->rotation), centring_name(stored->centring), effort_name(stored->effort), fp8_block_name(stored->fp8_block),
           fp8_scale_name(stored->fp8_scale));
    if (ggml_report() != NULL)
        printf("ggml: %s\n", ggml_report());
}

/* 40 columns do for one tier, width, place, group and number of threads: the head says which. */
static bool is_narrow(const options *chosen)
{
    const bench_selection *s = &chosen->selection;
    const bool single_tier = (s->tiers & (s->tiers - 1)) == 0, single_place = (s->wheres & (s->wheres - 1)) == 0;
    return chosen->quick && single_tier && single_place && s->n_dims == 1 && s->n_groups == 1 && s->n_threads == 1;
}

static void print_narrow_head(const options *chosen, const machine *here)
{
    unsigned tier = 0;
    while (chosen->selection.tiers >> tier != 1)
        tier++;
    printf("kvtile %s, a rough look\n%s\n%s\n%s, head_dim %u, %s, rows %s\n", kvt_version(), here->cpu, here->date, kvt_tier_name(tier),
           chosen->selection.dims[0], chosen->selection.wheres == 1U << BENCH_L2 ? "l2" : "memory", bench_dtype_name(chosen->selection.dtype));
}

static void print_columns(bool is_attend, bool narrow)
{
    if (narrow && is_attend)
        printf("\n%-6s %-6s %7s %6s %5s %5s\n", "op", "scheme", "us", "GB/s", "read", "f16");
    else if (narrow)
        printf("\n%-6s %-6s %-4s %8s %5s %6s\n", "op", "scheme", "side", "elem/ns", "floor", "memcpy");
    else if (is_attend)
        printf("\n%-6s %-6s %5s %-9s %4s %-6s %8s %3s %10s %7s %6s %8s %6s %6s\n", "op", "scheme", "group", "tier", "dim", "where", "tokens", "thr",
               "us", "GB/s", "read", "multiply", "f16", "plain");
    else
        printf("\n%-6s %-6s %-4s %-9s %4s %-6s %9s %8s %8s %8s %8s %8s%s\n", "op", "scheme", "side", "tier", "dim", "where", "elem/ns", "GB/s in",
               "GB/s out", "floor", "memcpy", "bulk", ggml_report() != NULL ? "     ggml" : "");
}

/* As `format` says, or blanks where the case has no such counter. */
static void print_counter(const shim_result *result, const char *name, const char *format, int width)
{
    const double value = shim_result_counter(result, name);
    if (isfinite(value))
        printf(format, value);
    else
        printf("%*s", width, "");
}

/* The same in `width` columns after a blank: decimals as far as there is room, as numbers of emulated CPUs are large. */
static void print_narrow_counter(const shim_result *result, const char *name, int decimals, int width)
{
    const double value = shim_result_counter(result, name);
    for (double limit = 100; value >= limit && decimals > 0; limit *= 10)
        decimals--;
    if (isfinite(value))
        printf(" %*.*f", width, decimals, value);
    else
        printf("%*s", width + 1, "");
}

static void print_narrow_row(const bench_case *timed, const shim_result *result)
{
    const bool is_attend = timed->op == BENCH_ATTEND;
    printf("%-6s %-6.6s", BENCH_OP_NAMES[timed->op], bench_scheme_name_of(timed).text);
    if (!is_attend)
        printf(" %-4s", timed->side == KVT_K ? "k" : "v");
    if (result->error != NULL) {
        printf(" %s\n", result->error);
        return;
    }
    print_narrow_counter(result, is_attend ? MEASURE_STEP : MEASURE_ELEMENTS, is_attend ? 1 : 2, is_attend ? 7 : 8);
    print_narrow_counter(result, is_attend ? MEASURE_STORED : MEASURE_FLOOR, 2, is_attend ? 6 : 5);
    print_narrow_counter(result, is_attend ? MEASURE_READ : MEASURE_MEMCPY, 2, is_attend ? 5 : 6);
    if (is_attend)
        print_narrow_counter(result, MEASURE_F16, 2, 5);
    putchar('\n');
}

/* Which of attention's limits takes longer: "read", "multiply", or NULL where one of them was not measured. */
static const char *limit_of(const shim_result *result)
{
    const double read = shim_result_counter(result, MEASURE_READ), multiply = shim_result_counter(result, MEASURE_MULTIPLY);
    return !isfinite(read) || !isfinite(multiply) ? NULL : read >= multiply ? "read" : "multiply";
}

/* A share of a limit, with a star where that is the one that binds. */
static void print_share(const shim_result *result, const char *name, const char *format, int width, const char *limit)
{
    const char *binding = limit_of(result);
    print_counter(result, name, format, width);
    putchar(binding != NULL && strcmp(binding, limit) == 0 ? '*' : ' ');
}

static void print_case_row(const bench_case *timed, const shim_result *result)
{
    const bool is_attend = timed->op == BENCH_ATTEND;
    printf("%-6s %-6s ", BENCH_OP_NAMES[timed->op], bench_scheme_name_of(timed).text);
    if (is_attend)
        printf("%5u", timed->group);
    else
        printf("%-4s", timed->side == KVT_K ? "k" : "v");
    printf(" %-9s %4u %-6s ", kvt_tier_name(timed->tier), timed->dim, BENCH_WHERE_NAMES[timed->where]);
    if (result->error != NULL) {
        printf("%s\n", result->error);
        return;
    }
    if (is_attend) {
        printf("%8.0f %3u", shim_result_counter(result, MEASURE_TOKENS), timed->threads);
        print_counter(result, MEASURE_STEP, " %10.1f", 11);
        print_counter(result, MEASURE_STORED, " %7.2f", 8);
        print_share(result, MEASURE_READ, "  %5.2f", 7, "read");
        print_share(result, MEASURE_MULTIPLY, " %7.2f", 8, "multiply");
        print_counter(result, MEASURE_F16, "%6.2f", 6);
        print_counter(result, MEASURE_REFERENCE, " %6.2f", 7);
    } else {
        print_counter(result, MEASURE_ELEMENTS, "%9.3f", 9);
        print_counter(result, MEASURE_IN, " %8.2f", 9);
        print_counter(result, MEASURE_OUT, " %8.2f", 9);
        print_counter(result, MEASURE_FLOOR, " %8.2f", 9);
        print_counter(result, MEASURE_MEMCPY, " %8.2f", 9);
        print_counter(result, MEASURE_BULK, " %8.2f", 9);
        print_counter(result, MEASURE_GGML, " %8.2f", 0);
    }
    putchar('\n');
}

static json_t *case_json(const bench_case *timed, const shim_result *result)
{
    json_t *object = json_object();
    json_object_set_new(object, "op", json_string(BENCH_OP_NAMES[timed->op]));
    json_object_set_new(object, "scheme", json_string(timed->scheme->name));
    if (timed->op != BENCH_ATTEND) {
        json_object_set_new(object, "side", json_string(timed->side == KVT_K ? "k" : "v"));
    } else {
        json_object_set_new(object, "group", json_integer((json_int_t)timed->group));
        json_object_set_new(object, "kv_heads", json_integer((json_int_t)timed->kv_heads));
        json_object_set_new(object, "threads", json_integer((json_int_t)timed->threads));
    }
    if (timed->rope != NULL)
        json_object_set_new(object, "rope_scheme", json_string(timed->rope->name));
    json_object_set_new(object, "tier", json_string(kvt_tier_name(timed->tier)));
    json_object_set_new(object, "head_dim", json_integer((json_int_t)timed->dim));
    json_object_set_new(object, "dtype", json_string(bench_dtype_name(timed->dtype)));
    json_object_set_new(object, "rotation", json_string(rotation_name(timed->options.rotation)));
    json_object_set_new(object, "centring", json_string(centring_name(timed->options.centring)));
    json_object_set_new(object, "effort", json_string(effort_name(timed->options.effort)));
    json_object_set_new(object, "fp8_block", json_string(fp8_block_name(timed->options.fp8_block)));
    json_object_set_new(object, "fp8_scale", json_string(fp8_scale_name(timed->options.fp8_scale)));
    json_object_set_new(object, "where", json_string(BENCH_WHERE_NAMES[timed->where]));
    if (result->error != NULL) {
        json_object_set_new(object, "error", json_string(result->error));
        return object;
    }
    for (size_t i = 0; i < result->n_counters; i++) {
        const char *name = result->counter_names[i];
        const bool whole = strcmp(name, MEASURE_SAMPLES) == 0 || strcmp(name, MEASURE_BYTES) == 0 || strcmp(name, MEASURE_TOKENS) == 0;
        const double value = result->counter_values[i];
        json_object_set_new(object, name, whole ? json_integer((json_int_t)value) : json_real(value));
    }
    const char *limit = limit_of(result);
    if (timed->op == BENCH_ATTEND && limit != NULL)
        json_object_set_new(object, "limit", json_string(limit));
    const ggml_format *ggml = ggml_format_find(timed);
    if (ggml != NULL) {
        json_object_set_new(object, "ggml_format", json_string(ggml->name));
        json_object_set_new(object, "ggml_function", json_string(timed->op == BENCH_READ ? ggml->dequantize_symbol : ggml->quantize_symbol));
    }
    return object;
}

/* Results come in the order of the cases. */
static void take_result(void *context, const shim_result *result)
{
    report *state = context;
    const bench_case *timed = &state->plan->list.cases[state->done++];
    state->failed += result->error != NULL;
    if (state->results != NULL) {
        json_array_append_new(state->results, case_json(timed, result));
        progress(state);
        return;
    }
    if (state->terminal)
        fputs("\r\033[K", stderr);
    if (state->done == 1 || (timed->op == BENCH_ATTEND) != (timed[-1].op == BENCH_ATTEND))
        print_columns(timed->op == BENCH_ATTEND, state->narrow);
    if (state->narrow)
        print_narrow_row(timed, result);
    else
        print_case_row(timed, result);
    if (timed->op == BENCH_ATTEND && result->error == NULL && strcmp(bench_scheme_name_of(timed).text, "kv4") == 0) {
        state->kv4_stored = shim_result_counter(result, MEASURE_STORED);
        state->kv4_speedup = shim_result_counter(result, MEASURE_F16);
    }
    fflush(stdout);
    progress(state);
}

static void print_results_json(const machine *here, json_t *results)
{
    json_t *tiers = json_array();
    for (unsigned id = 0; id < 32; id++) {
        if ((kvt_tiers_usable() >> id & 1) != 0)
            json_array_append_new(tiers, json_string(kvt_tier_name(id)));
    }
    json_t *object = json_pack("{s:s, s:s, s:s, s:o, s:{s:I, s:I, s:I, s:s}, s:s?, s:O}", "version", kvt_version(), "cpu", here->cpu, "date",
                               here->date, "tiers", tiers, "caches", "l1", (json_int_t)here->l1_bytes, "l2", (json_int_t)here->l2_bytes, "last_level",
                               (json_int_t)here->llc_bytes, "source", here->cache_source, "ggml", ggml_report(), "results", results);
    json_print(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(object);
}

static int measure_cases(const options *chosen)
{
    static char program[] = "kvtile bench";
    static char filter[] = "--benchmark_filter=."; /* and nothing that the environment says */
    static char repetitions[] = "--benchmark_repetitions=1";
    static char interleaving[] = "--benchmark_enable_random_interleaving=false";
    static char full_time[] = "--benchmark_min_time=0.05";
    static char quick_time[] = "--benchmark_min_time=0.002";
    static char out[] = "--benchmark_out=";
    char *arguments[] = { program, filter, repetitions, interleaving, out, chosen->quick ? quick_time : full_time, NULL };
    int n_arguments = 6;

    measure_plan plan = { .size = chosen->quick ? WORKLOAD_QUICK : WORKLOAD_FULL };
    int code = 1;
    if (bench_cases_add(&plan.list, &chosen->selection) != 0) {
        error_print(WHO, "cases", "out of memory");
    } else if (plan.list.n == 0) {
        error_print(WHO, "--rotation, --centring, --effort, --fp8-block, --fp8-scale", "no scheme that is asked for has these options");
        code = 2;
    } else if (shim_initialize(&n_arguments, arguments, "") != 0 || measure_register(&plan) != 0) {
        error_print(WHO, "cases", "Google Benchmark does not take them, or out of memory");
    } else {
        report state = {
            .plan = &plan, .terminal = isatty(STDERR_FILENO) != 0, .results = chosen->json ? json_array() : NULL, .narrow = is_narrow(chosen)
        };
        machine_look(&plan.machine);
        if (!chosen->json && state.narrow)
            print_narrow_head(chosen, &plan.machine);
        else if (!chosen->json)
            print_setting(chosen, &plan.machine);
        fflush(stdout);
        progress(&state);
        shim_run_captured(take_result, &state);
        if (chosen->json)
            print_results_json(&plan.machine, state.results);
        else if (state.narrow && state.kv4_speedup > 0)
            printf("\n%s: kvtile's attention reads kv4 at %.1f GB/s, %.2f times as fast as f16\n", plan.machine.cpu, state.kv4_stored,
                   state.kv4_speedup);
        json_decref(state.results);
        code = state.failed == 0 && state.done == plan.list.n ? 0 : 1;
        if (state.failed > 0)
            error_print(WHO, "cases", "some could not be measured; the report says why");
    }
    measure_free(&plan);
    return code;
}

int kvt_cmd_bench(int argc, const char **argv)
{
    int help = 0, help_all = 0;
    int json = 0;
    int quick = 0, compare = 0, rank = 0;
    texts given = { 0 };
    char **const values[] = { &given.schemes, &given.ops,      &given.side,     &given.tier,    &given.head_dim,  &given.where,
                              &given.dtype,   &given.rotation, &given.centring, &given.effort,  &given.fp8_block, &given.fp8_scale,
                              &given.group,   &given.tokens,   &given.kv_heads, &given.threads, &given.rope };
    const struct poptOption table[] = {
        { "schemes", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL },     { "ops", 0, POPT_ARG_STRING, NULL, 2, NULL, NULL },
        { "side", 0, POPT_ARG_STRING, NULL, 3, NULL, NULL },        { "tier", 0, POPT_ARG_STRING, NULL, 4, NULL, NULL },
        { "head-dim", 0, POPT_ARG_STRING, NULL, 5, NULL, NULL },    { "where", 0, POPT_ARG_STRING, NULL, 6, NULL, NULL },
        { "dtype", 0, POPT_ARG_STRING, NULL, 7, NULL, NULL },       { "rotation", 0, POPT_ARG_STRING, NULL, 8, NULL, NULL },
        { "centring", 0, POPT_ARG_STRING, NULL, 9, NULL, NULL },    { "effort", 0, POPT_ARG_STRING, NULL, 10, NULL, NULL },
        { "fp8-block", 0, POPT_ARG_STRING, NULL, 11, NULL, NULL },  { "fp8-scale", 0, POPT_ARG_STRING, NULL, 12, NULL, NULL },
        { "group", 0, POPT_ARG_STRING, NULL, 13, NULL, NULL },      { "tokens", 0, POPT_ARG_STRING, NULL, 14, NULL, NULL },
        { "kv-heads", 0, POPT_ARG_STRING, NULL, 15, NULL, NULL },   { "threads", 0, POPT_ARG_STRING, NULL, 16, NULL, NULL },
        { "rope", 0, POPT_ARG_STRING, NULL, 17, NULL, NULL },       { "quick", 0, POPT_ARG_NONE, &quick, 0, NULL, NULL },
        { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },         { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
        { "compare", 0, POPT_ARG_NONE, &compare, 0, NULL, NULL },   { "rank", 0, POPT_ARG_NONE, &rank, 0, NULL, NULL },
        { "help-all", 0, POPT_ARG_NONE, &help_all, 0, NULL, NULL }, POPT_TABLEEND,
    };
    poptContext context = options_open(WHO, "kvtile", argc, argv, table);
    if (context == NULL)
        return 1;
    const int parsed = options_take(context, argc, argv, table, values);
    options chosen = { .quick = quick != 0, .json = json != 0 };
    int code = 2;
    if (parsed < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(parsed));
    } else if (help || help_all) {
        fputs(help_all ? HELP : BRIEF, stdout);
        code = 0;
    } else if (compare) {
        const char *first = poptGetArg(context), *second = poptGetArg(context);
        if (first == NULL || second == NULL || poptPeekArg(context) != NULL)
            error_print(WHO, "--compare", "two files would be right, A.json B.json, that kvtile bench --json printed");
        else
            code = bench_compare(WHO, first, second, json);
    } else if (rank) {
        const char **files = poptGetArgs(context);
        size_t n = 0;
        while (files != NULL && files[n] != NULL)
            n++;
        if (n < 2)
            error_print(WHO, "--rank", "two files or more would be right, that kvtile bench --json printed");
        else
            code = bench_rank(WHO, files, n);
    } else if (poptPeekArg(context) != NULL) {
        error_print(WHO, poptPeekArg(context), "no argument would be right, only options; see kvtile bench --help");
    } else if (choose_cases(&chosen, &given) == 0) {
        code = measure_cases(&chosen);
    }
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        free(*values[i]);
    poptFreeContext(context);
    return code;
}

#else

int kvt_cmd_bench(int argc, const char **argv)
{
    (void)argc;
    (void)argv;
    error_print("kvtile bench", "benchmarks",
                "this kvtile was built without them; cmake -DKVT_BUILD_BENCH=ON builds them (Debian: libbenchmark-dev, g++)");
    return 1;
}

#endif
