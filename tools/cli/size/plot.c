/* SPDX-License-Identifier: MIT */
/* kvtile size --plot: gnuplot draws. Its script is our own words and numbers; names, which are anybody's, come as data on its standard input. */
#define _POSIX_C_SOURCE 200809L
#include "tools/cli/size/size.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/files/output.h"
#include "tools/files/text.h"

#define POINTS 64
#define GIB    1073741824.0

extern char **environ;

/* ---- what is drawn ---- */

static uint64_t last_context(const size_question *question, size_t model)
{
    uint64_t last = question->contexts[0];
    for (size_t i = 1; i < question->n_contexts; i++)
        last = last < question->contexts[i] ? question->contexts[i] : last;
    const uint64_t longest = question->models[model]->max_context;
    return longest && longest < last ? longest : last;
}

/* The head of a column. gnuplot ends a text at a quotation mark, takes a backslash before an n for the end of a line, and leaves out all titles when
 * one is too wide for the picture. */
static void write_title(FILE *data, const char *model, const char *k, const char *v)
{
    enum { WIDEST = 54 };
    char types[40], name[WIDEST];
    const int length = snprintf(types, sizeof types, "%.18s%s%.18s", k, strcmp(k, v) == 0 ? "" : "/", strcmp(k, v) == 0 ? "" : v);
    text_shown(name, sizeof name - (size_t)length, model);
    for (char *c = name; *c; c++)
        *c = *c == '"' ? '\'' : *c == '\\' ? '/' : *c;
    fprintf(data, "context\t%s %s\n", name, types);
}

/* The points of one line, which is a block of the data. Lines end where a model does. */
static int write_points(const size_question *question, size_t model, size_t type, FILE *data)
{
    const uint64_t last = last_context(question, model);
    write_title(data, question->models[model]->name, question->k_types[type], question->v_types[type]);
    for (uint64_t i = 0; i <= POINTS; i++) {
        size_answer answer;
        const uint64_t context = last / POINTS * i + last % POINTS * i / POINTS;
        const int code = size_answer_make(question, model, type, context, &answer);
        if (code)
            return code;
        fprintf(data, "%" PRIu64 "\t%.9g\n", context, (double)answer.total / GIB);
        size_answer_free(&answer);
    }
    fprintf(data, "\n\n");
    return 0;
}

static int write_data(const size_question *question, FILE *data)
{
    int code = 0;
    for (size_t i = 0; i < question->n_models * question->n_types && code == 0; i++)
        code = write_points(question, i / question->n_types, i % question->n_types, data);
    if (code == 0 && (fflush(data) != 0 || ferror(data) || fseek(data, 0, SEEK_SET) != 0)) {
        size_say("--plot", "the temporary file cannot be written: %s", strerror(errno));
        code = EXIT_FAILURE;
    }
    return code;
}

typedef struct script {
    char text[1600];
} script;

/* As wide as a phone held upright, letters of a size that can be read there. */
static script make_script(const size_question *question)
{
    script gp;
    char limit[200] = "";
    const size_t lines = question->n_models * question->n_types;
    const uint64_t budget = size_cache_budget(question, question->n_models == 1 ? 0 : SIZE_NO_MODEL);
    if (question->budget_given)
        snprintf(limit, sizeof limit, ", %.9g with lines lc 'black' lw 1 dt 1 title 'what fits: %s for the cache'", (double)budget / GIB,
                 number_binary(budget).text);
    snprintf(gp.text, sizeof gp.text,
             "set terminal svg size 720,%zu font 'sans-serif,22' dynamic background 'white' linewidth 2 noenhanced; "
             "set key outside bottom center vertical maxcols 1 Left reverse samplen 2 height 1; "
             "set grid lw 0.5; set xrange [0:*] noextend; set yrange [0:*]; set border 3; set tics nomirror; set lmargin 9; set offsets 0, 0, graph "
             "0.06, 0; "
             "set xlabel '%s, in 1024 tokens'; set ylabel 'memory, GiB'; "
             "set datafile separator \"\\t\"; set datafile commentschars ''; "
             "set title \"KV cache of %s sequence%s, %s\"; "
             "plot for [i=0:%zu] '/dev/stdin' index i using ($1/1024):2 with lines lc (i/%zu+1) dt 1+i%%%zu%%5 title columnhead(2)%s",
             760 + 32 * lines, question->request.engine == KVT_ENGINE_llama_cpp ? "context of all sequences" : "context of each sequence",
             number_grouped(question->request.sequences).text, question->request.sequences == 1 ? "" : "s", kvt_engine_name(question->request.engine),
             lines - 1, question->n_types, question->n_types, limit);
    return gp;
}

