#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The speed table of docs/llama.cpp.md: llama-bench with llama.cpp's own caches and with the plug-in, in turns; medians of the rounds.

   measure_speed.py [OPTIONS] PLUGIN MODEL... -- COMMAND...     COMMAND starts llama-bench; paths are those that it sees

   --threads 1,2   --depths 512,2048,8000   --tokens 24   --prefill 2048   --rounds 1
   --ways f16,q8_0,q4_0,quality,balanced,compact,tight     types of llama.cpp's cache, and words of KVTILE
   --alone COMMAND     goes before each run, as one that keeps the machine free of other work"""
import argparse
import json
import os
import statistics
import subprocess
import sys

OWN = ("f16", "q8_0", "q4_0")  # llama.cpp's


def run(command, given, way, extra):
    environment = dict(os.environ)
    if way in OWN:
        extra = extra + ["-fa", "1", "-ctk", way, "-ctv", way]
    else:
        environment.update(KVTILE=way, GGML_BACKEND_PATH=given.plugin)
    done = subprocess.run(given.alone.split() + command + ["-r", "1", "-o", "json"] + extra, env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way}: {' '.join(command + extra)}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)[0]["avg_ts"]


def measure(command, given, what, extra):
    """A row of the table: speed of each way, the compact preset's ratio to the best of llama.cpp's."""
    found = {way: [] for way in given.ways}
    for _ in range(given.rounds):
        for way in given.ways:
            found[way].append(run(command, given, way, extra))
    speed = {way: statistics.median(each) for way, each in found.items()}
    own = [speed[way] for way in given.ways if way in OWN]
    ratio = f"{speed['compact'] / max(own):.2f}" if own and "compact" in speed else "-"
    print(f"| {what} | " + " | ".join(f"{speed[way]:.3g}" for way in given.ways) + f" | {ratio} |", flush=True)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--depths", default="512,2048,8000")
    parser.add_argument("--tokens", default="24")
    parser.add_argument("--prefill", default="2048")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", default="f16,q8_0,q4_0,quality,balanced,compact,tight")
    parser.add_argument("--alone", default="")
    parser.add_argument("plugin")
    parser.add_argument("models", nargs="+")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given, command = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1:]
    given.ways = given.ways.split(",")
    for model in given.models:
        print(f"\n{os.path.basename(model)}, tokens per second\n\n| threads, tokens | " + " | ".join(given.ways) + " | compact to the best own |")
        print("|---|" + "---:|" * (len(given.ways) + 1), flush=True)
        for threads in given.threads.split(","):
            start = command + ["-m", model, "-t", threads]
            for depth in filter(None, given.depths.split(",")):
                measure(start, given, f"{threads}, decoding {depth} deep", ["-p", "0", "-n", given.tokens, "-d", depth])
            for prefill in filter(None, given.prefill.split(",")):
                measure(start, given, f"{threads}, a prompt of {prefill}", ["-p", prefill, "-n", "0"])


main()
