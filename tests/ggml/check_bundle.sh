#!/bin/sh
# SPDX-License-Identifier: MIT
# check_bundle.sh FOLDER: makes the plug-in as one file with its licences, and has llama.cpp load it. FOLDER is that of check_llama.sh, which has been run.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(cd "$1" && pwd)
cd "$here"
cmake --preset plug-in -DKVT_GGML_HEADERS="$folder/llama.cpp/ggml"
cmake --build --preset plug-in

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -xzf build/plug-in/kvtile-ggml-*.tar.gz -C "$work" --strip-components=1
for file in README.md licences/kvtile.txt licences/xxhash.txt; do
    [ -s "$work/$file" ] || { echo "the bundle has no $file" >&2; exit 1; }
done
plugin=$work/libkvtile-ggml.so
needs=$(readelf -d "$plugin" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|libdl|libpthread|ld-linux[-a-z0-9]*)\.so' || true)
[ -z "$needs" ] || { echo "it needs more than the C library: $needs" >&2; exit 1; }
names=$(nm --dynamic --defined-only "$plugin" | awk '{ print $3 }')
[ "$names" = ggml_backend_init ] || { echo "it has other names than ggml_backend_init: $names" >&2; exit 1; }
glibc=$(objdump -T "$plugin" | sed -n 's/.*(GLIBC_\([0-9.]*\)).*/\1/p' | sort -V | tail -n 1)
[ "$(printf '%s\n2.35\n' "$glibc" | sort -V | tail -n 1)" = 2.35 ] || { echo "it needs glibc $glibc" >&2; exit 1; }
for way in balanced f16; do
    KVTILE=$way,report LD_LIBRARY_PATH="$folder/bin" GGML_BACKEND_PATH="$plugin" "$folder/check_llama" "$folder/model.gguf" "$folder/bin" 1 answer \
        >"$work/answer" 2>"$work/messages"
    grep -q "30 of 30 layers" "$work/messages" || { echo "the plug-in was not used" >&2; exit 1; }
    cat "$work/answer"
done
echo "$(cd build/plug-in && du -h kvtile-ggml-*.tar.gz): needs glibc $glibc"
