#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares `kvtile size --engine llama.cpp` with what llama.cpp itself allocates, for small models of many architectures.

    llama_cpp.py --kvtile build/release/bin/kvtile [--work DIR] [--only NAME] [--table]

Run by hand: it fetches libllama and the headers that belong to it from npm (46 MB, once, into --work) and builds llama_cpp_allocations.c. Each model
of llama_cpp_models.py is a GGUF file of metadata; llama.cpp makes the model of it, with weights that nobody reads, and a context for each of
SETTINGS; the bytes of the tensors that it then asks memory for are compared with the bytes that kvtile says of the same file. Any difference is an
error. --table prints the Markdown table of docs/sizing.md.
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import sys

import llama_cpp_models

VERSION = "3.21.1"  # of the npm packages; llama.cpp v0.4.0
HERE = pathlib.Path(__file__).resolve().parent

# context, sequences, ubatch, keys, values, unified, swa_full, flash attention, tokens drafted
SETTINGS = [
    (4096, 1, 512, "f16", "f16", 1, 0, 1, 0),
    (20000, 3, 512, "q8_0", "q4_0", 1, 0, 1, 0),
    (12001, 5, 256, "bf16", "q5_1", 0, 0, 1, 0),
    (9000, 2, 1024, "f16", "f16", 1, 1, 1, 0),
    (6000, 2, 512, "q4_0", "f16", 1, 0, 0, 0),
    (8192, 2, 512, "f16", "f16", 1, 0, 1, 3),
]

KINDS = {int: 4, float: 6, bool: 7, str: 8}  # GGUF's numbers of u32, f32, bool and string


def pack(value):
    if isinstance(value, bool):
        return struct.pack("<?", value)
    if isinstance(value, int):
        return struct.pack("<I", value)
    if isinstance(value, float):
        return struct.pack("<f", value)
    return struct.pack("<Q", len(value.encode())) + value.encode()


def write_gguf(path, model):
    """Metadata alone: no tensors."""
    keys = {"general.architecture": model.architecture, "tokenizer.ggml.model": "no_vocab"}
    for name, value in model.keys.items():
        keys[name[1:] if name.startswith("/") else f"{model.architecture}.{name}"] = value
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
    for name, value in keys.items():
        data += pack(name)
        if isinstance(value, list):
            data += struct.pack("<IIQ", 9, KINDS[type(value[0])], len(value)) + b"".join(pack(item) for item in value)
        else:
            data += struct.pack("<I", KINDS[type(value)]) + pack(value)
    path.write_bytes(data + bytes(-len(data) % 32))


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **options).stdout


def fetch(work):
    """libllama and the program that asks it; returns the program and the folder of the backends."""
    libraries = work / "libraries"
    program = work / "allocations"
    if not (libraries / "done").exists():
        libraries.mkdir(parents=True, exist_ok=True)
        for package in ("@node-llama-cpp/linux-x64", "node-llama-cpp"):
            archive = run("npm", "pack", "--silent", f"{package}@{VERSION}", cwd=work).strip()
            run("tar", "xzf", work / archive, "-C", libraries, f"--transform=s,^package,{package.replace('/', '-')},")
        run("git", "clone", "-q", libraries / "node-llama-cpp/llama/gitRelease.bundle", libraries / "source")
        (libraries / "done").touch()
    backends = libraries / "@node-llama-cpp-linux-x64/bins/linux-x64"
    source = libraries / "source"
    run(os.environ.get("CC", "cc"), "-O1", "-Wall", "-Wextra", "-Werror", f"-I{source}/include", f"-I{source}/ggml/include", "-o", program,
        HERE / "llama_cpp_allocations.c", *sorted(backends.glob("libllama.v*.so")), *sorted(backends.glob("libggml.v*.so")),
        backends / "libggml-base.so", f"-Wl,-rpath,{backends}", "-ldl")
    return program, backends


def allocated(program, backends, path, never, setting, mtp):
    """The bytes of each kind of tensor, or a sentence why there are none."""
    line = " ".join(str(word) for word in (*setting, int(mtp)))
    done = subprocess.run([program, backends, path, never], input=line + "\n", capture_output=True, text=True,
                          env=os.environ | {"GGML_NO_BACKTRACE": "1"})
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    if done.stdout.startswith("error"):
        return done.stdout[6:].strip() or "error"
    return {name: int(size) for name, size in (pair.split("=") for pair in done.stdout.split()[2:])}


def said(kvtile, path, setting, architecture):
    context, sequences, ubatch, k, v, unified, swa_full, flash, draft = setting
    command = [kvtile, "size", path, "--engine", "llama.cpp", "--json", "--ctx", context, "--seqs", sequences, "--ubatch", ubatch, "--k", k, "--v", v]
    command += ["--swa-full"] * swa_full + ["--no-unified"] * (not unified) + ["--flash-attn", "off"] * (not flash)
    command += ["--draft", draft] if draft else []
    command += ["--encoder", 512] if architecture == "t5" else []  # must be said, though llama.cpp stores no rows of it
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["error"])[0]
    return json.loads(done.stdout)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kvtile", required=True, type=pathlib.Path)
    arguments.add_argument("--work", default="/tmp/kvtile-llama-cpp", type=pathlib.Path)
    arguments.add_argument("--only")
    arguments.add_argument("--table", action="store_true")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    program, backends = fetch(options.work)

    wrong = compared = refused = 0
    rows = []
    architectures = set()
    for number, model in enumerate(llama_cpp_models.models()):
        if options.only and options.only not in model.label:
            continue
        path = options.work / f"{number}.gguf"
        write_gguf(path, model)
        settings = SETTINGS
        if "attention.key_length_mla" in model.keys or model.architecture == "deepseek4":
            settings = [(*setting[:4], setting[3], *setting[5:]) for setting in SETTINGS] + SETTINGS[1:2]  # of one type; of two they are refused
        for setting in settings:
            answer = allocated(program, backends, path, model.never, setting, False)
            if setting[8] and "nextn_predict_layers" in model.keys and isinstance(answer, dict):
                draft = allocated(program, backends, path, model.never, setting, True)
                answer = draft if isinstance(draft, str) else answer | {f"draft_{name}": size for name, size in draft.items()}
            total = answer if isinstance(answer, str) else sum(answer.values())
            ours = said(options.kvtile, path, setting, model.architecture)
            ours_total = ours if isinstance(ours, str) else ours["total_bytes"]
            if isinstance(total, str) and "GGML_ASSERT" in total:
                print(f"{model.label} {setting}: llama.cpp aborts, so there is nothing to compare: {total}", file=sys.stderr)
                continue
            if isinstance(total, str):
                good = isinstance(ours_total, str)
                refused += good
            else:
                good = total == ours_total
                compared += 1
                architectures.add(model.architecture)
            rows.append((model.label, setting, total, ours_total, good))
            if not good:
                wrong += 1
                if not options.table:
                    print(f"{model.label} {setting}: llama.cpp {total}, kvtile {ours_total}", answer if isinstance(answer, dict) else "")
    if options.table:
        for label in dict.fromkeys(row[0] for row in rows):
            of_model = [row for row in rows if row[0] == label and not isinstance(row[2], str)]
            equal = sum(row[4] for row in of_model)
            print(f"| {label} | {of_model[0][2]:,} | {of_model[0][3]:,} | {equal} of {len(of_model)} |")
    print(f"{compared} totals of {len(architectures)} architectures compared, {refused} refused by both, {wrong} differ", file=sys.stderr)
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
