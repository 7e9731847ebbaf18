#!/bin/sh
# SPDX-License-Identifier: MIT
# README from its first command on, in a fresh Debian, and docs/platforms.md's one command for a board, in another: as they stand there, in clones of
# what is committed. For root, as it makes these systems by debootstrap; it needs Debian's mirror, and takes some fifteen minutes.
#   tests/newcomer.sh [FOLDER]    FOLDER keeps the systems
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=tools/packages.sh
. tools/packages.sh
kvt_install_packages debootstrap git

roots=${1:-}
if [ -z "$roots" ]; then
    roots=$(mktemp -d)
    trap 'umount "$roots"/*/proc 2>/dev/null || true; rm -rf "$roots"' EXIT
fi
[ -e "$roots/fresh/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$roots/fresh" "$(kvt_mirror)"
cp /etc/resolv.conf "$roots/fresh/etc/"
kvt_inside "$roots/fresh" apt-get -q update

# typed LEG PACKAGE...: what check_snippets.py has of that leg, in a fresh Debian with these packages.
typed() {
    root=$roots/$1
    commands=$(tests/check_snippets.py --leg "$1" . | grep -v '^tools/test.sh$') # whose tests of terminals and devices need more than this root has
    shift
    ! mountpoint -q "$root/proc" || umount "$root/proc"
    rm -rf "$root"
    cp -a "$roots/fresh" "$root"
    mount -t proc proc "$root/proc"
    kvt_inside "$root" apt-get -q install -y "$@"
    git clone -q . "$root/root/kvtile"
    # shellcheck disable=SC2016 # for the shell in there
    kvt_inside "$root" sh -euc 'cd ~/kvtile && printf "%s\n" "$1" >~/typed && sh -eux ~/typed' sh "$commands"
    umount "$root/proc"
}
typed board cmake gcc libxxhash-dev
typed newcomer sudo
# An engine is compiled as README says.
# shellcheck disable=SC2016 # for the shell in there
kvt_inside "$roots/newcomer" sh -euc 'cd ~ && cc kvtile/docs/examples/engine.c $(pkg-config --cflags --libs kvtile) && ./a.out >/dev/null && kvtile info'
