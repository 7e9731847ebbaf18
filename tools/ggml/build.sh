#!/bin/sh
# SPDX-License-Identifier: MIT
# build.sh [LLAMA_CPP]: builds the plug-in for llama.cpp, with the headers of a checkout, or with those that npm has.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=tools/packages.sh
. tools/packages.sh
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_BUILD git
if [ $# -eq 0 ]; then
    command -v npm >/dev/null || kvt_install_packages npm
    tools/ggml/fetch.sh build/ggml headers
    set -- "$PWD/build/ggml/llama.cpp"
fi
cmake --preset release -DKVT_GGML_HEADERS="$1/ggml"
cmake --build --preset release --target kvt_ggml
echo "llama.cpp's programs use it with GGML_BACKEND_PATH=$PWD/build/release/libkvtile-ggml.so"
