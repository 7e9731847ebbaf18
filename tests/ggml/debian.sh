#!/bin/sh
# debian.sh FOLDER: Debian's newest llama.cpp in a chroot, FOLDER/sid, with the plug-in of build/dev: its own tests, its benchmark, and its server under
# load. As root, by hand. FOLDER has model.gguf, and two.gguf of check_llama.sh: build/ggml is such a folder.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(cd "$1" && pwd)
sid=$folder/sid
if [ ! -d "$sid" ]; then
    debootstrap --variant=minbase sid "$sid"
    chroot "$sid" apt-get -o Acquire::Check-Valid-Until=false update
    chroot "$sid" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends llama.cpp llama.cpp-tools llama.cpp-tests libsleef3
fi
mkdir -p "$sid/kvtile"
cp "$here/build/dev/libkvtile-ggml.so" "$folder/model.gguf" "$folder/two.gguf" "$sid/kvtile"
mountpoint -q "$sid/proc" || mount -t proc proc "$sid/proc"

# with KVTILE COMMAND...: in the chroot, with the plug-in.
with() {
    way=$1
    shift
    KVTILE=$way,report GGML_BACKEND_PATH=/kvtile/libkvtile-ggml.so chroot "$sid" "$@"
}

echo "---- architectures"
with f32 /usr/libexec/x86_64-linux-gnu/llama.cpp-tests/test-llama-archs -s 1

echo "---- speed"
for threads in 1 2; do
    for type in f16 q8_0 q4_0; do
        chroot "$sid" llama-bench -m /kvtile/model.gguf -t $threads -fa 1 -ctk $type -ctv $type -p 2048 -n 24 -d 512,2048,8000 -r 1
    done
    for way in quality balanced compact tight; do
        with $way llama-bench -m /kvtile/model.gguf -t $threads -p 2048 -n 24 -d 512,2048,8000 -r 1
    done
done

echo "---- the server"
serve() {
    way=$1
    shift
    KVTILE=$way,report GGML_BACKEND_PATH=/kvtile/libkvtile-ggml.so "$here/tests/ggml/check_server.py" 600 8091 chroot "$sid" llama-server \
        -m /kvtile/two.gguf -np 4 --context-shift --slot-save-path /kvtile -t 1 "$@"
}
# Sequences that share blocks are rounded with others, so only rows that are not rounded give the answers that one client alone gets.
serve balanced -c 2048 --no-kv-unified
serve f16 -c 4096 --kv-unified
