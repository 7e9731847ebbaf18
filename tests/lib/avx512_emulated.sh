#!/bin/sh
# SPDX-License-Identifier: MIT
# Tests on the AVX-512 tiers where no CPU has them: Bochs emulates the CPU, and a Linux kernel of Debian's runs test programs that are already built.
#   tests/lib/avx512_emulated.sh [BIN [TEST...]]
#     BIN   where programs were built (default: build/dev/bin); they may be linked dynamically
#     TEST  (default: test_tiers test_vec test_golden)
# One emulated machine for each tier, which must be the best that its CPU has; tests look at that tier alone. Everything that is installed comes from
# Debian's packages. Exit status 0 when every test passed on every tier; a tier that the library lacks is named as not run.
# Bochs runs some 10 to 200 million instructions a second: the tests above take a minute or two a tier on a free core.
# KVT_EMULATED_TIERS chooses among the tiers, KVT_EMULATED_SECONDS is the time that a machine has (default: 3600).
set -eu
cd "$(dirname "$0")/../.."
bin=${1:-build/dev/bin}
[ $# -gt 0 ] && shift
tests=${*:-test_tiers test_vec test_golden}
tiers=${KVT_EMULATED_TIERS:-avx512 avx512vnni avx512icl}
seconds=${KVT_EMULATED_SECONDS:-3600}

# shellcheck source=tools/packages.sh
. tools/packages.sh
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_EMULATED

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# cpu_of TIER: Bochs's CPU.
cpu_of() {
    case $1 in
    avx512) echo 'model=corei7_skylake_x' ;;
    avx512vnni) echo 'model=corei7_icelake_u, exclude_features="avx512vbmi"' ;;
    avx512icl) echo 'model=corei7_icelake_u' ;;
    *)
        echo "no emulated CPU has $1 as its best tier" >&2
        return 1
        ;;
    esac
}

# Built from the source package of a later Debian release: the CPUs of this one's Bochs, 2.7, have no AVX that Linux would use. A private apt configuration
# knows of that release, and only the tarball is taken.
get_bochs() {
    if [ -x build/emulated/bochs ]; then
        return 0
    fi
    # shellcheck disable=SC2016 # apt-get expands it
    archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' | grep -v security | head -n 1)
    mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/source"
    echo "deb-src $archive trixie main" >"$work/apt/sources"
    set -- -q -o Dir::Etc::SourceList="$work/apt/sources" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/apt/lists" \
        -o Dir::Cache="$work/apt" -o APT::Sandbox::User=root
    apt-get "$@" update >&2
    # 'URI' FILE SIZE HASH
    apt-get "$@" --print-uris --download-only source bochs | sed -n "s/^'\(.*\)' \(.*\.orig\.tar\.xz\) [0-9]* \(.*\)/\1 \2 \3/p" >"$work/apt/tarball"
    read -r uri file hash <"$work/apt/tarball"
    /usr/lib/apt/apt-helper "$@" download-file "$uri" "$work/$file" "$hash" >&2
    tar -xf "$work/$file" -C "$work/source" --strip-components=1
    echo "building Bochs: minutes" >&2
    (
        cd "$work/source"
        ./configure --enable-x86-64 --enable-cpu-level=6 --enable-avx --enable-evex --enable-all-optimizations --enable-pci \
            --enable-protection-keys --enable-cet --with-nogui --without-x --without-x11 --disable-plugins --disable-docbook CXXFLAGS=-O2 CFLAGS=-O2
        make -j"$(nproc)" bochs
    ) >"$work/build.log" 2>&1 || { tail -n 20 "$work/build.log" >&2; return 1; }
    cp "$work/source/bochs" build/emulated/bochs
}

# The kernel is downloaded, not installed.
get_kernel() {
    if [ ! -s build/emulated/vmlinuz ]; then
        package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
        (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2 && dpkg-deb -x linux-image-*.deb kernel)
        cp "$work"/kernel/boot/vmlinuz-* build/emulated/vmlinuz
    fi
}

# make_disc TIER: $work/TIER.iso, which boots, runs the tests and switches the machine off.
make_disc() {
    root=$work/$1.root
    disc=$work/$1.disc
    mkdir -p "$root/bin" "$root/proc" "$root/dev" "$root/tmp" "$root/tests" "$disc/isolinux"
    cp /bin/busybox "$root/bin/busybox"
    for test in $tests; do
        strip -o "$root/tests/$test" "$bin/$test"
        ldd "$bin/$test" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' >"$work/libraries"
        while read -r library; do
            mkdir -p "$root$(dirname "$library")"
            [ -e "$root$library" ] || strip -o "$root$library" "$library"
        done <"$work/libraries"
    done
    cat >"$root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
export CK_FORK=no KVT_EXPECT_TIER=$1 KVT_TEST_TIER=$1
for test in $tests; do
    /tests/\$test >/tmp/output 2>&1
    status=\$?
    /bin/busybox tail -n 12 /tmp/output
    echo "RESULT \$test \$status"
done
/bin/busybox sleep 2
/bin/busybox poweroff -f
INIT
    chmod +x "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$disc/initrd"
    cp build/emulated/vmlinuz "$disc/vmlinuz"
    cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$disc/isolinux/"
    # Without fsrm, as emulated REP MOVSB is not what a kernel that knows of fast short ones takes it for: it dies when it patches itself.
    cat >"$disc/isolinux/isolinux.cfg" <<CONFIG
default tests
label tests
 kernel /vmlinuz
 append initrd=/initrd console=ttyS0 quiet nokaslr mitigations=off clearcpuid=fsrm
CONFIG
    xorriso -as mkisofs -quiet -o "$work/$1.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table \
        "$disc" 2>"$work/xorriso" || { cat "$work/xorriso" >&2; return 1; }
}

# run_machine TIER: whether all tests passed.
run_machine() {
    cpu=$(cpu_of "$1") || return 1
    make_disc "$1" || return 1
    cat >"$work/bochsrc" <<CONFIG
cpu: $cpu, count=1, ips=50000000
memory: guest=512, host=512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$work/$1.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$work/$1.serial
display_library: nogui
log: $work/$1.log
panic: action=fatal
error: action=ignore
info: action=ignore
clock: sync=none
CONFIG
    status=0
    timeout "$seconds" build/emulated/bochs -q -f "$work/bochsrc" >"$work/$1.out" 2>&1 </dev/null || status=$?
    if [ "$status" -eq 124 ]; then
        echo "$1: stopped after $seconds seconds"
    fi # otherwise 1: switched off
    sed 's/\r$//' "$work/$1.serial" 2>/dev/null || { tail -n 20 "$work/$1.out"; return 1; }
    for test in $tests; do
        tr -d '\r' <"$work/$1.serial" | grep -qx "RESULT $test 0" || { echo "FAILED: $test on $1"; return 1; }
    done
}

mkdir -p build/emulated
get_bochs
get_kernel
failed=0
ran=0
for tier in $tiers; do
    if ! grep -q "KVT_TIER_ROW($tier," arch/isa.def; then
        echo "NOT RUN: $tier: the library has no such tier"
        continue
    fi
    echo "==== $tier"
    ran=$((ran + 1))
    run_machine "$tier" || failed=$((failed + 1))
done
echo "tiers: $((ran - failed)) passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$ran" -gt 0 ]
