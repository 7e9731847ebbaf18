#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The generated table against the C compiler: sizes, offsets and types of structs, values of enums and constants, types of functions; and whether it
lacks a function that a library has.

   check_table.py TABLE.py SOURCE_DIRECTORY C_COMPILER [C_FLAG...]"""
import ctypes
import os
import re
import subprocess
import sys
import tempfile
import types


def load(table, root):
    """kvtile._structs with that table, without the libraries that the package itself needs."""
    package = types.ModuleType("kvtile")
    package.__path__ = [os.path.dirname(table), os.path.join(root, "tools/python/kvtile")]
    sys.modules["kvtile"] = package
    from kvtile import _structs, _table
    return _table, _structs.STRUCTS


def assertions(table, structs):
    """Lines of table.inc."""
    lines = []
    for name, fields in table.STRUCTS.items():
        struct = structs[name]
        lines.append(f"STRUCT({name}, {ctypes.sizeof(struct)}, {ctypes.alignment(struct)});")
        for field, kind, length in fields:
            place = getattr(struct, field)
            pointer = f"{kind} (*)[{length}]" if length else kind + " *"
            lines.append(f"FIELD({name}, {field}, {pointer}, {place.offset}, {place.size});")
    for values in [*table.ENUMS.values(), table.CONSTANTS]:
        lines += [f"VALUE({name}, {value}{'u' if value > 2**31 else ''});" for name, value in values.items()]
    for name, (result, parameters) in table.FUNCTIONS.items():
        arguments = ", ".join(kind for _, kind in parameters) or "void"
        lines.append(f"FUNCTION({name}, {result} (*)({arguments}));")
    return lines


def compiles(lines, root, compiler):
    with tempfile.TemporaryDirectory() as work:
        with open(os.path.join(work, "table.inc"), "w", encoding="utf-8") as file:
            headers = sorted(name for name in os.listdir(os.path.join(root, "include/kvtile")) if name.endswith(".h"))
            file.write("".join(f"#include <kvtile/{name}>\n" for name in headers) + "\n".join(lines) + "\n")
        return subprocess.run([*compiler, "-std=c11", "-fsyntax-only", "-I", os.path.join(root, "include"), "-I", work,
                               os.path.join(root, "tools/python/tests/table.c")], capture_output=True, text=True)


def main():
    path, root, *compiler = sys.argv[1:]
    table, structs = load(os.path.abspath(path), root)
    lines = assertions(table, structs)
    done = compiles(lines, root, compiler)
    if done.returncode:
        sys.exit(f"the table differs from the headers:\n{done.stderr}")
    for kind in ("STRUCT", "FIELD", "VALUE", "FUNCTION"):  # a number or a type that is wrong has to be found
        wrong = [line for line in lines if line.startswith(kind + "(")][-1]
        changed = wrong.replace("kvt_status (*)", "long (*)") if kind == "FUNCTION" else re.sub(r"(\d+)u?\);$", lambda m: f"{int(m[1]) + 1});", wrong)
        if changed == wrong or compiles([changed], root, compiler).returncode == 0:
            sys.exit(f"{changed} compiles, though the table says {wrong}")
    names = set()
    for listed in ("tests/lib/names.txt", "tests/model/names.txt"):
        with open(os.path.join(root, listed), encoding="utf-8") as file:
            names |= {line.strip() for line in file if line.startswith("kvt_")}
    if names != set(table.FUNCTIONS):
        sys.exit(f"the table and the libraries differ in these functions: {' '.join(sorted(names ^ set(table.FUNCTIONS)))}")
    print(f"{len(table.STRUCTS)} structs with {sum(map(len, table.STRUCTS.values()))} fields, {sum(map(len, table.ENUMS.values()))} values of enums, "
          f"{len(table.CONSTANTS)} constants and {len(names)} functions are as the compiler has them")


main()
