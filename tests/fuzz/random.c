/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target on random inputs, with any compiler and sanitizer: `random_TARGET SECONDS [SEED]`, or `random_TARGET --inputs N` of seeds 1 .. N
 * as a test. A target aborts where it finds something; the seed is on stderr then. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "target.h"

enum { MOST_BYTES = 4096 };

static char last_input[48];

static void say_input(int number)
{
    (void)!write(STDERR_FILENO, last_input, strlen(last_input));
    signal(number, SIG_DFL);
    raise(number);
}

static uint64_t random_word(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static void try_input(uint64_t seed)
{
    static uint8_t bytes[MOST_BYTES];
    uint64_t state = seed;
    const size_t size = 64 + random_word(&state) % (MOST_BYTES - 64);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)random_word(&state);
    snprintf(last_input, sizeof last_input, "seed %" PRIu64 "\n", seed);
    uint8_t *exact = malloc(size);
    if (!exact)
        abort();
    memcpy(exact, bytes, size); /* a read beyond it is seen */
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

int main(int argc, char **argv)
{
    if (argc < 2 || LLVMFuzzerInitialize(&argc, &argv) != 0)
        return 1;
    signal(SIGABRT, say_input);
    signal(SIGSEGV, say_input);
    uint64_t seed = 1, n = 0;
    if (strcmp(argv[1], "--inputs") == 0 && argc == 3) {
        const uint64_t inputs = strtoull(argv[2], NULL, 10);
        for (; n < inputs; n++)
            try_input(seed + n);
    } else {
        const time_t end = time(NULL) + atol(argv[1]);
        seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
        for (; time(NULL) < end; n++)
            try_input(seed + n);
    }
    printf("%" PRIu64 " inputs from seed %" PRIu64 ", no finding\n", n, seed);
    return 0;
}
