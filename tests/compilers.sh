#!/bin/sh
# SPDX-License-Identifier: MIT
# The tests of bits by the compilers and the SLEEF of one of Debian's suites, in a system of its own. For root, as it makes that by debootstrap; it needs
# Debian's mirror. A compiler takes two to three minutes.
#   tests/compilers.sh FOLDER SUITE COMPILER...     FOLDER keeps the system for the next time: tests/compilers.sh /tmp/sid sid gcc-16 clang-23
# $KVT_OPTIONS are further options for CMake; $KVT_TESTS the tests to be run (all). Each compiler builds without SLEEF and with it.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=tools/packages.sh
. tools/packages.sh
[ $# -ge 3 ] || {
    sed -n '3,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0" >&2
    exit 2
}
root=$1
suite=$2
shift 2
kvt_install_packages debootstrap
mirror=$(kvt_mirror)
[ -e "$root/etc/debian_version" ] || debootstrap --variant=minbase "$suite" "$root" "$mirror"
cp /etc/resolv.conf "$root/etc/"
inside() {
    kvt_inside "$root" "$@"
}
# A mirror may keep a suite for longer than its signature says.
inside apt-get -qq -o Acquire::Check-Valid-Until=false update
inside apt-get -qq -o Acquire::Check-Valid-Until=false install -y --no-install-recommends "$@" libc6-dev cmake ninja-build pkg-config libsleef-dev \
    libxxhash-dev >"$root/root/packages.log"

rm -rf "$root/root/kvtile"
mkdir -p "$root/root/kvtile"
git ls-files -z | xargs -0 tar -cf - | tar -xf - -C "$root/root/kvtile"
sleef=$(inside pkg-config --modversion sleef)
# shellcheck disable=SC2016 # for dpkg-query
glibc=$(inside dpkg-query -W -f '${Version}' libc6)
for compiler in "$@"; do
    for with in OFF ON; do
        # shellcheck disable=SC2086 # words are wanted
        inside CC="$compiler" KVT_OPTIONS="${KVT_OPTIONS:-} -DKVT_SLEEF=$with" sh -c 'rm -rf /root/kvtile/build; cd /root/kvtile && tests/platforms.sh here "$@"' \
            sh ${KVT_TESTS:-} >"$root/root/log" || {
            cat "$root/root/log" >&2
            exit 1
        }
        case $with in
        ON) name="SLEEF $sleef" ;;
        *) name="no SLEEF" ;;
        esac
        echo "$suite, glibc $glibc, $compiler, $name: $(grep '^The C compiler' "$root/root/log" | sed 's/.* is //'), $(tail -n 1 "$root/root/log")"
    done
done
