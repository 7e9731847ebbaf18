#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds kvtile on a Debian machine and shows what it does: what six models' KV caches take, what real keys and values lose, what attention loses by
# that, also as a page to look at, and a small model that runs on the tiles.
set -eu
cd "$(dirname "$0")/.."

# shellcheck source=tools/packages.sh
. tools/packages.sh
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_BUILD

cmake --preset release >&2
cmake --build --preset release --target kvtile_command kvtile_engine >&2

bin=build/release/bin
out=build/demo
page=build/kvtile-report.html
mkdir -p "$out"
model="--model tools/demo/gutenberg-3.5M.f16.bin --tokenizer tools/demo/tok2048.bin"
# shellcheck disable=SC2086
"$bin/kvtile-engine" capture $model --text tools/demo/chesterton-brown.txt --tokens 1024 --out "$out" >&2

echo
"$bin/kvtile" size --table
echo
echo "Keys and values of a small model (head_dim 64) over 1024 tokens of a book, stored in each scheme and read back:"
echo
"$bin/kvtile" eval "$out/layer1_keys.qvkt" "$out/layer1_values.qvkt"
echo
echo "What that does to attention, with the model's own queries:"
echo
"$bin/kvtile" eval --attention "$out"/*.qvkt --report "$page"
echo
echo "The model itself, its KV cache stored in each scheme (rotated): perplexity over the first 512 tokens of the book"
echo
# shellcheck disable=SC2086
"$bin/kvtile-engine" perplexity $model --text tools/demo/chesterton-brown.txt --tokens 512 --schemes all --rotation 64
echo
echo "and a text that it goes on with, from a cache of 4 bits:"
echo
# shellcheck disable=SC2086
"$bin/kvtile-engine" generate $model --prompt "Father Brown looked at the" --tokens 60 --scheme kv4 --rotation 64
echo
echo "What attention loses, as a page to look at: $PWD/$page"
