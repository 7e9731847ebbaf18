#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile bench as people call it: that it measures and reports, not how fast anything is.
# Usage: test_cli_bench.sh JQ [EMULATOR...] KVTILE
set -eu
jq=$1
shift

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

run() { # without a word on stderr
    "$@" >"$work/stdout" 2>"$work/stderr" || fail "exit code $?: $*: $(cat "$work/stderr")"
    [ ! -s "$work/stderr" ] || fail "stderr: $*: $(cat "$work/stderr")"
}

if ! "$@" bench --help >"$work/help" 2>"$work/stderr"; then
    expect_error 1 "built without them" "$@" bench
    [ "$failures" -eq 0 ] || exit 1
    [ "${KVT_PART:-}" != memory ] || needs "benchmarks in this kvtile"
    echo "built without benchmarks; it says so"
    exit 0
fi
grep -q 'Examples:' "$work/help" || fail "no examples in the help"

# A walk through memory takes about six times the last-level cache: a test of its own.
if [ "${KVT_PART:-}" = memory ]; then
    run "$@" bench --quick --schemes q8_0 --ops read --side k --json
    last_level=$("$jq" .caches.last_level "$work/stdout")
    if [ "$last_level" -gt $((64 << 20)) ]; then
        echo "skipped: the last-level cache has $last_level bytes, and six times as much would be walked through"
        exit 77
    fi
    run "$@" bench --quick --schemes q8_0 --ops read --side k --where memory --json
    expect_json '(.results | length == 1) and .results[0].where == "memory" and .results[0].working_set >= 3 * .caches.last_level'
    run "$@" bench --quick --schemes kv4 --ops attend --where memory --tokens 100 --kv-heads 3 --json
    expect_json '(.results | length == 1) and (.results[0] | .tokens == 100 and .kv_heads == 3 and .working_set >= 3 * 1048576)'
    finish
    exit
fi

run "$@" bench --quick --schemes q8_0 --ops write,read,append,import,export --json
expect_json '(.version | test("^[0-9]+\\.[0-9]+\\.[0-9]+$")) and (.cpu | length > 0) and (.date | test("^20..-..-..T")) and (.tiers | length > 0)'
expect_json '.caches | .l2 > 0 and .last_level >= .l2'
expect_json '[.results[] | [.op, .side]] == [["write", "k"], ["write", "v"], ["read", "k"], ["read", "v"], ["append", "k"], ["append", "v"], ["import", "k"], ["import", "v"], ["export", "k"], ["export", "v"]]'
expect_json 'all(.results[]; .scheme == "q8_0" and .where == "l2" and .head_dim == 128 and .dtype == "f32" and .rotation == "none")'
positive='. > 0 and . < 1e9'
expect_json "all(.results[] | (.elements_per_ns, .gbps_in, .gbps_out, .floor_ratio, .memcpy_ratio, .working_set); $positive)"
expect_json 'all(.results[]; .samples >= 3)'
best=$("$@" info | awk '$1 == "q8_0" { print $2 }')
expect_json "([.results[].tier] | unique) == [\"$best\"]"
# 128 elements in are 512 bytes, and 136 out.
expect_json 'all(.results[] | select(.op == "read") | .gbps_out / .gbps_in * 136 / 512; . > 0.999 and . < 1.001)'
expect_json 'all(.results[] | select(.op == "write" or .op == "append") | .gbps_in / .elements_per_ns; . > 3.999 and . < 4.001)'
# As ggml keeps it too.
expect_json 'all(.results[] | select(.op == "import" or .op == "export") | .gbps_in / .gbps_out; . > 0.999 and . < 1.001)'
expect_json "([.results[] | select(.bulk_ratio) | .op] | unique) == [\"append\"] and all(.results[] | .bulk_ratio // 1; $positive)"
expect_json "[.results[] | select(.cells_ratio) | .op + .side] == [\"appendk\"] and all(.results[] | .cells_ratio // 1; $positive)"

# Everything that chooses what is measured.
run "$@" bench --quick --schemes f16,q4_0 --ops read --side v --tier scalar --head-dim 64,80 --where l2 --dtype bf16 --json
expect_json '[.results[] | [.scheme, .head_dim]] == [["f16", 64], ["f16", 80], ["q4_0", 64], ["q4_0", 80]]'
expect_json 'all(.results[]; .op == "read" and .side == "v" and .tier == "scalar" and .dtype == "bf16")'
run "$@" bench --quick --schemes kv4 --side k --rotation 64 --centring own --json
expect_json '([.results[].op] | unique | index("append") == null and index("write") != null) and all(.results[]; .centring == "own")'
expect_error 2 "other --ops would be right" "$@" bench --schemes kv4 --ops write,append --centring own
run "$@" bench --quick --schemes q8_0 --ops append --side k --tier all --rotation 64 --centring page --json
expect_json '.tiers == [.results[].tier] and all(.results[]; .rotation == "64" and .centring == "page")'

