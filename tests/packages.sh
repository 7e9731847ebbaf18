#!/bin/sh
# SPDX-License-Identifier: MIT
# Debian packages: built, looked at by lintian, installed in a fresh Debian that has nothing but Debian's packages, used, and removed without a trace.
# For root, as it makes that Debian by debootstrap. It takes a few minutes, and Debian's mirror.
#   tests/packages.sh [FOLDER]    FOLDER keeps the fresh Debian for the next time
set -eu
cd "$(dirname "$0")/.."

# shellcheck source=tools/packages.sh
. tools/packages.sh
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_BUILD debootstrap lintian zsh fish

build=build/packages
cmake --preset packages
cmake --build --preset packages
rm -f "$build"/*.deb
cpack --config "$build/CPackConfig.cmake" -B "$build"
lintian --fail-on error,warning "$build"/*.deb

# Shells complete by what the programs list.
zsh -n tools/shell/_kvtile
fish -n tools/shell/kvtile.fish
completed=$(PATH=$PWD/$build/bin:$PATH bash -c '. tools/shell/kvtile.bash
    COMP_WORDS=(kvtile st) COMP_CWORD=1 && _kvtile && echo "${COMPREPLY[@]}"
    COMP_WORDS=(kvtile store --ve) COMP_CWORD=2 && _kvtile && echo "${COMPREPLY[@]}"
    COMP_WORDS=(kvtile-engine generate --thr) COMP_CWORD=2 && _kvtile && echo "${COMPREPLY[@]}"')
expected="store
--verify
--threads"
[ "$completed" = "$expected" ] || { echo "bash completes otherwise: $completed" >&2; exit 1; }

root=${1:-}
if [ -z "$root" ]; then
    root=$(mktemp -d)/debian
    trap 'rm -rf "${root%/debian}"' EXIT
fi
mirror=$(kvt_mirror)
[ -e "$root/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$root" "$mirror"
cp /etc/resolv.conf "$root/etc/"

# inside COMMAND...: in the fresh Debian.
inside() {
    kvt_inside "$root" "$@"
}
# listed FILE: all that is there, but for what dpkg, apt and ldconfig note and what programs have cached.
listed() {
    (cd "$root" && find . -path ./proc -prune -o -path ./sys -prune -o -path ./tmp -prune -o -path ./root -prune -o -path ./var/cache -prune \
        -o -path ./var/lib/apt -prune -o -path ./var/log -prune -o -path './var/lib/dpkg/*-old' -o -print | LC_ALL=C sort) >"$1"
}

# names FILE: of all packages that are there.
names() {
    # shellcheck disable=SC2016 # for dpkg-query
    inside dpkg-query -W -f '${Package}\n' | LC_ALL=C sort >"$1"
}

inside apt-get update -q
inside apt-get install -q -y --no-install-recommends gcc g++ libc6-dev cmake make pkg-config man-db
work=$(mktemp -d)
names "$work/packages"
listed "$work/before"

mkdir -p "$root/root/debs" "$root/root/examples"
cp "$build"/*.deb "$root/root/debs/"
cp docs/examples/engine.c docs/examples/raii.cpp tests/fuzz/corpus/config/qwen3-8b.json "$root/root/examples/"
awk '/^```/ { if (found) exit; text = ""; next } { text = text $0 "\n" } /^#include <kvtile\/model.h>/ { found = 1 } END { printf "%s", text }' \
    README.md >"$root/root/examples/sizes.c"
cat >"$root/root/examples/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(examples LANGUAGES C CXX)
find_package(kvtile REQUIRED)
find_package(Threads REQUIRED)
add_executable(engine engine.c)
target_link_libraries(engine PRIVATE kvtile::kvtile Threads::Threads)
add_executable(raii raii.cpp)
target_compile_features(raii PRIVATE cxx_std_17)
target_link_libraries(raii PRIVATE kvtile::kvtile_static)
add_executable(sizes sizes.c)
target_link_libraries(sizes PRIVATE kvtile::model)
END
cat >"$root/root/try.sh" <<'END'
set -eu
apt-get install -q -y --no-install-recommends ./debs/*.deb
kvtile size examples/qwen3-8b.json --scheme kv5/kv4 | grep -q '43,776 bytes'
kvtile info >/dev/null
kvtile-engine --help >/dev/null
for page in kvtile kvtile-size kvtile-eval kvtile-convert kvtile-bench kvtile-inspect kvtile-store kvtile-info kvtile-engine; do
    man "$page" 2>&1 | grep -qi "^$page(1)" || { echo "man $page does not open" >&2; exit 1; }
done
cd examples
cmake -B build >/dev/null
cmake --build build >/dev/null
build/engine >/dev/null
build/raii >/dev/null
[ "$(build/sizes qwen3-8b.json)" = "43776 bytes per token" ]
cc -O2 engine.c $(pkg-config --cflags --libs kvtile) -o by_pkg_config && ./by_pkg_config >/dev/null
cc -O2 sizes.c $(pkg-config --cflags --libs kvtile-model) -o sizes && [ "$(./sizes qwen3-8b.json)" = "43776 bytes per token" ]
ldd sizes | grep -q 'libkvtile-model.so.0'
echo "the packages work"
END
inside sh -c 'cd /root && sh try.sh'

names "$work/with"
# shellcheck disable=SC2046
inside apt-get purge -q -y --autoremove $(LC_ALL=C comm -13 "$work/packages" "$work/with")
rm -r "$root/root/debs" "$root/root/examples" "$root/root/try.sh"
listed "$work/after"
diff "$work/before" "$work/after" || { echo "something is left behind" >&2; exit 1; }
rm -r "$work"
echo "installed, used and removed: $(cd "$build" && echo ./*.deb)"
