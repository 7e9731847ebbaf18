/* SPDX-License-Identifier: MIT */
/* kvtile convert: files of rows in and out of the formats of other engines. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/commands.h"

#include "tools/files/json.h"
#include "tools/files/nearest.h"
#include "tools/files/output.h"
#include "tools/program/options.h"
#include "tools/rows/formats.h"
#include "tools/rows/rows.h"

#include <kvtile/convert.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char WHO[] = "kvtile convert";

/* One screen of 80 columns; the rest is below. */
static const char BRIEF[] = "Examples:\n"
                            "  kvtile convert keys.npy --to ggml_q8_0 -o keys.q8_0\n"
                            "  kvtile convert keys.q8_0 --from ggml_q8_0 --dim 64 --to f32 -o keys.npy\n"
                            "  kvtile convert keys.q8_0 --from ggml_q8_0 --dim 64 --to vllm_int8 -o keys.int8\n"
                            "\n"
                            "Converts rows of keys or values into another engine's format, back, or from one\n"
                            "such format to another. Without --from INPUT is QVKT, .npy or .safetensors.\n"
                            "\n"
                            "  --to FORMAT        a format, f32 or f16 (an .npy file)\n"
                            "  --from FORMAT      the format of INPUT's encoded rows\n"
                            "  -o, --output FILE  appears when it is complete\n"
                            "  --dim N            channels of an encoded row\n"
                            "  --heads N          encoded INPUT is [head][token]\n"
                            "  --tensor NAME      which, when INPUT has several\n"
                            "  --json             what was done, for programs\n"
                            "\n"
                            "kvtile convert --help-all has every option and all formats.\n";

static const char HELP[] =
    "Usage: kvtile convert INPUT --to FORMAT -o OUTPUT [--tensor NAME] [--rounding RULE]\n"
    "       kvtile convert INPUT --from FORMAT --dim N --to f32|f16|FORMAT -o OUTPUT [--rows N] [--heads N]\n"
    "Converts rows of keys or values into a format of another engine, back, or from one such format to another.\n"
    "\n"
    "INPUT: rows of numbers, [token][dim] or [head][token][dim]: QVKT (f32), .npy (f32, f16), .safetensors (f32, f16, bf16);\n"
    "       with --from: encoded rows, one after the other, nothing else\n"
    "OUTPUT: encoded rows in the order of INPUT, nothing else; with --to f32 or f16 an .npy file. It appears when it is complete.\n"
    "\n"
    "  --to FORMAT        a format below, f32 or f16\n"
    "  --from FORMAT      the format of INPUT's encoded rows\n"
    "  -o, --output FILE\n"
    "  --dim N            channels of an encoded row\n"
    "  --rows N           how many there must be, over all heads (default: as many as the file holds)\n"
    "  --heads N          rows of encoded INPUT are [head][token]: the .npy file has that shape then (default: no heads)\n"
    "  --tensor NAME      which, when INPUT has several\n"
    "  --rounding RULE    canonical (the default: this library's), or x86, neon, scalar: the bytes that ggml's quantizers give there\n"
    "                     (ggml formats but iq4_nl)\n"
    "  --global-scale X   nvfp4: what all its numbers are multiplied by (default 1)\n"
    "  --tier LIST        kernels that may run: \"avx2\" = that tier and what it inherits, \"-avx512\" = all but that one\n"
    "  --json             one object: input, output, from, to, heads, tokens, dim, row_bytes, bytes\n"
    "  --help-all         this text; --help: one screen\n"
    "\n"
    "Formats (docs/formats.md, section 8):\n";

static const char EXAMPLES[] = "\nExamples:\n"
                               "  kvtile convert layer0_keys.qvkt --to ggml_q8_0 -o keys.q8_0\n"
                               "  kvtile convert keys.q8_0 --from ggml_q8_0 --dim 64 --to f32 -o keys.npy\n"
                               "  kvtile convert keys.q8_0 --from ggml_q8_0 --dim 64 --to vllm_int8 -o keys.int8 --json\n";

