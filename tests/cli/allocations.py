#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lets allocations of the commands fail, one at a time, and from main on also all from one on: each run ends with the same output as without a failure, or with
status 1, a message, the old output as it was and no temporary file.

Usage: allocations.py PRELOAD DEMO KVTILE ENGINE MOST STEP: of the first MOST allocations of each command every STEP-th, from a first one that depends
on the command. As many commands at a time as there are CPUs, each in a folder of its own."""
import concurrent.futures
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib

PRELOAD, DEMO, KVTILE, ENGINE = sys.argv[1:5]
MOST, STEP = int(sys.argv[5]), int(sys.argv[6])
MODEL = f"{DEMO}/gutenberg-3.5M.f16.bin"
BIN = os.path.dirname(KVTILE)
WORDS = ["--tokenizer", f"{DEMO}/tok2048.bin"]
TEXT = ["--text", "text"]
ASKED = b"Father\n"  # read by chat alone
CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 256, "head_dim": 64,
          "max_position_embeddings": 4096}

failures = 0


def fail(command, at, what):
    global failures
    failures += 1
    if failures <= 40:
        print(f"FAILED: allocation {at} of: {' '.join(command)}: {what}", flush=True)


def qvkt(path, heads, tokens, dim, seed):
    values = []
    for _ in range(heads * tokens * dim):
        seed = (seed * 1103515245 + 12345) % 2 ** 31
        values.append(seed / 2 ** 30 - 1)
    with open(path, "wb") as file:
        file.write(b"QVKT" + struct.pack("<4i", 0, heads, tokens, dim) + struct.pack(f"<{len(values)}f", *values))


def safetensors(path):
    head = json.dumps({"layers.0.k": {"dtype": "F32", "shape": [2, 32], "data_offsets": [0, 256]},
                       "layers.0.v": {"dtype": "F32", "shape": [2, 32], "data_offsets": [256, 512]}}).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(head)) + head + bytes(range(256)) * 2)


def gguf(path):
    def text(t):
        return struct.pack("<Q", len(t)) + t.encode()

    def number(key, value):
        return text(key) + struct.pack("<II", 4, value)
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama"), number("llama.block_count", 2), number("llama.context_length", 4096),
             number("llama.embedding_length", 256), number("llama.attention.head_count", 4), number("llama.attention.head_count_kv", 2)]
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs))


def make_inputs(folder):
    here = os.getcwd()
    os.chdir(folder)
    for layer in range(2):
        for n, kind in enumerate(("keys", "values", "queries")):
            qvkt(f"layer{layer}_{kind}.qvkt", 2, 70, 32, 7 * layer + n)
    qvkt("latents.qvkt", 1, 70, 48, 3)
    safetensors("cache.safetensors")
    gguf("model.gguf")
    os.mkdir("model")
    with open("model/config.json", "w") as file:
        json.dump(CONFIG, file)
    with open("text", "w") as file:
        file.write("Father Brown looked at the door.")
    with open("long", "w") as file:
        file.write("Father Brown looked at the door. " * 12)  # more than a block of tokens
    npy = b"\x93NUMPY\x01\x00\x76\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 32), }".ljust(117) + b"\n" + bytes(512)
    with open("keys.npy", "wb") as file:
        file.write(npy)
    with zipfile.ZipFile("keys.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("k.npy", npy)
    for making in ([KVTILE, "convert", "layer0_keys.qvkt", "--to", "ggml_q8_0", "-o", "q8"],
                   [ENGINE, "generate", "--model", MODEL, "--text", "text", "--tokens", "2", "--scheme", "kv5", "--save", "saved"] + WORDS,
                   [ENGINE, "generate", "--model", MODEL, "--text", "long", "--tokens", "2", "--store", "blocks"] + WORDS):
        subprocess.run(making, check=True, capture_output=True)
    os.chdir(here)


def commands():
    """Each with the name of what it writes, or None, and whether what it prints is the same each time."""
    layers = [f"layer{i}_{kind}.qvkt" for i in range(2) for kind in ("keys", "values", "queries")]
    kv4 = ["--schemes", "kv4"]
    quick = kv4 + ["--no-speed"]
    plain = ["--rotation", "none", "--centring", "none"]
    yield [KVTILE, "--version"], None, True
    yield [KVTILE, "--help"], None, True
    for name in ("size", "eval", "convert", "bench", "info", "inspect", "store"):
        yield [KVTILE, name, "--help"], None, True
    yield [KVTILE, "info"], None, True
    yield [KVTILE, "info", "--tier", "scalar", "--json"], None, True
    yield [KVTILE, "size", "--list"], None, True
    yield [KVTILE, "size", "gemma-4-E2B", "--budget", "8GiB", "--weights", "2GB"], None, True
    yield [KVTILE, "size", "GLM-4.7-Flash", "model", "model.gguf", "--schemes", "kv5,kv4", "--ctx", "8k,16k"], None, True
    yield [KVTILE, "size", "--table", "--json"], None, True
    yield [KVTILE, "size", "model/config.json", "--json"], None, True
    yield [KVTILE, "size", "model.gguf", "--json", "--budget", "1GiB"], None, True
    if shutil.which("gnuplot"):
        yield [KVTILE, "size", "model", "--plot", "out"], "out", True
    yield [KVTILE, "convert", "layer0_keys.qvkt", "--to", "ggml_q8_0", "-o", "out"], "out", True
    yield [KVTILE, "convert", "cache.safetensors", "--tensor", "layers.0.k", "--to", "ggml_q8_0", "-o", "out", "--json"], "out", True
    yield [KVTILE, "convert", "keys.npy", "--to", "vllm_int8", "-o", "out"], "out", True
    yield [KVTILE, "convert", "q8", "--from", "ggml_q8_0", "--dim", "32", "--to", "f16", "-o", "out"], "out", True
    yield [KVTILE, "convert", "q8", "--from", "ggml_q8_0", "--dim", "32", "--to", "ggml_q4_0", "-o", "out"], "out", True
    yield [KVTILE, "eval", "layer0_keys.qvkt", "layer1_keys.qvkt"] + quick, None, True
    yield [KVTILE, "eval", "layer0_keys.qvkt", "--schemes", "kv4,q8_0,ggml_q4_0"] + ["--no-speed", "--json"] + plain, None, True
    yield [KVTILE, "eval", "keys.npz", "cache.safetensors", "--csv"] + quick, None, True
    yield [KVTILE, "eval", "keys.npy", "--csv", "--mean"] + quick, None, True
    yield [KVTILE, "eval", "layer0_keys.qvkt", "--report", "out"] + quick, "out", True
    yield [KVTILE, "eval", "layer0_keys.qvkt", "--report", "-"] + quick + plain, None, True
    yield [KVTILE, "eval", "--attention", "--report", "out", "--queries", "4"] + kv4 + plain + layers, "out", True
    yield [KVTILE, "eval", "--attention", "--json", "--queries", "4", "--schemes", "balanced,ggml_q4_0"] + layers, None, True
    yield [KVTILE, "eval", "--budget", "4.75", "--queries", "4", "--schemes", "kv5,kv4"] + plain + layers, None, True
    yield [KVTILE, "eval", "--max-kl", "0.01", "--queries", "4", "--schemes", "kv5,kv4", "--json"] + plain + layers, None, True
    yield [KVTILE, "eval", "--latent", "latents.qvkt", "--rope-dim", "16", "--queries", "4"] + kv4 + plain, None, True
    yield [KVTILE, "eval", "--latent", "--rank", "32", "--queries", "4", "--json"] + kv4 + plain + layers, None, True
    yield [KVTILE, "eval", "--model", MODEL, "--tokens", "4", "--json"] + WORDS + TEXT + kv4 + plain, None, True
    yield [KVTILE, "eval", "--model", MODEL, "--tokens", "4", "--stress", "outliers", "--by-layer"] + WORDS + TEXT + kv4 + plain, None, True
    yield [KVTILE, "bench", "--quick", "--json", "--ops", "write", "--side", "k", "--where", "l2"] + kv4, None, False
    yield [KVTILE, "bench", "--quick", "--ops", "attend", "--where", "l2"] + kv4, None, False
    yield [f"{BIN}/kvtile-bench", "--benchmark_list_tests", "--benchmark_filter=read/q8_0/k/scalar"], None, True
    yield [f"{BIN}/kvtile-bench", "--benchmark_filter=read/q8_0/k/scalar/64/f32/plain/l2", "--benchmark_min_time=0.001"], None, False
    yield [f"{BIN}/kvtile-count", "--list"], None, True
    # (Not kvtile-compare: glibc's regexec says that nothing matches where it has no memory.)
    yield [KVTILE, "inspect", "saved"], None, True
    yield [KVTILE, "inspect", "saved", "--json"], None, True
    yield [KVTILE, "store", "blocks", "--list"], None, True
    yield [KVTILE, "store", "blocks", "--verify", "--json"], None, True
    yield [KVTILE, "store", "blocks", "--budget", "1GiB"], None, True
    yield [ENGINE, "--help"], None, True
    yield [ENGINE, "generate", "--model", MODEL, "--prompt", "Father", "--tokens", "2"] + WORDS, None, True
    yield [ENGINE, "generate", "--model", MODEL, "--prompt", "Father", "--tokens", "2", "--save", "out", "--preset", "compact"] + WORDS, "out", True
    yield [ENGINE, "generate", "--model", MODEL, "--resume", "saved", "--tokens", "2", "--scheme", "kv5"] + WORDS, None, True
    yield [ENGINE, "generate", "--model", MODEL, "--text", "long", "--tokens", "2", "--store", "blocks"] + WORDS, None, True
    yield [ENGINE, "generate", "--model", MODEL, "--text", "long", "--tokens", "2", "--store", "new"] + WORDS, None, True
    yield [ENGINE, "chat", "--model", MODEL, "--tokens", "2", "--scheme", "kv4"] + WORDS, None, True
    yield [ENGINE, "perplexity", "--model", MODEL, "--tokens", "3", "--threads", "2"] + WORDS + TEXT, None, False
    yield [ENGINE, "perplexity", "--model", MODEL, "--tokens", "3"] + WORDS + TEXT + kv4, None, False
    yield [ENGINE, "capture", "--model", MODEL, "--tokens", "2", "--out", "captured"] + WORDS + TEXT, "captured/layer0_keys.qvkt", True
    yield [ENGINE, "export", "--model", MODEL, "--out", "out"], "out", True


def run(folder, command, at=0, every=False):
    environment = dict(os.environ, LD_PRELOAD=PRELOAD, KVT_FAIL_AT=str(at), OPENBLAS_NUM_THREADS="1")
    if every:
        environment["KVT_FAIL_ALL"] = "1"
    return subprocess.run(command, cwd=folder, env=environment, input=ASKED, capture_output=True, timeout=120)


def count(folder, command):
    with tempfile.TemporaryFile() as file:
        environment = dict(os.environ, LD_PRELOAD=PRELOAD, KVT_FAIL_COUNT=str(file.fileno()), OPENBLAS_NUM_THREADS="1")
        good = subprocess.run(command, cwd=folder, env=environment, pass_fds=(file.fileno(),), input=ASKED, capture_output=True, timeout=120)
        file.seek(0)
        n, before_main = map(int, (file.readline() or "0 0").split())  # nothing from a command that crashes
    return good, n, before_main


def read_file(path):
    if path is None or not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def check(folder, command, output, is_steady, good, whole, old, at, every):
    if output is not None:
        with open(output, "wb") as file:
            file.write(old)
    if "new" in command:
        shutil.rmtree(f"{folder}/new", ignore_errors=True)
    result = run(folder, command, at, every)
    text = result.stderr.decode(errors="replace")
    now = read_file(output)
    left = [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names if name.startswith(".kvtile-")]
    for path in left:
        os.unlink(path)
    if left:
        fail(command, at, "a temporary file is left")
    if result.returncode == 0:
        if is_steady and result.stdout != good.stdout:
            fail(command, at, f"status 0 with another output: {result.stdout[-200:]!r} {text!r}")
        if now != whole:
            fail(command, at, "status 0, but the file is another one")
        return
    # 127: the dynamic linker had no memory.
    if result.returncode not in (1, 127):
        fail(command, at, f"status {result.returncode}: {text[-300:]!r}")
    if not text.strip():
        fail(command, at, f"status {result.returncode} without a message")
    if now not in (old, whole):
        fail(command, at, "the old output is touched")


def check_store(folder, command):
    """What a command without memory has left of a folder of blocks is whole."""
    for name in ("blocks", "new"):
        if name in command and os.path.isdir(f"{folder}/{name}"):
            result = subprocess.run([KVTILE, "store", "--verify", name], cwd=folder, capture_output=True, text=True)
            if result.returncode != 0:
                fail(command, 0, f"the folder of blocks is damaged: {result.stdout} {result.stderr}")


def check_command(inputs, command, output, is_steady):
    """The number of its runs."""
    runs = 0
    with tempfile.TemporaryDirectory() as parent:
        folder = f"{parent}/folder"
        shutil.copytree(inputs, folder)
        good, n, before_main = count(folder, command)
        if good.returncode != 0:
            fail(command, 0, f"fails anyway: {good.stderr.decode(errors='replace')}")
            return 0
        output = output and f"{folder}/{output}"
        whole = read_file(output)
        old = b"<!doctype html>" if "--report" in command else b"as it was"
        name = " ".join(command[1:]).encode()
        for at in range(1 + zlib.crc32(name) % STEP, min(n, MOST) + 1, STEP):
            check(folder, command, output, is_steady, good, whole, old, at, False)
            runs += 1
            if at > before_main:
                check(folder, command, output, is_steady, good, whole, old, at, True)
                runs += 1
        check_store(folder, command)
    return runs


def main():
    with tempfile.TemporaryDirectory() as inputs:
        make_inputs(inputs)
        page = subprocess.run([KVTILE, "eval", f"{inputs}/layer0_keys.qvkt", "--schemes", "kv4", "--no-speed", "--report", "-"], capture_output=True)
        bench = subprocess.run([KVTILE, "bench", "--help"], capture_output=True)
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            checks = []
            for command, output, is_steady in commands():
                if "--report" in command and page.returncode != 0 or "bench" in command and bench.returncode != 0 or not os.path.exists(command[0]):
                    print(f"not run, this kvtile was built without it: {' '.join(command)}")
                else:
                    checks.append(pool.submit(check_command, inputs, command, output, is_steady))
            runs = sum(done.result() for done in checks)
    print(f"{runs} runs, {failures} failures")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
