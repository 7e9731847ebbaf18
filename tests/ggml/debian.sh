#!/bin/sh
# SPDX-License-Identifier: MIT
# debian.sh FOLDER [STEP...]: Debian's newest llama.cpp in a chroot, FOLDER/sid, with the plug-in. As root, by hand; it needs npm and pip. FOLDER, which is
# that of tools/ggml/fetch.sh, may be empty, or not there. The plug-in is that of build/release, and for `server` one with AddressSanitizer, build/asan.
#     architectures   test-llama-archs: each architecture that llama.cpp knows
#     divergence      llama-perplexity: the table of docs/accuracy.md that llama.cpp's own tool makes; half an hour.
#                     KVT_DIVERGENCE has further options of measure_divergence.py
#     speed           llama-bench: the table of docs/llama.cpp.md; half an hour. KVT_ALONE is a command that keeps the machine free of other work,
#                     KVT_SPEED has further options of measure_speed.py
#     documents       what README and the documents tell users of llama.cpp to type, and to build: `.ci/run llama`
#     server          llama-server: four clients for KVT_SECONDS each (600), with a cache for each client, and with one for all
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
# shellcheck source=tools/packages.sh
. "$here/tools/packages.sh"
# shellcheck disable=SC2086
kvt_install_packages $KVT_PACKAGES_BUILD debootstrap git python3
"$here/tools/ggml/fetch.sh" "$1" headers binaries model
folder=$(cd "$1" && pwd)
shift
"$here/tests/ggml/check_llama.sh" "$folder" prepare
[ $# -gt 0 ] || set -- architectures documents divergence speed server
sid=$folder/sid
if [ ! -e "$sid/etc/debian_version" ]; then
    debootstrap --variant=minbase sid "$sid" "$(kvt_mirror)"
    kvt_inside "$sid" apt-get -o Acquire::Check-Valid-Until=false update
fi
kvt_inside "$sid" apt-get install -y --no-install-recommends llama.cpp llama.cpp-tools llama.cpp-tools-extra \
    llama.cpp-tests libsleef3 libasan8 >"$folder/sid.log"
mkdir -p "$sid/kvtile"
mountpoint -q "$sid/proc" || mount -t proc proc "$sid/proc"
cp "$folder/model.gguf" "$sid/kvtile"

# plugin FOLDER [OPTION...]: built there, and put into the chroot.
plugin() {
    build=$1
    shift
    cmake -S "$here" -B "$here/build/$build" -G Ninja -DKVT_GGML_HEADERS="$folder/llama.cpp/ggml" "$@" >"$folder/$build.log"
    cmake --build "$here/build/$build" --target kvt_ggml >>"$folder/$build.log"
    cp "$here/build/$build/libkvtile-ggml.so" "$sid/kvtile/$build.so"
}

architectures() {
    plugin release -DCMAKE_BUILD_TYPE=Release
    KVTILE=f32,report GGML_BACKEND_PATH=/kvtile/release.so chroot "$sid" /usr/libexec/x86_64-linux-gnu/llama.cpp-tests/test-llama-archs -s 1
}

divergence() {
    plugin release -DCMAKE_BUILD_TYPE=Release
    [ -f "$sid/kvtile/wide.gguf" ] || LD_LIBRARY_PATH=$folder/bin "$folder/check_llama" --widen "$folder/model.gguf" "$sid/kvtile/wide.gguf"
    cp "$here/tools/demo/chesterton-brown.txt" "$sid/kvtile"
    # shellcheck disable=SC2086
    "$here/tests/ggml/measure_divergence.py" --threads "$(nproc)" ${KVT_DIVERGENCE:-} /kvtile/release.so /kvtile/wide.gguf /kvtile/chesterton-brown.txt /kvtile/logits -- \
        chroot "$sid" llama-perplexity
    rm "$sid/kvtile/logits"
}

speed() {
    plugin release -DCMAKE_BUILD_TYPE=Release
    "$here/tests/ggml/random_gguf.py" "$sid/kvtile/random.gguf"
    # shellcheck disable=SC2086
    "$here/tests/ggml/measure_speed.py" --alone "${KVT_ALONE:-}" ${KVT_SPEED:-} /kvtile/release.so /kvtile/model.gguf /kvtile/random.gguf -- chroot "$sid" llama-bench
}

# Each command as it stands there. Those that talk are told one line, and the server one request.
documents() {
    plugin release -DCMAKE_BUILD_TYPE=Release
    cmake --build "$here/build/release" --target kvtile_command >>"$folder/release.log"
    chroot "$sid" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev libllama-dev libggml-dev curl >>"$folder/sid.log"
    typed=$sid/kvtile/typed
    rm -rf "$typed"
    mkdir -p "$typed/build/release" "$typed/tools/capture" "$typed/home" "$typed/programs"
    cp "$sid/kvtile/release.so" "$typed/libkvtile-ggml.so"
    ln -s ../../libkvtile-ggml.so "$typed/build/release/libkvtile-ggml.so"
    ln "$sid/kvtile/model.gguf" "$typed/model.gguf"
    cp "$here/tools/capture/capture.c" "$typed/tools/capture"
    cp "$here/tools/demo/chesterton-brown.txt" "$typed/text.txt"
    # kvtile is this Debian's, with its libraries.
    ldd "$here/build/release/bin/kvtile" | sed -n 's,.*=> \(/[^ ]*\) .*,\1,p' | grep -v '/lib[cm]\.so' | xargs cp -t "$typed/programs" "$here/build/release/bin/kvtile"
    cat >"$typed/run.sh" <<'END'
set -euo pipefail
cd /kvtile/typed
export HOME=$PWD/home
kvtile() { LD_LIBRARY_PATH=$PWD/programs programs/kvtile "$@"; }
llama-cli() {
    command llama-cli "$@" -n 8 --single-turn -p "$(head -c 1000 text.txt)" </dev/null >client.log 2>&1
    grep '30 of 30 layers' client.log
}
llama-server() {
    command llama-server "$@" --port 8092 >server.log 2>&1 &
    curl -s --retry 60 --retry-delay 1 --retry-all-errors -d '{"prompt": "Once upon a time", "n_predict": 16}' http://127.0.0.1:8092/completion |
        grep -o '"content":"[^"]*"'
    kill $!
    wait $! || true
}
export KVTILE=balanced,report
END
    "$here/tests/check_snippets.py" --leg llama "$here" >>"$typed/run.sh"
    echo "kvtile store blocks | grep '^blocks: [1-9]'" >>"$typed/run.sh"
    chroot "$sid" bash -x /kvtile/typed/run.sh
}

# serve KVTILE OPTION...
serve() {
    way=$1
    shift
    KVTILE=$way,report GGML_BACKEND_PATH=/kvtile/asan.so "$here/tests/ggml/check_server.py" "${KVT_SECONDS:-600}" 8091 chroot "$sid" \
        env LD_PRELOAD=/usr/lib/x86_64-linux-gnu/libasan.so.8 llama-server -m /kvtile/two.gguf -np 4 -c 2048 --context-shift --slots \
        --slot-save-path /kvtile -t 2 "$@"
}

server() {
    cp "$folder/two.gguf" "$sid/kvtile"
    # By gcc, whose sanitizer is a library that can be loaded first.
    plugin asan -DKVT_BUILD_BENCH=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_COMPILER=g++ -DBUILD_SHARED_LIBS=OFF -DKVT_FEW_TIERS=ON \
        -DKVT_NO_AVX512=ON -DCMAKE_C_FLAGS="-fsanitize=address -fno-omit-frame-pointer" -DCMAKE_CXX_FLAGS="-fsanitize=address -fno-omit-frame-pointer"
    serve balanced --no-kv-unified
    # Sequences that share blocks are rounded with others, so only rows that are not rounded give the answers that one client alone gets.
    serve f16 --kv-unified
}

for step in "$@"; do
    case $step in
    architectures | documents | divergence | speed | server)
        echo "---- $step"
        $step
        ;;
    *)
        echo "debian.sh: $step is none of architectures, documents, divergence, speed, server" >&2
        exit 2
        ;;
    esac
done