static void print_convert_help(bool all)
{
    fputs(all ? HELP : BRIEF, stdout);
    if (!all)
        return;
    const kvt_row_format_info *info;
    for (size_t i = 0; (info = kvt_row_format_at(i)) != NULL; i++)
        printf("  %-12s  %s\n", info->name, info->title);
    fputs(EXAMPLES, stdout);
}

/* ---- what is converted ---- */

/* Rows on one side: numbers of `dtype`, or encoded in a format. */
typedef struct kind {
    const kvt_row_format_info *format; /* NULL: numbers */
    kvt_dtype dtype;
    kvt_row_options options; /* of the format */
    size_t row_bytes;
} kind;

typedef struct job {
    const char *input, *output, *tensor;
    kind from, to;
    uint32_t heads, dim;
    size_t tokens;    /* of a head */
    bool has_heads;   /* three dimensions */
    size_t want_rows; /* 0: any number */
    bool json;
} job;

static const char *kind_name(const kind *k)
{
    return k->format != NULL ? k->format->name : rows_dtype_name(k->dtype);
}

static void set_row_bytes(kind *k, uint32_t dim)
{
    k->row_bytes = k->format != NULL ? kvt_row_format_bytes(k->format->format, dim) : dim * kvt_dtype_bytes(k->dtype);
}

/* ---- converting ---- */

enum { ROWS_AT_ONCE = 64 };

static kvt_status convert_rows(const job *work, const uint8_t *in, uint8_t *out, float *between, size_t n)
{
    const kind *from = &work->from, *to = &work->to;
    const ptrdiff_t in_stride = (ptrdiff_t)from->row_bytes, out_stride = (ptrdiff_t)to->row_bytes;
    if (from->format == NULL)
        return kvt_rows_encode(to->format->format, work->dim, n, in, from->dtype, in_stride, out, out_stride, &to->options);
    if (to->format == NULL)
        return kvt_rows_decode(from->format->format, work->dim, n, in, in_stride, out, to->dtype, out_stride, &from->options);
    const ptrdiff_t between_stride = (ptrdiff_t)(work->dim * sizeof *between);
    const kvt_status status = kvt_rows_decode(from->format->format, work->dim, n, in, in_stride, between, KVT_F32, between_stride, &from->options);
    return status != KVT_OK ? status
                            : kvt_rows_encode(to->format->format, work->dim, n, between, KVT_F32, between_stride, out, out_stride, &to->options);
}

static int convert_all(const job *work, const uint8_t *in, FILE *stream, error_text *error)
{
    const size_t n_rows = work->heads * work->tokens;
    uint8_t *out = malloc(ROWS_AT_ONCE * work->to.row_bytes);
    float *between = malloc(ROWS_AT_ONCE * work->dim * sizeof *between);
    int result = 0;
    if (out == NULL || between == NULL)
        result = error_set(error, "cannot be converted: out of memory");
    if (result == 0 && work->to.format == NULL)
        npy_write_header(stream, work->to.dtype, work->has_heads ? work->heads : 0, work->tokens, work->dim);
    for (size_t done = 0; done < n_rows && result == 0; done += ROWS_AT_ONCE) {
        const size_t n = n_rows - done < ROWS_AT_ONCE ? n_rows - done : ROWS_AT_ONCE;
        const kvt_status status = convert_rows(work, in + done * work->from.row_bytes, out, between, n);
        if (status != KVT_OK)
            result = error_set(error, "cannot be converted: %s", kvt_status_text(status));
        else if (fwrite(out, work->to.row_bytes, n, stream) != n)
            break; /* file_output_commit sees it */
    }
    free(out);
    free(between);
    return result;
}

/* ---- input and output ---- */

