# SPDX-License-Identifier: MIT
"""A layer of a step of a batch (kvtile/step.h): views of blocks, sequences, and the three calls on any number of threads."""
from __future__ import annotations

import array
import ctypes
import threading
import weakref
from typing import Any, Iterable, Optional, Sequence as Items

from kvtile import _arrays, _library
from kvtile._arrays import Array
from kvtile._library import c, check
from kvtile.layouts import Layout, allocate, in_threads, positive

NO_BLOCK: int = _library.NO_BLOCK


class View:
    """Where blocks are: blocks of 64 tokens of all KV heads, for layers that store alike. Which sequence has which block is the caller's to decide.

    first    the layout of a sequence's first page, where that is another (Layout.preset)
    open     "f32", "f16" or "bf16": rows of the newest two pages are kept as they came; None: they go to their pages at once
    blocks, first_blocks, open_blocks   how many there are of each
    """

    def __init__(self, layout: Layout, first: Optional[Layout] = None, *, layers: int, blocks: int, first_blocks: int = 0, open: Optional[str] = None,
                 open_blocks: int = 0) -> None:
        self.layout, self.first, self.layers = layout, first, positive(layers, "layers", 1)
        self.blocks, self.first_blocks, self.open_blocks = positive(blocks, "blocks"), positive(first_blocks, "first_blocks"), positive(open_blocks, "open_blocks")
        self.memory: dict[str, Any] = {}
        self.c = _library.view(size=ctypes.sizeof(_library.view), layout=ctypes.pointer(layout.c), layers=layers)
        self._pool("pages", layout.page_bytes, blocks)
        if first is not None:
            self.c.first_layout = ctypes.pointer(first.c)
            self._pool("first_pages", first.page_bytes, first_blocks)
        if open is not None:
            self.c.open_dtype = _library.enum("dtype", open, "open")
            size = ctypes.c_size_t()
            check(c.view_open_bytes(layout.c, self.c.open_dtype, ctypes.byref(size)), "open")
            self._pool("open_pages", size.value, open_blocks)
        check(c.view_problem(self.c, None, 0), "", c.view_problem, self.c)
        self._of_thread = threading.local()

    @classmethod
    def around(cls, layout: Layout, view: Any, owner: Any) -> View:
        """A view that is there already, in memory that `owner` keeps."""
        found = cls.__new__(cls)
        found.layout, found.c, found.memory, found._of_thread = layout, view, {"owner": weakref.proxy(owner)}, threading.local()
        return found

    def _pool(self, name: str, bytes_: int, blocks: int) -> None:
        heads = self.layout.kv_heads
        self.memory[name] = allocate(self.layers * blocks * heads * bytes_)
        where = _arrays.memory(self.memory[name], name, 1)
        setattr(self.c, name, _library.pool(where.address, blocks, blocks * heads * bytes_, heads * bytes_, bytes_))

    def _room(self, sequences: int, tokens: int, fresh: int, heads: int, workers: int) -> tuple[int, int]:
        """This thread's workspace, for steps up to that size."""
        mine, want = self._of_thread, (sequences, tokens, fresh, heads, workers)
        have = getattr(mine, "limits", (0,) * 5)
        if any(a > b for a, b in zip(want, have)):
            mine.limits = tuple(max(a, b) for a, b in zip(want, have))
            size = ctypes.c_size_t()
            check(c.step_workspace(self.c, _library.step_limits(*mine.limits), ctypes.byref(size)), "workspace")
            mine.workspace = _arrays.memory(allocate(size.value), "workspace", 1)
        return mine.workspace.address, mine.workspace.shape[0]

    def step(self, layer: int, sequences: Items[Any], q: Array, k: Optional[Array], v: Optional[Array], *, out: Optional[Array] = None,
             scale: Optional[float] = None, soft_cap: float = 0.0, window: int = 0, sinks: Optional[Array] = None, slopes: Optional[Array] = None,
             lse: Optional[Array] = None, threads: int = 1) -> Array:
        """Stores k and v of the sequences' new tokens, and attends. Rows are [token][head][dim], tokens numbered through the batch.

        After a step's last layer, add `fresh` to `stored` of each sequence. k and v are None in a layer that shares another's cache."""
        layout = self.layout
        fresh = sum(sequence.fresh for sequence in sequences)
        channels = layout.k_dim + layout.rope_dim
        shape = _arrays.numbers(q, "q").shape
        heads = shape[1] if len(shape) == 3 else layout.kv_heads
        if heads == 0 or heads % layout.kv_heads:
            raise _library.Error(f"q has {heads} heads: a multiple of the {layout.kv_heads} KV heads is right; its order is 'token,head,dim'")
        queries = _arrays.rows(q, "q", (fresh, heads, channels))
        width = layout.v_dim or layout.k_dim
        if out is None:
            out = _arrays.empty((fresh, heads, width), queries.dtype, q)
        results = _arrays.rows(out, "out", (fresh, heads, width), writable=True)
        keys = _arrays.rows(k, "k", (fresh, layout.kv_heads, layout.k_dim), (queries.dtype,)) if k is not None else None
        if (v is None) != (k is None) and (layout.v_dim or layout.rope_dim):
            raise _library.Error("k is given without v, or v without k: both are right, or neither")
        values = _arrays.rows(v, "v", (fresh, layout.kv_heads, layout.v_dim or layout.rope_dim), (queries.dtype,)) if v is not None else None
        extra = {}
        for name, given in (("sinks", sinks), ("slopes", slopes)):
            extra[name] = _arrays.rows(given, name, (heads,), ("f32",)) if given is not None else None
        logs = _arrays.rows(lse, "lse", (fresh, heads), ("f32",), writable=True) if lse is not None else None
        if logs is not None and logs.strides[0] != 4 * heads:
            raise _library.Error("lse has gaps between its rows: without gaps is right")
        workers = positive(threads, "threads", 1)
        most = max((sequence.stored + sequence.fresh for sequence in sequences), default=0)
        workspace, size = self._room(len(sequences), most, fresh, heads, workers)
        step = _library.step(
            size=ctypes.sizeof(_library.step), view=ctypes.pointer(self.c), layer=positive(layer, "layer"), n_sequences=len(sequences),
            sequences=(_library.sequence * len(sequences))(*[sequence._fill() for sequence in sequences]), heads=heads,
            dtype=_library.enum("dtype", queries.dtype, "q"), q=queries.address, q_token_stride=queries.strides[0], q_head_stride=queries.strides[1],
            out=results.address, out_token_stride=results.strides[0], out_head_stride=results.strides[1],
            out_dtype=_library.enum("dtype", results.dtype, "out"), scale=channels ** -0.5 if scale is None else scale, soft_cap=soft_cap,
            window=positive(window, "window"), workspace=workspace, workspace_bytes=size)
        for name, found in (("k", keys), ("v", values)):
            if found is not None:
                setattr(step, name, found.address)
                setattr(step, name + "_token_stride", found.strides[0])
                setattr(step, name + "_head_stride", found.strides[1])
        for name, found in (("sinks", extra["sinks"]), ("slopes", extra["slopes"]), ("lse", logs)):
            if found is not None:
                setattr(step, name, found.address)
        run_step(step, workers, append=k is not None)
        return out

    def write(self, sequence: Sequence, rows: Array, *, first_layer: int = 0, first_token: int = 0) -> None:
        """Stores rows [side][layer][token][head][dim] of whole pages: side 0 are keys, side 1 values."""
        self._rows(sequence, rows, first_layer, first_token, False)

    def read(self, sequence: Sequence, out: Array, *, first_layer: int = 0, first_token: int = 0) -> Array:
        """Reads tokens that are stored into out, [side][layer][token][head][dim]."""
        self._rows(sequence, out, first_layer, first_token, True)
        return out

    def _rows(self, sequence: Sequence, rows: Array, first_layer: int, first_token: int, reading: bool) -> None:
        name, layout = ("out" if reading else "rows"), self.layout
        if layout.v_dim != layout.k_dim:
            raise _library.Error(f"{name} needs keys and values of one width: the layout has {layout.k_dim} and {layout.v_dim}")
        found = _arrays.rows(rows, name, (2, "layers", "tokens", layout.kv_heads, layout.k_dim), writable=reading)
        side, layer, token, head = found.strides[:4]
        question = _library.view_rows(
            size=ctypes.sizeof(_library.view_rows), view=ctypes.pointer(self.c), sequence=ctypes.pointer(sequence._fill()),
            first_token=positive(first_token, "first_token"), n_tokens=found.shape[2], first_layer=positive(first_layer, "first_layer"),
            layers=found.shape[1], rows=found.address, dtype=_library.enum("dtype", found.dtype, name), side_stride=side, layer_stride=layer,
            token_stride=token, head_stride=head)
        check((c.view_read if reading else c.view_write)(question, 0, 1),
              f"{name} of layers {first_layer} to {first_layer + found.shape[1] - 1}, tokens {first_token} to {first_token + found.shape[2] - 1}")


