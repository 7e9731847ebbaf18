#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Weights of GGUF files, and what models predict from them, compared with others' programs.

usage: compare_gguf.py NUMBERS FOLDER [--blocks N] [--golden]

NUMBERS is the build's bin/numbers, with kvtile-engine beside it. FOLDER keeps what is fetched: a virtual environment with
PyPI's `gguf`, and what tools/ggml/fetch.sh fetches of llama.cpp. Needs pip, npm, git and a C compiler; llama.cpp's
libraries are x86-64's.

Formats: N random blocks (20000) of each are decoded by both and compared to the bit. Architectures: a small model of random
weights of each, in several formats, goes through llama.cpp's libllama too, token by token with an f32 cache, and the
largest difference of any logit is compared with the root of their mean square. So are keys, values and queries of
tools/capture with those of kvtile-engine capture; llama.cpp's cache is f16 there.

--golden prints tests/engine/golden_numbers.def instead.
"""
import argparse, os, pathlib, random, subprocess, sys

FORMATS = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL".split()
ARCHITECTURES = "llama qwen2 qwen3 gemma3 phi3 smollm3".split()
# Of logits' root mean square. ggml reads GELU from a table of f16, which gemma3 shows.
TOLERANCE = {"gemma3": 1e-3}
STANDARD = 2e-4
ROWS = 0.01
LAYERS, VOCABULARY, CONTEXT = 7, 320, 256
HERE = pathlib.Path(__file__).parent

PROGRAM = r"""
#include "ggml-backend.h"
#include "llama.h"
#include <stdio.h>
#include <stdlib.h>
static void say(enum ggml_log_level level, const char *text, void *unused)
{
    (void)unused;
    if (level >= GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}
int main(int argc, char **argv)
{
    llama_log_set(say, NULL);
    ggml_backend_load_all_from_path(argv[1]);
    struct llama_model *model = llama_model_load_from_file(argv[2], llama_model_default_params());
    struct llama_context_params how = llama_context_default_params();
    how.n_ctx = 256;
    how.n_threads = how.n_threads_batch = 1;
    how.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    how.type_k = how.type_v = GGML_TYPE_F32;
    struct llama_context *context = model != NULL ? llama_init_from_model(model, how) : NULL;
    for (int i = 3; context != NULL && i < argc; i++) {
        llama_token token = atoi(argv[i]);
        if (llama_decode(context, llama_batch_get_one(&token, 1)) != 0)
            return 1;
        fwrite(llama_get_logits(context), sizeof(float), (size_t)llama_vocab_n_tokens(llama_model_get_vocab(model)), stdout);
    }
    return context == NULL;
}
"""


def fetch(folder):
    """Restarts in the environment that has `gguf`."""
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "venv/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "-q", "install", "gguf"], check=True)
    if pathlib.Path(sys.prefix).resolve() != (folder / "venv").resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def build(folder, source, name):
    """A program on libllama."""
    program = folder / name
    libraries = [next((folder / "bin").glob(library + ".*")) for library in ("libllama", "libggml", "libggml-base")]
    subprocess.run(["cc", "-O2", f"-I{folder}/llama.cpp/include", f"-I{folder}/llama.cpp/ggml/include", source, "-o", program, *libraries,
                    f"-Wl,-rpath,{folder.resolve()}/bin,--allow-shlib-undefined"], check=True)
    return program


def random_blocks(form, n, seed=1):
    """Bytes of blocks whose scales are any finite f16."""
    import gguf, numpy as np
    kind = gguf.GGMLQuantizationType[form]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = np.random.default_rng(seed).integers(0, 256, (n, size), dtype=np.uint8)
    places = {"Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208]}.get(form, [0, 2] if form in ("Q4_1", "Q5_1", "Q4_K", "Q5_K") else [0])
    for place in places:
        high = blocks[:, place + 1]
        high[(high & 0x7C) == 0x7C] ^= 0x40
    return kind, blocks


def compare_formats(numbers, n):
    import gguf, numpy as np
    failed = 0
    for form in FORMATS:
        kind, blocks = random_blocks(form, n)
        expected = gguf.dequantize(blocks, kind)
        decoded = subprocess.run([numbers, "decode", str(int(kind))], input=blocks.tobytes(), check=True, capture_output=True).stdout
        got = np.frombuffer(decoded, np.float32).reshape(expected.shape)
        different = int((got.view(np.uint32) != expected.view(np.uint32)).sum())
        failed += different > 0
        print(f"{form}: {expected.size} numbers, {different} different" + (f": {got[got != expected][:3]} not {expected[got != expected][:3]}" if different else ""))
    return failed


def write_model(path, name, form):
    """A model of random weights, matrices in one format where their width allows it."""
    import gguf, numpy as np
    random_of = np.random.default_rng(1)
    dim, ffn, layers, heads, kv_heads, context = 256, 256, LAYERS, 4, 2, CONTEXT
    head_dim = 64 if name in ("phi3", "qwen2") else 32  # llama.cpp derives that of these two
    to = gguf.GGUFWriter(path, name)
    for add, value in ((to.add_block_count, layers), (to.add_context_length, context), (to.add_embedding_length, dim), (to.add_feed_forward_length, ffn),
                       (to.add_head_count, heads), (to.add_head_count_kv, kv_heads), (to.add_key_length, head_dim), (to.add_value_length, head_dim),
                       (to.add_layer_norm_rms_eps, 1e-6), (to.add_rope_dimension_count, head_dim), (to.add_vocab_size, VOCABULARY),
                       (to.add_rope_freq_base, 1e6 if name == "gemma3" else 1e4), (to.add_tokenizer_model, "llama"), (to.add_tokenizer_pre, "default"),
                       (to.add_token_list, [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)] + [b"t%d" % i for i in range(VOCABULARY - 259)]),
                       (to.add_token_scores, [0.0] * VOCABULARY), (to.add_token_types, [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259)),
                       (to.add_bos_token_id, 1), (to.add_eos_token_id, 2)):
        add(value)
    if name == "gemma3":
        to.add_sliding_window(8)
        to.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        to.add_rope_scaling_factor(8.0)
    if name == "phi3":
        to.add_rope_scaling_orig_ctx_len(context)
        to.add_rope_scaling_attn_factors(1.19)

    def tensor(at, *shape, scale=None, around=0.0):
        values = (random_of.standard_normal(shape) * (scale or 1 / np.sqrt(shape[-1])) + around).astype(np.float32)
        kind = gguf.GGMLQuantizationType[form]
        if len(shape) == 2 and form != "F32":
            to.add_tensor(at, gguf.quantize(values, kind), raw_dtype=kind)
        else:
            to.add_tensor(at, values)

    def vector(at, width, scale=0.1, around=1.0):
        tensor(at, width, scale=scale, around=around)

    tensor("token_embd.weight", VOCABULARY, dim, scale=1.0)
    vector("output_norm.weight", dim)
    if name != "gemma3":
        tensor("output.weight", VOCABULARY, dim, scale=0.5)
    if name == "phi3":
        vector("rope_factors_short.weight", head_dim // 2, around=1.3)
        vector("rope_factors_long.weight", head_dim // 2, around=4)
    for i in range(layers):
        at = f"blk.{i}."
        q, kv = heads * head_dim, kv_heads * head_dim
        vector(at + "attn_norm.weight", dim)
        vector(at + "ffn_norm.weight", dim)
        if name == "phi3":
            tensor(at + "attn_qkv.weight", q + 2 * kv, dim, scale=0.1)
            tensor(at + "ffn_up.weight", 2 * ffn, dim)
        else:
            for side, rows in (("q", q), ("k", kv), ("v", kv)):
                tensor(at + f"attn_{side}.weight", rows, dim, scale=0.1)
                if name == "qwen2":
                    vector(at + f"attn_{side}.bias", rows, 0.5, 0)
            tensor(at + "ffn_gate.weight", ffn, dim)
            tensor(at + "ffn_up.weight", ffn, dim)
        if name in ("qwen3", "gemma3"):
            vector(at + "attn_q_norm.weight", head_dim, 0.3, 1.2)
            vector(at + "attn_k_norm.weight", head_dim, 0.3, 1.2)
        if name == "gemma3":
            vector(at + "post_attention_norm.weight", dim)
            vector(at + "post_ffw_norm.weight", dim)
        tensor(at + "attn_output.weight", dim, q)
        tensor(at + "ffn_down.weight", dim, ffn)
    to.write_header_to_file()
    to.write_kv_data_to_file()
    to.write_tensors_to_file()
    to.close()


def compare_captures(capture, engine, folder, path, apart, scale):
    """The largest difference of rows of any layer, relative to their energy."""
    import numpy as np
    text, theirs, ours = folder / "text.txt", folder / "theirs", folder / "ours"
    text.write_text(" ".join(f"t{i * 7 % 61}" for i in range(60)))
    theirs.mkdir(exist_ok=True)
    for old in [*theirs.glob("*"), *ours.glob("*")]:
        old.unlink()
    subprocess.run([capture, folder / "bin", path, text, "40", theirs], check=True, capture_output=True)
    subprocess.run([engine, "capture", "--model", path, "--text", text, "--tokens", "40", "--out", ours], check=True, capture_output=True)
    most = 0
    for file in sorted(theirs.glob("*.npy")):
        layer, kind = file.stem[len("layer"):].split("_")
        a = np.load(file)
        b = np.frombuffer((ours / f"layer{int(layer)}_{kind}.qvkt").read_bytes()[20:], np.float32).reshape(a.shape)
        if apart and kind != "values":  # ours has the pairs of RoPE next to each other
            b = np.concatenate([b[..., 0::2], b[..., 1::2]], axis=-1)
        if kind == "queries":
            b = b * scale
        most = max(most, float(np.sqrt(np.square(a - b).mean() / np.square(b).mean())))
    return most, len(list(theirs.glob("*.npy")))


def compare_architectures(numbers, folder):
    import numpy as np
    subprocess.run(["sh", HERE.parent.parent / "tools/ggml/fetch.sh", folder, "headers", "binaries"], check=True)
    (folder / "llama_logits.c").write_text(PROGRAM)
    program = build(folder, folder / "llama_logits.c", "llama_logits")
    capture = build(folder, HERE.parent.parent / "tools/capture/capture.c", "kvtile-capture")
    random.seed(1)
    tokens = [str(random.randrange(VOCABULARY)) for _ in range(40)]
    failed = 0
    for name in ARCHITECTURES:
        path = folder / "random.gguf"
        write_model(path, name, "F32")

        def logits(*command):
            logits = subprocess.run([*command, *tokens], check=True, capture_output=True).stdout
            return np.frombuffer(logits, np.float32).reshape(len(tokens), -1)

        theirs, ours = logits(program, folder / "bin", path), logits(numbers, "logits", path)
        difference = float(np.abs(ours - theirs).max() / np.sqrt(np.square(theirs).mean()))
        rows, files = compare_captures(capture, numbers.parent / "kvtile-engine", folder, path, name not in ("llama", "smollm3"),
                                       0.125 if name == "phi3" else 1)  # llama.cpp's queries of Phi-3 are scaled already
        good = difference <= TOLERANCE.get(name, STANDARD) and rows <= ROWS and files == 3 * LAYERS
        failed += not good
        print(f"{name}: logits differ by at most {difference:.2g} of their root mean square, rows of {files} files by {rows:.2g}"
              f"{'' if good else ': TOO MUCH'}")
    return failed


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def print_golden():
    import gguf
    print("/* SPDX-License-Identifier: MIT */\n"
          "/* Made by compare_gguf.py --golden, from PyPI's gguf: a block of random bytes.\n *\n"
          " *   NUMBERS_GOLDEN(ggml's number of the format, bytes of a block, FNV-1a of the numbers as f32)\n */")
    for form in FORMATS:
        kind, blocks = random_blocks(form, 1, seed=7)
        text = "".join(f"\\x{byte:02x}" for byte in blocks[0])
        lines = [text[i:i + 128] for i in range(0, len(text), 128)]
        print(f"NUMBERS_GOLDEN({int(kind)}, /* {form} */\n" + "\n".join(f'               "{line}"' for line in lines) +
              f",\n               0x{fnv(gguf.dequantize(blocks, kind).tobytes()):016x})")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("numbers", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--blocks", type=int, default=20000)
    parser.add_argument("--golden", action="store_true")
    given = parser.parse_args()
    fetch(given.folder)
    if given.golden:
        return print_golden()
    failed = compare_formats(given.numbers, given.blocks) + compare_architectures(given.numbers, given.folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
