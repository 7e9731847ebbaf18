#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile-engine generate --store: a prompt's beginning comes out of a folder of blocks, and the text is the same.
# Usage: test_cli_prefix.sh DEMO ENGINE KVTILE [EMULATOR...]
set -eu
demo=$1
engine=$2
kvtile=$3
shift 3

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/../cli/cli.sh"

# generate TEXT ARGUMENT...: what the model says is in $work/stdout.
generate() {
    text=$1
    shift
    # shellcheck disable=SC2086
    run $emulator "$engine" generate --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$text" --tokens 8 "$@"
}
# counts TAKEN PROMPT NEW: what the last call said of its blocks.
counts() {
    grep -q "^$1 of $2 tokens of the prompt were there, $3 blocks are new" "$work/stderr" || fail "not $*: $(cat "$work/stderr")"
}
emulator=$*

head -c 700 "$demo/chesterton-brown.txt" >"$work/short"
head -c 1000 "$demo/chesterton-brown.txt" >"$work/long"
for way in "--preset balanced" "--scheme f16" "--scheme kv4 --centring sequence" "--preset tight --threads 2"; do
    folder="$work/blocks"
    # shellcheck disable=SC2086
    generate "$work/long" $way
    cp "$work/stdout" "$work/right"
    # shellcheck disable=SC2086
    generate "$work/short" $way --store "$folder"
    n_short=$(sed -n 's/^0 of \([0-9]*\) tokens.*/\1/p' "$work/stderr")
    counts 0 "$n_short" $(((n_short - 1) / 64))
    # shellcheck disable=SC2086
    generate "$work/long" $way --store "$folder"
    cmp "$work/stdout" "$work/right" || fail "$way: another text with a part of the blocks"
    n_long=$(sed -n 's/^[0-9]* of \([0-9]*\) tokens.*/\1/p' "$work/stderr")
    new=$(sed -n 's/.*there, \([0-9]*\) blocks are new.*/\1/p' "$work/stderr")
    [ "$new" -gt 0 ] || fail "$way: no new blocks"
    # shellcheck disable=SC2086
    generate "$work/long" $way --store "$folder"
    counts $(((n_long - 1) / 64 * 64)) "$n_long" 0
    cmp "$work/stdout" "$work/right" || fail "$way: another text with all blocks"
done
# Each way of storing has blocks of its own; a damaged block is computed again.
run "$@" "$kvtile" store "$folder" --verify
for block in "$folder"/*.block; do
    printf 'damage' | dd of="$block" bs=1 seek=1000 conv=notrunc 2>"$work/dd"
done
generate "$work/long" --preset tight --store "$folder"
counts 0 "$n_long" $(((n_long - 1) / 64))
cmp "$work/stdout" "$work/right" || fail "another text with damaged blocks"
# A budget that holds two blocks or three.
run "$@" "$kvtile" store "$folder" --budget 120k
generate "$work/long" --preset tight --store "$folder"
cmp "$work/stdout" "$work/right" || fail "another text with a small budget"
run "$@" "$kvtile" store "$folder" --verify

expect_error 2 '--store: "x": --resume is given too' "$@" "$engine" generate --model m --resume y --store x --prompt z
expect_error 2 '--store: "x": the reference has no such cache' "$@" "$engine" generate --model m --reference --store x --prompt z
expect_error 2 '--store: "x": perplexity has no such option' "$@" "$engine" perplexity --model m --text t --store x
expect_error 1 'short: ' "$@" "$engine" generate --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --prompt x --tokens 1 \
    --store "$work/short"

finish
