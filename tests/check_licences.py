#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each file that git tracks names its licence within its first three lines, as SPDX writes it, or is of a kind that has no place for it.

   check_licences.py SOURCE_DIRECTORY

Exit code 77 where git does not know the files: in an archive of the sources."""
import os
import re
import subprocess
import sys

LINE = re.compile(rb"(/\*|//|#|<!--) SPDX-License-Identifier: MIT( \*/| -->)?\n")
# Files without it, and why.
EXCEPT = [
    (r"LICENSE|tools/python/licenses/.*", "licences"),
    (r"(.*/)?[^/]+\.md", "documents, which are read as they are"),
    (r"tests/fuzz/corpus/.*", "inputs of fuzzers"),
    (r".*\.json", "JSON has no comments"),
    (r".*\.abi|(docs/.*\.(svg|dat))|tools/demo/.*\.(bin|txt)", "made by programs, or data"),
    (r"tests/(lib|model|engine)/\w+\.txt", "lists that tests read line by line"),
    (r"tools/debian/(changelog|copyright)\.in", "Debian defines each of their lines"),
    (r".*/py\.typed", "empty, as Python wants it"),
]


def main():
    root = sys.argv[1]
    # The index may be somebody else's, in a container.
    listed = subprocess.run(["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z"], capture_output=True)
    if listed.returncode != 0:
        print("git does not know these files: " + listed.stderr.decode().strip())
        sys.exit(77)
    unused, problems, checked = dict(EXCEPT), [], 0
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = os.path.join(root, name)
        rules = [rule for rule, _ in EXCEPT if re.fullmatch(rule, name)]
        if rules:
            unused.pop(rules[0], None)
            continue
        if not os.path.isfile(path):
            continue
        checked += 1
        with open(path, "rb") as file:
            first = [file.readline() for _ in range(3)]
        if not any(LINE.fullmatch(line) for line in first):
            problems.append(f'{name}: "SPDX-License-Identifier: MIT" is in none of its first three lines')
    problems += [f"check_licences.py: no file is of this kind: {rule}" for rule in unused]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{checked} files name their licence")
    sys.exit(1 if problems or checked < 400 else 0)


main()
