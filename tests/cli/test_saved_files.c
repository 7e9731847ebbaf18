/* SPDX-License-Identifier: MIT */
/* Saved sequences as files: whoever is killed, or has no room on the disk, leaves the old file or the new one.
 *   test_saved_files              the tests
 *   test_saved_files make PATH    writes a file, for test_cli_inspect.sh */
#define _DEFAULT_SOURCE /* mkdtemp, usleep */
#include "tests/lib/cache_home.h"
#include "tests/lib/support.h"
#include "tools/files/saved.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if !defined(_WIN32)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

enum { DIM = 16, HEADS = 2, TOKENS = 300 };

typedef cache_home home;

static void open_home(home *h, size_t tokens)
{
    kvt_spec spec = { .size = sizeof spec, .k_dim = DIM, .v_dim = DIM, .kv_heads = HEADS };
    kvt_cache_group group = { .open_dtype = KVT_F16, .layers = 2, .blocks = 8 };
    home_open(h, KVT_PRESET_BALANCED, &spec, &group, &(kvt_cache_spec){ .sequences = 1, .tokens = 512 });
    if (tokens)
        home_fill(h, tokens);
}

static int write_home(const home *h, const char *path, uint64_t model, error_text *error)
{
    const kvt_save save = { .size = sizeof save, .model = model };
    return saved_write(path, h->cache, h->id, &save, h->scratch, h->scratch_bytes, error);
}

static char folder[32], path[64];

static void begin(void)
{
    strcpy(folder, "/tmp/kvt_saved_XXXXXX"); /* under emulation all tests run in one process */
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/file", folder);
}
static void end(void)
{
    test_remove_folder(folder);
}

#if !defined(_WIN32) /* it has neither fork nor signals, nor limits and filters by which calls fail */
/* The file is whole; which model it is of. */
static uint64_t check_file(void)
{
    saved_file file;
    error_text error = { "" };
    char why[200];
    TEST_REQUIRE(saved_open(&file, path, &error) == 0, "%s", error.text);
    TEST_REQUIRE(kvt_saved_verify(&file.saved, file.map.size, why, sizeof why) == KVT_OK, "%s", why);
    const uint64_t model = file.saved.model;
    saved_close(&file);
    return model;
}

START_TEST(killed)
{
    begin();
    home h;
    error_text error;
    open_home(&h, TOKENS);
    ck_assert_int_eq(write_home(&h, path, 1, &error), 0);
    uint64_t state = 1, last = 1;
    size_t changed = 0;
    for (int i = 0; i < 1200 / KVT_TEST_SHARE; i++) {
        int begun[2];
        ck_assert_int_eq(pipe(begun), 0);
        const pid_t child = fork();
        if (child == 0) {
            (void)!write(begun[1], "", 1);
            for (uint64_t model = 2 + (uint64_t)i * 1000;; model++)
                if (write_home(&h, path, model, &error) != 0)
                    _exit(1);
        }
        char byte;
        ck_assert_int_eq(read(begun[0], &byte, 1), 1);
        usleep(test_below(&state, 8000));
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status));
        close(begun[0]), close(begun[1]);
        const uint64_t model = check_file();
        ck_assert(model == last || (model >= 2 + (uint64_t)i * 1000 && model < 2 + (uint64_t)(i + 1) * 1000));
        changed += model != last;
        last = model;
    }
    printf("killed %d times; %zu times there was a new file\n", 1200 / KVT_TEST_SHARE, changed);
    home_close(&h);
    end();
}
END_TEST

START_TEST(no_room)
{
    begin();
    home h;
    error_text error;
    open_home(&h, TOKENS);
    ck_assert_int_eq(write_home(&h, path, 1, &error), 0);
    struct stat before;
    ck_assert_int_eq(stat(path, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    uint64_t state = 2;
    for (int i = 0; i < 200; i++) { /* a short write, and then none */
        struct rlimit all, few;
        ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &all), 0);
        few = (struct rlimit){ test_below(&state, (uint32_t)before.st_size), all.rlim_max };
        /* Check writes into a file at each assertion, so there is none while the limit holds. */
        const int limited = setrlimit(RLIMIT_FSIZE, &few), result = write_home(&h, path, 2, &error), again = setrlimit(RLIMIT_FSIZE, &all);
        ck_assert_int_eq(limited, 0);
        ck_assert_int_eq(again, 0);
        ck_assert_int_eq(result, -1);
        ck_assert_str_ne(error.text, "");
        ck_assert_uint_eq(check_file(), 1);
    }
    if (access("/dev/full", W_OK) == 0) { /* ENOSPC */
        ck_assert_int_eq(write_home(&h, "/dev/full", 2, &error), -1);
        ck_assert_ptr_nonnull(strstr(error.text, strerror(ENOSPC)));
    }
    ck_assert_int_eq(write_home(&h, path, 3, &error), 0);
    ck_assert_uint_eq(check_file(), 3);
    home_close(&h);
    end();
}
END_TEST

