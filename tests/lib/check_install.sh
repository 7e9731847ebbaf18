#!/bin/sh
# What was built can be installed, moved, and linked by pkg-config and by find_package.
#   check_install.sh CMAKE GENERATOR BUILD_DIRECTORY CONSUMER_SOURCE C_COMPILER
set -eu

cmake=$1
generator=$2
build=$3
source=$4
compiler=$5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$cmake" --install "$build" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/moved"

pc=$(find "$work/moved" -name kvtile.pc)
flags=$(PKG_CONFIG_PATH=$(dirname "$pc") pkg-config --cflags --libs kvtile)
# shellcheck disable=SC2086
"$compiler" -o "$work/by_pkg_config" "$source" $flags -Wl,-rpath,"$(dirname "$(dirname "$pc")")"
"$work/by_pkg_config"

mkdir "$work/project"
cat >"$work/project/CMakeLists.txt" <<EOF
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES C)
find_package(kvtile REQUIRED)
add_executable(consumer $source)
target_link_libraries(consumer PRIVATE kvtile::kvtile)
EOF
"$cmake" -G "$generator" -S "$work/project" -B "$work/project/build" -DCMAKE_PREFIX_PATH="$work/moved" -DCMAKE_C_COMPILER="$compiler" >>"$work/log"
"$cmake" --build "$work/project/build" >>"$work/log"
"$work/project/build/consumer"