/* ---- gnuplot ---- */

/* What is different in the child: its descriptors, and that SIGXFSZ, which we ignore, ends it. 0 or an errno; both are destroyed in any case. */
static int set_up(posix_spawn_file_actions_t *files, posix_spawnattr_t *attributes, int in, const int out[2])
{
    sigset_t ignored;
    sigemptyset(&ignored);
    sigaddset(&ignored, SIGXFSZ);
    int why = posix_spawnattr_setsigdefault(attributes, &ignored);
    why = why ? why : posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF);
    why = why ? why : posix_spawn_file_actions_adddup2(files, in, STDIN_FILENO);
    why = why ? why : posix_spawn_file_actions_adddup2(files, out[1], STDOUT_FILENO);
    why = why ? why : posix_spawn_file_actions_addclose(files, out[0]);
    return why ? why : posix_spawn_file_actions_addclose(files, out[1]);
}

/* Starts gnuplot on the data; its picture comes out of *picture, its complaints go to our standard error. 0 or an errno. */
static int start_gnuplot(script *s, FILE *data, pid_t *child, int *picture)
{
    char name[] = "gnuplot", plain[] = "-d", execute[] = "-e";
    char *const arguments[] = { name, plain, execute, s->text, NULL };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    int out[2];
    if (pipe(out) != 0)
        return errno;
    int why = posix_spawn_file_actions_init(&files);
    if (why == 0) {
        why = posix_spawnattr_init(&attributes);
        if (why == 0) {
            why = set_up(&files, &attributes, fileno(data), out);
            why = why ? why : posix_spawnp(child, name, &files, &attributes, arguments, environ);
            posix_spawnattr_destroy(&attributes);
        }
        posix_spawn_file_actions_destroy(&files);
    }
    close(out[1]);
    *picture = out[0];
    if (why != 0)
        close(out[0]);
    return why;
}

static int copy_all(int from, FILE *to)
{
    char bytes[4096];
    ssize_t n;
    while ((n = read(from, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR)) {
        if (n > 0)
            fwrite(bytes, 1, (size_t)n, to); /* file_output_commit sees errors */
    }
    return n == 0 ? 0 : -1;
}

static int run_gnuplot(script *text, FILE *data, FILE *to)
{
    pid_t child;
    int picture = -1, status = 0;
    fflush(stdout);
    const int why = start_gnuplot(text, data, &child, &picture);
    if (why == ENOENT)
        size_say("--plot", "needs gnuplot, which is not installed: apt-get install gnuplot-nox");
    else if (why != 0)
        size_say("--plot", "gnuplot cannot be started: %s", strerror(why));
    if (why != 0)
        return EXIT_FAILURE;
    int code = copy_all(picture, to) == 0 ? 0 : EXIT_FAILURE;
    close(picture);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    code = WIFEXITED(status) && WEXITSTATUS(status) == 0 ? code : EXIT_FAILURE;
    if (code)
        size_say("--plot", "gnuplot failed");
    return code;
}

int size_plot(const size_question *question, const char *path)
{
    error_text error;
    file_output output;
    FILE *data = tmpfile();
    if (!data) {
        size_say("--plot", "no temporary file: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    int code = write_data(question, data);
    if (code == 0 && file_output_open(&output, path, &error) != 0) {
        size_say(path, "%s", error.text);
        code = EXIT_FAILURE;
    } else if (code == 0) {
        script gp = make_script(question);
        code = run_gnuplot(&gp, data, output.stream);
        if (code) {
            file_output_discard(&output);
        } else if (file_output_commit(&output, &error) != 0) {
            size_say(path, "%s", error.text);
            code = EXIT_FAILURE;
        }
    }
    fclose(data);
    return code;
}
