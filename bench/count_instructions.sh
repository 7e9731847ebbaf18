#!/bin/sh
# SPDX-License-Identifier: MIT
# Instructions per element of the kernels, one page of 64 tokens at a time: for tiers whose CPU is not at hand, and free of noise.
#   bench/count_instructions.sh [--against OLD] [BIN [REGEX]]
#     BIN    where kvtile-count was built (default: build/release/bin); programs for 64-bit ARM run under qemu-aarch64-static
#     REGEX  which cases of `kvtile-count --list` (default: f32 rows of 128 channels, all but the scalar tier)
#     OLD    where another build's kvtile-count is: the table has its counts too, and the ratios of BIN's to them
#   for example: bench/count_instructions.sh build/arm64/bin '(write|read)/q8_0/k/.*/128/f32/plain'
#                bench/count_instructions.sh --against ../old/build/arm64/bin build/arm64/bin
#
# Natively, every instruction is stepped over by ptrace. Under qemu (whose static build takes no plugins), -singlestep makes every instruction a block of
# its own and the log has a line for each that is executed.
set -eu
old=""
if [ "${1:-}" = --against ]; then
    old=${2:?"--against: where the other build's kvtile-count is would be right"}
    shift 2
fi
new=${1:-build/release/bin}
regex=${2:-/(avx|neon|sve)[^/]*/128/f32/plain\$}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Reads "CASE ELEMENTS INSTRUCTIONS".
per_element() {
    awk '{ printf "%-48s %10.3f\n", $1, $3 / $2 }'
}

# emulated COUNT CPU TIER: the cases of that tier on that emulated CPU.
emulated() {
    QEMU_CPU=$2
    export QEMU_CPU
    qemu-aarch64-static "$1" --list | grep -E -- "$regex" | grep "/$3/" >"$work/cases" || return 0
    # The cases are words. qemu's log is on stderr, the program's lines on stdout.
    # shellcheck disable=SC2046
    qemu-aarch64-static -singlestep -d exec,nochain,strace "$1" --marked $(cat "$work/cases") 2>&1 >"$work/elements" |
        awk '/^Trace/ { n++ }
             / getppid\(/ { if (++mark % 3 == 2) none = n; if (mark % 3 == 0) print n - none; n = 0 }' >"$work/instructions"
    paste -d ' ' "$work/elements" "$work/instructions" | per_element
}

# count_all BIN: a line for each case.
count_all() {
    if "$1/kvtile-count" --help >"$work/help" 2>&1; then
        "$1/kvtile-count" --list | grep -E -- "$regex" >"$work/cases" || { echo "no case fits $regex" >&2; exit 1; }
        # shellcheck disable=SC2046
        "$1/kvtile-count" $(cat "$work/cases") | per_element
    else
        emulated "$1/kvtile-count" cortex-a53 neon
        emulated "$1/kvtile-count" neoverse-n1 neondot
        emulated "$1/kvtile-count" max,sve=off neoni8mm
        emulated "$1/kvtile-count" max,sve256=on,sve-default-vector-length=32 sve256
        emulated "$1/kvtile-count" max,sve512=on,sve-default-vector-length=64 sve512
    fi
}

if [ -z "$old" ]; then
    printf '%-48s %10s\n' "case" "instr/elem"
    count_all "$new"
    exit 0
fi
count_all "$old" >"$work/old"
count_all "$new" >"$work/new"
awk 'BEGIN { printf "%-48s %10s %10s %7s\n", "case", "old", "new", "ratio" }
     FNR == NR { old[$1] = $2; next }
     !($1 in old) { printf "%-48s %10s %10.3f\n", $1, "-", $2; next }
     { ratio = $2 / old[$1]
       printf "%-48s %10.3f %10.3f %7.3f\n", $1, old[$1], $2, ratio
       n++; sum += log(ratio)
       if (ratio > worst) { worst = ratio; at = $1 } }
     END { if (n == 0) { print "no case is in both" >"/dev/stderr"; exit 1 }
           printf "%d cases: geometric mean %.3f; worst %.3f, %s\n", n, exp(sum / n), worst, at }' "$work/old" "$work/new"
