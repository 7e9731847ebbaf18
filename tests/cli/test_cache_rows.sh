#!/bin/sh
# SPDX-License-Identifier: MIT
# Rows of the demonstration's model that went through a cache, as an engine stores them, have the figures that kvtile eval gives pages with centres of
# their own, to the ninth digit.
# Usage: test_cache_rows.sh JQ DEMO ENGINE CACHE KVTILE [EMULATOR...]
set -eu
jq=$1
demo=$2
engine=$3
cache=$4
kvtile=$5
shift 5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$@" "$engine" capture --model "$demo/gutenberg-3.5M.f16.bin" --tokenizer "$demo/tok2048.bin" --text "$demo/chesterton-brown.txt" --tokens 192 \
    --out "$work" >/dev/null
n=0
for side in keys values; do
    for layer in 0 3; do
        file=$work/layer${layer}_$side.qvkt
        "$@" "$cache" rows "$file" | sed "s/.*qvkt \([^ ]*\) from.*as $side \([-0-9.e+]*\) dB.*/\1 \2/" >"$work/stored"
        "$@" "$kvtile" eval "$file" --schemes kv8,kv6,kv5,kv4,kv3 --rotation 64 --centring own --from 64 --no-speed --json >"$work/json"
        "$jq" -r '.[] | [.scheme, .snr_db] | @tsv' "$work/json" | tr '\t' ' ' >"$work/evaluated"
        while read -r scheme snr; do
            grep -q "^$scheme " "$work/stored" || { echo "FAILED: $file: no $scheme" && exit 1; }
            awk -v a="$snr" -v b="$(awk -v s="$scheme" '$1 == s { print $2 }' "$work/stored")" \
                'BEGIN { d = a - b; exit !(a > 5 && d < 2e-7 && d > -2e-7) }' ||
                { echo "FAILED: $file, $scheme: $snr by eval, $(grep "^$scheme " "$work/stored") through the cache" && exit 1; }
            n=$((n + 1))
        done <"$work/evaluated"
    done
done
[ "$n" -eq 20 ] || { echo "FAILED: $n figures, not 20" && exit 1; }
echo "$n figures"
