/* SPDX-License-Identifier: MIT */
/* The long form of test_block_store's trial.
 *   random_store FOLDER [OPERATIONS [KILLS [SEED]]]    an empty folder, or one that is not there; 100000 operations and 1000 kills */
#include "tests/store/trial.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 5) {
        fprintf(stderr, "usage: random_store FOLDER [OPERATIONS [KILLS [SEED]]]\n");
        return 2;
    }
    trial run = { .folder = argv[1],
                  .operations = argc > 2 ? strtoull(argv[2], NULL, 10) : 100000,
                  .kills = argc > 3 ? strtoull(argv[3], NULL, 10) : 1000,
                  .seed = argc > 4 ? strtoull(argv[4], NULL, 10) : 1,
                  .processes = 4 };
    char why[300];
    const int result = trial_run(&run, why, sizeof why);
    printf("%" PRIu64 " operations by %u processes, of which %" PRIu64 " were killed: %" PRIu64 " blocks found, %" PRIu64 " not, %" PRIu64
           " kept, %" PRIu64 " damaged, budget checked %" PRIu64 " times\n",
           run.operations, run.processes, run.kills, run.hits, run.misses, run.puts, run.damaged, run.checks);
    if (result != 0)
        fprintf(stderr, "random_store: %s\n", why);
    return result == 0 ? 0 : 1;
}
