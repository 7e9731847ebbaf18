# SPDX-License-Identifier: MIT
"""Chunks of a shared cache as bytes: rows of many layers and heads become pages behind a header, and come back only if all of it is in order.

A chunk is what LMCache hands over: one or several arrays in one block of memory, each
    [2, layers, tokens, heads * head_dim]      keys, then values
    [layers, tokens, latent + rope_dim]        MLA's latents with their rotary parts; [1, ...] is the same
and anything else (rows in FP8, recurrent states), which is kept as it is. docs/python.md has the bytes."""
from __future__ import annotations

import ctypes
import hashlib
import math
import struct
import zlib
from typing import Any, NamedTuple, Optional, Sequence

from kvtile import _library
from kvtile._library import Error, c, check
from kvtile.layouts import PAGE_TOKENS, Layout, Pair

HEADER = struct.Struct("<8sHHIIIII20s20sII16sQII")  # ends with the payload's bytes, its CRC-32, and that of the header before
LAYOUT = struct.Struct("<III4s4s")  # schemes and options of a layout
MAGIC = b"kvtchunk"
VERSION = 2
RAW, PAGES, LATENTS = 0, 1, 2
DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


class _Part(NamedTuple):
    """Tokens of each layer that are stored alike, in pages `offset` bytes behind the layer's first."""

    layout: Layout
    begin: int
    end: int
    offset: int


class _Kind(NamedTuple):
    """How an array is stored: RAW, PAGES or LATENTS."""

    number: int
    parts: list[_Part]
    shape: tuple[int, int, int, int]  # sides, layers, tokens, numbers of a token
    layer_bytes: int
    payload: int


