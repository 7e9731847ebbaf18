#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What README and the documents tell readers to type or to write: it is run, with small inputs in place of theirs, or it is named below with who runs it,
or with why nobody does. A snippet that is none of these fails the test.

   check_snippets.py SOURCE_DIRECTORY C_COMPILER KVTILE ENGINE SAVED_FILES

Programs in C that include kvtile's headers are compiled. `kvtile size`, `eval`, `convert`, `inspect`, `store`, `info` and `kvtile-engine` are run; of
`kvtile bench` and of whole models the options are read, as they take minutes."""
import glob
import json
import os
import random
import re
import shlex
import struct
import subprocess
import sys
import tempfile

# What else runs a snippet: of a file, beginning with that.
ELSEWHERE = [
    (r"docs/integrate\.md", r"", "test_integrate, test_integrate_cache"),
    (r"docs/formats\.md", r"", "check_example, and the oracle"),
    (r"README\.md", r"find_package\(kvtile", "check_install"),
    (r"docs/adding-a-scheme\.md", r"\s*(KVT_SCHEME_ROW|#define CODE_|#include \"kernels|build/dev/bin/test_)", "a walk: its scheme is not in the tree"),
    (r"docs/adding-an-isa\.md", r"\s*KVT_TIER_ROW", "check_rooms and the build: it is a row of isa.def"),
    (r"docs/python\.md", r"", ".ci/run python: tools/python/tests/documents.py runs every one"),
    (r"docs/design\.md", r"    include/kvtile|include/kvtile", "check_rooms"),
    (r"docs/sizing\.md", r"bytes = sum|kvt_size_request", "a formula, and a call that check_install's program makes"),
    (r"docs/accuracy\.md", r"S=\S+\nP=\S+\ntable\(\)", "its options are run one by one elsewhere on the page"),
]
# The first words of commands that are not run here.
LEGS = {
    "tools/demo.sh": ".ci/run", "tools/test.sh": ".ci/run", "cmake": ".ci/run", "ctest": ".ci/run", "pip": ".ci/run python",
    "python": ".ci/run python", "tools/ggml/build.sh": ".ci/run ggml", "llama-cli": ".ci/run ggml", "llama-bench": "needs a quiet machine",
    "tools/real_model.sh": "needs a model that is not in the tree", "cc": "needs llama.cpp installed", "kvtile-capture": "needs llama.cpp installed",
    "gnuplot": "test_cli_size_plot draws by the same program", "kvtile-bench": "needs a quiet machine", "kvtile-compare": "test_cli_compare",
    "kvtile-cache": "needs a quiet machine", "bench/count_instructions.sh": "takes an hour",
    "tests/lib/avx512_emulated.sh": "takes minutes a tier", "tests/fuzz/run.sh": "takes as long as it is told",
    "tests/engine/compare_tokenizers.py": ".ci/run tokenizers", "tests/model/engines/llama_cpp.py": "needs the engine's source",
    "tests/model/engines/transformers_caches.py": "needs the engine's source", "lmcache": ".ci/run python", "large": "example_large",
    "head": "beside a command", "for": "beside a command", "done": "beside a command", "random_store": "test_block_store", "tests/platforms.sh": ".ci/run",
    "tar": ".ci/run ggml", "tests/ggml/debian.sh": "needs Debian's llama.cpp, and a quiet machine", "adb": "needs a telephone",
}
# What is printed, and stands by itself.
PRINTED = re.compile(r" *scheme |attention in \d|\d+ tokens predicted|KLD mean of|layer ")
OPTIONS_ALONE = re.compile(r"kvtile bench|--model|--latent|_keys\.bin|model \$M|tinystories|\$M|folder/\*|rows\.safetensors --mean|\$@")


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


def is_command(line):
    word = first_word(line)
    return word in LEGS or word in ("kvtile", "kvtile-engine") or re.match(r"[A-Z]\w*='?[-\w$]", line) is not None


class Runner:
    def __init__(self, root, compiler, kvtile, engine, saved_files, work):
        self.root, self.compiler, self.work = root, compiler, work
        self.programs = {"kvtile": kvtile, "kvtile-engine": engine}
        self.variables, self.run, self.problems = {}, 0, []
        self.demo = os.path.join(root, "tools/demo")
        self.make_inputs(saved_files)

    def make_inputs(self, saved_files):
        os.symlink(os.path.join(self.root, "tools"), os.path.join(self.work, "tools"))
        for name in ("gutenberg-3.5M.f16.bin", "tok2048.bin", "chesterton-brown.txt"):
            os.symlink(os.path.join(self.demo, name), os.path.join(self.work, name))
        os.symlink(os.path.join(self.root, "tests/fuzz/corpus/gguf/qwen3.gguf"), os.path.join(self.work, "model.gguf"))
        random.seed(1)
        tensors, data = {}, b""
        for name, heads in (("keys", 2), ("values", 2), ("queries", 4)):
            rows = struct.pack(f"<{heads * 130 * 64}f", *(random.gauss(0, 1) for _ in range(heads * 130 * 64)))
            header = "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 130, 64), }" % heads
            header += " " * (-(len(header) + 11) % 64) + "\n"
            with open(os.path.join(self.work, name + ".npy"), "wb") as file:
                file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + rows)
            tensors[name] = {"dtype": "F32", "shape": [heads, 130, 64], "data_offsets": [len(data), len(data) + len(rows)]}
            data += rows
        text = json.dumps(tensors).encode()
        for name in ("values", "rows"):
            with open(os.path.join(self.work, name + ".safetensors"), "wb") as file:
                file.write(struct.pack("<Q", len(text)) + text + data)
        model = ["--model", "gutenberg-3.5M.f16.bin", "--tokenizer", "tok2048.bin"]
        self.call([self.programs["kvtile-engine"], "capture", *model, "--text", "chesterton-brown.txt", "--tokens", "130", "--out", "captured"])
        self.call([self.programs["kvtile-engine"], "generate", *model, "--prompt", "x" * 200, "--tokens", "1", "--store", "blocks"])
        self.call([saved_files, "make", "chat.kvt"])

    def call(self, words):
        done = subprocess.run(words, cwd=self.work, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        if done.returncode != 0:
            self.problems.append(f"{shlex.join(words)}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")

    def compile(self, where, text):
        source = os.path.join(self.work, "snippet.c")
        with open(source, "w", encoding="utf-8") as file:
            file.write(text)
        self.run += 1
        done = subprocess.run([self.compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", os.path.join(self.root, "include"), source],
                              capture_output=True, text=True)
        if done.returncode != 0:
            self.problems.append(f"{where}: {done.stderr}")

    def command(self, where, line):
        """A command of kvtile or kvtile-engine."""
        words = shlex.split(line, comments=True)
        while re.match(r"\w+=", words[0]):
            words.pop(0)
        words = words[:next((i for i, word in enumerate(words) if word in ("|", ">", ";", "&&") or word.startswith(">")), len(words))]
        program = self.programs[first_word(" ".join(words))]
        options_alone = OPTIONS_ALONE.search(line) and (first_word(line) == "kvtile")
        words = [word for part in words[1:] for word in (self.variables.get(part[1:], [part]) if part.startswith("$") else [part])]
        words = [re.sub(r"\$(\w+)", lambda found: " ".join(self.variables.get(found[1], [found[0]])), word) for word in words]
        for i, word in enumerate(words[:-1]):
            if word == "--tokens":
                words[i + 1] = str(min(int(words[i + 1]), 70))
            if word == "--context":
                words[i + 1] = str(min(int(words[i + 1]), 256)) if words[i + 1].isdigit() and program == self.programs["kvtile-engine"] else words[i + 1]
        if options_alone:
            words.append("--help")
        else:
            words = [word.replace("build/demo/", "captured/").replace("CAPTURED", "captured/*").replace("~/models/GLM-4.7-Flash", "GLM-4.7-Flash") for word in words]
            words = [one for word in words for one in (sorted(glob.glob(word, root_dir=self.work)) or [word] if "*" in word else [word])]
        if "--model" in words and not os.path.exists(os.path.join(self.work, words[words.index("--model") + 1])) and not options_alone:
            words.append("--help") # a model that is not in the tree
        self.run += 1
        before = len(self.problems)
        self.call([program, *words])
        if len(self.problems) > before:
            self.problems[-1] = f"{where}: {self.problems[-1]}"

    def paragraph(self, where, lines):
        """True if it is commands."""
        text = re.sub(r"[ \t]*\\\n\s*", " ", "\n".join(lines)).replace("|\n", "| ")
        if not is_command(text.split("\n")[0]):
            return False
        for line in text.split("\n"):
            line = line.strip()
            word = first_word(line)
            for name, value in re.findall(r"(?:^|\s)([A-Z])=('[^']*'|\"[^\"]*\"|\S+)", line):
                value = re.sub(r"\$(\w)", lambda found: " ".join(self.variables.get(found[1], [found[0]])), value.strip("'\""))
                self.variables[name] = value.split()
            if word in self.programs:
                self.command(where, line)
            elif word and word not in LEGS and not line.startswith(("#", "}")) and not re.match(r"[A-Z]\w*=", line):
                self.problems.append(f"{where}: nobody runs: {line}")
        return True


def main():
    root = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        runner = Runner(root, *sys.argv[2:6], work)
        names = ["README.md", "tools/demo/README.md", *sorted(os.path.relpath(name, root) for name in glob.glob(root + "/docs/*.md"))]
        for name in names:
            for kind, lines, number in blocks(os.path.join(root, name)):
                text = "\n".join(lines)
                where = f"{name}:{number}"
                if any(re.fullmatch(file, name) and re.match(begin, text) for file, begin, _ in ELSEWHERE):
                    continue
                if kind == "c" and "#include <kvtile/" in text:
                    runner.compile(where, text)
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
    sys.exit(1 if runner.problems or runner.run < 60 else 0)


main()
