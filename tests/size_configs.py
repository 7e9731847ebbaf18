#!/usr/bin/env python3
"""Sizes config.json files of public repositories and compares with size_configs.txt. Run by hand: the files are not part of this project.

    size_configs.py FOLDER KVTILE      FOLDER/owner/name are checkouts of the repositories that the table names; a folder that ends with .git is read
                                       as a bare repository (FOLDER/owner/name.git)

A path "file.py#key" is a member of the dict MODEL_PRESETS of a Python file, which holds config.json files as literals. Rows whose repository is
absent are skipped by name. Ends with 1 when a size differs."""
import ast
import json
import os
import subprocess
import sys
import tempfile


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
    """A member of MODEL_PRESETS."""
    for node in ast.parse(text).body:
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if any(getattr(target, "id", "") == "MODEL_PRESETS" for target in targets):
            return json.dumps(ast.literal_eval(node.value)[key])
    raise KeyError(key)


def measure(kvtile, text, scratch):
    path = os.path.join(scratch, "config.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    run = subprocess.run([kvtile, "size", path, "--engine", "logical", "--scheme", "f16", "--ctx", "1", "--json"], capture_output=True, text=True)
    if run.returncode:
        return "refused: " + run.stderr.strip().split("config.json: ", 1)[-1]
    answer = json.loads(run.stdout)
    return f"{answer['bytes_per_token']['growing_bytes']}/{answer['bytes_per_token']['growing_tokens']} | " \
           f"{answer['bytes_per_token']['window']} | {answer['state_bytes_per_sequence']}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    table = os.path.join(os.path.dirname(os.path.abspath(__file__)), "size_configs.txt")
    right = wrong = 0
    absent = set()
    with open(table, encoding="utf-8") as rows, tempfile.TemporaryDirectory() as scratch:
        for row in rows:
            if row.startswith("#") or not row.strip():
                continue
            repository, path, expected = row.strip().split(" | ", 2)
            text = read(sys.argv[1], repository, path.split("#")[0])
            if text is None:
                absent.add(repository)
                continue
            found = measure(sys.argv[2], preset(text, path.split("#")[1]) if "#" in path else text, scratch)
            if found == expected:
                right += 1
            else:
                wrong += 1
                print(f"{repository} {path}: {found} instead of {expected}")
    for repository in sorted(absent):
        print(f"skipped: {repository} is not in {sys.argv[1]}")
    print(f"{right} right, {wrong} wrong")
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
