#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile-compare as people call it: that it measures and reports, not how fast anything is.
# Usage: test_cli_compare.sh JQ KVTILE_COMPARE LIBRARY
set -eu
jq=$1
compare=$2
library=$3

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

"$compare" --help | grep -q 'Examples:' || fail "no examples in the help"
run "$compare" --list --tier scalar --filter '^(append/f16|attend/f32)/.*/64/.*/l2$'
grep -q '^append/f16/v/scalar/64/bf16/plain/l2$' "$work/stdout" || fail "a case of append is not listed"
grep -q '^attend/f32/g4/scalar/64/fit/t2/l2$' "$work/stdout" || fail "a case of attend is not listed"
run "$compare" --list
for name in write/kv4/v append/q8_0/k read/kv8/v attend/kv6/g8 attend/kv4+kv8/g20 write/kv4+kv8/k; do
    [ "$(grep -cF "$name/" "$work/stdout")" -eq 2 ] || fail "$name is not among the usual cases, in L2 and in memory"
done

# A library beside itself, as a library and as a program; two cases, a conversion and attention.
filter='^(read/q8_0/k|attend/q8_0/g4)/[^/]+/64/(f32/plain|fit/t1)/l2$'
run "$compare" --filter "$filter" --openings 2 --rounds 3 --json "$library" "$compare"
expect_json '.cases == 2 and .failed == 0 and (.results | length) == 2 and has("above_limit") == false'
expect_json '.libraries[0].path != .libraries[1].path and .libraries[0].version == .libraries[1].version'
expect_json 'all(.results[]; .ratio > 0.05 and .ratio < 20 and .low <= .ratio and .ratio <= .high and .openings == 2)'
expect_json 'all(.results[] | (.old_seconds, .new_seconds); . > 1e-9 and . < 100)'
expect_json '[.results[].case] | map(split("/")[0]) == ["read", "attend"]'
expect_json '.worst == ([.results[].ratio] | max)'
expect_json '([.results[].ratio] | map(log) | add / 2 | exp) / .geometric_mean - 1 | fabs < 1e-9'

# A limit that every case is far above, and one that none is near.
if "$compare" --filter '^read/q8_0/k/[^/]+/64/f32/plain/l2$' --openings 2 --rounds 1 --limit 0.001 "$library" "$library" >"$work/stdout"; then
    fail "a ratio above the limit is no failure"
fi
grep -q '^1 above 0.001$' "$work/stdout" || fail "cases above the limit are not counted"
run "$compare" --filter '^read/q8_0/k/[^/]+/64/f32/plain/l2$' --openings 2 --rounds 1 --limit 1000 "$library" "$library"
grep -q '^0 above 1000.000$' "$work/stdout" || fail "no case is above 1000"

expect_error 2 "two builds would be right" "$compare" "$library"
expect_error 2 "two builds would be right" "$compare" "$library" "$library" "$library"
expect_error 2 "is none that this CPU has" "$compare" --tier vax "$library" "$library"
expect_error 2 "is none that this CPU has" "$compare" --tier=-scalar "$library" "$library"
expect_error 2 "no extended regular expression" "$compare" --filter '(' "$library" "$library"
expect_error 2 "fits no case" "$compare" --filter '^x' "$library" "$library"
expect_error 2 "2 to 1000 would be right" "$compare" --openings 1 "$library" "$library"
expect_error 2 "1 to 1000 would be right" "$compare" --rounds 5x "$library" "$library"
expect_error 2 "a ratio such as 1.03" "$compare" --limit nan "$library" "$library"
expect_error 2 "unknown option" "$compare" --fast "$library" "$library"
expect_error 1 "cannot be read: No such file" "$compare" "$work/none.so" "$library"
# Another library than kvtile, and another program than kvtile-compare.
libc=$(ldd "$compare" | awk '$1 ~ /^libm\.so/ { print $3 }')
expect_error 1 "was not loaded" "$compare" "$library" "$libc"
printf '#!/bin/sh\nexit 3\n' >"$work/other"
chmod +x "$work/other"
expect_error 1 "ended by exit status 3" "$compare" "$work/other" "$library"

finish
