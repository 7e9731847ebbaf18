#!/bin/sh
# SPDX-License-Identifier: MIT
# get.sh FOLDER: the sources of the libraries that the tools need, from Debian's mirror, with Debian's signature checked.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tools/packages.sh
. "$root/tools/packages.sh"
kvt_install_packages dpkg-dev
mkdir -p "$1/lists/partial"
cd "$1"
mirror=$(kvt_mirror)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >sources.list
apt() {
    apt-get -o Dir::Etc::sourcelist="$PWD/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$PWD/lists" -o APT::Sandbox::User=root -qq "$@"
}
apt update
apt source jansson popt zlib minizip pcre2 utf8proc benchmark check >log
