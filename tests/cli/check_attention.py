# SPDX-License-Identifier: MIT
"""Figures of kvtile eval --attention beside plain double-precision Python: rows of odd widths, in q8_0 and q4_0 as docs/formats.md has them.
Usage: check_attention.py FOLDER KVTILE..."""
import json
import math
import random
import struct
import subprocess
import sys

folder, command = sys.argv[1], sys.argv[2:]
failures = 0


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def f16(x):
    return struct.unpack("<e", struct.pack("<e", x))[0]


def stored(row, bits):
    """A row as blocks of 32 channels with an f16 scale leave it; the last block has zeros behind the row."""
    padded = row + [0.0] * (-len(row) % 16)
    back = []
    for at in range(0, len(padded), 32):
        block = padded[at:at + 32]
        if bits == 8:
            scale = f32(max(map(abs, block)) / 127)
            codes = [round(f32(x * f32(1 / scale))) for x in block]
        else:
            extreme = max(block, key=lambda x: (abs(x), -x))
            scale = f32(extreme / -8)
            codes = [min(15, math.floor(f32(f32(x * f32(1 / scale)) + 8.5))) - 8 for x in block]
        back += [f32(code * f16(scale)) for code in codes]
    return back[:len(row)]


def attend(keys, values, query, position):
    logits = [sum(map(lambda a, b: a * b, query, key)) / math.sqrt(len(query)) for key in keys[:position + 1]]
    top = max(logits)
    weights = [math.exp(logit - top) for logit in logits]
    total = sum(weights)
    weights = [weight / total for weight in weights]
    return weights, [sum(weight * value[c] for weight, value in zip(weights, values)) for c in range(len(values[0]))]


def save(path, tensors):
    header, data = {}, b""
    for name, rows in tensors.items():
        numbers = [x for head in rows for row in head for x in row]
        header[name] = {"dtype": "F32", "shape": [len(rows), len(rows[0]), len(rows[0][0])], "data_offsets": [len(data), len(data) + 4 * len(numbers)]}
        data += struct.pack(f"<{len(numbers)}f", *numbers)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def check(k_dim, v_dim, bits, kv_heads=2, heads=4, tokens=12):
    global failures
    random.seed(k_dim * 1000 + v_dim)
    rows = lambda n, dim: [[[f32(random.gauss(0, 1)) for _ in range(dim)] for _ in range(tokens)] for _ in range(n)]
    keys, values, queries = rows(kv_heads, k_dim), rows(kv_heads, v_dim), rows(heads, k_dim)
    path, scheme = f"{folder}/attention_{k_dim}_{v_dim}.safetensors", f"q{bits}_0"
    save(path, {"keys": keys, "values": values, "queries": queries})
    back_keys, back_values = ([[stored(row, bits) for row in head] for head in side] for side in (keys, values))
    divergences, same, error, signal = [], 0, 0, 0
    for h in range(heads):
        kv = h * kv_heads // heads
        for t in range(tokens):
            weights, out = attend(keys[kv], values[kv], queries[h][t], t)
            back_weights, back_out = attend(back_keys[kv], back_values[kv], queries[h][t], t)
            divergences.append(sum(a * math.log(a / b) for a, b in zip(weights, back_weights)))
            same += weights.index(max(weights)) == back_weights.index(max(back_weights))
            error += sum((a - b) ** 2 for a, b in zip(out, back_out))
            signal += sum(a * a for a in out)
    want = {"kl_mean": sum(divergences) / len(divergences), "kl_max": max(divergences), "same_top": same / len(divergences),
            "output_error_of_codes": math.sqrt(error / signal), "query_rows": heads * tokens, "lost": 0}
    done = subprocess.run([*command, "eval", "--attention", path, "--schemes", scheme, "--rotation", "none", "--json"],
                          check=True, capture_output=True, text=True)
    got = json.loads(done.stdout)[0]
    for name, value in want.items():
        if not math.isclose(got[name], value, rel_tol=1e-6, abs_tol=1e-12):
            failures += 1
            print(f"FAILED: {scheme}, {k_dim} and {v_dim} channels: {name} is {got[name]}, not {value}")


for k_dim, v_dim in ((40, 40), (72, 72), (80, 80), (100, 100), (112, 112), (192, 128), (64, 128)):
    for bits in (8, 4):
        check(k_dim, v_dim, bits)
sys.exit(failures > 0)
