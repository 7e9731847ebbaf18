/* SPDX-License-Identifier: MIT */
/* kvtile eval --report: the page of tools/cli/eval/report, with the numbers in it. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/eval/page.h"

#include "tools/cli/eval/eval.h"
#include "tools/files/output.h"
#include "tools/program/program.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what it shows ---- */

json_t *eval_page_begin(const char *kind, int n_arguments, const char **arguments)
{
    json_t *words = json_array();
    for (int i = 0; i < n_arguments; i++)
        json_array_append_new(words, json_text(arguments[i]));
    return json_pack("{s:s, s:s, s:o, s:[], s:[]}", "kvtile", kvt_version(), "kind", kind, "arguments", words, "inputs", "results");
}

void eval_page_add_input(json_t *document, const char *name, const char *kind, const rows_tensor *tensor)
{
    json_t *input = json_object();
    json_object_set_new(input, "name", json_text(name));
    json_object_set_new(input, "kind", json_string(kind));
    json_object_set_new(input, "dtype", json_string(rows_dtype_name(tensor->dtype)));
    json_object_set_new(input, "heads", json_integer((json_int_t)tensor->heads));
    json_object_set_new(input, "tokens", json_integer((json_int_t)tensor->tokens));
    json_object_set_new(input, "dim", json_integer((json_int_t)tensor->dim));
    json_array_append_new(json_object_get(document, "inputs"), input);
}

#ifdef KVT_HAVE_PAGE

/* Made at build time: the page before its numbers, and after them. */
extern const unsigned char eval_page_head[], eval_page_tail[];
extern const size_t eval_page_head_bytes, eval_page_tail_bytes;

/* ---- where it goes ---- */

static const char BEGINNING[] = "<!doctype html>";

/* Nothing, an empty file, an older page, or what is no file at all. */
static int check_place(const char *path, error_text *error)
{
    struct stat is;
    char text[sizeof BEGINNING] = "";
    if (stat(path, &is) != 0 || !S_ISREG(is.st_mode))
        return 0; /* what is wrong with it is found when it is opened for writing */
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = file >= 0 ? read(file, text, sizeof text - 1) : -1;
    const int why = errno;
    if (file >= 0)
        close(file);
    if (n < 0)
        return error_set(error, "cannot be looked at: %s", strerror(why));
    return n == 0 || strcmp(text, BEGINNING) == 0 ? 0 : error_set(error, "is there and is no page, so it stays: another name would be right");
}

int eval_page_check(const char *path, error_text *error)
{
    if (strcmp(path, "-") == 0)
        return isatty(STDOUT_FILENO) ? error_set(error, "would be the terminal: a file, or a pipe, would be right") : 0;
    return check_place(path, error) == 0 && file_output_check(path, error) == 0 ? 0 : -1;
}

/* ---- writing ---- */

/* -1 when there is no memory; what the stream makes of it is seen when it is closed. */
static int write_page(json_t *document, FILE *stream)
{
    fwrite(eval_page_head, 1, eval_page_head_bytes, stream);
    const int status = json_print_in_page(document, stream, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fwrite(eval_page_tail, 1, eval_page_tail_bytes, stream);
    return status != 0 && !ferror(stream) ? -1 : 0;
}

int eval_page_write(const char *path, json_t *document, error_text *error)
{
    file_output output;
    if (strcmp(path, "-") == 0)
        return write_page(document, stdout) == 0 ? 0 : error_set(error, "cannot be written: out of memory");
    if (check_place(path, error) != 0 || file_output_open(&output, path, error) != 0)
        return -1;
    /* A value that there was no memory for is missing in the document, which then is no page. */
    if (!program_out_of_memory() && write_page(document, output.stream) == 0)
        return file_output_commit(&output, error);
    file_output_discard(&output);
    return error_set(error, "cannot be written: out of memory");
}

#else

int eval_page_check(const char *path, error_text *error)
{
    (void)path;
    return error_set(error, "needs Chart.js, which was not there when kvtile was built: apt-get install libjs-chart.js, and build again");
}

int eval_page_write(const char *path, json_t *document, error_text *error)
{
    (void)document;
    return eval_page_check(path, error);
}

#endif