run "$@" bench --quick --schemes e4m3,kv4 --ops import --side v --fp8-block 32 --fp8-scale e8m0 --json
expect_json '[.results[] | [.scheme, .fp8_block, .fp8_scale]] == [["e4m3", "32", "e8m0"]]'

# A decode step: 2 sides of 136 bytes per token and head. Nothing of it is beside f16 tiles where it is of f16, nor beside rows of odd widths.
run "$@" bench --quick --schemes q8_0,f16 --ops attend --where l2 --group 1,3 --threads 1,2 --json
expect_json '[.results[] | [.scheme, .group, .threads, .kv_heads]] == [["q8_0", 1, 1, 1], ["q8_0", 1, 2, 2], ["q8_0", 3, 1, 1], ["q8_0", 3, 2, 2], ["f16", 1, 1, 1], ["f16", 1, 2, 2], ["f16", 3, 1, 1], ["f16", 3, 2, 2]]'
expect_json "all(.results[] | (.microseconds, .gbps_stored, .read_share, .working_set, .tokens); $positive)"
expect_json "all(.results[] | .reference_speedup // 1; $positive) and all(.results[] | .multiply_share // 1; $positive)"
expect_json 'all(.results[] | select(.multiply_share); .limit == if .read_share >= .multiply_share then "read" else "multiply" end)'
expect_json 'all(.results[]; (.f16_speedup != null) == (.scheme == "q8_0") and .op == "attend" and .side == null and .samples >= 3)'
expect_json 'all(.results[] | select(.scheme == "q8_0"); .working_set == .tokens * .kv_heads * 272)'
expect_json 'all(.results[]; .gbps_stored * .microseconds * 1000 / .working_set | . > 0.999 and . < 1.001)'
run "$@" bench --quick --schemes kv6 --rope kv8 --ops attend --where l2 --json
expect_json '.results | length == 1'
expect_json '.results[0] | .rope_scheme == "kv8" and .head_dim == 512 and .group == 20 and .kv_heads == 1 and .microseconds > 0 and .reference_speedup == null'
run "$@" bench --quick --schemes kv8 --rope bf16 --ops write --where l2 --dtype bf16 --json
expect_json '.results | length == 1 and (.[0] | .rope_scheme == "bf16" and .side == "k" and .elements_per_ns > 0 and .bulk_ratio > 0)'
expect_error 2 '"kv9" is no scheme' "$@" bench --ops attend --rope kv9
expect_error 2 '--ops write,attend would be right' "$@" bench --rope kv8
run "$@" bench --quick --schemes kv4 --ops attend --tier scalar --where l2 --head-dim 72 --rotation 64 --json
expect_json '(.results | length == 1) and .results[0].reference_speedup == null and .results[0].multiply_share == null'
run "$@" bench --quick --schemes kv4 --ops attend --where l2
grep -q '^op  *scheme  *us  *GB/s  *read  *f16$' "$work/stdout" || fail "no heading"
tail -n 1 "$work/stdout" | grep -q "attention reads kv4 at [0-9.]* GB/s, [0-9.]* times as fast as f16$" || fail "no line to share"
[ "$(grep -c '^attend *kv4' "$work/stdout")" -eq 1 ] || fail "not 1 row"

run "$@" bench --quick --schemes q8_0 --ops write
grep -q '^op  *scheme side  *elem/ns  *floor  *memcpy$' "$work/stdout" || fail "no heading"
[ "$(grep -c '^write *q8_0' "$work/stdout")" -eq 2 ] || fail "not 2 rows"
if tail -n +3 "$work/stdout" | grep -q '.\{41\}'; then fail "the rough look is wider than 40 columns"; fi

# Several groups need the wide table.
run "$@" bench --quick --schemes kv4 --ops write,attend --group 1,2 --where l2
grep -q '^op .*us *GB/s *read multiply *f16 *plain' "$work/stdout" || fail "no heading"
[ "$(grep -c '^attend *kv4' "$work/stdout")" -eq 2 ] || fail "not 2 rows"
# The limit that binds has a star, and JSON names it.
if grep '^attend' "$work/stdout" | grep -v scalar | grep -qv '[0-9]\* \|[0-9]\*$'; then fail "no limit has a star: $(cat "$work/stdout")"; fi
run "$@" bench --quick --schemes q8_0 --ops write --head-dim 64,128
grep -q '^op .*elem/ns.*floor.*memcpy' "$work/stdout" || fail "no heading"
if tail -n +5 "$work/stdout" | grep -q '.\{101\}'; then fail "the table is wider than 100 columns"; fi

