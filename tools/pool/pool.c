/* SPDX-License-Identifier: MIT */
#define _POSIX_C_SOURCE 200809L
#include "tools/pool/pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* Work comes again within microseconds, and waking a thread takes tens of them: so look for some hundred microseconds before sleeping. */
enum { LOOKS = 10000 };

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

typedef struct thread {
    pool *threads;
    pthread_t id;
    unsigned worker;
} thread;

struct pool {
    unsigned workers;
    pool_work *work; /* of this round; NULL: stop */
    void *data;
    atomic_uint round;   /* changes when there is work */
    atomic_uint running; /* threads that are not done with it */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* round or running */
    thread list[];          /* workers 1 and up */
};

/* Waits while *number is, or is not, `value`. */
static void wait_while(pool *threads, atomic_uint *number, unsigned value, bool equal)
{
    for (int i = 0; i < LOOKS; i++) {
        if ((atomic_load(number) == value) != equal)
            return;
        relax();
    }
    pthread_mutex_lock(&threads->lock);
    while ((atomic_load(number) == value) == equal)
        pthread_cond_wait(&threads->changed, &threads->lock);
    pthread_mutex_unlock(&threads->lock);
}

/* Under the lock, so that nobody is between looking and sleeping. */
static void wake(pool *threads)
{
    pthread_mutex_lock(&threads->lock);
    pthread_cond_broadcast(&threads->changed);
    pthread_mutex_unlock(&threads->lock);
}

static void *serve(void *argument)
{
    const thread *self = argument;
    pool *threads = self->threads;
    for (unsigned round = 0;; round++) {
        wait_while(threads, &threads->round, round, true);
        if (threads->work == NULL)
            return NULL;
        threads->work(threads->data, self->worker, threads->workers);
        if (atomic_fetch_sub(&threads->running, 1) == 1)
            wake(threads);
    }
}

static void begin_round(pool *threads, pool_work *work, void *data)
{
    threads->work = work;
    threads->data = data;
    atomic_store(&threads->running, threads->workers - 1);
    atomic_fetch_add(&threads->round, 1);
    wake(threads);
}

pool *pool_open(unsigned workers)
{
    pool *threads = calloc(1, sizeof *threads + (workers - 1) * sizeof(thread));
    if (threads == NULL)
        return NULL;
    pthread_mutex_init(&threads->lock, NULL);
    pthread_cond_init(&threads->changed, NULL);
    for (threads->workers = 1; threads->workers < workers; threads->workers++) {
        thread *next = &threads->list[threads->workers - 1];
        *next = (thread){ .threads = threads, .worker = threads->workers };
        const int code = pthread_create(&next->id, NULL, serve, next);
        if (code != 0) {
            pool_close(threads);
            errno = code;
            return NULL;
        }
    }
    return threads;
}

void pool_close(pool *threads)
{
    if (threads == NULL)
        return;
    begin_round(threads, NULL, NULL);
    for (unsigned i = 0; i + 1 < threads->workers; i++)
        pthread_join(threads->list[i].id, NULL);
    pthread_cond_destroy(&threads->changed);
    pthread_mutex_destroy(&threads->lock);
    free(threads);
}

unsigned pool_workers(const pool *threads)
{
    return threads->workers;
}

void pool_run(pool *threads, pool_work *work, void *data)
{
    if (threads->workers > 1)
        begin_round(threads, work, data);
    work(data, 0, threads->workers);
    wait_while(threads, &threads->running, 0, false);
}
