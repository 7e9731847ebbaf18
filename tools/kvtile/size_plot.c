/* kvtile size --plot: gnuplot draws, from a script that goes to its standard input; its standard output is the picture. */
#define _POSIX_C_SOURCE 200809L
#include "tools/kvtile/size.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/io/file.h"

#define POINTS 64

/* In a string of a gnuplot script. */
static void write_quoted(FILE *script, const char *text)
{
    fputc('"', script);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', script);
        fputc(*text, script);
    }
    fputc('"', script);
}

static uint64_t last_context(const size_question *question, size_t model)
{
    uint64_t last = question->contexts[0];
    for (size_t i = 1; i < question->n_contexts; i++)
        last = last < question->contexts[i] ? question->contexts[i] : last;
    const uint64_t longest = question->models[model]->max_context;
    return longest && longest < last ? longest : last;
}

/* The points of one line. Lines end where a model does. */
static int write_points(const size_question *question, size_t model, size_t type, FILE *script)
{
    const uint64_t last = last_context(question, model);
    fprintf(script, "$line%zu << END\n", model * question->n_types + type);
    for (uint64_t i = 0; i <= POINTS; i++) {
        size_answer answer;
        const uint64_t context = last / POINTS * i + last % POINTS * i / POINTS;
        const int code = size_answer_make(question, model, type, context, &answer);
        if (code)
            return code;
        fprintf(script, "%" PRIu64 " %.9g\n", context, (double)answer.report.total_bytes / 1048576);
        size_answer_free(&answer);
    }
    fprintf(script, "END\n");
    return 0;
}

static int write_script(const size_question *question, FILE *script)
{
    const size_t lines = question->n_models * question->n_types;
    for (size_t i = 0; i < lines; i++) {
        const int code = write_points(question, i / question->n_types, i % question->n_types, script);
        if (code)
            return code;
    }

    /* As wide as a phone held upright, letters of a size that can be read there. */
    fprintf(script, "set terminal svg size 720,%zu font 'sans-serif,22' dynamic background 'white' linewidth 2 noenhanced\n", 740 + 32 * lines);
    fprintf(script, "set key outside bottom center vertical maxcols 1 Left reverse samplen 2\n"
                    "set grid lw 0.5\nset xrange [0:*]\nset yrange [0:*]\nset border 3\nset tics nomirror\nset title ");
    char title[200];
    snprintf(title, sizeof title, "KV cache of %s sequence%s, %s", number_grouped(question->request.sequences).text,
             question->request.sequences == 1 ? "" : "s", kvt_engine_name(question->request.engine));
    write_quoted(script, title);
    fprintf(script, " . \"\\nMiB, against context in 1024 tokens\"");
    fprintf(script, "\nplot ");
    for (size_t i = 0; i < lines; i++) {
        const size_t type = i % question->n_types;
        const char *k = question->k_types[type], *v = question->v_types[type];
        snprintf(title, sizeof title, "%s %s%s%s", question->models[i / question->n_types]->name, k, strcmp(k, v) == 0 ? "" : "/",
                 strcmp(k, v) == 0 ? "" : v);
        fprintf(script, "%s$line%zu using ($1/1024):2 with lines lc %zu dt %zu title ", i ? ", " : "", i, i / question->n_types + 1, type % 5 + 1);
        write_quoted(script, title);
    }
    if (question->budget_given) {
        snprintf(title, sizeof title, "%s for the cache", number_binary(size_cache_budget(question)).text);
        fprintf(script, ", %.9g with lines lc 'black' lw 0.7 title ", (double)size_cache_budget(question) / 1048576);
        write_quoted(script, title);
    }
    fprintf(script, "\n");
    return 0;
}

/* Runs gnuplot from one file to another; its complaints go to our standard error. */
static int run_gnuplot(FILE *script, FILE *picture)
{
    fflush(stdout);
    const pid_t child = fork();
    if (child < 0) {
        size_say("--plot", "gnuplot cannot be started: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    if (child == 0) {
        if (dup2(fileno(script), STDIN_FILENO) >= 0 && dup2(fileno(picture), STDOUT_FILENO) >= 0)
            execlp("gnuplot", "gnuplot", (char *)NULL);
        _exit(127);
    }
    int status;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR)
            return EXIT_FAILURE;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        size_say("--plot", "needs gnuplot, which is not installed: apt-get install gnuplot-nox");
    else
        size_say("--plot", "gnuplot failed");
    return EXIT_FAILURE;
}

int size_plot(const size_question *question, const char *path)
{
    error_text error;
    file_output output;
    FILE *script = tmpfile();
    if (!script) {
        size_say("--plot", "no temporary file: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    int code = write_script(question, script);
    if (code == 0 && (fflush(script) != 0 || ferror(script) || fseek(script, 0, SEEK_SET) != 0)) {
        size_say("--plot", "the temporary file cannot be written");
        code = EXIT_FAILURE;
    }
    if (code == 0 && file_output_open(&output, path, &error) != 0) {
        size_say(path, "%s", error.text);
        code = EXIT_FAILURE;
    } else if (code == 0) {
        code = run_gnuplot(script, output.stream);
        if (code) {
            file_output_discard(&output);
        } else if (file_output_commit(&output, &error) != 0) {
            size_say(path, "%s", error.text);
            code = EXIT_FAILURE;
        }
    }
    fclose(script);
    return code;
}
