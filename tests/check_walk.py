#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The walk of docs/adding-a-scheme.md, in a copy of the tree: its snippets are put where it says, the command is built, and the scheme stores rows.

   check_walk.py SOURCE_DIRECTORY WORK_DIRECTORY"""
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys


def edit(root, name, old, new, count=1):
    path = os.path.join(root, name)
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = re.findall(old, text)
    if len(found) != count:
        sys.exit(f"{name}: {len(found)} places are like {old!r}: {count} would be right")
    with open(path, "w", encoding="utf-8") as file:
        file.write(re.sub(old, new, text))


def main():
    root, work = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
    tree, build = os.path.join(work, "tree"), os.path.join(work, "build")
    shutil.rmtree(tree, ignore_errors=True)
    names = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, check=True).stdout.decode().split("\0")
    for name in names:
        if os.path.isfile(os.path.join(root, name)) and not name.startswith("tests/fuzz/corpus/"):
            os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
            shutil.copy2(os.path.join(root, name), os.path.join(tree, name))

    with open(os.path.join(root, "docs/adding-a-scheme.md"), encoding="utf-8") as file:
        blocks = re.findall(r"(?:^ {7}.*\n|^\n(?= {7}))+", file.read(), re.M)
    snippets = [re.sub(r"^ {7}", "", block.strip("\n"), flags=re.M) + "\n" for block in blocks]
    row, code, coder = (next(text for text in snippets if text.startswith(start)) for start in ("KVT_SCHEME_ROW", "#define CODE_", "#include"))
    name = re.match(r"KVT_SCHEME_ROW\((\w+)", row)[1]

    with open(os.path.join(tree, "include/kvtile/schemes.def"), "a", encoding="utf-8") as file:
        file.write(row)
    edit(tree, "kernels/schemes.c", r"#define CODE_kv2 .*\n", lambda found: found[0] + code)
    with open(os.path.join(tree, f"kernels/code_{name}.c"), "w", encoding="utf-8") as file:
        file.write(coder)
    edit(tree, "kernels/kernels.h", r"    KVT_CODERS\n", f"    KVT_CODER_{name},\n    KVT_CODERS\n")
    edit(tree, "kernels/tiers.c", r"(    X\(code, kvt_coder, coder_)q4_0(, tier\))( *\\\n)", rf"\1q4_0\2\3\1{name}\2 \\\n")
    edit(tree, "kernels/tiers.c", r"CODER\(q4_0, name\),", f"CODER(q4_0, name), CODER({name}, name),")
    edit(tree, "kernels/CMakeLists.txt", r"(set\(code_files )", rf"\1code_{name}.c ")

    subprocess.run(["cmake", "-S", tree, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DKVT_BUILD_TESTS=OFF", "-DKVT_BUILD_BENCH=OFF",
                    "-DKVT_FEW_TIERS=ON", "-DKVT_WERROR=ON"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", build, "--target", "kvtile_command"], check=True, stdout=subprocess.DEVNULL)

    random.seed(1)
    rows = os.path.join(work, "keys.npy")
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 130, 64), }"
    with open(rows, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header.encode() + b"\n")
        file.write(struct.pack(f"<{2 * 130 * 64}f", *(random.gauss(0, 1) for _ in range(2 * 130 * 64))))
    kvtile = os.path.join(build, "bin/kvtile")
    measured = json.loads(subprocess.run([kvtile, "eval", rows, "--schemes", f"{name},q4_0", "--rotation", "none", "--centring", "none", "--no-speed", "--json"],
                                         check=True, capture_output=True, text=True).stdout)
    snr = {result["scheme"]: result["snr_db"] for result in measured}
    # 15 levels over a whole row, where q4_0 has 16 over 32 channels: Gaussian rows of 64 lose one or two decibels by it.
    if not snr["q4_0"] - 3 < snr[name] < snr["q4_0"]:
        sys.exit(f"{name} has {snr[name]} dB, q4_0 {snr['q4_0']}")
    print(f"docs/adding-a-scheme.md works: {name}")


main()
