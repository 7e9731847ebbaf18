/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE /* flock, MAP_ANONYMOUS, usleep */
#include "tests/store/trial.h"

#include "tools/store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(_WIN32)
#include <pthread.h>
#else
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#endif

enum { CHAINS = 64, DEEPEST = 8, LARGEST = 4096, BUDGET = 200000, PROCESSES = 16 };

/* What all processes see. */
typedef struct board {
    atomic_ullong done, hits, misses, puts, damaged, checks;
    atomic_bool wrong, over;
    char why[300]; /* of who set it first */
} board;

typedef struct worker {
    const trial *run;
    board *board;
    store *folder;
    uint64_t random;
} worker;

static uint64_t draw(uint64_t *random, uint64_t n)
{
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (*random >> 33) % n;
}

static bool fail(board *all, const char *what, const char *more)
{
    if (!atomic_exchange(&all->wrong, true))
        snprintf(all->why, sizeof all->why, "%.80s: %.200s", what, more);
    return false;
}

/* Chains of eight have their first two blocks in common. */
static void fill_ids(uint32_t *ids, uint32_t chain, uint32_t place)
{
    for (uint32_t i = 0; i < STORE_TOKENS; i++)
        ids[i] = ((place < 2 ? chain / 8 : 1000 + chain) * DEEPEST + place) * STORE_TOKENS + i;
}

/* What the block `key` has to be. */
static size_t fill_bytes(unsigned char *bytes, const store_key *key)
{
    uint64_t random;
    memcpy(&random, key->bytes, sizeof random);
    const size_t n = (size_t)draw(&random, LARGEST + 1);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)draw(&random, 256);
    return n;
}

/* Gets a chain as far as it is there, and keeps the rest. */
static bool use_chain(worker *w)
{
    unsigned char right[LARGEST];
    const uint32_t chain = (uint32_t)draw(&w->random, CHAINS), n = 1 + (uint32_t)draw(&w->random, DEEPEST);
    store_key keys[DEEPEST], previous = store_first_key("trial", 5);
    bool is_there = true;
    error_text error;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t ids[STORE_TOKENS];
        fill_ids(ids, chain, i);
        keys[i] = store_next_key(&previous, ids);
        const size_t bytes = fill_bytes(right, &keys[i]);
        if (is_there) {
            void *got;
            size_t n_got;
            const int found = store_get(w->folder, &previous, ids, &got, &n_got, &error);
            if (found < 0)
                return fail(w->board, "store_get", error.text);
            const bool is_right = found == 0 || (n_got == bytes && memcmp(got, right, bytes) == 0);
            if (found == 1)
                free(got);
            if (!is_right)
                return fail(w->board, "store_get", "a wrong block");
            atomic_fetch_add(found == 1 ? &w->board->hits : &w->board->misses, 1);
            is_there = found == 1;
        }
        if (!is_there) {
            if (store_put(w->folder, &previous, ids, right, bytes, &error) != 0)
                return fail(w->board, "store_put", error.text);
            atomic_fetch_add(&w->board->puts, 1);
        }
        atomic_fetch_add(&w->board->done, 1);
        previous = keys[i];
    }
    store_use(w->folder, keys, n);
    atomic_fetch_add(&w->board->done, 1);
    return true;
}

/* All that the folder holds, against its budget, while nobody writes. */
static bool check_folder(const char *path, board *all)
{
    char name[4096];
    snprintf(name, sizeof name, "%s/kvtile-store", path);
    const int lock = open(name, O_RDWR | O_CLOEXEC);
    if (lock < 0 || flock(lock, LOCK_EX) != 0)
        return fail(all, name, strerror(errno));
    uint64_t bytes = 0;
    DIR *folder = opendir(path);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        struct stat status;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        if (stat(name, &status) == 0 && S_ISREG(status.st_mode) && strcmp(entry->d_name, "kvtile-store") != 0)
            bytes += (uint64_t)status.st_size;
    }
    if (folder != NULL)
        closedir(folder);
    close(lock);
    atomic_fetch_add(&all->checks, 1);
    snprintf(name, sizeof name, "%" PRIu64 " bytes", bytes);
    return folder != NULL && bytes <= BUDGET ? true : fail(all, "budget", name);
}

/* Changes a byte of some block where it lies, or cuts it off. */
static void damage(worker *w)
{
    char name[4096];
    DIR *folder = opendir(w->run->folder);
    uint64_t skip = draw(&w->random, 64);
    for (const struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;)
        if (strstr(entry->d_name, ".block") != NULL && skip-- == 0) {
            snprintf(name, sizeof name, "%s/%s", w->run->folder, entry->d_name);
            const int file = open(name, O_RDWR | O_CLOEXEC);
            struct stat status;
            unsigned char byte;
            if (file >= 0 && fstat(file, &status) == 0) {
                const off_t at = (off_t)draw(&w->random, (uint64_t)status.st_size);
                if (draw(&w->random, 2) == 0 || pread(file, &byte, 1, at) != 1 ||
                    (byte ^= 1u << draw(&w->random, 8), pwrite(file, &byte, 1, at) != 1))
                    (void)!ftruncate(file, at);
                atomic_fetch_add(&w->board->damaged, 1);
            }
            if (file >= 0)
                close(file);
            break;
        }
    if (folder != NULL)
        closedir(folder);
}

