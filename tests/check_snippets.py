#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What README and the documents tell readers to type or to write: it is run, with small inputs in place of theirs, or it is named below with who runs it,
or with why nobody does. A snippet that is none of these fails the test.

   check_snippets.py SOURCE_DIRECTORY C_COMPILER KVTILE ENGINE SAVED_FILES [MORE_PROGRAM...]
   check_snippets.py --leg NAME SOURCE_DIRECTORY     prints what that leg of CI runs, for a shell

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

# What else runs a snippet that is no command: of a file, beginning with that.
ELSEWHERE = [
    (r"docs/integrate\.md", r"", "test_integrate test_integrate_cache"),
    (r"docs/formats\.md", r"", "check_example"),
    (r"README\.md", r"find_package\(kvtile", "check_install"),
    (r"docs/adding-a-scheme\.md", r"\s*(KVT_SCHEME_ROW|#define CODE_|#include \"kernels|build/dev/bin/test_)", ".ci/run"),  # check_walk.py
    (r"docs/python\.md", r"", ".ci/run python"),  # tools/python/tests/documents.py
    (r"docs/design\.md", r"    include/kvtile|include/kvtile", "check_rooms"),
    (r"docs/sizing\.md", r"bytes = sum|kvt_size_request", "check_install"),  # a formula, and a call that README's program makes
]
# What commands begin with that a leg of CI runs as they stand in the documents, which it has by --leg, with all else in their paragraphs that has no
# leg: of each, what is put in place of what.
LEGS = {
    "newcomer": [("tools/demo.sh",), ("cmake --preset release && cmake --build --preset release && sudo",)],
    "board": [("tests/platforms.sh here",)],
    "ggml": [
        ("tools/ggml/build.sh",), ("cmake --preset plug-in",), ("tar -tf build/plug-in",), ("tests/model/engines/llama_cpp.py",),
        ("tools/real_model.sh SmolLM2", ("SmolLM2-135M-Instruct.Q4_1.gguf", "build/ggml/model.gguf"), (" 2048", " 64")),
        ("cmake --preset release -DKVT_BENCH_GGML=ON", ("/path/libggml-cpu", "/path/libggml-cpu-x64"), ("'-DK", "\"-DK"), (".so'", ".so\""),
         ("/path", "$PWD/build/ggml/bin")),
        ("tools/ggml/fetch.sh",), ("ln -sf libggml",), ("g++ -O3 bench/peer_attention.cc", (" -o peer-llama", " -o build/peer-llama")),
        ("GGML_CPU=", ("./peer-llama f16,q8_0,q4_0 1,4 1", "build/peer-llama f16,q8_0,q4_0 1,4 1 2048 1 2")),
    ],
    "llama": [
        ("GGML_BACKEND_PATH=",), ("KVTILE_STORE=",), ("KVTILE=",), ("cc -O2 tools/capture/capture.c",),
        ("./kvtile-capture /usr/lib", (" 1024 ", " 64 ")),
    ],
    "bundle": [
        ("KVT_OPTIONS=-DKVT_FEW_TIERS=ON tests/platforms.sh exchange",),
        ("cmake --workflow --preset bundle-arm64",), ("tests/bundle.sh",),
    ],
    "phone": [("tar -xzf kvtile-0.1.0-linux-arm64",), ("kvtile-0.1.0-linux-arm64-static/bin/",)],
    "arm64": [
        ("bench/count_instructions.sh build/release/bin", ("build/release/bin", "build/dev/bin 'write/q8_0/k/avx2/128/f32/plain'")),
        ("bench/count_instructions.sh build/arm64/bin 'attend", ("(q8_0|kv8|kv4|q4_0|f16|e4m3)", "kv4")),
        ("bench/count_instructions.sh build/arm64/bin", ("build/arm64/bin", "build/arm64/bin 'write/q8_0/k/.*/128/f32/plain'")),
        ("bench/count_instructions.sh --against", ("../old/", ""), ("build/arm64/bin build/arm64/bin",
                                                                  "build/arm64/bin build/arm64/bin 'write/q8_0/k/.*/128/f32/plain'")),
    ],
    "long": [
        ("cmake --preset dev && cmake --build --preset dev --target check_exp",), ("cmake --build --preset dev --target check_allocations",),
        ("tests/fuzz/run.sh", (" 1200 ", " 20 ")), ("tests/lib/avx512_emulated.sh",), ("KVT_EMULATED_TIERS=",), ("build/release/bin/kvtile-cache steps",),
    ],
}
# What commands begin with that is run with other words: by a leg of CI, or by a test.
OTHERWISE = {
    "tools/test.sh": ".ci/run", "pip install .": ".ci/run python", "python -m kvtile size": ".ci/run python", "python capture.py": ".ci/run python",
    "tests/model/engines/transformers_caches.py": ".ci/run python",
    "cmake --preset release && cmake --build --preset release": ".ci/run rust", "cmake --preset dev && cmake --build --preset dev": ".ci/run",
    "cmake --preset dev-clang": ".ci/run", "cmake --preset windows": ".ci/run", "ctest --preset": ".ci/run",
    "tests/platforms.sh PLATFORM": ".ci/run", "tests/engine/compare_tokenizers.py": ".ci/run tokenizers",
    "build/release/bin/kvtile-compare": "test_cli_compare", "kvtile-compare": "test_cli_compare", "large": "example_large",
}
# What commands begin with that nobody runs.
NOT_RUN = {
    "tools/real_model.sh Qwen3-4B": "2.5 GB of weights, which no package has; .ci/run ggml runs the script on a smaller model",
    "tests/ggml/debian.sh": "a step is half an hour on a machine that does nothing else; .ci/run llama runs another step",
    **dict.fromkeys(("cmake -S ik_llama.cpp", "cmake --build ik", "g++ -O3 -DIK", "./peer-ik", "BY_HEAD=1 ./peer-ik", "LAYERS=1 ./peer-ik"),
                    "no package has ik_llama.cpp's headers; .ci/run ggml runs the same program with llama.cpp's"),
    "adb push": "needs a telephone; .ci/run bundle runs the program by qemu",
}
# What is printed, and stands by itself.
PRINTED = re.compile(r" *scheme |all (keys|values): |attention in \d|\d+ tokens predicted|KLD mean of|layer ")
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


