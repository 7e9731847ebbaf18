# SPDX-License-Identifier: MIT
# Debian packages that the project needs: sourced by demo.sh, test.sh and CI.
# shellcheck shell=sh disable=SC2034

KVT_PACKAGES_BUILD="cmake ninja-build gcc g++ libc6-dev pkg-config libpopt-dev libjansson-dev libbenchmark-dev libsleef-dev
    libxxhash-dev liblapacke-dev libminizip-dev zlib1g-dev libpcre2-dev libutf8proc-dev libjs-chart.js"
KVT_PACKAGES_TEST="abigail-tools binutils check gnuplot-nox jq chromium python3 valgrind"
KVT_PACKAGES_LINT="git clang clang-format libclang-rt-14-dev shellcheck"
KVT_PACKAGES_EMULATED="binutils bochsbios busybox-static cpio g++ isolinux make syslinux-common vgabios xorriso xz-utils"
KVT_PACKAGES_WINDOWS="gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64-posix dpkg-dev wine wine64"
KVT_PACKAGES_ARM64="gcc-aarch64-linux-gnu g++-aarch64-linux-gnu qemu-user-static libc6-dev:arm64 libpopt-dev:arm64 libjansson-dev:arm64
    libbenchmark-dev:arm64 check:arm64 libsleef-dev:arm64 liblapacke-dev:arm64 libminizip-dev:arm64 zlib1g-dev:arm64
    libpcre2-dev:arm64 libutf8proc-dev:arm64"

# kvt_install_packages PACKAGE...: installs those that are missing, and calls apt-get only then.
kvt_install_packages() {
    kvt_missing=""
    for kvt_package in "$@"; do
        case "$(dpkg-query -W -f '${Status}' "$kvt_package" 2>/dev/null || true)" in
        *" installed") ;;
        *) kvt_missing="$kvt_missing $kvt_package" ;;
        esac
    done
    if [ -z "$kvt_missing" ]; then
        return 0
    fi
    echo "Installing:$kvt_missing" >&2
    kvt_sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        kvt_sudo=sudo
    fi
    case "$kvt_missing" in
    *:arm64*) $kvt_sudo dpkg --add-architecture arm64 ;;
    esac
    # Word splitting is wanted: a list of packages, and no word at all without sudo.
    # shellcheck disable=SC2086
    $kvt_sudo apt-get update -q >&2 &&
        $kvt_sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $kvt_missing >&2
}

# kvt_mirror: prints where apt-get has Debian's packages from.
kvt_mirror() {
    # shellcheck disable=SC2016 # for apt-get
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1
}

# kvt_inside ROOT COMMAND...: in another Debian, with nothing of this one's environment, and programs where root finds them there.
kvt_inside() {
    kvt_root=$1
    shift
    chroot "$kvt_root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}
