#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile store as people call it.
# Usage: test_cli_store.sh JQ RANDOM_STORE KVTILE [EMULATOR...]
set -eu
arguments=maker

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

expect_error 1 "there is no such folder" "$@" "$kvtile" store "$work/blocks"
"$@" "$maker" "$work/blocks" 500 0 >"$work/made"
"$@" "$kvtile" store --verify "$work/blocks" >/dev/null || true # those that it damaged are gone now
run "$@" "$kvtile" store "$work/blocks"
grep -qx "$work/blocks: [0-9]* blocks of 64 tokens, [0-9]* bytes of a budget of 200000" "$work/stdout" || fail "text: $(cat "$work/stdout")"
run "$@" "$kvtile" store "$work/blocks" --json --list
expect_json '.blocks > 10 and .bytes <= .budget and .budget == 200000 and .damaged == 0 and (.list | length) == .blocks'
expect_json '([.list[].bytes] | add) == .bytes and (.list[0].key | length) == 32 and ([.list[].used] | . == (sort | reverse))'
run "$@" "$kvtile" store --list "$work/blocks"
grep -q '^[0-9a-f]\{32\} after [0-9a-f]\{32\}: [0-9]* bytes, used at [0-9]*$' "$work/stdout" || fail "list: $(cat "$work/stdout")"

block=$(find "$work/blocks" -name '*.block' | head -n 1)
printf 'damage' | dd of="$block" bs=1 seek=70 conv=notrunc 2>"$work/dd"
if "$@" "$kvtile" store "$work/blocks" --verify >"$work/stdout" 2>"$work/stderr"; then
    fail "a damaged block is no error"
fi
grep -q '; 1 were damaged, and are gone$' "$work/stdout" || fail "damage: $(cat "$work/stdout")"
[ ! -e "$block" ] || fail "the damaged block is still there"
run "$@" "$kvtile" store "$work/blocks" --verify

run "$@" "$kvtile" store --budget 20k --json "$work/blocks"
expect_json '.budget == 20480 and .bytes <= 20480 and .blocks > 0'
expect_error 2 '--budget: "12": a number of bytes' "$@" "$kvtile" store "$work/blocks" --budget 12
expect_error 2 '--budget: "much": a number of bytes' "$@" "$kvtile" store "$work/blocks" --budget much
expect_error 2 "no folder: one folder would be right" "$@" "$kvtile" store
expect_error 2 "b: one folder would be right" "$@" "$kvtile" store a b
expect_error 2 "--nosuch" "$@" "$kvtile" store --nosuch
expect_error 1 "holds other files" "$@" "$kvtile" store "$work"
expect_error 1 "Not a directory" "$@" "$kvtile" store "$work/made"

finish