static void report_conversion(const job *work)
{
    const size_t bytes = work->heads * work->tokens * work->to.row_bytes;
    if (work->json) {
        json_t *object = json_object();
        json_object_set_new(object, "input", json_text(work->input));
        json_object_set_new(object, "output", json_text(work->output));
        json_object_set_new(object, "from", json_string(kind_name(&work->from)));
        json_object_set_new(object, "to", json_string(kind_name(&work->to)));
        json_object_set_new(object, "heads", json_integer((json_int_t)work->heads));
        json_object_set_new(object, "tokens", json_integer((json_int_t)work->tokens));
        json_object_set_new(object, "dim", json_integer((json_int_t)work->dim));
        json_object_set_new(object, "row_bytes", json_integer((json_int_t)work->to.row_bytes));
        json_object_set_new(object, "bytes", json_integer((json_int_t)bytes));
        json_print(object, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(object);
        return;
    }
    printf("%u %s x %zu tokens x %u channels, %s to %s: %zu bytes a row, %zu in all\n", work->heads, work->heads == 1 ? "head" : "heads",
           work->tokens, work->dim, kind_name(&work->from), kind_name(&work->to), work->to.row_bytes, bytes);
}

/* Writes the output of a job whose shape is known. */
static int write_output(job *work, const uint8_t *in, const char **whose, error_text *error)
{
    set_row_bytes(&work->to, work->dim);
    file_output output;
    *whose = work->output;
    if (file_output_open(&output, work->output, error) != 0)
        return -1;
    *whose = work->input;
    if (convert_all(work, in, output.stream, error) != 0) {
        file_output_discard(&output);
        return -1;
    }
    *whose = work->output;
    return file_output_commit(&output, error);
}

static const rows_tensor *choose_tensor(const rows_file *file, const char *name, error_text *error)
{
    if (name == NULL && file->n_tensors == 1)
        return file->tensors;
    for (size_t i = 0; name != NULL && i < file->n_tensors; i++)
        if (file->tensors[i].name != NULL && strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    const char *example = file->tensors[0].name;
    if (name != NULL)
        error_set(error, "has no tensor of rows named %s: %s%s", name, example != NULL ? "one is " : "its rows have no name",
                  example != NULL ? example : "");
    else
        error_set(error, "has %zu tensors of rows: --tensor %s, or another, would be right", file->n_tensors, example != NULL ? example : "");
    return NULL;
}

static int convert_numbers(job *work, const char **whose, error_text *error)
{
    rows_file file;
    if (rows_open(&file, work->input, ROWS_HEAD_TOKEN, error) != 0)
        return -1;
    const rows_tensor *tensor = choose_tensor(&file, work->tensor, error);
    int result = -1;
    if (tensor != NULL) {
        work->from.dtype = tensor->dtype;
        work->heads = tensor->heads;
        work->tokens = tensor->tokens;
        work->dim = tensor->dim;
        set_row_bytes(&work->from, work->dim);
        result = write_output(work, tensor->data, whose, error);
    }
    rows_close(&file);
    return result;
}

static int convert_encoded(job *work, const char **whose, error_text *error)
{
    file_map map;
    if (file_map_open(&map, work->input, error) != 0)
        return -1;
    set_row_bytes(&work->from, work->dim);
    const size_t row_bytes = work->from.row_bytes, n_rows = map.size / row_bytes;
    int result;
    if (map.size % row_bytes != 0)
        result = error_set(error, "has %zu bytes: a multiple of %zu, the bytes of a %s row of %u channels, would be right", map.size, row_bytes,
                           work->from.format->name, work->dim);
    else if (work->want_rows != 0 && work->want_rows != n_rows)
        result = error_set(error, "has %zu rows of %zu bytes: %zu would be right for --rows", n_rows, row_bytes, work->want_rows);
    else if (n_rows % work->heads != 0)
        result = error_set(error, "has %zu rows: a multiple of --heads, %u, would be right", n_rows, work->heads);
    else {
        work->tokens = n_rows / work->heads;
        result = write_output(work, map.data, whose, error);
    }
    file_map_close(&map);
    return result;
}

/* ---- arguments ---- */

typedef struct arguments {
    char *to, *from, *output, *dim, *rows, *heads, *tensor, *rounding, *global_scale, *tiers;
} arguments;

static int wrong(const char *what, const char *text)
{
    error_print(WHO, what, text);
    return -1;
}

static int choose_format(const char *option, const char *name, const kvt_row_format_info **format)
{
    *format = kvt_row_format_find(name);
    if (*format != NULL)
        return 0;
    nearest best = { .typed = name };
    const kvt_row_format_info *info;
    for (size_t i = 0; (info = kvt_row_format_at(i)) != NULL; i++)
        nearest_consider(&best, info->name);
    char text[160];
    snprintf(text, sizeof text, "\"%.40s\" is no format: %s%skvtile convert --help-all lists them", name, best.name ? best.name : "",
             best.name ? " would be right, " : "");
    return wrong(option, text);
}

/* A whole number from 1 to `most`. */
static int choose_number(const char *option, const char *typed, unsigned long long most, size_t *number)
{
    char *end;
    const unsigned long long value = strtoull(typed, &end, 10);
    if (typed[0] < '0' || typed[0] > '9' || *end != '\0' || value < 1 || value > most) {
        char text[160];
        snprintf(text, sizeof text, "%.40s is no number from 1 to %llu", typed, most);
        return wrong(option, text);
    }
    *number = (size_t)value;
    return 0;
}

static int choose_rounding(const char *typed, kvt_rounding *rounding)
{
    static const struct {
        const char *name;
        kvt_rounding rounding;
    } rules[] = {
        { "canonical", KVT_ROUNDING_CANONICAL },
        { "x86", KVT_ROUNDING_GGML_X86 },
        { "neon", KVT_ROUNDING_GGML_NEON },
        { "scalar", KVT_ROUNDING_GGML_SCALAR },
    };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(typed, rules[i].name) == 0) {
            *rounding = rules[i].rounding;
            return 0;
        }
    return wrong("--rounding", "canonical, x86, neon or scalar would be right");
}

/* Options of the formats; each takes what it has, and what neither has is an error. */
static int choose_row_options(const arguments *typed, job *work)
{
    kvt_row_options common = { .size = sizeof common };
    if (typed->tiers != NULL) {
        const kvt_status status = kvt_tiers_parse(typed->tiers, &common.tiers);
        if (status != KVT_OK)
            return wrong(typed->tiers, kvt_status_text(status));
    }
    work->from.options = work->to.options = common;
    if (typed->rounding != NULL) {
        if (choose_rounding(typed->rounding, &work->to.options.rounding) != 0)
            return -1;
        if (work->to.format == NULL || kvt_rows_encode(work->to.format->format, 1, 0, NULL, KVT_F32, 0, NULL, 0, &work->to.options) != KVT_OK)
            return wrong("--rounding", "the formats of ggml alone have it, without iq4_nl");
    }
    if (typed->global_scale != NULL) {
        char *end;
        const float scale = strtof(typed->global_scale, &end);
        if (*typed->global_scale == '\0' || *end != '\0' || !(scale >= 0x1p-64f && scale <= 0x1p64f))
            return wrong("--global-scale", "a number from 2^-64 to 2^64 would be right");
        const bool in = work->from.format != NULL && work->from.format->format == KVT_ROW_nvfp4;
        const bool out = work->to.format != NULL && work->to.format->format == KVT_ROW_nvfp4;
        if (!in && !out)
            return wrong("--global-scale", "nvfp4 alone has one");
        if (in)
            work->from.options.nvfp4_global_scale = scale;
        if (out)
            work->to.options.nvfp4_global_scale = scale;
    }
    return 0;
}

static int choose_job(const arguments *typed, job *work)
{
    if (typed->to == NULL)
        return wrong("--to", "is missing: a format, f32 or f16 would be right; see kvtile convert --help");
    if (typed->output == NULL)
        return wrong("--output", "is missing: the name of a file would be right");
    work->output = typed->output;
    work->tensor = typed->tensor;
    work->heads = 1;
    if (strcmp(typed->to, "f32") == 0)
        work->to.dtype = KVT_F32;
    else if (strcmp(typed->to, "f16") == 0)
        work->to.dtype = KVT_F16;
    else if (choose_format("--to", typed->to, &work->to.format) != 0)
        return -1;
    if (typed->from == NULL) {
        if (work->to.format == NULL)
            return wrong("--to", "the input's rows are numbers already: a row format, or --from, would be right");
        if (typed->dim != NULL || typed->rows != NULL || typed->heads != NULL)
            return wrong(typed->dim != NULL    ? "--dim"
                         : typed->rows != NULL ? "--rows"
                                               : "--heads",
                         "goes with --from: files of numbers have a shape");
        return choose_row_options(typed, work);
    }
    size_t number;
    if (choose_format("--from", typed->from, &work->from.format) != 0)
        return -1;
    if (typed->tensor != NULL)
        return wrong("--tensor", "does not go with --from: encoded rows have no names");
    if (typed->dim == NULL)
        return wrong("--dim", "is missing: the channels of an encoded row would be right");
    if (choose_number("--dim", typed->dim, KVT_MAX_DIM, &number) != 0)
        return -1;
    work->dim = (uint32_t)number;
    if (typed->heads != NULL) {
        if (choose_number("--heads", typed->heads, KVT_MAX_HEADS, &number) != 0)
            return -1;
        work->heads = (uint32_t)number;
        work->has_heads = true;
    }
    if (typed->rows != NULL && choose_number("--rows", typed->rows, SIZE_MAX, &work->want_rows) != 0)
        return -1;
    return choose_row_options(typed, work);
}

static int run_conversion(job *work)
{
    error_text error;
    const char *whose = work->input;
    if ((work->from.format != NULL ? convert_encoded(work, &whose, &error) : convert_numbers(work, &whose, &error)) != 0) {
        error_print(WHO, whose, error.text);
        return 1;
    }
    report_conversion(work);
    return 0;
}

int kvt_cmd_convert(int argc, const char **argv)
{
    int help = 0, help_all = 0;
    int json = 0;
    arguments typed = { 0 };
    char **const values[] = { &typed.to,    &typed.from,   &typed.output,   &typed.dim,          &typed.rows,
                              &typed.heads, &typed.tensor, &typed.rounding, &typed.global_scale, &typed.tiers };
    const struct poptOption table[] = {
        { "to", 0, POPT_ARG_STRING, NULL, 1, NULL, NULL },           { "from", 0, POPT_ARG_STRING, NULL, 2, NULL, NULL },
        { "output", 'o', POPT_ARG_STRING, NULL, 3, NULL, NULL },     { "dim", 0, POPT_ARG_STRING, NULL, 4, NULL, NULL },
        { "rows", 0, POPT_ARG_STRING, NULL, 5, NULL, NULL },         { "heads", 0, POPT_ARG_STRING, NULL, 6, NULL, NULL },
        { "tensor", 0, POPT_ARG_STRING, NULL, 7, NULL, NULL },       { "rounding", 0, POPT_ARG_STRING, NULL, 8, NULL, NULL },
        { "global-scale", 0, POPT_ARG_STRING, NULL, 9, NULL, NULL }, { "tier", 0, POPT_ARG_STRING, NULL, 10, NULL, NULL },
        { "json", 0, POPT_ARG_NONE, &json, 0, NULL, NULL },          { "help", 'h', POPT_ARG_NONE, &help, 0, NULL, NULL },
        { "help-all", 0, POPT_ARG_NONE, &help_all, 0, NULL, NULL },  POPT_TABLEEND
    };
    poptContext context = options_open(WHO, "kvtile", argc, argv, table);
    if (context == NULL)
        return 1;
    const int parsed = options_take(context, argc, argv, table, values);
    job work = { .json = json != 0 };
    int code;
    if (parsed < -1) {
        error_print(WHO, poptBadOption(context, 0), poptStrerror(parsed));
        code = 2;
    } else if (help || help_all) {
        print_convert_help(help_all);
        code = 0;
    } else if ((work.input = poptGetArg(context)) == NULL) {
        error_print(WHO, "no input", "a file of rows would be right; see kvtile convert --help");
        code = 2;
    } else if (poptPeekArg(context) != NULL) {
        error_print(WHO, poptPeekArg(context), "one input would be right; see kvtile convert --help");
        code = 2;
    } else if (choose_job(&typed, &work) != 0) {
        code = 2;
    } else {
        code = run_conversion(&work);
    }
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        free(*values[i]);
    poptFreeContext(context);
    return code;
}
