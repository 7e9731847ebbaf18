# SPDX-License-Identifier: MIT
"""Chunks of a shared cache as bytes: rows of many layers and heads become pages behind a header, and come back only if all of it is in order.

A chunk is what LMCache hands over: one or several arrays in one block of memory, each
    [2, layers, tokens, heads * head_dim]      keys, then values
    [layers, tokens, latent + rope_dim]        MLA's latents with their rotary parts; [1, ...] is the same
and anything else (rows in FP8, recurrent states), which is kept as it is. docs/python.md has the bytes."""
from __future__ import annotations

import ctypes
import math
import struct
import zlib
from typing import Any, NamedTuple, Optional, Sequence

from kvtile import _library
from kvtile._library import Error, c, check
from kvtile.layouts import Layout, Pair

HEADER = struct.Struct("<8sHHIIIIIIII4s4sIIQII")  # ends with the payload's bytes, its CRC-32, and that of the header before
MAGIC = b"kvtchunk"
VERSION = 1
RAW, PAGES, LATENTS = 0, 1, 2
DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class _Kind(NamedTuple):
    """How an array is stored: RAW, PAGES or LATENTS."""

    number: int
    layout: Optional[Layout]
    shape: tuple[int, int, int, int]  # sides, layers, tokens, numbers of a token
    layer_bytes: int
    payload: int


