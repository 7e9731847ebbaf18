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

# release: no root keeps this system's /proc, whatever has failed. Nothing is removed across a mount that stayed.
release() {
    for mounted in "$roots"/*/proc; do
        ! mountpoint -q "$mounted" || umount "$mounted"
    done
}
roots=${1:-}
if [ -z "$roots" ]; then
    roots=$(mktemp -d)
    trap 'release; rm -rf --one-file-system "$roots"' EXIT
else
    trap release EXIT
fi
[ -e "$roots/fresh/etc/debian_version" ] || debootstrap --variant=minbase bookworm "$roots/fresh" "$(kvt_mirror)"
cp /etc/resolv.conf "$roots/fresh/etc/"
kvt_inside "$roots/fresh" apt-get -q update

# typed LEG PACKAGE...: what check_snippets.py has of that leg, in a fresh Debian with these packages.
typed() {
    root=$roots/$1
    commands=$(tests/check_snippets.py --leg "$1" . | grep -v '^tools/test.sh$') # whose tests of terminals and devices need more than this root has
    shift
    release
    rm -rf --one-file-system "$root"
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
