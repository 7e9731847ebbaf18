# SPDX-License-Identifier: MIT
"""The package in a bare Python: rows in and out, attention, the step, sizes, and what a wrong argument says. No numpy here (test_numpy.py)."""
import array
import gc
import json
import math
import random
import struct
import sys
import threading

import kvtile
import pytest

HEADS, DIM = 2, 32


def rows(tokens, heads=HEADS, dim=DIM, seed=1, form="f"):
    """Gaussian rows [head][token][dim] as a memoryview."""
    numbers = random.Random(seed)
    return memoryview(bytearray(array.array(form, [numbers.gauss(0, 1) for _ in range(heads * tokens * dim)]).tobytes())).cast(form, (heads, tokens, dim))


def store(keys, values, **options):
    layout = kvtile.Layout(head_dim=DIM, kv_heads=HEADS, **options)
    filled = kvtile.Store(layout, keys.shape[1])
    filled.write(keys, "k")
    filled.write(values, "v")
    return filled


def expected(q, k, v, h, i, *, first=0, window=0, sink=None, scale=DIM ** -0.5):
    """Attention of query head h, which has KV head h / 2 to itself and its neighbour, at token i: in Python's doubles."""
    last = k.shape[1] - q.shape[1] + i
    seen = range(max(first, last + 1 - window if window else 0), last + 1)
    logits = [scale * sum(q[h, i, d] * k[h // 2, t, d] for d in range(DIM)) for t in seen]
    top = max(logits + ([sink] if sink is not None else []))
    weights = [math.exp(x - top) for x in logits]
    total = sum(weights) + (math.exp(sink - top) if sink is not None else 0)
    return [sum(w * v[h // 2, t, d] for w, t in zip(weights, seen)) / total for d in range(DIM)]


def test_rows_come_back():
    keys, values = rows(130), rows(130, seed=2)
    exact = store(keys, values, k="f32")
    assert exact.stored == 130 and exact.read("k").tobytes() == keys.tobytes() and exact.read("v").tobytes() == values.tobytes()
    assert exact.read("v", 60, 10)[1, 0, 5] == values[1, 60, 5]
    for scheme, most in (("kv8", 0.02), ("kv6", 0.05), ("kv4", 0.17)):
        back = store(keys, values, k=scheme).read("k")
        error = sum((back[h, t, d] - keys[h, t, d]) ** 2 for h in range(HEADS) for t in range(130) for d in range(DIM))
        assert 0 < error < most ** 2 * HEADS * 130 * DIM


def test_token_by_token_is_the_same_bytes():
    keys, values = rows(70), rows(70, seed=2)
    whole, single = store(keys, values, k="kv5", v="kv4", rotation=64), kvtile.Store(kvtile.Layout("kv5", "kv4", head_dim=DIM, kv_heads=HEADS, rotation=64), 70)
    for t in range(70):
        for side, given in (("k", keys), ("v", values)):
            row = memoryview(bytearray(b"".join(given.tobytes()[4 * DIM * (h * 70 + t):4 * DIM * (h * 70 + t + 1)] for h in range(HEADS))))
            single.write(row.cast("f", (1, HEADS, DIM)), side, t, order="token,head,dim")
    assert bytes(whole.memory) == bytes(single.memory)


@pytest.mark.parametrize("options", [{}, {"window": 20}, {"begin": 7}, {"sinks": array.array("f", [0.5, -1, 2, 0])}])
def test_attention_is_softmax(options):
    keys, values, q = rows(90), rows(90, seed=2), rows(3, heads=4, seed=3)
    found = kvtile.attend(q, store(keys, values, k="f32"), out=rows(3, heads=4), threads=2, **options)
    for h in range(4):
        for i in range(3):
            right = expected(q, keys, values, h, i, first=options.get("begin", 0), window=options.get("window", 0),
                             sink=options["sinks"][h] if "sinks" in options else None)
            assert max(abs(found[h, i, d] - right[d]) for d in range(DIM)) < 1e-5


def test_attention_over_two_stores():
    keys, values, q = rows(100), rows(100, seed=2), rows(1, heads=4, seed=3)
    cut = lambda given, a, b: memoryview(bytearray(b"".join(given.tobytes()[4 * DIM * (h * 100 + a):4 * DIM * (h * 100 + b)] for h in range(HEADS)))
                                         ).cast("f", (HEADS, b - a, DIM))
    parts = [(store(cut(keys, 0, 64), cut(values, 0, 64), k="kv8"), 0), (store(cut(keys, 64, 100), cut(values, 64, 100), k="f32"), 64)]
    found, near = kvtile.attend(q, parts), kvtile.attend(q, store(keys, values, k="f32"))
    assert max(abs(found[h, 0, d] - near[h, 0, d]) for h in range(4) for d in range(DIM)) < 0.02


def test_threads_change_no_bit():
    keys, values, q = rows(2100), rows(2100, seed=2), rows(2, heads=4, seed=3)
    whole = store(keys, values, k="kv4")
    assert bytes(kvtile.attend(q, whole)) == bytes(kvtile.attend(q, whole, threads=3))


def token_rows(given, first, end):
    """Tokens of [head][token][dim] as [token][head][dim]."""
    heads, tokens, dim = given.shape
    data = given.tobytes()
    parts = [data[4 * dim * (h * tokens + t):4 * dim * (h * tokens + t + 1)] for t in range(first, end) for h in range(heads)]
    return memoryview(bytearray(b"".join(parts))).cast("f", (end - first, heads, dim))


def test_step_and_presets():
    """Two sequences in one batch, in steps of different lengths: the same bits as each alone at once, and close to attention on exact rows."""
    layout, first = kvtile.Layout.preset("balanced", head_dim=DIM, kv_heads=HEADS)
    keys, values, q = rows(200), rows(200, seed=2), rows(200, heads=4, seed=3)
    results = {}
    for name, cuts in (("at once", [0, 200]), ("in pieces", [0, 1, 65, 70, 199, 200])):
        for threads in (1, 3):
            view = kvtile.View(layout, first, layers=2, blocks=8, first_blocks=2, open="f32", open_blocks=4)
            pair = [kvtile.Sequence([1, 2, 7, 3], open=(0, 3)), kvtile.Sequence([0, 4, 5, 6], open=(1, 2))]
            out = []
            for a, b in zip(cuts, cuts[1:]):
                for sequence in pair:
                    sequence.fresh = b - a
                twice = [memoryview(bytearray(2 * token_rows(x, a, b).tobytes())).cast("f", (2 * (b - a), x.shape[0], DIM)) for x in (q, keys, values)]
                out.append(view.step(1, pair, *twice, threads=threads).tobytes())
                for sequence in pair:
                    sequence.stored += b - a
            halves = [b"".join(piece[half * len(piece) // 2:(half + 1) * len(piece) // 2] for piece in out) for half in (0, 1)]
            assert halves[0] == halves[1]
            results[name, threads] = halves[0]
    assert len(set(results.values())) == 1
    found = memoryview(results["at once", 1]).cast("f", (200, 4, DIM))
    right = expected(q, keys, values, 3, 199)
    assert 0 < max(abs(found[199, 3, d] - right[d]) for d in range(DIM)) < 0.1
    back = view.read(pair[0], memoryview(bytearray(2 * 200 * HEADS * DIM * 4)).cast("f", (2, 1, 200, HEADS, DIM)), first_layer=1)
    assert back[0, 0, 199, 1, 3] == keys[1, 199, 3] and 0 < abs(back[1, 0, 100, 1, 3] - values[1, 100, 3]) < 0.5


def test_sizes(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}))
    size = kvtile.size(config, k="kv4", context=640)
    assert size.bytes_per_token == 30 * 3 * 2 * 34 and size.total_bytes == 640 * size.bytes_per_token and size.groups[0].layers == 30
    page = kvtile.Layout("kv4", head_dim=64, kv_heads=3).page_bytes
    assert page * 10 * 3 * 30 == size.total_bytes
    assert kvtile.size(str(config), k="balanced", context=64).total_bytes == 30 * kvtile.Layout.preset("balanced", head_dim=64, kv_heads=3)[0].bytes(64)
    assert kvtile.longest_context(config, 10**8, k="kv4") == 10**8 // (64 * 6120) * 64
    assert "gemma-4-E2B" in kvtile.models() and kvtile.size("gemma-4-E2B", k="q8_0", v="q4_0", engine="llama.cpp").bytes_per_token > 0
    for bad, said in (({"k": "kv7"}, "kv7"), ({"engine": "ollama"}, "llama.cpp"), ({"sequences": 0}, "sequences is 0")):
        with pytest.raises(kvtile.Error, match=said):
            kvtile.size(config, **bad)
    with pytest.raises(kvtile.Error, match="gemma-4-E2B"):
        kvtile.size("gemma-4-E2")
    with pytest.raises(TypeError, match="swa_full"):
        kvtile.size(config, full_swa=True)


def test_cpu():
    cpu = kvtile.cpu()
    assert cpu.tiers[0] == "scalar" and set(cpu.schemes) == {scheme.name for scheme in kvtile.schemes()} and "kv4" in cpu.schemes
    assert kvtile.presets() == ["balanced", "quality", "compact", "tight"]
    slow, fast = (kvtile.Store(kvtile.Layout("kv4", head_dim=DIM, kv_heads=HEADS, tiers=tiers), 64) for tiers in ("scalar", None))
    for each in (slow, fast):
        each.write(rows(64))
    assert bytes(slow.memory) == bytes(fast.memory)


class Device:
    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self):
        raise AssertionError("a device's array is not asked for")


LAYOUT = kvtile.Layout("kv4", head_dim=DIM, kv_heads=HEADS)
OWN = kvtile.Layout("kv4", head_dim=DIM, kv_heads=HEADS, centring="own")


@pytest.mark.parametrize("call, said", [
    (lambda: kvtile.Layout("kv7", head_dim=64, kv_heads=1), r"^k is 'kv7': a scheme is right: f32, f16"),
    (lambda: kvtile.Layout("kv4", head_dim=0, kv_heads=1), r"^head_dim is 0: a whole number of at least 1"),
    (lambda: kvtile.Layout("kv4", head_dim=2000, kv_heads=1), r"k_dim is 2000"),
    (lambda: kvtile.Layout("kv4", head_dim=64, kv_heads=1, rotation=65), r"^rotation is 65: none, 64, 128 are right"),
    (lambda: kvtile.Layout("kv4", head_dim=64, kv_heads=1, centring="mine"), r"^centring is 'mine': none, sequence, page, own"),
    (lambda: kvtile.Layout("kv4", head_dim=64, kv_heads=1, tiers="avx9"), r"^tiers is 'avx9'"),
    (lambda: kvtile.Layout.preset("best", head_dim=64, kv_heads=1), r"^preset is 'best': balanced, quality"),
    (lambda: kvtile.Store(LAYOUT, -1), r"^tokens is -1"),
    (lambda: kvtile.Store(LAYOUT, 64, bytearray(100)), r"^memory has 100 bytes: at least \d+ are right"),
    (lambda: kvtile.Store(LAYOUT, 64, bytes(100000)), r"^memory is read-only"),
    (lambda: kvtile.Store(LAYOUT, 64, memoryview(bytearray(10**6))[::2]), r"^memory has strides of \(2,\) bytes"),
    (lambda: kvtile.Store(LAYOUT, 64).write([1.0]), r"^rows is a list: an array"),
    (lambda: kvtile.Store(LAYOUT, 64).write(rows(4, form="d")), r"^rows is f64: f32 or f16 or bf16 is right"),
    (lambda: kvtile.Store(LAYOUT, 64).write(rows(4, heads=3)), r"^rows has shape \(3, 4, 32\): \(2, tokens, 32\) is right"),
    (lambda: kvtile.Store(LAYOUT, 64).write(token_rows(rows(4), 0, 4)), r"order='token,head,dim' takes it as it is"),
    (lambda: kvtile.Store(LAYOUT, 64).write(rows(4), order="tokens"), r"^order is 'tokens'"),
    (lambda: kvtile.Store(LAYOUT, 64).write(Device()), r"^rows is on DLPack device 2:0: memory of the CPU is right"),
    (lambda: kvtile.Store(LAYOUT, 64).write(rows(4), "w"), r"^side is 'w': k, v, rope, latent are right"),
    (lambda: kvtile.Store(LAYOUT, 64).write(rows(4), "rope"), r"^side is 'rope', which this layout does not store"),
    (lambda: kvtile.Store(LAYOUT, 64).write(rows(4), first=61), r"^first is 61 and rows has 4 tokens: the store has room for 64"),
    (lambda: kvtile.Store(OWN, 128).write(rows(4), first=3), r"^rows of side k from token 3 on, 4 tokens"),
    (lambda: kvtile.Store(LAYOUT, 64).read(out=bytes(8)), r"^out is u8"),
    (lambda: kvtile.Store(LAYOUT, 64).read(tokens=4, out=memoryview(bytes(HEADS * 4 * DIM * 4)).cast("f", (HEADS, 4, DIM))), r"^out is read-only"),
    (lambda: kvtile.Store(LAYOUT, 64).read(tokens=65), r"the store has room for 64"),
    (lambda: kvtile.attend(rows(1, heads=3), store(rows(4), rows(4))), r"^q has 3 heads: a multiple of the 2 KV heads"),
    (lambda: kvtile.attend(rows(1, heads=4), []), r"^stores is empty"),
    (lambda: kvtile.attend(rows(9, heads=4), store(rows(4), rows(4))), r"^q has 9 tokens, but 4 are stored"),
    (lambda: kvtile.attend(rows(1, heads=4), store(rows(4), rows(4)), scale=math.inf), r"scale is inf"),
    (lambda: kvtile.attend(rows(1, heads=4), store(rows(4), rows(4)), sinks=array.array("f", [0])), r"^sinks has shape \(1,\): \(4,\) is right"),
    (lambda: kvtile.attend(rows(1, heads=4), store(rows(4), rows(4)), window=-3), r"^window is -3"),
    (lambda: kvtile.attend(rows(1, heads=4), store(rows(4), rows(4)), out=rows(2, heads=4)), r"^out has shape \(4, 2, 32\): \(4, 1, 32\) is right"),
    (lambda: kvtile.View(OWN, layers=1, blocks=1), r"^view.open_dtype is 0, but side 0 has centres of its own"),
    (lambda: kvtile.View(LAYOUT, layers=0, blocks=1), r"^layers is 0"),
    (lambda: step(kvtile.Sequence([0], fresh=65)), r"table"),
    (lambda: step(kvtile.Sequence([9], fresh=1)), r"block"),
    (lambda: step(kvtile.Sequence([0], open=[0], fresh=1)), r"^open is \[0\]: two blocks"),
    (lambda: step(kvtile.Sequence([0], fresh=1), layer=1), r"layer is 1"),
])
def test_wrong_arguments_are_named(call, said):
    with pytest.raises(kvtile.Error, match=said):
        call()


def step(sequence, layer=0):
    view = kvtile.View(LAYOUT, layers=1, blocks=1)
    tokens = sequence.fresh
    return view.step(layer, [sequence], *[token_rows(rows(tokens, heads), 0, tokens) for heads in (4, HEADS, HEADS)])


def test_references_and_memory_stay_balanced():
    keys, values, q = rows(64), rows(64, seed=2), rows(1, heads=4)
    whole = store(keys, values, k="kv4")
    out = kvtile.attend(q, whole)

    def count():
        gc.collect()
        return [sys.getrefcount(each) for each in (keys, values, q, out, whole, whole.layout)]

    before = count()
    for _ in range(200):
        kvtile.attend(q, whole, out=out)
        whole.write(keys, "k")
        whole.read("v")
        with pytest.raises(kvtile.Error):
            whole.write(q, "k")
    assert count() == before
    keys.release()  # refused while anybody still holds its memory


def test_many_threads_at_once():
    keys, values, q = rows(300), rows(300, seed=2), rows(1, heads=4)
    right, wrong = bytes(kvtile.attend(q, store(keys, values, k="kv4"))), []

    def work():
        try:
            for _ in range(20):
                if bytes(kvtile.attend(q, store(keys, values, k="kv4"))) != right or struct.unpack("f", right[:4])[0] == 0:
                    wrong.append("another result")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_cache():
    """Forks, drafts that are taken back and sequences that are freed: the bits of a sequence that never knew of the others."""
    layout, first = kvtile.Layout.preset("balanced", head_dim=DIM, kv_heads=HEADS)
    keys, values, q = rows(200), rows(200, seed=2), rows(200, heads=4, seed=3)
    cache = kvtile.Cache([kvtile.Group(layout, layers=2, blocks=9, first=first, open="f32")], sequences=3, tokens=300)

    def run(sequence, a, b, accepted=None):
        sequence.append(b - a)
        out = cache.step(1, [sequence], *[token_rows(x, a, b) for x in (q, keys, values)], threads=2).tobytes()
        sequence.commit(accepted)
        return out

    alone = cache.new()
    right = run(alone, 0, 200)
    draft = cache.new()
    assert run(draft, 0, 150) == right[:4 * 4 * DIM * 150]
    fork = draft.fork()
    assert cache.statistics().shared == 1 and fork.stored == 150  # page 1: page 0 is a first page, and page 2 is open
    run(draft, 100, 110, 0)
    draft.truncate(130)
    assert run(draft, 130, 200) == right[4 * 4 * DIM * 130:] and run(fork, 150, 200) == right[4 * 4 * DIM * 150:]
    with pytest.raises(kvtile.Error, match="3"):
        cache.new()
    fork.free()
    again = cache.new()
    with pytest.raises(kvtile.Error, match="301"):
        again.append(301)
    del draft, again
    gc.collect()
    assert cache.statistics().free == 9 - 2 and alone.stored == 200
    alone.remove(64, 128, close=False)
    assert alone.stored == 136
    with pytest.raises(kvtile.Error, match="window"):
        kvtile.Cache([kvtile.Group(layout, layers=1, blocks=1, first=first, open="f32", window=-1)], sequences=1, tokens=1)