class Codec:
    """The arrays of chunks to bytes and back.

    head_dim   channels of a head: what arrays do not say. Of MLA it does not count
    k, v, rotation, centring, rope, rope_dim   as kvtile.Layout has them
    """

    def __init__(self, head_dim: int, k: str = "kv4", v: Optional[str] = None, *, rotation: Pair = 64, centring: Pair = "own", rope: str = "bf16",
                 rope_dim: int = 0) -> None:
        self.head_dim, self.k, self.v, self.rotation, self.centring, self.rope, self.rope_dim = head_dim, k, v, rotation, centring, rope, rope_dim
        self._kinds: dict[Any, _Kind] = {}
        self._layout(head_dim, 1)  # words that are wrong are found here

    def _layout(self, head_dim: int, heads: int) -> Layout:
        return Layout(self.k, self.v, head_dim=head_dim, kv_heads=heads, rotation=self.rotation, centring=self.centring)

    def kind(self, shape: Sequence[int], dtype: str, itemsize: int) -> _Kind:
        """What becomes of an array. Widths that do not fit head_dim are kept as they are."""
        key = (tuple(shape), dtype)
        if key not in self._kinds:
            self._kinds[key] = self._find(key[0], dtype, itemsize)
        return self._kinds[key]

    def _find(self, shape: tuple[int, ...], dtype: str, itemsize: int) -> _Kind:
        four = (1, *shape) if len(shape) == 3 else shape
        raw = _Kind(RAW, None, (0, 0, 0, 0), 0, math.prod(shape) * itemsize)
        if dtype not in DTYPES or len(four) != 4 or 0 in four:
            return raw
        sides, layers, tokens, width = four
        try:
            if sides == 2 and width % self.head_dim == 0:
                number, layout = PAGES, self._layout(self.head_dim, width // self.head_dim)
            elif sides == 1 and width > self.rope_dim > 0:
                number = LATENTS
                layout = Layout(self.k, head_dim=width - self.rope_dim, v_dim=0, kv_heads=1, rotation=self.rotation, centring=self.centring,
                                rope=self.rope, rope_dim=self.rope_dim)
            else:
                return raw
        except Error:  # more channels or heads than a layout has
            return raw
        layer_bytes = layout.bytes(tokens)
        return _Kind(number, layout, (sides, layers, tokens, width), layer_bytes, layers * layer_bytes)

    def stored_bytes(self, shape: Sequence[int], dtype: str, itemsize: int) -> int:
        """Exactly what `write` writes."""
        return HEADER.size + self.kind(shape, dtype, itemsize).payload

    def _header(self, kind: _Kind, dtype: str, crc: int) -> bytes:
        schemes, options = (0, 0, 0), bytes(8)
        if kind.layout is not None:
            spec = kind.layout.c.spec
            schemes = (spec.k_scheme, spec.v_scheme if kind.layout.v_dim else 0, spec.rope_scheme if kind.layout.rope_dim else 0)
            sides = (spec.k_options, spec.v_options if kind.layout.v_dim else spec.k_options)
            options = bytes(part for side in sides for part in (side.rotation, side.centring, 0, 0))
        heads = kind.layout.kv_heads if kind.layout is not None else 0
        head = HEADER.pack(MAGIC, VERSION, _library.FORMAT_VERSION, kind.number, *kind.shape, *schemes, options[:4], options[4:], heads,
                           kind.layout.rope_dim if kind.layout is not None else zlib.crc32(dtype.encode()), kind.payload, crc, 0)
        return head[:-4] + struct.pack("<I", zlib.crc32(head[:-4]))

    def write(self, shape: Sequence[int], dtype: str, itemsize: int, rows: int, out: int) -> int:
        """Writes the array at address `rows` to address `out`; returns how many bytes."""
        kind = self.kind(shape, dtype, itemsize)
        payload = out + HEADER.size
        if kind.number == RAW:
            ctypes.memmove(payload, rows, kind.payload)
        else:
            self._walk(c.write, kind, dtype, itemsize, rows, payload)
        crc = zlib.crc32((ctypes.c_char * kind.payload).from_address(payload))
        ctypes.memmove(out, self._header(kind, dtype, crc), HEADER.size)
        return HEADER.size + kind.payload

    def read(self, shape: Sequence[int], dtype: str, itemsize: int, data: int, size: int, rows: int) -> int:
        """Reads an array back, of at most `size` bytes at address `data`, to address `rows`; returns how many bytes it was. Nothing is written, and an
        Error says why, where the bytes are of another array, other schemes or another version, or where one of them changed."""
        kind = self.kind(shape, dtype, itemsize)
        if size < HEADER.size + kind.payload:
            raise Error(f"data has {size} bytes: {HEADER.size + kind.payload} are right")
        head = ctypes.string_at(data, HEADER.size)
        payload = data + HEADER.size
        crc = zlib.crc32((ctypes.c_char * kind.payload).from_address(payload))
        right = self._header(kind, dtype, crc)
        if head != right:
            if zlib.crc32(head[:-4]) != struct.unpack("<I", head[-4:])[0] or head[:8] != MAGIC:
                raise Error("data begins with no header of a chunk, or with a damaged one")
            if head[:-8] == right[:-8]:
                raise Error("data has changed since it was written: its checksum differs")
            raise Error(f"data is a chunk of another kind: {HEADER.unpack(head)[1:-2]}, and not {HEADER.unpack(right)[1:-2]}")
        if kind.number == RAW:
            ctypes.memmove(rows, payload, kind.payload)
        else:
            self._walk(c.read, kind, dtype, itemsize, rows, payload)
        return HEADER.size + kind.payload

    def _walk(self, call: Any, kind: _Kind, dtype: str, itemsize: int, rows: int, pages: int) -> None:
        """kvt_write or kvt_read of every layer, head and side. ctypes lets other threads run meanwhile."""
        layout, (_, layers, tokens, width) = kind.layout, kind.shape
        assert layout is not None
        number, stride, place = _library.enum("dtype", DTYPES[dtype], "dtype"), width * itemsize, _library.pages()
        second = (1, layers * tokens * stride) if layout.v_dim else (2, layout.k_dim * itemsize)  # values, or the rotary part: where they begin
        for layer in range(layers):
            for head in range(layout.kv_heads):
                check(c.head_pages(layout.c, pages + layer * kind.layer_bytes, tokens, head, place))
                at = rows + layer * tokens * stride + head * layout.k_dim * itemsize
                check(call(layout.c, 0, place, 0, tokens, at, number, stride))
                check(call(layout.c, second[0], place, 0, tokens, at + second[1], number, stride))
