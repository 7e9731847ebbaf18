#!/bin/sh
# SPDX-License-Identifier: MIT
# Runs the fuzzers of a build one after the other, or JOBS at a time, each for SECONDS, from the corpora here. New inputs go to a folder of their own.
#   cmake --preset dev-clang -DKVT_BUILD_FUZZERS=ON && cmake --build --preset dev-clang --target fuzzers
#   tests/fuzz/run.sh FOLDER [SECONDS [JOBS [TARGET...]]]     FOLDER: that of the fuzzers (build/dev-clang/bin); 60 seconds, 1 at a time, all of them
# Exit status 1 when something was found; what was is in FOLDER/findings, with the log of each run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "${1:?the folder of the fuzzers}" && pwd)
seconds=${2:-60}
jobs=${3:-1}
shift "$(($# < 3 ? $# : 3))"
findings=$folder/findings
mkdir -p "$findings"

[ $# -gt 0 ] || for fuzzer in "$folder"/fuzz_*; do
    set -- "$@" "${fuzzer##*/fuzz_}"
done

# Memory is bounded, so that a file of a few kilobytes that takes gigabytes is a finding; so is an input that takes more than 10 seconds.
run_one() {
    mkdir -p "$findings/corpus_$1"
    "$folder/fuzz_$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -close_fd_mask=3 -print_final_stats=1 \
        -artifact_prefix="$findings/$1-" "$findings/corpus_$1" "$here/corpus/$1" >"$findings/$1.log" 2>&1 || {
        echo "FOUND by $1: $findings/$1.log"
        return 1
    }
    echo "$1: $(sed -n 's/^stat::number_of_executed_units: *//p' "$findings/$1.log") inputs in $seconds seconds"
}

status=0
while [ $# -gt 0 ]; do
    started=
    i=0
    while [ $# -gt 0 ] && [ $i -lt "$jobs" ]; do
        run_one "$1" &
        started="$started $!"
        shift
        i=$((i + 1))
    done
    for process in $started; do
        wait "$process" || status=1
    done
done
exit $status
