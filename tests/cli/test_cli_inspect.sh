#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile inspect as people call it.
# Usage: test_cli_inspect.sh JQ MAKER KVTILE [EMULATOR...]
set -eu
arguments=maker

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

"$@" "$maker" make "$work/chat.kvt"
run "$@" "$kvtile" inspect "$work/chat.kvt"
grep -q 'tokens 0 to 300, model 0000000000001234, ' "$work/stdout" || fail "head: $(cat "$work/stdout")"
grep -qx '      0       2      2  kv5  x 16    kv4  x 16        3      1     2  [0-9]*' "$work/stdout" || fail "group: $(cat "$work/stdout")"
grep -qx 'all checksums are right' "$work/stdout" || fail "checksums: $(cat "$work/stdout")"
run "$@" "$kvtile" inspect --json "$work/chat.kvt"
"$jq" -e '.tokens == 300 and .is_whole and .groups[0].k_scheme == "kv5" and .groups[0].pages == 3' "$work/stdout" >"$work/jq" ||
    fail "json: $(cat "$work/stdout")"

# The last byte belongs to a record.
cp "$work/chat.kvt" "$work/damaged.kvt"
printf 'x' | dd of="$work/damaged.kvt" bs=1 seek=$(($(wc -c <"$work/damaged.kvt") - 9000)) conv=notrunc 2>"$work/dd"
expect_error 1 "the record of" "$@" "$kvtile" inspect "$work/damaged.kvt"
printf 'x' | dd of="$work/damaged.kvt" bs=1 seek=100 conv=notrunc 2>"$work/dd"
expect_error 1 "the header is damaged" "$@" "$kvtile" inspect "$work/damaged.kvt"
expect_error 1 "no saved sequence" "$@" "$kvtile" inspect "$0"
expect_error 1 "missing.kvt" "$@" "$kvtile" inspect "$work/missing.kvt"
expect_error 2 "no file: one file would be right" "$@" "$kvtile" inspect
expect_error 2 "b: one file would be right" "$@" "$kvtile" inspect a b
expect_error 2 "--nosuch" "$@" "$kvtile" inspect --nosuch

finish
