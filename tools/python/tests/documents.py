#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs what docs/python.md and docs/capture.md tell readers to type or to write in Python, as it stands there: small inputs take the place of theirs.

   documents.py SOURCE PART [MODEL]     PART: base, transformers or lmcache, by what its snippets need; MODEL: SmolLM2, as smollm2.py writes it

A section with snippets that no part has, or a snippet that nobody knows how to run, is an error."""
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

PARTS = {"kvtile for Python": "base", "Rows in, rows out, attention": "base", "A step of an engine": "base", "Hugging Face transformers": "transformers",
         "LMCache": "lmcache"}


def sections(path):
    """{heading: [(kind, text)]}: fenced blocks by their language, indented ones as "indented"."""
    found, heading, fence, indented = {}, None, None, None
    with open(path, encoding="utf-8") as file:
        for line in file.read().split("\n") + [""]:
            if fence is not None:
                if line.startswith("```"):
                    found.setdefault(heading, []).append((fence[0], "\n".join(fence[1])))
                    fence = None
                else:
                    fence[1].append(line)
                continue
            if indented is not None and not line.startswith("    "):
                found.setdefault(heading, []).append(("indented", "\n".join(indented)))
                indented = None
            if line.startswith("```"):
                fence = (line[3:], [])
            elif line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith("    "):
                indented = (indented or []) + [line[4:]]
    return found


def step_inputs():
    import numpy
    rows = numpy.random.default_rng(1).standard_normal((150, 32 + 2 * 8, 128)).astype("float32")
    return {"q": rows[:, :32], "k": rows[:, 32:40], "v": rows[:, 40:]}


def model_inputs(model):
    import transformers
    return {"name": model, "inputs": transformers.AutoTokenizer.from_pretrained(model)("Once upon a time", return_tensors="pt")}


def check_message(text, names):
    """A message that the documents show: an array in the other order brings it about."""
    try:
        names["store"].write(names["rows"][1].transpose(1, 0, 2))
    except names["kvtile"].Error as error:
        assert str(error) == text, f"the message is now: {error}"
        return
    raise AssertionError(f"nothing said: {text}")


def check_server(command):
    """`lmcache server` takes the adapter that the documents show: it says so itself, before it starts to serve."""
    import argparse
    from lmcache.v1.distributed.config import add_storage_manager_args
    from lmcache.v1.distributed.l2_adapters.config import parse_args_to_l2_adapters_config
    from lmcache.v1.distributed.serde.base import SerdeConfig
    from lmcache.v1.distributed.serde.factory import create_serde_processor
    words = shlex.split(command)
    assert words[:2] == ["lmcache", "server"], words
    given, rest = add_storage_manager_args(argparse.ArgumentParser()).parse_known_args([word for word in words[2:] if word != "..."] +
                                                                                       ["--l1-size-gb", "1", "--eviction-policy", "LRU"])
    adapter, = parse_args_to_l2_adapters_config(given).adapters
    assert set(rest) <= {"--chunk-size", "1024"}, rest
    __import__(adapter.module_path)
    serde = dict(json.loads(given.l2_adapter[0])["serde"])
    create_serde_processor(SerdeConfig(serde.pop("type"), serde)).close()


def check_capture(source, model):
    """docs/capture.md's script, run as the document says: a tensor of each kind for each layer."""
    import transformers
    snippets = sections(os.path.join(source, "docs/capture.md"))["From PyTorch"]
    script, = (text for kind, text in snippets if kind == "python")
    command, = (text for kind, text in snippets if kind == "indented" and text.startswith("python capture.py "))
    layers = transformers.AutoConfig.from_pretrained(model).num_hidden_layers
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "capture.py"), "w", encoding="utf-8") as file:
            file.write(script)
        words = {"MODEL": os.path.abspath(model), "TEXT": os.path.abspath(os.path.join(source, "tools/demo/chesterton-brown.txt")), "TOKENS": "64"}
        done = subprocess.run([sys.executable, *(words.get(word, word) for word in shlex.split(command)[1:])], cwd=folder, check=True,
                              stdout=subprocess.PIPE, text=True)
    assert done.stdout.endswith(f": {3 * layers} tensors of 64 tokens\n"), done.stdout


def main():
    source, part = sys.argv[1:3]
    found, run = sections(os.path.join(source, "docs/python.md")), 0
    unknown = set(found) - set(PARTS)
    assert not unknown, f"sections with snippets that no part runs: {unknown}"
    names = {}
    for heading in (name for name in PARTS if PARTS[name] == part):
        if heading == "A step of an engine":
            names.update(step_inputs())
        if part == "transformers":
            names.update(model_inputs(sys.argv[3]))
        assert heading in found, f"docs/python.md has no section {heading!r} with snippets"
        for kind, text in found[heading]:
            if kind == "python":
                exec(compile(text, f"docs/python.md, {heading}", "exec"), names)
            elif text.startswith("python -m kvtile "):
                subprocess.run([sys.executable, *shlex.split(text)[1:]], check=True, stdout=subprocess.DEVNULL)
            elif text.startswith("rows has shape"):
                check_message(text, names)
            elif text.startswith("lmcache server "):
                check_server(re.sub(r"\n\s+", " ", text))
            else:
                raise AssertionError(f"nobody knows how to run this {kind}: {text}")
            run += 1
    if part == "transformers":
        check_capture(source, sys.argv[3])
        run += 2
    print(f"{run} snippets of the documents were run ({part})")


main()