class Codec:
    """The arrays of chunks to bytes and back.

    head_dim   channels of a head: what arrays do not say. Of MLA it does not count
    preset     "balanced", "quality", "compact" or "tight", as kvtile.Layout.preset has them: each chunk's first page is in kv8, as it may be a sequence's
    k, v       schemes instead of a preset; rotation 64, centring "own" and rope "bf16" unless others are given; first: the scheme of each chunk's first
               page, where it is another
    rope_dim   of MLA's latents: channels of the rotary part
    """

    def __init__(self, head_dim: int, preset: str = "balanced", *, k: Optional[str] = None, v: Optional[str] = None, rotation: Optional[Pair] = None,
                 centring: Optional[Pair] = None, first: Optional[str] = None, rope: Optional[str] = None, rope_dim: int = 0) -> None:
        if k is None and any(given is not None for given in (v, rotation, centring, first, rope)):
            raise Error("v, rotation, centring, first and rope belong to k: give k, or a preset alone")
        self.head_dim, self.preset, self.k, self.v, self.first, self.rope_dim = head_dim, preset, k, v, first, rope_dim
        self.rotation, self.centring, self.rope = 64 if rotation is None else rotation, "own" if centring is None else centring, rope or "bf16"
        self._kinds: dict[Any, _Kind] = {}
        self._layouts(head_dim=head_dim, kv_heads=1)  # words that are wrong are found here

    def _layouts(self, **dims: Any) -> tuple[Layout, Optional[Layout]]:
        """Of a chunk's pages, and of its first one where that is another."""
        if self.k is None:
            return Layout.preset(self.preset, **dims)
        options: dict[str, Any] = {"rotation": self.rotation, "centring": self.centring, "rope": self.rope}
        first = Layout(self.first, **{**options, "centring": "none"}, **dims) if self.first else None  # as presets have it
        return Layout(self.k, self.v, **options, **dims), first

    def kind(self, shape: Sequence[int], dtype: str, itemsize: int) -> _Kind:
        """What becomes of an array. Widths that do not fit head_dim are kept as they are."""
        key = (tuple(shape), dtype)
        if key not in self._kinds:
            self._kinds[key] = self._find(key[0], dtype, itemsize)
        return self._kinds[key]

    def _find(self, shape: tuple[int, ...], dtype: str, itemsize: int) -> _Kind:
        four = (1, *shape) if len(shape) == 3 else shape
        raw = _Kind(RAW, [], (0, 0, 0, 0), 0, math.prod(shape) * itemsize)
        if dtype not in DTYPES or len(four) != 4 or 0 in four:
            return raw
        sides, layers, tokens, width = four
        try:
            if sides == 2 and width % self.head_dim == 0:
                number, (layout, first) = PAGES, self._layouts(head_dim=self.head_dim, kv_heads=width // self.head_dim)
            elif sides == 1 and width > self.rope_dim > 0:
                number, (layout, first) = LATENTS, self._layouts(head_dim=width - self.rope_dim, v_dim=0, kv_heads=1, rope_dim=self.rope_dim)
            else:
                return raw
        except Error:  # more channels or heads than a layout has
            return raw
        parts, begin, layer_bytes = [], 0, 0
        for each, end in ((first, min(PAGE_TOKENS, tokens)), (layout, tokens)):
            if each is not None and begin < end:
                parts.append(_Part(each, begin, end, layer_bytes))
                begin, layer_bytes = end, layer_bytes + each.bytes(end - begin)
        return _Kind(number, parts, (sides, layers, tokens, width), layer_bytes, layers * layer_bytes)

    def stored_bytes(self, shape: Sequence[int], dtype: str, itemsize: int) -> int:
        """Exactly what `write` writes."""
        return HEADER.size + self.kind(shape, dtype, itemsize).payload

    def _header(self, kind: _Kind, dtype: str, name: bytes, crc: int) -> bytes:
        described = [_describe(part.layout) for part in kind.parts] + 2 * [bytes(LAYOUT.size)]
        layout = kind.parts[0].layout if kind.parts else None
        head = HEADER.pack(MAGIC, VERSION, _library.FORMAT_VERSION, kind.number, *kind.shape, *described[:2], layout.kv_heads if layout else 0,
                           layout.rope_dim if layout else zlib.crc32(dtype.encode()), hashlib.blake2b(name, digest_size=16).digest(), kind.payload, crc, 0)
        return head[:-4] + struct.pack("<I", zlib.crc32(head[:-4]))

    def write(self, shape: Sequence[int], dtype: str, itemsize: int, rows: int, out: int, name: bytes = b"") -> int:
        """Writes the array at address `rows` to address `out`; returns how many bytes. name: whose array it is, for `read` to compare."""
        kind = self.kind(shape, dtype, itemsize)
        payload = out + HEADER.size
        if kind.number == RAW:
            ctypes.memmove(payload, rows, kind.payload)
        else:
            self._walk(c.write, kind, dtype, itemsize, rows, payload)
        crc = zlib.crc32((ctypes.c_char * kind.payload).from_address(payload))
        ctypes.memmove(out, self._header(kind, dtype, name, crc), HEADER.size)
        return HEADER.size + kind.payload

    def read(self, shape: Sequence[int], dtype: str, itemsize: int, data: int, size: int, rows: int, name: bytes = b"") -> int:
        """Reads an array back, of at most `size` bytes at address `data`, to address `rows`; returns how many bytes it was. Nothing is written, and an
        Error says why, where the bytes are another's, of another shape, other schemes or another version, or where one of them changed."""
        kind = self.kind(shape, dtype, itemsize)
        if size < HEADER.size + kind.payload:
            raise Error(f"data has {size} bytes: {HEADER.size + kind.payload} are right")
        head = ctypes.string_at(data, HEADER.size)
        payload = data + HEADER.size
        crc = zlib.crc32((ctypes.c_char * kind.payload).from_address(payload))
        right = self._header(kind, dtype, name, crc)
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
        _, layers, tokens, width = kind.shape
        number, stride, place = _library.enum("dtype", DTYPES[dtype], "dtype"), width * itemsize, _library.pages()
        for layout, begin, end, offset in kind.parts:
            side, behind = (1, layers * tokens * stride) if layout.v_dim else (2, layout.k_dim * itemsize)  # values, or the rotary part: where they begin
            for layer in range(layers):
                for head in range(layout.kv_heads):
                    check(c.head_pages(layout.c, pages + layer * kind.layer_bytes + offset, end - begin, head, place))
                    at = rows + (layer * tokens + begin) * stride + head * layout.k_dim * itemsize
                    check(call(layout.c, 0, place, 0, end - begin, at, number, stride))
                    check(call(layout.c, side, place, 0, end - begin, at + behind, number, stride))


def _describe(layout: Layout) -> bytes:
    spec, values, rope = layout.c.spec, layout.v_dim > 0, layout.rope_dim > 0
    options = [bytes((side.rotation, side.centring, 0, 0)) for side in (spec.k_options, spec.v_options if values else spec.k_options)]
    return LAYOUT.pack(spec.k_scheme, spec.v_scheme if values else 0, spec.rope_scheme if rope else 0, *options)
