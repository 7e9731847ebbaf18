#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The example to follow by hand in docs/formats.md: its program compiles and prints the bytes that stand below it.

   check_example.py SOURCE_DIRECTORY C_COMPILER LIBRARY.so"""
import os
import re
import subprocess
import sys
import tempfile


def main():
    root, compiler, library = sys.argv[1:4]
    with open(os.path.join(root, "docs/formats.md"), encoding="utf-8") as text:
        section = re.split(r"^#+ ", text.read().split("### An example to follow by hand\n")[1], flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```(c?)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    programs = [body for kind, body in blocks if kind == "c"]
    printed = [body for kind, body in blocks if kind == "" and " bytes a page\n" in body]
    if len(programs) != 1 or not printed:
        sys.exit("docs/formats.md: the example has no program, or nothing that it prints")
    with tempfile.TemporaryDirectory() as work:
        source, program = os.path.join(work, "example.c"), os.path.join(work, "example")
        with open(source, "w", encoding="utf-8") as file:
            file.write(programs[0])
        subprocess.run([compiler, "-std=c11", "-Wall", "-Werror", "-I", os.path.join(root, "include"), "-o", program, source, library,
                        "-Wl,-rpath," + os.path.dirname(library)], check=True)
        said = subprocess.run([program], capture_output=True, check=True, text=True).stdout
    if said != "".join(printed):
        sys.exit(f"docs/formats.md says\n{''.join(printed)}\nand the example prints\n{said}")
    print(f"{len(printed)} outputs of the example are as docs/formats.md has them")


main()
