#!/bin/sh
# SPDX-License-Identifier: MIT
# Builds the library without SLEEF and the tests of bits for another system, or with another compiler, and runs them where this machine can.
#   tests/platforms.sh PLATFORM [TEST...]     all tests, or golden, vec, exp and so on
#   tests/platforms.sh exchange PLATFORM...   each writes saved sequences and folders of blocks, and each attends to those of all with the same bits
# PLATFORM
#   here                            cc of this machine, or $CC; on a Mac, in Termux or on a board too: see docs/platforms.md
#   macos-arm64, macos-x86_64       zig cc; compiled, not run
#   arm64                           Debian's cross compiler and glibc, run by qemu-aarch64-static
#   musl-x86_64                     zig cc, static, run here
#   musl-arm64                      zig cc, static, run by qemu-aarch64-static: also for Android's shell (adb) and Termux
#   windows-x86_64                  Debian's mingw-w64, run by Wine
#   windows-x86_64-zig              zig cc, run by Wine
# $KVT_OPTIONS are further options for CMake, as -DKVT_FEW_TIERS=ON.
# $ZIG is a command that is zig; without it `python3 -m ziglang` (PyPI: ziglang). $QEMU_CPU chooses the CPU of qemu, $KVT_TEST_TIER one tier.
set -eu
cd "$(dirname "$0")/.."
if [ $# -eq 0 ]; then
    sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 2
fi
platform=$1
shift

if [ "$platform" = exchange ]; then
    folder=$PWD/build/platforms/exchange
    rm -rf "$folder"
    for writer in "$@"; do
        mkdir -p "$folder/$writer"
        tests/platforms.sh "$writer" "write=$folder/$writer"
    done
    for reader in "$@"; do
        for writer in "$@"; do
            echo "== written on $writer, read on $reader"
            tests/platforms.sh "$reader" "check=$folder/$writer" >"$folder/log" || {
                cat "$folder/log"
                exit 1
            }
        done
    done
    echo "exchange: each system attends to the files of each with the same bits: $*"
    exit
fi

build=$PWD/build/platforms/$platform${CC:+-$(basename "$CC")}
mkdir -p "$build/bin"

zig() {
    set_options="--toolchain tools/cmake/zig.cmake -DKVT_ZIG_TARGET=$1 -DKVT_XXHASH=${KVT_XXHASH:-/usr/include/xxhash.h}"
}

set_options=""
emulator=""
case $platform in
here) ;;
macos-arm64)
    zig aarch64-macos
    emulator=none
    ;;
macos-x86_64)
    zig x86_64-macos
    emulator=none
    ;;
arm64)
    set_options="--toolchain tools/cmake/arm64.cmake"
    emulator=qemu-aarch64-static
    ;;
musl-x86_64)
    zig x86_64-linux-musl
    ;;
musl-arm64)
    zig aarch64-linux-musl
    emulator=qemu-aarch64-static
    ;;
windows-x86_64)
    cp /usr/include/xxhash.h "$build/bin"
    set_options="-DCMAKE_SYSTEM_NAME=Windows -DCMAKE_C_COMPILER=x86_64-w64-mingw32-gcc-posix -DKVT_XXHASH_INCLUDE=$build/bin"
    emulator=tests/windows/wine.sh
    ;;
windows-x86_64-zig)
    zig x86_64-windows-gnu
    emulator=tests/windows/wine.sh
    ;;
*)
    echo "$0: no platform $platform" >&2
    exit 2
    ;;
esac
if command -v ninja >/dev/null; then
    export CMAKE_GENERATOR=Ninja
else
    export CMAKE_GENERATOR="Unix Makefiles"
fi

# shellcheck disable=SC2086 # words are wanted
cmake --preset plain -B "$build" $set_options ${KVT_OPTIONS:-} >"$build/configure.log" 2>&1 || {
    cat "$build/configure.log"
    exit 1
}
cmake --build "$build" >"$build/build.log" 2>&1 || {
    cat "$build/build.log"
    exit 1
}
grep -c 'warning:' "$build/build.log" | sed 's/^/warnings: /'
echo "$platform: $(uname -srm)"
sed -nE 's/^-- (The C compiler identification is|Tiers:)/\1/p' "$build/configure.log"
if [ "$emulator" = none ]; then
    for program in "$build"/bin/test_*; do
        file -b "$program"
    done | sort | uniq -c
    echo "$platform: compiled, not run"
    exit
fi
[ $# -gt 0 ] || set -- exp vec golden rope tiers rowformats attend mla saved
for test in "$@"; do
    program=$build/bin/test_$test
    case $test in
    write=* | check=*)
        program=$build/bin/exchange
        arguments="${test%%=*} ${test#*=}"
        ;;
    *) arguments="" ;;
    esac
    [ -f "$program" ] || program=$program.exe
    # shellcheck disable=SC2086 # none or two
    $emulator "$program" $arguments || {
        echo "$platform: $test FAILED" >&2
        exit 1
    }
done
echo "$platform: all passed: $*"
