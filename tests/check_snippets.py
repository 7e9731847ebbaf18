#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What README and the documents tell readers to type or to write: it is run, with small inputs in place of theirs, or it is named below with who runs it,
or with why nobody does. A snippet that is none of these fails the test.

   check_snippets.py SOURCE_DIRECTORY C_COMPILER KVTILE ENGINE SAVED_FILES [MORE_PROGRAM...]

Programs in C that include kvtile's headers are compiled. Commands are run by bash, in a folder that has what they name: with few tokens, the model of
tools/demo in place of others, and `kvtile bench --quick`."""
import glob
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

# What else runs a snippet: of a file, beginning with that.
ELSEWHERE = [
    (r"docs/integrate\.md", r"", "test_integrate, test_integrate_cache"),
    (r"docs/formats\.md", r"", "check_example, and the oracle"),
    (r"README\.md", r"find_package\(kvtile", "check_install"),
    (r"docs/adding-a-scheme\.md", r"\s*(KVT_SCHEME_ROW|#define CODE_|#include \"kernels|build/dev/bin/test_)", "check_walk, in a copy of the tree"),
    (r"docs/python\.md", r"", ".ci/run python: tools/python/tests/documents.py runs every one"),
    (r"docs/design\.md", r"    include/kvtile|include/kvtile", "check_rooms"),
    (r"docs/sizing\.md", r"bytes = sum|kvt_size_request", "a formula, and a call that check_install's program makes"),
]
# The first words of commands that are not run here.
LEGS = {
    "tools/demo.sh": ".ci/run", "tools/test.sh": ".ci/run", "cmake": ".ci/run", "ctest": ".ci/run", "pip": ".ci/run python",
    "python": ".ci/run python", "tools/ggml/build.sh": ".ci/run ggml", "llama-cli": ".ci/run ggml", "llama-bench": "needs a quiet machine",
    "tools/real_model.sh": "needs a model that is not in the tree", "cc": "needs llama.cpp installed", "kvtile-capture": "needs llama.cpp installed",
    "kvtile-compare": "test_cli_compare", "kvtile-cache steps": "half a minute, and needs a quiet machine", "bench/count_instructions.sh": "takes an hour",
    "tests/lib/avx512_emulated.sh": "takes minutes a tier", "tests/fuzz/run.sh": "takes as long as it is told",
    "tests/engine/compare_tokenizers.py": ".ci/run tokenizers", "tests/model/engines/llama_cpp.py": "needs the engine's source",
    "tests/model/engines/transformers_caches.py": "needs the engine's source", "lmcache": ".ci/run python", "large": "example_large",
    "random_store": "test_block_store", "tests/platforms.sh": ".ci/run", "tests/bundle.sh": ".ci/run bundle", "tar": ".ci/run ggml",
    "kvtile-0.1.0-linux-arm64-static/bin/kvtile": "needs a telephone", "tests/ggml/debian.sh": "needs Debian's llama.cpp, and a quiet machine",
    "adb": "needs a telephone",
}
# What is printed, and stands by itself.
PRINTED = re.compile(r" *scheme |attention in \d|\d+ tokens predicted|KLD mean of|layer ")
# What bash runs beside kvtile's own programs.
SHELL = ("gnuplot", "head", "for", "table()", "name=")


def blocks(path):
    """(kind, lines, number) of each fenced or indented block."""
    found, fence, current, after_blank = [], None, None, True
    for number, line in enumerate(open(path, encoding="utf-8").read().split("\n"), 1):
        if line.lstrip().startswith("```"):
            if fence is None:
                fence = (line.strip()[3:], [], number)
            else:
                found.append(fence)
                fence = None
            current = None
        elif fence is not None:
            fence[1].append(line)
        elif line.startswith("    ") and line.strip():
            if current is None and after_blank:
                current = ("indented", [], number)
                found.append(current)
            if current is not None:
                current[1].append(line[4:])
        elif line.strip():
            current = None
        elif current is not None:
            current[1].append("")
        after_blank = not line.strip()
    return found


def first_word(command):
    words = command.split()
    while words and re.match(r"\w+=", words[0]):
        words.pop(0)
    word = words[0] if words else ""
    word = re.sub(r"^(build/\S+/bin|\$B|\$\(?\w*\)?)/", "", word)
    return word


def is_assignment(line):
    return re.fullmatch(r"(\w+=('[^']*'|\"[^\"]*\"|\S+)\s*)+", line.strip()) is not None


def statements(lines):
    """Lines, loops and functions."""
    text, depth, current = re.sub(r"[ \t]*\\\n\s*", " ", "\n".join(lines)).replace("|\n", "| "), 0, []
    for line in text.split("\n"):
        line = re.sub(r"(^|\s+)# .*$", "", line).rstrip()
        if not line:
            continue
        current.append(line)
        depth += len(re.findall(r"\bdo$|\{$", line)) - len(re.findall(r"^\s*(?:done\b|\}$)", line))
        if depth == 0:
            yield "\n".join(current)
            current = []
    if current:
        yield "\n".join(current)


class Runner:
    def __init__(self, root, compiler, programs, saved_files, work):
        self.root, self.compiler, self.work = root, compiler, work
        self.programs = {os.path.basename(program): program for program in programs}
        self.variables, self.functions, self.run, self.problems = {}, "", 0, []
        self.demo = os.path.join(root, "tools/demo")
        os.mkdir(os.path.join(work, "programs"))
        for name, program in self.programs.items():
            os.symlink(os.path.abspath(program), os.path.join(work, "programs", name))
        self.environment = dict(os.environ, PATH=os.path.join(work, "programs") + ":" + os.environ["PATH"])
        self.tiers = self.shell("kvtile info")
        self.make_inputs(saved_files)

    def make_inputs(self, saved_files):
        def link(name, target):
            os.makedirs(os.path.dirname(os.path.join(self.work, name)) or self.work, exist_ok=True)
            os.symlink(os.path.join(self.root, target), os.path.join(self.work, name))

        for name in ("gutenberg-3.5M.f16.bin", "tok2048.bin", "chesterton-brown.txt"):
            link(name, "tools/demo/" + name)
            link("tools/demo/" + name, "tools/demo/" + name)
        self.shell("head -c 600 tools/demo/chesterton-brown.txt >t.txt")
        for name in ("docs/accuracy.gp", "docs/speed.gp", "docs/speed.dat", "bench/table.jq"):
            link(name, name)
        os.symlink(os.path.join(self.root, "tests/fuzz/corpus/gguf/qwen3.gguf"), os.path.join(self.work, "model.gguf"))
        random.seed(1)
        tensors, data = {}, b""
        for name, heads in (("keys", 2), ("values", 2), ("queries", 4)):
            rows = self.write_npy(name + ".npy", (heads, 130, 64))
            tensors[name] = {"dtype": "F32", "shape": [heads, 130, 64], "data_offsets": [len(data), len(data) + len(rows)]}
            data += rows
        text = json.dumps(tensors).encode()
        self.write_npy("glm_layer3.npy", (130, 576))
        for name in ("values", "rows"):
            with open(os.path.join(self.work, name + ".safetensors"), "wb") as file:
                file.write(struct.pack("<Q", len(text)) + text + data)
        model = "--model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin"
        self.shell(f"kvtile-engine capture {model} --text chesterton-brown.txt --tokens 130 --out captured")
        for kind in ("keys", "values"):
            self.shell(f"cp captured/layer1_{kind}.qvkt layer1_{kind}.bin")
        self.shell(f"kvtile-engine generate {model} --prompt {'x' * 200} --tokens 1 --store blocks")
        self.shell(f"{os.path.abspath(saved_files)} make chat.kvt")

    def write_npy(self, name, shape):
        n = 1
        for size in shape:
            n *= size
        rows = struct.pack(f"<{n}f", *(random.gauss(0, 1) for _ in range(n)))
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
        header += " " * (-(len(header) + 11) % 64) + "\n"
        with open(os.path.join(self.work, name), "wb") as file:
            file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + rows)
        return rows

    def shell(self, text, where="inputs"):
        before = self.functions + "".join(f"{name}={value}\n" for name, value in self.variables.items())
        done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", before + text], cwd=self.work, env=self.environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            self.problems.append(f"{where}: {text}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def compile(self, where, text):
        source = os.path.join(self.work, "snippet.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        self.run += 1
        done = subprocess.run([self.compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", os.path.join(self.root, "include"), source],
                              capture_output=True, text=True)
        if done.returncode != 0:
            self.problems.append(f"{where}: {done.stderr}")

    def small(self, text):
        """Of a statement or a variable: inputs that are in the folder, and little of them."""
        def at_most(limit, pattern):
            return lambda text: re.sub(pattern + r" (\d+)\b", lambda found: found[0].replace(found[1], str(min(int(found[1]), limit))), text)

        def of_model(found):
            is_there = "$" in found[1] or os.path.exists(os.path.join(self.work, found[1]))
            return found[0] if is_there else "--model gutenberg-3.5M.f16.bin --tokenizer tok2048.bin" + found[0][len(found[0].rstrip()):]

        text = re.sub(r"build/\S+?/bin/|\$B/", "", text)
        text = re.sub(r"--model ([^\s']+)( --tokenizer [^\s']+)?", of_model, text)
        for theirs, ours in (("build/demo/", "captured/"), ("CAPTURED", "captured/*"), ("~/models/GLM-4.7-Flash", "GLM-4.7-Flash"), ("seq 1 60", "seq 1 2"),
                             ("--rank 64,128,256", "--rank 32,64"), ("others.json", "results.json"), ("--rank *.json", "--rank results.json results.json")):
            text = text.replace(theirs, ours)
        text = at_most(130, "--tokens")(at_most(64, "--from")(text))
        if "kvtile-engine" in text:
            text = at_most(256, "--context")(text)
        if "kvtile bench" in text and not re.search("--(compare|rank) ", text):
            text = re.sub(r"--tier (\S+)", lambda found: f"--tier {found[1] if all(name in self.tiers for name in found[1].split(',')) else 'scalar'}", text)
            text = re.sub(r"(--head-dim \d+)[,\d]*", r"\1", text)
            text = text.replace("kvtile bench", "kvtile bench --side k" if "--side" not in text else "kvtile bench", 1)
            text = re.sub(r"(kvtile bench[^|>]*?)( *[|>]|$)", lambda found: found[1] + ("" if "--quick" in found[1] else " --quick") + found[2], text)
        return re.sub(r"(kvtile-bench [^|>]*?) --benchmark_min_time=\S+|kvtile-bench ", lambda found: (found[1] or "kvtile-bench") + " --benchmark_list_tests ", text)

    def assign(self, statement):
        for name, value in re.findall(r"(\w+)=('[^']*'|\"[^\"]*\"|\S+)", statement):
            self.variables.pop(name, None)  # behind those that it may be made of
            self.variables[name] = self.small(value)

    def paragraph(self, where, lines):
        """True if it is commands."""
        all_of_it = list(statements(lines))
        first = first_word(all_of_it[0])
        if not (is_assignment(all_of_it[0]) or first in LEGS or first in self.programs or first in SHELL):
            return False
        for statement in all_of_it:
            word = first_word(statement)
            two_words = " ".join([word, *statement.split()[1:2]])
            if is_assignment(statement):
                self.assign(statement)
            elif word.endswith("()"):
                self.functions += self.small(statement) + "\n"
            elif two_words not in LEGS and (word in self.programs or word in SHELL or word + "()" in SHELL):
                statement = self.small(re.sub(r"^((?:\w+=\S+ )+)(table )", lambda found: found[1].replace(" ", "; ") + found[2], statement))
                self.run += 1
                output = self.shell(statement, where)
                if "--benchmark_list_tests" in statement and not output.strip():
                    self.problems.append(f"{where}: no benchmark has such a name: {statement}")
            elif word not in LEGS and two_words not in LEGS:
                self.problems.append(f"{where}: nobody runs: {statement}")
        return True


def main():
    root = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        runner = Runner(root, sys.argv[2], [*sys.argv[3:5], *sys.argv[6:]], sys.argv[5], work)
        names = ["README.md", "tools/demo/README.md", *sorted(os.path.relpath(name, root) for name in glob.glob(root + "/docs/*.md"))]
        for name in names:
            runner.shell("rm -rf folder && cp -r captured folder")
            for statement in [line.strip() for _, lines, _ in reversed(blocks(os.path.join(root, name))) for line in reversed(lines)]:
                if is_assignment(statement):  # some stand below what takes them
                    runner.assign(statement)
            for kind, lines, number in blocks(os.path.join(root, name)):
                text = "\n".join(lines)
                where = f"{name}:{number}"
                if any(re.fullmatch(file, name) and re.match(begin, text) for file, begin, _ in ELSEWHERE):
                    continue
                if kind == "c" and "#include <kvtile/" in text:
                    runner.compile(where, text)
                elif text.lstrip().startswith("KVT_TIER_ROW"):
                    with open(os.path.join(root, "arch/isa.def"), encoding="utf-8") as file:
                        if "".join(text.split()) not in "".join(file.read().split()):
                            runner.problems.append(f"{where}: arch/isa.def has no such row")
                elif kind == "python":
                    compile(text, where, "exec")
                elif kind == "indented":
                    paragraphs = [part.split("\n") for part in re.split(r"\n\n+", text.strip("\n"))]
                    if not runner.paragraph(where, paragraphs[0]) and not PRINTED.match(text):  # what follows is what it prints
                        runner.problems.append(f"{where}: nobody runs: {lines[0]}")
                else:
                    runner.problems.append(f"{where}: nobody runs a snippet of kind '{kind}'")
    for problem in runner.problems:
        print(problem, file=sys.stderr)
    print(f"{runner.run} snippets were run")
    sys.exit(1 if runner.problems or runner.run < 85 else 0)


main()
