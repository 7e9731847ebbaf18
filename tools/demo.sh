#!/bin/sh
# Builds kvtile on a Debian machine and shows what it does: what six models' KV caches take, and what real keys and values lose.
set -eu
cd "$(dirname "$0")/.."

# shellcheck source=tools/packages.sh
. tools/packages.sh
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_BUILD

cmake --preset release >&2
cmake --build --preset release >&2

bin=build/release/bin
out=build/demo
mkdir -p "$out"
"$bin/kvtile-engine" capture --model tools/demo/gutenberg-3.5M.f16.bin --tokenizer tools/demo/tok2048.bin \
    --text tools/demo/chesterton-brown.txt --tokens 1024 --out "$out" >&2

echo
"$bin/kvtile" size --table
echo
echo "Keys and values of a small model (head_dim 64) over 1024 tokens of a book, stored in each scheme and read back:"
echo
"$bin/kvtile" eval "$out/layer1_keys.qvkt" "$out/layer1_values.qvkt"
