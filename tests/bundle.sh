#!/bin/sh
# SPDX-License-Identifier: MIT
# The archives for 64-bit ARM: built, unpacked in a clean Debian 11 and in the newest, and run there by qemu, on several CPUs. For root, as it makes
# these systems by debootstrap; it needs zig (PyPI: ziglang) and Debian's mirror. The first time it takes about fifteen minutes.
#   tests/bundle.sh [FOLDER]      FOLDER keeps the systems for the next time
# $KVT_GGML_HEADERS: with the plug-in for llama.cpp, by the headers of that folder.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=tools/packages.sh
. tools/packages.sh
kvt_install_packages cmake ninja-build pkg-config debootstrap qemu-user-static binutils-aarch64-linux-gnu libxxhash-dev libjs-chart.js jq

roots=${1:-}
if [ -z "$roots" ]; then
    roots=$(mktemp -d)
    trap 'rm -rf "$roots"' EXIT
fi
mirror=$(kvt_mirror)

fail() {
    echo "$0: $*" >&2
    exit 1
}

for bundle in bundle-arm64 bundle-arm64-static; do
    headers=${KVT_GGML_HEADERS:-}
    [ $bundle = bundle-arm64 ] || headers="" # a plug-in is a shared library
    cmake --preset $bundle -DKVT_GGML_HEADERS="$headers"
    cmake --build --preset $bundle
    cpack --preset $bundle
done

# What the programs want of glibc, by its versions.
for file in build/bundle-arm64/bin/kvtile build/bundle-arm64/*/libkvtile.so build/bundle-arm64/tools/model/libkvtile-model.so; do
    newest=$(aarch64-linux-gnu-objdump -T "$file" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    [ "$(printf '%s\nGLIBC_2.31\n' "$newest" | sort -V | tail -n 1)" = GLIBC_2.31 ] || fail "$file needs $newest"
done

# Packages are unpacked and not configured, which programs of another CPU would have to do: the system has all its files, and runs nothing.
for suite in bullseye sid; do
    root=$roots/$suite
    [ -e "$root/etc/debian_version" ] || debootstrap --arch=arm64 --foreign --variant=minbase $suite "$root" "$mirror" >"$roots/$suite.log" ||
        fail "no $suite: $roots/$suite.log"
    rm -rf "$root/opt/kvtile"
    mkdir -p "$root/opt/kvtile"
    cp "$(command -v qemu-aarch64-static)" "$root/opt/qemu"
    for archive in build/bundle-arm64/kvtile-*.tar.gz build/bundle-arm64-static/kvtile-*.tar.gz; do
        tar -xzf "$archive" -C "$root/opt/kvtile"
        folder=/opt/kvtile/$(basename "$archive" .tar.gz)
        for cpu in cortex-a53 neoverse-n1 max,sve=off max,sve128=on,sve256=off,sve512=off max,sve256=on,sve-default-vector-length=32 max,sve512=on,sve-default-vector-length=64; do
            tiers=$(chroot "$root" /opt/qemu -cpu $cpu "$folder/bin/kvtile" info | grep '^usable tiers:')
            chroot "$root" /opt/qemu -cpu $cpu "$folder/bin/kvtile" size gemma-4-E2B --ctx 32k --scheme kv5/kv4 | grep -q '^total .* 61,870,080 bytes' ||
                fail "$suite, $cpu: another size"
            echo "$suite, $(basename "$folder"), $cpu: $tiers"
        done
        chroot "$root" /opt/qemu -cpu cortex-a53 "$folder/bin/kvtile" bench --quick --schemes f16,q8_0,kv4 >"$roots/quick"
        # The line to share is the last and may be longer.
        if head -n -1 "$roots/quick" | grep '.\{41\}'; then
            fail "$suite: bench --quick is wider than 40 columns"
        fi
        for run in a b; do
            chroot "$root" /opt/qemu -cpu cortex-a53 "$folder/bin/kvtile" bench --quick --schemes f16,q8_0,kv4 --ops attend --json >"$root/opt/kvtile/$run.json"
        done
        chroot "$root" /opt/qemu "$folder/bin/kvtile" bench --compare /opt/kvtile/a.json /opt/kvtile/b.json >"$roots/compared"
        grep -q '^3 cases: ' "$roots/compared" || fail "$suite: two runs do not compare"
        chroot "$root" /opt/qemu "$folder/bin/kvtile" bench --rank /opt/kvtile/a.json /opt/kvtile/b.json >"$roots/page.html"
        [ "$(grep -c '^<tr><td>' "$roots/page.html")" -eq 2 ] || fail "$suite: the page does not rank two machines"
    done
done

# What docs/platforms.md tells owners of phones to type, where they have the archive.
mkdir -p "$roots/phone"
cp build/bundle-arm64-static/kvtile-*.tar.gz "$roots/phone"
tests/check_snippets.py --leg phone . | sed 's/^kvtile-/qemu-aarch64-static -cpu cortex-a53 &/' >"$roots/typed"
(cd "$roots/phone" && sh -eux "$roots/typed" && jq -e '.results | length > 0' phone.json)
cat "$roots/quick" "$roots/compared"
echo "the archives run: $(ls build/bundle-arm64*/kvtile-*.tar.gz)"