static int see_block(void *owner, const store_block *block)
{
    board *all = owner;
    return block->bytes >= STORE_HEADER && block->bytes <= STORE_HEADER + LARGEST ? 0 : !fail(all, "store_walk", "a block's size");
}

static bool work_once(worker *w)
{
    error_text error;
    store_measure measure;
    uint64_t damaged = 0;
    switch (draw(&w->random, 40)) {
    case 0:
        store_close(w->folder);
        return store_open(&w->folder, w->run->folder, BUDGET, &error) == 0 || fail(w->board, "store_open", error.text);
    case 1:
        return (store_count(w->folder, &measure, &error) == 0 || fail(w->board, "store_count", error.text)) &&
               (measure.bytes <= BUDGET || fail(w->board, "store_count", "more than the budget"));
    case 2:
        return draw(&w->random, 8) != 0 || store_walk(w->folder, see_block, w->board, &damaged, &error) == 0 ||
               fail(w->board, "store_walk", error.text);
    case 3:
        return check_folder(w->run->folder, w->board);
    case 4:
        damage(w);
        return true;
    default:
        return use_chain(w);
    }
}

static void work(const trial *run, board *all, uint64_t seed)
{
    worker w = { .run = run, .board = all, .random = seed };
    error_text error;
    if (store_open(&w.folder, run->folder, BUDGET, &error) != 0)
        fail(all, "store_open", error.text);
    while (!atomic_load(&all->wrong) && !atomic_load(&all->over) && work_once(&w))
        atomic_fetch_add(&all->done, 1);
    store_close(w.folder);
}

static int finish(trial *run, board *all, char *why, size_t room)
{
    run->hits = atomic_load(&all->hits);
    run->misses = atomic_load(&all->misses);
    run->puts = atomic_load(&all->puts);
    run->damaged = atomic_load(&all->damaged);
    run->checks = atomic_load(&all->checks);
    run->operations = atomic_load(&all->done);
    snprintf(why, room, "%s", all->why);
    return atomic_load(&all->wrong) ? -1 : 0;
}

#if defined(_WIN32)

/* Without fork they are threads, each with the folder opened for itself, and nobody is killed. */
typedef struct seeded {
    const trial *run;
    board *all;
    uint64_t seed;
} seeded;

static void *work_seeded(void *argument)
{
    const seeded *w = argument;
    work(w->run, w->all, w->seed);
    return NULL;
}

int trial_run(trial *run, char *why, size_t room)
{
    board all = { .done = 0 };
    pthread_t threads[PROCESSES];
    seeded workers[PROCESSES];
    uint64_t random = run->seed * 2654435761u + 1;
    if (run->processes > PROCESSES)
        abort();
    run->kills = 0;
    for (unsigned i = 0; i < run->processes; i++) {
        workers[i] = (seeded){ run, &all, draw(&random, UINT64_MAX) };
        if (pthread_create(&threads[i], NULL, work_seeded, &workers[i]) != 0)
            abort();
    }
    while (!atomic_load(&all.wrong) && atomic_load(&all.done) < run->operations)
        usleep(1000);
    atomic_store(&all.over, true);
    for (unsigned i = 0; i < run->processes; i++)
        pthread_join(threads[i], NULL);
    return finish(run, &all, why, room);
}

#else

static pid_t start(const trial *run, board *all, uint64_t seed)
{
    const pid_t child = fork();
    if (child == 0) {
        work(run, all, seed);
        _exit(1); /* nobody ends but by being killed */
    }
    return child;
}

int trial_run(trial *run, char *why, size_t room)
{
    board *all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[PROCESSES];
    uint64_t random = run->seed * 2654435761u + 1, kills = 0;
    if (all == MAP_FAILED || run->processes > PROCESSES)
        abort();
    fflush(NULL);
    for (unsigned i = 0; i < run->processes; i++)
        children[i] = start(run, all, draw(&random, UINT64_MAX));
    while (!atomic_load(&all->wrong) && (kills < run->kills || atomic_load(&all->done) < run->operations)) {
        int status;
        const unsigned victim = (unsigned)draw(&random, run->processes);
        usleep((useconds_t)draw(&random, 20000));
        if (kills >= run->kills)
            continue;
        kill(children[victim], SIGKILL);
        if (waitpid(children[victim], &status, 0) != children[victim] || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail(all, "a process", "ended by itself");
        children[victim] = start(run, all, draw(&random, UINT64_MAX));
        kills++;
        /* Whoever was killed may have held the lock. The first one may have been killed before there was a folder. */
        if (access(run->folder, F_OK) == 0 && atomic_load(&all->done) != 0)
            check_folder(run->folder, all);
    }
    for (unsigned i = 0; i < run->processes; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    const int result = finish(run, all, why, room);
    munmap(all, sizeof *all);
    return result;
}

#endif
