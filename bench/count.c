/* SPDX-License-Identifier: MIT */
/* kvtile-count: how many instructions a case takes, of one page (64 tokens); of attend, of four.
 *
 * The work is done between marks, first none of it and then all, and the difference is what it takes. Natively a mark is a SIGSTOP of a child that is
 * traced and stepped instruction by instruction. Under user-mode qemu, which has no ptrace, it is a system call that count_instructions.sh finds in
 * qemu's log of every instruction. */
#define _GNU_SOURCE
#include "bench/decode.h"
#include "bench/workload.h"
#include "tools/files/error.h"
#include "tools/program/program.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static const char WHO[] = "kvtile-count";

static const char HELP[] =
    "Usage: kvtile-count [--marked] CASE...\n"
    "       kvtile-count --list\n"
    "Prints \"CASE ELEMENTS INSTRUCTIONS\" of one page of 64 tokens; of attend, of 256 tokens of K and V.\n"
    "\n"
    "  --list    all cases of this CPU, as kvtile-bench names them, without where\n"
    "  --marked  prints no INSTRUCTIONS: calls getppid() before and after no work, and after the work, for who counts outside\n"
    "\n"
    "Example:\n"
    "  kvtile-count write/q8_0/k/avx2/128/f32/plain\n"
    "bench/count_instructions.sh makes a table of many, natively or under qemu.\n";

static workload work;
static decode step;
static bool is_decode; /* what is open */

static kvt_status run_once(void)
{
    return is_decode ? decode_run_ours(&step) : workload_run_ours(&work);
}

static size_t elements(void)
{
    return is_decode ? decode_cells(&step) : workload_elements(&work);
}

static int open_counted(const bench_cases *all, const char *name)
{
    machine none = { .l2_bytes = 0 };
    for (size_t i = 0; i < all->n; i++) {
        char other[BENCH_NAME_ROOM];
        bench_case_name(&all->cases[i], other);
        char *where = strrchr(other, '/');
        *where = '\0';
        if (all->cases[i].where != BENCH_L2 || strcmp(name, other) != 0)
            continue;
        is_decode = all->cases[i].op == BENCH_ATTEND;
        const int status =
            is_decode ? decode_open(&step, &all->cases[i], &none, WORKLOAD_TINY) : workload_open(&work, &all->cases[i], &none, WORKLOAD_TINY);
        if (status != 0)
            error_print(WHO, name, is_decode ? step.error : work.error);
        return status;
    }
    error_print(WHO, name, "no such case on this CPU; kvtile-count --list has them");
    return -1;
}

/* ---- natively ---- */

/* Steps `child` to its next stop by SIGSTOP, from one. Returns instructions, or -1. */
static long long count_steps(pid_t child)
{
    long long n = 0;
    for (;;) {
        int status;
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
            return -1;
        if (WSTOPSIG(status) == SIGSTOP)
            return n;
        n++;
    }
}

/* The work between marks. */
static kvt_status run_marked(void (*mark)(void))
{
    const kvt_status status = run_once(); /* binds what is bound late */
    mark();
    mark();
    const kvt_status again = run_once();
    mark();
    return status != KVT_OK ? status : again;
}

static void mark_by_signal(void)
{
    kill(getpid(), SIGSTOP);
}

static void mark_by_call(void)
{
    (void)getppid();
}

static long long count_traced(void)
{
    const pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(1);
        _exit(run_marked(mark_by_signal) != KVT_OK);
    }
    int status;
    long long n = -1;
    if (child > 0 && waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
        const long long none = count_steps(child);
        const long long some = none >= 0 ? count_steps(child) : -1;
        n = some >= 0 ? some - none : -1;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    return n;
}

static int count_cases(const bench_cases *all, int n, char **names, bool marked)
{
    for (int i = 0; i < n; i++) {
        if (open_counted(all, names[i]) != 0)
            return 2;
        if (marked && run_marked(mark_by_call) == KVT_OK) {
            printf("%s %zu\n", names[i], elements());
            continue;
        }
        const long long instructions = marked ? -1 : count_traced();
        if (instructions < 0) {
            error_print(WHO, names[i], marked ? "fails" : "this system does not let a program be traced");
            return 1;
        }
        printf("%s %zu %lld\n", names[i], elements(), instructions);
        fflush(stdout);
    }
    return 0;
}

static void list_cases(const bench_cases *all)
{
    for (size_t i = 0; i < all->n; i++) {
        char name[BENCH_NAME_ROOM];
        bench_case_name(&all->cases[i], name);
        if (all->cases[i].where == BENCH_L2)
            printf("%.*s\n", (int)(strrchr(name, '/') - name), name);
    }
}

int main(int argc, char **argv)
{
    program_start("kvtile-count");
    const bool marked = argc > 1 && strcmp(argv[1], "--marked") == 0;
    bench_cases all = { 0 };
    int code = 0;
    if (bench_cases_add_all(&all) != 0) {
        error_print(WHO, "cases", "out of memory");
        code = 1;
    } else if (argc < 2 + marked) {
        error_print(WHO, "no case", "at least one would be right; see kvtile-count --help");
        code = 2;
    } else if (strcmp(argv[1], "--help") == 0) {
        fputs(HELP, stdout);
    } else if (strcmp(argv[1], "--list") == 0) {
        list_cases(&all);
    } else {
        code = count_cases(&all, argc - 1 - marked, argv + 1 + marked, marked);
    }
    workload_close(&work);
    decode_close(&step);
    free(all.cases);
    return code;
}
