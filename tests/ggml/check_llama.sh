#!/bin/sh
# SPDX-License-Identifier: MIT
# check_llama.sh FOLDER: builds the plug-in, and has check_llama compare llama.cpp with and without it; FOLDER is that of tools/ggml/fetch.sh.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(cd "$1" && pwd)
bin=$folder/bin
cmake --preset dev -S "$here" -DKVT_GGML_HEADERS="$folder/llama.cpp/ggml"
(cd "$here" && cmake --build --preset dev --target kvt_ggml)
# Backends are found when it runs.
cc -std=c11 -O2 -Wall -Wextra -Werror -o "$folder/check_llama" "$here/tests/ggml/check_llama.c" -isystem "$folder/llama.cpp/include" \
    -isystem "$folder/llama.cpp/ggml/include" "$bin"/libllama.*.so "$bin"/libggml.*.so "$bin/libggml-base.so" -lm \
    "-Wl,-rpath,$bin,--allow-shlib-undefined"
export LD_LIBRARY_PATH="$bin" GGML_BACKEND_PATH="$here/build/dev/libkvtile-ggml.so"

if [ ! -f "$folder/two.gguf" ]; then
    "$folder/check_llama" --widen "$folder/model.gguf" "$folder/wide.gguf"
    "$folder/check_llama" --shorten "$folder/wide.gguf" "$folder/two.gguf" 2
    rm "$folder/wide.gguf"
fi

# check MODEL KVTILE BOUND SCENE...
check() {
    echo "---- $1, KVTILE=$2"
    model=$folder/$1.gguf
    KVTILE=$2,report
    export KVTILE
    shift 2
    "$folder/check_llama" "$model" "$bin" "$@"
}
check model balanced 1 answer
check two f32 1e-5 logits threads unified split state shift copy copy_split fallback
check two balanced 0.1 logits threads unified split state shift copy copy_split

echo "---- a word that KVTILE has not"
if KVTILE=kv44 "$folder/check_llama" "$folder/model.gguf" "$bin" 1 answer 2>&1 | grep 'KVTILE: "kv44" is no preset'; then
    echo "and llama.cpp went on without the plug-in"
else
    exit 1
fi
