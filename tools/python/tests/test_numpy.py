# SPDX-License-Identifier: MIT
"""Arrays of numpy and torch, by the buffer protocol and DLPack: strides, dtypes, results in place, no copies."""
import kvtile
import numpy
import pytest
import torch

HEADS, DIM = 3, 64
NUMBERS = numpy.random.default_rng(1).standard_normal((HEADS, 100, DIM)).astype("float32")
LAYOUT = kvtile.Layout("f32", head_dim=DIM, kv_heads=HEADS)


def stored(rows, **options):
    store = kvtile.Store(LAYOUT, 100)
    store.write(rows, **options)
    return store.read()


def test_strides():
    turned = numpy.ascontiguousarray(NUMBERS.transpose(1, 0, 2))
    wide = numpy.zeros((HEADS, 100, 3 * DIM), "float32")
    wide[:, :, DIM:2 * DIM] = NUMBERS
    for rows, options in ((NUMBERS, {}), (turned.transpose(1, 0, 2), {}), (turned, {"order": "token,head,dim"}), (wide[:, :, DIM:2 * DIM], {}),
                          (torch.from_numpy(NUMBERS), {}), (torch.from_numpy(turned).transpose(0, 1), {}), (NUMBERS[:, :1], {})):
        found = stored(rows, **options)
        assert isinstance(found, numpy.ndarray) and (found == NUMBERS[:, :found.shape[1]]).all()
    assert (stored(NUMBERS[::-1, ::-1]) == NUMBERS[::-1, ::-1]).all()
    with pytest.raises(kvtile.Error, match=r"^rows has strides of \(\d+, \d+, 8\) bytes: the last axis"):
        stored(numpy.zeros((HEADS, 4, 2 * DIM), "float32")[:, :, ::2])
    with pytest.raises(kvtile.Error, match=r"^rows of side k from token 0 on, 4 tokens: .*stride"):
        stored(numpy.broadcast_to(NUMBERS[:, :1], (HEADS, 4, DIM)))


@pytest.mark.parametrize("dtype, kind", [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_halves(dtype, kind):
    rows = torch.from_numpy(NUMBERS).to(kind)
    store = kvtile.Store(LAYOUT, 100)
    store.write(rows)
    assert (store.read() == rows.float().numpy()).all()
    out = torch.empty(100, HEADS, DIM, dtype=kind)
    assert store.read(out=out, order="token,head,dim") is out and torch.equal(out.transpose(0, 1), rows)
    if dtype == "bf16":
        again = kvtile.Store(LAYOUT, 100)
        again.write(rows.view(torch.int16).numpy(), bf16=True)
        assert (again.read() == store.read()).all()


def test_attention_beside_torch():
    rows = [torch.randn(heads, 300, DIM, generator=torch.Generator().manual_seed(heads)) for heads in (6, HEADS, HEADS)]
    store = kvtile.Store(LAYOUT, 300)
    store.write(rows[1], "k")
    store.write(rows[2], "v")
    right = torch.nn.functional.scaled_dot_product_attention(*[x[None] for x in rows], is_causal=True, enable_gqa=True)[0]
    found = kvtile.attend(rows[0], store, threads=2)
    assert isinstance(found, torch.Tensor) and (found - right).abs().max() < 1e-5
    found = kvtile.attend(rows[0].numpy(), store)
    assert isinstance(found, numpy.ndarray) and numpy.abs(found - right.numpy()).max() < 1e-5
    all_seen = torch.nn.functional.scaled_dot_product_attention(*[x[None] for x in rows], enable_gqa=True)[0]
    assert (kvtile.attend(rows[0], store, causal=False) - all_seen).abs().max() < 1e-5


def test_memory_of_a_file(tmp_path):
    memory = numpy.memmap(tmp_path / "pages", "uint8", "w+", shape=LAYOUT.bytes(100))
    kvtile.Store(LAYOUT, 100, memory).write(NUMBERS)
    memory.flush()
    again = kvtile.Store(LAYOUT, 100, numpy.fromfile(tmp_path / "pages", "uint8"))
    assert (again.read(tokens=100) == NUMBERS).all()


def test_wrong_arrays():
    with pytest.raises(kvtile.Error, match="^rows is f64"):
        stored(NUMBERS.astype("float64"))
    with pytest.raises(kvtile.Error, match="^rows gives no numbers: .*require"):
        stored(torch.zeros(HEADS, 4, DIM, requires_grad=True))
    with pytest.raises(kvtile.Error, match="^rows is of format '>f'"):
        stored(NUMBERS.astype(">f4"))
    with pytest.raises(kvtile.Error, match="^rows gives no numbers: .*meta"):
        stored(torch.zeros(HEADS, 4, DIM, device="meta"))