class Sequence:
    """A sequence's blocks and tokens. `blocks` are ids in order, of pages 0, 1 and so on; with a first layout blocks[0] counts among the first pages'.

    open    two blocks of open pages: even pages' rows, odd pages'
    stored  tokens before the step; fresh: new tokens of the step
    """

    def __init__(self, blocks: Iterable[int], *, open: Items[int] = (NO_BLOCK, NO_BLOCK), stored: int = 0, fresh: int = 0) -> None:
        self.blocks = array.array("I", blocks)
        self.open, self.stored, self.fresh = list(open), positive(stored, "stored"), positive(fresh, "fresh")

    def _fill(self) -> Any:
        if len(self.open) != 2:
            raise _library.Error(f"open is {self.open!r}: two blocks are right, of even pages and of odd pages")
        return _library.sequence(blocks=self.blocks.buffer_info()[0], n_blocks=len(self.blocks), open=(ctypes.c_uint32 * 2)(*self.open),
                                 stored=positive(self.stored, "stored"), fresh=positive(self.fresh, "fresh"))


def run_step(step: Any, workers: int, append: bool = True, pointer: Any = None) -> None:
    """The three calls, each by all workers; every one has ended before the next begins. `pointer` to the step spares its making."""
    calls = (c.step_append, c.step_attend, c.step_merge) if append else (c.step_attend, c.step_merge)
    pointer = pointer or ctypes.byref(step)
    for call in calls:
        if workers == 1:
            status = call(pointer, 0, 1)
            if status:
                check(status, "", c.step_problem, step)
        else:
            in_threads(lambda worker: check(call(pointer, worker, workers), "", c.step_problem, step), workers, workers)
