#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes kvtile/_table.py of the public headers: the structs, enums, constants and functions that Python's ctypes needs to know.

   generate.py OUT.py INCLUDE_DIRECTORY C_COMPILER [C_FLAG...]

The compiler's preprocessor undoes macros and includes. What is left in lines of the headers is declarations of five kinds: enums, structs, opaque
structs, functions, and types of callers' functions. Anything else ends the build, so nothing is left out in silence; tests/table.c asks the compiler
whether all of it is right."""
import os
import re
import subprocess
import sys

TOKEN = re.compile(r'\s*([A-Za-z_]\w*|0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*|\.\.\.|<<|>>|[-+*(){}\[\],;:=~|&])')
LIMITS = {"UINT32_MAX": 2**32 - 1, "SIZE_MAX": 2**64 - 1, "UINT64_MAX": 2**64 - 1}


def headers(include):
    return sorted(name for name in os.listdir(os.path.join(include, "kvtile")) if name.endswith(".h"))


def preprocess(include, compiler, *options):
    program = "".join(f"#include <kvtile/{name}>\n" for name in headers(include))
    done = subprocess.run([*compiler, "-std=c11", "-E", "-x", "c", *options, "-I", include, "-"], input=program, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(compiler)} cannot preprocess the headers:\n{done.stderr}")
    return done.stdout


def own_lines(text, include):
    """What comes from the headers themselves, without line markers."""
    ours, kept = False, []
    for line in text.splitlines():
        marker = re.match(r'# \d+ "(.*)"', line)
        if marker:
            ours = marker[1].startswith(os.path.join(include, "kvtile") + os.sep)
        elif ours:
            kept.append(line)
    return "\n".join(kept)


def tokenize(text):
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if not found:
            sys.exit(f"the headers have something that is no token: {text[at:at + 60]!r}")
        tokens.append(found[1])
        at = found.end()
    return tokens


def number(tokens, names):
    """The value of a constant expression."""
    text = " ".join(re.sub(r"(?<=[0-9a-fA-F])[uUlL]+$", "", token) if token[0].isdigit() else token for token in tokens)
    return eval(text, {"__builtins__": {}}, {**LIMITS, **names})  # of our own headers


def split(tokens, separator):
    """Parts between separators that are in no brackets."""
    parts, depth = [[]], 0
    for token in tokens:
        depth += (token in "({[") - (token in ")}]")
        if token == separator and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def declarators(tokens, names):
    """[(name, type, length)] of `const T *a, *const *b, c[2]`: the type as C writes it, the length of an array or 0."""
    first, *others = split(tokens, ",")
    base_end = next((i for i, token in enumerate(first) if token in ("*", "[")), len(first) - 1)
    if first[base_end] == "[":
        base_end -= 1
    base, found = first[:base_end], []
    for part in [first[base_end:], *others]:
        length = 0
        if "[" in part:
            at = part.index("[")
            length, part = number(part[at + 1:part.index("]")], names), part[:at]
        *stars, name = part
        if not base or any(token not in ("*", "const") for token in stars) or not re.fullmatch(r"[A-Za-z_]\w*", name):
            sys.exit("the headers have a declaration that is not understood: " + " ".join(tokens))
        found.append((name, " ".join([*base, *stars]), length))
    return found


def parameter(tokens, names):
    (name, kind, length), = declarators(tokens, names)
    return name, kind + " *" if length else kind


def without_attributes(tokens):
    kept, at = [], 0
    while at < len(tokens):
        if tokens[at] == "__attribute__":
            depth, at = 0, at + 1
            while True:
                depth += (tokens[at] == "(") - (tokens[at] == ")")
                at += 1
                if depth == 0:
                    break
        else:
            kept.append(tokens[at])
            at += 1
    return kept


def parse(text):
    enums, structs, opaque, functions, names = {}, {}, [], {}, {}
    text = re.sub(r'\(visibility\("default"\)\)', "(visibility)", text)
    for declaration in split(without_attributes(tokenize(text)), ";"):
        if not declaration:
            continue
        if declaration[:2] == ["typedef", "enum"] and "{" in declaration:
            body, value, values = declaration[declaration.index("{") + 1:declaration.index("}")], -1, {}
            for part in split(body, ","):
                if part:
                    value = number(part[2:], names) if len(part) > 1 else value + 1
                    values[part[0]] = names[part[0]] = value
            enums[declaration[-1]] = values
        elif declaration[:2] == ["typedef", "struct"] and "{" in declaration:
            body = declaration[declaration.index("{") + 1:declaration.index("}")]
            structs[declaration[-1]] = [field for part in split(body, ";") if part for field in declarators(part, names)]
        elif declaration[:2] == ["typedef", "struct"] and len(declaration) == 4:
            opaque.append(declaration[-1])
        elif declaration[0] == "typedef" and declaration[-1] == ")":  # of a caller's function: ctypes takes its pointer as any other
            opaque.append(declaration[declaration.index("(") - 1])
        elif declaration[-1] == ")" and declaration[0] not in ("typedef", "struct", "static"):
            at = declaration.index("(")
            (name, kind, _), = declarators(declaration[:at], names)
            arguments = [] if declaration[at + 1:-1] == ["void"] else [parameter(part, names) for part in split(declaration[at + 1:-1], ",")]
            functions[name] = (kind, arguments)
        else:
            sys.exit("the headers have a declaration of no known kind: " + " ".join(declaration))
    return enums, structs, opaque, functions


def constants(text, enums):
    """Macros that are whole numbers."""
    names = {name: value for values in enums.values() for name, value in values.items()}
    macros = dict(re.findall(r"^#define (KVT_\w+) (.+)$", text, re.MULTILINE))
    found = {}
    for name, body in macros.items():
        if re.fullmatch(r"[\w\s()+*<-]+", body) and not body.startswith("__attribute__"):
            found[name] = number(tokenize(body), {**names, **found})
    return dict(sorted(found.items()))


def table(include, compiler):
    include = os.path.normpath(include)
    enums, structs, opaque, functions = parse(own_lines(preprocess(include, compiler), include))
    return {"ENUMS": enums, "CONSTANTS": constants(preprocess(include, compiler, "-dM"), enums), "STRUCTS": structs, "OPAQUE": opaque,
            "FUNCTIONS": functions}


def main():
    out, include, *compiler = sys.argv[1:]
    lines = ['"""Made of the headers by generate.py: structs as (name, type, length of an array or 0), functions as (result, arguments)."""']
    for name, content in table(include, compiler).items():
        lines.append(f"\n{name} = {{" if isinstance(content, dict) else f"\n{name} = {content!r}")
        if isinstance(content, dict):
            lines += [f"    {key!r}: {value!r}," for key, value in content.items()] + ["}"]
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
