#!/bin/sh
# SPDX-License-Identifier: MIT
# Pages of kvtile eval --report: what the command says and leaves behind, and in a headless Chromium what people see. Pictures stay in FOLDER.
# Usage: test_report.sh JQ BROWSER DEMO FOLDER ENGINE KVTILE [EMULATOR...]     BROWSER "none": where programs are emulated, the page is the same
set -eu
jq=$1
browser=$2
demo=$3
folder=$4
engine=$5
kvtile=$6
shift 6
here=$(cd "$(dirname "$0")" && pwd)

# shellcheck source=tests/cli/cli.sh
. "$here/cli.sh"

# The numbers in a page, one line of JSON.
data_of() { sed -n 's|^<script id="data" type="application/json">\(.*\)</script>$|\1|p' "$1"; }

# ---- pages, beside the table and beside --json, which they do not change
run "$@" "$engine" capture --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" --tokens 300 \
    --out "$work/cap"
schemes="--schemes q8_0,kv6,kv4h,kv4,q4_0"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/cap/* $schemes
mv "$work/stdout" "$work/table"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/cap/* $schemes --report "$work/attention.html"
cmp "$work/stdout" "$work/table" || fail "--report changes the table"
[ ! -s "$work/stderr" ] || fail "stderr: $(cat "$work/stderr")"
cp "$work/attention.html" "$work/first.html"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/cap/* $schemes --json --report "$work/attention.html"
data_of "$work/attention.html" >"$work/data"
"$jq" -S .results "$work/data" >"$work/results"
"$jq" -S . "$work/stdout" | cmp - "$work/results" || fail "the page has other numbers than --json"
"$jq" -e '.kvtile != "" and .kind == "attention" and (.inputs | length) == 12 and all(.inputs[]; .tokens == 300)
    and .arguments[:2] == ["eval", "--attention"]' "$work/data" >/dev/null || fail "what the page is about"
# The same but for the option that differs.
data_of "$work/first.html" | "$jq" -S 'del(.arguments)' >"$work/once"
"$jq" -S 'del(.arguments)' "$work/data" | cmp - "$work/once" || fail "the page is another one the second time"
# shellcheck disable=SC2086
run "$@" "$kvtile" eval --attention "$work"/cap/* $schemes --report -
[ "$(head -n 1 "$work/stdout")" = "<!doctype html>" ] || fail "--report - does not begin with the page"
run "$@" "$kvtile" eval "$work/cap/layer0_keys.qvkt" "$work/cap/layer1_keys.qvkt" --no-speed --report "$work/rows.html"
data_of "$work/rows.html" | "$jq" -e '.kind == "rows" and ([.results[] | select(.tensors == 2)] | length) == 28
    and (.results | length) == 3 * 28' >/dev/null || fail "the page of rows"
run "$@" "$kvtile" eval --latent "$work"/cap/layer0* --schemes kv6,kv4 --rank 32 --report "$work/latent.html"
data_of "$work/latent.html" | "$jq" -e '.kind == "latent" and any(.results[]; .format == "FlashMLA")' >/dev/null || fail "the page of latents"
for page in attention rows latent; do
    [ "$(wc -c <"$work/$page.html")" -lt 1000000 ] || fail "$page.html is larger than 1 MB"
    grep -q 'Released under the MIT License' "$work/$page.html" || fail "$page.html has no notice of Chart.js"
    if grep -oE '(src|href)="?(https?:)?//[^"]*' "$work/$page.html"; then fail "$page.html refers to other places"; fi
done

# ---- rows that are lost: a key of -70000 in the first layer, which f16 does not hold
mkdir "$work/lost"
cp "$work"/cap/layer[01]* "$work/lost"
printf '\000\270\210\307' | dd of="$work/lost/layer0_keys.qvkt" bs=1 seek=$((20 + (3 * 64 + 5) * 4)) conv=notrunc 2>/dev/null
run "$@" "$kvtile" eval --attention "$work"/lost/* --schemes f16,bf16,q8_0 --rotation none --report "$work/lost.html"
data_of "$work/lost.html" | "$jq" -e '.results | map(select(.scheme == "f16"))[0] | .lost > 0 and .kl_mean == null and .by_head[0].lost > 0
    and .by_head[3].kl_mean != null' >/dev/null || fail "the page of what is lost"

# ---- hostile names
hostile="$work/hostile"
mkdir "$hostile"
one="$hostile/</script ><script>owned=1</script>_k.qvkt"
mkdir -p "${one%/*}"
cp "$work/cap/layer0_keys.qvkt" "$one"
two="$hostile/<img src=x onerror=\"owned=2\">_k.qvkt"
cp "$work/cap/layer1_keys.qvkt" "$two"
three="$hostile/&lt;'<!--<script>\`\${owned=3}\`<b>_k.qvkt"
cp "$work/cap/layer2_keys.qvkt" "$three"
four="$hostile/$(printf 'not\377utf8\\u003c')_k.qvkt"
cp "$work/cap/layer3_keys.qvkt" "$four"
run "$@" "$kvtile" eval "$one" "$two" "$three" "$four" --no-speed --schemes kv6,kv4,q4_0,e4m3 --report "$work/hostile.html"
[ "$(grep -o '</script' "$work/hostile.html" | wc -l)" -eq "$(grep -o '</script' "$work/attention.html" | wc -l)" ] || fail "a name ends a script"
data_of "$work/hostile.html" | "$jq" -r '.inputs[:3][].name' >"$work/names"
printf '%s\n' "$one" "$two" "$three" | cmp - "$work/names" || fail "names are not as they were"

# ---- errors come before the measuring, and leave what is there
keys="$work/cap/layer0_keys.qvkt"
quick="--schemes kv4 --rotation none --no-speed"
mkdir "$work/empty"
# shellcheck disable=SC2086
{
    expect_error 1 "No such file or directory" "$@" "$kvtile" eval "$keys" $quick --report "$work/nowhere/page.html"
    expect_error 1 "Is a directory" "$@" "$kvtile" eval "$keys" $quick --report "$work/empty"
    run "$@" "$kvtile" eval "$keys" $quick --report /dev/null
    if "$@" "$kvtile" eval "$keys" $quick --report /dev/full >"$work/stdout" 2>"$work/stderr"; then fail "a page on a full device"; fi
    grep -q "No space left on device" "$work/stderr" || fail "a page on a full device: $(cat "$work/stderr")"
    [ -c /dev/full ] || fail "--report replaces a device"
    expect_error 1 "cannot be written" "$@" "$kvtile" eval "$keys" $quick --report ""
    expect_error 2 "cannot both go to stdout" "$@" "$kvtile" eval "$keys" $quick --json --report -
    # The name of the page was forgotten: what follows is an input, and stays one.
    cp "$keys" "$work/precious.qvkt"
    expect_error 1 "is no page" "$@" "$kvtile" eval "$keys" $quick --report "$work/precious.qvkt"
    cmp "$keys" "$work/precious.qvkt" || fail "--report replaces an input"
    # An input that is missing, or the disk that is full (here: a limit on files, half a page), leaves the page that was there.
    cp "$work/attention.html" "$work/empty/page.html"
    expect_error 1 "cannot be opened" "$@" "$kvtile" eval "$work/missing.npy" $quick --report "$work/empty/page.html"
    cmp "$work/attention.html" "$work/empty/page.html" || fail "an error replaces a page"
    expect_error 1 "cannot be written" sh -c 'trap "" XFSZ; ulimit -f 200; exec "$@" >/dev/null' sh "$@" "$kvtile" eval "$keys" $quick --report "$work/empty/page.html"
    cmp "$work/attention.html" "$work/empty/page.html" || fail "a full disk replaces a page"
    : >"$work/empty/nothing.html"
    run "$@" "$kvtile" eval "$keys" $quick --report "$work/empty/nothing.html"
    [ -s "$work/empty/nothing.html" ] || fail "an empty file stays empty"
}
# Interrupted while it measures.
"$@" "$kvtile" eval --attention "$work"/cap/* --queries 300 --effort all --report "$work/empty/page.html" >"$work/stdout" 2>&1 &
sleep 0.3
kill -TERM $! 2>/dev/null || true
wait $! 2>/dev/null || true
[ -s "$work/stdout" ] || cmp "$work/attention.html" "$work/empty/page.html" || fail "an interruption replaces a page"
[ "$(find "$work/empty" -type f | wc -l)" -eq 2 ] || fail "left behind: $(find "$work/empty" -type f)"

# ---- what people see
if [ "$browser" != none ]; then
    command -v "$browser" >/dev/null || { echo "FAILED: no chromium to look at the pages: apt-get install chromium, and configure again"; exit 1; }
    # Fields of other measurements, and hardly any.
    # shellcheck disable=SC2016
    data_of "$work/attention.html" | "$jq" -c '.results |= map(. as $r | . + {
        kl_mean_low: (.kl_mean / 2 - 0.001), kl_mean_high: (.kl_mean * 2), perplexity_ratio: 1.1, log_perplexity_ratio_low: 0, bits_all_told: 5,
        by_head: [range(6) | { layer: "layer\(. / 2 | floor)_values.qvkt", kv_head: (. % 2), kl_mean: ($r.kl_mean * (1 + .)), output_error: null }],
        by_position: [range(8) | { first: (32 * .), last: (32 * . + 31), kl_mean: ($r.kl_mean * (1 + .)) }]
    }) | .results += [{ format: "another", bits_per_element: 4.5, kl_mean: 0.01 }]' >"$work/fields"
    echo '{"kvtile":"0","kind":"another","arguments":[],"inputs":[],"results":[]}' >"$work/nothing"
    for name in fields nothing; do
        { sed '/^<script id="data"/,$d' "$work/attention.html"
          printf '<script id="data" type="application/json">%s</script>\n' "$(cat "$work/$name")"
          sed '1,/^<script id="data"/d' "$work/attention.html"; } >"$work/$name.html"
    done
    PYTHONDONTWRITEBYTECODE=1 python3 "$here/check_page.py" "$browser" "$work" || fail "pages in the browser"
    "$jq" -S . "$work/kvtile-eval.json" >"$work/downloaded"
    data_of "$work/attention.html" | "$jq" -S . | cmp - "$work/downloaded" || fail "what is downloaded are other numbers"
    mkdir -p "$folder"
    cp "$work"/*.png "$work"/*.pdf "$folder"
fi

finish
