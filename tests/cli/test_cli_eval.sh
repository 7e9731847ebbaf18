#!/bin/sh
# SPDX-License-Identifier: MIT
# kvtile eval, kvtile info and kvtile-engine as people call them.
# Usage: test_cli_eval.sh JQ SHARED DEMO ENGINE KVTILE [EMULATOR...]
set -eu
jq=$1
shared=$2
demo=$3
engine=$4
kvtile=$5
shift 5

# shellcheck source=tests/cli/cli.sh
. "$(dirname "$0")/cli.sh"

# ---- the dumps of a larger model, which are not in the tree: a test of its own
if [ "${KVT_PART:-}" = data ]; then
    needs "$shared/data/qwen3.5-0.8b-kv"
    run "$@" "$kvtile" eval "$shared"/data/qwen3.5-0.8b-kv/*.bin --schemes bf16 --rotation none --json
    expect_json 'length == 4 and all(.[]; .heads == 2 and .tokens == 99 and .dim == 256 and .max_abs_error == 0)'
    expect_json '[.[] | select(.side == "v") | .input] | unique | all(.[]; test("values")) and length == 2'
    finish
    exit
fi

zeros() { head -c "$1" /dev/zero; }

# ---- real keys and values
run "$@" "$engine" capture --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" \
    --tokens 100 --out "$work/cap"
[ "$(find "$work/cap" -type f | wc -l)" -eq 12 ] || fail "not 12 files"
[ "$(wc -c <"$work/cap/layer3_values.qvkt")" -eq $((20 + 2 * 100 * 64 * 4)) ] || fail "size of a captured file"

both="$work/cap/layer0_keys.qvkt $work/cap/layer0_values.qvkt"
six=f32,f16,bf16,q8_0,e4m3,q4_0
# shellcheck disable=SC2086
run "$@" "$kvtile" eval $both --schemes $six --rotation none --json
[ ! -s "$work/stderr" ] || fail "stderr: $(cat "$work/stderr")"
expect_json 'length == 12 and all(.[]; .heads == 2 and .tokens == 100 and .dim == 64 and .padded_dim == 64 and .nonfinite == 0 and .lost == 0)'
expect_json 'all(.[]; .rotation == "none" and .centring == "none" and .write_gbps > 0 and .read_gbps > 0)'
expect_json '[.[].side] == [range(12) | if . < 6 then "k" else "v" end]'
expect_json 'map(select(.side == "k")) | map({(.scheme): .bytes_per_token}) | add == {f32: 512, f16: 256, bf16: 256, q8_0: 136, e4m3: 136, q4_0: 72}'
expect_json 'all(.[]; .page_bytes * .heads == 64 * .bytes_per_token and .pair_bits_per_element == .bits_per_element)'
expect_json 'map(select(.side == "v")) | map({(.scheme): .bits_per_element}) | add == {f32: 32, f16: 16, bf16: 16, q8_0: 8.5, e4m3: 8.5, q4_0: 4.5}'
expect_json 'all(.[] | select(.scheme == "f32"); .snr_db == null and .centred_snr_db == null and .max_abs_error == 0)'
expect_json 'all(.[] | select(.scheme != "f32"); .snr_db > .centred_snr_db and .max_abs_error > 0)'
# About 6 dB per bit: what rounding to each grid costs, within what the distribution of the rows can change.
expect_json 'all(.[] | select(.scheme == "f16"); .snr_db > 70 and .snr_db < 80)'
expect_json 'all(.[] | select(.scheme == "bf16"); .snr_db > 50 and .snr_db < 60)'
expect_json 'all(.[] | select(.scheme == "q8_0"); .snr_db > 38 and .snr_db < 50)'
expect_json 'all(.[] | select(.scheme == "e4m3"); .snr_db > 28 and .snr_db < 36)'
expect_json 'all(.[] | select(.scheme == "q4_0"); .snr_db > 15 and .snr_db < 26)'
cp "$work/stdout" "$work/all.json"

# All tiers give the same numbers.
# shellcheck disable=SC2086
run "$@" "$kvtile" eval $both --schemes $six --rotation none --json --no-speed --tier scalar
timeless='[.[] | del(.write_gbps, .read_gbps)]'
[ "$("$jq" -cS "$timeless" "$work/stdout")" = "$("$jq" -cS "$timeless" "$work/all.json")" ] || fail "--tier scalar differs"

# Every scheme, plain and with both rotation and centring; the largest first, of equal size the most accurate ("exact" is the most).
run "$@" "$kvtile" info --json
"$jq" -c '.tiers | keys' "$work/stdout" >"$work/schemes"
keys="$work/cap/layer0_keys.qvkt"
run "$@" "$kvtile" eval "$keys" --json --no-speed
sorted='map([-.bits_per_element, if .max_abs_error == 0 then -1000 else -.snr_db end]) | . == sort'
expect_json "$sorted"
expect_json 'all(.[]; .write_gbps == null and .read_gbps == null)'
for pair in '"none" and .centring == "none"' '"64" and .centring == "page"'; do
    [ "$("$jq" -c "map(select(.rotation == $pair) | .scheme) | sort" "$work/stdout")" = "$(cat "$work/schemes")" ] || fail "not all schemes: $pair"
done
expect_json 'length == 28 and all(.[]; (.effort == "default") == (.scheme | test("^kv[2-6]")) and (.fp8_block == "row") == (.scheme | test("^e.m")))'
# docs/formats.md: rows, and a centre of 64 + 2 * 2 bytes that takes two lines in a page of its own, and with another one three.
expect_json 'map(select(.rotation == "none") | {(.scheme): .bits_per_element}) | add | .kv8 == 8.25 and .kv6 == 6.25 and .kv5 == 5.25 and .kv4 == 4.25
    and .kv4h == 4.5 and .kv3 == 3.25 and .kv2 == 2.25'
expect_json 'map(select(.rotation == "64") | {(.scheme): [.bits_per_element, .pair_bits_per_element, .page_bytes]}) | add
    | .kv4 == [4.5, 4.4375, 2304] and .q8_0 == [8.75, 8.6875, 4480]'
# What each scheme costs: about 6 dB per bit, and the kv schemes give more for as many bits.
expect_json 'map(select(.rotation == "64") | {(.scheme): .snr_db}) | add
    | .kv8 > .kv6 + 6 and .kv6 > .kv5 + 4 and .kv5 > .kv4 + 4 and .kv4h > .kv4 and .kv4 > .q4_0 and .kv4 > .kv3 + 4 and .kv3 > .kv2 + 4 and .kv6 > .e4m3
    and .e4m3 > .e5m2 + 4'
cp "$work/stdout" "$work/plain.json"

# Lists, in any order, with words given twice: every combination once.
run "$@" "$kvtile" eval "$keys" --json --no-speed --schemes kv4,q4_0,kv4 --rotation 64,none --centring all --effort best,all
expect_json "$sorted"
expect_json 'length == 2 * 4 * (3 + 1) and (map([.scheme, .rotation, .centring, .effort]) | unique | length) == length'
expect_json 'map(select(.rotation == "64" and .centring == "page" and .scheme == "kv4") | {(.effort): .snr_db}) | add
    | .best > .default and .default > .fast + 0.3'
expect_json 'map(select(.effort == "default") | {(.rotation + .centring): .snr_db}) | add
    | .["64own"] > .["64page"] and .noneown > .nonepage and .none64 != .nonenone and .["64none"] != .nonenone and .nonepage > .nonenone and .["64page"] > .["64none"]'
# 100 tokens are two pages: the first has no centre, and the second that of the first, page by page or of the sequence.
expect_json 'group_by([.scheme, .rotation, .effort]) | all(.[]; map({(.centring): .snr_db}) | add | .sequence == .page and .none != .page)'
"$jq" -S 'map(select(.scheme == "kv4" and .rotation == "64" and .centring == "page" and .effort == "default"))' "$work/stdout" >"$work/a"
"$jq" -S 'map(select(.scheme == "kv4" and .rotation == "64"))' "$work/plain.json" >"$work/b"
cmp "$work/a" "$work/b" || fail "one combination differs in other company"
# Of 64 channels, blocks of 128 are blocks of 64, which are the row.
run "$@" "$kvtile" eval "$keys" --json --no-speed --schemes e4m3,kv5 --rotation 64,128 --fp8-block all --fp8-scale f32,e8m0
expect_json 'map(select(.scheme == "kv5")) | length == 1 and .[0].rotation == "64" and .[0].centring == "none"'
expect_json 'map(select(.scheme == "e4m3") | {("\(.fp8_block) \(.fp8_scale)"): .bits_per_element}) | add
    == {"row f32": 8.5, "row e8m0": 8.125, "32 f32": 9, "32 e8m0": 8.25}'
run "$@" "$kvtile" eval "$keys" --json --no-speed --schemes e4m3,kv5 --rotation 128 --fp8-block 128
expect_json '[.[] | [.scheme, .rotation, .fp8_block]] == [["e4m3", "128", "128"], ["kv5", "128", null]]'

# Tokens that are measured; the others are stored all the same. The second page has a centre.
run "$@" "$kvtile" eval "$keys" --json --no-speed --schemes kv4 --rotation 64 --centring none,page --from 64
expect_json 'map({(.centring): .snr_db}) | add | .page > .none'
expect_json 'all(.[]; .from == 64)'
# Token 0 has no part in what is centred: without it, the same.
{
    head -c 20 "$keys"
    for head in 0 1; do
        zeros 256
        tail -c +$((21 + head * 25600 + 256)) "$keys" | head -c $((25600 - 256))
    done
} >"$work/first_k.qvkt"
run "$@" "$kvtile" eval "$work/first_k.qvkt" "$keys" --json --no-speed --schemes kv4 --rotation none --side k
expect_json '.[0].snr_db != .[1].snr_db and .[0].centred_snr_db == .[1].centred_snr_db'
expect_error 1 "--from 100 leaves none" "$@" "$kvtile" eval "$keys" --from 100
expect_error 2 "for --from" "$@" "$kvtile" eval "$keys" --from -1

# However many tokens there are, they pass through memory in blocks: a page 257 times over is like it once, and its last page has the centre of the one
# before.
tail -c +21 "$keys" | head -c 16384 >"$work/once_k.raw"
cat "$work/once_k.raw" "$work/once_k.raw" "$work/once_k.raw" >"$work/thrice_k.raw"
i=0
while [ $i -lt 257 ]; do
    cat "$work/once_k.raw"
    i=$((i + 1))
done >"$work/often_k.raw"
blocks="--json --no-speed --dtype f32 --rotation 64"
for n in 1,once 257,often; do
    # shellcheck disable=SC2086
    run "$@" "$kvtile" eval "$work/${n#*,}_k.raw" --shape "$((${n%,*} * 64)),64" $blocks --schemes kv4,q4_0,kvarn4_g64 --centring none,own
    "$jq" -S 'map([.scheme, .centring, (.snr_db * 1e6 | round), .max_abs_error])' "$work/stdout" >"$work/${n#*,}"
done
cmp "$work/once" "$work/often" || fail "many tokens differ from few"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval "$work/thrice_k.raw" --shape 192,64 $blocks --schemes kv4 --centring page,none --from 128
thrice=$("$jq" 'map(select(.centring == "page"))[0].snr_db' "$work/stdout")
# shellcheck disable=SC2086
run "$@" "$kvtile" eval "$work/often_k.raw" --shape 16448,64 $blocks --schemes kv4 --centring page,none --from 16384
expect_json "map({(.centring): .snr_db}) | add | (.page - $thrice | fabs) < 0.05 and .page > .none + 0.08"

# The sums of several inputs: keys and values, means of the heads' dB. Heads one by one, then their mean.
run "$@" "$kvtile" eval "$work"/cap/layer*_keys.qvkt "$work/cap/layer1_values.qvkt" --mean --json --no-speed --schemes kv4,f32 --rotation 64,none
expect_json 'length == 8 and all(.[]; if .side == "k" then .tensors == 4 and .heads == 8 else .tensors == 1 and .heads == 2 end)'
expect_json "map(select(.side == \"k\")) | $sorted"
expect_json 'map(select(.scheme == "f32" and .rotation == "none")) | all(.[]; .snr_db == null and .centred_snr_db == null and .max_abs_error == 0)'
cp "$work/stdout" "$work/mean.json"
: >"$work/heads.json"
for layer in 0 1 2 3; do
    for head in 0 1; do
        { printf 'QVKT'; printf '\0\0\0\0\001\0\0\0\144\0\0\0\100\0\0\0'; } >"$work/head_k.qvkt"
        tail -c +$((21 + head * 25600)) "$work/cap/layer${layer}_keys.qvkt" | head -c 25600 >>"$work/head_k.qvkt"
        run "$@" "$kvtile" eval "$work/head_k.qvkt" --json --no-speed --schemes kv4 --rotation 64
        cat "$work/stdout" >>"$work/heads.json"
    done
done
# shellcheck disable=SC2016
"$jq" -e -n --slurpfile mean "$work/mean.json" --slurpfile heads "$work/heads.json" '
    ($mean[0] | map(select(.side == "k" and .scheme == "kv4" and .rotation == "64"))[0]) as $m
    | ($heads | map(.[0])) as $h | ["snr_db", "centred_snr_db"] | all(. as $key | ($h | map(.[$key]) | add / length) - $m[$key] | fabs < 1e-6)' \
    >"$work/stdout" || fail "--mean is not the mean of the heads"
run "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" "$work/cap/layer1_keys.qvkt" "$work/cap/layer1_values.qvkt" --no-speed --schemes kv4,q4_0
[ "$(grep -c 'all keys: the mean of dB over 4 heads of 2 tensors' "$work/stdout")" -eq 1 ] || fail "no sum of the keys in the table"
if grep -q 'all values' "$work/stdout"; then fail "a sum of one tensor in the table"; fi

run "$@" "$kvtile" eval "$keys" --schemes q4_0,f32 --side v --json --rotation none
expect_json '[.[].scheme] == ["f32", "q4_0"] and all(.[]; .side == "v" and .write_gbps > 0 and .read_gbps > 0)'

# shellcheck disable=SC2086
run "$@" "$kvtile" eval $both
grep -q 'exact' "$work/stdout" || fail "no exact row in the table"
grep -q 'stored as values' "$work/stdout" || fail "no values in the table"
# The names of files are as long as they are.
if sed "s|$work||" "$work/stdout" | grep -q '.\{101\}'; then fail "the table is wider than 100 columns"; fi

# ---- attention, with the real queries: 4 layers of 4 query heads, and as many tokens as are asked for
run "$@" "$kvtile" eval --attention "$work"/cap/* --json
expect_json 'length == 28 and all(.[]; .layers == 4 and .query_rows == 4 * 4 * 100 and .real_queries and .kl_mean >= 0 and .kl_max >= .kl_mean)'
expect_json 'map(select(.scheme == "f32" and .rotation == "none"))[0] | .kl_max < 1e-12 and .same_top == 1 and .output_error < 1e-6'
# What attention's own arithmetic adds to the error of what is stored: less than 0.2 dB, which is a factor of 1.0233.
expect_json 'all(.[] | select(.scheme != "f32"); .output_error < 1.0233 * .output_error_of_codes)'
expect_json 'map(select(.rotation == "64") | {(.scheme): .kl_mean}) | add | .kv8 < .kv6 and .kv6 < .kv5 and .kv5 < .kv4 and .kv4 < .kv3 and .kv3 < .kv2
    and .q8_0 < .q4_0 and .kv4h < .q4_0 and .f16 < .q8_0'
expect_json 'map(select(.rotation == "64") | {(.scheme): .output_error}) | add | .f16 < .q8_0 and .q8_0 < .e4m3 and .e4m3 < .kv4 and .kv4 < .kv3 and .kv3 < .kv2'
"$jq" -S . "$work/stdout" >"$work/attention.json"
run "$@" "$kvtile" eval --attention "$work"/cap/* --json --tier scalar
"$jq" -S . "$work/stdout" | cmp - "$work/attention.json" || fail "--attention --tier scalar differs"
run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --json --schemes kv4 --rotation 64 --queries 10
expect_json 'length == 1 and .[0].layers == 1 and .[0].query_rows == 4 * 10'
# The sharper the logits, the more it costs.
for scale in 0.001 0.01; do
    run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --json --schemes kv4 --rotation none --scale $scale
    "$jq" '.[0].kl_mean' "$work/stdout"
done >"$work/scales"
"$jq" -es '.[1] > 50 * .[0] and .[0] > 0' "$work/scales" >/dev/null || fail "--scale: $(cat "$work/scales")"
# Keys stand for queries that are not there.
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention $both --json --schemes kv4 --rotation none
expect_json '.[0].real_queries == false and .[0].kl_mean > 0'
run "$@" "$kvtile" eval --attention "$work"/cap/* --schemes kv4,q8_0
grep -q 'KL mean .* same top .* error %' "$work/stdout" || fail "no heading of attention"
if tail -n +2 "$work/stdout" | grep -q '.\{101\}'; then fail "the table of attention is wider than 100 columns"; fi
expect_error 1 "values" "$@" "$kvtile" eval --attention "$work/cap/layer0_keys.qvkt"

# ---- other engines' formats, pairs, and pages that are kept otherwise
run "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" --json --no-speed --schemes q8_0,q4_0,peers
expect_json 'map(select(.scheme | test("^(ggml_q4_0|turboquant4|kvarn4|kivi4|fp8_tensor|nvfp4)$")) | {(.scheme): .bits_per_element}) | add
    == {ggml_q4_0: 4.5, turboquant4: 4.25, kivi4: 5, fp8_tensor: 8, nvfp4: 4.5}'
grep -q 'layer0_keys.qvkt: kvarn4 stores 128 tokens at a time, and there are 100: left out' "$work/stderr" || fail "no word about kvarn4"
"$@" "$kvtile" eval --attention "$work"/cap/layer0* --schemes kvarn4 >"$work/stdout" 2>"$work/stderr" && fail "nothing was compared"
grep -q 'leaves no scheme to compare' "$work/stderr" || fail "not said: $(cat "$work/stderr")"
expect_json 'map({("\(.scheme) \(.rotation)"): .snr_db}) | add | .["ggml_q8_0 none"] == .["q8_0 none"] and .["ggml_q4_0 none"] == .["q4_0 none"]'
expect_json 'map({("\(.scheme) \(.rotation)"): .snr_db}) | add | .["turboquant4 own"] > 18 and .["turboquant4 none"] == null and .["nvfp4 64"] != .["nvfp4 none"]'
expect_json 'all(.[] | select(.scheme | test("_|[a-z]4$")) | select(.scheme != "q8_0" and .scheme != "q4_0"); .centring == "none" and .write_gbps == null)'
run "$@" "$kvtile" eval --attention "$work"/cap/layer[01]* --json --schemes q4_0,ggml_q4_0,kv5/kv4,kv5,kv4,ggml_q5_0/ggml_q4_0,kv4/turboquant4 --rotation none --centring none
expect_json 'map({(.scheme): .}) | add | .q4_0.kl_mean == .ggml_q4_0.kl_mean and .q4_0.output_error_of_codes == .ggml_q4_0.output_error'
expect_json 'map({(.scheme): .}) | add | .["kv5/kv4"] | .k_scheme == "kv5" and .v_scheme == "kv4" and .bits_per_element == 4.75'
expect_json 'map({(.scheme): .}) | add | .["kv5/kv4"].kl_mean == .kv5.kl_mean and .kv4.output_error > .["kv5/kv4"].output_error and .["kv5/kv4"].output_error > .kv5.output_error'
expect_json 'map({(.scheme): .}) | add | .["kv4/turboquant4"] | .bits_per_element == 4.25 and .kl_mean > 0'
expect_json 'all(.[]; .kl_mean <= .kl_p99 and .kl_p99 <= .kl_max and (.by_head | length) == 4 and .bits_all_told == .bits_per_element and .first == null)'
# Numbers are printed with nine digits.
expect_json 'all(.[]; (.kl_mean - ([.by_head[].kl_mean] | add / length) | fabs) < 1e-8 * .kl_mean + 1e-12)'
expect_json 'all(.[]; (.by_position | length) == 32 and .by_position[0].first == 0 and .by_position[31].last == 99)'
"$jq" 'map({(.scheme): .}) | add' "$work/stdout" >"$work/flat"
# Of 100 tokens the first 64 are in the first page and the others in the open one: with both in f32 nothing is lost.
run "$@" "$kvtile" eval --attention "$work"/cap/layer[01]* --json --schemes kv4,ggml_q4_0 --rotation none --centring none --first f32 --open f32
expect_json 'all(.[]; .kl_max < 1e-9 and .output_error < 1e-5 and .bits_all_told == 32 and .first == "f32" and .open == "f32")'
run "$@" "$kvtile" eval --attention "$work"/cap/layer[01]* --json --schemes kv4,ggml_q4_0,kvarn4 --rotation 64 --first kv8
# shellcheck disable=SC2016
"$jq" --slurpfile flat "$work/flat" -e 'map({(.scheme): .}) | add | .kv4.kl_mean < $flat[0].kv4.kl_mean and .ggml_q4_0.kl_mean < $flat[0].ggml_q4_0.kl_mean
    and .kv4.bits_all_told == (4.25 + 8.25) / 2 and (.kv4.output_error / .kv4.output_error_of_codes - 1 | fabs) < 0.05' "$work/stdout" >/dev/null ||
    fail "--first: $(cat "$work/stdout")"
run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --json --schemes kv4 --rotation none --open bf16 --queries 100
expect_json '.[0].bits_all_told == (4.25 + 16) / 2 and .[0].kl_mean > 0 and .[0].by_position[0].kl_mean < 1e-4 and .[0].by_position[31].kl_mean > .[0].by_position[0].kl_mean'
# KVarN's 128 tokens are open until they are complete, behind the first page: of 300 the ones from 192 on, two pages.
run "$@" "$engine" capture --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" \
    --tokens 300 --out "$work/long"
run "$@" "$kvtile" eval --attention "$work"/long/layer0* --json --schemes kvarn4,kvarn4_g64 --first f32 --open f32 --queries 300
expect_json 'map({(.scheme): .bits_all_told}) | add == {kvarn4: ((3 * 32 + 2 * 4.5625) / 5), kvarn4_g64: ((2 * 32 + 3 * 4.75) / 5)}'
expect_json 'map({(.scheme): .by_position}) | add | all(.kvarn4[] | select(.last < 192); .kl_mean < 1e-9) and all(.kvarn4[] | select(.first >= 192); .kl_mean > 1e-6)
    and all(.kvarn4_g64[] | select(.first >= 128); .kl_mean > 1e-6)'
# A rotation of 128 is one of 64 for other engines' formats, which have blocks of one size, unless the width is a multiple of it.
run "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" --json --no-speed --schemes ggml_q4_0,kivi4 --rotation 64,128
expect_json 'map([.scheme, .rotation]) == [["kivi4", "64"], ["ggml_q4_0", "64"]]'
# Left out once, whatever its rotations.
run "$@" "$kvtile" eval --attention "$work"/cap/layer[01]* --schemes kv4,kivi4,kvarn4,kivi4/kvarn4 --rotation none,64
[ "$(grep -c 'kvarn4 stores 128 tokens at a time' "$work/stderr")" -eq 1 ] || fail "not once: $(cat "$work/stderr")"
run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --schemes kv4,ggml_q5_0/ggml_q4_0 --first kv8 --open bf16
if tail -n +2 "$work/stdout" | grep -q '.\{121\}'; then fail "the table of attention is wider than 120 columns"; fi

# ---- presets, lines with commas
run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --json --schemes balanced,quality,compact,tight --rotation 64 --centring page
expect_json 'map(.scheme) == ["kv6/kv5", "kv5/kv4", "kv4", "kv4/kv3"]'
run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --json --schemes kv4,q8_0 --rotation none
# shellcheck disable=SC2016
"$jq" -r '(.[0] | [to_entries[] | select(.value | type != "array") | .key]) as $k | ($k | join(",")), (.[] | [.[$k[]] | if . == null then "" else tostring end] | join(","))' \
    "$work/stdout" >"$work/lines"
run "$@" "$kvtile" eval --attention "$work"/cap/layer0* --csv --schemes kv4,q8_0 --rotation none
tr -d '\r' <"$work/stdout" | cut -d, -f1-12 >"$work/csv"
cut -d, -f1-12 "$work/lines" | cmp -s - "$work/csv" || fail "--csv: $(cat "$work/stdout")"
cp "$work/cap/layer0_keys.qvkt" "$work/a \"b\", c.qvkt"
run "$@" "$kvtile" eval "$work/a \"b\", c.qvkt" --csv --no-speed --schemes kv4 --rotation none
[ "$(tail -n 1 "$work/stdout" | grep -c "^\"$work/a \"\"b\"\", c.qvkt\",")" -eq 1 ] || fail "--csv: quotes: $(cat "$work/stdout")"
[ "$(wc -l <"$work/stdout")" -eq 2 ] || fail "--csv: not 2 lines"

# ---- a scheme for each layer
run "$@" "$kvtile" eval --budget 5 "$work"/cap/layer* --json --schemes kv8,kv6,kv5,kv4,kv3 --rotation 64 --centring none
expect_json 'length == 1 and (.[0] | (.layers | length) == 4 and .bits_per_element <= 5 and .bits_per_element > 4.6)'
expect_json '.[0] | (.kl_mean / .expected_kl_mean - 1 | fabs) < 0.01 and (.output_error / .expected_output_error - 1 | fabs) < 0.2'
expect_json '.[0] | (.bits_per_element - ([.layers[].bits_per_element] | add / 4) | fabs) < 1e-9 and .bytes_per_token == .bits_per_element * 4 * 2 * 128 / 8'
"$jq" '.[0] | {bits_per_element, kl_mean, output_error}' "$work/stdout" >"$work/chosen"
run "$@" "$kvtile" eval --attention "$work"/cap/layer* --json --schemes kv5,kv5/kv4 --rotation 64 --centring none
# Better than the same pair in all layers, which takes less; and than one that takes more it is not much worse.
# shellcheck disable=SC2016
"$jq" --slurpfile chosen "$work/chosen" -e '$chosen[0] as $c | all(.[]; if .bits_per_element < $c.bits_per_element then .output_error > $c.output_error else $c.output_error < 1.3 * .output_error end)' \
    "$work/stdout" >/dev/null || fail "--budget: $(cat "$work/chosen" "$work/stdout")"
# More to choose from is never worse, in as many bytes at most.
expected=1
for schemes in kv6,kv4 kv6,kv4,kv5 kv6,kv4,kv5,kv3 kv6,kv4,kv5,kv3,kv4h,kv2; do
    run "$@" "$kvtile" eval --budget 4.6 "$work"/cap/layer* --json --schemes $schemes --rotation 64 --centring none --queries 16
    expect_json ".[0] | .bits_per_element <= 4.6 and .expected_output_error <= $expected"
    expected=$("$jq" '.[0].expected_output_error' "$work/stdout")
done
run "$@" "$kvtile" eval --budget 640B "$work"/cap/layer* --json --schemes kv5,kv4 --rotation 64 --centring none
expect_json '.[0].bytes_per_token <= 640 and .[0].bytes_per_token > 600'
run "$@" "$kvtile" eval --max-kl 0.001 "$work"/cap/layer* --json --schemes kv8,kv6,kv5,kv4,kv3 --rotation 64 --centring none
expect_json '.[0] | .kl_mean <= 0.001 and .kl_mean > 0.0002'
run "$@" "$kvtile" eval --budget 4.5 "$work"/cap/layer* --schemes kv5,kv4 --rotation none
[ "$(wc -l <"$work/stdout")" -eq 6 ] || fail "--budget: not 6 lines"
expect_error 1 "too few: of these schemes 4.25" "$@" "$kvtile" eval --budget 4 "$work"/cap/layer* --schemes kv5,kv4 --rotation none
expect_error 1 "no choice of these schemes has a divergence of 1e-12" "$@" "$kvtile" eval --max-kl 1e-12 "$work"/cap/layer* --schemes kv5 --rotation none
expect_error 2 "would be right for --budget" "$@" "$kvtile" eval --budget 4bits "$work"/cap/layer0*
expect_error 2 "would be right for --max-kl" "$@" "$kvtile" eval --max-kl=-1 "$work"/cap/layer0*
expect_error 2 "another limit" "$@" "$kvtile" eval --max-kl 1 --budget 4 "$work"/cap/layer0*
expect_error 2 "another comparison" "$@" "$kvtile" eval --attention --budget 4 "$work"/cap/layer0*
expect_error 1 "as many of each" "$@" "$kvtile" eval --budget 4 "$work"/cap/layer0_keys.qvkt
expect_error 2 "own schemes would be right" "$@" "$kvtile" eval --budget 4 "$work"/cap/layer0* --schemes nvfp4
expect_error 2 '"ggml_q4" is no scheme: did you mean ggml_q4_0?' "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" --schemes ggml_q4
expect_error 2 '"kv5/kv4" is a pair: one scheme would be right' "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" --schemes kv5/kv4
expect_error 2 '"balanced" is a pair: one scheme would be right' "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" --schemes balanced
expect_error 2 "own schemes would be right" "$@" "$kvtile" eval --latent "$work"/cap/layer0* --schemes nvfp4
expect_error 2 "one scheme, or none" "$@" "$kvtile" eval --attention "$work"/cap/layer0* --first kv4,kv5
expect_error 2 "only --attention and --model have" "$@" "$kvtile" eval "$work"/cap/layer0_keys.qvkt --first kv8
expect_error 2 "--queries" "$@" "$kvtile" eval --attention "$work"/cap/layer0* --queries 0
expect_error 2 "only --attention, --latent and --budget" "$@" "$kvtile" eval "$work"/cap/layer0_keys.qvkt --queries 7
expect_error 2 "only --attention, --latent and --budget" "$@" "$kvtile" eval "$work"/cap/layer0_keys.qvkt --scale 0.5

# ---- latents: head_k.qvkt has one head of 64 numbers, here 48 and a rotary part of 16
run "$@" "$kvtile" eval --latent "$work/head_k.qvkt" --rope-dim 16 --rope bf16,kv8 --json --schemes bf16,kv6,kv4 --rotation 64 --centring none
expect_json 'map({(.format): .bytes_per_token}) | add == {"bf16+bf16": 128, "bf16+kv8": 114, "kv6+bf16": 70, "kv6+kv8": 56, "kv4+bf16": 58, "kv4+kv8": 44,
    "FlashMLA": 164, "DeepSeek-V4": 104, "ggml q8_0": 102, "ggml q4_0": 54}'
expect_json 'all(.[]; .layers == 1 and .query_rows == 100 and .real_queries == false and .rank == null and .kl_max >= .kl_mean)'
expect_json 'map({(.format): .latent_snr_db}) | add | .["kv6+kv8"] > .FlashMLA + 2 and .["kv4+kv8"] > .["ggml q4_0"] + 1 and .FlashMLA > 28 and .["kv6+kv8"] == .["kv6+bf16"]'
expect_json 'map({(.format): .rope_snr_db}) | add | .FlashMLA == .["kv6+bf16"] and .FlashMLA > .["kv6+kv8"] + 5 and .["kv6+kv8"] > 38'
expect_json 'map({(.format): .kl_mean}) | add | .["bf16+bf16"] < .["kv6+kv8"] and .["kv6+kv8"] < .FlashMLA and .["kv6+kv8"] < .["kv4+kv8"] and .["kv4+kv8"] < .["ggml q4_0"]'
# Latents of keys and values: all of them, in a basis of theirs, are as good as they are without one; fewer are not.
run "$@" "$kvtile" eval --latent "$work"/cap/layer[01]* --json --schemes bf16,kv6 --rotation 64 --centring none --rank 16,100
expect_json 'length == 2 + 2 * (2 + 4) and all(.[]; .layers == 2 and .real_queries and .query_rows == 2 * 4 * 100 and .rope_scheme == null)'
expect_json 'map(select(.scheme == "kv6") | {("\(.rank // "none")"): .}) | add | .["100"].output_error < 1.3 * .none.output_error and .["100"].kl_mean < 2 * .none.kl_mean
    and .["16"].output_error > 3 * .none.output_error and .["16"].bytes_per_token == 2 * 13 and .none.bytes_per_token == 2 * 200'
expect_json 'map(select(.rank == 100)) | map({(.format): .latent_snr_db}) | add | .kv6 > .FlashMLA + 2 and .bf16 > 50'
# Of tokens that the basis has not seen, less is left.
run "$@" "$kvtile" eval --latent "$work"/cap/layer0* --json --schemes bf16 --rotation none --rank 32
"$jq" '.[] | select(.format == "bf16" and .rank == 32).output_error' "$work/stdout" >"$work/seen"
run "$@" "$kvtile" eval --latent "$work"/cap/layer0* --json --schemes bf16 --rotation none --rank 32 --from 50
"$jq" '.[] | select(.format == "bf16" and .rank == 32).output_error' "$work/stdout" >>"$work/seen"
"$jq" -es '.[1] > 1.2 * .[0]' "$work/seen" >/dev/null || fail "a basis of other tokens is as good: $(cat "$work/seen")"
run "$@" "$kvtile" eval --latent "$work"/cap/layer0* --schemes kv4 --rotation none
grep -q 'which flatters them' "$work/stdout" || fail "no word about the basis"
if tail -n +3 "$work/stdout" | grep -q '.\{121\}'; then fail "the table of latents is wider than 120 columns"; fi
expect_error 1 "has 2 heads: latents are of all heads" "$@" "$kvtile" eval --latent "$work"/cap/layer0_keys.qvkt
expect_error 1 "leaves no latent" "$@" "$kvtile" eval --latent "$work"/head_k.qvkt --rope-dim 64
expect_error 1 "have no rotary part" "$@" "$kvtile" eval --latent "$work"/cap/layer0* --rope-dim 16
expect_error 1 "--rank 101 is more than the 100 that 100 tokens of 256 numbers have" "$@" "$kvtile" eval --latent "$work"/cap/layer0* --rank 101
expect_error 1 "there are no values" "$@" "$kvtile" eval --latent "$work"/head_k.qvkt --rank 16
expect_error 2 "1 to 1024 would be right for --rank" "$@" "$kvtile" eval --latent "$work"/cap/layer0* --rank 16,0
expect_error 2 "for --rope-dim" "$@" "$kvtile" eval --latent "$work"/head_k.qvkt --rope-dim x
expect_error 2 "did you mean bf16?" "$@" "$kvtile" eval --latent "$work"/head_k.qvkt --rope bf61
expect_error 2 "only --latent" "$@" "$kvtile" eval "$work"/head_k.qvkt --rope-dim 16
expect_error 2 "another comparison" "$@" "$kvtile" eval --latent --attention "$work"/head_k.qvkt

# ---- numbers without a header
tail -c +21 "$work/head_k.qvkt" >"$work/keys.f32"
run "$@" "$kvtile" eval --no-speed --json --schemes kv4,q8_0 "$work/head_k.qvkt"
"$jq" 'map(del(.input))' "$work/stdout" >"$work/named"
run "$@" "$kvtile" eval --no-speed --json --schemes kv4,q8_0 "$work/keys.f32" --shape 100,64 --side k
"$jq" 'map(del(.input))' "$work/stdout" | cmp -s - "$work/named" || fail "--shape gives other results"
expect_error 1 "has 25600 bytes: 25856 (1 heads x 101 tokens x 64 f32) would be right" "$@" "$kvtile" eval "$work/keys.f32" --shape 1,101,64
expect_error 2 "would be right for --shape" "$@" "$kvtile" eval "$work/keys.f32" --shape 6400
expect_error 2 "would be right for --shape" "$@" "$kvtile" eval "$work/keys.f32" --shape 100,-64
expect_error 2 "f32, f16 or bf16" "$@" "$kvtile" eval "$work/keys.f32" --shape 100,64 --dtype f8
expect_error 2 "which --shape is for" "$@" "$kvtile" eval "$work/head_k.qvkt" --dtype f16

# ---- small .npy and .safetensors files: header, then numbers
npy() { # npy FILE SHAPE DESCR ORDER
    header="{'descr': '$3', 'fortran_order': $4, 'shape': $2, }"
    printf '\223NUMPY\001\000' >"$1"
    # shellcheck disable=SC2059
    printf "\\$(printf %03o ${#header})\\000%s" "$header" >>"$1"
}

npy "$work/padded_v.npy" "(5, 20)" "<f4" False
{ zeros 396; printf '\000\000\200\077'; } >>"$work/padded_v.npy"
run "$@" "$kvtile" eval "$work/padded_v.npy" --json --schemes q8_0,f16 --rotation none
expect_json 'all(.[]; .side == "v" and .heads == 1 and .tokens == 5 and .dim == 20 and .padded_dim == 32)'
expect_json '.[1].bits_per_element == 8 * 34 / 20 and .[0].snr_db == null and .[0].max_abs_error == 0'

# A NaN: its token is left out. 1e30: f16 cannot hold it.
npy "$work/nan.npy" "(2, 16)" "<f4" False
{ zeros 60; printf '\000\000\300\177'; zeros 60; printf '\000\000\200\077'; } >>"$work/nan.npy"
run "$@" "$kvtile" eval "$work/nan.npy" --json --schemes f32 --rotation none
expect_json '.[0].nonfinite == 1 and .[0].lost == 0 and .[0].max_abs_error == 0'
npy "$work/large.npy" "(2, 16)" "<f4" False
{ zeros 124; printf '\312\362\111\161'; } >>"$work/large.npy"
run "$@" "$kvtile" eval "$work/large.npy" --json --schemes f16 --rotation none
expect_json '.[0].nonfinite == 0 and .[0].lost == 1 and .[0].snr_db == null and .[0].max_abs_error == null'
run "$@" "$kvtile" eval "$work/large.npy" "$work/nan.npy" --no-speed
grep -q 'lost' "$work/stdout" || fail "no lost row in the table"
grep -q '1 numbers are not finite; 1 rows' "$work/stdout" || fail "no word about the NaN"

tensors='{"a.k":{"dtype":"F32","shape":[2,16],"data_offsets":[0,128]},"a.value":{"dtype":"BF16","shape":[1,2,16],"data_offsets":[128,192]},"n":{"dtype":"F32","shape":[1],"data_offsets":[192,196]}}'
# shellcheck disable=SC2059
{ printf "\\$(printf %03o ${#tensors})\\000\\000\\000\\000\\000\\000\\000%s" "$tensors"; zeros 196; } >"$work/two.safetensors"
run "$@" "$kvtile" eval "$work/two.safetensors" --json --schemes f32 --rotation none
expect_json 'length == 2 and (.[0].input | endswith("two.safetensors:a.k")) and .[0].side == "k" and .[1].side == "v" and .[1].dtype == "bf16"'
grep -q '1 of 3 tensors skipped' "$work/stderr" || fail "no note about the skipped tensor"

# ---- errors
npy "$work/shape.npy" "(5,)" "<f4" False
zeros 20 >>"$work/shape.npy"
npy "$work/wide.npy" "(1, 2048)" "<f4" False
zeros 8192 >>"$work/wide.npy"
npy "$work/order.npy" "(2, 16)" "<f4" True
zeros 128 >>"$work/order.npy"
npy "$work/double.npy" "(2, 16)" "<f8" False
zeros 256 >>"$work/double.npy"
: >"$work/empty.npy"
head -c 100 "$work/two.safetensors" >"$work/header.safetensors"
head -c 300 "$work/two.safetensors" >"$work/data.safetensors"
head -c 1000 "$work/cap/layer0_keys.qvkt" >"$work/short.qvkt"
expect_error 1 "shape has 1 dimensions" "$@" "$kvtile" eval "$work/shape.npy"
expect_error 1 "dim is 2048" "$@" "$kvtile" eval "$work/wide.npy"
expect_error 1 "fortran_order is True" "$@" "$kvtile" eval "$work/order.npy"
expect_error 1 "float64" "$@" "$kvtile" eval "$work/double.npy"
expect_error 1 "is empty" "$@" "$kvtile" eval "$work/empty.npy" --json
expect_error 1 "cannot be opened" "$@" "$kvtile" eval "$work/missing.npy"
expect_error 1 "is a directory" "$@" "$kvtile" eval "$work"
expect_error 1 "header length is" "$@" "$kvtile" eval "$work/header.safetensors"
expect_error 1 "data_offsets end at" "$@" "$kvtile" eval "$work/data.safetensors"
expect_error 1 "rows take 980 bytes" "$@" "$kvtile" eval "$work/short.qvkt"
expect_error 1 "cannot be opened" "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" "$(printf 'two\nlines')" --json
expect_error 2 "no input" "$@" "$kvtile" eval
expect_error 2 '"q9" is no scheme' "$@" "$kvtile" eval --schemes q8_0,q9 "$work/nan.npy"
expect_error 2 '"" is no scheme' "$@" "$kvtile" eval --schemes "" "$work/nan.npy"
expect_error 2 'did you mean kv4?' "$@" "$kvtile" eval --scheme kv4x "$work/nan.npy"
expect_error 2 'did you mean e4m3?' "$@" "$kvtile" eval --schemes fp8 "$work/nan.npy"
expect_error 2 '"65" is no rotation: did you mean 64? none, 64, 128 or all would be right' "$@" "$kvtile" eval --rotation none,65 "$work/nan.npy"
expect_error 2 'did you mean sequence?' "$@" "$kvtile" eval --centring seq "$work/nan.npy"
expect_error 2 'did you mean best?' "$@" "$kvtile" eval --effort bset "$work/nan.npy"
expect_error 2 '"16" is no block' "$@" "$kvtile" eval --fp8-block 16 "$work/nan.npy"
expect_error 2 'did you mean e8m0?' "$@" "$kvtile" eval --fp8-scale e8m1 "$work/nan.npy"
expect_error 2 '"" is no effort' "$@" "$kvtile" eval --effort best, "$work/nan.npy"
expect_error 2 "k, v or auto" "$@" "$kvtile" eval --side x "$work/nan.npy"
expect_error 2 "nosuch" "$@" "$kvtile" eval --tier nosuch "$work/nan.npy"
expect_error 2 "--nosuch" "$@" "$kvtile" eval --nosuch "$work/nan.npy"
expect_error 2 "--schemes" "$@" "$kvtile" eval "$work/nan.npy" --schemes
expect_error 2 "did you mean eval?" "$@" "$kvtile" evil
expect_error 2 "did you mean info?" "$@" "$kvtile" inof
expect_error 2 "nosuch" "$@" "$kvtile" info --tier nosuch
expect_error 2 "surplus" "$@" "$kvtile" info surplus
expect_error 2 "no such command" "$@" "$engine" nosuch
run "$@" "$kvtile" info --help
mv "$work/stdout" "$work/help"
run "$@" "$kvtile" help info
cmp "$work/help" "$work/stdout" || fail "kvtile help info is not kvtile info --help"
run "$@" "$kvtile" help
grep -q '^  kvtile size ' "$work/stdout" || fail "kvtile help lists no commands"
got=0
"$@" "$kvtile" eval "$work"/cap/layer0_queries.qvkt >"$work/stdout" 2>"$work/stderr" || got=$?
[ "$got" -eq 1 ] || fail "queries alone: exit code $got"
grep -q '^kvtile eval: no keys and no values: ' "$work/stderr" || fail "queries alone: $(cat "$work/stderr")"
expect_error 2 "--out: is missing" "$@" "$engine" export --model "$demo/gutenberg-3.5M.f16.bin"
expect_error 1 "cannot be opened" "$@" "$engine" export --model "$work/missing.bin" --out "$work/x.bin"
expect_error 1 "the text has only" "$@" "$engine" perplexity --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" \
    --text "$work/nan.npy" --tokens 1000
expect_error 1 "1 to 1024, the model's context" "$@" "$engine" perplexity --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" \
    --text "$demo/chesterton-brown.txt" --tokens 1025
expect_error 1 "tokens, as the model has" "$@" "$engine" perplexity --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$work/nan.npy" \
    --text "$demo/chesterton-brown.txt"

# ---- what helps people: one screen of 80 columns and 24 lines, examples first; the rest by --help-all
# one_screen WHAT: the last output is one.
one_screen() {
    [ -s "$work/stdout" ] || fail "no help of $1"
    [ "$(wc -l <"$work/stdout")" -le 24 ] || fail "the help of $1 has $(wc -l <"$work/stdout") lines, not 24 at most"
    awk 'length > 80 { exit 1 }' "$work/stdout" || fail "the help of $1 is wider than 80 columns"
    [ "$(head -n 1 "$work/stdout")" = "Examples:" ] || fail "the help of $1 does not begin with examples"
    [ ! -s "$work/stderr" ] || fail "the help of $1: $(cat "$work/stderr")"
}
run "$@" "$kvtile"
one_screen kvtile
for command in "" size eval convert inspect store info bench; do
    if [ "$command" = bench ] && ! "$@" "$kvtile" bench --help >/dev/null 2>&1; then
        continue # built without benchmarks
    fi
    # shellcheck disable=SC2086
    run "$@" "$kvtile" $command --help
    one_screen "kvtile $command"
    lines=$(wc -l <"$work/stdout")
    # shellcheck disable=SC2086
    run "$@" "$kvtile" $command --help-all
    [ "$(wc -l <"$work/stdout")" -ge "$lines" ] || fail "kvtile $command --help-all says less than --help"
done
run "$@" "$engine" --help
one_screen kvtile-engine
run "$@" "$engine" --help-all
run "$@" "$kvtile" --version
grep -q '^kvtile [0-9]*\.[0-9]*\.[0-9]*$' "$work/stdout" || fail "--version"
run "$@" "$kvtile" info
run "$@" "$kvtile" info --tier scalar --json
expect_json '(.version | test("^[0-9]+\\.[0-9]+\\.[0-9]+$")) and (.cpu_features | type == "array") and .tiers.q8_0 == "scalar"'
run "$@" "$engine" export --model "$demo/gutenberg-3.5M.f16.bin" --out "$work/again.bin"
cmp "$work/again.bin" "$demo/gutenberg-3.5M.f16.bin" || fail "export does not give the shipped file again"

finish
