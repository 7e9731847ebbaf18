# SPDX-License-Identifier: MIT
"""Chunks of a shared cache: rows come back as their layouts store them, and whatever is not in order does not. No LMCache here (test_lmcache.py)."""
import ctypes
import itertools

import kvtile
import numpy
import pytest
from kvtile.chunks import HEADER, Codec

RANDOM = numpy.random.default_rng(1)
SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1}


def rows(shape, dtype="float16"):
    if dtype == "uint8":
        return RANDOM.integers(0, 256, shape, "uint8")
    if dtype == "bfloat16":
        return (RANDOM.standard_normal(shape).astype("float32").view("uint32") >> 16).astype("uint16")
    return RANDOM.standard_normal(shape).astype(dtype)


def write(codec, given, dtype):
    out = numpy.zeros(codec.stored_bytes(given.shape, dtype, SIZES[dtype]) + 1, "uint8")
    assert codec.write(given.shape, dtype, SIZES[dtype], given.ctypes.data, out.ctypes.data) == len(out) - 1 and out[-1] == 0
    return out[:-1]


def read(codec, data, like, dtype):
    out = numpy.zeros_like(like)
    try:
        assert codec.read(like.shape, dtype, SIZES[dtype], data.ctypes.data, len(data), out.ctypes.data) == len(data)
    except kvtile.Error:
        assert not out.any()  # nothing was written
        raise
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("tokens", [256, 200, 1])
def test_rows_come_back(dtype, tokens):
    given = rows((2, 3, tokens, 4 * 64), dtype)
    assert (read(Codec(64, k="f32", rotation=0, centring="none"), write(Codec(64, k="f32", rotation=0, centring="none"), given, dtype), given, dtype) == given).all()
    codec = Codec(64, k="kv8", v="kv6")
    found, numbers = read(codec, write(codec, given, dtype), given, dtype), given
    if dtype == "bfloat16":
        numbers, found = ((x.astype("uint32") << 16).view("float32") for x in (given, found))
    for side, most in ((0, 0.01), (1, 0.04)):
        error = numpy.linalg.norm((found[side] - numbers[side]).astype("float64")) / numpy.linalg.norm(numbers[side].astype("float64"))
        assert 0 < error < most or tokens == 1
    layout, (layer, head) = kvtile.Layout("kv8", "kv6", head_dim=64, kv_heads=4, rotation=64, centring="own"), (2, 3)
    store = kvtile.Store(layout, tokens)  # the same rows through a store of that layer
    bf16 = dtype == "bfloat16"
    store.write(given[0, layer].reshape(tokens, 4, 64), "k", order="token,head,dim", bf16=bf16)
    if not bf16:
        assert (store.read("k", dtype={"float32": "f32", "float16": "f16"}[dtype])[head] == found[0, layer, :, 64 * head:64 * head + 64]).all()


def test_bits():
    given = rows((2, 30, 256, 192))
    for codec, bits in ((Codec(64, k="kv4"), 4.44), (Codec(64, k="kv5", v="kv4"), 4.94), (Codec(64, k="kv8"), 8.44),
                        (Codec(64, k="kv4", first="kv8"), 5.39), (Codec(64, "compact"), 5.39), (Codec(64), 5.77)):
        data = write(codec, given, "float16")
        assert abs(8 * len(data) / given.size - bits) < 0.005


@pytest.mark.parametrize("shape", [(3, 100, 576), (1, 3, 100, 576)])
def test_latents(shape):
    given = rows(shape, "float32")
    codec = Codec(64, k="kv4", rope="f32", rope_dim=64)
    found = read(codec, write(codec, given, "float32"), given, "float32")
    assert (found[..., 512:] == given[..., 512:]).all()
    assert 0 < numpy.linalg.norm(found - given) / numpy.linalg.norm(given) < 0.1


@pytest.mark.parametrize("shape, dtype", [((2, 3, 64, 256), "uint8"), ((5, 7), "float32"), ((2, 3, 64, 100), "float16"), ((3, 64, 576), "float16")])
def test_others_are_kept_as_they_are(shape, dtype):
    given, codec = rows(shape, dtype), Codec(64)
    data = write(codec, given, dtype)
    assert len(data) == HEADER.size + given.nbytes and (read(codec, data, given, dtype) == given).all()
    data[-1] ^= 1
    with pytest.raises(kvtile.Error, match="checksum"):
        read(codec, data, given, dtype)


