#!/bin/sh
# SPDX-License-Identifier: MIT
# What was built can be installed, moved, and linked by pkg-config and by find_package, as shared and as static libraries. libkvtile-model is linked by
# README's program, which sizes a config.json and a GGUF file.
#   check_install.sh CMAKE GENERATOR BUILD_DIRECTORY SOURCE_DIRECTORY C_COMPILER
set -eu

cmake=$1
generator=$2
build=$3
root=$4
compiler=$5
source=$root/tests/lib/consumer.c
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/moved"
libraries=$(dirname "$(find "$work/moved" -name 'libkvtile.so')")

# The program of README that includes model.h, as it stands there.
awk '/^```/ { if (found) exit; text = ""; next } { text = text $0 "\n" } /^#include <kvtile\/model.h>/ { found = 1 } END { printf "%s", text }' \
    "$root/README.md" >"$work/sizes.c"
grep -q kvt_model_open "$work/sizes.c" || { echo "README.md has no program that includes kvtile/model.h" >&2; exit 1; }

# expect_sizes PROGRAM: of 8 heads in 36 layers, 84 bytes of kv5 and 68 of kv4 (head_dim 128); of 4 heads in 48 layers. What is wrong is said.
expect_sizes() {
    got=$("$1" "$root/tests/fuzz/corpus/config/qwen3-8b.json")
    [ "$got" = "43776 bytes per token" ] || { echo "$1: $got, not 43776 bytes per token" >&2; exit 1; }
    got=$("$1" "$root/tests/fuzz/corpus/gguf/qwen3.gguf")
    [ "$got" = "29184 bytes per token" ] || { echo "$1: $got, not 29184 bytes per token" >&2; exit 1; }
    if got=$("$1" "$work/moved/nosuch.gguf" 2>&1); then
        echo "$1 sizes a file that is not there" >&2
        exit 1
    fi
    [ "$got" = "$work/moved/nosuch.gguf: cannot be opened: No such file or directory" ] || { echo "$1: $got" >&2; exit 1; }
}

# by_pkg_config [FLAG...]: the two programs by what pkg-config says.
by_pkg_config() {
    # shellcheck disable=SC2046
    "$compiler" -o "$work/consumer" "$source" $(PKG_CONFIG_PATH=$libraries/pkgconfig pkg-config "$@" --cflags --libs kvtile) -Wl,-rpath,"$libraries"
    "$work/consumer"
    # shellcheck disable=SC2046
    "$compiler" -o "$work/sizes" "$work/sizes.c" $(PKG_CONFIG_PATH=$libraries/pkgconfig pkg-config "$@" --cflags --libs kvtile-model) \
        -Wl,-rpath,"$libraries"
    expect_sizes "$work/sizes"
}

# by_cmake SUFFIX: the same by CMake's targets whose names end with it.
by_cmake() {
    mkdir "$work/project$1"
    cat >"$work/project$1/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(kvtile REQUIRED)
add_executable(consumer $source)
target_link_libraries(consumer PRIVATE kvtile::kvtile$1)
add_executable(sizes $work/sizes.c)
target_link_libraries(sizes PRIVATE kvtile::model$1)
END
    "$cmake" -G "$generator" -S "$work/project$1" -B "$work/project$1/build" -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_C_COMPILER="$compiler" \
        >>"$work/log"
    "$cmake" --build "$work/project$1/build" >>"$work/log"
    "$work/project$1/build/consumer"
    expect_sizes "$work/project$1/build/sizes"
}

if [ -x "$work/moved/bin/kvtile" ]; then
    "$work/moved/bin/kvtile" size "$root/tests/fuzz/corpus/config/qwen3-8b.json" --scheme kv5/kv4 | grep -q '43,776 bytes' ||
        { echo "the installed kvtile does not run, or sizes otherwise" >&2; exit 1; }
fi
by_pkg_config
by_cmake ""
by_cmake _static
if objdump -p "$work/project_static/build/sizes" | grep -q 'NEEDED.*libkvtile'; then
    echo "a program that asks for the static libraries needs the shared ones" >&2
    exit 1
fi
# An installation without shared libraries.
find "$libraries" -name 'libkvtile*.so*' -exec rm {} +
by_pkg_config --static
echo "linked by pkg-config and CMake, shared and static"