/* System call `number` of this process gives EIO from now on, as that of a disk that fails; write only of what is opened later than the standard
 * streams. -1 where the system has no filters of calls. */
static int fail_with_eio(unsigned number)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_write, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 2, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = { sizeof code / sizeof *code, code };
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0 ? 0 : -1;
}

/* EIO of a write, of flushing to the disk, and of the renaming: the old file, and the reason. */
START_TEST(failing_disk)
{
    static const unsigned calls[] = { __NR_write, __NR_fsync,
#ifdef __NR_rename
                                      __NR_rename,
#endif
                                      __NR_renameat };
    enum { FAILED_RIGHT = 7, NO_FILTERS = 8 };
    begin();
    home h;
    error_text error;
    open_home(&h, TOKENS);
    ck_assert_int_eq(write_home(&h, path, 1, &error), 0);
    size_t failed = 0, renamed = 0;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        const pid_t child = fork();
        if (child == 0) {
            if (fail_with_eio(calls[i]) != 0)
                _exit(NO_FILTERS);
            const int result = write_home(&h, path, 2, &error);
            _exit(result == 0 ? 0 : result == -1 && strstr(error.text, strerror(EIO)) != NULL ? FAILED_RIGHT : 1);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFEXITED(status));
        if (WEXITSTATUS(status) == NO_FILTERS) { /* emulation has none */
            printf("EIO: not tried, as there are no filters of system calls here\n");
            break;
        }
        const bool is_renaming = i >= 2; /* by which of the calls is libc's affair */
        TEST_REQUIRE(WEXITSTATUS(status) == FAILED_RIGHT || (is_renaming && WEXITSTATUS(status) == 0), "system call %u: %d", calls[i],
                     WEXITSTATUS(status));
        failed += WEXITSTATUS(status) == FAILED_RIGHT;
        renamed += is_renaming && WEXITSTATUS(status) == FAILED_RIGHT;
        ck_assert_uint_eq(check_file(), WEXITSTATUS(status) == 0 ? 2 : 1);
        ck_assert_int_eq(write_home(&h, path, 1, &error), 0);
    }
    ck_assert(failed == 0 || renamed == 1);
    printf("EIO: %zu calls failed\n", failed);
    home_close(&h);
    end();
}
END_TEST

#endif

/* Through a file and back. */
START_TEST(there_and_back)
{
    begin();
    home h, other;
    error_text error = { "" };
    open_home(&h, TOKENS);
    open_home(&other, 0);
    ck_assert_int_eq(write_home(&h, path, 7, &error), 0);
    saved_file file;
    ck_assert_int_eq(saved_open(&file, path, &error), 0);
    ck_assert_int_eq(saved_load(&file, other.cache, other.id, 8, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "0000000000000008"));
    TEST_REQUIRE(saved_load(&file, other.cache, other.id, 7, &error) == 0, "%s", error.text);
    ck_assert_uint_eq(kvt_cache_tokens(other.cache, other.id), TOKENS);
    char again[80];
    snprintf(again, sizeof again, "%s.again", path);
    ck_assert_int_eq(write_home(&other, again, 7, &error), 0);
    saved_file twice;
    ck_assert_int_eq(saved_open(&twice, again, &error), 0);
    ck_assert_uint_eq(twice.map.size, file.map.size);
    ck_assert_mem_eq(twice.map.data, file.map.data, file.map.size);
    saved_close(&file), saved_close(&twice);
    /* Shorter, longer, and something else. */
    ck_assert_int_eq(truncate(path, 5000), 0);
    ck_assert_int_eq(saved_open(&file, path, &error), -1);
    FILE *longer = fopen(again, "ab");
    ck_assert(longer && fputc(0, longer) == 0 && fclose(longer) == 0);
    ck_assert_int_eq(saved_open(&file, again, &error), -1);
    ck_assert_ptr_nonnull(strstr(error.text, "would be right"));
    home_close(&h), home_close(&other);
    end();
}
END_TEST

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "make") == 0) {
        home h;
        error_text error;
        open_home(&h, TOKENS);
        const int result = write_home(&h, argv[2], 0x1234, &error);
        if (result != 0)
            fprintf(stderr, "%s\n", error.text);
        home_close(&h);
        return result != 0;
    }
    Suite *suite = suite_create("saved_files");
    TCase *tcase = tcase_create("saved_files");
    tcase_set_timeout(tcase, 600);
#if !defined(_WIN32)
    tcase_add_test(tcase, killed);
    tcase_add_test(tcase, no_room);
    tcase_add_test(tcase, failing_disk);
#endif
    tcase_add_test(tcase, there_and_back);
    suite_add_tcase(suite, tcase);
    return test_run(suite);
}
