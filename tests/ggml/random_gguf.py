#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A model of random weights for llama.cpp whose attention is large and whose rest is small: 2 layers, 32 query heads and 8 KV heads of 128.

   random_gguf.py FILE"""
import random
import struct
import sys

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, FORWARD, VOCABULARY, CONTEXT = 2, 512, 32, 8, 128, 1024, 1024, 16384
U32, I32, F32, STRING, ARRAY = 4, 5, 6, 8, 9  # types of values
TYPE_F32, TYPE_F16 = 0, 1                     # of tensors
ALIGNMENT = 32


def text(value):
    return struct.pack("<Q", len(value)) + value


def value(kind, x):
    return struct.pack("<" + {U32: "I", I32: "i", F32: "f"}[kind], x) if kind != STRING else text(x)


def pair(key, kind, x):
    return text(key.encode()) + struct.pack("<I", kind) + value(kind, x)


def array(key, kind, items):
    return text(key.encode()) + struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(value(kind, x) for x in items)


def half_rows(generator, count):
    """Numbers of f16 with random signs and fractions, all between 1/64 and 1/32."""
    low = generator.randbytes(count)
    high = generator.randbytes(count).translate(bytes((x & 0x80) | 9 << 2 | (x & 3) for x in range(256)))
    both = bytearray(2 * count)
    both[0::2], both[1::2] = low, high
    return bytes(both)


def main():
    generator = random.Random(1)
    tokens = [b"<unk>", b"<s>", b"</s>"] + [b"<0x%02X>" % i for i in range(256)] + [b"t%d" % i for i in range(VOCABULARY - 259)]
    pairs = [pair("general.architecture", STRING, b"llama"), pair("general.name", STRING, b"random"), pair("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
             pair("llama.rope.freq_base", F32, 10000.0), pair("tokenizer.ggml.model", STRING, b"llama"),
             array("tokenizer.ggml.tokens", STRING, tokens), array("tokenizer.ggml.scores", F32, [0.0] * VOCABULARY),
             array("tokenizer.ggml.token_type", I32, [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259))]
    for key, x in (("context_length", CONTEXT), ("embedding_length", WIDTH), ("block_count", LAYERS), ("feed_forward_length", FORWARD),
                   ("attention.head_count", HEADS), ("attention.head_count_kv", KV_HEADS), ("attention.key_length", HEAD_DIM),
                   ("attention.value_length", HEAD_DIM), ("rope.dimension_count", HEAD_DIM), ("vocab_size", VOCABULARY)):
        pairs.append(pair("llama." + key, U32, x))
    for key, x in (("bos", 1), ("eos", 2), ("unknown", 0)):
        pairs.append(pair(f"tokenizer.ggml.{key}_token_id", U32, x))
    # Columns come first.
    shapes = {"token_embd": (WIDTH, VOCABULARY), "output_norm": (WIDTH,)}
    for i in range(LAYERS):
        for name, shape in (("attn_norm", (WIDTH,)), ("attn_q", (WIDTH, HEADS * HEAD_DIM)), ("attn_k", (WIDTH, KV_HEADS * HEAD_DIM)),
                            ("attn_v", (WIDTH, KV_HEADS * HEAD_DIM)), ("attn_output", (HEADS * HEAD_DIM, WIDTH)), ("ffn_norm", (WIDTH,)),
                            ("ffn_gate", (WIDTH, FORWARD)), ("ffn_up", (WIDTH, FORWARD)), ("ffn_down", (FORWARD, WIDTH))):
            shapes[f"blk.{i}.{name}"] = shape
    head, data = b"", b""
    for name, shape in shapes.items():
        head += text(f"{name}.weight".encode()) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, TYPE_F16 if len(shape) > 1 else TYPE_F32, len(data))
        data += half_rows(generator, shape[0] * shape[1]) if len(shape) > 1 else struct.pack(f"<{shape[0]}f", *[1.0] * shape[0])
        data += bytes(-len(data) % ALIGNMENT)
    begin = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(pairs)) + b"".join(pairs) + head
    with open(sys.argv[1], "wb") as file:
        file.write(begin + bytes(-len(begin) % ALIGNMENT) + data)


main()
