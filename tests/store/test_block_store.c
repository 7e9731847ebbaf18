/* SPDX-License-Identifier: MIT */
/* A folder of blocks: what is kept comes back, or nothing does. */
#define _DEFAULT_SOURCE /* mkdtemp, usleep */
#include "tests/lib/support.h"
#include "tests/store/trial.h"
#include "tools/store/store.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#if !defined(_WIN32)
#include <sys/resource.h>
#endif

enum { BYTES = 1000 - STORE_HEADER, DEEP = 40 };

static char folder[64];
static store *opened;
static error_text error;
static store_key root, keys[DEEP];
static uint32_t ids[DEEP][STORE_TOKENS];

static void open_it(uint64_t budget)
{
    store_close(opened);
    ck_assert_msg(store_open(&opened, folder, budget, &error) == 0, "%s", error.text);
}

static void begin(void)
{
    strcpy(folder, "/tmp/kvt_store_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    root = store_first_key("model and layout", 16);
    for (size_t i = 0; i < DEEP; i++) {
        for (uint32_t t = 0; t < STORE_TOKENS; t++)
            ids[i][t] = (uint32_t)(i * 1000 + t);
        keys[i] = store_next_key(i > 0 ? &keys[i - 1] : &root, ids[i]);
    }
    open_it(1 << 20);
}
static void end(void)
{
    store_close(opened);
    opened = NULL;
    test_remove_folder(folder);
}

static const store_key *before(size_t i)
{
    return i > 0 ? &keys[i - 1] : &root;
}

static void fill(unsigned char *bytes, size_t i)
{
    for (size_t k = 0; k < BYTES; k++)
        bytes[k] = (unsigned char)(i * 31 + k * k);
}

static int put(size_t i)
{
    unsigned char bytes[BYTES];
    fill(bytes, i);
    return store_put(opened, before(i), ids[i], bytes, BYTES, &error);
}

static bool is_there(size_t i)
{
    unsigned char right[BYTES];
    void *bytes;
    size_t n;
    fill(right, i);
    const int found = store_get(opened, before(i), ids[i], &bytes, &n, &error);
    ck_assert_msg(found >= 0, "%s", error.text);
    if (found == 1) {
        ck_assert_uint_eq(n, BYTES);
        ck_assert_mem_eq(bytes, right, BYTES);
        free(bytes);
    }
    return found == 1;
}

static store_measure count(void)
{
    store_measure measure;
    ck_assert_int_eq(store_count(opened, &measure, &error), 0);
    return measure;
}

static const char *path_of(size_t i)
{
    static char path[128];
    char text[33];
    snprintf(path, sizeof path, "%s/%s.block", folder, store_key_text(&keys[i], text));
    return path;
}

START_TEST(blocks_come_back)
{
    ck_assert(!is_there(0));
    for (size_t i = 0; i < 5; i++)
        ck_assert_int_eq(put(i), 0);
    ck_assert_int_eq(put(2), 0);
    open_it(0);
    for (size_t i = 0; i < 6; i++)
        ck_assert_int_eq(is_there(i), i < 5);
    const store_measure m = count();
    ck_assert_uint_eq(m.blocks, 5);
    ck_assert_uint_eq(m.bytes, 5000);
    ck_assert_uint_eq(m.budget, 1 << 20);
    /* Other tokens before, or another model: not the same block. */
    void *bytes;
    size_t n;
    const store_key other = store_first_key("another model", 13);
    ck_assert_int_eq(store_get(opened, &other, ids[0], &bytes, &n, &error), 0);
    ck_assert_int_eq(store_get(opened, &root, ids[1], &bytes, &n, &error), 0);
    ck_assert(is_there(0));
}
END_TEST

/* Names of files: they are the same on every CPU and in every version. */
START_TEST(keys_stay)
{
    char text[33];
    ck_assert_str_eq(store_key_text(&root, text), "d9e4c3c4641a5ea9260bce78a8725357");
    ck_assert_str_eq(store_key_text(&keys[1], text), "3dfc812ad6e51b78ccc9c57c70a4af7b");
}
END_TEST

START_TEST(any_damage_is_seen)
{
    unsigned char bytes[STORE_HEADER + BYTES];
    for (size_t at = 0; at < sizeof bytes; at += at < STORE_HEADER ? 1 : 7) {
        ck_assert_int_eq(put(0), 0);
        const int file = open(path_of(0), O_RDWR);
        ck_assert_int_eq(pread(file, bytes, 1, (off_t)at), 1);
        bytes[0] ^= 1u << at % 8;
        ck_assert_int_eq(pwrite(file, bytes, 1, (off_t)at), 1);
        close(file);
        ck_assert_msg(!is_there(0), "a change of byte %zu is not seen", at);
        ck_assert_uint_eq(count().blocks, 0); /* it was removed */
    }
    for (size_t size = 0; size < sizeof bytes; size += 37) {
        ck_assert_int_eq(put(0), 0);
        ck_assert_int_eq(truncate(path_of(0), (off_t)size), 0);
        ck_assert(!is_there(0));
    }
    ck_assert_int_eq(put(0), 0);
    ck_assert_int_eq(put(1), 0);
    ck_assert(is_there(0) && is_there(1));
    /* A block under another's name. */
    char name[128];
    strcpy(name, path_of(1));
    ck_assert_int_eq(rename(path_of(0), name), 0);
    ck_assert(!is_there(0) && !is_there(1));
}
END_TEST

START_TEST(budget_and_order)
{
    open_it(20 * 1000);
    for (size_t i = 0; i < 20; i++)
        ck_assert_int_eq(put(i), 0);
    ck_assert_uint_eq(count().blocks, 20);
    ck_assert_uint_eq(count().bytes, 20000);
    store_use(opened, keys, 10); /* the last of them was used before the first */
    ck_assert_int_eq(put(20), 0);
    ck_assert_uint_le(count().bytes, 20000);
    for (size_t i = 0; i < 21; i++)
        ck_assert_int_eq(is_there(i), i < 10 || i >= 13); /* a sixteenth of the budget goes along */
    for (size_t i = 21; i < 31; i++)
        ck_assert_int_eq(put(i), 0);
    ck_assert(is_there(0) && is_there(5) && !is_there(19));
    open_it(3 * 1000);
    ck_assert_uint_le(count().blocks, 3);
    ck_assert(is_there(30));
    /* A chain loses its end first. */
    open_it(14 * 1000);
    for (size_t i = 0; i < 10; i++)
        ck_assert_int_eq(put(i), 0);
    store_use(opened, keys, 10);
    open_it(5400);
    for (size_t i = 0; i < 10; i++)
        ck_assert_int_eq(is_there(i), i < 5);
    unsigned char large[6000] = { 0 };
    ck_assert_int_eq(store_put(opened, &root, ids[1], large, sizeof large, &error), -1);
    ck_assert_str_eq(error.text, "a block of 6320 bytes: the budget is 5400");
    ck_assert(is_there(4));
}
END_TEST

#if !defined(_WIN32) /* where no limit makes writing fail */
START_TEST(no_room_on_the_disk)
{
    struct rlimit limit;
    ck_assert_int_eq(put(0), 0);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const struct rlimit small = { .rlim_cur = 500, .rlim_max = limit.rlim_max };
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    ck_assert_int_eq(put(1), -1);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ck_assert(is_there(0) && !is_there(1));
    ck_assert_uint_eq(count().bytes, 1000);
    ck_assert_int_eq(put(1), 0);
    ck_assert(is_there(1));
}
END_TEST
#endif

START_TEST(folders)
{
    store *other;
    char path[128];
    ck_assert_int_eq(store_open(&other, "/tmp/kvt_store_not/there", 0, &error), -1);
    ck_assert_str_eq(error.text, "cannot be made: No such file or directory");
    ck_assert_int_eq(store_open(&other, folder, 10, &error), -1);
    ck_assert_str_eq(error.text, "a budget of 10 bytes: at least 320 would be right");
    snprintf(path, sizeof path, "%s/inside", folder);
    ck_assert_int_eq(store_open(&other, path, 0, &error), 0); /* made */
    store_close(other);
    struct stat status;
    ck_assert_int_eq(stat(path, &status), 0);
#if !defined(_WIN32)
    ck_assert_int_eq(status.st_mode & 07777, 0700);
#endif
    snprintf(path, sizeof path, "%s/inside/kvtile-store", folder);
    ck_assert_int_eq(unlink(path), 0);
    snprintf(path, sizeof path, "%s/inside/letter.txt", folder);
    ck_assert_int_eq(close(open(path, O_CREAT | O_WRONLY, 0600)), 0);
    snprintf(path, sizeof path, "%s/inside", folder);
    ck_assert_int_eq(store_open(&other, path, 0, &error), -1);
    ck_assert_str_eq(error.text, "holds other files: an empty folder, a new one or a store would be right");
    /* What is no store's is left alone in one that is. */
    ck_assert_int_eq(put(0), 0);
    open_it(STORE_HEADER);
    ck_assert_int_eq(stat(path, &status), 0);
    ck_assert_uint_eq(count().blocks, 0);
}
END_TEST

static int note(void *owner, const store_block *block)
{
    size_t *n = owner;
    ck_assert_mem_eq(&block->key, &keys[*n], sizeof(store_key));
    ck_assert_mem_eq(&block->previous, before(*n), sizeof(store_key));
    ck_assert_mem_eq(block->ids, ids[*n], sizeof block->ids);
    ck_assert_uint_eq(block->bytes, 1000);
    ++*n;
    return 0;
}

START_TEST(a_walk_sees_all)
{
    size_t seen = 0;
    uint64_t damaged = 0;
    for (size_t i = 0; i < 10; i++)
        ck_assert_int_eq(put(i), 0);
    store_use(opened, keys, 10);
    ck_assert_int_eq(store_walk(opened, note, &seen, &damaged, &error), 0);
    ck_assert_uint_eq(seen, 10);
    ck_assert_uint_eq(damaged, 0);
    ck_assert_int_eq(truncate(path_of(9), 999), 0);
    seen = 0;
    ck_assert_int_eq(store_walk(opened, note, &seen, &damaged, &error), 0);
    ck_assert_uint_eq(seen, 9);
    ck_assert_uint_eq(damaged, 1);
    ck_assert_uint_eq(count().blocks, 9);
}
END_TEST

/* The state of a folder is lost, or a writer left a part and a wrong count. */
START_TEST(what_killed_writers_leave)
{
    char path[128];
    ck_assert_int_eq(put(0), 0);
    snprintf(path, sizeof path, "%s/kvtile-store.part", folder);
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_eq(write(file, "half of", 7), 7);
    close(file);
    ck_assert_int_eq(put(1), 0);
    ck_assert_int_eq(access(path, F_OK), -1);
    snprintf(path, sizeof path, "%s/kvtile-store", folder);
    for (off_t at = 0; at < 48; at++) {
        file = open(path, O_RDWR);
        ck_assert_int_eq(pwrite(file, "\xa5", 1, at), 1);
        close(file);
        ck_assert_int_eq(put(2), 0);
        ck_assert(is_there(0) && is_there(1) && is_there(2));
        ck_assert_int_eq(unlink(path_of(2)), 0);
    }
    ck_assert_uint_eq(count().bytes, 2000);
}
END_TEST

/* The short form of random_store. */
START_TEST(several_processes)
{
    char path[128], why[300];
    snprintf(path, sizeof path, "%s/shared", folder);
    trial run = { .folder = path, .operations = 8000 / KVT_TEST_SHARE, .kills = 60 / KVT_TEST_SHARE, .seed = 1, .processes = 4 };
    ck_assert_msg(trial_run(&run, why, sizeof why) == 0, "%s", why);
    ck_assert_uint_gt(run.hits, 0);
    ck_assert_uint_gt(run.puts, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("block_store");
    TCase *tests = tcase_create("store");
    tcase_add_checked_fixture(tests, begin, end);
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, blocks_come_back);
    tcase_add_test(tests, keys_stay);
    tcase_add_test(tests, any_damage_is_seen);
    tcase_add_test(tests, budget_and_order);
#if !defined(_WIN32)
    tcase_add_test(tests, no_room_on_the_disk);
#endif
    tcase_add_test(tests, folders);
    tcase_add_test(tests, a_walk_sees_all);
    tcase_add_test(tests, what_killed_writers_leave);
    tcase_add_test(tests, several_processes);
    suite_add_tcase(suite, tests);
    return test_run(suite);
}
