#!/bin/sh
# SPDX-License-Identifier: MIT
# check_llama.sh FOLDER [prepare|first_tokens]: builds the plug-in, and has check_llama compare llama.cpp with and without it; FOLDER is that of
# tools/ggml/fetch.sh. With prepare it builds check_llama, makes two.gguf, and ends. With first_tokens it measures the time to the first token of a
# prompt: KVT_ALONE is a command that keeps the machine free of other work.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(cd "$1" && pwd)
bin=$folder/bin
# Backends are found when it runs.
cc -std=c11 -O2 -Wall -Wextra -Werror -o "$folder/check_llama" "$here/tests/ggml/check_llama.c" -isystem "$folder/llama.cpp/include" \
    -isystem "$folder/llama.cpp/ggml/include" "$bin"/libllama.*.so "$bin"/libggml.*.so "$bin/libggml-base.so" -lm \
    "-Wl,-rpath,$bin,--allow-shlib-undefined"
if [ ! -f "$folder/two.gguf" ]; then
    "$folder/check_llama" --widen "$folder/model.gguf" "$folder/wide.gguf"
    "$folder/check_llama" --shorten "$folder/wide.gguf" "$folder/two.gguf" 2
    rm "$folder/wide.gguf"
fi

[ "${2:-}" != prepare ] || exit 0

cmake --preset dev -S "$here" -DKVT_GGML_HEADERS="$folder/llama.cpp/ggml"
(cd "$here" && cmake --build --preset dev --target kvt_ggml)
export KVT_ALONE="${KVT_ALONE:-}" LD_LIBRARY_PATH="$bin" GGML_BACKEND_PATH="$here/build/dev/libkvtile-ggml.so"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ "${2:-}" = first_tokens ]; then
    for way in balanced f16; do
        export KVTILE=$way
        echo "---- $way: computed, and from a folder"
        $KVT_ALONE "$folder/check_llama" "$folder/model.gguf" "$bin" 1 own_first_token first_tokens 2>/dev/null
        export KVTILE_STORE="$work/$way"
        "$folder/check_llama" "$folder/model.gguf" "$bin" 1 first_tokens >/dev/null 2>&1
        $KVT_ALONE "$folder/check_llama" "$folder/model.gguf" "$bin" 1 first_tokens 2>/dev/null
        unset KVTILE_STORE
        du --bytes "$work/$way"
    done
    exit
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

# Prompts from a folder of blocks: computed without one, with an empty one and with a full one, logits are the same bits.
for way in balanced f16; do
    echo "---- two, KVTILE=$way, a folder of blocks"
    export KVTILE=$way,report
    "$folder/check_llama" "$folder/two.gguf" "$bin" 1 prefix >"$work/none" 2>"$work/messages"
    for state in empty full; do
        KVTILE_STORE=$work/blocks "$folder/check_llama" "$folder/two.gguf" "$bin" 1 prefix >"$work/$state" 2>"$work/messages"
        cmp "$work/none" "$work/$state"
        awk -v state=$state '/ tokens were taken/ { taken += $3 } END { print taken " tokens were not computed: " state; exit taken < 2000 }' "$work/messages"
    done
done
echo "---- KVTILE_STORE is no folder of blocks"
if KVTILE_STORE=$bin "$folder/check_llama" "$folder/model.gguf" "$bin" 1 answer 2>&1 | grep 'KVTILE_STORE: .*: holds other files'; then
    echo "and llama.cpp went on without the plug-in"
else
    exit 1
fi