# Two runs beside each other: the same file is as fast as itself, twice the time is half the speed, and what lies within the noise is called so.
run "$@" bench --quick --schemes q8_0,f16 --ops write,attend --json
cp "$work/stdout" "$work/a.json"
expect_json 'all(.results[]; .noise >= 0)'
"$jq" '.results |= map(.noise = 0.01)' "$work/a.json" >"$work/b.json"
"$jq" '.results |= map(if .op == "write" and .side == "k" then .elements_per_ns *= 2 elif .op == "attend" then .gbps_stored /= 1.5
    else .elements_per_ns *= 1.005 end)' "$work/b.json" >"$work/c.json"
run "$@" bench --compare "$work/b.json" "$work/c.json" --json
expect_json '.cases == 6 and .faster == 2 and .slower == 2 and (.median_speedup | . > 1 and . < 1.01)'
expect_json 'all(.results[]; .verdict == (if .op == "attend" then "slower" elif .side == "k" then "faster" else "noise" end))'
expect_json 'all(.results[] | select(.op == "attend"); .speedup | . > 0.666 and . < 0.667)'
run "$@" bench --compare "$work/a.json" "$work/a.json"
grep -q '^6 cases: 0 faster, 0 slower,$' "$work/stdout" || fail "a file differs from itself: $(cat "$work/stdout")"
if tail -n +5 "$work/stdout" | grep -q '.\{41\}'; then fail "the comparison is wider than 40 columns"; fi
"$jq" 'del(.results[].noise)' "$work/a.json" >"$work/old.json"
run "$@" bench --compare "$work/old.json" "$work/a.json" --json
expect_json 'all(.results[]; .verdict == "unknown" and .noise == null)'
echo '{ "cpu": "none", "results": [] }' >"$work/empty.json"
echo '[]' >"$work/array.json"
expect_error 1 'it has no results' "$@" bench --compare "$work/a.json" "$work/array.json"
expect_error 1 'unable to open' "$@" bench --compare "$work/none.json" "$work/a.json"
expect_error 1 'no case in common' "$@" bench --compare "$work/a.json" "$work/empty.json"
expect_error 2 'two files would be right' "$@" bench --compare "$work/a.json"

# A page that ranks machines. The faster is first, texts of files are texts of the page, and nothing in it is a script.
"$jq" '.cpu = "<script>alert(1)</script> & \"x\"" | .results |= [{ op: "attend", scheme: "kv4", gbps_stored: 4, noise: 0.01, tier: "a" }]' "$work/a.json" >"$work/slow.json"
"$jq" '.cpu = "the fast one" | .results[0].gbps_stored = 8 | .results[0].tier = "b"' "$work/slow.json" >"$work/fast.json"
run "$@" bench --rank "$work/slow.json" "$work/fast.json"
grep -q '<td>1</td><td>the fast one<small>b, ' "$work/stdout" || fail "the faster machine is not the first"
grep -q '<td>2</td><td>&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;x&quot;<small>' "$work/stdout" || fail "a text is not escaped"
grep -q '<td>0.5 <meter value="0.5000"' "$work/stdout" || fail "half as fast is not 0.5"
if grep -qi '<script' "$work/stdout"; then
    fail "a text became a script"
fi
expect_error 2 'two files or more would be right' "$@" bench --rank "$work/a.json"
expect_error 1 'no case of attention in common' "$@" bench --rank "$work/slow.json" "$work/empty.json"
expect_error 1 'unable to open' "$@" bench --rank "$work/slow.json" "$work/none.json"

expect_error 2 '"q9" is no scheme' "$@" bench --schemes q8_0,q9
expect_error 2 '"" is no scheme' "$@" bench --schemes ""
expect_error 2 '1 to 128 would be right' "$@" bench --group 129
expect_error 2 '1 to 1073741824 would be right' "$@" bench --tokens none
expect_error 2 '1 to 256 would be right' "$@" bench --threads 0
expect_error 2 '1 to 1024 would be right' "$@" bench --kv-heads -3
expect_error 2 'write, read, append, import, export or attend would be right' "$@" bench --ops reed
expect_error 2 'kvtile info lists them' "$@" bench --tier nosuch
expect_error 2 '1 to 1024 would be right' "$@" bench --head-dim 0
expect_error 2 '1 to 1024 would be right' "$@" bench --head-dim 128x
expect_error 2 'both, k or v would be right' "$@" bench --side x
expect_error 2 'both, l2 or memory would be right' "$@" bench --where l3
expect_error 2 'f32, f16 or bf16 would be right' "$@" bench --dtype f64
expect_error 2 'none, 64 or 128 would be right' "$@" bench --rotation 32
expect_error 2 'row, 32, 64 or 128 would be right' "$@" bench --fp8-block 16
expect_error 2 'f32 or e8m0 would be right' "$@" bench --fp8-scale f16
expect_error 2 'has these options' "$@" bench --schemes q8_0 --effort best
expect_error 2 '--nosuch' "$@" bench --nosuch
expect_error 2 'surplus' "$@" bench surplus

finish
