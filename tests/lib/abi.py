#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The binary interface of a library, against the one that is written down.

   abi.py ABIDW ABIDIFF LIBRARY.so HEADERS DUMP          compares; 0: no program that was built before needs to be built again
   abi.py ABIDW ABIDIFF LIBRARY.so HEADERS DUMP --write  writes the dump: when something was added, or the soname has changed

The dump is abidw's (Debian: abigail-tools), without what no public function reaches, so that it does not depend on what the library includes."""
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree


def dump(abidw, library, headers):
    options = ["--headers-dir", headers, "--drop-private-types", "--no-comp-dir-path", "--no-corpus-path", "--short-locs", "--no-show-locs",
               "--type-id-style", "hash", "--no-elf-needed"]
    done = subprocess.run([abidw, *options, library], capture_output=True, check=True, text=True)
    return ElementTree.ElementTree(ElementTree.fromstring(done.stdout))


def prune(tree):
    """Leaves public functions, and the types that they reach."""
    units = tree.getroot().findall("abi-instr")
    types = {element.get("id"): element for unit in units for element in unit if element.get("id")}
    public = [element for unit in units for element in unit if element.get("elf-symbol-id")]
    reached, todo = set(), list(public)
    while todo:
        for part in todo.pop().iter():
            for name in ("type-id", "naming-typedef-id", "def-of-decl-id"):
                other = part.get(name)
                if other in types and other not in reached:
                    reached.add(other)
                    todo.append(types[other])
    for unit in units:
        for element in list(unit):
            if not element.get("elf-symbol-id") and element.get("id") not in reached:
                unit.remove(element)
        if len(unit) == 0:
            tree.getroot().remove(unit)


def main():
    abidw, abidiff, library, headers, path = sys.argv[1:6]
    if sys.argv[6:] == ["--write"]:
        tree = dump(abidw, library, headers)
        prune(tree)
        ElementTree.indent(tree, " ")
        tree.write(path)
        return 0
    found = subprocess.run([abidiff, "--no-added-syms", path, library], capture_output=True, text=True)
    with open(path, encoding="utf-8") as written:
        names = written.read().count("<elf-symbol ")
    if found.returncode == 0 and names > 0:
        print(f"{names} functions of {path} are as they were")
        return 0
    print(found.stdout, found.stderr, sep="", file=sys.stderr)
    return 1


sys.exit(main())