@pytest.mark.parametrize("tokens", [300, 64, 20])
@pytest.mark.parametrize("shape", [(2, 3, None, 128), (3, None, 576)])
def test_a_first_page_of_its_own(tokens, shape):
    """A preset's chunk is a chunk of 64 tokens in kv8 without centres, and one of the others: pages of a layer follow each other."""
    given = rows([tokens if n is None else n for n in shape], "float32")
    axis, rope = shape.index(None), 64 if len(shape) == 3 else 0
    codec = Codec(64, "compact", rope_dim=rope)
    found = read(codec, write(codec, given, "float32"), given, "float32")
    pieces = []
    for part, codec in ((slice(0, 64), Codec(64, k="kv8", centring="none", rope_dim=rope)), (slice(64, None), Codec(64, k="kv4", rope_dim=rope))):
        piece = numpy.ascontiguousarray(given.take(range(*part.indices(tokens)), axis))
        if piece.size:
            pieces.append(read(codec, write(codec, piece, "float32"), piece, "float32"))
    assert (found == numpy.concatenate(pieces, axis)).all()


CODECS = [Codec(64, k="kv4"), Codec(64, k="kv5", v="kv4"), Codec(64, k="kv4", rotation=0), Codec(64, k="kv4", centring="none"), Codec(128, k="kv4"),
          Codec(48, k="kv4"), Codec(64, "compact"), Codec(64, "tight"), Codec(64, k="kv4", first="kv6")]


def test_mismatches_are_refused():
    given = rows((2, 2, 130, 128))
    for a, b in itertools.permutations(CODECS, 2):
        with pytest.raises(kvtile.Error):
            read(b, write(a, given, "float16"), given, "float16")
    data = write(CODECS[0], given, "float16")
    for like, dtype in ((rows((2, 2, 131, 128)), "float16"), (rows((2, 1, 130, 128)), "float16"), (rows((2, 1, 130, 256)), "float16")):
        with pytest.raises(kvtile.Error, match="another kind|bytes"):
            read(CODECS[0], data, like, dtype)
    with pytest.raises(kvtile.Error, match=r"^data has \d+ bytes: \d+ are right"):
        read(CODECS[0], data[:-1], given, "float16")


def test_every_flipped_bit_is_found():
    given, codec = rows((2, 1, 3, 16)), Codec(16, k="kv4")
    data = write(codec, given, "float16")
    for at in range(len(data)):
        changed = data.copy()
        changed[at] ^= 1 << at % 8
        with pytest.raises(kvtile.Error):
            read(codec, changed, given, "float16")
    with pytest.raises(kvtile.Error, match="no header"):
        read(codec, numpy.zeros_like(data), given, "float16")


def test_whose_rows_they_are():
    given, codec = rows((2, 1, 64, 64)), Codec(64)
    data = numpy.zeros(codec.stored_bytes(given.shape, "float16", 2), "uint8")
    out = numpy.zeros_like(given)
    codec.write(given.shape, "float16", 2, given.ctypes.data, data.ctypes.data, b"one")
    for name in (b"", b"another"):
        with pytest.raises(kvtile.Error, match="another"):
            codec.read(given.shape, "float16", 2, data.ctypes.data, len(data), out.ctypes.data, name)
        assert not out.any()
    codec.read(given.shape, "float16", 2, data.ctypes.data, len(data), out.ctypes.data, b"one")
    assert out.any()


def test_words_are_named():
    for options, said in (({"k": "kv7"}, "k is 'kv7'"), ({"k": "kv4", "rotation": 3}, "rotation is 3"), ({"preset": "small"}, "preset is 'small'"),
                          ({"k": "kv4", "centring": "sequences"}, "centring is 'sequences'"), ({"rotation": 64}, "belong to k")):
        with pytest.raises(kvtile.Error, match=said):
            Codec(64, **options)


def test_addresses_need_no_alignment():
    given, codec = rows((2, 2, 70, 64), "float32"), Codec(64)
    right = write(codec, given, "float32")
    memory = numpy.zeros(given.nbytes + len(right) + 64, "uint8")
    at = memory.ctypes.data + 1
    ctypes.memmove(at, given.ctypes.data, given.nbytes)
    codec.write(given.shape, "float32", 4, at, at + given.nbytes)
    assert (memory[1 + given.nbytes:1 + given.nbytes + len(right)] == right).all()