def elsewhere(statement):
    """Of a command: how it begins where it is named above, its leg, and what its inputs are there."""
    for leg, commands in LEGS.items():
        for begin, *inputs in commands:
            if statement.startswith(begin):
                return begin, leg, inputs
    for begin in (*OTHERWISE, *NOT_RUN):
        if statement.startswith(begin):
            return begin, None, None
    return None, None, None


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
        self.variables, self.functions, self.run, self.problems, self.named = {}, "", 0, [], set()
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
        if not (is_assignment(all_of_it[0]) or elsewhere(all_of_it[0])[0] or first in self.programs or first in SHELL):
            return False
        for statement in all_of_it:
            word = first_word(statement)
            begin, _, _ = elsewhere(statement)
            if is_assignment(statement):
                self.assign(statement)
            elif word.endswith("()"):
                self.functions += self.small(statement) + "\n"
            elif begin:
                self.named.add(begin)
            elif word in self.programs or word in SHELL or word + "()" in SHELL:
                statement = self.small(re.sub(r"^((?:\w+=\S+ )+)(table )", lambda found: found[1].replace(" ", "; ") + found[2], statement))
                self.run += 1
                output = self.shell(statement, where)
                if "--benchmark_list_tests" in statement and not output.strip():
                    self.problems.append(f"{where}: no benchmark has such a name: {statement}")
            else:
                self.problems.append(f"{where}: nobody runs: {statement}")
        return True


def documents(root):
    return ["README.md", "tools/demo/README.md", "tools/ggml/bundle/README.md", "CONTRIBUTING.md", "SECURITY.md",
            *sorted(os.path.relpath(name, root) for name in glob.glob(root + "/docs/*.md"))]


def paragraphs(lines):
    return [part.split("\n") for part in re.split(r"\n\n+", "\n".join(lines).strip("\n"))]


def print_leg(leg, root):
    """What the leg runs, in the order of the documents."""
    for name in documents(root):
        for kind, lines, number in blocks(os.path.join(root, name)):
            for part in paragraphs(lines) if kind == "indented" else []:
                named = [(statement, *elsewhere(statement)) for statement in statements(part)]
                if all(of_leg != leg for _, _, of_leg, _ in named):
                    continue
                print(f"# {name}:{number}")
                for statement, begin, of_leg, inputs in named:
                    for theirs, ours in inputs or []:
                        statement = statement.replace(theirs, ours)
                    if of_leg == leg or begin in OTHERWISE or begin is None:
                        print(statement)


def check_names(root, named):
    """Sentences about names above that nobody has."""
    with open(os.path.join(root, ".ci/run"), encoding="utf-8") as file:
        ci = file.read()
    scripts, tests = ci, ""
    for script in glob.glob(root + "/tests/**/*.sh", recursive=True):
        with open(script, encoding="utf-8") as file:
            scripts += file.read()
    for lists in (*glob.glob(root + "/tests/**/CMakeLists.txt", recursive=True), root + "/docs/examples/CMakeLists.txt"):
        with open(lists, encoding="utf-8") as file:
            tests += file.read()
    for begin in {command[0] for leg in LEGS.values() for command in leg} | set(OTHERWISE) | set(NOT_RUN):
        if begin not in named:
            yield f"no document has this command any more: {begin}"
        program = os.path.join(root, first_word(begin))
        if os.path.isfile(program) and not os.access(program, os.X_OK):
            yield f"cannot be typed, as it may not be executed: {program}"
    for leg in LEGS:
        if not re.search(rf"(--leg|typed) {leg}\b", scripts):
            yield f"no script runs --leg {leg}"
    for who in {*OTHERWISE.values(), *(who for _, _, who in ELSEWHERE)}:
        found = [who == ".ci/run" or f'"${{1:-}}" = {who[8:]} ]' in ci] if who.startswith(".ci/run") else [re.search(rf"\b{name}\b", tests) for name in who.split()]
        if not all(found):
            yield f"nobody is called {who}"


def main():
    if sys.argv[1] == "--leg":
        print_leg(sys.argv[2], sys.argv[3])
        return
    root = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as work:
        runner = Runner(root, sys.argv[2], [*sys.argv[3:5], *sys.argv[6:]], sys.argv[5], work)
        for name in documents(root):
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
                    for part in paragraphs(lines):
                        if not runner.paragraph(where, part) and not PRINTED.match(part[0]):
                            runner.problems.append(f"{where}: nobody runs: {part[0]}")
                else:
                    runner.problems.append(f"{where}: nobody runs a snippet of kind '{kind}'")
    runner.problems += check_names(root, runner.named)
    for problem in runner.problems:
        print(problem, file=sys.stderr)
    print(f"{runner.run} snippets were run")
    sys.exit(1 if runner.problems or runner.run < 85 else 0)


main()
