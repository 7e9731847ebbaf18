#!/bin/sh
# Instructions per element of the kernels, one page of 64 tokens at a time: for tiers whose CPU is not at hand, and free of noise.
#   bench/count_instructions.sh [BIN [REGEX]]
#     BIN    where kvtile-count was built (default: build/release/bin); programs for 64-bit ARM run under qemu-aarch64-static
#     REGEX  which cases of `kvtile-count --list` (default: f32 rows of 128 channels, all but the scalar tier)
#   for example: bench/count_instructions.sh build/arm64/bin '(write|read)/q8_0/k/.*/128/f32/plain'
#
# Natively, every instruction is stepped over by ptrace. Under qemu (whose static build takes no plugins), -singlestep makes every instruction a block of
# its own and the log has a line for each that is executed.
set -eu
bin=${1:-build/release/bin}
regex=${2:-/(avx|neon|sve)[^/]*/128/f32/plain\$}
count=$bin/kvtile-count
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Reads "CASE ELEMENTS INSTRUCTIONS".
table() {
    awk '{ printf "%-48s %10.3f\n", $1, $3 / $2 }'
}

# emulated CPU TIER: the cases of that tier on that emulated CPU.
emulated() {
    QEMU_CPU=$1
    export QEMU_CPU
    qemu-aarch64-static "$count" --list | grep -E -- "$regex" | grep "/$2/" >"$work/cases" || return 0
    # The cases are words. qemu's log is on stderr, the program's lines on stdout.
    # shellcheck disable=SC2046
    qemu-aarch64-static -singlestep -d exec,nochain,strace "$count" --marked $(cat "$work/cases") 2>&1 >"$work/elements" |
        awk '/^Trace/ { n++ }
             / getppid\(/ { if (++mark % 3 == 2) none = n; if (mark % 3 == 0) print n - none; n = 0 }' >"$work/instructions"
    paste -d ' ' "$work/elements" "$work/instructions" | table
}

printf '%-48s %10s\n' "case" "instr/elem"
if "$count" --help >"$work/help" 2>&1; then
    "$count" --list | grep -E -- "$regex" >"$work/cases" || { echo "no case fits $regex" >&2; exit 1; }
    # shellcheck disable=SC2046
    "$count" $(cat "$work/cases") | table
else
    emulated cortex-a53 neon
    emulated neoverse-n1 neondot
    emulated max,sve256=on,sve-default-vector-length=32 sve256
    emulated max,sve512=on,sve-default-vector-length=64 sve512
fi
