#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sizes config.json files of public repositories and compares with size_configs.txt and with size_reference.py, which computes them a second
time, and models of the catalogue with their files, which size_catalogue.txt names. Run by hand: the files are not part of this project.

    size_configs.py FOLDER KVTILE [CONFIG.json...]

FOLDER/owner/name are checkouts of the repositories that the table names; a folder that ends with .git is read as a bare repository
(FOLDER/owner/name.git). A path "file.py#key" is a member of the dict MODEL_PRESETS of a Python file, which holds config.json files as literals,
or the entry of its list test_configs whose model_type is the key. Each CONFIG.json, such as ../shared/fresh/*.json, is compared with
size_reference.py alone. Rows whose repository is absent are skipped by name. Ends with 1 when a size differs."""
import ast
import json
import os
import subprocess
import sys
import tempfile

import size_reference


def read(folder, repository, path):
    """Text of a file, or None when its repository is absent."""
    tree, bare = os.path.join(folder, repository), os.path.join(folder, repository + ".git")
    if os.path.isdir(tree):
        with open(os.path.join(tree, path), encoding="utf-8") as file:
            return file.read()
    if os.path.isdir(bare):
        return subprocess.run(["git", "-C", bare, "show", "HEAD:" + path], check=True, capture_output=True, text=True).stdout
    return None


def preset(text, key):
    """A member of MODEL_PRESETS or test_configs."""
    for node in ast.walk(ast.parse(text)):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        names = {getattr(target, "id", "") for target in targets}
        if "MODEL_PRESETS" in names:
            return json.dumps(ast.literal_eval(node.value)[key])
        if "test_configs" in names:
            for entry in node.value.elts:
                if any(k.value == "model_type" and v.value == key for k, v in zip(entry.keys, entry.values)):
                    return json.dumps(ast.literal_eval(entry))
    raise KeyError(key)


def size(kvtile, model):
    command = [kvtile, "size", model, "--engine", "logical", "--scheme", "f16", "--ctx", "1", "--json"]
    return subprocess.run(command, capture_output=True, text=True)


def write(text, scratch):
    path = os.path.join(scratch, "config.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def measure(kvtile, text, scratch):
    run = size(kvtile, write(text, scratch))
    if run.returncode:
        return "refused: " + run.stderr.strip().split("config.json: ", 1)[-1]
    answer = json.loads(run.stdout)
    return f"{answer['bytes_per_token']['growing_bytes']}/{answer['bytes_per_token']['growing_tokens']} | " \
           f"{answer['bytes_per_token']['window']} | {answer['state_bytes_per_sequence']}"


def computed(text):
    """What size_reference.py says."""
    try:
        return size_reference.reference(json.loads(text))
    except size_reference.Unknown as unknown:
        return f"no rule for {unknown}"


def caches(kvtile, model):
    """All that a model keeps, in order of kind; its draft layers are not in the answer."""
    run = size(kvtile, model)
    return sorted(map(json.dumps, json.loads(run.stdout)["layers"])) if run.returncode == 0 else run.stderr.strip()


def rows_of(name):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), encoding="utf-8") as rows:
        return [row.strip().split(" | ", 2) for row in rows if row.strip() and not row.startswith("#")]


class Tally:
    def __init__(self, folder, kvtile):
        self.folder, self.kvtile = folder, kvtile
        self.right = self.wrong = 0
        self.absent = set()

    def text(self, repository, path):
        text = read(self.folder, repository, path.split("#")[0])
        if text is None:
            self.absent.add(repository)
            return None
        return preset(text, path.split("#")[1]) if "#" in path else text

    def compare(self, what, found, expected):
        self.right += found == expected
        self.wrong += found != expected
        if found != expected:
            print(f"{what}: {found} instead of {expected}")


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    tally = Tally(sys.argv[1], sys.argv[2])
    with tempfile.TemporaryDirectory() as scratch:
        for repository, path, expected in rows_of("size_configs.txt"):
            text = tally.text(repository, path)
            if text is not None:
                tally.compare(f"{repository} {path}", measure(tally.kvtile, text, scratch), expected)
                if not expected.startswith("refused: "):
                    tally.compare(f"{repository} {path}, computed", computed(text), expected)
        for path in sys.argv[3:]:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            tally.compare(path, measure(tally.kvtile, text, scratch), computed(text))
        for name, repository, path in rows_of("size_catalogue.txt"):
            text = tally.text(repository, path)
            if text is not None:
                tally.compare(name, caches(tally.kvtile, name), caches(tally.kvtile, write(text, scratch)))
    for repository in sorted(tally.absent):
        print(f"skipped: {repository} is not in {tally.folder}")
    print(f"{tally.right} right, {tally.wrong} wrong")
    sys.exit(tally.wrong != 0)


if __name__ == "__main__":
    main()
