# SPDX-License-Identifier: MIT
"""A cache of many sequences (kvtile/cache.h): blocks that are shared, given back and copied by the library itself."""
from __future__ import annotations

import ctypes
import weakref
from typing import Any, NamedTuple, Optional, Sequence as Items

from kvtile import _arrays, _library
from kvtile._arrays import Array
from kvtile._library import Error, c, check
from kvtile.layouts import Layout, allocate, in_threads, positive
from kvtile.steps import View

NO_SEQUENCE: int = _library.NO_SEQUENCE


class Group(NamedTuple):
    """Layers that store alike. `blocks` of 64 tokens are for all sequences together; the others as kvt_cache_group has them."""

    layout: Layout
    layers: int
    blocks: int
    first: Optional[Layout] = None
    open: Optional[str] = None
    window: int = 0
    spare: int = 0
    first_kept: int = 0


class Statistics(NamedTuple):
    """Bytes of the whole cache, and how many blocks of a group's pages there are, are free, are shared."""

    memory_bytes: int
    blocks: int
    free: int
    shared: int


class Cache:
    """Sequences in blocks.

        cache = kvtile.Cache([kvtile.Group(layout, layers=32, blocks=1000, first=first, open="bf16")], sequences=8, tokens=8192)
        sequence = cache.new()
        sequence.append(150)                                # blocks for so many new tokens
        out = cache.step(layer, [sequence], q, k, v)        # of each layer: rows are [token][head][dim]
        sequence.commit()                                   # they count as stored
    """

    def __init__(self, groups: Items[Group], *, sequences: int, tokens: int) -> None:
        self.groups = list(groups)
        given = (_library.cache_group * len(self.groups))()
        for each, group in zip(given, self.groups):
            each.size, each.spec = ctypes.sizeof(_library.cache_group), ctypes.pointer(group.layout.c.spec)
            if group.first is not None:
                each.first_spec = ctypes.pointer(group.first.c.spec)
            each.open_dtype = _library.enum("dtype", group.open, "open") if group.open is not None else 0
            for name in ("layers", "blocks", "window", "spare", "first_kept"):
                setattr(each, name, positive(getattr(group, name), name))
        spec = _library.cache_spec(size=ctypes.sizeof(_library.cache_spec), groups=given, n_groups=len(self.groups),
                                   sequences=positive(sequences, "sequences", 1), tokens=positive(tokens, "tokens", 1))
        size = ctypes.c_size_t()
        check(c.cache_bytes(spec, ctypes.byref(size)), "", c.cache_spec_problem, spec)
        self._memory = allocate(size.value)
        self.c = ctypes.c_void_p()
        check(c.cache_init(spec, _arrays.memory(self._memory, "memory", size.value).address, size.value, ctypes.byref(self.c)), "", c.cache_spec_problem,
              spec)
        self.views = [View.around(group.layout, c.cache_view(self.c, i).contents, self) for i, group in enumerate(self.groups)]

    def check(self, status: int, id: int) -> None:
        """Raises what the last call for a sequence had to say."""
        if status:
            text = ctypes.create_string_buffer(512)
            c.cache_problem(self.c, id, text, len(text))
            check(status, text.value.decode())

    def new(self) -> Sequence:
        """An empty sequence. It is given back when nobody holds it any more, or by its free()."""
        id = ctypes.c_uint32()
        self.check(c.cache_new(self.c, ctypes.byref(id)), NO_SEQUENCE)
        return Sequence(self, id.value)

    def step(self, layer: int, sequences: Items[Sequence], q: Array, k: Optional[Array], v: Optional[Array], *, group: int = 0, **options: Any) -> Array:
        """A layer of its group for a batch, as View.step has it."""
        return self.views[group].step(layer, [_Entry(sequence, group) for sequence in sequences], q, k, v, **options)

    def statistics(self, group: int = 0) -> Statistics:
        found = _library.cache_statistics(size=ctypes.sizeof(_library.cache_statistics))
        check(c.cache_measure(self.c, positive(group, "group"), found), f"group is {group}")
        return Statistics(found.memory_bytes, found.pages.all, found.pages.free, found.pages.shared)


class Sequence:
    """A sequence of a Cache."""

    def __init__(self, cache: Cache, id: int) -> None:
        self.cache, self.id = cache, id
        self._end = weakref.finalize(self, c.cache_free, cache.c, id)
        self._end.atexit = False

    @property
    def stored(self) -> int:
        return int(c.cache_tokens(self.cache.c, self.id))

    @property
    def fresh(self) -> int:
        return int(c.cache_fresh(self.cache.c, self.id))

    def append(self, fresh: int) -> None:
        self.cache.check(c.cache_append(self.cache.c, self.id, positive(fresh, "fresh")), self.id)

    def commit(self, accepted: Optional[int] = None) -> None:
        """The first new tokens count as stored, all of them unless it is said how many; the others are taken back."""
        self.cache.check(c.cache_commit(self.cache.c, self.id, self.fresh if accepted is None else positive(accepted, "accepted")), self.id)

    def truncate(self, tokens: int) -> None:
        """Only the first tokens stay."""
        self.cache.check(c.cache_truncate(self.cache.c, self.id, positive(tokens, "tokens")), self.id)

    def fork(self) -> Sequence:
        """Another sequence with the same tokens, in the same blocks until one of the two writes."""
        id = ctypes.c_uint32()
        self.cache.check(c.cache_fork(self.cache.c, self.id, ctypes.byref(id)), self.id)
        return Sequence(self.cache, id.value)

    def remove(self, first: int, end: int, *, close: bool = True, threads: int = 1) -> None:
        """Tokens first to end - 1 go. close: those behind move up, as if what is removed had never been; otherwise positions stay with their tokens."""
        positions = _library.enum("positions", "close" if close else "keep", "close")
        self.cache.check(c.cache_remove(self.cache.c, self.id, positive(first, "first"), positive(end, "end"), positions), self.id)
        size = c.cache_work_bytes(self.cache.c)
        spaces = [allocate(size) for _ in range(positive(threads, "threads", 1))]

        def work(worker: int) -> None:
            at = _arrays.memory(spaces[worker], "workspace", 1).address
            self.cache.check(c.cache_work(self.cache.c, self.id, worker, threads, at, len(spaces[worker])), self.id)

        in_threads(work, threads, threads)

    def free(self) -> None:
        """Gives its blocks back."""
        self._end()


class _Entry:
    """What View.step asks of a sequence."""

    def __init__(self, sequence: Sequence, group: int) -> None:
        self.sequence, self.group, self.stored, self.fresh = sequence, group, sequence.stored, sequence.fresh

    def _fill(self) -> Any:
        entry = _library.sequence()
        self.sequence.cache.check(c.cache_entry(self.sequence.cache.c, self.sequence.id, self.group, entry), self.sequence.id)
        return entry
