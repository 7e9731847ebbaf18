#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The table of docs/accuracy.md that llama.cpp's own tool makes: divergence of predictions with llama.cpp's caches and with the plug-in.

   measure_divergence.py [OPTIONS] PLUGIN MODEL TEXT LOGITS -- COMMAND...     COMMAND starts llama-perplexity; paths are those that it sees

   LOGITS is a file for those with a cache of f32: the table says how far others are from them. Weights of MODEL should be f32 (check_llama --widen):
   otherwise llama.cpp rounds what it multiplies with them to 8 bits, and that hides small differences.
   --context 2048   --chunks 1   --threads 1
   --ways f16,q8_0,q5_1,q4_0,iq4_nl,f32,kv8,...  types of llama.cpp's cache, and words of KVTILE with + for commas
It ends with the bounds that the project promises, and fails where one does not hold."""
import argparse
import os
import re
import subprocess
import sys

OWN = {"f16": 16, "q8_0": 8.5, "q5_1": 6, "q4_0": 4.5, "iq4_nl": 4.5}  # bits of llama.cpp's
KVTILE = {"f32": 32, "kv8": 8.44, "quality": 5.94, "balanced": 4.94, "compact": 4.44, "kv5/kv3": 4.44, "tight": 3.94}  # head_dim 64
FIGURES = {"mean": r"Mean +KLD: +(\S+)", "99 %": r"99\.0% +KLD: +(\S+)", "99.9 %": r"99\.9% +KLD: +(\S+)", "most": r"Maximum KLD: +(\S+)",
           "same top, %": r"Same top p: +(\S+)", "perplexity, %": r"Mean PPL\(Q\)/PPL\(base\) +: +(\S+)"}
BOUNDS = [("compact", "mean", 0.3, "q4_0"), ("compact", "99 %", 0.4, "iq4_nl"), ("balanced", "mean", 0.12, "q4_0"), ("kv8", "mean", 0.35, "q8_0")]


def run(command, extra, words=None, plugin=None):
    environment = dict(os.environ)
    if words:
        environment.update(KVTILE=words.replace("+", ","), GGML_BACKEND_PATH=plugin)
    done = subprocess.run(command + extra, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command + extra)}\n{done.stdout[-2000:]}")
    return done.stdout


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--context", default="2048")
    parser.add_argument("--chunks", default="1")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--ways", default=",".join(list(OWN) + list(KVTILE)))
    parser.add_argument("plugin")
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("logits")
    at = sys.argv.index("--")
    given, command = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1:]
    command += ["-m", given.model, "-f", given.text, "-c", given.context, "--chunks", given.chunks, "-t", given.threads, "--kl-divergence-base", given.logits]
    run(command, ["-fa", "on", "-ctk", "f32", "-ctv", "f32"])
    print("| cache | bits | " + " | ".join(FIGURES) + " |\n|---|" + "---:|" * (len(FIGURES) + 1), flush=True)
    found = {}
    for way in given.ways.split(","):
        is_own = way in OWN
        said = run(command, ["--kl-divergence"] + (["-fa", "on", "-ctk", way, "-ctv", way] if is_own else []), None if is_own else way, given.plugin)
        row = {name: float(re.search(pattern, said).group(1).rstrip("%")) for name, pattern in FIGURES.items()}
        row["perplexity, %"] = 100 * (row["perplexity, %"] - 1)
        found[way] = row
        name = f"llama.cpp {way}" if is_own else f"kvtile {way.split('+')[0]}"
        print(f"| {name} | {OWN[way] if is_own else KVTILE[way]} | " + " | ".join(f"{x:.3g}" for x in row.values()) + " |", flush=True)
    print()
    is_kept = True
    for way, figure, bound, other in BOUNDS:
        if way in found and other in found:
            ratio = found[way][figure] / found[other][figure]
            is_kept &= ratio <= bound
            print(f"{way.split('+')[0]}'s {figure} is {ratio:.3f} of {other}'s: at most {bound} is promised")
    sys.exit(not is_kept)


main()
