/* SPDX-License-Identifier: MIT */
/* How deep a stack gets: a function runs on one that is painted, and the paint that is gone is counted. Whoever includes this defines
 * _XOPEN_SOURCE 700 first. */
#ifndef KVT_TESTS_PAINTED_STACK_H
#define KVT_TESTS_PAINTED_STACK_H

#include "support.h"

#include <pthread.h>
#include <string.h>

/* Sanitizers use stack of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(undefined_behavior_sanitizer) ||                            \
    __has_feature(memory_sanitizer)
#define IS_SANITIZED 1
#endif
#endif

/* Bytes of `stack`, which is aligned to a page, that `run` and its thread took; run(of) returns NULL. */
static inline size_t painted_stack_depth(unsigned char *stack, size_t bytes, void *(*run)(void *), void *argument)
{
    enum { PAINT = 0x5a };
    memset(stack, PAINT, bytes);
    pthread_attr_t attributes;
    pthread_t thread;
    TEST_REQUIRE(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, bytes) == 0, "pthread_attr_setstack");
    TEST_REQUIRE(pthread_create(&thread, &attributes, run, argument) == 0 && pthread_join(thread, NULL) == 0, "pthread_create");
    pthread_attr_destroy(&attributes);
    size_t untouched = 0;
    while (stack[untouched] == PAINT)
        untouched++;
    return bytes - untouched;
}

#endif
